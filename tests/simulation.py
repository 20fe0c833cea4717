"""The forecast's simulation on random schedules, and a record of what its real books let happen.

Messages take random times and keep their order only within their channel, as over MPI; attackers
may be far slower than others, or lost; tickets overdue are crafted again. What is recorded comes
from the books alone: the Dispatcher and the CraftQueues say what they book, and parameters and
batches are hashes of that.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from random import Random

from scenario import TRAINER, Checkpoint, Observed, Scenario, UsedStep, mixed

from mpiadv.contract.craft_queue import AttackStep, Crafting, CraftQueue, Versions
from mpiadv.contract.dispatch import Dispatcher, Train
from mpiadv.contract.dispatch import TicketState as State
from mpiadv.contract.tickets import AttackSettings
from mpiadv.contract.turns import Grant
from mpiadv.forecast import simulation
from mpiadv.forecast.job import Job, Network
from mpiadv.forecast.transfers import Transfers


class RandomWires(Transfers):
    """Every message takes a random time, but arrives after its channel's earlier ones."""

    def __init__(self, scenario: Scenario, slowness: Callable[[int], float]) -> None:
        super().__init__(Network())
        self._scenario = scenario
        self._slowness = slowness
        self._random = Random(scenario.seed + 1)
        self._last: dict[tuple[str, int], float] = {}

    def word(self, now: float, attacker: int) -> float:
        return self._arrival("grant", attacker, now, self._scenario.latency)

    def version(
        self, now: float, num_bytes: int, attackers: Collection[int]
    ) -> dict[float, list[int]]:
        arrivals: dict[float, list[int]] = {}
        for attacker in attackers:
            at = self._arrival("version", attacker, now, self._scenario.broadcast)
            arrivals.setdefault(at, []).append(attacker)
        return arrivals

    def batch(self, now: float, num_bytes: int, attacker: int) -> float:
        return self._arrival("batch", attacker, now, self._scenario.latency)

    def _arrival(
        self, channel: str, attacker: int, now: float, times: tuple[float, float]
    ) -> float:
        at = now + self._random.uniform(*times) * self._slowness(attacker)
        self._last[channel, attacker] = max(at, self._last.get((channel, attacker), 0.0))
        return self._last[channel, attacker]


class RecordingQueue(CraftQueue):
    """One rank's tickets; `copies` are the batches that all ranks have crafted, by rank and ticket.

    `values` are the hashes of the parameters by version.
    """

    def __init__(self, scenario: Scenario, rank: int, values: Sequence[int]) -> None:
        super().__init__(scenario.rule, scenario.mode)
        self._rank = rank
        self._values = values
        self._steps: dict[int, list[UsedStep]] = {}
        self._hashes: dict[int, int] = {}
        self.copies: dict[int, tuple[int, list[UsedStep]]] = {}

    def ran(self, step: AttackStep) -> None:
        super().ran(step)
        ticket, settings = step.ticket, self.settings(step.ticket)
        value = self._hashes.get(ticket, mixed(ticket, settings))
        self._hashes[ticket] = mixed(value, step.step, step.version, self._values[step.version])
        self._steps.setdefault(ticket, []).append(
            UsedStep(
                ticket=ticket,
                step=step.step,
                version=step.version,
                rank=self._rank,
                settings=settings,
            )
        )

    def pop_crafted(self, versions: Versions) -> Crafting | None:
        crafting = super().pop_crafted(versions)
        if crafting is not None:
            ticket = crafting.ticket
            value = self._hashes.pop(ticket, mixed(ticket, crafting.settings))
            self.copies[ticket] = value, self._steps.pop(ticket, [])
        return crafting

    def remove(self, ticket: int) -> Crafting:
        self._hashes.pop(ticket, None)
        self._steps.pop(ticket, None)
        return super().remove(ticket)


