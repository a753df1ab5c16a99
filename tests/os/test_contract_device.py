"""What a TUN and a TAP do on every operating system: real devices, real packets.

Where a system cannot do something it says so with `UnsupportedError`, and `capabilities()` has it not; no
test asks which system this is.  Run it as root: `python -m pytest tests/os/test_contract_device.py`.
"""

import asyncio
import contextlib
import errno
import gc
import ipaddress
import os
import signal
import socket
import threading
import time

import pytest
from forks import fork, reap
from threads import CallThread
from wire import (
    ADDRESSES,
    HOST,
    PATIENCE,
    PEER,
    PEER_MAC,
    PORT,
    RECEIVES,
    SENDS,
    Wire,
    can_bind,
    eventually,
    host_socket,
    receiver,
    sender,
    source_towards,
)

import tuntap
from tuntap import (
    ClosedError,
    DeviceBusyError,
    DeviceGoneError,
    InterruptError,
    LinkDownError,
    PacketBatch,
    PacketError,
    PrivilegeError,
    Tap,
    Tun,
    TunTapError,
    UnsupportedError,
    _core,
    aio,
)

CAN = _core.capabilities()
KINDS = [kind for kind, name in ((Tun, "tun"), (Tap, "tap")) if name in CAN]
if not KINDS:
    pytest.skip("this system has no core that opens devices", allow_module_level=True)

# What every system takes: more than the MTU of Ethernet is refused by some TAPs, less than 1280 has no IPv6.
MTUS = (1280, 1400, 1500)
BURST = 20  # packets; the shortest queue in front of a TUN holds 50
BOUND = 0.5  # seconds in which a wait ends that something ended
MAC, OTHER_MAC = "02:00:5e:00:53:11", "02:00:5e:00:53:22"
LINK_LOCAL = ipaddress.ip_network("fe80::/64")
SECOND = {4: "10.213.18.1/24", 6: "fd00:213:18::1/64"}
BEHIND_SECOND = {4: "10.213.18.2", 6: "fd00:213:18::2"}
NEIGHBOURS = {4: ["10.213.19.1/24", "10.213.19.7/24"], 6: ["fd00:213:19::1/64", "fd00:213:19::7/64"]}

pytestmark = pytest.mark.usefixtures("machine", "watchdog")
both_families = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__.lower())
def kind(request):
    return request.param


@pytest.fixture
def opens():
    """Opens devices; that nothing of them is left when they are closed is part of every test."""
    descriptors = open_descriptors()
    opened = []

    def open_one(kind, name=None, **settings):
        device = kind(name, **settings)
        opened.append((device, device.name))
        return device

    yield open_one
    for device, _ in opened:
        device.close()
    left = {name for _, name in opened} & set(tuntap.interfaces())
    for name in left:
        with contextlib.suppress(TunTapError):
            tuntap.delete(name)
    assert not left, f"interfaces that stayed: {left}"
    gc.collect()
    assert open_descriptors() == descriptors


@pytest.fixture
def device(kind, opens):
    return opens(kind, addresses=ADDRESSES.values(), mtu=1400)


@pytest.fixture
def wire(device):
    return Wire(device).settle()


def free_name(kind):
    """A name that this system has for such a device, free, and not the one it would choose next."""
    with kind() as one, kind() as other:
        return max(one.name, other.name, key=lambda name: (len(name), name))


def listed(device):
    """The addresses, as text, without those that a system makes itself."""
    return sorted(str(a) for a in device.addresses if a.version == 4 or a.network != LINK_LOCAL)


def explained(caught, device_name=None):
    """An error says what failed, on what, why, and what to do."""
    error = caught.value
    assert isinstance(error, TunTapError)
    assert error.errno
    assert "; " in error.strerror or "anew" in error.strerror, error.strerror
    if device_name:
        assert device_name in str(error)
    return error


def open_descriptors():
    """Those below a bound that are open: the list of them has another place on every system."""
    found = set()
    for fd in range(512):
        with contextlib.suppress(OSError):
            os.fstat(fd)
            found.add(fd)
    return found


@contextlib.contextmanager
def takes(at_least=0.0, at_most=BOUND):
    begin = time.monotonic()
    yield
    spent = time.monotonic() - begin
    assert at_least <= spent < at_most, f"took {spent:.3f} s"


def for_ever(call, *arguments):
    """Receive whatever comes, until an error ends it."""
    while True:
        call(*arguments)


def blocked(call):
    """A thread that receives until an error ends it, and has begun to wait."""
    return CallThread(for_ever, call).wait_until_blocked()


def ended(thread, kind, since):
    thread.join(PATIENCE)
    assert not thread.is_alive(), "the call hangs"
    assert isinstance(thread.error, kind), f"{thread.error!r}"
    assert thread.ended - since < BOUND, f"took {thread.ended - since:.3f} s to end"
    return thread.error


