"""The page: every run can be shown, every figure is there and explained, nothing is lost."""

import base64
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from sample_logs import begin, begun_run, finished_run, train_row, write_steps

from mpiadv import cli
from mpiadv.report.comparison import compared_training
from mpiadv.report.page import OF_ONE, OF_SEVERAL, page
from mpiadv.report.reading import read_log
from mpiadv.report.staleness import staleness
from mpiadv.report.summary import summary_table
from mpiadv.report.training import gradients

VOID = {"meta", "link", "img", "br"}


class Parsed(HTMLParser):
    """A page: its figures, its text, and every tag closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open_tags: list[str] = []
        self.links: list[str] = []
        self.pictures: list[bytes] = []
        self.captions: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open_tags.append(tag)
        if tag == "figcaption":
            self.captions.append("")
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset")]
        if tag == "img":
            self.pictures.append(base64.b64decode(dict(attrs)["src"].partition(",")[2]))

    def handle_endtag(self, tag: str) -> None:
        assert self.open_tags.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.open_tags[-1:] == ["figcaption"]:
            self.captions[-1] += data


@pytest.fixture
def two_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer and coarser figures, where it matters only that there are some."""
    monkeypatch.setattr("mpiadv.report.drawing.DOTS_PER_INCH", 50)
    monkeypatch.setattr("mpiadv.report.page.OF_ONE", {"a": staleness, "b": gradients})
    monkeypatch.setattr("mpiadv.report.page.OF_SEVERAL", [compared_training])


@pytest.fixture(scope="module")
def written(runs: Path) -> str:
    """The page of both runs."""
    return page([read_log(runs / name) for name in ("finished", "resumed")])


def test_page_holds_every_figure_with_a_caption_and_closes_every_tag(written: str) -> None:
    parsed = Parsed(written)
    assert parsed.open_tags == []
    assert len(parsed.pictures) == len(OF_SEVERAL) + 2 * len(OF_ONE)
    assert len(parsed.captions) == len(parsed.pictures)
    assert all(len(caption) > 60 for caption in parsed.captions)
    for picture in parsed.pictures:
        assert picture.startswith(b"\x89PNG") and int.from_bytes(picture[16:20]) >= 1400


def test_page_asks_for_nothing_from_outside_and_runs_nothing(written: str) -> None:
    parsed = Parsed(written)
    assert all(link.startswith("data:") for link in parsed.links)
    assert not {"script", "iframe", "object", "embed"} & set(parsed.tags)
    assert re.findall(r"https?:|@import|url\(", written) == []


def test_same_logs_give_the_same_page(runs: Path, two_figures: None) -> None:
    logs = [read_log(runs / "resumed")]
    assert page(logs) == page(logs)


def test_text_of_events_cannot_become_part_of_the_page(tmp_path: Path) -> None:
    with begin(tmp_path / "run") as log:
        log.event("<b>kind</b>", "<script>alert('ä')</script>", 0)
    parsed = Parsed(page([read_log(tmp_path / "run")]))
    assert not {"script", "b"} & set(parsed.tags)
    assert "<script>alert('ä')</script>" in parsed.text


def test_summary_tells_how_runs_ended(runs: Path) -> None:
    rows = {row[0]: row[1:] for row in summary_table([read_log(runs / "finished"),
                                                      read_log(runs / "resumed")])}  # fmt: skip
    assert rows["state"] == ("finished", "running")
    assert rows["steps"] == ("60 of 60", "40 of 60")
    assert rows["ranks"] == ("3", "3, then 2")
    assert rows["versions"] == ("one copy on each of 2 hosts", "-")
    assert rows["hash of the model"] == ("0123abcd", "-")
    assert rows["running time"] == ("0:30, 2.00 steps/s", "0:20, 2.00 steps/s")
    assert rows["adversarial accuracy"] == (
        "80.00 % under PGD-40 (500 test images, after step 60)",
        "70.00 % under PGD-40 (500 test images, after step 40)",
    )


def nothing_yet(folder: Path) -> None:
    begin(folder).close()


def one_step(folder: Path) -> None:
    begun_run(folder, 1)


def one_rank(folder: Path) -> None:
    with begin(folder) as log:
        write_steps(log, 0, 30, num_ranks=1)


def diverged(folder: Path) -> None:
    with begin(folder) as log:
        for step in range(30):
            bad = {"loss": float("inf"), "gradient_magnitude": float("nan")}
            log.train(train_row(step, **(bad if step > 3 else {})))


def sixty_attackers(folder: Path) -> None:
    with begin(folder) as log:
        write_steps(log, 0, 200, num_ranks=61)


def older(folder: Path) -> None:
    """A log from before some columns and the originals of snapshots were recorded."""
    begun_run(folder)
    with h5py.File(folder / "log.h5", "r+") as file:
        del file["snapshot_originals"], file["attackers"], file["fresh"]
        for table, newer in (("train", "trainer_wait_seconds"), ("evaluation", "weights")):
            rows = file[table][:]
            kept = [name for name in rows.dtype.names if name != newer]
            del file[table]
            file[table] = np.rec.fromarrays([rows[name] for name in kept], names=kept)


