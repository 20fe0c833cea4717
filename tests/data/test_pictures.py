"""Pictures in folders are taken as a viewer shows them; what is none is left out or named."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from mpiadv.data import DataSet, doubts_about, load_data, split_line
from mpiadv.data.pictures import read_picture
from mpiadv.process.errors import UserError, printable
from mpiadv.settings import DataConfig

LEVELS = np.arange(0, 240, 20, dtype=np.uint8).reshape(3, 4)
"""A grey picture of three rows and four columns."""

GREY = Image.fromarray(LEVELS)
AS_RGB = torch.from_numpy(LEVELS).expand(3, 3, 4) / 255

Save = Callable[[Path], Path]


def save(image: Image.Image, name: str, **options: object) -> Save:
    def saved(folder: Path) -> Path:
        image.save(folder / name, **options)
        return folder / name

    return saved


def _turned() -> Save:
    exif = Image.Exif()
    exif[0x0112] = 6
    return save(GREY.convert("RGB").rotate(90, expand=True), "a.png", exif=exif)


def _with_alpha(mode: str) -> Image.Image:
    image = GREY.convert(mode)
    image.putalpha(200)
    return image


def _palette() -> Image.Image:
    image = GREY.convert("P")
    image.info["transparency"] = bytes([0, 128, 255])
    return image


TAKEN: dict[str, Save] = {
    "grey": save(GREY, "a.png"),
    "colour": save(GREY.convert("RGB"), "a.png"),
    "capital_letters": save(GREY.convert("RGB"), "A.PNG"),
    "16_bits": save(Image.fromarray(LEVELS.astype(np.uint16) * 257), "a.png"),
    "16_bits_tiff": save(Image.fromarray(LEVELS.astype(np.uint16) * 257), "a.tif"),
    "floats": save(Image.fromarray(LEVELS.astype(np.float32) / 255), "a.tif"),
    "turned": _turned(),
    "alpha": save(_with_alpha("RGB"), "a.png"),
    "grey_alpha": save(_with_alpha("L"), "a.png"),
    "palette": save(_palette(), "a.png", transparency=bytes([0, 128, 255])),
    "animated": save(GREY, "a.webp", save_all=True, append_images=[Image.new("L", (4, 3))],
                     lossless=True),
    "other_content_than_its_ending": save(GREY, "a.png", format="GIF"),
}  # fmt: skip


@pytest.mark.parametrize("saved", TAKEN.values(), ids=TAKEN)
def test_picture_is_what_a_viewer_shows(
    saved: Save, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    pixels = read_picture(str(saved(tmp_path)), None)
    unit = pixels / 255 if pixels.dtype == torch.uint8 else pixels
    assert unit.dtype == torch.float32
    torch.testing.assert_close(unit, AS_RGB, atol=1e-6, rtol=0)
    assert not recwarn.list


def test_picture_of_one_bit_is_black_and_white(tmp_path: Path) -> None:
    bits = Image.fromarray(LEVELS > 100)
    path = save(bits, "a.png")(tmp_path)
    assert set(read_picture(str(path), None).unique().tolist()) == {0, 255}


def test_inks_become_colours(tmp_path: Path) -> None:
    path = save(GREY.convert("RGB").convert("CMYK"), "a.tif")(tmp_path)
    assert torch.equal(read_picture(str(path), None) / 255, AS_RGB)


@pytest.mark.parametrize("kind", ["16_bits", "floats", "grey"])
def test_deep_pictures_are_resized_like_others(kind: str, tmp_path: Path) -> None:
    pixels = read_picture(str(TAKEN[kind](tmp_path)), 2)
    unit = pixels / 255 if pixels.dtype == torch.uint8 else pixels
    expected = read_picture(str(save(GREY.convert("RGB"), "b.png")(tmp_path)), 2) / 255
    assert unit.shape == (3, 2, 2)
    torch.testing.assert_close(unit, expected, atol=2 / 255, rtol=0)


REFUSED: dict[str, tuple[Save, str]] = {
    "bright_floats": (
        save(Image.fromarray(LEVELS.astype(np.float32)), "a.tif"),
        "float pixels from 0 to 220, expected [0, 1]: scale them",
    ),
    "no_numbers": (
        save(Image.fromarray(np.full((3, 4), np.nan, np.float32)), "a.tif"),
        "float pixels from nan to nan, expected [0, 1]",
    ),
    "32_bits": (
        save(Image.fromarray(LEVELS.astype(np.int32)), "a.tif"),
        "holds whole numbers of 32 bits, or with a sign",
    ),
    "missing": (lambda folder: folder / "a.png", "a.png cannot be read: No such file"),
}


@pytest.mark.parametrize(("saved", "expected"), REFUSED.values(), ids=REFUSED)
def test_picture_that_nobody_can_know_is_refused(
    saved: Save, expected: str, tmp_path: Path
) -> None:
    path = saved(tmp_path)
    with pytest.raises(UserError) as caught:
        read_picture(str(path), None)
    assert f"image {path}" in str(caught.value)
    assert expected in str(caught.value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes in two splits of pictures that differ."""
    for split in ("train", "test"):
        for label, name in enumerate(("cat", "dog")):
            place = tmp_path / split / name
            place.mkdir(parents=True)
            for number in range(3):
                level = 60 * label + 10 * number + 40 * (split == "test")
                pixels = np.full((3, 4, 3), level, np.uint8)
                pixels[0, 0] = 255
                Image.fromarray(pixels).save(place / f"{number}.png")
    return tmp_path