def send_out(version, *payloads):
    """Let the system send datagrams to the peer; the port they come from."""
    with host_socket(version) as sock:
        for payload in payloads:
            sock.sendto(payload, (PEER[version], PORT))
        return sock.getsockname()[1]


def delete_under(device):
    """Delete an open interface; False if the system refuses, which must not take long either."""
    thread = CallThread(tuntap.delete, device.name)
    thread.join(PATIENCE / 2)
    if thread.is_alive():
        device.close()
        thread.join()
        pytest.fail("delete() of an open interface hangs until it is closed")
    if thread.error is None:
        return True
    assert isinstance(thread.error, UnsupportedError | DeviceBusyError), f"{thread.error!r}"
    return False


class TestOpen:
    def test_the_system_chooses_a_name(self, kind, opens):
        before = tuntap.interfaces()
        one, other = opens(kind), opens(kind)
        for device in (one, other):
            assert device.name in tuntap.interfaces()
            assert device.name not in before
            assert device.index in [index for index, _ in socket.if_nameindex()]
            assert device.is_up
        assert one.name != other.name
        assert one.index != other.index

    def test_a_name_that_was_chosen(self, kind, opens):
        name = free_name(kind)
        device = opens(kind, name)
        assert device.name == name
        assert name in tuntap.interfaces()

    def test_a_name_is_taken_as_it_is_or_refused(self, kind, opens):
        """Some systems number their devices and have no other names."""
        before = set(tuntap.interfaces())
        try:
            device = opens(kind, "contract9")
        except (ValueError, TunTapError):
            assert set(tuntap.interfaces()) == before
        else:
            assert device.name == "contract9"

    @pytest.mark.parametrize(
        "name", ["", "x" * (_core.NAME_MAX + 1), "a/b", "a\0b", "a b", "../tun0", "tun0\n"]
    )
    def test_what_is_no_name(self, kind, name):
        before = tuntap.interfaces(), open_descriptors()
        with pytest.raises(ValueError) as caught:
            kind(name)
        assert not isinstance(caught.value, OSError)
        assert (tuntap.interfaces(), open_descriptors()) == before

    def test_a_name_in_use(self, kind, wire):
        name = wire.device.name
        descriptors = open_descriptors()
        for settings in ({}, {"exclusive": True}, {"mtu": MTUS[0]}):
            with pytest.raises(DeviceBusyError) as caught:
                kind(name, **settings)
            explained(caught, name)
        assert open_descriptors() == descriptors
        assert wire.device.mtu == 1400
        wire.settle()

    def test_again_and_again_under_one_name(self, kind, opens):
        name = free_name(kind)
        for version in (4, 6, 4):
            with opens(kind, name, addresses=[ADDRESSES[version]]) as device:
                assert device.name == name
                assert listed(device) == [ADDRESSES[version]]
                Wire(device).settle(version)

    def test_close_leaves_nothing(self, kind, opens):
        descriptors = open_descriptors()
        device = opens(kind, addresses=ADDRESSES.values())
        name, index = device.name, device.index
        thread = blocked(device.recv)
        begin = time.monotonic()
        device.close()
        ended(thread, ClosedError, begin)
        device.close()
        assert device.closed
        assert device.fileno() == -1
        assert name not in tuntap.interfaces()
        assert index not in [number for number, _ in socket.if_nameindex()]
        for version in (4, 6):
            assert not can_bind(HOST[version])
            assert source_towards(version) != HOST[version]
        assert open_descriptors() == descriptors
        for call in (device.recv, device.up, lambda: device.mtu, lambda: device.addresses):
            with pytest.raises(ClosedError) as caught:
                call()
            explained(caught)

    def test_an_open_that_fails_leaves_nothing(self, kind):
        """At whichever step: there are descriptors for one step more each time."""
        resource = pytest.importorskip("resource")
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with contextlib.ExitStack() as stack:
            top = max(open_descriptors()) + 1
            while (filler := os.dup(0)) < top:  # no descriptor is free below
                stack.callback(os.close, filler)
            os.close(filler)
            before = tuntap.interfaces(), open_descriptors()
            for spare in range(16):
                resource.setrlimit(resource.RLIMIT_NOFILE, (top + spare, hard))
                try:
                    kind(addresses=ADDRESSES.values(), mtu=MTUS[0]).close()
                    break
                except OSError as error:
                    code = error.errno
                finally:
                    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                assert code == errno.EMFILE
                assert (tuntap.interfaces(), open_descriptors()) == before
            assert 1 <= spare < 15


