"""Two sets of batch norm in one network."""

from pathlib import Path

import pytest
import torch
from end_to_end import TINY, Finished, settled
from torch import Tensor, nn

import mpiadv
from mpiadv.models import build_model
from mpiadv.models.mixture import NaturalBranch, by_branch, has_mixture, natural_branch
from mpiadv.process.errors import UserError
from mpiadv.settings import ModelConfig, load_config

WORDS = (
    *TINY, "model.name=digits", "model.arguments.batch_norm=true",
    "model.mixture_batch_norm=true", "objective.clean_fraction=0.5", "training.num_steps=12",
)  # fmt: skip


def mixed_model() -> nn.Module:
    config = ModelConfig(arguments={"batch_norm": True}, mixture_batch_norm=True)
    return build_model(config, num_classes=10, image_shape=(1, 8, 8), seed=0)


def images(count: int = 6) -> Tensor:
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def means_of(model: nn.Module, branch: str) -> list[Tensor]:
    return [
        buffer.clone()
        for name, buffer in model.named_buffers()
        if branch in name and "mean" in name
    ]


def test_each_branch_keeps_statistics_of_its_own_images() -> None:
    model, plain = mixed_model(), build_model(
        ModelConfig(arguments={"batch_norm": True}), num_classes=10, image_shape=(1, 8, 8), seed=0
    )  # fmt: skip
    model.train()
    plain.train()
    logits = by_branch(model, images(), num_natural=2)
    assert torch.equal(logits[:2], plain(images()[:2]))
    natural = [b for name, b in plain.named_buffers() if "mean" in name]
    assert all(map(torch.equal, means_of(model, "natural"), natural))
    model.eval()
    before = model(images())
    with natural_branch(model):
        assert not torch.equal(model(images()), before)
        assert torch.equal(NaturalBranch(model)(images()), model(images()))
    assert torch.equal(model(images()), before)


@pytest.mark.parametrize("num_natural", [0, 6])
def test_batch_of_one_kind_passes_through_one_branch(num_natural: int) -> None:
    model = mixed_model().train()
    untouched = "adversarial" if num_natural else "natural"
    before = means_of(model, untouched)
    by_branch(model, images(), num_natural)
    assert all(map(torch.equal, means_of(model, untouched), before))


def test_model_without_batch_norm_is_refused() -> None:
    config = ModelConfig(mixture_batch_norm=True)
    with pytest.raises(UserError, match="model 'digits' has none: use another model"):
        build_model(config, num_classes=10, image_shape=(1, 8, 8), seed=0)
    assert not has_mixture(
        build_model(ModelConfig(), num_classes=10, image_shape=(1, 8, 8), seed=0)
    )


def test_run_is_evaluated_through_both_branches_at_its_end(tmp_path: Path) -> None:
    mpiadv.train(load_config(None, [*settled(WORDS), f"output={tmp_path / 'run'}"]))
    run = Finished(path=tmp_path / "run")
    rows = run.table("evaluation")
    assert rows["weights"].tolist() == [b"raw", b"natural"]
    assert rows["natural_loss"][0] != rows["natural_loss"][1]
    told = (run.path / "DONE").read_text()
    assert "adversarial branch, natural accuracy" in told
    assert "natural branch, natural accuracy" in told
    raw = mpiadv.load_model(run.path).eval()
    natural = mpiadv.load_model(run.path, ["evaluation.branch=natural"]).eval()
    assert not torch.equal(raw(images()), natural(images()))


def test_run_looks_through_the_branch_that_it_names_at_every_time(tmp_path: Path) -> None:
    words = settled([*WORDS, "evaluation.every_steps=4", "evaluation.num_samples=100"])
    found = {}
    for branch in ("natural", "adversarial"):
        further = (f"evaluation.branch={branch}", f"output={tmp_path / branch}")
        mpiadv.train(load_config(None, [*words, *further]))
        rows = Finished(path=tmp_path / branch).table("evaluation")
        losses = rows["natural_loss"].tolist()
        found[branch] = dict(zip(rows["weights"].tolist()[-2:], losses[-2:], strict=True))
        found[branch, 4] = losses[0]
    assert found["natural"][b"raw"] == found["adversarial"][b"natural"]
    assert found["natural"][b"attacked"] == found["adversarial"][b"raw"]
    assert found["natural", 4] != found["adversarial", 4]


def test_branch_of_a_model_that_has_none_is_refused() -> None:
    with pytest.raises(UserError, match=r"branch=natural is of models with model\.mixture_batch"):
        load_config(None, ["evaluation.branch=natural"])
