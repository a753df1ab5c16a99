"""Captures at their edges, and against their slow twin; every file is also fed in pieces."""

import struct

import pytest
import twins
from hypothesis import given
from hypothesis import strategies as st

ETHERNET, RAW, NULL, LOOP, COOKED, COOKED_2 = 1, 101, 0, 108, 113, 276
FORMATS = ["pcap", "pcapng"]
IPV4 = b"\x45" + bytes(27)
IPV6 = b"\x60" + bytes(47)
MAGICS = {
    ("<", 1000): b"\xd4\xc3\xb2\xa1",
    (">", 1000): b"\xa1\xb2\xc3\xd4",
    ("<", 1): b"\x4d\x3c\xb2\xa1",
    (">", 1): b"\xa1\xb2\x3c\x4d",
}
# What a writer would not write: around the end, and where a sum leaves 32 bits.
HOSTILE = [0, 1, 3, 4, 11, 12, 13, 16, 28, 262144, 262145, 1 << 20, (1 << 20) + 4, 0x7FFFFFFF, 0x80000000]
HOSTILE += [0xFFFFFFE0, 0xFFFFFFF0, 0xFFFFFFFC, 0xFFFFFFFF]


def walk(harness, data, layer=0, steps=(0, 1, 7)):
    """What the kernel makes of it, which is what the twin makes of it."""
    expected = twins.capture(data, layer)
    for step in steps:
        assert harness.pcap_walk(data, layer, step) == expected, step
    return expected


def classic(link, records, order="<", unit=1, snap=262144, version=(2, 4)):
    """A file of (seconds, fraction, captured, original, bytes)."""
    header = MAGICS[order, unit] + struct.pack(order + "HHIIII", *version, 0, 0, snap, link)
    return header + b"".join(struct.pack(order + "IIII", *record[:4]) + record[4] for record in records)


def enhanced(packet, time=0, number=0, order="<", captured=None, original=None, options=b"", kind=6):
    captured = len(packet) if captured is None else captured
    original = captured if original is None else original
    form = order + ("IIIII" if kind == 6 else "HHIIII")
    numbers = [number] if kind == 6 else [number, 0xFFFF]
    body = struct.pack(form, *numbers, time >> 32, time & 0xFFFFFFFF, captured, original)
    return twins.capture_block(kind, body + packet + bytes(-len(packet) % 4) + options, order)


def simple(packet, original=None, order="<"):
    original = len(packet) if original is None else original
    return twins.capture_block(3, struct.pack(order + "I", original) + packet, order)


def section(*blocks, order="<"):
    return twins.capture_section(order) + b"".join(blocks)


def one_interface(*blocks, link=RAW, order="<", snap=0, options=()):
    return section(twins.capture_interface(link, snap, order, *options), *blocks, order=order)


# --- pcap ---


@pytest.mark.parametrize(("order", "unit"), MAGICS)
def test_each_kind_of_pcap(harness, order, unit):
    data = classic(RAW, [(1, 2, 28, 30, IPV4), (2**32 - 1, 999_999, 48, 48, IPV6)], order, unit)
    found = walk(harness, data)
    last = (2**32 - 1) * 10**9 + 999_999 * unit
    assert found == ([(IPV4, 30, 10**9 + 2 * unit), (IPV6, 48, last)], 0, "end")


def test_a_fraction_of_more_than_a_second(harness):
    data = classic(RAW, [(2**32 - 1, 2**32 - 1, 28, 28, IPV4)], unit=1000)
    assert walk(harness, data).packets[0][2] == (2**32 - 1) * (10**9 + 1000)


def test_less_than_was_captured_is_no_size_of_a_packet(harness):
    assert walk(harness, classic(RAW, [(0, 0, 28, 3, IPV4)])).packets == [(IPV4, 28, 0)]


def test_flags_above_the_link_type(harness):
    assert walk(harness, classic(0xF4000000 | ETHERNET, [(0, 0, 28, 28, IPV4)])).packets == [(IPV4, 28, 0)]


@pytest.mark.parametrize(
    ("version", "end"), [((2, 4), "end"), ((2, 3), "end"), ((1, 4), "VERSION"), ((3, 0), "VERSION")]
)
def test_versions_of_pcap(harness, version, end):
    assert walk(harness, classic(RAW, [], version=version)).end == end


