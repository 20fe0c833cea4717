"""A whole job in one process: the real Trainer and real Attackers, joined by a MemoryNetwork.

Whoever would wait, for its device or for a message, lets random other ranks take a turn, so that
every seed is another schedule: messages held back, ranks a hundred times slower, ranks that hang
for a while. All, some or none of them read versions where they lie. Time is virtual; a turn or a
sleep passes some of it.
"""

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from counting_link import CountingLink
from fake_work import START, FakeBatch, FakeCrafter, FakeLearner, fake_shape
from memory_network import MemoryNetwork

from mpiadv.comm.attacker_link import AttackerLink
from mpiadv.comm.messages import Bytes, Farewell, Stop
from mpiadv.contract.accounts import Probed, StepRecord
from mpiadv.contract.craft_queue import StalenessMode
from mpiadv.contract.dispatch import Dispatcher
from mpiadv.contract.tickets import AttackSettings, StalenessRule
from mpiadv.loops.attacker import Attacker
from mpiadv.loops.publisher import Published
from mpiadv.loops.trainer import Trainer
from mpiadv.methods.attack_schedules import AttackSchedule, Foreseen
from mpiadv.process.errors import DismissedError


@dataclass(frozen=True, kw_only=True)
class JobShape:
    """What a job is to do; seconds are virtual."""

    rule: StalenessRule
    num_attackers: int
    seed: int = 0
    training_steps: int = 40
    outstanding: int | None = 2
    mode: StalenessMode = StalenessMode.FIXED
    trainer_crafts: bool = True
    num_steps: int = 4
    deadline_seconds: float = 1000.0
    stop_at: int | None = None
    nan_at: int | None = None
    slow: frozenset[int] = frozenset()
    silent: frozenset[int] = frozenset()
    deaths: Mapping[int, int] = field(default_factory=dict)
    """At which training step an attacker dies."""
    stops: Mapping[int, int] = field(default_factory=dict)
    """At which training step an attacker stops, for good or until it is dismissed."""
    breaks: Mapping[int, int] = field(default_factory=dict)
    """From which training step on what an attacker sends does not arrive as it was sent."""
    breakage: str = "nothing"
    stops_parting: frozenset[int] = frozenset()
    """Attackers that stop when all that is left is to say farewell."""
    survives_losses: bool = True
    overdue_seconds: float | None = None
    unread: Mapping[int, Container[int]] = field(default_factory=dict)
    """Tickets whose images a rank cannot read."""
    slow_images: bool = False
    hang_share: float = 0.0
    """Share of an attacker's turns after which it hangs for up to 20 s."""
    fresh_every: int = 0
    snapshot_polls: int = 0
    """How often a snapshot has to be asked for before it is complete."""

    @property
    def stop_ticket(self) -> int | None:
        """Inside the step at which it stops, where a step has several tickets."""
        per_step = self.rule.tickets_per_step
        return None if self.stop_at is None else self.stop_at * per_step + per_step // 2

    def settings_at(self, version: int) -> AttackSettings:
        """The number of steps and epsilon change during the run, as in adaptive schedules."""
        more = version // self.rule.publish_every % 2
        return AttackSettings(num_steps=self.num_steps + more, epsilon=0.3 + version)


@dataclass(frozen=True, kw_only=True)
class Saved:
    """What a checkpoint keeps."""

    step: int = 0
    value: int = START
    published: dict[int, Published] = field(default_factory=dict)
    attack_schedule: dict[str, Any] = field(default_factory=dict)


