"""The evaluation of one trained network on all ranks: read, attack, add up, judge, write."""

import math
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import nn

from mpiadv.attacks import Precision
from mpiadv.attacks.auto_attack import COMPONENTS, require_auto_attack
from mpiadv.comm.world import World
from mpiadv.config import Config
from mpiadv.data import DataSet
from mpiadv.engine.device import choose_device, choose_threads, make_deterministic
from mpiadv.engine.follow import Follower
from mpiadv.engine.session import agree, load_data_together
from mpiadv.errors import UserError
from mpiadv.evaluation import frozen
from mpiadv.evaluation.crafting import Classifier
from mpiadv.evaluation.picture import draw_worst
from mpiadv.evaluation.plan import (
    PlannedAttack,
    plan_attacks,
    protocol_of,
    require_within_box,
)
from mpiadv.evaluation.report import report_of, show
from mpiadv.evaluation.results import Findings
from mpiadv.evaluation.store import hdf5_path, json_path, require_free, write_results
from mpiadv.evaluation.subject import Subject, load_into, read_subject
from mpiadv.evaluation.survivors import Assault, Example, Found, Progress, attack_share
from mpiadv.evaluation.verdict import attacked_balls, judge, probe_attacks
from mpiadv.models import build_model, check_model

DEADLINE_SECONDS = 7 * 86_400.0
"""Ranks wait for one another only at the end, and shares take unlike times. A rank that fails ends
the job at once all the same."""

NUM_PROBED, PROBE_BATCH = 100, 25
"""Images that are attacked for the verdict alone, and how many of them at a time."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the user asks for, of every network.

    Attributes:
        overrides: settings as `key.subkey=value`.
        protocols: names of `PROTOCOLS`, which come first.
        attacks: words for `plan_attacks`; none of both: PGD as the configuration's `evaluation`
            has it.
        each_alone: whether each attack starts from all images, not from the survivors.
        num_samples: so many test images, by `choose_samples`; None: all.
        transfer_from: networks to craft images on.
        output: a folder for the results; None: beside the network.
        probe: whether to attack a few images more, in search of gradient masking.
        trust_code: whether to run what a network's own settings name as its model or data set.
    """

    overrides: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ()
    attacks: tuple[str, ...] = ()
    each_alone: bool = False
    num_samples: int | None = None
    transfer_from: tuple[str, ...] = ()
    output: str | None = None
    overwrite: bool = False
    save_examples: bool = False
    precision: Precision = "float32"
    probe: bool = True
    trust_code: bool = False

    @property
    def trusted(self) -> Sequence[str] | None:
        """What code a network's own settings may name; see `override_config`."""
        return None if self.trust_code else self.overrides


@dataclass(frozen=True, kw_only=True, eq=False)
class Bench:
    """A network on this rank, and all that its evaluation takes."""

    subject: Subject
    data: DataSet
    target: Classifier
    sources: Mapping[str, Classifier]
    hashes: Mapping[str, str]
    attacks: tuple[PlannedAttack, ...]
    num_samples: int
    output: Path


def examine(world: World, wanted: Wanted, path: str, console: Console) -> Findings:
    """Evaluate one network; rank 0 prints and writes the results.

    Raises:
        AgreedError: on all ranks, if the input is bad on any.
    """
    world.deadline_seconds = DEADLINE_SECONDS
    subject = agree(world, lambda: read_subject(Path(path), wanted.overrides, wanted.trusted))
    config = subject.config
    device = agree(world, lambda: choose_device(config.training.device, world.local_rank))
    make_deterministic(choose_threads(config.training.threads, world.local_size))
    data = load_data_together(config, world)
    bench = agree(world, lambda: _set_up(subject, data, wanted, device.torch))
    settings = _settings(bench, wanted)
    agree(world, lambda: _require_free(world, bench, settings, wanted))
    if world.is_trainer:
        _say(console, f"{path}: {bench.num_samples} test images of {config.data.name}")
        for line in _notes(bench, wanted):
            _say(console, line)
    began = time.perf_counter()
    findings, probe, examples = _attack(world, bench, wanted, console)
    verdict = judge(findings, probe, _misfits(bench))
    if world.is_trainer:
        show(console, findings, verdict)
        report = {
            "model": {"path": path, "name": config.model.name, "hash": bench.hashes[""]},
            "settings": settings,
            **report_of(findings, verdict),
            "run": _circumstances(world, device.torch, time.perf_counter() - began),
        }
        _write(bench, report, findings, examples, console)
    return findings


