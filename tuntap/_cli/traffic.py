"""The other side of the demo: what the device under demonstration talks to.

`KernelTraffic` is the real thing: ping, UDP and TCP sockets of the kernel, which routes them
through the TUN.  `MemoryTraffic` plays the same parts at the other end of a pair in memory.  Both
run in threads; what they do without the GIL (a system call for many packets) leaves it to the
Python that moves the packets.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
import zlib
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tuntap import ClosedError, Device, testing

KERNEL = "10.0.0.1"  # the address of the interface, where the kernel's sockets are
PYTHON = "10.0.0.2"  # behind the interface: whatever Python answers
PAYLOAD = 1400  # bytes of each UDP datagram
PORT = 4242

_PING_INTERVAL = 0.2
_TICK = 0.1  # seconds after which a blocked thread looks whether it is to stop
_PATIENCE = 2.0  # seconds after which what does not come never will
_IPV4_HEADER = 20
_BLOCK = 1 << 16
_UDP_SEGMENT = 103  # linux/udp.h: the kernel cuts one large send to datagrams of this size
_SEGMENTS = 44  # datagrams per send, just below 64 KiB


@dataclass
class TransferResult:
    """Bytes that went through the device and arrived in order."""

    bytes: int
    intact: bool


class Traffic(ABC):
    """Each method is a part of the demo; it ends when `stop` is set, or by itself."""

    @abstractmethod
    def ping(self, seconds: float, stop: threading.Event) -> str:
        """Send echo requests and wait for the answers; what there is to say of them."""

    @abstractmethod
    def flood(self, stop: threading.Event) -> None:
        """Send UDP datagrams as fast as it goes."""

    @abstractmethod
    def count_datagrams(self, stop: threading.Event) -> int:
        """Receive the datagrams that Python sends; how many came."""

    @abstractmethod
    def transfer(self, seconds: float, stop: threading.Event) -> TransferResult:
        """Send a stream through the device and back in at another address."""


class KernelTraffic(Traffic):
    """Sockets of the kernel, and the program `ping`."""

    def ping(self, seconds: float, stop: threading.Event) -> str:
        """See `Traffic`; by the program `ping`, if it is installed."""
        program = shutil.which("ping")
        if program is None:
            return "the program ping is not installed"
        count = max(2, int(seconds / _PING_INTERVAL))
        command = [program, "-n", "-q", "-c", str(count), "-i", str(_PING_INTERVAL), PYTHON]
        with subprocess.Popen(
            command, env={**os.environ, "LC_ALL": "C"}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        ) as process:  # fmt: skip
            deadline = time.monotonic() + seconds + 1
            while process.poll() is None and not stop.wait(_TICK):
                if time.monotonic() > deadline:
                    process.send_signal(signal.SIGINT)  # it prints what it has
                    deadline += 1
            if process.poll() is None:
                process.kill()
            return read_ping(process.communicate()[0])

    def flood(self, stop: threading.Event) -> None:
        """See `Traffic`; many datagrams per system call, so that it keeps up with the receiver."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.connect((PYTHON, PORT))
            block = bytes(PAYLOAD)
            try:
                sender.setsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT, PAYLOAD)
                block *= _SEGMENTS
            except OSError:
                pass  # an old kernel: one datagram per call
            while not stop.is_set():
                sender.send(block)

    def count_datagrams(self, stop: threading.Event) -> int:
        """See `Traffic`."""
        arrived = 0
        buffer = bytearray(PAYLOAD)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
            receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
            receiver.bind((KERNEL, PORT))
            receiver.settimeout(_TICK)
            while True:
                try:
                    receiver.recv_into(buffer)
                except TimeoutError:
                    if stop.is_set():
                        return arrived
                else:
                    arrived += 1

    def transfer(self, seconds: float, stop: threading.Event) -> TransferResult:
        """See `Traffic`; two TCP sockets, which only meet if Python swaps the addresses."""
        with socket.create_server((KERNEL, PORT)) as server, ThreadPoolExecutor(1) as thread:
            server.settimeout(_PATIENCE)
            sending = thread.submit(_send_stream, seconds, stop)
            total, received_crc = _receive_stream(server, stop)
            return TransferResult(total, sending.result() == received_crc)


