"""What the plots of a sweep have in common: axes, colours, curves and the best trial."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from mltoolkit import _optional
from mltoolkit.tune._plot_data import log_marks, tick_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mltoolkit.tune._plot_data import Sweep

__all__ = ["colour_bar", "colours", "curves_of", "draw_best", "draw_curves", "new_axes", "tidy", "titles"]

_WORST = 0.9  # the colour scale ends at this quantile: a few diverged trials would take all of it
_POINTS = 400  # of a curve; a figure of the usual size has few more pixels
_FEW_DECADES = 3.0

Curves = dict[str, tuple[list[float], list[float]]]


def new_axes(width: float, height: float) -> Axes:
    """Axes of a new figure, in inches."""
    # Of pyplot, so that notebooks and `plt.show()` show it.
    pyplot: Any = _optional.require("matplotlib.pyplot", purpose="tune.plot", extra="plot")
    _, axes = pyplot.subplots(figsize=(width, height), dpi=100, layout="constrained")
    created: Axes = axes
    return created


def colours(sweep: Sweep, *, log: bool) -> tuple[Any, Any]:
    """The map from values to colours: the better, the darker; and the end of the scale at the worst ones."""
    matplotlib: Any = _optional.require("matplotlib", purpose="tune.plot", extra="plot")
    colors: Any = _optional.require("matplotlib.colors", purpose="tune.plot", extra="plot")
    values = sorted(trial.value or 0.0 for trial in sweep.finished)
    low, high = values[0], values[-1]
    if sweep.mode == "min":
        high = values[min(len(values) - 1, math.ceil(_WORST * (len(values) - 1)))]
    else:
        low = values[math.floor((1 - _WORST) * (len(values) - 1))]
    if low == high:
        low, high = values[0], values[-1]
    norm = colors.LogNorm if log and 0 < low < high else colors.Normalize
    return matplotlib.colormaps["viridis" if sweep.mode == "min" else "viridis_r"], norm(low, high)


def colour_bar(axes: Axes, sweep: Sweep, *, log: bool) -> None:
    """The scale of colours beside the axes."""
    cm: Any = _optional.require("matplotlib.cm", purpose="tune.plot", extra="plot")
    colors: Any = _optional.require("matplotlib.colors", purpose="tune.plot", extra="plot")
    cmap, norm = colours(sweep, log=log)
    values = [trial.value or 0.0 for trial in sweep.finished]
    extend = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}[
        (min(values) < norm.vmin, max(values) > norm.vmax)
    ]
    figure: Any = axes.figure
    bar = figure.colorbar(cm.ScalarMappable(norm, cmap), ax=axes, label=f"last {sweep.metric}", extend=extend, pad=0.02)
    if isinstance(norm, colors.LogNorm):
        marks = log_marks(norm.vmin, norm.vmax)
        bar.set_ticks(marks, labels=[tick_label(mark) for mark in marks])
        bar.minorticks_off()


def curves_of(sweep: Sweep, x: str) -> Curves:
    """The history of each trial that has one, by the trial's key."""
    curves = {}
    for trial in sweep.trials:
        history = trial.history
        if history is None or sweep.metric not in history or x not in history:
            continue
        points = history[[x, sweep.metric]].dropna()
        if len(points):
            curves[trial.key] = (points[x].tolist(), points[sweep.metric].tolist())
    if not curves:
        raise ValueError(f"No trial has a history with both {sweep.metric!r} and {x!r}.")
    return curves


def draw_curves(axes: Axes, sweep: Sweep, curves: Curves, x: str) -> bool:
    """Draw all curves; whether the metric's axis is logarithmic."""
    collections: Any = _optional.require("matplotlib.collections", purpose="tune.plot", extra="plot")
    log = sweep.is_log([y for _, curve in curves.values() for y in curve])
    cmap, norm = colours(sweep, log=log)
    drawn = [trial for trial in sweep.finished if trial.key in curves]
    lines = [_thinned(list(zip(*curves[trial.key], strict=True))) for trial in drawn]
    shades = cmap(norm([trial.value or 0.0 for trial in drawn]))
    alpha = min(0.9, max(0.2, 40 / max(len(lines), 1)))
    axes.add_collection(collections.LineCollection(lines, colors=shades, linewidths=1.1, alpha=alpha))
    single = [(line[0], shade) for line, shade in zip(lines, shades, strict=True) if len(line) == 1]
    if single:  # one result makes no line
        points = [point for point, _ in single]
        axes.scatter([a for a, _ in points], [b for _, b in points], s=8, c=[shade for _, shade in single])
    axes.set_xlabel(x)
    axes.set_ylabel(sweep.metric)
    axes.autoscale_view()
    if log:
        _log_axis(axes)
    tidy(axes)
    return log


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    step = math.ceil(len(points) / _POINTS)
    return points if step < 2 else [*points[:-1:step], points[-1]]


def _log_axis(axes: Axes) -> None:
    ticker: Any = _optional.require("matplotlib.ticker", purpose="tune.plot", extra="plot")
    axes.set_yscale("log")
    axes.autoscale_view()
    low, high = axes.get_ylim()
    subs = (1, 2, 5) if math.log10(high / low) < _FEW_DECADES else (1,)
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=subs))
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: tick_label(value)))
    axes.yaxis.set_minor_formatter(ticker.NullFormatter())


def draw_best(axes: Axes, sweep: Sweep, x: list[float], y: list[float], **legend: Any) -> None:
    """Draw the best trial over the others, under the name that tables give it."""
    marker = "o" if len(x) == 1 else ""
    axes.plot(x, y, color="black", linewidth=1.8, marker=marker, label=f"best: {sweep.best.name}", zorder=5)
    axes.legend(**{"loc": "lower left", "bbox_to_anchor": (0.0, 1.0), "frameon": False, **legend})


def tidy(axes: Axes) -> None:
    """Take away the lines that mark nothing."""
    axes.spines["top"].set_visible(False)
    axes.spines["right"].set_visible(False)


def titles(names: list[str]) -> list[str]:
    """The last part of nested names where that tells them apart."""
    last = [name.rpartition("/")[2] for name in names]
    return [short if last.count(short) == 1 else name for name, short in zip(names, last, strict=True)]
