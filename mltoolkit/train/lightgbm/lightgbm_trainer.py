"""The trainer for LightGBM."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mltoolkit._optional import require
from mltoolkit.train._checkpoint import Checkpoint
from mltoolkit.train._config import RunConfig
from mltoolkit.train._internal.boosting import BoostingTrainer
from mltoolkit.train._internal.datasets import DataConfig
from mltoolkit.train._scaling import ScalingConfig
from mltoolkit.train.lightgbm.config import LightGBMConfig

__all__ = ["LightGBMTrainer"]


class LightGBMTrainer(BoostingTrainer):
    """Trains LightGBM on workers: by a training function that each of them runs, or from parameters.

    With a training function, ``lightgbm.train`` with :func:`~mltoolkit.train.lightgbm.get_network_params` among its parameters
    trains on the data of all workers, each of which gives its shard. Without one, the older form, `params` and `datasets`
    say all that is needed: each dataset is evaluated after each round, and its metrics are reported as
    ``"train-binary_logloss"``, after the dataset and the metric.

    Parameters
    ----------
    train_loop_per_worker : callable, optional
        Takes `train_loop_config`, or nothing. It calls ``lightgbm.train`` with
        :class:`~mltoolkit.train.lightgbm.RayTrainReportCallback` among the callbacks.
    train_loop_config : dict, optional
    lightgbm_config : LightGBMConfig, optional
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
        Older form: parameters of LightGBM.
    num_boost_round : int, optional
        Older form: how many rounds the model has in the end, those of `resume_from_checkpoint` included. Default: 10.
    dmatrix_params : dict of str to dict, optional
        Older form: further arguments of ``RayDMatrix`` for some datasets, such as ``{"train": {"weight": "w"}}``.
    **train_kwargs
        Older form: further arguments of :func:`mltoolkit.lightgbm.train`, such as `early_stopping_rounds`.

    Examples
    --------
    >>> import tempfile
    >>> import pandas
    >>> from mltoolkit import train
    >>> frame = pandas.DataFrame({"x": range(8), "y": [0, 0, 0, 0, 1, 1, 1, 1]})
    >>> trainer = LightGBMTrainer(
    ...     params={"objective": "binary", "min_data_in_leaf": 1, "min_data_in_bin": 1},
    ...     label_column="y",
    ...     num_boost_round=3,
    ...     datasets={"train": frame},
    ...     scaling_config=train.ScalingConfig(num_workers=2, resources_per_worker={"CPU": 0.5}),
    ...     run_config=train.RunConfig(storage_path=tempfile.mkdtemp(), verbose=0),
    ... )
    >>> result = trainer.fit()
    >>> "train-binary_logloss" in result.metrics, LightGBMTrainer.get_model(result.checkpoint).current_iteration()
    (True, 3)
    """

    _library_name = "LightGBM"
    _init_model = "init_model"
    _preloaded: tuple[str, ...] = (*BoostingTrainer._preloaded, "lightgbm")

    def __init__(
        self,
        train_loop_per_worker: Callable[..., Any] | None = None,
        *,
        train_loop_config: Mapping[str, Any] | None = None,
        lightgbm_config: LightGBMConfig | None = None,
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
        require("lightgbm", purpose="LightGBMTrainer", extra="lightgbm")
        if lightgbm_config is not None and not isinstance(lightgbm_config, LightGBMConfig):
            raise TypeError(f"`lightgbm_config` must be a train.lightgbm.LightGBMConfig, got {lightgbm_config!r}.")
        super().__init__(
            train_loop_per_worker,
            train_loop_config=train_loop_config,
            backend_config=lightgbm_config or LightGBMConfig(),
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
        from mltoolkit.lightgbm import train

        return train

    @classmethod
    def _matrix_class(cls) -> type[Any]:
        from mltoolkit.lightgbm import RayDMatrix

        return RayDMatrix

    @classmethod
    def _callback_class(cls) -> type[Any]:
        from mltoolkit.train.lightgbm._callback import RayTrainReportCallback

        return RayTrainReportCallback

    def _rounds_of(self, model: Any) -> tuple[Any, int]:
        from mltoolkit.lightgbm.main import _as_booster

        booster = _as_booster(model)
        return booster, int(booster.current_iteration())

    def _more_arguments(self) -> dict[str, Any]:
        import lightgbm

        return {"model_factory": lightgbm.Booster}
