"""Runs that tests of the report have in common."""

from pathlib import Path

import pytest
from sample_logs import finished_run, resumed_run


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run and a resumed one, which is not over."""
    folder = tmp_path_factory.mktemp("runs")
    finished_run(folder / "finished")
    resumed_run(folder / "resumed")
    return folder
