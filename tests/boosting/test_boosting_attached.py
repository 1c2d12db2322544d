"""Training on the nodes of a Dask cluster: persisted data, and a node that is killed in the middle."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
from dask_cluster import Cluster

xgb = pytest.importorskip("xgboost")
da = pytest.importorskip("dask.array")
pytest.importorskip("mltoolkit.core.attached")

import mltoolkit  # noqa: E402
from mltoolkit.xgboost import RayDMatrix, RayParams, predict, train  # noqa: E402
from mltoolkit.xgboost.main import RayXGBoostTrainingError  # noqa: E402

pytestmark = [pytest.mark.hostile, pytest.mark.timeout(120)]

PARAMS = {"objective": "binary:logistic", "max_depth": 3}


class KillNode(xgb.callback.TrainingCallback):
    """Kills a Dask worker after round 10; whoever trains there ends with it."""

    def __init__(self, pid):
        super().__init__()
        self.pid = pid

    def after_iteration(self, model, epoch, evals_log):
        if epoch == 10 and os.path.exists(f"/proc/{self.pid}"):
            os.kill(self.pid, signal.SIGKILL)
        return False


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((400, 5))
    return X, (X[:, 0] + rng.standard_normal(400) > 0).astype(int)


@pytest.fixture
def cluster(tmp_path, fresh):
    made = Cluster(tmp_path, workers=2, nthreads=1)
    mltoolkit.init(address=made.address)
    yield made
    mltoolkit.shutdown()
    made.close()


def fit(matrix, doomed=None, **params):
    evals = {}
    bst = train(
        PARAMS,
        matrix,
        40,
        evals=[(matrix, "t")],
        evals_result=evals,
        callbacks=[] if doomed is None else [KillNode(doomed.pid)],
        verbose_eval=False,
        ray_params=RayParams(num_actors=2, cpus_per_actor=1, verbose=False, **params),
    )
    return bst, evals["t"]["logloss"]


def test_a_node_that_holds_persisted_data_is_killed_in_round_10(cluster, data):
    X, y = data
    client = mltoolkit.util.dask.get_client()
    matrix = RayDMatrix(*client.persist([da.from_array(X, chunks=(100, 5)), da.from_array(y, chunks=100)]))
    plain, losses = fit(matrix)
    two = RayParams(num_actors=2, cpus_per_actor=1, verbose=False)
    assert (predict(plain, matrix, ray_params=two) == plain.predict(xgb.DMatrix(X))).all()

    # One node with one CPU is left: both ranks share it. Dask computes again what the other has held.
    again, losses_again = fit(matrix, cluster.workers[0], max_actor_restarts=1)
    assert cluster.workers[0].wait(10) == -signal.SIGKILL
    assert len(mltoolkit.nodes()) == 1
    assert again.get_dump() == plain.get_dump()
    assert losses_again == losses

    with pytest.raises(RayXGBoostTrainingError, match=r"rank \d.*Dask worker .* was lost"):
        fit(RayDMatrix(X, y), cluster.workers[1])
