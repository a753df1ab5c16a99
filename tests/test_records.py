"""A device at a descriptor that yields several packets with one read, in BPF records.

No such descriptor is there on Linux: the other end of a socket pair writes what a read yields.
"""

import asyncio
import contextlib
import errno
import os
import select
import socket
import sys
import time
from pathlib import Path

import pytest
import trio
from forks import fork, reap
from threads import PATIENCE, CallThread

import tuntap
from tuntap import (
    ClosedError,
    DeviceGoneError,
    InterruptError,
    PacketBatch,
    PacketError,
    Tap,
    _core,
    aio,
    bpf,
)

sys.path.insert(0, str(Path(__file__).parent / "kernels"))

import build_harness
from twins import record

BUFFER = 4096  # bytes that a read asks for
NOTHING = ([], [], [])


@pytest.fixture(scope="session")
def framing():
    return build_harness.load(Path(__file__).with_name("_framing.pyx"))


@pytest.fixture(params=[bpf.MACOS, bpf.FREEBSD], ids=["macos", "freebsd"])
def layout(request):
    return request.param


class Source:
    """The other end: each `read` is what one read of the device yields."""

    def __init__(self, framing, layout, kind=Tap, buffer=BUFFER):
        self.layout = layout
        ours, self.socket = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.device = kind.from_fd(ours.detach())
        framing.receive_records(self.device, *layout, buffer)

    def read(self, *packets):
        self.put(b"".join(record(packet, self.layout) for packet in packets))

    def put(self, data):
        self.socket.send(data)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.device.close()
        self.socket.close()


@pytest.fixture
def source(framing, layout):
    with Source(framing, layout) as source:
        yield source


def some(count, first=0):
    """Packets that differ in size and content."""
    return [bytes([number]) * (1 + number) for number in range(first, first + count)]


def by_recv(device, timeout):
    return [device.recv(timeout)]


def by_recv_into(device, timeout):
    memory = bytearray(100)
    return [bytes(memory[: device.recv_into(memory, timeout)])]


def by_recv_into_much(device, timeout):
    memory = bytearray(70_000)
    return [bytes(memory[: device.recv_into(memory, timeout)])]


def by_recv_vectored(device, timeout):
    parts = bytearray(3), bytearray(100)
    size = device.recv_vectored(parts, timeout)
    return [b"".join(parts)[:size]]


def by_batch(capacity):
    def receive(device, timeout):
        batch = PacketBatch(capacity, 100, headroom=5)
        assert device.recv_batch(batch, timeout) == len(batch)
        assert batch.truncated == ()
        return [bytes(packet) for packet in batch]

    receive.__name__ = f"by_batch_of_{capacity}"
    return receive


WAYS = [by_recv, by_recv_into, by_recv_into_much, by_recv_vectored, *map(by_batch, (1, 2, 3, 64))]
way = pytest.mark.parametrize("receive", WAYS, ids=lambda way: way.__name__)
timeouts = pytest.mark.parametrize("timeout", [0, PATIENCE, None])


def take_all(device, receive=by_recv, timeout=0):
    packets = []
    with contextlib.suppress(TimeoutError):
        while True:
            packets += receive(device, timeout)
    return packets


def finish(*threads):
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive(), "the call hangs"
    return [thread.error for thread in threads]


