"""Every kind of packet that has headers to read, right and wrong, with random fields."""

import struct

from flows import ipv4, ipv6, tcp_header, udp_header, with_checksum

ICMP, TCP, UDP, DCCP, ICMPV6, SCTP, UDPLITE = 1, 6, 17, 33, 58, 132, 136
IPIP, IP6, GRE, ESP, NONE, UNKNOWN = 4, 41, 47, 50, 59, 253
HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION, MOBILITY, HIP, SHIM6 = (
    0,
    43,
    44,
    51,
    60,
    135,
    139,
    140,
)
PADDING_OPTION = b"\1\4\0\0\0\0"  # PadN: with the two bytes in front of it, 8 bytes
TCP_OPTIONS = b"\2\4\5\xb4\4\2\x08\x0a\0\0\0\1\0\0\0\2\1\3\3\7"
IPV4_OPTIONS = b"\x94\4\0\0\1\1\1\0"  # router alert


def transports(rng, version):
    """(Protocol, what is behind the IP header) by name."""
    addresses = rng.randbytes(8)
    sport, dport, payload = rng.randrange(1, 65536), rng.randrange(1, 65536), rng.randbytes(rng.randrange(40))
    fields = {"seq": rng.getrandbits(32), "ack": rng.getrandbits(32), "window": rng.getrandbits(16)}
    fields |= {"flags": rng.getrandbits(8), "reserved": rng.getrandbits(1)}
    ports, size = struct.pack("!HH", sport, dport), 8 + len(payload)
    datagram = udp_header(sport, dport, len(payload)) + payload
    echo = struct.pack("!HHH", rng.getrandbits(16), rng.getrandbits(16), rng.getrandbits(16))
    icmp, request, reply, error = (ICMP, 8, 0, 3) if version == 4 else (ICMPV6, 128, 129, 1)
    inner = (
        ipv4(addresses, UDP, datagram) if version == 4 else ipv6(2 * addresses + 2 * addresses, UDP, datagram)
    )
    return {
        "tcp": (TCP, tcp_header(sport, dport, **fields) + payload),
        "tcp with options": (TCP, tcp_header(sport, dport, options=TCP_OPTIONS, **fields) + payload),
        "udp": (UDP, with_checksum(datagram, addresses, UDP)),
        "udp without checksum": (UDP, datagram),
        "udp with surplus": (UDP, datagram + b"surplus"),
        "udplite": (UDPLITE, ports + struct.pack("!HH", rng.randrange(8, size + 1), 1) + payload),
        "udplite covered": (UDPLITE, ports + b"\0\0\0\1" + payload),
        "sctp": (SCTP, ports + rng.randbytes(8) + b"\3\0\0\x10" + rng.randbytes(12)),
        # Data, with short numbers, and an acknowledgement with long ones.
        "dccp": (DCCP, ports + b"\3\0\0\1\4" + rng.randbytes(3) + payload),
        "dccp long": (DCCP, ports + b"\6\0\0\1\7\0" + rng.randbytes(14) + payload),
        "echo request": (icmp, bytes([request, 0]) + echo + payload),
        "echo reply": (icmp, bytes([reply, 0]) + echo + payload),
        "icmp error": (icmp, bytes([error, rng.randrange(5), 0, 1, 0, 0, 0, 0]) + inner),
        "neighbour" if version == 6 else "timestamp": (
            (ICMPV6, bytes([135, 0, 0, 1, 0, 0, 0, 0]) + rng.randbytes(16)) if version == 6
            else (ICMP, bytes([13, 0]) + echo + rng.randbytes(12))
        ),
        "icmp of the other version": (ICMPV6 if version == 4 else ICMP, bytes([8, 0]) + echo + payload),
        "esp": (ESP, rng.randbytes(40)),
        "gre": (GRE, b"\0\0\x08\0" + inner if version == 4 else b"\0\0\x86\xdd" + inner),
        "ip in ip": (IPIP, inner) if version == 4 else (IP6, inner),
        "none": (NONE, b""),
        "none with more": (NONE, payload),
        "unknown": (UNKNOWN, payload),
        "nothing": (UDP, b""),
        "empty payload": (UDP, udp_header(sport, dport, 0)),
    }  # fmt: skip


def extension_headers(rng):
    """(Protocol, bytes behind the next header) by name, as `flows.ipv6` takes them."""
    return {
        "hop by hop": (HOP_BY_HOP, b"\0" + PADDING_OPTION),
        "long hop by hop": (HOP_BY_HOP, b"\3\1\x1c" + bytes(28)),
        "routing": (ROUTING, b"\2\4\0" + bytes(4) + rng.randbytes(16)),  # segment routing of one segment
        "destination": (DESTINATION, b"\0" + PADDING_OPTION),
        "authentication": (AUTHENTICATION, b"\4\0\0" + rng.randbytes(20)),
        "short authentication": (AUTHENTICATION, b"\1\0\0" + rng.randbytes(8)),
        "mobility": (MOBILITY, b"\1\5\0\0\0" + bytes(10)),
        "hip": (HIP, b"\4\1\x11" + bytes(36)),
        "shim6": (SHIM6, b"\0\x80" + rng.randbytes(5)),
        "atomic fragment": fragment_header(rng, 0, 0),
    }


