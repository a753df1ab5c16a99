"""What a benchmark found, as text, Markdown, JSON and a picture."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import platform
import shlex
import subprocess
import sys
from importlib.metadata import version

from contest import LEAD_IN, Outcome, Pair, Spread

Table = list[list[str]]


def machine() -> dict[str, str]:
    """What the numbers depend on."""
    compiler = shlex.split(os.environ.get("CC", "cc"))
    built_with = subprocess.run([*compiler, "--version"], capture_output=True, text=True, check=True).stdout
    return {
        "kernel": f"{platform.system()} {platform.release()}",
        "CPU": f"{_cpu_model()}, {len(os.sched_getaffinity(0))} CPUs",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "C compiler": built_with.splitlines()[0],
        **{package: version(package) for package in ("tuntap", "numpy", "python-pytun")},
    }


def _cpu_model() -> str:
    with open("/proc/cpuinfo") as lines:
        for line in lines:
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Model"):
                return value.strip()
    return platform.machine()


def times_table(outcome: Outcome) -> Table:
    rows = [["ns per packet", "median", "p10", "p90"]]
    for name, spread in outcome.times.items():
        rows.append([name, *(f"{n:.0f}" for n in (spread.median, spread.p10, spread.p90))])
    return rows


def ratios_table(outcome: Outcome) -> Table:
    rows = [["ratio of times", "median", "95% interval", "p10", "p90", "target", ""]]
    for pair, spread in outcome.ratios.items():
        rows.append([
            f"{pair.contestant} / {pair.baseline}",
            f"{spread.median:.3f}",
            f"{spread.low:.3f}..{spread.high:.3f}",
            f"{spread.p10:.3f}",
            f"{spread.p90:.3f}",
            "" if pair.target is None else f"<= {pair.target:.2f}",
            _verdict(pair, spread),
        ])  # fmt: skip
    return rows


def _verdict(pair: Pair, spread: Spread) -> str:
    if pair.contestant == pair.baseline:
        return "(noise)"
    if pair.target is None:
        return ""
    return "met" if spread.median <= pair.target else "MISSED"


def as_text(table: Table) -> str:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for row in table:
        cells = [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def as_markdown(table: Table) -> str:
    rule = ["---", *["--:"] * (len(table[0]) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [table[0], rule, *table[1:]])


def show(title: str, outcome: Outcome) -> None:
    """Print the tables."""
    print(f"\n{title}; {outcome.rounds} rounds of {outcome.packets} packets\n")
    print(as_text(times_table(outcome)), end="\n\n")
    print(as_text(ratios_table(outcome)), flush=True)


def save(name: str, title: str, outcome: Outcome, folder: pathlib.Path) -> None:
    """Write NAME.md, NAME.json and NAME.png."""
    folder.mkdir(parents=True, exist_ok=True)
    about = machine()
    text = [
        f"# {title}",
        f"{outcome.rounds} rounds of {outcome.packets} packets, each after {LEAD_IN} that are not "
        "timed. A ratio is taken between two measurements made one directly after the other; its median is "
        "over the rounds, with the 95% confidence interval of that median, and the 10th and 90th percentile "
        "of the single ratios.",
        as_markdown(ratios_table(outcome)),
        as_markdown(times_table(outcome)),
        "\n".join(f"- {key}: {value}" for key, value in about.items()),
    ]
    (folder / f"{name}.md").write_text("\n\n".join(text) + "\n")
    data = {
        "title": title,
        "machine": about,
        "rounds": outcome.rounds,
        "packets": outcome.packets,
        "ns_per_packet": {n: dataclasses.asdict(spread) for n, spread in outcome.times.items()},
        "ratios": [
            dataclasses.asdict(pair) | dataclasses.asdict(spread) for pair, spread in outcome.ratios.items()
        ],
    }
    (folder / f"{name}.json").write_text(json.dumps(data, indent=2) + "\n")
    try:
        draw(title, outcome, about, folder / f"{name}.png")
    except ImportError:
        print("no picture: matplotlib is not installed", file=sys.stderr)


def draw(title: str, outcome: Outcome, about: dict[str, str], path: pathlib.Path) -> None:
    """Bars of the ratios, from p10 to p90 a whisker, and a mark where the target is."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pairs = list(outcome.ratios)[::-1]
    spreads = [outcome.ratios[pair] for pair in pairs]
    figure, axes = pyplot.subplots(figsize=(9, 1.6 + 0.55 * len(pairs)), layout="constrained")
    colours = {"met": "#4c9f70", "MISSED": "#c8553d"}
    axes.barh(
        range(len(pairs)),
        [s.median for s in spreads],
        xerr=[[s.median - s.p10 for s in spreads], [s.p90 - s.median for s in spreads]],
        color=[colours.get(_verdict(p, s), "#9aa5b1") for p, s in zip(pairs, spreads, strict=True)],
        height=0.6, error_kw={"capsize": 3, "elinewidth": 1, "ecolor": "#333333"},
    )  # fmt: skip
    edge = max(1.5, max(s.p90 for s in spreads) * 1.02)
    for y, (pair, spread) in enumerate(zip(pairs, spreads, strict=True)):
        axes.text(edge, y, f" {spread.median:.3f}", va="center")
        if pair.target is not None:
            axes.plot([pair.target] * 2, [y - 0.4, y + 0.4], color="black", linewidth=2)
    axes.plot([], [], color="black", linewidth=2, label="target")
    axes.axvline(1, color="#333333", linestyle=":", linewidth=1, label="as fast as the baseline")
    axes.set_yticks(range(len(pairs)), [f"{p.contestant} / {p.baseline}" for p in pairs])
    axes.set_xlim(0, edge)
    axes.set_xlabel("ratio of times, median over rounds (whiskers: 10th to 90th percentile); less is better")
    axes.set_title(title)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.08), ncols=2, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.supxlabel(
        f"{about['CPU']}, {about['kernel']}, {about['Python']}, numpy {about['numpy']}; "
        f"{outcome.rounds} rounds of {outcome.packets} packets", fontsize=8, color="#555555",
    )  # fmt: skip
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
