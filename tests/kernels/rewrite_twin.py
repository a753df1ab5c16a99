"""Slow twins of what rewrites packets, from RFC 791, 8200, 9293, 768, 3828, 792, 4443 and 1071; and packets.

A checksum is a number here, and so is what is wrong with it: both follow from sums of whole packets, not from
words that change (RFC 1624).  The ones' complement has two zeros, so that checksums are compared by remainder
where either may come out.
"""

import struct
from typing import NamedTuple

from flows import NOISE, ones_sum

HOP_BY_HOP, ROUTING, FRAGMENT, AH, DESTINATION, MOBILITY, HIP, SHIM6 = 0, 43, 44, 51, 60, 135, 139, 140
EXTENSIONS = {HOP_BY_HOP, ROUTING, FRAGMENT, AH, DESTINATION, MOBILITY, HIP, SHIM6}
EXTENSIONS_MAX = 16
ICMP, TCP, UDP, DCCP, GRE, ESP, ICMPV6, SCTP, UDPLITE = 1, 6, 17, 33, 47, 50, 58, 132, 136
SMALLEST = {ICMP: 8, ICMPV6: 8, TCP: 20, UDP: 8, UDPLITE: 8, SCTP: 12, DCCP: 12}
CHECKSUM_AT = {ICMP: 2, ICMPV6: 2, TCP: 16, UDP: 6, UDPLITE: 6}
ECHOES = {ICMP: (8, 0), ICMPV6: (128, 129)}
ADDRESSES = {4: {"src4", "dst4"}, 6: {"src6", "dst6"}}
PORTS = {"src_port", "dst_port"}
BITS = {
    "eth_src": 48, "eth_dst": 48, "vlan": 12, "vlan_priority": 3, "dscp": 6, "ecn": 2, "ip_id": 16,
    "flow_label": 20, "ttl": 8, "src4": 32, "dst4": 32, "src6": 128, "dst6": 128, "src_port": 16,
    "dst_port": 16, "tcp_seq": 32, "tcp_ack": 32, "tcp_flags": 12, "tcp_window": 16, "icmp_id": 16,
    "icmp_seq": 16,
}  # fmt: skip


class Packet(NamedTuple):
    """Where the parts of an IP packet are."""

    network: int
    version: int
    transport: int
    end: int  # of the IP packet, or of what there is of it
    counted: int  # its end, as the IP header counts
    protocol: int  # behind all extensions, or that of the first which is not whole
    is_whole: bool  # all of that is there
    is_fragment: bool
    is_later: bool  # a fragment behind the first
    goes_on: bool  # a routing header names another destination
    has_header: bool  # that of the protocol is there, and says nothing impossible
    tags: int


def u16(data, at):
    return int.from_bytes(data[at : at + 2], "big")


def put(data, at, value, size=2):
    data[at : at + size] = value.to_bytes(size, "big")


def set_bits(data, at, size, low, bits, value):
    """Write `bits` bits, `low` of which are to the right within `size` bytes."""
    old = int.from_bytes(data[at : at + size], "big")
    mask = (2**bits - 1) << low
    put(data, at, (old & ~mask) | value << low, size)


def read(data, is_frame):
    """A `Packet`, or None if there is no IP header."""
    network, tags = 0, 0
    if is_frame:
        network = 14
        while u16(data, network - 2) in (0x8100, 0x88A8) and tags < 2:
            network, tags = network + 4, tags + 1
        if len(data) < network:
            return None
    version = data[network] >> 4 if len(data) > network else 0
    if is_frame and u16(data, network - 2) != {4: 0x0800, 6: 0x86DD}.get(version):
        return None
    read_version = {4: read_ipv4, 6: read_ipv6}.get(version)
    return read_version(data, network, tags) if read_version else None


