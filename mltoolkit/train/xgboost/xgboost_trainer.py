"""The trainer for XGBoost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mltoolkit._optional import require
from mltoolkit.train._checkpoint import Checkpoint
from mltoolkit.train._config import RunConfig
from mltoolkit.train._internal.boosting import BoostingTrainer
from mltoolkit.train._internal.datasets import DataConfig
from mltoolkit.train._scaling import ScalingConfig
from mltoolkit.train.xgboost.config import XGBoostConfig

__all__ = ["XGBoostTrainer"]


class XGBoostTrainer(BoostingTrainer):
    """Trains XGBoost on workers: by a training function that each of them runs, or from parameters.

    With a training function, ``xgboost.train`` and everything else that computes in XGBoost's collective works on the data
    of all workers, each of which gives its shard. Without one, the older form, `params` and `datasets` say all that is
    needed: each dataset is evaluated after each round, and its metrics are reported as ``"train-logloss"``, after the
    dataset and the metric.

    Parameters
    ----------
    train_loop_per_worker : callable, optional
        Takes `train_loop_config`, or nothing. It calls ``xgboost.train`` with
        :class:`~mltoolkit.train.xgboost.RayTrainReportCallback` among the callbacks.
    train_loop_config : dict, optional
    xgboost_config : XGBoostConfig, optional
    scaling_config : ScalingConfig, optional
    run_config : RunConfig, optional
        In the older form its ``CheckpointConfig`` may have `checkpoint_frequency`, the rounds between checkpoints, and
        `checkpoint_at_end`, which is True unless it says otherwise.
    datasets : dict, optional
        For a training function, as for :class:`~mltoolkit.train.DataParallelTrainer`. In the older form ``"train"`` is what
        is trained on, and each may be whatever ``RayDMatrix`` takes (a table of pandas, Arrow or polars, a Dask DataFrame,
        files), a pair of arrays ``(X, y)``, a RayDMatrix, or a function that makes one. A training function gets parts of a
        Dask collection after it has been computed.
    dataset_config : DataConfig, optional
    metadata : dict, optional
    resume_from_checkpoint : Checkpoint, optional
        In the older form, the model to continue.
    label_column : str, optional
        Older form: the column that is predicted.
    params : dict, optional
        Older form: parameters of XGBoost.
    num_boost_round : int, optional
        Older form: how many rounds the model has in the end, those of `resume_from_checkpoint` included. Default: 10.
    dmatrix_params : dict of str to dict, optional
        Older form: further arguments of ``RayDMatrix`` for some datasets, such as ``{"train": {"weight": "w"}}``.
    **train_kwargs
        Older form: further arguments of :func:`mltoolkit.xgboost.train`, such as `early_stopping_rounds`.

    Examples
    --------
    >>> import tempfile
    >>> import pandas
    >>> from mltoolkit import train
    >>> frame = pandas.DataFrame({"x": range(8), "y": [0, 0, 0, 0, 1, 1, 1, 1]})
    >>> trainer = XGBoostTrainer(
    ...     params={"objective": "binary:logistic"},
    ...     label_column="y",
    ...     num_boost_round=3,
    ...     datasets={"train": frame},
    ...     scaling_config=train.ScalingConfig(num_workers=2, resources_per_worker={"CPU": 0.5}),
    ...     run_config=train.RunConfig(storage_path=tempfile.mkdtemp(), verbose=0),
    ... )
    >>> result = trainer.fit()
    >>> "train-logloss" in result.metrics, XGBoostTrainer.get_model(result.checkpoint).num_boosted_rounds()
    (True, 3)
    """

    _library_name = "XGBoost"
    _init_model = "xgb_model"
    _preloaded: tuple[str, ...] = (*BoostingTrainer._preloaded, "xgboost")

    def __init__(
        self,
        train_loop_per_worker: Callable[..., Any] | None = None,
        *,
        train_loop_config: Mapping[str, Any] | None = None,
        xgboost_config: XGBoostConfig | None = None,
        scaling_config: ScalingConfig | None = None,
        run_config: RunConfig | None = None,
        datasets: Mapping[str, Any] | None = None,
        dataset_config: DataConfig | None = None,
        metadata: Mapping[str, Any] | None = None,
        resume_from_checkpoint: Checkpoint | None = None,
        label_column: str | None = None,
        params: Mapping[str, Any] | None = None,
        num_boost_round: int | None = None,
        dmatrix_params: Mapping[str, Mapping[str, Any]] | None = None,
        **train_kwargs: Any,
    ) -> None:
        require("xgboost", purpose="XGBoostTrainer", extra="xgboost")
        if xgboost_config is not None and not isinstance(xgboost_config, XGBoostConfig):
            raise TypeError(f"`xgboost_config` must be a train.xgboost.XGBoostConfig, got {xgboost_config!r}.")
        super().__init__(
            train_loop_per_worker,
            train_loop_config=train_loop_config,
            backend_config=xgboost_config or XGBoostConfig(),
            scaling_config=scaling_config,
            run_config=run_config,
            datasets=datasets,
            dataset_config=dataset_config,
            metadata=metadata,
            resume_from_checkpoint=resume_from_checkpoint,
            older={
                "label_column": label_column,
                "params": params,
                "num_boost_round": num_boost_round,
                "dmatrix_params": dmatrix_params,
                **train_kwargs,
            },
        )

    @classmethod
    def _train_function(cls) -> Callable[..., Any]:
        from mltoolkit.xgboost import train

        return train

    @classmethod
    def _matrix_class(cls) -> type[Any]:
        from mltoolkit.xgboost import RayDMatrix

        return RayDMatrix

    @classmethod
    def _callback_class(cls) -> type[Any]:
        from mltoolkit.train.xgboost._callback import RayTrainReportCallback

        return RayTrainReportCallback

    def _check_dataset(self, name: str, dataset: Any) -> None:
        super()._check_dataset(name, dataset)
        if "-" in name:
            raise ValueError(
                f"Names of `datasets` must not contain '-', which separates them from the metric; got {name!r}."
            )

    def _rounds_of(self, model: Any) -> tuple[Any, int]:
        from mltoolkit.xgboost.main import _as_booster

        booster = _as_booster(model)
        return booster, int(booster.num_boosted_rounds())
