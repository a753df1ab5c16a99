"""`tuntap.Event` and ``event=``: what ends calls of several devices, from threads and signal handlers."""

import contextlib
import ctypes
import errno
import gc
import os
import select
import signal
import sys
import threading
import time

import pytest
from forks import fork, reap
from threads import PATIENCE, CallThread

import tuntap
from tuntap import ClosedError, Event, InterruptError, Tun, framed
from tuntap.testing import pair, udp

HOST, PEER = "10.8.0.1", "10.8.0.2"
PACKET = udp(HOST, PEER, 1, 2, b"x" * 100)
RECEIVES = ["recv", "recv_into", "recv_vectored", "recv_batch", "wait_readable", "framed.recv"]
SENDS = ["send", "send_vectored", "send_batch", "wait_writable", "framed.flush"]


def is_ready(event):
    """Whether who waits for its descriptor, or on Windows its handle, need not wait."""
    if sys.platform == "win32":
        wait = ctypes.windll.kernel32.WaitForSingleObject
        return wait(ctypes.c_void_p(event.fileno()), 0) == 0
    return select.select([event], [], [], 0)[0] == [event]


def fill(device):
    """Send until there is no more room."""
    with contextlib.suppress(TimeoutError):
        while True:
            device.send(PACKET, timeout=0)


def drain(device):
    """Everything there is to receive."""
    packets = []
    with contextlib.suppress(TimeoutError):
        while True:
            packets.append(device.recv(timeout=0))
    return packets


def caller(device, name):
    """One call on the device, as a function of ``timeout`` and ``event``."""
    if name in ("recv_batch", "send_batch"):
        batch = device.batch(4)
        batch.fill([PACKET] * 4)
        method = getattr(device, name)
        return lambda timeout=None, **event: method(batch, timeout, **event)
    if name == "framed.flush":
        writer = framed.FramedWriter(device, framed.BytesCodec())
        writer.feed(PACKET)
        return writer.flush
    if name == "framed.recv":
        return framed.FramedReader(device, framed.BytesCodec()).recv
    method = getattr(device, name)
    arguments = {
        "recv_into": [bytearray(2000)],
        "recv_vectored": [[bytearray(20), bytearray(2000)]],
        "send": [PACKET],
        "send_vectored": [[PACKET[:20], PACKET[20:]]],
    }.get(name, [])
    return lambda timeout=None, **event: method(*arguments, timeout, **event)


@pytest.fixture
def ends():
    one, other = pair()
    with one, other:
        yield one, other


@pytest.fixture(params=[*RECEIVES, *SENDS])
def waiting(request, ends):
    """A call that would have to wait, and what lets it be served."""
    if request.param in SENDS:
        fill(ends[0])
        return caller(ends[0], request.param), lambda: drain(ends[1])
    return caller(ends[0], request.param), lambda: ends[1].send(PACKET)


@pytest.fixture
def handler():
    """Install a function for SIGALRM, for the length of the test."""
    if not hasattr(signal, "SIGALRM"):
        pytest.skip("this system has no timer that sends a signal")
    before = signal.getsignal(signal.SIGALRM)
    yield lambda function: signal.signal(signal.SIGALRM, lambda *_: function())
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


