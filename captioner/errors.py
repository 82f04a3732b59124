"""The common base of errors whose message is meant for the person at the keyboard."""

import re

# Halves of characters, too, but for those that stand for the bytes of a file name that is not text.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udc7f\udd00-\udfff]")


def one_line(text: object) -> str:
    """Other people's text, fit for a terminal: control characters as Python writes them."""
    return _CONTROL.sub(lambda match: repr(match[0])[1:-1], str(text))


class UserError(ValueError):
    """Something that the user can mend: the message says what was wrong with what, and what to do."""


class CheckpointError(UserError):
    """A file is not a checkpoint that this version can load; the message says what is wrong with it."""
