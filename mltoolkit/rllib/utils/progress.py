"""How far training is, in a terminal or a notebook."""

from __future__ import annotations

import difflib
import math
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from mltoolkit.tune.logger._values import flatten
from mltoolkit.tune.search._nested import lookup
from mltoolkit.tune.stopper import DictionaryStopper

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console, RenderableType

__all__ = ["TrainingProgress"]

_STEPS = "num_env_steps_sampled_lifetime"
_RETURNS = ("episode_reward_mean", "env_runners/episode_return_mean", "env_runners/episode_reward_mean")
# What grows evenly from zero; what is left of anything else can only be guessed from how it has grown so far.
_COUNTERS = (
    "training_iteration",
    "timesteps_total",
    "episodes_total",
    "time_total_s",
    "num_env_steps",
    "num_agent_steps",
)
_MIN_INTERVAL_S = 0.1
_SMOOTHING = 0.3  # weight of the newest iteration in the steps per second
_ABSENT = object()


class TrainingProgress:
    """A bar with iteration, steps, steps per second, mean return and time left; and the decision when to end.

    Parameters
    ----------
    total_timesteps : int, optional
        Environment steps, over the algorithm's lifetime, after which training ends.
    stop : dict of str to number, optional
        Metrics and the values at which training ends, ``"a/b"`` for nested ones; the first that is reached counts.
    enabled : bool, optional
        Whether to draw; by default where stderr is a terminal, or in a notebook.
    clock : callable, default=time.perf_counter
        Seconds.

    Raises
    ------
    TypeError, ValueError
        If a limit is no number.

    Notes
    -----
    The time left to a step or iteration count goes by the speed so far; that to a return by its rise since the start,
    which is a guess. Drawn by :meth:`update`, in the caller's thread, at most ten times a second.

    Examples
    --------
    >>> with TrainingProgress(stop={"episode_reward_mean": 475}, enabled=False) as progress:
    ...     progress.update({"training_iteration": 1, "episode_reward_mean": 480.0})
    ...     progress.is_reached({"training_iteration": 1, "episode_reward_mean": 480.0})
    True
    """

    def __init__(
        self,
        *,
        total_timesteps: int | None = None,
        stop: Mapping[str, Any] | None = None,
        enabled: bool | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        if total_timesteps is not None and (
            isinstance(total_timesteps, bool) or not isinstance(total_timesteps, int) or total_timesteps < 1
        ):
            raise ValueError(f"`total_timesteps` must be a whole number of at least 1, got {total_timesteps!r}.")
        if stop is not None and not isinstance(stop, Mapping):
            raise TypeError(f"`stop` must be a dict such as {{'episode_reward_mean': 475}}, got {stop!r}.")
        self._total = total_timesteps
        self._criteria: dict[str, float] = DictionaryStopper(stop or {}).criteria
        if total_timesteps is not None:
            self._criteria[_STEPS] = min(total_timesteps, self._criteria.get(_STEPS, math.inf))
        self._clock = clock
        self._estimate = _Estimate(self._criteria)
        self._rate = math.nan
        self._result: dict[str, Any] = {}
        self._view = _make_view(enabled)
        self._drawn_at = -math.inf

    def __enter__(self) -> Self:
        self._begun_at = self._clock()
        if self._view is not None:
            self._draw()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._view is not None:
            self._draw(over=True)
            self._view.close()

    def update(self, result: dict[str, Any]) -> None:
        """Show a result of ``train()``."""
        if self._view is None:
            return
        now = self._clock()
        self._result = result
        self._estimate.add(now, result)
        seconds = result.get("time_this_iter_s") or 0.0
        if seconds > 0 and "num_env_steps_sampled_this_iter" in result:
            rate = result["num_env_steps_sampled_this_iter"] / seconds
            self._rate = rate if math.isnan(self._rate) else self._rate + _SMOOTHING * (rate - self._rate)
        if now - self._drawn_at >= _MIN_INTERVAL_S:
            self._draw()

    def is_reached(self, result: dict[str, Any]) -> bool:
        """Whether a limit is reached.

        Raises
        ------
        ValueError
            If a metric of ``stop`` is not in the result and cannot be expected later; near names are listed.
        """
        reached = False
        for name, bound in self._criteria.items():
            value = lookup(result, name, _ABSENT)
            if value is _ABSENT:
                _check_may_come(name, result)
            elif not isinstance(value, (str, Mapping)) and value is not None and value >= bound:
                reached = True
        return reached

    # -- drawing -------------------------------------------------------------------------------------------------------

    def _draw(self, over: bool = False) -> None:
        assert self._view is not None
        self._drawn_at = now = self._clock()
        left = self._estimate.seconds_left()
        remaining = "" if left is None else f"{_duration(left)} left"
        taken = _duration(now - self._begun_at)
        self._view.draw(self._estimate.fraction(), self._texts(), f"in {taken}" if over else remaining)

    def _texts(self) -> list[str]:
        result = self._result
        if not result:
            return ["starting"]
        steps = result.get(_STEPS, result.get("timesteps_total"))
        texts = [f"iteration {result.get('training_iteration', 0)}"]
        if steps is not None:
            texts.append(f"{steps:,}{f'/{self._total:,}' if self._total is not None else ''} steps")
        if not math.isnan(self._rate):
            texts.append(f"{self._rate:,.0f} steps/s")
        value = lookup(result, _RETURNS[0], lookup(result, _RETURNS[1], None))
        bound = next((self._criteria[name] for name in _RETURNS if name in self._criteria), None)
        if value is not None:
            shown = "-" if value != value else _measured(float(value))
            texts.append(f"return {shown}{f'/{_number(bound)}' if bound is not None else ''}")
        return texts


class _Estimate:
    """How far each criterion is, and when the first will be reached."""

    def __init__(self, criteria: Mapping[str, float]) -> None:
        self._criteria = criteria
        self._first: dict[str, tuple[float, float]] = {}
        self._last: dict[str, tuple[float, float]] = {}

    def add(self, now: float, result: dict[str, Any]) -> None:
        for name in self._criteria:
            value = lookup(result, name, None)
            if isinstance(value, (int, float)) and math.isfinite(value):
                self._first.setdefault(name, (now, float(value)))
                self._last[name] = (now, float(value))

    def fraction(self) -> float:
        """How far the one that is farthest is, between 0 and 1."""
        return max((self._fraction(name) for name in self._last), default=0.0)

    def _fraction(self, name: str) -> float:
        bound, value = self._criteria[name], self._last[name][1]
        start = 0.0 if _is_counter(name) else self._first[name][1]
        if value >= bound:
            return 1.0
        return max(0.0, (value - start) / (bound - start)) if bound > start else 0.0

    def seconds_left(self) -> float | None:
        """Until the first one is reached, as far as that can be told."""
        known = []
        for name, (now, value) in self._last.items():
            begun_at, start = self._first[name]
            left = self._criteria[name] - value
            if left <= 0:
                return 0.0
            if now > begun_at and value > start:
                known.append(left * (now - begun_at) / (value - start))
        return min(known, default=None)


def _is_counter(name: str) -> bool:
    return name.rpartition("/")[2].startswith(_COUNTERS)


def _check_may_come(name: str, result: dict[str, Any]) -> None:
    """Refuse a metric that no later result will have either, before training goes on for ever."""
    if name.startswith("evaluation/"):
        if "evaluation" not in result:
            if result.get("config", {}).get("evaluation_interval", True):
                return
            raise ValueError(
                f"`stop` has {name!r}, but nothing is evaluated: set `config.evaluation(evaluation_interval=...)`."
            )
    elif not lookup(result, "env_runners/num_episodes_lifetime", result.get("episodes_total", 1)):
        return  # what callbacks log at the end of episodes is not there before one has ended
    names = [known for known in flatten(result) if not known.startswith("config/")]
    near = difflib.get_close_matches(name, names, 3)
    hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else f"It has {', '.join(sorted(result))}."
    raise ValueError(f"`stop` has {name!r}, which is not in the results. {hint}")


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) < 1e15 else f"{value:,.4g}"


