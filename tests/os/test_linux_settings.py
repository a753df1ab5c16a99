"""Every property, read and written, against what `ip` says; and what happens to them around a device."""

import contextlib
import errno
import ipaddress
import os
import socket
import subprocess
import time

import pytest

import tuntap
from tuntap import (
    DeviceBusyError,
    DeviceGoneError,
    LinkDownError,
    Tap,
    Tun,
    TunTapError,
    UnsupportedError,
    testing,
)

KINDS = pytest.mark.parametrize(("kind", "mode"), [(Tun, "tun"), (Tap, "tap")])
PACKET = testing.udp("10.0.0.2", "10.0.0.1", 1, 2, b"x" * 20)


# --- mtu ---


@pytest.mark.parametrize(
    ("kind", "mtu"),
    [(Tun, 68), (Tun, 1279), (Tun, 1280), (Tun, 1500), (Tun, 65535), (Tap, 68), (Tap, 9000), (Tap, 65521)],
)
def test_mtu(ip, kind, mtu):
    with kind("x0", mtu=mtu) as device, kind("x1") as other:
        assert ip.link("x0")["mtu"] == device.mtu == mtu
        other.mtu = mtu
        assert ip.link("x1")["mtu"] == other.mtu == mtu


@pytest.mark.parametrize("mtu", [0, 67, -1, 65536, 2**32 + 1500, 2**70])
@KINDS
def test_mtu_out_of_range(ip, kind, mode, mtu):
    with pytest.raises(ValueError, match="mtu"):
        kind("x0", mtu=mtu)
    assert ip.names() == []
    with kind("x0", mtu=1400) as device:
        with pytest.raises(ValueError, match="mtu"):
            device.mtu = mtu
        assert ip.link("x0")["mtu"] == 1400


def test_mtu_of_a_tap_leaves_room_for_the_ethernet_header(ip):
    with Tap("x0") as tap:
        for mtu in (65522, 65535):
            with pytest.raises(ValueError):
                tap.mtu = mtu
        assert ip.link("x0")["mtu"] == 1500


def test_mtu_is_read_anew(ip):
    with Tun("x0") as tun:
        ip("link", "set", "x0", "mtu", 1333)
        assert tun.mtu == 1333


# --- up, running, carrier ---


@KINDS
def test_up_and_down(ip, kind, mode):
    with kind("x0", up=False) as device:
        assert not device.is_up
        assert not ip.is_up("x0")
        device.up()
        assert device.is_up
        assert ip.is_up("x0")
        device.up()
        device.down()
        assert not device.is_up
        assert not ip.is_up("x0")
        device.is_up = True
        assert ip.is_up("x0")
        device.is_up = False
        assert not ip.is_up("x0")
        ip("link", "set", "x0", "up")
        assert device.is_up


def test_send_while_down(ip):
    with Tun("x0", up=False) as tun:
        with pytest.raises(LinkDownError, match=r"x0") as caught:
            tun.send(PACKET)
        assert caught.value.errno == errno.EIO
        assert "up()" in str(caught.value)
        tun.up()
        tun.send(PACKET)


@KINDS
def test_running_and_carrier(ip, eventually, kind, mode):
    with kind("x0") as device:
        eventually(lambda: device.is_running)
        assert device.carrier
        device.carrier = False
        assert not device.carrier
        eventually(lambda: not device.is_running)
        assert "NO-CARRIER" in ip.link("x0")["flags"]
        assert ip.is_up("x0"), "without carrier, but up"
        device.carrier = True
        eventually(lambda: device.is_running)
        assert "LOWER_UP" in ip.link("x0")["flags"]
        device.down()
        assert not device.is_running


# --- tx_queue_len ---


@pytest.mark.parametrize("length", [0, 1, 777, 100_000])
@KINDS
def test_tx_queue_len(ip, kind, mode, length):
    with kind("x0", tx_queue_len=length) as device, kind("x1") as other:
        assert ip.link("x0").get("txqlen", 0) == device.tx_queue_len == length
        other.tx_queue_len = length
        assert ip.link("x1").get("txqlen", 0) == other.tx_queue_len == length


