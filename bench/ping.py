"""Ping: round trips through a relay that has nothing else to do."""

from __future__ import annotations

import random

import numpy as np
from findings import Outcome, Pair
from link import Link, attempt, hosts
from peers import Peer
from relay import relay_of

TITLE = "ping: round trips through a relay"
ROUNDS = 9
PINGS = 200
INTERVAL = 0.002  # seconds

CONTESTANTS = {
    name: (peer, mode)
    for peer in ("tuntap", "C", "tun-rs", "wireguard-go", "os.read, os.write", "python-pytun")
    for name, mode in ((peer, "plain"), (f"{peer}, offload", "offload"))
    if mode == "plain" or peer in ("tuntap", "tun-rs", "wireguard-go")
}
PAIRS = [
    Pair("tuntap", "C"), Pair("tuntap", "tun-rs"), Pair("tun-rs", "C"), Pair("wireguard-go", "C"),
    Pair("os.read, os.write", "C"), Pair("python-pytun", "C"), Pair("tuntap, offload", "tun-rs, offload"),
]  # fmt: skip


def main(rounds: int, peers: dict[str, Peer]) -> list[Outcome]:
    chance = random.Random(1)
    with hosts() as spaces:
        relays = {
            name: relay
            for name, (peer, mode) in CONTESTANTS.items()
            if (relay := relay_of(peer, mode, peers))
        }
        samples = {share: {name: [] for name in relays} for share in (50, 99)}
        for number in range(rounds):
            for name in chance.sample(list(relays), len(relays)):
                with Link.between(spaces, relays[name]) as link:
                    times = attempt(link.round_trips, PINGS, INTERVAL)
                for share, sample in samples.items():
                    sample[name].append(float(np.percentile(times, share)) * 1e6)
            print(f"  ping: round {number + 1} of {rounds}", flush=True)
    return [
        Outcome.of(f"ping p{share} of {PINGS} round trips", "µs", sample, PAIRS)
        for share, sample in samples.items()
    ]
