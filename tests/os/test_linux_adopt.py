"""Descriptors from elsewhere: adopted or borrowed, with and without the header of tun.c."""

import errno
import fcntl
import gc
import os
import socket
import threading
import time

import pytest

import tuntap
from tuntap import ClosedError, DeviceGoneError, PacketError, Tap, Tun, TunTapError, UnsupportedError, testing


def flags_of(fd):
    return fcntl.fcntl(fd, fcntl.F_GETFL), fcntl.fcntl(fd, fcntl.F_GETFD)


@pytest.fixture
def attach(ip, raw):
    """`attach(flags)`: the descriptor of x0, up, with 10.0.0.1/24 and fd00::1/64, and silent."""

    def do(flags=raw.NO_PI, kind=raw.TUN, **options):
        fd = raw.attach("x0", kind | flags, **options)
        ip("link", "set", "x0", "addrgenmode", "none")
        ip("link", "set", "x0", "up")
        ip("addr", "add", "10.0.0.1/24", "dev", "x0")
        ip("addr", "add", "fd00::1/64", "dev", "x0", "nodad")
        return fd

    return do


@pytest.fixture
def exchange(local_route):
    def exchange(tun):
        """One packet each way, IPv4 and IPv6, between the device and a socket of the kernel."""
        for family, own, peer in (
            (socket.AF_INET, "10.0.0.1", "10.0.0.2"),
            (socket.AF_INET6, "fd00::1", "fd00::2"),
        ):
            if family == socket.AF_INET6:
                local_route("fd00::1")
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                sock.bind((own, 5000))
                sock.settimeout(2)
                sock.sendto(b"out", (peer, 6000))
                packet = tun.recv(timeout=2)
                assert packet[0] >> 4 == (4 if family == socket.AF_INET else 6)
                assert packet.endswith(b"out")
                assert len(packet) == (20 if family == socket.AF_INET else 40) + 8 + 3
                reply = testing.udp(peer, own, 6000, 5000, b"in")
                assert tun.send(reply) == len(reply)
                assert sock.recv(100) == b"in"
                sock.sendto(b"one", (peer, 6000))
                sock.sendto(b"two", (peer, 6000))
                batch = tun.batch(4)
                count = tun.recv_batch(batch, timeout=2)
                assert [bytes(batch[i])[-3:] for i in range(count)] == [b"one", b"two"]
                batch.fill([reply, reply])
                assert tun.send_batch(batch) == 2
                assert sock.recv(100) == sock.recv(100) == b"in"
                sock.sendto(b"x" * 100, (peer, 6000))
                with pytest.raises(PacketError):
                    tun.recv_into(bytearray(50), timeout=2)

    return exchange


@pytest.mark.parametrize("header", [False, True], ids=["plain", "packet information"])
@pytest.mark.parametrize("nonblocking", [False, True], ids=["blocking", "nonblocking"])
@pytest.mark.parametrize("owned", [False, True], ids=["borrowed", "owned"])
def test_packets(exchange, raw, attach, header, nonblocking, owned):
    fd = attach(0 if header else raw.NO_PI, nonblocking=nonblocking)
    if owned:
        raw.forget(fd)
    with Tun.from_fd(fd, owned=owned) as tun:
        exchange(tun)


@pytest.mark.parametrize("header", [False, True], ids=["plain", "packet information"])
@pytest.mark.parametrize("nonblocking", [False, True], ids=["blocking", "nonblocking"])
def test_borrowed_is_left_as_it_was(exchange, raw, attach, ip, header, nonblocking):
    fd = attach(0 if header else raw.NO_PI, nonblocking=nonblocking)
    before = flags_of(fd)
    # If a receive blocked after all, the interface goes and the test fails rather than hangs.
    watchdog = threading.Timer(10, lambda: ip("link", "del", "x0"))
    watchdog.start()
    try:
        with Tun.from_fd(fd, owned=False) as tun:
            assert flags_of(fd) == before
            assert tun.fileno() == fd
            start = time.monotonic()
            with pytest.raises(TimeoutError):
                tun.recv(timeout=0)
            with pytest.raises(TimeoutError):
                tun.recv_into(bytearray(2000), timeout=0)
            with pytest.raises(TimeoutError):
                tun.recv_batch(tun.batch(4), timeout=0)
            assert time.monotonic() - start < 1
            with pytest.raises(TimeoutError):
                tun.recv(timeout=0.05)
            exchange(tun)
            tun.mtu = 1400
            assert ip.link("x0")["mtu"] == 1400
            assert flags_of(fd) == before
        assert flags_of(fd) == before, "close() leaves it open and as it was"
        with pytest.raises(ClosedError):
            tun.recv(timeout=0)
        del tun
        gc.collect()
        assert flags_of(fd) == before
        with Tun.from_fd(fd, owned=False) as again:
            exchange(again)
        assert ip.names() == ["x0"]
    finally:
        watchdog.cancel()
        watchdog.join()


