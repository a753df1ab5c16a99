"""`tuntap.framed` and `aio.Framed`: a codec between a device and a program."""

import array
import asyncio
import contextlib
import time

import numpy as np
import pytest
from threads import PATIENCE, CallThread

from tuntap import (
    ClosedError,
    DeviceGoneError,
    Event,
    InterruptError,
    LinkDownError,
    PacketError,
    Tap,
    Tun,
    aio,
    framed,
)
from tuntap.testing import pair, udp

HOST, PEER = "10.8.0.1", "10.8.0.2"


def packet_of(number, size=100):
    return udp(HOST, PEER, 1, 2, number.to_bytes(4, "big") + bytes(size - 32))


class Numbers:
    """Numbers as UDP datagrams; whatever else is sent or received makes it fail in some way."""

    def decode(self, packet):
        number = int.from_bytes(packet[28:32].tobytes(), "big")
        if number == 1313:
            raise LookupError(number)
        return None if number == 0 else number

    def encode(self, item, slot):
        if isinstance(item, Exception):
            slot[:] = 0xEE
            raise item
        if isinstance(item, tuple):  # what encode() is to answer
            slot[:] = 0xEE
            return item[0]
        packet = np.frombuffer(packet_of(abs(item)), np.uint8).copy()
        if item < 0:
            packet[0] &= 0x0F  # no IP packet
        slot[: packet.size] = packet
        return packet.size


class Sync:
    kinds, module = (Tun, Tap), framed

    def __init__(self, codec, capacity=64, kind=0, **settings):
        self.one, self.other = pair(self.kinds[kind], **settings)
        self.framed = self.module.Framed(self.one, codec, capacity)

    def run(self, answer):
        return answer

    def call(self, name, *arguments, **keywords):
        return self.run(getattr(self.framed, name)(*arguments, **keywords))

    def arrive(self, *numbers):
        for number in numbers:
            self.run(self.other.send(packet_of(number)))

    def arrived(self):
        """What the other end has got, as numbers."""
        numbers = []
        with contextlib.suppress(TimeoutError):
            while True:
                numbers.append(int.from_bytes(self.run(self.other.recv(0))[28:32], "big"))
        return numbers

    def fill(self):
        """Let the device take no more; how many packets that are."""
        count = 0
        with contextlib.suppress(TimeoutError):
            while True:
                self.run(self.one.send(packet_of(9999), 0))
                count += 1
        return count

    def close(self):
        self.one.close()
        self.other.close()


class Async(Sync):
    kinds, module = (aio.Tun, aio.Tap), aio

    def __init__(self, codec, capacity=64, kind=0, **settings):
        super().__init__(codec, capacity, kind, **settings)
        self.runner = asyncio.Runner()

    def run(self, answer):
        return self.runner.run(answer)

    def close(self):
        super().close()
        self.runner.close()


@pytest.fixture(params=[Sync, Async])
def make(request):
    with contextlib.ExitStack() as stack:

        def open_one(codec=None, *arguments, **settings):
            return stack.enter_context(
                contextlib.closing(request.param(codec or Numbers(), *arguments, **settings))
            )

        yield open_one


