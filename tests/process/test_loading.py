"""What is loaded is not looked through for garbage, all else as ever."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from mpiadv.process.loading import keep_loaded, loading


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    """Python's collector as in a new process; at work afterwards."""
    _forget_what_is_kept()
    yield
    _forget_what_is_kept()
    gc.enable()


def _forget_what_is_kept() -> None:
    gc.unfreeze()
    keep_loaded.cache_clear()


class Ring:
    """What the collector alone can free."""

    def __init__(self) -> None:
        self.itself = self


def test_what_is_made_while_loading_is_kept_and_what_is_made_afterwards_is_not() -> None:
    with loading():
        assert not gc.isenabled()
        loaded = weakref.ref(Ring())
    assert gc.isenabled()
    made = weakref.ref(Ring())
    gc.collect()
    assert loaded() is not None
    assert made() is None


def test_what_is_loaded_later_is_looked_through() -> None:
    for _ in range(2):
        with loading():
            loaded = weakref.ref(Ring())
    gc.collect()
    assert loaded() is None


def test_failure_to_load_leaves_the_collector_at_work() -> None:
    with pytest.raises(ImportError), loading():
        raise ImportError
    assert gc.isenabled()


def test_collector_that_was_off_stays_off() -> None:
    gc.disable()
    with loading():
        pass
    assert not gc.isenabled()
