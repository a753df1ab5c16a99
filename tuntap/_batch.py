"""PacketBatch: preallocated slots, seen as numpy arrays."""

from __future__ import annotations

import errno
import operator
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tuntap import _columns, _core, interchange
from tuntap._config import parse_flag, parse_integer
from tuntap._memory import allocate
from tuntap.columns import Columns, Source, Table, check_fields, check_source, dtype_of, plan_of, rows_of

if TYPE_CHECKING:
    from tuntap._core import Readable, Writable

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

_LAYER_FRAMES = 2
_TAG_FIELDS = {"vlan", "vlan_priority"}
_FRAME_FIELDS = {"eth_src", "eth_dst", *_TAG_FIELDS}
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
        memory = allocate((capacity * stride + 1,))
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
        >>> from tuntap import PacketBatch, testing
        >>> batch = PacketBatch(64, 1500)
        >>> _ = batch.fill([testing.udp("10.0.0.1", "10.0.0.2", 53, 4000, b"x" * 100)])
        >>> table = batch.columns(["length", "src_port", "dst_port"])
        >>> table["src_port"].tolist(), table["length"].tolist()
        ([53], [128])
        """
        symmetric = parse_flag(symmetric, "symmetric")
        seed = parse_integer(seed, "seed", 0, 2**64 - 1)
        count = self.count  # once: another thread may be at the batch
        if out is None:
            out = np.empty(count, dtype_of(check_fields(fields)))
        elif fields is not None:
            raise ValueError("fields are those of out: give one of the two")
        if isinstance(out, np.ndarray):
            _columns.read_table(self, count, out, plan_of(out.dtype), symmetric, seed)
            return out[:count]
        if not isinstance(out, Columns):
            if not isinstance(out, Mapping):
                raise TypeError(f"out must be a structured array or columns, not {type(out).__name__}")
            out = Columns.wrap(out)
        out._fill(self, count, symmetric, seed)
        return out

    def fix_checksums(self, where: npt.ArrayLike | None = None) -> int:
        """Make the checksums of packets right after their bytes were changed: one pass without the GIL.

        That of the IPv4 header, and that of TCP, UDP, UDP-Lite, ICMP or ICMPv6 over all its bytes; one that a
        device finishes, as `headers` say, becomes what the device begins with.

        Parameters
        ----------
        where : array of bool, shape (count,), or of int, optional
            Which packets; all by default.

        Returns
        -------
        int
            Of how many these are right now.  The others have one that nobody can know or that is not made
            here, and which is as it was: of a fragment, SCTP or DCCP, a header that is not whole, a packet
            that was cut, one with an IPv6 routing header that is not done; or they are no IP packets.
        """
        return _columns.fix_batch(self, None if where is None else self._select(where))

    def update(
        self, columns: Source, fields: Iterable[str] | None = None, where: npt.ArrayLike | None = None
    ) -> int:
        """Write columns into the headers of packets, whose checksums follow: one pass without the GIL.

        The checksums are not made anew: they follow what changes (RFC 1624).  So a wrong one stays wrong, as
        the receiver has to see it, UDP without one stays without, one that a device finishes (`headers`)
        stays unfinished, a payload is not looked at, and the parts of a fragmented packet can be changed one
        by one.

        Parameters
        ----------
        columns : structured ndarray, or mapping of str to array or scalar
            Row i is that of packet i, and a scalar or an only row that of all: what `columns` has filled,
            changed; or arrays by the name of the field.  Addresses may be text or objects of `ipaddress`,
            too.
        fields : iterable of str, optional
            Which of the columns to write; all by default.  Possible are eth_src, eth_dst, vlan, vlan_priority
            (of frames that have them), dscp, ecn, flow_label, ip_id (of IPv4, 16 bits), ttl, src4, dst4,
            src6, dst6, src_port, dst_port, tcp_seq, tcp_ack, tcp_flags, tcp_window, icmp_id and icmp_seq (of
            echoes).
        where : array of bool, shape (count,), or of int, optional
            Which packets; all by default.

        Returns
        -------
        int
            How many packets have taken those of the fields that they have at all.  The others are as they
            were: they have a checksum that would have to follow, in a header that is not whole or of SCTP or
            DCCP.

        Raises
        ------
        ValueError
            A field cannot be written, a value does not fit it, or there are too few rows.
        TypeError
            A column is not of integers.
        """
        arrays = check_source(columns, _columns.UPDATABLE, "written into a packet", fields)
        wanted = 0
        for name in arrays:
            wanted |= _columns.UPDATABLE[name]
        chosen = None if where is None else self._select(where)
        return _columns.update_batch(self, rows_of(arrays, self.count)[1], wanted, chosen)

    def build(self, columns: Source, payload: Readable | None = None, *, count: int | None = None) -> int:
        """Make packets of columns, for load and for tests: one pass without the GIL.

        They are IPv4 or IPv6 packets without options, of TCP, UDP, ICMP (1), ICMPv6 (58) or any other
        protocol, which is then all payload; with `layer` 2 in an Ethernet frame, which has a VLAN tag if
        there is a column of it.  Lengths and checksums are right.

        Parameters
        ----------
        columns : structured ndarray, or mapping of str to array or scalar
            Fields of `tuntap.columns.DTYPE` as for `update`, and version (4 or 6; if missing, that of the
            addresses), protocol (never missing), ip_flags, icmp_type, icmp_code, payload_length.  What is
            missing is 0, `ttl` 64.
        payload : buffer of bytes, or ndarray of uint8, shape (rows, bytes), optional
            The same for all, or a row for each packet, of which `payload_length` bytes are taken, all by
            default.  Without it a payload is zeros.
        count : int, optional
            How many packets; by default as many as there are rows, 1 if everything is the same for all.

        Returns
        -------
        int
            How many; `count` afterwards.

        Raises
        ------
        ValueError, TypeError
            A column is none of these or does not fit, or a packet does not fit a slot or is too large for IP;
            the batch is empty then.

        Examples
        --------
        >>> import numpy as np, tuntap
        >>> batch = tuntap.PacketBatch(64, 1500)
        >>> ports = np.arange(4000, 4064)
        >>> batch.build({"src4": "10.0.0.1", "dst4": "10.0.0.2", "protocol": 17, "src_port": ports}, b"hello")
        64
        """
        self.count = 0
        arrays = check_source(columns, _columns.BUILDABLE, "built into a packet")
        room = None if payload is None else _payload_rows(payload)
        width = 0 if room is None else room.shape[1]
        if "protocol" not in arrays:
            raise ValueError("protocol is missing: 17 for UDP, 6 for TCP, 1 for ICMP, 58 for ICMPv6")
        if "version" not in arrays:
            versions = {
                4 if name.endswith("4") else 6 for name in ("src4", "dst4", "src6", "dst6") if name in arrays
            }
            if len(versions) != 1:
                raise ValueError("version is missing, and there are addresses of both or of none")
            arrays["version"] = np.array([versions.pop()], np.uint8)
        if self.layer != _LAYER_FRAMES and not arrays.keys().isdisjoint(_FRAME_FIELDS):
            raise ValueError("IP packets have no Ethernet header: set batch.layer to 2 for frames")
        arrays.setdefault("ttl", np.array([64], np.uint8))
        arrays.setdefault("payload_length", np.array([width], np.uint32))
        if count is not None:
            count = parse_integer(count, "count", 0, self.capacity)
        elif room is not None and room.shape[0] > 1 and all(len(array) == 1 for array in arrays.values()):
            count = room.shape[0]
        rows, memory = rows_of(arrays, count)
        if room is not None and room.shape[0] > 1:
            if room.shape[0] < rows:
                raise ValueError(f"the payload has {room.shape[0]} rows, and there are {rows} packets")
            room = room[:rows]
        if room is not None and np.may_share_memory(room, self.buffer):
            room = room.copy()
        failure = _columns.build_batch(self, memory, room, not arrays.keys().isdisjoint(_TAG_FIELDS))
        if failure:
            number, self.count = self.count, 0
            if -failure == errno.EINVAL:
                raise ValueError(f"packet {number}: version is neither 4 nor 6")
            raise ValueError(
                f"packet {number}: its payload_length is more than the {width} bytes of payload, or it is "
                f"more than the {self.slot_size} bytes of a slot or the 65535 of an IP packet"
            )
        return rows

    def _locate(self, index: int) -> tuple[int, int]:
        """Row of a packet in `buffer`, and the column behind its last byte."""
        try:
            position = range(self.count)[operator.index(index)]
        except TypeError:
            raise TypeError(
                "a batch is indexed by one integer; slice batch.data and batch.lengths, or send a part of it "
                "by a mask or an index array with send_batch(batch, where=...), which copies nothing"
            ) from None
        except IndexError:
            raise IndexError(f"packet {index} of a batch that holds {self.count}") from None
        return position, self.headroom + max(int(self.lengths[position]), 0)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """``numpy.asarray(batch)`` is `data`, the same memory."""
        return np.asarray(self.data, dtype) if copy is None else np.array(self.data, dtype, copy=copy)

    def __dlpack__(self, **options: object) -> object:
        """``torch.from_dlpack(batch)`` is `data`, the same memory."""
        return self.data.__dlpack__(**options)  # type: ignore[arg-type]

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.data.__dlpack_device__()

    def __arrow_c_array__(self, requested_schema: object = None) -> tuple[object, object]:
        """The packets for all that take Arrow's PyCapsule interface, such as ``pyarrow.array``."""
        array = interchange.packets_to_arrow(self)
        capsules: tuple[object, object] = array.__arrow_c_array__(requested_schema)
        return capsules

    def __repr__(self) -> str:
        return f"<PacketBatch of {self.count}/{self.capacity} packets, slots of {self.slot_size} bytes" + (
            f" after {self.headroom}>" if self.headroom else ">"
        )


def _payload_rows(payload: Readable) -> npt.NDArray[np.uint8]:
    """What a payload is, as an array of shape (1 or rows, bytes)."""
    if isinstance(payload, np.ndarray):
        if payload.dtype != np.uint8 or payload.ndim not in (1, 2):
            raise TypeError(
                f"a payload is bytes, or uint8 of shape (rows, bytes), not {payload.dtype} of {payload.shape}"
            )
        return np.ascontiguousarray(payload if payload.ndim == 2 else payload[np.newaxis])
    try:
        return np.asarray(memoryview(payload).cast("B"))[np.newaxis]
    except (TypeError, ValueError, BufferError):
        raise TypeError(f"a payload is bytes or an array of uint8, not {type(payload).__name__}") from None
