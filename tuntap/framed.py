"""Packets as objects: a codec between a device and a program.

`Framed` receives and sends objects; a codec of the program's own says how they are written as packets.  Its
halves, `FramedReader` and `FramedWriter`, may be had alone and used from a thread each, one thread at a time.
The same for event loops is in `tuntap.aio`.
"""

from __future__ import annotations

import errno
import operator
from collections.abc import Iterator
from typing import TYPE_CHECKING, Generic, Protocol, Self, TypeVar

import numpy as np

from tuntap import _core
from tuntap._deadline import Deadline
from tuntap._errors import ClosedError, PacketError

if TYPE_CHECKING:
    import numpy.typing as npt

    from tuntap._core import Event, Readable
    from tuntap._device import Queue

__all__ = ["BytesCodec", "Codec", "Decoder", "Encoder", "Framed", "FramedReader", "FramedWriter"]

_T = TypeVar("_T")
_Decoded = TypeVar("_Decoded", covariant=True)
_Encoded = TypeVar("_Encoded", contravariant=True)


class Decoder(Protocol[_Decoded]):
    """Makes objects of packets."""

    def decode(self, packet: npt.NDArray[np.uint8]) -> _Decoded | None:
        """The object a packet stands for; None passes it over.

        Parameters
        ----------
        packet : ndarray of uint8, shape (length,)
            A view of a slot that the next packets are received into: copy what is to stay.
        """


class Encoder(Protocol[_Encoded]):
    """Writes objects as packets."""

    def encode(self, item: _Encoded, slot: npt.NDArray[np.uint8]) -> int:
        """Write an object into a slot.

        Parameters
        ----------
        item
            What to send.
        slot : ndarray of uint8, shape (slot_size,)
            Where its packet goes, from the first byte on.

        Returns
        -------
        int
            Bytes of the packet; 0 sends nothing.
        """


class Codec(Decoder[_T], Encoder[_T], Protocol[_T]):
    """Both."""


class BytesCodec:
    """The codec of programs that want bytes: a packet is its bytes."""

    def decode(self, packet: npt.NDArray[np.uint8]) -> bytes:
        return packet.tobytes()

    def encode(self, item: Readable, slot: npt.NDArray[np.uint8]) -> int:
        memory = memoryview(item)  # type: ignore[arg-type]
        if not memory.c_contiguous:
            raise ValueError("a packet must be contiguous bytes, not a strided view")
        packet = np.frombuffer(memory, np.uint8)
        if packet.size > slot.size:
            raise ValueError(f"a packet of {packet.size} bytes does not fit a slot of {slot.size}")
        slot[: packet.size] = packet
        return packet.size


class Reading(Generic[_T]):
    """What was received and is not yet decoded."""

    def __init__(self, device: Queue, decoder: Decoder[_T], capacity: int = 64) -> None:
        self._device = device
        self._decoder = decoder
        self._batch = device.batch(capacity)
        self._next = 0

    @property
    def pending(self) -> int:
        """int: Packets that were received and wait to be decoded."""
        return self._batch.count - self._next

    def _decoded(self) -> _T | None:
        """The next object there is; a packet that its decoder fails at is gone."""
        while self._next < self._batch.count:
            position = self._next
            self._next += 1
            if position in self._batch.truncated:
                size = self._batch.slot_size
                raise PacketError(
                    errno.EMSGSIZE, f"a packet does not fit the slots of {size} bytes, made for a lower MTU"
                )
            packet = self._batch[position]
            item = self._decoder.decode(packet)
            if item is not None:
                return item
        self._next = self._batch.count = 0
        return None


class Writing(Generic[_T]):
    """What was encoded and is not yet sent."""

    def __init__(self, device: Queue, encoder: Encoder[_T], capacity: int = 64) -> None:
        self._device = device
        self._encoder = encoder
        self._batch = device.batch(capacity)
        self._sent = 0
        self._largest = min(self._batch.slot_size, _core.PACKET_MAX + 4 * device._packet_information)

    @property
    def pending(self) -> int:
        """int: Packets that were fed and wait to be sent."""
        return self._batch.count - self._sent

    def _is_full(self) -> bool:
        return self._batch.count == self._batch.capacity

    def _encode(self, item: _T) -> None:
        """Take an object into the batch, which has room; one that its encoder fails at is not taken."""
        used = self._batch.count
        size = operator.index(self._encoder.encode(item, self._batch.data[used]))
        if not 0 <= size <= self._largest:
            raise ValueError(f"encode() answered {size}; a packet has up to {self._largest} bytes")
        if size:
            self._batch.lengths[used] = size
            self._batch.headers[used] = 0
            self._batch.count = used + 1

    def _note_sent(self, packets: int) -> None:
        self._sent += packets
        if self._sent == self._batch.count:
            self._sent = self._batch.count = 0