class TestAddresses:
    def test_given_at_open(self, device):
        assert listed(device) == sorted(ADDRESSES.values())
        for version, address in ADDRESSES.items():
            assert ipaddress.ip_interface(address) in device.addresses
            eventually(lambda version=version: can_bind(HOST[version]))

    @both_families
    def test_the_subnet_is_routed_to_the_device(self, device, version):
        eventually(lambda: source_towards(version) == HOST[version])
        device.remove_address(ADDRESSES[version])
        assert source_towards(version) != HOST[version]

    @both_families
    def test_come_and_go(self, kind, opens, version):
        device = opens(kind)
        assert listed(device) == []
        for again in (1, 2):
            device.add_address(ADDRESSES[version])
            assert listed(device) == [ADDRESSES[version]]
            eventually(lambda: source_towards(version) == HOST[version])
            Wire(device).settle(version)
            device.remove_address(HOST[version] if again == 1 else ADDRESSES[version])
            assert listed(device) == []
            assert not can_bind(HOST[version])
            assert source_towards(version) != HOST[version]

    @both_families
    def test_of_one_subnet(self, kind, opens, version):
        """The route goes with the last of them."""
        first, last = NEIGHBOURS[version]
        peer = last.partition("/")[0].replace("7", "2") if version == 4 else "fd00:213:19::2"
        device = opens(kind, addresses=[first, last])
        assert listed(device) == sorted([first, last])
        device.remove_address(first)
        assert listed(device) == [last]
        eventually(lambda: source_towards(version, peer) == last.partition("/")[0])
        device.remove_address(last)
        assert source_towards(version, peer) != last.partition("/")[0]

    def test_all_at_once(self, device):
        device.set_addresses([SECOND[4], SECOND[6]])
        assert listed(device) == sorted(SECOND.values())
        for version in (4, 6):
            assert not can_bind(HOST[version])
            eventually(
                lambda version=version: (
                    source_towards(version, BEHIND_SECOND[version]) == SECOND[version].partition("/")[0]
                )
            )

    @both_families
    def test_one_that_is_there_and_one_that_is_not(self, device, version):
        with pytest.raises(DeviceBusyError) as caught:
            device.add_address(ADDRESSES[version])
        explained(caught, device.name)
        with pytest.raises(TunTapError) as caught:
            device.remove_address(SECOND[version])
        assert explained(caught, device.name).errno == errno.EADDRNOTAVAIL
        assert listed(device) == sorted(ADDRESSES.values())

    def test_of_a_device_that_is_down(self, kind, opens):
        device = opens(kind, up=False, addresses=[ADDRESSES[4]])
        assert not device.is_up
        device.add_address(SECOND[4])
        assert not device.is_up, "an address brought it up"
        device.up()
        assert listed(device) == sorted([ADDRESSES[4], SECOND[4]])
        Wire(device).settle(4)

    @both_families
    def test_without_the_route(self, kind, opens, version):
        try:
            device = opens(kind, addresses=[ADDRESSES[version]], route=False)
        except UnsupportedError:
            assert not can_bind(HOST[version])
            return
        eventually(lambda: can_bind(HOST[version]))
        assert source_towards(version) != HOST[version]
        device.add_address(SECOND[version])
        assert listed(device) == sorted([ADDRESSES[version], SECOND[version]])
        assert source_towards(version, BEHIND_SECOND[version]) != SECOND[version].partition("/")[0]

    def test_with_a_peer(self, kind, opens):
        """Ethernet has no other end, and some systems say so."""
        device = opens(kind)
        local, peer = "10.213.20.1", "10.213.21.9"
        try:
            device.add_address((local, peer))
        except UnsupportedError:
            assert "peer" not in CAN or kind is Tap
            assert listed(device) == []
            return
        (address,) = device.addresses[:1]
        assert (str(address.ip), str(address.peer)) == (local, peer)
        assert source_towards(4, peer) == local
        device.remove_address((local, peer))
        assert listed(device) == []
        assert source_towards(4, peer) != local


