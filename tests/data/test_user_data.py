"""Users' own data sets are taken in every documented form, and refused with the place at fault."""

from typing import Any

import numpy as np
import pytest
import torch
import users_sets
from refusals import refusal
from torch import Tensor

import mpiadv.data.user
from mpiadv.data import DataSet, load_data
from mpiadv.process.errors import UserError
from mpiadv.settings import DataConfig

MODULE = users_sets.__name__


def load(function: str, **fields: Any) -> DataSet:
    return load_data(DataConfig(name=f"{MODULE}:{function}", **fields))


def expected_images() -> Tensor:
    return torch.arange(6 * 12).reshape(6, 1, 3, 4) / 255


FORMS = [
    "pair_of_bytes", "pair_of_floats", "byte_samples", "float_samples", "picture_samples",
    "tensor_data_set", "arrays", "by_pixel",
]  # fmt: skip


@pytest.mark.parametrize("in_memory", [True, False], ids=["in_memory", "lazy"])
@pytest.mark.parametrize("form", FORMS)
def test_every_documented_form_gives_the_same_batches(
    form: str, in_memory: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not in_memory:
        monkeypatch.setattr(mpiadv.data.user, "MAX_MEMORY_BYTES", 0)
    needed = {} if in_memory else {"arguments": {"num_classes": 3}}
    data = load(form, **needed)
    images, labels = data.train.batch(np.arange(6))
    assert (data.num_classes, data.image_shape, images.dtype) == (3, (1, 3, 4), torch.float32)
    assert torch.equal(images, expected_images())
    assert images.stride() == expected_images().stride()
    assert labels.tolist() == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize(
    ("function", "arguments", "num_classes"),
    [
        ("byte_samples", {}, 3),
        ("named", {}, 4),
        ("counted", {}, 5),
        ("counted", {"num_classes": 7}, 7),
        ("told", {"num_classes": 3, "scale": 2}, 3),
    ],
    ids=["largest_label", "classes", "num_classes", "argument", "argument_of_the_function"],
)
def test_number_of_classes_is_the_one_said(
    function: str, arguments: dict[str, Any], num_classes: int
) -> None:
    assert load(function, arguments=arguments).num_classes == num_classes


def test_class_names_are_those_of_the_data_set() -> None:
    assert load("named").class_names == ("a", "b", "c", "d")


def test_function_receives_root_and_split() -> None:
    assert load("rooted", root="somewhere").test.num_samples == 6


@pytest.mark.parametrize("form", ["pair_of_bytes", "byte_samples"])
def test_train_samples_shortens_a_users_training_split(form: str) -> None:
    data = load(form, train_samples=2)
    assert (data.train.num_samples, data.test.num_samples) == (2, 6)
    assert data.num_classes == 3


AGAIN = "split 'train': has other samples when it is read again, or its function called, as every"

REFUSED = [
    ("fails", "split 'train': OSError: no disk (at users_sets.py:"),
    ("missing", "has no function 'missing'"),
    ("none", "the function returned NoneType, expected a data set with"),
    ("no_samples", "has no samples"),
    ("fails_at_two", "split 'train', index 2: KeyError: 'gone' (at users_sets.py:"),
    ("three_values", "split 'test', index 4: sample is a tuple of 3, expected (image, label)"),
    ("text_image", "index 4: image is str, expected a uint8 or float tensor"),
    ("flat_image", "index 4: image is uint8 [3, 4], expected a uint8 or float tensor [C, H, W]"),
    ("whole_numbers", "index 4: image is int64 [1, 3, 4], expected"),
    ("other_shape", "index 4: image is uint8 [1, 2, 4], the first one uint8 [1, 3, 4]"),
    ("float_label", "index 4: label is 1.5, expected a whole number"),
    ("negative_label", "split 'train', index 4: label -1 is outside 0..2"),
    ("deep_picture", "index 4: PIL image has mode 'F', expected one of"),
    ("normalised", "split 'test', index 0: pixels from -0.2 to"),
    ("not_a_number", "split 'train', index 3: pixels from nan to nan, expected [0, 1]"),
    ("bright_sample", "split 'train', index 0: pixels from 0 to 11, expected [0, 1]"),
    ("three_dimensions", "with at least one image: give images[:, None]"),
    ("one_hot", "labels are float32 [6, 3], expected one whole number per image: an integer"),
    ("one_hot", "tensor [6]: give labels.argmax(1)"),
    ("column", "labels are int64 [6, 1], expected one whole number per image: an integer tensor"),
    ("column", "[6]: give labels[:, 0]"),
    ("objects", "holds <U5 [1], expected tensors"),
    ("anew", AGAIN),
    ("other_label_anew", AGAIN),
    ("scales_in_place", AGAIN),
    ("shuffled_pair", AGAIN),
    ("shuffled_samples", AGAIN),
    ("longer_each_time", "and seed whatever else is random"),
    ("short_labels", "labels are int64 [5], expected one whole number per image"),
    ("float_labels", "labels are float32 [6], expected one whole number per image"),
    ("shapes_differ", "split 'train' are 1x3x4, of split 'test' 1x3x2"),
]


@pytest.mark.parametrize(("function", "expected"), REFUSED, ids=[name for name, _ in REFUSED])
def test_wrong_set_is_refused_with_the_place_at_fault(function: str, expected: str) -> None:
    line = refusal(lambda: load(function))
    assert f"data set '{MODULE}:{function}'" in line
    assert expected in line


def test_function_that_may_be_called_once_alone_is_taken() -> None:
    assert load("callable_once").train.num_samples == 6


@pytest.mark.parametrize("name", ["builtins:dict", "torch:rand"])
def test_function_whose_arguments_cannot_be_known_is_called_all_the_same(name: str) -> None:
    line = refusal(lambda: load_data(DataConfig(name=name)))
    assert line.startswith(f"data set '{name}', split 'train'")


def test_label_beyond_the_stated_classes_is_refused() -> None:
    line = refusal(lambda: load("byte_samples", arguments={"num_classes": 2}))
    assert "split 'train', index 2: label 2 is outside 0..1" in line


@pytest.mark.parametrize("number", [0, -1, "three", 2.5])
def test_number_of_classes_that_is_none_is_refused(number: Any) -> None:
    line = refusal(lambda: load("byte_samples", arguments={"num_classes": number}))
    assert f"num_classes={number!r}, expected a whole number above 0" in line


def test_argument_that_the_function_does_not_take_is_refused() -> None:
    line = refusal(lambda: load("byte_samples", arguments={"colour": "red"}))
    assert "unexpected keyword argument 'colour'" in line


@pytest.mark.parametrize("name", ["root", "split"])
def test_argument_that_the_function_is_given_anyway_is_refused(name: str) -> None:
    line = refusal(lambda: load("byte_samples", arguments={name: "here"}))
    assert f"multiple values for keyword argument '{name}'" in line


@pytest.mark.parametrize(
    ("function", "index", "expected"),
    [
        ("other_shape", 4, "index 4: image is uint8 [1, 2, 4]"),
        ("float_label", 4, "index 4: label is 1.5"),
        ("byte_samples", 2, "index 2: label 2 is outside 0..1"),
    ],
    ids=["shape", "label_type", "label_range"],
)
def test_sample_of_a_large_set_is_refused_when_it_is_read(
    function: str, index: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mpiadv.data.user, "MAX_MEMORY_BYTES", 0)
    monkeypatch.setattr(mpiadv.data.user, "NUM_READ_TWICE", 1)
    data = load(function, arguments={"num_classes": 2})
    assert expected in refusal(lambda: data.test.batch(np.array([index])))


def read_together(data: DataSet) -> list[int]:
    """Labels of the test images, read while training images are read ahead."""
    rows = np.arange(6)
    for urgency in range(5):
        data.train.prefetch(rows[urgency:], urgency=urgency)
    return [*data.test.batch(rows)[1].tolist(), *data.train.batch(rows[2:])[1].tolist()]


def test_users_code_runs_in_one_thread_and_mixes_up_no_samples(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mpiadv.data.user, "MAX_MEMORY_BYTES", 0)
    threads = users_sets.THREADS
    threads.clear()
    data = load("shared_file", arguments={"num_classes": 3})
    assert read_together(data) == [0, 1, 2, 0, 1, 2, 2, 0, 1, 2]
    assert len(threads) == 1


def test_users_code_runs_in_as_many_threads_as_are_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mpiadv.data.user, "MAX_MEMORY_BYTES", 0)
    threads = users_sets.THREADS
    threads.clear()
    read_together(load("own_file", arguments={"num_classes": 3}, num_workers=3))
    assert len(threads) == 3