def test_tx_queue_len_is_how_many_packets_wait(net):
    with Tun(addresses=["10.0.0.1/24"], tx_queue_len=3, quiet=True) as tun:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for _ in range(10):
                sock.sendto(b"x", ("10.0.0.2", 1))
        for _ in range(3):
            tun.recv(timeout=0)
        with pytest.raises(TimeoutError):
            tun.recv(timeout=0)
        assert tun.stats.tx_dropped == 7


@pytest.mark.parametrize("length", [-1, 2**31, 2**32 + 5, 2**70])
def test_tx_queue_len_out_of_range(ip, length):
    with Tun("x0") as tun:
        with pytest.raises(ValueError, match="tx_queue_len"):
            tun.tx_queue_len = length
        assert ip.link("x0")["txqlen"] == 500


def test_tx_queue_len_too_large_for_the_kernel(ip):
    with Tun("x0") as tun:
        with pytest.raises((ValueError, TunTapError)) as caught:
            tun.tx_queue_len = 2**31 - 1
        assert not isinstance(caught.value, PermissionError), "it is not the rights that are missing"
        assert ip.link("x0")["txqlen"] == tun.tx_queue_len == 500


# --- mac ---


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("02:00:00:00:00:01", "02:00:00:00:00:01"),
        ("0A-FF-ee-00-12-34", "0a:ff:ee:00:12:34"),
        (b"\x02\x00\x00\x00\x00\x09", "02:00:00:00:00:09"),
        (bytearray(b"\xfe\xff\xff\xff\xff\xff"), "fe:ff:ff:ff:ff:ff"),
    ],
)
@pytest.mark.parametrize("up", [True, False])
def test_mac(ip, given, expected, up):
    with Tap("x0", mac=given, up=up) as tap, Tap("x1", up=up) as other:
        assert ip.link("x0")["address"] == tap.mac == expected
        other.mac = given
        assert ip.link("x1")["address"] == other.mac == expected
        ip("link", "set", "x0", "address", "02:00:00:00:00:77")
        assert tap.mac == "02:00:00:00:00:77"


def test_mac_of_a_new_tap_is_its_own(ip):
    with Tap("x0") as one, Tap("x1") as other:
        assert one.mac == ip.link("x0")["address"]
        assert one.mac != other.mac


def test_tun_has_no_mac(ip):
    with Tun("x0") as tun:
        with pytest.raises(UnsupportedError, match="MAC"):
            _ = tun.mac
        with pytest.raises(UnsupportedError, match="MAC"):
            tun.mac = "02:00:00:00:00:01"


# --- name ---


@pytest.mark.parametrize("up", [True, False])
@KINDS
def test_rename(ip, kind, mode, up):
    with kind("x0", up=up, addresses=["10.0.0.1/24"]) as device:
        index = device.index
        device.name = "renamed0"
        assert ip.names() == [device.name] == ["renamed0"]
        assert (device.index, device.is_up) == (index, up)
        assert ip.addresses("renamed0") == ["10.0.0.1/24"]
        assert "renamed0" in repr(device)
        device.mtu = 1400
        assert ip.link("renamed0")["mtu"] == 1400
        device.name = "renamed0"
        device.name = "y" * 15
        assert ip.names() == ["y" * 15]
    assert ip.names() == []


def test_rename_to_a_name_in_use(ip):
    with Tun("x0") as one, Tun("x1") as other:
        with pytest.raises(DeviceBusyError, match=r"RTM_NEWLINK.*x0") as caught:
            one.name = "x1"
        assert caught.value.errno == errno.EEXIST
        with pytest.raises(TunTapError):
            one.name = "lo"
        assert (one.name, other.name) == ("x0", "x1")
        assert ip.names() == ["x0", "x1"]


@pytest.mark.parametrize("name", ["", "x" * 16, "a/b", "a b", "a\0b", "vpn%d", "a%", "é", ".", ".."])
def test_rename_to_what_is_no_name(ip, name):
    with Tun("x0") as tun:
        with pytest.raises(ValueError):
            tun.name = name
        assert ip.names() == ["x0"]


# --- index, broadcast, stats ---


def test_index(ip):
    with Tun("x0") as one, Tap("x1") as other:
        assert (one.index, other.index) == (ip.link("x0")["ifindex"], ip.link("x1")["ifindex"])
        assert socket.if_nametoindex("x0") == one.index


