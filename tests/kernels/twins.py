"""Slow twins of the GSO, GRO, BPF and pcap kernels, written from the RFCs and from what Linux does.

`split` is what Linux makes of a super-packet (tcp_gso_segment, __udp_gso_segment, skb_checksum_help), or
refuses (virtio_net_hdr_to_skb).  `coalesce` is what its GRO merges (tcp_gro_receive, udp_gro_receive,
inet_gro_receive), less what would not come apart into the very same bytes.  `records` is what bpf(4) says of
the bytes of one read.  `capture` is what the drafts of pcap and pcapng say of a file.
"""

import struct
from typing import NamedTuple

from flows import ones_sum

NEEDS_CSUM = 1
GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, GSO_ECN = 0, 1, 4, 5, 0x80
HEADER = "=BBHHHH"  # flags, gso_type, hdr_len, gso_size, csum_start, csum_offset
TCP, UDP = 6, 17
HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION_OPTIONS = 0, 43, 44, 60
FIN, SYN, RST, PSH, URG, CWR = 0x01, 0x02, 0x04, 0x08, 0x20, 0x80
CHECKSUM_AT = {TCP: 16, UDP: 6}
UDP_MAX_SEGMENTS = 128  # linux/udp.h: what Linux splits
UDP_GRO_CNT_MAX = 64  # net/ipv4/udp_offload.c: what its GRO merges
LARGEST = 65535
WINDOW = 256  # packets that are looked at together
HEADERS_MAX = 256  # bytes of headers, more than which are not merged
MERGE_TCPV4, MERGE_TCPV6, MERGE_UDP = 2, 4, 8


class Refused(Exception):
    """The kernel refuses the packet with its header."""


class Layout(NamedTuple):
    version: int
    network: int  # where the IP header starts
    transport: int  # where the header behind it, its options and extensions starts
    end: int  # where the packet ends, as the IP header has it
    protocol: int
    is_fragment: bool
    addresses: bytes


def u16(data, at):
    return struct.unpack_from("!H", data, at)[0]


def locate(packet, is_frame=False):
    """Where the headers of an IP packet or Ethernet frame are; None if they are not all there."""
    try:
        return _locate(packet, is_frame)
    except (IndexError, struct.error):
        return None


def _locate(packet, is_frame):
    network = 0
    if is_frame:
        network, tags = 14, 0
        while u16(packet, network - 2) in (0x8100, 0x88A8) and tags < 2:  # IEEE 802.1Q, 802.1ad
            network, tags = network + 4, tags + 1
        if (u16(packet, network - 2), packet[network] >> 4) not in ((0x0800, 4), (0x86DD, 6)):
            return None
    version = packet[network] >> 4
    if version == 4:
        size = 4 * (packet[network] & 15)
        header = packet[network : network + size]
        if size < 20 or len(header) < size:
            return None
        # RFC 791: "more fragments", and an offset.
        is_fragment = u16(header, 6) & 0x3FFF != 0
        end = network + u16(header, 2)
        return Layout(4, network, network + size, end, header[9], is_fragment, header[12:20])
    if version == 6:
        header = packet[network : network + 40]
        if len(header) < 40:
            return None
        at, protocol = network + 40, header[6]
        while protocol in (HOP_BY_HOP, ROUTING, DESTINATION_OPTIONS):  # RFC 8200, section 4
            protocol, at = packet[at], at + 8 * (packet[at + 1] + 1)
        if at > len(packet):
            return None
        end = network + 40 + u16(header, 4)
        return Layout(6, network, at, end, protocol, protocol == FRAGMENT, header[8:40])
    return None


def replace(data, at, value):
    """Bytes with other bytes in place of those at `at`."""
    return data[:at] + value + data[at + len(value) :]


