"""Estimators: what XGBoost's own do, on actors."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest

xgb = pytest.importorskip("xgboost")
pytest.importorskip("sklearn")

from sklearn.base import clone  # noqa: E402
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris  # noqa: E402
from sklearn.exceptions import NotFittedError  # noqa: E402
from sklearn.model_selection import GridSearchCV  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402

from mltoolkit.xgboost import (  # noqa: E402
    RayDMatrix,
    RayParams,
    RayXGBClassifier,
    RayXGBRanker,
    RayXGBRegressor,
    RayXGBRFClassifier,
    RayXGBRFRegressor,
)

pytestmark = pytest.mark.timeout(90)

TWO = RayParams(num_actors=2, cpus_per_actor=1, verbose=False)


@pytest.fixture(scope="module")
def iris():
    return load_iris(return_X_y=True)


@pytest.fixture
def classifier(runtime, iris):
    X, y = iris
    return RayXGBClassifier(n_estimators=8, random_state=1).fit(X, y, ray_params=TWO, verbose=False)


def test_a_classifier_is_xgboosts_and_predicts_the_same_everywhere(classifier, iris):
    X, y = iris
    assert isinstance(classifier, xgb.XGBClassifier)
    assert classifier.score(X, y) > 0.95
    assert classifier.n_classes_ == 3
    assert classifier.n_features_in_ == 4
    assert classifier.objective == "multi:softprob"
    here = classifier.predict_proba(X)
    assert here.shape == (150, 3)
    assert (classifier.predict_proba(X, ray_params=TWO) == here).all()
    assert (classifier.predict(X, ray_params=TWO) == here.argmax(axis=1)).all()
    assert (classifier.predict(RayDMatrix(X), ray_params=TWO) == here.argmax(axis=1)).all()


def test_models_load_where_mltoolkit_is_not_installed(classifier, iris, tmp_path):
    X, _ = iris
    classifier.save_model(tmp_path / "model.json")
    files = {"booster": classifier.get_booster(), "estimator": classifier.to_xgboost()}
    for name, value in files.items():
        (tmp_path / name).write_bytes(pickle.dumps(value))
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "expected.npy", classifier.predict_proba(X))
    code = """
import pickle, sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "mltoolkit":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Hidden())
import numpy as np, xgboost
X, expected = np.load("X.npy"), np.load("expected.npy")
loaded = xgboost.XGBClassifier()
loaded.load_model("model.json")
estimator = pickle.load(open("estimator", "rb"))
booster = pickle.load(open("booster", "rb"))
assert type(estimator) is xgboost.XGBClassifier
for found in (loaded.predict_proba(X), estimator.predict_proba(X), booster.predict(xgboost.DMatrix(X))):
    assert np.allclose(found, expected)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


def test_pickles_and_clones_of_estimators(classifier, iris):
    X, _ = iris
    again = pickle.loads(pickle.dumps(classifier))
    assert type(again) is RayXGBClassifier
    assert (again.predict(X) == classifier.predict(X)).all()
    copy = clone(classifier)
    assert copy.get_params() == classifier.get_params()
    with pytest.raises(NotFittedError):
        copy.predict(X)


@pytest.mark.parametrize(
    "ours", [RayXGBClassifier, RayXGBRegressor, RayXGBRFClassifier, RayXGBRFRegressor, RayXGBRanker]
)
def test_parameters_are_those_of_the_plain_estimator(ours):
    plain = getattr(xgb, ours.__name__.removeprefix("Ray"))
    assert isinstance(ours(), plain)
    assert ours(max_depth=3, gamma=1.0).get_params() == plain(max_depth=3, gamma=1.0).get_params()
    assert type(ours(n_estimators=3).to_xgboost()) is plain
    assert ours(n_estimators=3).set_params(n_estimators=4).n_estimators == 4
    assert [ours(n_jobs=n)._ray_params(None).num_actors for n in (None, 1, 3)] == [1, 1, 3]


@pytest.mark.parametrize("ours", [RayXGBRegressor, RayXGBRFRegressor])
def test_regressors_are_as_good_as_the_plain_ones(runtime, ours):
    X, y = load_diabetes(return_X_y=True)
    plain = getattr(xgb, ours.__name__.removeprefix("Ray"))
    params = {"n_estimators": 20, "max_depth": 3, "random_state": 0}
    model = ours(**params).fit(X, y, verbose=False, ray_params=TWO)
    assert model.score(X, y) == pytest.approx(plain(**params, n_jobs=1).fit(X, y).score(X, y), abs=0.03)
    assert model.get_booster().num_boosted_rounds() == (1 if "RF" in ours.__name__ else 20)
    assert model.additional_results_["total_n"] == len(X)


