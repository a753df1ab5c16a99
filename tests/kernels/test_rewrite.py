"""Checksums made anew and updates of headers, against a slow twin and against what a receiver says."""

import pytest
import rewrite_twin as twin
from flows import NOISE, ipv4, ipv6, ones_sum
from hypothesis import example, given
from hypothesis import strategies as st
from rewrite_twin import (
    AH,
    BITS,
    DCCP,
    DESTINATION,
    ESP,
    FRAGMENT,
    GRE,
    HIP,
    HOP_BY_HOP,
    ICMP,
    ICMPV6,
    MOBILITY,
    ROUTING,
    SCTP,
    SHIM6,
    TCP,
    UDP,
    UDPLITE,
    Made,
)  # fmt: skip

from tuntap import _columns, testing

SOURCES = {4: bytes([10, 0, 0, 1, 192, 0, 2, 7]), 6: bytes.fromhex("fd" + "00" * 14 + "01") + NOISE[40:56]}
WITH_CHECKSUM = {4: [TCP, UDP, UDPLITE, ICMP], 6: [TCP, UDP, UDPLITE, ICMPV6]}
TAGS = [b"", b"\x81\x00\x70\x05", b"\x88\xa8\x00\x07\x81\x00\xe0\x05"]
FINAL = NOISE[100:116]


