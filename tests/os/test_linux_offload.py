"""Devices opened with offload: what the kernel hands over, what it is given, and what a device says of it."""

import contextlib
import errno
import fcntl
import os
import random
import select
import socket
import struct
import threading
import time

import ethtool
import numpy as np
import old_kernel
import pytest
import superpackets as make
from superpackets import ACK, FIN, KINDS, PSH, SYN, Watch, after_a_hop, header_for, layout_of, packet

import tuntap
from tuntap import offload, testing

ALL = frozenset({"checksum", "tcp4", "tcp6", "udp"})
FEATURES = {
    "tx-checksum-ip-generic": "checksum", "tx-tcp-segmentation": "tcp4", "tx-tcp6-segmentation": "tcp6",
    "tx-udp-segmentation": "udp",
}  # fmt: skip
NOISE = random.Random(7).randbytes(1 << 16)
TIMESTAMPS = bytes.fromhex("0101080a0102030405060708")
UDP_SEGMENT = 103  # linux/udp.h
HERE, THERE = {4: "10.0.0.1", 6: "fd00::1"}, {4: "10.0.0.2", 6: "fd00::2"}
ADDRESSES = ["10.0.0.1/24", "fd00::1/64"]
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
TUNSETOFFLOAD, TUNSETVNETHDRSZ, TUNGETVNETHDRSZ = 0x400454D0, 0x400454D8, 0x800454D7
TUNSETVNETLE, TUNSETVNETBE, TUNGETVNETLE, TUNGETVNETBE = 0x400454DC, 0x400454DE, 0x800454DD, 0x800454DF
EVERY_OFFLOAD = 0x67


def granted(name):
    """What the kernel hands over unfinished, as ethtool tells."""
    return {FEATURES[feature] for feature in ethtool.features(name) if feature in FEATURES}


def is_valid(data, mtu=1500):
    """Whether the lengths and checksums of a packet are right."""
    protocol, at, _ = layout_of(data)
    if data[0] >> 4 == 4:
        addresses, size = data[12:20], int.from_bytes(data[2:4], "big")
        if testing.checksum(data[: (data[0] & 15) * 4]) != 0:
            return False
    else:
        addresses, size = data[8:40], 40 + int.from_bytes(data[4:6], "big")
    if protocol == make.UDP and data[at + 4 : at + 6] != (len(data) - at).to_bytes(2, "big"):
        return False
    pseudo = make.fold(addresses, protocol + len(data) - at)
    return size == len(data) <= mtu and testing.checksum(data[at:], pseudo) == 0


def identification(data):
    return int.from_bytes(data[4:6], "big")


def drain(device, batch):
    """Everything that is there."""
    packets = []
    with contextlib.suppress(TimeoutError):
        while True:
            device.recv_batch(batch, timeout=0)
            packets += [one.tobytes() for one in batch]
    return packets


# --- what the kernel makes of a program's data ---


class Peer:
    """The other end of a TCP connection of the kernel, behind a device: it loses nothing."""

    def __init__(self, device, version, link=b"", answer_link=b"", capacity=64):
        self.device, self.batch = device, device.batch(capacity)
        self.link, self.answer_link = link, answer_link
        self.fields = {
            "kind": f"tcp{version}", "hosts": (THERE[version], HERE[version]), "sport": 80, "window": 65535,
        }  # fmt: skip
        self.packets, self.received, self.seq, self.ack, self.acknowledged = [], bytearray(), 1000, 0, 1000

    def segment(self, payload=b"", seq=None, **fields):
        seq = self.seq if seq is None else seq
        data = packet(payload=payload, seq=seq, ack=self.ack, **self.fields, **fields)
        return self.answer_link + data

    def turn(self):
        """Take what has come, and acknowledge it."""
        with contextlib.suppress(TimeoutError):
            self.device.recv_batch(self.batch, timeout=0.01)
            for one in self.batch:
                if one[: len(self.link)].tobytes() == self.link:
                    self.take(one[len(self.link) :].tobytes())

    def take(self, data):
        _, at, payload = layout_of(data)
        seq, acknowledged = struct.unpack_from("!II", data, at + 4)
        flags = data[at + 13]
        self.packets.append(data)
        if flags & SYN:
            self.fields["dport"] = int.from_bytes(data[at : at + 2], "big")
            self.ack = (seq + 1) % 2**32
            # A largest segment of 1400 bytes and a window of 8 MiB.
            self.device.send(self.segment(flags=SYN | ACK, options=b"\2\4\x05\x78\1\3\3\7"))
            self.seq += 1
            return
        self.acknowledged = acknowledged
        if payload < len(data):
            if seq == self.ack:
                self.received += data[payload:]
                self.ack = (self.ack + len(data) - payload) % 2**32
            self.device.send(self.segment())


@contextlib.contextmanager
def connection(peer, version):
    """A socket of the kernel connected to a peer."""
    with socket.socket(FAMILIES[version], socket.SOCK_STREAM) as client:
        client.setblocking(False)
        # Nothing of it is left when the next device has these addresses.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert client.connect_ex((THERE[version], 80)) == errno.EINPROGRESS
        while client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or not is_connected(client):
            peer.turn()
        yield client


def is_connected(client):
    with contextlib.suppress(OSError):
        client.getpeername()
        return True
    return False


