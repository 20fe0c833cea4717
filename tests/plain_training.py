"""Synchronous training in a few lines of torch, which know nothing of the engine."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from m_plus import plain_m_plus
from torch import Tensor, nn
from torch.nn import functional

from mpiadv.contract.tickets import Purpose, SampleOrder, seed_for
from mpiadv.data import load_data
from mpiadv.models import build_model, fingerprint
from mpiadv.settings import Config

EPSILON, DECAY = 0.15, 0.9

Hashes = tuple[str, str]
"""Of the trained model, and of the moving average of its weights."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What losses are of: a model on adversarial images, natural ones, others nearby, labels."""

    model: nn.Module
    images: Tensor
    natural: Tensor
    nearby: Tensor
    labels: Tensor
    targets: Tensor
    """What labels are, mixed with others or not: probabilities, or classes."""


def cross_entropy(seen: Seen, reduction: str, smoothing: float = 0.0) -> Tensor:
    logits = seen.model(seen.images).float()
    return functional.cross_entropy(
        logits, seen.targets, reduction=reduction, label_smoothing=smoothing
    )


def noise(like: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform in [-1, 1]."""
    return torch.rand(like.shape, generator=generator) * 2 - 1


def steps_at(ticket: int, magnitudes: list[float], per_epoch: int) -> int:
    """Five attack steps, always."""
    return 5


def m_plus(ticket: int, magnitudes: list[float], per_epoch: int, first: int = 0) -> int:
    """So many at first, and no more than five: as in `m_plus.py`."""
    epochs = ticket // per_epoch
    sums = [sum(magnitudes[per_epoch * i : per_epoch * (i + 1)]) for i in range(epochs)]
    return plain_m_plus(sums, first=first, most=5, gamma=1.01)[-1]


@dataclass(frozen=True, kw_only=True)
class Plain:
    """A method; what it does not say is PGD in L-inf.

    `step` makes a unit of length of a gradient, `clip` keeps a perturbation in the ball. An image
    stops where it is found misclassified after `tau(ticket)` other times. `clean` is the share of a
    batch that is not attacked. Weights are moved by `gamma(ticket)` of their length before the
    gradient is taken. Images `is_mixed` by CutMix. A new model is to `prepare`. An `attack` of its
    own gives the images, and what their gradients are told as.
    """

    climbed: Callable[[Seen], Tensor] = lambda seen: cross_entropy(seen, "sum")
    trained: Callable[[Seen], Tensor] = lambda seen: cross_entropy(seen, "mean")
    start: Callable[[Tensor, torch.Generator], Tensor] = lambda x, g: x + EPSILON * noise(x, g)
    step: Callable[[Tensor], Tensor] = torch.sign
    clip: Callable[[Tensor], Tensor] = lambda delta: delta.clamp(-EPSILON, EPSILON)
    num_steps: Callable[[int, list[float], int], int] = steps_at
    relative: float = 2.5
    tau: Callable[[int], int] | None = None
    clean: float = 0.0
    gamma: Callable[[int], float] = lambda ticket: 0.0
    is_mixed: bool = False
    prepare: Callable[[nn.Module], object] = lambda model: None
    optimizer: Callable[[nn.Module], torch.optim.Optimizer] = lambda model: torch.optim.Adam(
        model.parameters(), lr=0.005, fused=True
    )
    epsilon: float = EPSILON
    attack: "Callable[[Plain, Seen, int, int, torch.Generator], tuple[Tensor, float | None]]" = (
        lambda *given: attack_plainly(*given)
    )


def train_plainly(
    config: Config, method: Plain, *, wire: torch.dtype = torch.float32, bfloat16: bool = False
) -> Hashes:
    """Attacked is a copy of the model whose parameters, as the batches, are rounded to `wire`."""
    mixed = torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16)
    model, average, optimizer, schedule = _begun(config, method)
    attacked, sources = copy.deepcopy(model).eval(), [*_sources(config)]
    magnitudes: list[float] = []
    for ticket, (natural, labels, targets, nearby) in enumerate(_batches(config, method)):
        attacked.load_state_dict({k: v.to(wire).float() for k, v in model.state_dict().items()})
        generator = torch.Generator().manual_seed(seed_for(0, Purpose.START, ticket))
        number, clean = method.num_steps(ticket, magnitudes, _per_epoch(config)), 0
        clean = round(method.clean * len(labels))
        drawn = seed_for(0, Purpose.SOURCES, ticket) % (1 + len(sources))
        seen = Seen(
            model=[attacked, *sources][drawn], images=natural[clean:], natural=natural[clean:],
            nearby=nearby, labels=labels[clean:], targets=targets[clean:],
        )  # fmt: skip
        with mixed:
            crafted, magnitude = method.attack(method, seen, ticket, number, generator)
        images = torch.cat([natural[:clean], crafted]).to(wire).float()
        natural = natural.to(wire).float()
        if len(images) > len(labels):
            labels = targets = labels.repeat(len(images) // len(labels))
        seen = Seen(
            model=model, images=images, natural=natural, nearby=nearby, labels=labels,
            targets=targets,
        )  # fmt: skip
        slope = _learn(method, seen, optimizer, method.gamma(ticket), mixed)
        magnitudes.append(slope if magnitude is None else magnitude)
        schedule.step()
        _average(config, average, model, ticket)
    return fingerprint(model), fingerprint(average)


def replay_plainly(config: Config, *, is_kept: bool, size: float, grows: bool) -> Hashes:
    """FREE where the perturbation `is_kept`, DEAT else: five times each batch, or as M+ has it."""
    method, magnitudes = Plain(), list[float]()
    model, average, optimizer, schedule = _begun(config, method)
    kept = torch.zeros(config.data.batch_size, 1, 8, 8)
    for ticket, (natural, labels, _, _) in enumerate(_batches(config, method)):
        if not is_kept:
            generator = torch.Generator().manual_seed(seed_for(0, Purpose.START, ticket))
            kept = method.start(natural, generator).clamp(0, 1) - natural
        slope = torch.zeros_like(natural)
        for _ in range(m_plus(ticket, magnitudes, _per_epoch(config), first=1) if grows else 5):
            images = (natural + kept).clamp(0, 1).requires_grad_()
            optimizer.zero_grad()
            functional.cross_entropy(model(images), labels).backward()
            assert images.grad is not None
            slope = images.grad
            kept = method.clip(kept + size * slope.sign())
            optimizer.step()
        magnitudes.append(float(len(natural) * slope.abs().sum(dim=(1, 2, 3)).mean()))
        schedule.step()
        _average(config, average, model, ticket)
    return fingerprint(model), fingerprint(average)


def yopo_plainly(config: Config, first_layer: Callable[[nn.Module], nn.Module]) -> Hashes:
    """YOPO-5-3 as in the paper, through the first layer; steps of a quarter of the radius."""
    method = Plain()
    model, average, optimizer, schedule = _begun(config, method)
    layer = first_layer(model)
    for ticket, (natural, labels, _, _) in enumerate(_batches(config, method)):
        generator = torch.Generator().manual_seed(seed_for(0, Purpose.START, ticket))
        images = method.start(natural, generator).clamp(0, 1)
        sums = [torch.zeros_like(parameter) for parameter in model.parameters()]
        for _ in range(5):
            kept: list[Tensor] = []
            hook = layer.register_forward_hook(lambda layer, given, out, k=kept: k.append(out))
            loss = functional.cross_entropy(model(images), labels)
            hook.remove()
            *gradients, at_output = torch.autograd.grad(loss, [*model.parameters(), kept[0]])
            sums = [a + b for a, b in zip(sums, gradients, strict=True)]
            for _ in range(3):
                images = images.detach().requires_grad_()
                hamiltonian = -(at_output * layer(images)).sum()
                (slope,) = torch.autograd.grad(-hamiltonian, images)
                moved = images.detach() + EPSILON / 4 * slope.sign()
                images = (natural + method.clip(moved - natural)).clamp(0, 1)
        for parameter, gradient in zip(model.parameters(), sums, strict=True):
            parameter.grad = gradient / 5
        optimizer.step()
        schedule.step()
        _average(config, average, model, ticket)
    return fingerprint(model), fingerprint(average)


def _begun(
    config: Config, method: Plain
) -> tuple[nn.Module, nn.Module, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """A new model, its average, the optimiser and the schedule."""
    model = build_model(
        config.model.model_copy(update={"mixture_batch_norm": False}),
        num_classes=10,
        image_shape=(1, 8, 8),
        seed=seed_for(0, Purpose.MODEL),
    ).train()
    method.prepare(model)
    optimizer = method.optimizer(model)
    total = config.training.num_steps
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.005, total_steps=total, pct_start=0.3, cycle_momentum=False
    )
    return model, copy.deepcopy(model), optimizer, schedule


def _average(config: Config, average: nn.Module, model: nn.Module, ticket: int) -> None:
    """Take the weights after a training step into their average."""
    since = ticket + 1 - 0.025 * config.training.num_steps
    kept = min(DECAY, (1 + since) / (10 + since)) * (since >= 0)
    for mean, now in zip(average.parameters(), model.parameters(), strict=True):
        mean.data.lerp_(now.data, 1 - kept)
    for newest, now in zip(average.buffers(), model.buffers(), strict=True):
        newest.copy_(now)


def _sources(config: Config) -> Iterator[nn.Module]:
    """The networks that runs have left."""
    for folder in config.attack.sources:
        source, *_ = _begun(config, Plain())
        source.load_state_dict(torch.load(f"{folder}/model.pt", weights_only=True))
        yield source.eval()


def attack_plainly(
    method: Plain, seen: Seen, ticket: int, number: int, generator: torch.Generator
) -> tuple[Tensor, float | None]:
    """The adversarial images, and the mean L1 norm of their last gradients."""
    natural, images = seen.natural, method.start(seen.natural, generator).clamp(0, 1)
    misses, magnitude = torch.zeros(len(natural)), None
    for _ in range(number):
        images = images.detach().requires_grad_()
        here = Seen(**{**vars(seen), "images": images})
        (gradient,) = torch.autograd.grad(method.climbed(here), images)
        magnitude = float(gradient.abs().sum(dim=(1, 2, 3)).mean())
        moved = images.detach() + method.relative * method.epsilon / number * method.step(gradient)
        moved = (natural + method.clip(moved - natural)).clamp(0, 1)
        if method.tau is not None:
            misses += seen.model(images).argmax(dim=1) != seen.labels
            is_stopped = (misses > method.tau(ticket))[:, None, None, None]
            moved = torch.where(is_stopped, images.detach(), moved)
        images = moved
    return images.detach(), magnitude


def _learn(
    method: Plain,
    seen: Seen,
    optimizer: torch.optim.Optimizer,
    gamma: float,
    mixed: torch.autocast,
) -> float:
    """A training step; returns the mean L1 norm of the images' gradients."""
    weights = [weight for weight in seen.model.parameters() if weight.dim() > 1]
    before = [weight.detach().clone() for weight in weights]
    if gamma:
        loss = method.trained(seen)
        for weight, slope in zip(weights, torch.autograd.grad(loss, weights), strict=True):
            weight.data += slope * (gamma * weight.data.norm() / (slope.norm() + 1e-20))
    optimizer.zero_grad()
    images = seen.images.requires_grad_()
    with mixed:
        loss = method.trained(seen)
    loss.backward()
    for weight, kept in zip(weights, before, strict=True):
        weight.data.copy_(kept)
    optimizer.step()
    assert images.grad is not None
    return float(len(images) * images.grad.abs().sum(dim=(1, 2, 3)).mean())


def _per_epoch(config: Config) -> int:
    return load_data(config.data).train.num_samples // config.data.batch_size


def _batches(config: Config, method: Plain) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Images, labels, what they are to be taken for, and other images nearby, by ticket."""
    data = load_data(config.data).train
    size = config.data.batch_size
    order = SampleOrder(seed=0, num_samples=data.num_samples, batch_size=size)
    for ticket in range(config.training.num_steps):
        natural, labels = data.batch(order.indices(ticket))
        targets = labels
        if method.is_mixed:
            from torchvision.transforms.v2 import CutMix

            torch.manual_seed(seed_for(0, Purpose.MIXING, ticket))
            natural, targets = CutMix(alpha=1.0, num_classes=10)(natural, labels)
        generator = torch.Generator().manual_seed(seed_for(0, Purpose.NEARBY, ticket))
        nearby = (natural + EPSILON * noise(natural, generator)).clamp(0, 1)
        yield natural, labels, targets, nearby
