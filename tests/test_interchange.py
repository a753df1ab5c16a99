"""What other libraries make of a batch and its columns: the same memory where that is possible, and right."""

import gc
import ipaddress
import mmap
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuntap import PacketBatch, columns, interchange, testing
from tuntap.columns import DTYPE, Columns

NUMBERS = [name for name in DTYPE.names if not DTYPE[name].shape]
# Around 4 and 12 bytes, where Arrow's views of binary values change.
LENGTHS = [1, 3, 4, 5, 11, 12, 13, 16, 99, 100]


def library(name):
    return pytest.importorskip(name, reason=f"{name} is not installed here (group interchange)")


@pytest.fixture(scope="session")
def pa():
    return library("pyarrow")


@pytest.fixture(scope="session")
def pd():
    return library("pandas")


@pytest.fixture(scope="session")
def pl():
    library("pyarrow")
    polars = library("polars")
    polars.DataFrame({"a": [1]}).group_by("a").len()  # opens descriptors that are no test's leak
    return polars


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="torch is not installed, which takes gigabytes: in no group")


@pytest.fixture
def jax():
    return pytest.importorskip("jax", reason="jax is not installed: in no group")


def traffic(count, first_port=1000):
    """Packets that differ in every column that matters, of IPv4 and IPv6 in turn."""
    hosts = [("10.0.0.{}", "10.0.1.{}"), ("fd00::{}", "fd01::{}")]
    return [
        testing.udp(*(host.format(i + 1) for host in hosts[i % 2]), first_port + i, 53, bytes([i]) * i)
        for i in range(count)
    ]


def filled(packets, capacity=64, slot_size=200, headroom=0):
    batch = PacketBatch(capacity, slot_size, headroom)
    batch.fill(packets)
    return batch


def raw(lengths):
    return [bytes((i * 7 + k) % 256 for k in range(length)) for i, length in enumerate(lengths)]


def plain(table, rows):
    """Columns as lists of what Python has for their values."""
    return {
        name: table[name][:rows].tolist()
        if name in NUMBERS
        else [address.tobytes() for address in table[name][:rows]]
        for name in DTYPE.names
    }


def address(array):
    return array.__array_interface__["data"][0]


