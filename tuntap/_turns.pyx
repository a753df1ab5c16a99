"""How tasks of an asyncio loop wait for their turn at a device.

Compiled, because a packet that comes alone finds all of this cold.  What a call awaits is its own future: an
`asyncio.Future` would let the task run in the next iteration of its loop, which would find the descriptor
still readable and look for the next task to wake.  Run in the callback of the loop, the task has taken
what was there, and mostly waits again, when the loop looks next.
"""
from tuntap._core cimport Port

from asyncio import CancelledError, _get_running_loop, get_running_loop
from collections import deque
from time import monotonic

from tuntap._core import SEND, timed_out

cdef extern from *:
    """
    #if defined(_MSC_VER)
    static __declspec(thread) double tuntap_share_end = 0;
    #else
    static __thread double tuntap_share_end = 0;
    #endif
    """
    double share_end "tuntap_share_end"    # when calls of this thread's loop next let other tasks run

cdef double SHARE = 0.001                  # seconds that calls which need not wait may take together

cdef enum:
    IS_NEW = 0
    IS_DUE = 1                             # the other tasks have had their turn
    IS_WAITING = 2
    IS_OVER = 3                            # the wait is; the call may wait again


def has_share():
    """Whether calls of this thread's loop may go on without letting other tasks run."""
    return monotonic() < share_end


cdef class Call:
    """A call that may have to wait: what its task awaits, and the future that it waits for.

    Parameters
    ----------
    port : Port
        The device.
    path : int
        What to wait for.
    source
        Has the descriptor to look at.
    timeout : float or None
        Seconds, checked.
    attempt, arguments
        What answers something true once there is something to answer.
    """

    def __cinit__(self, Port port not None, int path, source, timeout, attempt, tuple arguments):
        self.port = port
        self.path = path
        self.source = source
        self.timeout = timeout
        self.attempt = attempt
        self.arguments = arguments

    # What `await` uses.

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        return self.step()

    cdef object step(self):
        """Raises StopIteration with what the attempt answers, or has the task yield."""
        if self.state == IS_NEW and monotonic() >= share_end:
            self.state = IS_DUE
            return None
        if self.state != IS_NEW:
            self.renew_share()
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.outcome < 0:
            raise self.port.failure(self.path, self.outcome, b"")
        if self.is_late:
            raise timed_out(self.path)
        while True:
            result = self.attempt(*self.arguments)
            if result:
                raise StopIteration(result)
            if self.wait():
                return self

    cdef void renew_share(self):
        global share_end
        share_end = monotonic() + SHARE

    def throw(self, kind, value=None, trace=None):
        self.close()
        if value is None:
            value = kind() if isinstance(kind, type) else kind
        raise value

    def close(self):
        self.leave()
        if self.timer is not None:
            self.timer.cancel()

    # --- the wait ---

    cdef bint wait(self) except -1:
        """Queue up; False if there is no need to."""
        cdef bint again = self.state == IS_OVER
        cdef int outcome
        cdef int fd = self.source.fileno()
        loop = get_running_loop()
        if self.timeout == 0:
            raise timed_out(self.path)
        outcome = self.port.begin_wait(self.path, &self.interrupts)
        if outcome < 0:
            raise self.port.failure(self.path, outcome, b"")
        if outcome > 0:
            return False
        self.state = IS_WAITING
        try:
            waits = self.port._loops.get(loop)
            if waits is None:
                waits = AsyncioWaits(self.port, loop)
            self.line = (<AsyncioWaits> waits).line(self.path, fd)
            # One that was woken for nothing does not lose its place.
            if again:
                self.line.calls.appendleft(self)
            else:
                self.line.calls.append(self)
            if self.timeout is not None:
                if self.deadline is None:
                    self.deadline = loop.time() + self.timeout
                self.timer = loop.call_at(self.deadline, self._expire)
        except BaseException:
            self.leave()
            raise
        self._asyncio_future_blocking = True
        return True

    cdef void end(self):
        """The wait is over, for whatever reason."""
        self.state = IS_OVER
        self.outcome = self.port.end_wait(self.interrupts)

    cdef int leave(self) except -1:
        """Give up a turn that has not come."""
        if self.state == IS_WAITING:
            self.end()
            if self.line is not None and self in self.line.calls:
                self.line.calls.remove(self)
                if not self.line.calls:
                    self.line.stop()
        return 0

    def _run(self):
        """Let the task go on, here."""
        callback, self.callback = self.callback, None
        if callback is not None:
            self.context.run(callback, self)

    def _expire(self):
        if self.state == IS_WAITING:
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
        return self.state != IS_WAITING

    def result(self):
        if self.cancelled is not None:
            raise self.cancelled

    def cancel(self, msg=None):
        if self.state != IS_WAITING:
            return False
        self.leave()
        self.cancelled = CancelledError() if msg is None else CancelledError(msg)
        self.line.waits.loop.call_soon(self._run)
        return True


