"""The bits of small runs are those of before: a change of numerics is noticed, and said."""

from pathlib import Path

import pytest
import torch

import mpiadv

WORDS = (
    "training.num_steps=12", "training.threads=1", "training.device=cpu",
    "evaluation.every_steps=0", "evaluation.final_samples=10", "evaluation.num_steps=1",
    "checkpoint.every_steps=0", "attack.num_steps=3", "staleness.trainer_steps=1",
)  # fmt: skip
RUNS = {
    "digits": WORDS,
    "grey_and_channels_last": (
        *WORDS, "model.name=mnist", "model.arguments.width=0.25", "data.batch_size=16",
        "model.arguments.initialization=torch", "data.name=bad_parts:images",
        "data.arguments.num_samples=96", "data.arguments.shape=[1, 28, 28]",
    ),
}  # fmt: skip

PINNED = {
    ("digits", "2.14.1, AVX2, AuthenticAMD"): (
        "49d6b3f3ee2d1c6528ea30dab69cfd7aed7c1ed762a40b78671d0a666c52ff89"
    ),
    ("digits", "2.14.1, AVX512, AuthenticAMD"): (
        "1e8db207c2bba12fd53f9269cee1ff83f3f8d0dc8cbd7839eb70da729262869d"
    ),
    ("digits", "2.14.1, AVX512, GenuineIntel"): (
        "8f872bac8e404c8e68eb2e1652c1ee214feea0f71a95da155fbe92cbf9c92383"
    ),
    ("grey_and_channels_last", "2.14.1, AVX2, AuthenticAMD"): (
        "30da2a086ad0c99f2bf4192b0618b954a3ea2ab59b8009fa24c1b3993fc8aac6"
    ),
    ("grey_and_channels_last", "2.14.1, AVX512, AuthenticAMD"): (
        "b73d1774346060e66e9c5ccf98d34ddb7fd519dbbdfaa4e29074a5c8e709d2f1"
    ),
    ("grey_and_channels_last", "2.14.1, AVX512, GenuineIntel"): (
        "b3741e6e2200efeb53ffb2824d0a9a091c62190d6235652698e79ea8e5501739"
    ),
}
"""Run, and release of torch, instructions and maker of the processor, to the hash.

A hash that changes on purpose is said in CHANGELOG.md, with the reason.
"""


def maker() -> str:
    """Of this processor: the library of matrix products takes other ways on another's."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except FileNotFoundError:  # no Linux
        return "unknown"
    told = [line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id")]
    return told[0] if told else "unknown"


@pytest.mark.parametrize("name", RUNS)
def test_bits_are_those_of_before(name: str, tmp_path: Path) -> None:
    release = torch.__version__.partition("+")[0]
    here = f"{release}, {torch.backends.cpu.get_cpu_capability()}, {maker()}"
    if (name, here) not in PINNED:
        pytest.skip(f"no hash of this run is known for torch {here}: add it to PINNED")
    config = mpiadv.load_config(None, [*RUNS[name], f"output={tmp_path / 'run'}"])
    assert mpiadv.train(config).hash == PINNED[name, here]
