"""Many threads on one device, whatever they call.  A free-threaded Python has no lock that hides a race."""

import asyncio
import contextlib
import random
import struct
import subprocess
import sys
import sysconfig
import threading
import time
import types

import pytest
import trio
from threads import PATIENCE, CallThread

from tuntap import ClosedError, Event, InterruptError, PacketBatch, Tun, TunTapError, aio
from tuntap.testing import pair, tcp, udp

SECONDS = 0.3  # of each stress
HOST, PEER = "10.8.0.1", "10.8.0.2"
PACKET = udp(HOST, PEER, 1, 2, b"x" * 100)
SEGMENTS = [tcp(HOST, PEER, 1, 2, b"y" * 500, seq=500 * i) for i in range(8)]


def ends(*threads):
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive(), "a call hangs"
        if thread.error is not None:
            raise thread.error


class Stress:
    """Calls functions over and over, each in a thread of its own; what a device may raise is no failure."""

    def __init__(self, *functions):
        self.is_over = False
        self.all_are_there = threading.Event()
        self.threads = [CallThread(self.repeat, function) for function in functions]
        self.all_are_there.set()

    def repeat(self, function):
        self.all_are_there.wait(PATIENCE)
        while not self.is_over:
            with contextlib.suppress(TunTapError, TimeoutError):
                function()

    def end(self):
        self.is_over = True
        ends(*self.threads)


MOVING = 9  # of `calls`: the first, which move packets


def calls(device, event, offload):
    """Every kind of call, as functions that do not wait for long."""
    own, full, buffer = device.batch(8), device.batch(8), bytearray(2000)
    shared = device.batch(8)  # by a receiver and a sender: its packets are anything, the memory stays whole
    full.fill(SEGMENTS)

    def receive_batch():
        device.recv_batch(own, 0.002)
        assert 1 <= own.count <= 8
        assert all(20 <= len(packet) <= 1500 for packet in own)

    def receive_shared():
        device.recv_batch(shared, 0.002)
        assert len(shared.truncated) <= 8

    def send_shared():
        shared.fill([PACKET])
        device.send_batch(shared, 0.002)

    def set_event():
        event.set(random.randint(1, 9))
        event.clear()
        assert not repr(event).endswith("set to 0>")
        time.sleep(0.001)

    def interrupt():
        device.interrupt()
        time.sleep(0.001)

    def look():
        assert 0 <= device.pending < 1000
        assert 1300 <= device.mtu <= 1500
        assert device.name
        assert "Tun" in repr(device)
        assert device.stats.tx_bytes >= 0
        assert device.fileno() >= -1

    def configure():
        device.mtu = random.randint(1300, 1500)
        device.add_address("10.9.0.1/24")
        device.remove_address("10.9.0.1/24")

    def watch():
        events = device.events()
        for _ in range(20):
            events.get(0.002)

    def wait():
        device.wait_readable(0.002, event=event)
        device.wait_writable(0.002, event=event)

    def switch_offload():
        device.offload = {"checksum", "tcp4"}
        device.offload = {"checksum", "tcp4", "tcp6"}

    return [
        lambda: device.recv(0.002, event=event), lambda: device.recv_into(buffer, 0.002),
        lambda: device.recv_vectored([bytearray(20), bytearray(2000)], 0.002), receive_batch, receive_shared,
        lambda: device.send(PACKET, 0.002, event=event), lambda: device.send_batch(full, 0.002), send_shared,
        lambda: device.send_vectored([PACKET[:20], PACKET[20:]], 0.002),
        set_event, interrupt, look, configure, watch, wait, *[switch_offload] * bool(offload),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("offload", "end"), [(False, "close"), (True, "shutdown"), (True, "close"), ("superpackets", "close")]
)
def test_every_call_at_once_on_devices_in_memory(offload, end):
    event = Event()
    devices = pair(offload=offload)
    stress = Stress(*calls(devices[0], event, offload), *calls(devices[1], event, offload)[:MOVING])
    time.sleep(SECONDS)
    getattr(devices[0], end)()
    ends(*[CallThread(device.close) for device in devices for _ in range(2)])
    stress.end()
    assert all(device.closed for device in devices)