def with_length(headers, layout, size):
    """The headers of a packet that has `size` bytes in all: IP length and header checksum, UDP length."""
    network = layout.network
    if layout.version == 4:
        headers = replace(headers, network + 2, struct.pack("!H", size - network))
        headers = replace(headers, network + 10, b"\0\0")
        header = headers[network : layout.transport]
        headers = replace(headers, network + 10, struct.pack("!H", 0xFFFF - ones_sum(header)))
    else:
        headers = replace(headers, network + 4, struct.pack("!H", size - network - 40))
    if layout.protocol == UDP:
        headers = replace(headers, layout.transport + 4, struct.pack("!H", size - layout.transport))
    return headers


# --- split ---


def complete(packet, header):
    """A packet that is no super-packet, with the checksum that was left to the device (skb_checksum_help)."""
    flags, _, _, _, start, offset = struct.unpack(HEADER, header)
    if not flags & NEEDS_CSUM:
        return packet
    at = start + offset
    if start >= len(packet) or at + 2 > len(packet):
        raise Refused
    value = 0xFFFF - ones_sum(packet[start:])
    return replace(packet, at, struct.pack("!H", value or 0xFFFF))


def split(packet, header, is_frame=False, checksums=True):
    """The packets that a super-packet stands for; without checksums they hold the pseudo-header's sum."""
    flags, gso_type, _, gso_size, start, offset = struct.unpack(HEADER, header)
    kind = gso_type & ~GSO_ECN
    if kind == GSO_NONE:
        return [complete(packet, header)]
    layout = locate(packet, is_frame)
    if layout is None or layout.is_fragment or gso_size == 0 or gso_type == GSO_UDP_L4 | GSO_ECN:
        raise Refused
    version, transport, protocol = layout.version, layout.transport, layout.protocol
    if (kind, protocol) not in ((GSO_TCPV4 if version == 4 else GSO_TCPV6, TCP), (GSO_UDP_L4, UDP)):
        raise Refused
    checksum_at = CHECKSUM_AT[protocol]
    if flags & NEEDS_CSUM:
        if (start, offset) != (transport, checksum_at):
            raise Refused
    elif protocol == UDP:
        raise Refused
    if protocol == TCP:
        size = 4 * (packet[transport + 12] >> 4) if len(packet) > transport + 12 else 0
        if size < 20:
            raise Refused
    else:
        size = 8
    headers, payload = packet[: transport + size], packet[transport + size :]
    if len(headers) < transport + size:
        raise Refused
    parts = [payload[at : at + gso_size] for at in range(0, len(payload), gso_size)]
    if len(parts) < 2:
        return [complete(packet, header)]
    if protocol == UDP and len(parts) > UDP_MAX_SEGMENTS:
        raise Refused

    # The sum of the pseudo-header, less its length: what the kernel left in the checksum field.
    if flags & NEEDS_CSUM:
        length = len(packet) - transport if protocol == TCP else u16(packet, transport + 4)
        pseudo = u16(packet, transport + checksum_at) + (0xFFFF - length)
    else:
        pseudo = ones_sum(layout.addresses, protocol)
    headers = replace(headers, transport + checksum_at, b"\0\0")
    segments = []
    for number, part in enumerate(parts):
        head = headers
        if version == 4:
            identification = (u16(head, layout.network + 4) + number) & 0xFFFF
            head = replace(head, layout.network + 4, struct.pack("!H", identification))
        head = with_length(head, layout, len(headers) + len(part))
        if protocol == TCP:
            sequence = struct.unpack_from("!I", head, transport + 4)[0] + number * gso_size
            head = replace(head, transport + 4, struct.pack("!I", sequence % 2**32))
            control = head[transport + 13]
            if number > 0:
                control &= ~CWR
            if number < len(parts) - 1:
                control &= ~(FIN | PSH)
            head = replace(head, transport + 13, bytes([control]))
        segment = head[transport:] + part
        value = ones_sum(b"", pseudo + len(segment))
        if checksums:
            value = 0xFFFF - ones_sum(segment, pseudo + len(segment))
            if protocol == UDP:
                value = value or 0xFFFF  # RFC 768: zero says that there is none
        segment = replace(segment, checksum_at, struct.pack("!H", value))
        segments.append(head[:transport] + segment)
    return segments


# --- coalesce ---


