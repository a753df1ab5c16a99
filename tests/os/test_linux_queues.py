"""Several queues: who gets which packet, and how queues are opened, detached, closed and lost."""

import contextlib
import errno
import gc
import os
import select
import socket
import struct
import threading
import time

import pytest
from threads import PATIENCE, CallThread

import tuntap
from tuntap import (
    ClosedError,
    DeviceBusyError,
    DeviceGoneError,
    InterruptError,
    LinkDownError,
    Tap,
    Tun,
    UnsupportedError,
    testing,
)  # fmt: skip

HOST, PEER, PORT = "10.0.0.1", "10.0.0.2", 5000
KINDS = pytest.mark.parametrize("kind", [Tun, Tap])
MODES = pytest.mark.parametrize("offload", [False, True, "superpackets"])
USER = 54321
UDP_SEGMENT = 103  # linux/udp.h
NEEDS_CSUM, UDP_L4 = 1, 5


class Thread(CallThread):
    def finish(self):
        self.join(PATIENCE)
        assert not self.is_alive(), "the call hangs"
        if self.error is not None:
            raise self.error
        return self.result


def blocked(queues):
    """A thread for each queue, waiting for a packet that does not come."""
    threads = [Thread(queue.recv) for queue in queues]
    for thread in threads:
        thread.wait_until_blocked()
    return threads


def descriptors():
    return len(os.listdir("/proc/self/fd"))


def queue_counts(ip, name, netns=None):
    """(Attached, detached) queues as the kernel counts them."""
    data = ip.tun(name, netns)
    return data["numqueues"], data["numdisabled"]


def drain(queue):
    """Every packet that is there."""
    packets = []
    with contextlib.suppress(TimeoutError):
        while True:
            packets.append(queue.recv(timeout=0))
    return packets


@pytest.fixture
def four(net):
    """A TUN of four queues."""
    with Tun("q0", addresses=[f"{HOST}/24"], queues=4, quiet=True, tx_queue_len=10_000) as tun:
        yield tun


