"""The same cases on asyncio, uvloop and trio: waits, cancellation, time-outs, and all that ends them.

What a packet says is its number: a receiver that gets each number once has lost and duplicated nothing.
"""

import asyncio
import contextlib
import contextvars
import errno
import faulthandler
import fcntl
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import time
import types

import numpy as np
import pytest
import trio
import uvloop
from numbered import HOST, PEER, fill, number_of, numbered, put, take, take_all
from threads import PATIENCE, CallThread

import tuntap
from tuntap import ClosedError, DeviceGoneError, InterruptError, LinkDownError, PacketBatch, aio
from tuntap.testing import checksum, icmp_echo, pair, udp

# --- one face for the three loops ---


class AsyncioTask:
    """A task, what came of it, and whether it was cancelled."""

    def __init__(self, function, arguments):
        self.result = self.error = None
        self.cancelled = False
        self.ends = 0
        self.task = asyncio.get_running_loop().create_task(self._run(function, arguments))

    async def _run(self, function, arguments):
        try:
            self.result = await function(*arguments)
        except asyncio.CancelledError:
            self.cancelled = True
        except Exception as error:
            self.error = error
        self.ends += 1

    @property
    def done(self):
        return self.task.done()

    def cancel(self):
        self.task.cancel()

    async def wait(self):
        await asyncio.wait([self.task], timeout=PATIENCE)
        assert self.task.done(), f"hangs: {self.task!r}"
        self.cancelled = self.cancelled or self.task.cancelled()  # before it began
        return self


class AsyncioTasks:
    async def __aenter__(self):
        self.tasks = []
        return self

    def spawn(self, function, *arguments):
        task = AsyncioTask(function, arguments)
        self.tasks.append(task)
        return task

    async def __aexit__(self, *unused):
        for task in self.tasks:
            task.cancel()
        for task in self.tasks:
            await task.wait()


class Asyncio:
    name = "asyncio"
    Tasks = AsyncioTasks
    sleep = staticmethod(asyncio.sleep)
    factory = None

    def __init__(self, debug=False):
        self.debug = debug

    def run(self, function, *arguments):
        with asyncio.Runner(loop_factory=self.factory, debug=self.debug) as runner:
            return runner.run(function(*arguments))

    @staticmethod
    async def move_on_after(seconds, function, *arguments):
        """What it answers, None if the time was over."""
        try:
            async with asyncio.timeout(seconds):
                return await function(*arguments)
        except TimeoutError:
            return None

    @staticmethod
    def call_later(seconds, function):
        asyncio.get_running_loop().call_later(seconds, function)

    @staticmethod
    async def in_another_task(function):
        await asyncio.get_running_loop().create_task(Asyncio._call(function))

    @staticmethod
    async def _call(function):
        function()


class Uvloop(Asyncio):
    name = "uvloop"
    factory = staticmethod(uvloop.new_event_loop)


class TrioTask:
    def __init__(self, nursery, function, arguments):
        self.result = self.error = None
        self.cancelled = self.done = False
        self.ends = 0
        self.scope = trio.CancelScope()
        self.over = trio.Event()
        nursery.start_soon(self._run, function, arguments)

    async def _run(self, function, arguments):
        with self.scope:
            try:
                self.result = await function(*arguments)
            except trio.Cancelled:
                self.cancelled = True
                raise
            except Exception as error:
                self.error = error
        self.ends += 1
        self.done = True
        self.over.set()

    def cancel(self):
        self.scope.cancel()

    async def wait(self):
        with trio.move_on_after(PATIENCE):
            await self.over.wait()
        assert self.done, "hangs"
        return self


class TrioTasks:
    async def __aenter__(self):
        self._manager = trio.open_nursery()
        self._nursery = await self._manager.__aenter__()
        return self

    def spawn(self, function, *arguments):
        return TrioTask(self._nursery, function, arguments)

    async def __aexit__(self, *error):
        self._nursery.cancel_scope.cancel()
        return await self._manager.__aexit__(*error)


class Trio:
    name = "trio"
    Tasks = TrioTasks
    sleep = staticmethod(trio.sleep)

    def __init__(self, debug=False):
        pass

    @staticmethod
    def run(function, *arguments):
        try:
            return trio.run(function, *arguments)
        except BaseExceptionGroup as group:
            error = group
            while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
                error = error.exceptions[0]
            raise error from None

    @staticmethod
    async def move_on_after(seconds, function, *arguments):
        with trio.move_on_after(seconds):
            return await function(*arguments)
        return None

    @staticmethod
    async def in_another_task(function):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Asyncio._call, function)


LOOPS = [Asyncio, Uvloop, Trio]


@pytest.fixture(params=LOOPS, ids=lambda loop: loop.name)
def loop(request):
    return request.param()


@pytest.fixture(params=LOOPS[:2], ids=lambda loop: loop.name)
def asyncio_loop(request):
    return request.param()


async def settle(loop):
    """Every task has run until it waits."""
    for _ in range(10):
        await loop.sleep(0)


async def until(loop, condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "never so"
        await loop.sleep(0.001)


def looked_at():
    """Descriptors that a loop of this process looks at; -1 for one at which a device looks for room."""
    entries = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}") == "anon_inode:[eventpoll]":
                with open(f"/proc/self/fdinfo/{name}") as file:
                    lines = [line.split() for line in file if line.startswith("tfd:")]
                entries[int(name)] = {int(words[1]): int(words[3], 16) for words in lines}
    rooms = {
        fd for fd, targets in entries.items() if any(mask & select.EPOLLPRI for mask in targets.values())
    }
    return {
        -1 if target in rooms else target
        for fd in entries.keys() - rooms
        for target, mask in entries[fd].items()
        if mask & (select.EPOLLIN | select.EPOLLOUT)
    }


def assert_nothing_waits(*devices):
    """No loop knows these devices any more, and none waits for room at any."""
    found = looked_at()
    assert -1 not in found
    for device in devices:
        assert device._loops == {}
        assert device.fileno() not in found


