"""Splitting, with the kernel as the judge: of a super-packet that it forwards it makes what we make."""

import random
from pathlib import Path

import pytest
import superpackets as make
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from superpackets import ACK, CWR, ECE, FIN, KINDS, PSH, URG, after_a_hop, header_for, layout_of, packet

import tuntap
from tuntap import offload, testing

NOISE = random.Random(3).randbytes(1 << 16)
TIMESTAMPS = bytes.fromhex("0101080a0102030405060708")
MARKER = testing.udp("10.0.0.2", "10.0.1.2", 1, 2, b"the last one")


@pytest.fixture(scope="module")
def forward(_private_network):
    """Have the kernel forward a packet from a device that takes super-packets to one that does not."""
    if _private_network:
        pytest.skip(_private_network)
    switches = [Path("/proc/sys/net", key) for key in ("ipv4/ip_forward", "ipv6/conf/all/forwarding")]
    before = [switch.read_text() for switch in switches]
    common = {"mtu": 65535, "quiet": True, "tx_queue_len": 20_000}
    with (
        tuntap.Tun(
            "gso0", offload="superpackets", addresses=["10.0.0.1/24", "fd00::1/64"], **common
        ) as source,
        tuntap.Tun("gso1", addresses=["10.0.1.1/24", "fd00:1::1/64"], **common) as target,
    ):
        sent, received = source.batch(2), target.batch(64)

        def run(data, header):
            """The packets that came; what follows the super-packet shows that nothing more will."""
            sent.fill([data, MARKER])
            sent.headers[0] = header
            assert source.send_batch(sent) == 2
            packets = []
            while not packets or packets[-1] != after_a_hop(MARKER):
                target.recv_batch(received, timeout=10)
                packets += [one.tobytes() for one in received if time_to_live(one) == 63]
            return packets[:-1]

        for switch in switches:
            switch.write_text("1")
        yield run
    for switch, text in zip(switches, before, strict=True):
        switch.write_text(text)


def time_to_live(data):
    """Of what was forwarded it is 63; the kernel's own packets (MLD) have another."""
    return data[8] if data[0] >> 4 == 4 else data[7]


def check(forward, data, header, segments=None):
    """Kernel and library agree, and there are as many segments as the test means."""
    expected = offload.split(after_a_hop(data), header)
    assert forward(data, header) == expected
    assert len(expected) == segments or segments is None
    return expected


def super_packet(kind, size=5000, gso_size=1000, **fields):
    return packet(kind, NOISE[:size], partial=True, **fields), gso_size


TCP_CASES = {
    "the sequence number wraps": {"seq": 2**32 - 2500},
    "the sequence number wraps between segments": {"seq": 2**32 - 3000},
    "FIN and PSH": {"flags": ACK | FIN | PSH},
    "PSH": {"flags": ACK | PSH},
    "CWR": {"flags": ACK | CWR},
    "CWR and ECE": {"flags": ACK | CWR | ECE | PSH},
    "ECE": {"flags": ACK | ECE},
    "URG": {"flags": ACK | URG, "urgent": 700},
    "every flag": {"flags": 0xFF},
    "no flag": {"flags": 0},
    "timestamps": {"options": TIMESTAMPS},
    "40 bytes of options": {"options": TIMESTAMPS * 3 + bytes(4)},
}
IPV4_CASES = {
    "the identification wraps": {"ident": 65534},
    "may be fragmented": {"fragment": 0, "ident": 65533},
    "type of service": {"tos": 0xB9},
    "congestion experienced": {"tos": 3},
    "IP options": {"ip_options": b"\1\1\1\0", "ident": 65534},
    "a router alert": {"ip_options": b"\x94\4\0\0" + b"\1" * 36},
}
ROUTE = (make.ROUTING, bytes(6))
IPV6_CASES = {
    "traffic class and flow label": {"tos": 0xB9, "label": 0xABCDE},
    "hop-by-hop options": {"extensions": [(make.HOP_BY_HOP, b"\1\4\0\0\0\0")]},
    "destination options": {"extensions": [(make.DESTINATION, b"\1\x0c" + bytes(12))]},
    "a routing header": {"extensions": [ROUTE]},
    "three extension headers": {
        "extensions": [(make.HOP_BY_HOP, b"\1\4\0\0\0\0"), (make.DESTINATION, b"\1\4\0\0\0\0"), ROUTE]
    },
    "a long extension header": {"extensions": [(make.DESTINATION, b"\1\xfc" + bytes(252))]},
}