class TestSettings:
    @pytest.mark.parametrize("given", MTUS)
    def test_mtu(self, kind, opens, given):
        """What the kernel sends is never larger, and as large as that."""
        device = opens(kind, mtu=given, addresses=[ADDRESSES[4]])
        assert device.mtu == given
        wire = Wire(device).settle(4)
        for mtu in (given, *MTUS):
            device.mtu = mtu
            assert device.mtu == mtu
            send_out(4, bytes(mtu - 28))
            assert [len(d.payload) for d in wire.receive()] == [mtu - 28]
            send_out(4, bytes(mtu - 27))
            size = 0
            while size < mtu - 27 + 8:
                packet = wire.packet(device.recv(PATIENCE))
                if packet and packet[0] >> 4 == 4 and packet[16:20] == socket.inet_aton(PEER[4]):
                    assert len(packet) <= mtu
                    size += len(packet) - 20

    def test_what_is_no_mtu(self, device):
        for mtu in (-1, 0, 67, 65536, 2**40):
            with pytest.raises(ValueError):
                device.mtu = mtu
        with pytest.raises(ValueError, match="1280"):
            device.mtu = 1279  # there would be no IPv6
        assert device.mtu == 1400
        assert listed(device) == sorted(ADDRESSES.values())

    def test_up_and_down(self, kind, opens):
        device = opens(kind, up=False)
        assert not device.is_up
        for _ in range(2):
            device.up()
            assert device.is_up
            device.up()
            assert device.is_up
            device.down()
            assert not device.is_up
            device.down()
            assert not device.is_up
        device.is_up = True
        assert device.is_up

    @pytest.mark.skipif(Tap not in KINDS, reason="no TAP on this system")
    def test_mac(self, opens):
        tap = opens(Tap, addresses=[ADDRESSES[4]])
        wire = Wire(tap).settle(4)
        assert int(wire.mac[:2], 16) & 1 == 0
        if "mac" not in CAN:
            for call in (lambda: Tap(mac=MAC), lambda: setattr(tap, "mac", MAC)):
                with pytest.raises(UnsupportedError):
                    call()
            return
        tap.mac = MAC
        assert tap.mac == MAC
        Wire(tap).settle(4)  # whose frames come from there
        tap.close()
        other = opens(Tap, addresses=[ADDRESSES[4]], mac=OTHER_MAC)
        assert other.mac == OTHER_MAC
        Wire(other).settle(4)

    @pytest.mark.skipif(Tun not in KINDS, reason="no TUN on this system")
    def test_a_tun_has_no_mac(self, opens):
        with pytest.raises(ValueError, match="Tap"):
            Tun(mac=MAC)
        with pytest.raises(UnsupportedError) as caught:
            _ = opens(Tun).mac
        assert caught.value.errno

    def test_statistics(self, wire):
        device = wire.device
        if "stats" not in CAN:
            with pytest.raises(UnsupportedError):
                _ = device.stats
            return
        before = device.stats
        send_out(4, *[bytes(100)] * 5)
        wire.receive(5)
        with host_socket(4) as sock:
            sender(device, "send_batch")([wire.datagram(4, sock.getsockname()[1], bytes(200))] * 7)
            assert [sock.recv(300) for _ in range(7)] == [bytes(200)] * 7
        # What we send the interface receives; the system may have said things of its own meanwhile.
        eventually(lambda: device.stats.rx_packets - before.rx_packets >= 7)
        eventually(lambda: device.stats.tx_packets - before.tx_packets >= 5)
        after = device.stats
        assert 7 <= after.rx_packets - before.rx_packets < 7 + BURST
        assert 5 <= after.tx_packets - before.tx_packets < 5 + BURST
        assert after.rx_bytes - before.rx_bytes >= 7 * 228
        assert after.tx_bytes - before.tx_bytes >= 5 * 128

    def test_every_capability_works_or_is_refused(self, kind, opens):
        device = opens(kind, addresses=[ADDRESSES[4]])
        name = device.name

        def rename():
            device.name = "contract8"
            assert device.name == "contract8"
            assert "contract8" in tuntap.interfaces()
            assert name not in tuntap.interfaces()
            device.name = name

        def broadcast():
            device.broadcast = "10.213.17.254"
            assert str(device.broadcast) == "10.213.17.254"

        def unplug():
            device.carrier = False
            assert not device.carrier
            device.carrier = True

        def queue_length():
            device.tx_queue_len = 77
            assert device.tx_queue_len == 77

        def persist():
            device.persist = True
            assert device.persist
            device.persist = False

        def owner():
            device.owner = os.geteuid()
            assert device.owner == os.geteuid()

        def group():
            device.group = os.getegid()
            assert device.group == os.getegid()

        calls = {
            "rename": rename, "carrier": unplug, "tx_queue_len": queue_length, "persist": persist,
            "owner": owner, "group": group, "events": device.events, "stats": lambda: device.stats,
        }  # fmt: skip
        if kind is Tap:
            calls["broadcast"] = broadcast
        for capability, call in calls.items():
            if capability in CAN:
                call()
            else:
                with pytest.raises(UnsupportedError) as caught:
                    call()
                assert caught.value.errno, capability
        assert (device.name, device.is_up) == (name, True)
        assert listed(device) == [ADDRESSES[4]]

    @pytest.mark.parametrize(
        ("setting", "value"),
        [
            pair
            for pair in (
                ("persist", True), ("persist", False), ("owner", 0), ("group", 0), ("tx_queue_len", 77),
                ("netns", "contract"), ("metric", 7), ("guid", "x"), ("ring_capacity", 1 << 20),
                ("wintun", "x"), ("dns", ["10.213.17.2"]), ("peer_name", "contract7"), ("description", "x"),
                ("offload", True), ("offload", "superpackets"), ("queues", 2), ("quiet", True),
                ("packet_information", True),
            )
            if {"guid": "wintun", "ring_capacity": "wintun", "description": "wintun"}.get(pair[0], pair[0])
            not in CAN
        ],
    )  # fmt: skip
    def test_what_a_system_does_not_have_it_refuses(self, kind, setting, value):
        before = set(tuntap.interfaces()), open_descriptors()
        # A TUN is no pair of interfaces anywhere.
        error = ValueError if setting == "peer_name" and kind is Tun else UnsupportedError
        with pytest.raises(error) as caught:
            kind(**{setting: value})
        assert setting in str(caught.value)
        assert (set(tuntap.interfaces()), open_descriptors()) == before

    def test_packet_information_is_there_or_refused(self, kind, opens):
        try:
            device = opens(kind, addresses=[ADDRESSES[4]], packet_information=True)
        except UnsupportedError:
            return
        send_out(4, b"x")
        packet = device.recv(PATIENCE)[4:]  # whatever it is, it begins behind those four bytes
        if kind is Tap:
            assert packet[6:12].hex(":") == device.mac
        else:
            assert packet[0] >> 4 in (4, 6)

    @pytest.mark.parametrize(("missing", "name"), [(Tun, "tun"), (Tap, "tap")])
    def test_a_kind_that_a_system_does_not_have(self, missing, name):
        if name in CAN:
            missing().close()
        else:
            with pytest.raises(UnsupportedError):
                missing()