def _set_up(subject: Subject, data: DataSet, wanted: Wanted, device: torch.device) -> Bench:
    model, found = _load(subject, data, device)
    hashes = {"": found}
    sources: dict[str, Classifier] = {}
    for path in wanted.transfer_from:
        words = _overrides_for(Path(path), wanted.overrides)
        source = read_subject(Path(path), words, wanted.trusted)
        name = _unused_name(source, sources)
        loaded, hashes[name] = _load(source, data, device)
        sources[name] = Classifier(model=loaded, precision=wanted.precision)
    norm, epsilon = subject.ball
    attacks = plan_attacks(
        _words(subject, wanted),
        norm=norm,
        epsilon=epsilon,
        each_alone=wanted.each_alone,
        sources=tuple(sources),
    )
    for attack in attacks:
        require_within_box(attack, math.prod(data.image_shape))
    _require_auto_attack(attacks, data.num_classes)
    return Bench(
        subject=subject,
        data=data,
        target=Classifier(model=model, precision=wanted.precision),
        sources=sources,
        hashes=hashes,
        attacks=attacks,
        num_samples=min(wanted.num_samples or data.test.num_samples, data.test.num_samples),
        output=Path(wanted.output, "evaluation") if wanted.output else subject.output,
    )


def _load(subject: Subject, data: DataSet, device: torch.device) -> tuple[nn.Module, str]:
    """A subject's model on the device, and its hash."""
    shape, num_classes = data.image_shape, data.num_classes
    model = build_model(
        subject.config.model, num_classes=num_classes, image_shape=shape, seed=subject.config.seed
    )
    found = load_into(model, subject)
    check_model(model, shape, num_classes)
    return model.to(device), found


def _overrides_for(path: Path, overrides: Sequence[str]) -> list[str]:
    """A network that brings its own configuration keeps its model; a plain file takes ours."""
    if path.is_dir() or path.name.startswith("checkpoint-"):
        return [override for override in overrides if not override.startswith("model.")]
    return list(overrides)


def _unused_name(subject: Subject, taken: Mapping[str, object]) -> str:
    """The subject's name, or its whole path if another one has that name."""
    return subject.name if subject.name not in taken else str(subject.path)


def _words(subject: Subject, wanted: Wanted) -> tuple[str, ...]:
    """The attacks of the protocols, the ones by name, or else that of the run's own evaluation."""
    protocols = [protocol_of(name).words(*subject.ball) for name in wanted.protocols]
    words = (*(word for words in protocols for word in words), *wanted.attacks)
    return words or (_default_attack(subject.config),)


def _default_attack(config: Config) -> str:
    size = config.evaluation.step_size
    return f"pgd:steps={config.evaluation.num_steps}" + (f",step_size={size!r}" if size else "")


def _notes(bench: Bench, wanted: Wanted) -> list[str]:
    """What became of step sizes that were made for another ball."""
    protocols = {name: protocol_of(name) for name in wanted.protocols}
    is_own = not wanted.protocols and not wanted.attacks
    return [
        *(bench.subject.notes if is_own else ()),
        *(
            f"protocol {name}: {protocol.abroad}"
            for name, protocol in protocols.items()
            if not protocol.is_at_home(*bench.subject.ball)
        ),
    ]


def _misfits(bench: Bench) -> list[str]:
    """The attacks whose steps do not fit their ball."""
    return [
        f"{attack.title}: {attack.misfit}, so that its figures flatter the model: without "
        "step_size, or with evaluation.step_size=null, they fit"
        for attack in bench.attacks
        if attack.misfit and not attack.source
    ]


def _require_auto_attack(attacks: Sequence[PlannedAttack], num_classes: int) -> None:
    kinds = {attack.kind for attack in attacks}
    if kinds & set(COMPONENTS):
        require_auto_attack()
    if "apgd-t" in kinds and num_classes < 4:
        raise UserError(
            f"apgd-t needs 4 classes, the data set has {num_classes}: use --attack apgd-ce "
            "--attack fab-t --attack square in place of autoattack"
        )


def _settings(bench: Bench, wanted: Wanted) -> dict[str, Any]:
    """What decides the figures, and what is written beside them."""
    config = bench.subject.config
    return {
        "model_hash": bench.hashes[""],
        "source_hashes": {name: found for name, found in bench.hashes.items() if name},
        "data": {"name": config.data.name, "arguments": config.data.arguments},
        "num_samples": bench.num_samples,
        "batch_size": config.evaluation.batch_size,
        "seed": config.seed,
        "precision": wanted.precision,
        "attacks": [
            {**attack.settings, "source": attack.source, "chain": attack.chain}
            for attack in bench.attacks
        ],
        "probe": wanted.probe,
        "examples": wanted.save_examples,
    }


