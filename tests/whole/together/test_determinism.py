"""The contract end to end: the trained bits do not depend on ranks, timing or interruptions."""

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
import torch
from end_to_end import (
    HERE,
    NUM_STEPS,
    TINY,
    Finished,
    Start,
    assert_same_bits,
    settled,
)
from launching import train_alone
from mpi_runner import finished, started, started_mpirun
from plain_methods import METHODS
from plain_training import train_plainly
from run_cases import (
    BOUNDED_RANKS,
    CASES,
    CHAINS,
    GROWING,
    IDLE_TRAINER,
    NOT_CRAFTED,
    NUMERICS,
    PIECEWISE,
    RANKS,
    RULES,
    STRAGGLER,
    STRAGGLER_RANKS,
    WATCHED,
    WITHOUT_EFFECT,
    all_starts,
    folder_of,
    stops_of,
)  # fmt: skip
from small_models import PAUSES

from mpiadv.models import build_model, fingerprint
from mpiadv.settings import load_config

pytestmark = pytest.mark.long


def starts(folder: Path) -> list[Start]:
    """All runs over shared memory, on up to eight ranks."""
    return all_starts()


def run_in(folder: Path, case: str, ranks: int = 1) -> Finished:
    return Finished(path=folder / folder_of(case, ranks))


@pytest.mark.parametrize("case", CASES)
def test_hash_is_the_same_for_any_number_of_ranks(runs: Path, case: str) -> None:
    for ranks in RANKS[case]:
        run = run_in(runs, case, ranks)
        assert run.codes == [[0] * ranks]
        assert_same_bits(run, run_in(runs, case))


def test_averaged_weights_are_the_same_for_any_number_of_ranks_and_after_interruptions(
    runs: Path,
) -> None:
    alone = run_in(runs, "averaged")
    assert alone.ema_hash != alone.hash
    others = [run_in(runs, "averaged", ranks) for ranks in RANKS["averaged"]]
    for run in (*others, Finished(path=runs / "averaged-interrupted")):
        assert run.ema_hash == alone.ema_hash, run.path.name
        assert [*run.table("evaluation")["weights"]] == [b"raw", b"ema"]


def test_every_case_trains_to_bits_of_its_own(runs: Path) -> None:
    # Where sums are few, both memory formats may take them in the same order.
    told_apart = [case for case in CASES if "channels_last" not in case or case not in NUMERICS]
    hashes = {case: run_in(runs, case).hash for case in told_apart if case not in WITHOUT_EFFECT}
    assert len(set(hashes.values())) == len(hashes), hashes


@pytest.mark.parametrize("case", WITHOUT_EFFECT)
def test_watching_a_run_or_sparing_its_trainer_does_not_change_its_hash(
    runs: Path, case: str
) -> None:
    assert run_in(runs, case).hash == run_in(runs, "refreshed-float32").hash


def test_trainer_that_is_not_to_craft_leaves_all_tickets_to_the_attackers(runs: Path) -> None:
    rows = run_in(runs, IDLE_TRAINER, 5).table("train")
    recrafted = run_in(runs, IDLE_TRAINER, 5).table("events")["kind"] == b"re-crafted"
    assert (rows["rank"] == 0).sum() <= recrafted.sum()


@pytest.mark.parametrize("case", CASES)
def test_accuracy_is_the_same_for_any_number_of_ranks(runs: Path, case: str) -> None:
    expected = run_in(runs, case).table("evaluation")
    assert expected["num_samples"][-1] == 100
    for ranks in RANKS[case]:
        rows = run_in(runs, case, ranks).table("evaluation")
        for name in set(expected.dtype.names or ()) - {"seconds"}:
            assert rows[name].tolist() == expected[name].tolist(), f"{name} on {ranks} ranks"


def test_snapshots_are_the_same_for_any_number_of_ranks(runs: Path) -> None:
    expected = run_in(runs, WATCHED).table("snapshots")
    assert expected["step"].tolist() == [8, 16]
    for ranks in RANKS[WATCHED]:
        assert np.array_equal(run_in(runs, WATCHED, ranks).table("snapshots"), expected)


