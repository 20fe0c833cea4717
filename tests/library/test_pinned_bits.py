"""The bits of a small run are those of before: a change of numerics is noticed, and said."""

from pathlib import Path

import pytest
import torch

import mpiadv

PINNED = {
    "2.14.1, AVX512, AuthenticAMD": (
        "1e8db207c2bba12fd53f9269cee1ff83f3f8d0dc8cbd7839eb70da729262869d"
    ),
    "2.14.1, AVX512, GenuineIntel": (
        "8f872bac8e404c8e68eb2e1652c1ee214feea0f71a95da155fbe92cbf9c92383"
    ),
}
"""Release of torch, instructions and maker of the processor to the hash of the run below.

A hash that changes on purpose is said in CHANGELOG.md, with the reason.
"""

WORDS = (
    "training.num_steps=12", "training.threads=1", "training.device=cpu",
    "evaluation.every_steps=0", "evaluation.final_samples=10", "evaluation.num_steps=1",
    "checkpoint.every_steps=0", "attack.num_steps=3", "staleness.trainer_steps=1",
)  # fmt: skip


def maker() -> str:
    """Of this processor: the library of matrix products takes other ways on another's."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except FileNotFoundError:  # no Linux
        return "unknown"
    told = [line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id")]
    return told[0] if told else "unknown"


def test_bits_are_those_of_before(tmp_path: Path) -> None:
    release = torch.__version__.partition("+")[0]
    here = f"{release}, {torch.backends.cpu.get_cpu_capability()}, {maker()}"
    if here not in PINNED:
        pytest.skip(f"no hash is known for torch {here}: add it to PINNED")
    config = mpiadv.load_config(None, [*WORDS, f"output={tmp_path / 'run'}"])
    assert mpiadv.train(config).hash == PINNED[here]
