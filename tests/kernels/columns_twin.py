"""A slow twin of the kernel of columns: what the RFCs say of a packet's headers.

IEEE 802.1Q and 802.1ad, IPv4 (RFC 791), IPv6 (8200) and its extension headers (4302, 5533, 6275, 6946, 7401),
TCP (9293), UDP (768), UDP-Lite (3828), SCTP (9260), DCCP (4340), ICMP (792), ICMPv6 (4443).

Two ends are told apart.  Where a header goes on behind the end of the bytes that are there, the packet is
truncated; where it goes on behind the end of the IP packet, and that is no fragment, it is malformed.
"""

import itertools
import struct

IP, TRANSPORT, FRAGMENT, OPTIONS, TRUNCATED, MALFORMED, VLAN, PADDED = (1 << bit for bit in range(8))
NUMBERS = [
    "length", "eth_src", "eth_dst", "ethertype", "vlan", "vlan_priority", "vlan_inner", "network_offset",
    "version", "dscp", "ecn", "ip_length", "ip_id", "ip_flags", "fragment_offset", "flow_label", "ttl",
    "protocol", "src4", "dst4", "transport_offset", "src_port", "dst_port", "tcp_seq", "tcp_ack",
    "tcp_flags", "tcp_window", "icmp_type", "icmp_code", "icmp_id", "icmp_seq", "payload_offset",
    "payload_length", "flow_hash", "marks",
]  # fmt: skip
ICMP, TCP, UDP, DCCP, ICMPV6, SCTP, UDPLITE = 1, 6, 17, 33, 58, 132, 136
HOP_BY_HOP, ROUTING, FRAGMENT_HEADER, AUTHENTICATION, DESTINATION = 0, 43, 44, 51, 60
MOBILITY, HIP, SHIM6 = 135, 139, 140
# All others say how long they are in units of 8 bytes, without the first (RFC 6564).
EXTENSIONS = HOP_BY_HOP, ROUTING, FRAGMENT_HEADER, AUTHENTICATION, DESTINATION, MOBILITY, HIP, SHIM6
MOST_EXTENSIONS = 16
MASK64 = 2**64 - 1


class Stop(Exception):
    """Nothing behind is known; with the mark that says why, or 0."""


def read(packet, is_frame=False, *, transport=True, hashed=True, symmetric=False, seed=0):
    """The fields of a packet by name; IPv6 addresses are 16 bytes."""
    fields = dict.fromkeys(NUMBERS, 0) | {"src6": bytes(16), "dst6": bytes(16)}
    fields["length"] = len(packet)
    try:
        at = read_ethernet(packet, fields) if is_frame else 0
        end, said_end, at = read_ip(packet, at, is_frame, fields)
        if transport:
            fields["transport_offset"] = fields["payload_offset"] = at
            fields["payload_length"] = end - at
            read_transport(packet[:end], at, said_end, fields)
    except Stop as stop:
        fields["marks"] |= stop.args[0]
    if transport and hashed and fields["marks"] & IP:
        fields["flow_hash"] = flow_hash(fields, seed, symmetric)
    return fields


def part(data, at, size):
    """Bytes that are there, or the packet is shorter than a header."""
    if at + size > len(data):
        raise Stop(TRUNCATED)
    return data[at : at + size]


def read_ethernet(frame, fields):
    """Where the IP header is."""
    header = part(frame, 0, 14)
    destination, source, kind = header[:6], header[6:12], header[12:]
    fields["eth_dst"], fields["eth_src"] = int.from_bytes(destination, "big"), int.from_bytes(source, "big")
    fields["ethertype"] = int.from_bytes(kind, "big")
    at = 14
    for tag in ("vlan", "vlan_inner"):
        if fields["ethertype"] not in (0x8100, 0x88A8):
            break
        control, fields["ethertype"] = struct.unpack("!HH", part(frame, at, 4))
        fields[tag] = control % 4096
        if tag == "vlan":
            fields["vlan_priority"] = control // 8192
            fields["marks"] |= VLAN
        at += 4
    if fields["ethertype"] not in (0x0800, 0x86DD):
        raise Stop(0)
    return at


def read_ip(packet, at, is_frame, fields):
    """Where the IP packet ends, where it says that it does, and what is behind its headers."""
    version = part(packet, at, 1)[0] >> 4
    if is_frame and version != {0x0800: 4, 0x86DD: 6}[fields["ethertype"]]:
        raise Stop(MALFORMED)
    if version not in (4, 6):
        raise Stop(0)
    start = at
    at = (read_ipv4 if version == 4 else read_ipv6)(packet, at, fields)
    fields |= {"version": version, "network_offset": start}
    fields["marks"] |= IP
    said_end = start + fields["ip_length"]
    end = min(said_end, len(packet))
    if said_end > len(packet):
        fields["marks"] |= TRUNCATED
    if said_end < len(packet):
        fields["marks"] |= PADDED
    if version == 6 and fields["protocol"] in EXTENSIONS:
        fields["marks"] |= OPTIONS
        at = pass_extensions(packet[:end], at, said_end, fields)
    return end, said_end, at


def read_ipv4(packet, at, fields):
    header = part(packet, at, 20)
    first, tos, total, identification, fragment, ttl, protocol, _, src, dst = struct.unpack(
        "!BBHHHBBHII", header
    )
    size = first % 16 * 4
    if size < 20 or total < size:
        raise Stop(MALFORMED)
    part(packet, at, size)
    fields |= {
        "dscp": tos // 4, "ecn": tos % 4, "ip_length": total, "ip_id": identification,
        "ip_flags": fragment // 8192,
        "fragment_offset": fragment % 8192 * 8, "ttl": ttl, "protocol": protocol, "src4": src, "dst4": dst,
    }  # fmt: skip
    if size > 20:
        fields["marks"] |= OPTIONS
    if fragment & 0x2000 or fields["fragment_offset"]:
        fields["marks"] |= FRAGMENT
        # What the whole has before this part is at least as long as the header of the part.
        if fields["fragment_offset"] + total > 65535:
            fields["marks"] |= MALFORMED
    return at + size


