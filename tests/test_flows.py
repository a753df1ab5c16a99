"""FlowTable: exact counts of each flow, beside a twin that is a dict."""

import doctest
import ipaddress
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tuntap
from tuntap import flows, testing
from tuntap.columns import DTYPE, Columns, Mark
from tuntap.flows import FIELDS, FlowTable, endpoints

OTHERS = set(FIELDS) - {"length", "version"}


def column_rows(packets):
    """Columns of (version, protocol, source, destination, ports, length, marks)."""
    rows = np.zeros(len(packets), [(name, DTYPE[name]) for name in FIELDS])
    for row, (version, protocol, source, destination, src_port, dst_port, length, marks) in zip(
        rows, packets, strict=True
    ):
        row["version"], row["protocol"], row["length"], row["marks"] = version, protocol, length, marks
        row["src_port"], row["dst_port"] = src_port, dst_port
        if version == 4:
            row["src4"], row["dst4"] = source, destination
        elif version == 6:
            for name, address in (("src6", source), ("dst6", destination)):
                row[name] = np.frombuffer(address.to_bytes(16, "big"), np.uint8)
    return rows


def key_of(packet):
    version, protocol, source, destination, src_port, dst_port, _, marks = packet
    if marks & Mark.FRAGMENT:
        src_port = dst_port = 0
    if version not in (4, 6):
        source = destination = 0
    return version, protocol, source, destination, src_port, dst_port


class Twin:
    """The same, one packet after the other."""

    def __init__(self):
        self.flows = {}  # key: [packets, bytes, first, last]

    def add(self, packets, times):
        for packet, time in zip(packets, times, strict=True):
            self.count(key_of(packet), 1, packet[6], time, time)

    def count(self, key, packets, size, first, last):
        found = self.flows.setdefault(key, [0, 0, first, last])
        found[0] += packets
        found[1] += size
        found[2], found[3] = min(found[2], first), max(found[3], last)

    def conversations(self):
        """Sets of ends: {(source, destination, ...): numbers both ways, first, last}, where no two tie."""
        found = {}
        for key, (packets, size, first, last) in self.flows.items():
            back = reverse(key)
            if back == key or back not in self.flows:
                found[key] = (packets, size, 0, 0, first, last)
                continue
            reply_packets, reply_size, reply_first, reply_last = self.flows[back]
            if (first, -key[4]) < (reply_first, -back[4]):
                found[key] = (packets, size, reply_packets, reply_size, first, max(last, reply_last))
        return found


def reverse(key):
    version, protocol, source, destination, src_port, dst_port = key
    return version, protocol, destination, source, dst_port, src_port


def row_key(row):
    if row["version"] == 6:
        source, destination = (int.from_bytes(row[name].tobytes(), "big") for name in ("src6", "dst6"))
    else:
        source, destination = int(row["src4"]), int(row["dst4"])
    return (
        int(row["version"]), int(row["protocol"]), source, destination,
        int(row["src_port"]), int(row["dst_port"]),
    )  # fmt: skip


def contents(table):
    rows = table.to_table()
    found = {row_key(row): [int(row[name]) for name in ("packets", "bytes", "first", "last")] for row in rows}
    assert len(found) == len(rows) == len(table), "a flow is there twice"
    order = [(-size, first) for size, first in rows[["bytes", "first"]].tolist()]
    assert order == sorted(order)
    return found


def both_ways(table):
    rows = table.conversations()
    names = ("packets", "bytes", "reply_packets", "reply_bytes", "first", "last")
    found = {row_key(row): tuple(int(row[name]) for name in names) for row in rows}
    assert len(found) == len(rows)
    sizes = (rows["bytes"] + rows["reply_bytes"]).tolist()
    assert sizes == sorted(sizes, reverse=True)
    return found


