"""How tasks of an event loop wait for their turn at a device: asyncio and loops that are like it; trio in `_trio`.

Each device has one object for each loop, which is there while a task waits.  The loop looks at a
descriptor only while a task waits for it, and holds the device for so long: a close() in another thread
ends the waits, and the last loop to let go closes the descriptor.

Compiled, because a packet that comes alone finds all of this cold.  What a call awaits is a future of our own: an
`asyncio.Future` would let the task run in the next iteration of its loop, which would find the descriptor
still readable and look for the next task to wake.  Run in the callback of the loop, the task has taken
what was there, and mostly waits again, when the loop looks next.
"""
from libc.stdint cimport uint64_t

from tuntap._core cimport WOULD_WAIT, Notification, Port, Sending
from tuntap._os.native cimport PATH_RECV, PATH_SEND

import inspect
import sys
from asyncio import BaseEventLoop, CancelledError, _get_running_loop, get_running_loop
from collections import deque
from functools import partial
from time import monotonic

from tuntap._core import NO_WAIT, NOTIFIES, seconds, timed_out
from tuntap._errors import ClosedError, DeviceGoneError, InterruptError
from tuntap._trio import trio_until

cdef dict MODULES = sys.modules
cdef object port_recv = Port.recv
cdef object port_recv_into = Port.recv_into
cdef object port_recv_vectored = Port.recv_vectored
cdef object port_recv_batch = Port.recv_batch
cdef object port_send = Port.send
cdef object port_send_rest = Sending.send

cdef extern from *:
    """
    #if defined(_MSC_VER)
    static __declspec(thread) double tuntap_share_end = 0;
    static __declspec(thread) unsigned long long tuntap_waits_begun = 0;
    #else
    static __thread double tuntap_share_end = 0;
    static __thread unsigned long long tuntap_waits_begun = 0;
    #endif
    """
    uint64_t waits_begun "tuntap_waits_begun"
    double share_end "tuntap_share_end"    # when calls of this thread's loop next let other tasks run

cdef double SHARE = 0.001                  # seconds that calls which need not wait may take together


cdef class Rest:
    """Await it to let the other tasks run once."""

    def __await__(self):
        yield


