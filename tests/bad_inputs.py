"""What is wrong to the command line, and the line that each of it gives."""

import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from launching import words_of

Words = Callable[[Path], list[str]]


def _with(**settings: Any) -> Words:
    return lambda folder: words_of(folder / "new", **settings)


def _file(text: str | bytes) -> Words:
    """A run with a configuration file of this content."""

    def words(folder: Path) -> list[str]:
        path = folder / "given.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return [str(path), f"output={folder / 'new'}"]

    return words


def _line(*words: str) -> Words:
    return lambda folder: [*words_of(folder / "new"), *words]


def _output(path: str, **settings: Any) -> Words:
    return lambda folder: words_of(folder / path, **settings)


def _mnist(file: str, num_bytes: int | None = None) -> Words:
    """A run on ten images of MNIST's format, one file of which is cut off, or missing."""

    def words(folder: Path) -> list[str]:
        raw = folder / "MNIST" / "raw"
        shutil.rmtree(raw, ignore_errors=True)
        raw.mkdir(parents=True)
        for prefix in ("train", "t10k"):
            images = struct.pack(">4I", 0x803, 10, 28, 28) + bytes(10 * 28 * 28)
            (raw / f"{prefix}-images-idx3-ubyte").write_bytes(images)
            (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(
                struct.pack(">2I", 0x801, 10) + bytes(range(10))
            )
        if num_bytes is None:
            (raw / file).unlink()
        else:
            (raw / file).write_bytes((raw / file).read_bytes()[:num_bytes])
        settings = {"data__name": "mnist", "data__root": folder, "data__download": "false"}
        return words_of(folder / "new", **settings, model__name="mnist")

    return words


def _model(name: str, **settings: Any) -> Words:
    return _with(model__name=name, **settings)


FIRST_IMAGES = "given 2 images of 1x4x4"

CASES: dict[str, tuple[Words, str]] = {
    "unknown_section": (
        _with(trainin__num_steps=3),
        "unknown setting trainin: the nearest known one is training",
    ),
    "abbreviated_option": (
        _line("--resum"),
        "unrecognized arguments: --resum: did you mean --resume? See mpiadv --help",
    ),
    "unknown_key": (
        _with(training__nmu_steps=3),
        "unknown setting training.nmu_steps: the nearest known one is training.num_steps",
    ),
    "section_as_value": (
        lambda folder: ["training=3", f"output={folder / 'new'}"],
        "training=3: expected a section of settings, not one value",
    ),
    "wrong_type": (
        _with(training__num_steps="many"),
        "training.num_steps='many': expected a whole number",
    ),
    "out_of_range": (
        _with(attack__epsilon=-1),
        "attack.epsilon=-1: input should be greater than or equal to 0",
    ),
    "radius_in_bytes": (
        _with(attack__epsilon=8),
        "attack.epsilon=8: pixels are in [[]0, 1]: is 8/255 meant?",
    ),
    "radius_of_all_images": (
        _with(attack__norm="l2", attack__epsilon=4),
        "attack.epsilon=4 reaches every image from every other: those of 16 pixels in *",
    ),
    "setting_given_twice": (_line("seed=1", "seed=2"), "'seed=1' and 'seed=2' set the same: *"),
    "not_a_number": (
        _with(attack__epsilon=".nan"),
        "attack.epsilon=nan: input should be a finite number",
    ),
    "none_of_the_choices": (
        _with(attack__norm="l3"),
        "attack.norm='l3': input should be 'linf', 'l2' or 'l1'",
    ),
    "impossible_staleness": (
        _with(staleness__publish_every=100),
        "publish_every=100 cannot hold final_staleness=2: use publish_every <= 3 or "
        "final_staleness >= 99 and max_staleness >= 99",
    ),
    "final_above_max_staleness": (
        _with(staleness__final_staleness=20),
        "final_staleness=20 exceeds max_staleness=16: use final_staleness <= 16 or "
        "max_staleness >= 20",
    ),
    "no_such_file": (
        lambda folder: [str(folder / "none.yaml")],
        "cannot read configuration */none.yaml: No such file or directory",
    ),
    "file_is_a_folder": (
        lambda folder: [str(folder)],
        "cannot read configuration *: Is a directory, expected a YAML file; to go on with a run, "
        "repeat its words and add --resume",
    ),
    "malformed_file": (
        _file("training: [1,\n b: 3"),
        "*/given.yaml is not valid YAML: line 2, column 6: expected ',' or ']', but got *",
    ),
    "file_of_bytes": (_file(b"\xff\xfe\0"), "*/given.yaml is not valid YAML: 'utf-8' codec *"),
    "file_without_settings": (
        _file("- 3"),
        "*/given.yaml: expected a mapping of settings, found list",
    ),
    "override_without_value": (
        _line("seed"),
        "override 'seed': expected key.subkey=value; a configuration file comes first",
    ),
    "override_of_a_value": (
        _line("seed.x=3"),
        "seed={'x': 3}: expected a whole number",
    ),
    "override_malformed": (
        _line("seed=[3"),
        "override 'seed=[3': '[3' is not a valid YAML value: line 1, column 3: *",
    ),
    "unknown_option": (_line("--fast"), "unrecognized arguments: --fast: see mpiadv --help"),
    "no_gpu": (
        _with(training__device="cuda"),
        "training.device=cuda, but no GPU is visible: use training.device=cpu, or check *",
    ),
    "unknown_data_set": (
        _with(data__name="mnits"),
        "unknown data set 'mnits': did you mean 'mnist'? Known: cifar10, *",
    ),
    "missing_data_set": (
        _mnist("train-images-idx3-ubyte"),
        "data set 'mnist' is missing or incomplete in */MNIST/raw: set data.root to *, or allow "
        "the download with data.download=true",
    ),
    "truncated_images": (
        _mnist("train-images-idx3-ubyte", 5000),
        "*/train-images-idx3-ubyte is truncated or corrupt (5000 bytes): delete it, and *",
    ),
    "truncated_labels": (
        _mnist("t10k-labels-idx1-ubyte", 12),
        "*/t10k-labels-idx1-ubyte is truncated or corrupt (12 bytes): delete it, and *",
    ),
    "label_outside": (
        _with(data__name="bad_parts:labels_outside", data__arguments="{num_classes: 2}"),
        "data set 'bad_parts:labels_outside', split 'train', index 2: label 2 is outside 0..1: "
        "correct the label, or the number of classes (2)",
    ),
    "pixels_outside": (
        _with(data__name="bad_parts:bright_images"),
        "data set 'bad_parts:bright_images', split 'train', index 0: pixels from *, expected "
        "[[]0, 1]: scale them, and leave normalisation to model.mean and model.std",
    ),
    "pixels_not_numbers": (
        _with(data__name="bad_parts:images_not_a_number"),
        "data set 'bad_parts:images_not_a_number', split 'train', index 0: pixels from nan to "
        "nan, expected *",
    ),
    "no_samples": (
        _with(data__name="bad_parts:no_images"),
        "data set 'bad_parts:no_images', split 'train': * with at least one image",
    ),
    "data_set_raises": (
        _with(data__name="bad_parts:unreadable_images"),
        "data set 'bad_parts:unreadable_images', split 'train': OSError: no such tape: train "
        "(at bad_parts.py:*)",
    ),
    "images_that_change": (
        _with(data__name="bad_parts:ImagesAnew"),
        "data set 'bad_parts:ImagesAnew', split 'train': has other samples when it is read again, "
        "or *: leave augmentation to data.crop_padding and data.flip, and seed whatever else *",
    ),
    "images_that_differ_between_ranks": (
        _with(data__name="bad_parts:images_of_a_rank"),
        "data set 'bad_parts:images_of_a_rank', split 'train': rank 1 on * has other samples than "
        "rank 0 on *: all need the same, seed whatever is random in its function",
    ),
    "padding_too_large": (
        _with(data__crop_padding=4),
        "data.crop_padding=4 is too much for images of 1x4x4: crops may miss the whole image, use "
        "at most 3",
    ),
    "batch_too_large": (
        _with(data__batch_size=1000),
        "batch_size=1000 does not fit 24 training samples: use 1 <= batch_size <= 24",
    ),
    "wrong_image_size": (
        _model("mnist"),
        "model 'mnist' takes images of 1x28x28, but the data set has images of 1x4x4: set "
        "model.name or data.name so that they match",
    ),
    "wrong_channels": (
        _model("torchvision:resnet18"),
        f"model ResNet, {FIRST_IMAGES}, fails: RuntimeError: *to have 3 channels*",
    ),
    "unknown_model": (
        _model("digist"),
        "unknown model 'digist': did you mean 'digits'? Known: digits, *",
    ),
    "missing_module": (
        _model("none_such:model"),
        "model 'none_such:model': cannot import 'none_such': ModuleNotFoundError: No module *",
    ),
    "missing_function": (
        _model("bad_parts:none_such"),
        "model 'bad_parts:none_such': module 'bad_parts' has no function 'none_such'",
    ),
    "no_function": (
        _model("bad_parts:NUM_CLASSES"),
        "model 'bad_parts:NUM_CLASSES': module 'bad_parts' has no function 'NUM_CLASSES'",
    ),
    "model_raises_when_built": (
        _model("bad_parts:raises_when_built"),
        "model 'bad_parts:raises_when_built' cannot be built with num_classes=3, image_shape="
        "(1, 4, 4) and arguments {}: ValueError: no weights in the cupboard (at bad_parts.py:*)",
    ),
    "model_raises_in_forward": (
        _model("bad_parts:RaisesInForward"),
        f"model RaisesInForward, {FIRST_IMAGES}, fails: RuntimeError: the cupboard is bare "
        "(at bad_parts.py:*)",
    ),
    "model_refuses_arguments": (
        _model("bad_parts:small", model__arguments="{depth: 3}"),
        "model 'bad_parts:small' cannot be built with * and arguments {'depth': 3}: TypeError: *",
    ),
    "model_is_none": (
        _model("bad_parts:returns_a_number"),
        "model 'bad_parts:returns_a_number' returned int, expected a torch.nn.Module",
    ),
    "model_reads_unwritten_memory": (
        _model("bad_parts:ReadsUnwritten"),
        f"model ReadsUnwritten, {FIRST_IMAGES}, returns logits that are not finite",
    ),
    "too_few_logits": (
        _model("bad_parts:too_few_logits"),
        f"model Sequential, {FIRST_IMAGES}, returns a tensor of shape [[]2, 2], expected logits "
        "[[]2, 3]: one row per image, one column per class of the data set",
    ),
    "model_without_parameters": (
        _model("bad_parts:without_parameters"),
        "model Sequential has no parameters: there is nothing to train",
    ),
    "folder_holds_another_run": (
        _output("finished"),
        "*/finished holds a finished run: choose another folder with output=FOLDER",
    ),
    "folder_in_use": (
        _output("used"),
        "output folder */used is in use by another run (process * on host *): wait for it, stop "
        "it, or choose another folder with output=FOLDER",
    ),
    "folder_is_a_file": (
        _output("finished/log.h5"),
        "output folder */finished/log.h5 is a file: choose another folder with output=FOLDER",
    ),
    "folder_under_a_file": (
        _output("finished/log.h5/new"),
        "cannot create output folder */log.h5/new: Not a directory: choose another folder *",
    ),
    "folder_not_writable": (
        _output("/proc/new"),
        "cannot create output folder /proc/new: *: choose another folder with output=FOLDER",
    ),
}
"""What is wrong to the command line, made in a folder, and the line that it gives (fnmatch)."""
