"""Soak of everything at once: threads and event loops do to devices, at random, whatever can be done to them.

Eight threads and four loops (asyncio, uvloop, trio and asyncio again) share devices and have their own.
They receive, send, wait, watch and iterate; set time-outs, cancel, interrupt and set events; close, shut
down, delete and reopen; flap links, change settings, add queues.  What must hold:

- nothing hangs: every operation ends in time;
- no packet is wrong: what arrives was sent, is whole, and arrives once; in memory none is lost either;
- what fails does so with an error of `tuntap`, with `TimeoutError` or because it was cancelled;
- descriptors, threads and interfaces end where they began, and memory stays within a bound.

A seed decides what each of them tries, though not when: run a failure's seed again, more than once.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # see run.py

import argparse
import asyncio
import collections
import contextlib
import faulthandler
import random
import socket
import struct
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Awaitable, Callable
from functools import partial
from typing import ClassVar

import trio
import uvloop
from soak import Usage, left_behind

import tuntap
from tuntap import ClosedError, DeviceGoneError, InterruptError, TunTapError, aio, offload, testing

THREADS = 8
LOOPS = ["asyncio", "uvloop", "trio", "asyncio"]
TASKS = 4  # in each loop
PATIENCE = 20.0  # seconds for any operation; none waits for one
BATCH = 16
PORT = 9
TIMEOUTS = [0, 0, 0.0001, 0.001, 0.01, 0.05]
HEADS = [20, 100, 1000]  # bytes of the first of two buffers


class WrongPacketError(Exception):
    """A packet that nobody sent, that is not whole, or that arrived before."""


class Ledger:
    """What was sent one way, and what of it has arrived.  A packet is made of its sender and its number."""

    HEAD = struct.Struct("!HI")
    FILLER = random.Random(1).randbytes(1024)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = [0] * (THREADS + len(LOOPS) * TASKS)
        self._arrived = [bytearray() for _ in self._numbers]  # a bit for each number
        self.arrivals = 0

    @classmethod
    def payload(cls, sender: int, number: int) -> bytes:
        """As long as its neighbours, so that they coalesce."""
        size = number // BATCH * 7919 % 400
        return cls.HEAD.pack(sender, number) + cls.FILLER[number % 512 :][:size]

    def next(self, sender: int) -> bytes:
        number = self._numbers[sender]
        self._numbers[sender] += 1
        return self.payload(sender, number)

    def check(self, payload: bytes) -> None:
        sender, number = self.HEAD.unpack_from(payload)
        if sender >= len(self._numbers) or number >= self._numbers[sender]:
            raise WrongPacketError(f"packet {number} of {sender} was never sent")
        if payload != self.payload(sender, number):
            raise WrongPacketError(f"packet {number} of {sender} is {payload.hex()}")
        with self._lock:
            arrived = self._arrived[sender]
            arrived.extend(bytes(max(0, number // 8 + 1 - len(arrived))))
            if arrived[number // 8] >> number % 8 & 1:
                raise WrongPacketError(f"packet {number} of {sender} arrived twice")
            arrived[number // 8] |= 1 << number % 8
            self.arrivals += 1


class Slot:
    """Where a device is open most of the time: its users open it anew."""

    def __init__(self, name: str, subnet: int, kind: type[tuntap.Tun], **settings: object) -> None:
        self.name = name
        self.host, self.peer = f"10.{subnet}.0.1", f"10.{subnet}.0.2"
        self._kind, self._settings = kind, settings
        self._lock = threading.Lock()
        self._device: tuntap.Tun | None = None

    def use(self) -> tuntap.Tun:
        with self._lock:
            if self._device is None or self._device.closed:
                self._device = self._kind(
                    self.name, addresses=[f"{self.host}/24"], quiet=True, up=True, **self._settings
                )
            return self._device

    def close(self) -> None:
        device = self._device
        if device is not None:
            device.close()


class Soak:
    """What all have in common."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.is_over = False
        self.failure: str | None = None
        self.fed, self.sent = Ledger(), Ledger()  # from the kernel to devices, and back
        self.done: collections.Counter[str] = collections.Counter()
        self.errors: collections.Counter[str] = collections.Counter()
        self.events = [tuntap.Event() for _ in range(3)]
        offloading = {"multi_queue": True, "offload": True}
        self.blocking = [
            Slot("soak0", 10, tuntap.Tun),
            Slot("soak1", 11, tuntap.Tun, **offloading),
        ]
        self.asynchronous = [
            Slot("soak2", 12, aio.Tun),
            Slot("soak3", 13, aio.Tun, **offloading),
        ]
        self.workers: list[Worker] = []

    def fail(self, where: str, error: BaseException | None) -> None:
        """Once is enough."""
        if self.failure is None:
            shown = "".join(traceback.format_exception(error)) if error else ""
            self.failure = f"{where}\n{shown}"
        self.is_over = True

    def check(self, packet: bytes) -> None:
        """Of what a device received."""
        if packet[0] != 0x45 or int.from_bytes(packet[2:4], "big") != len(packet):
            raise WrongPacketError(f"no whole IPv4 packet: {packet.hex()}")
        if offload.checksum(packet[:20]):
            raise WrongPacketError(f"wrong IP checksum: {packet.hex()}")
        if packet[9] != socket.IPPROTO_UDP:
            # The kernel answers a packet that came when its address had just gone.
            if packet[9] != socket.IPPROTO_ICMP or packet[20] != 3:
                raise WrongPacketError(f"neither UDP nor unreachable: {packet.hex()}")
            return
        pseudo_header = sum(struct.unpack("!4H", packet[12:20])) + socket.IPPROTO_UDP + len(packet) - 20
        if offload.checksum(packet[20:], pseudo_header):
            raise WrongPacketError(f"wrong UDP checksum: {packet.hex()}")
        self.fed.check(packet[28:])

    def drain(self, sink: socket.socket) -> None:
        """What devices sent arrives here."""
        while True:
            try:
                self.sent.check(sink.recv(2048))
            except TimeoutError:
                if self.is_over:
                    return
            except Exception as error:
                self.fail("of what devices sent", error)


