"""Packets as layers of scapy: a codec, and a name server that knows one answer.

    sudo python examples/framed_scapy.py 10.6.0.1/24 fd00:6::1/64 --answer 192.0.2.7
    dig @10.6.0.53 example.org

Needs scapy.  The addresses given are the kernel's own; port 53 of every other address in their subnets is
the name server.
"""

import argparse
import contextlib

import numpy as np
from scapy.layers.dns import DNS, DNSRR
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Raw

import tuntap
from tuntap.framed import Framed


class ScapyCodec:
    """Every packet as scapy reads it."""

    def decode(self, packet):
        layer = {4: IP, 6: IPv6}.get(int(packet[0]) >> 4, Raw)
        return layer(packet.tobytes())

    def encode(self, item, slot):
        packet = bytes(item)  # scapy fills in lengths and checksums
        slot[: len(packet)] = np.frombuffer(packet, np.uint8)
        return len(packet)


def main():
    parser = argparse.ArgumentParser(description="A name server that knows one answer.")
    parser.add_argument("addresses", nargs="+", metavar="ADDRESS/PREFIX", help="of the kernel")
    parser.add_argument("--answer", default="192.0.2.1", help="an IPv4 address (default: %(default)s)")
    parser.add_argument("--name", help="of the interface")
    args = parser.parse_args()

    with tuntap.Tun(args.name, addresses=args.addresses) as tun:
        print(f"{tun.name}: every name is {args.answer}", flush=True)
        framed = Framed(tun, ScapyCodec())
        for packet in framed:
            reply = make_reply(packet, args.answer)
            if reply is not None:
                with contextlib.suppress(tuntap.LinkDownError):
                    framed.send(reply)


def make_reply(packet, answer):
    """What answers a question; None if a packet asks none."""
    if UDP not in packet or packet[UDP].dport != 53 or DNS not in packet:
        return None
    query = packet[DNS]
    if query.qr or not query.qd:
        return None
    network = type(packet)(src=packet.dst, dst=packet.src)  # IP or IPv6
    ports = UDP(sport=53, dport=packet[UDP].sport)
    name = query.qd[0].qname
    return network / ports / DNS(id=query.id, qr=1, aa=1, qd=query.qd, an=[DNSRR(rrname=name, rdata=answer)])


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
