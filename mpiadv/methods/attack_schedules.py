"""The attack settings that the trainer publishes with each version. Knows no torch, no messages.

A schedule hears every training step before the next version is published. What it hears is the same
for any number of ranks, and so is what it says.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, Protocol

from mpiadv.contract.tickets import AttackSettings
from mpiadv.process.errors import UserError, shown
from mpiadv.process.words import counted
from mpiadv.settings import AttackConfig, AttackScheduleConfig
from mpiadv.settings.registry import find_registered


@dataclass(frozen=True, kw_only=True)
class TrainedStep:
    """What a schedule hears of training step `step`; `settings` are those of its ticket.

    `gradient_magnitude`: L1 norm of an image's gradient at the last attack step or, where a
    schedule that `hears_gradient` had none run, of the training step; mean over attacked images.
    """

    step: int
    settings: AttackSettings
    gradient_magnitude: float


class AttackSchedule(Protocol):
    """Says the attack settings of every version; its state is part of the checkpoint."""

    @property
    def hears_gradient(self) -> bool:
        """Whether it wants the training step's own gradient where there are no attack steps."""

    def hear(self, trained: TrainedStep) -> None:
        """Take note of a training step; called once for each, in order."""

    def settings(self, step: int) -> AttackSettings:
        """What the version of `step` carries: settings of the tickets that begin with it."""

    def state_dict(self) -> dict[str, Any]:
        """What it has learnt from the steps so far: plain values."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""


@dataclass(frozen=True)
class Foreseen:
    """Settings that depend on the training step alone."""

    settings_at: Callable[[int], AttackSettings]
    hears_gradient: bool = False

    def hear(self, trained: TrainedStep) -> None:
        """See `AttackSchedule.hear`."""

    def settings(self, step: int) -> AttackSettings:
        return self.settings_at(step)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `AttackSchedule.load_state_dict`."""


_LEARNT = ("num_steps", "threshold", "magnitude")


@dataclass(kw_only=True)
class MPlus:
    """More and more attack steps: one more after an epoch in which gradients grew.

    Wang et al. 2021, "Dynamic Efficient Adversarial Training Guided by Gradient Magnitude", M+
    acceleration: one step more after the first epoch, and then after each whose magnitude, summed
    over its batches, exceeds `gamma` times that of the second, or of the one after which the number
    last grew. Also while it `falls_short(num_steps)`: so many do not reach the ball's border.
    """

    num_steps: int
    most_steps: int
    gamma: float
    batches_per_epoch: int
    tickets_per_step: int = 1
    settings_at: Callable[[int, int], AttackSettings]
    falls_short: Callable[[int], bool]
    threshold: float = inf
    magnitude: float = 0.0
    """Of the epoch so far."""
    hears_gradient: bool = True

    def hear(self, trained: TrainedStep) -> None:
        self.magnitude += trained.gradient_magnitude
        before, epoch = (
            step * self.tickets_per_step // self.batches_per_epoch
            for step in (trained.step, trained.step + 1)
        )
        if epoch > before:
            # Some have a step more than others, where steps do not divide them.
            first, last = (
                -(-each * self.batches_per_epoch // self.tickets_per_step)
                for each in (epoch - 1, epoch)
            )
            self.magnitude /= (last - first) * self.tickets_per_step / self.batches_per_epoch
            self._end(epoch)
            self.magnitude = 0.0

    def _end(self, epoch: int) -> None:
        """Draw the conclusion from an epoch, 1 being the first."""
        grows = epoch == 1 or self.magnitude > self.threshold or self.falls_short(self.num_steps)
        grows &= self.num_steps < self.most_steps
        if epoch == 2 or (epoch > 2 and grows):
            self.threshold = self.gamma * self.magnitude
        self.num_steps += grows

    def settings(self, step: int) -> AttackSettings:
        return self.settings_at(step, self.num_steps)

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _LEARNT}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in _LEARNT:
            setattr(self, name, state[name])


class Steps(Protocol):
    """Of an attack: how many steps it takes, and how long they are, in pixels of [0, 1]."""

    @property
    def num_steps(self) -> int: ...

    @property
    def step_size(self) -> float: ...


StepsOf = Callable[[AttackSettings], Steps]
"""The run's attack, with the settings that a version may carry."""


@dataclass(frozen=True)
class Ground:
    """What schedules are made from: the configuration, the attack, the length of epoch and run."""

    config: AttackScheduleConfig
    attack: AttackConfig
    steps_of: StepsOf
    batches_per_epoch: int
    training_steps: int
    tickets_per_step: int = 1

    def epsilon_at(self, step: int) -> float:
        """The radius with the warm-up that all schedules share."""
        warm = min(1.0, (step + 1) / max(1, self.attack.epsilon_warmup_steps))
        return warm * self.attack.epsilon

    def settings_at(self, step: int, num_steps: int, tau: int | None = None) -> AttackSettings:
        """What the version of `step` carries, with so many attack steps."""
        return AttackSettings(
            num_steps=num_steps,
            epsilon=self.epsilon_at(step),
            tau=self.attack.tau if tau is None else tau,
        )

    def with_steps(self, num_steps: int) -> Steps:
        """The attack that so many steps are wanted of, after the warm-up."""
        return self.steps_of(AttackSettings(num_steps=num_steps, epsilon=self.attack.epsilon))