class Worker:
    """One thread, or one task, that does one thing after the other."""

    # How often each is done: by a method of this name, or NAME_now if threads and loops do the same.
    SHARES: ClassVar = {
        "receive": 10, "send": 8, "feed": 8, "wait": 2, "interrupt": 2, "watch": 2, "flap": 1, "configure": 1,
        "extra_queue": 1, "lossless": 0.3, "ended": 1, "close": 0.4, "shut_down": 0.2, "delete": 0.2,
    }  # fmt: skip

    def __init__(self, soak: Soak, number: int, kind: type[tuntap.Tun], shared: list[Slot]) -> None:
        self.soak = soak
        self.number = number
        self.random = random.Random(f"{soak.seed} {number}")
        self.shared = [*shared, Slot(f"own{number}", 100 + number, kind, multi_queue=True)]
        self.any = [*soak.blocking, *soak.asynchronous, self.shared[-1]]
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.doing: tuple[str, float] | None = None
        soak.workers.append(self)

    def pick(self) -> tuple[str, Slot]:
        (what,) = self.random.choices(list(self.SHARES), list(self.SHARES.values()))
        slot = self.random.choice(self.shared)
        self.doing = f"worker {self.number}: {what} on {slot.name}", time.monotonic()
        self.soak.done[what] += 1
        return what, slot

    def note(self, error: Exception, slot: Slot) -> None:
        """Of what may happen to an operation."""
        what = (error.strerror or str(error)).partition(";")[0]
        self.soak.errors[f"{type(error).__name__}: {what}"] += 1
        if isinstance(error, (ClosedError, DeviceGoneError)):
            slot.close()

    def leave(self) -> None:
        self.doing = None
        self.shared[-1].close()
        self.socket.close()

    def timeout(self) -> float:
        return self.random.choice(TIMEOUTS)

    def packets(self, slot: Slot, count: int) -> list[bytes]:
        """To be sent by a device."""
        payloads = [self.soak.sent.next(self.number) for _ in range(count)]
        return [testing.udp(slot.peer, slot.host, 1, PORT, payload) for payload in payloads]

    def filled(self, slot: Slot, device: tuntap.Tun) -> tuntap.PacketBatch:
        batch = device.batch(BATCH)
        batch.fill(self.packets(slot, self.random.randint(1, BATCH)))
        return batch

    def check_batch(self, batch: tuntap.PacketBatch) -> None:
        for packet in batch:
            self.soak.check(packet.tobytes())

    # What is the same for both.

    def feed_now(self, slot: Slot | None = None) -> None:
        slot = slot or self.random.choice(self.any)
        for _ in range(self.random.randint(1, 2 * BATCH)):
            with contextlib.suppress(OSError):  # the interface is not there, or down
                self.socket.sendto(self.soak.fed.next(self.number), (slot.peer, PORT))

    def interrupt_now(self) -> None:
        self.random.choice(self.any).use().interrupt()
        event = self.random.choice(self.soak.events)
        event.clear() if event.is_set() else event.set(self.random.randint(1, 9))

    def flap_now(self) -> None:
        device = self.random.choice(self.any).use()
        if self.random.random() < 0.5:
            device.down()
            device.up()
        else:
            device.carrier = False
            device.carrier = True

    def configure_now(self) -> None:
        slot = self.random.choice(self.any)
        device = slot.use()
        # Less would switch IPv6 off and, when it comes again, bring link-local addresses along.
        device.mtu = self.random.choice([1280, 1400, 1500])
        address = f"10.99.{self.number}.1/24"
        device.add_address(address)
        device.remove_address(address)
        if device.mtu < 1280 or f"{slot.host}/24" not in map(str, device.addresses):
            raise RuntimeError(f"{device.mtu}, {device.addresses}")

    def close_now(self) -> None:
        self.random.choice(self.any).close()

    def shut_down_now(self) -> None:
        self.random.choice(self.any).use().shutdown()

    def delete_now(self) -> None:
        tuntap.delete(self.random.choice(self.any).name)

    def end(self, device: tuntap.Tun, *once: Callable[[], object]) -> tuple[threading.Thread, bool]:
        """A thread that ends, in a moment, calls that wait for ever; whether it ends more than one."""
        lasting = [device.shutdown, device.close, lambda: tuntap.delete(self.shared[-1].name)]
        chosen, seconds = self.random.choice([*lasting, device.interrupt, *once]), self.timeout()

        def run() -> None:
            self.feed_now(self.shared[-1])
            time.sleep(seconds)
            with contextlib.suppress(TunTapError):  # the device is gone: no need to end it
                chosen()

        thread = threading.Thread(target=run)
        thread.start()
        return thread, chosen in lasting

    def lossless_packets(self) -> list[bytes]:
        return [
            testing.udp("10.0.0.1", "10.0.0.2", 1, 2, bytes([i])) for i in range(self.random.randint(1, 40))
        ]


