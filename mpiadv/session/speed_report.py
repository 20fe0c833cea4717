"""How fast each rank was: the table at the end of a run. Knows no MPI, no torch and no files."""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from mpiadv.comm.messages import Farewell
from mpiadv.comm.roster import Roster
from mpiadv.contract.accounts import StepRecord, TrainerSeconds
from mpiadv.process.words import aligned

MOST_RANKS = 16
"""Up to so many ranks have a line each, more of them one for each host."""


@dataclass(kw_only=True)
class RankSpeed:
    """What one rank did in a start of the run; `idle` is a share of its time.

    None: not known, of an attacker since it was lost, of the trainer where no step was left to do.
    """

    rank: int
    host: str
    tickets: int = 0
    craft_seconds: float = 0.0
    idle: float | None = None
    trains: bool = False


class SpeedBook:
    """Adds up, from the training steps, what each rank has contributed."""

    def __init__(self) -> None:
        self._tickets: Counter[int] = Counter()
        self._craft_seconds: defaultdict[int, float] = defaultdict(float)
        self._trainers: defaultdict[int, list[float]] = defaultdict(lambda: [0.0, 0.0])
        """Seconds of each: waited, and in all."""

    def add(self, record: StepRecord) -> None:
        for ticket in record.tickets:
            self._tickets[ticket.origin.rank] += 1
            self._craft_seconds[ticket.origin.rank] += ticket.seconds.craft_seconds
        own = TrainerSeconds(
            rank=0,
            wait_seconds=record.wait_seconds + record.exchange_seconds,
            total_seconds=record.total_seconds,
        )
        for each in (own, *record.others):
            self._trainers[each.rank][0] += each.wait_seconds
            self._trainers[each.rank][1] += each.total_seconds

    def speeds(
        self, roster: Roster, farewells: Mapping[int, Farewell], trainers: Collection[int] = (0,)
    ) -> list[RankSpeed]:
        """Every rank's speed; a lost rank has told no idle time."""
        return [
            RankSpeed(
                rank=rank,
                host=roster.hosts[rank] if roster.hosts else "",
                tickets=self._tickets[rank],
                craft_seconds=self._craft_seconds[rank],
                idle=self._idle(rank, farewells, trains=rank in trainers),
                trains=rank in trainers,
            )
            for rank in range(roster.size)
        ]

    def _idle(self, rank: int, farewells: Mapping[int, Farewell], *, trains: bool) -> float | None:
        if trains:
            waited, total = self._trainers[rank]
            return waited / total if total else None
        if rank not in farewells:
            return None
        spent = farewells[rank].work.seconds
        idle = spent.parameter_wait_seconds + spent.trainer_wait_seconds + spent.grant_wait_seconds
        return idle / max(idle + spent.craft_seconds, 1e-9)


def speed_lines(speeds: Sequence[RankSpeed]) -> list[str]:
    """The table, line by line; none for a rank that is alone.

    Seconds per ticket are those of work: where attacks wait, for parameters or for the trainer,
    and where there is no ticket, a rank is idle.
    """
    if len(speeds) < 2:
        return []
    if len(speeds) <= MOST_RANKS:
        several = sum(each.trains for each in speeds) > 1
        rows = [
            (f"{each.rank}{' trains' * (several and each.trains)}", each.host, *_figures([each]))
            for each in speeds
        ]
        return aligned([("rank", "host", *_FIGURES), *rows], num_names=2)
    # Their work is another.
    trainers = [each for each in speeds if each.trains]
    attackers = [each for each in speeds if not each.trains]
    whose = trainers[0].host if len(trainers) == 1 else str(len(trainers))
    rows = [(f"trainer{'s' * (len(trainers) > 1)}", whose, *_figures(trainers))]
    for host in dict.fromkeys(each.host for each in attackers):
        there = [each for each in attackers if each.host == host]
        rows.append((host, str(len(there)), *_figures(there)))
    return aligned([("host", "ranks", *_FIGURES), *rows], num_names=2)


_FIGURES = ("tickets", "s per ticket", "idle")


def _figures(speeds: Sequence[RankSpeed]) -> tuple[str, str, str]:
    """Of one rank, or of all attackers of a host: sums and means."""
    known = [each.craft_seconds / each.tickets for each in speeds if each.tickets]
    seconds = f"{fmean(known):.3g}" if known else "-"
    if len(known) > 1:
        seconds += f" ({min(known):.3g} to {max(known):.3g})"
    idle = [each.idle for each in speeds if each.idle is not None]
    unknown = "-" if speeds[0].trains else "lost"
    return (
        str(sum(each.tickets for each in speeds)),
        seconds,
        f"{100 * fmean(idle):.1f} %" if idle else unknown,
    )
