"""Synchronous training in a few lines of torch, which know nothing of the engine."""

import copy
from collections.abc import Callable, Iterator

import torch
from end_to_end import NUM_STEPS
from torch import Tensor, nn
from torch.nn import functional

from mpiadv.contract.tickets import Purpose, SampleOrder, seed_for
from mpiadv.data import load_data
from mpiadv.models import build_model, fingerprint
from mpiadv.settings import Config

EPSILON, NUM_ATTACK_STEPS, BETA, DECAY = 0.15, 5, 6.0, 0.9

Loss = Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]
"""Of a model on adversarial images, natural images and labels."""

Hashes = tuple[str, str]
"""Of the trained model, and of the moving average of its weights."""


def adversarial_loop(config: Config, wire: torch.dtype, data_type: torch.dtype) -> Hashes:
    """Madry et al. 2018."""
    mixed = torch.autocast("cpu", dtype=torch.bfloat16, enabled=data_type is torch.bfloat16)

    def loss(model: nn.Module, images: Tensor, labels: Tensor, reduction: str) -> Tensor:
        with mixed:
            logits = model(images)
        return functional.cross_entropy(logits.float(), labels, reduction=reduction)

    def start(natural: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.rand(natural.shape, generator=generator) * 2 - 1
        return natural + EPSILON * noise

    return _loop(
        config, wire, start,
        climbed=lambda model, images, natural, labels: loss(model, images, labels, "sum"),
        trained=lambda model, images, natural, labels: loss(model, images, labels, "mean"),
    )  # fmt: skip


def trades_loop(config: Config, wire: torch.dtype) -> Hashes:
    """Zhang et al. 2019, as in their `trades.py`."""
    divergence = nn.KLDivLoss(reduction="sum")

    def climbed(model: nn.Module, images: Tensor, natural: Tensor, labels: Tensor) -> Tensor:
        expected = functional.softmax(model(natural), dim=1).detach()
        return divergence(functional.log_softmax(model(images), dim=1), expected)

    def trained(model: nn.Module, images: Tensor, natural: Tensor, labels: Tensor) -> Tensor:
        logits = model(natural)
        expected = functional.softmax(logits, dim=1)
        robust = divergence(functional.log_softmax(model(images), dim=1), expected) / len(labels)
        return functional.cross_entropy(logits, labels) + BETA * robust

    def start(natural: Tensor, generator: torch.Generator) -> Tensor:
        return natural + 0.001 * torch.randn(natural.shape, generator=generator)

    return _loop(config, wire, start, climbed, trained)


def _loop(
    config: Config,
    wire: torch.dtype,
    start: Callable[[Tensor, torch.Generator], Tensor],
    climbed: Loss,
    trained: Loss,
) -> Hashes:
    """Attacked is a copy of the model whose parameters, as the batches, are rounded to `wire`."""
    model = build_model(
        config.model, num_classes=10, image_shape=(1, 8, 8), seed=seed_for(0, Purpose.MODEL)
    ).train()
    attacked, average = copy.deepcopy(model), copy.deepcopy(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.005, total_steps=NUM_STEPS, pct_start=0.3, cycle_momentum=False
    )
    for ticket, (natural, labels, generator) in enumerate(_batches(config)):
        attacked.load_state_dict({k: v.to(wire).float() for k, v in model.state_dict().items()})
        images = start(natural, generator).clamp(0, 1)
        for _ in range(NUM_ATTACK_STEPS):
            images.requires_grad_()
            (gradient,) = torch.autograd.grad(climbed(attacked, images, natural, labels), images)
            images = images.detach() + 2.5 * EPSILON / NUM_ATTACK_STEPS * gradient.sign()
            images = natural + (images - natural).clamp(-EPSILON, EPSILON)
            images = images.clamp(0, 1)
        optimizer.zero_grad()
        images, natural = images.to(wire).float(), natural.to(wire).float()
        trained(model, images, natural, labels).backward()
        optimizer.step()
        schedule.step()
        since = ticket + 1 - 0.025 * NUM_STEPS
        kept = min(DECAY, (1 + since) / (10 + since)) * (since >= 0)
        for mean, now in zip(average.parameters(), model.parameters(), strict=True):
            mean.data.lerp_(now.data, 1 - kept)
    return fingerprint(model), fingerprint(average)


def _batches(config: Config) -> Iterator[tuple[Tensor, Tensor, torch.Generator]]:
    """Images, labels and the stream of the start, ticket by ticket."""
    data = load_data(config.data).train
    order = SampleOrder(seed=0, num_samples=data.num_samples, batch_size=32)
    for ticket in range(NUM_STEPS):
        natural, labels = data.batch(order.indices(ticket))
        generator = torch.Generator().manual_seed(seed_for(0, Purpose.START, ticket))
        yield natural, labels, generator
