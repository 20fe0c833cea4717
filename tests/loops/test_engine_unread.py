"""Images that some rank cannot read, or not yet, cost no bits while any rank can read them."""

import re
from collections.abc import Container
from dataclasses import replace

import pytest
from fake_work import FakeCrafter
from in_memory_job import Job, JobShape
from job_shapes import disturbed, each_shape, expected, left_over, rule, seeds_of
from made_records import version_header

from mpiadv.comm.links import ParameterSlot, plain_memory
from mpiadv.comm.messages import Stop
from mpiadv.contract.craft_queue import CraftQueue
from mpiadv.loops.bench import Bench, VersionRing
from mpiadv.process.errors import UnreadableError

UNREAD: dict[str, dict[int, Container[int]]] = {
    "some_of_one": {1: range(3, 40, 5)},
    "all_of_one": {2: range(40)},
    "some_of_all": {1: range(0, 40, 2), 2: range(0, 40, 3), 3: range(0, 40, 5)},
    "all_of_all": {1: range(40), 2: range(40), 3: range(40)},
}


@pytest.mark.parametrize("unread", UNREAD.values(), ids=UNREAD)
@each_shape
def test_tickets_that_attackers_cannot_read_are_crafted_by_the_trainer(
    shape: JobShape, unread: dict[int, Container[int]]
) -> None:
    for seed in seeds_of(shape):
        troubled = replace(disturbed(shape, 3, seed), unread=unread, slow_images=seed % 3 == 1)
        job = Job(replace(troubled, trainer_crafts=seed % 3 != 2)).run()
        assert job.learner.value == expected(shape)
        assert left_over(job) == 0
        assert all(
            record.origin.rank == 0
            or record.origin.ticket not in unread.get(record.origin.rank, ())
            for record in job.records
        )
        told = [text for kind, text in job.events if kind == "unread"]
        assert all(
            re.fullmatch(
                r"rank \d on memory-\d cannot craft ticket \d+, be it for its images: "
                "the trainer tries",
                text,
            )
            for text in told
        )


@each_shape
def test_images_that_no_rank_can_read_end_the_job_between_two_steps(shape: JobShape) -> None:
    for seed in seeds_of(shape):
        troubled = disturbed(shape, 2, seed)
        job = Job(replace(troubled, unread={rank: [17] for rank in range(3)}))
        with pytest.raises(UnreadableError, match="images of ticket 17"):
            job.run()
        step = job.trainer.dispatcher.step
        assert len(job.records) == step <= 17
        job._save()
        job.trainer.shut_down(Stop.INTERRUPTED)
        assert left_over(job) == 0
        assert Job(troubled, job.saved).run().learner.value == expected(shape)


def test_ticket_that_was_trained_on_while_its_images_were_read_is_not_crafted() -> None:
    staleness, slot = rule(4, 2, 2), ParameterSlot(64, plain_memory)
    slot.header = version_header(0, attack_steps=3, epsilon=0.5)
    ring, queue = VersionRing(staleness), CraftQueue(staleness)
    ring.add(slot)
    queue.add(0)
    step = queue.next_step(ring.settings)
    assert step is not None
    read = iter([False, True])
    crafter = FakeCrafter(lambda: not next(read, True), slow_images=True)
    bench = Bench(queue, ring, crafter, pump=lambda: ring.evict(9))
    bench.run(step)
    assert not ring.settings
    assert queue.remove(0).steps_done == 0
    bench.forget(0)
    assert crafter.tickets == []


def test_images_that_take_long_to_read_are_told_of_once_for_each_ticket(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shape = JobShape(rule=rule(4, 2, 1), num_attackers=0, training_steps=6, deadline_seconds=1e6)
    job = Job(shape)

    def wait(ticket: int) -> bool:
        job.now += 0.1
        return ticket != 3 or job.now > 20.0

    monkeypatch.setattr(job.crafters[0], "wait", wait)
    assert job.run().learner.value == expected(shape)
    (told,) = [text for kind, text in job.events if kind == "slow images"]
    assert told == "ticket 3 has waited 5 s for its images: what cannot be read is tried again"