class TestObject:
    def test_is_set_and_clear(self):
        event = Event()
        assert not event.is_set()
        assert event.value == 0
        assert repr(event) == "<Event, not set>"
        event.set()
        assert event.is_set() is True
        assert event.value == 1
        assert repr(event) == "<Event, set to 1>"
        event.clear()
        event.clear()
        assert event.is_set() is False

    def test_the_first_value_stays_until_clear(self):
        event = Event()
        event.set(7)
        event.set(8)
        event.set()
        assert event.value == 7
        event.clear()
        assert event.value == 0
        event.set(value=8)
        assert event.value == 8

    @pytest.mark.parametrize("value", [1, -1, 2**31 - 1, -(2**31), True])
    def test_values(self, value):
        event = Event()
        event.set(value)
        assert event.value == value

    @pytest.mark.parametrize(
        ("value", "error"),
        [
            (0, ValueError), (False, ValueError), (2**31, ValueError), (-(2**31) - 1, ValueError),
            (2**70, ValueError),            (1.5, TypeError), ("1", TypeError), (None, TypeError),
        ],
    )  # fmt: skip
    def test_what_is_no_value(self, value, error):
        event = Event()
        with pytest.raises(error):
            event.set(value)
        assert not event.is_set()

    def test_a_descriptor_to_wait_for(self):
        event = Event()
        for _ in range(3):
            assert not is_ready(event)
            event.set()
            event.set()
            assert is_ready(event)
            event.clear()

    @pytest.mark.skipif(sys.platform != "linux", reason="only there one can look at what is open")
    def test_many_leave_nothing_open(self):
        before = len(os.listdir("/proc/self/fd"))
        events = [Event() for _ in range(50)]
        assert len({event.fileno() for event in events}) == 50
        events[0].set()
        events.clear()
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) == before

    def test_set_and_clear_by_many_threads(self):
        event = Event()

        def work():
            for _ in range(2000):
                event.set()
                event.clear()

        threads = [CallThread(work) for _ in range(4)]
        for thread in threads:
            thread.join(PATIENCE)
        assert not event.is_set()
        assert not is_ready(event)
        event.set()
        assert is_ready(event)


class TestCalls:
    @pytest.mark.parametrize("timeout", [None, 0, 1, 1e-9])
    def test_that_begin_while_it_is_set(self, waiting, timeout):
        call, serve = waiting
        event = Event()
        event.set()
        for _ in range(2):
            with pytest.raises(InterruptError) as caught:
                call(timeout, event=event)
            assert caught.value.errno == errno.EINTR
        serve()
        with pytest.raises(InterruptError):  # even if they need not wait
            call(timeout, event=event)
        event.clear()
        call(PATIENCE, event=event)

    def test_that_wait_when_it_is_set(self, waiting):
        call, serve = waiting
        event = Event()
        thread = CallThread(lambda: call(event=event)).wait_until_blocked()
        event.set()
        thread.join(PATIENCE)
        assert isinstance(thread.error, InterruptError)
        assert "clear()" in str(thread.error)
        event.clear()
        with pytest.raises(TimeoutError):
            call(0.01, event=event)
        serve()
        call(PATIENCE, event=event)

    def test_that_were_given_none(self, waiting):
        call, serve = waiting
        Event().set()
        thread = CallThread(lambda: call(event=None)).wait_until_blocked()
        serve()
        thread.join(PATIENCE)
        assert thread.error is None

    def test_whose_time_is_over(self, waiting):
        call, _ = waiting
        event = Event()
        for timeout in (0, 1e-9, 0.03):
            begin = time.monotonic()
            with pytest.raises(TimeoutError):
                call(timeout, event=event)
            assert time.monotonic() - begin >= timeout

    @pytest.mark.parametrize("timeout", [-1, float("nan"), "1"])
    def test_whose_time_is_none(self, waiting, timeout):
        call, _ = waiting
        with pytest.raises((ValueError, TypeError)):
            call(timeout, event=Event())

    @pytest.mark.parametrize("event", [threading.Event(), 1, "event", object(), True])
    def test_that_were_given_something_else(self, waiting, event):
        call, _ = waiting
        with pytest.raises(TypeError, match="event"):
            call(0, event=event)

    def test_from_a_signal_handler(self, waiting, handler):
        call, serve = waiting
        event = Event()
        handler(event.set)
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        with pytest.raises(InterruptError):
            call(event=event)
        event.clear()
        serve()
        call(PATIENCE, event=event)

    def test_of_a_waiter_for_which_it_was_set_for_a_moment_only(self, ends):
        event = Event()
        stop = time.monotonic() + 0.3

        def wait():
            with contextlib.suppress(InterruptError):
                while time.monotonic() < stop:
                    with contextlib.suppress(InterruptError):
                        ends[0].wait_readable(event=event)
                        return "readable"
            return None

        thread = CallThread(wait)
        while thread.is_alive() and time.monotonic() < stop:
            event.set()
            event.clear()
        event.set()
        thread.join(PATIENCE)
        assert thread.error is None
        assert thread.result is None

    def test_on_several_devices_at_once(self):
        event = Event()
        with contextlib.ExitStack() as stack:
            devices = [stack.enter_context(device) for _ in range(3) for device in pair()]
            for device in devices:
                fill(device)
                fill(device)
            for _ in range(2):
                threads = [CallThread(lambda d=d: d.send(PACKET, event=event)) for d in devices]
                threads += [CallThread(lambda d=d: d.send(PACKET, event=event)) for d in devices]
                for thread in threads:
                    thread.wait_until_blocked()
                event.set(3)
                for thread in threads:
                    thread.join(PATIENCE)
                    assert isinstance(thread.error, InterruptError)
                event.clear()

    def test_each_with_an_event_of_its_own(self, ends):
        events = [Event() for _ in range(3)]
        threads = [CallThread(lambda e=e: ends[0].recv(event=e)).wait_until_blocked() for e in events]
        events[1].set()
        threads[1].join(PATIENCE)
        assert isinstance(threads[1].error, InterruptError)
        threads[0].wait_until_blocked()
        threads[2].wait_until_blocked()
        events[0].set()
        events[2].set()
        for thread in threads:
            thread.join(PATIENCE)

    def test_of_a_real_device(self, net):
        event = Event()
        with Tun(quiet=True) as tun:
            thread = CallThread(lambda: tun.recv(event=event)).wait_until_blocked()
            event.set()
            thread.join(PATIENCE)
            assert isinstance(thread.error, InterruptError)

    def test_of_a_device_with_offload(self):
        event = Event()
        one, other = pair(offload=True)
        with one, other:
            thread = CallThread(lambda: one.recv(event=event)).wait_until_blocked()
            event.set()
            thread.join(PATIENCE)
            assert isinstance(thread.error, InterruptError)


