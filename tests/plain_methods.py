"""What each configuration of `configs/methods` does, in plain torch; see `plain_training`."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import torch
from plain_threats import drawn, everything, in_l2, several, worst
from plain_training import (
    EPSILON,
    Hashes,
    Plain,
    Seen,
    cross_entropy,
    m_plus,
    noise,
    replay_plainly,
    yopo_plainly,
)
from torch import Tensor, nn
from torch.nn import functional as F

from mpiadv.settings import Config

STEPS = 16
"""Training steps of the runs that these are compared with."""

divergence = nn.KLDivLoss(reduction="sum")


def _predictions(seen: Seen) -> tuple[Tensor, Tensor]:
    """Logits of natural and of adversarial images, in the order of the passes."""
    natural = seen.model(seen.natural)
    return natural, seen.model(seen.images)


def _away_from_natural(seen: Seen) -> Tensor:
    expected = F.softmax(seen.model(seen.natural), dim=1).detach()
    return divergence(F.log_softmax(seen.model(seen.images), dim=1), expected)


def _trades(beta: float, smoothing: float = 0.0) -> Plain:
    """Their `trades.py`."""

    def trained(seen: Seen) -> Tensor:
        natural, attacked = _predictions(seen)
        robust = divergence(F.log_softmax(attacked, dim=1), F.softmax(natural, dim=1))
        plain = F.cross_entropy(natural, seen.labels, label_smoothing=smoothing)
        return plain + beta * (robust / len(seen.labels))

    return Plain(climbed=_away_from_natural, trained=trained, start=_gaussian)


def _gaussian(natural: Tensor, generator: torch.Generator) -> Tensor:
    return natural + 0.001 * torch.randn(natural.shape, generator=generator)


def _uniform(natural: Tensor, generator: torch.Generator) -> Tensor:
    return natural + EPSILON * noise(natural, generator)


def _mart(seen: Seen) -> Tensor:
    """Their `mart.py`."""
    natural, attacked = _predictions(seen)
    p, q = F.softmax(natural, dim=1), F.softmax(attacked, dim=1)
    order = q.argsort(dim=1)[:, -2:]
    wrong = torch.where(order[:, 1] == seen.labels, order[:, 0], order[:, 1])
    boosted = F.cross_entropy(attacked, seen.labels)
    boosted = boosted + F.nll_loss(torch.log(1.0001 - q + 1e-12), wrong)
    right = p.gather(1, seen.labels[:, None]).squeeze(1)
    kl = nn.KLDivLoss(reduction="none")(torch.log(q + 1e-12), p).sum(dim=1)
    return boosted + 5.0 * (kl * (1.0000001 - right)).mean()


def _alp(seen: Seen) -> Tensor:
    natural, attacked = _predictions(seen)
    both = F.cross_entropy(natural, seen.labels) + F.cross_entropy(attacked, seen.labels)
    return both / 2 + 0.5 * (attacked - natural).square().mean()


def _squares(seen: Seen, natural: Tensor, attacked: Tensor) -> Tensor:
    return (attacked.softmax(dim=1) - natural.softmax(dim=1)).square().sum()


def _score(seen: Seen) -> Tensor:
    natural, attacked = _predictions(seen)
    error = (natural.softmax(dim=1) - F.one_hot(seen.labels, 10)).square().sum()
    return (error + 5.0 * _squares(seen, natural, attacked)) / len(seen.labels)


def _margins(seen: Seen) -> Tensor:
    logits = seen.model(seen.images)
    right = logits.gather(1, seen.labels[:, None]).squeeze(1)
    others = logits.scatter(1, seen.labels[:, None], float("-inf"))
    return others.amax(dim=1) - right


def _grad_align(seen: Seen) -> Tensor:
    """Andriushchenko and Flammarion 2020."""
    slopes = []
    loss = cross_entropy(seen, "mean")
    for images in (seen.natural, seen.nearby):
        images = images.detach().requires_grad_()
        here = cross_entropy(Seen(**{**vars(seen), "images": images}), "sum")
        (slope,) = torch.autograd.grad(here, images, create_graph=True)
        slopes.append(slope.flatten(1) / slope.detach().flatten(1).abs().amax(dim=1, keepdim=True))
    turned = 1 - F.cosine_similarity(slopes[0].detach(), slopes[1])
    return loss + 0.2 * (turned.sum() / len(turned))


def _unit(gradient: Tensor) -> Tensor:
    scaled = gradient / gradient.abs().amax(dim=(1, 2, 3), keepdim=True)
    return scaled / scaled.flatten(1).norm(dim=1)[:, None, None, None]


def _into_l2(delta: Tensor) -> Tensor:
    length = delta.flatten(1).norm(dim=1)[:, None, None, None]
    return torch.where(length > 1.0, delta * (1.0 / length), delta)


def _start_in_l2(natural: Tensor, generator: torch.Generator) -> Tensor:
    """The first n of n + 2 coordinates of a point on a sphere."""
    size = natural[0].numel()
    sphere = torch.randn(len(natural), size + 2, generator=generator)
    sphere = sphere / sphere.norm(dim=1, keepdim=True)
    return natural + sphere[:, :size].reshape(natural.shape)


def _sparing(model: nn.Module) -> torch.optim.Optimizer:
    """Without weight decay on biases."""
    weights = [p for p in model.parameters() if p.dim() > 1]
    biases = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": weights, "weight_decay": 5e-4}, {"params": biases, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.005, fused=True)


class TwoNorms(nn.Module):
    """Batch norm for adversarial and, where `which` says so, for natural images."""

    def __init__(self, layer: nn.BatchNorm2d, which: list[str]) -> None:
        super().__init__()
        self.adversarial, self.natural = layer, nn.BatchNorm2d(layer.num_features)
        self.which = which

    def forward(self, features: Tensor) -> Tensor:
        norm = self.natural if self.which[-1] == "natural" else self.adversarial
        normalized: Tensor = norm(features)
        return normalized


WHICH = ["adversarial"]
"""The last of it is what all norms are."""


def _doubled(model: nn.Module) -> None:
    for parent in [*model.modules()]:
        for name, layer in [*parent.named_children()]:
            if isinstance(layer, nn.BatchNorm2d):
                setattr(parent, name, TwoNorms(layer, WHICH).train(layer.training))


def _naturally(model: nn.Module, images: Tensor) -> Tensor:
    WHICH.append("natural")
    logits: Tensor = model(images)
    WHICH.pop()
    return logits


def _half_through_each(seen: Seen) -> Tensor:
    if not seen.model.training:
        return cross_entropy(seen, "mean")
    half = len(seen.images) // 2
    logits = torch.cat([_naturally(seen.model, seen.images[:half]), seen.model(seen.images[half:])])
    return F.cross_entropy(logits, seen.labels)


def _both_through_each(seen: Seen) -> Tensor:
    natural = F.cross_entropy(_naturally(seen.model, seen.natural), seen.labels)
    return (natural + F.cross_entropy(seen.model(seen.images), seen.labels)) / 2


PGD = Plain()
L2 = in_l2(_unit, _into_l2, _start_in_l2)
ONE_STEP = Plain(num_steps=lambda *_: 1, relative=1.0)

METHODS: Mapping[str, Plain] = {
    "pgd": PGD,
    "trades": _trades(6.0),
    "trades_uniform": replace(_trades(5.0, smoothing=0.1), start=_uniform),
    "mart": replace(PGD, trained=_mart, start=_gaussian),
    "alp": replace(PGD, trained=_alp),
    "score": replace(
        PGD, climbed=lambda seen: _squares(seen, seen.model(seen.natural).detach(),
        seen.model(seen.images)), trained=_score,
    ),
    "margin": replace(
        PGD, climbed=lambda seen: _margins(seen).sum(),
        trained=lambda seen: (1 + _margins(seen)).relu().mean(),
    ),
    "half_clean": replace(PGD, clean=0.5),
    "fast": replace(ONE_STEP, relative=1.25),
    "fast_l2": replace(
        ONE_STEP, relative=1.25, epsilon=1.0, step=_unit, clip=_into_l2, start=_start_in_l2
    ),
    "nfgsm": replace(
        ONE_STEP, start=lambda x, g: x + 2 * EPSILON * noise(x, g), clip=lambda delta: delta
    ),
    "grad_align": replace(ONE_STEP, start=lambda x, g: x, trained=_grad_align),
    "friendly": replace(PGD, tau=lambda ticket: (ticket >= 5) + (ticket >= 10)),
    "friendly_trades": replace(_trades(6.0), tau=lambda ticket: (ticket >= 5) + (ticket >= 10)),
    "m_plus": replace(PGD, num_steps=m_plus),
    "m_plus_trades": replace(_trades(6.0), num_steps=m_plus),
    "m_plus_mart": replace(PGD, trained=_mart, start=_gaussian, num_steps=m_plus),
    "m_plus_friendly": replace(PGD, tau=lambda ticket: 0, num_steps=m_plus),
    "amata": replace(PGD, num_steps=lambda ticket, *_: 2 + 4 * ticket // STEPS),
    "mixture": replace(PGD, prepare=_doubled, trained=_half_through_each, clean=0.5),
    "advprop": replace(PGD, prepare=_doubled, trained=_both_through_each),
    "cutmix": replace(PGD, is_mixed=True),
    "threats_worst": several(L2, worst),
    "threats_average": several(L2, everything),
    "threats_random": several(L2, drawn),
    "ensemble": replace(ONE_STEP, relative=1.25, clean=0.5),
    "recipe": replace(_trades(5.0, smoothing=0.1), start=_uniform, optimizer=_sparing),
    "awp": replace(PGD, gamma=lambda ticket: 0.01),
    "awp_trades": replace(_trades(6.0), gamma=lambda ticket: 0.005 * (ticket >= 5)),
}  # fmt: skip
"""By the name of the file."""


def _first_layer(model: nn.Module) -> nn.Module:
    return next(layer for layer in model.modules() if [*layer.parameters(recurse=False)])


REPLAYED: Mapping[str, Callable[[Config], Hashes]] = {
    "free": partial(replay_plainly, is_kept=True, size=0.15, grows=False),
    "deat": partial(replay_plainly, is_kept=False, size=0.1875, grows=True),
    "yopo": partial(yopo_plainly, first_layer=_first_layer),
}
"""Those that attack while they train."""

_PIECES = (
    "attack_schedule.first_steps=5", "attack_schedule.milestones=[5, 10]",
    "attack_schedule.later_steps=[5, 5]",
)  # fmt: skip

SHORT = {
    "friendly": _PIECES,
    "friendly_trades": _PIECES,
    "awp_trades": ("training.awp_from_step=5",),
}  # fmt: skip
"""What a run of few steps takes otherwise than the file says."""
