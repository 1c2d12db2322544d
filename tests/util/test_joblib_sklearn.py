"""scikit-learn on the backend gives what it gives without: same scores, same models, same configuration."""

import warnings

import pytest

joblib = pytest.importorskip("joblib")
np = pytest.importorskip("numpy")
sklearn = pytest.importorskip("sklearn")

from joblib import parallel_backend, parallel_config  # noqa: E402
from sklearn.base import BaseEstimator, ClassifierMixin, clone  # noqa: E402
from sklearn.compose import make_column_transformer  # noqa: E402
from sklearn.datasets import load_breast_cancer, load_iris  # noqa: E402
from sklearn.ensemble import (  # noqa: E402
    BaggingClassifier,
    ExtraTreesRegressor,
    IsolationForest,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.experimental import enable_halving_search_cv  # noqa: E402, F401
from sklearn.feature_selection import RFECV  # noqa: E402
from sklearn.inspection import permutation_importance  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402
from sklearn.model_selection import (  # noqa: E402
    GridSearchCV,
    HalvingGridSearchCV,
    HalvingRandomSearchCV,
    RandomizedSearchCV,
    cross_val_predict,
    cross_val_score,
    learning_curve,
    validation_curve,
)
from sklearn.multiclass import OneVsRestClassifier  # noqa: E402
from sklearn.pipeline import make_pipeline, make_union  # noqa: E402
from sklearn.preprocessing import MinMaxScaler, StandardScaler  # noqa: E402
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor  # noqa: E402

from mltoolkit.util.joblib import register_ray  # noqa: E402

register_ray()

X, y = load_iris(return_X_y=True)
TREE = DecisionTreeClassifier(random_state=0)
TREES = {"max_depth": [1, 2, 3, None], "min_samples_leaf": [1, 5]}


@pytest.fixture(autouse=True)
def started(runtime):
    return runtime


def scores_of(search):
    return {k: v for k, v in search.cv_results_.items() if "time" not in k}


SEARCHES = {
    "grid": lambda n_jobs: GridSearchCV(TREE, TREES, cv=3, n_jobs=n_jobs),
    "randomized": lambda n_jobs: RandomizedSearchCV(TREE, TREES, n_iter=5, cv=3, random_state=0, n_jobs=n_jobs),
    "halving": lambda n_jobs: HalvingGridSearchCV(TREE, TREES, cv=3, random_state=0, n_jobs=n_jobs),
    "halving random": lambda n_jobs: HalvingRandomSearchCV(TREE, TREES, cv=3, random_state=0, n_jobs=n_jobs),
    "several metrics": lambda n_jobs: GridSearchCV(
        TREE, TREES, cv=3, scoring=["accuracy", "f1_macro"], refit="accuracy", return_train_score=True, n_jobs=n_jobs
    ),
}


@pytest.mark.parametrize("n_jobs", [-1, 2, None])
@pytest.mark.parametrize("name", SEARCHES)
def test_searches(name, n_jobs):
    expected = SEARCHES[name](1).fit(X, y)
    with parallel_config("mltoolkit"):
        search = SEARCHES[name](n_jobs).fit(X, y)
    assert search.best_params_ == expected.best_params_
    for key, values in scores_of(expected).items():
        np.testing.assert_array_equal(scores_of(search)[key], values)


def test_a_search_under_the_name_ray():
    with parallel_backend("ray", n_jobs=2):
        search = GridSearchCV(TREE, TREES, cv=3).fit(X, y)
    assert search.score(X, y) > 0.9


FUNCTIONS = {
    "cross_val_score": lambda n: cross_val_score(TREE, X, y, cv=5, n_jobs=n),
    "cross_val_predict": lambda n: cross_val_predict(TREE, X, y, cv=5, n_jobs=n, method="predict_proba"),
    "learning_curve": lambda n: learning_curve(TREE, X, y, cv=3, random_state=0, shuffle=True, n_jobs=n)[2],
    "validation_curve": lambda n: validation_curve(TREE, X, y, param_name="max_depth", param_range=[1, 2], n_jobs=n)[1],
    "permutation_importance": lambda n: (
        permutation_importance(TREE.fit(X, y), X, y, random_state=0, n_jobs=n).importances
    ),
    "RFECV": lambda n: RFECV(TREE, cv=3, n_jobs=n).fit(X, y).ranking_,
    "forest": lambda n: RandomForestClassifier(20, random_state=0, n_jobs=n).fit(X, y).predict_proba(X),
    "extra trees": lambda n: ExtraTreesRegressor(20, random_state=0, n_jobs=n).fit(X, y).predict(X),
    "isolation forest": lambda n: IsolationForest(n_estimators=20, random_state=0, n_jobs=n).fit(X).score_samples(X),
    "bagging": lambda n: BaggingClassifier(TREE, 10, random_state=0, n_jobs=n).fit(X, y).predict_proba(X),
    "voting": lambda n: VotingClassifier([("a", TREE), ("b", clone(TREE))], n_jobs=n).fit(X, y).predict(X),
    "stacking": lambda n: StackingClassifier([("a", TREE), ("b", clone(TREE))], n_jobs=n).fit(X, y).predict(X),
    "one vs rest": lambda n: OneVsRestClassifier(TREE, n_jobs=n).fit(X, y).predict_proba(X),
    "union": lambda n: make_union(StandardScaler(), MinMaxScaler(), n_jobs=n).fit_transform(X),
    "columns": lambda n: make_column_transformer(
        (StandardScaler(), [0, 1]), (MinMaxScaler(), [2, 3]), n_jobs=n
    ).fit_transform(X),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_and_estimators(name):
    expected = FUNCTIONS[name](1)
    with parallel_config("mltoolkit"):
        np.testing.assert_array_equal(FUNCTIONS[name](2), expected)


def test_models_fitted_in_tasks_can_be_changed():
    with parallel_config("mltoolkit"):
        forest = RandomForestClassifier(200, warm_start=True, random_state=0, n_jobs=2).fit(X, y)
        forest.set_params(n_estimators=210).fit(X, y)
    assert len(forest.estimators_) == 210
    forest.estimators_[0].tree_.value[:] = 0.0


@pytest.mark.parametrize("inner_n_jobs", [2, -1])
def test_nested_searches_neither_hang_nor_differ(inner_n_jobs):
    def search(inner, outer):
        forest = RandomForestClassifier(5, random_state=0, n_jobs=inner)
        return GridSearchCV(forest, {"max_depth": [1, 3]}, cv=3, n_jobs=outer).fit(X, y)

    expected = scores_of(search(1, 1))
    with parallel_config("mltoolkit"):
        for _ in range(10):
            found = scores_of(search(inner_n_jobs, -1))
            np.testing.assert_array_equal(found["mean_test_score"], expected["mean_test_score"])


def test_a_search_within_cross_validation():
    inner = GridSearchCV(TREE, {"max_depth": [1, 3]}, cv=3, n_jobs=2)
    expected = cross_val_score(clone(inner).set_params(n_jobs=1), X, y, cv=3)
    with parallel_config("mltoolkit"):
        np.testing.assert_array_equal(cross_val_score(inner, X, y, cv=3, n_jobs=2), expected)


class ConfigProbe(ClassifierMixin, BaseEstimator):
    """Scores 1 where scikit-learn's configuration and the warning filters of the caller hold."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def score(self, X, y):
        with warnings.catch_warnings(record=True) as caught:
            warnings.warn("ignored by the caller", RuntimeWarning, stacklevel=1)
        return float(sklearn.get_config()["assume_finite"] and not caught)


def test_configuration_and_warning_filters_travel():
    with (
        parallel_config("mltoolkit"),
        sklearn.config_context(assume_finite=True),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", RuntimeWarning)
        assert cross_val_score(ConfigProbe(), X, y, cv=3, n_jobs=2).tolist() == [1.0] * 3


class FitError(BaseEstimator):
    def fit(self, X, y):
        raise ArithmeticError("cannot be fitted")

    def predict(self, X):
        return X


def test_errors_of_estimators():
    with parallel_config("mltoolkit"), pytest.raises(ArithmeticError, match="cannot be fitted"):
        cross_val_score(FitError(), X, y, cv=3, n_jobs=2, scoring="accuracy", error_score="raise")


def test_data_frames_and_pipelines():
    pd = pytest.importorskip("pandas")
    data = load_breast_cancer(as_frame=True)
    frame = pd.concat([data.data] * 10, ignore_index=True)  # large enough to be shared
    target = pd.concat([data.target] * 10, ignore_index=True)
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200))
    grid = {"logisticregression__C": [0.1, 1.0]}
    expected = GridSearchCV(pipeline, grid, cv=3, n_jobs=1).fit(frame, target)
    with parallel_config("mltoolkit", max_nbytes="100K"):
        search = GridSearchCV(pipeline, grid, cv=3, n_jobs=2).fit(frame, target)
    np.testing.assert_allclose(search.cv_results_["mean_test_score"], expected.cv_results_["mean_test_score"])
    assert list(search.feature_names_in_) == list(frame.columns)


def test_a_search_shares_its_data_once(monkeypatch):
    import mltoolkit

    sizes = []
    put = mltoolkit.put
    monkeypatch.setattr(mltoolkit, "put", lambda value: sizes.append(value.nbytes) or put(value))
    rng = np.random.default_rng(0)
    features, target = rng.normal(size=(20_000, 10)), rng.normal(size=20_000)
    with parallel_config("mltoolkit"):
        GridSearchCV(DecisionTreeRegressor(max_depth=1), {"min_samples_leaf": range(1, 30)}, cv=2, n_jobs=2).fit(
            features, target
        )
    assert sizes == [features.nbytes]
