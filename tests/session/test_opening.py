"""What a run says of its method before it begins."""

from pathlib import Path

import pytest
from launching import train_alone, words_of

SAID = {
    "plain": ({}, "objective adversarial; attack pgd of 2 steps, linf 0.15"),
    "replayed": (
        {"training__step": "free", "staleness__trainer_steps": 2, "attack__step_size": 0.15},
        "objective adversarial; attack pgd of 2 steps, linf 0.15; training step free; all attack "
        "steps on the trainer (attackers decode and augment)",
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
