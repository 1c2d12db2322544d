"""Training on actors inside trials of Tune, and plain XGBoost that reports."""

from __future__ import annotations

import numpy as np
import pytest

xgb = pytest.importorskip("xgboost")

from mltoolkit import tune  # noqa: E402
from mltoolkit.tune.integration.xgboost import TuneReportCallback, TuneReportCheckpointCallback  # noqa: E402
from mltoolkit.xgboost import RayDMatrix, RayParams, train  # noqa: E402
from mltoolkit.xgboost.tune import load_model  # noqa: E402

pytestmark = pytest.mark.timeout(90)

TWO = RayParams(num_actors=2, cpus_per_actor=1)
PARAMS = {"objective": "reg:squarederror", "nthread": 1}


def rows():
    X = np.random.default_rng(0).random((60, 3))
    return X, X[:, 0]


def on_actors(config):
    matrix = RayDMatrix(*rows())
    callbacks = config["callbacks"]()
    train(PARAMS, matrix, 4, evals=[(matrix, "t")], callbacks=callbacks, ray_params=TWO, verbose_eval=False)


def in_the_trial(config):
    matrix = xgb.DMatrix(*rows())
    callbacks = config["callbacks"]()
    xgb.train(PARAMS, matrix, 4, evals=[(matrix, "t")], callbacks=callbacks, verbose_eval=False)


def sweep(trainable, tmp_path, callbacks=list):
    tuner = tune.Tuner(
        trainable,
        param_space={"callbacks": callbacks},
        run_config=tune.RunConfig(storage_path=str(tmp_path), name="sweep", verbose=0),
    )
    return tuner.fit()[0]


def test_a_trial_reports_by_itself_and_its_actors_are_within_its_resources(runtime, tmp_path):
    result = sweep(tune.with_resources(on_actors, TWO.get_tune_resources()), tmp_path)
    assert result.error is None
    assert list(result.metrics_dataframe["training_iteration"]) == [1, 2, 3, 4]
    assert result.metrics["t-rmse"] > 0


def test_actors_of_a_trial_that_has_one_cpu_share_it(runtime, tmp_path):
    result = sweep(tune.with_resources(on_actors, {"cpu": 1}), tmp_path)
    assert result.error is None
    assert result.metrics["training_iteration"] == 4


def test_too_small_a_trial_says_what_to_write(runtime, tmp_path):
    result = sweep(tune.with_resources(on_actors, tune.PlacementGroupFactory([{}, {"CPU": 1}])), tmp_path)
    assert "get_tune_resources()" in str(result.error)


@pytest.mark.parametrize("trainable", [on_actors, in_the_trial])
def test_checkpoints_hold_the_model(runtime, tmp_path, trainable):
    def callbacks():
        return [TuneReportCheckpointCallback({"loss": "t-rmse"}, frequency=3)]

    result = sweep(tune.with_resources(trainable, {"cpu": 1}), tmp_path, callbacks)
    assert result.error is None
    assert result.metrics["training_iteration"] == 5  # four rounds and the end
    assert TuneReportCheckpointCallback.get_model(result.checkpoint).num_boosted_rounds() == 4
    with result.checkpoint.as_directory() as folder:
        assert load_model(f"{folder}/model.ubj").num_boosted_rounds() == 4
    assert len(result.best_checkpoints) == 2


def test_metrics_that_are_not_evaluated_are_named(runtime, tmp_path):
    result = sweep(tune.with_resources(in_the_trial, {"cpu": 1}), tmp_path, lambda: [TuneReportCallback("t-mae")])
    assert "'t-mae', which is not evaluated; there are t-rmse" in str(result.error)


def test_elastic_training_is_not_for_trials(runtime, tmp_path):
    def trainable(config):
        params = RayParams(num_actors=2, elastic_training=True, max_failed_actors=1, max_actor_restarts=1)
        train(PARAMS, RayDMatrix(*rows()), 2, ray_params=params)

    result = sweep(tune.with_resources(trainable, {"cpu": 1}), tmp_path)
    assert "`elastic_training` is of no use inside a trial" in str(result.error)
