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

PACKET_SIZE = 64
BATCH = 64
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
            subprocess.run([*compiler, "-O2", "-shared", "-fPIC", "-o", library, source], check=True)
            loaded = ctypes.CDLL(str(library))
        self.read = self._bind(loaded.read_loop)
        self.write = self._bind(loaded.write_loop)

    def _bind(self, loop: Callable[..., int]) -> Callable[[int, int], int]:
        pointer, integer = ctypes.c_void_p, ctypes.c_int
        loop.argtypes = [integer, pointer, ctypes.c_int64, pointer, integer, integer]
        loop.restype = ctypes.c_int64
        data, lengths = self._batch.data.ctypes.data, self._batch.lengths.ctypes.data
        stride, capacity = self._batch.data.strides[0], self._batch.capacity

        def call(fd: int, packets: int) -> int:
            """Nanoseconds it took."""
            took = loop(fd, data, stride, lengths, capacity, packets)
            if took < 0:
                raise RuntimeError("a system call of the C loop failed")
            return took

        return call
