"""Trained networks, and attacks on any network."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from mpiadv.data import load_data
from mpiadv.evaluation.accuracy import frozen
from mpiadv.evaluation.attack_specs import AttackSpec, read_value, require_within_box
from mpiadv.evaluation.crafting import Classifier, climbed
from mpiadv.evaluation.subject import load_network, read_subject
from mpiadv.models import device_of
from mpiadv.models.check import outputs_of_zeros
from mpiadv.models.modes import buffers_kept
from mpiadv.models.random_streams import torch_streams_kept
from mpiadv.process.errors import UserError, shown
from mpiadv.settings import Climbed, Norm, require_list


def load_model(
    run: str | Path,
    overrides: Sequence[str] = (),
    *,
    device: str | torch.device = "cpu",
    trust_code: bool = False,
) -> nn.Module:
    """The network of a run with its weights, in evaluation mode.

    Its input are images float32 [N, C, H, W] in [0, 1], as normalisation is its first layer; its
    output logits [N, K]. The run's data set is opened, as it tells K, C, H and W.

    Args:
        run: a run's folder, a model in it (as `model.pt`, `best.pt`), a checkpoint, or
            any file of weights.
        overrides: settings as `key.subkey=value`; for weights of elsewhere at least `model.name`
            and `data.name`.
        device: where to put it.
        trust_code: run the functions that the run's files name as model or data set.

    Raises:
        UserError: nothing is there, it is damaged or does not fit, or names code not trusted.
    """
    require_list(overrides)
    subject = read_subject(Path(run), overrides, None if trust_code else ())
    return load_network(subject, load_data(subject.config.data), torch.device(device)).model.eval()


def attack(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float | str,
    norm: Norm = "linf",
    num_steps: int = 40,
    step_size: float | None = None,
    loss: Climbed = "ce",
    seed: int = 0,
) -> Tensor:
    """Adversarial images by PGD from a random start, on the model in evaluation mode.

    Madry et al. 2018, section 2.1. The images' gradient alone is taken: modes, gradients and
    buffers of the model, and all global random streams, are afterwards as they were. The same
    seed gives the same bits on the same hardware and number of threads.

    Args:
        model: from images to logits [N, K], on one device, to which images and labels are taken.
        images: float32 [N, C, H, W] in [0, 1].
        labels: int64 [N].
        epsilon: radius of the ball of `norm` around each image, in pixels of [0, 1]; also a
            fraction, "8/255".
        norm: linf, l2 or l1.
        num_steps: steps uphill, at least 1.
        step_size: in pixels of [0, 1]; None: one that fits the ball.
        loss: what is climbed: ce, cross-entropy; margin, best wrong logit less the correct one;
            kl, divergence from the natural prediction; or squares, squared distance from it.
        seed: of the start, and of whatever the model draws.

    Returns:
        float32 [N, C, H, W] in [0, 1] and the ball, on the device of `images`.

    Raises:
        UserError: an argument is not as it is to be.
    """
    _require_kind("model", model, nn.Module, "torch.nn.Module")
    for name, value in (("images", images), ("labels", labels)):
        _require_kind(name, value, Tensor, "torch.Tensor")
    _require_images(images, labels)
    _require_seed(seed)
    spec = _spec(norm, epsilon, num_steps, step_size, loss)
    device = device_of(model)
    classifier = Classifier(model=model, precision="float32")
    _require_gradients_of(model)
    # Whatever mode the caller is in: what is made in inference mode has no gradients, for good.
    with torch.inference_mode(False), frozen(model), buffers_kept(model):
        given = images.detach().to(device).clone(), labels.to(device).clone()
        _require_classes_of(model, images, labels)
        found = climbed(classifier, spec.attack, *given, seed=seed)
    return found.to(images.device)


def _spec(
    norm: str, epsilon: float | str, num_steps: int, step_size: float | None, loss: str
) -> AttackSpec:
    """PGD, its numbers checked as those of `mpiadv evaluate --attack`."""
    given = {"norm": norm, "epsilon": epsilon, "num_steps": num_steps, "loss": loss}
    given |= {} if step_size is None else {"step_size": step_size}
    spec = AttackSpec(kind="pgd")
    for name, value in given.items():
        key = name.removeprefix("num_")
        read = read_value(key, str(value), f"{name}={shown(value)}")
        spec = replace(spec, **{key: read})
    require_within_box(spec)
    return spec


def _require_kind(name: str, value: object, kind: type, told: str) -> None:
    if not isinstance(value, kind):
        raise UserError(f"{name}: expected a {told}, not a {type(value).__name__}")


def _require_gradients_of(model: nn.Module) -> None:
    for name, state in (*model.named_parameters(), *model.named_buffers()):
        if state.is_inference():
            raise UserError(
                f"model: {name} was made in torch.inference_mode(), so nothing has a gradient "
                "through it: make or load the model outside"
            )


def _require_images(images: Tensor, labels: Tensor) -> None:
    if images.ndim != 4 or images.dtype != torch.float32:
        raise UserError(
            f"images are {images.dtype} {list(images.shape)}: expected float32 [N, C, H, W]"
        )
    if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
        raise UserError(
            f"labels are {labels.dtype} {list(labels.shape)}: expected int64 [{len(images)}]"
        )
    # Written so that NaN is refused, too.
    if images.numel() and not (images.min() >= 0 and images.max() <= 1):
        raise UserError(
            f"images range from {images.min():.4g} to {images.max():.4g}: expected pixels in "
            "[0, 1]; normalisation belongs into the model"
        )


def _require_seed(seed: object) -> None:
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise UserError(f"seed={shown(seed)}: expected a whole number of at least 0")


def _require_classes_of(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Refuse what is no classifier of such images, and labels of classes that it does not have."""
    shape = images.shape[1], images.shape[2], images.shape[3]
    with torch_streams_kept(device_of(model)):
        logits = outputs_of_zeros(model, shape, num_images=1)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != 1:
        got = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UserError(f"model: returns {got} for one image: expected logits [1, K]")
    num_classes = logits.shape[1]
    if len(labels) and not (labels.min() >= 0 and labels.max() < num_classes):
        raise UserError(
            f"labels range from {labels.min()} to {labels.max()}: the model has "
            f"{num_classes} classes, expected 0 to {num_classes - 1}"
        )
