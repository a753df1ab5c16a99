"""`fix_checksums`, `update` and `build` of a batch: what people write, what goes wrong, what it leaves."""

import contextlib
import ipaddress
import threading

import numpy as np
import pytest
from threads import CallThread

from tuntap import PacketBatch, offload, testing
from tuntap.columns import DTYPE, Columns

UPDATABLE = {
    "eth_src", "eth_dst", "vlan", "vlan_priority", "dscp", "ecn", "flow_label", "ip_id", "ttl", "src4",
    "dst4", "src6", "dst6", "src_port", "dst_port", "tcp_seq", "tcp_ack", "tcp_flags", "tcp_window",
    "icmp_id", "icmp_seq",
}  # fmt: skip
BUILDABLE = UPDATABLE | {"version", "protocol", "ip_flags", "icmp_type", "icmp_code", "payload_length"}
BITS = {
    "eth_src": 48, "eth_dst": 48, "vlan": 12, "vlan_priority": 3, "dscp": 6, "ecn": 2, "flow_label": 20,
    "ip_flags": 3, "tcp_flags": 12,
}  # fmt: skip
PACKETS = [
    testing.udp("10.0.0.1", "10.0.0.2", 7, 9, b"datagram"),
    testing.tcp("10.0.0.3", "10.0.0.4", 70, 90, b"segment", seq=5, ack=6),
    testing.icmp_echo("10.0.0.5", "10.0.0.6", 700, 900, b"echo"),
    testing.udp("fd00::1", "fd00::2", 7, 9, b"datagram"),
    testing.tcp("fd00::3", "fd00::4", 70, 90, b"segment", seq=5, ack=6),
    testing.icmp_echo("fd00::5", "fd00::6", 700, 900, b"echo"),
]
UDP4 = {"src4": "10.0.0.1", "dst4": "10.0.0.2", "protocol": 17, "src_port": 7, "dst_port": 9}


def filled(packets=PACKETS, **settings):
    batch = PacketBatch(len(packets) + 2, 200, **settings)
    batch.buffer[:] = 0xA5
    batch.fill(packets)
    return batch


def contents(batch):
    return [packet.tobytes() for packet in batch]


def everything(batch):
    """All that a call may change."""
    return batch.buffer.tobytes(), batch.lengths.tobytes(), batch.headers.tobytes(), batch.count


def is_right(packet):
    batch = PacketBatch(1, 2000)
    batch.fill([packet])
    return batch.fix_checksums() == 1 and batch[0].tobytes() == packet


@pytest.fixture(params=[0, 14])
def batch(request):
    return filled(headroom=request.param)


class TestFix:
    def test_checksums_follow_what_was_written(self, batch):
        batch.data[:3, 8] = 9
        batch.data[3:6, 7] = 9
        batch.data[:3, 12:16] = [192, 0, 2, 1]
        batch.data[3:6, 8:24] = 1
        batch.data[[0, 3], [28, 48]] = ord("D")
        assert batch.fix_checksums() == 6
        expected = [
            testing.udp("192.0.2.1", "10.0.0.2", 7, 9, b"Datagram"),
            testing.tcp("192.0.2.1", "10.0.0.4", 70, 90, b"segment", seq=5, ack=6),
            testing.icmp_echo("192.0.2.1", "10.0.0.6", 700, 900, b"echo"),
            testing.udp("101:" * 7 + "101", "fd00::2", 7, 9, b"Datagram"),
            testing.tcp("101:" * 7 + "101", "fd00::4", 70, 90, b"segment", seq=5, ack=6),
            testing.icmp_echo("101:" * 7 + "101", "fd00::6", 700, 900, b"echo"),
        ]
        view = PacketBatch(6, 200)
        view.fill(expected)
        view.update({"ttl": 9})
        assert contents(batch) == contents(view)
        assert all(map(is_right, contents(batch)))

    def test_only_those_that_are_meant(self, batch):
        mask = [True, False, False, False, True, False]
        for where, count in ((mask, 2), ([4, 0], 2), (np.array([0, 4, 4], np.uint8), 3)):
            batch.fill(PACKETS)
            for i, at in enumerate([26, 36, 22, 46, 56, 42]):
                batch.data[i, at : at + 2] = 1
            before = contents(batch)
            assert batch.fix_checksums(where) == count
            assert contents(batch) == [PACKETS[0], *before[1:4], PACKETS[4], before[5]]
        assert batch.fix_checksums([]) == 0
        assert batch.fix_checksums([False] * 6) == 0

    def test_where_must_be_packets(self, batch):
        before = everything(batch)
        for where, error in (
            ([6], IndexError), ([-1], IndexError), ([True] * 5, ValueError), ([True] * 8, ValueError),
            ([0.0], TypeError), ("0", TypeError), ([[0]], ValueError), (slice(2), TypeError),
        ):  # fmt: skip
            with pytest.raises(error):
                batch.fix_checksums(where)
            with pytest.raises(error):
                batch.update({"ttl": 3}, where=where)
        assert everything(batch) == before

    def test_frames_are_frames_by_the_layer(self):
        frames = [testing.ethernet("02:00:00:00:00:01", "02:00:00:00:00:02", packet) for packet in PACKETS]
        batch = filled(frames)
        assert batch.fix_checksums() == 0
        assert contents(batch) == frames
        batch.layer = 2
        batch.data[:3, 24:26] = 0
        assert batch.fix_checksums() == 6
        assert contents(batch) == frames

    def test_an_empty_batch(self):
        batch = PacketBatch(4, 100)
        assert batch.fix_checksums() == batch.fix_checksums([]) == 0
        assert batch.update({"ttl": 3}) == batch.update({"ttl": []}) == batch.update({"src6": ()}) == 0
        assert batch.update(np.zeros(0, [("ttl", "u1")])) == 0

    @pytest.mark.parametrize("length", [-(2**31), -1, 0, 1, 19, 20, 27, 29, 100, 101, 2**31 - 1])
    def test_hostile_lengths(self, length):
        packet = testing.udp("10.0.0.1", "10.0.0.2", 7, 9, b"x" * 72)
        memory = np.full((3, 100), 0xA5, np.uint8)
        memory[1] = np.frombuffer(packet, np.uint8)
        batch = PacketBatch.wrap(memory, np.array([0, length, 0], np.int32))
        memory[1, 10:12] = memory[1, 26:28] = 0
        assert batch.fix_checksums() == (length >= 100)
        assert (memory[[0, 2]] == 0xA5).all()
        assert memory[1].tobytes()[12:26] == packet[12:26]
        assert (memory[1].tobytes() == packet) == (length >= 100)
        updated = batch.update({"src4": 0x0A000001})
        assert updated == 2 + (not 20 <= length < 28)
        assert batch.lengths.tolist() == [0, length, 0]