def test_read_only_properties(ip):
    with Tun("x0") as tun:
        for attribute in ("index", "is_running", "stats", "capabilities", "closed"):
            with pytest.raises(AttributeError):
                setattr(tun, attribute, 1)


@KINDS
def test_statistics(ip, eventually, kind, mode):
    with kind("x0", addresses=["10.0.0.1/24"], quiet=True) as device:
        start = device.stats
        packet = PACKET
        if kind is Tap:
            packet = testing.ethernet("02:00:00:00:00:02", device.mac, PACKET)
            ip("neigh", "add", "10.0.0.2", "lladdr", "02:00:00:00:00:02", "dev", "x0")
        for _ in range(3):
            device.send(packet)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for _ in range(5):
                sock.sendto(b"y" * 100, ("10.0.0.2", 9))
        received = [device.recv(timeout=2) for _ in range(5)]
        now = device.stats
        # What the program sends the interface receives.
        assert now.rx_packets - start.rx_packets == 3
        assert now.tx_packets - start.tx_packets == 5
        assert now.rx_bytes - start.rx_bytes == 3 * len(packet)
        assert now.tx_bytes - start.tx_bytes == sum(map(len, received))

        def as_shown():
            shown = ip.link("x0")["stats64"]
            return tuple(
                shown[way][field]
                for field in ("packets", "bytes", "errors", "dropped")
                for way in ("rx", "tx")
            )

        assert tuple(device.stats) == as_shown()
        device.down()
        with pytest.raises(LinkDownError):
            device.send(packet)
        assert tuple(device.stats) == as_shown()


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("10.0.0.1/24", "10.0.0.255"),
        ("10.0.0.1/30", "10.0.0.3"),
        ("10.0.0.0/31", None),
        ("10.0.0.1/32", None),
    ],
)
def test_broadcast_of_a_tap(ip, address, expected):
    with Tap("x0", addresses=[address]) as tap:
        (entry,) = [entry for entry in ip.address_entries("x0") if entry["family"] == "inet"]
        assert entry.get("broadcast") == expected
        assert tap.broadcast == (expected and ipaddress.ip_address(expected))


def test_broadcast_is_settable(ip):
    with Tap("x0", addresses=["10.0.0.1/24", "10.0.1.1/24"]) as tap:
        tap.broadcast = "10.0.0.127"
        assert broadcasts(ip) == {"10.0.0.1": "10.0.0.127", "10.0.1.1": "10.0.1.255"}
        assert tap.broadcast == ipaddress.ip_address("10.0.0.127")
        tap.broadcast = ipaddress.ip_address("10.0.0.255")
        assert broadcasts(ip) == {"10.0.0.1": "10.0.0.255", "10.0.1.1": "10.0.1.255"}
        assert sorted(ip.addresses("x0")) == ["10.0.0.1/24", "10.0.1.1/24"]


def test_broadcast_leaves_the_other_addresses_alone(ip):
    addresses = ["10.0.0.1/24", "10.0.0.2/24", "10.0.0.3/24", "10.1.0.1/24", "fd00::1/64"]
    with Tap("x0", addresses=addresses) as tap:
        tap.broadcast = "10.0.0.127"
        assert sorted(ip.addresses("x0")) == sorted(addresses)
        assert set(ip.routes("x0")) == {"10.0.0.0/24", "10.1.0.0/24", "fd00::/64"}
        assert broadcasts(ip)["10.0.0.1"] == "10.0.0.127"


def broadcasts(ip):
    return {e["local"]: e.get("broadcast") for e in ip.address_entries("x0") if e["family"] == "inet"}


def test_broadcast_without_an_address(ip):
    with Tap("x0", quiet=True) as tap:
        assert tap.broadcast is None
        with pytest.raises(TunTapError, match="x0") as caught:
            tap.broadcast = "10.0.0.255"
        assert caught.value.errno == errno.EADDRNOTAVAIL


@pytest.mark.parametrize("value", ["10.0.0", "fd00::1", "", 5, True, None, b"\x0a\0\0\xff", 1.5, object()])
def test_broadcast_of_the_wrong_kind(ip, value):
    with Tap("x0", addresses=["10.0.0.1/24"]) as tap:
        before = ip.address_entries("x0")
        with pytest.raises((TypeError, ValueError)) as caught:
            tap.broadcast = value
        assert not isinstance(caught.value, OSError)
        assert ip.address_entries("x0") == before


