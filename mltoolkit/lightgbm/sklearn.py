"""scikit-learn estimators that train and predict on actors, under the names of ``lightgbm_ray.sklearn``.

Each is a subclass of LightGBM's estimator of the same kind, with the same parameters and the same fitted attributes. What
they fit are LightGBM's own models: ``booster_`` loads without mltoolkit, and ``to_local()`` gives a plain estimator of
LightGBM, whose pickles do so too.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import mltoolkit
from mltoolkit._boosting.matrix import RayDMatrix as _AnyMatrix
from mltoolkit._boosting.params import RayParams as _RayParams
from mltoolkit._boosting.params import check_ray_params
from mltoolkit._boosting.runtime import light_start
from mltoolkit._optional import require
from mltoolkit.lightgbm._wrappers import SklearnMetric, SklearnObjective
from mltoolkit.lightgbm.main import RayParams, Trained, predict_booster, train_booster
from mltoolkit.lightgbm.matrix import RayDMatrix

__all__ = ["RayLGBMClassifier", "RayLGBMModel", "RayLGBMRanker", "RayLGBMRegressor"]

require("sklearn", purpose="RayLGBMClassifier and its kin", extra="lightgbm")
_lightgbm: Any = require("lightgbm", purpose="RayLGBMClassifier and its kin", extra="lightgbm")


@dataclass(frozen=True)
class _How:
    """How the call under way is distributed; LightGBM's own methods stand in between."""

    ray_params: Any = None
    matrix_params: Mapping[str, Any] | None = None


_how: contextvars.ContextVar[_How] = contextvars.ContextVar("how", default=_How())  # noqa: B039 - it is frozen


@contextlib.contextmanager
def distributed(ray_params: Any, matrix_params: Mapping[str, Any] | None) -> Iterator[None]:
    """Say how the calls inside the block are distributed."""
    token = _how.set(_How(ray_params, matrix_params))
    try:
        yield
    finally:
        _how.reset(token)


