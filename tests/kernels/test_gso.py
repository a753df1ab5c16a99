"""The split kernel at its edges, and against its slow twin."""

import struct

import flows
import pytest
import twins
from flows import renumbered
from hypothesis import given
from hypothesis import strategies as st

import tuntap
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
    assert twins.split(packet, fields) == expected


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
        assert twins.split(link + packet, header(*values), True) == result[1]


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


# --- against the twin ---

EXTENSIONS = [
    (), ((0, b"\0\1\4\0\0\0\0"),), ((60, b"\1" + bytes(14)), (43, b"\0\0\0" + bytes(4))),
]  # fmt: skip
LINKS = [None, b"", b"\x81\x00\x00\x05", b"\x88\xa8\x00\x07\x81\x00\x00\x05"]


def make(
    version, protocol, gso_size, count, last, options, tcp_options, extensions, link, control, number, at,
    has_seed, hint, ecn,
):  # fmt: skip
    """A super-packet as the kernel hands it over, its header, and whether it is a frame."""
    addresses = flows.NOISE[at : at + (8 if version == 4 else 32)]
    ip_size = 20 + 4 * options if version == 4 else 40 + sum(1 + len(rest) for _, rest in extensions)
    transport_size = 20 + 4 * tcp_options if protocol == twins.TCP else 8
    room = 65535 - 22 - ip_size - transport_size
    size = min((count - 1) * gso_size + min(last, gso_size), room)
    payload = flows.NOISE[at : at + size]
    if protocol == twins.TCP:
        segment = flows.tcp_header(
            at, 9, seq=number * 65521, ack=at, flags=control, reserved=control & 15, urgent=control,
            options=flows.NOISE[at : at + 4 * tcp_options],
        )  # fmt: skip
    else:
        segment = flows.udp_header(at, 9, size)
    offset = twins.CHECKSUM_AT[protocol]
    if has_seed or protocol == twins.UDP:
        seed = flows.pseudo_header(version, addresses, protocol, len(segment) + size)
        segment = twins.replace(segment, offset, seed.to_bytes(2, "big"))
    segment += payload
    if version == 4:
        packet = flows.ipv4(
            addresses, protocol, segment, tos=at & 255, identification=number, options=bytes(4 * options),
            fragment=0x4000 if at & 1 else 0,
        )  # fmt: skip
    else:
        packet = flows.ipv6(
            addresses, protocol, segment, traffic_class=at & 255, label=at, extensions=extensions
        )
    start = ip_size
    if link is not None:
        ethertype = b"\x08\x00" if version == 4 else b"\x86\xdd"
        packet = flows.NOISE[:12] + link + ethertype + packet
        start += 14 + len(link)
    kind = UDP_L4 if protocol == twins.UDP else TCPV4 if version == 4 else TCPV6
    flags = NEEDS_CSUM if has_seed or protocol == twins.UDP else 0
    fields = (start, offset) if flags else (0, 0)
    kind |= 0x80 * (ecn and protocol == twins.TCP)
    return packet, header(flags, kind, hint, gso_size, *fields), link is not None


SUPER_PACKETS = st.builds(
    make,
    version=st.sampled_from([4, 6]),
    protocol=st.sampled_from([twins.TCP, twins.UDP]),
    gso_size=st.one_of(st.integers(1, 40), st.integers(41, 9000)),
    count=st.one_of(st.integers(2, 6), st.integers(1, 128)),
    last=st.integers(1, 9000),
    options=st.sampled_from([0, 0, 0, 1, 10]),
    tcp_options=st.sampled_from([0, 3, 10]),
    extensions=st.sampled_from(EXTENSIONS),
    link=st.sampled_from(LINKS),
    control=st.integers(0, 255),
    number=st.integers(0, 65535),
    at=st.integers(0, 2000),
    has_seed=st.sampled_from([True, True, False]),
    hint=st.sampled_from([0, 40, 65535]),
    ecn=st.booleans(),
)
CHANGES = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 130), st.integers(0, 9), st.sampled_from([6, 7, 20, 21])),
        st.integers(0, 255),
    ),
    min_size=1,
    max_size=4,
)


