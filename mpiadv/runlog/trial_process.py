"""The process in which logs of unknown state are read: `python -m mpiadv.runlog.trial_process`.

One request a line on its standard input, one answer a line on its standard output, both JSON, with
an empty line now and then while it makes progress. It may crash or hang at any time: whoever asks
has to expect that. It ends when its input does, and when it makes no progress.
"""

import json
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mpiadv.process.errors import UserError
from mpiadv.runlog.cutting import cut_back, num_train_rows, require_sound

BEAT_SECONDS = 0.5
"""Between signs of progress, at least."""


def main(silence_seconds: int) -> None:
    """Answer requests until there are no more."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash is nothing that anybody looks into
    beat = _beats(silence_seconds)
    for line in sys.stdin:
        beat()
        request = json.loads(line)
        print(json.dumps(_answer(request, beat)), flush=True)
        signal.alarm(0)


def _beats(silence_seconds: int) -> Callable[[], None]:
    told = 0.0

    def beat() -> None:
        nonlocal told
        signal.alarm(silence_seconds)  # ends this process in the middle of the library, too
        now = time.monotonic()
        if now - told >= BEAT_SECONDS:
            told = now
            print(flush=True)

    return beat


def _answer(request: dict[str, Any], beat: Callable[[], None]) -> dict[str, Any]:
    path, cut = Path(request["path"]), request["cut"]
    try:
        path.open("rb").close()
    except OSError as error:
        return {"failed": [error.errno, error.strerror]}
    try:
        require_sound(path, beat, is_log=request["is_log"])
    except BaseException as error:
        return {"damaged": " ".join(str(error).split()) or type(error).__name__}
    return _cut_back(path, cut, beat) if cut else {}


def _cut_back(path: Path, cut: dict[str, Any], beat: Callable[[], None]) -> dict[str, Any]:
    if cut["step"] is None:
        rows = num_train_rows(path)
        if rows:
            return {"rows": rows}
    shape = None if cut["snapshot_shape"] is None else tuple(cut["snapshot_shape"])
    try:
        held = cut_back(
            path, **{**cut, "step": cut["step"] or 0, "snapshot_shape": shape}, beat=beat
        )
    except UserError as error:
        return {"refused": str(error)}
    except (OSError, RuntimeError) as error:  # h5py has both for a disk that is full
        return {"failed": [getattr(error, "errno", None), str(error)]}
    return {"snapshot_shape": held}


if __name__ == "__main__":
    main(int(sys.argv[1]))
