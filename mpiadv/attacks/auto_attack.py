"""AutoAttack's four attacks, by its authors' own code in the package `pyautoattack`.

Croce and Hein 2020, "Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse
Parameter-free Attacks". Knows no model: it takes a function from images to logits.
"""

import importlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from mpiadv.process.errors import UserError

COMPONENTS = ("apgd-ce", "apgd-t", "fab-t", "square")
"""The standard version, in its order; each attacks what the ones before left standing."""

QUERIES = {"apgd-ce": 100, "apgd-t": 900, "fab-t": 900, "square": 5000}
"""The budget per image, in attack steps or queries: 9 targets of 100 steps where targeted."""

_NUM_TARGETS = {"Linf": 9, "L2": 9, "L1": 5}


def require_auto_attack() -> Any:
    """The package `pyautoattack`.

    Raises:
        UserError: it is not installed.
    """
    try:
        return importlib.import_module("pyautoattack")
    except ImportError:
        raise UserError(
            "AutoAttack needs the package pyautoattack, which is not installed: "
            "pip install 'mpiadv[autoattack]'"
        ) from None


def run_component(
    component: str,
    logits: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    norm: str,
    epsilon: float,
    seed: int,
    warn: Callable[[str], None] = lambda text: None,
) -> Tensor:
    """One of `COMPONENTS` with the settings of the standard version, all images in one batch.

    Args:
        component: one of `COMPONENTS`.
        logits: from images to logits float32 [N, K].
        images: float32 [N, C, H, W] in [0, 1], all classified correctly.
        labels: int64 [N].
        norm: linf, l2 or l1.
        epsilon: radius of the ball, in pixels of [0, 1].
        seed: the random streams start from it anew; the global ones are left as they were.
        warn: told what the package warns of.

    Returns:
        The images, those that were broken replaced by adversarial ones.
    """
    with _own_numerics(images.device), _heard(warn):
        auto = require_auto_attack().AutoAttack(
            logits, norm=norm.capitalize(), eps=epsilon, seed=seed, device=images.device
        )
        _fit_targets(auto, num_classes=logits(images[:1]).shape[1])
        auto.attacks_to_run = [component]
        adversarial, _ = auto.run_standard_evaluation(images, labels, batch_size=len(images))
    return adversarial  # type: ignore[no-any-return]


def _fit_targets(auto: Any, *, num_classes: int) -> None:
    """Every wrong class is a target where there are fewer than the standard version takes."""
    num_targets = min(_NUM_TARGETS[auto.norm], num_classes - 1)
    auto.apgd_targeted.n_target_classes = num_targets
    auto.fab.n_target_classes = min(9, num_classes - 1)


@contextmanager
def _own_numerics(device: torch.device) -> Iterator[None]:
    """The package seeds torch's global streams, and some GPUs do its operations in any order."""
    mode = torch.get_deterministic_debug_mode()
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        try:
            torch.set_deterministic_debug_mode("default")
            yield
        finally:
            torch.set_deterministic_debug_mode(mode)


@contextmanager
def _heard(warn: Callable[[str], None]) -> Iterator[None]:
    """The package's warnings, which it repeats for every batch, go to `warn` alone."""

    def hear(record: logging.LogRecord) -> bool:
        # Without the reference to a file that is not there.
        warn(record.getMessage().partition(" See flags_doc.md")[0])
        return False

    logger = logging.getLogger("auto-attack")
    level = logger.level
    logger.addFilter(hear)
    try:
        logger.setLevel(logging.WARNING)
        yield
    finally:
        logger.removeFilter(hear)
        logger.setLevel(level)