class TestRecv:
    def test_one_after_the_other(self, make):
        ends = make()
        ends.arrive(1, 2, 3)
        assert [ends.call("recv", PATIENCE) for _ in range(3)] == [1, 2, 3]
        with pytest.raises(TimeoutError):
            ends.call("recv", 0)

    def test_more_than_a_batch_holds(self, make):
        ends = make(None, 4)
        ends.arrive(*range(1, 12))
        assert [ends.call("recv", 0) for _ in range(11)] == [*range(1, 12)]

    def test_what_is_decoded_as_none_is_passed_over(self, make):
        ends = make(None, 2)
        ends.arrive(0, 0, 0, 1, 0, 2, 0)
        assert ends.call("recv", PATIENCE) == 1
        assert ends.call("recv", PATIENCE) == 2
        with pytest.raises(TimeoutError):
            ends.call("recv", 0.01)
        assert ends.framed.reader.pending == 0

    @pytest.mark.parametrize("item", [0, False, b"", "", [], float("nan")])
    def test_what_is_false_is_no_none(self, make, item):
        class Codec(Numbers):
            def decode(self, packet):
                return item

        ends = make(Codec())
        ends.arrive(1)
        assert ends.call("recv", 0) is item

    def test_a_decoder_that_fails_costs_that_packet(self, make):
        ends = make()
        ends.arrive(1, 1313, 2, 1313, 1313, 3)
        assert ends.call("recv", 0) == 1
        for after in (2, None, 3):
            with pytest.raises(LookupError):
                ends.call("recv", 0)
            if after:
                assert ends.call("recv", 0) == after
        with pytest.raises(TimeoutError):
            ends.call("recv", 0)

    def test_packets_that_are_passed_over_do_not_stretch_the_time(self, make):
        ends = make()
        receive = ends.one.recv_batch
        more = ends.other.batch(1)
        more.fill([packet_of(0)])

        def another(*arguments, **keywords):
            ends.other._begin_send(more).send()
            return receive(*arguments, **keywords)

        ends.one.recv_batch = another  # there is always a packet
        begin = time.monotonic()
        with pytest.raises(TimeoutError):
            ends.call("recv", 0.05)
        assert 0.05 <= time.monotonic() - begin < PATIENCE

    @pytest.mark.parametrize("timeout", [-1, float("nan")])
    @pytest.mark.parametrize("is_there", [False, True])
    def test_time_that_is_none(self, make, timeout, is_there):
        ends = make()
        if is_there:
            ends.arrive(1, 2)
            ends.call("recv", 0)
        with pytest.raises(ValueError, match="timeout"):
            ends.call("recv", timeout)
        if is_there:
            assert ends.call("recv", 0) == 2

    def test_a_packet_that_outgrew_the_slots_is_told(self, make):
        ends = make(framed.BytesCodec(), mtu=1000)
        ends.one.mtu = ends.other.mtu = 1500
        for size in (500, 1400, 600):
            ends.run(ends.other.send(packet_of(7, size)))
        assert ends.call("recv", 0) == packet_of(7, 500)
        with pytest.raises(PacketError, match="MTU"):
            ends.call("recv", 0)
        assert ends.call("recv", 0) == packet_of(7, 600)

    def test_what_was_received_comes_before_the_end_of_the_other_end(self, make):
        ends = make()
        ends.arrive(1, 2)
        ends.other.close()
        assert ends.call("recv", PATIENCE) == 1
        assert ends.call("recv", PATIENCE) == 2
        with pytest.raises(DeviceGoneError):
            ends.call("recv", PATIENCE)

    def test_a_view_is_what_the_decoder_gets(self, make):
        seen = []

        class Codec(Numbers):
            def decode(self, packet):
                seen.append(packet)
                return packet.tobytes()

        ends = make(Codec())
        ends.arrive(1)
        assert ends.call("recv", 0) == packet_of(1)
        assert seen[0].base is not None
        assert (seen[0].dtype, seen[0].shape) == (np.uint8, (100,))


