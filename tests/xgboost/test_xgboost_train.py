"""The native API: models, evaluations, prediction, and what is refused."""

from __future__ import annotations

import logging

import numpy as np
import pytest

xgb = pytest.importorskip("xgboost")

from mltoolkit.xgboost import RayDMatrix, RayParams, RayShardingMode, get_actor_rank, predict, put_queue, train  # noqa: E402

pytestmark = pytest.mark.timeout(90)

TWO = RayParams(num_actors=2, cpus_per_actor=1, verbose=False)
ONE = RayParams(num_actors=1, cpus_per_actor=1, verbose=False)
LOGISTIC = {"objective": "binary:logistic", "eval_metric": ["logloss", "error"], "max_depth": 3, "nthread": 1}


@pytest.fixture(scope="module")
def cancer():
    from sklearn.datasets import load_breast_cancer

    return load_breast_cancer(return_X_y=True)


def logloss(predictions, labels):
    return -np.mean(labels * np.log(predictions) + (1 - labels) * np.log(1 - predictions))


def test_the_model_is_as_good_as_the_plain_librarys(runtime, cancer, capsys):
    X, y = cancer
    dtrain, dtest = RayDMatrix(X[::2], y[::2]), RayDMatrix(X[1::2], y[1::2])
    evals, more = {}, {}
    bst = train(
        LOGISTIC,
        dtrain,
        20,
        evals=[(dtrain, "train"), (dtest, "test")],
        evals_result=evals,
        additional_results=more,
        verbose_eval=8,
        ray_params=TWO,
    )
    assert type(bst) is xgb.Booster
    plain_evals = {}
    plain = [xgb.DMatrix(X[::2], y[::2]), xgb.DMatrix(X[1::2], y[1::2])]
    xgb.train(
        LOGISTIC,
        plain[0],
        20,
        evals=list(zip(plain, ("train", "test"), strict=True)),
        evals_result=plain_evals,
        verbose_eval=False,
    )
    for name in ("train", "test"):
        ours, theirs = evals[name]["logloss"], plain_evals[name]["logloss"]
        assert len(ours) == 20
        assert ours[-1] == pytest.approx(theirs[-1], rel=0.15)  # 284 rows: quantiles differ a little
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[0] for line in lines] == ["[0]", "[8]", "[16]", "[19]"]
    assert lines[-1] == f"[19]\ttrain-logloss:{evals['train']['logloss'][-1]:.5f}" + "".join(
        f"\t{data}-{metric}:{evals[data][metric][-1]:.5f}"
        for data, metric in (("train", "error"), ("test", "logloss"), ("test", "error"))
    )
    assert more["total_n"] == len(X[::2])
    assert more["callback_returns"] == [[], []]
    assert 0 < more["training_time_s"] < more["total_time_s"]
    # Predictions on actors are the plain ones, in the order of rows.
    assert (predict(bst, dtest, ray_params=TWO) == bst.predict(plain[1])).all()
    assert logloss(bst.predict(plain[1]), y[1::2]) == pytest.approx(evals["test"]["logloss"][-1], rel=1e-4)


def test_one_actor_gives_the_plain_librarys_model(runtime, cancer):
    X, y = cancer
    params = {**LOGISTIC, "subsample": 0.7, "seed": 3}
    bst = train(params, RayDMatrix(X, y), 8, ray_params=ONE)
    plain = xgb.train(params, xgb.QuantileDMatrix(X, y), 8)
    assert bst.get_dump() == plain.get_dump()


def test_the_same_seed_and_number_of_actors_give_the_same_model(runtime, cancer):
    X, y = cancer
    params = {**LOGISTIC, "subsample": 0.7, "colsample_bytree": 0.7, "seed": 3}
    dumps = {tuple(train(params, RayDMatrix(X, y), 5, ray_params=TWO).get_dump()) for _ in range(2)}
    assert len(dumps) == 1


def test_early_stopping_metrics_and_callbacks_agree_on_all_ranks(runtime, cancer):
    """A custom metric sees one shard; an evaluation set with a single row leaves one actor without any."""
    X, y = cancer
    dtrain, dtest = RayDMatrix(X[:400], y[:400]), RayDMatrix(X[400:401], y[400:401])
    seen = {}

    def wrong(predictions, matrix):
        return "wrong", float(((predictions > 0.5) != matrix.get_label()).mean())

    class Report(xgb.callback.TrainingCallback):
        def after_iteration(self, model, epoch, evals_log):
            if epoch == 0:
                put_queue((get_actor_rank(), evals_log["test"]["wrong"][-1], evals_log["train"]["wrong"][-1]))
            return False

    evals, more = {}, {}
    bst = train(
        {"objective": "binary:logistic"},
        dtrain,
        50,
        evals=[(dtrain, "train"), (dtest, "test")],
        custom_metric=wrong,
        early_stopping_rounds=3,
        callbacks=[Report()],
        evals_result=evals,
        additional_results=more,
        verbose_eval=False,
        ray_params=TWO,
    )
    first, second = (returns[0] for returns in more["callback_returns"])
    assert (first[0], second[0]) == (0, 1)
    assert first[1:] == second[1:]
    error = ((bst.predict(xgb.DMatrix(X[:400]), iteration_range=(0, 1)) > 0.5) != y[:400]).mean()
    assert evals["train"]["wrong"][0] == pytest.approx(error, abs=1e-6)
    assert len(evals["test"]["wrong"]) == bst.best_iteration + 4 < 50
    assert seen == {}


