"""Columns of a batch: what is in them, where they go to, and what else may happen to a batch meanwhile."""

import asyncio
import collections
import doctest
import itertools
import random
import socket
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from threads import PATIENCE, CallThread

from tuntap import PacketBatch, Tap, Tun, _columns, aio, offload
from tuntap.columns import DTYPE, FIVE_TUPLE, Columns, Mark, addresses
from tuntap.testing import ethernet, icmp_echo, pair, tcp, udp

sys.path.insert(0, str(Path(__file__).parent / "kernels"))

import columns_twin
import kinds

NAMES = DTYPE.names
RNG = random.Random(11)
PACKETS = list((kinds.right(RNG) | kinds.wrong(RNG)).values())
FRAMES = [
    frame
    for packet in PACKETS[::9]
    for frame in (kinds.links(RNG, packet) | kinds.other_frames(RNG, packet)).values()
]
THREE = [udp("10.0.0.1", "10.0.0.2", 53, 4000, b"abc"), tcp("fd00::1", "fd00::2", 80, 5000), b"\x45"]


def batch_of(packets, layer=3, **options):
    batch = PacketBatch(max(len(packets), 1), max(map(len, packets), default=1), **options)
    assert batch.fill(packets) == len(packets)
    batch.layer = layer
    return batch


def expected(packets, is_frame=False, **options):
    """The table that the slow twin of the kernel makes."""
    table = np.zeros(len(packets), DTYPE)
    for row, packet in zip(table, packets, strict=True):
        for name, value in columns_twin.read(packet, is_frame, **options).items():
            row[name] = np.frombuffer(value, np.uint8) if isinstance(value, bytes) else value
    return table


def same(found, wanted):
    return all(np.array_equal(found[name], wanted[name]) for name in wanted.dtype.names)


@pytest.fixture
def batch():
    return batch_of(THREE)


class TestTable:
    @pytest.mark.parametrize("headroom", [0, 3, 64])
    def test_of_every_kind_of_packet(self, headroom):
        assert same(batch_of(PACKETS, headroom=headroom).columns(), expected(PACKETS))

    def test_of_every_kind_of_frame(self):
        assert same(batch_of(FRAMES, layer=2).columns(), expected(FRAMES, is_frame=True))

    def test_a_frame_is_no_packet(self):
        """Nothing is guessed: the layer decides."""
        frames = batch_of(FRAMES)
        assert same(frames.columns(), expected(FRAMES))
        frames.layer = 2
        assert same(frames.columns(), expected(FRAMES, is_frame=True))

    @pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 63, 64, 65, 100])
    def test_every_number_of_packets(self, count):
        packets = PACKETS[:count]
        found = batch_of(packets).columns()
        assert found.shape == (count,)
        assert same(found, expected(packets))

    @pytest.mark.parametrize("name", NAMES)
    def test_a_field_alone_is_what_it_is_beside_others(self, name):
        """But for the marks of what was not looked at, which are a field of their own."""
        wanted = expected(FRAMES, is_frame=True)
        found = batch_of(FRAMES, layer=2).columns([name])
        assert found.dtype.names == (name,)
        assert np.array_equal(found[name], wanted[name])

    def test_random_choices_of_fields_in_any_order(self):
        packets, wanted = batch_of(PACKETS), expected(PACKETS)
        for _ in range(100):
            names = RNG.sample(NAMES, RNG.randrange(len(NAMES) + 1))
            found = packets.columns(names)
            assert found.dtype.names == tuple(names)
            assert all(np.array_equal(found[name], wanted[name]) for name in names)

    def test_no_field(self, batch):
        assert batch.columns([]).shape == (3,)
        assert batch.columns([]).dtype.names in (None, ())

    @pytest.mark.parametrize("make", [list, tuple, iter, np.array, dict.fromkeys])
    def test_fields_of_any_iterable(self, batch, make):
        found = batch.columns(make(["dst_port", "length"]))
        assert found.dtype.names == ("dst_port", "length")
        assert found["dst_port"].tolist() == [4000, 5000, 0]

    def test_the_five_tuple(self, batch):
        found = batch.columns(FIVE_TUPLE)
        assert found["protocol"].tolist() == [17, 6, 0]
        assert found["src4"].tolist() == [0x0A000001, 0, 0]
        assert [str(address) for address in addresses(found["src6"])] == ["::", "fd00::1", "::"]

    @pytest.mark.parametrize(
        ("fields", "error", "match"),
        [
            ("src_port", TypeError, r"fields is several names, such as \['src_port'\]"),
            (["src_port", "nonsense"], ValueError, "no field 'nonsense'; there are marks, length"),
            (["src_port", "src_port"], ValueError, "twice"),
            ([b"src_port"], ValueError, "no field b'src_port'"),
            ([["src_port"]], TypeError, "unhashable"),
            (b"src_port", ValueError, "no field 115"),
            ([None], ValueError, "no field None"),
            (5, TypeError, "not iterable"),
        ],
    )
    def test_fields_that_are_none(self, batch, fields, error, match):
        with pytest.raises(error, match=match):
            batch.columns(fields)
        with pytest.raises(error, match=match):
            Columns(3, fields)

    @pytest.mark.parametrize(
        ("options", "error"),
        [
            ({"seed": -1}, ValueError),
            ({"seed": 2**64}, ValueError),
            ({"seed": 1.0}, TypeError),
            ({"seed": True}, TypeError),
            ({"symmetric": 2}, TypeError),
            ({"symmetric": None}, TypeError),
            ({"out": 5}, TypeError),
            ({"out": b"12345678"}, TypeError),
            ({"out": [1, 2, 3]}, TypeError),
            ({"out": np.zeros(3)}, TypeError),
            ({"out": np.zeros((), DTYPE)[()]}, TypeError),
            ({"out": np.zeros(3, DTYPE), "fields": ["length"]}, ValueError),
        ],
    )
    def test_other_arguments_that_are_none(self, batch, options, error):
        with pytest.raises(error, match=next(reversed(options))):
            batch.columns(**options)

    def test_the_example_of_the_documentation(self):
        examples = doctest.DocTestFinder().find(PacketBatch.columns, "columns", globs={})
        assert [doctest.DocTestRunner().run(example).failed for example in examples] == [0]

    def test_a_table_is_the_caller_s(self, batch):
        first = batch.columns()
        batch.fill([THREE[1]])
        assert same(first, expected(THREE))
        assert not np.shares_memory(first, batch.columns())

    def test_dtype_of_everything(self, batch):
        assert batch.columns().dtype == DTYPE
        assert batch.columns(NAMES).dtype == DTYPE
        assert DTYPE.itemsize == _columns.ROW_SIZE
        ends = [0]
        for name in sorted(NAMES, key=lambda name: DTYPE.fields[name][1]):
            assert DTYPE.fields[name][1] >= ends[-1], "fields do not overlap"
            assert DTYPE.fields[name][1] % DTYPE[name].base.itemsize == 0, "a field is aligned"
            ends.append(DTYPE.fields[name][1] + DTYPE[name].itemsize)
        assert ends[-1] <= DTYPE.itemsize