def upload(client, peer, size=400_000):
    """Have the kernel send; what it sent."""
    content = (NOISE * (size // len(NOISE) + 1))[:size]
    left = memoryview(content)
    while left or len(peer.received) < size:
        with contextlib.suppress(BlockingIOError):
            left = left[client.send(left) :] if left else left
        peer.turn()
    return content


@pytest.mark.parametrize("capacity", [7, 64])
@pytest.mark.parametrize("version", [4, 6])
def test_tcp_of_the_kernel_is_split(net, local_route, version, capacity):
    with tuntap.Tun("o0", offload=True, addresses=ADDRESSES, quiet=True, mtu=1440) as tun:
        local_route("fd00::1")
        peer = Peer(tun, version, capacity=capacity)
        with connection(peer, version) as client:
            content = upload(client, peer)
        packets = list(peer.packets)
        # They were handed over many at a time.
        assert tun.stats.tx_packets < len(packets) / 2
    assert bytes(peer.received) == content
    assert all(is_valid(one, 1440) for one in packets)
    segments = [one for one in packets if len(one) > layout_of(one)[2]]
    assert max(map(len, segments)) == 1440
    if version == 4:
        first = identification(segments[0])
        assert [identification(one) for one in segments] == [
            (first + i) % 65536 for i in range(len(segments))
        ]


@pytest.mark.parametrize("version", [4, 6])
def test_udp_of_the_kernel_is_split(net, local_route, version):
    """UDP_SEGMENT, sizes that fit exactly, with a tail, and a single one."""
    with (
        tuntap.Tun("o0", offload=True, addresses=ADDRESSES, quiet=True) as tun,
        socket.socket(FAMILIES[version], socket.SOCK_DGRAM) as client,
    ):
        local_route("fd00::1")
        client.connect((THERE[version], 9))
        batch = tun.batch(128)
        sizes = [(1000, 1000), (40_000, 1000), (40_001, 1000), (500, 1000), (65_000, 1400), (128, 1), (1, 1)]
        for size, segment in [*sizes, (1452, 0)]:
            client.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, segment)
            client.send(NOISE[:size])
            packets = drain(tun, batch)
            parts = [NOISE[at : min(at + (segment or size), size)] for at in range(0, size, segment or size)]
            assert [one[layout_of(one)[2] :] for one in packets] == parts
            assert all(map(is_valid, packets))
            if version == 4:
                first = identification(packets[0])
                assert [identification(one) for one in packets] == [
                    (first + i) % 65536 for i in range(len(packets))
                ]
        # Each was handed over whole.
        assert tun.stats.tx_packets == len(sizes) + 1


# --- what was granted ---


def test_offload_names_what_the_kernel_granted(net):
    with tuntap.Tun("o0", offload=True, quiet=True) as tun:
        assert tun.offload == granted("o0") == ALL
    with tuntap.Tun("o0", offload=True, udp_gso=False, quiet=True) as tun:
        assert tun.offload == granted("o0") == ALL - {"udp"}
    with tuntap.Tun("o0", quiet=True) as tun:
        assert tun.offload == granted("o0") == frozenset()


def test_offload_can_be_set(net):
    with tuntap.Tun("o0", offload=True, quiet=True) as tun:
        for wanted in ({"tcp4"}, {"udp"}, {"tcp4", "tcp6"}, {"checksum"}, set(), ALL):
            tun.offload = wanted
            # The others need the checksum.
            assert tun.offload == granted("o0") == wanted | ({"checksum"} if wanted else set())


def test_offload_that_is_switched_off_is_not_used_for_sending(net):
    with tuntap.Tun("o0", offload=True, quiet=True) as tun, Watch("o0") as watch:
        packets = [packet("tcp4", bytes(100), seq=100 * i, ident=i) for i in range(5)]
        batch = tun.batch()
        for wanted, count in (({"tcp6", "udp"}, 5), (set(), 5), ({"tcp4"}, 1)):
            tun.offload = wanted
            batch.fill(packets)
            assert tun.send_batch(batch) == 5
            assert len(watch.everything()) == count


@pytest.mark.parametrize("wanted", [["tcp5"], "tcp4", [1], None, 5, True])
def test_offload_that_means_nothing(net, wanted):
    with tuntap.Tun("o0", offload=True, quiet=True) as tun:
        with pytest.raises((ValueError, TypeError)):
            tun.offload = wanted
        assert tun.offload == ALL


def test_offload_of_a_device_that_has_no_header(net):
    with tuntap.Tun("o0", quiet=True) as tun, pytest.raises(tuntap.UnsupportedError):
        tun.offload = {"tcp4"}


@pytest.mark.parametrize(
    "options",
    [
        {"offload": True, "packet_information": True},
        {"offload": "superpackets", "packet_information": True},
        {"checksums": False},
        {"offload": "superpacket"},
        {"offload": False, "checksums": False},
    ],
)
def test_what_cannot_be_had_together(net, ip, options):
    with pytest.raises(ValueError):
        tuntap.Tun("o0", **options)
    assert ip.names() == []


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("on", [True, False])
def test_without_udp_the_kernel_hands_over_datagrams(net, local_route, version, on):
    with (
        tuntap.Tun("o0", offload="superpackets", udp_gso=on, addresses=ADDRESSES, quiet=True) as tun,
        socket.socket(FAMILIES[version], socket.SOCK_DGRAM) as client,
    ):
        local_route("fd00::1")
        client.connect((THERE[version], 9))
        client.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1000)
        client.send(NOISE[:20_000])
        batch = tun.batch(32)
        count = tun.recv_batch(batch, timeout=0)
        assert batch.headers["gso_type"][:count].tolist() == ([make.UDP_L4] if on else [0] * 20)


