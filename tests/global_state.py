"""What a process has one of, and code that others call must leave as it was."""

import random
import signal
from typing import Any

import numpy as np
import torch

FILLS = "fill_uninitialized_memory"


def state() -> list[Any]:
    """The settings and streams that belong to the whole process."""
    streams = [torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()]
    flags = [torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32]
    modes = [torch.get_num_threads(), torch.get_deterministic_debug_mode(), torch.is_grad_enabled()]
    modes += [torch.get_float32_matmul_precision(), str(torch.get_default_dtype())]
    modes += [getattr(torch.utils.deterministic, FILLS)]
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    return [*streams, *flags, *modes, *handlers]
