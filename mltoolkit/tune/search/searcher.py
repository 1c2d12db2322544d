"""The contract of searchers: what suggests configurations and learns from their results."""

from __future__ import annotations

import logging
import os
import pickle
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mltoolkit.tune._keywords import check_keywords
from mltoolkit.tune.search._nested import lookup
from mltoolkit.tune.search.sample import Domain
from mltoolkit.tune.search.variant_generator import format_path, parse_spec_vars

if TYPE_CHECKING:
    from mltoolkit.tune.experiment import Trial

__all__ = ["Searcher", "check_metric_and_mode", "check_num_samples", "check_search_space"]

logger = logging.getLogger(__name__)

Metric = str | list[str]

_MODES = ("min", "max")
_MODES_OF_LISTS = ("min", "max", "obs")


class Searcher:
    """Base class of search algorithms that suggest one configuration at a time.

    A subclass implements :meth:`suggest` and :meth:`on_trial_complete`, and :meth:`set_search_properties` where it
    takes its search space from ``param_space``. All methods are called on one thread. It draws random numbers from
    a generator of its own and keeps its state under trial ids: after a crash it is restored from what :meth:`save`
    wrote and shown the calls since then once more.

    Parameters
    ----------
    metric : str or list of str, optional
        What to optimise; nested metrics as ``"eval/loss"``. Several for several objectives. None takes it from
        ``TuneConfig``.
    mode : {'min', 'max'} or list of str, optional
        Direction; as many as there are metrics. In a list, ``"obs"`` stands for a metric that is only observed.

    Examples
    --------
    >>> class Halving(Searcher):
    ...     def __init__(self, metric=None, mode=None):
    ...         super().__init__(metric, mode)
    ...         self.lr = 1.0
    ...     def suggest(self, trial_id):
    ...         self.lr /= 2
    ...         return {"lr": self.lr}
    ...     def on_trial_complete(self, trial_id, result=None, error=False):
    ...         pass
    >>> Halving(metric="loss", mode="min").suggest("a_00000")
    {'lr': 0.5}
    """

    FINISHED: ClassVar[str] = "FINISHED"

    holds_users_objects: bool = False
    """Whether it fills something of the user's, such as a study: a sweep then uses the searcher itself, not a copy."""

    CKPT_FILE_TMPL: ClassVar[str] = "searcher-state-{}.pkl"

    # For subclasses that do not call `__init__`.
    _metric: Any = None
    _mode: Any = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_keywords(cls)

    def __init__(self, metric: Metric | None = None, mode: Metric | None = None) -> None:
        check_metric_and_mode(metric, mode)
        self._metric = metric
        self._mode = mode

    @property
    def metric(self) -> Any:
        """What is optimised: a name, a list of names, or None as long as it is not known."""
        return self._metric

    @property
    def mode(self) -> Any:
        """Direction: ``"min"``, ``"max"``, a list of them, or None as long as it is not known."""
        return self._mode

    def set_metric_and_mode(self, metric: Metric | None, mode: Metric | None) -> None:
        """Take metric and mode of the sweep where the searcher was not given its own.

        Raises
        ------
        ValueError
            If the mode is unknown, or metric and mode are not equally many.
        """
        check_metric_and_mode(metric, mode)
        if self._metric is None:
            self._metric = metric
        if self._mode is None:
            self._mode = mode

    def set_search_properties(
        self, metric: Metric | None, mode: Metric | None, config: dict[str, Any], **spec: Any
    ) -> bool:
        """Take metric, mode and search space of the sweep, before the first suggestion.

        The base class takes metric and mode where it has none, and no search space.

        Parameters
        ----------
        metric, mode : str or list of str, or None
        config : dict
            ``param_space`` of the sweep, without its ``sample_from`` values: these are resolved afterwards, from
            what the searcher suggests.
        **spec
            What else is known of the sweep.

        Returns
        -------
        bool
            Whether the search space was taken; False where the searcher was created with its own.
        """
        self.set_metric_and_mode(metric, mode)
        return False

    def set_seed(self, seed: int) -> bool:
        """Take the sweep's seed, before the first suggestion and after :meth:`set_search_properties`.

        A searcher that was created with a seed of its own keeps that.

        Returns
        -------
        bool
            Whether the searcher's suggestions now follow from a seed. The base class takes none.
        """
        return False

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """Take the limit of a :class:`ConcurrencyLimiter` around this searcher.

        Returns
        -------
        bool
            Whether the searcher keeps to it on its own; False leaves that to the limiter.
        """
        return False

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Suggest a configuration.

        Parameters
        ----------
        trial_id : str
            Under which the results will be told.

        Returns
        -------
        dict, ``Searcher.FINISHED`` or None
            Nested configuration of the searched values (constants of ``param_space`` are filled in); ``FINISHED``
            if there will be no more; None if there is none now.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement `suggest(trial_id)`.")

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Learn from a result that was not the trial's last. It may lack the metric, or hold NaN."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Learn how a trial ended.

        Parameters
        ----------
        trial_id : str
        result : dict, optional
            Its last result; None where it reported nothing.
        error : bool, default=False
            Whether it failed.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement `on_trial_complete(trial_id, result, error)`.")

    def on_pause(self, trial_id: str) -> None:
        """Learn that a trial was paused."""

    def on_unpause(self, trial_id: str) -> None:
        """Learn that a paused trial goes on."""

    def add_evaluated_point(
        self,
        parameters: dict[str, Any],
        value: float,
        error: bool = False,
        pruned: bool = False,
        intermediate_values: list[float] | None = None,
    ) -> None:
        """Learn from a configuration that was evaluated elsewhere.

        Parameters
        ----------
        parameters : dict
            The configuration.
        value : float
            Of the metric.
        error, pruned : bool, default=False
            Whether it failed, or was stopped early.
        intermediate_values : list of float, optional
            Of the metric, one for each iteration.
        """
        raise NotImplementedError(
            f"{type(self).__name__} cannot learn from points that were evaluated elsewhere; OptunaSearch can."
        )

    def add_evaluated_trials(self, trials_or_analysis: Any, metric: str) -> None:
        """Learn from the finished trials of another sweep.

        Parameters
        ----------
        trials_or_analysis : Trial, list of Trial, or an object with ``trials`` such as ExperimentAnalysis
        metric : str
            Name under which they reported the value.

        Raises
        ------
        TypeError
            If it is none of these.
        ValueError
            If no finished trial reported the metric.
        """
        points = [point for trial in _trials_of(trials_or_analysis) if (point := _as_point(trial, metric))]
        if not any(not point["error"] and not point["pruned"] for point in points):
            raise ValueError(f"None of the finished trials reported {metric!r}. Check the name of the metric.")
        for point in points:
            self.add_evaluated_point(**point)

    def get_state(self) -> dict[str, Any]:
        """What :meth:`save` writes. The base class: every attribute."""
        return self.__dict__.copy()

    def set_state(self, state: dict[str, Any]) -> None:
        """Take what :meth:`get_state` returned."""
        self.__dict__.update(state)

    def save(self, checkpoint_path: str | Path) -> None:
        """Write the searcher's state to a file."""
        import cloudpickle

        write_atomically(checkpoint_path, cloudpickle.dumps(self.get_state()))

    def restore(self, checkpoint_path: str | Path) -> None:
        """Take the state from a file that :meth:`save` wrote."""
        self.set_state(pickle.loads(Path(checkpoint_path).read_bytes()))

    def save_to_dir(self, checkpoint_dir: str | Path, session_str: str = "default") -> None:
        """Write the state to a file in a folder, named after a session."""
        file = Path(checkpoint_dir) / self.CKPT_FILE_TMPL.format(session_str)
        part = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
        try:
            self.save(part)
            os.replace(part, file)
        finally:
            part.unlink(missing_ok=True)

    def restore_from_dir(self, checkpoint_dir: str | Path) -> None:
        """Take the newest state that :meth:`save_to_dir` wrote to a folder.

        Raises
        ------
        FileNotFoundError
            If there is none.
        """
        files = list(Path(checkpoint_dir).glob(self.CKPT_FILE_TMPL.format("*")))
        if not files:
            raise FileNotFoundError(
                f"No state of a searcher ({self.CKPT_FILE_TMPL.format('*')}) in {str(checkpoint_dir)!r}."
            )
        self.restore(max(files, key=lambda file: file.stat().st_mtime_ns))


