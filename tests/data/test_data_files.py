"""Data sets in files: what is read is what is there, and damage is refused in one clear line."""

import hashlib
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from mpi_runner import REPOSITORY
from PIL import Image
from refusals import refusal

from mpiadv.contract.tickets import choose_samples
from mpiadv.data import DataSet, load_data, may_download
from mpiadv.settings import DataConfig

SHARED_DATA = REPOSITORY.parent / "shared" / "data"


def load(name: str, root: Path, **fields: Any) -> DataSet:
    return load_data(DataConfig(name=name, root=str(root), **{"download": False, **fields}))


def idx(array: npt.NDArray[np.uint8]) -> bytes:
    return struct.pack(f">{1 + array.ndim}I", 0x0800 + array.ndim, *array.shape) + array.tobytes()


def write_mnist(root: Path, name: str = "MNIST") -> Path:
    """Five training and three test images in MNIST's four files; returns their folder."""
    folder = root / name / "raw"
    folder.mkdir(parents=True)
    for prefix, number in (("train", 5), ("t10k", 3)):
        pixels = np.arange(number * 784).reshape(number, 28, 28) % 256
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(idx(pixels.astype(np.uint8)))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(np.arange(number, dtype=np.uint8)))
    return folder


def test_mnist_is_complete_and_in_its_files_order() -> None:
    if not (SHARED_DATA / "MNIST").is_dir():
        pytest.skip(f"no MNIST in {SHARED_DATA}")
    data = load("mnist", SHARED_DATA)
    assert (data.train.num_samples, data.test.num_samples) == (60_000, 10_000)
    assert data.train.batch(np.arange(8))[1].tolist() == [5, 0, 4, 1, 9, 2, 1, 3]
    from torchvision import datasets

    theirs = datasets.MNIST(str(SHARED_DATA), train=False)
    images, labels = data.test.batch(np.arange(10_000))
    assert torch.equal((images[:, 0] * 255).to(torch.uint8), theirs.data)
    assert torch.equal(labels, theirs.targets)


@pytest.mark.parametrize(
    ("name", "folder", "first_class"),
    [("mnist", "MNIST", "0 - zero"), ("fashion_mnist", "FashionMNIST", "T-shirt/top")],
    ids=["mnist", "fashion_mnist"],
)
def test_idx_files_are_read(name: str, folder: str, first_class: str, tmp_path: Path) -> None:
    write_mnist(tmp_path, folder)
    data = load(name, tmp_path)
    images, labels = data.train.batch(np.array([1]))
    assert torch.equal(images.flatten(), torch.arange(784, 2 * 784) % 256 / 255)
    assert (labels.tolist(), data.num_classes, data.image_shape) == ([1], 10, (1, 28, 28))
    assert data.class_names is not None
    assert data.class_names[0] == first_class


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def overwrite(path: Path) -> None:
    path.write_bytes(b"<html>404 not found</html>")


def spoil_label(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"\x0b")


def drop_sample(path: Path) -> None:
    path.write_bytes(idx(np.zeros(4, dtype=np.uint8)))


def no_sample(path: Path) -> None:
    path.write_bytes(idx(np.zeros(0, dtype=np.uint8)))


DAMAGES = [
    pytest.param(cut, "train-images-idx3-ubyte", "corrupt (3929 bytes): delete it", id="cut"),
    pytest.param(cut, "t10k-labels-idx1-ubyte", "(4 bytes)", id="cut_header"),
    pytest.param(lengthen, "t10k-images-idx3-ubyte", "(2369 bytes)", id="longer"),
    pytest.param(empty, "t10k-images-idx3-ubyte", "(0 bytes)", id="empty"),
    pytest.param(
        overwrite, "train-labels-idx1-ubyte", "is truncated or corrupt", id="other_content"
    ),
    pytest.param(spoil_label, "train-labels-idx1-ubyte", "it has 5 labels up to 11", id="label"),
    pytest.param(drop_sample, "train-labels-idx1-ubyte", "it has 4 labels", id="fewer_labels"),
    pytest.param(no_sample, "train-labels-idx1-ubyte", "corrupt (8 bytes)", id="no_labels"),
]


