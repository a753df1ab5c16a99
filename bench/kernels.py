"""Kernels: a 64 KiB super-packet split, its segments coalesced again, and its bytes summed, in memory."""

from __future__ import annotations

import contextlib
import pathlib
import random
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator

from contest import memcpy, repeated, sampled
from findings import Outcome, Pair
from peers import Peer

import tuntap
from tuntap import offload, testing

TITLE = "kernels: split, coalesce and checksum of a 64 KiB super-packet, in memory"
ROUNDS = 201
TIMES = 50  # calls in one measurement
SEGMENT = 1448
PAIRS = {
    "split": [Pair("tuntap", "tun-rs", 1.3), Pair("tuntap", "memcpy")],
    "coalesce": [Pair("tuntap", "tun-rs", 1.3), Pair("tuntap", "memcpy")],
    "checksum": [Pair("tuntap", "tun-rs", 1.0), Pair("tuntap", "memcpy", 0.8)],
}


def main(rounds: int, peers: dict[str, Peer]) -> list[Outcome]:
    header, packet = super_packet()
    ours = our_kernels(header, packet)
    with contextlib.ExitStack() as stack:
        theirs = None
        if "tun-rs" in peers:
            theirs = stack.enter_context(tun_rs_kernels(peers["tun-rs"], header, packet))
        outcomes = []
        for task, kernel in ours.items():
            calls = {"tuntap": kernel, "memcpy": repeated(memcpy(len(packet))[1])}
            if theirs:
                calls["tun-rs"] = theirs(task)
            samples = {
                name: [len(packet) / took for took in taken]
                for name, taken in sampled(calls, TIMES, rounds).items()
            }
            outcomes.append(
                Outcome.of(
                    f"{task} of {len(packet)} bytes", "GB/s", samples, PAIRS[task], more_is_better=True
                )
            )
    return outcomes


def super_packet() -> tuple[bytes, bytes]:
    """What a kernel hands over of a TCP connection: 45 segments with a checksum that is left to do."""
    payload = random.Random(1).randbytes(45 * SEGMENT)
    packets = [
        testing.tcp("10.0.0.1", "10.0.0.2", 1, 2, payload[at : at + SEGMENT], seq=at)
        for at in range(0, len(payload), SEGMENT)
    ]
    packets = [renumbered(packet, number) for number, packet in enumerate(packets)]
    ((header, packet),) = offload.coalesce(packets)
    return header.tobytes(), packet


def renumbered(packet: bytes, number: int) -> bytes:
    head = packet[:4] + struct.pack("!H", number) + packet[6:10] + b"\0\0" + packet[12:20]
    return head[:10] + struct.pack("!H", testing.checksum(head)) + head[12:] + packet[20:]


def our_kernels(header: bytes, packet: bytes) -> dict[str, Callable[[int], int]]:
    """Each a function of how many times, answering nanoseconds; the calls are those that anybody makes."""
    segments = tuntap.PacketBatch(128, 1536)
    whole = tuntap.PacketBatch(128, 65535 + 1)
    if offload.split_into(packet, header, segments) != 45 or offload.coalesce_into(segments, whole) != 1:
        raise RuntimeError("the kernels do not do what is to be measured")
    return {
        "split": repeated(lambda: offload.split_into(packet, header, segments)),
        "coalesce": repeated(lambda: offload.coalesce_into(segments, whole)),
        "checksum": repeated(lambda: offload.checksum(packet)),
    }


@contextlib.contextmanager
def tun_rs_kernels(
    peer: Peer, header: bytes, packet: bytes
) -> Iterator[Callable[[str], Callable[[int], int]]]:
    """The same of tun-rs, in a process of its own that takes the time itself."""
    program = pathlib.Path(peer.relay[0]).with_name("kernels")
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder, "super-packet")
        file.write_bytes(header + packet)
        with subprocess.Popen(
            [program, file], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:

            def of(task: str) -> Callable[[int], int]:
                def run(times: int) -> int:
                    process.stdin.write(f"{task} {times}\n")
                    process.stdin.flush()
                    return int(process.stdout.readline())

                return run

            yield of
            process.stdin.close()