class RayLGBMModel(_lightgbm.LGBMModel):
    """What the estimators have in common; not to be used itself.

    It stands between LightGBM's estimators and their base class, so that they do what they do, on actors.
    """

    _class_weight: Any

    # ---- fit -----------------------------------------------------------------------------------------------------------

    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        init_score: Any = None,
        group: Any = None,
        eval_set: Any = None,
        eval_names: Sequence[str] | None = None,
        eval_sample_weight: Any = None,
        eval_class_weight: Any = None,
        eval_init_score: Any = None,
        eval_group: Any = None,
        eval_metric: Any = None,
        feature_name: Any = "auto",
        categorical_feature: Any = "auto",
        callbacks: Any = None,
        init_model: Any = None,
        *,
        eval_X: Any = None,
        eval_y: Any = None,
    ) -> Any:
        """Fit on actors: what the estimators' own ``fit`` ends in, with targets encoded."""
        how = _how.get()
        params, metrics, feval = self._fit_params(eval_metric)
        matrix_params = dict(how.matrix_params or {})
        sets = _pairs(eval_set, eval_X, eval_y)
        dtrain: _AnyMatrix
        evals: list[tuple[_AnyMatrix, str]]
        if isinstance(X, _AnyMatrix):
            given = {"sample_weight": sample_weight, "init_score": init_score, "group": group}
            unused = [repr(name) for name, value in given.items() if value is not None]
            if unused:
                raise ValueError(f"X is a RayDMatrix, which has {', '.join(unused)} of its own: give it to RayDMatrix.")
            dtrain, evals = X, [(_matrix_of(item), f"valid_{at}") for at, item in enumerate(sets)]
        else:
            given_y = y
            X, y = self._validated(X, y), _one_column(y)
            columns = {
                "weight": self._weights(sample_weight, y),
                "base_margin": init_score,
                "group": group,
            }
            dtrain = _matrix(X, y, columns, matrix_params)
            evals = []
            for at, (valid_X, valid_y) in enumerate(sets):
                own = {
                    "weight": self._eval_weights(eval_sample_weight, eval_class_weight, valid_y, at),
                    "base_margin": _item(eval_init_score, "eval_init_score", at),
                    "group": _item(eval_group, "eval_group", at),
                }
                same = (
                    valid_X is X
                    and valid_y is given_y
                    and (
                        all(value is None for value in own.values()) or all(own[name] is columns[name] for name in own)
                    )
                )
                evals.append(
                    (dtrain if same else _matrix(valid_X, _one_column(valid_y), own, matrix_params), f"valid_{at}")
                )
        for at, name in enumerate(eval_names or ()):
            if at < len(evals):
                evals[at] = (evals[at][0], name)
        trained = train_booster(
            params,
            dtrain,
            self.n_estimators,
            evals=evals,
            metrics=metrics,
            feval=feval,
            verbose_eval=False,
            ray_params=self._ray_params(how.ray_params),
            init_model=init_model,
            callbacks=callbacks,
            feature_name=feature_name,
            categorical_feature=categorical_feature,
        )
        set_fitted(self, trained)
        return self

    def _fit_params(self, eval_metric: Any = None) -> tuple[dict[str, Any], list[str], list[SklearnMetric]]:
        """LightGBM's parameters, names of further metrics, and metrics of the user."""
        params = self._process_params(stage="fit")
        for name in ("num_threads", "n_jobs"):  # `n_jobs` is the number of actors
            params.pop(name, None)
        if callable(self._objective):
            params["objective"] = SklearnObjective(self._objective)
        if not any(name in self._other_params for name in ("verbosity", "verbose")):
            params.pop("verbosity", None)
        metrics = [] if eval_metric is None else eval_metric if isinstance(eval_metric, list) else [eval_metric]
        return (
            params,
            [metric for metric in metrics if isinstance(metric, str)],
            wrap_metrics([metric for metric in metrics if not isinstance(metric, str)]),
        )

    def _validated(self, X: Any, y: Any) -> Any:
        """Features as scikit-learn has them checked, where they are plain arrays."""
        if not isinstance(X, (np.ndarray, list, tuple)) and not hasattr(X, "tocsr"):
            return X
        if isinstance(X, list) and X and isinstance(X[0], (str, mltoolkit.ObjectRef)):
            return X
        from sklearn.utils.validation import check_array, check_consistent_length

        checked = check_array(
            X, accept_sparse=True, ensure_all_finite=False, ensure_min_samples=2, estimator=self, dtype="numeric"
        )
        check_consistent_length(X, y)
        return X if isinstance(X, np.ndarray) and X.dtype == checked.dtype else checked

    def _weights(self, sample_weight: Any, y: Any) -> Any:
        if self._class_weight is None:
            self._class_weight = self.class_weight
        return _times(sample_weight, self._class_weight, y)

    def _eval_weights(self, weights: Any, class_weights: Any, y: Any, at: int) -> Any:
        class_weight = _item(class_weights, "eval_class_weight", at)
        encoding = getattr(self, "_class_map", None)
        if isinstance(class_weight, dict) and encoding is not None:
            class_weight = {encoding[label]: value for label, value in class_weight.items()}
        return _times(_item(weights, "eval_sample_weight", at), class_weight, y)

    # ---- predict -------------------------------------------------------------------------------------------------------

    def predict(
        self,
        X: Any,
        raw_score: bool = False,
        start_iteration: int = 0,
        num_iteration: int | None = None,
        pred_leaf: bool = False,
        pred_contrib: bool = False,
        validate_features: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Predict what LightGBM's own estimators, which call this, make classes of."""
        how = _how.get()
        arguments = {
            "raw_score": raw_score,
            "start_iteration": start_iteration,
            "num_iteration": num_iteration,
            "pred_leaf": pred_leaf,
            "pred_contrib": pred_contrib,
            "validate_features": validate_features,
        }
        if not isinstance(X, _AnyMatrix):
            if (how.ray_params is None and self._num_actors() == 1) or not self.__sklearn_is_fitted__():
                # One actor could do no more than this process, which has the data.
                kwargs.setdefault("num_threads", 0)
                return super().predict(X, **arguments, **kwargs)
            X = RayDMatrix(X, **(how.matrix_params or {}))
        booster = self.booster_
        return predict_booster(booster, X, self._ray_params(how.ray_params), {**arguments, **kwargs})

    # ---- how many actors -----------------------------------------------------------------------------------------------

    def _num_actors(self) -> int:
        """What `n_jobs` says: -1 is one actor on each node, with all its CPUs."""
        if self.n_jobs is None or self.n_jobs in (0, 1):
            return 1
        if self.n_jobs > 0:
            return int(self.n_jobs)
        with light_start():
            return max(1, sum(1 for node in mltoolkit.nodes() if node.get("Alive")))

    def _ray_params(self, given: Any) -> _RayParams:
        return RayParams(num_actors=self._num_actors()) if given is None else check_ray_params(given, RayParams)

    # ---- models --------------------------------------------------------------------------------------------------------

    def to_local(self) -> Any:
        """Return LightGBM's own estimator with the same parameters and model: its pickles load without mltoolkit.

        Returns
        -------
        lightgbm.LGBMModel
            An ``LGBMClassifier``, ``LGBMRegressor`` or ``LGBMRanker``. It shares the model with this one.
        """
        plain = next(cls for cls in type(self).__mro__ if cls.__module__.partition(".")[0] == "lightgbm")
        twin: Any = object.__new__(plain)
        twin.__dict__.update({name: value for name, value in self.__dict__.items() if name != "additional_results_"})
        return twin


# ---- what is fitted ----------------------------------------------------------------------------------------------------


def set_fitted(estimator: Any, trained: Trained) -> None:
    """Give an estimator of LightGBM the attributes that its own ``fit`` would."""
    booster = trained.booster
    estimator._Booster = booster
    estimator._n_features = estimator._n_features_in = booster.num_feature()
    estimator._fitted_with_feature_names = trained.has_names
    estimator._evals_result = trained.evals_result
    estimator._best_iteration = booster.best_iteration
    estimator._best_score = booster.best_score
    estimator.fitted_ = True
    if isinstance(estimator, RayLGBMModel):
        estimator.additional_results_ = trained.additional_results


def set_classes(estimator: Any, classes: np.ndarray) -> None:
    """Give a classifier the classes that its own ``fit`` would find in the targets."""
    from sklearn.preprocessing import LabelEncoder

    estimator._le = LabelEncoder().fit(classes)
    estimator._classes = estimator._le.classes_
    estimator._n_classes = len(estimator._classes)
    estimator._class_map = {label: at for at, label in enumerate(estimator._classes)}
    if estimator.objective is None:
        estimator._objective = None


def classes_of(matrix: _AnyMatrix, num_class: int | None) -> np.ndarray:
    """The classes of a dataset, whose labels are their numbers.

    Raises
    ------
    ValueError
        If only the actors know the labels and `num_class` is not given, or the labels are not 0, 1, 2, ...
    """
    labels = matrix.labels()
    if labels is None:
        if num_class is None:
            raise ValueError(
                "`num_class` must be given if the actors read the data themselves: `RayLGBMClassifier(num_class=2)`."
            )
        return np.arange(num_class)
    classes = np.unique(labels)
    count = max(len(classes), num_class or 0)
    if not np.isin(classes, np.arange(count)).all():
        raise ValueError(
            f"The labels of a RayDMatrix must be 0, 1, ..., {count - 1} for a classifier, got {classes[:10]}. Encode them with "
            "sklearn.preprocessing.LabelEncoder, or give arrays to fit(), which does so."
        )
    return np.arange(count)


@dataclass
class _Plan:
    """An estimator to be, for ``train``."""

    estimator: Any

    def params(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """LightGBM's parameters, with the objective that the estimator's kind implies."""
        out = dict(params)
        kind = self.estimator
        if isinstance(kind, _lightgbm.LGBMClassifier):
            out.setdefault("objective", "multiclass" if kind._n_classes > 2 else "binary")
            if kind._n_classes > 2:
                out["num_class"] = kind._n_classes
        elif isinstance(kind, _lightgbm.LGBMRanker):
            out.setdefault("objective", "lambdarank")
        elif isinstance(kind, _lightgbm.LGBMRegressor):
            out.setdefault("objective", "regression")
        return out

    def fitted(self, trained: Trained) -> Any:
        """The estimator, with the model."""
        self.estimator.n_estimators = trained.num_boost_round
        if self.estimator._objective is None:
            self.estimator._objective = trained.booster.params.get("objective", "regression")
        set_fitted(self.estimator, trained)
        return self.estimator


def plan_estimator(factory: type[Any], params: Mapping[str, Any], dtrain: _AnyMatrix) -> _Plan:
    """Make the estimator that ``train`` is to return, so that mistakes show before training."""
    from lightgbm.basic import _ConfigAliases

    rounds = _ConfigAliases.get("num_iterations")
    estimator = factory(**{name: value for name, value in params.items() if name not in rounds})
    if isinstance(estimator, _lightgbm.LGBMClassifier):
        set_classes(estimator, classes_of(dtrain, params.get("num_class")))
    return _Plan(estimator)


def on_actors(model: Any) -> Any:
    """An estimator that predicts on actors as another one does in its process; they share the model."""
    if isinstance(model, RayLGBMModel):
        return model
    kinds = (RayLGBMClassifier, RayLGBMRegressor, RayLGBMRanker)
    kind = next((kind for kind in kinds if isinstance(model, kind.__mro__[1])), _PlainModel)
    twin = object.__new__(kind)
    twin.__dict__.update(model.__dict__)
    return twin


def wrap_metrics(metrics: Sequence[Any]) -> list[SklearnMetric]:
    """Metrics of the user in LightGBM's form."""
    bad = [metric for metric in metrics if not callable(metric)]
    if bad:
        raise TypeError(f"`eval_metric` must hold names and callables, got {bad[0]!r}.")
    return [SklearnMetric(metric) for metric in metrics]


# ---- data --------------------------------------------------------------------------------------------------------------


def _matrix(X: Any, y: Any, columns: Mapping[str, Any], matrix_params: Mapping[str, Any]) -> RayDMatrix:
    return RayDMatrix(X, y, **{name: value for name, value in columns.items() if value is not None}, **matrix_params)


def _one_column(y: Any) -> Any:
    """Targets in one dimension, with scikit-learn's warning where they are a matrix of one column."""
    if not hasattr(y, "__array__") or hasattr(y, "__dask_graph__") or getattr(y, "ndim", 1) != 2:
        return y
    from sklearn.utils.validation import column_or_1d

    return column_or_1d(y, warn=True)


def _matrix_of(item: Any) -> _AnyMatrix:
    matrix = item[0] if isinstance(item, (tuple, list)) and item else item
    if not isinstance(matrix, _AnyMatrix):
        raise ValueError(
            "If X is a RayDMatrix, `eval_set` must hold such too: `[(RayDMatrix(...), 'name')]`, got an entry "
            f"{type(matrix).__name__}."
        )
    return matrix


def _pairs(eval_set: Any, eval_X: Any, eval_y: Any) -> list[Any]:
    if eval_set is None:
        if eval_X is None and eval_y is None:
            return []
        if eval_X is None or eval_y is None:
            raise ValueError("Give both `eval_X` and `eval_y`, or neither.")
        if isinstance(eval_X, tuple) != isinstance(eval_y, tuple) or (
            isinstance(eval_X, tuple) and len(eval_X) != len(eval_y)
        ):
            raise ValueError("`eval_X` and `eval_y` must both be tuples of one length, or one dataset.")
        return list(zip(eval_X, eval_y, strict=True)) if isinstance(eval_X, tuple) else [(eval_X, eval_y)]
    if eval_X is not None or eval_y is not None:
        raise ValueError("Give either `eval_set` or `eval_X` and `eval_y`, not both.")
    return [eval_set] if isinstance(eval_set, tuple) else list(eval_set)


def _item(collection: Any, name: str, at: int) -> Any:
    if collection is None:
        return None
    if isinstance(collection, Mapping):
        return collection.get(at)
    if not isinstance(collection, (list, tuple)):
        raise TypeError(f"`{name}` must be a list with an entry for each evaluation dataset, got {collection!r}.")
    return collection[at] if at < len(collection) else None


def _times(weight: Any, class_weight: Any, y: Any) -> Any:
    if class_weight is None:
        return weight
    from sklearn.utils.class_weight import compute_sample_weight

    own = compute_sample_weight(class_weight, np.asarray(y))
    return own if weight is None else np.asarray(weight) * own


# ---- the estimators ----------------------------------------------------------------------------------------------------

_FIT_DOC = """Fit on actors; arguments that are not named here are those of LightGBM's estimator.

        Parameters
        ----------
        X : array-like, DataFrame, list of files or RayDMatrix
            Features; a RayDMatrix has targets, weights and everything else.
        y : array-like, optional
            Targets.
        eval_set : list of (X, y), optional
            Datasets to evaluate after each round; pairs of a RayDMatrix and a name if X is one. They are called
            ``valid_0``, ``valid_1``, ... unless `eval_names` are given.
        eval_metric : str, callable or list of them, optional
            Metrics of the user see the rows of one shard; the values of all shards are averaged, weighted by their rows.
        callbacks : list of callable, optional
            They run in every actor, each on a copy of its own, except ``log_evaluation`` and ``record_evaluation``.
        ray_params : RayParams or dict, optional
            How many actors, with what, and what happens when one is lost. Default: `n_jobs` actors.
        _remote : bool, optional
            Taken for compatibility.
        ray_dmatrix_params : dict, optional
            Further arguments of RayDMatrix, such as ``{"sharding": RayShardingMode.BATCH}``.

        Returns
        -------
        self
        """

_PREDICT_DOC = """Predict, on actors if there is more than one; other arguments are those of LightGBM's estimator.

        Parameters
        ----------
        X : array-like, DataFrame or RayDMatrix
            Features.
        raw_score, start_iteration, num_iteration, pred_leaf, pred_contrib, validate_features : optional
            As LightGBM has them.
        ray_params : RayParams or dict, optional
            How many actors. Default: `n_jobs`; with one, this process predicts by itself.
        _remote : bool, optional
            Taken for compatibility.
        ray_dmatrix_params : dict, optional
            Further arguments of RayDMatrix.

        Returns
        -------
        ndarray
        """


class _PlainModel(RayLGBMModel):
    """Predicts with what ``train`` has returned."""


class RayLGBMClassifier(_lightgbm.LGBMClassifier, RayLGBMModel):
    """Classification with LightGBM on actors.

    Parameters
    ----------
    **kwargs
        As for ``lightgbm.LGBMClassifier``. `n_jobs` is the number of actors; each uses as many threads as it has CPUs. Give
        `num_class` if the model is to be fitted to a RayDMatrix that the actors read themselves.

    Attributes
    ----------
    additional_results_ : dict
        ``total_n``, ``training_time_s``, ``total_time_s``, ``callback_returns``.
    """

    def fit(  # type: ignore[override]  # noqa: D102 - below
        self,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        init_score: Any = None,
        eval_set: Any = None,
        eval_names: Sequence[str] | None = None,
        eval_sample_weight: Any = None,
        eval_class_weight: Any = None,
        eval_init_score: Any = None,
        eval_metric: Any = None,
        feature_name: Any = "auto",
        categorical_feature: Any = "auto",
        callbacks: Any = None,
        init_model: Any = None,
        *,
        eval_X: Any = None,
        eval_y: Any = None,
        ray_params: _RayParams | Mapping[str, Any] | None = None,
        _remote: bool | None = None,
        ray_dmatrix_params: Mapping[str, Any] | None = None,
    ) -> Any:
        arguments = {
            "sample_weight": sample_weight,
            "init_score": init_score,
            "eval_set": eval_set,
            "eval_names": eval_names,
            "eval_sample_weight": eval_sample_weight,
            "eval_class_weight": eval_class_weight,
            "eval_init_score": eval_init_score,
            "eval_metric": eval_metric,
            "feature_name": feature_name,
            "categorical_feature": categorical_feature,
            "callbacks": callbacks,
            "init_model": init_model,
        }
        if eval_X is not None or eval_y is not None:
            arguments["eval_set"] = _pairs(eval_set, eval_X, eval_y)
        with distributed(ray_params, ray_dmatrix_params):
            if isinstance(X, _AnyMatrix):
                _check_no_target(y)
                set_classes(self, classes_of(X, self._other_params.get("num_class")))
                return RayLGBMModel.fit(self, X, None, **arguments)
            return super().fit(X, _required(self, y), **arguments)

    fit.__doc__ = _FIT_DOC

    def predict(  # noqa: D102 - below
        self,
        X: Any,
        raw_score: bool = False,
        start_iteration: int = 0,
        num_iteration: int | None = None,
        pred_leaf: bool = False,
        pred_contrib: bool = False,
        validate_features: bool = False,
        *,
        ray_params: _RayParams | Mapping[str, Any] | None = None,
        _remote: bool | None = None,
        ray_dmatrix_params: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        call = functools.partial(
            super().predict, X, raw_score, start_iteration, num_iteration, pred_leaf, pred_contrib, validate_features
        )
        with distributed(*_inherited(ray_params, ray_dmatrix_params)):
            return call(**kwargs)

    predict.__doc__ = _PREDICT_DOC

    def predict_proba(
        self,
        X: Any,
        raw_score: bool = False,
        start_iteration: int = 0,
        num_iteration: int | None = None,
        pred_leaf: bool = False,
        pred_contrib: bool = False,
        validate_features: bool = False,
        *,
        ray_params: _RayParams | Mapping[str, Any] | None = None,
        _remote: bool | None = None,
        ray_dmatrix_params: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Predict the probability of each class; the arguments are those of :meth:`predict`.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
        """
        call = functools.partial(
            super().predict_proba,
            X, raw_score, start_iteration, num_iteration, pred_leaf, pred_contrib, validate_features,
        )  # fmt: skip
        with distributed(*_inherited(ray_params, ray_dmatrix_params)):
            return call(**kwargs)


class RayLGBMRegressor(_lightgbm.LGBMRegressor, RayLGBMModel):
    """Regression with LightGBM on actors.

    Parameters
    ----------
    **kwargs
        As for ``lightgbm.LGBMRegressor``; see :class:`RayLGBMClassifier`.
    """

    def fit(  # type: ignore[override]  # noqa: D102 - below
        self,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        init_score: Any = None,
        eval_set: Any = None,
        eval_names: Sequence[str] | None = None,
        eval_sample_weight: Any = None,
        eval_init_score: Any = None,
        eval_metric: Any = None,
        feature_name: Any = "auto",
        categorical_feature: Any = "auto",
        callbacks: Any = None,
        init_model: Any = None,
        *,
        eval_X: Any = None,
        eval_y: Any = None,
        ray_params: _RayParams | Mapping[str, Any] | None = None,
        _remote: bool | None = None,
        ray_dmatrix_params: Mapping[str, Any] | None = None,
    ) -> Any:
        if isinstance(X, _AnyMatrix):
            _check_no_target(y)
        else:
            _required(self, y)
        with distributed(ray_params, ray_dmatrix_params):
            return RayLGBMModel.fit(
                self,
                X,
                y,
                sample_weight=sample_weight,
                init_score=init_score,
                eval_set=eval_set,
                eval_names=eval_names,
                eval_sample_weight=eval_sample_weight,
                eval_init_score=eval_init_score,
                eval_metric=eval_metric,
                feature_name=feature_name,
                categorical_feature=categorical_feature,
                callbacks=callbacks,
                init_model=init_model,
                eval_X=eval_X,
                eval_y=eval_y,
            )

    fit.__doc__ = _FIT_DOC

    def predict(  # noqa: D102 - below
        self,
        X: Any,
        raw_score: bool = False,
        start_iteration: int = 0,
        num_iteration: int | None = None,
        pred_leaf: bool = False,
        pred_contrib: bool = False,
        validate_features: bool = False,
        *,
        ray_params: _RayParams | Mapping[str, Any] | None = None,
        _remote: bool | None = None,
        ray_dmatrix_params: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        call = functools.partial(
            RayLGBMModel.predict,
            self, X, raw_score, start_iteration, num_iteration, pred_leaf, pred_contrib, validate_features,
        )  # fmt: skip
        with distributed(*_inherited(ray_params, ray_dmatrix_params)):
            return call(**kwargs)

    predict.__doc__ = _PREDICT_DOC


class RayLGBMRanker(_lightgbm.LGBMRanker, RayLGBMModel):
    """Ranking with LightGBM on actors; the rows of one query always go to one actor.

    Parameters
    ----------
    **kwargs
        As for ``lightgbm.LGBMRanker``; see :class:`RayLGBMClassifier`.
    """

    def fit(  # type: ignore[override]  # noqa: D102 - below
        self,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        init_score: Any = None,
        group: Any = None,
        eval_set: Any = None,
        eval_names: Sequence[str] | None = None,
        eval_sample_weight: Any = None,
        eval_init_score: Any = None,
        eval_group: Any = None,
        eval_metric: Any = None,
        eval_at: Sequence[int] = (1, 2, 3, 4, 5),
        feature_name: Any = "auto",
        categorical_feature: Any = "auto",
        callbacks: Any = None,
        init_model: Any = None,
        *,
        eval_X: Any = None,
        eval_y: Any = None,
        ray_params: _RayParams | Mapping[str, Any] | None = None,
        _remote: bool | None = None,
        ray_dmatrix_params: Mapping[str, Any] | None = None,
    ) -> Any:
        if isinstance(X, _AnyMatrix):
            _check_no_target(y)
            if not X.has_qid:
                raise ValueError("The RayDMatrix has no queries. Give `qid` or `group` to its constructor.")
        else:
            _required(self, y)
            sets = _pairs(eval_set, eval_X, eval_y)
            if group is None:
                raise ValueError("`group` is required for ranking: the sizes of consecutive queries.")
            if sets and (eval_group is None or len(eval_group) != len(sets)):
                raise ValueError(f"`eval_group` must have one entry for each of the {len(sets)} evaluation datasets.")
        self._eval_at = eval_at
        with distributed(ray_params, ray_dmatrix_params):
            return RayLGBMModel.fit(
                self,
                X,
                y,
                sample_weight=sample_weight,
                init_score=init_score,
                group=group,
                eval_set=eval_set,
                eval_names=eval_names,
                eval_sample_weight=eval_sample_weight,
                eval_init_score=eval_init_score,
                eval_group=eval_group,
                eval_metric=eval_metric,
                feature_name=feature_name,
                categorical_feature=categorical_feature,
                callbacks=callbacks,
                init_model=init_model,
                eval_X=eval_X,
                eval_y=eval_y,
            )

    fit.__doc__ = _FIT_DOC.replace(
        "        eval_set :",
        """        group : array-like of int
            Sizes of consecutive queries.
        eval_group : list of array-like, optional
            The same for each dataset to evaluate.
        eval_at : sequence of int, default=(1, 2, 3, 4, 5)
            Positions at which metrics of ranking are evaluated.
        eval_set :""",
    )

    predict = RayLGBMRegressor.predict


def _inherited(ray_params: Any, matrix_params: Any) -> tuple[Any, Any]:
    """Classes are predicted by way of probabilities: the inner call goes where the outer one does."""
    outer = _how.get()
    return (
        outer.ray_params if ray_params is None else ray_params,
        outer.matrix_params if matrix_params is None else matrix_params,
    )


def _required(estimator: Any, y: Any) -> Any:
    if y is None:
        raise ValueError(f"{type(estimator).__name__} requires y to be passed, but the target y is None.")
    return y


def _check_no_target(y: Any) -> None:
    if y is not None:
        raise ValueError("X is a RayDMatrix, which has 'y' of its own: give it to RayDMatrix as its label.")
