"""What a benchmark found, as text, Markdown, JSON and a picture."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import pathlib
import platform
import shlex
import subprocess
from importlib.metadata import PackageNotFoundError, version

import peers
from findings import Outcome, Pair, Spread

Table = list[list[str]]
BEGIN, END = "<!-- begin of what `make bench` wrote -->", "<!-- end of what `make bench` wrote -->"


def machine() -> dict[str, str]:
    """What the numbers depend on."""
    compiler = shlex.split(os.environ.get("CC", "cc"))
    built_with = subprocess.run([*compiler, "--version"], capture_output=True, text=True, check=True).stdout
    return {
        "kernel": f"{platform.system()} {platform.release()}",
        "CPU": f"{_cpu_model()}, {len(os.sched_getaffinity(0))} CPUs",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "C compiler": built_with.splitlines()[0],
        **{package: _version(package) for package in ("tuntap", "numpy", "python-pytun", "scapy", "dpkt")},
        **peers.versions(),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _cpu_model() -> str:
    with open("/proc/cpuinfo") as lines:
        for line in lines:
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Model"):
                return value.strip()
    return platform.machine()


def values_table(outcome: Outcome) -> Table:
    rows = [[outcome.unit, "median", "p10", "p90", *(["limit", ""] if outcome.limits else [])]]
    for name, spread in outcome.values.items():
        row = [name, *(_number(n) for n in (spread.median, spread.p10, spread.p90))]
        if outcome.limits:
            limit = outcome.limits.get(name)
            row += ["", ""] if limit is None else [f"<= {_number(limit)}", _kept(spread, limit)]
        rows.append(row)
    return rows


def _number(value: float) -> str:
    """Three digits that mean something."""
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}" if value > 0 else f"{value:.0f}"


def _kept(spread: Spread, limit: float) -> str:
    return "met" if spread.median <= limit else "MISSED"


def ratios_table(outcome: Outcome) -> Table:
    rows = [["ratio", "median", "95% interval", "p10", "p90", "target", ""]]
    for pair, spread in outcome.ratios.items():
        rows.append([
            f"{pair.contestant} / {pair.baseline}",
            f"{spread.median:.3f}",
            f"{spread.low:.3f}..{spread.high:.3f}",
            f"{spread.p10:.3f}",
            f"{spread.p90:.3f}",
            _target(outcome, pair),
            outcome.verdict(pair),
        ])  # fmt: skip
    return rows


def _target(outcome: Outcome, pair: Pair) -> str:
    sign = ">=" if outcome.more_is_better else "<="
    return "" if pair.target is None else f"{sign} {pair.target:.2f}"


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


def tables(outcome: Outcome) -> list[Table]:
    return [ratios_table(outcome), values_table(outcome)] if outcome.ratios else [values_table(outcome)]


def show(outcomes: list[Outcome]) -> None:
    """Print the tables."""
    for outcome in outcomes:
        print(f"\n{outcome.title}; {outcome.rounds} rounds\n")
        print("\n\n".join(map(as_text, tables(outcome))), flush=True)


def save(name: str, title: str, outcomes: list[Outcome], about: dict[str, str], folder: pathlib.Path) -> None:
    """Write NAME.md, NAME.json and NAME.png."""
    folder.mkdir(parents=True, exist_ok=True)
    text = [
        f"# {title}",
        "Medians over the rounds. A ratio is taken within each round; behind its median are the 95% "
        "confidence interval of that median and the 10th and 90th percentile of the single ratios.",
    ]
    for outcome in outcomes:
        text += [f"## {outcome.title}", f"{outcome.rounds} rounds. {outcome.note}".strip()]
        text += map(as_markdown, tables(outcome))
    text += ["## The machine", "\n".join(f"- {key}: {value}" for key, value in about.items())]
    (folder / f"{name}.md").write_text("\n\n".join(text) + "\n")
    data = {"title": title, "machine": about, "outcomes": [as_data(outcome) for outcome in outcomes]}
    (folder / f"{name}.json").write_text(json.dumps(data, indent=2) + "\n")
    draw(title, outcomes, about, folder / f"{name}.png")


def as_data(outcome: Outcome) -> dict[str, object]:
    return {
        "title": outcome.title,
        "unit": outcome.unit,
        "rounds": outcome.rounds,
        "more_is_better": outcome.more_is_better,
        "values": {name: dataclasses.asdict(spread) for name, spread in outcome.values.items()},
        "ratios": [
            dataclasses.asdict(pair) | dataclasses.asdict(spread) for pair, spread in outcome.ratios.items()
        ],
        "limits": outcome.limits,
    }


def write_into(page: pathlib.Path, results: dict[str, list[Outcome]], about: dict[str, str]) -> None:
    """Put the ratios of a whole run between the marks of a page."""
    lines = [", ".join(f"{key} {value}" for key, value in about.items()) + "."]
    for name, outcomes in results.items():
        for outcome in outcomes:
            table = tables(outcome)[0]
            lines += [f"**{outcome.title}** ({outcome.unit}; {outcome.rounds} rounds; `{name}`)"]
            lines += [as_markdown([row[:3] + row[-2:] for row in table] if outcome.ratios else table)]
    before, rest = page.read_text().split(BEGIN)
    behind = rest.split(END)[1]
    page.write_text(before + "\n\n".join([BEGIN, *lines, END]) + behind)


COLOURS = {"met": "#4c9f70", "MISSED": "#c8553d"}


def draw(title: str, outcomes: list[Outcome], about: dict[str, str], path: pathlib.Path) -> None:
    """Bars, from p10 to p90 a whisker: of the ratios, or of the values where there are none."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    heights = [0.7 + 0.35 * len(outcome.ratios or outcome.values) for outcome in outcomes]
    figure, rows = pyplot.subplots(
        len(outcomes),
        figsize=(10, sum(heights) + 1),
        height_ratios=heights,
        layout="constrained",
        squeeze=False,
    )  # fmt: skip
    for axes, outcome in zip(rows[:, 0], outcomes, strict=True):
        (draw_ratios if outcome.ratios else draw_values)(axes, outcome)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontweight="bold")
    figure.supxlabel(
        f"medians, whiskers from the 10th to the 90th percentile; {about['CPU']}, {about['kernel']}, "
        f"{about['Python']}", fontsize=8, color="#555555",
    )  # fmt: skip
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def draw_ratios(axes: object, outcome: Outcome) -> None:
    pairs = list(outcome.ratios)[::-1]
    targets = [pair.target or 0.0 for pair in pairs]
    bars(
        axes,
        [outcome.ratios[pair] for pair in pairs],
        [outcome.verdict(pair) for pair in pairs],
        max(targets),
    )
    for y, pair in enumerate(pairs):
        if pair.target is not None:
            axes.plot([pair.target] * 2, [y - 0.4, y + 0.4], color="black", linewidth=2)
    axes.axvline(1, color="#333333", linestyle=":", linewidth=1)
    axes.set_yticks(range(len(pairs)), [f"{p.contestant} / {p.baseline}" for p in pairs])
    kind = "more" if outcome.more_is_better else "less"
    axes.set_title(
        f"{outcome.title} - ratio, {kind} is better; the mark is the target", fontsize=9, loc="left"
    )


