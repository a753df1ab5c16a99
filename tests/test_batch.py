"""PacketBatch: slots that are the caller's arrays, whatever the caller brings."""

import array
import copy
import ctypes
import gc
import mmap
import pickle
import sys
import weakref
from multiprocessing import shared_memory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuntap import PacketBatch, Tap, Tun
from tuntap.testing import pair, udp

PACKETS = [bytes([0x45, i]) * (i + 1) for i in range(8)]
HUGE = [2**30, 2**31, 2**62, 2**63, 2**64, 10**40]


def shape(capacity, size, dtype=np.uint8):
    return np.zeros((capacity, size), dtype)


def counts(capacity, dtype=np.int32):
    return np.zeros(capacity, dtype)


class TestNew:
    def test_arrays_have_the_documented_shapes_and_types(self):
        batch = PacketBatch(5, 100, headroom=12)
        assert (batch.capacity, batch.slot_size, batch.headroom) == (5, 100, 12)
        assert (batch.count, len(batch), batch.truncated) == (0, 0, ())
        assert (batch.data.shape, batch.data.dtype) == ((5, 100), np.uint8)
        assert (batch.lengths.shape, batch.lengths.dtype) == ((5,), np.int32)
        assert (batch.buffer.shape, batch.buffer.dtype) == ((5, 112), np.uint8)
        assert np.shares_memory(batch.buffer, batch.data)
        assert batch.data.ctypes.data - batch.buffer.ctypes.data == 12
        assert not batch.lengths.any()

    @pytest.mark.parametrize("capacity", [0, -1, *HUGE])
    def test_capacity_out_of_range(self, capacity):
        with pytest.raises((ValueError, MemoryError)):
            PacketBatch(capacity, 2**30 - 1)

    @pytest.mark.parametrize("slot_size", [0, -1, *HUGE])
    def test_slot_size_out_of_range(self, slot_size):
        with pytest.raises(ValueError, match="slot_size"):
            PacketBatch(1, slot_size)

    @pytest.mark.parametrize("headroom", [-1, *HUGE])
    def test_headroom_out_of_range(self, headroom):
        with pytest.raises(ValueError, match="headroom"):
            PacketBatch(1, 100, headroom)

    def test_more_than_there_is_memory_for(self):
        with pytest.raises((MemoryError, ValueError)):
            PacketBatch(2**31 - 1, 2**30 - 1, 2**30 - 1)

    @pytest.mark.parametrize("bad", [None, "4", b"4", 4.0, True, [4], object(), np.float32(4)])
    @pytest.mark.parametrize("position", [0, 1, 2])
    def test_wrong_types(self, position, bad):
        arguments = [4, 100, 8]
        arguments[position] = bad
        with pytest.raises(TypeError):
            PacketBatch(*arguments)

    @pytest.mark.parametrize("arguments", [(), (4,), (4, 100, 0, 0), (4, 100, 0, 0, 0)])
    def test_wrong_number_of_arguments(self, arguments):
        with pytest.raises(TypeError):
            PacketBatch(*arguments)

    def test_numpy_integers_are_integers(self):
        batch = PacketBatch(np.int64(4), np.uint16(100), np.int8(3))
        assert batch.buffer.shape == (4, 103)

    def test_one_slot_of_one_byte(self):
        batch = PacketBatch(1, 1)
        assert batch.fill([b"E"]) == 1
        assert bytes(batch[0]) == b"E"

    @pytest.mark.parametrize("name", ["capacity", "slot_size", "headroom", "truncated"])
    def test_what_cannot_be_set(self, name):
        with pytest.raises(AttributeError):
            setattr(PacketBatch(1, 1), name, 5)

    def test_is_no_value_to_copy_or_pickle(self):
        batch = PacketBatch(1, 1)
        for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError):
                attempt(batch)

    def test_repr_tells_how_full_it_is(self):
        batch = PacketBatch(4, 100, 8)
        batch.fill([b"E", b"E"])
        for part in ("2/4", "100", "8"):
            assert part in repr(batch)


