"""Estimators that train and predict on actors."""

from __future__ import annotations

import pickle

import lightgbm
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import DataConversionWarning
from sklearn.model_selection import GridSearchCV

from mltoolkit.lightgbm import RayDMatrix, RayLGBMClassifier, RayLGBMRanker, RayLGBMRegressor, RayParams
from mltoolkit.xgboost import RayParams as XGBoostRayParams

TWO = RayParams(num_actors=2, cpus_per_actor=1)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 4))
    return X, np.where(X[:, 0] + X[:, 1] > 0, "yes", "no")


def test_classes_and_everything_that_lightgbms_own_has(runtime, data):
    X, y = data
    model = RayLGBMClassifier(n_estimators=10, random_state=0)
    fitted = model.fit(
        X[:300], y[:300], eval_set=[(X[:300], y[:300]), (X[300:], y[300:])], eval_metric=["auc", "error"],
        eval_names=["train", "test"], callbacks=[lightgbm.early_stopping(3, verbose=False)], ray_params=TWO,
    )  # fmt: skip
    assert fitted is model
    assert model.classes_.tolist() == ["no", "yes"]
    assert sorted(model.evals_result_["test"]) == ["auc", "binary_error", "binary_logloss"]
    assert list(model.evals_result_) == ["train", "test"]
    assert model.n_features_in_ == 4
    assert model.best_iteration_ > 0
    assert model.objective_ == "binary"
    assert model.additional_results_["total_n"] == 300
    assert model.feature_importances_.shape == (4,)
    assert model.score(X[300:], y[300:]) > 0.85
    there, here = model.predict_proba(X, ray_params=TWO), model.predict_proba(X)
    assert np.allclose(there, here)
    assert (model.predict(X, ray_params=TWO) == model.predict(X)).all()
    assert (model.predict(RayDMatrix(X), ray_params=TWO) == model.predict(X)).all()
    assert model.predict(X, pred_contrib=True, ray_params=TWO).shape == (400, 5)
    assert np.allclose(model.predict(X, raw_score=True, ray_params=TWO), model.booster_.predict(X, raw_score=True))
    local = model.to_local()
    assert type(local) is lightgbm.LGBMClassifier
    assert b"mltoolkit" not in pickle.dumps(local)
    assert (pickle.loads(pickle.dumps(local)).predict(X) == model.predict(X)).all()
    assert (pickle.loads(pickle.dumps(model)).predict(X) == model.predict(X)).all()


def test_parameters_are_lightgbms_own():
    model = RayLGBMClassifier(num_leaves=7, n_jobs=2, top_k=9)
    assert clone(model).get_params() == model.get_params()
    assert {**lightgbm.LGBMClassifier().get_params(), "num_leaves": 7, "n_jobs": 2, "top_k": 9} == model.get_params()


def test_a_grid_search_whose_fits_are_distributed(runtime, data):
    X, y = data
    search = GridSearchCV(RayLGBMClassifier(n_estimators=3), {"num_leaves": [3]}, cv=2, error_score="raise")
    assert search.fit(X, y, ray_params=TWO).best_score_ > 0.7


def test_weights_of_classes_and_rows(runtime, data):
    X, y = data
    weight = np.linspace(0.5, 1.5, 400)
    heavy = RayLGBMClassifier(n_estimators=5, class_weight={"no": 5.0, "yes": 1.0})
    heavy.fit(X, y, sample_weight=weight, ray_params=TWO)
    same = RayLGBMClassifier(n_estimators=5).fit(
        X, y, sample_weight=np.where(y == "no", 5.0, 1.0) * weight, ray_params=TWO
    )
    assert np.allclose(heavy.predict_proba(X), same.predict_proba(X))


def test_regression_of_a_frame_and_a_model_that_is_continued(runtime, data):
    X = pd.DataFrame(data[0], columns=list("abcd"))
    y = X["a"] * 2 + X["b"]
    model = RayLGBMRegressor(n_estimators=30).fit(X, y, ray_params=XGBoostRayParams(num_actors=2, cpus_per_actor=1))
    assert model.feature_names_in_.tolist() == list("abcd")
    assert model.score(X, y) > 0.95
    longer = RayLGBMRegressor(n_estimators=10).fit(X, y, init_model=model, ray_params=TWO)
    assert longer.n_iter_ == 40
    assert longer.score(X, y) > model.score(X, y)
    plain = lightgbm.LGBMRegressor(n_estimators=30, verbose=-1, n_jobs=1).fit(X, y)
    assert np.allclose(plain.predict(X), model.predict(X))