class TestPackets:
    @both_families
    @pytest.mark.parametrize("way", RECEIVES)
    def test_from_the_kernel(self, wire, version, way):
        """As they are: nothing in front of the IP header on a TUN, an Ethernet header on a TAP."""
        frames = []
        receive = receiver(wire.device, way)

        def call(timeout):
            found = receive(timeout)
            frames.extend(found)
            return found

        payload = bytes(range(256)) * 2
        port = send_out(version, payload)
        (datagram,) = wire.receive(call=call)
        assert datagram == (version, HOST[version], port, payload)
        frame = frames[-1] if way != "recv_batch" else next(filter(lambda f: payload in f, frames))
        assert len(frame) == wire.overhead + {4: 20, 6: 40}[version] + 8 + len(payload)
        assert frame[wire.overhead] >> 4 == version
        if wire.mac:
            ethertype = {4: b"\x08\x00", 6: b"\x86\xdd"}[version]
            assert frame[:14] == bytes.fromhex(f"{PEER_MAC}:{wire.mac}".replace(":", "")) + ethertype

    @both_families
    @pytest.mark.parametrize("way", SENDS)
    def test_to_the_kernel(self, wire, version, way):
        with host_socket(version) as sock:
            port = sock.getsockname()[1]
            sender(wire.device, way)([wire.datagram(version, port, b"to the kernel")])
            payload, source = sock.recvfrom(2000)
        assert payload == b"to the kernel"
        assert source[:2] == (PEER[version], PORT)

    @both_families
    @pytest.mark.parametrize("way", RECEIVES)
    def test_a_burst_from_the_kernel_comes_whole_and_in_order(self, wire, version, way):
        payloads = [bytes([i]) * (1 + 13 * i) for i in range(BURST)]
        send_out(version, *payloads)
        found = wire.receive(BURST, receiver(wire.device, way))
        assert [datagram.payload for datagram in found] == payloads

    @both_families
    @pytest.mark.parametrize("way", SENDS)
    def test_a_burst_to_the_kernel_comes_whole_and_in_order(self, wire, version, way):
        payloads = [bytes([i]) * (1 + 13 * i) for i in range(BURST)]
        with host_socket(version) as sock:
            port = sock.getsockname()[1]
            sender(wire.device, way)([wire.datagram(version, port, payload) for payload in payloads])
            assert [sock.recv(2000) for _ in payloads] == payloads

    @both_families
    def test_a_packet_of_the_whole_mtu(self, wire, version):
        payload = os.urandom(wire.device.mtu - {4: 28, 6: 48}[version])
        with host_socket(version) as sock:
            sock.sendto(payload, (PEER[version], PORT))
            assert wire.receive()[0].payload == payload
            wire.device.send(wire.datagram(version, sock.getsockname()[1], payload))
            assert sock.recv(2000) == payload

    def test_a_part_of_a_batch(self, wire):
        batch = wire.device.batch(6)
        with host_socket(4) as sock:
            port = sock.getsockname()[1]
            batch.fill([wire.datagram(4, port, bytes([i])) for i in range(6)])
            assert wire.device.send_batch(batch, start=2, stop=5) == 3
            assert [sock.recv(10) for _ in range(3)] == [b"\2", b"\3", b"\4"]

    @pytest.mark.parametrize(
        ("where", "payloads"),
        [([4, 1, 1], b"\4\1\1"), ([True, False, False, True, False, True], b"\0\3\5"), ([], b"")],
    )
    def test_a_selection_of_a_batch(self, wire, where, payloads):
        batch = wire.device.batch(6)
        with host_socket(4) as sock:
            port = sock.getsockname()[1]
            batch.fill([wire.datagram(4, port, bytes([i])) for i in range(6)])
            batch.data[2, :] = 0xFF
            assert wire.device.send_batch(batch, where=where) == len(payloads)
            assert wire.device.send_batch(batch, where=[5, 0], start=1) == 1
            assert b"".join(sock.recv(10) for _ in range(len(payloads) + 1)) == payloads + b"\0"

    @pytest.mark.parametrize("way", ["recv_into", "recv_vectored"])
    def test_one_that_is_larger_than_the_buffer(self, wire, way):
        """Is said to be cut, harms nothing behind the buffer, and the next one comes whole."""
        memory = bytearray(b"\xa5" * 120)
        room = memoryview(memory)[: wire.overhead + 40]
        receive = wire.device.recv_into if way == "recv_into" else wire.device.recv_vectored
        where = room if way == "recv_into" else [room[:15], room[15:]]
        send_out(4, bytes(100), b"next")
        destination = slice(wire.overhead + 16, wire.overhead + 20)
        while memory[destination] != socket.inet_aton(PEER[4]):  # else it is something the system says
            with pytest.raises(PacketError) as caught:
                for_ever(receive, where, PATIENCE)
            explained(caught)
        assert str(len(room)) in str(caught.value)
        assert set(memory[len(room) :]) == {0xA5}
        assert wire.receive()[0].payload == b"next"

    def test_one_that_is_larger_than_its_slot(self, wire):
        batch = PacketBatch(8, wire.overhead + 40)
        cut = []

        def call(timeout):
            wire.device.recv_batch(batch, timeout)
            cut.extend(bytes(batch[i]) for i in batch.truncated)
            return [bytes(packet) for i, packet in enumerate(batch) if i not in batch.truncated]

        send_out(4, b"short", bytes(100), b"next")
        assert [datagram.payload for datagram in wire.receive(2, call)] == [b"short", b"next"]
        (ours,) = [packet for packet in map(wire.packet, cut) if packet and packet[9] == 17]
        assert len(ours) == 40
        assert ours[2:4] == (128).to_bytes(2, "big")

    def bad_frame(self, wire):
        """What is no packet for this device."""
        return b"\x02" * 13 if wire.mac else b"\x05" + bytes(39)

    def test_what_is_no_packet(self, wire):
        bad = [self.bad_frame(wire)]
        bad += [b"\x02"] if wire.mac else [bytes([nibble << 4]) + bytes(39) for nibble in (0, 1, 5, 7, 15)]
        for frame in bad:
            for way in SENDS:
                with pytest.raises(PacketError) as caught:
                    sender(wire.device, way)([frame])
                explained(caught, wire.device.name)
        for frame in (b"", b"\x45" * 65536):
            with pytest.raises(ValueError, match="65535"):
                wire.device.send(frame)
        wire.settle()

    @pytest.mark.parametrize("k", [0, 3])
    def test_a_bad_packet_in_a_batch(self, wire, k):
        """Those in front have gone; the next call says why; the rest goes on from behind it."""
        device = wire.device
        payloads = [bytes([i]) for i in range(6)]
        with host_socket(4) as sock:
            port = sock.getsockname()[1]
            frames = [wire.datagram(4, port, payload) for payload in payloads]
            frames[k] = self.bad_frame(wire)
            batch = device.batch(6)
            batch.fill(frames)
            if k:
                assert device.send_batch(batch) == k
            with pytest.raises(PacketError):
                device.send_batch(batch, start=k)
            assert device.send_batch(batch, start=k + 1) == 5 - k
            assert [sock.recv(10) for _ in range(5)] == payloads[:k] + payloads[k + 1 :]


