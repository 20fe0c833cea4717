"""How long crafting and training take on this rank's device, and how much memory.

A few batches of each, as in a run, on a freshly initialised model; nothing is written, nobody is
spoken to.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from resource import getpagesize
from statistics import median

import numpy as np
import torch
from torch import nn

from mpiadv.comm.links import BatchSlot, ParameterSlot
from mpiadv.contract.craft_queue import AttackStep
from mpiadv.evaluation import frozen
from mpiadv.evaluation.accuracy import load_batch
from mpiadv.evaluation.crafting import Classifier, climbed, most_at_once
from mpiadv.evaluation.in_run import evaluation_attack
from mpiadv.forecast.memory import Memory
from mpiadv.loops.bench import settle
from mpiadv.models import FlatState
from mpiadv.process.errors import tell_warning
from mpiadv.session.engine import new_learner
from mpiadv.session.setup import Setup
from mpiadv.work.craft import TorchCrafter
from mpiadv.work.learn import TorchLearner
from mpiadv.work.recipe import state_on_the_wire

WARM_UP = 2
"""Batches before those that count: the first ones load libraries and choose kernels."""

MOST_BATCHES = 20
LONGEST_SECONDS = 20.0
"""Crafting is measured for as many batches as either allows, and so is training."""

FEWEST_BATCHES = 4
"""Fewer say little: one hiccup makes their median another."""

EVALUATIONS, EVALUATION_STEPS = 3, 2
"""Short evaluations, of which the fastest counts, and the attack steps of each."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Medians in seconds, and memory without messages.

    Attributes:
        train_seconds: of a batch, its part of the update included.
        update_seconds: of the update alone, once in a step.
        sum_bytes: of what a trainer's tickets of a step come to.
        evaluation_step_seconds: of an attack step on one image in an evaluation during the run.
        trainer: with the second model, on which it crafts.
    """

    num_batches: int
    craft_seconds: float
    train_seconds: float
    update_seconds: float
    sum_bytes: int
    evaluation_step_seconds: float
    version_bytes: int
    trainer: Memory
    attacker: Memory


def measure(setup: Setup, *, most_batches: int) -> Measured:
    """Craft and train a few batches, an attacker's work first and the trainer's then."""
    num_batches = WARM_UP + most_batches
    setup = _endless(setup, num_batches)
    rule, per_step = setup.recipe.rule, setup.recipe.rule.tickets_per_step
    timed = partial(_timed, num_batches)
    model = setup.new_target()
    version = _published(setup, state_on_the_wire(setup.recipe, model))
    batch = BatchSlot(setup.link_shape(0).batch, setup.device.allocate)
    crafter = setup.new_crafter(model, tell_warning)
    first = rule.max_staleness * per_step
    crafting = timed(lambda number: _craft(setup, crafter, first + number, version, batch))
    messages = version.buffer.nbytes + batch.buffer.nbytes
    attacker = _memory(setup, messages)
    learner = new_learner(setup, tell_warning)
    updates: list[float] = []
    training = timed(
        lambda number: updates.append(_train(setup, learner, rule.max_staleness + number, batch))
    )
    return Measured(
        num_batches=min(len(crafting), len(training)),
        craft_seconds=median(crafting),
        train_seconds=median(training) / per_step,
        update_seconds=median(updates[WARM_UP:]),
        sum_bytes=learner.sum_bytes,
        evaluation_step_seconds=_evaluation_step_seconds(setup, learner.model),
        version_bytes=learner.parameter_bytes,
        trainer=_memory(setup, messages),
        attacker=attacker,
    )


def _endless(setup: Setup, num_batches: int) -> Setup:
    """The same, with a schedule that does not end before the measurement."""
    steps = max(setup.config.training.num_steps, num_batches + 1)
    training = setup.config.training.model_copy(update={"num_steps": steps})
    return replace(setup, config=setup.config.model_copy(update={"training": training}))


def _published(setup: Setup, state: FlatState) -> ParameterSlot:
    slot = ParameterSlot(state.num_bytes, setup.device.allocate)
    flat = torch.zeros(state.num_bytes, dtype=torch.uint8, device=setup.device.torch)
    state.pack(flat)
    torch.from_numpy(slot.values).copy_(flat)
    return slot


def _timed(num_pieces: int, work: Callable[[int], None]) -> list[float]:
    """Seconds of each of so many pieces of work but the first ones."""
    began = time.perf_counter()
    taken: list[float] = []
    for number in range(num_pieces):
        start = time.perf_counter()
        work(number)
        taken.append(time.perf_counter() - start)
        if len(taken) > WARM_UP and time.perf_counter() - began > LONGEST_SECONDS:
            break
    return taken[WARM_UP:]


def _craft(
    setup: Setup, crafter: TorchCrafter, ticket: int, version: ParameterSlot, batch: BatchSlot
) -> None:
    """All that an attacker does for a ticket."""
    settings, rule = setup.largest_settings, setup.recipe.rule
    crafter.prefetch(ticket + 1)
    crafter.start(ticket, settings)
    for step in range(rule.crafting_steps(settings.num_steps)):
        number = rule.version(ticket, step, settings.num_steps)
        crafter.run(AttackStep(ticket=ticket, step=step, version=number), version)
        settle(crafter, _nothing)
    crafted, _ = crafter.finish(ticket)
    crafter.download(crafted, batch)


def _train(setup: Setup, learner: TorchLearner, step: int, batch: BatchSlot) -> float:
    """All that the trainer does with the batches of a training step that came.

    Returns the seconds of the update alone.
    """
    per_step = setup.recipe.rule.tickets_per_step
    for ticket in range(step * per_step, (step + 1) * per_step):
        learner.train(ticket, learner.upload(batch), setup.largest_settings, _nothing)
        settle(learner, _nothing)
    learner.told()
    began = time.perf_counter()
    learner.complete()
    settle(learner, _nothing)
    return time.perf_counter() - began


def _evaluation_step_seconds(setup: Setup, model: nn.Module) -> float:
    """Evaluations have a precision of their own, and other numbers of images at once."""
    config = setup.config.evaluation
    short = config.model_copy(update={"num_steps": EVALUATION_STEPS})
    attack = evaluation_attack(setup.config.model_copy(update={"evaluation": short}))
    batch = min(config.batch_size, setup.data.test.num_samples)
    count = most_at_once(setup.device.torch, batch)
    images, labels = load_batch(setup.data.test, np.arange(count), model)
    classifier = Classifier(model=model, precision=config.precision)
    taken = []
    with frozen(model):
        for _ in range(EVALUATIONS):
            start = time.perf_counter()
            climbed(classifier, attack, images, labels, seed=0).cpu()
            taken.append(time.perf_counter() - start)
    return min(taken) / count / EVALUATION_STEPS


def _memory(setup: Setup, messages: int) -> Memory:
    """What this process holds without these bytes, and the most that it reserved on a GPU."""
    resident = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * getpagesize()
    device = torch.cuda.max_memory_reserved() if setup.device.is_cuda else 0
    return Memory(process=resident - messages, versions=0, batches=0, device=device)


def _nothing() -> None:
    """Nobody is there to be spoken to."""
