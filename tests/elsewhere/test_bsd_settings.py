"""What the BSDs are told about an interface, byte for byte: the same calls, with each system's numbers."""

import struct

import layouts
import pytest
from fake_bsd import MULTICAST, POINTOPOINT, RUNNING, UP
from layouts import IN, OUT, ifreq, request
from systems import BSDS


@pytest.fixture(params=BSDS)
def kernel(request, elsewhere):
    with elsewhere(request.param).running() as kernel:
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


def test_questions_are_a_name_and_zeros(kernel, tun):
    """Nothing of this process's memory goes along."""
    questions = {"SIOCGIFMTU": lambda: tun.mtu, "SIOCGIFFLAGS": lambda: tun.is_up}
    for question, ask in questions.items():
        ask()
        assert (question, ifreq("tun0", size=kernel.IFREQ)) in kernel.requests()


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
        "ipackets": 1 << 40, "opackets": 2 << 40, "ibytes": 3 << 40, "obytes": 4 << 40, "ierrors": 5 << 40,
        "oerrors": 6 << 40, "iqdrops": 7 << 40, "collisions": 99, "imcasts": 98, "omcasts": 97, "noproto": 96,
    }  # fmt: skip
    drops = 8 << 40 if "oqdrops" in kernel.COUNTERS.names else 0
    if drops:
        kernel.interfaces["tun0"].counters["oqdrops"] = drops
    assert list(tun.stats) == [*(n << 40 for n in range(1, 8)), drops]


def test_a_setting_of_another_system(kernel, tun):
    with pytest.raises(kernel.tuntap.UnsupportedError):
        tun.tx_queue_len = 100
    assert kernel.told() == []


def test_requests_of_the_tests_are_those_the_kernel_knows(kernel):
    """A name that is not in the table would compare with the bare number."""
    assert request(IN | OUT, "i", 17, kernel.IFREQ) in kernel.REQUESTS
    assert layouts.request(IN, "i", 16, kernel.IFREQ) in kernel.REQUESTS


@pytest.mark.parametrize(("system", "size"), [("freebsd", 72), ("netbsd", 32)])
def test_quiet(elsewhere, system, size):
    """The flags of neighbour discovery; all else of the structure is handed back as it came."""
    no_dad = 0x100 if system == "freebsd" else 0  # netinet6/nd6.h
    auto_linklocal, nud = 0x20, 0x1
    with elsewhere(system).running() as kernel:
        kernel.nd6_rest = bytes(range(1, size - 15))

        def expected(flags):
            data = bytearray(layouts.pack_name("tun0") + kernel.nd6_rest)
            data[kernel.ND6_FLAGS : kernel.ND6_FLAGS + 4] = struct.pack("I", flags)
            return "SIOCSIFINFO_FLAGS", bytes(data)

        with kernel.tuntap.Tun("tun0", up=False, quiet=True) as tun:
            assert expected(nud | no_dad) in kernel.told()
            assert kernel.nd6["tun0"] == nud | no_dad
        with kernel.tuntap.Tun("tun0", up=False) as tun:
            kernel.nd6["tun0"] = nud | auto_linklocal | 0x8  # IFDISABLED
            kernel.taken()
            tun.add_address("fd00::1/64")
            assert kernel.told()[0] == expected(nud | auto_linklocal | no_dad)


def test_quiet_means_nothing_on_openbsd(elsewhere):
    with elsewhere("openbsd").running() as kernel:
        with pytest.raises(kernel.tuntap.UnsupportedError):
            kernel.tuntap.Tun("tun0", quiet=True)
        assert kernel.interfaces == {}


def test_interfaces_are_those_of_the_drivers(kernel):
    kernel.make("tun0")
    kernel.make("tap3")
    kernel.make("em0")
    kernel.make("tunnel")
    kernel.make("tap123456789012")  # fifteen letters and a zero
    assert kernel.tuntap.interfaces() == ["tun0", "tap3", "tap123456789012"]


def test_delete(kernel):
    kernel.make("tun4")
    kernel.tuntap.delete("tun4")
    assert ("SIOCIFDESTROY", ifreq("tun4", size=kernel.IFREQ)) in kernel.told()
    assert kernel.interfaces == {}


def test_what_is_no_tun_is_not_deleted(kernel):
    kernel.make("em0")
    with pytest.raises(kernel.tuntap.UnsupportedError):
        kernel.tuntap.delete("em0")
    assert "em0" in kernel.interfaces
    assert "SIOCIFDESTROY" not in [call[0] for call in kernel.told()]


def test_delete_of_nothing(kernel):
    with pytest.raises(kernel.tuntap.DeviceGoneError):
        kernel.tuntap.delete("tun4")
    assert kernel.told() == []


def test_features(kernel):
    assert kernel.tuntap.features() == {"tun", "tap"}
    if hasattr(kernel, "has_driver"):
        kernel.has_driver = False
    else:
        del kernel.nodes["/dev/tap0"]
    assert "tap" not in kernel.tuntap.features()
    assert kernel.told() == []


@pytest.mark.parametrize(
    ("system", "beside"),
    [("freebsd", {"persist", "quiet", "rename"}), ("netbsd", {"persist", "quiet"}), ("openbsd", set())],
)
def test_capabilities(elsewhere, system, beside):
    everywhere = {
        "addresses", "broadcast", "events", "index", "mac", "mtu", "packet_information", "peer", "running",
        "stats", "tap", "tun", "up",
    }  # fmt: skip
    with elsewhere(system).running() as kernel, kernel.tuntap.Tun("tun0") as tun:
        assert tun.capabilities == everywhere | beside


@pytest.mark.parametrize(("kind", "name"), [("Tun", "tun1"), ("Tap", "tap1")])
def test_reading_does_not_block(kernel, kind, name):
    """The drivers of OpenBSD and NetBSD look at what F_SETFL sets, and not at the flags of open()."""
    with getattr(kernel.tuntap, kind)(name) as device:
        calls = [call.arguments for call in kernel.taken() if call.name == "fcntl"]
        assert (device.fileno(), 4, 4) in calls  # F_SETFL, O_NONBLOCK