class TestDelivery:
    @way
    def test_every_record_of_several_reads(self, source, receive):
        for first in (0, 5, 10):
            source.read(*some(5, first))
        assert take_all(source.device, receive) == some(15)
        source.read(*some(2))
        assert take_all(source.device, receive) == some(2)

    @way
    @timeouts
    def test_what_is_in_memory_is_not_waited_for(self, source, receive, timeout):
        device = source.device
        source.read(*some(7))
        packets = by_recv(device, timeout)
        assert device.pending == 6
        device.interrupt()  # for a call that has to wait
        while len(packets) < 7:
            packets += receive(device, timeout)
            assert device.pending == 7 - len(packets)
        assert packets == some(7)
        with pytest.raises(InterruptError):
            receive(device, PATIENCE)

    def test_a_batch_takes_what_several_reads_yield(self, source):
        for first in (0, 3, 6):
            source.read(*some(3, first))
        batch = PacketBatch(8, 100)
        assert source.device.recv_batch(batch, 0) == 8
        assert [bytes(packet) for packet in batch] == some(8)
        assert source.device.pending == 1
        assert source.device.recv(0) == some(9)[8]

    def test_headers_of_a_batch_are_those_of_ordinary_packets(self, source):
        batch = PacketBatch(4, 100)
        batch.headers["gso_size"] = 7
        source.read(*some(3))
        source.device.recv_batch(batch, 0)
        assert batch.headers["gso_size"].tolist() == [0, 0, 0, 7]

    def test_records_of_nothing(self, source):
        """No packet is empty: a device that is told so would be at its end."""
        source.read(b"", b"", b"")
        source.read(b"", b"one", b"", b"two", b"")
        source.read(b"")
        assert take_all(source.device) == [b"one", b"two"]
        source.read(b"one", b"", b"")
        assert source.device.recv(0) == b"one"
        assert source.device.pending == 0
        with pytest.raises(TimeoutError):
            source.device.recv(0.01)

    @pytest.mark.parametrize("header", [30, 100])
    def test_a_longer_header_on_another_system(self, source, header):
        source.put(b"".join(record(packet, source.layout, header=header) for packet in some(3)))
        assert take_all(source.device) == some(3)

    def test_the_last_record_without_its_padding(self, source):
        made = record(b"one", source.layout) + record(b"three", source.layout).rstrip(b"\0")
        assert made[-1:] == b"e"
        source.put(made)
        assert take_all(source.device) == [b"one", b"three"]

    def test_the_largest_packet(self, framing, layout):
        packet = bytes(range(256)) * 256
        with Source(framing, layout, buffer=1 << 18) as source:
            source.read(packet[:65535], packet)
            assert source.device.recv(0) == packet[:65535]
            assert source.device.recv(0) == packet

    def test_sending_has_no_records(self, source):
        source.read(*some(3))
        assert source.device.recv(0) == some(3)[0]
        assert source.device.send(b"frame") == 5
        batch = PacketBatch(2, 100)
        batch.fill([b"1", b"22"])
        assert source.device.send_batch(batch) == 2
        assert source.device.send_vectored([b"a", b"b"]) == 2
        assert [source.socket.recv(100) for _ in range(4)] == [b"frame", b"1", b"22", b"ab"]
        assert take_all(source.device) == some(3)[1:]


class TestCut:
    def test_by_the_slot(self, source):
        source.read(b"1234", b"12345", b"1", b"123456")
        batch = PacketBatch(4, 4)
        assert source.device.recv_batch(batch, 0) == 4
        assert [bytes(packet) for packet in batch] == [b"1234", b"1234", b"1", b"1234"]
        assert batch.truncated == (1, 3)

    def test_by_the_capture(self, source):
        source.put(
            record(b"1234", source.layout, original=5)
            + record(b"12", source.layout, original=4)
            + record(b"12", source.layout)
            + record(b"123456", source.layout, original=9)
        )
        batch = PacketBatch(4, 4)
        assert source.device.recv_batch(batch, 0) == 4
        assert [bytes(packet) for packet in batch] == [b"1234", b"12", b"12", b"1234"]
        assert batch.truncated == (0, 1, 3)

    @pytest.mark.parametrize("by_capture", [False, True])
    @pytest.mark.parametrize("size", [6, 10_000])
    def test_is_an_error_of_calls_for_one_packet(self, source, by_capture, size):
        """The packet behind it is not harmed."""
        room = size if by_capture else 3
        message = "captured" if by_capture else "larger than the 3"
        device = source.device
        for call in (device.recv_into, lambda room, timeout: device.recv_vectored([room], timeout)):
            source.put(
                record(b"12345", source.layout, original=5 + by_capture) + record(b"next", source.layout)
            )
            memory = bytearray(room)
            with pytest.raises(PacketError, match=message) as caught:
                call(memory, 0)
            assert caught.value.errno == errno.EMSGSIZE
            assert memory.rstrip(b"\0") == b"12345"[:room]
            assert device.recv(0) == b"next"

    def test_is_an_error_of_recv(self, framing, layout):
        with Source(framing, layout, buffer=1 << 17) as source:
            source.read(bytes(70_000), b"next")
            source.put(record(b"12", layout, original=3) + record(b"last", layout))
            for packet in (b"next", b"last"):
                with pytest.raises(PacketError):
                    source.device.recv(0)
                assert source.device.recv(0) == packet


def torn(layout):
    return record(b"torn", layout, captured=1000)


