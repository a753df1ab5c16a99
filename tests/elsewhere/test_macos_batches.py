"""macOS: several packets with one call, which not every system has, and the descriptor of a packet tunnel."""

import errno
import os
import socket
import struct

import pytest
from fake_macos import AF_SYSTEM, SYSPROTO_CONTROL

V4, V6 = struct.pack(">I", 2), struct.pack(">I", 30)
DONTWAIT = 0x80  # MSG_DONTWAIT, sys/socket.h


def packet(number, version=4, size=40):
    return bytes([version << 4 | 5, number]) + bytes(size - 2)


def some(count):
    """Packets of both families."""
    return [packet(n, 6 if n % 3 == 2 else 4, 40 + n) for n in range(count)]


def framed(packets):
    return [(V6 if data[0] >> 4 == 6 else V4) + data for data in packets]


@pytest.fixture
def kernel(elsewhere):
    with elsewhere("macos").running() as kernel:
        yield kernel


@pytest.fixture
def tun(kernel):
    with kernel.tuntap.Tun("utun3") as device:
        kernel.taken()
        yield device


def arrived(kernel):
    """What came to the system, packet by packet."""
    found = []
    while True:
        try:
            found.append(kernel.wire("utun3").recv(70_000))
        except BlockingIOError:
            return found


def send(device, packets, **options):
    batch = device.batch(len(packets))
    batch.fill(packets)
    return device.send_batch(batch, **options)


def moves(kernel):
    """Calls since the last time that moved packets, or were to."""
    return [call for call in kernel.taken() if call.name.startswith(("read", "recv", "send", "write"))]


def names(kernel):
    return [call.name for call in moves(kernel)]


def pauses(kernel):
    return [call.arguments[0][1] for call in kernel.taken() if call.name == "nanosleep"]