@pytest.mark.parametrize("ranks", STRAGGLER_RANKS)
def test_straggler_is_crafted_for_without_changing_the_hash(runs: Path, ranks: int) -> None:
    run = run_in(runs, "straggler", ranks)
    assert b"re-crafted" in run.table("events")["kind"].tolist()
    assert_same_bits(run, run_in(runs, STRAGGLER))


@pytest.mark.parametrize(
    ("case", "bfloat16", "wire"),
    [
        ("synchronous-float32", False, torch.float32),
        ("synchronous-bfloat16", True, torch.float32),
        ("synchronous_float16_wire", False, torch.float16),
        ("synchronous_bfloat16_wire", False, torch.bfloat16),
    ],
    ids=["float32", "bfloat16", "float16_wire", "bfloat16_wire"],
)
def test_zero_staleness_equals_a_plain_loop(
    runs: Path, case: str, bfloat16: bool, wire: torch.dtype
) -> None:
    config = load_config(None, TINY)
    expected = train_plainly(config, METHODS["pgd"], wire=wire, bfloat16=bfloat16)
    assert run_in(runs, case).hash == expected[0]


def test_saved_average_is_that_of_a_plain_loop(runs: Path) -> None:
    run, config = run_in(runs, "synchronous-averaged"), load_config(None, TINY)
    expected = train_plainly(config, METHODS["pgd"])
    assert (run.hash, run.ema_hash) == expected
    model = build_model(config.model, num_classes=10, image_shape=(1, 8, 8), seed=1)
    model.load_state_dict(torch.load(run.path / "model-ema.pt", weights_only=True))
    assert fingerprint(model) == run.ema_hash


@pytest.mark.parametrize("wire", ["float32", "float16"])
def test_trades_without_staleness_equals_a_plain_loop(runs: Path, wire: str) -> None:
    config = load_config(None, TINY)
    expected, _ = train_plainly(config, METHODS["trades"], wire=getattr(torch, wire))
    assert run_in(runs, f"trades_{wire}_wire").hash == expected


@pytest.mark.parametrize("case", CHAINS)
def test_interrupted_and_resumed_run_ends_with_the_same_hash(runs: Path, case: str) -> None:
    run = Finished(path=runs / f"{case}-interrupted")
    *interrupted, last = CHAINS[case]
    assert run.codes == [*([75] * ranks for ranks in interrupted), [0] * last]
    assert run.table("train")["step"].tolist() == list(range(NUM_STEPS))
    events = run.table("events")
    assert events["step"][events["kind"] == b"interrupted"].tolist() == stops_of(case)
    assert_same_bits(run, run_in(runs, case))


def version_of(ticket: int, step: int, num_steps: int, overrides: Sequence[str]) -> int:
    """The version that an attack step uses, as the contract has it."""
    words = dict(word.split("=") for word in overrides if word.startswith("staleness."))
    largest, final, every, trainer_steps = (
        int(words[f"staleness.{name}"])
        for name in ("max_staleness", "final_staleness", "publish_every", "trainer_steps")
    )
    num_steps -= trainer_steps
    lag = largest
    if num_steps > 1:
        lag = largest - (largest - final) * step // (num_steps - 1)
    version = max(0, ticket - lag)
    while version % every:
        version += 1
    return version


def test_attack_steps_are_those_that_the_first_version_carries(runs: Path) -> None:
    rows = run_in(runs, PIECEWISE, 5).table("train")
    versions = [version_of(n, 0, 5, CASES[PIECEWISE]) for n in range(NUM_STEPS)]
    expected = [1 if version < 3 else 0 if version < 6 else 5 for version in versions]
    assert rows["attack_steps"].tolist() == expected
    assert set(expected) == {0, 1, 5}


