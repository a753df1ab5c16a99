"""A TUN or TAP as a datagram endpoint of asyncio: packets go to and come from a protocol."""

from __future__ import annotations

import asyncio
import errno
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tuntap import _core
from tuntap._errors import ClosedError, DeviceGoneError, InterruptError, PacketError, TunTapError

if TYPE_CHECKING:
    from tuntap import aio
    from tuntap._core import Readable

_BATCH = 64
_HIGH_WATER = 64 * 1024  # bytes, as asyncio's own transports


class PacketTransport(asyncio.DatagramTransport):
    """Carries packets between a device and a `asyncio.DatagramProtocol`.

    The address of a packet is always None: a packet says itself where it goes.  What `get_extra_info`
    knows: "device", and "name", "index", "mtu" and "addresses" of the interface.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, device: aio.Tun | aio.Tap, protocol: asyncio.DatagramProtocol
    ) -> None:
        super().__init__()
        self._loop = loop
        self._device = device
        self._protocol = protocol
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._backlog: deque[bytes] = deque()
        self._backlog_size = 0
        self._is_full = False  # the protocol was told to pause
        self._is_closing = False
        self._is_lost = False
        self.set_write_buffer_limits()
        self._reader: asyncio.Task[None] | None = None
        self._writer: asyncio.Task[None] | None = None
        self._is_writing = False

    # --- receiving ---

    # A task may begin to run before it is returned, and even end (`asyncio.eager_task_factory`).

    def _start(self) -> None:
        if not self._is_closing:
            self._reader = self._loop.create_task(self._read())

    async def _read(self) -> None:
        batch = None
        while not self._is_closing:
            await self._may_read.wait()
            try:
                if batch is None:
                    batch = self._device.batch(_BATCH)
                await self._device.recv_batch(batch)
            except InterruptError:
                continue
            except (ClosedError, DeviceGoneError) as error:
                self._lose(error)
                return
            except TunTapError as error:
                self._call(self._protocol.error_received, error)
                continue
            cut = batch.truncated
            for number, packet in enumerate(batch):
                # The protocol may pause, or close, at any packet.
                await self._may_read.wait()
                if self._is_closing:
                    return
                if number in cut:
                    lost = PacketError(errno.EMSGSIZE, "a packet larger than the MTU was is lost")
                    self._call(self._protocol.error_received, lost)
                else:
                    self._call(self._protocol.datagram_received, packet.tobytes(), None)
            if cut:
                batch = None  # the MTU has grown

    def _call(self, method: Callable[..., object], *arguments: object) -> None:
        """A protocol that fails at one packet gets the next all the same."""
        try:
            method(*arguments)
        except Exception as error:
            self._loop.call_exception_handler({
                "message": f"{method!r} failed", "exception": error,
                "transport": self, "protocol": self._protocol,
            })  # fmt: skip

    def is_reading(self) -> bool:
        """Whether packets are delivered."""
        return self._may_read.is_set() and not self._is_closing

    def pause_reading(self) -> None:
        """Deliver no more packets until `resume_reading`; the kernel keeps what comes, or drops it."""
        self._may_read.clear()

    def resume_reading(self) -> None:
        """Deliver packets again."""
        if not self._is_closing:
            self._may_read.set()

    # --- sending ---

    def sendto(self, data: Readable, addr: object = None) -> None:
        """Send one packet, or keep it until the device takes it.

        A packet that the device refuses is reported to the protocol's ``error_received``.
        """
        if addr is not None:
            raise ValueError("a packet has its address in itself: addr must be None")
        packet = bytes(memoryview(data))  # type: ignore[arg-type]
        if not 1 <= len(packet) <= _core.PACKET_MAX:
            raise ValueError(f"a packet is 1 to {_core.PACKET_MAX} bytes, not {len(packet)}")
        if self._is_closing:
            return
        if not self._backlog:
            try:
                if self._device._send_now(packet):
                    return
            except (ClosedError, DeviceGoneError) as error:
                self._lose(error)
                return
            except TunTapError as error:
                self._call(self._protocol.error_received, error)
                return
        self._backlog.append(packet)
        self._backlog_size += len(packet)
        if not self._is_writing:
            self._is_writing = True
            self._writer = self._loop.create_task(self._write())
        if self._backlog_size > self._high and not self._is_full:
            self._is_full = True
            self._call(self._protocol.pause_writing)

    async def _write(self) -> None:
        """Send the backlog as the device takes it."""
        while self._backlog:
            refusal = None
            try:
                await self._device.send(self._backlog[0])
            except InterruptError:
                continue
            except (ClosedError, DeviceGoneError) as error:
                self._lose(error)
                return
            except TunTapError as error:
                refusal = error
            self._backlog_size -= len(self._backlog.popleft())
            if refusal is not None:
                self._call(self._protocol.error_received, refusal)
            if self._is_full and self._backlog_size <= self._low:
                self._is_full = False
                self._call(self._protocol.resume_writing)
        self._is_writing = False
        if self._is_closing:
            self._lose(None)

    def get_write_buffer_size(self) -> int:
        """Bytes of the packets that the device has not taken yet."""
        return self._backlog_size

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Bytes at or below which the protocol may write again, and above which it is told to pause."""
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set those limits; by default 64 KiB and a quarter of it."""
        if high is None:
            high = _HIGH_WATER if low is None else 4 * low
        if low is None:
            low = high // 4
        if not 0 <= low <= high:
            raise ValueError(f"the limits must be 0 <= low <= high, not low={low}, high={high}")
        self._low, self._high = low, high

    # --- the rest ---

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ANN401
        """What is known by this name, else `default`."""
        if name == "device":
            return self._device
        if name in ("name", "index", "mtu", "addresses"):
            try:
                return getattr(self._device, name)
            except TunTapError:
                return default
        return default

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Hand the packets to another protocol from now on."""
        self._protocol = protocol  # type: ignore[assignment]

    def get_protocol(self) -> asyncio.DatagramProtocol:
        """The protocol that gets the packets."""
        return self._protocol

    def is_closing(self) -> bool:
        """Whether it is closed, or will be once the backlog is sent."""
        return self._is_closing

    def close(self) -> None:
        """Deliver nothing more, send what is kept, then close the device."""
        if not self._is_closing:
            self._is_closing = True
            if self._reader is not None:
                self._reader.cancel()
            if not self._is_writing:
                self._lose(None)

    def abort(self) -> None:
        """Close the device at once; packets that were kept are lost."""
        self._lose(None)

    def _lose(self, error: Exception | None) -> None:
        """Close the device and tell the protocol, once."""
        if self._is_lost:
            return
        self._is_lost = self._is_closing = True
        if isinstance(error, ClosedError):
            error = None  # on purpose, whoever did it
        for task in (self._reader, self._writer):
            if task is not None:
                task.cancel()
        self._backlog.clear()
        self._backlog_size = 0
        self._loop.call_soon(self._finish, error)

    def _finish(self, error: Exception | None) -> None:
        try:
            self._call(self._protocol.connection_lost, error)
        finally:
            self._device.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._device!r}{' closing' if self._is_closing else ''}>"