# --- what another program left behind ---


def test_offload_of_another_program_ends(net, raw, make_persistent):
    """On a persistent interface it outlives the program."""
    make_persistent("p0")
    fd = raw.attach("p0", raw.TUN | raw.NO_PI | raw.VNET_HDR)
    fcntl.ioctl(fd, TUNSETOFFLOAD, EVERY_OFFLOAD)
    raw.close(fd)
    assert granted("p0") == ALL
    with tuntap.Tun("p0", quiet=True):
        assert granted("p0") == set()
    with tuntap.Tun("p0", offload=True, udp_gso=False):
        assert granted("p0") == ALL - {"udp"}
    with tuntap.Tun("p0"):
        assert granted("p0") == set()


@pytest.mark.parametrize("size", [11, 12, 20, 24])
@pytest.mark.parametrize("mode", [True, "superpackets"])
def test_a_larger_header_of_another_program_does_no_harm(net, raw, make_persistent, routed, mode, size):
    make_persistent("gso1")
    fd = raw.attach("gso1", raw.TUN | raw.NO_PI | raw.VNET_HDR)
    fcntl.ioctl(fd, TUNSETVNETHDRSZ, struct.pack("i", size))
    raw.close(fd)
    source, target = routed(offload=mode)
    (expected,) = source.send_super_packets([super_packet("tcp4", 5000, 1000)])
    batch = target.batch(16)
    assert target.recv_batch(batch, timeout=5) == (5 if mode is True else 1)
    received = [one.tobytes() for one in batch]
    if mode is True:
        assert received == expected
    else:
        assert offload.split(received[0], batch.headers[0]) == expected
    answer = fcntl.ioctl(target.fileno(), TUNGETVNETHDRSZ, bytes(4))
    assert answer == struct.pack("i", 10)


def test_a_byte_order_of_another_program_does_no_harm(net, raw, make_persistent, routed):
    """Where the kernel can be told (CONFIG_TUN_VNET_CROSS_LE); else it is little-endian by name only."""
    make_persistent("gso1")
    fd = raw.attach("gso1", raw.TUN | raw.NO_PI | raw.VNET_HDR)
    fcntl.ioctl(fd, TUNSETVNETLE, struct.pack("i", 1))
    with contextlib.suppress(OSError):
        fcntl.ioctl(fd, TUNSETVNETBE, struct.pack("i", 1))
    raw.close(fd)
    source, target = routed(offload=True)
    assert fcntl.ioctl(target.fileno(), TUNGETVNETLE, bytes(4)) == bytes(4)
    with contextlib.suppress(OSError):
        assert fcntl.ioctl(target.fileno(), TUNGETVNETBE, bytes(4)) == bytes(4)
    (expected,) = source.send_super_packets([super_packet("tcp4", 5000, 1000)])
    assert drain(target, target.batch(16)) == expected


# --- super-packets and batches ---


def super_packet(kind, size, gso_size, **fields):
    data = packet(kind, NOISE[:size], partial=True, **fields)
    return data, header_for(data, gso_size)


class Source:
    """A device from which the kernel routes super-packets to the one that is tested."""

    def __init__(self, tun):
        self.tun = tun

    def send_super_packets(self, pairs):
        """What each is going to be: the packets that splitting it gives."""
        batch = self.tun.batch(len(pairs))
        batch.fill([data for data, _ in pairs])
        for i, (_, header) in enumerate(pairs):
            batch.headers[i] = header
        assert self.tun.send_batch(batch) == len(pairs)
        return [offload.split(after_a_hop(data), header) for data, header in pairs]


@pytest.fixture
def routed(net, sysctl):
    """Open the device under test, and one whose packets the kernel routes to it."""
    sysctl("net/ipv4/ip_forward", 1)
    sysctl("net/ipv6/conf/all/forwarding", 1)
    # What is opened now forwards, but is no router that says so on its link.
    sysctl("net/ipv6/conf/default/forwarding", 0)
    with contextlib.ExitStack() as stack:

        def open_both(open_device=tuntap.Tun, **options):
            source = stack.enter_context(
                tuntap.Tun("gso0", offload="superpackets", addresses=ADDRESSES, quiet=True, mtu=65535)
            )
            options = {
                "addresses": ["10.0.1.1/24", "fd00:1::1/64"], "mtu": 9000, "tx_queue_len": 2000,
                "quiet": True, "up": True, **options,
            }  # fmt: skip
            return Source(source), stack.enter_context(open_device("gso1", **options))

        yield open_both