class TestWrap:
    def test_shares_memory_in_both_directions(self):
        data, lengths = shape(4, 100), counts(4)
        batch = PacketBatch.wrap(data, lengths)
        assert np.shares_memory(batch.data, data)
        assert np.shares_memory(batch.lengths, lengths)
        assert batch.data.shape == (4, 100)
        data[2, :3] = (1, 2, 3)
        lengths[2] = 3
        assert batch[2].tolist() == [1, 2, 3]
        batch.fill(PACKETS[:2])
        assert lengths[:2].tolist() == [len(p) for p in PACKETS[:2]]
        assert data[1, :4].tobytes() == PACKETS[1]
        batch[0][0] = 0x66
        assert data[0, 0] == 0x66

    def test_count_is_the_capacity(self):
        assert PacketBatch.wrap(shape(4, 100), counts(4)).count == 4

    def test_headroom_is_taken_from_each_row(self):
        data = shape(4, 100)
        batch = PacketBatch.wrap(data, counts(4), headroom=20)
        assert (batch.slot_size, batch.headroom, batch.data.shape) == (80, 20, (4, 80))
        batch.fill([b"\x45\x46"] * 4)
        assert data[3, 20:22].tobytes() == b"\x45\x46"
        assert not data[:, :20].any()

    @pytest.mark.parametrize("headroom", [-1, 100, 101, 2**31, 2**64])
    def test_headroom_that_leaves_no_slot(self, headroom):
        with pytest.raises(ValueError, match="headroom"):
            PacketBatch.wrap(shape(4, 100), counts(4), headroom)

    @pytest.mark.parametrize("headroom", [1.0, "1", None, True])
    def test_headroom_of_a_wrong_type(self, headroom):
        with pytest.raises(TypeError):
            PacketBatch.wrap(shape(4, 100), counts(4), headroom)

    def test_empty_arrays(self):
        for data, lengths in (
            (shape(0, 100), counts(0)),
            (shape(4, 0), counts(4)),
            (shape(0, 0), counts(0)),
            (shape(0, 100), counts(4)),
            (shape(4, 100), counts(0)),
        ):
            with pytest.raises(ValueError):
                PacketBatch.wrap(data, lengths)

    @pytest.mark.parametrize("lengths", [1, 3, 5, 64])
    def test_number_of_lengths_that_differs(self, lengths):
        with pytest.raises(ValueError, match="slots"):
            PacketBatch.wrap(shape(4, 100), counts(lengths))

    @pytest.mark.parametrize(
        "data",
        [
            np.zeros(400, np.uint8),
            np.zeros((4, 10, 10), np.uint8),
            np.zeros((), np.uint8),
            bytearray(400),
            array.array("B", bytes(400)),
        ],
        ids=["1-d", "3-d", "0-d", "bytearray", "array"],
    )
    def test_data_of_other_dimensions(self, data):
        with pytest.raises(ValueError, match="dimensions"):
            PacketBatch.wrap(data, counts(4))

    @pytest.mark.parametrize("lengths", [np.zeros((4, 1), np.int32), np.zeros((), np.int32)])
    def test_lengths_of_other_dimensions(self, lengths):
        with pytest.raises(ValueError):
            PacketBatch.wrap(shape(4, 100), lengths)

    @pytest.mark.parametrize("dtype", ["i1", "u2", "i4", "u8", "f4", "f8", "?", "c8", "S1", "V1", "U1"])
    def test_data_of_another_dtype(self, dtype):
        with pytest.raises(TypeError, match="uint8"):
            PacketBatch.wrap(shape(4, 100, dtype), counts(4))

    @pytest.mark.parametrize(
        "dtype",
        ["i8", "u4", "i2", "u1", "f4", "f8", ">i4" if sys.byteorder == "little" else "<i4", "S4", "V4"],
    )
    def test_lengths_of_another_dtype(self, dtype):
        with pytest.raises(TypeError, match="int32"):
            PacketBatch.wrap(shape(4, 100), counts(4, dtype))

    def test_structured_and_object_arrays(self):
        pairs = np.dtype([("a", "u1"), ("b", "u1")])
        for data in (shape(4, 100, pairs), np.full((4, 100), None), shape(4, 100, "M8[s]")):
            with pytest.raises(TypeError):
                PacketBatch.wrap(data, counts(4))

    @pytest.mark.parametrize("bad", [None, 5, "text", [[1, 2], [3, 4]], object(), 4.5])
    def test_what_is_no_buffer(self, bad):
        with pytest.raises(TypeError):
            PacketBatch.wrap(bad, counts(4))
        with pytest.raises(TypeError):
            PacketBatch.wrap(shape(4, 100), bad)

    def test_read_only(self):
        frozen, fixed = shape(4, 100), counts(4)
        frozen.flags.writeable = fixed.flags.writeable = False
        for data, lengths in (
            (frozen, counts(4)),
            (shape(4, 100), fixed),
            (memoryview(bytes(400)).cast("B", (4, 100)), counts(4)),
            (shape(4, 100), memoryview(bytes(16)).cast("i")),
        ):
            with pytest.raises(ValueError, match="read-only"):
                PacketBatch.wrap(data, lengths)

    def test_fortran_order_and_strided_views(self):
        big = shape(8, 200)
        for data in (
            np.asfortranarray(shape(4, 100)),
            shape(100, 4).T,
            big[::2, :100],
            big[:4, ::2],
            big[:4, :100],
            big[:4, 100:],
            big[3::-1],
            big[:4, ::-1],
            np.broadcast_to(np.zeros(100, np.uint8), (4, 100)),
        ):
            with pytest.raises(ValueError, match=r"contiguous|read-only"):
                PacketBatch.wrap(data, counts(4))
        for lengths in (counts(8)[::2], counts(4)[::-1]):
            with pytest.raises(ValueError, match="contiguous"):
                PacketBatch.wrap(shape(4, 100), lengths)

    def test_contiguous_rows_of_a_larger_array(self):
        big = shape(8, 100)
        PacketBatch.wrap(big[2:6], counts(4)).fill(PACKETS[:4])
        assert big[2, :2].tobytes() == PACKETS[0]
        assert not big[:2].any()
        assert not big[6:].any()

    def test_rows_of_a_single_slot(self):
        assert PacketBatch.wrap(np.zeros((1, 100), np.uint8, order="F"), counts(1)).slot_size == 100

    def test_memory_of_every_kind(self, monkeypatch):
        # Its tracker is a process of its own, which would look like a leak.
        monkeypatch.setattr(shared_memory.resource_tracker, "register", lambda *_: None)
        monkeypatch.setattr(shared_memory.resource_tracker, "unregister", lambda *_: None)
        with mmap.mmap(-1, 4096) as mapped:
            shared = shared_memory.SharedMemory(create=True, size=4096)
            try:
                for memory in (
                    bytearray(400),
                    mapped,
                    array.array("B", bytes(400)),
                    shared.buf,
                    np.zeros(400, np.uint8),
                    memoryview(bytearray(400)),
                ):
                    rows = memoryview(memory)[:400].cast("B", (4, 100))
                    batch = PacketBatch.wrap(rows, array.array("i", [0] * 4))
                    assert batch.fill(PACKETS[:4]) == 4
                    assert bytes(memoryview(memory)[300:308]) == PACKETS[3]
                    assert [bytes(packet) for packet in batch] == PACKETS[:4]
                    del batch
                    rows.release()
            finally:
                shared.close()
                shared.unlink()

    def test_arrays_of_c_types(self):
        rows = np.ctypeslib.as_array(((ctypes.c_uint8 * 100) * 4)())
        lengths = np.ctypeslib.as_array((ctypes.c_int32 * 4)())
        assert PacketBatch.wrap(rows, lengths).fill(PACKETS[:4]) == 4
        assert lengths.tolist() == [len(p) for p in PACKETS[:4]]

    def test_lengths_may_be_written_with_nonsense(self):
        """The arrays are the caller's: whatever is in them, nothing outside a slot is shown."""
        data, lengths = shape(4, 100), counts(4)
        batch = PacketBatch.wrap(data, lengths, headroom=10)
        for nonsense in (-1, -(2**31), 101, 2**31 - 1):
            lengths[:] = nonsense
            assert all(len(packet) in (0, 90) for packet in batch)
            assert len(batch.with_headroom(3, 10)) in (10, 100)


