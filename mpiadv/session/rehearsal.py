"""A model is tried as it will be used, on copies that are thrown away, before anything is written.

On a few images only: what goes wrong with two goes wrong with a batch. Where two are too few for a
model, as for one that splits its batches in training, the whole batch is taken.
"""

from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from mpiadv.attacks import mixed_precision
from mpiadv.attacks.losses import summed_cross_entropy
from mpiadv.methods.objective import Batch, Objective
from mpiadv.models import check_model, evaluation_mode, parameters_frozen
from mpiadv.models.check import images_text, name_of, require_logits
from mpiadv.models.culprit import carries_no_gradient, watched
from mpiadv.models.flat import named_tensors
from mpiadv.models.oddities import built_unlike, hidden_state, plain_state, randomness, same
from mpiadv.models.random_streams import seed_streams, streams_kept
from mpiadv.process.errors import UserError, origin_of, user_code
from mpiadv.settings import Precision
from mpiadv.work.device import unwritten_memory_filled

FEW = 2
"""Images of a trial."""

_SEED = 1


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What a model is tried with.

    Attributes:
        images: float32 [N, C, H, W] in [0, 1], on the model's device, of the data set.
        labels: int64 [N].
        num_classes: of the data set.
        precision: of all passes.
    """

    images: Tensor
    labels: Tensor
    num_classes: int
    precision: Precision

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """[C, H, W]."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    def given_to(self, model: nn.Module) -> str:
        """How a line about it begins."""
        mode = " in training mode" if model.training else ""
        images = images_text(len(self.images), self.image_shape)
        return f"model {name_of(model)}, given {images}{mode}"


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """How a model will be trained.

    Attributes:
        build: the function that makes it.
        sample: so many training images.
        batch_size: of a training step; `num_attacked` of its images are attacked.
        trains_under_attack: whether the model is in training mode while it is attacked.
    """

    build: Callable[[], nn.Module]
    sample: Callable[[int], Sample]
    objective: Objective
    batch_size: int
    num_attacked: int
    trains_under_attack: bool

    def run(self) -> list[str]:
        """Try the model as training and attacks use it; what to warn of.

        The global random streams are left as they were.

        Raises:
            UserError: the fault, and the layer that is at fault where one is.
        """
        model, other = self.build(), self.build()
        _require_two(model, other)
        _require_trainable(model)
        few = self.sample(min(FEW, self.batch_size))
        with streams_kept(few.images.device), unwritten_memory_filled():
            notes = built_unlike(model, other)
            check_model(model, few.image_shape, few.num_classes)
            draw = partial(_in_evaluation, model, few)
            notes += [*_judged(model, few), *randomness(model, draw), *self._used(model)]
            before = plain_state(model)
            self._used(model)
            logits = partial(_in_evaluation, given=few)
            return [*notes, *hidden_state(model, other, before, logits)]

    def _used(self, model: nn.Module) -> list[str]:
        """A step of an attack and one of training."""
        notes: list[str] = []
        if self.num_attacked:
            model.train(self.trains_under_attack)
            notes = self._on_few_or_all(
                self.num_attacked, lambda given: _flat(model, given, _attacked(model, given))
            )
        model.train()
        self._on_few_or_all(self.batch_size, lambda given: self._trained(model, given))
        return notes

    def _on_few_or_all(self, most: int, use: Callable[[Sample], list[str]]) -> list[str]:
        try:
            return use(self.sample(min(FEW, most)))
        except UserError:
            if most <= FEW:
                raise
        return use(self.sample(most))

    def _trained(self, model: nn.Module, given: Sample) -> list[str]:
        place = given.given_to(model)
        images, labels = given.images, given.labels
        batch = Batch(images=images, labels=labels, natural=images, nearby=images)
        model.zero_grad(set_to_none=True)
        try:
            with (
                user_code(f"{place}, fails"),
                mixed_precision(given.images.device, given.precision),
            ):
                seed_streams(_SEED, given.images.device)
                loss = self.objective(model, batch)
        except UserError:
            _logits(model, given.images, given)  # names what is wrong with it
            raise
        require_logits(loss.logits, place, len(given.images), given.num_classes)
        if not loss.total.isfinite():
            raise UserError(f"{place}, has a loss of {float(loss.total)}: expected a finite one")
        if not loss.total.requires_grad:
            cut = _cut(model, given.images, given)
            raise UserError(f"{place}, {cut}, so that nothing is trained")
        with user_code(f"{place}, fails when gradients are computed"):
            loss.total.backward()
        _require_gradients(model, place)
        return []


def rehearse_evaluation(model: nn.Module, given: Sample, *, needs_gradient: bool) -> list[str]:
    """Try a trained model as attacks use it; what to warn of. It is left as it was.

    Raises:
        UserError: as `Rehearsal.run`.
    """
    with streams_kept(given.images.device), unwritten_memory_filled():
        with mixed_precision(given.images.device, given.precision):  # weights may be held cast
            check_model(model, given.image_shape, given.num_classes)
        notes = _judged(model, given)
        if needs_gradient:
            with evaluation_mode(model):
                _attacked(model, given)
    return notes


def _require_two(model: nn.Module, other: nn.Module) -> None:
    """Refuse a function that gives twice the same model, or two that share parameters.

    Buffers may be constants that are kept once.
    """
    owned = {each.data_ptr(): name for name, each in model.named_parameters() if each.numel()}
    shared = [owned[each.data_ptr()] for each in other.parameters() if each.data_ptr() in owned]
    if model is other or shared:
        what = "are one model" if model is other else f"share {shared[0]!r}"
        raise UserError(
            f"model {name_of(model)}: two calls of its function {what}: training and attacks need "
            "each a model of their own: make it anew in every call"
        )
    if _layout(model) != _layout(other):
        raise UserError(
            f"model {name_of(model)}: two calls of its function give models of other parameters: "
            "all ranks need the same: draw what is random in it from torch's global stream"
        )


