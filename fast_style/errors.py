"""The errors that a user can mend, and others that are no bug of this program.

A message names the thing, the value and the cure. The commands print it in one line; any other
error, but the operating system's own, is a bug of this program, and is shown as one.
"""


class UserError(ValueError):
    """What was asked for cannot be done, and whoever asked can mend it: the base of all kinds."""


class ProcessLostError(UserError, RuntimeError):
    """Another process of the run has ended, or cannot be reached."""


class ToldElsewhereError(RuntimeError):
    """Another process of the run reports the error; this one ends in silence."""