def test_set_that_several_threads_would_mix_up_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mpiadv.data.user, "MAX_MEMORY_BYTES", 0)
    line = refusal(lambda: load("shared_file", arguments={"num_classes": 3}, num_workers=3))
    assert "gives another sample while several threads read: leave data.num_workers out" in line


def test_home_in_the_root_is_spelt_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/of")
    with pytest.raises(UserError, match="AssertionError"):
        load("rooted", root="~/x")
    monkeypatch.setenv("HOME", "somewhere")
    assert load("rooted", root="~").test.num_samples == 6


@pytest.mark.parametrize(("padding", "is_refused"), [(2, False), (3, True), (100, True)])
def test_padding_that_lets_crops_miss_the_image_is_refused(padding: int, is_refused: bool) -> None:
    if not is_refused:
        assert load("pair_of_bytes", crop_padding=padding).num_classes == 3
        return
    line = refusal(lambda: load("pair_of_bytes", crop_padding=padding))
    assert line.startswith(f"data.crop_padding={padding} is too much for images of 1x3x4: crops")
    assert line.endswith("use at most 2")


def test_large_set_must_say_how_many_classes_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mpiadv.data.user, "MAX_MEMORY_BYTES", 0)
    assert "set data.arguments.num_classes" in refusal(lambda: load("byte_samples"))
