"""Packets made of rows, beside those that scapy makes of the same fields."""

import errno
import sys

import flows
import pytest
import rewrite_twin as twin
from flows import NOISE
from hypothesis import example, given
from hypothesis import strategies as st

pytest.importorskip("scapy")

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6Unknown, IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import NoPayload, Raw

BITS = {**twin.BITS, "ip_flags": 3, "icmp_type": 8, "icmp_code": 8, "protocol": 8}
HEADER = {(4, 6): 20, (6, 6): 20, (4, 17): 8, (6, 17): 8, (4, 1): 8, (6, 58): 8}
LARGEST = {4: 65535, 6: 65535 + 40}
UNTOUCHED = b"\xa5"


def address(value):
    return ":".join(f"{value[i]:02x}{value[i + 1]:02x}" for i in range(0, len(value), 2))


def mac(value):
    return ":".join(f"{byte:02x}" for byte in value.to_bytes(6, "big"))


def made_by_scapy(fields, payload, is_frame=False, has_tag=False):
    """Of layers, whose lengths and checksums it works out itself."""
    row = dict.fromkeys(BITS, 0) | {"src6": bytes(16), "dst6": bytes(16)} | fields
    traffic_class = row["dscp"] << 2 | row["ecn"]
    if row["version"] == 4:
        network = IP(
            tos=traffic_class, id=row["ip_id"], flags=row["ip_flags"], ttl=row["ttl"], proto=row["protocol"],
            src=".".join(map(str, row["src4"].to_bytes(4, "big"))),
            dst=".".join(map(str, row["dst4"].to_bytes(4, "big"))),
        )  # fmt: skip
    else:
        network = IPv6(
            tc=traffic_class, fl=row["flow_label"], nh=row["protocol"], hlim=row["ttl"],
            src=address(row["src6"]), dst=address(row["dst6"]),
        )  # fmt: skip
    packet = network / transport_of(row) / Raw(payload)
    if is_frame:
        link = Ether(src=mac(row["eth_src"]), dst=mac(row["eth_dst"]))
        if has_tag:
            link /= Dot1Q(prio=row["vlan_priority"], vlan=row["vlan"])
        packet = link / packet
    return bytes(packet)


def transport_of(row):
    ports = {"sport": row["src_port"], "dport": row["dst_port"]}
    numbers = row["icmp_id"].to_bytes(2, "big") + row["icmp_seq"].to_bytes(2, "big")
    kind = row["version"], row["protocol"]
    if row["protocol"] == 6:
        flags, reserved = row["tcp_flags"] & 0x1FF, row["tcp_flags"] >> 9
        return TCP(
            **ports, seq=row["tcp_seq"], ack=row["tcp_ack"], flags=flags, reserved=reserved,
            window=row["tcp_window"],
        )  # fmt: skip
    if row["protocol"] == 17:
        return UDP(**ports)
    if kind == (4, 1):
        # Of an echo it knows the numbers; any other type has something else there.
        return ICMP(type=8, code=row["icmp_code"], id=row["icmp_id"], seq=row["icmp_seq"])
    if kind == (6, 58):
        return ICMPv6Unknown(type=row["icmp_type"], code=row["icmp_code"], msgbody=numbers)
    return NoPayload()


@st.composite
def rows(draw):
    fields = {name: draw(st.integers(0, 2**bits - 1)) for name, bits in BITS.items()}
    fields["version"] = draw(st.sampled_from([4, 6]))
    fields["protocol"] = draw(st.sampled_from([6, 17, 1, 58, 47, 132, 136, 253]))
    if (fields["version"], fields["protocol"]) == (4, 1):
        fields["icmp_type"] = 8
    for name in ("src6", "dst6"):
        fields[name] = fields[name].to_bytes(16, "big")
    return fields


SIZES = st.one_of(st.integers(0, 40), st.sampled_from([63, 64, 65, 127, 255, 1399, 1400, 1401]))


