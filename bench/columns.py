"""Columns: headers of 256 packets read, checksums made right, packets built, and all of it in a relay."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Callable
from itertools import repeat

import devices
import numpy as np
from contest import Contestant, repeated, run, sampled, timed
from findings import Outcome, Pair
from peers import Peer

import tuntap
from tuntap.columns import FIVE_TUPLE, Columns
from tuntap.testing import tcp, udp

TITLE = "columns: headers of a batch as arrays, checksums, building, and a relay that looks at packets"
ROUNDS = 201
PACKETS = 256
FEW = (*FIVE_TUPLE, "length", "tcp_flags")

READING = "5-tuple, length and flags"
LIMITS = {f"tuntap, {READING}": 20.0, "tuntap, all columns": 45.0}
READ_PAIRS = [
    Pair(f"tuntap, {READING}", "dpkt", 1 / 30),
    Pair(f"tuntap, {READING}", "scapy", 1 / 500),
]
FIX_PAIRS = [Pair("tuntap fix_checksums()", "C sum once", 0.7)]
RELAY_PAIRS = [Pair("columns, mask, rewrite", "plain relay", 1 / 0.85), Pair("plain relay", "plain relay")]


def main(rounds: int, peers: dict[str, Peer]) -> list[Outcome]:
    packets = {"mixed packets": mixed_packets()}
    for size in devices.SIZES:
        payload = bytes(size - 28)
        packets[f"UDP packets of {size} bytes"] = [
            udp("10.0.0.1", "10.0.0.2", 1024 + number, 53, payload) for number in range(PACKETS)
        ]
    fixed = [fixing(what, some, rounds) for what, some in packets.items()]
    return [reading(rounds), *fixed, building(rounds), relay(rounds)]


def mixed_packets() -> list[bytes]:
    """What a link carries: both families, TCP and UDP, all sizes, in no order."""
    chance = random.Random(1)
    packets = []
    for number in range(PACKETS):
        payload = chance.randbytes(chance.choice((0, 18, 100, 512, 1400)))
        make = chance.choice((tcp, tcp, udp))
        one, other = chance.choice((("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")))
        packets.append(make(one, other, 1024 + number, chance.choice((53, 443, 8080)), payload))
    return packets


def reading(rounds: int) -> Outcome:
    """Nanoseconds per packet; each way leaves the same values behind."""
    packets = mixed_packets()
    batch = tuntap.PacketBatch(PACKETS, 1536)
    batch.fill(packets)
    few, everything = Columns(PACKETS, FEW), Columns(PACKETS)
    calls: dict[str, Callable[[], object]] = {
        f"tuntap, {READING}": lambda: batch.columns(out=few),
        "tuntap, all columns": lambda: batch.columns(out=everything),
        "dpkt": lambda: list(map(by_dpkt, packets)),
        "scapy": lambda: list(map(by_scapy, packets)),
    }
    batch.columns(out=few)
    ports = list(zip(few["src_port"].tolist(), few["dst_port"].tolist(), strict=True))
    flags = few["tcp_flags"].tolist()
    for name in ("dpkt", "scapy"):
        found = calls[name]()
        if [row[3:5] for row in found] != ports or [row[6] for row in found] != flags:
            raise RuntimeError(f"{name} reads something else")
    return outcome("headers of 256 mixed packets", calls, READ_PAIRS, rounds, LIMITS)


def by_dpkt(packet: bytes) -> tuple:
    import dpkt

    ip = dpkt.ip.IP(packet) if packet[0] >> 4 == 4 else dpkt.ip6.IP6(packet)
    inner = ip.data
    flags = inner.flags if isinstance(inner, dpkt.tcp.TCP) else 0
    return ip.p, ip.src, ip.dst, inner.sport, inner.dport, len(packet), flags


def by_scapy(packet: bytes) -> tuple:
    from scapy.layers.inet import IP, TCP
    from scapy.layers.inet6 import IPv6

    ip = IP(packet) if packet[0] >> 4 == 4 else IPv6(packet)
    inner = ip.payload
    protocol = ip.proto if isinstance(ip, IP) else ip.nh
    flags = int(inner.flags) if isinstance(inner, TCP) else 0
    return protocol, ip.src, ip.dst, inner.sport, inner.dport, len(packet), flags


def fixing(what: str, packets: list[bytes], rounds: int) -> Outcome:
    """Checksums made right, beside a C loop that sums all the bytes once."""
    batch = tuntap.PacketBatch(PACKETS, 1536)
    batch.fill(packets)
    table = batch.columns(["version", "protocol", "transport_offset"])
    right = batch.data.copy()
    rows = np.arange(PACKETS)
    batch.data[rows, table["transport_offset"] + np.where(table["protocol"] == 6, 16, 6)] ^= 0x55
    batch.data[table["version"] == 4, 10] ^= 0x55
    if batch.fix_checksums() != PACKETS or not np.array_equal(batch.data, right):
        raise RuntimeError("the checksums are not right")
    baseline = devices.Baseline(batch)
    calls = {"tuntap fix_checksums()": batch.fix_checksums, "C sum once": lambda: baseline.sum(PACKETS)}
    return outcome(f"checksums of 256 {what}", calls, FIX_PAIRS, rounds, more_is_better=True)


def building(rounds: int) -> Outcome:
    """UDP packets of columns, a source port for each."""
    batch = tuntap.PacketBatch(PACKETS, 1536)
    ports = np.arange(PACKETS, dtype=np.uint16)
    columns = {"src4": "10.0.0.1", "dst4": "10.0.0.2", "protocol": 17, "src_port": ports, "dst_port": 53}
    calls = {
        f"tuntap build(), {size} bytes": lambda payload=bytes(size - 28): batch.build(columns, payload)
        for size in devices.SIZES
    }
    return outcome("building 256 UDP packets", calls, [], rounds, {"tuntap build(), 64 bytes": 200.0})


def outcome(
    title: str,
    calls: dict[str, Callable[[], object]],
    pairs: list[Pair],
    rounds: int,
    limits: dict[str, float] | None = None,
    more_is_better: bool = False,
) -> Outcome:
    """Nanoseconds per packet, or packets per microsecond."""
    times = {name: 1 if name in ("dpkt", "scapy") else 100 for name in calls}
    samples = sampled({name: repeated(call) for name, call in calls.items()}, times, rounds)
    values = {
        name: [1000 * PACKETS / took if more_is_better else took / PACKETS for took in taken]
        for name, taken in samples.items()
    }
    unit = "packets/us" if more_is_better else "ns per packet"
    return Outcome.of(title, unit, values, pairs, limits=limits or {}, more_is_better=more_is_better)


def relay(rounds: int) -> Outcome:
    """Small packets from one TUN to another: as they are, or looked at, selected and changed on the way."""
    with contextlib.ExitStack() as stack:
        inside = stack.enter_context(devices.tun("bench0", 0))
        outside = stack.enter_context(devices.tun("bench1", 1))
        sender = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        sender.connect(("10.99.0.2", 9))
        batch = inside.batch(devices.BATCH)
        columns = Columns(devices.BATCH, [*FIVE_TUPLE, "ttl"])
        protocol, ttl = columns["protocol"], columns["ttl"]
        rows = {"ttl": ttl}
        counted = 0

        def plain(packets: int) -> None:
            moved = 0
            while moved < packets:
                count = inside.recv_batch(batch)
                outside.send_batch(batch)
                moved += count

        def looking(packets: int) -> None:
            moved = 0
            while moved < packets:
                count = inside.recv_batch(batch)
                batch.columns(out=columns)
                chosen = protocol[:count] == 17
                np.subtract(ttl, 1, out=ttl)
                batch.update(rows, where=chosen)
                outside.send_batch(batch, where=chosen)
                moved += count

        def fill(packets: int) -> None:
            nonlocal counted
            counted = devices.received_by_kernel("bench1")
            payload = bytes(devices.SIZES[0] - 28)
            for _ in repeat(None, packets):
                sender.send(payload)

        def check(packets: int) -> None:
            arrived = devices.received_by_kernel("bench1") - counted
            if arrived != packets:
                raise RuntimeError(f"{arrived} of {packets} packets arrived")

        contestants = {
            "plain relay": Contestant(timed(plain), fill, check),
            "columns, mask, rewrite": Contestant(timed(looking), fill, check),
        }
        return run("from one TUN to another", contestants, RELAY_PAIRS, packets=512, rounds=rounds)