class TestPackets:
    def test_a_device_that_is_never_empty_ends_all_the_same(self, ends):
        one, other = ends
        event = Event()
        stop = threading.Event()

        def flood():
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    other.send(PACKET, 0.01)

        def receive():
            batch = one.batch(8)
            while True:
                one.recv_batch(batch, event=event)

        sender = CallThread(flood)
        receiver = CallThread(receive)
        time.sleep(0.05)
        event.set()
        receiver.join(PATIENCE)
        stop.set()
        sender.join(PATIENCE)
        assert isinstance(receiver.error, InterruptError)

    @pytest.mark.parametrize("name", ["recv", "recv_into", "recv_vectored", "recv_batch"])
    def test_none_is_lost_in_a_storm_of_sets(self, ends, name):
        one, other = ends
        event = Event()
        wanted = 3000
        call = caller(one, name)
        found = 0
        stop = threading.Event()

        def storm():
            while not stop.is_set():
                event.set()
                event.clear()

        def send():
            for _ in range(wanted):
                other.send(PACKET)

        threads = [CallThread(storm), CallThread(send)]
        ends_at = time.monotonic() + 3 * PATIENCE
        try:
            while found < wanted and time.monotonic() < ends_at:
                with contextlib.suppress(InterruptError, TimeoutError):
                    answer = call(0.5, event=event)
                    found += answer if name == "recv_batch" else 1
        finally:
            stop.set()
            for thread in threads:
                thread.join(PATIENCE)
        assert found == wanted
        assert drain(one) == []

    def test_a_batch_that_had_begun_answers_how_far_it_came(self, ends):
        one, other = ends
        fill(one)
        batch = one.batch(64)
        batch.fill([udp(HOST, PEER, 9, i, b"y" * 100) for i in range(64)])
        received = [other.recv(0) for _ in range(8)]
        event = Event()
        thread = CallThread(lambda: one.send_batch(batch, event=event)).wait_until_blocked()
        event.set()
        thread.join(PATIENCE)
        assert thread.error is None
        assert 0 < thread.result < 64
        with pytest.raises(InterruptError):  # the event goes on to end calls
            one.send_batch(batch, start=thread.result, event=event)
        event.clear()
        rest = CallThread(lambda: one.send_batch(batch, start=thread.result, event=event))
        while rest.is_alive():
            received += drain(other)
        received += drain(other)
        assert rest.result == 64 - thread.result
        assert received[-64:] == [bytes(packet) for packet in batch]

    def test_what_was_received_before_is_left_for_the_next_call(self):
        one, other = pair(offload=True)
        with one, other:
            batch = other.batch(16)
            batch.fill([udp(HOST, PEER, 1, 2, bytes([i]) * 1000) for i in range(8)])
            other.send_batch(batch)
            event = Event()
            assert one.recv(0, event=event)[-1:] == b"\0"
            event.set()
            with pytest.raises(InterruptError):
                one.recv(event=event)
            event.clear()
            assert [packet[-1] for packet in drain(one)] == [*range(1, 8)]


