"""How a task of trio waits on a device.  The caller brings the module: trio need not be installed."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from tuntap import _core

if TYPE_CHECKING:
    import trio

    from tuntap._turns import Source

_T = TypeVar("_T")


async def trio_until(
    trio: Any,  # noqa: ANN401
    port: _core.Port,
    path: int,
    source: Source,
    timeout: float | None,
    attempt: Callable[..., _T | None],
    arguments: tuple[object, ...],
) -> _T:
    """What an attempt that does not wait answers, as soon as that is something true."""
    await trio.lowlevel.checkpoint()
    deadline = float("inf") if timeout is None else trio.current_time() + timeout
    while not (result := attempt(*arguments)):
        if timeout == 0:
            raise _core.timed_out(path)
        token = trio.lowlevel.current_trio_token()
        waits = port._loops.get(token) or TrioWaits(port, trio, token)
        if not await waits.wait(path, source, deadline):
            raise _core.timed_out(path)
    return result


class TrioWaits:
    """The tasks of one trio run that wait on one device; there while there are some.

    Of those that wait for one descriptor, one looks at it for all.
    """

    def __init__(
        self,
        port: _core.Port,
        trio: Any,  # noqa: ANN401
        token: trio.lowlevel.TrioToken,
    ) -> None:
        self._port = port
        self._trio = trio
        self._token = token
        self._locks: dict[tuple[int, bool], trio.Lock] = {}
        self._scopes: set[trio.CancelScope] = set()
        self._held: dict[tuple[int, bool], _core.Notification | None] = {}

    async def wait(self, path: int, source: Source, deadline: float) -> bool:
        """Until there may be something to do, False at the deadline; raises what ended the wait."""
        key = self._port._target(path, source)
        lock = self._locks.setdefault(key, self._trio.Lock())
        scope = self._trio.CancelScope(deadline=deadline)
        interrupts = error = None
        # Before the wait begins: another thread that ends it from then on must find it.
        self._scopes.add(scope)
        self._port._loops[self._token] = self
        try:
            interrupts = self._port._begin_wait(path)
            if interrupts is None:
                return True
            with scope:
                async with lock:
                    self._port._hold()
                    self._held[key] = None
                    try:
                        await self._look(key)
                    finally:
                        self._let_go(key)
        finally:
            if scope in self._scopes:
                self._scopes.remove(scope)
                if not self._scopes:
                    self._port._loops.pop(self._token, None)
                if interrupts is not None:
                    error = self._port._end_wait(interrupts)
        if error is not None:
            try:
                raise error
            finally:
                del error  # whose traceback has this frame: a cycle would keep the device
        return not scope.cancelled_caught or self._trio.current_time() < deadline

    async def _look(self, key: tuple[int, bool]) -> None:
        fd, writes = key
        if _core.NOTIFIES:
            is_over = self._trio.Event()
            tell = functools.partial(self._token.run_sync_soon, is_over.set)
            self._held[key] = notification = _core.Notification(self._port, fd, writes, tell)
            notification.start()
            await is_over.wait()
        elif writes:
            await self._trio.lowlevel.wait_writable(fd)
        else:
            await self._trio.lowlevel.wait_readable(fd)

    def _let_go(self, key: tuple[int, bool]) -> None:
        if key in self._held:
            notification = self._held.pop(key)
            if notification is not None:
                notification.stop()
            self._port._let_go()

    def wake_soon(self) -> None:
        """Let every task look at the device again; from any thread, and from signal handlers."""
        with contextlib.suppress(self._trio.RunFinishedError):
            self._token.run_sync_soon(self._wake, idempotent=True)

    def _wake(self) -> None:
        for scope in self._scopes.copy():
            scope.cancel()

    def release(self) -> None:
        """The device is closed: let go of it, at once where that can be."""
        # Not in a signal handler that came upon trio itself: that may only ask to be called.
        lowlevel = self._trio.lowlevel
        if not lowlevel.in_trio_task() or lowlevel.current_trio_token() is not self._token:
            self.wake_soon()
            return
        self._wake()  # trio looks no more at a descriptor once that is cancelled
        for key in self._held.copy():
            self._let_go(key)

    def forget(self) -> None:
        """The run is that of the parent of this process."""
        self._held.clear()
        self._scopes.clear()