def read_ipv4(data, network, tags):
    size = 4 * (data[network] & 15)
    length = u16(data, network + 2)
    if len(data) - network < max(size, 20) or size < 20 or length < size:
        return None
    transport, counted = network + size, network + length
    end = min(counted, len(data))
    fragment = u16(data, network + 6)
    packet = Packet(
        network, 4, transport, end, counted, data[network + 9], end == counted, fragment & 0x3FFF != 0,
        fragment & 0x1FFF != 0, False, False, tags,
    )  # fmt: skip
    return packet._replace(has_header=has_header(data, packet))


def read_ipv6(data, network, tags):
    if len(data) - network < 40:
        return None
    counted = network + 40 + u16(data, network + 4)
    at, end = network + 40, min(counted, len(data))
    protocol, is_fragment, is_later, goes_on = data[network + 6], False, False, False
    for _ in range(EXTENSIONS_MAX):
        if protocol not in EXTENSIONS or is_later:
            break
        header = data[at:end]
        if len(header) < 8:
            break
        size = 8 if protocol == FRAGMENT else 4 * (header[1] + 2) if protocol == AH else 8 * (header[1] + 1)
        if len(header) < size or (protocol == AH and size < 12):
            break
        if protocol == FRAGMENT:
            is_fragment, is_later = is_fragment or u16(header, 2) & 0xFFF9 != 0, u16(header, 2) & 0xFFF8 != 0
        goes_on = goes_on or (protocol == ROUTING and header[3] != 0)
        protocol, at = header[0], at + size
    packet = Packet(
        network, 6, at, end, counted, protocol, end == counted, is_fragment, is_later, goes_on, False, tags
    )
    return packet._replace(has_header=has_header(data, packet))


def has_header(data, packet):
    header = data[packet.transport : packet.end]
    size = SMALLEST.get(packet.protocol)
    if size is None or packet.is_later or len(header) < size:
        return False
    if packet.protocol == (ICMPV6 if packet.version == 4 else ICMP):
        return False
    if packet.protocol == TCP:
        return 20 <= 4 * (header[12] >> 4) <= len(header)
    if packet.protocol in (UDP, UDPLITE):
        length = u16(header, 4)
        if packet.protocol == UDPLITE and length == 0:  # RFC 3828, section 3.1: of everything
            return True
        return length >= 8 and (length <= packet.counted - packet.transport or packet.is_fragment)
    return True


def checksum_of(data, packet):
    """Where the checksum behind the IP header is, and the end of what it is over; None if it is not known."""
    if not packet.has_header or packet.protocol not in CHECKSUM_AT:
        return None
    end = packet.end
    if packet.protocol in (UDP, UDPLITE) and u16(data, packet.transport + 4):
        end = min(packet.transport + u16(data, packet.transport + 4), end)
    return packet.transport + CHECKSUM_AT[packet.protocol], end


def has_checksum(packet):
    """Whether there is one behind the IP header, or may be, as nobody knows what is there."""
    if packet.version == 6 and packet.protocol in EXTENSIONS:
        return True
    return packet.protocol in {TCP, UDP, UDPLITE, SCTP, DCCP, ICMP if packet.version == 4 else ICMPV6}


def pseudo_sum(data, packet):
    """Of the pseudo-header, without the length.  Where a destination is not known, it is left out."""
    if packet.protocol == ICMP:
        return 0
    at, size = (12, 8) if packet.version == 4 else (8, 16 if packet.goes_on else 32)
    return ones_sum(data[packet.network + at : packet.network + at + size], packet.protocol)


def length_of(data, packet):
    """What the pseudo-header says."""
    if packet.protocol == ICMP:
        return 0
    return u16(data, packet.transport + 4) if packet.protocol == UDP else packet.end - packet.transport


def whole_sum(data, packet):
    """Of all that the checksum is over, without itself."""
    at, end = checksum_of(data, packet)
    covered = data[packet.transport : at] + b"\0\0" + data[at + 2 : end]
    return ones_sum(covered, pseudo_sum(data, packet) + length_of(data, packet))


def header_sum(data, packet):
    """Of an IPv4 header, without its checksum."""
    at = packet.network + 10
    return ones_sum(data[packet.network : at] + data[at + 2 : packet.transport])


