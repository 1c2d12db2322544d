"""``train`` and ``predict``, under the names of ``xgboost_ray.main``."""

from __future__ import annotations

import difflib
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np

from mltoolkit._boosting.params import RayParams, check_ray_params
from mltoolkit._boosting.prediction import run_prediction
from mltoolkit._boosting.progress import EvaluationPrinter
from mltoolkit._boosting.resources import in_trial
from mltoolkit._boosting.training import Training
from mltoolkit._optional import require
from mltoolkit.xgboost._library import (
    XGBOOST,
    RayXGBoostActor,
    RayXGBoostActorAvailable,
    RayXGBoostTrainingError,
    RayXGBoostTrainingStopped,
)
from mltoolkit.xgboost.matrix import RayDMatrix

__all__ = [
    "RayParams",
    "RayXGBoostActor",
    "RayXGBoostActorAvailable",
    "RayXGBoostTrainingError",
    "RayXGBoostTrainingStopped",
    "predict",
    "train",
]

_PREDICT_ARGUMENTS = (
    "output_margin", "pred_leaf", "pred_contribs", "approx_contribs", "pred_interactions", "validate_features",
    "training", "iteration_range", "strict_shape",
)  # fmt: skip


def train(
    params: Mapping[str, Any],
    dtrain: RayDMatrix,
    num_boost_round: int = 10,
    *,
    evals: Sequence[tuple[RayDMatrix, str]] = (),
    obj: Callable[..., Any] | None = None,
    feval: Callable[..., Any] | None = None,
    custom_metric: Callable[..., Any] | None = None,
    maximize: bool | None = None,
    early_stopping_rounds: int | None = None,
    evals_result: dict[str, Any] | None = None,
    additional_results: dict[str, Any] | None = None,
    verbose_eval: bool | int | None = True,
    xgb_model: Any = None,
    callbacks: Sequence[Any] | None = None,
    ray_params: RayParams | Mapping[str, Any] | None = None,
    _remote: bool | None = None,
) -> Any:
    """Train an XGBoost model on actors, each of which holds a shard of the data.

    Each actor is one rank of XGBoost's own distributed training, so the result is what XGBoost computes on the whole data,
    and a plain ``xgboost.Booster``.

    Parameters
    ----------
    params : dict
        As for ``xgboost.train``. Each actor uses as many threads as it has CPUs, or ``nthread`` if that is less.
    dtrain : RayDMatrix
        With a label.
    num_boost_round : int, default=10
    evals : sequence of (RayDMatrix, str)
        Datasets to evaluate after each round, with names.
    obj : callable, optional
        Custom objective: ``obj(predictions, dmatrix)`` returns gradient and hessian. It sees the rows of one shard.
    custom_metric : callable, optional
        Custom metric: ``custom_metric(predictions, dmatrix)`` returns a name and a value. It sees the rows of one shard;
        the values of all shards are averaged, weighted by their rows.
    feval : callable, optional
        The older form of `custom_metric`, which gets untransformed predictions.
    maximize : bool, optional
        Whether early stopping looks for the greatest value of a custom metric.
    early_stopping_rounds : int, optional
        Stop when the last metric of the last dataset has not improved for so many rounds.
    evals_result : dict, optional
        Filled with the evaluations: dataset, metric, values by round.
    additional_results : dict, optional
        Filled with ``total_n``, ``training_time_s``, ``total_time_s`` and ``callback_returns``.
    verbose_eval : bool or int, default=True
        Print the evaluations of each round, or of each n-th and the last.
    xgb_model : Booster, XGBModel or path, optional
        Model to continue.
    callbacks : list of xgboost.callback.TrainingCallback, optional
        They run in every actor, each on a copy of its own.
    ray_params : RayParams or dict
        How many actors, and what happens when one is lost. Long training writes a line about its rounds every 30 seconds,
        unless `verbose` is False.
    _remote : bool, optional
        Taken for compatibility; the driver is always this process.

    Returns
    -------
    xgboost.Booster

    Raises
    ------
    RayXGBoostTrainingError
        If actors are lost more often than `ray_params` allow, or an objective, a metric or a callback raises: its error is
        the ``__cause__``.
    ValueError
        If arguments or data do not fit together.
    """
    started = time.monotonic()
    checked = check_ray_params(ray_params, RayParams)
    if checked.verbose is None:
        checked = _quiet_in_trials(checked)
    _check_matrix(dtrain, "dtrain", needs_label=True)
    named = _check_evals(evals)
    rounds = _check_rounds(num_boost_round)
    period = _check_period(verbose_eval)
    own_params = _check_params(params, checked)
    if early_stopping_rounds is not None and not named:
        raise ValueError("`early_stopping_rounds` needs at least one dataset in `evals`.")
    if feval is not None and custom_metric is not None:
        raise ValueError("Give either `custom_metric` or its older form `feval`, not both.")
    xgboost = require("xgboost", purpose="mltoolkit.xgboost", extra="xgboost")
    hooks = list(callbacks or ())
    for hook in hooks:
        if not isinstance(hook, xgboost.callback.TrainingCallback):
            raise TypeError(f"`callbacks` must be instances of xgboost.callback.TrainingCallback, got {hook!r}.")
    if in_trial():
        from mltoolkit.xgboost.tune import with_report

        if checked.elastic_training and not int(os.environ.get("RXGB_ALLOW_ELASTIC_TUNE", "0")):
            raise ValueError(
                "`elastic_training` is of no use inside a trial of Tune, which restarts trials itself. Leave it off."
            )
        hooks = with_report(hooks)
    if early_stopping_rounds:
        hooks.append(xgboost.callback.EarlyStopping(rounds=early_stopping_rounds, maximize=maximize))
    request = {
        "params": own_params,
        "num_boost_round": rounds,
        "obj": obj,
        "custom_metric": custom_metric or feval,
        "output_margin": callable(obj) or feval is not None,
        "callbacks": hooks,
        "xgb_model": _as_booster(xgb_model),
    }
    printer = EvaluationPrinter(period)
    training = Training(
        XGBOOST,
        checked,
        dtrain,
        named,
        request,
        wants_gpu=str(own_params.get("device", "")).startswith(("cuda", "gpu")),
        on_eval=printer,
    )
    result = training.run()
    printer.close()
    if evals_result is not None:
        evals_result.update(result.evals_result)
    total_s = time.monotonic() - started
    if additional_results is not None:
        additional_results.update({**result.additional_results(), "total_time_s": total_s})
    training._log(
        "[XGBoost] Trained on %d rows in %.2f s (%.2f s of it in XGBoost).",
        result.total_n,
        total_s,
        result.training_time_s,
    )
    return result.bst


