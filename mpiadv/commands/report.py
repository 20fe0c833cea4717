"""`mpiadv report`: reads logs, writes the page and each figure. Draws nothing itself."""

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mpiadv.command_lines import CommandLine
from mpiadv.process.errors import UserError, printable
from mpiadv.report.drawing import MARK, Picture, pdf
from mpiadv.report.page import page
from mpiadv.report.reading import Log, read_log
from mpiadv.storage.whole_files import whole_file

NAME = "report.html"

_ENDS_OF_A_FILE = 8192

Drawn = tuple[str, Picture, bytes]
"""A picture: the label of its log, empty where it shows several, and its PNG."""


def parser() -> CommandLine:
    """The command line."""
    described = CommandLine(
        prog="mpiadv report",
        description="Write a page of figures from the logs of runs: running, finished, "
        "interrupted or killed ones. It needs neither a network nor scripts to be read.",
        epilog="A page or figure that mpiadv report wrote is written over; any other file only "
        "with --overwrite.",
    )
    described.add_argument(
        "logs", nargs="+", metavar="LOG_OR_RUN_FOLDER", help="a log.h5, or a run's folder"
    )
    described.add_argument(
        "--output", metavar="PAGE",
        help="the page; without it report.html, in the run's folder where one is given",
    )  # fmt: skip
    described.add_argument(
        "--figures", metavar="FOLDER", help="also write each figure here, as PNG and as PDF"
    )
    described.add_argument(
        "--overwrite", action="store_true", help="write over files of other programs, too"
    )
    return described


def main(argv: Sequence[str]) -> int:
    """Write the report; returns the exit code.

    Raises:
        UserError: a log cannot be read, or a file not be written.
    """
    arguments = parser().parse_args(argv)
    output = Path(arguments.output or _usual_output(arguments.logs))
    _require_writable(output, arguments.overwrite)
    logs = distinctly_labelled([read_log(path) for path in arguments.logs])
    if arguments.figures is not None:
        _make(Path(arguments.figures))
    drawn: list[Drawn] = []
    written = page(logs, lambda *picture: drawn.append(picture))
    files = _figure_files(drawn, arguments.figures, several=len(logs) > 1)
    for path in files:
        _require_writable(path, arguments.overwrite)
    for path, data in {**files, output: written.encode()}.items():
        _write(path, data)
    told = f", also in {arguments.figures} as PNG and PDF" if arguments.figures else ""
    runs = f"{len(logs)} run{'s' if len(logs) > 1 else ''}"
    print(printable(f"{output}: {runs}, {len(drawn)} figures{told}"))
    return 0


def _usual_output(given: Sequence[str]) -> Path:
    """In the run's folder where it is the only one, else here."""
    folder = Path(given[0])
    return folder / NAME if len(given) == 1 and os.path.isdir(folder) else Path(NAME)


def distinctly_labelled(logs: Sequence[Log]) -> list[Log]:
    """The logs, a number behind each label that another log before it has, too."""
    seen: dict[str, int] = {}
    labelled = []
    for log in logs:
        seen[log.label] = number = seen.get(log.label, 0) + 1
        labelled.append(log if number == 1 else replace(log, label=f"{log.label} ({number})"))
    return labelled


def _figure_files(
    drawn: Sequence[Drawn], folder: str | None, *, several: bool
) -> dict[Path, bytes]:
    """What to write where: each picture as PNG and as PDF."""
    if folder is None:
        return {}
    files = {}
    for label, picture, data in drawn:
        prefix = f"{_file_name(label)}-" if several and label else ""
        path = Path(folder) / f"{prefix}{picture.name}"
        files[path.with_name(f"{path.name}.png")] = data
        files[path.with_name(f"{path.name}.pdf")] = pdf(picture.figure)
    return files


def _file_name(label: str) -> str:
    return re.sub(r"[^\w.-]+", "_", label)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot create the folder {folder} for figures: {error.strerror}: choose another"
        ) from None


def _require_writable(path: Path, overwrite: bool) -> None:
    if os.path.isdir(path):
        raise UserError(f"{path} is a folder: say --output {path / 'report.html'}")
    if not path.parent.is_dir():
        raise UserError(f"there is no folder {path.parent} to write {path.name} into: create it")
    if os.path.exists(path) and not overwrite and not _is_ours(path):
        raise UserError(
            f"{path} exists and is not of mpiadv report: choose another place, or add --overwrite"
        )


def _is_ours(path: Path) -> bool:
    with path.open("rb") as file:
        first = file.read(_ENDS_OF_A_FILE)
        file.seek(max(0, path.stat().st_size - _ENDS_OF_A_FILE))
        return MARK.encode() in first + file.read()


def _write(path: Path, data: bytes) -> None:
    try:
        with whole_file(path) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None
