"""Plots of sweeps: learning curves, parallel coordinates, importance of parameters, rungs of ASHA."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mltoolkit import _optional
from mltoolkit.tune._plot_data import LABEL_LENGTH, Scale, Sweep, is_log_like, load
from mltoolkit.tune._plot_importance import importances
from mltoolkit.tune._screen.columns import shorten
from mltoolkit.tune._screen.numbers import format_value

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mltoolkit.tune.analysis.experiment_analysis import ExperimentAnalysis
    from mltoolkit.tune.result_grid import ResultGrid

__all__ = ["asha_rungs", "learning_curves", "parallel_coordinates", "parameter_importance"]

_MAX_RUNGS = 12
_LOG_RUNGS = 8
_WORST = 0.9  # the colour scale ends at this quantile: a few diverged trials would take all of it


def learning_curves(
    results: ResultGrid | ExperimentAnalysis,
    metric: str | None = None,
    *,
    mode: str | None = None,
    x: str = "training_iteration",
    ax: Axes | None = None,
) -> Axes:
    """Plot a metric over the iterations of each trial, coloured by its last value.

    Parameters
    ----------
    results : ResultGrid or ExperimentAnalysis
    metric : str, default=None
        Nested with ``/``; by default the sweep's.
    mode : {'min', 'max'}, default=None
        Which values are good; by default the sweep's.
    x : str, default='training_iteration'
        What to plot over, such as ``'time_total_s'``.
    ax : matplotlib.axes.Axes, default=None
        Where to plot; by default a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If no metric is given and the sweep has none, or no trial has reported it or ``x``.
    ImportError
        If matplotlib is not installed.
    """
    sweep = load(results, metric, mode)
    axes = ax or _new_axes(8.0, 4.5)
    curves = _curves(sweep, x)
    _draw_curves(axes, sweep, curves, x)
    best = sweep.finished[-1]
    if best.name in curves:
        axes.plot(*curves[best.name], color="black", linewidth=1.8, label=f"best: {best.name}", zorder=5)
        axes.legend(loc="best", frameon=False)
    _colour_bar(axes, sweep)
    return axes


def parallel_coordinates(
    results: ResultGrid | ExperimentAnalysis,
    metric: str | None = None,
    *,
    mode: str | None = None,
    params: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Plot each trial as a line through its parameters, coloured by the metric.

    Parameters that spread over orders of magnitude have logarithmic axes.

    Parameters
    ----------
    results : ResultGrid or ExperimentAnalysis
    metric : str, default=None
        By default the sweep's.
    mode : {'min', 'max'}, default=None
        By default the sweep's.
    params : sequence of str, default=None
        Which parameters, nested ones with ``/``; by default those that differ between trials.
    ax : matplotlib.axes.Axes, default=None
        Where to plot; by default a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If there is no metric or no parameter to plot, or a name in ``params`` is unknown.
    ImportError
        If matplotlib is not installed.
    """
    sweep = load(results, metric, mode)
    names = sweep.varied(params)
    collections: Any = _optional.require("matplotlib.collections", purpose="tune.plot", extra="plot")
    axes = ax or _new_axes(max(6.0, 1.6 * (len(names) + 2)), 4.5)
    trials = sweep.finished
    scales = [Scale([trial.params.get(name) for trial in trials]) for name in names]
    values = [trial.value or 0.0 for trial in trials]
    scales.append(Scale(values))
    lines = []
    for trial in trials:
        cells = [*(trial.params.get(name) for name in names), trial.value]
        lines.append([(i, scale.position(cell)) for i, (scale, cell) in enumerate(zip(scales, cells, strict=True))])
    cmap, norm = _colours(sweep)
    alpha = min(0.9, max(0.15, 30 / len(trials)))
    axes.add_collection(collections.LineCollection(lines, colors=cmap(norm(values)), linewidths=1.2, alpha=alpha))
    axes.plot(*zip(*lines[-1], strict=True), color="black", linewidth=1.8, label=f"best: {trials[-1].name}")

    for i, scale in enumerate(scales):
        axes.axvline(i, color="0.4", linewidth=0.8, zorder=3)
        for label, position in scale.ticks():
            axes.annotate(
                label,
                (i, position),
                xytext=(4, 0),
                textcoords="offset points",
                fontsize="small",
                va="center",
                zorder=6,
                bbox={"boxstyle": "round,pad=0.1", "facecolor": "white", "alpha": 0.75, "linewidth": 0},
            )
    titles = [shorten(title, LABEL_LENGTH) for title in (*_titles(names), sweep.metric)]
    axes.set_xticks(range(len(scales)), titles, rotation=0 if len(scales) < 7 else 20)
    axes.set_xlim(-0.1, len(scales) - 1 + 0.35)
    axes.set_ylim(-0.04, 1.04)
    axes.set_yticks([])
    for side in ("top", "left", "right", "bottom"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="x", length=0)
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), frameon=False)
    _colour_bar(axes, sweep)
    return axes


