"""Freed memory is kept for the next tensor."""

import subprocess
import sys

import pytest

PAGE_FAULTS = """
import resource, sys
import numpy as np
from finflow.stages.prepare import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        several = [np.full(1 << 20, 1.0) for _ in range(8)]  # 64 MiB in all, freed together
        del several
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
usual = faults()
assert keep_freed_memory()
faults()
print(usual, faults())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's switches")
def test_memory_that_was_freed_costs_no_page_faults_again() -> None:
    found = subprocess.run([sys.executable, "-c", PAGE_FAULTS], capture_output=True, text=True, check=True)
    usual, kept = map(int, found.stdout.split())
    assert usual > 10_000
    assert kept < 1000
