"""Attempts, messages, restarts and replacements, with a library that computes nothing."""

from __future__ import annotations

import logging
import os
import re
import signal

import helpers
import numpy as np
import pytest

import mltoolkit
from mltoolkit._boosting.actor import BoostingActor, Checkpoint, RankLibrary
from mltoolkit._boosting.callback import DistributedCallback
from mltoolkit._boosting.errors import LostPeersError
from mltoolkit._boosting.library import Library
from mltoolkit._boosting.matrix import RayDMatrix
from mltoolkit._boosting.params import RayParams
from mltoolkit._boosting.prediction import run_prediction
from mltoolkit._boosting.runtime import light_start
from mltoolkit._boosting.session import get_actor_rank, put_queue
from mltoolkit._boosting.training import Training

pytestmark = pytest.mark.timeout(60)


class CountingError(RuntimeError):
    pass


class CountingActor(BoostingActor):
    pass


class CountingRank(RankLibrary):
    """Its model is a list with the number of ranks in each round."""

    def load(self, *, full):
        self.full = full

    def prepare(self, index, world_size, host):
        return (index, world_size, host)

    def train(self, task):
        assert [index for index, _, _ in task.meeting] == list(range(task.world_size))
        rounds = list(task.checkpoint.state) if task.checkpoint else []
        stopped = False
        while len(rounds) < task.request["rounds"] and not stopped:
            task.request["hook"](get_actor_rank(), len(rounds), task)
            rounds.append(task.world_size)
            if task.index == 0:
                task.put("eval", (len(rounds) - 1, [("train", "rows", float(task.train.block.n))]))
            if task.checkpoint_due(len(rounds)):
                task.put("checkpoint", Checkpoint(len(rounds), bytes(rounds), task.ranks))
            stopped = task.stoppable and task.stop.is_set() and len(rounds) < task.request["rounds"]
        result = {"bst": bytes(rounds), "evals_result": {}, "stopped": stopped}
        return {**result, "checkpoint": Checkpoint(len(rounds), bytes(rounds), task.ranks)} if stopped else result

    def predict(self, model, data, arguments, num_threads):
        return data.block.data[:, 0] * model

    def abort(self):
        pass


LIBRARY = Library(
    "Counting", "json", CountingActor, CountingRank, CountingError, "COUNTING", logging.getLogger("counting")
)


def nothing(rank, done, task):
    pass


def run(hook=nothing, rounds=12, rows=9, evals=None, data=None, sets=(), **params):
    if data is None:
        data = RayDMatrix(np.arange(rows, dtype=float).reshape(-1, 1), np.zeros(rows))
    params = RayParams(**{"num_actors": 3, "verbose": False, **params})
    training = Training(
        LIBRARY,
        params,
        data,
        sets,
        {"rounds": rounds, "hook": hook},
        wants_gpu=False,
        on_eval=lambda index, scores: None if evals is None else evals.append((index, scores)),
    )
    result = training.run()
    return result, list(result.bst)


@pytest.fixture
def once(tmp_path):
    """Kills one rank in one round, the first time only; the others are there as well, and notice."""

    def make(rank, at):
        def hook(own, done, task):
            here = tmp_path / f"here-{own}"
            if done != at or here.exists():
                return
            here.touch()
            if own == rank:
                helpers.wait_until(lambda: len(list(tmp_path.glob("here-*"))) == task.world_size)
                (tmp_path / "killed").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            helpers.wait_until((tmp_path / "killed").exists)
            raise LostPeersError("the other is gone")

        return hook

    return make


def test_all_ranks_take_part_and_evaluations_arrive_in_order(runtime):
    evals = []
    result, rounds = run(evals=evals)
    assert rounds == [3] * 12
    assert [index for index, _ in evals] == list(range(12))
    assert evals[0][1] == [("train", "rows", 3.0)]
    assert result.total_n == 9


def test_what_actors_send_is_collected_by_rank_and_callables_are_called(runtime):
    called = []

    def hook(rank, done, task):
        if done == 1:
            put_queue((rank, "sent"))
            put_queue(lambda: called.append(os.getpid()))

    result, _ = run(hook, rounds=3)
    assert result.callback_returns == [[(rank, "sent")] for rank in range(3)]


def test_callables_run_in_the_driver_and_their_errors_end_training(runtime):
    def hook(rank, done, task):
        put_queue(lambda: {}["missing"])

    with pytest.raises(KeyError, match="missing"):
        run(hook)


def test_a_killed_rank_ends_training_where_no_restart_is_allowed(runtime, once):
    with pytest.raises(CountingError, match=r"lost rank 1 and max_actor_restarts=0.*SIGKILL"):
        run(once(1, 7))


