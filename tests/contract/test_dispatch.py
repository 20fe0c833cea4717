"""The trainer's book and a rank's bench, decision by decision."""

from copy import deepcopy
from typing import Any

import pytest

from mpiadv.contract.craft_queue import AttackStep
from mpiadv.contract.dispatch import TRANSITIONS, Dispatcher, TicketEvent, TicketState, Train
from mpiadv.contract.tickets import AttackSettings, StalenessRule
from mpiadv.contract.turns import Grant, Pace

RULE = StalenessRule(max_staleness=4, final_staleness=1, publish_every=2)
ATTACKERS = range(1, 10)


def versions(*published: int, num_steps: int = 2) -> dict[int, AttackSettings]:
    return {v: AttackSettings(num_steps=num_steps, epsilon=0.3) for v in published}


def book(*attackers: int, outstanding: int = 2, rule: StalenessRule = RULE) -> Dispatcher:
    return Dispatcher(rule, attackers=list(attackers), outstanding=outstanding, num_tickets=20)


def grants(dispatcher: Dispatcher) -> list[tuple[int, int]]:
    given = list(iter(dispatcher.next_grant, None))
    return [(grant.ticket, grant.attacker) for grant in given]


def all_craft_in(dispatcher: Dispatcher, seconds: float) -> None:
    """Tell the dispatcher that every attacker takes so long for a batch."""
    for attacker in ATTACKERS:
        dispatcher.pace.crafted(seconds, attacker)


def craft_own(dispatcher: Dispatcher, published: dict[int, AttackSettings]) -> None:
    """Let the trainer craft a ticket of its own to its end."""
    while dispatcher.crafted_here(published) is None:
        step = dispatcher.decide(published)
        assert isinstance(step, AttackStep)
        dispatcher.own.ran(step)


def contents(dispatcher: Dispatcher) -> dict[str, Any]:
    turns = {**vars(dispatcher._turns), "pace": vars(dispatcher.pace)}
    own = vars(dispatcher.own)
    return deepcopy({**vars(dispatcher), "own": own, "_turns": turns})


def test_grants_go_to_the_attacker_with_the_fewest_tickets_up_to_its_credit() -> None:
    assert grants(book(1, 2, outstanding=2)) == [(0, 1), (1, 2), (2, 1), (3, 2)]


def test_grants_stop_at_the_window() -> None:
    assert [ticket for ticket, _ in grants(book(1, 2, outstanding=4))] == [0, 1, 2, 3, 4]


def test_grants_stop_at_the_newest_ticket_whose_first_version_is_published() -> None:
    dispatcher = book(1, outstanding=9)
    grants(dispatcher)
    dispatcher.arrived(0, 1)
    dispatcher.trained()
    assert grants(dispatcher) == [], "ticket 5 needs version 2"
    dispatcher.arrived(1, 1)
    dispatcher.trained()
    assert grants(dispatcher) == [(5, 1), (6, 1)]


def test_grants_stop_at_the_last_ticket() -> None:
    dispatcher = Dispatcher(RULE, attackers=[1], outstanding=9, num_tickets=2)
    assert grants(dispatcher) == [(0, 1), (1, 1)]


def test_batches_are_consumed_in_ticket_order_whatever_order_they_come_in() -> None:
    dispatcher = book(1, 2)
    dispatcher.pace.trained(1.0)
    all_craft_in(dispatcher, 1.0)
    grants(dispatcher)
    assert dispatcher.arrived(1, 2)
    assert dispatcher.decide(versions(0)) is None
    assert dispatcher.arrived(0, 1)
    assert dispatcher.decide(versions(0)) == Train(ticket=0)
    dispatcher.trained()
    assert dispatcher.decide(versions(0)) == Train(ticket=1)


def test_ready_batch_goes_before_an_attack_step_of_the_trainers_own() -> None:
    dispatcher = book(1, outstanding=1)
    grants(dispatcher)
    assert dispatcher.decide(versions(0)) == AttackStep(ticket=1, step=0, version=0)
    dispatcher.arrived(0, 1)
    assert dispatcher.decide(versions(0)) == Train(ticket=0)


@pytest.mark.parametrize(
    ("num_attackers", "craft", "takes_own"),
    [(0, 8.0, True), (1, 8.0, True), (4, 8.0, True), (5, 8.0, False), (8, 8.0, False)],
)
def test_trainer_takes_a_ticket_only_while_attackers_fall_clearly_short(
    num_attackers: int, craft: float, takes_own: bool
) -> None:
    rule = StalenessRule(max_staleness=16, final_staleness=4, publish_every=4)
    dispatcher = book(*range(1, num_attackers + 1), outstanding=1, rule=rule)
    dispatcher.pace.trained(1.0)
    all_craft_in(dispatcher, craft)
    grants(dispatcher)
    assert (dispatcher.decide(versions(0)) is not None) == takes_own


