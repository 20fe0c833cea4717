"""Studies before anything runs: presets that fit, settings that are refused, folders kept apart."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from made_up_study import finish_runs, open_study
from mpi_runner import REPOSITORY

from mpiadv import cli
from mpiadv.settings import load_config
from mpiadv.studies.folder import reuse
from mpiadv.studies.presets import PRESETS
from mpiadv.studies.runs import configuration, request_of
from mpiadv.studies.studies import STUDIES

ROOT = REPOSITORY

EVERYTHING = [
    pytest.param(study, preset, id=f"{study}-{preset}") for study in STUDIES for preset in PRESETS
]


@pytest.mark.parametrize(("study", "preset"), EVERYTHING)
def test_every_preset_gives_each_study_runs_that_fit(study: str, preset: str) -> None:
    request = request_of(study, preset, PRESETS[preset], [])
    runs = STUDIES[study].runs(request)
    names = [run.name for run in runs]
    assert len(set(names)) == len(names)
    for run in runs:
        assert configuration(request, run, "somewhere").output == "somewhere"


def test_preset_paper_is_the_configuration_of_the_paper() -> None:
    of_the_paper = load_config(ROOT / "configs" / "mnist_paper.yaml").identity()
    preset = request_of("power", "paper", PRESETS["paper"], []).config.identity()
    differing = {key for key in preset if preset[key] != of_the_paper[key]}
    assert {key.partition(".")[0] for key in differing} == {"staleness"}


REFUSED: dict[str, tuple[Sequence[str], str]] = {
    "unknown_study": (["powr", "--preset", "smoke"], "did you mean 'power'"),
    "unknown_preset": (["power", "--preset", "tiny"], "unknown preset 'tiny'"),
    "no_preset": (["power"], "--preset"),
    "unknown_range": (["power", "--preset", "smoke", "study.trainig_steps=[1]"],
                      "study.training_steps"),
    "no_list": (["power", "--preset", "smoke", "study.training_steps=3"],
                "expected a list of whole numbers"),
    "empty_list": (["power", "--preset", "smoke", "study.training_steps=[]"],
                   "expected a list of whole numbers"),
    "no_attack_steps": (["power", "--preset", "smoke", "study.attack_steps=[0]"],
                        "expected a list of whole numbers"),
    "value_twice": (["power", "--preset", "smoke", "study.training_steps=[1,1]"],
                    "run k1 would be there twice"),
    "no_images": (["power", "--preset", "smoke", "study.num_images=0"], "expected a whole number"),
    "what_the_study_varies": (["power", "--preset", "smoke", "attack.num_steps=3"],
                              "attack.num_steps is set by study power"),
    "what_one_of_its_runs_sets": (["headline", "--preset", "smoke", "staleness.trainer_steps=2"],
                                  "staleness.trainer_steps is set by study headline"),
    "what_its_emulation_has_one_of": (
        ["headline", "--preset", "smoke", "training.tickets_per_step=2"],
        "training.tickets_per_step is set by study headline"),
    "what_tells_two_of_its_runs_apart": (
        ["mixture", "--preset", "smoke", "objective.clean_fraction=0.3"],
        "objective.clean_fraction is set by study mixture"),
    "folder_as_a_setting": (["power", "--preset", "smoke", "output=x"], "--output FOLDER"),
    "unknown_setting": (["power", "--preset", "smoke", "attack.epsilonn=3"], "attack.epsilon"),
    "share": (["power", "--preset", "smoke", "--share", "3/2"], "expected I/N"),
    "jobs": (["power", "--preset", "smoke", "--jobs", "0"], "expected at least 1"),
    "no_long_version": (["power", "--preset", "smoke", "--long"], "no long version"),
    "reuse_of_nothing": (["power", "--preset", "smoke", "--reuse", "nowhere"], "holds no runs"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("words", "told"), [pytest.param(*case, id=name) for name, case in REFUSED.items()]
)
def test_bad_input_is_refused_in_one_line(
    words: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert cli.main(["study", *words]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("mpiadv: error: ") and printed.count("\n") == 1
    assert told in printed


ANOTHER_STUDY = {
    "another_study": ("transfer", [], "holds study power --preset smoke, asked for is transfer"),
    "another_preset": ("power", ["small"], "asked for is power --preset small"),
    "another_setting": ("power", ["smoke", "seed=1"], "--preset smoke seed=1"),
    "another_argument_of_the_model": (
        "power", ["smoke", "model.arguments.width=0.1"], "model.arguments={'width': 0.1}",
    ),
    "another_range": ("power", ["smoke", "study.num_images=7"], "study.num_images=7"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("study", "words", "told"),
    [pytest.param(*case, id=name) for name, case in ANOTHER_STUDY.items()],
)
def test_folder_of_something_else_is_refused_once_it_holds_something(
    study: str, words: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    preset, *settings = words or ["smoke"]
    line = ["study", study, "--preset", preset, "--output", str(tmp_path), *settings]
    finish_runs(open_study(tmp_path, "power"))
    before = sorted(tmp_path.rglob("*"))
    assert cli.main(line) == 2
    assert told in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_settings_that_change_no_result_may_change_in_a_study(tmp_path: Path) -> None:
    finish_runs(open_study(tmp_path, "power"))
    again = open_study(tmp_path, "power", "data.num_workers=1", "training.device=cpu")
    assert all(again.is_done(run.name) for run in again.runs)


def test_folder_in_which_nothing_began_takes_another_study(tmp_path: Path) -> None:
    open_study(tmp_path, "power", "model.name=misspelt")
    assert open_study(tmp_path, "transfer").request.study == "transfer"


def test_shares_that_begin_at_the_same_instant_all_find_the_folder(tmp_path: Path) -> None:
    together = threading.Barrier(4)

    def begin(share: int) -> None:
        for number in range(20):
            together.wait(timeout=20)
            open_study(tmp_path / str(number), "power")

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(begin, range(4))) == [None] * 4


def test_run_of_other_settings_in_a_study_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finish_runs(open_study(tmp_path, "power", "seed=3"))
    (tmp_path / "study.yaml").unlink()
    assert cli.main(["study", "power", "--preset", "smoke", "--output", str(tmp_path)]) == 2
    assert f"{tmp_path}/runs/k1 holds a run with seed=3" in capsys.readouterr().err


def test_only_runs_of_the_same_settings_are_reused(tmp_path: Path) -> None:
    finish_runs(open_study(tmp_path / "power", "power", "study.training_steps=[1,2,4]"))
    same = open_study(tmp_path / "same", "transfer", "study.training_steps=[2,8]")
    other = open_study(tmp_path / "other", "transfer", "seed=1")
    assert reuse(same, tmp_path / "power") == ["k2"]
    assert reuse(same, tmp_path / "power") == []
    assert reuse(other, tmp_path / "power") == []
    assert same.is_done("k2") and not same.is_done("k8")
    assert same.hash_of("k2") == "hash of k2"


def test_runs_that_measure_speed_and_runs_without_a_network_are_not_reused(
    tmp_path: Path,
) -> None:
    finish_runs(open_study(tmp_path / "measured", "headline"))
    assert reuse(open_study(tmp_path / "again", "headline"), tmp_path / "measured") == []
    finish_runs(power := open_study(tmp_path / "power", "power"))
    (power.folder_of("k1") / "model.pt").unlink()
    assert reuse(open_study(tmp_path / "transfer", "transfer"), tmp_path / "power") == ["k4"]