def make_attack_schedule(ground: Ground) -> AttackSchedule:
    """The schedule that `ground.config` names.

    Raises:
        UserError: no schedule has that name, or it does not fit the attack.
    """
    return find_registered("attack schedule", ground.config.name, ATTACK_SCHEDULES)(ground)


def _constant(ground: Ground) -> AttackSchedule:
    num_steps = ground.with_steps(ground.attack.num_steps).num_steps
    return Foreseen(lambda step: ground.settings_at(step, num_steps))


def _require_taken(ground: Ground, wanted: Iterable[int]) -> None:
    """Refuse an attack that takes other numbers of steps than those that are wanted of it."""
    for num_steps in wanted:
        if (taken := ground.with_steps(num_steps).num_steps) != num_steps:
            raise UserError(
                f"attack_schedule.name={ground.config.name} has attacks of other numbers of steps, "
                f"and attack.name={ground.attack.name} takes {taken} where {num_steps} are wanted: "
                "use attack.name=pgd, or attack_schedule.name=constant"
            )


def _require_at_most(ground: Ground, setting: str, num_steps: int) -> None:
    if num_steps > (most := ground.attack.num_steps):
        raise UserError(
            f"attack_schedule.{setting}={shown(getattr(ground.config, setting))} is more than "
            f"attack.num_steps={most}, the most that {ground.config.name} may take: use {most} or "
            "less, or a larger attack.num_steps"
        )


def _piecewise(ground: Ground) -> AttackSchedule:
    config = ground.config
    milestones, numbers = config.milestones, [config.first_steps, *config.later_steps]
    if milestones != sorted(set(milestones)) or len(milestones) != len(config.later_steps):
        raise UserError(
            f"attack_schedule.milestones={shown(milestones)}: expected training steps, each later "
            f"than the one before, as many as attack_schedule.later_steps="
            f"{shown(config.later_steps)}"
        )
    if not any(numbers):
        raise UserError(
            "attack_schedule.name=piecewise has attacks of 0 steps all the time: set "
            "attack_schedule.first_steps, or milestones and later_steps"
        )
    _require_at_most(ground, "first_steps", config.first_steps)
    _require_at_most(ground, "later_steps", max(config.later_steps, default=0))
    _require_taken(ground, numbers)
    taus = [ground.attack.tau, *(config.later_tau or [ground.attack.tau] * len(milestones))]
    if len(taus) != len(numbers):
        raise UserError(
            f"attack_schedule.later_tau={shown(config.later_tau)}: expected none, or as many as "
            f"attack_schedule.milestones={shown(milestones)}"
        )

    def settings(step: int) -> AttackSettings:
        piece = bisect_right(milestones, step)
        return ground.settings_at(step, numbers[piece], taus[piece])

    return Foreseen(settings)


def _amata(ground: Ground) -> AttackSchedule:
    """Ye et al. 2021, "Amata: An Annealing Mechanism for Adversarial Training Acceleration".

    More and more steps, each number for the same share of the run; shorter ones where their size is
    relative to their number, as in the paper.
    """
    first, most = ground.config.first_steps, ground.attack.num_steps
    _require_at_most(ground, "first_steps", first)
    _require_taken(ground, range(first, most + 1))
    numbers = most - first + 1

    def settings(step: int) -> AttackSettings:
        return ground.settings_at(step, min(most, first + numbers * step // ground.training_steps))

    return Foreseen(settings)


def _m_plus(ground: Ground) -> AttackSchedule:
    config, attack = ground.config, ground.attack
    if ground.tickets_per_step > ground.batches_per_epoch:
        raise UserError(
            f"attack_schedule.name=m_plus compares epochs, and one of "
            f"{counted(ground.batches_per_epoch, 'batch')} is less than a training step: "
            f"use training.tickets_per_step <= {ground.batches_per_epoch}"
        )
    _require_at_most(ground, "first_steps", config.first_steps)
    _require_taken(ground, range(config.first_steps, attack.num_steps + 1))
    return MPlus(
        num_steps=config.first_steps,
        most_steps=attack.num_steps,
        gamma=config.gamma,
        batches_per_epoch=ground.batches_per_epoch,
        tickets_per_step=ground.tickets_per_step,
        settings_at=ground.settings_at,
        # Three steps of 0.1 do reach 0.3, rounded as they are.
        falls_short=lambda n: n * ground.with_steps(n).step_size < attack.epsilon * (1 - 1e-6),
    )


ATTACK_SCHEDULES: Mapping[str, Callable[[Ground], AttackSchedule]] = {
    "constant": _constant,
    "piecewise": _piecewise,
    "amata": _amata,
    "m_plus": _m_plus,
}
