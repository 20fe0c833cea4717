"""`python -m mpiadv.studies.score REQUEST`: attacks trained networks, and adds to the scores.

Knows no study: the request, a file that `mpiadv.studies.runner` writes, names networks and attacks.
"""

import json
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from mpiadv.attacks import Attack, make_attack
from mpiadv.data import DataSet, load_data
from mpiadv.evaluation import Counts, evaluate
from mpiadv.evaluation.subject import load_network, read_subject
from mpiadv.process.errors import UnreadableError, UserError, tell_error
from mpiadv.process.lifeline import end_with_the_starter
from mpiadv.process.loading import keep_loaded
from mpiadv.process.streams import outlive_readers
from mpiadv.settings import AttackConfig, Config
from mpiadv.studies.scores import ScoreRow, Scoring, add_scores
from mpiadv.work.device import choose_device, choose_threads, make_deterministic


@dataclass(frozen=True, kw_only=True, eq=False)
class Network:
    """A trained network on its device."""

    name: str
    config: Config
    model: nn.Module
    hash: str


@dataclass(kw_only=True)
class Networks:
    """The networks by name, read when they are first asked for, and the data that they share.

    Attributes:
        folders: of the runs, by name.
        trusted: what code their settings may name.
    """

    folders: Mapping[str, str]
    trusted: Sequence[str]
    _known: dict[str, Network] = field(default_factory=dict)
    _data: DataSet | None = None

    def get(self, name: str) -> Network:
        """The network of a run."""
        if name not in self._known:
            self._known[name] = self._read(name)
        return self._known[name]

    @property
    def data(self) -> DataSet:
        """The data set of the networks."""
        assert self._data is not None, "asked for before any network"
        return self._data

    def _read(self, name: str) -> Network:
        subject = read_subject(Path(self.folders[name]), [], self.trusted)
        config = subject.config
        device = choose_device(config.training.device, 0)
        if self._data is None:
            make_deterministic(choose_threads(config.training.threads, 1))
            data = load_data(config.data)
            self._data = DataSet(
                train=data.train.to(device.torch),
                test=data.test.to(device.torch),
                num_classes=data.num_classes,
                image_shape=data.image_shape,
            )
        loaded = load_network(subject, self._data, device.torch, config.evaluation.precision)
        return Network(name=name, config=config, model=loaded.model, hash=loaded.hash)


def main(argv: Sequence[str] | None = None) -> int:
    """Make the attacks of a request, one after the other; returns the exit code."""
    # Ctrl-C reaches the study too, which then ends us by SIGUSR1, without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_the_starter()
    (path,) = sys.argv[1:] if argv is None else argv
    request = json.loads(Path(path).read_text(encoding="utf-8"))
    networks = Networks(folders=request["networks"], trusted=request["trusted"])
    try:
        for scoring in _wanted(request["wanted"]):
            rows = score(scoring, networks)
            add_scores(Path(request["scores"]), rows)
            print(_told(rows), flush=True)
    except (UserError, UnreadableError) as error:
        tell_error(str(error))
        return 2
    return 0


def score(scoring: Scoring, networks: Networks) -> list[ScoreRow]:
    """A row for each target of one attack."""
    began = time.perf_counter()
    source = networks.get(scoring.source)
    targets = [networks.get(name) for name in scoring.targets]
    config = source.config
    attack = attack_of(config, scoring.attack_steps)
    counted = evaluate(
        [target.model for target in targets],
        networks.data.train if scoring.split == "train" else networks.data.test,
        attack,
        seed=config.seed,
        num_samples=scoring.num_images,
        batch_size=config.evaluation.batch_size,
        precision=config.evaluation.precision,
        crafted_on=source.model,
    )
    seconds = (time.perf_counter() - began) / len(targets)
    return [
        _row(scoring, source, target, attack, counts, seconds)
        for target, counts in zip(targets, counted, strict=True)
    ]


def attack_of(config: Config, num_steps: int) -> Attack:
    """PGD with a random start on the training attack's ball, steps of its relative size."""
    pgd = AttackConfig(
        norm=config.attack.norm,
        epsilon=config.attack.epsilon,
        num_steps=num_steps,
        relative_step_size=config.attack.relative_step_size,
    )
    return make_attack(pgd)


def _row(
    scoring: Scoring,
    source: Network,
    target: Network,
    attack: Attack,
    counts: Counts,
    seconds: float,
) -> ScoreRow:
    config = source.config
    return ScoreRow(
        target=target.name,
        source=source.name,
        split=scoring.split,
        attack_steps=scoring.attack_steps,
        norm=config.attack.norm,
        epsilon=attack.epsilon,
        step_size=attack.step_size,
        images_wanted=scoring.num_images,
        num_images=counts.num_samples,
        natural_accuracy=counts.natural_accuracy / 100,
        adversarial_accuracy=counts.adversarial_accuracy / 100,
        natural_loss=counts.natural_loss,
        adversarial_loss=counts.adversarial_loss,
        precision=config.evaluation.precision,
        seed=config.seed,
        batch_size=config.evaluation.batch_size,
        target_hash=target.hash,
        source_hash=source.hash,
        seconds=seconds,
    )


def _wanted(items: Sequence[Mapping[str, Any]]) -> Iterator[Scoring]:
    for item in items:
        yield Scoring(**{**item, "targets": tuple(item["targets"])})


def _told(rows: Sequence[ScoreRow]) -> str:
    first = rows[0]
    targets = ", ".join(f"{row.target} {100 * row.adversarial_accuracy:.2f} %" for row in rows)
    return (
        f"  PGD-{first.attack_steps} made on {first.source}, {first.num_images} {first.split} "
        f"images, {first.seconds * len(rows):.1f} s: {targets}"
    )


if __name__ == "__main__":
    keep_loaded()
    outlive_readers()
    sys.exit(main())
