"""Packets of one flow as a host sends them."""

from tuntap import testing


def renumbered(packet, number):
    """The same with another identification, if it is IPv4."""
    if packet[0] >> 4 == 6:
        return packet
    head = packet[:4] + (number & 0xFFFF).to_bytes(2, "big") + packet[6:10] + b"\0\0" + packet[12:20]
    return head[:10] + testing.checksum(head).to_bytes(2, "big") + head[12:] + packet[20:]
