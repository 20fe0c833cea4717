"""The trainer's state as a checkpoint holds it."""

import json
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, fields
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from mpiadv.contract.columns import blank
from mpiadv.contract.tickets import AttackSettings
from mpiadv.loops.publisher import Published
from mpiadv.methods.attack_schedules import AttackSchedule
from mpiadv.methods.training_step import TrainingStep
from mpiadv.models.weights import misfit_text
from mpiadv.process.errors import UserError
from mpiadv.session.kept_weights import ReorderedError, put_state, state_of_model
from mpiadv.session.same_run import FORMAT
from mpiadv.settings import Config
from mpiadv.storage.checkpoint import Checkpoint
from mpiadv.work.learn import TorchLearner


class Watcher(Protocol):
    """What watches training and remembers what it has seen."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""


Watchers = Mapping[str, Watcher]
"""By their names in the checkpoint."""

NO_WATCHERS: Watchers = {}


def training_state(
    config: Config,
    learner: TorchLearner,
    attack_schedule: AttackSchedule,
    published: dict[int, Published],
    numerics: Mapping[str, str | int],
    fingerprints: Mapping[str, str],
    copy: Callable[[Tensor], Tensor],
    watchers: Watchers = NO_WATCHERS,
) -> dict[str, Any]:
    """Everything that going on with the same bits takes. No random state: there is none.

    All tensors are `copy`s, so training may go on while the state is written.
    """
    state = {
        "format": FORMAT,
        "identity": json.dumps(config.identity()),
        **numerics,
        "data": dict(fingerprints),
        **state_of_model(learner.model),
        "training_step": learner.step.state_dict(),
        "versions": {
            version: {**asdict(item.settings), "values": torch.from_numpy(item.values)}
            for version, item in published.items()
        },
        "attack_schedule": attack_schedule.state_dict(),
        **{name: watcher.state_dict() for name, watcher in watchers.items()},
    }
    return {key: _copied(value, copy) for key, value in state.items()}


def _copied(value: Any, copy: Callable[[Tensor], Tensor]) -> Any:
    """The same containers anew, which training may not change, with copies of the tensors."""
    if isinstance(value, Tensor):
        return copy(value)
    if type(value) is Counter:  # of milestones
        return Counter(value)
    if type(value) in (list, tuple):
        return type(value)(_copied(item, copy) for item in value)
    if type(value) in (dict, OrderedDict):
        copied = type(value)((key, _copied(item, copy)) for key, item in value.items())
        if hasattr(value, "_metadata"):  # versions of layers, which torch puts beside their tensors
            copied._metadata = value._metadata
        return copied
    return value


def restore(
    learner: TorchLearner,
    attack_schedule: AttackSchedule,
    checkpoint: Checkpoint,
    watchers: Watchers = NO_WATCHERS,
) -> dict[int, Published]:
    """Put all into the checkpoint's state; returns the versions to publish again.

    Raises:
        UserError: the model is not the one that was trained, though it goes by the same name.
    """
    payload = checkpoint.payload
    try:
        put_state(payload, learner.model)
    except Exception as error:
        is_reordered = isinstance(error, ReorderedError)
        reason = str(error) if is_reordered else misfit_text(payload["model"], learner.model)
        raise UserError(
            f"the model is not the one that {checkpoint.path} was trained with ({reason}): set "
            "its code back, or start anew with output=FOLDER"
        ) from error
    try:
        _restore_step(learner.step, payload, checkpoint.step)
        learnt = payload.get("attack_schedule", {})  # the only one of earlier versions had none
        _require_like(attack_schedule.state_dict(), learnt, "attack_schedule")
        attack_schedule.load_state_dict(learnt)
        for name, watcher in watchers.items():
            if name in payload:  # earlier versions had none
                _require_like(watcher.state_dict(), payload[name], name)
                watcher.load_state_dict(payload[name])
        return _published(
            payload["versions"], step=checkpoint.step, num_bytes=learner.parameter_bytes
        )
    except Exception as error:  # a checksum says that this was written, not that it makes sense
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"{checkpoint.path} does not hold the state of this run ({reason}): move it away to go "
            "on from the one before, or start anew with output=FOLDER"
        ) from error


def _restore_step(step: TrainingStep, payload: dict[str, Any], steps_done: int) -> None:
    """Put the training step into its state; any exception says that this is none."""
    # Checkpoints of earlier versions hold its parts by themselves.
    state = payload.get("training_step") or {key: payload[key] for key in ("optimizer", "schedule")}
    for part, fresh in step.state_dict().items():
        _require_like(fresh, state.get(part), part)
    step.load_state_dict(state)
    if step.steps_done != steps_done:
        raise ValueError(f"it is of step {step.steps_done}")


def _require_like(ours: Any, theirs: Any, where: str) -> None:
    """Refuse a state that has not what the fresh one has: its code would find out days later."""
    if isinstance(ours, dict):
        for key in ours if isinstance(theirs, dict) and type(ours) is dict else ():
            if key not in theirs:
                raise ValueError(f"{where} lacks {key}")
            _require_like(ours[key], theirs[key], f"{where}[{key!r}]")
    number = (int, float)
    is_like = isinstance(theirs, number if type(ours) in number else type(ours))
    if not is_like or (isinstance(theirs, bool) and not isinstance(ours, bool)):
        raise ValueError(f"{where} is of another kind: {type(theirs).__name__}")


def _published(versions: dict[int, Any], *, step: int, num_bytes: int) -> dict[int, Published]:
    """The versions that were published; any exception says that they are none."""
    published = {}
    unsaid = {f.name: f.default for f in fields(AttackSettings) if f.default is not MISSING}
    for version, said in versions.items():
        item = {**unsaid, **said}  # versions of earlier releases say less
        values = item["values"].numpy()
        if not 0 <= version <= step or values.shape != (num_bytes,) or values.dtype != np.uint8:
            raise ValueError(f"version {version!r} is none of a run of {step} steps")
        blanks = asdict(blank(AttackSettings))
        _require_like(blanks, item, f"version {version}")
        settings = AttackSettings(**{name: item[name] for name in blanks})
        published[version] = Published(settings=settings, values=values)
    return published
