"""The command lines that are tables and no more: of training, planning, reports and studies."""

import argparse

from mpiadv.command_lines.described import (
    CONFIGURED,
    EXIT_CODES,
    TRUSTED,
    Described,
    flag,
    repeated,
    value,
    words,
)
from mpiadv.command_lines.numbers import number, one_of, whole

TRAIN = Described(
    name="",
    example="CONFIG ...",
    summary="train on one rank, or on those of the mpirun or srun around it",
    about="Train a robust classifier. Rank 0 trains, all other ranks craft attacks.",
    epilog=EXIT_CODES,
    words=CONFIGURED,
    options={
        "--resume": flag("go on from the last checkpoint in the run's folder"),
        **TRUSTED,
        "--print-config": flag("print every setting with its value, and stop"),
    },
    elsewhere={
        **dict.fromkeys(("-n", "-np", "--np", "-c"), "mpiadv launch -n 4 CONFIG"),
        "--fault-tolerant": "mpiadv launch -n 4 --fault-tolerant CONFIG",
        "--trainers": "mpiadv launch -n 4 --trainers 2 CONFIG",
    },
)

MOST_RANKS = 1024
"""How a job goes on is simulated rank by rank."""

_one_rank_or_more = whole(1, MOST_RANKS)


def _ranks(text: str) -> list[int]:
    return [_one_rank_or_more(word) for word in text.split(",")]


PLAN = Described(
    name="plan",
    example="plan CONFIG",
    summary="say how fast a job will be on how many ranks, and what limits it",
    about="Measure how long crafting and training take on this machine, a few batches of each, "
    "and say how fast the job is on several numbers of ranks, and what limits it.",
    epilog="Nothing is trained or written. Exit codes: 0 done, 2 bad input, 1 failed.",
    words=CONFIGURED,
    options={
        "--ranks": value(
            "N,N,...",
            "numbers of ranks; without it, up to that from which more are no faster",
            _ranks,
        ),
        "--ranks-per-host": value(
            "N",
            "without it, as many as there are GPUs here, or all on one host",
            whole(1, MOST_RANKS),
        ),
        "--bandwidth": value("GBIT", "between hosts, per second; 10 without it", number(1e6)),
        "--latency": value(
            "MS", "between hosts, one way; 0.1 without it", number(1e6, may_be_0=True)
        ),
        "--craft-seconds": value("S", "of a batch, instead of the time measured here", number(1e6)),
        "--train-seconds": value("S", "of a batch, instead of the time measured here", number(1e6)),
        **TRUSTED,
        "--json": flag("print the figures for programs"),
    },
    elsewhere={"--trainers": "training.trainers=2"},
)

REPORT = Described(
    name="report",
    example="report FOLDER ...",
    summary="write a page of figures about runs, from their logs",
    about="Write a page of figures from the logs of runs: running, finished, interrupted or "
    "killed ones. It needs neither a network nor scripts to be read.",
    epilog="A page or figure that mpiadv report wrote is written over; any other file only with "
    "--overwrite.",
    words={"logs": words("+", "LOG_OR_RUN_FOLDER", "a log.h5, or a run's folder")},
    options={
        "--output": value(
            "PAGE", "the page; without it report.html, in the run's folder where one is given"
        ),
        "--figures": value("FOLDER", "also write each figure here, as PNG and as PDF"),
        "--overwrite": flag("write over files of other programs, too"),
    },
)

WATCH = Described(
    name="watch",
    example="watch FOLDER",
    summary="show a run in the terminal as it goes on",
    about="Show a run as it goes on, from its log alone. Ends when the run is done; a run that was "
    "interrupted or killed is waited for, as it may be resumed.",
    words={"log": value("LOG_OR_RUN_FOLDER", "a log.h5, or a run's folder")},
    options={
        "--every": value(
            "SECONDS",
            "seconds between looks: 2 in a terminal, 10 where the output goes elsewhere and each "
            "look is a line",
            number(86_400),
        ),
        "--once": flag("look once, and end"),
    },
)

VISUALIZE = Described(
    name="visualize",
    example="visualize FOLDER ...",
    summary="draw what trained networks' gradients show, side by side",
    about="Draw gradients at test images, the images under attack, and classes climbed to from "
    "noise, for several networks side by side: one page, and PNGs.",
    epilog="The attack is that of the first network's own evaluation. Exit codes: 0 done, 2 bad "
    "input.",
    words={
        "words": words(
            "+",
            "NETWORK|KEY=VALUE",
            "runs' folders, checkpoints or state dicts (.pt, with model.name=... data.name=...); "
            "and settings, as section.key=value",
        )
    },
    options={
        "--output": value("FOLDER", "visualization without it", default="visualization"),
        "--images": value("N", "so many test images; 8 without it", whole(1, 32), 8),
        **TRUSTED,
        "--overwrite": flag("write over files of other programs, too"),
    },
)

STUDIES = {
    "headline": "40 attack steps against 8, one rank against several: the paper's 26 times",
    "methods": "methods of robust training under equal conditions (table 1 of Wang et al.)",
    "mixture": "one batch norm or two, and natural images in training (Xie and Yuille)",
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
    about="Rerun a study of Bhat, Tsipras and Madry (2019), or of others: train what it needs, "
    "attack the trained networks, write results.md, results.html and figures. What is done is not "
    "done again. "
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
