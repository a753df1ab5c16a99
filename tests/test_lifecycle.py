"""How a call begins, waits and ends: time-outs, interrupts, signals, close, deletion, fork.

A wait must end within 100 ms of what ends it.  Here half a second is allowed, because the machines
that run this may be busy; `PATIENCE` is only there so that a hang fails instead of blocking.
"""

import contextlib
import errno
import fractions
import gc
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from forks import fork, reap
from threads import PATIENCE, CallThread

import tuntap
from tuntap import (
    ClosedError,
    Device,
    DeviceGoneError,
    InterruptError,
    LinkDownError,
    PacketBatch,
    Tap,
    Tun,
    TunTapError,
)
from tuntap.testing import pair, udp

BOUND = 0.5
HOST, PEER = "10.8.0.1", "10.8.0.2"
PACKET = udp(HOST, PEER, 1, 2, b"x" * 100)

FULL = PacketBatch(1, 200)
FULL.fill([PACKET])

RECEIVES = ["recv", "recv_into", "recv_vectored", "recv_batch"]
SENDS = ["send", "send_vectored", "send_batch"]


pytestmark = pytest.mark.usefixtures("watchdog")


@pytest.fixture
def tun(net):
    with Tun(addresses=[f"{HOST}/24"], quiet=True) as tun:
        yield tun


def fill(device):
    """Send until there is no more room."""
    with contextlib.suppress(TimeoutError):
        while True:
            device.send(PACKET, timeout=0)


def caller(device, name):
    """One call that waits on the device, as a function of its time-out."""
    if name == "recv_into":
        buffer = bytearray(2000)
        return lambda timeout: device.recv_into(buffer, timeout)
    if name in ("recv_batch", "send_batch"):
        batch = device.batch(4)
        if name == "send_batch":
            batch.fill([PACKET] * 4)
        method = getattr(device, name)
        return lambda timeout: method(batch, timeout)
    if name == "send":
        return lambda timeout: device.send(PACKET, timeout)
    if name == "send_vectored":
        return lambda timeout: device.send_vectored([PACKET[:20], PACKET[20:]], timeout)
    if name == "recv_vectored":
        buffers = [bytearray(20), bytearray(2000)]
        return lambda timeout: device.recv_vectored(buffers, timeout)
    return lambda timeout: device.recv(timeout)


WAITS = [("tun", name) for name in RECEIVES] + [("pair", name) for name in [*RECEIVES, *SENDS]]


@pytest.fixture(params=WAITS, ids="-".join)
def waiting(request):
    """A device and a call on it that cannot be served now; `feed` lets it be served."""
    kind, name = request.param
    if kind == "tun":
        tun = request.getfixturevalue("tun")
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with contextlib.closing(sock):
            yield SimpleNamespace(
                device=tun, call=caller(tun, name), name=name, peer=None,
                feed=lambda: sock.sendto(b"x" * 100, (PEER, 9)),
            )  # fmt: skip
        return
    device, peer = pair()
    with device, peer:
        if name in SENDS:
            fill(device)

            def feed():
                for _ in range(10_000):
                    try:
                        peer.recv(timeout=0)
                    except TimeoutError:
                        break
        else:

            def feed():
                peer.send(PACKET)

        yield SimpleNamespace(device=device, call=caller(device, name), name=name, peer=peer, feed=feed)


def blocked(call, timeout=None):
    return Thread(call, timeout).wait_until_blocked()


class Thread(CallThread):
    def finish(self, since=None):
        self.join(PATIENCE)
        assert not self.is_alive(), "the call hangs"
        if since is not None:
            assert self.ended - since < BOUND, f"took {self.ended - since:.3f} s to end"
        return self

    def fails_with(self, kind, since=None):
        self.finish(since)
        assert isinstance(self.error, kind), f"{self.error!r}, {self.result!r}"
        return self.error


@contextlib.contextmanager
def takes(at_least=0.0, at_most=BOUND):
    begin = time.monotonic()
    yield
    spent = time.monotonic() - begin
    assert at_least <= spent < at_most, f"took {spent:.3f} s"


class TestTimeout:
    def test_none_at_all(self, waiting):
        for timeout in (0, 0.0, -0.0, 1e-12, np.float64(0), fractions.Fraction(0)):
            with takes(), pytest.raises(TimeoutError) as caught:
                waiting.call(timeout)
            assert caught.value.errno == errno.ETIMEDOUT

    def test_a_short_one(self, waiting):
        for timeout in (0.03, np.float32(0.03), fractions.Fraction(3, 100)):
            with takes(0.029, 0.03 + BOUND), pytest.raises(TimeoutError):
                waiting.call(timeout)

    def test_it_does_not_spin_meanwhile(self, waiting):
        before = time.process_time()
        with pytest.raises(TimeoutError):
            waiting.call(0.2)
        assert time.process_time() - before < 0.1

    @pytest.mark.parametrize("timeout", [None, float("inf"), 1e300, 2**40, 1e10, 3e6])
    @pytest.mark.parametrize("name", ["recv", "recv_into", "recv_batch"])
    def test_for_ever_or_nearly(self, name, timeout):
        device, peer = pair()
        with device, peer:
            thread = blocked(caller(device, name), timeout)
            begin = time.monotonic()
            peer.send(PACKET)
            thread.finish(begin)
            assert thread.error is None
            assert thread.result

    def test_what_is_no_time(self, waiting):
        for timeout in (-1, -0.001, -1e-300, float("-inf"), float("nan"), -(2**63)):
            with takes(), pytest.raises(ValueError, match="timeout"):
                waiting.call(timeout)

    def test_what_is_no_number(self, waiting):
        for timeout in ("1", b"1", True, False, [], object(), 1j, (1,)):
            with takes(), pytest.raises(TypeError):
                waiting.call(timeout)

    def test_what_is_ready_is_served(self, waiting):
        for timeout in (0, 1e-12, 5, None):
            waiting.feed()
            with takes():
                assert waiting.call(timeout)
            if waiting.name in SENDS:
                fill(waiting.device)

    def test_it_is_the_time_of_the_whole_call(self):
        """Packets that others take do not start the time anew."""
        device, peer = pair()
        with device, peer:
            thread = blocked(device.recv, 0.3)
            begin = time.monotonic()
            while thread.is_alive() and time.monotonic() - begin < PATIENCE:
                peer.send(PACKET)
                with contextlib.suppress(TimeoutError):
                    device.recv(timeout=0)
                if thread.result:
                    break
            thread.finish()
            assert thread.ended - begin < 0.3 + BOUND


