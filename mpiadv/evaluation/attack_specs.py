"""Which attacks an evaluation runs, read from the user's words. Knows no model and no images."""

import dataclasses
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from yaml import YAMLError

from mpiadv.attacks import ATTACKS, LOSSES, NORMS, Attack, make_attack
from mpiadv.attacks.attack import at_natural
from mpiadv.attacks.auto_attack import COMPONENTS, QUERIES
from mpiadv.attacks.named import Named
from mpiadv.process.errors import UserError, shown
from mpiadv.settings import AttackConfig, ThreatModel
from mpiadv.settings.pixels import read_pixels, require_length, require_shift
from mpiadv.settings.registry import find_registered, is_dotted
from mpiadv.settings.yaml_files import parse_yaml

N = TypeVar("N", int, float)


@dataclass(frozen=True, kw_only=True)
class AttackSpec:
    """One attack of an evaluation; what a kind of attack does not use keeps its default.

    Attributes:
        kind: one of `KINDS`, but for those that stand for several; or a user's dotted name.
        epsilon: radius of the ball, in pixels of [0, 1].
        step_size: in pixels of [0, 1]; None: the ball's own.
        restarts: random starts; the worst one counts for each image.
        loss: what is climbed, by name; None: what the user's attack says.
        arguments: further ones of the user's attack.
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
    loss: str | None = "ce"
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    degrees: float = 30.0
    pixels: float = 3.0
    angles: int = 31
    shifts: int = 5
    source: str = ""
    chain: int = 0

    @property
    def is_gradient_attack(self) -> bool:
        """Whether it climbs a gradient in steps, so that it can be transferred."""
        return self.kind in ATTACKS or is_dotted(self.kind)

    @property
    def has_steps(self) -> bool:
        """Whether their number is a setting."""
        return "steps" in _kind(self.kind).takes

    @property
    def attack(self) -> Attack:
        """The gradient attack itself.

        Raises:
            UserError: it is somebody's own and fails, or would climb nothing.
        """
        values = {key: getattr(self, key) for key in ("norm", "epsilon", "step_size", "arguments")}
        asked = {"name": self.kind, "num_steps": self.steps, "loss": self.loss, **values}
        return make_attack(AttackConfig.model_validate(asked))

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
        names = (*_kind(self.kind).takes, *(["arguments"] if is_dotted(self.kind) else []))
        return {"kind": self.kind, **{name: getattr(self, name) for name in names}}

    @property
    def seed_key(self) -> int:
        """A number for the random streams: the same whatever else is run, and in whatever order."""
        # All parts of AutoAttack start from the same seed, as its authors' code has it.
        words = {**self.settings, "kind": "autoattack" if self.kind in COMPONENTS else self.kind}
        return zlib.crc32(str(sorted(words.items())).encode())

    @property
    def title(self) -> str:
        """A short name with the size of the attack."""
        on_margin = (self.kind, self.loss) == ("pgd", "margin")
        kind = {"grid": "rotation-translation"}.get(self.kind, "cw" if on_margin else self.kind)
        name = f"{kind}-{self.steps}" if self.has_steps else kind
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
        step = f", step {self.attack.step_size:.4g}" if self.has_steps else ""
        own = "".join(f", {key}={value}" for key, value in self.arguments.items())
        return f"{ball}{step}{own}{f', {self.loss}' if self.loss else ''}"

    @property
    def ball(self) -> tuple[str, float]:
        return self.norm, self.epsilon

    @property
    def misfit(self) -> str:
        """How its steps do not fit its ball; empty where they do."""
        return self.attack.misfit if self.kind in ATTACKS else ""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A name the user may give: which settings it takes, and what it stands for."""

    takes: tuple[str, ...]
    stands_for: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)


_BALL = ("norm", "epsilon")
_STEPS = {"steps": 40}


def _climbing(named: Named) -> Kind:
    """A gradient attack takes the settings that it does not decide itself."""
    attack = named.make(norm="linf", epsilon=1.0, num_steps=1, step_size=1.0)
    steps = () if named.num_steps else ("steps", "step_size")
    restarts = () if attack.start_at is at_natural else ("restarts",)
    loss = () if attack.loss else ("loss",)
    defaults = {**(_STEPS if steps else {}), **({"loss": None} if attack.loss else {})}
    return Kind(takes=(*_BALL, *steps, *restarts, *loss), defaults=defaults)