@pytest.mark.parametrize("rank", [0, 2])
def test_training_starts_again_from_the_last_checkpoint_with_all_ranks(runtime, once, rank):
    evals = []
    _, rounds = run(once(rank, 7), evals=evals, max_actor_restarts=1)
    assert rounds == [3] * 12
    indices = [index for index, _ in evals]
    assert indices[-6:] == list(range(6, 12))  # checkpoints come after round 0 and round 5


def test_without_checkpoints_it_starts_over(runtime, once):
    evals = []
    run(once(1, 7), evals=evals, max_actor_restarts=1, checkpoint_frequency=0)
    assert [index for index, _ in evals][-12:] == list(range(12))


def test_elastic_training_goes_on_with_those_that_are_left(runtime, once, monkeypatch):
    monkeypatch.setenv("COUNTING_ELASTIC_RESTART_DISABLED", "1")
    result, rounds = run(once(1, 7), elastic_training=True, max_failed_actors=1, max_actor_restarts=1)
    assert rounds == [3] * 6 + [2] * 6
    assert result.total_n == 6


def test_elastic_training_takes_the_replacement_in(runtime, once, gate):
    kill, replaced = once(1, 2), gate("replaced")

    def hook(rank, done, task):
        kill(rank, done, task)
        if rank == 1 and done > 2:
            replaced.open()
        if task.world_size == 2 and done == 8:  # goes on once the replacement has made it stop
            task.stop.wait(30)

    _, rounds = run(hook, elastic_training=True, max_failed_actors=1, max_actor_restarts=1, checkpoint_frequency=1)
    assert rounds[-1] == 3
    assert rounds.count(2) > 0
    assert replaced.is_open()


def test_elastic_training_that_may_lose_all_starts_again_with_all(runtime, tmp_path):
    def hook(rank, done, task):
        flag = tmp_path / f"killed-{rank}"
        if done == 3 and not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    _, rounds = run(hook, num_actors=2, elastic_training=True, max_failed_actors=2, max_actor_restarts=2)
    assert rounds[-1] == 2
    assert len(rounds) == 12


def test_a_rank_that_does_not_notice_is_ended_and_not_counted_as_lost(runtime, once, tmp_path, monkeypatch):
    monkeypatch.setenv("COUNTING_ELASTIC_RESTART_DISABLED", "1")
    monkeypatch.setattr("mltoolkit._boosting.training._NOTICE_S", 0.1)
    monkeypatch.setattr("mltoolkit._boosting.training._UNWIND_S", 0.1)
    kill = once(1, 7)

    def hook(rank, done, task):
        stuck = tmp_path / "stuck"
        if rank == 0 and done == 7 and not stuck.exists():
            stuck.touch()
            (tmp_path / "here-0").touch()
            task.stop.wait(60)
        kill(rank, done, task)

    _, rounds = run(hook, elastic_training=True, max_failed_actors=1, max_actor_restarts=1)
    assert rounds == [3] * 6 + [2] * 6


def test_too_many_losses_end_elastic_training(runtime, tmp_path):
    def hook(rank, done, task):
        if rank and done == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(CountingError, match="max_failed_actors=1 of 3"):
        run(hook, elastic_training=True, max_failed_actors=1, max_actor_restarts=5)


def test_errors_of_the_users_code_are_the_cause_and_nothing_is_repeated(runtime, tally):
    calls = tally()

    def hook(rank, done, task):
        if rank == 1:
            calls.add()
            raise ZeroDivisionError("in the metric")
        raise LostPeersError("the other is gone")

    with pytest.raises(CountingError, match="rank 1: ZeroDivisionError: in the metric") as caught:
        run(hook, max_actor_restarts=3)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert calls.count() == 1


def test_broken_connections_are_tried_again(runtime, tmp_path):
    flag = tmp_path / "broke"

    def hook(rank, done, task):
        if rank == 0 and not flag.exists():
            flag.touch()
            raise LostPeersError("reset by peer")

    _, rounds = run(hook, max_actor_restarts=1)
    assert rounds == [3] * 12


class Hooks(DistributedCallback):
    def __init__(self, calls):
        self.calls = calls

    def on_init(self, actor, *args, **kwargs):
        self.calls.add(f"init {actor.rank}")

    def after_data_loading(self, actor, data, *args, **kwargs):
        self.calls.add(f"loaded {actor.rank}")

    def before_train(self, actor, *args, **kwargs):
        self.calls.add(f"train {actor.rank}")

    def after_train(self, actor, result_dict, *args, **kwargs):
        self.calls.add(f"trained {result_dict['train_n']}")


