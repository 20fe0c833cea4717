"""Study mixture: which runs and branches it has, and what it shows."""

import json
from pathlib import Path

import pytest
from made_up_study import finish_runs, open_study

from mpiadv.report.drawing import Picture, style
from mpiadv.studies.mixture import Mixed, evaluate, mixed, show
from mpiadv.studies.results import Table


def test_runs_are_all_pairs_of_batch_norms_and_shares(tmp_path: Path) -> None:
    folder = open_study(tmp_path / "study", "mixture", "study.seeds=[0, 3]")
    names = [run.name for run in folder.runs]
    assert len(names) == 2 * 4 * 2
    assert {"one-0-0", "two-50-3", "two-100-0", "one-alp-3"} <= {*names}
    (run,) = (run for run in folder.runs if run.name == "two-alp-3")
    config = folder.config_of(run)
    assert config.model.mixture_batch_norm and config.model.arguments == {"batch_norm": True}
    assert (config.objective.name, config.objective.beta, config.seed) == ("alp", 0.5, 3)


@pytest.mark.parametrize(
    ("is_double", "clean", "branches"),
    [
        (False, 0.5, ("adversarial",)), (True, 0.0, ("adversarial",)), (True, 1.0, ("natural",)),
        (True, 0.5, ("adversarial", "natural")), (True, "alp", ("adversarial", "natural")),
    ],
)  # fmt: skip
def test_branches_are_those_that_images_train(
    is_double: bool, clean: float | str, branches: tuple[str, ...]
) -> None:
    assert Mixed(is_double=is_double, clean=clean, seed=0).branches == branches


def test_each_branch_is_evaluated_and_has_a_row(tmp_path: Path) -> None:
    folder = open_study(
        tmp_path / "study", "mixture", "study.clean_fractions=[0.5]", "study.seeds=[0,1]"
    )
    finish_runs(folder)
    programs = evaluate(folder)
    assert [program.name for program in programs if "-0-" in program.name] == [
        "one-50-0-adversarial", "one-alp-0-adversarial", "two-50-0-adversarial",
        "two-50-0-natural", "two-alp-0-adversarial", "two-alp-0-natural",
    ]  # fmt: skip
    assert len(programs) == 12
    assert ["evaluation.branch=natural" in program.command for program in programs] == [
        program.name.endswith("natural") for program in programs
    ]
    for seed in (0, 1):
        of_seed = [program for program in programs if f"-{seed}-" in program.name]
        for number, program in enumerate(of_seed):
            results = {
                "settings": {"model_hash": f"hash of {program.name.rpartition('-')[0]}"},
                "natural": {"accuracy": 90.0 + number + seed},
                "attacks": [{"this_alone": {"accuracy": 50.0 + number + 3 * seed}}],
            }
            path = folder.path / "evaluations" / program.name
            path.mkdir()
            (path / "evaluation.json").write_text(json.dumps(results))
    assert evaluate(folder) == []
    with style():
        table, picture = show(folder).parts
        assert isinstance(table, Table) and isinstance(picture, Picture)
        (axis,) = picture.figure.axes
        ticks = [label.get_text() for label in axis.get_yticklabels()]
        marked = {
            marker: [line.get_xdata() for line in axis.lines if line.get_marker() == marker]
            for marker in ("s", ".")
        }
    assert ticks[1:4] == ["one, each, paired", "two, 50 %, adversarial", "two, 50 %, natural"]
    means = [x for (x,) in marked["s"]]
    assert (means[::2], means[1::2]) == ([90.5 + n for n in range(6)], [51.5 + n for n in range(6)])
    assert [*marked["."][0]] == [90, 91] and [*marked["."][1]] == [50, 53]
    assert [*map(list, table.rows)] == [
        ["one", "50 %", "-", "90.50 (90.0 to 91.0)", "51.50 (50.0 to 53.0)"],
        ["one", "each, paired", "-", "91.50 (91.0 to 92.0)", "52.50 (51.0 to 54.0)"],
        ["two", "50 %", "adversarial", "92.50 (92.0 to 93.0)", "53.50 (52.0 to 55.0)"],
        ["two", "50 %", "natural", "93.50 (93.0 to 94.0)", "54.50 (53.0 to 56.0)"],
        ["two", "each, paired", "adversarial", "94.50 (94.0 to 95.0)", "55.50 (54.0 to 57.0)"],
        ["two", "each, paired", "natural", "95.50 (95.0 to 96.0)", "56.50 (55.0 to 58.0)"],
    ]
    assert len(mixed(folder.ranges)) == 8
