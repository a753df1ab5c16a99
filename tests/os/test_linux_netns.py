"""Interfaces in another network namespace, and a caller that never leaves its own."""

import errno
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import tuntap
from tuntap import Tap, Tun, TunTapError, testing

KINDS = pytest.mark.parametrize(("kind", "mode"), [(Tun, "tun"), (Tap, "tap")])


def namespaces():
    """Network namespace of every thread of this process."""
    found = {"self": os.readlink("/proc/thread-self/ns/net")}
    for task in Path("/proc/self/task").iterdir():
        found[task.name] = os.readlink(task / "ns/net")
    return found


@pytest.fixture
def named_netns(mount, other_netns, tmp_path):
    """Name of a namespace as `ip netns` keeps it."""
    mount("-t", "tmpfs", "tmpfs", "/run")
    folder = Path("/run/netns")
    folder.mkdir()
    (folder / "blue").touch()
    mount("--bind", other_netns, str(folder / "blue"))
    return "blue"


def check_there(ip, device, name, netns):
    assert ip.names() == []
    assert ip.names(netns) == [name]
    assert device.name == name
    assert device.index == ip.link(name, netns)["ifindex"]
    assert ip.link(name, netns)["mtu"] == device.mtu == 1400
    assert ip.is_up(name, netns)
    assert sorted(ip.addresses(name, netns)) == ["10.0.0.1/24", "fd00::1/64"]


@KINDS
@pytest.mark.parametrize("how", ["path", "pathlike", "fd"])
def test_by_path_and_descriptor(ip, other_netns, kind, mode, how):
    before = namespaces()
    fd = os.open(other_netns, os.O_RDONLY)
    try:
        netns = {"path": other_netns, "pathlike": Path(other_netns), "fd": fd}[how]
        with kind("x0", netns=netns, mtu=1400, addresses=["10.0.0.1/24", "fd00::1/64"]) as device:
            check_there(ip, device, "x0", other_netns)
            assert ip.tun("x0", other_netns)["type"] == mode
            assert namespaces() == before
            with kind("x0") as namesake:
                assert namesake.mtu == 1500
                assert ip.link("x0")["mtu"] == 1500
        os.fstat(fd)
    finally:
        os.close(fd)
    assert namespaces() == before
    assert ip.names(other_netns) == ip.names() == []


def test_by_name(ip, named_netns, other_netns):
    before = namespaces()
    with Tun("x0", netns=named_netns, mtu=1400, addresses=["10.0.0.1/24", "fd00::1/64"]) as tun:
        check_there(ip, tun, "x0", other_netns)
    assert namespaces() == before


def test_own_netns(ip):
    with Tun("x0", netns="/proc/self/ns/net"):
        assert ip.names() == ["x0"]


def test_kernel_chosen_name_there(ip, other_netns):
    with Tun("vpn%d") as here, Tun("vpn%d", netns=other_netns) as there:
        assert (here.name, there.name) == ("vpn0", "vpn0")
        there.name = "vpn9"
        assert ip.names() == ["vpn0"]
        assert ip.names(other_netns) == ["vpn9"]


def test_everything_happens_there(ip, other_netns):
    with Tap("x0", netns=other_netns, quiet=True) as tap, Tap("x0", quiet=True) as namesake:
        before = ip.state("x0")
        tap.mtu = 1300
        tap.tx_queue_len = 33
        tap.mac = "02:00:00:00:00:44"
        tap.add_address("10.0.0.1/24")
        tap.set_addresses(["10.0.0.2/24", "10.0.0.3/24", "fd00::1/64"])
        tap.remove_address("10.0.0.2")
        tap.broadcast = "10.0.0.127"
        tap.owner = 0
        link = ip.link("x0", other_netns)
        assert (link["mtu"], link["txqlen"], link["address"]) == (1300, 33, "02:00:00:00:00:44")
        assert ip.addresses("x0", other_netns) == ["10.0.0.3/24", "fd00::1/64"]
        assert ip.address_entries("x0", other_netns)[0]["broadcast"] == "10.0.0.127"
        tap.carrier = False
        assert "NO-CARRIER" in ip.link("x0", other_netns)["flags"]
        tap.down()
        assert not ip.is_up("x0", other_netns)
        assert ip.state("x0") == before
        assert namesake.mtu == 1500


