"""Packets as a host sends them, made with little work: thousands of examples are built of them."""

import random
import struct

NOISE = random.Random(1).randbytes(70_000)


def ones_sum(data, initial=0):
    """The ones' complement sum of RFC 1071 over 16-bit words, folded: a remainder by 2**16 - 1.

    Zero only if there is nothing but zeros to sum; else a multiple of 2**16 - 1 folds to 0xffff.
    """
    total = int.from_bytes(data + bytes(len(data) % 2), "big") + initial
    return total % 0xFFFF or (0xFFFF if total else 0)


def pseudo_header(version, addresses, protocol, length):
    """Its sum: RFC 9293 and RFC 768 for IPv4, RFC 8200 for IPv6; both are sums of the same words."""
    return ones_sum(addresses, protocol + length)


def ipv4(addresses, protocol, body, *, tos=0, ttl=64, identification=0, fragment=0x4000, options=b""):
    size = 20 + len(options)
    fields = 0x40 | size // 4, tos, size + len(body), identification & 0xFFFF, fragment, ttl, protocol, 0
    header = struct.pack("!BBHHHBBH", *fields) + addresses + options
    return header[:10] + (0xFFFF - ones_sum(header)).to_bytes(2, "big") + header[12:] + body


def ipv6(addresses, protocol, body, *, traffic_class=0, label=0, hop_limit=64, extensions=()):
    """Extensions are (protocol, bytes behind the first one), in order."""
    first, chain = protocol, b""
    for number, rest in reversed(extensions):
        first, chain = number, bytes([first]) + rest + chain
    word = 6 << 28 | traffic_class << 20 | label
    return struct.pack("!IHBB", word, len(chain) + len(body), first, hop_limit) + addresses + chain + body


def tcp_header(sport, dport, *, seq=0, ack=0, flags=0x10, reserved=0, window=500, urgent=0, options=b""):
    """With a checksum of zero."""
    offset = (20 + len(options)) // 4 << 4 | reserved
    return (
        struct.pack("!HHIIBBHHH", sport, dport, seq % 2**32, ack, offset, flags, window, 0, urgent) + options
    )


def udp_header(sport, dport, size):
    """With a checksum of zero."""
    return struct.pack("!HHHH", sport, dport, 8 + size, 0)


def with_checksum(segment, addresses, protocol):
    """A TCP segment or UDP datagram whose checksum was zero, with its checksum."""
    at = 16 if protocol == 6 else 6
    value = 0xFFFF - ones_sum(segment, pseudo_header(4, addresses, protocol, len(segment)))
    if protocol == 17:
        value = value or 0xFFFF
    return segment[:at] + value.to_bytes(2, "big") + segment[at + 2 :]


def renumbered(packet, number):
    """The same with another identification, if it is IPv4."""
    if packet[0] >> 4 == 6:
        return packet
    head = packet[:4] + (number & 0xFFFF).to_bytes(2, "big") + packet[6:10] + b"\0\0" + packet[12:20]
    return head[:10] + (0xFFFF - ones_sum(head)).to_bytes(2, "big") + head[12:] + packet[20:]
