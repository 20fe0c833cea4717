"""Functions on a model as CUDA graphs: captured once, and launched as one piece from then on.

A replay launches the kernels that were captured, in their order and on the same addresses, so it
computes the bits that the function would: each graph has to prove it before it is used. Knows no
attack and no training step.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from mpiadv.models import device_of
from mpiadv.models.execution import Executor, Name, Results, eagerly
from mpiadv.models.flat import named_tensors
from mpiadv.models.random_streams import stream_states
from mpiadv.process.errors import origin_of
from mpiadv.work.device import Device

WARM_UP = 3
"""So often a function runs as it is before it is captured: libraries load in its first calls."""

MOST_GRAPHS = 8
"""Of one model: their inputs and outputs stay on the device. A usual run has two."""

Function = Callable[..., Results]


class Capture(Protocol):
    """What captures: a GPU, or what stands in its place in tests."""

    def aside(self) -> AbstractContextManager[None]:
        """Work within is on the stream of captures: after all before it, and before all after."""

    def capture(self, function: Callable[[], Results]) -> tuple[Results, Callable[[], None]]:
        """Where a function's results will lie, and what computes them there; to be called `aside`.

        The function is called, and nothing is computed.

        Raises:
            Exception: of any kind, if it cannot be captured.
        """


def choose_executor(
    wanted: bool, model: nn.Module, device: Device, tell: Callable[[str], None]
) -> Executor:
    """How functions on `model` are run: as graphs where that is wanted, and the device a GPU."""
    return Graphs(model, CudaCapture(device.torch), tell) if wanted and device.is_cuda else eagerly


class Graphs:
    """An `Executor` that captures each function once and replays it from then on.

    A function runs as it is for `WARM_UP` calls. So it does in the next one, after which it is
    captured. Where that cannot be done, or a replay gives other bits than that call, it runs as it
    is for good, and `tell` hears why.
    """

    def __init__(self, model: nn.Module, capture: Capture, tell: Callable[[str], None]) -> None:
        self._model = model
        self._capture = capture
        self._tell = tell
        self._known: list[_Known] = []
        self._turned_away = False

    def __call__(self, name: Name, function: Function, *inputs: Tensor) -> Results:
        known = self._find(name, inputs)
        if known is None or known.is_refused:
            return function(*inputs)
        if known.replay is not None:
            return known.replay(*inputs)
        with self._capture.aside():
            known.calls += 1
            if known.calls <= WARM_UP:
                return function(*inputs)
            return self._run_and_capture(known, function, inputs)

    def _find(self, name: Name, inputs: Sequence[Tensor]) -> "_Known | None":
        """What is known of a function with such inputs; None where there is no room for it."""
        key = (*name, *((each.shape, each.stride(), each.dtype) for each in inputs))
        # Compared one by one: the parts of a user's attack need not be hashable.
        for known in self._known:
            if known.key == key:
                return known
        if len(self._known) < MOST_GRAPHS:
            self._known.append(_Known(key=key))
            return self._known[-1]
        if not self._turned_away:
            self._turned_away = True
            self._tell(_refusal(name, f"there are {MOST_GRAPHS} others, of other parts or shapes"))
        return None

    def _run_and_capture(
        self, known: "_Known", function: Function, inputs: Sequence[Tensor]
    ) -> Results:
        before = _State(self._model)
        results = function(*inputs)
        try:
            known.replay = self._proven(before, function, inputs, results)
        except Exception as error:
            known.is_refused = True
            reason = str(error) if isinstance(error, _RefusedError) else origin_of(error)
            self._tell(_refusal(known.key, reason))
        return results

    def _proven(
        self, before: "_State", function: Function, inputs: Sequence[Tensor], results: Results
    ) -> "_Replay":
        """The function as a graph that has given its `results` once more.

        Raises:
            Exception: of any kind: it cannot be captured, or gives other bits.
        """
        after = _State(self._model)
        if after.streams != before.streams:
            raise _RefusedError("it draws at random")
        # A graph would go on with the old ones. And what is computed in a capture has no values.
        if after.places != before.places:
            raise _RefusedError(
                "it replaces parameters or buffers instead of changing their values"
            )
        own = [given.clone() for given in inputs]
        outputs, launch = self._capture.capture(lambda: function(*own))
        replay = _Replay(inputs=own, outputs=outputs, launch=launch)
        before.restore()
        again = [*replay(*inputs), *_State(self._model).values]
        is_same = _same_bits(again, [*results, *after.values])
        after.restore()
        if not is_same:
            raise _RefusedError("a replay gives other bits")
        return replay


@dataclass(kw_only=True)
class _Known:
    """A function, by its name and the layout of its inputs."""

    key: tuple[object, ...]
    calls: int = 0
    replay: "_Replay | None" = None
    is_refused: bool = False


@dataclass(kw_only=True)
class _Replay:
    """A captured function, and where its inputs and outputs lie."""

    inputs: Sequence[Tensor]
    outputs: Results
    launch: Callable[[], None]

    def __call__(self, *inputs: Tensor) -> Results:
        for own, given in zip(self.inputs, inputs, strict=True):
            own.copy_(given)
        self.launch()
        # The next launch writes over the outputs.
        return [None if each is None else each.clone() for each in self.outputs]


class _RefusedError(Exception):
    """A function is none that a graph could stand for; the text says why."""


class _State:
    """What a function may read beside its inputs, as it is at one moment."""

    def __init__(self, model: nn.Module) -> None:
        self._tensors = [tensor for _, tensor in named_tensors(model)]  # so none takes their place
        self.places = [tensor.data_ptr() for tensor in self._tensors]
        self._buffers = list(model.buffers())
        self.values = [buffer.detach().clone() for buffer in self._buffers]
        self.streams = stream_states(device_of(model))

    @torch.no_grad()
    def restore(self) -> None:
        """Give the buffers the values of that moment."""
        for buffer, value in zip(self._buffers, self.values, strict=True):
            buffer.copy_(value)


def _same_bits(some: Results, others: Results) -> bool:
    return all(_is_same(*pair) for pair in zip(some, others, strict=True))


def _is_same(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    # NaN is no reason to refuse: it has to come through as it would.
    return torch.equal(*(each.reshape(-1).view(torch.uint8) for each in (one, other)))


def _refusal(name: Name, reason: str) -> str:
    return f"{name[0]} runs as without training.cuda_graphs: {reason}"


class CudaCapture:
    """Captures on a stream of its own, with memory from a pool of its own. Needs a GPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """See `Capture.aside`."""
        usual = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(usual)
        try:
            with torch.cuda.stream(self._stream):
                yield
        finally:
            usual.wait_stream(self._stream)

    def capture(self, function: Callable[[], Results]) -> tuple[Results, Callable[[], None]]:
        """See `Capture.capture`."""
        graph = torch.cuda.CUDAGraph()
        try:
            # Graphs share the pool in whatever order they are replayed: none reads what another
            # has left there. Other threads go on with images and checkpoints meanwhile.
            with torch.cuda.graph(
                graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
            ):
                outputs = function()
        except Exception:
            # That pool may still be open for the capture that failed.
            self._pool = torch.cuda.graph_pool_handle()
            raise
        return outputs, graph.replay