# Few values, so that flows meet again and differ in one field only, at either end of it.
ADDRESSES4 = st.sampled_from([0, 1, 2**31, 2**32 - 1])
ADDRESSES6 = st.sampled_from([0, 1, 1 << 63, 1 << 64, 1 << 127, 2**128 - 1])
PORTS = st.sampled_from([0, 1, 53, 255, 256, 65535])
LENGTHS = st.integers(1, 2**32 - 1)
MARKS = st.sampled_from([Mark.IP, Mark.IP | Mark.TRANSPORT, Mark.IP | Mark.FRAGMENT | Mark.TRANSPORT])
PROTOCOLS = st.sampled_from([0, 1, 6, 17, 255])
PACKETS = st.one_of(
    st.tuples(st.just(4), PROTOCOLS, ADDRESSES4, ADDRESSES4, PORTS, PORTS, LENGTHS, MARKS),
    st.tuples(st.just(6), PROTOCOLS, ADDRESSES6, ADDRESSES6, PORTS, PORTS, LENGTHS, MARKS),
    st.tuples(*[st.just(0)] * 6, LENGTHS, st.just(Mark.TRUNCATED)),
)
TIMES = st.integers(-(2**63), 2**63 - 1)
BATCHES = st.lists(st.lists(st.tuples(PACKETS, TIMES), max_size=15), max_size=3)


def fill(batches, table=None, twin=None):
    table, twin = table or FlowTable(), twin or Twin()
    for batch in batches:
        packets, times = [packet for packet, _ in batch], [time for _, time in batch]
        table.add(column_rows(packets), np.array(times, np.int64))
        twin.add(packets, times)
    return table, twin


@pytest.fixture(params=["a good hash", "a bad hash"])
def hashes(request, monkeypatch):
    """What hashes have in common must not matter, nor when rows are brought together: now and then."""
    monkeypatch.setattr(flows, "_PENDING", 10)
    if request.param == "a bad hash":
        good = flows._hash
        monkeypatch.setattr(flows, "_hash", lambda key: good(key) & np.uint64(1))


@pytest.mark.usefixtures("hashes")
class TestCounts:
    def test_agree_with_the_twin(self):
        @given(BATCHES)
        def check(batches):
            table, twin = fill(batches)
            assert contents(table) == twin.flows
            assert table.packets == sum(map(len, batches))
            assert table.bytes == sum(packet[6] for batch in batches for packet, _ in batch)
            assert table.forgotten == (0, 0, 0)

        check()

    def test_of_both_directions_agree_with_the_twin(self):
        @given(BATCHES)
        def check(batches):
            table, twin = fill(batches)
            found, expected = both_ways(table), twin.conversations()
            for key in found.keys() - expected.keys():  # both came at the same time, from the same port
                numbers = found.pop(key)
                assert twin.flows[key][2] == twin.flows[reverse(key)][2]
                assert key[4] == key[5]
                assert list(numbers[:4]) == twin.flows[key][:2] + twin.flows[reverse(key)][:2]
            assert found == expected

        check()

    def test_merged_are_those_of_one_table(self):
        @given(BATCHES, BATCHES, BATCHES)
        def check(one, two, three):
            tables = [fill(batches)[0] for batches in (one, two, three)]
            before = [contents(table) for table in tables]
            total = FlowTable().merge(*tables)
            assert contents(total) == fill(one + two + three)[1].flows
            # Neither the order nor where they are brought together matters, and nothing is shared.
            assert contents(FlowTable().merge(tables[2].merge(tables[0]), tables[1])) == contents(total)
            assert [contents(tables[0]), contents(tables[1])] == before[:2]

        check()

    def test_survive_a_pickle(self):
        @given(BATCHES, BATCHES)
        def check(one, two):
            table, twin = fill(one)
            copy = pickle.loads(pickle.dumps(table))
            assert contents(fill(two, copy, twin)[0]) == twin.flows
            assert contents(table) == fill(one)[1].flows

        check()

    def test_bounded_are_the_newest_and_nothing_is_lost_from_the_totals(self):
        @given(st.lists(st.lists(PACKETS, max_size=20), max_size=6), st.integers(1, 8))
        def check(batches, max_flows):
            table, last = FlowTable(max_flows), {}
            now = size = 0
            for batch in batches:
                times = np.arange(now, now + len(batch))
                table.add(column_rows(batch), times)
                last.update(zip(map(key_of, batch), times.tolist(), strict=True))
                size += sum(packet[6] for packet in batch)
                now += len(batch)
            found = contents(table)
            newest = sorted(last, key=last.get)[-max_flows:]
            assert {key: counts[3] for key, counts in found.items()} == {key: last[key] for key in newest}
            forgotten = table.forgotten
            assert forgotten.packets + sum(counts[0] for counts in found.values()) == table.packets == now
            assert forgotten.bytes + sum(counts[1] for counts in found.values()) == table.bytes == size
            assert forgotten.flows >= len(last) - len(found)
            assert (forgotten.flows == 0) == (len(last) <= max_flows)
            merged = FlowTable(1).merge(table, table)
            assert (merged.packets, merged.bytes, len(merged)) == (2 * now, 2 * size, min(now, 1))

        check()


