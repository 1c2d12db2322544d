"""OptunaSearch: what it does beyond what all searchers do."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings

import pytest

from mltoolkit.tune.search import sample
from mltoolkit.tune.search.optuna import OptunaSearch
from mltoolkit.tune.search.optuna.optuna_search import DRIVER, TRIAL_ID

optuna = pytest.importorskip("optuna")
from optuna.trial import TrialState  # noqa: E402

SPACE = {"x": sample.uniform(-1, 1), "model": {"n": sample.randint(1, 9)}}


def make(space=SPACE, **kwargs):
    return OptunaSearch(space, **{"metric": "loss", "mode": "min", "seed": 0, **kwargs})


def states(search):
    return [trial.state for trial in search.study.trials]


def conditional(trial):
    kind = trial.suggest_categorical("kind", ["svm", "forest"])
    if kind == "svm":
        trial.suggest_float("svm/C", 1e-3, 1e3, log=True)
    else:
        trial.suggest_int("forest/depth", 1, 10)
    return {"constant": 5, "forest/jobs": 1}


def test_the_trials_are_those_of_a_bare_optuna_loop():
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=7))
    study.optimize(lambda t: t.suggest_float("x", -1, 1) ** 2 + t.suggest_int("model/n", 1, 8), n_trials=25)
    search = make(seed=7)
    for number in range(25):
        config = search.suggest(str(number))
        search.on_trial_complete(str(number), {"loss": config["x"] ** 2 + config["model"]["n"]})
    assert [t.params for t in search.study.trials] == [t.params for t in study.trials]


def test_the_quick_sampler_suggests_what_optunas_does(tmp_path):
    from mltoolkit.tune.search.optuna._quick_tpe import QuickTPESampler

    space = {
        "a": sample.uniform(-1, 1),
        "b": sample.loguniform(1e-4, 1),
        "c": sample.choice(["u", "v", "w"]),
        "d": sample.lograndint(1, 100),
        "e": sample.quniform(0, 1, 0.25),
        "f": sample.randint(-3, 4),
    }
    runs = []
    for own in ({"seed": 4}, {"seed": None, "sampler": optuna.samplers.TPESampler(seed=4)}):
        search = make(space, **own)
        suggested = []
        for number in range(60):
            suggested.append(search.suggest(str(number)))  # three run at once
            if number >= 2:
                config = suggested[number - 2]
                result = {"loss": config["a"] ** 2 + config["e"] + config["f"] ** 2, "training_iteration": 1}
                if number % 7 == 3:
                    search.on_trial_result(str(number - 2), result)
                    result = {"training_iteration": 2}  # becomes PRUNED
                search.on_trial_complete(str(number - 2), result, error=number % 11 == 5)
            if number == 40:
                search.save(tmp_path / "state.pkl")
                search.restore(tmp_path / "state.pkl")
        runs.append((suggested, type(search.study.sampler)))
    assert runs[0][0] == runs[1][0]
    assert [each[1] for each in runs] == [QuickTPESampler, optuna.samplers.TPESampler]


def test_states_and_intermediate_values():
    search = make()
    for number in range(5):
        search.suggest(str(number))
        for step in (1, 2, 2):
            search.on_trial_result(str(number), {"loss": number + step, "training_iteration": step})
    search.on_trial_complete("0", {"loss": 0.5, "training_iteration": 3})
    search.on_trial_complete("1", error=True)
    search.on_trial_complete("2", {"loss": float("nan"), "training_iteration": 3})
    search.on_trial_complete("3", {"training_iteration": 3})
    assert states(search) == [
        TrialState.COMPLETE,
        TrialState.FAIL,
        TrialState.FAIL,
        TrialState.PRUNED,
        TrialState.RUNNING,
    ]
    assert search.study.trials[0].intermediate_values == {1: 1.0, 2: 2.0}
    assert search.study.trials[3].value == 5.0


def test_several_objectives_and_one_that_is_observed():
    search = make(metric=["loss", "size", "speed"], mode=["min", "obs", "max"])
    search.suggest("a")
    search.on_trial_result("a", {"loss": 1, "speed": 2, "size": 3, "training_iteration": 1})
    search.on_trial_complete("a", {"loss": 1, "speed": 2, "size": 3})
    search.suggest("b")
    search.on_trial_complete("b", {"loss": 1, "size": 3})
    assert [d.name for d in search.study.directions] == ["MINIMIZE", "MAXIMIZE"]
    assert search.study.trials[0].values == [1, 2]
    assert search.study.trials[0].user_attrs["size"] == 3
    assert states(search) == [TrialState.COMPLETE, TrialState.FAIL]


def test_a_conditional_space_with_points():
    points = [{"kind": "forest", "forest": {"depth": 3}}, {"kind": "svm"}]
    search = make(conditional, points_to_evaluate=points)
    assert search.suggest("a") == {"kind": "forest", "forest": {"depth": 3, "jobs": 1}, "constant": 5}
    assert search.suggest("a") == {"kind": "forest", "forest": {"depth": 3, "jobs": 1}, "constant": 5}
    second = search.suggest("b")
    assert second["kind"] == "svm"
    assert set(second["svm"]) == {"C"}
    bad = make(lambda trial: 3)
    with pytest.raises(TypeError, match="None or a dict"):
        bad.suggest("a")
    assert states(bad) == [TrialState.FAIL]


def test_points_with_rewards_are_learned_not_tried():
    points = [{"x": 0.5, "model": {"n": 2}}, {"x": 0.25, "model": {"n": 3}}]
    search = make(points_to_evaluate=points, evaluated_rewards=[3.0, 2.0])
    search.suggest("a")
    assert [trial.value for trial in search.study.trials] == [3.0, 2.0, None]
    by_run = make(conditional, points_to_evaluate=[{"kind": "forest", "forest": {"depth": 3}}], evaluated_rewards=[1.0])
    by_run.suggest("a")
    assert by_run.study.trials[0].params == {"kind": "forest", "forest/depth": 3}
    with pytest.raises(ValueError, match="one value for each"):
        make(points_to_evaluate=points, evaluated_rewards=[1.0])
    search.add_evaluated_point(points[0], 1.5, intermediate_values=[4.0, 1.5])
    assert search.study.best_value == 1.5
    assert search.study.trials[-1].intermediate_values == {1: 4.0, 2: 1.5}
    search.add_evaluated_point(points[0], 9.0, error=True)
    assert states(search)[-1] == TrialState.FAIL


@pytest.mark.parametrize("name", ["CmaEsSampler", "GPSampler", "RandomSampler", "NSGAIISampler"])
def test_other_samplers(name):
    options = {"n_startup_trials": 2} if name in ("CmaEsSampler", "GPSampler") else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sampler = getattr(optuna.samplers, name)(seed=0, **options)
    search = make(sampler=sampler, seed=None)
    assert search.set_seed(3) is False
    for number in range(4):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            config = search.suggest(str(number))
        assert -1 <= config["x"] <= 1
        search.on_trial_complete(str(number), {"loss": config["x"] ** 2})
    assert type(search.study.sampler).__name__ == name


def test_an_existing_study_is_gone_on_with():
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
    study.optimize(lambda trial: trial.suggest_float("x", -1, 1), n_trials=3)
    search = make(study=study, mode="max", seed=None)
    search.suggest("a")
    search.on_trial_complete("a", {"loss": 7.0})
    assert search.study is study
    assert study.best_value == 7.0
    assert study.trials[3].user_attrs[TRIAL_ID] == "a"
    with pytest.raises(ValueError, match=r"to maximize, but mode='min'.*minimize"):
        make(study=study, seed=None).suggest("a")


@pytest.fixture
def storage(tmp_path):
    return optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(tmp_path / "journal.log")))


def test_a_storage_that_knows_more_than_the_saved_state(storage, tmp_path):
    search = make(storage=storage, study_name="sweep")
    first = search.suggest("a")
    search.save(tmp_path / "state.pkl")
    second = search.suggest("b")
    search.on_trial_complete("a", {"loss": 1.0})
    # The driver dies here; a new one is shown the same calls once more.
    copy = make(space=None, storage=storage, study_name="sweep")
    copy.restore(tmp_path / "state.pkl")
    assert copy.suggest("a") == first
    assert copy.suggest("b") == second
    copy.on_trial_complete("a", {"loss": 1.0})
    copy.on_trial_complete("b", {"loss": 2.0})
    copy.suggest("c")
    assert states(copy) == [TrialState.COMPLETE, TrialState.COMPLETE, TrialState.RUNNING]
    assert copy.study.trials[1].value == 2.0
    elsewhere = make(space=None)
    with pytest.raises(ValueError, match="same `storage`"):
        elsewhere.restore(tmp_path / "state.pkl")


def test_trials_that_a_dead_driver_left_running_fail(storage):
    import platform

    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    study = optuna.create_study(storage=storage, study_name="sweep")
    for driver in (f"{platform.node()}:{dead.stdout.strip()}", f"{platform.node()}:{os.getpid()}", "other:1"):
        study.ask().set_user_attr(DRIVER, driver)
    search = make(storage=storage, study_name="sweep")
    search.suggest("a")
    assert states(search) == [TrialState.FAIL, TrialState.RUNNING, TrialState.RUNNING, TrialState.RUNNING]


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"sampler": 3, "seed": None}, TypeError, "BaseSampler"),
        ({"study": 3, "seed": None}, TypeError, "optuna.Study"),
        ({"space": 3}, TypeError, "define-by-run"),
        ({"space": {"x": 3}}, TypeError, "x=3"),
        ({"seed": "one"}, TypeError, "seed"),
        ({"mode": ["obs"], "metric": ["loss"]}, ValueError, "at least one"),
    ],
)
def test_bad_arguments(options, error, text):
    with pytest.raises(error, match=text):
        make(**options)


def test_a_seed_is_not_ignored():
    with pytest.raises(ValueError, match="TPESampler\\(seed=3\\)"):
        make(sampler=optuna.samplers.TPESampler(), seed=3)
    with pytest.raises(ValueError, match="`storage` and `study`"):
        make(study=optuna.create_study(), storage=optuna.storages.InMemoryStorage(), seed=None)


def test_optunas_own_distributions_as_space():
    space = {
        "a": {"b": optuna.distributions.FloatDistribution(0, 1, step=0.5)},
        "c": optuna.distributions.IntDistribution(1, 2),
    }
    config = make(space).suggest("a")
    assert config["a"]["b"] in (0, 0.5, 1)
    assert config["c"] in (1, 2)