def test_borrowed_and_blocked_is_interruptible(attach):
    fd = attach()
    with Tun.from_fd(fd, owned=False) as tun:
        timer = threading.Timer(0.1, tun.interrupt)
        timer.start()
        start = time.monotonic()
        with pytest.raises(tuntap.InterruptError):
            tun.recv(timeout=5)
        assert time.monotonic() - start < 1
        timer.join()
    os.fstat(fd)


def test_owned_is_closed(ip, raw, attach):
    fd = attach()
    raw.forget(fd)
    tun = Tun.from_fd(fd)
    assert flags_of(fd)[0] & os.O_NONBLOCK
    assert tun.fileno() == fd
    tun.close()
    with pytest.raises(OSError):
        os.fstat(fd)
    assert ip.names() == []
    tun.close()


def test_owned_and_forgotten_is_closed(ip, raw, attach):
    fd = attach()
    raw.forget(fd)
    with pytest.warns(ResourceWarning, match="x0"):
        Tun.from_fd(fd)
    with pytest.raises(OSError):
        os.fstat(fd)
    assert ip.names() == []


def test_settings_of_an_adopted_device(ip, raw, attach):
    with Tun.from_fd(attach(), owned=False) as tun:
        assert (tun.name, tun.mtu, tun.is_up) == ("x0", 1500, True)
        assert [str(a) for a in tun.addresses] == ["10.0.0.1/24", "fd00::1/64"]
        tun.name = "y0"
        tun.add_address("10.1.0.1/24")
        tun.mtu = 1400
        tun.owner = 0
        assert ip.link("y0")["mtu"] == 1400
        assert ip.addresses("y0") == ["10.0.0.1/24", "10.1.0.1/24", "fd00::1/64"]
        assert "y0" in repr(tun)


def test_tap(ip, raw):
    fd = raw.attach("x0", raw.TAP | raw.NO_PI)
    with Tap.from_fd(fd, owned=False) as tap:
        assert tap.mac == ip.link("x0")["address"]
        tap.mtu = 65521
        assert ip.link("x0")["mtu"] == 65521


@pytest.mark.parametrize("owned", [False, True])
@pytest.mark.parametrize(("kind", "other"), [(Tun, Tap), (Tap, Tun)])
def test_wrong_layer(ip, raw, kind, other, owned):
    fd = raw.attach("x0", (raw.TAP if kind is Tun else raw.TUN) | raw.NO_PI)
    before, state = flags_of(fd), ip.state("x0")
    with pytest.raises(ValueError, match=rf"use {other.__name__}.from_fd"):
        kind.from_fd(fd, owned=owned)
    assert flags_of(fd) == before, "what was not adopted is not ours to close or to change"
    assert ip.state("x0") == state


@pytest.mark.parametrize("owned", [False, True])
@pytest.mark.parametrize("header", [False, True])
def test_virtio_header(ip, raw, owned, header):
    fd = raw.attach("x0", raw.TUN | raw.VNET_HDR | (0 if header else raw.NO_PI))
    before = flags_of(fd)
    if header:
        with pytest.raises(UnsupportedError, match="IFF_NO_PI"):
            Tun.from_fd(fd, owned=owned)
        assert flags_of(fd) == before
    else:
        with Tun.from_fd(fd, owned=False) as device:
            assert device.offload == {"checksum", "tcp4", "tcp6", "udp"}
        with pytest.raises(ValueError, match="was made with a virtio-net header"):
            Tun.from_fd(fd, owned=owned, offload=False)
        assert flags_of(fd) == before
    assert ip.names() == ["x0"]


@pytest.mark.parametrize("owned", [False, True])
def test_closed_descriptor(net, owned):
    reader, writer = os.pipe()
    os.close(reader)
    os.close(writer)
    for number in (reader, 2**31 - 1):
        with pytest.raises(ClosedError, match=str(number)) as caught:
            Tun.from_fd(number, owned=owned)
        assert caught.value.errno == errno.EBADF


