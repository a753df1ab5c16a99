"""Rows of the kernel of columns against its slow twin: every kind of packet, cut and changed everywhere."""

import random
import struct

import columns_twin as twin
import flows
import kinds
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tuntap import columns, testing

TRANSPORT, HASHED, SYMMETRIC = 1, 2, 4  # what is wanted of the kernel
CODES = {"uint8": "B", "uint16": "H", "uint32": "I", "uint64": "Q"}
PLACES = sorted((columns.DTYPE.fields[name][1], name) for name in columns.DTYPE.names)
NAMES = [name for _, name in PLACES]


def form_of_row():
    """Of `struct`, with the bytes between fields, which are zero."""
    form, at = "=", 0
    for offset, name in PLACES:
        form += "x" * (offset - at)
        form += CODES[columns.DTYPE[name].name] if columns.DTYPE[name].shape == () else "16s"
        at = offset + columns.DTYPE[name].itemsize
    return struct.Struct(form + "x" * (columns.DTYPE.itemsize - at))


ROW = form_of_row()
RNG = random.Random(7)
RIGHT, WRONG = kinds.right(RNG), kinds.wrong(RNG)
FRAMES = {
    f"{link}: {name}": frame
    for name, packet in (RIGHT | WRONG).items()
    if name in ("ipv4 tcp", "ipv6 udp", "ipv6 all in order", "ipv4 first fragment", "ipv4 length 0")
    for link, frame in (kinds.links(RNG, packet) | kinds.other_frames(RNG, packet)).items()
}


def row(harness, packet, is_frame=False, wanted=TRANSPORT | HASHED, seed=0):
    """The fields of a packet, about which the kernel and the twin are of one mind."""
    content, untouched = harness.columns_row(packet, is_frame, wanted, seed)
    assert untouched
    expected = twin.read(
        packet, is_frame, transport=bool(wanted & TRANSPORT), hashed=bool(wanted & HASHED),
        symmetric=bool(wanted & SYMMETRIC), seed=seed,
    )  # fmt: skip
    if content != ROW.pack(*map(expected.get, NAMES)):
        found = dict(zip(NAMES, ROW.unpack(content), strict=True))
        differences = {name: (found[name], expected[name]) for name in NAMES if found[name] != expected[name]}
        raise AssertionError(f"kernel, twin: {differences or 'between fields'} of {packet.hex()}, {is_frame}")
    return expected


def marks(fields):
    return columns.Mark(fields["marks"])


# --- what the twin itself must say ---

M = columns.Mark


def test_the_twin_knows_every_field():
    assert set(NAMES) == set(twin.read(b""))
    assert {mark.name: mark.value for mark in M} == {name: getattr(twin, name) for name in M.__members__}


@pytest.mark.parametrize(("source", "destination"), [("10.1.2.3", "10.4.5.6"), ("fd00::1:2", "fd00::3")])
def test_packets_that_others_built(harness, source, destination):
    """Of tuntap.testing, by their arguments."""
    version, header = (6, 40) if ":" in source else (4, 20)
    udp = row(harness, testing.udp(source, destination, 1234, 53, b"x" * 9))
    assert marks(udp) == M.IP | M.TRANSPORT
    assert (udp["version"], udp["protocol"], udp["ttl"]) == (version, 17, 64)
    assert (udp["src_port"], udp["dst_port"], udp["payload_offset"], udp["payload_length"]) == (
        1234, 53, header + 8, 9,
    )  # fmt: skip
    tcp = row(
        harness, testing.tcp(source, destination, 9, 7, b"abc", seq=2**32 - 2, ack=5, flags=0x12, window=300)
    )
    assert [tcp[f"tcp_{name}"] for name in ("seq", "ack", "flags", "window")] == [2**32 - 2, 5, 0x12, 300]
    echo = row(harness, testing.icmp_echo(source, destination, 77, 3, b"abcd", reply=True))
    assert [echo[f"icmp_{name}"] for name in ("type", "code", "id", "seq")] == [
        0 if version == 4 else 129, 0, 77, 3,
    ]  # fmt: skip
    if version == 4:
        assert (udp["src4"], udp["dst4"]) == (0x0A010203, 0x0A040506)
    else:
        assert (udp["src6"].hex(), udp["dst6"].hex()) == ("fd" + "0" * 25 + "10002", "fd" + "0" * 29 + "3")