class TestBroken:
    @way
    @timeouts
    def test_what_came_before_is_delivered_first(self, source, receive, timeout):
        source.put(b"".join(record(packet, source.layout) for packet in some(5)) + torn(source.layout))
        packets = []
        while len(packets) < 5:
            packets += receive(source.device, timeout)
        assert packets == some(5)
        assert source.device.pending == 0
        source.device.wait_readable(timeout)
        with pytest.raises(PacketError) as caught:
            receive(source.device, timeout)
        assert caught.value.errno == errno.EBADMSG
        with pytest.raises(TimeoutError):
            receive(source.device, 0.001)
        source.read(b"behind")
        assert receive(source.device, timeout) == [b"behind"]

    @pytest.mark.parametrize("size", range(1, 27))
    def test_bytes_that_are_too_few(self, source, size):
        source.read(b"one")
        source.put(bytes(size))
        source.read(b"two")
        assert source.device.recv(0) == b"one"
        with pytest.raises(PacketError):
            source.device.recv(0)
        assert source.device.recv(0) == b"two"

    def test_a_batch_ends_in_front_of_it(self, source):
        source.put(record(b"one", source.layout) + torn(source.layout))
        source.read(b"two")
        batch = PacketBatch(8, 100)
        assert source.device.recv_batch(batch, 0) == 1
        with pytest.raises(PacketError):
            source.device.recv_batch(batch, 0)
        assert len(batch) == 0
        assert source.device.recv_batch(batch, 0) == 1
        assert bytes(batch[0]) == b"two"

    def test_a_read_that_is_larger_than_the_buffer(self, framing, layout):
        """The kernel cuts it: a record is torn in two."""
        with Source(framing, layout, buffer=64) as source:
            source.read(b"one", bytes(100), b"lost")
            assert source.device.recv(0) == b"one"
            with pytest.raises(PacketError):
                source.device.recv(0)
            with pytest.raises(TimeoutError):
                source.device.recv(0)

    def test_a_record_that_another_thread_meets(self, source):
        """Of two that wait one gets the packet, and the other the error."""
        threads = [CallThread(source.device.recv).wait_until_blocked() for _ in range(2)]
        source.put(record(b"one", source.layout) + torn(source.layout))
        errors = finish(*threads)
        assert sorted(thread.result or b"" for thread in threads) == [b"", b"one"]
        assert [type(error) for error in errors if error] == [PacketError]


class TestReadiness:
    def test_packets_in_memory_are_readable_although_the_descriptor_is_not(self, source):
        device = source.device
        source.read(*some(3))
        for left in (2, 1):
            device.recv(PATIENCE)
            assert device.pending == left
            assert select.select([device.fileno()], [], [], 0) == NOTHING
            for timeout in (None, 0, 1):
                device.wait_readable(timeout)
        device.recv(0)
        with pytest.raises(TimeoutError):
            device.wait_readable(0)

    def test_packets_that_another_thread_leaves(self, source):
        waiting = [CallThread(source.device.wait_readable).wait_until_blocked() for _ in range(2)]
        receivers = [CallThread(source.device.recv).wait_until_blocked() for _ in range(4)]
        source.read(*some(5))
        assert finish(*waiting, *receivers) == [None] * 6
        assert sorted(thread.result for thread in receivers) == some(4)
        assert source.device.pending == 1

    def test_two_threads_share_what_comes(self, source):
        reads, size = 200, 7
        done = []

        def receive(receive):
            with contextlib.suppress(ClosedError):
                while True:
                    done.extend(receive(source.device, None))

        threads = [CallThread(receive, by_recv), CallThread(receive, by_batch(3))]
        expected = [number.to_bytes(2, "big") for number in range(reads * size)]
        for number in range(reads):
            source.read(*expected[number * size : (number + 1) * size])
        deadline = time.monotonic() + PATIENCE
        while len(done) < len(expected) and time.monotonic() < deadline:
            time.sleep(0.005)
        source.device.shutdown()
        assert finish(*threads) == [None, None]
        assert sorted(done) == expected

    def test_an_interrupt_and_an_event_lose_nothing(self, source):
        thread = CallThread(source.device.recv).wait_until_blocked()
        source.device.interrupt()
        assert [type(error) for error in finish(thread)] == [InterruptError]
        event = tuntap.Event()
        source.read(*some(3))
        assert source.device.recv(0, event=event) == some(3)[0]
        event.set()
        with pytest.raises(InterruptError):
            source.device.recv(None, event=event)
        event.clear()
        assert take_all(source.device) == some(3)[1:]


