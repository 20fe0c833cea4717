"""Writes the page of a report, and each figure, where nothing else is. Draws nothing itself."""

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mpiadv.process.errors import UserError, printable
from mpiadv.report.drawing import MARK, Picture, saved
from mpiadv.report.page import page
from mpiadv.report.reading import Log, read_log
from mpiadv.storage.whole_files import whole_file

NAME = "report.html"

_ENDS_OF_A_FILE = 8192

Drawn = tuple[str, Picture, bytes]
"""A picture: the label of its log, empty where it shows several, and its PNG."""


def write_report(
    logs: Sequence[str], *, output: str | None, figures: str | None, overwrite: bool
) -> str:
    """Write the report on these logs, or runs' folders; what there is to be told of it.

    Raises:
        UserError: a log cannot be read, or a file not be written.
    """
    path = Path(output or _usual_output(logs))
    require_writable(path, overwrite)
    read = distinctly_labelled([read_log(each) for each in logs])
    if figures is not None:
        make_folder(Path(figures))
    drawn: list[Drawn] = []
    written = page(read, lambda *picture: drawn.append(picture))
    files = _figure_files(drawn, figures, several=len(logs) > 1)
    for file in files:
        require_writable(file, overwrite)
    for file, data in {**files, path: written.encode()}.items():
        write_file(file, data)
    told = f", also in {figures} as PNG and PDF" if figures else ""
    runs = f"{len(logs)} run{'s' if len(logs) > 1 else ''}"
    return printable(f"{path}: {runs}, {len(drawn)} figures{told}")


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
        files[path.with_name(f"{path.name}.pdf")] = saved(picture.figure, "pdf")
    return files


def _file_name(label: str) -> str:
    return re.sub(r"[^\w.-]+", "_", label)


def make_folder(folder: Path) -> None:
    """Make a folder for figures, unless it is there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot create the folder {folder} for figures: {error.strerror}: choose another"
        ) from None


def require_writable(path: Path, overwrite: bool, *, parents: bool = False) -> None:
    """Refuse what cannot be written, or is somebody else's; `parents` are made where they lack.

    Raises:
        UserError: saying what to do.
    """
    if os.path.isdir(path):
        raise UserError(f"{path} is a folder: say --output {path / 'report.html'}")
    if not path.parent.is_dir() and not parents:
        raise UserError(f"there is no folder {path.parent} to write {path.name} into: create it")
    if os.path.exists(path) and not overwrite and not _is_ours(path):
        raise UserError(
            f"{path} exists and is not of mpiadv: choose another place, or add --overwrite"
        )


def _is_ours(path: Path) -> bool:
    with path.open("rb") as file:
        first = file.read(_ENDS_OF_A_FILE)
        file.seek(max(0, path.stat().st_size - _ENDS_OF_A_FILE))
        return MARK.encode() in first + file.read()


def write_file(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all."""
    try:
        with whole_file(path) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None