class TestLife:
    def test_arrays_outlive_the_batch(self):
        batch = PacketBatch(4, 100, 8)
        batch.fill(PACKETS[:4])
        data, lengths, packet, buffer = batch.data, batch.lengths, batch[3], batch.buffer
        gone = weakref.ref(batch)
        del batch
        gc.collect()
        assert gone() is None
        noise = [bytearray(4 * 108) for _ in range(100)]
        assert bytes(packet) == PACKETS[3]
        assert lengths[3] == len(PACKETS[3])
        data[:] = 7
        assert (buffer[:, 8:] == 7).all()
        del noise

    def test_a_batch_outlives_the_arrays_it_wraps(self):
        data, lengths = shape(4, 100), counts(4)
        gone = weakref.ref(data), weakref.ref(lengths)
        batch = PacketBatch.wrap(data, lengths)
        del data, lengths
        gc.collect()
        noise = [bytearray(400) for _ in range(100)]
        batch.fill(PACKETS[:4])
        assert [bytes(packet) for packet in batch] == PACKETS[:4]
        del batch, noise
        gc.collect()
        assert [reference() for reference in gone] == [None, None]

    def test_the_attributes_may_be_replaced_but_the_slots_stay(self):
        batch = PacketBatch(2, 100)
        batch.data = batch.lengths = None
        gc.collect()
        assert batch.fill([b"E" * 100] * 2) == 2

    def test_a_wrapped_bytearray_cannot_be_resized(self):
        memory, sizes = bytearray(400), bytearray(16)
        batch = PacketBatch.wrap(memoryview(memory).cast("B", (4, 100)), memoryview(sizes).cast("i"))
        for owner in (memory, sizes):
            with pytest.raises(BufferError):
                owner.extend(b"x" * 10_000)
            with pytest.raises(BufferError):
                owner.clear()
        del batch
        gc.collect()
        memory.extend(b"x")
        sizes.clear()

    def test_a_wrapped_mapping_cannot_be_closed(self):
        mapped = mmap.mmap(-1, 4096)
        batch = PacketBatch.wrap(memoryview(mapped)[:400].cast("B", (4, 100)), counts(4))
        with pytest.raises(BufferError):
            mapped.close()
        del batch
        gc.collect()
        mapped.close()

    def test_a_refused_wrap_holds_nothing(self):
        memory = bytearray(400)
        for lengths in (counts(3), counts(4, "i8"), None, counts(0)):
            with pytest.raises((ValueError, TypeError)):
                PacketBatch.wrap(memoryview(memory).cast("B", (4, 100)), lengths)
            gc.collect()
            memory.append(0)
            memory.pop()

    def test_making_batches_leaks_nothing(self):
        def make():
            for _ in range(200):
                PacketBatch(64, 1500).fill(PACKETS)
                with pytest.raises(ValueError):
                    PacketBatch.wrap(shape(4, 100), counts(3))

        make()
        gc.collect()
        before = sys.getallocatedblocks()
        make()
        gc.collect()
        assert sys.getallocatedblocks() - before < 200


