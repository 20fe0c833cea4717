"""What is printed when nobody can take it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from mpi_runner import REPOSITORY

WRITER = """
import sys
from rich.console import Console
from rich.progress import track
from mpiadv.process.streams import is_unread, lost, outlive_readers
outlive_readers()
for number in track(range(50), console=Console(force_terminal=True), update_period=0.001):
    print("line", number, "\\u00e9\\udcff", flush=True)
    Console(stderr=True).print("[b]also here", number)
open(sys.argv[1], "w").write(f"{lost(sys.stdout) and lost(sys.stdout).errno} {is_unread(sys.stdout)}")
"""  # noqa: E501

SHELLS = {
    "read": ("{} | cat >/dev/null", "None False"),
    "unread": ("{} | head -1", "32 True"),
    "full": ("{} >/dev/full 2>/dev/full", "28 False"),
    "closed": ("{} >&- 2>&- <&-", "None False"),
    "errors_unread": ("{} 2>&1 >/dev/null | head -1", "None False"),
    "ascii": ("LC_ALL=C PYTHONIOENCODING=ascii {} >/dev/null", "None False"),
}


@pytest.mark.parametrize(("shell", "told"), SHELLS.values(), ids=SHELLS.keys())
def test_printing_outlives_whoever_reads(tmp_path: Path, shell: str, told: str) -> None:
    (tmp_path / "writer.py").write_text(WRITER)
    line = shell.format(f"{sys.executable} writer.py told")
    completed = subprocess.run(
        f"set -o pipefail; {line}",
        shell=True,
        executable="/bin/bash",
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        text=True,
    )
    assert completed.returncode == 0
    assert "Traceback" not in completed.stderr
    assert (tmp_path / "told").read_text() == told


def test_file_opened_after_a_closed_stream_is_not_printed_into(tmp_path: Path) -> None:
    program = (
        "from mpiadv.process.streams import outlive_readers; outlive_readers(); "
        "file = open('log', 'wb'); file.write(b'log'); file.flush(); "
        "print('lost', flush=True); import os; os.write(1, b'lost too')"
    )
    subprocess.run(
        f'{sys.executable} -c "{program}" >&-', shell=True, executable="/bin/bash", cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, check=True,
    )  # fmt: skip
    assert (tmp_path / "log").read_bytes() == b"log"
