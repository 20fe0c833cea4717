"""The scaling benchmark runs and prints its tables. How fast anything is, is not judged here."""

import subprocess
import sys

from mpi_runner import REPOSITORY, launcher_or_skip


def test_benchmark_prints_a_row_per_number_of_ranks_within_the_staleness_bounds() -> None:
    launcher_or_skip()
    words = (
        "--ranks 2 --repeats 1 --steps 8 --train-ms 1 --craft-ms 8 --parameters 1000 --slowness 4"
    )
    completed = subprocess.run(
        [sys.executable, str(REPOSITORY / "benchmarks" / "scaling.py"), *words.split()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert completed.returncode == 0, completed.stderr
    rows = [line.split() for line in completed.stdout.splitlines() if line.startswith("|     2")]
    assert len(rows) == 6, completed.stdout
    constant, refreshed = rows[0], rows[2]
    assert constant[-2] == "(16)"
    assert constant[5] == "1.25", "the second rank is a quarter as fast"
    assert refreshed[-2] == "(4)"
