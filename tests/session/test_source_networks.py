"""Networks of earlier runs that batches are crafted on: which ones are taken, and what is told."""

import shutil
from pathlib import Path

import pytest
from launching import hash_of, train_alone, words_of

import mpiadv
from mpiadv.process.errors import UserError
from mpiadv.runlog import read_attributes, read_table

SHORT = {"training__num_steps": 4, "evaluation__final_samples": 4}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source") / "run"
    train_alone(words_of(folder, seed=1, **SHORT))
    return folder


def _hash(output: Path, **settings: object) -> str:
    return train_alone(words_of(output, **{**SHORT, **settings}))


def _refusal(output: Path, **settings: object) -> str:
    with pytest.raises(UserError) as caught:
        mpiadv.train(mpiadv.load_config(None, words_of(output, **{**SHORT, **settings})))
    return str(caught.value)


def test_source_makes_other_batches_and_is_told_in_the_log(source: Path, tmp_path: Path) -> None:
    alone = _hash(tmp_path / "alone")
    assert _hash(tmp_path / "both", attack__sources=[str(source)]) != alone
    told = read_attributes(tmp_path / "both" / "log.h5")["sources"]
    assert told == hash_of(source)


def test_source_stays_as_it_is(source: Path, tmp_path: Path) -> None:
    before = (source / "model.pt").read_bytes()
    _hash(tmp_path / "run", attack__sources=[str(source)])
    assert (source / "model.pt").read_bytes() == before


def test_source_of_other_images_is_refused(source: Path, tmp_path: Path) -> None:
    line = _refusal(
        tmp_path / "run",
        attack__sources=[str(source)],
        data__arguments={"shape": [1, 5, 5]},
    )
    assert line == (
        f"attack.sources: {source}: it was trained with image_shape=1x4x4, this run has "
        "image_shape=1x5x5: sources are to be of the same images and classes"
    )


def test_source_made_by_code_that_the_run_does_not_name_is_refused(
    source: Path, tmp_path: Path
) -> None:
    line = _refusal(tmp_path / "run", attack__sources=[str(source)], model__name="bad_parts:wide")
    assert line == (
        f"attack.sources: {source}: model.name=bad_parts:small is code, and no file may choose "
        "what is run: sources are to be of registered models, or of this run's own"
    )


@pytest.mark.parametrize("missing", ["model.pt", "log.h5"])
def test_run_that_is_not_whole_is_refused(source: Path, tmp_path: Path, missing: str) -> None:
    shutil.copytree(source, tmp_path / "copy")
    (tmp_path / "copy" / missing).unlink()
    line = _refusal(tmp_path / "run", attack__sources=[str(tmp_path / "copy")])
    assert line.startswith(f"attack.sources: {tmp_path / 'copy'}")
    assert missing in line and "\n" not in line


def test_resume_with_another_source_is_told(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(source, copy)
    words = words_of(
        tmp_path / "run",
        attack__sources=[str(copy)],
        training__num_steps=8,
        checkpoint__every_steps=4,
        evaluation__final_samples=4,
    )
    train_alone(words)
    (tmp_path / "run" / "DONE").unlink()
    latest = max((tmp_path / "run" / "checkpoints").iterdir())
    latest.unlink()
    shutil.rmtree(copy)
    train_alone(words_of(copy, seed=2, **SHORT))
    capsys.readouterr()
    train_alone(words, resume=True)
    assert "resumed with sources=" in capsys.readouterr().out
    events = read_table(tmp_path / "run" / "log.h5", "events")
    (told,) = [event["text"].decode() for event in events if event["kind"] == b"changed"]
    assert f"sources={hash_of(copy)}" in told


def test_branch_of_the_sources_evaluations_plays_no_part(tmp_path: Path) -> None:
    mixture = {
        "model__name": "digits",
        "data__name": "digits",
        "model__arguments": {"batch_norm": True},
        "model__mixture_batch_norm": True,
        "objective__clean_fraction": 0.5,
    }
    hashes = set()
    for branch in ("natural", "adversarial"):
        source = tmp_path / branch
        _hash(source, **mixture, evaluation__branch=branch)
        hashes.add(_hash(tmp_path / f"on-{branch}", **mixture, attack__sources=[str(source)]))
    assert len(hashes) == 1