@pytest.fixture
def sock(net):
    """A UDP socket of the kernel's, to which everything is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("0.0.0.0", PORT))
        sock.settimeout(PATIENCE)
        yield sock


def datagram(sport, payload=b"in"):
    return testing.udp(PEER, HOST, sport, PORT, payload)


def sport_of(packet):
    """The port that a datagram to the peer goes to: its flow."""
    return int.from_bytes(packet[22:24], "big")


def steer(queue, sock, sport, payload=b"in"):
    """Send a packet of a flow through a queue, so that its answers come back there."""
    queue.send(datagram(sport, payload))
    assert sock.recvfrom(100) == (payload, (PEER, sport))


def bring_up(ip):
    """An interface of another program, silent until somebody sends."""
    ip("link", "set", "q0", "addrgenmode", "none")
    ip("addr", "add", f"{HOST}/24", "dev", "q0")
    ip("link", "set", "q0", "up")


# --- what a device has ---


@KINDS
@MODES
def test_one_object_for_each_queue(ip, kind, offload):
    with kind("q0", queues=3, offload=offload) as device:
        queues = device.queues
        assert isinstance(queues, tuple)
        assert queues[0] is device
        assert len({id(queue) for queue in queues}) == len({queue.fileno() for queue in queues}) == 3
        assert all(queue.is_attached and not queue.closed for queue in queues)
        assert queue_counts(ip, "q0") == (3, 0)
        assert {queue.batch(4).slot_size for queue in queues} == {device.batch(4).slot_size}
        fourth = device.add_queue()
        assert device.queues == (*queues, fourth)
        assert queue_counts(ip, "q0") == (4, 0)
    assert ip.names() == []


def test_one_queue_of_an_interface_that_may_have_several(ip):
    with Tun("q0", multi_queue=True) as tun:
        assert tun.queues == (tun,)
        assert ip.tun("q0")["multi_queue"] is True
        tun.add_queue()
        assert queue_counts(ip, "q0") == (2, 0)
    with Tun("q0") as tun:
        assert tun.queues == (tun,)
        assert ip.tun("q0")["multi_queue"] is False
        with pytest.raises(DeviceBusyError, match=r"ioctl\(TUNSETIFF\).*q0"):
            tun.add_queue()
        assert tun.queues == (tun,)


@pytest.mark.parametrize(("queues", "error"), [
    (0, ValueError), (-1, ValueError), (257, ValueError), (2**40, ValueError),
    (True, TypeError), ("2", TypeError), (2.0, TypeError), (None, TypeError),
])  # fmt: skip
@KINDS
def test_a_number_of_queues_that_cannot_be(ip, kind, queues, error):
    """Said before anything is opened: that the namespace is none comes second."""
    with pytest.raises(error, match="queues"):
        kind("q0", queues=queues, netns="/nonexistent")


@pytest.mark.parametrize(("options", "error"), [
    ({"queues": 2, "multi_queue": False}, ValueError), ({"multi_queue": "yes"}, TypeError),
])  # fmt: skip
def test_settings_that_contradict_one_another(ip, options, error):
    with pytest.raises(error, match="queue"):
        Tun("q0", netns="/nonexistent", **options)


def test_the_257th_queue(ip):
    before = descriptors()
    with Tun("q0", up=False, queues=256) as tun:
        assert queue_counts(ip, "q0") == (256, 0)
        with pytest.raises(DeviceBusyError, match="256") as caught:
            tun.add_queue()
        assert caught.value.errno == errno.E2BIG
        assert len(tun.queues) == 256
        tun.queues[100].close()
        tun.add_queue()
        with pytest.raises(DeviceBusyError):
            Tun("q0", multi_queue=True)
    assert descriptors() == before
    assert ip.names() == []


# --- packets ---


@MODES
def test_every_queue_with_threads_of_its_own(net, sock, offload):
    """Each queue sends and receives in two threads; every packet arrives once, whole, and is counted."""
    count, flows = 2000, 8
    with Tun(addresses=[f"{HOST}/24"], queues=4, quiet=True, offload=offload, tx_queue_len=50_000) as tun:
        before = tun.stats
        stop = threading.Event()
        arrivals = [threading.Semaphore(40) for _ in tun.queues]  # no more than the socket has room for

        def send(number, queue):
            batch = queue.batch(20)
            for start in range(0, count, 20):
                packets = [
                    datagram(1000 + number, struct.pack("!HH", number, i)) for i in range(start, start + 20)
                ]
                for _ in packets:
                    assert arrivals[number].acquire(timeout=PATIENCE)
                batch.fill(packets)
                assert queue.send_batch(batch) == 20

        def arrive():
            packets = []
            while len(packets) < 4 * count:
                packets.append(sock.recvfrom(100))
                arrivals[packets[-1][0][1]].release()
            return packets

        def receive(queue):
            batch, packets = queue.batch(128), []
            while True:
                try:
                    queue.recv_batch(batch, timeout=0.02)
                except TimeoutError:
                    if stop.is_set():
                        return packets
                    continue
                assert not batch.truncated
                assert offload != "superpackets" or not batch.headers[: batch.count]["gso_type"].any()
                packets += [bytes(packet) for packet in batch]

        receivers = [Thread(receive, queue) for queue in tun.queues]
        arriver = Thread(arrive)
        senders = [Thread(send, number, queue) for number, queue in enumerate(tun.queues)]
        with contextlib.ExitStack() as stack:
            others = [
                stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(flows)
            ]
            for i in range(count):
                for number, other in enumerate(others):
                    other.sendto(struct.pack("!HH", number, i), (PEER, 9))
        for thread in senders:
            thread.finish()
        arrived = arriver.finish()
        stop.set()
        received = [packet[28:] for thread in receivers for packet in thread.finish()]
        everything = [struct.pack("!HH", number, i) for number in range(flows) for i in range(count)]
        assert sorted(received) == everything
        assert sorted(payload for payload, _ in arrived) == everything[: 4 * count]
        assert all(port == 1000 + payload[1] for payload, (_, port) in arrived)
        if offload is not True:  # then some of them are one to the interface
            assert tun.stats.rx_packets - before.rx_packets == 4 * count
        assert tun.stats.tx_packets - before.tx_packets == flows * count
        sock.settimeout(0)
        with pytest.raises(BlockingIOError):
            sock.recv(100)


@MODES
@KINDS
def test_what_any_queue_sends_reaches_the_kernel(net, kind, offload):
    with kind(queues=3, offload=offload, quiet=True) as device:
        packet = testing.udp(PEER, HOST, 1, 2, b"x")
        if kind is Tap:
            packet = testing.ethernet("02:00:00:00:00:09", device.mac, packet)
        for number, queue in enumerate(device.queues, 1):
            queue.send(packet)
            assert device.stats.rx_packets == 2 * number - 1
            batch = queue.batch(1)
            batch.fill([packet])
            assert queue.send_batch(batch) == 1
            assert device.stats.rx_packets == 2 * number


def comes_back(queues, number, send, is_answer):
    """Send through a queue until the answer comes through it, and through it alone."""
    deadline = time.monotonic() + PATIENCE
    while True:
        send(queues[number])
        ready, _, _ = select.select(queues, [], [], PATIENCE)
        answers = [any(is_answer(packet) for packet in drain(queue)) for queue in queues]
        if answers == [i == number for i in range(len(queues))]:
            return
        assert time.monotonic() < deadline, f"sent through queue {number}, answers on {answers}, {ready}"


@MODES
def test_a_flow_comes_back_on_the_queue_that_sent_it_last(net, sock, offload):
    with Tun(addresses=[f"{HOST}/24"], queues=4, quiet=True, offload=offload) as tun:
        for turn in range(3):  # in each turn every flow moves to another queue
            for sport in range(1000, 1020):

                def send(queue, sport=sport):
                    steer(queue, sock, sport)
                    sock.sendto(b"out", (PEER, sport))

                comes_back(tun.queues, (sport + turn) % 4, send, lambda p, sport=sport: sport_of(p) == sport)
        # And stays, until it is sent elsewhere.
        for sport in range(1000, 1020):
            sock.sendto(b"out", (PEER, sport))
        for number, queue in enumerate(tun.queues):
            assert {sport_of(p) for p in drain(queue)} == {
                s for s in range(1000, 1020) if (s + 2) % 4 == number
            }


def test_an_echo_comes_back_on_the_queue_that_sent_the_request(four):
    for turn in range(3):
        for host in range(2, 12):
            peer = f"10.0.0.{host}"
            request = testing.icmp_echo(peer, HOST, host, turn, b"payload")
            reply = testing.icmp_echo(HOST, peer, host, turn, b"payload", reply=True)
            comes_back(
                four.queues, (host + turn) % 4,
                lambda queue, request=request: queue.send(request),
                lambda packet, reply=reply: packet[20:] == reply[20:],
            )  # fmt: skip


def test_super_packets_come_through_every_queue(net, sock):
    """Whole with their headers, or split; what is sent as one reaches a socket as datagrams."""
    payload = bytes(range(250)) * 4
    for offload in ("superpackets", True):
        with Tun(addresses=[f"{HOST}/24"], queues=3, quiet=True, offload=offload) as tun:
            if "udp" not in tun.offload:
                pytest.skip("this kernel makes no super-packets of UDP")
            sock.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 250)
            for number, queue in enumerate(tun.queues):
                steer(queue, sock, 2000 + number)
                sock.sendto(payload, (PEER, 2000 + number))
                batch = queue.batch(70)
                assert queue.recv_batch(batch, timeout=PATIENCE) == (1 if offload == "superpackets" else 4)
                header = batch.headers[0]
                if offload == "superpackets":
                    assert (header["flags"], header["gso_type"], header["gso_size"]) == (
                        NEEDS_CSUM,
                        UDP_L4,
                        250,
                    )
                    assert bytes(batch[0][28:]) == payload
                    packets = tuntap.offload.split(batch[0], header)
                else:
                    packets = [bytes(packet) for packet in batch]
                assert [packet[28:] for packet in packets] == [
                    payload[i : i + 250] for i in range(0, 1000, 250)
                ]
                answers = [datagram(2000 + number, packet[28:]) for packet in packets]
                if offload == "superpackets":
                    renumbered = [
                        packet[:4] + struct.pack("!H", i) + packet[6:] for i, packet in enumerate(answers)
                    ]
                    answers = [p[:10] + b"\0\0" + p[12:] for p in renumbered]
                    answers = [p[:10] + testing.checksum(p[:20]).to_bytes(2, "big") + p[12:] for p in answers]
                    ((header, whole),) = tuntap.offload.coalesce(answers)
                    batch.fill([whole])
                    batch.headers[0] = header
                else:
                    batch.fill(answers)
                assert queue.send_batch(batch) == batch.count
                assert [sock.recv(2000) for _ in range(4)] == [packet[28:] for packet in packets]
            sock.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 0)


def test_what_is_offloaded_is_a_matter_of_all_queues(ip, raw, sock):
    with Tun("q0", addresses=[f"{HOST}/24"], queues=2, quiet=True, offload="superpackets") as tun:
        first, second = tun.queues
        steer(second, sock, 2000)
        if "udp" not in tun.offload:
            pytest.skip("this kernel makes no super-packets of UDP")
        sock.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 250)
        third = None
        for wanted, packets in (({"checksum"}, 4), ({"checksum", "udp"}, 1), ((), 4)):
            tun.offload = wanted
            assert tun.offload == frozenset(wanted)
            third = third or tun.add_queue()
            for queue in (second, third):
                steer(queue, sock, 2000)
                sock.sendto(bytes(1000), (PEER, 2000))
                batch = queue.batch(8)
                received = 0
                while received < packets:
                    received += queue.recv_batch(batch, timeout=PATIENCE)
                assert received == packets
                assert batch.headers[0]["flags"] == (NEEDS_CSUM if wanted else 0)
        assert raw.offloads("q0") == (0, 0)
        # What is sent as a super-packet is split by us now, whichever queue sends it.
        for queue in (first, second, third):
            answers = [datagram(2000, bytes([i]) * 100) for i in range(3)]
            batch = queue.batch(8)
            batch.fill(answers)
            assert queue.send_batch(batch) == 3
            assert [sock.recv(200) for _ in range(3)] == [bytes([i]) * 100 for i in range(3)]


# --- detach and attach ---


@MODES
def test_a_detached_queue_leaves_its_packets_to_the_others(ip, sock, offload):
    with Tun("q0", addresses=[f"{HOST}/24"], queues=3, quiet=True, offload=offload) as tun:
        queue = tun.queues[1]
        steer(queue, sock, 1000)
        queue.detach()
        assert not queue.is_attached
        assert queue_counts(ip, "q0") == (2, 1)
        assert queue in tun.queues
        for _ in range(20):
            sock.sendto(b"out", (PEER, 1000))
        assert sum(len(drain(other)) for other in (tun, tun.queues[2])) == 20
        with pytest.raises(TimeoutError):
            queue.recv(timeout=0.02)
        batch = queue.batch(2)
        batch.fill([datagram(1000)] * 2)
        before = tun.stats.rx_packets
        for send in (lambda: queue.send(datagram(1000)), lambda: queue.send_batch(batch)):
            with pytest.raises(LinkDownError) as caught:
                send()
            assert "the queue is detached: attach() it first" in str(caught.value)
            assert caught.value.filename == "q0"
        assert tun.stats.rx_packets == before, "nothing went"
        steer(tun, sock, 1001)
        queue.attach()
        assert queue.is_attached
        assert queue_counts(ip, "q0") == (3, 0)
        comes_back(
            tun.queues, [q is queue for q in tun.queues].index(True),
            lambda q: (steer(q, sock, 1000), sock.sendto(b"out", (PEER, 1000))),
            lambda packet: sport_of(packet) == 1000,
        )  # fmt: skip
        assert queue.send_batch(batch) == 2


def test_packets_that_wait_in_a_queue_are_lost_when_it_is_detached(four, sock):
    queue = four.queues[2]
    steer(queue, sock, 1000)
    sock.sendto(b"out", (PEER, 1000))
    queue.detach()
    queue.attach()
    with pytest.raises(TimeoutError):
        queue.recv(timeout=0)
    assert not any(drain(other) for other in four.queues)


def test_a_call_that_waits_on_a_detached_queue_is_served_after_attach(four, sock):
    queue = four.queues[3]
    (thread,) = blocked([queue])
    queue.detach()
    sock.sendto(b"lost to this queue", (PEER, 1000))
    assert thread.wait_until_blocked()
    queue.attach()
    steer(queue, sock, 1000)
    sock.sendto(b"served", (PEER, 1000))
    assert thread.finish().endswith(b"served")


def test_twice_is_harmless(ip, four):
    queue = four.queues[1]
    for _ in range(2):
        queue.detach()
        assert queue_counts(ip, "q0") == (3, 1)
        assert not queue.is_attached
    for _ in range(2):
        queue.attach()
        assert queue_counts(ip, "q0") == (4, 0)
        assert queue.is_attached


def test_a_queue_that_was_detached_behind_our_back_says_so(ip, four, raw):
    """The descriptor belongs to another program too, or was one's before it was adopted."""
    with Tun.from_fd(four.queues[1].fileno(), owned=False) as adopted:
        adopted.detach()
        assert not four.queues[1].is_attached
    with Tun.from_fd(four.queues[1].fileno(), owned=False) as adopted:
        assert not adopted.is_attached
        with pytest.raises(LinkDownError, match="detached"):
            adopted.send(datagram(1))
        adopted.attach()
        adopted.send(datagram(1))
    assert four.queues[1].is_attached
    assert queue_counts(ip, "q0") == (4, 0)


