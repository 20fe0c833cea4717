"""What a run says of its method before it begins, and of what it leaves out."""

import shlex
from pathlib import Path

import pytest
import torch
from launching import train_alone, words_of

from mpiadv.comm.world import World
from mpiadv.commands import evaluate

SAID = {
    "plain": ({}, "objective adversarial; attack pgd of 2 steps, linf 0.15"),
    "replayed": (
        {"training__step": "free", "staleness__trainer_steps": 2, "attack__step_size": 0.15},
        "objective adversarial; attack pgd of 2 steps, linf 0.15; training step free",
    ),
    "several_threats": (
        {
            "attack__further": "[{name: l2, epsilon: 0.5}, {name: rotation_translation}]",
            "objective__clean_fraction": 0.25,
            "training__tickets_per_step": 2,
        },
        "objective adversarial; attack pgd of 2 steps, linf 0.15, l2 0.5, rotation_translation "
        "(worst); 2 batches a step; 25 % natural",
    ),
}


@pytest.mark.parametrize(("settings", "said"), SAID.values(), ids=SAID)
def test_method_is_told_in_a_line(
    settings: dict[str, object],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    train_alone(words_of(tmp_path / "run", training__num_steps=1, **settings))
    (line,) = [each for each in capsys.readouterr().out.splitlines() if each.startswith("method: ")]
    assert line == f"method: {said}"


@pytest.mark.parametrize(("milestone", "is_late"), [(4, False), (5, True), (9, True), (12, True)])
def test_milestone_that_no_attack_takes_up_is_told(
    milestone: int, is_late: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of ten steps; attacks are decided by a version five steps old."""
    settings = {
        "attack_schedule__name": "piecewise", "attack_schedule__first_steps": 1,
        "attack_schedule__milestones": f"[{milestone}]", "attack_schedule__later_steps": "[2]",
        "staleness__max_staleness": 5, "staleness__final_staleness": 1, "training__num_steps": 10,
    }  # fmt: skip
    train_alone(words_of(tmp_path / "run", **settings))
    told = (
        f"attack_schedule.milestones=[{milestone}]: training ends after 10 steps, before an attack "
        "takes up the last of them: use 4 or less,"
    )
    assert (told in capsys.readouterr().out) is is_late


@pytest.mark.parametrize("setting", ["training.precision", "evaluation.precision"])
def test_bfloat16_without_instructions_is_told_by_the_setting_that_chooses_it(
    setting: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False})
    train_alone([*words_of(tmp_path / "run", training__num_steps=1), f"{setting}=bfloat16"])
    assert capsys.readouterr().out.count(f"faster here ({setting}=float32)") == 1


def test_threat_models_that_no_evaluation_of_the_run_looks_at_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    further = "[{name: l2, epsilon: 0.123456789}, {name: rotation_translation, pixels: 1}]"
    run = tmp_path / "a run"
    train_alone(words_of(run, training__num_steps=1, attack__further=further))
    said = capsys.readouterr().out.splitlines()
    (command,) = [line for line in said if line.startswith("other threat models")]
    words = shlex.split(command.removeprefix("other threat models"))
    threats = ["--attack", "pgd:norm=l2,epsilon=0.123456789"]
    threats += ["--attack", "grid:degrees=30.0,pixels=1.0"]
    assert words == ["mpiadv", "evaluate", str(run), "--attack", "pgd", *threats]
    world = World()
    world.meet()
    assert evaluate.run(world, [str(run), "--no-probe", "--trust-code"]) == 0
    own = "--attack pgd:steps=1"
    assert (
        "attack.further names other threat models, left out here: for all say "
        f"{own} {' '.join(threats)}\n"
    ) in capsys.readouterr().out
    assert evaluate.run(world, [*words[2:], "--no-probe", "--trust-code", "--overwrite"]) == 0
    assert "left out here" not in capsys.readouterr().out