KINDS: Mapping[str, Kind] = {
    **{name: _climbing(named) for name, named in ATTACKS.items() if not named.unfit},
    "cw": dataclasses.replace(
        _climbing(ATTACKS["cw"]), stands_for=("pgd",), defaults={**_STEPS, "loss": "margin"}
    ),
    **{component: Kind(takes=_BALL) for component in COMPONENTS},
    "autoattack": Kind(takes=_BALL, stands_for=COMPONENTS),
    "grid": Kind(takes=("degrees", "pixels", "angles", "shifts")),
}
"""Attacks by name: those of training, and more. Seeds know `cw` as PGD on the margin."""

_USERS = dataclasses.replace(KINDS["pgd"], defaults={**_STEPS, "loss": None, "arguments": {}})


def _kind(name: str) -> Kind:
    if name in ATTACKS and (reason := ATTACKS[name].unfit):
        raise UserError(f"attack {name!r} is for training alone ({reason}): evaluate with pgd")
    return _USERS if is_dotted(name) else find_registered("attack", name, KINDS)


def read_attacks(
    words: Sequence[str],
    *,
    norm: str,
    epsilon: float | None,
    each_alone: bool,
    sources: Sequence[str] = (),
) -> tuple[AttackSpec, ...]:
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


def threat_words(threats: Sequence[ThreatModel]) -> list[str]:
    """The attacks that look at an attack's further threat models, as words for `--attack`."""
    return [
        f"grid:degrees={threat.degrees!r},pixels={threat.pixels!r}"
        if threat.epsilon is None
        else f"pgd:norm={threat.name},epsilon={threat.epsilon!r}"
        for threat in threats
    ]


def require_within_box(attack: AttackSpec, image_shape: tuple[int, int, int] | None = None) -> None:
    """Refuse a ball, or a step, that reaches every image, and shifts that leave nothing of one.

    `image_shape` is [C, H, W]; None: it is not known yet.

    Raises:
        UserError: naming the attack.
    """
    name, takes = f"attack {attack.kind!r}", _kind(attack.kind).takes
    if "pixels" in takes and image_shape is not None:
        require_shift(f"{name}: pixels", attack.pixels, image_shape)
    if "epsilon" in takes:
        num_pixels = None if image_shape is None else math.prod(image_shape)
        require_length(f"{name}: epsilon", attack.epsilon, attack.norm, num_pixels)
        require_length(f"{name}: step_size", attack.step_size or 0.0, attack.norm, num_pixels)


def _read(word: str, defaults: Mapping[str, Any], chain: int) -> list[AttackSpec]:
    name, text = split_word(word)
    kind = _kind(name)
    settings = {key: value for key, value in defaults.items() if key in kind.takes}
    settings.update(kind.defaults)
    given = set[str]()
    for item in filter(None, text.split(",")):
        key, value = _setting(name, item, kind)
        if key in given:
            raise UserError(f"attack {word!r}: {key} is there twice: give it once")
        given.add(key)
        if key in kind.takes:
            settings[key] = value
        else:
            settings["arguments"] = {**settings["arguments"], key: value}
    for reach, number in (("degrees", "angles"), ("pixels", "shifts")):
        if settings.get(reach) == 0:
            settings[number] = 1  # all others would be the same
        elif settings.get(number) == 1:
            settings[reach] = 0.0  # a single one is none
    if "epsilon" in kind.takes and settings["epsilon"] is None:
        raise UserError(f"attack {word!r} has no radius: add epsilon=..., or attack.epsilon=...")
    names = kind.stands_for or (name,)
    specs = [AttackSpec(kind=each, chain=chain, **settings) for each in names]
    for attack in specs:
        require_within_box(attack)
        if attack.is_gradient_attack:
            _ = attack.attack
    return specs


def split_word(word: str) -> tuple[str, str]:
    """Name and settings of `pgd:steps=20` or `my_package.module:function:steps=20`."""
    name, _, text = word.partition(":")
    function, _, rest = text.partition(":")
    if name in KINDS or not function or "=" in function:
        return name, text
    return f"{name}:{function}", rest


def _setting(attack: str, item: str, kind: Kind) -> tuple[str, Any]:
    key, separator, text = item.partition("=")
    if not separator:
        raise UserError(f"attack {attack!r}: {item!r}: expected key=value, separated by commas")
    if key not in kind.takes and kind is not _USERS:
        raise UserError(
            f"attack {attack!r} does not take {key!r}: it takes {', '.join(kind.takes)}"
        )
    return key, read_value(key, text, f"attack {attack!r}: {key}={shown(text)}")


def read_value(key: str, text: str, told: str) -> Any:
    """The value of a setting of attacks. Raises UserError: `told`, and what was expected."""
    read, expected = _VALUES.get(key, (parse_yaml, "a value as in YAML"))
    try:
        return read(text)
    except (ValueError, KeyError, OverflowError, YAMLError):
        raise UserError(f"{told}: expected {expected}") from None


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
