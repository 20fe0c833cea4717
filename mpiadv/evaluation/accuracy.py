"""Natural and adversarial accuracy on test images. Knows no communicator: the caller adds shares.

Images are shared out in batches, and each batch draws its random start from its own seed, so the
result is the same for any number of ranks.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpiadv.attacks import Attack
from mpiadv.attacks.attack import do_nothing
from mpiadv.contract.tickets import Purpose, choose_samples, pass_seed, seed_for
from mpiadv.data import Indices, Source
from mpiadv.evaluation.crafting import JUDGING, Classifier, climbed
from mpiadv.models import device_of, evaluation_mode, parameters_frozen
from mpiadv.models.random_streams import streams_kept
from mpiadv.settings import Precision

COLUMNS = (
    "num_samples",
    "natural_correct",
    "adversarial_correct",
    "natural_loss_sum",
    "adversarial_loss_sum",
)
"""What the columns of `Counts.rows` hold."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Counts:
    """Sums per batch: `rows` is float64 [num_batches, 5], see `COLUMNS`.

    Accuracies are in percent; losses are the mean cross-entropy.

    A rank fills the rows of its own batches and leaves the others zero. So adding the rows of all
    ranks, in any order, is exact, and sums over batches are taken in the same order for any number
    of ranks.
    """

    rows: npt.NDArray[np.float64]

    @property
    def num_samples(self) -> int:
        return int(self._total("num_samples"))

    @property
    def natural_accuracy(self) -> float:
        return 100 * self._total("natural_correct") / self.num_samples

    @property
    def adversarial_accuracy(self) -> float:
        return 100 * self._total("adversarial_correct") / self.num_samples

    @property
    def natural_loss(self) -> float:
        return self._total("natural_loss_sum") / self.num_samples

    @property
    def adversarial_loss(self) -> float:
        return self._total("adversarial_loss_sum") / self.num_samples

    def _total(self, column: str) -> float:
        return float(self.rows[:, COLUMNS.index(column)].sum())


def tell_nobody(done: int, of: int) -> None:
    """What an evaluation tells that nobody follows."""


def evaluate(
    models: Sequence[nn.Module],
    source: Source,
    attack: Attack,
    *,
    seed: int,
    num_samples: int,
    batch_size: int,
    precision: Precision,
    crafted_on: nn.Module | None = None,
    share: tuple[int, int] = (0, 1),
    between_steps: Callable[[], None] = do_nothing,
    after_batch: Callable[[int, int], None] = tell_nobody,
) -> list[Counts]:
    """One rank's share of the accuracy and loss of each model on `num_samples` images of `source`.

    Which they are is up to `choose_samples`. All models are on one device; they are attacked and
    judged in evaluation mode, and left as they were.

    Args:
        crafted_on: the model that is attacked; None: the first one.
        share: (rank, size); rank takes the batches rank, rank + size, ...
        between_steps: called after each attack step, to keep messages moving.
        after_batch: told how many of the share's batches are done, and how many there are.

    Returns:
        Counts with the rows of this rank's batches; add those of the other ranks before reading.
    """
    rank, size = share
    batches = numbered_batches(source, num_samples, batch_size)
    rows = np.zeros((len(models), len(batches), len(COLUMNS)))
    attacked, *judges = (
        Classifier(model=model, precision=precision) for model in (crafted_on or models[0], *models)
    )
    with ExitStack() as stack:
        for classifier in (attacked, *judges):
            stack.enter_context(frozen(classifier.model))
        own_batches = range(rank, len(batches), size)
        for done, number in enumerate(own_batches, start=1):
            images, labels = load_batch(source, batches[number], attacked.model)
            own = seed_for(seed, Purpose.EVALUATION, number)
            adversarial = climbed(
                attacked, attack, images, labels, seed=own, between_steps=between_steps
            )
            for place, judge in enumerate(judges):
                rows[place, number] = _count(judge, images, adversarial, labels, own)
            after_batch(done, len(own_batches))
    return [Counts(rows=each) for each in rows]


def attack_images(
    model: nn.Module,
    source: Source,
    attack: Attack,
    indices: Indices,
    *,
    seed: int,
    precision: Precision,
    between_steps: Callable[[], None] = do_nothing,
) -> Tensor:
    """The images of `source` at `indices` under attack: float32 [N, C, H, W] in [0, 1], on the CPU.

    The start is the same every time, so two snapshots of the same images differ by the model alone
    (Bhat et al. 2019, figure 6). The model is attacked in evaluation mode and left as it was.
    """
    with frozen(model):
        images, labels = load_batch(source, indices, model)
        own = seed_for(seed, Purpose.SNAPSHOT)
        classifier = Classifier(model=model, precision=precision)
        return climbed(
            classifier, attack, images, labels, seed=own, between_steps=between_steps
        ).cpu()


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode, its parameters without gradients.

    Afterwards it is as it was, and so are the global random streams.
    """
    with evaluation_mode(model), parameters_frozen(model), streams_kept(device_of(model)):
        yield


def numbered_batches(source: Source, num_samples: int, batch_size: int) -> list[Indices]:
    """The indices of `num_samples` images that stand for all, batch by batch: int64 [N] each."""
    indices = choose_samples(source.num_samples, num_samples)
    return [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)]


def load_batch(source: Source, indices: Indices, model: nn.Module) -> tuple[Tensor, Tensor]:
    """Images float32 [N, C, H, W] and labels int64 [N] on the device of the model."""
    images, labels = source.batch(indices)
    device = device_of(model)
    return images.to(device), labels.to(device)


@torch.no_grad()
def _count(
    judge: Classifier, images: Tensor, adversarial: Tensor, labels: Tensor, seed: int
) -> tuple[float, ...]:
    """A row of `Counts.rows`."""
    (natural_correct, natural_loss), (correct, loss) = (
        _score(judge.logits(each, seed=pass_seed(seed, number)), labels)
        for number, each in zip(JUDGING, (images, adversarial), strict=True)
    )
    return len(labels), natural_correct, correct, natural_loss, loss


def _score(logits: Tensor, labels: Tensor) -> tuple[int, float]:
    """How many are right, and the sum of their cross-entropy."""
    # argmax of NaN is a class like any other: a broken model must not score by it.
    right = (logits.argmax(dim=1) == labels) & ~logits.isnan().any(dim=1)
    loss = F.cross_entropy(logits, labels, reduction="none").double().sum()
    return int(right.sum()), float(loss)
