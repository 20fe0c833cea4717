"""What the tests of safekeeping have in common."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safekeeping_bench import Bench

from mpiadv.session import safekeeping
from mpiadv.storage.checkpoint import save_checkpoint


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    opened = Bench(tmp_path / "run")
    yield opened
    opened.close()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Checkpoints are written only while this is set."""
    opened = threading.Event()

    def save_when_open(*arguments: Any, **options: Any) -> Path:
        assert opened.wait(20)
        return save_checkpoint(*arguments, **options)

    monkeypatch.setattr(safekeeping, "save_checkpoint", save_when_open)
    yield opened
    opened.set()
