"""The command line of planning."""

from mpiadv.command_lines.described import CONFIGURED, TRUSTED, Described, flag, value
from mpiadv.command_lines.numbers import number, whole

MOST_RANKS = 1024
"""How a job goes on is simulated rank by rank."""

_one_rank_or_more = whole(1, MOST_RANKS)


def _ranks(text: str) -> list[int]:
    return [_one_rank_or_more(word) for word in text.split(",")]


PLAN = Described(
    name="plan",
    example="plan CONFIG",
    summary="say how fast a job will be on how many ranks, and what limits it",
    about="Measure how long crafting and training take on this machine, a few batches of each, "
    "and say how fast the job is on several numbers of ranks, and what limits it.",
    epilog="Nothing is trained or written. Exit codes: 0 done, 2 bad input, 1 failed.",
    words=CONFIGURED,
    options={
        "--ranks": value(
            "N,N,...",
            "numbers of ranks; without it, up to that from which more are no faster",
            _ranks,
        ),
        "--ranks-per-host": value(
            "N",
            "without it, as many as there are GPUs here, or all on one host",
            whole(1, MOST_RANKS),
        ),
        "--bandwidth": value("GBIT", "between hosts, per second; 10 without it", number(1e6)),
        "--latency": value(
            "MS", "between hosts, one way; 0.1 without it", number(1e6, may_be_0=True)
        ),
        "--craft-seconds": value("S", "of a batch, instead of the time measured here", number(1e6)),
        "--train-seconds": value("S", "of a batch, instead of the time measured here", number(1e6)),
        **TRUSTED,
        "--json": flag("print the figures for programs"),
    },
)

read = PLAN.read