def check_metric_and_mode(metric: Metric | None, mode: Metric | None) -> None:
    """Check that a mode is known and fits the metric.

    Raises
    ------
    ValueError
        If the mode is unknown, or metric and mode are not equally many.
    """
    if mode is not None:
        several = isinstance(mode, (list, tuple))
        allowed = _MODES_OF_LISTS if several else _MODES
        for one in mode if several else [mode]:
            if one not in allowed:
                raise ValueError(f"`mode` must be {' or '.join(map(repr, allowed))}, got {one!r}.")
    if metric is None or mode is None:
        return
    if isinstance(metric, str) != isinstance(mode, str):
        raise ValueError(
            f"`metric` and `mode` must both be a name or both a list, got metric={metric!r}, mode={mode!r}."
        )
    if not isinstance(metric, str) and len(metric) != len(mode):
        raise ValueError(f"`metric` and `mode` must be equally many, got metric={metric!r}, mode={mode!r}.")


def check_num_samples(num_samples: int) -> None:
    """Check the number of samples of a sweep: at least 1, or -1 for a sweep without end."""
    if isinstance(num_samples, bool) or not isinstance(num_samples, int):
        raise TypeError(f"`num_samples` must be an int, got {num_samples!r}.")
    if num_samples < 1 and num_samples != -1:
        raise ValueError(
            f"`num_samples` must be at least 1, or -1 for a sweep that goes on until it is stopped, got {num_samples}."
        )


