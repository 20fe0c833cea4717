"""Networks of earlier runs that batches are crafted on: which ones are taken, and what is told."""

import shutil
from pathlib import Path

import pytest
from launching import hash_of, train_alone, words_of

import mpiadv
from mpiadv.process.errors import UserError
from mpiadv.runlog import read_attributes

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


def _interrupted(output: Path, source: Path) -> None:
    """Leave a run of eight steps as it was after its fourth."""
    train_alone(_words_of_eight(output, source))
    (output / "DONE").unlink()
    max((output / "checkpoints").iterdir()).unlink()


def _words_of_eight(output: Path, *sources: Path) -> list[str]:
    return words_of(
        output,
        attack__sources=[str(source) for source in sources],
        training__num_steps=8,
        checkpoint__every_steps=4,
        evaluation__final_samples=4,
    )


def test_run_whose_source_has_moved_goes_on_to_the_same_bits(source: Path, tmp_path: Path) -> None:
    copy, run = tmp_path / "copy", tmp_path / "run"
    shutil.copytree(source, copy)
    _interrupted(run, copy)
    shutil.move(copy, tmp_path / "elsewhere")
    resumed = train_alone(_words_of_eight(run, tmp_path / "elsewhere"), resume=True)
    assert resumed == train_alone(_words_of_eight(tmp_path / "undisturbed", source))


def test_run_with_other_sources_than_before_does_not_go_on(source: Path, tmp_path: Path) -> None:
    copy, run = tmp_path / "copy", tmp_path / "run"
    shutil.copytree(source, copy)
    _interrupted(run, copy)
    before, log = hash_of(copy), (run / "log.h5").read_bytes()
    shutil.rmtree(copy)
    train_alone(words_of(copy, seed=2, **SHORT))
    for sources, told in (
        ((copy,), hash_of(copy)),
        ((), "(none)"),
        ((source, copy), f"{before},{hash_of(copy)}"),
    ):
        with pytest.raises(UserError) as caught:
            train_alone(_words_of_eight(run, *sources), resume=True)
        assert str(caught.value).endswith(
            f" was trained with attack.sources of the hashes {before}, this run's are {told}: name "
            "the folders of those networks, or start anew with output=FOLDER"
        )
        assert (run / "log.h5").read_bytes() == log


def test_run_that_is_finished_is_that_of_the_folders_it_names(source: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    finished = train_alone(_words_of_eight(run, source))
    assert train_alone(_words_of_eight(run, source), resume=True) == finished
    with pytest.raises(UserError, match=r"was trained with attack.sources=.* this run has"):
        train_alone(_words_of_eight(run), resume=True)


def test_network_that_is_there_twice_is_refused(source: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(source)
    line = _refusal(tmp_path / "run", attack__sources=[str(source), str(link)])
    assert line == (
        f"attack.sources: {link} is the network of {source} once more: name each once, as all have "
        "equal chances"
    )


@pytest.mark.parametrize("name", ["~nobody-of-this-name/run", "loop"])
def test_name_that_leads_nowhere_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    line = _refusal(tmp_path / "run", attack__sources=[name])
    assert line.startswith(f"attack.sources: {name} is no folder of a run, as {tmp_path / name} ")


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
