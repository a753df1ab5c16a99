"""wait_readable and wait_writable: when a receive or a send need not wait, and what ends the wait."""

import asyncio
import contextlib
import errno
import os
import signal
import socket
import time

import pytest
from threads import PATIENCE, CallThread

import tuntap
from tuntap import ClosedError, InterruptError, Tap, Tun, aio
from tuntap.testing import pair, tcp, udp

HOST, PEER = "10.8.0.1", "10.8.0.2"
PACKET = udp(HOST, PEER, 1, 2, b"x" * 100)
BOTH = ["wait_readable", "wait_writable"]


def fill(device):
    with contextlib.suppress(TimeoutError):
        while True:
            device.send(PACKET, timeout=0)


@pytest.fixture
def ends():
    one, other = pair()
    with one, other:
        yield one, other


@pytest.fixture(params=BOTH)
def waiting(request, ends):
    """A wait that has to wait, and what ends it."""
    one, other = ends
    if request.param == "wait_writable":
        fill(one)

        def serve():
            with contextlib.suppress(TimeoutError):
                while True:
                    other.recv(timeout=0)
    else:

        def serve():
            other.send(PACKET)

    return getattr(one, request.param), serve


@pytest.fixture(params=[Tun, Tap])
def device(request, net):
    with request.param(addresses=[f"{HOST}/24"], quiet=True) as device:
        yield device


def send_something():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.sendto(b"x", ("10.8.0.255", 9))


@pytest.fixture
def eventually():
    """Wait for what the kernel does in its own time."""

    def wait(condition):
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.005)

    return wait


def finish(thread):
    thread.join(PATIENCE)
    assert not thread.is_alive(), "the call hangs"
    return thread.error


class TestBoth:
    @pytest.mark.parametrize("timeout", [None, 0, 1e-9, 5])
    def test_what_is_ready_is_not_waited_for(self, waiting, timeout):
        wait, serve = waiting
        serve()
        for _ in range(2):  # looking takes nothing away
            assert wait(timeout) is None

    def test_what_becomes_ready(self, waiting):
        wait, serve = waiting
        thread = CallThread(wait).wait_until_blocked()
        serve()
        assert finish(thread) is None
        assert thread.result is None

    @pytest.mark.parametrize("timeout", [0, 1e-9, 0.03])
    def test_time_that_is_over(self, waiting, timeout):
        wait, _ = waiting
        begin = time.monotonic()
        with pytest.raises(TimeoutError) as caught:
            wait(timeout)
        assert time.monotonic() - begin >= timeout
        assert caught.value.errno == errno.ETIMEDOUT

    @pytest.mark.parametrize("timeout", [-1, float("nan"), "1", True])
    def test_time_that_is_none(self, waiting, timeout):
        wait, serve = waiting
        for _ in range(2):
            with pytest.raises((ValueError, TypeError)):
                wait(timeout)
            serve()

    def test_an_interrupt(self, waiting, ends):
        wait, serve = waiting
        thread = CallThread(wait).wait_until_blocked()
        ends[0].interrupt()
        assert isinstance(finish(thread), InterruptError)
        ends[0].interrupt()
        with pytest.raises(TimeoutError):
            wait(0)  # does not wait, so it is not ended
        with pytest.raises(InterruptError):
            wait(None)
        ends[0].interrupt()
        serve()
        wait(None)  # need not wait
        wait(0)

    @pytest.mark.parametrize("end", ["close", "shutdown"])
    def test_the_end_of_the_device(self, waiting, ends, end):
        wait, serve = waiting
        thread = CallThread(wait).wait_until_blocked()
        getattr(ends[0], end)()
        assert isinstance(finish(thread), ClosedError)
        if end == "shutdown":
            serve()
        for timeout in (None, 0):
            with pytest.raises(ClosedError):
                wait(timeout)

    def test_the_end_of_the_other_end_is_for_the_next_call_to_say(self, ends):
        thread = CallThread(ends[0].wait_readable).wait_until_blocked()
        ends[1].close()
        assert finish(thread) is None
        ends[0].wait_writable(0)
        with pytest.raises(tuntap.DeviceGoneError):
            ends[0].recv()

    def test_a_signal_handler_that_raises(self, waiting):
        wait, _ = waiting

        def handler(*_):
            raise LookupError

        before = signal.signal(signal.SIGALRM, handler)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            with pytest.raises(LookupError):
                wait(PATIENCE)
        finally:
            signal.signal(signal.SIGALRM, before)

    def test_a_signal_handler_that_returns(self, waiting):
        wait, serve = waiting
        before = signal.signal(signal.SIGALRM, lambda *_: serve())
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            wait(PATIENCE)
        finally:
            signal.signal(signal.SIGALRM, before)

    def test_of_many_threads(self, waiting):
        wait, serve = waiting
        threads = [CallThread(wait).wait_until_blocked() for _ in range(4)]
        serve()
        assert [finish(thread) for thread in threads] == [None] * 4

    def test_it_does_not_spin(self, waiting):
        wait, _ = waiting
        begin = time.thread_time()
        with pytest.raises(TimeoutError):
            wait(0.2)
        assert time.thread_time() - begin < 0.1