class TestRealPackets:
    def test_are_counted_as_they_came(self):
        batch = tuntap.PacketBatch(8, 200)
        batch.fill(
            [
                testing.udp("10.0.0.1", "10.0.0.2", 4000, 53, b"x"),
                testing.udp("fd00::1", "fd00::2", 4000, 53, b"x"),
                testing.udp("10.0.0.2", "10.0.0.1", 53, 4000, bytes(100)),
                testing.udp("10.0.0.1", "10.0.0.2", 4000, 53, b"xyz"),
                testing.tcp("10.0.0.1", "10.0.0.2", 4000, 53, b""),
                testing.icmp_echo("10.0.0.1", "10.0.0.2", 1, 1, b""),
                b"\xff" * 20,
            ]
        )
        table = FlowTable()
        table.add(batch.columns(FIELDS), 5)
        rows = table.to_table()
        assert [(*endpoints(row), *row[["protocol", "packets", "bytes"]].item()) for row in rows] == [
            ("10.0.0.2:53", "10.0.0.1:4000", 17, 1, 128),
            ("10.0.0.1:4000", "10.0.0.2:53", 17, 2, 60),
            ("[fd00::1]:4000", "[fd00::2]:53", 17, 1, 49),
            ("10.0.0.1:4000", "10.0.0.2:53", 6, 1, 40),
            ("10.0.0.1", "10.0.0.2", 1, 1, 28),
            ("-", "-", 0, 1, 20),
        ]
        [first, *_] = table.conversations()
        assert endpoints(first) == ("10.0.0.1:4000", "10.0.0.2:53"), "who has the higher port"
        assert first[["packets", "bytes", "reply_packets", "reply_bytes"]].item() == (2, 60, 1, 128)

    def test_parts_of_a_packet_are_one_flow(self):
        whole = testing.udp("10.0.0.1", "10.0.0.2", 4000, 53, bytes(64))
        parts = []
        for offset, more, payload in ((0, 1, whole[20:52]), (32, 0, whole[52:])):
            fragment = (more << 13 | offset // 8).to_bytes(2, "big")
            header = bytearray(whole[:20])
            header[2:4] = (20 + len(payload)).to_bytes(2, "big")
            header[6:8] = fragment
            parts.append(bytes(header) + payload)
        batch = tuntap.PacketBatch(2, 200)
        batch.fill(parts)
        assert batch.columns(["src_port"])["src_port"].tolist() == [4000, 0]
        table = FlowTable()
        table.add(batch.columns(FIELDS))
        [row] = table.to_table()
        assert (endpoints(row), row["packets"]) == (("10.0.0.1", "10.0.0.2"), 2)

    def test_preallocated_columns(self):
        batch, columns = tuntap.PacketBatch(8, 200), Columns(8)
        batch.fill([testing.udp("10.0.0.1", "10.0.0.2", 1, 2, b"")] * 8)
        batch.columns(out=columns)
        batch.fill([testing.udp("10.0.0.1", "10.0.0.2", 1, 3, b"")] * 3)
        table = FlowTable()
        table.add(batch.columns(out=columns))
        table.add(dict(columns), np.arange(100), count=1)
        assert [(row["dst_port"], row["packets"]) for row in table.to_table()] == [(3, 4)]
        table.add(columns, count=0)
        assert table.packets == 4

    def test_the_columns_are_copied(self):
        batch = tuntap.PacketBatch(1, 200)
        batch.fill([testing.udp("10.0.0.1", "10.0.0.2", 1, 2, b"")])
        columns, table = batch.columns(FIELDS), FlowTable()
        table.add(columns)
        columns["dst_port"] = 9
        assert table.to_table()["dst_port"].tolist() == [2]
        table.to_table()["packets"] = 7
        assert table.packets == 1


def test_many_batches_of_many_flows_stay_exact():
    """Through all the times at which rows are brought together, as they come about by themselves."""
    random = np.random.default_rng(1)
    table, counts = FlowTable(), np.zeros(20_000, int)
    rows = np.zeros(1000, [(name, DTYPE[name]) for name in FIELDS])
    rows["version"], rows["protocol"], rows["length"] = 6, 17, 100
    for _ in range(60):
        numbers = random.integers(0, 20_000, 1000)
        rows["dst6"][:, 14], rows["dst6"][:, 15] = numbers >> 8, numbers & 255
        np.add.at(counts, numbers, 1)
        table.add(rows)
    found = table.to_table()
    numbers = found["dst6"][:, 14].astype(int) << 8 | found["dst6"][:, 15]
    assert np.array_equal(np.bincount(numbers, found["packets"], 20_000), counts)
    assert table.bytes == 6_000_000
    assert len(found) == np.count_nonzero(counts)


def test_a_bounded_table_does_not_grow():
    rows = np.zeros(500, [(name, DTYPE[name]) for name in FIELDS])
    rows["version"], table = 4, FlowTable(1000)
    for i in range(200):
        rows["src4"] = np.arange(i * 500, (i + 1) * 500)
        table.add(rows, i)
        table.add(rows[:0])
        assert sum(map(len, table._pending)) + len(table._rows) <= 1000 + flows._PENDING + 500
        assert all(map(len, table._pending))
    assert (len(table), table.packets, table.forgotten.flows) == (1000, 100_000, 99_000)
    assert sorted(table.to_table()["src4"]) == list(range(99_000, 100_000))


def test_counts_beyond_32_bits():
    table = FlowTable()
    table.add(column_rows([(4, 6, 1, 2, 3, 4, 2**32 - 1, Mark.IP)] * 3), 2**62)
    for _ in range(20):
        table.merge(table)
    assert (table.packets, table.bytes) == (3 * 2**20, 3 * 2**20 * (2**32 - 1))
    assert len(table) == 1


def test_a_pickle_has_each_flow_once():
    table = FlowTable()
    table.add(column_rows([(4, 6, 1, 2, 3, 4, 60, Mark.IP)] * 1000))
    assert len(pickle.dumps(table)) < 1000


def test_nothing():
    for table in (FlowTable(), FlowTable().merge(), FlowTable().merge(FlowTable(3))):
        assert (len(table), table.packets, table.bytes) == (0, 0, 0)
        assert table.to_table().dtype == flows.FLOW
        assert table.conversations().dtype == flows.CONVERSATION
        assert len(table.to_table()) == len(table.conversations()) == 0
    assert repr(table) == "<FlowTable of 0 flows, 0 packets, 0 bytes>"


def test_without_times_it_is_now():
    table = FlowTable()
    rows = column_rows([(4, 6, 1, 2, 3, 4, 60, Mark.IP)])
    before = tuntap.flows.time.time_ns()
    table.add(rows)
    [row] = table.to_table()
    assert before <= row["first"] == row["last"] <= tuntap.flows.time.time_ns()


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ValueError, "no column length, version", lambda t, r: t.add({name: r[name] for name in OTHERS})),
        (ValueError, "no column marks", lambda t, r: t.add(np.zeros(3))),
        (ValueError, "count must be 0 to 2, not 3", lambda t, r: t.add(r, count=3)),
        (ValueError, r"timestamps of shape \(1,\) are not those of 2 packets", lambda t, r: t.add(r, [1])),
        (ValueError, r"timestamps of shape \(2, 1\)", lambda t, r: t.add(r, [[1], [2]])),
        (TypeError, "timestamps must be of int64, not float64", lambda t, r: t.add(r, 1.5)),
        (ValueError, "max_flows must be", lambda t, r: FlowTable(0)),
        (TypeError, "max_flows must be", lambda t, r: FlowTable("many")),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_and_nothing_is_counted(error, message, call):
    table = FlowTable()
    with pytest.raises(error, match=message):
        call(table, column_rows([(4, 6, 1, 2, 3, 4, 60, Mark.IP)] * 2))
    assert table.packets == 0


@given(ADDRESSES6, PORTS, PORTS)
def test_ends_are_as_people_write_them(address, src_port, dst_port):
    [row] = column_rows([(6, 17, address, 1, src_port, dst_port, 60, 0)])
    source, destination = endpoints(row)
    text = str(ipaddress.IPv6Address(address))
    assert source == (f"[{text}]:{src_port}" if src_port or dst_port else text)
    assert destination == (f"[::1]:{dst_port}" if src_port or dst_port else "::1")


def test_what_the_documentation_says_holds():
    result = doctest.testmod(flows)
    assert result.attempted > 5
    assert result.failed == 0
