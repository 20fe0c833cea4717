"""Methods of robust training under equal conditions (the table of DEAT's paper).

Wang et al. 2021, "Dynamic Efficient Adversarial Training Guided by Gradient Magnitude", table 1.
Draws from logs and evaluations alone: knows no torch.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from mpiadv.process.words import counted
from mpiadv.report.drawing import ADVERSARIAL, Picture, panels
from mpiadv.report.series import row_seconds
from mpiadv.studies.definition import Study
from mpiadv.studies.evaluated import Evaluation, missing, over_seeds, results_of
from mpiadv.studies.folder import StudyFolder
from mpiadv.studies.method_runs import Trained, runs, trained, trainer_passes
from mpiadv.studies.processes import Program
from mpiadv.studies.results import Results, Table

PGD, CW, AUTO = "PGD-100", "CW-20", "AutoAttack"
_PARTS = {"strong": ("pgd:steps=100", "cw:steps=20"), "auto": ("autoattack",)}
"""Evaluations of each network: their names, and the attacks, each on all images that are right."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of a run: accuracies in percent by name of the attack, and what it took."""

    accuracies: Mapping[str, float]
    passes: float
    seconds: float


def evaluate(folder: StudyFolder) -> list[Program]:
    """An evaluation of each finished network under the attacks of the table.

    Those of refreshed attacks are compared under PGD and CW alone, and spared AutoAttack.
    """
    wanted = [
        _part(folder, each, part)
        for each in trained(folder.ranges)
        for part in ("strong", "auto")
        if part == "strong" or (folder.ranges["autoattack"] and not each.is_refreshed)
    ]
    return missing(folder, wanted)


def _part(folder: StudyFolder, each: Trained, part: str) -> Evaluation:
    num_images = folder.ranges["num_images" if part == "strong" else "auto_images"]
    return Evaluation(run=each.name, part=part, attacks=_PARTS[part], num_images=num_images)


def result_of(folder: StudyFolder, each: Trained) -> Result | None:
    """What became of a run; None where it is not finished, or not evaluated."""
    log, strong = folder.log(each.name), results_of(folder, _part(folder, each, "strong"))
    if log is None or strong is None:
        return None
    pgd, cw = strong["attacks"]
    accuracies = {"natural": strong["natural"], PGD: pgd["this_alone"], CW: cw["this_alone"]}
    if auto := results_of(folder, _part(folder, each, "auto")):
        accuracies[AUTO] = auto["worst_case"]
    (run,) = (run for run in folder.runs if run.name == each.name)
    config = folder.config_of(run)
    crafted = float(log.column("attack_steps").sum()) * config.training.tickets_per_step
    return Result(
        accuracies={name: float(share["accuracy"]) for name, share in accuracies.items()},
        passes=crafted + trainer_passes(config),
        seconds=float(row_seconds(log).sum()),
    )


def show(folder: StudyFolder) -> Results:
    """The table of all methods, and which of them stand stale attacks."""
    found = {each: result_of(folder, each) for each in trained(folder.ranges)}
    known = {each: found for each, found in found.items() if found is not None}
    parts: list[Table | Picture] = []
    if known:
        parts += [_table(folder, known), _picture(known)]
    if refreshed := [each for each in known if each.is_refreshed]:
        parts.append(_composition(known, dict.fromkeys(each.method for each in refreshed)))
    return Results(
        title="Methods of robust training under equal conditions",
        introduction=[_INTRODUCTION] if known else ["No network has been evaluated yet."],
        parts=parts,
    )


METHODS_STUDY = Study(runs=runs, evaluate=evaluate, show=show)

_INTRODUCTION = (
    "Each method trains the same network on the same images in the same order, for the same number "
    "of training steps, at the same learning rate and radius; networks are then attacked by each "
    "attack alone, on the same test images. Figures are means over the seeds, with the lowest and "
    "the highest behind them. Passes are forward and backward ones through the network, of attacks "
    "and of the trainer, in thousands of batches: what a method costs on any machine. A training "
    "step of GradAlign counts three, two of them with second derivatives, which take longer."
)


