"""Coalescing, with the kernel's own GRO as the judge: what it keeps apart we keep apart.

A TUN with IFF_NAPI puts what is written to it through GRO, which with gro_flush_timeout holds
packets from one write to the next; a packet socket behind it sees what was merged.
"""

import contextlib
import fcntl
import itertools
import os
import struct
import subprocess

import ethtool
import pytest
import superpackets as make
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from superpackets import ACK, CWR, ECE, FIN, KINDS, PSH, RST, SYN, URG, Watch, layout_of, packet

import tuntap
from tuntap import offload

SETIFF, TUN, NO_PI, NAPI = 0x400454CA, 0x1, 0x1000, 0x10
FLUSH_AFTER = 1_000_000  # nanoseconds
TIMESTAMPS = bytes.fromhex("0101080a0102030405060708")


def groups_of(watch, packets):
    """Read until every packet came: ((indices of its packets), header, super-packet) each."""
    left = list(range(len(packets)))
    found = []
    while left:
        header, data = watch.receive()
        found.append((take(left, packets, header, data), header, data))
    return sorted(found, key=lambda one: one[0])


def take(left, packets, header, data):
    """Which of the packets are in a super-packet; the payload of each is one byte, over and over."""
    if header["gso_type"] == 0:
        members = [next(i for i in left if packets[i] == data)]
    else:
        members = []
        for byte, _ in itertools.groupby(data[layout_of(data)[2] :]):
            members.append(next(i for i in left if i not in members and first_byte(packets[i]) == byte))
    for i in members:
        left.remove(i)
    return tuple(members)


def first_byte(data):
    return data[layout_of(data)[2]] if layout_of(data)[2] < len(data) else None


@pytest.fixture(scope="module")
def kernel(_private_network, tmp_path_factory):
    """Write packets where the kernel merges them; the groups it made."""
    if _private_network:
        pytest.skip(_private_network)
    with contextlib.ExitStack() as stack:
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        stack.callback(os.close, fd)
        fcntl.ioctl(fd, SETIFF, struct.pack("16sH22x", b"gro0", TUN | NO_PI | NAPI))
        subprocess.run(["ip", "link", "set", "gro0", "up"], check=True)
        sysfs = tmp_path_factory.mktemp("sysfs")
        subprocess.run(["mount", "-t", "sysfs", "sysfs", sysfs], check=True)
        stack.callback(subprocess.run, ["umount", "--lazy", sysfs], check=True)
        try:
            (sysfs / "class/net/gro0/gro_flush_timeout").write_text(str(FLUSH_AFTER))
        except PermissionError:
            pytest.skip("only root may have GRO hold packets: run the tests as root")
        ethtool.switch_on("gro0", "rx-udp-gro-forwarding")
        watch = stack.enter_context(Watch("gro0"))
        yield lambda packets, is_right, attempts=30: merge(fd, watch, packets, is_right, attempts)


def merge(fd, watch, packets, is_right, attempts):
    """Some attempts: time may pass between two writes, and then the kernel waits no longer."""
    for _ in range(attempts):
        for one in packets:
            os.write(fd, one)
        found = groups_of(watch, packets)
        if is_right(found):
            break
    return found


@pytest.fixture(scope="module")
def device(_private_network):
    """Send packets through a device with offload; what it wrote."""
    if _private_network:
        pytest.skip(_private_network)
    with tuntap.Tun("gro1", offload=True, quiet=True) as tun, Watch("gro1") as watch:
        batch = tuntap.PacketBatch(256, 65536)

        def send(packets):
            batch.fill(packets)
            sent = 0
            while sent < len(packets):
                sent += tun.send_batch(batch, start=sent)
            return groups_of(watch, packets)

        yield send


def coalesce(packets):
    """`offload.coalesce`, in the same form."""
    left = list(range(len(packets)))
    found = [(take(left, packets, header, data), header, data) for header, data in offload.coalesce(packets)]
    assert not left
    return sorted(found, key=lambda one: one[0])


