"""`mpiadv evaluate` from command line to files: the same figures on any ranks, clear refusals.

All cases run in the same two processes: importing torch takes longer than all of them together.
"""

import json
import shutil
from collections.abc import Callable
from fnmatch import fnmatchcase
from io import StringIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from launching import words_of
from rich.console import Console

from mpiadv.evaluation.survivors import Progress
from mpiadv.examination.follow import Follower

ATTACKS = [
    "--attack", "fgsm", "--attack", "pgd:steps=3,restarts=2,epsilon=0.1",
    "--attack", "small_attacks:friendly:steps=2,tolerance=0,epsilon=0.1",
    "--attack", "grid:angles=3,shifts=3,pixels=1", "evaluation.batch_size=5",
]  # fmt: skip

RUN, CHECKPOINT = "run", "run/checkpoints/checkpoint-000000030.pt"

_TRAINED = {"training__num_steps": 30, "checkpoint__every_steps": 30, "average__decay": 0.5}

_PLAIN = ["model.name=bad_parts:small", "data.name=bad_parts:images", "attack.epsilon=0.15"]


def _run_main(argv: list[str]) -> int:
    # Imported by the ranks alone: pytest itself needs no MPI.
    from mpiadv.run import main

    return main(argv)


def _evaluate(argv: list[str]) -> int:
    from mpiadv.commands.evaluate import main

    return main([*argv, "--trust-code"])


def _evaluate_alone(argv: list[str]) -> int:
    from mpi4py import MPI

    from mpiadv.comm.mpi_world import MpiWorld
    from mpiadv.commands.evaluate import run

    world = MpiWorld(MPI.COMM_SELF)
    world.meet()
    return run(world, [*argv, "--trust-code"])


def _is_first() -> bool:
    from mpi4py import MPI

    return bool(MPI.COMM_WORLD.rank == 0)


def _figures(path: Path) -> dict[str, Any]:
    """A file of results, less what tells where and how fast they were found."""
    report = json.loads(path.read_text())
    return {key: value for key, value in report.items() if key not in ("model", "run")}


@pytest.mark.mpi(min_size=2)
def test_figures_are_those_of_network_and_settings_alone_and_are_not_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run_main(words_of(tmp_path / RUN, **_TRAINED)) == 0
    assert _run_main(words_of(tmp_path / "other", **_TRAINED, seed=1)) == 0
    capsys.readouterr()
    assert _evaluate([str(tmp_path / RUN), *ATTACKS, "--save-examples"]) == 0
    said = capsys.readouterr().out
    if _is_first():
        expected = _figures(tmp_path / RUN / "evaluation.json")
        _assert_told(said, expected)
        _assert_same_alone(tmp_path, expected)
        _assert_average_is_another(tmp_path, expected)
        _assert_precision_is_that_of_the_settings(tmp_path)
        capsys.readouterr()
    else:
        assert said == ""
    _assert_several_are_told_apart(tmp_path)
    _assert_kept(tmp_path, capsys)
    _assert_transferred(tmp_path)


def _assert_told(said: str, figures: dict[str, Any]) -> None:
    assert figures["num_samples"] == 24
    for attack in figures["attacks"]:
        assert f"{attack['title']}  " in said
        assert f"{attack['all_so_far']['accuracy']:.2f} %" in said


def _assert_same_alone(folder: Path, expected: dict[str, Any]) -> None:
    """One rank finds the same in the run, in its checkpoint and in its plain weights."""
    run, alone = folder / RUN, folder / "alone"
    assert _evaluate_alone([str(run), *ATTACKS, "--save-examples", "--output", str(alone)]) == 0
    assert _figures(alone / "evaluation.json") == expected
    told = json.loads((alone / "evaluation.json").read_text())["run"]
    assert (told["ranks"], told["memory_format"]) == (1, "contiguous")
    _assert_same_hdf5(alone / "evaluation.h5", run / "evaluation.h5")
    assert (alone / "evaluation.png").read_bytes().startswith(b"\x89PNG")
    shutil.copy(run / "model.pt", folder / "plain.pt")
    forms = {
        "in_the_run": [str(run / "model.pt")],
        "checkpoint": [str(folder / CHECKPOINT)],
        "plain": [str(folder / "plain.pt"), *_PLAIN],
    }
    for name, words in forms.items():
        output = folder / name
        assert _evaluate_alone([*words, *ATTACKS, "--output", str(output)]) == 0, name
        ours = _figures(output / "evaluation.json")
        assert {**ours, "settings": {**ours["settings"], "examples": True}} == expected, name


