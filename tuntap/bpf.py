"""The packets in what a read of a BPF descriptor (``/dev/bpf``) yields, without a device and on any system.

A device of this package does this by itself where it receives from such a descriptor.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from tuntap import _core
from tuntap._errors import PacketError

if TYPE_CHECKING:
    from tuntap._core import Readable

__all__ = ["FREEBSD", "MACOS", "NETBSD", "OPENBSD", "Layout", "Record", "records"]


class Layout(NamedTuple):
    """How a system lays out its records (``struct bpf_hdr`` and ``BPF_ALIGNMENT``, net/bpf.h)."""

    #: Bytes of `bh_tstamp`: 8 for two numbers of 32 bits, 16 for two of 64 bits.
    timestamp_size: int
    #: Each record begins at a multiple of so many bytes, 4 or 8.
    alignment: int


#: The layouts of systems with 64 bits.
MACOS = Layout(8, 4)
FREEBSD = Layout(16, 8)
NETBSD = Layout(16, 8)
OPENBSD = Layout(8, 4)


class Record(NamedTuple):
    """A packet and what was noted with it."""

    #: The packet, or its beginning if no more was captured.
    packet: bytes
    #: Bytes of the whole packet.
    original: int
    #: When it was captured, in seconds since 1970, to the microsecond.
    timestamp: float


def records(buffer: Readable, layout: Layout) -> Iterator[Record]:
    """The records of one read, in order.

    Parameters
    ----------
    buffer : buffer
        The bytes that the read yielded, no more and no less.  They are copied before this returns, so that
        the next read may go to the same memory.
    layout : Layout
        Of the system that wrote them: `MACOS`, `FREEBSD`, `NETBSD` or `OPENBSD`.  The byte order is that of
        this host, timestamps are those that a descriptor has unless told otherwise (microseconds).

    Returns
    -------
    iterator of Record
        A packet of which a part is missing has ``len(packet) < original``.

    Raises
    ------
    PacketError
        By the iterator, after all records in front of it: what comes is cut off by the end of the buffer, or
        is no record.  There is no telling where another would begin.
    ValueError
        The layout is none.

    Examples
    --------
    >>> list(records(b"", MACOS))
    []
    """
    timestamp_size, alignment = layout
    if timestamp_size not in (8, 16) or alignment not in (4, 8):
        raise ValueError(f"a layout has timestamps of 8 or 16 bytes and an alignment of 4 or 8, not {layout}")
    found, broken = _core.bpf_records(buffer, timestamp_size, alignment)
    return _records(found, broken)


def _records(found: list[tuple[bytes, int, int, int]], broken: int | None) -> Iterator[Record]:
    for packet, original, seconds, microseconds in found:
        yield Record(packet, original, seconds + microseconds / 1e6)
    if broken is not None:
        raise PacketError(
            errno.EBADMSG,
            f"what begins at byte {broken} is no whole record: give all that one read yielded, "
            "and the layout of the system it is from",
        )