class TestEnd:
    @pytest.mark.parametrize("end", ["close", "shutdown"])
    def test_of_the_device(self, source, end):
        thread = CallThread(source.device.recv_batch, PacketBatch(2, 10)).wait_until_blocked()
        getattr(source.device, end)()
        assert [type(error) for error in finish(thread)] == [ClosedError]

    @pytest.mark.parametrize("end", ["close", "shutdown"])
    def test_what_is_in_memory_goes_with_it(self, source, end):
        source.read(*some(3))
        source.device.recv(0)
        getattr(source.device, end)()
        for timeout in (0, None):
            with pytest.raises(ClosedError):
                source.device.recv(timeout)
        source.device.close()
        assert source.device.pending == 0

    def test_of_the_other_end_comes_behind_what_is_in_memory(self, source):
        source.read(*some(3))
        source.socket.close()
        assert [source.device.recv(PATIENCE) for _ in range(3)] == some(3)
        with pytest.raises(DeviceGoneError):
            source.device.recv(PATIENCE)

    @pytest.mark.parametrize("is_closed", [True, False])
    def test_the_memory_is_given_back(self, framing, is_closed):
        def address_space():
            return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")

        before = address_space()
        kept = []
        for _ in range(32):
            port = _core.Port()
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with ours, theirs:
                port._adopt(ours.fileno(), 2)
                framing.receive_records(port, *bpf.MACOS, 1 << 26)
                if is_closed:
                    port.close()
                    kept.append(port)
                del port
        assert address_space() - before < 1 << 30

    def test_a_child_does_not_have_the_packets_of_its_parent(self, source):
        source.read(*some(3))
        assert source.device.recv(0) == some(3)[0]

        def child():
            assert source.device.pending == 0
            with pytest.raises(TimeoutError):
                source.device.wait_readable(0)
            with pytest.raises(TimeoutError):
                source.device.recv(0)
            source.read(b"to the child")
            assert source.device.recv(PATIENCE) == b"to the child"

        reap(fork(child))
        assert take_all(source.device) == some(3)[1:]

    def test_a_child_that_closes_does_not_close_that_of_its_parent(self, source):
        source.read(*some(3))
        source.device.recv(0)
        reap(fork(source.device.close))
        assert take_all(source.device) == some(3)[1:]


# Each runs calls that have to wait, wakes them, and answers what they answer, in whatever order.


async def with_asyncio(calls, wake):
    tasks = [asyncio.ensure_future(call()) for call in calls]
    await asyncio.sleep(0.01)
    wake()
    return await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE)


async def with_trio(calls, wake):
    results = []

    async def run(call):
        results.append(await call())

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            for call in calls:
                nursery.start_soon(run, call)
            await trio.sleep(0.01)
            wake()
    return results


LOOPS = {
    "asyncio": lambda *arguments: asyncio.run(with_asyncio(*arguments)),
    "trio": lambda *arguments: trio.run(with_trio, *arguments),
}


@pytest.fixture(params=LOOPS)
def run(request):
    return LOOPS[request.param]


class TestAsynchronous:
    @pytest.fixture
    def source(self, framing, layout):
        with Source(framing, layout, kind=aio.Tap) as source:
            yield source

    def test_every_task_that_waits_gets_a_packet_of_one_read(self, source, run):
        """Nobody comes back for more: those who wait are told of what is left in memory."""
        got = run([source.device.recv] * 5, lambda: source.read(*some(6)))
        assert sorted(got) == some(5)
        assert source.device.pending == 1

    def test_a_thread_leaves_packets_to_a_task(self, source, run):
        def feed():
            source.read(*some(3))
            assert tuntap.Tap.recv(source.device, 0) == some(1)[0]

        assert some(2)[1] in run([source.device.recv, source.device.wait_readable], feed)

    def test_batches_smaller_than_a_read(self, source, run):
        source.read(*some(7))
        batch = PacketBatch(2, 100)
        packets = []

        async def receive():
            for _ in range(4):
                await source.device.recv_batch(batch)
                packets.extend(bytes(packet) for packet in batch)

        run([receive], lambda: None)
        assert packets == some(7)

    def test_a_broken_record(self, source, run):
        async def receive():
            assert await source.device.recv() == b"one"
            await source.device.wait_readable(PATIENCE)
            with pytest.raises(PacketError):
                await source.device.recv()
            return await source.device.recv()

        def feed():
            source.put(record(b"one", source.layout) + torn(source.layout))
            source.read(b"two")

        assert run([receive], feed) == [b"two"]

    def test_the_end(self, source, run):
        async def receive():
            with pytest.raises(ClosedError):
                await source.device.recv()

        run([receive] * 2, source.device.close)
