"""Jobs and networks whose speed has been measured, for forecasts to agree with."""

from dataclasses import replace
from typing import Any

from mpiadv.contract.tickets import StalenessRule
from mpiadv.forecast.job import CARRIED_SHARE, Job, Network

GIGABIT = 1e9 / 8
MNIST_VERSION, MNIST_BATCH = 13_200_000, 402_000
"""Bytes of the paper's network and of a batch of 128."""

WITHIN_A_HOST = Network()
BETWEEN_TWO_HOSTS = Network(
    ranks_per_host=4, bytes_per_second=GIGABIT / CARRIED_SHARE, latency_seconds=0.010
)
"""Messages get a gigabit per second of it."""


def job_of(staleness: StalenessRule, **changes: Any) -> Job:
    """The job of `benchmarks/scaling.py`, with the little jitter that its sleeps have."""
    job = Job(
        rule=staleness,
        num_attack_steps=8,
        craft_seconds=0.148,
        train_seconds=0.020,
        num_steps=4000,
        outstanding=2,
        version_bytes=MNIST_VERSION,
        batch_bytes=MNIST_BATCH,
        step_overhead_seconds=0.0003,
        jitter=0.03,
    )
    return replace(job, **changes)


def quick_job(staleness: StalenessRule, **changes: Any) -> Job:
    """The job of the requirement: 30 ms to craft a batch, 4 ms to train on one."""
    return job_of(staleness, craft_seconds=0.030, train_seconds=0.004, jitter=0.1, **changes)