class TestSend:
    def test_at_once(self, make):
        ends = make()
        assert ends.call("send", 1) is None
        assert ends.arrived() == [1]

    def test_what_is_fed_waits_for_a_flush(self, make):
        ends = make()
        for number in (1, 2, 3):
            assert ends.call("feed", number) is None
            assert ends.framed.writer.pending == number
        assert ends.arrived() == []
        ends.call("flush")
        ends.call("flush")
        assert ends.framed.writer.pending == 0
        assert ends.arrived() == [1, 2, 3]

    def test_what_was_fed_goes_first(self, make):
        ends = make()
        ends.call("feed", 1)
        ends.call("feed", 2)
        ends.call("send", 3)
        assert ends.arrived() == [1, 2, 3]

    def test_a_full_batch_goes_to_make_room(self, make):
        ends = make(None, 4)
        for number in range(1, 11):
            ends.call("feed", number)
        assert ends.arrived() == [*range(1, 9)]
        assert ends.framed.writer.pending == 2
        ends.call("flush")
        assert ends.arrived() == [9, 10]

    @pytest.mark.parametrize("capacity", [1, 4])
    def test_an_encoder_that_fails_takes_nothing(self, make, capacity):
        ends = make(None, capacity)
        for number in (1, 2, 3):
            ends.call("feed", number)
            for name in ("feed", "send"):
                with pytest.raises(LookupError):
                    ends.call(name, LookupError())
        ends.call("flush")
        assert ends.arrived() == [1, 2, 3]

    @pytest.mark.parametrize(
        ("answer", "error"),
        [
            (-1, ValueError), (-(2**40), ValueError), (1537, ValueError), (2**40, ValueError),
            (99.0, TypeError), (float("nan"), TypeError), (None, TypeError), ("100", TypeError),
            (np.float64(3), TypeError), (b"", TypeError),
        ],
    )  # fmt: skip
    def test_an_encoder_that_answers_nonsense_takes_nothing(self, make, answer, error):
        ends = make()
        ends.call("feed", 1)
        for name in ("feed", "send"):
            with pytest.raises(error):
                ends.call(name, (answer,))
        assert ends.framed.writer.pending == 1
        ends.call("send", 2)
        assert ends.arrived() == [1, 2]

    def test_a_packet_larger_than_any_is_refused_at_once(self, make):
        ends = make(None, 4, mtu=65535)
        assert ends.framed.writer._batch.slot_size == 65536
        with pytest.raises(ValueError, match="65535"):
            ends.call("send", (65536,))
        ends.call("send", 1)
        assert ends.arrived() == [1]

    @pytest.mark.parametrize("size", [0, False, np.int64(0)])
    def test_nothing_is_sent_of_no_bytes(self, make, size):
        ends = make()
        ends.call("send", (size,))
        assert ends.framed.writer.pending == 0
        ends.call("feed", 1)
        ends.call("send", (size,))
        assert ends.arrived() == [1]

    def test_a_numpy_integer_is_one(self, make):
        class Codec(Numbers):
            def encode(self, item, slot):
                return np.int32(super().encode(item, slot))

        ends = make(Codec())
        ends.call("send", 1)
        assert ends.arrived() == [1]

    def test_a_packet_that_is_refused_is_dropped_alone(self, make):
        ends = make()
        for number in (1, -2, 3, -4, -5, 6):
            ends.call("feed", number)
        refused = 0
        while ends.framed.writer.pending:
            try:
                ends.call("flush")
            except PacketError:
                refused += 1
        assert refused == 3
        assert ends.arrived() == [1, 3, 6]

    def test_a_link_that_is_down_keeps_what_was_fed(self, make):
        ends = make()
        ends.call("feed", 1)
        ends.one.down()
        for _ in range(2):
            with pytest.raises(LinkDownError):
                ends.call("flush")
        assert ends.framed.writer.pending == 1
        ends.one.up()
        ends.call("send", 2)
        assert ends.arrived() == [1, 2]

    @pytest.mark.parametrize("timeout", [0, 0.03])
    def test_what_did_not_go_in_time_goes_later_and_once(self, make, timeout):
        ends = make()
        ends.fill()
        for number in range(1, 65):
            ends.call("feed", number)
        begin = time.monotonic()
        with pytest.raises(TimeoutError):
            ends.call("flush", timeout)
        assert time.monotonic() - begin >= timeout
        found = [ends.run(ends.other.recv(0)) for _ in range(5)]
        with pytest.raises(TimeoutError):
            ends.call("flush", timeout)
        assert 0 < ends.framed.writer.pending < 64
        while ends.framed.writer.pending:
            found = ends.arrived() or found
            with contextlib.suppress(TimeoutError):
                ends.call("flush", 0)
            numbers = [number for number in found if number != 9999]
            assert numbers == sorted(set(numbers))
        assert (found + ends.arrived())[-1] == 64

    def test_a_full_batch_on_a_full_device_takes_no_more(self, make):
        ends = make(None, 2)
        filled = ends.fill()
        ends.call("feed", 1)
        ends.call("feed", 2)
        for name in ("feed", "send"):
            with pytest.raises(TimeoutError):
                ends.call(name, 3, 0)
        assert ends.framed.writer.pending == 2
        assert ends.arrived() == [9999] * filled
        ends.call("send", 4, 0)
        assert ends.arrived() == [1, 2, 4]

    @pytest.mark.parametrize("timeout", [-1, float("nan")])
    def test_time_that_is_none(self, make, timeout):
        ends = make()
        with pytest.raises(ValueError, match="timeout"):
            ends.call("flush", timeout)
        with pytest.raises(ValueError, match="timeout"):
            ends.call("send", 1, timeout)
        assert ends.arrived() == []

    def test_on_a_closed_device(self, make):
        ends = make()
        ends.call("feed", 1)
        ends.one.close()
        for _ in range(2):
            with pytest.raises(ClosedError):
                ends.call("flush")
        with pytest.raises(ClosedError):
            ends.call("send", 2)

    def test_frames_of_a_tap(self, make):
        ends = make(framed.BytesCodec(), 4, 1)
        frame = b"\2" * 12 + b"\x08\0" + packet_of(1)
        ends.call("send", frame)
        assert ends.run(ends.other.recv(0)) == frame

    @pytest.mark.parametrize("offload", [True, "superpackets"])
    def test_with_offload(self, make, offload):
        ends = make(None, 64, offload=offload)
        for number in range(1, 51):
            ends.call("feed", number)
        ends.call("flush")
        other = ends.module.Framed(ends.other, Numbers())
        if offload is True:
            assert [ends.run(other.recv(0)) for _ in range(50)] == [*range(1, 51)]
        else:
            assert ends.run(other.recv(0)) == 1