def load(root: Path, **fields: object) -> DataSet:
    config = DataConfig.model_validate({"name": "image_folder", "root": str(root), **fields})
    return load_data(config)


def everything(data: DataSet) -> tuple[Tensor, Tensor]:
    return data.train.batch(np.arange(data.train.num_samples))


def hide_a_file(root: Path) -> None:
    (root / "train" / "cat" / "._0.png").write_bytes(b"\0\5\x16\7")


def hide_a_class(root: Path) -> None:
    (root / "train" / ".ipynb_checkpoints").mkdir()
    shutil.copy(root / "train" / "cat" / "0.png", root / "train" / ".ipynb_checkpoints")


def hide_a_folder(root: Path) -> None:
    (root / "train" / "cat" / ".thumbs").mkdir()
    shutil.copy(root / "train" / "cat" / "0.png", root / "train" / "cat" / ".thumbs")


def add_notes(root: Path) -> None:
    (root / "train" / "cat" / "notes.txt").write_text("a cat")
    (root / "train" / "labels.csv").write_text("0")


LEFT_OUT = [hide_a_file, hide_a_class, hide_a_folder, add_notes]


@pytest.mark.parametrize("add", LEFT_OUT, ids=lambda add: add.__name__)
def test_what_is_hidden_or_no_picture_is_left_out(
    add: Callable[[Path], None], folder: Path
) -> None:
    before = load(folder)
    images, labels = everything(before)
    add(folder)
    after = load(folder)
    assert after.class_names == ("cat", "dog")
    assert torch.equal(everything(after)[0], images)
    assert torch.equal(everything(after)[1], labels)
    assert after.train.fingerprint == before.train.fingerprint


def test_links_that_lead_back_end_there(folder: Path) -> None:
    (folder / "elsewhere").mkdir()
    shutil.move(folder / "train" / "dog", folder / "elsewhere" / "dog")
    (folder / "train" / "dog").symlink_to(folder / "elsewhere" / "dog")
    images = everything(load(folder))[0]
    (folder / "train" / "cat" / "again").symlink_to(folder / "train" / "cat")
    (folder / "train" / "dog" / "up").symlink_to(folder / "elsewhere")
    assert torch.equal(everything(load(folder))[0], images)


def empty_file(root: Path) -> str:
    (root / "test" / "dog" / "1.png").write_bytes(b"")
    return "test/dog/1.png is empty, 0 bytes: replace or remove the file"


def empty_class(root: Path) -> str:
    (root / "train" / "bird").mkdir()
    return "has no image files for bird: remove the folder"


def broken_link(root: Path) -> str:
    (root / "train" / "cat" / "9.png").symlink_to(root / "none.png")
    return "train/cat/9.png: No such file or directory: remove it, or give what it links to"


def pipe(root: Path) -> str:
    os.mkfifo(root / "train" / "cat" / "9.png")
    return "train/cat/9.png is no file: remove it"


def flat(root: Path) -> str:
    for split in ("train", "test"):
        for place in (root / split).iterdir():
            shutil.move(place / "0.png", root / split / f"{place.name}.png")
            shutil.rmtree(place)
    return "train has no class folders: expected one folder per class there"


