"""A device that is not there: it is busy for as long as work would take."""

import time

OVERSLEEP_SECONDS = 0.00015


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