class TestBytesCodec:
    KINDS = (
        bytes, bytearray, memoryview, lambda b: array.array("B", b), lambda b: np.frombuffer(b, np.uint8),
        lambda b: np.frombuffer(b, np.uint16), lambda b: np.frombuffer(b, np.uint8).reshape(10, 10),
    )  # fmt: skip

    @pytest.mark.parametrize("kind", KINDS, ids=range(len(KINDS)))
    def test_every_kind_of_buffer(self, make, kind):
        ends = make(framed.BytesCodec())
        ends.call("send", kind(packet_of(5)))
        assert ends.run(ends.other.recv(0)) == packet_of(5)

    def test_received_bytes_stay_as_they_are(self, make):
        ends = make(framed.BytesCodec(), 1)
        ends.arrive(1, 2)
        first = ends.call("recv", 0)
        assert type(first) is bytes
        assert ends.call("recv", 0) == packet_of(2)
        assert first == packet_of(1)

    @pytest.mark.parametrize(
        ("item", "error"),
        [
            ("text", TypeError), (None, TypeError), (5, TypeError), ([1, 2], TypeError),
            (bytes(70000), ValueError), (memoryview(bytes(200))[::2], ValueError),
        ],
        ids=range(6),
    )  # fmt: skip
    def test_what_is_no_packet(self, make, item, error):
        ends = make(framed.BytesCodec())
        with pytest.raises(error):
            ends.call("send", item)
        assert ends.framed.writer.pending == 0

    def test_no_bytes(self, make):
        ends = make(framed.BytesCodec())
        ends.call("send", b"")
        assert ends.arrived() == []


class TestHalves:
    def test_keep_what_was_received_and_fed(self, make):
        ends = make()
        ends.arrive(1, 2, 3)
        assert ends.call("recv", 0) == 1
        ends.call("feed", 4)
        reader, writer = ends.framed.split()
        assert (reader.pending, writer.pending) == (2, 1)
        assert ends.run(reader.recv(0)) == 2
        ends.run(writer.send(5))
        assert ends.arrived() == [4, 5]
        assert ends.run(reader.recv(0)) == 3

    def test_one_alone(self, make):
        ends = make()

        class Decoder:
            def decode(self, packet):
                return len(packet)

        reader = ends.module.FramedReader(ends.one, Decoder())
        ends.arrive(1)
        assert ends.run(reader.recv(0)) == 100

    def test_in_two_threads(self):
        one, other = pair()
        with one, other:
            reader, writer = framed.Framed(one, Numbers()).split()
            echo = framed.Framed(other, Numbers())

            def answer():
                for number in echo:
                    echo.send(number)

            def send():
                for number in range(100, 1100):
                    writer.send(number)

            def receive():
                return [reader.recv(PATIENCE) for _ in range(1000)]

            threads = [CallThread(answer), CallThread(receive), CallThread(send)]
            for thread in threads[1:]:
                thread.join(3 * PATIENCE)
            other.close()
            threads[0].join(PATIENCE)
            assert threads[1].result == [*range(100, 1100)]
            assert threads[0].error is None


class TestIteration:
    @pytest.mark.parametrize("end", ["close", "shutdown"])
    def test_ends_with_the_device(self, end):
        one, other = pair()
        with one, other:
            found = []
            thread = CallThread(lambda: found.extend(framed.Framed(one, Numbers())))
            other.send(packet_of(1))
            other.send(packet_of(0))
            other.send(packet_of(2))
            thread.wait_until_blocked()
            getattr(one, end)()
            thread.join(PATIENCE)
            assert thread.error is None
            assert found == [1, 2]

    @pytest.mark.parametrize("end", ["close", "shutdown"])
    def test_ends_with_the_asynchronous_device(self, end):
        async def run():
            one, other = pair(aio.Tun)
            async with one, other:
                for number in (1, 0, 2):
                    await other.send(packet_of(number))
                found = []

                async def collect():
                    async for number in aio.Framed(one, Numbers()):
                        found.append(number)

                task = asyncio.create_task(collect())
                while len(found) < 2:
                    await asyncio.sleep(0.001)
                getattr(one, end)()
                await asyncio.wait_for(task, PATIENCE)
                assert found == [1, 2]

        asyncio.run(run())

    def test_goes_on_where_it_was_left(self):
        one, other = pair()
        with one, other:
            both = framed.Framed(one, Numbers())
            for number in range(1, 6):
                other.send(packet_of(number))
            assert next(iter(both)) == 1
            for number in both:
                if number == 3:
                    break
            assert both.recv(0) == 4

    def test_a_with_closes_the_device(self):
        one, other = pair()
        with other:
            with framed.Framed(one, Numbers()) as both:
                both.send(1)
            assert one.closed
            with pytest.raises(ClosedError):
                both.recv(0)

    def test_an_async_with_closes_the_device(self):
        async def run():
            one, other = pair(aio.Tun)
            async with other:
                async with aio.Framed(one, Numbers()) as both:
                    await both.send(1)
                assert one.closed

        asyncio.run(run())


