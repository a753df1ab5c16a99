"""Short runs of what `python bench/soak.py` and `python bench/soak_async.py` do at length."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parent.parent / "bench"


def soak(program, *options):
    run = subprocess.run(
        [sys.executable, BENCH / program, *options], capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


@pytest.mark.skipif("TUNTAP_SANITIZE" in os.environ, reason="a sanitizer keeps freed memory")
def test_opening_and_moving_packets_leaves_nothing_behind(net):
    said = soak("soak.py", "--cycles", "100", "--packets", "50000", "--bound", "4096")
    assert "50,000" in said


@pytest.mark.skipif("TUNTAP_SANITIZE" in os.environ, reason="a sanitizer keeps freed memory")
def test_threads_and_loops_that_do_everything_at_once_neither_hang_nor_lose_anything(net):
    said = soak("soak_async.py", "--seconds", "5", "--bound", "16384")
    received, sent = re.search(r"([\d,]+) packets received, ([\d,]+) sent", said).groups()
    assert min(int(number.replace(",", "")) for number in (received, sent)) > 100
