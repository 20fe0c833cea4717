"""One trainer and its attackers in virtual time, over the real Dispatcher and CraftQueue.

Messages take random times and keep their order only within their channel, as over MPI; attackers
may be far slower than others; tickets overdue are crafted again. Knows no MPI, no torch and none of
the engine's loops.
"""

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

from scenario import NEVER, TRAINER, Checkpoint, Observed, Scenario, UsedStep, mixed

from mpiadv.contract.craft_queue import AttackStep, CraftQueue
from mpiadv.contract.dispatch import Dispatcher, Grant, Train
from mpiadv.contract.rhythm import Rhythm
from mpiadv.contract.ticket_states import TicketState as State
from mpiadv.contract.tickets import AttackSettings


@dataclass(frozen=True, kw_only=True)
class Copy:
    """A crafted batch: its hash, the attack steps that made it and the time they took."""

    ticket: int
    rank: int
    value: int
    steps: tuple[UsedStep, ...]
    seconds: float


class Bench:
    """One rank's tickets and the hashes of their batches so far."""

    def __init__(self, rank: int, queue: CraftQueue) -> None:
        self.rank = rank
        self.queue = queue
        self.ring: dict[int, int] = {}
        self.settings: dict[int, AttackSettings] = {}
        self._values: dict[int, int] = {}
        self._steps: dict[int, list[UsedStep]] = {}
        self._seconds: dict[int, float] = {}

    def run(self, step: AttackStep, seconds: float) -> None:
        ticket, settings = step.ticket, self.queue.settings(step.ticket)
        value = self._values.get(ticket, mixed(ticket, settings))
        self._values[ticket] = mixed(value, step.step, step.version, self.ring[step.version])
        self._seconds[ticket] = self._seconds.get(ticket, 0.0) + seconds
        self._steps.setdefault(ticket, []).append(
            UsedStep(
                ticket=ticket,
                step=step.step,
                version=step.version,
                rank=self.rank,
                settings=settings,
            )
        )

    def pop_crafted(self, pop: Callable[[Mapping[int, AttackSettings]], object]) -> Copy | None:
        crafting = pop(self.settings)
        if crafting is None:
            return None
        ticket, settings = crafting.ticket, crafting.settings  # type: ignore[attr-defined]
        value = self._values.pop(ticket, mixed(ticket, settings))
        steps = tuple(self._steps.pop(ticket, ()))
        seconds = self._seconds.pop(ticket, 0.0)
        return Copy(ticket=ticket, rank=self.rank, value=value, steps=steps, seconds=seconds)

    def forget(self, ticket: int) -> None:
        self._values.pop(ticket, None)
        self._steps.pop(ticket, None)
        self._seconds.pop(ticket, None)

    def take_up(self, version: int, value: int, settings: AttackSettings) -> None:
        self.ring[version], self.settings[version] = value, settings

    def evict(self, oldest: int) -> None:
        for version in [version for version in self.ring if version < oldest]:
            del self.ring[version], self.settings[version]


