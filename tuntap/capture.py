"""Packets in files: batches written as pcap or pcapng, read back, and replayed into a device in their time.

What is written has nanoseconds and is read by tshark, tcpdump, scapy and others.  What is read may be of
either format and byte order, and of any resolution.  A compressed file is opened with ``gzip.open``, for
writing, too.
"""

from __future__ import annotations

import errno
import itertools
import math
import operator
import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, NamedTuple, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from tuntap import _capture, _core
from tuntap._batch import PacketBatch
from tuntap._config import parse_integer
from tuntap._errors import InterruptError, PacketError, UnsupportedError
from tuntap._turns import AsyncCalls

if TYPE_CHECKING:
    from tuntap._core import Event, Readable
    from tuntap._device import Queue

__all__ = ["Reader", "Replay", "Writer", "replay"]

Source: TypeAlias = "str | os.PathLike[str] | BinaryIO"

_FRAMES, _PACKETS = 2, 3  # layers
_REPLAY_BATCH = 256
_COARSE = 2_000_000  # nanoseconds; what waits for a descriptor is that exact
_FINE = 100_000  # as exact as sleep is


def _open(file: Source, mode: Literal["rb", "wb"]) -> tuple[BinaryIO, bool]:
    """The file, and whether it was opened here."""
    if isinstance(file, (str, os.PathLike)):
        # Batches are larger than any buffer.
        return open(file, mode, buffering=0), True
    return file, False


class _File:
    """What both directions have in common."""

    def __init__(self, file: BinaryIO, is_ours: bool) -> None:
        self._file: BinaryIO | None = file
        self._is_ours = is_ours

    def close(self) -> None:
        """Close the file if a path was given, and leave it open if it was a file."""
        file, self._file = self._file, None
        if file is not None and self._is_ours:
            file.close()

    def _must_be_open(self) -> None:
        if self._file is None:
            raise ValueError("the capture is closed")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()


class Writer(_File):
    """Writes packets to a capture, each call at once and with no buffer in between.

    A call that fails, or that a signal handler raises from, leaves the file as it was before; where that
    cannot be had, as in a pipe that has taken a part, the rest goes with the next call or with `close`.  So
    there is never half a record, unless the reader of a pipe goes away.  One thread at a time.

    Parameters
    ----------
    file : path or binary file
        A file that is open for writing stays open.
    format : {"pcap", "pcapng"}, optional
        None: pcap if the path ends in ``.pcap``, else pcapng.
    layer : {3, 2}, optional
        3: IP packets, those of a `Tun` (``LINKTYPE_RAW``).  2: Ethernet frames, those of a `Tap`
        (``LINKTYPE_ETHERNET``).
    snap_length : int, optional
        Bytes that are kept of each packet; how many it had is noted.

    Examples
    --------
    >>> import io, tuntap
    >>> batch = tuntap.PacketBatch(1, 100)
    >>> batch.fill([b"E" + bytes(27)])
    1
    >>> with Writer(io.BytesIO()) as writer:
    ...     writer.write(batch)
    1
    """

    def __init__(
        self,
        file: Source,
        *,
        format: Literal["pcap", "pcapng"] | None = None,
        layer: int = 3,
        snap_length: int = _capture.PACKET_MAX,
    ) -> None:
        if format is None:
            is_pcap = isinstance(file, (str, os.PathLike)) and os.fspath(file).lower().endswith(".pcap")
            format = "pcap" if is_pcap else "pcapng"
        if format not in ("pcap", "pcapng"):
            raise ValueError(f'format must be "pcap" or "pcapng", not {format!r}')
        layer = parse_integer(layer, "layer", _FRAMES, _PACKETS)
        snap_length = parse_integer(snap_length, "snap_length", 1, _capture.PACKET_MAX)
        self.format = format
        opened, is_ours = _open(file, "wb")
        super().__init__(opened, is_ours)
        try:
            self._output = _capture.Output(opened, format, layer, snap_length)
            self._output.start()
        except BaseException:
            super().close()
            raise

    def write(
        self,
        batch: PacketBatch,
        timestamps: npt.ArrayLike | None = None,
        where: npt.ArrayLike | None = None,
        *,
        original_lengths: npt.ArrayLike | None = None,
    ) -> int:
        """Write the packets of a batch.

        Parameters
        ----------
        batch : PacketBatch
            Its first `batch.count` packets.
        timestamps : int or array of int64, shape (count,) or longer, optional
            Nanoseconds since 1970; one number stands for all, and None for now.
        where : array of bool, shape (count,), or of int, optional
            Write these packets only: those where a mask is true, or of these numbers, in their order.
        original_lengths : array of int, shape (count,) or longer, optional
            Bytes that packets had before they were cut, such as `Reader.original_lengths`.

        Returns
        -------
        int
            How many packets were written.

        Raises
        ------
        ValueError
            A length is below 1 or above the slot size, a time is not within those of the format (pcap: to
            2106), or the layer of the batch is another.  Nothing was written.
        IndexError
            `where` selects a packet that the batch does not hold.
        OSError
            As from the file.
        """
        self._must_be_open()
        return self._output.write(
            batch,
            _numbers(time.time_ns() if timestamps is None else timestamps, "timestamps"),
            None if original_lengths is None else _numbers(original_lengths, "original_lengths"),
            None if where is None else batch._select(where),
        )

    def write_packet(self, packet: Readable, time_ns: int | None = None) -> None:
        """Write one packet.

        Parameters
        ----------
        packet : buffer
            At least 1 byte.
        time_ns : int, optional
            Nanoseconds since 1970; None: now.
        """
        self._must_be_open()
        self._output.write_packet(packet, time.time_ns() if time_ns is None else operator.index(time_ns))

    def close(self) -> None:
        """Write what is left of an interrupted call, and close the file if a path was given.

        What a file that is not closed does not take, the next call may try to write again.
        """
        if self._file is None:
            return
        try:
            self._output.finish()
        except BaseException:
            if self._is_ours:
                super().close()
            raise
        super().close()