def like(names, **options):
    return np.dtype({"names": list(names), "formats": [DTYPE[name] for name in names], **options})


def packed(names):
    """Fields next to each other, so that hardly one is aligned."""
    return np.dtype([(name, DTYPE[name]) for name in names])


SOME = ["src6", "length", "version", "flow_hash", "src_port", "marks"]
TABLES = {
    "all": DTYPE,
    "all packed": packed(NAMES),
    "all in another order": packed(list(reversed(NAMES))),
    "some": packed(SOME),
    "some, aligned": np.dtype(packed(SOME).descr, align=True),
    "one of a byte": packed(["ttl"]),
    "behind an odd place": like(SOME, offsets=[1, 17, 21, 23, 31, 33], itemsize=41),
    "as in DTYPE": like(SOME, offsets=[DTYPE.fields[name][1] for name in SOME], itemsize=DTYPE.itemsize),
    "all, and more room": like(
        NAMES, offsets=[DTYPE.fields[name][1] for name in NAMES], itemsize=DTYPE.itemsize + 8
    ),
    "of the caller's fields some": packed(SOME)[["version", "src6"]],
}


class TestOut:
    @pytest.mark.parametrize("name", TABLES)
    def test_a_table_of_some_fields(self, name):
        dtype = TABLES[name]
        out = np.empty(len(PACKETS) + 2, dtype)
        out.view(np.uint8)[:] = 0xA5
        filled = batch_of(PACKETS).columns(out=out)
        assert filled.shape == (len(PACKETS),)
        assert np.shares_memory(filled, out)
        wanted = expected(PACKETS)
        assert all(np.array_equal(filled[name], wanted[name]) for name in dtype.names)
        # Neither rows behind the last packet nor bytes between fields.
        raw = out.view(np.uint8).reshape(len(out), dtype.itemsize)
        assert (raw[len(PACKETS) :] == 0xA5).all()
        if dtype != DTYPE:
            others = set(range(dtype.itemsize))
            for name in dtype.names:
                others -= set(range(dtype.fields[name][1], dtype.fields[name][1] + dtype[name].itemsize))
            assert (raw[:, sorted(others)] == 0xA5).all()

    @pytest.mark.parametrize("dtype", [DTYPE, packed(SOME), packed(["ttl"])], ids=["all", "some", "one"])
    @pytest.mark.parametrize(
        "view",
        [
            lambda table: table[::2],
            lambda table: table[1::3],
            lambda table: table[::-1],
            lambda table: table[::-2],
            lambda table: table.reshape(-1, 4)[:, 1],
            lambda table: table.view(np.recarray),
            lambda table: np.ndarray(table.shape[0] - 1, table.dtype, table.view(np.uint8), offset=1),
        ],
        ids=[
            "every second",
            "every third",
            "backwards",
            "backwards twice",
            "a column",
            "records",
            "unaligned",
        ],
    )
    def test_a_view(self, dtype, view):
        memory = np.zeros(4 * len(PACKETS), dtype)
        out = view(memory)
        wanted = expected(PACKETS)
        filled = batch_of(PACKETS).columns(out=out)
        assert all(np.array_equal(filled[name], wanted[name]) for name in dtype.names)
        assert all(np.array_equal(out[: len(PACKETS)][name], wanted[name]) for name in dtype.names)
        written = np.zeros(4 * len(PACKETS), dtype)
        view(written)[: len(PACKETS)] = filled
        assert written.tobytes() == memory.tobytes() or dtype == DTYPE

    @pytest.mark.parametrize(
        "form",
        [
            [("length", "u2")],
            [("length", "i4")],
            [("length", ">u4" if sys.byteorder == "little" else "<u4")],
            [("length", "u4", 1)],
            [("length", "f4")],
            [("src6", "u1", 15)],
            [("src6", "u1", (4, 4))],
            [("src6", "S16")],
            [("src6", "u8", 2)],
            [("marks", [("bits", "u2")])],
            [("marks", "u2"), ("length", "O")],
        ],
    )
    def test_a_field_of_another_dtype(self, batch, form):
        before = np.zeros(3, form)
        out = before.copy()
        with pytest.raises(TypeError, match="must be of dtype"):
            batch.columns(out=out)
        assert (out == before).all()

    @pytest.mark.parametrize(
        "form", [[("nonsense", "u2")], [("length", "u4"), ("Length", "u4")], [("", "u2")]]
    )
    def test_a_field_of_another_name(self, batch, form):
        with pytest.raises(ValueError, match="no field"):
            batch.columns(out=np.zeros(3, form))

    @pytest.mark.parametrize("shape", [(), (3, 1), (1, 3), (3, 3, 3)])
    def test_another_number_of_dimensions(self, batch, shape):
        with pytest.raises(ValueError, match=f"out must have 1 dimension, not {len(shape)}"):
            batch.columns(out=np.zeros(shape, DTYPE))

    @pytest.mark.parametrize("rows", [0, 1, 2])
    def test_too_few_rows(self, batch, rows):
        out = np.zeros(rows, DTYPE)
        with pytest.raises(ValueError, match=f"the array has {rows} rows, the batch 3 packets"):
            batch.columns(out=out)
        assert not out["length"].any()
        columns = Columns(rows)
        with pytest.raises(ValueError, match=f"the columns have {rows} rows, the batch 3 packets"):
            batch.columns(out=columns)
        assert not columns["length"].any()

    def test_no_rows_for_no_packets(self):
        empty = PacketBatch(4, 100)
        assert empty.columns(out=np.zeros(0, DTYPE)).shape == (0,)
        assert len(empty.columns(out=Columns(0))["length"]) == 0

    def test_read_only(self, batch):
        out = np.zeros(3, DTYPE)
        out.flags.writeable = False
        with pytest.raises(ValueError, match="read-only"):
            batch.columns(out=out)
        assert not out["length"].any()

    def test_a_table_in_the_slots_themselves(self):
        """Where it lies over the packets it says what it likes, and breaks nothing."""
        size = DTYPE.itemsize
        memory = np.zeros((8, size), np.uint8)
        slots = PacketBatch.wrap(memory, np.full(8, size, np.int32))
        found = slots.columns(out=memory.reshape(-1).view(DTYPE))
        assert found["length"].tolist() == [size] * 8

    def test_a_table_in_the_lengths_themselves(self):
        lengths = np.zeros(300, np.int32)
        slots = PacketBatch.wrap(np.full((300, 40), 0x60, np.uint8), lengths)
        lengths[:] = 40
        found = slots.columns(out=lengths.view([("length", "u4")]))
        assert found["length"].tolist() == [40] * 300

    def test_many_dtypes(self, batch):
        """More than are remembered."""
        for names in itertools.islice(itertools.permutations(NAMES[:6]), 600):
            assert batch.columns(out=np.zeros(3, packed(names)))["length"].tolist() == [31, 60, 1]


