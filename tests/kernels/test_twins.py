"""The twins themselves, against packets that scapy made and what Linux is known to refuse and to merge."""

import struct

import flows
import pytest
import twins

from tuntap import testing

# The fields of the virtio-net header, a super-packet as the kernel hands it over, and what it stands for.
VECTORS = {
    # Sequence number and identification wrap; CWR goes with the first, FIN and PSH with the last segment.
    "tcp4": (
        (1, 0x81, 40, 3, 20, 16),
        "45020030ffff4000400626c40a0000010a00000203e80050fffffffe0000000750d901f4142500006162636465666768",
        [
            "4502002bffff4000400626c90a0000010a00000203e80050fffffffe0000000750d001f4d07a0000616263",
            "4502002b00004000400626c90a0000010a00000203e800500000000100000007505001f4caf50000646566",
            "4502002a00014000400626c90a0000010a00000203e800500000000400000007505901f42de800006768",
        ],
    ),
    # The checksum of the first comes to zero, and an odd byte is left at the end.
    "udp4": (
        (1, 5, 28, 2, 20, 6),
        "4500002100054000401126c50a0000010a00000203e80035000d1421e7ba78797a",
        [
            "4500001e00054000401126c80a0000010a00000203e80035000affffe7ba",
            "4500001e00064000401126c70a0000010a00000203e80035000a6f417879",
            "4500001d00074000401126c70a0000010a00000203e8003500096dbc7a",
        ],
    ),
    # Behind a hop-by-hop header, with a traffic class and a flow label.
    "tcp6": (
        (1, 4, 68, 3, 48, 16),
        "6031234500200009fd000000000000000000000000000001fd0000000000000000000000000000020600010400000000"
        "03e800500000000500000007501801f4fa22000061626364",
        [
            "60312345001f0009fd000000000000000000000000000001fd0000000000000000000000000000020600010400000000"
            "03e800500000000500000007501001f4eb320000616263",
            "60312345001d0009fd000000000000000000000000000001fd0000000000000000000000000000020600010400000000"
            "03e800500000000800000007501801f44b8c000064",
        ],
    ),
}  # fmt: skip


def vector(name):
    fields, whole, segments = VECTORS[name]
    return struct.pack(twins.HEADER, *fields), bytes.fromhex(whole), [bytes.fromhex(s) for s in segments]


@pytest.mark.parametrize("name", VECTORS)
def test_split(name):
    header, whole, segments = vector(name)
    assert twins.split(whole, header) == segments
    for link, is_frame in ((b"\2" * 12 + b"\x08\x00", True), (b"\2" * 12 + b"\x81\0\0\7\x08\x00", True)):
        if name == "tcp6":
            link = link[:-2] + b"\x86\xdd"
        fields = list(VECTORS[name][0])
        fields[4] += len(link)
        moved = struct.pack(twins.HEADER, *fields)
        assert twins.split(link + whole, moved, is_frame) == [link + segment for segment in segments]


@pytest.mark.parametrize("name", VECTORS)
def test_split_without_checksums_leaves_the_sum_of_the_pseudo_header(name):
    header, whole, segments = vector(name)
    fields = VECTORS[name][0]
    unfinished = struct.pack(twins.HEADER, 1, 0, 0, 0, *fields[4:])
    for segment, right in zip(twins.split(whole, header, checksums=False), segments, strict=True):
        assert twins.split(segment, unfinished) == [right]


@pytest.mark.parametrize("name", ["tcp4", "tcp6"])
def test_split_finds_the_pseudo_header_itself_if_no_checksum_was_begun(name):
    _, whole, segments = vector(name)
    fields = VECTORS[name][0]
    assert twins.split(whole, struct.pack(twins.HEADER, 0, *fields[1:4], 0, 0)) == segments