def _numbers(values: npt.ArrayLike, what: str) -> npt.NDArray[np.int64]:
    array = np.asarray(values)
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"{what} must be of dtype int64, not {array.dtype}")
    if array.ndim > 1:
        raise ValueError(f"{what} must have 1 dimension, not {array.ndim}")
    return np.ascontiguousarray(array, np.int64)


class Reader(_File):
    """Reads the packets of a capture: pcap or pcapng, whatever it is.

    Link types are Ethernet, raw IP, and those with a short header in front of the IP packet, which is taken
    off: loopback (NULL, LOOP) and Linux's cooked ones (SLL, SLL2).  Records without a packet, such as an ARP
    message among the latter, are passed over and counted in `skipped`.  One thread at a time.

    Parameters
    ----------
    file : path or binary file
        A file that is open for reading, also a pipe, stays open.  From a file that can seek batches are
        filled; from one that cannot, packets are handed over as they come.
    layer : {2, 3}, optional
        None: packets as they are, all IP packets or all Ethernet frames.  3: IP packets, those in Ethernet
        frames, too (VLAN tags and padding taken off, frames of other protocols passed over).  2: frames.

    Attributes
    ----------
    timestamps : ndarray of int64, shape (capacity,)
        Nanoseconds since 1970 of the packets that `read_into` has read last; 0 if that was not noted.
    original_lengths : ndarray of int64, shape (capacity,)
        Bytes these packets had before they were cut by the snap length, or by the slot.

    Raises
    ------
    PacketError
        The file is no capture.  By later calls: what comes is damaged or cut off; the message has the
        offset in the file, and all packets in front of it were delivered.
    UnsupportedError
        There is a link type or a version that is not known here, or the layers of packets differ.
    """

    def __init__(self, file: Source, *, layer: int | None = None) -> None:
        wanted = 0 if layer is None else parse_integer(layer, "layer", _FRAMES, _PACKETS)
        self.timestamps = np.zeros(0, np.int64)
        self.original_lengths = np.zeros(0, np.int64)
        opened, is_ours = _open(file, "rb")
        super().__init__(opened, is_ours)
        try:
            self._input = _capture.Input(opened, wanted)
            self._input.start()
        except BaseException:
            self.close()
            raise

    @property
    def format(self) -> Literal["pcap", "pcapng"]:
        """str: Of the file."""
        return self._input.format

    @property
    def link_type(self) -> int | None:
        """int: Of the packet that came last, or comes first, for which this may wait; None without one."""
        self._must_be_open()
        link = self._input.link()
        return None if link is None else link[0]

    @property
    def layer(self) -> int | None:
        """int: 2 if packets are Ethernet frames, 3 if they are IP packets; None if there are none."""
        self._must_be_open()
        link = self._input.link()
        return None if link is None else link[1]

    @property
    def skipped(self) -> int:
        """int: Records that were passed over, because they had no packet of this layer."""
        return self._input.skipped

    def read_into(self, batch: PacketBatch, *, timestamps: npt.NDArray[np.int64] | None = None) -> int:
        """Fill a batch.

        Parameters
        ----------
        batch : PacketBatch
            Its `count` and `layer` are set.  A packet that was cut, by the snap length of the capture or by
            the slot, is in `batch.truncated`.
        timestamps : ndarray of int64, shape (capacity,) or longer, optional
            Where the times go, and `Reader.timestamps` from now on.

        Returns
        -------
        int
            How many packets; 0 at the end of the file.

        Raises
        ------
        PacketError, UnsupportedError
            See there, and again from every later call.
        OSError
            As from the file.  The packets that came before it are in the batch.
        """
        self._must_be_open()
        if timestamps is not None:
            self.timestamps = _target(timestamps, batch.capacity)
        elif self.timestamps.size != batch.capacity:
            self.timestamps = np.zeros(batch.capacity, np.int64)
        if self.original_lengths.size != batch.capacity:
            self.original_lengths = np.zeros(batch.capacity, np.int64)
        return self._input.read_into(batch, self.timestamps, self.original_lengths)

    def __iter__(self) -> Iterator[tuple[bytes, int]]:
        """The packets, each with its time in nanoseconds since 1970."""
        return self

    def __next__(self) -> tuple[bytes, int]:
        self._must_be_open()
        found = self._input.packet()
        if found is None:
            raise StopIteration
        return found


