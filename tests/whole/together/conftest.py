"""What the files here train and compare, inside one `mpirun`: each rank loads torch once for all.

A module says in `starts` what it wants to be run, and finds it in the folder of its fixture `runs`.
Where something has to lie there before, it has a `prepare`.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from end_to_end import Start, run_all

SECONDS, SECONDS_PER_START = 60.0, 4.0
"""For the job, and each start in it, on a machine that is busy with much else: ten times as long as
where nothing else runs."""


@pytest.fixture(scope="session")
def made_together(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, needs_mpirun: None
) -> Path:
    folder = tmp_path_factory.mktemp("together")
    here = [item for item in request.session.items if item.path.parent == Path(__file__).parent]
    modules = dict.fromkeys(item.getparent(pytest.Module) for item in here)
    starts = [start for module in modules if module for start in _starts_of(module.obj, folder)]
    ranks, seconds = max(start.ranks for start in starts), SECONDS + SECONDS_PER_START * len(starts)
    run_all(starts, folder, ranks=ranks, timeout=seconds)
    return folder


def _starts_of(module: Any, folder: Path) -> list[Start]:
    own = folder / module.__name__
    own.mkdir()
    getattr(module, "prepare", _nothing)(own)
    return [replace(start, folder=f"{own.name}/{start.folder}") for start in module.starts(own)]


def _nothing(folder: Path) -> None:
    """Most modules need nothing before."""


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest, made_together: Path) -> Path:
    """The folder of the module's runs, made."""
    return made_together / str(request.module.__name__)
