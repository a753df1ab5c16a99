"""What the headers of a batch's packets say, as columns: see `PacketBatch.columns`."""

from __future__ import annotations

import enum
import functools
import ipaddress
import operator
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tuntap import _columns, _core, interchange
from tuntap._config import parse_any_mac, parse_integer
from tuntap._memory import allocate

__all__ = ["DTYPE", "FIVE_TUPLE", "Columns", "Mark", "addresses"]

_SUBARRAYS = {"16u1": (np.uint8, 16)}

#: Every field there is: the dtype of what `PacketBatch.columns` returns unless told otherwise.
DTYPE = np.dtype(
    {
        "names": [name for name, _, _ in _columns.FIELDS],
        "formats": [_SUBARRAYS.get(kind, kind) for _, kind, _ in _columns.FIELDS],
        "offsets": [offset for _, _, offset in _columns.FIELDS],
        "itemsize": _columns.ROW_SIZE,
    }
)

#: The fields that tell one flow from another.
FIVE_TUPLE = ("protocol", "src4", "dst4", "src6", "dst6", "src_port", "dst_port")


class Mark(enum.IntFlag):
    """The bits of the field `marks`: what is known of a packet.

    A field says something only where its mark is there; everything else is 0.
    """

    #: There is an IPv4 or IPv6 header, whole and no contradiction in itself.
    IP = _columns.MARKS["IP"]
    #: Behind it there is one of TCP, UDP, UDP-Lite, SCTP, DCCP, ICMP or ICMPv6, likewise.
    TRANSPORT = _columns.MARKS["TRANSPORT"]
    #: It is a part of an IP packet; only the first has a transport header.
    FRAGMENT = _columns.MARKS["FRAGMENT"]
    #: There are IPv4 options or IPv6 extension headers, which were passed over.
    OPTIONS = _columns.MARKS["OPTIONS"]
    #: It is shorter than a header says, or than a header.
    TRUNCATED = _columns.MARKS["TRUNCATED"]
    #: A header contradicts itself or the packet it is in; nothing behind that is known.
    MALFORMED = _columns.MARKS["MALFORMED"]
    #: The frame has a VLAN tag.
    VLAN = _columns.MARKS["VLAN"]
    #: There are bytes behind the end of the IP packet, as short Ethernet frames have.
    PADDED = _columns.MARKS["PADDED"]

    @classmethod
    def _missing_(cls, value: object) -> Mark:
        """Those of a number that numpy made."""
        return super()._missing_(operator.index(value))  # type: ignore[no-any-return, arg-type]