def _send_stream(seconds: float, stop: threading.Event) -> int:
    """Connect to an address behind the device, and send; the CRC of what was sent."""
    block = memoryview(os.urandom(_BLOCK))
    crc = 0
    with socket.create_connection((PYTHON, PORT), timeout=_PATIENCE) as connection:
        connection.settimeout(_TICK)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not stop.is_set():
            with contextlib.suppress(TimeoutError):
                size = connection.send(block)
                crc = zlib.crc32(block[:size], crc)
    return crc


def _receive_stream(server: socket.socket, stop: threading.Event) -> tuple[int, int]:
    """Accept a connection and read it to its end; the bytes and their CRC."""
    buffer = memoryview(bytearray(4 * _BLOCK))
    total = crc = 0
    connection, _ = server.accept()
    with connection:
        connection.settimeout(_TICK)
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                size = connection.recv_into(buffer)
                if size == 0:
                    break
                total += size
                crc = zlib.crc32(buffer[:size], crc)
    return total, crc


def read_ping(text: str) -> str:
    """The gist of what `ping` prints (iputils, busybox, BSD)."""
    counts = re.search(r"(\d+) packets transmitted, (\d+)(?: packets)? received", text)
    if counts is None:
        lines = text.strip().splitlines()
        return f"ping said: {lines[-1] if lines else 'nothing'}"
    times = re.search(r"min/avg/max\S* = ([\d.]+)/([\d.]+)/([\d.]+)", text)
    said = f"{counts[1]} sent, {counts[2]} received"
    if times is not None:
        said += f", rtt min/avg/max {'/'.join(times.groups())} ms"
    return said


class MemoryTraffic(Traffic):
    """The same parts, played by Python at the other end of a pair in memory."""

    def __init__(self, device: Device) -> None:
        self._device = device

    def ping(self, seconds: float, stop: threading.Event) -> str:
        """See `Traffic`."""
        times: list[float] = []
        count = max(2, int(seconds / _PING_INTERVAL))
        for sequence in range(1, count + 1):
            started = time.perf_counter()
            self._device.send(testing.icmp_echo(KERNEL, PYTHON, 1, sequence, bytes(56)))
            try:
                self._device.recv(timeout=_PATIENCE)
            except (TimeoutError, ClosedError):
                break
            times.append((time.perf_counter() - started) * 1e3)
            if stop.wait(_PING_INTERVAL):
                break
        said = f"{sequence} sent, {len(times)} received"
        if times:
            low, mean, high = min(times), sum(times) / len(times), max(times)
            said += f", rtt min/avg/max {low:.3f}/{mean:.3f}/{high:.3f} ms"
        return said

    def flood(self, stop: threading.Event) -> None:
        """See `Traffic`."""
        batch = self._device.batch()
        batch.fill([testing.udp(KERNEL, PYTHON, PORT, PORT, bytes(PAYLOAD))] * batch.capacity)
        while not stop.is_set():
            try:
                self._device.send_batch(batch, timeout=_TICK)
            except TimeoutError:
                continue

    def count_datagrams(self, stop: threading.Event) -> int:
        """See `Traffic`."""
        batch = self._device.batch()
        arrived = 0
        while True:
            try:
                arrived += self._device.recv_batch(batch, timeout=_TICK)
            except TimeoutError:
                if stop.is_set():
                    return arrived

    def transfer(self, seconds: float, stop: threading.Event) -> TransferResult:
        """See `Traffic`; TCP segments, of which a pair loses none."""
        sent, answers = self._device.batch(), self._device.batch()
        segment = testing.tcp(KERNEL, PYTHON, PORT, PORT, os.urandom(PAYLOAD))
        sent.fill([segment] * sent.capacity)
        total, intact = 0, True
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not stop.is_set():
            waiting = self._device.send_batch(sent)
            while waiting:
                count = self._device.recv_batch(answers, timeout=_PATIENCE)
                intact &= bool(
                    (answers.data[:count, _IPV4_HEADER : len(segment)] == sent[0][_IPV4_HEADER:]).all()
                )
                total += count * PAYLOAD
                waiting -= count
        return TransferResult(total, intact)
