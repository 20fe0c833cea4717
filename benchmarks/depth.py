"""What a deep network takes: `python benchmarks/depth.py` trains ResNet-638 on one rank.

The program as users run it, on random images of 64 x 64 pixels: with activations that are computed
twice, and without. Tells the most memory that the process held, the seconds of its steps, and
whether the trained bits are the same.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from mpirun import HERE

from mpiadv.runlog import read_table

CONFIG = """
data: {name: "depth:random_images"}
optimizer: {name: sgd, learning_rate: 0.1}
training: {device: cpu, threads: 1}
evaluation: {every_steps: 0, final_samples: 2, num_steps: 1}
log: {natural_every: 0}
checkpoint: {every_steps: 0}
output: run
"""


def random_images(root: str | None, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images float32 [64, 3, 64, 64] in [0, 1] and labels int64: a user's data set."""
    images = torch.rand(64, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return images, torch.arange(64) % 10


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A run: the most bytes it held, the seconds of each step, and what it trained."""

    num_bytes: int
    step_seconds: Sequence[float]
    hash: str


def train(*, blocks: Sequence[int], batch_size: int, steps: int, is_twice: bool) -> Outcome:
    """Train in a process of its own.

    Raises:
        subprocess.CalledProcessError: the run failed; what it said is on standard error.
    """
    arguments = f"{{blocks: {[*blocks]}, checkpoint: {str(is_twice).lower()}}}"
    words = [
        f"data.batch_size={batch_size}", f"training.num_steps={steps}", "attack.num_steps=1",
        "model.name=resnet", f"model.arguments={arguments}",
    ]  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="mpiadv-depth-", dir=".") as name:
        folder = Path(name).resolve()
        (folder / "config.yaml").write_text(CONFIG, encoding="utf-8")
        line = [sys.executable, "-m", "mpiadv.run", "config.yaml", "--trust-code", *words]
        env = {**os.environ, "PYTHONPATH": str(HERE)}
        process = subprocess.Popen(line, cwd=folder, env=env, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, line)
        log = folder / "run" / "log.h5"
        ends = read_table(log, "train")["wall_clock"]
        events = read_table(log, "events")
    (told,) = [event["text"].decode() for event in events if event["kind"] == b"end"]
    return Outcome(
        num_bytes=1024 * usage.ru_maxrss,
        step_seconds=[float(after - before) for before, after in pairwise(ends)],
        hash=told.removeprefix("hash "),
    )


def main() -> None:
    """The command line: prints a table."""
    parser = argparse.ArgumentParser(
        description="Measure what a deep network takes.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--blocks", type=int, nargs=4, default=[3, 33, 173, 3])
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=3)
    options = parser.parse_args()
    depth = 3 * sum(options.blocks) + 2
    print(f"ResNet-{depth}, batch of {options.batch_size} images of 64 x 64, {options.steps} steps")
    print("| activations | most memory, GiB | s per step | hash |")
    print("|---|---|---|---|")
    for is_twice in (True, False):
        found = train(
            blocks=options.blocks,
            batch_size=options.batch_size,
            steps=options.steps,
            is_twice=is_twice,
        )
        seconds = sum(found.step_seconds) / len(found.step_seconds)
        print(
            f"| {'computed twice' if is_twice else 'kept'} | {found.num_bytes / 2**30:.2f} | "
            f"{seconds:.1f} | {found.hash[:12]} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
