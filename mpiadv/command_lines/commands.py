"""The commands, by their first words, and what was meant by words that are none of them."""

import difflib
import os
import re

from mpiadv.process.errors import UserError

COMMANDS = ("evaluate", "job", "launch", "plan", "report", "study", "submit", "visualize", "watch")
"""First words. A configuration that is called `launch` is `./launch`."""

_MEANT = {
    **{name: name for name in COMMANDS},
    **{word: "CONFIG, which trains" for word in ("train", "training", "run", "start")},
    "resume": "CONFIG --resume",
    "help": "--help",
    "version": "--version",
}

_MAY_BE_COMMAND = re.compile(r"[A-Za-z][\w-]*")
"""No ending, no folder, no setting: anything else is a configuration, or an error about one."""


def require_no_misspelt(words: list[str], start: str = "mpiadv") -> None:
    """Refuse a first word that was meant as a command behind `start`, and is no file.

    Raises:
        UserError: it says which command is near.
    """
    if not words or not _MAY_BE_COMMAND.fullmatch(words[0]) or os.path.exists(words[0]):
        return
    for meant in difflib.get_close_matches(words[0].lower(), _MEANT, n=1):
        raise UserError(f"no command {words[0]}: did you mean {start} {_MEANT[meant]}?")
