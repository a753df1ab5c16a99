"""The coalescing kernel at its edges, and against its slow twin."""

import functools
import itertools
import struct

import flows
import pytest
import twins
from flows import renumbered
from hypothesis import assume, given
from hypothesis import strategies as st

from tuntap import offload, testing

TCP4, TCP6, UDP = 2, 4, 8
WINDOW = 256


def tcp(number, size=100, **options):
    options = {"seq": number * 100, **options}
    return renumbered(
        testing.tcp("10.0.0.1", "10.0.0.2", 7, 9, bytes([number % 256]) * size, **options), number
    )


def udp(number, size=100, sport=7):
    return renumbered(testing.udp("10.0.0.1", "10.0.0.2", sport, 9, bytes([number % 256]) * size), number)


def broken(packet):
    """The same with a checksum that is wrong."""
    return packet[:-1] + bytes([packet[-1] ^ 1])


def indices(windows):
    return [[item[0] for item in window] for window in windows]


@pytest.fixture(params=["kernel", "twin"])
def coalesce(request, harness):
    """The kernel and its twin are to say the same of the packets written down here."""
    return harness.gro_coalesce if request.param == "kernel" else twins.coalesce


def test_a_flow_is_one_item(coalesce):
    packets = [tcp(i) for i in range(20)]
    assert indices(coalesce(packets)) == [[list(range(20))]]


def test_a_window_ends_when_it_is_full(coalesce):
    packets = [udp(i, sport=i % 300 + 1) for i in range(600)]
    assert [sum(map(len, window)) for window in indices(coalesce(packets))] == [256, 256, 88]


@pytest.mark.parametrize("hostile", [b"\0", b"\x10" * 60, b"\xff", b"E", b"E" * 19, b"`" * 39])
def test_hostile_packets_go_alone(coalesce, hostile):
    """What is no IP packet at all begins a window, so that everything before it has been sent."""
    windows = indices(coalesce([tcp(0), tcp(1), hostile, tcp(2), tcp(3)]))
    if hostile[0] >> 4 in (4, 6):
        assert windows == [[[0, 1], [2], [3, 4]]]
    else:
        assert windows == [[[0, 1]], [[2], [3, 4]]]


def test_short_frames_begin_a_window(coalesce):
    link = b"\2\0\0\0\0\1\2\0\0\0\0\2\x08\0"
    frames = [link + tcp(0), link + tcp(1), b"\2" * 13, link + tcp(2)]
    assert indices(coalesce(frames, is_frame=True)) == [[[0, 1]], [[2], [3]]]


@pytest.mark.parametrize("first", [True, False])
def test_wrong_checksums_are_neither_merged_nor_repaired(coalesce, first):
    packets = [broken(tcp(0)), tcp(1)] if first else [tcp(0), broken(tcp(1))]
    ((one, other),) = coalesce([*packets])
    assert (one, other) == (([0], None, packets[0]), ([1], None, packets[1]))


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("at", [10, 36])
def test_a_zero_checksum_in_its_other_form_is_left_alone(harness, at, number):
    """0xffff is as right as 0 but for UDP over IPv4, and not what a split writes."""
    packets = [tcp(0), tcp(1)]
    packet = bytearray(packets[number])
    packet[at : at + 2] = bytes(2)
    covered = packet[:20] if at == 10 else packet[12:20] + b"\0\6\0\x78" + packet[20:]
    word = 4 if at == 10 else 40  # identification; payload
    total = int.from_bytes(packet[word : word + 2], "big") + testing.checksum(covered)
    packet[word : word + 2] = ((total & 0xFFFF) + (total >> 16)).to_bytes(2, "big")
    if at == 10:
        first = int.from_bytes(packet[4:6], "big") - number
        packets = [renumbered(packet, first + i) for i, packet in enumerate(packets)]
    packets[number] = bytes(packet)
    assert packets[number][at : at + 2] == b"\0\0"
    assert indices(harness.gro_coalesce(packets)) == [[[0, 1]]]
    packets[number] = packets[number][:at] + b"\xff\xff" + packets[number][at + 2 :]
    assert indices(harness.gro_coalesce(packets)) == [[[0], [1]]]