def test_targets_in_a_matrix_of_one_column(runtime, data):
    X, y = data[0], data[0][:, 0]
    with pytest.warns(DataConversionWarning, match="column-vector y was passed"):
        model = RayLGBMRegressor(n_estimators=2).fit(X, y[:, None], eval_set=(X, y[:, None]), ray_params=TWO)
    assert model.predict(X).shape == (400,)
    assert model.evals_result_["valid_0"]["l2"][-1] == pytest.approx(np.mean((model.predict(X) - y) ** 2))
    with pytest.raises(ValueError, match="1d array"):
        RayLGBMRegressor().fit(X, X, ray_params=TWO)


def test_ranking(runtime):
    rng = np.random.default_rng(0)
    group = rng.integers(5, 15, 30)
    X = rng.normal(size=(group.sum(), 3))
    y = np.clip(np.round(X[:, 0] + 1), 0, 3).astype(int)
    arguments = {"group": group, "eval_group": [group], "eval_at": [3], "eval_X": X, "eval_y": y}
    model = RayLGBMRanker(n_estimators=10, min_child_samples=5).fit(X, y, **arguments, ray_params=TWO)
    plain = lightgbm.LGBMRanker(n_estimators=10, min_child_samples=5, verbose=-1, n_jobs=1).fit(X, y, **arguments)
    assert list(model.evals_result_["valid_0"]) == ["ndcg@3"]
    assert model.evals_result_["valid_0"]["ndcg@3"][-1] == pytest.approx(
        plain.evals_result_["training"]["ndcg@3"][-1], abs=0.01
    )
    assert np.corrcoef(model.predict(X, ray_params=TWO), y)[0, 1] > 0.8


def test_a_matrix_has_everything_itself(runtime, data):
    X, y = data
    matrix = RayDMatrix(X, (y == "yes").astype(int))
    model = RayLGBMClassifier(n_estimators=3).fit(matrix, eval_set=[(matrix, "m")], ray_params=TWO)
    assert model.classes_.tolist() == [0, 1]
    assert list(model.evals_result_) == ["valid_0"]
    with pytest.raises(ValueError, match="has 'y' of its own"):
        model.fit(matrix, y, ray_params=TWO)
    with pytest.raises(ValueError, match="has 'sample_weight' of its own"):
        model.fit(matrix, sample_weight=np.ones(400), ray_params=TWO)
    with pytest.raises(ValueError, match="must hold such too"):
        model.fit(matrix, eval_set=[(X, y)], ray_params=TWO)
    with pytest.raises(ValueError, match=r"must be 0, 1, \.\.\., 1"):
        model.fit(RayDMatrix(X, (y == "yes") * 5), ray_params=TWO)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda X, y: RayLGBMClassifier().fit(X), "requires y"),
        (lambda X, y: RayLGBMRegressor().fit(X), "requires y"),
        (lambda X, y: RayLGBMRanker().fit(X, y), "`group` is required"),
        (lambda X, y: RayLGBMRanker().fit(X, y, group=[400], eval_set=[(X, y)]), "`eval_group` must have"),
        (lambda X, y: RayLGBMRegressor().fit(X[:, 0], y), "2D array"),
        (lambda X, y: RayLGBMRegressor().fit(X, y[:-1]), "inconsistent numbers of samples"),
        (lambda X, y: RayLGBMClassifier(tree_learner="feature").fit(X, y, ray_params=TWO), "'data' or 'voting'"),
        (lambda X, y: RayLGBMRegressor().fit(X, y, ray_params={"num_actors": 0}), "num_actors"),
    ],
)
def test_mistakes(runtime, data, call, message):
    with pytest.raises(ValueError, match=message):
        call(data[0], (data[1] == "yes").astype(int))


def test_predicting_before_fitting():
    with pytest.raises(ValueError, match="not fitted"):
        RayLGBMRegressor().predict(np.zeros((2, 2)), ray_params=TWO)