@pytest.mark.parametrize("capacity", [1, 3, 5, 63, 64, 128])
def test_what_does_not_fit_the_batch_comes_with_the_next_calls(routed, capacity):
    source, tun = routed(offload=True)
    (expected,) = source.send_super_packets([super_packet("tcp4", 40_000, 1000)])
    batch = tun.batch(capacity)
    received = []
    assert tun.pending == 0
    while len(received) < 40:
        count = tun.recv_batch(batch, timeout=0)
        assert count == min(capacity, 40 - len(received))
        received += [one.tobytes() for one in batch]
        assert tun.pending == 40 - len(received)
    assert received == expected
    with pytest.raises(TimeoutError):
        tun.recv_batch(batch, timeout=0)


def test_one_at_a_time(routed):
    source, tun = routed(offload=True)
    expected = source.send_super_packets([super_packet("udp6", 10_000, 1000), super_packet("tcp6", 100, 0)])
    assert [tun.recv(timeout=0) for _ in range(11)] == expected[0] + expected[1]
    assert tun.pending == 0
    with pytest.raises(TimeoutError):
        tun.recv(timeout=0)


def test_a_buffer_that_is_too_small_gets_the_beginning_of_one_segment(routed):
    source, tun = routed(offload=True)
    (expected,) = source.send_super_packets([super_packet("tcp4", 3000, 1000)])
    buffer = bytearray(1040)
    assert tun.recv_into(buffer, timeout=0) == 1040
    assert bytes(buffer) == expected[0]
    small = bytearray(100)
    with pytest.raises(tuntap.PacketError):
        tun.recv_into(small, timeout=0)
    assert bytes(small) == expected[1][:100]
    assert tun.recv(timeout=0) == expected[2]


SHAPES = [
    lambda n: super_packet("tcp4", 14_480, 1448, options=TIMESTAMPS, seq=n, flags=ACK | PSH),
    lambda n: super_packet("tcp4", 14_480 + n % 1448, 1448, options=TIMESTAMPS, seq=n),
    lambda n: super_packet("tcp4", 14_600, 1460, seq=n, ident=n),
    lambda n: super_packet("tcp6", 20_000, 1428, seq=2**32 - n, flags=ACK | FIN),
    lambda n: super_packet("udp4", 30_000 + n, 1400, ident=65535 - n),
    lambda n: super_packet("udp6", 12_345, 1000, extensions=[(make.DESTINATION, b"\1\4\0\0\0\0")]),
    lambda n: super_packet("udp6", 100 + n, 50),
    lambda n: super_packet("tcp4", 65_000, 8948),
    lambda n: super_packet("tcp4", 65_000, 1200),
    lambda n: super_packet("udp4", n % 1472, 0),
    lambda n: super_packet("udp6", 8000 + n % 900, 0),
    lambda n: super_packet("tcp6", 0, 0, flags=ACK),
]


def some_super_packets(rng, count):
    """Steady flows, which a receive learns to predict, and then others, for which it was wrong."""
    pairs = []
    while len(pairs) < count:
        shapes = rng.sample(SHAPES, rng.choice([1, 1, 2, 3]))
        pairs += [rng.choice(shapes)(rng.randrange(1000)) for _ in range(rng.choice([1, 2, 3, 6]))]
    return pairs


def guarded(capacity, slot, headroom):
    """A batch of the caller's own memory, without a byte to spare, between guards."""
    memory = np.full(4096 + capacity * (headroom + slot) + 4096, 0xA5, np.uint8)
    inner = memory[4096:-4096].reshape(capacity, headroom + slot)
    batch = tuntap.PacketBatch.wrap(inner, np.zeros(capacity, np.int32), headroom)

    def intact():
        edges = (memory[:4096], memory[-4096:], batch.buffer[:, :headroom])
        return all(bool((edge == 0xA5).all()) for edge in edges)

    return batch, intact


@pytest.mark.parametrize("headroom", [0, 50])
@pytest.mark.parametrize("capacity", [1, 3, 63, 64, 128, 200])
def test_whatever_a_receive_expects_what_comes_is_right(routed, capacity, headroom):
    source, tun = routed(offload=True)
    rng = random.Random(capacity)
    batch, intact = guarded(capacity, 9000, headroom)
    for _ in range(12):
        pairs = some_super_packets(rng, 8)
        expected = [one for packets in source.send_super_packets(pairs) for one in packets]
        assert drain(tun, batch) == expected
        assert intact()


def test_every_way_to_receive_in_turn(routed):
    source, tun = routed(offload=True)
    rng = random.Random(3)
    batches = [tun.batch(capacity, headroom) for capacity, headroom in ((1, 0), (3, 9), (64, 0), (128, 1))]
    buffer = bytearray(9000)
    large = bytearray(20_000)
    expected, received = [], []
    for turn in range(3000):
        if turn % 100 == 0:
            pairs = some_super_packets(rng, 6)
            expected += [one for packets in source.send_super_packets(pairs) for one in packets]
        way = rng.randrange(4)
        try:
            if way == 0:
                received.append(tun.recv(timeout=0))
            elif way == 1:
                received.append(bytes(buffer[: tun.recv_into(buffer, timeout=0)]))
            elif way == 2:
                received.append(bytes(large[: tun.recv_into(large, timeout=0)]))
            else:
                batch = rng.choice(batches)
                tun.recv_batch(batch, timeout=0)
                received += [one.tobytes() for one in batch]
        except TimeoutError:
            assert tun.pending == 0
            assert len(received) == len(expected)
    received += drain(tun, batches[2])
    assert received == expected


