"""Whether attacks here find what other implementations find, on a trained network.

    pip install foolbox
    python benchmarks/attacks_agree.py RUN_FOLDER

AutoAttack is compared with its authors' package called directly, with the same seed: accuracy and
images must be the same bit for bit. PGD is compared with foolbox from the same random starts, as
others alone would move the figures by tenths of a point: accuracies must be within 0.3 points.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from mpiadv.contract.tickets import Purpose, choose_samples, seed_for
from mpiadv.data import load_data
from mpiadv.evaluation import frozen
from mpiadv.evaluation.attack_specs import read_attacks
from mpiadv.evaluation.subject import load_network, read_subject
from mpiadv.process.errors import UserError
from mpiadv.settings.pixels import RELATIVE_STEP_SIZE

POINTS = 0.3
BATCH_SIZE = 500
L2_EPSILON = 2.0


class Network:
    """A trained network, its configuration, and test images [N, C, H, W] with labels."""

    def __init__(self, folder: Path, overrides: Sequence[str], num_images: int) -> None:
        subject = read_subject(folder, overrides)
        self.config = subject.config
        data = load_data(self.config.data)
        self.model = load_network(subject, data, torch.device("cpu"), "float32").model
        self.test = data.test
        self.images, self.labels = self.chosen(num_images)
        self.image_batches = self.images.split(BATCH_SIZE)
        self.label_batches = self.labels.split(BATCH_SIZE)

    def chosen(self, num_images: int) -> tuple[Tensor, Tensor]:
        """The images and labels that `mpiadv evaluate --samples` takes."""
        return self.test.batch(choose_samples(self.test.num_samples, num_images))

    def accuracy(self, images: Tensor, labels: Tensor) -> float:
        """Percent of the images that are classified as labelled."""
        with torch.no_grad():
            seen = torch.cat([self.model(part).argmax(dim=1) for part in images.split(BATCH_SIZE)])
        return 100 * float((seen == labels).double().mean())

    def starts(self, attack: str, norm: str, epsilon: float) -> Iterator[Tensor]:
        """Where `mpiadv evaluate` begins this attack, batch by batch."""
        (spec,) = read_attacks([attack], norm=norm, epsilon=epsilon, each_alone=False)
        for number, images in enumerate(self.image_batches):
            seed = seed_for(self.config.seed, Purpose.EVALUATION, number, spec.seed_key, 0)
            yield spec.attack.start(images, torch.Generator().manual_seed(seed))


def main() -> int:
    """Compare, print a table, return 0 if all agree."""
    options = _parser().parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    try:
        network = Network(options.folder, options.overrides, options.images)
    except UserError as error:
        print(f"attacks_agree.py: {error}", file=sys.stderr)
        return 2
    print("| attack | images | here, % | elsewhere, % | agree |")
    print("| --- | ---: | ---: | ---: | --- |")
    with frozen(network.model):
        agreed = [compare(network, options) for compare in (_pgd_linf, _pgd_l2, _auto_attack)]
    return 0 if all(agreed) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Compare attacks with other implementations on a trained network.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("folder", type=Path, metavar="RUN_FOLDER", help="a finished run")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as data.root=FOLDER")
    parser.add_argument("--images", type=int, default=1000, help="test images under PGD")
    parser.add_argument("--auto-images", type=int, default=200, help="under AutoAttack")
    parser.add_argument("--steps", type=int, default=40, help="steps of PGD")
    return parser


def _pgd_linf(network: Network, options: argparse.Namespace) -> bool:
    from foolbox.attacks import LinfPGD

    return _compare_pgd(network, options, "linf", network.config.attack.epsilon, LinfPGD)


def _pgd_l2(network: Network, options: argparse.Namespace) -> bool:
    from foolbox.attacks import L2PGD

    return _compare_pgd(network, options, "l2", L2_EPSILON, L2PGD)


def _compare_pgd(
    network: Network, options: argparse.Namespace, norm: str, epsilon: float, pgd: Any
) -> bool:
    import eagerpy
    from foolbox import PyTorchModel

    step = RELATIVE_STEP_SIZE * epsilon / options.steps
    words = f"pgd:norm={norm},epsilon={epsilon!r},steps={options.steps},step_size={step!r}"
    here = _evaluated(options, words, options.images, keep=False)
    starts = network.starts(words, norm, epsilon)

    class FromOurStart(pgd):  # type: ignore[misc]
        def get_random_start(self, x0: Any, epsilon: float) -> Any:
            return eagerpy.astensor(next(starts))

    attack = FromOurStart(abs_stepsize=step, steps=options.steps, random_start=True)
    classifier = PyTorchModel(network.model, bounds=(0, 1), device="cpu")
    crafted = [
        attack(classifier, images, labels, epsilons=epsilon)[1]
        for images, labels in zip(network.image_batches, network.label_batches, strict=True)
    ]
    there = network.accuracy(torch.cat(crafted), network.labels)
    agrees = abs(here.accuracy - there) <= POINTS
    _tell(f"PGD-{options.steps}, {norm} {epsilon:g}; foolbox", options.images, here, there, agrees)
    return agrees


def _auto_attack(network: Network, options: argparse.Namespace) -> bool:
    from pyautoattack import AutoAttack

    count = options.auto_images
    epsilon = network.config.attack.epsilon
    here = _evaluated(options, "autoattack", count, keep=True)
    spec = read_attacks(["autoattack"], norm="linf", epsilon=epsilon, each_alone=False)
    seed = seed_for(network.config.seed, Purpose.EVALUATION, 0, spec[0].seed_key, 0)
    direct = AutoAttack(network.model, norm="Linf", eps=epsilon, seed=seed, device="cpu")
    images, labels = network.chosen(count)
    chosen = choose_samples(network.test.num_samples, count).tolist()
    rows = {index: row for row, index in enumerate(chosen)}
    crafted, _ = direct.run_standard_evaluation(images, labels, batch_size=count)
    there = network.accuracy(crafted, labels)
    agrees = math.isclose(here.accuracy, there) and all(
        np.array_equal(image, crafted[rows[index]].numpy()) for index, image in here.broken.items()
    )
    _tell(f"AutoAttack, linf {epsilon:g}; pyautoattack, same bits", count, here, there, agrees)
    return agrees


class Evaluated:
    """What `mpiadv evaluate` found: accuracy in percent, and the images that it broke by index."""

    def __init__(self, folder: Path) -> None:
        report = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
        self.accuracy = float(report["worst_case"]["accuracy"])
        self.broken: dict[int, Any] = {}
        with h5py.File(folder / "evaluation.h5") as file:
            if "examples" in file and "images" in file["examples"]:
                group = file["examples"]
                self.broken = dict(zip(group["index"][:].tolist(), group["images"][:], strict=True))


def _evaluated(
    options: argparse.Namespace, attack: str, num_images: int, *, keep: bool
) -> Evaluated:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [
                sys.executable, "-m", "mpiadv", "evaluate", str(options.folder), *options.overrides,
                "--attack", attack, "--samples", str(num_images), "--no-probe",
                "--output", folder, *(["--save-examples"] if keep else []),
                f"evaluation.batch_size={min(num_images, BATCH_SIZE)}",
                f"training.threads={torch.get_num_threads()}",
            ],
            check=True,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        return Evaluated(Path(folder))


def _tell(attack: str, num_images: int, here: Evaluated, there: float, agrees: bool) -> None:
    words = "yes" if agrees else "NO"
    print(f"| {attack} | {num_images} | {here.accuracy:.2f} | {there:.2f} | {words} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