@pytest.mark.parametrize("size", range(20))
def test_a_cut_tcp_header_ends_every_flow(harness, size):
    """Its ports may be there or not; nothing may overtake it, and its checksum is not completed."""
    whole = testing.tcp("fd00::1", "fd00::2", 7, 9, b"")
    cut = whole[:4] + size.to_bytes(2, "big") + whole[6 : 40 + size]
    for trusted in (False, True):
        (items,) = harness.gro_coalesce([tcp(0), tcp(1), cut, tcp(2), tcp(3)], trusted=trusted)
        assert [item[0] for item in items] == [[0, 1], [2], [3, 4]]
        assert items[1] == ([2], None, cut)


@pytest.mark.parametrize("packet", [
    tcp(0)[:32] + b"\x40" + tcp(0)[33:],  # a data offset of 16 bytes
    udp(0)[:24] + b"\0\x20" + udp(0)[26:],  # a length that leaves out what is behind it
])  # fmt: skip
def test_a_trusted_packet_with_wrong_lengths_is_sent_as_it_is(harness, packet):
    assert harness.gro_coalesce([packet], trusted=True) == [[([0], None, packet)]]


def test_trusted_packets_are_not_looked_at_and_left_to_the_kernel(coalesce):
    (items,) = coalesce([broken(tcp(0)), broken(tcp(1)), broken(udp(0))], trusted=True)
    assert [item[0] for item in items] == [[0, 1], [2]]
    assert [struct.unpack("=BBHHHH", item[1]) for item in items] == [
        (1, 1, 40, 100, 20, 16),
        (1, 0, 0, 0, 20, 6),
    ]


def test_a_datagram_without_a_checksum_keeps_to_it(coalesce):
    packet = udp(0)[:26] + b"\0\0" + udp(0)[28:]
    ((item,),) = coalesce([packet], trusted=True)
    assert item == ([0], None, packet)


@pytest.mark.parametrize(("types", "merged"), [(TCP4, [0, 1]), (UDP, [2, 3]), (TCP6, None), (0, None)])
def test_only_what_is_asked_for_is_merged(coalesce, types, merged):
    (items,) = coalesce([tcp(0), tcp(1), udp(0), udp(1)], types=types)
    assert [item[0] for item in items if len(item[0]) > 1] == ([merged] if merged else [])


def test_identifications_may_be_the_same_if_they_mean_nothing(coalesce):
    same = [testing.tcp("10.0.0.1", "10.0.0.2", 7, 9, bytes(100), seq=i * 100) for i in range(5)]
    assert indices(coalesce(same, renumber=True)) == [[[0, 1, 2, 3, 4]]]
    assert indices(coalesce(same)) == [[[0], [1], [2], [3], [4]]]
    mixed = [*same[:3], *(renumbered(packet, i) for i, packet in enumerate(same[3:], 1))]
    assert indices(coalesce(mixed, renumber=True)) == [[[0, 1, 2], [3, 4]]]


def test_long_headers_are_not_merged(coalesce):
    """An IPv6 extension header may be 2 KiB; the room for headers is not."""
    plain = testing.udp("fd00::1", "fd00::2", 7, 9, bytes(50))
    for units in (0, 24, 25, 26, 255):
        extension = bytes([17, units]) + bytes(8 * units + 6)
        size = len(extension) + len(plain) - 40
        packet = plain[:4] + size.to_bytes(2, "big") + b"\x3c" + plain[7:40] + extension + plain[40:]
        expected = [[0, 1]] if 40 + len(extension) + 8 <= 256 else [[0], [1]]
        assert indices(coalesce([packet, packet])) == [expected], units


# --- against the twin ---

