"""Captures: what is written is read, by us and by others; damage, interruptions and time."""

import asyncio
import contextlib
import errno
import gzip
import io
import itertools
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.utils import PcapNgReader, PcapNgWriter, PcapReader, PcapWriter, rdpcap, wrpcap

import tuntap
from tuntap import PacketBatch, PacketError, UnsupportedError, aio, capture, testing
from tuntap.capture import Reader, Writer, replay

sys.path.insert(0, str(Path(__file__).parent / "kernels"))

import twins

FORMATS = ["pcap", "pcapng"]
RAW, ETHERNET = 101, 1
NOW = 1_700_000_000_123_456_789
PATIENCE = 20
PACKETS = [testing.udp("10.0.0.1", "10.0.0.2", 7, 9, bytes([number]) * number) for number in range(10)]
FRAMES = [b"\2\0\0\0\0\1\2\0\0\0\0\2\x08\0" + packet for packet in PACKETS]


def batch_of(packets, slot_size=2048, layer=3):
    batch = PacketBatch(max(len(packets), 1), slot_size)
    batch.fill(packets)
    batch.layer = layer
    return batch


def written(packets, times, form="pcapng", layer=3, **options):
    """A capture as bytes."""
    file = io.BytesIO()
    with Writer(file, format=form, layer=layer) as writer:
        writer.write(batch_of(packets, layer=layer), times, **options)
    return file.getvalue()


def expected(packets, times, form="pcapng", link=RAW, snap=262144):
    """The same by the twin of the kernel."""
    records = map(twins.capture_record, itertools.repeat(form), packets, times)
    return twins.capture_header(form, link, snap) + b"".join(records)


def times_from(start, count, step=1):
    return [start + step * number for number in range(count)]


# --- writing ---


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(("layer", "link", "packets"), [(3, RAW, PACKETS), (2, ETHERNET, FRAMES)])
def test_what_is_written(form, layer, link, packets):
    times = times_from(NOW, len(packets))
    assert written(packets, times, form, layer) == expected(packets, times, form, link)
    assert written(packets, np.array(times), form, layer) == expected(packets, times, form, link)


@pytest.mark.parametrize("form", FORMATS)
def test_every_size_comes_back(form):
    for start in range(1, 1600, 200):
        packets = [bytes([size & 0xFF]) * size for size in range(start, start + 200)]
        times = times_from(NOW, 200)
        reader = Reader(io.BytesIO(written(packets, times, form)))
        assert list(reader) == list(zip(packets, times, strict=True))
        assert (reader.format, reader.link_type, reader.layer, reader.skipped) == (form, RAW, 3, 0)


def test_the_largest_packets_come_back():
    packets = [bytes(65535), bytes(65536 + 18), b"E" * 262144]
    data = written([], [])
    file = io.BytesIO()
    with Writer(file) as writer:
        writer.write(batch_of(packets, 262144), NOW)
    assert file.getvalue().startswith(data)
    file.seek(0)
    assert [packet for packet, _ in Reader(file)] == packets


@given(
    st.lists(st.tuples(st.binary(min_size=1, max_size=200), st.integers(0, 2**32 * 10**9 - 1)), max_size=20),
    st.sampled_from(FORMATS), st.integers(1, 7),
)  # fmt: skip
def test_roundtrip(items, form, capacity):
    packets, times = [packet for packet, _ in items], [time for _, time in items]
    reader = Reader(io.BytesIO(written(packets, times, form)))
    batch = PacketBatch(capacity, 200)
    found = []
    while reader.read_into(batch):
        assert reader.timestamps.shape == reader.original_lengths.shape == (capacity,)
        assert list(reader.original_lengths[: batch.count]) == [len(packet) for packet in batch]
        assert batch.truncated == ()
        found += zip(map(bytes, batch), reader.timestamps[: batch.count].tolist(), strict=True)
    assert found == items
    assert reader.read_into(batch) == batch.count == 0


@pytest.mark.parametrize(
    ("name", "form"), [("x.pcap", "pcap"), ("X.PCAP", "pcap"), ("x.pcapng", "pcapng"), ("x", "pcapng")]
)
def test_the_suffix_decides(tmp_path, name, form):
    for path in (tmp_path / name, str(tmp_path / name)):
        with Writer(path) as writer:
            writer.write_packet(PACKETS[0], NOW)
        assert writer.format == form
        assert (tmp_path / name).read_bytes() == expected(PACKETS[:1], [NOW], form)
    with Writer(tmp_path / name, format="pcap") as writer:
        assert writer.format == "pcap"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"format": "cap"}, ValueError), ({"format": 5}, ValueError), ({"layer": 4}, ValueError),
        ({"layer": None}, TypeError), ({"snap_length": 0}, ValueError), ({"snap_length": 262145}, ValueError),
    ],
)  # fmt: skip
def test_wrong_options_leave_the_path_alone(tmp_path, options, error):
    with pytest.raises(error):
        Writer(tmp_path / "x", **options)
    assert not (tmp_path / "x").exists()


def test_times_that_are_not_given_are_now():
    file = io.BytesIO()
    before = time.time_ns()
    with Writer(file) as writer:
        writer.write(batch_of(PACKETS[:2]))
        writer.write_packet(PACKETS[2])
    file.seek(0)
    first, second, third = [time for _, time in Reader(file)]
    assert before <= first == second <= third <= time.time_ns()


def test_one_time_stands_for_all():
    for time_ns in (NOW, np.int64(NOW), np.array(NOW), [NOW], np.uint32(7)):
        assert [found for _, found in Reader(io.BytesIO(written(PACKETS, time_ns)))] == [
            int(np.max(time_ns))
        ] * 10


def test_arrays_may_be_longer_and_strided():
    times = np.arange(2 * len(PACKETS) + 6, dtype=np.int64)[::2]
    found = Reader(io.BytesIO(written(PACKETS, times)))
    assert [time for _, time in found] == list(range(0, 20, 2))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("times", "error"),
    [
        (-1, ValueError), (1.5, TypeError), ("now", TypeError), ([0.0] * 10, TypeError), (2**63, ValueError),
        ([1] * 9, ValueError), ([[1] * 10], ValueError), ([0] * 9 + [-5], ValueError), (2**70, TypeError),
        (True, TypeError), ([], ValueError), (np.zeros(10, "M8[ns]"), TypeError),
    ],
)  # fmt: skip
def test_times_that_cannot_be(form, times, error):
    file = io.BytesIO()
    writer = Writer(file, format=form)
    before = file.getvalue()
    with pytest.raises(error):
        writer.write(batch_of(PACKETS), times)
    assert file.getvalue() == before
    writer.write(batch_of(PACKETS), NOW)
    assert file.getvalue() == expected(PACKETS, [NOW] * 10, form)


def test_the_end_of_time():
    last = 2**32 * 10**9 - 1
    assert written([b"E"], last, "pcap") == expected([b"E"], [last], "pcap")
    with pytest.raises(ValueError, match="packet 0 has the time 4294967296000000000 ns"):
        written([b"E"], last + 1, "pcap")
    with (
        pytest.raises(ValueError, match="packet 0 has the time"),
        Writer(io.BytesIO(), format="pcap") as writer,
    ):
        writer.write_packet(b"E", last + 1)
    assert written([b"E"], 2**63 - 1) == expected([b"E"], [2**63 - 1])


