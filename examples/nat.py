"""A source NAT for TCP, UDP and pings over IPv4, between a TUN inside and a TUN outside, on columns.

    sudo ip netns add net
    sudo python examples/nat.py --inside 10.1.0.1/24 --outside 192.0.2.1/24 --outside-netns net \
        --public 192.0.2.254
    sudo ip route add 192.0.2.0/24 dev inside
    ping 192.0.2.1
    curl http://192.0.2.1/

The addresses inside and outside are the kernel's.  Whoever is outside sees one sender, the public address,
with a port (of a ping: an identifier) for each address and port inside that has sent something.  An answer to
that port goes back there, whoever it is from (RFC 4787: endpoint-independent).  A port that was not used for
five minutes goes to the next who wants one.  Fragments, ICMP errors and IPv6 are dropped.
"""

import argparse
import contextlib
import ipaddress
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed

import numpy as np

import tuntap
from tuntap.columns import Mark

FIELDS = [
    "marks", "version", "ttl", "protocol", "src4", "dst4", "src_port", "dst_port", "icmp_type", "icmp_id",
]  # fmt: skip
ICMP, TCP, UDP = 1, 6, 17
ECHO_REQUEST, ECHO_REPLY = 8, 0
FIRST_PORT = 1024
IDLE = 300.0  # seconds


class Ports:
    """Which public port stands for which address and port inside, of each protocol."""

    def __init__(self):
        self.lock = threading.Lock()
        self.port_of = {}
        self.owner = {protocol: np.zeros(65536, np.uint64) for protocol in (ICMP, TCP, UDP)}
        self.last_used = {protocol: np.full(65536, -np.inf) for protocol in (ICMP, TCP, UDP)}

    def outward(self, protocols, addresses, ports):
        """Public ports, 0 where there is none left: arrays of one row for each packet."""
        keys = protocols.astype(np.uint64) << 48 | addresses.astype(np.uint64) << 16 | ports
        flows, flow_of = np.unique(keys, return_inverse=True)
        with self.lock:
            public = np.array([self._port_for(flow) for flow in flows.tolist()], np.uint16)
        return public[flow_of]

    def _port_for(self, key):
        protocol, now = key >> 48, time.monotonic()
        port = self.port_of.get(key)
        if port is None:
            free = np.flatnonzero(self.last_used[protocol][FIRST_PORT:] < now - IDLE)
            if not free.size:
                return 0
            port = FIRST_PORT + int(free[0])
            self.port_of.pop(int(self.owner[protocol][port]), None)
            self.port_of[key] = port
            self.owner[protocol][port] = key
        self.last_used[protocol][port] = now
        return port

    def inward(self, protocols, ports):
        """Addresses and ports inside; an address of 0 where there is none."""
        owners = np.zeros(len(ports), np.uint64)
        with self.lock:
            for protocol, owner in self.owner.items():
                mine = protocols == protocol
                owners[mine] = owner[ports[mine]]
                used = ports[mine][owners[mine] != 0]
                self.last_used[protocol][used] = time.monotonic()
        return (owners >> 16 & 0xFFFFFFFF).astype(np.uint32), (owners & 0xFFFF).astype(np.uint16)


def main():
    parser = argparse.ArgumentParser(description="A source NAT between two TUNs.")
    for side in ("inside", "outside"):
        parser.add_argument(
            f"--{side}", required=True, metavar="ADDRESS/PREFIX", help=f"of the kernel {side}"
        )
        parser.add_argument(f"--{side}-netns", metavar="NETNS", help=f"where the TUN {side} is made")
    parser.add_argument("--public", required=True, metavar="ADDRESS", help="that all of inside has outside")
    parser.add_argument("--superpackets", action="store_true",
                        help="take up to 64 KiB of TCP or UDP in one packet, as the kernel does")  # fmt: skip
    args = parser.parse_args()
    offload = "superpackets" if args.superpackets else False
    public = int(ipaddress.IPv4Address(args.public))

    with (
        tuntap.Tun("inside", addresses=[args.inside], netns=args.inside_netns, offload=offload) as inside,
        tuntap.Tun("outside", addresses=[args.outside], netns=args.outside_netns, offload=offload) as outside,
        ThreadPoolExecutor() as threads,
    ):
        print(f"inside is {args.public} outside", flush=True)
        stop, ports = tuntap.Event(), Ports()
        both = [
            threads.submit(pass_on, inside, outside, stop, lambda table: outward(table, ports, public)),
            threads.submit(pass_on, outside, inside, stop, lambda table: inward(table, ports, public)),
        ]
        try:
            for ended in as_completed(both):
                ended.result()  # what went wrong there goes wrong here
        finally:
            stop.set()  # ends both, wherever they wait


def pass_on(source, target, stop, translate):
    """In one direction.  `translate` changes the rows of packets, and says which are passed on."""
    batch = source.batch(64)
    while True:
        source.recv_batch(batch, event=stop)
        table = batch.columns(FIELDS)
        passed = translate(table)
        table["ttl"] -= 1
        written = ["ttl", "src4", "dst4", "src_port", "dst_port", "icmp_id"]
        batch.update(table, written, where=passed)  # checksums follow, finished ones or not
        with contextlib.suppress(tuntap.LinkDownError):  # dropped then
            target.send_batch(batch, where=passed, event=stop)


def outward(table, ports, public):
    passed = may_pass(table, ECHO_REQUEST) & (table["dst4"] >> 28 != 14)  # no multicast
    rows = np.flatnonzero(passed)
    sent = table[rows]
    is_ping = sent["protocol"] == ICMP
    port = ports.outward(sent["protocol"], sent["src4"], np.where(is_ping, sent["icmp_id"], sent["src_port"]))
    table["src4"] = public
    table["src_port"][rows] = table["icmp_id"][rows] = port
    passed[rows] = port != 0
    return passed


def inward(table, ports, public):
    passed = may_pass(table, ECHO_REPLY) & (table["dst4"] == public)
    rows = np.flatnonzero(passed)
    sent = table[rows]
    is_ping = sent["protocol"] == ICMP
    address, port = ports.inward(sent["protocol"], np.where(is_ping, sent["icmp_id"], sent["dst_port"]))
    table["dst4"][rows] = address
    table["dst_port"][rows] = table["icmp_id"][rows] = port
    passed[rows] = address != 0
    return passed


def may_pass(table, icmp_type):
    """Whole TCP and UDP over IPv4, and one type of ICMP."""
    is_whole = table["marks"] & (Mark.TRANSPORT | Mark.FRAGMENT) == Mark.TRANSPORT
    is_right = np.isin(table["protocol"], (TCP, UDP)) | (
        (table["protocol"] == ICMP) & (table["icmp_type"] == icmp_type)
    )
    return is_whole & is_right & (table["version"] == 4) & (table["ttl"] > 1)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
