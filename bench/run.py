"""Benchmarks of tuntap beside its peers: `python bench/run.py relay kernels`, or `all`.

Without a name it lists what there is.  Peers are built first (see peers.py).  Everything runs in a
private network that this process makes for itself, so it needs the right to make one, and leaves nothing
behind.
"""

from __future__ import annotations

import os

# A private network is for a process with one thread; numpy would start more.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import importlib
import pathlib
import sys

import peers
import report

import tuntap.testing

# A benchmark is a module of this name with TITLE, ROUNDS (how many are worth the time) and
# main(rounds, peers) -> list of Outcome.
BENCHMARKS = ["relay", "ping", "async", "kernels", "receive", "send", "columns", "capture"]
ROUNDS_MIN = 5
PAGE = pathlib.Path(__file__).parent.parent / "docs" / "performance.md"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("benchmarks", nargs="*", metavar="NAME", help=" ".join([*BENCHMARKS, "all"]))
    parser.add_argument("--rounds", type=int, help=f"at least {ROUNDS_MIN}; default: each benchmark's own")
    parser.add_argument("--quick", action="store_true", help="few rounds, to see whether it runs")
    parser.add_argument(
        "--out", type=pathlib.Path, metavar="DIR", default=pathlib.Path(__file__).parent / "results",
        help="where NAME.md, NAME.json and NAME.png go; default: %(default)s",
    )  # fmt: skip
    options = parser.parse_args()
    if options.benchmarks == ["all"]:
        options.benchmarks = BENCHMARKS
    unknown = [name for name in options.benchmarks if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark {' '.join(unknown)}; there are: {' '.join(BENCHMARKS)}")
    if options.rounds is not None and options.rounds < ROUNDS_MIN:
        parser.error(f"a median wants at least {ROUNDS_MIN} rounds")

    if not options.benchmarks:
        for name in BENCHMARKS:
            print(f"{name:12} {importlib.import_module(name).TITLE}")
        return 0
    found = peers.build()
    about = report.machine()
    tuntap.testing.private_network()
    results = {}
    for name in options.benchmarks:
        benchmark = importlib.import_module(name)
        rounds = options.rounds or (ROUNDS_MIN if options.quick else benchmark.ROUNDS)
        print(f"\n== {benchmark.TITLE}", flush=True)
        results[name] = benchmark.main(rounds, found)
        report.show(results[name])
        report.save(name, benchmark.TITLE, results[name], about, options.out)
    print(f"\nwritten to {options.out}")
    if options.benchmarks == BENCHMARKS and not options.quick:
        report.write_into(PAGE, results, about)
        print(f"and to {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
