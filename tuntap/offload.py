"""The packet kernels, for use without a device: the Internet checksum and the virtio-net header."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tuntap import _core
from tuntap._config import parse_integer

if TYPE_CHECKING:
    from tuntap._core import Readable

__all__ = ["HEADER", "checksum"]

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