def _require_trainable(model: nn.Module) -> None:
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            raise UserError(
                f"model {name_of(model)}: {name!r} of its state dict is {type(value).__name__}, "
                "expected tensors: keep what get_extra_state returns in buffers (register_buffer)"
            )
    parameters = list(model.parameters())
    if parameters and not any(parameter.requires_grad for parameter in parameters):
        raise UserError(
            f"model {name_of(model)}: none of its {len(parameters)} parameters has requires_grad, "
            "so there is nothing to train: leave it on for those that training is to change"
        )


def _require_gradients(model: nn.Module, place: str) -> None:
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    if not gradients:
        raise UserError(f"{place}, has no parameter that its loss depends on: nothing is trained")
    for name, gradient in gradients.items():
        if not gradient.isfinite().all():
            raise UserError(f"{place}, has a gradient of {name!r} that is not finite")


def _judged(model: nn.Module, given: Sample) -> list[str]:
    """What to warn of in what it makes of images in evaluation mode."""
    name, notes = name_of(model), list[str]()
    with evaluation_mode(model), torch.no_grad():
        _require_images_kept(model, given)
        buffers = {key: buffer.clone() for key, buffer in model.named_buffers()}
        logits = _logits(model, given.images, given)
        if not logits.isfinite().all():
            raise UserError(f"{given.given_to(model)}, returns logits that are not finite")
        now = dict(model.named_buffers())
        moved = [key for key, kept in buffers.items() if not same(kept, now[key])]
    if moved:
        notes.append(
            f"model {name}: its buffer {moved[0]!r} changes in evaluation mode too, so that bits "
            "and figures depend on who computes: change it where self.training is true"
        )
    if logits.shape[1] > 1 and (logits >= 0).all() and ((logits.sum(1) - 1).abs() < 1e-3).all():
        notes.append(
            f"model {name} returns probabilities, it seems: each row sums to 1. Losses expect "
            "logits: leave the softmax at its end out"
        )
    return notes


def _attacked(model: nn.Module, given: Sample) -> Tensor:
    """The gradient that an attack climbs, in the mode that the model is in: as the images."""
    place, images = given.given_to(model), given.images.clone().requires_grad_()
    gradient = None
    with parameters_frozen(model), torch.enable_grad():
        loss = summed_cross_entropy(_logits(model, images, given), given.labels)
        if loss.requires_grad:
            with user_code(f"{place}, fails when the gradient of its images is computed"):
                (gradient,) = torch.autograd.grad(loss, images, allow_unused=True)
        if gradient is None:
            cut = _cut(model, images, given)
            raise UserError(f"{place}, {cut}, so that attacks have nothing to climb")
    if not gradient.isfinite().all():
        raise UserError(f"{place}, gives its images a gradient that is not finite")
    return gradient


def _flat(model: nn.Module, given: Sample, gradient: Tensor) -> list[str]:
    """A warning where the gradient is zero, and not for the first parameters alone."""
    if gradient.any():
        return []
    with torch.no_grad():
        # A last layer that begins with zeros is nothing to warn of.
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    if _attacked(model, given).any():
        return []
    return [
        f"model {name_of(model)} gives its images a gradient of zeros: attacks stay where they "
        "start, unless training changes that"
    ]


def _cut(model: nn.Module, images: Tensor, given: Sample) -> str:
    """Where the way of the gradient ends, before it has reached what it should."""
    with watched(model, carries_no_gradient) as watch:
        _logits(model, images, given)
    return (
        f"lets no gradient through{watch.place} (by detach, torch.no_grad, numpy, rounding or a "
        "comparison?)"
    )


def _require_images_kept(model: nn.Module, given: Sample) -> None:
    """Refuse a model that writes into the images that it is given."""
    for is_second in (False, True):
        images = given.images.clone()
        version = images._version

        def is_written(value: object, images: Tensor = images, version: int = version) -> bool:
            return images._version != version or not torch.equal(images, given.images)

        with watched(model, is_written) if is_second else nullcontext() as watch:
            _logits(model, images, given)
        if not is_written(None):
            return
    place = watch.place if watch else ""
    raise UserError(
        f"{given.given_to(model)}, writes into them{place}: leave out inplace=True, or work on a "
        "copy, x = x.clone()"
    )


def _logits(model: nn.Module, images: Tensor, given: Sample, *, seed: int = _SEED) -> Tensor:
    """Its logits float32 [N, K]; where it fails, a line that names the layer."""

    def run() -> object:
        seed_streams(seed, images.device)
        with mixed_precision(images.device, given.precision):
            return model(images)

    place = given.given_to(model)
    try:
        with user_code(f"{place}, fails"):
            outputs = run()
    except UserError as refusal:
        if refusal.__cause__ is None:
            raise
        with watched(model) as watch, suppress(UserError), user_code(place):
            run()
        raise UserError(f"{place}, fails{watch.place}: {origin_of(refusal.__cause__)}") from None
    require_logits(outputs, place, len(images), given.num_classes)
    assert isinstance(outputs, Tensor)
    return outputs.float()


def _in_evaluation(model: nn.Module, given: Sample, seed: int = _SEED) -> Tensor:
    with evaluation_mode(model), torch.no_grad():
        return _logits(model, given.images, given, seed=seed)


def _layout(model: nn.Module) -> list[tuple[str, torch.dtype, torch.Size]]:
    return [(name, tensor.dtype, tensor.shape) for name, tensor in named_tensors(model)]
