"""``where=``: what part of a batch is meant, and that exactly this goes, from where it lies."""

import asyncio
import contextlib
import itertools
import socket

import numpy as np
import pytest
import trio
from numbered import fill, number_of, numbered, take_all
from threads import PATIENCE, CallThread

import tuntap
from tuntap import PacketBatch, aio
from tuntap._batch import selection
from tuntap.testing import pair, udp

INTEGERS = [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64, ">i4", ">u8"]


class TestSelection:
    """How a caller's array becomes numbers of packets."""

    @pytest.mark.parametrize(
        ("where", "chosen"),
        [
            ([True, False, True, True], [0, 2, 3]),
            ([False] * 4, []),
            ([True] * 4, [0, 1, 2, 3]),
            ((False, True, False, False), [1]),
            ([3, 0, 0, 2, 3], [3, 0, 0, 2, 3]),
            (range(1, 4), [1, 2, 3]),
            ([], []),
            ((), []),
            (np.empty(0, np.uint8), []),
            (memoryview(b"\x01\x03"), [1, 3]),
            (np.arange(8)[::-2] // 2, [3, 2, 1, 0]),
            (np.array([1, 0, 9, 0, 0, 0, 1, 0], np.uint8)[::2].astype(bool), [0, 1, 3]),
            (np.array([2, 0, 255, 1], np.uint8).view(bool), [0, 2, 3]),
            (np.array([[True, False]] * 4)[:, 0], [0, 1, 2, 3]),
        ],
    )
    def test_what_is_meant(self, where, chosen):
        found = selection(where, 4)
        assert found.dtype == np.int32
        assert found.flags.c_contiguous
        assert found.tolist() == chosen

    @pytest.mark.parametrize("dtype", INTEGERS)
    def test_integers_of_every_kind(self, dtype):
        assert selection(np.array([3, 0, 3], dtype), 4).tolist() == [3, 0, 3]
        with pytest.raises(IndexError, match="packet 4 of a batch that holds 4"):
            selection(np.array([3, 4], dtype), 4)
        with pytest.raises(IndexError, match=str(np.iinfo(dtype).max)):
            selection(np.array([np.iinfo(dtype).max], dtype), 4)

    @pytest.mark.parametrize("dtype", [kind for kind in INTEGERS if np.dtype(kind).kind == "i"])
    @pytest.mark.parametrize("negative", [-1, -4, -5, -128])
    def test_no_packet_is_counted_from_the_end(self, dtype, negative):
        with pytest.raises(IndexError, match=f"packet {negative} "):
            selection(np.array([0, negative], dtype), 4)

    @pytest.mark.parametrize("count", [0, 3, 5])
    def test_a_mask_of_another_batch(self, count):
        with pytest.raises(ValueError, match=f"mask of 4 packets, but the batch holds {count}"):
            selection([True] * 4, count)

    @pytest.mark.parametrize("where", [3, True, np.int32(1), [[0, 1]], np.ones((4, 1), bool), [[True] * 4]])
    def test_wrong_shapes(self, where):
        with pytest.raises(ValueError, match="1 dimension"):
            selection(where, 4)

    @pytest.mark.parametrize(
        "where",
        [
            [0.0], np.ones(4), np.empty(0), 1.0, "0", ["0"], b"\0", [None], [2**70], slice(2), {0, 1},
            object(), np.array([0], "m8[s]"), np.array([0], complex), np.zeros(4, [("a", bool)]),
        ],
    )  # fmt: skip
    def test_wrong_types(self, where):
        with pytest.raises(TypeError, match="bool or of int"):
            selection(where, 4)

    def test_more_than_a_call_can_count(self):
        with pytest.raises(ValueError, match="at most"):
            selection(np.broadcast_to(np.int8(0), 2**31), 4)

    @pytest.mark.parametrize("where", [np.array([True, False]), np.array([1, 0], np.int32), np.array([1, 0])])
    def test_is_a_copy(self, where):
        found = selection(where, 2)
        before = found.copy()
        where[:] = 1 - where.astype(int)
        assert (found == before).all()
        assert not np.shares_memory(found, where)


PACKETS = [numbered(i) for i in range(8)]


def filled_batch(device, packets=PACKETS, **options):
    batch = (
        PacketBatch(len(packets), max(map(len, packets)), **options)
        if options
        else device.batch(len(packets))
    )
    batch.fill(packets)
    return batch


@pytest.fixture(params=[tuntap.Tun, tuntap.Tap], ids=["Tun", "Tap"])
def ends(request):
    one, other = pair(request.param)
    with one, other:
        yield one, other


@pytest.fixture
def bare():
    """A descriptor that was adopted, with none of what a device in memory does itself."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with near, far, tuntap.Tun.from_fd(near.fileno(), owned=False) as device:
        far.setblocking(False)
        yield device, far


def read(sock):
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            found.append(number_of(sock.recv(2000)))
    return found


class TestSend:
    def test_every_order_of_every_part(self, bare):
        device, far = bare
        batch = filled_batch(device, PACKETS[:4])
        for size in range(5):
            for order in itertools.permutations(range(4), size):
                assert device.send_batch(batch, where=order) == size
                assert read(far) == list(order)

    def test_every_mask(self, ends):
        one, other = ends
        batch = filled_batch(one, PACKETS[:5])
        for bits in itertools.product([False, True], repeat=5):
            assert one.send_batch(batch, where=np.array(bits)) == sum(bits)
            assert take_all(other) == [i for i in range(5) if bits[i]]

    def test_one_packet_as_often_as_it_is_named(self, ends):
        one, other = ends
        batch = filled_batch(one)
        assert one.send_batch(batch, where=[5, 5, 2, 5] * 25) == 100  # more than there are slots
        assert take_all(other) == [5, 5, 2, 5] * 25

    def test_headroom_and_a_callers_arrays(self, ends):
        one, other = ends
        batch = filled_batch(one, headroom=13)
        assert one.send_batch(batch, where=[7, 0]) == 2
        wrapped = PacketBatch.wrap(batch.buffer, batch.lengths, headroom=13)
        assert one.send_batch(wrapped, where=wrapped.lengths > 0) == 8
        assert take_all(other) == [7, 0, *range(8)]

    def test_nothing_is_written(self, ends):
        one, _ = ends
        batch = filled_batch(one)
        where = np.array([3, 1], np.int32)
        before = batch.data.copy(), batch.lengths.copy(), batch.count
        one.send_batch(batch, where=where)
        assert (batch.data == before[0]).all()
        assert (batch.lengths == before[1]).all()
        assert batch.count == before[2]
        assert where.tolist() == [3, 1]

    @pytest.mark.parametrize("where", [[], np.zeros(8, bool), np.empty(0, np.int64)])
    def test_nothing_selected(self, ends, where):
        one, other = ends
        assert one.send_batch(filled_batch(one), where=where) == 0
        assert take_all(other) == []
        one.close()
        with pytest.raises(tuntap.ClosedError):
            one.send_batch(filled_batch(other), where=where)

    def test_of_an_empty_batch(self, ends):
        one, _ = ends
        batch = one.batch(4)
        assert one.send_batch(batch, where=np.empty(0, bool)) == 0
        with pytest.raises(IndexError, match="holds 0"):
            one.send_batch(batch, where=[0])

    def test_the_slots_behind_the_last_packet(self, ends):
        """Hold what an earlier receive left: no part of the batch, whatever start and stop may do."""
        one, other = ends
        batch = filled_batch(one)
        batch.count = 3
        with pytest.raises(IndexError, match="packet 3 of a batch that holds 3"):
            one.send_batch(batch, where=[0, 3])
        with pytest.raises(ValueError, match="mask of 8 packets, but the batch holds 3"):
            one.send_batch(batch, where=batch.lengths > 0)
        assert one.send_batch(batch, where=batch.lengths[: batch.count] > 0) == 3
        assert take_all(other) == [0, 1, 2]

    @pytest.mark.parametrize(
        ("where", "error"),
        [
            (np.ones(7, bool), ValueError), (np.ones(9, bool), ValueError),
            (np.ones((8, 1), bool), ValueError), (True, ValueError), (0, ValueError), ([[0]], ValueError),
            ([0.0], TypeError), (np.ones(8), TypeError), ("0", TypeError), (slice(1), TypeError),
            ({0}, TypeError), ([2**64], TypeError), (object(), TypeError),
            ([8], IndexError), ([-1], IndexError), ([2**31], IndexError), ([2**63 - 1], IndexError),
            ([-(2**63)], IndexError), (np.array([2**64 - 1], np.uint64), IndexError),
        ],
    )  # fmt: skip
    def test_what_selects_nothing_sends_nothing(self, bare, where, error):
        device, far = bare
        with pytest.raises(error, match="where"):
            device.send_batch(filled_batch(device), where=where)
        assert read(far) == []

    def test_bad_arguments_come_first(self, ends):
        """Also of a device that is closed, or has no room."""
        one, other = ends
        batch = filled_batch(one)
        fill(one)
        for device in (one, other):
            with pytest.raises(IndexError):
                device.send_batch(batch, timeout=5, where=[8])
            device.close()
            with pytest.raises(IndexError):
                device.send_batch(batch, timeout=5, where=[8])
            with pytest.raises(tuntap.ClosedError):
                device.send_batch(batch, timeout=5, where=[7])

    @pytest.mark.parametrize("length", [0, -1, -(2**31), 2001, 2**31 - 1])
    def test_a_wrong_length_matters_where_it_is_selected(self, bare, length):
        device, far = bare
        batch = PacketBatch(3, 2000)
        batch.fill(PACKETS[:3])
        batch.lengths[1] = length
        assert device.send_batch(batch, where=[2, 0]) == 2
        for where in ([2, 0, 1], np.ones(3, bool)):
            with pytest.raises(ValueError, match=f"packet 1: length {length} "):
                device.send_batch(batch, where=where)
        assert device.send_batch(batch, where=[2, 0, 1], stop=2) == 2
        assert read(far) == [2, 0, 2, 0]

    @pytest.mark.parametrize("where", [[6, 1, 4, 1], np.isin(np.arange(8), [6, 1, 4, 2])])
    def test_start_and_stop_count_what_is_selected(self, bare, where):
        device, far = bare
        batch = filled_batch(device)
        order = selection(where, 8).tolist()
        for start in range(5):
            for stop in [*range(start, 5), None]:
                assert device.send_batch(batch, where=where, start=start, stop=stop) == len(order[start:stop])
                assert read(far) == order[start:stop]
        for start, stop in [(5, None), (0, 5), (-1, None), (3, 2), (0, -1), (2**31, None)]:
            with pytest.raises(ValueError, match=r"start|stop"):
                device.send_batch(batch, where=where, start=start, stop=stop)

    def test_a_part_is_continued_with_the_same_selection(self, ends):
        one, other = ends
        count = 2000
        batch = filled_batch(one, [numbered(i) for i in range(count)])
        order = np.random.default_rng(1).integers(0, count, 3 * count)
        fill(one)
        with pytest.raises(TimeoutError):
            one.send_batch(batch, timeout=0, where=order)
        take_all(other)
        sent, found, parts = 0, [], 0
        while sent < order.size:
            sent += one.send_batch(batch, timeout=0, where=order, start=sent)
            parts += 1
            found += take_all(other)
        assert parts > 1
        assert found == order.tolist()

    def test_room_that_comes_is_used(self, bare):
        """One call, of which each part begins where the last one ended."""
        device, far = bare
        batch = filled_batch(device, [numbered(i) for i in range(1000)])
        order = np.arange(1000)[::-1]
        thread = CallThread(lambda: device.send_batch(batch, where=order)).wait_until_blocked()
        far.settimeout(PATIENCE)
        assert [number_of(far.recv(2000)) for _ in order] == order.tolist()
        thread.join(PATIENCE)
        assert thread.result == 1000

    def test_an_array_that_changes_during_the_call(self, bare):
        device, far = bare
        batch = filled_batch(device, [numbered(i) for i in range(1000)])
        order = np.arange(1000, dtype=np.int32)[::-1].copy()
        thread = CallThread(lambda: device.send_batch(batch, where=order)).wait_until_blocked()
        order[:] = 2**31 - 1
        batch.count = 1  # what was selected is selected
        far.settimeout(PATIENCE)
        assert [number_of(far.recv(2000)) for _ in order] == list(range(1000))[::-1]
        thread.join(PATIENCE)
        assert thread.result == 1000

    @pytest.mark.parametrize("size", [0, 2**31 - 1])
    def test_a_length_that_changes_during_the_call(self, bare, size):
        """What is behind the slot is nobody's: the packet is refused, those before it have gone."""
        device, far = bare
        batch = filled_batch(device, [numbered(i) for i in range(1000)])
        order = np.arange(1000)[::-1]
        thread = CallThread(lambda: device.send_batch(batch, where=order)).wait_until_blocked()
        batch.lengths[0] = size  # the last one
        far.settimeout(PATIENCE)
        assert [number_of(far.recv(2000)) for _ in order[:-1]] == order[:-1].tolist()
        thread.join(PATIENCE)
        assert thread.result == 999
        with pytest.raises(tuntap.PacketError):
            device.send_batch(batch, where=[1])
        assert device.send_batch(batch, where=[1]) == 1

    def test_an_event_in_the_middle(self, bare):
        device, far = bare
        batch = filled_batch(device, [numbered(i) for i in range(1000)])
        where = np.arange(1000) % 2 == 1
        event = tuntap.Event()
        thread = CallThread(lambda: device.send_batch(batch, where=where, event=event)).wait_until_blocked()
        event.set()
        thread.join(PATIENCE)
        assert 0 < thread.result < 500
        found = read(far)
        assert (
            device.send_batch(batch, timeout=0, where=where, start=thread.result, stop=thread.result + 1) == 1
        )
        assert found + read(far) == list(range(1, 1000, 2))[: thread.result + 1]

    def test_what_a_device_in_memory_does_not_take(self):
        """It ends the part of the selection in front of it, as on an interface; elsewhere it does no harm."""
        one, other = pair()
        with one, other:
            batch = one.batch(4)
            batch.fill([PACKETS[0], b"\x05" * 40, PACKETS[2], PACKETS[3]])
            assert one.send_batch(batch, where=[3, 0]) == 2
            assert one.send_batch(batch, where=[3, 0, 1, 2]) == 2
            with pytest.raises(tuntap.PacketError):
                one.send_batch(batch, where=[3, 0, 1, 2], start=2)
            assert one.send_batch(batch, where=[3, 0, 1, 2], start=3) == 1
            assert take_all(other) == [3, 0, 3, 0, 2]
            assert one.stats.rx_packets == 5
            assert one.stats.rx_bytes == 5 * len(PACKETS[0])

    def test_two_threads_share_a_batch(self):
        """Each sends its own part of it to its own device, over and over."""
        batch = filled_batch(None, PACKETS, headroom=1)
        odd = np.arange(8) % 2 == 1

        def send(device, mask):
            return sum(device.send_batch(batch, timeout=PATIENCE, where=mask) for _ in range(2000))

        (one, left), (two, right) = pair(), pair()
        with one, left, two, right:
            threads = [CallThread(send, one, odd), CallThread(send, two, ~odd)]
            receivers = [CallThread(self.receive, device, 8000) for device in (left, right)]
            for thread in [*threads, *receivers]:
                thread.join(2 * PATIENCE)
            assert [thread.result for thread in threads] == [8000, 8000]
            assert receivers[0].result == [1, 3, 5, 7] * 2000
            assert receivers[1].result == [0, 2, 4, 6] * 2000

    @staticmethod
    def receive(device, count):
        return [number_of(device.recv(timeout=PATIENCE)) for _ in range(count)]


class TestBetweenDevices:
    """Packets are moved by one batch: received on one device, sent to others, never copied."""

    def test_one_batch_and_two_ways_on(self):
        (source, inside), (left, far_left), (right, far_right) = pair(), pair(), pair()
        with source, inside, left, far_left, right, far_right:
            packets = [udp("10.0.0.1", f"10.{i % 3}.0.9", 1, 2, bytes([i])) for i in range(60)]
            for packet in packets:
                source.send(packet)
            batch = inside.batch(64)
            n = inside.recv_batch(batch)
            assert n == 60
            to_left = batch.data[:n, 17] == 1
            assert left.send_batch(batch, where=to_left) == 20
            assert right.send_batch(batch, where=~to_left) == 40
            for device, wanted in (
                (far_left, packets[1::3]),
                (far_right, [p for p in packets if p[17] != 1]),
            ):
                found = device.batch(64)
                assert device.recv_batch(found) == len(wanted)
                assert [bytes(packet) for packet in found] == wanted

    def test_in_the_order_of_a_field(self):
        """What argsort answers is a selection."""
        one, other = pair()
        with one, other:
            payloads = np.random.default_rng(2).permutation(50)
            batch = filled_batch(one, [numbered(int(i)) for i in payloads])
            last = batch.data[np.arange(50), batch.lengths - 1]
            assert one.send_batch(batch, where=np.argsort(last)) == 50
            assert take_all(other) == list(range(50))


class TestAsync:
    @pytest.fixture(params=["asyncio", "trio"])
    def run(self, request):
        return asyncio.run if request.param == "asyncio" else lambda task: trio.run(lambda: task)

    @pytest.fixture
    def ends(self):
        one, other = pair(aio.Tun)
        with one, other:
            yield one, other

    def test_order_part_and_arguments(self, run, ends):
        one, other = ends
        batch = filled_batch(one)

        async def main():
            assert await one.send_batch(batch, where=[5, 1, 5]) == 3
            assert await one.send_batch(batch, where=np.arange(8) > 5) == 2
            assert await one.send_batch(batch, where=[5, 1, 2], start=1, stop=2) == 1
            assert await one.send_batch(batch, where=[]) == 0
            for where, error in (
                ([8], IndexError),
                ([True], ValueError),
                ([0.5], TypeError),
                (0, ValueError),
            ):
                with pytest.raises(error, match="where"):
                    await one.send_batch(batch, where=where)

        run(main())
        assert take_all(other) == [5, 1, 5, 6, 7, 1]

    def test_room_that_comes_is_used(self, run, ends):
        one, other = ends
        batch = filled_batch(one, [numbered(i) for i in range(3000)])
        order = np.random.default_rng(3).permutation(3000).astype(np.int32)
        wanted = order.tolist()

        async def main():
            found = []
            thread = CallThread(self.receive_all, other, found, len(wanted))
            assert await one.send_batch(batch, where=order, timeout=PATIENCE) == len(wanted)
            thread.join(PATIENCE)
            assert found == wanted

        run(main())

    @staticmethod
    def receive_all(device, found, count):
        while len(found) < count:
            found += take_all(device)

    def test_an_array_that_changes_while_it_waits(self, run):
        """On a device of the compiled path alone, where the coroutine is made before it is awaited."""
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with near, far, aio.Tun.from_fd(near.fileno(), owned=False) as device:
            far.settimeout(PATIENCE)
            batch = filled_batch(device, [numbered(i) for i in range(1000)])
            order = np.arange(1000, dtype=np.int32)[::-1].copy()
            found = []

            async def main():
                call = device.send_batch(batch, where=order)
                order[:] = 2**31 - 1
                thread = CallThread(lambda: [found.append(number_of(far.recv(2000))) for _ in range(1000)])
                assert await call == 1000
                thread.join(PATIENCE)

            run(main())
            assert found == list(range(1000))[::-1]

    @staticmethod
    async def cancel_after(seconds, call):
        if trio.lowlevel.in_trio_run():
            with trio.move_on_after(seconds) as scope:
                await call
            assert scope.cancelled_caught
        else:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(call, seconds)

    def test_cancelled_in_the_middle(self, run, ends):
        """What went is a part of the selection from its beginning, and the device goes on."""
        one, other = ends
        batch = filled_batch(one, [numbered(i) for i in range(3000)])
        order = np.arange(3000)[::-1]

        async def main():
            await self.cancel_after(0.05, one.send_batch(batch, where=order))
            found = take_all(other)
            assert 0 < len(found) < 3000
            assert found == order[: len(found)].tolist()
            assert await one.send_batch(batch, where=order, start=len(found), stop=len(found) + 3) == 3
            assert take_all(other) == order[len(found) : len(found) + 3].tolist()

        run(main())


def test_a_mask_is_no_index_and_says_what_to_do():
    batch = PacketBatch(2, 100)
    batch.fill(PACKETS[:2])
    for index in (np.array([True, False]), [0, 1], np.array([0, 1]), slice(0, 1), (0, 1), None, "0"):
        with pytest.raises(TypeError, match=r"where=.*copies nothing"):
            batch[index]
    assert bytes(batch[np.int64(1)]) == PACKETS[1]