@pytest.mark.parametrize("offload", [False, True])
def test_every_call_at_once_on_a_real_device(net, offload):
    event = Event()
    with Tun(addresses=[f"{HOST}/24"], quiet=True, offload=offload, multi_queue=True) as tun:

        def add_queue():
            queue = tun.add_queue()
            with contextlib.suppress(TimeoutError):
                queue.recv(timeout=0)
            queue.close()
            assert queue not in tun.queues

        stress = Stress(*calls(tun, event, offload), add_queue, add_queue)
        time.sleep(SECONDS)
        ends(CallThread(tun.close), CallThread(tun.close))
        stress.end()


def test_every_packet_arrives_once_whatever_comes_between():
    """Interrupts and events end calls, but lose and double nothing."""
    senders, per_sender = 4, 400
    device, peer = pair(offload=True)
    event, seen, is_over = Event(), [], False

    def again(call, *arguments):
        """A call that something ended goes on."""
        while not is_over:
            with contextlib.suppress(InterruptError):
                return call(*arguments, 0.05, event=event)
        return None

    def send(number):
        for i in range(per_sender):
            again(device.send, udp(HOST, PEER, number, 2, struct.pack("!II", number, i)))

    def send_batches(number):
        batch = device.batch(8)
        for i in range(0, per_sender, 8):
            batch.fill([udp(HOST, PEER, number, 2, struct.pack("!II", number, i + j)) for j in range(8)])
            sent = 0
            while sent < 8:
                with contextlib.suppress(InterruptError):
                    sent += device.send_batch(batch, PATIENCE, start=sent, event=event)

    def receive(take):
        while not is_over:
            with contextlib.suppress(TimeoutError):
                seen.extend(struct.unpack("!II", packet[28:]) for packet in again(take) or ())

    def one(timeout, event):
        return [peer.recv(timeout, event=event)]

    def batches(timeout, event):
        batch = peer.batch(8)
        peer.recv_batch(batch, timeout, event=event)
        return [bytes(packet) for packet in batch]

    with device, peer:
        receivers = [CallThread(receive, take) for take in (one, one, batches, batches)]
        sending = [CallThread((send, send_batches)[n % 2], n) for n in range(senders)]
        deadline = time.monotonic() + PATIENCE
        while len(seen) < senders * per_sender and time.monotonic() < deadline:
            event.set()
            device.interrupt()
            peer.interrupt()
            event.clear()
            time.sleep(0.001)
        ends(*sending)
        is_over = True
        peer.interrupt()
        ends(*receivers)
    assert sorted(seen) == [(n, i) for n in range(senders) for i in range(per_sender)]


def test_an_interrupt_is_no_readiness():
    """The wake-up stays until all waiters have seen it: who waits anew meanwhile is not served by it."""
    device, peer = pair()
    ready = []

    def wait():
        device.wait_readable(0.05)
        ready.append(1)

    with device, peer:
        stress = Stress(wait, wait, wait)
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            device.interrupt()
            time.sleep(0.0002)
        stress.end()
    assert not ready


async def from_task(device, is_over):
    """What tasks of several loops do at once."""
    own, full = PacketBatch(8, 2000), PacketBatch(8, 2000)
    full.fill(SEGMENTS)
    while not is_over():
        for call in (
            lambda: device.recv(0.002), lambda: device.send(PACKET, 0.002),
            lambda: device.recv_batch(own, 0.002), lambda: device.send_batch(full, 0.002),
            lambda: device.wait_readable(0.002), lambda: device.events().get(0.002),
        ):  # fmt: skip
            with contextlib.suppress(TunTapError, TimeoutError):
                await call()


def run_asyncio(*devices_and_over):
    async def main():
        await asyncio.gather(*[from_task(*devices_and_over) for _ in range(3)])

    asyncio.run(main())


def run_trio(*devices_and_over):
    async def main():
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(from_task, *devices_and_over)

    trio.run(main)


@pytest.mark.parametrize("offload", [False, True])
def test_several_loops_on_one_device(offload):
    devices = pair(aio.Tun, offload=offload)
    end = time.monotonic() + SECONDS

    def is_over():
        return time.monotonic() > end

    loops = [
        CallThread(run, device, is_over) for device in devices for run in (run_asyncio, run_asyncio, run_trio)
    ]
    while not is_over():
        for device in devices:
            device.interrupt()
            device.mtu = random.randint(1300, 1500)
        time.sleep(0.002)
    ends(*[CallThread(device.close) for device in devices for _ in range(2)])
    ends(*loops)


