"""A page of what networks' gradients show, side by side: written for `mpiadv visualize`."""

import argparse
import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mpiadv.attacks import Attack
from mpiadv.contract.tickets import choose_samples
from mpiadv.data import DataSet, load_data
from mpiadv.evaluation.in_run import evaluation_attack
from mpiadv.evaluation.subject import Network, Subject, load_network, read_subject
from mpiadv.examination.features import Features, Pixels, features_of
from mpiadv.process.errors import UserError
from mpiadv.process.words import counted, shape_text
from mpiadv.report.drawing import PAGE_WIDTH_INCHES, Picture, style
from mpiadv.report.page import document, illustration
from mpiadv.report.writing import make_folder, require_writable, write_file
from mpiadv.work.device import choose_device, choose_threads, make_deterministic

PAGE = "visualization.html"
MOST_CLASSES = 10
"""That are shown from noise."""

_TITLE = "What the networks' gradients show"
_INTRODUCTION = (
    "A network's gradient says which pixels it would have changed. Of a network that was trained "
    "without attacks it looks like noise, and the changes that fool it mean nothing to people. Of "
    "a robust one it follows the strokes and edges of the image, the changes that fool it draw "
    "something of another class, and from noise it draws what it takes a class to look like "
    "(Tsipras et al. 2019, Engstrom et al. 2019). What looks right is no measure of robustness: "
    "that is what mpiadv evaluate is for."
)


def visualize(asked: argparse.Namespace) -> str:
    """Draw what a command line asks for; what there is to be told of it.

    Raises:
        UserError: bad input, or a file cannot be written.
    """
    folder = Path(asked.output)
    require_writable(folder / PAGE, asked.overwrite, parents=True)
    subjects = _subjects(asked)
    data = load_data(subjects[0].config.data)
    config = subjects[0].config
    device = choose_device(config.training.device, 0).torch
    make_deterministic(choose_threads(config.training.threads, 1))
    images, labels = _images(data, asked.images, device)
    attack = evaluation_attack(config)
    shown = {}
    for name, subject in _named(subjects).items():
        network = _loaded(subject, subjects[0], data, device)
        shown[name] = features_of(
            network.model, images, labels, attack, num_classes=min(MOST_CLASSES, data.num_classes),
            seed=config.seed, precision="float32",
        )  # fmt: skip
    with style():
        pictures = _pictures(images.cpu().numpy(), labels.tolist(), shown, data, attack)
        body = [f"<h1>{escape(_TITLE)}</h1>", f"<p>{escape(_INTRODUCTION)}</p>"]
        drawn: list[tuple[str, bytes]] = []
        body += [
            illustration("", each, lambda label, picture, png: drawn.append((picture.name, png)))
            for each in pictures
        ]
    files = {folder / f"{name}.png": png for name, png in drawn}
    make_folder(folder)
    for path in files:
        require_writable(path, overwrite=True)
    for path, png in files.items():
        write_file(path, png)
    write_file(folder / PAGE, document(_TITLE, "\n".join(body)).encode())
    count = counted(len(shown), "network")
    return f"{folder / PAGE}: {count}, {len(files)} figures, also as PNG beside it"


def _subjects(asked: argparse.Namespace) -> list[Subject]:
    is_setting = [("=" in word and not os.path.exists(word)) for word in asked.words]
    pairs = list(zip(asked.words, is_setting, strict=True))
    overrides = [word for word, setting in pairs if setting]
    paths = [Path(word) for word, setting in pairs if not setting]
    if not paths:
        raise UserError("visualize needs a network: a run's folder, or a file of weights (.pt)")
    return [read_subject(path, overrides, None if asked.trust_code else ()) for path in paths]


def _loaded(subject: Subject, first: Subject, data: DataSet, device: torch.device) -> Network:
    """A network, for the images of the first one."""
    try:
        return load_network(subject, data, device)
    except UserError as error:
        if subject is first:
            raise
        raise UserError(
            f"{subject.path} cannot be shown beside {first.path}, on whose images all are "
            f"({first.config.data.name}, {shape_text(data.image_shape)}): {error}"
        ) from error


