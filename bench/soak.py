"""Soak: 10,000 open/close cycles and 10 million packets leave nothing behind.

Descriptors and threads must end exactly where they were, resident memory within a bound.  All of it
runs in a private network; a cycle takes some 20 ms of the kernel's time, a packet there and back 7 us.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gc
import os
import pathlib
import sys

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # see run.py

import tuntap
import tuntap.testing

BATCH = 64
OURS, THEIRS = "10.98.0.1", "10.98.0.2"


@dataclasses.dataclass(frozen=True)
class Usage:
    """What the process holds."""

    descriptors: int
    threads: int
    interfaces: int
    memory: int  # resident, KiB

    @classmethod
    def now(cls) -> Usage:
        gc.collect()
        status = dict(
            line.split(":", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines()
        )
        # The private network's; the first two lines are the heading.
        interfaces = len(pathlib.Path("/proc/self/net/dev").read_text().splitlines()) - 2
        threads, memory = int(status["Threads"]), int(status["VmRSS"].split()[0])
        return cls(len(os.listdir("/proc/self/fd")), threads, interfaces, memory)


def left_behind(before: Usage, after: Usage, bound: int) -> bool:
    """Show both; whether anything but so many KiB of memory has come or gone."""
    failed = False
    for field in dataclasses.fields(Usage):
        was, is_now = getattr(before, field.name), getattr(after, field.name)
        bad = is_now - was > bound if field.name == "memory" else is_now != was
        failed |= bad
        unit = f" KiB (may grow by {bound})" if field.name == "memory" else ""
        print(f"  {field.name:11} {was:>8} -> {is_now:>8}{unit}{'  CHANGED' if bad else ''}", flush=True)
    return failed


def open_device() -> tuntap.Tun:
    return tuntap.Tun("soak0", addresses=[f"{OURS}/24"], quiet=True)


def cycle() -> None:
    """Open, use everything once, close."""
    with open_device() as device:
        echo(device, device.batch(1), device.batch(1), 1)
        with contextlib.suppress(TimeoutError):
            device.recv(timeout=0)


def echo(device: tuntap.Tun, requests: tuntap.PacketBatch, replies: tuntap.PacketBatch, packets: int) -> None:
    """Send so many ping requests to the kernel and receive its replies."""
    size = requests.capacity
    requests.fill([tuntap.testing.icmp_echo(THEIRS, OURS, payload=bytes(36))] * size)
    while packets > 0:
        sent = device.send_batch(requests, 10, stop=min(packets, size))
        received = 0
        while received < sent:
            received += device.recv_batch(replies, timeout=10)
        if received != sent:
            raise RuntimeError(f"{sent} requests, {received} replies")
        packets -= sent


def cycles(count: int) -> None:
    for _ in range(count):
        cycle()


def packets(count: int) -> None:
    with open_device() as device:
        echo(device, device.batch(BATCH), device.batch(BATCH), count)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cycles", type=int, default=10_000, help="open and close (%(default)s times)")
    parser.add_argument("--packets", type=int, default=10_000_000, help="send and receive (%(default)s)")
    parser.add_argument(
        "--bound", type=int, default=1024, metavar="KIB",
        help="resident memory may grow by this much after the warm-up (%(default)s)",
    )  # fmt: skip
    options = parser.parse_args()

    tuntap.testing.private_network()
    failed = False
    for what, work, count in [("cycles", cycles, options.cycles), ("packets", packets, options.packets)]:
        if count < 1:
            continue
        work(min(count, max(100, count // 100)))  # warm-up: caches and arenas fill once
        before = Usage.now()
        work(count)
        after = Usage.now()
        print(f"{count:,} {what}")
        failed |= left_behind(before, after, options.bound)
    print("something was left behind" if failed else "nothing was left behind")
    return failed


if __name__ == "__main__":
    sys.exit(main())