class TestUpdate:
    def test_all_fields_of_a_table(self, batch):
        """A table that `columns` has filled is written back as it is, with or without changes."""
        table = batch.columns(sorted(UPDATABLE - {"eth_src", "eth_dst", "vlan", "vlan_priority"}))
        assert batch.update(table) == 6
        assert contents(batch) == PACKETS
        table["ttl"] -= 1
        table["src_port"] += 1
        table["src4"] += 256
        table["icmp_id"] ^= 0xFFFF
        assert batch.update(table) == 6
        found = batch.columns()
        changed = table.copy()
        for name in ("src4",):
            changed[name][3:] = 0
        for name in ("src_port",):
            changed[name][[2, 5]] = 0
        changed["icmp_id"][[0, 1, 3, 4]] = 0
        for name in table.dtype.names:
            assert found[name].tolist() == changed[name].tolist(), name
        assert all(map(is_right, contents(batch)))

    def test_some_fields_of_a_table_of_all(self, batch):
        table = batch.columns()
        table["src4"][:3] = [1, 2, 3]
        table["ttl"] = 7
        table["dst_port"] = 1
        assert batch.update(table[["src4", "ttl"]]) == 6
        assert batch.columns()["src4"].tolist() == [1, 2, 3, 0, 0, 0]
        assert batch.columns()["dst_port"].tolist() == [9, 90, 0, 9, 90, 0]
        assert batch.update(table, fields=["dst_port"]) == 6
        assert batch.columns()["dst_port"].tolist() == [1, 1, 0, 1, 1, 0]
        assert batch.columns()["ttl"].tolist() == [7] * 6
        assert all(map(is_right, contents(batch)))

    def test_a_table_of_all_cannot_be_written_back(self, batch):
        with pytest.raises(ValueError, match="'marks' cannot be written into a packet"):
            batch.update(batch.columns())
        assert contents(batch) == PACKETS

    def test_columns_that_are_preallocated(self, batch):
        columns = Columns(20, ["ttl", "src6", "dst_port"])
        batch.columns(out=columns)
        columns["ttl"][:6] = range(6)
        columns["src6"][:6] = 3
        assert batch.update(columns) == 6
        assert batch.columns()["ttl"].tolist() == list(range(6))
        assert batch.columns()["src6"].tolist() == [[0] * 16] * 3 + [[3] * 16] * 3
        assert all(map(is_right, contents(batch)))

    @pytest.mark.parametrize(
        "values",
        [
            3, True, np.uint8(3), np.int64(3), np.array(3), [3] * 6, (3,) * 6, range(3, 9), [3],
            np.array([3]),
            np.full(6, 3, ">i4"), np.full(6, 3, np.uint64), np.full(12, 3, np.int16)[::2], np.arange(8)[::-1],
            np.full((6, 5), 3, np.uint8)[:, 2], np.broadcast_to(np.uint8(3), 6), [True] * 6, np.full(100, 3),
            np.full(6, 3, np.uint8).view(bool), np.array([3], np.uint8), memoryview(bytes(range(9))),
            np.zeros(6, [("a", "u1"), ("b", "u1")])["b"],
        ],
    )  # fmt: skip
    def test_values_of_every_kind(self, batch, values):
        expected = np.broadcast_to(np.asarray(values), 6) if np.size(values) == 1 else np.asarray(values)[:6]
        assert batch.update({"ttl": values}) == 6
        assert batch.columns()["ttl"].tolist() == expected.astype(np.uint8).tolist()
        assert all(map(is_right, contents(batch)))

    def test_values_are_read_and_not_written(self, batch):
        ttl = np.arange(6, dtype=np.uint8)
        ttl.flags.writeable = False
        address = np.frombuffer(bytes(range(16)), np.uint8)
        assert batch.update({"ttl": ttl, "src6": address}) == 6
        assert batch.columns()["ttl"].tolist() == ttl.tolist() == list(range(6))
        assert batch.columns()["src6"][5].tolist() == list(range(16))

    @pytest.mark.parametrize(
        ("name", "values", "expected"),
        [
            ("src4", "192.0.2.1", [0xC0000201] * 3),
            ("src4", ipaddress.ip_address("192.0.2.1"), [0xC0000201] * 3),
            ("dst4", 0xC0000201, [0xC0000201] * 3),
            ("dst4", ["192.0.2.1", 7, ipaddress.ip_address("0.0.0.2"), 0, 0, 0], [0xC0000201, 7, 2]),
            ("dst4", tuple(f"192.0.2.{i}" for i in range(6)), [0xC0000200, 0xC0000201, 0xC0000202]),
            ("src6", "2001:db8::1", [[0x20, 1, 0x0D, 0xB8, *[0] * 11, 1]] * 3),
            ("src6", ipaddress.ip_address("2001:db8::1"), [[0x20, 1, 0x0D, 0xB8, *[0] * 11, 1]] * 3),
            ("dst6", [f"::{i}" for i in range(6)], [[0] * 15 + [i] for i in (3, 4, 5)]),
            ("dst6", [[i] * 16 for i in range(6)], [[i] * 16 for i in (3, 4, 5)]),
            ("dst6", [ipaddress.IPv6Address(i) for i in range(6)], [[0] * 15 + [i] for i in (3, 4, 5)]),
            ("dst6", bytearray(range(16)), [list(range(16))] * 3),
            ("dst6", np.asfortranarray(np.arange(96, dtype=np.uint8).reshape(6, 16)),
             np.arange(48, 96).reshape(3, 16).tolist()),
            ("dst6", np.arange(96, dtype=">i2").reshape(6, 16)[:, ::-1],
             np.arange(48, 96).reshape(3, 16)[:, ::-1].tolist()),
            ("dst6", np.broadcast_to(np.arange(16, dtype=np.uint8), (6, 16)), [list(range(16))] * 3),
        ],
    )  # fmt: skip
    def test_addresses_as_people_write_them(self, batch, name, values, expected):
        assert batch.update({name: values}) == 6
        rows = slice(0, 3) if name.endswith("4") else slice(3, 6)
        assert batch.columns()[name][rows].tolist() == expected
        assert all(map(is_right, contents(batch)))

    def test_macs_as_people_write_them(self):
        batch = filled([testing.ethernet("02:00:00:00:00:01", "02:00:00:00:00:02", PACKETS[0])] * 2)
        batch.layer = 2
        batch.update({"eth_src": "aa:bb:cc:dd:ee:ff", "eth_dst": ["01-02-03-04-05-06", 7]})
        assert batch.columns()["eth_src"].tolist() == [0xAABBCCDDEEFF] * 2
        assert batch.columns()["eth_dst"].tolist() == [0x010203040506, 7]
        batch.update({"eth_src": "00:00:00:00:00:00", "eth_dst": "ff:ff:ff:ff:ff:ff"})
        assert batch.columns()["eth_src"].tolist() == [0, 0]
        assert batch.columns()["eth_dst"].tolist() == [2**48 - 1] * 2
        # IP packets have none.
        batch = filled()
        assert batch.update({"eth_src": 1, "vlan": 2}) == 6
        assert contents(batch) == PACKETS

    def test_rows_are_those_of_their_packets(self, batch):
        ttl = np.arange(10, 16)
        for where, chosen in (
            ([5, 1], [5, 1]), ([True, False] * 3, [0, 2, 4]), (np.array([2]), [2]), ([], []),
            ([3, 3], [3, 3]),
        ):  # fmt: skip
            batch.fill(PACKETS)
            assert batch.update({"ttl": ttl}, where=where) == len(chosen)
            expected = [10 + i if i in chosen else 64 for i in range(6)]
            assert batch.columns()["ttl"].tolist() == expected

    @pytest.mark.parametrize("name", sorted(UPDATABLE))
    def test_values_that_do_not_fit(self, batch, name):
        dtype = DTYPE[name].base
        largest = 2 ** BITS.get(name, 8 * dtype.itemsize) - 1
        before = everything(batch)
        shape = DTYPE[name].shape
        for value in (-1, largest + 1, 2**63 - 1, 2**64 - 1, -(2**63)):
            if value == largest:
                continue
            for given in (np.full((6, *shape), value, np.uint64 if value >= 2**63 else np.int64), value):
                if shape and given is value:
                    continue
                with pytest.raises(ValueError, match=f"{name!r}.* is not 0 to {largest}"):
                    batch.update({name: given})
        if largest < 2 ** (8 * dtype.itemsize) - 1:
            with pytest.raises(ValueError, match=f"{name!r}"):
                batch.update({name: np.array([0, 0, 0, 0, 0, largest + 1], dtype)})
        if not shape:
            for value in (2**64, 10**30, -(10**30)):
                with pytest.raises(ValueError, match="is not 0 to"):
                    batch.update({name: value})
        assert everything(batch) == before
        assert batch.update({name: np.full((6, *shape), largest, dtype)}) == 6

    @pytest.mark.parametrize(
        "values",
        [
            3.0, [3.0] * 6, np.full(6, 3.0), np.float32(3), None, [None] * 6, "3", b"3", object(), 3j, {},
            {3},
            np.full(6, 3, "m8[s]"), np.array(["3"] * 6), np.full(6, 3, object), [2**70] * 6, float("nan"),
            np.zeros(6, [("ttl", "u1")]), [ipaddress.ip_address("10.0.0.1")], np.empty(0), slice(3),
        ],
    )  # fmt: skip
    def test_what_is_no_integer(self, batch, values):
        before = everything(batch)
        with pytest.raises(TypeError, match="'ttl' must be of integers"):
            batch.update({"dscp": 1, "ttl": values})
        assert everything(batch) == before

    @pytest.mark.parametrize(
        ("columns", "message"),
        [
            ({"ttl": np.zeros((6, 1), int)}, "shape"),
            ({"ttl": np.zeros((1, 6), int)}, "shape"),
            ({"src6": np.zeros(6, int)}, "shape"),
            ({"src6": np.zeros((6, 15), int)}, "shape"),
            ({"src6": np.zeros((6, 16, 1), int)}, "shape"),
            ({"src6": 3}, "shape"),
            ({"src6": np.zeros((), int)}, "shape"),
            ({"ttl": np.zeros(5, int)}, "too few rows for 6 packets"),
            ({"ttl": np.zeros(2, int)}, "too few rows for 6 packets"),
            ({"ttl": []}, "too few rows for 6 packets"),
            ({"ttl": np.zeros(6, int), "dscp": np.zeros(3, int)}, "too few rows for 6 packets"),
            ({"src6": np.zeros((5, 16), int)}, "too few rows for 6 packets"),
            ({"colour": 3}, "no field 'colour'"),
            ({"length": 3}, "'length' cannot be written"),
            ({"protocol": 3}, "'protocol' cannot be written"),
            ({"version": 4}, "'version' cannot be written"),
            ({"flow_hash": 4}, "'flow_hash' cannot be written"),
            ({"fragment_offset": 4}, "'fragment_offset' cannot be written"),
            ({"src4": "fd00::1"}, "fd00::1"),
            ({"src4": "somewhere"}, "somewhere"),
            ({"src4": ["10.0.0.1"] * 5 + [""]}, "Address cannot be empty"),
            ({"src6": "10.0.0.1"}, "10.0.0.1"),
            ({"eth_src": "02:00"}, "02:00"),
        ],
    )
    def test_what_is_refused(self, batch, columns, message):
        before = everything(batch)
        with pytest.raises(ValueError, match=message):
            batch.update({"dscp": 1} | columns)
        assert everything(batch) == before

    @pytest.mark.parametrize(
        "columns",
        [None, 3, "ttl", ["ttl"], [("ttl", 3)], b"", np.zeros(6), np.zeros((6, 2), [("ttl", "u1")]),
         np.zeros((), [("ttl", "u1")])],
    )  # fmt: skip
    def test_what_is_no_table(self, batch, columns):
        with pytest.raises(TypeError, match="a structured array or arrays by name"):
            batch.update(columns)
        with pytest.raises(TypeError, match="a structured array or arrays by name"):
            batch.build(columns)

    def test_fields_that_are_asked_for(self, batch):
        columns = {"ttl": 3, "marks": 1, "dscp": 7}
        assert batch.update(columns, fields=["ttl"]) == 6
        assert batch.columns()["dscp"].tolist() == [0] * 6
        assert batch.update(columns, fields=[]) == 6
        assert batch.update({}) == 6
        for fields, error in (
            (["src4"], ValueError), (["marks"], ValueError), (["nothing"], ValueError),
            (["ttl", "ttl"], ValueError), ("ttl", TypeError), (3, TypeError),
        ):  # fmt: skip
            with pytest.raises(error):
                batch.update(columns, fields)
        assert batch.columns()["ttl"].tolist() == [3] * 6

    def test_packets_that_cannot_be_updated_are_not_counted(self):
        sctp = testing.ip_packet("10.0.0.1", "10.0.0.2", 132, bytes(20))
        dccp = testing.ip_packet("10.0.0.1", "10.0.0.2", 33, bytes(4) + b"\4" + bytes(15))
        packets = [PACKETS[0], sctp, dccp, PACKETS[0][:26], b"\x45", b"\x50" * 40]
        batch = filled(packets)
        assert batch.update({"src4": "10.9.9.9", "src_port": 1}) == 3
        assert contents(batch)[1:] == packets[1:]
        assert batch.update({"src4": "10.9.9.9"}) == 4
        assert batch.update({"ttl": 1}) == 6
        assert is_right(contents(batch)[0])

    def test_big_endian_and_unaligned_tables(self, batch):
        swapped = np.zeros(6, np.dtype([("x", "u1"), ("src4", ">u4"), ("ttl", "u1"), ("src_port", ">u2")]))
        swapped["src4"], swapped["ttl"], swapped["src_port"] = np.arange(6) + 0x0A000000, 5, 4000
        assert batch.update(swapped[["src4", "ttl", "src_port"]]) == 6
        native = np.zeros(6, np.dtype([("x", "u1"), ("src4", "=u4"), ("src6", "u1", 16)]))
        native["src4"] = swapped["src4"] + 1
        native["src6"] = 9
        assert batch.update(native, fields=["src4", "src6"]) == 6
        table = batch.columns()
        assert table["src4"].tolist() == [0x0A000001, 0x0A000002, 0x0A000003, 0, 0, 0]
        assert table["src_port"].tolist() == [4000, 4000, 0, 4000, 4000, 0]
        assert table["src6"][3:].tolist() == [[9] * 16] * 3
        assert all(map(is_right, contents(batch)))

    def test_nothing_outside_the_packets_is_touched(self):
        batch = filled(headroom=14)
        fields = {name: 1 for name in UPDATABLE if name not in ("src6", "dst6")}
        batch.update(fields | {"src6": "::1", "dst6": "::2"})
        batch.fix_checksums()
        assert (batch.buffer[:, :14] == 0xA5).all()
        for i, packet in enumerate(PACKETS):
            assert (batch.data[i, len(packet) :] == 0xA5).all()
        assert (batch.buffer[6:] == 0xA5).all()
        assert batch.lengths[:6].tolist() == [len(packet) for packet in PACKETS]


