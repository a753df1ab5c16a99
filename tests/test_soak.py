"""A short run of what `python bench/soak.py` does 10,000 and 10,000,000 times."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).parent.parent / "bench" / "soak.py"


@pytest.mark.skipif("TUNTAP_SANITIZE" in os.environ, reason="a sanitizer keeps freed memory")
def test_opening_and_moving_packets_leaves_nothing_behind(net):
    run = subprocess.run(
        [sys.executable, SOAK, "--cycles", "100", "--packets", "50000", "--bound", "4096"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "50,000" in run.stdout or "50000" in run.stdout
