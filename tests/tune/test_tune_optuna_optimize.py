"""`mltoolkit.tune.optuna.optimize`: an unmodified objective in worker processes, the study in the driver."""

from __future__ import annotations

import os
import signal
import time

import helpers
import pytest

from mltoolkit.tune.optuna import RETRY_OF, optimize

optuna = pytest.importorskip("optuna")
from optuna.trial import TrialState  # noqa: E402


@pytest.fixture(autouse=True)
def quiet():
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(before)


def states(study):
    return [trial.state for trial in study.trials]


def bowl(trial):
    x = trial.suggest_float("x", -5, 5)
    n = trial.suggest_int("n", 1, 8, log=True)
    kind = trial.suggest_categorical("kind", ["a", "b"])
    return x**2 + n + (kind == "b")


def test_one_worker_does_what_optuna_does(runtime):
    studies = [optuna.create_study(sampler=optuna.samplers.TPESampler(seed=3)) for _ in range(2)]
    studies[0].optimize(bowl, n_trials=15)
    optimize(studies[1], bowl, n_trials=15, n_jobs=1)
    ours, theirs = ([(t.number, t.params, t.value) for t in study.trials] for study in studies)
    assert ours == theirs


def test_n_trials_is_the_total_and_the_work_runs_elsewhere(runtime):
    def objective(trial):
        trial.set_user_attr("pid", os.getpid())
        return trial.suggest_float("x", 0, 1)

    study = optuna.create_study()
    optimize(study, objective, n_trials=11, n_jobs=3)
    assert states(study) == [TrialState.COMPLETE] * 11
    pids = {trial.user_attrs["pid"] for trial in study.trials}
    assert os.getpid() not in pids
    assert 1 <= len(pids) <= 3


def test_everything_a_trial_offers(runtime):
    def objective(trial):
        assert isinstance(trial, optuna.Trial)
        x = trial.suggest_float("x", 0, 1, step=0.25)
        assert trial.suggest_float("x", 0, 1, step=0.25) == x
        assert trial.params == {"x": x}
        assert list(trial.distributions) == ["x"]
        trial.set_user_attr("size", {"a": [1, 2]})
        assert trial.user_attrs == {"size": {"a": [1, 2]}}
        assert trial.datetime_start is not None
        assert trial.study.study_name == "named"
        assert trial.study.direction == optuna.study.StudyDirection.MINIMIZE
        assert len(trial.study.trials) == trial.number + 1
        with pytest.raises(RuntimeError, match="driver runs"):
            trial.study.optimize(lambda t: 0)
        with pytest.raises(AttributeError, match="suggest_float"):
            trial.suggest_flaot("y", 0, 1)
        with pytest.raises(ValueError, match="low <= high|greater than|larger"):
            trial.suggest_float("z", 2, 1)
        return x

    study = optuna.create_study(study_name="named")
    optimize(study, objective, n_trials=3, n_jobs=1)
    assert states(study) == [TrialState.COMPLETE] * 3
    assert study.trials[2].user_attrs == {"size": {"a": [1, 2]}}


def test_pruning_follows_the_studys_pruner(runtime):
    def objective(trial):
        x = trial.suggest_float("x", 0, 10)
        for step in range(4):
            trial.report(x, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return x

    study = optuna.create_study(pruner=optuna.pruners.ThresholdPruner(upper=5))
    for x in (1, 9, 4):
        study.enqueue_trial({"x": x})
    optimize(study, objective, n_trials=3, n_jobs=1)
    assert states(study) == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.COMPLETE]
    assert study.trials[1].intermediate_values == {0: 9.0}
    assert study.trials[1].value == 9.0


def test_an_error_fails_its_trial_and_is_raised(runtime):
    class OddError(Exception):
        def __init__(self, number, detail):  # does not survive pickling by itself
            super().__init__(f"odd {number}")

    def objective(trial):
        if trial.number == 2:
            raise ZeroDivisionError("two") if trial.study.user_attrs["kind"] == "plain" else OddError(2, "x")
        return trial.suggest_float("x", 0, 1)

    for kind, expected in (("plain", ZeroDivisionError), ("odd", RuntimeError)):
        study = optuna.create_study()
        study.set_user_attr("kind", kind)
        with pytest.raises(expected, match="two|odd 2") as caught:
            optimize(study, objective, n_trials=9, n_jobs=1)
        assert states(study) == [TrialState.COMPLETE, TrialState.COMPLETE, TrialState.FAIL]
        assert any("in objective" in note for note in caught.value.__notes__)

    study = optuna.create_study()
    study.set_user_attr("kind", "plain")
    optimize(study, objective, n_trials=5, n_jobs=1, catch=ArithmeticError)
    assert states(study).count(TrialState.FAIL) == 1
    assert len(study.trials) == 5


def test_values_that_optuna_does_not_take_fail_the_trial(runtime):
    values = [float("nan"), None, "word", (1.0, 2.0), 3.0]
    study = optuna.create_study()
    optimize(study, lambda trial: values[trial.number], n_trials=5, n_jobs=1)
    assert states(study) == [TrialState.FAIL] * 4 + [TrialState.COMPLETE]


def test_several_objectives(runtime):
    def objective(trial):
        x = trial.suggest_float("x", 0, 1)
        return x, 1 - x

    study = optuna.create_study(directions=["minimize", "maximize"])
    optimize(study, objective, n_trials=6, n_jobs=2)
    assert all(trial.values == [trial.params["x"], 1 - trial.params["x"]] for trial in study.trials)