def _table(folder: StudyFolder, known: Mapping[Trained, Result]) -> Table:
    methods = list(dict.fromkeys(each.method for each in known if not each.is_refreshed))
    names = ["natural", PGD, CW, AUTO]
    rows = []
    for method in methods:
        ours = _of(known, method, is_refreshed=False)
        cells = [over_seeds([one.accuracies.get(name) for one in ours]) for name in names]
        passes, seconds = fmean(o.passes for o in ours), fmean(o.seconds for o in ours)
        rows.append([method, *cells, f"{passes / 1000:.1f}", f"{seconds:.0f}", str(len(ours))])
    counts = counted(folder.ranges["num_images"], "test image")
    auto = folder.ranges["autoattack"] and folder.ranges["auto_images"]
    return Table(
        title="Accuracy, and what it costs",
        caption=f"Percent of {counts}, mean (lowest to highest); "
        + (f"AutoAttack: of {auto:,}." if auto else "AutoAttack was not asked for.")
        + " Passes in thousands; seconds of training, on machines that may have been shared.",
        headings=["method", *names, "passes", "seconds", "seeds"],
        rows=rows,
    )


def _composition(known: Mapping[Trained, Result], methods: Iterable[str]) -> Table:
    rows = []
    for method in methods:
        sides = [_of(known, method, is_refreshed=is_refreshed) for is_refreshed in (False, True)]
        cells = [
            over_seeds([one.accuracies[name] for one in side])
            for name in ("natural", PGD)
            for side in sides
        ]
        rows.append([method, *cells, _verdict(*([o.accuracies[PGD] for o in s] for s in sides))])
    return Table(
        title="On attacks that are refreshed",
        caption="The same methods on attacks whose first step uses parameters 16 training steps "
        f"old and whose last step 2, beside the synchronous ones; {PGD}. Apart: all seeds of one "
        "side are above all of the other.",
        headings=[
            "method", "natural", "natural, refreshed", PGD, f"{PGD}, refreshed", "",
        ],
        rows=rows,
    )  # fmt: skip


def _verdict(synchronous: Sequence[float], refreshed: Sequence[float]) -> str:
    if not synchronous or not refreshed:
        return "-"
    if min(synchronous) > max(refreshed):
        return "apart: synchronous is more robust"
    if min(refreshed) > max(synchronous):
        return "apart: refreshed is more robust"
    return "within the seeds"


def _of(known: Mapping[Trained, Result], method: str, *, is_refreshed: bool) -> list[Result]:
    return [
        found
        for each, found in known.items()
        if each.method == method and each.is_refreshed is is_refreshed
    ]


def _picture(known: Mapping[Trained, Result]) -> Picture:
    figure, (axis,) = panels(1, height=4.0)
    for method in dict.fromkeys(each.method for each in known if not each.is_refreshed):
        ours = _of(known, method, is_refreshed=False)
        passes = fmean(one.passes / 1000 for one in ours)
        values = [one.accuracies[PGD] for one in ours]
        axis.plot([passes] * len(values), values, color=ADVERSARIAL, marker=".", alpha=0.4)
        axis.plot(passes, fmean(values), color=ADVERSARIAL, marker="s")
        axis.annotate(
            method, (passes, fmean(values)), xytext=(6, 3), textcoords="offset points", fontsize=8
        )
    axis.set_xlabel("forward and backward passes (thousands of batches)")
    axis.set_ylabel(f"test accuracy under {PGD} (%)")
    axis.margins(x=0.15)
    return Picture(
        name="methods",
        title="Robust accuracy, and the passes that it takes",
        figure=figure,
        caption="A square per method, at the mean of its seeds, which are the points on its line. "
        "Further up is more robust, further left is cheaper.",
    )
