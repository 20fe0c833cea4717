"""A job in virtual time: the real dispatcher, queues and patience; work and messages take time.

Follows the loops of `mpiadv.loops`: what they do at once happens at one moment here. Pure.
"""

from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from random import Random
from statistics import fmean

from mpiadv.contract.craft_queue import AttackStep, Crafting, CraftQueue
from mpiadv.contract.dispatch import Dispatcher, TicketState, Train
from mpiadv.contract.outbox import HEAD_START_SECONDS, Outbox, Sending
from mpiadv.contract.tickets import AttackSettings
from mpiadv.forecast.job import Forecast, Job
from mpiadv.forecast.simulated_attacker import SimulatedAttacker
from mpiadv.forecast.transfers import Clock, Transfers

EVEN_STEPS = 400
"""Training steps that are looked at, once the job runs evenly."""

LONGEST_START = 2000
"""Training steps that the job may take until then, at most."""

OTHER_HOSTS = -1
"""Whoever a broadcast reaches, in the place of an attacker."""


Meet = Callable[[Callable[[], None]], None]
"""Told when a trainer is through with its share of a step; calls what it is given to go on."""


class Simulation:
    """All ranks of one team; what is to be simulated otherwise, a subclass says.

    `meet` is where several trainers meet at the end of each step, in the time of one `clock`.
    """

    def __init__(
        self,
        job: Job,
        ranks: int,
        transfers: Transfers,
        *,
        clock: Clock | None = None,
        meet: Meet | None = None,
    ) -> None:
        self.job = job
        self.clock = Clock() if clock is None else clock
        self.meet = meet
        self.transfers = transfers
        self._random = Random(job.seed)
        self._ranks = ranks
        self.attackers = {rank: SimulatedAttacker(self, rank) for rank in range(1, ranks)}
        self.trainer = SimulatedTrainer(self)

    def new_queue(self, rank: int) -> CraftQueue:
        return CraftQueue(self.job.rule, self.job.mode)

    def new_book(self) -> Dispatcher:
        job = self.job
        return Dispatcher(
            job.rule,
            attackers=list(self.attackers),
            outstanding=job.outstanding,
            # More than are looked at: the last tickets of a job leave attackers without work.
            num_tickets=job.num_steps * job.rule.team_tickets + job.rule.window,
            mode=job.mode,
            trainer_crafts=job.trainer_crafts,
        )

    def first_versions(self) -> Sequence[int]:
        """Those that are published before anything else happens."""
        return [0]

    def settings_at(self, version: int) -> AttackSettings:
        """Those that it carries; epsilon plays no part in how long anything takes."""
        return AttackSettings(num_steps=self.job.num_attack_steps, epsilon=0.0)

    def allowed_seconds(self, attacker: int) -> float:
        """For how long it may have a ticket."""
        return self.trainer.book.pace.allowed_seconds(attacker)

    def forecast(self, even_steps: int) -> Forecast:
        """Simulate as many steps as are needed, and look at the last of them."""
        job = self.job
        start = min(LONGEST_START, 50 + 4 * (job.rule.max_staleness + 1 + self._ranks))
        start = min(start, job.num_steps // 2)
        num_steps = min(job.num_steps, start + even_steps)
        began, ended = self._run_to(start), self._run_to(num_steps)
        seconds, idle, busy, sent, received = (b - a for a, b in zip(began, ended, strict=True))
        steps = num_steps - start
        first, last = zip(*self.trainer.ages[start * job.rule.team_tickets :], strict=True)
        return Forecast(
            ranks=self._ranks,
            step_seconds=seconds / steps,
            training_seconds=ended[0] + (job.num_steps - num_steps) * seconds / steps,
            trainer_idle=idle / seconds,
            attackers_idle=1 - busy / seconds / len(self.attackers) if self.attackers else 0.0,
            first_staleness=fmean(first),
            last_staleness=fmean(last),
            sent_bytes=sent / steps,
            received_bytes=received / steps,
            recrafted=self.trainer.recrafted,
        )

    def took(self, usual: float, rank: int) -> float:
        """How long something takes on `rank` this time."""
        jitter = self.job.jitter * self._random.uniform(-1.0, 1.0)
        return usual * (1.0 + jitter) * self.job.slowness.get(rank, 1.0)

    def _run_to(self, step: int) -> tuple[float, float, float, int, int]:
        """Time passed then, idle seconds of the trainer, busy ones of attackers; bytes out, in."""
        while self.trainer.book.step < step:
            self.clock.advance()
        busy = sum(attacker.busy_seconds for attacker in self.attackers.values())
        sent, received = self.transfers.sent_bytes, self.transfers.received_bytes
        return self.clock.now, self.trainer.idle_seconds, busy, sent, received


class SimulatedTrainer:
    """Grants, crafts and trains as the dispatcher decides; publishes as the rule says."""

    def __init__(self, simulation: Simulation) -> None:
        self.book = simulation.new_book()
        self.ages: list[tuple[int, int]] = []
        self.idle_seconds = 0.0
        self.recrafted = 0
        self._simulation = simulation
        self._clock = simulation.clock
        self.versions: dict[int, AttackSettings] = {}
        self._outbox = Outbox[int](lambda: self._clock.now)
        self._published_at: dict[int, float] = {}
        self._ready: dict[int, Crafting] = {}
        self._granted_at: dict[int, float] = {}
        self._is_busy = True
        self._is_exchanging = False
        self._unbooked: float | None = None
        """Seconds of the last ticket of a step whose sum came while something else was done."""
        self._idle_since = 0.0
        self._clock.at(0.0, self._begin)

    def arrived(self, crafting: Crafting, attacker: int) -> None:
        job = self._simulation.job
        self.book.pace.crafted(job.craft_seconds * job.slowness.get(attacker, 1.0), attacker)
        if self.book.arrived(crafting.ticket, attacker):
            self._ready[crafting.ticket] = crafting
        self.act()

    def dropped(self, ticket: int, attacker: int) -> None:
        self.book.dropped(ticket, attacker)
        self.act()

    def act(self) -> None:
        """Do what is to be done now, unless something else is being done."""
        if self._is_busy:
            return
        self._grant()
        self._keep_crafted()
        may_train = not self._is_exchanging
        decision = self.book.decide(self.versions, may_train=may_train)
        if decision is None and self._keep_crafted():
            # The ticket just taken needed no attack steps here.
            decision = self.book.decide(self.versions, may_train=may_train)
        if decision is None:
            self._craft_again_if_overdue()
            return
        self._is_busy = True
        self.idle_seconds += self._clock.now - self._idle_since
        simulation, job = self._simulation, self._simulation.job
        if isinstance(decision, Train):
            seconds = simulation.took(job.train_seconds, 0)
            overhead = job.step_overhead_seconds / job.rule.team_tickets
            self._clock.after(seconds + overhead, partial(self._trained, seconds))
        else:
            seconds = simulation.took(job.attack_step_seconds, 0)
            self._clock.after(seconds, partial(self._ran, decision))

    def _grant(self) -> None:
        while (grant := self.book.next_grant()) is not None:
            if self.book.holders.get(grant.ticket) == grant.attacker:  # else it has a copy
                self._granted_at[grant.ticket] = self._clock.now
            attacker = self._simulation.attackers[grant.attacker]
            arrival = self._simulation.transfers.word(self._clock.now, grant.attacker)
            self._clock.at(arrival, partial(attacker.granted, grant))

    def _keep_crafted(self) -> bool:
        """Keep what was crafted here; whether there was anything."""
        kept = False
        while (crafting := self.book.crafted_here(self.versions)) is not None:
            self.book.pace.crafted(self._simulation.job.craft_seconds, 0)
            self._ready[crafting.ticket] = crafting
            kept = True
        return kept

    def _ran(self, step: AttackStep) -> None:
        # Another copy of the batch may have arrived meanwhile: then the ticket is gone.
        if step.ticket in self.book.own:
            self.book.own.ran(step)
        self._go_on()

    def _trained(self, seconds: float) -> None:
        meet = self._simulation.meet
        if meet is None or not self.book.rule.ends_step(self.book.ticket):
            self._consume(seconds)
            return
        self._is_exchanging = True
        meet(partial(self._summed, seconds))
        self._go_on()  # crafting meanwhile

    def _summed(self, seconds: float) -> None:
        """What all trainers' tickets come to is there."""
        self._is_exchanging = False
        if self._is_busy:
            self._unbooked = seconds
            return
        self._is_busy = True
        self.idle_seconds += self._clock.now - self._idle_since
        self._consume(seconds)

    def _consume(self, seconds: float) -> None:
        book, rule = self.book, self.book.rule
        used = self._ready.pop(book.ticket)
        self.ages.append((book.step - used.first_version, book.step - used.last_version))
        book.trained()
        book.pace.trained(seconds)
        for old in rule.not_needed(self.versions, book.step):
            del self.versions[old]
            self._outbox.withdraw(old)
        if book.is_between_steps and rule.is_published(book.step):
            self._publish(book.step)
        else:
            self._go_on()

    def _begin(self) -> None:
        *earlier, newest = self._simulation.first_versions()
        for version in earlier:
            self._launch(version, self._clock.now)
        self._publish(newest)

    def _publish(self, version: int) -> None:
        now, job = self._clock.now, self._simulation.job
        self._clock.after(job.snapshot_seconds, partial(self._launch, version, now))
        if job.leaves_host_free:
            self._go_on()
        else:
            self._clock.after(job.snapshot_seconds, self._go_on)

    def _launch(self, version: int, published: float) -> None:
        """Let a version go out, to those first who need it at once."""
        self._published_at[version] = published
        in_time = self._simulation.job.leaves_host_free
        first = self.book.in_a_hurry(version, self.versions) if in_time else []
        receivers = {self._receiver_for(attacker) for attacker in self._simulation.attackers}
        self._outbox.add(version, receivers, map(self._receiver_for, first))
        self.versions[version] = self._simulation.settings_at(version)
        self._send_versions()
        if self._outbox.holds(version):
            # Nobody waits longer than this for those that are first.
            self._clock.after(1.01 * HEAD_START_SECONDS, self._send_versions)
        self.act()

    def _receiver_for(self, attacker: int) -> int:
        """Who gets a version that is to reach an attacker: itself, or whoever a broadcast does."""
        return OTHER_HOSTS if self._simulation.transfers.network.is_remote(attacker) else attacker

    def _send_versions(self) -> None:
        """Send what may be sent now."""
        simulation, now = self._simulation, self._clock.now
        for sending, receiver in self._outbox.due():
            to = [each for each in simulation.attackers if self._receiver_for(each) == receiver]
            arrivals = simulation.transfers.version(now, simulation.job.version_bytes, to)
            for arrival, those in arrivals.items():
                self._clock.at(arrival, partial(self._arrive, sending.slot, those))
            first = min(arrivals)
            is_known = simulation.transfers.answer(first, arrivals[first][0])
            self._clock.at(is_known, partial(self._taken, sending, receiver))

    def _arrive(self, version: int, attackers: Sequence[int]) -> None:
        for attacker in attackers:
            published = self._published_at[version]
            self._simulation.attackers[attacker].received(version, published)

    def _taken(self, sending: Sending[int], receiver: int) -> None:
        self._outbox.taken(sending, receiver)
        self._send_versions()

    def _craft_again_if_overdue(self) -> None:
        ticket, now = self.book.ticket, self._clock.now
        if self.book.state(ticket) is not TicketState.GRANTED:
            return
        allowed = self._simulation.allowed_seconds(self.book.holders[ticket])
        due = self._granted_at[ticket] + allowed
        if due <= now:
            self.recrafted += 1
            self.book.overdue(ticket)
            self.act()
        elif due < inf:
            self._clock.at(due, self.act)

    def _go_on(self) -> None:
        if self._unbooked is not None:
            seconds, self._unbooked = self._unbooked, None
            self._consume(seconds)
            return
        self._is_busy = False
        self._idle_since = self._clock.now
        self.act()
