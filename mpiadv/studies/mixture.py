"""One batch norm or two, and how much of each batch stays natural (Xie and Yuille 2020).

"Intriguing Properties of Adversarial Training at Scale", sections 4 and 5.1. Draws from logs and
evaluations alone: knows no torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from mpiadv.report import drawing
from mpiadv.report.drawing import Picture, panels
from mpiadv.studies.definition import Study
from mpiadv.studies.evaluated import Evaluation, missing, over_seeds, results_of
from mpiadv.studies.folder import StudyFolder
from mpiadv.studies.processes import Program
from mpiadv.studies.results import Results, Table
from mpiadv.studies.runs import Request, Run, require_unchanged

PAIRED = "alp"
"""In the place of a share: each image natural and attacked, their logits paired."""

ADVERSARIAL, NATURAL = "adversarial", "natural"
"""Branches of two batch norms."""


@dataclass(frozen=True, kw_only=True)
class Mixed:
    """A run: one batch norm or two; a share of each batch that stays natural, or `PAIRED`."""

    is_double: bool
    clean: float | str
    seed: int

    @property
    def name(self) -> str:
        clean = PAIRED if self.clean == PAIRED else f"{100 * float(self.clean):g}"
        return f"{'two' if self.is_double else 'one'}-{clean}-{self.seed}"

    @property
    def settings(self) -> dict[str, Any]:
        objective: Mapping[str, Any] = {"objective.clean_fraction": self.clean}
        if self.clean == PAIRED:
            objective = {"objective.name": "alp", "objective.beta": 0.5}
        # What the run itself tells of is a branch that something trains.
        branch = ADVERSARIAL if ADVERSARIAL in self.branches else NATURAL
        return {
            "seed": self.seed,
            "model.mixture_batch_norm": self.is_double,
            "evaluation.branch": branch,
            **objective,
        }

    @property
    def branches(self) -> tuple[str, ...]:
        """Those that any image trains: with one batch norm it is called the adversarial one."""
        if not self.is_double:
            return (ADVERSARIAL,)
        is_attacked, is_natural = self.clean != 1, self.clean != 0
        return (*((ADVERSARIAL,) if is_attacked else ()), *((NATURAL,) if is_natural else ()))


def mixed(ranges: Mapping[str, Any]) -> list[Mixed]:
    """What the study's own settings ask for."""
    return [
        Mixed(is_double=is_double, clean=clean, seed=seed)
        for is_double in (False, True)
        for clean in (*ranges["clean_fractions"], *([PAIRED] if ranges["paired"] else []))
        for seed in ranges["seeds"]
    ]


def runs(request: Request) -> list[Run]:
    """A run for each number of batch norms, share of natural images and seed.

    Raises:
        UserError: a change of what tells them apart.
    """
    require_unchanged(request, ("objective.name", "objective.beta", "objective.clean_fraction"))
    return [Run(name=each.name, overrides=each.settings) for each in mixed(request.ranges)]


def evaluate(folder: StudyFolder) -> list[Program]:
    """An evaluation of each network through each of its branches."""
    wanted = [
        _through(folder, each, branch) for each in mixed(folder.ranges) for branch in each.branches
    ]
    return missing(folder, wanted)


def _through(folder: StudyFolder, each: Mixed, branch: str) -> Evaluation:
    return Evaluation(
        run=each.name,
        part=branch,
        attacks=("pgd:steps=100",),
        num_images=folder.ranges["num_images"],
        settings=("evaluation.branch=natural",) if branch == NATURAL else (),
    )


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Networks of all seeds, judged through one branch: accuracies in percent, one of each seed."""

    is_double: bool
    clean: float | str
    branch: str
    natural: Sequence[float]
    attacked: Sequence[float]

    @property
    def cells(self) -> list[str]:
        """Batch norms, share of natural images, and the branch where there are two."""
        share = "each, paired" if self.clean == PAIRED else f"{100 * float(self.clean):g} %"
        judged = self.branch if self.is_double else "-"
        return ["two" if self.is_double else "one", share, judged]


def show(folder: StudyFolder) -> Results:
    """A table and a picture: by share of natural images, batch norm and branch."""
    rows = _judged(folder)
    parts: list[Table | Picture] = [_table(folder, rows), _picture(rows)] if rows else []
    return Results(
        title="One batch norm or two, and natural images in training",
        introduction=[_INTRODUCTION] if rows else ["No network has been evaluated yet."],
        parts=parts,
    )


def _judged(folder: StudyFolder) -> list[Judged]:
    everything = mixed(folder.ranges)
    rows = []
    for is_double, clean in dict.fromkeys((each.is_double, each.clean) for each in everything):
        same = [e for e in everything if (e.is_double, e.clean) == (is_double, clean)]
        for branch in same[0].branches:
            found = [results_of(folder, _through(folder, each, branch)) for each in same]
            there = [each for each in found if each is not None]
            if there:
                row = Judged(
                    is_double=is_double,
                    clean=clean,
                    branch=branch,
                    natural=[each["natural"]["accuracy"] for each in there],
                    attacked=[e["attacks"][0]["this_alone"]["accuracy"] for e in there],
                )
                rows.append(row)
    return rows


def _table(folder: StudyFolder, rows: Sequence[Judged]) -> Table:
    return Table(
        title="Accuracy by batch norm and share of natural images",
        caption=f"Percent of {folder.ranges['num_images']:,} test images, mean over seeds "
        "(lowest to highest). With two batch norms a row for each branch that images have "
        "trained.",
        headings=["batch norm", "natural images", "judged through", "natural", "PGD-100"],
        rows=[[*row.cells, over_seeds(row.natural), over_seeds(row.attacked)] for row in rows],
    )


def _picture(rows: Sequence[Judged]) -> Picture:
    figure, (axis,) = panels(1, height=1.6 + 0.3 * len(rows))
    for place, row in enumerate(rows):
        figures = (row.natural, drawing.NATURAL), (row.attacked, drawing.ADVERSARIAL)
        for values, colour in figures:
            axis.plot(values, [place] * len(values), color=colour, marker=".", alpha=0.4)
            axis.plot(fmean(values), place, color=colour, marker="s")
    axis.set_yticks(range(len(rows)), [", ".join(c for c in row.cells if c != "-") for row in rows])
    axis.invert_yaxis()
    axis.set_xlabel("test accuracy (%)")
    return Picture(
        name="mixture",
        title="Natural and robust accuracy",
        figure=figure,
        caption="Batch norms, share of natural images, and the branch that judges. Blue: on "
        "natural images; red: under PGD-100. A square is the mean of its seeds, which are the "
        "points on its line.",
    )


MIXTURE = Study(runs=runs, evaluate=evaluate, show=show)

_INTRODUCTION = (
    "Networks with batch norm, trained on batches of which a share stays natural. With one batch "
    "norm natural and adversarial images share their statistics and affine parameters; with two "
    "they have their own. In the paper, on ImageNet, natural images cost robustness with one batch "
    "norm (dropping them gains 18 points under a strong attack), and with two the adversarial "
    "branch is as robust as without them, while the natural branch is as accurate as natural "
    "training."
)
