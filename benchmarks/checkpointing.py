"""What checkpoints cost: `python benchmarks/checkpointing.py` trains with and without, in turn.

The program as users run it, with `configs/mnist.yaml` on random images, one thread per rank. Tells
the ratio of the seconds per step, what the run itself prints, and, finer than what other programs
on the machine let a ratio of whole runs be, how much longer the steps right after a checkpoint
take than as many right before it.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt
from mpirun import HERE, mpirun

from mpiadv.runlog import read_table

CONFIG = HERE.parent / "configs" / "mnist.yaml"
WARMUP_STEPS, LAST_STEPS = 10, 18
"""The last ones leave attackers without work."""
AFTER_STEPS = 8
"""Training steps within which a checkpoint is on disk; at most half the way to the next one."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A run: seconds per step, what it printed, and what its steps tell of a checkpoint's cost."""

    step_seconds: float
    printed: str
    checkpoint_seconds: tuple[float, ...] = ()


def run(*, ranks: int, steps: int, every: int) -> Outcome:
    """Train; `every` 0: without checkpoints."""
    with tempfile.TemporaryDirectory(prefix="mpiadv-checkpoints-", dir=".") as name:
        folder = Path(name).resolve()
        settings = {
            "output": folder / "run",
            "data.name": "real:random_images",
            "training.num_steps": steps,
            "training.threads": 1,
            "training.device": "cpu",
            "evaluation.every_steps": 0,
            "evaluation.final_samples": 1,
            "evaluation.num_steps": 1,
            "checkpoint.every_steps": every,
        }
        words = [f"{key}={value}" for key, value in settings.items()]
        mpirun([sys.executable, "-m", "mpiadv.run", str(CONFIG), *words], ranks=ranks, cwd=folder)
        ends = read_table(folder / "run" / "log.h5", "train")["wall_clock"]
        done = (folder / "run" / "DONE").read_text(encoding="utf-8").splitlines()
    measured = ends[WARMUP_STEPS : steps - LAST_STEPS]
    (printed,) = [line for line in done if line.startswith("log, checkpoints")]
    return Outcome(
        step_seconds=float(measured[-1] - measured[0]) / (len(measured) - 1),
        printed=printed.removeprefix("log, checkpoints").strip(),
        checkpoint_seconds=_seconds_after_checkpoints(ends, every, steps) if every else (),
    )


def _seconds_after_checkpoints(
    ends: npt.NDArray[np.float64], every: int, steps: int
) -> tuple[float, ...]:
    """How much longer the steps after each checkpoint take than as many before it.

    A step's end is noted before its checkpoint is begun, which so counts to the steps after it.
    """
    length = min(AFTER_STEPS, every // 2)
    return tuple(
        float(ends[step - 1 + length] - 2 * ends[step - 1] + ends[step - 1 - length])
        for step in range(every, steps - LAST_STEPS - length, every)
        if step > WARMUP_STEPS + length
    )


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """Two of the values between which the true median lies, at about 95 % from ten values on."""
    ordered = sorted(values)
    count = max(0, int(len(ordered) / 2 - sqrt(len(ordered))))
    return ordered[count], ordered[-1 - count]


def main() -> None:
    """The command line: prints a table and the ratios."""
    parser = argparse.ArgumentParser(
        description="Measure what checkpoints cost.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--steps", type=int, default=280, help="training steps of a run")
    parser.add_argument("--every", type=int, default=50, help="steps between checkpoints")
    parser.add_argument("--pairs", type=int, default=2, help="runs with, and runs without")
    options = parser.parse_args()
    if options.steps < 3 * options.every + LAST_STEPS:
        parser.error(f"--steps {options.steps}: expected a few times --every {options.every}")
    print(f"checkpoints every {options.every} steps, {options.ranks} ranks, {options.steps} steps")
    print("| without, s per step | with | ratio | with, as the run prints it | a checkpoint, ms |")
    print("|---|---|---|---|---|")
    pairs = [_pair(options, number) for number in range(options.pairs)]
    ratio = median(having.step_seconds / without.step_seconds for without, having in pairs)
    costs = [cost for _, having in pairs for cost in having.checkpoint_seconds]
    step = median(outcome.step_seconds for pair in pairs for outcome in pair)
    print(f"ratio of whole runs, median: {ratio:.4f}")
    least, most = (100 * bound / step / options.every for bound in median_interval(costs))
    print(
        f"by the steps after {len(costs)} checkpoints they cost "
        f"{100 * median(costs) / step / options.every:.2f} % of the time, median, within "
        f"{least:.2f} and {most:.2f} % at about 95 %"
    )


def _pair(options: argparse.Namespace, number: int) -> tuple[Outcome, Outcome]:
    """Train without and with checkpoints, each first in turn, and print a row."""
    runs = {}
    for every in (0, options.every)[:: 1 if number % 2 == 0 else -1]:
        runs[every] = run(ranks=options.ranks, steps=options.steps, every=every)
    without, having = runs[0], runs[options.every]
    print(
        f"| {without.step_seconds:.4f} | {having.step_seconds:.4f} | "
        f"{having.step_seconds / without.step_seconds:.4f} | {having.printed} | "
        f"{1000 * median(having.checkpoint_seconds):.0f} |",
        flush=True,
    )
    return without, having


if __name__ == "__main__":
    main()
