"""Counts packets, and shows their rate while they flow."""

from __future__ import annotations

import sys
import time
from types import TracebackType

_REFRESH = {True: 0.1, False: 1.0}  # seconds between updates: on a terminal, in a file
_WIDTH = 79


class Meter:
    """Packets, bytes, time and CPU time of the thread that adds them.

    On a terminal one line shows them and is updated; elsewhere a line is printed now and then.

    Parameters
    ----------
    label : str
        In front of the line.
    with_rate : bool, optional
        Whether the rate means anything, or the line only counts.
    """

    def __init__(self, label: str, *, with_rate: bool = True) -> None:
        self.packets = 0
        self.bytes = 0
        self.seconds = 0.0
        self._label = label
        self._with_rate = with_rate
        self._is_terminal = sys.stdout.isatty()
        self._refresh = _REFRESH[self._is_terminal]
        self._started = time.perf_counter()
        self._cpu_started = time.thread_time()
        self._cpu = 0.0
        self._next_show = self._started + self._refresh

    def add(self, packets: int, size: int) -> None:
        """Count packets, and show the rate if it is time to."""
        self.packets += packets
        self.bytes += size
        if time.perf_counter() >= self._next_show:
            self.stop()
            self._show()
            self._next_show += self._refresh

    def stop(self) -> None:
        """Take the time: what comes later, such as clearing up, is not counted."""
        self.seconds = time.perf_counter() - self._started
        self._cpu = time.thread_time() - self._cpu_started

    def __str__(self) -> str:
        if not self._with_rate:
            return f"{self.packets:,} packets"
        seconds = max(self.seconds, 1e-9)
        text = f"{self.packets / seconds:,.0f} packets/s, {self.bytes * 8 / seconds / 1e9:.2f} Gbit/s"
        if self.packets:
            text += f", {self._cpu / self.packets * 1e6:.2f} us of CPU per packet"
        return text

    def _show(self) -> None:
        line = f"  {self._label:<8} {self}"
        if self._is_terminal:
            print(f"\r{line:<{_WIDTH}}", end="", flush=True)
        else:
            print(line, flush=True)

    def __enter__(self) -> Meter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_terminal:
            print(f"\r{'':<{_WIDTH}}\r", end="", flush=True)