def test_every_end_of_a_pcap(harness):
    records = [(1, 2, 28, 28, IPV4), (3, 4, 0, 0, b""), (5, 6, 48, 48, IPV6)]
    data = classic(RAW, records)
    ends = [24, 24 + 16 + 28, 24 + 32 + 28, len(data)]
    for size in range(len(data) + 1):
        found = walk(harness, data[:size])
        assert len(found.packets) == (size >= ends[1]) + (size >= ends[3])
        assert found.skipped == (size >= ends[2])
        assert found.end == ("end" if size in ends else "more")


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize("field", [2, 3])
def test_hostile_sizes_of_a_pcap(harness, field, value):
    record = [0, 0, 28, 28, IPV4]
    record[field] = value
    found = walk(harness, classic(RAW, [(1, 2, 28, 28, IPV4), record, (3, 4, 28, 28, IPV4)]))
    assert found.packets[0] == (IPV4, 28, 1_000_000_002)
    if field == 2 and value > 262144:
        assert (len(found.packets), found.end) == (1, "SIZE")


def test_the_largest_packet(harness):
    packet = bytes(262144)
    for data in (classic(RAW, [(0, 0, len(packet), len(packet), packet)]), one_interface(enhanced(packet))):
        assert walk(harness, data, steps=(0, 1 << 16)).packets == [(packet, len(packet), 0)]


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"\x0a\x0d", b"\xa1\xb2\xc3", b"GIF89a", b"\x1f\x8b\x08\0" * 9, bytes(99)]
)
def test_what_is_no_capture(harness, data):
    assert walk(harness, data).end == ("more" if len(data) < 4 else "NO_CAPTURE")


# --- pcapng ---


@pytest.mark.parametrize("order", "<>")
def test_each_block_with_a_packet(harness, order):
    data = one_interface(
        enhanced(IPV4, 0x0123456789, original=30, order=order),
        simple(IPV6, order=order),
        enhanced(IPV6, 7, order=order, kind=2),
        order=order,
    )  # fmt: skip
    packets = [(IPV4, 30, 0x0123456789 * 1000), (IPV6, 48, 0), (IPV6, 48, 7000)]
    assert walk(harness, data) == (packets, 0, "end")


def test_every_size_and_padding(harness):
    sizes = range(1, 70)
    data = one_interface(*(enhanced(b"E" * size) for size in sizes))
    assert [len(packet) for packet, *_ in walk(harness, data).packets] == list(sizes)


def test_sections_differ_in_order_and_interfaces(harness):
    data = one_interface(enhanced(IPV4, 1)) + one_interface(
        enhanced(IPV4, 2, order=">"), order=">", options=[(9, b"\x09")]
    )
    data += section(enhanced(IPV4, 3))
    assert walk(harness, data) == ([(IPV4, 28, 1000), (IPV4, 28, 2)], 0, "INTERFACE")


def test_blocks_and_options_that_are_unknown(harness):
    unknown = twins.capture_block(0x0BAD, b"whatever there is")
    options = [(2, b"eth0"), (9, b"\x09"), (0x8BAD, b"12345"), (1, b"")]
    data = one_interface(
        unknown, enhanced(IPV4, 5, options=twins.capture_option(1, b"comment")), unknown, options=options
    )
    assert walk(harness, unknown + data).end == "NO_CAPTURE"
    assert walk(harness, data + unknown) == ([(IPV4, 28, 5)], 0, "end")


def test_a_large_block_of_no_interest(harness):
    unknown = twins.capture_block(5, bytes(3 << 20))
    found = walk(harness, one_interface(unknown, enhanced(IPV4)), steps=(0, 1 << 16))
    assert found == ([(IPV4, 28, 0)], 0, "end")
    found = walk(harness, one_interface(unknown[:-1] + b"\1", enhanced(IPV4)), steps=(0, 1 << 16))
    assert found == ([], 0, "MISMATCH")


def test_the_end_of_options(harness):
    data = one_interface(enhanced(IPV4, 5), options=[(0, b""), (9, b"\x09")])
    assert walk(harness, data).packets == [(IPV4, 28, 5000)], "what is behind the end means nothing"


@pytest.mark.parametrize("option", [(9, b""), (9, b"\6\6"), (14, b"1234567"), (14, bytes(9)), (14, b"")])
def test_options_of_a_wrong_size(harness, option):
    assert walk(harness, one_interface(enhanced(IPV4), options=[option])).end == "OPTION"


