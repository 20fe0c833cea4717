"""The ticket rule: against its definition, its bounds, its refusals."""

import re
from collections.abc import Mapping

import numpy as np
import pytest
from contract import contract_first_version, contract_lag, contract_step, contract_version
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples, rules

from mpiadv.contract.tickets import Purpose, SampleOrder, StalenessRule, seed_for
from mpiadv.process.errors import UserError

TICKETS = st.integers(0, 300)
STEPS = st.integers(0, 12)
NUMBERS = st.integers(-3, 45)


@examples(500)
@given(rules(), TICKETS, STEPS)
def test_lag_and_version_are_those_of_the_definition(
    rule: StalenessRule, ticket: int, k: int
) -> None:
    assert rule.crafting_steps(k) == max(0, k - rule.trainer_steps)
    assert rule.first_version(ticket) == contract_first_version(rule, ticket)
    for step in range(k):
        assert rule.lag(step, k) == contract_lag(rule, step, k)
        assert rule.version(ticket, step, k) == contract_version(rule, ticket, step, k)


@pytest.mark.parametrize(
    ("rule", "k", "lags"),
    [
        (StalenessRule(max_staleness=16, final_staleness=2, publish_every=1), 8,
         [16, 14, 12, 10, 8, 6, 4, 2]),
        (StalenessRule(max_staleness=16, final_staleness=4, publish_every=4), 4, [16, 12, 8, 4]),
        (StalenessRule(max_staleness=8, final_staleness=8, publish_every=1), 3, [8, 8, 8]),
        (StalenessRule(max_staleness=7, final_staleness=0, publish_every=1), 1, [0]),
        (StalenessRule(max_staleness=16, final_staleness=2, publish_every=2), 1, [2]),
        (StalenessRule(max_staleness=16, final_staleness=2, publish_every=1, trainer_steps=2), 3,
         [2, 0, 0]),
        (StalenessRule(max_staleness=9, final_staleness=0, publish_every=1, trainer_steps=2), 4,
         [9, 0, 0, 0]),
        (StalenessRule(max_staleness=9, final_staleness=3, publish_every=1, trainer_steps=4), 4,
         [0, 0, 0, 0]),
        (StalenessRule(max_staleness=9, final_staleness=3, publish_every=1, trainer_steps=1), 4,
         [9, 6, 3, 0]),
    ],
    ids=[
        "refreshed", "every_4", "constant", "one_step", "one_step_of_the_default",
        "one_step_and_two_on_the_trainer", "two_on_the_trainer", "all_on_the_trainer",
        "last_on_the_trainer",
    ],
)  # fmt: skip
def test_lags_fall_from_the_largest_to_the_final(
    rule: StalenessRule, k: int, lags: list[int]
) -> None:
    assert [rule.lag(step, k) for step in range(k)] == lags


@examples(300)
@given(rules(), TICKETS, STEPS)
def test_versions_are_published_in_time_and_never_go_back(
    rule: StalenessRule, ticket: int, k: int
) -> None:
    versions = [rule.version(ticket, step, k) for step in range(rule.crafting_steps(k))]
    assert versions == sorted(versions)
    assert all(rule.is_published(version) for version in versions)
    trained = contract_step(rule, ticket)
    assert all(version <= trained for version in versions)
    assert all(trained - version <= rule.max_staleness for version in versions)
    if versions:
        assert trained - versions[-1] <= rule.final_staleness


@examples(300)
@given(rules(), TICKETS)
def test_newest_startable_ticket_is_the_last_whose_first_version_is_published(
    rule: StalenessRule, step: int
) -> None:
    newest = rule.newest_startable(step)
    assert step <= contract_step(rule, newest) <= step + rule.max_staleness
    assert contract_step(rule, newest + 1) == contract_step(rule, newest) + 1
    assert rule.first_version(newest) <= step < rule.first_version(newest + 1)


@examples(200)
@given(rules(), TICKETS, STEPS)
def test_live_tickets_never_need_more_versions_than_the_ring_holds(
    rule: StalenessRule, step: int, k: int
) -> None:
    published = [version for version in range(step + 1) if rule.is_published(version)]
    live = range(step * rule.tickets_per_step, rule.newest_startable(step) + 1)
    needed = {rule.version(ticket, j, k) for ticket in live for j in range(rule.crafting_steps(k))}
    kept = [version for version in published if version not in rule.not_needed(published, step)]
    assert len(kept) <= rule.num_versions
    assert {version for version in needed if version <= step} <= set(kept)


def numbers_of(way: str) -> Mapping[str, int]:
    return {name: int(number) for name, number in re.findall(r"(\w+) [<>]= (\d+)", way)}


