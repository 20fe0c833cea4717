"""Which picture files lie in a folder, and in which class. Opens none of them."""

import filecmp
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mpiadv.contract.tickets import choose_samples
from mpiadv.data.source import TESTED_ON_TRAINING_IMAGES, spread_over
from mpiadv.process.errors import UserError, abridged

ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""Endings of picture files, in small or capital letters."""

_LAYOUT = "expected one folder per class there, with image files in it (see data.root)"

NUM_COMPARED = 32
"""Files of a split that are looked for in the other one."""


@dataclass(frozen=True, kw_only=True)
class PictureFile:
    """A picture file: its path from the split's folder on, its size in bytes and its label."""

    path: str
    num_bytes: int
    label: int


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The picture files of a split, in one shuffled order, and its classes."""

    folder: str
    files: list[PictureFile]
    class_names: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    """Files in class folders that do not end like pictures."""

    def path_of(self, index: int) -> str:
        return os.path.join(self.folder, self.files[index].path)

    def only(self, wanted: int | None) -> "Listing":
        """The same with so many of the files, by `choose_samples`; None: all."""
        chosen = choose_samples(len(self.files), wanted)
        return replace(self, files=[self.files[row] for row in chosen])

    @property
    def fingerprint(self) -> str:
        """Changes with names, sizes and classes; not with the place or the time of a copy."""
        told = hashlib.sha256("\0".join(self.class_names).encode(errors="surrogateescape"))
        for file in self.files:
            told.update(f"\0{file.path}\0{file.num_bytes}".encode(errors="surrogateescape"))
        return told.hexdigest()


def oddities(train: Listing, test: Listing) -> tuple[str, ...]:
    """What looks wrong with two splits, a line each."""
    lines = []
    for split, listing in (("train", train), ("test", test)):
        if listing.left_out:
            lines.append(
                f"{len(listing.left_out):,} of the files in {split} are left out, as they do not "
                f"end like pictures: {abridged(listing.left_out)}"
            )
    if _is_copy(test, train):
        lines.append(TESTED_ON_TRAINING_IMAGES)
    return tuple(lines)


def _is_copy(test: Listing, train: Listing) -> bool:
    """Whether a few files of one split are in the other one, by the same names."""
    sizes = {file.path: file.num_bytes for file in train.files}
    some = [test.files[row] for row in spread_over(len(test.files), NUM_COMPARED)]
    if any(sizes.get(file.path) != file.num_bytes for file in some):
        return False
    pairs = [(os.path.join(train.folder, f.path), os.path.join(test.folder, f.path)) for f in some]
    return all(os.path.samefile(*pair) or filecmp.cmp(*pair, shallow=False) for pair in pairs)


def list_pictures(folder: Path) -> Listing:
    """The files `folder/CLASS/**/*` with the ending of a picture.

    Names that begin with a dot are neither classes nor pictures.

    Raises:
        UserError: the folder, a class or a file is missing, empty, or cannot be read.
    """
    if not os.path.isdir(folder):
        raise UserError(f"image folder {folder} does not exist: {_LAYOUT}")
    try:
        names = sorted(each for each in _seen(os.listdir(folder)) if os.path.isdir(folder / each))
        found = [(path, label) for label, name in enumerate(names) for path in _walk(folder / name)]
    except OSError as error:
        raise UserError(f"image folder {error.filename}: {error.strerror}; {_LAYOUT}") from error
    if not names:
        raise UserError(f"image folder {folder} has no class folders: {_LAYOUT}")
    files = [
        PictureFile(
            path=path.removeprefix(f"{folder}{os.sep}"), num_bytes=_num_bytes(path), label=label
        )
        for path, label in found
        if _is_picture(path)
    ]
    _require_pictures(folder, names, files)
    # RandomState: its stream is frozen, that of numpy's newer generators may change.
    order = np.random.RandomState(0).permutation(len(files))
    return Listing(
        folder=str(folder),
        files=[files[row] for row in order],
        class_names=tuple(names),
        left_out=tuple(path for path, _ in found if not _is_picture(path)),
    )


def require_same_classes(root: Path, train: Sequence[str], test: Sequence[str]) -> None:
    """Refuse splits with different class folders."""
    different = sorted(set(train) ^ set(test))
    if different:
        raise UserError(
            f"{root}: train has {len(train)} class folders and test {len(test)}; only one of them "
            f"has {abridged(different)}: give both the same class folders"
        )


def _require_pictures(folder: Path, names: Sequence[str], files: Sequence[PictureFile]) -> None:
    labels = {file.label for file in files}
    bare = [name for label, name in enumerate(names) if label not in labels]
    if bare:
        raise UserError(
            f"image folder {folder} has no image files for {abridged(bare)}: remove the folder, "
            f"or put files there that end with {', '.join(ENDINGS)}"
        )
    empty = [file for file in files if file.num_bytes == 0]
    if empty:
        more = f" ({len(empty) - 1} more are)" if len(empty) > 1 else ""
        raise UserError(
            f"image {folder / empty[0].path} is empty, 0 bytes{more}: replace or remove the file"
        )


def _is_picture(path: str) -> bool:
    return path.lower().endswith(ENDINGS)


def _walk(folder: Path) -> Iterator[str]:
    """The files of a class, in the order of torchvision's ImageFolder; no link leads back."""

    def fail(error: OSError) -> None:
        raise error

    found = []
    for place, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        here = Path(os.path.realpath(place))
        folders[:] = [
            each
            for each in _seen(folders)
            if not here.is_relative_to(os.path.realpath(os.path.join(place, each)))
        ]
        found.append((place, sorted(_seen(names))))
    for place, names in sorted(found):
        yield from (os.path.join(place, name) for name in names)


def _seen(names: Iterable[str]) -> list[str]:
    return [name for name in names if not name.startswith(".")]


def _num_bytes(path: str) -> int:
    try:
        status = os.stat(path)
    except OSError as error:
        raise UserError(
            f"image {path}: {error.strerror}: remove it, or give what it links to"
        ) from error
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"image {path} is no file: remove it")
    return status.st_size
