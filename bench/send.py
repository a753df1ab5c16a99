"""Send: small packets are put into a TUN, one system call each."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable

import devices
from contest import Contestant, one_by_one, run, timed
from findings import Outcome, Pair
from peers import Peer

from tuntap.testing import udp

TITLE = "send: IP packets into a TUN"
ROUNDS = 401
PACKETS = 512

PAIRS = [
    Pair("send_batch(64)", "C write() loop", 1.05),
    Pair("send()", "os.write()", 1.05),
    Pair("send_batch(64)", "tun-rs send()"),
    Pair("tun-rs send()", "C write() loop"),
    Pair("wireguard-go send()", "C write() loop"),
    Pair("pytun write()", "C write() loop"),
    Pair("pytun write()", "os.write()"),
    Pair("C write() loop", "C write() loop"),
]


def main(rounds: int, peers: dict[str, Peer]) -> list[Outcome]:
    return [measure(size, rounds, peers) for size in devices.SIZES]


def measure(size: int, rounds: int, peers: dict[str, Peer]) -> Outcome:
    """All contestants in one run; the packets are the same for all."""
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(devices.tun("bench0", 0))
        theirs = stack.enter_context(devices.other_tun("bench1", 1)) if "python-pytun" in peers else None
        pumps = {
            peer.name: stack.enter_context(devices.Pump.of(peer.pump, f"bench{subnet}", subnet))
            for subnet, peer in enumerate((peer for peer in peers.values() if peer.pump), 2)
        }
        # To a loopback address from outside: the kernel reads the IP header, finds out and drops it
        # (RFC 1122, 3.2.1.3), always the same short way and without an answer.
        packet = udp("10.99.0.2", "127.0.0.2", 9, 9, bytes(size - 28))

        fd = ours.fileno()
        batch = ours.batch(devices.BATCH)
        batch.fill([packet] * devices.BATCH)
        baseline = devices.Baseline(batch)

        def send_batch(packets: int) -> None:
            sent, send_batch = 0, ours.send_batch
            while sent < packets:
                sent += send_batch(batch)

        counted: dict[str, int] = {}

        def contestant(move: Callable[[int, int], int], name: str = "bench0") -> Contestant:
            """See that the interface has counted every packet."""

            def note(packets: int) -> None:
                counted[name] = devices.received_by_kernel(name)

            def check(packets: int) -> None:
                arrived = devices.received_by_kernel(name) - counted[name]
                if arrived != packets:
                    raise RuntimeError(f"{arrived} of {packets} packets arrived")

            return Contestant(move, note, check)

        contestants = {
            "C write() loop": contestant(functools.partial(baseline.write, fd)),
            "send_batch(64)": contestant(timed(send_batch)),
            "os.write()": contestant(one_by_one(os.write, fd, packet)),
            "send()": contestant(one_by_one(ours.send, packet)),
        }
        if theirs:
            contestants["pytun write()"] = contestant(one_by_one(theirs.write, packet), "bench1")
        for subnet, (name, pump) in enumerate(pumps.items(), 2):
            pump.tell(f"packet {packet.hex()}")
            contestants[f"{name} send()"] = contestant(pump.ask("send"), f"bench{subnet}")
        return run(f"send {size} bytes", contestants, PAIRS, packets=PACKETS, rounds=rounds)
