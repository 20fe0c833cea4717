"""Transfer: examples made on one network, judged by another (Bhat et al., table 1).

Draws from the scores alone: knows no torch.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mpiadv.report.drawing import Picture, panels
from mpiadv.report.reading import text
from mpiadv.runlog.rows import Rows
from mpiadv.studies.definition import Study
from mpiadv.studies.folder import StudyFolder
from mpiadv.studies.power import BEYOND_CHANCE, CLEARLY, is_clearly_above, run_with
from mpiadv.studies.results import Results, Table, percent
from mpiadv.studies.runs import Request, Run
from mpiadv.studies.scores import Scoring

Grid = Mapping[tuple[int, int], Rows]
"""Attack steps in training of (target, source), to the row of scores."""

PAPER: Mapping[tuple[int, int], float] = {
    (1, 1): 98.55, (1, 4): 48.63, (1, 8): 27.16, (1, 128): 28.36,
    (4, 1): 57.34, (4, 4): 99.98, (4, 8): 54.18, (4, 128): 60.31,
    (8, 1): 96.40, (8, 4): 97.27, (8, 8): 93.88, (8, 128): 94.26,
    (128, 1): 96.28, (128, 4): 96.69, (128, 8): 93.92, (128, 128): 91.70,
}  # fmt: skip
"""Table 1 of Bhat, Tsipras and Madry (2019): (target, source) to test accuracy in percent."""

_PAPER_DATA, _PAPER_EPSILON = "mnist", 0.3

_MARK = "\u2020"
_RULE = (
    f"{_MARK} shattered gradients: examples made on another network bring the accuracy more than "
    f"{100 * CLEARLY:g} points below that under the white-box attack, which knows more"
    f"{BEYOND_CHANCE}."
)


def runs(request: Request) -> list[Run]:
    """A synchronous run for each number of attack steps, the same as those of study power."""
    return [run_with(num_steps) for num_steps in request.ranges["training_steps"]]


def score(folder: StudyFolder) -> list[Scoring]:
    """Examples made on each network, with its own training attack's steps and with the most."""
    everyone = tuple(run.name for run in folder.runs)
    most = max(_steps(run) for run in folder.runs)
    return [
        Scoring(
            source=run.name,
            targets=everyone,
            split="test",
            attack_steps=num_steps,
            num_images=folder.ranges["num_images"],
        )
        for run in folder.runs
        for num_steps in (_steps(run), most)
    ]


def show(folder: StudyFolder) -> Results:
    """Table 1, the same with the strongest attack for all, and both as maps."""
    own, strongest = grids(folder)
    most = max(_steps(run) for run in folder.runs)
    parts: list[Table | Picture] = []
    if own:
        parts += [
            _table(own, "Transfer with each source's own attack (table 1)",
                   "made with as many attack steps as the source was trained with"),
            *_beside_the_paper(folder, own),
            _table(strongest, f"Transfer with {most} attack steps for all",
                   f"made with {most} attack steps on every source"),
            _maps(own, strongest, most),
        ]  # fmt: skip
    return Results(
        title="Transfer: examples made on one network, judged by another",
        introduction=[_INTRODUCTION, *_findings(own, strongest)],
        parts=parts,
    )


def grids(folder: StudyFolder) -> tuple[Grid, Grid]:
    """The scores with each source's own number of attack steps, and those with the most."""
    trained = {run.name: _steps(run) for run in folder.runs}
    most = max(trained.values())
    own: dict[tuple[int, int], Rows] = {}
    strongest: dict[tuple[int, int], Rows] = {}
    for row in folder.scores():
        pair = trained[text(row["target"])], trained[text(row["source"])]
        if text(row["split"]) == "test" and row["attack_steps"] == pair[1]:
            own[pair] = row
        if text(row["split"]) == "test" and row["attack_steps"] == most:
            strongest[pair] = row
    return own, strongest


def is_shattered(grid: Grid, target: int, source: int) -> bool:
    """Whether examples made on `source` hurt `target` clearly more than its own."""
    if (target, target) not in grid or (target, source) not in grid:
        return False
    return is_clearly_above(grid[target, target], grid[target, source])


TRANSFER = Study(
    runs=runs,
    score=score,
    show=show,
)

_INTRODUCTION = (
    "Each network is trained with its own number k of attack steps; all begin with the same "
    "weights and see the same images in the same order. PGD examples of the test images are made "
    "on one network, the source, and classified by another, the target. An attack that sees the "
    "target's own gradients (white box) should hurt most. Where examples made elsewhere hurt more, "
    "those gradients are shattered: they mislead attacks, and the accuracy under the network's own "
    "attack is no robustness. In the paper this is so for k = 1 and 4, not for 8 and 128."
)


def _findings(own: Grid, strongest: Grid) -> list[str]:
    targets = _ends(own, 0)
    if not targets:
        return ["No network has been scored yet."]
    found = {
        target: [
            s for s in _ends(own, 1) if any(is_shattered(g, target, s) for g in (own, strongest))
        ]
        for target in targets
    }
    told = [
        f"k = {target} (by examples made on {', '.join(f'k = {s}' for s in sources)})"
        for target, sources in found.items()
        if sources
    ]
    sound = [
        f"k = {target}"
        for target, sources in found.items()
        if not sources and any(_is_judged(grid, target) for grid in (own, strongest))
    ]
    return [
        f"Shattered here: {'; '.join(told) or 'none'}. No sign of it: {', '.join(sound) or 'none'}."
    ]


