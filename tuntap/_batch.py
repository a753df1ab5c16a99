"""PacketBatch: preallocated slots, seen as numpy arrays."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tuntap import _columns, _core
from tuntap._config import parse_flag, parse_integer
from tuntap.columns import Columns, Table, dtype_of, plan_of

if TYPE_CHECKING:
    from tuntap._core import Writable

#: The virtio-net header in front of a super-packet (``struct virtio_net_hdr``, linux/virtio_net.h).
HEADER = np.dtype(
    [
        ("flags", np.uint8),
        ("gso_type", np.uint8),
        ("hdr_len", np.uint16),
        ("gso_size", np.uint16),
        ("csum_start", np.uint16),
        ("csum_offset", np.uint16),
    ]
)

_SELECTION_MAX = 2**31 - 1  # packets, as often as each is named


def selection(where: npt.ArrayLike, count: int) -> npt.NDArray[np.int32]:
    """The packets that a caller selects from the `count` of a batch, by their numbers, in order.

    Parameters
    ----------
    where : array of bool, shape (count,), or of int, shape (any,)
        A mask; or the numbers of packets, 0 to ``count - 1``, in any order and as often as wanted.
    count : int
        How many packets the batch holds.

    Returns
    -------
    ndarray of int32, shape (selected,)
        A copy, C-contiguous: whoever changes `where` from now on changes nothing.

    Raises
    ------
    TypeError
        It is neither of bool nor of int.
    ValueError
        It has another shape.
    IndexError
        There is no such packet.  A negative number is none: it would mean "not found" as often as
        "from the end".
    """
    chosen = np.asarray(where)
    if chosen.dtype.kind not in "biu":
        if isinstance(where, list | tuple) and chosen.shape == (0,):
            return np.empty(0, np.int32)
        raise TypeError(f"where must be an array of bool or of int, not of {chosen.dtype}")
    if chosen.ndim != 1:
        raise ValueError(f"where must have 1 dimension, not shape {chosen.shape}")
    if chosen.dtype == bool:
        if chosen.size != count:
            raise ValueError(f"where is a mask of {chosen.size} packets, but the batch holds {count}")
        # Of a copy: numpy must not see a mask change under its hands.
        return chosen.copy().nonzero()[0].astype(np.int32)
    if chosen.size > _SELECTION_MAX:
        raise ValueError(f"where selects {chosen.size} packets; one call sends {_SELECTION_MAX} at most")
    chosen = chosen.copy(order="C")
    outside = chosen[(chosen < 0) | (chosen >= count)]
    if outside.size:
        raise IndexError(f"where selects packet {outside[0]} of a batch that holds {count}, counted from 0")
    return chosen.astype(np.int32, copy=False)


class PacketBatch(_core.Slots):
    """Slots for packets, allocated once and used for every receive and send.

    Parameters
    ----------
    capacity : int
        Number of slots, at least 1.
    slot_size : int
        Bytes of the largest packet a slot holds.
    headroom : int, optional
        Bytes of free space in front of each packet, so that a tunnel can put its header there
        without moving the packet.

    Attributes
    ----------
    data : ndarray of uint8, shape (capacity, slot_size)
        Packet i is ``data[i, :lengths[i]]``.  After a receive the slots behind the last packet
        hold nothing of meaning.
    lengths : ndarray of int32, shape (capacity,)
        Bytes of each packet.
    buffer : ndarray of uint8, shape (capacity, headroom + slot_size)
        The same memory with the headroom in front of each packet.
    headers : ndarray of `tuntap.offload.HEADER`, shape (capacity,)
        What each packet is, of a device opened with ``offload="superpackets"``; all zero for an
        ordinary packet, and so after every other receive and after `fill`.

    Notes
    -----
    ``batch[i]`` is a view of one packet, ``batch[-1]`` of the last.  Of several there is no such thing as a
    view: ``batch.data[mask]`` is numpy's, and copies the slots whole.  To send some of the packets, in any
    order, no copy is needed: ``send_batch(batch, where=mask)``.
    """

    data: npt.NDArray[np.uint8]
    lengths: npt.NDArray[np.int32]
    buffer: npt.NDArray[np.uint8]
    headers: npt.NDArray[np.void]

    def __new__(cls, capacity: int, slot_size: int, headroom: int = 0) -> PacketBatch:
        capacity = parse_integer(capacity, "capacity", 1, 2**31 - 1)
        slot_size = parse_integer(slot_size, "slot_size", 1, 2**30 - 1)
        headroom = parse_integer(headroom, "headroom", 0, 2**30 - 1)
        stride = headroom + slot_size
        # One byte behind the last slot lets the core see a packet that does not fit it.
        memory = np.empty(capacity * stride + 1, np.uint8)
        return cls._make(memory, np.zeros(capacity, np.int32), slot_size, headroom)

    @classmethod
    def wrap(cls, data: Writable, lengths: Writable, headroom: int = 0) -> PacketBatch:
        """Use the caller's own arrays as slots, without a copy.

        Parameters
        ----------
        data : buffer of uint8, shape (capacity, headroom + slot_size)
            Writable and C-contiguous: a numpy array, a memoryview, shared memory.
        lengths : buffer of int32, shape (capacity,)
            Writable and C-contiguous.
        headroom : int, optional
            How many of the first bytes of each row are left free.

        Returns
        -------
        PacketBatch
            Its `count` is `capacity`, so that it can be sent as it is; a receive sets it anew.
        """
        try:
            shape = memoryview(data).shape  # type: ignore[arg-type]
        except (TypeError, ValueError, BufferError):
            raise TypeError(f"data must be an array of uint8, not {type(data).__name__}") from None
        if shape is None or len(shape) != 2:
            raise ValueError(f"data must have 2 dimensions (capacity, slot size), not shape {shape}")
        headroom = parse_integer(headroom, "headroom", 0, max(shape[1] - 1, 0))
        batch = cls._make(data, lengths, shape[1] - headroom, headroom)
        if batch.capacity != shape[0]:
            raise ValueError(f"data has {shape[0]} slots, but there are {batch.capacity} lengths")
        batch.count = batch.capacity
        return batch

    @classmethod
    def _make(cls, memory: Writable, lengths: Writable, slot_size: int, headroom: int) -> PacketBatch:
        headers = np.zeros(np.asarray(lengths).size, HEADER)
        batch = super().__new__(cls, memory, lengths, slot_size, headroom, headers)
        batch.headers = headers
        stride = headroom + slot_size
        flat = np.asarray(memory).reshape(-1)
        batch.buffer = flat[: batch.capacity * stride].reshape(batch.capacity, stride)
        batch.data = batch.buffer[:, headroom:]
        batch.lengths = np.asarray(lengths)
        return batch

    def __getitem__(self, index: int) -> npt.NDArray[np.uint8]:
        """Packet `index` as a view of its slot."""
        position, end = self._locate(index)
        return self.buffer[position, self.headroom : end]

    def __iter__(self) -> Iterator[npt.NDArray[np.uint8]]:
        """The packets as views, in order."""
        return (self[i] for i in range(self.count))

    def with_headroom(self, index: int, size: int) -> npt.NDArray[np.uint8]:
        """Packet `index` together with the last `size` bytes of the headroom in front of it."""
        size = parse_integer(size, "size", 0, self.headroom)
        position, end = self._locate(index)
        return self.buffer[position, self.headroom - size : end]

    def _select(self, where: npt.ArrayLike) -> bytes:
        """The numbers of the packets that a send is to take, as the core reads them."""
        return selection(where, self.count).tobytes()

    def columns(
        self,
        fields: Iterable[str] | None = None,
        *,
        out: Table | Mapping[str, npt.NDArray[Any]] | None = None,
        symmetric: bool = False,
        seed: int = 0,
    ) -> Table:
        """What the headers of the packets say, as a table with a row for each: one pass without the GIL.

        Whether there is an Ethernet header is `layer`'s matter.  Nothing is guessed: what a packet does not
        have, or has not whole, is 0, and `marks` (`tuntap.columns.Mark`) says so.

        Parameters
        ----------
        fields : iterable of str, optional
            Names of `tuntap.columns.DTYPE`; by default all, or those of `out`.  Only these are computed.
        out : structured ndarray, Columns, or mapping of str to ndarray, optional
            Where to put them, at least `count` rows: a structured array of some of the fields, each of its
            dtype in `tuntap.columns.DTYPE`; preallocated columns; or arrays by the name of the field.  Rows
            behind the last packet are left alone.
        symmetric : bool, optional
            Make `flow_hash` the same for both directions of a flow.
        seed : int, optional
            0 to 2**64 - 1.  Flow hashes of one seed are the same on every machine; who chooses packets so
            that their hashes meet has to know the seed.

        Returns
        -------
        structured ndarray, shape (count,), or Columns
            What was filled: an array of its own, the first rows of `out`, or the columns.

        Raises
        ------
        ValueError
            There is no such field, or `out` has too few rows.
        TypeError
            `out` is none of these, or one of its fields is not of the right dtype.

        Examples
        --------
        >>> import tuntap
        >>> batch = tuntap.PacketBatch(64, 1500)
        >>> _ = batch.fill([tuntap.testing.udp("10.0.0.1", "10.0.0.2", 53, 4000, b"x" * 100)])
        >>> table = batch.columns(["length", "src_port", "dst_port"])
        >>> table["src_port"].tolist(), table["length"].tolist()
        ([53], [128])
        """
        symmetric = parse_flag(symmetric, "symmetric")
        seed = parse_integer(seed, "seed", 0, 2**64 - 1)
        if out is None:
            out = np.empty(self.count, dtype_of(fields if fields is None else tuple(fields)))
        elif fields is not None:
            raise ValueError("fields are those of out: give one of the two")
        if isinstance(out, np.ndarray):
            count = self.count
            _columns.read_table(self, out, plan_of(out.dtype), symmetric, seed)
            return out[:count]
        if not isinstance(out, Columns):
            if not isinstance(out, Mapping):
                raise TypeError(f"out must be a structured array or columns, not {type(out).__name__}")
            out = Columns.wrap(out)
        _columns.read_columns(self, out._memory, symmetric, seed)
        return out

    def _locate(self, index: int) -> tuple[int, int]:
        """Row of a packet in `buffer`, and the column behind its last byte."""
        try:
            position = range(self.count)[operator.index(index)]
        except TypeError:
            raise TypeError(
                "a batch is indexed by one integer; slice batch.data and batch.lengths, or send what a mask or "
                "an index array selects with send_batch(batch, where=...), which copies nothing"
            ) from None
        except IndexError:
            raise IndexError(f"packet {index} of a batch that holds {self.count}") from None
        return position, self.headroom + max(int(self.lengths[position]), 0)

    def __repr__(self) -> str:
        return f"<PacketBatch of {self.count}/{self.capacity} packets, slots of {self.slot_size} bytes" + (
            f" after {self.headroom}>" if self.headroom else ">"
        )
