"""Asynchronous devices on the loops of Windows: none of them looks at a descriptor."""

import asyncio
import threading
import time

import pytest
import trio
from fake_wintun import LIBRARY as WINTUN

import tuntap
from tuntap import PacketBatch, aio

PACKET = bytes.fromhex("4500002800010000401100000a0000010a000002") + bytes(20)


def numbered(number, size=60):
    return PACKET[:20] + number.to_bytes(4, "big") + bytes(size - 24)


def open_tun(name="tun0", **settings):
    return aio.Tun(name, wintun=WINTUN, **settings)


def proactor(function, *arguments):
    with asyncio.Runner(loop_factory=asyncio.ProactorEventLoop) as runner:
        return runner.run(function(*arguments))


def selector(function, *arguments):
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        return runner.run(function(*arguments))


@pytest.fixture(params=[proactor, selector, trio.run])
def run(request):
    return request.param


async def sleep(seconds):
    await (trio if tuntap._turns.running_trio() else asyncio).sleep(seconds)


async def together(*functions):
    """Run functions as tasks; what each answered or raised."""
    outcomes = [None] * len(functions)

    async def call(i):
        try:
            outcomes[i] = await functions[i]()
        except Exception as error:
            outcomes[i] = error

    if tuntap._turns.running_trio():
        async with trio.open_nursery() as nursery:
            for i in range(len(functions)):
                nursery.start_soon(call, i)
    else:
        await asyncio.gather(*(call(i) for i in range(len(functions))))
    return outcomes


async def within(seconds, function):
    """True unless the function was cancelled at the end of its time."""
    if tuntap._turns.running_trio():
        with trio.move_on_after(seconds) as scope:
            await function()
        return not scope.cancelled_caught
    try:
        await asyncio.wait_for(function(), seconds)
    except TimeoutError:
        return False
    return True


class TestCalls:
    def test_wakes(self, stack, run):
        async def main():
            async with open_tun() as tun:
                threading.Timer(0.3, stack.inject, ("tun0", PACKET)).start()
                start = time.monotonic()
                assert await tun.recv() == PACKET
                assert 0.2 < time.monotonic() - start < 2
                await tun.send(PACKET)
            return True

        assert run(main)

    def test_ten_thousand_packets(self, stack, run):
        """An echo: none is lost, doubled or out of order."""
        total = 10_000

        async def main():
            async with open_tun(ring_capacity=1 << 20) as tun:
                batch = tun.batch(64)
                count = 0
                while count < total:
                    await tun.recv_batch(batch, timeout=20)
                    count += await tun.send_batch(batch, timeout=20)
                while len(echoed) < total:  # what is in the ring goes with the session
                    await sleep(0.01)

        def feed():
            for i in range(total):
                while not stack.inject("tun0", numbered(i)):
                    time.sleep(0.001)

        echoed = []

        def drain():
            while len(echoed) < total:
                packet = stack.take("tun0", timeout=0.2)
                if packet is not None:
                    echoed.append(packet)
                elif not threads[0].is_alive() and is_over.is_set():
                    return

        is_over = threading.Event()
        threads = [threading.Thread(target=feed), threading.Thread(target=drain)]
        for thread in threads:
            thread.start()
        run(main)
        is_over.set()
        for thread in threads:
            thread.join(20)
        assert echoed == [numbered(i) for i in range(total)]

    def test_each_packet_goes_to_one_task(self, stack, run):
        received = []

        async def main():
            async with open_tun() as tun:

                async def receive():
                    while len(received) < 1000:
                        try:
                            received.append(await tun.recv(timeout=0.5))
                        except TimeoutError:
                            return

                async def feed():
                    for i in range(1000):
                        while not stack.inject("tun0", numbered(i)):
                            await sleep(0.001)
                        if i % 50 == 0:
                            await sleep(0.001)

                await together(*[receive] * 8, feed)

        run(main)
        assert sorted(received) == [numbered(i) for i in range(1000)]

    def test_timeouts(self, stack, run):
        async def main():
            async with open_tun() as tun:
                for _ in range(200):
                    with pytest.raises(TimeoutError):
                        await tun.recv(timeout=0.001)
                stack.inject("tun0", PACKET)
                assert await tun.recv(timeout=0) == PACKET

        run(main)

    def test_cancellation_loses_nothing(self, stack, run):
        received = []

        async def main():
            async with open_tun() as tun:

                async def receive():
                    received.append(await tun.recv())

                for i in range(300):
                    if i % 3 == 0:
                        stack.inject("tun0", numbered(i))
                    await within(0.002, receive)
                while True:
                    try:
                        received.append(await tun.recv(timeout=0.3))
                    except TimeoutError:
                        break
                assert not tun._loops

        run(main)
        assert received == [numbered(i) for i in range(0, 300, 3)]

    def test_a_full_ring_is_waited_for(self, stack, run):
        async def main():
            async with open_tun(ring_capacity=1 << 17) as tun:
                stack.consume("tun0", False)
                batch = PacketBatch(200, 1000)
                batch.fill([numbered(i, 1000) for i in range(200)])
                assert await tun.send_batch(batch, timeout=0.1) < 200
                with pytest.raises(TimeoutError):
                    await tun.send(numbered(0, 1000), timeout=0.2)
                threading.Timer(0.2, stack.consume, ("tun0", True)).start()
                assert await tun.send(numbered(0, 1000), timeout=5) == 1000

        run(main)

    def test_wait_readable_and_writable(self, stack, run):
        async def main():
            async with open_tun() as tun:
                await tun.wait_writable()
                threading.Timer(0.2, stack.inject, ("tun0", PACKET)).start()
                await tun.wait_readable()
                await tun.wait_readable()
                assert await tun.recv(timeout=0) == PACKET
                with pytest.raises(TimeoutError):
                    await tun.wait_readable(timeout=0.01)

        run(main)


