"""One readable line per packet, and its bytes in hex.

Packets are hostile input: each length is checked before use, whatever is missing is named, and no
byte of a packet is printed but as a number or as printable ASCII.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from typing import NamedTuple

_ETHERNET_HEADER = 14
_VLAN_TYPES = (0x8100, 0x88A8, 0x9100)
_ETHERNET_TYPES = {0x0806: "ARP", 0x8863: "PPPoE discovery", 0x8864: "PPPoE", 0x88CC: "LLDP", 0x8847: "MPLS"}

_ICMP, _TCP, _UDP, _ICMPV6, _SCTP = 1, 6, 17, 58, 132
_PROTOCOLS = {_ICMP: "ICMP", 2: "IGMP", 4: "IPIP", _TCP: "TCP", _UDP: "UDP", 41: "IPv6-in-IP", 47: "GRE",
              50: "ESP", 51: "AH", _ICMPV6: "ICMPv6", 59: "no-next-header", 88: "EIGRP", 89: "OSPF",
              103: "PIM", 112: "VRRP", _SCTP: "SCTP", 136: "UDP-Lite"}  # fmt: skip
_WITH_PORTS = (_SCTP, 136)
_IPV6_FRAGMENT, _IPV6_AUTHENTICATION = 44, 51
_IPV6_EXTENSIONS = (0, 43, 60, 135, 139, 140, _IPV6_FRAGMENT, _IPV6_AUTHENTICATION)

_TCP_FLAGS = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR")
_ICMP_TYPES = {0: "echo reply", 3: "destination unreachable", 4: "source quench", 5: "redirect",
               8: "echo request", 9: "router advertisement", 10: "router solicitation",
               11: "time exceeded", 12: "parameter problem", 13: "timestamp request",
               14: "timestamp reply"}  # fmt: skip
_ICMPV6_TYPES = {1: "destination unreachable", 2: "packet too big", 3: "time exceeded",
                 4: "parameter problem", 128: "echo request", 129: "echo reply",
                 130: "multicast listener query", 131: "multicast listener report",
                 132: "multicast listener done", 133: "router solicitation", 134: "router advertisement",
                 135: "neighbor solicitation", 136: "neighbor advertisement", 137: "redirect",
                 143: "multicast listener report v2"}  # fmt: skip
_ICMP_ECHO = {_ICMP: (0, 8), _ICMPV6: (128, 129)}
_ICMPV6_WITH_TARGET = (135, 136)


class _Flow(NamedTuple):
    """Where an IP packet comes from and goes to, and what it carries."""

    source: str
    destination: str
    protocol: int
    payload: bytes


def describe(packet: bytes, *, is_frame: bool = False) -> str:
    """One line about a packet.

    Parameters
    ----------
    packet : bytes
        Anything at all.
    is_frame : bool, optional
        True: an Ethernet frame (TAP); False: an IP packet (TUN).

    Returns
    -------
    str
        Printable ASCII, without a line end.
    """
    text = _describe_frame(packet) if is_frame else _describe_ip(packet)
    return f"{text}, {len(packet)} bytes"


def protocol_name(number: int) -> str:
    """What people call a protocol above IP."""
    return _PROTOCOLS.get(number, f"protocol {number}")


def hex_lines(packet: bytes) -> Iterator[str]:
    """The bytes of a packet, 16 a line, as numbers and as ASCII."""
    for start in range(0, len(packet), 16):
        row = packet[start : start + 16]
        ascii_text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        yield f"  {start:#06x}:  {row.hex(' ', -2):<39}  {ascii_text}"


def _number(data: bytes, start: int, size: int = 2) -> int:
    return int.from_bytes(data[start : start + size], "big")


def _describe_frame(frame: bytes) -> str:
    if len(frame) < _ETHERNET_HEADER:
        return "truncated Ethernet frame"
    text = f"{frame[6:12].hex(':')} > {frame[:6].hex(':')}"
    kind, start = _number(frame, 12), _ETHERNET_HEADER
    while kind in _VLAN_TYPES:
        if len(frame) < start + 4:
            return f"{text} truncated VLAN tag"
        text += f" vlan {_number(frame, start) & 0xFFF}"
        kind, start = _number(frame, start + 2), start + 4
    payload = frame[start:]
    if kind in (0x0800, 0x86DD):
        return f"{text} {_describe_ip(payload)}"
    if kind == 0x0806:
        return f"{text} {_describe_arp(payload)}"
    if kind < 0x0600:  # a length, not a type (IEEE 802.3)
        return f"{text} 802.3"
    return f"{text} {_ETHERNET_TYPES.get(kind, f'type {kind:#06x}')}"


def _describe_arp(data: bytes) -> str:
    if len(data) < 28 or data[:6] != b"\x00\x01\x08\x00\x06\x04":
        return "truncated ARP" if len(data) < 28 else "ARP, not IPv4 over Ethernet"
    operation = _number(data, 6)
    sender, target = ipaddress.IPv4Address(data[14:18]), ipaddress.IPv4Address(data[24:28])
    if operation == 1:
        return f"ARP who-has {target} tell {sender}"
    if operation == 2:
        return f"ARP reply {sender} is-at {data[8:14].hex(':')}"
    return f"ARP operation {operation}"


def _describe_ip(packet: bytes) -> str:
    if not packet:
        return "empty packet"
    version = packet[0] >> 4
    if version == 4:
        return _describe_ipv4(packet)
    if version == 6:
        return _describe_ipv6(packet)
    return f"no IP packet (version {version})"


def _describe_ipv4(packet: bytes) -> str:
    if len(packet) < 20:
        return "truncated IPv4 header"
    header_size = (packet[0] & 15) * 4
    source, destination = (str(ipaddress.IPv4Address(packet[i : i + 4])) for i in (12, 16))
    if not 20 <= header_size <= len(packet):
        return f"IPv4 {source} > {destination} header length {header_size} is wrong"
    total = _number(packet, 2)
    fragment = (_number(packet, 6) & 0x1FFF) * 8
    flow = _Flow(source, destination, packet[9], packet[header_size : max(total, header_size)])
    text = _describe_fragment(flow, fragment) if fragment else _describe_payload(flow)
    return text + ("" if header_size <= total <= len(packet) else f" [IPv4 length {total} is wrong]")


def _describe_ipv6(packet: bytes) -> str:
    if len(packet) < 40:
        return "truncated IPv6 header"
    source, destination = (str(ipaddress.IPv6Address(packet[i : i + 16])) for i in (8, 24))
    end = 40 + _number(packet, 4)
    protocol, data, fragment = packet[6], packet[40:end], 0
    while protocol in _IPV6_EXTENSIONS and not fragment:
        if len(data) < 8:
            return f"IPv6 {source} > {destination} truncated extension header {protocol}"
        size = (data[1] + 1) * 8
        if protocol == _IPV6_FRAGMENT:
            size, fragment = 8, _number(data, 2) & 0xFFF8
        elif protocol == _IPV6_AUTHENTICATION:
            size = (data[1] + 2) * 4
        protocol, data = data[0], data[size:]
    flow = _Flow(source, destination, protocol, data)
    text = _describe_fragment(flow, fragment) if fragment else _describe_payload(flow)
    return text + ("" if end <= len(packet) else f" [IPv6 length {end - 40} is wrong]")


def _describe_fragment(flow: _Flow, offset: int) -> str:
    return f"{protocol_name(flow.protocol)} {flow.source} > {flow.destination} fragment at {offset}"


def _describe_payload(flow: _Flow) -> str:
    describe_protocol = _DESCRIBERS.get(flow.protocol)
    if describe_protocol is not None:
        return describe_protocol(flow)
    name = protocol_name(flow.protocol)
    ends = _ends(flow) if flow.protocol in _WITH_PORTS else f"{flow.source} > {flow.destination}"
    return f"{name} {ends}"


def _ends(flow: _Flow) -> str:
    """Source and destination with their ports, if they are there."""
    if len(flow.payload) < 4:
        return f"{flow.source} > {flow.destination}"
    ends = []
    for address, start in ((flow.source, 0), (flow.destination, 2)):
        host = f"[{address}]" if ":" in address else address
        ends.append(f"{host}:{_number(flow.payload, start)}")
    return " > ".join(ends)


def _describe_udp(flow: _Flow) -> str:
    if len(flow.payload) < 8:
        return f"UDP {_ends(flow)} truncated UDP header"
    return f"UDP {_ends(flow)} data {len(flow.payload) - 8}"


def _describe_tcp(flow: _Flow) -> str:
    data = flow.payload
    if len(data) < 20:
        return f"TCP {_ends(flow)} truncated TCP header"
    flags = ",".join(name for bit, name in enumerate(_TCP_FLAGS) if data[13] >> bit & 1) or "none"
    header_size = (data[12] >> 4) * 4
    text = f"TCP {_ends(flow)} [{flags}] seq {_number(data, 4, 4)}"
    if data[13] & 0x10:
        text += f" ack {_number(data, 8, 4)}"
    if not 20 <= header_size <= len(data):
        return f"{text} header length {header_size} is wrong"
    return f"{text} win {_number(data, 14)} data {len(data) - header_size}"


def _describe_icmp(flow: _Flow) -> str:
    name, types = ("ICMP", _ICMP_TYPES) if flow.protocol == _ICMP else ("ICMPv6", _ICMPV6_TYPES)
    data = flow.payload
    text = f"{name} {flow.source} > {flow.destination}"
    if len(data) < 4:
        return f"{text} truncated"
    kind, code = data[0], data[1]
    text += f" {types.get(kind, f'type {kind}')}"
    if kind in _ICMP_ECHO[flow.protocol]:
        return (
            f"{text} id {_number(data, 4)} seq {_number(data, 6)}" if len(data) >= 8 else f"{text} truncated"
        )
    if flow.protocol == _ICMPV6 and kind in _ICMPV6_WITH_TARGET and len(data) >= 24:
        return f"{text} {ipaddress.IPv6Address(data[8:24])}"
    return f"{text} code {code}" if code else text


_DESCRIBERS: dict[int, Callable[[_Flow], str]] = {
    _ICMP: _describe_icmp,
    _TCP: _describe_tcp,
    _UDP: _describe_udp,
    _ICMPV6: _describe_icmp,
}