@pytest.mark.parametrize("fields", TCP_CASES.values(), ids=TCP_CASES)
@pytest.mark.parametrize("kind", ["tcp4", "tcp6"])
def test_tcp_headers(forward, kind, fields):
    data, gso_size = super_packet(kind, **fields)
    for ecn in (False, True):
        check(forward, data, header_for(data, gso_size, ecn=ecn), 5)


def test_flags_are_where_they_belong(forward):
    """What the kernel is known to do; the other tests only say that we do the same."""
    data, gso_size = super_packet("tcp4", flags=ACK | FIN | PSH | CWR | ECE, seq=2**32 - 1500, ident=65534)
    segments = check(forward, data, header_for(data, gso_size, ecn=True), 5)
    assert [segment[33] for segment in segments] == [
        ACK | ECE | CWR, ACK | ECE, ACK | ECE, ACK | ECE, ACK | ECE | FIN | PSH,
    ]  # fmt: skip
    assert [int.from_bytes(segment[4:6], "big") for segment in segments] == [65534, 65535, 0, 1, 2]
    assert [int.from_bytes(segment[24:28], "big") for segment in segments] == [
        2**32 - 1500, 2**32 - 500, 500, 1500, 2500,
    ]  # fmt: skip


@pytest.mark.parametrize("fields", IPV4_CASES.values(), ids=IPV4_CASES)
@pytest.mark.parametrize("kind", ["tcp4", "udp4"])
def test_ipv4_headers(forward, kind, fields):
    data, gso_size = super_packet(kind, **fields)
    check(forward, data, header_for(data, gso_size), 5)


@pytest.mark.parametrize("fields", IPV6_CASES.values(), ids=IPV6_CASES)
@pytest.mark.parametrize("kind", ["tcp6", "udp6"])
def test_ipv6_headers(forward, kind, fields):
    data, gso_size = super_packet(kind, **fields)
    check(forward, data, header_for(data, gso_size), 5)


@pytest.mark.parametrize("kind", KINDS)
def test_sizes(forward, kind):
    """Multiples and tails, segments of one byte, and a payload that is no larger than a segment."""
    for size, gso_size, segments in [
        (5000, 1000, 5), (5001, 1000, 6), (4999, 1000, 5), (1001, 1000, 2), (2000, 1999, 2), (100, 1, 100),
        (128, 1, 128), (3, 2, 2), (1000, 1000, 1), (999, 1000, 1), (1, 1, 1), (1, 1000, 1),
        (40_000, 32_768, 2),
    ]:  # fmt: skip
        data = packet(kind, NOISE[:size], partial=True)
        check(forward, data, header_for(data, gso_size), segments)