@pytest.mark.parametrize("options", [{}, {"offload": True}])
@KINDS
def test_the_queue_of_a_device_of_one_queue_cannot_be_detached(ip, kind, options):
    with kind("q0", **options) as device:
        with pytest.raises(UnsupportedError, match=r"single queue.*queues=2"):
            device.detach()
        assert device.is_attached
        device.attach()
        device.send(
            testing.ethernet("02:00:00:00:00:01", "02:00:00:00:00:02", datagram(1))[-len(datagram(1)) :]
        )


@MODES
def test_every_queue_detached(ip, sock, offload):
    with Tun("q0", addresses=[f"{HOST}/24"], queues=2, quiet=True, offload=offload) as tun:
        for queue in tun.queues:
            queue.detach()
        assert queue_counts(ip, "q0") == (0, 2)
        with contextlib.suppress(OSError):
            sock.sendto(b"dropped", (PEER, 1000))
        for queue in tun.queues:
            with pytest.raises(TimeoutError):
                queue.recv(timeout=0)
        added = tun.add_queue()
        steer(added, sock, 1000)
        tun.attach()
        steer(tun, sock, 1000)
        assert queue_counts(ip, "q0") == (2, 1)
    assert ip.names() == []


def test_settings_while_detached(ip, four, other_netns):
    """Also of an interface that others have renamed or moved meanwhile."""
    four.detach()
    assert (four.name, four.index, four.mtu) == ("q0", ip.link("q0")["ifindex"], 1500)
    four.mtu = 1400
    four.persist = True
    four.add_address("10.0.1.1/24")
    ip("link", "set", "q0", "name", "other")
    ip("tuntap", "add", "dev", "q0", "mode", "tun")
    ip("link", "set", "q0", "mtu", "1234")
    assert (four.name, four.mtu, four.persist, four.is_up) == ("other", 1400, True, True)
    four.persist = False
    ip("link", "del", "q0")
    ip("link", "set", "other", "netns", other_netns)
    four.mtu = 1300
    assert ip.link("other", other_netns)["mtu"] == four.mtu == 1300
    four.attach()
    assert queue_counts(ip, "other", other_netns) == (4, 0)


