"""NetBSD: an interface is made and destroyed by request, and opened by its node."""

import struct

import pytest
from layouts import ifreq, pack_name, sockaddr_dl

OPEN = 0x2 | 0x4 | 0x400000  # O_RDWR | O_NONBLOCK | O_CLOEXEC, fcntl.h
ON = struct.pack("i", 1)
TUN_DOWN = struct.pack("H", 0x8050)  # RUNNING, POINTOPOINT, MULTICAST
TAP_DOWN = struct.pack("H", 0x8842)  # RUNNING, BROADCAST, SIMPLEX, MULTICAST
LINK = 18  # AF_LINK


def request_of(name, value=b""):
    return ifreq(name, value, 144)


@pytest.fixture
def kernel(elsewhere):
    with elsewhere("netbsd").running() as kernel:
        yield kernel


def test_flags_of_open(kernel):
    assert sum(kernel.numbers[name] for name in ("O_RDWR", "O_NONBLOCK", "O_CLOEXEC")) == OPEN


def test_a_tun_of_any_name(kernel):
    with kernel.tuntap.Tun(up=False) as tun:
        assert tun.name == "tun0"
        assert kernel.told() == [
            ("SIOCIFCREATE", request_of("tun0")),
            ("open", "/dev/tun0", OPEN),
            ("TUNSIFHEAD", ON),
            ("SIOCSIFFLAGS", request_of("tun0", TUN_DOWN)),
        ]
    assert kernel.told()[-1] == ("SIOCIFDESTROY", request_of("tun0"))
    assert kernel.interfaces == {}


def test_a_tap(kernel):
    with kernel.tuntap.Tap("tap2", up=False) as tap:
        assert tap.name == "tap2"
        assert kernel.told() == [
            ("SIOCIFCREATE", request_of("tap2")),
            ("open", "/dev/tap2", OPEN),
            ("SIOCSIFFLAGS", request_of("tap2", TAP_DOWN)),
        ]
    assert kernel.interfaces == {}


def test_units_are_tried_until_one_is_free(kernel):
    kernel.make("tun0")
    with kernel.tuntap.Tun() as tun:
        assert tun.name == "tun1"
    assert set(kernel.interfaces) == {"tun0"}


def test_one_that_is_there_stays(kernel):
    kernel.make("tun3")
    with kernel.tuntap.Tun("tun3"):
        assert kernel.told() == [("open", "/dev/tun3", OPEN), ("TUNSIFHEAD", ON)]
    assert kernel.told() == []
    assert "tun3" in kernel.interfaces


def test_persist(kernel):
    with kernel.tuntap.Tun("tun0", persist=True):
        pass
    assert "tun0" in kernel.interfaces


def test_a_node_that_is_missing_is_made(kernel):
    """Of the major number that the first node has, and with the unit as the minor number, in two parts."""
    with kernel.tuntap.Tun("tun300", up=False) as tun:
        assert tun.name == "tun300"
        number = 40 << 8 | 300 << 12 & 0xFFF00000 | 300 & 0xFF
        assert ("mknod", "/dev/tun300", 0o020600, number) in kernel.told()
        assert kernel.interfaces["tun300"].device is not None


def test_a_name_of_ones_own_cannot_be_had(kernel):
    with pytest.raises(kernel.tuntap.UnsupportedError, match="tun0"):
        kernel.tuntap.Tun("vpn0")
    assert kernel.taken() == []


def test_one_that_another_has_open(kernel):
    with kernel.tuntap.Tun("tun3"):
        with pytest.raises(kernel.tuntap.DeviceBusyError):
            kernel.tuntap.Tun("tun3")
        assert "tun3" in kernel.interfaces


@pytest.mark.parametrize("call", ["open", "ioctl(TUNSIFHEAD)", "socket", "pipe"])
def test_nothing_is_left_of_an_open_that_failed(kernel, call):
    kernel.refuse(call, "ENOMEM")
    with pytest.raises(kernel.tuntap.TunTapError) as caught:
        kernel.tuntap.Tun()
    assert caught.value.errno == kernel.errors["ENOMEM"]
    assert kernel.interfaces == {}


def test_the_family_goes_in_front(kernel):
    testing = kernel.tuntap.testing
    packets = [testing.udp("10.0.0.1", "10.0.0.2", 1, 2, b"4"), testing.udp("fd00::1", "fd00::2", 1, 2, b"6")]
    with kernel.tuntap.Tun("tun0") as tun:
        for packet, family in zip(packets, (2, 24), strict=True):
            tun.send(packet)
            assert kernel.wire("tun0").recv(2000) == struct.pack(">I", family) + packet
            kernel.wire("tun0").send(struct.pack(">I", family) + packet)
            assert tun.recv(timeout=1) == packet


def test_mac(kernel):
    """By a socket of the link layer; struct if_laddrreq: name, IFLR_ACTIVE, prefix, and twice 128 bytes."""
    with kernel.tuntap.Tap("tap0", up=False) as tap:
        kernel.taken()
        mac = b"\x02\x01\x03\x05\x07\x09"
        tap.mac = mac
        calls = kernel.taken()
        (socket,) = [call for call in calls if call.name == "socket"]
        assert socket.arguments[0] == LINK
        (told,) = [call for call in calls if call.name == "ioctl" and call.arguments[1] == "SIOCALIFADDR"]
        assert told.arguments[0] == socket.result
        sockaddr = sockaddr_dl(LINK, 0, 0, "", mac, 32)
        expected = pack_name("tap0") + struct.pack("II", 0x4000, 0) + sockaddr.ljust(256, b"\0")
        assert told.arguments[2] == expected
        assert tap.mac == "02:01:03:05:07:09"


def test_a_wait_looks_again(kernel):
    """poll(2) does not tell that the interface was destroyed: no wait is longer than a second."""
    with kernel.tuntap.Tun("tun0") as tun:
        kernel.taken()
        with pytest.raises(TimeoutError):
            tun.recv(timeout=1.5)
        waits = [call.arguments[1] for call in kernel.taken() if call.name == "poll"]
        assert max(waits) <= 1000
        assert min(waits) >= 0
        assert len(waits) == 2
