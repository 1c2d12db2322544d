"""How each runtime trains XGBoost and LightGBM on arrays that the program holds, start and end of the runtime included."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from _runtimes import ERROR

__all__ = ["RUNTIMES", "TRAINERS"]

Trainer = Callable[..., Any]


def train_plain(params: Mapping[str, Any], features: Any, labels: Any, rounds: int, *, ranks: int) -> Any:
    """The library itself, with as many threads as others have ranks."""
    import xgboost

    matrix = xgboost.DMatrix(features, labels, nthread=ranks)
    return xgboost.train({**params, "nthread": ranks}, matrix, rounds)


def train_mltoolkit(params: Mapping[str, Any], features: Any, labels: Any, rounds: int, *, ranks: int) -> Any:
    """Actors with one CPU each."""
    from mltoolkit.xgboost import RayDMatrix, RayParams, train

    return train(params, RayDMatrix(features, labels), rounds, ray_params=RayParams(num_actors=ranks, cpus_per_actor=1))


def train_dask(params: Mapping[str, Any], features: Any, labels: Any, rounds: int, *, ranks: int) -> Any:
    """Worker processes with one thread each."""
    import dask.array
    import distributed
    import xgboost.dask

    rows = -(-len(features) // ranks)
    with (
        distributed.LocalCluster(
            n_workers=ranks, threads_per_worker=1, dashboard_address=None, silence_logs=ERROR
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        matrix = xgboost.dask.DaskDMatrix(
            client,
            dask.array.from_array(features, chunks=(rows, features.shape[1])),
            dask.array.from_array(labels, chunks=rows),
        )
        return xgboost.dask.train(client, dict(params), matrix, num_boost_round=rounds)["booster"]


def train_ray(params: Mapping[str, Any], features: Any, labels: Any, rounds: int, *, ranks: int) -> Any:
    """Ray Train: each worker gets its rows from the object store."""
    import ray
    import ray.train
    import ray.train.xgboost

    ray.init(num_cpus=ranks + 1, include_dashboard=False, logging_level=ERROR)
    try:
        refs = {"features": ray.put(features), "labels": ray.put(labels)}

        def loop(config: dict[str, Any]) -> None:
            import xgboost

            context = ray.train.get_context()
            rank, size = context.get_world_rank(), context.get_world_size()
            matrix = xgboost.DMatrix(
                ray.get(config["features"])[rank::size], ray.get(config["labels"])[rank::size], nthread=1
            )
            callback = ray.train.xgboost.RayTrainReportCallback()
            xgboost.train({**params, "nthread": 1}, matrix, rounds, callbacks=[callback])

        trainer = ray.train.xgboost.XGBoostTrainer(
            loop, train_loop_config=refs, scaling_config=ray.train.ScalingConfig(num_workers=ranks)
        )
        return ray.train.xgboost.RayTrainReportCallback.get_model(trainer.fit().checkpoint)
    finally:
        ray.shutdown()


def lightgbm_plain(params: Mapping[str, Any], features: Any, labels: Any, rounds: int, *, ranks: int) -> Any:
    """The library itself, with as many threads as others have ranks."""
    import lightgbm

    return lightgbm.train({**params, "num_threads": ranks}, lightgbm.Dataset(features, labels), rounds)


def lightgbm_mltoolkit(params: Mapping[str, Any], features: Any, labels: Any, rounds: int, *, ranks: int) -> Any:
    """Actors with one CPU each."""
    from mltoolkit.lightgbm import RayDMatrix, RayParams, train

    model = train(
        params,
        RayDMatrix(features, labels),
        num_boost_round=rounds,
        ray_params=RayParams(num_actors=ranks, cpus_per_actor=1),
    )
    return model.booster_


def lightgbm_dask(params: Mapping[str, Any], features: Any, labels: Any, rounds: int, *, ranks: int) -> Any:
    """Worker processes with one thread each."""
    import dask.array
    import distributed
    import lightgbm

    rows = -(-len(features) // ranks)
    with (
        distributed.LocalCluster(
            n_workers=ranks, threads_per_worker=1, dashboard_address=None, silence_logs=ERROR
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        model = lightgbm.DaskLGBMClassifier(client=client, n_estimators=rounds, **params)
        model.fit(
            dask.array.from_array(features, chunks=(rows, features.shape[1])),
            dask.array.from_array(labels, chunks=rows),
        )
        return model.booster_


TRAINERS: dict[str, dict[str, Trainer]] = {
    "xgboost": {"mltoolkit": train_mltoolkit, "ray": train_ray, "dask": train_dask, "process": train_plain},
    "lightgbm": {"mltoolkit": lightgbm_mltoolkit, "dask": lightgbm_dask, "process": lightgbm_plain},
}
RUNTIMES = ("mltoolkit", "ray", "dask", "process")
