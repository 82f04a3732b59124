"""Every error that a person can mend, as one small tree.

    CaptionerError          the base: catch it to catch them all
    ├── OptionError         an option has a value that is impossible, or that contradicts another option
    ├── InputError          what was given leads to no pictures: a path, a pattern, an address, a zip
    ├── ImageError          a picture cannot be read
    ├── DataError           captions, references, predictions or split lists are not as they should be
    ├── CheckpointError     a checkpoint or pretrained weights are missing, damaged or of another network
    ├── DeviceError         this machine lacks what was asked for: a device, an engine, a cluster
    ├── OutputError         an output is in the way, or belongs to another run
    └── TrainingError       training cannot begin or cannot go on

Each message says what is wrong with what, and what to do about it. Errors of the operating system stay OSError.
"""

import re
from collections.abc import Sequence

_OF_LIGHT = ("raw", "metadata", "watch", "serve")  # the extras of packaging/light/pyproject.toml
# Lone surrogates, too, except those that stand for the bytes of a file name that is not valid text.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udc7f\udd00-\udfff]")


def one_line(text: object) -> str:
    """Other people's text, safe to print in a terminal: control characters are written as Python writes them."""
    return _CONTROL.sub(lambda match: repr(match[0])[1:-1], str(text))


def some(names: Sequence[str], shown: int = 3) -> str:
    """The first of the names, for a message."""
    return ", ".join(names[:shown]) + (", ..." if len(names) > shown else "")


def counted(number: int, noun: str) -> str:
    """A number of things, for a message: "1 epoch", "2 epochs"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def reason_of(error: Exception, path: str) -> str:
    """What went wrong with a file, for a message. Errors of the operating system do not name it as people do."""
    return f"{path}: {error.strerror or error}" if isinstance(error, OSError) else str(error)


def to_install(extra: str) -> str:
    """How to install an extra, for a message."""
    if extra in _OF_LIGHT and _is_light():
        return f'pip install "captioner-light[{extra}]"'
    return f'{_before()}pip install "captioner[{extra}]" (in a clone: pip install -e ".[{extra}]")'


def to_install_torch() -> str:
    """How to install all that the light distribution leaves out, for a message."""
    return f"{_before()}pip install captioner"


def _before() -> str:
    """What has to be done first: both distributions hold the same files."""
    return "pip uninstall captioner-light, then " if _is_light() else ""


def _is_light() -> bool:
    """Whether this package came with the distribution captioner-light alone."""
    from importlib.metadata import packages_distributions  # takes long to import, and errors are rare

    return set(packages_distributions().get("captioner", ())) == {"captioner-light"}


class CaptionerError(Exception):
    """The base of all errors whose message is meant for the person who runs captioner."""


class OptionError(CaptionerError):
    """An option has an impossible value, or contradicts another option."""


class InputError(CaptionerError):
    """What was given leads to no pictures."""


class ImageError(CaptionerError):
    """A picture cannot be read; the message names it and says why."""


class DataError(CaptionerError):
    """Captions, references, predictions or split lists are not as they should be."""


class CheckpointError(CaptionerError):
    """A checkpoint or pretrained weights cannot be loaded."""


class DeviceError(CaptionerError):
    """This machine or cluster lacks what was asked for."""


class OutputError(CaptionerError):
    """An output is in the way, or belongs to another run."""


class TrainingError(CaptionerError):
    """Training cannot begin or cannot go on; the message says what was saved."""