@pytest.mark.parametrize("capacity", [5, 64, 140])
def test_slots_that_are_too_small(routed, capacity):
    """Each gets the beginning of its segment, and `truncated` names it."""
    source, tun = routed(offload=True)
    batch, intact = guarded(capacity, 700, 10)
    for _ in range(2):
        sizes = [1000, 1000, 1000, 500, 500, 500, 661, 661, 661, 660, 660, 660]
        pairs = [super_packet("tcp4", 10_000, gso_size) for gso_size in sizes]
        expected = [one for packets in source.send_super_packets(pairs) for one in packets]
        received, cut = [], []
        with contextlib.suppress(TimeoutError):
            while True:
                tun.recv_batch(batch, timeout=0)
                cut += [len(received) + i for i in batch.truncated]
                received += [one.tobytes() for one in batch]
        assert received == [one[:700] for one in expected]
        assert cut == [i for i, one in enumerate(expected) if len(one) > 700]
        assert intact()


def test_super_packets_as_they_are(routed):
    source, tun = routed(offload="superpackets")
    rng = random.Random(11)
    for capacity in (1, 3, 8):
        batch = tun.batch(capacity)
        assert batch.slot_size >= 65535
        pairs = some_super_packets(rng, 20)
        expected = source.send_super_packets(pairs)
        received = []
        with contextlib.suppress(TimeoutError):
            while True:
                count = tun.recv_batch(batch, timeout=0)
                received += [(batch[i].tobytes(), batch.headers[i].copy()) for i in range(count)]
        assert [offload.split(data, header) for data, header in received] == expected
        assert [header["gso_size"] for _, header in received] == [header["gso_size"] for _, header in pairs]


@pytest.mark.parametrize("capacity", [3, 128])
def test_ordinary_packets_have_no_header(routed, capacity):
    """Whatever was in `headers` before, and however they were received."""
    source, tun = routed(offload=True)
    batch = tun.batch(capacity)
    for shape in (SHAPES[0], SHAPES[0], SHAPES[-1], SHAPES[3]):
        count = sum(map(len, source.send_super_packets([shape(0)] * 4)))
        while count:
            batch.headers["gso_size"] = batch.headers["flags"] = 77
            received = tun.recv_batch(batch, timeout=0)
            assert not batch.headers[:received].tobytes().strip(b"\0")
            count -= received


def test_single_receives_of_super_packets_are_split(routed):
    source, tun = routed(offload="superpackets")
    (expected,) = source.send_super_packets([super_packet("tcp4", 5000, 1000)])
    assert [tun.recv(timeout=0) for _ in expected] == expected


def test_segments_left_from_a_single_receive_have_no_header(routed):
    """A batch gets the rest of that super-packet as ordinary packets, and the next one whole."""
    source, tun = routed(offload="superpackets")
    first, second = source.send_super_packets([super_packet("tcp4", 3000, 1000)] * 2)
    assert tun.recv(timeout=0) == first[0]
    batch = tun.batch(4)
    batch.headers["gso_size"] = 77
    received = []
    while len(received) < 3:
        count = tun.recv_batch(batch, timeout=0)
        received += [(batch[i].tobytes(), batch.headers[i].copy()) for i in range(count)]
    assert [data for data, _ in received[:2]] == first[1:]
    assert all(header.tolist() == (0, 0, 0, 0, 0, 0) for _, header in received[:2])
    assert offload.split(*received[2]) == second


# --- unfinished checksums ---


def unfinished(data):
    """The same with the pseudo-header sum where the checksum goes."""
    protocol, at, _ = layout_of(data)
    addresses = data[12:20] if data[0] >> 4 == 4 else data[8:40]
    where = at + (16 if protocol == make.TCP else 6)
    value = make.fold(addresses, protocol + len(data) - at)
    return data[:where] + value.to_bytes(2, "big") + data[where + 2 :]


@pytest.mark.parametrize("capacity", [3, 64, 128])
def test_checksums_can_be_left_unfinished(routed, capacity):
    source, tun = routed(offload=True, checksums=False)
    batch = tun.batch(capacity)
    pairs = [shape(n) for n in (1, 2, 3) for shape in SHAPES]
    expected = [unfinished(one) for packets in source.send_super_packets(pairs) for one in packets]
    assert drain(tun, batch) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_unfinished_is_sent_as_such(routed, kind):
    """Out of one such device and into another: the kernel is told what is missing, and it is all there."""
    source, tun = routed(offload=True, checksums=False)
    with tuntap.Tun("o2", offload=True, checksums=False, quiet=True) as far, Watch("o2") as watch:
        expected = source.send_super_packets([super_packet(kind, 10_000, 1000), super_packet(kind, 500, 0)])
        batch = tun.batch(64)
        assert tun.recv_batch(batch, timeout=5) == 11
        assert not any(is_valid(one.tobytes()) for one in batch)
        assert far.send_batch(batch) == 11
        found = watch.everything()
    assert all(header["flags"] & make.NEEDS_CSUM for header, _ in found)
    assert [one for header, data in found for one in offload.split(data, header)] == expected[0] + expected[1]


# --- TAP ---


MACS = "02:00:00:00:00:01", "02:00:00:00:00:02"


