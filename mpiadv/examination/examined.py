"""What an evaluation is of: the network, its data and its attacks, set up on one rank.

Knows no communicator.
"""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mpiadv.attacks import rehearse
from mpiadv.attacks.auto_attack import COMPONENTS, require_auto_attack
from mpiadv.contract.tickets import choose_samples
from mpiadv.data import DataSet
from mpiadv.evaluation.accuracy import load_batch
from mpiadv.evaluation.attack_specs import (
    AttackSpec,
    read_attacks,
    require_within_box,
    threat_words,
)
from mpiadv.evaluation.crafting import Classifier
from mpiadv.evaluation.protocols import protocol_of
from mpiadv.evaluation.subject import Network, Subject, load_network, read_subject
from mpiadv.evaluation.survivors import Assault
from mpiadv.evaluation.verdict import attacked_balls, probe_attacks
from mpiadv.examination.wanted import Wanted
from mpiadv.process.errors import UserError
from mpiadv.session.rehearsal import FEW, Sample, rehearse_evaluation
from mpiadv.settings import Precision
from mpiadv.storage.checkpoint import is_checkpoint

NUM_PROBED, PROBE_BATCH = 100, 25
"""Images that are attacked for the verdict alone, and how many of them at a time."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Examined:
    """A network on this rank, and all that its evaluation takes."""

    subject: Subject
    data: DataSet
    target: Network
    sources: Mapping[str, Network]
    assault: Assault
    output: Path
    doubts: tuple[str, ...]
    """What of the model speaks against figures."""

    @property
    def networks(self) -> list[Network]:
        return [self.target, *self.sources.values()]


def set_up(subject: Subject, data: DataSet, wanted: Wanted, device: torch.device) -> Examined:
    """The subject's network and those that it is attacked from, on the device, with the attacks.

    Raises:
        UserError: networks, data and attacks do not go together.
    """
    precision = wanted.precision or subject.config.evaluation.precision
    target = load_network(subject, data, device, precision)
    sources = _load_sources(data, wanted, device, precision)
    attacks = _attacks(subject, data, wanted, tuple(sources))
    climbs = _climbs(attacks, probe=wanted.probe)
    doubts, *_ = [
        _try_network(each.model, data, precision, climbs=climbs)
        for each in (target, *sources.values())
    ]
    return Examined(
        subject=subject,
        data=data,
        target=target,
        sources=sources,
        assault=Assault(
            target=Classifier(model=target.model, precision=precision),
            sources={
                name: Classifier(model=source.model, precision=precision)
                for name, source in sources.items()
            },
            attacks=attacks,
            seed=subject.config.seed,
            num_samples=min(wanted.num_samples or data.test.num_samples, data.test.num_samples),
            batch_size=subject.config.evaluation.batch_size,
            keep_examples=wanted.save_examples,
        ),
        output=Path(wanted.output, "evaluation") if wanted.output else subject.output,
        doubts=tuple(doubts),
    )


def _load_sources(
    data: DataSet, wanted: Wanted, device: torch.device, precision: Precision
) -> dict[str, Network]:
    """The networks to craft images on, by name."""
    sources: dict[str, Network] = {}
    for path in wanted.transfer_from:
        words = _overrides_for(Path(path), wanted.overrides)
        source = read_subject(Path(path), words, wanted.trusted)
        name = source.name if source.name not in sources else path
        sources[name] = load_network(source, data, device, precision)
    return sources


def _overrides_for(path: Path, overrides: Sequence[str]) -> list[str]:
    """A network that brings its own configuration keeps its model; a plain file takes ours."""
    if os.path.isdir(path) or is_checkpoint(path):
        return [override for override in overrides if not override.startswith("model.")]
    return list(overrides)


def _try_network(
    model: nn.Module, data: DataSet, precision: Precision, *, climbs: bool
) -> list[str]:
    """Try a model as the attacks use it; what of it speaks against their figures.

    Raises:
        UserError: it cannot be used so; see `rehearse_evaluation`.
    """
    images, labels = load_batch(data.test, np.arange(min(FEW, data.test.num_samples)), model)
    given = Sample(images=images, labels=labels, num_classes=data.num_classes, precision=precision)
    return rehearse_evaluation(model, given, needs_gradient=climbs)


def _attacks(
    subject: Subject, data: DataSet, wanted: Wanted, sources: tuple[str, ...]
) -> tuple[AttackSpec, ...]:
    norm, epsilon = subject.ball
    papers = [protocol_of(name) for name in wanted.protocols]
    each_alone = wanted.each_alone or any(paper.is_each_alone for paper in papers)
    attacks = read_attacks(
        _words(subject, wanted),
        norm=norm, epsilon=epsilon, each_alone=each_alone, sources=sources,
    )  # fmt: skip
    for attack in attacks:
        require_within_box(attack, data.image_shape)
        if attack.is_gradient_attack:
            few = data.test.batch(choose_samples(data.test.num_samples, 2))
            rehearse(attack.attack, *few, data.num_classes)
    _require_auto_attack(attacks, data.num_classes)
    return attacks


def _climbs(attacks: Sequence[AttackSpec], *, probe: bool) -> bool:
    """Whether anything, be it the probe, takes gradients."""
    by_attacks = any(attack.kind not in ("grid", "square") for attack in attacks)
    return by_attacks or (probe and any(attack.kind != "grid" for attack in attacks))


def _words(subject: Subject, wanted: Wanted) -> tuple[str, ...]:
    """The attacks of the protocols, the ones by name, or else that of the run's own evaluation."""
    protocols = [protocol_of(name).words(*subject.ball) for name in wanted.protocols]
    words = (*(word for words in protocols for word in words), *wanted.attacks)
    own = subject.config.evaluation
    sized = f",step_size={own.step_size!r}" if own.step_size else ""
    return words or (f"pgd:steps={own.num_steps}{sized}",)