AWKWARD = {
    "nothing_yet": (nothing_yet, 0),
    "one_step": (one_step, 6),
    "one_rank": (one_rank, 8),
    "diverged": (diverged, 5),
    "sixty_attackers": (sixty_attackers, 8),
    "older_log": (older, 6),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("make", "num_pictures"), [pytest.param(*case, id=name) for name, case in AWKWARD.items()]
)
def test_awkward_run_is_shown_as_far_as_it_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Any, num_pictures: int
) -> None:
    monkeypatch.setattr("mpiadv.report.drawing.DOTS_PER_INCH", 50)
    make(tmp_path / "run")
    parsed = Parsed(page([read_log(tmp_path / "run")]))
    assert len(parsed.pictures) == num_pictures
    assert ("The log holds nothing to draw of" in parsed.text) == (num_pictures < len(OF_ONE))


@pytest.fixture
def small_run(tmp_path: Path) -> Path:
    return begun_run(tmp_path / "small", 2)


def test_own_page_is_written_over_and_any_other_file_only_when_told(
    tmp_path: Path, small_run: Path, two_figures: None, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "report.html"
    words = ["report", str(small_run), "--output", str(output)]
    assert [cli.main(words), cli.main(words)] == [0, 0]
    output.write_text("<html>my own page</html>")
    assert cli.main(words) == 2
    assert "exists and is not of mpiadv: choose" in capsys.readouterr().err
    assert output.read_text() == "<html>my own page</html>"
    assert cli.main([*words, "--overwrite"]) == 0
    assert "<figure>" in output.read_text()


def test_figures_are_written_as_png_and_pdf_and_only_over_own_ones(
    tmp_path: Path, small_run: Path, two_figures: None, capsys: pytest.CaptureFixture[str]
) -> None:
    output, figures = tmp_path / "page.html", tmp_path / "new" / "figures"
    words = ["report", str(small_run), "--output", str(output), "--figures", str(figures)]
    assert [cli.main(words), cli.main(words)] == [0, 0]
    names = {path.name for path in figures.iterdir()}
    drawn = ("staleness", "gradients")
    assert names == {f"{name}.{kind}" for name in drawn for kind in ("png", "pdf")}
    assert all((figures / f"{name}.pdf").read_bytes().startswith(b"%PDF") for name in drawn)
    (figures / "staleness.pdf").write_bytes(b"mine")
    output.unlink()
    assert cli.main(words) == 2
    assert "staleness.pdf exists and is not of mpiadv: choose" in capsys.readouterr().err
    assert (figures / "staleness.pdf").read_bytes() == b"mine" and not output.exists()


def test_figures_of_runs_of_the_same_name_do_not_meet(tmp_path: Path, two_figures: None) -> None:
    folders = [str(begun_run(tmp_path / name / "run", 2)) for name in ("a", "b")]
    figures = tmp_path / "figures"
    output = str(tmp_path / "page.html")
    assert cli.main(["report", *folders, "--output", output, "--figures", str(figures)]) == 0
    names = {path.name for path in figures.glob("*.png")}
    of_each = {
        f"{run}-{name}.png" for run in ("run", "run_2_") for name in ("staleness", "gradients")
    }
    assert names == {*of_each, "compared-training.png"}


WITHOUT = """
import sys
class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "mpi4py"):
            raise ImportError(name)
sys.meta_path.insert(0, Refused())
from mpiadv import cli
from mpiadv.process.errors import UserError
codes = cli.main(["report", sys.argv[1], "--output", sys.argv[2]]), cli.main(["watch", sys.argv[1]])
assert "matplotlib.pyplot" not in sys.modules
sys.exit(codes != (0, 0))
"""


def test_logs_are_shown_where_torch_and_mpi_are_missing(tmp_path: Path) -> None:
    folder = finished_run(tmp_path / "run")
    command = [sys.executable, "-c", WITHOUT, str(folder), str(tmp_path / "page.html")]
    completed = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert completed.returncode == 0, completed.stderr
    assert "page.html: 1 run, 8 figures" in completed.stdout
    assert "step 60/60" in completed.stdout


def test_browser_shows_every_figure_and_has_nothing_to_complain_of(
    tmp_path: Path, written: str
) -> None:
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser",
                                                   "google-chrome"))), None)  # fmt: skip
    if browser is None:
        pytest.skip("no Chromium: apt-get install chromium")
    probe = (
        "<script>addEventListener('load', () => { const p = [...document.images];"
        " document.title = p.filter(i => i.complete && i.naturalWidth > 1000).length + ' of '"
        " + p.length + ' shown, ' + (document.documentElement.scrollWidth <= innerWidth); })"
        "</script></head>"
    )
    path = tmp_path / "page.html"
    path.write_text(written.replace("</head>", probe), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1200,900",
               f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr",
               "--virtual-time-budget=5000", "--dump-dom"]  # fmt: skip
    completed = subprocess.run(
        [browser, *options, path.as_uri()], capture_output=True, text=True, timeout=120
    )
    count = len(OF_SEVERAL) + 2 * len(OF_ONE)
    assert f"<title>{count} of {count} shown, true</title>" in completed.stdout
    assert "CONSOLE" not in completed.stderr