class Packet(NamedTuple):
    """What decides whether a TCP or UDP packet may be merged."""

    layout: Layout
    flow: tuple
    payload: int  # where it starts
    size: int  # bytes of it
    is_whole: bool  # its lengths agree, and its headers are not too long
    may_merge: bool
    constant: tuple  # what packets of one super-packet have in common
    sequence: int
    control: int  # TCP flags
    identification: int


def read(data, types, is_frame, trusted):
    """A `Packet`; the string "other" if it is none of TCP or UDP, "unknown" if that cannot be told."""
    layout = locate(data, is_frame)
    if layout is None or layout.is_fragment:
        return "unknown"
    if layout.protocol not in (TCP, UDP):
        return "other"
    version, network, transport, end, protocol, _, addresses = layout
    fixed = data[transport : transport + (20 if protocol == TCP else 8)]
    if len(fixed) < (20 if protocol == TCP else 8):
        return "unknown"
    size = 4 * (fixed[12] >> 4) if protocol == TCP else 8
    if transport + size > len(data):
        return "unknown"
    payload = transport + size
    flow = protocol, addresses, fixed[:4]
    is_whole = end == len(data) and payload <= HEADERS_MAX and size >= len(fixed)
    is_whole = is_whole and (protocol == TCP or u16(fixed, 4) == len(data) - transport)
    kind = MERGE_UDP if protocol == UDP else MERGE_TCPV4 if version == 4 else MERGE_TCPV6
    may_merge = bool(is_whole and kind & types and len(data) > payload)
    sequence = control = identification = 0
    header = data[network:transport]
    if version == 4:
        identification = u16(header, 4)
        may_merge = may_merge and len(header) == 20 and u16(header, 6) in (0, 0x4000)
        # Not the length, the identification and the checksum.
        constant = [data[:network], header[:2], header[6:10]]
    else:
        # Not the length.
        constant = [data[:network], header[:4], header[6:]]
    if protocol == TCP:
        sequence, control = struct.unpack_from("!I", fixed, 4)[0], fixed[13]
        may_merge = may_merge and not control & (SYN | RST | URG | CWR)
        # Not the ports, the sequence number and the checksum.
        constant += [fixed[8:13], control & ~(FIN | PSH), fixed[14:16], data[transport + 18 : payload]]
    else:
        may_merge = may_merge and u16(fixed, 6) != 0
    may_merge = may_merge and (trusted or has_valid_checksums(data, layout))
    return Packet(
        layout, flow, payload, len(data) - payload, is_whole, may_merge, tuple(constant), sequence, control,
        identification,
    )  # fmt: skip


def has_valid_checksums(data, layout):
    """Whether they are right, and written as a split writes them: 0xffff is as right as 0."""
    if layout.version == 4:
        header = data[layout.network : layout.transport]
        if ones_sum(header) != 0xFFFF or u16(header, 10) == 0xFFFF:
            return False
    if layout.protocol == TCP and u16(data, layout.transport + CHECKSUM_AT[TCP]) == 0xFFFF:
        return False
    segment = data[layout.transport :]
    return ones_sum(segment, ones_sum(layout.addresses, layout.protocol + len(segment))) == 0xFFFF


def continues(members, packet, renumber):
    """Whether a packet goes behind those of a super-packet, each but the last as large as the first."""
    first, last = members[0], members[-1]
    if not (first.may_merge and packet.may_merge and first.constant == packet.constant):
        return False
    if last.control & (FIN | PSH) or last.size < first.size or packet.size > first.size:
        return False
    size = len(members) * first.size
    if first.payload + size + packet.size > LARGEST:
        return False
    if packet.layout.protocol == UDP:
        if len(members) == UDP_GRO_CNT_MAX:
            return False
    elif packet.sequence != (first.sequence + size) % 2**32:
        return False
    if packet.layout.version == 6:
        return True
    step = (packet.identification - last.identification) & 0xFFFF
    if len(members) > 1 and step != (members[1].identification - first.identification) & 0xFFFF:
        return False
    may_not_be_fragmented = first.constant[2][0] & 0x40
    return step == 1 or (step == 0 and renumber and may_not_be_fragmented)


