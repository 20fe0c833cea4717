"""Crafting beside other libraries: `python benchmarks/crafting.py`. README.md shows results.

PGD on one network with the same images, steps and threads, turn about in one process. Others attack
MNIST's network as it is published, ours the same function as `model.name=mnist` computes it.
torchattacks, foolbox and ART take part where they are installed: `pip install foolbox
adversarial-robustness-toolbox && pip install --no-deps torchattacks`, as torchattacks asks for an
older `requests`. The networks have learnt MNIST for a moment, so that what attacks find can be
compared; PreActResNet-18 sees it on 32 x 32 pixels of three colours.
"""

import argparse
import sys
import time
from collections.abc import Mapping
from statistics import median
from typing import Any

import torch
from crafters import NUM_STEPS, TASKS, Craft, Task, network, others, ours
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from mpiadv.data import load_data
from mpiadv.process.errors import UserError
from mpiadv.settings import DataConfig
from mpiadv.work.device import choose_device, make_deterministic

MATRIX = 2048
"""Rows and columns of the matrices whose product tells what a core can do."""

MOST = 1024
"""Threads, and batches of each."""


def main() -> int:
    """Measure what the command line asks for and print it."""
    options = _parser().parse_args()
    make_deterministic(options.threads)
    try:
        device = choose_device(options.device, 0)
        if device.lacks_bfloat16:
            print("this processor has no instructions for bfloat16\n")
        images = load_data(DataConfig(name="mnist", root=options.root)).train
        told = [line for name in options.networks
                for line in measure(TASKS[name], images, device.torch, options)]  # fmt: skip
    except UserError as error:
        print(f"crafting.py: {error}", file=sys.stderr)
        return 2
    print("\n".join(told))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Measure how fast batches are crafted, here and by other libraries.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--root", default="data", help="the folder of MNIST/raw")
    add("--networks", nargs="+", choices=TASKS, default=list(TASKS))
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--threads", type=_positive, default=1)
    add("--repeats", type=_positive, default=5, help="batches of each, turn about")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MOST:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from 1 to {MOST}")
    return int(text)


def measure(task: Task, source: Any, device: torch.device, options: Any) -> list[str]:
    """Print a network's table; returns a line for each of our precisions."""
    images, labels = _shown(task, source, device)
    weights = _taught(task, images, labels, device)
    contenders = {**others(task, weights, device), **ours(task, weights, images, labels, device)}
    rates = _rates(contenders, images, labels, task.batch_size, options.repeats)
    judge = network(task.build, weights, device)
    flops = _flops_of_an_image(task, images, labels, judge)
    peaks = {each: _peak(each, device) for each in ("float32", "bfloat16")}
    print(
        f"{task.name}, PGD-{NUM_STEPS}, batches of {task.batch_size}, {options.threads} thread(s), "
        f"{flops * NUM_STEPS / 1e9:.2f} GFLOP an image; products of matrices: "
        f"{peaks['float32']:.0f} GFLOP/s in float32, {peaks['bfloat16']:.0f} in bfloat16\n"
    )
    unit = "processor second" if device.type == "cpu" else "second"
    print(f"| | images per {unit} | of plain torch | of matrix products' rate, % | accuracy, % |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, craft in contenders.items():
        peak = peaks["bfloat16" if "bfloat16" in name else "float32"]
        share = rates[name] * flops * NUM_STEPS / 1e9 / peak
        found = _accuracy(judge, craft, images, labels, task)
        print(f"| {name} | {rates[name]:.3g} | {rates[name] / rates['plain torch']:.2f} | "
              f"{100 * share:.0f} | {found:.2f} |", flush=True)  # fmt: skip
    print()
    return [_line(task, precision, rates) for precision in peaks]


def _line(task: Task, precision: str, rates: Mapping[str, float]) -> str:
    own = rates[f"mpiadv {precision}"]
    told = (f"{own / rates[other]:.2f} times {other}"
            for other in rates if not other.startswith("mpiadv"))  # fmt: skip
    return f"{task.name} {precision}: {', '.join(told)}"


def _shown(task: Task, source: Any, device: torch.device) -> tuple[Tensor, Tensor]:
    """So many images of MNIST, as large and in as many colours as the network takes."""
    images, labels = source.batch(range(task.num_images))
    margin = (task.shape[1] - images.shape[2]) // 2
    images = functional.pad(images, [margin] * 4).expand(-1, task.shape[0], -1, -1).contiguous()
    return images.to(device), labels.to(device)


def _taught(task: Task, images: Tensor, labels: Tensor, device: torch.device) -> Mapping[str, Any]:
    """The weights after some steps on natural images, a little noise on them."""
    model = task.build().to(device).train()
    optimizer = torch.optim.Adam(model.parameters())
    torch.manual_seed(0)
    for lesson in range(task.lessons):
        rows = torch.arange(lesson * 64, (lesson + 1) * 64, device=device) % len(images)
        noisy = images[rows] + 0.1 * torch.randn_like(images[rows])
        optimizer.zero_grad()
        functional.cross_entropy(model(noisy), labels[rows]).backward()
        optimizer.step()
    return model.state_dict()


def _rates(
    contenders: Mapping[str, Craft], images: Tensor, labels: Tensor, batch_size: int, repeats: int
) -> dict[str, float]:
    """Images per second, as `_now` counts, of each: by the median of its batches but the first."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for repeat in range(repeats + 1):
        number = repeat % (len(images) // batch_size)
        rows = slice(number * batch_size, (number + 1) * batch_size)
        for name, craft in contenders.items():
            began = _now(images.device)
            craft(number, images[rows], labels[rows])
            if repeat:
                seconds[name].append(_now(images.device) - began)
    return {name: batch_size / median(taken) for name, taken in seconds.items()}


def _now(device: torch.device) -> float:
    """Processor seconds of this process, or on a GPU seconds, all that was queued being done."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def _flops_of_an_image(task: Task, images: Tensor, labels: Tensor, model: nn.Module) -> float:
    """Floating-point operations of one attack step on one image."""
    few = images[:4].detach().requires_grad_()
    with FlopCounterMode(display=False) as counter:
        functional.cross_entropy(model(few), labels[:4]).backward()
    return float(counter.get_total_flops() / len(few))


def _peak(dtype: str, device: torch.device) -> float:
    """GFLOP/s in products of matrices, the best of a few."""
    one, other = (
        torch.rand(MATRIX, MATRIX, device=device).to(getattr(torch, dtype)) for _ in range(2)
    )
    taken = []
    for _ in range(6):
        began = _now(device)
        one @ other
        taken.append(_now(device) - began)
    return float(2 * MATRIX**3 / min(taken) / 1e9)


@torch.no_grad()
def _accuracy(judge: nn.Module, craft: Craft, images: Tensor, labels: Tensor, task: Task) -> float:
    """Percent of the images that the network still sees right after the attack."""
    batches = zip(images.split(task.batch_size), labels.split(task.batch_size), strict=True)
    right = 0
    for number, (pixels, truth) in enumerate(batches):
        with torch.enable_grad():
            adversarial = craft(number, pixels, truth)
        right += int((judge(adversarial).argmax(dim=1) == truth).sum())
    return 100 * right / len(images)


if __name__ == "__main__":
    sys.exit(main())
