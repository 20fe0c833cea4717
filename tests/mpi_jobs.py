"""Runs tests marked `mpi`: those of a file that ask for as many ranks in one job of `mpirun`.

Starting ranks and importing torch on each takes seconds, most of these tests far less. Every rank
writes down how each test went, so that a rank that vanished cannot pass for one that succeeded.
A test that fails, hangs or loses a rank ends its job, and those after it get another one.
"""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from mpi_runner import HungError, finished, hung, started_mpirun

OUTCOMES = "MPIADV_TEST_OUTCOMES"
DEFAULT_DEADLINE_SECONDS = 240.0

LEFT_OUT = (
    "-o", "addopts=", "-o", "required_plugins=", "-p", "no:cacheprovider", "-p", "no:xdist",
    "-p", "no:hypothesispytest",
)  # fmt: skip
"""What ranks have no use for, and would spend half of their start on."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How a test went on all ranks; passed where it neither failed nor was skipped."""

    failed: str = ""
    skipped: str = ""

    def tell(self) -> None:
        """Fail, skip or pass, as the test did."""
        __tracebackhide__ = True
        if self.failed:
            pytest.fail(self.failed, pytrace=False)
        if self.skipped:
            pytest.skip(self.skipped)


class Jobs:
    """The verdicts on the tests of a session that have run, several of them in one job."""

    def __init__(self) -> None:
        self._verdicts: dict[str, Verdict] = {}

    def run(self, item: pytest.Item) -> None:
        """Tell how the test went, in a job with those that follow it unless an earlier one did."""
        __tracebackhide__ = True
        if item.nodeid not in self._verdicts:
            self._verdicts |= _run_job(self._alike(item))
        self._verdicts[item.nodeid].tell()

    def _alike(self, item: pytest.Item) -> list[pytest.Item]:
        """The tests of the same file and number of ranks that have not run, this one first."""
        others = [
            other
            for other in item.session.items
            if other.path == item.path
            and other.get_closest_marker("mpi") is not None
            and ranks_of(other) == ranks_of(item)
            and other.nodeid not in {item.nodeid, *self._verdicts}
        ]
        return [item, *others]


def ranks_of(item: pytest.Item) -> int:
    """How many ranks a test marked `mpi` asks for."""
    marker = item.get_closest_marker("mpi")
    assert marker is not None
    return int(marker.kwargs.get("min_size", 2))


def deadline_of(item: pytest.Item) -> float:
    """The seconds within which a test has to end after the one before, or after its job's start."""
    marker = item.get_closest_marker("mpi_deadline")
    return float(marker.kwargs["seconds"]) if marker else DEFAULT_DEADLINE_SECONDS


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """What the ranks of a job write down, in a folder."""

    folder: Path
    ranks: int

    def write(self, report: pytest.TestReport) -> None:
        """On a rank: how a part of a test went."""
        outcome = {"test": report.nodeid, "when": report.when, "outcome": report.outcome}
        path = self.folder / f"{os.getpid()}-{time.monotonic_ns()}.json"
        # Under another name until it is whole: it is looked for while the job runs.
        path.with_suffix(".part").write_text(json.dumps({**outcome, "text": report.longreprtext}))
        path.with_suffix(".part").replace(path)

    def of(self, item: pytest.Item) -> list[dict[str, str]]:
        """What was written of a test."""
        written = [json.loads(path.read_text()) for path in sorted(self.folder.glob("*.json"))]
        return [outcome for outcome in written if outcome["test"] == item.nodeid]

    def is_over(self, item: pytest.Item) -> bool:
        """Whether all ranks are done with a test."""
        return sum(outcome["when"] == "teardown" for outcome in self.of(item)) == self.ranks


def _run_job(items: Sequence[pytest.Item]) -> dict[str, Verdict]:
    """The verdicts on the tests as far as the first that fails, after which a job ends."""
    with tempfile.TemporaryDirectory(prefix="mpiadv-outcomes-") as folder:
        outcomes = Outcomes(folder=Path(folder), ranks=ranks_of(items[0]))
        code, ending = _run_under_mpirun(items, outcomes)
        verdicts: dict[str, Verdict] = {}
        for item in items:
            verdicts[item.nodeid] = verdict = _verdict(item, outcomes, ending)
            if verdict.failed:
                return verdicts
    if code != 0:
        last = items[-1].nodeid
        verdicts[last] = Verdict(failed=f"{last} and those before it passed on all ranks; {ending}")
    return verdicts


def _run_under_mpirun(items: Sequence[pytest.Item], outcomes: Outcomes) -> tuple[int, str]:
    """The exit code of the job, and how it ended in words."""
    words = ["--with-mpi", "-q", "--no-header", "--no-summary", "--strict-markers", *LEFT_OUT]
    with started_mpirun(
        ["python", "-m", "pytest", *words, *(item.nodeid for item in items)],
        ranks=outcomes.ranks,
        env={OUTCOMES: str(outcomes.folder)},
        cwd=items[0].config.rootpath,
    ) as process:
        try:
            completed = _finished(process, items, outcomes)
        except HungError as error:
            return 1, f"the job {error}"
    output = f"{completed.stdout}{completed.stderr}"
    return completed.returncode, f"the job ended with exit code {completed.returncode}\n{output}"


def _finished(
    process: subprocess.Popen[str], items: Sequence[pytest.Item], outcomes: Outcomes
) -> subprocess.CompletedProcess[str]:
    """Wait for the job; raises HungError as soon as one of its tests has passed its deadline."""
    for item in items:
        deadline = time.monotonic() + deadline_of(item)
        while process.poll() is None and not outcomes.is_over(item):
            if time.monotonic() > deadline:
                raise hung(process, deadline_of(item))
            _wait(process, 0.1)
    return finished(process, timeout=deadline_of(items[-1]))


def _wait(process: subprocess.Popen[str], seconds: float) -> None:
    """Wait a while, and take what the process has to say, which is not lost by that."""
    with suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=seconds)


def _verdict(item: pytest.Item, outcomes: Outcomes, ending: str) -> Verdict:
    written = outcomes.of(item)
    failed = [outcome["text"] for outcome in written if outcome["outcome"] == "failed"]
    if failed:
        where = f"failed on {len(failed)} of {outcomes.ranks} ranks"
        return Verdict(failed="\n".join([f"{item.nodeid} {where}", *failed]))
    skipped = [outcome["text"] for outcome in written if outcome["outcome"] == "skipped"]
    if skipped:
        return Verdict(skipped=f"on {len(skipped)} of {outcomes.ranks} ranks: {skipped[0]}")
    if not outcomes.is_over(item):
        passed = sum(outcome["when"] == "call" for outcome in written)
        return Verdict(failed=f"{item.nodeid}: {passed} of {outcomes.ranks} ranks passed; {ending}")
    return Verdict()
