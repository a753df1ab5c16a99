"""What the BSDs are told about an interface, byte for byte: the same calls, with each system's numbers."""

import struct

import pytest
import wire
from fake_bsd import MULTICAST, POINTOPOINT, RUNNING, UP, FreeBSD, NetBSD, OpenBSD
from wire import IN, OUT, ifreq, request

SYSTEMS = {"freebsd": FreeBSD, "openbsd": OpenBSD, "netbsd": NetBSD}


@pytest.fixture(params=SYSTEMS)
def kernel(request, elsewhere):
    with elsewhere(request.param, SYSTEMS[request.param]).running() as kernel:
        yield kernel


@pytest.fixture
def tun(kernel):
    with kernel.tuntap.Tun("tun0", up=False) as device:
        kernel.taken()
        yield device


@pytest.fixture
def tap(kernel):
    with kernel.tuntap.Tap("tap0", up=False) as device:
        kernel.taken()
        yield device


def test_mtu(kernel, tun):
    tun.mtu = 1400
    assert kernel.told() == [("SIOCSIFMTU", ifreq("tun0", struct.pack("i", 1400), kernel.IFREQ))]
    assert kernel.interfaces["tun0"].mtu == 1400
    kernel.interfaces["tun0"].mtu = 1300
    assert tun.mtu == 1300
    assert kernel.told() == []


def test_an_mtu_that_is_refused(kernel, tun):
    kernel.refuse("ioctl(SIOCSIFMTU)", "EINVAL")
    with pytest.raises(kernel.tuntap.TunTapError, match="SIOCSIFMTU") as caught:
        tun.mtu = 1400
    assert caught.value.errno == kernel.errors["EINVAL"]


def test_up_and_down_leave_the_other_flags(kernel, tun):
    flags = kernel.interfaces["tun0"].flags | 0x100  # IFF_PROMISC
    kernel.interfaces["tun0"].flags = flags
    tun.up()
    assert kernel.told() == [("SIOCSIFFLAGS", ifreq("tun0", struct.pack("H", flags | UP), kernel.IFREQ))]
    assert tun.is_up
    tun.down()
    assert kernel.told() == [("SIOCSIFFLAGS", ifreq("tun0", struct.pack("H", flags), kernel.IFREQ))]
    assert not tun.is_up


def test_flags_are_told_apart(kernel, tun):
    interface = kernel.interfaces["tun0"]
    interface.flags = UP | POINTOPOINT | MULTICAST
    assert (tun.is_up, tun.is_running) == (True, False)
    interface.flags = RUNNING | POINTOPOINT | MULTICAST
    assert (tun.is_up, tun.is_running) == (False, True)


def test_index(kernel, tun):
    assert tun.index == kernel.interfaces["tun0"].index


def test_mac_is_told(kernel, tap):
    kernel.interfaces["tap0"].mac = b"\x02\x01\x03\x05\x07\x09"
    assert tap.mac == "02:01:03:05:07:09"
    assert kernel.told() == []


def test_counters(kernel, tun):
    kernel.interfaces["tun0"].counters = {
        "ipackets": 1, "opackets": 2, "ibytes": 3, "obytes": 4, "ierrors": 5, "oerrors": 6, "iqdrops": 7,
        "collisions": 99, "imcasts": 98, "omcasts": 97, "noproto": 96,
    }  # fmt: skip
    expected = [1, 2, 3, 4, 5, 6, 7]
    assert list(tun.stats)[:7] == expected


def test_a_setting_of_another_system(kernel, tun):
    with pytest.raises(kernel.tuntap.UnsupportedError):
        tun.tx_queue_len = 100
    assert kernel.told() == []


def test_requests_of_the_tests_are_those_the_kernel_knows(kernel):
    """A name that is not in the table would compare with the bare number."""
    assert request(IN | OUT, "i", 17, kernel.IFREQ) in kernel.REQUESTS
    assert wire.request(IN, "i", 16, kernel.IFREQ) in kernel.REQUESTS