class TestColumns:
    def test_are_filled_again_and_again(self):
        columns = Columns(len(PACKETS))
        arrays = dict(columns)
        for packets in (PACKETS, PACKETS[::-1]):
            assert batch_of(packets).columns(out=columns) is columns
            wanted = expected(packets)
            for name in NAMES:
                assert columns[name] is arrays[name]
                assert np.array_equal(columns[name], wanted[name])

    def test_are_a_mapping(self):
        columns = Columns(5, ["src6", "marks"])
        assert (list(columns), len(columns), columns.capacity) == (["src6", "marks"], 2, 5)
        assert (columns["src6"].shape, columns["src6"].dtype) == ((5, 16), np.uint8)
        assert (columns["marks"].shape, columns["marks"].dtype) == ((5,), np.uint16)
        assert "length" not in columns
        assert "5 rows: src6, marks" in repr(columns)
        with pytest.raises(KeyError):
            columns["length"]
        with pytest.raises(TypeError):
            columns["marks"] = np.zeros(5, np.uint16)

    def test_rows_behind_the_last_packet_are_left_alone(self, batch):
        columns = Columns(5)
        for array in columns.values():
            array.view(np.uint8)[:] = 0xA5
        batch.columns(out=columns)
        assert all((array[3:].view(np.uint8) == 0xA5).all() for array in columns.values())

    @pytest.mark.parametrize(
        ("capacity", "error"),
        [(-1, ValueError), (2**31, ValueError), (2**64, ValueError), (1.0, TypeError), (True, TypeError),
         ("4", TypeError), (None, TypeError), ((2, 2), TypeError)],
    )  # fmt: skip
    def test_a_capacity_that_is_none(self, capacity, error):
        with pytest.raises(error, match="capacity"):
            Columns(capacity, ["length"])

    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("view", [slice(None, None, 3), slice(None, None, -1), slice(1, None, -2)])
    def test_wrap_of_arrays_that_lie_apart(self, name, view):
        memory = np.zeros((3 * len(PACKETS), *DTYPE[name].shape), DTYPE[name].base)
        array = memory[view] if view != slice(1, None, -2) else memory[::-2]
        batch_of(PACKETS).columns(out=Columns.wrap({name: array[: len(PACKETS)]}))
        assert np.array_equal(array[: len(PACKETS)], expected(PACKETS)[name])

    def test_wrap_of_columns_of_a_matrix_and_of_bytes_of_addresses(self):
        ports, wide = np.zeros((len(PACKETS), 3), np.uint16), np.zeros((len(PACKETS), 40), np.uint8)
        both = Columns.wrap({"src_port": ports[:, 1], "dst6": wide[:, 20:36], "src6": wide[:, 3:19]})
        batch_of(PACKETS).columns(out=both)
        wanted = expected(PACKETS)
        assert np.array_equal(ports[:, 1], wanted["src_port"])
        assert not ports[:, [0, 2]].any()
        assert np.array_equal(wide[:, 20:36], wanted["dst6"])
        assert np.array_equal(wide[:, 3:19], wanted["src6"])
        assert not wide[:, [0, 1, 2, 19, *range(36, 40)]].any()

    def test_wrap_of_unaligned_arrays(self):
        wanted = expected(PACKETS)
        memory = np.zeros(8 * len(PACKETS) + 8, np.uint8)
        for name in ("flow_hash", "src4", "src_port"):
            array = np.ndarray(len(PACKETS), DTYPE[name], memory, offset=1)
            batch_of(PACKETS).columns(out={name: array})
            assert np.array_equal(array, wanted[name])

    def test_a_dict_is_wrapped(self, batch):
        arrays = {"length": np.zeros(3, np.uint32), "src_port": np.zeros(7, np.uint16)}
        filled = batch.columns(out=arrays)
        assert isinstance(filled, Columns)
        assert filled["length"] is arrays["length"]
        assert (filled.capacity, arrays["length"].tolist()) == (3, [31, 60, 1])
        assert arrays["src_port"].tolist() == [53, 80, 0, 0, 0, 0, 0]

    @pytest.mark.parametrize(
        ("arrays", "error", "match"),
        [
            ({"length": np.zeros(3, np.int32)}, TypeError, "dtype uint32, not int32"),
            ({"length": np.zeros(3, np.uint32).astype(np.dtype("u4").newbyteorder())}, TypeError, "dtype"),
            ({"length": [0, 0, 0]}, TypeError, "not list"),
            ({"length": memoryview(bytearray(12)).cast("I")}, TypeError, "not memoryview"),
            ({"length": np.uint32(3)}, TypeError, "not uint32"),
            ({"length": np.zeros((3, 1), np.uint32)}, ValueError, r"shape \(rows\)"),
            ({"length": np.zeros((), np.uint32)}, ValueError, "shape"),
            ({"src6": np.zeros(48, np.uint8)}, ValueError, r"shape \(rows, 16\)"),
            ({"src6": np.zeros((3, 15), np.uint8)}, ValueError, "shape"),
            ({"src6": np.zeros((3, 16, 1), np.uint8)}, ValueError, "shape"),
            ({"src6": np.zeros((3, 16), np.int8)}, TypeError, "dtype uint8"),
            ({"src6": np.zeros((3, 32), np.uint8)[:, ::2]}, ValueError, "together"),
            ({"src6": np.zeros((3, 16), np.uint8)[:, ::-1]}, ValueError, "together"),
            ({"src6": np.zeros((16, 3), np.uint8).T}, ValueError, "together"),
            ({"length": np.broadcast_to(np.uint32(0), 3)}, ValueError, "read-only"),
            ({"nonsense": np.zeros(3, np.uint32)}, ValueError, "no field"),
            ({5: np.zeros(3, np.uint32)}, ValueError, "no field 5"),
        ],
    )
    def test_what_cannot_be_wrapped(self, batch, arrays, error, match):
        with pytest.raises(error, match=match):
            Columns.wrap(arrays)
        with pytest.raises(error, match=match):
            batch.columns(out=arrays)

    def test_a_mapping_that_says_one_thing_and_then_another(self, batch):
        """What was checked is not what is held: that is looked at, too."""

        class Liar(collections.UserDict):
            def items(self):
                return [("src6", np.zeros((3, 16), np.uint8))]

        for array in (np.zeros(3, np.uint8), np.zeros((3, 15), np.uint8), np.zeros((48, 1, 1), np.uint8)):
            with pytest.raises(ValueError, match="not an array of this field"):
                Columns.wrap(Liar(src6=array))
        with pytest.raises(KeyError):
            Columns.wrap(Liar(nonsense=np.zeros(3, np.uint8)))
        with pytest.raises(ValueError, match="read-only"):
            Columns.wrap(Liar(length=np.broadcast_to(np.uint32(0), 3)))

    def test_a_row_of_one_array_for_all_packets(self, batch):
        """Strides of 0 are the caller's wish."""
        memory = np.zeros(1, np.uint32)
        batch.columns(out={"length": np.lib.stride_tricks.as_strided(memory, (3,), (0,))})
        assert memory.tolist() == [1]

    def test_memory_is_held(self, batch):
        columns = Columns.wrap({"length": np.zeros(3, np.uint32)})
        with pytest.raises(ValueError, match="resize"):
            columns["length"].resize(1000)
        batch.columns(out=columns)
        assert columns["length"].tolist() == [31, 60, 1]

    def test_the_shape_of_an_array_that_was_wrapped_is_no_matter(self, batch):
        array = np.zeros(4, np.uint32)
        columns = Columns.wrap({"length": array})
        view = array.reshape(2, 2)
        batch.columns(out=columns)
        assert view.tolist() == [[31, 60], [1, 0]]


