"""``train`` and ``predict``, under the names of ``lightgbm_ray.main``."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from mltoolkit._boosting.actor import RankLibrary
from mltoolkit._boosting.matrix import RayDMatrix
from mltoolkit._boosting.params import RayParams as _RayParams
from mltoolkit._boosting.params import check_ray_params
from mltoolkit._boosting.prediction import run_prediction
from mltoolkit._boosting.resources import in_trial
from mltoolkit._boosting.training import Training
from mltoolkit._optional import require
from mltoolkit.lightgbm._library import LIGHTGBM, RayLightGBMActor, RayLightGBMTrainingError
from mltoolkit.lightgbm._parameters import resolve_parameters
from mltoolkit.lightgbm._progress import LightGBMPrinter
from mltoolkit.lightgbm._rank import LightGBMRank

__all__ = [
    "RayLightGBMActor",
    "RayLightGBMTrainingError",
    "RayParams",
    "Trained",
    "predict",
    "predict_booster",
    "train",
    "train_booster",
]


@dataclass
class RayParams(_RayParams):  # noqa: D101 - the docstring is the base class's
    allow_less_than_two_cpus: bool = False


RayParams.__doc__ = (_RayParams.__doc__ or "").replace(
    "    placement_options : dict, optional",
    """    allow_less_than_two_cpus : bool, default=False
        Taken for compatibility: actors with one CPU are always allowed, and no slower than plain LightGBM with one thread.
    placement_options : dict, optional""",
)

_PREDICT_ARGUMENTS = (
    "raw_score", "start_iteration", "num_iteration", "pred_leaf", "pred_contrib", "validate_features",
)  # fmt: skip
_METHODS = ("predict", "predict_proba", "decision_function")


def train(
    params: Mapping[str, Any],
    dtrain: RayDMatrix,
    model_factory: type[Any] | None = None,
    num_boost_round: int = 10,
    *,
    valid_sets: Sequence[RayDMatrix] | RayDMatrix | None = None,
    valid_names: Sequence[str] | str | None = None,
    verbose_eval: bool | int = True,
    evals: Sequence[tuple[RayDMatrix, str]] = (),
    evals_result: dict[str, Any] | None = None,
    additional_results: dict[str, Any] | None = None,
    ray_params: _RayParams | Mapping[str, Any] | None = None,
    eval_metric: Any = None,
    feval: Callable[..., Any] | Sequence[Callable[..., Any]] | None = None,
    init_model: Any = None,
    callbacks: Sequence[Callable[..., Any]] | None = None,
    early_stopping_rounds: int | None = None,
    feature_name: Sequence[str] | str = "auto",
    categorical_feature: Sequence[Any] | str = "auto",
    _remote: bool | None = None,
) -> Any:
    """Train a LightGBM model on actors, each of which holds a shard of the data.

    Each actor is one machine of LightGBM's own distributed training, so the result is what LightGBM computes on the whole
    data, and one of its own models.

    Parameters
    ----------
    params : dict
        As for ``lightgbm.train``. ``tree_learner`` is ``"data"``, unless it is given. ``num_threads`` is set to the CPUs of
        each actor, ``verbosity`` to -1 unless it is given, ``local_listen_port`` is the first port to try.
    dtrain : RayDMatrix
        With a label; ``base_margin`` is LightGBM's ``init_score``.
    model_factory : type, optional
        What is returned: ``lightgbm.LGBMModel``, which is the default, a subclass, or ``lightgbm.Booster``.
    num_boost_round : int, default=10
    valid_sets : list of RayDMatrix, optional
        Datasets to evaluate after each round.
    valid_names : list of str, optional
        Their names. Default: ``"valid_0"``, ``"valid_1"``, ...
    verbose_eval : bool or int, default=True
        Print evaluations of each round, or of every n-th.
    evals : list of (RayDMatrix, str)
        Datasets and names, instead of `valid_sets` and `valid_names`.
    evals_result : dict, optional
        Filled with the evaluations: dataset, metric, values by round.
    additional_results : dict, optional
        Filled with ``total_n``, ``training_time_s``, ``total_time_s`` and ``callback_returns``.
    ray_params : RayParams or dict
        How many actors, and what happens when one is lost.
    eval_metric : str, callable or list of them, optional
        Further metrics. Callables take ``(y_true, y_pred)``, and the weights and groups if they have arguments for them;
        they return a name, a value and whether greater is better. They see the rows of one shard; the values of all shards
        are averaged, weighted by their rows.
    feval : callable or list of callable, optional
        Metrics in the form of ``lightgbm.train``: ``feval(predictions, dataset)``.
    init_model : Booster, LGBMModel, path or str, optional
        Model to continue.
    callbacks : list of callable, optional
        As for ``lightgbm.train``. They run in every actor, each on a copy of its own, except ``log_evaluation`` and
        ``record_evaluation``, which do their work in the driver.
    early_stopping_rounds : int, optional
        The same as ``early_stopping_round`` in `params`.
    feature_name : list of str, optional
        Names of the features, if the data has none.
    categorical_feature : list of str or int, optional
        Columns to use as categories. Default: those of a DataFrame that are categorical.
    _remote : bool, optional
        Taken for compatibility; the driver is always this process.

    Returns
    -------
    lightgbm.LGBMModel or lightgbm.Booster

    Raises
    ------
    RayLightGBMTrainingError
        If actors are lost more often than `ray_params` allow, or an objective, a metric or a callback raises: its error is
        the ``__cause__``.
    ValueError
        If arguments or data do not fit together.
    """
    lightgbm = require("lightgbm", purpose="mltoolkit.lightgbm", extra="lightgbm")
    if evals and valid_sets:
        raise ValueError("Give either `evals` or `valid_sets`, not both.")
    factory = lightgbm.LGBMModel if model_factory is None else model_factory
    if not isinstance(factory, type) or not issubclass(factory, (lightgbm.LGBMModel, lightgbm.Booster)):
        raise ValueError(
            f"`model_factory` must be lightgbm.LGBMModel, a subclass of it or lightgbm.Booster, got {factory!r}."
        )
    _check_matrix(dtrain, "dtrain", needs_label=True)
    from mltoolkit.lightgbm import sklearn as estimators

    target = None if factory is lightgbm.Booster else estimators.plan_estimator(factory, params, dtrain)
    metrics = (
        [] if eval_metric is None else [eval_metric] if not isinstance(eval_metric, (list, tuple)) else eval_metric
    )
    result = train_booster(
        params if target is None else target.params(params),
        dtrain,
        num_boost_round,
        evals=list(evals) if evals else _name_sets(valid_sets, valid_names),
        metrics=[metric for metric in metrics if isinstance(metric, str)],
        feval=[
            *estimators.wrap_metrics([metric for metric in metrics if not isinstance(metric, str)]),
            *([] if feval is None else [feval] if callable(feval) else feval),
        ],
        verbose_eval=verbose_eval,
        evals_result=evals_result,
        additional_results=additional_results,
        ray_params=ray_params,
        init_model=init_model,
        callbacks=callbacks,
        early_stopping_rounds=early_stopping_rounds,
        feature_name=feature_name,
        categorical_feature=categorical_feature,
    )
    return result.booster if target is None else target.fitted(result)


@dataclass(frozen=True)
class Trained:
    """A model and how it came about.

    Attributes
    ----------
    booster : lightgbm.Booster
    evals_result : dict
    additional_results : dict
    num_boost_round : int
        Rounds that were asked for.
    has_names : bool
        Whether the features have names of their own.
    """

    booster: Any
    evals_result: dict[str, Any]
    additional_results: dict[str, Any]
    num_boost_round: int
    has_names: bool


def train_booster(
    params: Mapping[str, Any],
    dtrain: RayDMatrix,
    num_boost_round: int,
    *,
    evals: Sequence[tuple[RayDMatrix, str]] = (),
    metrics: Sequence[str] = (),
    feval: Sequence[Callable[..., Any]] = (),
    verbose_eval: bool | int = True,
    evals_result: dict[str, Any] | None = None,
    additional_results: dict[str, Any] | None = None,
    ray_params: _RayParams | Mapping[str, Any] | None = None,
    init_model: Any = None,
    callbacks: Sequence[Callable[..., Any]] | None = None,
    early_stopping_rounds: int | None = None,
    feature_name: Sequence[str] | str = "auto",
    categorical_feature: Sequence[Any] | str = "auto",
) -> Trained:
    """Train; the arguments are those of :func:`train`, `metrics` are names of LightGBM's own."""
    started = time.monotonic()
    checked = check_ray_params(ray_params, RayParams)
    if checked.verbose is None:
        checked = dataclasses.replace(checked, verbose=not in_trial())
    named = _check_evals(evals)
    own = resolve_parameters(params, checked, num_boost_round, metrics, early_stopping_rounds)
    if own.early_stopping and not named:
        raise ValueError(
            "Early stopping needs at least one dataset to evaluate: give `evals` or `valid_sets` to train(), or `eval_set` to "
            "fit()."
        )
    hooks, periods, records = _split_callbacks(callbacks)
    if in_trial():
        hooks = _with_report(hooks, checked)
    if own.early_stopping:
        hooks.append(own.early_stopping_callback())
    request = {
        "params": own.values,
        "num_boost_round": own.num_boost_round,
        "feval": list(feval),
        "callbacks": hooks,
        "init_model": _model_text(init_model),
        "feature_name": feature_name if isinstance(feature_name, str) else list(feature_name),
        "categorical_feature": categorical_feature,
        "timeout_s": own.timeout_s,
        "resumable": own.resumable and not dtrain._has & {"base_margin"},
    }
    periods += [1] if verbose_eval is True else [int(verbose_eval)] if verbose_eval else []
    printer = LightGBMPrinter(min(periods, default=0))
    library = dataclasses.replace(
        LIGHTGBM, rank=cast("type[RankLibrary]", functools.partial(LightGBMRank, own.first_port))
    )
    training = Training(
        library, checked, dtrain, named, request, wants_gpu=own.values["device_type"] != "cpu", on_eval=printer
    )
    result = training.run()
    printer.close()
    from mltoolkit.lightgbm._rounds import as_booster

    booster = as_booster(result.bst, own.given)
    for record in [*records, *([] if evals_result is None else [evals_result])]:
        record.clear()
        record.update(result.evals_result)
    total_s = time.monotonic() - started
    additional = {**result.additional_results(), "total_time_s": total_s}
    if additional_results is not None:
        additional_results.update(additional)
    training._log(
        "[LightGBM] Trained on %d rows in %.2f s (%.2f s of it in LightGBM).",
        additional["total_n"], total_s, result.training_time_s,
    )  # fmt: skip
    numbered = [f"Column_{at}" for at in range(booster.num_feature())]
    return Trained(booster, result.evals_result, additional, own.num_boost_round, booster.feature_name() != numbered)