@pytest.mark.parametrize("kind", KINDS)
def test_a_super_packet_of_64_kib(forward, kind):
    data = packet(kind, b"", partial=True)
    payload = NOISE[: 65535 - len(data)]
    data = packet(kind, payload, partial=True)
    for gso_size in (513, 1448, 9000, 65000):
        check(forward, data, header_for(data, gso_size), -(-len(payload) // gso_size))


def test_more_segments_than_a_batch(forward):
    data = packet("tcp4", NOISE[:10_000], partial=True)
    check(forward, data, header_for(data, 1), 10_000)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hdr_len", [0, 1, 20, 140, 5000])
def test_the_length_of_the_headers_is_only_a_hint(forward, kind, hdr_len):
    options = {"options": TIMESTAMPS} if kind[:3] == "tcp" else {}
    data, gso_size = super_packet(kind, **options)
    check(forward, data, header_for(data, gso_size, hdr_len=hdr_len), 5)


@pytest.mark.parametrize("kind", ["udp4", "udp6"])
def test_no_datagram_has_a_checksum_of_zero(forward, kind):
    """A sum that comes out as 0 is written as 0xffff: in a segment, in the last, and in a lone datagram."""
    payload = bytearray(NOISE[:2500])
    for start, stop in ((0, 1000), (1000, 2000), (2000, 2500)):
        payload[start : start + 2] = b"\0\0"
        whole = packet(kind, bytes(payload[start:stop]))
        at = layout_of(whole)[1] + 6
        payload[start : start + 2] = whole[at : at + 2]
    data = packet(kind, bytes(payload), partial=True)
    segments = check(forward, data, header_for(data, 1000), 3)
    assert [segment[layout_of(segment)[1] + 6 :][:2] for segment in segments] == [b"\xff\xff"] * 3
    data = packet(kind, bytes(payload[:1000]), partial=True)
    (alone,) = check(forward, data, header_for(data, 0))
    assert alone == after_a_hop(packet(kind, bytes(payload[:1000])))
    assert alone[layout_of(alone)[1] + 6 :][:2] == b"\xff\xff"


@pytest.mark.parametrize("kind", KINDS)
def test_a_packet_that_only_wants_its_checksum(forward, kind):
    for size in (0, 1, 2, 999, 1472, 9001):
        data = packet(kind, NOISE[:size], partial=True)
        (whole,) = check(forward, data, header_for(data, 0))
        assert whole == after_a_hop(packet(kind, NOISE[:size]))


@pytest.mark.parametrize("kind", ["tcp4", "tcp6"])
def test_a_super_packet_with_a_whole_checksum(forward, kind):
    """TCP need not be partial; whatever its checksum says, the segments get right ones."""
    for field in (b"\0\0", b"\x12\x34"):
        data = packet(kind, NOISE[:5000])
        at = layout_of(data)[1] + 16
        data = data[:at] + field + data[at + 2 :]
        header = header_for(data, 1000, flags=0, csum_start=0, csum_offset=0)
        check(forward, data, header, 5)


@pytest.mark.parametrize("kind", KINDS)
def test_128_segments(forward, kind):
    data = packet(kind, NOISE[: 128 * 400], partial=True)
    check(forward, data, header_for(data, 400), 128)


@pytest.mark.parametrize("kind", ["udp4", "udp6"])
def test_the_length_in_a_udp_header_is_believed_as_far_as_the_kernel_does(forward, kind):
    """It goes into the sum to begin with, right or wrong."""
    data, gso_size = super_packet(kind)
    at = layout_of(data)[1] + 4
    for length in (b"\0\0", b"\0\x08", b"\xff\xff"):
        data = data[:at] + length + data[at + 2 :]
        check(forward, data, header_for(data, gso_size), 5)


@pytest.mark.parametrize("kind", ["udp4", "udp6"])
def test_129_datagrams_are_refused_by_both(forward, kind):
    data = packet(kind, NOISE[: 128 * 400 + 1], partial=True)
    for refuse in (forward, offload.split):
        with pytest.raises(tuntap.PacketError):
            refuse(data, header_for(data, 400))


REFUSED = {
    "segments of no size": {"gso_size": 0},
    "an unknown type": {"gso_type": 2},
    "the other transport": {"gso_type": {"tcp": make.UDP_L4, "udp": make.TCPV4}},
    "ECN of UDP": {"gso_type": {"tcp": make.UDP_L4, "udp": make.UDP_L4 | make.ECN}},
    "a checksum elsewhere": {"csum_offset": 8},
    "a checksum behind the packet": {"csum_start": 5100},
    "a checksum that begins in front of the transport header": {"csum_start": 0},
}


@pytest.mark.parametrize("changes", REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("kind", KINDS)
def test_headers_that_both_refuse(forward, kind, changes):
    data, gso_size = super_packet(kind)
    header = header_for(data, gso_size)
    for name, value in changes.items():
        header[name] = value[kind[:3]] if isinstance(value, dict) else value
    for refuse in (forward, offload.split):
        with pytest.raises(tuntap.PacketError):
            refuse(data, header)


def test_the_type_of_the_other_family(forward):
    """The kernel refuses the one when it is written and drops the other later."""
    data, gso_size = super_packet("tcp4")
    header = header_for(data, gso_size, gso_type=make.TCPV6)
    for refuse in (forward, offload.split):
        with pytest.raises(tuntap.PacketError):
            refuse(data, header)
    data, gso_size = super_packet("tcp6")
    header = header_for(data, gso_size, gso_type=make.TCPV4)
    assert forward(data, header) == []
    with pytest.raises(tuntap.PacketError):
        offload.split(data, header)


@pytest.mark.parametrize("kind", KINDS)
def test_a_checksum_that_begins_elsewhere_is_dropped_by_the_kernel(forward, kind):
    data, gso_size = super_packet(kind)
    header = header_for(data, gso_size, csum_start=layout_of(data)[1] + 2)
    assert forward(data, header) == []
    with pytest.raises(tuntap.PacketError):
        offload.split(data, header)


@pytest.mark.parametrize("kind", ["tcp4", "tcp6"])
def test_a_single_segment_with_options_is_dropped_by_the_kernel_and_completed_by_us(forward, kind):
    """It takes options for payload, and then finds nothing to split; it hands over no such packet."""
    fields = {"options": TIMESTAMPS}
    data, gso_size = super_packet(kind, size=995, **fields)
    header = header_for(data, gso_size)
    assert forward(data, header) == []
    assert offload.split(data, header) == [packet(kind, NOISE[:995], **fields)]


# --- what no list of cases thinks of ---

numbers = st.integers


@st.composite
def super_packets(draw):
    """A super-packet and its header: every field that the kernel lets through."""
    kind = draw(st.sampled_from(KINDS))
    gso_size = draw(st.one_of(numbers(1, 40), numbers(1, 2000), numbers(1, 20_000)))
    segments = draw(st.one_of(numbers(1, 4), numbers(1, 128)))
    size = min(gso_size * segments - draw(numbers(0, gso_size - 1)), 65_000)
    start = draw(numbers(0, len(NOISE) - size))
    payload = draw(st.sampled_from([NOISE[start : start + size], bytes(size), b"\xff" * size]))
    fields = {
        "sport": draw(numbers(0, 65535)), "dport": draw(numbers(0, 65535)),
        "tos": draw(numbers(0, 255)), "partial": True,
    }  # fmt: skip
    if kind[:3] == "tcp":
        fields |= {
            "seq": draw(st.one_of(numbers(0, 2**32 - 1), numbers(2**32 - 70_000, 2**32 - 1))),
            "ack": draw(numbers(0, 2**32 - 1)), "flags": draw(numbers(0, 255)),
            "window": draw(numbers(0, 65535)), "urgent": draw(numbers(0, 65535)),
            # Without options if it is a single segment: that is a test of its own.
            "options": NOISE[start : start + 4 * draw(numbers(0, 10)) * (size > gso_size)],
        }  # fmt: skip
    if kind[3] == "4":
        fields |= {
            "ident": draw(st.one_of(numbers(0, 65535), numbers(65400, 65535))),
            "fragment": draw(st.sampled_from([0, 0x4000])),
            "ip_options": b"\1" * 4 * draw(st.one_of(st.just(0), numbers(0, 10))),
        }  # fmt: skip
    else:
        fields |= {
            "label": draw(numbers(0, 2**20 - 1)),
            "extensions": [
                (make.DESTINATION, b"\1\x04\0\0\0\0" + b"\1\6\0\0\0\0\0\0" * units)
                for units in draw(st.lists(numbers(0, 3), max_size=2))
            ],
        }
    data = packet(kind, payload, **fields)
    ecn = kind[:3] == "tcp" and draw(st.booleans())
    header = header_for(data, gso_size, ecn=ecn, hdr_len=draw(numbers(0, len(data))))
    # The sum to begin with is whatever the sender says.
    at = header["csum_start"] + header["csum_offset"]
    seed = draw(st.one_of(st.just(data[at : at + 2]), st.binary(min_size=2, max_size=2)))
    return data[:at] + seed + data[at + 2 :], header


def test_any_super_packet(forward):
    @settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
    @given(super_packets())
    def agree(drawn):
        check(forward, *drawn)

    agree()
