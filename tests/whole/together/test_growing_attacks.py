"""M+ end to end: the attacks grow by the rule, with the same bits for any ranks and after kills."""

import time
from pathlib import Path

import pytest
from end_to_end import TINY, Finished, Start, assert_same_bits, settled, staleness
from launching import launched, train_alone
from m_plus import plain_m_plus
from mpi_runner import kill_now
from small_models import PAUSES

from mpiadv.storage.checkpoint import load_newest

EPOCH, NUM_STEPS = 5, 50
EPSILON, STEP_SIZE, MOST, GAMMA = 0.15, 0.06, 5, 0.9

M_PLUS = (
    *TINY, f"training.num_steps={NUM_STEPS}", f"data.train_samples={32 * EPOCH}",
    f"attack.epsilon={EPSILON}", f"attack.step_size={STEP_SIZE}", f"attack.num_steps={MOST}",
    "attack_schedule.name=m_plus", f"attack_schedule.gamma={GAMMA}",
)  # fmt: skip

CASES = {
    "refreshed": staleness(8, 4, 4),
    "one_trainer_step": staleness(6, 2, 2, 1),
    "more_trainer_steps_than_there_are_at_first": (
        *staleness(4, 2, 1, 3), "model.name=small_models:batch_norm", "attack.batch_norm=train",
        "objective.clean_fraction=0.5", "training.wire_dtype=float16",
    ),
}  # fmt: skip
STALENESS = {"refreshed": (8, 4), "one_trainer_step": (6, 2)}
"""Case to its `max_staleness` and `publish_every`."""

RANKS = (4, 1)
STOPS = {3: 13, 2: 27, 1: None}
"""Number of ranks of each start of an interrupted run, to the step after which it stops."""


def starts(folder: Path) -> list[Start]:
    whole = [
        Start(folder=f"{case}-on-{ranks}", ranks=ranks, argv=(*M_PLUS, *words))
        for case, words in CASES.items()
        for ranks in RANKS
    ]
    argv = (*M_PLUS, *CASES["one_trainer_step"])
    return whole + [
        Start(
            folder="interrupted",
            ranks=ranks,
            argv=(*argv, "--resume") if ranks < max(STOPS) else argv,
            stop_after=stop,
        )
        for ranks, stop in STOPS.items()
    ]


@pytest.mark.parametrize("case", CASES)
def test_growing_attacks_train_to_the_same_bits_on_one_and_four_ranks(
    runs: Path, case: str
) -> None:
    four, one = (Finished(path=runs / f"{case}-on-{ranks}") for ranks in RANKS)
    assert {0, 1, 2} < set(one.table("train")["attack_steps"])
    assert_same_bits(four, one)


@pytest.mark.parametrize("case", STALENESS)
def test_attack_steps_in_the_log_follow_the_rule_from_its_gradient_magnitudes(
    runs: Path, case: str
) -> None:
    rows = Finished(path=runs / f"{case}-on-1").table("train")
    sums = rows["gradient_magnitude"].reshape(-1, EPOCH).sum(axis=1)
    steps = plain_m_plus(
        list(sums), first=0, most=MOST, gamma=GAMMA, falls_short=lambda n: n * STEP_SIZE < EPSILON
    )
    largest, every = STALENESS[case]
    versions = [-(-max(0, ticket - largest) // every) * every for ticket in range(NUM_STEPS)]
    assert rows["attack_steps"].tolist() == [steps[version // EPOCH] for version in versions]


def test_interrupted_run_goes_on_with_the_schedule_as_it_was(runs: Path) -> None:
    run = Finished(path=runs / "interrupted")
    assert run.codes == [[75] * 3, [75] * 2, [0]]
    assert_same_bits(run, Finished(path=runs / "one_trainer_step-on-1"))


def test_killed_run_goes_on_from_its_checkpoint_to_the_same_bits(
    runs: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    words = settled([*M_PLUS, *CASES["refreshed"], "checkpoint.every_steps=5", f"output={run}"])
    with launched(words, ranks=2, env={PAUSES: "attacks"}) as process:
        while (checkpoint := load_newest(run / "checkpoints")) is None or checkpoint.step < 20:
            assert process.poll() is None
            time.sleep(0.01)
        kill_now(process)
    assert checkpoint.payload["attack_schedule"]["num_steps"] > 0
    assert not (run / "DONE").exists()
    train_alone(words, resume=True)
    assert_same_bits(Finished(path=run), Finished(path=runs / "refreshed-on-1"))