class TestWaiting:
    @pytest.mark.parametrize("way", RECEIVES)
    def test_time_out(self, device, way):
        receive = receiver(device, way)
        for timeout in (0, 0.05):
            deadline = time.monotonic() + PATIENCE
            while True:  # until the system says nothing of its own for so long
                assert time.monotonic() < deadline
                begin = time.monotonic()
                with contextlib.suppress(TimeoutError):
                    receive(timeout)
                    continue
                assert timeout * 0.98 <= time.monotonic() - begin < timeout + BOUND
                break
        spent = time.process_time()
        with contextlib.suppress(TimeoutError):
            receive(0.2)
        assert time.process_time() - spent < 0.1, "it spins"

    @pytest.mark.parametrize(
        ("end", "error"), [("interrupt", InterruptError), ("shutdown", ClosedError), ("close", ClosedError)]
    )
    def test_ends_when_another_thread_ends_it(self, device, end, error):
        threads = [blocked(receiver(device, way)) for way in RECEIVES]
        begin = time.monotonic()
        with takes():
            getattr(device, end)()
        for thread in threads:
            ended(thread, error, begin)

    def test_an_interrupt_is_once(self, wire):
        thread = blocked(wire.device.recv)
        begin = time.monotonic()
        wire.device.interrupt()
        assert ended(thread, InterruptError, begin).errno == errno.EINTR
        send_out(4, b"after")
        assert wire.receive()[0].payload == b"after"

    def test_the_interface_stays_after_shutdown_until_close(self, device):
        device.shutdown()
        for call in (device.recv, lambda: device.send(b"\x45" * 20)):
            with takes(), pytest.raises(ClosedError) as caught:
                call()
            explained(caught, device.name)
        name = device.name
        assert name in tuntap.interfaces()
        assert device.is_up
        assert listed(device) == sorted(ADDRESSES.values())
        device.mtu = MTUS[0]
        assert device.mtu == MTUS[0]
        device.close()
        assert name not in tuntap.interfaces()

    @pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="signals come another way here")
    @pytest.mark.parametrize("way", RECEIVES)
    def test_ctrl_c(self, wire, way):
        moments = []

        def press():
            time.sleep(0.08)
            moments.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)

        receive = receiver(wire.device, way)
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        thread = threading.Thread(target=press)
        thread.start()
        try:
            with pytest.raises(KeyboardInterrupt):
                for_ever(receive)
            assert time.monotonic() - moments[0] < BOUND
        finally:
            thread.join()
            signal.signal(signal.SIGINT, before)
        send_out(4, b"after")
        assert wire.receive(1, receive)[0].payload == b"after"

    def test_ends_when_the_interface_is_deleted(self, device):
        name = device.name
        threads = [blocked(receiver(device, way)) for way in RECEIVES]
        begin = time.monotonic()
        if not delete_under(device):
            assert all(thread.is_alive() for thread in threads)
            assert device.name in tuntap.interfaces()
            device.close()
            for thread in threads:
                thread.join(PATIENCE)
            return
        for thread in threads:
            assert name in str(ended(thread, DeviceGoneError, begin))
        for call in (device.recv, lambda: device.send(b"\x45" * 20), lambda: device.mtu, device.up):
            with takes(), pytest.raises(DeviceGoneError) as caught:
                call()
            explained(caught, name)

    def test_of_a_device_that_is_down(self, wire):
        """A receiver waits on, in peace, and gets what comes when it is up again."""
        device = wire.device
        with contextlib.suppress(TimeoutError):
            for_ever(device.recv, 0)
        found = []
        thread = CallThread(lambda: found.extend(wire.receive())).wait_until_blocked()
        device.down()
        spent = time.process_time()
        time.sleep(0.3)
        assert time.process_time() - spent < 0.1, "it spins"
        assert thread.is_alive()
        device.up()
        eventually(lambda: source_towards(4) == HOST[4])
        send_out(4, b"after")
        thread.join(PATIENCE)
        assert thread.error is None
        assert [datagram.payload for datagram in found] == [b"after"]

    def test_sending_on_a_device_that_is_down(self, wire):
        device = wire.device
        frame = wire.datagram(4, 1, b"x")
        batch = device.batch(2)
        batch.fill([frame] * 2)
        device.down()
        for timeout in (None, 0, 0.5):
            for call in (
                lambda timeout: device.send(frame, timeout),
                lambda timeout: device.send_vectored([frame[:9], frame[9:]], timeout),
                lambda timeout: device.send_batch(batch, timeout),
            ):
                with takes(), pytest.raises(LinkDownError, match="up") as caught:
                    call(timeout)
                explained(caught, device.name)
        device.up()
        wire.settle(4)


