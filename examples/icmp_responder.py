"""Answers pings to every address of a subnet, IPv4 and IPv6.

    sudo python examples/icmp_responder.py 10.9.0.1/24 fd00:9::1/64
    ping 10.9.0.77
    ping fd00:9::abcd

The addresses given are the kernel's own, which it answers itself.  Whatever else there is in their
subnets goes into the TUN and is answered here: a whole batch at once, in the slots it was received into.
"""

import argparse
import contextlib
import ipaddress

import numpy as np

import tuntap


def main():
    parser = argparse.ArgumentParser(description="Answer pings to every address of a subnet.")
    parser.add_argument("addresses", nargs="+", metavar="ADDRESS/PREFIX", help="of the kernel")
    parser.add_argument("--name", help="of the interface")
    args = parser.parse_args()
    networks = [ipaddress.ip_interface(address).network for address in args.addresses]

    with tuntap.Tun(args.name, addresses=args.addresses) as tun:
        print(f"{tun.name}: answering for {', '.join(map(str, networks))}", flush=True)
        batch = tun.batch(64)
        while True:
            tun.recv_batch(batch)
            requests = find_requests(batch, networks)
            make_replies(batch, requests)
            batch.fill([batch[i] for i in requests])  # moves them to the front
            with contextlib.suppress(tuntap.LinkDownError):
                tun.send_batch(batch)


def find_requests(batch, networks):
    """Indices of the echo requests to an address of the networks."""
    data, lengths = batch.data[: batch.count], batch.lengths[: batch.count]
    rows = np.arange(batch.count)
    version = data[:, 0] >> 4
    header = header_sizes(data)
    is_whole = lengths >= header + 8  # the ICMP header is there
    kind = data[rows, header]
    is_fragment = (data[:, 6] & 0x3F != 0) | (data[:, 7] != 0)  # of IPv4: more of them, or an offset
    found = np.zeros(batch.count, bool)
    for network in networks:
        if network.version == 4:
            is_echo = (version == 4) & (header >= 20) & (data[:, 9] == 1) & (kind == 8) & ~is_fragment
            destination = data[:, 16:20]
        else:
            is_echo = (version == 6) & (data[:, 6] == 58) & (kind == 128)
            destination = data[:, 24:40]
        mask = np.frombuffer(network.netmask.packed, np.uint8)
        prefix = np.frombuffer(network.network_address.packed, np.uint8)
        found |= is_echo & is_whole & (destination & mask == prefix).all(axis=1)
    return np.flatnonzero(found)


def make_replies(batch, requests):
    """Turn requests into replies: another type, and the addresses swapped.

    The order of what is summed does not matter to a checksum, so only the type changes it.
    """
    data = batch.data
    header = header_sizes(data[requests])
    checksum = data[requests, header + 2].astype(int) << 8 | data[requests, header + 3]
    is_ipv4 = data[requests, 0] >> 4 == 4
    checksum = np.where(is_ipv4, updated(checksum, 8 << 8, 0 << 8), updated(checksum, 128 << 8, 129 << 8))
    data[requests, header] = np.where(is_ipv4, 0, 129)
    data[requests, header + 2] = checksum >> 8
    data[requests, header + 3] = checksum & 0xFF
    swap(data, requests[is_ipv4], 12, 4)
    swap(data, requests[~is_ipv4], 8, 16)


def header_sizes(data):
    """Bytes of the IP header of each packet; an IPv6 header is taken to have no extensions."""
    return np.where(data[:, 0] >> 4 == 4, (data[:, 0] & 15).astype(int) * 4, 40)


def updated(checksum, old, new):
    """Checksums after a word of what they sum has changed (RFC 1624)."""
    total = (checksum ^ 0xFFFF) + (old ^ 0xFFFF) + new
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def swap(data, rows, start, size):
    """Exchange source and destination address."""
    middle, end = start + size, start + 2 * size
    data[rows, start:end] = np.hstack([data[rows, middle:end], data[rows, start:middle]])


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
