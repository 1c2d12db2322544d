"""Medians, ratios and aims of the values of all runtimes, as a table and as JSON."""

from __future__ import annotations

import statistics
from typing import Any

from _metrics import METRICS, RUNTIMES, Aim, judge, times_better

Samples = dict[str, dict[str, list[float]]]
"""Values by metric and runtime."""


def summarise(samples: Samples) -> list[dict[str, Any]]:
    """Return one entry per metric, in the order of `METRICS`.

    Parameters
    ----------
    samples : dict of str to dict of str to list of float
        Values by metric and runtime.

    Returns
    -------
    rows : list of dict
        `metric`, `title`, `unit`, `better`, `runtimes` (median, min, max and samples of each), `times_better_than`
        (mltoolkit against each peer; above 1 is better), and `aims` (text, reached, met).
    """
    rows = []
    for name, metric in METRICS.items():
        by_runtime = {runtime: values for runtime, values in samples.get(name, {}).items() if values}
        if not by_runtime:
            continue
        medians = {runtime: metric.summarise(values) for runtime, values in by_runtime.items()}
        ours = medians.get("mltoolkit")
        peers = [runtime for runtime in RUNTIMES if runtime in medians and runtime != "mltoolkit"]
        rows.append(
            {
                "metric": name,
                "title": metric.title,
                "unit": metric.unit,
                "better": metric.better,
                "runtimes": {
                    runtime: {"median": medians[runtime], "min": min(values), "max": max(values), "samples": values}
                    for runtime, values in by_runtime.items()
                },
                "times_better_than": {}
                if ours is None
                else {peer: times_better(metric, ours, medians[peer]) for peer in peers},
                "aims": [
                    {"aim": describe_aim(aim, metric.unit), "reached": reached, "met": met}
                    for aim, reached, met in judge(metric, medians)
                ],
            }
        )
    return rows


def describe_aim(aim: Aim, unit: str) -> str:
    """Return an aim in words: `10x ray`, `<= 1 s`."""
    if aim.against is None:
        return f"<= {aim.factor:g} {unit}"
    return f"{aim.factor:g}x {aim.against}"


def render(rows: list[dict[str, Any]]) -> str:
    """Return the table as text: median and spread of each runtime, the ratios to the main peers, the aims."""
    runtimes = [runtime for runtime in RUNTIMES if any(runtime in row["runtimes"] for row in rows)]
    ratios = [
        peer for peer in ("ray", "loky", "optuna", "sb3") if any(peer in row["times_better_than"] for row in rows)
    ]
    header = ["", "unit", *runtimes, *(f"x {peer}" for peer in ratios), "aims"]
    lines = [header]
    for row in rows:
        cells = [_measured(row["runtimes"].get(runtime)) for runtime in runtimes]
        cells += [_number(row["times_better_than"].get(peer)) for peer in ratios]
        lines.append([row["title"], row["unit"], *cells, _aims(row["aims"])])
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    text = []
    for number, line in enumerate(lines):
        padded = [line[0].ljust(widths[0]), line[1].ljust(widths[1])]
        padded += [cell.rjust(width) for cell, width in zip(line[2:-1], widths[2:-1], strict=True)]
        text.append("  ".join([*padded, line[-1]]).rstrip())
        if number == 0:
            text.append("-" * (sum(widths) + 2 * (len(widths) - 1)))
    return "\n".join(text)


def _measured(entry: dict[str, Any] | None) -> str:
    if entry is None:
        return ""
    if len(entry["samples"]) == 1:
        return _number(entry["median"])
    low, _, high = statistics.quantiles(entry["samples"], n=4, method="inclusive")
    spread = (high - low) / 2 / entry["median"] if entry["median"] else 0.0
    return f"{_number(entry['median'])} ±{spread:.0%}"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    if value == 0 or value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value < 10 else f"{value:.1f}"


def _aims(aims: list[dict[str, Any]]) -> str:
    words = {True: "met", False: "MISSED", None: "not measured"}
    return ", ".join(f"{each['aim']}: {words[each['met']]}" for each in aims)