def read_ipv6(packet, at, fields):
    header = part(packet, at, 40)
    word, length, protocol, ttl = struct.unpack("!IHBB", header[:8])
    fields |= {
        "dscp": word >> 22 & 63, "ecn": word >> 20 & 3, "flow_label": word % 2**20, "ip_length": 40 + length,
        "protocol": protocol, "ttl": ttl, "src6": header[8:24], "dst6": header[24:],
    }  # fmt: skip
    return at + 40


def pass_extensions(packet, at, said_end, fields):
    """Where what is behind them is, or the first that is not whole."""
    start = at
    for number in itertools.count():
        protocol = fields["protocol"]
        if protocol not in EXTENSIONS or fields["fragment_offset"]:
            break
        if number == MOST_EXTENSIONS:
            fields["marks"] |= MALFORMED
            break
        size = extension_size(protocol, packet[at : at + 8])
        if size is None:
            fields["marks"] |= MALFORMED
            break
        if at + size > len(packet):
            if at + size > said_end and not fields["marks"] & FRAGMENT:
                fields["marks"] |= MALFORMED
            break
        if protocol == FRAGMENT_HEADER:
            _, _, fragment, identification = struct.unpack("!BBHI", packet[at : at + 8])
            offset, more = fragment // 8 * 8, fragment % 2
            fields |= {"ip_id": identification, "ip_flags": more, "fragment_offset": offset}
            if offset or more:
                fields["marks"] |= FRAGMENT
                # RFC 8200, 4.5: the payload length of the whole would be that.
                if (at - start) + offset + (said_end - at - 8) > 65535:
                    fields["marks"] |= MALFORMED
        fields["protocol"] = packet[at]
        at += size
    return at


def extension_size(protocol, header):
    """Of at least 8 bytes; None if it cannot be."""
    if protocol == FRAGMENT_HEADER or len(header) < 8:
        return 8
    if protocol == AUTHENTICATION:
        # RFC 4302: in units of 4 bytes, less 2, and 12 of them are fixed.
        return 4 * (header[1] + 2) if header[1] else None
    return 8 * (header[1] + 1)


def read_transport(packet, at, said_end, fields):
    """The header behind that of IP, of a packet that ends where the IP packet does."""
    if fields["fragment_offset"]:
        return
    protocol = fields["protocol"]
    least = {TCP: 20, UDP: 8, UDPLITE: 8, SCTP: 12, DCCP: 12, ICMP if fields["version"] == 4 else ICMPV6: 8}
    if protocol not in least:
        return
    header = whole(packet, at, least[protocol], said_end, fields)
    size = len(header)
    if protocol == TCP:
        size = header[12] // 16 * 4
    elif protocol == DCCP:
        size = header[4] * 4
    shortest = 16 if protocol == DCCP and header[8] & 1 else least[protocol]  # RFC 4340: X, long numbers
    if size < shortest:
        raise Stop(MALFORMED)
    header = whole(packet, at, size, said_end, fields)
    length = len(packet) - at
    if protocol in (UDP, UDPLITE):
        said = int.from_bytes(header[4:6], "big")
        if protocol == UDPLITE and said == 0:
            said = 8  # the checksum covers everything, whatever that is
        if said < 8 or (at + said > said_end and not fields["marks"] & FRAGMENT):
            raise Stop(MALFORMED)
        if protocol == UDP:
            length = min(said, length)
    fields["marks"] |= TRANSPORT
    fields["payload_offset"], fields["payload_length"] = at + size, length - size
    if protocol in (ICMP, ICMPV6):
        fields["icmp_type"], fields["icmp_code"] = header[:2]
        if header[0] in ((0, 8) if protocol == ICMP else (128, 129)):
            fields["icmp_id"], fields["icmp_seq"] = struct.unpack("!HH", header[4:8])
        return
    fields["src_port"], fields["dst_port"] = struct.unpack("!HH", header[:4])
    if protocol == TCP:
        names = "tcp_seq", "tcp_ack", "tcp_flags", "tcp_window"
        fields |= zip(names, struct.unpack("!IIHH", header[4:16]), strict=True)
        fields["tcp_flags"] %= 4096


def whole(packet, at, size, said_end, fields):
    if at + size > len(packet):
        contradicts = at + size > said_end and not fields["marks"] & FRAGMENT
        raise Stop(MALFORMED if contradicts else 0)
    return packet[at : at + size]


# --- the flow hash ---


def mix(value):
    """fmix64 of MurmurHash3."""
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        value = (value ^ value >> 33) * factor & MASK64
    return value ^ value >> 33


def hash_end(fields, seed, end, port):
    """Of an address and a port: 64 bits."""
    if fields["version"] == 4:
        return mix((seed + fields[f"{end}4"] * 65536 + port) & MASK64)
    value = seed
    for word in (*struct.unpack("!QQ", fields[f"{end}6"]), port):
        value = mix((value + word) & MASK64)
    return value


def flow_hash(fields, seed=0, symmetric=False):
    """The parts of an IP packet have no ports and no protocol, which only some of them show."""
    is_whole = not fields["marks"] & FRAGMENT
    ends = [hash_end(fields, seed, end, fields[f"{end}_port"] if is_whole else 0) for end in ("src", "dst")]
    if symmetric:
        ends.sort()
    value = mix((ends[0] + (fields["protocol"] if is_whole else 0)) & MASK64)
    return mix((value + ends[1] + fields["version"]) & MASK64)
