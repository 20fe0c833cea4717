"""One rank of an emulated job: real loops and messages, waits in place of the devices. No torch.

`mpirun -n RANKS python -m mpiadv.emulation.rank SCENARIO OUTPUT REPEAT`: a `Scenario` as JSON, the
file that rank 0 adds what it `Measured` to, and the measurement's number among its like.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mpiadv.comm.links import BatchSlot, LinkShape, ParameterSlot, plain_memory
from mpiadv.comm.messages import BatchShape, Bytes, aligned
from mpiadv.comm.mpi_world import MpiWorld
from mpiadv.comm.sums import IsReady, at_once
from mpiadv.comm.world import Division, World
from mpiadv.contract.accounts import CraftReport, TicketTold
from mpiadv.contract.craft_queue import AttackStep, StalenessMode
from mpiadv.contract.dispatch import Dispatcher
from mpiadv.contract.teams import Layout, place_teams
from mpiadv.contract.tickets import AttackSettings
from mpiadv.emulation.device import EmulatedDevice
from mpiadv.emulation.measurements import MEASUREMENTS
from mpiadv.emulation.scenario import Scenario
from mpiadv.emulation.window import Window
from mpiadv.loops.attacker import Attacker
from mpiadv.loops.colleagues import SeveralTrainers
from mpiadv.loops.trainer import Trainer
from mpiadv.methods.attack_schedules import Foreseen
from mpiadv.process.lifeline import end_with_the_starter
from mpiadv.process.streams import outlive_readers
from mpiadv.runlog import RunLog
from mpiadv.work.protocols import ProbeReport

DEADLINE_SECONDS = 60.0

Images = npt.NDArray[Any]


class EmulatedCrafter:
    """Waits in place of attack steps; its batches are always the same images."""

    def __init__(self, scenario: Scenario, device: EmulatedDevice, rank: int) -> None:
        craft_seconds = scenario.craft_seconds * scenario.slowness_of(rank)
        self._step_seconds = craft_seconds / scenario.num_attack_steps
        self._images = BatchSlot(_shape(scenario).batch, plain_memory).images
        self._device = device
        self.busy = device.busy

    def _nothing(self, *about: Any, **more: Any) -> None:
        """There is nothing to fetch, to start or to forget."""

    prefetch = start = drop = _nothing

    def wait(self, ticket: int) -> bool:
        return True

    def run(self, step: AttackStep, parameters: ParameterSlot) -> None:
        self._device.work(self._step_seconds)

    def finish(self, ticket: int) -> tuple[Images, CraftReport]:
        return self._images, CraftReport(gradient_magnitude=1.0, natural_accuracy=0.5)

    def probe(
        self, ticket: int, settings: AttackSettings, parameters: ParameterSlot
    ) -> Iterator[ProbeReport | None]:
        for _ in range(settings.num_steps):
            self._device.work(self._step_seconds)
            yield None
        yield ProbeReport(accuracy=0.5, loss=1.0)

    def download(self, batch: Images, slot: BatchSlot) -> None:
        slot.images[:] = batch


class EmulatedLearner:
    """Waits in place of training steps; snapshots and batches are copied as real ones are."""

    leaves_host_free = True

    def __init__(self, scenario: Scenario, device: EmulatedDevice) -> None:
        self._seconds = scenario.train_seconds
        self._parameters = np.zeros(scenario.value_bytes * scenario.num_parameters, np.uint8)
        self._device = device
        self._gradient = np.zeros(aligned(4 * scenario.num_parameters), np.uint8)
        self.sum_bytes = self._gradient.size
        self._num_tickets = scenario.rule.team_tickets
        self._copy_engine = ThreadPoolExecutor(max_workers=1)
        self.busy = device.busy

    def snapshot(self, values: Bytes) -> Callable[[], bool]:
        """Copy the parameters beside the next work, as a device with a copy engine does."""
        return self._copy_engine.submit(np.copyto, values, self._parameters).done

    def upload(self, slot: BatchSlot) -> Images:
        self._device.meter.begin("copy")
        images: Images = slot.images.copy()
        self._device.meter.end("copy")
        return images

    def train(
        self, ticket: int, batch: Images, settings: AttackSettings, pump: Callable[[], None]
    ) -> None:
        self._device.work(self._seconds)

    def told(self) -> list[TicketTold]:
        return [TicketTold(loss=1.0, accuracy=0.5, gradient_magnitude=None)] * self._num_tickets

    def give_sum(self, values: Bytes) -> IsReady:
        self._copy(values, self._gradient)
        return at_once

    def add_sum(self, values: Bytes, start: int, theirs: Bytes) -> None:
        mine = values[start : start + theirs.size].view(np.float32)
        mine += theirs.view(np.float32)

    def complete(self, values: Bytes | None = None) -> float:
        if values is not None:
            self._copy(self._gradient, values)
        return 0.1

    def fingerprint(self) -> int:
        return 0

    def _copy(self, to: Bytes, values: Bytes) -> None:
        """Between host and device, which a device with a copy engine does by itself."""
        self._device.meter.begin("copy")
        to[:] = values
        self._device.meter.end("copy")


def main() -> None:
    """Run this rank; rank 0 adds what it measured."""
    end_with_the_starter()
    written, output, repeat = sys.argv[1:]
    scenario = Scenario(**json.loads(written))
    world = MpiWorld()
    world.meet()
    teams = place_teams(world.roster.hosts, scenario.trainers, Layout.HOSTS)
    division = world.divide(teams)
    device = EmulatedDevice(scenario.poll_seconds)
    with tempfile.TemporaryDirectory() as folder:
        window = None
        if world.is_trainer:
            log = RunLog.create(Path(folder) / "log.h5", attributes={})
            window = Window(scenario, device, log)
        world.share("")  # all ranks are there: now it counts
        began, cpu, busy = time.perf_counter(), time.process_time(), _machine_seconds()
        if division.team.is_trainer:
            _train(scenario, division, device, window)
        else:
            _attack(scenario, division.team, device)
        cpu, busy = time.process_time() - cpu, _machine_seconds() - busy
        room = (time.perf_counter() - began) * len(os.sched_getaffinity(0))
        ours = sum(map(float, world.gather(str(cpu))))
    if window is not None:
        others = max(0.0, busy - ours) / room
        MEASUREMENTS.add(
            Path(output), [window.measured(world.size, int(repeat), ours / room, others)]
        )


def _train(
    scenario: Scenario, division: Division, device: EmulatedDevice, window: Window | None
) -> None:
    """A trainer; the first one's steps `window` watches."""
    link = division.team.trainer_link(_shape(scenario), plain_memory)
    rule = scenario.rule.of_team(division.number, division.num_teams)
    learner = EmulatedLearner(scenario, device)
    steps = 2 * (scenario.warmup_steps + scenario.measured_steps) + 100
    dispatcher = Dispatcher(
        rule,
        attackers=link.attackers,
        outstanding=scenario.outstanding,
        # More than are measured: the last tickets of a run leave attackers without work.
        num_tickets=steps * rule.team_tickets,
        trainer_crafts=scenario.trainer_crafts,
    )
    settings = AttackSettings(num_steps=scenario.num_attack_steps, epsilon=0.3)
    trainer = Trainer(
        dispatcher=dispatcher,
        link=link,
        learner=learner,
        crafter=EmulatedCrafter(scenario, device, 0),
        mode=StalenessMode.FIXED,
        attack_schedule=Foreseen(lambda step: settings),
        on_step=window.on_step if window else lambda record: None,
        on_event=lambda kind, text: print(f"{kind}: {text}", file=sys.stderr),
        deadline_seconds=DEADLINE_SECONDS,
        sleep=device.meter.sleep,
        colleagues=_colleagues(scenario, division.among_trainers, learner),
    )
    trainer.publish_due()
    trainer.shut_down(trainer.run(lambda: window is not None and window.is_over))