class TestSuperPackets:
    """With offload="superpackets" a device finishes checksums: in the packet is a sum to begin with."""

    @pytest.mark.parametrize("family", [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")])
    @pytest.mark.parametrize("protocol", ["udp", "tcp"])
    def test_the_parts_are_right(self, family, protocol):
        parts, make = [], getattr(testing, protocol)
        for number in range(3):
            more = {"seq": 100 * number} if protocol == "tcp" else {}
            parts.append(make(*family, 7, 9, bytes([number]) * 100, **more))
        if family[0] == "10.0.0.1":
            numbered = PacketBatch(3, 200)
            numbered.fill(parts)
            numbered.update({"ip_id": [0, 1, 2]})
            parts = contents(numbered)
        ((header, packet),) = offload.coalesce(parts)
        batch = PacketBatch(2, 65535)
        batch.fill([packet, parts[0]])
        batch.headers[0] = header
        changes = {"src4": "192.0.2.9", "dst6": "2001:db8::9", "src_port": 4000, "ttl": 9}
        assert batch.update(changes) == 2
        expected = PacketBatch(3, 200)
        expected.fill(parts)
        assert expected.update(changes) == 3
        assert offload.split(batch[0].tobytes(), batch.headers[0]) == contents(expected)
        assert batch[1].tobytes() == contents(expected)[0]
        transport = 20 if family[0] == "10.0.0.1" else 40
        checksum = transport + (16 if protocol == "tcp" else 6)
        batch.data[0, [transport, checksum]] = 0xF
        expected.data[:, transport] = 0xF
        assert batch.fix_checksums([0]) == 1
        assert expected.fix_checksums() == 3
        assert offload.split(batch[0].tobytes(), batch.headers[0]) == contents(expected)

    def test_hostile_headers(self):
        packet = testing.udp("10.0.0.1", "10.0.0.2", 7, 9, b"datagram")
        for start, offset in ((0, 0), (65535, 65535), (20, 7), (36, 6), (0, 10)):
            batch = filled([packet])
            batch.headers[0] = (1, 0, 0, 0, start, offset)
            assert batch.update({"src4": "10.0.0.9", "ttl": 64}) == 1
            assert contents(batch) == [testing.udp("10.0.0.9", "10.0.0.2", 7, 9, b"datagram")]


class TestBuild:
    @pytest.mark.parametrize("headroom", [0, 14])
    def test_packets_as_the_slow_builders_make_them(self, headroom):
        batch = PacketBatch(4, 200, headroom)
        batch.buffer[:] = 0xA5
        columns = UDP4 | {"ip_flags": 2, "src_port": [1, 2, 3]}
        assert batch.build(columns, b"odd") == batch.count == 3
        assert contents(batch) == [testing.udp("10.0.0.1", "10.0.0.2", port, 9, b"odd") for port in (1, 2, 3)]
        assert batch.lengths.tolist() == [31, 31, 31, 0]
        assert (batch.buffer[:, :headroom] == 0xA5).all()
        assert (batch.data[:3, 31:] == 0xA5).all()
        assert (batch.data[3] == 0xA5).all()

    @pytest.mark.parametrize(
        ("columns", "expected"),
        [
            (UDP4, testing.udp("10.0.0.1", "10.0.0.2", 7, 9, b"payload")),
            ({"src6": "fd00::1", "dst6": "fd00::2", "protocol": 17, "src_port": 7, "dst_port": 9},
             testing.udp("fd00::1", "fd00::2", 7, 9, b"payload")),
            ({"src6": "fd00::1", "dst6": "fd00::2", "protocol": 6, "tcp_seq": 5, "tcp_flags": 0x10,
              "tcp_window": 65535, "ttl": 64},
             testing.tcp("fd00::1", "fd00::2", 0, 0, b"payload", seq=5)),
            ({"src4": "10.0.0.1", "dst4": "10.0.0.2", "protocol": 1, "icmp_type": 8, "icmp_id": 5,
              "icmp_seq": 6},
             testing.icmp_echo("10.0.0.1", "10.0.0.2", 5, 6, b"payload")),
            ({"src6": "fd00::1", "dst6": "fd00::2", "protocol": 58, "icmp_type": 129, "icmp_seq": 6},
             testing.icmp_echo("fd00::1", "fd00::2", 0, 6, b"payload", reply=True)),
            ({"src4": "10.0.0.1", "dst4": "10.0.0.2", "protocol": 253},
             testing.ip_packet("10.0.0.1", "10.0.0.2", 253, b"payload")),
            ({"src6": "fd00::1", "dst6": "fd00::2", "protocol": 1},
             testing.ip_packet("fd00::1", "fd00::2", 1, b"payload")),
            ({"version": 4, "protocol": 17}, testing.udp("0.0.0.0", "0.0.0.0", 0, 0, b"payload")),
            ({"version": 6, "src4": 7, "protocol": 17}, testing.udp("::", "::", 0, 0, b"payload")),
        ],
    )  # fmt: skip
    def test_every_protocol(self, columns, expected):
        batch = PacketBatch(2, 100)
        assert batch.build({"ip_flags": 2, "ttl": 64} | columns, b"payload") == 1
        assert contents(batch) == [expected]

    def test_what_is_missing(self):
        batch = PacketBatch(2, 100)
        batch.build({"src4": 1, "protocol": 17})
        assert batch.columns()["ttl"].tolist() == [64]
        assert batch.lengths[0] == 28
        with pytest.raises(ValueError, match="protocol is missing"):
            batch.build({"src4": 1})
        for columns in ({"src4": 1, "src6": "::1"}, {"ttl": 3}):
            with pytest.raises(ValueError, match="version is missing"):
                batch.build({"protocol": 17} | columns)
        assert batch.count == 0

    def test_both_families_at_once(self):
        batch = PacketBatch(6, 100)
        columns = {
            "version": [4, 6] * 3, "protocol": [6, 6, 17, 17, 1, 58], "icmp_type": [0, 0, 0, 0, 8, 128],
            "src4": "10.0.0.1", "dst4": "10.0.0.2", "src6": "fd00::1", "dst6": "fd00::2", "ip_flags": 2,
        }  # fmt: skip
        assert batch.build(columns, b"x") == 6
        assert batch.columns()["version"].tolist() == columns["version"]
        assert batch.fix_checksums() == 6
        assert contents(batch)[4] == testing.icmp_echo("10.0.0.1", "10.0.0.2", 0, 0, b"x")
        assert contents(batch)[5] == testing.icmp_echo("fd00::1", "fd00::2", 0, 0, b"x")
        assert all(map(is_right, contents(batch)))

    def test_what_columns_have_read_is_built_again(self):
        batch, again = filled(), PacketBatch(6, 200)
        fields = [name for name in BUILDABLE if name not in ("eth_src", "eth_dst", "vlan", "vlan_priority")]
        table = batch.columns(fields)
        payloads = np.zeros((6, 10), np.uint8)
        for i, at in enumerate(batch.columns()["payload_offset"]):
            payloads[i, : table["payload_length"][i]] = batch[i][at:]
        table["ip_id"] = 0
        assert again.build(table, payloads) == 6
        assert contents(again) == PACKETS

    def test_payloads(self):
        batch = PacketBatch(4, 100)
        udp = lambda payload: testing.udp("10.0.0.1", "10.0.0.2", 7, 9, payload)  # noqa: E731
        columns = UDP4 | {"ip_flags": 2}
        rows = np.frombuffer(b"aaabbbcccddd", np.uint8).reshape(4, 3)
        for payload, lengths, expected in (
            (None, None, [b""]),
            (None, [0, 3], [b"", bytes(3)]),
            (b"", None, [b""]),
            (bytearray(b"abc"), None, [b"abc"]),
            (memoryview(b"abcdef")[2:4], None, [b"cd"]),
            (b"abc", [3, 0, 1], [b"abc", b"", b"a"]),
            (np.frombuffer(b"abc", np.uint8), [3, 1], [b"abc", b"a"]),
            (rows, None, [b"aaa", b"bbb", b"ccc", b"ddd"]),
            (rows[::-1], None, [b"ddd", b"ccc", b"bbb", b"aaa"]),
            (rows[:2], None, [b"aaa", b"bbb"]),
            (rows[:, 1:], None, [b"aa", b"bb", b"cc", b"dd"]),
            (rows, [3, 2], [b"aaa", b"bb"]),
            (rows, [3, 2, 1, 0], [b"aaa", b"bb", b"c", b""]),
            (rows[2:3], [3, 2], [b"ccc", b"cc"]),
            (rows[:, :0], None, [b""] * 4),
            (np.asfortranarray(rows), None, [b"aaa", b"bbb", b"ccc", b"ddd"]),
        ):  # fmt: skip
            given = columns if lengths is None else columns | {"payload_length": lengths}
            assert batch.build(given, payload) == len(expected)
            assert contents(batch) == [udp(content) for content in expected]

    def test_the_count(self):
        batch = PacketBatch(5, 100)
        assert batch.build(UDP4, count=3) == batch.count == 3
        assert batch.build(UDP4, count=0) == batch.count == 0
        assert batch.build(UDP4) == 1
        assert batch.build(UDP4 | {"src_port": []}) == 0
        assert batch.build(UDP4 | {"src_port": range(10)}, count=4) == 4
        assert batch.columns()["src_port"].tolist() == [0, 1, 2, 3]
        assert batch.build(UDP4, np.zeros((5, 3), np.uint8), count=2) == 2
        assert batch.build(UDP4 | {"src_port": [3]}, count=5) == 5
        for count, error in ((6, ValueError), (-1, ValueError), (1.0, TypeError), ("1", TypeError)):
            with pytest.raises(error):
                batch.build(UDP4, count=count)
            assert batch.count == 0
        for columns, count in (
            ({"src_port": range(6)}, None), ({"src_port": range(3)}, 4),
            ({"src_port": range(3), "ttl": [1, 2]}, None), ({"src_port": range(3), "ttl": []}, None),
        ):  # fmt: skip
            batch.build(UDP4, count=5)
            with pytest.raises(ValueError, match=r"rows|lengths|do not fit"):
                batch.build(UDP4 | columns, count=count)
            assert batch.count == 0

    def test_frames(self):
        batch = PacketBatch(2, 100)
        with pytest.raises(ValueError, match="layer"):
            batch.build(UDP4 | {"eth_src": "02:00:00:00:00:01"})
        batch.layer = 2
        link = {"eth_src": "02:00:00:00:00:01", "eth_dst": ["02:00:00:00:00:02", 3], "ip_flags": 2}
        packet = testing.udp("10.0.0.1", "10.0.0.2", 7, 9, b"x")
        assert batch.build(UDP4 | link, b"x") == 2
        assert contents(batch)[0] == testing.ethernet("02:00:00:00:00:01", "02:00:00:00:00:02", packet)
        assert batch.build(UDP4 | link | {"vlan": 5}, b"x") == 2
        assert contents(batch)[1] == bytes.fromhex("000000000003 020000000001 81000005 0800") + packet
        assert batch.build(UDP4 | link | {"vlan_priority": 7, "vlan": 0xFFF}, b"x") == 2
        assert contents(batch)[1][12:18] == bytes.fromhex("8100efff0800")
        batch.build(UDP4)
        assert contents(batch)[0][:14] == bytes(12) + b"\x08\x00"

    @pytest.mark.parametrize(
        ("columns", "payload"),
        [
            ({"payload_length": 4}, b"abc"),
            ({"payload_length": 1}, b""),
            ({"payload_length": 73}, None),
            ({"payload_length": [0, 1, 73]}, None),
            ({"payload_length": 2**32 - 1}, None),
            ({}, bytes(73)),
            ({"payload_length": 65536}, bytes(65536)),
            ({"version": [4, 5]}, b""),
            ({"version": 0}, b""),
            ({"version": 260}, b""),
            ({"src_port": -1}, b""),
            ({"ip_flags": 8}, b""),
            ({"payload_length": -1}, b""),
            ({"tcp_flags": 4096}, b""),
            ({"length": 3}, b""),
            ({"marks": 3}, b""),
            ({"fragment_offset": 8}, b""),
            ({"colour": 3}, b""),
            ({"src_port": [1, 2, 3]}, np.zeros((2, 5), np.uint8)),
            ({"src_port": [1, 2]}, np.zeros((0, 5), np.uint8)),
        ],
    )  # fmt: skip
    def test_what_is_refused_leaves_an_empty_batch(self, columns, payload):
        batch = PacketBatch(4, 100)
        batch.build(UDP4, count=4)
        with pytest.raises(ValueError, match=r"."):
            batch.build(UDP4 | columns, payload)
        assert batch.count == 0
        assert batch.build(UDP4 | {"ip_flags": 2}, bytes(72)) == 1
        assert contents(batch) == [testing.udp("10.0.0.1", "10.0.0.2", 7, 9, bytes(72))]

    @pytest.mark.parametrize(
        "payload",
        ["abc", 3, [1, 2], np.zeros(3), np.zeros((1, 3), np.int8), np.zeros((1, 1, 3), np.uint8), object(),
         np.zeros((), np.uint8), memoryview(b"abcdef")[::2]],
    )  # fmt: skip
    def test_what_is_no_payload(self, payload):
        batch = PacketBatch(4, 100)
        batch.build(UDP4, count=4)
        with pytest.raises(TypeError, match="payload"):
            batch.build(UDP4, payload)
        assert batch.count == 0

    def test_the_largest(self):
        for version, headers in ((4, 28), (6, 48)):
            batch = PacketBatch(1, 70_000)
            largest = 65535 - 28 if version == 4 else 65535 - 8
            columns = {"version": version, "protocol": 17}
            assert batch.build(columns, bytes(largest)) == 1
            assert batch.lengths[0] == headers + largest
            assert batch.fix_checksums() == 1
            with pytest.raises(ValueError, match="65535"):
                batch.build(columns, bytes(largest + 1))

    def test_a_payload_that_is_the_batch_itself(self):
        """As one does who puts headers in front of packets, without thinking of where they are."""
        memory = np.zeros((3, 100), np.uint8)
        batch = PacketBatch.wrap(memory, np.zeros(3, np.int32))
        batch.fill(PACKETS[:3])
        inner = contents(batch)
        assert batch.build(UDP4 | {"ip_flags": 2, "payload_length": batch.lengths}, memory[:, :72]) == 3
        assert contents(batch) == [testing.udp("10.0.0.1", "10.0.0.2", 7, 9, packet) for packet in inner]
        batch.fill(PACKETS[:3])
        wrap = PacketBatch.wrap(memory, batch.lengths)
        assert wrap.build(UDP4 | {"ip_flags": 2, "payload_length": batch.lengths}, memory) == 3
        assert contents(wrap) == [testing.udp("10.0.0.1", "10.0.0.2", 7, 9, packet) for packet in inner]

    def test_headers_of_super_packets_are_forgotten(self):
        batch = PacketBatch(3, 100)
        batch.headers["flags"] = 1
        batch.build(UDP4, count=2)
        assert batch.headers["flags"].tolist() == [0, 0, 1]

    def test_what_was_cut_is_forgotten(self):
        one, other = testing.pair()
        with one, other:
            one.send(bytes([0x45]) + bytes(99))
            batch = PacketBatch(2, 50)
            other.recv_batch(batch)
            assert batch.truncated == (0,)
            assert batch.build(UDP4) == 1
            assert batch.truncated == ()
            assert other.send_batch(batch) == 1
            assert one.recv() == contents(batch)[0]


class TestThreads:
    def test_columns_and_batches_that_change_meanwhile(self):
        """Whatever comes of it, it is in the slots: the columns are read where they are."""
        batch = PacketBatch(64, 200)
        batch.build(UDP4, b"x" * 50, count=64)
        lengths, stop = batch.lengths, threading.Event()
        ttl, flags = np.zeros(64, np.uint8), np.zeros(64, np.uint16)
        sizes = np.zeros(64, np.uint32)

        def disturb():
            rng = np.random.default_rng(1)
            while not stop.is_set():
                lengths[:] = rng.choice([-1, 0, 27, 28, 78, 200, 2**31 - 1], 64)
                batch.data[:, 0] = rng.choice([0x45, 0x4F, 0x60], 64)
                flags[:] = rng.integers(0, 2**16, 64)
                sizes[:] = rng.choice([0, 50, 2**32 - 1], 64)
                batch.count = int(rng.integers(0, 65))

        thread = CallThread(disturb)
        for _ in range(300):
            batch.fix_checksums()
            for call in (
                lambda: batch.update({"ttl": ttl, "tcp_flags": 7, "src4": 3}),
                lambda: batch.update({"tcp_flags": flags}),
                lambda: batch.fix_checksums([0, 1]),
                lambda: batch.update({"ttl": ttl}, where=np.arange(10)),
                lambda: batch.build(UDP4 | {"payload_length": sizes}, b"x" * 50),
                lambda: batch.build(UDP4, count=64),
            ):
                with contextlib.suppress(ValueError, IndexError):
                    call()
        stop.set()
        thread.join()
        assert thread.error is None
        batch.build(UDP4 | {"ip_flags": 2}, count=64)
        assert set(contents(batch)) == {testing.udp("10.0.0.1", "10.0.0.2", 7, 9)}

    def test_two_batches_at_once(self):
        """Each thread with a batch of its own, the columns shared."""
        ttl = np.arange(200, dtype=np.uint8)

        def work():
            batch = PacketBatch(200, 100)
            for _ in range(50):
                batch.build(UDP4, b"abc", count=200)
                assert batch.update({"ttl": ttl, "src4": "10.0.0.7"}) == 200
                before = contents(batch)
                assert batch.fix_checksums() == 200
                assert contents(batch) == before
            return batch.columns()["ttl"].tolist()

        threads = [CallThread(work) for _ in range(2)]
        for thread in threads:
            thread.join()
            assert thread.error is None
            assert thread.result == list(range(200))


def test_docstrings_name_the_fields():
    for method, fields in ((PacketBatch.update, UPDATABLE), (PacketBatch.build, BUILDABLE - UPDATABLE)):
        assert all(name in method.__doc__ for name in fields)
