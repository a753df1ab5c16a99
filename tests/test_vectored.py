"""recv_vectored and send_vectored: one packet in several buffers, on every kind of device."""

import array
import asyncio
import contextlib
import gc
import mmap
import socket
import sys
import weakref

import numpy as np
import pytest
from threads import PATIENCE, CallThread

from tuntap import ClosedError, LinkDownError, PacketError, Tap, Tun, aio
from tuntap.testing import pair, tcp, udp

HOST, PEER = "10.8.0.1", "10.8.0.2"
PACKET = udp(HOST, PEER, 1, 2, bytes(range(72)))  # 100 bytes


class Sync:
    """Two connected devices and the calls under test."""

    kinds = Tun, Tap

    def __init__(self, one, other):
        self.one, self.other = one, other

    def run(self, answer):
        return answer

    def close(self):
        self.one.close()
        self.other.close()

    def recv(self, buffers, timeout=PATIENCE):
        return self.run(self.one.recv_vectored(buffers, timeout))

    def send(self, buffers, timeout=PATIENCE):
        return self.run(self.one.send_vectored(buffers, timeout))

    def arrives(self, packet=PACKET):
        self.run(self.other.send(packet))

    def arrived(self):
        return self.run(self.other.recv(0))


class Async(Sync):
    kinds = aio.Tun, aio.Tap

    def __init__(self, one, other):
        super().__init__(one, other)
        self.runner = asyncio.Runner()

    def run(self, answer):
        return self.runner.run(answer)

    def close(self):
        super().close()
        self.runner.close()


@pytest.fixture(params=[Sync, Async])
def way(request):
    return request.param


@pytest.fixture
def ends(way):
    with contextlib.closing(way(*pair(way.kinds[0]))) as ends:
        yield ends