def test_options_that_run_over(harness):
    for body in (b"\2\0\5\0abcd", b"\2\0\xff\xff", b"\x09\0\1\0", b"\x0e\0\x08\0" + bytes(4)):
        block = twins.capture_block(1, struct.pack("<HHI", RAW, 0, 0) + body)
        assert walk(harness, section(block, enhanced(IPV4))) == ([], 0, "OPTION")


def test_every_resolution(harness):
    """Of each power of ten and of two, where a value is the largest that fits, and where it is one more."""
    for resolution in range(256):
        units = 2 ** (resolution & 127) if resolution & 128 else 10**resolution
        largest = min(-(-(2**63) * units // 10**9) - 1, 2**64 - 1)
        values = [0, 1, 10**9, largest, 2**64 - 1, 2**63, 0x123456789ABCDEF0, units // 3 % 2**64]
        for value in [*values, *([largest + 1] if largest < 2**64 - 1 else [])]:
            data = one_interface(enhanced(IPV4, value), options=[(9, bytes([resolution]))])
            found = walk(harness, data, steps=[0])
            expected = value * 10**9 // units
            if expected < 2**63:
                assert found == ([(IPV4, 28, expected)], 0, "end")
            else:
                assert found == ([], 0, "TIME")


LIMIT = 9223372036
OFFSETS = [0, 1, -1, 1_700_000_000, LIMIT, LIMIT + 1, -LIMIT, -LIMIT - 1, -LIMIT - 2, 2**63 - 1, -(2**63)]


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("order", "<>")
def test_offsets_of_an_interface(harness, offset, order):
    options = [(9, b"\x09"), (14, struct.pack(order + "q", offset))]
    seconds = [0, 1, 854_775_807, 854_775_808, 10**9, 145_224_192, 145_224_191]
    values = [*seconds, *(10**9 + value for value in seconds), 2**64 - 1, 2**63 - 1, 2**63]
    for value in values:
        found = walk(
            harness,
            one_interface(enhanced(IPV4, value, order=order), order=order, options=options),
            steps=[0],
        )
        expected = value + offset * 10**9
        assert found.end == ("end" if -(2**63) <= expected < 2**63 else "TIME")


def test_seconds_beyond_64_bits_come_back_with_an_offset(harness):
    for value, offset in (
        (2**64 - 1, -(2**63)),
        (2**63 + 5, -(2**63)),
        (2**63 - 7, -(2**63)),
        (1, 2**63 - 1),
    ):
        options = [(9, b"\0"), (14, struct.pack("<q", offset))]
        walk(harness, one_interface(enhanced(IPV4, value), options=options))


def test_simple_packets_and_the_snap_length(harness):
    data = one_interface(simple(IPV4[:20], original=1000), simple(b"E" * 7), snap=20)
    assert walk(harness, data).packets == [(IPV4[:20], 1000, 0), (b"E" * 7, 7, 0)]
    assert walk(harness, one_interface(simple(b"E" * 8, original=13), snap=20)).end == "SIZE"
    assert walk(harness, one_interface(simple(b"E" * 8, original=13))).end == "SIZE"


@pytest.mark.parametrize("kind", [2, 6])
@pytest.mark.parametrize("captured", [28, 29, 32, 33, *HOSTILE])
def test_hostile_captured_sizes(harness, kind, captured):
    data = one_interface(enhanced(IPV4, 1), enhanced(IPV4, captured=captured, kind=kind), enhanced(IPV4, 2))
    found = walk(harness, data)
    assert found.packets[0] == (IPV4, 28, 1000)
    assert found.end == ("end" if captured <= 28 else "SIZE")


@pytest.mark.parametrize("size", HOSTILE)
@pytest.mark.parametrize("kind", [0x0A0D0D0A, 1, 2, 3, 6, 0x0BAD])
@pytest.mark.parametrize("at", ["front", "back"])
def test_hostile_sizes_of_blocks(harness, size, kind, at):
    start = one_interface(enhanced(IPV4, 1))
    body = struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1) + bytes(16)
    block = bytearray(twins.capture_block(kind, body))
    block[4:8] = struct.pack("<I", size) if at == "front" else block[4:8]
    block[-4:] = struct.pack("<I", size) if at == "back" else block[-4:]
    found = walk(harness, start + block + enhanced(IPV4, 2))
    assert found.packets[0] == (IPV4, 28, 1000)
    assert found.end in ("SIZE", "MISMATCH", "more", "end")
    if at == "back":
        assert found.end == "MISMATCH"
    elif size < 12:
        assert found.end == "SIZE"


def test_blocks_that_are_too_small_for_their_fields(harness):
    for kind, least in ((0x0A0D0D0A, 16), (1, 8), (2, 20), (3, 4), (6, 20)):
        for size in range(0, least, 4):
            body = struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)[:size].ljust(size, b"\0")
            found = walk(harness, one_interface(twins.capture_block(kind, body), enhanced(IPV4)))
            assert found.packets == []
            assert found.end in ("SIZE", "NO_CAPTURE")


def test_every_end_of_a_pcapng(harness):
    blocks = [
        twins.capture_section(), twins.capture_interface(RAW), enhanced(IPV4),
        twins.capture_block(77, b"1234567"), simple(IPV6), twins.capture_section(">"),
    ]  # fmt: skip
    data = b"".join(blocks)
    ends = [sum(map(len, blocks[: i + 1])) for i in range(len(blocks))]
    for size in range(len(data) + 1):
        found = walk(harness, data[:size])
        assert len(found.packets) == (size >= ends[2]) + (size >= ends[4])
        assert found.end == ("end" if size in ends else "more")


def test_a_section_of_another_version_or_order(harness):
    assert walk(harness, twins.capture_section(version=(2, 0))).end == "VERSION"
    assert walk(harness, twins.capture_section(version=(1, 2))).end == "end"
    broken = bytearray(twins.capture_section())
    broken[8] ^= 1
    assert walk(harness, one_interface(enhanced(IPV4)) + broken) == ([(IPV4, 28, 0)], 0, "NO_CAPTURE")


def test_interfaces_that_are_not_there(harness):
    for number in (1, 2, 65535, 2**32 - 1):
        assert walk(harness, one_interface(enhanced(IPV4, number=number))).end == "INTERFACE"
    assert walk(harness, one_interface(enhanced(IPV4, number=65535, kind=2))).end == "INTERFACE"
    assert walk(harness, section(simple(IPV4))).end == "INTERFACE"


def test_as_many_interfaces_as_there_may_be(harness):
    interface = twins.capture_interface(RAW)
    data = section(interface * 4096, enhanced(IPV4, number=4095))
    assert walk(harness, data, steps=[0]) == ([(IPV4, 28, 0)], 0, "end")
    assert walk(harness, section(interface * 4097), steps=[0]).end == "CROWD"


def test_each_interface_has_its_own(harness):
    data = section(
        twins.capture_interface(RAW, 0, "<", (9, b"\x09")),
        twins.capture_interface(228, 0, "<", (9, b"\x83")),
        enhanced(IPV4, 8, number=1), enhanced(IPV4, 8, number=0),
    )  # fmt: skip
    assert walk(harness, data).packets == [(IPV4, 28, 10**9), (IPV4, 28, 8)]


# --- link types ---


def layers_of(harness, link, packet):
    """What comes out of a packet of a link type without being asked for a layer, and for each."""
    data = one_interface(enhanced(packet, original=1000), link=link)
    return [walk(harness, data, layer, steps=[0]) for layer in (0, 2, 3)]


@pytest.mark.parametrize("link", [12, 14, 101, 228, 229])
def test_raw(harness, link):
    anyway, frames, packets = layers_of(harness, link, IPV4)
    assert anyway == packets == ([(IPV4, 1000, 0)], 0, "end")
    assert frames.end == "LAYER"


@pytest.mark.parametrize("link", [NULL, LOOP])
def test_loopback(harness, link):
    for family in (b"\2\0\0\0", b"\0\0\0\2", b"\x1e\0\0\0"):
        anyway, frames, packets = layers_of(harness, link, family + IPV6)
        assert anyway == packets == ([(IPV6, 996, 0)], 0, "end")
        assert frames.end == "LAYER"
    for nothing in (b"", b"\2", b"\2\0\0\0", b"\7\0\0\0\xff\xff"):
        assert layers_of(harness, link, nothing)[0] == ([], 1, "end")


def test_cooked(harness):
    for link, header, size in (
        (COOKED, "0000 0304 0006 000000000000 0000", 16),
        (COOKED_2, "0000 00000001 0304 00 06 0000000000000000", 20),
    ):
        header = bytes.fromhex(header)

        def head(kind, header=header, link=link):
            return header + kind if link == COOKED else kind + header

        for kind in (b"\x08\0", b"\x86\xdd"):
            assert layers_of(harness, link, head(kind) + IPV4)[0] == ([(IPV4, 1000 - size, 0)], 0, "end")
        for nothing in (b"", head(b"\x08\0"), head(b"\x08\0")[:9], head(b"\x08\x06") + IPV4):
            assert layers_of(harness, link, nothing)[0] == ([], 1, "end")


def test_ethernet_as_it_is_and_taken_off(harness):
    frame = bytes(12) + b"\x08\0" + IPV4
    anyway, frames, packets = layers_of(harness, ETHERNET, frame)
    assert anyway == frames == ([(frame, 1000, 0)], 0, "end")
    assert packets == ([(IPV4, 986, 0)], 0, "end")
    for tags in (b"\x81\0\0\1", b"\x88\xa8\0\1\x81\0\0\2", b"\x81\0\0\1" * 9):
        [packet] = layers_of(harness, ETHERNET, bytes(12) + tags + b"\x86\xdd" + IPV6)[2].packets
        assert packet == (IPV6, 1000 - 14 - len(tags), 0)
    for nothing in (b"", bytes(12), bytes(13), bytes(12) + b"\x08\0", bytes(12) + b"\x08\6" + IPV4,
                    bytes(12) + b"\x81\0\0\1", bytes(12) + b"\x81\0" * 20):  # fmt: skip
        assert layers_of(harness, ETHERNET, nothing)[2] == ([], 1, "end")


def test_padding_of_frames(harness):
    """A frame has at least 60 bytes, the packet in it may have fewer."""
    for packet in (b"\x45\0\0\x1c" + bytes(24), b"\x60\0\0\0\0\x04" + bytes(38)):
        frame = (bytes(12) + b"\x08\0" + packet).ljust(60, b"\xee")
        data = one_interface(enhanced(frame), link=ETHERNET)
        assert walk(harness, data, 3).packets == [(packet, len(packet), 0)]
        cut = one_interface(enhanced(frame[:38], original=60), link=ETHERNET)
        assert walk(harness, cut, 3).packets == [(packet[:24], len(packet), 0)]
    for size in range(1, 7):
        data = one_interface(enhanced(bytes(12) + b"\x08\0" + b"\x45\0\0\1\0\1"[:size]), link=ETHERNET)
        walk(harness, data, 3)


def test_other_link_types(harness):
    for link in (2, 105, 127, 147, 249, 65535):
        assert [found.end for found in layers_of(harness, link, IPV4)] == ["LINK_TYPE"] * 3


def test_an_interface_without_packets_may_be_anything(harness):
    data = section(twins.capture_interface(127), twins.capture_interface(RAW), enhanced(IPV4, number=1))
    assert walk(harness, data) == ([(IPV4, 28, 0)], 0, "end")


def test_layers_do_not_mix_unless_one_is_asked_for(harness):
    frame = bytes(12) + b"\x08\0" + IPV4
    interfaces = [twins.capture_interface(RAW), twins.capture_interface(ETHERNET)]
    for numbers in ((0, 1), (1, 0)):
        blocks = [enhanced((IPV4, frame)[number], number=number) for number in numbers]
        data = section(*interfaces, *blocks)
        found = walk(harness, data)
        assert (len(found.packets), found.end) == (1, "LAYER")
        assert walk(harness, data, 3) == ([(IPV4, 28, 0)] * 2, 0, "end")


# --- writing ---


@pytest.mark.parametrize("form", FORMATS)
def test_a_header(harness, form):
    for link in (1, 101, 276):
        expected = twins.capture_header(form, link, 65535)
        assert harness.pcap_header(form, link, 65535) == (expected, True, True)
        for room in range(len(expected)):
            assert harness.pcap_header(form, link, 65535, room)[1:] == (False, True)


@pytest.mark.parametrize("form", FORMATS)
def test_what_is_written(harness, form):
    for size in range(70):
        packet = bytes(range(1, size + 1))
        time = 1_700_000_000_123_456_789 + size
        expected = twins.capture_record(form, packet, time, size + 3)
        for at in (0, 3):
            written = harness.pcap_write(form, packet, time, size + 3, at=at)
            assert written == (expected, len(expected), True, True)
        for room in range(len(expected)):
            assert harness.pcap_write(form, packet, time, size, room) == (b"", len(expected), False, True)


@pytest.mark.parametrize("form", FORMATS)
@given(packet=st.binary(min_size=1, max_size=300), time=st.integers(0, 2**63 - 1), more=st.integers(0, 2**31))
def test_what_is_written_is_read(harness, form, packet, time, more):
    time = min(time, 2**32 * 10**9 - 1) if form == "pcap" else time
    record, size, *is_right = harness.pcap_write(form, packet, time, len(packet) + more)
    assert record == twins.capture_record(form, packet, time, len(packet) + more)
    assert (len(record), is_right) == (size, [True, True])
    data = twins.capture_header(form, RAW, 262144) + record
    assert walk(harness, data) == ([(packet, len(packet) + more, time)], 0, "end")


def test_times_that_can_be_written(harness):
    for time, in_pcap, in_pcapng in (
        (-1, False, False), (-(2**63), False, False), (0, True, True), (2**32 * 10**9 - 1, True, True),
        (2**32 * 10**9, False, True), (2**63 - 1, False, True),
    ):  # fmt: skip
        assert harness.pcap_holds("pcap", time) is in_pcap
        assert harness.pcap_holds("pcapng", time) is in_pcapng


# --- anything ---

numbers = st.one_of(st.sampled_from(HOSTILE), st.integers(0, 2**32 - 1), st.integers(0, 100))
links = st.sampled_from([*twins.LINK_HEADERS, 2, 127, ETHERNET, RAW])
contents = st.one_of(
    st.binary(max_size=80),
    st.builds(
        lambda *parts: b"".join(parts), st.binary(max_size=20),
        st.sampled_from([b"\x08\0", b"\x86\xdd", b"\x81\0", b"\x88\xa8", b""]), st.binary(max_size=40),
    ),
)  # fmt: skip
layers = st.sampled_from([0, 2, 3])
steps = st.integers(1, 200)


@st.composite
def spoiled(draw, data):
    """A file, perhaps with some numbers replaced, or cut."""
    data = bytearray(data)
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        at = 4 * draw(st.integers(0, max(len(data) // 4 - 1, 0)))
        data[at : at + 4] = struct.pack(draw(st.sampled_from("<>")) + "I", draw(numbers))
    return bytes(data[: draw(st.integers(0, len(data)))]) if draw(st.booleans()) else bytes(data)


@st.composite
def classics(draw):
    order, unit = draw(st.sampled_from(list(MAGICS)))
    times = st.integers(0, 2**32 - 1)
    records = [
        (
            draw(times),
            draw(times),
            len(packet),
            max(len(packet) + draw(st.integers(-2, 9)), 0),
            packet,
        )
        for packet in draw(st.lists(contents, max_size=6))
    ]
    return draw(spoiled(classic(draw(links), records, order, unit)))


@st.composite
def blocks(draw):
    data, order = b"", "<"
    for kind in draw(st.lists(st.sampled_from([0, 1, 1, 2, 3, 6, 6, 6, 99]), max_size=10)):
        if kind == 0 or not data:
            order = draw(st.sampled_from("<>"))
            data += twins.capture_section(order)
        if kind == 1:
            options = draw(
                st.lists(
                    st.one_of(
                        st.tuples(st.just(9), st.binary(min_size=1, max_size=1)),
                        st.tuples(st.just(14), st.binary(min_size=8, max_size=8)),
                        st.tuples(st.integers(0, 20), st.binary(max_size=9)),
                    ),
                    max_size=3,
                )
            )
            data += twins.capture_interface(draw(links), draw(numbers), order, *options)
        elif kind == 3:
            data += simple(draw(contents), draw(st.one_of(st.none(), numbers)), order)
        elif kind in (2, 6):
            packet = draw(contents)
            time = draw(st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 2**51)))
            number = draw(st.integers(0, 2))
            data += enhanced(
                packet, time, number, order, kind=kind, options=draw(st.sampled_from([b"", b"\1\0\0\0"]))
            )
        elif kind == 99:
            data += twins.capture_block(draw(numbers), draw(st.binary(max_size=30)), order)
    return draw(spoiled(data))


@given(st.one_of(classics(), blocks()), layers, steps)
def test_agrees_with_the_twin(harness, data, layer, step):
    walk(harness, data, layer, (0, step))


@given(
    st.sampled_from([*MAGICS.values(), twins.capture_section(), b""]), st.binary(max_size=300), layers, steps
)
def test_any_bytes(harness, start, data, layer, step):
    walk(harness, start + data, layer, (0, step))
