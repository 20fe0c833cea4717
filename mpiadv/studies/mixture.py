"""One batch norm or two, and how much of each batch stays natural (Xie and Yuille 2020).

"Intriguing Properties of Adversarial Training at Scale", sections 4 and 5.1. Draws from logs and
evaluations alone: knows no torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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


def show(folder: StudyFolder) -> Results:
    """A table: rows by share of natural images, columns by batch norm and branch."""
    rows = [
        row
        for is_double in (False, True)
        for clean in dict.fromkeys(each.clean for each in mixed(folder.ranges))
        for row in _rows(folder, is_double, clean)
    ]
    parts = [] if not rows else [
        Table(
            title="Accuracy by batch norm and share of natural images",
            caption=f"Percent of {folder.ranges['num_images']:,} test images, mean over seeds "
            "(lowest to highest). With two batch norms a row for each branch that images have "
            "trained.",
            headings=["batch norm", "natural images", "judged through", "natural", "PGD-100"],
            rows=rows,
        )
    ]  # fmt: skip
    return Results(
        title="One batch norm or two, and natural images in training",
        introduction=[_INTRODUCTION] if rows else ["No network has been evaluated yet."],
        parts=parts,
    )


def _rows(folder: StudyFolder, is_double: bool, clean: float | str) -> list[list[str]]:
    same = [e for e in mixed(folder.ranges) if (e.is_double, e.clean) == (is_double, clean)]
    rows = []
    for branch in same[0].branches:
        found = [results_of(folder, _through(folder, each, branch)) for each in same]
        there = [each for each in found if each is not None]
        if there:
            natural = over_seeds([each["natural"]["accuracy"] for each in there])
            attacked = over_seeds([e["attacks"][0]["this_alone"]["accuracy"] for e in there])
            share = "each, paired" if clean == PAIRED else f"{100 * float(clean):g} %"
            judged = branch if is_double else "-"
            rows.append(["two" if is_double else "one", share, judged, natural, attacked])
    return rows


MIXTURE = Study(runs=runs, evaluate=evaluate, show=show)

_INTRODUCTION = (
    "Networks with batch norm, trained on batches of which a share stays natural. With one batch "
    "norm natural and adversarial images share their statistics and affine parameters; with two "
    "they have their own. In the paper, on ImageNet, natural images cost robustness with one batch "
    "norm (dropping them gains 18 points under a strong attack), and with two the adversarial "
    "branch is as robust as without them, while the natural branch is as accurate as natural "
    "training."
)
