"""Whether memory grows: resident size of a trainer and an attacker over thousands of short steps.

    python benchmarks/soak.py --steps 10000

A lost batch (32 KiB) or a lost copy of the parameters (40 KiB) per step would show as 300 MiB.
"""

import argparse
import os
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from mpi4py import MPI
from mpirun import mpirun
from torch import Tensor, nn

from mpiadv.runlog import read_table

BATCH_SIZE, IMAGE_SHAPE = 8, (1, 32, 32)
NOTE_SECONDS = 0.05
NUM_ROWS = 10
WARMUP_SHARE = 0.3
"""Of the steps; allocators and caches fill up during the first ones."""
ROLES = {0: "trainer", 1: "attacker"}

CONFIG = """
data: {{name: "soak:images", batch_size: {batch_size}}}
model: {{name: "soak:watched"}}
attack: {{num_steps: 2}}
optimizer: {{name: sgd, learning_rate: 0.01}}
training: {{num_steps: {steps}, device: cpu, threads: 1}}
evaluation: {{every_steps: 0, num_steps: 1, final_samples: 8}}
checkpoint: {{every_steps: {checkpoint_steps}}}
log: {{flush_seconds: 1.0}}
output: run
"""


def images(root: str | None, split: str) -> tuple[Tensor, Tensor]:
    """A user's data set: 80 random images and labels of ten classes."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(80, *IMAGE_SHAPE, generator=generator), torch.arange(80) % 10


class Watched(nn.Module):
    """A linear classifier that notes its process's resident size now and then."""

    def __init__(self, inner: nn.Module, rank: int) -> None:
        super().__init__()
        self.inner = inner
        self._path = _notes(Path(), rank)
        self._noted_at = 0.0

    def forward(self, images: Tensor) -> Tensor:
        now = time.time()
        if now - self._noted_at > NOTE_SECONDS:
            self._noted_at = now
            with self._path.open("a", encoding="ascii") as file:
                file.write(f"{now} {_resident_mib()}\n")
        logits: Tensor = self.inner(images)
        return logits


def watched(*, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """A user's model."""
    num_pixels = int(np.prod(image_shape))
    inner = nn.Sequential(nn.Flatten(), nn.Linear(num_pixels, num_classes))
    return Watched(inner, MPI.COMM_WORLD.rank)


def soak(steps: int) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """Train; the steps at which sizes are told, and each rank's median MiB before that step."""
    with tempfile.TemporaryDirectory(prefix="mpiadv-soak-") as folder:
        config = CONFIG.format(
            batch_size=BATCH_SIZE, steps=steps, checkpoint_steps=max(1, steps // 20)
        )
        Path(folder, "config.yaml").write_text(config, encoding="utf-8")
        mpirun([sys.executable, "-m", "mpiadv.run", "config.yaml"], ranks=2, cwd=Path(folder))
        ends = read_table(Path(folder, "run", "log.h5"), "train")["wall_clock"]
        notes = {rank: np.loadtxt(_notes(Path(folder), rank)) for rank in ROLES}
    bounds = np.linspace(0, steps, NUM_ROWS + 1).astype(int)
    return bounds[1:], {rank: _medians(noted, ends, bounds) for rank, noted in notes.items()}


def _medians(noted: np.ndarray, ends: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Median size between two bounds; the trainer says in the log when each step ended."""
    step_of = np.searchsorted(ends, noted[:, 0])
    during = [noted[(step_of > low) & (step_of <= high), 1] for low, high in pairwise(bounds)]
    return np.array([np.median(sizes) if len(sizes) else np.nan for sizes in during])


def _notes(folder: Path, rank: int) -> Path:
    return folder / f"memory-{rank}.txt"


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    """The command line: a table of resident sizes, and by how much they grew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10000)
    steps = parser.parse_args().steps
    began = time.monotonic()
    bounds, sizes = soak(steps)
    print(f"| steps | {' | '.join(f'{role}, MiB' for role in ROLES.values())} |")
    print("|---|---|---|")
    for row, bound in enumerate(bounds):
        print(f"| {bound} | {' | '.join(f'{sizes[rank][row]:.1f}' for rank in ROLES)} |")
    first = int(NUM_ROWS * WARMUP_SHARE)
    for rank, role in ROLES.items():
        growth = sizes[rank][-1] - sizes[rank][first]
        print(f"{role} grew by {growth:.1f} MiB in {bounds[-1] - bounds[first]} steps")
    print(f"seconds: {time.monotonic() - began:.0f}")


if __name__ == "__main__":
    main()