def flow(kind, changes):
    """Packets of a flow that follow one another, each with its changes."""
    packets, seq = [], 0
    for i, change in enumerate(changes):
        fields = {"ident": i, "seq": seq, **change}
        size, edit = fields.pop("size", 100), fields.pop("edit", lambda one: one)
        if kind[:3] == "udp":
            del fields["seq"]
        seq += size
        packets.append(edit(packet(kind, bytes([i % 255]) * size, **fields)))
    return packets


def broken(data):
    """With a checksum that is wrong."""
    protocol, at, _ = layout_of(data)
    at += 16 if protocol == make.TCP else 6
    return data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]


def broken_ip(data):
    return data[:10] + bytes([data[10] ^ 0x55]) + data[11:]


def padded(data):
    return data + b"\xff"


def with_transport(at, value):
    """Other bytes in the TCP or UDP header."""

    def edit(data):
        where = layout_of(data)[1] + at
        return data[:where] + value + data[where + len(value) :]

    return edit


def short_offset(data):
    return with_transport(12, b"\x40")(data)


def text(groups):
    """ "012 3" for [(0, 1, 2), (3,)]."""
    return " ".join("".join("0123456789abcdef"[i] for i in group) for group, *_ in groups)


SAME = {}
OPTION = {"options": TIMESTAMPS}
OTHER_OPTION = {"options": TIMESTAMPS[:-1] + b"\xff"}
OTHER_DESTINATION = {"extensions": [(make.DESTINATION, b"\1\4\1\0\0\0")]}
DESTINATION = {"extensions": [(make.DESTINATION, b"\1\4\0\0\0\0")]}
MAY_FRAGMENT = {"fragment": 0}
NO_CHECKSUM = {"edit": with_transport(6, b"\0\0")}
WRONG = {"edit": broken}

