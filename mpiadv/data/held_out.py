"""Training samples that nobody trains on. Knows no particular data set."""

from dataclasses import replace

import numpy as np

from mpiadv.contract.tickets import choose_samples
from mpiadv.data.source import DataSet
from mpiadv.process.errors import UserError
from mpiadv.settings import DataConfig


def hold_out(data: DataSet, config: DataConfig) -> DataSet:
    """With so many of the training samples in a split of their own, by `choose_samples`.

    Raises:
        UserError: less than a batch would be left to train on.
    """
    wanted, num_samples = config.held_out_samples, data.train.num_samples
    if wanted is None:
        return data
    left = num_samples - wanted
    if left < min(config.batch_size, num_samples):
        raise UserError(
            f"data.held_out_samples={wanted} of {num_samples} training samples leaves "
            f"{max(0, left)} to train on, less than a batch of {config.batch_size}: use at most "
            f"{max(0, num_samples - config.batch_size)}"
        )
    held = choose_samples(num_samples, wanted)
    rest = np.setdiff1d(np.arange(num_samples), held)
    return replace(data, train=data.train.part(rest), held_out=data.train.part(np.sort(held)))
