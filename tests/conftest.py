"""Tests marked `mpi` start themselves: plain `pytest` runs each under `mpirun`, with a deadline.

`@pytest.mark.mpi(min_size=3)` asks for three ranks, `@pytest.mark.mpi_deadline(seconds=30)` for a
deadline other than two minutes. Inside, under `mpirun ... pytest --with-mpi`, every rank runs the
test and writes down how it went, so that a rank that vanished cannot pass for one that succeeded.
"""

import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from _pytest.runner import CallInfo
from mpi_runner import HungError, launcher_or_skip, mpirun

OUTCOMES = "MPIADV_TEST_OUTCOMES"
DEFAULT_DEADLINE_SECONDS = 120.0


def pytest_configure(config: pytest.Config) -> None:
    # A shell starts background jobs with SIGINT ignored; children would inherit that for good.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # So does nohup with SIGHUP. What is heard and let pass here is not shut out of children.
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda number, frame: None)
    config.addinivalue_line("markers", "mpi_deadline(seconds): deadline of a test marked mpi")


@pytest.fixture(scope="session")
def needs_mpirun() -> None:
    """Skips the test where there is no mpirun."""
    launcher_or_skip()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Replace the whole run of an `mpi` test, before pytest-mpi's skip is even looked at."""
    if item.get_closest_marker("mpi") is None or _is_under_mpirun(item.config):
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    call = CallInfo.from_call(lambda: _run_under_mpirun(item), when="call")
    report = item.ihook.pytest_runtest_makereport(item=item, call=call)
    item.ihook.pytest_runtest_logreport(report=report)
    # Plain tests of the same module have set up its fixtures, and nobody else tears them down.
    item.session._setupstate.teardown_exact(nextitem)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """On a rank: write down how the test went; a failure ends the job instead of hanging it."""
    report = yield
    if OUTCOMES in os.environ and _is_under_mpirun(item.config):
        _write_outcome(report)
        if report.failed:
            _end_job()
    return report


def _is_under_mpirun(config: pytest.Config) -> bool:
    return bool(config.getoption("--with-mpi") or config.getoption("--only-mpi"))


def _run_under_mpirun(item: pytest.Item) -> None:
    __tracebackhide__ = True
    ranks = item.get_closest_marker("mpi").kwargs.get("min_size", 2)
    deadline = item.get_closest_marker("mpi_deadline")
    seconds = deadline.kwargs["seconds"] if deadline else DEFAULT_DEADLINE_SECONDS
    words = ["--with-mpi", "-q", "-p", "no:cacheprovider", "--no-header", "--no-summary"]
    with tempfile.TemporaryDirectory(prefix="mpiadv-outcomes-") as folder:
        try:
            completed = mpirun(
                ["python", "-m", "pytest", *words, item.nodeid],
                ranks=ranks,
                timeout=seconds,
                env={OUTCOMES: folder},
                cwd=item.config.rootpath,
            )
        except HungError as error:
            pytest.fail(f"{item.nodeid} on {ranks} ranks {error}", pytrace=False)
        output = f"{completed.stdout}{completed.stderr}"
        _judge(item.nodeid, ranks, completed.returncode, _read_outcomes(Path(folder)), output)


def _judge(nodeid: str, ranks: int, code: int, outcomes: list[dict[str, str]], output: str) -> None:
    __tracebackhide__ = True
    failed = [outcome["text"] for outcome in outcomes if outcome["outcome"] == "failed"]
    if failed:
        pytest.fail(
            "\n".join([f"{nodeid} failed on {len(failed)} of {ranks} ranks", *failed]),
            pytrace=False,
        )
    skipped = [outcome["text"] for outcome in outcomes if outcome["outcome"] == "skipped"]
    if skipped:
        pytest.skip(f"on {len(skipped)} of {ranks} ranks: {skipped[0]}")
    passed = sum(outcome["when"] == "call" for outcome in outcomes)
    if code != 0 or passed != ranks:
        pytest.fail(
            f"{nodeid}: {passed} of {ranks} ranks passed, exit code {code}\n{output}", pytrace=False
        )


def _write_outcome(report: pytest.TestReport) -> None:
    outcome = {"when": report.when, "outcome": report.outcome, "text": report.longreprtext}
    path = Path(os.environ[OUTCOMES], f"{os.getpid()}-{report.when}.json")
    path.write_text(json.dumps(outcome), encoding="utf-8")


def _read_outcomes(folder: Path) -> list[dict[str, str]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.iterdir())]


def _end_job() -> None:
    from mpi4py import MPI

    time.sleep(0.5)  # ranks that fail at the same time may write it down, too
    sys.stdout.flush()
    MPI.COMM_WORLD.Abort(1)
