"""What speaks against the figures, with its evidence. Knows no model: it reads what attacks found.

Signs of gradient masking: Athalye et al. 2018, "Obfuscated Gradients Give a False Sense of
Security", section 3.1, and Carlini et al. 2019, "On Evaluating Adversarial Robustness", section 3:
where gradients mislead, weak attacks do better than strong ones, and no radius is large enough.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mpiadv.attacks import NORMS
from mpiadv.evaluation.attack_specs import AttackSpec
from mpiadv.evaluation.results import Findings

NOISE_FRACTION, NOISE_COUNT = 0.005, 2
"""A weaker attack may be better on this share of the images, or so many, by chance."""

MUCH_FRACTION = 0.05
"""An attack of the probe that breaks this share of the images more is much stronger."""

PROBE_STEPS = 20
"""Steps of the probe's attacks."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What speaks against the figures, a line each.

    Attributes:
        signs: of gradient masking; None if nobody looked for them.
        doubts: everything else.
        notes: what limits them, without making them wrong.
    """

    signs: tuple[str, ...] | None
    doubts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def judge(
    findings: Findings,
    probe: Findings | None,
    *,
    doubts: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> Verdict:
    """The verdict on `findings`; `probe` is None if nobody looked for gradient masking."""
    signs = None if probe is None else tuple(signs_of_masking(findings, probe))
    weak = [] if probe is None else weak_attacks(findings, probe)
    return Verdict(signs=signs, doubts=(*doubts, *weak), notes=tuple(notes))


def large_epsilon(norm: str, num_pixels: int) -> float:
    """A radius within which every image can turn grey, so that nothing can be told from it."""
    return float(0.5 * num_pixels ** (1 / NORMS[norm].order))


def probe_attacks(balls: Sequence[tuple[str, float]], num_pixels: int) -> tuple[AttackSpec, ...]:
    """Attacks on all images of the probe, with steps that fit.

    One step in the first ball, norm and radius each, many steps in every ball, and many steps in a
    large ball of the first one's norm.
    """
    norm, epsilon = balls[0]
    many = [
        AttackSpec(kind="pgd", steps=PROBE_STEPS, norm=norm, epsilon=epsilon, chain=1 + number)
        for number, (norm, epsilon) in enumerate(balls)
    ]
    radius = max(epsilon, large_epsilon(norm, num_pixels))
    return (
        AttackSpec(kind="fgsm", norm=norm, epsilon=epsilon, chain=0),
        *many,
        dataclasses.replace(many[0], loss="margin", epsilon=radius, chain=1 + len(many)),
    )


def signs_of_masking(findings: Findings, probe: Findings | None = None) -> list[str]:
    """What speaks against the figures, a line for each sign; empty where nothing does."""
    signs = _beaten_pairs(findings)
    return signs if probe is None else [*signs, *_beaten_pairs(probe), *_survives_large(probe)]


def weak_attacks(findings: Findings, probe: Findings) -> list[str]:
    """Where the probe breaks much more than all attacks of the same norm and radius together."""
    places = {int(index): row for row, index in enumerate(findings.indices)}
    rows = np.array([places[int(index)] for index in probe.indices], np.int64)
    probed = attacked_balls(probe.attacks)
    balls = [ball for ball in attacked_balls(findings.attacks) if ball in probed]
    lines = (_flattery(findings, rows, probe, ball) for ball in balls)
    return [line for line in lines if line]


def attacked_balls(attacks: Sequence[AttackSpec]) -> list[tuple[str, float]]:
    """The balls that are attacked, each once."""
    return list(dict.fromkeys(attack.ball for attack in attacks if attack.kind != "grid"))


def _flattery(
    findings: Findings, rows: npt.NDArray[np.int64], probe: Findings, ball: tuple[str, float]
) -> str:
    """How much more the probe breaks in a ball; empty where it is not much.

    `rows` are those of the probe's images in `findings`.
    """
    ours = [n for n, attack in enumerate(findings.attacks) if attack.ball == ball]
    theirs = [n for n, attack in enumerate(probe.attacks) if attack.ball == ball]
    attacked = np.logical_or.reduce([findings.attacked(n)[rows] for n in ours])
    broken = np.logical_or.reduce([findings.broken(n)[rows] for n in ours])
    best = max(theirs, key=lambda n: int((attacked & probe.broken(n)).sum()))
    both = attacked & probe.attacked(best)
    left, left_by_probe = (int((both & ~fallen).sum()) for fallen in (broken, probe.broken(best)))
    if left - left_by_probe <= max(NOISE_COUNT, MUCH_FRACTION * both.sum()):
        return ""
    asked, attack = findings.attacks[ours[0]], probe.attacks[best]
    name = f"{asked.title} ({asked.details})" if len(ours) == 1 else f"all {len(ours)} attacks"
    return (
        f"the figures flatter the model: of {both.sum()} images {name} left {left} standing, "
        f"{attack.title} ({attack.details}) {left_by_probe}"
    )


def _beaten_pairs(findings: Findings) -> list[str]:
    numbers = range(len(findings.attacks))
    pairs = ((weak, strong) for weak in numbers for strong in numbers)
    return [
        _evidence(findings, weak, strong, gain)
        for weak, strong in pairs
        if is_weaker(findings.attacks[weak], findings.attacks[strong])
        and (gain := _gain(findings, weak, strong)) > _noise(findings)
    ]


def is_weaker(weak: AttackSpec, strong: AttackSpec) -> bool:
    """Whether `strong` has to break what `weak` breaks, if gradients do not mislead it."""
    if weak.ball != strong.ball or "grid" in (weak.kind, strong.kind):
        return False
    if strong.source or strong.kind in ("square", "fgsm"):
        return False
    if weak.source or weak.kind in ("square", "fgsm"):
        return True
    is_same_kind = (weak.kind, weak.loss) == (strong.kind, strong.loss)
    ours, theirs = (weak.steps, weak.restarts), (strong.steps, strong.restarts)
    is_less = ours[0] <= theirs[0] and ours[1] <= theirs[1]
    return is_same_kind and is_less and ours != theirs


def _gain(findings: Findings, weak: int, strong: int) -> int:
    """Images both were run on: those the weaker alone broke, less those the stronger alone did."""
    both = findings.attacked(weak) & findings.attacked(strong)
    by_weak, by_strong = (int((both & findings.broken(n)).sum()) for n in (weak, strong))
    return by_weak - by_strong


def _noise(findings: Findings) -> float:
    return max(NOISE_COUNT, NOISE_FRACTION * findings.num_samples)


def _evidence(findings: Findings, weak: int, strong: int, gain: int) -> str:
    attack, better = findings.attacks[weak], findings.attacks[strong]
    what = (
        "a transferred attack beats the model's own gradients"
        if attack.source
        else "an attack without gradients beats one with them"
        if attack.kind == "square"
        else "one step beats many"
        if attack.kind == "fgsm"
        else "a weaker attack beats a stronger one"
    )
    return (
        f"{what}: {attack.title} broke {gain} more of {findings.num_samples} images than "
        f"{better.title} ({attack.norm} {attack.epsilon:g})"
    )


def _survives_large(probe: Findings) -> list[str]:
    last = len(probe.attacks) - 1
    standing = int((probe.is_right & ~probe.broken(last)).sum())
    if standing <= _noise(probe):
        return []
    attack = probe.attacks[last]
    return [
        f"a large radius is not enough: {standing} of {probe.num_samples} images withstand "
        f"{attack.title} at {attack.norm} {attack.epsilon:g}, within which any image can turn grey"
    ]