def fragment_header(rng, offset, more):
    return FRAGMENT, b"\0" + struct.pack("!H", offset | more) + rng.randbytes(4)


def v4(rng, protocol, body, **given):
    fields = {"tos": rng.getrandbits(8), "ttl": rng.getrandbits(8), "identification": rng.getrandbits(16)}
    return ipv4(rng.randbytes(8), protocol, body, **fields | given)


def v6(rng, protocol, body, **given):
    fields = {
        "traffic_class": rng.getrandbits(8),
        "label": rng.getrandbits(20),
        "hop_limit": rng.getrandbits(8),
    }
    return ipv6(rng.randbytes(32), protocol, body, **fields | given)


def right(rng):
    """IP packets by name that no header of theirs contradicts."""
    packets = {}
    for version, make in ((4, v4), (6, v6)):
        for name, (protocol, body) in transports(rng, version).items():
            # A datagram without its header is wrong; it is there for the fragments that have nothing.
            if name != "nothing":
                packets[f"ipv{version} {name}"] = make(rng, protocol, body)
    udp, tcp = transports(rng, 4)["udp"][1], transports(rng, 4)["tcp with options"][1]
    long = udp_header(5000, 6000, 1400) + rng.randbytes(1400)
    packets["ipv4 options"] = v4(rng, UDP, udp, options=IPV4_OPTIONS)
    packets["ipv4 all options"] = v4(rng, TCP, tcp, options=bytes([1] * 39 + [0]))
    packets["ipv4 without flags"] = v4(rng, UDP, udp, fragment=0)
    packets["ipv4 reserved flag"] = v4(rng, UDP, udp, fragment=0x8000)
    for name, fragment, part in (
        ("first", 0x2000, long[:800]), ("middle", 0x2000 | 100, long[800:1200]), ("last", 150, long[1200:]),
        ("tiny", 0x2000, tcp[:8]), ("tiny second", 1, tcp[8:]),
    ):  # fmt: skip
        packets[f"ipv4 {name} fragment"] = v4(rng, TCP if "tiny" in name else UDP, part, fragment=fragment)
        offset, more = (fragment & 0x1FFF) * 8, fragment >> 13
        header = fragment_header(rng, offset, more)
        packets[f"ipv6 {name} fragment"] = v6(rng, TCP if "tiny" in name else UDP, part, extensions=[header])
    packets["ipv4 farthest fragment"] = v4(rng, UDP, b"123", fragment=0x1FFD)
    packets["ipv6 farthest fragment"] = v6(rng, UDP, b"1234567", extensions=[fragment_header(rng, 0xFFF8, 0)])
    extensions = extension_headers(rng)
    for name, extension in extensions.items():
        packets[f"ipv6 {name}"] = v6(rng, TCP, tcp, extensions=[extension])
        packets[f"ipv6 {name} alone"] = v6(rng, NONE, b"", extensions=[extension])
    chain = [extensions[name] for name in ("hop by hop", "destination", "routing", "atomic fragment")]
    chain += [extensions[name] for name in ("authentication", "destination")]
    packets["ipv6 all in order"] = v6(rng, UDP, udp, extensions=chain)
    packets["ipv6 extensions of a later fragment"] = v6(
        rng, DESTINATION, udp, extensions=[chain[0], fragment_header(rng, 8, 1)]
    )
    packets["ipv6 extensions behind a first fragment"] = v6(
        rng, UDP, udp, extensions=[chain[0], fragment_header(rng, 0, 1), chain[1]]
    )
    packets["ipv6 most extensions"] = v6(rng, UDP, udp, extensions=[extensions["destination"]] * 16)
    packets["ipv6 extension in the next fragment"] = v6(
        rng, DESTINATION, b"\6\3" + bytes(6), extensions=[fragment_header(rng, 0, 1)]
    )
    return packets