@examples(500)
@given(NUMBERS, NUMBERS, st.integers(0, 45))
def test_inadmissible_rule_is_refused_with_numbers_that_work(
    largest: int, final: int, every: int
) -> None:
    asked = {"max_staleness": largest, "final_staleness": final, "publish_every": every}
    is_admissible = every >= 1 and largest >= 0 and every - 1 <= final <= largest
    if is_admissible:
        StalenessRule(**asked)
        return
    with pytest.raises(UserError) as caught:
        StalenessRule(**asked)
    text = str(caught.value)
    if every < 1 or final < 0 or largest < 0:
        assert "expected publish_every >= 1 and the others >= 0" in text
        return
    ways = text.partition(": use ")[2].split(" or ")
    assert len(ways) == 2
    for way in ways:
        changed = numbers_of(way)
        assert changed, text
        StalenessRule(**{**asked, **changed})


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ((32, 32, 100), "publish_every=100 cannot hold final_staleness=32: use publish_every <= 33 "
         "or final_staleness >= 99 and max_staleness >= 99"),
        ((16, 2, 4), "publish_every=4 cannot hold final_staleness=2: use publish_every <= 3 "
         "or final_staleness >= 3"),
        ((4, 8, 1), "final_staleness=8 exceeds max_staleness=4: use final_staleness <= 4 "
         "or max_staleness >= 8"),
    ],
    ids=["both_too_small", "publish_too_rare", "final_above_largest"],
)  # fmt: skip
def test_refusal_says_what_was_there_and_what_to_do(
    numbers: tuple[int, int, int], words: str
) -> None:
    largest, final, every = numbers
    with pytest.raises(UserError, match=f"^{re.escape(words)}$"):
        StalenessRule(max_staleness=largest, final_staleness=final, publish_every=every)


@examples(300)
@given(rules(), TICKETS, STEPS, st.integers(0, 60), st.integers(0, 60))
def test_versions_that_pass_verification_keep_the_bounds(
    rule: StalenessRule, ticket: int, k: int, first_staleness: int, last_staleness: int
) -> None:
    num_crafted = max(0, k - rule.trainer_steps)
    trained = contract_step(rule, ticket)
    used = trained - first_staleness, trained - last_staleness
    try:
        rule.verify(ticket, first=used[0], last=used[1], num_steps=k, exact=False)
    except AssertionError:
        return
    assert first_staleness <= (rule.max_staleness if num_crafted else 0)
    assert last_staleness <= (rule.final_staleness if num_crafted else 0)
    assert last_staleness <= first_staleness


RULE = StalenessRule(max_staleness=16, final_staleness=4, publish_every=4)


@pytest.mark.parametrize(
    ("first", "last", "exact", "is_right"),
    [
        (4, 16, True, True),
        (4, 16, False, True),
        (8, 20, False, True),
        (8, 16, True, False),
        (4, 20, True, False),
        (0, 16, False, False),
        (4, 12, False, False),
        (16, 12, False, False),
        (4, 24, False, False),
    ],
    ids=[
        "exact", "oldest", "fresher", "first_too_fresh", "last_too_fresh", "first_too_old",
        "last_too_old", "going_back", "newer_than_the_ticket",
    ],
)  # fmt: skip
def test_verification_refuses_any_other_version(
    first: int, last: int, exact: bool, is_right: bool
) -> None:
    if is_right:
        RULE.verify(20, first=first, last=last, num_steps=4, exact=exact)
    else:
        with pytest.raises(AssertionError, match="the rule says 4 to 16"):
            RULE.verify(20, first=first, last=last, num_steps=4, exact=exact)


def test_every_epoch_visits_each_sample_once_in_another_order() -> None:
    order = SampleOrder(seed=1, num_samples=60, batch_size=20)
    epochs = [np.concatenate([order.indices(3 * e + row) for row in range(3)]) for e in range(4)]
    assert all(sorted(epoch) == list(range(60)) for epoch in epochs)
    assert len({epoch.tobytes() for epoch in epochs}) == 4


def test_last_incomplete_batch_of_an_epoch_is_dropped() -> None:
    order = SampleOrder(seed=1, num_samples=10, batch_size=4)
    assert order.batches_per_epoch == 2
    seen = np.concatenate([order.indices(0), order.indices(1)])
    assert len(set(seen)) == 8


def test_samples_of_a_ticket_do_not_depend_on_what_was_asked_before() -> None:
    order = SampleOrder(seed=5, num_samples=12, batch_size=3)
    forward = [order.indices(ticket).tolist() for ticket in range(40)]
    backward = [order.indices(ticket).tolist() for ticket in reversed(range(40))]
    assert forward == backward[::-1]


@pytest.mark.parametrize("batch_size", [0, 11])
def test_batch_that_does_not_fit_the_data_is_refused(batch_size: int) -> None:
    with pytest.raises(UserError, match=r"use 1 <= batch_size <= 10$"):
        SampleOrder(seed=0, num_samples=10, batch_size=batch_size)


def test_random_streams_and_sample_order_are_the_same_in_every_release() -> None:
    assert [seed_for(0, purpose, 7) for purpose in Purpose] == [
        3542883155007454814,
        2440468269607536873,
        446635038625362869,
        6812392217526899882,
        3978384422753342193,
        5029134413636671219,
        4391003541983838748,
        7325347427529846847,
        8614267415774447418,
        4108344316748851785,
        1712589761163255738,
        368986801049833537,
        4327525045695348965,
        7363748221106147973,
    ]
    order = SampleOrder(seed=3, num_samples=10, batch_size=3)
    assert [order.indices(ticket).tolist() for ticket in (0, 4)] == [[6, 4, 9], [0, 2, 5]]


def test_no_two_streams_share_a_seed() -> None:
    seeds = {
        seed_for(seed, purpose, ticket)
        for seed in range(5)
        for purpose in Purpose
        for ticket in range(100)
    }
    assert len(seeds) == 5 * len(Purpose) * 100
    assert all(0 <= seed < 2**63 for seed in seeds)
