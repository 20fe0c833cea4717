"""The command line of studies."""

import argparse

from mpiadv.command_lines.described import Described, flag, repeated, value, words
from mpiadv.command_lines.numbers import one_of, whole

STUDIES = {
    "headline": "40 attack steps against 8, one rank against several: the paper's 26 times",
    "power": "train with k = 1, 2, 4, ... attack steps, attack with each (figures 3 and 4)",
    "speedup": "speed-up over one rank, with and without the trainer crafting (figure 9)",
    "staleness": "how old the parameters behind attacks may be, and what refreshing them buys",
    "transfer": "examples made on one network judged by another (table 1)",
}
"""What each shows."""

PRESETS = ("smoke", "small", "paper")
"""Told by the help, which loads no study; a test compares both with those that there are."""


def _share(text: str) -> tuple[int, int]:
    number, _, count = text.partition("/")
    is_whole = text.isascii() and number.isdigit() and count.isdigit() and len(count) < 7
    if not (is_whole and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError(f"{text[:40]}: expected I/N, from 1/N to N/N")
    return int(number), int(count)


STUDY = Described(
    name="study",
    example="study power ...",
    summary="rerun a study of the paper, from its runs to its figures",
    about="Rerun a study of Bhat, Tsipras and Madry (2019): train what it needs, attack the "
    "trained networks, write results.md, results.html and figures. What is done is not done again. "
    f"Studies: {'; '.join(f'{name}: {summary}' for name, summary in STUDIES.items())}.",
    epilog="Exit codes: 0 done, 1 some runs failed, 2 bad input, 75 interrupted: the same command "
    "goes on.",
    words={
        "name": value("NAME", f"one of {', '.join(STUDIES)}", one_of("study", STUDIES)),
        "words": words(
            "*", "KEY=VALUE",
            "settings of all runs, as section.key=value, or of the study, as study.key=value",
        ),
    },
    options={
        "--preset": {
            **value(
                "|".join(PRESETS), "smoke: seconds on the digits; small: hours on MNIST with two "
                "cores; paper: the paper's setting, for GPUs", one_of("preset", PRESETS),
            ),
            "required": True,
        },
        "--output": value("FOLDER", "of the study; studies/NAME-PRESET without it"),
        "--jobs": value(
            "N", "how many runs at a time; as many as there are cores without it", whole(1, 10_000)
        ),
        "--share": value(
            "I/N", "do only the I-th of N shares, 1/N to N/N, for several machines with one "
            "folder; the command without it then draws", _share, (1, 1),
        ),
        "--reuse": repeated("FOLDER", "take finished runs of the same settings from another study"),
        "--long": flag("the long version, of studies that have one"),
    },
)  # fmt: skip

read = STUDY.read
