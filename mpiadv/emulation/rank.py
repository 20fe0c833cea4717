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
from mpiadv.contract.accounts import CraftReport, StepRecord, TicketTold
from mpiadv.contract.craft_queue import AttackStep, StalenessMode
from mpiadv.contract.dispatch import Dispatcher
from mpiadv.contract.tickets import AttackSettings
from mpiadv.emulation.measurements import MEASUREMENTS, Measured, scenario_text
from mpiadv.emulation.scenario import Scenario
from mpiadv.loops.attacker import Attacker
from mpiadv.loops.trainer import Trainer
from mpiadv.methods.attack_schedules import Foreseen
from mpiadv.process.lifeline import end_with_the_starter
from mpiadv.process.streams import outlive_readers
from mpiadv.runlog import RunLog
from mpiadv.work.protocols import ProbeReport

DEADLINE_SECONDS = 60.0
OVERSLEEP_SECONDS = 0.00015

Images = npt.NDArray[Any]


class Meter:
    """Wall-clock and CPU seconds of this thread, by what they were spent on: [wall, CPU].

    What is spent inside something else counts as CPU once, for the inner one. Plain floats: what
    the meter itself takes counts as the engine's work.
    """

    def __init__(self) -> None:
        self.spent = {"device": [0.0, 0.0], "copy": [0.0, 0.0], "wait": [0.0, 0.0]}
        self._began: dict[str, list[float]] = {}

    @staticmethod
    def now() -> list[float]:
        return [time.perf_counter(), time.thread_time()]

    def begin(self, kind: str) -> None:
        self._began[kind] = self.now()

    def end(self, kind: str) -> None:
        began = self._began.pop(kind, None)
        if began is None:
            return
        wall, cpu = self.now()
        self.spent[kind][0] += wall - began[0]
        self.spent[kind][1] += cpu - began[1]
        for outer in self._began.values():
            outer[1] += cpu - began[1]

    def sleep(self, seconds: float) -> None:
        self.begin("wait")
        time.sleep(seconds)
        self.end("wait")


class EmulatedDevice:
    """A device that is busy for so many seconds; asking it sleeps, to leave the core to others."""

    def __init__(self, poll_seconds: float) -> None:
        self.meter = Meter()
        self.asked_seconds = 0.0
        self._poll_seconds = poll_seconds
        self._free_at = 0.0

    def work(self, seconds: float) -> None:
        self.meter.begin("device")
        self.asked_seconds += seconds
        self._free_at = time.perf_counter() + seconds

    def busy(self) -> bool:
        """Whether it still works; while it does, a call takes up to `poll_seconds`."""
        left = self._free_at - time.perf_counter()
        if left > 0:
            # A sleep lasts longer than it should: the end of the work is awaited awake.
            time.sleep(max(0.0, min(left - OVERSLEEP_SECONDS, self._poll_seconds)))
            return True
        self.meter.end("device")
        return False


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

    def give_sum(self, values: Bytes) -> None:
        self._copy(values, self._gradient)

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


