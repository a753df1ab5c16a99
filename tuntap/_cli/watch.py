"""Where `tuntap top` has packets from: an interface of its own or of another program, or a capture."""

from __future__ import annotations

import errno
import select
import socket
import stat
import struct
import sys
import time
from abc import ABC, abstractmethod
from os import fstat
from types import TracebackType
from typing import Any, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from tuntap import DeviceGoneError, PacketBatch, PrivilegeError, Tap, Tun, TunTapError
from tuntap.capture import Reader

_ALL_PROTOCOLS = 0x0003  # linux/if_ether.h: ETH_P_ALL
_SOL_PACKET = 263  # linux/socket.h
_PACKET_STATISTICS = 6  # linux/if_packet.h
_LARGE_BUFFER = 1 << 26  # bytes; the kernel gives what it allows

#: Bytes of each packet, and when they came, in nanoseconds since 1970.
Received: TypeAlias = "tuple[npt.NDArray[np.signedinteger[Any]], int | npt.NDArray[np.int64]]"


class Source(ABC):
    """Packets, and when they came."""

    #: What it is, for people.
    title: str

    @abstractmethod
    def receive(self, batch: PacketBatch, timeout: float) -> Received | None:
        """Fill a batch; None at the end.

        Raises
        ------
        TimeoutError
            Nothing came in time.
        """

    def missed(self) -> int:
        """How many packets were there and did not come, since the start."""
        return 0

    @abstractmethod
    def close(self) -> None:
        """Let go of what it has."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Attached(Source):
    """What the kernel sends to an interface, received as the program at its other end."""

    def __init__(self, device: Tun | Tap) -> None:
        self._device = device
        self.title = f"{device.name} ({type(device).__name__.upper()}), what the kernel sends to it"

    def receive(self, batch: PacketBatch, timeout: float) -> Received | None:
        """See `Source`."""
        try:
            count = self._device.recv_batch(batch, timeout)
        except DeviceGoneError as error:
            raise DeviceGoneError(error.errno, "the interface was deleted", error.filename) from None
        return batch.lengths[:count], time.time_ns()

    def close(self) -> None:
        """See `Source`."""
        self._device.close()


class Watched(Source):
    """What goes through an interface in both directions, while another program drives it (packet(7)).

    They are IP packets, of a TAP, too, and what is behind the Ethernet header of its other frames.
    """

    def __init__(self, name: str) -> None:
        self.title = f"{name}, watched"
        self._name, self._missed = name, 0
        self._index = socket.if_nametoindex(name)
        try:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        except PermissionError:
            advice = (
                "another program drives it, and to watch it takes CAP_NET_RAW: run as root, or give the "
                "interpreter the capability (`setcap cap_net_raw+ep`)"
            )
            raise PrivilegeError(errno.EPERM, advice, name) from None
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _LARGE_BUFFER)
            self._socket.bind((name, _ALL_PROTOCOLS))
            self._tun = Tun.from_fd(self._socket.fileno(), owned=False)
        except BaseException:
            self._socket.close()
            raise

    def receive(self, batch: PacketBatch, timeout: float) -> Received | None:
        """See `Source`."""
        try:
            count = self._tun.recv_batch(batch, timeout)
        except TimeoutError:
            self._must_be_there()
            raise
        except TunTapError as error:
            if error.errno != errno.ENETDOWN:
                raise
            self._must_be_there()
            return batch.lengths[:0], 0  # it is down, and may come up again
        return batch.lengths[:count], time.time_ns()

    def _must_be_there(self) -> None:
        try:
            socket.if_indextoname(self._index)
        except OSError:
            raise DeviceGoneError(errno.ENODEV, "the interface was deleted", self._name) from None

    def missed(self) -> int:
        """See `Source`: those for which the kernel had no room."""
        statistics = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        self._missed += struct.unpack("=II", statistics)[1]  # since it was asked last
        return self._missed

    def close(self) -> None:
        """See `Source`."""
        self._tun.close()
        self._socket.close()


def can_watch() -> bool:
    """Whether this system has packet sockets."""
    return hasattr(socket, "AF_PACKET")


class Captured(Source):
    """The packets of a capture."""

    def __init__(self, path: str) -> None:
        self.title = "standard input" if path == "-" else path
        self._file = open(sys.stdin.fileno() if path == "-" else path, "rb", buffering=0, closefd=path != "-")
        #: Whether all of it is there already, so that its own times are what counts.
        self.is_recorded = stat.S_ISREG(fstat(self._file.fileno()).st_mode)
        self._reader: Reader | None = None
        self._has_more = False

    def receive(self, batch: PacketBatch, timeout: float) -> Received | None:
        """See `Source`."""
        # A batch that was filled may have left something that is read already.
        may_wait = not self.is_recorded and not self._has_more
        if may_wait and not select.select([self._file], [], [], timeout)[0]:
            raise TimeoutError
        if self._reader is None:
            self._reader = Reader(self._file)
        count = self._reader.read_into(batch)
        self._has_more = count == batch.capacity
        if count == 0:
            return None
        times = self._reader.timestamps[:count] if self.is_recorded else time.time_ns()
        return self._reader.original_lengths[:count], times

    def close(self) -> None:
        """See `Source`."""
        self._file.close()
