"""Random and hostile input for everything that takes bytes or arguments, for a bounded time.

    python tests/fuzz.py --seconds 60 [--seed 1] [--case 17]

Every case is made from the seed and its number alone; a failure prints both, and `--case` runs that
one again.  What counts as a failure: an exception that is not documented, packets that differ from
what was sent, a byte changed outside the slots, a call that does not end, a crash (best seen under
tools/sanitize.sh).
"""

import argparse
import array
import contextlib
import ctypes
import faulthandler
import fcntl
import functools
import gc
import os
import random
import socket
import struct
import sys
import threading
import time
import traceback
import warnings
from collections import deque
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent / "kernels"))

import build_harness
import twins
from flows import renumbered

import tuntap
from tuntap import bpf, offload, testing

HANG = 60  # seconds after which a case is one that hangs
GUARD = 0xA5
ENDS = (tuntap.ClosedError, tuntap.InterruptError, tuntap.DeviceGoneError)


class Wrong(AssertionError):
    """An invariant does not hold."""


def check(holds, *what):
    if not holds:
        raise Wrong(*what)


class HostileIndex:
    """An integer that changes its mind, or refuses."""

    def __init__(self, rng):
        self.values = [rng.choice([0, 1, 64, 2**31, -1]) for _ in range(3)]

    def __index__(self):
        if not self.values:
            raise ValueError("no more values")
        return self.values.pop()


def odd_number(rng):
    return rng.choice(
        [
            lambda: rng.randint(-3, 70),
            lambda: rng.choice([2**15, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64, -(2**31), -(2**63)]),
            lambda: rng.choice([None, True, 1.5, "3", b"3", [], float("nan"), 10**400]),
            lambda: np.int64(rng.randint(-3, 70)),
            lambda: HostileIndex(rng),
        ]
    )()


def odd_timeout(rng):
    return rng.choice(
        [0, 0, 0, 0.001, 1e-12, -1, float("nan"), True, "1", 10**400, b"", np.float32(0.0), [1]]
    )


def some_bytes(rng, largest):
    size = rng.choice([0, 1, 2, 3, 19, 20, 39, 40, 59, 60, rng.randint(0, largest), rng.randint(0, 200)])
    return rng.randbytes(min(size, largest))


def mutated_packet(rng):
    packet = bytearray(
        rng.choice(
            [
                lambda: testing.udp("10.0.0.1", "10.0.0.2", 1, 2, some_bytes(rng, 1400)),
                lambda: testing.tcp("fd00::1", "fd00::2", 1, 2, some_bytes(rng, 1400)),
                lambda: testing.icmp_echo("10.0.0.1", "10.0.0.2", 1, 2, some_bytes(rng, 1400)),
                lambda: testing.icmp_echo("fd00::1", "fd00::2", 1, 2, some_bytes(rng, 1400)),
                lambda: some_bytes(rng, 1500),
            ]
        )()
    )
    for _ in range(rng.choice([0, 0, 1, 3, 20])):
        if packet:
            packet[rng.randrange(min(len(packet), 60))] = rng.randrange(256)
    return bytes(packet[: rng.choice([len(packet), rng.randint(0, len(packet))])])


# --- kernels ---


def fuzz_cursor(rng, harness):
    data = some_bytes(rng, 100)
    offset = rng.choice([rng.randint(0, len(data) + 8), 2**64 - 1 - rng.randrange(100), rng.randrange(2**64)])
    width = rng.choice([1, 2, 4])
    fits = offset + width <= len(data)
    expected = int.from_bytes(data[offset : offset + width], "big") if fits else 0
    check(harness.read(width, data, offset) == (expected, not fits), "read", width, data, offset)
    value = rng.randbytes(width)
    after = data[:offset] + value + data[offset + width :] if fits else data
    number = int.from_bytes(value, "big")
    for guard in (0, 16):
        check(
            harness.write(width, data, offset, number, guard) == (after, not fits, True),
            "write",
            width,
            offset,
        )


def fuzz_checksum(rng, harness):
    data = some_bytes(rng, 3000)
    offset = rng.randrange(16)
    initial = rng.choice([0, rng.randrange(2**16), rng.randrange(2**64), 2**64 - 1])
    expected = testing.checksum(data, initial)
    total = harness.checksum_sum(bytes(offset) + data, offset, initial)
    check(harness.fold(total) ^ 0xFFFF == expected, "sum_bytes", data, offset, initial)
    check(offload.checksum(data, initial) == expected, "offload.checksum", data, initial)
    with contextlib.suppress(TypeError, ValueError):
        offload.checksum(odd_array(rng), odd_number(rng))