def predict(
    model: Any,
    data: RayDMatrix,
    ray_params: RayParams | Mapping[str, Any] | None = None,
    _remote: bool | None = None,
    **kwargs: Any,
) -> np.ndarray:
    """Predict on actors, each of which predicts a shard of the data.

    Parameters
    ----------
    model : xgboost.Booster
    data : RayDMatrix
    ray_params : RayParams or dict
        How many actors.
    _remote : bool, optional
        Taken for compatibility.
    **kwargs
        As for ``xgboost.Booster.predict``: `output_margin`, `pred_contribs`, `iteration_range`, ...

    Returns
    -------
    ndarray
        In the order of the rows.

    Raises
    ------
    ValueError
        If the features are not those of the model.
    """
    checked = check_ray_params(ray_params, RayParams)
    _check_matrix(data, "data", needs_label=False)
    for name in kwargs:
        if name not in _PREDICT_ARGUMENTS:
            raise TypeError(f"predict() got an unexpected argument {name!r}.{_near(name, _PREDICT_ARGUMENTS)}")
    booster = _as_booster(model)
    if booster is None:
        raise ValueError("`model` must be an xgboost.Booster, got None.")
    device = "cuda" if checked.gpus_per_actor > 0 else "cpu"
    return run_prediction(XGBOOST, checked, data, booster, {**kwargs, "_device": device})


# ---- arguments ---------------------------------------------------------------------------------------------------------


def _quiet_in_trials(params: RayParams) -> RayParams:
    import dataclasses

    return dataclasses.replace(params, verbose=not in_trial())


def _near(name: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, names, 1)
    return f" Did you mean {close[0]!r}?" if close else f" There are: {', '.join(names)}."