class FramedReader(Reading[_T]):
    """Receives objects.

    Parameters
    ----------
    device : Tun, Tap or Queue
        Where packets come from.
    decoder : Decoder
        Makes objects of them.
    capacity : int, optional
        Packets that are received at once at most.
    """

    def recv(self, timeout: float | None = None, *, event: Event | None = None) -> _T:
        """Receive one object.

        Parameters
        ----------
        timeout, event : optional
            As for `Tun.recv`.

        Raises
        ------
        Exception
            What the decoder raises; the next call goes on behind that packet.
        TimeoutError, ClosedError, InterruptError, DeviceGoneError
            As for `Tun.recv`.
        """
        deadline = Deadline(timeout)
        item = self._decoded()
        while item is None:
            self._device.recv_batch(self._batch, deadline.left(), event=event)
            item = self._decoded()
            if item is None and deadline.has_passed():  # packets that are passed over may never end
                raise _core.timed_out(_core.RECV)
        return item

    def __iter__(self) -> Iterator[_T]:
        """The objects, until the device is closed or shut down."""
        return self

    def __next__(self) -> _T:
        try:
            return self.recv()
        except ClosedError:
            raise StopIteration from None


class FramedWriter(Writing[_T]):
    """Sends objects.

    Parameters
    ----------
    device : Tun, Tap or Queue
        Where packets go.
    encoder : Encoder
        Writes objects as packets.
    capacity : int, optional
        Packets that are kept at most before they are sent.
    """

    def send(self, item: _T, timeout: float | None = None, *, event: Event | None = None) -> None:
        """Send one object, and what was fed before it; as `feed` and `flush`."""
        deadline = Deadline(timeout)
        self.feed(item, timeout, event=event)
        self.flush(deadline.left(), event=event)

    def feed(self, item: _T, timeout: float | None = None, *, event: Event | None = None) -> None:
        """Keep an object to be sent; those kept go first if there is no room for more.

        Parameters
        ----------
        item
            What to send.
        timeout, event : optional
            As for `flush`.  An object for which there was no room in time is not taken.
        """
        if self._is_full():
            self.flush(timeout, event=event)
        self._encode(item)

    def flush(self, timeout: float | None = None, *, event: Event | None = None) -> None:
        """Send everything that was fed.

        Parameters
        ----------
        timeout, event : optional
            As for `Tun.send_batch`; what is left then goes with the next flush.

        Raises
        ------
        PacketError
            A packet was refused and is dropped; the next flush goes on behind it.
        TimeoutError, LinkDownError, ClosedError, InterruptError, DeviceGoneError
            As for `Tun.send_batch`.
        """
        deadline = Deadline(timeout)
        while self.pending:
            try:
                # What ends a wait must not end this: how much was sent would be lost.
                self._note_sent(self._device.send_batch(self._batch, 0, start=self._sent, event=event))
            except TimeoutError:
                self._device.wait_writable(deadline.left(), event=event)
            except PacketError:
                self._note_sent(1)
                raise


class Framed(Generic[_T]):
    """Receives and sends objects.  The end of a ``with`` closes the device; what was not flushed is lost.

    Parameters
    ----------
    device : Tun, Tap or Queue
        Where packets come from and go.
    codec : Codec
        Makes objects of packets, and the reverse.
    capacity : int, optional
        Packets of a batch, each way.

    Attributes
    ----------
    device
        The device.
    reader, writer : FramedReader, FramedWriter
        The halves.
    """

    def __init__(self, device: Queue, codec: Codec[_T], capacity: int = 64) -> None:
        self.device = device
        self.reader = FramedReader(device, codec, capacity)
        self.writer = FramedWriter(device, codec, capacity)
        self.recv = self.reader.recv
        self.send = self.writer.send
        self.feed = self.writer.feed
        self.flush = self.writer.flush

    def split(self) -> tuple[FramedReader[_T], FramedWriter[_T]]:
        """Both halves, with whatever they have received and not yet sent."""
        return self.reader, self.writer

    def __iter__(self) -> Iterator[_T]:
        """The objects, until the device is closed or shut down."""
        return self.reader

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        self.device.close()
