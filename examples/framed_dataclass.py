"""UDP datagrams as dataclasses: a codec, and a service that says everything back in capitals.

    sudo python examples/framed_dataclass.py 10.5.0.1/24 fd00:5::1/64
    nc -u 10.5.0.7 7

The addresses given are the kernel's own.  Port 7 of every other address in their subnets is the service.
"""

import argparse
import contextlib
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

import numpy as np

import tuntap
from tuntap.framed import Framed
from tuntap.offload import checksum

UDP = 17


@dataclass
class Datagram:
    source: IPv4Address | IPv6Address
    destination: IPv4Address | IPv6Address
    source_port: int
    destination_port: int
    payload: bytes


class DatagramCodec:
    """Datagrams in packets; whatever else is received is passed over."""

    def decode(self, packet):
        size = len(packet)
        if size >= 28 and packet[0] == 0x45 and packet[9] == UDP and not (packet[6] & 0x3F or packet[7]):
            addresses, udp = packet[12:20].tobytes(), packet[20:].tobytes()
        elif size >= 48 and packet[0] >> 4 == 6 and packet[6] == UDP:
            addresses, udp = packet[8:40].tobytes(), packet[40:].tobytes()
        else:
            return None  # no datagram, or a fragment of one, or behind options
        source_port, destination_port, length = struct.unpack_from("!HHH", udp)
        half = len(addresses) // 2
        return Datagram(
            ip_address(addresses[:half]), ip_address(addresses[half:]),
            source_port, destination_port, udp[8:length],
        )  # fmt: skip

    def encode(self, datagram, slot):
        addresses = datagram.source.packed + datagram.destination.packed
        length = 8 + len(datagram.payload)
        ports = datagram.source_port, datagram.destination_port
        udp = struct.pack("!HHHH", *ports, length, 0) + datagram.payload
        total = checksum(addresses + struct.pack("!II", length, UDP) + udp) or 0xFFFF  # 0 means: none
        udp = udp[:6] + total.to_bytes(2, "big") + udp[8:]
        if datagram.source.version == 4:
            header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 0, 0, 64, UDP, 0) + addresses
            header = header[:10] + checksum(header).to_bytes(2, "big") + header[12:]
        else:
            header = struct.pack("!IHBB", 6 << 28, length, UDP, 64) + addresses
        packet = header + udp
        slot[: len(packet)] = np.frombuffer(packet, np.uint8)  # ValueError if it does not fit
        return len(packet)


def main():
    parser = argparse.ArgumentParser(description="Datagrams to port 7 come back in capitals.")
    parser.add_argument("addresses", nargs="+", metavar="ADDRESS/PREFIX", help="of the kernel")
    parser.add_argument("--name", help="of the interface")
    args = parser.parse_args()

    with tuntap.Tun(args.name, addresses=args.addresses) as tun:
        print(f"{tun.name}: port 7 answers in capitals", flush=True)
        framed = Framed(tun, DatagramCodec())
        for datagram in framed:
            if datagram.destination_port == 7:
                answer = Datagram(
                    datagram.destination, datagram.source, 7, datagram.source_port, datagram.payload.upper()
                )
                with contextlib.suppress(tuntap.LinkDownError):
                    framed.send(answer)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