def test_packets_flow_there(net, other_netns, enter_netns):
    with (
        Tun(netns=other_netns, addresses=["10.0.0.1/24"], quiet=True) as tun,
        Tun(addresses=["10.0.0.1/24"], quiet=True) as here,
    ):
        sock = enter_netns(other_netns, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        with sock:
            sock.bind(("10.0.0.1", 5000))
            sock.settimeout(2)
            sock.sendto(b"out", ("10.0.0.2", 6000))
            packet = tun.recv(timeout=2)
            assert packet[-3:] == b"out"
            tun.send(testing.udp("10.0.0.2", "10.0.0.1", 6000, 5000, b"in"))
            assert sock.recv(100) == b"in"
        with pytest.raises(TimeoutError):
            here.recv(timeout=0)


def test_attach_to_a_persistent_interface_there(ip, make_persistent, other_netns):
    make_persistent("p0", "tun", up=True, netns=other_netns)
    ip("addr", "add", "10.0.0.1/24", "dev", "p0", netns=other_netns)
    before = ip.state("p0", other_netns)
    with Tun("p0", netns=other_netns, addresses=["10.0.0.1/24"]):
        assert ip.state("p0", other_netns) == before
    assert ip.state("p0", other_netns) == before
    assert ip.names() == []


def test_failure_there_leaves_nothing(ip, other_netns):
    before, descriptors = namespaces(), set(os.listdir("/proc/self/fd"))
    with pytest.raises(TunTapError, match=r"RTM_NEWADDR.*x0"):
        Tun("x0", netns=other_netns, addresses=["10.0.0.1/24", "::1/128"])
    assert ip.names(other_netns) == ip.names() == []
    assert namespaces() == before
    assert set(os.listdir("/proc/self/fd")) == descriptors


# --- what is no namespace ---


def test_name_that_does_not_exist(ip, named_netns):
    for name in ("nonexistent", "/run/netns/nonexistent", Path("/nonexistent/x")):
        with pytest.raises(TunTapError, match="network namespace") as caught:
            Tun("x0", netns=name)
        assert caught.value.errno == errno.ENOENT
        assert str(name).rpartition("/")[2] in str(caught.value)
    assert ip.names() == []


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "/dev/null",
        "/",
        "/proc/self/ns/mnt",
        "/proc/self/ns/uts",
        "/proc/self/status",
        "..",
        ".",
    ],
)
def test_path_that_is_no_namespace(ip, path):
    before = namespaces()
    with pytest.raises(TunTapError, match="namespace") as caught:
        Tun("x0", netns=path)
    assert "open it anew" not in str(caught.value)
    assert ip.names() == []
    assert namespaces() == before


def test_descriptor_that_is_no_namespace(ip):
    reader, writer = os.pipe()
    try:
        with pytest.raises(TunTapError, match="setns") as caught:
            Tun("x0", netns=reader)
        assert "namespace" in caught.value.strerror.replace("setns", "")
    finally:
        os.close(reader)
        os.close(writer)
    # Closed now, and the number may be that of the next descriptor the package opens.
    with pytest.raises(TunTapError, match="setns") as caught:
        Tun("x0", netns=reader)
    assert caught.value.errno in (errno.EBADF, errno.EINVAL)
    assert "open the device anew" not in str(caught.value), "the device was never open"
    assert ip.names() == []


def test_descriptor_out_of_range(ip):
    fd = os.open("/proc/self/ns/net", os.O_RDONLY)
    try:
        for number in (-1, 2**31, 2**32 + fd, 2**64 + fd, 2**70):
            with pytest.raises(ValueError):
                Tun("x0", netns=number)
            assert ip.names() == []
    finally:
        os.close(fd)