class TestInterrupt:
    def test_ends_a_blocked_call(self, waiting):
        thread = blocked(waiting.call)
        begin = time.monotonic()
        waiting.device.interrupt()
        error = thread.fails_with(InterruptError, begin)
        assert error.errno == errno.EINTR
        with pytest.raises(TimeoutError):
            waiting.call(0.03)  # once is once
        waiting.feed()
        assert waiting.call(1)

    def test_before_the_wait_is_remembered_once(self, waiting):
        waiting.device.interrupt()
        waiting.device.interrupt()
        with takes(), pytest.raises(InterruptError):
            waiting.call(None)
        with takes(0.029), pytest.raises(TimeoutError):
            waiting.call(0.03)

    def test_does_not_disturb_a_call_that_need_not_wait(self, waiting):
        waiting.device.interrupt()
        with pytest.raises(TimeoutError):
            waiting.call(0)
        waiting.feed()
        assert waiting.call(None)

    def test_ends_every_waiter(self, waiting):
        threads = [Thread(caller(waiting.device, waiting.name), None) for _ in range(8)]
        for thread in threads:
            thread.wait_until_blocked()
        begin = time.monotonic()
        waiting.device.interrupt()
        for thread in threads:
            thread.fails_with(InterruptError, begin)
        with pytest.raises(TimeoutError):
            waiting.call(0.03)

    def test_wakes_receivers_and_senders(self):
        device, peer = pair()
        with device, peer:
            fill(device)
            threads = [blocked(caller(device, name)) for name in (*RECEIVES, *SENDS)]
            begin = time.monotonic()
            device.interrupt()
            for thread in threads:
                thread.fails_with(InterruptError, begin)

    def test_leaves_no_spinning_behind(self, waiting):
        thread = blocked(waiting.call)
        waiting.device.interrupt()
        thread.fails_with(InterruptError)
        before = time.process_time()
        with pytest.raises(TimeoutError):
            waiting.call(0.2)
        assert time.process_time() - before < 0.1

    @pytest.mark.parametrize("name", RECEIVES)
    def test_a_storm_loses_no_packet(self, name):
        device, peer = pair()
        total, seen, interrupts = 3000, [], []
        stop = threading.Event()

        def receive():
            buffer, batch = bytearray(100), device.batch(8)
            while len(seen) < total:
                try:
                    if name == "recv":
                        seen.append(device.recv(timeout=5)[28:])
                    elif name == "recv_into":
                        seen.append(bytes(buffer[28 : device.recv_into(buffer, timeout=5)]))
                    else:
                        device.recv_batch(batch, timeout=5)
                        seen.extend(bytes(packet[28:]) for packet in batch)
                except InterruptError:
                    interrupts.append(1)

        def storm():
            while not stop.is_set():
                device.interrupt()
                time.sleep(0.00005)

        with device, peer:
            threads = [Thread(receive), Thread(storm)]
            for i in range(total):
                peer.send(udp(HOST, PEER, 1, 2, struct.pack("!I", i)), timeout=PATIENCE)
                if i % 10 == 0:
                    time.sleep(0.0001)
            threads[0].join(PATIENCE)
            stop.set()
            for thread in threads:
                assert thread.finish().error is None
        assert seen == [struct.pack("!I", i) for i in range(total)]
        assert interrupts

    def test_a_sender_that_had_begun_answers_how_far_it_came(self):
        """The interrupt itself is for the next call."""
        device, peer = pair()
        with device, peer:
            fill(device)
            for _ in range(3):
                peer.recv(timeout=0)
            batch = device.batch(4096)
            batch.fill([PACKET] * 4096)
            thread = blocked(lambda timeout: device.send_batch(batch, timeout))
            begin = time.monotonic()
            device.interrupt()
            thread.finish(begin)
            if thread.error is None:
                assert 0 < thread.result < 4096
                with takes(), pytest.raises(InterruptError):
                    device.send_batch(batch)
            else:
                assert isinstance(thread.error, InterruptError)

    def test_after_close_and_shutdown_is_nothing(self):
        device, peer = pair()
        peer.close()
        device.shutdown()
        device.interrupt()
        with pytest.raises(ClosedError):
            device.recv()
        device.close()
        device.interrupt()


KINDS = ["tun", "pair", "offload", "borrowed"]


