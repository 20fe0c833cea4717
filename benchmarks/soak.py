"""Whether anything grows: what each rank holds over thousands of short steps.

    python benchmarks/soak.py --steps 10000
    python benchmarks/soak.py --ranks 3 --seconds 3600

That is resident memory, open files, threads and MPI requests under way. A lost batch (32 KiB) or a
lost copy of the parameters (40 KiB) per step would show as 300 MiB in 10,000 steps.
"""

import argparse
import gc
import os
import signal
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from mpi4py import MPI
from mpirun import TIMEOUT_SECONDS, mpirun
from torch import Tensor, nn

from mpiadv.comm.requests import Requests
from mpiadv.data import user
from mpiadv.process.exit_codes import EXIT_DONE, EXIT_RESUME_ME
from mpiadv.runlog import read_table

BATCH_SIZE, IMAGE_SHAPE = 8, (1, 32, 32)
NOTE_SECONDS = 0.05
NUM_ROWS = 10
WARMUP_SHARE = 0.3
"""Of the steps; allocators and caches fill up during the first ones."""
ENDLESS_STEPS = 10**8
HELD = ("MiB", "files", "threads", "requests")

CONFIG = """
data: {{name: "soak:images", arguments: {{num_classes: 10}}, batch_size: {batch_size}}}
model: {{name: "soak:watched", arguments: {{seconds: {seconds}}}}}
attack: {{num_steps: 2}}
optimizer: {{name: sgd, learning_rate: 0.01}}
training: {{num_steps: {steps}, device: cpu, threads: 1}}
evaluation: {{every_steps: 500, num_samples: 80, final_samples: 8, num_steps: 1}}
checkpoint: {{every_steps: 500}}
log: {{flush_seconds: 1.0}}
output: run
"""

# Samples are read ahead by threads, as those of a large set are.
user.MAX_MEMORY_BYTES = 0

NUM_LINKS = 3
"""Where a rank keeps its requests: those of the world, the sends and the receives of its link."""
_links: list[Requests] = []
"""This process's, once they are found: nobody hands them out."""


def images(root: str | None, split: str) -> list[tuple[Tensor, int]]:
    """A user's data set: 80 random images and labels of ten classes."""
    generator = torch.Generator().manual_seed(0)
    return [(torch.rand(IMAGE_SHAPE, generator=generator), number % 10) for number in range(80)]


class Watched(nn.Module):
    """A linear classifier that notes what its process holds now and then.

    After so many `seconds` the trainer's interrupts the run.
    """

    def __init__(self, inner: nn.Module, rank: int, seconds: float | None) -> None:
        super().__init__()
        self.inner = inner
        self._path = _notes(Path(), rank)
        self._noted_at = 0.0
        self._ends_at = time.time() + seconds if seconds and rank == 0 else float("inf")

    def forward(self, images: Tensor) -> Tensor:
        now = time.time()
        if now - self._noted_at > NOTE_SECONDS:
            self._noted_at = now
            with self._path.open("a", encoding="ascii") as file:
                print(now, *_held(), file=file)
        if now > self._ends_at:
            self._ends_at = float("inf")
            signal.raise_signal(signal.SIGUSR1)
        logits: Tensor = self.inner(images)
        return logits


def watched(
    *, num_classes: int, image_shape: tuple[int, int, int], seconds: float | None
) -> nn.Module:
    """A user's model."""
    num_pixels = int(np.prod(image_shape))
    inner = nn.Sequential(nn.Flatten(), nn.Linear(num_pixels, num_classes))
    return Watched(inner, MPI.COMM_WORLD.rank, seconds)


def soak(*, ranks: int, steps: int, seconds: float | None) -> tuple[np.ndarray, list[np.ndarray]]:
    """Train for so many steps, or seconds if given.

    Returns:
        The steps before which it is told what was held, and of each rank that: [rows, HELD].
    """
    with tempfile.TemporaryDirectory(prefix="mpiadv-soak-") as folder:
        config = CONFIG.format(
            batch_size=BATCH_SIZE,
            steps=ENDLESS_STEPS if seconds else steps,
            seconds=seconds or "null",
        )
        Path(folder, "config.yaml").write_text(config, encoding="utf-8")
        mpirun(
            [sys.executable, "-m", "mpiadv.run", "config.yaml", "--trust-code"],
            ranks=ranks,
            cwd=Path(folder),
            timeout_seconds=TIMEOUT_SECONDS + (seconds or 0),
            ends_with=EXIT_RESUME_ME if seconds else EXIT_DONE,
        )
        ends = read_table(Path(folder, "run", "log.h5"), "train")["wall_clock"]
        notes = [np.loadtxt(_notes(Path(folder), rank)) for rank in range(ranks)]
    bounds = np.linspace(0, len(ends), NUM_ROWS + 1).astype(int)
    return bounds[1:], [_medians(noted, ends, bounds) for noted in notes]


def _medians(noted: np.ndarray, ends: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Medians of the notes between two bounds; the log says when each step ended."""
    step_of = np.searchsorted(ends, noted[:, 0])
    during = [noted[(step_of > low) & (step_of <= high), 1:] for low, high in pairwise(bounds)]
    nothing = np.full(len(HELD), np.nan)
    return np.array([np.median(rows, axis=0) if len(rows) else nothing for rows in during])


def _notes(folder: Path, rank: int) -> Path:
    return folder / f"held-{rank}.txt"


def _held() -> tuple[float, ...]:
    """What this process holds, in the order of `HELD`."""
    process = Path("/proc/self")
    files, threads = (len(os.listdir(process / name)) for name in ("fd", "task"))
    pages = int((process / "statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20, files, threads, _num_requests()


def _num_requests() -> int:
    if len(_links) < NUM_LINKS:
        _links[:] = [found for found in gc.get_objects() if type(found) is Requests]
    return sum(len(link) for link in _links)


def _table(bounds: np.ndarray, held: list[np.ndarray]) -> str:
    roles = [_role(rank) for rank in range(len(held))]
    lines = [f"| steps | {' | '.join(roles)} |", "|---" * (len(roles) + 1) + "|"]
    for bound, *rows in zip(bounds, *held, strict=True):
        cells = [f"{mib:.1f}, {', '.join(f'{n:g}' for n in counts)}" for mib, *counts in rows]
        lines.append(f"| {bound} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _role(rank: int) -> str:
    return f"attacker {rank}" if rank else "trainer"


def main() -> None:
    """The command line: a table of what each rank held, and by how much that grew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--steps", type=int, default=10000)
    parser.add_argument("--seconds", type=float, help="train for that long, whatever the steps")
    arguments = parser.parse_args()
    began = time.monotonic()
    bounds, held = soak(ranks=arguments.ranks, steps=arguments.steps, seconds=arguments.seconds)
    print(f"{', '.join(HELD)}; medians\n\n{_table(bounds, held)}\n")
    first = int(NUM_ROWS * WARMUP_SHARE)
    for rank, rows in enumerate(held):
        mib, *counts = rows[-1] - rows[first]
        others = ", ".join(f"{n:g} {name}" for n, name in zip(counts, HELD[1:], strict=True))
        num_steps = bounds[-1] - bounds[first]
        print(f"{_role(rank)} grew by {mib:.1f} MiB, {others} in {num_steps} steps")
    print(f"seconds: {time.monotonic() - began:.0f}")


if __name__ == "__main__":
    main()