class Window:
    """Watches the trainer: writes its log as a real run does, and measures after the warm-up."""

    def __init__(self, scenario: Scenario, device: EmulatedDevice, log: RunLog) -> None:
        self._scenario = scenario
        self._device = device
        self._log = log
        self._records: list[StepRecord] = []
        self._marks: list[npt.NDArray[np.float64]] = []

    @property
    def is_over(self) -> bool:
        return len(self._marks) == 2

    def on_step(self, record: StepRecord) -> None:
        """Log a step and see whether the window begins or ends with it."""
        self._log.train(record)
        self._log.maybe_flush()
        steps = record.step + 1 - self._scenario.warmup_steps
        if steps > 0 and not self.is_over:
            self._records.append(record)
        if steps in (0, self._scenario.measured_steps):
            self._marks.append(self._mark())

    def measured(self, ranks: int, repeat: int, cores: float, others: float) -> Measured:
        spent = self._marks[1] - self._marks[0]
        wall, cpu, device, device_cpu, _, copy_cpu, _, wait_cpu, asked = spent
        steps, attackers_wall = len(self._records), wall * max(1, ranks - 1)
        return Measured(
            ranks=ranks,
            trainer_crafts=self._scenario.trainer_crafts,
            repeat=repeat,
            num_steps=steps,
            train_seconds=self._scenario.train_seconds,
            craft_seconds=self._scenario.craft_seconds,
            ticket_seconds=wall / steps,
            idle=sum(record.wait_seconds for record in self._records) / wall,
            late=(device - asked) / wall,
            parameter_wait=self._waited("parameter_wait_seconds") / attackers_wall,
            trainer_wait=self._waited("trainer_wait_seconds") / attackers_wall,
            grant_wait=self._waited("grant_wait_seconds") / attackers_wall,
            **self._staleness("first_staleness"),
            **self._staleness("last_staleness"),
            own_seconds=(cpu - device_cpu - copy_cpu - wait_cpu) / steps,
            copy_seconds=copy_cpu / steps,
            poll_seconds=device_cpu / steps,
            cores=cores,
            others=others,
            scenario=scenario_text(self._scenario),
        )

    def _mark(self) -> npt.NDArray[np.float64]:
        meter = self._device.meter
        return np.concatenate([meter.now(), *meter.spent.values(), [self._device.asked_seconds]])

    def _waited(self, name: str) -> float:
        waits: list[float] = [getattr(record.seconds, name) for record in self._records]
        return sum(waits)

    def _staleness(self, name: str) -> dict[str, Any]:
        ages = [getattr(record.origin, name) for record in self._records]
        return {name: sum(ages) / len(ages), f"{name}_worst": max(ages)}


def main() -> None:
    """Run this rank; rank 0 adds what it measured."""
    end_with_the_starter()
    written, output, repeat = sys.argv[1:]
    scenario = Scenario(**json.loads(written))
    world = MpiWorld()
    device = EmulatedDevice(scenario.poll_seconds)
    with tempfile.TemporaryDirectory() as folder:
        window = None
        if world.is_trainer:
            log = RunLog.create(Path(folder) / "log.h5", attributes={})
            window = Window(scenario, device, log)
        world.share("")  # all ranks are there: now it counts
        began, cpu, busy = time.perf_counter(), time.process_time(), _machine_seconds()
        if window is not None:
            _train(scenario, world, device, window)
        else:
            _attack(scenario, world, device)
        cpu, busy = time.process_time() - cpu, _machine_seconds() - busy
        room = (time.perf_counter() - began) * len(os.sched_getaffinity(0))
        ours = sum(map(float, world.gather(str(cpu))))
    if window is not None:
        others = max(0.0, busy - ours) / room
        MEASUREMENTS.add(
            Path(output), [window.measured(world.size, int(repeat), ours / room, others)]
        )


def _train(scenario: Scenario, world: MpiWorld, device: EmulatedDevice, window: Window) -> None:
    link = world.trainer_link(_shape(scenario), plain_memory)
    dispatcher = Dispatcher(
        scenario.rule,
        attackers=link.attackers,
        outstanding=scenario.outstanding,
        # More than are measured: the last tickets of a run leave attackers without work.
        num_tickets=2 * (scenario.warmup_steps + scenario.measured_steps) + 100,
        trainer_crafts=scenario.trainer_crafts,
    )
    settings = AttackSettings(num_steps=scenario.num_attack_steps, epsilon=0.3)
    trainer = Trainer(
        dispatcher=dispatcher,
        link=link,
        learner=EmulatedLearner(scenario, device),
        crafter=EmulatedCrafter(scenario, device, world.rank),
        mode=StalenessMode.FIXED,
        attack_schedule=Foreseen(lambda step: settings),
        on_step=window.on_step,
        on_event=lambda kind, text: print(f"{kind}: {text}", file=sys.stderr),
        deadline_seconds=DEADLINE_SECONDS,
        sleep=device.meter.sleep,
    )
    trainer.publish_due()
    trainer.shut_down(trainer.run(lambda: window.is_over))


def _attack(scenario: Scenario, world: MpiWorld, device: EmulatedDevice) -> None:
    Attacker(
        rule=scenario.rule,
        mode=StalenessMode.FIXED,
        link=world.attacker_link(_shape(scenario), plain_memory),
        crafter=EmulatedCrafter(scenario, device, world.rank),
        host=world.host,
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
