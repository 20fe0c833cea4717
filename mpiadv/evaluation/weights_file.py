"""A file of weights, read without running anything that it may hold. Knows no model."""

import pickle
import re
import warnings
from pathlib import Path

import torch

from mpiadv.process.errors import UserError

_OBJECTS = re.compile(r"Unsupported (global|class)|TorchScript", re.IGNORECASE)
"""How torch refuses to unpickle what is neither a tensor nor a plain value."""


def read_weights_file(path: Path) -> object:
    """What torch.save has put into a file, tensors on the CPU.

    Raises:
        UserError: it cannot be read, is damaged, or holds objects, as a whole pickled model.
    """
    try:
        if _is_safetensors(path):
            raise UserError(
                f"{path} is a file of safetensors: load it and keep it by torch, as in "
                "torch.save(safetensors.torch.load_file(PATH), 'weights.pt')"
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # our own line says what is wrong
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())
        if not re.search("[A-Za-z]", reason):
            reason = "it has no form that torch knows"
        if _OBJECTS.search(reason):
            raise UserError(
                f"{path} holds more than numbers, as torch.save(model) does, and code is not taken "
                "from files: save its state_dict, torch.save(model.state_dict(), 'weights.pt')"
            ) from None
        raise UserError(f"{path} is damaged, or no file of weights: {reason[:200]}") from None


def _is_safetensors(path: Path) -> bool:
    """Whether a file begins as that format has it: a length, then so many bytes of JSON."""
    with path.open("rb") as file:
        head = file.read(9)
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size