def link_header(version, tag=b""):
    """In front of what the kernel sends to the peer, and of what the peer answers."""
    own, peer = (bytes.fromhex(mac.replace(":", "")) for mac in MACS)
    kind = tag + (b"\x08\0" if version == 4 else b"\x86\xdd")
    return peer + own + kind, own + peer + kind


@pytest.fixture
def tap(net, ip, local_route):
    """A TAP, and a peer on its link whose MAC address is known."""
    with tuntap.Tap("o0", offload=True, mac=MACS[0], addresses=ADDRESSES, quiet=True) as device:
        for version in (4, 6):
            ip("neigh", "replace", THERE[version], "lladdr", MACS[1], "dev", "o0")
        local_route("fd00::1")
        yield device


@pytest.mark.parametrize("version", [4, 6])
def test_a_tap_carries_tcp(tap, version):
    """The kernel's segments are split and the peer's are merged, behind an Ethernet header."""
    peer = Peer(tap, version, *link_header(version))
    with connection(peer, version) as client, Watch("o0") as watch:
        content = upload(client, peer)
        assert bytes(peer.received) == content
        assert all(is_valid(one) for one in peer.packets)
        assert tap.stats.tx_packets < len(peer.packets) / 2
        watch.everything()
        download(client, peer)
        assert [header["gso_type"] for header, _ in watch.everything()] == [
            make.TCPV4 if version == 4 else make.TCPV6
        ]


TAGS = {"Ethernet": b"", "VLAN": b"\x81\0\0\5", "two VLANs": b"\x88\xa8\0\7\x81\0\0\5"}