def _target(array: Any, capacity: int) -> npt.NDArray[np.int64]:  # noqa: ANN401
    if not isinstance(array, np.ndarray) or array.dtype != np.int64:
        raise TypeError("timestamps must be an array of int64")
    if array.ndim != 1 or array.size < capacity or not array.flags.c_contiguous or not array.flags.writeable:
        raise ValueError(f"timestamps must be writable, C-contiguous, and of shape ({capacity},) at least")
    return array


class Replay(NamedTuple):
    """What became of a replay."""

    #: How many packets were sent.
    packets: int
    #: Bytes in them.
    bytes: int
    #: How long it took.
    seconds: float
    #: By how many seconds the latest packet was behind its time.
    lateness: float
    #: Packets that were not sent: refused by the device, or passed over by the reader.
    dropped: int


def replay(
    source: Source | Reader,
    device: Queue,
    *,
    speed: float = 1.0,
    loop: int | None = 1,
    timeout: float | None = None,
    event: Event | None = None,
) -> Replay:
    """Send the packets of a capture in the order and with the distances in time that they have there.

    Packets that are due together go in one batch.  What is late, because the device had no room or this
    process did not run, follows at once; the schedule does not move.

    Parameters
    ----------
    source : path, binary file or Reader
        Into a `Tun` go IP packets, those in Ethernet frames, too; into a `Tap` go frames.  From a `Reader`
        packets go as it gives them.
    device : Tun, Tap or Queue
        Where packets go.
    speed : float, optional
        2.0 halves the distances, ``float("inf")`` leaves none.  A distance below zero is none, either.
    loop : int, optional
        How many times; None: until something ends it.  More than once takes a path, or a file that can seek.
    timeout : float, optional
        Seconds to wait for room, each time; None waits for ever.
    event : Event, optional
        Ends the call with `InterruptError` while it is set.

    Returns
    -------
    Replay
        What was sent.

    Raises
    ------
    UnsupportedError
        IP packets were to go into a TAP, or frames of a `Reader` into a TUN.
    PacketError
        The capture is damaged; all packets before that were sent.
    TimeoutError, LinkDownError, ClosedError, InterruptError, DeviceGoneError
        As for `Tun.send_batch`; the waits between packets end as those for room do.
    """
    if isinstance(device, AsyncCalls):
        raise TypeError("a device of tuntap.aio is for tuntap.aio.replay()")
    schedule = Schedule(source, device, speed, loop)
    for batch in schedule:
        while schedule.sent < batch.count:
            due = schedule.next_due()
            if due > 0:
                _wait(device, due, event)
                continue
            try:
                schedule.note_sent(
                    device.send_batch(batch, timeout, start=schedule.sent, stop=schedule.stop, event=event)
                )
            except PacketError:
                schedule.note_refused()
    return schedule.result()