LINKS = [b"\2\0\0\0\0\1\2\0\0\0\0\2", b"\2\0\0\0\0\1\2\0\0\0\0\2\x81\x00\x00\x05"]
TIMESTAMPS = b"\1\1\x08\n" + bytes(8)
# Version, protocol, source port; the two of each kind are flows of one pair of hosts.
FLOWS = [(4, 6, 1), (4, 6, 3), (6, 6, 1), (4, 17, 1), (4, 17, 3), (6, 17, 1)]
SIZES = [100, 100, 100, 100, 37, 1, 0, 160]
# What may differ in a packet, beside its payload; most are just the next of their flow.
QUIRKS = [
    {"flags": 0x18}, {"flags": 0x18}, {"flags": 0x11}, {"flags": 0x02}, {"flags": 0x14}, {"flags": 0x30},
    {"flags": 0x90}, {"flags": 0x50}, {"flags": 0x50}, {"flags": 0}, {"reserved": 1}, {"seq": 1},
    {"seq": -100}, {"ack": 9}, {"ack": 9}, {"window": 7}, {"urgent": 7}, {"options": TIMESTAMPS},
    {"options": TIMESTAMPS},
    {"tos": 4}, {"ttl": 9}, {"step": 0}, {"step": 0}, {"step": 2}, {"fragment": 0}, {"fragment": 0},
    {"fragment": 0xC000}, {"fragment": 0x2000}, {"fragment": 0x4001}, {"ip_options": bytes(4)}, {"label": 5},
    {"extensions": ((0, bytes(7)),)}, {"extensions": ((0, bytes(7)),)}, {"extensions": ((44, bytes(7)),)},
    {"offset": 0x40}, {"offset": 0}, {"offset": 0xF0}, {"protocol": 50},
    {"break": True}, {"break": True}, {"zero": True}, {"trailing": b"x"}, {"cut": 1},
    {"cut": 130}, {"vlan": True}, {"garbage": b"\0"}, {"garbage": b"E"}, {"garbage": b""},
]  # fmt: skip


def addresses_of(version):
    return flows.NOISE[: 8 if version == 4 else 32]


def stream(flows_of_it, quirks, numbers, is_frame=False):
    """Packets of some flows: each number says which goes on, by how much, and what is odd about it."""
    state = {flow: [flow[2] * 1000, 65530] for flow in FLOWS}  # sequence number, identification
    quirks = [{}, {}, {}, *quirks]
    packets, flow = [], flows_of_it[0]
    for position, number in enumerate(numbers):
        number, other = divmod(number, 2)
        if other:
            number, choice = divmod(number, len(flows_of_it))
            flow = flows_of_it[choice]
        number, size = divmod(number, len(SIZES))
        quirk = quirks[number % len(quirks)]
        packets.append(packet_of(flow, state[flow], SIZES[size], position, quirk, is_frame))
    return packets


def packet_of(flow, state, size, position, quirk, is_frame):
    version, protocol, sport = flow
    payload = flows.NOISE[position : position + size]
    addresses = addresses_of(version)
    if protocol == 6:
        keys = ("ack", "flags", "reserved", "window", "urgent", "options")
        fields = {key: quirk[key] for key in keys if key in quirk}
        segment = flows.tcp_header(sport, 9, seq=state[0] + quirk.get("seq", 0), **fields) + payload
        segment = twins.replace(segment, 12, bytes([quirk.get("offset", segment[12])]))
        state[0] += size
    else:
        segment = flows.udp_header(sport, 9, size) + payload
    segment = flows.with_checksum(segment, addresses, protocol)
    if "zero" in quirk and protocol == 17:
        segment = segment[:6] + b"\0\0" + segment[8:]
    if "break" in quirk:
        segment = segment[:-1] + bytes([segment[-1] ^ 1])
    protocol = quirk.get("protocol", protocol)
    tos, ttl = quirk.get("tos", 0), quirk.get("ttl", 64)
    if version == 4:
        packet = flows.ipv4(
            addresses, protocol, segment, tos=tos, ttl=ttl, identification=state[1],
            fragment=quirk.get("fragment", 0x4000), options=quirk.get("ip_options", b""),
        )  # fmt: skip
        state[1] += quirk.get("step", 1)
    else:
        packet = flows.ipv6(
            addresses, protocol, segment, traffic_class=tos, hop_limit=ttl, label=quirk.get("label", 0),
            extensions=quirk.get("extensions", ()),
        )  # fmt: skip
    packet = quirk.get("garbage", packet[: len(packet) - quirk.get("cut", 0)] + quirk.get("trailing", b""))
    if is_frame and "garbage" not in quirk:
        packet = LINKS["vlan" in quirk] + (b"\x08\x00" if version == 4 else b"\x86\xdd") + packet
    return packet


