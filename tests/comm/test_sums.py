"""Sums over trainers: one order of adding, in pieces, for whatever lies in the buffer."""

from random import Random
from typing import Any

import numpy as np
import pytest
from fake_work import fake_shape
from job_shapes import rule
from memory_network import MemoryChannel, MemoryNetwork

from mpiadv.comm import sums
from mpiadv.comm.links import plain_memory
from mpiadv.comm.messages import Bytes
from mpiadv.comm.sums import Add, ChannelSums
from mpiadv.contract.pairwise import PairwiseSum

SIZES = (1, 2, 4, 8)


def _values(rank: int, count: int) -> Bytes:
    """Numbers of which the order of adding shows."""
    rng = np.random.default_rng(rank)
    scale = 10.0 ** rng.integers(-6, 7, count)
    return (rng.standard_normal(count) * scale).astype(np.float32).view(np.uint8)


def _plus(left: Bytes, right: Bytes) -> Bytes:
    return (left.view(np.float32) + right.view(np.float32)).view(np.uint8)


def _tree(size: int, count: int) -> bytes:
    total = PairwiseSum(_plus)
    for rank in range(size):
        total.push(_values(rank, count))
    return total.take().tobytes()


def _trainers(size: int, seed: int) -> list[ChannelSums]:
    random = Random(seed)
    network = MemoryNetwork(
        size - 1, fake_shape(rule(0, 0, 1), 1), delay=lambda: random.random() < 0.4
    )
    return [ChannelSums(channel, size, plain_memory) for channel in network.channels]


def _adding(buffer: Bytes) -> Add:
    def add(start: int, theirs: Bytes) -> None:
        mine = buffer[start : start + theirs.size].view(np.float32)
        mine += theirs.view(np.float32)

    return add


def _added(trainers: list[ChannelSums], buffers: list[Bytes], seed: int) -> None:
    random = Random(seed)
    for trainer, buffer in zip(trainers, buffers, strict=True):
        trainer.begin(buffer, _adding(buffer))
    waiting = list(trainers)
    for _ in range(100_000):
        if not waiting:
            return
        trainer = random.choice(waiting)
        if trainer.poll():
            waiting.remove(trainer)
            random.choice(trainers).keep_alive()
    raise AssertionError("it does not come to an end")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("blocks", [1, 3, 16, 77])
@pytest.mark.parametrize("piece", [64, 640, 2**22])
def test_sum_is_that_of_the_tree_in_whatever_pieces(
    size: int, blocks: int, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sums, "PIECE_BYTES", piece)
    trainers = _trainers(size, seed=blocks)
    for number in range(3):
        buffers = [plain_memory(64 * blocks) for _ in trainers]
        for rank, buffer in enumerate(buffers):
            buffer[:] = _values(rank, 16 * blocks)
        _added(trainers, buffers, seed=number)
        assert {buffer.tobytes() for buffer in buffers} == {_tree(size, 16 * blocks)}


def test_pieces_wait_until_they_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sums, "PIECE_BYTES", 640)
    trainers, there = _trainers(4, seed=0), [0, 0, 0, 0]
    buffers = [plain_memory(64 * 77) for _ in trainers]
    for rank, (trainer, buffer) in enumerate(zip(trainers, buffers, strict=True)):
        trainer.begin(buffer, _adding(buffer), lambda end, rank=rank: end <= there[rank])
    random = Random(0)
    while min(there) < 64 * 77:
        assert not any(trainer.poll() for trainer in trainers)
        rank = random.randrange(4)
        start, there[rank] = there[rank], min(there[rank] + 640, 64 * 77)
        buffers[rank][start : there[rank]] = _values(rank, 16 * 77)[start : there[rank]]
    while not all([trainer.poll() for trainer in trainers]):
        pass
    assert {buffer.tobytes() for buffer in buffers} == {_tree(4, 16 * 77)}


def test_order_of_adding_shows() -> None:
    """Else the test before would prove nothing."""
    count = 16 * 77
    in_a_row = np.add.reduce([_values(rank, count).view(np.float32) for rank in range(8)])
    assert in_a_row.tobytes() != _tree(8, count)


def test_trainer_sends_twice_its_bytes_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    trainers, sent = _trainers(8, seed=1), [0]
    send = MemoryChannel.send

    def counted(self: MemoryChannel, rank: int, buffer: Bytes, *further: Any) -> None:
        sent[0] += buffer.size if self.rank == 3 and buffer.size > 64 else 0
        send(self, rank, buffer, *further)

    monkeypatch.setattr(MemoryChannel, "send", counted)
    buffers = [plain_memory(64 * 800) for _ in trainers]
    _added(trainers, buffers, seed=0)
    assert sent[0] == 2 * 7 * 64 * 800 // 8


def test_trainer_that_dies_is_told_to_each_of_the_others() -> None:
    random = Random(0)
    network = MemoryNetwork(3, fake_shape(rule(0, 0, 1), 1), delay=lambda: random.random() < 0.4)
    trainers = [ChannelSums(channel, 4, plain_memory) for channel in network.channels]
    buffers = [plain_memory(64 * 8) for _ in trainers]
    for trainer, buffer in zip(trainers[:3], buffers[:3], strict=True):
        trainer.begin(buffer, _adding(buffer))
    network.kill(3)
    for trainer in trainers[:3]:
        assert not trainer.poll()
        assert trainer.take_lost() == {3}
        assert not trainer.take_lost()
