"""Writes packets to a pcap file, which tcpdump, Wireshark and scapy read."""

from __future__ import annotations

import struct
from typing import BinaryIO

ETHERNET = 1  # LINKTYPE_ETHERNET
RAW_IP = 101  # LINKTYPE_RAW: an IPv4 or IPv6 packet, without a header in front

_MAGIC_NANOSECONDS = 0xA1B23C4D
_VERSION = (2, 4)
_LARGEST_PACKET = 262144  # what tcpdump and Wireshark take at most
_NANOSECONDS = 10**9


class PcapWriter:
    """A pcap file with nanosecond time stamps (draft-ietf-opsawg-pcap).

    Parameters
    ----------
    file : binary file
        Open for writing; stays open.
    link_type : int
        `RAW_IP` for a TUN, `ETHERNET` for a TAP.
    """

    def __init__(self, file: BinaryIO, link_type: int) -> None:
        self._file = file
        header = struct.pack("<IHHIIII", _MAGIC_NANOSECONDS, *_VERSION, 0, 0, _LARGEST_PACKET, link_type)
        self._file.write(header)
        self._file.flush()

    def write(self, packet: bytes, time_ns: int) -> None:
        """Append one packet.

        Parameters
        ----------
        packet : bytes
            The whole packet.
        time_ns : int
            Nanoseconds since 1970, as `time.time_ns` gives them.
        """
        seconds, nanoseconds = divmod(time_ns, _NANOSECONDS)
        kept = packet[:_LARGEST_PACKET]
        header = struct.pack("<IIII", seconds & 0xFFFFFFFF, nanoseconds, len(kept), len(packet))
        self._file.write(header + kept)  # at once: a signal must not leave half a record

    def flush(self) -> None:
        """Let readers of the file see what was written."""
        self._file.flush()