@pytest.mark.parametrize(("name", "changes"), [
    ("tcp4", {"gso_type": 2}), ("tcp4", {"gso_type": 3}), ("tcp4", {"gso_type": 4}),
    ("tcp4", {"gso_type": 5}), ("tcp6", {"gso_type": 1}), ("udp4", {"gso_type": 1}),
    ("udp4", {"flags": 0}), ("tcp4", {"gso_size": 0}),
    ("tcp4", {"csum_start": 21}), ("tcp4", {"csum_offset": 6}), ("tcp6", {"csum_start": 40}),
])  # fmt: skip
def test_what_linux_refuses(name, changes):
    names = ("flags", "gso_type", "hdr_len", "gso_size", "csum_start", "csum_offset")
    fields = dict(zip(names, VECTORS[name][0], strict=True)) | changes
    with pytest.raises(twins.Refused):
        twins.split(vector(name)[1], struct.pack(twins.HEADER, *fields.values()))


def test_128_datagrams_and_one_more():
    """Linux sends 128 and answers EINVAL to 129."""
    addresses = bytes(8)
    for count in (128, 129):
        packet = flows.ipv4(addresses, 17, flows.udp_header(1, 2, count) + bytes(count))
        header = struct.pack(twins.HEADER, 1, 5, 28, 1, 20, 6)
        if count == 128:
            assert len(twins.split(packet, header)) == 128
        else:
            with pytest.raises(twins.Refused):
                twins.split(packet, header)


def test_a_packet_that_is_no_super_packet_is_completed():
    packet = bytearray(testing.udp("10.0.0.1", "10.0.0.2", 7, 9, b"odd"))
    right = bytes(packet)
    packet[26:28] = flows.pseudo_header(4, right[12:20], 17, 11).to_bytes(2, "big")
    for gso_type, gso_size in ((0, 0), (5, 100), (5, 3)):
        header = struct.pack(twins.HEADER, 1, gso_type, 0, gso_size, 20, 6)
        assert twins.split(bytes(packet), header) == [right]
    assert twins.split(right, bytes(10)) == [right]
    for start, offset in ((31, 0), (30, 0), (20, 10), (65535, 1)):
        with pytest.raises(twins.Refused):
            twins.split(right, struct.pack(twins.HEADER, 1, 0, 0, 0, start, offset))


@pytest.mark.parametrize("name", ["udp4", "tcp6"])
def test_coalesce(name):
    header, whole, segments = vector(name)
    assert twins.coalesce(segments) == [[([*range(len(segments))], header, whole)]]


def test_coalesce_keeps_a_packet_with_cwr_alone():
    _, _, segments = vector("tcp4")
    ((alone, rest),) = twins.coalesce(segments)
    assert alone == ([0], None, segments[0])
    assert rest[0] == [1, 2]
    assert struct.unpack(twins.HEADER, rest[1]) == (1, 1, 40, 3, 20, 16)
    assert twins.split(rest[2], rest[1]) == segments[1:]


@pytest.mark.parametrize("size", [0, 1, 2, 3, 65535])
@pytest.mark.parametrize("fill", [b"\0", b"\xff", b"\x12"])
def test_the_sum_is_that_of_rfc_1071(size, fill):
    """`ones_sum` takes a remainder where the RFC adds word by word."""
    for initial in (0, 1, 0xFFFF, 0x1FFFE):
        assert 0xFFFF - flows.ones_sum(fill * size, initial) == testing.checksum(fill * size, initial)


def test_packets_are_those_of_the_slow_builders():
    """What the examples are made of is right, so that what is refused or kept alone is so for its quirk."""
    for version, addresses, ends in (
        (4, bytes([10, 0, 0, 1, 10, 0, 0, 2]), ("10.0.0.1", "10.0.0.2")),
        (6, bytes.fromhex("fd" + "00" * 14 + "01" + "fd" + "00" * 14 + "02"), ("fd00::1", "fd00::2")),
    ):
        for payload in (b"", b"x", b"odd", flows.NOISE[:1000]):
            wrap = flows.ipv4 if version == 4 else flows.ipv6
            segment = flows.tcp_header(7, 9, seq=2**32 + 5, ack=6, flags=0x18, window=500) + payload
            segment = flows.with_checksum(segment, addresses, 6)
            expected = testing.tcp(*ends, 7, 9, payload, seq=5, ack=6, flags=0x18, window=500)
            assert wrap(addresses, 6, segment) == expected
            datagram = flows.udp_header(7, 9, len(payload)) + payload
            datagram = flows.with_checksum(datagram, addresses, 17)
            assert wrap(addresses, 17, datagram) == testing.udp(*ends, 7, 9, payload)
