"""Captures: a batch of 256 packets of mixed sizes written to a file, and read back from it."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import pathlib
import random
import tempfile
from collections.abc import Callable, Iterator
from time import perf_counter_ns as clock

import numpy as np
from contest import memcpy, repeated, sampled
from findings import Outcome, Pair
from peers import Peer

import tuntap
from tuntap import testing
from tuntap.capture import Reader, Writer

TITLE = "capture: batches of 256 packets of mixed sizes, written to a file and read from it"
ROUNDS = 101
BATCH = 256
TIMES = 40  # batches of one measurement
TIMES_SLOW = 2  # of those who take each packet alone
SIZES = [40] * 7 + [576] * 4 + [1500]  # the simple mix of the Internet
NOW = 1_700_000_000 * 10**9
PAIRS = [
    Pair("tuntap", "memcpy and file"),
    Pair("tuntap", "memcpy"),
    Pair("tuntap", "scapy"),
    Pair("tuntap", "dpkt"),
]

Run = Callable[[int], int]


def main(rounds: int, peers: dict[str, Peer]) -> list[Outcome]:
    chance = random.Random(1)
    packets = [
        testing.udp("10.0.0.1", "10.0.0.2", 1, 2, chance.randbytes(chance.choice(SIZES) - 28))
        for _ in range(BATCH)
    ]
    outcomes = []
    for form in ("pcapng", "pcap"):
        for task, contestants in (("write", writers), ("read", readers)):
            with contestants(packets, form) as calls:
                times = {name: TIMES_SLOW if name in ("scapy", "dpkt") else TIMES for name in calls}
                size = sum(map(len, packets))
                samples = {
                    name: [size / took for took in taken]
                    for name, taken in sampled(calls, times, rounds).items()
                }
            outcomes.append(
                Outcome.of(f"{task} {form}", "GB/s of packets", samples, PAIRS, more_is_better=True)
            )
    return outcomes


@contextlib.contextmanager
def writers(packets: list[bytes], form: str) -> Iterator[dict[str, Run]]:
    """Each writes the batch to a file of its own, from its beginning on."""
    batch = tuntap.PacketBatch(BATCH, 1536)
    batch.fill(packets)
    times = NOW + np.arange(BATCH, dtype=np.int64)
    seconds = (times / 1e9).tolist()
    size = len(of_tuntap(packets, form))
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))

        def over(file: object, call: Callable[[], object]) -> Run:
            """Over what was written before: neither a disk nor new pages are measured."""

            def run(times: int) -> int:
                file.seek(0)
                return repeated(call)(times)

            return run

        ours, plain = (stack.enter_context(open(folder / name, "wb", buffering=0)) for name in "ab")
        writer = Writer(ours, format=form)
        target, copy = memcpy(size)

        def one_by_one(make: Callable[[str, str], Callable[[bytes, float], object]]) -> Run:
            def run(times: int) -> int:
                with contextlib.ExitStack() as files:
                    write = make(str(folder / "c"), form, files)

                    def write_all() -> None:
                        for packet, time in zip(packets, seconds, strict=True):
                            write(packet, time)

                    write_all()  # scapy makes its objects
                    return repeated(write_all)(times)

            return run

        calls = {
            "tuntap": over(ours, lambda: writer.write(batch, times)),
            "memcpy": repeated(copy),
            "memcpy and file": over(plain, lambda: (copy(), plain.write(target))),
        }
        if importlib.util.find_spec("scapy"):
            calls["scapy"] = one_by_one(scapy_writer)
        if importlib.util.find_spec("dpkt"):
            calls["dpkt"] = one_by_one(dpkt_writer)
        yield calls


def scapy_writer(path: str, form: str, files: contextlib.ExitStack) -> Callable[[bytes, float], object]:
    from scapy.layers.inet import IP
    from scapy.utils import PcapNgWriter, PcapWriter

    made = PcapWriter(path, nano=True) if form == "pcap" else PcapNgWriter(path)
    writer = files.enter_context(made)
    layers: dict[bytes, IP] = {}

    def write(packet: bytes, time: float) -> None:
        """What is written are the packets that scapy made of bytes before, as its users do."""
        if packet not in layers:
            layers[packet] = IP(packet)
            layers[packet].time = time
        writer.write(layers[packet])

    return write


def dpkt_writer(path: str, form: str, files: contextlib.ExitStack) -> Callable[[bytes, float], object]:
    import dpkt

    file = files.enter_context(open(path, "wb"))
    if form == "pcap":
        return dpkt.pcap.Writer(file, linktype=101, nano=True).writepkt
    return dpkt.pcapng.Writer(file, linktype=101).writepkt


def of_tuntap(packets: list[bytes], form: str, times: int = 1) -> bytes:
    """A capture with the packets so many times."""
    batch = tuntap.PacketBatch(BATCH, 1536)
    batch.fill(packets)
    with tempfile.NamedTemporaryFile() as file:
        with Writer(file, format=form) as writer:
            for _ in range(times):
                writer.write(batch, NOW + np.arange(BATCH, dtype=np.int64))
        return pathlib.Path(file.name).read_bytes()


@contextlib.contextmanager
def readers(packets: list[bytes], form: str) -> Iterator[dict[str, Run]]:
    """Each opens a capture anew, which is in the page cache, and reads so many batches of it."""
    batch = tuntap.PacketBatch(BATCH, 1536)
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(tempfile.NamedTemporaryFile())
        file.write(of_tuntap(packets, form, TIMES))
        file.flush()
        name = file.name

        def ours(times: int) -> int:
            start = clock()
            with Reader(name) as reader:
                for _ in range(times):
                    if reader.read_into(batch) != BATCH:
                        raise RuntimeError("a batch was not filled")
                return clock() - start

        size = len(of_tuntap(packets, form))
        target, copy = memcpy(size)

        def plain(times: int) -> int:
            start = clock()
            with open(name, "rb", buffering=0) as source:
                for _ in range(times):
                    source.readinto(target)
                    copy()
                return clock() - start

        calls = {"tuntap": ours, "memcpy": repeated(copy), "memcpy and file": plain}
        if importlib.util.find_spec("scapy"):
            from scapy.utils import RawPcapNgReader, RawPcapReader

            scapy_reader = RawPcapReader if form == "pcap" else RawPcapNgReader
            calls["scapy"] = one_by_one(lambda: scapy_reader(name))
        if importlib.util.find_spec("dpkt"):
            import dpkt

            module = dpkt.pcap if form == "pcap" else dpkt.pcapng
            source = stack.enter_context(open(name, "rb"))

            def dpkt_reader() -> contextlib.nullcontext[object]:
                source.seek(0)
                return contextlib.nullcontext(module.Reader(source))

            calls["dpkt"] = one_by_one(dpkt_reader)
        yield calls


def one_by_one(open_reader: Callable[[], contextlib.AbstractContextManager[object]]) -> Run:
    def run(times: int) -> int:
        start = clock()
        with open_reader() as reader:
            for _ in itertools.islice(reader, times * BATCH):
                pass
            return clock() - start

    return run
