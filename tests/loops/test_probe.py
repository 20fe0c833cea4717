"""A rank's probes: whose turn it is, what comes first, and when parameters may go."""

import pytest
from fake_work import FakeCrafter
from made_records import version_header

from mpiadv.comm.links import ParameterSlot, plain_memory
from mpiadv.contract.accounts import NOTHING
from mpiadv.contract.craft_queue import AttackStep
from mpiadv.contract.tickets import StalenessRule
from mpiadv.loops.bench import VersionRing
from mpiadv.loops.probe import NOBODY, Prober, prober_of

RULE = StalenessRule(max_staleness=4, final_staleness=2, publish_every=2)


@pytest.mark.parametrize(
    ("every", "attackers", "probers"),
    [
        pytest.param(0, [1, 2], [NOBODY] * 6, id="never"),
        pytest.param(2, [], [NOBODY] * 6, id="alone"),
        pytest.param(1, [1, 2, 3], [1, 2, 3, 1, 2, 3], id="always"),
        pytest.param(2, [1, 2], [1, NOBODY, 2, NOBODY, 1, NOBODY], id="in_turn"),
        pytest.param(3, [4], [4, NOBODY, NOBODY, 4, NOBODY, NOBODY], id="one_is_left"),
    ],
)
def test_attackers_probe_in_turn(every: int, attackers: list[int], probers: list[int]) -> None:
    assert [prober_of(step, every, attackers) for step in range(6)] == probers


def slot_of(version: int) -> ParameterSlot:
    slot = ParameterSlot(64, plain_memory)
    slot.header = version_header(version, attack_steps=3, epsilon=0.5)
    return slot


class Rank:
    """A rank that holds versions 4, 6 and 8, and may probe step 8."""

    def __init__(self) -> None:
        self.ring = VersionRing(RULE)
        for version in (4, 6, 8):
            self.ring.add(slot_of(version))
        self.recycled: list[int] = []
        self.prober = Prober(
            self.ring,
            FakeCrafter(lambda: False),
            rank=7,
            pump=lambda: None,
            recycle=lambda slot: self.recycled.append(slot.version),
        )

    def let_go(self, step: int) -> None:
        for slot in self.ring.evict(step):
            self.prober.let_go(slot)

    def finish(self) -> None:
        while self.prober.is_under_way:
            self.prober.run()


def test_probe_keeps_its_parameters_to_its_end_and_no_others() -> None:
    rank = Rank()
    rank.prober.begin(8)
    rank.let_go(14)
    assert (sorted(rank.ring.settings), rank.recycled) == ([], [4, 6])
    rank.finish()
    assert rank.recycled == [4, 6, 8]


def test_parameters_that_a_ticket_may_still_need_outlive_the_probe() -> None:
    rank = Rank()
    rank.prober.begin(8)
    rank.finish()
    assert (sorted(rank.ring.settings), rank.recycled) == ([4, 6, 8], [])
    rank.let_go(14)
    assert rank.recycled == [4, 6, 8]


def test_due_probe_is_skipped_until_the_one_before_was_told() -> None:
    rank = Rank()
    rank.prober.begin(8)
    rank.prober.begin(6)
    rank.finish()
    rank.prober.begin(4)
    assert not rank.prober.is_under_way
    told = rank.prober.take_result()
    assert (told.step, told.rank) == (8, 7)
    assert rank.prober.take_result() is NOTHING
    rank.ring.add(slot_of(10))
    rank.prober.begin(10)
    assert rank.prober.is_under_way


def step_of(ticket: int, number: int) -> AttackStep:
    return AttackStep(ticket=ticket, step=number, version=8)


def test_probe_goes_on_whenever_there_is_nothing_else_to_do() -> None:
    rank = Rank()
    assert not rank.prober.goes_before(None)
    rank.prober.begin(8)
    for _ in range(3):
        assert rank.prober.goes_before(None)
        rank.prober.run()
    rank.finish()
    assert not rank.prober.goes_before(None)


def test_probe_goes_on_once_before_each_ticket_is_begun() -> None:
    rank = Rank()
    assert not rank.prober.goes_before(step_of(9, 0))
    rank.prober.begin(8)
    for ticket in (9, 12):
        assert rank.prober.goes_before(step_of(ticket, 0))
        rank.prober.run(before=step_of(ticket, 0))
        assert not rank.prober.goes_before(step_of(ticket, 0))
        assert not rank.prober.goes_before(step_of(ticket, 1))