@pytest.mark.parametrize("form", FORMATS)
def test_where(form):
    times = times_from(NOW, 10)
    odd = np.arange(10) % 2 == 1
    assert written(PACKETS, times, form, where=odd) == expected(PACKETS[1::2], times[1::2], form)
    assert written(PACKETS, NOW, form, where=np.zeros(10, bool)) == expected([], [], form)
    assert written(PACKETS, NOW, form, where=[]) == expected([], [], form)
    order = [7, 0, 0, 9]
    chosen = [PACKETS[number] for number in order], [times[number] for number in order]
    assert written(PACKETS, times, form, where=np.array(order)) == expected(*chosen, form)
    with Writer(io.BytesIO(), format=form) as writer:
        assert writer.write(batch_of(PACKETS), where=odd) == 5
        for bad, error in (([1.0] * 10, TypeError), (odd[:9], ValueError), (odd.reshape(2, 5), ValueError),
                           ([10], IndexError), ([-1], IndexError), (True, ValueError)):  # fmt: skip
            with pytest.raises(error):
                writer.write(batch_of(PACKETS), where=bad)


def test_what_is_left_out_is_not_looked_at():
    batch = batch_of(PACKETS)
    batch.lengths[3] = 0
    times = np.full(10, NOW)
    times[3] = -1
    with Writer(io.BytesIO()) as writer:
        assert writer.write(batch, times, where=np.arange(10) != 3) == 9


@pytest.mark.parametrize("form", FORMATS)
def test_the_snap_length(form):
    file = io.BytesIO()
    with Writer(file, format=form, snap_length=30) as writer:
        writer.write(batch_of(PACKETS), NOW)
        writer.write_packet(bytes(100), NOW)
    reader = Reader(io.BytesIO(file.getvalue()))
    batch = PacketBatch(20, 100)
    assert reader.read_into(batch) == 11
    sizes = [*map(len, PACKETS), 100]
    assert list(map(len, batch)) == [min(size, 30) for size in sizes]
    assert list(reader.original_lengths[:11]) == sizes
    assert batch.truncated == tuple(i for i, size in enumerate(sizes) if size > 30)


def test_lengths_from_a_capture_that_was_cut_survive_a_filter():
    file = io.BytesIO()
    with Writer(file, snap_length=20) as writer:
        writer.write(batch_of(PACKETS), times_from(NOW, 10))
    file.seek(0)
    batch = PacketBatch(16, 64)
    reader = Reader(file)
    reader.read_into(batch)
    data = io.BytesIO()
    with Writer(data) as writer:
        writer.write(
            batch,
            reader.timestamps,
            reader.original_lengths[:10] > 33,
            original_lengths=reader.original_lengths,
        )
    data.seek(0)
    reader = Reader(data)
    assert reader.read_into(batch) == 4
    assert list(reader.original_lengths[:4]) == [34, 35, 36, 37]
    assert [len(packet) for packet in batch] == [20] * 4


def test_original_lengths_of_nonsense():
    for lengths, noted in ((5, 28), (-7, 28), (2**32 - 1, 2**32 - 1), (2**40, 2**32 - 1), ([29], 29)):
        reader = Reader(io.BytesIO(written(PACKETS[:1], NOW, original_lengths=lengths)))
        reader.read_into(PacketBatch(1, 99))
        assert reader.original_lengths[0] == noted


@pytest.mark.parametrize("length", [0, -1, 101, 2**31 - 1, -(2**31)])
def test_lengths_that_cannot_be(length):
    file = io.BytesIO()
    writer = Writer(file)
    batch = batch_of(PACKETS, 100)
    batch.lengths[4] = length
    with pytest.raises(ValueError, match=f"packet 4 has a length of {length} bytes, a slot holds 1 to 100"):
        writer.write(batch, NOW)
    assert file.getvalue() == expected([], [])


def test_the_layer_of_a_batch_is_that_of_the_capture():
    for layer, packets in ((2, PACKETS), (3, FRAMES)):
        file = io.BytesIO()
        with Writer(file, layer=layer) as writer:
            before = file.getvalue()
            with pytest.raises(ValueError, match="layer"):
                writer.write(batch_of(packets, layer=5 - layer))
        assert file.getvalue() == before
    batch = PacketBatch(20, 100)
    for layer, packets in ((2, FRAMES), (3, PACKETS)):
        Reader(io.BytesIO(written(packets, NOW, layer=layer))).read_into(batch)
        assert batch.layer == layer
    Reader(io.BytesIO(written(FRAMES, NOW, layer=2)), layer=3).read_into(batch)
    assert batch.layer == 3


def test_an_empty_batch_and_an_empty_packet():
    file = io.BytesIO()
    writer = Writer(file)
    assert writer.write(PacketBatch(5, 10)) == 0
    assert writer.write(PacketBatch(5, 10), [], where=[]) == 0
    with pytest.raises(ValueError):
        writer.write_packet(b"")
    assert file.getvalue() == expected([], [])


def test_packets_of_any_kind_of_buffer():
    file = io.BytesIO()
    with Writer(file) as writer:
        for kind in (bytearray, memoryview, lambda data: np.frombuffer(data, np.uint8)):
            writer.write_packet(kind(PACKETS[5]), NOW)
        for bad in (None, "text", 5):
            with pytest.raises(TypeError):
                writer.write_packet(bad)
            with pytest.raises(TypeError):
                writer.write(bad)
        with pytest.raises(TypeError):
            writer.write_packet(b"E", 1.5)
    assert file.getvalue() == expected([PACKETS[5]] * 3, [NOW] * 3)


def test_slots_with_headroom_and_of_arrays():
    batch = PacketBatch(4, 100, headroom=20)
    batch.fill(PACKETS[:4])
    wrapped = PacketBatch.wrap(batch.buffer.copy(), batch.lengths.copy(), headroom=20)
    file = io.BytesIO()
    with Writer(file) as writer:
        writer.write(batch, NOW)
        writer.write(wrapped, NOW)
    assert file.getvalue() == expected(PACKETS[:4] * 2, [NOW] * 8)


# --- files ---


def test_a_file_stays_open_and_a_path_does_not(tmp_path):
    with open(tmp_path / "x", "w+b") as file:
        with Writer(file) as writer:
            writer.write_packet(b"E", NOW)
        writer.close()
        file.seek(0)
        with Reader(file) as reader:
            assert len(list(reader)) == 1
        assert not file.closed
    batch = PacketBatch(1, 1)
    for bad in (lambda: writer.write_packet(b"E"), lambda: writer.write(batch), lambda: next(reader),
                lambda: reader.read_into(batch), lambda: reader.layer):  # fmt: skip
        with pytest.raises(ValueError, match="the capture is closed"):
            bad()


def test_what_was_in_the_buffer_of_a_file_comes_first(tmp_path):
    with open(tmp_path / "x", "wb") as file:
        file.write(b"junk")
        with Writer(file) as writer:
            writer.write(batch_of(PACKETS), NOW)
            assert file.tell() == os.path.getsize(tmp_path / "x"), "nothing is held back"
        file.write(b"end")
    assert (tmp_path / "x").read_bytes() == b"junk" + expected(PACKETS, [NOW] * 10) + b"end"