BREAKAGES: Mapping[str, Callable[[Bytes, Bytes], Bytes]] = {
    "nothing": lambda message, before: message[:0],
    "half_a_header": lambda message, before: message[:96],
    "header_alone": lambda message, before: message[:192],
    "half": lambda message, before: message[: message.size // 2],
    "all_but_the_end": lambda message, before: message[:-8],
    "the_one_before": lambda message, before: before,
}
"""What is written, of a message, and of the one that its sender sent before it."""


class _StoppedError(Exception):
    """An attacker stops here."""


class StoppingLink(AttackerLink):
    """Stops its attacker when it would say farewell."""

    def bid_farewell(self, farewell: Farewell) -> None:
        raise _StoppedError


class Job:
    """One job; `run` takes it from start, or from `saved`, to its end.

    Without an `attack_schedule` the settings are those of its shape.
    """

    def __init__(
        self,
        shape: JobShape,
        saved: Saved | None = None,
        attack_schedule: AttackSchedule | None = None,
    ) -> None:
        self.shape = shape
        self.attack_schedule = attack_schedule or Foreseen(shape.settings_at)
        self.now = 0.0
        self.random = Random(shape.seed)
        self.records: list[StepRecord] = []
        self.events: list[tuple[str, str]] = []
        self.farewells: dict[int, Farewell] = {}
        self.saved = saved or Saved()
        self.attack_schedule.load_state_dict(self.saved.attack_schedule)
        self.probes: list[Probed] = []
        self.largest_rings: dict[int, int] = {}
        self.fewest_free_slots = 1
        self.finals: dict[int, tuple[Stop, bytes]] = {}
        self._hung_until: dict[int, float] = {}
        self._stopped: set[int] = set()
        self.dismissed: list[int] = []
        self._sent_before: dict[int, Bytes] = {}
        self.broken: set[int] = set()
        """Attackers of which something arrived that they did not send."""
        self._at_work: set[int] = set()
        self.network = MemoryNetwork(
            shape.num_attackers,
            fake_shape(
                shape.rule, shape.outstanding or shape.rule.window, probes=shape.fresh_every > 0
            ),
            delay=lambda: self.random.random() < 0.3,
            clock=self.clock,
            survives_losses=shape.survives_losses,
            hosts=self._hosts(),
            by_broadcast=shape.seed % 4 != 3,
            deadline_seconds=shape.deadline_seconds,
            arrives=self._arrives,
        )
        self.link = CountingLink(self.network)
        self.learner = FakeLearner(
            shape.rule,
            self.rest,
            value=self.saved.value,
            nan_at=shape.nan_at,
            snapshot_polls=shape.snapshot_polls,
        )
        self.crafters = {
            rank: FakeCrafter(
                self.rest, unread=shape.unread.get(rank, ()), slow_images=shape.slow_images
            )
            for rank in [0, *self.link.attackers]
        }
        self.trainer = self._new_trainer()
        self.attackers = {rank: self._new_attacker(rank) for rank in self.link.attackers}

    def _hosts(self) -> list[list[int]]:
        """Who shares memory: all, every second one, none, or those of two or three hosts."""
        ranks, seed = list(range(self.shape.num_attackers + 1)), self.shape.seed
        near = len(ranks) // 3 + 1
        shared = [ranks], [ranks[:1] + ranks[1::2]], [[0]], [ranks[:1], ranks[1:]], [
            ranks[:near], ranks[near::2], ranks[near + 1 :: 2]
        ]  # fmt: skip
        return [host for host in shared[(seed + 3) % 5] if host]

    def run(self) -> "Job":
        trainer = self.trainer
        trainer.publisher.publish_restored(self.saved.published)
        trainer.publish_due()
        reason = trainer.run(lambda: trainer.dispatcher.ticket == self.shape.stop_ticket)
        if reason is Stop.INTERRUPTED:
            self._save()
        self.farewells = trainer.shut_down(reason)
        while len(self.finals) < len(self.attackers):
            self.sleep(0.001)
        return self

    def _strike(self) -> None:
        """Let those die or stop whose step it is; a stopped one is back when it is dismissed."""
        step, network = self.trainer.dispatcher.step, self.network
        for rank, at in self.shape.deaths.items():
            if step >= at and rank in self.attackers and rank not in self._at_work:
                network.kill(rank)
                del self.attackers[rank]
        for rank, at in self.shape.stops.items():
            if step >= at and rank in self.attackers:
                self._stopped.add(rank)
        self._stopped -= network.roster.absent.keys()

    def _arrives(self, attacker: int, message: Bytes) -> Bytes:
        before = self._sent_before.get(attacker, message[:0])
        self._sent_before[attacker] = message.copy()
        breaks_at = self.shape.breaks.get(attacker)
        if breaks_at is None or self.trainer.dispatcher.step < breaks_at:
            return message
        arrived = BREAKAGES[self.shape.breakage](message, before)
        if arrived.tobytes() != message.tobytes():
            self.broken.add(attacker)
        return arrived

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        """In place of the loops' sleep: time passes, not more than for a few looks, others work."""
        self.now += self.random.uniform(0.0, min(100 * seconds, 0.1))
        self.let_others_work()

    def rest(self) -> bool:
        """Whether a device is busy still; others work meanwhile."""
        self.now += self.random.uniform(0.0, 0.01)
        if self.random.random() < 0.5:
            self.let_others_work()
        return self.random.random() < 0.3

    def let_others_work(self) -> None:
        """Let a random attacker, but for those that wait for this one to return, take a turn."""
        self._strike()
        ranks = [rank for rank in self.attackers if self._may_work(rank)]
        if not ranks:
            return
        rank = self.random.choices(ranks, [0.01 if r in self.shape.slow else 1.0 for r in ranks])[0]
        self._at_work.add(rank)
        try:
            self._take_turn(rank)
        finally:
            self._at_work.remove(rank)
        if self.random.random() < self.shape.hang_share:
            self._hung_until[rank] = self.now + self.random.uniform(0.0, 20.0)

    def _take_turn(self, rank: int) -> None:
        attacker = self.attackers[rank]
        try:
            if attacker.turn():
                reason, final = attacker.run()
                self.finals[rank] = reason, final.values.tobytes()
        except _StoppedError:
            self._stopped.add(rank)
        except DismissedError:
            self.dismissed.append(rank)
            del self.attackers[rank]
            return
        if attacker._stop is Stop.NO:
            link = attacker._link
            has_room = link._shelf is None or link._is_receiving or link._has_last
            self.fewest_free_slots = min(int(has_room), self.fewest_free_slots)
        size = len(attacker._ring.settings)
        self.largest_rings[rank] = max(size, self.largest_rings.get(rank, 0))

    def _may_work(self, rank: int) -> bool:
        is_out = rank in self.finals or rank in self._at_work or rank in self.shape.silent
        is_out |= rank in self._stopped
        return not is_out and self._hung_until.get(rank, 0.0) <= self.now

    def _save(self) -> None:
        self.saved = Saved(
            step=self.trainer.dispatcher.step,
            value=self.learner.value,
            published={
                version: Published(settings=item.settings, values=item.values.copy())
                for version, item in self.trainer.publisher.held().items()
            },
            attack_schedule=self.attack_schedule.state_dict(),
        )

    def _on_step(self, record: StepRecord) -> None:
        self.records.append(record)
        self.largest_rings[0] = max(len(self.trainer.ring.settings), self.largest_rings.get(0, 0))

    def _new_trainer(self) -> Trainer[FakeBatch]:
        shape = self.shape
        dispatcher = Dispatcher(
            shape.rule,
            attackers=self.link.attackers,
            outstanding=shape.outstanding,
            num_tickets=shape.training_steps * shape.rule.tickets_per_step,
            first_ticket=self.saved.step * shape.rule.tickets_per_step,
            mode=shape.mode,
            trainer_crafts=shape.trainer_crafts,
        )
        return Trainer(
            dispatcher=dispatcher,
            link=self.link,
            learner=self.learner,
            crafter=self.crafters[0],
            mode=shape.mode,
            attack_schedule=self.attack_schedule,
            on_step=self._on_step,
            on_event=lambda kind, text: self.events.append((kind, text)),
            deadline_seconds=shape.deadline_seconds,
            overdue_seconds=shape.overdue_seconds,
            fresh_every=shape.fresh_every,
            on_probe=self.probes.append,
            clock=self.clock,
            sleep=self.sleep,
        )

    def _new_attacker(self, rank: int) -> Attacker[FakeBatch]:
        stops = rank in self.shape.stops_parting
        return Attacker(
            rule=self.shape.rule,
            mode=self.shape.mode,
            link=(StoppingLink if stops else AttackerLink)(**self.network.attacker_parts(rank)),
            crafter=self.crafters[rank],
            host=f"host-{rank}",
            deadline_seconds=self.shape.deadline_seconds,
            clock=self.clock,
            sleep=self.sleep,
        )