class TestAddresses:
    def test_both_kinds(self):
        assert list(map(str, addresses(np.array([0x7F000001, 0], np.uint32)))) == ["127.0.0.1", "0.0.0.0"]
        six = np.array([[0] * 15 + [1], [255] * 16], np.uint8)
        assert list(map(str, addresses(six))) == ["::1", ":".join(["ffff"] * 8)]
        assert addresses(np.zeros(0, np.uint32)) == addresses(np.zeros((0, 16), np.uint8)) == []

    @pytest.mark.parametrize(
        "column",
        [
            np.zeros(3, np.int32),
            np.zeros(3, np.uint64),
            np.zeros((3, 4), np.uint8),
            np.zeros(16, np.uint8),
            [1],
            5,
        ],
    )
    def test_neither(self, column):
        with pytest.raises(TypeError, match="addresses are"):
            addresses(column)


class TestHostileSlots:
    """The arrays are the caller's, and whoever shares them."""

    LENGTHS = (-1, -(2**31), 0, 2**31 - 1, 101, 100, 99, 28, 27)

    @pytest.mark.parametrize("headroom", [0, 7])
    def test_lengths(self, headroom):
        packet = udp("10.0.0.1", "10.0.0.2", 53, 4000, b"x" * 72)
        data = np.zeros((len(self.LENGTHS), headroom + 100), np.uint8)
        data[:, headroom:] = np.frombuffer(packet, np.uint8)
        slots = PacketBatch.wrap(data, np.array(self.LENGTHS, np.int32), headroom)
        really = [min(max(length, 0), 100) for length in self.LENGTHS]
        assert same(slots.columns(), expected([packet[:length] for length in really]))
        assert slots.columns(["length"])["length"].tolist() == really

    def test_lengths_that_change_meanwhile(self):
        """Each is read once: what a row says of a packet is true of one of the two."""
        packets = [udp("10.0.0.1", "10.0.0.2", 53, 4000, b"x" * 72)] * 200
        data = np.tile(np.frombuffer(packets[0], np.uint8), (200, 1))
        lengths = np.full(200, 100, np.int32)
        slots = PacketBatch.wrap(data, lengths)
        is_over = threading.Event()

        def change():
            while not is_over.is_set():
                for length in (2**31 - 1, -(2**31), 20, 100):
                    lengths[:] = length

        thread = CallThread(change)
        try:
            allowed = {
                columns_twin.read(packets[0][:length])["payload_length"]: length for length in (0, 20, 100)
            }
            for _ in range(2000):
                found = slots.columns(["length", "payload_length"])
                assert {allowed[value] for value in found["payload_length"].tolist()} <= {0, 20, 100}
                assert set(found["length"].tolist()) <= {0, 20, 100}
        finally:
            is_over.set()
            thread.join(PATIENCE)
        assert thread.error is None

    def test_a_count_that_changes_meanwhile(self):
        """A table has as many rows as the batch had packets at one time, and each of them is filled."""
        slots = batch_of(PACKETS)
        wanted = expected(PACKETS)[["length", "flow_hash"]]
        is_over = threading.Event()

        def change():
            while not is_over.is_set():
                slots.count = 1
                slots.count = len(PACKETS)

        threads = [CallThread(change) for _ in range(2)]
        out = np.zeros(len(PACKETS), packed(["length", "flow_hash"]))
        columns = Columns(len(PACKETS), ["length", "flow_hash"])
        sizes = collections.Counter()
        try:
            for _ in range(3000):
                for found in (slots.columns(["length", "flow_hash"]), slots.columns(out=out)):
                    sizes[len(found)] += 1
                    assert found["length"].tolist() == wanted["length"][: len(found)].tolist()
                    assert found["flow_hash"].tolist() == wanted["flow_hash"][: len(found)].tolist()
                slots.columns(out=columns)
        finally:
            is_over.set()
            for thread in threads:
                thread.join(PATIENCE)
        assert [thread.error for thread in threads] == [None, None]
        assert set(sizes) <= {1, len(PACKETS)}

    def test_a_count_that_no_batch_has(self, batch):
        """The compiled function is not to trust even the module beside it."""
        for count in (-1, 4, 2**31 - 1):
            with pytest.raises(ValueError, match="the batch has 3 slots"):
                _columns.read_table(
                    batch, count, np.zeros(5, DTYPE), _columns.Plan({}, DTYPE.itemsize), False, 0
                )
            with pytest.raises(ValueError, match="the batch has 3 slots"):
                _columns.read_columns(batch, count, Columns(5)._memory, False, 0)

    def test_a_plan_for_another_array(self, batch):
        with pytest.raises(ValueError, match="not an array that this plan is for"):
            _columns.read_table(batch, 3, np.zeros(3, [("ttl", "u1")]), _columns.Plan({}, 8), False, 0)


