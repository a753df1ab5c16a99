"""How a task of an event loop waits on a device: asyncio, loops that are like it, and trio.

Either has one object for each device and loop, which is there while a task waits.  The loop looks at a
descriptor only while a task waits for it, and holds the device for so long: a close() in another thread
ends the waits, and the last loop to let go closes the descriptor.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import sys
from collections import deque
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from tuntap import _core

if TYPE_CHECKING:
    import trio

Key: TypeAlias = tuple[str, int]  # "recv", "send" or "events", and the descriptor


class Waits(Protocol):
    """The tasks of one loop that wait on one device."""

    async def wait(self, path: str, fd: int, deadline: float | None) -> bool:
        """Until there may be something to do, False at the deadline; raises what ended the wait."""

    def wake_soon(self) -> None:
        """Let every task look at the device again; from any thread, and from signal handlers."""

    def release(self) -> None:
        """The device is closed: let go of it, at once where that can be."""

    def forget(self) -> None:
        """The loop is that of the parent of this process."""


Registry: TypeAlias = dict[object, Waits]


def running_trio() -> Any:  # noqa: ANN401
    """The module trio if a task of it is running; asyncio is, if anything, otherwise."""
    trio = sys.modules.get("trio")
    return trio if trio is not None and trio.lowlevel.in_trio_task() else None


def current_waits(port: _core.Port, registry: Registry) -> Waits:
    """Where a task of the loop that runs now can wait."""
    trio = running_trio()
    if trio is not None:
        token = trio.lowlevel.current_trio_token()
        return registry.get(token) or TrioWaits(port, registry, trio, token)
    loop = asyncio.get_running_loop()
    return registry.get(loop) or AsyncioWaits(port, registry, loop)


def time_of_loop() -> float:
    """The clock of the loop that runs now, for deadlines."""
    trio = running_trio()
    now: float = asyncio.get_running_loop().time() if trio is None else trio.current_time()
    return now


async def sleep(seconds: float) -> None:
    trio = running_trio()
    await (asyncio if trio is None else trio).sleep(seconds)


class Turn:
    """What a task awaits until it is its turn: a future that can run its task at once.

    An `asyncio.Future` lets the task run in the next iteration of its loop, which would find the descriptor
    still readable and look for the next one to wake.  Run in the callback of the loop, the task has
    emptied the queue, and mostly waits again, when the loop looks next.
    """

    _asyncio_future_blocking = False

    def __init__(self, waits: AsyncioWaits, key: Key, interrupts: int) -> None:
        self.waits = waits
        self.key = key
        self.interrupts = interrupts
        self.error: BaseException | None = None
        self.is_over = False
        self.in_time = True
        self.timer: asyncio.TimerHandle | None = None
        self._resume: Callable[[], object] = lambda: None

    def __await__(self) -> Generator[Turn, None, None]:
        self._asyncio_future_blocking = True
        yield self

    def run(self) -> None:
        """Let the task go on, here."""
        self._resume()

    # What asyncio's tasks use of a future.

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self.waits.loop

    def add_done_callback(self, callback: Callable[[Turn], object], *, context: contextvars.Context) -> None:
        self._resume = lambda: context.run(callback, self)

    def done(self) -> bool:
        return self.is_over

    def result(self) -> None:
        if self.error is not None:
            raise self.error

    def cancel(self, msg: object = None) -> bool:
        if self.is_over:
            return False
        self.waits.leave(self)
        self.error = asyncio.CancelledError() if msg is None else asyncio.CancelledError(msg)
        self.waits.loop.call_soon(self.run)
        return True


class AsyncioWaits:
    """`Waits` of an asyncio loop.  All but `wake_soon` and `release` belong to its thread."""

    def __init__(self, port: _core.Port, registry: Registry, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._port = port
        self._registry = registry
        self._turns: dict[Key, deque[Turn]] = {}  # of the descriptors that the loop looks at
        self._is_foreign = False

    async def wait(self, path: str, fd: int, deadline: float | None) -> bool:
        interrupts = self._port._begin_wait(path)
        if interrupts is None:
            return True
        turn = Turn(self, (path, fd), interrupts)
        try:
            self._enter(turn)
            if deadline is not None:
                turn.timer = self.loop.call_at(deadline, self._expire, turn)
            await turn
        finally:
            self.leave(turn)
            if turn.timer is not None:
                turn.timer.cancel()
        return turn.in_time

    def _enter(self, turn: Turn) -> None:
        turns = self._turns.get(turn.key)
        if turns is None:
            self._port._hold()
            path, fd = turn.key
            add = self.loop.add_writer if path == "send" else self.loop.add_reader
            try:
                add(fd, self._ready, turn.key)
            except BaseException:
                self._port._let_go()
                raise
            turns = self._turns[turn.key] = deque()
            self._registry[self.loop] = self
        turns.append(turn)

    def _ready(self, key: Key) -> None:
        """The loop has seen the descriptor ready: the task that has waited longest goes on."""
        turns = self._turns[key]
        turn = turns.popleft()
        self._end(turn)
        turn.run()
        if not turns and self._turns.get(key) is turns:
            self._stop_looking(key)

    def _end(self, turn: Turn) -> None:
        turn.is_over = True
        turn.error = self._port._end_wait(turn.interrupts)

    def leave(self, turn: Turn) -> None:
        """A turn that will not come: the task was cancelled, has waited too long, or something woke it."""
        if not turn.is_over:
            self._end(turn)
            turns = self._turns.get(turn.key)
            if turns is not None:
                turns.remove(turn)
                if not turns:
                    self._stop_looking(turn.key)

    def _expire(self, turn: Turn) -> None:
        if not turn.is_over:
            turn.in_time = False
            self.leave(turn)
            turn.run()

    def _stop_looking(self, key: Key) -> None:
        if self._turns.pop(key, None) is None:
            return
        path, fd = key
        if not self._is_foreign and not self.loop.is_closed():
            (self.loop.remove_writer if path == "send" else self.loop.remove_reader)(fd)
        if not self._turns:
            self._registry.pop(self.loop, None)
        self._port._let_go()

    def wake_soon(self) -> None:
        # A loop that is closed has no task that could be woken.
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        for turn in [turn for turns in self._turns.values() for turn in turns]:
            self.leave(turn)
            self.loop.call_soon(turn.run)

    def release(self) -> None:
        if self.loop.is_running() and asyncio._get_running_loop() is not self.loop:
            self.wake_soon()
            return
        for key, turns in self._turns.copy().items():
            self._stop_looking(key)
            for turn in turns:
                self._end(turn)
                if not self.loop.is_closed():
                    self.loop.call_soon(turn.run)

    def forget(self) -> None:
        self._is_foreign = True


class TrioWaits:
    """`Waits` of a trio run.  Of the tasks that wait for one descriptor, one looks at it for all."""

    def __init__(
        self,
        port: _core.Port,
        registry: Registry,
        trio: Any,  # noqa: ANN401
        token: trio.lowlevel.TrioToken,
    ) -> None:
        self._port = port
        self._registry = registry
        self._trio = trio
        self._token = token
        self._locks: dict[Key, trio.Lock] = {}
        self._scopes: set[trio.CancelScope] = set()
        self._held: set[Key] = set()

    async def wait(self, path: str, fd: int, deadline: float | None) -> bool:
        interrupts = self._port._begin_wait(path)
        if interrupts is None:
            return True
        key = path, fd
        lowlevel = self._trio.lowlevel
        look = lowlevel.wait_writable if path == "send" else lowlevel.wait_readable
        lock = self._locks.setdefault(key, self._trio.Lock())
        scope = self._trio.CancelScope(deadline=float("inf") if deadline is None else deadline)
        self._scopes.add(scope)
        self._registry[self._token] = self
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
            self._scopes.discard(scope)
            if not self._scopes:
                self._registry.pop(self._token, None)
            error = self._port._end_wait(interrupts)
        if error is not None:
            raise error
        return not scope.cancelled_caught or deadline is None or self._trio.current_time() < deadline

    def _let_go(self, key: Key) -> None:
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