@pytest.fixture(params=[(kind, name) for kind in KINDS for name in RECEIVES], ids="-".join)
def drained(request):
    """A receive on a device whose last one found nothing more, so that it waits before it looks; `feed`."""
    kind, name = request.param
    with contextlib.ExitStack() as stack:
        if kind == "tun":
            device = request.getfixturevalue("tun")
            sender = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))

            def feed():
                sender.sendto(b"x" * 100, (PEER, 9))

        elif kind == "borrowed":
            end, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            stack.enter_context(end)
            stack.enter_context(other)
            device = stack.enter_context(Tun.from_fd(end.fileno(), owned=False))

            def feed():
                other.send(PACKET)

        else:
            device, peer = pair(offload=kind == "offload")
            stack.enter_context(device)
            stack.enter_context(peer)

            def feed():
                peer.send(PACKET)

        call = caller(device, name)
        feed()
        assert call(0)
        with pytest.raises(TimeoutError):
            call(0)
        yield SimpleNamespace(device=device, call=call, feed=feed, kind=kind, name=name)


class TestDrained:
    def test_what_came_since_is_received(self, drained):
        for timeout in (0, 1e-12, 0.001, PATIENCE, None):
            drained.feed()
            with takes():
                assert drained.call(timeout)
            with takes(), pytest.raises(TimeoutError):
                drained.call(0)

    def test_a_packet_comes_before_an_interrupt_that_found_nobody_waiting(self, drained):
        for timeout in (PATIENCE, None):
            drained.feed()
            drained.device.interrupt()
            with takes():
                assert drained.call(timeout)
            with takes(), pytest.raises(InterruptError):
                drained.call(timeout)
            drained.device.interrupt()
            drained.feed()
            with takes():
                assert drained.call(timeout)
            with takes(), pytest.raises(TimeoutError):
                drained.call(0)
            with takes(), pytest.raises(InterruptError):
                drained.call(timeout)

    def test_the_end_comes_before_a_packet(self, drained):
        drained.feed()
        drained.device.shutdown()
        for timeout in (0, PATIENCE, None):
            with takes(), pytest.raises(ClosedError):
                drained.call(timeout)
        drained.device.close()
        for timeout in (0, PATIENCE, None):
            with takes(), pytest.raises(ClosedError):
                drained.call(timeout)

    @pytest.mark.parametrize("timeout", [0, PATIENCE, None])
    def test_a_descriptor_that_was_closed_behind_our_back(self, drained, timeout):
        fd = drained.device.fileno()
        kept = os.dup(fd)
        os.close(fd)
        try:
            with takes(), pytest.raises(ClosedError):
                drained.call(timeout)
        finally:
            os.dup2(kept, fd, inheritable=False)
            os.close(kept)
        drained.feed()
        assert drained.call(timeout)

    @pytest.mark.parametrize("timeout", [0, PATIENCE, None])
    def test_an_interface_that_was_deleted(self, tun, timeout):
        with pytest.raises(TimeoutError):
            tun.recv(timeout=0)
        tuntap.delete(tun.name)
        with takes(), pytest.raises(DeviceGoneError):
            tun.recv(timeout=timeout)

    def test_what_was_cut_is_forgotten_by_a_call_that_was_interrupted(self):
        device, peer = pair()
        with device, peer:
            batch = PacketBatch(2, len(PACKET) - 1)
            peer.send(PACKET)
            assert device.recv_batch(batch, timeout=PATIENCE) == 1
            assert batch.truncated == (0,)
            device.interrupt()
            with takes(), pytest.raises(InterruptError):
                device.recv_batch(batch)
            assert (batch.count, batch.truncated) == (0, ())

    @pytest.mark.parametrize("offload", [True, False])
    @pytest.mark.parametrize("timeout", [0, PATIENCE, None])
    def test_the_other_end_was_closed(self, timeout, offload):
        device, peer = pair(offload=offload)
        with device:
            with pytest.raises(TimeoutError):
                device.recv(timeout=0)
            peer.send(PACKET)
            peer.close()
            assert device.recv(timeout=timeout)
            with takes(), pytest.raises(DeviceGoneError):
                device.recv(timeout=timeout)

    def test_handlers_that_return_do_not_lengthen_the_time(self, drained):
        caught = []
        before = signal.signal(signal.SIGALRM, lambda *_: caught.append(1))
        signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
        try:
            with takes(0.199, 0.2 + BOUND), pytest.raises(TimeoutError):
                drained.call(0.2)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert len(caught) >= 2

    def test_a_handler_that_feeds_is_heard(self, drained):
        before = signal.signal(signal.SIGALRM, lambda *_: drained.feed())
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        try:
            with takes(0.01):
                assert drained.call(None)
        finally:
            signal.signal(signal.SIGALRM, before)

    def test_segments_that_wait_in_memory_need_no_descriptor(self):
        """Those of a super-packet whose first one was received: nothing is readable, and nobody waits."""
        device, peer = pair(offload=True)
        batch = PacketBatch(5, 200)
        batch.fill([PACKET] * 5)
        with device, peer:
            for timeout in (0, PATIENCE, None):
                with pytest.raises(TimeoutError):
                    device.recv(timeout=0)
                assert peer.send_batch(batch) == 5
                assert device.recv(timeout=timeout)[28:] == PACKET[28:]
                assert device.pending == 4
                device.interrupt()
                for left in (3, 2, 1, 0):
                    with takes():
                        assert device.recv(timeout=timeout)[28:] == PACKET[28:]
                    assert device.pending == left
                with takes(), pytest.raises(TimeoutError if timeout == 0 else InterruptError):
                    device.recv(timeout=timeout)
                with contextlib.suppress(InterruptError, TimeoutError):
                    device.recv(timeout=0.001)


