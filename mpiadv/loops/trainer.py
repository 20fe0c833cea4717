"""The trainer's loop: publish, grant, consume in ticket order, craft while it would be idle.

Knows no MPI and no torch: messages go through a link, the work through a learner and a crafter.
"""

import time
from collections.abc import Callable
from typing import Generic

from mpiadv.comm.links import Delivery
from mpiadv.comm.messages import BatchHeader, Farewell, Fate, Stop
from mpiadv.comm.trainer_link import TrainerLink
from mpiadv.comm.waiting import Wait
from mpiadv.contract.accounts import Probed, StepRecord
from mpiadv.contract.craft_queue import AttackStep, Crafting, StalenessMode
from mpiadv.contract.dispatch import Dispatcher
from mpiadv.loops.bench import Bench, VersionRing
from mpiadv.loops.colleagues import Alone, Colleagues
from mpiadv.loops.idleness import Idleness
from mpiadv.loops.ledger import Ledger
from mpiadv.loops.probe import Prober, is_probed, prober_of
from mpiadv.loops.proof import flaw_of, verify
from mpiadv.loops.publisher import Publisher
from mpiadv.loops.stepping import Stepping
from mpiadv.loops.supervision import Supervision
from mpiadv.methods.attack_schedules import AttackSchedule
from mpiadv.process.errors import SilentRankError, UnreadableError, UserError
from mpiadv.work.protocols import BatchT, Crafter, Learner

BACKSTOP = 2.0
"""The trainer's own waits last so many deadlines: after one, `Supervision` has seen to whomever it
waits for."""