def wide_batch(seed, count=4096):
    """So many packets that a pass over them takes a while."""
    rng = random.Random(seed)
    packets = [rng.choice(PACKETS) for _ in range(count)]
    return packets, batch_of(packets)


class TestThreads:
    def test_different_batches_at_once(self):
        given = [wide_batch(seed) for seed in range(4)]
        wanted = [expected(packets) for packets, _ in given]

        def fill(number):
            columns = Columns(4096)
            for _ in range(30):
                given[number][1].columns(out=columns)
            return columns

        threads = [CallThread(fill, number) for number in range(4)]
        for thread, table in zip(threads, wanted, strict=True):
            thread.join(PATIENCE)
            assert thread.error is None
            assert all(np.array_equal(thread.result[name], table[name]) for name in NAMES)

    def test_one_batch_by_many(self):
        packets, slots = wide_batch(9)
        wanted = expected(packets)
        plans = [SOME, ["length"], list(reversed(NAMES)), None]
        threads = [
            CallThread(lambda names=names: [slots.columns(names) for _ in range(20)]) for names in plans
        ]
        for thread in threads:
            thread.join(PATIENCE)
            assert thread.error is None
            for table in thread.result:
                assert all(np.array_equal(table[name], wanted[name]) for name in table.dtype.names)

    def test_others_run_meanwhile(self):
        """Without the GIL: a thread of Python code goes on while one long call is under way."""
        if not getattr(sys, "_is_gil_enabled", lambda: True)():
            pytest.skip("this Python has no GIL")
        count = 200_000
        slots = PacketBatch(count, 60)
        slots.data[:] = np.frombuffer(THREE[1], np.uint8)
        slots.lengths[:] = 60
        slots.count = count
        out = np.zeros(count, DTYPE)
        before = sys.getswitchinterval()
        sys.setswitchinterval(60)  # no thread is made to give way
        try:
            done = []
            thread = CallThread(lambda: (slots.columns(out=out), done.append(True)))
            seen = []
            while not seen and not done:
                seen.append(not done)
                out["length"][-1]
            thread.join(PATIENCE)
        finally:
            sys.setswitchinterval(before)
        assert thread.error is None
        assert out["length"][-1] == 60
        assert seen == [True]


