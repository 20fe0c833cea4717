"""A run of which only the log and the checkpoints tell, for tests of how they are kept."""

from pathlib import Path

import torch
from plain_logs import begin, train_row, train_rows

from mpiadv.runlog import read_table
from mpiadv.session.safekeeping import Safekeeping, Snapshot
from mpiadv.storage.checkpoint import load_newest
from mpiadv.storage.run_folder import RunFolder


class Bench:
    """A run without training: steps of which only the log and the checkpoints tell."""

    def __init__(self, path: Path) -> None:
        self.folder = RunFolder(path, resume=False)
        self.log = begin(self.folder.log, flush_seconds=1000.0)
        self.said: list[str] = []
        self.step = 0
        self.kept = Safekeeping(
            log=self.log, folder=self.folder, keep=2, say=self.said.append, deadline_seconds=20.0
        )

    def train(self, num_steps: int) -> None:
        for _ in range(num_steps):
            self.log.train(train_row(self.step))
            self.step += 1
            self.kept.after_step(self.step)

    def snapshot(self) -> Snapshot:
        return {"step": self.step, "weights": torch.full((50_000,), float(self.step))}, lambda: None

    def save(self) -> None:
        self.kept.save(self.step, self.snapshot)

    def saved(self) -> int:
        self.save()
        self.kept.settle(self.step)
        return self.newest()

    def newest(self) -> int:
        checkpoint = load_newest(self.folder.checkpoints)
        assert checkpoint is not None
        assert (checkpoint.payload["weights"] == checkpoint.step).all()
        return checkpoint.step

    def flushed(self, num_steps: int) -> None:
        """As `train`, with the rows in the log: the first ones have made it a new file."""
        self.train(num_steps)
        self.log.flush()

    def rows(self) -> int:
        rows = read_table(self.folder.log, "train")
        assert (rows == train_rows(0, len(rows))).all()
        return len(rows)

    def events(self, kind: str) -> list[str]:
        events = read_table(self.folder.log, "events")
        return [event["text"].decode() for event in events if event["kind"] == kind.encode()]

    def close(self) -> None:
        self.kept.close()
        self.folder.close()
