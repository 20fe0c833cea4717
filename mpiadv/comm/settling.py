"""How all ranks find out together who shares memory for versions with whom. Knows no MPI."""

import os
from collections.abc import Sequence
from contextlib import ExitStack

from mpiadv.comm.homes import Home
from mpiadv.comm.links import LinkShape, most_parameter_slots
from mpiadv.comm.messages import Bytes
from mpiadv.comm.shared_memory import DISABLE_SHARING, SharedMemory, SharedSlots, attach
from mpiadv.comm.world import World
from mpiadv.contract.turns import TRAINER


def find_home(world: World, shape: LinkShape) -> Home:
    """Where this rank reads; all ranks ask at the same time. One that is lost is in no group."""
    may_share = os.environ.get(DISABLE_SHARING) != "1"
    said = world.gather(f"{may_share:d}{world.host}")
    hosts = [text[1:] for text in said]
    mates = [rank for rank, host in enumerate(hosts) if host == world.host]
    founder, size = mates[0], len(mates)
    receivers = world.size if founder == TRAINER else size
    area_slots = most_parameter_slots(shape, receivers - 1, size - 1)
    with ExitStack() as opened:  # until all have found what they look for
        memory = address = None
        if world.rank == founder and size > 1 and said[TRAINER][:1] == "1":
            areas = 1 if founder == TRAINER else size
            memory, address = _new_memory(areas * area_slots, shape, opened)
        address = world.gather(address or "none")[founder]
        if world.rank != founder and address not in ("", "none"):
            memory = attach(address)
        found = world.gather("alone" if memory is None else "shares")
    groups = _groups(hosts, found)
    is_shared = any(world.rank in group and len(group) > 1 for group in groups)
    return Home(groups=groups, memory=memory if is_shared else None, area_slots=area_slots)


def _new_memory(
    num_slots: int, shape: LinkShape, opened: ExitStack
) -> tuple[Bytes | None, str | None]:
    """Memory for so many versions and its address; nothing where there is no such memory."""
    try:
        memory = SharedMemory(SharedSlots.room_for(num_slots, shape.parameter_bytes))
    except OSError:
        return None, None
    opened.enter_context(memory)
    return memory.content, memory.address


def _groups(hosts: Sequence[str], found: Sequence[str]) -> list[list[int]]:
    """Those of a host that share its memory together, every other one by itself."""
    groups: dict[object, list[int]] = {}
    for rank, (host, how) in enumerate(zip(hosts, found, strict=True)):
        if how:
            groups.setdefault(host if how == "shares" else rank, []).append(rank)
    return list(groups.values())
