"""Async: the relay and its ping on event loops, beside the one that blocks in threads and tun-rs on tokio.

It is the same relay, a task in place of each thread.  In each round every contestant takes its turn, in
random order; ratios are taken within the round.
"""

from __future__ import annotations

import random

import numpy as np
from findings import Outcome, Pair
from link import Link, Relay, attempt, hosts
from peers import Peer
from relay import measure

TITLE = "async: the relay and its ping on asyncio, uvloop and trio"
ROUNDS = 9
PINGS = 200
INTERVAL = 0.002  # seconds

BLOCKING = "tuntap, threads"
# Who takes part, by the name of its peer.
CONTESTANTS = {
    BLOCKING: "tuntap",
    "asyncio": "tuntap, asyncio",
    "uvloop": "tuntap, uvloop",
    "trio": "tuntap, trio",
    "asyncio, two loops": "tuntap, two-loops",
    "tun-rs, tokio": "tun-rs, tokio",
}
PING_PAIRS = [
    Pair("asyncio", BLOCKING, 1.15), Pair("uvloop", BLOCKING, 1.15), Pair("trio", BLOCKING),
    Pair("asyncio, two loops", BLOCKING), Pair("tun-rs, tokio", BLOCKING), Pair("uvloop", "tun-rs, tokio"),
]  # fmt: skip
SPEED_PAIRS = [
    Pair("asyncio", BLOCKING, 0.9), Pair("uvloop", BLOCKING, 0.95), Pair("trio", BLOCKING),
    Pair("asyncio, two loops", BLOCKING), Pair("tun-rs, tokio", BLOCKING),
]  # fmt: skip
# Each workload: the mode, and the ratio to tun-rs on tokio that asyncio and uvloop should reach.
WORKLOADS = {"without offload": ("plain", None), "split and coalesced": ("offload", 1.0)}


def main(rounds: int, peers: dict[str, Peer]) -> list[Outcome]:
    chance = random.Random(1)
    with hosts() as spaces:
        outcomes = pings(spaces, rounds, peers, chance)
        for what, (mode, target) in WORKLOADS.items():
            pairs = [*SPEED_PAIRS, *tokio_pairs(target)]
            outcomes += transfers(spaces, rounds, peers, chance, what, mode, pairs)
    return outcomes


def relays_of(mode: str, peers: dict[str, Peer]) -> dict[str, Relay]:
    return {
        name: Relay(name, (*peers[peer].relay, mode)) for name, peer in CONTESTANTS.items() if peer in peers
    }


def pings(spaces: list[str], rounds: int, peers: dict[str, Peer], chance: random.Random) -> list[Outcome]:
    """Round trips through a relay that has nothing else to do."""
    relays = relays_of("plain", peers)
    samples = {share: {name: [] for name in relays} for share in (50, 99)}
    for number in range(rounds):
        for name in chance.sample(list(relays), len(relays)):
            with Link.between(spaces, relays[name]) as link:
                times = attempt(link.round_trips, PINGS, INTERVAL)
            for share, sample in samples.items():
                sample[name].append(float(np.percentile(times, share)) * 1e6)
        print(f"  ping: round {number + 1} of {rounds}", flush=True)
    targets = {50: PING_PAIRS, 99: [Pair(pair.contestant, pair.baseline) for pair in PING_PAIRS]}
    return [
        Outcome.of(f"ping p{share} of {PINGS} round trips", "µs", sample, targets[share])
        for share, sample in samples.items()
    ]


def tokio_pairs(target: float | None) -> list[Pair]:
    return [
        Pair("asyncio", "tun-rs, tokio", target), Pair("uvloop", "tun-rs, tokio", target),
        Pair("trio", "tun-rs, tokio"), Pair("asyncio, two loops", "tun-rs, tokio"),
    ]  # fmt: skip


def transfers(
    spaces: list[str], rounds: int, peers: dict[str, Peer], chance: random.Random,
    what: str, mode: str, pairs: list[Pair],
) -> list[Outcome]:  # fmt: skip
    """TCP through the relay, as the benchmark `relay` measures it."""
    relays = relays_of(mode, peers)
    speed: dict[str, list[float]] = {name: [] for name in relays}
    cpu: dict[str, list[float]] = {name: [] for name in relays}
    for number in range(rounds):
        for name in chance.sample(list(relays), len(relays)):
            gigabits, seconds, _ = measure(spaces, relays[name], 1)
            speed[name].append(gigabits)
            cpu[name].append(seconds)
        print(f"  {what}: round {number + 1} of {rounds}", flush=True)
    return [
        Outcome.of(f"relay {what}: throughput", "Gb/s", speed, pairs, more_is_better=True),
        Outcome.of(
            f"relay {what}: CPU time of the relay, user and kernel",
            "s/GB", cpu, [Pair(pair.contestant, pair.baseline) for pair in pairs],
        ),
    ]  # fmt: skip