class TestRecv:
    def test_at_every_boundary(self, ends):
        for first in range(len(PACKET) + 30):
            ends.arrives()
            buffers = [bytearray(first), bytearray(len(PACKET) + 20)]
            assert ends.recv(buffers) == len(PACKET)
            assert b"".join(buffers)[: len(PACKET)] == PACKET
            assert not any(b"".join(buffers)[len(PACKET) :])

    @pytest.mark.parametrize("sizes", [[100], [1] * 100, [0, 1, 0, 0, 98, 0, 1, 0], [99, 0, 1], [20, 8, 72]])
    def test_into_buffers_that_hold_it_just(self, ends, sizes):
        ends.arrives()
        buffers = [bytearray(size) for size in sizes]
        assert ends.recv(buffers) == len(PACKET)
        assert b"".join(buffers) == PACKET

    def test_into_thousands(self, ends):
        ends.arrives()
        memory = bytearray(5000)
        view = memoryview(memory)
        assert ends.recv([view[i : i + 1] for i in range(5000)]) == len(PACKET)
        assert memory[:100] == PACKET
        assert not any(memory[100:])

    def test_what_is_behind_the_packet_stays(self, ends):
        ends.arrives()
        buffers = [bytearray(b"-" * 99), bytearray(b"-" * 10), bytearray(b"-" * 10)]
        assert ends.recv(buffers) == len(PACKET)
        assert b"".join(buffers) == PACKET + b"-" * 19

    @pytest.mark.parametrize("sizes", [[50], [20, 30], [0, 50], [1] * 50])
    def test_a_packet_that_is_larger(self, ends, sizes):
        ends.arrives()
        buffers = [bytearray(size) for size in sizes]
        with pytest.raises(PacketError, match="50 bytes"):
            ends.recv(buffers)
        assert b"".join(buffers) == PACKET[:50]
        with pytest.raises(TimeoutError):  # the rest is lost
            ends.recv(buffers, 0)

    @pytest.mark.parametrize("buffers", [[], [bytearray()], [bytearray(), bytearray()], ()])
    def test_no_room(self, ends, buffers):
        ends.arrives()
        with pytest.raises(ValueError, match="no room"):
            ends.recv(buffers)
        assert ends.recv([bytearray(200)]) == len(PACKET)  # it is still there

    @pytest.mark.parametrize(
        "make",
        [
            bytearray, lambda size: memoryview(bytearray(size)), lambda size: array.array("B", bytes(size)),
            lambda size: np.zeros(size, np.uint8), lambda size: np.zeros((size // 4, 4), np.uint8),
            lambda size: np.zeros(size // 4, np.uint32), lambda size: mmap.mmap(-1, size),
            lambda size: array.array("i", bytes(size)),
        ],
        ids=range(8),
    )  # fmt: skip
    def test_into_every_kind_of_buffer(self, ends, make):
        ends.arrives()
        buffers = [make(40), make(160)]
        assert ends.recv(buffers) == len(PACKET)
        assert bytes(buffers[0])[:40] + bytes(buffers[1])[:60] == PACKET

    def test_into_the_rows_of_an_array(self, ends):
        ends.arrives()
        rows = np.zeros((10, 20), np.uint8)
        assert ends.recv(rows) == len(PACKET)
        assert rows.tobytes()[:100] == PACKET

    def test_into_memory_that_overlaps(self, ends):
        ends.arrives()
        memory = bytearray(b"-" * 100)
        with memoryview(memory) as view:
            assert ends.recv([view[:60], view[20:60]]) == len(PACKET)  # one after the other
        assert bytes(memory) == PACKET[:20] + PACKET[60:] + b"-" * 40

    @pytest.mark.parametrize(
        ("bad", "error"),
        [
            (b"read-only", ValueError), (memoryview(b"read-only"), ValueError),
            (memoryview(bytearray(20))[::2], ValueError), (np.zeros((8, 8), np.uint8)[:, 1], ValueError),
            (np.zeros((8, 8), np.uint8).T[1:], ValueError), ("text", TypeError), (None, TypeError),
            (5, TypeError), ([bytearray(5)], TypeError), (socket, TypeError),
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("position", [0, 1, 2])
    def test_one_that_cannot_be(self, ends, bad, error, position):
        ends.arrives()
        others = [bytearray(50), bytearray(100)]
        buffers = [*others]
        buffers.insert(position, bad)
        with pytest.raises(error):
            ends.recv(buffers)
        for buffer in others:
            buffer.append(0)  # nobody holds it
        assert ends.recv(others) == len(PACKET)

    @pytest.mark.parametrize("buffers", [None, 5, bytearray(9), memoryview(bytearray(9)), "text", b"text"])
    def test_what_is_no_list(self, ends, buffers):
        ends.arrives()
        with pytest.raises(TypeError):
            ends.recv(buffers)
        assert ends.recv([bytearray(200)]) == len(PACKET)

    def test_of_an_iterator(self, ends):
        ends.arrives()
        buffers = [bytearray(60), bytearray(60)]
        assert ends.recv(buffer for buffer in buffers) == len(PACKET)
        assert b"".join(buffers)[:100] == PACKET

    def test_an_iterator_that_fails(self, ends):
        buffers = [bytearray(60)]

        def failing():
            yield buffers[0]
            raise LookupError

        with pytest.raises(LookupError):
            ends.recv(failing())
        buffers[0].append(1)

    def test_an_iterator_that_closes_the_device(self, ends):
        def closing():
            yield bytearray(60)
            ends.one.close()
            yield bytearray(60)

        with pytest.raises(ClosedError):
            ends.recv(closing())

    def test_nothing_to_receive(self, ends):
        buffers = [bytearray(b"-" * 20), bytearray(b"-" * 200)]
        for timeout in (0, 0.01):
            with pytest.raises(TimeoutError):
                ends.recv(buffers, timeout)
        assert b"".join(buffers) == b"-" * 220

    def test_the_largest_packet(self, way):
        with contextlib.closing(way(*pair(way.kinds[0], mtu=65535))) as ends:
            packet = bytes([0x45]) + bytes(i * i % 251 for i in range(65534))
            ends.arrives(packet)
            buffers = [bytearray(1), bytearray(60000), bytearray(5534), bytearray(1)]
            assert ends.recv(buffers) == 65535
            assert b"".join(buffers)[:65535] == packet
            ends.arrives(packet)
            with pytest.raises(PacketError):
                ends.recv([bytearray(65000), bytearray(534)])

    def test_of_a_tap(self, way):
        with contextlib.closing(way(*pair(way.kinds[1]))) as ends:
            ends.arrives(b"\2" * 12 + b"\x08\0" + PACKET)
            header, rest = bytearray(14), bytearray(2000)
            assert ends.recv([header, rest]) == 114
            assert rest[:100] == PACKET

    def test_counts(self, ends):
        ends.arrives()
        ends.recv([bytearray(50), bytearray(50)])
        assert ends.one.stats.tx_packets == 1
        assert ends.one.stats.tx_bytes == 100


class TestSend:
    def test_at_every_boundary(self, ends):
        for first in range(len(PACKET) + 1):
            assert ends.send([PACKET[:first], PACKET[first:]]) == len(PACKET)
            assert ends.arrived() == PACKET

    @pytest.mark.parametrize("sizes", [[100], [1] * 100, [0, 1, 0, 0, 98, 0, 1, 0], [20, 8, 72]])
    def test_of_any_number(self, ends, sizes):
        parts = []
        for size in sizes:
            start = sum(map(len, parts))
            parts.append(PACKET[start : start + size])
        assert ends.send(parts) == len(PACKET)
        assert ends.arrived() == PACKET

    def test_of_thousands(self, ends):
        packet = bytes([0x45]) + bytes(i % 251 for i in range(1499))
        parts = [part for byte in packet for part in (bytes([byte]), b"")]
        assert ends.send(parts) == 1500
        assert ends.arrived() == packet

    def test_one_buffer_many_times(self, ends):
        assert ends.send([b"\x45", *[b"ab"] * 100]) == 201
        assert ends.arrived() == b"\x45" + b"ab" * 100

    @pytest.mark.parametrize(
        "kind",
        [
            bytes, bytearray, memoryview, lambda b: array.array("B", b), lambda b: np.frombuffer(b, np.uint8),
            lambda b: np.frombuffer(b, np.uint16), lambda b: array.array("H", b),
            lambda b: np.array([*b], np.uint8),
        ],
        ids=range(8),
    )  # fmt: skip
    def test_of_every_kind_of_buffer(self, ends, kind):
        assert ends.send([kind(PACKET[:20]), kind(PACKET[20:])]) == len(PACKET)
        assert ends.arrived() == PACKET

    @pytest.mark.parametrize("buffers", [[], [b""], [b"", bytearray()], [bytes(40000), bytes(25536)]])
    def test_what_is_no_size_of_a_packet(self, ends, buffers):
        with pytest.raises(ValueError, match="1 to 65535 bytes"):
            ends.send(buffers)
        with pytest.raises(TimeoutError):
            ends.arrived()

    @pytest.mark.parametrize(
        ("bad", "error"),
        [
            (memoryview(bytes(20))[::2], ValueError), (np.zeros((8, 8), np.uint8)[:, 1], ValueError),
            ("text", TypeError), (None, TypeError), (5, TypeError), ([b""], TypeError),
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("position", [0, 1, 2])
    def test_one_that_cannot_be(self, ends, bad, error, position):
        others = [bytearray(PACKET[:20]), bytearray(PACKET[20:])]
        buffers = [*others]
        buffers.insert(position, bad)
        with pytest.raises(error):
            ends.send(buffers)
        for buffer in others:
            buffer.append(0)
        with pytest.raises(TimeoutError):
            ends.arrived()

    @pytest.mark.parametrize("buffers", [None, 5, PACKET, bytearray(PACKET), memoryview(PACKET), "text"])
    def test_what_is_no_list(self, ends, buffers):
        with pytest.raises(TypeError):
            ends.send(buffers)
        with pytest.raises(TimeoutError):
            ends.arrived()

    def test_of_an_iterator(self, ends):
        assert ends.send(iter([PACKET[:7], PACKET[7:]])) == len(PACKET)
        assert ends.arrived() == PACKET

    def test_what_is_no_packet_for_a_tun(self, ends):
        with pytest.raises(PacketError):
            ends.send([b"", b"\0" + PACKET[1:20], PACKET[20:]])
        with pytest.raises(TimeoutError):
            ends.arrived()

    def test_a_link_that_is_down(self, ends):
        ends.one.down()
        with pytest.raises(LinkDownError):
            ends.send([PACKET])

    def test_no_room(self, ends):
        with contextlib.suppress(TimeoutError):
            while True:
                ends.send([PACKET[:20], PACKET[20:]], 0)
        with pytest.raises(TimeoutError):
            ends.send([PACKET[:20], PACKET[20:]], 0.01)
        assert ends.arrived() == PACKET

    def test_counts(self, ends):
        ends.send([PACKET[:50], PACKET[50:]])
        assert ends.one.stats.rx_packets == 1
        assert ends.one.stats.rx_bytes == 100

    def test_of_a_tap(self, way):
        with contextlib.closing(way(*pair(way.kinds[1]))) as ends:
            assert ends.send([b"\2" * 12, b"\x08\0", PACKET]) == 114
            assert ends.arrived() == b"\2" * 12 + b"\x08\0" + PACKET


class TestMemory:
    @pytest.mark.parametrize("call", ["recv", "send"])
    def test_nothing_is_held_afterwards(self, ends, call):
        class Held(bytearray):
            pass

        held = Held(PACKET)
        reference = weakref.ref(held)
        count = sys.getrefcount(held)
        ends.arrives()
        getattr(ends, call)([held, held])
        with pytest.raises((TimeoutError, ValueError)):
            getattr(ends, call)([held] * 1000, 0)
        gc.collect()
        assert sys.getrefcount(held) == count
        held.append(0)
        del held
        gc.collect()
        assert reference() is None

    def test_a_buffer_in_use_cannot_be_resized(self):
        one, other = pair()
        with one, other:
            buffers = [bytearray(60), bytearray(60)]
            thread = CallThread(one.recv_vectored, buffers).wait_until_blocked()
            for buffer in buffers:
                with pytest.raises(BufferError):
                    buffer.append(0)
            other.send(PACKET)
            thread.join(PATIENCE)
            assert thread.result == 100
            buffers[0].append(0)

    def test_buffers_in_use_may_be_forgotten(self):
        one, other = pair()
        with one, other:
            buffers = [np.zeros(1 << 20, np.uint8), bytearray(60)]
            thread = CallThread(lambda: one.recv_vectored(buffers)).wait_until_blocked()
            buffers.clear()
            gc.collect()
            other.send(PACKET)
            thread.join(PATIENCE)
            assert thread.result == 100

    def test_an_iterator_of_a_call_that_waits(self):
        async def run():
            one, other = pair(aio.Tun)
            async with one, other:
                buffers = [bytearray(60), bytearray(60)]
                task = asyncio.create_task(one.recv_vectored(iter(buffers)))
                await asyncio.sleep(0.01)
                await other.send(PACKET)
                assert await asyncio.wait_for(task, PATIENCE) == 100
                assert b"".join(buffers)[:100] == PACKET

        asyncio.run(run())


class TestReal:
    @pytest.fixture
    def peer(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            yield sock

    @pytest.fixture
    def open_tun(self, net, way):
        class Loop:
            run = staticmethod(lambda answer: answer)

        with contextlib.ExitStack() as stack:

            def make(**settings):
                loop = Loop if way is Sync else stack.enter_context(asyncio.Runner())
                tun = way.kinds[0](addresses=[f"{HOST}/24"], quiet=True, **settings)
                stack.callback(tun.close)
                return tun, loop.run

            yield make

    @pytest.mark.parametrize("offload", [False, True, "superpackets"])
    def test_there_and_back(self, open_tun, peer, offload):
        tun, run = open_tun(offload=offload)
        peer.bind((HOST, 0))
        peer.sendto(b"there", (PEER, 7))
        header, body = bytearray(20), bytearray(2000)
        size = run(tun.recv_vectored([header, body], PATIENCE))
        assert size == 33
        assert body[8:13] == b"there"
        answer = udp(PEER, HOST, 7, peer.getsockname()[1], b"and back")
        assert run(tun.send_vectored([answer[:20], b"", answer[20:28], answer[28:]])) == len(answer)
        peer.settimeout(PATIENCE)
        assert peer.recv(100) == b"and back"

    def test_packet_information_is_in_front(self, open_tun, peer):
        tun, run = open_tun(packet_information=True)
        peer.bind((HOST, 0))
        peer.sendto(b"there", (PEER, 7))
        information, packet = bytearray(4), bytearray(2000)
        assert run(tun.recv_vectored([information, packet], PATIENCE)) == 37
        assert information == b"\0\0\x08\0"
        assert packet[0] == 0x45
        answer = udp(PEER, HOST, 7, peer.getsockname()[1], b"and back")
        assert run(tun.send_vectored([b"\0\0\x08\0", answer])) == 4 + len(answer)
        peer.settimeout(PATIENCE)
        assert peer.recv(100) == b"and back"

    def test_a_packet_that_is_larger(self, open_tun, peer):
        tun, run = open_tun()
        peer.sendto(b"x" * 100, (PEER, 7))
        buffers = [bytearray(20), bytearray(8)]
        with pytest.raises(PacketError, match="28 bytes"):
            run(tun.recv_vectored(buffers, PATIENCE))
        assert buffers[0][16:] == socket.inet_aton(PEER)
        assert buffers[1][2:4] == b"\0\7"

    def test_segments_of_a_super_packet(self):
        one, other = pair(offload=True)
        with one, other:
            batch = other.batch(8)
            parts = [bytes([i]) * 1000 for i in range(4)]
            batch.fill([tcp(HOST, PEER, 1, 2, part, seq=1000 * i) for i, part in enumerate(parts)])
            assert other.send_batch(batch) == 4
            for i, part in enumerate(parts):
                header, payload = bytearray(40), bytearray(1000)
                assert one.recv_vectored([header, payload], PATIENCE) == 1040
                assert payload == part
                assert one.pending == 3 - i

    def test_sent_one_by_one_with_offload(self):
        one, other = pair(offload=True)
        with one, other:
            for _ in range(3):
                assert one.send_vectored([PACKET[:28], PACKET[28:]]) == 100
            for _ in range(3):
                assert other.recv(PATIENCE) == PACKET