class TestLayer:
    @pytest.mark.parametrize("kind", [Tun, Tap, aio.Tun, aio.Tap])
    def test_of_what_a_pair_receives(self, kind):
        is_frame = issubclass(kind, Tap)
        packet = udp("10.0.0.1", "10.0.0.2", 53, 4000)
        if is_frame:
            packet = ethernet("02:00:00:00:00:01", "02:00:00:00:00:02", packet)
        one, other = pair(kind)
        batch = other.batch(4)
        batch.layer = 3 if is_frame else 2
        if issubclass(kind, (aio.Tun, aio.Tap)):

            async def exchange():
                async with one, other:
                    await one.send(packet)
                    return await other.recv_batch(batch, timeout=PATIENCE)

            asyncio.run(exchange())
        else:
            with one, other:
                one.send(packet)
                other.recv_batch(batch, timeout=PATIENCE)
        assert batch.layer == (2 if is_frame else 3)
        assert batch.columns(["src_port"])["src_port"].tolist() == [53]

    def test_a_batch_that_serves_both(self):
        batch = PacketBatch(4, 1600)
        packet = udp("10.0.0.1", "10.0.0.2", 53, 4000)
        ends = {kind: pair(kind) for kind in (Tun, Tap)}
        for kind in (Tun, Tap, Tun):
            one, other = ends[kind]
            one.send(packet if kind is Tun else ethernet("02:00:00:00:00:01", "02:00:00:00:00:02", packet))
            other.recv_batch(batch, timeout=PATIENCE)
            assert batch.layer == (3 if kind is Tun else 2)
            assert batch.columns(["dst_port"])["dst_port"].tolist() == [4000]
        for one, other in ends.values():
            one.close()
            other.close()

    @pytest.mark.parametrize("kind", [Tun, Tap])
    def test_of_a_descriptor(self, kind):
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with here, kind.from_fd(there.detach()) as device:
            here.send(b"\x45" + bytes(40))
            batch = device.batch(2)
            device.recv_batch(batch, timeout=PATIENCE)
            assert batch.layer == (3 if kind is Tun else 2)

    @pytest.mark.parametrize("kind", [Tun, Tap])
    @pytest.mark.parametrize("how", ["open", "queues", "added", "split", "superpackets", "coroutines"])
    def test_of_a_real_device(self, net, kind, how):
        options = {"queues": 2} if how == "queues" else {"offload": {"split": True}.get(how, how)}
        options = options if how in ("queues", "split", "superpackets") else {}
        if how == "added":
            options = {"queues": 2}
        wanted = 3 if kind is Tun else 2
        source, target = ("10.9.7.1", "10.9.7.2")

        def provoke(device):
            """Packets of the kernel: of a TAP those that ask who has the address."""
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                for _ in range(20):
                    client.sendto(b"x", (target, 9))

        if how == "coroutines":

            async def receive():
                async with {Tun: aio.Tun, Tap: aio.Tap}[kind](addresses=[f"{source}/24"]) as device:
                    batch = device.batch(8)
                    batch.layer = 5 - wanted
                    provoke(device)
                    await device.recv_batch(batch, timeout=PATIENCE)
                    return batch

            batches = [asyncio.run(receive())]
        else:
            with kind(addresses=[f"{source}/24"], **options) as device:
                queues = [device.add_queue(), *device.queues] if how == "added" else device.queues
                batches = []
                for queue in queues:
                    batch = queue.batch(8)
                    batch.layer = 5 - wanted
                    batches.append(batch)
                    provoke(device)
                    try:
                        queue.recv_batch(batch, timeout=0.05)
                    except TimeoutError:
                        batches.pop()
        assert batches, "no queue received anything"
        assert {batch.layer for batch in batches} == {wanted}

    def test_of_what_is_split_and_coalesced(self):
        segments = [tcp("fd00::1", "fd00::2", 1, 2, b"y" * 500, seq=500 * i) for i in range(4)]
        batch, super_packets = PacketBatch(8, 1500), PacketBatch(8, 65535)
        batch.fill(segments)
        super_packets.layer = 2
        offload.coalesce_into(batch, super_packets)
        assert super_packets.layer == 3
        found = super_packets.columns(["payload_length", "src_port"])
        assert (found["payload_length"].tolist(), found["src_port"].tolist()) == ([2000], [1])
        batch.layer = 2
        offload.split_into(super_packets[0], super_packets.headers[0], batch)
        assert batch.layer == 3
        assert batch.columns(["tcp_seq"])["tcp_seq"].tolist() == [0, 500, 1000, 1500]

    def test_at_first_and_as_it_is_set(self, batch):
        assert batch.layer == 3
        assert PacketBatch.wrap(np.zeros((2, 20), np.uint8), np.zeros(2, np.int32)).layer == 3
        batch.layer = np.int64(2)
        assert batch.layer == 2
        batch.fill(THREE)
        assert batch.layer == 2

    @pytest.mark.parametrize("layer", [0, 1, 4, -1, 2**31, 2**64, -(2**64)])
    def test_a_layer_that_is_none(self, batch, layer):
        with pytest.raises(ValueError, match="layer must be 2 to 3"):
            batch.layer = layer
        assert batch.layer == 3

    @pytest.mark.parametrize("layer", [2.0, "2", None, b"\2", Tun])
    def test_a_layer_of_a_wrong_type(self, batch, layer):
        with pytest.raises(TypeError):
            batch.layer = layer
        assert batch.layer == 3


