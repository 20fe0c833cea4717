"""`mpiadv plan`: what it prints, and what it refuses."""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from job_shapes import rule
from launching import HERE
from mpi_runner import finished, started
from quick_jobs import BETWEEN_TWO_HOSTS, WITHIN_A_HOST, quick_job

from mpiadv.commands import plan as command
from mpiadv.forecast.job import Job, Network
from mpiadv.forecast.limits import Choice, look_ahead
from mpiadv.forecast.memory import JobMemory, Memory
from mpiadv.forecast.text import Plan, lines_of, values_of

TINY = (
    "data.name=bad_parts:images",
    "data.batch_size=4",
    "model.name=bad_parts:small",
    "attack.num_steps=3",
    "training.device=cpu",
)


def planned(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """`mpiadv plan` of a run whose steps take a millisecond or two, to its end."""
    line = [sys.executable, "-m", "mpiadv.cli", "plan", *words]
    with started(line, cwd=HERE) as process:
        return finished(process, timeout=120)


def memory_of(host_sizes: Sequence[int]) -> JobMemory:
    """100 MiB per process, versions of 30 MiB, batches of 2 MiB, on the trainer of 5."""
    attacker = Memory(process=100 * 2**20, versions=0, batches=2 * 2**20, device=2**30)
    leader = replace(attacker, versions=30 * 2**20)
    trainer = replace(leader, batches=5 * 2**20, device=0)
    return JobMemory(host_sizes=host_sizes, trainer=trainer, leader=leader, attacker=attacker)


def plan_of(job: Job, network: Network, ranks: Sequence[int], *choices: Choice) -> Plan:
    return Plan(
        what="mnist on mnist",
        measured_on="measured on a test",
        job=job,
        network=network,
        prospects=look_ahead(job, network, ranks, choices),
        evaluation_seconds=60.0,
        final_seconds=80.0,
        memory=memory_of(network.host_sizes(ranks[-1])),
        notes=["a note"],
    )


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    """What the command says of a tiny run, for programs."""
    words = ["--ranks", "1,3", "--ranks-per-host", "2", "--bandwidth", "1", "--latency", "0.5"]
    completed = planned([*TINY, *words, "--craft-seconds", "0.1", "--json"])
    assert completed.returncode == 0, completed.stderr
    return dict(json.loads(completed.stdout))


def test_given_time_stands_in_the_place_of_the_measured_one(told: dict[str, Any]) -> None:
    assert told["craft_seconds"] == 0.1
    assert 0 < told["train_seconds"] < 0.1
    assert "crafting as given" in told["measured_on"]


def test_rows_are_the_ranks_asked_for(told: dict[str, Any]) -> None:
    assert [(row["ranks"], row["num_hosts"]) for row in told["ranks"]] == [(1, 1), (3, 2)]
    assert told["ranks"][0]["speed_up"] == pytest.approx(1.0, abs=0.02)
    assert told["ranks"][1]["speed_up"] == pytest.approx(3.0, abs=0.1)


def test_sizes_are_those_of_the_messages(told: dict[str, Any]) -> None:
    # 16 x 8 + 8 and 8 x 3 + 3 float32, each tensor at a multiple of 64 bytes.
    assert told["version_bytes"] == 512 + 64 + 128 + 64
    # A header of 192 bytes, 4 labels and 4 images of 16 float32, and an end.
    assert told["batch_bytes"] == 256 + 256 + 64
    memory = told["memory"]
    assert memory["trainer"]["process"] >= memory["attacker"]["process"] > 2**24


def test_versions_are_with_the_trainer_and_the_leader_of_each_other_host(
    told: dict[str, Any],
) -> None:
    memory = told["memory"]
    # max_staleness 16 and publish_every 2, as is usual: 9 versions, and 4 on their way.
    assert memory["trainer"]["versions"] == memory["leader"]["versions"] == 13 * 768
    assert memory["attacker"]["versions"] == 0
    # Two tickets for each attacker.
    batches = [memory[part]["batches"] for part in ("trainer", "leader", "attacker")]
    assert batches == [4 * 576, 2 * 576, 2 * 576]
    sizes = {part: sum(memory[part].values()) for part in ("trainer", "leader", "attacker")}
    assert memory["hosts"] == [
        {"ranks": 2, "bytes": sizes["trainer"] + sizes["attacker"]},
        {"ranks": 1, "bytes": sizes["leader"]},
    ]


def test_plan_of_several_tickets_a_step_is_of_whole_steps() -> None:
    completed = planned([*TINY, "--ranks", "2", "training.tickets_per_step=4"])
    assert completed.returncode == 0, completed.stderr
    assert "400 steps of 16 images" in completed.stdout.splitlines()[0]


def test_plan_of_a_configuration_is_a_table() -> None:
    completed = planned([*TINY, "--ranks", "2", "staleness.trainer_steps=1"])
    assert completed.returncode == 0, completed.stderr
    lines = completed.stdout.splitlines()
    assert lines[0].startswith("mpiadv plan: bad_parts:small on bad_parts:images, 400 steps of 4")
    assert "1 more step by the trainer" in completed.stdout
    assert completed.stderr == "measuring batches, evaluations and memory on one rank ...\n"


REFUSED = {
    "ranks_not_numbers": (["--ranks", "2,many"], "argument --ranks: many is no whole number"),
    "no_rank": (["--ranks", "0"], "argument --ranks: 0: expected at least 1"),
    "no_bandwidth": (["--bandwidth", "0"], "argument --bandwidth: 0: expected more than 0"),
    "time_before_time": (["--latency", "-1"], "argument --latency: -1: expected 0 or more"),
    "endless_crafting": (["--craft-seconds", "inf"], "argument --craft-seconds: inf: expected"),
    "unknown_option": (["--rank", "2"], "unrecognized arguments: --rank"),
    "unknown_setting": (["trainin.num_steps=3"], "unknown setting trainin: the nearest known one"),
    "no_file": (["none.yaml"], "none.yaml"),
    "deadlock": (["staleness.publish_every=100"], "publish_every=100 cannot hold"),
}


@pytest.mark.parametrize(("words", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_bad_input_is_one_line_and_code_2(
    capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert command.main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("mpiadv: error: ") and captured.err.count("\n") == 1
    assert said in captured.err


def test_network_that_cannot_matter_is_refused() -> None:
    completed = planned([*TINY, "--bandwidth", "1"])
    assert completed.returncode == 2
    assert completed.stderr.startswith("mpiadv: error: --bandwidth 1 is of the network between")
    assert completed.stderr.count("\n") == 1


def test_nothing_is_warned_of_where_nothing_limits() -> None:
    plan = plan_of(quick_job(rule(16, 16, 4)), WITHIN_A_HOST, [1, 2, 4])
    assert [line for line in lines_of(plan) if "warning" in line] == ["warning: a note"]


def test_network_is_named_the_limit_with_by_how_much_and_what_helps() -> None:
    job = quick_job(rule(16, 16, 4))
    network = replace(BETWEEN_TWO_HOSTS, latency_seconds=0.0001, bytes_per_second=5e8)
    short = replace(job, version_bytes=job.version_bytes // 2)
    plan = plan_of(
        job, network, [4, 8], Choice(settings={"training.wire_dtype": "bfloat16"}, job=short)
    )
    (line,) = [line for line in lines_of(plan) if "network is the limit" in line]
    assert line.startswith("warning: 8 ranks: speed-up ")
    told = r"\(4 Gbit/s and 0\.1 ms one way\), it would have to carry 7 Gbit/s; without it"
    assert re.search(told, line)
    assert "training.wire_dtype=bfloat16 gives " in line


WORDS = {
    "latency": (
        quick_job(rule(16, 2, 2), version_bytes=40_000), BETWEEN_TWO_HOSTS,
        "the network is the limit (1.13636 Gbit/s and 10 ms one way), it would have to carry 0.",
    ),
    "window": (
        quick_job(rule(4, 4, 2)), WITHIN_A_HOST,
        "the window is the limit, 5 tickets (max_staleness + 1) in all and 2 per attacker "
        "(outstanding) for 7 attackers",
    ),
    "freshness": (
        quick_job(rule(16, 0, 1)), WITHIN_A_HOST,
        "waiting for fresh parameters (final_staleness=0, publish_every=1) is the limit; without",
    ),
    "both": (
        quick_job(rule(4, 1, 2)), WITHIN_A_HOST,
        "the window of 5 tickets (max_staleness + 1) and waiting for fresh parameters "
        "(final_staleness=1, publish_every=2) are the limit together",
    ),
    "slower_than_alone": (quick_job(rule(0, 0, 1)), WITHIN_A_HOST, "slower than one rank"),
}  # fmt: skip


STALENESS = {
    "several": (
        3, 1, r"at the first attack step at most 16, \d+\.\d on average; at the last at most 2, "
        r"\d\.\d on average; 1 more step by the trainer",
    ),
    "one": (1, 0, r"at the only attack step that is crafted at most 2, [12]\.\d on average"),
    "one_and_two_of_the_trainer": (
        3, 2, r"at the only attack step that is crafted at most 2, [12]\.\d on average; 2 more "
        "steps by the trainer",
    ),
    "all_by_the_trainer": (
        3, 3, "none, as no attack step is crafted on published parameters; 3 steps by the trainer",
    ),
    "no_attack": (0, 0, "none, as no attack step is crafted on published parameters"),
}  # fmt: skip


@pytest.mark.parametrize(("k", "own", "said"), STALENESS.values(), ids=STALENESS)
def test_staleness_is_told_of_the_steps_that_are_crafted(k: int, own: int, said: str) -> None:
    job = replace(quick_job(rule(16, 2, 2, own)), num_attack_steps=k)
    (line,) = [line for line in lines_of(plan_of(job, WITHIN_A_HOST, [2])) if "staleness: " in line]
    assert re.fullmatch(f"staleness: {said}", line)


@pytest.mark.parametrize(("job", "network", "said"), WORDS.values(), ids=WORDS.keys())
def test_warning_says_what_the_limit_is_and_that_older_parameters_have_a_price(
    job: Job, network: Network, said: str
) -> None:
    lines = lines_of(plan_of(job, network, [8]))
    assert any(said in line for line in lines)
    assert lines[-1].startswith("warning: older parameters change what is trained")


MEMORY = {
    "alone": ([1], ["memory on 1 rank: trainer 135 MiB (versions 30.0 MiB, batches 5.0 MiB)"]),
    "one_host": (
        [3],
        [
            "memory on 3 ranks: trainer 135 MiB (versions 30.0 MiB, batches 5.0 MiB); every other "
            "rank 102 MiB (batches 2.0 MiB), 1024 MiB on the GPU",
            "memory of a host, with each version once: the trainer's 339 MiB (3 ranks)",
        ],
    ),
    "one_rank_on_each": (
        [1, 1],
        [
            "memory on 2 ranks: trainer 135 MiB (versions 30.0 MiB, batches 5.0 MiB); each leader "
            "of another host 132 MiB (versions 30.0 MiB, batches 2.0 MiB), 1024 MiB on the GPU",
            "memory of a host, with each version once: the trainer's 135 MiB (1 rank); another 132 "
            "MiB (1 rank)",
        ],
    ),
    "several": (
        [4, 4, 1],
        [
            "memory on 9 ranks: trainer 135 MiB (versions 30.0 MiB, batches 5.0 MiB); each leader "
            "of another host 132 MiB (versions 30.0 MiB, batches 2.0 MiB), 1024 MiB on the GPU; "
            "every other rank 102 MiB (batches 2.0 MiB), 1024 MiB on the GPU",
            "memory of a host, with each version once: the trainer's 441 MiB (4 ranks); another "
            "438 MiB (4 ranks)",
        ],
    ),
}


@pytest.mark.parametrize(("host_sizes", "said"), MEMORY.values(), ids=MEMORY)
def test_memory_is_told_of_ranks_by_what_they_do_and_of_hosts(
    host_sizes: list[int], said: list[str]
) -> None:
    plan = replace(
        plan_of(quick_job(rule(16, 16, 4)), WITHIN_A_HOST, [1]), memory=memory_of(host_sizes)
    )
    assert [line for line in lines_of(plan) if line.startswith("memory")] == said


def test_evaluations_are_part_of_the_time_to_finish() -> None:
    plan = plan_of(quick_job(rule(16, 16, 4)), WITHIN_A_HOST, [1, 4])
    alone, four = (
        plan.seconds_to_finish(each) - each.forecast.training_seconds for each in plan.prospects
    )
    assert (alone, four) == (140.0, 80.0)


def test_programs_get_every_figure() -> None:
    plan = plan_of(quick_job(rule(4, 4, 2)), WITHIN_A_HOST, [2, 8])
    values = json.loads(json.dumps(values_of(plan)))
    two, eight = values["ranks"]
    assert (two["cause"], eight["cause"]) == ("ranks", "window")
    assert eight["remedies"][0]["settings"]
    assert values["warnings"][0] == "a note"
