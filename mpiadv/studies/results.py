"""What a study shows, and its files: results.md, results.html and figures. Knows no study."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from mpiadv.process.words import duration
from mpiadv.report.drawing import Picture, saved
from mpiadv.report.page import document, illustration, table
from mpiadv.report.reading import Log
from mpiadv.report.series import final_evaluation, row_seconds
from mpiadv.storage.whole_files import whole_file, write_text
from mpiadv.studies.folder import StudyFolder


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table with what to say about it; the first cell of each row is its heading."""

    title: str
    caption: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class Results:
    """All that a study shows, in order.

    Attributes:
        introduction: paragraphs: what was done, and what is to be seen.
        parts: tables and pictures.
    """

    title: str
    introduction: Sequence[str]
    parts: Sequence[Table | Picture]


def write_results(folder: StudyFolder, results: Results) -> list[Path]:
    """Write results.md, results.html and the figures; the paths of the first two."""
    figures = folder.path / "figures"
    figures.mkdir(exist_ok=True)
    parts = [*results.parts, *([runs_table(folder)] if folder.runs else [])]
    body = [f"<h1>{escape(results.title)}</h1>", *map(_paragraph, results.introduction)]

    def keep(label: str, picture: Picture, data: bytes) -> None:
        _write(figures / f"{picture.name}.png", data)
        _write(figures / f"{picture.name}.pdf", saved(picture.figure, "pdf"))

    for part in parts:
        body.append(_html(part) if isinstance(part, Table) else illustration("", part, keep))
    page, text = folder.path / "results.html", folder.path / "results.md"
    write_text(page, document(results.title, "\n".join(body)))
    write_text(text, markdown(results.title, results.introduction, parts))
    return [text, page]


def markdown(title: str, introduction: Sequence[str], parts: Sequence[Table | Picture]) -> str:
    """The results as Markdown that shows the figures of the folder `figures`."""
    blocks = [f"# {title}", *introduction]
    for part in parts:
        blocks.append(f"## {part.title}")
        if isinstance(part, Table):
            blocks += [_markdown_table(part), part.caption]
        else:
            blocks += [f"![{part.title}](figures/{part.name}.png)", part.caption]
    return "\n\n".join(filter(None, blocks)) + "\n"


def runs_table(folder: StudyFolder) -> Table:
    """How the runs of a study stand: a row for each."""
    return Table(
        title="Runs",
        caption=f"Preset {folder.request.preset}{_changes(folder)}. Accuracies are those that each "
        "run measured itself at its end, or last; times are of training alone, on a machine that "
        "may have been shared.",
        headings=["run", "state", "steps", "natural", "adversarial", "images", "time"],
        rows=[
            _run_row(run.name, folder.log(run.name), has_log=folder.has_log(run.name))
            for run in folder.runs
        ],
    )


def percent(fraction: float) -> str:
    """A fraction in percent, two digits; a dash where it is not known."""
    return f"{100 * fraction:.2f}" if fraction == fraction else "-"


def _run_row(name: str, log: Log | None, *, has_log: bool) -> list[str]:
    if log is None:
        return [name, "log cannot be read" if has_log else "not begun", *["-"] * 5]
    steps = f"{log.num_steps} of {log.planned_steps}"
    seconds = duration(float(row_seconds(log).sum()))
    for row in final_evaluation(log):
        accuracies = [percent(row[f"{kind}_accuracy"]) for kind in ("natural", "adversarial")]
        return [name, log.condition, steps, *accuracies, str(row["num_samples"]), seconds]
    return [name, log.condition, steps, "-", "-", "-", seconds]


def _changes(folder: StudyFolder) -> str:
    changes = " ".join(f"{key}={value}" for key, value in folder.request.changes.items())
    return f", changed by {changes}" if changes else ""


def _paragraph(words: str) -> str:
    return f"<p>{escape(words)}</p>"


def _html(part: Table) -> str:
    return (
        f"<h3>{escape(part.title)}</h3>\n{table(part.headings, part.rows)}\n"
        f"<p class='note'>{escape(part.caption)}</p>"
    )


def _markdown_table(part: Table) -> str:
    lines = [part.headings, ["---"] * len(part.headings), *part.rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def _write(path: Path, data: bytes) -> None:
    with whole_file(path) as temporary:
        temporary.write_bytes(data)
