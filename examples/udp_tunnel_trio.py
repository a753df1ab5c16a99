"""A tunnel between two hosts: each packet in a UDP datagram, behind a header of four bytes.  With trio.

    alpha$ sudo python examples/udp_tunnel_trio.py 192.0.2.1 192.0.2.2 --address 10.8.0.1/24 fd00:8::1/64
    beta$  sudo python examples/udp_tunnel_trio.py 192.0.2.2 192.0.2.1 --address 10.8.0.2/24 fd00:8::2/64
    alpha$ ping 10.8.0.2

Needs trio.  Nothing is encrypted or authenticated.  udp_tunnel_sync.py and udp_tunnel_asyncio.py speak
the same, so each may be at the other end of any.
"""

import argparse
import contextlib
import socket

import numpy as np
import trio

import tuntap
from tuntap import aio

HEADER = 4  # bytes: the number of the tunnel


def main():
    parser = argparse.ArgumentParser(description="A UDP tunnel, with trio.")
    parser.add_argument("local", help="IP address of this host")
    parser.add_argument("remote", help="IP address of the other one")
    parser.add_argument("--port", type=int, default=5555, help="of both (default: %(default)s)")
    parser.add_argument("--number", type=int, default=1, help="of the tunnel (default: %(default)s)")
    parser.add_argument("--name", help="of the interface")
    parser.add_argument("--address", nargs="+", default=[], metavar="ADDRESS/PREFIX", help="in the tunnel")
    parser.add_argument("--mtu", type=int, default=1400, help="of the tunnel (default: %(default)s)")
    trio.run(tunnel, parser.parse_args())


async def tunnel(args):
    header = args.number.to_bytes(HEADER, "big")
    with await udp_socket(args.local, args.remote, args.port) as sock:
        async with (
            aio.Tun(args.name, addresses=args.address, mtu=args.mtu) as tun,
            trio.open_nursery() as nursery,
        ):
            print(f"{tun.name}: a tunnel to {args.remote}", flush=True)
            nursery.start_soon(to_network, tun, sock, header)
            nursery.start_soon(from_network, tun, sock, header)


async def udp_socket(local, remote, port):
    """A socket that talks to the other end only."""
    sock = trio.socket.socket(socket.AF_INET6 if ":" in remote else socket.AF_INET, socket.SOCK_DGRAM)
    await sock.bind((local, port))
    await sock.connect((remote, port))
    return sock


async def to_network(tun, sock, header):
    batch = tun.batch(64, headroom=HEADER)
    batch.buffer[:, :HEADER] = np.frombuffer(header, np.uint8)  # a receive leaves the headroom alone
    while True:
        await tun.recv_batch(batch)
        for i in range(batch.count):
            # Nobody is there, or there is no way: the packet is lost, as in any network.
            with contextlib.suppress(OSError):
                await sock.send(batch.with_headroom(i, HEADER))


async def from_network(tun, sock, header):
    datagram = memoryview(bytearray(65536))
    while True:
        try:
            size = await sock.recv_into(datagram)
        except ConnectionRefusedError:
            continue  # the answer to what was sent while nobody was there
        if size > HEADER and datagram[:HEADER] == header:
            # What is no packet, and what comes while the interface is down, is dropped.
            with contextlib.suppress(tuntap.PacketError, tuntap.LinkDownError):
                await tun.send(datagram[HEADER:size])


if __name__ == "__main__":
    try:
        main()
    except* KeyboardInterrupt:  # trio may hand it over in a group
        pass
