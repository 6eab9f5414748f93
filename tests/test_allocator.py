"""That a process which picks the processor gets freed memory back without asking the system for it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

PAGES_ANEW = """
import resource, torch
from molflow.models import pick_device

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(10_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = faults()
pick_device("cpu")
faults()  # once, they are new
print(before, faults())
"""


def measured(**environment: str) -> tuple[int, int]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    done = subprocess.run([sys.executable, "-c", PAGES_ANEW], env=clean | environment, text=True, check=True,
                          stdout=subprocess.PIPE)
    before, after = map(int, done.stdout.split())
    return before, after


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="settings of glibc")
def test_freed_memory_is_used_again() -> None:
    before, after = measured()
    assert after < before / 20


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="settings of glibc")
def test_settings_of_the_environment_stay() -> None:
    before, after = measured(MALLOC_TRIM_THRESHOLD_="65536", MALLOC_MMAP_THRESHOLD_="65536")
    assert after > before / 2