class RecordingBook(Dispatcher):
    """The trainer's book; what still comes from attackers that are `lost` it does not hear."""

    def __init__(self, job: "Simulation", scenario: Scenario, first: Checkpoint) -> None:
        super().__init__(
            scenario.rule,
            attackers=list(job.attackers),
            outstanding=scenario.outstanding,
            num_tickets=scenario.training_steps * scenario.rule.tickets_per_step,
            first_ticket=first.step * scenario.rule.tickets_per_step,
            mode=scenario.mode,
            trainer_crafts=scenario.trainer_crafts,
        )
        self._job = job
        self._scenario = scenario
        self._kept: dict[int, int] = {}
        self._sum = 0
        self._lost: set[int] = set()
        self.own = job.new_queue(TRAINER)

    @property
    def charges(self) -> list[int]:
        """Tickets granted to each attacker and not yet both consumed and returned."""
        return [len(self._turns.charged[rank]) for rank in self._job.attackers.keys() - self._lost]

    def next_grant(self) -> Grant | None:
        grant, seen = super().next_grant(), self._job.observed
        if grant is not None:
            seen.granted[grant.attacker] += 1
        charges = self.charges
        seen.largest_charge = max(seen.largest_charge, sum(charges))
        seen.largest_charge_of_one = max([seen.largest_charge_of_one, *charges])
        seen.largest_live = max(seen.largest_live, self.num_live)
        return grant

    def arrived(self, ticket: int, attacker: int) -> bool:
        if attacker in self._lost:
            return False
        seen, is_race = self._job.observed, self.state(ticket) is State.RECRAFTED
        is_first = super().arrived(ticket, attacker)
        seen.returned[attacker] += 1
        seen.won_races += is_race and is_first
        seen.lost_races += not is_first
        if is_first:
            self._keep(ticket, attacker)
        return is_first

    def dropped(self, ticket: int, attacker: int) -> None:
        if attacker not in self._lost:
            self._job.observed.dropped += 1
            self._job.observed.returned[attacker] += 1
            super().dropped(ticket, attacker)

    def lost(self, attacker: int) -> list[int]:
        self._lost.add(attacker)
        anew = super().lost(attacker)
        self._job.observed.crafted_anew += len(anew)
        return anew

    def crafted_here(self, versions: Versions) -> Crafting | None:
        crafting = super().crafted_here(versions)
        if crafting is not None:
            self._keep(crafting.ticket, TRAINER)
        return crafting

    def decide(self, versions: Versions, *, may_train: bool = True) -> Train | AttackStep | None:
        decision = super().decide(versions, may_train=may_train)
        is_ready = self.state(self.ticket) is State.READY
        self._job.observed.kept_waiting += is_ready and not isinstance(decision, Train)
        return decision

    def trained(self) -> None:
        ticket, seen, rule, trained = self.ticket, self._job.observed, self.rule, self.step
        rank = self._kept.pop(ticket)
        value, steps = self._job.queues[rank].copies.pop(ticket)
        settings = self._scenario.settings_at(rule.first_version(ticket))
        own = [
            UsedStep(ticket=ticket, step=step, version=trained, rank=TRAINER, settings=settings)
            for step in range(rule.crafting_steps(settings.num_steps), settings.num_steps)
        ]
        super().trained()
        self._sum = mixed(self._sum or self._job.values[-1], value, len(own))
        if self.is_between_steps:
            self._job.values.append(self._sum)
            self._sum = 0
        seen.consumed.append(ticket)
        seen.used[ticket] = [*steps, *own]
        seen.crafted_by[ticket] = rank
        seen.step_ended.append(self._job.clock.now)
        seen.idle_by_step.append(self._job.trainer.idle_seconds)

    def _keep(self, ticket: int, rank: int) -> None:
        assert ticket not in self._kept, "a batch was kept twice"
        self._kept[ticket] = rank


class Simulation(simulation.Simulation):
    """Runs one scenario to its end, or to `stop_at`."""

    def __init__(self, scenario: Scenario, checkpoint: Checkpoint | None = None) -> None:
        self._scenario = scenario
        self._start = checkpoint or Checkpoint()
        self.observed = Observed()
        # Nothing uses versions of before but those that the checkpoint holds.
        self.values = [self._start.ring.get(version, 0) for version in range(self._start.step)]
        self.values.append(self._start.value)
        self.queues: dict[int, RecordingQueue] = {}
        transfers = RandomWires(scenario, lambda rank: self.job.slowness.get(rank, 1.0))
        super().__init__(_job(scenario), scenario.num_attackers + 1, transfers)
        for rank, time in scenario.losses.items():
            if rank in self.attackers:
                self.clock.at(time, partial(self._lose, rank))

    def run(self) -> Observed:
        """Run until nothing is left to happen; an unfinished run is a deadlock."""
        book, observed, stop_at = self.trainer.book, self.observed, self._scenario.stop_at
        assert isinstance(book, RecordingBook)
        while self.clock and book.step != stop_at:
            self.clock.advance()
            for rank, holder in {TRAINER: self.trainer, **self.attackers}.items():
                largest = observed.largest_ring.get(rank, 0)
                observed.largest_ring[rank] = max(largest, len(holder.versions))
        assert book.finished or book.step == stop_at, f"deadlock at {book.step}"
        observed.value = self.values[-1]
        observed.recrafted = self.trainer.recrafted
        observed.credits_left_charged = sum(book.charges)
        if book.step == stop_at:
            observed.checkpoint = self._checkpoint()
        return observed

    def new_queue(self, rank: int) -> CraftQueue:
        self.queues[rank] = RecordingQueue(self._scenario, rank, self.values)
        return self.queues[rank]

    def new_book(self) -> Dispatcher:
        return RecordingBook(self, self._scenario, self._start)

    def first_versions(self) -> Sequence[int]:
        return sorted(self._start.ring)

    def settings_at(self, version: int) -> AttackSettings:
        return self._scenario.settings_at(version)

    def allowed_seconds(self, attacker: int) -> float:
        return self._scenario.overdue

    def become(self, slowness: dict[int, float]) -> None:
        """From now on so many times as slow."""
        self.job = replace(self.job, slowness=slowness)

    def _lose(self, attacker: int) -> None:
        self.trainer.book.lost(attacker)
        self.trainer.act()

    def _checkpoint(self) -> Checkpoint:
        """What is published at this step is so a moment later."""
        step = self.trainer.book.step
        held = {*self.trainer.versions, *([step] if self.job.rule.is_published(step) else [])}
        ring = {version: self.values[version] for version in held}
        return Checkpoint(step=step, value=self.values[-1], ring=ring)


def _job(scenario: Scenario) -> Job:
    crafted = scenario.rule.crafting_steps(scenario.num_steps)
    return Job(
        rule=scenario.rule,
        num_attack_steps=scenario.num_steps,
        craft_seconds=scenario.attack_step * crafted,
        train_seconds=scenario.train + scenario.attack_step * (scenario.num_steps - crafted),
        num_steps=scenario.training_steps,
        outstanding=scenario.outstanding,
        mode=scenario.mode,
        trainer_crafts=scenario.trainer_crafts,
        leaves_host_free=False,
        jitter=scenario.jitter,
        slowness=scenario.slowness,
        seed=scenario.seed,
    )


def simulate(scenario: Scenario, checkpoint: Checkpoint | None = None) -> Observed:
    """Run `scenario`, from `checkpoint` if one is given."""
    return Simulation(scenario, checkpoint).run()