def draw_values(axes: object, outcome: Outcome) -> None:
    names = list(outcome.values)[::-1]
    spreads = [outcome.values[name] for name in names]
    verdicts = [
        _kept(spread, outcome.limits[name]) if name in outcome.limits else ""
        for name, spread in zip(names, spreads, strict=True)
    ]
    bars(axes, spreads, verdicts, max(outcome.limits.values(), default=0.0))
    axes.set_yticks(range(len(names)), names)
    axes.set_title(f"{outcome.title} - {outcome.unit}", fontsize=9, loc="left")


def bars(axes: object, spreads: list[Spread], verdicts: list[str], target: float) -> None:
    edge = max(target, *(s.p90 for s in spreads)) * 1.04
    axes.barh(
        range(len(spreads)),
        [s.median for s in spreads],
        xerr=[[s.median - s.p10 for s in spreads], [s.p90 - s.median for s in spreads]],
        color=[COLOURS.get(verdict, "#9aa5b1") for verdict in verdicts],
        height=0.6, error_kw={"capsize": 3, "elinewidth": 1, "ecolor": "#333333"},
    )  # fmt: skip
    for y, spread in enumerate(spreads):
        axes.text(edge, y, f" {_number(spread.median)}", va="center")
    axes.set_xlim(0, edge)
    axes.set_ylim(-0.6, len(spreads) - 0.4)