class TestFill:
    def test_packets_of_every_kind_of_buffer(self):
        batch = PacketBatch(8, 100)
        packets = [
            b"Ebytes", bytearray(b"Earray"), memoryview(b"Eview"), np.frombuffer(b"Enumpy", np.uint8),
            array.array("B", b"Earr"), array.array("i", [1, 2]), memoryview(b"-Eslice-")[1:7],
        ]  # fmt: skip
        assert batch.fill(packets) == len(packets) == batch.count == len(batch)
        assert [bytes(packet) for packet in batch] == [bytes(packet) for packet in packets]

    def test_an_iterator_is_enough(self):
        batch = PacketBatch(8, 100)
        assert batch.fill(iter(PACKETS)) == 8
        assert batch.fill(packet for packet in PACKETS[:3]) == 3
        assert batch.fill([]) == 0
        assert batch.count == 0

    def test_exactly_full(self):
        batch = PacketBatch(2, 4)
        assert batch.fill([b"E" * 4] * 2) == 2

    @pytest.mark.parametrize(
        ("packets", "error"),
        [
            ([b"E"] * 5, ValueError),
            ([b"E", b"E" * 101], ValueError),
            ([b"E", b""], ValueError),
            ([b"E", None], TypeError),
            ([b"E", "text"], TypeError),
            ([b"E", 5], TypeError),
            ([b"E", [1, 2]], TypeError),
            ([b"E", memoryview(b"abcdef")[::2]], ValueError),
            (5, TypeError),
            (None, TypeError),
            (b"bytes are integers", TypeError),
        ],
        ids=["many", "large", "empty", "none", "str", "int", "list", "strided", "other", "nothing", "bytes"],
    )
    def test_a_failure_leaves_an_empty_batch(self, packets, error):
        batch = PacketBatch(4, 100)
        batch.fill(PACKETS[:4])
        with pytest.raises(error):
            batch.fill(packets)
        assert batch.count == 0
        assert list(batch) == []

    def test_an_error_of_the_iterator_passes_through(self):
        def broken():
            yield b"E"
            raise KeyError("mine")

        batch = PacketBatch(4, 100)
        with pytest.raises(KeyError, match="mine"):
            batch.fill(broken())
        assert batch.count == 0

    def test_a_refused_packet_is_let_go(self):
        batch, packet = PacketBatch(4, 10), bytearray(11)
        with pytest.raises(ValueError):
            batch.fill([packet])
        packet.append(1)

    def test_writes_only_the_packet(self):
        data = np.full((3, 100), 0xAA, np.uint8)
        PacketBatch.wrap(data, counts(3), headroom=10).fill([b"E" * 90, b"E"])
        assert (data[0, :10] == 0xAA).all()
        assert (data[1, :10] == 0xAA).all()
        assert (data[1, 11:] == 0xAA).all()
        assert (data[2] == 0xAA).all()

    def test_from_its_own_packets(self):
        """Dropping some packets of a batch in place."""
        batch = PacketBatch(8, 100)
        batch.fill(PACKETS)
        assert batch.fill([packet for i, packet in enumerate(batch) if i % 2]) == 4
        assert [bytes(packet) for packet in batch] == PACKETS[1::2]

    def test_from_itself_loses_nothing(self):
        batch = PacketBatch(8, 100)
        batch.fill(PACKETS)
        assert batch.fill(batch) == 8
        assert [bytes(packet) for packet in batch] == PACKETS
        assert batch.fill(packet for packet in batch if len(packet) > 4) == 6

    def test_clears_what_was_truncated(self):
        one, other = pair()
        batch = PacketBatch(4, 4)
        with one, other:
            one.send(udp("10.0.0.1", "10.0.0.2", 1, 2))
            other.recv_batch(batch, timeout=1)
        assert batch.truncated == (0,)
        batch.fill([b"E"])
        assert batch.truncated == ()