def _check_matrix(matrix: Any, name: str, *, needs_label: bool) -> None:
    if not isinstance(matrix, RayDMatrix):
        raise ValueError(
            f"`{name}` must be a RayDMatrix, got {type(matrix).__name__}. Make one first: `RayDMatrix(data, label)`."
        )
    if needs_label and not matrix.has_label and not matrix.has_label_bounds:
        raise ValueError(f"`{name}` has no label. Give one to its constructor: `RayDMatrix(data, label)`.")


def _check_evals(evals: Any) -> list[tuple[RayDMatrix, str]]:
    named: list[tuple[RayDMatrix, str]] = []
    for item in evals or ():
        if not isinstance(item, (tuple, list)) or len(item) != 2 or not isinstance(item[1], str):
            raise ValueError(f"`evals` must be a list of pairs such as [(dtest, 'test')], got the entry {item!r}.")
        _check_matrix(item[0], "evals", needs_label=True)
        if "-" in item[1]:
            raise ValueError(
                f"Names in `evals` must not contain '-', which separates them from the metric; got {item[1]!r}."
            )
        if any(item[1] == name for _, name in named):
            raise ValueError(f"Names in `evals` must be unique, got {item[1]!r} twice.")
        named.append((item[0], item[1]))
    return named


def _check_rounds(number: Any) -> int:
    if isinstance(number, bool) or not isinstance(number, Integral) or number < 0:
        raise ValueError(f"`num_boost_round` must be an integer >= 0, got {number!r}.")
    return int(number)


def _check_period(given: Any) -> int:
    """Rounds between lines of evaluations."""
    if given is None or isinstance(given, bool):
        return int(bool(given))
    if not isinstance(given, Integral) or given < 0:
        raise ValueError(f"`verbose_eval` must be True, False or the number of rounds between lines, got {given!r}.")
    return int(given)


def _check_params(params: Mapping[str, Any], ray_params: RayParams) -> dict[str, Any]:
    try:
        out = dict(params)
    except (TypeError, ValueError):
        raise TypeError(f"`params` must be a dict of XGBoost's parameters, got {params!r}.") from None
    method = out.get("tree_method")
    if method == "exact" or out.get("updater") == "grow_colmaker":
        given = "tree_method='exact'" if method == "exact" else "updater='grow_colmaker'"
        raise ValueError(f"{given} does not support distributed training. Use tree_method='hist'.")
    if method == "gpu_hist":  # as XGBoost was told before it had `device`
        out.update(tree_method="hist", device="cuda")
    threads = [out.pop(name) for name in ("nthread", "n_jobs") if out.get(name) is not None]
    if threads and ray_params.cpus_per_actor and threads[0] > ray_params.cpus_per_actor:
        raise ValueError(
            f"`nthread` is {threads[0]}, more than `cpus_per_actor`, {ray_params.cpus_per_actor}. Raise `cpus_per_actor`, which "
            "sets the threads of each actor, and leave `nthread` out."
        )
    if threads and threads[0] > 0:
        out["nthread"] = threads[0]
    if ray_params.gpus_per_actor > 0 and not str(out.get("device", "")).startswith(("cuda", "gpu")):
        warnings.warn(
            "The actors have GPUs, but XGBoost does not use them: set the parameter device='cuda'.",
            UserWarning,
            stacklevel=3,
        )
    out.setdefault("verbosity", 1 if ray_params.verbose else 0)
    return out


def _as_booster(model: Any) -> Any:
    if model is None:
        return None
    xgboost = require("xgboost", purpose="mltoolkit.xgboost", extra="xgboost")
    if isinstance(model, xgboost.Booster):
        return model
    if isinstance(model, xgboost.XGBModel):
        return model.get_booster()
    if isinstance(model, (str, os.PathLike)):
        if "://" not in os.fspath(model) and not os.path.exists(model):
            raise FileNotFoundError(f"There is no model at {os.fspath(model)!r}.")
        return xgboost.Booster(model_file=os.fspath(model))
    if isinstance(model, (bytes, bytearray)):
        return xgboost.Booster(model_file=bytearray(model))
    raise ValueError(f"A model must be an xgboost.Booster, a fitted estimator or a path, got {type(model).__name__}.")
