"""The walk over BPF records at its edges, and against its slow twin."""

import struct

import pytest
import twins
from hypothesis import given
from hypothesis import strategies as st

MACOS, FREEBSD, OPENBSD = (8, 4), (16, 8), (8, 4)
LAYOUTS = [MACOS, FREEBSD, (8, 8), (16, 4)]
FIXED = {layout: struct.calcsize(twins.RECORD[layout[0]]) for layout in LAYOUTS}
# The sizes of a field that a kernel would not write: around the end, and where a sum leaves 32 bits.
HOSTILE = [0, 1, 17, 18, 25, 26, 27, 0x7FFFFFFF, 0x80000000, 0xFFFFFFE5, 0xFFFFFFFC, 0xFFFFFFFF]


def walk(harness, data, layout):
    """What the kernel makes of it, which is what the twin makes of it."""
    found, result = harness.bpf_walk(data, *layout)
    if result:
        assert result < 0
        found = [*found, twins.Refused]
    assert found == twins.records(data, layout)
    return found


def packets(found):
    return [entry[1] for entry in found if entry is not twins.Refused]


def test_what_macos_writes(harness):
    """Two records of Ethernet frames: hdrlen 18 puts the IP header on a boundary of 4 bytes."""
    first = bytes.fromhex("01000000 02000000 0f000000 10000000 1200") + b"a" * 15 + b"\xee" * 3
    second = bytes.fromhex("03000000 04000000 01000000 01000000 1200") + b"b"
    data = first + second
    if struct.pack("=H", 1) != b"\1\0":
        pytest.skip("these bytes are of a little-endian host")
    assert walk(harness, data, MACOS) == [(18, b"a" * 15, 16, 1, 2), (54, b"b", 1, 3, 4)]


def test_what_openbsd_writes(harness):
    """Its header has more fields, which hdrlen counts."""
    data = twins.record(b"a" * 13, OPENBSD, header=30) + twins.record(b"b", OPENBSD, header=30)
    assert [entry[:2] for entry in walk(harness, data, OPENBSD)] == [(30, b"a" * 13), (74, b"b")]


def test_the_largest_timestamps(harness):
    for layout, bits in ((MACOS, 32), (FREEBSD, 64)):
        data = twins.record(b"x", layout, seconds=2**bits - 1, microseconds=2**bits - 2)
        [(*_, seconds, microseconds)] = walk(harness, data, layout)
        assert (seconds, microseconds) == (2**bits - 1, 2**bits - 2)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_length_and_header(harness, layout):
    for size in range(70):
        for header in range(FIXED[layout], FIXED[layout] + 20):
            parts = [bytes([number]) * size for number in (1, 2, 3)]
            data = b"".join(twins.record(part, layout, header=header) for part in parts)
            assert packets(walk(harness, data, layout)) == parts


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_end(harness, layout):
    """Cut anywhere, the records in front of the cut are there; without its padding the last one is whole."""
    parts = [b"one", b"", b"three...", b"4"]
    written = [twins.record(part, layout) for part in parts]
    data = b"".join(written)
    starts = [sum(map(len, written[:i])) for i in range(5)]
    ends = [start + FIXED[layout] + len(part) for start, part in zip(starts, parts, strict=False)]
    for size in range(len(data) + 1):
        found = walk(harness, data[:size], layout)
        whole = sum(end <= size for end in ends)
        assert packets(found) == parts[:whole]
        is_whole = size == 0 or any(end <= size <= start for end, start in zip(ends, starts[1:], strict=True))
        assert (twins.Refused not in found) == is_whole


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize("field", ["captured", "original", "header"])
def test_hostile_fields(harness, layout, field, value):
    good = twins.record(b"good", layout)
    for size in (0, 1, 30, 300):
        fields = {"captured": size, "original": size, "header": FIXED[layout], field: value}
        fields["header"] &= 0xFFFF
        bad = struct.pack(twins.RECORD[layout[0]], 0, 0, *fields.values()) + bytes(size)
        found = walk(harness, good + bad + good, layout)
        assert packets(found)[0] == b"good"


def test_a_header_that_ends_within_its_own_fields(harness):
    for layout in LAYOUTS:
        for header in range(FIXED[layout]):
            data = twins.record(b"good", layout) + twins.record(b"x", layout, header=header)
            assert packets(walk(harness, data, layout)) == [b"good"]


def test_more_captured_than_there_was(harness):
    data = twins.record(b"good", MACOS) + twins.record(b"four", MACOS, original=3) + twins.record(b"x", MACOS)
    assert packets(walk(harness, data, MACOS)) == [b"good"]


def test_records_of_nothing_have_an_end(harness):
    data = twins.record(b"", MACOS) * 1000
    assert packets(walk(harness, data, MACOS)) == [b""] * 1000


def test_zeros_are_no_records(harness):
    for layout in LAYOUTS:
        for size in range(1, 100):
            assert walk(harness, bytes(size), layout) == [twins.Refused]


layouts = st.sampled_from(LAYOUTS)
sizes = st.one_of(st.sampled_from(HOSTILE), st.integers(0, 2**32 - 1), st.integers(0, 100))


@st.composite
def reads(draw):
    """Records as a kernel writes them, some with another number in a field, perhaps cut short."""
    layout = draw(layouts)
    data = b""
    for packet in draw(st.lists(st.binary(max_size=80), max_size=8)):
        fields = {
            "header": FIXED[layout] + draw(st.integers(0, 12)),
            "original": len(packet) + draw(st.integers(0, 3)),
            "seconds": draw(st.integers(0, 2**32 - 1)),
            "microseconds": draw(st.integers(0, 2**32 - 1)),
        }
        made = bytearray(twins.record(packet, layout, **fields))
        if draw(st.integers(0, 9)) == 0:
            at = layout[0] + draw(st.sampled_from([0, 4, 8]))
            if at == layout[0] + 8:
                made[at : at + 2] = struct.pack("=H", draw(sizes) & 0xFFFF)
            else:
                made[at : at + 4] = struct.pack("=I", draw(sizes))
        data += made
    return data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data, layout


@given(reads())
def test_agrees_with_the_twin(harness, read):
    walk(harness, *read)


@given(st.binary(max_size=300), layouts)
def test_any_bytes(harness, data, layout):
    walk(harness, data, layout)
