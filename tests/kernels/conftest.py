"""The kernels' harness is built here, once per session; the kernels are not tested without it."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import build_harness


@pytest.fixture(scope="session")
def harness():
    return build_harness.load()


@pytest.fixture(autouse=True)
def no_leaks():
    """Kernels open nothing; what the suite checks after each test takes longer than these tests."""
