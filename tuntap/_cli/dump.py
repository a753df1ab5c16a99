"""`tuntap dump`: prints and records what the kernel sends to an interface."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TextIO

from tuntap import Device, DeviceGoneError, PacketBatch, Tap, Tun, UnsupportedError
from tuntap._cli.describe import describe, hex_lines
from tuntap.capture import Writer

_BATCH = 64
_SLOT = 65536 + 128  # any packet of any MTU, which may change while we look
_FOR_EVER = float("inf")


@dataclass
class Options:
    """What to print, what to write and when to stop."""

    file: str | None = None  # path of the capture, "-" for standard output
    count: int | None = None
    seconds: float | None = None
    hex: bool = False
    quiet: bool = False


@dataclass
class Totals:
    """What came so far."""

    packets: int = 0
    bytes: int = 0


def dump(device: Tun | Tap, options: Options) -> Totals:
    """Receive packets and print them, until the count, the time or a Ctrl-C ends it.

    A summary goes to standard error, whatever ended it.

    Raises
    ------
    DeviceGoneError
        The interface was deleted.
    """
    totals = Totals()
    started = time.monotonic()
    with ExitStack() as stack:
        writer = stack.enter_context(_writer(options.file, device))
        stack.callback(lambda: _summarize(totals, time.monotonic() - started, options.file))
        out = None if options.quiet or options.file == "-" else sys.stdout
        try:
            _tell_start(device)
            for batch in _receive(device, options, totals):
                now = time.time_ns()
                if writer is not None:
                    writer.write(batch, now)
                if out is not None:
                    for packet in batch:
                        _print_packet(packet.tobytes(), now, isinstance(device, Tap), options.hex, out)
                    out.flush()
        except KeyboardInterrupt:
            if sys.stderr.isatty():
                print(file=sys.stderr)  # behind the ^C
        except DeviceGoneError as error:
            raise DeviceGoneError(error.errno, "the interface was deleted", error.filename) from None
    return totals


def _receive(device: Device, options: Options, totals: Totals) -> Iterator[PacketBatch]:
    """The packets, as they come."""
    deadline = _FOR_EVER if options.seconds is None else time.monotonic() + options.seconds
    batch = PacketBatch(_BATCH, _SLOT)
    while options.count is None or totals.packets < options.count:
        if options.count is not None and options.count - totals.packets < batch.capacity:
            batch = PacketBatch(options.count - totals.packets, _SLOT)  # leave the rest to others
        try:
            remaining = max(deadline - time.monotonic(), 0.0)
            device.recv_batch(batch, timeout=None if deadline == _FOR_EVER else remaining)
        except TimeoutError:
            return
        totals.packets += batch.count
        totals.bytes += int(batch.lengths[: batch.count].sum())
        yield batch


@contextmanager
def _writer(path: str | None, device: Device) -> Iterator[Writer | None]:
    if path is None:
        yield None
        return
    layer = 2 if isinstance(device, Tap) else 3
    with Writer(sys.stdout.buffer if path == "-" else path, layer=layer) as writer:
        yield writer


def _print_packet(packet: bytes, time_ns: int, is_frame: bool, with_hex: bool, out: TextIO) -> None:
    seconds, nanoseconds = divmod(time_ns, 10**9)
    clock = time.strftime("%H:%M:%S", time.localtime(seconds))
    out.write(f"{clock}.{nanoseconds // 1000:06} {describe(packet, is_frame=is_frame)}\n")
    if with_hex:
        out.writelines(f"{line}\n" for line in hex_lines(packet))


def _tell_start(device: Tun | Tap) -> None:
    name, kind = device.name, type(device).__name__.upper()
    try:
        is_up = device.is_up
    except UnsupportedError:
        is_up = True  # a system that does not tell
    if not is_up:
        print(f"{name} is down and gets no packets; `tuntap dump {name} --up` brings it up", file=sys.stderr)
    print(f"listening on {name} ({kind}), Ctrl-C ends", file=sys.stderr, flush=True)


def _summarize(totals: Totals, seconds: float, file: str | None) -> None:
    written = f", written to {file}" if file not in (None, "-") else ""
    print(
        f"{totals.packets} packet{'s' * (totals.packets != 1)}, {totals.bytes} bytes "
        f"in {seconds:.1f} s{written}",
        file=sys.stderr,
    )
