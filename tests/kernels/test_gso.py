"""The split kernel at its edges; what it makes of packets is tested against Linux and the twins."""

import struct

import pytest
from flows import renumbered
from hypothesis import given, settings
from hypothesis import strategies as st

from tuntap import offload, testing

NEEDS_CSUM, NONE, TCPV4, TCPV6, UDP_L4 = 1, 0, 1, 4, 5
PAYLOAD = bytes(range(256)) * 20


def header(flags, gso_type, hdr_len, gso_size, csum_start, csum_offset):
    return struct.pack("=BBHHHH", flags, gso_type, hdr_len, gso_size, csum_start, csum_offset)


def super_packet(kind, size=5000):
    """A super-packet and its header, made by coalescing ordinary packets."""
    source, destination = ("10.0.0.1", "10.0.0.2") if kind != "tcp6" else ("fd00::1", "fd00::2")
    packets, step = [], 1000
    for number, at in enumerate(range(0, size, step)):
        part = (PAYLOAD * 13)[at : min(at + step, size)]
        if kind == "udp":
            packet = testing.udp(source, destination, 7, 9, part)
        else:
            packet = testing.tcp(source, destination, 7, 9, part, seq=at)
        packets.append(renumbered(packet, number))
    ((fields, packet),) = offload.coalesce(packets)
    return packet, fields.tobytes(), packets


KINDS = ["tcp4", "tcp6", "udp"]


@pytest.mark.parametrize("kind", KINDS)
def test_segments_are_written_and_nothing_else(harness, kind):
    packet, fields, expected = super_packet(kind)
    assert harness.gso_split(packet, fields, guard=64) == (len(expected), expected, True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_slot_that_is_too_small_gets_the_beginning(harness, kind):
    packet, fields, expected = super_packet(kind, 2500)
    for room in (*range(70), 500, 999, 1027, 1039, 1040, 1059, 1060, 1061, 2000):
        _, segments, intact = harness.gso_split(packet, fields, room=room, guard=64)
        assert intact, room
        for segment, whole in zip(segments, expected, strict=True):
            # A field that the end of the slot cuts in two is not written.
            assert room < 60 or segment[: len(whole)] == whole[:room], room


@pytest.mark.parametrize("kind", KINDS)
def test_every_truncated_super_packet_is_refused_or_split(harness, kind):
    packet, fields, _ = super_packet(kind, 2500)
    for size in range(len(packet)):
        result, _, intact = harness.gso_split(packet[:size], fields, guard=16)
        assert intact
        assert result <= 3
        assert result <= 0 or size > 1000


@pytest.mark.parametrize("kind", KINDS)
def test_ethernet_and_vlan_headers_are_copied(harness, kind):
    packet, fields, expected = super_packet(kind)
    ethertype = b"\x86\xdd" if kind == "tcp6" else b"\x08\x00"
    for tags in (b"", b"\x81\x00\x00\x05", b"\x88\xa8\x00\x07\x81\x00\x00\x05"):
        link = b"\2\0\0\0\0\1\2\0\0\0\0\2" + tags + ethertype
        values = list(struct.unpack("=BBHHHH", fields))
        values[4] += len(link)
        result = harness.gso_split(link + packet, header(*values), guard=64, is_frame=True)
        assert result == (len(expected), [link + segment for segment in expected], True)


@pytest.mark.parametrize("kind", KINDS)
def test_without_checksums_the_field_holds_the_pseudo_header(harness, kind):
    packet, fields, expected = super_packet(kind)
    start, offset = struct.unpack("=BBHHHH", fields)[4:]
    _, segments, _ = harness.gso_split(packet, fields, with_checksum=False)
    for segment, whole in zip(segments, expected, strict=True):
        unfinished = header(NEEDS_CSUM, NONE, 0, 0, start, offset)
        assert harness.gso_complete(segment, unfinished, guard=16) == (0, whole, True)


def test_a_checksum_outside_the_packet_is_refused(harness):
    packet = testing.udp("10.0.0.1", "10.0.0.2", 7, 9, bytes(100))
    for start, offset in [
        (128, 0), (127, 0), (126, 2), (65535, 65535), (0, 127), (20, 107), (65535, 1), (1, 65535),
    ]:  # fmt: skip
        result, after, intact = harness.gso_complete(
            packet, header(NEEDS_CSUM, NONE, 0, 0, start, offset), guard=64
        )
        assert (result < 0, after, intact) == (True, packet, True), (start, offset)


def test_without_the_flag_a_packet_is_left_alone(harness):
    packet = testing.udp("10.0.0.1", "10.0.0.2", 7, 9, bytes(100))
    assert harness.gso_complete(packet, header(0, NONE, 0, 0, 65535, 65535)) == (0, packet, True)


@settings(max_examples=500, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    flips=st.lists(st.tuples(st.integers(0, 80), st.integers(0, 255)), max_size=4),
    fields=st.one_of(st.none(), st.binary(min_size=10, max_size=10)),
    cut=st.integers(0, 2600),
    is_frame=st.booleans(),
)
def test_hostile_packets_are_refused_or_stay_within_their_bytes(harness, kind, flips, fields, cut, is_frame):
    packet, right, _ = super_packet(kind, 2500)
    packet = bytearray(packet[: len(packet) - cut])
    for at, value in flips:
        if at < len(packet):
            packet[at] = value
    result, segments, intact = harness.gso_split(bytes(packet), fields or right, guard=32, is_frame=is_frame)
    assert intact
    assert result == len(segments) or (result < 0 and not segments)
    assert sum(map(len, segments)) <= 65535 * 60
    result, _, intact = harness.gso_complete(bytes(packet), fields or right, guard=32)
    assert intact
    assert result <= 0
