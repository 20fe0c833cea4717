"""A run on one rank, in this process, without MPI."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mpiadv.comm.messages import Stop
from mpiadv.comm.world import World
from mpiadv.library.logs import RunLog, read_found
from mpiadv.models.random_streams import streams_kept
from mpiadv.process.errors import UnreadableError, UserError, shown
from mpiadv.process.interruption import Interruption
from mpiadv.report.reading import find_log
from mpiadv.runlog.rows import TEST
from mpiadv.session.run import carry_out
from mpiadv.settings import Config
from mpiadv.storage.run_folder import RAW
from mpiadv.work.device import settings_kept


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """A finished run; accuracies and hash are of the weights as trained, not of their average.

    Attributes:
        folder: with the log, the checkpoints and the model: `load_model` and `read_log` take it.
        num_steps: training steps done.
        natural_accuracy: on the test images of the evaluation at the end, 0 to 1.
        adversarial_accuracy: on the same images under PGD, 0 to 1.
        hash: of the model; the same bits have the same hash.
    """

    folder: Path
    num_steps: int
    natural_accuracy: float
    adversarial_accuracy: float
    hash: str


def train(config: Config, *, resume: bool = False) -> TrainedRun:
    """Train as `mpiadv CONFIG` does on one rank: the same bits, the same files in `config.output`.

    Global settings and random streams of torch, NumPy and Python are afterwards as they were. In
    the main thread the first Ctrl-C ends the run after its step, with a checkpoint; a second one
    ends it at once.

    Args:
        config: from `load_config`.
        resume: go on from the newest checkpoint in the folder, if there is one.

    Raises:
        UserError: the input is bad, or the folder holds a run and `resume` is false.
        UnreadableError: samples could not be read for a while.
        NonFiniteLossError: the loss is not a number any more.
        OverfittingError: the guard has ended the run, as `guard.action=stop` asks for.
        StorageError: the folder could not take the end of the run.
        KeyboardInterrupt: Ctrl-C; with `resume` the run goes on.
    """
    if not isinstance(config, Config):
        raise UserError(f"config={shown(config)}: expected a Config, as load_config gives")
    world = World()
    world.meet()
    is_on_gpu = config.training.device != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda:0" if is_on_gpu else "cpu")  # the first one, as rank 0's
    with _asked_by_ctrl_c() as interruption, settings_kept(), streams_kept(device):
        end = carry_out(world, config, resume, interruption)
    # Where it goes on from what was there, it may have been finished before, its log in any state.
    is_written_here = end is Stop.FINISHED and not resume
    log = read_found(find_log(config.output), is_sound=is_written_here)
    if end is Stop.FINISHED:
        return _trained(log)
    if interruption.requested:
        raise KeyboardInterrupt("asked to end: train(config, resume=True) goes on")
    kind = UserError if end is Stop.REFUSED else UnreadableError
    raise kind(f"{_last_fault(log)}: put it right, then train(config, resume=True) goes on")


def _trained(log: RunLog) -> TrainedRun:
    is_raw, is_test = (
        np.isin(log.evaluation[name], (b"", usual.encode()))
        for name, usual in (("weights", RAW), ("images", TEST))
    )
    finals = log.evaluation[is_raw & is_test]
    if not len(finals) or not log.hash:
        raise UserError(
            f"{log.path} does not tell how its run ended: it is damaged; train anew with "
            "output=FOLDER, or evaluate the model beside it"
        )
    final = finals[-1]
    return TrainedRun(
        folder=log.path.parent,
        num_steps=int(final["step"]),
        natural_accuracy=float(final["natural_accuracy"]),
        adversarial_accuracy=float(final["adversarial_accuracy"]),
        hash=log.hash,
    )


def _last_fault(log: RunLog) -> str:
    faults = log.events[np.isin(log.events["kind"], [b"bad samples", b"failed"])]
    return faults[-1]["text"].decode(errors="replace") if len(faults) else "the run was stopped"


@contextmanager
def _asked_by_ctrl_c() -> Iterator[Interruption]:
    """Within it Ctrl-C is a request; other signals are the caller's own."""
    if threading.current_thread() is not threading.main_thread():
        yield Interruption(signals=())
        return
    before = signal.getsignal(signal.SIGINT)
    interruption = Interruption(signals=(signal.SIGINT,))
    interruption.listen()
    try:
        yield interruption
    finally:
        signal.signal(signal.SIGINT, before)
