"""Benchmarks run and print their tables. How fast anything is, is not judged here."""

import importlib
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from mpi_runner import REPOSITORY, launcher_or_skip

from mpiadv.data.memory import MemorySource


def test_benchmark_prints_a_row_per_number_of_ranks_within_the_staleness_bounds() -> None:
    launcher_or_skip()
    words = (
        "--ranks 2 --repeats 1 --steps 8 --train-ms 1 --craft-ms 8 --parameters 1000 --slowness 4"
    )
    completed = subprocess.run(
        [sys.executable, str(REPOSITORY / "benchmarks" / "scaling.py"), *words.split()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert completed.returncode == 0, completed.stderr
    rows = [line.split() for line in completed.stdout.splitlines() if line.startswith("|     2")]
    assert len(rows) == 6, completed.stdout
    constant, refreshed = rows[0], rows[2]
    assert constant[-2] == "(16)"
    assert constant[5] == "1.25", "the second rank is a quarter as fast"
    assert refreshed[-2] == "(4)"


def test_crafting_benchmark_attacks_the_same_images_in_all_ways(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")
    crafting, crafters = map(importlib.import_module, ("crafting", "crafters"))
    monkeypatch.setattr(crafting, "MATRIX", 64)
    monkeypatch.setitem(sys.modules, "foolbox", None)
    task = replace(crafters.TASKS["mnist"], num_images=16, batch_size=8, lessons=1)
    source = MemorySource(torch.rand(16, 1, 28, 28), torch.arange(16) % 10)
    options = SimpleNamespace(repeats=1, threads=1)
    lines = crafting.measure(task, source, torch.device("cpu"), options)
    told = capsys.readouterr().out.splitlines()
    assert [line for line in told if line.startswith("foolbox")] == [
        "foolbox is left out: import of foolbox halted; None in sys.modules"
    ]
    rows = [line.split(" | ") for line in told if " | " in line]
    accuracies = {name.strip("| "): float(last.strip(" |")) for name, *_, last in rows[2:]}
    assert {"plain torch", "mpiadv float32", "mpiadv bfloat16, contiguous"} <= set(accuracies)
    assert max(accuracies.values()) - min(accuracies.values()) <= 100 / 16
    starts = ["mnist float32: ", "mnist bfloat16: "]
    assert [line[: len(start)] for line, start in zip(lines, starts, strict=True)] == starts
    assert all(" times plain torch" in line for line in lines)
