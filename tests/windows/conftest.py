"""Tests of the package on Windows; under Wine test_wine.py runs them."""

import gc
import sys

import pytest

if sys.platform != "win32":
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture
def stack(ip):
    """The network stack behind Wintun; what a test leaves open, or does against the rules, fails it."""
    from fake_wintun import Stack

    stack = Stack()
    stack.reset()
    yield stack
    gc.collect()
    counts = stack.counts()
    assert not counts.faults, counts.fault.decode()
    assert stack.reset() == 0, "adapters or sessions were left open"


@pytest.fixture
def ip():
    """IP Helper, as fake_iphelper.c plays it."""
    from fake_iphelper import IpHelper

    ip = IpHelper()
    ip.reset()
    yield ip
    assert ip.notices() == 0, "notifications were left on"
