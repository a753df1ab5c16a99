"""The packet kernels as others call them: checksum, header, split and coalesce, and what they refuse."""

import array
import contextlib
import errno
import struct
import threading

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tuntap import PacketBatch, PacketError, offload, testing
from tuntap.offload import HEADER, checksum


class TestChecksum:
    def test_every_length_and_alignment(self):
        data = np.random.default_rng(1).integers(0, 256, 2100, np.uint8).tobytes()
        for start in range(4):
            for size in (*range(130), *range(1400, 1420), 2047, 2048, 2049):
                piece = data[start : start + size]
                assert checksum(memoryview(data)[start : start + size]) == testing.checksum(piece), (
                    start,
                    size,
                )

    @given(st.binary(max_size=3000), st.integers(0, 2**64 - 1))
    @settings(max_examples=200, deadline=None)
    @example(b"", 0)
    @example(b"", 2**64 - 1)
    @example(b"\xff" * 3000, 2**64 - 1)
    @example(b"\xff", 0xFFFF)
    @example(b"\0" * 8, 0xFFFF0000)
    def test_agrees_with_the_slow_one(self, data, initial):
        assert checksum(data, initial) == testing.checksum(data, initial)

    @pytest.mark.parametrize("size", [65535, 65536, 1 << 20, (1 << 22) + 1])
    def test_long_data_of_ones(self, size):
        """Where a sum of 32 bits would overflow."""
        data = b"\xff" * size
        expected = 0 if size % 2 == 0 else 0xFFFF ^ 0xFF00
        assert checksum(data) == expected

    def test_a_megabyte_of_noise(self):
        data = np.random.default_rng(2).integers(0, 256, 1_000_001, np.uint8)
        words = np.concatenate([data, np.zeros(1, np.uint8)]).view(">u2")
        total = int(words.astype(np.uint64).sum())
        while total >> 16:
            total = (total >> 16) + (total & 0xFFFF)
        assert checksum(data) == total ^ 0xFFFF

    @given(st.binary(min_size=2, max_size=200))
    @settings(max_examples=100, deadline=None)
    def test_data_that_holds_its_checksum_sums_to_zero(self, data):
        data = data[: len(data) // 2 * 2]
        assert checksum(data + checksum(data).to_bytes(2, "big")) == 0

    def test_a_real_header(self):
        packet = testing.udp("192.0.2.1", "198.51.100.7", 1, 2, b"odd")
        assert checksum(packet[:20]) == 0
        pseudo = packet[12:20] + struct.pack("!HH", 17, len(packet) - 20)
        assert checksum(packet[20:], checksum(pseudo) ^ 0xFFFF) == 0

    def test_every_kind_of_buffer(self):
        data = bytes(range(100))
        expected = testing.checksum(data)
        for kind in (
            bytearray,
            memoryview,
            lambda d: np.frombuffer(d, np.uint8),
            lambda d: array.array("B", d),
        ):
            assert checksum(kind(data)) == expected
        assert checksum(np.frombuffer(data, np.uint32)) == expected
        assert checksum(np.frombuffer(data, np.uint8).reshape(10, 10)) == expected

    @pytest.mark.parametrize("bad", [None, "text", 5, 1.5, [1, 2], object()])
    def test_what_is_no_buffer(self, bad):
        with pytest.raises(TypeError):
            checksum(bad)

    def test_a_strided_view(self):
        for bad in (memoryview(b"abcdef")[::2], np.zeros((4, 4), np.uint8).T):
            with pytest.raises(ValueError):
                checksum(bad)

    @pytest.mark.parametrize("initial", [-1, 2**64, 2**100, -(2**70)])
    def test_an_initial_sum_out_of_range(self, initial):
        with pytest.raises(ValueError):
            checksum(b"x", initial)

    @pytest.mark.parametrize("initial", [None, "1", 1.5, [1]])
    def test_an_initial_sum_of_a_wrong_type(self, initial):
        with pytest.raises(TypeError):
            checksum(b"x", initial)

    def test_lets_go_of_its_buffer(self):
        data = bytearray(10)
        checksum(data)
        data.append(1)


class TestHeader:
    def test_is_struct_virtio_net_hdr(self):
        assert HEADER.itemsize == 10
        assert HEADER.names == ("flags", "gso_type", "hdr_len", "gso_size", "csum_start", "csum_offset")
        assert [HEADER.fields[name][1] for name in HEADER.names] == [0, 1, 2, 4, 6, 8]
        assert [HEADER.fields[name][0].str for name in HEADER.names[2:]] == [np.dtype(np.uint16).str] * 4

    def test_reads_what_a_kernel_wrote(self):
        """A header of a TCP super-packet as Linux gives it (little-endian)."""
        raw = bytes.fromhex("01013400a80514001000")
        header = np.frombuffer(raw, HEADER.newbyteorder("<"))[0]
        assert header.tolist() == (1, 1, 52, 1448, 20, 16)
        assert np.array(header.tolist(), HEADER).tobytes() == struct.pack("=BBHHHH", 1, 1, 52, 1448, 20, 16)

    def test_public_names(self):
        assert {"HEADER", "checksum"} <= set(offload.__all__)
        assert all(hasattr(offload, name) for name in offload.__all__)


V4, W4 = "192.0.2.1", "198.51.100.7"


def header(*fields):
    return np.array(fields, HEADER)


def flow(count=4, size=100, start=0):
    """Datagrams of one flow as a host sends them: each with an identification of its own."""
    packets = []
    for number in range(start, start + count):
        packet = testing.udp(V4, W4, 7, 9, bytes([number % 256]) * size)
        head = packet[:4] + struct.pack("!H", number) + packet[6:10] + b"\0\0" + packet[12:20]
        packets.append(head[:10] + testing.checksum(head).to_bytes(2, "big") + head[12:] + packet[20:])
    return packets


def super_packet(count=4, size=100):
    """(Header, super-packet, what it was made of)."""
    packets = flow(count, size)
    ((fields, packet),) = offload.coalesce(packets)
    return fields, packet, packets


BUFFERS = [
    bytes,
    bytearray,
    memoryview,
    lambda data: np.frombuffer(data, np.uint8),
    lambda d: array.array("B", d),
]
HEADER_FORMS = {
    "element": lambda fields: np.array([fields, fields], HEADER)[1],
    "0-d array": lambda fields: np.array(fields, HEADER),
    "array of one": lambda fields: np.array([fields], HEADER),
    "2-d array of one": lambda fields: np.array([[fields]], HEADER),
    "bytes": lambda fields: struct.pack("=BBHHHH", *fields),
    "bytearray": lambda fields: bytearray(struct.pack("=BBHHHH", *fields)),
    "memoryview": lambda fields: memoryview(struct.pack("=BBHHHH", *fields)),
    "array of bytes": lambda fields: np.frombuffer(struct.pack("=BBHHHH", *fields), np.uint8),
    "bytes with gaps": lambda fields: np.repeat(np.frombuffer(struct.pack("=BBHHHH", *fields), np.uint8), 2)[
        ::2
    ],
}
RIGHT = (1, 5, 28, 100, 20, 6)


class TestSplit:
    @pytest.mark.parametrize("form", HEADER_FORMS)
    def test_every_form_of_header(self, form):
        fields, packet, packets = super_packet()
        assert fields.tolist() == RIGHT
        given = HEADER_FORMS[form](RIGHT)
        assert offload.split(packet, given) == packets
        batch = PacketBatch(4, 128)
        assert offload.split_into(packet, given, batch) == 4
        assert [bytes(p) for p in batch] == packets

    @pytest.mark.parametrize("size", [0, 1, 9, 11, 12, 20])
    def test_a_header_of_a_wrong_size(self, size):
        for kind in (bytes, bytearray, memoryview, lambda data: np.frombuffer(data, np.uint8)):
            with pytest.raises(ValueError, match="10 bytes"):
                offload.split(flow(1)[0], kind(bytes(size)))

    @pytest.mark.parametrize("bad", [
        None, 5, "0123456789", RIGHT, list(RIGHT), object(), np.zeros(2, HEADER), np.zeros(0, HEADER),
        np.zeros(1, HEADER.newbyteorder()), np.zeros(5, np.uint16), np.zeros(1, [("flags", np.uint8, 10)])[0],
        np.zeros(10, np.int8),
    ])  # fmt: skip
    def test_what_is_no_header(self, bad):
        for call in (
            lambda: offload.split(flow(1)[0], bad),
            lambda: offload.split_into(flow(1)[0], bad, room()),
        ):
            with pytest.raises(TypeError, match="header"):
                call()

    @pytest.mark.parametrize("kind", BUFFERS)
    def test_every_kind_of_buffer(self, kind):
        fields, packet, packets = super_packet()
        assert offload.split(kind(packet), fields) == packets
        read_only = np.frombuffer(packet, np.uint8)
        assert not read_only.flags.writeable
        assert offload.split(read_only, fields) == packets
        assert offload.split(np.frombuffer(packet, np.uint8).reshape(2, -1), fields) == packets

    @pytest.mark.parametrize("bad", [None, 5, "text", [1, 2], object()])
    def test_what_is_no_packet(self, bad):
        for call in (
            lambda: offload.split(bad, RIGHT_HEADER),
            lambda: offload.split_into(bad, RIGHT_HEADER, room()),
            lambda: offload.coalesce([flow(1)[0], bad]),
        ):
            with pytest.raises(TypeError):
                call()

    def test_a_strided_packet(self):
        _, packet, _ = super_packet()
        for bad in (memoryview(packet)[::2], np.frombuffer(packet, np.uint8)[::-1]):
            with pytest.raises(ValueError, match="contiguous"):
                offload.split(bad, RIGHT_HEADER)
            with pytest.raises(ValueError, match="contiguous"):
                offload.coalesce([bad])

    @pytest.mark.parametrize("size", [0, 65536, 70_000])
    def test_a_packet_of_an_impossible_size(self, size):
        batch = room()
        with pytest.raises(ValueError, match="65535"):
            offload.split(bytes(size), bytes(10))
        with pytest.raises(ValueError, match="65535"):
            offload.split_into(bytes(size), bytes(10), batch)
        assert batch.count == 0

    def test_the_largest_packet(self):
        packet = b"\x45" * 65535
        assert offload.split(packet, bytes(10)) == [packet]
        batch = PacketBatch(1, 65535)
        assert offload.split_into(packet, bytes(10), batch) == 1
        assert bytes(batch[0]) == packet

    @pytest.mark.parametrize("fields", [
        (1, 5, 28, 0, 20, 6), (1, 5, 28, 100, 21, 6), (1, 1, 28, 100, 20, 6), (1, 4, 28, 100, 20, 16),
        (0, 5, 28, 100, 20, 6), (1, 2, 28, 100, 20, 6), (1, 5, 28, 1, 20, 6), (1, 0, 0, 0, 500, 6),
    ])  # fmt: skip
    def test_a_header_of_something_else(self, fields):
        _, packet, _ = super_packet()
        batch = room()
        for call in (
            lambda: offload.split(packet, header(*fields)),
            lambda: offload.split_into(packet, header(*fields), batch),
        ):
            with pytest.raises(PacketError, match="do not fit together") as caught:
                call()
            assert caught.value.errno == errno.EBADMSG
        assert batch.count == 0

    def test_an_ordinary_packet_comes_alone(self):
        (packet,) = flow(1)
        unfinished = packet[:26] + b"\0\0" + packet[28:]
        assert offload.split(packet, bytes(10)) == [packet]
        assert offload.split(unfinished, bytes(10)) == [unfinished]
        seed = testing.checksum(packet[12:20] + struct.pack("!HH", 17, len(packet) - 20)) ^ 0xFFFF
        unfinished = packet[:26] + seed.to_bytes(2, "big") + packet[28:]
        completed = header(1, 0, 0, 0, 20, 6)
        assert offload.split(unfinished, completed) == [packet]
        batch = room()
        assert offload.split_into(unfinished, completed, batch) == 1
        assert bytes(batch[0]) == packet

    def test_the_packet_is_not_changed(self):
        fields, packet, _ = super_packet()
        for kind in (fields, header(1, 0, 0, 0, 20, 6)):
            memory = bytearray(packet)
            offload.split(memory, kind)
            offload.split_into(memory, kind, room())
            assert memory == packet
            memory.append(1)  # it is let go of


RIGHT_HEADER = np.array(RIGHT, HEADER)


def room():
    return PacketBatch(8, 2000)


class TestSplitInto:
    @pytest.mark.parametrize("headroom", [0, 7, 64])
    def test_a_batch_with_headroom(self, headroom):
        fields, packet, packets = super_packet()
        batch = PacketBatch(6, 128, headroom)
        batch.buffer[:] = 0xEE
        batch.headers["flags"] = 7
        assert offload.split_into(packet, fields, batch) == batch.count == 4
        assert [bytes(p) for p in batch] == packets
        assert not batch.headers[:4]["flags"].any()
        assert (batch.buffer[:, :headroom] == 0xEE).all()
        assert (batch.data[:4, 128:] == 0xEE).all()
        assert (batch.data[4:] == 0xEE).all()

    def test_a_batch_on_arrays_of_the_caller(self):
        fields, packet, packets = super_packet()
        data, lengths = np.zeros((5, 200), np.uint8), np.zeros(5, np.int32)
        batch = PacketBatch.wrap(data, lengths, headroom=10)
        assert offload.split_into(packet, fields, batch) == 4
        assert lengths.tolist() == [128, 128, 128, 128, 0]
        assert [data[i, 10:138].tobytes() for i in range(4)] == packets

    def test_too_few_slots(self):
        fields, packet, packets = super_packet()
        for capacity in (1, 3):
            batch = PacketBatch(capacity, 128)
            batch.fill(packets[:1])
            with pytest.raises(ValueError, match=f"4 segments do not fit a batch of {capacity}"):
                offload.split_into(packet, fields, batch)
            assert batch.count == 0

    def test_slots_that_are_too_small(self):
        fields, packet, packets = super_packet()
        batch = PacketBatch(8, 127)
        with pytest.raises(ValueError, match="128 bytes"):
            offload.split_into(packet, fields, batch)
        with pytest.raises(ValueError, match="127"):
            offload.split_into(packets[0], bytes(10), batch)
        assert batch.count == 0

    @pytest.mark.parametrize("bad", [None, 5, [], np.zeros((4, 128), np.uint8)])
    def test_what_is_no_batch(self, bad):
        fields, packet, _ = super_packet()
        for call in (
            lambda: offload.split_into(packet, fields, bad),
            lambda: offload.coalesce_into(bad, PacketBatch(8, 65535)),
            lambda: offload.coalesce_into(room(), bad),
        ):
            with pytest.raises(TypeError):
                call()

    @pytest.mark.parametrize("slot", [0, 1])
    def test_a_packet_of_the_very_batch(self, slot):
        """Segments would be written over what they are made of."""
        fields, packet, packets = super_packet()
        batch = PacketBatch(4, 1000)
        batch.fill([packet, packet])
        with pytest.raises(ValueError, match="slots of the batch"):
            offload.split_into(batch[slot], fields, batch)
        assert batch.count == 0
        assert batch.data[slot, : len(packet)].tobytes() == packet
        batch.fill([packet, packets[0]])
        batch.count = 0
        assert offload.split_into(packet, fields, batch) == 4


class TestCoalesce:
    def test_nothing(self):
        assert offload.coalesce([]) == []
        assert offload.coalesce(iter(())) == []
        assert offload.coalesce_into(room(), PacketBatch(1, 65535)) == 0

    @pytest.mark.parametrize("kind", BUFFERS)
    def test_every_kind_of_buffer(self, kind):
        fields, packet, packets = super_packet()
        assert offload.coalesce(kind(p) for p in packets) == [(fields, packet)]

    def test_what_it_answers(self):
        ((fields, packet),) = offload.coalesce(flow())
        assert isinstance(fields, np.void)
        assert fields.dtype == HEADER
        assert type(packet) is bytes
        ((fields, packet),) = offload.coalesce(flow(1))
        assert fields.tolist() == (0, 0, 0, 0, 0, 0)
        assert packet == flow(1)[0]

    def test_headers_are_of_their_own(self):
        (one, _), (other, _) = offload.coalesce([*flow(2), testing.icmp_echo(V4, W4)])
        one["gso_size"] = 7
        assert other["gso_size"] == 0

    @pytest.mark.parametrize("udp", [True, False, 1, 0])
    def test_udp_can_be_left_out(self, udp):
        assert len(offload.coalesce(flow(), udp=udp)) == (1 if udp else 4)
        batch, into = room(), PacketBatch(8, 65535)
        batch.fill(flow())
        assert offload.coalesce_into(batch, into, udp) == (1 if udp else 4)

    @pytest.mark.parametrize("udp", [None, "yes", 2, 1.5])
    def test_udp_is_yes_or_no(self, udp):
        with pytest.raises(TypeError, match="udp"):
            offload.coalesce(flow(), udp=udp)

    @pytest.mark.parametrize("packets", [[b""], [*flow(2), b""], [bytes(65536)], [*flow(2), bytes(70_000)]])
    def test_packets_of_an_impossible_size(self, packets):
        with pytest.raises(ValueError, match=f"packet {len(packets) - 1}"):
            offload.coalesce(packets)

    @pytest.mark.parametrize("packets", [None, 5, "text", [5], [None], ["text"]])
    def test_what_is_no_packets(self, packets):
        with pytest.raises(TypeError):
            offload.coalesce(packets)

    def test_many(self):
        """More than are looked at together."""
        packets = flow(700, 50)
        merged = offload.coalesce(packets)
        assert len(merged) == 11
        assert [p for fields, packet in merged for p in offload.split(packet, fields)] == packets
        batch, into = PacketBatch(700, 100), PacketBatch(700, 65535)
        batch.fill(packets)
        assert offload.coalesce_into(batch, into) == 11
        assert [(fields, packet) for fields, packet in merged] == [
            (into.headers[i], bytes(into[i])) for i in range(11)
        ]

    def test_a_packet_of_the_largest_size(self):
        packet = testing.udp(V4, W4, 1, 2, bytes(65507))
        assert len(packet) == 65535
        assert [bytes(p) for _, p in offload.coalesce([packet, packet])] == [packet, packet]


class TestCoalesceInto:
    def test_batches_of_any_shape(self):
        fields, packet, packets = super_packet()
        data, lengths = np.zeros((4, 138), np.uint8), np.full(4, 128, np.int32)
        data[:, 10:] = [np.frombuffer(p, np.uint8) for p in packets]
        wrapped = PacketBatch.wrap(data, lengths, headroom=10)
        plain = PacketBatch(9, 2000, headroom=3)
        plain.fill(packets)
        for batch in (wrapped, plain):
            memory, sizes = np.zeros((4, 65540), np.uint8), np.zeros(9, np.int32)
            for into in (
                PacketBatch(4, 65535, headroom=20),
                PacketBatch.wrap(memory, sizes[:4], headroom=5),
            ):
                into.headers["flags"] = 9
                assert offload.coalesce_into(batch, into) == into.count == 1
                assert into.headers[0] == fields
                assert bytes(into[0]) == packet
                assert (into.headers[1:]["flags"] == 9).all()
        assert [bytes(p) for p in plain] == packets

    def test_the_headers_of_what_is_coalesced_do_not_matter(self):
        fields, _, packets = super_packet()
        batch, into = room(), PacketBatch(8, 65535)
        batch.fill(packets)
        batch.headers["gso_size"] = 5
        assert offload.coalesce_into(batch, into) == 1
        assert into.headers[0] == fields

    @pytest.mark.parametrize(("capacity", "slot_size", "what"), [(3, 65535, "slots"), (4, 65534, "65535")])
    def test_too_little_room(self, capacity, slot_size, what):
        batch, into = room(), PacketBatch(capacity, slot_size)
        batch.fill(flow())
        into.fill(flow(1))
        with pytest.raises(ValueError, match=what):
            offload.coalesce_into(batch, into)
        assert into.count == 0

    def test_into_itself(self):
        batch = PacketBatch(4, 65535)
        batch.fill(flow())
        with pytest.raises(ValueError, match="into itself"):
            offload.coalesce_into(batch, batch)
        assert [bytes(p) for p in batch] == flow()

    def test_into_the_same_memory(self):
        memory = np.zeros((5, 65535), np.uint8)
        one, other = (PacketBatch.wrap(memory[i : i + 4], np.zeros(4, np.int32)) for i in (0, 1))
        one.fill(flow())
        with pytest.raises(ValueError, match="into itself"):
            offload.coalesce_into(one, other)
        half = PacketBatch.wrap(memory[:2], np.zeros(2, np.int32))
        rest = PacketBatch.wrap(memory[2:4], np.zeros(2, np.int32))
        half.fill(flow(2))
        assert offload.coalesce_into(half, rest) == 1

    @pytest.mark.parametrize("length", [0, -1, -(2**31), 2001, 2**31 - 1])
    @pytest.mark.parametrize("position", [0, 3])
    def test_a_length_that_cannot_be(self, length, position):
        batch, into = room(), PacketBatch(8, 65535)
        batch.fill(flow())
        batch.lengths[position] = length
        with pytest.raises(ValueError, match=f"packet {position}"):
            offload.coalesce_into(batch, into)
        assert into.count == 0

    def test_lengths_that_change_meanwhile(self):
        """Another thread writes nonsense: an error, or packets within their slots, never more."""
        batch, into = PacketBatch(256, 200), PacketBatch(256, 65535)
        batch.fill(flow(256, 50))
        good = batch.lengths.copy()
        stop = threading.Event()

        def scribble():
            while not stop.is_set():
                batch.lengths[::3] = 2**31 - 1
                batch.lengths[:] = good

        thread = threading.Thread(target=scribble)
        thread.start()
        try:
            for _ in range(300):
                with contextlib.suppress(ValueError):
                    offload.coalesce_into(batch, into)
                    assert (into.lengths[: into.count] <= 65535).all()
        finally:
            stop.set()
            thread.join()


class TestThreads:
    """Another thread may have the device at the same time."""

    def test_calls_that_wait_for_room_send_what_they_were_asked_for(self):
        """Both look at the same slots, one at more of them than the other."""
        one, other = testing.pair(offload=True)
        packets = [testing.udp("10.0.0.1", "10.0.0.2", 1 + i, 9, i.to_bytes(2, "big")) for i in range(200)]
        batch = PacketBatch(200, 100)
        batch.fill(packets)
        results = []
        with one, other:
            full = testing.udp("10.0.0.1", "10.0.0.2", 7, 7, bytes(1000))
            with contextlib.suppress(TimeoutError):
                while True:
                    one.send(full, timeout=0)
            thread = threading.Thread(
                target=lambda: results.append(one.send_batch(batch, timeout=5, stop=2)), daemon=True
            )
            thread.start()
            for _ in range(20):  # by then the other call waits, too
                with pytest.raises(TimeoutError):
                    one.send_batch(batch, timeout=0.005)
            received = []
            while thread.is_alive() or len(received) < 2:
                with contextlib.suppress(TimeoutError):
                    received += [packet] if (packet := other.recv(timeout=0.2)) != full else []
            thread.join()
            assert results == [2]
            assert received == packets[:2]
            with pytest.raises(TimeoutError):
                other.recv(timeout=0)

    def test_lengths_that_change_while_packets_are_coalesced(self):
        """They were right when the call began; a wrong one must not be believed later."""
        batch = PacketBatch(512, 64)
        batch.fill([b"\x45" + bytes(63)] * 512)
        stop = threading.Event()

        def disturb():
            while not stop.is_set():
                batch.lengths[256:] = -1
                batch.lengths[256:] = 64

        thread = threading.Thread(target=disturb)
        thread.start()
        try:
            for _ in range(8):
                into = PacketBatch(512, 65535)  # memory that was never touched makes the call last
                with contextlib.suppress(ValueError):  # from the look at them in the beginning
                    assert offload.coalesce_into(batch, into) == 512
                    assert 1 <= into.lengths.min() <= into.lengths.max() <= 64
        finally:
            stop.set()
            thread.join()