class Simulation:
    """Runs one scenario to its end; every decision is the real Dispatcher's or CraftQueue's."""

    def __init__(self, scenario: Scenario, checkpoint: Checkpoint | None = None) -> None:
        start = checkpoint or Checkpoint()
        self.scenario = scenario
        self.now = 0.0
        self.random = Random(scenario.seed)
        self.observed = Observed()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._num_events = 0
        self._channels: dict[tuple[str, int], float] = {}
        attackers = list(range(1, scenario.num_attackers + 1))
        dispatcher = Dispatcher(
            scenario.rule,
            attackers=attackers,
            outstanding=scenario.outstanding,
            num_tickets=scenario.num_tickets,
            first_ticket=start.step,
            mode=scenario.mode,
            trainer_crafts=scenario.trainer_crafts,
        )
        self.trainer = SimulatedTrainer(self, dispatcher, start.value)
        self.attackers = {rank: SimulatedAttacker(self, rank) for rank in attackers}
        for rank, time in scenario.losses.items():
            if rank in self.attackers:
                self._at(time, lambda rank=rank: self.trainer.lost(rank))  # type: ignore[misc]
        for version in sorted(start.ring):
            self.trainer.publish(version, start.ring[version])

    def run(self) -> Observed:
        """Run until nothing is left to happen; an unfinished run is a deadlock."""
        self.trainer.act()
        while self._events and not self.trainer.is_stopped:
            self.now, _, event = heapq.heappop(self._events)
            event()
        trainer, observed = self.trainer, self.observed
        assert trainer.is_stopped or trainer.book.finished, f"deadlock at {trainer.book.step}"
        observed.value = trainer.value
        observed.credits_left_charged = sum(trainer.charges())
        return observed

    def after(self, delay: float, event: Callable[[], None]) -> None:
        self._at(self.now + delay, event)

    def _at(self, time: float, event: Callable[[], None]) -> None:
        self._num_events += 1
        heapq.heappush(self._events, (time, self._num_events, event))

    def send(
        self, channel: tuple[str, int], times: tuple[float, float], event: Callable[[], None]
    ) -> None:
        """Deliver after a random time, but in order with the channel's earlier messages."""
        slowness = self.scenario.slowness.get(channel[1], 1.0)
        at = self.now + self.random.uniform(*times) * slowness
        at = self._channels[channel] = max(at, self._channels.get(channel, 0.0))
        self._at(at, event)

    def took(self, usual: float, rank: int) -> float:
        """How long something takes on `rank` this time."""
        jitter = self.scenario.jitter * self.random.uniform(-1, 1)
        return usual * (1 + jitter) * self.scenario.slowness.get(rank, 1.0)


class SimulatedAttacker:
    """Crafts what it is granted; drops what was consumed without it."""

    def __init__(self, simulation: Simulation, rank: int) -> None:
        scenario = simulation.scenario
        self._simulation = simulation
        self._rank = rank
        self._bench = Bench(rank, CraftQueue(scenario.rule, scenario.mode))
        self._newest = -1
        self._patient = False
        self._rhythm = Rhythm()
        self._step_took = 0.0
        self._is_busy = False
        self._began = 0.0

    def granted(self, grant: Grant) -> None:
        self._bench.queue.add(grant.ticket)
        self._patient = grant.patient
        self._act()

    def received(
        self, version: int, value: int, settings: AttackSettings, published: float
    ) -> None:
        scenario, observed = self._simulation.scenario, self._simulation.observed
        self._rhythm.arrived(published, self._simulation.now)
        self._bench.take_up(version, value, settings)
        self._newest = version
        self._bench.evict(scenario.rule.first_version(version))
        largest = observed.largest_ring.get(self._rank, 0)
        observed.largest_ring[self._rank] = max(largest, len(self._bench.ring))
        self._act()

    def _act(self) -> None:
        if self._is_busy:
            return
        self._drop_consumed()
        while copy := self._bench.pop_crafted(self._bench.queue.pop_crafted):
            self._send_batch(copy)
        step = self._next_step()
        if step is not None:
            self._is_busy = True
            usual = self._simulation.scenario.attack_step
            self._step_took = self._simulation.took(usual, self._rank)
            self._bench.run(step, self._step_took)
            self._simulation.after(self._step_took, lambda: self._ran(step))

    def _next_step(self) -> AttackStep | None:
        """The next step; where only patience keeps it back, look again soon."""
        queue, settings = self._bench.queue, self._bench.settings
        patient = self._rhythm.rewards_patience(
            self._step_took, self._simulation.now, patient=self._patient
        )
        step = queue.next_step(settings, patient=patient)
        if step is None and patient and queue.next_step(settings) is not None:
            self._simulation.after(self._step_took / 10, self._act)
        return step

    def _ran(self, step: AttackStep) -> None:
        self._is_busy = False
        self._bench.queue.ran(step)
        self._act()

    def _drop_consumed(self) -> None:
        for ticket in self._bench.queue.tickets:
            if ticket < self._newest:
                self._bench.queue.remove(ticket)
                self._bench.forget(ticket)
                self._send(lambda ticket=ticket: self._trainer.dropped(ticket, self._rank))  # type: ignore[misc]

    def _send_batch(self, copy: Copy) -> None:
        self._send(lambda: self._trainer.arrived(copy))

    def _send(self, event: Callable[[], None]) -> None:
        self._simulation.send(("batch", self._rank), self._simulation.scenario.latency, event)

    @property
    def _trainer(self) -> "SimulatedTrainer":
        return self._simulation.trainer