class TestEnds:
    def test_an_event_and_an_interrupt_cost_no_count(self):
        one, other = pair()
        with one, other:
            writer = framed.FramedWriter(one, Numbers())
            with contextlib.suppress(TimeoutError):
                while True:
                    one.send(packet_of(9999), 0)
            for number in range(1, 65):
                writer.feed(number)
            numbers = []
            event = Event()
            for end, undo in ((event.set, event.clear), (one.interrupt, lambda: None)) * 3:
                for _ in range(5):
                    numbers.append(int.from_bytes(other.recv(PATIENCE)[28:32], "big"))
                thread = CallThread(lambda: writer.flush(event=event)).wait_until_blocked()
                end()
                thread.join(PATIENCE)
                assert isinstance(thread.error, InterruptError)
                undo()
            thread = CallThread(writer.flush)
            while thread.is_alive():
                with contextlib.suppress(TimeoutError):
                    numbers.append(int.from_bytes(other.recv(0.01)[28:32], "big"))
            with contextlib.suppress(TimeoutError):
                while True:
                    numbers.append(int.from_bytes(other.recv(0)[28:32], "big"))
            assert [number for number in numbers if number != 9999] == [*range(1, 65)]

    def test_a_flush_that_is_cancelled_costs_no_count(self):
        async def run():
            one, other = pair(aio.Tun)
            async with one, other:
                writer = aio.FramedWriter(one, Numbers())
                with contextlib.suppress(TimeoutError):
                    while True:
                        await one.send(packet_of(9999), 0)
                for number in range(1, 65):
                    await writer.feed(number)
                numbers = []
                for _ in range(6):
                    for _ in range(5):
                        numbers.append(int.from_bytes((await other.recv(PATIENCE))[28:32], "big"))
                    task = asyncio.create_task(writer.flush())
                    await asyncio.sleep(0.01)
                    task.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await task
                assert writer.pending < 64
                task = asyncio.create_task(writer.flush())
                while not task.done() or numbers[-1] != 64:
                    numbers.append(int.from_bytes((await other.recv(PATIENCE))[28:32], "big"))
                assert [number for number in numbers if number != 9999] == [*range(1, 65)]

        asyncio.run(run())

    def test_a_receive_that_is_cancelled_costs_no_packet(self):
        async def run():
            one, other = pair(aio.Tun)
            async with one, other:
                reader = aio.FramedReader(one, Numbers())
                found = []
                for number in range(1, 101):
                    task = asyncio.create_task(reader.recv())
                    await asyncio.sleep(0)
                    await other.send(packet_of(number))
                    for _ in range(number % 4):
                        await asyncio.sleep(0)
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        found.append(await task)
                with contextlib.suppress(TimeoutError):
                    while True:
                        found.append(await reader.recv(0))
                assert found == [*range(1, 101)]

        asyncio.run(run())


class TestReal:
    def test_a_packet_that_the_kernel_refuses_is_dropped_alone(self, net):
        with Tun(addresses=[f"{HOST}/24"], quiet=True) as tun:
            writer = framed.FramedWriter(tun, Numbers())
            for number in (1, -2, 3, -4, 5):
                writer.feed(number)
            refused = 0
            while writer.pending:
                try:
                    writer.flush(PATIENCE)
                except PacketError:
                    refused += 1
            assert refused == 2
            assert tun.stats.rx_packets == 3

    def test_the_same_with_offload(self, net):
        with Tun(addresses=[f"{HOST}/24"], quiet=True, offload=True) as tun:
            writer = framed.FramedWriter(tun, Numbers())
            for number in (1, 2, -3, 4, 5, -6, 7, 8, 9):
                writer.feed(number)
            refused = 0
            while writer.pending:
                try:
                    writer.flush(PATIENCE)
                except PacketError:
                    refused += 1
            assert refused == 2
