"""Benchmarks of tuntap: `python bench/run.py receive send`.

Without a name it lists what there is.  Everything runs in a private network that this process makes
for itself, so it needs the right to make one, and leaves nothing behind.
"""

from __future__ import annotations

import os

# A private network is for a process with one thread; numpy would start more.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import importlib
import pathlib
import sys

import report

import tuntap.testing

# A benchmark is a module of this name with TITLE, ROUNDS (how many are worth the time) and
# main(rounds) -> Outcome.
BENCHMARKS = ["receive", "send"]
QUICK_ROUNDS = 7


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("benchmarks", nargs="*", metavar="NAME", help=" ".join(BENCHMARKS))
    parser.add_argument("--rounds", type=int, help="at least 7; default: each benchmark's own")
    parser.add_argument("--quick", action="store_true", help="few rounds, to see whether it runs")
    parser.add_argument(
        "--out", type=pathlib.Path, metavar="DIR", default=pathlib.Path(__file__).parent / "results",
        help="where NAME.md, NAME.json and NAME.png go; default: %(default)s",
    )  # fmt: skip
    options = parser.parse_args()
    unknown = [name for name in options.benchmarks if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark {' '.join(unknown)}; there are: {' '.join(BENCHMARKS)}")
    if options.rounds is not None and options.rounds < 7:
        parser.error("a median wants at least 7 rounds")

    if not options.benchmarks:
        for name in BENCHMARKS:
            print(f"{name:12} {importlib.import_module(name).TITLE}")
        return 0
    tuntap.testing.private_network()
    for name in options.benchmarks:
        benchmark = importlib.import_module(name)
        rounds = options.rounds or (QUICK_ROUNDS if options.quick else benchmark.ROUNDS)
        outcome = benchmark.main(rounds)
        report.show(benchmark.TITLE, outcome)
        report.save(name, benchmark.TITLE, outcome, options.out)
    print(f"\nwritten to {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