def test_compressed(tmp_path):
    with gzip.open(tmp_path / "x.gz", "wb") as file, Writer(file) as writer:
        for _ in range(100):
            writer.write(batch_of(PACKETS), NOW)
    with gzip.open(tmp_path / "x.gz") as file:
        assert [packet for packet, _ in Reader(file)] == PACKETS * 100
    with pytest.raises(PacketError, match=r"byte 0 .*gzip\.open"):
        Reader(tmp_path / "x.gz")


def test_files_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError):
        Reader(tmp_path / "nothing")
    with pytest.raises(OSError):
        Writer(tmp_path)
    for bad in (None, 5, b"bytes", object()):
        with pytest.raises((TypeError, AttributeError)):
            Reader(bad)
        with pytest.raises((TypeError, AttributeError)):
            Writer(bad)
    with pytest.raises(TypeError):
        Writer(io.StringIO())
    with pytest.raises(TypeError):
        Reader(io.StringIO("text"))


class Raw(io.RawIOBase):
    """Takes and gives a few bytes at a time; fails, or would have to wait, when told so."""

    def __init__(self, data=b"", step=7, can_seek=False):
        self.data, self.step, self.can_seek = bytearray(data), step, can_seek
        self.at = 0
        self.room = self.problem = None

    def readable(self):
        return True

    writable = readable

    def seekable(self):
        return self.can_seek

    def tell(self):
        return self.at

    def seek(self, at, whence=0):
        if not self.can_seek:
            raise io.UnsupportedOperation
        self.at = at
        return at

    def truncate(self, size=None):
        del self.data[self.at :]

    def write(self, data):
        size = min(len(data), self.step, len(data) if self.room is None else self.room)
        if size == 0 and self.room == 0:
            if isinstance(self.problem, BaseException):
                raise self.problem
            return self.problem
        if self.room is not None:
            self.room -= size
        self.data[self.at : self.at + size] = data[:size]
        self.at += size
        return size

    def readinto(self, memory):
        if self.room == 0:
            if isinstance(self.problem, BaseException):
                raise self.problem
            return self.problem
        size = min(len(memory), self.step, len(self.data) - self.at, self.room or self.step)
        memory[:size] = self.data[self.at : self.at + size]
        self.at += size
        if self.room:
            self.room -= size
        return size


PROBLEMS = [OSError(errno.ENOSPC, "full"), KeyboardInterrupt(), None, 0, -1, 1000]


@pytest.mark.parametrize("problem", PROBLEMS, ids=repr)
def test_a_failure_leaves_the_file_as_it_was(problem):
    for room in range(200):
        raw = Raw(can_seek=True)
        writer = Writer(raw)
        writer.write(batch_of(PACKETS[:1]), NOW)
        raw.room, raw.problem = room, problem
        with pytest.raises((OSError, KeyboardInterrupt)):
            writer.write(batch_of(PACKETS), NOW)
        assert raw.data == expected(PACKETS[:1], [NOW])
        raw.room = None
        writer.write(batch_of(PACKETS[1:2]), NOW)
        writer.close()
        assert raw.data == expected(PACKETS[:2], [NOW] * 2)


@pytest.mark.parametrize("problem", PROBLEMS, ids=repr)
@pytest.mark.parametrize("ends", [False, True])
def test_a_failure_of_what_cannot_be_taken_back_leaves_the_rest_for_later(problem, ends):
    for room in range(200):
        raw = Raw()
        writer = Writer(raw)
        raw.room, raw.problem = room, problem
        with pytest.raises((OSError, KeyboardInterrupt)):
            writer.write(batch_of(PACKETS), NOW)
        taken = PACKETS if room else []
        assert len(raw.data) == len(expected([], [])) + room
        if room:
            with pytest.raises((OSError, KeyboardInterrupt)):
                writer.write(batch_of(PACKETS[:1]), NOW)
        raw.room = None
        if not ends:
            writer.write(batch_of(PACKETS[:1]), NOW)
            taken = [*taken, PACKETS[0]]
        writer.close()
        assert raw.data == expected(taken, [NOW] * len(taken))


