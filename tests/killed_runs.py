"""A program: runs of one rank that are killed, as by `kill -9`, right after a training step.

    python tests/killed_runs.py PLAN.json

The plan is a list of [path of a configuration, overrides, training steps].
"""

import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

import mpiadv
from mpiadv.process.loading import loading

with loading():
    from mpiadv.session.recorder import Recorder


def main(plan: Path) -> None:
    for path, overrides, steps in json.loads(plan.read_text()):
        child = os.fork()
        if child == 0:
            _train_until_killed(path, overrides, steps)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, (overrides, status)


def _train_until_killed(path: str, overrides: list[str], steps: int) -> None:
    on_step = Recorder.on_step

    def kill_after(self: Recorder, record: Any) -> None:
        on_step(self, record)
        if record.step + 1 == steps:
            os.kill(os.getpid(), signal.SIGKILL)

    Recorder.on_step = kill_after  # type: ignore[method-assign]
    try:
        mpiadv.train(mpiadv.load_config(path, overrides))
    except BaseException:
        traceback.print_exc()
    os._exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
