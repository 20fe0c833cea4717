"""Which samples a configuration names, and how they come in batches. Knows no model."""

from collections.abc import Callable

from mpiadv.data.augmentation import augment
from mpiadv.data.checks import require_augmentable, require_padding
from mpiadv.data.digits import load_digits
from mpiadv.data.doubts import doubts_about, split_line
from mpiadv.data.held_out import hold_out
from mpiadv.data.image_folder import load_image_folder
from mpiadv.data.public_sets import TORCHVISION_NAMES, is_missing, load_public_set
from mpiadv.data.read_ahead import ReadAhead
from mpiadv.data.source import DataSet, Indices, Source
from mpiadv.data.user import load_user_set
from mpiadv.settings import DataConfig
from mpiadv.settings.registry import find_registered, is_dotted

__all__ = [
    "DataSet",
    "Indices",
    "ReadAhead",
    "Source",
    "augment",
    "doubts_about",
    "load_data",
    "may_download",
    "split_line",
]

REGISTERED: dict[str, Callable[[DataConfig], DataSet]] = {
    "digits": load_digits,
    "image_folder": load_image_folder,
    **dict.fromkeys(TORCHVISION_NAMES, load_public_set),
}


def load_data(config: DataConfig) -> DataSet:
    """The training and test samples of a configuration, on the CPU, in an order that never changes.

    Raises:
        UserError: no such data set, files that are missing or damaged, samples that are not images
            in [0, 1] with labels among the classes, crops that may miss the images;
            or as `hold_out`.
    """
    if is_dotted(config.name):
        data = load_user_set(config)
    else:
        data = find_registered("data set", config.name, REGISTERED)(config)
    require_padding(config, data.image_shape)
    require_augmentable(config, data.image_shape)
    return hold_out(data, config)


def may_download(config: DataConfig) -> bool:
    """Whether loading may write files, so that one rank of a host has to do it before the others.

    Nobody knows what a user's function does.

    Raises:
        UserError: `data.root` cannot hold a data set.
    """
    if config.name in TORCHVISION_NAMES:
        return is_missing(config)
    return is_dotted(config.name)
