"""Tests marked `mpi` start themselves: plain `pytest` runs them under `mpirun`, with deadlines.

`@pytest.mark.mpi(min_size=3)` asks for three ranks, `@pytest.mark.mpi_deadline(seconds=30)` for a
deadline other than four minutes. Inside, under `mpirun ... pytest --with-mpi`, every rank runs the
tests that `mpi_jobs` has put together, each with a communicator of its own.

Files of tests run side by side, one after the other on each of pytest-xdist's workers. Those of
`whole/together` begin first, all on one worker, then those marked `long`, so that none of them is
left alone at the end, then what runs whole jobs. `-n0` runs all in one process.
"""

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from _pytest.runner import CallInfo
from mpi_jobs import OUTCOMES, Jobs, Outcomes, ranks_of
from mpi_runner import launcher_or_skip

from mpiadv.process.loading import loading

JOBS = pytest.StashKey[Jobs]()
WORKERS_PER_CORE = 2
"""Half of the tests' time goes in waiting: for signals, deadlines, networks and other processes."""
MOST_WORKERS = 12

WHOLE = "tests/whole/"
"""Where files of tests run whole jobs."""
TOGETHER = f"{WHOLE}together/"
"""Where they share what they start."""


def pytest_configure(config: pytest.Config) -> None:
    # A shell starts background jobs with SIGINT ignored; children would inherit that for good.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # So does nohup with SIGHUP. What is heard and let pass here is not shut out of children.
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda number, frame: None)
    # Hundreds of processes load the same files, which each of them would have to compile again.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    config.addinivalue_line("markers", "mpi_deadline(seconds): deadline of a test marked mpi")
    config.addinivalue_line("markers", "long: half a minute or more for a file, which begins early")
    if hasattr(config, "workerinput"):
        os.environ["OMP_NUM_THREADS"] = "1"  # read by torch; the workers share the cores


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """None for a single file, which one of them would run alone."""
    if len(config.args) == 1 and ".py" in config.args[0]:
        return 0
    return min(MOST_WORKERS, WORKERS_PER_CORE * len(os.sched_getaffinity(0)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """None where the command line wants another one."""
    if config.getoption("dist") != "loadfile":
        return None
    from scheduling import ByFileOrFolder  # the ranks of a job know nothing of it

    return ByFileOrFolder(config, log, folder=TOGETHER)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Files of tests are loaded, and what they test."""
    with loading():
        return (yield)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long first; the small files fill the workers' time at the end."""
    items.sort(
        key=lambda item: (
            not item.nodeid.startswith(TOGETHER),
            item.get_closest_marker("long") is None,
            not item.nodeid.startswith(WHOLE),
        )
    )


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
    jobs = item.session.stash.setdefault(JOBS, Jobs())
    call = CallInfo.from_call(lambda: jobs.run(item), when="call")
    report = item.ihook.pytest_runtest_makereport(item=item, call=call)
    item.ihook.pytest_runtest_logreport(report=report)
    # Plain tests of the same module have set up its fixtures, and nobody else tears them down.
    item.session._setupstate.teardown_exact(nextitem)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """What an earlier test has left behind does not reach this one.

    That is torch's number of threads, which a run sets, and on a rank messages.
    """
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    if OUTCOMES in os.environ and _is_under_mpirun(item.config):
        from mpi4py import MPI

        MPI.COMM_WORLD = MPI.COMM_WORLD.Dup()


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """On a rank: write down how the test went; a failure ends the job instead of hanging it."""
    report = yield
    if OUTCOMES in os.environ and _is_under_mpirun(item.config):
        Outcomes(folder=Path(os.environ[OUTCOMES]), ranks=ranks_of(item)).write(report)
        if report.failed:
            _end_job()
    return report


def _is_under_mpirun(config: pytest.Config) -> bool:
    return bool(config.getoption("--with-mpi") or config.getoption("--only-mpi"))


def _end_job() -> None:
    from mpi4py import MPI

    time.sleep(0.5)  # ranks that fail at the same time may write it down, too
    sys.stdout.flush()
    MPI.COMM_WORLD.Abort(1)
