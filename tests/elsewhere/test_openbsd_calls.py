"""OpenBSD: opening a node makes the interface, closing it removes it."""

import struct

import pytest
from fake_bsd import UP
from layouts import ifreq

OPEN = 0x2 | 0x4 | 0x10000  # O_RDWR | O_NONBLOCK | O_CLOEXEC, fcntl.h
TUN_DOWN = struct.pack("H", 0x8050)  # RUNNING, POINTOPOINT, MULTICAST


@pytest.fixture
def kernel(elsewhere):
    with elsewhere("openbsd").running() as kernel:
        yield kernel


def test_flags_of_open(kernel):
    assert sum(kernel.numbers[name] for name in ("O_RDWR", "O_NONBLOCK", "O_CLOEXEC")) == OPEN


def test_a_tun_of_any_name(kernel):
    with kernel.tuntap.Tun(up=False) as tun:
        assert tun.name == "tun0"
        assert kernel.told() == [("open", "/dev/tun0", OPEN), ("SIOCSIFFLAGS", ifreq("tun0", TUN_DOWN))]
    assert kernel.told() == []
    assert kernel.interfaces == {}


def test_units_are_tried_until_one_is_free(kernel):
    kernel.make("tun0")
    with kernel.tuntap.Tun() as first:
        assert first.name == "tun1"
        with kernel.tuntap.Tun() as second:
            assert second.name == "tun2"


def test_a_tap(kernel):
    with kernel.tuntap.Tap("tap2", up=False) as tap:
        assert tap.name == "tap2"
        assert kernel.told()[0] == ("open", "/dev/tap2", OPEN)
    assert kernel.interfaces == {}


def test_one_that_is_there_stays(kernel):
    kernel.make("tun3")
    with kernel.tuntap.Tun("tun3") as tun:
        assert kernel.told() == [("open", "/dev/tun3", OPEN)]
        assert not tun.is_up
    assert "tun3" in kernel.interfaces


def test_a_node_that_is_missing_is_made(kernel):
    """Of the major number that the first node has, and with the unit as the minor number, in two parts."""
    with kernel.tuntap.Tun("tun300", up=False) as tun:
        assert tun.name == "tun300"
        told = kernel.told()
        assert told[:3] == [
            ("open", "/dev/tun300", OPEN),
            ("mknod", "/dev/tun300", 0o020600, 40 << 8 | 300 & 0xFF | (300 & 0xFFFF00) << 8),
            ("open", "/dev/tun300", OPEN),
        ]
        assert kernel.interfaces["tun300"].device is not None


def test_no_node_and_no_rights_to_make_one(kernel):
    kernel.uid = 1001
    with pytest.raises(kernel.tuntap.PrivilegeError):
        kernel.tuntap.Tun("tun300")


def test_no_driver(kernel):
    kernel.nodes.clear()
    with pytest.raises(kernel.tuntap.UnsupportedError) as caught:
        kernel.tuntap.Tun()
    assert caught.value.errno == kernel.errors["ENOENT"]


def test_a_name_of_ones_own_cannot_be_had(kernel):
    with pytest.raises(kernel.tuntap.UnsupportedError, match="tun0"):
        kernel.tuntap.Tun("vpn0")
    assert kernel.taken() == []


def test_no_rename(kernel):
    with kernel.tuntap.Tun("tun0") as tun, pytest.raises(kernel.tuntap.UnsupportedError):
        tun.name = "vpn0"


def test_one_that_another_has_open(kernel):
    with kernel.tuntap.Tun("tun3"):
        with pytest.raises(kernel.tuntap.DeviceBusyError) as caught:
            kernel.tuntap.Tun("tun3")
        assert caught.value.errno == kernel.errors["EBUSY"]


def test_the_family_is_always_in_front(kernel):
    testing = kernel.tuntap.testing
    packets = [testing.udp("10.0.0.1", "10.0.0.2", 1, 2, b"4"), testing.udp("fd00::1", "fd00::2", 1, 2, b"6")]
    with kernel.tuntap.Tun("tun0") as tun:
        for packet, family in zip(packets, (2, 24), strict=True):
            tun.send(packet)
            assert kernel.wire("tun0").recv(2000) == struct.pack(">I", family) + packet
            kernel.wire("tun0").send(struct.pack(">I", family) + packet)
            assert tun.recv(timeout=1) == packet


@pytest.mark.parametrize("call", ["readv", "writev"])
def test_a_node_that_was_revoked(kernel, call):
    with kernel.tuntap.Tun("tun0") as tun:
        kernel.refuse(call, "EIO")
        with pytest.raises(kernel.tuntap.DeviceGoneError):
            tun.send(b"E" * 20) if call == "writev" else tun.recv(timeout=1)


def test_mac(kernel):
    with kernel.tuntap.Tap("tap0", up=False) as tap:
        kernel.taken()
        tap.mac = "02:01:03:05:07:09"
        sockaddr = bytes([6, 18]) + b"\x02\x01\x03\x05\x07\x09"
        assert kernel.told() == [("SIOCSIFLLADDR", ifreq("tap0", sockaddr))]
        assert tap.mac == "02:01:03:05:07:09"


class TestAdopt:
    def test_a_tun(self, kernel):
        descriptor = kernel.open("/dev/tun2", 0x2, 0)
        kernel.interfaces["tun2"].flags |= UP
        with kernel.tuntap.Tun.from_fd(descriptor) as tun:
            assert tun.name == "tun2"
            tun.send(b"E" * 20)
            assert kernel.wire("tun2").recv(100) == b"\0\0\0\x02" + b"E" * 20

    def test_a_tap(self, kernel):
        descriptor = kernel.open("/dev/tap1", 0x2, 0)
        with pytest.raises(ValueError, match="Tap"):
            kernel.tuntap.Tun.from_fd(descriptor)
        with kernel.tuntap.Tap.from_fd(descriptor) as tap:
            assert tap.name == "tap1"
            tap.send(b"frame" * 4)
            assert kernel.wire("tap1").recv(100) == b"frame" * 4