def coalesce(packets, types=14, is_frame=False, trusted=False, renumber=False):
    """Windows of items, each (indices of its packets, virtio-net header or None, bytes).

    A packet joins the newest item of its flow or begins one; items keep the order of their first
    packets.  What the kernel will not take at all begins a window.
    """
    windows = []
    for index, data in enumerate(packets):
        will_be_refused = len(data) < 14 if is_frame else data[:1] == b"" or data[0] >> 4 not in (4, 6)
        if not windows or sum(len(item) for item in windows[-1]) == WINDOW or will_be_refused:
            windows.append([])
            newest = {}
        window, packet = windows[-1], read(data, types, is_frame, trusted)
        if packet == "unknown":
            newest = {}  # it may be of any flow, which it ends
        elif packet != "other":
            item = newest.get(packet.flow)
            if item and continues([member for _, member in item], packet, renumber):
                item.append((index, packet))
                continue
            newest[packet.flow] = item = [(index, packet)]
            window.append(item)
            continue
        window.append([(index, packet)])
    return [[finish(packets, item, trusted) for item in window] for window in windows]


def finish(packets, item, trusted):
    """A super-packet and its header, or a packet as it is."""
    indices, members = [index for index, _ in item], [member for _, member in item]
    data, first, last = packets[indices[0]], members[0], members[-1]
    if isinstance(first, str) or not first.is_whole or (len(item) == 1 and not trusted):
        return indices, None, data
    layout = first.layout
    transport, protocol = layout.transport, layout.protocol
    if protocol == UDP and u16(data, transport + 6) == 0:
        return indices, None, data
    offset = CHECKSUM_AT[protocol]
    payload = b"".join(packets[index][first.payload :] for index in indices)
    size = first.payload + len(payload)
    headers = data[: first.payload]
    fields = [NEEDS_CSUM, GSO_NONE, 0, 0, transport, offset]
    if len(item) > 1:
        fields[1] = GSO_UDP_L4 if protocol == UDP else GSO_TCPV4 if layout.version == 4 else GSO_TCPV6
        fields[2:4] = first.payload, first.size
        headers = with_length(headers, layout, size)
        if protocol == TCP:
            headers = replace(headers, transport + 13, bytes([first.control | last.control & (FIN | PSH)]))
    pseudo = ones_sum(layout.addresses, protocol + size - transport)
    headers = replace(headers, transport + offset, struct.pack("!H", pseudo))
    return indices, struct.pack(HEADER, *fields), headers + payload


# --- records ---

RECORD = {8: "=IIIIH", 16: "=QQIIH"}  # by the size of the timestamp: the fields that every system has


def record(packet, layout, *, captured=None, original=None, header=None, seconds=0, microseconds=0):
    """A record and its padding; whatever is given is written there, true or not."""
    timestamp_size, alignment = layout
    form = RECORD[timestamp_size]
    size = struct.calcsize(form)
    header = size if header is None else header
    captured = len(packet) if captured is None else captured
    original = captured if original is None else original
    fields = struct.pack(form, seconds, microseconds, captured, original, header)
    made = fields + bytes(max(header - size, 0)) + packet
    return made + bytes(-len(made) % alignment)


