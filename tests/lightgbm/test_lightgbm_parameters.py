"""Parameters of LightGBM, as all ranks are told them."""

from __future__ import annotations

import pytest

from mltoolkit.lightgbm import RayParams
from mltoolkit.lightgbm._parameters import resolve_parameters


def resolve(params, rounds=10, num_actors=2, **kwargs):
    return resolve_parameters(params, RayParams(num_actors=num_actors), rounds, **kwargs)


@pytest.mark.parametrize(
    ("given", "learner"),
    [
        ({}, "data"),
        ({"tree_learner": "voting"}, "voting"),
        ({"tree": "voting_parallel"}, "voting"),
        ({"tree_learner_type": "data_parallel"}, "data"),
    ],
)
def test_tree_learners_and_their_other_names(given, learner):
    values = resolve(given).values
    assert values["tree_learner"] == learner
    assert not {"tree", "tree_learner_type"} & set(values)


@pytest.mark.parametrize("learner", ["serial", "dat", "feature", "feature_parallel"])
def test_learners_that_do_not_distribute(learner):
    with pytest.raises(ValueError, match="'data' or 'voting', got"):
        resolve({"tree_learner": learner})


def test_serial_is_what_one_actor_does():
    assert resolve({"tree_learner": "serial"}, num_actors=1).values["tree_learner"] == "data"


@pytest.mark.parametrize(
    "given",
    [{"machines": "10.0.0.1:12400"}, {"workers": "a:1"}, {"num_machines": 3}, {"mlist": "file"}],
)
def test_what_the_actors_settle_themselves(given):
    with pytest.raises(ValueError, match="cannot be set"):
        resolve(given)


def test_rounds_by_any_name_win_over_the_argument():
    own = resolve({"n_estimators": 7, "objective": "binary"})
    assert own.num_boost_round == 7
    assert "n_estimators" not in own.values
    assert resolve({}).num_boost_round == 10


@pytest.mark.parametrize("rounds", [0, -3, 2.5, True, "9"])
def test_rounds_must_be_a_number(rounds):
    with pytest.raises(ValueError, match="integer >= 1"):
        resolve({}, rounds)


def test_network_settings_are_ours():
    own = resolve({"time_out": 2, "local_port": 12400})
    assert (own.timeout_s, own.first_port) == (120.0, 12400)
    assert not {"time_out", "local_port", "local_listen_port"} & set(own.values)


def test_early_stopping_by_any_name():
    own = resolve({"n_iter_no_change": 5, "first_metric_only": True, "early_stopping_min_delta": 0.1})
    assert own.early_stopping == {
        "stopping_rounds": 5, "first_metric_only": True, "verbose": False, "min_delta": 0.1,
    }  # fmt: skip
    assert resolve({"early_stopping_round": 5}, early_stopping_rounds=3).early_stopping["stopping_rounds"] == 3
    assert resolve({"early_stopping_round": 0}).early_stopping is None


def test_metrics_are_those_of_the_call_and_of_the_parameters():
    assert resolve({"metric": "l1"}, metrics=["l2", "l1"]).values["metric"] == ["l2", "l1"]
    assert "metric" not in resolve({}).values


def test_the_layout_of_histograms_is_the_users_if_there_is_one():
    assert not {"force_col_wise", "force_row_wise"} & set(resolve({}).values)
    assert resolve({"force_row_wise": True, "force_col_wise": False}).values["force_row_wise"] is True
    assert "force_col_wise" not in resolve({"force_row_wise": True, "force_col_wise": False}).values


def test_more_threads_than_cpus():
    with pytest.raises(ValueError, match="more than `cpus_per_actor`"):
        resolve_parameters({"n_jobs": 4}, RayParams(num_actors=2, cpus_per_actor=2), 10)


def test_quiet_unless_asked():
    assert resolve({}).values["verbosity"] == -1
    assert resolve({"verbose": 1}).values["verbosity"] == 1


def test_forests_begin_anew():
    assert resolve({}).resumable
    assert not resolve({"boosting_type": "rf"}).resumable


def test_what_the_user_gave_stays_as_it_was():
    params = {"n_estimators": 7, "tree": "voting"}
    own = resolve(params)
    assert params == own.given == {"n_estimators": 7, "tree": "voting"}
