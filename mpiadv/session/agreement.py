"""Bad input that any rank meets: all ranks hear of it, and leave together."""

from collections.abc import Callable
from typing import TypeVar

from mpiadv.comm.world import World
from mpiadv.process.errors import UserError

T = TypeVar("T")


class AgreedError(UserError):
    """Bad input that every rank has heard of: rank 0 says it, all leave together."""


def agree(world: World, task: Callable[[], T]) -> T:
    """Run `task` on every rank.

    Raises:
        AgreedError: on all ranks, with the first rank's text, if the input is bad on any.
    """
    error, result = "", None
    try:
        with world.at_work():
            result = task()
    except UserError as raised:
        error = str(raised)
    errors = [text for text in world.gather(error) if text]
    if errors:
        raise AgreedError(errors[0])
    return result  # type: ignore[return-value]
