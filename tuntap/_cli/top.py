"""`tuntap top`: the flows of an interface or a capture by their rates, as a table."""

from __future__ import annotations

import errno
import json
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tuntap import PacketBatch, UnsupportedError
from tuntap._cli.describe import protocol_name
from tuntap._cli.watch import Captured, Source
from tuntap.columns import DTYPE, addresses
from tuntap.flows import FIELDS, FlowTable, endpoints

_BATCH = 64
_SLOT = 65536 + 128  # any packet of any MTU
_MAX_FLOWS = 50_000  # of one interval; should there be more, those go that had no packet for longest

_DTYPE = np.dtype([(name, DTYPE[name]) for name in FIELDS])


@dataclass
class Options:
    """What to show, and when."""

    count: int | None = None  # flows at most
    interval: float = 1.0  # seconds from one table to the next
    window: float = 5.0  # seconds that rates are the mean of
    sort: str = "bits"
    once: bool = False
    json: bool = False


@dataclass
class View:
    """What there is to show."""

    title: str
    seconds: float  # that the rates are the mean of
    rows: npt.NDArray[np.void]  # of `tuntap.flows.CONVERSATION`, in order
    packets: int  # since the start
    bytes: int
    missed: int


class Rates:
    """The flows of the last seconds, and how many packets there were since the start.

    It holds a table for each interval, and forgets the oldest.
    """

    def __init__(self, window: float) -> None:
        self._window = window
        self._parts: deque[tuple[float, FlowTable]] = deque([(time.monotonic(), FlowTable(_MAX_FLOWS))])
        self.packets = self.bytes = 0

    def add(
        self, batch: PacketBatch, lengths: npt.NDArray[Any], times: int | npt.NDArray[np.int64]
    ) -> None:  # fmt: skip
        """Count the packets of a batch."""
        self._parts[-1][1].add(_columns(batch, lengths), times)
        self.packets += len(lengths)
        self.bytes += int(lengths.sum())

    def turn(self) -> tuple[FlowTable, float]:
        """The flows of the window, and its seconds; an interval ends, and another begins."""
        now = time.monotonic()
        while len(self._parts) > 1 and self._parts[1][0] <= now - self._window:
            self._parts.popleft()
        total = FlowTable(_MAX_FLOWS).merge(*(table for _, table in self._parts))
        seconds = now - self._parts[0][0]
        self._parts.append((now, FlowTable(_MAX_FLOWS)))
        return total, seconds


def _columns(batch: PacketBatch, lengths: npt.NDArray[Any]) -> npt.NDArray[np.void]:
    """What a flow table asks of a batch, with the bytes that packets had before they were cut."""
    columns = np.empty(batch.count, _DTYPE)
    batch.columns(out=columns)
    columns["length"] = lengths
    return columns


def top(source: Source, options: Options) -> int:
    """Show the flows until the packets end, or a Ctrl-C does."""
    if isinstance(source, Captured) and source.is_recorded:
        _print(_recorded(source, options), options)
    elif options.once or options.json or not sys.stdout.isatty():
        _print(_measured(source, options), options)
    else:
        _show(source, options)
    return 0


def _recorded(source: Captured, options: Options) -> View:
    """The flows of a whole capture, by its own times."""
    table, batch = FlowTable(), PacketBatch(_BATCH, _SLOT)
    while (received := source.receive(batch, 0.0)) is not None:
        lengths, times = received
        table.add(_columns(batch, lengths), times)
    rows = table.to_table()
    seconds = (int(rows["last"].max()) - int(rows["first"].min())) / 1e9 if len(rows) else 0.0
    return View(source.title, seconds, _ordered(table, options), table.packets, table.bytes, 0)


def _measured(source: Source, options: Options) -> View:
    """The flows of one window."""
    rates = Rates(options.window)
    with suppress(KeyboardInterrupt):
        next(_intervals(source, rates, options.window), None)
    return _view(source, rates, options)


def _show(source: Source, options: Options) -> None:
    """A table on the terminal, which changes."""
    rates = Rates(options.window)
    with suppress(KeyboardInterrupt), _screen(options.count) as show:
        show(_view(source, rates, options))
        for _ in _intervals(source, rates, options.interval):
            show(_view(source, rates, options))
    print(f"{source.title}: {_totals(_view(source, rates, options))}", file=sys.stderr)


def _intervals(source: Source, rates: Rates, interval: float) -> Iterator[None]:
    """Whenever an interval has passed, until the packets end."""
    batch = PacketBatch(_BATCH, _SLOT)
    due = time.monotonic() + interval
    while True:
        with suppress(TimeoutError):
            received = source.receive(batch, max(due - time.monotonic(), 0.0))
            if received is None:
                return
            rates.add(batch, *received)
        if (now := time.monotonic()) >= due:
            yield
            due = max(due + interval, now)


def _view(source: Source, rates: Rates, options: Options) -> View:
    table, seconds = rates.turn()
    return View(
        source.title, seconds, _ordered(table, options), rates.packets, rates.bytes, source.missed()
    )  # fmt: skip


def _ordered(table: FlowTable, options: Options) -> npt.NDArray[np.void]:
    """Both directions of each flow, those with most first."""
    rows = table.conversations()
    if options.sort == "packets":
        rows = rows[np.argsort(~(rows["packets"] + rows["reply_packets"]), kind="stable")]
    return rows


