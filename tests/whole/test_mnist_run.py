"""The configuration for MNIST, for a few dozen steps."""

from pathlib import Path

import pytest
from end_to_end import HERE, Finished, Start, first_difference, run_all

DATA = HERE.parents[1] / "shared" / "data"

NUM_STEPS = 24

ARGV = (
    str(HERE.parent / "configs" / "mnist.yaml"), f"data.root={DATA}", "data.download=false",
    f"training.num_steps={NUM_STEPS}", "training.threads=1", "training.device=cpu",
    "data.batch_size=32", "model.arguments.width=0.25", "checkpoint.every_steps=0",
    "evaluation.final_samples=60", "evaluation.batch_size=20", "evaluation.num_steps=3",
    "evaluation.every_steps=0",
)  # fmt: skip


@pytest.mark.skipif(not (DATA / "MNIST").is_dir(), reason=f"no MNIST in {DATA}")
def test_hash_and_accuracy_of_the_mnist_configuration_are_the_same_on_1_and_3_ranks(
    tmp_path: Path,
) -> None:
    starts = [Start(folder=str(ranks), ranks=ranks, argv=ARGV, pauses="") for ranks in (1, 3)]
    run_all(starts, tmp_path, ranks=3, timeout=300)
    one, three = (Finished(path=tmp_path / start.folder) for start in starts)
    assert one.table("train")["step"].tolist() == list(range(NUM_STEPS))
    assert first_difference(one, three) == ""
    assert one.hash == three.hash
    accuracies = [run.table("evaluation")["adversarial_accuracy"].tolist() for run in (one, three)]
    assert accuracies[0] == accuracies[1]