def parameter_importance(
    results: ResultGrid | ExperimentAnalysis,
    metric: str | None = None,
    *,
    mode: str | None = None,
    params: Sequence[str] | None = None,
    seed: int = 0,
    ax: Axes | None = None,
) -> Axes:
    """Plot how much of the metric's variance each parameter explains, by Optuna's fANOVA.

    Parameters
    ----------
    results : ResultGrid or ExperimentAnalysis
    metric : str, default=None
        By default the sweep's.
    mode : {'min', 'max'}, default=None
        By default the sweep's.
    params : sequence of str, default=None
        Which parameters; by default those that differ between trials and that all trials have.
    seed : int, default=0
        Of the forest that fANOVA fits.
    ax : matplotlib.axes.Axes, default=None
        Where to plot; by default a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        One bar for each parameter, the longest on top; they sum to 1.

    Raises
    ------
    ValueError
        If fewer than two trials have finished, their values are all the same, or a parameter is missing in some.
    ImportError
        If matplotlib, optuna or scikit-learn is not installed.

    References
    ----------
    Hutter et al., An Efficient Approach for Assessing Hyperparameter Importance, ICML 2014.
    """
    sweep = load(results, metric, mode)
    trials = sweep.finished
    names = sweep.varied(params)
    if params is None:
        names = [name for name in names if all(name in trial.params for trial in trials)]
    missing = [name for name in names if any(name not in trial.params for trial in trials)]
    if missing:
        raise ValueError(f"Not all trials have the parameter {missing[0]!r}: its importance cannot be told.")
    if len({trial.value for trial in trials}) < 2 or not names:
        raise ValueError(f"Importance takes two trials at least that differ in parameters and in {sweep.metric!r}.")
    importance = importances(sweep, trials, names, seed)
    axes = ax or _new_axes(7.0, 1.2 + 0.4 * len(names))
    ranked = sorted(importance.items(), key=lambda item: item[1])
    titles = dict(zip(names, _titles(names), strict=True))
    bars = axes.barh(
        [shorten(titles[name], LABEL_LENGTH) for name, _ in ranked], [share for _, share in ranked], color="#3d85c6"
    )
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.set_xlim(0, max(share for _, share in ranked) * 1.12)
    axes.set_xlabel(f"importance for {sweep.metric} (share of the variance explained)")
    _tidy(axes)
    return axes