class TestBesideOtherEnds:
    def test_close_wins(self, ends):
        event = Event()
        thread = CallThread(lambda: ends[0].recv(event=event)).wait_until_blocked()
        ends[0].close()
        event.set()
        thread.join(PATIENCE)
        assert isinstance(thread.error, ClosedError)

    def test_a_closed_device_and_an_event_that_is_set(self, waiting, ends):
        call, _ = waiting
        event = Event()
        ends[0].close()
        with pytest.raises(ClosedError):
            call(event=event)

    def test_an_interrupt_ends_a_call_that_has_an_event(self, waiting, ends):
        call, serve = waiting
        event = Event()
        thread = CallThread(lambda: call(event=event)).wait_until_blocked()
        ends[0].interrupt()
        thread.join(PATIENCE)
        assert isinstance(thread.error, InterruptError)
        assert "interrupt()" in str(thread.error)
        serve()
        call(PATIENCE, event=event)

    def test_an_interrupt_for_later_stays_while_the_event_ends_calls(self, ends):
        event = Event()
        event.set()
        ends[0].interrupt()
        with pytest.raises(InterruptError, match="event is set"):
            ends[0].recv(event=event)
        with pytest.raises(InterruptError, match="ended the wait"):
            ends[0].recv()
        with pytest.raises(TimeoutError):
            ends[0].recv(0.01)

    def test_the_end_of_the_other_end(self, ends):
        event = Event()
        thread = CallThread(lambda: ends[0].recv(event=event)).wait_until_blocked()
        ends[1].close()
        thread.join(PATIENCE)
        assert isinstance(thread.error, tuntap.DeviceGoneError)

    def test_it_may_be_forgotten_while_a_call_waits(self, ends):
        thread = CallThread(lambda: ends[0].recv(event=Event())).wait_until_blocked()
        gc.collect()
        fds = [Event() for _ in range(10)]  # a descriptor of it that was closed would be one of these
        for event in fds:
            event.set()
        thread.wait_until_blocked()
        ends[1].send(PACKET)
        thread.join(PATIENCE)
        assert thread.result == PACKET


class TestFork:
    def test_what_a_child_does_is_nothing_to_the_parent(self, ends):
        event = Event()
        thread = CallThread(lambda: ends[0].recv(event=event)).wait_until_blocked()

        def child():
            event.set(5)
            assert event.value == 5
            with contextlib.suppress(InterruptError):
                ends[0].recv(event=event)

        reap(fork(child))
        thread.wait_until_blocked()
        assert not event.is_set()
        assert not is_ready(event)
        event.set()
        thread.join(PATIENCE)
        assert isinstance(thread.error, InterruptError)

    def test_one_that_is_set_is_so_in_the_child(self, ends):
        event = Event()
        event.set(9)

        def child():
            assert event.value == 9
            assert is_ready(event)
            event.clear()
            assert not is_ready(event)

        reap(fork(child))
        assert event.value == 9
        assert is_ready(event)

    def test_while_another_thread_sets_it(self):
        event = Event()
        stop = threading.Event()

        def storm():
            while not stop.is_set():
                event.set()
                event.clear()

        def child():
            event.set()
            event.clear()
            assert not is_ready(event)
            event.set()
            assert is_ready(event)

        thread = CallThread(storm)
        try:
            for _ in range(20):
                reap(fork(child))
        finally:
            stop.set()
            thread.join(PATIENCE)


def test_a_handler_that_sets_it_while_it_is_being_set(handler):
    event = Event()
    calls = []
    handler(lambda: (event.set(), event.clear(), calls.append(1)))
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    deadline = time.monotonic() + PATIENCE
    while len(calls) < 50 and time.monotonic() < deadline:
        event.set()
        event.clear()
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert len(calls) >= 50


def test_select_on_a_device_and_an_event(ends):
    event = Event()
    one, other = ends
    other.send(PACKET)
    assert select.select([one, event], [], [], 0)[0] == [one]
    event.set()
    assert select.select([one, event], [], [], 0)[0] == [one, event]
