"""Which attacks an evaluation runs, read from the user's words. Knows no model and no images."""

import dataclasses
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from mpiadv.attacks.auto_attack import COMPONENTS, QUERIES
from mpiadv.attacks.losses import LOSSES
from mpiadv.attacks.norms import NORMS
from mpiadv.attacks.steps import misfit, step_length
from mpiadv.process.errors import UserError, shown
from mpiadv.settings.pixels import read_pixels, require_length
from mpiadv.settings.registry import find_registered

N = TypeVar("N", int, float)


@dataclass(frozen=True, kw_only=True)
class PlannedAttack:
    """One attack of an evaluation; what a kind of attack does not use keeps its default.

    Attributes:
        kind: one of `KINDS`, but for those that stand for several.
        epsilon: radius of the ball, in pixels of [0, 1].
        step_size: in pixels of [0, 1]; None: 2.5 epsilon / steps.
        restarts: random starts; the worst one counts for each image.
        loss: what is climbed: ce (cross-entropy) or margin (best wrong logit less correct one).
        degrees: largest angle of the grid; `pixels` its largest shift.
        source: name of the model that the images are crafted on; empty: the attacked one.
        chain: attacks of one chain only attack what those before them left standing.
    """

    kind: str
    norm: str = "linf"
    epsilon: float = 0.0
    steps: int = 1
    step_size: float | None = None
    restarts: int = 1
    loss: str = "ce"
    degrees: float = 30.0
    pixels: float = 3.0
    angles: int = 31
    shifts: int = 5
    source: str = ""
    chain: int = 0

    @property
    def is_gradient_attack(self) -> bool:
        """Whether it climbs a gradient in steps, so that it can be transferred."""
        return self.kind in ("fgsm", "pgd")

    @property
    def num_restarts(self) -> int:
        """Tries per image; each runs on what the tries before left standing."""
        return self.angles * self.shifts**2 if self.kind == "grid" else self.restarts

    @property
    def num_steps(self) -> int:
        """Steps, or queries, per image and try; for AutoAttack's parts their budget."""
        return QUERIES.get(self.kind, self.steps)

    @property
    def settings(self) -> dict[str, Any]:
        """Its kind, and the settings that its kind takes."""
        return {"kind": self.kind, **{name: getattr(self, name) for name in KINDS[self.kind].takes}}

    @property
    def seed_key(self) -> int:
        """A number for the random streams: the same whatever else is run, and in whatever order."""
        # All parts of AutoAttack start from the same seed, as its authors' code has it.
        words = {**self.settings, "kind": "autoattack" if self.kind in COMPONENTS else self.kind}
        return zlib.crc32(str(sorted(words.items())).encode())

    @property
    def title(self) -> str:
        """A short name with the size of the attack."""
        name = {
            "pgd": f"{'cw' if self.loss == 'margin' else 'pgd'}-{self.steps}",
            "grid": "rotation-translation",
        }.get(self.kind, self.kind)
        repeated = f" x{self.restarts}" if self.restarts > 1 else ""
        return f"{name}{repeated}{f' from {self.source}' if self.source else ''}"

    @property
    def details(self) -> str:
        """The settings behind the name."""
        if self.kind == "grid":
            return (
                f"{self.angles} angles to {self.degrees:g} degrees, "
                f"{self.shifts}x{self.shifts} shifts to {self.pixels:g} pixels"
            )
        ball = f"{self.norm} {self.epsilon:g}"
        if not self.is_gradient_attack:
            return ball
        step = f", step {self.step_length:.4g}" if self.kind == "pgd" else ""
        return f"{ball}{step}, {self.loss}"

    @property
    def step_length(self) -> float:
        """The step size, in pixels of [0, 1]."""
        return step_length(epsilon=self.epsilon, num_steps=self.steps, given=self.step_size)

    @property
    def ball(self) -> tuple[str, float]:
        """Norm and radius."""
        return self.norm, self.epsilon

    @property
    def misfit(self) -> str:
        """How its steps do not fit its ball; empty where they do."""
        if self.kind != "pgd":
            return ""
        return misfit(
            norm=self.norm, epsilon=self.epsilon, num_steps=self.steps, step_size=self.step_length
        )


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A name the user may give: which settings it takes, and what it stands for."""

    takes: tuple[str, ...]
    stands_for: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)


_BALL = ("norm", "epsilon")
_CLIMB = (*_BALL, "steps", "step_size", "restarts")

KINDS: Mapping[str, Kind] = {
    "fgsm": Kind(takes=(*_BALL, "loss")),
    "pgd": Kind(takes=(*_CLIMB, "loss"), defaults={"steps": 40}),
    "cw": Kind(takes=_CLIMB, stands_for=("pgd",), defaults={"steps": 40, "loss": "margin"}),
    **{component: Kind(takes=_BALL) for component in COMPONENTS},
    "autoattack": Kind(takes=_BALL, stands_for=COMPONENTS),
    "grid": Kind(takes=("degrees", "pixels", "angles", "shifts")),
}
"""Attacks by name. `cw` is PGD on the margin loss, as Madry et al. 2018 use it."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """An evaluation as a paper has it.

    Attributes:
        attacks: words for `plan_attacks`.
        is_each_alone: whether each attack starts from all images, for figures like the paper's
            columns.
        step_size: of PGD, in pixels of [0, 1], in the paper's own `ball` and no other; None, as in
            any other ball: 2.5 epsilon / steps.
        ball: norm and radius.
    """

    attacks: tuple[str, ...]
    is_each_alone: bool = False
    step_size: float | None = None
    ball: tuple[str, float] | None = None

    def words(self, norm: str, epsilon: float | None) -> tuple[str, ...]:
        """Its attacks, for images in the ball of `norm` and `epsilon`."""
        if self.step_size is None or not self.is_made_for(norm, epsilon):
            return self.attacks
        return tuple(f"{word},step_size={self.step_size!r}" for word in self.attacks)

    def is_made_for(self, norm: str, epsilon: float | None) -> bool:
        """Whether it was made for this ball; true where it says nothing of one."""
        if self.ball is None or epsilon is None:
            return True
        return norm == self.ball[0] and math.isclose(epsilon, self.ball[1], rel_tol=1e-6)

    @property
    def note_elsewhere(self) -> str:
        """What becomes of its step size in any other ball."""
        assert self.ball is not None, "asked of a protocol for any ball"
        return (
            f"its steps of {self.step_size:g} were made for {self.ball[0]} {self.ball[1]:g}: here "
            "they are 2.5 epsilon / steps"
        )


PROTOCOLS: Mapping[str, Protocol] = {
    # Madry et al. 2018, MNIST: table 1 and the challenge's leaderboard.
    "madry": Protocol(
        attacks=("pgd:steps=40", "pgd:steps=100,restarts=20"), step_size=0.01, ball=("linf", 0.3)
    ),
    # Wong et al. 2020, "Fast is better than free", section 5.
    "fast": Protocol(attacks=("pgd:steps=50,restarts=10",)),
    # Zhang et al. 2019, "Theoretically Principled Trade-off", section 5.
    "trades": Protocol(attacks=("pgd:steps=20",)),
    # Wang et al., DEAT: table 1, with a column for each attack.
    "deat": Protocol(attacks=("pgd:steps=100", "cw:steps=20", "autoattack"), is_each_alone=True),
    # Croce and Hein 2020: the standard version.
    "autoattack": Protocol(attacks=("autoattack",)),
}


def plan_attacks(
    words: Sequence[str],
    *,
    norm: str,
    epsilon: float | None,
    each_alone: bool,
    sources: Sequence[str] = (),
) -> tuple[PlannedAttack, ...]:
    """The attacks that `words` such as `pgd:steps=20,restarts=5` ask for, in order.

    Args:
        words: each a name of `KINDS`, with settings after a colon.
        norm: of attacks that do not say.
        epsilon: of attacks that do not say; None: all have to.
        each_alone: whether each word's attacks start from all images, not from the survivors.
        sources: models on which the gradient attacks are run once more, for transfer.

    Raises:
        UserError: an unknown name or setting, or a value that makes no sense.
    """
    defaults = {"norm": norm, "epsilon": epsilon}
    own = [attack for chain, word in enumerate(words) for attack in _read(word, defaults, chain)]
    climbing = [attack for attack in own if attack.is_gradient_attack]
    transferred = [
        dataclasses.replace(attack, source=source, chain=len(words) + number)
        for number, source in enumerate(sources)
        for attack in climbing
    ]
    if sources and not climbing:
        raise UserError("--transfer-from needs an attack to transfer: add --attack pgd or fgsm")
    attacks = [*own, *transferred]
    return tuple(a if each_alone else dataclasses.replace(a, chain=0) for a in attacks)


def require_within_box(attack: PlannedAttack, num_pixels: int | None = None) -> None:
    """Refuse a ball, or a step, that reaches every image; `num_pixels` as for `require_length`.

    Raises:
        UserError: naming the attack.
    """
    if "epsilon" in KINDS[attack.kind].takes:
        name = f"attack {attack.kind!r}"
        require_length(f"{name}: epsilon", attack.epsilon, attack.norm, num_pixels)
        require_length(f"{name}: step_size", attack.step_size or 0.0, attack.norm, num_pixels)


def protocol_of(name: str) -> Protocol:
    """The protocol of a name.

    Raises:
        UserError: there is none of that name.
    """
    return find_registered("protocol", name, PROTOCOLS)


def _read(word: str, defaults: Mapping[str, Any], chain: int) -> list[PlannedAttack]:
    name, _, text = word.partition(":")
    kind = find_registered("attack", name, KINDS)
    given = dict(_setting(name, item, kind) for item in text.split(",") if item)
    settings = {key: value for key, value in defaults.items() if key in kind.takes}
    settings.update({**kind.defaults, **given})
    if "epsilon" in kind.takes and settings["epsilon"] is None:
        raise UserError(f"attack {word!r} has no radius: add epsilon=..., or attack.epsilon=...")
    names = kind.stands_for or (name,)
    planned = [PlannedAttack(kind=each, chain=chain, **settings) for each in names]
    for attack in planned:
        require_within_box(attack)
    return planned


def _setting(attack: str, item: str, kind: Kind) -> tuple[str, Any]:
    key, separator, text = item.partition("=")
    if not separator:
        raise UserError(f"attack {attack!r}: {item!r}: expected key=value, separated by commas")
    if key not in kind.takes:
        raise UserError(
            f"attack {attack!r} does not take {key!r}: it takes {', '.join(kind.takes)}"
        )
    read, expected = _VALUES[key]
    try:
        return key, read(text)
    except (ValueError, KeyError, OverflowError):
        raise UserError(f"attack {attack!r}: {key}={shown(text)}: expected {expected}") from None


def _bounded(
    read: Callable[[str], N], least: float, most: float, what: str
) -> tuple[Callable[[str], N], str]:
    def read_bounded(text: str) -> N:
        value = read(text)
        if not least <= value <= most:
            raise ValueError(value)
        return value

    return read_bounded, what


def _one_of(known: Mapping[str, Any]) -> tuple[Callable[[str], str], str]:
    def read(text: str) -> str:
        known[text]
        return text

    return read, f"one of {', '.join(known)}"


_VALUES: Mapping[str, tuple[Callable[[str], Any], str]] = {
    "norm": _one_of(NORMS),
    "loss": _one_of(LOSSES),
    "epsilon": _bounded(read_pixels, 0, 1e6, "a number of at least 0, or a fraction such as 8/255"),
    "step_size": _bounded(read_pixels, 1e-30, 1e6, "a number above 0, or a fraction such as 2/255"),
    "degrees": _bounded(float, 0, 360, "a number of at least 0 and at most 360"),
    "pixels": _bounded(float, 0, 10_000, "a number of at least 0 and at most 10,000"),
    **{
        key: _bounded(int, 1, most, f"a whole number above 0, at most {most:,}")
        for key, most in (("steps", 10**5), ("restarts", 10**5), ("angles", 999), ("shifts", 99))
    },
}
