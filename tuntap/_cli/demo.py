"""`tuntap demo`: real packets of the kernel, moved by Python.

Run as a module of its own it is the demo; `run` starts it as a child process, because it moves to
a private network.  Each phase is a loop over batches, as any program that uses tuntap has it:
`answer_pings`, `receive`, `send` and `reflect`.  What they talk to is in `_traffic`.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import tuntap
from tuntap import Device, PacketBatch, Tun, TunTapError, testing
from tuntap._cli import alone
from tuntap._cli.ending import exit_status
from tuntap._cli.meter import Meter
from tuntap._cli.traffic import KERNEL, PAYLOAD, PORT, PYTHON, KernelTraffic, MemoryTraffic, Traffic

_CAPACITY = 128  # packets of a batch
_TICK = 0.1  # seconds after which a receive that waits looks whether the phase is over
_QUEUE = 5000  # packets the kernel keeps for us, while we wait for a CPU

T = TypeVar("T")


def run(seconds: float) -> int:
    """Run the demo in a child process; its exit status."""
    arguments = ["--seconds", str(seconds)]
    try:
        return alone.call("tuntap._cli.demo", arguments)
    except OSError as error:
        reason = f"cannot start {sys.executable or 'Python'}: {error.strerror}"
        return _show_in_memory(seconds, reason)


# --- what Python does with the packets: the part to copy ---


def answer_pings(device: Device, meter: Meter, go_on: Callable[[], bool]) -> None:
    """Answer echo requests, one packet at a time."""
    while go_on():
        with contextlib.suppress(TimeoutError):
            packet = device.recv(timeout=_TICK)
            meter.add(1, len(packet))
            reply = testing.icmp_reply(packet)
            if reply is not None:
                device.send(reply)
    meter.stop()


def receive(device: Device, meter: Meter, go_on: Callable[[], bool]) -> None:
    """Receive whatever comes, in batches."""
    batch = device.batch(_CAPACITY)
    while go_on():
        with contextlib.suppress(TimeoutError):
            count = device.recv_batch(batch, timeout=_TICK)
            meter.add(count, int(batch.lengths[:count].sum()))
    meter.stop()


def send(device: Device, meter: Meter, go_on: Callable[[], bool]) -> None:
    """Send UDP datagrams in batches."""
    batch = device.batch(_CAPACITY)
    batch.fill([testing.udp(PYTHON, KERNEL, PORT, PORT, bytes(PAYLOAD))] * _CAPACITY)
    size = int(batch.lengths[0])
    while go_on():
        with contextlib.suppress(TimeoutError):
            count = device.send_batch(batch, timeout=_TICK)
            meter.add(count, count * size)
    meter.stop()


def reflect(device: Device, meter: Meter, go_on: Callable[[], bool]) -> None:
    """Send every packet back with its addresses swapped."""
    batch = device.batch(_CAPACITY)
    while go_on():
        with contextlib.suppress(TimeoutError):
            count = device.recv_batch(batch, timeout=_TICK)
            swap_addresses(batch, count)
            device.send_batch(batch)
            meter.add(count, int(batch.lengths[:count].sum()))
    meter.stop()


def swap_addresses(batch: PacketBatch, count: int) -> None:
    """Swap source and destination of IPv4 packets, all at once.

    The checksums stay right: a sum does not depend on the order of what is summed.
    """
    source, destination = batch.data[:count, 12:16], batch.data[:count, 16:20]
    source[:], destination[:] = destination.copy(), source.copy()


# --- the phases, each with its traffic in a thread beside it ---


def show_phases(device: Device, traffic: Traffic, seconds: float) -> tuple[list[str], bool]:
    """Run every phase for its share of the time; the lines of the summary, and whether all worked."""
    lines, worked = [], True
    phases = {"ping": show_pings, "receive": show_receiving, "send": show_sending, "tcp": show_reflecting}
    for name, show_phase in phases.items():
        try:
            result = show_phase(device, traffic, seconds / len(phases))
        except OSError as error:
            result, worked = f"failed: {error}", False
        lines += [f"{label:<8} {line}" for label, line in zip((name, ""), result.splitlines(), strict=False)]
    return lines, worked


def show_pings(device: Device, traffic: Traffic, seconds: float) -> str:
    with (
        Meter("ping", with_rate=False) as meter,
        beside(lambda stop: traffic.ping(seconds, stop)) as pinging,
    ):
        answer_pings(device, meter, lambda: not pinging.done())
    return f"{pinging.result()}\n{meter.packets:,} packets by recv, answered by send"


def show_receiving(device: Device, traffic: Traffic, seconds: float) -> str:
    dropped = device.stats.tx_dropped
    with Meter("receive") as meter, beside(traffic.flood):
        receive(device, meter, until(seconds))
    dropped = device.stats.tx_dropped - dropped
    discard(device)
    return (
        f"{meter}\n{meter.packets:,} packets by recv_batch; {dropped:,} more were dropped at the full queue"
    )


def show_sending(device: Device, traffic: Traffic, seconds: float) -> str:
    with Meter("send") as meter, beside(traffic.count_datagrams) as counting:
        send(device, meter, until(seconds))
    arrived = counting.result()
    percent = 100 * arrived / max(meter.packets, 1)
    return f"{meter}\n{meter.packets:,} packets by send_batch; {arrived:,} arrived, {percent:.1f} %"


def show_reflecting(device: Device, traffic: Traffic, seconds: float) -> str:
    with Meter("tcp") as meter, beside(lambda stop: traffic.transfer(seconds, stop)) as transferring:
        reflect(device, meter, lambda: not transferring.done())
    result = transferring.result()
    if not result.intact:
        raise OSError(f"{result.bytes:,} bytes arrived damaged")
    return (
        f"{meter}\n{meter.packets:,} packets by recv_batch, numpy, send_batch; "
        f"{result.bytes / 1e6:,.0f} MB arrived intact"
    )


def discard(device: Device) -> None:
    """Empty the queue, so that one phase does not meet packets of another."""
    batch = device.batch(_CAPACITY)
    with contextlib.suppress(TimeoutError):
        while True:
            device.recv_batch(batch, timeout=0)


def until(seconds: float) -> Callable[[], bool]:
    """True for so long."""
    deadline = time.monotonic() + seconds
    return lambda: time.monotonic() < deadline


@contextlib.contextmanager
def beside(function: Callable[[threading.Event], T]) -> Iterator[Future[T]]:
    """Run a function in a thread as long as the block runs; then it is told to stop, and has."""
    stop = threading.Event()
    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(function, stop)
        try:
            yield future
        finally:
            stop.set()
    future.result()  # what went wrong there went wrong here


# --- the whole ---


def show(seconds: float) -> int:
    """The demo, in a private network if that can be had, else in memory."""
    try:
        testing.private_network()
        device = Tun(addresses=[f"{KERNEL}/24"], tx_queue_len=_QUEUE, quiet=True)
    except TunTapError as error:
        return _show_in_memory(seconds, str(error.strerror))
    with device:
        print(f"{device.name} in a private network: {KERNEL} is the kernel, {PYTHON} is Python", flush=True)
        return _show_all(device, KernelTraffic(), seconds, "a TUN in a private network")


def _show_in_memory(seconds: float, reason: str) -> int:
    print(f"No device can be opened here: {reason}")
    print("(`tuntap doctor` tells more.)  The same with a pair of devices in memory:", flush=True)
    device, other = testing.pair()
    with device, other:
        return _show_all(device, MemoryTraffic(other), seconds, "a pair of devices in memory")


def _show_all(device: Device, traffic: Traffic, seconds: float, where: str) -> int:
    lines, worked = show_phases(device, traffic, seconds)
    system = f"{platform.system()} {platform.release()}, {os.cpu_count()} CPUs"
    print(f"\nSummary: {where}, tuntap {tuntap.__version__}, Python {platform.python_version()}, {system}")
    for line in lines:
        print(f"  {line}")
    return 0 if worked else 1


def _main() -> int:
    parser = argparse.ArgumentParser(prog="tuntap demo")
    parser.add_argument("--seconds", type=float, required=True)
    seconds = parser.parse_args().seconds
    return exit_status(lambda: show(seconds))


if __name__ == "__main__":
    sys.exit(_main())