def with_a_sum_of_zero(packet, fields, is_frame):
    """The same, but its first segment gets a checksum of zero, which UDP writes in another way."""
    layout = twins.locate(packet, is_frame)
    size = 4 * (packet[layout.transport + 12] >> 4) if layout.protocol == twins.TCP else 8
    payload = layout.transport + size
    if len(packet) < payload + 2 or struct.unpack("=BBHHHH", fields)[3] < 2:
        return packet
    packet = twins.replace(packet, payload, b"\0\0")
    first = twins.split(packet, fields, is_frame)[0]
    at = layout.transport + twins.CHECKSUM_AT[layout.protocol]
    return twins.replace(packet, payload, first[at : at + 2])


def kernel_split(harness, packet, fields, is_frame, checksums):
    """The segments, or None for a packet that is refused."""
    arguments = {"guard": 32, "is_frame": is_frame, "with_checksum": checksums}
    result, segments, intact = harness.gso_split(packet, fields, **arguments)
    assert intact
    if result < 0:
        return None
    if result == 0:
        result, after, intact = harness.gso_complete(packet, fields, guard=32)
        assert intact
        return None if result < 0 else [after]
    return segments


def public_split(packet, fields):
    """What `split` says, which is what `split_into` says."""
    batch = tuntap.PacketBatch(130, 10_000)
    try:
        segments = offload.split(packet, fields)
    except tuntap.PacketError:
        with pytest.raises(tuntap.PacketError):
            offload.split_into(packet, fields, batch)
        assert batch.count == 0
        return None
    if len(segments) <= batch.capacity and max(map(len, segments)) <= batch.slot_size:
        assert offload.split_into(packet, fields, batch) == len(segments)
        assert [bytes(segment) for segment in batch] == segments
    return segments


def twin_split(packet, fields, is_frame, checksums):
    try:
        return twins.split(packet, fields, is_frame, checksums)
    except twins.Refused:
        return None


@given(SUPER_PACKETS, st.booleans(), st.sampled_from([False, False, True]))
def test_super_packets_are_split_as_by_the_twin(harness, made, checksums, zero):
    packet, fields, is_frame = made
    if zero:
        packet = with_a_sum_of_zero(packet, fields, is_frame)
    expected = twin_split(packet, fields, is_frame, checksums)
    assert expected is not None
    assert kernel_split(harness, packet, fields, is_frame, checksums) == expected
    if checksums and not is_frame:
        assert public_split(packet, fields) == expected


@given(SUPER_PACKETS, CHANGES, CHANGES, st.integers(0, 5), st.integers(0, 200), st.booleans())
def test_hostile_packets_are_refused_or_split_as_by_the_twin(
    harness, made, changes, field_changes, what, cut, checksums
):
    """Bytes of the headers, fields of the virtio-net header, and the end are anything."""
    packet, fields, is_frame = made
    packet, fields = bytearray(packet), bytearray(fields)
    if what != 0:
        for at, value in changes:
            if at < len(packet):
                packet[at] = value
    if what <= 1:
        for at, value in field_changes:
            fields[at % 10] = value
    if what == 5:
        del packet[1 + cut if cut < 130 else max(1, len(packet) - cut) :]
    packet, fields = bytes(packet), bytes(fields)
    expected = twin_split(packet, fields, is_frame, checksums)
    assert kernel_split(harness, packet, fields, is_frame, checksums) == expected
    if checksums and not is_frame:
        assert public_split(packet, fields) == expected


@pytest.mark.parametrize(("protocol", "count", "right"), [
    (twins.UDP, 128, True), (twins.UDP, 129, False), (twins.TCP, 129, True), (twins.TCP, 600, True),
])  # fmt: skip
def test_how_many_segments_there_may_be(harness, protocol, count, right):
    made = make(4, protocol, 100, count, 100, 0, 0, (), None, 0x10, 0, 0, True, 0, False)
    expected = twin_split(*made, True)
    assert (len(expected) if expected else None) == (count if right else None)
    assert kernel_split(harness, *made, True) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_every_length_of_the_last_segment(harness, kind):
    """Odd and even ones, and those behind which a vector of the CPU ends."""
    for gso_size in (1, 2, 63, 64, 200):
        for size in range(1, 3 * gso_size + 1):
            packet, fields, is_frame = make(
                6 if kind == "tcp6" else 4, twins.UDP if kind == "udp" else twins.TCP, gso_size,
                -(-size // gso_size), (size - 1) % gso_size + 1, 0, 0, (), None, 0x19, 65535, size,
                True, 0, False,
            )  # fmt: skip
            expected = twin_split(packet, fields, is_frame, True)
            assert len(expected) == -(-size // gso_size)
            assert kernel_split(harness, packet, fields, is_frame, True) == expected, (gso_size, size)