@pytest.mark.parametrize("tag", TAGS.values(), ids=TAGS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_tap_splits_what_is_behind_tags(tap, kind, tag):
    """A packet socket gives the kernel super-packets with any header; it hands them over as they are."""
    link, _ = link_header(int(kind[3]), tag)
    drain(tap, tap.batch())
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sender:
        sender.setsockopt(make.SOL_PACKET, make.PACKET_VNET_HDR, 1)
        sender.bind(("o0", 0))
        for capacity, size, gso_size in ((64, 10_000, 1000), (3, 10_001, 1000), (64, 1400, 0)):
            data, header = super_packet(kind, size, gso_size)
            expected = [link + one for one in offload.split(data, header)]
            header["csum_start"] += len(link)
            header["hdr_len"] += len(link)
            sender.send(header.tobytes() + link + data)
            received = [one for one in drain(tap, tap.batch(capacity)) if one[:12] == link[:12]]
            assert received == expected


@pytest.mark.parametrize("tag", TAGS.values(), ids=TAGS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_tap_merges_what_is_behind_tags(tap, kind, tag):
    _, link = link_header(int(kind[3]), tag)
    fields = [{"ident": i} | ({"seq": 1000 * i} if kind[:3] == "tcp" else {}) for i in range(10)]
    packets = [packet(kind, NOISE[i : i + 1000], **fields[i]) for i in range(10)]
    batch = tap.batch(10)
    batch.fill([link + one for one in packets])
    with Watch("o0") as watch:
        assert tap.send_batch(batch) == 10
        ((header, frame),) = watch.everything()
    # The kernel has taken the first tag off by then.
    assert frame[-10_000:] == b"".join(NOISE[i : i + 1000] for i in range(10))
    at = len(link) - len(tag[:4])
    header["csum_start"] -= at
    assert offload.split(frame[at:], header) == packets


def download(client, peer, size=40_000):
    """Send as the peer does, in batches."""
    segments = [NOISE[at : at + 1400] for at in range(0, size, 1400)]
    frames = []
    for number, part in enumerate(segments):
        frames.append(peer.segment(part, ident=number))
        peer.seq += len(part)
    batch = tuntap.PacketBatch(len(frames), 2048)
    batch.fill(frames)
    sent = 0
    while sent < len(frames):
        sent += peer.device.send_batch(batch, start=sent)
    client.settimeout(10)
    content = b""
    expected = b"".join(segments)
    while len(content) < len(expected):
        content += client.recv(1 << 16)
    assert content == expected


@pytest.mark.parametrize("version", [4, 6])
def test_tcp_of_a_peer_is_merged(net, local_route, version):
    with tuntap.Tun("o0", offload=True, addresses=ADDRESSES, quiet=True) as tun, Watch("o0") as watch:
        local_route("fd00::1")
        peer = Peer(tun, version)
        with connection(peer, version) as client:
            watch.everything()
            download(client, peer)
            assert len(watch.everything()) == 1


@pytest.mark.parametrize("version", [4, 6])
def test_merged_datagrams_arrive_one_by_one(net, local_route, version):
    """At a socket that knows nothing of it: all of them, in order, none longer."""
    with (
        tuntap.Tun("o0", offload=True, addresses=ADDRESSES, quiet=True) as tun,
        socket.socket(FAMILIES[version], socket.SOCK_DGRAM) as server,
        Watch("o0") as watch,
    ):
        local_route("fd00::1")
        server.bind((HERE[version], 9))
        hosts = (THERE[version], HERE[version])
        parts = [NOISE[i : i + 1200] for i in range(39)] + [NOISE[:7]]
        packets = [packet(f"udp{version}", part, hosts=hosts, ident=i) for i, part in enumerate(parts)]
        batch = tun.batch(64)
        batch.fill(packets)
        assert tun.send_batch(batch) == len(packets)
        assert len(watch.everything()) == 1
        server.settimeout(10)
        assert [server.recv(2000) for _ in parts] == parts


# --- descriptors from elsewhere ---


VNET_HDR = 0x4000


@pytest.fixture
def adopted(routed, raw, ip):
    """The descriptor of a device with virtio-net headers that another program made, and a source."""

    def make_one(**options):
        fd = raw.attach("gso1", raw.TUN | raw.NO_PI | raw.VNET_HDR)
        fcntl.ioctl(fd, TUNSETOFFLOAD, EVERY_OFFLOAD)
        ip("link", "set", "gso1", "addrgenmode", "none")
        ip("link", "set", "gso1", "mtu", "9000", "up")
        for address in ("10.0.1.1/24", "fd00:1::1/64"):
            ip("addr", "add", address, "dev", "gso1")

        def open_adopted(_name, **_options):
            return tuntap.Tun.from_fd(fd, **options)

        source, tun = routed(open_adopted)
        if options.get("owned", True):
            raw.forget(fd)
        return source, tun, fd

    return make_one


@pytest.mark.parametrize("owned", [True, False])
@pytest.mark.parametrize("mode", [None, True, "superpackets"])
def test_a_descriptor_with_headers(adopted, mode, owned):
    """Also a blocking one that is only borrowed: nothing of it is changed, and no call hangs."""
    source, tun, fd = adopted(offload=mode, owned=owned)
    assert tun.offload == ALL
    assert bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK) == owned
    (expected,) = source.send_super_packets([super_packet("tcp4", 30_000, 1000)])
    batch = tun.batch(20)
    if mode == "superpackets":
        assert tun.recv_batch(batch, timeout=0) == 1
        assert offload.split(batch[0], batch.headers[0]) == expected
    else:
        assert drain(tun, batch) == expected
    with pytest.raises(TimeoutError):
        tun.recv(timeout=0.01)
    with Watch("gso1") as watch:
        packets = [packet("tcp6", bytes(100), seq=100 * i) for i in range(20)]
        batch.fill(packets)
        if mode == "superpackets":
            header, data = offload.coalesce(packets)[0]
            batch.fill([data])
            batch.headers[0] = header
        assert tun.send_batch(batch) == batch.count
        assert [header["gso_type"] for header, _ in watch.everything()] == [make.TCPV6]
    tun.close()
    if not owned:
        assert not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK


def test_a_descriptor_with_larger_headers(adopted, raw):
    source, tun, fd = adopted(owned=False)
    tun.close()
    fcntl.ioctl(fd, TUNSETVNETHDRSZ, struct.pack("i", 12))
    with tuntap.Tun.from_fd(fd, owned=False) as tun:
        (expected,) = source.send_super_packets([super_packet("udp6", 30_000, 1000)])
        assert drain(tun, tun.batch(64)) == expected
        with Watch("gso1") as watch:
            batch = tun.batch(10)
            batch.fill([packet("udp4", bytes(100), ident=i) for i in range(10)])
            assert tun.send_batch(batch) == 10
            assert [header["gso_size"] for header, _ in watch.everything()] == [100]
    # It is another program's: what it has set stays.
    assert fcntl.ioctl(fd, TUNGETVNETHDRSZ, bytes(4)) == struct.pack("i", 12)


@pytest.mark.parametrize(("size", "fits"), [(64, True), (65, False), (1_000_000, False)])
@pytest.mark.parametrize("owned", [True, False])
def test_the_longest_header_of_a_descriptor(raw, ip, owned, size, fits):
    """There is room for so much in front of a packet; a longer one is refused, and left as it is."""
    fd = raw.attach("o0", raw.TUN | raw.NO_PI | raw.VNET_HDR)
    fcntl.ioctl(fd, TUNSETVNETHDRSZ, struct.pack("i", size))
    if not fits:
        with pytest.raises(tuntap.UnsupportedError, match="TUNSETVNETHDRSZ"):
            tuntap.Tun.from_fd(fd, owned=owned)
        assert fcntl.ioctl(fd, TUNGETVNETHDRSZ, bytes(4)) == struct.pack("i", size)
        return
    with tuntap.Tun.from_fd(os.dup(fd) if owned else fd, owned=owned) as tun:
        ip("link", "set", "o0", "addrgenmode", "none", "up")
        with Watch("o0") as watch:
            tun.send(packet("udp4", b"x"))
            assert [data for _, data in watch.everything()] == [packet("udp4", b"x")]


def test_wrong_claims_about_a_descriptor(raw):
    fd = raw.attach("o0", raw.TUN | raw.NO_PI | raw.VNET_HDR)
    with pytest.raises(ValueError, match="virtio"):
        tuntap.Tun.from_fd(fd, owned=False, offload=False)
    raw_tap = raw.attach("o1", raw.TAP | raw.NO_PI | raw.VNET_HDR)
    with pytest.raises(ValueError, match="Tap"):
        tuntap.Tun.from_fd(raw_tap, owned=False)
    plain = raw.attach("o2", raw.TUN | raw.NO_PI)
    for mode in (True, "superpackets"):
        with pytest.raises(ValueError, match="virtio"):
            tuntap.Tun.from_fd(plain, owned=False, offload=mode)
    both = raw.attach("o3", raw.TUN | raw.VNET_HDR)
    with pytest.raises(tuntap.UnsupportedError):
        tuntap.Tun.from_fd(both, owned=False)
    for descriptor in (fd, raw_tap, plain, both):
        assert not fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_NONBLOCK


# --- the end, with segments still waiting ---


@pytest.fixture
def waiting(routed):
    """A device with 7 segments of 10 still to deliver."""

    def open_one(**options):
        source, tun = routed(offload=True, **options)
        (expected,) = source.send_super_packets([super_packet("tcp4", 10_000, 1000)])
        queue = next(queue for queue in tun.queues if select.select([queue], [], [], 0)[0])
        assert [queue.recv(timeout=5) for _ in range(3)] == expected[:3]
        assert queue.pending == 7
        return queue, expected[3:]

    return open_one


def test_a_link_that_goes_down(waiting):
    """What was read is delivered; then a receive waits for the link."""
    tun, left = waiting()
    tun.down()
    assert drain(tun, tun.batch(64)) == left
    with pytest.raises(TimeoutError):
        tun.recv(timeout=0.01)
    batch = tun.batch(5)
    batch.fill([packet("tcp4", bytes(100), seq=100 * i, ident=i) for i in range(5)])
    with pytest.raises(tuntap.LinkDownError):
        tun.send_batch(batch)
    with pytest.raises(tuntap.LinkDownError):
        tun.send(left[0])
    # That was no refusal of a super-packet.
    assert tun.offload == ALL
    tun.up()
    assert tun.send_batch(batch) == 5


def test_an_interface_that_is_deleted(waiting):
    tun, left = waiting()
    batch = tun.batch(64)
    tuntap.delete("gso1")
    assert tun.recv_batch(batch, timeout=5) == 7
    assert [one.tobytes() for one in batch] == left
    with pytest.raises(tuntap.DeviceGoneError):
        tun.recv_batch(batch, timeout=5)
    batch.fill([packet("tcp4", bytes(100), seq=100 * i, ident=i) for i in range(5)])
    with pytest.raises(tuntap.DeviceGoneError):
        tun.send_batch(batch)
    assert tun.offload == ALL


@pytest.mark.parametrize("end", ["close", "shutdown"])
def test_a_device_that_is_ended(waiting, end):
    tun, _ = waiting()
    getattr(tun, end)()
    for receive in (lambda: tun.recv(timeout=5), lambda: tun.recv_batch(tun.batch(5), timeout=5)):
        with pytest.raises(tuntap.ClosedError):
            receive()


def test_a_device_that_is_interrupted(waiting):
    """It is for whoever waits; what is there needs no waiting."""
    tun, left = waiting()
    tun.interrupt()
    assert [tun.recv(timeout=5) for _ in left] == left
    with pytest.raises(tuntap.InterruptError):
        tun.recv(timeout=5)


def test_a_queue_that_is_detached(waiting):
    queue, left = waiting(queues=2)
    queue.detach()
    assert [queue.recv(timeout=0) for _ in left] == left
    with pytest.raises(TimeoutError):
        queue.recv(timeout=0.01)
    queue.attach()
    assert queue.pending == 0


@pytest.mark.parametrize("end", ["close", "shutdown", "interrupt"])
def test_a_thread_that_waits_for_super_packets(routed, end):
    source, tun = routed(offload=True)
    batch, outcome = tun.batch(64), []
    ready = threading.Event()

    def body():
        try:
            outcome.append(tun.recv_batch(batch))
            ready.set()
            tun.recv_batch(batch)
        except tuntap.TunTapError as error:
            outcome.append(type(error))

    thread = threading.Thread(target=body)
    thread.start()
    source.send_super_packets([super_packet("tcp4", 10_000, 1000)])
    assert ready.wait(10)
    getattr(tun, end)()
    thread.join(10)
    assert not thread.is_alive()
    assert outcome == [10, tuntap.InterruptError if end == "interrupt" else tuntap.ClosedError]


@pytest.mark.skipif(old_kernel.POLL is None, reason="seccomp's numbers of this CPU are not known")
@pytest.mark.parametrize("timeout", [5.0, None])
def test_segments_that_another_thread_left_end_a_wait(routed, timeout):
    """Read between a look at the descriptor and the wait for it: it shows nothing of them any more."""
    source, tun = routed(offload=True)
    sent = []

    def meanwhile():
        if not sent:
            sent.extend(source.send_super_packets([super_packet("udp4", 4000, 1000)])[0])
            assert tun.recv(timeout=1) == sent[0]
            assert tun.pending == 3
        return 0

    with pytest.raises(TimeoutError):
        tun.recv(timeout=0)
    begin = time.monotonic()
    guard = threading.Timer(4, tun.interrupt)  # so that a failure does not hang
    guard.start()
    assert old_kernel.run(lambda: tun.recv(timeout), meanwhile, old_kernel.POLL) == sent[1]
    guard.cancel()
    guard.join()
    assert time.monotonic() - begin < 3
    assert drain(tun, tun.batch(4)) == sent[2:]