class Blocking(Worker):
    """A thread with devices that block."""

    def __init__(self, soak: Soak, number: int) -> None:
        super().__init__(soak, number, tuntap.Tun, soak.blocking)

    def run(self) -> None:
        while not self.soak.is_over:
            what, slot = self.pick()
            try:
                method = getattr(self, what, None)
                method(slot) if method else getattr(self, f"{what}_now")()
            except (TunTapError, TimeoutError) as error:
                self.note(error, slot)
            except BaseException as error:
                self.soak.fail(self.doing[0], error)
        self.leave()

    def event(self) -> tuntap.Event | None:
        return self.random.choice([*self.soak.events, None, None])

    def port(self, slot: Slot) -> tuntap.Tun:
        return self.random.choice(slot.use().queues)

    def receive(self, slot: Slot) -> None:
        device, how = self.port(slot), {"timeout": self.timeout(), "event": self.event()}
        way = self.random.randrange(4)
        if way == 0:
            self.soak.check(device.recv(**how))
        elif way == 1:
            buffer = bytearray(2048)
            self.soak.check(bytes(buffer[: device.recv_into(buffer, **how)]))
        elif way == 2:
            parts = [bytearray(self.random.choice(HEADS)), bytearray(2048)]
            size = device.recv_vectored(parts, **how)
            self.soak.check(b"".join(parts)[:size])
        else:
            batch = device.batch(BATCH)
            device.recv_batch(batch, **how)
            self.check_batch(batch)

    def send(self, slot: Slot) -> None:
        device, how = self.port(slot), {"timeout": self.timeout(), "event": self.event()}
        way = self.random.randrange(3)
        if way == 0:
            device.send(*self.packets(slot, 1), **how)
        elif way == 1:
            (packet,) = self.packets(slot, 1)
            device.send_vectored([packet[:20], packet[20:]], **how)
        else:
            device.send_batch(self.filled(slot, device), **how)

    def wait(self, slot: Slot) -> None:
        device = self.port(slot)
        call = self.random.choice([device.wait_readable, device.wait_writable])
        call(self.timeout(), event=self.event())

    def watch(self, slot: Slot) -> None:
        events = slot.use().events()
        for _ in range(self.random.randint(1, 5)):
            events.get(self.timeout())

    def extra_queue(self, slot: Slot) -> None:
        device = slot.use()
        with contextlib.closing(device.add_queue()) as queue:
            queue.detach()
            queue.attach()
            queue.send(*self.packets(slot, 1))
            self.soak.check(queue.recv(self.timeout(), event=self.event()))

    def ended(self, slot: Slot) -> None:
        """A call without a time-out."""
        device, event = self.shared[-1].use(), tuntap.Event()
        batch = device.batch(BATCH)
        calls = [lambda: device.recv(event=event), lambda: device.recv_batch(batch, event=event)]
        if self.random.random() < 0.3:
            call, (ender, _) = device.events().get, self.end(device)
        else:
            call, (ender, _) = self.random.choice(calls), self.end(device, event.set)
        try:
            while True:
                call()
        finally:
            ender.join()

    def lossless(self, slot: Slot) -> None:
        """Time-outs, interrupts and events lose nothing."""
        packets, received, event = self.lossless_packets(), [], tuntap.Event()
        one, other = testing.pair()

        def send() -> None:
            for packet in packets:
                one.send(packet)
                one.interrupt()
                other.interrupt()
                event.set()
                event.clear()

        sender = threading.Thread(target=send)
        with one, other:
            sender.start()
            deadline = time.monotonic() + PATIENCE
            while len(received) < len(packets) and time.monotonic() < deadline:
                with contextlib.suppress(TimeoutError, InterruptError):
                    received.append(other.recv(self.timeout(), event=event))
            sender.join()
        if received != packets:
            raise WrongPacketError(f"{len(packets)} packets, {len(received)} received or not in order")


