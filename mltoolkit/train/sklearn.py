"""Training estimators of scikit-learn in a trial."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from mltoolkit._optional import require
from mltoolkit.train._checkpoint import Checkpoint
from mltoolkit.train._config import RunConfig
from mltoolkit.train._internal.datasets import _made
from mltoolkit.train._scaling import ScalingConfig
from mltoolkit.train.data_parallel_trainer import BaseTrainer

__all__ = ["SklearnCheckpoint", "SklearnTrainer"]

_MODEL_FILE = "model.pkl"


class SklearnCheckpoint(Checkpoint):
    """A checkpoint that holds a fitted estimator."""

    @classmethod
    def from_estimator(cls, estimator: Any, *, path: str) -> SklearnCheckpoint:
        """Keep an estimator in a folder, which is made.

        Parameters
        ----------
        estimator : estimator
        path : str

        Returns
        -------
        SklearnCheckpoint
        """
        import os

        from mltoolkit.train._trust import dump_pickle

        os.makedirs(path, exist_ok=True)
        dump_pickle(estimator, os.path.join(path, _MODEL_FILE))
        return cls(path)

    def get_model(self) -> Any:
        """The estimator; reads a pickle, which must be one's own.

        Returns
        -------
        estimator
        """
        import os

        from mltoolkit.train._trust import load_pickle

        with self.as_directory() as folder:
            return load_pickle(os.path.join(folder, _MODEL_FILE))


class SklearnTrainer(BaseTrainer):
    """Fits an estimator of scikit-learn in one process, with as many threads and processes as it was given CPUs.

    Parameters
    ----------
    estimator : estimator
    datasets : dict
        Tables by name: ``"train"`` to fit, all others to score. Tables of pandas, or pairs of arrays ``(X, y)``.
    label_column : str, optional
        The column that is predicted; not with pairs.
    params : dict, optional
        Parameters that the estimator gets before it is fitted.
    scoring : str, callable, list or dict, optional
        As ``sklearn.model_selection.cross_validate`` takes it; the estimator's own ``score`` by default.
    cv : int, splitter or dict, optional
        Also cross-validates on ``"train"``.
    return_train_score_cv : bool, default=False
    parallelize_cv : bool, optional
        Whether folds rather than the estimator run in parallel; so if the estimator has no `n_jobs`.
    set_estimator_cpus : bool, default=True
        Whether `n_jobs` of the estimator is set to the CPUs.
    scaling_config : ScalingConfig, optional
        ``trainer_resources={"CPU": 4}``; there are no workers.
    run_config, metadata
        As for other trainers.
    **fit_params
        For ``estimator.fit``.

    Examples
    --------
    >>> import tempfile
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> from mltoolkit import train
    >>> trainer = SklearnTrainer(
    ...     estimator=DecisionTreeClassifier(random_state=0),
    ...     datasets={"train": load_iris(return_X_y=True)},
    ...     run_config=train.RunConfig(storage_path=tempfile.mkdtemp(), verbose=0),
    ... )
    >>> result = trainer.fit()
    >>> SklearnCheckpoint(result.checkpoint.path).get_model().get_depth()
    5
    """

    _tunable = ("params", *BaseTrainer._tunable)

    def __init__(
        self,
        *,
        estimator: Any,
        datasets: Mapping[str, Any],
        label_column: str | None = None,
        params: Mapping[str, Any] | None = None,
        scoring: Any = None,
        cv: Any = None,
        return_train_score_cv: bool = False,
        parallelize_cv: bool | None = None,
        set_estimator_cpus: bool = True,
        scaling_config: ScalingConfig | None = None,
        run_config: RunConfig | None = None,
        metadata: Mapping[str, Any] | None = None,
        **fit_params: Any,
    ) -> None:
        require("sklearn", purpose="SklearnTrainer", extra="sklearn")
        scaling = scaling_config or ScalingConfig(num_workers=0, trainer_resources={"CPU": 1})
        if scaling.num_workers > 1:
            raise ValueError(
                f"SklearnTrainer fits in one process, got `num_workers={scaling.num_workers}`. Give that one more CPUs: "
                "`ScalingConfig(trainer_resources={'CPU': 4})`."
            )
        if "train" not in datasets:
            raise KeyError(f"`datasets` must have 'train', got {', '.join(map(repr, datasets)) or 'none'}.")
        if not hasattr(estimator, "fit"):
            raise TypeError(f"`estimator` must be an estimator of scikit-learn, got {estimator!r}.")
        super().__init__(scaling_config=scaling, run_config=run_config, datasets=datasets, metadata=metadata)
        self.scaling_config = ScalingConfig(
            num_workers=0,
            trainer_resources=scaling.trainer_resources or scaling.worker_resources,
            placement_strategy=scaling.placement_strategy,
        )
        # Loaded once for all trials, where it would take each of them a second.
        home = type(estimator).__module__
        own = (home,) if home.startswith("sklearn.") else ()
        self._preloaded = ("mltoolkit.tune.execution._trial_actor", "sklearn.model_selection", "sklearn.metrics", *own)
        self.estimator = estimator
        self.label_column = label_column
        self.params = dict(params or {})
        self.scoring = scoring
        self.cv = cv
        self.return_train_score_cv = return_train_score_cv
        self.parallelize_cv = parallelize_cv
        self.set_estimator_cpus = set_estimator_cpus
        self.fit_params = fit_params

    def training_loop(self) -> None:
        """Fit, score, report."""
        import tempfile

        from sklearn.base import clone

        from mltoolkit.train._session import report

        cpus = max(1, int((self.scaling_config.trainer_resources or {}).get("CPU", 1)))
        estimator = clone(self.estimator).set_params(**self.params)
        accepts_jobs = [name for name in estimator.get_params() if name == "n_jobs" or name.endswith("__n_jobs")]
        folds_in_parallel = not accepts_jobs if self.parallelize_cv is None else self.parallelize_cv
        jobs = 1 if folds_in_parallel and self.cv is not None else cpus
        if self.set_estimator_cpus:
            # None is one already, and said so only where it must be: estimators are about to lose the parameter.
            given = estimator.get_params()
            estimator.set_params(**{name: jobs for name in accepts_jobs if jobs > 1 or given[name] not in (None, 1)})
        tables = {name: self._columns(_made(data), name) for name, data in self.datasets.items()}
        metrics: dict[str, Any] = {}
        if self.cv is not None:
            metrics["cv"] = self._cross_validate(estimator, *tables["train"], cpus if folds_in_parallel else 1)
        began = time.perf_counter()
        estimator.fit(*tables["train"], **self.fit_params)
        metrics["fit_time"] = time.perf_counter() - began
        for name, (x, y) in tables.items():
            if name != "train":
                metrics[name] = self._scores(estimator, x, y)
        with tempfile.TemporaryDirectory() as folder:
            report(metrics, checkpoint=SklearnCheckpoint.from_estimator(estimator, path=folder))

    def _columns(self, data: Any, name: str) -> tuple[Any, Any]:
        if self.label_column is None:
            if isinstance(data, (tuple, list)) and len(data) == 2:
                return data[0], data[1]
            raise ValueError(f"The dataset {name!r} is no pair (X, y). Give `label_column`, or pairs.")
        if not hasattr(data, "drop"):
            raise TypeError(
                f"The dataset {name!r} must be a table of pandas with the column {self.label_column!r}, "
                f"got {type(data).__name__}. Leave `label_column` out for pairs (X, y)."
            )
        return data.drop(columns=[self.label_column]), data[self.label_column]

    def _scorers(self, estimator: Any) -> dict[str, Callable[..., float]]:
        from sklearn.metrics import check_scoring, get_scorer

        if isinstance(self.scoring, Mapping):
            return {name: get_scorer(each) if isinstance(each, str) else each for name, each in self.scoring.items()}
        if isinstance(self.scoring, (list, tuple, set)):
            return {name: get_scorer(name) for name in self.scoring}
        return {"score": check_scoring(estimator, self.scoring)}

    def _scores(self, estimator: Any, x: Any, y: Any) -> dict[str, float]:
        scores = {}
        began = time.perf_counter()
        for name, scorer in self._scorers(estimator).items():
            scores["test_score" if name == "score" else f"test_{name}"] = float(scorer(estimator, x, y))
        return {"score_time": time.perf_counter() - began, **scores}

    def _cross_validate(self, estimator: Any, x: Any, y: Any, jobs: int) -> dict[str, Any]:
        from sklearn.model_selection import cross_validate

        options = dict(self.cv) if isinstance(self.cv, Mapping) else {"cv": self.cv}
        found = cross_validate(
            estimator,
            x,
            y,
            scoring=self.scoring,
            n_jobs=jobs,
            return_train_score=self.return_train_score_cv,
            **options,
        )
        summary: dict[str, Any] = {}
        for name, values in found.items():
            summary[name] = values.tolist()
            summary[f"{name}_mean"] = float(values.mean())
            summary[f"{name}_std"] = float(values.std())
        return summary