# Of each case: the packets, and which of them the kernel merges.
ANY_CASES = {
    "a run": ([SAME] * 6, "012345"),
    "two flows": ([{"sport": 7 + i % 2, "seq": i // 2 * 100, "ident": i // 2} for i in range(6)], "024 135"),
    "other ports": ([SAME, SAME, {"dport": 10}, {"dport": 10}], "01 23"),
    "a short one ends it": ([SAME, SAME, {"size": 50}, SAME, SAME], "012 34"),
    "equally short ones": ([SAME, {"size": 50}, {"size": 50}], "01 2"),
    "larger ones": ([SAME, SAME, {"size": 101}, {"size": 101}], "01 23"),
    "a short one first": ([{"size": 50}, SAME, SAME], "0 12"),
    "a payload of one byte": ([{"size": 1}] * 3, "012"),
    "no payload": ([SAME, SAME, {"size": 0}, SAME, SAME], "01 2 34"),
    "no payload at all": ([{"size": 0}] * 3, "0 1 2"),
    "time to live": ([SAME, SAME, {"ttl": 63}, {"ttl": 63}], "01 23"),
    "type of service": ([SAME, SAME, {"tos": 4}, {"tos": 4}], "01 23"),
    "congestion experienced": ([SAME, SAME, {"tos": 3}, {"tos": 3}], "01 23"),
    "a wrong checksum": ([SAME, SAME, WRONG, SAME, SAME], "01 2 34"),
    "a wrong checksum first": ([WRONG, SAME, SAME], "0 12"),
    "a wrong checksum last": ([SAME, SAME, WRONG], "01 2"),
    "wrong checksums": ([WRONG] * 3, "0 1 2"),
    "bytes behind the end": ([SAME, SAME, {"edit": padded}, SAME, SAME], "01 2 34"),
}
FLAGS = {"PSH": PSH, "FIN": FIN, "SYN": SYN, "RST": RST, "URG": URG, "ECE": ECE, "CWR": CWR}
TCP_CASES = {
    **{
        f"{name} in between": (
            [SAME, SAME, {"flags": ACK | flag}, SAME, SAME],
            "012 34" if name in ("PSH", "FIN") else "01 2 34",
        )
        for name, flag in FLAGS.items()
    },
    **{f"{name} first": ([{"flags": ACK | flag}, SAME, SAME, SAME], "0 123") for name, flag in FLAGS.items()},
    **{
        f"{name} on all": ([{"flags": ACK | flag}] * 4, "0123" if name == "ECE" else "0 1 2 3")
        for name, flag in FLAGS.items()
    },
    "FIN and PSH": ([SAME, SAME, {"flags": ACK | FIN | PSH}, SAME], "012 3"),
    "no ACK": ([SAME, SAME, {"flags": 0}, {"flags": 0}], "01 23"),
    "acknowledgement": ([SAME, SAME, {"ack": 2}, {"ack": 2}], "01 23"),
    "window": ([SAME, SAME, {"window": 2}, {"window": 2}], "01 23"),
    "urgent pointer": ([SAME, SAME, {"urgent": 2}, {"urgent": 2}], "0123"),
    "options": ([OPTION] * 4, "0123"),
    "options in some": ([SAME, SAME, OPTION, OPTION], "01 23"),
    "other options": ([OPTION, OPTION, OTHER_OPTION, OTHER_OPTION], "01 23"),
    "a gap": ([SAME, SAME, {"seq": 250}, {"seq": 350}], "01 23"),
    "an overlap": ([SAME, SAME, {"seq": 150}, {"seq": 250}], "01 23"),
    "a repetition": ([SAME, SAME, {"seq": 100}, {"seq": 200}], "01 23"),
    "the wrong order": ([{"seq": 300}, {"seq": 200}, {"seq": 100}], "0 1 2"),
    "the sequence number wraps": ([{"seq": 2**32 - 150}, {"seq": 2**32 - 50}, {"seq": 50}], "012"),
    "a header that is too short": ([SAME, SAME, {"edit": short_offset}, SAME, SAME], "01 2 34"),
}
UDP_CASES = {
    "no checksum": ([NO_CHECKSUM] * 3, "0 1 2"),
    "no checksum in between": ([SAME, SAME, NO_CHECKSUM, SAME, SAME], "01 2 34"),
    "no checksum first": ([NO_CHECKSUM, SAME, SAME], "0 12"),
    "a length that is too short": (
        [SAME, SAME, {"edit": with_transport(4, b"\0\x50")}, SAME, SAME],
        "01 2 34",
    ),
}
IPV4_CASES = {
    "may be fragmented": ([MAY_FRAGMENT] * 4, "0123"),
    "some may be fragmented": ([SAME, SAME, MAY_FRAGMENT, MAY_FRAGMENT], "01 23"),
    "identification jumps": ([SAME, SAME, {"ident": 7}, {"ident": 8}], "01 23"),
    "identification jumps, may be fragmented": (
        [MAY_FRAGMENT, MAY_FRAGMENT, {"ident": 7, **MAY_FRAGMENT}, {"ident": 8, **MAY_FRAGMENT}],
        "01 23",
    ),
    "identification counts down": ([{"ident": 9 - i} for i in range(4)], "0 1 2 3"),
    "identification wraps": ([{"ident": 65534 + i} for i in range(4)], "0123"),
    "one identification": ([{"ident": 7}] * 4, "0123"),
    "one identification, may be fragmented": ([{"ident": 7, **MAY_FRAGMENT}] * 4, "0123"),
    "one identification, then counted": ([{"ident": i} for i in (7, 7, 7, 8, 9)], "012 34"),
    "counted, then one identification": ([{"ident": i} for i in (7, 8, 9, 9, 9)], "012 34"),
    "a first fragment": ([SAME, SAME, {"fragment": 0x2000}, SAME, SAME], "01 2 34"),
    "a last fragment": ([SAME, SAME, {"fragment": 0x10}, SAME, SAME], "01 2 34"),
    "fragments": ([{"fragment": 0x2000}] * 3, "0 1 2"),
    "the reserved bit": ([{"fragment": 0xC000}] * 3, "0 1 2"),
    "IP options": ([{"ip_options": b"\1\1\1\0"}] * 3, "0 1 2"),
    "IP options in one": ([SAME, SAME, {"ip_options": b"\1\1\1\0"}, SAME, SAME], "01 2 34"),
    "a wrong header checksum": ([SAME, SAME, {"edit": broken_ip}, SAME, SAME], "01 2 34"),
    "a wrong header checksum first": ([{"edit": broken_ip}, SAME, SAME], "0 12"),
}
IPV6_CASES = {
    "flow label": ([SAME, SAME, {"label": 1}, {"label": 1}], "01 23"),
    "hop-by-hop options": ([{"extensions": [(make.HOP_BY_HOP, b"\1\4\0\0\0\0")]}] * 3, "012"),
    "destination options": ([DESTINATION] * 3, "012"),
    "destination options in some": ([SAME, SAME, DESTINATION, DESTINATION], "01 23"),
    "other destination options": ([DESTINATION, DESTINATION, OTHER_DESTINATION, OTHER_DESTINATION], "01 23"),
    "a routing header": ([{"extensions": [(make.ROUTING, bytes(6))]}] * 3, "012"),
    "a long extension header": ([{"extensions": [(make.DESTINATION, b"\1\xfc" + bytes(252))]}] * 3, "012"),
}

# Where the kernel merges more.  It forgets what splitting would then have to know: the urgent pointers,
# and that identifications were one and the same (a device may renumber those that mean nothing).
STRICTER = {
    "urgent pointer": ("01 23", "01 23"),
    "one identification": ("0 1 2 3", "0123"),
    "one identification, may be fragmented": ("0 1 2 3", "0 1 2 3"),
    "one identification, then counted": ("0 1 234", "012 34"),
    "counted, then one identification": ("012 3 4", "012 34"),
    # Headers of more than 256 bytes.
    "a long extension header": ("0 1 2", "0 1 2"),
}
# Datagrams of IPv6 have no number: what the kernel does not merge it lets overtake those before it.
OVERTAKEN = {
    name: "0134 2"
    for name in (
        "no payload", "a wrong checksum", "bytes behind the end", "no checksum in between",
        "a length that is too short",
    )
}  # fmt: skip


def cases_of(kind):
    cases = ANY_CASES | (TCP_CASES if kind[:3] == "tcp" else UDP_CASES)
    return cases | (IPV4_CASES if kind[3] == "4" else IPV6_CASES)


@pytest.mark.parametrize(
    ("kind", "case"), [pytest.param(k, c, id=f"{k}: {c}") for k in KINDS for c in cases_of(k)]
)
def test_what_is_merged(kernel, device, kind, case):
    changes, merged = cases_of(kind)[case]
    packets = flow(kind, changes)
    coalesced, sent = STRICTER.get(case, (merged, merged))
    if kind == "udp6":
        merged = OVERTAKEN.get(case, merged)
    theirs = kernel(packets, lambda found: text(found) == merged)
    assert text(theirs) == merged
    for ours, expected in ((coalesce(packets), coalesced), (device(packets), sent)):
        assert text(ours) == expected
        check_merged_by_kernel(kernel, packets, ours, theirs)


def check_merged_by_kernel(kernel, packets, ours, theirs):
    """Each of our super-packets is what the kernel makes of its packets, here or when there are no others."""
    by_group = {group: (header, data) for group, header, data in theirs}
    for group, header, data in ours:
        if len(group) > 1 and group not in by_group:
            alone = kernel([packets[i] for i in group], lambda found: len(found) == 1)
            assert len(alone) == 1, f"the kernel does not merge {group}"
            by_group[group] = alone[0][1:]
        if group in by_group:
            other, expected = by_group[group]
            # DATA_VALID and hdr_len are hints, and differ.
            assert header["flags"] == other["flags"] & make.NEEDS_CSUM
            for name in ("gso_type", "gso_size", "csum_start", "csum_offset"):
                assert header[name] == other[name], name
            assert data == expected


@pytest.mark.parametrize("kind", KINDS)
def test_up_to_65535_bytes(kernel, device, kind):
    """The largest packet exactly, and one byte more."""
    room = 65535 - layout_of(packet(kind))[2]
    size = room // 5 + 1
    for last, merged in ((room - 4 * size, "01234"), (room - 4 * size + 1, "0123 4")):
        packets = flow(kind, [{"size": size}] * 4 + [{"size": last}])
        theirs = kernel(packets, lambda found, merged=merged: text(found) == merged)
        assert text(theirs) == merged
        for ours in (coalesce(packets), device(packets)):
            assert text(ours) == merged
            check_merged_by_kernel(kernel, packets, ours, theirs)


@pytest.mark.parametrize("kind", ["tcp4", "tcp6"])
def test_any_number_of_segments(kernel, device, kind):
    packets = flow(kind, [{"size": 10}] * 250)
    theirs = kernel(packets, lambda found: len(found) == 1)
    for ours in (coalesce(packets), device(packets)):
        assert len(ours) == len(theirs) == 1
        check_merged_by_kernel(kernel, packets, ours, theirs)


def lengths(groups):
    return [len(group) for group, *_ in groups]


@pytest.mark.parametrize("kind", ["udp4", "udp6"])
def test_64_datagrams(kernel, device, kind):
    packets = flow(kind, [{"size": 10}] * 130)
    theirs = kernel(packets, lambda found: lengths(found) == [64, 64, 2])
    assert lengths(theirs) == [64, 64, 2]
    for ours in (coalesce(packets), device(packets)):
        assert lengths(ours) == [64, 64, 2]
        assert [one for _, header, data in ours for one in offload.split(data, header)] == packets


# --- what no list of cases thinks of ---

numbers = st.integers


@st.composite
def flows(draw):
    """Packets of some flows, most of which can be merged, and some changed in one field."""
    packets, state = [], {}
    for number in range(draw(numbers(2, 25))):
        kind = draw(st.sampled_from(KINDS))
        size = draw(st.sampled_from([100, 100, 100, 100, 37, 101, 0]))
        seq, ident, common = state.get(kind, (2**32 - 250, 65533, {}))
        common = common or draw(
            st.sampled_from([{}, {"tos": 3, "ttl": 9}, {"window": 9, "flags": ACK | ECE}])
        )
        if kind[:3] == "udp":
            common = {name: value for name, value in common.items() if name in ("tos", "ttl")}
        fields = {**common, "ident": ident} | ({"seq": seq} if kind[:3] == "tcp" else {})
        change = draw(st.one_of(st.just({}), st.just({}), st.sampled_from(CHANGES[kind])))
        edit = change.get("edit", lambda one: one)
        fields |= {name: value for name, value in change.items() if name != "edit"}
        state[kind] = (seq + size, ident + draw(st.sampled_from([0, 1, 1, 1, 1])), common)
        packets.append(edit(packet(kind, bytes([number]) * size, **fields)))
    return packets


CHANGES = {
    kind: [change for changes, _ in cases_of(kind).values() for change in changes if "size" not in change]
    for kind in KINDS
}


def test_any_packets(kernel, device):
    @settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
    @given(flows())
    def agree(packets):
        coalesced = coalesce(packets)
        for ours in (coalesced, device(packets)):
            theirs = kernel(
                packets, lambda found, ours=ours: {g for g, *_ in ours} == {g for g, *_ in found}, 2
            )
            check_merged_by_kernel(kernel, packets, ours, theirs)
        for group, header, data in coalesced:
            assert offload.split(data, header) == [packets[i] for i in group]

    agree()
