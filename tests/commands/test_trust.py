"""No file chooses what code is run: not a configuration, not a run, not a checkpoint."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from made_up_study import open_study
from sample_logs import begin

from mpiadv import cli
from mpiadv.cluster.job import work_of
from mpiadv.command_lines import submit
from mpiadv.command_lines.tables import PLAN
from mpiadv.commands import alone
from mpiadv.evaluation.subject import read_subject
from mpiadv.examination.wanted import Wanted
from mpiadv.process.errors import UserError
from mpiadv.session import run
from mpiadv.settings import dump_config, load_config, override_config, parse_config, read_words
from mpiadv.storage.checkpoint import save_checkpoint
from mpiadv.studies import runner

WORDS = {
    "model": "model.name=torch.hub:load",
    "data": "data.name=os:system",
    "attack": "attack.name=os:system",
}
TREES = {
    "model": {"model": {"name": "torch.hub:load"}},
    "data": {"data": {"name": "os:system"}, "model": {"name": "torchvision:resnet18"}},
    "attack": {"attack": {"name": "os:system"}},
}

Reader = Callable[[Path, Sequence[str]], object]


def _train(folder: Path, words: Sequence[str]) -> object:
    return run._read([str(folder / "given.yaml"), *words])


def _plan(folder: Path, words: Sequence[str]) -> object:
    asked = PLAN.read([str(folder / "given.yaml"), *words])
    assert asked is not None
    return read_words(asked.words, trust_code=asked.trust_code)


def _submit(folder: Path, words: Sequence[str]) -> object:
    # Through the parser of `submit`, as it would be from a shell.
    asked = submit.read([str(folder / "given.yaml"), "--gpus=1", "--dry-run", *words])
    assert asked is not None
    return alone.submit(asked)


def _job(folder: Path, words: Sequence[str]) -> object:
    return work_of([str(folder / "given.yaml"), *words], {"SLURM_TASKS_PER_NODE": "2"})


def _evaluated(path: Path, words: Sequence[str]) -> object:
    settings = tuple(word for word in words if word != "--trust-code")
    wanted = Wanted(overrides=settings, trust_code=len(settings) < len(words))
    return read_subject(path, wanted.overrides, wanted.trusted)


def _run_folder(folder: Path, words: Sequence[str]) -> object:
    return _evaluated(folder / "run", words)


def _checkpoint(folder: Path, words: Sequence[str]) -> object:
    return _evaluated(folder / "checkpoint-000000001.pt", words)


READERS: dict[str, Reader] = {
    "train": _train, "plan": _plan, "submit": _submit, "job": _job, "run": _run_folder,
    "checkpoint": _checkpoint,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the tests are started, a user's finished run may lie in `runs/digits`."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(params=TREES)
def given(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A configuration, a run and a checkpoint that name code; which of their settings does."""
    config = parse_config(TREES[request.param])
    (tmp_path / "given.yaml").write_text(dump_config(config))
    begin(tmp_path / "run", **config.model_dump(mode="json")).close()
    torch.save({}, tmp_path / "run" / "model.pt")
    payload = {"identity": json.dumps(config.identity()), "model": {}, "unsaved_buffers": {}}
    save_checkpoint(tmp_path, 1, payload, keep=1)
    return str(request.param)


@pytest.mark.parametrize("reader", READERS)
def test_code_that_a_file_names_is_refused_unless_the_command_line_names_it_too(
    given: str, reader: str, tmp_path: Path
) -> None:
    word, read = WORDS[given], READERS[reader]
    for words in ([], ["seed=1"], [f"{given}.arguments.x=1"]):
        with pytest.raises(UserError) as refusal:
            read(tmp_path, words)
        assert str(refusal.value) == (
            f"{word} comes from a file, and no file may choose code that is run: if you trust it, "
            f"add {word} or --trust-code to the command line; in Python, to the overrides, or "
            "trust_code=True"
        )
    read(tmp_path, [word])
    read(tmp_path, ["--trust-code"])


def test_registered_names_need_no_trust(tmp_path: Path) -> None:
    (tmp_path / "given.yaml").write_text("model: {name: torchvision:resnet18}")
    assert load_config(tmp_path / "given.yaml").model.name == "torchvision:resnet18"


def test_code_may_be_named_by_a_whole_section_of_the_command_line() -> None:
    config = override_config(TREES["model"], ["model={name: torch.hub:load}"])
    assert config.model.name == "torch.hub:load"


def test_code_of_a_source_of_transfer_is_trusted_as_that_of_the_network(tmp_path: Path) -> None:
    wanted = Wanted(overrides=("model.name=mine:model", "data.name=digits"))
    assert wanted.trusted is not None and "model.name=mine:model" in wanted.trusted
    assert Wanted(trust_code=True).trusted is None


def test_attack_that_an_evaluation_runs_is_trusted_as_that_of_training_and_as_nothing_else() -> (
    None
):
    words = ("pgd:steps=2", "mine:attack:steps=5,tolerance=2")
    trusted = Wanted(attacks=words).trusted
    assert trusted is not None
    override_config({"attack": {"name": "mine:attack"}}, [], trusted=trusted)
    for tree in ({"attack": {"name": "mine:other"}}, {"data": {"name": "mine:attack"}}):
        with pytest.raises(UserError, match="comes from a file"):
            override_config(tree, [], trusted=trusted)


def test_study_names_its_code_to_its_runs_and_its_scoring(tmp_path: Path) -> None:
    folder = open_study(tmp_path, "power", "model.name=mine:model")
    training = runner._training(folder, folder.runs[0])
    assert training.command[-2:] == ("model.name=mine:model", "--resume")
    scoring = runner._scoring(folder, [], "1")
    request = json.loads(Path(scoring.command[-1]).read_text())
    assert request["trusted"] == ["model.name=mine:model"]


def test_job_takes_trust_along(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.yaml").write_text(dump_config(parse_config(TREES["model"])))
    words = ["submit", str(tmp_path / "a.yaml"), "--gpus=1", "--dry-run", "--trust-code"]
    assert cli.main(words) == 0
    assert f"exec mpiadv job --trust-code {tmp_path}/a.yaml\n" in capsys.readouterr().out
    work = work_of([str(tmp_path / "a.yaml"), "--trust-code"], {"SLURM_TASKS_PER_NODE": "2"})
    assert "--trust-code" in work.command
