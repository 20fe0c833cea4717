"""Memory that is freed and taken again costs no page faults, unless somebody chose otherwise."""

import os
import platform
import subprocess
import sys

import pytest

TAKE_AND_FREE = """
import resource
from mpiadv.process.memory import keep_freed_memory
print(keep_freed_memory())

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def take_and_free():
    first, second = (byte * 16_000_000 for byte in (b"a", b"b"))

take_and_free()
before = faults()
for _ in range(20):
    take_and_free()
print(faults() - before)
"""
PAGES = 20 * 2 * 16_000_000 // 4096

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="the C library is not glibc"
)


def told(environment: dict[str, str]) -> tuple[str, int]:
    done = subprocess.run(
        [sys.executable, "-c", TAKE_AND_FREE], env={**os.environ, **environment},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    is_kept, faults = done.stdout.split()
    return is_kept, int(faults)


def test_memory_is_taken_again_without_page_faults() -> None:
    is_kept, faults = told({})
    assert is_kept == "True"
    assert faults < PAGES / 100


def test_choices_in_the_environment_are_left_alone() -> None:
    is_kept, faults = told({"MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_MMAP_THRESHOLD_": "65536"})
    assert is_kept == "False"
    assert faults > PAGES / 2