@pytest.mark.parametrize("value", [b"/proc/self/ns/net", 1.0, True, False, object(), ["x"], ""])
def test_wrong_types(ip, value):
    with pytest.raises((TypeError, ValueError)) as caught:
        Tun("x0", netns=value)
    assert not isinstance(caught.value, OSError)
    assert ip.names() == []


def test_nul_in_a_name_or_path(ip):
    for value in ("a\0b", "/proc/self/ns/net\0x", Path("/proc/self/ns/net\0x")):
        with pytest.raises(ValueError):
            Tun("x0", netns=value)
    assert ip.names() == []


# --- threads ---


def test_from_several_threads_at_once(ip, other_netns):
    before = namespaces()
    barrier = threading.Barrier(6)
    problems = []
    seen = []

    def work(number):
        try:
            own = os.readlink("/proc/thread-self/ns/net")
            barrier.wait(10)
            for i in range(10):
                netns = other_netns if (number + i) % 2 else None
                with Tun(
                    f"t{number}", netns=netns, addresses=[f"10.{number}.0.1/24"], mtu=1300 + number
                ) as tun:
                    assert os.readlink("/proc/thread-self/ns/net") == own
                    assert tun.mtu == 1300 + number
                    seen.append((number, netns is None, tun.name))
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    known = {*namespaces_now(), os.readlink(other_netns)}
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert set(namespaces_now()) <= known
        time.sleep(0.01)
    for thread in threads:
        thread.join()
    assert not problems
    assert len(seen) == 60
    assert namespaces() == before
    assert ip.names() == ip.names(other_netns) == []


def namespaces_now():
    for task in Path("/proc/self/task").iterdir():
        try:
            yield os.readlink(task / "ns/net")
        except OSError:
            continue


def test_caller_that_has_gone_elsewhere(ip, other_netns, enter_netns):
    """The device, not the thread that asks, says which namespace is meant."""
    with Tun("x0", mtu=1400) as tun:

        def elsewhere():
            with Tun("x0", mtu=1234) as namesake:
                tun.mtu = 1399
                tun.add_address("10.0.0.1/24")
                namesake.add_address("10.5.0.1/24")
                assert (tun.mtu, namesake.mtu) == (1399, 1234)
                assert tuntap.interfaces() == ["x0"]
                assert ip.addresses("x0", other_netns) == ["10.5.0.1/24"]
                return namesake.index

        enter_netns(other_netns, elsewhere)
        assert ip.link("x0")["mtu"] == tun.mtu == 1399
        assert ip.addresses("x0") == ["10.0.0.1/24"]
    assert ip.names(other_netns) == []


def test_opened_elsewhere_and_used_here(ip, other_netns, enter_netns):
    tun = enter_netns(other_netns, lambda: Tun("x0", mtu=1400))
    with tun, Tun("x0", mtu=1234):
        tun.mtu = 1401
        tun.add_address("10.0.0.1/24")
        assert ip.link("x0", other_netns)["mtu"] == 1401
        assert ip.link("x0")["mtu"] == 1234
        assert ip.addresses("x0", other_netns) == ["10.0.0.1/24"]
        assert ip.addresses("x0") == []


def test_child_process_uses_what_its_parent_opened_there(ip, other_netns):
    """A fork does not move anything either."""
    with Tun("x0", netns=other_netns, mtu=1400) as tun, Tun("x0"):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                tun.mtu = 1401
                status = 0 if tun.mtu == 1401 else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert ip.link("x0", other_netns)["mtu"] == tun.mtu == 1401
        assert ip.link("x0")["mtu"] == 1500


def test_in_a_fresh_process(other_netns):
    """As a script would: one line, and the interface is there."""
    program = (
        "import sys, tuntap\n"
        "with tuntap.Tun('x0', netns=sys.argv[1], addresses=['10.0.0.1/24']) as tun:\n"
        "    print(tun.name, tun.addresses[0])\n"
    )
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, other_netns],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert run.stdout == "x0 10.0.0.1/24\n", run.stderr
