"""A tunnel between two hosts: each packet in a UDP datagram, behind a header of four bytes.  With threads.

    alpha$ sudo python examples/udp_tunnel_sync.py 192.0.2.1 192.0.2.2 --address 10.8.0.1/24 fd00:8::1/64
    beta$  sudo python examples/udp_tunnel_sync.py 192.0.2.2 192.0.2.1 --address 10.8.0.2/24 fd00:8::2/64
    alpha$ ping 10.8.0.2

Nothing is encrypted or authenticated.  udp_tunnel_asyncio.py and udp_tunnel_trio.py speak the same, so
each may be at the other end of any.
"""

import argparse
import contextlib
import select
import socket
from concurrent.futures import ThreadPoolExecutor, as_completed

import numpy as np

import tuntap

HEADER = 4  # bytes: the number of the tunnel


def main():
    parser = argparse.ArgumentParser(description="A UDP tunnel, with threads.")
    parser.add_argument("local", help="IP address of this host")
    parser.add_argument("remote", help="IP address of the other one")
    parser.add_argument("--port", type=int, default=5555, help="of both (default: %(default)s)")
    parser.add_argument("--number", type=int, default=1, help="of the tunnel (default: %(default)s)")
    parser.add_argument("--name", help="of the interface")
    parser.add_argument("--address", nargs="+", default=[], metavar="ADDRESS/PREFIX", help="in the tunnel")
    parser.add_argument("--mtu", type=int, default=1400, help="of the tunnel (default: %(default)s)")
    args = parser.parse_args()
    header = args.number.to_bytes(HEADER, "big")

    with (
        udp_socket(args.local, args.remote, args.port) as sock,
        tuntap.Tun(args.name, addresses=args.address, mtu=args.mtu) as tun,
        ThreadPoolExecutor() as threads,
    ):
        print(f"{tun.name}: a tunnel to {args.remote}", flush=True)
        stop = tuntap.Event()
        both = [
            threads.submit(to_network, tun, sock, header, stop),
            threads.submit(from_network, tun, sock, header, stop),
        ]
        try:
            for ended in as_completed(both):
                ended.result()  # what went wrong there goes wrong here
        finally:
            stop.set()  # ends both, wherever they wait


def udp_socket(local, remote, port):
    """A socket that talks to the other end only and never waits."""
    sock = socket.socket(socket.AF_INET6 if ":" in remote else socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((local, port))
    sock.connect((remote, port))
    sock.setblocking(False)
    return sock


def to_network(tun, sock, header, stop):
    batch = tun.batch(64, headroom=HEADER)
    batch.buffer[:, :HEADER] = np.frombuffer(header, np.uint8)  # a receive leaves the headroom alone
    while True:
        tun.recv_batch(batch, event=stop)
        for i in range(batch.count):
            # The socket is full, or nobody is there: the packet is lost, as in any network.
            with contextlib.suppress(OSError):
                sock.send(batch.with_headroom(i, HEADER))


def from_network(tun, sock, header, stop):
    datagram = memoryview(bytearray(65536))
    while not stop.is_set():
        select.select([sock, stop], [], [])
        with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
            while not stop.is_set():
                size = sock.recv_into(datagram)
                if size > HEADER and datagram[:HEADER] == header:
                    # What is no packet, and what comes while the interface is down, is dropped.
                    with contextlib.suppress(tuntap.PacketError, tuntap.LinkDownError):
                        tun.send(datagram[HEADER:size], event=stop)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
