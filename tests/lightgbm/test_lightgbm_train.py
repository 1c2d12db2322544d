"""Training and prediction on actors with the native API."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import lightgbm
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from mltoolkit.lightgbm import (
    RayDMatrix,
    RayLGBMRegressor,
    RayParams,
    RayShardingMode,
    get_actor_rank,
    predict,
    put_queue,
    train,
)

TWO, THREE = RayParams(num_actors=2, cpus_per_actor=1), RayParams(num_actors=3, cpus_per_actor=1)
QUIET = {"verbose_eval": False}


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 5))
    y = (X[:, 0] + X[:, 1] * X[:, 2] + 0.5 * rng.normal(size=600) > 0).astype(float)
    return X, y


def text_of(model):
    return model.booster_.model_to_string()


def test_metrics_are_those_of_the_whole(runtime, data):
    X, y = data
    dtrain, dtest, results, more = RayDMatrix(X[:400], y[:400]), RayDMatrix(X[400:], y[400:]), {}, {}
    params = {"objective": "binary", "metric": ["binary_logloss", "auc"], "min_data_in_leaf": 5}
    model = train(
        params, dtrain, num_boost_round=20, evals=[(dtrain, "train"), (dtest, "test")], evals_result=results,
        additional_results=more, ray_params=THREE, **QUIET,
    )  # fmt: skip
    assert type(model) is lightgbm.LGBMModel
    assert model.evals_result_ == results
    probabilities = predict(model, dtest, ray_params=TWO)
    assert np.allclose(probabilities, model.predict(X[400:]))
    assert results["test"]["binary_logloss"][-1] == pytest.approx(log_loss(y[400:], probabilities))
    assert results["test"]["auc"][-1] == pytest.approx(roc_auc_score(y[400:], probabilities))
    assert results["train"]["binary_logloss"][-1] == pytest.approx(log_loss(y[:400], model.predict(X[:400])))
    assert more["total_n"] == 400
    assert more["callback_returns"] == [[], [], []]


def test_the_model_is_that_of_one_process(runtime, data):
    params = {"objective": "regression", "min_data_in_leaf": 5}
    plain = lightgbm.train({**params, "verbosity": -1, "num_threads": 1}, lightgbm.Dataset(*data), 10)
    model = train(params, RayDMatrix(*data), num_boost_round=10, ray_params=TWO, **QUIET)
    assert np.allclose(plain.predict(data[0]), model.predict(data[0]))


def test_the_same_seed_and_number_of_actors_give_the_same_model(runtime, data):
    params = {"objective": "binary", "seed": 3, "bagging_fraction": 0.7, "bagging_freq": 1, "feature_fraction": 0.6}
    models = [train(params, RayDMatrix(*data), num_boost_round=5, ray_params=TWO, **QUIET) for _ in range(2)]
    assert text_of(models[0]) == text_of(models[1])


def test_voting(runtime, data):
    X, y = data
    dtrain, results = RayDMatrix(X, y), {}
    params = {"objective": "binary", "metric": ["auc"], "tree_learner": "voting", "top_k": 5}
    model = train(
        params, dtrain, num_boost_round=5, evals=[(dtrain, "t")], evals_result=results, ray_params=TWO, **QUIET
    )
    assert results["t"]["auc"][-1] == pytest.approx(roc_auc_score(y, model.predict(X)))


def test_models_load_where_mltoolkit_is_not_and_say_nothing_of_ranks(runtime, data, tmp_path):
    X, y = data
    model = train({"objective": "binary"}, RayDMatrix(X, y), num_boost_round=3, ray_params=TWO, **QUIET)
    model.booster_.save_model(tmp_path / "model.txt")
    text = (tmp_path / "model.txt").read_text()
    assert "[num_machines: 1]" in text
    assert "[tree_learner: serial]" in text
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(model))
    np.save(tmp_path / "X.npy", X[:5])
    code = f"""