class TestShutdown:
    def test_ends_a_blocked_call(self, waiting):
        threads = [Thread(caller(waiting.device, waiting.name), None) for _ in range(4)]
        for thread in threads:
            thread.wait_until_blocked()
        begin = time.monotonic()
        waiting.device.shutdown()
        for thread in threads:
            thread.fails_with(ClosedError, begin)

    def test_is_for_good(self, waiting):
        waiting.device.shutdown()
        waiting.device.shutdown()
        waiting.feed() if waiting.peer is None or waiting.name in RECEIVES else None
        for timeout in (None, 0, 1):
            with takes(), pytest.raises(ClosedError, match="shut"):
                waiting.call(timeout)
        assert not waiting.device.closed

    def test_wins_over_an_interrupt(self):
        device, peer = pair()
        with device, peer:
            device.interrupt()
            device.shutdown()
            with pytest.raises(ClosedError):
                device.recv()


class TestClose:
    def test_ends_a_blocked_call(self, waiting):
        threads = [Thread(caller(waiting.device, waiting.name), None) for _ in range(4)]
        for thread in threads:
            thread.wait_until_blocked()
        begin = time.monotonic()
        with takes():
            waiting.device.close()
        for thread in threads:
            thread.fails_with(ClosedError, begin)
        assert waiting.device.fileno() == -1

    def test_of_many_threads_in_every_call(self):
        device, peer = pair()
        fill(device)
        threads = [blocked(caller(device, name)) for name in (*RECEIVES, *SENDS) * 4]
        begin = time.monotonic()
        device.close()
        for thread in threads:
            thread.fails_with(ClosedError, begin)
        peer.close()

    def test_twice(self):
        device, peer = pair()
        peer.close()
        device.close()
        device.close()
        assert device.closed

    def test_from_several_threads_at_once(self):
        for _ in range(50):
            device, peer = pair()
            waiter = Thread(device.recv)
            barrier = threading.Barrier(4)

            def close(device=device, barrier=barrier):
                barrier.wait(PATIENCE)
                device.close()
                return device.closed, device.fileno()

            threads = [Thread(close) for _ in range(4)]
            for thread in threads:
                assert thread.finish().result == (True, -1)
            waiter.fails_with(ClosedError)
            peer.close()

    @pytest.mark.parametrize("name", ["recv", "recv_batch", "send", "send_batch"])
    def test_while_other_threads_are_busy(self, name):
        """Often, and at a random moment: a typed error, nothing else."""
        chance = random.Random(1)
        for _ in range(60):
            device, peer = pair()

            def run(call):
                while True:
                    call(None)

            threads = [
                Thread(run, caller(device, name)),
                Thread(run, caller(device, name)),
                Thread(run, caller(peer, "recv_batch" if name in SENDS else "send_batch")),
            ]
            time.sleep(chance.random() * 0.003)
            begin = time.monotonic()
            device.close()
            for thread in threads[:2]:
                thread.fails_with(ClosedError, begin)
            threads[2].fails_with(DeviceGoneError, begin)
            peer.close()

    def test_of_a_real_device_under_load(self, net):
        for _ in range(20):
            tun = Tun(addresses=[f"{HOST}/24"], quiet=True)

            def receive(tun=tun):
                batch = tun.batch(8)
                while True:
                    tun.recv_batch(batch)

            def send(tun=tun):
                while True:
                    tun.send(PACKET)

            def ask(tun=tun):
                while True:
                    assert tun.mtu == 1500

            threads = [Thread(receive), Thread(send), Thread(ask)]
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                for _ in range(50):
                    client.sendto(b"x", (PEER, 9))
            begin = time.monotonic()
            tun.close()
            for thread in threads:
                thread.fails_with(ClosedError, begin)

    def test_of_a_device_whose_descriptor_was_closed_behind_its_back(self, net):
        tun = Tun(quiet=True)
        name = tun.name
        os.close(tun.fileno())
        assert name not in tuntap.interfaces()
        for call in (
            *(caller_of(tun, n) for n in (*RECEIVES, *SENDS)),
            lambda: tun.name,
            lambda: tun.mtu,
            tun.up,
        ):
            with takes(), pytest.raises(ClosedError) as caught:
                call()
            assert caught.value.errno == errno.EBADF
        tun.close()

    def test_through_with_even_after_an_error(self):
        device, peer = pair()
        assert device.__enter__() is device
        with pytest.raises(KeyError), device, peer:
            raise KeyError
        assert device.closed
        assert peer.closed

    def test_is_part_of_garbage_collection_which_warns(self, net):
        tun = Tun()
        name = tun.name
        kept = [tun]
        del tun
        with pytest.warns(ResourceWarning, match=f"unclosed.*{name}"):
            kept.clear()
        gc.collect()
        assert name not in tuntap.interfaces()

    def test_of_a_device_in_a_cycle(self):
        device, peer = pair()
        device.myself = device
        fd = device.fileno()
        del device
        with pytest.warns(ResourceWarning):
            gc.collect()
        with pytest.raises(OSError):
            os.fstat(fd)
        with pytest.raises(DeviceGoneError):
            peer.recv(timeout=1)
        peer.close()

    def test_by_a_collection_that_runs_inside_open_and_close(self):
        """Every allocation collects, and every collection closes devices."""
        thresholds = gc.get_threshold()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            try:
                for _ in range(20):
                    for device in pair():
                        device.myself = device
                    del device
                    gc.set_threshold(1, 1, 1)
                    for device in pair():
                        device.close()
                    gc.set_threshold(*thresholds)
            finally:
                gc.set_threshold(*thresholds)
            gc.collect()

    def test_a_device_warns_only_if_it_is_open(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for device in pair():
                device.close()
            del device
            gc.collect()
            Tun.__new__(Tun)
            with pytest.raises(TypeError):
                Device()
            gc.collect()


def caller_of(device, name, timeout=None):
    """The call with its time-out."""
    if name in ("recv_batch", "send_batch"):
        batch = PacketBatch(4, 200)
        batch.fill([PACKET] * 4)
        return lambda: getattr(device, name)(batch, timeout)
    call = caller(device, name)
    return lambda: call(timeout)


class TestAfterClose:
    ANSWERS = (
        "addresses", "broadcast", "carrier", "dns", "driver_version", "group", "index", "is_attached",
        "is_running", "is_up", "luid", "mac", "metric", "mtu", "mtu_v6", "name", "owner", "persist", "stats",
        "tx_queue_len",
    )  # fmt: skip
    SETTINGS = (
        ("addresses", ["10.9.0.1/24"]), ("broadcast", "10.0.0.255"), ("carrier", True), ("dns", ["9.9.9.9"]),
        ("group", 0), ("is_up", True), ("mac", "02:00:00:00:00:09"), ("metric", 5), ("mtu", 1400),
        ("mtu_v6", 1400), ("name", "other9"), ("owner", 0), ("persist", False), ("tx_queue_len", 10),
    )  # fmt: skip
    CALLS = (
        ("add_address", "10.9.0.1/24"), ("add_queue",), ("add_route", "10.9.1.0/24"), ("attach",), ("batch",),
        ("detach",), ("down",), ("events",), ("recv",), ("recv_batch", PacketBatch(1, 100)),
        ("recv_into", bytearray(100)), ("recv_vectored", [bytearray(100)]), ("remove_address", "10.9.0.1/24"),
        ("remove_route", "10.9.1.0/24"), ("send", PACKET), ("send_batch", FULL), ("send_vectored", [PACKET]),
        ("set_addresses", ["10.9.0.1/24"]), ("up",), ("wait_readable",), ("wait_writable",),
    )  # fmt: skip
    STILL = (
        "capabilities",
        "close",
        "closed",
        "fileno",
        "from_fd",
        "interrupt",
        "offload",
        "pending",
        "queues",
        "shutdown",
    )

    @pytest.fixture(params=["tun", "tap", "memory"])
    def device(self, request):
        if request.param == "memory":
            device, peer = pair(Tap)
            peer.close()
        else:
            request.getfixturevalue("net")
            device = Tun() if request.param == "tun" else Tap()
        device.close()
        return device

    def test_every_public_name_is_spoken_of_here(self):
        names = {name for name in dir(Tap) if not name.startswith("_")}
        assert names == {*self.ANSWERS, *dict(self.SETTINGS), *(call[0] for call in self.CALLS), *self.STILL}

    def test_properties(self, device):
        kinds = (ClosedError,) if isinstance(device, Tap) else (ClosedError, tuntap.UnsupportedError)
        for name in self.ANSWERS:
            with pytest.raises(kinds if name == "mac" else ClosedError):
                getattr(device, name)
        for name, value in self.SETTINGS:
            with pytest.raises(kinds if name == "mac" else ClosedError):
                setattr(device, name, value)

    def test_methods(self, device):
        for name, *arguments in self.CALLS:
            with takes(), pytest.raises(ClosedError) as caught:
                getattr(device, name)(*arguments)
            assert caught.value.errno == errno.EBADF

    def test_sending_nothing_is_no_way_around(self, device):
        with pytest.raises(ClosedError):
            device.send_batch(PacketBatch(1, 100))

    def test_what_still_answers(self, device):
        assert device.closed
        assert device.fileno() == -1
        device.close()
        device.interrupt()
        device.shutdown()
        assert "closed" in repr(device)
        assert isinstance(device.capabilities, frozenset)
        assert device.queues == (device,)

    def test_it_cannot_be_opened_again(self, device):
        with pytest.raises(RuntimeError):
            device.__init__()


class TestSignals:
    """In the main thread; the signal is sent to the process by another thread."""

    def test_what_a_handler_raises_is_not_mistaken_for_the_end_of_time(self):
        class Alarm(TimeoutError):
            pass

        def handler(*_):
            raise Alarm

        device, peer = pair()
        with device, peer:
            batch = PacketBatch(4096, 1500)
            batch.fill([udp(HOST, PEER, 1, 2, bytes(1000))] * 4096)
            before = signal.signal(signal.SIGALRM, handler)
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.1)
                with pytest.raises(Alarm):
                    device.send_batch(batch)  # more than a pair holds
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
                signal.signal(signal.SIGALRM, before)

    @pytest.fixture(autouse=True)
    def _handlers(self):
        before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGALRM)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        yield
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGINT, before[0])
        signal.signal(signal.SIGALRM, before[1])

    @staticmethod
    def later(number, delay=0.08):
        """Send the signal soon; the answer has the moment in it."""
        moments = []

        def run():
            time.sleep(delay)
            moments.append(time.monotonic())
            os.kill(os.getpid(), number)

        thread = Thread(run)
        return thread, moments

    def test_ctrl_c(self, waiting):
        thread, moments = self.later(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            waiting.call(PATIENCE)
        ended = time.monotonic()
        thread.finish()
        assert ended - moments[0] < BOUND
        waiting.feed()
        assert waiting.call(1)

    def test_ctrl_c_without_a_time_out(self, waiting):
        thread, moments = self.later(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            waiting.call(None)
        assert time.monotonic() - moments[0] < BOUND
        thread.finish()

    def test_ctrl_c_while_other_threads_wait_too(self, waiting):
        others = [blocked(caller(waiting.device, waiting.name)) for _ in range(3)]
        thread, moments = self.later(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            waiting.call(None)
        assert time.monotonic() - moments[0] < BOUND
        thread.finish()
        time.sleep(0.02)
        assert all(other.is_alive() for other in others)
        waiting.device.close()
        for other in others:
            other.fails_with(ClosedError)

    def test_a_handler_that_returns_costs_no_time(self, waiting):
        """PEP 475: the call goes on, for the time that is left."""
        seen = []
        signal.signal(signal.SIGALRM, lambda *_: seen.append(time.monotonic()))
        signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
        with takes(0.199, 0.2 + BOUND), pytest.raises(TimeoutError):
            waiting.call(0.2)
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert len(seen) >= 4

    def test_an_exception_of_a_handler_passes_through(self, waiting):
        class Mine(Exception):
            pass

        def handler(*_):
            raise Mine

        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with takes(0.0, 0.05 + BOUND), pytest.raises(Mine):
            waiting.call(None)
        waiting.feed()
        assert waiting.call(1)

    @pytest.mark.parametrize(
        ("method", "error"),
        [("close", ClosedError), ("shutdown", ClosedError), ("interrupt", InterruptError)],
    )
    def test_a_handler_that_ends_the_very_call(self, waiting, method, error):
        signal.signal(signal.SIGALRM, lambda *_: getattr(waiting.device, method)())
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with takes(0.0, 0.05 + BOUND), pytest.raises(error):
            waiting.call(None)

    def test_a_handler_that_serves_the_very_call(self, waiting):
        signal.signal(signal.SIGALRM, lambda *_: waiting.feed())
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with takes(0.0, 0.05 + BOUND):
            assert waiting.call(None)

    def test_a_handler_that_makes_the_same_call(self, waiting):
        def handler(*_):
            with pytest.raises(TimeoutError):
                waiting.call(0)
            seen.append(1)

        seen = []
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        with pytest.raises(TimeoutError):
            waiting.call(0.1)
        assert seen

    def test_a_handler_that_closes_devices_which_open_and_close(self):
        """Wherever in open() or close() the signal comes."""
        current = []

        def handler(*_):
            if current:
                current.pop().close()

        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
        end = time.monotonic() + 1
        while time.monotonic() < end:
            device, peer = pair()
            current.append(device)
            peer.close()
            device.close()
        signal.setitimer(signal.ITIMER_REAL, 0)

    def test_a_signal_for_another_thread_is_no_matter(self, waiting):
        signal.signal(signal.SIGALRM, lambda *_: None)
        thread = blocked(waiting.call)
        for _ in range(20):
            signal.pthread_kill(thread.ident, signal.SIGALRM)
            time.sleep(0.001)
        assert thread.is_alive()
        waiting.feed()
        assert thread.finish().error is None


class TestDeleted:
    def test_while_it_waits_for_room(self, net):
        with Tun(quiet=True, up=False) as tun:
            thread = blocked(lambda timeout: tun.wait_writable(timeout))
            begin = time.monotonic()
            tuntap.delete(tun.name)
            thread.fails_with(DeviceGoneError, begin)
            with pytest.raises(DeviceGoneError):
                tun.wait_writable()
            with pytest.raises(DeviceGoneError):
                tun.wait_readable()

    def test_afterwards_every_call_says_so_at_once(self, net):
        with Tun(quiet=True) as tun:
            tuntap.delete(tun.name)
            before = time.process_time()
            for call in (
                *(caller_of(tun, name) for name in (*RECEIVES, *SENDS)),
                lambda: tun.mtu, lambda: tun.stats, lambda: tun.addresses, lambda: tun.is_up,
                lambda: tun.add_address("10.9.0.1/24"), lambda: tun.batch(), tun.up, tun.down,
            ):  # fmt: skip
                with takes(), pytest.raises(DeviceGoneError):
                    call()
            assert time.process_time() - before < 0.2
            tun.interrupt()

    def test_what_was_received_before_is_a_result(self, net):
        with Tun(addresses=[f"{HOST}/24"], quiet=True) as tun:
            batch = tun.batch(4)
            thread = blocked(lambda timeout: tun.recv_batch(batch, timeout))
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.sendto(b"x", (PEER, 9))
            assert thread.finish().result == 1
            tuntap.delete(tun.name)
            with pytest.raises(DeviceGoneError):
                tun.recv_batch(batch)

    def test_a_namesake_is_not_mistaken_for_it(self, net):
        with Tun("namesake0", quiet=True) as tun:
            tuntap.delete("namesake0")
            with Tun("namesake0", mtu=1234, quiet=True) as other:
                with pytest.raises(DeviceGoneError):
                    tun.mtu = 1300
                with pytest.raises(DeviceGoneError):
                    tun.recv(timeout=0)
                assert other.mtu == 1234


class TestLinkDown:
    def test_of_a_device_that_was_never_up(self, net):
        with Tun(up=False) as tun:
            with pytest.raises(LinkDownError):
                tun.send(PACKET)
            with takes(0.049, 0.05 + BOUND), pytest.raises(TimeoutError):
                tun.recv(timeout=0.05)

    def test_while_a_batch_is_sent(self, tun):
        """Whenever it comes, what has gone is counted and the error follows."""
        batch = tun.batch(512)
        batch.fill([PACKET] * 512)
        tun.up()

        def send():
            while True:
                tun.send_batch(batch)

        thread = Thread(send)
        time.sleep(0.02)
        tun.down()
        thread.fails_with(LinkDownError)


class TestFork:
    def test_with_a_signal_handler_that_runs_in_the_middle_of_it(self):
        # Hooks of others run Python code, and so handlers, while the process forks.
        program = (
            "import os, signal\n"
            "signal.signal(signal.SIGUSR1, lambda *_: (one.interrupt(), other.close()))\n"
            "os.register_at_fork(before=lambda: signal.raise_signal(signal.SIGUSR1))\n"
            "from tuntap import testing\n"
            "one, other = testing.pair()\n"
            "pid = os.fork()\n"
            "if pid == 0: os._exit(0)\n"
            "status = os.waitpid(pid, 0)[1]\n"
            "one.close()\n"
            "print('status', status)\n"
        )
        run = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=20
        )
        assert run.stdout == "status 0\n", run.stderr

    def test_while_threads_are_blocked_in_every_call(self):
        device, peer = pair()
        with device, peer:
            fill(device)
            threads = [blocked(caller(device, name)) for name in ("recv", "recv_batch", "send")]

            def child():
                for name in ("recv", "recv_into", "send"):
                    with pytest.raises(TimeoutError):
                        caller(device, name)(0.01)
                waiter = Thread(device.recv)
                waiter.wait_until_blocked()
                device.interrupt()
                waiter.fails_with(InterruptError)
                device.close()

            reap(fork(child))
            time.sleep(0.02)
            assert all(thread.is_alive() for thread in threads)
            begin = time.monotonic()
            device.interrupt()
            for thread in threads:
                thread.fails_with(InterruptError, begin)

    def test_what_a_child_ends_goes_on_in_the_parent(self):
        """interrupt() and shutdown() are of one process."""
        device, peer = pair()
        with device, peer:
            thread = blocked(device.recv)

            def child():
                device.interrupt()
                device.shutdown()
                with pytest.raises(ClosedError):
                    device.recv()

            reap(fork(child))
            before = time.process_time()
            time.sleep(0.2)
            assert thread.is_alive()
            assert time.process_time() - before < 0.1, "the child's wake-up keeps the parent awake"
            peer.send(PACKET)
            assert thread.finish().result == PACKET

    def test_a_device_that_was_shut_down_is_so_in_the_child(self):
        device, peer = pair()
        with device, peer:
            device.shutdown()

            def child():
                with pytest.raises(ClosedError):
                    device.recv()

            reap(fork(child))

    @pytest.mark.parametrize("name", ["recv", "send", "recv_batch", "mtu"])
    def test_fifty_times_while_another_thread_works(self, tun, name):
        stop = threading.Event()
        batch = tun.batch(4)

        def work():
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    if name == "send":
                        tun.send(PACKET)
                    elif name == "mtu":
                        assert tun.mtu == 1500
                    elif name == "recv_batch":
                        tun.recv_batch(batch, timeout=0)
                    else:
                        tun.recv(timeout=0.0005)

        def child():
            assert tun.mtu == 1500
            tun.send(PACKET)
            with contextlib.suppress(TimeoutError):
                tun.recv(timeout=0.001)
            tun.interrupt()
            with contextlib.suppress(InterruptError, TimeoutError):
                tun.recv(timeout=0.001)
            tun.close()

        thread = Thread(work)
        try:
            for _ in range(50):
                reap(fork(child))
        finally:
            stop.set()
            thread.finish()
        assert thread.error is None

    def test_while_other_threads_open_and_close(self):
        stop = threading.Event()

        def work():
            while not stop.is_set():
                for device in pair():
                    device.close()

        def child():
            for device in pair():
                device.close()

        threads = [Thread(work), Thread(work)]
        try:
            for _ in range(30):
                reap(fork(child))
        finally:
            stop.set()
            for thread in threads:
                thread.finish()
        assert [thread.error for thread in threads] == [None, None]

    def test_both_ask_and_each_gets_its_own_answer(self, tun):
        """The configuration socket must not be one socket in two processes."""

        def child():
            for _ in range(2000):
                assert [str(address) for address in tun.addresses] == [f"{HOST}/24"]

        pid = fork(child)
        wrong = []

        def ask():
            for _ in range(2000):
                if tun.mtu != 1500:
                    wrong.append(1)

        thread = Thread(ask)
        try:
            reap(pid)
        finally:
            thread.finish()
        assert thread.error is None
        assert not wrong

    def test_a_child_that_configures_leaves_the_parent_able_to(self, net):
        with Tun(quiet=True) as tun:

            def child():
                tun.mtu = 1400
                tun.add_address("10.9.9.1/24")
                tun.close()

            reap(fork(child))
            assert tun.mtu == 1400
            assert [str(address) for address in tun.addresses] == ["10.9.9.1/24"]
            tun.mtu = 1300
            assert tun.mtu == 1300


def run_python(code, **options):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True, text=True, timeout=30, **options,
    )  # fmt: skip


class TestProcesses:
    def test_a_child_process_inherits_nothing(self, tun):
        thread = blocked(tun.recv)
        before = {os.readlink(f"/proc/self/fd/{fd}") for fd in listed("/proc/self/fd")}
        assert any("/dev/net/tun" in link for link in before)
        result = run_python(
            """
            import os
            for fd in os.listdir("/proc/self/fd"):
                try:
                    print(os.readlink("/proc/self/fd/" + fd))
                except OSError:
                    pass
            """,
            close_fds=False,
        )
        assert result.returncode == 0
        assert "/dev/net/tun" not in result.stdout
        assert "eventfd" not in result.stdout
        tun.close()
        thread.fails_with(ClosedError)

    def test_the_interpreter_ends_while_a_thread_is_blocked(self):
        result = run_python("""
            import threading, time
            from tuntap.testing import pair
            one, other = pair()
            for call in (one.recv, lambda: other.recv_batch(other.batch())):
                threading.Thread(target=call, daemon=True).start()
            time.sleep(0.1)
        """)
        assert result.returncode == 0, result.stderr

    def test_a_program_that_forgets_to_close_ends_all_the_same(self):
        result = run_python("""
            from tuntap.testing import pair
            devices = pair()
            devices[0].send(b"E")
        """)
        assert result.returncode == 0
        assert "Error" not in result.stderr

    def test_ctrl_c_ends_a_program_with_its_usual_status(self):
        code = """
            import signal
            from tuntap.testing import pair
            signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
            one, other = pair()
            print("ready", flush=True)
            try:
                one.recv()
            except KeyboardInterrupt:
                print("interrupted", flush=True)
                one.close(), other.close()
                raise
        """
        with subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code)],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        ) as process:  # fmt: skip
            assert process.stdout.readline() == "ready\n"
            time.sleep(0.1)
            begin = time.monotonic()
            process.send_signal(signal.SIGINT)
            assert process.stdout.readline() == "interrupted\n"
            assert time.monotonic() - begin < BOUND
            assert process.wait(PATIENCE) == -signal.SIGINT


