"""The global random streams, which a user's model draws from. Knows no model.

They are seeded before it is built and before every forward pass. So it is, on every pass, a
function of the seed alone, and not of the rank that happens to run it or of what that ran before.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def seed_streams(seed: int, device: torch.device) -> None:
    """Seed the global random streams: torch's, on the CPU and on `device`, numpy's and Python's."""
    # torch.manual_seed would reseed other GPUs too, and takes milliseconds where there are none.
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def stream_states(device: torch.device) -> tuple[object, ...]:
    """Where all those streams are, to be compared: whoever draws from one moves it on."""
    on_device = torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.empty(0)
    of_torch = [bytes(torch.default_generator.get_state().tolist()), bytes(on_device.tolist())]
    of_numpy = np.random.get_state(legacy=False)
    numbers = of_numpy["state"]["key"].tobytes(), of_numpy["state"]["pos"], of_numpy["has_gauss"]
    return *of_torch, *numbers, random.getstate()


@contextmanager
def streams_kept(device: torch.device) -> Iterator[None]:
    """All those streams go on afterwards as if nothing had been drawn or seeded meanwhile."""
    of_numpy, of_python = np.random.get_state(), random.getstate()
    try:
        with torch_streams_kept(device):
            yield
    finally:
        np.random.set_state(of_numpy)
        random.setstate(of_python)


@contextmanager
def torch_streams_kept(device: torch.device) -> Iterator[None]:
    """As `streams_kept`, for torch's alone: quick enough for every query of an attack."""
    # Faster by far than torch.random.fork_rng.
    host = torch.default_generator.get_state()
    on_device = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    try:
        yield
    finally:
        torch.default_generator.set_state(host)
        if on_device is not None:
            torch.cuda.set_rng_state(on_device, device)
