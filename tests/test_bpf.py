"""Records of a read for programs of their own: what comes out, and what is refused."""

import array
import errno
import sys
from pathlib import Path

import numpy as np
import pytest

from tuntap import PacketError, bpf
from tuntap.bpf import FREEBSD, MACOS, NETBSD, OPENBSD, Layout, Record

sys.path.insert(0, str(Path(__file__).parent / "kernels"))

from twins import record

LAYOUTS = [MACOS, FREEBSD, NETBSD, OPENBSD]


def some(layout=MACOS):
    return record(b"one", layout, seconds=1_700_000_000, microseconds=250_000) + record(
        b"two", layout, original=1500
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_comes_out(layout):
    assert list(bpf.records(some(layout), layout)) == [
        Record(b"one", 3, 1_700_000_000.25),
        Record(b"two", 1500, 0.0),
    ]
    assert list(bpf.records(b"", layout)) == []


def test_the_headers_of_the_systems():
    """struct bpf_hdr of each: timeval32, timeval, bpf_timeval of two longs, bpf_timeval of two u_int32_t."""
    assert (*MACOS, *FREEBSD, *NETBSD, *OPENBSD) == (8, 4, 16, 8, 16, 8, 8, 4)


def test_a_microsecond_is_not_lost():
    data = record(b"x", MACOS, seconds=2**32 - 1, microseconds=999_999)
    [found] = bpf.records(data, MACOS)
    assert round(found.timestamp * 1_000_000) == (2**32 - 1) * 1_000_000 + 999_999


def test_numbers_that_no_clock_shows():
    data = record(b"x", FREEBSD, seconds=2**64 - 1, microseconds=2**64 - 1)
    assert next(bpf.records(data, FREEBSD)).packet == b"x"


@pytest.mark.parametrize("tail", [b"\0", bytes(17), record(b"abc", MACOS, captured=400), bytes(40)])
def test_what_is_broken_comes_behind_what_is_not(tail):
    found = bpf.records(some() + tail, MACOS)
    assert [next(found).packet, next(found).packet] == [b"one", b"two"]
    with pytest.raises(PacketError, match=f"byte {len(some())} ") as caught:
        next(found)
    assert caught.value.errno == errno.EBADMSG
    assert list(found) == []


def test_the_layout_of_another_system_is_an_error_and_no_packet():
    for written, read in ((MACOS, FREEBSD), (FREEBSD, MACOS)):
        with pytest.raises(PacketError):
            list(bpf.records(some(written), read))


@pytest.mark.parametrize(
    "kind", [bytearray, memoryview, lambda d: np.frombuffer(d, np.uint8), lambda d: array.array("B", d)]
)
def test_every_kind_of_buffer(kind):
    assert [found.packet for found in bpf.records(kind(some()), MACOS)] == [b"one", b"two"]


def test_the_memory_may_be_used_for_the_next_read():
    memory = bytearray(some())
    found = bpf.records(memory, MACOS)
    memory[:] = bytes(len(memory))
    memory.append(1)  # nobody holds it
    assert [entry.packet for entry in found] == [b"one", b"two"]


@pytest.mark.parametrize("bad", [None, "text", 5, [1, 2]])
def test_what_is_no_buffer(bad):
    with pytest.raises(TypeError):
        bpf.records(bad, MACOS)


def test_a_strided_view():
    with pytest.raises(ValueError):
        bpf.records(memoryview(some())[::2], MACOS)


@pytest.mark.parametrize("layout", [Layout(0, 4), Layout(12, 4), Layout(8, 0), Layout(16, 3), Layout(-8, 4)])
def test_what_is_no_layout(layout):
    with pytest.raises(ValueError, match="layout"):
        bpf.records(b"", layout)


def test_public_names():
    assert all(hasattr(bpf, name) for name in bpf.__all__)
