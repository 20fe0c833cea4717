"""The evaluation of one trained network on all ranks: read, attack, add up, judge, write."""

import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from mpiadv.comm.world import World
from mpiadv.evaluation import frozen
from mpiadv.evaluation.doubts import chance, doubts_of, missing_classes, told_by_authors
from mpiadv.evaluation.picture import NUM_SHOWN, Column, Pixels, save_picture
from mpiadv.evaluation.report import report_of, say, show
from mpiadv.evaluation.results import Findings
from mpiadv.evaluation.store import file_of, require_free, write_results
from mpiadv.evaluation.subject import read_subject
from mpiadv.evaluation.survivors import (
    Assault,
    Found,
    Progress,
    Warned,
    attack_share,
    say_nothing,
)
from mpiadv.evaluation.verdict import Verdict, judge
from mpiadv.examination.examined import (
    Examined,
    few_images,
    notes_on,
    probe_of,
    set_up,
    settings_of,
    step_misfits,
)
from mpiadv.examination.follow import Follower
from mpiadv.examination.kept_images import bring_together
from mpiadv.examination.wanted import Wanted
from mpiadv.session.agreement import agree
from mpiadv.session.setup import load_data_together
from mpiadv.work.device import choose_device, choose_threads, make_deterministic


def examine(world: World, wanted: Wanted, path: str, console: Console) -> Findings:
    """Evaluate one network; rank 0 prints and writes the results.

    Raises:
        AgreedError: on all ranks, if the input is bad on any.
    """
    subject = agree(world, lambda: read_subject(Path(path), wanted.overrides, wanted.trusted))
    config = subject.config
    device = agree(world, lambda: choose_device(config.training.device, world.local_rank))
    make_deterministic(choose_threads(config.training.threads, world.local_size))
    data = load_data_together(config, world)
    examined = agree(world, lambda: set_up(subject, data, wanted, device.torch))
    settings = settings_of(examined, wanted)
    agree(world, lambda: _require_free(world, examined, settings, wanted))
    if world.is_trainer:
        for line in (*_opening(path, examined, wanted), *idle_ranks(world, examined)):
            say(console, line)
        for doubt in device.doubts_about(examined.assault.target.precision, "--precision"):
            say(console, f"warning: {doubt}")
    began = time.perf_counter()
    findings, probe, images, doubts = _attack(world, examined, wanted, console)
    if world.is_trainer:
        verdict = _judged(examined, findings, probe, doubts)
        show(console, findings, verdict)
        report = {
            "model": {"path": path, "name": config.model.name, "hash": examined.target.hash},
            "settings": settings,
            **report_of(findings, verdict),
            "run": _circumstances(world, device.torch, examined, time.perf_counter() - began),
        }
        _write(examined, report, findings, images, console)
    return findings


def _opening(path: str, examined: Examined, wanted: Wanted) -> list[str]:
    """What is evaluated."""
    chosen, num_images = examined.assault.num_samples, examined.data.test.num_samples
    count = f"{chosen}" if chosen == num_images else f"{chosen} of {num_images}"
    config = examined.subject.config
    through = f", through the {config.evaluation.branch} branch" * config.model.mixture_batch_norm
    return [
        f"{path}: {count} test images of {config.data.name}{through}",
        *notes_on(examined, wanted),
    ]