class SimulatedTrainer:
    """Grants, crafts and consumes as the dispatcher decides; stops dead at `stop_at`."""

    def __init__(self, simulation: Simulation, dispatcher: Dispatcher, value: int) -> None:
        self._simulation = simulation
        self.book = dispatcher
        self.value = value
        self.is_stopped = False
        self._bench = Bench(TRAINER, dispatcher.own)
        self._ready: dict[int, Copy] = {}
        self._granted_at: dict[int, float] = {}
        self._is_busy = False
        self._idle_since = 0.0

    def publish(self, version: int, value: int) -> None:
        simulation = self._simulation
        now, settings = simulation.now, simulation.scenario.settings_at(version)
        self._bench.take_up(version, value, settings)
        largest = simulation.observed.largest_ring.get(TRAINER, 0)
        simulation.observed.largest_ring[TRAINER] = max(largest, len(self._bench.ring))
        for rank, attacker in simulation.attackers.items():
            simulation.send(
                ("broadcast", rank),
                simulation.scenario.broadcast,
                lambda attacker=attacker: attacker.received(version, value, settings, now),  # type: ignore[misc]
            )

    def arrived(self, copy: Copy) -> None:
        if copy.rank not in self._simulation.attackers:
            return
        observed = self._simulation.observed
        observed.returned[copy.rank] = observed.returned.get(copy.rank, 0) + 1
        self.book.pace.crafted(copy.seconds, copy.rank)
        observed.won_races += self.book.state(copy.ticket) is State.RECRAFTED
        if self.book.arrived(copy.ticket, copy.rank):
            self._bench.forget(copy.ticket)
            self._keep(copy)
        else:
            observed.lost_races += 1
        self.act()

    def dropped(self, ticket: int, attacker: int) -> None:
        if attacker not in self._simulation.attackers:
            return
        observed = self._simulation.observed
        observed.dropped += 1
        observed.returned[attacker] = observed.returned.get(attacker, 0) + 1
        self.book.dropped(ticket, attacker)
        self.act()

    def lost(self, attacker: int) -> None:
        """The attacker is gone: nothing goes to it or comes from it any more."""
        del self._simulation.attackers[attacker]
        self._simulation.observed.crafted_anew += len(self.book.lost(attacker))
        self.act()

    def charges(self) -> list[int]:
        """Tickets granted to each attacker and not yet both consumed and returned."""
        return [len(self.book.charged_to(rank)) for rank in self._simulation.attackers]

    def act(self) -> None:
        if self._is_busy or self.is_stopped or self.book.finished:
            return
        self._grant()
        self._keep_crafted()
        decision = self.book.decide(self._bench.settings)
        if decision is None and self._keep_crafted():
            # The ticket just taken needed no attack steps here.
            decision = self.book.decide(self._bench.settings)
        if decision is None:
            self._wait()
            return
        self._book_idle()
        self._is_busy = True
        if isinstance(decision, Train):
            self._begin_training(decision.ticket)
        else:
            self._begin_attack_step(decision)

    def _grant(self) -> None:
        simulation, observed = self._simulation, self._simulation.observed
        while (grant := self.book.next_grant()) is not None:
            self._granted_at[grant.ticket] = simulation.now
            attacker = simulation.attackers[grant.attacker]
            observed.granted[grant.attacker] = observed.granted.get(grant.attacker, 0) + 1
            simulation.send(
                ("grant", grant.attacker),
                simulation.scenario.latency,
                lambda attacker=attacker, grant=grant: attacker.granted(grant),  # type: ignore[misc]
            )
        observed.largest_charge = max(observed.largest_charge, sum(self.charges()))
        of_one = max(self.charges(), default=0)
        observed.largest_charge_of_one = max(observed.largest_charge_of_one, of_one)
        observed.largest_live = max(observed.largest_live, self.book.num_live)

    def _begin_training(self, ticket: int) -> None:
        scenario = self._simulation.scenario
        copy = self._ready.pop(ticket)
        settings = scenario.settings_at(scenario.rule.first_version(ticket))
        first = min(scenario.rule.crafting_steps(settings.num_steps), settings.num_steps)
        own = [
            UsedStep(ticket=ticket, step=step, version=ticket, rank=TRAINER, settings=settings)
            for step in range(first, settings.num_steps)
        ]
        observed = self._simulation.observed
        observed.used[ticket] = [*copy.steps, *own]
        observed.crafted_by[ticket] = copy.rank
        self.value = mixed(self.value, copy.value, len(own))
        usual = scenario.train + scenario.attack_step * len(own)
        self._simulation.after(self._simulation.took(usual, TRAINER), self._trained)

    def _begin_attack_step(self, step: AttackStep) -> None:
        if self.book.state(self.book.step) is State.READY:
            self._simulation.observed.kept_waiting += 1
        delay = self._simulation.took(self._simulation.scenario.attack_step, TRAINER)
        self._bench.run(step, delay)
        self._simulation.after(delay, lambda: self._ran(step))

    def _ran(self, step: AttackStep) -> None:
        self._is_busy = False
        self._idle_since = self._simulation.now
        if step.ticket in self.book.own:
            self.book.own.ran(step)
        self.act()

    def _trained(self) -> None:
        simulation, book, rule = self._simulation, self.book, self.book.rule
        self._is_busy = False
        self._idle_since = simulation.now
        simulation.observed.consumed.append(book.step)
        book.trained()
        book.pace.trained(simulation.scenario.train)
        self._bench.evict(rule.first_version(book.step))
        simulation.observed.step_ended.append(simulation.now)
        simulation.observed.idle_by_step.append(simulation.observed.idle)
        if not book.finished and rule.is_published(book.step):
            self.publish(book.step, self.value)
        if book.step == simulation.scenario.stop_at:
            self.is_stopped = True
            simulation.observed.checkpoint = Checkpoint(
                step=book.step, value=self.value, ring=dict(self._bench.ring)
            )
        self.act()

    def _wait(self) -> None:
        """Stay idle; craft again what is overdue, or look again when it will be."""
        if self.book.state(self.book.step) is State.READY:
            self._simulation.observed.kept_waiting += 1
        ticket, now = self.book.step, self._simulation.now
        if self.book.state(ticket) is not State.GRANTED:
            return
        due = self._granted_at[ticket] + self._simulation.scenario.overdue
        if due <= now:
            self._simulation.observed.recrafted += 1
            self.book.overdue(ticket)
            self.act()
        elif due != NEVER:
            self._simulation.after(due - now, self.act)

    def _keep_crafted(self) -> bool:
        """Keep what was crafted here; whether there was anything."""
        copies = list(iter(lambda: self._bench.pop_crafted(self.book.crafted_here), None))
        for copy in copies:
            self.book.pace.crafted(copy.seconds, TRAINER)
            self._keep(copy)
        return bool(copies)

    def _keep(self, copy: Copy) -> None:
        assert copy.ticket not in self._ready, "a batch was kept twice"
        self._ready[copy.ticket] = copy

    def _book_idle(self) -> None:
        self._simulation.observed.idle += self._simulation.now - self._idle_since
        self._idle_since = self._simulation.now


def simulate(scenario: Scenario, checkpoint: Checkpoint | None = None) -> Observed:
    """Run `scenario`, from `checkpoint` if one is given."""
    return Simulation(scenario, checkpoint).run()
