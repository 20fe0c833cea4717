"""The batch script, run by bash with stand-ins for mpirun and scontrol."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "slurm" / "train.sbatch"

MPIRUN = """#!/bin/bash
touch started
trap 'kill $sleeping; exit 75' USR1
{body}
"""

CASES = {
    "finished": ("mkdir -p runs/mnist; touch runs/mnist/DONE; exit 0", {}, 0, False),
    "no_error_and_no_marker": ("exit 0", {}, 0, True),
    "failed": ("exit 1", {}, 1, False),
    "bad_input": ("exit 2", {}, 2, False),
    "interrupted": ("exit 75", {}, 0, True),
    "a_rank_was_killed": ("exit 137", {}, 0, True),
    "restarted_too_often": ("exit 75", {"SLURM_RESTART_COUNT": "100"}, 1, False),
}


def _start(folder: Path, body: str, env: dict[str, str]) -> subprocess.Popen[str]:
    programs = {"mpirun": MPIRUN.format(body=body), "scontrol": '#!/bin/bash\necho "$@" > requeued'}
    for name, text in programs.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    activate = folder / "mpiadv" / ".venv" / "bin" / "activate"
    activate.parent.mkdir(parents=True)
    activate.touch()
    slurm = {"SLURM_JOB_ID": "17", "HOME": str(folder), "PATH": f"{folder}:{os.environ['PATH']}"}
    return subprocess.Popen(
        ["bash", str(SCRIPT)], cwd=folder, env={**os.environ, **slurm, **env}, text=True
    )


@pytest.mark.parametrize(
    ("body", "env", "code", "requeued"),
    [pytest.param(*case, id=name) for name, case in CASES.items()],
)
def test_job_is_requeued_exactly_when_another_start_would_help(
    tmp_path: Path, body: str, env: dict[str, str], code: int, requeued: bool
) -> None:
    assert _start(tmp_path, body, env).wait(timeout=20) == code
    assert (tmp_path / "requeued").exists() == requeued


def test_warning_before_the_time_limit_reaches_mpirun_and_requeues_the_job(tmp_path: Path) -> None:
    job = _start(tmp_path, "sleep 30 & sleeping=$!; touch ready; wait", {})
    while not (tmp_path / "ready").exists():
        time.sleep(0.02)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(timeout=20) == 0
    assert (tmp_path / "requeued").read_text() == "requeue 17\n"