def asha_rungs(
    results: ResultGrid | ExperimentAnalysis,
    metric: str | None = None,
    *,
    mode: str | None = None,
    time_attr: str = "training_iteration",
    ax: Axes | None = None,
) -> Axes:
    """Plot where an early-stopping scheduler stopped the trials: learning curves that end at the rungs.

    Each trial is marked at its last result; above each rung stands how many ended there, and how many were left.

    Parameters
    ----------
    results : ResultGrid or ExperimentAnalysis
    metric : str, default=None
        By default the sweep's.
    mode : {'min', 'max'}, default=None
        By default the sweep's.
    time_attr : str, default='training_iteration'
        What the scheduler's rungs are counted in.
    ax : matplotlib.axes.Axes, default=None
        Where to plot; by default a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If no metric is given and the sweep has none, or no trial has reported it or ``time_attr``.
    ImportError
        If matplotlib is not installed.
    """
    sweep = load(results, metric, mode)
    axes = ax or _new_axes(8.0, 4.8)
    curves = _curves(sweep, time_attr)
    _draw_curves(axes, sweep, curves, time_attr)
    ends = Counter(times[-1] for times, _ in curves.values())
    cmap, norm = _colours(sweep)
    values = {trial.name: trial.value or 0.0 for trial in sweep.finished}
    shown = [(times[-1], curve[-1], values[name]) for name, (times, curve) in curves.items() if name in values]
    axes.scatter(
        [time for time, _, _ in shown],
        [y for _, y, _ in shown],
        c=cmap(norm([value for _, _, value in shown])),
        s=22,
        zorder=4,
        edgecolors="white",
        linewidths=0.5,
    )
    rungs = sorted(time for time, _ in ends.most_common(_MAX_RUNGS))
    if len(rungs) > 2 and 0 < _LOG_RUNGS * rungs[0] <= rungs[-1]:  # each a multiple of the one before
        axes.set_xscale("log")
        axes.minorticks_off()
    axes.set_xticks(rungs, [format_value(rung) for rung in rungs])
    left = len(curves)
    done = 0
    for rung in rungs:
        done = sum(count for time, count in ends.items() if time <= rung)
        axes.axvline(rung, color="0.75", linewidth=0.8, linestyle=":", zorder=1)
        stay = left - done
        text = f"{ends[rung]} stopped\n{stay} left" if stay else f"{ends[rung]} to the end"
        axes.annotate(
            text,
            (rung, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize="small" if len(rungs) < 8 else "xx-small",
        )
    axes.set_xlabel(f"{time_attr} (ticks: where trials ended)")
    _colour_bar(axes, sweep)
    return axes


def _new_axes(width: float, height: float) -> Axes:
    # Of pyplot, so that notebooks and `plt.show()` show it.
    pyplot: Any = _optional.require("matplotlib.pyplot", purpose="tune.plot", extra="plot")
    _, axes = pyplot.subplots(figsize=(width, height), layout="constrained")
    created: Axes = axes
    return created


def _colours(sweep: Sweep) -> tuple[Any, Any]:
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
    norm = colors.LogNorm if is_log_like([value for value in values if low <= value <= high]) else colors.Normalize
    return matplotlib.colormaps["viridis" if sweep.mode == "min" else "viridis_r"], norm(low, high)


def _colour_bar(axes: Axes, sweep: Sweep) -> None:
    cm: Any = _optional.require("matplotlib.cm", purpose="tune.plot", extra="plot")
    cmap, norm = _colours(sweep)
    values = [trial.value or 0.0 for trial in sweep.finished]
    extend = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}[
        (min(values) < norm.vmin, max(values) > norm.vmax)
    ]
    figure: Any = axes.figure
    figure.colorbar(cm.ScalarMappable(norm, cmap), ax=axes, label=f"last {sweep.metric}", extend=extend, pad=0.02)


def _curves(sweep: Sweep, x: str) -> dict[str, tuple[list[float], list[float]]]:
    curves = {}
    for trial in sweep.trials:
        history = trial.history
        if history is None or sweep.metric not in history or x not in history:
            continue
        points = history[[x, sweep.metric]].dropna()
        if len(points):
            curves[trial.name] = (points[x].tolist(), points[sweep.metric].tolist())
    if not curves:
        raise ValueError(f"No trial has a history with both {sweep.metric!r} and {x!r}.")
    return curves


def _draw_curves(axes: Axes, sweep: Sweep, curves: dict[str, tuple[list[float], list[float]]], x: str) -> None:
    collections: Any = _optional.require("matplotlib.collections", purpose="tune.plot", extra="plot")
    cmap, norm = _colours(sweep)
    drawn = [trial for trial in sweep.finished if trial.name in curves]
    lines = [list(zip(*curves[trial.name], strict=True)) for trial in drawn]
    colours = cmap(norm([trial.value or 0.0 for trial in drawn]))
    alpha = min(0.9, max(0.2, 40 / max(len(lines), 1)))
    axes.add_collection(collections.LineCollection(lines, colors=colours, linewidths=1.1, alpha=alpha))
    single = [(line[0], colour) for line, colour in zip(lines, colours, strict=True) if len(line) == 1]
    if single:  # one result makes no line
        points = [point for point, _ in single]
        axes.scatter([a for a, _ in points], [b for _, b in points], s=8, c=[colour for _, colour in single])
    heights = [y for _, curve in curves.values() for y in curve if math.isfinite(y)]
    if is_log_like(heights):
        axes.set_yscale("log")
    axes.set_xlabel(x)
    axes.set_ylabel(sweep.metric)
    axes.autoscale_view()
    _tidy(axes)


def _tidy(axes: Axes) -> None:
    axes.spines["top"].set_visible(False)
    axes.spines["right"].set_visible(False)


def _titles(names: list[str]) -> list[str]:
    """The last part of nested names where that tells them apart."""
    last = [name.rpartition("/")[2] for name in names]
    return [short if last.count(short) == 1 else name for name, short in zip(names, last, strict=True)]