FAULTS = [empty_file, empty_class, broken_link, pipe, flat]


@pytest.mark.parametrize("spoil", FAULTS, ids=lambda spoil: spoil.__name__)
def test_fault_of_a_folder_is_named_before_anything_is_decoded(
    spoil: Callable[[Path], str], folder: Path
) -> None:
    expected = spoil(folder)
    with pytest.raises(UserError) as caught:
        load(folder)
    assert expected in str(caught.value)


def test_name_of_a_damaged_file_leaves_the_terminal_as_it_is(folder: Path) -> None:
    (folder / "train" / "cat" / "a\n\x1b[31m.png").write_bytes(b"no picture")
    with pytest.raises(UserError) as caught:
        everything(load(folder))
    assert r"cat/a\n\x1b[31m.png" in printable(str(caught.value))


def rename(root: Path) -> None:
    (root / "train" / "cat" / "0.png").rename(root / "train" / "cat" / "7.png")


def remove(root: Path) -> None:
    (root / "train" / "cat" / "0.png").unlink()


def replace(root: Path) -> None:
    Image.new("RGB", (4, 3)).save(root / "train" / "cat" / "0.png", compress_level=0)


def rename_class(root: Path) -> None:
    for split in ("train", "test"):
        (root / split / "dog").rename(root / split / "wolf")


def touch(root: Path) -> None:
    os.utime(root / "train" / "cat" / "0.png", (0, 0))


CHANGES = [(rename, True), (remove, True), (replace, True), (rename_class, True), (touch, False)]


@pytest.mark.parametrize(("change", "is_told"), CHANGES, ids=lambda it: getattr(it, "__name__", ""))
def test_fingerprint_tells_files_but_not_their_dates(
    change: Callable[[Path], None], is_told: bool, folder: Path
) -> None:
    before = load(folder).train.fingerprint
    change(folder)
    assert (load(folder).train.fingerprint != before) == is_told


def test_fingerprint_of_a_copy_elsewhere_is_the_same(folder: Path) -> None:
    for split in ("train", "test"):
        shutil.copytree(folder / split, folder / "copy" / split)
    ours, copied = load(folder), load(folder / "copy")
    assert ours.train.fingerprint == copied.train.fingerprint
    assert ours.test.fingerprint == copied.test.fingerprint != ours.train.fingerprint


def test_part_of_a_folder_has_another_fingerprint(folder: Path) -> None:
    assert load(folder, train_samples=4).train.fingerprint != load(folder).train.fingerprint


def test_pictures_and_classes_are_counted(folder: Path) -> None:
    data = load(folder)
    assert split_line("train", data.train, data) == "train: 6 images in 2 classes (cat: 3, dog: 3)"
    assert doubts_about(data) == []


def test_files_that_do_not_end_like_pictures_are_told_of(folder: Path) -> None:
    add_notes(folder)
    GREY.save(folder / "train" / "dog" / "b.gif")
    (told,) = doubts_about(load(folder))
    assert told == (
        "2 of the files in train are left out, as they do not end like pictures: "
        f"{folder}/train/cat/notes.txt, {folder}/train/dog/b.gif"
    )


@pytest.mark.parametrize("is_link", [True, False], ids=["link", "copy"])
def test_test_images_that_are_training_images_are_told_of(folder: Path, is_link: bool) -> None:
    shutil.rmtree(folder / "test")
    if is_link:
        (folder / "test").symlink_to(folder / "train")
    else:
        shutil.copytree(folder / "train", folder / "test")
        (folder / "test" / "cat" / "0.png").unlink()
    (told,) = doubts_about(load(folder))
    assert told.startswith("every test image is a training image too")


def test_test_images_with_names_and_sizes_of_training_images_are_not(folder: Path) -> None:
    for path in folder.rglob("*.png"):
        Image.open(path).convert("RGB").save(path.with_suffix(".bmp"))
        path.unlink()
    assert doubts_about(load(folder)) == []


def test_16_bits_with_small_numbers_are_doubted(folder: Path) -> None:
    for path in folder.rglob("*.png"):
        deep = np.asarray(Image.open(path)).max(axis=2).astype(np.uint16)
        Image.fromarray(deep).save(path)
    (doubt,) = doubts_about(load(folder))
    assert doubt.startswith(
        "the brightest pixel of 6 training images is 0.00389 of white: bytes are "
    )
