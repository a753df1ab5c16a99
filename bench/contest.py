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
import ctypes
import dataclasses
import gc
import os
import random
import resource
from collections.abc import Callable, Iterator
from itertools import repeat
from time import perf_counter_ns as clock

import devices
from findings import Outcome, Pair, Spread

LEAD_IN = 64
"""Packets each contestant moves just before its clock starts.

What ran before, the other contestant or the filling of a queue, leaves the caches and the branch
predictors to itself; a C loop has found its way after a packet, an interpreter needs some 10 us.
"""


@dataclasses.dataclass(frozen=True)
class Contestant:
    """One way to move packets, and what is done around it while no clock runs."""

    move: Callable[[int, int], int]
    """Moves so many packets that do not count, then so many, and returns the nanoseconds these took."""
    prepare: Callable[[int], object]
    """Makes so many packets ready to be moved."""
    check: Callable[[int], object]
    """Raises unless so many packets have been moved since `prepare`."""


def run(
    title: str, contestants: dict[str, Contestant], pairs: list[Pair], *, packets: int, rounds: int
) -> Outcome:
    """Measure all pairs for `rounds` rounds, after some that do not count."""
    chance = random.Random(1)
    pairs = [pair for pair in pairs if {pair.contestant, pair.baseline} <= contestants.keys()]
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
        title, "ns per packet", rounds,
        {name: Spread.of(sample) for name, sample in times.items() if sample},
        {pair: Spread.of(sample) for pair, sample in ratios.items()},
        note=f"{packets} packets a round, each time after {LEAD_IN} that are not timed.",
    )  # fmt: skip


def timed(loop: Callable[[int], object]) -> Callable[[int, int], int]:
    """The `move` of a loop over so many packets."""

    def measure(lead_in: int, packets: int) -> int:
        loop(lead_in)
        start = clock()
        loop(packets)
        return clock() - start

    return measure


def repeated(call: Callable[[], object]) -> Callable[[int], int]:
    """The nanoseconds that so many calls take."""

    def run(times: int) -> int:
        start = clock()
        for _ in repeat(None, times):
            call()
        return clock() - start

    return run


def sampled(
    calls: dict[str, Callable[[int], int]], times: dict[str, int] | int, rounds: int
) -> dict[str, list[float]]:
    """Nanoseconds of one call of each, in so many rounds; all of them in each, in random order."""
    chance = random.Random(1)
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(-5, rounds):
        for name in chance.sample(list(calls), len(calls)):
            repetitions = times if isinstance(times, int) else times[name]
            took = calls[name](repetitions) / repetitions
            if number >= 0:
                samples[name].append(took)
    return samples


def memcpy(size: int) -> tuple[ctypes.Array[ctypes.c_char], Callable[[], object]]:
    """Where so many bytes are copied to, and the copy, by the C library; the call by ctypes is part of it."""
    source, target = ctypes.create_string_buffer(b"x" * size, size), ctypes.create_string_buffer(size)
    copy = ctypes.CDLL(None).memcpy
    copy.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    copy.restype = None
    return target, lambda: copy(target, source, size)


def one_by_one(call: Callable, *arguments: object) -> Callable[[int, int], int]:
    """Moves one packet per call; the loop around it is as cheap as it can be."""

    def loop(packets: int) -> None:
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

    return timed(loop)


def _both(pair: list[Contestant], packets: int) -> list[float]:
    """Nanoseconds per packet of one after the other; again if another process took the CPU."""
    for _ in range(50):
        took, interruptions = [], 0
        for contestant in pair:
            contestant.prepare(LEAD_IN + packets)
            before = resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw
            took.append(contestant.move(LEAD_IN, packets) / packets)
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
    os.sched_setaffinity(0, {devices.CPU})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cpus)
        if collecting:
            gc.enable()
