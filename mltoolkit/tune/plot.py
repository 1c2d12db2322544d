"""Plots of sweeps: learning curves, parallel coordinates, importance of parameters, rungs of ASHA."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mltoolkit import _optional
from mltoolkit.tune._plot_axes import (
    colour_bar,
    colours,
    curves_of,
    draw_best,
    draw_curves,
    new_axes,
    tidy,
    titles,
)
from mltoolkit.tune._plot_data import LABEL_LENGTH, MISSING, Scale, load
from mltoolkit.tune._plot_importance import importances
from mltoolkit.tune._plot_rungs import infer_rungs
from mltoolkit.tune._screen.columns import shorten
from mltoolkit.tune._screen.numbers import format_value

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mltoolkit.tune.analysis.experiment_analysis import ExperimentAnalysis
    from mltoolkit.tune.result_grid import ResultGrid

__all__ = ["asha_rungs", "learning_curves", "parallel_coordinates", "parameter_importance"]

_MAX_RUNGS = 12
_LOG_RUNGS = 8


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
    axes = ax or new_axes(8.0, 4.5)
    curves = curves_of(sweep, x)
    log = draw_curves(axes, sweep, curves, x)
    if sweep.best.key in curves:
        draw_best(axes, sweep, *curves[sweep.best.key])
    colour_bar(axes, sweep, log=log)
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

    Parameters that spread over orders of magnitude have logarithmic axes; so does a metric, for which it is enough
    that the best trials do, if it is minimised.

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
    effects: Any = _optional.require("matplotlib.patheffects", purpose="tune.plot", extra="plot")
    axes = ax or new_axes(max(6.0, 1.4 * (len(names) + 2)), 3.6)
    trials = sweep.finished
    scales = [Scale([trial.params.get(name, MISSING) for trial in trials]) for name in names]
    values = [trial.value or 0.0 for trial in trials]
    log = sweep.is_log(values)
    scales.append(Scale(values, log))
    lines = []
    for trial in trials:
        cells = [*(trial.params.get(name, MISSING) for name in names), trial.value]
        lines.append([(i, scale.position(cell)) for i, (scale, cell) in enumerate(zip(scales, cells, strict=True))])
    cmap, norm = colours(sweep, log=log)
    alpha = min(0.9, max(0.15, 30 / len(trials)))
    axes.add_collection(collections.LineCollection(lines, colors=cmap(norm(values)), linewidths=1.0, alpha=alpha))
    draw_best(axes, sweep, [x for x, _ in lines[-1]], [y for _, y in lines[-1]])

    for i, scale in enumerate(scales):
        axes.axvline(i, color="0.4", linewidth=0.8, zorder=3)
        for label, position in scale.ticks():
            axes.annotate(
                label,
                (i, position),
                xytext=(4 if i else -4, 0),  # before the first axis there are no lines
                textcoords="offset points",
                fontsize="small",
                ha="left" if i else "right",
                va="center",
                zorder=6,
                path_effects=[effects.withStroke(linewidth=3, foreground=axes.get_facecolor())],
            )
    below = [shorten(title, LABEL_LENGTH) for title in (*titles(names), sweep.metric)]
    axes.set_xticks(range(len(scales)), below, rotation=0 if len(scales) < 7 else 20)
    axes.set_xlim(-0.1, len(scales) - 1 + 0.35)
    axes.set_ylim(-0.04, 1.04)
    axes.set_yticks([])
    for side in ("top", "left", "right", "bottom"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="x", length=0)
    colour_bar(axes, sweep, log=log)
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
    axes = ax or new_axes(7.0, 1.2 + 0.4 * len(names))
    ranked = sorted(importance.items(), key=lambda item: item[1])
    title_of = dict(zip(names, titles(names), strict=True))
    bars = axes.barh(
        [shorten(title_of[name], LABEL_LENGTH) for name, _ in ranked], [share for _, share in ranked], color="#3d85c6"
    )
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.set_xlim(0, max(share for _, share in ranked) * 1.12)
    axes.set_xlabel(f"importance for {sweep.metric} (share of the variance explained)")
    tidy(axes)
    return axes


def asha_rungs(
    results: ResultGrid | ExperimentAnalysis,
    metric: str | None = None,
    *,
    mode: str | None = None,
    time_attr: str = "training_iteration",
    rungs: Sequence[float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Plot where an early-stopping scheduler stopped the trials: learning curves that end at the rungs.

    Each trial is marked at its last result; above each rung stands how many ended there, and how many were left.
    Rungs at which nobody ended are shown as well, where those at which trials ended tell where they are.

    Parameters
    ----------
    results : ResultGrid or ExperimentAnalysis
    metric : str, default=None
        By default the sweep's.
    mode : {'min', 'max'}, default=None
        By default the sweep's.
    time_attr : str, default='training_iteration'
        What the scheduler's rungs are counted in.
    rungs : sequence of float, default=None
        Where they are, such as ``[1, 3, 9, 27]``; by default what the ends of the trials say.
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
    axes = ax or new_axes(8.0, 4.8)
    curves = curves_of(sweep, time_attr)
    log = draw_curves(axes, sweep, curves, time_attr)
    cmap, norm = colours(sweep, log=log)
    values = {trial.key: trial.value or 0.0 for trial in sweep.finished}
    shown = [(times[-1], curve[-1], values[key]) for key, (times, curve) in curves.items() if key in values]
    if sweep.best.key in curves:
        corner: dict[str, Any] = {"loc": "lower left" if sweep.mode == "min" else "lower right", "bbox_to_anchor": None}
        draw_best(axes, sweep, *curves[sweep.best.key], **corner)
    axes.scatter(
        [time for time, _, _ in shown],
        [y for _, y, _ in shown],
        c=cmap(norm([value for _, _, value in shown])),
        s=22,
        zorder=6,
        edgecolors="white",
        linewidths=0.5,
    )
    ends = Counter(times[-1] for times, _ in curves.values())
    marks = _rungs(ends, rungs)
    if len(marks) > 2 and 0 < _LOG_RUNGS * marks[0] <= marks[-1]:  # each a multiple of the one before
        axes.set_xscale("log")
        axes.minorticks_off()
    axes.set_xticks(marks, [format_value(mark) for mark in marks])
    for mark in marks:
        left = len(curves) - sum(count for time, count in ends.items() if time <= mark)
        axes.axvline(mark, color="0.75", linewidth=0.8, linestyle=":", zorder=1)
        text = f"{ends[mark] or 'none'} stopped\n{left} left" if left else f"{ends[mark]} to the end"
        axes.annotate(
            text,
            (mark, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize="small" if len(marks) < 8 else "xx-small",
        )
    axes.set_xlabel(f"{time_attr} (ticks: rungs, and where trials ended)")
    colour_bar(axes, sweep, log=log)
    return axes


def _rungs(ends: Counter[float], given: Sequence[float] | None) -> list[float]:
    """Where most trials ended, and the rungs between."""
    common = {time for time, _ in ends.most_common(_MAX_RUNGS)}
    rungs = infer_rungs(common) if given is None else [rung for rung in given if rung <= max(ends)]
    return sorted(common.union(rungs if given is not None or len(rungs) <= _MAX_RUNGS else ()))