class TestSend:
    def test_one_call(self, kernel, tun):
        packets = some(5)
        assert send(tun, packets) == 5
        (call,) = moves(kernel)
        assert call.name == "sendmsg_x"
        assert call.arguments == (tun.fileno(), framed(packets), DONTWAIT)
        assert arrived(kernel) == framed(packets)

    def test_more_than_one_call_takes(self, kernel, tun):
        assert send(tun, some(150)) == 150
        sizes = [len(call.arguments[1]) for call in moves(kernel)]
        assert sizes == [64, 64, 22]
        assert arrived(kernel) == framed(some(150))

    def test_a_selection(self, kernel, tun):
        """One call for what does not lie together, in the order in which it is named."""
        packets = some(150)
        order = [*range(149, -1, -2), 7, 7, 7]
        kernel.takes = [64, 3]
        assert send(tun, packets, where=order) == 78
        assert [len(call.arguments[1]) for call in moves(kernel)] == [64, 14, 11]
        assert arrived(kernel) == framed([packets[i] for i in order])

    def test_a_selection_of_one_takes_the_plain_call(self, kernel, tun):
        packets = some(4)
        assert send(tun, packets, where=[2]) == 1
        assert names(kernel) == ["writev"]
        assert arrived(kernel) == framed([packets[2]])

    def test_a_selection_passes_a_bad_packet_by(self, kernel, tun):
        packets = [bytes(40), *some(3)]
        assert send(tun, packets, where=[3, 1, 2]) == 3
        assert send(tun, packets, where=[3, 2, 0, 1]) == 2
        assert arrived(kernel) == framed([packets[i] for i in (3, 1, 2, 3, 2)])
        with pytest.raises(kernel.tuntap.PacketError, match="sendmsg_x"):
            tun.send(packets[1])
        assert send(tun, packets, where=[3, 2, 0, 1], start=3) == 1
        assert arrived(kernel) == framed([packets[1]])

    def test_a_single_packet_takes_the_plain_call(self, kernel, tun):
        assert send(tun, some(1)) == 1
        assert names(kernel) == ["writev"]

    def test_a_part_is_taken(self, kernel, tun):
        """The rest goes with the next call, each packet once and in order."""
        kernel.takes = [2, 1]
        assert send(tun, some(6)) == 6
        assert [len(call.arguments[1]) for call in moves(kernel)] == [6, 4, 3]
        assert arrived(kernel) == framed(some(6))

    def test_a_kernel_that_takes_fewer(self, kernel, tun):
        kernel.most_messages = 10
        assert send(tun, some(25)) == 25
        assert arrived(kernel) == framed(some(25))

    def test_no_room_for_the_rest_is_waited_for(self, kernel, tun):
        kernel.takes = [2]
        kernel.refuse("sendmsg_x", "EAGAIN", after=1, times=2)
        assert send(tun, some(4), timeout=1) == 4
        assert [call.name for call in kernel.taken()].count("poll") == 1
        assert arrived(kernel) == framed(some(4))

    def test_a_part_is_a_result(self, kernel, tun):
        kernel.takes = [2]
        kernel.refuse("sendmsg_x", "EAGAIN", after=1, times=100)
        assert send(tun, some(4), timeout=0) == 2
        assert arrived(kernel) == framed(some(2))

    def test_no_room_at_all(self, kernel, tun):
        kernel.refuse("sendmsg_x", "EAGAIN", times=100)
        with pytest.raises(TimeoutError):
            send(tun, some(4), timeout=0)

    @pytest.mark.parametrize("error", ["ENOBUFS", "ENOSPC"])
    @pytest.mark.parametrize("before", [0, 2])
    def test_no_buffers(self, kernel, tun, error, before):
        """The system would say that it has room, so there is a pause, longer each time."""
        kernel.takes = [before] if before else []
        kernel.refuse("sendmsg_x", error, after=bool(before), times=3)
        assert send(tun, some(4)) == 4
        assert pauses(kernel) == [250_000, 500_000, 1_000_000]
        assert arrived(kernel) == framed(some(4))

    def test_pauses_end_at_16_ms_and_begin_anew(self, kernel, tun):
        kernel.refuse("sendmsg_x", "ENOBUFS", times=9)
        assert send(tun, some(2)) == 2
        assert pauses(kernel) == [250_000 * 2**n for n in range(7)] + [16_000_000] * 2
        kernel.refuse("sendmsg_x", "ENOBUFS")
        send(tun, some(2))
        assert pauses(kernel) == [250_000]

    def test_interrupted_by_a_signal(self, kernel, tun):
        kernel.refuse("sendmsg_x", "EINTR", times=2)
        assert send(tun, some(3)) == 3
        assert arrived(kernel) == framed(some(3))

    def test_interrupted_between_two_calls(self, kernel, tun):
        """Nobody is told later either."""
        kernel.takes = [1]
        kernel.refuse("sendmsg_x", "EINTR", after=1)
        assert send(tun, some(3), timeout=0) == 3
        assert send(tun, some(3), timeout=0) == 3
        assert arrived(kernel) == framed(some(3)) * 2

    def test_none_is_taken(self, kernel, tun):
        """Which is no error: it is waited for, and tried again."""
        kernel.takes = [2, 0]
        assert send(tun, some(5), timeout=1) == 5
        assert arrived(kernel) == framed(some(5))
        kernel.takes = [0]
        with pytest.raises(TimeoutError):
            send(tun, some(5), timeout=0)

    @pytest.mark.parametrize(("count", "call"), [(1, "writev"), (2, "sendmsg_x")])
    def test_two_are_several(self, kernel, tun, count, call):
        assert send(tun, some(count)) == count
        assert names(kernel) == [call]

    def test_a_packet_of_one_byte(self, kernel, tun):
        """It says of which family it is, and the rest is the system's to refuse."""
        assert send(tun, [b"E", b"\x60"]) == 2
        assert arrived(kernel) == [V4 + b"E", V6 + b"\x60"]

    @pytest.mark.parametrize("length", [0, -1, 1537])
    def test_a_length_that_changes(self, kernel, tun, monkeypatch, length):
        """The array is the caller's, where another thread may write when it was checked already."""
        batch = tun.batch(3)
        batch.fill(some(3))
        kernel.takes = [1]
        sendmsg_x = kernel.sendmsg_x

        def sent(*arguments):
            batch.lengths[1] = length
            return sendmsg_x(*arguments)

        monkeypatch.setattr(kernel, "sendmsg_x", sent)
        assert tun.send_batch(batch) == 1
        with pytest.raises(kernel.tuntap.PacketError, match="sendmsg_x:") as caught:
            tun.send(packet(2))
        assert caught.value.errno == kernel.errors["EINVAL"]
        assert arrived(kernel) == framed(some(1))

    @pytest.mark.parametrize("bad", [b"\x00" * 40, b"\xf5" * 40])
    def test_a_bad_packet_in_the_middle(self, kernel, tun, bad):
        """Those before it go, the next call tells, and nothing behind it was sent."""
        assert send(tun, [*some(3), bad, packet(9)]) == 3
        assert arrived(kernel) == framed(some(3))
        with pytest.raises(kernel.tuntap.PacketError, match="sendmsg_x") as caught:
            tun.send(packet(9))
        assert caught.value.errno == kernel.errors["EINVAL"]
        tun.send(packet(9))
        assert arrived(kernel) == framed([packet(9)])

    def test_a_bad_packet_behind_those_that_have_to_wait(self, kernel, tun):
        """It is not told before those in front of it are sent."""
        kernel.takes = [1]
        kernel.refuse("sendmsg_x", "EAGAIN", after=1)
        assert send(tun, [*some(3), bytes(40)], timeout=1) == 3
        assert arrived(kernel) == framed(some(3))
        with pytest.raises(kernel.tuntap.PacketError):
            tun.send(packet(9))

    @pytest.mark.parametrize("count", [1, 2])
    def test_a_bad_packet_first(self, kernel, tun, count):
        """The error names a call although none was made."""
        with pytest.raises(
            kernel.tuntap.PacketError, match="write: " if count == 1 else "sendmsg_x: "
        ) as caught:
            send(tun, [bytes(40), packet(1)][:count])
        assert caught.value.errno == kernel.errors["EINVAL"]
        assert moves(kernel) == []

    @pytest.mark.parametrize("error", ["ENOTCONN", "ENXIO", "EPIPE"])
    def test_the_interface_went(self, kernel, tun, error):
        kernel.takes = [2]
        kernel.refuse("sendmsg_x", error, after=1)
        assert send(tun, some(4)) == 2
        with pytest.raises(kernel.tuntap.DeviceGoneError) as caught:
            send(tun, some(4))
        assert caught.value.errno == kernel.errors[error]