class TestReal:
    def test_a_packet(self, device):
        thread = CallThread(device.wait_readable)
        send_something()
        assert finish(thread) is None
        device.recv(0)

    def test_a_link_that_is_down_takes_packets_when_it_is_up(self, device, eventually):
        device.wait_writable(PATIENCE)
        device.down()
        with pytest.raises(TimeoutError):
            device.wait_writable(0)
        thread = CallThread(device.wait_writable).wait_until_blocked()
        device.up()
        assert finish(thread) is None
        eventually(lambda: device.is_running)
        device.send(PACKET if isinstance(device, Tun) else b"\2" * 12 + b"\x08\0" + PACKET, 0)

    @pytest.mark.parametrize("name", BOTH)
    def test_deletion_is_for_the_next_call_to_say(self, device, name):
        device.down()
        wait = getattr(device, name)
        thread = CallThread(wait).wait_until_blocked()
        tuntap.delete(device.name)
        assert isinstance(finish(thread), tuntap.DeviceGoneError | None)
        with contextlib.suppress(tuntap.DeviceGoneError):
            wait(PATIENCE)
        with pytest.raises(tuntap.DeviceGoneError):
            device.recv(0)

    def test_a_descriptor_that_was_closed_behind_our_back(self, net):
        tun = Tun(quiet=True)
        os.close(tun.fileno())
        try:
            for name in BOTH:
                with contextlib.suppress(ClosedError):
                    getattr(tun, name)(PATIENCE)
            with pytest.raises(ClosedError):
                tun.recv(0)
        finally:
            with open(os.devnull) as stand_in:  # close() closes that number again
                os.dup2(stand_in.fileno(), tun.fileno())
            tun.close()


class TestSegments:
    def test_in_memory_are_readable_although_the_descriptor_is_not(self):
        one, other = pair(offload=True)
        with one, other:
            batch = other.batch(8)
            batch.fill([tcp(HOST, PEER, 1, 2, b"x" * 1000, seq=1000 * i) for i in range(4)])
            other.send_batch(batch)
            for pending in (3, 2, 1):
                one.recv(PATIENCE)
                assert one.pending == pending
                for timeout in (None, 0, 1):
                    one.wait_readable(timeout)
            one.recv(0)
            with pytest.raises(TimeoutError):
                one.wait_readable(0)

    def test_that_another_thread_has_left(self):
        one, other = pair(offload=True)
        with one, other:
            batch = other.batch(8)
            batch.fill([tcp(HOST, PEER, 1, 2, b"x" * 1000, seq=1000 * i) for i in range(4)])
            threads = [CallThread(one.wait_readable).wait_until_blocked() for _ in range(2)]
            receiver = CallThread(one.recv)
            other.send_batch(batch)
            assert [finish(thread) for thread in (*threads, receiver)] == [None] * 3
            assert one.pending == 3


class TestAsynchronous:
    def test_both(self):
        async def run():
            one, other = pair(aio.Tun)
            async with one, other:
                task = asyncio.create_task(one.wait_readable())
                with pytest.raises(TimeoutError):
                    await one.wait_readable(0)
                with pytest.raises(TimeoutError):
                    await one.wait_readable(0.01)
                assert not task.done()
                await other.send(PACKET)
                assert await asyncio.wait_for(task, PATIENCE) is None
                await one.wait_readable()
                await one.wait_readable(0)
                await one.wait_writable()
                with contextlib.suppress(TimeoutError):
                    while True:
                        await one.send(PACKET, 0)
                task = asyncio.create_task(one.wait_writable())
                await asyncio.sleep(0.01)
                assert not task.done()
                with contextlib.suppress(TimeoutError):
                    while True:
                        await other.recv(0)
                assert await asyncio.wait_for(task, PATIENCE) is None
                await one.recv()

        asyncio.run(run())

    @pytest.mark.parametrize(("end", "error"), [("interrupt", InterruptError), ("close", ClosedError)])
    def test_what_ends_them(self, end, error):
        async def run():
            one, other = pair(aio.Tun)
            async with one, other:
                with contextlib.suppress(TimeoutError):
                    while True:
                        await one.send(PACKET, 0)
                tasks = [asyncio.create_task(getattr(one, name)()) for name in BOTH]
                await asyncio.sleep(0.01)
                getattr(one, end)()
                answers = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), PATIENCE)
                assert [type(answer) for answer in answers] == [error] * 2

        asyncio.run(run())

    def test_what_is_ready_is_not_interrupted(self):
        async def run():
            one, other = pair(aio.Tun)
            async with one, other:
                await other.send(PACKET)
                one.interrupt()
                await one.wait_readable()
                await one.wait_writable()
                await one.recv()
                with pytest.raises(InterruptError):
                    await one.wait_readable()

        asyncio.run(run())