def wrong(rng):
    """IP packets by name with a header that contradicts itself, or the packet."""
    packets = {}
    for version, make in ((4, v4), (6, v6)):
        at = 40 if version == 6 else 20
        kinds = transports(rng, version)
        udp, tcp = make(rng, *kinds["udp"]), make(rng, *kinds["tcp with options"])
        for length in (0, 1, 7, len(udp) - at + 1, 0xFFFF):
            packets[f"ipv{version} udp length {length}"] = changed(udp, at + 4, struct.pack("!H", length))
        for offset in (0, 1, 4, 15):
            packets[f"ipv{version} tcp offset {offset}"] = changed(
                tcp[: at + 56], at + 12, bytes([offset << 4])
            )
        lite = make(rng, *kinds["udplite"])
        for coverage in (1, 7, len(lite) - at + 1, 0xFFFF):
            packets[f"ipv{version} udplite coverage {coverage}"] = changed(
                lite, at + 4, struct.pack("!H", coverage)
            )
        for name, offsets in (("dccp", (0, 2, 255)), ("dccp long", (0, 3, 255))):
            for offset in offsets:
                packets[f"ipv{version} {name} offset {offset}"] = changed(
                    make(rng, *kinds[name]), at + 4, bytes([offset])
                )
        packets[f"ipv{version} nothing"] = make(rng, *kinds["nothing"])
        for name in ("tcp", "udp", "sctp", "dccp", "udplite", "echo request"):
            protocol, body = kinds[name]
            packets[f"ipv{version} half of {name}"] = make(rng, protocol, body[:5])
    udp = v4(rng, UDP, transports(rng, 4)["udp"][1])
    for total in (0, 19):
        packets[f"ipv4 length {total}"] = changed(udp, 2, struct.pack("!H", total))
    for words in (0, 4):
        packets[f"ipv4 header of {words}"] = changed(udp, 0, bytes([0x40 | words]))
    packets["ipv4 options behind the end"] = changed(udp[:28], 0, b"\x4f\0\0\x1c")
    packets["ipv4 ping of death"] = v4(rng, ICMP, bytes(1480), fragment=0x1FFF)
    packets["ipv4 one byte too many"] = v4(rng, ICMP, b"1234", fragment=0x1FFD)
    extensions = extension_headers(rng)
    destination = extensions["destination"]
    farthest = fragment_header(rng, 0xFFF8, 0)
    packets["ipv6 ping of death"] = v6(rng, ICMPV6, bytes(1480), extensions=[farthest])
    packets["ipv6 one byte too many"] = v6(rng, ICMPV6, bytes(8), extensions=[farthest])
    packets["ipv6 too many with its extensions"] = v6(rng, ICMPV6, b"", extensions=[destination, farthest])
    packets["ipv6 too many extensions"] = v6(rng, UDP, udp[20:], extensions=[destination] * 17)
    packets["ipv6 authentication of 8 bytes"] = v6(
        rng, UDP, udp[20:], extensions=[(AUTHENTICATION, b"\0" + bytes(6))]
    )
    # RFC 2675, which nothing here understands.
    packets["ipv6 jumbo"] = changed(
        v6(rng, UDP, udp[20:], extensions=[(HOP_BY_HOP, b"\0\xc2\4\0\1\0\0")]), 4, b"\0\0"
    )
    for name, (protocol, rest) in extensions.items():
        if protocol != FRAGMENT:
            longer = protocol, b"\x60" + rest[1:]
            packets[f"ipv6 {name} behind the end"] = v6(rng, UDP, b"", extensions=[longer])
        packets[f"ipv6 half of {name}"] = v6(rng, protocol, b"\x11\0\0\0")
    return packets


def changed(packet, at, value):
    return packet[:at] + value + packet[at + len(value) :]


def links(rng, packet):
    """Ethernet frames around a packet by name."""
    kind = b"\x86\xdd" if packet[:1] and packet[0] >> 4 == 6 else b"\x08\0"
    macs = rng.randbytes(12)

    def tag(ethertype):
        return ethertype + rng.randbytes(2)

    vlan, service = b"\x81\0", b"\x88\xa8"
    return {
        "ethernet": macs + kind + packet,
        "vlan": macs + tag(vlan) + kind + packet,
        "service vlan": macs + tag(service) + kind + packet,
        "two tags": macs + tag(service) + tag(vlan) + kind + packet,
        "two equal tags": macs + tag(vlan) + tag(vlan) + kind + packet,
        "three tags": macs + tag(service) + tag(vlan) + tag(vlan) + kind + packet,
        "padded": macs + kind + packet + bytes(max(46 - len(packet), 3)),
    }


def other_frames(rng, packet):
    """Ethernet frames by name that have no IP packet, or one that is not what they say."""
    macs = rng.randbytes(12)
    kind = b"\x08\0" if packet[:1] and packet[0] >> 4 == 6 else b"\x86\xdd"
    return {
        "length": macs + struct.pack("!H", len(packet) + 3) + b"\xaa\xaa\3" + packet,
        "length in a tag": macs + b"\x81\0\0\5" + struct.pack("!H", len(packet)) + packet,
        "arp": macs + b"\x08\6\0\1\x08\0\6\4\0\1" + rng.randbytes(20),
        "the other version": macs + kind + packet,
        "unknown type": macs + b"\x12\x34" + packet,
        "mpls": macs + b"\x88\x47\0\0\1\x40" + packet,
    }
