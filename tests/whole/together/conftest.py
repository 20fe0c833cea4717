"""The runs of all files here inside one `mpirun`: each rank loads torch once for all of them.

A module says in `starts` what it wants to be run, and finds it in the folder of its fixture `runs`.
"""

from dataclasses import replace
from pathlib import Path

import pytest
from end_to_end import run_all


@pytest.fixture(scope="session")
def made_together(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("together")
    modules = dict.fromkeys(getattr(item, "module", None) for item in request.session.items)
    starts = [
        replace(start, folder=f"{module.__name__}/{start.folder}")
        for module in modules
        if hasattr(module, "starts")
        for start in module.starts(_made(folder / module.__name__))
    ]
    run_all(starts, folder, ranks=max(start.ranks for start in starts), timeout=900)
    return folder


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest, made_together: Path) -> Path:
    """The folder of the module's runs, made."""
    return made_together / request.module.__name__
