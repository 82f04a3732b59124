"""The common base of errors whose message is meant for the person at the keyboard."""


class UserError(ValueError):
    """Something that the user can mend: the message says what was wrong with what, and what to do."""


class CheckpointError(UserError):
    """A file is not a checkpoint that this version can load; the message says what is wrong with it."""
