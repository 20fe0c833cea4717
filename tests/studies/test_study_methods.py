"""Study methods: its settings are those of the configurations, and what it shows."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from made_up_study import finish_runs, open_study
from mpi_runner import REPOSITORY

from mpiadv.attacks import make_attack
from mpiadv.methods.training_steps import TRAINING_STEPS
from mpiadv.process.errors import UserError
from mpiadv.report.drawing import style
from mpiadv.settings import Config, load_config
from mpiadv.studies.folder import StudyFolder
from mpiadv.studies.method_runs import METHODS, REPLAYED, Trained, runs, trained, trainer_passes
from mpiadv.studies.methods import evaluate, show
from mpiadv.studies.presets import PRESETS
from mpiadv.studies.results import Picture, Table
from mpiadv.studies.runs import Request, configuration, request_of

FILES = REPOSITORY / "configs" / "methods"
RANGES = {"methods": ["pgd"], "refreshed_methods": [], "seeds": [0], "trades_beta": 6.0}


@pytest.mark.parametrize("name", METHODS)
def test_settings_are_those_of_the_configuration_of_that_name(name: str) -> None:
    ranges = {**RANGES, "methods": [name]}
    request = Request(study="methods", preset="", config=Config(), ranges=ranges, changes={})
    (run,) = runs(request)
    theirs = load_config(FILES / f"{name}.yaml")
    assert configuration(request, run, theirs.output) == theirs


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(("name", "relative"), [("fast", 1.25), ("nfgsm", 1), ("grad_align", 1)])
def test_single_steps_are_as_long_as_their_papers_have_them(
    preset: str, name: str, relative: float
) -> None:
    request = request_of(
        "methods", preset, PRESETS[preset], [f"study.methods=[{name}]", "data.root=data"]
    )
    attack = configuration(request, runs(request)[0], "runs").attack
    assert make_attack(attack).step_size == pytest.approx(relative * attack.epsilon)


def test_steps_that_attack_by_themselves_are_known_here_too() -> None:
    assert {name for name, step in TRAINING_STEPS.items() if step.attacks} == {*REPLAYED}


def test_passes_of_the_trainer_are_counted() -> None:
    words = {
        "pgd": ("", 400), "trades": ("objective.name=trades", 800),
        "grad_align": ("objective.name=grad_align", 1200), "awp": ("training.step=awp", 800),
        "free": ("training.step=free", 0),
    }  # fmt: skip
    for word, passes in words.values():
        assert trainer_passes(load_config(None, [word] if word else [])) == passes
    late = ["objective.name=mart", "training.step=awp", "training.awp_from_step=100"]
    assert trainer_passes(load_config(None, late)) == 2 * (400 + 300)
    all_of_them = [
        "attack.further=[{name: l2, epsilon: 1}]", "attack.combine=average",
        "objective.clean_fraction=0.5",
    ]  # fmt: skip
    assert trainer_passes(load_config(None, all_of_them)) == 400 * (0.5 + 2 * 0.5)


def test_each_method_is_trained_on_each_seed_and_some_on_refreshed_attacks() -> None:
    ranges = {"methods": ["pgd", "mart"], "refreshed_methods": ["mart"], "seeds": [0, 3]}
    names = [each.name for each in trained(ranges)]
    assert names == ["pgd-0", "pgd-3", "mart-0", "mart-3", "mart-refreshed-0", "mart-refreshed-3"]


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("study.methods=[pdg]", "unknown method 'pdg': did you mean 'pgd'"),
        ("study.refreshed_methods=[fsat]", "unknown method 'fsat': did you mean 'fast'"),
        ("study.methods=[]", r"expected a list of texts, such as \['pgd', 'trades', 'm_plus'\]"),
        ("study.methods=[pgd,pgd]", "run pgd-0 would be there twice"),
        ("seed=3", "seed is set by study methods itself"),
        ("objective.name=mart", "objective.name is set by study methods itself"),
        ("attack.name=cw", "attack.name is set by study methods itself"),
        ("staleness.max_staleness=4", "staleness.max_staleness is set by study methods itself"),
    ],
)
def test_bad_methods_are_refused(tmp_path: Path, word: str, line: str) -> None:
    with pytest.raises(UserError, match=line):
        open_study(tmp_path / "study", "methods", word)


def _evaluated(folder: StudyFolder, each: Trained, pgd: float) -> None:
    """Results of made-up evaluations; with AutoAttack for the first seed alone."""
    accuracy = {"natural": 90.0, "pgd": pgd, "cw": pgd - 1, "auto": pgd - 5}
    shares = {name: {"accuracy": value} for name, value in accuracy.items()}
    report: dict[str, Any] = {
        "settings": {"model_hash": f"hash of {each.name}"},
        "natural": shares["natural"],
        "attacks": [{"this_alone": shares["pgd"]}, {"this_alone": shares["cw"]}],
    }
    reports = {"strong": report}
    if each.seed == 0:
        reports["auto"] = {**report, "attacks": [], "worst_case": shares["auto"]}
    for part, told in reports.items():
        path = folder.path / "evaluations" / f"{each.name}-{part}"
        path.mkdir(parents=True)
        (path / "evaluation.json").write_text(json.dumps(told))


def test_table_has_means_over_seeds_what_they_cost_and_which_stand_stale_attacks(
    tmp_path: Path,
) -> None:
    words = ("study.methods=[pgd, mart]", "study.refreshed_methods=[pgd, mart]")
    folder = open_study(tmp_path / "study", "methods", *words)
    finish_runs(folder)
    robust = {"pgd": 50.0, "pgd-refreshed": 49.5, "mart": 60.0, "mart-refreshed": 55.0}
    for each in trained(folder.ranges):
        _evaluated(folder, each, robust[each.name.rpartition("-")[0]] + each.seed)
    assert evaluate(folder) == []
    with style():
        table, picture, composition = show(folder).parts
    assert isinstance(table, Table) and isinstance(picture, Picture)
    assert isinstance(composition, Table)
    # 60 training steps of 8 attack steps, and 1 or 2 passes of the trainer.
    assert [*table.rows[0]] == [
        "pgd", "90.00 (90.0 to 90.0)", "50.50 (50.0 to 51.0)", "49.50 (49.0 to 50.0)", "45.00",
        "0.5", "30", "2",
    ]  # fmt: skip
    assert table.rows[1][0] == "mart" and table.rows[1][5] == "0.6"
    assert [row[-1] for row in composition.rows] == [
        "within the seeds",
        "apart: synchronous is more robust",
    ]


def test_autoattack_is_for_networks_of_synchronous_attacks_alone(tmp_path: Path) -> None:
    words = ("study.methods=[pgd]", "study.seeds=[0]", "study.autoattack=true")
    folder = open_study(tmp_path / "study", "methods", *words, "study.refreshed_methods=[pgd]")
    finish_runs(folder)
    wanted = [program.name for program in evaluate(folder)]
    assert wanted == ["pgd-0-strong", "pgd-0-auto", "pgd-refreshed-0-strong"]


def test_results_of_another_network_do_not_count(tmp_path: Path) -> None:
    folder = open_study(tmp_path / "study", "methods", "study.methods=[pgd]", "study.seeds=[0]")
    finish_runs(folder)
    first, second = trained(folder.ranges)
    _evaluated(folder, first, 50.0)
    _evaluated(folder, Trained(method="pgd", seed=7), 50.0)
    (folder.path / "evaluations" / "pgd-7-strong").rename(
        folder.path / "evaluations" / f"{second.name}-strong"
    )
    assert [program.name for program in evaluate(folder)] == ["pgd-refreshed-0-strong"]


def test_study_is_done_and_not_done_twice(tmp_path: Path) -> None:
    line = [
        sys.executable, "-m", "mpiadv.cli", "study", "methods", "--preset", "smoke", "--jobs", "2",
        "--output", str(tmp_path / "study"), "study.methods=[m_plus]",
        "study.refreshed_methods=[]", "study.seeds=[1]",
    ]  # fmt: skip
    for _ in range(2):
        done = subprocess.run(line, capture_output=True, text=True, timeout=180)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "evaluated" not in done.stdout and "m_plus-1 (1 of 1): done before" in done.stdout
    text = (tmp_path / "study" / "results.md").read_text()
    assert "| m_plus | 9" in text and "(figures/methods.png)" in text
