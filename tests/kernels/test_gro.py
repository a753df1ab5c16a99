"""The coalescing kernel at its edges; what it merges is tested against Linux and the twins."""

import struct

import pytest
from flows import renumbered
from hypothesis import given, settings
from hypothesis import strategies as st

from tuntap import testing

TCP4, TCP6, UDP = 2, 4, 8
WINDOW = 256


def tcp(number, size=100, **options):
    options = {"seq": number * 100, **options}
    return renumbered(
        testing.tcp("10.0.0.1", "10.0.0.2", 7, 9, bytes([number % 256]) * size, **options), number
    )


def udp(number, size=100, sport=7):
    return renumbered(testing.udp("10.0.0.1", "10.0.0.2", sport, 9, bytes([number % 256]) * size), number)


def broken(packet):
    """The same with a checksum that is wrong."""
    return packet[:-1] + bytes([packet[-1] ^ 1])


def indices(windows):
    return [[item[0] for item in window] for window in windows]


def test_a_flow_is_one_item(harness):
    packets = [tcp(i) for i in range(20)]
    assert indices(harness.gro_coalesce(packets)) == [[list(range(20))]]


def test_a_window_ends_when_it_is_full(harness):
    packets = [udp(i, sport=i % 300 + 1) for i in range(600)]
    assert [sum(map(len, window)) for window in indices(harness.gro_coalesce(packets))] == [256, 256, 88]


@pytest.mark.parametrize("hostile", [b"\0", b"\x10" * 60, b"\xff", b"E", b"E" * 19, b"`" * 39])
def test_hostile_packets_go_alone(harness, hostile):
    """What is no IP packet at all begins a window, so that everything before it has been sent."""
    windows = indices(harness.gro_coalesce([tcp(0), tcp(1), hostile, tcp(2), tcp(3)]))
    if hostile[0] >> 4 in (4, 6):
        assert windows == [[[0, 1], [2], [3, 4]]]
    else:
        assert windows == [[[0, 1]], [[2], [3, 4]]]


def test_short_frames_begin_a_window(harness):
    link = b"\2\0\0\0\0\1\2\0\0\0\0\2\x08\0"
    frames = [link + tcp(0), link + tcp(1), b"\2" * 13, link + tcp(2)]
    assert indices(harness.gro_coalesce(frames, is_frame=True)) == [[[0, 1]], [[2], [3]]]


@pytest.mark.parametrize("first", [True, False])
def test_wrong_checksums_are_neither_merged_nor_repaired(harness, first):
    packets = [broken(tcp(0)), tcp(1)] if first else [tcp(0), broken(tcp(1))]
    ((one, other),) = harness.gro_coalesce([*packets])
    assert (one, other) == (([0], None, packets[0]), ([1], None, packets[1]))


def test_trusted_packets_are_not_looked_at_and_left_to_the_kernel(harness):
    (items,) = harness.gro_coalesce([broken(tcp(0)), broken(tcp(1)), broken(udp(0))], trusted=True)
    assert [item[0] for item in items] == [[0, 1], [2]]
    assert [struct.unpack("=BBHHHH", item[1]) for item in items] == [
        (1, 1, 40, 100, 20, 16),
        (1, 0, 0, 0, 20, 6),
    ]


def test_a_datagram_without_a_checksum_keeps_to_it(harness):
    packet = udp(0)[:26] + b"\0\0" + udp(0)[28:]
    ((item,),) = harness.gro_coalesce([packet], trusted=True)
    assert item == ([0], None, packet)


@pytest.mark.parametrize(("types", "merged"), [(TCP4, [0, 1]), (UDP, [2, 3]), (TCP6, None), (0, None)])
def test_only_what_is_asked_for_is_merged(harness, types, merged):
    (items,) = harness.gro_coalesce([tcp(0), tcp(1), udp(0), udp(1)], types=types)
    assert [item[0] for item in items if len(item[0]) > 1] == ([merged] if merged else [])


def test_identifications_may_be_the_same_if_they_mean_nothing(harness):
    same = [testing.tcp("10.0.0.1", "10.0.0.2", 7, 9, bytes(100), seq=i * 100) for i in range(5)]
    assert indices(harness.gro_coalesce(same, renumber=True)) == [[[0, 1, 2, 3, 4]]]
    assert indices(harness.gro_coalesce(same)) == [[[0], [1], [2], [3], [4]]]
    mixed = [*same[:3], *(renumbered(packet, i) for i, packet in enumerate(same[3:], 1))]
    assert indices(harness.gro_coalesce(mixed, renumber=True)) == [[[0, 1, 2], [3, 4]]]


def test_long_headers_are_not_merged(harness):
    """An IPv6 extension header may be 2 KiB; the room for headers is not."""
    plain = testing.udp("fd00::1", "fd00::2", 7, 9, bytes(50))
    for units in (0, 24, 25, 26, 255):
        extension = bytes([17, units]) + bytes(8 * units + 6)
        size = len(extension) + len(plain) - 40
        packet = plain[:4] + size.to_bytes(2, "big") + b"\x3c" + plain[7:40] + extension + plain[40:]
        expected = [[0, 1]] if 40 + len(extension) + 8 <= 256 else [[0], [1]]
        assert indices(harness.gro_coalesce([packet, packet])) == [expected], units


@settings(max_examples=500, deadline=None)
@given(
    shape=st.lists(st.tuples(st.sampled_from("tuTx"), st.integers(0, 5), st.integers(0, 200)), max_size=40),
    flips=st.lists(st.tuples(st.integers(0, 39), st.integers(0, 60), st.integers(0, 255)), max_size=5),
    trusted=st.booleans(),
    is_frame=st.booleans(),
    renumber=st.booleans(),
)
def test_every_packet_is_in_one_item_and_flows_keep_their_order(
    harness, shape, flips, trusted, is_frame, renumber
):
    makers = {
        "t": lambda number, size: tcp(number, size),
        "u": lambda number, size: udp(number, size),
        "T": lambda number, size: testing.tcp("fd00::1", "fd00::2", 7, 9, bytes(size), seq=number * 100),
        "x": lambda number, size: bytes([number * 40]) * (size + 1),
    }
    packets = [bytearray(makers[kind](number, size)) for kind, number, size in shape]
    for which, at, value in flips:
        if which < len(packets) and at < len(packets[which]):
            packets[which][at] = value
    packets = [bytes(packet) for packet in packets]
    windows = harness.gro_coalesce(packets, trusted=trusted, is_frame=is_frame, renumber=renumber)
    seen = [index for window in indices(windows) for item in window for index in item]
    assert sorted(seen) == list(range(len(packets)))
    for window in windows:
        firsts = [item[0][0] for item in window]
        assert firsts == sorted(firsts)
        for members, fields, content in window:
            assert members == sorted(members)
            assert len(content) <= 65535
            assert fields is not None or (len(members) == 1 and content == packets[members[0]])