cdef class Turn:
    """The future that a task awaits until it is its turn at a descriptor."""

    def __await__(self):
        self._asyncio_future_blocking = True
        yield self

    cdef void end(self):
        """The wait is over, for whatever reason."""
        self.is_over = True
        self.outcome = self.line.waits.port.end_wait(self.interrupts)

    cdef int leave(self) except -1:
        """Give up a turn that has not come."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if not self.is_over:
            self.end()
            self.line.turns.remove(self)
            if not self.line.turns:
                self.line.stop()
        return 0

    def _run(self):
        """Let the task go on, here."""
        callback, self.callback = self.callback, None
        if callback is not None:
            self.context.run(callback, self)

    def _expire(self):
        if not self.is_over:
            self.is_late = True
            self.leave()
            self._run()

    # What asyncio's tasks use of a future.

    def get_loop(self):
        return self.line.waits.loop

    def add_done_callback(self, callback, *, context):
        self.callback = callback
        self.context = context

    def remove_done_callback(self, callback):
        self.callback = None

    def done(self):
        return self.is_over

    def result(self):
        if self.cancelled is not None:
            raise self.cancelled

    def cancel(self, msg=None):
        if self.is_over:
            return False
        self.leave()
        self.cancelled = CancelledError() if msg is None else CancelledError(msg)
        self.line.waits.loop.call_soon(self._run)
        return True


cdef class Line:
    """The turns at one descriptor, which the loop looks at for so long."""

    def __cinit__(self, AsyncioWaits waits not None, tuple key):
        self.waits = waits
        self.key = key
        self.turns = deque()

    cdef int enter(self, Turn turn) except -1:
        """In the order in which the calls came: one that was woken for nothing keeps its place."""
        cdef Py_ssize_t place = len(self.turns)
        while place > 0 and (<Turn> self.turns[place - 1]).number > turn.number:
            place -= 1
        turn.line = self
        self.turns.insert(place, turn)
        return 0

    cdef int start(self) except -1:
        fd, writes = self.key
        self.waits.port._hold()
        try:
            if NOTIFIES:
                self.notification = Notification(
                    self.waits.port, fd, writes, partial(self.waits.loop.call_soon_threadsafe, self))
                self.notification.start()
            elif writes:
                self.waits.loop.add_writer(fd, self)
            else:
                self.waits.loop.add_reader(fd, self)
        except BaseException:
            self.waits.port._let_go()
            raise
        self.is_looking = True
        return 0

    def __call__(self):
        """The loop has seen the descriptor ready: the task that has waited longest goes on."""
        cdef Turn turn
        if not self.turns:
            return                         # the loop was told just before it looked no more
        turn = self.turns.popleft()
        turn.end()
        try:
            turn._run()
        finally:
            if not self.turns:
                self.stop()
            elif self.notification is not None:
                self.notification.start()
            elif self.waits.stops_at_errors and self.waits.port.wait(PATH_RECV, 0, -1) < 0:
                # Told once of a device that is deleted, the task may still have found a packet, or nothing.
                self.waits.dismiss(self)

    cdef int stop(self) except -1:
        """Look no more."""
        if not self.is_looking:
            return 0
        self.is_looking = False
        fd, writes = self.key
        waits = self.waits
        if self.notification is not None:
            self.notification.stop()
            self.notification = None       # whose callback is this line
        elif not waits.loop.is_closed():
            if writes:
                waits.loop.remove_writer(fd)
            else:
                waits.loop.remove_reader(fd)
        del waits.lines[self.key]
        waits.leave()
        waits.port._let_go()
        return 0


cdef class AsyncioWaits:
    """The tasks of one asyncio loop that wait on one device; there while there are some.

    All but `wake_soon` and `release` belongs to the thread of the loop.
    """

    def __cinit__(self, Port port not None, loop):
        self.port = port
        self.loop = loop
        # Those built on libuv look no more at a descriptor in error.
        self.stops_at_errors = not isinstance(loop, BaseEventLoop)
        self.lines = {}

    cdef Line line(self, tuple key):
        """Where to queue up; the loop looks from now on."""
        line = self.lines.get(key)
        if line is None:
            line = Line(self, key)
            (<Line> line).start()
            self.lines[key] = line
        return line

    cdef int leave(self) except -1:
        """Be there no more if nothing waits."""
        if not self.lines:
            self.port._loops.pop(self.loop, None)
        return 0

    def wake_soon(self):
        """Let every task look at the device again; from any thread, and from signal handlers."""
        try:
            self.loop.call_soon_threadsafe(self._wake)
        except RuntimeError:
            pass                           # it is closed: no task of it can be woken

    def _wake(self):
        for line in list(self.lines.values()):
            self.dismiss(line)

    cdef int dismiss(self, Line line) except -1:
        """Let every task look at the device again."""
        cdef Turn turn
        for turn in line.turns.copy():
            turn.leave()
            if not self.loop.is_closed():
                self.loop.call_soon(turn._run)
        line.stop()
        return 0

    def release(self):
        """The device is closed: let go of it, at once where that can be."""
        if not self.loop.is_running() or _get_running_loop() is self.loop:
            self._wake()
        # For another loop; and if a signal handler closes, for one that sleeps, or a task about to wait.
        self.wake_soon()

    def forget(self):
        """The loop is that of the parent of this process."""
        cdef Line line
        cdef Turn turn
        for line in self.lines.values():
            line.is_looking = False
            for turn in line.turns:
                turn.is_over = True
            line.turns.clear()


REST = Rest()


cdef Turn queue_up(Port port, int path, source, deadline, uint64_t number):
    """A turn to await; None if there is no need to wait."""
    cdef AsyncioWaits waits
    cdef Turn turn = Turn()
    cdef int outcome
    loop = get_running_loop()
    waits = port._loops.get(loop)
    if waits is None:
        # Before the wait begins: another thread that ends it from then on must find it.
        waits = port._loops[loop] = AsyncioWaits(port, loop)
    outcome = port.begin_wait(path, &turn.interrupts)
    if outcome != WOULD_WAIT:
        waits.leave()
        if outcome < 0:
            raise port.failure(path, outcome, b"")
        return None
    try:
        turn.number = number
        waits.line(port._target(path, source)).enter(turn)
    except BaseException:
        port.end_wait(turn.interrupts)
        waits.leave()
        raise
    if deadline is not None:
        turn.timer = loop.call_at(deadline, turn._expire)
    return turn


cdef void renew_share():
    global share_end
    share_end = monotonic() + SHARE


cdef uint64_t next_number():
    global waits_begun
    waits_begun += 1
    return waits_begun


async def until(Port port, int path, source, timeout, attempt, tuple arguments):
    """What an attempt that does not wait answers, as soon as that is something true."""
    cdef Turn turn
    cdef uint64_t number = 0               # of this call, among those that have waited
    deadline = None
    if monotonic() >= share_end:
        await REST
        renew_share()
    while True:
        try:
            result = attempt(*arguments)
        except DeviceGoneError:
            port.tell_tasks()              # in case their loops look no more at what is in error
            raise
        if result:
            return result
        if timeout is not None:
            if timeout == 0:
                raise timed_out(path)
            if deadline is None:
                deadline = get_running_loop().time() + timeout
        if number == 0:
            number = next_number()
        turn = queue_up(port, path, source, deadline, number)
        if turn is None:
            continue
        try:
            await turn
        finally:
            turn.leave()
        renew_share()
        if turn.outcome < 0:
            raise port.failure(path, turn.outcome, b"")
        if turn.is_late:
            raise timed_out(path)


async def until_sent(Port port, timeout, Sending rest):
    """The same for a send_batch, of which part is a result."""
    try:
        await choose(port, PATH_SEND, timeout, port_send_rest, (rest,), port)
    except InterruptError:
        if not rest.sent:
            raise
        port._latch()      # for the next call that would wait
    except (TimeoutError, ClosedError):
        if not rest.sent:
            raise
    return rest.sent


cpdef object running_trio():
    """The module trio if a task of it is running; asyncio is, if anything, otherwise."""
    trio = MODULES.get("trio")
    if trio is None:
        return None
    lowlevel = getattr(trio, "lowlevel", None)     # not there yet while another thread imports trio
    return trio if lowlevel is not None and lowlevel.in_trio_task() else None


def call(Port port, int path, timeout, attempt, *arguments, source=None):
    """A coroutine for what an attempt answers, as soon as that is something true.

    Between attempts the task waits for the descriptor of `source`, by default that of the device.
    """
    return begin(port, path, timeout, attempt, arguments, port if source is None else source)


cdef object begin(Port port, int path, object timeout, object attempt, tuple arguments, object source):
    return choose(port, path, None if timeout is None else seconds(timeout), attempt, arguments, source)


cdef object choose(Port port, int path, object timeout, object attempt, tuple arguments, object source):
    """The coroutine for the loop that runs now; the timeout is checked."""
    trio = running_trio()
    if trio is None:
        return until(port, path, source, timeout, attempt, arguments)
    return trio_until(trio, port, path, source, timeout, attempt, arguments)


def coroutine(function):
    """Mark what answers a coroutine as a coroutine function, from Python 3.12 on."""
    mark = getattr(inspect, "markcoroutinefunction", None)
    return function if mark is None else mark(function)


class AsyncCalls:
    """The calls of a `Port` that wait, as coroutines.  Tasks are cancelled: there is no ``event=``."""

    @coroutine
    def recv(self, timeout=None):
        """Receive one packet; see `tuntap.Tun.recv`."""
        return begin(self, PATH_RECV, timeout, port_recv, (self, NO_WAIT), self)

    @coroutine
    def recv_into(self, buffer, timeout=None):
        """Receive one packet into a buffer; see `tuntap.Tun.recv_into`."""
        return begin(self, PATH_RECV, timeout, port_recv_into, (self, buffer, NO_WAIT), self)

    @coroutine
    def recv_vectored(self, buffers, timeout=None):
        """Receive one packet into several buffers; see `tuntap.Tun.recv_vectored`."""
        return begin(self, PATH_RECV, timeout, port_recv_vectored, (self, list(buffers), NO_WAIT), self)

    @coroutine
    def recv_batch(self, batch, timeout=None):
        """Receive what is there, at least one packet; see `tuntap.Tun.recv_batch`."""
        return begin(self, PATH_RECV, timeout, port_recv_batch, (self, batch, NO_WAIT), self)

    @coroutine
    def send(self, packet, timeout=None):
        """Send one packet; see `tuntap.Tun.send`."""
        return begin(self, PATH_SEND, timeout, port_send, (self, packet, NO_WAIT), self)

    @coroutine
    def send_vectored(self, buffers, timeout=None):
        """Send one packet that lies in several buffers; see `tuntap.Tun.send_vectored`."""
        cdef Port port = self
        return begin(port, PATH_SEND, timeout, port_send, (port, port._joined(buffers), NO_WAIT), port)

    @coroutine
    def send_batch(self, batch, timeout=None, *, start=0, stop=None, where=None):
        """Send the packets of a batch in order; see `tuntap.Tun.send_batch`.

        Cancelled while it waits for room, it may have sent some of them.
        """
        cdef Port port = self
        cdef Sending rest = port._begin_send(batch, start, stop, where)
        return until_sent(port, seconds(timeout), rest)

    def _send_now(self, packet):
        """What send() answers; 0 if it would have to wait."""
        return port_send(self, packet, NO_WAIT)