def test_tun_has_no_broadcast_of_its_own(ip):
    with Tun("x0", addresses=["10.0.0.1/24"]) as tun:
        assert tun.broadcast is None
        assert "broadcast" not in ip.address_entries("x0")[0]


# --- what others do to the interface ---


@KINDS
def test_renamed_by_somebody_else(ip, kind, mode):
    with kind("x0", addresses=["10.0.0.1/24"]) as device:
        ip("link", "set", "x0", "name", "other0")
        with kind("x0", mtu=1234) as namesake:
            assert (device.name, namesake.name) == ("other0", "x0")
            device.mtu = 1400
            device.tx_queue_len = 42
            device.add_address("10.0.1.1/24")
            device.remove_address("10.0.0.1")
            device.down()
            device.owner = 0
            assert ip.link("other0")["mtu"] == device.mtu == 1400
            assert ip.link("other0")["txqlen"] == 42
            assert not ip.is_up("other0")
            assert ip.addresses("other0") == ["10.0.1.1/24"]
            assert "user" in ip.tun("other0")
            if kind is Tap:
                device.mac = "02:00:00:00:00:55"
                assert ip.link("other0")["address"] == "02:00:00:00:00:55"
                assert ip.link("x0")["address"] == namesake.mac != "02:00:00:00:00:55"
            assert ip.link("x0")["mtu"] == 1234
            assert ip.is_up("x0")
            assert ip.addresses("x0") == []
            device.name = "back0"
            assert ip.names() == ["back0", "x0"]
        device.up()
        assert device.stats is not None


def test_moved_to_another_netns(ip, other_netns):
    with Tun("x0", addresses=["10.0.0.1/24"]) as tun:
        ip("link", "set", "x0", "netns", other_netns.split("/")[2])
        with Tun("x0", mtu=1234, tx_queue_len=11) as namesake:
            before = ip.state("x0")
            assert tun.name == "x0"
            assert tun.mtu == 1500
            assert not tun.is_up
            assert tun.addresses == []
            assert tun.index == ip.link("x0", other_netns)["ifindex"]
            tun.mtu = 1400
            tun.tx_queue_len = 42
            tun.add_address("10.7.0.1/24")
            tun.add_address("fd07::1/64")
            tun.up()
            tun.persist = True
            tun.persist = False
            there = ip.link("x0", other_netns)
            assert (there["mtu"], there["txqlen"]) == (1400, 42)
            assert "UP" in there["flags"]
            assert ip.addresses("x0", other_netns) == ["10.7.0.1/24", "fd07::1/64"]
            tun.name = "gone0"
            assert ip.names(other_netns) == ["gone0"]
            assert ip.state("x0") == before
            assert (namesake.mtu, namesake.tx_queue_len) == (1234, 11)
        assert tun.mtu == 1400
    assert ip.names(other_netns) == []


def test_moved_away_and_back(ip, other_netns):
    with Tun("x0") as tun:
        pid = other_netns.split("/")[2]
        for mtu in (1400, 1401, 1402):
            ip("link", "set", "x0", "netns", pid)
            tun.mtu = mtu
            assert ip.link("x0", other_netns)["mtu"] == mtu
            ip("link", "set", "x0", "netns", os.getpid(), netns=other_netns)
            assert ip.link("x0")["mtu"] == mtu
            tun.mtu = mtu + 100
            assert ip.link("x0")["mtu"] == mtu + 100


# --- gone ---