def _named(subjects: Sequence[Subject]) -> dict[str, Subject]:
    """By a short name each; those that are called alike by their paths."""
    short = [subject.name for subject in subjects]
    return {
        name if short.count(name) == 1 else str(subject.path): subject
        for name, subject in zip(short, subjects, strict=True)
    }


def _images(data: DataSet, wanted: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """So many test images of as many classes as there are: float32 [N, C, H, W], int64 [N]."""
    some = choose_samples(data.test.num_samples, min(data.test.num_samples, 50 * wanted))
    _, labels = data.test.batch(some)
    seen: dict[int, list[int]] = {}
    for place, label in enumerate(labels.tolist()):
        seen.setdefault(label, []).append(place)
    in_turn = [
        places[turn] for turn in range(len(labels)) for _, places in sorted(seen.items())
        if turn < len(places)
    ]  # fmt: skip
    chosen = some[np.array(sorted(in_turn[:wanted], key=lambda place: int(labels[place])))]
    found, truth = data.test.batch(chosen)
    return found.to(device), truth.to(device)


def _pictures(
    images: Pixels,
    labels: Sequence[int],
    shown: Mapping[str, Features],
    data: DataSet,
    attack: Attack,
) -> list[Picture]:
    names, ball = data.names, f"{attack.norm} {attack.epsilon:.4g}"
    truth = [names[label] for label in labels]
    slopes = {"image": (images, truth)}
    broken = {"image": (images, truth)}
    for name, features in shown.items():
        slopes[name] = (_as_grey(features.slopes), [""] * len(labels))
        found = [names[label] if label >= 0 else "?" for label in features.found.tolist()]
        broken[name] = (features.adversarial, found)
        broken[f"{name}, change"] = (_as_grey(features.adversarial - images), [""] * len(labels))
    classes = {
        name: (features.classes, list(names[: len(features.classes)]))
        for name, features in shown.items()
    }
    return [
        Picture(
            name="gradients", title="Gradients at natural images", figure=_grid(slopes),
            caption="Each network's gradient of the cross-entropy by the pixels; grey is none. "
            "Look for the strokes and edges of the image above.",
        ),
        Picture(
            name="adversarial", title="Images under attack, and what was changed",
            figure=_grid(broken),
            caption=f"PGD of {attack.num_steps} steps in {ball}; above each image what the network "
            "takes it for, below it the change, enlarged so that its largest is black or white.",
        ),
        Picture(
            name="classes", title="Classes, climbed to from noise", figure=_grid(classes),
            caption="The same noise, moved in sparse steps until the network is sure that it is of "
            "the class above it.",
        ),
    ]  # fmt: skip


def _as_grey(changes: Pixels) -> Pixels:
    """Signed values as shades around grey, the largest of each image black or white."""
    largest = np.abs(changes).max(axis=(1, 2, 3), keepdims=True)
    return (0.5 + 0.5 * changes / np.where(largest > 0, largest, 1)).astype(np.float32)


def _grid(rows: Mapping[str, tuple[Pixels, Sequence[str]]]) -> Figure:
    """A row of images for each name, what is above each in its list."""
    columns = max(len(images) for images, _ in rows.values())
    height = 1.12 * len(rows) * PAGE_WIDTH_INCHES / max(columns, 5)
    figure = Figure(figsize=(PAGE_WIDTH_INCHES, height), layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for axes, (name, (images, titles)) in zip(grid, rows.items(), strict=True):
        for axis in axes:
            axis.set_xticks([])
            axis.set_yticks([])
            axis.grid(visible=False)
            for spine in axis.spines.values():
                spine.set_visible(False)
        axes[0].set_ylabel(name, fontsize=8)
        for axis, image, title in zip(axes, images, titles, strict=False):
            _show(axis, image, title)
    return figure


def _show(axis: Axes, image: Pixels, title: str) -> None:
    shown = image.transpose(1, 2, 0) if len(image) == 3 else image.mean(axis=0)
    axis.imshow(shown, cmap="gray", vmin=0, vmax=1)
    axis.set_title(title[:18], fontsize=8)