def test_trainer_that_is_not_to_craft_waits_for_attackers_that_fall_short() -> None:
    dispatcher = Dispatcher(
        RULE, attackers=[1], outstanding=1, num_tickets=20, trainer_crafts=False
    )
    dispatcher.pace.trained(1.0)
    all_craft_in(dispatcher, 8.0)
    grants(dispatcher)
    assert dispatcher.decide(versions(0)) is None
    dispatcher.overdue(0)
    assert dispatcher.decide(versions(0)) == AttackStep(ticket=0, step=0, version=0)


def test_trainer_that_is_not_to_craft_crafts_one_ticket_at_a_time_where_it_is_alone() -> None:
    dispatcher = Dispatcher(RULE, attackers=[], outstanding=1, num_tickets=2, trainer_crafts=False)
    craft_own(dispatcher, versions(0))
    assert dispatcher.num_live == 1
    assert dispatcher.decide(versions(0)) == Train(ticket=0)


@pytest.mark.parametrize(("num_attackers", "patient"), [(8, False), (9, True)])
def test_attackers_are_patient_only_where_they_have_slack(
    num_attackers: int, patient: bool
) -> None:
    dispatcher = book(*range(1, num_attackers + 1))
    dispatcher.pace.trained(1.0)
    all_craft_in(dispatcher, 8.0)
    assert dispatcher.next_grant() == Grant(ticket=0, attacker=1, patient=patient)


def recrafted() -> Dispatcher:
    """Ticket 0, granted to rank 1 and overdue, with nothing else."""
    dispatcher = book(1, outstanding=1)
    grants(dispatcher)
    dispatcher.overdue(0)
    return dispatcher


def test_granted_copy_that_comes_first_ends_the_recrafting() -> None:
    dispatcher = recrafted()
    assert 0 in dispatcher.own
    assert dispatcher.arrived(0, 1)
    assert 0 not in dispatcher.own
    assert dispatcher.decide(versions(0)) == Train(ticket=0)


def test_late_copy_is_discarded_and_its_credit_comes_back_after_both() -> None:
    dispatcher = recrafted()
    craft_own(dispatcher, versions(0))
    assert dispatcher.arrived(0, 1) is False
    assert grants(dispatcher) == [], "the ticket is not consumed yet"
    dispatcher.trained()
    assert grants(dispatcher) == [(1, 1)]


def test_consumed_ticket_keeps_its_credit_until_its_late_copy_is_back() -> None:
    dispatcher = recrafted()
    craft_own(dispatcher, versions(0))
    dispatcher.trained()
    assert grants(dispatcher) == []
    assert dispatcher.owed_by(1) == {0}
    assert dispatcher.arrived(0, 1) is False
    assert grants(dispatcher) == [(1, 1)]


def test_dropped_ticket_gives_its_credit_back() -> None:
    dispatcher = recrafted()
    craft_own(dispatcher, versions(0))
    dispatcher.trained()
    assert dispatcher._turns.charged[1] == {0}
    dispatcher.dropped(0, 1)
    assert dispatcher._turns.charged[1] == set()


def test_live_ticket_may_be_dropped_only_once_the_run_is_closed() -> None:
    dispatcher = book(1)
    grants(dispatcher)
    before = contents(dispatcher)
    with pytest.raises(ValueError, match="attacker 1 dropped ticket 0, which is live"):
        dispatcher.dropped(0, 1)
    assert contents(dispatcher) == before
    dispatcher.close()
    dispatcher.dropped(0, 1)
    assert dispatcher.owed_by(1) == {1}


def test_trainer_crafts_by_itself_when_nothing_is_live_and_no_credit_is_left() -> None:
    rule = StalenessRule(max_staleness=0, final_staleness=0, publish_every=1)
    dispatcher = book(1, 2, rule=rule)
    dispatcher.pace.trained(1.0)
    all_craft_in(dispatcher, 1.0)
    grants(dispatcher)
    dispatcher.overdue(0)
    craft_own(dispatcher, versions(0))
    dispatcher.trained()
    assert dispatcher.next_grant() is None
    assert dispatcher.decide(versions(1)) == AttackStep(ticket=1, step=0, version=1)


def test_tickets_of_a_lost_attacker_are_granted_again_before_new_ones() -> None:
    dispatcher = book(1, 2, outstanding=2)
    assert grants(dispatcher) == [(0, 1), (1, 2), (2, 1), (3, 2)]
    dispatcher.arrived(0, 1)
    assert dispatcher.lost(2) == [1, 3]
    assert grants(dispatcher) == []
    dispatcher.trained()
    assert grants(dispatcher) == [(1, 1)]
    dispatcher.arrived(2, 1)
    dispatcher.arrived(1, 1)
    dispatcher.trained()
    dispatcher.trained()
    assert grants(dispatcher) == [(3, 1), (4, 1)]


def test_trainer_crafts_what_a_lost_attacker_owed_where_nobody_has_credit() -> None:
    dispatcher = book(1, 2, outstanding=1)
    dispatcher.pace.trained(1.0)
    all_craft_in(dispatcher, 1.0)
    grants(dispatcher)
    dispatcher.lost(1)
    assert dispatcher.next_grant() is None
    assert dispatcher.decide(versions(0)) == AttackStep(ticket=0, step=0, version=0)
    assert dispatcher.state(0) is TicketState.OWN