class Columns(Mapping[str, npt.NDArray[Any]]):
    """Preallocated columns: one contiguous array for each field, filled again and again.

    The arrays are the same for ever, so that what is made of them without a copy (pandas, Arrow, torch)
    shows what the last ``batch.columns(out=columns)`` has filled in.

    Parameters
    ----------
    capacity : int
        Number of rows.
    fields : iterable of str, optional
        Names of `DTYPE`; all by default.
    """

    def __init__(self, capacity: int, fields: Iterable[str] | None = None) -> None:
        capacity = parse_integer(capacity, "capacity", 0, 2**31 - 1)
        names = check_fields(fields)
        self._hold({name: allocate((capacity, *DTYPE[name].shape), DTYPE[name].base) for name in names})
        self._count = 0

    @classmethod
    def wrap(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Columns:
        """Use the caller's own arrays, without a copy.

        Parameters
        ----------
        arrays : mapping of str to ndarray
            Writable, of the field's dtype in `DTYPE`, and of shape (rows,), or (rows, 16) for an IPv6
            address; rows may lie apart (strides).

        Raises
        ------
        TypeError, ValueError
            An array is not of the field's dtype or shape, or read-only, or there is no such field.
        """
        for name, array in arrays.items():
            check_fields([name])
            if not isinstance(array, np.ndarray) or array.dtype != DTYPE[name].base:
                given = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
                raise TypeError(f"column {name!r} must be an array of dtype {DTYPE[name].base}, not {given}")
            if array.ndim != 1 + len(DTYPE[name].shape) or array.shape[1:] != DTYPE[name].shape:
                wanted = ("rows", *map(str, DTYPE[name].shape))
                raise ValueError(f"column {name!r} must be of shape ({', '.join(wanted)}), not {array.shape}")
            if not array.flags.writeable:
                raise ValueError(f"column {name!r} is read-only")
            if array.ndim == 2 and array.strides[1] != 1:
                raise ValueError(f"column {name!r}: the 16 bytes of an address must lie together")
        self = cls.__new__(cls)
        self._hold(dict(arrays))
        return self

    def _hold(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        self._arrays = arrays
        self._memory = _columns.ColumnMemory(arrays)
        self._count = self.capacity

    @property
    def capacity(self) -> int:
        """int: Number of rows."""
        return self._memory.capacity

    @property
    def count(self) -> int:
        """int: How many of the rows were filled last; before that none, or all of arrays of the caller's."""
        return self._count

    def _fill(self, batch: _core.Slots, count: int, symmetric: bool, seed: int) -> None:
        _columns.read_columns(batch, count, self._memory, symmetric, seed)
        self._count = count

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __arrow_c_array__(self, requested_schema: object = None) -> tuple[object, object]:
        """The filled rows for all that take Arrow's PyCapsule interface, such as ``pyarrow.record_batch``."""
        capsules: tuple[object, object] = interchange.to_arrow(self).__arrow_c_array__(requested_schema)
        return capsules

    def __repr__(self) -> str:
        return f"<Columns of {self.capacity} rows: {', '.join(self)}>"


#: What `PacketBatch.columns` fills.
Table: TypeAlias = "npt.NDArray[np.void] | Columns"


def addresses(
    column: npt.NDArray[np.unsignedinteger[Any]],
) -> list[ipaddress.IPv4Address] | list[ipaddress.IPv6Address]:
    """The addresses of a column as objects of `ipaddress`, for people to read.

    Parameters
    ----------
    column : ndarray of uint32, shape (n,), or of uint8, shape (n, 16)
        Such as `src4`, or such as `src6`.
    """
    column = np.asarray(column)
    if column.dtype == np.uint32 and column.ndim == 1:
        return list(map(ipaddress.IPv4Address, column.tolist()))
    if column.dtype == np.uint8 and column.ndim == 2 and column.shape[1] == 16:
        return [ipaddress.IPv6Address(row.tobytes()) for row in column]
    raise TypeError(f"addresses are uint32 or 16 bytes each, not {column.dtype} of shape {column.shape}")


def check_fields(fields: Iterable[str] | None) -> tuple[str, ...]:
    """Names of fields, in the order in which they are asked for."""
    if fields is None:
        return tuple(DTYPE.names or ())
    if isinstance(fields, str):
        raise TypeError(f"fields is several names, such as [{fields!r}], not one")
    names = tuple(fields)
    for name in names:
        if name not in (DTYPE.fields or {}):
            raise ValueError(f"no field {name!r}; there are {', '.join(DTYPE.names or ())}")
    if len(set(names)) != len(names):
        raise ValueError("a field is asked for twice")
    return names


@functools.lru_cache(256)
def dtype_of(names: tuple[str, ...]) -> np.dtype[np.void]:
    """The dtype of a table of some of the fields, next to each other."""
    return DTYPE if names == DTYPE.names else np.dtype([(name, DTYPE[name]) for name in names], align=True)


@functools.lru_cache(256)
def plan_of(dtype: np.dtype[np.void]) -> _columns.Plan:
    """How a table of this dtype is filled; a TypeError if it is none."""
    if dtype.fields is None:
        raise TypeError(f"out must be a structured array, not one of dtype {dtype}")
    names = check_fields(dtype.names)
    for name in names:
        if dtype[name] != DTYPE[name]:
            raise TypeError(f"field {name!r} must be of dtype {DTYPE[name]}, not {dtype[name]}")
    return _columns.Plan({name: dtype.fields[name][1] for name in names}, dtype.itemsize)


# --- from what a caller has to packets ---

# Fields of fewer bits than their dtype has.
_BITS = {
    "eth_src": 48, "eth_dst": 48, "vlan": 12, "vlan_priority": 3, "dscp": 6, "ecn": 2, "flow_label": 20,
    "ip_flags": 3, "tcp_flags": 12,
}  # fmt: skip
_KINDS = {
    name: (DTYPE[name].base, DTYPE[name].shape, 2 ** _BITS.get(name, 8 * DTYPE[name].base.itemsize) - 1)
    for name in DTYPE.names or ()
}

#: Arrays and what stands for the same value in every row, by the name of the field.
Source: TypeAlias = "npt.NDArray[np.void] | Mapping[str, Any]"


def check_source(
    source: Source, allowed: Collection[str], what: str, fields: Iterable[str] | None = None
) -> dict[str, npt.NDArray[Any]]:
    """What a caller has given as arrays of the fields' dtypes, with a row for all or for each packet.

    Parameters
    ----------
    source : structured ndarray or mapping
        What `PacketBatch.update` and `PacketBatch.build` take.
    allowed : collection of str
        Fields that there may be.
    what : str
        What is done with them, for messages.
    fields : iterable of str, optional
        Those that are meant; all by default.
    """
    if isinstance(source, np.ndarray):
        if source.dtype.names is None or source.ndim != 1:
            raise TypeError(f"columns must be a structured array or arrays by name, not {source.dtype}")
        names: Iterable[str] = source.dtype.names
    elif isinstance(source, Mapping):
        names = source
    else:
        raise TypeError(f"columns must be a structured array or arrays by name, not {type(source).__name__}")
    wanted = check_fields(names if fields is None else fields)
    for name in wanted:
        if name not in allowed:
            possible = ", ".join(field for field in DTYPE.names or () if field in allowed)
            raise ValueError(f"{name!r} cannot be {what}; what can is {possible}")
        if name not in names:
            raise ValueError(f"{name!r} is not among the columns")
    count = source.count if isinstance(source, Columns) else None
    return {name: _values(name, source[name] if count is None else source[name][:count]) for name in wanted}


def _values(name: str, value: Any) -> npt.NDArray[Any]:  # noqa: ANN401 - whatever the caller has
    """Of one row, or of one for each packet, in the field's own dtype and with no value changed by that."""
    dtype, inner, largest = _KINDS[name]
    if isinstance(value, list | tuple) and not value:
        return np.empty((0, *inner), dtype)
    if not isinstance(value, np.ndarray):
        value = _addresses_as_numbers(name, value)
        if type(value) is int and not inner:
            if not 0 <= value <= largest:
                raise ValueError(f"column {name!r}: {value} is not 0 to {largest}")
            return np.array([value], dtype)
        value = np.asarray(value)
    if value.dtype.kind not in "biu":
        raise TypeError(f"column {name!r} must be of integers, not {value.dtype}")
    if value.shape[value.ndim - len(inner) :] != inner or value.ndim - len(inner) not in (0, 1):
        wanted = ("rows", *map(str, inner))
        raise ValueError(f"column {name!r} must be of shape ({', '.join(wanted)}), not {value.shape}")
    may_exceed = value.dtype != dtype or name in _BITS
    if may_exceed and value.size and not (value.min() >= 0 and value.max() <= largest):
        raise ValueError(f"column {name!r}: a value is not 0 to {largest}")
    array: npt.NDArray[Any] = value.astype(dtype, copy=False)
    if inner and array.strides[-1] != 1:
        array = np.ascontiguousarray(array)
    return array if array.ndim > len(inner) else array[np.newaxis]


def _addresses_as_numbers(name: str, value: Any) -> Any:  # noqa: ANN401
    """What is written as text, or an object of `ipaddress`, one or a list of them; anything else as it is."""
    if isinstance(value, list | tuple):
        return [_addresses_as_numbers(name, one) for one in value]
    if name in ("src4", "dst4") and isinstance(value, str | ipaddress.IPv4Address):
        return int(ipaddress.IPv4Address(value))
    if name in ("src6", "dst6") and isinstance(value, str | ipaddress.IPv6Address):
        return np.frombuffer(ipaddress.IPv6Address(value).packed, np.uint8)
    if name in ("eth_src", "eth_dst") and isinstance(value, str):
        return int.from_bytes(parse_any_mac(value), "big")
    return value


def rows_of(
    arrays: dict[str, npt.NDArray[Any]], count: int | None = None
) -> tuple[int, _columns.ColumnMemory]:
    """How many rows there are, and all of them; what has one is the same in all."""
    lengths = {len(array) for array in arrays.values() if len(array) != 1}
    if count is None:
        count = lengths.pop() if len(lengths) == 1 else 1
        lengths.discard(count)
    elif all(length >= count for length in lengths):
        lengths.clear()
    if lengths:
        given = {name: len(array) for name, array in arrays.items()}
        raise ValueError(f"columns of different lengths, or too few rows for {count} packets: {given}")
    return count, _columns.ColumnMemory(arrays, count)