def test_a_file_that_stays_full_keeps_what_is_whole(tmp_path):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    path = tmp_path / "x"
    writer = Writer(path)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        kept = 0
        with pytest.raises(OSError) as caught:  # noqa: PT012
            for _ in range(100):
                kept += writer.write(batch_of(PACKETS[:3]), NOW)
        assert caught.value.errno == errno.EFBIG
        with pytest.raises(OSError):
            writer.write(batch_of(PACKETS), NOW)
        writer.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert 0 < kept < 100
    assert path.read_bytes() == expected(PACKETS[:3] * (kept // 3), [NOW] * kept)


def test_a_device_that_is_always_full():
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    with pytest.raises(OSError, match="No space"):
        Writer("/dev/full")


class Alarm(Exception):
    pass


@contextlib.contextmanager
def alarm(seconds):
    """A signal handler that raises, once."""
    if not hasattr(signal, "setitimer"):
        pytest.skip("no timer that sends a signal here")

    def ring(*_):
        raise Alarm

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("buffering", [0, -1])
def test_a_signal_while_a_pipe_is_full(buffering):
    reader, end = os.pipe()
    packets = [bytes([0x45, i]) * 700 for i in range(200)]
    with open(reader, "rb") as reading, open(end, "wb", buffering=buffering) as writing:
        writer = Writer(writing)
        with pytest.raises(Alarm), alarm(0.2):
            writer.write(batch_of(packets), NOW)
        found = []
        thread = threading.Thread(target=lambda: found.append(reading.read()))
        thread.start()
        writer.write(batch_of(packets[:2]), NOW)
        writer.close()
        writing.close()
        thread.join(PATIENCE)
    assert found == [expected([*packets, *packets[:2]], [NOW] * 202)]


def test_a_signal_while_a_pipe_is_empty():
    reader, end = os.pipe()
    data = written(PACKETS, NOW)
    with open(reader, "rb") as reading, open(end, "wb", buffering=0) as writing:
        writing.write(data[:130])
        packets = Reader(reading)
        assert next(packets)[0] == PACKETS[0]
        with pytest.raises(Alarm), alarm(0.1):
            next(packets)
        writing.write(data[130:])
        writing.close()
        assert [packet for packet, _ in packets] == PACKETS[1:]


def test_a_pipe_that_must_not_wait():
    if not hasattr(os, "set_blocking"):
        pytest.skip("pipes always wait here")
    reader, end = os.pipe()
    os.set_blocking(end, False)
    os.set_blocking(reader, False)
    packets = [bytes([0x45, i]) * 700 for i in range(200)]
    with open(reader, "rb", buffering=0) as reading, open(end, "wb", buffering=0) as writing:
        with pytest.raises(BlockingIOError):
            Reader(reading)
        writer = Writer(writing)
        with pytest.raises(BlockingIOError):
            writer.write(batch_of(packets), NOW)
        found = Reader(reading)
        batch = PacketBatch(300, 1500)
        received = []
        for _ in range(10):
            with contextlib.suppress(BlockingIOError):
                while found.read_into(batch):
                    received += map(bytes, batch)
            with contextlib.suppress(BlockingIOError):
                writer.close()
        assert received == packets
        assert found.skipped == 0


def test_the_reader_of_a_pipe_has_gone():
    reader, end = os.pipe()
    with open(end, "wb", buffering=0) as writing:
        writer = Writer(writing)
        os.close(reader)
        for _ in range(3):
            with pytest.raises(OSError):
                writer.write(batch_of(PACKETS))
        writer.close()


def test_a_call_within_a_call():
    class Calls(io.BytesIO):
        def write(self, data):
            if self.getvalue():
                writer.write_packet(b"E")
            return super().write(data)

        def readinto(self, memory):
            return reader.read_into(PacketBatch(1, 1)) if reader else super().readinto(memory)

        readinto1 = readinto

    reader = None
    writer = Writer(Calls())
    with pytest.raises(RuntimeError, match="uses this capture"):
        writer.write(batch_of(PACKETS))
    reader = Reader(Calls(written(PACKETS, NOW) * 100))
    batch, times = PacketBatch(5000, 64), np.zeros(5000, np.int64)
    with pytest.raises(RuntimeError, match="uses this capture"):
        reader._input.read_into(batch, times, times)


def test_threads_at_one_writer_and_one_reader():
    """No record of one lies within another's, whatever the errors; nothing is read that is none."""
    file = io.BytesIO()
    writer = Writer(file)
    packets = [bytes([0x45, i]) * 50 for i in range(100)]

    def write():
        batch = batch_of(packets)
        for _ in range(100):
            with contextlib.suppress(RuntimeError):
                writer.write(batch, NOW)

    at_once(write)
    file.seek(0)
    reader = Reader(file)
    found = []

    def read():
        batch = PacketBatch(10, 200)
        for _ in range(2000):
            with contextlib.suppress(RuntimeError):
                reader.read_into(batch)
                found.extend(bytes(packet) for packet in batch)

    at_once(read)
    assert set(found) <= set(packets)
    assert len(found) % 10 == 0


def at_once(work, count=4):
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# --- reading ---


def pcap(order, magic, records, link=RAW):
    """A pcap file by hand: (seconds, fraction, packet) of each."""
    data = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, link)
    for seconds, fraction, packet in records:
        data += struct.pack(order + "IIII", seconds, fraction, len(packet), len(packet)) + packet
    return data


@pytest.mark.parametrize("order", "<>")
def test_pcap_files_by_hand(order):
    records = [(1_700_000_000 + number, number, packet) for number, packet in enumerate(PACKETS)]
    for magic, unit in ((0xA1B2C3D4, 1000), (0xA1B23C4D, 1)):
        reader = Reader(io.BytesIO(pcap(order, magic, records)))
        assert (reader.format, reader.link_type) == ("pcap", RAW)
        assert list(reader) == [
            (packet, (1_700_000_000 + number) * 10**9 + number * unit)
            for number, packet in enumerate(PACKETS)
        ]


@pytest.mark.parametrize("order", "<>")
def test_pcapng_files_by_hand(order):
    def block(kind, body):
        size = struct.pack(order + "I", 12 + len(body))
        return struct.pack(order + "I", kind) + size + body + size

    section = block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1))
    micro = block(1, struct.pack(order + "HHI", RAW, 0, 0))
    nano = struct.pack(order + "HHI", RAW, 0, 0) + struct.pack(order + "HHB3x", 9, 1, 9)
    nano += struct.pack(order + "HHq", 14, 8, 1_700_000_000) + bytes(4)
    packet = PACKETS[1].ljust(32, b"\0")
    size = len(PACKETS[1])
    data = section + micro + block(1, nano) + block(99, b"what")
    data += block(6, struct.pack(order + "IIIII", 0, 1, 2, size, size) + packet)
    data += block(6, struct.pack(order + "IIIII", 1, 0, 5, size, size + 9) + packet)
    data += block(3, struct.pack(order + "I", size) + packet)
    data += section + micro + block(2, struct.pack(order + "HHIIII", 0, 0, 0, 7, size, size) + packet)
    reader = Reader(io.BytesIO(data))
    times = [(2**32 + 2) * 1000, 1_700_000_000 * 10**9 + 5, 0, 7000]
    assert list(reader) == [(PACKETS[1], time) for time in times]
    reader = Reader(io.BytesIO(data))
    reader.read_into(PacketBatch(4, 64))
    assert list(reader.original_lengths) == [size, size + 9, size, size]


def test_a_packet_that_does_not_fit_its_slot():
    reader = Reader(io.BytesIO(written(PACKETS, times_from(NOW, 10))))
    batch = PacketBatch(10, 31)
    batch.headers["gso_type"] = 1
    assert reader.read_into(batch) == 10
    assert [bytes(packet) for packet in batch] == [packet[:31] for packet in PACKETS]
    assert batch.truncated == (4, 5, 6, 7, 8, 9)
    assert list(reader.original_lengths) == list(map(len, PACKETS))
    assert not batch.headers.view(np.uint8).any(), "an ordinary packet has none"
    assert reader.read_into(batch) == 0
    assert batch.truncated == ()


def test_nothing_is_written_outside_the_slots():
    memory = np.full((6, 40), 0xA5, np.uint8)
    lengths = np.full(6, -7, np.int32)
    batch = PacketBatch.wrap(memory[1:5], lengths[1:5], headroom=5)
    times = np.full(6, -3, np.int64)
    reader = Reader(io.BytesIO(written([bytes([i]) * 90 for i in range(4)], [1, 2, 3, 4])))
    assert reader.read_into(batch, timestamps=times[1:5]) == 4
    assert (memory[[0, 5]] == 0xA5).all()
    assert (memory[:, :5] == 0xA5).all()
    assert list(lengths) == [-7, 35, 35, 35, 35, -7]
    assert list(times) == [-3, 1, 2, 3, 4, -3]


def test_timestamps_of_the_caller():
    data = written(PACKETS, times_from(NOW, 10))
    times = np.zeros(20, np.int64)
    reader = Reader(io.BytesIO(data))
    reader.read_into(PacketBatch(10, 64), timestamps=times)
    assert list(times) == [*times_from(NOW, 10), *[0] * 10]
    assert reader.timestamps is times
    for bad, error in (([0] * 9, TypeError), (np.zeros(10), TypeError), (np.zeros(10, np.int32), TypeError),
                       (np.zeros(9, np.int64), ValueError), (np.zeros((2, 5), np.int64), ValueError),
                       (times[::2], ValueError), (np.zeros(10, ">i8"), TypeError)):  # fmt: skip
        with pytest.raises(error):
            Reader(io.BytesIO(data)).read_into(PacketBatch(10, 64), timestamps=bad)
    locked = np.zeros(10, np.int64)
    locked.flags.writeable = False
    with pytest.raises(ValueError):
        Reader(io.BytesIO(data)).read_into(PacketBatch(10, 64), timestamps=locked)
    for bad in (None, 5, b"bytes"):
        with pytest.raises((TypeError, AttributeError)):
            Reader(io.BytesIO(data)).read_into(bad)


def test_batches_and_single_packets_go_on_where_the_others_stopped():
    reader = Reader(io.BytesIO(written(PACKETS, times_from(0, 10))))
    batch = PacketBatch(3, 64)
    assert next(reader) == (PACKETS[0], 0)
    assert reader.read_into(batch) == 3
    assert reader.layer == 3
    assert next(reader) == (PACKETS[4], 4)
    assert [reader.read_into(batch), reader.read_into(batch), reader.read_into(batch)] == [3, 2, 0]
    assert list(reader) == []