def predict(
    model: Any,
    data: RayDMatrix,
    method: str = "predict",
    ray_params: _RayParams | Mapping[str, Any] | None = None,
    _remote: bool | None = None,
    **kwargs: Any,
) -> np.ndarray:
    """Predict on actors, each of which predicts a shard of the data.

    Parameters
    ----------
    model : lightgbm.LGBMModel, lightgbm.Booster or path
    data : RayDMatrix
    method : {'predict', 'predict_proba', 'decision_function'}, default='predict'
        Which method of the estimator to use.
    ray_params : RayParams or dict
        How many actors.
    _remote : bool, optional
        Taken for compatibility.
    **kwargs
        As for the method: `raw_score`, `pred_contrib`, `num_iteration`, ..., and parameters of LightGBM's prediction.

    Returns
    -------
    ndarray
        In the order of the rows.

    Raises
    ------
    ValueError
        If the features are not those of the model.
    """
    lightgbm = require("lightgbm", purpose="mltoolkit.lightgbm", extra="lightgbm")
    _check_matrix(data, "data", needs_label=False)
    if method not in _METHODS:
        raise ValueError(f"`method` must be one of {', '.join(map(repr, _METHODS))}, got {method!r}.")
    if isinstance(model, lightgbm.LGBMModel):
        from mltoolkit.lightgbm import sklearn as estimators

        with estimators.distributed(check_ray_params(ray_params, RayParams), None):
            return np.asarray(getattr(estimators.on_actors(model), method)(data, **kwargs))
    if method != "predict":
        raise ValueError(f"A Booster has no method {method!r}. Give a fitted estimator, or use method='predict'.")
    return predict_booster(_as_booster(model), data, ray_params, kwargs)