class Told:
    """The events of a device, one after the other; those nobody asks about are passed over."""

    def __init__(self, device):
        self.events = device.events()

    def next(self, kind, value=None):
        deadline = time.monotonic() + PATIENCE
        while True:
            event = self.events.get(max(deadline - time.monotonic(), 0))
            if event.kind == kind and value in (None, event.value):
                return event


@pytest.mark.skipif("events" not in CAN, reason="this system tells nothing of its interfaces")
class TestEvents:
    def test_of_the_link_and_of_addresses(self, kind, opens):
        device = opens(kind, mtu=1400)
        device.down()
        told = Told(device)
        device.up()
        told.next("up")
        device.mtu = 1300
        told.next("mtu", 1300)
        for version in (4, 6):
            address = ipaddress.ip_interface(ADDRESSES[version])
            device.add_address(ADDRESSES[version])
            told.next("address_added", address)
            device.remove_address(ADDRESSES[version])
            told.next("address_removed", address)
        device.down()
        told.next("down")

    def test_of_the_end(self, device):
        told = Told(device)
        if not delete_under(device):
            pytest.skip("this system deletes no interface that is open")
        told.next("gone")
        assert list(told.events) == []

    def test_end_with_the_device(self, device):
        told = Told(device)
        thread = blocked(told.events.get)
        begin = time.monotonic()
        device.close()
        ended(thread, ClosedError, begin)


