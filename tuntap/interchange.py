"""Packets, and what their headers say, for pyarrow, pandas and polars: imported where they are asked for.

Unless ``copy=True`` asks for a copy, the result shares the memory of the columns and of the batch where its
library can: it keeps that memory alive, and shows what the next receive puts there.  What takes DLPack
(torch, JAX) needs no function of this module: `tuntap.PacketBatch` and numpy's arrays have it themselves.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tuntap._config import parse_flag, parse_integer

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

    from tuntap._batch import PacketBatch

__all__ = ["from_arrow", "packets_to_arrow", "to_arrow", "to_pandas", "to_polars"]

Table = npt.NDArray[np.void] | Mapping[str, npt.NDArray[Any]]

# A value of Arrow's binary_view is 16 bytes: its length, and then its bytes if they are so few, or the first
# four of them, the number of a buffer, and an offset in it (Arrow columnar format, binary view layout).
INLINE = 12
OFFSET_END = 2**31


def to_arrow(
    table: Table, count: int | None = None, *, packets: PacketBatch | None = None, copy: bool = False
) -> pyarrow.RecordBatch:
    """A table of `PacketBatch.columns` as an Arrow record batch.

    Contiguous arrays, such as those of `tuntap.columns.Columns`, are shared.  Arrow has no strides, so that
    the fields of a structured array are copied, each in one piece.

    Parameters
    ----------
    table : Columns, structured ndarray, or mapping of str to ndarray
        What `PacketBatch.columns` returns, or arrays by their names.
    count : int, optional
        How many of the first rows; by default all of an array, and of `Columns` its `count`.
    packets : PacketBatch, optional
        Whose packets become the column ``packet``, as by `packets_to_arrow`; there must be one for each row.
    copy : bool, optional
        Share nothing.

    Returns
    -------
    pyarrow.RecordBatch
        An unsigned integer has its type in Arrow, an IPv6 address is ``fixed_size_binary(16)``.

    Raises
    ------
    ValueError
        There are fewer rows than `count`, or not as many as packets.
    TypeError
        `table` is no such thing.
    ModuleNotFoundError
        pyarrow is not installed.

    Examples
    --------
    >>> import tuntap, tuntap.testing
    >>> batch = tuntap.PacketBatch(64, 1500)
    >>> _ = batch.fill([tuntap.testing.udp("10.0.0.1", "10.0.0.2", 53, 4000, b"x" * 100)])
    >>> columns = tuntap.columns.Columns(batch.capacity, ["length", "src_port"])
    >>> tuntap.interchange.to_arrow(batch.columns(out=columns)).to_pydict()
    {'length': [128], 'src_port': [53]}
    """
    pa = load("pyarrow")
    rows = rows_of(table, count, packets)
    columns = {name: arrow_array(pa, array) for name, array in arrays_of(table, rows, copy).items()}
    if packets is not None:
        columns["packet"] = packets_to_arrow(packets, rows, copy=copy)
    return pa.record_batch(list(columns.values()), names=list(columns))


def packets_to_arrow(
    batch: PacketBatch, count: int | None = None, *, copy: bool = False
) -> pyarrow.BinaryViewArray | pyarrow.LargeBinaryArray:
    """The packets of a batch as an Arrow array that points into the slots.

    Arrow wants 16 bytes for each packet, which are made here: its length, and its first 4 bytes or, up to 12,
    all of them.  These stay as they are when the slots change, and so the array is of no use after that.

    Parameters
    ----------
    batch : PacketBatch
        Of any headroom, on memory of its own or of the caller's.
    count : int, optional
        How many of the first packets, by default all.
    copy : bool, optional
        Copy the packets, one behind the other, in place of sharing the slots.

    Returns
    -------
    pyarrow.BinaryViewArray, or with copy=True pyarrow.LargeBinaryArray
        Of the former pyarrow itself does not yet select rows (`filter`, `take`); of the latter it does.
    """
    pa = load("pyarrow")
    count = batch.count if count is None else parse_integer(count, "count", 0, batch.count)
    # The array is the caller's, and may say anything.
    lengths = np.clip(batch.lengths[:count], 0, batch.slot_size)
    stride = batch.headroom + batch.slot_size
    slots_per_buffer = max(OFFSET_END // stride, 1)

    views = np.zeros((count, 4), np.int32)
    views[:, 0] = lengths
    start = views.view(np.uint8)[:, 4:]
    width = min(INLINE, batch.slot_size)
    start[:, :width] = batch.data[:count, :width]
    start[np.arange(INLINE) >= lengths[:, np.newaxis]] = 0
    apart = np.flatnonzero(lengths > INLINE)
    views[apart, 2] = apart // slots_per_buffer
    views[apart, 3] = apart % slots_per_buffer * stride + batch.headroom

    slots = batch.buffer[:count]
    memory = [slots[i : i + slots_per_buffer] for i in range(0, count, slots_per_buffer)]
    array = pa.Array.from_buffers(pa.binary_view(), count, [None, *map(pa.py_buffer, [views, *memory])])
    return array.cast(pa.large_binary()) if parse_flag(copy, "copy") else array


def from_arrow(packets: object, batch: PacketBatch) -> int:
    """Copy the packets of an Arrow array into a batch, as `PacketBatch.fill` does.

    Parameters
    ----------
    packets : pyarrow.Array, pyarrow.ChunkedArray, or anything that Arrow's PyCapsule interface takes
        Of binary values, of any of the types for them: of a column of a record batch, or a series of polars.
    batch : PacketBatch
        Packets of 1 to `slot_size` bytes each fit, at most `capacity` of them.

    Returns
    -------
    int
        How many; `batch.count` afterwards.

    Raises
    ------
    ValueError
        A packet is empty or too large, or there are too many; the batch is empty then.
    TypeError
        There are values that are null or not binary; likewise.
    """
    pa = load("pyarrow")
    values = pa.chunked_array(packets if hasattr(packets, "__arrow_c_stream__") else [pa.array(packets)])
    # One that does not fit any more is enough to be refused.
    return batch.fill(values.slice(0, batch.capacity + 1).to_pylist())


def to_pandas(
    table: Table, count: int | None = None, *, packets: PacketBatch | None = None, copy: bool = False
) -> pandas.DataFrame:
    """A table of `PacketBatch.columns` as a frame of pandas.

    Numbers are shared, of a structured array too.  IPv6 addresses and packets are copied: pandas has no type
    for them, and each becomes an object of type bytes.

    Parameters
    ----------
    table, count, packets, copy
        As of `to_arrow`.
    """
    pd = load("pandas")
    rows = rows_of(table, count, packets)
    columns: dict[str, object] = {}
    for name, array in arrays_of(table, rows, copy).items():
        columns[name] = array if array.ndim == 1 else [address.tobytes() for address in array]
    if packets is not None:
        columns["packet"] = [packets[i].tobytes() for i in range(rows)]
    return pd.DataFrame(columns, copy=False)


def to_polars(
    table: Table, count: int | None = None, *, packets: PacketBatch | None = None, copy: bool = False
) -> polars.DataFrame:
    """A table of `PacketBatch.columns` as a frame of polars, by way of Arrow: what that shares is shared.

    IPv6 addresses are copied: polars has ``Binary``, which is not of a fixed size.

    Parameters
    ----------
    table, count, packets, copy
        As of `to_arrow`.
    """
    pl = load("polars")
    return pl.from_arrow(to_arrow(table, count, packets=packets, copy=copy))


def rows_of(table: Table, count: int | None, packets: PacketBatch | None) -> int:
    """How many rows are wanted, all of which there are."""
    if isinstance(table, np.ndarray):
        if table.dtype.names is None or table.ndim != 1:
            raise TypeError(f"a table has 1 dimension and fields, not {table.ndim} of {table.dtype}")
        rows = capacity = len(table)
    elif isinstance(table, Mapping):
        capacity = min(map(len, table.values()), default=0)
        rows = getattr(table, "count", capacity)
    else:
        raise TypeError(f"a table is a structured array or columns, not {type(table).__name__}")
    if count is not None:
        rows = parse_integer(count, "count", 0, capacity)
    if packets is not None and (packets.count < rows or (count is None and packets.count > rows)):
        raise ValueError(f"the table has {rows} rows, the batch {packets.count} packets")
    return rows


def arrays_of(table: Table, rows: int, copy: bool) -> dict[str, npt.NDArray[Any]]:
    """The first rows of each column."""
    copy = parse_flag(copy, "copy")
    names = table.dtype.names or () if isinstance(table, np.ndarray) else table
    arrays = {name: np.asarray(table[name])[:rows] for name in names}
    for name, array in arrays.items():
        if array.ndim != 1 and (array.ndim != 2 or array.dtype != np.uint8):
            raise TypeError(f"column {name!r} is neither numbers nor addresses: {array.dtype}, {array.shape}")
    return {name: array.copy() for name, array in arrays.items()} if copy else arrays


def arrow_array(pa: ModuleType, array: npt.NDArray[Any]) -> pyarrow.Array:
    """A column as Arrow has it, the same memory if that lies together."""
    array = np.require(array, requirements=["C", "A"])
    if array.ndim == 1:
        return pa.array(array)
    return pa.Array.from_buffers(pa.binary(array.shape[1]), len(array), [None, pa.py_buffer(array)])


def load(library: str) -> ModuleType:
    try:
        return importlib.import_module(library)
    except ModuleNotFoundError as error:
        if error.name != library:
            raise
        extra = "arrow" if library == "pyarrow" else library
        message = f"{library} is not installed: pip install 'tuntap[{extra}]'"
        raise ModuleNotFoundError(message, name=library) from None