def test_what_the_trainer_crafts_already_is_not_given_out_when_its_attacker_is_lost() -> None:
    dispatcher = recrafted()
    assert dispatcher.lost(1) == []
    craft_own(dispatcher, versions(0))
    assert dispatcher.decide(versions(0)) == Train(ticket=0)


def in_state(state: TicketState | None) -> Dispatcher:
    """A dispatcher whose ticket 0 is in `state`."""
    if state is None:
        dispatcher = book()
        craft_own(dispatcher, versions(0))
        dispatcher.trained()
    elif state is TicketState.GRANTED:
        dispatcher = book(1, outstanding=1)
        dispatcher.next_grant()
    elif state is TicketState.RETURNED:
        dispatcher = book(1, outstanding=1)
        dispatcher.next_grant()
        dispatcher.lost(1)
    elif state is TicketState.RECRAFTED:
        dispatcher = recrafted()
    else:
        dispatcher = book()
        dispatcher.decide(versions(0))
        if state is TicketState.READY:
            craft_own(dispatcher, versions(0))
    assert dispatcher.state(0) is state
    return dispatcher


STATES: list[TicketState | None] = [None, *TicketState]
REFUSED = [(s, e) for s in STATES for e in TicketEvent if s is None or (s, e) not in TRANSITIONS]


@pytest.mark.parametrize(
    ("state", "event"), REFUSED, ids=[f"{s.name if s else 'GONE'}-{e.name}" for s, e in REFUSED]
)
def test_refused_event_changes_nothing(state: TicketState | None, event: TicketEvent) -> None:
    dispatcher = in_state(state)
    before = contents(dispatcher)
    with pytest.raises(ValueError, match="cannot happen to it"):
        dispatcher._happened(0, event)
    assert contents(dispatcher) == before


@pytest.mark.parametrize("state", [s for s in STATES if s is not TicketState.READY])
def test_training_on_a_batch_that_is_not_ready_changes_nothing(state: TicketState | None) -> None:
    dispatcher = in_state(state)
    before = contents(dispatcher)
    with pytest.raises(ValueError, match="is not ready"):
        dispatcher.trained()
    assert contents(dispatcher) == before


@pytest.mark.parametrize("state", STATES)
def test_batch_nobody_was_granted_changes_nothing(state: TicketState | None) -> None:
    dispatcher = in_state(state)
    before = contents(dispatcher)
    with pytest.raises(KeyError):
        dispatcher.arrived(0, 2)
    assert contents(dispatcher) == before


def test_training_pace_starts_with_the_first_measurement_and_moves_by_its_weight() -> None:
    pace = Pace(weight=0.25)
    pace.trained(1.0)
    assert pace.train_seconds == 1.0
    pace.trained(3.0)
    assert pace.train_seconds == 1.5


def test_run_is_finished_when_the_last_ticket_is_consumed() -> None:
    dispatcher = Dispatcher(RULE, attackers=[], outstanding=1, num_tickets=3, first_ticket=2)
    assert not dispatcher.finished
    craft_own(dispatcher, versions(0, 2))
    dispatcher.trained()
    assert dispatcher.finished


def test_ticket_that_its_holder_cannot_read_is_crafted_by_the_trainer_at_once() -> None:
    dispatcher = book(1, 2)
    given = dict(grants(dispatcher))
    holder = given[0]
    dispatcher.unread(0, holder)
    assert dispatcher.state(0) is TicketState.RECRAFTED
    assert 0 in dispatcher.own and 0 not in dispatcher.owed_by(holder)
    assert holder in dispatcher._turns.late


def test_ticket_that_waits_to_be_granted_again_is_the_trainers_once_somebody_cannot_read_it() -> (
    None
):
    dispatcher = book(1, 2)
    given = dict(grants(dispatcher))
    held = [ticket for ticket, attacker in given.items() if attacker == given[0]]
    dispatcher.overdue(0)
    assert dispatcher.state(held[1]) is TicketState.RETURNED
    dispatcher.unread(held[1], given[0])
    assert dispatcher.state(held[1]) is TicketState.OWN
    assert held[1] in dispatcher.own
    assert held[1] not in dict(grants(dispatcher))


def test_ticket_that_another_attacker_holds_stays_there_when_one_cannot_read_it() -> None:
    dispatcher = book(1, 2)
    (ticket, holder), *_ = grants(dispatcher)
    other = 3 - holder
    dispatcher._turns.tried(ticket, other)
    before = dispatcher._turns.num_charged
    dispatcher.unread(ticket, other)
    assert dispatcher.state(ticket) is TicketState.GRANTED
    assert ticket not in dispatcher.own
    dispatcher._turns.granted(ticket, other)
    charged = sum(len(dispatcher._turns.charged[attacker]) for attacker in (1, 2))
    assert dispatcher._turns.num_charged == before == charged