def _measured(value: float) -> str:
    """With as many decimals from one result to the next, so that nothing jumps."""
    return f"{value:,.1f}" if abs(value) >= 10 else f"{value:.3f}"


def _duration(seconds: float) -> str:
    minutes, second = divmod(math.ceil(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}"


# -- where it is drawn -------------------------------------------------------------------------------------------------


def _make_view(enabled: bool | None) -> _TerminalView | _NotebookView | None:
    if enabled is False:
        return None
    from mltoolkit.tune.progress_reporter import in_notebook

    if in_notebook():
        return _NotebookView()
    if enabled is None and not (sys.stderr is not None and sys.stderr.isatty()):
        return None
    from rich.console import Console

    return _TerminalView(Console(stderr=True, force_jupyter=False))


class _TerminalView:
    """One line, drawn over itself; what the program prints goes above it, and the last state stays."""

    def __init__(self, console: Console) -> None:
        from rich.live import Live

        # No thread: it would take time from training.
        self._live = Live(console=console, auto_refresh=False)
        self._console = console

    def draw(self, fraction: float, texts: list[str], left: str) -> None:
        if not self._live.is_started:
            self._live.start()
        self._live.update(self._render(fraction, texts, left), refresh=True)

    def close(self) -> None:
        self._live.stop()

    def _render(self, fraction: float, texts: list[str], left: str) -> RenderableType:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        words = [*texts, *([left] if left else [])]
        # What matters least goes first where the terminal is narrow.
        room = self._console.width - 12
        while sum(len(word) + 2 for word in words) > room and len(words) > 1:
            words.pop(0)
        width = max(10, min(40, self._console.width - sum(len(word) + 2 for word in words)))
        line = Table.grid(padding=(0, 2, 0, 0))
        bar = ProgressBar(total=1.0, completed=fraction, width=width, complete_style="green", finished_style="green")
        line.add_row(bar, *(Text(word, style="dim" if word is left else "", no_wrap=True) for word in words))
        return line


class _NotebookView:
    """A bar in the cell's output, replaced in place; the last state stays in the saved notebook."""

    def __init__(self) -> None:
        self._handle: Any = None

    def draw(self, fraction: float, texts: list[str], left: str) -> None:
        from mltoolkit import _optional

        display = _optional.require("IPython.display", purpose="A progress bar in a notebook", extra="notebook").display
        words = " &ensp; ".join([*texts, *([f'<span style="opacity: 0.65">{left}</span>'] if left else [])])
        html = (
            '<div style="font-size: 0.9em; white-space: nowrap; font-variant-numeric: tabular-nums">'
            '<div style="display: inline-block; width: 16em; height: 0.6em; border-radius: 0.3em; overflow: hidden; '
            'background: rgba(128, 128, 128, 0.25); margin-right: 0.8em">'
            f'<div style="width: {100 * fraction:.1f}%; height: 100%; background: #2e9e5b"></div></div>{words}</div>'
        )
        bundle = {"text/html": html, "text/plain": "  ".join([f"{100 * fraction:.0f} %", *texts, left]).rstrip()}
        if self._handle is None:
            self._handle = display(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)

    def close(self) -> None:
        """What was shown stays."""