def test_every_kind_that_is_right(harness):
    for name, packet in RIGHT.items():
        fields = row(harness, packet)
        found = marks(fields)
        assert found & (M.IP | M.MALFORMED | M.TRUNCATED | M.PADDED) == M.IP, name
        assert bool(found & M.FRAGMENT) == ("fragment" in name and "atomic" not in name), name
        has_header = not any(
            word in name
            for word in ("alone", "esp", "gre", "ip in ip", "none", "unknown", "other version", "middle",
                         "last", "farthest", "tiny", "later", "next fragment")
        )  # fmt: skip
        assert bool(found & M.TRANSPORT) == has_header, name


def test_every_kind_that_is_wrong(harness):
    for name, packet in WRONG.items():
        found = marks(row(harness, packet))
        assert found & M.MALFORMED, name
        assert not found & M.TRANSPORT, name
        assert bool(found & M.IP) == (
            name not in ("ipv4 length 0", "ipv4 length 19", "ipv4 header of 0", "ipv4 header of 4")
            and name != "ipv4 options behind the end"
        ), name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ethernet", M.IP | M.TRANSPORT),
        ("vlan", M.IP | M.TRANSPORT | M.VLAN),
        ("service vlan", M.IP | M.TRANSPORT | M.VLAN),
        ("two tags", M.IP | M.TRANSPORT | M.VLAN),
        ("two equal tags", M.IP | M.TRANSPORT | M.VLAN),
        ("three tags", M.VLAN),
        ("padded", M.IP | M.TRANSPORT | M.PADDED),
        ("length", M(0)),
        ("length in a tag", M.VLAN),
        ("arp", M(0)),
        ("the other version", M.MALFORMED),
        ("unknown type", M(0)),
        ("mpls", M(0)),
    ],
)
def test_every_frame(harness, name, expected):
    for packet in (RIGHT["ipv4 tcp"], RIGHT["ipv6 udp"]):
        frame = (kinds.links(RNG, packet) | kinds.other_frames(RNG, packet))[name]
        fields = row(harness, frame, True)
        assert marks(fields) == expected
        assert fields["eth_dst"].to_bytes(6, "big") + fields["eth_src"].to_bytes(6, "big") == frame[:12]


# --- the kernel against the twin ---


def everything():
    yield from ((name, packet, False) for name, packet in (RIGHT | WRONG).items())
    yield from ((name, frame, True) for name, frame in FRAMES.items())


def test_every_length_of_every_kind(harness):
    for _, packet, is_frame in everything():
        for size in range(len(packet) + 1):
            row(harness, packet[:size], is_frame)


def test_a_packet_that_is_cut_claims_nothing_else(harness):
    """What is known of the beginning of a packet is true of all of it, but for what its end decides."""
    for name, packet in RIGHT.items():
        whole = row(harness, packet)
        for size in range(len(packet)):
            cut = row(harness, packet[:size])
            assert marks(cut) & M.TRUNCATED, name
            unknown = {"length", "payload_offset", "payload_length", "marks", "flow_hash"}
            if marks(whole) & M.OPTIONS and not marks(cut) & M.TRANSPORT:
                # As far as the extension headers are known.
                unknown |= {"protocol", "transport_offset"}
            for field in NAMES:
                assert field in unknown or cut[field] in (0, bytes(16), whole[field]), (name, size, field)