class TestReceive:
    def put(self, kernel, packets):
        for data in framed(packets):
            kernel.wire("utun3").send(data)

    def test_one_call(self, kernel, tun):
        self.put(kernel, some(5))
        batch = tun.batch(5)
        assert tun.recv_batch(batch, timeout=1) == 5
        assert [bytes(data) for data in batch] == some(5)
        assert batch.truncated == ()
        (call,) = moves(kernel)
        # The family, the slot, and a byte that tells whether there was more.
        assert (call.name, call.arguments) == ("recvmsg_x", (tun.fileno(), 5 * [[4, 1536, 1]], DONTWAIT))

    @pytest.mark.parametrize("count", [1, 3])
    def test_fewer_than_there_is_room_for(self, kernel, tun, count):
        """That there are no more is no error, and not told later."""
        batch = tun.batch(64)
        for _ in range(3):
            self.put(kernel, some(count))
            assert tun.recv_batch(batch, timeout=0) == count
            assert [bytes(data) for data in batch] == some(count)

    @pytest.mark.parametrize(("capacity", "names_"), [(1, ["readv"]), (2, ["recvmsg_x"])])
    def test_two_are_several(self, kernel, tun, capacity, names_):
        self.put(kernel, some(capacity))
        assert tun.recv_batch(tun.batch(capacity), timeout=1) == capacity
        assert names(kernel) == names_

    def test_as_many_as_one_call_takes(self, kernel, tun):
        self.put(kernel, some(100))
        assert tun.recv_batch(tun.batch(100), timeout=1) == 100
        assert [len(call.arguments[1]) for call in moves(kernel)] == [64, 36]

    @pytest.mark.parametrize("size", [1, 3, 4])
    def test_what_is_shorter_than_a_family(self, kernel, tun, size):
        """It is no packet, and nothing that was in memory is taken for one."""
        kernel.wire("utun3").send(b"\0\0\0\x02"[:size])
        batch = tun.batch(4)
        assert tun.recv_batch(batch, timeout=1) == 1
        assert batch.lengths[0] == 0

    def test_more_than_one_call_yields(self, kernel, tun):
        kernel.most_messages = 10
        self.put(kernel, some(25))
        batch = tun.batch(200)
        assert tun.recv_batch(batch, timeout=1) == 25
        assert [bytes(data) for data in batch] == some(25)

    def test_more_than_the_batch_has_room_for(self, kernel, tun):
        self.put(kernel, some(150))
        batch = tun.batch(70)
        found = []
        for count in (70, 70, 10):
            assert tun.recv_batch(batch, timeout=1) == count
            found += [bytes(data) for data in batch]
        assert found == some(150)

    def test_packets_that_do_not_fit(self, kernel, tun):
        """The families in front of them take no room in the slots; what is cut is told."""
        self.put(kernel, [packet(1, size=100), packet(2, size=101), packet(3, size=102), packet(4, size=99)])
        batch = kernel.tuntap.PacketBatch(4, 100)
        assert tun.recv_batch(batch, timeout=1) == 4
        assert [len(data) for data in batch] == [100, 100, 100, 99]
        assert [data[1] for data in batch] == [1, 2, 3, 4]
        assert batch.truncated == (1, 2)

    def test_nothing(self, kernel, tun):
        with pytest.raises(TimeoutError):
            tun.recv_batch(tun.batch(4), timeout=0)
        (call,) = moves(kernel)
        assert (call.name, call.error) == ("recvmsg_x", "EAGAIN")

    def test_interrupted_by_a_signal(self, kernel, tun):
        kernel.refuse("recvmsg_x", "EINTR", times=2)
        self.put(kernel, some(3))
        assert tun.recv_batch(tun.batch(4), timeout=1) == 3

    def test_interrupted_between_two_calls(self, kernel, tun):
        """Nobody is told later either."""
        kernel.most_messages = 2
        kernel.refuse("recvmsg_x", "EINTR", after=1)
        self.put(kernel, some(6))
        assert tun.recv_batch(tun.batch(6), timeout=0) == 6
        self.put(kernel, some(2))
        assert tun.recv_batch(tun.batch(6), timeout=0) == 2

    def test_an_error_behind_packets(self, kernel, tun):
        """They are a result; the next call tells."""
        self.put(kernel, some(3))
        kernel.refuse("recvmsg_x", "ENXIO", after=1)
        assert tun.recv_batch(tun.batch(4), timeout=1) == 3
        with pytest.raises(kernel.tuntap.DeviceGoneError, match="recvmsg_x"):
            tun.recv_batch(tun.batch(4), timeout=1)

    @pytest.mark.parametrize("capacity", [1, 4])
    def test_the_end(self, kernel, tun, capacity):
        """Poll(2) would say for ever that there is something to read."""
        kernel.wire("utun3").shutdown(socket.SHUT_WR)
        with pytest.raises(kernel.tuntap.DeviceGoneError):
            tun.recv_batch(tun.batch(capacity), timeout=1)

    @pytest.mark.parametrize("capacity", [1, 4])
    def test_the_end_of_one_that_is_borrowed(self, kernel, capacity):
        descriptor = kernel.socket(AF_SYSTEM, 2, SYSPROTO_CONTROL)
        kernel.make("utun3").device = descriptor
        with kernel.tuntap.Tun.from_fd(descriptor, owned=False) as tun:
            kernel.wire("utun3").shutdown(socket.SHUT_WR)
            with pytest.raises(kernel.tuntap.DeviceGoneError):
                tun.recv_batch(tun.batch(capacity), timeout=1)
        kernel.close(descriptor)


