"""Weights are taken as people keep them, and refused in a line where they cannot be used."""

import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mpiadv.evaluation.subject import Subject, load_into, read_subject
from mpiadv.evaluation.weights_file import read_weights_file
from mpiadv.models import build_model
from mpiadv.models.weights import misfit_text, unwrapped
from mpiadv.process.errors import UserError

SETTINGS = ["model.name=digits", "data.name=digits"]


def digits() -> nn.Module:
    config = read_config()
    return build_model(config.model, num_classes=10, image_shape=(1, 8, 8), seed=1)


def read_config() -> Any:
    from mpiadv.settings import load_config

    return load_config(None, SETTINGS)


WEIGHTS: dict[str, Tensor] = dict(digits().state_dict())


def under(prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in WEIGHTS.items()}


def compiled_inside() -> dict[str, Tensor]:
    return {
        f"{name.split('.')[0]}._orig_mod.{name.split('.')[1]}": t for name, t in WEIGHTS.items()
    }


OPTIMIZER = {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1}]}

TAKEN: dict[str, tuple[Any, list[str]]] = {
    "plain": (WEIGHTS, []),
    "state_dict": ({"state_dict": WEIGHTS, "epoch": 3}, ["taken from its ['state_dict']"]),
    "optimizer_first": (
        {"optimizer": OPTIMIZER, "model": WEIGHTS}, ["taken from its ['model']"]
    ),
    "two_deep": (
        {"model": {"net": WEIGHTS, "ema": 0.9}, "acc": torch.tensor(0.9)},
        ["taken from its ['model']['net']"],
    ),
    "data_parallel": (under("module."), ["names of weights taken without 'module.'"]),
    "compiled": (under("_orig_mod."), ["names of weights taken without '_orig_mod.'"]),
    "compiled_inside": (compiled_inside(), ["names of weights taken without '_orig_mod.'"]),
    "everything": (
        {"model_state_dict": under("module._orig_mod."), "optimizer": OPTIMIZER},
        ["taken from its ['model_state_dict']", "taken without 'module._orig_mod.'"],
    ),
    "lightning": (
        {"state_dict": under("model.net."), "hyper_parameters": {"lr": 0.1}},
        ["taken from its ['state_dict']", "names of weights taken without 'model.net.'"],
    ),
}  # fmt: skip
"""What a file holds, and what is said of it."""


@pytest.mark.parametrize("name", TAKEN)
def test_weights_are_found_and_named_as_the_model_has_them(name: str, tmp_path: Path) -> None:
    contents, said = TAKEN[name]
    torch.save(contents, tmp_path / "weights.pt")
    model = build_model(read_config().model, num_classes=10, image_shape=(1, 8, 8), seed=2)
    subject = read_subject(tmp_path / "weights.pt", SETTINGS)
    _, renaming = load_into(model, subject)
    assert all(torch.equal(tensor, WEIGHTS[key]) for key, tensor in model.state_dict().items())
    for line, part in zip([*subject.taken, *renaming], said, strict=True):
        assert line == f"{tmp_path}/weights.pt: {part}" or line.endswith(part)


def changed(name: str, value: float, index: int = 0) -> dict[str, Tensor]:
    weights = {key: tensor.clone() for key, tensor in WEIGHTS.items()}
    weights[name].view(-1)[index] = value
    return weights


MISFITS: dict[str, tuple[Any, str]] = {
    "not_a_number": (
        changed("2.weight", float("nan")),
        "{path} holds values that are no numbers, first in '2.weight' (1 of 4,608 values): its "
        "training has failed, or the file is damaged: there is nothing to evaluate",
    ),
    "infinite": (changed("0.bias", float("inf")), "first in '0.bias' (1 of 16 values): its "),
    "other_names": (
        {f"layer{number}.weight": torch.zeros(1) for number in range(500)},
        "{path} does not fit model 'digits' for data set 'digits': it lacks '0.weight', '0.bias', "
        "'2.weight', ..., the model has no 'layer0.weight', 'layer1.weight', 'layer2.weight', ...: "
        "set model.* and data.* as in training",
    ),
    "other_shape": (
        {**WEIGHTS, "7.weight": torch.zeros(7, 64)},
        "its '7.weight' is [7, 64], the model's [10, 64]: set model.*",
    ),
    "one_more": ({**WEIGHTS, "step": 7}, "the model has no 'step': set model.*"),
    "no_tensor": ({**WEIGHTS, "7.bias": 1.0}, "its '7.bias' is no tensor: set model.*"),
    "nothing": ({}, "it lacks '0.weight', '0.bias', '2.weight', ...: set"),
    "numbers": ({"epoch": 1, "loss": 0.5}, "{path} holds no state dict: expected names and"),
    "list": ([1.0, 2.0], "{path} holds no state dict: expected names and tensors, as "),
}


@pytest.mark.parametrize("name", MISFITS)
def test_weights_that_cannot_be_used_are_refused_in_a_short_line(name: str, tmp_path: Path) -> None:
    contents, part = MISFITS[name]
    path = tmp_path / "weights.pt"
    torch.save(contents, path)
    with pytest.raises(UserError) as refusal:
        subject, model = read_subject(path, SETTINGS), digits()
        load_into(model, subject)
    line = str(refusal.value)
    assert part.format(path=path) in line and "\n" not in line and len(line) < 400


def test_infinite_buffer_is_no_fault() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    model.register_buffer("mask", torch.full((3,), float("-inf")))
    subject = Subject(path=Path("w.pt"), config=read_config(), weights=dict(model.state_dict()))
    load_into(model, subject)
    bad = {**subject.weights, "mask": torch.full((3,), float("nan"))}
    with pytest.raises(UserError, match=r"first in 'mask' \(3 of 3 values\)"):
        load_into(model, replace(subject, weights=bad))


def _whole_model(path: Path) -> None:
    torch.save(digits(), path)


def _whole_model_inside(path: Path) -> None:
    torch.save({"net": digits(), "epoch": 3}, path)


def _script(path: Path) -> None:
    torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)).save(str(path))


def _safetensors(path: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))


OBJECTS = "holds more than numbers, as torch.save(model) does, and code is not taken from files: "

FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "whole_model": (_whole_model, OBJECTS + "save its state_dict"),
    "whole_model_inside": (_whole_model_inside, OBJECTS),
    "script": (_script, OBJECTS),
    "safetensors": (_safetensors, "is a file of safetensors: load it and keep it by torch, as in"),
    "hdf5": (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(90)), "is damaged, or no"),
    "text": (
        lambda path: path.write_text("hello"), "is damaged, or no file of weights: it has no form"
    ),
    "empty": (lambda path: path.touch(), "is damaged, or no file of weights: "),
    "folder": (Path.mkdir, "cannot read "),
}  # fmt: skip


@pytest.mark.filterwarnings("error:.*TorchScript", "ignore::FutureWarning")
@pytest.mark.parametrize("name", FILES)
def test_file_that_is_none_of_weights_is_told_by_what_it_is(name: str, tmp_path: Path) -> None:
    write, part = FILES[name]
    write(tmp_path / "weights.pt")
    with pytest.raises(UserError) as refusal:
        read_weights_file(tmp_path / "weights.pt")
    line = str(refusal.value)
    assert part in line and str(tmp_path) in line and "\n" not in line


def test_optimizer_alone_is_no_state_dict() -> None:
    assert unwrapped({"optimizer": OPTIMIZER, "epoch": 1}) == (None, "")


def test_misfit_names_what_is_there_only_once() -> None:
    model = digits()
    assert misfit_text(dict(model.state_dict()), model) == "it holds what the model does not take"