# --- for people ---

_HEADINGS = ["PROTO", "SOURCE", "DESTINATION", "BIT/S", "BACK", "PACKET/S", "BACK"]
_TEXTS = 3  # of them; the others are rates
_LINES = 20
_UNITS = ("", *"kMGTPEZYRQ")


def _cells(row: np.void, seconds: float) -> list[str]:
    """A row of the table."""
    protocol = protocol_name(int(row["protocol"])) if row["version"] else "-"
    factors = {"bytes": 8, "reply_bytes": 8, "packets": 1, "reply_packets": 1}
    rates = [_rate(int(row[name]) * factor, seconds) for name, factor in factors.items()]
    return [protocol, *endpoints(row), *rates]


def _rate(amount: int, seconds: float) -> str:
    """Three digits, and a unit."""
    if not seconds:
        return "-"
    rate, power = amount / seconds, 0
    while rate >= 999.5:
        rate, power = rate / 1000, power + 1
    digits = 0 if rate >= 99.95 or rate == int(rate) else 1 if rate >= 9.995 else 2
    return f"{rate:.{digits}f}{_UNITS[power]}"


def _totals(view: View) -> str:
    missed = f", {view.missed:,} missed" if view.missed else ""
    return f"{view.packets:,} packet{'s' * (view.packets != 1)}, {view.bytes:,} bytes{missed}"


def _print(view: View, options: Options) -> None:
    """The table, once: for people, or with all there is for programs."""
    if options.json:
        print(json.dumps(_facts(view, options.count), indent=2))
        return
    rows = [_HEADINGS, *(_cells(row, view.seconds) for row in view.rows[: options.count or _LINES])]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (_aligned(i, cell, width) for i, (cell, width) in enumerate(zip(row, widths, strict=True)))
        print("  ".join(cells))
    print(
        f"{view.title}: {len(view.rows)} flow{'s' * (len(view.rows) != 1)} in {view.seconds:.1f} s; "
        f"{_totals(view)}",
        file=sys.stderr,
    )


def _facts(view: View, count: int | None) -> dict[str, Any]:
    names = ("packets", "bytes", "reply_packets", "reply_bytes", "first", "last")
    return {
        "source": view.title,
        "seconds": view.seconds,
        "packets": view.packets,
        "bytes": view.bytes,
        "missed": view.missed,
        "flows": [
            {
                "version": int(row["version"]),
                "protocol": int(row["protocol"]),
                "source": _address(row, "src"),
                "destination": _address(row, "dst"),
                "source_port": int(row["src_port"]),
                "destination_port": int(row["dst_port"]),
                **{name: int(row[name]) for name in names},
            }
            for row in view.rows[:count]
        ],
    }


def _address(row: np.void, side: str) -> str | None:
    if not row["version"]:
        return None
    return str(addresses(row[f"{side}{row['version']}"][np.newaxis])[0])


# --- the terminal ---

# Columns of the table, and what width is room for them.
_LAYOUTS = ((80, range(7)), (58, range(5)), (0, range(1, 4)))
_PROTOCOL_WIDTH, _RATE_WIDTH = 8, 8
_END_WIDTH = 47  # of the longest address with a port


@contextmanager
def _screen(count: int | None) -> Iterator[Callable[[View], None]]:
    """A function that shows a table in place of the one before; at the end the terminal is as it was."""
    try:
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text
    except ImportError:
        advice = "a table that changes takes rich: pip install 'tuntap[top]'; --once does without"
        raise UnsupportedError(errno.EOPNOTSUPP, advice) from None
    console = Console()
    most = None if count is None else count + 2
    with Live(console=console, screen=True, auto_refresh=False) as live:

        def show(view: View) -> None:
            title, heading, *rows = screen_lines(view, console.width, console.height)[:most]
            text = Text(no_wrap=True, overflow="crop").append(title).append(f"\n\n{heading}", "bold")
            live.update(text.append("".join(f"\n{row}" for row in rows)), refresh=True)

        yield show


def screen_lines(view: View, width: int, height: int) -> list[str]:
    """A title, a heading, and the first flows, as many as fit a terminal of this size."""
    chosen = next(columns for least, columns in _LAYOUTS if width >= least)
    widths = [_PROTOCOL_WIDTH, 0, 0, *[_RATE_WIDTH] * (len(_HEADINGS) - _TEXTS)]
    left = width - sum(widths[column] + 1 for column in chosen) + 1
    widths[1], widths[2] = (min(max(room, 1), _END_WIDTH) for room in ((left + 1) // 2, left // 2))
    flows = f"{len(view.rows)} flow{'s' * (len(view.rows) != 1)} in {view.seconds:.0f} s"
    lines = [f"{view.title}: {flows}; {_totals(view)}"]
    for cells in (_HEADINGS, *(_cells(row, view.seconds) for row in view.rows[: max(height - 3, 0)])):
        lines.append(" ".join(_aligned(column, cells[column], widths[column]) for column in chosen))
    return [line[:width] for line in lines]


def _aligned(column: int, cell: str, width: int) -> str:
    if column >= _TEXTS:
        return cell.rjust(width)
    return shortened(cell, width).ljust(width)


def shortened(text: str, width: int) -> str:
    """Without its middle, so that an address keeps its network and its port."""
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return f"{text[: width - 1 - tail]}…{text[len(text) - tail :]}"