def test_batches_of_a_file_are_full(tmp_path):
    packets = [bytes([number % 251 + 1]) * (number * 37 % 1500 + 1) for number in range(5000)]
    with Writer(tmp_path / "x") as writer:
        for at in range(0, 5000, 100):
            writer.write(batch_of(packets[at : at + 100]), times_from(at, 100))
    for buffering in (0, -1):
        with open(tmp_path / "x", "rb", buffering=buffering) as file:
            reader = Reader(file)
            batch = PacketBatch(1000, 1500)
            for at in range(0, 5000, 1000):
                assert reader.read_into(batch) == 1000
                assert [bytes(packet) for packet in batch] == packets[at : at + 1000]
                assert list(reader.timestamps) == times_from(at, 1000)
            assert reader.read_into(batch) == 0


def test_packets_of_a_pipe_come_as_they_are_written():
    reader, end = os.pipe()
    with open(reader, "rb") as reading, open(end, "wb", buffering=0) as writing:
        writer = Writer(writing)
        packets = Reader(reading)
        batch = PacketBatch(64, 64)
        for number in range(1, 5):
            writer.write(batch_of(PACKETS[:number]), NOW)
            assert packets.read_into(batch) == number
        writer.write_packet(PACKETS[7])
        assert next(packets)[0] == PACKETS[7]
        writing.write(expected(PACKETS, [NOW] * 10)[60:-1])
        writing.close()
        assert packets.read_into(batch) == 9
        with pytest.raises(PacketError, match="within what begins at byte"):
            packets.read_into(batch)


def test_a_file_that_grows(tmp_path):
    if sys.platform == "win32":
        pytest.skip("Wine's C library remembers that a file has ended")
    path = tmp_path / "x"
    data = written(PACKETS, NOW)
    path.write_bytes(data[:130])
    with Reader(path) as reader:
        assert next(reader)[0] == PACKETS[0]
        with pytest.raises(PacketError):
            next(reader)
        path.write_bytes(data)
        assert [packet for packet, _ in reader] == PACKETS[1:]


@pytest.mark.parametrize("step", [1, 3, 17, 1 << 18])
def test_files_that_give_little_at_a_time(step):
    for form in FORMATS:
        data = written(PACKETS, NOW, form)
        for can_seek in (False, True):
            assert [packet for packet, _ in Reader(Raw(data, step, can_seek))] == PACKETS

            class OnlyRead:
                def __init__(self, data):
                    self.read = Raw(data, step).read

            assert [packet for packet, _ in Reader(OnlyRead(data))] == PACKETS


@pytest.mark.parametrize("answer", [-1, 1 << 30])
def test_files_that_lie_about_what_they_gave(answer):
    raw = Raw(written(PACKETS, NOW), 100)
    reader = Reader(raw)
    raw.room, raw.problem = 0, answer
    with pytest.raises(OSError, match="the file gave"):
        list(reader)


def test_an_error_of_the_file_comes_behind_what_came_before():
    raw = Raw(written(PACKETS, NOW), 100, can_seek=True)
    reader = Reader(raw)
    raw.room, raw.problem = 100, OSError(errno.EIO, "broken")
    batch = PacketBatch(64, 64)
    with pytest.raises(OSError, match="broken"):
        reader.read_into(batch)
    assert [bytes(packet) for packet in batch] == PACKETS[: batch.count]
    first = batch.count
    assert first > 0
    raw.room = None
    assert reader.read_into(batch) == 10 - first
    assert [bytes(packet) for packet in batch] == PACKETS[first:]


# --- damage ---


@pytest.mark.parametrize("form", FORMATS)
def test_every_cut(form):
    data = written(PACKETS[:4], [1, 2, 3, 4], form)
    ends = list(itertools.accumulate([len(expected([], [], form)), *(
        len(twins.capture_record(form, packet, 1)) for packet in PACKETS[:4]
    )]))  # fmt: skip
    for size in range(len(data)):
        batch = PacketBatch(8, 64)
        whole = sum(end <= size for end in ends[1:])
        file = io.BytesIO(data[:size])
        if size in ends or (form == "pcapng" and size == 28):
            assert Reader(file).read_into(batch) == whole
            continue
        with pytest.raises(PacketError) as caught:  # noqa: PT012
            reader = Reader(file)
            assert reader.read_into(batch) == (whole or pytest.fail("nothing, and no error"))
            assert [bytes(packet) for packet in batch] == PACKETS[:whole]
            reader.read_into(batch)
        assert caught.value.errno == errno.EBADMSG
        start = max([end for end in (0, *([28] if form == "pcapng" else []), *ends) if end <= size])
        assert f"ends at byte {size}, within what begins at byte {start}" in str(caught.value)


DAMAGE = {
    "size 0": (4, b"\0\0\0\0", "has a size that nothing there can have"),
    "size 8": (4, b"\x08\0\0\0", "has a size that nothing there can have"),
    "odd": (4, b"\x41\0\0\0", "has a size that nothing there can have"),
    "huge": (4, b"\xfc\xff\xff\xff", "has a size that nothing there can have"),
    "front and back": (4, b"\x3c\0\0\0", "is the end of a block with another size than in front"),
    "captured": (20, b"\xff\xff\xff\xff", "has a size that nothing there can have"),
    "interface": (8, b"\1\0\0\0", "belongs to an interface that is not described"),
    "time": (12, b"\xff\xff\xff\xff", "has a time that 64 bits of nanoseconds do not hold"),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("how", ["batch", "packet"])
def test_damage_comes_behind_what_is_whole(damage, how):
    at, value, message = DAMAGE[damage]
    data = bytearray(expected(PACKETS[:5], [NOW] * 5))
    start = len(expected(PACKETS[:3], [NOW] * 3))
    data[start + at : start + at + 4] = value
    reader = Reader(io.BytesIO(data))
    batch = PacketBatch(64, 64)
    if how == "batch":
        assert reader.read_into(batch) == 3
        assert [bytes(packet) for packet in batch] == PACKETS[:3]
    else:
        assert [next(reader)[0] for _ in range(3)] == PACKETS[:3]
    for again in (lambda: reader.read_into(batch), lambda: next(reader)) * 2:
        with pytest.raises(PacketError, match=f"what begins at byte {start} {message}") as caught:
            again()
        assert caught.value.errno == errno.EBADMSG
        assert batch.count == 0


def test_huge_sizes_ask_for_no_memory_and_no_time():
    class Endless(io.RawIOBase):
        given = 0

        def readable(self):
            return True

        def readinto(self, memory):
            size = min(len(memory), (64 << 20) - self.given)
            head = data[self.given : self.given + size]
            memory[: len(head)] = head
            self.given += size
            return size

    for kind, size in ((6, 0xFFFFFFFC), (1, 1 << 31), (6, 1 << 21), (3, 0x7FFFFFFC)):
        data = expected([], []) + struct.pack("<II", kind, size)
        file = Endless()
        with pytest.raises(PacketError, match="has a size"):
            list(Reader(file))
        assert file.given <= 1 << 20
    data = pcap("<", 0xA1B23C4D, []) + struct.pack("<IIII", 1, 1, 0xFFFFFFFF, 0xFFFFFFFF)
    file = Endless()
    with pytest.raises(PacketError, match="has a size"):
        list(Reader(file))
    # A block that is of no interest may be large, and has to be read to its end.
    data = expected([], []) + struct.pack("<II", 99, 0xFFFFFFFC)
    file = Endless()
    started = time.monotonic()
    with pytest.raises(PacketError, match=f"ends at byte {64 << 20}, within"):
        list(Reader(file))
    assert time.monotonic() - started < PATIENCE


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"\xa1\xb2", b"not a capture at all", bytes(100), b"\x0a\x0d\x0d\x0a" + bytes(50)]
)
def test_what_is_no_capture(tmp_path, data):
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(PacketError) as caught, Reader(tmp_path / "x") as reader:
        list(reader)
    assert caught.value.errno == errno.EBADMSG


