"""Users' attacks, by dotted name: one that works, and many with something wrong."""

from typing import Any

import torch
from torch import Tensor

from mpiadv.attacks import LOSSES, STARTS, Attack, AttackLoss, Slope


def friendly(*, tolerance: int = 1, **asked: Any) -> Attack:
    """Leaves an image alone once it was misclassified in more than `tolerance` looks.

    Zhang et al. 2020, "Attacks Which Do Not Kill Training Make Adversarial Learning Stronger".
    """

    def stop(slope: Slope, misses: Tensor) -> Tensor:
        return misses > tolerance

    return Attack(**asked, start_at=STARTS["gaussian"], loss=LOSSES["margin"], stop=stop)


def keen(**asked: Any) -> Attack:
    """All parts of its own: from darkness, up one logit, a pixel out of two, without a ball."""
    return Attack(
        **asked,
        start_at=lambda attack, natural, generator: natural - attack.epsilon,
        loss=AttackLoss(name="first", function=lambda logits, labels: logits[:, 0].sum()),
        step=lambda attack, gradient, images: attack.step_size * _every_other(gradient.sign()),
        projection=lambda attack, delta: delta,
    )


def _every_other(images: Tensor) -> Tensor:
    columns = torch.arange(images.shape[3], device=images.device)
    return images * (columns % 2)


def nothing(**asked: Any) -> None:
    pass


def without_the_ball(*, num_steps: int, step_size: float) -> Attack:
    return Attack(norm="linf", epsilon=0.1, num_steps=num_steps, step_size=step_size)


def broken(*, part: str, **asked: Any) -> Attack:
    """`part` of it fails."""

    def fail(*given: object) -> Tensor:
        raise RuntimeError("out of ideas")

    return Attack(**asked, **{part: fail})


def careless(*, part: str, **asked: Any) -> Attack:
    """`part` of it works in place, on what belongs to others."""

    def overwrite(*given: Any) -> Tensor:
        if part == "stop":
            given[1].add_(1)
            return given[1] > 0
        return next(each for each in given if isinstance(each, Tensor)).mul_(0.5)

    return Attack(**asked, **{part: overwrite})


def misshapen(*, part: str, **asked: Any) -> Attack:
    """`part` of it returns a single number where a batch is expected, and a batch for a loss."""
    return Attack(**asked, **{part: lambda *given: torch.zeros(())})


def lossy(*, kind: str, **asked: Any) -> Attack:
    losses = {
        "fails": lambda logits, labels: logits[:, 999].sum(),
        "batch": lambda logits, labels: logits.sum(dim=1),
        "constant": lambda logits, labels: torch.zeros(()),
    }
    return Attack(**asked, loss=AttackLoss(name=kind, function=losses[kind]))


def numbers(*, changed: dict[str, Any], **asked: Any) -> Attack:
    return Attack(**{**asked, **changed})


def odd(*, part: str, **asked: Any) -> Attack:
    """`part` of it is of a kind that no part is of, and whose text takes several lines."""
    return Attack(**{**asked, part: torch.zeros(2, 2)})


def wordless(**asked: Any) -> Attack:
    """Its loss lacks what makes it one: its name, and how it may be used."""
    loss: Any = lambda logits, labels: logits.sum()  # noqa: E731
    return Attack(**asked, loss=loss)


def superstitious(**asked: Any) -> Attack:
    """Its step fails in balls of a certain size, which a warm-up comes through."""

    def step(attack: Attack, gradient: Tensor, images: Tensor) -> Tensor:
        if 0.05 < attack.epsilon < 0.06:
            raise RuntimeError("not with this radius")
        return attack.step_size * gradient.sign()

    return Attack(**asked, step=step)


def by_norm(**asked: Any) -> Attack:
    """Climbs another loss in each norm."""
    return Attack(**asked, loss=LOSSES["ce" if asked["norm"] == "linf" else "margin"])