@pytest.mark.parametrize(("damage", "file", "expected"), DAMAGES)
def test_damaged_idx_file_is_named(
    damage: Callable[[Path], None], file: str, expected: str, tmp_path: Path
) -> None:
    path = write_mnist(tmp_path) / file
    damage(path)
    line = refusal(lambda: load("mnist", tmp_path))
    assert str(path) in line
    assert expected in line


ABSENT = [
    pytest.param("mnist", "MNIST/raw", id="mnist"),
    pytest.param("fashion_mnist", "FashionMNIST/raw", id="fashion_mnist"),
    pytest.param("cifar10", "cifar-10-batches-py", id="cifar10"),
]


@pytest.mark.parametrize(("name", "folder"), ABSENT)
def test_missing_files_are_not_downloaded_where_that_is_forbidden(
    name: str, folder: str, tmp_path: Path
) -> None:
    line = refusal(lambda: load(name, tmp_path))
    assert f"missing or incomplete in {tmp_path / folder}" in line
    assert "data.download=true" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "folder"), ABSENT)
def test_missing_files_without_a_network_are_refused(
    name: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision import datasets

    nowhere = "http://127.0.0.1:9/"
    monkeypatch.setenv("no_proxy", "*")
    for of_mnist in (datasets.MNIST, datasets.FashionMNIST):
        monkeypatch.setattr(of_mnist, "mirrors", [nowhere])
    monkeypatch.setattr(datasets.CIFAR10, "url", f"{nowhere}cifar.tar.gz")
    root = tmp_path / "new" / "place"
    line = refusal(lambda: load(name, root, download=True))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert may_download(DataConfig(name=name, root=str(root)))
    assert str(root / folder) in line
    assert "cannot be downloaded" in line
    assert "Connection refused" in line


@pytest.mark.parametrize(("name", "folder"), ABSENT)
def test_empty_folders_of_a_failed_download_count_as_missing(
    name: str, folder: str, tmp_path: Path
) -> None:
    (tmp_path / folder).mkdir(parents=True)
    line = refusal(lambda: load(name, tmp_path))
    assert f"missing or incomplete in {tmp_path / folder}" in line
    assert may_download(DataConfig(name=name, root=str(tmp_path)))


@pytest.mark.parametrize("name", ["mnist", "cifar10", "image_folder"])
def test_root_that_is_a_file_is_refused(name: str, tmp_path: Path) -> None:
    root = tmp_path / "archive.tar"
    root.touch()
    assert refusal(lambda: load(name, root)).startswith(f"data.root={root} is a file")


def test_only_what_may_be_downloaded_is_loaded_by_one_rank_first(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    names = ["mnist", "fashion_mnist", "digits", "image_folder", "mine:data", "no_such_set"]
    may = {name: may_download(DataConfig(name=name, root=str(tmp_path))) for name in names}
    assert [name for name in names if may[name]] == ["fashion_mnist", "mine:data"]


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two tiny batch files in CIFAR-10's form, with their checksums; returns their folder."""
    from torchvision.datasets import CIFAR10 as kind

    folder = tmp_path / kind.base_folder
    folder.mkdir()

    def write(file: str, content: dict[str, Any]) -> list[str]:
        data = pickle.dumps(content)
        (folder / file).write_bytes(data)
        return [file, hashlib.md5(data).hexdigest()]

    pixels = (np.arange(2 * 3072) % 251).astype(np.uint8).reshape(2, 3072)
    monkeypatch.setattr(kind, "train_list", [write("one", {"data": pixels, "labels": [3, 9]})])
    monkeypatch.setattr(kind, "test_list", [write("two", {"data": pixels[:1], "labels": [0]})])
    names, checksum = write("meta", {"label_names": list("abcdefghij")})
    meta = {"filename": names, "key": "label_names", "md5": checksum}
    monkeypatch.setattr(kind, "meta", meta)
    return folder


def test_cifar10_comes_as_channels_rows_and_columns(cifar: Path) -> None:
    data = load("cifar10", cifar.parent)
    images, labels = data.train.batch(np.array([1]))
    stored = torch.arange(3072, 2 * 3072) % 251 / 255
    assert torch.equal(images, stored.reshape(1, 3, 32, 32))
    assert labels.tolist() == [9]
    assert data.class_names == tuple("abcdefghij")


@pytest.mark.parametrize("file", ["one", "two", "meta"])
def test_damaged_cifar10_is_refused_naming_its_folder(cifar: Path, file: str) -> None:
    cut(cifar / file)
    line = refusal(lambda: load("cifar10", cifar.parent))
    assert f"the files in {cifar} are incomplete or corrupt" in line


SIZE = (10, 8)
"""Width and height of the pictures in the image folder."""


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two classes in two splits; the red level of a picture tells its class and number."""
    for split, number in (("train", 4), ("test", 2)):
        for label, name in enumerate(("cat", "dog")):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for count in range(number):
                colour = (100 * label + 10 * count, 0, 50)
                Image.new("RGB", SIZE, colour).save(folder / f"{count}.jpg", quality=100)
    return tmp_path


def test_image_folder_gives_every_picture_with_its_label(pictures: Path) -> None:
    data = load("image_folder", pictures)
    assert (data.image_shape, data.num_classes) == ((3, 8, 10), 2)
    assert data.class_names == ("cat", "dog")
    images, labels = data.train.batch(np.arange(8))
    red = (images[:, 0].mean(dim=(1, 2)) * 255).tolist()
    assert sorted(red) == pytest.approx([0, 10, 20, 30, 100, 110, 120, 130], abs=2)
    assert [int(level > 90) for level in red] == labels.tolist()


@pytest.mark.parametrize("name", ["image_folder", "mnist", "cifar10"])
def test_some_training_samples_are_the_chosen_ones(
    name: str, pictures: Path, cifar: Path, tmp_path: Path
) -> None:
    write_mnist(tmp_path)
    root, wanted = cifar.parent if name == "cifar10" else tmp_path, 1 if name == "cifar10" else 3
    whole, part = load(name, root).train, load(name, root, train_samples=wanted).train
    assert part.num_samples == wanted
    expected = whole.batch(choose_samples(whole.num_samples, wanted))
    for ours, theirs in zip(part.batch(np.arange(wanted)), expected, strict=True):
        assert torch.equal(ours, theirs)


def test_image_size_cuts_a_square_out_of_the_middle(pictures: Path) -> None:
    data = load("image_folder", pictures, arguments={"image_size": 4})
    assert data.image_shape == (3, 4, 4)
    assert data.test.batch(np.arange(4))[0].shape == (4, 3, 4, 4)


def remove_split(root: Path) -> None:
    (root / "test").rename(root / "validation")


def remove_class(root: Path) -> None:
    (root / "test" / "dog").rename(root / "dog")


def empty_class(root: Path) -> None:
    (root / "test" / "bird").mkdir()


FOLDER_DAMAGES = [
    pytest.param(remove_split, "test does not exist: expected one folder per class", id="split"),
    pytest.param(remove_class, "only one of them has dog", id="class"),
    pytest.param(empty_class, "has no image files for bird: remove the folder, or put", id="empty"),
]


@pytest.mark.parametrize(("damage", "expected"), FOLDER_DAMAGES)
def test_damaged_image_folder_is_refused(
    pictures: Path, damage: Callable[[Path], None], expected: str
) -> None:
    damage(pictures)
    assert expected in refusal(lambda: load("image_folder", pictures))


@pytest.mark.parametrize("image_size", [0, -3, "32", 2.5, True, 8193])
def test_image_size_that_is_no_number_of_pixels_is_refused(pictures: Path, image_size: Any) -> None:
    arguments = {"image_size": image_size}
    line = refusal(lambda: load("image_folder", pictures, arguments=arguments))
    assert line.startswith(f"data.arguments.image_size={image_size!r}: expected")


def enlarge(path: Path) -> None:
    Image.new("RGB", (16, 16)).save(path)


PICTURE_DAMAGES = [
    pytest.param(cut, "image file is truncated", id="cut"),
    pytest.param(empty, "cannot identify image file", id="empty"),
    pytest.param(overwrite, "cannot identify image file", id="other_content"),
    pytest.param(enlarge, "is 3x16x16, the first one 3x8x10: give all one size", id="size"),
]


@pytest.mark.parametrize(("damage", "expected"), PICTURE_DAMAGES)
def test_damaged_picture_is_named(
    pictures: Path, damage: Callable[[Path], None], expected: str
) -> None:
    data = load("image_folder", pictures)
    path = pictures / "test" / "dog" / "1.jpg"
    damage(path)
    line = refusal(lambda: data.test.batch(np.arange(4)))
    assert str(path) in line
    assert expected in line