class TestAsync:
    @pytest.fixture
    def device(self, kind, opens):
        return opens({Tun: aio.Tun, Tap: aio.Tap}[kind], addresses=ADDRESSES.values())

    def settled(self, device):
        """The same interface looked at without a loop: settling blocks."""
        plain = {aio.Tun: Tun, aio.Tap: Tap}[type(device)]

        class Plain:
            mac = device.mac if plain is Tap else None
            recv = staticmethod(lambda timeout: plain.recv(device, timeout))
            send = staticmethod(lambda packet: plain.send(device, packet))

        wire = Wire.__new__(Wire)
        wire.device, wire.mac = Plain, Plain.mac
        return wire.settle()

    @both_families
    def test_there_and_back(self, device, version):
        wire = self.settled(device)

        async def run():
            with host_socket(version) as sock:
                for payload in (b"ready at once", b"waited for"):
                    receiving = asyncio.ensure_future(first_datagram())
                    if payload == b"waited for":
                        await asyncio.sleep(0.05)
                    sock.sendto(payload, (PEER[version], PORT))
                    datagram = await asyncio.wait_for(receiving, PATIENCE)
                    assert datagram.payload == payload
                    assert datagram.sport == sock.getsockname()[1]
                    await device.send(wire.datagram(version, datagram.sport, payload[::-1]))
                    assert sock.recv(100) == payload[::-1]

        async def first_datagram():
            while not (datagram := wire.read(await device.recv())):
                pass
            return datagram

        asyncio.run(run())

    def test_batches(self, device):
        wire = self.settled(device)

        async def run():
            batch = device.batch(8)
            payloads = [bytes([i]) * 50 for i in range(BURST)]
            send_out(4, *payloads)
            found = []
            while len(found) < BURST:
                count = await device.recv_batch(batch, PATIENCE)
                found += filter(None, [wire.read(bytes(frame)) for frame in batch])
                assert count == batch.count
            assert [datagram.payload for datagram in found] == payloads

        asyncio.run(run())

    @pytest.mark.parametrize(
        ("end", "error"), [("interrupt", InterruptError), ("shutdown", ClosedError), ("close", ClosedError)]
    )
    @pytest.mark.parametrize("where", ["in the loop", "in a thread"])
    def test_ends_when_somebody_ends_it(self, device, end, error, where):
        async def receive():
            while True:
                await device.recv()

        async def run():
            task = asyncio.ensure_future(receive())
            await asyncio.sleep(0.05)
            assert not task.done()
            with takes():
                if where == "in the loop":
                    getattr(device, end)()
                else:
                    await asyncio.to_thread(getattr(device, end))
                with pytest.raises(error):
                    await asyncio.wait_for(task, PATIENCE)

        asyncio.run(run())

    def test_time_out(self, device):
        async def run():
            deadline = time.monotonic() + PATIENCE
            while time.monotonic() < deadline:
                try:
                    await device.recv(0.05)
                except TimeoutError:
                    return
            pytest.fail("no time-out")

        asyncio.run(run())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
class TestFork:
    def test_a_child_uses_and_closes_the_device_and_the_parent_goes_on(self, wire):
        device = wire.device
        with host_socket(4) as sock:
            port = sock.getsockname()[1]
            sock.sendto(b"for the child", (PEER[4], PORT))

            def child():
                assert wire.receive(timeout=5)[0].payload == b"for the child"
                assert device.mtu == 1400
                device.send(wire.datagram(4, port, b"from the child"))
                device.close()
                with pytest.raises(ClosedError):
                    device.recv()

            reap(fork(child))
            assert sock.recv(100) == b"from the child"
            assert device.name in tuntap.interfaces()
            assert listed(device) == sorted(ADDRESSES.values())
            device.send(wire.datagram(4, port, b"from the parent"))
            assert sock.recv(100) == b"from the parent"
            sock.sendto(b"for the parent", (PEER[4], PORT))
            assert wire.receive()[0].payload == b"for the parent"

    def test_a_child_that_closes_ends_no_wait_of_the_parent(self, wire):
        found = []
        thread = CallThread(lambda: found.extend(wire.receive())).wait_until_blocked()
        reap(fork(wire.device.close))
        assert thread.is_alive()
        send_out(4, b"for the parent")
        thread.join(PATIENCE)
        assert thread.error is None
        assert [datagram.payload for datagram in found] == [b"for the parent"]


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="users change another way here")
class TestRights:
    def test_an_ordinary_user_is_told_what_is_missing(self, kind):
        reader, writer = os.pipe()

        def child():
            try:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            except OSError as error:
                os.write(writer, f"cannot {error}".encode())
                return
            try:
                kind()
                os.write(writer, b"it was opened")
            except PrivilegeError as error:
                os.write(writer, f"refused {error.errno} {error}".encode())
            except Exception as error:
                os.write(writer, f"failed {error!r}".encode())

        reap(fork(child))
        os.close(writer)
        with open(reader) as file:
            said = file.read()
        if said.startswith("cannot"):
            pytest.skip(f"there is no other user here: {said}")
        word, number, text = said.split(" ", 2)
        assert word == "refused", said
        assert int(number)
        assert "root" in text
