"""The configuration for MNIST, for a few dozen steps."""

from pathlib import Path

import pytest
from end_to_end import HERE, Finished, Start, first_difference

DATA = HERE.parents[1] / "shared" / "data"
HAS_DATA = (DATA / "MNIST").is_dir()

NUM_STEPS = 24

ARGV = (
    str(HERE.parent / "configs" / "mnist.yaml"), f"data.root={DATA}", "data.download=false",
    f"training.num_steps={NUM_STEPS}", "training.threads=1", "training.device=cpu",
    "data.batch_size=32", "model.arguments.width=0.25", "checkpoint.every_steps=0",
    "evaluation.final_samples=60", "evaluation.batch_size=20", "evaluation.num_steps=3",
    "evaluation.every_steps=0",
)  # fmt: skip


def starts(folder: Path) -> list[Start]:
    """None where there are no data."""
    ranks = (1, 3) if HAS_DATA else ()
    return [Start(folder=str(number), ranks=number, argv=ARGV, pauses="") for number in ranks]


@pytest.mark.skipif(not HAS_DATA, reason=f"no MNIST in {DATA}")
def test_hash_and_accuracy_of_the_mnist_configuration_are_the_same_on_1_and_3_ranks(
    runs: Path,
) -> None:
    one, three = (Finished(path=runs / ranks) for ranks in ("1", "3"))
    assert one.table("train")["step"].tolist() == list(range(NUM_STEPS))
    assert first_difference(one, three) == ""
    assert one.hash == three.hash
    accuracies = [run.table("evaluation")["adversarial_accuracy"].tolist() for run in (one, three)]
    assert accuracies[0] == accuracies[1]