def _assert_precision_is_that_of_the_settings(folder: Path) -> None:
    run, setting = str(folder / RUN), "evaluation.precision=bfloat16"
    for words, expected in (
        ([], "float32"),
        ([setting], "bfloat16"),
        ([setting, "--precision", "float32"], "float32"),
    ):
        output = folder / "precise"
        assert _evaluate_alone([run, *words, *QUICK, "--overwrite", "--output", str(output)]) == 0
        found = json.loads((output / "evaluation.json").read_text())
        assert found["settings"]["precision"] == expected, words


def _assert_average_is_another(folder: Path, expected: dict[str, Any]) -> None:
    """The averaged weights have the run's configuration and a hash of their own, which it told."""
    average = [str(folder / RUN / "model-ema.pt"), "--output", str(folder / "average")]
    assert _evaluate_alone([*average, *ATTACKS, "--save-examples"]) == 0
    ours, theirs = (
        _figures(folder / "average" / "evaluation.json")["settings"],
        expected["settings"],
    )
    assert ours["model_hash"] != theirs["model_hash"]
    assert ours == {**theirs, "model_hash": ours["model_hash"]}


def _assert_same_hdf5(path: Path, other: Path) -> None:
    with h5py.File(path) as ours, h5py.File(other) as theirs:
        names: list[str] = []
        ours.visititems(lambda name, item: names.append(name) if "shape" in dir(item) else None)
        assert {"samples", "attacked", "broken", "examples/index"} <= set(names)
        for name in set(names) - {"report"}:
            assert np.array_equal(ours[name][:], theirs[name][:]), name


QUICK = ["--attack", "pgd:steps=2", "--no-probe"]


def _assert_several_are_told_apart(folder: Path) -> None:
    paths = [str(folder / RUN), str(folder / "other")]
    assert _evaluate([*paths, *QUICK, "--output", str(folder / "both")]) == 0
    assert _evaluate([paths[1], *QUICK]) == 0
    assert _evaluate([paths[1], *QUICK]) == 0, "the same settings may be written again"
    if _is_first():
        one, other = (
            _figures(folder / "both" / name / "evaluation.json") for name in (RUN, "other")
        )
        assert one != other == _figures(folder / "other" / "evaluation.json")
        assert other["signs_of_gradient_masking"] is None


def _assert_kept(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert _evaluate([str(folder / "other"), *QUICK, "--samples", "7"]) == 2
    if _is_first():
        assert capsys.readouterr().err == (
            f"mpiadv: error: {folder}/other/evaluation.json holds results of other settings: add "
            "--overwrite, or choose another folder with --output FOLDER\n"
        )
        assert _figures(folder / "other" / "evaluation.json")["num_samples"] == 24


def _assert_transferred(folder: Path) -> None:
    transfer = ["--transfer-from", str(folder / RUN), "--overwrite", "--samples", "7"]
    assert _evaluate([str(folder / "other"), *QUICK, *transfer]) == 0
    if _is_first():
        results = _figures(folder / "other" / "evaluation.json")
        assert [attack["title"] for attack in results["attacks"]] == ["pgd-2", "pgd-2 from run"]
        assert results["num_samples"] == 7
        assert list(results["settings"]["source_hashes"]) == ["run"]


def _half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _other_weights(path: Path) -> None:
    state = torch.load(path, weights_only=True)
    torch.save({name: value + 1 for name, value in state.items()}, path)


def _model_of_the_run(path: Path) -> None:
    shutil.copy(path.with_name("model.pt"), path)


def _on(name: str, *words: str, change: Callable[[Path], None] | None = None) -> Any:
    """The command line for a file of a copy of the finished run, after `change` to that file."""

    def argv(folder: Path) -> list[str]:
        copy = folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder / RUN, copy / RUN)
        if change is not None:
            change(copy / name)
        target = copy / RUN if name.endswith("run/model.pt") and change else copy / name
        return [str(target), *words]

    return argv