@given(rows(), SIZES, st.integers(0, 999), st.booleans(), st.booleans(), st.integers(0, 9))
def test_scapy_makes_the_same(harness, fields, size, at, is_frame, has_tag, spare):
    payload = NOISE[at : at + size]
    expected = made_by_scapy(fields, payload, is_frame, has_tag)
    result, room, intact = harness.row_build(
        fields, payload, size, len(expected) + spare, is_frame, has_tag, guard=32
    )
    assert intact
    assert result == len(expected)
    assert room == expected + UNTOUCHED * spare
    assert twin.is_right(expected, is_frame)
    if size:
        made = harness.row_build(fields, None, size, len(expected), is_frame, has_tag, guard=32)
        result, room, intact = made
        assert (result, intact) == (len(expected), True)
        assert room == made_by_scapy(fields, bytes(size), is_frame, has_tag)


@given(rows(), SIZES, st.booleans(), st.booleans())
def test_scapy_reads_the_same_fields(harness, fields, size, is_frame, has_tag):
    expected = made_by_scapy(fields, NOISE[:size], is_frame, has_tag)
    _, room, _ = harness.row_build(fields, NOISE[:size], size, len(expected), is_frame, has_tag)
    packet = (Ether if is_frame else IP if fields["version"] == 4 else IPv6)(room)
    if is_frame:
        assert (packet.src, packet.dst) == (mac(fields["eth_src"]), mac(fields["eth_dst"]))
        assert (Dot1Q in packet) == has_tag
    if is_frame and has_tag:
        assert (packet[Dot1Q].vlan, packet[Dot1Q].prio) == (fields["vlan"], fields["vlan_priority"])
    network = packet[IP if fields["version"] == 4 else IPv6]
    traffic_class = fields["dscp"] << 2 | fields["ecn"]
    if fields["version"] == 4:
        found = network.tos, network.id, int(network.flags), network.ttl, network.proto, network.frag
        names = "ip_id", "ip_flags", "ttl", "protocol"
        assert found == (traffic_class, *(fields[name] for name in names), 0)
        assert network.src == ".".join(map(str, fields["src4"].to_bytes(4, "big")))
    else:
        found = network.tc, network.fl, network.hlim, network.nh
        assert found == (traffic_class, fields["flow_label"], fields["ttl"], fields["protocol"])
    if fields["protocol"] == 6 and TCP in packet:
        segment = packet[TCP]
        assert (segment.sport, segment.dport) == (fields["src_port"], fields["dst_port"])
        assert (segment.seq, segment.ack, segment.window) == (
            fields["tcp_seq"], fields["tcp_ack"], fields["tcp_window"],
        )  # fmt: skip
        assert segment.reserved << 9 | int(segment.flags) == fields["tcp_flags"]
        assert (segment.dataofs, segment.urgptr) == (5, 0)
    if fields["protocol"] == 17 and UDP in packet:
        datagram = packet[UDP]
        assert (datagram.sport, datagram.dport) == (fields["src_port"], fields["dst_port"])
        assert datagram.len == 8 + size


@given(rows(), st.integers(0, 255))
def test_every_type_of_icmp(harness, fields, kind):
    """Also those of which scapy knows better what they say."""
    for version, protocol in ((4, 1), (6, 58)):
        fields |= {"version": version, "protocol": protocol, "icmp_type": kind, "ip_flags": 2}
        _, packet, _ = harness.row_build(fields, b"payload", 7, (20 if version == 4 else 40) + 15)
        message = packet[-15:]
        assert message[:2] == bytes([kind, fields["icmp_code"]])
        assert message[4:8] == fields["icmp_id"].to_bytes(2, "big") + fields["icmp_seq"].to_bytes(2, "big")
        assert message[8:] == b"payload"
        assert twin.fix(packet, False) == (True, packet)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", [6, 17, 1, 58, 253])
def test_every_size(harness, version, protocol):
    fields = {"version": version, "protocol": protocol, "ttl": 64, "src4": 1, "dst4": 2, "src6": NOISE[:16],
              "dst6": NOISE[16:32], "src_port": 3, "dst_port": 4, "icmp_type": 128}  # fmt: skip
    headers = (20 if version == 4 else 40) + HEADER.get((version, protocol), 0)
    largest = LARGEST[version] - headers
    for size in (*range(200), *range(1000, 1600, 7), 9000, largest - 1, largest):
        for payload in (NOISE[:size], None):
            result, packet, intact = harness.row_build(fields, payload, size, headers + size, guard=16)
            assert (result, intact) == (headers + size, True)
            assert packet[headers:] == (NOISE[:size] if payload is not None else bytes(size))
            assert twin.fix(packet, False) == (True, packet)
    for size in (largest + 1, largest + 8, 65535, 65536, 2**31, 2**32 - 1, 2 * sys.maxsize + 1):
        if size > largest:
            payload = NOISE if size <= len(NOISE) else None
            result, packet, intact = harness.row_build(fields, payload, size, 70_000, guard=16)
            assert (result, packet, intact) == (-errno.EMSGSIZE, UNTOUCHED * 70_000, True)


