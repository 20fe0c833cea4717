"""By hand: flip bits of a log, one at a time, and go on with it and read it each time.

    python tests/flip_bits.py --flips 500 --bytes 8192

Whatever a flip does to the HDF5 library, a run goes on, with the log or with a new one beside the
damaged one, and readers say one line.
"""

import argparse
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
from sample_logs import finished_run

from mpiadv.process.errors import UserError
from mpiadv.report.writing import write_report
from mpiadv.runlog import RunLog, read_table
from mpiadv.runlog.trial import Trial


def flipped(content: bytes, bit: int) -> bytes:
    """The same but for one bit."""
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def gone_on_with(path: Path, content: bytes, trial: Trial) -> str:
    """Go on with a log of this content; what became of it."""
    path.write_bytes(content)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with RunLog.resume(
            path, step=40, num_steps=60, attributes={"ranks": 2}, trial=trial
        ) as log:
            log.event("kind", "text", 40)
    rows = len(read_table(path, "train"))
    (kept,) = [*path.parent.glob("log.h5.damaged-*")] or [None]
    if kept is None:
        assert rows <= 60, rows
        return "went on" if not told else "went on, rows missing"
    assert kept.read_bytes() == content and rows == 0
    kept.unlink()
    text = str(told[0].message).split("(", 1)[1]
    return text.split(")")[0] if "ended by" in text or "no end" in text else "cannot be read"


def read(path: Path, content: bytes, output: Path) -> str:
    """Report on a log of this content; how that ended."""
    path.write_bytes(content)
    try:
        write_report([str(path)], output=str(output), figures=None, overwrite=True)
    except UserError as error:
        assert "\n" not in str(error)
        return "one line"
    return "report"


def main() -> None:
    """Flip, go on, read, count."""
    described = argparse.ArgumentParser(description=__doc__)
    described.add_argument("--flips", type=int, default=300)
    described.add_argument("--bytes", type=int, default=8192)
    described.add_argument("--seed", type=int, default=0)
    described.add_argument("--silence", type=int, default=5)
    described.add_argument("--report", action="store_true", help="also write reports")
    words = described.parse_args()
    random, ends, slowest = np.random.default_rng(words.seed), Counter[str](), 0.0
    trial = Trial(words.silence)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        content = (finished_run(folder / "run") / "log.h5").read_bytes()
        for bit in random.choice(8 * min(words.bytes, len(content)), words.flips, replace=False):
            path, began = folder / "log.h5", time.monotonic()
            damaged = flipped(content, int(bit))
            try:
                end = gone_on_with(path, damaged, trial)
                if words.report:
                    end += ", " + read(folder / "copy.h5", damaged, folder / "page.html")
            except BaseException as error:
                print(f"bit {bit}: {type(error).__name__}: {error}", file=sys.stderr)
                end = f"FAILED: {type(error).__name__}"
                for kept in folder.glob("log.h5.damaged-*"):
                    kept.unlink()
            ends[end] += 1
            slowest = max(slowest, time.monotonic() - began)
    for end, count in ends.most_common():
        print(f"{count:6}  {end}")
    print(f"slowest {slowest:.1f} s")


if __name__ == "__main__":
    main()
