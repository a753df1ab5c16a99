"""The suite runs in a network of its own: nothing it does touches the machine's interfaces."""

import contextlib
import faulthandler
import functools
import gc
import ipaddress
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

# numpy's BLAS threads would keep an ordinary user from entering a user namespace.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

sys.path.insert(0, str(Path(__file__).parent))

import hypothesis
import pytest

import tuntap
from tuntap import _core, testing

# How many examples a property gets that does not say so itself; `--hypothesis-profile=ci` asks for many.
hypothesis.settings.register_profile("quick", max_examples=200, deadline=None)
hypothesis.settings.register_profile("ci", max_examples=1_500, deadline=None)
hypothesis.settings.load_profile("quick")


# What needs devices in memory is skipped where those cannot be had.
try:
    for end in testing.pair():
        end.close()
except tuntap.UnsupportedError as error:
    no_pair = f"no devices in memory here: {error.strerror}"

    @functools.wraps(testing.pair)
    def pair(*_, **__):
        pytest.skip(no_pair)

    testing.pair = pair


def pytest_addoption(parser):
    parser.addoption("--require-root", action="store_true", help="a test that is skipped is a failure (CI)")
    parser.addoption("--require-wine", action="store_true", help="no Windows to run in is a failure (CI)")


def pytest_collection_modifyitems(items):
    """First what takes longest in one piece, for a run by several processes (--no-loadscope-reorder)."""
    items.sort(key=lambda item: item.path.name != "test_wine.py")


def pytest_collection_finish(session):
    """What the imports made is not what a test leaks; do not walk it after every test."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def _private_network(tmp_path_factory):
    """Enter the network once; the reason if it cannot be had."""
    reason = None
    tmp_path_factory.getbasetemp()  # named after the user we are now; inside we may be root
    try:
        testing.private_network()
        tuntap.Tun().close()
    except tuntap.TunTapError as error:
        reason = f"no real device can be opened here: {error}"
    return reason


@pytest.fixture
def net(_private_network):
    """For tests that open real devices; afterwards there is no interface left."""
    if _private_network:
        pytest.skip(_private_network)
    yield
    left = tuntap.interfaces()
    for name in left:
        with contextlib.suppress(tuntap.TunTapError):
            tuntap.delete(name)
    assert not left, f"the test left interfaces behind: {left}"


@pytest.fixture(scope="session")
def _own_network():
    """Where no network is private: the reason why a device cannot be opened on the machine's own."""
    try:
        tuntap.Tun().close()
    except tuntap.TunTapError as error:
        return f"no real device can be opened here: {error}"
    return None


@pytest.fixture
def machine(request):
    """For tests that run on every system: `net` where it can be had, the machine's own network elsewhere."""
    if "netns" in _core.capabilities():
        request.getfixturevalue("net")
    elif reason := request.getfixturevalue("_own_network"):
        pytest.skip(reason)


@pytest.fixture
def watchdog(request):
    """A hang ends the run and shows where, on the standard error that pytest hides while it captures."""
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        fd = os.dup(2)
    faulthandler.dump_traceback_later(60, exit=True, file=fd)
    yield
    faulthandler.cancel_dump_traceback_later()
    os.close(fd)


def wait_for_local_route(address):
    """The kernel's work queue inserts it, milliseconds after an IPv6 address: before that, input is lost."""
    wanted = ipaddress.ip_address(address).packed.hex() + " 80 "
    deadline = time.monotonic() + 5
    while not any(
        line.startswith(wanted) for line in Path("/proc/thread-self/net/ipv6_route").read_text().splitlines()
    ):
        assert time.monotonic() < deadline, f"no local route for {address}"
        time.sleep(0.001)


@pytest.fixture
def local_route():
    """A function that waits until the kernel takes packets for an IPv6 address."""
    return wait_for_local_route


@pytest.fixture
def other_netns(net):
    """Path of another network namespace, alive during the test."""
    process = subprocess.Popen(["unshare", "--net", "sleep", "600"])
    path = f"/proc/{process.pid}/ns/net"
    own = os.readlink("/proc/self/ns/net")
    deadline = time.monotonic() + 5
    while os.readlink(path) == own and time.monotonic() < deadline:
        time.sleep(0.005)
    yield path
    process.kill()
    process.wait()


@pytest.fixture(autouse=True)
def no_leaks():
    """No test leaves descriptors or threads behind."""
    gc.collect()
    can_look = sys.platform == "linux"
    before = len(os.listdir("/proc/self/fd")) if can_look else 0
    threads = threading.active_count()
    yield
    gc.collect()
    if can_look:
        assert len(os.listdir("/proc/self/fd")) <= before, "the test left descriptors open"
    assert threading.active_count() <= threads, "the test left threads running"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    may_lack = {"windows", "torch", "jax"} & set(item.fixturenames)  # an option of its own; in no group
    if report.skipped and item.config.getoption("--require-root") and not may_lack:
        report.outcome = "failed"
        report.longrepr = f"skipped, which --require-root forbids: {report.longrepr}"