@pytest.mark.parametrize("is_frame", [False, True])
@pytest.mark.parametrize("has_tag", [False, True])
def test_too_little_room(harness, is_frame, has_tag):
    for version in (4, 6):
        for protocol in (6, 17, 1, 58, 253):
            fields = {"version": version, "protocol": protocol, "src6": bytes(16), "dst6": bytes(16)}
            needed, _, _ = harness.row_build(fields, b"payload", 7, 200, is_frame, has_tag)
            for room in range(needed):
                made = harness.row_build(fields, b"payload", 7, room, is_frame, has_tag, guard=32)
                assert made == (-errno.EMSGSIZE, UNTOUCHED * room, True)
            assert harness.row_build(fields, b"payload", 7, needed, is_frame, has_tag)[0] == needed


@pytest.mark.parametrize("version", [0, 1, 3, 5, 7, 14, 20, 255])
def test_no_version_of_ip(harness, version):
    result = harness.row_build({"version": version, "protocol": 17}, b"", 0, 100, guard=32)
    assert result == (-errno.EINVAL, UNTOUCHED * 100, True)


@given(st.sampled_from([4, 6]), st.integers(0, 0xFFFF), st.integers(0, 500))
@example(4, 0xFFFF, 0)
def test_zero_is_written_as_the_other_zero_in_udp_alone(harness, version, port, size):
    for protocol in (6, 17):
        fields = {"version": version, "protocol": protocol, "src_port": port}
        headers = (20 if version == 4 else 40) + HEADER[version, protocol]
        room = headers + 2 + size
        _, packet, _ = harness.row_build(fields, bytes(2 + size), 2 + size, room)
        at = headers - (4 if protocol == 6 else 2)
        total = packet[at : at + 2]
        _, packet, _ = harness.row_build(fields, total + bytes(size), 2 + size, room)
        assert packet[at : at + 2] == (b"\xff\xff" if protocol == 17 else b"\0\0")
        assert twin.is_right(packet, False)


def test_a_reply_of_nothing_but_zeros(harness):
    _, packet, _ = harness.row_build({"version": 4, "protocol": 1}, None, 20, 48)
    assert packet[20:] == b"\0\0\xff\xff" + bytes(24)


@given(rows(), st.booleans(), st.booleans())
def test_bits_beyond_a_field_go_nowhere(harness, fields, is_frame, has_tag):
    """Arrays may change after they were looked at."""
    wider = {"dscp": 8, "ecn": 8, "flow_label": 32, "ip_flags": 8, "tcp_flags": 16, "vlan": 16,
             "vlan_priority": 8, "eth_src": 64, "eth_dst": 64, "ip_id": 32}  # fmt: skip
    size = len(made_by_scapy(fields, b"payload", is_frame, has_tag))
    for name, bits in wider.items():
        changed = fields | {name: fields[name] | (2**bits - 1 & ~(2 ** BITS[name] - 1))}
        assert harness.row_build(changed, b"payload", 7, size, is_frame, has_tag, guard=16) == (
            harness.row_build(fields, b"payload", 7, size, is_frame, has_tag, guard=16)
        ), name


def test_the_builders_of_other_tests_make_the_same(harness):
    addresses = bytes([10, 0, 0, 1, 10, 0, 0, 2])
    fields = {"version": 4, "protocol": 17, "ttl": 64, "ip_flags": 2, "src4": 0x0A000001, "dst4": 0x0A000002,
              "src_port": 7, "dst_port": 9}  # fmt: skip
    datagram = flows.with_checksum(flows.udp_header(7, 9, 3) + b"odd", addresses, 17)
    assert harness.row_build(fields, b"odd", 3, 31) == (31, flows.ipv4(addresses, 17, datagram), True)