def test_hooks_run_in_every_actor(runtime, tally):
    calls = tally()
    run(num_actors=2, distributed_callbacks=[Hooks(calls)])
    assert sorted(calls.words()) == [
        "init 0", "init 1", "loaded 0", "loaded 1", "train 0", "train 1", "trained 4", "trained 5",
    ]  # fmt: skip


class FailingStart(DistributedCallback):
    def on_init(self, actor, *args, **kwargs):
        raise OSError("no such licence")


def test_an_actor_that_cannot_start_says_why(runtime):
    with pytest.raises(CountingError, match="no such licence") as caught:
        run(distributed_callbacks=[FailingStart()], max_actor_restarts=5)
    assert isinstance(caught.value.__cause__, OSError)


def test_predictions_come_in_the_order_of_rows(runtime):
    data = RayDMatrix(np.arange(10, dtype=float).reshape(-1, 1))
    out = run_prediction(LIBRARY, RayParams(num_actors=3, verbose=False), data, 2.0, {})
    assert out.tolist() == (2.0 * np.arange(10)).tolist()


def test_partitions_in_the_object_store_are_read_by_the_actors(runtime):
    import pandas as pd

    parts = [runtime.put(pd.DataFrame({"a": np.arange(3.0) + 3 * i, "y": 0.0})) for i in range(3)]
    data = RayDMatrix(parts, ignore=["y"])
    out = run_prediction(LIBRARY, RayParams(num_actors=2, verbose=False), data, 1.0, {})
    assert out.tolist() == list(np.arange(9.0))


def test_more_gpus_than_there_are(runtime):
    with pytest.raises(ValueError, match="need 3 GPUs; the cluster has 0"):
        run(gpus_per_actor=1)


