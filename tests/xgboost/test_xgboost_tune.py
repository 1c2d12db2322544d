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


def on_actors(callbacks=(), **params):
    matrix = RayDMatrix(*rows())
    given = RayParams(**{"num_actors": 2, "cpus_per_actor": 1, **params})
    train(PARAMS, matrix, 4, evals=[(matrix, "t")], callbacks=list(callbacks), ray_params=given, verbose_eval=False)


def in_the_trial(callbacks):
    matrix = xgb.DMatrix(*rows())
    xgb.train(PARAMS, matrix, 4, evals=[(matrix, "t")], callbacks=callbacks, verbose_eval=False)


CASES = {
    "share": lambda: on_actors(),
    "elastic": lambda: on_actors(elastic_training=True, max_failed_actors=1, max_actor_restarts=1),
    "actors": lambda: on_actors([TuneReportCheckpointCallback({"loss": "t-rmse"}, frequency=3)]),
    "plain": lambda: in_the_trial([TuneReportCheckpointCallback({"loss": "t-rmse"}, frequency=3)]),
    "misnamed": lambda: in_the_trial([TuneReportCallback("t-mae")]),
}


def trainable(config):
    CASES[config["case"]]()


def sweep(resources, cases, folder):
    tuner = tune.Tuner(
        tune.with_resources(trainable, resources),
        param_space={"case": tune.grid_search(cases)},
        run_config=tune.RunConfig(storage_path=str(folder), name="sweep", verbose=0),
    )
    return dict(zip(cases, tuner.fit(), strict=True))


@pytest.fixture
def trials(runtime, tmp_path_factory):
    """All cases, each in a trial with one CPU; run once."""
    if not _TRIALS:
        _TRIALS.update(sweep({"cpu": 1}, list(CASES), tmp_path_factory.mktemp("trials")))
    return _TRIALS


_TRIALS = {}


def test_a_trial_reports_by_itself_and_its_actors_are_within_its_resources(runtime, tmp_path):
    result = sweep(TWO.get_tune_resources(), ["share"], tmp_path)["share"]
    assert result.error is None
    assert list(result.metrics_dataframe["training_iteration"]) == [1, 2, 3, 4]
    assert result.metrics["t-rmse"] > 0


def test_too_small_a_trial_says_what_to_write(runtime, tmp_path):
    result = sweep(tune.PlacementGroupFactory([{}, {"CPU": 1}]), ["share"], tmp_path)["share"]
    assert "get_tune_resources()" in str(result.error)


def test_actors_of_a_trial_that_has_one_cpu_share_it(trials):
    assert trials["share"].error is None
    assert trials["share"].metrics["training_iteration"] == 4


@pytest.mark.parametrize("case", ["actors", "plain"])
def test_checkpoints_hold_the_model(trials, case):
    result = trials[case]
    assert result.error is None
    assert result.metrics["training_iteration"] == 5  # four rounds and the end
    assert TuneReportCheckpointCallback.get_model(result.checkpoint).num_boosted_rounds() == 4
    with result.checkpoint.as_directory() as folder:
        assert load_model(f"{folder}/model.ubj").num_boosted_rounds() == 4
    assert len(result.best_checkpoints) == 2


def test_metrics_that_are_not_evaluated_are_named(trials):
    assert "'t-mae', which is not evaluated; there are t-rmse" in str(trials["misnamed"].error)


def test_elastic_training_is_not_for_trials(trials):
    assert "`elastic_training` is of no use inside a trial" in str(trials["elastic"].error)
