"""Receives over MPI that complete with success though not all was written, as from dying ranks."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pytest
from link_ends import OUTSTANDING, RULE, large_shape, until
from made_records import batch_header, version_header

from mpiadv.comm.links import BatchSlot, plain_memory
from mpiadv.comm.messages import BATCH_HEADER, Call, Word, sealed
from mpiadv.contract.turns import Grant
from mpiadv.process.errors import DismissedError, TrainerLostError

if TYPE_CHECKING:
    from mpi4py import MPI

Message = npt.NDArray[np.uint8]


def batch_of(ticket: int) -> Message:
    """A large batch, as rank 1 sends it."""
    slot = BatchSlot(large_shape().batch, plain_memory)
    slot.images[...] = ticket
    slot.header = batch_header(ticket, rank=1)
    return slot.seal()


WRITTEN: dict[str, Callable[[Message], Message]] = {
    "nothing": lambda message: message[:0],
    "half_a_header": lambda message: message[: BATCH_HEADER.itemsize // 2],
    "header_alone": lambda message: message[: BATCH_HEADER.itemsize],
    "half": lambda message: message[: message.size // 2],
    "all_but_the_end": lambda message: message[:-8],
}


@pytest.mark.mpi(min_size=2)
def test_batch_that_was_not_written_is_not_believed_whatever_the_buffer_held() -> None:
    from mpiadv.comm.channel import Tag
    from mpiadv.comm.library import MPI
    from mpiadv.comm.mpi_world import MpiWorld

    for ticket, written in enumerate(WRITTEN.values()):
        world = MpiWorld(MPI.COMM_WORLD.Dup())
        if not world.is_trainer:
            world.attacker_link(large_shape(), plain_memory)
            for message in (batch_of(ticket), written(batch_of(ticket + 1))):
                world._comm.Send(message, 0, Tag.BATCH)
                world.gather("sent")
            continue
        link = world.trainer_link(large_shape(), plain_memory)
        link.grant(Grant(attacker=1, ticket=ticket, patient=False))
        world.gather("")
        deliveries = []
        until(lambda: bool(deliveries.extend(link.poll()) or deliveries), "the batch")  # noqa: B023
        (delivery,) = deliveries
        assert (delivery.ticket, link.take_doubted()) == (ticket, {})
        link.release(delivery.slot)  # the buffer of the next receive
        link.grant(Grant(attacker=1, ticket=ticket + 1, patient=False))
        world.gather("")
        until(lambda: bool(link.poll() or world.roster.doubted), "the end of the receive")  # noqa: B023
        assert link.take_doubted() == {1: "sent a batch that did not arrive whole"}
        assert not world.roster.believes(1)


@pytest.mark.mpi(min_size=2)
def test_attacker_whose_last_words_were_not_written_is_done_without() -> None:
    from mpiadv.comm.channel import Tag
    from mpiadv.comm.library import MPI
    from mpiadv.comm.mpi_world import MpiWorld

    for tag, said in ((Tag.FAREWELL, "said a farewell that"), (Tag.RELEASE, "said of a version")):
        world = MpiWorld(MPI.COMM_WORLD.Dup())
        if not world.is_trainer:
            attacker = world.attacker_link(large_shape(), plain_memory)
            world._comm.Send(np.zeros(0, np.uint8), 0, tag)
            with pytest.raises(DismissedError):
                until(lambda: bool(attacker.poll().last_call), "the word to leave")  # noqa: B023
            continue
        link = world.trainer_link(large_shape(), plain_memory)
        until(lambda: bool(link.poll() or world.roster.doubted), "the end of the receive")  # noqa: B023
        ((rank, why),) = link.take_doubted().items()
        assert rank == 1 and why.startswith(said) and why.endswith("did not arrive whole")
        assert link.farewells() == {} and link.take_doubted() == {}
        link.dismiss(1)
        until(lambda: not link.poll() and not link._channel.num_sends(1), "the word to be taken")  # noqa: B023


class Losing:
    """A communicator whose rank 1 is lost."""

    def __init__(self, comm: "MPI.Comm") -> None:
        self._comm = comm

    def Get_failed(self) -> "MPI.Group":
        return self._comm.Get_group().Incl([1])

    def Get_group(self) -> "MPI.Group":
        return self._comm.Get_group()


@pytest.mark.mpi(min_size=2)
def test_request_that_failed_without_a_status_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    from mpiadv.comm.library import MPI
    from mpiadv.comm.requests import Requests
    from mpiadv.comm.watchdog import Watchdog

    comm, done = MPI.COMM_WORLD, []
    if comm.rank == 1:
        return
    requests = Requests(Losing(comm), Watchdog("rank 0", 60.0))
    for tag in (51, 52):
        requests.start(1, lambda tag=tag: comm.Irecv(np.zeros(8), 1, tag), lambda: done.append(1))

    def testsome(underway: list["MPI.Request"], statuses: list["MPI.Status"]) -> None:
        for request in underway:
            request.Cancel()
            request.Wait()
        statuses[0].Set_error(MPI.ERR_PROC_FAILED)
        raise MPI.Exception(MPI.ERR_IN_STATUS)

    library = SimpleNamespace(**{**vars(MPI), "Request": SimpleNamespace(Testsome=testsome)})
    monkeypatch.setattr("mpiadv.comm.requests.MPI", library)
    assert requests.poll() == {1}
    assert (done, len(requests)) == ([], 0)


def place() -> Message:
    """Where a version lies, as a reader is told."""
    return sealed(version_header(RULE.publish_every)).view(np.uint8)


def word() -> Message:
    grant = Grant(ticket=OUTSTANDING, attacker=1, patient=False)
    return sealed(Call(word=Word.GRANT, grant=grant)).view(np.uint8)


FROM_THE_TRAINER: dict[str, Message] = {
    "no_place": place()[:0],
    "half_a_place": place()[:32],
    "no_word": word()[:0],
    "half_a_word": word()[:16],
}


@pytest.mark.mpi(min_size=2)
def test_what_the_trainer_did_not_write_is_the_loss_of_the_trainer() -> None:
    from mpiadv.comm.channel import Tag
    from mpiadv.comm.library import MPI
    from mpiadv.comm.mpi_world import MpiWorld

    for kind, message in FROM_THE_TRAINER.items():
        world = MpiWorld(MPI.COMM_WORLD.Dup())
        if world.is_trainer:
            world.trainer_link(large_shape(), plain_memory)
            world._comm.Send(message, 1, Tag.CALL if "word" in kind else Tag.VERSION)
        else:
            link = world.attacker_link(large_shape(), plain_memory)
            with pytest.raises(TrainerLostError):
                until(lambda: bool(link.poll()), "what is not to be believed")  # noqa: B023
        world._comm.Barrier()
