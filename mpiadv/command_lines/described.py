"""A command line as a table, and a parser of it that refuses in one line. Knows no command."""

import argparse
import difflib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NoReturn

from mpiadv.process.errors import UserError, shown

TRUST_OPTION = "--trust-code"
"""Says on a command line that files may choose what code is run."""

Table = Mapping[str, Mapping[str, Any]]
"""Options, or words by position, and what argparse is to know of each."""

EXIT_CODES = "Exit codes: 0 finished, 1 failed, 2 bad input, 75 interrupted: --resume goes on"


def flag(told: str) -> Mapping[str, Any]:
    """An option that is said or not; `told` is its help."""
    return {"action": "store_true", "help": told}


def value(
    metavar: str, told: str, kind: Callable[[str], Any] = str, default: Any = None
) -> Mapping[str, Any]:
    """An option with a value, which `kind` reads."""
    return {"metavar": metavar, "help": told, "type": kind, "default": default}


def repeated(metavar: str, told: str, kind: Callable[[str], Any] = str) -> Mapping[str, Any]:
    """An option with a value that may be said several times: a list."""
    told = f"{told}; may be repeated"
    return {"metavar": metavar, "help": told, "type": kind, "default": [], "action": "append"}


def words(nargs: str, metavar: str, told: str) -> Mapping[str, Any]:
    """Words by position."""
    return {"nargs": nargs, "metavar": metavar, "help": told}


TRUSTED: Table = {
    TRUST_OPTION: flag("run the functions that a file names as its model or data set")
}
CONFIGURED: Table = {
    "words": words(
        "*",
        "CONFIG|KEY=VALUE",
        "a YAML file, without one the digits defaults, and settings, as section.key=value",
    )
}

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
        return self._elsewhere.get(unknown, nearest_option(unknown, self._option_string_actions))


def nearest_option(unknown: str, options: Iterable[str]) -> str:
    """The one of `options` that an unknown one is nearest to; empty where none is near."""
    known = [option for option in options if option.startswith("--")]
    return next(iter(difflib.get_close_matches(unknown, known, n=1, cutoff=0.7)), "")


@dataclass(frozen=True, kw_only=True)
class Described:
    """What may be said after a command.

    Attributes:
        name: the command's first word; empty: training, which has none.
        example: how it is used, and `summary` what for, in the help of all.
        about: what it does, at the top of its own help, which ends in `epilog`.
        usage: the head of its own help; None: as argparse has it.
        elsewhere: options of other commands, and how these are said.
    """

    name: str
    example: str
    summary: str
    about: str
    words: Table
    options: Table
    epilog: str = ""
    usage: str | None = None
    elsewhere: Mapping[str, str] = field(default_factory=dict)

    def parser(self) -> CommandLine:
        line = CommandLine(
            prog=f"mpiadv {self.name}".strip(),
            usage=self.usage,
            description=self.about,
            epilog=self.epilog,
            elsewhere=self.elsewhere,
        )
        for name, settings in {**self.words, **self.options}.items():
            line.add_argument(name, **settings)
        return line

    def read(self, words: Sequence[str]) -> argparse.Namespace | None:
        """What `words` ask for; None: for help alone, which is printed then.

        Raises:
            UserError: they are none of the command line's.
        """
        parser = self.parser()
        # What is to come behind everything else cannot be mixed with it.
        is_mixed = all(each.get("nargs") != argparse.REMAINDER for each in self.words.values())
        parse = parser.parse_intermixed_args if is_mixed else parser.parse_args
        try:
            return parse(words)
        except SystemExit:
            return None
