"""Which tests run on the same of pytest-xdist's workers, one after the other."""

from xdist.scheduler import LoadFileScheduling

TOGETHER = "tests/whole/together/"
"""A folder whose files share what they start."""


class ByFile(LoadFileScheduling):
    """Those of a file, and those of all files of `TOGETHER`."""

    def _split_scope(self, nodeid: str) -> str:
        return TOGETHER if nodeid.startswith(TOGETHER) else super()._split_scope(nodeid)
