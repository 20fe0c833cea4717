"""The trainer's eye on its attackers: who is late, who does not answer, who is gone.

Knows no MPI and no torch.
"""

from collections.abc import Callable

from mpiadv.comm.trainer_link import TrainerLink
from mpiadv.contract.dispatch import Dispatcher, TicketState
from mpiadv.loops.silence import Silence
from mpiadv.process.errors import SilentRankError
from mpiadv.process.words import counted

WORDS_PER_DEADLINE = 4
"""How often all are spoken to."""


class Supervision:
    """Tells through `on_event(kind, text)` who is "late" with a ticket and who is "lost".

    A ticket is overdue after `overdue_seconds`, by its holder's pace where that is None, and at the
    latest after `deadline_seconds`.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        link: TrainerLink,
        *,
        deadline_seconds: float,
        overdue_seconds: float | None,
        on_event: Callable[[str, str], None],
        clock: Callable[[], float],
    ) -> None:
        self._dispatcher = dispatcher
        self._link = link
        self._deadline_seconds = deadline_seconds
        self._overdue_seconds = overdue_seconds
        self._on_event = on_event
        self._clock = clock
        self._granted_at: dict[int, float] = {}
        self._late: set[int] = set()
        self._silence = Silence(deadline_seconds, clock)
        self._last_word = clock()
        self._parting_since: float | None = None

    def granted(self, ticket: int) -> None:
        """A ticket has been granted; a mere copy of one does not count."""
        self._granted_at[ticket] = self._clock()

    def returned(self, ticket: int, attacker: int) -> None:
        """An attacker has delivered a ticket, or dropped it."""
        if self._dispatcher.holders.get(ticket, attacker) == attacker:
            self._granted_at.pop(ticket, None)
        self._late.discard(attacker)

    def was_away(self, seconds: float) -> None:
        """The trainer did something else and took nothing in: nobody was late meanwhile."""
        for ticket in self._granted_at:
            self._granted_at[ticket] += seconds

    def is_overdue(self, ticket: int) -> bool:
        """Whether a ticket was granted so long ago that the trainer should craft it too."""
        if self._dispatcher.state(ticket) is not TicketState.GRANTED:
            return False
        waited = self._clock() - self._granted_at[ticket]
        if waited <= self._allowed_seconds(ticket):
            return False
        self._tell_late(ticket, waited)
        return True

    def look_after(self) -> None:
        """Do without the attackers that died, and those that do not answer or are not believed.

        Raises:
            SilentRankError: there is one of these, and the job cannot do without it.
        """
        for attacker in self._link.take_lost():
            self._lose(attacker, "died")
        for attacker, why in self._link.take_doubted().items():
            if attacker in self._link.attackers:
                self._do_without(attacker, why)
        if not self._silence.is_due():
            return
        for attacker in self._link.attackers:
            if self._silence.is_too_long(attacker, self._unanswered_seconds(attacker)):
                how = f"has not answered for {self._deadline_seconds:g} s"
                self._do_without(attacker, how)

    def keep_alive(self) -> None:
        """Attackers wait with a deadline too: say now and then that the trainer is alive."""
        now = self._clock()
        is_due = now - self._last_word > self._deadline_seconds / WORDS_PER_DEADLINE
        if is_due:
            self._last_word = now
            self._link.keep_alive()

    def part(self) -> None:
        """Everybody has been told to part: all have to say farewell."""
        self._parting_since = self._clock()

    def has_parted(self, attacker: int) -> bool:
        """Whether an attacker has said farewell and owes nothing."""
        return attacker in self._link.farewells() and not self._dispatcher.owed_by(attacker)

    def missing(self) -> str:
        attackers = self._link.attackers
        late = [self._with_tickets(a) for a in attackers if self._dispatcher.owed_by(a)]
        farewells = self._link.farewells()
        silent = [
            f"{self._link.name(attacker)}, which owes no ticket"
            for attacker in attackers
            if attacker not in farewells
        ]
        return "; ".join(late or silent) or "the last messages to leave"

    def _unanswered_seconds(self, attacker: int) -> float:
        """For how long an attacker has not taken what it was sent, or not parted when told to."""
        silent = self._link.silent_seconds(attacker)
        if self._parting_since is None or self.has_parted(attacker):
            return silent
        told = self._clock() - self._parting_since
        return max(silent, min(told, self._link.since_sign_of_life(attacker)))

    def _allowed_seconds(self, ticket: int) -> float:
        allowed = self._overdue_seconds
        if allowed is None:
            allowed = self._dispatcher.pace.allowed_seconds(self._dispatcher.holders[ticket])
        return min(allowed, self._deadline_seconds)

    def _tell_late(self, ticket: int, waited: float) -> None:
        """Say once who is late, until it has delivered again."""
        attacker = self._dispatcher.holders[ticket]
        if attacker in self._late:
            return
        self._late.add(attacker)
        sign = self._link.since_sign_of_life(attacker)
        number = self._dispatcher.rule.number(ticket)
        self._on_event(
            "late",
            f"{self._link.name(attacker)} has had ticket {number} for {waited:.1f} s, its last "
            f"sign of life was {sign:.1f} s ago: the trainer crafts the ticket too",
        )

    def _do_without(self, attacker: int, how: str) -> None:
        if not self._link.survives_losses:
            raise SilentRankError(
                f"{self._with_tickets(attacker)} {how}: go on with --resume; with "
                "mpiadv launch --fault-tolerant the run would have gone on without it"
            )
        self._link.dismiss(attacker)
        self._lose(attacker, f"{how} and is given up")

    def _lose(self, attacker: int, how: str) -> None:
        tickets = self._dispatcher.lost(attacker)
        anew = (
            f"{self._numbered(tickets)} will be crafted anew"
            if tickets
            else "none of its tickets is missing"
        )
        left = counted(len(self._link.attackers), "attacker")
        self._on_event("lost", f"{self._link.name(attacker)} {how}: {anew}; {left} left")

    def _with_tickets(self, attacker: int) -> str:
        tickets = sorted(self._dispatcher.owed_by(attacker))
        which = self._numbered(tickets) if tickets else "no ticket"
        return f"{self._link.name(attacker)} with {which}"

    def _numbered(self, tickets: list[int]) -> str:
        numbers = map(self._dispatcher.rule.number, tickets)
        return f"ticket{'s' * (len(tickets) > 1)} {', '.join(map(str, numbers))}"
