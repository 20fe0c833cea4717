"""What the trainer's rank finds on disk and goes on with: the folder, a checkpoint, the log."""

import os
import warnings
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from mpiadv.process.errors import UserError
from mpiadv.runlog import TRIAL, RunLog
from mpiadv.session.opening import attributes_of
from mpiadv.session.recorder import snapshot_shape
from mpiadv.session.safekeeping import reason_of
from mpiadv.session.same_run import require_same_log, require_same_run
from mpiadv.session.setup import Setup
from mpiadv.settings import Config
from mpiadv.storage.checkpoint import Checkpoint, load_newest, set_aside
from mpiadv.storage.run_folder import RunFolder
from mpiadv.storage.run_lock import LOCK_NAME


@dataclass(frozen=True, kw_only=True)
class Desk:
    """The trainer's folder, open, and the checkpoint to go on from.

    `is_new` tells whether the folder was made by this start.
    """

    folder: RunFolder
    checkpoint: Checkpoint | None
    resume: bool
    is_new: bool = False

    @property
    def first_step(self) -> int:
        """Training steps done before this start."""
        return self.checkpoint.step if self.checkpoint else 0


def open_desk(config: Config, *, resume: bool) -> Desk:
    """Open the run's folder and find the checkpoint.

    Raises:
        UserError: the folder cannot be used, or its checkpoint is damaged or of another run.
    """
    is_new = not os.path.exists(config.output)
    folder = RunFolder(config.output, resume=resume)
    try:
        checkpoint = load_newest(folder.checkpoints) if resume else None
        if checkpoint is not None:
            require_same_run(config, checkpoint, is_done=folder.is_done)
        elif folder.held_run:
            require_same_log(config, folder.log)
    except UserError:
        folder.close()
        raise
    return Desk(folder=folder, checkpoint=checkpoint, resume=resume, is_new=is_new)


def give_up(desk: Desk) -> None:
    """Close the folder of a run that cannot begin, and leave none where there was none."""
    folder = desk.folder.path
    desk.folder.close()
    with suppress(OSError):
        if desk.is_new and [path.name for path in folder.iterdir()] == [LOCK_NAME]:
            (folder / LOCK_NAME).unlink()
            folder.rmdir()


def set_damaged_aside(desk: Desk) -> list[str]:
    """Give damaged checkpoints other names; what people should know of that."""
    lines = []
    for path in desk.checkpoint.passed_over if desk.checkpoint else ():
        try:
            lines.append(f"warning: {path} is damaged: kept as {set_aside(path).name}")
        except OSError as error:
            lines.append(f"warning: {path} is damaged, and cannot be renamed ({reason_of(error)})")
    return lines


def resumed_from(desk: Desk) -> list[str]:
    """Where a run that was to go on begins."""
    if desk.checkpoint is not None:
        return [f"going on from {desk.checkpoint.path}"]
    if not desk.resume:
        return []
    return [f"there is no checkpoint in {desk.folder.checkpoints}: the run begins anew"]


def open_log(setup: Setup, desk: Desk) -> tuple[RunLog, list[str]]:
    """The log, and what people should know of it.

    Raises:
        UserError: it does not fit, or the disk does not take it.
    """
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            log = _begin_log(setup, desk)
    except OSError as error:
        raise UserError(
            f"{desk.folder.log} could not be written ({reason_of(error)}): free space, or whatever "
            "it takes, or choose another folder with output=FOLDER"
        ) from None
    finally:
        TRIAL.close()
    return log, [f"warning: {warning.message}" for warning in caught]


def _begin_log(setup: Setup, desk: Desk) -> RunLog:
    config = setup.config
    begin = RunLog.create
    if desk.folder.held_run:
        step = desk.checkpoint.step if desk.checkpoint else None
        begin = partial(RunLog.resume, step=step, num_steps=config.training.num_steps)
    return begin(
        desk.folder.log,
        attributes=attributes_of(setup),
        snapshot_shape=snapshot_shape(config, setup.data.test)
        if config.log.snapshot_every
        else None,
        flush_seconds=config.log.flush_seconds,
    )
