"""SklearnTrainer: estimators in a trial, scored and kept."""

from __future__ import annotations

import pytest

from mltoolkit import train, tune

sklearn = pytest.importorskip("sklearn")

from mltoolkit.train.sklearn import SklearnCheckpoint, SklearnTrainer  # noqa: E402


@pytest.fixture(scope="module")
def iris():
    from sklearn.datasets import load_iris

    return load_iris(return_X_y=True)


@pytest.fixture
def run_config(tmp_path):
    return train.RunConfig(storage_path=tmp_path, verbose=0)


def test_fits_scores_and_keeps(runtime, iris, run_config):
    from sklearn.model_selection import cross_val_score
    from sklearn.tree import DecisionTreeClassifier

    X, y = iris
    tree = DecisionTreeClassifier(random_state=0)
    result = SklearnTrainer(
        estimator=tree,
        params={"max_depth": 2},
        datasets={"train": (X[::2], y[::2]), "valid": (X[1::2], y[1::2])},
        scoring={"right": "accuracy", "f1": "f1_macro"},
        cv=3,
        run_config=run_config,
    ).fit()
    here = DecisionTreeClassifier(random_state=0, max_depth=2)
    expected = cross_val_score(here, X[::2], y[::2], cv=3)
    assert result.metrics["cv"]["test_right"] == pytest.approx(expected.tolist())
    assert result.metrics["cv"]["test_right_mean"] == pytest.approx(expected.mean())
    here.fit(X[::2], y[::2])
    assert result.metrics["valid"]["test_right"] == pytest.approx(here.score(X[1::2], y[1::2]))
    assert 0 < result.metrics["valid"]["test_f1"] < 1 and result.metrics["fit_time"] > 0
    assert result.metrics["training_iteration"] == 1
    kept = SklearnCheckpoint(result.checkpoint.path).get_model()
    assert kept.get_depth() == 2 and (kept.predict(X) == here.predict(X)).all()
    assert tree.max_depth is None, "the program's own estimator is left as it is"


def test_tables_and_threads(runtime, iris, run_config):
    pandas = pytest.importorskip("pandas")
    from sklearn.ensemble import RandomForestClassifier

    X, y = iris
    table = pandas.DataFrame(X, columns=list("abcd")).assign(kind=y)
    forest = RandomForestClassifier(5, random_state=0)
    for cpus in (1, 2):
        result = SklearnTrainer(
            estimator=forest,
            label_column="kind",
            datasets={"train": table},
            scaling_config=train.ScalingConfig(trainer_resources={"CPU": cpus}),
            run_config=run_config,
        ).fit()
        kept = SklearnCheckpoint(result.checkpoint.path).get_model()
        assert kept.n_jobs == (None if cpus == 1 else cpus) and list(kept.feature_names_in_) == list("abcd")


def test_a_sweep_over_its_parameters(runtime, iris, run_config):
    from sklearn.tree import DecisionTreeClassifier

    trainer = SklearnTrainer(
        estimator=DecisionTreeClassifier(random_state=0),
        datasets={"train": iris, "valid": iris},
        params={"min_samples_leaf": 2},
    )
    results = tune.Tuner(
        trainer, param_space={"params": {"max_depth": tune.grid_search([1, 3])}}, run_config=run_config
    ).fit()
    scores = [result.metrics["valid"]["test_score"] for result in results]
    assert not results.errors and scores[0] < 0.7 < 0.9 < scores[1]


def test_what_is_refused(runtime, iris, run_config):
    from sklearn.linear_model import LogisticRegression

    with pytest.raises(ValueError, match="fits in one process"):
        SklearnTrainer(
            estimator=LogisticRegression(),
            datasets={"train": iris},
            scaling_config=train.ScalingConfig(num_workers=2),
        )
    with pytest.raises(KeyError, match="must have 'train', got 'test'"):
        SklearnTrainer(estimator=LogisticRegression(), datasets={"test": iris})
    with pytest.raises(TypeError, match="must be an estimator"):
        SklearnTrainer(estimator=3, datasets={"train": iris})
    with pytest.raises(train.TrainingFailedError, match="'C' parameter of LogisticRegression must be"):
        SklearnTrainer(estimator=LogisticRegression(C=-1), datasets={"train": iris}, run_config=run_config).fit()