def test_what_is_not_supported():
    for data, what in (
        (pcap("<", 0xA1B2C3D4, [(0, 0, PACKETS[0])], link=127), "byte 24 has neither Ethernet frames nor IP"),
        (twins.capture_section(version=(2, 0)), "byte 0 is of a version"),
        (twins.capture_section() + twins.capture_interface(RAW) * 4097, "one interface more than the 4096"),
    ):
        with pytest.raises(UnsupportedError, match=what) as caught:
            list(Reader(io.BytesIO(data)))
        assert caught.value.errno == errno.EOPNOTSUPP


# --- layers ---


def test_what_there_is_without_packets():
    for form in FORMATS:
        reader = Reader(io.BytesIO(written([], [], form)))
        assert (reader.layer, reader.link_type, reader.skipped, list(reader)) == (None, None, 0, [])


def test_packets_of_frames():
    arp = b"\xff" * 6 + b"\2\0\0\0\0\1\x08\x06" + bytes(28)
    data = written([FRAMES[1].ljust(60, b"\0"), arp, FRAMES[2]], [1, 2, 3], layer=2)
    reader = Reader(io.BytesIO(data), layer=3)
    assert (list(reader), reader.skipped) == ([(PACKETS[1], 1), (PACKETS[2], 3)], 1)
    assert (reader.layer, reader.link_type) == (3, ETHERNET)
    reader = Reader(io.BytesIO(data))
    assert (len(list(reader)), reader.layer, reader.skipped) == (3, 2, 0)
    with pytest.raises(UnsupportedError, match="frames"):
        list(Reader(io.BytesIO(written(PACKETS, NOW)), layer=2))
    for bad, error in ((1, ValueError), (4, ValueError), ("3", TypeError), (True, TypeError)):
        with pytest.raises(error):
            Reader(io.BytesIO(data), layer=bad)


@pytest.mark.parametrize(
    ("link", "header"),
    [
        (0, b"\2\0\0\0"), (108, b"\0\0\0\2"), (113, bytes(14) + b"\x08\0"), (276, b"\x08\0" + bytes(18)),
        (12, b""), (14, b""), (228, b""),
    ],
)  # fmt: skip
def test_other_headers_are_taken_off(link, header):
    records = [(1, 2, header + packet) for packet in PACKETS]
    reader = Reader(io.BytesIO(pcap(">", 0xA1B2C3D4, [*records, (1, 2, header[:3])], link)))
    assert (reader.layer, reader.link_type) == (3, link)
    assert [packet for packet, _ in reader] == PACKETS
    assert reader.skipped == 1


# --- other programs ---


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("layer", [2, 3])
def test_scapy_reads_what_is_written(tmp_path, form, layer):
    path = str(tmp_path / f"x.{form}")
    packets = FRAMES if layer == 2 else PACKETS
    with Writer(path, layer=layer) as writer:
        writer.write(batch_of(packets, layer=layer), times_from(NOW, 10))
    reader = (PcapReader if form == "pcap" else PcapNgReader)(path)
    with contextlib.closing(reader):
        found = list(reader)
    assert [bytes(packet) for packet in found] == packets
    assert [packet[UDP].len for packet in found] == [8 + number for number in range(10)]
    # scapy's EDecimal: to the nanosecond.
    assert [int(packet.time * 10**9) for packet in found] == times_from(NOW, 10)
    assert len(rdpcap(path)) == 10


@pytest.mark.parametrize("endianness", "<>")
@pytest.mark.parametrize("nano", [False, True])
def test_what_scapy_writes_as_pcap_is_read(tmp_path, endianness, nano):
    path = str(tmp_path / "x")
    packets = [Ether(frame) for frame in FRAMES]
    for number, packet in enumerate(packets):
        packet.time = 1_700_000_000 + number / 4
    with PcapWriter(path, linktype=1, endianness=endianness, nano=nano) as writer:
        writer.write(packets)
    with Reader(path) as reader:
        assert list(reader) == [
            (frame, 1_700_000_000 * 10**9 + number * 250_000_000) for number, frame in enumerate(FRAMES)
        ]


def test_what_scapy_writes_as_pcapng_is_read(tmp_path):
    path = str(tmp_path / "x")
    packets = [IP(packet) for packet in PACKETS]
    for number, packet in enumerate(packets):
        packet.time = 1_700_000_000 + number / 4
    packets[3].comment = "a comment"
    with contextlib.closing(PcapNgWriter(path)) as writer:
        writer.write(packets)
    with Reader(path) as reader:
        assert (reader.format, reader.layer) == ("pcapng", 3)
        assert list(reader) == [
            (packet, 1_700_000_000 * 10**9 + number * 250_000_000) for number, packet in enumerate(PACKETS)
        ]
    wrpcap(path, packets, linktype=RAW)
    with Reader(path) as reader:
        assert [packet for packet, _ in reader] == PACKETS


