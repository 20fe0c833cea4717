"""The configurations that come with the project say what their comments promise."""

from pathlib import Path

import pytest
import yaml
from mpi_runner import REPOSITORY

from mpiadv.data import REGISTERED as DATA_SETS
from mpiadv.models import REGISTERED as MODELS
from mpiadv.settings import Config, load_config

FOLDER = REPOSITORY / "configs"
FILES = sorted(FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_configuration_loads_and_names_parts_that_exist(path: Path) -> None:
    config = load_config(path)
    assert config.data.name in DATA_SETS
    assert config.model.name in MODELS
    assert config.output == f"runs/{path.stem}"
    assert f"configs/{path.name}" in path.read_text()  # the line that runs it


def test_defaults_are_those_of_the_digits_run() -> None:
    assert load_config(FOLDER / "digits.yaml") == Config()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_configuration_does_not_lean_on_the_digits_defaults(path: Path) -> None:
    """A file that is silent on these would train by what suits 8x8 digits."""
    tree = yaml.safe_load(path.read_text())
    assert {"name", "batch_size"} <= tree["data"].keys()
    assert {"name", "epsilon", "num_steps"} <= tree["attack"].keys()
    assert {"name", "learning_rate"} <= tree["optimizer"].keys()
    assert "name" in tree["schedule"]
    assert {"max_staleness", "final_staleness", "publish_every"} <= tree["staleness"].keys()
    assert {"num_steps", "threads"} <= tree["training"].keys()
    assert {"every_steps", "num_steps", "step_size"} <= tree["evaluation"].keys()
    assert "every_steps" in tree["checkpoint"]
