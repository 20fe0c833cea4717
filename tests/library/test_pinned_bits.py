"""The bits of a small run are those of before: a change of numerics is noticed, and said."""

from pathlib import Path

import pytest
import torch

import mpiadv

PINNED = {
    ("2.14.1", "AVX512"): "1e8db207c2bba12fd53f9269cee1ff83f3f8d0dc8cbd7839eb70da729262869d",
}
"""Release of torch and instructions of the processor to the hash of the run below.

A hash that changes on purpose is said in CHANGELOG.md, with the reason.
"""

WORDS = (
    "training.num_steps=12", "training.threads=1", "training.device=cpu",
    "evaluation.every_steps=0", "evaluation.final_samples=10", "evaluation.num_steps=1",
    "checkpoint.every_steps=0", "attack.num_steps=3", "staleness.trainer_steps=1",
)  # fmt: skip


def test_bits_are_those_of_before(tmp_path: Path) -> None:
    here = torch.__version__.partition("+")[0], torch.backends.cpu.get_cpu_capability()
    if here not in PINNED:
        pytest.skip(f"no hash is known for torch {here[0]} with {here[1]}: add it to PINNED")
    config = mpiadv.load_config(None, [*WORDS, f"output={tmp_path / 'run'}"])
    assert mpiadv.train(config).hash == PINNED[here]