class Endpoint(asyncio.DatagramProtocol):
    """Takes what its transport receives."""

    def __init__(self, soak: Soak) -> None:
        self.soak = soak
        self.lost = asyncio.Event()

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.soak.check(data)

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.set()


class Task(Worker):
    """A task of a loop, with asynchronous devices."""

    SHARES: ClassVar = {**Worker.SHARES, "iterate": 1, "endpoint": 0.3}

    def __init__(self, soak: Soak, number: int, loop: str) -> None:
        super().__init__(soak, number, aio.Tun, soak.asynchronous)
        self.is_trio = loop == "trio"
        self.is_leaving = False

    async def run(self) -> None:
        self.is_leaving = False
        try:
            while not self.soak.is_over and not self.is_leaving:
                what, slot = self.pick()
                try:
                    method = getattr(self, what, None)
                    if method:
                        await method(slot)
                    else:
                        getattr(self, f"{what}_now")()
                except (TunTapError, TimeoutError) as error:
                    self.note(error, slot)
                except Exception as error:
                    self.soak.fail(self.doing[0], error)
                await self.pause(self.random.choice([0, 0, 0.001]))
        finally:
            self.doing = None

    async def pause(self, seconds: float) -> None:
        await (trio if self.is_trio else asyncio).sleep(seconds)

    async def cut(self, call: Awaitable) -> object:
        """Cancel it after a moment, or let it have its own time-out; None if it was cancelled."""
        seconds = self.random.choice(TIMEOUTS)
        if self.is_trio:
            with trio.move_on_after(seconds):
                return await call
        else:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    return await call
        return None

    async def together(self, *calls: Callable[[], Awaitable[None]]) -> None:
        if self.is_trio:
            async with trio.open_nursery() as nursery:
                for call in calls:
                    nursery.start_soon(call)
        else:
            async with asyncio.TaskGroup() as group:
                for call in calls:
                    group.create_task(call())

    def limit(self) -> float | None:
        """Of an operation that is cancelled some time anyway."""
        return self.random.choice([None, None, *TIMEOUTS])

    def port(self, slot: Slot) -> aio.Tun:
        return self.random.choice(slot.use().queues)

    async def receive(self, slot: Slot) -> None:
        device, timeout = self.port(slot), self.limit()
        way = self.random.randrange(4)
        if way == 0:
            packet = await self.cut(device.recv(timeout))
            if packet is not None:
                self.soak.check(packet)
        elif way == 1:
            buffer = bytearray(2048)
            size = await self.cut(device.recv_into(buffer, timeout))
            if size is not None:
                self.soak.check(bytes(buffer[:size]))
        elif way == 2:
            parts = [bytearray(self.random.choice(HEADS)), bytearray(2048)]
            size = await self.cut(device.recv_vectored(parts, timeout))
            if size is not None:
                self.soak.check(b"".join(parts)[:size])
        else:
            batch = device.batch(BATCH)
            if await self.cut(device.recv_batch(batch, timeout)) is not None:
                self.check_batch(batch)

    async def send(self, slot: Slot) -> None:
        device, timeout = self.port(slot), self.limit()
        way = self.random.randrange(3)
        if way == 0:
            await self.cut(device.send(*self.packets(slot, 1), timeout))
        elif way == 1:
            (packet,) = self.packets(slot, 1)
            await self.cut(device.send_vectored([packet[:20], packet[20:]], timeout))
        else:
            await self.cut(device.send_batch(self.filled(slot, device), timeout))

    async def wait(self, slot: Slot) -> None:
        device = self.port(slot)
        call = self.random.choice([device.wait_readable, device.wait_writable])
        await self.cut(call(self.limit()))

    async def watch(self, slot: Slot) -> None:
        events = slot.use().events()
        for _ in range(self.random.randint(1, 5)):
            await self.cut(events.get(self.limit()))

    async def iterate(self, slot: Slot) -> None:
        async def packets() -> None:
            async for packet in slot.use():
                self.soak.check(packet)

        async def events() -> None:
            async for _ in slot.use().events():
                pass

        await self.cut(self.random.choice([packets, events])())

    async def extra_queue(self, slot: Slot) -> None:
        async with slot.use().add_queue() as queue:
            await queue.send(*self.packets(slot, 1), self.timeout())
            packet = await self.cut(queue.recv(self.limit()))
            if packet is not None:
                self.soak.check(packet)

    async def endpoint(self, slot: Slot) -> None:
        if self.is_trio:
            return
        slot = self.shared[-1]
        transport, protocol = await aio.create_tun_endpoint(lambda: Endpoint(self.soak), device=slot.use())
        try:
            for packet in self.packets(slot, BATCH):
                transport.sendto(packet)
            await self.pause(self.timeout())
            self.random.choice([transport.close, transport.abort, slot.close])()
            await protocol.lost.wait()
        finally:
            transport.abort()

    async def ended(self, slot: Slot) -> None:
        """Calls without a time-out, ended from another thread."""
        device = self.shared[-1].use()
        batch = device.batch(BATCH)
        calls = [lambda: device.recv, lambda: partial(device.recv_batch, batch), lambda: device.events().get]

        async def wait() -> None:
            with contextlib.suppress(TunTapError):
                call = self.random.choice(calls)()
                while True:
                    await call()

        ender, are_more = self.end(device)
        try:
            await self.together(*[wait] * (3 if are_more else 1))
        finally:
            ender.join()

    async def lossless(self, slot: Slot) -> None:
        """Cancellation, time-outs and interrupts lose nothing; a thread has the other end."""
        packets, received = self.lossless_packets(), []
        ends = [end.detach() for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)]
        other, device = tuntap.Tun.from_fd(ends[0]), aio.Tun.from_fd(ends[1])
        sends = self.random.random() < 0.5

        def at_the_other_end() -> None:
            with contextlib.suppress(ClosedError):
                for packet in packets:
                    if sends:
                        received.append(other.recv())
                    else:
                        other.send(packet)
                    device.interrupt()

        thread = threading.Thread(target=at_the_other_end)
        async with device:
            with other:
                thread.start()
                try:
                    await (
                        self.send_all(device, packets)
                        if sends
                        else self.receive_all(device, packets, received)
                    )
                except BaseException:
                    other.shutdown()
                    raise
                finally:
                    thread.join()
        if received != packets:
            raise WrongPacketError(f"{len(packets)} packets, {len(received)} received or not in order")

    async def send_all(self, device: aio.Tun, packets: list[bytes]) -> None:
        for packet in packets:
            sent = None
            while not sent:
                with contextlib.suppress(TimeoutError, InterruptError):
                    sent = await self.cut(device.send(packet, self.limit()))

    async def receive_all(self, device: aio.Tun, packets: list[bytes], received: list[bytes]) -> None:
        batch = device.batch(4)
        while len(received) < len(packets):
            with contextlib.suppress(TimeoutError, InterruptError):
                if self.random.random() < 0.5:
                    packet = await self.cut(device.recv(self.limit()))
                    received += [packet] if packet else []
                else:
                    count = await self.cut(device.recv_batch(batch, self.limit()))
                    received += [packet.tobytes() for packet in batch] if count else []