@pytest.mark.parametrize("case", [c for c in CASES if c not in (PIECEWISE, NOT_CRAFTED, GROWING)])
def test_log_staleness_equals_the_formula(runs: Path, case: str) -> None:
    num_steps = 1 if case in ("ufgsm", "grad_align_batch_norm") else 5
    last_step = num_steps - 1 - int(CASES[case][3].partition("=")[2])
    for ranks in RANKS[case]:
        rows = run_in(runs, case, ranks).table("train")
        assert rows["attack_steps"].tolist() == [num_steps] * NUM_STEPS
        for prefix, step in (("first", 0), ("last", last_step)):
            versions = [version_of(n, step, num_steps, CASES[case]) for n in range(NUM_STEPS)]
            assert rows[f"{prefix}_version"].tolist() == versions
            staleness = rows["step"] - versions
            assert rows[f"{prefix}_staleness"].tolist() == staleness.tolist()


def test_first_epoch_of_a_growing_attack_is_counted_in_tickets(runs: Path) -> None:
    """Of five tickets: it ends within the third step of two."""
    rows = run_in(runs, GROWING, 5).table("train")
    assert rows["ticket"].tolist() == [2 * step for step in range(NUM_STEPS)]
    grown = np.flatnonzero(np.diff(rows["attack_steps"])) + 1
    # The oldest version that a ticket may use carries the number.
    carried = [version_of(int(step), 0, 5, CASES[GROWING]) for step in grown]
    assert carried[0] == 4 and rows["attack_steps"][grown[0]] == 1


@pytest.mark.parametrize("ranks", BOUNDED_RANKS)
def test_bounded_mode_logs_staleness_within_the_bounds(runs: Path, ranks: int) -> None:
    rows = run_in(runs, "bounded", ranks).table("train")
    assert rows["step"].tolist() == list(range(NUM_STEPS))
    assert 0 <= rows["first_staleness"].min() <= rows["first_staleness"].max() <= 16
    assert 0 <= rows["last_staleness"].min() <= rows["last_staleness"].max() <= 4
    assert (rows["last_version"] >= rows["first_version"]).all()
    for n, row in enumerate(rows):
        assert row["first_version"] >= version_of(n, 0, 5, RULES["refreshed"])
        assert row["last_version"] >= version_of(n, 4, 5, RULES["refreshed"])


SIGNALS = {
    "SIGUSR1_to_mpirun": (2, signal.SIGUSR1),
    "SIGTERM_to_a_single_process": (1, signal.SIGTERM),
}


def really_started(
    argv: Sequence[str], ranks: int
) -> AbstractContextManager[subprocess.Popen[str]]:
    """A run in processes of its own, with slow attacks."""
    line, env = [sys.executable, "-m", "mpiadv.run", *settled(argv)], {PAUSES: "attacks"}
    if ranks == 1:
        return started(line, env=env, cwd=HERE)
    return started_mpirun(line, ranks=ranks, env=env, cwd=HERE)


@pytest.mark.parametrize(("ranks", "number"), SIGNALS.values(), ids=SIGNALS)
def test_signal_ends_a_run_that_resumes_to_the_same_hash(
    runs: Path, tmp_path: Path, ranks: int, number: signal.Signals
) -> None:
    argv = (*TINY, *CASES["refreshed-float32"], f"output={tmp_path / 'run'}")
    with really_started(argv, ranks) as process:
        assert process.stdout is not None
        lines = itertools.takewhile(lambda line: not line.startswith("step "), process.stdout)
        seen = "".join(lines)
        os.kill(process.pid, number)
        completed = finished(process, timeout=120)
    assert completed.returncode == 75, seen + completed.stdout + completed.stderr
    assert "interrupted at step" in completed.stdout
    train_alone(settled(argv), resume=True)
    run = Finished(path=tmp_path / "run")
    assert run.table("train")["step"].tolist() == list(range(NUM_STEPS))
    assert_same_bits(run, run_in(runs, "refreshed-float32"))
