"""What a batch has to say of itself before it counts."""

import re
from typing import Any

import pytest
from fake_work import fake_shape
from made_records import batch_header, version_header

from mpiadv.comm.links import BatchSlot, Delivery, ParameterSlot, plain_memory
from mpiadv.comm.messages import BATCH_HEADER, Fate
from mpiadv.contract.dispatch import Dispatcher
from mpiadv.contract.tickets import AttackSettings, StalenessRule
from mpiadv.loops.proof import flaw_of

HEADER = BATCH_HEADER.itemsize
RULE = StalenessRule(max_staleness=16, final_staleness=4, publish_every=4)
SETTINGS = AttackSettings(num_steps=4, epsilon=0.3)
PUBLISHED = {4: SETTINGS, 8: AttackSettings(num_steps=5, epsilon=0.4)}
RIGHT = {"ticket": 20, "attack_steps": 4, "epsilon": 0.3, "first_version": 4, "last_version": 16}


def delivery_of(**header: Any) -> Delivery:
    slot = BatchSlot(fake_shape(RULE, 2).batch, plain_memory)
    slot.header = batch_header(**{**RIGHT, **header}, rank=3)
    slot.seal()
    return Delivery(attacker=3, slot=slot)


def book() -> Dispatcher:
    """The trainer's: attacker 3 has tickets 2 and 20."""
    dispatcher = Dispatcher(RULE, attackers=[3], outstanding=1, num_tickets=50)
    for ticket in (2, 20):
        dispatcher._turns.granted(ticket, 3)
    return dispatcher


FLAWS: dict[str, tuple[dict[str, Any], str]] = {
    "right": ({}, ""),
    "dropped": ({"fate": Fate.DROPPED, "attack_steps": 0}, ""),
    "ticket_of_another": ({"ticket": 21}, "sent ticket 21, which it was not granted"),
    "unwritten": ({"ticket": 0}, "sent ticket 0, which it was not granted"),
    "dropped_one_of_another": (
        {"ticket": 21, "fate": Fate.DROPPED}, "sent ticket 21, which it was not granted",
    ),
    "too_few_steps": (
        {"attack_steps": 3},
        "attacked ticket 20 with AttackSettings(num_steps=3, epsilon=0.3, tau=0), not with "
        "AttackSettings(num_steps=4, epsilon=0.3, tau=0)",
    ),
    "radius_of_another_version": (
        {"epsilon": 0.4},
        "attacked ticket 20 with AttackSettings(num_steps=4, epsilon=0.4, tau=0), not with",
    ),
    "first_too_old": (
        {"first_version": 0}, "says that ticket 20 was crafted on versions 0 to 16; the rule says",
    ),
    "last_too_fresh": (
        {"last_version": 20}, "says that ticket 20 was crafted on versions 4 to 20; the rule says",
    ),
    "consumed_meanwhile": ({"ticket": 2, "attack_steps": 9}, ""),
}  # fmt: skip


@pytest.mark.parametrize(("header", "flaw"), FLAWS.values(), ids=FLAWS)
def test_batch_is_compared_with_what_was_granted(header: dict[str, Any], flaw: str) -> None:
    told = flaw_of(delivery_of(**header), book(), PUBLISHED, exact=True)
    assert re.match(re.escape(flaw), told) if flaw else told == ""


def test_batch_proves_itself_only_from_its_beginning_to_its_end() -> None:
    sent = delivery_of().slot
    taken = BatchSlot(fake_shape(RULE, 2).batch, plain_memory)
    for size in (0, 8, HEADER // 2, HEADER - 8, HEADER, HEADER + 8, sent.buffer.size - 1):
        taken.erase()
        taken.buffer[:size] = sent.buffer[:size]
        assert not taken.is_from(3), f"{size} bytes"
    taken.erase()
    taken.buffer[HEADER:] = sent.buffer[HEADER:]
    assert not taken.is_from(3), "no header"
    taken.buffer[:] = sent.buffer
    assert taken.is_from(3) and not taken.is_from(2)
    taken.erase()
    assert not taken.is_from(3), "what the buffer held before"
    assert not BatchSlot(fake_shape(RULE, 2).batch, plain_memory).is_from(0), "a fresh buffer"


def test_word_that_a_ticket_was_dropped_proves_itself_by_its_header() -> None:
    sent = delivery_of(fate=Fate.DROPPED).slot
    taken = BatchSlot(fake_shape(RULE, 2).batch, plain_memory)
    taken.erase()
    taken.buffer[: HEADER - 8] = sent.buffer[: HEADER - 8]
    assert not taken.is_from(3)
    taken.buffer[:HEADER] = sent.seal()
    assert taken.is_from(3)


def test_version_proves_itself_from_its_beginning_to_its_end() -> None:
    sent, taken = (ParameterSlot(1000, plain_memory) for _ in range(2))
    sent.header = version_header(8)
    sent.seal()
    assert not taken.is_whole, "a fresh buffer"
    for size in (0, 64, 500, sent.buffer.size - 1):
        taken.erase()
        taken.buffer[:size] = sent.buffer[:size]
        assert not taken.is_whole, f"{size} bytes"
    taken.buffer[:] = sent.buffer
    assert taken.is_whole