class TestWithout:
    """Systems that do not have them, or not for this kind of socket."""

    def exchange(self, kernel, tun):
        kernel.taken()
        assert send(tun, some(3), timeout=0) == 3
        assert arrived(kernel) == framed(some(3))
        for data in framed(some(3)):
            kernel.wire("utun3").send(data)
        batch = tun.batch(4)
        assert tun.recv_batch(batch, timeout=0) == 3
        assert [bytes(data) for data in batch] == some(3)
        return names(kernel)

    def test_an_older_system(self, kernel):
        kernel.has = set()
        with kernel.tuntap.Tun("utun3") as tun:
            assert self.exchange(kernel, tun) == ["writev"] * 3 + ["readv"] * 4

    @pytest.mark.parametrize("error", ["ENOTSUP", "EOPNOTSUPP", "EINVAL", "ENOSYS"])
    def test_a_socket_that_does_not_take_them(self, kernel, tun, error):
        """It is asked once."""
        kernel.refuse("sendmsg_x", error, times=100)
        kernel.refuse("recvmsg_x", error, times=100)
        assert self.exchange(kernel, tun) == ["sendmsg_x", *["writev"] * 3, "recvmsg_x", *["readv"] * 4]
        assert self.exchange(kernel, tun) == ["writev"] * 3 + ["readv"] * 4

    def test_one_of_them(self, kernel):
        kernel.has = {"recvmsg_x"}
        with kernel.tuntap.Tun("utun3") as tun:
            assert self.exchange(kernel, tun) == ["writev"] * 3 + ["recvmsg_x"] * 2

    def test_an_error_of_later_packets_is_no_lack_of_it(self, kernel, tun):
        kernel.takes = [2]
        kernel.refuse("sendmsg_x", "EINVAL", after=1)
        assert send(tun, some(4)) == 2
        assert arrived(kernel) == framed(some(2))
        with pytest.raises(kernel.tuntap.PacketError):
            send(tun, some(2))
        assert send(tun, some(2)) == 2
        assert names(kernel)[-1] == "sendmsg_x"