def test_bytes_behind_the_end_change_nothing_but_the_length(harness):
    for name, packet in RIGHT.items():
        padded = row(harness, packet + b"\xff" * 40)
        assert padded == row(harness, packet) | {
            "length": len(packet) + 40, "marks": padded["marks"],
        }  # fmt: skip
        assert marks(padded) == marks(row(harness, packet)) | M.PADDED, name


def test_every_byte_changed(harness):
    """Each bit, the neighbours of the value, and what is far from it."""
    for _, packet, is_frame in everything():
        for at in range(min(len(packet), 110)):
            value = packet[at]
            for other in {value ^ 1 << bit for bit in range(8)} | {
                0,
                255,
                (value + 1) % 256,
                (value - 1) % 256,
            }:
                row(harness, packet[:at] + bytes([other]) + packet[at + 1 :], is_frame)


def test_every_value_of_bytes_that_decide(harness):
    """Versions, lengths, protocols, offsets of TCP and DCCP."""
    for name, places in (
        ("ipv4 tcp", (0, 2, 3, 6, 7, 9, 32)),
        ("ipv4 udp", (24, 25)),
        ("ipv4 dccp", (9, 24, 28)),
        ("ipv4 dccp long", (9, 24, 28)),
        ("ipv4 udplite", (9, 24, 25)),
        ("ipv4 icmp error", (20, 21)),
        ("ipv6 echo request", (4, 5, 6, 40)),
        ("ipv6 all in order", (6, 40, 41, 48, 49, 56, 57, 80, 82, 83, 88, 89)),
        ("ipv6 authentication", (6, 40, 41)),
        ("ipv6 first fragment", (6, 40, 41, 42, 43, 52, 53)),
    ):
        for at in places:
            for value in range(256):
                for size in (None, -1, at + 3):
                    changed = RIGHT[name][:at] + bytes([value]) + RIGHT[name][at + 1 :]
                    row(harness, changed[:size])
    for at in (12, 13, 16, 17, 20, 21, 22):
        for value in range(256):
            frame = FRAMES["three tags: ipv4 tcp"]
            row(harness, frame[:at] + bytes([value]) + frame[at + 1 :], True)


@pytest.mark.parametrize("count", range(14, 20))
def test_extension_headers_up_to_the_most_and_beyond(harness, count):
    for name, extension in kinds.extension_headers(RNG).items():
        packet = flows.ipv6(bytes(32), 17, flows.udp_header(1, 2, 0), extensions=[extension] * count)
        found = marks(row(harness, packet))
        assert bool(found & M.TRANSPORT) == (count <= 16), name
        assert bool(found & M.MALFORMED) == (count > 16), name


def test_extension_headers_of_the_greatest_length(harness):
    """The transport header is further away than any other."""
    extension = kinds.DESTINATION, b"\xff" + bytes(2046)
    packet = flows.ipv6(bytes(32), 6, flows.tcp_header(7, 9), extensions=[extension] * 16)
    for is_frame, frame in ((False, packet), (True, kinds.links(RNG, packet)["two tags"])):
        fields = row(harness, frame, is_frame)
        assert fields["transport_offset"] == 40 + 16 * 2048 + 22 * is_frame
        assert (fields["src_port"], fields["dst_port"]) == (7, 9)


def test_packets_larger_than_any_ip_packet(harness):
    for packet in (RIGHT["ipv4 udp"], RIGHT["ipv6 tcp"]):
        assert marks(row(harness, packet + bytes(70_000))) & M.PADDED
    full = flows.ipv6(bytes(32), 17, flows.udp_header(1, 2, 65_527) + bytes(65_527))
    assert row(harness, full)["payload_length"] == 65_527
    assert row(harness, full)["ip_length"] == 65_575


def test_whatever_is_wanted_the_ip_header_is_the_same(harness):
    for _, packet, is_frame in everything():
        for wanted in range(8):
            for seed in (0, 1, 2**64 - 1):
                row(harness, packet, is_frame, wanted, seed)