REFUSED: dict[str, tuple[Any, str]] = {
    "output_of_a_run": (
        lambda folder: [f"{folder}", "output=there"],
        "evaluate: output=there: results go to --output FOLDER",
    ),
    "nothing": (lambda folder: ["seed=1"], "no network to evaluate: name a run's folder or *"),
    "no_such_file": (_on("missing.pt"), "there is no */missing.pt: expected a run's folder, or *"),
    "folder_without_a_run": (_on("run/checkpoints"), "there is no log at */checkpoints/log.h5"),
    "finished_run_without_its_model": (
        _on("run/model.pt", change=Path.unlink),
        "*/run has no model.pt: evaluate a file of its checkpoints/",
    ),
    "damaged_model": (
        _on("run/model.pt", change=_half),
        "*/model.pt is damaged, or no file of weights: *",
    ),
    "damaged_checkpoint": (
        _on(CHECKPOINT, change=_half),
        "*/checkpoint-000000030.pt is damaged, its SHA-256 checksum is wrong: *",
    ),
    "average_that_the_log_does_not_tell_of": (
        _on("run/model-ema.pt", change=_model_of_the_run),
        "*/model-ema.pt is not the model that its log tells of (hash *, expected *): a file *",
    ),
    "weights_that_the_log_does_not_tell_of": (
        _on("run/model.pt", change=_other_weights),
        "*/run is not the model that its log tells of (hash *, expected *): a file was changed, *",
    ),
    "plain_weights_without_a_model": (
        _on("run/plain.pt", "data.name=digits", change=_model_of_the_run),
        "*/plain.pt is a plain file of weights: add model.name=...",
    ),
    "plain_weights_without_a_radius": (
        _on("run/plain.pt", *_PLAIN[:2], change=_model_of_the_run),
        "attack 'pgd:steps=40' has no radius: add epsilon=..., or *",
    ),
    "log_as_weights": (
        _on("run/log.h5", *_PLAIN),
        "*/log.h5 is damaged, or no file of weights: *",
    ),
    "other_model": (
        _on(RUN, "model.name=bad_parts:wide"),
        "*/run does not fit model 'bad_parts:wide' for data set 'bad_parts:images': its "
        "'1.weight' is [[]8, 16], the model's [[]9, 16]: set model.* and data.* as in training",
    ),
    "images_that_the_model_cannot_take": (
        _on(RUN, "data.arguments.shape=[1,5,5]"),
        "model Sequential, given 2 images of 1x5x5, fails: RuntimeError: *",
    ),
    "unknown_setting": (_on(RUN, "sede=1"), "unknown setting sede: the nearest known one is seed"),
    "unknown_attack": (_on(RUN, "--attack", "pdg"), "unknown attack 'pdg': did you mean 'pgd'? *"),
    "attack_of_ones_own_that_fails": (
        _on(RUN, "--attack", "small_attacks:broken:part=projection"),
        "attack 'small_attacks:broken': projection fails: RuntimeError: out of ideas *",
    ),
    "attack_of_ones_own_with_a_part_of_another_kind": (
        _on(RUN, "--attack", "small_attacks:odd:part=loss"),
        "attack 'small_attacks:odd': loss=tensor*: expected *",
    ),
    "argument_that_is_no_value": (
        _on(RUN, "--attack", "small_attacks:friendly:tolerance=[1"),
        "attack 'small_attacks:friendly': tolerance='[[]1': expected a value as in YAML",
    ),
    "unknown_protocol": (
        _on(RUN, "--protocol", "mardy"),
        "unknown protocol 'mardy': did you mean 'madry'? *",
    ),
    "unknown_option": (
        _on(RUN, "--atack", "pgd"),
        "evaluate: unrecognized arguments: --atack*: did you mean --attack? See *",
    ),
    "no_samples": (
        _on(RUN, "--samples", "0"),
        "evaluate: argument --samples: 0: expected at least 1, and at most 1,000,000,000: see "
        "mpiadv evaluate --help",
    ),
    "too_few_classes": (
        _on(RUN, "--protocol", "autoattack"),
        "apgd-t needs 4 classes, the data set has 3: use --attack apgd-ce --attack fab-t *",
    ),
    "missing_source": (
        _on(RUN, "--transfer-from", "nowhere"),
        "there is no nowhere: expected a run's folder, or a file of weights (.pt)",
    ),
    "two_of_one_name": (
        lambda folder: [str(folder / RUN)] * 2 + ["--output", "x"],
        "--output x: two networks are called run: evaluate apart",
    ),
}
"""A command line, made in a folder with a finished run, and the line that it gives (fnmatch)."""


@pytest.mark.mpi(min_size=2)
def test_bad_input_is_one_line_and_code_2_on_every_rank_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run_main(words_of(tmp_path / RUN, **_TRAINED)) == 0
    capsys.readouterr()
    problems = {}
    for name, (words, line) in REFUSED.items():
        code = _evaluate(words(tmp_path) if _is_first() else [])
        said = capsys.readouterr().err
        expected = f"mpiadv: error: {line}\n" if _is_first() else ""
        if code != 2 or not fnmatchcase(said, expected) or said.count("\n") != _is_first():
            problems[name] = f"code {code}, said {said!r}, expected {expected!r}"
    assert not problems, "\n".join(f"{name}: {problem}" for name, problem in problems.items())
    assert not list(tmp_path.rglob("evaluation*"))


def test_progress_is_a_line_now_and_then_where_nobody_watches() -> None:
    stream, now = StringIO(), [0.0]
    place = Progress(batch=1, num_batches=4, title="pgd-2", number=2, num_standing=30)
    with Follower(Console(file=stream), num_ranks=2, clock=lambda: now[0]) as follow:
        for seconds in (1.0, 11.0, 12.0):
            now[0] = seconds
            follow(place)
    line = "batch 2/4  left 0:33  pgd-2, try 3  30 images standing  rank 0 of 2\n"
    assert stream.getvalue() == line
