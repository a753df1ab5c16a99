"""TCP and UDP packets with every field in the caller's hand, super-packets made of them, and a witness."""

import errno
import ipaddress
import socket
import struct

import numpy as np

from tuntap import testing
from tuntap.offload import HEADER

NEEDS_CSUM = 1
TCPV4, TCPV6, UDP_L4, ECN = 1, 4, 5, 0x80
FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = 1, 2, 4, 8, 16, 32, 64, 128
TCP, UDP = 6, 17
KINDS = ["tcp4", "tcp6", "udp4", "udp6"]
HOP_BY_HOP, ROUTING, DESTINATION = 0, 43, 60
SOL_PACKET, PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING, ETH_P_ALL = 263, 15, 23, 3  # linux/if_packet.h
HOSTS = {4: ("10.0.0.2", "10.0.1.2"), 6: ("fd00::2", "fd00:1::2")}


def fold(data, initial=0):
    """The sum as a partial checksum has it: not complemented."""
    return testing.checksum(data, initial) ^ 0xFFFF


def packet(
    kind, payload=b"", *, hosts=None, sport=7, dport=9, ttl=64, tos=0, partial=False,
    seq=0, ack=1, flags=ACK, window=500, urgent=0, options=b"",
    ident=0, fragment=0x4000, ip_options=b"", label=0, extensions=(),
):  # fmt: skip
    """One packet of a kind; `partial` leaves its checksum to whoever segments it."""
    protocol, version = (TCP if kind[:3] == "tcp" else UDP), int(kind[3])
    source, destination = (ipaddress.ip_address(a).packed for a in hosts or HOSTS[version])
    if protocol == TCP:
        head = struct.pack(
            "!HHIIBBHHH", sport, dport, seq % 2**32, ack, 20 + len(options) << 2, flags, window, 0, urgent
        ) + options  # fmt: skip
        at = 16
    else:
        head = struct.pack("!HHHH", sport, dport, 8 + len(payload), 0)
        at = 6
    pseudo = fold(source + destination, protocol + len(head) + len(payload))
    checksum = pseudo if partial else testing.checksum(head + payload, pseudo)
    if not partial and protocol == UDP:
        checksum = checksum or 0xFFFF
    segment = head[:at] + struct.pack("!H", checksum) + head[at + 2 :] + payload
    if version == 6:
        chain, following = b"", protocol
        for number, body in reversed(extensions):
            chain = bytes([following, len(body) // 8]) + body + chain
            following = number
        return (
            struct.pack("!IHBB", 6 << 28 | tos << 20 | label, len(chain) + len(segment), following, ttl)
            + source + destination + chain + segment
        )  # fmt: skip
    size = 20 + len(ip_options)
    ip = struct.pack(
        "!BBHHHBBH", 0x40 | size // 4, tos, size + len(segment), ident % 2**16, fragment, ttl, protocol, 0
    ) + source + destination + ip_options  # fmt: skip
    return ip[:10] + struct.pack("!H", testing.checksum(ip)) + ip[12:] + segment


def layout_of(data):
    """Protocol of a packet, where its TCP or UDP header starts, and where that ends."""
    if data[0] >> 4 == 4:
        protocol, at = data[9], (data[0] & 15) * 4
    else:
        protocol, at = data[6], 40
        while protocol in (HOP_BY_HOP, ROUTING, DESTINATION):
            protocol, at = data[at], at + 8 * (data[at + 1] + 1)
    return protocol, at, at + (4 * (data[at + 12] >> 4) if protocol == TCP else 8)


def header_for(data, gso_size, *, ecn=False, **changes):
    """The virtio-net header that says of a packet with a partial checksum what it is."""
    protocol, transport, payload = layout_of(data)
    gso_type = UDP_L4 if protocol == UDP else TCPV4 if data[0] >> 4 == 4 else TCPV6
    fields = {
        "flags": NEEDS_CSUM, "gso_type": (gso_type | ECN * ecn) if gso_size else 0, "hdr_len": payload,
        "gso_size": gso_size, "csum_start": transport, "csum_offset": 16 if protocol == TCP else 6,
    }  # fmt: skip
    fields |= changes
    return np.array(tuple(fields[name] for name in HEADER.names), HEADER)


def after_a_hop(data):
    """The same with one less to live."""
    if data[0] >> 4 == 6:
        return data[:7] + bytes([data[7] - 1]) + data[8:]
    size = (data[0] & 15) * 4
    head = data[:8] + bytes([data[8] - 1]) + data[9:10] + b"\0\0" + data[12:size]
    return head[:10] + testing.checksum(head).to_bytes(2, "big") + head[12:] + data[size:]


class Watch:
    """What enters the network stack from an interface, with its virtio-net header."""

    def __init__(self, name):
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        self._socket.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
        self._socket.bind((name, ETH_P_ALL))

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()

    def close(self):
        self._socket.close()

    def receive(self, timeout=10):
        self._socket.settimeout(timeout)
        data = self._socket.recv(HEADER.itemsize + 70_000)
        return np.frombuffer(data[: HEADER.itemsize], HEADER)[0].copy(), data[HEADER.itemsize :]

    def everything(self):
        """All that entered until now; a packet has entered when its write returns."""
        found = []
        while True:
            try:
                found.append(self.receive(timeout=0))
            except BlockingIOError:
                return found
            except OSError as error:
                if error.errno != errno.EINVAL:  # it entered, and no virtio-net header can describe it
                    raise