def idle_ranks(world: World, examined: Examined) -> list[str]:
    """That there are more ranks than batches, which the ranks share."""
    assault = examined.assault
    num_batches = -(-assault.num_samples // assault.batch_size)
    idle = world.size - num_batches
    if idle <= 0:
        return []
    return [
        f"{idle} of {world.size} ranks have nothing to do: batches of "
        f"evaluation.batch_size={assault.batch_size} images are {num_batches}"
    ]


def _judged(
    examined: Examined, findings: Findings, probe: Findings | None, doubts: Sequence[str]
) -> Verdict:
    names = examined.data.names
    more = (*step_misfits(examined), *doubts_of(findings, names))
    notes = tuple(missing_classes(findings, names))
    return judge(findings, probe, doubts=(*doubts, *more), notes=notes)


def _require_free(
    world: World, examined: Examined, settings: Mapping[str, Any], wanted: Wanted
) -> None:
    if world.is_trainer:
        require_free(examined.output, settings, overwrite=wanted.overwrite)


def _attack(
    world: World, examined: Examined, wanted: Wanted, console: Console
) -> tuple[Findings, Findings | None, Pixels | None, list[str]]:
    """What all ranks find, what the probe finds, the images that were kept, and doubts."""
    assault = examined.assault
    with ExitStack() as stack:
        for network in examined.networks:
            stack.enter_context(frozen(network.model))
        with world.at_work():
            doubts = [*examined.doubts, *chance(assault.target, few_images(examined))]
        follow: Callable[[Progress], None] = say_nothing
        if world.is_trainer:
            follow = stack.enter_context(Follower(console, num_ranks=world.size))
        findings, found = _share_out(world, assault, examined, follow)
        probed, probe = probe_of(examined) if wanted.probe else None, None
        if probed is not None:
            probe, _ = _share_out(world, probed, examined, follow)
    doubts += told_by_authors(_all_warnings(world, found))
    images = None
    if wanted.save_examples:
        images = bring_together(
            world, findings, found.images,
            batch_size=assault.batch_size, image_shape=examined.data.image_shape,
        )  # fmt: skip
    return findings, probe, images, doubts


def _all_warnings(world: World, found: Found) -> list[Warned]:
    """Those of all ranks."""
    texts = world.gather(json.dumps(found.warnings))
    return [Warned(*values) for text in filter(None, texts) for values in json.loads(text)]


def _share_out(
    world: World, assault: Assault, examined: Examined, follow: Callable[[Progress], None]
) -> tuple[Findings, Found]:
    """What all ranks find together, and this one alone."""
    share = (world.rank, world.size)
    with world.at_work():
        found = attack_share(assault, examined.data.test, share=share, on_progress=follow)
    return Findings(attacks=tuple(assault.attacks), values=world.sum(found.values)), found


def _write(
    examined: Examined,
    report: Mapping[str, Any],
    findings: Findings,
    images: Pixels | None,
    console: Console,
) -> None:
    write_results(examined.output, report, findings, images)
    written = [file_of(examined.output, ending) for ending in (".json", ".h5")]
    if images is not None and len(images):
        written.append(file_of(examined.output, ".png"))
        save_picture(written[-1], columns(examined, findings, images), examined.subject.name)
    say(console, f"results in {', '.join(map(str, written))}")


def columns(examined: Examined, findings: Findings, images: Pixels) -> list[Column]:
    """The broken images that were changed least, and those that broke them."""
    broken = findings.broken_rows
    shown = np.argsort(findings.changes[broken], kind="stable")[:NUM_SHOWN]
    rows, names = broken[shown], examined.data.names
    natural, _ = examined.data.test.batch(findings.indices[rows])
    found = findings.adversarial_predictions
    return [
        Column(
            natural=image.cpu().numpy(),
            adversarial=images[place],
            label=names[findings.labels[row]],
            found=names[found[row]] if found[row] >= 0 else "not a number",
            attack=examined.assault.attacks[findings.first_breaker[row]],
        )
        for place, row, image in zip(shown, rows, natural, strict=True)
    ]


def _circumstances(
    world: World, device: torch.device, examined: Examined, seconds: float
) -> dict[str, Any]:
    """Where the figures come from; on the same hardware it changes their last digits at most."""
    return {
        "memory_format": examined.target.memory_format,
        "ranks": world.size,
        "device": str(device),
        "threads": torch.get_num_threads(),
        "seconds": seconds,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("mpiadv", "torch", "numpy")},
        },
    }