def flows_of(count, seed):
    """Packets of different flows, as a server sees them: few addresses and ports, close together."""
    rng = random.Random(seed)
    chosen = set()
    while len(chosen) < count:
        chosen.add((rng.randrange(400), rng.randrange(1024, 1024 + 2000)))
    return sorted(chosen)


def hashes_of(version, flows, **options):
    """Without building each packet from nothing."""
    packet = udp("10.0.0.0", "10.9.0.1", 1, 443) if version == 4 else udp("fd00::", "fd09::1", 1, 443)
    slots = PacketBatch(len(flows), len(packet))
    slots.fill([packet] * len(flows))
    hosts, ports = np.array(flows).T
    at = 14 if version == 4 else 22
    slots.data[:, at : at + 2] = hosts.astype(">u2")[:, None].view(np.uint8)
    at = 20 if version == 4 else 40
    slots.data[:, at : at + 2] = ports.astype(">u2")[:, None].view(np.uint8)
    return slots, slots.columns(["flow_hash"], **options)["flow_hash"]


def answers_to(slots, version):
    """The same batch, its packets on the way back."""
    size, start, ports = (4, 12, 20) if version == 4 else (16, 8, 40)
    slots.data[:, start : start + 2 * size] = np.roll(slots.data[:, start : start + 2 * size], size, axis=1)
    slots.data[:, ports : ports + 4] = np.roll(slots.data[:, ports : ports + 4], 2, axis=1)
    return slots


