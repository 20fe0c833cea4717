"""The ticket rule written again from its definition, by search instead of arithmetic.

`k` counts all attack steps of a ticket, the trainer's included.
"""

from fractions import Fraction
from math import floor

from mpiadv.contract.tickets import StalenessRule


def contract_step(rule: StalenessRule, ticket: int) -> int:
    """The training step that consumes a ticket."""
    step = 0
    while ticket not in range(step * rule.tickets_per_step, (step + 1) * rule.tickets_per_step):
        step += 1
    return step


def contract_lag(rule: StalenessRule, step: int, k: int) -> int:
    """How old the parameters of attack step `step` may be, in training steps."""
    k_crafted = k - rule.trainer_steps
    if step >= k_crafted:
        return 0
    if k_crafted == 1:
        return rule.final_staleness
    fall = Fraction((rule.max_staleness - rule.final_staleness) * step, k_crafted - 1)
    return rule.max_staleness - floor(fall)


def contract_version(rule: StalenessRule, ticket: int, step: int, k: int) -> int:
    """The oldest published version that is fresh enough; the trainer's own steps use its own."""
    trained = contract_step(rule, ticket)
    if step >= k - rule.trainer_steps:
        return trained
    return oldest_published(rule, trained - contract_lag(rule, step, k))


def contract_first_version(rule: StalenessRule, ticket: int) -> int:
    """The version whose message carries the ticket's attack settings."""
    return oldest_published(rule, contract_step(rule, ticket) - rule.max_staleness)


def oldest_published(rule: StalenessRule, step: int) -> int:
    """The first version published at or after `step`."""
    version = 0
    while version < step:
        version += rule.publish_every
    return version