def test_eight_trainings_of_two_actors_at_once_all_end(runtime):
    """On four CPUs: the actors of one training are placed together or not at all, and none waits for ever."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: run(num_actors=2, cpus_per_actor=1)[1], range(8)))
    assert results == [[2] * 12] * 8


def test_threads_that_start_at_once_share_one_session_and_leave_no_variable(fresh, monkeypatch):
    import threading
    from concurrent.futures import ThreadPoolExecutor

    monkeypatch.delenv("MLTOOLKIT_PRELOAD", raising=False)
    together = threading.Barrier(4)

    def start(number):
        with light_start():
            together.wait(30)
            assert os.environ["MLTOOLKIT_PRELOAD"] == "numpy"
            if number % 2:
                raise LookupError(number)
            return mltoolkit.get_runtime_context().get_node_id()

    with ThreadPoolExecutor(4) as pool:
        ends = [pool.submit(start, number) for number in range(4)]
    assert [type(end.exception()) for end in ends] == [type(None), LookupError] * 2
    assert ends[0].result() == ends[2].result()
    assert "MLTOOLKIT_PRELOAD" not in os.environ

    monkeypatch.setenv("MLTOOLKIT_PRELOAD", "json")
    with light_start():
        assert os.environ["MLTOOLKIT_PRELOAD"] == "json"
    assert os.environ["MLTOOLKIT_PRELOAD"] == "json"


def test_long_training_says_how_far_it_is(runtime, monkeypatch, capsys, gate):
    monkeypatch.setenv("COUNTING_STATUS_FREQUENCY_S", "0")
    told = gate("told")

    def hook(rank, done, task):
        if done == 5:
            task._told_at = -1e9  # a second has passed
            task.tell_rounds(done)
            if rank == 0:
                put_queue(told.open)
            told.wait()

    run(hook, verbose=True)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("[Counting] ")]
    assert lines
    assert all(re.fullmatch(r"\[Counting\] (\d+ rounds in )?\d+ s", line) for line in lines)
    assert any("5 rounds in" in line for line in lines)
    run(hook)
    assert "[Counting]" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"label": np.zeros(3)}, "`label` must have one value for each of the 4 rows"),
        ({"label": np.array([0, 1, np.nan, 0])}, "`label` contains NaN or infinity, first in row 2"),
        ({"label": np.zeros(4), "weight": np.zeros((4, 2))}, "`weight` must have 1 dimension"),
        ({"label": np.zeros(4), "qid": np.zeros(4), "weight": np.zeros(2)}, "for each of the 1 queries"),
        ({"label": np.zeros(4), "qid": np.zeros(4), "group": [4]}, "either `group` or `qid`"),
        ({"label": np.zeros(4), "group": [1, 2]}, r"`group` must add up to the 4 rows of the data, got 3"),
        ({"label": np.zeros(4), "group": [1.5, 2.5]}, "`group` must be a list of integers"),
        ({"label": np.zeros(4), "qid": [1, 2, np.nan, 4]}, "`qid` contains NaN or infinity, first in row 2"),
    ],
)
def test_values_that_do_not_fit_the_data_are_refused(runtime, values, text):
    with pytest.raises(ValueError, match=text):
        RayDMatrix(np.zeros((4, 2)), **values).load_data(2)


def test_labels_that_are_no_numbers_are_found_in_files_and_partitions(runtime, tmp_path):
    import pandas as pd

    (tmp_path / "a.csv").write_text("x,y\n1,0\n2,1\n3,\n")
    with pytest.raises(ValueError, match=r"`label` contains NaN or infinity, first in row 2 of .*a\.csv"):
        run(data=RayDMatrix(str(tmp_path / "a.csv"), "y"), num_actors=2)
    parts = [runtime.put(pd.DataFrame({"x": [1.0], "y": [label]})) for label in (0.0, np.inf)]
    with pytest.raises(ValueError, match="first in row 0 of partition 1"):
        run(data=RayDMatrix(parts, "y"), num_actors=2)


def test_queries_that_files_cut_are_told(runtime, tmp_path, caplog):
    (tmp_path / "a.csv").write_text("x,y,q\n1,0,first\n2,1,second\n")
    (tmp_path / "b.csv").write_text("x,y,q\n1,0,second\n2,1,third\n")
    with caplog.at_level(logging.WARNING, "counting"):
        run(data=RayDMatrix(str(tmp_path / "*.csv"), "y", qid="q"), num_actors=2)
    assert "1 of 3 queries have rows in files or partitions of several actors" in caplog.text
    whole = RayDMatrix(str(tmp_path / "*.csv"), "y", qid="q", distributed=False)
    assert sorted(len(set(whole.get_data(rank, 3)["qid"].tolist())) for rank in range(3)) == [1, 1, 1]


@pytest.mark.parametrize(
    ("other", "text"),
    [
        (np.zeros((3, 2)), "The dataset 'other' must have the 1 features of the training data, got 2"),
        ({"b": [1.0, 2.0]}, "It lacks 'a', and has 'b' beside them"),
    ],
)
def test_datasets_with_other_features_are_refused(runtime, other, text):
    import pandas as pd

    frame = pd.DataFrame({"a": [1.0, 2.0]})
    other = pd.DataFrame(other) if isinstance(other, dict) else other
    with pytest.raises(ValueError, match=text):
        run(data=RayDMatrix(frame, [0, 1]), sets=[(RayDMatrix(other, np.zeros(len(other))), "other")], num_actors=1)


@pytest.mark.parametrize(
    ("data", "extra", "text"),
    [
        (np.zeros((4, 0)), {}, "no columns"),
        (np.zeros((4, 2)), {"feature_names": ["a", "a"]}, "more than once: 'a'"),
        (np.zeros((4, 2)), {"feature_weights": [1.0]}, "`feature_weights` must have 2 entries"),
    ],
)
def test_columns_that_make_no_sense_are_named(runtime, data, extra, text):
    with pytest.raises(ValueError, match=text):
        run(data=RayDMatrix(data, np.zeros(4), **extra), num_actors=1)


def test_a_matrix_outlives_the_session_that_it_was_divided_in(fresh):
    matrix = RayDMatrix(np.arange(4.0).reshape(-1, 1), np.zeros(4))
    for _ in range(2):
        assert run(data=matrix, num_actors=2)[0].total_n == 4
        mltoolkit.shutdown()


def test_weights_of_queries_become_weights_of_rows(runtime):
    matrix = RayDMatrix(np.zeros((4, 1)), np.zeros(4), weight=[5.0, 7.0], qid=[9, 9, 2, 9])
    shard = matrix.get_data(0, num_actors=1)
    assert shard["qid"].tolist() == [2, 9, 9, 9]
    assert shard["weight"].tolist() == [7.0, 5.0, 5.0, 5.0]


def test_a_matrix_is_divided_anew_for_another_number_of_actors(runtime):
    matrix = RayDMatrix(np.arange(4.0).reshape(-1, 1), np.arange(4))
    assert matrix.get_data(0, num_actors=2)["label"].tolist() == [0, 2]
    assert matrix.get_data(0, num_actors=1)["label"].tolist() == [0, 1, 2, 3]
    fixed = RayDMatrix(np.zeros((4, 1)), num_actors=2)
    with pytest.raises(ValueError, match="num_actors=2"):
        fixed.load_data(3)