def test_guards_beside_a_packet_stay(harness):
    for name, packet in RIGHT.items():
        assert harness.columns_row(packet, guard=64)[1], name


# --- hypothesis ---


@st.composite
def mutated(draw):
    """A packet or frame of any kind with any fields, changed in places and cut."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    made = kinds.right(rng) if draw(st.booleans()) else kinds.wrong(rng)
    packet = made[draw(st.sampled_from(sorted(made)))]
    is_frame = draw(st.booleans())
    if is_frame:
        frames = kinds.links(rng, packet) | kinds.other_frames(rng, packet)
        packet = frames[draw(st.sampled_from(sorted(frames)))]
    packet = bytearray(packet)
    for at, value in draw(st.lists(st.tuples(st.integers(0, 90), st.integers(0, 255)), max_size=4)):
        packet[at % len(packet)] = value
    size = draw(st.none() | st.integers(0, len(packet)))
    return bytes(packet[:size]) + draw(st.binary(max_size=3)), is_frame


@given(mutated(), st.integers(0, 7), st.integers(0, 2**64 - 1))
def test_mutated_packets(harness, given_packet, wanted, seed):
    packet, is_frame = given_packet
    row(harness, packet, is_frame, wanted, seed)


@given(st.sampled_from([b"", b"\x45", b"\x46", b"\x60\0\0\0"]), st.binary(max_size=120), st.booleans())
@example(b"", b"", True)
def test_any_bytes(harness, start, rest, is_frame):
    row(harness, start + rest, is_frame)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0, 43, 44, 51, 60, 135, 139, 140, 59, 6, 17, 253]),
            st.sampled_from([0, 0, 0, 1, 1, 2, 5, 255]),
            st.binary(min_size=6, max_size=30),
        ),
        max_size=20,
    ),
    st.sampled_from([0, 0, 0, -8, 8, 30]),
)
@settings(max_examples=400)
def test_chains_of_extension_headers(harness, headers, lie):
    """Of any kind and length, in any order, longer than they are or shorter."""
    chain = b""
    first = 17
    for number, units, rest in reversed(headers):
        chain = bytes([first, units]) + rest[: 8 * (units + 1) - 2].ljust(6, b"\0") + chain
        first = number
    packet = struct.pack("!IHBB", 6 << 28, max(len(chain) + lie, 0), first, 9) + bytes(32) + chain
    row(harness, packet)


# --- the flow hash ---


def hash_of(harness, packet, wanted=TRANSPORT | HASHED, seed=0):
    return row(harness, packet, False, wanted, seed)["flow_hash"]


HASHES = [
    0xAC02DD29914CA96F,
    0x0104F3661826E842,
    0xAC02DD29914CA96F,
    0x0104F3661826E842,
    0x7F31CAE9110C47D7,
    0xFA8BC0FE5BC42BC5,
    0x9024C91917B58DA8,
    0xFA8BC0FE5BC42BC5,
]


def test_the_hash_is_the_same_on_every_machine(harness):
    """Vectors: who keeps a table of them on disk has to find it again."""
    assert twin.mix(1) == 0xB456BCFC34C2CB2C  # of the authors of MurmurHash3
    four = testing.udp("10.0.0.1", "10.0.0.2", 53, 4000)
    six = testing.tcp("fd00::1", "fd00::2", 80, 50_000)
    found = [
        hash_of(harness, packet, wanted, seed)
        for packet in (four, six)
        for wanted in (TRANSPORT | HASHED, TRANSPORT | HASHED | SYMMETRIC)
        for seed in (0, 2**64 - 1)
    ]
    assert found == HASHES


def swapped(packet):
    """What comes back: the ends change places."""
    if packet[0] >> 4 == 4:
        packet = packet[:12] + packet[16:20] + packet[12:16] + packet[20:]
        return packet[:20] + packet[22:24] + packet[20:22] + packet[24:]
    packet = packet[:8] + packet[24:40] + packet[8:24] + packet[40:]
    return packet[:40] + packet[42:44] + packet[40:42] + packet[44:]


def test_both_directions(harness):
    for name in ("tcp", "udp", "udplite", "sctp", "dccp"):
        for version in (4, 6):
            packet = RIGHT[f"ipv{version} {name}"]
            for seed in (0, 99):
                one, other = (
                    hash_of(harness, way, TRANSPORT | HASHED | SYMMETRIC, seed)
                    for way in (packet, swapped(packet))
                )
                assert one == other
                assert hash_of(harness, packet, seed=seed) != hash_of(harness, swapped(packet), seed=seed)


def test_only_one_port_is_swapped(harness):
    """A symmetric hash does not take another flow of the same two hosts for this one."""
    wanted = TRANSPORT | HASHED | SYMMETRIC
    packets = [
        testing.udp(*ends, *ports)
        for ends in (("10.0.0.1", "10.0.0.2"), ("10.0.0.2", "10.0.0.1"))
        for ports in ((1, 2), (2, 1))
    ]
    assert len({hash_of(harness, packet, wanted) for packet in packets}) == 2


def test_every_part_of_a_packet_is_of_one_flow(harness):
    """Also where the header behind the fragment header is another in the first, and none in the others."""
    rng = random.Random(3)
    datagram = flows.udp_header(7, 9, 100) + bytes(100)
    destination = bytes([17, 0, 1, 4, 0, 0, 0, 0])
    for make, whole in ((four_parts, datagram), (six_parts, datagram), (six_parts, destination + datagram)):
        parts = make(rng, whole)
        assert all(marks(row(harness, part)) & M.FRAGMENT for part in parts)
        assert len({hash_of(harness, part) for part in parts}) == 1


def four_parts(rng, whole):
    return [
        flows.ipv4(b"\x0a\0\0\1\x0a\0\0\2", 17, whole[at : at + 48], fragment=at // 8 | 0x2000 * (at < 96))
        for at in range(0, len(whole), 48)
    ]


def six_parts(rng, whole):
    first = kinds.DESTINATION if len(whole) > 108 else 17
    return [
        flows.ipv6(
            bytes(32), first, whole[at : at + 48], extensions=[kinds.fragment_header(rng, at, int(at < 96))]
        )
        for at in range(0, len(whole), 48)
    ]


def test_what_is_not_of_the_flow_does_not_change_its_hash(harness):
    for source, destination in (("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")):
        plain = testing.tcp(source, destination, 1, 2)
        other = testing.tcp(source, destination, 1, 2, b"more", seq=9, ack=8, flags=2, window=1)
        assert hash_of(harness, plain) == hash_of(harness, other)
        assert hash_of(harness, plain) == hash_of(harness, plain[:1] + b"\x07" + plain[2:])
    atomic = flows.ipv6(
        bytes(32), 17, flows.udp_header(1, 2, 0), extensions=[kinds.fragment_header(RNG, 0, 0)]
    )
    assert hash_of(harness, atomic) == hash_of(harness, flows.ipv6(bytes(32), 17, flows.udp_header(1, 2, 0)))


def test_every_bit_of_a_flow_changes_half_of_the_hash(harness):
    """The avalanche criterion, on average over some flows."""
    for version, places in ((4, range(96, 192)), (6, range(64, 352))):
        for place in places:
            bits = 0
            for number in range(16):
                noise = random.Random(number).randbytes(36)
                packet = RIGHT[f"ipv{version} udp"]
                start, end = places[0] // 8, places[-1] // 8 + 1
                packet = packet[:start] + noise[: end - start] + packet[end:]
                other = (
                    packet[: place // 8]
                    + bytes([packet[place // 8] ^ 1 << place % 8])
                    + packet[place // 8 + 1 :]
                )
                bits += (hash_of(harness, packet) ^ hash_of(harness, other)).bit_count()
            assert 27 < bits / 16 < 37, (version, place)
