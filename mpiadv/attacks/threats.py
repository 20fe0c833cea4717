"""What training images are crafted by: an attack, or several side by side."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from mpiadv.attacks.attack import Attack, Stand
from mpiadv.attacks.climb import ClimbView
from mpiadv.attacks.losses import AttackLoss
from mpiadv.attacks.named import make_attack
from mpiadv.attacks.placing import PlacingAttack
from mpiadv.contract.tickets import AttackSettings, Purpose, seed_for
from mpiadv.settings import AttackConfig, ThreatModel


class TicketAttack(Protocol):
    """Steps away from natural images, as those of `Attack`."""

    @property
    def num_steps(self) -> int:
        """So many for each image."""

    @property
    def loss(self) -> AttackLoss | None:
        """What is climbed; None: what the configuration says, or nothing."""

    @property
    def keeps_notes(self) -> bool:
        """Whether it stands on notes, too, which whoever goes on with it needs."""

    def start(self, natural: Tensor, generator: torch.Generator) -> Tensor:
        """Where it begins: float32 [M * N, C, H, W] of natural images float32 [N, C, H, W]."""

    def steps(
        self,
        look: ClimbView,
        natural: Tensor,
        stand: Stand,
        *,
        first: int = 0,
        last: int | None = None,
    ) -> Iterator[Stand]:
        """Yield where it stands after each of the steps `first` to `last - 1`."""


@dataclass(frozen=True, kw_only=True)
class SideBySide:
    """Several attacks on the same images, a step of each in each step.

    It stands on all their images, those of the first attack first: [M * N, C, H, W]. With
    `takes_worst` the last step ends on the images [N, C, H, W] whose cross-entropy is the highest,
    in the eyes of that step: the "max" of Tramèr and Boneh 2019, "Adversarial Training and
    Robustness for Multiple Perturbations", section 2.2; without, it stays on all: their "avg".
    """

    attacks: Sequence[TicketAttack]
    takes_worst: bool

    @property
    def num_steps(self) -> int:
        return self.attacks[0].num_steps

    @property
    def loss(self) -> AttackLoss | None:
        return self.attacks[0].loss

    @property
    def keeps_notes(self) -> bool:
        return any(attack.keeps_notes for attack in self.attacks)

    def start(self, natural: Tensor, generator: torch.Generator) -> Tensor:
        return torch.cat([attack.start(natural, generator) for attack in self.attacks])

    def steps(
        self,
        look: ClimbView,
        natural: Tensor,
        stand: Stand,
        *,
        first: int = 0,
        last: int | None = None,
    ) -> Iterator[Stand]:
        last = self.num_steps if last is None else last
        tracks = [
            attack.steps(look, natural, part, first=first, last=last)
            for attack, part in zip(self.attacks, self._parts(stand, len(natural)), strict=True)
        ]
        for step in range(first, last):
            stands = [next(track) for track in tracks]
            if self.takes_worst and step == self.num_steps - 1:
                yield Stand(_worst(look, [each.images for each in stands]))
            else:
                yield self._joined(stands)

    def _parts(self, stand: Stand, count: int) -> list[Stand]:
        """Where each attack stands, on so many images."""
        images = stand.images.split([count] * len(self.attacks))
        if stand.notes is None:
            return [Stand(each) for each in images]
        notes = stand.notes.split([count] * len(self.attacks))
        return [Stand(*each) for each in zip(images, notes, strict=True)]

    def _joined(self, stands: Sequence[Stand]) -> Stand:
        images = torch.cat([each.images for each in stands])
        if not self.keeps_notes:
            return Stand(images)
        nothing = torch.zeros(len(stands[0].images), dtype=torch.int64, device=images.device)
        notes = [nothing if each.notes is None else each.notes for each in stands]
        return Stand(images, torch.cat(notes))


def _worst(look: ClimbView, candidates: Sequence[Tensor]) -> Tensor:
    """Of each image the candidate of the highest loss, the first of equals."""
    if not len(candidates[0]):
        return candidates[0]
    worst = torch.stack([look.losses(each) for each in candidates]).argmax(dim=0)
    images = candidates[0]
    for number, each in enumerate(candidates):
        images = torch.where((worst == number)[:, None, None, None], each, images)
    return images


def crafting_attack(config: AttackConfig, settings: AttackSettings, seed: int) -> TicketAttack:
    """What crafts the images of a ticket: of these `settings`, drawing by `seed`.

    A radius that is not yet what it is to become makes those of further threat models smaller, too.

    Raises:
        UserError: as `make_attack`.
    """
    own = make_attack(config, settings)
    if config.further is None:
        return own
    warm = settings.epsilon / config.epsilon if config.epsilon else 1.0
    attacks: list[TicketAttack] = [own]
    for number, threat in enumerate(config.further):
        if threat.epsilon is None:
            attacks.append(
                PlacingAttack(
                    num_steps=own.num_steps,
                    degrees=warm * threat.degrees,
                    pixels=warm * threat.pixels,
                    seed=seed_for(seed, Purpose.THREATS, number),
                )
            )
        else:
            radius = dataclasses.replace(settings, epsilon=warm * threat.epsilon)
            attacks.append(make_attack(_in_ball_of(threat, config), radius))
    if config.combine == "random":
        return attacks[seed % len(attacks)]
    return SideBySide(attacks=attacks, takes_worst=config.combine == "worst")


def make_attacks(config: AttackConfig) -> list[Attack]:
    """Those of all threat models but rotations and shifts, `config`'s own first.

    Raises:
        UserError: as `make_attack`.
    """
    balls = [threat for threat in config.further or () if threat.epsilon is not None]
    return [make_attack(config), *(make_attack(_in_ball_of(each, config)) for each in balls)]


def keeps_notes(config: AttackConfig) -> bool:
    """Whether attacks of any ticket stand on notes, too."""
    is_placed = any(threat.epsilon is None for threat in config.further or ())
    return is_placed or any(attack.keeps_notes for attack in make_attacks(config))


def num_copies(config: AttackConfig) -> int:
    """How many images attacks make of each while they are under way."""
    return 1 + len(config.further or ()) if config.combine != "random" else 1


def _in_ball_of(threat: ThreatModel, config: AttackConfig) -> AttackConfig:
    """The attack that `config` names, in the ball of another threat model."""
    ball = {"norm": threat.name, "epsilon": threat.epsilon, "step_size": threat.step_size}
    return config.model_copy(update={**ball, "further": None})