import pickle, sys
sys.modules["mltoolkit"] = None
import lightgbm, numpy
X = numpy.load({str(tmp_path / "X.npy")!r})
model = pickle.load(open({str(tmp_path / "model.pkl")!r}, "rb"))
booster = lightgbm.Booster(model_file={str(tmp_path / "model.txt")!r})
print((model.predict(X) == booster.predict(X)).all(), booster.predict(X, pred_contrib=True).shape)
"""
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert out == "True (5, 6)\n"
    assert np.allclose(model.booster_.refit(X, y).predict(X), model.booster_.refit(X, y).predict(X))


def test_fewer_rows_than_actors_and_sets_to_evaluate_that_some_have_none_of(runtime, data):
    X, y = data
    dtrain, small, large, results = RayDMatrix(X[:2], y[:2]), RayDMatrix(X[:1], y[:1]), RayDMatrix(X[:9], y[:9]), {}
    params = {"objective": "regression", "metric": "l2", "min_data_in_leaf": 1, "min_data_in_bin": 1}
    model = train(
        params, dtrain, num_boost_round=3, evals=[(small, "small"), (large, "large")], evals_result=results,
        ray_params=THREE, **QUIET,
    )  # fmt: skip
    assert results["large"]["l2"][-1] == pytest.approx(np.mean((model.predict(X[:9]) - y[:9]) ** 2))
    assert results["small"]["l2"][-1] == pytest.approx(np.mean((model.predict(X[:1]) - y[:1]) ** 2))
    assert predict(model, small, ray_params=THREE).shape == (1,)


def test_the_first_rank_has_no_rows(runtime, data, tmp_path):
    X, y = data
    for at, rows in enumerate((0, 300)):
        frame = pd.DataFrame(X[:rows], columns=list("abcde")).assign(y=y[:rows])
        frame.to_csv(tmp_path / f"{at}.csv", index=False)
    files = [str(tmp_path / "0.csv"), str(tmp_path / "1.csv")]
    dtrain, results = RayDMatrix(files, "y", sharding=RayShardingMode.BATCH), {}
    model = train(
        {"objective": "binary"}, dtrain, num_boost_round=3, evals=[(dtrain, "train")], evals_result=results,
        ray_params=TWO, **QUIET,
    )  # fmt: skip
    assert model.booster_.feature_name() == list("abcde")
    assert results["train"]["binary_logloss"][-1] == pytest.approx(log_loss(y[:300], model.booster_.predict(X[:300])))


def test_early_stopping_ends_all_ranks_in_the_same_round(runtime, data):
    X, y = data
    dtrain, dtest, results = RayDMatrix(X[:300], y[:300]), RayDMatrix(X[300:], y[300:]), {}
    model = train(
        {"objective": "binary", "early_stopping_round": 3, "learning_rate": 0.5, "min_data_in_leaf": 2}, dtrain,
        num_boost_round=200, valid_sets=[dtest], valid_names="test", evals_result=results, ray_params=THREE, **QUIET,
    )  # fmt: skip
    losses = results["test"]["binary_logloss"]
    assert len(losses) < 200
    assert model.best_iteration_ == np.argmin(losses) + 1 == len(losses) - 3
    assert model.best_score_["test"]["binary_logloss"] == min(losses)
    assert np.allclose(predict(model, dtest, ray_params=TWO), model.predict(X[300:]))


def test_the_best_round_is_that_of_one_process(runtime, data):
    """With fewer rows to evaluate than actors, several datasets, and a metric of the user that decides as well."""
    rng = np.random.default_rng(1)
    X = data[0]
    y = X[:, 0] + X[:, 1] ** 2 + rng.normal(size=600)
    sets = {"large": slice(400, 600), "tiny": slice(0, 2)}
    params = {"objective": "regression", "metric": ["l2", "l1"], "learning_rate": 0.4, "min_data_in_leaf": 5}

    def fourth_power(predictions, dataset):
        return "fourth", float(np.mean((predictions - dataset.get_label()) ** 4)), False

    def stop():
        return [lightgbm.early_stopping(4, verbose=False)]

    results, plain_results = {}, {}
    model = train(
        params, RayDMatrix(X[2:400], y[2:400]), lightgbm.Booster, 200, feval=fourth_power, evals_result=results,
        evals=[(RayDMatrix(X[rows], y[rows]), name) for name, rows in sets.items()], callbacks=stop(),
        ray_params=THREE, **QUIET,
    )  # fmt: skip
    plain_set = lightgbm.Dataset(X[2:400], y[2:400])
    plain = lightgbm.train(
        {**params, "verbosity": -1, "num_threads": 1}, plain_set, 200, feval=fourth_power, valid_names=list(sets),
        valid_sets=[lightgbm.Dataset(X[rows], y[rows], reference=plain_set) for rows in sets.values()],
        callbacks=[*stop(), lightgbm.record_evaluation(plain_results)],
    )  # fmt: skip
    assert model.best_iteration == plain.best_iteration < 100
    for name in sets:
        for metric in ("l2", "l1", "fourth"):
            assert results[name][metric] == pytest.approx(plain_results[name][metric], rel=1e-3), (name, metric)


def test_eight_trainings_at_a_time_on_four_cpus(runtime, data):
    """Each has two actors, which come together or not at all."""
    with ThreadPoolExecutor(8) as pool:
        models = pool.map(
            lambda seed: train({"seed": seed}, RayDMatrix(*data), lightgbm.Booster, 2, ray_params=TWO, **QUIET),
            range(8),
        )
        assert [model.current_iteration() for model in models] == [2] * 8


def test_a_callback_that_ends_training_in_one_rank_ends_it_in_all(runtime, data):
    def end(env):
        if env.iteration == 4 and get_actor_rank() == 1:
            raise lightgbm.callback.EarlyStopException(2, env.evaluation_result_list)

    model = train(
        {"objective": "binary"}, RayDMatrix(*data), num_boost_round=50, callbacks=[end], ray_params=TWO, **QUIET
    )
    assert (model.booster_.current_iteration(), model.best_iteration_) == (3, 3)


def test_callbacks_in_actors_and_in_the_driver(runtime, data, capsys):
    X, y = data
    dtrain, record, more = RayDMatrix(X, y), {}, {}

    def tell(env):
        put_queue((get_actor_rank(), env.iteration, env.end_iteration))

    train(
        {"objective": "binary"}, dtrain, num_boost_round=4, evals=[(dtrain, "t")], additional_results=more,
        callbacks=[
            lightgbm.record_evaluation(record), lightgbm.log_evaluation(2), tell,
            lightgbm.reset_parameter(learning_rate=[0.3, 0.3, 1e-9, 1e-9]),
        ],
        ray_params=TWO, **QUIET,
    )  # fmt: skip
    losses = record["t"]["binary_logloss"]
    assert losses[0] > losses[1] == pytest.approx(losses[2]) == pytest.approx(losses[3])
    assert (
        capsys.readouterr().out == f"[2]\tt's binary_logloss: {losses[1]:g}\n[4]\tt's binary_logloss: {losses[3]:g}\n"
    )
    assert more["callback_returns"] == [[(rank, at, 4) for at in range(4)] for rank in range(2)]


def test_objectives_and_metrics_of_the_user(runtime, data):
    X, y = data

    def squared(predictions, dataset):
        return predictions - dataset.get_label(), np.ones(len(predictions))

    def bias(predictions, dataset):
        return "bias", float(np.mean(predictions - dataset.get_label())), False

    def worst(y_true, y_pred):
        return "worst", float(np.max(abs(y_true - y_pred))), False

    dtrain, results = RayDMatrix(X, y), {}
    model = train(
        {"objective": squared, "metric": "l2"}, dtrain, num_boost_round=5, evals=[(dtrain, "t")], evals_result=results,
        feval=bias, eval_metric=[worst, "l1"], ray_params=TWO, **QUIET,
    )  # fmt: skip
    assert sorted(results["t"]) == ["bias", "l1", "l2", "worst"]
    assert results["t"]["bias"][-1] == pytest.approx(np.mean(model.predict(X) - y), abs=1e-6)
    assert results["t"]["l2"][-1] == pytest.approx(np.mean((model.predict(X) - y) ** 2))


def test_objective_and_metric_in_the_form_of_scikit_learn(runtime, data):
    X = data[0]
    y = X[:, 0]

    def objective(y_true, y_pred, weight):
        return (y_pred - y_true) * weight, weight

    def metric(y_true, y_pred):
        return "worst", float(abs(y_true - y_pred).max()), False

    model = RayLGBMRegressor(n_estimators=5, objective=objective)
    model.fit(X, y, sample_weight=np.full(600, 2.0), eval_set=(X, y), eval_metric=metric, ray_params=TWO)
    assert sorted(model.evals_result_["valid_0"]) == ["l2", "worst"]
    assert model.evals_result_["valid_0"]["l2"][-1] == pytest.approx(np.mean((model.predict(X) - y) ** 2))


def test_weights_and_scores_to_begin_with(runtime, data):
    X, y = data
    weight = np.where(y > 0, 3.0, 1.0)
    dtrain = RayDMatrix(X, y, weight=weight, base_margin=np.full(600, 10.0))
    results = {}
    model = train(
        {"objective": "regression"}, dtrain, num_boost_round=1, evals=[(dtrain, "t")], evals_result=results,
        ray_params=TWO, **QUIET,
    )  # fmt: skip
    predictions = 10.0 + model.predict(X)
    assert results["t"]["l2"][0] == pytest.approx(np.average((predictions - y) ** 2, weights=weight), rel=1e-5)


def test_a_model_is_continued(runtime, data):
    X, y = data
    first = lightgbm.train({"objective": "binary", "verbosity": -1, "num_threads": 1}, lightgbm.Dataset(X, y), 3)
    seen = {}
    dtrain = RayDMatrix(X, y)
    model = train(
        {"objective": "binary"}, dtrain, num_boost_round=2, init_model=first, evals=[(dtrain, "t")], evals_result=seen,
        ray_params=TWO, **QUIET,
    )  # fmt: skip
    assert model.booster_.current_iteration() == 5
    assert np.allclose(model.booster_.predict(X, num_iteration=3), first.predict(X))
    assert seen["t"]["binary_logloss"] == pytest.approx(
        [log_loss(y, model.booster_.predict(X, num_iteration=n)) for n in (4, 5)]
    )


def test_categories_that_one_shard_lacks(runtime):
    rng = np.random.default_rng(0)
    kind = rng.choice(list("abc"), 400)
    kind[::2] = "a"  # interleaved: the first actor sees one category alone
    frame = pd.DataFrame({"kind": pd.Categorical(kind), "x": rng.normal(size=400)})
    y = (kind == "b") * 2.0 + (kind == "c") * 5.0
    model = train({"objective": "regression"}, RayDMatrix(frame, y), num_boost_round=40, ray_params=TWO, **QUIET)
    assert model.booster_.pandas_categorical == [["a", "b", "c"]]
    assert np.abs(model.predict(frame) - y).max() < 0.2
    assert np.allclose(predict(model, RayDMatrix(frame[:7]), ray_params=TWO), model.predict(frame[:7]))


def test_columns_named_as_categories(runtime):
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.integers(0, 4, 400), rng.normal(size=400)])
    y = np.array([0.0, 5.0, 1.0, 7.0])[X[:, 0].astype(int)]
    model = train(
        {"objective": "regression", "min_data_per_group": 5}, RayDMatrix(X, y), num_boost_round=5, ray_params=TWO,
        categorical_feature=[0], feature_name=["kind", "x"], **QUIET,
    )  # fmt: skip
    assert model.booster_.feature_name() == ["kind", "x"]
    assert re.search(r"num_cat=[1-9]", text_of(model))


def test_missing_values_by_another_name(runtime):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 2))
    X[::4, 0] = -999
    y = (X[:, 0] == -999) * 1.0
    model = train({"objective": "binary"}, RayDMatrix(X, y, missing=-999.0), num_boost_round=5, ray_params=TWO, **QUIET)
    assert "-999" not in text_of(model).partition("tree_sizes")[2].partition("parameters:")[0]


def test_many_classes_and_sparse_features(runtime, data):
    from scipy.sparse import csr_matrix

    X, _ = data
    y = np.digitize(X[:, 0], [-0.5, 0.5])
    sparse = csr_matrix(np.where(abs(X) > 0.5, X, 0.0))
    model = train(
        {"objective": "multiclass", "num_class": 3},
        RayDMatrix(sparse, y),
        lightgbm.LGBMClassifier,
        5,
        ray_params=TWO,
        **QUIET,
    )
    assert type(model) is lightgbm.LGBMClassifier
    assert model.score(sparse, y) > 0.8
    assert predict(model, RayDMatrix(sparse), "predict_proba", ray_params=TWO).shape == (600, 3)
    assert (predict(model, RayDMatrix(sparse), ray_params=TWO) == model.predict(sparse)).all()


def test_a_booster_is_returned_where_one_is_asked_for(runtime, data):
    booster = train({"objective": "binary"}, RayDMatrix(*data), lightgbm.Booster, 2, ray_params=TWO, **QUIET)
    assert type(booster) is lightgbm.Booster
    contributions = predict(booster, RayDMatrix(data[0]), ray_params=TWO, pred_contrib=True)
    assert np.allclose(contributions, booster.predict(data[0], pred_contrib=True))


def test_every_rank_listens_on_the_loopback_interface_and_not_for_long(runtime, data):
    import psutil

    def look(env):
        own = psutil.Process(os.getpid()).net_connections("tcp")
        put_queue(
            (
                sum(c.status == psutil.CONN_LISTEN for c in own),
                sum(c.status == psutil.CONN_ESTABLISHED and c.laddr.ip == c.raddr.ip == "127.0.0.1" for c in own),
            )
        )

    more = {}
    train(
        {"objective": "binary"}, RayDMatrix(*data), num_boost_round=1, callbacks=[look], additional_results=more,
        ray_params=THREE, **QUIET,
    )  # fmt: skip
    assert all(listening == 0 and connected >= 2 for [(listening, connected)] in more["callback_returns"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: train({}, data_of(d), ray_params=TWO), "must be a RayDMatrix"),
        (lambda d: train({}, RayDMatrix(d[0]), ray_params=TWO), "has no label"),
        (lambda d: train({}, RayDMatrix(*d)), "num_actors"),
        (lambda d: train({}, RayDMatrix(*d), int, ray_params=TWO), "model_factory"),
        (lambda d: train({}, RayDMatrix(*d), early_stopping_rounds=3, ray_params=TWO), "at least one dataset"),
        (lambda d: train({}, RayDMatrix(*d, feature_weights=np.ones(5)), ray_params=TWO), "feature_weights"),
        (lambda d: train({}, RayDMatrix(d[0], d[1][:-1]), ray_params=TWO), "for each of the 600 rows"),
        (lambda d: train({}, RayDMatrix(d[0], np.r_[np.nan, d[1][1:]]), ray_params=TWO), "NaN"),
        (lambda d: train({}, RayDMatrix(*d), evals=[RayDMatrix(*d)], ray_params=TWO), "list of pairs"),
    ],
)
def test_mistakes(runtime, data, call, message):
    with pytest.raises(ValueError, match=message):
        call(data)


def data_of(pair):
    return pair[0]


def test_other_features_than_the_models(runtime, data):
    X, y = data
    model = train({"objective": "binary"}, RayDMatrix(X, y), num_boost_round=1, ray_params=TWO, **QUIET)
    with pytest.raises(ValueError, match="5 features, the data has 3"):
        predict(model, RayDMatrix(X[:, :3]), ray_params=TWO)
    with pytest.raises(TypeError, match="Did you mean 'raw_score'"):
        predict(model, RayDMatrix(X), ray_params=TWO, raw_scores=True)
    with pytest.raises(ValueError, match="`method` must be"):
        predict(model, RayDMatrix(X), "fit", ray_params=TWO)
