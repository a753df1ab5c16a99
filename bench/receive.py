"""Receive: small packets that wait in a TUN's queue are taken out, one system call each."""

from __future__ import annotations

import contextlib
import functools
import os
import socket
from collections.abc import Callable
from itertools import repeat

import devices
from contest import Contestant, one_by_one, run, timed
from findings import Outcome, Pair
from peers import Peer

TITLE = "receive: IP packets out of a TUN"
ROUNDS = 401
PACKETS = 512
READ_SIZE = 2048

READINTO = "os.readinto()" if hasattr(os, "readinto") else "os.read()"
PAIRS = [
    Pair("recv_batch(64)", "C read() loop", 1.05),
    Pair("recv()", "os.read()", 1.10),
    Pair("recv_into()", READINTO, 1.10),
    Pair("recv_batch(64)", "tun-rs recv()"),
    Pair("tun-rs recv()", "C read() loop"),
    Pair("wireguard-go recv()", "C read() loop"),
    Pair("pytun read()", "C read() loop"),
    Pair("pytun read()", "os.read()"),
    Pair("C read() loop", "C read() loop"),
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
        senders = {}
        for subnet in [0, *([1] if theirs else []), *range(2, 2 + len(pumps))]:
            sender = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            sender.connect((f"10.99.{subnet}.2", 9))
            senders[subnet] = sender.send
        payload = bytes(size - 28)

        fd = ours.fileno()
        # The C loop reads into the slots of this batch too, so the memory is the same.
        batch = ours.batch(devices.BATCH)
        baseline = devices.Baseline(batch)
        buffer = bytearray(READ_SIZE)

        def recv_batch(packets: int) -> None:
            received, recv_batch = 0, ours.recv_batch
            while received < packets:
                received += recv_batch(batch)

        def contestant(move: Callable[[int, int], int], fd: int | None = fd, subnet: int = 0) -> Contestant:
            """Fill the queue, let a contestant empty it, and see that it is empty."""
            send = senders[subnet]

            def fill(packets: int) -> None:
                for _ in repeat(None, packets):
                    send(payload)

            def check(packets: int) -> None:
                if fd is not None and not devices.is_empty(fd):
                    raise RuntimeError("packets were left")

            return Contestant(move, fill, check)

        contestants = {
            "C read() loop": contestant(functools.partial(baseline.read, fd)),
            "recv_batch(64)": contestant(timed(recv_batch)),
            "os.read()": contestant(one_by_one(os.read, fd, READ_SIZE)),
            "recv()": contestant(one_by_one(ours.recv)),
            "recv_into()": contestant(one_by_one(ours.recv_into, buffer)),
        }
        if theirs:
            contestants["pytun read()"] = contestant(one_by_one(theirs.read, READ_SIZE), theirs.fileno(), 1)
        for subnet, (name, pump) in enumerate(pumps.items(), 2):
            contestants[f"{name} recv()"] = contestant(pump.ask("receive"), None, subnet)
        if READINTO == "os.readinto()":
            contestants[READINTO] = contestant(one_by_one(os.readinto, fd, buffer))
        return run(f"receive {size} bytes", contestants, PAIRS, packets=PACKETS, rounds=rounds)
