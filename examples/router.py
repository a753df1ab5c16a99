"""A router between two TUNs, IPv4 and IPv6, on columns of batches.

    sudo ip netns add blue
    sudo python examples/router.py --left 10.1.0.1/24 fd00:1::1/64 --right 10.2.0.1/24 fd00:2::1/64 \
        --right-netns blue
    sudo ip route add 10.2.0.0/24 dev left;          sudo ip -6 route add fd00:2::/64 dev left
    sudo ip -n blue route add 10.1.0.0/24 dev right; sudo ip -n blue -6 route add fd00:1::/64 dev right
    ping 10.2.0.1
    ping -t 1 10.2.0.1

The addresses given are the kernel's, one host on each side.  The router itself has the last address but one
of each subnet: ICMP says so when the time to live of a packet is exceeded.  A packet that is for neither
subnet is dropped.
"""

import argparse
import contextlib
import ipaddress
from concurrent.futures import ThreadPoolExecutor, as_completed

import numpy as np

import tuntap

FIELDS = [
    "version", "ttl", "protocol", "fragment_offset", "icmp_type", "src4", "dst4", "src6", "dst6",
]  # fmt: skip
ICMP, ICMPV6 = 1, 58
QUOTED = 548, 1232  # bytes of a packet that an error of IPv4 and one of IPv6 holds (RFC 1812, RFC 4443)


class Side:
    """A TUN, and the subnets that are reached through it."""

    def __init__(self, tun, addresses):
        self.tun = tun
        self.networks = [ipaddress.ip_interface(address).network for address in addresses]

    def router_address(self, version):
        """Address of the router in a subnet of this side; None if there is none."""
        for network in self.networks:
            if network.version == version and network.num_addresses > 2:
                return network[-2]
        return None

    def has(self, table):
        """Of each packet, whether it is for a subnet of this side."""
        found = np.zeros(len(table), bool)
        for network in self.networks:
            mask, prefix = network.netmask, network.network_address
            if network.version == 4:
                is_here = table["dst4"] & int(mask) == int(prefix)
            else:
                mask, prefix = (np.frombuffer(part.packed, np.uint8) for part in (mask, prefix))
                is_here = (table["dst6"] & mask == prefix).all(axis=1)
            found |= is_here & (table["version"] == network.version)
        return found


def main():
    parser = argparse.ArgumentParser(description="A router between two TUNs.")
    for side in ("left", "right"):
        parser.add_argument(f"--{side}", nargs="+", required=True, metavar="ADDRESS/PREFIX",
                            help=f"of the kernel on the {side}")  # fmt: skip
        parser.add_argument(f"--{side}-netns", metavar="NETNS", help=f"where the TUN {side} is made")
    args = parser.parse_args()

    with (
        tuntap.Tun("left", addresses=args.left, netns=args.left_netns) as left_tun,
        tuntap.Tun("right", addresses=args.right, netns=args.right_netns) as right_tun,
        ThreadPoolExecutor() as threads,
    ):
        left, right = Side(left_tun, args.left), Side(right_tun, args.right)
        print("routing between left and right", flush=True)
        stop = tuntap.Event()
        both = [threads.submit(route, left, right, stop), threads.submit(route, right, left, stop)]
        try:
            for ended in as_completed(both):
                ended.result()  # what went wrong there goes wrong here
        finally:
            stop.set()  # ends both, wherever they wait


def route(source, target, stop):
    """Pass packets on in one direction."""
    batch = source.tun.batch(64)
    errors = tuntap.PacketBatch(64, 1280)
    while True:
        source.tun.recv_batch(batch, event=stop)
        table = batch.columns(FIELDS)
        is_routed = target.has(table)
        is_expired = table["ttl"] <= 1
        if build_time_exceeded(errors, source, batch, table, is_routed & is_expired):
            send(source.tun, errors, stop)
        table["ttl"] -= 1
        passed = is_routed & ~is_expired
        batch.update(table, ["ttl"], where=passed)  # and the checksum of IPv4
        send(target.tun, batch, stop, where=passed)


def send(tun, batch, stop, where=None):
    with contextlib.suppress(tuntap.LinkDownError):  # dropped then
        tun.send_batch(batch, where=where, event=stop)


def build_time_exceeded(errors, side, batch, table, is_expired):
    """Make ICMP errors for where packets came from; how many."""
    rows = np.flatnonzero(is_expired & may_be_answered(table))
    routers = {version: side.router_address(version) for version in (4, 6)}
    rows = rows[[routers[version] is not None for version in table["version"][rows]]]
    if not rows.size:
        return 0
    told = table[rows]
    is_ipv4 = told["version"] == 4
    return errors.build(
        {
            "version": told["version"], "protocol": np.where(is_ipv4, ICMP, ICMPV6),
            "icmp_type": np.where(is_ipv4, 11, 3),
            "src4": routers[4] or 0, "dst4": told["src4"], "src6": routers[6] or "::", "dst6": told["src6"],
            "payload_length": np.minimum(batch.lengths[rows], np.where(is_ipv4, *QUOTED)),
        },
        batch.data[rows, : max(QUOTED)],
    )  # fmt: skip


def may_be_answered(table):
    """Not so ICMP errors, and fragments behind the first (RFC 1122, RFC 4443)."""
    is_error = np.where(
        table["version"] == 4,
        (table["protocol"] == ICMP) & (table["icmp_type"] != 8),
        (table["protocol"] == ICMPV6) & (table["icmp_type"] < 128),
    )
    return (table["fragment_offset"] == 0) & ~is_error


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