def _is_judged(grid: Grid, target: int) -> bool:
    """Whether a target has a white-box score and another to set against it."""
    sources = [source for judge, source in grid if judge == target]
    return target in sources and len(sources) > 1


def _table(grid: Grid, title: str, how: str) -> Table:
    sources = _ends(grid, 1)
    count = max((int(row["num_images"]) for row in grid.values()), default=0)
    rows = [
        [f"k = {target}", _natural(grid, target), *(_cell(grid, target, s) for s in sources)]
        for target in _ends(grid, 0)
    ]
    return Table(
        title=title,
        caption=f"Accuracy in percent of the target (rows, by its attack steps k in training) on "
        f"{count} test images, attacked on the source (columns), {how}. In brackets: "
        f"white box. {_RULE}",
        headings=["target", "natural", *(f"source k = {source}" for source in sources)],
        rows=rows,
    )


def _beside_the_paper(folder: StudyFolder, own: Grid) -> list[Table]:
    """Ours and the paper's figures in one table, where the setting is comparable."""
    config = folder.request.config
    common = [k for k in _ends(own, 1) if (k, k) in PAPER]
    if config.data.name != _PAPER_DATA or config.attack.epsilon != _PAPER_EPSILON or not common:
        return []
    rows = [
        [f"k = {target}", *(f"{_cell(own, target, s)} ({PAPER[target, s]:.2f})" for s in common)]
        for target in common
    ]
    return [
        Table(
            title="Beside the paper",
            caption="The same figures, behind them in parentheses those of the paper's table 1, "
            f"for the k in common. The paper's networks took 60,000 training steps of 128 images, "
            f"these {config.training.num_steps:,} of {config.data.batch_size}, at "
            f"{config.model.arguments.get('width', 1):g} times the paper's width; it used 10,000 "
            "test images.",
            headings=["target", *(f"source k = {source}" for source in common)],
            rows=rows,
        )
    ]


def _maps(own: Grid, strongest: Grid, most: int) -> Picture:
    targets = sorted({*_ends(own, 0), *_ends(strongest, 0)})
    figure, axes = panels(height=max(3.2, 0.55 * len(targets) + 1.9))
    named = ((own, "each source's own attack"), (strongest, f"{most} attack steps for all"))
    for axis, (grid, title) in zip(axes, named, strict=True):
        _map(figure, axis, grid, targets)
        axis.set_title(title)
    return Picture(
        name="transfer",
        title="Transfer as maps",
        figure=figure,
        caption="Test accuracy in percent of the target (rows) on examples made on the source "
        "(columns); framed: white box. In a sound row the frame holds the lowest number. "
        f"{_RULE}",
    )


def _map(figure: Figure, axis: Axes, grid: Grid, steps: Sequence[int]) -> None:
    values = [[_percent(grid.get((target, source))) for source in steps] for target in steps]
    image = axis.imshow(values, vmin=0, vmax=100, cmap="viridis", aspect="auto")
    for row, target in enumerate(steps):
        for column, source in enumerate(steps):
            _annotate(axis, (row, column), values[row][column], is_shattered(grid, target, source))
        axis.add_patch(
            Rectangle((row - 0.48, row - 0.46), 0.96, 0.92, fill=False, edgecolor="#c62828", lw=2.2)
        )
    axis.set_xticks(range(len(steps)), [str(k) for k in steps])
    axis.set_yticks(range(len(steps)), [str(k) for k in steps])
    axis.set_xlabel("source: attack steps k in training")
    axis.set_ylabel("target: attack steps k in training")
    axis.grid(False)
    figure.colorbar(image, ax=axis, label="accuracy (%)")


def _annotate(axis: Axes, cell: tuple[int, int], value: float, marked: bool) -> None:
    if np.isfinite(value):
        axis.text(
            cell[1], cell[0], f"{value:.1f}{_MARK if marked else ''}",
            ha="center", va="center", color="black" if value > 60 else "white",
        )  # fmt: skip


def _natural(grid: Grid, target: int) -> str:
    known = [row for (judge, _), row in grid.items() if judge == target]
    return percent(float(known[0]["natural_accuracy"])) if known else "-"


def _cell(grid: Grid, target: int, source: int) -> str:
    if (target, source) not in grid:
        return "-"
    told = percent(_accuracy(grid[target, source]))
    if target == source:
        return f"[{told}]"
    return f"{told}{_MARK}" if is_shattered(grid, target, source) else told


def _ends(grid: Grid, end: int) -> list[int]:
    """The targets (0) or sources (1) of a grid, in order."""
    return sorted({pair[end] for pair in grid})


def _steps(run: Run) -> int:
    steps: int = run.overrides["attack.num_steps"]
    return steps


def _accuracy(row: Rows) -> float:
    return float(row["adversarial_accuracy"])


def _percent(row: Rows | None) -> float:
    return float("nan") if row is None else 100 * _accuracy(row)
