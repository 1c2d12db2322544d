"""Ranks that die, code that raises, data that is not there: clear errors, no hang, nothing left behind."""

from __future__ import annotations

import os
import signal

import helpers
import numpy as np
import psutil
import pytest

xgb = pytest.importorskip("xgboost")

from mltoolkit.xgboost import RayDMatrix, RayParams, get_actor_rank, predict, train  # noqa: E402
from mltoolkit.xgboost.main import RayXGBoostTrainingError  # noqa: E402

pytestmark = [pytest.mark.hostile, pytest.mark.timeout(90)]

PARAMS = {"objective": "binary:logistic", "max_depth": 3}


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((400, 5))
    return X, (X[:, 0] + rng.standard_normal(400) > 0).astype(int)


class Kill(xgb.callback.TrainingCallback):
    """Kills one rank after a round, the first time."""

    def __init__(self, rank, round_, flag):
        super().__init__()
        self.rank, self.round, self.flag = rank, round_, str(flag)

    def after_iteration(self, model, epoch, evals_log):
        if get_actor_rank() == self.rank and epoch == self.round and not os.path.exists(self.flag):
            open(self.flag, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return False


def fit(data, rounds=40, callbacks=(), **params):
    matrix = RayDMatrix(*data)
    evals = {}
    bst = train(
        PARAMS,
        matrix,
        rounds,
        evals=[(matrix, "t")],
        evals_result=evals,
        early_stopping_rounds=1000,
        callbacks=list(callbacks),
        verbose_eval=False,
        ray_params=RayParams(**{"num_actors": 2, "cpus_per_actor": 1, "verbose": False, **params}),
    )
    return bst, evals["t"]["logloss"]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_killed_in_round_20_changes_nothing_about_the_model(runtime, data, tmp_path, rank):
    bst, losses = fit(data, callbacks=[Kill(rank, 20, tmp_path / "killed")], max_actor_restarts=1)
    plain, plain_losses = fit(data)
    assert (tmp_path / "killed").exists()
    assert losses == plain_losses
    assert bst.get_dump() == plain.get_dump()


def test_it_raises_where_no_restart_is_allowed(runtime, data, tmp_path):
    with pytest.raises(RayXGBoostTrainingError, match=r"lost rank 1.*SIGKILL"):
        fit(data, callbacks=[Kill(1, 3, tmp_path / "killed")])


def test_elastic_training_ends_with_all_rounds(runtime, data, tmp_path):
    bst, losses = fit(
        data,
        callbacks=[Kill(1, 10, tmp_path / "killed")],
        num_actors=3,
        elastic_training=True,
        max_failed_actors=1,
        max_actor_restarts=1,
    )
    assert bst.num_boosted_rounds() == len(losses) == 40
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("kind", ["custom_metric", "obj", "callbacks"])
def test_code_that_raises_in_one_rank_is_the_cause(runtime, data, kind):
    def function(predictions, matrix):
        if get_actor_rank() == 1:
            raise LookupError("boom")
        return ("m", 1.0) if kind == "custom_metric" else (predictions, np.ones_like(predictions))

    class Hook(xgb.callback.TrainingCallback):
        def after_iteration(self, model, epoch, evals_log):
            if epoch == 1 and get_actor_rank() == 1:
                raise LookupError("boom")
            return False

    given = [Hook()] if kind == "callbacks" else function
    matrix = RayDMatrix(*data)
    params = RayParams(num_actors=2, cpus_per_actor=1, verbose=False, max_actor_restarts=5)
    with pytest.raises(RayXGBoostTrainingError, match="rank 1: LookupError: boom") as caught:
        train(PARAMS, matrix, 5, evals=[(matrix, "t")], verbose_eval=False, ray_params=params, **{kind: given})
    assert isinstance(caught.value.__cause__, LookupError)


def test_files_that_are_missing_or_differ_are_named(runtime, data, tmp_path):
    two = RayParams(num_actors=2, cpus_per_actor=1, verbose=False)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.csv"):
        train(PARAMS, RayDMatrix(str(tmp_path / "nowhere.csv"), "y"), ray_params=two)
    (tmp_path / "a.csv").write_text("a,b,y\n1,2,0\n2,3,1\n")
    (tmp_path / "b.csv").write_text("a,c,y\n1,2,0\n2,3,1\n")
    with pytest.raises(ValueError, match=r"missing: 'b'; not in the first: 'c'"):
        train(PARAMS, RayDMatrix([str(tmp_path / name) for name in ("a.csv", "b.csv")], "y"), ray_params=two)


def test_features_that_are_not_the_models_are_named(runtime, data):
    pandas = pytest.importorskip("pandas")
    X, y = data
    one = RayParams(num_actors=1, cpus_per_actor=1, verbose=False)
    bst = train(PARAMS, RayDMatrix(pandas.DataFrame(X, columns=list("abcde")), y), 2, ray_params=one)
    with pytest.raises(ValueError, match="feature_names mismatch"):
        predict(bst, RayDMatrix(pandas.DataFrame(X, columns=list("abcdf"))), ray_params=one)
    bst = train(PARAMS, RayDMatrix(X, y), 2, ray_params=one)
    with pytest.raises(ValueError, match="trained with 5 features, the data to predict has 3"):
        predict(bst, RayDMatrix(X[:, :3]), ray_params=one)


def test_what_native_code_says_comes_without_its_stack(runtime, data):
    matrix = RayDMatrix(*data)
    one = RayParams(num_actors=1, cpus_per_actor=1, verbose=False)
    with pytest.raises(RayXGBoostTrainingError, match="Unknown metric function loglos") as caught:
        train({**PARAMS, "eval_metric": "loglos"}, matrix, 2, evals=[(matrix, "t")], ray_params=one)
    assert "Stack trace" not in str(caught.value)
    with pytest.raises(RayXGBoostTrainingError, match="must return a name and a number.*got None"):
        train(PARAMS, matrix, 2, evals=[(matrix, "t")], custom_metric=lambda p, d: None, ray_params=one)


def listeners(pid):
    found = []
    for process in [psutil.Process(pid), *helpers.family(pid)]:
        try:
            found += [c.laddr for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
        except psutil.NoSuchProcess:
            continue
    return found


def test_an_interrupted_program_leaves_nothing(tmp_path):
    """Ctrl-C in the middle of training: the error arrives at once, processes and ports are gone."""
    process = helpers.start_script(
        """
        import sys
        import numpy as np
        import xgboost
        from mltoolkit.xgboost import RayDMatrix, RayParams, get_actor_rank, put_queue, train

        class Ready(xgboost.callback.TrainingCallback):
            def after_iteration(self, model, epoch, evals_log):
                if epoch == 3 and get_actor_rank() == 0:
                    put_queue(lambda: print("training", flush=True))
                return False

        X = np.random.default_rng(0).random((2000, 5))
        try:
            train({}, RayDMatrix(X, X[:, 0]), 100_000, callbacks=[Ready()], ray_params=RayParams(num_actors=2))
        except KeyboardInterrupt:
            print("interrupted", flush=True)
            sys.stdin.read()
        """,
        tmp_path,
        stdin=-1,
    )
    try:
        assert process.stdout.readline() == "training\n"
        assert listeners(process.pid)
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "interrupted\n"

        # The fork server is left.
        helpers.wait_until(lambda: len(helpers.family(process.pid)) <= 1, 10, "actors are gone")
        assert not listeners(process.pid)
        process.communicate(timeout=20)
        assert process.returncode == 0
    finally:
        if process.poll() is None:
            helpers.end_family(process.pid)
            process.communicate()
