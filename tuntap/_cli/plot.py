"""`tuntap plot`: throughput, packet sizes and inter-arrival times of a capture, as a picture."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tuntap import PacketBatch, UnsupportedError
from tuntap.capture import Reader

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BATCH = 1024
_SLOT = 128  # of the packets only their lengths are looked at
_STEPS = 200  # of the throughput, at most
_BINS = 80

_Numbers = npt.NDArray[np.int64]


def plot(file: str, output: str | None) -> int:
    """Draw a capture, and say where the picture is."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import EngFormatter
    except ImportError:
        advice = "this takes matplotlib: pip install 'tuntap[plot]'"
        raise UnsupportedError(errno.EOPNOTSUPP, advice) from None
    title = "standard input" if file == "-" else file
    times, sizes = read(file)
    if not len(times):
        raise ValueError(f"{title}: there is no packet in it")
    path = output or ("capture.png" if file == "-" else str(Path(Path(file).name).with_suffix(".png")))
    figure = Figure(figsize=(9, 10), layout="constrained")
    throughput, packet_sizes, distances = figure.subplots(3)
    escaped = title.replace("$", r"\$")  # which would begin a formula
    seconds = (int(times[-1]) - int(times[0])) / 1e9
    mean = f", {EngFormatter('bit/s', 1)(8 * int(sizes.sum()) / seconds)}" if seconds else ""
    figure.suptitle(
        f"{escaped}: {len(times):,} packet{'s' * (len(times) != 1)}, {int(sizes.sum()):,} bytes "
        f"in {seconds:.3g} s{mean}",
        wrap=True,
    )
    _draw_throughput(throughput, times, sizes)
    _draw_sizes(packet_sizes, sizes)
    _draw_distances(distances, times)
    for axes in (throughput, packet_sizes, distances):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    print(f"written to {path}", file=sys.stderr)
    return 0


def read(file: str) -> tuple[_Numbers, _Numbers]:
    """When packets came, in nanoseconds since 1970 and in order, and the bytes each of them had.

    One without a time came with the first.
    """
    times: list[_Numbers] = []
    sizes: list[_Numbers] = []
    batch = PacketBatch(_BATCH, _SLOT)
    with Reader(sys.stdin.buffer if file == "-" else file) as reader:
        while count := reader.read_into(batch):
            times.append(reader.timestamps[:count].copy())
            sizes.append(reader.original_lengths[:count].copy())
    if not times:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    came = np.concatenate(times)
    came[came == 0] = came[came != 0].min(initial=2**63 - 1)
    order = np.argsort(came, kind="stable")
    return came[order], np.concatenate(sizes)[order]


def throughput_of(times: _Numbers, sizes: _Numbers) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Where steps begin and end, in seconds from the first packet on, and bits per second in each."""
    elapsed = (times - times[0]).view(np.uint64) / 1e9
    step = round_step(elapsed[-1] / _STEPS)
    numbers = (elapsed / step).astype(np.int64)
    bits = np.bincount(numbers, 8.0 * sizes)
    return np.arange(len(bits) + 1) * step, bits / step


def round_step(least: float) -> float:
    """The first of ..., 0.1, 0.2, 0.5, 1, 2, 5, ... that is not below; a microsecond at least."""
    power = 10.0 ** np.floor(np.log10(max(least, 1e-6)))
    return next(float(step) for step in (power, 2 * power, 5 * power, 10 * power) if step >= least)


def _draw_throughput(axes: Axes, times: _Numbers, sizes: _Numbers) -> None:
    from matplotlib.ticker import EngFormatter

    axes.set(title="Throughput", ylabel="bit/s")
    axes.yaxis.set_major_formatter(EngFormatter())
    if times[0] == times[-1]:
        axes.set_xlabel("all packets came at the same time")
        return
    edges, rates = throughput_of(times, sizes)
    axes.stairs(rates, edges, fill=True, color="C0", alpha=0.4)
    axes.stairs(rates, edges, color="C0")
    axes.set_xlabel(f"seconds since the first packet, in steps of {EngFormatter('s')(edges[1])}")
    axes.set(xlim=(0, edges[-1]), ylim=(0, None))


def _draw_sizes(axes: Axes, sizes: _Numbers) -> None:
    width = -(-int(sizes.max()) // _BINS)
    axes.hist(sizes, bins=range(0, int(sizes.max()) + 2 * width, width), color="C1", log=True)
    _mark(axes, sizes, "{:,.0f} bytes".format)
    axes.set(title="Packet sizes", xlabel="bytes", ylabel="packets", xlim=(0, None), ylim=(0.8, None))


def _draw_distances(axes: Axes, times: _Numbers) -> None:
    from matplotlib.ticker import EngFormatter

    distances = np.diff(times).view(np.uint64) / 1e9
    apart = distances[distances > 0]
    together = len(distances) - len(apart)
    note = f", besides {together:,} of 0" if together else ""  # for which there is no room on this axis
    axes.set(title="Inter-arrival times", xlabel=f"seconds{note}", ylabel="packets", xscale="log")
    axes.xaxis.set_major_formatter(EngFormatter())
    if len(apart):
        bins = np.geomspace(apart.min() * 0.9, apart.max() * 1.1, _BINS).tolist()
        axes.hist(apart, bins=bins, color="C2", log=True)
        axes.set_ylim(0.8, None)
        _mark(axes, distances, EngFormatter("s", 1))


def _mark(axes: Axes, values: npt.NDArray[Any], text: Callable[[float], str]) -> None:
    """Where half of the values and nearly all are below."""
    for percent, style in ((50, "--"), (99, ":")):
        value = float(np.percentile(values, percent))
        if value > 0:
            label = f"{percent} % are up to {text(value)}"
            axes.axvline(value, color="black", linestyle=style, label=label)
    axes.legend()