class TestImports:
    def test_none_is_imported_before_its_use(self):
        program = (
            "import sys, numpy, tuntap, tuntap.testing\n"
            "batch = tuntap.PacketBatch(4, 100)\n"
            "batch.columns(out=tuntap.columns.Columns(4))\n"
            "numpy.from_dlpack(batch)\n"
            "assert tuntap.interchange.to_arrow\n"
            "print({'pyarrow', 'pandas', 'polars', 'torch', 'jax'} & set(sys.modules))"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert done.stdout == "set()\n"

    @pytest.mark.parametrize(
        ("missing", "extra", "function"),
        [
            ("pyarrow", "arrow", interchange.to_arrow),
            ("pyarrow", "arrow", interchange.packets_to_arrow),
            ("pandas", "pandas", interchange.to_pandas),
            ("polars", "polars", interchange.to_polars),
        ],
    )
    def test_what_is_missing_says_how_to_get_it(self, monkeypatch, missing, extra, function):
        monkeypatch.setitem(sys.modules, missing, None)
        with pytest.raises(ModuleNotFoundError, match=rf"pip install 'tuntap\[{extra}\]'") as caught:
            function(PacketBatch(1, 1) if function is interchange.packets_to_arrow else Columns(1))
        assert caught.value.name == missing

    def test_nothing_to_copy_from_either(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        with pytest.raises(ModuleNotFoundError, match="tuntap"):
            interchange.from_arrow([b"x"], PacketBatch(1, 1))

    def test_a_library_that_lacks_another_is_not_called_missing(self, monkeypatch, tmp_path):
        (tmp_path / "polars.py").write_text("import something_of_polars")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "polars", raising=False)
        with pytest.raises(ModuleNotFoundError, match="something_of_polars") as caught:
            interchange.to_polars(Columns(1))
        assert "pip install" not in str(caught.value)


class TestMemory:
    """Arrow recommends arrays that begin at a multiple of 64 bytes; JAX copies others."""

    @pytest.mark.parametrize("capacity", [1, 2, 3, 64, 1000])
    def test_arrays_are_aligned(self, capacity):
        for slot_size in (1, 17, 63, 64, 65, 1500, 65550):
            assert address(PacketBatch(capacity, slot_size).data) % 64 == 0
            assert address(PacketBatch(capacity, slot_size, 10).buffer) % 64 == 0
        assert all(address(array) % 64 == 0 for array in Columns(capacity).values())

    def test_new_columns_are_zero(self):
        np.full(100_000, 255, np.uint8)  # memory that somebody used before
        assert not any(array.any() for array in Columns(777).values())

    @pytest.mark.parametrize("capacity", [-1, -64, 2**31, True, 1.0, "4", None])
    def test_a_capacity_that_is_none(self, capacity):
        with pytest.raises((ValueError, TypeError), match="capacity"):
            Columns(capacity)


class TestCount:
    """How many rows of columns mean something."""

    def test_is_what_was_filled_last(self):
        table = Columns(64)
        assert table.count == 0
        for count in (5, 64, 3, 0):
            assert filled(traffic(count)).columns(out=table) is table
            assert (table.count, table.capacity) == (count, 64)

    def test_of_arrays_of_the_callers_is_all_until_they_are_filled(self):
        table = Columns.wrap({"src4": np.zeros(9, np.uint32), "ttl": np.zeros(7, np.uint8)})
        assert table.count == 7
        filled(traffic(2)).columns(out=table)
        assert table.count == 2

    def test_stays_when_a_batch_does_not_fit(self):
        table = Columns(4)
        filled(traffic(3)).columns(out=table)
        with pytest.raises(ValueError):
            filled(traffic(5)).columns(out=table)
        assert table.count == 3

    def test_is_not_the_callers_to_set(self):
        with pytest.raises(AttributeError):
            Columns(4).count = 3


@pytest.fixture(scope="session", params=[("to_arrow", "pa"), ("to_pandas", "pd"), ("to_polars", "pl")])
def convert(request):
    """Each of the functions that take a table."""
    function, needs = request.param
    request.getfixturevalue(needs)
    return getattr(interchange, function)


def as_lists(result):
    """What is in a record batch or a frame."""
    if hasattr(result, "to_pydict"):
        return result.to_pydict()
    return result.to_dict("list") if hasattr(result, "iloc") else result.to_dict(as_series=False)


class TestEveryTable:
    @pytest.mark.parametrize("count", [0, 1, 2, 33, 64])
    @pytest.mark.parametrize("headroom", [0, 10])
    def test_every_field_of_columns_and_of_a_structured_array(self, convert, count, headroom):
        packets = traffic(count)
        batch = filled(packets, headroom=headroom)
        table = batch.columns()
        expected = plain(table, count)
        assert as_lists(convert(table)) == expected
        assert as_lists(convert(batch.columns(out=Columns(64)))) == expected
        expected["packet"] = packets
        assert as_lists(convert(table, packets=batch)) == expected
        assert as_lists(convert(table, packets=batch, copy=True)) == expected

    def test_some_fields_in_the_order_in_which_they_were_asked_for(self, convert):
        batch = filled(traffic(3))
        names = ["dst_port", "src6", "length"]
        for table in (batch.columns(names), batch.columns(out=Columns(3, names))):
            assert list(as_lists(convert(table))) == names

    def test_arrays_of_ones_own_beside_the_columns(self, convert):
        batch = filled(traffic(3))
        table = {**batch.columns(out=Columns(3, ["src_port"])), "score": np.array([0.5, 1.5, 2.5, 3.5])}
        assert as_lists(convert(table)) == {"src_port": [1000, 1001, 1002], "score": [0.5, 1.5, 2.5]}

    @pytest.mark.parametrize("shape", [(3, 2), (3, 16), (3, 2, 2)])
    def test_a_column_that_is_none(self, convert, shape):
        with pytest.raises(TypeError, match="column 'score'"):
            convert({"score": np.zeros(shape, np.float32)})

    def test_the_headers_of_super_packets(self, convert):
        assert as_lists(convert(filled([b"x"] * 2).headers, 2)) == {
            name: [0, 0] for name in ("flags", "gso_type", "hdr_len", "gso_size", "csum_start", "csum_offset")
        }

    def test_a_count(self, convert):
        batch = filled(traffic(8))
        for table in (batch.columns(["src_port"]), batch.columns(out=Columns(64, ["src_port"]))):
            assert as_lists(convert(table, 3))["src_port"] == [1000, 1001, 1002]
            assert as_lists(convert(table, 0))["src_port"] == []
            assert len(as_lists(convert(table, np.int16(3), packets=batch))["packet"]) == 3

    def test_rows_behind_the_last_packet_are_not_told(self, convert):
        table = filled(traffic(8)).columns(out=Columns(64, ["src_port"]))
        filled(traffic(2, 7)).columns(out=table)
        assert as_lists(convert(table)) == {"src_port": [7, 8]}
        assert as_lists(convert(table, 3)) == {"src_port": [7, 8, 1002]}  # unless they are asked for

    @pytest.mark.parametrize("count", [-1, 65, 2**64, True, 1.0, "3"])
    def test_a_count_that_is_none(self, convert, count):
        with pytest.raises((ValueError, TypeError), match="count"):
            convert(Columns(64), count)

    @pytest.mark.parametrize(
        "table",
        [None, 3, [], "src4", np.zeros(4), np.zeros((2, 2), DTYPE), np.zeros((), DTYPE), PacketBatch(1, 1)],
        ids=lambda table: f"{type(table).__name__}{np.shape(table)}",
    )
    def test_what_is_no_table(self, convert, table):
        with pytest.raises(TypeError, match="a table"):
            convert(table)

    @pytest.mark.parametrize("flag", [None, "yes", 2, 1.0])
    def test_a_copy_that_is_neither(self, convert, flag):
        with pytest.raises(TypeError, match="copy"):
            convert(Columns(64), copy=flag)

    def test_as_many_packets_as_rows(self, convert):
        batch = filled(traffic(8))
        table = batch.columns(out=Columns(64))
        batch.count = 7
        with pytest.raises(ValueError, match="the table has 8 rows, the batch 7 packets"):
            convert(table, packets=batch)
        with pytest.raises(ValueError, match="8 rows"):
            convert(table, 8, packets=batch)
        batch.count = 9
        with pytest.raises(ValueError, match="9 packets"):
            convert(table, packets=batch)
        assert len(as_lists(convert(table, 8, packets=batch))["packet"]) == 8

    def test_rows_that_lie_apart_and_crooked(self, convert):
        crooked = np.frombuffer(bytearray(4 * 8 + 1), np.uint8)[1:].view(np.uint32)
        assert not crooked.flags.aligned
        table = Columns.wrap(
            {
                "src4": crooked,
                "src_port": np.zeros((8, 3), np.uint16)[:, 1],
                "dst_port": np.zeros(8, np.uint16)[::-1],
                "src6": np.zeros((8, 48), np.uint8)[:, 16:32],
            }
        )
        batch = filled(traffic(5))
        batch.columns(out=table)
        expected = plain(batch.columns(), 5)
        assert as_lists(convert(table)) == {name: expected[name] for name in table}

    def test_a_copy_stays_as_it_is(self, convert):
        batch = filled(traffic(8))
        table = batch.columns(out=Columns(64))
        result = convert(table, packets=batch, copy=True)
        before = as_lists(result)
        for array in table.values():
            array[:] = 255
        batch.buffer[:] = 255
        assert as_lists(result) == before

    def test_without_a_copy_it_shows_what_comes_next(self, convert):
        table = filled(traffic(8)).columns(out=Columns(64, ["src_port", "src4"]))
        result = convert(table)
        filled(traffic(8, 5000)).columns(out=table)
        assert as_lists(result)["src_port"] == list(range(5000, 5008))

    def test_it_keeps_the_memory_alive(self, convert):
        memory = mmap.mmap(-1, 4096)
        table = Columns.wrap({"src_port": np.frombuffer(memory, np.uint16, 64)})
        filled(traffic(8)).columns(out=table)
        result = convert(table)
        del table
        gc.collect()
        with pytest.raises(BufferError):
            memory.close()
        assert as_lists(result)["src_port"] == list(range(1000, 1008))
        del result
        gc.collect()
        memory.close()


class TestArrow:
    def test_types(self, pa):
        schema = interchange.to_arrow(Columns(1)).schema
        assert schema.names == list(DTYPE.names)
        for name in DTYPE.names:
            number = pa.from_numpy_dtype(DTYPE[name]) if name in NUMBERS else pa.binary(16)
            assert schema.field(name).type == number

    def test_columns_are_the_same_memory(self, pa):
        table = filled(traffic(8)).columns(out=Columns(64))
        result = interchange.to_arrow(table)
        result.validate(full=True)
        for name, array in table.items():
            assert result.column(name).buffers()[1].address == address(array), name

    def test_a_copy_is_not(self, pa):
        table = filled(traffic(8)).columns(out=Columns(64))
        result = interchange.to_arrow(table, copy=True)
        for name, array in table.items():
            assert result.column(name).buffers()[1].address != address(array), name

    def test_whoever_takes_capsules_takes_columns_and_batches(self, pa):
        packets = traffic(8)
        batch = filled(packets)
        table = batch.columns(out=Columns(64))
        for made in (pa.record_batch(table), pa.table(table)):
            assert made.to_pydict() == plain(table, 8)
        assert address(table["src4"]) == pa.record_batch(table)["src4"].buffers()[1].address
        assert pa.array(batch).to_pylist() == packets
        assert pa.array(batch).buffers()[2].address == address(batch.data)


def shared_slots(array, batch):
    """Whether an Arrow array of packets points into the batch, all of it that is no view."""
    return [buffer.address for buffer in array.buffers()[2:]] == [address(batch.buffer)]


class TestPacketsToArrow:
    @pytest.mark.parametrize("headroom", [0, 1, 10])
    @pytest.mark.parametrize("slot_size", [1, 3, 4, 11, 12, 13, 16, 100])
    def test_around_what_fits_a_view(self, pa, slot_size, headroom):
        packets = raw(length for length in LENGTHS if length <= slot_size)
        batch = filled(packets, 16, slot_size, headroom)
        batch.data[batch.count :] = 255
        array = interchange.packets_to_arrow(batch)
        array.validate(full=True)
        assert array.type == pa.binary_view()
        assert array.to_pylist() == packets
        assert shared_slots(array, batch)

    @given(lengths=st.lists(st.integers(-5, 60), min_size=1, max_size=9), headroom=st.integers(0, 9))
    def test_lengths_that_lie(self, lengths, headroom):
        library("pyarrow")
        slots = np.random.default_rng(1).integers(0, 256, (len(lengths), headroom + 40), np.uint8)
        batch = PacketBatch.wrap(slots, np.array(lengths, np.int32), headroom)
        for copy in (False, True):
            array = interchange.packets_to_arrow(batch, copy=copy)
            array.validate(full=True)
            assert array.to_pylist() == [
                row[headroom:][: max(length, 0)].tobytes() for row, length in zip(slots, lengths, strict=True)
            ]

    def test_lengths_as_far_off_as_they_can_be(self, pa):
        batch = filled(raw([50, 50]))
        batch.lengths[:2] = [2**31 - 1, -(2**31)]
        array = interchange.packets_to_arrow(batch)
        array.validate(full=True)
        assert array.to_pylist() == [batch.data[0].tobytes(), b""]

    def test_no_packets(self, pa):
        for copy in (False, True):
            array = interchange.packets_to_arrow(PacketBatch(4, 100), copy=copy)
            array.validate(full=True)
            assert (len(array), array.type) == (0, pa.large_binary() if copy else pa.binary_view())

    @pytest.mark.parametrize("count", [-1, 4, True, "1"])
    def test_a_count_that_is_none(self, pa, count):
        batch = filled(raw([50, 60, 70]))
        assert len(interchange.packets_to_arrow(batch, 2)) == 2
        with pytest.raises((ValueError, TypeError), match="count"):
            interchange.packets_to_arrow(batch, count)

    @pytest.mark.parametrize("headroom", [0, 10])
    def test_several_buffers(self, pa, headroom, monkeypatch):
        packets = raw(LENGTHS * 3)
        batch = filled(packets, slot_size=100, headroom=headroom)
        for end in (1, 109, 110, 111, 329, 330, 331, 1000, 3299, 3300, 3301):
            monkeypatch.setattr(interchange, "OFFSET_END", end)
            array = interchange.packets_to_arrow(batch)
            array.validate(full=True)
            assert array.to_pylist() == packets
            memory = array.buffers()[2:]
            assert all(buffer.size <= max(end, 100 + headroom) for buffer in memory)
            assert [address(batch.buffer), *(b.address + b.size for b in memory)] == [
                *(b.address for b in memory),
                address(batch.buffer) + 30 * (100 + headroom),
            ]

    def test_more_than_an_offset_reaches(self, pa, tmp_path):
        slot_size = 2**30 - 7
        slots = np.memmap(tmp_path / "sparse", np.uint8, "w+", shape=(5, slot_size + 7))
        packets = raw([13, 5, 100, 40, 50])
        batch = PacketBatch.wrap(slots, np.zeros(5, np.int32), headroom=7)
        batch.fill(packets)
        array = interchange.packets_to_arrow(batch)
        array.validate(full=True)
        assert array.to_pylist() == packets
        assert [buffer.size for buffer in array.buffers()[2:]] == [2**31, 2**31, 2**30]
        assert interchange.packets_to_arrow(batch, copy=True).to_pylist() == packets

    def test_a_copy_has_no_more_than_the_packets(self, pa):
        batch = filled(raw([50, 60, 70]), slot_size=65536)
        array = interchange.packets_to_arrow(batch, copy=True)
        assert array.type == pa.large_binary()
        assert array.nbytes < 1000
        batch.buffer[:] = 0
        assert array.to_pylist() == raw([50, 60, 70])

    def test_it_keeps_the_slots_alive(self, pa):
        memory = mmap.mmap(-1, 4096)
        batch = PacketBatch.wrap(memoryview(memory).cast("B", (4, 1024)), np.zeros(4, np.int32))
        batch.fill(raw([50, 60]))
        array = interchange.packets_to_arrow(batch)
        del batch
        gc.collect()
        with pytest.raises(BufferError):
            memory.close()
        assert array.to_pylist() == raw([50, 60])
        del array
        gc.collect()
        memory.close()

    def test_of_a_device(self, pa):
        left, right = testing.pair()
        with left, right:
            batch = PacketBatch(8, 40, headroom=4)
            packets = [testing.udp("10.0.0.1", "10.0.0.2", 1, port, b"x" * 30) for port in (5, 6)]
            left.send(packets[0])
            assert right.recv_batch(batch) == 1
            array = interchange.packets_to_arrow(batch)
            assert batch.truncated == (0,)
            assert array.to_pylist() == [packets[0][:40]]
            left.send(packets[1])
            assert right.recv_batch(batch) == 1
            assert array.to_pylist() == [packets[1][:40]]  # as documented, the slots are the same

    @pytest.mark.parametrize("kind", ["binary", "large_binary"])
    def test_types_that_more_is_done_with_are_a_cast_away(self, pa, kind):
        packets = raw(LENGTHS)
        array = interchange.packets_to_arrow(filled(packets)).cast(kind)
        assert array.take(pa.array([2, 1])).to_pylist() == [packets[2], packets[1]]


class TestFromArrow:
    @pytest.mark.parametrize("kind", ["binary", "large_binary", "binary_view"])
    @pytest.mark.parametrize("headroom", [0, 10])
    def test_every_type_of_binary_values(self, pa, kind, headroom):
        packets = raw(LENGTHS)
        array = pa.array(packets, getattr(pa, kind)())
        batch = PacketBatch(10, 100, headroom)
        for values, expected in [
            (array, packets),
            (array[3:7], packets[3:7]),
            (array[4:4], []),
            (pa.chunked_array([array[:2], array[2:2], array[5:]]), packets[:2] + packets[5:]),
            (pa.chunked_array([], array.type), []),
        ]:
            assert interchange.from_arrow(values, batch) == len(expected)
            assert [packet.tobytes() for packet in batch] == expected

    def test_values_of_one_size(self, pa):
        batch = PacketBatch(4, 100)
        interchange.from_arrow(pa.array([b"abcd", b"efgh"], pa.binary(4)), batch)
        assert [packet.tobytes() for packet in batch] == [b"abcd", b"efgh"]

    def test_a_series_of_polars(self, pl):
        batch = PacketBatch(16, 100)
        interchange.from_arrow(pl.Series(raw(LENGTHS)), batch)
        assert [packet.tobytes() for packet in batch] == raw(LENGTHS)

    def test_a_column_goes_there_and_back(self, pa):
        batch = filled(traffic(8))
        result = interchange.to_arrow(batch.columns(), packets=batch)
        other = PacketBatch(8, 300, 12)
        assert interchange.from_arrow(result["packet"], other) == 8
        assert [packet.tobytes() for packet in other] == traffic(8)
        assert (other.columns() == batch.columns()).all()

    def test_from_its_own_slots_in_another_order(self, pa):
        batch = filled(raw(LENGTHS))
        array = interchange.packets_to_arrow(batch)
        interchange.from_arrow(pa.chunked_array([array[i : i + 1] for i in range(len(array))][::-1]), batch)
        assert [packet.tobytes() for packet in batch] == raw(LENGTHS)[::-1]

    def test_it_is_a_copy(self, pa):
        packets = pa.array(raw([50]))
        batch = PacketBatch(1, 100)
        interchange.from_arrow(packets, batch)
        batch.buffer[:] = 0
        assert packets.to_pylist() == raw([50])

    def test_headers_are_those_of_ordinary_packets(self, pa):
        batch = PacketBatch(4, 100)
        batch.headers["gso_size"] = 7
        interchange.from_arrow(pa.array([b"x", b"y"]), batch)
        assert batch.headers["gso_size"].tolist() == [0, 0, 7, 7]

    @pytest.mark.parametrize(
        ("values", "error"),
        [
            ([b"x"] * 5, "more packets than the batch has slots"),
            ([b"x"] * 100_000, "more packets than the batch has slots"),
            ([b"x", b"x" * 101], "packet 1 is 101 bytes"),
            ([b"x", b""], "packet 1 is 0 bytes"),
            ([b"x", None], "not NoneType"),
            ([None], "not NoneType"),
            (["x"], "not str"),
            ([1], "not int"),
            ([[1, 2]], "not list"),
        ],
        ids=lambda value: repr(value)[:20],
    )
    def test_what_does_not_fit_leaves_the_batch_empty(self, pa, values, error):
        batch = filled([b"before"], 4, 100)
        with pytest.raises((ValueError, TypeError), match=error):
            interchange.from_arrow(pa.array(values), batch)
        assert batch.count == 0

    @pytest.mark.parametrize("nonsense", [None, 3, object()])
    def test_what_is_no_array(self, pa, nonsense):
        with pytest.raises((TypeError, ValueError)):
            interchange.from_arrow(nonsense, PacketBatch(4, 100))


class TestPandas:
    def test_numbers_are_the_same_memory(self, pd):
        batch = filled(traffic(8))
        for table in (batch.columns(), batch.columns(out=Columns(64))):
            frame = interchange.to_pandas(table)
            for name in NUMBERS:
                assert frame[name].dtype == DTYPE[name]
                assert address(frame[name].to_numpy()) == address(table[name]), name

    def test_a_copy_is_not(self, pd):
        table = filled(traffic(8)).columns(out=Columns(64))
        frame = interchange.to_pandas(table, copy=True)
        for name in NUMBERS:
            assert not np.shares_memory(frame[name].to_numpy(), table[name]), name

    def test_addresses_are_what_ipaddress_takes(self, pd):
        batch = filled(traffic(2))
        frame = interchange.to_pandas(batch.columns(["src6"]))
        assert ipaddress.IPv6Address(frame["src6"][1]) == ipaddress.IPv6Address("fd00::2")
        assert columns.addresses(batch.columns(["src6"])["src6"])[1] == ipaddress.IPv6Address("fd00::2")

    def test_it_groups_by_flow(self, pd):
        batch = filled(traffic(4) * 3)
        frame = interchange.to_pandas(batch.columns(out=Columns(64, columns.FIVE_TUPLE)))
        assert frame.groupby(list(columns.FIVE_TUPLE)).size().tolist() == [3] * 4

    def test_what_is_done_to_the_frame_does_not_reach_the_columns(self, pd):
        table = filled(traffic(8)).columns(out=Columns(64))
        frame = interchange.to_pandas(table)
        frame["src_port"] = 0
        del frame["dst_port"]
        assert table["src_port"][:8].tolist() == list(range(1000, 1008))


class TestPolars:
    def test_numbers_are_the_same_memory(self, pl):
        table = filled(traffic(8)).columns(out=Columns(64))
        frame = interchange.to_polars(table)
        for name in NUMBERS:
            array = frame[name].to_numpy(allow_copy=False)
            assert array.dtype == DTYPE[name]
            assert address(array) == address(table[name]), name

    def test_packets_are_the_slots(self, pl):
        batch = filled(traffic(8), headroom=10)
        frame = interchange.to_polars(batch.columns(["length"]), packets=batch)
        assert frame.schema["packet"] == pl.Binary
        series = frame["packet"].to_arrow(compat_level=pl.CompatLevel.newest())
        assert shared_slots(series, batch)

    def test_a_copy_is_not(self, pl, pa):
        batch = filled(traffic(8))
        table = batch.columns(out=Columns(64))
        frame = interchange.to_polars(table, packets=batch, copy=True)
        for name in NUMBERS:
            assert not np.shares_memory(frame[name].to_numpy(allow_copy=False), table[name]), name
        series = frame["packet"].to_arrow(compat_level=pl.CompatLevel.newest())
        assert series.type == pa.binary_view()
        assert not shared_slots(series, batch)

    def test_it_groups_by_flow(self, pl):
        batch = filled(traffic(4) * 3)
        frame = interchange.to_polars(batch.columns(out=Columns(64, columns.FIVE_TUPLE)))
        assert frame.group_by(columns.FIVE_TUPLE).len()["len"].to_list() == [3] * 4

    def test_a_batch_is_a_series(self, pl):
        batch = filled(traffic(3))
        assert pl.Series(batch).to_list() == traffic(3)


class TestArrays:
    """numpy's own, which need nothing else."""

    @pytest.mark.parametrize("headroom", [0, 10])
    def test_dlpack_is_the_data(self, headroom):
        batch = filled(raw(LENGTHS), headroom=headroom)
        array = np.from_dlpack(batch)
        assert (array.shape, array.dtype, array.strides) == (batch.data.shape, np.uint8, batch.data.strides)
        assert address(array) == address(batch.data)
        batch.data[3, 5] = 77
        assert array[3, 5] == 77

    def test_it_keeps_the_memory_alive(self):
        memory = mmap.mmap(-1, 4096)
        batch = PacketBatch.wrap(memoryview(memory).cast("B", (4, 1024)), np.zeros(4, np.int32))
        array = np.from_dlpack(batch)
        del batch
        gc.collect()
        with pytest.raises(BufferError):
            memory.close()
        del array
        gc.collect()
        memory.close()

    @pytest.mark.parametrize("headroom", [0, 10])
    def test_an_array_of_a_batch_is_the_data(self, headroom):
        # Packets of one size were once an array of the packets, and of several an error.
        batch = filled([b"xyz"] * 3, 4, 10, headroom)
        assert np.asarray(batch).shape == (4, 10)
        assert address(np.asarray(batch)) == address(batch.data)
        assert not np.shares_memory(np.array(batch), batch.data)
        assert np.asarray(batch, np.float32).dtype == np.float32
        np.asarray(batch)[0, 0] = 7
        assert batch[0][0] == 7

    def test_a_memoryview_is_that_of_the_data(self):
        batch = filled(raw([5]), headroom=10)
        view = memoryview(batch.data)
        assert (view.shape, view.strides, view.readonly) == ((64, 200), (210, 1), False)
        view[0, 0] = 99
        assert batch[0][0] == 99
        with pytest.raises(TypeError):
            memoryview(batch)


class TestTorch:
    @pytest.mark.parametrize("headroom", [0, 10])
    def test_a_batch_is_the_same_memory(self, torch, headroom):
        batch = filled(raw(LENGTHS), headroom=headroom)
        tensor = torch.from_dlpack(batch)
        assert (tensor.shape, tensor.dtype) == (batch.data.shape, torch.uint8)
        assert tensor.data_ptr() == address(batch.data)
        tensor[0, 0] = 77
        assert batch.data[0, 0] == 77
        del batch
        gc.collect()
        assert tensor[0, 0] == 77

    def test_columns_are_the_same_memory(self, torch):
        batch = filled(traffic(8))
        for table in (batch.columns(), batch.columns(out=Columns(64))):
            for name in DTYPE.names:
                array = table[name]
                tensor = torch.from_dlpack(array)
                assert str(tensor.dtype) == f"torch.{array.dtype}"
                assert tensor.data_ptr() == address(array), name
                assert tensor.tolist() == array.tolist()

    def test_packets_arrive_in_a_tensor(self, torch):
        slots = torch.zeros((8, 1500), dtype=torch.uint8)
        lengths = torch.zeros(8, dtype=torch.int32)
        batch = PacketBatch.wrap(slots.numpy(), lengths.numpy())
        left, right = testing.pair()
        with left, right:
            [packet] = traffic(1)
            left.send(packet)
            assert right.recv_batch(batch) == 1
        assert lengths[0] == len(packet)
        assert bytes(slots[0, : len(packet)].tolist()) == packet


class TestJAX:
    def test_a_batch_is_the_same_memory(self, jax):
        batch = filled(raw(LENGTHS))
        array = jax.dlpack.from_dlpack(batch)
        assert (array.shape, array.dtype) == (batch.data.shape, np.uint8)
        assert array.unsafe_buffer_pointer() == address(batch.data)

    def test_rows_that_lie_apart_cannot_be(self, jax):
        for array in (filled(raw(LENGTHS), headroom=10), filled(traffic(8)).columns()["src4"]):
            with pytest.raises(jax.errors.JaxRuntimeError, match="striding"):
                jax.dlpack.from_dlpack(array)

    def test_columns_are_the_same_memory(self, jax):
        for name, array in filled(traffic(8)).columns(out=Columns(64)).items():
            if array.dtype != np.uint64:  # which JAX makes 32 bits wide, unless it is told to be wide itself
                assert jax.dlpack.from_dlpack(array).unsafe_buffer_pointer() == address(array), name
