"""`python -m paused_start MODULE PROGRAM ...`: `python -m PROGRAM ...`, paused before `MODULE`.

It pauses before it imports `MODULE`, says so, and goes on when a signal that is listened to has
come.
"""

import os
import runpy
import select
import signal
import sys
from importlib.machinery import ModuleSpec


class Pause:
    """Stands first among those who are asked for a module."""

    def __init__(self, module: str) -> None:
        self._module = module
        self._heard, end = os.pipe()
        os.set_blocking(end, False)
        # Written to by Python's own handler, so also for a signal that comes before the pause.
        signal.set_wakeup_fd(end)

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name == self._module:
            self._module = ""
            print("paused", flush=True)
            select.select([self._heard], [], [])
        return None


if __name__ == "__main__":
    sys.meta_path.insert(0, Pause(sys.argv.pop(1)))
    runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
