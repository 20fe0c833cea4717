"""Stand-ins for what the command line starts."""

import sys
from collections.abc import Sequence
from functools import partial
from types import SimpleNamespace

import pytest

from mpiadv.command_lines.launch import Launch
from mpiadv.commands import alone
from mpiadv.process.interruption import SignalRelay

PROGRAMS = ("evaluate", "plan", "train")
ALONE = ("report", "study", "submit", "watch")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, object]]:
    """What the programs and the launcher were called with; all return 75."""
    seen: list[tuple[str, object]] = []

    def launch(wanted: Launch, relay: SignalRelay) -> int:
        seen.append(("launch", (wanted.ranks, list(wanted.words), wanted.is_fault_tolerant)))
        return 75

    def program(name: str, argv: Sequence[str]) -> int:
        seen.append((name, list(argv)))
        return 75

    def command(name: str, asked: object) -> int:
        seen.append((name, asked))
        return 75

    for name in PROGRAMS:
        stand_in = SimpleNamespace(main=partial(program, name))
        monkeypatch.setitem(sys.modules, f"mpiadv.commands.{name}", stand_in)
    for name in ALONE:
        monkeypatch.setattr(alone, name, partial(command, name))
    starter = SimpleNamespace(launch=launch, require_configuration=lambda wanted: None)
    monkeypatch.setitem(sys.modules, "mpiadv.cluster.launch", starter)
    return seen
