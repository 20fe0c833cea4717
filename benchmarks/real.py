"""Real work for the scaling benchmark: the program as users run it, on random MNIST-like images."""

import sys
import tempfile
from pathlib import Path

import torch
from mpirun import mpirun

from mpiadv.runlog import read_table

PRECISIONS = ("float32", "bfloat16")
WARMUP_STEPS, MEASURED_STEPS, LAST_STEPS = 12, 30, 18
"""The last ones leave attackers without work: as many as tickets may be live, and one."""

SYNCHRONOUS = (
    "staleness.max_staleness=0", "staleness.final_staleness=0", "staleness.publish_every=1",
)  # fmt: skip

CONFIG = f"""
data: {{name: "real:random_images", batch_size: 128}}
model: {{name: mnist}}
attack: {{num_steps: 8}}
training: {{num_steps: {WARMUP_STEPS + MEASURED_STEPS + LAST_STEPS}, device: cpu, threads: 1}}
evaluation: {{final_samples: 1, num_steps: 1}}
checkpoint: {{every_steps: 0}}
output: run
"""


def random_images(root: str | None, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images float32 [1280, 1, 28, 28] in [0, 1] and labels int64: a user's data set."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(1280, 1, 28, 28, generator=generator)
    return images, torch.arange(1280) % 10


def ticket_seconds(
    ranks: int, precision: str, *, trainers: int = 1, tickets_per_step: int = 1
) -> float:
    """Wall-clock seconds per ticket, the first and last steps of the run left out.

    Several tickets a step are trained on synchronously, as in data-parallel training.
    """
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.yaml").write_text(CONFIG, encoding="utf-8")
        words = [
            "-m",
            "mpiadv.run",
            "config.yaml",
            "--trust-code",
            f"training.precision={precision}",
            f"training.tickets_per_step={tickets_per_step}",
            f"training.trainers={trainers}",
            *(SYNCHRONOUS if tickets_per_step > 1 else ()),
        ]
        mpirun([sys.executable, *words], ranks=ranks, cwd=Path(folder))
        ends = read_table(Path(folder, "run", "log.h5"), "train")["wall_clock"]
    first = WARMUP_STEPS - 1
    seconds = float(ends[first + MEASURED_STEPS] - ends[first])
    return seconds / (MEASURED_STEPS * tickets_per_step)
