"""Devices for asyncio, loops that are like it (uvloop), and trio: the calls that wait are coroutines.

A call looks first and waits only if there is nothing.  Several tasks may wait on one device, also in several
loops: those of an asyncio loop are served in the order they came, and each packet goes to exactly one.  A
call that is cancelled or whose time is over has received nothing.  All else is as in `tuntap.Tun`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar

from tuntap import _core, _device
from tuntap._deadline import Deadline
from tuntap._errors import ClosedError, DeviceGoneError, PacketError
from tuntap._events import EventSource, LinkEvent
from tuntap._transport import PacketTransport
from tuntap._turns import AsyncCalls, call, running_trio
from tuntap.capture import Reader, Replay, Schedule, Source
from tuntap.framed import Codec, Reading, Writing

__all__ = [
    "Events",
    "Framed",
    "FramedReader",
    "FramedWriter",
    "PacketTransport",
    "Queue",
    "Tap",
    "Tun",
    "create_tap_endpoint",
    "create_tun_endpoint",
    "replay",
]

_T = TypeVar("_T")
_P = TypeVar("_P", bound=asyncio.DatagramProtocol)


class _Async(AsyncCalls, _device.Queue):  # type: ignore[misc]
    """What receives and sends without blocking; in front of a class of `tuntap` it makes it asynchronous."""

    async def wait_readable(self, timeout: float | None = None) -> None:  # type: ignore[override]
        """Wait until a receive need not wait; see `tuntap.Tun.wait_readable`."""
        await call(self, _core.RECV, timeout, self._ready, _core.RECV, _core.NO_WAIT)

    async def wait_writable(self, timeout: float | None = None) -> None:  # type: ignore[override]
        """Wait until the device takes a packet; see `tuntap.Tun.wait_writable`."""
        await call(self, _core.SEND, timeout, self._ready, _core.SEND, _core.NO_WAIT)

    def interrupt(self) -> None:
        super().interrupt()
        self._wake()

    def shutdown(self) -> None:
        super().shutdown()
        self._wake()

    def _wake(self) -> None:
        for waits in self._loops.copy().values():
            waits.wake_soon()

    def close(self) -> None:
        """As `tuntap.Tun.close`; tasks that wait in this loop or in another end with `ClosedError`.

        Another loop that waits lets go of the descriptor when it comes to it, and the interface goes then.
        """
        super().close()
        for waits in self._loops.copy().values():
            waits.release()

    async def aclose(self) -> None:
        """The same as close()."""
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *unused: object) -> None:
        self.close()

    def __aiter__(self) -> Self:
        """The packets, until the device is closed or shut down."""
        return self

    async def __anext__(self) -> bytes:
        try:
            return await self.recv()
        except ClosedError:
            raise StopAsyncIteration from None

    def _after_fork(self) -> None:
        for waits in self._loops.values():
            waits.forget()
        self._loops.clear()
        super()._after_fork()


class Queue(_Async, _device.Queue):  # type: ignore[misc]
    """One of the queues of an asynchronous device."""


class Events(EventSource):
    """Asynchronous iterator over what happens to the interface of a device, from its making on.

    It ends when the device is closed or shut down, and after "gone".
    """

    _device: _AsyncDevice

    async def get(self, timeout: float | None = None) -> LinkEvent:
        """Wait for the next event; see `tuntap.Events.get`."""
        return await call(self._device, _core.EVENTS, timeout, self._next, source=self)

    def _look_again(self) -> None:
        # The descriptor changes: no loop must look at the old one when it is closed.
        for waits in self._device._loops.copy().values():
            waits.release()
        super()._look_again()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> LinkEvent:
        try:
            return await self.get()
        except (ClosedError, DeviceGoneError):
            raise StopAsyncIteration from None


class _AsyncDevice(_Async, _device.Device):  # type: ignore[misc]
    """What an asynchronous `Tun` and `Tap` have in common."""

    _queue_type = Queue
    _link_may_be_off = False

    def events(self) -> Events:  # type: ignore[override]
        """What happens to the interface from now on; see `tuntap.Tun.events`."""
        return Events(self)

    def _await_link(self) -> None:
        self._link_may_be_off = True  # the loop must not wait here: `__aenter__` does

    async def __aenter__(self) -> Self:
        deadline = time.monotonic() + _device.LINK_PATIENCE
        try:
            while (
                self._link_may_be_off and self.is_up and not self.is_running and time.monotonic() < deadline
            ):
                await (running_trio() or asyncio).sleep(0.005)
        except BaseException:
            self.close()  # there will be no `__aexit__`
            raise
        self._link_may_be_off = False
        return self


class Tun(_AsyncDevice, _device.Tun):  # type: ignore[misc]
    __doc__ = "An asynchronous TUN interface; see `tuntap.Tun` for its settings."


class Tap(_AsyncDevice, _device.Tap):  # type: ignore[misc]
    __doc__ = "An asynchronous TAP interface; see `tuntap.Tap` for its settings."


async def create_tun_endpoint(
    protocol_factory: Callable[[], _P],
    name: str | None = None,
    *,
    device: Tun | None = None,
    **settings: Any,  # noqa: ANN401
) -> tuple[PacketTransport, _P]:
    """Open a TUN and connect it to a protocol, as ``loop.create_datagram_endpoint`` does with a socket.

    Parameters
    ----------
    protocol_factory : callable
        Makes a `asyncio.DatagramProtocol`.  Its ``datagram_received(data, addr)`` gets each packet as
        bytes, and None; ``error_received`` what the device refuses; ``connection_lost`` None after
        close(), or `DeviceGoneError`.
    name : str, optional
        Of the interface.
    device : aio.Tun, optional
        One that is open; it belongs to the transport from now on.
    **settings
        As for `tuntap.Tun`.

    Returns
    -------
    transport : PacketTransport
        Closing it closes the device.
    protocol
        What `protocol_factory` made.
    """
    return await _connect(Tun, protocol_factory, name, device, settings)


async def create_tap_endpoint(
    protocol_factory: Callable[[], _P],
    name: str | None = None,
    *,
    device: Tap | None = None,
    **settings: Any,  # noqa: ANN401
) -> tuple[PacketTransport, _P]:
    """Open a TAP and connect it to a protocol; see `create_tun_endpoint`."""
    return await _connect(Tap, protocol_factory, name, device, settings)


async def _connect(
    kind: type[Tun] | type[Tap],
    protocol_factory: Callable[[], _P],
    name: str | None,
    device: Tun | Tap | None,
    settings: dict[str, Any],
) -> tuple[PacketTransport, _P]:
    loop = asyncio.get_running_loop()
    if device is None:
        device = kind(name, **settings)
    elif not isinstance(device, kind):
        raise TypeError(f"device must be a tuntap.aio.{kind.__name__}, not {device!r}")
    elif name is not None or settings:
        raise ValueError("a device that is open has its name and settings already")
    async with contextlib.AsyncExitStack() as undo:
        await undo.enter_async_context(device)
        protocol = protocol_factory()
        transport = PacketTransport(loop, device, protocol)
        undo.callback(transport.abort)
        protocol.connection_made(transport)
        loop.call_soon(transport._start)
        undo.pop_all()
    return transport, protocol


class FramedReader(Reading[_T]):
    """Receives objects, for one task at a time; see `tuntap.framed.FramedReader`."""

    _device: _Async

    async def recv(self, timeout: float | None = None) -> _T:
        """Receive one object."""
        deadline = Deadline(timeout)
        item = self._decoded()
        while item is None:
            await self._device.recv_batch(self._batch, deadline.left())
            item = self._decoded()
            if item is None and deadline.has_passed():
                raise _core.timed_out(_core.RECV)
        return item

    def __aiter__(self) -> Self:
        """The objects, until the device is closed or shut down."""
        return self

    async def __anext__(self) -> _T:
        try:
            return await self.recv()
        except ClosedError:
            raise StopAsyncIteration from None


class FramedWriter(Writing[_T]):
    """Sends objects, for one task at a time; see `tuntap.framed.FramedWriter`."""

    _device: _Async

    async def send(self, item: _T, timeout: float | None = None) -> None:
        """Send one object, and what was fed before it."""
        deadline = Deadline(timeout)
        await self.feed(item, timeout)
        await self.flush(deadline.left())

    async def feed(self, item: _T, timeout: float | None = None) -> None:
        """Keep an object to be sent; those kept go first if there is no room for more."""
        if self._is_full():
            await self.flush(timeout)
        self._encode(item)

    async def flush(self, timeout: float | None = None) -> None:
        """Send everything that was fed."""
        deadline = Deadline(timeout)
        while self.pending:
            try:
                # What ends a wait must not end this: how much was sent would be lost.
                self._note_sent(await self._device.send_batch(self._batch, 0, start=self._sent))
            except TimeoutError:
                await self._device.wait_writable(deadline.left())
            except PacketError:
                self._note_sent(1)
                raise


class Framed(Generic[_T]):
    """Receives and sends objects; see `tuntap.framed.Framed`."""

    def __init__(self, device: Queue | Tun | Tap, codec: Codec[_T], capacity: int = 64) -> None:
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

    def __aiter__(self) -> FramedReader[_T]:
        """The objects, until the device is closed or shut down."""
        return self.reader

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *unused: object) -> None:
        self.device.close()


async def replay(
    source: Source | Reader,
    device: Queue | Tun | Tap,
    *,
    speed: float = 1.0,
    loop: int | None = 1,
    timeout: float | None = None,
) -> Replay:
    """Send the packets of a capture in their time; see `tuntap.capture.replay`.

    As exact as the clock of the loop, and it reads the file within the loop.  A `close` of the device is
    noticed when the next packet is due; cancel the task to end it at once.
    """
    schedule = Schedule(source, device, speed, loop)
    trio = running_trio()
    sleep = asyncio.sleep if trio is None else trio.sleep
    for batch in schedule:
        while schedule.sent < batch.count:
            due = schedule.next_due()
            if due > 0:
                await sleep(due / 1e9)
                continue
            try:
                schedule.note_sent(
                    await device.send_batch(batch, timeout, start=schedule.sent, stop=schedule.stop)
                )
            except PacketError:
                schedule.note_refused()
    return schedule.result()
