"""The attacker's loop: take grants and parameters, craft, send back. Knows no MPI and no torch."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Generic

from mpiadv.comm.attacker_link import AttackerLink
from mpiadv.comm.links import BatchSlot, ParameterSlot
from mpiadv.comm.messages import BatchHeader, Farewell, Fate, Stop
from mpiadv.comm.waiting import Wait
from mpiadv.contract.accounts import Provenance, RankWork
from mpiadv.contract.columns import blank
from mpiadv.contract.craft_queue import AttackStep, Crafting, CraftQueue, Rhythm, StalenessMode
from mpiadv.contract.tickets import StalenessRule
from mpiadv.loops.bench import Bench, VersionRing
from mpiadv.loops.idleness import Idleness
from mpiadv.loops.probe import Prober
from mpiadv.process.errors import UnreadableError, UserError
from mpiadv.work.protocols import BatchT, Crafter


class Attacker(Generic[BatchT]):
    """Crafts what it is granted until the trainer says stop."""

    def __init__(
        self,
        *,
        rule: StalenessRule,
        mode: StalenessMode,
        link: AttackerLink,
        crafter: Crafter[BatchT],
        host: str,
        deadline_seconds: float,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._link = link
        self._crafter = crafter
        self._host = host
        self._clock = clock
        self._wait = Wait(deadline_seconds, clock=clock, sleep=sleep)
        self._ring = VersionRing(rule)
        self._bench = Bench(
            CraftQueue(rule, mode), self._ring, crafter, pump=self._pump, clock=clock
        )
        self._prober = Prober(
            self._ring, crafter, rank=link.rank, pump=self._pump, recycle=link.recycle, clock=clock
        )
        self._newest = -1
        self._stop = Stop.NO
        self._patient = False
        self._rhythm = Rhythm()
        self._step_seconds = 0.0
        self._last_call = False
        self._parted = False
        self._final: ParameterSlot | None = None
        self._sent = 0
        self._craft_seconds = 0.0
        self._idleness = Idleness()
        self._reported = Idleness()

    def run(self) -> tuple[Stop, ParameterSlot]:
        """Work until the trainer stops the run; returns why, and the last parameters."""
        while not self.turn():
            pass
        assert self._final is not None
        return self._stop, self._final

    def turn(self) -> bool:
        """Do the next thing: an attack step, a delivery or a moment's wait; True at the end."""
        self._pump()
        self._drop_consumed()
        if self._stop is not Stop.NO:
            return self._part()
        versions = self._ring.settings
        crafting = self._bench.queue.pop_crafted(versions)
        if crafting is not None:
            self._deliver(crafting)
            return False
        step = self._bench.queue.next_step(versions, patient=self._is_patient())
        if self._prober.goes_before(step):
            self._wait.over()
            self._prober.run(before=step)
        elif step is None:
            self._idle()
        else:
            self._wait.over()
            self._run(step)
        return False

    def _run(self, step: AttackStep) -> None:
        try:
            self._step_seconds = self._bench.run(step)
        except (UserError, UnreadableError):
            self._bench.queue.remove(step.ticket)
            self._give_up(step.ticket, Fate.UNREAD)
        else:
            self._craft_seconds += self._step_seconds

    def _is_patient(self) -> bool:
        return self._rhythm.rewards_patience(
            self._step_seconds, self._clock(), patient=self._patient
        )

    def _pump(self) -> None:
        incoming = self._link.poll()
        if incoming:
            self._wait.over()
        for slot in incoming.parameters:
            self._take_up(slot)
        for grant in incoming.grants:
            self._bench.queue.add(grant.ticket)
            self._bench.prefetch(grant.ticket)
            self._patient = grant.patient
        self._last_call |= incoming.last_call

    def _take_up(self, slot: ParameterSlot) -> None:
        # Between hosts this compares two clocks; those of a cluster agree to milliseconds.
        header = slot.header
        self._idleness.parameters_arrived(time.time() - header.published_at)
        self._rhythm.arrived(header.published_at, self._clock())
        if header.stop is not Stop.NO:
            self._stop, self._final = header.stop, slot
            return
        self._newest = header.version
        self._ring.add(slot)
        for old in self._ring.evict(self._newest):
            self._prober.let_go(old)
        if header.prober == self._link.rank:
            self._prober.begin(header.version)

    def _drop_consumed(self) -> None:
        """Parameters of step `n` say that earlier steps were trained without this rank."""
        for ticket in self._bench.queue.tickets:
            if self._ring.rule.step_of(ticket) < self._newest or self._stop is not Stop.NO:
                self._bench.queue.remove(ticket)
                self._give_up(ticket, Fate.DROPPED)

    def _deliver(self, crafting: Crafting) -> None:
        try:
            crafted = self._bench.hand_over(crafting)
        except (UserError, UnreadableError):
            self._give_up(crafting.ticket, Fate.UNREAD)
            return
        slot = self._free_slot()
        self._crafter.download(crafted.batch, slot)
        idle, self._reported = self._idleness.since(self._reported), replace(self._idleness)
        slot.header = crafted.header(self._link.rank, idle, self._prober.take_result())
        self._link.send(slot)
        self._sent += 1

    def _give_up(self, ticket: int, why: Fate) -> None:
        """Say that there is no batch. Where the images are at fault it is left to the trainer.

        It meets the same, and can end the run in order, or does not.
        """
        self._bench.forget(ticket)
        slot = self._free_slot()
        origin = blank(Provenance, ticket=ticket, rank=self._link.rank)
        probe = self._prober.take_result()
        slot.header = blank(BatchHeader, fate=why, origin=origin, probe=probe)
        self._link.send(slot)

    def _free_slot(self) -> BatchSlot:
        slot = self._link.free_batch_slot()
        while slot is None:
            self._pump()
            self._wait.pause(lambda: "the trainer to receive a batch")
            slot = self._link.free_batch_slot()
        self._wait.over()
        return slot

    def _part(self) -> bool:
        """Wait until every grant was answered, say farewell; True when all is sent."""
        # The last grants may have come in while the earlier ones were being dropped.
        if not self._last_call or len(self._bench.queue):
            self._wait.pause(lambda: "the trainer's last call")
            return False
        if not self._parted:
            self._link.bid_farewell(self._farewell())
            self._parted = True
        if self._link.pending():
            self._wait.pause(lambda: "the trainer to take the last batches")
            return False
        self._link.free()
        return True

    def _farewell(self) -> Farewell:
        work = RankWork(
            rank=self._link.rank,
            host=self._host,
            tickets=self._sent,
            seconds=self._idleness.beside(self._craft_seconds),
        )
        return Farewell(work=work, probe=self._prober.take_result())

    def _idle(self) -> None:
        began = self._clock()
        holds = self._bench.queue.tickets
        number = self._ring.rule.number
        waits_for = f"parameters for ticket {number(holds[0])}" if holds else "a ticket"
        self._wait.pause(lambda: f"{waits_for} from the trainer")
        seconds = self._clock() - began
        if holds:
            self._idleness.blocked(seconds)
        else:
            self._idleness.without_ticket(seconds)