class TestAccess:
    @pytest.fixture
    def batch(self):
        batch = PacketBatch(8, 100, headroom=10)
        batch.fill(PACKETS[:5])
        return batch

    def test_indexing(self, batch):
        for i in range(5):
            assert bytes(batch[i]) == PACKETS[i]
            assert bytes(batch[i - 5]) == PACKETS[i]
            assert bytes(batch[np.int32(i)]) == PACKETS[i]
        assert isinstance(batch[0], np.ndarray)
        assert np.shares_memory(batch[4], batch.data)

    @pytest.mark.parametrize("index", [5, 7, 8, -6, 2**31, -(2**31), 2**70])
    def test_an_index_outside(self, batch, index):
        with pytest.raises(IndexError):
            batch[index]
        with pytest.raises(IndexError):
            batch.with_headroom(index, 1)

    @pytest.mark.parametrize("index", [slice(0, 2), "1", 1.0, None, (0, 1), [0]])
    def test_an_index_of_a_wrong_type(self, batch, index):
        with pytest.raises(TypeError):
            batch[index]
        with pytest.raises(TypeError):
            batch.with_headroom(index, 1)

    def test_an_empty_batch_has_no_packet(self, batch):
        batch.count = 0
        with pytest.raises(IndexError):
            batch[0]
        with pytest.raises(IndexError):
            batch[-1]
        assert list(batch) == []
        assert not batch

    def test_iteration(self, batch):
        assert [bytes(packet) for packet in batch] == PACKETS[:5]
        assert [bytes(packet) for packet in reversed(list(batch))] == PACKETS[4::-1]
        for packet in batch:
            packet[:] = 1
        assert (batch[4] == 1).all()

    def test_with_headroom(self, batch):
        batch.buffer[2, :10] = range(10)
        assert bytes(batch.with_headroom(2, 0)) == PACKETS[2]
        assert bytes(batch.with_headroom(2, 3)) == bytes([7, 8, 9]) + PACKETS[2]
        assert bytes(batch.with_headroom(-3, 10)) == bytes(range(10)) + PACKETS[2]
        batch.with_headroom(2, 1)[0] = 0xFF
        assert batch.buffer[2, 9] == 0xFF

    @pytest.mark.parametrize("size", [-1, 11, 2**31])
    def test_more_headroom_than_there_is(self, batch, size):
        with pytest.raises(ValueError):
            batch.with_headroom(0, size)

    def test_count_is_settable(self, batch):
        batch.data[5:8] = 0x45
        batch.lengths[5:8] = 3
        batch.count = 8
        assert bytes(batch[7]) == b"\x45\x45\x45"
        for bad in (-1, 9, 2**31, 2**63, -(2**70)):
            with pytest.raises((ValueError, OverflowError)):
                batch.count = bad
        for bad in (1.0, "1", None):
            with pytest.raises(TypeError):
                batch.count = bad
        assert batch.count == 8
        with pytest.raises((AttributeError, TypeError, NotImplementedError)):
            del batch.count


