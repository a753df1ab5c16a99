"""The checksum kernels against testing.checksum, word by word, and against scapy."""

import itertools
import random
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.utils import checksum as scapy_checksum

from tuntap import offload
from tuntap.testing import checksum as slow_checksum

SIZES = [*range(2101), 65535]
ALIGNMENTS = range(16)
INITIALS = [0, 1, 0xFFFE, 0xFFFF, 0x10000, 0x1FFFE, 2**32 - 1, 2**32, 2**63, 2**64 - 0xFFFF, 2**64 - 1]
PATTERNS = {
    "zeros": lambda size: bytes(size),
    "ones": lambda size: b"\xff" * size,
    "random": lambda size: random.Random(size).randbytes(size),
    "carries": lambda size: (b"\xff\xfe\xff\xff\x00\x01" * (size // 6 + 1))[:size],
}
# Where ones' complement arithmetic has two zeros, and next to it.
CORNERS = [0, 1, 2, 0x7FFF, 0x8000, 0xFFFD, 0xFFFE, 0xFFFF]


def slow_fold(total):
    while total >> 16:
        total = (total >> 16) + (total & 0xFFFF)
    return total


def fast_checksum(harness, data, offset=0, initial=0):
    return harness.fold(harness.checksum_sum(data, offset, initial)) ^ 0xFFFF


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_length_and_alignment(harness, pattern):
    for size in SIZES:
        data = PATTERNS[pattern](size)
        expected = slow_checksum(data)
        for offset in ALIGNMENTS:
            assert fast_checksum(harness, bytes(offset) + data, offset) == expected, (size, offset)
        assert offload.checksum(data) == expected, size


@pytest.mark.parametrize("pattern", PATTERNS)
def test_initial(harness, pattern):
    for size in [*range(70), 1499, 1500, 65535]:
        data = PATTERNS[pattern](size)
        plain = slow_checksum(data) ^ 0xFFFF
        for initial in INITIALS:
            expected = slow_checksum(b"", plain + initial)
            assert fast_checksum(harness, data, 0, initial) == expected, (size, initial)
            assert offload.checksum(data, initial) == expected, (size, initial)


@given(data=st.binary(max_size=300), offset=st.integers(0, 15), initial=st.integers(0, 2**64 - 1))
def test_any_bytes(harness, data, offset, initial):
    assert fast_checksum(harness, bytes(offset) + data, offset, initial) == slow_checksum(data, initial)


@given(data=st.binary(max_size=300))
def test_scapy_agrees(data):
    assert offload.checksum(data) == scapy_checksum(data)


@given(data=st.binary(max_size=300), cut=st.integers(0, 150))
def test_sums_add_up(harness, data, cut):
    """Sums of parts, cut at an even place, are the sum of the whole."""
    first = harness.checksum_sum(data[: 2 * cut])
    assert harness.fold(harness.checksum_sum(data[2 * cut :], 0, first)) == slow_checksum(data) ^ 0xFFFF


def test_rfc_1071_example():
    assert offload.checksum(bytes.fromhex("0001 f203 f4f5 f6f7")) == 0xDDF2 ^ 0xFFFF


def test_fold(harness):
    for total in [*INITIALS, *[2**i + d for i in range(64) for d in (-1, 0, 1)], 0xFFFF_FFFF_FFFE_0001]:
        assert harness.fold(total) == slow_fold(total), total


@given(total=st.integers(0, 2**64 - 1))
def test_any_fold(harness, total):
    assert harness.fold(total) == slow_fold(total)


# --- incremental update ---


def slow_update(checksum, before, after):
    """RFC 1624, equation 3: HC' = ~(~HC + ~m + m')."""
    return slow_fold((checksum ^ 0xFFFF) + (before ^ 0xFFFF) + after) ^ 0xFFFF


def test_rfc_1624_example(harness):
    """The example of section 4, where the equation of RFC 1141 yields 0xFFFF."""
    assert harness.update(0xDD2F, 0x5555, 0x3285) == 0x0000


def test_update_corners(harness):
    for values in itertools.product(CORNERS, repeat=3):
        assert harness.update(*values) == slow_update(*values), values


corner_words = st.sampled_from(CORNERS) | st.integers(0, 0xFFFF)


@given(words=st.lists(corner_words, min_size=1, max_size=40), place=st.integers(0, 39), after=corner_words)
def test_update_is_recomputation(harness, words, place, after):
    place %= len(words)
    changed = [*words[:place], after, *words[place + 1 :]]
    checksum = slow_checksum(struct.pack(f"!{len(words)}H", *words))
    expected = slow_checksum(struct.pack(f"!{len(words)}H", *changed))
    updated = harness.update(checksum, words[place], after)
    if any(changed) or updated == expected:
        assert updated == expected
    else:
        # Nothing but zeros is left: the sum is the other zero, as RFC 1624 says it must be.
        assert (updated, expected) == (0, 0xFFFF)


# --- pseudo-header ---

ports = st.integers(0, 0xFFFF)


@given(
    source=st.ip_addresses(v=4), destination=st.ip_addresses(v=4), transport=st.sampled_from([TCP, UDP]),
    sport=ports, dport=ports, payload=st.binary(max_size=50), options=st.integers(0, 10),
)  # fmt: skip
def test_pseudo_header_v4(harness, source, destination, transport, sport, dport, payload, options):
    ip = IP(src=str(source), dst=str(destination), options=b"\1" * (4 * options))
    check_pseudo_header(harness, ip / transport(sport=sport, dport=dport) / payload, 20 + 4 * options)


@given(
    source=st.ip_addresses(v=6), destination=st.ip_addresses(v=6), transport=st.sampled_from([TCP, UDP]),
    sport=ports, dport=ports, payload=st.binary(max_size=50),
)  # fmt: skip
def test_pseudo_header_v6(harness, source, destination, transport, sport, dport, payload):
    ip = IPv6(src=str(source), dst=str(destination))
    check_pseudo_header(harness, ip / transport(sport=sport, dport=dport) / payload, 40)


def check_pseudo_header(harness, layers, header_size):
    """A packet whose checksum scapy computed sums up to the zero of all ones."""
    packet = bytes(layers)
    protocol = packet[9] if packet[0] >> 4 == 4 else packet[6]
    segment = packet[header_size:]
    total, failed = harness.pseudo_header(packet, protocol, len(segment))
    assert not failed
    assert harness.fold(harness.checksum_sum(segment, 0, total)) == 0xFFFF


@pytest.mark.parametrize(("version", "enough", "place"), [(4, 20, slice(12, 20)), (6, 40, slice(8, 40))])
def test_pseudo_header_of_every_length(harness, version, enough, place):
    whole = bytes([version << 4, *random.Random(version).randbytes(59)])
    for size in range(61):
        for length in (0, 1, 0xFFFF, 0x10000, 2**32 - 1):
            total, failed = harness.pseudo_header(whole[:size], 17, length)
            assert failed == (size < enough), size
            if failed:
                assert total == 0
            else:
                expected = slow_checksum(whole[place] + struct.pack("!IBBBB", length, 0, 0, 0, 17))
                assert harness.fold(total) ^ 0xFFFF == expected


def test_pseudo_header_of_another_version(harness):
    for version in set(range(16)) - {4, 6}:
        assert harness.pseudo_header(bytes([version << 4]) + bytes(79), 6, 100) == (0, True), version


# --- the public function ---


def test_any_buffer():
    data = bytes(range(200))
    words = np.frombuffer(data, np.uint32)
    for buffer in (bytearray(data), memoryview(data), memoryview(data).cast("H"), words):
        assert offload.checksum(buffer) == slow_checksum(data)


@pytest.mark.parametrize("data", [None, "text", 5, [1, 2], object()])
def test_no_buffer(data):
    with pytest.raises(TypeError):
        offload.checksum(data)


@pytest.mark.parametrize("data", [memoryview(b"abcdef")[::2], np.zeros((4, 4), np.uint8).T[:, ::2]])
def test_strided_buffer(data):
    with pytest.raises(ValueError, match="contiguous"):
        offload.checksum(data)


@pytest.mark.parametrize("initial", ["1", None, 1.5])
def test_initial_of_the_wrong_type(initial):
    with pytest.raises(TypeError):
        offload.checksum(b"", initial)


@pytest.mark.parametrize("initial", [-1, 2**64, 10**30])
def test_initial_out_of_range(initial):
    with pytest.raises(ValueError, match="initial"):
        offload.checksum(b"", initial)