def _wait(device: Queue, nanoseconds: float, event: Event | None) -> None:
    """Wait for a time, or until the device or the event ends that."""
    until = time.monotonic_ns() + nanoseconds
    while (left := until - time.monotonic_ns()) > 0:
        if event is not None and event.is_set():
            raise InterruptError(errno.EINTR, "the event is set: clear() it to replay again")
        if left > _COARSE:
            device._wait_beside(-1 if event is None else event.fileno(), (left - _COARSE / 2) / 1e9)
        else:
            time.sleep(max(left - _FINE, 0) / 1e9)


class Schedule:
    """When the packets of a capture are due, and what became of them."""

    def __init__(self, source: Source | Reader, device: Queue, speed: float, loop: int | None) -> None:
        if not speed > 0:
            raise ValueError(f"speed must be above 0, not {speed}")
        if loop is not None:
            loop = parse_integer(loop, "loop", 1, 2**63 - 1)
        if isinstance(source, Reader) and loop != 1:
            raise ValueError("a Reader is read once; give its file, to be read again")
        if device._packet_information:
            raise ValueError("the device wants more than packets: open it without packet_information")
        self._source, self._device, self._speed, self._loop = source, device, speed, loop
        self._batch = PacketBatch(_REPLAY_BATCH, _core.PACKET_MAX)
        self._due = np.zeros(0)  # of the batch, in nanoseconds from the start on
        self._start = 0
        self._packets = self._bytes = self._dropped = 0
        self._lateness = 0.0
        self.sent = self.stop = 0  # packets of the batch that went, and what is due

    def __iter__(self) -> Iterator[PacketBatch]:
        """The batches to send, each once the one before it is sent."""
        batch = self._batch
        end = 0.0
        for reader in self._readers():
            last: np.int64 | None = None  # time in the capture
            while reader.read_into(batch):
                self._check(reader)
                times = reader.timestamps[: batch.count]
                last = times[0] if last is None else last
                distances, last = _distances(times, last)
                self._due = end + np.cumsum(distances / self._speed)
                end = self._due[-1]
                self._start = self._start or time.monotonic_ns()
                self.sent = self.stop = 0
                yield batch
            self._dropped += reader.skipped
            if last is None:
                return  # nothing, which would be for ever

    def _readers(self) -> Iterator[Reader]:
        source = self._source
        if isinstance(source, Reader):
            yield source
            return
        layer = _PACKETS if self._device._layer == _PACKETS else None
        start = None if isinstance(source, (str, os.PathLike)) or self._loop == 1 else source.tell()
        for _ in itertools.count() if self._loop is None else range(self._loop):
            if start is not None:
                source.seek(start)  # type: ignore[union-attr]
            with Reader(source, layer=layer) as reader:
                yield reader

    def _check(self, reader: Reader) -> None:
        if reader.layer != self._device._layer:
            advice = (
                "a TAP takes Ethernet frames, and these are IP packets: replay them into a Tun"
                if reader.layer == _PACKETS
                else "a TUN takes IP packets, and these are frames: read them with Reader(..., layer=3)"
            )
            raise UnsupportedError(errno.EOPNOTSUPP, advice)

    def next_due(self) -> float:
        """Nanoseconds until the next packet is due; if none, all up to `stop` are."""
        now = time.monotonic_ns() - self._start
        self.stop = int(np.searchsorted(self._due, now, "right"))
        if self.stop <= self.sent:
            return float(self._due[self.sent]) - now
        if not math.isinf(self._speed):
            self._lateness = max(self._lateness, now - float(self._due[self.sent]))
        return 0.0

    def note_sent(self, packets: int) -> None:
        self._packets += packets
        self._bytes += int(self._batch.lengths[self.sent : self.sent + packets].sum())
        self.sent += packets

    def note_refused(self) -> None:
        self._dropped += 1
        self.sent += 1

    def result(self) -> Replay:
        seconds = (time.monotonic_ns() - self._start) / 1e9 if self._start else 0.0
        return Replay(self._packets, self._bytes, seconds, self._lateness / 1e9, self._dropped)


def _distances(times: npt.NDArray[np.int64], last: np.int64) -> tuple[npt.NDArray[np.uint64], np.int64]:
    """Nanoseconds between each packet and the one in front of it, at first `last`; the time of the last."""
    # Where no time was noted, it is that of the packet in front.
    known = np.maximum.accumulate(np.where(times != 0, np.arange(1, times.size + 1), 0))
    times = np.concatenate(([last], times))[known]
    before = np.concatenate(([last], times[:-1]))
    # Without a sign, for the distance between any two.
    distances = np.where(times > before, times.view(np.uint64) - before.view(np.uint64), np.uint64(0))
    return distances, times[-1]
