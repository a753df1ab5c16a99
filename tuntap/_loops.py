"""How a task of an event loop waits on a device: asyncio and loops that are like it (`_turns`), and trio.

Each device has one object for each loop, which is there while a task waits.  The loop looks at a
descriptor only while a task waits for it, and holds the device for so long: a close() in another thread
ends the waits, and the last loop to let go closes the descriptor.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from tuntap import _core
from tuntap._turns import Call

if TYPE_CHECKING:
    import trio

    from tuntap._turns import Source

_T = TypeVar("_T")


class Waits(Protocol):
    """The tasks of one loop that wait on one device."""

    def wake_soon(self) -> None:
        """Let every task look at the device again; from any thread, and from signal handlers."""

    def release(self) -> None:
        """The device is closed: let go of it, at once where that can be."""

    def forget(self) -> None:
        """The loop is that of the parent of this process."""


def running_trio() -> Any:  # noqa: ANN401
    """The module trio if a task of it is running; asyncio is, if anything, otherwise."""
    trio = sys.modules.get("trio")
    return trio if trio is not None and trio.lowlevel.in_trio_task() else None


def call(
    port: _core.Port,
    path: int,
    timeout: float | None,
    attempt: Callable[..., _T | None],
    *arguments: object,
    source: Source | None = None,
) -> Awaitable[_T]:
    """What an attempt that does not wait answers, as soon as that is something true.

    Between attempts the task waits for the descriptor of `source`, by default that of the device.
    """
    timeout = _core.seconds(timeout)
    trio = running_trio()
    if trio is None:
        return Call(port, path, source or port, timeout, attempt, arguments)
    return _trio_call(trio, port, path, source or port, timeout, attempt, arguments)


async def _trio_call(
    trio: Any,  # noqa: ANN401
    port: _core.Port,
    path: int,
    source: Source,
    timeout: float | None,
    attempt: Callable[..., _T | None],
    arguments: tuple[object, ...],
) -> _T:
    await trio.lowlevel.checkpoint()
    deadline = float("inf") if timeout is None else trio.current_time() + timeout
    while not (result := attempt(*arguments)):
        if timeout == 0:
            raise _core.timed_out(path)
        token = trio.lowlevel.current_trio_token()
        waits = port._loops.get(token) or TrioWaits(port, trio, token)
        if not await waits.wait(path, source.fileno(), deadline):
            raise _core.timed_out(path)
    return result


async def sleep(seconds: float) -> None:
    trio = running_trio()
    await (asyncio if trio is None else trio).sleep(seconds)


class TrioWaits:
    """`Waits` of a trio run.  Of the tasks that wait for one descriptor, one looks at it for all."""

    def __init__(
        self,
        port: _core.Port,
        trio: Any,  # noqa: ANN401
        token: trio.lowlevel.TrioToken,
    ) -> None:
        self._port = port
        self._trio = trio
        self._token = token
        self._locks: dict[tuple[int, int], trio.Lock] = {}
        self._scopes: set[trio.CancelScope] = set()
        self._held: set[tuple[int, int]] = set()

    async def wait(self, path: int, fd: int, deadline: float) -> bool:
        """Until there may be something to do, False at the deadline; raises what ended the wait."""
        interrupts = self._port._begin_wait(path)
        if interrupts is None:
            return True
        key = path, fd
        lowlevel = self._trio.lowlevel
        look = lowlevel.wait_writable if path == _core.SEND else lowlevel.wait_readable
        lock = self._locks.setdefault(key, self._trio.Lock())
        scope = self._trio.CancelScope(deadline=deadline)
        self._scopes.add(scope)
        self._port._loops[self._token] = self
        error = None
        try:
            with scope:
                async with lock:
                    self._port._hold()
                    self._held.add(key)
                    try:
                        await look(fd)
                    finally:
                        self._let_go(key)
        finally:
            if scope in self._scopes:
                self._scopes.remove(scope)
                if not self._scopes:
                    self._port._loops.pop(self._token, None)
                error = self._port._end_wait(interrupts)
        if error is not None:
            raise error
        return not scope.cancelled_caught or self._trio.current_time() < deadline

    def _let_go(self, key: tuple[int, int]) -> None:
        if key in self._held:
            self._held.remove(key)
            self._port._let_go()

    def wake_soon(self) -> None:
        with contextlib.suppress(self._trio.RunFinishedError):
            self._token.run_sync_soon(self._wake, idempotent=True)

    def _wake(self) -> None:
        for scope in self._scopes.copy():
            scope.cancel()

    def release(self) -> None:
        lowlevel = self._trio.lowlevel
        if not lowlevel.in_trio_run() or lowlevel.current_trio_token() is not self._token:
            self.wake_soon()
            return
        self._wake()  # trio looks no more at a descriptor once that is cancelled
        for key in self._held.copy():
            self._let_go(key)

    def forget(self) -> None:
        self._held.clear()
        self._scopes.clear()
