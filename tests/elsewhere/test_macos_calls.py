"""macOS: a utun is a socket of kernel control."""

import struct

import layouts
import pytest
from fake_macos import AF_SYSTEM, SO_RCVBUF, SO_SNDBUF, SOL_SOCKET, SYSPROTO_CONTROL
from layouts import ifaliasreq, ifreq, in6_aliasreq, sockaddr_dl, sockaddr_in, sockaddr_in6

UTUN = b"com.apple.net.utun_control"
INFO = struct.pack("I96s", 0, UTUN)


def control(unit):
    """struct sockaddr_ctl: length, AF_SYSTEM, AF_SYS_CONTROL, the number of the control, unit, five words."""
    return struct.pack("=BBHII5I", 32, 32, 2, 7, unit, 0, 0, 0, 0, 0)


@pytest.fixture
def kernel(elsewhere):
    with elsewhere("macos").running() as kernel:
        yield kernel


@pytest.fixture
def tun(kernel):
    with kernel.tuntap.Tun("utun3") as device:
        kernel.taken()
        yield device


def connected(kernel):
    """What the control socket was told until it was connected, and its options."""
    calls = [call for call in kernel.taken() if call.name in ("socket", "connect", "setsockopt", "ioctl")]
    (descriptor,) = [
        call.result for call in calls if call.name == "socket" and call.arguments[0] == AF_SYSTEM
    ]
    return [
        (call.name, *call.arguments[1:]) for call in calls if call.arguments[0] in (descriptor, AF_SYSTEM)
    ]


@pytest.mark.parametrize(
    ("name", "unit", "got"), [(None, 0, "utun0"), ("utun12", 13, "utun12"), ("utun%d", 0, "utun0")]
)
def test_open(kernel, name, unit, got):
    with kernel.tuntap.Tun(name) as tun:
        assert tun.name == got
        assert connected(kernel)[:3] == [
            ("socket", 2, 2),  # SOCK_DGRAM, SYSPROTO_CONTROL
            ("ioctl", "CTLIOCGINFO", INFO),
            ("connect", control(unit)),
        ]
        assert kernel.interfaces[got].flags & 1
    assert kernel.interfaces == {}


def test_options(kernel):
    """More than one packet may wait, and there is room for them."""
    with kernel.tuntap.Tun() as tun:
        options = {key[1:]: value for key, value in kernel.options.items() if key[0] == tun.fileno()}
    assert options[SYSPROTO_CONTROL, 16] == 256
    assert options[SOL_SOCKET, SO_RCVBUF] == options[SOL_SOCKET, SO_SNDBUF] == 1 << 20


def test_an_older_kernel_has_no_such_option(kernel):
    kernel.refuse("setsockopt", "ENOPROTOOPT", times=3)
    with kernel.tuntap.Tun() as tun:
        assert tun.name == "utun0"


def test_the_descriptor_is_not_inherited_and_does_not_block(kernel):
    with kernel.tuntap.Tun() as tun:
        told = [call.arguments for call in kernel.taken() if call.name == "fcntl"]
        assert (tun.fileno(), 2, 1) in told  # F_SETFD, FD_CLOEXEC
        assert (tun.fileno(), 4, 4) in told  # F_SETFL, O_NONBLOCK


def test_one_that_another_has(kernel, tun):
    with pytest.raises(kernel.tuntap.DeviceBusyError, match="another process has this") as caught:
        kernel.tuntap.Tun("utun3")
    assert caught.value.errno == kernel.errors["EBUSY"]


def test_without_rights(kernel):
    kernel.refuse("connect", "EPERM")
    with pytest.raises(kernel.tuntap.PrivilegeError):
        kernel.tuntap.Tun()


@pytest.mark.parametrize("name", ["tun0", "utun", "utunx", "utun3x", "vpn%d", "u"])
def test_a_name_that_cannot_be_had(kernel, name):
    with pytest.raises((kernel.tuntap.UnsupportedError, ValueError)):
        kernel.tuntap.Tun(name)
    assert kernel.taken() == []


@pytest.mark.parametrize("error", ["ENOMEM", "EPERM"])
@pytest.mark.parametrize(
    ("call", "after", "said"),
    [
        ("calloc", 0, "calloc"), ("pipe", 0, "pipe"),
        ("socket", 0, "socket(AF_INET)"), ("socket", 2, "socket(PF_SYSTEM)"),
        ("ioctl(CTLIOCGINFO)", 0, "ioctl(CTLIOCGINFO)"), ("connect", 0, "connect(utun)"),
    ],
)  # fmt: skip
def test_nothing_is_left_of_an_open_that_failed(kernel, call, after, said, error):
    """Whatever the number of the error is; EPERM is 1."""
    kernel.refuse(call, error, after=after)
    with pytest.raises(kernel.tuntap.TunTapError) as caught:
        kernel.tuntap.Tun()
    assert caught.value.errno == kernel.errors[error]
    assert said in str(caught.value)


def test_a_kernel_without_utun(kernel):
    kernel.refuse("ioctl(CTLIOCGINFO)", "ENOENT")
    with pytest.raises(kernel.tuntap.UnsupportedError, match="CTLIOCGINFO") as caught:
        kernel.tuntap.Tun()
    assert caught.value.errno == kernel.errors["ENOENT"]


