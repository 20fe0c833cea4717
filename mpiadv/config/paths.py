"""Folders that settings name. `data.root` is seen to where the data are: code may take it as is."""

import os


def at_home(path: str) -> str:
    """`path` with a home in the place of `~`, which no shell puts behind `output=`."""
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        raise ValueError(f"output={path}: nobody knows whose home that is: write it in full")
    return expanded
