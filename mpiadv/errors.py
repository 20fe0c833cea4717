"""The errors a user meets. Knows nothing of the rest of the package."""


class UserError(Exception):
    """Bad input: one clear line saying what was wrong, what was expected and what to do.

    Entry points print the line once, without a traceback, and every rank exits with code 2.
    """


class DeadlineError(RuntimeError):
    """A wait took longer than its deadline; the text says for which rank and which ticket."""


class NonFiniteLossError(RuntimeError):
    """The training loss is NaN or infinite; the text says at which step and ticket."""
