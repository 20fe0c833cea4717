"""In which layer a forward pass goes wrong. Knows no particular model and no training."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

Changed = Callable[[object], bool]
"""Whether something has gone wrong by now, asked with the output of the layer that has just run,
or before a layer runs, with its inputs."""


class Watch:
    """The layers that are running, outermost first, and the one that was found at fault."""

    def __init__(self, model: nn.Module, has_gone_wrong: Changed) -> None:
        self._names = {id(layer): name for name, layer in model.named_modules()}
        self._has_gone_wrong = has_gone_wrong
        self._running: list[nn.Module] = []
        self._found: nn.Module | None = None

    @property
    def place(self) -> str:
        """` in layer 'block.norm' (BatchNorm2d)`; nothing where it is the model's own code."""
        layer = self._found or (self._running[-1] if self._running else None)
        name = self._names.get(id(layer), "") if layer is not None else ""
        return f" in layer {name!r} ({type(layer).__name__})" if name else ""

    def enter(self, layer: nn.Module, inputs: object) -> None:
        """A layer begins; what has gone wrong by now is the doing of the one around it."""
        if self._running and self._found is None and self._has_gone_wrong(inputs):
            self._found = self._running[-1]
        self._running.append(layer)

    def leave(self, layer: nn.Module, inputs: object, output: object) -> None:
        """A layer has ended; the inner ones have ended before."""
        if self._found is None and self._has_gone_wrong(output):
            self._found = layer
        if self._running:
            self._running.pop()


@contextmanager
def watched(model: nn.Module, has_gone_wrong: Changed = lambda value: False) -> Iterator[Watch]:
    """Watch the layers of the forward passes made meanwhile; for a pass that fails, the last ones.

    All models are watched, not this one alone: nothing is changed in it.
    """
    watch = Watch(model, has_gone_wrong)

    with (
        register_module_forward_pre_hook(watch.enter),
        register_module_forward_hook(watch.leave),
    ):
        yield watch


def carries_no_gradient(value: object) -> bool:
    """Whether a layer's inputs or output hold tensors, none of which leads back to a gradient."""
    values = value if isinstance(value, tuple | list) else [value]
    tensors = [each for each in values if isinstance(each, Tensor)]
    return bool(tensors) and not any(tensor.requires_grad for tensor in tensors)
