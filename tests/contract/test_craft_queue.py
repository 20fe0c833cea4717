"""A rank's bench: which ticket, which attack step, on which version."""

import pytest

from mpiadv.contract.craft_queue import AttackStep, CraftQueue, StalenessMode
from mpiadv.contract.tickets import AttackSettings, StalenessRule

RULE = StalenessRule(max_staleness=4, final_staleness=1, publish_every=2)
TWO_STEPS = AttackSettings(num_steps=2, epsilon=0.3)


def versions(*published: int, num_steps: int = 2) -> dict[int, AttackSettings]:
    return {v: AttackSettings(num_steps=num_steps, epsilon=0.3) for v in published}


def queue_of(*tickets: int, mode: StalenessMode = StalenessMode.FIXED) -> CraftQueue:
    queue = CraftQueue(RULE, mode)
    for ticket in tickets:
        queue.add(ticket)
    return queue


def test_oldest_ticket_whose_next_step_may_run_goes_first() -> None:
    queue = queue_of(3, 1)
    step = queue.next_step(versions(0))
    assert step == AttackStep(ticket=1, step=0, version=0)


def test_ticket_that_waits_for_fresher_parameters_gives_way() -> None:
    queue = queue_of(3, 4)
    assert queue.next_step(versions(0)) == AttackStep(ticket=3, step=0, version=0)
    queue.ran(AttackStep(ticket=3, step=0, version=0))
    assert queue.next_step(versions(0)) == AttackStep(ticket=4, step=0, version=0)
    assert queue.next_step(versions(0, 2)) == AttackStep(ticket=3, step=1, version=2)


def test_patient_rank_starts_no_younger_ticket_while_an_older_needs_just_the_next_version() -> None:
    queue = queue_of(3, 4)
    queue.next_step(versions(0))
    queue.ran(AttackStep(ticket=3, step=0, version=0))
    assert queue.next_step(versions(0), patient=True) is None
    assert queue.next_step(versions(0, 2), patient=True) == AttackStep(ticket=3, step=1, version=2)


def test_patient_rank_goes_on_while_the_older_ticket_is_not_urgent() -> None:
    rule = StalenessRule(max_staleness=8, final_staleness=2, publish_every=2)
    queue, published = CraftQueue(rule), versions(0, 2, num_steps=3)
    for ticket in (8, 9):
        queue.add(ticket)
    assert queue.next_step(published) == AttackStep(ticket=8, step=0, version=0)
    queue.ran(AttackStep(ticket=8, step=0, version=0))
    # Ticket 8 needs version 4 next, but training is four steps away from it then.
    step = queue.next_step(published, patient=True)
    assert step == AttackStep(ticket=9, step=0, version=2)


def test_bounded_mode_takes_the_newest_version_that_is_not_newer_than_the_ticket() -> None:
    queue = queue_of(3, mode=StalenessMode.BOUNDED)
    assert queue.next_step(versions(0, 2, 4)) == AttackStep(ticket=3, step=0, version=2)
    assert queue.next_step(versions(0)) == AttackStep(ticket=3, step=0, version=0)


def test_bounded_mode_waits_where_all_versions_are_too_old() -> None:
    queue = queue_of(3, mode=StalenessMode.BOUNDED)
    queue.next_step(versions(0))
    queue.ran(AttackStep(ticket=3, step=0, version=0))
    assert queue.next_step(versions(0)) is None


def test_ticket_has_the_attack_settings_of_its_first_version() -> None:
    queue = queue_of(5)
    published = {0: TWO_STEPS, 2: AttackSettings(num_steps=1, epsilon=0.1)}
    assert queue.next_step({0: TWO_STEPS}) is None
    assert queue.next_step(published) is None, "the only step is the last: it needs version 4"
    assert queue.settings(5) == AttackSettings(num_steps=1, epsilon=0.1)
    published[4] = TWO_STEPS
    assert queue.next_step(published) == AttackStep(ticket=5, step=0, version=4)
    assert queue.settings(5) == AttackSettings(num_steps=1, epsilon=0.1)
    queue.ran(AttackStep(ticket=5, step=0, version=4))
    crafted = queue.pop_crafted(published)
    assert crafted is not None and (crafted.first_version, crafted.last_version) == (4, 4)
    assert len(queue) == 0


def test_ticket_without_crafting_steps_is_crafted_once_its_settings_are_there() -> None:
    queue = queue_of(5)
    assert queue.pop_crafted(versions(0, num_steps=0)) is None
    crafted = queue.pop_crafted(versions(0, 2, num_steps=0))
    assert crafted is not None and crafted.ticket == 5
    assert (crafted.first_version, crafted.last_version) == (5, 5)


@pytest.mark.parametrize("step", [0, 2], ids=["again", "too_early"])
def test_attack_step_out_of_turn_is_refused(step: int) -> None:
    queue = queue_of(1)
    queue.next_step(versions(0))
    queue.ran(AttackStep(ticket=1, step=0, version=0))
    with pytest.raises(ValueError, match="ran out of turn"):
        queue.ran(AttackStep(ticket=1, step=step, version=0))
    assert queue.next_step(versions(0)) == AttackStep(ticket=1, step=1, version=0)


def test_ticket_is_added_to_a_bench_only_once() -> None:
    queue = queue_of(1)
    with pytest.raises(ValueError, match="ticket 1 is on the bench already"):
        queue.add(1)