@pytest.mark.parametrize(
    "value", [None, "3", b"3", 3.0, True, False, object(), [3], -1, 2**31, 2**32 + 3, 2**70]
)
def test_not_a_descriptor(net, value):
    with pytest.raises((TypeError, ValueError)) as caught:
        Tun.from_fd(value)
    assert not isinstance(caught.value, OSError)


@pytest.mark.parametrize("value", [None, "yes", 2, 1.0, object(), b""])
def test_owned_is_a_flag(net, attach, value):
    fd = attach()
    before = flags_of(fd)
    with pytest.raises(TypeError, match="owned"):
        Tun.from_fd(fd, owned=value)
    assert flags_of(fd) == before


def test_device_itself_adopts_nothing(net, attach):
    with pytest.raises(TypeError):
        tuntap.Device.from_fd(attach())


@pytest.mark.parametrize("owned", [False, True])
@pytest.mark.parametrize("what", ["file", "pipe", "directory", "stream", "null", "eventfd"])
def test_descriptor_of_something_else(net, tmp_path, owned, what):
    keep = []
    if what == "file":
        fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    elif what == "pipe":
        fd, writer = os.pipe()
        keep.append(writer)
    elif what == "directory":
        fd = os.open(tmp_path, os.O_RDONLY)
    elif what == "stream":
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        fd = one.detach()
        keep.append(other.detach())
    elif what == "null":
        fd = os.open("/dev/null", os.O_RDWR)
    else:
        fd = os.eventfd(0)
    keep.append(fd)
    try:
        before = flags_of(fd)
        with pytest.raises(UnsupportedError, match=rf"TUNGETIFF.*descriptor {fd}") as caught:
            Tun.from_fd(fd, owned=owned)
        assert caught.value.errno == errno.ENOTTY
        assert flags_of(fd) == before, "it stays open and as it was"
    finally:
        for number in keep:
            os.close(number)


@pytest.mark.parametrize("owned", [False, True])
def test_node_without_an_interface(net, raw, owned):
    fd = raw.node()
    before = flags_of(fd)
    with pytest.raises(TunTapError, match="TUNGETIFF"):
        Tun.from_fd(fd, owned=owned)
    assert flags_of(fd) == before


@pytest.mark.parametrize("owned", [False, True])
def test_interface_deleted_before(net, ip, attach, owned):
    fd = attach()
    ip("link", "del", "x0")
    with pytest.raises(DeviceGoneError):
        Tun.from_fd(fd, owned=owned)
    os.fstat(fd)


def test_interface_deleted_after(net, ip, attach):
    with Tun.from_fd(attach(), owned=False) as tun:
        ip("link", "del", "x0")
        for call in (lambda: tun.mtu, lambda: tun.name, lambda: tun.recv(timeout=1), tun.up):
            with pytest.raises(DeviceGoneError):
                call()


@pytest.mark.parametrize("header", [False, True])
def test_descriptor_of_another_netns(ip, raw, other_netns, enter_netns, header):
    """The header, and every setting, are those of the interface there, not of its namesake here."""
    fd = enter_netns(other_netns, lambda: raw.attach("x0", raw.TUN | (0 if header else raw.NO_PI)))
    namesake = raw.attach("x0", raw.TUN | (raw.NO_PI if header else 0))
    ip("link", "set", "x0", "addrgenmode", "none", netns=other_netns)
    with Tun.from_fd(fd, owned=False) as tun:
        tun.add_address("10.0.0.1/24")
        tun.up()
        assert ip.addresses("x0", other_netns) == ["10.0.0.1/24"]
        assert ip.addresses("x0") == []
        with enter_netns(other_netns, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
            sock.bind(("10.0.0.1", 5000))
            sock.settimeout(2)
            sock.sendto(b"out", ("10.0.0.2", 6000))
            packet = tun.recv(timeout=2)
            assert packet[0] == 0x45
            assert packet.endswith(b"out")
            tun.send(testing.udp("10.0.0.2", "10.0.0.1", 6000, 5000, b"in"))
            assert sock.recv(10) == b"in"
    os.fstat(namesake)


def test_detached_from_a_device_of_ours(exchange, ip):
    """A descriptor that goes to another object: dup, close the first, go on."""
    with Tun("x0", addresses=["10.0.0.1/24", "fd00::1/64"], quiet=True) as tun:
        fd = os.dup(tun.fileno())
    assert ip.names() == ["x0"], "the descriptor keeps it"
    with Tun.from_fd(fd) as tun:
        exchange(tun)
    assert ip.names() == []