def fuzz_pseudo_header(rng, harness):
    packet = mutated_packet(rng)
    version = packet[0] >> 4 if packet else 0
    fits = len(packet) >= {4: 20, 6: 40}.get(version, 1 << 30)
    length = rng.choice([len(packet), rng.randrange(2**32)])
    total, failed = harness.pseudo_header(packet, 17, length)
    check(failed == (not fits), "pseudo_header", packet)
    if fits:
        place = packet[12:20] if version == 4 else packet[8:40]
        expected = testing.checksum(place + struct.pack("!II", length, 17))
        check(harness.fold(total) ^ 0xFFFF == expected, "pseudo_header", packet, length)


def fuzz_virtio(rng, harness):
    data = some_bytes(rng, 30)
    result, fields = harness.virtio_decode(data)
    check((result == 0) == (len(data) >= 10), "decode", data)
    if result == 0:
        check(fields == struct.unpack_from("=BBHHHH", data), "decode", data)
        blank = bytes(len(data))
        encoded = harness.virtio_encode(blank, fields, rng.choice([0, 16]))
        check(encoded == (0, data[:10] + blank[10:], True), "encode", data)


def some_records(rng, layout):
    """The bytes of one read, some of them with another number in a field, perhaps cut short."""
    data = bytearray()
    for _ in range(rng.randint(1, 12)):
        packet = some_bytes(rng, 300)
        header = struct.calcsize(twins.RECORD[layout.timestamp_size]) + rng.choice(
            [0, 0, 4, rng.randrange(40)]
        )
        made = bytearray(
            twins.record(packet, layout, header=header, original=len(packet) + rng.choice([0, 0, 0, 1, 1000]))
        )
        if rng.random() < 0.05:
            made[layout.timestamp_size + rng.randrange(10)] = rng.choice([0, 1, 127, 255])
        data += made
    return bytes(data[: rng.choice([len(data), len(data), rng.randint(1, len(data))])])


def fuzz_bpf(rng, harness):
    layout = bpf.Layout(rng.choice([8, 16]), rng.choice([4, 8]))
    data = rng.choice([some_records(rng, layout), some_bytes(rng, 200)])
    expected = twins.records(data, layout)
    is_broken = expected[-1:] == [twins.Refused]
    whole = expected[:-1] if is_broken else expected
    found, result = harness.bpf_walk(data, *layout)
    check(found == whole and (result < 0) == is_broken, "bpf_walk", data, layout)
    found = bpf.records(data, layout)
    try:
        for _, packet, original, *_ in whole:
            check(next(found)[:2] == (packet, original), "records", data, layout)
        check(next(found, None) is None and not is_broken, "records", data, layout)
    except tuntap.PacketError:
        check(is_broken, "records", data, layout)


# --- batches ---