def predict_booster(booster: Any, data: RayDMatrix, ray_params: Any, arguments: Mapping[str, Any]) -> np.ndarray:
    """Predict on actors with a Booster; `arguments` are those of its method."""
    from lightgbm.basic import _ConfigAliases

    checked = check_ray_params(ray_params, RayParams)
    parameters = _ConfigAliases._get_all_param_aliases()
    known = {*_PREDICT_ARGUMENTS, *parameters, *(alias for names in parameters.values() for alias in names)}
    for name in arguments:
        if name not in known:
            raise TypeError(f"predict() got an unexpected argument {name!r}.{_near(name, known)}")
    given = dict(arguments)
    for name in _ConfigAliases.get("num_threads"):
        given.pop(name, None)
    if given.get("num_iteration") is None and given.get("start_iteration", 0) <= 0:
        given["num_iteration"] = booster.best_iteration
    _check_width(booster, data)
    text = booster.model_to_string(num_iteration=-1)
    return run_prediction(LIGHTGBM, checked, data, text, given)


# ---- arguments ---------------------------------------------------------------------------------------------------------


def _near(name: str, names: Any) -> str:
    close = difflib.get_close_matches(name, list(names), 1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _check_width(booster: Any, data: RayDMatrix) -> None:
    shape = getattr(data._data, "shape", None)
    if data._columns.fields or data._columns.ignore or shape is None or len(shape) != 2:
        return
    if isinstance(shape[1], int) and shape[1] != booster.num_feature():
        raise ValueError(
            f"The model was trained with {booster.num_feature()} features, the data has {shape[1]}. Give the columns that it "
            "was trained with, in the same order."
        )


def _check_matrix(matrix: Any, name: str, *, needs_label: bool) -> None:
    if not isinstance(matrix, RayDMatrix):
        raise ValueError(
            f"`{name}` must be a RayDMatrix, got {type(matrix).__name__}. Make one first: `RayDMatrix(data, label)`."
        )
    if needs_label and not matrix.has_label:
        raise ValueError(f"`{name}` has no label. Give one to its constructor: `RayDMatrix(data, label)`.")
    refused: list[str] = [field for field in ("label_lower_bound", "label_upper_bound") if field in matrix._has]
    refused += ["feature_weights"] * (matrix._feature_weights is not None)
    if refused:
        raise ValueError(
            f"LightGBM has no `{refused[0]}`, which `{name}` was given. Leave it out, or train with mltoolkit.xgboost."
        )


def _name_sets(sets: Any, names: Any) -> list[tuple[RayDMatrix, str]]:
    if sets is None:
        return []
    sets = [sets] if isinstance(sets, RayDMatrix) else list(sets)
    names = [names] if isinstance(names, str) else list(names or ())
    return [(matrix, names[at] if at < len(names) else f"valid_{at}") for at, matrix in enumerate(sets)]


def _check_evals(evals: Any) -> list[tuple[RayDMatrix, str]]:
    named: list[tuple[RayDMatrix, str]] = []
    for item in evals or ():
        if not isinstance(item, (tuple, list)) or len(item) != 2 or not isinstance(item[1], str):
            raise ValueError(f"`evals` must be a list of pairs such as [(dtest, 'test')], got the entry {item!r}.")
        _check_matrix(item[0], "evals", needs_label=True)
        if any(item[1] == name for _, name in named):
            raise ValueError(f"Datasets to evaluate must have different names, got {item[1]!r} twice.")
        named.append((item[0], item[1]))
    return named


def _split_callbacks(callbacks: Any) -> tuple[list[Any], list[int], list[dict[str, Any]]]:
    """Those for the actors, periods of printing, and dicts to fill with evaluations."""
    lightgbm = require("lightgbm", purpose="mltoolkit.lightgbm", extra="lightgbm")
    printing, recording = type(lightgbm.log_evaluation()), type(lightgbm.record_evaluation({}))
    hooks, periods, records = [], [], []
    for callback in callbacks or ():
        if not callable(callback):
            raise TypeError(f"`callbacks` must be callable, got {callback!r}.")
        if isinstance(callback, printing):
            periods += [callback.period] if callback.period > 0 else []
        elif isinstance(callback, recording):
            records.append(callback.eval_result)
        else:
            hooks.append(callback)
    return hooks, periods, records


def _with_report(hooks: list[Any], params: _RayParams) -> list[Any]:
    from mltoolkit.lightgbm.tune import with_report

    if params.elastic_training and not int(os.environ.get("RXGB_ALLOW_ELASTIC_TUNE", "0")):
        raise ValueError(
            "`elastic_training` is of no use inside a trial of Tune, which restarts trials itself. Leave it off."
        )
    return with_report(hooks)


def _as_booster(model: Any) -> Any:
    lightgbm = require("lightgbm", purpose="mltoolkit.lightgbm", extra="lightgbm")
    if isinstance(model, lightgbm.Booster):
        return model
    if isinstance(model, lightgbm.LGBMModel):
        return model.booster_
    if isinstance(model, (str, os.PathLike)):
        return lightgbm.Booster(model_file=os.fspath(model))
    raise ValueError(f"A model must be a lightgbm.Booster, a fitted estimator or a path, got {type(model).__name__}.")


def _model_text(model: Any) -> str | None:
    """A model to continue, up to its best round as LightGBM does."""
    return None if model is None else str(_as_booster(model).model_to_string())
