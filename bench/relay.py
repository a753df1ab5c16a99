"""Relay: TCP between two hosts whose only link is a program with a TUN on either side.

In each round every relay of a workload carries one iperf3 transfer, in random order; ratios are taken within
the round.
"""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys

from findings import Outcome, Pair, Spread
from link import Link, Relay, attempt, hosts, peak_memory
from peers import Peer

TITLE = "relay: TCP through a program with two TUNs, and its CPU time and memory"
ROUNDS = 7
SECONDS = 2  # of a transfer

# Each workload: who takes part, in which mode, how many flows, and the pairs of throughput and of CPU time.
WORKLOADS = {
    "without offload": (
        ["tuntap", "C", "tun-rs", "wireguard-go", "os.read, os.write", "python-pytun"], "plain", 1,
        [Pair("tuntap", "tun-rs", 1.0), Pair("tuntap", "C", 0.97), Pair("tun-rs", "C"),
         Pair("wireguard-go", "C"), Pair("os.read, os.write", "C"), Pair("python-pytun", "C")],
        [],
    ),
    "split and coalesced": (
        ["tuntap", "tuntap, asyncio", "tuntap unchecked", "C", "tun-rs", "wireguard-go"], "offload", 1,
        [Pair("tuntap", "tun-rs", 1.2), Pair("tuntap, asyncio", "tun-rs", 1.2),
         Pair("tuntap unchecked", "tun-rs"), Pair("wireguard-go", "tun-rs"), Pair("C", "tun-rs")],
        [Pair("tuntap", "tun-rs", 0.75), Pair("tuntap, asyncio", "tun-rs", 0.75),
         Pair("tuntap unchecked", "tun-rs"), Pair("C", "tun-rs")],
    ),
    "split and coalesced, two flows": (
        ["tuntap", "tuntap, asyncio", "C", "tun-rs", "wireguard-go"], "offload", 2,
        [Pair("tuntap", "tun-rs", 1.2), Pair("tuntap, asyncio", "tun-rs", 1.2),
         Pair("wireguard-go", "tun-rs"), Pair("C", "tun-rs")],
        [Pair("tuntap", "tun-rs", 0.75), Pair("tuntap, asyncio", "tun-rs", 0.75),
         Pair("wireguard-go", "tun-rs"), Pair("C", "tun-rs")],
    ),
    "super-packets whole": (["tuntap", "C"], "superpackets", 1, [Pair("tuntap", "C", 0.97)], []),
    "without offload, two queues": (
        ["tuntap", "C", "tun-rs"], "plain-queues", 4,
        [Pair("tuntap", "tun-rs", 1.0), Pair("tuntap", "C")], [],
    ),
    "split and coalesced, two queues": (
        ["tuntap", "tun-rs"], "offload-queues", 4, [Pair("tuntap", "tun-rs", 1.0)], [],
    ),
    "super-packets whole, two queues": (["tuntap", "C"], "superpackets-queues", 4, [Pair("tuntap", "C")], []),
}  # fmt: skip
MEMORY_LIMIT = 12.0  # MB above a Python that only imported numpy


def main(rounds: int, peers: dict[str, Peer]) -> list[Outcome]:
    chance = random.Random(1)
    memory: dict[str, list[float]] = {}
    outcomes = []
    with hosts() as spaces:
        for what, (names, mode, flows, pairs, cpu_pairs) in WORKLOADS.items():
            relays = {name: relay for name in names if (relay := relay_of(name, mode, peers))}
            speed: dict[str, list[float]] = {name: [] for name in relays}
            cpu: dict[str, list[float]] = {name: [] for name in relays}
            for number in range(rounds):
                for name in chance.sample(list(relays), len(relays)):
                    gigabits, seconds, megabytes = measure(spaces, relays[name], flows)
                    speed[name].append(gigabits)
                    cpu[name].append(seconds)
                    memory.setdefault(f"{name}, {relays[name].command[-1]}", []).append(megabytes)
                print(f"  {what}: round {number + 1} of {rounds}", flush=True)
            title = f"relay {what}"
            outcomes += [
                Outcome.of(f"{title}: throughput", "Gb/s", speed, pairs, more_is_better=True),
                Outcome.of(
                    f"{title}: CPU time of the relay, user and kernel",
                    "s/GB", cpu, cpu_pairs or [Pair(pair.contestant, pair.baseline) for pair in pairs],
                ),
            ]  # fmt: skip
    return [*outcomes, memory_outcome(memory)]


def relay_of(name: str, mode: str, peers: dict[str, Peer]) -> Relay | None:
    """How a contestant of a workload is started."""
    if name == "tuntap unchecked":
        return Relay(name, (*peers["tuntap"].relay, "unchecked"))
    if name == "C" and mode == "offload":
        mode = "superpackets"  # it neither splits nor coalesces: what there is to reach
    return Relay(name, (*peers[name].relay, mode)) if name in peers else None


def measure(spaces: list[str], relay: Relay, flows: int) -> tuple[float, float, float]:
    """Gb/s, CPU seconds per GB and peak memory of one transfer through a relay started for it."""
    with Link.between(spaces, relay) as link:
        transfer = attempt(link.transfer, SECONDS, flows)
        gigabytes = transfer.bytes / 1e9
        return 8 * gigabytes / transfer.seconds, transfer.relay_cpu / gigabytes, link.peak_memory() / 1e6


def memory_outcome(memory: dict[str, list[float]]) -> Outcome:
    """Peak resident memory of each relay, and ours beside a Python that only imported numpy."""
    alone = numpy_memory()
    values = {name: Spread.of(sample) for name, sample in memory.items()}
    values["Python with numpy"] = Spread.of([alone])
    ours = [name for name in memory if name.startswith("tuntap") and "asyncio" not in name]
    limits = {name: alone + MEMORY_LIMIT for name in ours}
    rounds = min(map(len, memory.values()))
    return Outcome("peak memory of the relay", "MB", rounds, values, limits=limits)


def numpy_memory() -> float:
    """MB of a Python that imported numpy and does nothing."""
    command = [sys.executable, "-c", "import numpy; print(flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        peak = peak_memory(process.pid)
        with contextlib.suppress(BrokenPipeError):
            process.communicate(b"\n")
    return peak / 1e6