class TestEnd:
    @pytest.mark.parametrize("end", ["close", "shutdown", "interrupt", "removal", "close in a thread"])
    def test_who_waits_is_told(self, stack, run, end):
        expected = {"interrupt": tuntap.InterruptError, "removal": tuntap.DeviceGoneError}

        async def main():
            async with open_tun() as tun:

                async def finish():
                    await sleep(0.2)
                    if end == "removal":
                        stack.terminate("tun0")
                    elif end == "close in a thread":
                        threading.Thread(target=tun.close).start()
                    else:
                        getattr(tun, end)()

                return await together(*[tun.recv] * 4, finish)

        start = time.monotonic()
        outcomes = run(main)
        assert [type(outcome) for outcome in outcomes[:4]] == [expected.get(end, tuntap.ClosedError)] * 4
        assert time.monotonic() - start < 5

    def test_iteration_ends(self, stack, run):
        async def main():
            async with open_tun() as tun:

                async def receive():
                    return [packet async for packet in tun]

                async def finish():
                    stack.inject("tun0", PACKET)
                    await sleep(0.2)
                    tun.close()

                return (await together(receive, finish))[0]

        assert run(main) == [PACKET]

    def test_down_and_up_under_a_waiter(self, stack, run):
        async def main():
            async with open_tun() as tun:

                async def finish():
                    await sleep(0.1)
                    for _ in range(10):
                        tun.down()
                        await sleep(0.005)
                        tun.up()
                    stack.inject("tun0", PACKET)

                return (await together(lambda: tun.recv(timeout=5), finish))[0]

        assert run(main) == PACKET

    def test_thirty_devices(self, stack, run):
        async def main():
            tuns = [open_tun(f"tun{i}", ring_capacity=1 << 17) for i in range(30)]

            async def feed():
                await sleep(0.2)
                for i in range(30):
                    stack.inject(f"tun{i}", numbered(i))

            outcomes = await together(*[tun.recv for tun in tuns], feed)
            assert outcomes[:-1] == [numbered(i) for i in range(30)]
            for tun in tuns:
                tun.close()

        run(main)

    def test_two_loops_in_two_threads(self, stack):
        received = []

        async def receive(tun):
            while True:
                try:
                    received.append(await tun.recv(timeout=1))
                except TimeoutError:
                    return

        with open_tun() as tun:
            threads = [
                threading.Thread(target=function, args=(receive, tun)) for function in (proactor, trio.run)
            ]
            for thread in threads:
                thread.start()
            for i in range(500):
                while not stack.inject("tun0", numbered(i)):
                    time.sleep(0.001)
            for thread in threads:
                thread.join()
        assert sorted(received) == [numbered(i) for i in range(500)]

    def test_a_loop_that_is_left(self, stack):
        """Its task waits for ever; what told it goes with the device."""

        async def main(tun):
            task = asyncio.ensure_future(tun.recv())
            await asyncio.sleep(0.1)
            return task

        tun = open_tun()
        loop = asyncio.new_event_loop()
        task = loop.run_until_complete(main(tun))
        tun.close()
        loop.run_until_complete(asyncio.wait([task], timeout=5))
        assert isinstance(task.exception(), tuntap.ClosedError)
        loop.close()


class TestEndpoint:
    def test_a_protocol(self, stack):
        class Echo(asyncio.DatagramProtocol):
            def connection_made(self, transport):
                self.transport, self.lost = transport, []

            def datagram_received(self, data, addr):
                self.transport.sendto(data)

            def connection_lost(self, error):
                self.lost.append(error)

        async def main():
            transport, protocol = await aio.create_tun_endpoint(Echo, "tun0", wintun=WINTUN)
            for i in range(100):
                stack.inject("tun0", numbered(i))
            echoed = [await asyncio.to_thread(stack.take, "tun0") for _ in range(100)]
            transport.close()
            await asyncio.sleep(0.1)
            return echoed, protocol.lost

        assert proactor(main) == ([numbered(i) for i in range(100)], [None])


class TestEvents:
    def test_async(self, stack, ip, run):
        async def main():
            async with open_tun() as tun:
                events = tun.events()

                async def act():
                    await sleep(0.2)
                    tun.mtu = 1400
                    await sleep(0.2)
                    tun.add_address("10.0.0.1/24")

                async def watch():
                    return [await events.get(timeout=5), await events.get(timeout=5)]

                return (await together(watch, act))[0]

        mtu, address = run(main)
        assert mtu == ("mtu", 1400)
        assert (address.kind, str(address.value)) == ("address_added", "10.0.0.1/24")

    def test_sync(self, stack, ip):
        tun = tuntap.Tun("tun0", wintun=WINTUN)
        events = tun.events()
        with pytest.raises(TimeoutError):
            events.get(timeout=0.1)
        ip.changed(tun.luid, is_up=False)
        assert events.get(timeout=5).kind == "not_running"
        ip.changed(tun.luid, is_up=True)
        assert events.get(timeout=5).kind == "running"
        tun.close()
        with pytest.raises(tuntap.ClosedError):
            events.get(timeout=5)
        del events