def test_custom_objectives_see_their_shard(runtime, cancer):
    X, y = cancer

    def squared(predictions, matrix):
        return predictions - matrix.get_label(), np.ones_like(predictions)

    params = {"base_score": 0.5, "max_depth": 2}
    ours = train(params, RayDMatrix(X, y), 5, obj=squared, ray_params=TWO)
    builtin = train({**params, "objective": "reg:squarederror"}, RayDMatrix(X, y), 5, ray_params=TWO)
    assert np.allclose(ours.predict(xgb.DMatrix(X)), builtin.predict(xgb.DMatrix(X)), atol=1e-5)


def test_weights_margins_names_and_a_model_to_continue(runtime, cancer):
    X, y = cancer
    names = [f"column {i}" for i in range(X.shape[1])]
    extra = {"weight": np.where(y, 1.0, 3.0), "base_margin": np.full(len(y), 0.3), "feature_names": names}
    bst = train(LOGISTIC, RayDMatrix(X, y, **extra), 3, ray_params=ONE)
    matrix = xgb.QuantileDMatrix(X, y, **extra)
    plain = xgb.train(LOGISTIC, matrix, 3)
    assert bst.feature_names == names
    assert bst.get_dump() == plain.get_dump()
    longer = train(LOGISTIC, RayDMatrix(X, y, **extra), 2, xgb_model=bst, ray_params=TWO)
    assert longer.num_boosted_rounds() == 5
    assert longer.get_dump()[:3] == bst.get_dump()


def test_categories_are_kept_with_the_model(runtime):
    import pandas as pd

    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.random(300), "g": pd.Categorical(rng.choice(["x", "y", "z"], 300))})
    frame["y"] = (frame["g"] == "y").astype(int)
    with pytest.raises(ValueError, match="columns 'g' are categorical"):
        train(LOGISTIC, RayDMatrix(frame, "y"), 1, ray_params=TWO)
    bst = train(LOGISTIC, RayDMatrix(frame, "y", enable_categorical=True), 5, ray_params=TWO)
    assert bst.feature_types == ["float", "c"]
    other = frame.drop(columns="y").assign(g=frame["g"].cat.reorder_categories(["z", "y", "x"]))
    own = bst.predict(xgb.DMatrix(frame.drop(columns="y"), enable_categorical=True))
    assert ((own > 0.5) == frame["y"]).all()
    assert np.allclose(predict(bst, RayDMatrix(other, enable_categorical=True), ray_params=TWO), own)


def test_more_actors_than_rows(runtime, caplog):
    with caplog.at_level(logging.WARNING, "mltoolkit.xgboost"):
        bst = train(
            {"objective": "reg:squarederror", "min_child_weight": 0},
            RayDMatrix(np.arange(2.0).reshape(-1, 1), [0.0, 1.0], sharding=RayShardingMode.BATCH),
            30,
            ray_params=RayParams(num_actors=3, cpus_per_actor=1, verbose=False),
        )
    assert "Actors 2 have no rows of a dataset of 2 rows" in caplog.text
    assert bst.predict(xgb.DMatrix([[0.0], [1.0]])) == pytest.approx([0.0, 1.0], abs=0.01)
    few = RayDMatrix(np.array([[1.0]]))
    assert predict(bst, few, ray_params=TWO) == pytest.approx([1.0], abs=0.01)


def test_queries_stay_together_and_rank_as_with_the_plain_library(runtime):
    rng = np.random.default_rng(0)
    X, qid = rng.random((600, 4)), np.sort(rng.integers(0, 30, 600))
    y = (X[:, 0] * 4 + rng.random(600)).astype(int)
    params = {"objective": "rank:ndcg", "eval_metric": "ndcg@5", "lambdarank_pair_method": "topk", "nthread": 1}
    mixed = rng.permutation(600)
    matrix = RayDMatrix(X[mixed], y[mixed], qid=qid[mixed])
    evals, plain_evals = {}, {}
    train(params, matrix, 10, evals=[(matrix, "t")], evals_result=evals, verbose_eval=False, ray_params=TWO)
    plain = xgb.DMatrix(X, y, qid=qid)
    xgb.train(params, plain, 10, evals=[(plain, "t")], evals_result=plain_evals, verbose_eval=False)
    assert evals["t"]["ndcg@5"][-1] == pytest.approx(plain_evals["t"]["ndcg@5"][-1], abs=0.01)