STREAMS = st.tuples(
    st.lists(st.sampled_from(FLOWS), min_size=1, max_size=4),
    st.lists(st.sampled_from(QUIRKS), max_size=3),
    st.lists(st.integers(0, 2 * 4 * len(SIZES) * 6 * 8), min_size=6, max_size=30),
)
OPTIONS = st.fixed_dictionaries({
    "types": st.sampled_from([14, 14, 14, TCP4, TCP6, UDP, 0]),
    "is_frame": st.booleans(),
    "trusted": st.booleans(),
    "renumber": st.booleans(),
})  # fmt: skip
CHANGES = st.lists(
    st.tuples(st.integers(0, 29), st.integers(0, 80), st.integers(0, 255)), min_size=1, max_size=5
)


@functools.cache
def share_a_place(harness, one, other):
    """Whether two flows end each other's items, as they do if they have one place in the table."""
    state = {one: [0, 0], other: [0, 0]}
    packets = []
    for flow in (one, other, one):
        protocol, addresses, ports = flow
        sport, dport = struct.unpack("!HH", ports)
        if protocol == 6:
            segment = flows.tcp_header(sport, dport, seq=state[flow][0]) + b"x"
        else:
            segment = flows.udp_header(sport, dport, 1) + b"x"
        segment = flows.with_checksum(segment, addresses, protocol)
        if len(addresses) == 8:
            packets.append(flows.ipv4(addresses, protocol, segment, identification=state[flow][0]))
        else:
            packets.append(flows.ipv6(addresses, protocol, segment))
        state[flow][0] += 1
    return indices(harness.gro_coalesce(packets)) != [[[0, 2], [1]]]


def agree(harness, packets, options):
    """The kernel's items are the twin's, unless flows happened to meet at one place."""
    expected = twins.coalesce(packets, **options)
    found = harness.gro_coalesce(packets, **options)
    if found != expected:
        read = [twins.read(packet, 14, options["is_frame"], True) for packet in packets]
        keys = sorted({packet.flow for packet in read if not isinstance(packet, str)})
        assume(not any(share_a_place(harness, *pair) for pair in itertools.combinations(keys, 2)))
    assert found == expected


def test_the_flows_of_these_tests_have_places_of_their_own(harness):
    """So that no example is thrown away for nothing."""
    keys = [
        (protocol, addresses_of(version), struct.pack("!HH", sport, 9)) for version, protocol, sport in FLOWS
    ]
    assert not any(share_a_place(harness, *pair) for pair in itertools.combinations(keys, 2))


@pytest.mark.parametrize("quirk", QUIRKS, ids=str)
def test_every_quirk_before_among_and_behind_ordinary_packets(harness, quirk):
    orders = [(quirk, {}, {}), ({}, quirk, {}, {}), ({}, {}, quirk, quirk, quirk, {}), ({}, quirk, {}, quirk)]
    for flow, order, *values in itertools.product(FLOWS, orders, *[(False, True)] * 3):
        options = dict(zip(("is_frame", "trusted", "renumber"), values, strict=True))
        state = [0, 0]
        packets = [
            packet_of(flow, state, 100, position, kind, options["is_frame"])
            for position, kind in enumerate(order)
        ]
        agree(harness, packets, options)


