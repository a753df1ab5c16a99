"""How tasks wait, where it is the loop that could fail them: errors, races, and what a wait leaves behind."""

import asyncio
import contextlib
import gc
import threading

import pytest
import trio
import uvloop
from threads import PATIENCE

import tuntap
from tuntap import ClosedError, DeviceGoneError, InterruptError, TunTapError, aio, testing

PACKET = testing.udp("10.7.0.1", "10.7.0.2", 1, 2, b"x" * 1000)


@pytest.fixture(scope="module", autouse=True)
def _first_uvloop():
    """The first loop opens a pipe for all that follow."""
    uvloop.run(asyncio.sleep(0))


def in_asyncio(function):
    return asyncio.run(function())


def in_uvloop(function):
    return uvloop.run(function())


@pytest.fixture(params=[in_asyncio, in_uvloop, trio.run], ids=["asyncio", "uvloop", "trio"])
def run(request):
    """Run a coroutine function in a loop."""
    return request.param


def in_trio():
    return trio.lowlevel.in_trio_run()


@contextlib.asynccontextmanager
async def at_most(seconds):
    """Cancel what takes longer."""
    if in_trio():
        with trio.fail_after(seconds):
            yield
    else:
        async with asyncio.timeout(seconds):
            yield


async def together(*functions):
    """Run tasks, of which none may last."""
    async with at_most(PATIENCE):
        if in_trio():
            async with trio.open_nursery() as nursery:
                for function in functions:
                    nursery.start_soon(function)
        else:
            await asyncio.gather(*[function() for function in functions])


async def pause():
    await (trio if in_trio() else asyncio).sleep(0.05)


def ending(call, ended):
    """A task that calls until that fails; how it failed is added to a list."""

    async def task():
        try:
            while True:
                await call()
        except TunTapError as error:
            ended.append(type(error))

    return task


def test_all_tasks_that_receive_end_when_the_interface_is_deleted(net, run):
    async def main():
        async with aio.Tun("gone0", quiet=True) as tun:
            ended = []

            async def delete():
                await pause()
                tuntap.delete("gone0")

            await together(*[ending(tun.recv, ended)] * 3, delete)
            return ended

    assert run(main) == [DeviceGoneError] * 3


def test_tasks_that_receive_and_tasks_that_send_end_when_the_other_end_is_closed(run):
    async def main():
        one, other = testing.pair(aio.Tun)
        with contextlib.suppress(TimeoutError):
            while True:
                await one.send(PACKET, 0)
        ended = []

        async def close():
            await pause()
            other.close()

        async with one, other:
            receives, sends = ending(one.recv, ended), ending(lambda: one.send(PACKET), ended)
            await together(receives, receives, sends, sends, close)
        return ended

    assert run(main) == [DeviceGoneError] * 4


def test_events_go_on_after_some_were_dropped(net, run):
    async def main():
        async with aio.Tun("flood0", quiet=True, mtu=1500) as tun:
            events, seen = tun.events(), []

            async def watch():
                while not seen or seen[-1].value != 1281:
                    # No rest: each wait begins in the turn in which the last ended.
                    tun._rest_at = float("inf")
                    seen.append(await events.get())

            async def flood():
                await pause()
                for number in range(3000):  # more than a socket holds
                    tun.mtu = 1400 + number % 2
                await pause()
                tun.mtu = 1281

            await together(watch, flood)
            return len(seen)

    assert run(main) < 3000


@pytest.mark.parametrize(("ender", "error"), [("interrupt", InterruptError), ("shutdown", ClosedError)])
def test_what_ends_a_wait_at_the_moment_it_begins_is_not_lost(run, ender, error):
    """As if another thread ran between the two steps of it."""

    def end(self):
        thread = threading.Thread(target=getattr(self, ender))
        thread.start()
        thread.join()

    class Tun(aio.Tun):
        # What comes right behind the first step: on trio, and on asyncio, where that is compiled.

        def _begin_wait(self, path):
            interrupts = super()._begin_wait(path)
            end(self)
            return interrupts

        def _target(self, path, source):
            if not in_trio():
                end(self)
            return super()._target(path, source)

    async def main():
        one, other = testing.pair()
        with one, other:
            async with Tun.from_fd(one.fileno(), owned=False) as tun:
                ended = []
                await together(ending(tun.recv, ended))
                return ended

    assert run(main) == [error]


def test_a_wait_of_asyncio_makes_no_garbage():
    async def main():
        one, other = testing.pair(aio.Tun)

        async def echo(device):
            for _ in range(200):
                await device.send(await device.recv())

        async with one, other:
            await one.send(PACKET)
            gc.collect()
            gc.disable()
            try:
                await asyncio.gather(echo(one), echo(other))
            finally:
                gc.enable()
            return gc.collect()

    assert asyncio.run(main()) < 100


def test_a_task_cancelled_while_its_device_comes_up_leaves_nothing_open(net, run):
    """There is no `__aexit__` after an `__aenter__` that did not end."""

    async def main():
        with tuntap.Tun("slow0", multi_queue=True, quiet=True) as slow:
            tun = aio.Tun("slow0", multi_queue=True)
            slow.carrier = False
            with contextlib.suppress(TimeoutError, trio.TooSlowError):
                async with at_most(0.05):
                    await tun.__aenter__()
            was_closed = tun.closed
            tun.close()
            return was_closed

    assert run(main)


def test_send_vectored_sends(run):
    async def main():
        one, other = testing.pair(aio.Tun)
        async with one, other:
            assert await one.send_vectored([PACKET[:20], b"", PACKET[20:]]) == len(PACKET)
            return await other.recv(PATIENCE), other.stats.tx_packets + one.stats.rx_packets

    packet, counted = run(main)
    assert packet == PACKET
    assert counted == 2
