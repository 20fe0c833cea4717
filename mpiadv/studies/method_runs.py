"""The runs of study methods: each method by its settings, under otherwise equal conditions. Pure.

The settings are those of `configs/methods`, where each has its source.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mpiadv.process.errors import UserError
from mpiadv.settings import Config, ThreatModel
from mpiadv.settings.registry import find_registered
from mpiadv.studies.runs import Request, Run, require_unchanged

Settings = Mapping[str, Any]
"""Dotted settings to their values."""

REFRESHED = "refreshed"
"""What the names of runs on refreshed attacks have in the middle."""

_FITTING: Settings = {"attack.step_size": None}
"""Steps as long as their number, or the method, wants them, whatever others have."""

_TRADES: Settings = {"objective.name": "trades"}
_MART: Settings = {"objective.name": "mart", "objective.beta": 5.0}
_M_PLUS: Settings = {"attack_schedule.name": "m_plus"}


def _friendly(config: Config) -> Settings:
    """Tau 0, 1 and 2 from 0, 5 and 9 twelfths of the run on, as in the paper."""
    steps, training = config.attack.num_steps, config.training.num_steps
    return {
        "attack.name": "friendly",
        "attack_schedule.name": "piecewise",
        "attack_schedule.first_steps": steps,
        "attack_schedule.milestones": [max(1, 5 * training // 12), max(2, 9 * training // 12)],
        "attack_schedule.later_steps": [steps, steps],
        "attack_schedule.later_tau": [1, 2],
    }


def _of(*parts: Settings) -> Callable[[Config], Settings]:
    together = {key: value for part in parts for key, value in part.items()}
    return lambda config: together


def _replayed(config: Config, *, step: str, relative_size: float) -> dict[str, Any]:
    """All attack steps on the trainer, of so many times the radius."""
    return {
        "training.step": step,
        "attack.step_size": relative_size * config.attack.epsilon or None,
        "staleness.trainer_steps": config.attack.num_steps,
    }


def _free(config: Config) -> Settings:
    return {"attack.start": "natural", **_replayed(config, step="free", relative_size=1.0)}


def _deat(config: Config) -> Settings:
    replayed = _replayed(config, step="deat", relative_size=1.25)
    return {**_M_PLUS, "attack_schedule.first_steps": 1, **replayed}


def _yopo(config: Config) -> Settings:
    """YOPO-5-3, as in the paper."""
    return {
        "training.step": "yopo",
        "attack.num_steps": 5,
        "attack.step_size": config.attack.epsilon / 4 or None,
        "staleness.trainer_steps": 5,
    }


METHODS: Mapping[str, Callable[[Config], Settings]] = {
    "pgd": _of(),
    "trades": _of(_TRADES),
    "mart": _of(_MART),
    "alp": _of({"objective.name": "alp", "objective.beta": 0.5}),
    "score": _of({"objective.name": "score", "objective.beta": 5.0}),
    "margin": _of({"objective.name": "margin"}),
    "half_clean": _of({"objective.clean_fraction": 0.5}),
    "fast": _of(_FITTING, {"attack.name": "ufgsm"}),
    "nfgsm": _of(_FITTING, {"attack.name": "nfgsm"}),
    "grad_align": _of(
        _FITTING, {"attack.name": "fgsm", "objective.name": "grad_align", "objective.beta": 0.2}
    ),
    "friendly": _friendly,
    "friendly_trades": lambda config: {**_friendly(config), **_TRADES},
    "m_plus": _of(_M_PLUS),
    "m_plus_trades": _of(_M_PLUS, _TRADES),
    "m_plus_mart": _of(_M_PLUS, _MART),
    "amata": _of(_FITTING, {"attack_schedule.name": "amata", "attack_schedule.first_steps": 2}),
    "free": _free,
    "deat": _deat,
    "yopo": _yopo,
    "awp": _of({"training.step": "awp"}),
    "awp_trades": lambda config: {
        **_TRADES,
        "training.step": "awp",
        "training.awp_gamma": 0.005,
        "training.awp_from_step": config.training.num_steps // 20,
    },
}
"""What each sets, from the configuration that all share."""

REPLAYED = ("free", "deat", "yopo")
"""Training steps that pass through the network as often as the attack has steps, and no more."""

_TRAINER_PASSES = {"trades": 2, "mart": 2, "alp": 2, "score": 2, "grad_align": 3}
"""Forward and backward passes of a training step; 1 of other objectives."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A run of the study: which method, on which seed, on attacks that are refreshed or not."""

    method: str
    seed: int
    is_refreshed: bool = False

    @property
    def name(self) -> str:
        middle = f"-{REFRESHED}" if self.is_refreshed else ""
        return f"{self.method}{middle}-{self.seed}"


def trained(ranges: Mapping[str, Any]) -> list[Trained]:
    """What the study's own settings ask for.

    Raises:
        UserError: a method that is none.
    """
    for name in (*ranges["methods"], *ranges["refreshed_methods"]):
        find_registered("method", name, METHODS)
    if not ranges["methods"]:
        raise UserError(f"study.methods=[]: name some, of {', '.join(METHODS)}")
    return [
        Trained(method=method, seed=seed, is_refreshed=is_refreshed)
        for is_refreshed, methods in ((False, "methods"), (True, "refreshed_methods"))
        for method in ranges[methods]
        for seed in ranges["seeds"]
    ]


_REFRESHED: Settings = {
    "staleness.max_staleness": 16, "staleness.final_staleness": 2, "staleness.publish_every": 2,
}  # fmt: skip

_SHARED = ("attack.num_steps", "attack.step_size")
"""What some methods set, and users may set for all others."""


def runs(request: Request) -> list[Run]:
    """A run for each method and seed, and again on refreshed attacks.

    Raises:
        UserError: a change of what makes a method, which would make another one of some rows.
    """
    makes = {key for method in METHODS.values() for key in method(request.config)}
    require_unchanged(request, (makes | {*_REFRESHED}) - {*_SHARED})
    return [
        Run(
            name=each.name,
            overrides={
                "seed": each.seed,
                **_settings(each.method, request),
                **(_REFRESHED if each.is_refreshed else {}),
            },
        )
        for each in trained(request.ranges)
    ]


def _settings(method: str, request: Request) -> Settings:
    settings = METHODS[method](request.config)
    is_trades = settings.get("objective.name") == "trades"
    return {**settings, **({"objective.beta": request.ranges["trades_beta"]} if is_trades else {})}


def trainer_passes(config: Config) -> int:
    """Forward and backward passes of all training steps, on as many images as a batch has.

    Beside those of attack steps, which are also all passes of steps that train on each of them.
    """
    if config.training.step in REPLAYED:
        return 0
    training, each = config.training, _TRAINER_PASSES.get(config.objective.name, 1)
    perturbed = training.num_steps - training.awp_from_step if training.step == "awp" else 0
    clean = config.objective.clean_fraction
    images = 1 + (1 - clean) * len(_all_trained_on(config))
    steps = (training.num_steps + max(0, perturbed)) * training.tickets_per_step
    return round(each * steps * images)


def _all_trained_on(config: Config) -> Sequence[ThreatModel]:
    """The threat models whose images are trained on beside those of the attack itself."""
    return (config.attack.further or ()) if config.attack.combine == "average" else ()