@given(STREAMS, OPTIONS)
def test_packets_are_merged_as_by_the_twin(harness, made, options):
    agree(harness, stream(*made, options["is_frame"]), options)


@given(STREAMS, CHANGES, OPTIONS)
def test_hostile_packets_are_merged_as_by_the_twin(harness, made, changes, options):
    packets = [bytearray(packet) for packet in stream(*made, options["is_frame"])]
    for which, at, value in changes:
        if which < len(packets) and at < len(packets[which]):
            packets[which][at] = value
    agree(harness, [bytes(packet) for packet in packets], options)


@given(STREAMS, st.booleans())
def test_split_gives_back_the_very_packets_in_the_order_of_their_flow(made, udp):
    packets = [packet for packet in stream(*made) if packet]
    merged = offload.coalesce(packets, udp=udp)
    again = [
        segment for fields, packet in merged for segment in (offload.split(packet, fields) if packet else [])
    ]
    assert sorted(again) == sorted(packets)
    assert by_flow(again) == by_flow(packets)
    windows = twins.coalesce(packets, types=14 if udp else TCP4 | TCP6)
    expected = [(fields or bytes(10), packet) for window in windows for _, fields, packet in window]
    assert [(fields.tobytes(), packet) for fields, packet in merged] == expected


def by_flow(packets):
    """The packets of each flow, in order."""
    found = {}
    for packet in packets:
        read = twins.read(packet, 14, False, True)
        found.setdefault(read if isinstance(read, str) else read.flow, []).append(packet)
    return found


@given(
    flow=st.sampled_from(FLOWS),
    size=st.one_of(st.integers(1, 600), st.integers(400, 9000), st.sampled_from([1448, 32750])),
    count=st.integers(100, 140),
    options=st.sampled_from([b"", TIMESTAMPS]),
    trusted=st.booleans(),
)
def test_super_packets_are_no_larger_than_the_kernel_takes(harness, flow, size, count, options, trusted):
    """Of a flow that is one of packets of one size, all are full but the last."""
    _, protocol, _ = flow
    count = min(count, 100_000 // size)
    state = [0, 65500]
    quirk = {"options": options}
    packets = [packet_of(flow, state, size, number, quirk, False) for number in range(count)]
    headers = len(packets[0]) - size
    most = min((65535 - headers) // size, 64 if protocol == 17 else WINDOW)
    (items,) = harness.gro_coalesce(packets, trusted=trusted)
    assert [len(members) for members, _, _ in items] == [
        min(most, count - at) for at in range(0, count, most)
    ]
    assert max(len(packet) for _, _, packet in items) <= 65535
    assert [items] == twins.coalesce(packets, trusted=trusted)


@pytest.mark.parametrize("flow", FLOWS)
def test_65535_bytes_and_one_more(harness, flow):
    headers = len(packet_of(flow, [0, 0], 0, 0, {}, False))
    for more in (-1, 0, 1):
        state = [0, 0]
        sizes = [13_000] * 5 + [535 - headers + more]
        packets = [packet_of(flow, state, size, i, {}, False) for i, size in enumerate(sizes)]
        agree(harness, packets, {"is_frame": False})
        (items,) = harness.gro_coalesce(packets)
        assert [len(item[0]) for item in items] == ([5, 1] if more == 1 else [6])


@pytest.mark.parametrize("flow", FLOWS)
def test_every_length_of_the_last_packet(harness, flow):
    for size in (1, 2, 100, 129):
        for last in range(size + 2):
            state = [0, 0]
            sizes = (size, size, last, size)
            packets = [packet_of(flow, state, s, i, {}, False) for i, s in enumerate(sizes)]
            agree(harness, packets, {"is_frame": False})
