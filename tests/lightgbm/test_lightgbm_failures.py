"""Actors that are lost, and code of users that raises, while LightGBM trains."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time

import lightgbm
import numpy as np
import psutil
import pytest

from mltoolkit.lightgbm import RayDMatrix, RayParams, get_actor_rank, put_queue, train
from mltoolkit.lightgbm.main import RayLightGBMTrainingError

PARAMS = {"objective": "regression", "learning_rate": 0.2, "min_data_in_leaf": 5}


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 4))
    return X, X[:, 0] + X[:, 1] ** 2


class KillOnce:
    """Kills one rank's process in one round, unless it was done before."""

    def __init__(self, gate, rank=1, iteration=12):
        self.gate, self.rank, self.iteration = str(gate), rank, iteration

    def __call__(self, env):
        if get_actor_rank() == self.rank and env.iteration == self.iteration and not os.path.exists(self.gate):
            open(self.gate, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)


def fit(data, callbacks=(), rounds=25, **ray_params):
    dtrain, results, more = RayDMatrix(*data), {}, {}
    model = train(
        PARAMS, dtrain, lightgbm.Booster, rounds, evals=[(dtrain, "t")], evals_result=results, additional_results=more,
        callbacks=list(callbacks), verbose_eval=False, ray_params=RayParams(cpus_per_actor=1, **ray_params),
    )  # fmt: skip
    return model, results["t"]["l2"], more


def test_training_starts_again_from_the_last_checkpoint(runtime, data, tmp_path, caplog):
    undisturbed, expected, _ = fit(data, num_actors=3)
    for rank in (0, 2):
        check_restart(data, tmp_path / f"gate{rank}", caplog, rank, undisturbed, expected)


def check_restart(data, gate, caplog, rank, undisturbed, expected):
    caplog.clear()
    with caplog.at_level(logging.WARNING, "mltoolkit.lightgbm"):
        model, losses, more = fit(data, [KillOnce(gate, rank)], num_actors=3, max_actor_restarts=1)
    assert f"Lost rank {rank}" in caplog.text
    assert "from round 10" in caplog.text
    assert model.current_iteration() == 25
    assert len(losses) == 25
    assert losses == pytest.approx(expected, rel=1e-6)
    assert np.allclose(model.predict(data[0]), undisturbed.predict(data[0]))
    assert more["total_n"] == 400


def test_the_remaining_actors_go_on(runtime, data, tmp_path, monkeypatch):
    monkeypatch.setenv("RXGB_ELASTIC_RESTART_DISABLED", "1")
    model, losses, more = fit(
        data,
        [KillOnce(tmp_path / "gate")],
        num_actors=3,
        max_actor_restarts=2,
        elastic_training=True,
        max_failed_actors=1,
    )
    assert (model.current_iteration(), len(losses)) == (25, 25)
    assert more["total_n"] in (266, 267)


def test_a_replacement_is_taken_in(runtime, data, tmp_path, monkeypatch):
    monkeypatch.setenv("RXGB_ELASTIC_RESTART_RESOURCE_CHECK_S", "0")
    monkeypatch.setenv("RXGB_ELASTIC_RESTART_GRACE_PERIOD_S", "0")
    gate = tmp_path / "gate"

    def wait_for_the_third(env):  # rounds are much shorter than the start of an actor
        if env.iteration > 12 and env.params["num_machines"] == 2 and get_actor_rank() == 0:
            time.sleep(0.1)

    model, losses, more = fit(
        data, [KillOnce(gate), wait_for_the_third], 150, num_actors=3, max_actor_restarts=1, elastic_training=True,
        max_failed_actors=1,
    )  # fmt: skip
    assert (model.current_iteration(), len(losses)) == (150, 150)
    assert more["total_n"] == 400


def test_more_failures_than_allowed(runtime, data, tmp_path):
    began = time.monotonic()
    with pytest.raises(RayLightGBMTrainingError, match=r"lost rank 1 and max_actor_restarts=0") as caught:
        fit(data, [KillOnce(tmp_path / "gate")], num_actors=2)
    assert caught.value.__cause__ is not None
    assert time.monotonic() - began < 20


def test_a_rank_that_dies_before_the_first_round(runtime, data, tmp_path):
    gate = tmp_path / "gate"

    def objective(predictions, dataset):
        if get_actor_rank() == 1 and not os.path.exists(gate):
            open(gate, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return predictions - dataset.get_label(), np.ones(len(predictions))

    model = train(
        {"objective": objective}, RayDMatrix(*data), lightgbm.Booster, 3, verbose_eval=False,
        ray_params=RayParams(num_actors=2, cpus_per_actor=1, max_actor_restarts=1),
    )  # fmt: skip
    assert model.current_iteration() == 3


def test_a_metric_that_raises_in_one_rank(runtime, data):
    def metric(predictions, dataset):
        if get_actor_rank() == 1:
            raise KeyError("no such thing")
        return "m", 0.0, False

    dtrain = RayDMatrix(*data)
    began = time.monotonic()
    with pytest.raises(RayLightGBMTrainingError, match="failed in rank 1: KeyError: 'no such thing'") as caught:
        train(
            PARAMS, dtrain, num_boost_round=5, evals=[(dtrain, "t")], feval=metric, verbose_eval=False,
            ray_params=RayParams(num_actors=3, cpus_per_actor=1, max_actor_restarts=3),
        )  # fmt: skip
    assert isinstance(caught.value.__cause__, KeyError)
    assert time.monotonic() - began < 15


@pytest.mark.parametrize("where", ["objective", "callback"])
def test_other_code_that_raises(runtime, data, where):
    def broken(*args):
        raise ZeroDivisionError(where)

    params = {**PARAMS, "objective": broken} if where == "objective" else PARAMS
    with pytest.raises(RayLightGBMTrainingError, match=f"ZeroDivisionError: {where}"):
        train(
            params, RayDMatrix(*data), num_boost_round=2, verbose_eval=False,
            callbacks=[broken] if where == "callback" else None, ray_params=RayParams(num_actors=2, cpus_per_actor=1),
        )  # fmt: skip


def test_what_cannot_be_sent_to_the_driver_is_told(runtime, data):
    def send_a_lock(env):
        put_queue(threading.Lock())

    with pytest.raises(RayLightGBMTrainingError, match="What rank . has sent could not be received: .*pickle"):
        fit(data, [send_a_lock], num_actors=2)


def test_what_lightgbm_refuses_is_told(runtime, data):
    with pytest.raises(RayLightGBMTrainingError, match="LightGBMError: .*Unknown objective"):
        train(
            {"objective": "nonsense"}, RayDMatrix(*data), verbose_eval=False,
            ray_params=RayParams(num_actors=2, cpus_per_actor=1),
        )  # fmt: skip


def test_no_process_and_no_port_is_left(runtime, data, tmp_path):
    seen = []

    def tell(env):
        put_queue(("pid", os.getpid()))

    with pytest.raises(RayLightGBMTrainingError):
        fit(data, [KillOnce(tmp_path / "gate"), tell], num_actors=2)
    _, _, more = fit(data, [tell], rounds=1, num_actors=2)
    seen = [pid for [(_, pid)] in more["callback_returns"]]
    deadline = time.monotonic() + 5
    while any(psutil.pid_exists(pid) for pid in seen) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(psutil.pid_exists(pid) for pid in seen)