def records(data, layout):
    """(Where its packet is, packet, whole size, seconds, microseconds) of each; Refused if broken."""
    timestamp_size, alignment = layout
    form = RECORD[timestamp_size]
    at, found = 0, []
    while at < len(data):
        if len(data) - at < struct.calcsize(form):
            return [*found, Refused]
        seconds, microseconds, captured, original, header = struct.unpack_from(form, data, at)
        start, end = at + header, at + header + captured
        if header < struct.calcsize(form) or captured > original or end > len(data):
            return [*found, Refused]
        found.append((start, data[start:end], original, seconds, microseconds))
        at += -(-(header + captured) // alignment) * alignment
    return found


# --- captures ---

CAPTURE_PACKET_MAX, CAPTURE_RECORD_MAX, CAPTURE_INTERFACES = 262144, 1 << 20, 4096
LINK_HEADERS = {1: 0, 0: 4, 12: 0, 14: 0, 101: 0, 108: 4, 113: 16, 228: 0, 229: 0, 276: 20}
IP_TYPES = (0x0800, 0x86DD)


class Capture(NamedTuple):
    packets: list  # (packet, bytes of the whole packet, nanoseconds since 1970)
    skipped: int
    end: str  # "end", "more", or what is wrong


class Wrong(Exception):
    """What comes in a capture is wrong; the argument says how, in a word of the kernel."""


class Torn(Exception):
    """The bytes end before what comes does."""


def need(data, at, size):
    if at + size > len(data):
        raise Torn
    return data[at : at + size]


def capture(data, layer=0):
    """The packets of a file; `layer` as for the kernel."""
    reader = CaptureReader(layer)
    packets = []
    try:
        for captured in reader.records(data):
            packet = reader.unwrap(*captured)
            if packet:
                packets.append(packet)
            else:
                reader.skipped += 1
    except Wrong as wrong:
        return Capture(packets, reader.skipped, wrong.args[0])
    except Torn:
        return Capture(packets, reader.skipped, "more")
    return Capture(packets, reader.skipped, "end")


class CaptureReader:
    def __init__(self, layer):
        self.wanted = self.layer = layer
        self.skipped = 0

    def records(self, data):
        """(Link type, bytes, bytes of the whole packet, nanoseconds) of each packet."""
        magic = need(data, 0, 4).hex()
        if magic == "0a0d0d0a":
            return self.blocks(data)
        forms = {"a1b2c3d4": (">", 1000), "d4c3b2a1": ("<", 1000), "a1b23c4d": (">", 1), "4d3cb2a1": ("<", 1)}
        if magic not in forms:
            raise Wrong("NO_CAPTURE")
        return self.classic(data, *forms[magic])

    def classic(self, data, order, unit):
        major, _, _, _, _, link = struct.unpack(order + "HHIIII", need(data, 4, 20))
        if major != 2:
            raise Wrong("VERSION")
        at = 24
        while at < len(data):
            seconds, fraction, captured, original = struct.unpack(order + "IIII", need(data, at, 16))
            if captured > CAPTURE_PACKET_MAX:
                raise Wrong("SIZE")
            yield link & 0xFFFF, need(data, at + 16, captured), original, seconds * 10**9 + fraction * unit
            at += 16 + captured

    def blocks(self, data):
        at, order, interfaces = 0, "<", []
        while at < len(data):
            need(data, at, 12)
            if data[at : at + 4].hex() == "0a0d0d0a":
                orders = {"1a2b3c4d": ">", "4d3c2b1a": "<"}
                magic = data[at + 8 : at + 12].hex()
                if magic not in orders:
                    raise Wrong("NO_CAPTURE")
                order = orders[magic]
            kind, size = struct.unpack_from(order + "II", data, at)
            is_known = kind in (0x0A0D0D0A, 1, 2, 3, 6)
            if size < 12 or size % 4 or (is_known and size > CAPTURE_RECORD_MAX):
                raise Wrong("SIZE")
            block = need(data, at, size)
            if struct.unpack(order + "I", block[-4:]) != (size,):
                raise Wrong("MISMATCH")
            body = block[8:-4]
            if is_known and len(body) < {0x0A0D0D0A: 16, 1: 8, 2: 20, 3: 4, 6: 20}[kind]:
                raise Wrong("SIZE")
            if kind == 0x0A0D0D0A:
                if struct.unpack_from(order + "H", body, 4) != (1,):
                    raise Wrong("VERSION")
                interfaces = []
            elif kind == 1:
                if len(interfaces) == CAPTURE_INTERFACES:
                    raise Wrong("CROWD")
                interfaces.append(self.interface(order, body))
            elif is_known:
                yield self.packet(order, kind, body, interfaces)
            at += size

    def interface(self, order, body):
        """(Link type, snap length, units per second, seconds to add)."""
        link, _, snap = struct.unpack_from(order + "HHI", body)
        units, offset = 10**6, 0
        options = body[8:]
        while options:
            code, size = struct.unpack_from(order + "HH", options)
            if code == 0:
                break
            value = options[4 : 4 + size]
            if len(value) < size or {9: 1, 14: 8}.get(code, size) != size:
                raise Wrong("OPTION")
            if code == 9:
                units = 2 ** (value[0] & 127) if value[0] & 128 else 10 ** value[0]
            if code == 14:
                (offset,) = struct.unpack(order + "q", value)
            options = options[4 + -(-size // 4) * 4 :]
        return link, snap, units, offset

    def packet(self, order, kind, body, interfaces):
        if kind == 3:
            number, low, high, start = 0, 0, 0, 4
            (original,) = struct.unpack_from(order + "I", body)
        else:
            form = "IIIII" if kind == 6 else "HxxIIII"
            number, high, low, captured, original = struct.unpack_from(order + form, body)
            start = 20
        if number >= len(interfaces):
            raise Wrong("INTERFACE")
        link, snap, units, offset = interfaces[number]
        time = (high << 32 | low) * 10**9 // units + offset * 10**9
        if kind == 3:
            captured, time = min(original, snap or original), 0
        if not -(2**63) <= time < 2**63:
            raise Wrong("TIME")
        if start + captured > len(body):
            raise Wrong("SIZE")
        return link, body[start : start + captured], original, time

    def unwrap(self, link, data, original, time):
        """The packet without the header of its link type; None if there is none."""
        if link not in LINK_HEADERS:
            raise Wrong("LINK_TYPE")
        strips = link == 1 and self.wanted == 3
        layer = 2 if link == 1 and not strips else 3
        if self.layer not in (0, layer):
            raise Wrong("LAYER")
        self.layer = layer
        header = LINK_HEADERS[link]
        types = [0x0800]
        if strips:
            header = 14
            while data[header - 2 : header] in (b"\x81\0", b"\x88\xa8"):
                header += 4
            types = struct.unpack(">H", data[header - 2 : header]) if len(data) >= header else []
        elif link in (113, 276) and len(data) > header:
            types = struct.unpack_from(">H", data, 14 if link == 113 else 0)
        packet = data[header:]
        original = max(original, len(data)) - header
        if not packet or not types or types[0] not in IP_TYPES:
            return None
        if link in (0, 108) and packet[0] >> 4 not in (4, 6):
            return None
        if strips:
            is_ipv4 = packet[0] >> 4 == 4
            field = packet[2:4] if is_ipv4 else packet[4:6]
            whole = int.from_bytes(field, "big") if len(field) == 2 else 0
            if whole and not is_ipv4:
                whole += 40
            if whole:
                packet = packet[:whole]
                original = max(min(original, whole), len(packet))
        return packet, original, time


def capture_record(form, packet, time, original=None):
    """A packet as the kernel writes it in the form "pcap" or "pcapng"."""
    original = len(packet) if original is None else original
    if form == "pcap":
        return struct.pack("<IIII", *divmod(time, 10**9), len(packet), original) + packet
    body = struct.pack("<IIIII", 0, time >> 32, time & 0xFFFFFFFF, len(packet), original)
    return capture_block(6, body + packet)


def capture_block(kind, body, order="<"):
    body += bytes(-len(body) % 4)
    size = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + size + body + size


def capture_option(code, value, order="<"):
    return struct.pack(order + "HH", code, len(value)) + value + bytes(-len(value) % 4)


def capture_section(order="<", version=(1, 0), options=b""):
    return capture_block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, *version, -1) + options, order)


def capture_interface(link, snap=0, order="<", *options):
    body = struct.pack(order + "HHI", link, 0, snap)
    return capture_block(1, body + b"".join(capture_option(*option, order) for option in options), order)


def capture_header(form, link, snap):
    """The beginning of a file as the kernel writes it."""
    if form == "pcap":
        return struct.pack("<IHHIIII", 0xA1B23C4D, 2, 4, 0, 0, snap, link)
    return capture_section() + capture_interface(link, snap, "<", (9, b"\x09"), (0, b""))