def _require_free(world: World, bench: Bench, settings: Mapping[str, Any], wanted: Wanted) -> None:
    if world.is_trainer:
        require_free(bench.output, settings, overwrite=wanted.overwrite)


def _attack(
    world: World, bench: Bench, wanted: Wanted, console: Console
) -> tuple[Findings, Findings | None, list[Example] | None]:
    """What all ranks find, what the probe finds, and the images that were kept, on rank 0."""
    config = bench.subject.config
    assault = Assault(
        target=bench.target,
        sources=bench.sources,
        attacks=bench.attacks,
        seed=config.seed,
        num_samples=bench.num_samples,
        batch_size=config.evaluation.batch_size,
        keep_examples=wanted.save_examples,
    )
    with ExitStack() as stack:
        for classifier in (bench.target, *bench.sources.values()):
            stack.enter_context(frozen(classifier.model))
        follow = _follower(world, console, stack)
        found = _share(world, assault, bench, follow)
        findings = _add_up(world, bench.attacks, found)
        probed = _probe(bench) if wanted.probe else None
        probe = None
        if probed is not None:
            probe = _add_up(world, tuple(probed.attacks), _share(world, probed, bench, follow))
    return findings, probe, _gather(world, findings, found) if wanted.save_examples else None


def _follower(world: World, console: Console, stack: ExitStack) -> Callable[[Progress], None]:
    if not world.is_trainer:
        return lambda progress: None
    return stack.enter_context(Follower(console, num_ranks=world.size))


def _share(
    world: World, assault: Assault, bench: Bench, follow: Callable[[Progress], None]
) -> Found:
    share = (world.rank, world.size)
    return attack_share(assault, bench.data.test, share=share, on_progress=follow)


def _add_up(world: World, attacks: tuple[PlannedAttack, ...], found: Found) -> Findings:
    return Findings(attacks=attacks, values=world.sum(found.values))


def _probe(bench: Bench) -> Assault | None:
    """A few images under attacks that tell on gradient masking; None where no ball is attacked."""
    balls = attacked_balls(bench.attacks)
    if not balls:
        return None
    num_pixels = int(np.prod(bench.data.image_shape))
    return Assault(
        target=bench.target,
        attacks=probe_attacks(balls, num_pixels),
        seed=bench.subject.config.seed,
        num_samples=min(NUM_PROBED, bench.num_samples),
        batch_size=PROBE_BATCH,
    )


def _gather(world: World, findings: Findings, found: Found) -> list[Example]:
    """The kept images of all ranks, in the order of the images, a batch of them at a time."""
    indices = findings.indices[findings.first_breaker >= 0]
    own = {example.index: example for example in found.examples}
    shapes = world.gather(",".join(map(str, next(iter(own.values())).image.shape)) if own else "")
    shape = tuple(int(size) for size in next(filter(None, shapes), "0").split(","))
    gathered = []
    for first in range(0, len(indices), 500):
        chosen = indices[first : first + 500]
        rows = np.zeros((len(chosen), 2 + int(np.prod(shape))))
        for row, index in zip(rows, chosen, strict=True):
            if int(index) in own:
                example = own[int(index)]
                row[:] = [example.attack, example.prediction, *example.image.ravel()]
        for index, row in zip(chosen, world.sum(rows), strict=True):
            image = row[2:].reshape(shape).astype(np.float32)
            gathered.append(
                Example(index=int(index), attack=int(row[0]), prediction=int(row[1]), image=image)
            )
    return gathered


def _write(
    bench: Bench,
    report: Mapping[str, Any],
    findings: Findings,
    examples: Sequence[Example] | None,
    console: Console,
) -> None:
    write_results(bench.output, report, findings, examples)
    written = [json_path(bench.output), hdf5_path(bench.output)]
    if examples:
        written.append(bench.output.with_name(f"{bench.output.name}.png"))
        shown = np.array([example.index for example in examples], np.int64)
        natural, labels = bench.data.test.batch(shown)
        names = bench.data.class_names or tuple(map(str, range(bench.data.num_classes)))
        draw_worst(written[-1], examples, natural.cpu().numpy(), names, labels.tolist())
    _say(console, f"results in {', '.join(map(str, written))}")


def _circumstances(world: World, device: torch.device, seconds: float) -> dict[str, Any]:
    """Where the figures come from; none of it changes them on the same hardware."""
    return {
        "ranks": world.size,
        "device": str(device),
        "threads": torch.get_num_threads(),
        "seconds": seconds,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("mpiadv", "torch", "numpy")},
        },
    }


def _say(console: Console, line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)
