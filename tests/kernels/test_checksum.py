"""The checksum kernels against testing.checksum, word by word, and against scapy."""

import itertools
import platform
import random
import re
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.utils import checksum as scapy_checksum

from tuntap import offload
from tuntap.testing import checksum as slow_checksum

SIZES = [*range(2101), 9001, 16384, 32767, 65533, 65534, 65535, 65536]
ALIGNED_SIZES = [0, 1, 7, 8, 20, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257, 511, 1448, 1501, 2047]
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


def summers(harness):
    """Every way of summing that this CPU has, in turn; then the fastest is in use again."""
    index = 0
    try:
        while (name := harness.choose_summer(index)) is not None:
            yield name
            index += 1
    finally:
        harness.choose_summer(0)


def check_sums(harness, data, offset=0, initial=0, guard=64, expected=None):
    """Both functions, summing as they do now."""
    if expected is None:
        expected = slow_checksum(data, initial)
    case = (len(data), offset, initial, guard)
    padded = bytes(offset) + data
    total = harness.checksum_sum(padded, offset, initial)
    assert harness.fold(total) ^ 0xFFFF == expected, case
    assert total < 2**17, case
    assert harness.checksum_copy(padded, offset, initial, guard) == (total, data, True), case


def test_this_cpu_is_used(harness):
    names = list(summers(harness))
    assert names[-1] == "scalar"
    assert len(set(names)) == len(names)
    cpuinfo = Path("/proc/cpuinfo")
    if sys.platform == "win32" and platform.machine() == "AMD64":
        assert names == ["scalar"]
    elif cpuinfo.exists():
        assert ("avx2" in names) == bool(re.search(r"^flags\b.*\bavx2\b", cpuinfo.read_text(), re.MULTILINE))
    if sys.platform != "win32" and platform.machine() in ("aarch64", "arm64"):
        assert names == ["neon", "scalar"]
    assert harness.choose_summer(len(names)) is None


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_length(harness, pattern):
    cases = [(data, slow_checksum(data)) for data in map(PATTERNS[pattern], SIZES)]
    for name in summers(harness):
        for data, expected in cases:
            for offset, guard in [(0, 64), (1, 65), (2, 96)]:
                check_sums(harness, data, offset, 0, guard, expected)
            assert offload.checksum(data) == expected, (name, len(data))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_alignment(harness, pattern):
    cases = [(data, slow_checksum(data)) for data in map(PATTERNS[pattern], ALIGNED_SIZES)]
    for _ in summers(harness):
        for data, expected in cases:
            for offset in range(64):
                check_sums(harness, data, offset, 0, 64, expected)
                check_sums(harness, data, 0, 0, 64 + offset, expected)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_initial(harness, pattern):
    for size in [*range(70), 1499, 1500, 65535]:
        data = PATTERNS[pattern](size)
        plain = slow_checksum(data) ^ 0xFFFF
        for initial in INITIALS:
            expected = slow_checksum(b"", plain + initial)
            for _ in summers(harness):
                check_sums(harness, data, 0, initial, 64, expected)
            assert offload.checksum(data, initial) == expected, (size, initial)


@given(
    data=st.binary(max_size=300), offset=st.integers(0, 63), initial=st.integers(0, 2**64 - 1),
    guard=st.integers(64, 127),
)  # fmt: skip
def test_any_bytes(harness, data, offset, initial, guard):
    for _ in summers(harness):
        check_sums(harness, data, offset, initial, guard)


@given(block=st.binary(min_size=1, max_size=64), size=st.integers(0, 3000))
def test_any_repetition(harness, block, size):
    data = (block * size)[:size]
    for _ in summers(harness):
        check_sums(harness, data)


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
