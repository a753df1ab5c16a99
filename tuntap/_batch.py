"""PacketBatch: preallocated slots, seen as numpy arrays."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tuntap import _core
from tuntap._config import parse_integer

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

    def _locate(self, index: int) -> tuple[int, int]:
        """Row of a packet in `buffer`, and the column behind its last byte."""
        try:
            position = range(self.count)[operator.index(index)]
        except TypeError:
            raise TypeError("a batch is indexed by one integer; slice batch.data and batch.lengths") from None
        except IndexError:
            raise IndexError(f"packet {index} of a batch that holds {self.count}") from None
        return position, self.headroom + max(int(self.lengths[position]), 0)

    def __repr__(self) -> str:
        return f"<PacketBatch of {self.count}/{self.capacity} packets, slots of {self.slot_size} bytes" + (
            f" after {self.headroom}>" if self.headroom else ">"
        )