def complement(total, protocol=None):
    value = 0xFFFF - total
    return value or (0xFFFF if protocol in (UDP, UDPLITE) else 0)


def is_right(data, is_frame):
    """Whether a receiver takes it: where there is a checksum that it can know, the sum with it is 0xffff."""
    packet = read(data, is_frame)
    if packet is None:
        return True
    if packet.version == 4 and ones_sum(data[packet.network : packet.transport]) != 0xFFFF:
        return False
    where = checksum_of(data, packet)
    if where is None or packet.is_fragment or not packet.is_whole or packet.goes_on:
        return True
    value = u16(data, where[0])
    if value == 0 and packet.protocol in (UDP, UDPLITE):
        return packet.protocol == UDP
    return ones_sum(b"", whole_sum(data, packet) + value) == 0xFFFF


def fix(data, is_frame, unfinished=0):
    """Whether all checksums are right now, and the packet."""
    packet = read(data, is_frame)
    if packet is None:
        return False, data
    made = bytearray(data)
    if packet.version == 4:
        put(made, packet.network + 10, complement(header_sum(data, packet)))
    if packet.is_fragment:
        return False, bytes(made)
    where = checksum_of(data, packet)
    if where is None or packet.goes_on or not packet.is_whole:
        return not has_checksum(packet), bytes(made)
    if where[0] == unfinished:
        put(made, where[0], ones_sum(b"", pseudo_sum(data, packet) + length_of(data, packet)))
    else:
        put(made, where[0], complement(whole_sum(data, packet), packet.protocol))
    return True, bytes(made)


def is_known(packet, where, fields):
    """Whether the checksum behind the IP header can follow."""
    if where is not None or packet.is_later or not has_checksum(packet):
        return True
    if packet.protocol == SCTP and packet.has_header:  # RFC 9260: a CRC of its own packet
        return not PORTS & set(fields)
    return not (PORTS | ADDRESSES[packet.version]) & set(fields)


def update(data, is_frame, fields, unfinished=0):
    """Whether the fields are written, those that the packet has, and the packet."""
    packet = read(data, is_frame)
    made = bytearray(data)
    where = checksum_of(data, packet) if packet else None
    if packet and not is_known(packet, where, fields):
        return False, data
    if is_frame:
        write_link(made, fields)
    if packet is None:
        return True, bytes(made)
    write_network(made, packet, fields)
    if where:
        write_transport(made, packet, fields)
    after = bytes(made)
    if packet.version == 4:
        wrong = u16(data, packet.network + 10) + header_sum(data, packet)
        put(made, packet.network + 10, (wrong - header_sum(after, packet)) % 0xFFFF)
    if where and where[0] == unfinished:
        value = u16(data, where[0]) + pseudo_sum(after, packet) - pseudo_sum(data, packet)
        put(made, where[0], value % 0xFFFF)
    elif where and (u16(data, where[0]) or packet.protocol not in (UDP, UDPLITE)):
        value = (u16(data, where[0]) + whole_sum(data, packet) - whole_sum(after, packet)) % 0xFFFF
        put(made, where[0], value or complement(0xFFFF, packet.protocol))
    return True, bytes(made)


def write_link(made, fields):
    if len(made) >= 14:
        for name, at in (("eth_dst", 0), ("eth_src", 6)):
            if name in fields:
                put(made, at, fields[name], 6)
    if len(made) >= 18 and u16(made, 12) in (0x8100, 0x88A8):
        for name, low in (("vlan", 0), ("vlan_priority", 13)):
            if name in fields:
                set_bits(made, 14, 2, low, BITS[name], fields[name])