def program(*command):
    """What a program prints."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env={**os.environ, "TZ": "UTC"}
    )
    if "Couldn't change to" in done.stderr:
        pytest.skip("tcpdump wants a user of its own, which a user namespace does not have")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("layer", [2, 3])
def test_tcpdump_reads_what_is_written(tmp_path, form, layer):
    path = tmp_path / f"x.{form}"
    with Writer(path, layer=layer) as writer:
        writer.write(batch_of(FRAMES if layer == 2 else PACKETS, layer=layer), times_from(NOW, 10))
    found = program("tcpdump", "-n", "--nano", "-tt", "-r", str(path)).splitlines()
    assert found == [
        f"1700000000.{123456789 + number} IP 10.0.0.1.7 > 10.0.0.2.9: UDP, length {number}"
        for number in range(10)
    ]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("layer", [2, 3])
def test_tshark_reads_what_is_written(tmp_path, form, layer):
    path = tmp_path / f"x.{form}"
    with Writer(path, layer=layer, snap_length=50) as writer:
        writer.write(batch_of(FRAMES if layer == 2 else PACKETS, layer=layer), times_from(NOW, 10))
    fields = ["frame.time_epoch", "frame.len", "frame.cap_len", "udp.length"]
    found = program(
        "tshark", "-r", str(path), "-T", "fields", *(f"-e{field}" for field in fields)
    ).splitlines()
    header = 42 if layer == 2 else 28
    for number, line in enumerate(found):
        epoch, size, captured, length = line.split("\t")
        assert f"{123456789 + number}" in epoch
        assert (int(size), int(captured), int(length)) == (
            header + number,
            min(header + number, 50),
            8 + number,
        )
    assert len(found) == 10


@pytest.mark.parametrize("kind", ["pcap", "nsecpcap", "pcapng"])
def test_what_tshark_writes_is_read(tmp_path, kind):
    source, target = tmp_path / "x.pcapng", tmp_path / "y"
    with Writer(source) as writer:
        writer.write(batch_of(PACKETS), times_from(NOW, 10))
    program("tshark", "-r", str(source), "-F", kind, "-w", str(target))
    unit = 1000 if kind == "pcap" else 1
    with Reader(target) as reader:
        assert list(reader) == [
            (packet, (NOW + number) // unit * unit) for number, packet in enumerate(PACKETS)
        ]


# --- replay ---


@pytest.fixture
def ends():
    first, second = testing.pair()
    with first, second:
        yield first, second


def received(device):
    """All that a device in memory has got."""
    found = []
    with contextlib.suppress(TimeoutError):
        while True:
            found.append(device.recv(timeout=0))
    return found


def test_replay_sends_all_in_order(ends):
    first, second = ends
    data = written(PACKETS, times_from(NOW, 10, 1000))
    done = replay(io.BytesIO(data), first)
    assert received(second) == PACKETS
    assert (done.packets, done.bytes, done.dropped) == (10, sum(map(len, PACKETS)), 0)
    assert 0 <= done.lateness <= done.seconds < PATIENCE


@pytest.mark.parametrize(("speed", "seconds"), [(1, 0.5), (0.5, 1.0), (10, 0.05)])
def test_replay_keeps_its_time(ends, speed, seconds):
    first, second = ends
    arrivals = []

    def receive():
        for _ in PACKETS:
            second.recv(timeout=PATIENCE)
            arrivals.append(time.monotonic())

    thread = threading.Thread(target=receive)
    thread.start()
    # The distances grow: 0, 1, 2, ... of 45 parts.
    times = [NOW + 500_000_000 * number * (number + 1) // 90 for number in range(10)]
    done = replay(io.BytesIO(written(PACKETS, times)), first, speed=speed)
    thread.join(PATIENCE)
    assert seconds <= done.seconds < seconds + 2
    for number, arrival in enumerate(arrivals):
        assert arrival - arrivals[0] >= seconds * number * (number + 1) / 90 - done.lateness - 0.2
    assert arrivals[-1] - arrivals[0] < seconds + 2


def test_no_packet_goes_before_its_time(ends, monkeypatch):
    first, _ = ends
    sent = []
    send = tuntap.Tun.send_batch

    def note(device, batch, timeout, *, start, stop, event):
        sent.extend([time.monotonic_ns()] * (stop - start))
        return send(device, batch, timeout, start=start, stop=stop, event=event)

    monkeypatch.setattr(type(first), "send_batch", note)
    distances = [0, 3_000_000, 10_000, 0, 2_100_000, 700_000, 50_000, 5_000_000, 1, 1_000_000]
    times = NOW + np.cumsum(distances)
    done = replay(io.BytesIO(written(PACKETS, times)), first)
    for number in range(10):
        assert sent[number] - sent[0] >= times[number] - times[0] - done.lateness * 1e9
    assert sent[2] == sent[3], "packets of one time go together"


def test_replay_without_distances(ends):
    first, second = ends
    data = written(PACKETS, times_from(NOW, 10, 10**12))
    done = replay(io.BytesIO(data), first, speed=float("inf"), loop=3)
    assert received(second) == PACKETS * 3
    assert (done.packets, done.lateness) == (30, 0)
    assert done.seconds < PATIENCE


@pytest.mark.parametrize(
    "times",
    [
        [10**18, 5, 6, 7, 2, 1, 2, 10, 11, 4],
        [1] * 10,
        [5, 0, 0, 6, 0, 7, 0, 0, 8, 9],
        [0] * 10,
        [10**18, 10**18 + 1, 0, 0, 10**18 + 2, 0, 0, 10**18 + 3, 10**18 + 3, 0],
    ],
)
def test_clocks_that_jump_back_and_times_that_are_missing(ends, times):
    """A time of 0 was not noted: it is no distance of 31 years to the next."""
    first, second = ends
    assert replay(io.BytesIO(written(PACKETS, times)), first).packets == 10
    assert received(second) == PACKETS


def test_distances_of_any_two_times():
    for times, found in (
        ([5, 7, 3, 4], [0, 2, 0, 1]),
        ([-(2**63), 2**63 - 1], [0, 2**64 - 1]),
        ([2**63 - 1, -(2**63)], [0, 0]),
        ([0, 5, 0, 9], [0, 5, 0, 4]),
    ):
        array = np.array(times, np.int64)
        distances, last = capture._distances(array, array[0])
        assert (distances.tolist(), last) == (found, array[array != 0][-1])
    distances, last = capture._distances(np.array([0, 0, 9, 0]), np.int64(7))
    assert (distances.tolist(), last) == ([0, 0, 2, 0], 9)
    distances, last = capture._distances(np.array([0, 0]), np.int64(7))
    assert (distances.tolist(), last) == ([0, 0], 7)


def test_a_schedule_goes_on_over_batches(ends):
    """One of several batches, at whose borders the clock jumps and times are missing."""
    first, second = ends
    times = times_from(10**18, 800, 100_000)
    for border in (255, 256, 511, 512, 513):
        times[border] = 0
    times[700] = 10**18
    found = []
    thread = threading.Thread(target=lambda: found.extend(second.recv(timeout=PATIENCE) for _ in times))
    thread.start()
    done = replay(io.BytesIO(written([PACKETS[0]] * 800, times)), first, speed=2)
    thread.join(PATIENCE)
    assert (done.packets, len(found)) == (800, 800)
    # 80 ms, and from the jump back by 70 ms forward again, at twice the speed.
    assert 0.07 < done.seconds < 5


def test_replay_of_paths_files_and_readers(ends, tmp_path):
    first, second = ends
    path = tmp_path / "x"
    path.write_bytes(written(PACKETS, NOW))
    for source in (path, str(path)):
        assert replay(source, first, loop=2).packets == 20
    with open(path, "rb") as file:
        assert replay(file, first).packets == 10
        file.seek(0)
        assert replay(file, first, loop=2).packets == 20
        assert not file.closed
    with open(path, "rb") as file:
        reader = Reader(file)
        next(reader)
        assert replay(reader, first).packets == 9
        with pytest.raises(ValueError, match="read once"):
            replay(reader, first, loop=2)
    received(second)


def test_replay_of_a_file_from_where_it_is(ends):
    first, second = ends
    file = io.BytesIO(b"junk" + written(PACKETS, NOW))
    file.seek(4)
    assert replay(file, first, loop=3).packets == 30
    assert received(second) == PACKETS * 3


def test_replay_of_nothing_ends(ends):
    first, _ = ends
    assert replay(io.BytesIO(written([], [])), first, loop=None) == (0, 0, 0.0, 0.0, 0)
    arp = b"\xff" * 6 + b"\2\0\0\0\0\1\x08\x06" + bytes(28)
    assert replay(io.BytesIO(written([arp], NOW, layer=2)), first, loop=None).dropped == 1


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"speed": 0}, ValueError), ({"speed": -1}, ValueError), ({"speed": float("nan")}, ValueError),
        ({"speed": "x"}, TypeError), ({"loop": 0}, ValueError), ({"loop": 1.5}, TypeError),
        ({"timeout": -1}, ValueError),
    ],
)  # fmt: skip
def test_replay_with_wrong_options(ends, options, error):
    with pytest.raises(error):
        replay(io.BytesIO(written(PACKETS, NOW)), ends[0], **options)


def test_layers_of_a_replay():
    frames, packets = written(FRAMES, NOW, layer=2), written(PACKETS, NOW)
    first, second = testing.pair(tuntap.Tap)
    with first, second:
        assert replay(io.BytesIO(frames), first).packets == 10
        assert received(second) == FRAMES
        with pytest.raises(UnsupportedError, match="replay them into a Tun"):
            replay(io.BytesIO(packets), first)
    first, second = testing.pair()
    with first, second:
        assert replay(io.BytesIO(frames), first).packets == 10
        assert received(second) == PACKETS
        with pytest.raises(UnsupportedError, match="layer=3"):
            replay(Reader(io.BytesIO(frames)), first)
        assert replay(Reader(io.BytesIO(frames), layer=3), first).packets == 10


def test_a_damaged_capture_is_replayed_up_to_there(ends):
    first, second = ends
    with pytest.raises(PacketError, match="ends at byte"):
        replay(io.BytesIO(written(PACKETS, NOW)[:-1]), first)
    assert received(second) == PACKETS[:9]


FAR = [NOW, NOW + 3600 * 10**9]


def ended(first, end):
    """The error that ends a replay which waits for an hour, and how long that took."""
    threading.Timer(0.2, end).start()
    started = time.monotonic()
    with pytest.raises((OSError, Alarm)) as caught:
        replay(io.BytesIO(written(PACKETS[:2], FAR)), first)
    assert 0.1 < time.monotonic() - started < PATIENCE
    return caught.type


@pytest.mark.parametrize(
    ("end", "error"),
    [
        ("interrupt", tuntap.InterruptError), ("shutdown", tuntap.ClosedError), ("close", tuntap.ClosedError),
    ],
)  # fmt: skip
def test_a_wait_ends_when_the_device_does(ends, end, error):
    assert ended(ends[0], getattr(ends[0], end)) is error


def test_a_wait_ends_by_a_signal(ends):
    with alarm(0.2):
        assert ended(ends[0], lambda: None) is Alarm


def test_a_wait_ends_by_an_event(ends):
    first, second = ends
    event = tuntap.Event()
    threading.Timer(0.2, event.set).start()
    with pytest.raises(tuntap.InterruptError):
        replay(io.BytesIO(written(PACKETS[:2], FAR)), first, event=event)
    assert received(second) == PACKETS[:1]
    with pytest.raises(tuntap.InterruptError):
        replay(io.BytesIO(written(PACKETS[:2], FAR)), first, event=event)
    assert received(second) == []


def test_a_device_without_room(ends):
    first, second = ends
    with pytest.raises(TimeoutError):
        replay(io.BytesIO(written(PACKETS, NOW)), first, loop=None, timeout=0.05)
    found = received(second)
    assert found == (PACKETS * (len(found) // 10 + 1))[: len(found)]


def test_a_capture_arrives_in_the_kernel_whole_and_in_order(net, tmp_path):
    packets = [testing.udp("10.0.0.2", "10.0.0.1", 7, 4242, struct.pack("!I", n) * 9) for n in range(2000)]
    path = tmp_path / "x.pcapng"
    with Writer(path, layer=2) as writer:
        for at in range(0, 2000, 500):
            frames = [FRAMES[0][:14] + packet for packet in packets[at : at + 500]]
            writer.write(batch_of(frames, layer=2), times_from(NOW + at * 250_000, 500, 250_000))
    with (
        tuntap.Tun("tun0", addresses=["10.0.0.1/24"], quiet=True) as tun,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
    ):
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        receiver.bind(("10.0.0.1", 4242))
        receiver.settimeout(PATIENCE)
        arrivals = []

        def receive():
            for _ in packets:
                number = struct.unpack("!I", receiver.recv(100)[:4])[0]
                arrivals.append((number, time.monotonic()))

        thread = threading.Thread(target=receive)
        thread.start()
        done = replay(path, tun)
        thread.join(PATIENCE)
    assert done.packets == 2000
    assert [number for number, _ in arrivals] == list(range(2000))
    # Half a second, on a machine that may be busy.
    assert 0.49 < arrivals[-1][1] - arrivals[0][1] < 5
    assert 0.49 < done.seconds < 5


def test_what_the_kernel_refuses_is_left_out(net):
    good = [testing.udp("10.0.0.2", "10.0.0.1", 7, 4242, bytes([n])) for n in range(4)]
    bad = b"\x15" + bytes(40)
    packets = [bad, good[0], bad, bad, good[1], good[2], good[3], bad]
    with (
        tuntap.Tun("tun0", addresses=["10.0.0.1/24"], quiet=True) as tun,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
    ):
        receiver.bind(("10.0.0.1", 4242))
        receiver.settimeout(PATIENCE)
        done = replay(io.BytesIO(written(packets, NOW)), tun)
        assert (done.packets, done.dropped) == (4, 4)
        assert [receiver.recv(10) for _ in range(4)] == [bytes([n]) for n in range(4)]
        tun.down()
        with pytest.raises(tuntap.LinkDownError):
            replay(io.BytesIO(written(packets, NOW)), tun)


def test_packet_information_is_in_the_way(net):
    with tuntap.Tun(packet_information=True) as tun, pytest.raises(ValueError, match="packet_information"):
        replay(io.BytesIO(written(PACKETS, NOW)), tun)


def test_what_a_device_receives_is_written(net, tmp_path):
    path = tmp_path / "x.pcap"
    with tuntap.Tun("tun0", addresses=["10.0.0.1/24"], quiet=True) as tun, Writer(path) as writer:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for number in range(20):
                sender.sendto(bytes([number]), ("10.0.0.2", 9))
        batch = tun.batch(64)
        count = 0
        while count < 20:
            tun.recv_batch(batch, timeout=PATIENCE)
            count += writer.write(batch)
    assert [packet[UDP].load for packet in rdpcap(str(path))] == [bytes([number]) for number in range(20)]


@pytest.mark.parametrize("library", ["asyncio", "trio"])
def test_replay_in_an_event_loop(library):
    if library == "trio":
        import trio
    data = written(PACKETS, times_from(NOW, 10, 20_000_000))

    async def main():
        first, second = testing.pair(aio.Tun)
        with first, second:
            done = await aio.replay(io.BytesIO(data), first, loop=2, speed=2)
            found = [await second.recv(timeout=PATIENCE) for _ in range(done.packets)]
            with pytest.raises(TypeError, match=r"aio\.replay"):
                replay(io.BytesIO(data), first)
            return done, found

    done, found = trio.run(main) if library == "trio" else asyncio.run(main())
    assert (done.packets, found) == (20, PACKETS * 2)
    assert 0.18 <= done.seconds < PATIENCE


def test_public_names():
    assert all(hasattr(capture, name) for name in capture.__all__)
    assert "capture" in tuntap.__all__