def check_search_space(
    searcher: object, space: object, *, argument: str = "param_space", required: bool = True
) -> list[tuple[tuple[Any, ...], Domain]]:
    """Check that a searcher can take a search space, and return its domains.

    Parameters
    ----------
    searcher : object
        Whose class the errors name.
    space : dict
        Nested search space.
    argument : str, default='param_space'
        How the space is called in errors.
    required : bool, default=True
        Whether it must hold a value to search.

    Returns
    -------
    list of (path, Domain)
        The values to search, in order. A path is a tuple of keys.

    Raises
    ------
    TypeError
        If it is no dict.
    ValueError
        If it holds ``grid_search`` or ``sample_from``, or nothing to search though that is required.
    """
    name = type(searcher).__name__
    if not isinstance(space, dict):
        raise TypeError(f"`{argument}` must be a dict, got {type(space).__name__}: {space!r}.")
    _, domains, grids = parse_spec_vars(space)
    if grids:
        raise ValueError(
            f"{name} cannot take `grid_search` at {format_path(grids[0][0])!r}: use `tune.choice` of the same values, "
            "or leave `search_alg` out to try the whole grid."
        )
    for path, domain in domains:
        if domain.is_function():
            raise ValueError(
                f"{name} cannot take `sample_from` at {format_path(path)!r}: use a distribution such as "
                "`tune.uniform` or `tune.choice`, or leave `search_alg` out."
            )
    if required and not domains:
        raise ValueError(
            f"{name} has nothing to search: `{argument}` holds no distribution such as `tune.uniform(0, 1)`, "
            f"got {space!r}."
        )
    return domains


def write_atomically(file: str | Path, data: bytes) -> None:
    """Write a file so that it holds either the old or the new content, whatever happens."""
    file = Path(file)
    part = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    try:
        part.write_bytes(data)
        os.replace(part, file)
    finally:
        part.unlink(missing_ok=True)


def _trials_of(trials_or_analysis: Any) -> Iterable[Trial]:
    from mltoolkit.tune.experiment import Trial

    trials = getattr(trials_or_analysis, "trials", trials_or_analysis)
    if isinstance(trials, Trial):
        return [trials]
    if isinstance(trials, (list, tuple)) and all(isinstance(trial, Trial) for trial in trials):
        return trials
    raise TypeError(f"Expected a Trial, a list of Trial or an ExperimentAnalysis, got {trials_or_analysis!r}.")


def _as_point(trial: Trial, metric: str) -> dict[str, Any] | None:
    if not trial.is_finished():
        return None
    value = lookup(trial.last_result, metric)
    if value is None:
        return None
    failed = trial.status == trial.ERROR
    return {
        "parameters": trial.config,
        "value": value,
        "error": failed,
        "pruned": not failed and not trial.last_result.get("done", False),
    }


def __getattr__(name: str) -> Any:
    if name == "ConcurrencyLimiter":  # it stands here in Ray
        from mltoolkit.tune.search.concurrency_limiter import ConcurrencyLimiter

        return ConcurrencyLimiter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
