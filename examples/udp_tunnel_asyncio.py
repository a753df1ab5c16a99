"""A tunnel between two hosts: each packet in a UDP datagram, behind a header of four bytes.  With asyncio.

    alpha$ sudo python examples/udp_tunnel_asyncio.py 192.0.2.1 192.0.2.2 --address 10.8.0.1/24 fd00:8::1/64
    beta$  sudo python examples/udp_tunnel_asyncio.py 192.0.2.2 192.0.2.1 --address 10.8.0.2/24 fd00:8::2/64
    alpha$ ping 10.8.0.2

With --uvloop it runs on uvloop, which must be installed.  Nothing is encrypted or authenticated.
udp_tunnel_sync.py and udp_tunnel_trio.py speak the same, so each may be at the other end of any.
"""

import argparse
import asyncio
import contextlib
import socket

import numpy as np

import tuntap
from tuntap import aio

HEADER = 4  # bytes: the number of the tunnel


def main():
    parser = argparse.ArgumentParser(description="A UDP tunnel, with asyncio.")
    parser.add_argument("local", help="IP address of this host")
    parser.add_argument("remote", help="IP address of the other one")
    parser.add_argument("--port", type=int, default=5555, help="of both (default: %(default)s)")
    parser.add_argument("--number", type=int, default=1, help="of the tunnel (default: %(default)s)")
    parser.add_argument("--name", help="of the interface")
    parser.add_argument("--address", nargs="+", default=[], metavar="ADDRESS/PREFIX", help="in the tunnel")
    parser.add_argument("--mtu", type=int, default=1400, help="of the tunnel (default: %(default)s)")
    parser.add_argument("--uvloop", action="store_true", help="run on uvloop")
    args = parser.parse_args()

    loop_factory = None
    if args.uvloop:
        import uvloop

        loop_factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(tunnel(args))


async def tunnel(args):
    header = args.number.to_bytes(HEADER, "big")
    with udp_socket(args.local, args.remote, args.port) as sock:
        async with (
            aio.Tun(args.name, addresses=args.address, mtu=args.mtu) as tun,
            asyncio.TaskGroup() as tasks,
        ):
            print(f"{tun.name}: a tunnel to {args.remote}", flush=True)
            tasks.create_task(to_network(tun, sock, header))
            tasks.create_task(from_network(tun, sock, header))


def udp_socket(local, remote, port):
    """A socket that talks to the other end only and never waits."""
    sock = socket.socket(socket.AF_INET6 if ":" in remote else socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((local, port))
    sock.connect((remote, port))
    sock.setblocking(False)
    return sock


async def to_network(tun, sock, header):
    loop = asyncio.get_running_loop()
    batch = tun.batch(64, headroom=HEADER)
    batch.buffer[:, :HEADER] = np.frombuffer(header, np.uint8)  # a receive leaves the headroom alone
    while True:
        await tun.recv_batch(batch)
        for i in range(batch.count):
            # Nobody is there, or there is no way: the packet is lost, as in any network.
            with contextlib.suppress(OSError):
                await loop.sock_sendall(sock, memoryview(batch.with_headroom(i, HEADER)))


async def from_network(tun, sock, header):
    loop = asyncio.get_running_loop()
    datagram = memoryview(bytearray(65536))
    while True:
        try:
            size = await loop.sock_recv_into(sock, datagram)
        except ConnectionRefusedError:
            continue  # the answer to what was sent while nobody was there
        if size > HEADER and datagram[:HEADER] == header:
            # What is no packet, and what comes while the interface is down, is dropped.
            with contextlib.suppress(tuntap.PacketError, tuntap.LinkDownError):
                await tun.send(datagram[HEADER:size])


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
