"""What a checkpoint holds is of its moment, however much later it is written."""

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ordinary_steps import ordinary_step
from torch import nn

from mpiadv.contract.tickets import AttackSettings
from mpiadv.loops.publisher import Published
from mpiadv.methods.attack_schedules import Foreseen, MPlus, TrainedStep
from mpiadv.methods.optimizers import make_schedule
from mpiadv.process.errors import UserError
from mpiadv.session.state import restore, training_state
from mpiadv.settings import Config, ScheduleConfig
from mpiadv.storage.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from mpiadv.work.host_copies import HostCopies

NUMERICS: dict[str, str | int] = {"threads": 1, "device": "cpu", "memory_format": "contiguous"}


def a_learner() -> Any:
    """What a checkpoint holds of a learner: layers with buffers, and moments of Adam."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    optimizer = torch.optim.Adam(model.parameters())
    schedule = make_schedule(ScheduleConfig(), optimizer, num_steps=10)
    step = ordinary_step(model, optimizer, schedule=schedule)
    learner = SimpleNamespace(model=model, step=step, parameter_bytes=8)
    train_once(learner)
    return learner


def train_once(learner: Any) -> None:
    learner.model(torch.rand(4, 1, 5, 5)).sum().backward()
    learner.step.apply()


def assert_same_state(one: Any, other: Any) -> None:
    ours, theirs = ({**each.step.state_dict(), "model": each.model.state_dict()}
                    for each in (one, other))  # fmt: skip
    assert ours.pop("schedule") == theirs.pop("schedule")
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_checkpoint_with_optimiser_and_schedule_by_themselves_is_gone_on_with() -> None:
    old, new = a_learner(), a_learner()
    train_once(old)
    schedule = a_schedule()
    state = training_state(Config(), old, schedule, {}, NUMERICS, {"train": "a"}, torch.clone)
    payload = state.pop("training_step") | state
    restore(
        new, schedule, Checkpoint(step=2, path=Path("checkpoint-000000002.pt"), payload=payload)
    )
    assert_same_state(new, old)


def a_schedule() -> MPlus:
    return MPlus(
        num_steps=1, most_steps=8, gamma=1.01, batches_per_epoch=1,
        settings_at=lambda step, n: AttackSettings(num_steps=n, epsilon=0.5),
        falls_short=lambda n: False,
    )  # fmt: skip


def heard_once(schedule: MPlus) -> None:
    settings = schedule.settings(0)
    schedule.hear(TrainedStep(step=0, settings=settings, gradient_magnitude=1.5))


def test_model_whose_layers_come_in_another_order_is_not_gone_on_with() -> None:
    def learner(*names: str) -> Any:
        layers = nn.ModuleDict({name: nn.Linear(2, 2) for name in names})
        return SimpleNamespace(model=layers)

    checkpoint = Checkpoint(
        step=3,
        path=Path("checkpoint-000000003.pt"),
        payload={"model": learner("a", "b").model.state_dict(), "unsaved_buffers": {}},
    )
    with pytest.raises(UserError, match="its layers come in another order"):
        restore(learner("b", "a"), a_schedule(), checkpoint)


def test_checkpoint_written_later_holds_the_state_of_its_moment(tmp_path: Path) -> None:
    learner, config, copies = a_learner(), Config(), HostCopies()
    settings = AttackSettings(num_steps=8, epsilon=0.5)
    values = np.arange(8, dtype=np.uint8)
    published = {1: Published(settings=settings, values=values)}
    expected = copy.deepcopy(learner)
    schedule = a_schedule()
    for _ in range(2):
        copies.begin()
        state = training_state(
            config, learner, schedule, published, NUMERICS, {"train": "a"}, copies.copy
        )
        train_once(learner)
        said = schedule.state_dict()
        heard_once(schedule)
        values += 1
        restored = a_learner()
        checkpoint = load_checkpoint(
            save_checkpoint(tmp_path, expected.step.steps_done, state, keep=1)
        )
        restored_schedule = a_schedule()
        versions = restore(restored, restored_schedule, checkpoint)
        assert restored_schedule.state_dict() == said
        assert_same_state(restored, expected)
        assert checkpoint.payload["model"]._metadata == expected.model.state_dict()._metadata
        assert (versions[1].values == values - 1).all()
        assert versions[1].settings == settings
        expected = copy.deepcopy(learner)


def test_checkpoint_from_before_attack_schedules_goes_on_where_the_schedule_is_constant(
    tmp_path: Path,
) -> None:
    learner, copies, constant = a_learner(), HostCopies(), Foreseen(a_schedule().settings)
    copies.begin()
    state = training_state(Config(), learner, constant, {}, NUMERICS, {"train": "a"}, copies.copy)
    del state["attack_schedule"]
    step = learner.step.steps_done
    checkpoint = load_checkpoint(save_checkpoint(tmp_path, step, state, keep=1))
    assert restore(a_learner(), constant, checkpoint) == {}
    with pytest.raises(UserError, match="attack_schedule lacks num_steps"):
        restore(a_learner(), a_schedule(), checkpoint)


def test_versions_of_a_checkpoint_from_before_friendly_attacks_have_none(tmp_path: Path) -> None:
    learner, copies = a_learner(), HostCopies()
    values = np.zeros(learner.parameter_bytes, np.uint8)
    held = {0: Published(settings=AttackSettings(num_steps=8, epsilon=0.5), values=values)}
    schedule = Foreseen(a_schedule().settings)
    copies.begin()
    state = training_state(Config(), learner, schedule, held, NUMERICS, {"train": "a"}, copies.copy)
    del state["versions"][0]["tau"]
    step = learner.step.steps_done
    checkpoint = load_checkpoint(save_checkpoint(tmp_path, step, state, keep=1))
    restored = restore(a_learner(), schedule, checkpoint)
    assert restored[0].settings == held[0].settings


def test_copies_are_of_their_moment_and_their_memory_is_used_again() -> None:
    copies, source = HostCopies(), torch.arange(6.0).reshape(2, 3).t()
    copies.begin()
    first = copies.copy(source)
    again = copies.copy(source)
    source += 1
    copies.completion()()
    torch.testing.assert_close(first, source - 1, rtol=0, atol=0)
    copies.begin()
    kept = {copies.copy(source).data_ptr() for _ in range(2)}
    assert kept == {first.data_ptr(), again.data_ptr()}
    assert copies.copy(source).data_ptr() not in kept