def test_the_family_goes_in_front(kernel, tun):
    testing = kernel.tuntap.testing
    packets = [testing.udp("10.0.0.1", "10.0.0.2", 1, 2, b"4"), testing.udp("fd00::1", "fd00::2", 1, 2, b"6")]
    for packet, family in zip(packets, (2, 30), strict=True):
        tun.send(packet)
        assert kernel.wire("utun3").recv(2000) == struct.pack(">I", family) + packet
        kernel.wire("utun3").send(struct.pack(">I", family) + packet)
        assert tun.recv(timeout=1) == packet
    batch = tun.batch(4)
    batch.fill(packets)
    assert tun.send_batch(batch) == 2
    assert [kernel.wire("utun3").recv(2000)[3] for _ in packets] == [2, 30]


@pytest.mark.parametrize("error", ["ENOBUFS", "ENOSPC"])
def test_no_room(kernel, tun, error):
    kernel.refuse("writev", error, times=2)
    tun.send(b"E" * 20)
    pauses = [call.arguments[0] for call in kernel.taken() if call.name == "nanosleep"]
    assert pauses == [(0, 250_000), (0, 500_000)]
    assert kernel.wire("utun3").recv(100) == b"\0\0\0\x02" + b"E" * 20


def route(kernel, kind, subnet, mask, own=None):
    """Addresses are padded to words of four bytes, and the link is named by its index."""
    index = kernel.interfaces["utun3"].index
    addresses = [subnet, sockaddr_dl(18, index, 0, "", b"", 20), mask] + [own] * (own is not None)
    bits = layouts.RTA_DST | layouts.RTA_GATEWAY | layouts.RTA_NETMASK | (layouts.RTA_IFA if own else 0)
    return "route", layouts.route_message(
        kernel.ROUTE, 5, 4, addresses, type=kind, flags=layouts.RTF_UP | layouts.RTF_STATIC, addrs=bits
    )


def test_ipv4(kernel, tun):
    """The far end is the address itself, and the subnet takes a route."""
    tun.add_address("10.1.2.3/24")
    assert kernel.told() == [
        ("SIOCAIFADDR", ifaliasreq("utun3", "10.1.2.3", "10.1.2.3", "255.255.255.0")),
        route(
            kernel,
            layouts.RTM_ADD,
            sockaddr_in("10.1.2.0"),
            sockaddr_in("255.255.255.0"),
            sockaddr_in("10.1.2.3"),
        ),
    ]
    ((address),) = tun.addresses
    assert str(address) == "10.1.2.3/24"
    assert address.peer is None
    tun.remove_address("10.1.2.3/24")
    assert kernel.told() == [
        ("SIOCDIFADDR", ifreq("utun3", sockaddr_in("10.1.2.3"))),
        route(kernel, layouts.RTM_DELETE, sockaddr_in("10.1.2.0"), sockaddr_in("255.255.255.0")),
    ]
    assert kernel.routes == {}


def test_ipv6(kernel, tun):
    tun.add_address("fd00:1::5/64")
    mask = sockaddr_in6("ffff:ffff:ffff:ffff::", 30)
    assert kernel.told() == [
        ("SIOCAIFADDR_IN6", in6_aliasreq("utun3", 30, "fd00:1::5", None, 64, 0x20)),
        route(kernel, layouts.RTM_ADD, sockaddr_in6("fd00:1::", 30), mask, sockaddr_in6("fd00:1::5", 30)),
    ]
    assert [str(address) for address in tun.addresses] == ["fd00:1::5/64"]
    tun.remove_address("fd00:1::5/64")
    assert kernel.told() == [
        ("SIOCDIFADDR_IN6", ifreq("utun3", sockaddr_in6("fd00:1::5", 30), 288)),
        route(kernel, layouts.RTM_DELETE, sockaddr_in6("fd00:1::", 30), mask),
    ]


def test_mtu_and_flags(kernel, tun):
    tun.mtu = 1400
    assert kernel.told() == [("SIOCSIFMTU", ifreq("utun3", struct.pack("i", 1400)))]
    assert tun.mtu == 1400
    flags = kernel.interfaces["utun3"].flags
    tun.down()
    assert kernel.told() == [("SIOCSIFFLAGS", ifreq("utun3", struct.pack("H", flags & ~1)))]
    assert not tun.is_up


def test_counters(kernel, tun):
    """Of 64 bits, behind messages about other things."""
    kernel.make("utun9").counters = {"ipackets": 77}
    kernel.interfaces["utun3"].counters = {
        "ipackets": 1 << 40, "opackets": 2 << 40, "ibytes": 3 << 40, "obytes": 4 << 40, "ierrors": 5 << 40,
        "oerrors": 6 << 40, "iqdrops": 7 << 40, "collisions": 99, "imcasts": 98, "omcasts": 97, "noproto": 96,
    }  # fmt: skip
    assert list(tun.stats) == [*(n << 40 for n in range(1, 8)), 0]


def test_adopted(kernel):
    descriptor = kernel.socket(AF_SYSTEM, 2, SYSPROTO_CONTROL)
    kernel.make("utun5").device = descriptor
    with kernel.tuntap.Tun.from_fd(descriptor) as tun:
        assert tun.name == "utun5"
        tun.send(b"E" * 20)
        assert kernel.wire("utun5").recv(100) == b"\0\0\0\x02" + b"E" * 20
