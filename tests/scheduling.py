"""Which tests run on the same of pytest-xdist's workers, one after the other."""

from typing import Any

from xdist.scheduler import LoadFileScheduling


class ByFileOrFolder(LoadFileScheduling):
    """Those of a file, and those of all files of one `folder`."""

    def __init__(self, *arguments: Any, folder: str) -> None:
        super().__init__(*arguments)
        self._folder = folder

    def _split_scope(self, nodeid: str) -> str:
        is_inside = nodeid.startswith(self._folder)
        return self._folder if is_inside else super()._split_scope(nodeid)
