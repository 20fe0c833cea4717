"""What ranks tell rank 0 in turn, over MPI: how long it may take, and what of it is believed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import pytest

from mpiadv.comm.messages import Frame, Header, Sign, checksum, sealed
from mpiadv.comm.world import World
from mpiadv.process.errors import DeadlineError, TrainerLostError

DEADLINE_SECONDS = 1.5
WORK_SECONDS = 2.5


@pytest.mark.mpi(min_size=3)
def test_work_may_take_longer_than_the_deadline_of_those_that_wait() -> None:
    from mpiadv.comm.mpi_world import MpiWorld

    world = MpiWorld()
    world.deadline_seconds = DEADLINE_SECONDS
    with world.at_work():
        time.sleep(0.0 if world.is_trainer else world.rank * WORK_SECONDS)
    assert world.gather(f"of {world.rank}") == ["of 0", "of 1", "of 2"]
    with world.at_work():
        time.sleep(WORK_SECONDS if world.is_trainer else 0.0)
    parts = world.collect(np.full((2, 2), float(world.rank)))
    assert [float(part.sum()) for part in parts if part is not None] == (
        [0.0, 4.0, 8.0] if world.is_trainer else []
    )
    values = np.full(1000, 7 if world.is_trainer else 0, np.uint8)
    world.spread(values)
    assert (values == 7).all()
    assert world.sum(np.array([1.0, world.rank])).tolist() == [3.0, 3.0]
    assert world.share("yes" if world.is_trainer else "no") == "yes"


@pytest.mark.mpi(min_size=2)
def test_rank_that_is_stopped_at_work_is_noticed() -> None:
    from mpiadv.comm.mpi_world import MpiWorld

    world = MpiWorld()
    world.deadline_seconds = DEADLINE_SECONDS
    if world.is_trainer:
        with pytest.raises(DeadlineError, match=r"waited 1\.5 s for rank 1"):
            world.gather("")
        time.sleep(WORK_SECONDS + DEADLINE_SECONDS)
        return
    with world.at_work():
        _stop_for(WORK_SECONDS)
    with pytest.raises(DeadlineError, match=r"waited 1\.5 s for rank 0"):
        world.gather("")


def _stop_for(seconds: float) -> None:
    program = f"import os, signal, time; time.sleep({seconds}); os.kill({os.getpid()}, 18)"
    subprocess.Popen([sys.executable, "-c", program])
    os.kill(os.getpid(), signal.SIGSTOP)


def frame_of(text: bytes) -> Header:
    proof = checksum(np.frombuffer(text, np.uint8))
    return sealed(Frame(sign=Sign.TEXT, size=len(text), checksum=proof))


TEXT = b"a text of some length"
UNWRITTEN: dict[str, Callable[[World, int], None]] = {
    "no_frame": lambda world, rank: say(world, rank, b"", None),
    "half_a_frame": lambda world, rank: say(world, rank, frame_of(TEXT).tobytes()[:12], None),
    "no_text": lambda world, rank: say(world, rank, frame_of(TEXT).tobytes(), b""),
    "half_a_text": lambda world, rank: say(world, rank, frame_of(TEXT).tobytes(), TEXT[:9]),
}


def say(world: World, rank: int, frame: bytes, text: bytes | None) -> None:
    """Send what completes a receive, and writes less than it should."""
    from mpiadv.comm.channel import Tag

    world._comm.Send(np.frombuffer(frame, np.uint8), rank, Tag.FRAME)
    if text is not None:
        world._comm.Send(np.frombuffer(text, np.uint8), rank, Tag.TEXT)


@pytest.mark.mpi(min_size=2)
def test_part_that_was_not_written_is_not_believed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mpiadv.comm import exchange
    from mpiadv.comm.mpi_world import MpiWorld

    world = MpiWorld()
    for number, tell in enumerate(UNWRITTEN.values()):
        if world.rank == number % 2:
            tell(world, 1 - world.rank)
        elif world.is_trainer:
            with pytest.raises(DeadlineError, match="what rank 1 said did not arrive whole"):
                world._exchange.hear()
        else:
            with pytest.raises(TrainerLostError):
                world._exchange._receive([0])
        world._comm.Barrier()
    assert world.gather("as ever") == ["as ever"] * 2
    # Where losses are survived, it is the loss of its rank.
    monkeypatch.setattr(exchange, "FAULT_TOLERANT", True)
    if world.is_trainer:
        assert world.gather("") == ["", ""]
        assert world.roster.attackers == []
        assert capsys.readouterr().err == "mpiadv: rank 1 was lost\n"
    else:
        UNWRITTEN["half_a_text"](world, 0)