def odd_array(rng):
    """A buffer, or not, of a shape and type that may or may not do."""
    size = rng.choice([0, 1, 7, 64, 256, 1000])
    kinds = [
        np.uint8,
        np.uint8,
        np.int32,
        np.int32,
        np.int8,
        np.uint16,
        np.int64,
        np.float32,
        ">i4",
        "V3",
        "M8[s]",
        object,
    ]
    plain = np.zeros(size, np.dtype(rng.choice(kinds)))
    columns = rng.choice([1, 2, 8])
    choices = [
        lambda: plain,
        lambda: plain[: size // columns * columns].reshape(-1, columns),
        lambda: plain[: size // columns * columns].reshape(-1, columns).T,
        lambda: plain[::2],
        lambda: plain[::-1],
        lambda: plain.reshape(-1, 1, 1),
        lambda: np.broadcast_to(plain[:1], (size, 4)) if size else plain,
        lambda: np.array(3, np.uint8),
        lambda: memoryview(bytearray(size)),
        lambda: memoryview(bytearray(8 * columns)).cast("B", (8, columns)),
        lambda: bytearray(size),
        lambda: bytes(size),
        lambda: array.array("i", [0] * size),
        lambda: (ctypes.c_uint8 * size)(),
        lambda: (ctypes.c_int32 * size)(),
        lambda: ((ctypes.c_uint8 * columns) * size)(),
        lambda: rng.choice([None, 5, "text", [1, 2, 3], object(), {}]),
    ]
    made = rng.choice(choices)()
    if isinstance(made, np.ndarray) and made.flags.owndata and rng.random() < 0.1:
        made.flags.writeable = False
    return made


def fuzz_batch_arguments(rng, _):
    capacity, slot_size, headroom = (rng.choice([odd_number(rng), rng.randint(1, 40)]) for _ in range(3))
    numbers = [value for value in (capacity, slot_size) if isinstance(value, int) and value > 0]
    if len(numbers) == 2 and numbers[0] * (numbers[1] + 8) > 2**24:
        return  # an honest wish for much memory
    try:
        batch = tuntap.PacketBatch(capacity, slot_size, headroom)
    except (TypeError, ValueError, MemoryError):
        return
    check_shapes(batch)
    for name in ("count", "capacity", "slot_size", "headroom"):
        before = batch.count
        try:
            setattr(batch, name, odd_number(rng))
        except (TypeError, ValueError, AttributeError, OverflowError):
            check(batch.count == before, "count after an error")
        check(0 <= batch.count <= batch.capacity, "count", batch.count)
    with contextlib.suppress(IndexError, TypeError):
        batch[odd_number(rng)]
    with contextlib.suppress(IndexError, TypeError, ValueError):
        batch.with_headroom(odd_number(rng), odd_number(rng))
    check(len(list(batch)) == batch.count == len(batch), "iteration")
    repr(batch)


def check_shapes(batch):
    check(batch.data.shape == (batch.capacity, batch.slot_size), "data", batch.data.shape)
    check(batch.lengths.shape == (batch.capacity,), "lengths", batch.lengths.shape)
    check(
        batch.buffer.shape == (batch.capacity, batch.headroom + batch.slot_size), "buffer", batch.buffer.shape
    )


def fuzz_wrap(rng, _):
    data = odd_array(rng)
    lengths = odd_array(rng)
    if isinstance(data, np.ndarray) and data.ndim == 2 and rng.random() < 0.7:
        lengths = np.zeros(data.shape[0] + rng.choice([0, 0, 0, 1, -1]) * bool(data.shape[0]), np.int32)
    try:
        headroom = rng.choice([0, 0, odd_number(rng)])
        batch = tuntap.PacketBatch.wrap(data, lengths, headroom)
    except (TypeError, ValueError):
        return
    check_shapes(batch)
    one, other = testing.pair(tuntap.Tap)
    with one, other:
        other.send(b"x" * rng.choice([1, 2, 100]))
        check(one.recv_batch(batch, 0) == 1, "recv_batch")
        batch.lengths[:] = [
            rng.choice([-1, 0, 1, batch.slot_size, 2**31 - 1, -(2**31)]) for _ in range(batch.capacity)
        ]
        batch.count = batch.capacity
        with contextlib.suppress(ValueError, TimeoutError):
            one.send_batch(batch, 0)
        list(batch)


def fuzz_fill(rng, _):
    capacity, slot_size, headroom = rng.randint(1, 9), rng.choice([1, 4, 64, 1500]), rng.choice([0, 3, 64])
    batch, memory = guarded_batch(capacity, slot_size, headroom)
    packets = [
        some_bytes(rng, slot_size) if rng.random() < 0.95 else odd_array(rng)
        for _ in range(rng.randint(0, 10))
    ]
    try:
        count = batch.fill(iter(packets) if rng.random() < 0.5 else packets)
    except (TypeError, ValueError, BufferError):
        check(batch.count == 0, "count after an error")
    else:
        check(count == len(packets) == batch.count, "count", count)
        for i, packet in enumerate(packets):
            check(bytes(batch[i]) == np.asarray(packet).tobytes(), "packet", i)
        if count:
            chosen = rng.sample(range(count), rng.randint(0, count))
            wanted = [bytes(batch[i]) for i in sorted(chosen)]
            check(batch.fill(batch[i] for i in sorted(chosen)) == len(chosen), "fill from itself")
            check([bytes(packet) for packet in batch] == wanted, "packets of itself")
    check_guards(batch, memory)


def guarded_batch(capacity, slot_size, headroom, guard=64):
    """A batch within a larger block of memory that is 0xA5 all over.

    With `guard` 0 the block ends where the last slot does, which is what a sanitizer looks at.
    """
    stride = headroom + slot_size
    memory = np.full(guard + capacity * stride + guard, GUARD, np.uint8)
    data = memory[guard : guard + capacity * stride].reshape(capacity, stride)
    batch = tuntap.PacketBatch.wrap(data, np.zeros(capacity, np.int32), headroom)
    batch.count = 0
    return batch, memory


def check_guards(batch, memory):
    guard = (memory.size - batch.buffer.size) // 2
    check((memory[:guard] == GUARD).all(), "bytes in front of the batch")
    check((memory[memory.size - guard :] == GUARD).all(), "bytes behind the batch")
    check((batch.buffer[:, : batch.headroom] == GUARD).all(), "headroom")


# --- packets through a pair ---


def packet_size(rng):
    return rng.choice([0, 1, 2, 14, 60, 1500, rng.randint(0, 3000), rng.randint(0, 70000), 65535, 65536])


def fuzz_transfer(rng, _):
    """Sends and receives of every kind in any order: what was sent is received, cut where it must be."""
    one, other = testing.pair(tuntap.Tap)
    flying = deque()
    receivers = (receive_one, receive_into, receive_batch)
    with one, other:
        for _ in range(rng.randint(1, 30)):
            if rng.random() < 0.5:
                rng.choice((send_one, send_batch))(rng, one, flying)
            else:
                rng.choice(receivers)(rng, other, flying)
        while flying:
            rng.choice(receivers)(rng, other, flying)
        try:
            other.recv(0)
        except TimeoutError:
            pass
        else:
            raise Wrong("a packet that was not sent")


def send_one(rng, device, flying):
    size = packet_size(rng)
    packet = rng.randbytes(size)
    given = rng.choice([bytes, bytearray, memoryview, lambda data: np.frombuffer(data, np.uint8)])(packet)
    try:
        sent = device.send(given, 0)
    except ValueError:
        check(not 1 <= size <= 65535, "send refused", size)
    except TimeoutError:
        check(flying, "no room in an empty pair")
    else:
        check(sent == size and 1 <= size <= 65535, "sent", sent, size)
        flying.append(packet)


def send_batch(rng, device, flying):
    packets = [rng.randbytes(rng.randint(1, 2000)) for _ in range(rng.randint(1, 20))]
    batch, memory = guarded_batch(20, 2000, rng.choice([0, 5, 64]), rng.choice([0, 64]))
    batch.fill(packets)
    before = memory.copy()
    where = rng.choice([None, some_selection(rng, len(packets))])
    if where is not None:
        packets = [packets[i] for i in np.arange(len(packets))[where]]
    start = rng.randint(0, len(packets))
    stop = rng.randint(start, len(packets))
    try:
        sent = device.send_batch(batch, 0, start=start, stop=stop, where=where)
    except TimeoutError:
        check(flying, "no room in an empty pair")
        sent = 0
    check(0 <= sent <= stop - start, "sent", sent)
    check((memory == before).all(), "send_batch wrote")
    flying.extend(packets[start : start + sent])


def some_selection(rng, count):
    if rng.random() < 0.5:
        return np.array([rng.random() < 0.5 for _ in range(count)])
    kind = rng.choice([np.int8, np.int32, np.int64, np.uint16])
    return np.array([rng.randrange(count) for _ in range(rng.randint(0, 50))], kind)


def receive_one(rng, device, flying):
    try:
        packet = device.recv(0)
    except TimeoutError:
        check(not flying, "nothing came")
    else:
        check(packet == flying.popleft(), "another packet", len(packet))


def receive_into(rng, device, flying):
    room = rng.choice([1, 2, 60, 1500, 65535, 70000])
    memory = bytearray([GUARD]) * (room + 32)
    try:
        size = device.recv_into(memoryview(memory)[16 : 16 + room], 0)
    except TimeoutError:
        check(not flying, "nothing came")
        return
    except tuntap.PacketError:
        expected = flying.popleft()
        check(len(expected) > room, "not cut", len(expected), room)
        size = room
    else:
        expected = flying.popleft()
        check(size == len(expected), "size", size, len(expected))
    check(memory[16 : 16 + size] == expected[:size], "another packet")
    check(set(memory[:16] + memory[16 + size :]) == {GUARD}, "bytes outside the packet")


def receive_batch(rng, device, flying):
    batch, memory = guarded_batch(
        rng.randint(1, 12),
        rng.choice([1, 20, 60, 1500, 2000, 66000]),
        rng.choice([0, 1, 64]),
        rng.choice([0, 64]),
    )
    try:
        count = device.recv_batch(batch, 0)
    except TimeoutError:
        check(not flying and batch.count == 0, "nothing came")
        return
    check(count == batch.count == min(len(flying), batch.capacity), "count", count, len(flying))
    cut = []
    for i in range(count):
        expected = flying.popleft()
        if len(expected) > batch.slot_size:
            cut.append(i)
        check(bytes(batch[i]) == expected[: batch.slot_size], "another packet", i)
        check((batch.data[i, batch.lengths[i] :] == GUARD).all(), "bytes behind the packet", i)
    check(batch.truncated == tuple(cut), "truncated", batch.truncated, cut)
    check((batch.data[count:] == GUARD).all(), "slots behind the last packet")
    check_guards(batch, memory)


def flows_of(rng):
    """Packets of a few flows, mostly such as are merged; each flow's in order."""
    packets, position = [], [0] * 4
    for number in range(rng.randint(1, 150)):
        flow = rng.choice([0, 0, 0, 1, 2, 3])
        size = rng.choice([1, 500, 1000, 1000, 1000, 1400])
        payload = rng.randbytes(size)
        if flow == 0:
            packet = testing.tcp("10.0.0.1", "10.0.0.2", 1, 2, payload, seq=position[0] % 2**32)
        elif flow == 1:
            packet = testing.tcp("fd00::1", "fd00::2", 1, 2, payload, seq=position[1] % 2**32)
        else:
            ends = ("10.0.0.1", "10.0.0.2") if flow == 2 else ("fd00::1", "fd00::2")
            packet = testing.udp(*ends, 3, 4, payload)
        position[flow] += size
        packets.append(renumbered(packet, number))
    for _ in range(rng.choice([0, 0, 3])):
        packets[rng.randrange(len(packets))] = mutated_packet(rng)[:1400] or b"E"
    return packets


def fuzz_offload(rng, _):
    """What is coalesced on one end is split on the other: the same packets, each flow in order."""
    modes = [True, "superpackets"]
    one, other = testing.pair(tuntap.Tun, offload=rng.choice(modes))
    with one, other:
        for _ in range(rng.randint(1, 4)):
            packets = [packet for packet in flows_of(rng) if packet[0] >> 4 in (4, 6)]
            if not packets:
                continue
            batch, memory = guarded_batch(len(packets), 1500, rng.choice([0, 5, 64]), rng.choice([0, 64]))
            batch.fill(packets)
            before = memory.copy()
            sent = 0
            while sent < len(packets):
                sent += one.send_batch(batch, 0, start=sent)
            check((memory == before).all(), "send_batch wrote")
            arrived = []
            while True:
                try:
                    arrived += receive_split(rng, other)
                except TimeoutError:
                    break
            check(sorted(map(without_id, arrived)) == sorted(map(without_id, packets)), "other packets")
            for flow in set(map(flow_of, packets)):
                ours = [without_id(packet) for packet in packets if flow_of(packet) == flow]
                theirs = [without_id(packet) for packet in arrived if flow_of(packet) == flow]
                check(ours == theirs, "another order", flow)


def flow_of(packet):
    """Protocol, addresses and ports; of what has no plain header the packet itself."""
    if packet[0] == 0x45 and len(packet) >= 24:
        return packet[9:10] + packet[12:24]
    if packet[0] == 0x60 and len(packet) >= 44:
        return packet[6:7] + packet[8:44]
    return packet


def receive_split(rng, device):
    """Packets by some call, super-packets of a batch split."""
    if rng.random() < 0.2:
        return [device.recv(0)]
    slot_size = rng.choice([1500, 66000]) if not device._whole else 66000
    batch, memory = guarded_batch(
        rng.choice([1, 2, 7, 64, 150]), slot_size, rng.choice([0, 5]), rng.choice([0, 64])
    )
    count = device.recv_batch(batch, 0)
    check(1 <= count <= batch.capacity and not batch.truncated, "count", count)
    guard = (memory.size - batch.buffer.size) // 2
    check((memory[:guard] == GUARD).all(), "bytes in front of the batch")
    check((memory[memory.size - guard :] == GUARD).all(), "bytes behind the batch")
    check((batch.buffer[:, : batch.headroom] == GUARD).all(), "headroom")
    return [part for i in range(count) for part in offload.split(batch[i], batch.headers[i])]


def without_id(packet):
    """A packet less what a device may change: the identification of IPv4 that may not be fragmented."""
    if packet[0] >> 4 == 4 and len(packet) >= 12 and packet[6] & 0x40:
        return packet[:4] + packet[6:10] + packet[12:]
    return packet


def fuzz_frames(rng, _):
    """Whatever comes with a virtio-net header is a packet, or an error for that packet alone."""
    mode = rng.choice([True, "superpackets"])
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    kind = rng.choice([tuntap.Tun, tuntap.Tap])
    with theirs, kind.from_fd(ours.detach(), offload=mode, checksums=rng.random() < 0.8) as device:
        for _ in range(rng.randint(1, 20)):
            packets = [
                renumbered(testing.tcp("10.0.0.1", "10.0.0.2", 1, 2, bytes(500), seq=i * 500), i)
                for i in range(4)
            ]
            header, packet = rng.choice(offload.coalesce(packets))
            frame = bytearray(header.tobytes() + packet)
            for _ in range(rng.choice([0, 1, 1, 3])):
                frame[rng.choice([rng.randrange(10), rng.randrange(60)])] = rng.randrange(256)
            frame = rng.choice(
                [
                    bytes(frame),
                    bytes(frame[: rng.randrange(1, len(frame))]),
                    rng.randbytes(rng.randint(1, 90)),
                ]
            )
            theirs.send(frame)
            batch, memory = guarded_batch(
                rng.choice([1, 3, 64]), rng.choice([1, 50, 600, 66000]), rng.choice([0, 5]), 64
            )
            try:
                while True:
                    count = device.recv_batch(batch, 0)
                    check(1 <= count <= batch.capacity, "count", count)
                    check((batch.lengths[:count] >= 1).all(), "lengths")
                    check((batch.lengths[:count] <= batch.slot_size).all(), "lengths")
            except (TimeoutError, tuntap.PacketError):
                pass
            check_guards(batch, memory)
            batch.headers.view(np.uint8)[:] = np.frombuffer(rng.randbytes(batch.headers.nbytes), np.uint8)
            batch.count = batch.capacity
            batch.lengths[:] = rng.randint(1, batch.slot_size)
            with contextlib.suppress(TimeoutError, ValueError, tuntap.PacketError):
                device.send_batch(batch, 0)
            with contextlib.suppress(BlockingIOError):
                while True:
                    theirs.recv(70000, socket.MSG_DONTWAIT)


@functools.cache
def framing():
    return build_harness.load(Path(__file__).with_name("_framing.pyx"))


def fuzz_records(rng, _):
    """A read of BPF records is its packets, and one error for what is broken."""
    layout = rng.choice([bpf.MACOS, bpf.FREEBSD])
    buffer = rng.choice([64, 1000, 8000])
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs, tuntap.Tap.from_fd(ours.detach()) as device:
        framing().receive_records(device, *layout, buffer)
        for _ in range(rng.randint(1, 20)):
            data = some_records(rng, layout)
            theirs.send(data)
            flying = deque(twins.records(data[:buffer], layout))
            is_broken = flying[-1] is twins.Refused
            if is_broken:
                flying.pop()
            flying = deque(entry[1:3] for entry in flying if entry[1])
            while flying:
                receive_records(rng, device, flying)
            try:
                device.recv(0)
            except tuntap.PacketError:
                check(is_broken, "nothing is broken")
            except TimeoutError:
                check(not is_broken, "what is broken is no error")
            else:
                raise Wrong("a packet that was not sent")


def receive_records(rng, device, flying):
    """A batch of (packet, original size)."""
    slot_size = rng.choice([1, 20, 100, 300])
    headroom, guard = rng.choice([0, 5]), rng.choice([0, 64])
    batch, memory = guarded_batch(rng.choice([1, 2, 5, 64]), slot_size, headroom, guard)
    count = device.recv_batch(batch, 0)
    check(count == min(len(flying), batch.capacity), "count", count, len(flying))
    check(device.pending == len(flying) - count, "pending", device.pending)
    cut = []
    for i in range(count):
        packet, original = flying.popleft()
        if original > min(len(packet), slot_size):
            cut.append(i)
        check(bytes(batch[i]) == packet[:slot_size], "another packet", i)
    check(batch.truncated == tuple(cut), "truncated", batch.truncated, cut)
    check_guards(batch, memory)


def fuzz_call_arguments(rng, _):
    """Arguments of the wrong kind are refused as documented, and the device goes on."""
    one, other = testing.pair(tuntap.Tap)
    batch = tuntap.PacketBatch(4, 100)
    batch.fill([b"x"] * 4)
    calls = [
        lambda: one.send(odd_array(rng), 0),
        lambda: one.send(b"x", odd_timeout(rng)),
        lambda: one.recv(odd_timeout(rng)),
        lambda: one.recv_into(odd_array(rng), 0),
        lambda: one.recv_batch(rng.choice([batch, None, odd_array(rng)]), 0),
        lambda: one.send_batch(batch, 0, start=odd_number(rng), stop=odd_number(rng)),
        lambda: one.send_batch(rng.choice([None, odd_array(rng)]), 0),
        lambda: one.send_batch(batch, 0, where=odd_array(rng)),
        lambda: one.send_batch(batch, 0, where=[odd_number(rng)]),
    ]
    with one, other:
        for _ in range(5):
            with contextlib.suppress(TypeError, ValueError, IndexError, TimeoutError, tuntap.PacketError):
                rng.choice(calls)()
        with contextlib.suppress(TimeoutError):
            while True:
                other.recv(0)
        check(one.send(b"still here", 0) == 10 and other.recv(0) == b"still here", "the device is lost")


def fuzz_adopt(rng, _):
    """Descriptors that are no devices are refused, and left as they were."""
    kinds = [
        lambda: os.pipe(),
        lambda: [os.open(os.devnull, os.O_RDWR)],
        lambda: [os.open(os.curdir, os.O_RDONLY)],
        lambda: [end.detach() for end in socket.socketpair()],
    ]
    descriptors = list(rng.choice(kinds)())
    try:
        flags = [fcntl.fcntl(fd, fcntl.F_GETFL) for fd in descriptors]
        with contextlib.suppress(TypeError, ValueError, tuntap.TunTapError):
            rng.choice([tuntap.Tun, tuntap.Tap]).from_fd(
                rng.choice(descriptors), owned=rng.random() < 0.5
            ).close()
        check(
            flags == [fcntl.fcntl(fd, fcntl.F_GETFL) for fd in descriptors], "flags of a refused descriptor"
        )
    finally:
        for fd in descriptors:
            os.close(fd)
    number = rng.choice([-1, 2**31, 2**31 - 1, 2**64, 10**6, None, "3", 1.5, True])
    with contextlib.suppress(TypeError, ValueError, tuntap.TunTapError):
        tuntap.Tun.from_fd(number)
        raise Wrong("adopted", number)


# --- threads ---


def fuzz_threads(rng, _):
    """Senders whose lengths change under them, receivers, and something that ends it all."""
    one, other = testing.pair(tuntap.Tap)
    batch, memory = guarded_batch(16, 300, 8)
    batch.data[:] = 0x5A
    sending, done, seeds = Failures(), threading.Event(), [rng.random() for _ in range(6)]

    def mutate(rng):
        while not done.is_set():
            i = rng.randrange(16)
            batch.lengths[i] = rng.choice([1, 60, 300, 301, 0, -1, 2**31 - 1, rng.randint(1, 300)])

    def send(rng):
        batch.count = 16
        while not done.is_set():
            with contextlib.suppress(ValueError, tuntap.PacketError, TimeoutError, tuntap.InterruptError):
                one.send_batch(batch, rng.choice([0, 0.01, None]))

    def receive(rng):
        mine, guards = guarded_batch(rng.randint(1, 8), rng.choice([40, 300]), 8, rng.choice([0, 64]))
        into = bytearray(100)
        while not done.is_set():
            with contextlib.suppress(TimeoutError, tuntap.InterruptError, tuntap.PacketError):
                way = rng.randrange(3)
                timeout = rng.choice([0, 0.01, None])
                if way == 0:
                    count = other.recv_batch(mine, timeout)
                    check(1 <= count <= mine.capacity, "count", count)
                    for packet in mine:
                        check(len(packet) and (packet == 0x5A).all(), "a packet that was not sent")
                    check_guards(mine, guards)
                elif way == 1:
                    packet = other.recv(timeout)
                    check(packet and not packet.strip(b"\x5a"), "a packet that was not sent")
                else:
                    check(1 <= other.recv_into(into, timeout) <= 100, "recv_into")

    def disturb(rng):
        while not done.is_set():
            rng.choice([one, other]).interrupt()
            time.sleep(rng.choice([0, 0.0005]))

    names = [send, receive, receive, disturb, mutate, send][: rng.randint(2, 6)]
    threads = [sending.thread(work, seed) for work, seed in zip(names, seeds, strict=False)]
    time.sleep(rng.choice([0, 0.01, 0.1]))
    done.set()
    for device in rng.sample([one, other], 2):
        rng.choice([device.close, device.shutdown])()
    for thread in threads:
        thread.join(HANG / 2)
        check(not thread.is_alive(), "a call goes on after close() and shutdown()")
    one.close()
    other.close()
    check(one.closed and other.closed and one.fileno() == -1, "closed")
    sending.raise_first()
    check_guards(batch, memory)


class Failures:
    """Threads whose exceptions, other than the ends of a device, are raised by the caller."""

    def __init__(self):
        self.found = []

    def thread(self, work, seed):
        def run():
            try:
                work(random.Random(seed))
            except ENDS:
                pass
            except BaseException as error:
                self.found.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    def raise_first(self):
        if self.found:
            raise self.found[0]


def fuzz_shared_batch(rng, _):
    """Two devices told to fill one batch at once: the packets are a mix, the memory is not."""
    pairs = [testing.pair(tuntap.Tap) for _ in range(2)]
    batch, memory = guarded_batch(rng.randint(1, 4), rng.choice([4, 50]), 8)
    done, failures = threading.Event(), Failures()

    def receive(rng, device):
        while not done.is_set():
            with contextlib.suppress(TimeoutError):
                device.recv_batch(batch, 0)
                check(len(batch.truncated) <= batch.capacity, "truncated", batch.truncated)
                check(0 <= batch.count <= batch.capacity, "count", batch.count)

    threads = [
        failures.thread(lambda rng, device=device: receive(rng, device), rng.random()) for _, device in pairs
    ]
    end = time.monotonic() + rng.choice([0.01, 0.05])
    while time.monotonic() < end:
        for device, _ in pairs:
            with contextlib.suppress(TimeoutError):
                device.send(b"y" * rng.choice([1, 49, 50, 51, 60]), 0)
    done.set()
    for thread in threads:
        thread.join(HANG / 2)
    for device in (device for ends in pairs for device in ends):
        device.close()
    failures.raise_first()
    check_guards(batch, memory)


# --- a real device ---


def fuzz_real_device(rng, _):
    """The kernel is sent mutated packets, and its own are received in slots of any size."""
    name = "".join(chr(rng.choice([*range(33, 127), 0, 233])) for _ in range(rng.choice([0, 3, 15, 16, 40])))
    with contextlib.suppress(TypeError, ValueError, tuntap.TunTapError):
        tuntap.delete(rng.choice([name, odd_number(rng)]))
    kind = rng.choice([tuntap.Tun, tuntap.Tap])
    mtu = rng.choice([1280, 1500, 9000])
    with kind(
        addresses=["10.0.0.1/24", "fd00::1/64"], mtu=mtu, packet_information=rng.random() < 0.3
    ) as device:
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for _ in range(rng.randint(1, 20)):
            with contextlib.suppress(TimeoutError, ValueError, tuntap.PacketError):
                device.send(mutated_packet(rng), 0)
            with contextlib.suppress(OSError):
                sender.sendto(rng.randbytes(rng.randint(0, 3 * mtu) % 65000), ("10.0.0.2", 9))
            batch, memory = guarded_batch(
                rng.randint(1, 8),
                rng.choice([1, 3, 4, 60, 1500, 9100]),
                rng.choice([0, 8]),
                rng.choice([0, 64]),
            )
            with contextlib.suppress(TimeoutError, tuntap.PacketError):
                count = device.recv_batch(batch, 0)
                check(1 <= count <= batch.capacity, "count", count)
                check((batch.lengths[:count] >= 1).all(), "lengths")
                check((batch.lengths[:count] <= batch.slot_size).all(), "lengths")
            check_guards(batch, memory)
        sender.close()


ALWAYS = [
    (fuzz_cursor, 10),
    (fuzz_checksum, 10),
    (fuzz_pseudo_header, 10),
    (fuzz_virtio, 10),
    (fuzz_bpf, 10),
    (fuzz_batch_arguments, 10),
    (fuzz_wrap, 20),
    (fuzz_fill, 10),
    (fuzz_transfer, 10),
    (fuzz_offload, 10),
    (fuzz_frames, 10),
    (fuzz_records, 10),
    (fuzz_call_arguments, 10),
    (fuzz_adopt, 4),
    (fuzz_threads, 2),
    (fuzz_shared_batch, 1),
]


def enter_network():
    """Whether real devices can be opened, in a network of this process's own."""
    try:
        testing.private_network()
        tuntap.Tun().close()
    except tuntap.TunTapError as error:
        print(f"real devices are left out: {error}")
        return False
    return True


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--case", type=int, default=None, help="run this one only")
    arguments = parser.parse_args()
    seed = random.SystemRandom().randrange(2**32) if arguments.seed is None else arguments.seed
    warnings.simplefilter("error")
    faulthandler.enable()
    harness = build_harness.load()
    framing()  # not in the time of a case
    kinds = [*ALWAYS, (fuzz_real_device, 3)] if enter_network() else ALWAYS
    print(f"seed {seed}, for {arguments.seconds:g} seconds", flush=True)

    counts = dict.fromkeys((function.__name__ for function, _ in kinds), 0)
    case = arguments.case or 0
    descriptors = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else None
    end = time.monotonic() + arguments.seconds
    while time.monotonic() < end:
        rng = random.Random(f"{seed}:{case}")
        function = rng.choices([function for function, _ in kinds], [weight for _, weight in kinds])[0]
        faulthandler.dump_traceback_later(HANG, exit=True)
        try:
            function(rng, harness)
        except Exception:
            traceback.print_exc()
            print(f"\nFAILED: {function.__name__}\nagain: python {sys.argv[0]} --seed {seed} --case {case}")
            return 1
        counts[function.__name__] += 1
        if arguments.case is not None:
            break
        case += 1
    faulthandler.cancel_dump_traceback_later()
    gc.collect()
    if descriptors is not None:
        left = len(os.listdir("/proc/self/fd")) - descriptors
        if left > 0:
            print(f"FAILED: {left} descriptors were left open (seed {seed})")
            return 1
    print(", ".join(f"{name.removeprefix('fuzz_')} {count}" for name, count in counts.items()))
    print(f"{sum(counts.values())} cases passed, seed {seed}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