def everything(device):
    """Each way to ask or tell the device something: (name, function)."""
    batch = tuntap.PacketBatch(4, 2048)
    batch.fill([PACKET])

    def setter(attribute, value):
        return f"{attribute} =", lambda: setattr(device, attribute, value)

    def getter(attribute):
        return attribute, lambda: getattr(device, attribute)

    yield from map(
        getter,
        [
            "name", "index", "mtu", "is_up", "is_running", "carrier", "tx_queue_len", "persist", "owner",
            "group", "stats", "addresses", "broadcast",
        ],
    )  # fmt: skip
    yield from (
        setter(*pair)
        for pair in [
            ("name", "y0"), ("mtu", 1400), ("is_up", True), ("is_up", False), ("carrier", False),
            ("tx_queue_len", 5), ("persist", True), ("owner", 0), ("group", 0),
            ("addresses", ["10.1.0.1/24"]), ("broadcast", "10.0.0.255"),
        ]
    )  # fmt: skip
    if isinstance(device, Tap):
        yield getter("mac")
        yield setter("mac", "02:00:00:00:00:03")
    yield "up()", device.up
    yield "down()", device.down
    yield "add_address()", lambda: device.add_address("10.1.0.1/24")
    yield "add_address(6)", lambda: device.add_address("fd01::1/64")
    yield "remove_address()", lambda: device.remove_address("10.0.0.1/24")
    yield "set_addresses()", lambda: device.set_addresses(["10.1.0.1/24"])
    yield "set_addresses([])", lambda: device.set_addresses([])
    for timeout in (None, 0, 1):
        yield f"recv({timeout})", lambda timeout=timeout: device.recv(timeout)
        yield f"recv_batch({timeout})", lambda timeout=timeout: device.recv_batch(batch, timeout)
        yield f"send({timeout})", lambda timeout=timeout: device.send(PACKET, timeout)
    yield "recv_into()", lambda: device.recv_into(bytearray(2048))
    batch.count = 1
    yield "send_batch()", lambda: device.send_batch(batch, start=0, stop=1)


def outcome(call):
    """What a call raised, or returned."""
    try:
        return call()
    except Exception as error:
        return error


@KINDS
@pytest.mark.parametrize("how", ["ip", "delete", "namesake"])
def test_deleted(ip, kind, mode, how):
    with kind("x0", addresses=["10.0.0.1/24"]) as device:
        if how == "delete":
            tuntap.delete("x0")
        else:
            ip("link", "del", "x0")
        if how == "namesake":
            ip("tuntap", "add", "dev", "x0", "mode", mode)
            ip("addr", "add", "10.0.0.1/24", "dev", "x0")
        before = ip.state("x0") if how == "namesake" else None
        start = time.monotonic()
        for name, call in everything(device):
            error = outcome(call)
            assert isinstance(error, DeviceGoneError), f"{name}: {error!r}"
            assert error.errno, name
            assert "x0" in str(error), f"{name}: {error}"
            assert "open it anew" in str(error), f"{name}: {error}"
        assert time.monotonic() - start < 5
        assert "x0" in repr(device)
        assert device.capabilities
        assert not device.closed
        assert device.fileno() >= 0
        if how == "namesake":
            assert ip.state("x0") == before, "a namesake must not suffer"
    assert device.closed
    if how == "namesake":
        ip("link", "del", "x0")


@KINDS
def test_batch_of_a_deleted_device(ip, kind, mode):
    with kind("x0") as device:
        ip("link", "del", "x0")
        with pytest.raises(DeviceGoneError):
            device.batch(4)


@KINDS
def test_closed(ip, kind, mode):
    device = kind("x0")
    device.close()
    with kind("x0", addresses=["10.0.0.1/24"]):
        before = ip.state("x0")
        for name, call in everything(device):
            error = outcome(call)
            assert isinstance(error, tuntap.ClosedError), f"{name}: {error!r}"
            assert error.errno == errno.EBADF, name
            assert "x0" in str(error), f"{name}: {error}"
        assert ip.state("x0") == before
    assert "closed" in repr(device)


def test_netns_of_the_device_is_gone(ip):
    """The last process of a namespace ends: its interfaces go with it, though we still have one open."""
    process = subprocess.Popen(["unshare", "--net", "sleep", "60"])
    own = os.readlink("/proc/self/ns/net")
    while os.readlink(f"/proc/{process.pid}/ns/net") == own:
        time.sleep(0.005)
    with Tun("x0", netns=f"/proc/{process.pid}/ns/net") as tun:
        assert tun.mtu == 1500
        process.kill()
        process.wait()
        # The namespace lives on as long as the configuration sockets in it, or it is gone: no crash.
        for name, call in everything(tun):
            if "recv" not in name:
                with contextlib.suppress(TunTapError):
                    call()
    assert ip.names() == []
