"""Packets from one TUN to another, in Python: with tuntap, with os.read and os.write, with python-pytun.

    relay.py WITH MODE NETNS NETNS NAME

opens an interface of that name in each network namespace, says "ready" and relays until it is killed.
The modes of tuntap: plain, offload (super-packets split and coalesced again), unchecked (the same without
checksums), superpackets (passed whole); each but unchecked also through two queues, as plain-queues.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
import sys
import threading
from collections.abc import Callable

BATCH = 128  # packets; as many as the peers take
SUPER_PACKETS = 8
READ_SIZE = 2048
CLONE_NEWNET = 0x40000000  # linux/sched.h
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000  # linux/if_tun.h
TUNTAP = {
    "plain": {},
    "offload": {"offload": True},
    "unchecked": {"offload": True, "checksums": False},
    "superpackets": {"offload": "superpackets"},
}


def tuntap_relay(mode: str, spaces: list[str], name: str) -> list[Callable[[], None]]:
    import tuntap

    mode, _, queues = mode.partition("-")
    settings = {"queues": 2 if queues else 1, **TUNTAP[mode]}
    a, b = (tuntap.Tun(name, netns=space, up=False, **settings) for space in spaces)
    capacity = SUPER_PACKETS if mode == "superpackets" else BATCH

    def relay(source: tuntap.Tun, sink: tuntap.Tun) -> Callable[[], None]:
        def run() -> None:
            batch = source.batch(capacity)
            receive, send = source.recv_batch, sink.send_batch
            while True:
                receive(batch)
                send(batch)

        return run

    pairs = list(zip(a.queues, b.queues, strict=True))
    return [relay(*pair) for pair in pairs] + [relay(*pair[::-1]) for pair in pairs]


def os_relay(spaces: list[str], name: str) -> list[Callable[[], None]]:
    fds = []
    for space in spaces:
        enter(space)
        fds.append(os.open("/dev/net/tun", os.O_RDWR))
        fcntl.ioctl(fds[-1], TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))

    def relay(source: int, sink: int) -> Callable[[], None]:
        def run() -> None:
            read, write = os.read, os.write
            while True:
                write(sink, read(source, READ_SIZE))

        return run

    return [relay(*fds), relay(*fds[::-1])]


def pytun_relay(spaces: list[str], name: str) -> list[Callable[[], None]]:
    import pytun

    devices = []
    for space in spaces:
        enter(space)
        devices.append(pytun.TunTapDevice(name, pytun.IFF_TUN | pytun.IFF_NO_PI))

    def relay(source: pytun.TunTapDevice, sink: pytun.TunTapDevice) -> Callable[[], None]:
        def run() -> None:
            read, write = source.read, sink.write
            while True:
                write(read(READ_SIZE))

        return run

    return [relay(*devices), relay(*devices[::-1])]


def enter(netns: str) -> None:
    """What os.setns does from Python 3.12 on."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(netns) as space:
        if libc.setns(space.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")


def main() -> None:
    library, mode, *spaces, name = sys.argv[1:]
    if library == "tuntap":
        relays = tuntap_relay(mode, spaces, name)
    else:
        relays = (pytun_relay if library == "python-pytun" else os_relay)(spaces, name)

    def run(relay: Callable[[], None]) -> None:
        try:
            relay()
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)

    threads = [threading.Thread(target=run, args=[relay], daemon=True) for relay in relays]
    for thread in threads:
        thread.start()
    print("ready", flush=True)
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