class TestFlowHash:
    FLOWS = flows_of(100_000, 1)

    @pytest.mark.parametrize("version", [4, 6])
    def test_both_directions(self, version):
        slots, there = hashes_of(version, self.FLOWS, symmetric=True)
        plain = slots.columns(["flow_hash"])["flow_hash"]
        answers_to(slots, version)
        assert (slots.columns(["flow_hash"], symmetric=True)["flow_hash"] == there).all()
        assert (slots.columns(["flow_hash"])["flow_hash"] != plain).all()

    @pytest.mark.parametrize("version", [4, 6])
    @pytest.mark.parametrize("symmetric", [False, True])
    @pytest.mark.parametrize("seed", [0, 1, 2**64 - 1])
    def test_no_more_meet_than_chance_allows(self, version, symmetric, seed):
        """In any 16 bits, and in buckets of any number, as one spreads flows over threads."""
        _, found = hashes_of(version, self.FLOWS, symmetric=symmetric, seed=seed)
        count = len(found)
        assert len(np.unique(found)) == count
        for shift in (0, 16, 32, 48):
            used = len(np.unique(found >> np.uint64(shift) & np.uint64(0xFFFF)))
            mean = 65536 * (1 - np.exp(-count / 65536))
            assert abs(used - mean) < 600, (shift, used, mean)  # 5 standard deviations are 590
        for buckets in (2, 3, 7, 8, 64, 1000):
            sizes = np.bincount((found % np.uint64(buckets)).astype(np.int64), minlength=buckets)
            chi_squared = float(((sizes - count / buckets) ** 2).sum() / (count / buckets))
            assert chi_squared < buckets + 5 * (2 * buckets) ** 0.5, (buckets, chi_squared)

    def test_a_seed_changes_who_meets_whom(self):
        by_seed = [hashes_of(4, self.FLOWS, seed=seed)[1] & np.uint64(0xFFFF) for seed in (1, 2)]
        first, second = (set(self.pairs(found)) for found in by_seed)
        assert len(first) > 1000
        assert len(first & second) < 20

    def pairs(self, found):
        """Neighbours of equal low bits."""
        order = np.argsort(found, kind="stable")
        equal = found[order][1:] == found[order][:-1]
        return zip(order[:-1][equal].tolist(), order[1:][equal].tolist(), strict=True)

    def test_the_seed_is_all_that_differs(self):
        wanted = [
            expected(PACKETS, seed=seed, symmetric=symmetric)
            for seed in (7, 2**63)
            for symmetric in (False, True)
        ]
        packets = batch_of(PACKETS)
        for table, (seed, symmetric) in zip(
            wanted, itertools.product((7, 2**63), (False, True)), strict=True
        ):
            assert same(packets.columns(seed=seed, symmetric=symmetric), table)
            columns = packets.columns(out=Columns(len(PACKETS)), seed=seed, symmetric=symmetric)
            assert np.array_equal(columns["flow_hash"], table["flow_hash"])

    def test_none_without_an_ip_header(self):
        frames = batch_of(
            [b"\x45", bytes(20), ethernet("02:00:00:00:00:01", "02:00:00:00:00:02", b"", ethertype=0x806)], 2
        )
        assert frames.columns(["flow_hash"])["flow_hash"].tolist() == [0, 0, 0]

    def test_icmp_has_a_flow_too(self):
        found = batch_of([icmp_echo("10.0.0.1", "10.0.0.2", i, i) for i in range(4)]).columns(["flow_hash"])
        assert len(set(found["flow_hash"].tolist())) == 1


def test_marks_are_what_the_kernel_says():
    assert {mark.name: mark.value for mark in Mark} == _columns.MARKS
    assert Mark(batch_of(THREE).columns(["marks"])["marks"][0]) == Mark.IP | Mark.TRANSPORT
