"""The page of what networks' gradients show."""

from pathlib import Path

import pytest
import torch
from end_to_end import TINY, settled
from launching import words_of
from torch import Tensor, nn

import mpiadv
from mpiadv.attacks import make_attack
from mpiadv.cli import main
from mpiadv.examination.features import features_of
from mpiadv.settings import AttackConfig, load_config


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("networks")
    words = [*TINY, "model.name=digits", "training.num_steps=8"]
    for name, further in (("robust", []), ("natural", ["attack.epsilon=0"])):
        path = f"output={folder / name}"
        mpiadv.train(load_config(None, [*settled([*words, *further]), path]))
    return folder


def test_page_and_pictures_are_written_and_written_over(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["visualize", str(runs / "robust"), str(runs / "natural" / "model.pt"), "--images", "5"]
    for _ in range(2):
        assert main([*line, "--output", str(tmp_path / "made" / "here")]) == 0
    assert "visualization.html: 2 networks, 3 figures" in capsys.readouterr().out
    page = (tmp_path / "made" / "here" / "visualization.html").read_text()
    assert page.count("<img") == 3 and "http" not in page
    for name in ("gradients", "adversarial", "classes"):
        assert (tmp_path / "made" / "here" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_files_of_others_are_left_alone(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "visualization.html").write_text("mine")
    line = ["visualize", str(runs / "robust"), "--images", "2", "--output", str(tmp_path)]
    assert main(line) == 2
    assert "exists and is not of mpiadv: choose another place" in capsys.readouterr().err
    assert (tmp_path / "visualization.html").read_text() == "mine"
    assert main([*line, "--overwrite"]) == 0


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["seed=1"], "visualize needs a network: a run's folder, or a file of weights (.pt)"),
        (["none/such"], "there is no none/such: expected a run's folder, or a file of weights"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["visualize", *words, "--output", str(tmp_path / "new")]) == 2
    assert line in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_network_of_other_images_is_refused_by_what_it_is_beside(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    mpiadv.train(load_config(None, words_of(other, training__num_steps=1)))
    line = ["visualize", str(runs / "robust"), str(other), "--trust-code", "--images", "2"]
    assert main([*line, "--output", str(tmp_path / "new")]) == 2
    assert (
        f"{other} cannot be shown beside {runs / 'robust'}, on whose images all are (digits, "
        "1x8x8): "
    ) in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


class Brighter(nn.Module):
    """Class 1 the more, the brighter the image is."""

    def forward(self, images: Tensor) -> Tensor:
        bright = images.mean(dim=(1, 2, 3)) - 0.5
        return torch.stack([-bright, bright], dim=1) * 20


def test_features_are_slopes_attacks_and_images_of_classes() -> None:
    images = torch.full((2, 1, 4, 4), 0.55)
    attack = make_attack(AttackConfig(epsilon=0.1, num_steps=4))
    found = features_of(
        Brighter(), images, torch.tensor([0, 1]), attack, num_classes=2, seed=0,
        precision="float32",
    )  # fmt: skip
    assert (found.slopes[0] > 0).all() and (found.slopes[1] < 0).all()
    assert abs(found.adversarial - images.numpy()).max() == pytest.approx(0.1, abs=1e-6)
    assert found.found.tolist() == [1, 0]
    dark, bright = found.classes.mean(axis=(1, 2, 3))
    assert dark < 0.3 < 0.7 < bright and found.classes.shape == (2, 1, 4, 4)