def _colleagues(
    scenario: Scenario, trainers: World | None, learner: EmulatedLearner
) -> SeveralTrainers | None:
    if trainers is None:
        return None
    return SeveralTrainers(
        trainers.sums(plain_memory),
        learner,
        trainers.roster,
        num_tickets=scenario.tickets_per_step,
        allocate=plain_memory,
        deadline_seconds=DEADLINE_SECONDS,
    )


def _attack(scenario: Scenario, team: World, device: EmulatedDevice) -> None:
    Attacker(
        rule=scenario.rule,
        mode=StalenessMode.FIXED,
        link=team.attacker_link(_shape(scenario), plain_memory),
        crafter=EmulatedCrafter(scenario, device, team.rank),
        host=team.host,
        deadline_seconds=DEADLINE_SECONDS,
    ).run()


def _shape(scenario: Scenario) -> LinkShape:
    rule = scenario.rule
    return LinkShape(
        batch=BatchShape(
            batch_size=scenario.batch_size,
            image_shape=(1, 1, scenario.image_values),
            wire_dtype=scenario.wire_dtype,
        ),
        parameter_bytes=scenario.value_bytes * scenario.num_parameters,
        num_versions=rule.num_versions,
        outstanding=scenario.outstanding or rule.window,
    )


def _machine_seconds() -> float:
    """CPU seconds that the whole machine has worked since it started; NaN where it is not told."""
    try:
        words = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()
    except OSError:
        return float("nan")
    user, nice, system, _idle, _iowait, irq, softirq = map(int, words[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    outlive_readers()
    main()
