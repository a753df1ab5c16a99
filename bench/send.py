"""Send: small packets are put into a TUN, one system call each."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from time import perf_counter_ns as clock

import devices
from contest import Contestant, Outcome, Pair, one_by_one, run

from tuntap.testing import udp

TITLE = f"send: {devices.PACKET_SIZE}-byte IP packets into a TUN"
ROUNDS = 401
PACKETS = 512

PAIRS = [
    Pair("send_batch(64)", "C write() loop", 1.05),
    Pair("send()", "os.write()", 1.05),
    Pair("pytun write()", "C write() loop"),
    Pair("pytun write()", "os.write()"),
    Pair("C write() loop", "C write() loop"),
]


def main(rounds: int) -> Outcome:
    """All contestants on one run; the packets are the same for all."""
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(devices.tun("bench0", 0))
        theirs = stack.enter_context(devices.other_tun("bench1", 1))
        # To a loopback address from outside: the kernel reads the IP header, finds out and drops it
        # (RFC 1122, 3.2.1.3), always the same short way and without an answer.
        packet = udp("10.99.0.2", "127.0.0.2", 9, 9, bytes(devices.PACKET_SIZE - 28))

        fd = ours.fileno()
        batch = ours.batch(devices.BATCH)
        batch.fill([packet] * devices.BATCH)
        baseline = devices.Baseline(batch)

        def send_batch(packets: int) -> int:
            sent, send_batch = 0, ours.send_batch
            start = clock()
            while sent < packets:
                sent += send_batch(batch)
            return clock() - start

        counted = {"bench0": 0, "bench1": 0}

        def contestant(move: Callable[[int], int], name: str = "bench0") -> Contestant:
            """See that the interface has counted every packet."""

            def note(packets: int) -> None:
                counted[name] = devices.received_by_kernel(name)

            def check(packets: int) -> None:
                arrived = devices.received_by_kernel(name) - counted[name]
                if arrived != packets:
                    raise RuntimeError(f"{arrived} of {packets} packets arrived")

            return Contestant(move, note, check)

        contestants = {
            "C write() loop": contestant(lambda packets: baseline.write(fd, packets)),
            "send_batch(64)": contestant(send_batch),
            "os.write()": contestant(one_by_one(os.write, fd, packet)),
            "send()": contestant(one_by_one(ours.send, packet)),
            "pytun write()": contestant(one_by_one(theirs.write, packet), "bench1"),
        }
        return run(contestants, PAIRS, packets=PACKETS, rounds=rounds)