class Trainer(Generic[BatchT]):
    """Runs training from `dispatcher.ticket` to the last ticket.

    `attack_schedule` hears every training step and then says the attack settings of the version to
    be published, `on_step` sees every training step, `on_event(kind, text)` what is out of the
    ordinary, `on_probe` the probes that are due every `fresh_every` steps (0: never), in any order.
    `colleagues`: the trainers of other teams; None: there are none.
    """

    def __init__(
        self,
        *,
        dispatcher: Dispatcher,
        link: TrainerLink,
        learner: Learner[BatchT],
        crafter: Crafter[BatchT],
        mode: StalenessMode,
        attack_schedule: AttackSchedule,
        on_step: Callable[[StepRecord], None],
        on_event: Callable[[str, str], None],
        deadline_seconds: float,
        overdue_seconds: float | None = None,
        fresh_every: int = 0,
        on_probe: Callable[[Probed], None] = lambda probed: None,
        colleagues: Colleagues | None = None,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.dispatcher = dispatcher
        self.ring = VersionRing(dispatcher.rule)
        self._link = link
        self._learner = learner
        self._exact = mode is StalenessMode.FIXED
        self.attack_schedule = attack_schedule
        self._on_step = on_step
        self._on_event = on_event
        self._clock = clock
        self._wait = Wait(BACKSTOP * deadline_seconds, clock=clock, sleep=sleep)
        self.supervision = Supervision(
            dispatcher,
            link,
            deadline_seconds=deadline_seconds,
            overdue_seconds=overdue_seconds,
            on_event=on_event,
            clock=clock,
        )
        self.publisher = self._new_publisher()
        self._bench = Bench(
            dispatcher.own, self.ring, crafter, pump=self.pump, on_event=on_event, clock=clock
        )
        self._fresh_every = fresh_every
        self._on_probe = on_probe
        self._prober = Prober(
            self.ring, crafter, rank=0, pump=self.pump, recycle=link.recycle, clock=clock
        )
        self._own: dict[int, tuple[BatchT, BatchHeader]] = {}
        self._received: dict[int, Delivery] = {}
        self._ledger = Ledger(clock)
        self.stepping = self._new_stepping(colleagues or Alone(learner), sleep)

    def _new_stepping(self, others: Colleagues, sleep: Callable[[float], None]) -> Stepping[BatchT]:
        return Stepping(
            self.dispatcher,
            self.ring,
            self._learner,
            others,
            self.attack_schedule,
            self._ledger,
            number_of=self._link.number,
            pump=self.pump,
            clock=self._clock,
            sleep=sleep,
        )

    def _new_publisher(self) -> Publisher:
        return Publisher(
            self._link,
            self.ring,
            first=self._in_a_hurry,
            prober=self._prober_of,
            pump=self.pump,
            wait=self._wait,
            missing=self.supervision.missing,
            on_event=self._on_event,
        )

    def publish_due(self) -> None:
        step = self.dispatcher.step
        if self.dispatcher.rule.is_published(step) and step not in self.ring.settings:
            self._publish(Stop.NO)

    def run(self, interrupted: Callable[[], bool]) -> Stop:
        """Train until the last ticket is consumed, or until `interrupted` says so.

        Where there are other trainers, until any of them is interrupted: all end at the same step.

        Raises:
            SilentRankError: an attacker does not answer, and the job cannot do without it.
            ColleagueLostError, BrokenBitsError: another trainer is gone, or computes other bits.
            UserError, UnreadableError: samples are at fault, or could not be read for a while.

        Of a step that is not complete nothing is kept then.
        """
        self._ledger.begin()
        while not (self.dispatcher.finished or self.stepping.is_to_end):
            if interrupted():
                if not self.stepping.must_agree:
                    return Stop.INTERRUPTED
                self.stepping.wants_to_end = True
            self._turn()
        if not self.dispatcher.finished:
            self.stepping.raise_untold()
            return Stop.INTERRUPTED
        if self.stepping.must_agree:
            self._agree_to_finish()
        return Stop.FINISHED

    def _turn(self) -> None:
        """Move messages on, and do the next thing; a fault is left to be told to other trainers."""
        try:
            self.pump()
            self.supervision.look_after()
            self._grant()
            self._act()
        except (UserError, UnreadableError, SilentRankError) as fault:
            self.stepping.note_fault(fault)

    def _agree_to_finish(self) -> None:
        """The last step may have brought a fault to one trainer alone, as evaluations may."""
        self.stepping.begin_parting()
        while not self.stepping.move_on():
            self.pump()
            self.stepping.wait()
        self.stepping.part()

    def shut_down(self, reason: Stop) -> dict[int, Farewell]:
        """Tell everybody to stop, take in what is on its way, part; returns the farewells."""
        self.dispatcher.close()
        self._publish(reason)
        self._link.call_last()
        self.supervision.part()
        self._until(self._everything_is_in)
        self.stepping.free()
        self._link.dissolve()
        self._until(lambda: not self._link.pending())
        self._link.free()
        farewells = self._link.farewells()
        for farewell in farewells.values():
            self._take_probe(farewell.probe)
        return farewells

    def _until(self, is_done: Callable[[], bool]) -> None:
        """Move messages on until then; whoever is lost meanwhile is not waited for."""
        self._wait.over()
        while not is_done():
            num_attackers = len(self._link.attackers)
            self.pump()
            self.supervision.look_after()
            if len(self._link.attackers) < num_attackers:
                self._wait.over()
            self._wait.pause(self.supervision.missing)

    def pump(self) -> None:
        self.publisher.send_complete()
        for delivery in self._link.poll():
            self._take_in(delivery)
        self.supervision.keep_alive()
        self.stepping.move_on()

    def _act(self) -> None:
        if self.stepping.move_on():
            self._end_idling()
            self._complete_step()
            return
        if self.stepping.tell_fault():
            return
        crafted = self.dispatcher.crafted_here(self.ring.settings)
        if crafted is not None:
            self._keep(crafted)
            return
        may_train = not self.stepping.is_exchanging
        decision = self.dispatcher.decide(self.ring.settings, may_train=may_train)
        if decision is None:
            self._idle()
            return
        self._end_idling()
        if isinstance(decision, AttackStep):
            following = decision.ticket + 1
            alone = not self._link.attackers and self.dispatcher.state(following) is None
            if decision.step == 0 and alone:
                # The trainer crafts the next ticket too: have its images ready by then.
                self._bench.prefetch(following)
            self._ledger.spent.craft += self._bench.run(decision)
        else:
            self._probe_alone()
            self._train(decision.ticket)

    def _probe_alone(self) -> None:
        """Without attackers, probe here what is due; no part of any step's time."""
        step = self.dispatcher.step
        is_due = self.dispatcher.is_between_steps and is_probed(step, self._fresh_every)
        if self._link.attackers or not is_due:
            return
        began = self._clock()
        while step not in self.ring.settings:
            self.pump()  # until the snapshot of this moment is complete
        self._prober.begin(step)
        while self._prober.is_under_way:
            self._prober.run()
        self._take_probe(self._prober.take_result())
        self._ledger.leave_out(self._clock() - began)

    def _take_probe(self, probed: Probed) -> None:
        if probed.step >= 0:
            self._on_probe(probed)

    def _keep(self, crafting: Crafting) -> None:
        crafted = self._bench.hand_over(crafting)
        header = crafted.header(0, Idleness())
        verify(header.origin, self.dispatcher.rule, exact=self._exact)
        self.dispatcher.pace.crafted(crafted.seconds, 0)
        self._own[crafting.ticket] = crafted.batch, header

    def _train(self, ticket: int) -> None:
        batch, header = self._batch_of(ticket)
        self.stepping.train(ticket, batch, header)
        if self.stepping.move_on():
            self._complete_step()

    def _complete_step(self) -> None:
        done = self.stepping.complete()
        self.publisher.evict(self.dispatcher.step)
        if not self.dispatcher.finished:
            self.publish_due()
        record, began = self.stepping.record(done), self._clock()
        self._on_step(record)
        self.stepping.reported(record)
        self.supervision.was_away(self._clock() - began)

    def _batch_of(self, ticket: int) -> tuple[BatchT, BatchHeader]:
        if ticket in self._own:
            return self._own.pop(ticket)
        delivery = self._received.pop(ticket)
        batch = self._learner.upload(delivery.slot)
        header = delivery.slot.header
        self._link.release(delivery.slot)
        return batch, header

    def _idle(self) -> None:
        self._ledger.idle(exchanging=self.stepping.is_exchanging)
        if self.stepping.is_exchanging:
            self.stepping.wait()
            return
        ticket = self.dispatcher.ticket
        if self.supervision.is_overdue(ticket):
            # Crafted here as well: the first copy wins.
            number = self.dispatcher.rule.number(ticket)
            self._on_event("re-crafted", f"ticket {number}: {self.supervision.missing()}")
            self.dispatcher.overdue(ticket)
        self._wait.pause(self.supervision.missing)

    def _end_idling(self) -> None:
        self._wait.over()
        self._ledger.end_idling()

    def _grant(self) -> None:
        while (grant := self.dispatcher.next_grant()) is not None:
            self._link.grant(grant)
            if self.dispatcher.holders.get(grant.ticket) == grant.attacker:  # else it has a copy
                self.supervision.granted(grant.ticket)

    def _take_in(self, delivery: Delivery) -> None:
        ticket, attacker, header = delivery.ticket, delivery.attacker, delivery.slot.header
        if flaw := flaw_of(delivery, self.dispatcher, self.ring.settings, exact=self._exact):
            self._link.doubt(attacker, flaw)
            self._link.release(delivery.slot)
            return
        self.supervision.returned(ticket, attacker)
        self._take_probe(header.probe)
        if header.fate is Fate.UNREAD:
            number = self.dispatcher.rule.number(ticket)
            told = f"{self._link.name(attacker)} cannot craft ticket {number}, be it for its images"
            self._on_event("unread", f"{told}: the trainer tries")
            self.dispatcher.unread(ticket, attacker)
        elif header.fate is Fate.DROPPED:
            self.dispatcher.dropped(ticket, attacker)
        if header.fate is not Fate.CRAFTED:
            self._link.release(delivery.slot)
            return
        self.dispatcher.pace.crafted(header.seconds.craft_seconds, attacker)
        if self.dispatcher.arrived(ticket, attacker):
            self._bench.forget(ticket)
            self._received[ticket] = delivery
        else:
            self._link.release(delivery.slot)

    def _publish(self, stop: Stop) -> None:
        began = self._clock()
        step = self.dispatcher.step
        settings = self.attack_schedule.settings(step)
        self.publisher.publish(step, settings, self._learner.snapshot, stop=stop)
        self._ledger.spent.publish += self._clock() - began

    def _in_a_hurry(self, version: int) -> list[int]:
        """Nobody where the host trains: a head start would last as long as the training step."""
        in_time = self._learner.leaves_host_free
        return self.dispatcher.in_a_hurry(version, self.ring.settings) if in_time else []

    def _prober_of(self, version: int) -> int:
        # A resumed run publishes versions again whose tickets were probed before.
        is_new = version >= self.dispatcher.step
        return prober_of(version, self._fresh_every, self._link.attackers if is_new else [])

    def _everything_is_in(self) -> bool:
        have_parted = all(map(self.supervision.has_parted, self._link.attackers))
        return have_parted and self.publisher.is_through