def test_a_killed_workers_trial_fails_and_is_tried_once_more(runtime):
    def objective(trial):
        x = trial.suggest_float("x", 0, 1)
        if trial.number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return x

    study = optuna.create_study()
    optimize(study, objective, n_trials=6, n_jobs=1)
    assert states(study) == [TrialState.COMPLETE, TrialState.FAIL] + [TrialState.COMPLETE] * 4
    assert study.trials[2].params == study.trials[1].params
    assert study.trials[2].user_attrs == {RETRY_OF: 1}


def test_an_objective_that_always_kills_its_worker_ends(runtime):
    def objective(trial):
        trial.suggest_float("x", 0, 1)
        os._exit(7)

    study = optuna.create_study()
    optimize(study, objective, n_trials=4, n_jobs=2)
    assert states(study) == [TrialState.FAIL] * 4


def test_stop_from_a_callback_and_from_the_objective(runtime):
    seen = []

    def stop_at_three(study, trial):
        seen.append(trial.number)
        if len(seen) == 3:
            study.stop()

    study = optuna.create_study()
    optimize(study, bowl, n_jobs=1, callbacks=[stop_at_three])
    assert seen == [0, 1, 2]
    assert states(study) == [TrialState.COMPLETE] * 3

    def objective(trial):
        if trial.number == 4:
            trial.study.stop()
        return 0.0

    optimize(study, objective, n_jobs=1)
    assert len(study.trials) == 5


def test_timeout_starts_no_further_trial(runtime, gate):
    started, go = gate("started"), gate("go")

    def objective(trial):
        started.open()
        go.wait()
        return 1.0

    def open_later():
        started.wait()
        time.sleep(0.2)  # past the time-out
        go.open()

    import threading

    thread = threading.Thread(target=open_later)
    thread.start()
    study = optuna.create_study()
    optimize(study, objective, n_jobs=1, timeout=0.15)
    thread.join()
    assert states(study) == [TrialState.COMPLETE]


def test_a_callback_that_raises_leaves_no_running_trial(runtime):
    def fail(study, trial):
        raise KeyError("callback")

    study = optuna.create_study()
    with pytest.raises(KeyError, match="callback"):
        optimize(study, bowl, n_trials=8, n_jobs=3, callbacks=[fail])
    assert TrialState.RUNNING not in states(study)
    assert TrialState.COMPLETE in states(study)


def test_storage_is_touched_by_the_driver_alone(runtime, tmp_path):
    study = optuna.create_study(storage=f"sqlite:///{tmp_path}/study.db")
    optimize(study, bowl, n_trials=4, n_jobs=2)
    again = optuna.load_study(study_name=study.study_name, storage=f"sqlite:///{tmp_path}/study.db")
    assert states(again) == [TrialState.COMPLETE] * 4


def test_heartbeats_of_a_storage_that_expects_them(runtime, tmp_path):
    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path}/study.db", heartbeat_interval=60)
    study = optuna.create_study(storage=storage)
    beats = []
    record = storage.record_heartbeat
    storage.record_heartbeat = lambda trial_id: (beats.append(trial_id), record(trial_id))
    optimize(study, lambda trial: 1.0, n_trials=2, n_jobs=1)
    assert len(set(beats)) == 2


def test_an_objective_that_cannot_be_loaded_says_so(runtime):
    class Stubborn:
        def __reduce__(self):
            return _refuse, ()

        def __call__(self, trial):
            return 0.0

    study = optuna.create_study()
    with pytest.raises(RuntimeError, match="(?s)could not be loaded.*not here"):
        optimize(study, Stubborn(), n_trials=3, n_jobs=1)
    assert study.trials == []


def _refuse():
    raise OSError("not here")


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"n_trials": -1}, ValueError, "n_trials"),
        ({"n_jobs": 0}, ValueError, "n_jobs"),
        ({"timeout": -1}, ValueError, "timeout"),
        ({"catch": (3,)}, TypeError, "catch"),
        ({"resources": 3}, TypeError, "resources"),
        ({"objective": 3}, TypeError, "objective"),
        ({"study": 3}, TypeError, "study"),
    ],
)
def test_bad_arguments(change, error, text):
    arguments = {"study": optuna.create_study(), "objective": bowl, "n_trials": 1, **change}
    with pytest.raises(error, match=text):
        optimize(**arguments)


def test_resources_that_no_node_has(runtime):
    study = optuna.create_study()
    with pytest.raises(runtime.exceptions.RayError):
        optimize(study, bowl, n_trials=1, n_jobs=1, resources={"CPU": 999})
    assert study.trials == []


def test_ctrl_c_leaves_no_running_trial(tmp_path):
    process = helpers.start_script(
        """
        import optuna, time, sys
        from mltoolkit.tune.optuna import optimize

        study = optuna.create_study()

        def objective(trial):
            trial.suggest_float("x", 0, 1)
            if trial.number > 2:
                print("going", flush=True)
                time.sleep(60)
            return 1.0

        try:
            optimize(study, objective, n_jobs=2)
        except KeyboardInterrupt:
            print("STATES", sorted({t.state.name for t in study.trials}), flush=True)
        """,
        tmp_path,
    )
    try:
        for line in process.stdout:
            if "going" in line:
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    finally:
        helpers.end_family(process.pid)
    assert "STATES ['COMPLETE', 'FAIL']" in out, (out, err)
