"""The files of an evaluation: `.json` to read, `.h5` to analyse, each whole or absent.

Beside them `.png` shows broken images, where some are kept. Knows no model and no communicator.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from mpiadv.evaluation.results import Findings
from mpiadv.process.errors import UserError
from mpiadv.report.evaluations import MOST_BYTES
from mpiadv.storage.small_files import read_small
from mpiadv.storage.whole_files import whole_file, write_text


def file_of(output: Path, ending: str) -> Path:
    """The file `.json`, `.h5` or `.png` of `output`, which has no ending."""
    return output.with_name(f"{output.name}{ending}")


def require_free(output: Path, settings: Mapping[str, Any], *, overwrite: bool) -> None:
    """Refuse to write over the results of other settings; make the folder if there is none.

    Raises:
        UserError: there are such results, or the folder cannot be made.
    """
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create folder {output.parent}: {error.strerror}") from None
    if overwrite:
        return
    path = file_of(output, ".json")
    if path.exists() and _settings_in(path) != json.loads(json.dumps(settings)):
        raise UserError(
            f"{path} holds results of other settings: add --overwrite, or choose another folder "
            "with --output FOLDER"
        )


def write_results(
    output: Path,
    report: Mapping[str, Any],
    findings: Findings,
    images: npt.NDArray[np.float32] | None,
) -> None:
    """Write both files; `images` that broke others go into the HDF5 file, unless None.

    A picture of earlier results, which these are not, is removed.
    """
    file_of(output, ".png").unlink(missing_ok=True)
    text = json.dumps(report, indent=1)
    with whole_file(file_of(output, ".h5")) as temporary, h5py.File(temporary, "w") as file:
        file["report"] = text
        _write_samples(file, findings)
        if images is not None:
            _write_examples(file, findings, images)
    write_text(file_of(output, ".json"), text + "\n")


def _settings_in(path: Path) -> Any:
    try:
        return json.loads(read_small(path, MOST_BYTES))["settings"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _write_samples(file: h5py.File, findings: Findings) -> None:
    columns = {
        "index": findings.indices,
        "label": findings.labels,
        "natural_prediction": findings.natural_predictions,
        "first_breaker": findings.first_breaker,
    }
    rows = np.zeros(findings.num_samples, [(name, "i8") for name in columns])
    for name, values in columns.items():
        rows[name] = values
    table = file.create_dataset("samples", data=rows)
    table.attrs["first_breaker"] = "number of the first attack that broke the image; -1: none"
    titles = [attack.title for attack in findings.attacks]
    for name, column in (("attacked", findings.attacked), ("broken", findings.broken)):
        fates = [column(number) for number in range(len(titles))]
        flags = np.stack(fates, axis=1) if fates else np.zeros((findings.num_samples, 0), bool)
        file.create_dataset(name, data=flags).attrs["attacks"] = titles


def _write_examples(file: h5py.File, findings: Findings, images: npt.NDArray[np.float32]) -> None:
    group, rows = file.create_group("examples"), findings.broken_rows
    group["index"] = findings.indices[rows]
    group["attack"] = findings.first_breaker[rows]
    group["prediction"] = findings.adversarial_predictions[rows]
    if len(rows):
        group["images"] = images
        group["images"].attrs["unit"] = "adversarial images [N, C, H, W], pixels in [0, 1]"
