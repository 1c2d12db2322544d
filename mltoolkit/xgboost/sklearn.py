"""scikit-learn estimators that train and predict on actors, under the names of ``xgboost_ray.sklearn``.

Each is a subclass of XGBoost's estimator of the same kind, with the same parameters and the same fitted attributes. What they
fit are XGBoost's own models: ``get_booster()`` and ``save_model()`` give models that load without mltoolkit, and
``to_xgboost()`` gives a plain estimator of XGBoost, whose pickles do so too.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

import mltoolkit
from mltoolkit._boosting.params import RayParams, check_ray_params
from mltoolkit._boosting.runtime import light_start
from mltoolkit._optional import require
from mltoolkit.xgboost._wrappers import SklearnMetric, SklearnObjective, SklearnRankingMetric
from mltoolkit.xgboost.main import predict as predict_on_actors
from mltoolkit.xgboost.main import train
from mltoolkit.xgboost.matrix import RayDMatrix

__all__ = [
    "RayXGBClassifier",
    "RayXGBModel",
    "RayXGBRFClassifier",
    "RayXGBRFRegressor",
    "RayXGBRanker",
    "RayXGBRegressor",
]

require("sklearn", purpose="RayXGBClassifier and its kin", extra="xgboost")
_xgboost: Any = require("xgboost", purpose="RayXGBClassifier and its kin", extra="xgboost")

#: How the prediction under way is distributed; XGBoost's own methods stand in between.
_how: contextvars.ContextVar[tuple[Any, Mapping[str, Any]]] = contextvars.ContextVar("how", default=(None, {}))


@contextlib.contextmanager
def _distributed(ray_params: Any, ray_dmatrix_params: Mapping[str, Any] | None) -> Iterator[None]:
    token = _how.set((ray_params, ray_dmatrix_params or {}))
    try:
        yield
    finally:
        _how.reset(token)


class RayXGBModel(_xgboost.XGBModel):
    """What the estimators have in common; not to be used itself.

    It stands between XGBoost's estimators and their base class, so that they do what they do, on actors.
    """

    objective: Any

    # ---- fit -----------------------------------------------------------------------------------------------------------

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        sample_weight: Any = None,
        base_margin: Any = None,
        eval_set: Sequence[Any] | None = None,
        eval_metric: Any = None,
        early_stopping_rounds: int | None = None,
        verbose: bool | int | None = True,
        xgb_model: Any = None,
        sample_weight_eval_set: Sequence[Any] | None = None,
        base_margin_eval_set: Sequence[Any] | None = None,
        feature_weights: Any = None,
        callbacks: Sequence[Any] | None = None,
        ray_params: RayParams | Mapping[str, Any] | None = None,
        _remote: bool | None = None,
        ray_dmatrix_params: Mapping[str, Any] | None = None,
    ) -> Any:
        """Fit on actors.

        Parameters
        ----------
        X : array-like, DataFrame or RayDMatrix
            Features; a RayDMatrix has labels and everything else.
        y : array-like, optional
            Targets.
        sample_weight, base_margin : array-like, optional
            One value for each row.
        eval_set : list of (X, y), optional
            Datasets to evaluate after each round; pairs of a RayDMatrix and a name if X is one.
        eval_metric, early_stopping_rounds, callbacks : optional
            Instead of those of the constructor.
        verbose : bool or int, default=True
            Print evaluations of each round, or of every n-th.
        xgb_model : Booster, XGBModel or path, optional
            Model to continue.
        sample_weight_eval_set, base_margin_eval_set : list of array-like, optional
            One for each of `eval_set`.
        feature_weights : array-like, optional
            One for each feature.
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
        if y is None and not isinstance(X, RayDMatrix):
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None.")
        params = self.get_xgb_params()
        objective = None
        if callable(self.objective):
            objective = self.objective
            params["objective"] = "reg:squarederror"
        self._adapt(params, X, y)
        self._fit(
            X,
            y,
            params=params,
            ray_params=ray_params,
            ray_dmatrix_params=ray_dmatrix_params,
            eval_set=eval_set,
            eval_metric=eval_metric,
            early_stopping_rounds=early_stopping_rounds,
            verbose=verbose,
            xgb_model=xgb_model,
            callbacks=callbacks,
            feature_weights=feature_weights,
            columns={"weight": sample_weight, "base_margin": base_margin},
            eval_columns={
                "sample_weight_eval_set": sample_weight_eval_set,
                "base_margin_eval_set": base_margin_eval_set,
            },
            objective=objective,
        )
        if objective is None:
            self.objective = params["objective"]
        return self

    def _adapt(self, params: dict[str, Any], X: Any, y: Any) -> None:
        """Change parameters to suit the targets."""

    def _fit(
        self,
        X: Any,
        y: Any,
        *,
        params: dict[str, Any],
        ray_params: Any,
        ray_dmatrix_params: Mapping[str, Any] | None,
        eval_set: Sequence[Any] | None,
        eval_metric: Any,
        early_stopping_rounds: int | None,
        verbose: bool | int | None,
        xgb_model: Any,
        callbacks: Sequence[Any] | None,
        feature_weights: Any,
        columns: Mapping[str, Any],
        eval_columns: Mapping[str, Sequence[Any] | None],
        objective: Callable[..., Any] | None = None,
        metric_class: type[SklearnMetric] = SklearnMetric,
    ) -> None:
        """Train. `columns` and `eval_columns` are what belongs to the rows beside `y`: weights, margins, queries."""
        common = {
            "missing": self.missing,
            "enable_categorical": self.enable_categorical,
            "feature_types": self.feature_types,
            "feature_weights": self.feature_weights if self.feature_weights is not None else feature_weights,
            **(ray_dmatrix_params or {}),
        }
        dtrain, evals = self._matrices(X, y, columns, eval_set, eval_columns, common)
        metrics = eval_metric if eval_metric is not None else self.eval_metric
        names, custom = _split_metrics(metrics, metric_class)
        for name in ("ray_params", "ray_dmatrix_params"):
            if name in params:
                raise TypeError(f"`{name}` is an argument of fit() and predict(), not of {type(self).__name__}().")
        params = {name: value for name, value in params.items() if name not in ("n_jobs", "eval_metric")}
        if names is not None:
            params["eval_metric"] = names
        evals_result: dict[str, Any] = {}
        additional: dict[str, Any] = {}
        rounds = early_stopping_rounds if early_stopping_rounds is not None else self.early_stopping_rounds
        self._Booster = train(
            {name: value for name, value in params.items() if value is not None},
            dtrain,
            self.get_num_boosting_rounds(),
            evals=evals,
            obj=None if objective is None else SklearnObjective(objective),
            custom_metric=custom,
            early_stopping_rounds=rounds,
            evals_result=evals_result,
            additional_results=additional,
            verbose_eval=verbose,
            xgb_model=xgb_model,
            callbacks=callbacks if callbacks is not None else self.callbacks,
            ray_params=self._ray_params(ray_params),
        )
        self.additional_results_ = additional
        self.evals_result_ = evals_result

    def _matrices(
        self,
        X: Any,
        y: Any,
        columns: Mapping[str, Any],
        eval_set: Sequence[Any] | None,
        eval_columns: Mapping[str, Sequence[Any] | None],
        common: Mapping[str, Any],
    ) -> tuple[RayDMatrix, list[tuple[RayDMatrix, str]]]:
        given = {name: value for name, value in columns.items() if value is not None}
        sets = list(eval_set or ())
        for name, values in eval_columns.items():
            if values is not None and len(values) != len(sets):
                raise ValueError(
                    f"There must be one `{name}` for each of the {len(sets)} entries of `eval_set`, got {len(values)}."
                )
        if isinstance(X, RayDMatrix):
            unused = sorted({*given, *(["y"] if y is not None else [])})
            if unused:
                raise ValueError(
                    f"X is a RayDMatrix, which has {', '.join(map(repr, unused))} of its own: give them to its constructor."
                )
            return X, [self._matrix_pair(item) for item in sets]
        features, given = self._features(X, dict(given))
        dtrain = RayDMatrix(features, y, **given, **common)
        evals = []
        for index, item in enumerate(sets):
            name = f"validation_{index}"
            if isinstance(item, (tuple, list)) and item and isinstance(item[0], RayDMatrix):
                raise ValueError("`eval_set` may hold RayDMatrix objects only if X is one too.")
            if not isinstance(item, (tuple, list)) or len(item) != 2:
                raise ValueError(
                    "`eval_set` must be a list of pairs such as [(X_valid, y_valid)], got an entry of type "
                    f"{type(item).__name__}."
                )
            valid_X, valid_y = item
            own = {
                _COLUMN_OF[key]: values[index]
                for key, values in eval_columns.items()
                if values is not None and values[index] is not None
            }
            same = all(own.get(key) is given.get(key) for key in {*own, *given})
            if valid_X is X and valid_y is y and same:
                evals.append((dtrain, name))
                continue
            valid_X, own = self._features(valid_X, own)
            evals.append((RayDMatrix(valid_X, valid_y, **own, **common), name))
        return dtrain, evals

    @staticmethod
    def _matrix_pair(item: Any) -> tuple[RayDMatrix, str]:
        if (
            not isinstance(item, (tuple, list))
            or len(item) != 2
            or not isinstance(item[0], RayDMatrix)
            or not isinstance(item[1], str)
        ):
            raise ValueError(
                "If X is a RayDMatrix, `eval_set` must be a list of pairs such as [(RayDMatrix(...), 'validation')], got "
                f"{item!r}."
            )
        return item[0], item[1]

    def _features(self, X: Any, given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Features, and what belongs to their rows; rankers find queries among the features."""
        return X, given

    # ---- predict -------------------------------------------------------------------------------------------------------

    def predict(
        self,
        X: Any,
        *,
        output_margin: bool = False,
        validate_features: bool = True,
        base_margin: Any = None,
        iteration_range: tuple[int, int] | None = None,
    ) -> Any:
        """Predict values or margins; XGBoost's own estimators, which call this, make classes of them."""
        ray_params, matrix_params = _how.get()
        arguments: dict[str, Any] = {"output_margin": output_margin, "validate_features": validate_features}
        if not isinstance(X, RayDMatrix):
            if ray_params is None and self._num_actors() == 1:
                # One actor could do no more than this process, which has the data.
                return super().predict(X, base_margin=base_margin, iteration_range=iteration_range, **arguments)
            X = RayDMatrix(
                X,
                base_margin=base_margin,
                **{
                    "missing": self.missing,
                    "feature_types": self.feature_types,
                    "enable_categorical": self.enable_categorical,
                    **matrix_params,
                },
            )
        elif base_margin is not None:
            raise ValueError("X is a RayDMatrix, which has `base_margin` of its own: give it to its constructor.")
        arguments["iteration_range"] = self._get_iteration_range(iteration_range)
        return predict_on_actors(self.get_booster(), X, ray_params=self._ray_params(ray_params), **arguments)

    # ---- how many actors -----------------------------------------------------------------------------------------------

    def _num_actors(self) -> int:
        """What `n_jobs` says: -1 is one actor on each node, with all its CPUs."""
        if self.n_jobs is None or self.n_jobs in (0, 1):
            return 1
        if self.n_jobs > 0:
            return int(self.n_jobs)
        with light_start():
            return max(1, sum(1 for node in mltoolkit.nodes() if node.get("Alive")))

    def _ray_params(self, given: Any) -> RayParams:
        return RayParams(num_actors=self._num_actors()) if given is None else check_ray_params(given, RayParams)

    # ---- models --------------------------------------------------------------------------------------------------------

    def to_xgboost(self) -> Any:
        """Return XGBoost's own estimator with the same parameters and model: its pickles load without mltoolkit.

        Returns
        -------
        xgboost.XGBModel
            An ``XGBClassifier``, ``XGBRegressor``, ... It shares the model with this one.
        """
        plain = next(cls for cls in type(self).__mro__ if cls.__module__.partition(".")[0] == "xgboost")
        twin: Any = object.__new__(plain)
        twin.__dict__.update({name: value for name, value in self.__dict__.items() if name != "additional_results_"})
        return twin


_COLUMN_OF = {
    "sample_weight_eval_set": "weight",
    "base_margin_eval_set": "base_margin",
    "eval_group": "group",
    "eval_qid": "qid",
}


def _split_metrics(metrics: Any, wrapper: type[SklearnMetric]) -> tuple[Any, SklearnMetric | None]:
    """Names of XGBoost's metrics, and the custom one."""
    if metrics is None or isinstance(metrics, str):
        return metrics, None
    if callable(metrics):
        return None, wrapper(metrics)
    if not isinstance(metrics, Sequence):
        raise TypeError(f"`eval_metric` must be a name, a callable or a list of them, got {metrics!r}.")
    custom = [metric for metric in metrics if callable(metric)]
    names = [metric for metric in metrics if not callable(metric)]
    if len(custom) > 1:
        raise NotImplementedError(
            "`eval_metric` may hold one callable; return several names and values from it instead."
        )
    bad = [name for name in names if not isinstance(name, str)]
    if bad:
        raise TypeError(f"`eval_metric` must hold names and callables, got {bad[0]!r}.")
    return names or None, wrapper(custom[0]) if custom else None


class RayXGBRegressor(_xgboost.XGBRegressor, RayXGBModel):
    """Regression with XGBoost on actors.

    Parameters
    ----------
    **kwargs
        As for ``xgboost.XGBRegressor``. `n_jobs` is the number of actors; each uses as many threads as it has CPUs.

    Attributes
    ----------
    additional_results_ : dict
        ``total_n``, ``training_time_s``, ``total_time_s``, ``callback_returns``.
    """

    fit = RayXGBModel.fit

    def predict(
        self,
        X: Any,
        output_margin: bool = False,
        validate_features: bool = True,
        base_margin: Any = None,
        iteration_range: tuple[int, int] | None = None,
        ray_params: RayParams | Mapping[str, Any] | None = None,
        _remote: bool | None = None,
        ray_dmatrix_params: Mapping[str, Any] | None = None,
    ) -> Any:
        """Predict, on actors if there is more than one.

        Parameters
        ----------
        X : array-like, DataFrame or RayDMatrix
            Features.
        output_margin : bool, default=False
            Return untransformed values.
        validate_features : bool, default=True
            Check that the names of the features are the model's.
        base_margin : array-like, optional
            One value for each row.
        iteration_range : (int, int), optional
            Rounds whose trees are used. Default: all, or those up to the best one of early stopping.
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
        with _distributed(ray_params, ray_dmatrix_params):
            return super().predict(
                X,
                output_margin=output_margin,
                validate_features=validate_features,
                base_margin=base_margin,
                iteration_range=iteration_range,
            )


class _OneRound:
    """Forests are grown in one round, so there is nothing to stop early, as XGBoost's own say."""

    def _fit(self, X: Any, y: Any, **arguments: Any) -> None:
        model: Any = self
        for name in ("early_stopping_rounds", "callbacks"):
            if arguments.get(name) is not None or getattr(model, name) is not None:
                raise NotImplementedError(f"`{name}` is not for random forests, which are grown in one round.")
        super()._fit(X, y, **arguments)  # type: ignore[misc]


class RayXGBRFRegressor(_OneRound, _xgboost.XGBRFRegressor, RayXGBRegressor):
    """Regression with a random forest of XGBoost, grown on actors in one round.

    Parameters
    ----------
    **kwargs
        As for ``xgboost.XGBRFRegressor``; see :class:`RayXGBRegressor`.
    """

    fit = RayXGBModel.fit


class RayXGBClassifier(_xgboost.XGBClassifier, RayXGBModel):
    """Classification with XGBoost on actors.

    Parameters
    ----------
    **kwargs
        As for ``xgboost.XGBClassifier``. `n_jobs` is the number of actors; each uses as many threads as it has CPUs. Give
        `num_class` if the model is to be fitted to a RayDMatrix that the actors read themselves.

    Attributes
    ----------
    classes_ : ndarray of int
        ``0, 1, ..., n_classes - 1``.
    additional_results_ : dict
        See :class:`RayXGBRegressor`.
    """

    fit = RayXGBModel.fit

    def _adapt(self, params: dict[str, Any], X: Any, y: Any) -> None:
        if callable(self.objective):
            params["objective"] = "binary:logistic"
        given = params.pop("num_class", None)
        if isinstance(X, RayDMatrix):
            labels = X.labels()
            if labels is None and given is None:
                raise ValueError(
                    "`num_class` must be given to the constructor if X is a RayDMatrix that the actors read themselves: "
                    f"`{type(self).__name__}(num_class=2)`."
                )
            classes = np.arange(given) if labels is None else np.unique(labels)
        else:
            classes = np.unique(np.asarray(y))
        self.n_classes_ = len(classes)
        if classes.shape != self.classes_.shape or not (classes == self.classes_).all():
            raise ValueError(
                f"Invalid classes inferred from unique values of `y`. Expected: {self.classes_}, got {classes}. Encode them with "
                "sklearn.preprocessing.LabelEncoder."
            )
        if self.n_classes_ > 2:
            if params.get("objective") != "multi:softmax":
                params["objective"] = "multi:softprob"
            params["num_class"] = self.n_classes_

    def predict(
        self,
        X: Any,
        output_margin: bool = False,
        validate_features: bool = True,
        base_margin: Any = None,
        iteration_range: tuple[int, int] | None = None,
        ray_params: RayParams | Mapping[str, Any] | None = None,
        _remote: bool | None = None,
        ray_dmatrix_params: Mapping[str, Any] | None = None,
    ) -> Any:
        """Predict, on actors if there is more than one; the arguments are those of :meth:`RayXGBRegressor.predict`."""
        with _distributed(ray_params, ray_dmatrix_params):
            return super().predict(
                X,
                output_margin=output_margin,
                validate_features=validate_features,
                base_margin=base_margin,
                iteration_range=iteration_range,
            )

    def predict_proba(
        self,
        X: Any,
        validate_features: bool = True,
        base_margin: Any = None,
        iteration_range: tuple[int, int] | None = None,
        ray_params: RayParams | Mapping[str, Any] | None = None,
        _remote: bool | None = None,
        ray_dmatrix_params: Mapping[str, Any] | None = None,
    ) -> np.ndarray:
        """Predict the probability of each class; the arguments are those of :meth:`predict`.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
        """
        with _distributed(ray_params, ray_dmatrix_params):
            probabilities: np.ndarray = super().predict_proba(
                X,
                validate_features=validate_features,
                base_margin=base_margin,
                iteration_range=iteration_range,
            )
            return probabilities


class RayXGBRFClassifier(_OneRound, _xgboost.XGBRFClassifier, RayXGBClassifier):
    """Classification with a random forest of XGBoost, grown on actors in one round.

    Parameters
    ----------
    **kwargs
        As for ``xgboost.XGBRFClassifier``; see :class:`RayXGBClassifier`.
    """

    fit = RayXGBModel.fit


class RayXGBRanker(_xgboost.XGBRanker, RayXGBModel):
    """Ranking with XGBoost on actors; the rows of one query always go to one actor.

    Parameters
    ----------
    **kwargs
        As for ``xgboost.XGBRanker``; see :class:`RayXGBRegressor`.
    """

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        group: Any = None,
        qid: Any = None,
        sample_weight: Any = None,
        base_margin: Any = None,
        eval_set: Sequence[Any] | None = None,
        eval_group: Sequence[Any] | None = None,
        eval_qid: Sequence[Any] | None = None,
        eval_metric: Any = None,
        early_stopping_rounds: int | None = None,
        verbose: bool | int | None = False,
        xgb_model: Any = None,
        sample_weight_eval_set: Sequence[Any] | None = None,
        base_margin_eval_set: Sequence[Any] | None = None,
        feature_weights: Any = None,
        callbacks: Sequence[Any] | None = None,
        ray_params: RayParams | Mapping[str, Any] | None = None,
        _remote: bool | None = None,
        ray_dmatrix_params: Mapping[str, Any] | None = None,
    ) -> Any:
        """Fit on actors; arguments that are not named here are those of :meth:`RayXGBRegressor.fit`.

        Parameters
        ----------
        X : array-like, DataFrame or RayDMatrix
            Features. A DataFrame may have a column ``qid``.
        y : array-like, optional
            Relevance of each row.
        group : array-like of int, optional
            Sizes of consecutive queries.
        qid : array-like, optional
            The query of each row, in any order.
        sample_weight : array-like, optional
            One value for each query.
        eval_group, eval_qid : list of array-like, optional
            One for each of `eval_set`.

        Returns
        -------
        self
        """
        self._fit(
            X,
            y,
            params=self.get_xgb_params(),
            ray_params=ray_params,
            ray_dmatrix_params=ray_dmatrix_params,
            eval_set=eval_set,
            eval_metric=eval_metric,
            early_stopping_rounds=early_stopping_rounds,
            verbose=verbose,
            xgb_model=xgb_model,
            callbacks=callbacks,
            feature_weights=feature_weights,
            columns={"weight": sample_weight, "base_margin": base_margin, "group": group, "qid": qid},
            eval_columns={
                "sample_weight_eval_set": sample_weight_eval_set,
                "base_margin_eval_set": base_margin_eval_set,
                "eval_group": eval_group,
                "eval_qid": eval_qid,
            },
            metric_class=SklearnRankingMetric,
        )
        return self

    def _features(self, X: Any, given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        if "qid" in getattr(X, "columns", ()):
            if given.get("qid") is not None:
                raise ValueError("X has a column 'qid', and `qid` was given as well. Leave one of them out.")
            return X.drop("qid", axis=1), {**given, "qid": X["qid"]}
        if given.get("qid") is None and given.get("group") is None:
            raise ValueError("Either `group` or `qid` is required for ranking.")
        return X, given

    def predict(
        self,
        X: Any,
        output_margin: bool = False,
        validate_features: bool = True,
        base_margin: Any = None,
        iteration_range: tuple[int, int] | None = None,
        ray_params: RayParams | Mapping[str, Any] | None = None,
        _remote: bool | None = None,
        ray_dmatrix_params: Mapping[str, Any] | None = None,
    ) -> Any:
        """Predict, on actors if there is more than one; the arguments are those of :meth:`RayXGBRegressor.predict`."""
        with _distributed(ray_params, ray_dmatrix_params):
            return super().predict(
                X,
                output_margin=output_margin,
                validate_features=validate_features,
                base_margin=base_margin,
                iteration_range=iteration_range,
            )