@pytest.fixture(scope="module", autouse=True)
def _stderr(request):
    """The real standard error, which pytest hides while it captures."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        fd = os.dup(2)
    yield fd
    os.close(fd)


@pytest.fixture(scope="module", autouse=True)
def _warm():
    """The first loop of uvloop opens descriptors that stay open."""
    uvloop.new_event_loop().close()


@pytest.fixture(autouse=True)
def _watchdog(_stderr):
    """A hang ends the run and shows where."""
    faulthandler.dump_traceback_later(60, exit=True, file=_stderr)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture
def ends():
    """Two asynchronous devices in memory."""
    one, other = pair(aio.Tun)
    with one, other:
        yield one, other


@pytest.fixture
def tun(net):
    with aio.Tun(addresses=[f"{HOST}/24"], quiet=True) as tun:
        yield tun


# --- calls that wait ---

RECEIVES = ["recv", "recv_into", "recv_vectored", "recv_batch"]
SENDS = ["send", "send_vectored", "send_batch"]
CALLS = [*RECEIVES, "wait_readable", *SENDS, "wait_writable", "events"]
BATCH = 3


def caller(device, name, number=0):
    """A call as a function of its keyword arguments; its answer is the numbers of the packets it moved."""
    if name == "recv_into":
        buffer = bytearray(200)
        return answering(lambda size: [number_of(buffer[:size])], device.recv_into, buffer)
    if name == "recv_vectored":
        parts = bytearray(10), bytearray(200)
        return answering(lambda size: [number_of((parts[0] + parts[1])[:size])], device.recv_vectored, parts)
    if name == "recv_batch":
        batch = device.batch(BATCH)
        return answering(lambda count: [number_of(batch[i]) for i in range(count)], device.recv_batch, batch)
    if name == "recv":
        return answering(lambda packet: [number_of(packet)], device.recv)
    if name == "send":
        return answering(lambda size: [number], device.send, numbered(number))
    if name == "send_vectored":
        packet = numbered(number)
        return answering(lambda size: [number], device.send_vectored, [packet[:9], packet[9:]])
    if name == "send_batch":
        batch = device.batch(BATCH)
        batch.fill([numbered(number + i) for i in range(BATCH)])
        return answering(lambda count: [number + i for i in range(count)], device.send_batch, batch)
    if name == "events":
        events = device.events()
        return answering(lambda event: [event.value], events.get)
    return answering(lambda nothing: [], getattr(device, name))


def answering(what, method, *arguments):
    async def call(**settings):
        return what(await method(*arguments, **settings))

    return call


class Case:
    """A call that has to wait, on a device in memory."""

    FIRST = 1_000_000  # number of the packets that the call sends; those that fill the pair are others

    def __init__(self, name, device, peer):
        self.name, self.device, self.peer = name, device, peer
        self.sends = name in SENDS or name == "wait_writable"
        self.filled = fill(device) if self.sends else 0
        assert self.filled < self.FIRST
        self.call = caller(device, name, self.FIRST)
        self.fed = []
        self.drained = []

    def feed(self):
        """What the call waits for happens, at once."""
        if self.name == "events":
            self.device.mtu += 1
            self.fed.append(self.device.mtu)
        elif self.sends:
            self.drained += take_all(self.peer)
        else:
            self.fed.append(len(self.fed))
            put(self.peer, numbered(self.fed[-1]), 0)

    async def check(self, moved):
        """Nothing was lost and nothing is there twice, if the calls moved this; and the device works."""
        if self.sends:
            arrived = self.drained + take_all(self.peer)
            assert arrived[: self.filled] == list(range(self.filled))
            ours = arrived[self.filled :]
            if self.name == "send_batch":  # one that was cancelled may have sent some
                assert ours[: len(moved)] == moved
                assert ours == list(range(self.FIRST, self.FIRST + len(ours)))
            else:
                assert ours == moved
        elif self.name != "events":
            assert moved + take_all(self.device) == self.fed
        assert_nothing_waits(self.device)
        put(self.peer, numbered(7), 0)
        assert number_of(await self.device.recv(timeout=PATIENCE)) == 7
        await self.device.send(numbered(8), timeout=PATIENCE)
        assert take_all(self.peer) == [8]
        assert_nothing_waits(self.device)


@pytest.fixture(params=CALLS)
def case(request, ends):
    case = Case(request.param, *ends)
    yield case
    case.call = None  # it may hold descriptors


COUNT = 10_000


@pytest.fixture(scope="module")
def requests():
    return [icmp_echo(PEER, HOST, i >> 16, i & 0xFFFF, i.to_bytes(4, "big")) for i in range(COUNT)]


class TestTransfer:
    def test_ten_thousand_packets_there_and_back(self, loop, ends):
        device, peer = ends
        counts = [0] * 3
        got = []

        async def echo(i):
            batch = peer.batch(16)
            with contextlib.suppress(ClosedError):
                while True:
                    if i:
                        await peer.send(await peer.recv())
                        counts[i] += 1
                    else:
                        n = await peer.recv_batch(batch)
                        done = 0
                        while done < n:
                            done += await peer.send_batch(batch, start=done)
                        counts[i] += n

        async def sender():
            for number in range(COUNT):
                await device.send(numbered(number))

        async def main():
            async with loop.Tasks() as tasks:
                for i in range(3):
                    tasks.spawn(echo, i)
                sent = tasks.spawn(sender)
                for _ in range(COUNT):
                    got.append(number_of(await device.recv(timeout=PATIENCE)))
                assert (await sent.wait()).error is None

        loop.run(main)
        assert sorted(got) == list(range(COUNT))
        assert sum(counts) == COUNT
        assert take_all(device) == take_all(peer) == []
        assert_nothing_waits(device, peer)

    @pytest.mark.parametrize("way", ["one", "batch"])
    def test_ten_thousand_packets_through_the_kernel_to_several_tasks(self, loop, tun, requests, way):
        window = 200  # fewer than the kernel keeps for us
        got = []

        async def receiver():
            batch = tun.batch(8)
            while True:
                if way == "one":
                    got.append(number_of(await tun.recv()))
                else:
                    n = await tun.recv_batch(batch)
                    got.extend(number_of(batch[i]) for i in range(n))

        async def main():
            batch = tun.batch(8)
            async with loop.Tasks() as tasks:
                receivers = [tasks.spawn(receiver) for _ in range(4)]
                for i in range(0, COUNT, 8):
                    if way == "one":
                        for request in requests[i : i + 8]:
                            await tun.send(request)
                    else:
                        batch.fill(requests[i : i + 8])
                        assert await tun.send_batch(batch) == 8
                    while i - len(got) > window:
                        await loop.sleep(0)
                await until(loop, lambda: len(got) >= COUNT)
                assert not any(receiver.error for receiver in receivers)

        loop.run(main)
        assert sorted(got) == list(range(COUNT))
        assert_nothing_waits(tun)

    def test_tasks_are_served_in_the_order_they_came(self, loop, ends):
        device, peer = ends
        served = []

        async def receiver(i):
            await device.recv()
            served.append(i)

        async def main():
            async with loop.Tasks() as tasks:
                for i in range(5):
                    tasks.spawn(receiver, i)
                    await settle(loop)
                for i in range(5):
                    put(peer, numbered(i), 0)
                await until(loop, lambda: len(served) == 5)

        loop.run(main)
        assert served == list(range(5))

    def test_those_that_were_woken_for_nothing_keep_their_places(self, asyncio_loop, ends):
        loop, (device, peer) = asyncio_loop, ends
        served = []

        async def receiver(i):
            await device.recv()
            served.append(i)

        async def main():
            async with loop.Tasks() as tasks:
                for i in range(5):
                    tasks.spawn(receiver, i)
                await settle(loop)
                for last in (5, 6):  # twice, as a newcomer comes in between
                    await peer.wait_writable()
                    for waits in list(device._loops.values()):
                        waits.wake_soon()
                    tasks.spawn(receiver, last)
                    await settle(loop)
                for i in range(7):
                    put(peer, numbered(i), 0)
                await until(loop, lambda: len(served) == 7)

        loop.run(main)
        assert served == list(range(7))

    def test_a_hundred_devices_on_one_loop(self, loop):
        pairs = [pair(aio.Tun) for _ in range(100)]
        got = {}

        async def receiver(i):
            got[i] = [number_of(await pairs[i][0].recv()) for _ in range(20)]

        async def main():
            async with loop.Tasks() as tasks:
                receivers = [tasks.spawn(receiver, i) for i in range(100)]
                for round in range(20):
                    for i in range(100):
                        await pairs[i][1].send(numbered(100 * round + i))
                    await loop.sleep(0)
                for receiver_task in receivers:
                    await receiver_task.wait()

        loop.run(main)
        assert got == {i: [100 * round + i for round in range(20)] for i in range(100)}
        for ends in pairs:
            assert_nothing_waits(*ends)
            for end in ends:
                end.close()

    def test_two_loops_in_two_threads_on_one_device(self, loop, ends):
        device, peer = ends
        count = 3000
        got = [[], []]

        def body(i):
            mine = type(loop)()

            async def main():
                with contextlib.suppress(ClosedError):
                    while True:
                        got[i].append(number_of(await device.recv()))

            mine.run(main)

        threads = [CallThread(body, i) for i in range(2)]
        for number in range(count):
            put(peer, numbered(number), PATIENCE)
            if number % 50 == 0:
                time.sleep(0.0005)
        deadline = time.monotonic() + PATIENCE
        while len(got[0]) + len(got[1]) < count and time.monotonic() < deadline:
            time.sleep(0.005)
        device.shutdown()
        for thread in threads:
            thread.join(PATIENCE)
            assert thread.error is None
        assert sorted(got[0] + got[1]) == list(range(count))
        assert got[0] == sorted(got[0])
        assert got[1] == sorted(got[1])
        assert_nothing_waits(device)

    def test_one_loop_receives_and_another_sends(self, loop, ends):
        """On devices of each other, so that every wait has another loop on the same device."""
        count = 3000
        got = {}

        def body(i, role):
            mine = type(loop)()

            async def main():
                if role == "send":
                    for number in range(count):
                        await ends[i].send(numbered(number), timeout=PATIENCE)
                else:
                    got[i] = [number_of(await ends[i].recv(timeout=PATIENCE)) for _ in range(count)]

            mine.run(main)

        threads = [CallThread(body, i, role) for i in range(2) for role in ("send", "recv")]
        for thread in threads:
            thread.join(2 * PATIENCE)
            assert thread.error is None
        assert got == {0: list(range(count)), 1: list(range(count))}
        assert_nothing_waits(*ends)

    def test_a_device_serves_one_loop_after_another(self, ends):
        device, peer = ends

        async def main(loop, number):
            async with loop.Tasks() as tasks:
                waiting = tasks.spawn(device.recv)
                await settle(loop)
                await peer.send(numbered(number))
                assert number_of((await waiting.wait()).result) == number

        for number, kind in enumerate([*LOOPS, *LOOPS]):
            loop = kind()
            loop.run(main, loop, number)
            assert_nothing_waits(*ends)

    def test_sends_that_need_not_wait_answer_like_those_of_a_thread(self, loop, ends):
        device, peer = ends
        packet = numbered(1)
        batch = PacketBatch(2, 64)
        batch.fill([packet, packet])

        async def main():
            assert await device.send(packet) == len(packet)
            assert await device.send(memoryview(bytearray(packet))) == len(packet)
            assert await device.send_vectored([packet[:9], b"", packet[9:]]) == len(packet)
            assert await device.send_batch(batch) == 2
            assert await device.send_batch(batch, start=1) == 1
            assert await device.send_batch(batch, start=2) == 0
            assert await peer.recv() == packet
            into = bytearray(100)
            assert await peer.recv_into(into) == len(packet)
            assert into[: len(packet)] == packet
            assert await peer.recv_vectored([bytearray(4), bytearray(100)]) == len(packet)
            assert await peer.recv_batch(batch) == 2
            assert await peer.wait_readable() is None
            assert await device.wait_writable() is None

        loop.run(main)


class TestCancel:
    def test_while_it_waits(self, loop, case):
        async def main():
            async with loop.Tasks() as tasks:
                task = tasks.spawn(case.call)
                await settle(loop)
                assert not task.done
                assert len(case.device._loops) == 1
                task.cancel()
                assert (await task.wait()).cancelled
                assert_nothing_waits(case.device)
                case.feed()
                moved = await case.call(timeout=PATIENCE)
                await case.check(moved)

        loop.run(main)

    def test_before_it_began(self, loop, case):
        async def main():
            async with loop.Tasks() as tasks:
                task = tasks.spawn(case.call)
                task.cancel()
                assert (await task.wait()).cancelled
                case.feed()
                await case.check(await case.call(timeout=PATIENCE))

        loop.run(main)

    def test_before_it_began_although_it_need_not_wait(self, loop, case):
        async def main():
            async with loop.Tasks() as tasks:
                case.feed()
                task = tasks.spawn(case.call)
                task.cancel()
                assert (await task.wait()).cancelled
                await case.check(await case.call(timeout=PATIENCE))

        loop.run(main)

    @pytest.mark.parametrize("name", CALLS)
    @pytest.mark.parametrize("first", ["data", "cancellation"])
    def test_at_the_moment_when_data_comes(self, loop, name, first):
        """The other comes at once, or after so many turns of the loop."""
        cancelled = set()

        async def main(case, later):
            async with loop.Tasks() as tasks:
                task = tasks.spawn(case.call)
                await settle(loop)
                steps = [case.feed, task.cancel]
                for i, step in enumerate(steps if first == "data" else steps[::-1]):
                    if i:
                        for _ in range(later):
                            await loop.sleep(0)
                    step()
                await task.wait()
                assert task.error is None
                assert task.cancelled == (task.result is None)
                cancelled.add(task.cancelled)
                await case.check(task.result or [])

        for later in range(4):
            device, peer = pair(aio.Tun)
            with device, peer:
                loop.run(main, Case(name, device, peer), later)
        assert cancelled == ({True, False} if first == "data" else {True})

    def test_twice_and_at_once(self, loop, case):
        async def main():
            async with loop.Tasks() as tasks:
                task = tasks.spawn(case.call)
                await settle(loop)
                task.cancel()
                task.cancel()
                assert (await task.wait()).cancelled
                assert task.ends == 1
                case.feed()
                await case.check(await case.call(timeout=PATIENCE))

        loop.run(main)

    @pytest.mark.parametrize("name", CALLS)
    def test_does_not_disturb_another_task_that_waits_for_the_same(self, loop, name):
        async def main(case, which, moment):
            async with loop.Tasks() as tasks:
                both = []
                for _ in range(2):
                    both.append(tasks.spawn(case.call))
                    await settle(loop)
                gone, stays = both if which == "first" else both[::-1]
                if moment == "with the data":
                    case.feed()
                gone.cancel()
                await gone.wait()
                if moment == "before":
                    assert gone.cancelled
                    case.feed()
                if gone.cancelled:
                    await stays.wait()
                    assert stays.error is None
                    if case.name not in SENDS:
                        await case.check(stays.result)
                else:
                    await settle(loop)

        for which in ("first", "second"):
            for moment in ("before", "with the data"):
                device, peer = pair(aio.Tun)
                with device, peer:
                    loop.run(main, Case(name, device, peer), which, moment)
                    assert_nothing_waits(device)

    def test_of_all_at_once_leaves_nothing(self, loop, ends):
        device, peer = ends
        fill(device)

        async def main():
            async with loop.Tasks() as tasks:
                waiting = [tasks.spawn(caller(device, name)) for name in CALLS for _ in range(3)]
                await settle(loop)
                assert not any(task.done for task in waiting)
                for task in waiting:
                    task.cancel()
                for task in waiting:
                    assert (await task.wait()).cancelled

        loop.run(main)
        assert_nothing_waits(device)
        put(peer, numbered(1), 0)
        assert take_all(device) == [1]

    def test_frees_the_interface_for_whoever_wants_it_next(self, loop, net):
        async def main():
            for _ in range(3):
                tun = aio.Tun("again0", exclusive=True, quiet=True)
                async with loop.Tasks() as tasks:
                    waiting = [
                        tasks.spawn(caller(tun, name)) for name in [*RECEIVES, "wait_readable", "events"]
                    ]
                    await settle(loop)
                    for task in waiting:
                        task.cancel()
                    for task in waiting:
                        await task.wait()
                    assert_nothing_waits(tun)
                    tun.close()

        loop.run(main)

    def test_one_that_never_waits_can_be_cancelled(self, loop, ends):
        device, peer = ends

        async def flooded():
            while True:
                put(peer, numbered(1), 0)
                await device.recv()

        async def main():
            async with loop.Tasks() as tasks:
                task = tasks.spawn(flooded)
                await loop.sleep(0.01)
                task.cancel()
                assert (await task.wait()).cancelled

        loop.run(main)


class TestTimeout:
    @pytest.mark.parametrize("way", ["argument", "move_on_after", "wait_for"])
    def test_a_thousand_lose_nothing(self, loop, ends, way):
        if way == "wait_for" and loop.name == "trio":
            way = "fail_after"
        device, peer = ends
        got = []
        ended = []

        async def receive(seconds):
            got.append(number_of(await device.recv()))
            return True

        async def worker(i):
            for j in range(100):
                seconds = (i * 7 + j * 3) % 10 / 10_000
                try:
                    if way == "argument":
                        got.append(number_of(await device.recv(timeout=seconds)))
                    elif way == "move_on_after":
                        if not await loop.move_on_after(seconds, receive, seconds):
                            ended.append(i)
                    elif way == "wait_for":
                        await asyncio.wait_for(receive(seconds), seconds)
                    else:
                        with trio.fail_after(seconds):
                            await receive(seconds)
                except (TimeoutError, trio.TooSlowError):
                    ended.append(i)

        async def main():
            sent = 0
            async with loop.Tasks() as tasks:
                workers = [tasks.spawn(worker, i) for i in range(10)]
                while not all(worker.done for worker in workers):
                    await loop.sleep(0.001)
                    for _ in range(2):
                        put(peer, numbered(sent), 0)
                        sent += 1
                for task in workers:
                    assert (await task.wait()).error is None
            return sent

        sent = loop.run(main)
        assert len(got) + len(ended) == 1000
        assert ended
        assert sorted(got + take_all(device)) == list(range(sent))
        assert_nothing_waits(device)

    def test_of_every_call(self, loop, case):
        async def main():
            for timeout in (0, 1e-9, 0.001, np.float32(0.001)):
                with pytest.raises(TimeoutError) as caught:
                    await case.call(timeout=timeout)
                assert caught.value.errno == errno.ETIMEDOUT
            before = time.monotonic()
            with pytest.raises(TimeoutError):
                await case.call(timeout=0.05)
            assert time.monotonic() - before >= 0.049
            case.feed()
            await case.check(await case.call(timeout=1e300))

        loop.run(main)

    def test_what_is_no_time(self, loop, case):
        async def main():
            for feed in (lambda: None, case.feed):
                feed()
                for timeout in (-1, float("nan"), -1e-9, float("-inf")):
                    with pytest.raises(ValueError):
                        await case.call(timeout=timeout)
                for timeout in (True, False, "1", b"", [], 1j):
                    with pytest.raises(TypeError):
                        await case.call(timeout=timeout)
            await case.check(await case.call())

        loop.run(main)

    def test_a_batch_that_was_sent_in_part_answers_how_far_it_came(self, loop, ends):
        device, peer = ends
        filled = fill(device)
        size = 2 * filled
        batch = device.batch(size)
        batch.fill([numbered(filled + i) for i in range(size)])

        async def main():
            async with loop.Tasks() as tasks:
                task = tasks.spawn(lambda: device.send_batch(batch, timeout=0.1))
                await settle(loop)
                arrived = [number_of(take(peer, 0)) for _ in range(filled - 10)]
                task = await task.wait()
                assert task.error is None
                sent = task.result
                assert 0 < sent < size
                with pytest.raises(TimeoutError):
                    await device.send_batch(batch, timeout=0, start=sent)
                assert arrived + take_all(peer) == list(range(filled + sent))
                assert await device.send_batch(batch, timeout=0, start=size - 10) == 10

        loop.run(main)
        assert_nothing_waits(device)


class TestArguments:
    @pytest.mark.parametrize("name", [*RECEIVES[1:], *SENDS])
    def test_of_the_wrong_type_or_size(self, loop, ends, name):
        device, peer = ends
        put(peer, numbered(1), 0)

        async def main():
            for method, argument, error in self.WRONG:
                if method == name:
                    with pytest.raises(error):
                        await getattr(device, name)(argument)

        loop.run(main)
        assert take_all(device) == [1]
        assert take_all(peer) == []
        assert_nothing_waits(device)

    WRONG = (
        ("send", 5, TypeError),
        ("send", "text", TypeError),
        ("send", None, TypeError),
        ("send", b"", ValueError),
        ("send", b"\x45" * 70000, ValueError),
        ("send_vectored", 5, TypeError),
        ("send_vectored", [5], TypeError),
        ("send_vectored", ["text"], TypeError),
        ("send_vectored", [], ValueError),
        ("send_vectored", [b"", b""], ValueError),
        ("send_batch", b"x", TypeError),
        ("send_batch", None, TypeError),
        ("recv_into", b"constant", ValueError),
        ("recv_into", 5, TypeError),
        ("recv_into", None, TypeError),
        ("recv_vectored", 5, TypeError),
        ("recv_vectored", [b"constant"], ValueError),
        ("recv_batch", bytearray(10), TypeError),
        ("recv_batch", None, TypeError),
    )

    def test_of_a_batch_out_of_range(self, loop, ends):
        device, _ = ends
        batch = device.batch(4)
        batch.fill([numbered(i) for i in range(4)])

        async def main():
            for settings in ({"start": -1}, {"stop": 9}, {"start": 3, "stop": 2}, {"start": "0"}):
                with pytest.raises((TypeError, ValueError)):
                    await device.send_batch(batch, **settings)

        loop.run(main)

    def test_lengths_that_change_while_the_batch_waits(self, loop, ends):
        device, peer = ends
        filled = fill(device)
        batch = device.batch(4)
        batch.fill([numbered(filled + i) for i in range(4)])

        async def main():
            async with loop.Tasks() as tasks:
                task = tasks.spawn(device.send_batch, batch)
                await settle(loop)
                batch.lengths[:] = 60000  # what lies behind the batch is nobody's business
                arrived = take_all(peer)
                assert isinstance((await task.wait()).error, tuntap.PacketError)
                return arrived

        assert loop.run(main) + take_all(peer) == list(range(filled))

    def test_a_buffer_that_shrinks_while_it_waits(self, loop, ends):
        device, peer = ends
        buffer = bytearray(2000)

        async def main():
            async with loop.Tasks() as tasks:
                task = tasks.spawn(device.recv_into, buffer)
                await settle(loop)
                del buffer[3:]
                put(peer, numbered(1), 0)
                assert isinstance((await task.wait()).error, tuntap.PacketError)
                assert buffer == numbered(1)[:3]

        loop.run(main)

    def test_there_is_no_event(self, loop, ends):
        async def main():
            with pytest.raises(TypeError):
                await ends[0].recv(event=tuntap.Event())

        loop.run(main)

    @pytest.mark.parametrize("name", ["recv", "wait_readable"])
    def test_outside_of_any_loop(self, ends, name):
        def drive(coroutine):
            while True:
                coroutine.send(None)

        with pytest.raises(RuntimeError, match="no running event loop"):
            drive(getattr(ends[0], name)())
        assert_nothing_waits(ends[0])

    def test_a_call_that_is_never_awaited_warns_and_does_nothing(self, ends):
        device, peer = ends
        put(peer, numbered(1), 0)
        with pytest.warns(RuntimeWarning, match="never awaited"):
            device.recv()
        assert take_all(device) == [1]

    @pytest.mark.parametrize("module", [None, types.ModuleType("trio")])
    def test_a_trio_that_is_not_there_or_not_yet_imported(self, asyncio_loop, ends, module, monkeypatch):
        device, peer = ends
        put(peer, numbered(1), 0)
        monkeypatch.setitem(sys.modules, "trio", module)

        async def main():
            return number_of(await device.recv())

        assert asyncio_loop.run(main) == 1


# --- what ends a wait ---

ERRORS = {"interrupt": InterruptError, "shutdown": ClosedError, "close": ClosedError}


def in_a_thread(function):
    """Let another thread do it, and wait for it here."""
    thread = CallThread(function)
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert thread.error is None


def on_signal(function):
    """Let a signal handler do it: it may come upon whatever the loop is doing, sleep included."""

    def handler(*unused):
        signal.signal(signal.SIGALRM, before)
        function()

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.02)


class TestEnd:
    @pytest.mark.parametrize("where", ["here", "task", "callback", "thread", "signal handler", "other loop"])
    @pytest.mark.parametrize("how", ERRORS)
    def test_of_every_call_that_waits(self, loop, ends, how, where):
        device, peer = ends
        filled = fill(device)
        calls = [caller(device, name) for name in CALLS for _ in range(2)]

        async def main():
            method = getattr(device, how)
            async with loop.Tasks() as tasks:
                waiting = [tasks.spawn(call) for call in calls]
                await settle(loop)
                assert not any(task.done for task in waiting)
                assert len(device._loops) == 1
                if where == "task":
                    await loop.in_another_task(method)
                elif where == "callback" and loop.name != "trio":
                    asyncio.get_running_loop().call_soon(method)
                elif where == "callback":
                    trio.lowlevel.current_trio_token().run_sync_soon(method)
                elif where == "thread":
                    in_a_thread(method)
                elif where == "signal handler":
                    on_signal(method)
                elif where == "other loop":
                    other = type(loop)()
                    in_a_thread(lambda: other.run(other.in_another_task, method))
                else:
                    method()
                for task in waiting:
                    await task.wait()
                    assert type(task.error) is ERRORS[how]
                    assert task.ends == 1

        loop.run(main)
        assert device._loops == {}
        assert looked_at() == set()
        if how != "close":
            assert_nothing_waits(device)
        if how == "interrupt":
            assert take_all(peer) == list(range(filled))
            put(peer, numbered(1), 0)
            assert take_all(device) == [1]

    @pytest.mark.parametrize("how", ERRORS)
    def test_before_the_call(self, loop, case, how):
        """An interrupt that finds nobody waiting is for the next call that would wait; and only for that."""

        async def main():
            getattr(case.device, how)()
            with pytest.raises(ERRORS[how]):
                await case.call(timeout=PATIENCE)
            if how == "interrupt":
                with pytest.raises(TimeoutError):
                    await case.call(timeout=0.01)
                case.device.interrupt()
                case.feed()
                moved = await case.call(timeout=PATIENCE)  # it need not wait
                with pytest.raises(InterruptError):
                    await caller(case.device, "events")(timeout=PATIENCE)
                await case.check(moved)
            else:
                with pytest.raises(ClosedError):
                    await case.call(timeout=0)

        loop.run(main)
        assert case.device._loops == {}

    @pytest.mark.parametrize("how", ERRORS)
    @pytest.mark.parametrize("step", ["_hold", "_begin_wait"])
    def test_in_the_middle_of_beginning_to_wait(self, loop, ends, how, step):
        """From another thread, between the attempt that found nothing and the wait."""
        device, _ = ends

        async def main():
            running = asyncio.get_running_loop() if loop.name != "trio" else None
            method = getattr(device, how)
            if running is None:
                original = getattr(device, step)

                def patched(*arguments):
                    delattr(device, step)
                    if step == "_hold":
                        in_a_thread(method)
                        return original(*arguments)
                    result = original(*arguments)
                    in_a_thread(method)
                    return result

                setattr(device, step, patched)
                call = device.recv
            elif step == "_hold":

                class Source:
                    def fileno(self):
                        in_a_thread(method)
                        return fd

                fd = device.fileno()
                call = lambda: aio.call(device, tuntap._core.RECV, None, lambda: None, source=Source())  # noqa: E731
            else:
                original = running.add_reader

                def add_reader(*arguments):
                    if arguments[0] == device.fileno():
                        in_a_thread(method)
                    return original(*arguments)

                running.add_reader = add_reader
                call = device.recv
            async with loop.Tasks() as tasks:
                task = tasks.spawn(call)
                assert type((await task.wait()).error) is ERRORS[how]
            if running is not None and step == "_begin_wait":
                running.add_reader = original

        loop.run(main)
        assert device._loops == {}
        assert looked_at() == set()

    def test_a_sender_that_had_begun_answers_how_far_it_came(self, loop, ends):
        device, peer = ends
        filled = fill(device)
        batch = device.batch(2 * filled)
        batch.fill([numbered(filled + i) for i in range(2 * filled)])

        async def main():
            async with loop.Tasks() as tasks:
                task = tasks.spawn(device.send_batch, batch)
                await settle(loop)
                arrived = [number_of(take(peer, 0)) for _ in range(filled - 10)]
                await loop.sleep(0.02)
                assert not task.done
                device.interrupt()
                await task.wait()
                assert 0 < task.result < 2 * filled
                assert arrived + take_all(peer) == list(range(filled + task.result))
                with pytest.raises(InterruptError):  # and the next that would wait is told
                    await device.recv(timeout=PATIENCE)

        loop.run(main)

    @pytest.mark.parametrize("how", ERRORS)
    def test_a_signal_handler_wakes_a_loop_that_sleeps(self, loop, ends, how):
        device, _ = ends

        async def main():
            on_signal(getattr(device, how))
            await device.recv(timeout=PATIENCE)

        before = time.monotonic()
        with pytest.raises(ERRORS[how]):
            loop.run(main)
        assert time.monotonic() - before < PATIENCE / 2

    @pytest.mark.parametrize("how", ERRORS)
    def test_threads_and_tasks_alike(self, loop, ends, how):
        device, _ = ends

        async def main():
            async with loop.Tasks() as tasks:
                waiting = [tasks.spawn(device.recv) for _ in range(2)]
                threads = [CallThread(take, device).wait_until_blocked() for _ in range(2)]
                await settle(loop)
                getattr(device, how)()
                for task in waiting:
                    assert type((await task.wait()).error) is ERRORS[how]
                for thread in threads:
                    thread.join(PATIENCE)
                    assert type(thread.error) is ERRORS[how]

        loop.run(main)
        assert device._loops == {}

    @pytest.mark.parametrize("how", ERRORS)
    def test_of_several_loops_at_once(self, ends, how):
        """asyncio, uvloop and trio wait on one device; one call ends all."""
        device, _ = ends
        fill(device)
        ready = threading.Barrier(len(LOOPS) + 1)

        def body(kind):
            loop = kind()

            async def main():
                async with loop.Tasks() as tasks:
                    waiting = [tasks.spawn(caller(device, name)) for name in CALLS]
                    await settle(loop)
                    ready.wait(PATIENCE)
                    return [type((await task.wait()).error) for task in waiting]

            return loop.run(main)

        threads = [CallThread(body, kind) for kind in LOOPS]
        ready.wait(PATIENCE)
        getattr(device, how)()
        for thread in threads:
            thread.join(2 * PATIENCE)
            assert thread.error is None
            assert set(thread.result) == {ERRORS[how]}
        assert device._loops == {}

    @pytest.mark.parametrize("where", ["here", "callback", "thread"])
    def test_close_frees_the_interface(self, loop, net, where):
        """At once if only this loop waits; if another thread closes, as soon as the loop comes to it."""

        async def main():
            for _ in range(3):
                tun = aio.Tun("again0", exclusive=True, quiet=True)
                async with loop.Tasks() as tasks:
                    waiting = [
                        tasks.spawn(caller(tun, name)) for name in [*RECEIVES, "wait_readable", "events"]
                    ]
                    await settle(loop)
                    if where == "here":
                        tun.close()
                        tuntap.Tun("again0", exclusive=True).close()
                    elif where == "callback":
                        if loop.name == "trio":
                            trio.lowlevel.current_trio_token().run_sync_soon(tun.close)
                        else:
                            asyncio.get_running_loop().call_soon(tun.close)
                        await until(loop, lambda: not tuntap.interfaces())
                    else:
                        in_a_thread(tun.close)
                        await until(loop, lambda: not tuntap.interfaces())
                    for task in waiting:
                        assert type((await task.wait()).error) is ClosedError

        loop.run(main)

    def test_a_task_that_closes_the_device_it_was_just_woken_by(self, loop, net, ends):
        device, peer = ends

        async def closer():
            number = number_of(await device.recv())
            device.close()
            with pytest.raises(ClosedError):
                await device.recv()
            return number

        async def main():
            async with loop.Tasks() as tasks:
                first = tasks.spawn(closer)
                await settle(loop)
                others = [tasks.spawn(device.recv) for _ in range(3)]
                await settle(loop)
                put(peer, numbered(5), 0)
                assert (await first.wait()).result == 5
                for other in others:
                    assert type((await other.wait()).error) is ClosedError

        loop.run(main)
        assert device._loops == {}
        assert looked_at() == set()

    def test_a_task_that_cancels_the_others_when_it_was_woken(self, loop, ends):
        device, peer = ends
        others = []

        async def first():
            number_of(await device.recv())
            for other in others:
                other.cancel()
            return number_of(await device.recv())

        async def main():
            async with loop.Tasks() as tasks:
                task = tasks.spawn(first)
                await settle(loop)
                others.extend(tasks.spawn(device.recv) for _ in range(3))
                await settle(loop)
                put(peer, numbered(5), 0)
                await settle(loop)
                for other in others:
                    assert (await other.wait()).cancelled
                put(peer, numbered(6), 0)
                assert (await task.wait()).result == 6

        loop.run(main)
        assert_nothing_waits(device)

    def test_queues_end_with_their_device(self, loop, net):
        async def main():
            tun = aio.Tun(queues=3, quiet=True)
            assert [type(queue) for queue in tun.queues[1:]] == [aio.Queue] * 2
            for how in ("interrupt", "close"):
                async with loop.Tasks() as tasks:
                    waiting = [tasks.spawn(queue.recv) for queue in tun.queues]
                    await settle(loop)
                    getattr(tun, how)()
                    for task in waiting:
                        assert type((await task.wait()).error) is ERRORS[how]

        loop.run(main)

    def test_after_close_every_call_says_so(self, loop, case):
        case.device.close()

        async def main():
            for timeout in (None, 0, 0.01):
                with pytest.raises(ClosedError):
                    await case.call(timeout=timeout)
            await case.device.aclose()

        loop.run(main)

    @pytest.mark.parametrize("unread", [0, 1])
    def test_by_the_other_end(self, loop, ends, unread):
        device, peer = ends

        async def main():
            for number in range(unread):
                put(device, numbered(number), 0)
            async with loop.Tasks() as tasks:
                waiting = [tasks.spawn(caller(device, name)) for name in RECEIVES for _ in range(2)]
                await settle(loop)
                peer.close()
                for task in waiting:
                    assert type((await task.wait()).error) is DeviceGoneError
                with pytest.raises(DeviceGoneError):
                    await device.send(numbered(1))

        loop.run(main)
        assert_nothing_waits(device)


# --- what happens to the interface ---


def room_for_packets(device, size):
    fcntl.ioctl(device.fileno(), 0x400454D4, struct.pack("i", size))  # TUNSETSNDBUF


class TestDeleted:
    def test_under_many_that_wait(self, loop, net):
        names = [*RECEIVES, "wait_readable", "wait_writable", "events"]

        async def main():
            tun = aio.Tun(quiet=True)
            room_for_packets(tun, 1)
            async with loop.Tasks() as tasks:
                waiting = {name: [tasks.spawn(caller(tun, name)) for _ in range(5)] for name in names}
                await settle(loop)
                assert not any(task.done for same in waiting.values() for task in same)
                tuntap.delete(tun.name)
                for name, same in waiting.items():
                    for task in same:
                        await task.wait()
                        assert task.ends == 1
                        if name != "events":
                            assert type(task.error) is DeviceGoneError
                for name in names[:-1]:
                    with pytest.raises(DeviceGoneError):
                        await caller(tun, name)(timeout=PATIENCE)
                before = time.process_time()
                await loop.sleep(0.2)
                assert time.process_time() - before < 0.1
            assert_nothing_waits(tun)
            tun.close()

        loop.run(main)

    def test_the_only_one_waits_for_room(self, loop, net):
        async def main():
            for up in (True, False):
                tun = aio.Tun(quiet=True, up=up)
                if up:
                    room_for_packets(tun, 1)
                async with loop.Tasks() as tasks:
                    task = tasks.spawn(tun.wait_writable)
                    await settle(loop)
                    assert not task.done
                    tuntap.delete(tun.name)
                    assert type((await task.wait()).error) is DeviceGoneError
                tun.close()

        loop.run(main)

    def test_while_a_packet_is_still_there(self, loop, net):
        """The loop is told of an error while a receive still succeeds: nobody is told again by itself."""

        async def main():
            for _ in range(10):
                tun = aio.Tun(addresses=[f"{HOST}/24"], quiet=True, up=True)
                async with loop.Tasks() as tasks:
                    waiting = [tasks.spawn(tun.recv) for _ in range(3)]
                    await settle(loop)
                    assert sock.sendto(b"....", (PEER, 9))
                    name = tun.name  # asking the device would wait for its deletion
                    deletion = threading.Thread(target=tuntap.delete, args=[name])
                    deletion.start()
                    # The kernel takes away the name first, and milliseconds later the packets.
                    with contextlib.suppress(OSError):
                        while socket.if_nametoindex(name):
                            pass
                    for task in waiting:
                        await task.wait()
                        assert task.error is None or type(task.error) is DeviceGoneError
                    assert sum(task.error is None for task in waiting) <= 1
                    deletion.join()
                tun.close()

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            loop.run(main)

    def test_is_the_last_event(self, loop, net):
        async def main():
            tun = aio.Tun(quiet=True)
            events = tun.events()
            async with loop.Tasks() as tasks:

                async def listen():
                    return [event async for event in events]

                task = tasks.spawn(listen)
                await settle(loop)
                tuntap.delete(tun.name)
                assert (await task.wait()).error is None
                kinds = [event.kind for event in task.result]
                assert kinds[-1] == "gone"
                assert kinds.count("gone") == 1
                with pytest.raises(DeviceGoneError):
                    await events.get()
            tun.close()

        loop.run(main)

    def test_a_loop_over_the_packets_raises(self, loop, net):
        async def main():
            tun = aio.Tun(quiet=True)

            async def listen():
                async for _ in tun:
                    pass

            async with loop.Tasks() as tasks:
                task = tasks.spawn(listen)
                await settle(loop)
                tuntap.delete(tun.name)
                assert type((await task.wait()).error) is DeviceGoneError
            tun.close()

        loop.run(main)


class TestLink:
    def test_down_refuses_and_up_wakes_who_waits(self, loop, tun):
        request = icmp_echo(PEER, HOST, 1, 1, b"....")
        batch = tun.batch(1)
        batch.fill([request])

        async def main():
            async with loop.Tasks() as tasks:
                for _ in range(3):
                    receiver = tasks.spawn(tun.recv)
                    await settle(loop)
                    tun.down()
                    for method, packet in (
                        (tun.send, request),
                        (tun.send_vectored, [request[:7], request[7:]]),
                        (tun.send_batch, batch),
                    ):
                        with pytest.raises(LinkDownError):
                            await method(packet)
                    writer = tasks.spawn(tun.wait_writable)
                    await settle(loop)
                    assert not writer.done
                    assert not receiver.done
                    tun.up()
                    assert (await writer.wait()).error is None
                    await tun.send(request)
                    assert (await receiver.wait()).result[:1] == b"\x45"

        loop.run(main)
        assert_nothing_waits(tun)

    def test_a_time_out_on_a_link_that_is_down(self, loop, tun):
        async def main():
            tun.down()
            with pytest.raises(TimeoutError):
                await tun.wait_writable(timeout=0.05)
            with pytest.raises(TimeoutError):
                await tun.wait_writable(timeout=0)
            with pytest.raises(TimeoutError):
                await tun.recv(timeout=0.02)

        loop.run(main)

    def test_a_sender_that_waits_for_room_survives_a_flap(self, loop, ends):
        device, peer = ends
        filled = fill(device)

        async def main():
            async with loop.Tasks() as tasks:
                task = tasks.spawn(caller(device, "send", filled))
                await settle(loop)
                device.down()
                await settle(loop)
                device.up()
                await settle(loop)
                assert not task.done
                arrived = take_all(peer)
                assert (await task.wait()).result == [filled]
                return arrived

        assert loop.run(main) + take_all(peer) == list(range(filled + 1))

    def test_a_sender_that_gets_room_on_a_link_that_is_down(self, loop, ends):
        device, peer = ends
        filled = fill(device)

        async def main():
            async with loop.Tasks() as tasks:
                task = tasks.spawn(caller(device, "send", filled))
                await settle(loop)
                device.down()
                arrived = take_all(peer)
                assert type((await task.wait()).error) is LinkDownError
                device.up()
                return arrived

        assert loop.run(main) + take_all(peer) == list(range(filled))
        assert_nothing_waits(device)

    def test_a_wait_for_room_survives_a_flap_of_a_real_link(self, loop, tun):
        async def main():
            room_for_packets(tun, 1)
            async with loop.Tasks() as tasks:
                task = tasks.spawn(tun.wait_writable)
                await settle(loop)
                tun.down()
                await loop.sleep(0.02)
                tun.up()
                await loop.sleep(0.02)
                assert not task.done
                room_for_packets(tun, 1 << 20)
                tun.down()
                tun.up()
                assert (await task.wait()).error is None

        loop.run(main)

    def test_events_while_packets_are_awaited_too(self, loop, tun):
        async def main():
            events = tun.events()
            async with loop.Tasks() as tasks:
                packet = tasks.spawn(tun.recv)
                event = tasks.spawn(events.get)
                await settle(loop)
                tun.mtu = 1400
                assert (await event.wait()).result == ("mtu", 1400)
                assert not packet.done
                await tun.send(icmp_echo(PEER, HOST, 1, 1))
                assert (await packet.wait()).error is None

        loop.run(main)
        assert_nothing_waits(tun)

    def test_two_tasks_that_share_events_get_each_once(self, loop, ends):
        device, _ = ends
        events = device.events()
        got = []

        async def listen():
            while True:
                got.append((await events.get()).value)

        async def main():
            async with loop.Tasks() as tasks:
                for _ in range(2):
                    tasks.spawn(listen)
                await settle(loop)
                for mtu in range(1300, 1350):
                    device.mtu = mtu
                    if mtu % 7 == 0:
                        await loop.sleep(0)
                await until(loop, lambda: len(got) == 50)

        loop.run(main)
        assert got == list(range(1300, 1350))

    def test_events_go_on_after_notifications_were_lost(self, loop, tun):
        """To the loop that is an error of the descriptor, whether or not it is an event to us."""
        seen = []

        async def listen(events):
            async for event in events:
                seen.append(event)

        async def main():
            events = tun.events()
            with aio.Tun(quiet=True) as other:
                async with loop.Tasks() as tasks:
                    tasks.spawn(listen, events)
                    for round, changed in enumerate((tun, other, tun, other)):
                        await settle(loop)
                        with socket.socket(fileno=os.dup(events.fileno())) as sock:
                            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
                        for mtu in range(1400, 1440):
                            changed.mtu = mtu
                        await loop.sleep(0.01)
                        tun.mtu = 1300 + round
                        await until(loop, lambda: ("mtu", 1300 + round) in seen)  # noqa: B023

        loop.run(main)
        assert seen.count(("mtu", 1410)) == 0
        assert_nothing_waits(tun)

    def test_events_follow_the_interface_into_another_namespace(self, loop, net, other_netns):
        """What is waited on changes; both tasks go on, and nothing looks at the old descriptor."""

        async def main():
            tun = aio.Tun(quiet=True)
            events = tun.events()
            seen = []

            async def listen():
                async for event in events:
                    seen.append(event)

            async with loop.Tasks() as tasks:
                listeners = [tasks.spawn(listen) for _ in range(2)]
                await settle(loop)
                before = events.fileno()
                subprocess.run(
                    ["ip", "link", "set", tun.name, "netns", other_netns.split("/")[2]], check=True
                )
                await until(loop, lambda: events.fileno() != before)
                assert before not in looked_at()
                await settle(loop)
                subprocess.run(
                    ["nsenter", f"--net={other_netns}", "ip", "link", "set", tun.name, "mtu", "1333"],
                    check=True,
                )
                await until(loop, lambda: ("mtu", 1333) in seen)
                listeners[0].cancel()  # who was told of the change, and the other follows all the same
                await listeners[0].wait()
                tun.mtu = 1340
                await until(loop, lambda: ("mtu", 1340) in seen)
                tun.close()
            assert seen.count(("mtu", 1333)) == seen.count(("mtu", 1340)) == 1

        loop.run(main)


class TestOffload:
    SEGMENTS = 8

    def segments(self, start=0):
        """Numbered datagrams of one flow, which leave as one super-packet."""
        packets = []
        for number in range(start, start + self.SEGMENTS):
            packet = udp(HOST, PEER, 1, 2, bytes(96) + number.to_bytes(4, "big"))
            head = packet[:4] + number.to_bytes(2, "big") + packet[6:10] + b"\0\0" + packet[12:20]
            packets.append(head[:10] + checksum(head).to_bytes(2, "big") + head[12:] + packet[20:])
        return packets

    @pytest.mark.parametrize("offload", [True, "superpackets"])
    @pytest.mark.parametrize("name", ["recv", "recv_into", "recv_vectored", "recv_batch"])
    def test_segments_of_one_super_packet_go_to_every_task_that_waits(self, loop, offload, name):
        device, peer = pair(aio.Tun, offload=offload)
        got = []

        async def receiver():
            moved = caller_of_one(device, name)
            while True:
                got.extend(await moved())

        async def main():
            async with loop.Tasks() as tasks:
                receivers = [tasks.spawn(receiver) for _ in range(3)]
                await settle(loop)
                for round in range(10):
                    batch = coalesced(peer, self.segments(round * self.SEGMENTS))
                    await peer.send_batch(batch)
                    await until(loop, lambda: len(got) == (round + 1) * self.SEGMENTS)  # noqa: B023
                assert not any(receiver.error for receiver in receivers)

        loop.run(main)
        assert sorted(got) == list(range(10 * self.SEGMENTS))
        assert device.pending == 0
        assert_nothing_waits(device, peer)
        device.close()
        peer.close()

    def test_each_task_takes_one_and_leaves_the_rest(self, loop):
        """Nobody comes back for more: those who wait must be told of what was left in memory."""
        device, peer = pair(aio.Tun, offload=True)
        with device, peer:

            async def main():
                async with loop.Tasks() as tasks:
                    waiting = [tasks.spawn(device.recv) for _ in range(self.SEGMENTS)]
                    looker = tasks.spawn(device.wait_readable)
                    await settle(loop)
                    await peer.send_batch(coalesced(peer, self.segments()))
                    got = [number_of((await task.wait()).result) for task in waiting]
                    assert sorted(got) == list(range(self.SEGMENTS))
                    looker.cancel()

            loop.run(main)
            assert_nothing_waits(device)

    def test_one_that_is_told_and_cancelled_at_once_keeps_nobody_waiting(self, loop):
        device, peer = pair(aio.Tun, offload=True)
        with device, peer:

            async def main():
                async with loop.Tasks() as tasks:
                    waiting = [tasks.spawn(device.recv) for _ in range(6)]
                    await settle(loop)
                    put(peer, self.segments()[0], 0)
                    tuntap.Tun.send_batch(peer, coalesced(peer, self.segments(10)), 0)
                    for task in waiting[:3]:
                        task.cancel()
                    got = [number_of((await task.wait()).result) for task in waiting[3:]]
                    got += [number_of(task.result) for task in waiting[:3] if not task.cancelled]
                    return got

            got = loop.run(main)
            assert sorted(got + take_all(device)) == [0, *range(10, 10 + self.SEGMENTS)]

    def test_a_thread_leaves_segments_to_a_task(self, loop):
        device, peer = pair(aio.Tun, offload=True)
        with device, peer:

            async def main():
                async with loop.Tasks() as tasks:
                    task = tasks.spawn(device.recv)
                    await settle(loop)
                    tuntap.Tun.send_batch(peer, coalesced(peer, self.segments()), 0)
                    first = number_of(take(device, 0))
                    assert device.pending == self.SEGMENTS - 1
                    assert (first, number_of((await task.wait()).result)) == (0, 1)

            loop.run(main)
            assert take_all(device) == list(range(2, self.SEGMENTS))

    def test_another_loop_is_told_too(self, loop):
        device, peer = pair(aio.Tun, offload=True)
        with device, peer:

            def body():
                mine = type(loop)()

                async def main():
                    return number_of(await device.recv(timeout=PATIENCE))

                return mine.run(main)

            threads = [CallThread(body) for _ in range(2)]
            deadline = time.monotonic() + PATIENCE
            while len(device._loops) < 2 and time.monotonic() < deadline:
                time.sleep(0.005)
            time.sleep(0.01)
            tuntap.Tun.send_batch(peer, coalesced(peer, self.segments()), 0)
            for thread in threads:
                thread.join(2 * PATIENCE)
                assert thread.error is None
            assert sorted([thread.result for thread in threads] + take_all(device)) == list(
                range(self.SEGMENTS)
            )

    @pytest.mark.parametrize("offload", [True, "superpackets"])
    def test_a_real_device_hands_over_what_the_kernel_coalesced(self, loop, net, offload):
        count, size = 20, 500

        async def main():
            async with aio.Tun(addresses=[f"{HOST}/24"], quiet=True, offload=offload) as tun:
                got = []

                async def receiver():
                    while True:
                        got.append(number_of(await tun.recv()))

                async with loop.Tasks() as tasks:
                    receivers = [tasks.spawn(receiver) for _ in range(3)]
                    await settle(loop)
                    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                        sock.setsockopt(socket.IPPROTO_UDP, 103, size)  # UDP_SEGMENT
                        for round in range(5):
                            payload = b"".join(
                                bytes(size - 4) + (round * count + i).to_bytes(4, "big") for i in range(count)
                            )
                            sock.sendto(payload, (PEER, 9))
                            await until(loop, lambda: len(got) == (round + 1) * count)  # noqa: B023
                    assert not any(receiver.error for receiver in receivers)
                    assert sorted(got) == list(range(5 * count))

        loop.run(main)


def caller_of_one(device, name):
    """As `caller`, but a batch of one packet, so that something is left."""
    if name != "recv_batch":
        return caller(device, name)
    batch = PacketBatch(1, 2048)
    return answering(
        lambda count: [number_of(batch[0])] if not device._whole else numbers(batch), device.recv_batch, batch
    )


def numbers(batch):
    """Of the segments of the one super-packet in a batch."""
    header = batch.headers[0]
    return [number_of(packet) for packet in tuntap.offload.split(batch[0], header)]


def coalesced(device, packets):
    """A batch that leaves as one super-packet."""
    if not device._whole:
        batch = device.batch(len(packets))
        batch.fill(packets)
        return batch
    ((header, packet),) = tuntap.offload.coalesce(packets)
    batch = device.batch(1)
    batch.fill([packet])
    batch.headers[0] = header
    return batch


# --- a device among other tasks ---


class TestIteration:
    @pytest.mark.parametrize("how", ["close", "shutdown", "aclose"])
    def test_ends_with_the_device(self, loop, ends, how):
        device, peer = ends

        async def listen():
            return [number_of(packet) async for packet in device]

        async def main():
            async with loop.Tasks() as tasks:
                events = device.events()

                async def hear():
                    return [event.value async for event in events]

                listener, hearer = tasks.spawn(listen), tasks.spawn(hear)
                await settle(loop)
                for number in range(3):
                    put(peer, numbered(number), 0)
                device.mtu = 1300
                await until(loop, lambda: device.stats.tx_packets + device.stats.rx_packets == 3)
                await settle(loop)
                if how == "aclose":
                    await device.aclose()
                else:
                    getattr(device, how)()
                assert (await listener.wait()).result == [0, 1, 2]
                assert (await hearer.wait()).result == [1300]
                assert [packet async for packet in device] == []

        loop.run(main)
        assert device._loops == {}

    def test_goes_on_after_an_interrupt(self, loop, ends):
        device, peer = ends

        async def main():
            async with loop.Tasks() as tasks:

                async def listen():
                    async for packet in device:
                        return number_of(packet)

                listener = tasks.spawn(listen)
                await settle(loop)
                device.interrupt()
                assert type((await listener.wait()).error) is InterruptError
                put(peer, numbered(4), 0)
                assert await listen() == 4

        loop.run(main)

    def test_with_blocks_close(self, loop, net):
        async def main():
            async with aio.Tun(quiet=True) as tun, aio.Tap(quiet=True) as tap:
                assert not tun.closed
                assert tap.mac
            assert tun.closed
            assert tap.closed
            with aio.Tun(quiet=True) as tun:
                await tun.wait_writable(timeout=PATIENCE)
            assert tun.closed
            with pytest.raises(ZeroDivisionError):
                async with aio.Tun(quiet=True) as tun:
                    raise ZeroDivisionError
            assert tun.closed

        loop.run(main)

    def test_a_block_that_is_cancelled_while_the_link_comes_up_leaves_nothing_open(self, loop, net):
        maker = tuntap.Tun("later0", persist=True, quiet=True)
        maker.carrier = False
        maker.close()

        async def enter():
            async with tun:
                raise AssertionError("the link is not running")

        async def main():
            async with loop.Tasks() as tasks:
                task = tasks.spawn(enter)
                await settle(loop)
                assert not task.done
                task.cancel()
                assert (await task.wait()).cancelled

        try:
            tun = aio.Tun("later0")
            tun.carrier = False
            loop.run(main)
            assert tun.closed
        finally:
            tuntap.delete("later0")


class TestFairness:
    def flooded(self, loop, device, work):
        """How often another task runs in a quarter of a second of such work that never waits."""
        turns = 0

        async def worker():
            while True:
                await work()

        async def main():
            nonlocal turns
            async with loop.Tasks() as tasks:
                busy = [tasks.spawn(worker) for _ in range(2)]
                end = time.monotonic() + 0.25
                while time.monotonic() < end:
                    await loop.sleep(0)
                    turns += 1
                assert not any(task.done for task in busy)

        loop.run(main)
        return turns

    def test_a_receiver_that_never_waits_lets_others_run(self, loop, ends):
        device, peer = ends

        async def work():
            put(peer, numbered(1), 0)
            await device.recv()

        assert self.flooded(loop, device, work) > 10

    def test_a_sender_that_never_waits_lets_others_run(self, loop, ends):
        device, peer = ends

        async def work():
            await device.send(numbered(1))
            take(peer, 0)

        assert self.flooded(loop, device, work) > 10

    def test_a_relay_of_many_devices_lets_others_run(self, loop):
        pairs = [pair(aio.Tun) for _ in range(20)]

        async def work():
            for device, peer in pairs:
                put(peer, numbered(1), 0)
                await device.recv()

        assert self.flooded(loop, None, work) > 10
        for ends in pairs:
            for end in ends:
                end.close()

    def test_another_loop_on_the_same_device_takes_nothing_from_that(self, loop, ends):
        device, peer = ends
        stop = threading.Event()

        def body():
            """Waits on the same device and is woken all the time."""
            mine = type(loop)()

            async def main():
                while not stop.is_set():
                    with contextlib.suppress(TimeoutError):
                        await device.recv(timeout=0.0005)

            mine.run(main)

        async def work():
            await device.send(numbered(1))
            take(peer, 0)

        thread = CallThread(body)
        try:
            assert self.flooded(loop, device, work) > 10
        finally:
            stop.set()
            thread.join(PATIENCE)
            assert thread.error is None

    def test_waiting_costs_no_processor_time(self, loop, tun):
        async def main():
            async with loop.Tasks() as tasks:
                for name in [*RECEIVES, "wait_readable", "events"]:
                    for _ in range(5):
                        tasks.spawn(caller(tun, name))
                await settle(loop)
                before = time.process_time()
                await loop.sleep(0.3)
                assert time.process_time() - before < 0.1

        loop.run(main)


variable = contextvars.ContextVar("variable", default=None)


def new_loop(asyncio_loop):
    return (asyncio_loop.factory or asyncio.new_event_loop)()


class TestAsyncio:
    """What a task that is run in the callback of its loop must not notice."""

    def test_a_task_keeps_its_context_and_is_the_current_one(self, asyncio_loop, ends):
        device, peer = ends
        seen = []

        async def receiver(i):
            variable.set(i)
            for _ in range(3):
                await device.recv()
                seen.append((i, variable.get(), asyncio.current_task() is tasks[i]))
                with contextlib.suppress(TimeoutError):
                    await device.recv(timeout=0.001)
                seen.append((i, variable.get(), asyncio.current_task() is tasks[i]))

        async def main():
            variable.set("main")
            tasks.extend(asyncio.create_task(receiver(i)) for i in range(3))
            while not all(task.done() for task in tasks):
                await asyncio.sleep(0.001)
                put(peer, numbered(1), 0)
            for task in tasks:
                task.result()
            assert variable.get() == "main"

        tasks = []
        asyncio_loop.run(main)
        assert len(seen) == 18
        assert all(i == value and current for i, value, current in seen)

    def test_tasks_that_share_a_context(self, asyncio_loop, ends):
        device, peer = ends
        context = contextvars.copy_context()

        async def receiver():
            variable.set((variable.get() or 0) + 1)
            await device.recv()
            variable.set(variable.get() + 1)

        async def main():
            running = asyncio.get_running_loop()
            tasks = [running.create_task(receiver(), context=context) for _ in range(3)]
            await settle(asyncio_loop)
            for _ in range(3):
                put(peer, numbered(1), 0)
            await asyncio.gather(*tasks)

        asyncio_loop.run(main)
        assert context[variable] == 6

    def test_eager_tasks(self, ends):
        """From Python 3.12 on a task may run, and wait, inside of the call that makes it."""
        factory = getattr(asyncio, "eager_task_factory", None)
        device, peer = ends

        async def receiver():
            got = [number_of(await device.recv()) for _ in range(2)]
            return got, asyncio.current_task()

        async def main():
            asyncio.get_running_loop().set_task_factory(factory)
            tasks = [asyncio.create_task(receiver()) for _ in range(2)]
            for number in range(4):
                put(peer, numbered(number), 0)
                await asyncio.sleep(0)
            results = await asyncio.gather(*tasks)
            assert sorted(results[0][0] + results[1][0]) == list(range(4))
            assert [result[1] for result in results] == tasks
            put(peer, numbered(4), 0)
            assert number_of(await asyncio.create_task(device.recv())) == 4
            asyncio.get_running_loop().set_task_factory(None)

        Asyncio().run(main)
        assert_nothing_waits(device)

    def test_tasks_in_python(self, asyncio_loop, ends):
        """`asyncio` has tasks that are not compiled, too."""
        device, peer = ends

        def factory(loop, coroutine, **settings):
            return asyncio.tasks._PyTask(coroutine, loop=loop, **settings)

        async def main():
            running = asyncio.get_running_loop()
            running.set_task_factory(factory)
            tasks = [asyncio.create_task(device.recv()) for _ in range(3)]
            await settle(asyncio_loop)
            tasks[0].cancel("because")
            put(peer, numbered(1), 0)
            with pytest.raises(asyncio.CancelledError, match="because"):
                await tasks[0]
            assert number_of(await tasks[1]) == 1
            device.interrupt()
            with pytest.raises(InterruptError):
                await tasks[2]
            running.set_task_factory(None)

        asyncio_loop.run(main)
        assert_nothing_waits(device)

    def test_an_exception_goes_to_who_awaits_the_task(self, asyncio_loop, ends):
        device, peer = ends

        async def fails():
            await device.recv()
            raise ZeroDivisionError

        async def main():
            tasks = [asyncio.create_task(fails()), asyncio.create_task(device.recv())]
            await settle(asyncio_loop)
            put(peer, numbered(1), 0)
            put(peer, numbered(2), 0)
            with pytest.raises(ZeroDivisionError):
                await tasks[0]
            assert number_of(await tasks[1]) == 2

        asyncio_loop.run(main)
        assert_nothing_waits(device)

    @pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
    @pytest.mark.parametrize("others", [0, 2])
    def test_one_that_ends_the_loop(self, asyncio_loop, ends, error, others, caplog):
        device, peer = ends

        async def fails():
            await device.recv()
            raise error

        async def main():
            tasks = [asyncio.create_task(fails())]
            await settle(asyncio_loop)
            tasks += [asyncio.create_task(device.recv()) for _ in range(others)]
            await settle(asyncio_loop)
            for number in range(3):
                put(peer, numbered(number), 0)
            await asyncio.sleep(PATIENCE)

        with pytest.raises(error):
            asyncio_loop.run(main)
        assert not [record for record in caplog.records if "unhandled exception during" not in record.message]
        assert_nothing_waits(device)
        assert len(take_all(device)) in (1, 2) if others else take_all(device) == [1, 2]

    def test_a_task_group_cancels_its_receivers(self, asyncio_loop, ends):
        device, peer = ends

        async def fails():
            await asyncio.sleep(0.01)
            put(peer, numbered(1), 0)
            raise ZeroDivisionError

        async def receive_in_a_group(tasks):
            async with asyncio.TaskGroup() as group:
                tasks.extend(group.create_task(caller(device, name)()) for name in RECEIVES)
                group.create_task(fails())

        async def main():
            tasks = []
            with pytest.raises(ExceptionGroup) as caught:
                await receive_in_a_group(tasks)
            assert [type(error) for error in caught.value.exceptions] == [ZeroDivisionError]
            # One may have had its packet before it heard of the failure.
            return [number for task in tasks if not task.cancelled() for number in task.result()]

        assert asyncio_loop.run(main) + take_all(device) == [1]
        assert_nothing_waits(device)

    def test_a_cancellation_that_is_repeated_in_every_turn_until_the_task_ends(self, asyncio_loop, ends):
        """As anyio delivers it; it looks at what the task waits for."""
        device, _ = ends
        cleaned = []

        async def receiver():
            try:
                await device.recv()
            finally:
                with contextlib.suppress(asyncio.CancelledError):
                    await device.recv()
                cleaned.append(True)

        async def main():
            task = asyncio.create_task(receiver())
            await settle(asyncio_loop)
            while not task.done():
                waiter = task._fut_waiter
                if waiter is None or not waiter.done():
                    task.cancel()
                await asyncio.sleep(0)
            assert task.cancelled()
            assert cleaned

        asyncio_loop.run(main)
        assert_nothing_waits(device)

    def test_a_shielded_call_goes_on(self, asyncio_loop, ends):
        device, peer = ends

        async def main():
            inner = asyncio.create_task(device.recv())
            outer = asyncio.create_task(asyncio.wait_for(asyncio.shield(inner), 0.01))
            with pytest.raises(TimeoutError):
                await outer
            assert not inner.done()
            put(peer, numbered(3), 0)
            assert number_of(await inner) == 3

        asyncio_loop.run(main)
        assert_nothing_waits(device)

    def test_a_task_that_waits_can_be_looked_at(self, asyncio_loop, ends):
        async def main():
            task = asyncio.create_task(ends[0].recv(), name="looked at")
            await settle(asyncio_loop)
            assert "Turn" in repr(task)
            task.get_stack()
            task.cancel()
            await asyncio.wait([task])

        asyncio_loop.run(main)

    def test_a_loop_that_is_closed_with_a_task_that_waits(self, asyncio_loop, net):
        tasks = []
        tun = aio.Tun("again0", exclusive=True, quiet=True)

        async def main():
            tasks.extend(asyncio.ensure_future(caller(tun, name)()) for name in [*RECEIVES, "events"])
            await settle(asyncio_loop)

        async def use_it_elsewhere():
            with pytest.raises(TimeoutError):
                await tun.recv(timeout=0.01)
            tun.interrupt()

        running = new_loop(asyncio_loop)
        running.run_until_complete(main())
        running.close()
        for task in tasks:
            task._log_destroy_pending = False
        asyncio_loop.run(use_it_elsewhere)
        tun.close()
        assert tun._loops == {}
        tuntap.Tun("again0", exclusive=True, quiet=True).close()

    def test_a_loop_that_stands_still(self, asyncio_loop, net):
        """Between two runs nobody comes to let go: close() does."""
        tun = aio.Tun("again0", exclusive=True, quiet=True)
        running = new_loop(asyncio_loop)
        with contextlib.closing(running):
            task = running.create_task(caller(tun, "recv")())
            running.run_until_complete(asyncio.sleep(0.01))
            tun.close()
            tuntap.Tun("again0", exclusive=True, quiet=True).close()
            with pytest.raises(ClosedError):
                running.run_until_complete(task)


def run_program(text):
    """In a process of its own, where every warning is an error; it has to print "done" and nothing else."""
    run = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(text)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (run.stdout, run.stderr, run.returncode) == ("done\n", "", 0)


class TestTrio:
    def test_in_a_shielded_scope_close_ends_the_wait(self, ends):
        device, _ = ends

        async def shielded():
            with trio.CancelScope(shield=True):
                await device.recv()

        async def main():
            async with TrioTasks() as tasks:
                task = tasks.spawn(shielded)
                await settle(Trio)
                device.close()
                assert type((await task.wait()).error) is ClosedError

        Trio.run(main)

    def test_a_call_may_be_what_trio_runs(self, ends):
        device, peer = ends
        put(peer, numbered(1), 0)
        assert number_of(trio.run(device.recv)) == 1

    def test_as_a_guest_of_asyncio(self):
        """trio runs in callbacks of an asyncio loop; each task waits with its own."""
        run_program("""
            import asyncio, trio
            from tuntap import aio, Tun
            from tuntap.testing import pair, udp

            async def main():
                async with device, peer:
                    running = asyncio.get_running_loop()
                    over = running.create_future()
                    trio.lowlevel.start_guest_run(
                        device.recv,
                        run_sync_soon_threadsafe=running.call_soon_threadsafe,
                        done_callback=over.set_result,
                    )
                    other = asyncio.create_task(device.recv())
                    while len(device._loops) < 2:
                        await asyncio.sleep(0.001)
                    packets = {udp("10.0.0.1", "10.0.0.2", 1, 2, bytes([i])) for i in range(2)}
                    for packet in packets:
                        Tun.send(peer, packet, 0)
                    assert {(await over).unwrap(), await other} == packets
                    assert device._loops == {}

            device, peer = pair(aio.Tun)
            asyncio.run(main())
            print("done")
        """)


class TestProcess:
    def test_ctrl_c(self, loop, ends):
        device, peer = ends
        timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))

        async def main():
            timer.start()
            await device.recv(timeout=PATIENCE)

        before = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            loop.run(main)
        assert time.monotonic() - before < PATIENCE
        timer.join()
        put(peer, numbered(1), 0)
        assert take_all(device) == [1]
        assert_nothing_waits(device)

    def test_the_child_of_a_fork_leaves_the_loop_of_its_parent_alone(self, loop, ends):
        """They share the epoll: what the child took off it would be off in the parent, too."""
        device, peer = ends
        fill(device)

        def child(tasks):
            device.interrupt()  # nobody waits in the child
            try:
                tuntap.Tun.recv(device, 0.01)
                return "not interrupted"
            except InterruptError:
                pass
            if loop.name != "trio":
                for task in tasks:
                    task.cancel()

                async def own():
                    with contextlib.suppress(TimeoutError):
                        await device.recv(timeout=0.01)
                    task = asyncio.create_task(device.recv())
                    await settle(loop)
                    if len(device._loops) != 1:
                        return "nobody waits"
                    device.close()
                    await asyncio.wait([task], timeout=PATIENCE)
                    return "" if type(task.exception()) is ClosedError else repr(task)

                return asyncio.run(own())
            device.close()
            return ""

        async def main():
            async with loop.Tasks() as tasks:
                waiting = [tasks.spawn(caller(device, name)) for name in CALLS]
                await settle(loop)
                reader, writer = os.pipe()
                pid = os.fork()
                if pid == 0:
                    answer = "failed"
                    try:
                        answer = child(waiting)
                    except BaseException as error:
                        answer = repr(error)
                    finally:
                        os.write(writer, answer.encode())
                        os._exit(0)
                os.close(writer)
                with os.fdopen(reader) as stream:
                    assert stream.read() == ""
                assert os.waitpid(pid, 0)[1] == 0
                assert not any(task.done for task in waiting)
                assert len(device._loops) == 1
                for number in range(10):
                    put(peer, numbered(number), 0)
                take_all(peer)
                device.mtu = 1300
                for task in waiting:
                    assert (await task.wait()).error is None

        loop.run(main)
        assert_nothing_waits(device)

    @pytest.mark.parametrize("offload", [False, True])
    def test_in_development_mode_nothing_warns(self, offload):
        run_program(
            f"OFFLOAD = {offload}\n"
            + textwrap.dedent("""
            import asyncio, trio, uvloop
            from tuntap import aio
            from tuntap.testing import pair, udp

            PACKET = udp("10.0.0.1", "10.0.0.2", 1, 2)

            async def main():
                one, other = pair(aio.Tun, offload=OFFLOAD)
                async with one, other:
                    for _ in range(100):
                        await one.send(PACKET)
                        assert await other.recv(timeout=5) == PACKET
                    for call in (one.recv, one.wait_readable, one.events().get):
                        try:
                            await call(timeout=0.01)
                        except TimeoutError:
                            continue
                        raise SystemExit("no time-out")

            for debug in (False, True):
                for factory in (None, uvloop.new_event_loop):
                    with asyncio.Runner(loop_factory=factory, debug=debug) as runner:
                        runner.run(main())
            trio.run(main)
            print("done")
        """)
        )

    @pytest.mark.parametrize("kind", LOOPS[:2], ids=lambda loop: loop.name)
    def test_in_debug_mode_all_is_the_same(self, kind, ends, caplog):
        device, peer = ends
        loop = kind(debug=True)

        async def main():
            asyncio.get_running_loop().slow_callback_duration = 0.0  # every callback is described
            async with loop.Tasks() as tasks:
                waiting = [tasks.spawn(device.recv) for _ in range(3)]
                await settle(loop)
                waiting[0].cancel()
                put(peer, numbered(1), 0)
                assert number_of((await waiting[1].wait()).result) == 1
                in_a_thread(device.close)
                assert type((await waiting[2].wait()).error) is ClosedError

        loop.run(main)
        assert not [record for record in caplog.records if record.levelname == "ERROR"]