class Loop:
    """A thread with a loop, which ends now and then with all its tasks, and starts anew."""

    RUNNERS: ClassVar = {"asyncio": asyncio.run, "uvloop": uvloop.run}

    def __init__(self, soak: Soak, number: int, kind: str) -> None:
        self.soak = soak
        self.kind = kind
        self.random = random.Random(f"{soak.seed} loop {number}")
        first = THREADS + number * TASKS
        self.tasks = [Task(soak, first + i, kind) for i in range(TASKS)]

    def run(self) -> None:
        while not self.soak.is_over:
            seconds = self.random.uniform(0.1, 2)
            try:
                if self.kind == "trio":
                    trio.run(self.in_trio, seconds)
                else:
                    self.RUNNERS[self.kind](self.in_asyncio(seconds))
            except BaseException as error:
                self.soak.fail(f"a run of {self.kind}", error)
        for task in self.tasks:
            task.leave()

    async def in_asyncio(self, seconds: float) -> None:
        def fail(loop: asyncio.AbstractEventLoop, context: dict) -> None:
            self.soak.fail(f"{self.kind}: {context}", context.get("exception"))

        asyncio.get_running_loop().set_exception_handler(fail)
        tasks = [asyncio.create_task(task.run()) for task in self.tasks]
        await asyncio.wait(tasks, timeout=seconds)
        if self.may_finish():
            await asyncio.wait(tasks)  # otherwise the end of the loop cancels them

    async def in_trio(self, seconds: float) -> None:
        async with trio.open_nursery() as nursery:
            for task in self.tasks:
                nursery.start_soon(task.run)
            await trio.sleep(seconds)
            if not self.may_finish():
                nursery.cancel_scope.cancel()

    def may_finish(self) -> bool:
        """Half the times its tasks finish what they do, where a hang shows, and else they are cancelled."""
        finish = self.random.random() < 0.5
        for task in self.tasks:
            task.is_leaving = finish
        return finish


