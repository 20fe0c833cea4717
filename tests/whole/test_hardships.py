"""Machines that are hard on a run, with real messages: the bits are those of one rank."""

import time
from pathlib import Path
from typing import Any

import h5py
import pytest
from launching import HERE, hash_alone, hash_of, launch, launched, train_rows, words_of
from mpi_runner import finished, launcher_or_skip, mpirun

from mpiadv.comm.shared_memory import DISABLE_SHARING
from mpiadv.runlog import read_table

pytestmark = pytest.mark.usefixtures("needs_mpirun")

NUM_STEPS = 200


def _uneven(*milliseconds: float) -> dict[str, Any]:
    """A run whose ranks take so long for each forward pass."""
    return {
        "model__name": "bad_parts:uneven",
        "model__arguments": f"{{milliseconds: {list(milliseconds)}}}",
        "training__num_steps": NUM_STEPS,
        "checkpoint__every_steps": 0,
        "deadline_seconds": 60,
    }


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The hash of the run on one rank that never waits."""
    quick = {"model__name": "bad_parts:slow", "model__arguments": "{milliseconds: 0}"}
    return hash_alone(tmp_path_factory.mktemp("alone") / "run", **_uneven() | quick)


def test_attackers_10_and_100_times_slower_change_no_bits(tmp_path: Path, alone: str) -> None:
    settings = {**_uneven(0, 2, 20, 200), "staleness__trainer_crafts": "false"}
    completed = launch(words_of(tmp_path / "run", **settings), ranks=4)
    assert (completed.returncode, completed.stderr) == (0, "")
    assert hash_of(tmp_path / "run") == alone


def test_messages_without_cross_memory_attach_change_no_bits(tmp_path: Path) -> None:
    if not launcher_or_skip().is_open_mpi:
        pytest.skip("only Open MPI has this setting")
    # Digits: batches of 16 KiB and versions of 150 KiB, which otherwise go through CMA, or are read
    # in memory that ranks share.
    words = ["training.num_steps=40", "training.threads=1", "evaluation.num_steps=1"]
    line = ["python", "-m", "mpiadv.run", *words, "staleness.trainer_crafts=false"]
    env = {DISABLE_SHARING: "1"}
    for ranks, mca in [(1, {}), (2, {"smsc": "^cma"})]:
        output = f"output={tmp_path / str(ranks)}"
        completed = mpirun([*line, output], ranks=ranks, mca=mca, env=env, timeout=120, cwd=HERE)
        assert completed.returncode == 0, completed.stderr
    assert hash_of(tmp_path / "1") == hash_of(tmp_path / "2")
    assert 1 in train_rows(tmp_path / "2")["rank"]


def test_reader_beside_a_run_never_fails_and_sees_rows_grow(tmp_path: Path, alone: str) -> None:
    run, seen = tmp_path / "run", [0]
    with launched(words_of(run, **_uneven(5, 5)), ranks=2) as process:
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if (run / "log.h5").exists():
                with h5py.File(run / "log.h5", "r") as log:
                    seen.append(len(log["train"][:]))
                seen.append(len(read_table(run / "log.h5", "train")))
            time.sleep(0.005)
        completed = finished(process, timeout=60)
    assert (completed.returncode, completed.stderr) == (0, "")
    assert seen == sorted(seen)
    assert len(set(seen)) > 3
    assert train_rows(run)["step"].tolist() == list(range(NUM_STEPS))
    assert hash_of(run) == alone
