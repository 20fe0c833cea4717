"""A command line that refuses in one line. Knows no command."""

import argparse
import difflib
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NoReturn

from mpiadv.process.errors import UserError, shown

TRUST_OPTION = "--trust-code"
"""Says on a command line that files may choose what code is run."""

TRUST_HELP = "run the functions that files name in model.name and data.name, as module:function"

_UNSET = ": is a variable of the shell not set?"
_UNKNOWN = "unrecognized arguments: "


class CommandLine(argparse.ArgumentParser):
    """A command line that refuses with a `UserError`, abbreviated options too.

    The line begins with the command, `prog` without "mpiadv", and ends in where its help is.
    `elsewhere` are options of other commands, and how these are said.
    """

    def __init__(self, *, elsewhere: Mapping[str, str] | None = None, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)
        self._elsewhere = dict(elsewhere or {})

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As every way of parsing begins; an empty word is refused, not passed over."""
        words = sys.argv[1:] if args is None else list(args)
        for before, word in pairwise(["", *words]):
            if not word or (word.startswith("--") and word.endswith("=")):
                behind = f" behind {shown(word or before)}" if word or before else ""
                self.error(f"there is an empty word{behind}{_UNSET}")
        return super().parse_known_args(words, namespace)

    def error(self, message: str) -> NoReturn:
        command = self.prog.partition(" ")[2]
        told = f"{command}: {message}" if command else message
        meant = self._meant(message)
        see = f": did you mean {meant}? See" if meant else " See" if told[-1] == "?" else ": see"
        raise UserError(f"{told}{see} {self.prog} --help")

    def _meant(self, message: str) -> str:
        """What an unknown option may have been meant for; empty where nothing is near."""
        if not message.startswith(_UNKNOWN):
            return ""
        unknown = message.removeprefix(_UNKNOWN).partition(" ")[0].partition("=")[0]
        known = [option for option in self._option_string_actions if option.startswith("--")]
        near = difflib.get_close_matches(unknown, known, n=1, cutoff=0.7)
        return self._elsewhere.get(unknown, near[0] if near else "")


def is_answered(described: CommandLine, words: Sequence[str]) -> bool:
    """Whether `words` ask for help alone, which is printed then.

    Raises:
        UserError: they are none of the command line's.
    """
    try:
        described.parse_intermixed_args(words)
    except SystemExit:
        return True
    return False