def soak(seed: int, seconds: float) -> Soak:
    """Let them all loose for so long."""
    soak = Soak(seed)
    sys.unraisablehook = lambda raised: soak.fail(f"{raised.err_msg}: {raised.object!r}", raised.exc_value)
    threading.excepthook = lambda raised: soak.fail(f"{raised.thread}", raised.exc_value)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
        sink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        sink.settimeout(0.1)
        sink.bind(("0.0.0.0", PORT))
        drain = threading.Thread(target=soak.drain, args=[sink], daemon=True)
        runs = [Blocking(soak, number).run for number in range(THREADS)]
        runs += [Loop(soak, number, kind).run for number, kind in enumerate(LOOPS)]
        threads = [threading.Thread(target=run, daemon=True) for run in runs]
        for thread in [drain, *threads]:
            thread.start()
        end = time.monotonic() + seconds
        while any(thread.is_alive() for thread in threads):
            soak.is_over |= time.monotonic() > end
            time.sleep(0.05)
            watch(soak)
        drain.join()
    faulthandler.cancel_dump_traceback_later()
    for slot in [*soak.blocking, *soak.asynchronous]:
        slot.close()
    soak.events.clear()
    sys.unraisablehook, threading.excepthook = sys.__unraisablehook__, threading.__excepthook__
    return soak


