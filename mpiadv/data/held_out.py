"""Training samples that nobody trains on. Knows no particular data set."""

from dataclasses import replace

import numpy as np

from mpiadv.contract.tickets import choose_samples
from mpiadv.data.source import DataSet
from mpiadv.process.errors import UserError


def hold_out(data: DataSet, wanted: int | None) -> DataSet:
    """With so many of the training samples in a split of their own, by `choose_samples`.

    Raises:
        UserError: none would be left to train on.
    """
    if wanted is None:
        return data
    num_samples = data.train.num_samples
    if wanted >= num_samples:
        raise UserError(
            f"data.held_out_samples={wanted} of {num_samples} training samples leaves none to "
            f"train on: use less than {num_samples}"
        )
    held = choose_samples(num_samples, wanted)
    rest = np.setdiff1d(np.arange(num_samples), held)
    return replace(data, train=data.train.part(rest), held_out=data.train.part(np.sort(held)))