def notes_on(examined: Examined, wanted: Wanted) -> list[str]:
    """What became of weights, what is not attacked, and step sizes made for another ball."""
    protocols = {name: protocol_of(name) for name in wanted.protocols}
    is_own = not wanted.protocols and not wanted.attacks
    return [
        *(line for network in examined.networks for line in network.taken),
        *(examined.subject.notes if is_own else ()),
        *(_not_attacked(examined, _words(examined.subject, wanted)) if is_own else ()),
        *(
            f"protocol {name}: {protocol.note_elsewhere}"
            for name, protocol in protocols.items()
            if not protocol.is_made_for(*examined.subject.ball)
        ),
    ]


def _not_attacked(examined: Examined, own: Sequence[str]) -> list[str]:
    """The threat models of the configuration that the run's `own` evaluation leaves out."""
    others = threat_words(examined.subject.config.attack.further or ())
    if not others:
        return []
    words = " ".join(f"--attack {word}" for word in (*own, *others))
    return [f"attack.further names other threat models, left out here: for all say {words}"]


def step_misfits(examined: Examined) -> list[str]:
    """The attacks whose steps do not fit their ball."""
    return [
        f"{attack.title}: {attack.misfit}, so that its figures flatter the model: without "
        "step_size, or with evaluation.step_size=null, they fit"
        for attack in examined.assault.attacks
        if attack.misfit and not attack.source
    ]


def _require_auto_attack(attacks: Sequence[AttackSpec], num_classes: int) -> None:
    kinds = {attack.kind for attack in attacks}
    if kinds & set(COMPONENTS):
        require_auto_attack()
    if "apgd-t" in kinds and num_classes < 4:
        raise UserError(
            f"apgd-t needs 4 classes, the data set has {num_classes}: use --attack apgd-ce "
            "--attack fab-t --attack square in place of autoattack"
        )


def settings_of(examined: Examined, wanted: Wanted) -> dict[str, Any]:
    """What decides the figures, and what is written beside them."""
    config = examined.subject.config
    return {
        "model_hash": examined.target.hash,
        "source_hashes": {name: source.hash for name, source in examined.sources.items()},
        "data": {"name": config.data.name, "arguments": config.data.arguments},
        "num_samples": examined.assault.num_samples,
        "batch_size": examined.assault.batch_size,
        "seed": examined.assault.seed,
        "precision": examined.assault.target.precision,
        "attacks": [
            {**attack.settings, "source": attack.source, "chain": attack.chain}
            for attack in examined.assault.attacks
        ],
        "probe": wanted.probe,
        "examples": wanted.save_examples,
    }


def few_images(examined: Examined) -> Tensor:
    """Of those that are evaluated: float32 [N, C, H, W]."""
    few = choose_samples(examined.data.test.num_samples, examined.assault.num_samples)[:PROBE_BATCH]
    images, _ = load_batch(examined.data.test, few, examined.target.model)
    return images


def probe_of(examined: Examined) -> Assault | None:
    """A few images under attacks that tell on gradient masking; None where no ball is attacked."""
    assault = examined.assault
    balls = attacked_balls(assault.attacks)
    if not balls:
        return None
    return Assault(
        target=assault.target,
        attacks=probe_attacks(balls, math.prod(examined.data.image_shape)),
        seed=assault.seed,
        num_samples=min(NUM_PROBED, assault.num_samples),
        batch_size=PROBE_BATCH,
    )
