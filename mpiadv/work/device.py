"""The device of a rank: which one, its host buffers, and whether it is still busy."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Literal

import torch
from torch.utils import deterministic

from mpiadv.comm.links import plain_memory
from mpiadv.comm.messages import Bytes
from mpiadv.process.errors import UserError
from mpiadv.settings import Precision

IsComplete = Callable[[], bool]
"""Whether a copy that was begun is complete."""

_BFLOAT16 = ("avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16", "sve_bf16")
"""Torch's names of instructions that multiply bfloat16, or let oneDNN do it: x86, ARM."""

_FILLS = "fill_uninitialized_memory"
"""Torch's setting of whether memory that nobody has written is filled with NaN."""

_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


class Device:
    """A CPU or a GPU. On a GPU, host buffers are pinned and copies and kernels asynchronous."""

    def __init__(self, device: torch.device) -> None:
        self.torch = device
        self.is_cuda = device.type == "cuda"
        self._done = torch.cuda.Event() if self.is_cuda else None
        self._copies = torch.cuda.Stream(device) if self.is_cuda else None
        self._pinned: list[torch.Tensor] = []

    def allocate(self, num_bytes: int) -> Bytes:
        """A zeroed host buffer for messages, pinned where the device is a GPU."""
        if not self.is_cuda:
            return plain_memory(num_bytes)
        tensor = torch.zeros(num_bytes, dtype=torch.uint8, pin_memory=True)
        self._pinned.append(tensor)
        return tensor.numpy()

    def pin(self, memory: Bytes) -> None:
        """Pin memory that several ranks share, for good, where the device is a GPU.

        Where the driver refuses, copies are slower and just as right.
        """
        if not self.is_cuda:
            return
        self._pinned.append(torch.from_numpy(memory))  # unmapped, its address would stay pinned
        cudart = torch.cuda.cudart()
        refused = cudart.cudaHostRegister(memory.ctypes.data, memory.size, 0)
        if refused != cudart.cudaError.success:
            # The next kernel would fail of it: let that be this one.
            with suppress(RuntimeError):
                torch.zeros(1, device=self.torch)

    def mark(self) -> None:
        """Remember the work queued so far: `busy` asks about it."""
        if self._done is not None:
            self._done.record()

    def busy(self) -> bool:
        """Whether the work queued before the last `mark` is still running."""
        return self._done is not None and not self._done.query()

    @property
    def lacks_bfloat16(self) -> bool:
        """Whether float32 is faster than bfloat16 here, for want of instructions."""
        return not self.is_cuda and _lacks_bfloat16()

    def doubts_about(self, precision: Precision, setting: str) -> list[str]:
        """What to warn of where work of this precision, which `setting` chooses, is slow here."""
        if precision == "float32" or not self.lacks_bfloat16:
            return []
        return [
            "this processor has no instructions for bfloat16: float32 is several times faster here "
            f"({setting}=float32)"
        ]

    def generator(self, seed: int) -> torch.Generator:
        return torch.Generator(self.torch).manual_seed(seed)

    def upload(self, values: torch.Tensor) -> torch.Tensor:
        """A copy of a host tensor on the device; the original is free when this returns."""
        copied = torch.empty_like(values, device=self.torch)
        copied.copy_(values)
        return copied

    def copy_aside(self, source: torch.Tensor, target: Bytes) -> IsComplete:
        """Begin to copy a device tensor into a host buffer beside the computation."""
        host = torch.from_numpy(target)
        if self._copies is None:
            host.copy_(source)
            return lambda: True
        self._copies.wait_stream(torch.cuda.current_stream(self.torch))
        with torch.cuda.stream(self._copies):
            host.copy_(source, non_blocking=True)
            done = torch.cuda.Event()
            done.record()
        return done.query


def choose_device(wanted: Literal["auto", "cpu", "cuda"], local_rank: int) -> Device:
    """The rank's device: GPUs are handed out by local rank, and shared when there are too few.

    Raises:
        UserError: a GPU is wanted and none is visible.
    """
    num_gpus = torch.cuda.device_count() if wanted != "cpu" else 0
    if wanted == "cuda" and num_gpus == 0:
        raise UserError(
            "training.device=cuda, but no GPU is visible: use training.device=cpu, or check the "
            "driver and CUDA_VISIBLE_DEVICES"
        )
    if num_gpus == 0:
        return Device(torch.device("cpu"))
    device = torch.device("cuda", local_rank % num_gpus)
    torch.cuda.set_device(device)
    return Device(device)


def _lacks_bfloat16() -> bool:
    """Whether the processor is of a kind that may have instructions for bfloat16, and has none."""
    here = torch.cpu.get_capabilities()
    known = [here[name] for name in _BFLOAT16 if name in here]
    return bool(known) and not any(known)


def choose_threads(wanted: int | Literal["auto"], local_size: int) -> int:
    """CPU threads of this rank: its share of the cores that its node lets the job use."""
    if wanted != "auto":
        return wanted
    return max(1, len(os.sched_getaffinity(0)) // local_size)


@contextmanager
def settings_kept() -> Iterator[None]:
    """Torch's usual settings within; what is set in it is afterwards as it was."""
    cudnn = torch.backends.cudnn
    before = {name: getattr(cudnn, name) for name in ("benchmark", "allow_tf32")}
    precision, dtype = torch.get_float32_matmul_precision(), torch.get_default_dtype()
    threads, mode = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    fills = getattr(deterministic, _FILLS)
    device = torch.cuda.current_device() if torch.cuda.is_initialized() else None
    workspace = os.environ.get(_WORKSPACE)
    torch.set_default_dtype(torch.float32)
    try:
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast("cpu", enabled=False):
            yield
    finally:
        for name, value in before.items():
            setattr(cudnn, name, value)
        torch.set_float32_matmul_precision(precision)
        torch.set_default_dtype(dtype)
        torch.set_num_threads(threads)
        torch.set_deterministic_debug_mode(mode)
        setattr(deterministic, _FILLS, fills)
        if device is not None:
            torch.cuda.set_device(device)
        if workspace is None:
            os.environ.pop(_WORKSPACE, None)


@contextmanager
def unwritten_memory_filled() -> Iterator[None]:
    """Have reads of memory that nobody has written give NaN, which costs a twentieth of all time.

    After `make_deterministic`.
    """
    before = getattr(deterministic, _FILLS)
    setattr(deterministic, _FILLS, True)
    try:
        yield
    finally:
        setattr(deterministic, _FILLS, before)


def make_deterministic(num_threads: int) -> None:
    """Have torch compute the same bits every time, with so many threads."""
    os.environ.setdefault(_WORKSPACE, ":4096:8")
    torch.set_num_threads(num_threads)
    # As use_deterministic_algorithms(True), which first imports torch's compiler, for seconds.
    torch.set_deterministic_debug_mode("error")
    setattr(deterministic, _FILLS, False)  # a trial of the model finds who reads it
    torch.backends.cudnn.benchmark = False
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