def listed(directory):
    """Entries that are still there."""
    return [fd for fd in os.listdir(directory) if os.path.lexists(f"{directory}/{fd}")]


class TestThreads:
    @pytest.mark.parametrize("names", [("recv", "recv"), ("recv", "recv_batch"), ("recv_into", "recv_batch")])
    def test_two_receivers_get_each_packet_once(self, names):
        total = 6000
        device, peer = pair()
        seen = [[], []]

        def receive(name, mine):
            buffer, batch = bytearray(100), device.batch(8)
            with contextlib.suppress(DeviceGoneError):
                while True:
                    if name == "recv":
                        mine.append(device.recv()[28:])
                    elif name == "recv_into":
                        mine.append(bytes(buffer[28 : device.recv_into(buffer)]))
                    else:
                        device.recv_batch(batch)
                        mine.extend(bytes(packet[28:]) for packet in batch)

        with device, peer:
            threads = [Thread(receive, *each) for each in zip(names, seen, strict=True)]
            batch = peer.batch(16)
            for i in range(0, total, 16):
                batch.fill(
                    [udp(HOST, PEER, 1, 2, struct.pack("!I", j)) for j in range(i, min(i + 16, total))]
                )
                assert peer.send_batch(batch, timeout=PATIENCE) == batch.count
            peer.close()
            for thread in threads:
                assert thread.finish().error is None
        assert sorted(seen[0] + seen[1]) == [struct.pack("!I", i) for i in range(total)]
        assert seen[0] == sorted(seen[0])
        assert seen[1] == sorted(seen[1])

    def test_one_packet_wakes_one_receiver(self):
        device, peer = pair()
        with device, peer:
            threads = [blocked(device.recv) for _ in range(4)]
            peer.send(PACKET)
            deadline = time.monotonic() + PATIENCE
            while all(thread.is_alive() for thread in threads) and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(0.02)
            assert sum(thread.is_alive() for thread in threads) == 3
            device.close()
            results = [thread.finish().result for thread in threads]
            assert results.count(PACKET) == 1

    def test_sending_and_receiving_at_once(self):
        """Four threads on each of two devices; nothing is lost, doubled or mixed up."""
        one, other = pair()
        per_sender = 1500
        seen = {one: [], other: []}
        lock = threading.Lock()

        def send(device, sender):
            for i in range(per_sender):
                device.send(udp(HOST, PEER, 1, 2, struct.pack("!II", sender, i)), timeout=PATIENCE)

        def receive(device):
            batch = device.batch(8)
            while True:
                device.recv_batch(batch)
                with lock:
                    seen[device] += [struct.unpack("!II", bytes(packet[28:])) for packet in batch]

        with one, other:
            receivers = [Thread(receive, device) for device in (one, one, other, other)]
            senders = [Thread(send, device, n) for n, device in enumerate((one, one, other, other))]
            for thread in senders:
                assert thread.finish().error is None
            deadline = time.monotonic() + PATIENCE
            while min(map(len, seen.values())) < 2 * per_sender and time.monotonic() < deadline:
                time.sleep(0.01)
            one.shutdown()
            other.shutdown()
            for thread in receivers:
                thread.fails_with(ClosedError)
        for device, numbers in ((other, (0, 1)), (one, (2, 3))):
            assert sorted(seen[device]) == [(n, i) for n in numbers for i in range(per_sender)]

    def test_a_buffer_in_use_cannot_be_resized(self):
        device, peer = pair()
        with device, peer:
            buffer = bytearray(2000)
            thread = blocked(lambda timeout: device.recv_into(buffer, timeout))
            with pytest.raises(BufferError):
                buffer.clear()
            peer.send(PACKET)
            assert thread.finish().result == len(PACKET)
            assert buffer.startswith(PACKET)
            buffer.clear()

    def test_a_batch_in_use_may_be_forgotten(self):
        device, peer = pair()
        with device, peer:
            thread = blocked(lambda timeout: device.recv_batch(device.batch(4), timeout))
            gc.collect()
            peer.send(PACKET)
            assert thread.finish().result == 1

    def test_other_threads_run_while_one_waits(self, waiting):
        """The wait is without the interpreter's lock."""
        thread = blocked(waiting.call)
        with takes():
            assert sum(range(100_000))
        waiting.device.shutdown()
        thread.fails_with(ClosedError)

    def test_settings_while_a_receiver_is_blocked(self, tun):
        thread = blocked(tun.recv)
        with takes():
            tun.mtu = 1300
            tun.add_address("10.9.0.1/24")
            assert tun.stats.tx_packets == 0
        assert thread.is_alive()
        tun.close()
        thread.fails_with(ClosedError)

    def test_a_rename_while_a_receiver_is_blocked(self, tun):
        thread = blocked(tun.recv)
        with contextlib.suppress(TunTapError):  # some kernels want it down first
            tun.name = "renamed7"
        assert thread.is_alive()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"x", (PEER, 9))
        assert thread.finish().error is None