class TestProperties:
    packets = st.lists(st.binary(min_size=1, max_size=64), max_size=12)

    @given(packets=packets, headroom=st.integers(0, 20))
    @settings(max_examples=100, deadline=None)
    def test_what_was_filled_in_comes_out(self, packets, headroom):
        batch = PacketBatch(12, 64, headroom)
        assert batch.fill(packets) == len(packets)
        assert [bytes(packet) for packet in batch] == packets
        assert batch.lengths[: len(packets)].tolist() == [len(p) for p in packets]
        for i, packet in enumerate(packets):
            assert bytes(batch.with_headroom(i, headroom)[headroom:]) == packet

    @given(data=st.data())
    @settings(max_examples=100, deadline=None)
    def test_guards_around_wrapped_memory_stay(self, data):
        capacity = data.draw(st.integers(1, 6))
        slot = data.draw(st.integers(1, 40))
        headroom = data.draw(st.integers(0, 10))
        size = capacity * (slot + headroom)
        memory = np.full(size + 64, 0xA5, np.uint8)
        lengths = np.full(capacity + 2, 7, np.int32)
        rows = memory[32 : 32 + size].reshape(capacity, slot + headroom)
        batch = PacketBatch.wrap(rows, lengths[1:-1], headroom)
        packets = data.draw(st.lists(st.binary(min_size=0, max_size=slot + 2), max_size=capacity + 1))
        good = len(packets) <= capacity and all(1 <= len(p) <= slot for p in packets)
        if good:
            assert batch.fill(packets) == len(packets)
            assert [bytes(p) for p in batch] == packets
        else:
            with pytest.raises(ValueError):
                batch.fill(packets)
            assert batch.count == 0
        assert (memory[:32] == 0xA5).all()
        assert (memory[32 + size :] == 0xA5).all()
        assert lengths[0] == lengths[-1] == 7
        assert (rows[:, :headroom] == 0xA5).all()

    @given(
        packets=st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=10),
        slot=st.integers(1, 200),
    )
    @settings(max_examples=60, deadline=None)
    def test_a_batch_through_a_pair(self, packets, slot):
        """Whatever the size of the slots: each packet whole, or cut and listed; none is lost."""
        packets = [b"\x45" + packet for packet in packets]
        one, other = pair()
        with one, other:
            out = PacketBatch(10, 301)
            out.fill(packets)
            assert one.send_batch(out, timeout=1) == len(packets)
            guard = np.full((11, slot), 0xA5, np.uint8)
            batch = PacketBatch.wrap(guard[:10], counts(10))
            assert other.recv_batch(batch, timeout=1) == len(packets)
            assert [bytes(p) for p in batch] == [p[:slot] for p in packets]
            assert batch.truncated == tuple(i for i, p in enumerate(packets) if len(p) > slot)
            assert (guard[10] == 0xA5).all()


class TestDeviceBatch:
    def test_is_sized_for_the_device(self):
        for kind, overhead in ((Tun, 0), (Tap, 18)):
            for mtu in (68, 1500, 9000, 65521):
                one, other = pair(kind, mtu=mtu)
                with one, other:
                    batch = one.batch(3, headroom=5)
                    assert (batch.capacity, batch.headroom) == (3, 5)
                    assert mtu + overhead <= batch.slot_size < mtu + overhead + 64

    @pytest.mark.parametrize("capacity", [0, -1, 2**31])
    def test_refuses_what_a_batch_refuses(self, capacity):
        one, other = pair()
        with one, other, pytest.raises(ValueError):
            one.batch(capacity)