class TestFind:
    """The descriptor that iOS gave a packet tunnel provider, without a word about it."""

    @pytest.fixture
    def control(self, kernel):
        """A function that makes a control socket, which is connected to utun5 if that is its name."""
        made = []

        def make(name=None, number=None):
            descriptor = kernel.socket(AF_SYSTEM, 2, SYSPROTO_CONTROL)
            made.append(descriptor)
            if name:
                kernel.make(name).device = descriptor
            if number:
                kernel.control_ids[descriptor] = number
            return descriptor

        yield make
        for descriptor in made:
            kernel.close(descriptor)

    def test_it_is_found_and_works(self, kernel, control):
        descriptor = control("utun5")
        assert kernel.tuntap.find_utun_fd() == descriptor
        with kernel.tuntap.Tun.from_fd(descriptor, owned=False) as tun:
            assert tun.name == "utun5"
            tun.send(packet(1))
            assert kernel.wire("utun5").recv(100) == V4 + packet(1)
        os.fstat(descriptor)  # still open

    def test_what_else_is_open_is_passed_over(self, kernel, control):
        """Files, other sockets, and sockets of other controls; none of them is asked for more."""
        other = control(number=3)
        with socket.socket():
            descriptor = control("utun5")
            assert kernel.tuntap.find_utun_fd() == descriptor
            taken = kernel.taken()
        asked = [call.arguments[0] for call in taken if call.name == "getpeername"]
        assert asked == list(range(descriptor + 1))
        assert [call.arguments[:2] for call in taken if call.name == "ioctl"] == [
            (other, "CTLIOCGINFO"),
            (descriptor, "CTLIOCGINFO"),
        ]

    def test_the_first_of_several(self, kernel, control):
        first = control("utun9")
        second = control("utun5")
        assert kernel.tuntap.find_utun_fd() == min(first, second)

    def test_there_is_none(self, kernel, control):
        control(number=3)
        with pytest.raises(kernel.tuntap.DeviceGoneError, match="when the tunnel has started") as caught:
            kernel.tuntap.find_utun_fd()
        assert caught.value.errno == errno.ENOENT
        asked = [call for call in kernel.taken() if call.name == "getpeername"]
        assert len(asked) == 1024

    def test_a_kernel_without_utun(self, kernel, control):
        control("utun5")
        kernel.refuse("ioctl(CTLIOCGINFO)", "ENOENT")
        with pytest.raises(kernel.tuntap.DeviceGoneError):
            kernel.tuntap.find_utun_fd()
