"""The packet kernels, for use without a device: the Internet checksum, splitting and coalescing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from tuntap import _core
from tuntap._batch import HEADER, PacketBatch
from tuntap._config import parse_flag, parse_integer

if TYPE_CHECKING:
    from tuntap._core import Readable

__all__ = ["HEADER", "checksum", "coalesce", "coalesce_into", "split", "split_into"]

#: A virtio-net header as it is written: an element or a 0-d or 1-element array of `HEADER`, or 10 bytes.
Header: TypeAlias = "np.void | npt.NDArray[np.void] | Readable"

_WINDOW = 256  # packets that are looked at together
_SUPER_PACKET = 65535


def checksum(data: Readable, initial: int = 0) -> int:
    """The Internet checksum (RFC 1071).

    Parameters
    ----------
    data : buffer
        Contiguous bytes; an odd last byte is padded with zero.
    initial : int, optional
        Sum to begin with, for example of the pseudo-header (not complemented), 0 to 2**64 - 1.

    Returns
    -------
    int
        The complement of the ones' complement sum: what the checksum field takes.  Over data
        that holds a right checksum it is 0.
    """
    return _core.checksum(data, parse_integer(initial, "initial", 0, 2**64 - 1))


def split(packet: Readable, header: Header) -> list[bytes]:
    """The packets that the kernel would have made of a super-packet.

    Parameters
    ----------
    packet : buffer
        One IP packet of up to 65535 bytes.
    header : HEADER element, 0-d or 1-element array, or buffer of 10 bytes
        What it is: ``batch.headers[i]`` of a device opened with ``offload="superpackets"``.
        `hdr_len` is a hint, and ignored.

    Returns
    -------
    list of bytes
        IP packets with valid checksums, byte for byte those of Linux (tcp_gso_segment,
        __udp_gso_segment).  A packet that is no super-packet comes alone, its checksum completed if
        the header asks for it.

    Raises
    ------
    PacketError
        The packet and the header do not fit together.
    ValueError
        The packet or the header has an impossible size.
    """
    return _core.split(packet, _header_bytes(header))


def split_into(packet: Readable, header: Header, batch: PacketBatch) -> int:
    """The same as `split`, into the slots of a batch.

    Returns
    -------
    int
        How many packets; `batch.count` afterwards.

    Raises
    ------
    PacketError, ValueError
        As for `split`; also when the packets do not fit the batch, which is empty then.
    """
    return _core.split_into(packet, _header_bytes(header), batch)


def coalesce(packets: Iterable[Readable], udp: bool = True) -> list[tuple[np.void, bytes]]:
    """Make super-packets of packets, as far as the kernel's GRO would.

    TCP segments and UDP datagrams of one flow that follow one another and are alike are merged,
    so that `split` gives back the very same bytes.  Flows may overtake one another; the packets of
    one flow keep their order.

    Parameters
    ----------
    packets : iterable of buffer
        IP packets of 1 to 65535 bytes; 256 at a time are looked at together.
    udp : bool, optional
        Whether UDP is merged too.

    Returns
    -------
    list of (HEADER element, bytes)
        Each with the virtio-net header it is to be written with; all zero, and the packet
        unchanged, where nothing was merged.
    """
    found = list(packets)
    made: list[tuple[np.void, bytes]] = []
    for start in range(0, len(found), _WINDOW):
        few = found[start : start + _WINDOW]
        batch = PacketBatch(len(few), max(1, *(memoryview(p).nbytes for p in few)))  # type: ignore[arg-type]
        batch.fill(few)
        into = PacketBatch(len(few), _SUPER_PACKET)
        coalesce_into(batch, into, udp)
        made += [(into.headers[i].copy(), into[i].tobytes()) for i in range(into.count)]
    return made


def coalesce_into(batch: PacketBatch, into: PacketBatch, udp: bool = True) -> int:
    """The same as `coalesce`, from the packets of a batch into the slots of another.

    Parameters
    ----------
    batch : PacketBatch
        Its first `batch.count` packets.
    into : PacketBatch
        At least as many slots, of at least 65535 bytes each; its `headers` are filled too.
    udp : bool, optional
        Whether UDP is merged too.

    Returns
    -------
    int
        How many super-packets and packets were made; `into.count` afterwards.
    """
    return _core.coalesce_into(batch, into, parse_flag(udp, "udp"))


def _header_bytes(header: Header) -> bytes:
    if isinstance(header, (np.void, np.ndarray)) and header.dtype != np.uint8:
        if header.dtype != HEADER or header.size != 1:
            raise TypeError(f"a header is one element of dtype HEADER, not {header!r}")
        return header.tobytes()
    try:
        return bytes(memoryview(header))  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(
            f"a header is an element of HEADER or 10 bytes, not {type(header).__name__}"
        ) from None