def test_sparse_data_may_have_categories(runtime):
    import scipy.sparse

    rng = np.random.default_rng(0)
    X = scipy.sparse.csr_matrix(rng.integers(0, 4, (200, 3)).astype(float))
    y = (X.toarray()[:, 0] == 2).astype(int)
    extra = {"feature_types": ["c", "q", "q"]}
    with pytest.raises(ValueError, match="columns 'c' are categorical"):
        train(LOGISTIC, RayDMatrix(X, y, **extra), 1, ray_params=ONE)
    bst = train(LOGISTIC, RayDMatrix(X, y, enable_categorical=True, **extra), 3, ray_params=ONE)
    plain = xgb.train(LOGISTIC, xgb.QuantileDMatrix(X, y, enable_categorical=True, **extra), 3)
    assert bst.get_dump() == plain.get_dump()


def test_bounds_stand_for_labels_in_survival_analysis(runtime):
    X = np.random.default_rng(0).random((60, 3))
    bounds = {"label_lower_bound": X[:, 0] + 1, "label_upper_bound": X[:, 0] + 2}
    params = {"objective": "survival:aft", "nthread": 1}
    bst = train(params, RayDMatrix(X, **bounds), 3, ray_params=ONE)
    assert bst.get_dump() == xgb.train(params, xgb.QuantileDMatrix(X, **bounds), 3).get_dump()


def test_large_matrices_are_binned_by_columns_to_the_same_model(runtime, monkeypatch):
    pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    X = rng.standard_normal((25_000, 3)).astype(np.float32)
    X[rng.random(X.shape) < 0.1] = np.nan
    y = (np.nan_to_num(X[:, 0]) > 0).astype(int)
    bst = train(LOGISTIC, RayDMatrix(X, y), 2, ray_params=ONE)
    assert bst.feature_names is None
    assert bst.get_dump() == xgb.train(LOGISTIC, xgb.QuantileDMatrix(X, y), 2).get_dump()


def test_fewer_threads_than_cpus_can_be_asked_for(runtime):
    threads = []

    class Look(xgb.callback.TrainingCallback):
        def before_training(self, model):
            import json

            put_queue(int(json.loads(model.save_config())["learner"]["generic_param"]["nthread"]))
            return model

    more = {}
    matrix = RayDMatrix([[1.0], [2.0]], [0, 1])
    two_cpus = RayParams(num_actors=1, cpus_per_actor=2, verbose=False)
    train({"nthread": 1}, matrix, 1, callbacks=[Look()], additional_results=more, ray_params=two_cpus)
    threads += more["callback_returns"][0]
    train({}, matrix, 1, callbacks=[Look()], additional_results=more, ray_params=two_cpus)
    threads += more["callback_returns"][0]
    assert threads == [1, 2]


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda d: train(LOGISTIC, [[1]], ray_params=TWO), ValueError, "`dtrain` must be a RayDMatrix"),
        (lambda d: train(LOGISTIC, RayDMatrix([[1]]), ray_params=TWO), ValueError, "`dtrain` has no label"),
        (lambda d: train(LOGISTIC, d), ValueError, "`num_actors` must be"),
        (lambda d: train({"tree_method": "exact"}, d, ray_params=TWO), ValueError, "tree_method='exact'"),
        (lambda d: train(LOGISTIC, d, evals=[d], ray_params=TWO), ValueError, "`evals` must be a list of pairs"),
        (lambda d: train(LOGISTIC, d, evals=[(d, "a-b")], ray_params=TWO), ValueError, "must not contain '-'"),
        (lambda d: train(LOGISTIC, d, early_stopping_rounds=2, ray_params=TWO), ValueError, "at least one dataset"),
        (lambda d: train(LOGISTIC, d, callbacks=[print], ray_params=TWO), TypeError, "TrainingCallback"),
        (lambda d: train({"nthread": 2}, d, ray_params=TWO), ValueError, "`nthread` is 2, more than `cpus_per_actor`"),
        (
            lambda d: train(LOGISTIC, d, feval=max, custom_metric=max, ray_params=TWO),
            ValueError,
            "either `custom_metric`",
        ),
        (lambda d: train(LOGISTIC, d, -1, ray_params=TWO), ValueError, "`num_boost_round` must be an integer >= 0"),
        (lambda d: train(None, d, ray_params=TWO), TypeError, "`params` must be a dict"),
        (lambda d: train(LOGISTIC, d, evals=[(d, "a")] * 2, ray_params=TWO), ValueError, "must be unique, got 'a'"),
        (lambda d: train(LOGISTIC, d, verbose_eval="yes", ray_params=TWO), ValueError, "`verbose_eval` must be"),
        (lambda d: train(LOGISTIC, d, xgb_model="no.ubj", ray_params=TWO), FileNotFoundError, "no model at 'no.ubj'"),
        (lambda d: predict(None, d, ray_params=TWO), ValueError, "`model` must be"),
        (lambda d: predict(None, d, ray_params=TWO, margin=True), TypeError, "Did you mean 'output_margin'"),
        (lambda d: train(LOGISTIC, d, num_round=2, ray_params=TWO), TypeError, "num_round"),
    ],
)
def test_arguments_that_do_not_fit_are_named(call, error, text):
    with pytest.raises(error, match=text):
        call(RayDMatrix([[1.0], [2.0]], [0, 1]))