def write_network(made, packet, fields):
    at = packet.network
    places = {"dscp": (at + 1, 1, 2), "ecn": (at + 1, 1, 0), "ip_id": (at + 4, 2, 0), "ttl": (at + 8, 1, 0)}
    places |= {"src4": (at + 12, 4, 0), "dst4": (at + 16, 4, 0)}
    if packet.version == 6:
        places = {"dscp": (at, 2, 6), "ecn": (at, 2, 4), "flow_label": (at, 4, 0), "ttl": (at + 7, 1, 0)}
        places |= {"src6": (at + 8, 16, 0), "dst6": (at + 24, 16, 0)}
    write(made, places, fields)


def write_transport(made, packet, fields):
    at = packet.transport
    if packet.protocol in ECHOES:
        places = {"icmp_id": (at + 4, 2, 0), "icmp_seq": (at + 6, 2, 0)}
        if made[at] not in ECHOES[packet.protocol]:
            places = {}
    else:
        places = {"src_port": (at, 2, 0), "dst_port": (at + 2, 2, 0)}
    if packet.protocol == TCP:
        places |= {"tcp_seq": (at + 4, 4, 0), "tcp_ack": (at + 8, 4, 0)}
        places |= {"tcp_flags": (at + 12, 2, 0), "tcp_window": (at + 14, 2, 0)}
    write(made, places, fields)


def write(made, places, fields):
    for name, (at, size, low) in places.items():
        if name in fields:
            set_bits(made, at, size, low, BITS[name], fields[name] % 2 ** BITS[name])


def alike(one, other, is_frame):
    """Whether two packets are the same but for which zero their checksums are."""
    return one == other or (len(one) == len(other) and positive(one, is_frame) == positive(other, is_frame))


def positive(data, is_frame):
    packet = read(data, is_frame)
    if packet is None:
        return data
    made = bytearray(data)
    where = checksum_of(data, packet)
    places = [packet.network + 10] if packet.version == 4 else []
    places += [where[0]] if where and packet.protocol not in (UDP, UDPLITE) else []
    for at in places:
        put(made, at, u16(made, at) % 0xFFFF)
    return bytes(made)


# --- packets to begin with ---


class Made(NamedTuple):
    data: bytes
    is_frame: bool
    network: int
    checksums: tuple  # where they are
    protocol: int


def transport(
    protocol, payload, addresses, destination, *, sport=7, dport=9, kind=None, coverage=0, options=b""
):
    """The header and the payload of a protocol, with the checksum that its receiver expects."""
    size, number = 8 + len(payload), NOISE[:16]
    if protocol == TCP:
        head = struct.pack("!HH", sport, dport) + number[:8] + bytes([20 + len(options) << 2, 0x18])
        head += struct.pack("!HHH", 500, 0, 0) + options
        at = 16
    elif protocol in (UDP, UDPLITE):
        head, at = struct.pack("!HHHH", sport, dport, size if protocol == UDP else coverage, 0), 6
    elif protocol in (ICMP, ICMPV6):
        head, at = struct.pack("!BBHHH", kind, 0, 0, sport, dport), 2
    else:
        return struct.pack("!HH", sport, dport) + number[:8] + payload, None
    body = head + payload
    covered = body[:coverage] if protocol == UDPLITE and coverage else body
    half = len(addresses) // 2
    pseudo = ones_sum(addresses[:half] + destination, protocol + len(body)) if protocol != ICMP else 0
    value = complement(ones_sum(covered, pseudo), protocol)
    return body[:at] + value.to_bytes(2, "big") + body[at + 2 :], at


def padded(rest):
    """What is behind the first byte of an extension header, with the length of it: a multiple of 8."""
    body = rest + bytes(-(2 + len(rest)) % 8)
    return bytes([(2 + len(body)) // 8 - 1]) + body


def extension(protocol, *, segments_left=0, size=6):
    """An extension header without its first byte."""
    if protocol == FRAGMENT:
        return b"\0\0\0" + NOISE[:4]  # all of a packet (RFC 6946)
    if protocol == AH:
        return bytes([4]) + NOISE[:22]
    if protocol == ROUTING:
        return padded(bytes([4, segments_left, 0, 0, 0, 0]) + NOISE[20:36])
    return padded(NOISE[:size])
