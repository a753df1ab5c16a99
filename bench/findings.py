"""What a benchmark finds: samples of every contestant, and the ratios of pairs of them."""

from __future__ import annotations

import dataclasses
import math

import numpy as np


@dataclasses.dataclass(frozen=True)
class Pair:
    """A contestant, what it is measured against, and the ratio it should reach."""

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
    def of(cls, sample: list[float]) -> Spread:
        ordered = np.sort(np.array(sample))
        n = len(ordered)
        # 95 % confidence interval of a median by order statistics; assumes no distribution.
        reach = 0.98 * math.sqrt(n)
        low, high = ordered[max(0, math.floor(n / 2 - reach))], ordered[min(n - 1, math.ceil(n / 2 + reach))]
        p10, median, p90 = np.percentile(ordered, (10, 50, 90))
        return cls(*(float(x) for x in (median, p10, p90, low, high)))


@dataclasses.dataclass
class Outcome:
    """One table of a benchmark."""

    title: str
    unit: str
    rounds: int
    values: dict[str, Spread]
    """Of every contestant, in `unit`."""
    ratios: dict[Pair, Spread] = dataclasses.field(default_factory=dict)
    limits: dict[str, float] = dataclasses.field(default_factory=dict)
    """What the value of a contestant should not exceed, in `unit`."""
    more_is_better: bool = False
    note: str = ""

    @classmethod
    def of(
        cls, title: str, unit: str, samples: dict[str, list[float]], pairs: list[Pair], **options: object
    ) -> Outcome:
        """Of samples taken in rounds: the ratio of a pair is taken within each round."""
        rounds = min(map(len, samples.values()))
        ratios = {
            pair: Spread.of(
                [a / b for a, b in zip(samples[pair.contestant], samples[pair.baseline], strict=True)]
            )
            for pair in pairs
            if pair.contestant in samples and pair.baseline in samples
        }
        values = {name: Spread.of(sample) for name, sample in samples.items()}
        return cls(title, unit, rounds, values, ratios, **options)

    def verdict(self, pair: Pair) -> str:
        """Whether a pair reached its target."""
        if pair.contestant == pair.baseline:
            return "(noise)"
        if pair.target is None:
            return ""
        median = self.ratios[pair].median
        return (
            "met" if (median >= pair.target if self.more_is_better else median <= pair.target) else "MISSED"
        )
