"""`create_tun_endpoint` and `create_tap_endpoint`: what a protocol of asyncio is told, and when."""

import asyncio
import errno
import faulthandler
import gc
import os
import socket
import subprocess
import sys
import textwrap
import time

import pytest
import uvloop
from numbered import HOST, PEER, TEMPLATE, fill, number_of, numbered, put, take, take_all
from threads import PATIENCE

import tuntap
from tuntap import DeviceGoneError, LinkDownError, PacketError, aio
from tuntap.testing import icmp_echo, pair, udp

FACTORIES = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
if hasattr(asyncio, "eager_task_factory"):

    def eager_loop():
        loop = asyncio.new_event_loop()
        loop.set_task_factory(asyncio.eager_task_factory)
        return loop

    FACTORIES["eager"] = eager_loop


class Protocol(asyncio.DatagramProtocol):
    """Keeps what it is told, in order; `do` is what it does in the methods of these names."""

    def __init__(self, **do):
        self.told = []
        self.do = do
        self.lost = asyncio.get_running_loop().create_future()

    def _tell(self, name, *arguments):
        self.told.append((name, *arguments))
        if name in self.do:
            self.do[name](self, *arguments)

    def connection_made(self, transport):
        self.transport = transport
        self._tell("made", transport)

    def datagram_received(self, data, addr):
        assert type(data) is bytes
        assert addr is None
        self._tell("received", data)

    def error_received(self, error):
        self._tell("error", error)

    def pause_writing(self):
        self._tell("pause")

    def resume_writing(self):
        self._tell("resume")

    def connection_lost(self, error):
        self._tell("lost", error)
        self.lost.set_result(error)

    def all(self, name):
        """What came with each telling of this name."""
        return [told[-1] for told in self.told if told[0] == name]

    @property
    def numbers(self):
        return [number_of(data) for data in self.all("received")]


async def until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "never so"
        await asyncio.sleep(0.001)


async def settle():
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture(scope="module", autouse=True)
def _warm():
    """The first loop of uvloop opens descriptors that stay open."""
    uvloop.new_event_loop().close()


