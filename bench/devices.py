"""The network the benchmarks run in: private, made by this process, gone with it."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import pathlib
import select
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import tuntap
import tuntap.testing

SIZES = (64, 1400)  # bytes of the IP packets
BATCH = 64
CPU = max(os.sched_getaffinity(0))  # where everything is measured
QUEUE = 2048  # packets the kernel keeps for us; more than one measurement sends


@contextlib.contextmanager
def tun(name: str, subnet: int) -> Iterator[tuntap.Tun]:
    """A TUN with 10.99.`subnet`.1/24 that carries nothing but what the benchmark sends."""
    settings = {"addresses": [f"10.99.{subnet}.1/24"], "tx_queue_len": QUEUE, "quiet": True}
    with tuntap.Tun(name, exclusive=True, **settings) as device:
        yield device


@contextlib.contextmanager
def other_tun(name: str, subnet: int) -> Iterator[Any]:
    """The same interface in the hands of python-pytun, non-blocking as a tuntap device is."""
    import pytun

    with tun(name, subnet) as device:
        device.persist = True
    device = pytun.TunTapDevice(name, pytun.IFF_TUN | pytun.IFF_NO_PI)
    try:
        device.persist(False)
        fd = device.fileno()
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_NONBLOCK)
        yield device
    finally:
        device.close()


def is_empty(fd: int) -> bool:
    """Whether there is nothing to receive."""
    return not select.select([fd], [], [], 0)[0]


def received_by_kernel(name: str) -> int:
    """Packets the interface has taken from us (its rx_packets), less those it dropped at once."""
    with open("/proc/self/net/dev") as table:
        for line in table:
            interface, _, counters = line.partition(":")
            if interface.strip() == name:
                packets, errors, dropped = (int(n) for n in counters.split()[1:4])
                return packets - errors - dropped
    raise LookupError(f"no interface {name}")


class Baseline:
    """baseline.c, compiled now: `read` and `write` move packets through the slots of a batch."""

    def __init__(self, batch: tuntap.PacketBatch) -> None:
        self._batch = batch
        with tempfile.TemporaryDirectory() as folder:
            library = pathlib.Path(folder, "baseline.so")
            source = pathlib.Path(__file__).with_name("baseline.c")
            compiler = shlex.split(os.environ.get("CC", "cc"))
            subprocess.run([*compiler, "-O3", "-shared", "-fPIC", "-o", library, source], check=True)
            loaded = ctypes.CDLL(str(library))
        self.read = self._bind(loaded.read_loop)
        self.write = self._bind(loaded.write_loop)
        self._sum = loaded.sum_loop
        self._sum.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]
        self._total = ctypes.c_uint64()

    def sum(self, packets: int) -> None:
        """Sum the bytes of the first packets of the batch."""
        data, lengths = self._batch.data.ctypes.data, self._batch.lengths.ctypes.data
        self._sum(data, self._batch.data.strides[0], lengths, packets, ctypes.byref(self._total))

    def _bind(self, loop: Callable[..., int]) -> Callable[[int, int, int], int]:
        pointer, integer = ctypes.c_void_p, ctypes.c_int
        loop.argtypes = [integer, pointer, ctypes.c_int64, pointer, integer, integer]
        loop.restype = ctypes.c_int64
        data, lengths = self._batch.data.ctypes.data, self._batch.lengths.ctypes.data
        stride, capacity = self._batch.data.strides[0], self._batch.capacity

        def call(fd: int, lead_in: int, packets: int) -> int:
            """Nanoseconds it took."""
            loop(fd, data, stride, lengths, capacity, lead_in)
            took = loop(fd, data, stride, lengths, capacity, packets)
            if took < 0:
                raise RuntimeError("a system call of the C loop failed")
            return took

        return call


class Pump:
    """A peer that moves packets when it is told to: `pump NAME`, see peers/tun-rs/src/bin/pump.rs."""

    def __init__(self, command: tuple[str, ...], name: str) -> None:
        self._process = subprocess.Popen(
            [*command, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        if self._process.stdout.readline() != "ready\n":
            raise RuntimeError(f"{command[0]} did not get ready")
        os.sched_setaffinity(self._process.pid, {CPU})

    @classmethod
    @contextlib.contextmanager
    def of(cls, command: tuple[str, ...], name: str, subnet: int) -> Iterator[Pump]:
        """On an interface of its own, like that of `tun`."""
        with tun(name, subnet) as device:
            device.persist = True
        pump = cls(command, name)
        try:
            yield pump
        finally:
            pump._process.stdin.close()
            pump._process.wait()
            tuntap.delete(name)

    def tell(self, line: str) -> None:
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def ask(self, task: str) -> Callable[[int, int], int]:
        """The `move` of a contestant."""

        def move(lead_in: int, packets: int) -> int:
            self.tell(f"{task} {lead_in} {packets}")
            return int(self._process.stdout.readline())

        return move
