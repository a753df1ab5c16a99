"""Packets and bytes of each flow, counted exactly: a table that grows by batches, and merges with others.

A flow is what has one version of IP, one protocol, and the same addresses and ports.  The parts of a
fragmented packet have no ports, not even the first; what is no IP packet at all is one flow, of version 0.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from tuntap._config import parse_integer
from tuntap.columns import DTYPE, FIVE_TUPLE, Columns, Mark

__all__ = ["CONVERSATION", "FIELDS", "FLOW", "FlowTable", "Forgotten", "endpoints"]

#: The columns of a batch that a `FlowTable` needs: ``table.add(batch.columns(FIELDS))``.
FIELDS = ("marks", "length", "version", *FIVE_TUPLE)

# Where things are in a row: the flow, then its packets and bytes, and the times.
_OFFSETS = {
    "version": 44, "protocol": 45, "src4": 32, "dst4": 36, "src6": 0, "dst6": 16,
    "src_port": 40, "dst_port": 42,
}  # fmt: skip
_COUNTS = {
    "packets": (np.uint64, 48), "bytes": (np.uint64, 56), "first": (np.int64, 64), "last": (np.int64, 72),
}  # fmt: skip
_REPLIES = {"reply_packets": (np.uint64, 80), "reply_bytes": (np.uint64, 88)}


def _row(counts: Mapping[str, tuple[Any, int]]) -> np.dtype[np.void]:
    return np.dtype(
        {
            "names": [*_OFFSETS, *counts],
            "formats": [*(DTYPE[name] for name in _OFFSETS), *(kind for kind, _ in counts.values())],
            "offsets": [*_OFFSETS.values(), *(offset for _, offset in counts.values())],
            "itemsize": 48 + 8 * len(counts),
        }
    )


#: A row of `FlowTable.to_table`: the fields of `tuntap.columns.DTYPE` that make a flow, its packets and
#: bytes, and when its first and its last packet came, in nanoseconds since 1970.
FLOW = _row(_COUNTS)

#: A row of `FlowTable.conversations`: `packets` and `bytes` are those from src to dst, the replies come back.
CONVERSATION = _row(_COUNTS | _REPLIES)

# The same in numbers of 64 bits.
_KEY, _SUMS = slice(0, 6), slice(6, 8)
_PACKETS, _BYTES, _FIRST, _LAST = 6, 7, 8, 9
_WORDS = FLOW.itemsize // 8
_PENDING = 4096  # rows that are not looked at one batch at a time

_Words = npt.NDArray[np.uint64]


class Forgotten(NamedTuple):
    """What a bounded table has counted, and no longer has."""

    #: How often a flow was left out.
    flows: int = 0
    packets: int = 0
    bytes: int = 0


class FlowTable:
    """How many packets and bytes each flow had.

    Thousands of packets are counted in one go, with nothing of Python's for each of them.  Flows are told
    apart by all of their fields, not by a hash that two may share.  One thread at a time; a copy, made
    by pickle, may go to another process or host.

    Parameters
    ----------
    max_flows : int, optional
        Keep only so many: those that had a packet last.  What the others had counted is in `forgotten`.

    Examples
    --------
    >>> import tuntap
    >>> batch = tuntap.PacketBatch(64, 1500)
    >>> _ = batch.fill([tuntap.testing.udp("10.0.0.1", "10.0.0.2", 4000, 53, b"x" * 100)] * 3)
    >>> table = FlowTable()
    >>> table.add(batch.columns(FIELDS))
    >>> table.to_table()[["dst_port", "packets", "bytes"]].tolist()
    [(53, 3, 384)]
    """

    def __init__(self, max_flows: int | None = None) -> None:
        self._max_flows = None if max_flows is None else parse_integer(max_flows, "max_flows", 1, 2**31 - 1)
        self._rows = np.zeros((0, _WORDS), np.uint64)  # each flow once
        self._pending: list[_Words] = []  # not yet so
        self._pending_rows = 0
        self._forgotten = Forgotten()

    def add(
        self,
        columns: npt.NDArray[np.void] | Mapping[str, npt.NDArray[Any]],
        timestamps: npt.ArrayLike | None = None,
        count: int | None = None,
    ) -> None:
        """Count the packets of a batch.

        Parameters
        ----------
        columns : structured ndarray, Columns, or mapping of str to ndarray
            At least `FIELDS`, as `PacketBatch.columns` fills them.  `bytes` is the sum of `length`.
        timestamps : int, or array of int, shape (count,) or longer, optional
            When the packets came, in nanoseconds since 1970; one number stands for all, and None for now.
        count : int, optional
            How many rows are packets; by default all, or those of `Columns` that were filled last.

        Raises
        ------
        ValueError
            A field is missing, or there are fewer rows or times than packets.
        """
        names = columns.dtype.names or () if isinstance(columns, np.ndarray) else columns
        if missing := [name for name in FIELDS if name not in names]:
            raise ValueError(f"there is no column {', '.join(missing)}: use batch.columns(flows.FIELDS)")
        if isinstance(columns, Columns) and count is None:
            count = columns.count
        available = len(columns["length"])
        count = available if count is None else parse_integer(count, "count", 0, available)
        times = np.asarray(time.time_ns() if timestamps is None else timestamps)
        if times.dtype.kind not in "iu":
            raise TypeError(f"timestamps must be of int64, not {times.dtype}")
        if times.ndim > 1 or (times.ndim and len(times) < count):
            raise ValueError(f"timestamps of shape {times.shape} are not those of {count} packets")
        rows = np.zeros(count, FLOW)
        for name in _OFFSETS:
            rows[name] = columns[name][:count]
        is_fragment = columns["marks"][:count] & Mark.FRAGMENT != 0
        if is_fragment.any():
            rows["src_port"][is_fragment] = rows["dst_port"][is_fragment] = 0
        rows["packets"] = 1
        rows["bytes"] = columns["length"][:count]
        rows["first"] = rows["last"] = times[:count] if times.ndim else times
        self._append(rows.view(np.uint64).reshape(count, _WORDS))

    def merge(self, *others: FlowTable) -> Self:
        """Count what other tables have counted, too; this table."""
        for other in others:
            self._append(other._compact())
            self._forget(*other._forgotten)
        return self

    def to_table(self) -> npt.NDArray[np.void]:
        """The flows, as a copy.

        Returns
        -------
        structured ndarray of `FLOW`, shape (flows,)
            Those with most bytes first.
        """
        rows = self._compact()
        return _sorted(rows, rows[:, _BYTES]).view(FLOW).reshape(-1)

    def conversations(self) -> npt.NDArray[np.void]:
        """Both directions of each flow as one row, as a copy.

        Returns
        -------
        structured ndarray of `CONVERSATION`, shape (conversations,)
            Those with most bytes first.  Source is who was seen sending first; of two at the same time, the
            one with the higher port, as clients have.
        """
        rows = self._compact()
        if not len(rows):
            return np.zeros(0, CONVERSATION)
        turned = _turned(rows)
        port = rows.view(FLOW)["src_port"][:, 0]
        order = np.lexsort((~port, rows[:, _FIRST].view(np.int64), *turned[:, _KEY].T))
        rows = rows[order]
        starts = _starts(turned[order])
        has_reply = np.diff(starts, append=len(rows)) == 2
        replies = rows[starts[has_reply] + 1]
        found = np.zeros((len(starts), CONVERSATION.itemsize // 8), np.uint64)
        found[:, :_WORDS] = rows[starts]
        found[has_reply, _WORDS:] = replies[:, _SUMS]
        last = found.view(np.int64)[:, _LAST]
        last[has_reply] = np.maximum(last[has_reply], replies.view(np.int64)[:, _LAST])
        return _sorted(found, found[:, _BYTES] + found[:, -1]).view(CONVERSATION).reshape(-1)

    @property
    def packets(self) -> int:
        """int: Of all flows, those that were forgotten, too."""
        return self._sum(_PACKETS) + self._forgotten.packets

    @property
    def bytes(self) -> int:
        """int: Of all flows, those that were forgotten, too."""
        return self._sum(_BYTES) + self._forgotten.bytes

    @property
    def forgotten(self) -> Forgotten:
        """Forgotten: What was counted of flows that are not in the table any more."""
        self._compact()
        return self._forgotten

    def __len__(self) -> int:
        """How many flows there are."""
        return len(self._compact())

    def __getstate__(self) -> dict[str, Any]:
        self._compact()
        return self.__dict__

    def __repr__(self) -> str:
        return f"<FlowTable of {len(self)} flows, {self.packets} packets, {self.bytes} bytes>"

    def _sum(self, word: int) -> int:
        return int(self._compact()[:, word].sum())

    def _append(self, rows: _Words) -> None:
        if len(rows):
            self._pending.append(rows)
            self._pending_rows += len(rows)
        if self._pending_rows > max(_PENDING, len(self._rows)):
            self._compact()

    def _compact(self) -> _Words:
        """All rows, each flow once, and not too many."""
        if self._pending_rows:
            rows = _reduce(np.concatenate([self._rows, *self._pending]))
            if self._max_flows is not None and len(rows) > self._max_flows:
                newest_last = np.argsort(rows[:, _LAST].view(np.int64), kind="stable")
                left_out = rows[newest_last[: -self._max_flows]]
                rows = rows[newest_last[-self._max_flows :]]
                self._forget(len(left_out), *left_out[:, _SUMS].sum(axis=0).tolist())
            self._rows, self._pending, self._pending_rows = rows, [], 0
        return self._rows

    def _forget(self, *counts: int) -> None:
        self._forgotten = Forgotten(*map(sum, zip(self._forgotten, counts, strict=True)))


def _reduce(rows: _Words) -> _Words:
    """Each flow once, with sums and the first and last time."""
    key = rows[:, _KEY]
    hashes = _hash(key)
    order = np.argsort(hashes, kind="stable")
    rows = rows[order]
    starts = _starts(rows)
    if len(starts) != np.count_nonzero(np.diff(hashes[order])) + 1:
        # Two flows share a hash, so theirs may be mixed: sort by all there is.
        rows = rows[np.lexsort(rows[:, _KEY].T)]
        starts = _starts(rows)
    reduced = rows[starts]
    reduced[:, _SUMS] = np.add.reduceat(rows[:, _SUMS], starts, axis=0)
    times = reduced.view(np.int64)
    times[:, _FIRST] = np.minimum.reduceat(rows.view(np.int64)[:, _FIRST], starts)
    times[:, _LAST] = np.maximum.reduceat(rows.view(np.int64)[:, _LAST], starts)
    return reduced


def _hash(key: _Words) -> _Words:
    """Nearly always different where flows are, which makes it quick to bring the same ones together."""
    hashes = np.zeros(len(key), np.uint64)
    for word in key.T:
        if word.any():  # IPv6 addresses of IPv4 are not
            hashes = (hashes ^ word) * np.uint64(0x9E3779B97F4A7C15)  # 2**64 divided by the golden ratio
            hashes ^= hashes >> np.uint64(32)
    return hashes


def _starts(rows: _Words) -> npt.NDArray[np.intp]:
    """Where another flow begins."""
    is_other = (rows[1:, _KEY] != rows[:-1, _KEY]).any(axis=1)
    return np.concatenate(([0], np.flatnonzero(is_other) + 1))


def _turned(rows: _Words) -> _Words:
    """The same for both directions: the smaller end is the source."""
    turned = rows.copy()
    flows = turned.view(FLOW)[:, 0]
    source, destination = _ends(flows, "src"), _ends(flows, "dst")
    first_different = np.argmax(source != destination, axis=1)[:, np.newaxis]
    is_larger = np.take_along_axis(source, first_different, 1) > np.take_along_axis(
        destination, first_different, 1
    )
    swap = is_larger[:, 0]
    for one, other in (("src4", "dst4"), ("src6", "dst6"), ("src_port", "dst_port")):
        flows[one][swap], flows[other][swap] = flows[other][swap], flows[one][swap]
    return turned


def _ends(flows: npt.NDArray[np.void], side: str) -> _Words:
    """Address and port as numbers that are compared one after the other."""
    ipv6 = np.ascontiguousarray(flows[f"{side}6"]).view(np.uint64)
    ipv4 = flows[f"{side}4"].astype(np.uint64)
    return np.column_stack((ipv6, ipv4 << np.uint64(16) | flows[f"{side}_port"]))


def _sorted(rows: _Words, size: _Words) -> _Words:
    """Largest first; of the same size, those that came first."""
    return np.ascontiguousarray(rows[np.lexsort((rows[:, _FIRST].view(np.int64), ~size))])


def endpoints(row: np.void) -> tuple[str, str]:
    """Source and destination of one row of a table, for people to read.

    Parameters
    ----------
    row : numpy.void
        A row of `FLOW`, `CONVERSATION`, or of other columns with these fields.

    Returns
    -------
    tuple of str
        Such as ``("10.0.0.1:4000", "10.0.0.2:53")`` or ``("[fd00::1]:4000", "[fd00::2]:53")``; without a port
        where both are 0, and "-" twice for what is no IP packet.

    Examples
    --------
    >>> import numpy as np
    >>> row = np.zeros(1, FLOW)
    >>> row["version"], row["src4"], row["dst4"], row["src_port"], row["dst_port"] = 4, 1, 2, 3, 0
    >>> endpoints(row[0])
    ('0.0.0.1:3', '0.0.0.2:0')
    """
    return _endpoint(row, "src"), _endpoint(row, "dst")


def _endpoint(row: np.void, side: str) -> str:
    if row["version"] not in (4, 6):
        return "-"
    if row["version"] == 4:
        address = str(ipaddress.IPv4Address(int(row[f"{side}4"])))
    else:
        address = str(ipaddress.IPv6Address(row[f"{side}6"].tobytes()))
    if not (row["src_port"] or row["dst_port"]):
        return address
    return f"[{address}]:{row[f'{side}_port']}" if ":" in address else f"{address}:{row[f'{side}_port']}"