def made(
    version, protocol, payload, *, kind=None, coverage=0, tcp_options=b"", options=b"", extensions=(),
    tags=None, padding=b"", fragment=0x4000, **ports,
):  # fmt: skip
    """A packet whose checksums are right; in a frame if there are tags, be it none."""
    addresses = SOURCES[version]
    goes_on = any(number == ROUTING and rest[2] for number, rest in extensions)
    destination = FINAL if goes_on else addresses[len(addresses) // 2 :]
    if kind is None:
        kind = {ICMP: 8, ICMPV6: 128}.get(protocol)
    body, at = twin.transport(
        protocol, payload, addresses, destination, kind=kind, coverage=coverage, options=tcp_options, **ports
    )
    if version == 4:
        packet = ipv4(addresses, protocol, body, tos=0x45, options=options, fragment=fragment)
    else:
        packet = ipv6(addresses, protocol, body, traffic_class=0x45, label=0x12345, extensions=extensions)
    link = b"" if tags is None else NOISE[:12] + tags + (b"\x08\x00" if version == 4 else b"\x86\xdd")
    start = len(link) + len(packet) - len(body)
    places = ([len(link) + 10] if version == 4 else []) + ([] if at is None else [start + at])
    return Made(link + packet + padding, tags is not None, len(link), tuple(places), protocol)


PORTS = st.sampled_from([0, 1, 7, 255, 256, 0x7FFF, 0xFFFE, 0xFFFF])


COMMON = HOP_BY_HOP, ROUTING, FRAGMENT, AH, DESTINATION, MOBILITY


@st.composite
def packets(draw, protocols=WITH_CHECKSUM, extensions=COMMON):
    """Right ones, of every kind."""
    version = draw(st.sampled_from([4, 6]))
    protocol = draw(st.sampled_from(protocols[version]))
    at, size = draw(st.integers(0, 999)), draw(st.one_of(st.integers(0, 40), st.sampled_from([600, 1399])))
    payload = draw(st.sampled_from([NOISE[at : at + size], bytes(size), b"\xff" * size]))
    settings = {"sport": draw(PORTS), "dport": draw(PORTS)}
    if protocol == ICMP:
        settings["kind"] = draw(st.sampled_from([0, 8, 3, 11, 13]))
    if protocol == ICMPV6:
        settings["kind"] = draw(st.sampled_from([128, 129, 1, 135]))
    if protocol == TCP:
        settings["tcp_options"] = NOISE[: 4 * draw(st.integers(0, 10))]
    if protocol == UDPLITE:
        settings["coverage"] = draw(st.sampled_from([0, 8, 8 + size, 8 + size // 2]))
    if version == 4:
        settings["options"] = b"\1" * (4 * draw(st.sampled_from([0, 0, 1, 10])))
    else:
        numbers = draw(st.lists(st.sampled_from(extensions), max_size=3)) if extensions else []
        settings["extensions"] = [(number, twin.extension(number)) for number in numbers]
    if draw(st.booleans()):
        settings["tags"] = draw(st.sampled_from(TAGS))
    settings["padding"] = NOISE[: draw(st.sampled_from([0, 0, 1, 18]))]
    return made(version, protocol, payload, **settings)


@st.composite
def hostile(draw):
    """Right ones with some bytes of their headers changed, cut or not; and noise."""
    more = {4: [SCTP, DCCP, GRE, ICMPV6, AH], 6: [SCTP, DCCP, ESP, ICMP, 59]}
    kinds = {version: WITH_CHECKSUM[version] + more[version] for version in more}
    packet = draw(packets(kinds, (*COMMON, HIP, SHIM6)))
    data = bytearray(packet.data)
    for _ in range(draw(st.integers(0, 4))):
        at = min(draw(st.integers(0, 110)), len(data) - 1)
        data[at] = draw(st.one_of(st.integers(0, 255), st.sampled_from([0, 4, 6, 17, 44, 43, 58, 136, 255])))
    size = draw(st.one_of(st.just(len(data)), st.integers(0, min(len(data), 130))))
    return bytes(data[:size]), packet.is_frame


@st.composite
def changes(draw):
    """Fields and their values, some or all."""
    every = list(BITS)
    names = draw(st.one_of(st.just(every), st.lists(st.sampled_from(every), unique=True, max_size=4)))
    values = {}
    for name in names:
        largest = 2 ** BITS[name] - 1
        value = draw(st.one_of(st.integers(0, largest), st.sampled_from([0, 1, largest])))
        values[name] = value.to_bytes(16, "big") if BITS[name] == 128 else value
    return values


def as_numbers(fields):
    """As the twin has them: an address is a number, too."""
    return {name: int.from_bytes(v, "big") if isinstance(v, bytes) else v for name, v in fields.items()}


def damaged(packet, value):
    """With checksums that are wrong."""
    data = bytearray(packet.data)
    for at in packet.checksums:
        data[at : at + 2] = value.to_bytes(2, "big")
    return bytes(data)


# --- the twin ---


def test_the_twin_is_told_what_a_field_is_by_its_own_list():
    assert set(BITS) == set(_columns.UPDATABLE)


@pytest.mark.parametrize("family", [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")])
def test_packets_of_the_slow_builders_are_right_for_the_twin(family):
    for packet in (
        testing.udp(*family, 7, 9, b"odd"),
        testing.tcp(*family, 7, 9, b"odd"),
        testing.icmp_echo(*family, 7, 9, b"odd"),
    ):
        for frame in (packet, testing.ethernet("02:00:00:00:00:01", "02:00:00:00:00:02", packet)):
            is_frame = frame is not packet
            assert twin.is_right(frame, is_frame)
            assert twin.fix(frame, is_frame) == (True, frame)
            wrong = frame[:-1] + b"\0"
            assert not twin.is_right(wrong, is_frame)
            assert twin.fix(wrong, is_frame) != (True, wrong)


@given(packets())
def test_packets_to_begin_with_are_right(packet):
    assert twin.is_right(packet.data, packet.is_frame)


# --- fix_checksums ---


@given(packets(), st.sampled_from([0, 0xFFFF, 0x1234]))
def test_checksums_that_were_destroyed_come_back(harness, packet, value):
    wrong = damaged(packet, value)
    assert harness.rewrite_fix(wrong, packet.is_frame, guard=32) == (True, packet.data, True)
    assert harness.rewrite_fix(packet.data, packet.is_frame) == (True, packet.data, True)


@given(hostile(), st.integers(0, 120))
def test_fixing_whatever_comes(harness, packet, unfinished):
    data, is_frame = packet
    result, after, intact = harness.rewrite_fix(data, is_frame, unfinished, guard=32)
    assert intact
    assert (result, after) == twin.fix(data, is_frame, unfinished)
    assert harness.rewrite_fix(after, is_frame, unfinished) == (result, after, True)


def test_every_truncated_packet(harness):
    for version in (4, 6):
        for protocol in WITH_CHECKSUM[version]:
            for tags in (None, TAGS[2]):
                options = {"tcp_options": b"\1" * 8, "options": b"\1" * 4}
                packet = made(version, protocol, b"payload", tags=tags, **options)
                wrong = damaged(packet, 0x1234)
                for size in range(len(wrong)):
                    cut = wrong[:size]
                    result, after, intact = harness.rewrite_fix(cut, packet.is_frame, guard=32)
                    assert not result
                    assert intact
                    assert after == twin.fix(cut, packet.is_frame)[1]
                    assert after[packet.checksums[-1] :] == cut[packet.checksums[-1] :]


def test_what_has_no_checksum_that_is_known(harness):
    """Of IPv4 the header is right afterwards; what is behind it is as it was."""
    fragments = [made(4, UDP, b"x" * 40, fragment=fragment) for fragment in (0x2000, 0x2001, 0x0001)]
    others = [made(4, protocol, NOISE[:40]) for protocol in (SCTP, DCCP)]
    for packet in fragments + others:
        wrong = damaged(packet, 0x1234)
        result, after, _ = harness.rewrite_fix(wrong)
        assert not result
        assert after[:20] == packet.data[:20]
        assert after[20:] == wrong[20:]
    segments_left = made(6, TCP, b"x", extensions=[(ROUTING, twin.extension(ROUTING, segments_left=1))])
    for data in (
        made(6, SCTP, NOISE[:40]).data,
        made(6, DCCP, NOISE[:40]).data,
        made(6, TCP, b"", extensions=[(FRAGMENT, b"\0\0\1" + NOISE[:4])]).data,
        made(6, TCP, b"", extensions=[(FRAGMENT, b"\0\0\x08" + NOISE[:4])]).data,
        made(6, TCP, b"", extensions=[(HOP_BY_HOP, b"\x7f" + bytes(6))]).data,
        made(6, TCP, b"", extensions=[(DESTINATION, twin.extension(DESTINATION))] * 17).data,
        damaged(segments_left, 0x1234),
    ):
        assert harness.rewrite_fix(data) == (False, data, True)
    done = made(6, TCP, b"", extensions=[(DESTINATION, twin.extension(DESTINATION))] * 16)
    assert harness.rewrite_fix(damaged(done, 0)) == (True, done.data, True)


def test_what_needs_no_checksum_is_right(harness):
    for version in (4, 6):
        for protocol in (GRE, ESP, 59, *((ICMPV6, AH, HOP_BY_HOP) if version == 4 else (ICMP,))):
            packet = made(version, protocol, NOISE[:40], kind=8)
            data = packet.data if version == 6 else packet.data[:10] + b"\0\0" + packet.data[12:]
            assert harness.rewrite_fix(data) == (True, packet.data, True)
            assert harness.rewrite_fix(data[:-5]) == (True, packet.data[:-5], True)
    for data in (b"", b"\x45", bytes(60), b"\x50" * 60, NOISE[:12] + b"\x08\x06" + bytes(50)):
        assert harness.rewrite_fix(data, len(data) > 60) == (False, data, True)


def test_a_datagram_without_a_checksum_gets_one(harness):
    packet = made(4, UDP, b"odd")
    without = packet.data[:26] + b"\0\0" + packet.data[28:]
    assert harness.rewrite_fix(without) == (True, packet.data, True)


@pytest.mark.parametrize("version", [4, 6])
def test_zero_is_written_as_the_other_zero_where_it_means_none(harness, version):
    for protocol in WITH_CHECKSUM[version]:
        packet = made(version, protocol, b"\0\0abc", kind={ICMP: 0, ICMPV6: 129}.get(protocol))
        at, start = packet.checksums[-1], len(packet.data) - 5
        total = int.from_bytes(packet.data[at : at + 2], "big")
        data = packet.data[:start] + total.to_bytes(2, "big") + packet.data[start + 2 :]
        result, after, _ = harness.rewrite_fix(data)
        assert result
        expected = 0xFFFF if protocol in (UDP, UDPLITE) else 0
        assert int.from_bytes(after[at : at + 2], "big") == expected


def test_a_reply_of_nothing_but_zeros(harness):
    """The only message whose sum is 0, so that its checksum is 0xffff and no other zero will do."""
    zeros = made(4, ICMP, bytes(20), kind=0, sport=0, dport=0)
    assert zeros.data[22:24] == b"\xff\xff"
    for value in (0, 0x1234, 0xFFFF):
        assert harness.rewrite_fix(damaged(zeros, value)) == (True, zeros.data, True)
    before = made(4, ICMP, bytes(20), kind=0, sport=5, dport=0)
    for packet in (before, zeros):
        assert harness.rewrite_update(packet.data, {"icmp_id": 0}) == (True, zeros.data, True)
        assert harness.rewrite_update(packet.data, {"icmp_id": 5}) == (True, before.data, True)


@pytest.mark.parametrize("version", [4, 6])
def test_coverage_of_udp_lite(harness, version):
    """RFC 3828: of 0 all, of 1 to 7 or beyond the end nothing that could be right."""
    payload = NOISE[:13]
    for coverage in (0, 8, 9, 10, 20, 21):
        packet = made(version, UDPLITE, payload, coverage=coverage)
        changed = bytearray(damaged(packet, 0))
        if coverage:
            changed[len(changed) - 13 + coverage - 8 :] = bytes(21 - coverage)
        at = packet.checksums[-1]
        result, after, _ = harness.rewrite_fix(bytes(changed))
        assert result
        assert after[at : at + 2] == packet.data[at : at + 2]
    for coverage in (1, 7, 22, 0xFFFF):
        packet = made(version, UDPLITE, payload, coverage=coverage)
        data = damaged(packet, 0x1234)
        assert harness.rewrite_fix(data)[0] is False
        assert harness.rewrite_fix(data)[1][40:] == data[40:]
        assert harness.rewrite_update(data, {"src_port": 1}) == (False, data, True)


def test_the_length_of_udp_counts_not_that_of_ip(harness):
    packet = made(4, UDP, b"datagram")
    longer = ipv4(SOURCES[4], UDP, packet.data[20:] + b"what is behind it", tos=0x45)
    wrong = longer[:26] + b"\x12\x34" + longer[28:]
    assert harness.rewrite_fix(wrong) == (True, longer, True)


# --- row_update ---


@given(packets(), changes())
def test_an_update_is_writing_and_summing(harness, packet, fields):
    result, after, intact = harness.rewrite_update(packet.data, fields, packet.is_frame, guard=32)
    assert intact
    assert result
    assert twin.is_right(after, packet.is_frame)
    known, expected = twin.update(packet.data, packet.is_frame, as_numbers(fields))
    assert known
    assert twin.alike(after, expected, packet.is_frame)
    fixed, whole = harness.rewrite_fix(after, packet.is_frame)[:2]
    assert fixed
    assert twin.alike(after, whole, packet.is_frame)


@given(packets(), changes(), st.integers(0, 0xFFFF))
def test_what_is_wrong_stays_wrong_by_as_much(harness, packet, fields, value):
    wrong = damaged(packet, value)
    result, after, intact = harness.rewrite_update(wrong, fields, packet.is_frame, guard=32)
    assert (result, intact) == (True, True)
    right = harness.rewrite_update(packet.data, fields, packet.is_frame)[1]
    for at in packet.checksums:
        before, kept = twin.u16(packet.data, at), twin.u16(right, at)
        if value == 0 and packet.protocol in (UDP, UDPLITE) and at == packet.checksums[-1]:
            assert twin.u16(after, at) == 0
        else:
            assert (twin.u16(after, at) - kept) % 0xFFFF == (value - before) % 0xFFFF
    assert damaged(packet._replace(data=after), 0) == damaged(packet._replace(data=right), 0)


@given(hostile(), changes(), st.integers(0, 120))
def test_updating_whatever_comes(harness, packet, fields, unfinished):
    data, is_frame = packet
    result, after, intact = harness.rewrite_update(data, fields, is_frame, unfinished, guard=32)
    assert intact
    known, expected = twin.update(data, is_frame, as_numbers(fields), unfinished)
    assert result == known
    assert twin.alike(after, expected, is_frame)
    if not result:
        assert after == data
    if twin.is_right(data, is_frame) and not unfinished:
        assert twin.is_right(after, is_frame)


@pytest.mark.parametrize("name", BITS)
def test_a_field_alone_changes_itself_and_checksums(harness, name):
    largest = 2 ** BITS[name] - 1
    for version in (4, 6):
        for protocol in WITH_CHECKSUM[version]:
            for tags in (None, *TAGS):
                packet = made(version, protocol, b"payload", tags=tags, options=b"\1" * 4)
                for value in (0, 1, largest // 3, largest):
                    given_value = value.to_bytes(16, "big") if BITS[name] == 128 else value
                    result, after, intact = harness.rewrite_update(
                        packet.data, {name: given_value}, packet.is_frame, guard=16
                    )
                    known, expected = twin.update(packet.data, packet.is_frame, {name: value})
                    assert result
                    assert known
                    assert intact
                    assert twin.alike(after, expected, packet.is_frame)
                    assert twin.is_right(after, packet.is_frame)


def test_fields_that_a_packet_does_not_have_are_left_alone(harness):
    six = {"src6": b"\1" * 16, "dst6": b"\2" * 16, "flow_label": 1}
    of_others = {
        (4, UDP): {**six, "tcp_seq": 1, "tcp_flags": 1, "icmp_id": 1, "eth_src": 1, "vlan": 1},
        (4, TCP): {**six, "icmp_id": 1, "icmp_seq": 1, "vlan_priority": 1, "eth_dst": 1},
        (4, ICMP): {**six, "src_port": 1, "dst_port": 2, "tcp_seq": 3, "tcp_window": 4},
        (6, TCP): {"src4": 1, "dst4": 2, "ip_id": 3, "icmp_id": 4},
        (6, ICMPV6): {"src4": 1, "dst4": 2, "ip_id": 3, "src_port": 4, "dst_port": 4, "tcp_ack": 3},
    }
    for (version, protocol), fields in of_others.items():
        data = made(version, protocol, b"payload").data
        assert harness.rewrite_update(data, fields) == (True, data, True)
    unreachable = made(4, ICMP, b"payload", kind=3).data
    assert harness.rewrite_update(unreachable, {"icmp_id": 1, "icmp_seq": 2}) == (True, unreachable, True)
    data = made(4, UDP, b"payload", tags=b"").data
    assert harness.rewrite_update(data, {"vlan": 1, "vlan_priority": 2}, True) == (True, data, True)


@pytest.mark.parametrize("version", [4, 6])
def test_no_checksum_stays_none(harness, version):
    """RFC 768 for IPv4; over IPv6 tunnels may do without (RFC 6935), and others drop it before and after."""
    packet = made(version, UDP, b"payload")
    at = packet.checksums[-1]
    without = packet.data[:at] + b"\0\0" + packet.data[at + 2 :]
    fields = {"src_port": 1, "dst_port": 2, "src4": 3, "dst6": b"\4" * 16}
    result, after, _ = harness.rewrite_update(without, fields)
    assert result
    assert after[at : at + 2] == b"\0\0"
    assert after[at - 6 : at - 2] == b"\0\1\0\2"


def test_a_destination_that_is_not_the_last_is_in_no_checksum(harness):
    rest = twin.extension(ROUTING, segments_left=1)
    before = made(6, UDP, b"payload", extensions=[(HOP_BY_HOP, twin.extension(HOP_BY_HOP)), (ROUTING, rest)])
    result, after, _ = harness.rewrite_update(before.data, {"dst6": b"\4" * 16})
    assert result
    assert after == before.data[:24] + b"\4" * 16 + before.data[40:]
    at = before.checksums[-1]
    result, after, _ = harness.rewrite_update(before.data, {"src6": b"\4" * 16})
    assert result
    assert twin.u16(after, at) == twin.u16(
        twin.transport(UDP, b"payload", b"\4" * 16 + bytes(16), FINAL)[0], 6
    )


def test_what_cannot_follow_is_not_written(harness):
    four, six = {"src4": 1}, {"src6": b"\1" * 16}
    for packet, fields in (
        (made(4, SCTP, NOISE[:40]).data, {"src_port": 1}),
        (made(6, SCTP, NOISE[:40]).data, {"dst_port": 1}),
        (made(4, DCCP, NOISE[:40]).data, four),
        (made(6, DCCP, NOISE[:40]).data, six),
        (made(4, TCP, b"").data[:-1], four),
        (made(4, TCP, b"", fragment=0x2000).data[:36], {"dst_port": 4}),
        (made(4, UDP, b"").data[:27], four),
        (made(6, UDP, b"").data[:47], six),
        (made(6, UDP, b"", extensions=[(HOP_BY_HOP, b"\7" + bytes(6))]).data, six),
        (made(6, 59, b"")[0][:6] + bytes([HOP_BY_HOP]) + made(6, 59, b"").data[7:44], six),
    ):
        others = {"ttl": 3, "dscp": 7}
        assert harness.rewrite_update(packet, fields | others, guard=8) == (False, packet, True)
        result, after, _ = harness.rewrite_update(packet, others)
        assert result
        assert after != packet
    for version in (4, 6):
        sctp = made(version, SCTP, NOISE[:40]).data
        addresses = four if version == 4 else six
        result, after, _ = harness.rewrite_update(sctp, addresses)
        assert result
        assert after[-52:] == sctp[-52:]
        # Cut, but of what there is no checksum behind the IP header.
        result, after, _ = harness.rewrite_update(made(version, GRE, NOISE[:40]).data[:-9], addresses)
        assert result
        assert twin.is_right(after, False)


# --- the parts of a packet ---


def parts_of(data, sizes):
    """An IP packet in fragments of so many bytes, the last of the rest (RFC 791, RFC 8200 section 4.5)."""
    is_ipv4, parts, at = data[0] >> 4 == 4, [], 0
    header = data[:20] if is_ipv4 else data[:40]
    body = data[len(header) :]
    for size in [*sizes, len(body) - sum(sizes)]:
        piece, more = body[at : at + size], at + size < len(body)
        if is_ipv4:
            parts.append(ipv4(header[12:20], header[9], piece, tos=header[1], fragment=at // 8 | more << 13))
        else:
            extension = (FRAGMENT, b"\0" + (at | more).to_bytes(2, "big") + NOISE[:4])
            parts.append(ipv6(header[8:40], header[6], piece, extensions=[extension]))
        at += size
    return parts


def together(parts):
    """What a receiver makes of them."""
    is_ipv4 = parts[0][0] >> 4 == 4
    body = b"".join(part[20 if is_ipv4 else 48 :] for part in parts)
    if is_ipv4:
        return ipv4(parts[0][12:20], parts[0][9], body, tos=parts[0][1], ttl=parts[0][8])
    return ipv6(parts[0][8:40], parts[0][40], body, hop_limit=parts[0][7])


@given(
    st.sampled_from([4, 6]), st.integers(0, 3), changes(), st.sampled_from([0, 8, 9, 60, 208]),
    st.lists(st.sampled_from([24, 32, 64]), min_size=1, max_size=2),
)  # fmt: skip
@example(4, 2, {"src4": 1, "dst_port": 3}, 208, [24, 24])
def test_parts_are_updated_one_by_one(harness, version, which, fields, coverage, sizes):
    protocol = WITH_CHECKSUM[version][which]
    whole = made(version, protocol, NOISE[:200], coverage=coverage).data
    parts = parts_of(whole, sizes)
    assert twin.is_right(together(parts), False)
    updated = []
    for part in parts:
        result, after, intact = harness.rewrite_update(part, fields, guard=16)
        assert (result, intact) == (True, True)
        updated.append(after)
    assert all(ones_sum(part[:20]) == 0xFFFF for part in updated if version == 4)
    assert twin.is_right(together(updated), False)
    for name in ("src4", "dst4", "src6", "dst6", "ttl"):
        at, size = {"src4": (12, 4), "dst4": (16, 4), "src6": (8, 16), "dst6": (24, 16), "ttl": (8, 1)}[name]
        if name == "ttl" and version == 6:
            at = 7
        if name in fields and (name == "ttl" or name[-1] == str(version)):
            written = as_numbers(fields)[name].to_bytes(size, "big")
            assert {part[at : at + size] for part in updated} == {written}


# --- checksums that a device finishes ---


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", [TCP, UDP])
@given(fields=changes(), tags=st.sampled_from([None, *TAGS]))
def test_an_unfinished_checksum_is_finished_rightly_after_an_update(harness, version, protocol, fields, tags):
    """A device sums from csum_start on, and writes to csum_offset behind it (virtio-net)."""
    packet = made(version, protocol, NOISE[:77], tags=tags)
    at = packet.checksums[-1]
    start = at - twin.CHECKSUM_AT[protocol]
    begun = bytearray(packet.data)
    total = twin.pseudo_sum(packet.data, twin.read(packet.data, packet.is_frame)) + len(packet.data) - start
    begun[at : at + 2] = ones_sum(b"", total).to_bytes(2, "big")
    assert finished(begun, start, at) == packet.data
    result, after, intact = harness.rewrite_update(bytes(begun), fields, packet.is_frame, at, guard=16)
    assert (result, intact) == (True, True)
    right = harness.rewrite_update(packet.data, fields, packet.is_frame)[1]
    assert twin.alike(finished(after, start, at), right, packet.is_frame)
    after = after[:at] + b"\x12\x34" + after[at + 2 :]
    result, fixed, intact = harness.rewrite_fix(after, packet.is_frame, at, guard=16)
    assert (result, intact) == (True, True)
    assert twin.alike(finished(fixed, start, at), right, packet.is_frame)


def finished(data, start, at):
    """As a device does it; zero is written as the other zero (skb_checksum_help)."""
    value = 0xFFFF - ones_sum(bytes(data[start:])) or 0xFFFF
    return bytes(data[:at]) + value.to_bytes(2, "big") + bytes(data[at + 2 :])
