"""Draws a run's curves from its log: `python benchmarks/curves.py LOG PICTURE.png`.

Knows only the log: h5py and matplotlib are all it takes.
"""

import sys

import h5py
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt

SMOOTHED_STEPS = 100


def smoothed(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The mean over windows of `SMOOTHED_STEPS` steps, NaN left out: one value per window."""
    usable = values[: len(values) // SMOOTHED_STEPS * SMOOTHED_STEPS]
    return np.nanmean(usable.reshape(-1, SMOOTHED_STEPS), axis=1)


def draw(log_path: str, picture: str) -> None:
    """Loss, accuracy, staleness and where the trainer's time went, over training steps."""
    with h5py.File(log_path) as log:
        train, evaluation = log["train"][:], log["evaluation"][:]
    steps = (np.arange(len(train) // SMOOTHED_STEPS) + 0.5) * SMOOTHED_STEPS
    figure, ((loss, accuracy), (staleness, seconds)) = plt.subplots(2, 2, figsize=(11, 7))
    _draw_loss(loss, steps, train)
    _draw_accuracy(accuracy, steps, train, evaluation)
    for name in ("first", "last"):
        staleness.plot(
            steps, smoothed(train[f"{name}_staleness"].astype(float)), label=f"{name} attack step"
        )
    staleness.set(ylabel="staleness (training steps)", ylim=(0, None))
    _draw_seconds(seconds, steps, train)
    for axis in (loss, accuracy, staleness, seconds):
        axis.set_xlabel("training step")
        axis.grid(alpha=0.3)
        axis.legend()
    figure.suptitle(f"{len(train)} steps; curves are means over {SMOOTHED_STEPS} steps")
    figure.tight_layout()
    figure.savefig(picture, dpi=110)


def _draw_loss(axis: plt.Axes, steps: npt.NDArray[np.float64], train: np.ndarray) -> None:
    axis.plot(steps, smoothed(train["loss"]), label="adversarial training loss")
    axis.set(ylabel="cross-entropy")
    rate = axis.twinx()
    rate.plot(steps, smoothed(train["learning_rate"]), color="grey", linestyle=":")
    rate.set(ylabel="learning rate (dotted)")


def _draw_accuracy(
    axis: plt.Axes, steps: npt.NDArray[np.float64], train: np.ndarray, evaluation: np.ndarray
) -> None:
    for column, label, colour in (
        ("natural_accuracy", "natural", "tab:blue"),
        ("accuracy", "adversarial", "tab:red"),
    ):
        axis.plot(
            steps, 100 * smoothed(train[column]), color=colour, alpha=0.4,
            label=f"{label}, training batches",
        )  # fmt: skip
        tested = "natural_accuracy" if label == "natural" else "adversarial_accuracy"
        axis.plot(
            evaluation["step"], 100 * evaluation[tested], "o-", color=colour,
            label=f"{label}, test images",
        )  # fmt: skip
    axis.set(ylabel="accuracy (%)", ylim=(0, 100))


def _draw_seconds(axis: plt.Axes, steps: npt.NDArray[np.float64], train: np.ndarray) -> None:
    columns = {
        "train_seconds": "training",
        "own_craft_seconds": "crafting",
        "publish_seconds": "publishing",
        "wait_seconds": "waiting",
    }
    axis.stackplot(
        steps, [1e3 * smoothed(train[column]) for column in columns], labels=columns.values()
    )
    axis.set(ylabel="trainer's milliseconds per step")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python benchmarks/curves.py LOG PICTURE.png")
    draw(*sys.argv[1:])