def test_evaluation_sets_early_stopping_and_sklearns_metrics(runtime):
    from sklearn.metrics import brier_score_loss

    X, y = load_breast_cancer(return_X_y=True)
    model = RayXGBClassifier(n_estimators=200, eval_metric=["logloss", brier_score_loss], early_stopping_rounds=3)
    weights = np.where(y, 1.0, 2.0)
    model.fit(
        X[:400],
        y[:400],
        sample_weight=weights[:400],
        eval_set=[(X[:400], y[:400]), (X[400:], y[400:])],
        sample_weight_eval_set=[weights[:400], weights[400:]],
        verbose=False,
        ray_params=TWO,
    )
    results = model.evals_result()
    assert set(results) == {"validation_0", "validation_1"}
    assert set(results["validation_1"]) == {"logloss", "brier_score_loss"}
    assert model.best_iteration < len(results["validation_1"]["logloss"]) < 200


def test_old_arguments_of_fit_hold(runtime, iris):
    X, y = iris
    model = RayXGBClassifier(n_estimators=50)
    model.fit(X, y, eval_set=[(X, y)], eval_metric="merror", early_stopping_rounds=2, verbose=False, ray_params=TWO)
    assert set(model.evals_result()["validation_0"]) == {"merror"}
    assert model.best_iteration < 49


def test_a_matrix_brings_its_labels(runtime, iris):
    X, y = iris
    matrix = RayDMatrix(X, y)
    model = RayXGBClassifier(n_estimators=4).fit(matrix, eval_set=[(matrix, "mine")], verbose=False, ray_params=TWO)
    assert model.n_classes_ == 3
    assert set(model.evals_result()) == {"mine"}
    with pytest.raises(ValueError, match="'y' of its own"):
        model.fit(matrix, y, ray_params=TWO)


def test_rankers_take_queries_as_sizes_ids_or_a_column(runtime):
    import pandas as pd

    rng = np.random.default_rng(0)
    X, sizes = rng.random((90, 3)), [30, 20, 40]
    y, qid = (X[:, 0] * 3).astype(int), np.repeat([4, 1, 7], sizes)
    models = [
        RayXGBRanker(n_estimators=4).fit(X, y, group=sizes, ray_params=TWO),
        RayXGBRanker(n_estimators=4).fit(X, y, qid=[0] * 30 + [1] * 20 + [2] * 40, ray_params=TWO),
    ]
    assert models[0].get_booster().get_dump() == models[1].get_booster().get_dump()
    frame = pd.DataFrame(X, columns=list("abc")).assign(qid=qid)
    model = RayXGBRanker(n_estimators=4).fit(frame, y, sample_weight=[1.0, 2.0, 1.0], ray_params=TWO)
    assert model.score(frame.sort_values("qid", kind="stable"), y[np.argsort(qid, kind="stable")]) > 0.9
    assert model.predict(frame, ray_params=TWO).shape == (90,)
    with pytest.raises(ValueError, match="`group` or `qid`"):
        RayXGBRanker().fit(X, y, ray_params=TWO)


def test_searches_and_pipelines_pass_the_parameters_on(runtime, iris):
    X, y = iris
    pipeline = make_pipeline(StandardScaler(), RayXGBClassifier(n_estimators=3))
    search = GridSearchCV(pipeline, {"rayxgbclassifier__max_depth": [3]}, cv=2)
    search.fit(X, y, rayxgbclassifier__ray_params={"num_actors": 1, "cpus_per_actor": 1, "verbose": False})
    assert search.best_score_ > 0.8


@pytest.mark.parametrize(
    ("X", "y", "text"),
    [
        (np.zeros((4, 2)), np.array([0, 1, 2, 5]), "Invalid classes"),
        (np.zeros((4, 2)), np.array([0, 1, 0]), "`label` must have one value for each of the 4 rows"),
        (np.zeros(4), np.array([0, 1, 0, 1]), "two dimensions"),
        (np.zeros((4, 2)), None, "requires y to be passed"),
    ],
)
def test_data_that_does_not_fit_is_refused(runtime, X, y, text):
    with pytest.raises(ValueError, match=text):
        RayXGBClassifier().fit(X, y, ray_params=TWO)


@pytest.mark.parametrize(
    ("model", "extra", "error", "text"),
    [
        (RayXGBClassifier(ray_params=TWO), {}, TypeError, "`ray_params` is an argument of fit"),
        (
            RayXGBClassifier(),
            {"eval_set": (np.zeros((2, 2)), [0, 1])},
            ValueError,
            "`eval_set` must be a list of pairs",
        ),
        (RayXGBRFRegressor(), {"early_stopping_rounds": 2}, NotImplementedError, "`early_stopping_rounds` is not for"),
        (RayXGBRFClassifier(), {"callbacks": []}, NotImplementedError, "`callbacks` is not for random forests"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(runtime, model, extra, error, text):
    with pytest.raises(error, match=text):
        model.fit(np.zeros((2, 2)), [0, 1], ray_params=TWO, **extra)
