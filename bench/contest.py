"""Fair comparisons on a noisy machine.

Every comparison is a pair: a contestant and its baseline.  In each round every pair runs once, pairs
in random order, the two of a pair one directly after the other and as often this one first as that;
a pair during which another process took the CPU is measured again.
What is reported is the median over the rounds of the *ratio within a pair*: whatever slows the machine
for longer than a few milliseconds slows both and cancels.  A pair of the baseline with itself shows
what the method cannot tell apart.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import math
import os
import random
import resource
from collections.abc import Callable, Iterator
from itertools import repeat
from time import perf_counter_ns as clock

import numpy as np

LEAD_IN = 64
"""Packets each contestant moves just before its clock starts.

What ran before, the other contestant or the filling of a queue, leaves the caches and the branch
predictors to itself; a C loop has found its way after a packet, an interpreter needs some 10 us.
"""


@dataclasses.dataclass(frozen=True)
class Contestant:
    """One way to move packets, and what is done around it while no clock runs."""

    move: Callable[[int], int]
    """Moves so many packets and returns the nanoseconds it took."""
    prepare: Callable[[int], object]
    """Makes so many packets ready to be moved."""
    check: Callable[[int], object]
    """Raises unless so many packets have been moved since `prepare`."""


@dataclasses.dataclass(frozen=True)
class Pair:
    """A contestant, what it is measured against, and how much longer it may take."""

    contestant: str
    baseline: str
    target: float | None = None


@dataclasses.dataclass
class Spread:
    """Median of a sample, where most of it lies, and how sure the median is."""

    median: float
    p10: float
    p90: float
    low: float
    high: float

    @classmethod
    def of(cls, sample: np.ndarray) -> Spread:
        ordered = np.sort(sample)
        n = len(ordered)
        # 95 % confidence interval of a median by order statistics; assumes no distribution.
        reach = 0.98 * math.sqrt(n)
        low, high = ordered[max(0, math.floor(n / 2 - reach))], ordered[min(n - 1, math.ceil(n / 2 + reach))]
        p10, median, p90 = np.percentile(ordered, (10, 50, 90))
        return cls(*(float(x) for x in (median, p10, p90, low, high)))


@dataclasses.dataclass
class Outcome:
    """Nanoseconds per packet of every contestant, and the ratio of every pair."""

    rounds: int
    packets: int
    times: dict[str, Spread]
    ratios: dict[Pair, Spread]


def run(
    contestants: dict[str, Contestant], pairs: list[Pair], *, packets: int, rounds: int, seed: int = 1
) -> Outcome:
    """Measure all pairs for `rounds` rounds, after some that do not count."""
    chance = random.Random(seed)
    times: dict[str, list[float]] = {name: [] for name in contestants}
    ratios: dict[Pair, list[float]] = {pair: [] for pair in pairs}
    warm_up = max(2, rounds // 20)
    with _quiet():
        for number in range(-warm_up, rounds):
            for pair in chance.sample(pairs, len(pairs)):
                order = [pair.contestant, pair.baseline]
                # Pairs take turns in who is first, half of them one way and half the other.
                backwards = (number + pairs.index(pair)) % 2
                if backwards:
                    order.reverse()
                took = _both([contestants[name] for name in order], packets)
                if number >= 0:
                    for name, each in zip(order, took, strict=True):
                        times[name].append(each)
                    ratios[pair].append(took[1] / took[0] if backwards else took[0] / took[1])
    return Outcome(
        rounds, packets,
        {name: Spread.of(np.array(sample)) for name, sample in times.items() if sample},
        {pair: Spread.of(np.array(sample)) for pair, sample in ratios.items()},
    )  # fmt: skip


def one_by_one(call: Callable, *arguments: object) -> Callable[[int], int]:
    """Moves one packet per call; the loop around it is as cheap as it can be."""

    def measure(packets: int) -> int:
        start = clock()
        if not arguments:
            for _ in repeat(None, packets):
                call()
        elif len(arguments) == 1:
            (first,) = arguments
            for _ in repeat(None, packets):
                call(first)
        else:
            first, second = arguments
            for _ in repeat(None, packets):
                call(first, second)
        return clock() - start

    return measure


def _both(pair: list[Contestant], packets: int) -> list[float]:
    """Nanoseconds per packet of one after the other; again if another process took the CPU."""
    for _ in range(50):
        took, interruptions = [], 0
        for contestant in pair:
            contestant.prepare(LEAD_IN + packets)
            contestant.move(LEAD_IN)
            before = resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw
            took.append(contestant.move(packets) / packets)
            interruptions += resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw - before
            contestant.check(LEAD_IN + packets)
        if not interruptions:
            break
    return took


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No garbage collection, and always the same CPU."""
    cpus = os.sched_getaffinity(0)
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    os.sched_setaffinity(0, {max(cpus)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cpus)
        if collecting:
            gc.enable()