@pytest.fixture(autouse=True)
def _watchdog(request):
    """A hang ends the run and shows where."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        fd = os.dup(2)
    faulthandler.dump_traceback_later(60, exit=True, file=fd)
    yield
    faulthandler.cancel_dump_traceback_later()
    os.close(fd)


@pytest.fixture(params=FACTORIES)
def run(request):
    """Run a coroutine function in a loop; what the loop is told of is an error of the test."""

    def run(function, *arguments, complaints=0):
        told = []

        async def main():
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
            result = await asyncio.wait_for(function(*arguments), 3 * PATIENCE)
            gc.collect()
            return result

        with asyncio.Runner(loop_factory=FACTORIES[request.param]) as runner:
            result = runner.run(main())
        assert len(told) == complaints, told
        return result

    return run


@pytest.fixture
def ends():
    one, other = pair(aio.Tun)
    yield one, other
    was_closed = one.closed
    one.close()
    other.close()
    assert was_closed, "the endpoint did not close its device"


async def connect(device, **do):
    transport, protocol = await aio.create_tun_endpoint(lambda: Protocol(**do), device=device)
    assert transport is protocol.transport
    return transport, protocol


async def close(transport, protocol, error=None):
    transport.close()
    lost = await asyncio.wait_for(protocol.lost, PATIENCE)
    assert lost is error
    await settle()


class TestReceiving:
    def test_begins_with_the_connection_and_ends_with_its_loss(self, run, ends):
        device, peer = ends

        async def main():
            put(peer, numbered(0), 0)
            transport, protocol = await connect(device)
            await until(lambda: protocol.numbers)
            assert [told[0] for told in protocol.told] == ["made", "received"]
            put(peer, numbered(1), 0)
            await until(lambda: len(protocol.numbers) == 2)
            assert not transport.is_closing()
            await close(transport, protocol)
            assert transport.is_closing()
            assert device.closed
            assert [told[0] for told in protocol.told] == ["made", "received", "received", "lost"]

        run(main)

    def test_every_packet_in_order_and_once(self, run, ends):
        device, peer = ends

        async def main():
            transport, protocol = await connect(device)
            for number in range(2000):
                put(peer, numbered(number), 0)
                if number % 300 == 0:
                    await asyncio.sleep(0)
            await until(lambda: len(protocol.numbers) == 2000)
            assert protocol.numbers == list(range(2000))
            await close(transport, protocol)

        run(main)

    def test_paused_delivers_nothing_and_loses_nothing(self, run, ends):
        device, peer = ends

        async def main():
            transport, protocol = await connect(device)
            assert transport.is_reading()
            sent = 0
            for _ in range(5):
                transport.pause_reading()
                transport.pause_reading()
                assert not transport.is_reading()
                for _ in range(100):
                    put(peer, numbered(sent), 0)
                    sent += 1
                await asyncio.sleep(0.005)
                assert len(protocol.numbers) == sent - 100
                transport.resume_reading()
                transport.resume_reading()
                assert transport.is_reading()
                await until(lambda: len(protocol.numbers) == sent)  # noqa: B023
            assert protocol.numbers == list(range(sent))
            await close(transport, protocol)

        run(main)

    def test_a_protocol_that_pauses_at_a_packet_gets_no_other(self, run, ends):
        device, peer = ends

        def received(protocol, data):
            protocol.transport.pause_reading()

        async def main():
            transport, protocol = await connect(device, received=received)
            for number in range(10):
                put(peer, numbered(number), 0)
            for count in range(1, 11):
                await until(lambda: len(protocol.numbers) >= count)  # noqa: B023
                await settle()
                assert len(protocol.numbers) == count
                transport.resume_reading()
            await close(transport, protocol)

        run(main)

    def test_a_protocol_that_pauses_before_it_begins(self, run, ends):
        device, peer = ends

        async def main():
            put(peer, numbered(0), 0)
            transport, protocol = await connect(device, made=lambda protocol, t: t.pause_reading())
            await settle()
            assert protocol.numbers == []
            transport.resume_reading()
            await until(lambda: protocol.numbers == [0])
            transport.pause_reading()
            await close(transport, protocol)
            transport.resume_reading()
            assert not transport.is_reading()

        run(main)

    @pytest.mark.parametrize("how", ["close", "abort"])
    def test_a_protocol_that_closes_at_a_packet_gets_no_other(self, run, ends, how):
        device, peer = ends

        async def main():
            for number in range(10):
                put(peer, numbered(number), 0)
            _, protocol = await connect(device, received=lambda p, data: getattr(p.transport, how)())
            assert await protocol.lost is None
            await settle()
            assert protocol.numbers == [0]
            assert protocol.told[-1] == ("lost", None)

        run(main)

    def test_a_protocol_that_fails_at_a_packet_gets_the_next(self, run, ends):
        device, peer = ends

        def received(protocol, data):
            raise ZeroDivisionError

        async def main():
            transport, protocol = await connect(device, received=received)
            for number in range(3):
                put(peer, numbered(number), 0)
            await until(lambda: len(protocol.numbers) == 3)
            await close(transport, protocol)

        run(main, complaints=3)

    def test_a_packet_that_no_longer_fits_is_an_error_and_the_next_fit(self, run, ends):
        """The MTU may grow after the endpoint was made."""
        device, peer = ends

        async def main():
            transport, protocol = await connect(device)
            await settle()
            device.mtu = 9000
            large = udp(HOST, PEER, 1, 2, bytes(8000))
            for packet in (numbered(0), large, numbered(1)):
                put(peer, packet, 0)
            await until(lambda: len(protocol.numbers) == 2)
            (error,) = protocol.all("error")
            assert isinstance(error, PacketError)
            assert error.errno == errno.EMSGSIZE
            put(peer, large, 0)
            await until(lambda: len(protocol.numbers) == 3)
            assert protocol.all("received")[-1] == large
            await close(transport, protocol)

        run(main)

    def test_another_protocol_may_take_over(self, run, ends):
        device, peer = ends

        async def main():
            transport, protocol = await connect(device)
            assert transport.get_protocol() is protocol
            heir = Protocol()
            transport.set_protocol(heir)
            put(peer, numbered(4), 0)
            await until(lambda: heir.numbers == [4])
            await close(transport, heir)
            assert [told[0] for told in protocol.told] == ["made"]

        run(main)

    def test_an_interrupt_is_no_matter(self, run, ends):
        device, peer = ends

        async def main():
            transport, protocol = await connect(device)
            await settle()
            filled = fill(device)
            transport.sendto(numbered(filled))
            await settle()
            for _ in range(3):
                device.interrupt()
                await settle()
            assert protocol.told == [("made", transport)]
            arrived = take_all(peer)
            await until(lambda: transport.get_write_buffer_size() == 0)
            assert arrived + take_all(peer) == list(range(filled + 1))
            put(peer, numbered(1), 0)
            await until(lambda: protocol.numbers == [1])
            await close(transport, protocol)

        run(main)

    def test_a_flood_lets_others_run(self, run, ends):
        device, peer = ends

        async def main():
            transport, protocol = await connect(device, received=lambda protocol, data: put(peer, data, 0))
            for number in range(100):
                put(peer, numbered(number), 0)
            turns = 0
            end = time.monotonic() + 0.2
            while time.monotonic() < end:
                await asyncio.sleep(0)
                turns += 1
            assert turns > 10
            assert len(protocol.numbers) > 100
            transport.abort()
            await protocol.lost

        run(main)


class TestSending:
    def test_what_goes_at_once_is_not_kept(self, run, ends):
        device, peer = ends

        async def main():
            transport, protocol = await connect(device)
            for data in (numbered(0), bytearray(numbered(1)), memoryview(numbered(2)), numbered(3)):
                transport.sendto(data)
                assert transport.get_write_buffer_size() == 0
            transport.sendto(numbered(4), None)
            assert take_all(peer) == [0, 1, 2, 3, 4]
            await close(transport, protocol)

        run(main)

    def test_what_finds_no_room_is_kept_in_order(self, run, ends):
        device, peer = ends

        async def main():
            transport, protocol = await connect(device)
            filled = fill(device)
            buffer = bytearray(numbered(filled))
            transport.sendto(buffer)
            buffer[:] = bytes(len(buffer))  # the transport has a copy
            for number in range(filled + 1, filled + 500):
                transport.sendto(numbered(number))
            assert transport.get_write_buffer_size() == 500 * len(TEMPLATE)
            arrived = []
            while transport.get_write_buffer_size():
                arrived += take_all(peer)
                await asyncio.sleep(0)
            assert arrived + take_all(peer) == list(range(filled + 500))
            await close(transport, protocol)

        run(main)

    def test_the_protocol_is_told_to_pause_and_to_resume(self, run, ends):
        device, peer = ends
        size = len(TEMPLATE)

        async def main():
            transport, protocol = await connect(device)
            transport.set_write_buffer_limits(high=10 * size, low=3 * size)
            filled = fill(device)
            arrived = []
            for round in range(3):
                for i in range(20):
                    assert len(protocol.all("pause")) == round + (i > 10)
                    transport.sendto(numbered(filled + 20 * round + i))
                sizes = []
                protocol.do["resume"] = lambda p: sizes.append(transport.get_write_buffer_size())  # noqa: B023
                while transport.get_write_buffer_size():
                    arrived += take_all(peer)
                    await asyncio.sleep(0)
                assert sizes == [3 * size]
                if round < 2:
                    while True:  # full again
                        try:
                            put(device, numbered(0), 0)
                        except TimeoutError:
                            break
            arrived += take_all(peer)
            assert [n for n in arrived if n >= filled] == list(range(filled, filled + 60))
            await close(transport, protocol)

        run(main)

    def test_limits(self, run, ends):
        device, _ = ends

        async def main():
            transport, protocol = await connect(device)
            assert transport.get_write_buffer_limits() == (16 * 1024, 64 * 1024)
            transport.set_write_buffer_limits(high=100)
            assert transport.get_write_buffer_limits() == (25, 100)
            transport.set_write_buffer_limits(low=100)
            assert transport.get_write_buffer_limits() == (100, 400)
            transport.set_write_buffer_limits(0)
            assert transport.get_write_buffer_limits() == (0, 0)
            for settings in ({"high": -1}, {"low": -1}, {"high": 1, "low": 2}):
                with pytest.raises(ValueError):
                    transport.set_write_buffer_limits(**settings)
            assert transport.get_write_buffer_limits() == (0, 0)
            await close(transport, protocol)

        run(main)

    def test_a_protocol_that_sends_when_it_is_told_to_resume(self, run, ends):
        device, peer = ends
        extra = []

        def resume(protocol):
            protocol.transport.sendto(numbered(1_000_000 + len(extra)))
            extra.append(True)

        async def main():
            transport, protocol = await connect(device, resume=resume)
            transport.set_write_buffer_limits(high=0)
            filled = fill(device)
            transport.sendto(numbered(filled))
            arrived = []
            while not extra or transport.get_write_buffer_size():
                arrived += take_all(peer)
                await asyncio.sleep(0)
            transport.sendto(numbered(filled + 1))
            arrived += take_all(peer)
            assert arrived == [*range(filled + 1), 1_000_000, filled + 1]
            filled = fill(device)
            transport.sendto(numbered(5))  # it is kept, and sent, once more
            assert take_all(peer) == list(range(filled))
            await until(lambda: transport.get_write_buffer_size() == 0)
            assert take_all(peer)[0] == 5
            await close(transport, protocol)

        run(main)

    @pytest.mark.parametrize("kept", [False, True])
    def test_a_packet_that_the_device_refuses_is_an_error_of_its_own(self, run, ends, kept):
        device, peer = ends

        async def main():
            transport, protocol = await connect(device)
            filled = fill(device) if kept else 0
            for data in (numbered(filled), b"\0 no packet", numbered(filled + 1)):
                transport.sendto(data)
            arrived = take_all(peer)
            await until(lambda: transport.get_write_buffer_size() == 0)
            assert arrived + take_all(peer) == list(range(filled + 2))
            (error,) = protocol.all("error")
            assert isinstance(error, PacketError)
            await close(transport, protocol)

        run(main)

    def test_a_link_that_is_down_is_an_error_and_not_the_end(self, run, net):
        async def main():
            transport, protocol = await aio.create_tun_endpoint(
                Protocol, addresses=[f"{HOST}/24"], quiet=True
            )
            device = transport.get_extra_info("device")
            device.down()
            transport.sendto(icmp_echo(PEER, HOST, 1, 1))
            (error,) = protocol.all("error")
            assert isinstance(error, LinkDownError)
            device.up()
            transport.sendto(icmp_echo(PEER, HOST, 1, 2, b"...."))
            await until(lambda: protocol.all("received"))
            await close(transport, protocol)

        run(main)

    @pytest.mark.parametrize("how", ["close", "abort"])
    @pytest.mark.parametrize("kept", [False, True])
    def test_a_protocol_that_closes_when_it_is_told_of_an_error(self, run, ends, how, kept):
        device, peer = ends

        async def main():
            _, protocol = await connect(device, error=lambda p, error: getattr(p.transport, how)())
            transport = protocol.transport
            filled = fill(device) if kept else 0
            if kept:
                transport.sendto(numbered(filled))
            transport.sendto(b"\0 no packet")
            transport.sendto(numbered(filled + 1))
            arrived = take_all(peer)
            assert await protocol.lost is None
            await settle()
            arrived += drained(peer)
            # What is behind a bad one that was kept is kept, too, when it is closed.
            assert arrived == list(range(filled + kept + (kept and how == "close")))

        run(main)

    def test_what_is_no_packet(self, run, ends):
        device, peer = ends

        async def main():
            transport, protocol = await connect(device)
            for data in (5, "text", None, [1, 2], 1.5):
                with pytest.raises(TypeError):
                    transport.sendto(data)
            for data in (b"", b"\x45" * 70000):
                with pytest.raises(ValueError):
                    transport.sendto(data)
            for addr in ((PEER, 1), "text", 0):
                with pytest.raises(ValueError):
                    transport.sendto(numbered(1), addr)
            assert take_all(peer) == []
            await close(transport, protocol)

        run(main)


def drained(peer):
    """What is there still after the other end was closed."""
    while True:
        try:
            yield number_of(take(peer, 0))
        except (DeviceGoneError, TimeoutError):
            return


class TestEnd:
    def test_close_sends_what_is_kept_first(self, run, ends):
        device, peer = ends

        async def main():
            transport, protocol = await connect(device)
            filled = fill(device)
            for number in range(filled, filled + 100):
                transport.sendto(numbered(number))
            transport.close()
            transport.close()
            assert transport.is_closing()
            transport.sendto(numbered(0))  # too late, and no error
            put(peer, numbered(7), 0)
            await settle()
            assert not protocol.lost.done()
            assert not device.closed
            arrived = []
            while not protocol.lost.done():
                arrived += list(drained(peer))
                await asyncio.sleep(0)
            arrived += list(drained(peer))
            assert arrived == list(range(filled + 100))
            assert protocol.lost.result() is None
            assert protocol.numbers == []  # nothing is delivered any more
            await settle()

        run(main)

    def test_abort_does_not(self, run, ends):
        device, peer = ends

        async def main():
            transport, protocol = await connect(device)
            filled = fill(device)
            for number in range(filled, filled + 100):
                transport.sendto(numbered(number))
            transport.close()
            transport.abort()
            transport.abort()
            assert await protocol.lost is None
            assert transport.get_write_buffer_size() == 0
            await settle()
            assert list(drained(peer)) == list(range(filled))
            assert [told[0] for told in protocol.told] == ["made", "lost"]

        run(main)

    @pytest.mark.parametrize("waits", [False, True])
    def test_deletion_is_told_with_its_error(self, run, net, waits):
        async def main():
            transport, protocol = await aio.create_tun_endpoint(Protocol, quiet=True)
            if waits:
                await settle()
            tuntap.delete(transport.get_extra_info("name"))
            error = await asyncio.wait_for(protocol.lost, PATIENCE)
            assert type(error) is DeviceGoneError
            await settle()
            assert transport.is_closing()
            assert transport.get_extra_info("device").closed
            transport.sendto(numbered(1))
            assert [told[0] for told in protocol.told] == ["made", "lost"]

        run(main)

    def test_deletion_found_by_a_send(self, run, net):
        async def main():
            transport, protocol = await aio.create_tun_endpoint(Protocol, quiet=True)
            transport.pause_reading()
            tuntap.delete(transport.get_extra_info("name"))
            transport.sendto(icmp_echo(PEER, HOST, 1, 1))
            assert type(await protocol.lost) is DeviceGoneError
            await settle()

        run(main)

    @pytest.mark.parametrize("end", ["peer closes", "device closes", "device shuts down"])
    def test_while_packets_are_kept(self, run, ends, end):
        device, peer = ends

        async def main():
            transport, protocol = await connect(device)
            filled = fill(device)
            transport.sendto(numbered(filled))
            await settle()
            if end == "peer closes":
                peer.close()
            elif end == "device closes":
                device.close()
            else:
                device.shutdown()
            error = await asyncio.wait_for(protocol.lost, PATIENCE)
            assert type(error) is (DeviceGoneError if end == "peer closes" else type(None))
            await settle()
            assert protocol.told.count(("lost", error)) == 1
            assert transport.get_write_buffer_size() == 0

        run(main)

    def test_a_protocol_that_fails_when_it_is_told(self, run, ends):
        """The device is closed all the same."""
        device, _ = ends

        def lost(protocol, error):
            raise ZeroDivisionError

        async def main():
            transport, _ = await connect(device, lost=lost)
            transport.close()
            await settle()
            assert device.closed

        run(main, complaints=1)

    def test_a_loop_that_ends_first(self, ends):
        """As it is with every transport: what the loop cannot do any more is not done."""
        device, peer = ends

        async def main():
            _, protocol = await connect(device)
            protocol.transport.close()
            return protocol

        for factory in FACTORIES.values():
            if device.closed:
                device, peer = pair(aio.Tun)
            with asyncio.Runner(loop_factory=factory) as runner:
                protocol = runner.run(main())
            assert protocol.all("lost") == [None]
            assert device.closed
            peer.close()


class TestCreation:
    def test_of_a_tun_and_of_a_tap(self, run, net):
        async def main():
            for create, kind in (
                (aio.create_tun_endpoint, aio.Tun), (aio.create_tap_endpoint, aio.Tap),
            ):  # fmt: skip
                transport, protocol = await create(
                    Protocol, "endpoint0", addresses=[f"{HOST}/24"], mtu=1400, quiet=True
                )
                device = transport.get_extra_info("device")
                assert type(device) is kind
                assert isinstance(transport, aio.PacketTransport)
                assert isinstance(transport, asyncio.DatagramTransport)
                assert transport.get_extra_info("name") == "endpoint0"
                assert transport.get_extra_info("index") == device.index
                assert transport.get_extra_info("mtu") == 1400
                assert [str(a) for a in transport.get_extra_info("addresses")] == [f"{HOST}/24"]
                assert transport.get_extra_info("socket") is None
                assert transport.get_extra_info("socket", 5) == 5
                assert "endpoint0" in repr(transport)
                assert "closing" not in repr(transport)
                await close(transport, protocol)
                assert "closing" in repr(transport)
                assert transport.get_extra_info("mtu", "none") == "none"
                assert tuntap.interfaces() == []

        run(main)

    def test_of_a_device_that_is_open(self, run, ends):
        device, _ = ends

        async def main():
            transport, protocol = await connect(device)
            assert transport.get_extra_info("device") is device
            await close(transport, protocol)

        run(main)

    def test_of_a_device_that_is_closed(self, run, ends):
        device, _ = ends
        device.close()

        async def main():
            _, protocol = await connect(device)
            assert await asyncio.wait_for(protocol.lost, PATIENCE) is None

        run(main)

    def test_with_arguments_that_contradict_each_other(self, run, ends):
        device, _ = ends

        async def main():
            for arguments, settings in ((("name0",), {}), ((), {"mtu": 1400})):
                with pytest.raises(ValueError):
                    await aio.create_tun_endpoint(Protocol, *arguments, device=device, **settings)
            with pytest.raises(TypeError):
                await aio.create_tap_endpoint(Protocol, device=device)
            one, other = pair()
            with one, other, pytest.raises(TypeError):
                await aio.create_tun_endpoint(Protocol, device=one)
            with pytest.raises(TypeError):
                await aio.create_tun_endpoint(Protocol, device=5)
            assert not device.closed
            device.close()

        run(main)

    def test_with_arguments_that_no_device_takes(self, run, net):
        async def main():
            with pytest.raises(ValueError):
                await aio.create_tun_endpoint(Protocol, "a name that is too long")
            with pytest.raises(TypeError):
                await aio.create_tun_endpoint(Protocol, colour="blue")
            assert tuntap.interfaces() == []

        run(main)

    @pytest.mark.parametrize("where", ["factory", "made"])
    def test_a_protocol_that_fails_at_its_making(self, run, net, where):
        def fail(*unused):
            raise ZeroDivisionError

        def factory():
            return fail() if where == "factory" else Protocol(made=fail)

        async def main():
            with pytest.raises(ZeroDivisionError):
                await aio.create_tun_endpoint(factory, quiet=True)
            assert tuntap.interfaces() == []
            await settle()

        run(main)

    @pytest.mark.parametrize("how", ["close", "abort"])
    def test_a_protocol_that_closes_at_its_making(self, run, ends, how):
        device, peer = ends

        async def main():
            put(peer, numbered(1), 0)
            _, protocol = await connect(device, made=lambda protocol, t: getattr(t, how)())
            assert await protocol.lost is None
            await settle()
            assert [told[0] for told in protocol.told] == ["made", "lost"]

        run(main)

    def test_a_protocol_that_sends_at_its_making(self, run, ends):
        device, peer = ends

        async def main():
            transport, protocol = await connect(device, made=lambda protocol, t: t.sendto(numbered(3)))
            assert take_all(peer) == [3]
            await close(transport, protocol)

        run(main)

    def test_cancelled_while_the_link_comes_up(self, run, net):
        tuntap.Tun("later0", persist=True, quiet=True).close()

        async def main():
            tun = aio.Tun("later0")
            tun.carrier = False
            task = asyncio.ensure_future(aio.create_tun_endpoint(Protocol, device=tun))
            await settle()
            assert not task.done()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert tun.closed

        try:
            run(main)
        finally:
            tuntap.delete("later0")

    def test_in_trio_it_says_what_is_missing(self, net):
        import trio

        with pytest.raises(RuntimeError, match="no running event loop"):
            trio.run(aio.create_tun_endpoint, object)
        assert tuntap.interfaces() == []

    def test_nothing_warns(self):
        program = textwrap.dedent("""
            import asyncio, uvloop
            from tuntap import aio
            from tuntap.testing import pair, udp

            PACKET = udp("10.0.0.1", "10.0.0.2", 1, 2)

            class Protocol(asyncio.DatagramProtocol):
                count = 0

                def datagram_received(self, data, addr):
                    self.count += 1

            async def main(how):
                one, other = pair(aio.Tun)
                first, _ = await aio.create_tun_endpoint(asyncio.DatagramProtocol, device=one)
                second, protocol = await aio.create_tun_endpoint(Protocol, device=other)
                for _ in range(10_000):
                    first.sendto(PACKET)
                while protocol.count < 10_000:
                    await asyncio.sleep(0.001)
                getattr(first, how)()
                await asyncio.sleep(0)
                getattr(second, how)()

            for how in ("close", "abort"):
                for factory in (None, uvloop.new_event_loop):
                    for debug in (False, True):
                        with asyncio.Runner(loop_factory=factory, debug=debug) as runner:
                            runner.run(main(how))
            print("done")
        """)
        run = subprocess.run(
            [sys.executable, "-X", "dev", "-W", "error", "-c", program],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert (run.stdout, run.stderr, run.returncode) == ("done\n", "", 0)


def test_packets_of_a_real_interface(net):
    """A host behind the endpoint that answers pings, in either loop."""
    from tuntap.testing import icmp_reply

    class Host(Protocol):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            answer = icmp_reply(data)
            if answer:
                self.transport.sendto(answer)

    async def main():
        transport, protocol = await aio.create_tun_endpoint(Host, addresses=[f"{HOST}/24"], quiet=True)
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
            sock.setblocking(False)
            sock.connect((PEER, 0))
            for number in range(50):
                request = icmp_echo(HOST, PEER, 77, number, b"payload")[20:]
                await asyncio.get_running_loop().sock_sendall(sock, request)
                data = b""
                while data[20:21] != b"\0":
                    data = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 2000), PATIENCE)
                assert data[24:] == request[4:]
        await close(transport, protocol)

    for factory in (asyncio.new_event_loop, uvloop.new_event_loop):
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())
