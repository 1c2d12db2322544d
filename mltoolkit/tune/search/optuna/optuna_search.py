"""Search with Optuna's samplers."""

from __future__ import annotations

import os
import platform
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from mltoolkit._optional import require
from mltoolkit.tune.result import DEFAULT_METRIC
from mltoolkit.tune.search._library import (
    Choice,
    LibrarySearcher,
    Range,
    describe,
    domains_of,
    unsupported,
)
from mltoolkit.tune.search._nested import flatten, unflatten

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

__all__ = ["OptunaSearch"]

TRIAL_ID = "mltoolkit:trial_id"
"""User attribute of Optuna's trial: the id of Tune's."""
DRIVER = "mltoolkit:driver"
"""User attribute of Optuna's trial: host and process that asked for it."""


class OptunaSearch(LibrarySearcher):
    """Suggest with Optuna: TPE, CMA-ES, Gaussian processes, or any other sampler of it.

    The study lives in the driver, which alone reads and writes it, in memory or in a storage.

    Parameters
    ----------
    space : dict or callable, optional
        A search space of Tune, a dict of name to ``optuna.distributions``, or a define-by-run function: it takes a
        trial, calls its ``suggest_*`` methods, with conditions where wanted, and returns None or a dict of constants
        to add. Names such as ``"model/lr"`` stand for nested parameters. None takes ``param_space``.
    metric : str or list of str, optional
        Several for several objectives.
    mode : {'min', 'max'} or list of str, optional
        As many as metrics. ``"obs"`` in a list: that metric is not optimised but kept as a user attribute.
    points_to_evaluate : list of dict, optional
        Configurations to suggest first; what they lack is sampled.
    sampler : optuna.samplers.BaseSampler, optional
        By default ``TPESampler``, which takes several objectives too.
    study_name : str, default='optuna'
    storage : optuna.storages.BaseStorage or str, optional
        Where to keep the study, or the URL of it. A study of that name that exists there is gone on with.
    seed : int, optional
        Of the default sampler. Seed a `sampler` or `study` of your own when you make it.
    evaluated_rewards : list, optional
        Values of `points_to_evaluate`: these are then not tried, but told to Optuna.
    study : optuna.Study, optional
        A study to go on with, in place of `sampler`, `study_name` and `storage`. Its directions are checked against
        `mode`.

    Notes
    -----
    A result's metric is reported to Optuna as the intermediate value of its ``training_iteration``. A trial that fails,
    or whose last metric is missing or NaN, becomes ``FAIL``; one without a value that did report becomes ``PRUNED``. A
    trial that another driver of this host asked for and left ``RUNNING`` when it died becomes ``FAIL`` as well.

    Float parameters that are both log-uniform and quantised are sampled log-uniformly and rounded afterwards.

    References
    ----------
    Akiba et al., Optuna: A Next-generation Hyperparameter Optimization Framework, arXiv:1907.10902.
    Bergstra et al., Algorithms for Hyper-Parameter Optimization, NeurIPS 2011, Sec. 4 (TPE).

    Examples
    --------
    >>> from mltoolkit.tune.search.sample import loguniform
    >>> space = {"lr": loguniform(1e-4, 1e-1)}
    >>> search = OptunaSearch(space, metric="loss", mode="min", points_to_evaluate=[{"lr": 0.01}], seed=0)
    >>> search.suggest("a")
    {'lr': 0.01}
    >>> search.on_trial_complete("a", {"loss": 0.5})
    """

    _multi_objective: ClassVar[bool] = True

    def __init__(
        self,
        space: dict[str, Any] | Callable[[optuna.Trial], dict[str, Any] | None] | None = None,
        metric: str | list[str] | None = None,
        mode: str | list[str] | None = None,
        points_to_evaluate: list[dict[str, Any]] | None = None,
        sampler: optuna.samplers.BaseSampler | None = None,
        study_name: str | None = None,
        storage: optuna.storages.BaseStorage | str | None = None,
        seed: int | None = None,
        evaluated_rewards: list[Any] | None = None,
        study: optuna.Study | None = None,
    ) -> None:
        module = require("optuna", purpose="OptunaSearch", extra="optuna")
        if sampler is not None and not isinstance(sampler, module.samplers.BaseSampler):
            raise TypeError(f"`sampler` must be an instance of optuna.samplers.BaseSampler, got {sampler!r}.")
        if study is not None and not isinstance(study, module.Study):
            raise TypeError(f"`study` must be an optuna.Study, got {study!r}.")
        if study is not None:
            for name, value in (("sampler", sampler), ("study_name", study_name), ("storage", storage)):
                if value is not None:
                    raise ValueError(f"`{name}` and `study` cannot both be given: the study has a {name} already.")
        if seed is not None and (sampler is not None or study is not None):
            raise ValueError(
                "`seed` is for the default sampler. Seed your own where you make it: "
                f"optuna.samplers.TPESampler(seed={seed!r})."
            )
        self._sampler = sampler
        self._storage = module.storages.get_storage(storage) if storage is not None else None
        self._study_name = study_name or "optuna"
        self._study: optuna.Study | None = study
        self.holds_users_objects = study is not None or storage is not None
        self._is_own_study = study is None
        self._evaluated: list[dict[str, Any]] = []
        self._last_number = -1
        self._forgotten: dict[str, int] = {}
        super().__init__(space, metric, mode, points_to_evaluate, seed)
        if evaluated_rewards is not None:
            if len(evaluated_rewards) != len(self._points):
                raise ValueError(
                    "`evaluated_rewards` must have one value for each of `points_to_evaluate`, got "
                    f"{len(evaluated_rewards)} for {len(self._points)} points."
                )
            self._evaluated = [
                {"parameters": point, "value": value}
                for point, value in zip(self._points, evaluated_rewards, strict=True)
            ]
            self._points = []

    @staticmethod
    def convert_search_space(spec: dict[str, Any]) -> dict[str, BaseDistribution]:
        """Convert a search space of Tune into ``{"flat/name": optuna.distributions...}``.

        Raises
        ------
        ValueError
            For a distribution that Optuna has not, such as a normal one.
        """
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        space: dict[str, BaseDistribution] = {}
        for name, domain in domains_of(OptunaSearch, spec).items():
            match describe(domain):
                case Range(low, high, log, q, integer=True):
                    step = 1 if log or q is None else int(q)
                    space[name] = IntDistribution(int(low), int(high), log=log, step=step)
                case Range(low, high, log, q):
                    space[name] = FloatDistribution(low, high, log=log, step=None if log else q)
                case Choice(categories) as choice if not choice.is_nested:
                    with warnings.catch_warnings():  # other types than JSON's are fine as long as no storage keeps them
                        warnings.simplefilter("ignore", UserWarning)
                        space[name] = CategoricalDistribution(tuple(categories))
                case Choice():
                    raise unsupported(
                        OptunaSearch, name, domain, "For a conditional space give a define-by-run function as `space`."
                    )
                case _:
                    raise unsupported(
                        OptunaSearch,
                        name,
                        domain,
                        "Use tune.uniform or tune.loguniform with bounds, or HyperOptSearch.",
                    )
        return space

    def _take_space(self, space: Any, argument: str) -> None:
        if isinstance(space, dict):
            space = space if self._is_unconverted(space) else flatten(space)
        elif not callable(space):
            raise TypeError(
                f"`space` must be a dict of distributions or a define-by-run function, got {type(space).__name__}."
            )
        super()._take_space(space, argument)

    def _is_unconverted(self, space: dict[str, Any]) -> bool:
        from optuna.distributions import BaseDistribution

        from mltoolkit.tune.search._library import is_tune_space

        if is_tune_space(space):
            return True
        for name, value in flatten(space).items():
            if not isinstance(value, BaseDistribution):
                raise TypeError(
                    f"`space` must hold distributions of Tune or of optuna.distributions, got {name}={value!r}."
                )
        return False

    def _names(self) -> Iterable[str]:
        return () if callable(self._space) else self._space or ()

    def _flat_point(self, point: dict[str, Any]) -> dict[str, Any]:
        return flatten(point) if callable(self._space) else super()._flat_point(point)

    def set_seed(self, seed: int) -> bool:
        """Take the sweep's seed, unless a sampler or a study was given."""
        if self._sampler is not None or not self._is_own_study:
            return False
        return super().set_seed(seed)

    def _check_objectives(self) -> None:
        if isinstance(self._mode, (list, tuple)) and all(mode == "obs" for mode in self._mode):
            raise ValueError(f"`mode` must hold 'min' or 'max' for at least one metric, got {self._mode!r}.")
        if isinstance(self._mode, (list, tuple)) and self._metric is None and self._is_set_up_to_run():
            raise ValueError("`metric` must be a list when `mode` is one.")

    def _is_set_up_to_run(self) -> bool:
        return getattr(self, "_is_set_up", False)

    def _objectives(self) -> list[tuple[str, str]]:
        """Metric and mode of each objective."""
        if isinstance(self._mode, str):
            return [(self._metric or DEFAULT_METRIC, self._mode)]
        return [(metric, mode) for metric, mode in zip(self._metric, self._mode, strict=True) if mode != "obs"]

    def _setup(self, seed: int) -> None:
        import optuna

        from mltoolkit.tune.search.optuna._tpe import make_tpe_sampler

        directions = ["minimize" if mode == "min" else "maximize" for _, mode in self._objectives()]
        if self._study is None:
            with _quiet():
                self._study = optuna.create_study(
                    storage=self._storage,
                    sampler=self._sampler if self._sampler is not None else make_tpe_sampler(seed),
                    pruner=optuna.pruners.NopPruner(),
                    study_name=self._study_name,
                    directions=directions,
                    load_if_exists=True,
                )
        actual = [direction.name.lower() for direction in self._study.directions]
        if actual != directions:
            raise ValueError(
                f"The study {self._study.study_name!r} is to {' and '.join(actual)}, but mode={self._mode!r} means to "
                f"{' and '.join(directions)}. Change `mode`, or use another study."
            )
        self._fail_abandoned()
        for evaluated in self._evaluated:
            self._add_evaluated(**evaluated)
        self._evaluated = []
        for point in self._points:
            self._study.enqueue_trial(point)
        self._points = []

    def _fail_abandoned(self) -> None:
        """Fail the trials that a driver of this host left running when it died."""
        from optuna.trial import TrialState

        study = self._get_study()
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            host, _, pid = trial.user_attrs.get(DRIVER, "").rpartition(":")
            if host == platform.node() and not _is_alive(int(pid)):
                study.tell(trial.number, state=TrialState.FAIL)

    def _get_study(self) -> optuna.Study:
        assert self._study is not None
        return self._study

    @property
    def study(self) -> optuna.Study | None:
        """The study, from the first suggestion on."""
        return self._study

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Ask Optuna for a configuration; the same one again for an id that has one."""
        self._prepare()
        known = self._known_configuration(trial_id)
        if known is not None:
            return known
        study = self._get_study()
        trial = study.ask()
        trial.set_user_attr(TRIAL_ID, trial_id)
        if self._storage is not None or not self._is_own_study:
            trial.set_user_attr(DRIVER, f"{platform.node()}:{os.getpid()}")
        self._live[trial_id] = self._last_number = trial.number
        try:
            return self._configuration(trial)
        except BaseException:
            self._finish(trial_id, None)
            raise

    def _configuration(self, trial: Any) -> dict[str, Any]:
        """Let a trial, or something that stands for one, go through the space."""
        if not callable(self._space):
            return self._nested({name: _suggest(trial, name, each) for name, each in self._space.items()})
        constants = self._space(trial)
        if constants is not None and not (
            isinstance(constants, dict) and all(isinstance(name, str) for name in constants)
        ):
            raise TypeError(
                "The define-by-run function given as `space` must return None or a dict with names as keys, "
                f"got {constants!r}."
            )
        return unflatten({**trial.params, **flatten(constants or {})})

    def _known_configuration(self, trial_id: str) -> dict[str, Any] | None:
        """What was suggested for an id before; a storage may know it though the restored state does not."""
        import optuna

        if trial_id not in self._live and trial_id not in self._forgotten:
            return None
        frozen = self._frozen(self._live[trial_id] if trial_id in self._live else self._forgotten.pop(trial_id))
        self._live[trial_id] = frozen.number
        try:
            return self._configuration(optuna.trial.FixedTrial(frozen.params, frozen.number))
        except ValueError:  # the driver died while this was being suggested
            self._finish(trial_id, None)
            return None

    def _frozen(self, number: int) -> optuna.trial.FrozenTrial:
        study = self._get_study()
        storage = study._storage
        return storage.get_trial(storage.get_trial_id_from_study_id_trial_number(study._study_id, number))

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Report the metric as an intermediate value; Optuna has these for a single objective only."""
        number = self._live.get(trial_id)
        if number is None or len(self._objectives()) > 1:
            return
        self._report(number, trial_id, result)

    def _report(self, number: int, trial_id: str, result: Mapping[str, Any]) -> None:
        value = self._value(trial_id, result, self._objectives()[0][0])
        step = result.get("training_iteration")
        if value is None or step is None:
            return
        frozen = self._frozen(number)
        if frozen.state.is_finished() or step in frozen.intermediate_values:
            return
        self._get_study()._storage.set_trial_intermediate_value(frozen._trial_id, int(step), value)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell Optuna how a trial ended."""
        if trial_id in self._live:
            self._finish(trial_id, None if error else result)

    def _finish(self, trial_id: str, result: Mapping[str, Any] | None) -> None:
        from optuna.trial import TrialState

        study = self._get_study()
        number = self._live.pop(trial_id)
        frozen = self._frozen(number)
        if frozen.state.is_finished():
            return
        objectives = self._objectives()
        values = [self._value(trial_id, result, metric) for metric, _ in objectives]
        if isinstance(self._mode, (list, tuple)) and result:
            for metric, mode in zip(self._metric, self._mode, strict=True):
                if mode == "obs" and (value := self._value(trial_id, result, metric)) is not None:
                    study._storage.set_trial_user_attr(frozen._trial_id, metric, value)
        if all(value is not None for value in values):
            study.tell(number, [value for value in values if value is not None])
        elif result and values == [None] and frozen.intermediate_values and not self._has(result, objectives[0][0]):
            study.tell(number, state=TrialState.PRUNED)
        else:
            study.tell(number, state=TrialState.FAIL)

    @staticmethod
    def _has(result: Mapping[str, Any], metric: str) -> bool:
        from mltoolkit.tune.search._nested import lookup

        return lookup(result, metric) is not None

    def add_evaluated_point(
        self,
        parameters: dict[str, Any],
        value: Any,
        error: bool = False,
        pruned: bool = False,
        intermediate_values: list[float] | None = None,
    ) -> None:
        """Let Optuna learn from a configuration that was evaluated elsewhere.

        Parameters
        ----------
        parameters : dict
            Nested or flat; what is not searched is left out.
        value : float, or list of float for several objectives
        error, pruned : bool, default=False
            Whether it failed, or was stopped early.
        intermediate_values : list of float, optional
            One for each iteration, from the first one on.
        """
        point = {
            "parameters": parameters,
            "value": value,
            "error": error,
            "pruned": pruned,
            "intermediate_values": intermediate_values,
        }
        if self._is_set_up:
            self._add_evaluated(**point)
        else:
            self._evaluated.append(point)

    def _add_evaluated(
        self,
        parameters: dict[str, Any],
        value: Any,
        error: bool = False,
        pruned: bool = False,
        intermediate_values: Sequence[float] | None = None,
    ) -> None:
        import optuna
        from optuna.trial import TrialState

        if callable(self._space):
            fixed = optuna.trial.FixedTrial(flatten(parameters))
            self._space(fixed)
            params, distributions = fixed.params, fixed.distributions
        else:
            from mltoolkit.tune.search._nested import lookup

            params = {name: lookup(parameters, name) for name in self._space}
            distributions = dict(self._space)
        state = TrialState.FAIL if error else TrialState.PRUNED if pruned else TrialState.COMPLETE
        several = isinstance(value, (list, tuple))
        self._get_study().add_trial(
            optuna.trial.create_trial(
                state=state,
                value=None if error or several else value,
                values=list(value) if several and not error else None,
                params=params,
                distributions=distributions,
                intermediate_values=dict(enumerate(intermediate_values, start=1)) if intermediate_values else None,
            )
        )

    def get_state(self) -> dict[str, Any]:
        """All but a study that a storage keeps: of that, the name and the sampler."""
        state = self.__dict__.copy()
        if self._storage is not None:
            del state["_storage"]
            if self._study is not None:
                state["_sampler"] = self._study.sampler
                state["_study"] = None
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Take a state; a study that a storage keeps is opened again in the storage of this searcher."""
        super().set_state(state)
        if not self._is_set_up:
            return
        if self._study is None:
            self._open_again()
        self._forgotten = {
            trial.user_attrs[TRIAL_ID]: trial.number
            for trial in self._get_study().get_trials(deepcopy=False)
            if trial.number > self._last_number and TRIAL_ID in trial.user_attrs
        }

    def _open_again(self) -> None:
        if self._storage is None:
            raise ValueError(
                "The saved searcher kept its study in a storage: make this one with the same `storage` and "
                f"`study_name` ({self._study_name!r})."
            )
        import optuna

        self._study = optuna.load_study(
            study_name=self._study_name,
            storage=self._storage,
            sampler=self._sampler,
            pruner=optuna.pruners.NopPruner(),
        )


def _suggest(trial: Any, name: str, distribution: BaseDistribution) -> Any:
    """Call the method of a trial that stands for a distribution."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    match distribution:
        case FloatDistribution():
            return trial.suggest_float(
                name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
            )
        case IntDistribution():
            return trial.suggest_int(
                name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
            )
        case CategoricalDistribution():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                return trial.suggest_categorical(name, distribution.choices)
    raise TypeError(f"{name!r} has the distribution {distribution!r}, which no `suggest_*` method stands for.")


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's line about a new study."""
    import logging

    logger = logging.getLogger("optuna")
    before = logger.level
    logger.setLevel(max(before, logging.WARNING))
    try:
        yield
    finally:
        logger.setLevel(before)