class TestTheMomentATaskBeginsToWait:
    """It is a waiter already, but its loop does not look yet: whatever ends waits must find it."""

    ENDS = pytest.mark.parametrize(
        ("end", "kind"), [("interrupt", InterruptError), ("shutdown", ClosedError), ("close", ClosedError)]
    )

    @ENDS
    def test_of_asyncio(self, end, kind):
        device, peer = pair(aio.Tun)

        class Loop(asyncio.SelectorEventLoop):
            def add_reader(self, fd, *arguments):
                super().add_reader(fd, *arguments)
                if fd == device.fileno():
                    ends(CallThread(getattr(device, end)))

        with device, peer, asyncio.Runner(loop_factory=Loop) as runner, pytest.raises(kind):
            runner.run(asyncio.wait_for(device.recv(), PATIENCE))

    @ENDS
    def test_of_trio(self, end, kind, monkeypatch):
        device, peer = pair(aio.Tun)
        begin = device._begin_wait

        def begin_and_end(path):
            interrupts = begin(path)
            ends(CallThread(getattr(device, end)))
            return interrupts

        async def main():
            with trio.fail_after(PATIENCE):
                await device.recv()

        monkeypatch.setattr(device, "_begin_wait", begin_and_end)
        with device, peer, pytest.raises(kind):
            trio.run(main)


def test_a_task_while_another_thread_imports_trio(monkeypatch):
    monkeypatch.setitem(sys.modules, "trio", types.ModuleType("trio"))
    device, peer = pair(aio.Tun)
    with device, peer:
        peer.interrupt()

        async def main():
            await peer.send(PACKET)
            return await device.recv()

        assert asyncio.run(main()) == PACKET


class TestSettingsInMemory:
    def test_packets_of_many_threads_are_counted(self):
        device, peer = pair()

        def send():
            for _ in range(1500):
                device.send(PACKET)

        def receive():
            while True:
                peer.recv_batch(peer.batch(4))

        with device, peer:
            receivers = [CallThread(receive) for _ in range(3)]
            ends(*[CallThread(send) for _ in range(4)])
            deadline = time.monotonic() + PATIENCE
            while peer.stats.tx_packets < 6000 and time.monotonic() < deadline:
                time.sleep(0.001)
            assert device.stats.rx_packets == peer.stats.tx_packets == 6000
            assert device.stats.rx_bytes == peer.stats.tx_bytes == 6000 * len(PACKET)
            peer.shutdown()
            for thread in receivers:
                with pytest.raises(ClosedError):
                    ends(thread)

    def test_one_of_many_threads_adds_an_address(self):
        device, peer = pair()
        together = threading.Barrier(4)
        added = []

        def add():
            for i in range(250):
                together.wait(PATIENCE)
                with contextlib.suppress(TunTapError):
                    device.add_address(f"10.9.{i}.1/24")
                    added.append(i)

        with device, peer:
            ends(*[CallThread(add) for _ in range(4)])
            assert len(device.addresses) == 250
        assert sorted(added) == list(range(250))

    def test_the_last_event_is_how_the_interface_is(self):
        device, peer = pair()

        def change():
            for _ in range(200):
                device.mtu = random.randint(68, 1500)

        def come_and_go():
            for _ in range(200):
                device.events()

        with device, peer:
            events = device.events()
            threads = [CallThread(function) for function in (change, change, come_and_go, come_and_go)]
            mtu = device.mtu
            while any(thread.is_alive() for thread in threads):
                with contextlib.suppress(TimeoutError):
                    mtu = events.get(0.001).value
            ends(*threads)
            with contextlib.suppress(TimeoutError):
                while True:
                    mtu = events.get(0).value
            assert mtu == device.mtu


@pytest.mark.parametrize("module", ["tuntap", "tuntap.aio", "tuntap.offload", "tuntap.testing"])
def test_the_import_leaves_the_gil_off(module):
    is_free = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
    code = f"import {module}, sys; sys.exit({is_free} and sys._is_gil_enabled())"
    run = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
