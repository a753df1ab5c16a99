"""A router between two TUNs, IPv4 and IPv6, on batches of numpy arrays.

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
import struct
from concurrent.futures import ThreadPoolExecutor, as_completed

import numpy as np

import tuntap
from tuntap.offload import checksum


class Side:
    """A TUN, and the subnets that are reached through it."""

    def __init__(self, tun, addresses):
        self.tun = tun
        self.networks = [ipaddress.ip_interface(address).network for address in addresses]

    def router_address(self, version):
        """Address of the router in a subnet of this side, packed; None if there is none."""
        for network in self.networks:
            if network.version == version and network.num_addresses > 2:
                return network[-2].packed
        return None

    def has(self, destinations, version):
        """Of addresses, shape (n, 4 or 16), which are in a subnet of this side."""
        found = np.zeros(len(destinations), bool)
        for network in self.networks:
            if network.version == version:
                mask = np.frombuffer(network.netmask.packed, np.uint8)
                prefix = np.frombuffer(network.network_address.packed, np.uint8)
                found |= (destinations & mask == prefix).all(axis=1)
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
    while True:
        source.tun.recv_batch(batch, event=stop)
        passed = []
        for version in (4, 6):
            rows = find_routed(batch, target, version)
            is_expired = batch.data[rows, 8 if version == 4 else 7] <= 1
            for i in rows[is_expired]:
                tell_time_exceeded(source, batch[i], stop)
            count_down(batch.data, rows[~is_expired], version)
            passed.extend(rows[~is_expired])
        batch.fill([batch[i] for i in sorted(passed)])  # moves them to the front
        with contextlib.suppress(tuntap.LinkDownError):  # dropped then
            target.tun.send_batch(batch, event=stop)


def find_routed(batch, target, version):
    """Indices of the packets of one version that are for a subnet of the target."""
    data, lengths = batch.data[: batch.count], batch.lengths[: batch.count]
    start, end = (16, 20) if version == 4 else (24, 40)
    is_right = (data[:, 0] >> 4 == version) & (lengths >= (20 if version == 4 else 40))
    return np.flatnonzero(is_right & target.has(data[:, start:end], version))


def count_down(data, rows, version):
    """Take one from the time to live; IPv4 sums it."""
    if version == 6:
        data[rows, 7] -= 1
        return
    data[rows, 8] -= 1
    # The word that it begins has become less by 0x0100, so the checksum becomes more by that (RFC 1624).
    total = (data[rows, 10].astype(int) << 8 | data[rows, 11]) + 0x0100
    total += total >= 0xFFFF
    data[rows, 10] = total >> 8 & 0xFF
    data[rows, 11] = total & 0xFF


def tell_time_exceeded(side, packet, stop):
    """Send an ICMP error to where a packet came from."""
    version = packet[0] >> 4
    router = side.router_address(version)
    if router is None or not may_be_answered(packet, version):
        return
    if version == 4:
        sender, quoted = packet[12:16].tobytes(), packet[:548].tobytes()
        message = with_checksum(struct.pack("!BBHI", 11, 0, 0, 0) + quoted, 2)
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(message), 0, 0, 64, 1, 0) + router + sender
        header = with_checksum(header, 10)
    else:
        sender, quoted = packet[8:24].tobytes(), packet[:1232].tobytes()
        message = struct.pack("!BBHI", 3, 0, 0, 0) + quoted
        pseudo_header = router + sender + struct.pack("!II", len(message), 58)
        message = with_checksum(message, 2, pseudo_header)
        header = struct.pack("!IHBB", 6 << 28, len(message), 58, 64) + router + sender
    with contextlib.suppress(tuntap.LinkDownError):
        side.tun.send(header + message, event=stop)


def may_be_answered(packet, version):
    """Not so for ICMP errors, and for fragments behind the first (RFC 1122, RFC 4443)."""
    if version == 6:
        return packet[6] != 58 or (len(packet) > 40 and packet[40] >= 128)
    if packet[6] & 0x1F or packet[7]:
        return False
    header = (packet[0] & 15) * 4
    return packet[9] != 1 or (len(packet) > header and packet[header] == 8)


def with_checksum(message, at, pseudo_header=b""):
    """The same with its checksum, two bytes that are zero so far, filled in."""
    return message[:at] + checksum(pseudo_header + message).to_bytes(2, "big") + message[at + 2 :]


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
