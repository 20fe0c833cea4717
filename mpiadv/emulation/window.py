"""What is measured of an emulated job, on its first trainer."""

from typing import Any

import numpy as np
import numpy.typing as npt

from mpiadv.contract.accounts import StepRecord
from mpiadv.emulation.device import EmulatedDevice
from mpiadv.emulation.measurements import Measured, scenario_text
from mpiadv.emulation.scenario import Scenario
from mpiadv.runlog import RunLog


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
        steps, scenario = len(self._records), self._scenario
        tickets = steps * scenario.tickets_per_step
        attackers_wall = wall * max(1, ranks - scenario.trainers)
        return Measured(
            ranks=ranks,
            trainer_crafts=self._scenario.trainer_crafts,
            repeat=repeat,
            num_steps=steps,
            train_seconds=self._scenario.train_seconds,
            craft_seconds=self._scenario.craft_seconds,
            ticket_seconds=wall / tickets,
            idle=sum(record.wait_seconds + record.exchange_seconds for record in self._records)
            / wall,
            late=(device - asked) / wall,
            parameter_wait=self._waited("parameter_wait_seconds") / attackers_wall,
            trainer_wait=self._waited("trainer_wait_seconds") / attackers_wall,
            grant_wait=self._waited("grant_wait_seconds") / attackers_wall,
            **self._staleness("first_staleness"),
            **self._staleness("last_staleness"),
            own_seconds=(cpu - device_cpu - copy_cpu - wait_cpu) * scenario.trainers / tickets,
            copy_seconds=copy_cpu * scenario.trainers / tickets,
            poll_seconds=device_cpu * scenario.trainers / tickets,
            cores=cores,
            others=others,
            scenario=scenario_text(self._scenario),
        )

    def _mark(self) -> npt.NDArray[np.float64]:
        meter = self._device.meter
        return np.concatenate([meter.now(), *meter.spent.values(), [self._device.asked_seconds]])

    def _waited(self, name: str) -> float:
        return sum(
            float(getattr(ticket.seconds, name))
            for record in self._records
            for ticket in record.tickets
        )

    def _staleness(self, name: str) -> dict[str, Any]:
        ages = [getattr(record.origin, name) for record in self._records]
        return {name: sum(ages) / len(ages), f"{name}_worst": max(ages)}
