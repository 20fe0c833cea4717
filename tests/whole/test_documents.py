"""The documents name files, folders and classes that exist, and each other's pages."""

import re
import tomllib
from pathlib import Path

import pytest
from mpi_runner import REPOSITORY

from mpiadv.settings import load_config
from mpiadv.studies.method_runs import trainer_passes

ARCHITECTURE = REPOSITORY / "docs" / "architecture.md"
PACKAGE = REPOSITORY / "mpiadv"
PAGES = [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("*.md")]
_USES_GPU = re.compile(r'torch\.cuda|is_cuda|== "cuda"')
PATH = re.compile(r"`([\w/-]+(?:\.(?:py|md|toml|h5)|/))`")


def rows_of(heading: str) -> list[list[str]]:
    """The cells of the rows of the table below a heading of the architecture page."""
    _, _, section = ARCHITECTURE.read_text(encoding="utf-8").partition(f"## {heading}")
    lines = [line for line in section.partition("\n## ")[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def found(path: str) -> Path:
    """Where a path of the page leads: it may be within the package."""
    return PACKAGE / path if (PACKAGE / path).exists() else REPOSITORY / path


def test_files_and_folders_that_the_architecture_names_exist() -> None:
    text = ARCHITECTURE.read_text(encoding="utf-8")
    named = {path for path in PATH.findall(text) if "NAME" not in path}
    assert len(named) > 60
    assert [path for path in sorted(named) if not found(path).exists()] == []


def test_floors_are_those_that_the_linter_checks() -> None:
    contracts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    layers = contracts["tool"]["importlinter"]["contracts"][0]["layers"]
    floors = [set(re.findall(r"\w+", layer)) - {"cli", "run", "__main__"} for layer in layers]
    told = [set(re.findall(r"`(\w+)/`", row[0])) for row in rows_of("The floors")]
    assert told == [floor for floor in floors if floor]


@pytest.mark.parametrize("row", rows_of("The life of a ticket"), ids=lambda row: row[0])
def test_names_of_a_ticket_are_classes_where_the_page_says(row: list[str]) -> None:
    (name,), (path,) = re.findall(r"`(\w+)`", row[0]), PATH.findall(row[1])
    assert f"class {name}" in found(path).read_text(encoding="utf-8")


@pytest.mark.parametrize("row", rows_of("Where do I add ..."), ids=lambda row: row[0])
def test_registries_are_in_the_files_of_their_row(row: list[str]) -> None:
    files = [found(path) for path in PATH.findall(f"{row[1]} {row[2]}")]
    text = "".join(path.read_text(encoding="utf-8") for path in files if path.is_file())
    for registry in re.findall(r"`(_?[A-Z_]{5,})`", row[2]):
        assert re.search(rf"^{registry}\b.*=", text, re.MULTILINE), registry


def test_gpu_code_is_where_the_page_lists_it() -> None:
    rows = rows_of("Code that needs a GPU")
    listed = {found(path) for row in rows for path in PATH.findall(row[0])}
    texts = {path: path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}
    assert {path for path, text in texts.items() if _USES_GPU.search(text)} == listed


def test_table_of_methods_has_every_configuration_and_says_what_the_trainer_does() -> None:
    text = (REPOSITORY / "docs" / "methods.md").read_text(encoding="utf-8")
    table = text.partition("\n## ")[0]
    told = dict(re.findall(r"^\| `(\w+)` \| .* \| ([^|]*) \| [^|]*\|$", table, re.MULTILINE))
    folder = REPOSITORY / "configs" / "methods"
    configs = {path.stem: load_config(path) for path in folder.glob("*.yaml")}
    assert told.keys() == configs.keys()
    for name, config in configs.items():
        whole = config.model_copy(
            update={"training": config.training.model_copy(update={"awp_from_step": 0})}
        )
        passes = trainer_passes(whole) // config.training.num_steps
        assert told[name] == str(passes) or (passes == 0 and "k" in told[name]), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (page.parent / link).exists()] == []