def test_settings_while_detached_in_a_child(four):
    four.detach()
    child = os.fork()
    if child == 0:
        os._exit(0 if four.mtu == 1500 and not four.is_attached else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_close_while_detached(ip):
    before = descriptors()
    with Tun("q0", queues=2) as tun:
        for queue in tun.queues:
            queue.detach()
    with Tun("q0", queues=2) as tun:
        tun.queues[1].detach()
        tun.queues[1].close()
        assert queue_counts(ip, "q0") == (1, 0)
        tun.detach()
    assert (ip.names(), descriptors()) == ([], before)


def test_a_queue_that_was_closed_cannot_be_attached(four):
    queue = four.queues[1]
    queue.close()
    for call in (queue.attach, queue.detach, lambda: queue.is_attached, queue.recv):
        with pytest.raises(ClosedError):
            call()


# --- the end of queues ---


def test_close_of_the_device_closes_every_queue(ip, four):
    queues = four.queues
    threads = blocked(queues)
    four.close()
    for queue, thread in zip(queues, threads, strict=True):
        assert queue.closed
        assert queue.fileno() == -1
        with pytest.raises(ClosedError):
            thread.finish()
        with pytest.raises(ClosedError):
            queue.send(datagram(1))
    assert ip.names() == []
    assert four.queues == (four,)


def test_shutdown_of_the_device_ends_calls_on_every_queue(ip, four):
    queues = four.queues
    threads = blocked(queues)
    four.shutdown()
    for queue, thread in zip(queues, threads, strict=True):
        with pytest.raises(ClosedError):
            thread.finish()
        with pytest.raises(ClosedError):
            queue.recv(timeout=0)
    assert ip.names() == ["q0"]


def test_interrupt_of_the_device_ends_calls_on_every_queue_once(four, sock):
    threads = blocked(four.queues)
    four.interrupt()
    for thread in threads:
        with pytest.raises(InterruptError):
            thread.finish()
    for queue in four.queues:
        with pytest.raises(TimeoutError):
            queue.recv(timeout=0.01)


def test_what_ends_one_queue_leaves_the_others_alone(ip, four, sock):
    first, second, third, fourth = four.queues
    threads = blocked(four.queues)
    second.interrupt()
    third.shutdown()
    fourth.close()
    for thread, error in zip(threads[1:], (InterruptError, ClosedError, ClosedError), strict=True):
        with pytest.raises(error):
            thread.finish()
    assert four.queues == (first, second, third)
    assert queue_counts(ip, "q0") == (3, 0)
    steer(first, sock, 1000)
    sock.sendto(b"out", (PEER, 1000))
    assert threads[0].finish().endswith(b"out")
    third.close()
    third.close()
    second.close()
    assert four.queues == (four,)
    for sport in range(1000, 1050):
        sock.sendto(b"out", (PEER, sport))
    assert len(drain(four)) == 50
    assert four.add_queue() is four.queues[1]


def test_a_queue_opened_after_an_interrupt_knows_nothing_of_it(four):
    four.interrupt()
    with pytest.raises(TimeoutError):
        four.add_queue().recv(timeout=0.01)


@pytest.mark.parametrize("end", ["close", "shutdown"])
def test_no_queue_is_added_after_the_end(ip, end):
    before = descriptors()
    tun = Tun("q0", queues=2)
    getattr(tun, end)()
    with pytest.raises(ClosedError):
        tun.add_queue()
    assert len(tun.queues) == (1 if end == "close" else 2)
    tun.close()
    assert (ip.names(), descriptors()) == ([], before)


@pytest.mark.parametrize("end", ["close", "shutdown"])
def test_queues_that_are_being_added_at_the_end(ip, end):
    """Whatever add_queue() answers is closed, or shut down, with the device."""
    before = descriptors()
    for _ in range(15):
        tun = Tun("q0", up=False, multi_queue=True)
        added = []

        def add(tun=tun, added=added):
            # Without a GIL there may be all 256 before the end comes.
            with contextlib.suppress(ClosedError, DeviceBusyError):
                while True:
                    added.append(tun.add_queue())

        threads = [Thread(add) for _ in range(2)]
        while len(added) < 3:
            time.sleep(0)
        getattr(tun, end)()
        for thread in threads:
            thread.finish()
        for queue in added:
            with pytest.raises(ClosedError):
                queue.recv(timeout=0)
        tun.close()
        assert all(queue.closed for queue in added)
        assert (ip.names(), descriptors()) == ([], before)


def test_queues_that_several_threads_add_and_close_at_once(ip):
    """None is forgotten: all close with the device."""
    with Tun("q0", up=False, multi_queue=True) as tun:
        kept = []

        def add():
            for i in range(20):
                queue = tun.add_queue()
                assert queue in tun.queues
                if i % 2:
                    queue.close()
                else:
                    kept.append(queue)

        for thread in [Thread(add) for _ in range(4)]:
            thread.finish()
        assert set(tun.queues) == {tun, *kept}
        assert queue_counts(ip, "q0") == (41, 0)
    assert all(queue.closed for queue in kept)
    assert ip.names() == []


@MODES
def test_deletion_ends_calls_on_every_queue(ip, offload):
    with Tun("q0", queues=4, quiet=True, offload=offload) as tun:
        queues = tun.queues
        queues[3].detach()
        threads = blocked(queues)
        ip("link", "del", "q0")
        for thread in threads:
            with pytest.raises(DeviceGoneError):
                thread.finish()
        for queue in queues:
            calls = [queue.recv, queue.attach, queue.detach, lambda q=queue: q.is_attached, tun.add_queue]
            for call in calls:
                with pytest.raises(DeviceGoneError):
                    call()
        with pytest.raises(DeviceGoneError):
            queues[1].send(datagram(1))
    assert ip.names() == []


def test_a_namesake_of_a_deleted_interface_gets_no_queue_of_ours(ip, make_persistent):
    with Tun("q0", queues=2) as tun:
        ip("link", "del", "q0")
        make_persistent("q0", "tun", "multi_queue")
        with pytest.raises(DeviceGoneError):
            tun.add_queue()
        assert queue_counts(ip, "q0") == (0, 0)


def test_a_device_that_is_forgotten_takes_its_queues_along(ip):
    before = descriptors()
    tun = Tun("q0", queues=3)
    queue = tun.queues[1]
    with pytest.warns(ResourceWarning, match="unclosed.*q0"):
        del tun
    assert queue.closed
    assert (ip.names(), descriptors()) == ([], before)


def test_a_queue_that_is_forgotten_belongs_to_its_device(ip):
    with Tun("q0", multi_queue=True) as tun:
        number = tun.add_queue().fileno()
        gc.collect()
        assert tun.queues[1].fileno() == number
        assert queue_counts(ip, "q0") == (2, 0)
        before = descriptors()
        for _ in range(50):
            tun.add_queue().close()
        assert descriptors() == before
        assert len(tun.queues) == 2


def test_closed_queues_are_garbage(net):
    """Nothing holds on to a queue or a device that was closed."""
    gc.collect()
    gc.disable()
    try:
        before = len(gc.get_objects())
        for _ in range(20):
            with Tun(queues=3) as tun:
                tun.add_queue().close()
            del tun
        assert len(gc.get_objects()) < before + 20
    finally:
        gc.enable()


def test_a_child_closes_its_queues_and_the_parent_goes_on(ip, four, sock):
    (thread,) = blocked(four.queues[1:2])
    child = os.fork()
    if child == 0:
        status = 1
        try:
            four.queues[2].send(datagram(3000, b"from the child"))
            four.queues[1].close()
            four.close()
            with contextlib.suppress(ClosedError):
                four.add_queue()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert sock.recvfrom(100) == (b"from the child", (PEER, 3000))
    assert queue_counts(ip, "q0") == (4, 0)
    steer(four.queues[1], sock, 1000)
    sock.sendto(b"out", (PEER, 1000))
    assert thread.finish().endswith(b"out")


def test_a_child_adds_a_queue_that_goes_with_it(ip, four):
    child = os.fork()
    if child == 0:
        os._exit(0 if four.add_queue().is_attached and queue_counts(ip, "q0") == (5, 0) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert queue_counts(ip, "q0") == (4, 0)


# --- where the interface is ---


def test_a_rename(ip, four, sock):
    four.name = "renamed"
    added = four.add_queue()
    assert ip.names() == ["renamed"]
    assert queue_counts(ip, "renamed") == (5, 0)
    for number, queue in enumerate(four.queues):
        steer(queue, sock, 1000 + number)
    assert four.queues[-1] is added


def test_renames_while_queues_are_added(ip, four):
    """A queue is of the interface whatever it is called by then; no other one is left behind."""
    stop, renames = threading.Event(), []

    def rename():
        with Tun.from_fd(os.dup(four.fileno())) as other:
            while not stop.is_set():
                # Busy: the name is being asked for a queue at this moment.
                with contextlib.suppress(DeviceBusyError):
                    other.name = "q1" if other.name == "q0" else "q0"
                    renames.append(other.name)

    thread = Thread(rename)
    try:
        added = 0
        while added < 60 or len(renames) < 10:
            with contextlib.suppress(DeviceGoneError):
                queue = four.add_queue()
                added += 1
                if added > 60:
                    queue.close()
    finally:
        stop.set()
    thread.finish()
    (name,) = ip.names()
    assert queue_counts(ip, name) == (64, 0)


@pytest.mark.parametrize("offload", [False, True])
def test_a_move_to_another_namespace(ip, other_netns, offload):
    with Tun("q0", queues=2, offload=offload) as tun, Tun("q0x", netns=other_netns):
        ip("link", "set", "q0", "netns", other_netns)
        tun.add_queue()
        assert queue_counts(ip, "q0", other_netns) == (3, 0)
        assert ip.names() == []
        tun.up()
        for number, queue in enumerate(tun.queues, 1):
            queue.send(datagram(1))
            assert tun.stats.rx_packets == number
        with Tun("q0", multi_queue=True, up=False):
            added = tun.add_queue()
            assert queue_counts(ip, "q0") == (1, 0), "a namesake here"
            assert queue_counts(ip, "q0", other_netns) == (4, 0)
            added.close()
    assert (ip.names(), ip.names(other_netns)) == ([], [])


@KINDS
def test_opened_in_another_namespace(ip, other_netns, kind):
    with kind("q0", netns=other_netns, queues=2) as device:
        assert ip.names() == []
        assert queue_counts(ip, "q0", other_netns) == (2, 0)
        device.add_queue()
        assert queue_counts(ip, "q0", other_netns) == (3, 0)
        assert ip.names() == []
    assert ip.names(other_netns) == []


def test_a_persistent_interface(ip):
    with Tun("q0", queues=3, persist=True) as tun:
        assert tun.queues[1].is_attached
    try:
        assert queue_counts(ip, "q0") == (0, 0)
        for queues in (1, 4):
            with Tun("q0", queues=queues, multi_queue=True) as tun:
                assert queue_counts(ip, "q0") == (queues, 0)
        with pytest.raises(DeviceBusyError, match="multi-queue"):
            Tun("q0")
    finally:
        with Tun("q0", queues=2, persist=False):
            pass
    assert ip.names() == []


def test_an_ordinary_user_opens_queues_of_an_interface_made_for_them(
    ip, as_user, make_persistent, public_dev_net
):
    make_persistent("q0", "tun", "multi_queue", "user", str(USER), up=True)
    ip("addr", "add", f"{HOST}/24", "dev", "q0")

    def use():
        with Tun("q0", queues=2, offload=True) as tun:
            tun.add_queue()
            for queue in tun.queues:
                queue.send(datagram(1))
            tun.queues[1].detach()
            tun.queues[1].attach()
            return [len(tun.queues), tun.stats.rx_packets, sorted(tun.offload)]

    count, packets, offload = as_user(use)
    assert (count, packets) == (3, 3)
    assert "tcp4" in offload
    assert queue_counts(ip, "q0") == (0, 0)


# --- other programs ---

FRAMES = {
    "plain": (0, {}),
    "virtio-net header": (0x4000, {"offload": True}),
    "packet information": (-0x1000, {"packet_information": True}),
}


def prefix_of(theirs, packet):
    """What another program has in front of its packets."""
    return {"plain": b"", "virtio-net header": bytes(10), "packet information": b"\0\0\x08\0"}[
        theirs
    ] + packet


@pytest.mark.parametrize("theirs", FRAMES)
@pytest.mark.parametrize("ours", FRAMES)
def test_another_program_has_a_queue(ip, raw, sock, theirs, ours):
    """With other flags than ours nothing is opened and nothing changes for it."""
    flags = raw.TUN | raw.NO_PI | raw.MULTI_QUEUE
    fd = raw.attach("q0", flags + FRAMES[theirs][0])
    bring_up(ip)
    before, open_before = ip.state("q0"), descriptors()
    options = {"multi_queue": True, "mtu": 1400, "tx_queue_len": 77, **FRAMES[ours][1]}
    if theirs == ours:
        with Tun("q0", **options) as tun:
            assert queue_counts(ip, "q0") == (2, 0)
            assert tun.mtu == 1400
            head = b"\0\0\x08\0" if ours == "packet information" else b""
            tun.send(head + datagram(1000))
            assert sock.recvfrom(100) == (b"in", (PEER, 1000))
            sock.sendto(b"out", (PEER, 1000))
            received = tun.recv(timeout=PATIENCE)
            assert received[: len(head)] == head
            assert testing.checksum(received[len(head) :][:20]) == 0
            assert received.endswith(b"out")
    else:
        for queues in (1, 2):
            with pytest.raises(DeviceBusyError, match=r"TUNSETIFF.*q0") as caught:
                Tun("q0", queues=queues, **options)
            assert caught.value.errno == errno.EBUSY
            assert "open it with the same offload= and packet_information=" in str(caught.value)
        assert ip.state("q0") == before
    assert queue_counts(ip, "q0") == (1, 0)
    assert descriptors() == open_before
    info = ip.tun("q0")
    assert (info["vnet_hdr"], info["pi"]) == (theirs == "virtio-net header", theirs == "packet information")
    # Their framing is as it was.
    os.write(fd, prefix_of(theirs, datagram(1000)))
    assert sock.recvfrom(100) == (b"in", (PEER, 1000))
    sock.sendto(b"out", (PEER, 1000))
    packet = os.read(fd, 2000)
    head = len(prefix_of(theirs, b""))
    assert len(packet) == head + 28 + len(b"out")
    assert packet[head] == 0x45
    assert theirs == "virtio-net header" or packet[:head] == prefix_of(theirs, b"")
    assert packet.endswith(b"out")


def test_what_another_program_made_is_not_ours_to_bring_up(ip, raw, sysctl):
    """It goes with its last queue like one of ours, yet was there before."""
    raw.attach("q0", raw.TUN | raw.NO_PI | raw.MULTI_QUEUE)
    sysctl("net/ipv6/conf/q0/disable_ipv6", 1)
    before = ip.state("q0")
    with Tun("q0", multi_queue=True) as tun:
        assert not tun.is_up
    with pytest.raises(UnsupportedError):
        Tun("q0", queues=2, mtu=1400, tx_queue_len=9, addresses=["10.0.0.1/24", "fd00::1/64"], up=True)
    assert ip.state("q0") == before


def test_two_programs_of_ours(ip, sock):
    with Tun("q0", addresses=[f"{HOST}/24"], multi_queue=True, offload=True) as one:
        with Tun("q0", queues=2, offload=True) as other:
            assert queue_counts(ip, "q0") == (3, 0)
            queues = (*one.queues, *other.queues)
            for number, queue in enumerate(queues):
                steer(queue, sock, 1000 + number)
        assert queue_counts(ip, "q0") == (1, 0)
        for options in ({}, {"offload": True}, {"queues": 1, "multi_queue": False}):
            with pytest.raises(DeviceBusyError, match=r"TUNSETIFF.*multi-queue") as caught:
                Tun("q0", **options)
            assert caught.value.errno == errno.EINVAL
        with pytest.raises(DeviceBusyError):
            Tap("q0", queues=2)
        with pytest.raises(DeviceBusyError):
            Tun("q0", multi_queue=True, offload=True, exclusive=True)
        steer(one, sock, 1000)
    with Tun("q0") as one, pytest.raises(DeviceBusyError, match="multi-queue"):
        Tun("q0", queues=2)


@pytest.mark.parametrize("information", [False, True])
def test_an_adopted_descriptor_can_have_more_queues(ip, raw, sock, information):
    """They hide the same header that it hides."""
    fd = raw.attach("q0", raw.TUN | raw.MULTI_QUEUE | (0 if information else raw.NO_PI))
    bring_up(ip)
    with Tun.from_fd(fd, owned=False) as tun:
        added = tun.add_queue()
        assert queue_counts(ip, "q0") == (2, 0)
        for queue in (tun, added):
            steer(queue, sock, 1000)
            sock.sendto(b"out", (PEER, 1000))
            packet = queue.recv(timeout=PATIENCE)
            assert packet[0] == 0x45
            assert packet.endswith(b"out")
    assert queue_counts(ip, "q0") == (1, 0)


def test_what_is_no_interface_has_one_queue(net):
    one, other = testing.pair()
    with one, other:
        assert one.queues == (one,)
        assert one.is_attached
        for call in (one.add_queue, one.detach):
            with pytest.raises(UnsupportedError):
                call()
        assert one.queues == (one,)