def watch(soak: Soak) -> None:
    """End the process with all tracebacks if somebody hangs."""
    # Should this thread not run any more.
    faulthandler.dump_traceback_later(2 * PATIENCE, exit=True)
    for worker in soak.workers:
        doing = worker.doing
        if doing and time.monotonic() - doing[1] > PATIENCE:
            print(f"seed {soak.seed}: hangs: {doing[0]}", soak.failure or "", file=sys.stderr, flush=True)
            faulthandler.dump_traceback()
            os._exit(1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600, help="for so long (%(default)s)")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="of a run to be repeated")
    parser.add_argument(
        "--bound", type=int, default=8192, metavar="KIB",
        help="resident memory may grow by this much after the first fifth (%(default)s)",
    )  # fmt: skip
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)

    warnings.simplefilter("error")
    testing.private_network()
    # A warm-up first: caches and arenas fill once.
    ran = [soak(options.seed, options.seconds / 5)]
    before = Usage.now()
    if not ran[0].failure:
        ran.append(soak(options.seed + 1, options.seconds * 4 / 5))
    after = Usage.now()

    errors = sum((each.errors for each in ran), collections.Counter())
    for error, count in errors.most_common():
        print(f"  {count:>8,}  {error}")
    operations = sum(sum(each.done.values()) for each in ran)
    received, sent = (sum(getattr(each, way).arrivals for each in ran) for way in ("fed", "sent"))
    print(f"{operations:,} operations, with the errors above; {received:,} packets received, {sent:,} sent")
    failed = left_behind(before, after, options.bound)
    if ran[-1].failure:
        print(f"FAILED, seed {options.seed}: {ran[-1].failure}")
        failed = True
    return failed


if __name__ == "__main__":
    sys.exit(main())
