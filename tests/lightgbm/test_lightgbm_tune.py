"""LightGBM in trials of Tune, and what is imported when."""

from __future__ import annotations

import subprocess
import sys

import lightgbm
import numpy as np
import pytest

from mltoolkit import tune
from mltoolkit.lightgbm import RayDMatrix, RayParams, train
from mltoolkit.lightgbm.tune import load_model
from mltoolkit.tune.integration.lightgbm import TuneReportCallback, TuneReportCheckpointCallback


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 3))
    return X, (X[:, 0] > 0).astype(float)


def fit(trainable, tmp_path, metric="loss"):
    tuner = tune.Tuner(
        trainable,
        param_space={"num_leaves": tune.grid_search([3, 7])},
        tune_config=tune.TuneConfig(metric=metric, mode="min"),
        run_config=tune.RunConfig(storage_path=str(tmp_path), verbose=0),
    )
    results = tuner.fit()
    assert not results.errors
    return results


def test_plain_lightgbm_reports_rounds_and_checkpoints(runtime, data, tmp_path):
    X, y = data

    def trial(config):
        dataset = lightgbm.Dataset(X, y)
        lightgbm.train(
            {"objective": "binary", "verbosity": -1, "num_threads": 1, **config}, dataset, 5, valid_sets=[dataset],
            valid_names=["eval"], callbacks=[TuneReportCheckpointCallback({"loss": "eval-binary_logloss"}, frequency=2)],
        )  # fmt: skip

    best = fit(trial, tmp_path).get_best_result()
    assert best.metrics["training_iteration"] == 5
    model = TuneReportCheckpointCallback.get_model(best.checkpoint)
    assert model.current_iteration() == 5
    losses = best.metrics_dataframe["loss"]
    assert (np.diff(losses) < 0).all()


def test_actors_of_a_trial_report_to_it(runtime, data, tmp_path):
    ray_params = RayParams(num_actors=2, cpus_per_actor=1)

    def trial(config):
        dtrain = RayDMatrix(*data)
        hook = TuneReportCheckpointCallback({"loss": "t-binary_logloss"}, filename="m.txt")
        train(
            {"objective": "binary", **config}, dtrain, num_boost_round=3, evals=[(dtrain, "t")], callbacks=[hook],
            ray_params=ray_params, verbose_eval=False,
        )  # fmt: skip

    results = fit(tune.with_resources(trial, ray_params.get_tune_resources()), tmp_path)
    best = results.get_best_result()
    assert best.metrics["training_iteration"] == 3
    with best.checkpoint.as_directory() as folder:
        model = load_model(f"{folder}/m.txt")
    assert model.current_iteration() == 3
    assert (model.params["num_machines"], model.params["tree_learner"]) == (1, "serial")


def test_a_training_that_stops_early_leaves_the_best_rounds(runtime, data, tmp_path):
    def trial(config):
        X, y = data
        train(
            {"objective": "binary", "learning_rate": 0.9, **config}, RayDMatrix(X[:100], y[:100]), num_boost_round=100,
            evals=[(RayDMatrix(X[100:], y[100:]), "t")], early_stopping_rounds=3,
            callbacks=[TuneReportCheckpointCallback({"loss": "t-binary_logloss"})], ray_params=RayParams(num_actors=2),
            verbose_eval=False,
        )  # fmt: skip

    for result in fit(trial, tmp_path):
        losses = result.metrics_dataframe["loss"].tolist()
        assert len(losses) < 100
        assert losses[-1] == losses[-2]
        assert TuneReportCheckpointCallback.get_model(result.checkpoint).current_iteration() == np.argmin(losses) + 1


def test_without_a_callback_everything_is_reported(runtime, data, tmp_path):
    def trial(config):
        dtrain = RayDMatrix(*data)
        train(
            {"objective": "binary", **config}, dtrain, num_boost_round=2, evals=[(dtrain, "t")],
            ray_params=RayParams(num_actors=2),
        )  # fmt: skip

    best = fit(trial, tmp_path, metric="t-binary_logloss").get_best_result()
    assert best.metrics_dataframe["t-binary_logloss"].notna().sum() == 2


class _Env:
    def __init__(self, results):
        self.evaluation_result_list, self.iteration, self.end_iteration = results, 0, 9


def test_what_is_reported():
    hook = TuneReportCallback({"loss": "e-l2"}, results_postprocessing_fn=lambda d: {k: v + 1 for k, v in d.items()})
    assert hook._report_dict([("e", "l2", 1.0, False)]) == {"loss": 2.0}
    assert TuneReportCallback()._report_dict([("cv", "l2", 1.0, False, 0.5)]) == {"cv-l2-mean": 1.0, "cv-l2-stdv": 0.5}
    with pytest.raises(KeyError, match="'e-l1', which is not evaluated; there are e-l2"):
        TuneReportCallback("e-l1")(_Env([("e", "l2", 1.0, False)]))


def test_the_package_imports_nothing_heavy():
    code = (
        "import sys, mltoolkit.lightgbm as m; dir(m); heavy = {'lightgbm', 'sklearn', 'pandas', 'numpy'} & set(sys.modules); "
        "print(sorted(heavy))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_every_name_is_there():
    import mltoolkit.lightgbm as package

    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        package.nothing  # noqa: B018 - the access is the test