cdef class Line:
    """The calls that wait for one descriptor to be ready, which the loop looks at for so long."""

    def __cinit__(self, AsyncioWaits waits not None, tuple key):
        self.waits = waits
        self.key = key
        self.calls = deque()

    cdef int start(self) except -1:
        path, fd = self.key
        self.waits.port._hold()
        try:
            if path == SEND:
                self.waits.loop.add_writer(fd, self)
            else:
                self.waits.loop.add_reader(fd, self)
        except BaseException:
            self.waits.port._let_go()
            raise
        self.is_looking = True
        return 0

    def __call__(self):
        """The loop has seen the descriptor ready: the call that has waited longest goes on."""
        cdef Call call = self.calls.popleft()
        call.end()
        call._run()
        if not self.calls:
            self.stop()

    cdef int stop(self) except -1:
        """Look no more."""
        if not self.is_looking:
            return 0
        self.is_looking = False
        path, fd = self.key
        waits = self.waits
        if not waits.loop.is_closed():
            if path == SEND:
                waits.loop.remove_writer(fd)
            else:
                waits.loop.remove_reader(fd)
        waits.forget_line(self)
        waits.port._let_go()
        return 0


cdef class AsyncioWaits:
    """The tasks of one asyncio loop that wait on one device; see `tuntap._loops.Waits`.

    All but `wake_soon` and `release` belongs to the thread of the loop.
    """

    def __cinit__(self, Port port not None, loop):
        self.port = port
        self.loop = loop
        self.lines = {}

    cdef Line line(self, int path, int fd):
        """Where to queue up; the loop looks from now on."""
        key = (path, fd)
        line = self.lines.get(key)
        if line is None:
            line = Line(self, key)
            (<Line> line).start()
            self.lines[key] = line
            self.port._loops[self.loop] = self
        return line

    cdef int forget_line(self, Line line) except -1:
        del self.lines[line.key]
        if not self.lines:
            self.port._loops.pop(self.loop, None)
        return 0

    def wake_soon(self):
        try:
            self.loop.call_soon_threadsafe(self._wake)
        except RuntimeError:
            pass                           # it is closed: no task of it can be woken

    def _wake(self):
        for line in list(self.lines.values()):
            self.dismiss(line)

    cdef int dismiss(self, Line line) except -1:
        """Let every call look at the device again."""
        cdef Call call
        for call in line.calls.copy():
            call.leave()
            if not self.loop.is_closed():
                self.loop.call_soon(call._run)
        line.stop()
        return 0

    def release(self):
        if self.loop.is_running() and _get_running_loop() is not self.loop:
            self.wake_soon()
        else:
            self._wake()

    def forget(self):
        cdef Line line
        cdef Call call
        for line in self.lines.values():
            line.is_looking = False
            for call in line.calls:
                call.state = IS_OVER
            line.calls.clear()
