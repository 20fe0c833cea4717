"""Which samples a configuration names, and how they come in batches. Knows no model."""

from collections.abc import Callable

from mpiadv.config import DataConfig
from mpiadv.data.augmentation import augment
from mpiadv.data.cifar10 import load_cifar10
from mpiadv.data.digits import load_digits
from mpiadv.data.image_folder import load_image_folder
from mpiadv.data.mnist import load_fashion_mnist, load_mnist
from mpiadv.data.source import DataSet, Indices, Source
from mpiadv.data.user import load_user_set
from mpiadv.registry import find_registered, is_dotted

__all__ = ["DataSet", "Indices", "Source", "augment", "load_data"]

REGISTERED: dict[str, Callable[[DataConfig], DataSet]] = {
    "cifar10": load_cifar10,
    "digits": load_digits,
    "fashion_mnist": load_fashion_mnist,
    "image_folder": load_image_folder,
    "mnist": load_mnist,
}


def load_data(config: DataConfig) -> DataSet:
    """The training and test samples of a configuration, on the CPU, in an order that never changes.

    Raises:
        UserError: no such data set, files that are missing or damaged, samples that are not images
            in [0, 1] with labels among the classes.
    """
    if is_dotted(config.name):
        return load_user_set(config)
    return find_registered("data set", config.name, REGISTERED)(config)
