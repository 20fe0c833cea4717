"""Where the files of a public data set are, and how they get there. Knows no format."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from textwrap import shorten

from mpiadv.process.errors import UserError
from mpiadv.settings import DataConfig

DEFAULT_ROOT = "data"

NETWORK_TIMEOUT_SECONDS = 30.0

LONGEST_REASON = 250
"""Characters of what a failed download says: some name every place that they tried."""


def root_of(config: DataConfig) -> Path:
    """The folder that holds, or receives, the files; absolute, so that errors can be acted on.

    Raises:
        UserError: it is a file, or nobody knows whose home `~` is.
    """
    try:
        root = Path(config.root or DEFAULT_ROOT).expanduser().absolute()
    except RuntimeError:
        raise UserError(
            f"data.root={config.root}: there is no such home: write it in full"
        ) from None
    if os.path.exists(root) and not os.path.isdir(root):
        raise UserError(
            f"data.root={config.root or DEFAULT_ROOT} is a file ({root}): name the folder that "
            f"holds the data set"
        )
    return root


def download(config: DataConfig, folder: Path, fetch: Callable[[], object]) -> None:
    """Fill `folder` by calling `fetch`.

    Raises:
        UserError: the configuration forbids it, or it fails.
    """
    missing = f"data set {config.name!r} is missing or incomplete in {folder}"
    tree = f"the folder that holds {folder.relative_to(root_of(config))}"
    if not config.download:
        raise UserError(
            f"{missing}: set data.root to {tree} (now {root_of(config)}), or allow the download "
            f"with data.download=true"
        )
    before = socket.getdefaulttimeout()
    # Without it a node whose firewall drops packets would wait for ever.
    socket.setdefaulttimeout(NETWORK_TIMEOUT_SECONDS)
    try:
        fetch()
    except Exception as error:
        reason = shorten(f"{type(error).__name__}: {error}", LONGEST_REASON, placeholder=" ...")
        raise UserError(
            f"{missing}: copy its files there, or set data.root to {tree} (now "
            f"{root_of(config)}), as it cannot be downloaded ({reason})"
        ) from error
    finally:
        socket.setdefaulttimeout(before)
