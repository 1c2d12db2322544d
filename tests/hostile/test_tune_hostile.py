"""Bad input and bad luck of sweeps: an error that says what is wrong, or a sweep that finishes, and never a hang."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path

import psutil
import pytest
from helpers import end_family, run_script, start_script, wait_until

import mltoolkit as ray
from mltoolkit import tune
from mltoolkit.tune.error import StorageError
from mltoolkit.tune.execution import tune_controller
from mltoolkit.tune.execution.history import load_trials, read_results
from mltoolkit.tune.trainable import function_trainable

pytestmark = [pytest.mark.hostile, pytest.mark.timeout(120)]


@pytest.fixture
def sweep(runtime, tmp_path):
    """Run a sweep that keeps quiet and writes into the test's folder."""

    def run(trainable, param_space=None, *, run=None, **tune_config):
        config = tune.RunConfig(**{"name": "exp", "storage_path": str(tmp_path), "verbose": 0, **(run or {})})
        return tune.Tuner(
            trainable, param_space=param_space, tune_config=tune.TuneConfig(**tune_config), run_config=config
        ).fit()

    return run


def asha(**options):
    return tune.schedulers.ASHAScheduler(max_t=4, grace_period=1, **options)


def by_loss(**more):
    return {"metric": "loss", "mode": "min", "scheduler": asha(), **more}


# ---- what trials report -----------------------------------------------------------------------------------------------


def test_a_trial_that_raises_in_its_third_epoch(sweep):
    def trainable(config):
        for epoch in range(4):
            if config["bad"] and epoch == 2:
                raise ZeroDivisionError("third epoch")
            tune.report({"loss": epoch})

    results = sweep(trainable, {"bad": tune.grid_search([False, True, False])}, **by_loss())
    assert isinstance(results[1].error, ZeroDivisionError)
    assert [m["loss"] for m in read_results(results.experiment_path)[results[1].metrics["trial_id"]]] == [0, 1]
    text = Path(results[1].path, "error.txt").read_text()
    assert "third epoch" in text
    assert "in trainable" in text  # the user's own line
    assert results.num_terminated == 2


def test_a_trial_that_never_reports(sweep):
    assert sweep(lambda config: None)[0].error is None
    with pytest.raises(tune.TuneError, match=r"lambda_.*without reporting.*AsyncHyperBand.*'loss'"):
        sweep(lambda config: None, **by_loss())


def test_not_a_number_is_kept_and_never_the_best(sweep):
    def trainable(config):
        for _ in range(4):
            tune.report({"loss": float(config["loss"])})

    results = sweep(trainable, {"loss": tune.grid_search(["nan", "2", "inf", "1"])}, **by_loss())
    assert results.num_errors == 0
    assert results[0].metrics["loss"] != results[0].metrics["loss"]
    assert results.get_best_result().metrics["loss"] == 1
    assert [r.metrics["loss"] for r in tune.Tuner.restore(results.experiment_path).get_results()][1:] == [
        r.metrics["loss"] for r in results
    ][1:]


def test_a_metric_that_is_no_number(sweep):
    with pytest.raises(tune.TuneError, match=r"loss='low'.*str.*AsyncHyperBand"):
        sweep(lambda config: {"loss": "low"}, **by_loss())
    assert sweep(lambda config: {"loss": "low"})[0].metrics["loss"] == "low"
    result = sweep(lambda config: [1, 2])[0]
    assert "list" in str(result.error)
    assert "tune.report" in str(result.error)


def test_what_cannot_leave_the_process_is_named(sweep):
    def reports(config):
        tune.report({"loss": 1, "deep": {"guard": threading.Lock()}})

    def returns(config):
        return {"loss": 1, "guard": threading.Lock()}

    class Steps(tune.Trainable):
        def step(self):
            return {"loss": 1, "guard": threading.Lock()}

    for trainable in (reports, returns, Steps):
        error = sweep(trainable)[0].error
        assert "guard" in str(error), trainable
        assert "lock" in str(error)


def test_a_metric_that_no_trial_reports_ends_the_sweep(sweep):
    with pytest.raises(tune.TuneError, match=r"Trial lambda_\w+.*'loss'.*AsyncHyperBand.*reported: accuracy"):
        sweep(lambda config: {"accuracy": 1}, num_samples=20, **by_loss())


def test_a_metric_that_one_trial_forgets_fails_that_trial(sweep):
    def trainable(config):
        tune.report({"loss": 1} if config["i"] != 1 else {"lost": 1})

    space = {"i": tune.grid_search([0, 1, 2])}
    results = sweep(trainable, space, max_concurrent_trials=1, **by_loss())
    assert [r.error is None for r in results] == [True, False, True]
    assert "'loss'" in str(results[1].error)


def test_misspelt_options(sweep):
    with pytest.raises(TypeError, match="grace_perod"):
        tune.schedulers.ASHAScheduler(grace_perod=1)
    with pytest.raises(TypeError, match=r"num_sample.*num_samples"):
        tune.run(lambda config: 1, num_sample=3)
    with pytest.raises((TypeError, ValueError), match="asynchyperbnd"):
        sweep(lambda config: 1, scheduler="asynchyperbnd")
    with pytest.raises(ValueError, match="metric"):
        sweep(lambda config: 1, scheduler=asha())


@pytest.mark.parametrize("space", [[1, 2], "x", 7])
def test_a_search_space_that_is_none(sweep, space):
    with pytest.raises(TypeError, match="must be a dict"):
        sweep(lambda config: 1, space)


def test_an_empty_search_space_is_one_trial_per_sample(sweep):
    assert [r.config for r in sweep(lambda config: 1, {}, num_samples=2)] == [{}, {}]


def test_values_that_cannot_be_drawn_are_refused(sweep):
    for make in (
        lambda: tune.grid_search([]),
        lambda: tune.choice([]),
        lambda: tune.uniform(2, 1),
        lambda: tune.loguniform(0, 1),
    ):
        with pytest.raises((TypeError, ValueError)):
            sweep(lambda config: 1, {"x": make()})


def test_functions_of_a_search_space_that_raise_end_the_sweep(sweep):
    with pytest.raises(Exception, match="missing"):
        sweep(lambda config: 1, {"x": tune.sample_from(lambda config: config["missing"])})


# ---- disks ------------------------------------------------------------------------------------------------------------


def test_a_place_that_cannot_be_written(runtime, tmp_path):
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", "/proc/nowhere"):
        with pytest.raises(StorageError, match=f"cannot be kept in {place}.*storage_path"):
            tune.Tuner(lambda config: 1, run_config=tune.RunConfig(name="exp", storage_path=str(place))).fit()


@pytest.fixture
def small_disk(tmp_path):
    """A filesystem of half a megabyte."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"needs to mount a filesystem: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("how", ["function", "class", "reports"])
def test_a_full_disk_stops_the_sweep_and_leaves_it_to_be_gone_on_with(runtime, small_disk, tmp_path, how):
    def counted(config):
        start = 0
        if checkpoint := tune.get_checkpoint():
            start = int(Path(checkpoint.path, "i").read_text())
        for i in range(start + 1, 41):
            checkpoint = None
            if how == "function":
                work = Path(config["scratch"], str(os.getpid()))
                work.mkdir(exist_ok=True)
                (work / "i").write_text(str(i))
                (work / "large").write_bytes(b"x" * 30_000)
                checkpoint = tune.Checkpoint.from_directory(work)
            tune.report({"i": i, "text": "x" * (20 if how == "function" else 5_000)}, checkpoint=checkpoint)

    class Steps(tune.Trainable):
        def setup(self, config):
            self.i = 0

        def step(self):
            self.i += 1
            return {"i": self.i, "done": self.i == 40}

        def save_checkpoint(self, folder):
            Path(folder, "large").write_bytes(b"x" * 30_000)
            return {"i": self.i}

        def load_checkpoint(self, state):
            self.i = state["i"]

    trainable = Steps if how == "class" else counted
    (tmp_path / "scratch").mkdir()
    config = tune.RunConfig(
        name="exp",
        storage_path=str(small_disk),
        verbose=0,
        checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1) if how == "class" else None,
    )
    space = {"n": tune.grid_search([0, 1]), "scratch": str(tmp_path / "scratch")}
    with pytest.raises(tune.TuneError, match="No space left on device") as caught:
        tune.Tuner(trainable, param_space=space, run_config=config).fit()
    assert str(small_disk) in str(caught.value)
    reported = {
        t.trial_id: len(r)
        for t, r in zip(load_trials(small_disk / "exp"), read_results(small_disk / "exp").values(), strict=True)
    }
    assert sum(reported.values()) > 0

    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)  # room was made
    results = tune.Tuner.restore(small_disk / "exp", trainable).fit()
    assert [(r.config["n"], r.metrics["i"], r.error) for r in results] == [(0, 40, None), (1, 40, None)]
    kept = read_results(small_disk / "exp")
    assert all(len(kept[trial_id]) >= number for trial_id, number in reported.items())


def test_a_snapshot_or_definition_that_cannot_be_written_stops_the_sweep(sweep, monkeypatch):
    from mltoolkit.tune.execution import _definition, _snapshot

    def full(value, path):
        raise OSError(28, "No space left on device", str(path))

    for module in (_snapshot, _definition):
        with monkeypatch.context() as patch:
            patch.setattr(module, "dump_pickle", full)
            with pytest.raises(StorageError, match="No space left"):
                sweep(lambda config: 1)


def test_a_folder_that_is_deleted_while_the_sweep_runs(sweep, tmp_path):
    import shutil

    def trainable(config):
        for i in range(1000):
            if i == 3:
                shutil.rmtree(tmp_path / "exp", ignore_errors=True)
            tune.report({"i": i})

    with pytest.raises(tune.TuneError, match="exp"):
        sweep(trainable)


# ---- processes that die -----------------------------------------------------------------------------------------------


def killed_once(config):
    start = 0
    if checkpoint := tune.get_checkpoint():
        start = int(Path(checkpoint.path, "i").read_text())
    for i in range(start + 1, 5):
        if i == 3 and not os.path.exists(config["marker"]):
            Path(config["marker"]).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        Path("work").mkdir(exist_ok=True)
        Path("work/i").write_text(str(i))
        tune.report({"i": i, "start": start}, checkpoint=tune.Checkpoint.from_directory("work"))


def test_a_process_that_is_killed(sweep, tmp_path):
    space = {"marker": tune.grid_search([str(tmp_path / "never" / "made"), str(tmp_path / "a")])}
    (tmp_path / "never").mkdir()
    (tmp_path / "never" / "made").touch()
    results = sweep(killed_once, space)
    assert [r.error is None for r in results] == [True, False]
    assert "SIGKILL" in str(results[1].error)
    assert results[1].metrics["i"] == 2
    again = sweep(
        killed_once, {"marker": str(tmp_path / "b")}, run={"failure_config": tune.FailureConfig(max_failures=1)}
    )[0]
    assert (again.error, again.metrics["i"], again.metrics["start"]) == (None, 4, 2)
    assert "SIGKILL" in Path(again.path, "error.txt").read_text()


def test_a_process_that_ends_itself(sweep):
    error = sweep(lambda config: os._exit(7))[0].error
    assert "7" in str(error)
    error = sweep(lambda config: exit("enough"))[0].error
    assert "enough" in str(error)


def test_failures_without_end_are_tried_as_often_as_allowed(sweep, tally):
    counter = tally("tries")

    def trainable(config):
        counter.add()
        raise ValueError("always")

    result = sweep(trainable, run={"failure_config": tune.FailureConfig(max_failures=3)})[0]
    assert counter.count() == 4
    assert isinstance(result.error, ValueError)
    assert Path(result.path, "error.txt").read_text().count("Failure #") == 4


# ---- trials that do not end -------------------------------------------------------------------------------------------


def test_a_trial_that_ignores_being_stopped(sweep):
    """Its process is replaced; the others go on meanwhile. The grace that it has is the module's."""

    def trainable(config):
        function_trainable.STOP_GRACE_S = 0.3
        if config["i"]:
            return {"y": 1}
        while True:
            try:
                tune.report({"y": 0})
            except BaseException:
                pass

    results = sweep(trainable, {"i": tune.grid_search([0, 1, 2, 3])}, run={"stop": {"y": 0}}, max_concurrent_trials=1)
    assert [r.metrics["y"] for r in results] == [0, 1, 1, 1]
    assert results.num_errors == 0


def test_a_class_whose_cleanup_hangs_or_raises(sweep, gate, monkeypatch):
    monkeypatch.setattr(tune_controller, "_END_S", 0.5)
    never = gate("never")

    class Hanging(tune.Trainable):
        def step(self):
            return {"y": 1, "done": True}

        def cleanup(self):
            if self.config["raises"]:
                raise RuntimeError("in cleanup")
            never.wait(100)

    results = sweep(Hanging, {"raises": tune.grid_search([False, True, False])}, max_concurrent_trials=1)
    assert [r.error for r in results] == [None] * 3
    assert [r.metrics["y"] for r in results] == [1, 1, 1]


# ---- those who decide -------------------------------------------------------------------------------------------------


def test_a_searcher_that_gives_nothing_for_ever(sweep):
    class Silent(tune.search.Searcher):
        def suggest(self, trial_id):
            return None

        def on_trial_complete(self, trial_id, result=None, error=False):
            pass

    with pytest.raises(tune.TuneError, match=r"Silent gives no configuration"):
        sweep(lambda config: 1, search_alg=Silent(), num_samples=3)


def test_a_searcher_that_gives_nonsense_or_raises(sweep):
    class Wrong(tune.search.Searcher):
        def suggest(self, trial_id):
            return 7

    class Raising(tune.search.Searcher):
        def suggest(self, trial_id):
            raise ZeroDivisionError("in suggest")

    with pytest.raises(TypeError, match=r"Wrong.suggest must return a dict.*7"):
        sweep(lambda config: 1, search_alg=Wrong())
    with pytest.raises(ZeroDivisionError, match="in suggest"):
        sweep(lambda config: 1, search_alg=Raising())


def test_a_scheduler_that_decides_nonsense(sweep):
    class Confused(tune.schedulers.FIFOScheduler):
        def on_trial_result(self, controller, trial, result):
            return "PERHAPS"

    class Frozen(tune.schedulers.FIFOScheduler):
        def choose_trial_to_run(self, controller):
            return None

    class Repeating(tune.schedulers.FIFOScheduler):
        def choose_trial_to_run(self, controller):
            trials = controller.get_trials()
            return trials[0] if trials else None

    with pytest.raises(tune.TuneError, match=r"Confused.*'PERHAPS'.*CONTINUE"):
        sweep(lambda config: tune.report({"y": 1}), scheduler=Confused())
    with pytest.raises(tune.TuneError, match="Frozen lets nothing run"):
        sweep(lambda config: 1, scheduler=Frozen())
    with pytest.raises(tune.TuneError, match="Repeating.*choose_trial_to_run"):
        sweep(lambda config: 1, scheduler=Repeating(), num_samples=2)


HOOKS = ["setup", "on_trial_start", "on_trial_result", "on_trial_complete", "on_step_end", "on_experiment_end"]


@pytest.mark.parametrize("hook", HOOKS)
def test_a_callback_that_raises(sweep, hook):
    def raising(self, *args, **info):
        raise ZeroDivisionError("mine")

    broken = type("Broken", (tune.Callback,), {hook: raising})()
    with pytest.raises(tune.TuneError, match=f"(Broken.*{hook}|{hook}.*Broken)"):
        sweep(lambda config: 1, run={"callbacks": [broken]})


# ---- memory, threads, places ------------------------------------------------------------------------------------------


def test_a_large_closure_is_shared_by_all_trials(sweep, gate):
    """300 MB in a trainable of four trials at a time: once in shared memory, in no process of its own."""
    import numpy as np

    data = np.ones(300_000_000 // 8)
    there = [gate(f"there-{i}") for i in range(4)]

    def trainable(config):
        total = float(data[:: len(data) // 10].sum())
        there[config["i"]].open()
        for other in there:
            other.wait(60)
        full = psutil.Process().memory_full_info()
        return {"total": total, "own_mb": full.uss / 1e6}

    results = sweep(trainable, {"i": tune.grid_search([0, 1, 2, 3])})
    assert results.num_errors == 0, results.errors
    assert max(r.metrics["own_mb"] for r in results) < 200


def test_two_sweeps_in_two_threads(runtime, tmp_path):
    results, errors = {}, []

    def run(n):
        try:
            config = tune.RunConfig(storage_path=str(tmp_path), verbose=0)
            space = {"x": tune.grid_search([n, n + 1, n + 2])}
            results[n] = tune.Tuner(lambda config: {"y": config["x"]}, param_space=space, run_config=config).fit()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(n,)) for n in (10, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors
    assert {n: [r.metrics["y"] for r in grid] for n, grid in results.items()} == {10: [10, 11, 12], 20: [20, 21, 22]}


def test_a_sweep_in_a_task_and_in_a_trial(runtime, tmp_path):
    folder = str(tmp_path)

    def inner(config):
        grid = tune.Tuner(
            lambda config: {"y": config["x"]},
            param_space={"x": tune.grid_search([1, 2])},
            run_config=tune.RunConfig(name=f"inner{config['n']}", storage_path=folder, verbose=0),
        ).fit()
        return {"y": sum(r.metrics["y"] for r in grid)}

    assert ray.get(ray.remote(inner).remote({"n": 7}), timeout=60) == {"y": 3}
    # A trial keeps its CPU while it waits, so what it starts needs a bundle of its own.
    bundles = tune.PlacementGroupFactory([{"CPU": 1}, {"CPU": 1}])
    outer = tune.Tuner(
        tune.with_resources(inner, bundles),
        param_space={"n": tune.grid_search([0, 1, 2, 3, 4])},
        run_config=tune.RunConfig(name="outer", storage_path=folder, verbose=0),
    ).fit()
    assert [r.metrics["y"] for r in outer] == [3] * 5


def test_one_tuner_can_be_fitted_twice(runtime, tmp_path):
    tuner = tune.Tuner(
        lambda config: {"y": config["x"]},
        param_space={"x": tune.uniform(0, 1)},
        tune_config=tune.TuneConfig(num_samples=3, metric="y", mode="max", seed=1, scheduler=asha()),
        run_config=tune.RunConfig(storage_path=str(tmp_path), verbose=0),
    )
    first, second = tuner.fit(), tuner.fit()
    assert [r.metrics["y"] for r in first] == [r.metrics["y"] for r in second]
    assert first.experiment_path != second.experiment_path


# ---- Ctrl-C, and other ways to start a program ------------------------------------------------------------------------

INTERRUPTED = """
import os, sys
from pathlib import Path
import mltoolkit as ray
from mltoolkit import tune
from mltoolkit.tune.execution import tune_controller

kind, folder = sys.argv[1], Path(sys.argv[2])
tune_controller._DRAIN_S = float(sys.argv[3])

def note(word):
    with open(folder / "log", "a") as file:
        file.write(word + "\\n")

def function(config):
    for i in range(1, 100_000):
        note(f"{config['n']}:{i}")
        tune.report({"i": i})

class Steps(tune.Trainable):
    def setup(self, config):
        self.i = 0

    def step(self):
        self.i += 1
        note(f"{self.config['n']}:{self.i}")
        if (folder / "enough").exists():
            return {"i": self.i, "done": True}
        return {"i": self.i}

    def save_checkpoint(self, folder):
        return {"i": self.i}

    def load_checkpoint(self, state):
        self.i = state["i"]

    def cleanup(self):
        note("cleanup")

def silent(config):
    note(f"{config['n']}:silent")
    while True:
        pass

ray.init(num_cpus=2)
results = tune.Tuner(
    {"function": function, "class": Steps, "silent": silent}[kind],
    param_space={"n": tune.grid_search([0, 1, 2])},
    run_config=tune.RunConfig(name="exp", storage_path=str(folder), verbose=0),
).fit()
print("GRID", len(results), results.num_errors, flush=True)
"""


def interrupt(tmp_path, kind, times=1, group=False, drain_s=5.0):
    """Run a sweep, send it SIGINT once its trials are under way, and return what became of it."""
    driver = start_script(INTERRUPTED, tmp_path, kind, str(tmp_path), str(drain_s), start_new_session=group)
    try:
        log = tmp_path / "log"
        wait_until(lambda: log.exists() and {"0", "1"} <= {w[0] for w in log.read_text().split()}, 30, "trials run")
        for _ in range(times):
            os.killpg(driver.pid, signal.SIGINT) if group else driver.send_signal(signal.SIGINT)
            if times > 1:  # two signals at once are one
                wait_until(lambda: "SIGINT" not in _pending_signals(driver.pid), 10)
        out, err = driver.communicate(timeout=30)
    except BaseException:
        end_family(driver.pid)
        driver.communicate()
        raise
    return out, err, driver.returncode


def _pending_signals(pid):
    status = Path(f"/proc/{pid}/status")
    masks = [line.split()[1] for line in status.read_text().splitlines() if line.startswith(("SigPnd", "ShdPnd"))]
    return "SIGINT" if any(int(mask, 16) & 1 << (signal.SIGINT - 1) for mask in masks) else ""


def test_ctrl_c_once_stops_gracefully_and_keeps_everything(runtime, tmp_path):
    out, err, code = interrupt(tmp_path, "class", group=True)
    assert (out.split(), code) == (["GRID", "2", "0"], 0), err
    assert "Traceback" not in err
    words = (tmp_path / "log").read_text().split()
    kept = {t.config["n"]: t for t in load_trials(tmp_path / "exp")}
    for n, trial in kept.items():
        steps = [int(w.split(":")[1]) for w in words if w.startswith(f"{n}:")]
        assert [r["i"] for r in read_results(tmp_path / "exp")[trial.trial_id]] == steps  # each step, the last included
        assert trial.checkpoints[-1][1]["i"] == steps[-1]  # and saved there
    assert words.count("cleanup") == 2

    (tmp_path / "enough").touch()
    results = tune.Tuner.restore(tmp_path / "exp").fit()
    ends = {r.config["n"]: r.metrics["i"] for r in results}
    assert ends == {**{n: t.last_result["i"] + 1 for n, t in kept.items()}, 2: 1}
    assert {r.config["n"]: r.metrics["training_iteration"] for r in results} == ends


def test_ctrl_c_while_trials_compute_without_reporting(tmp_path):
    out, err, code = interrupt(tmp_path, "silent", drain_s=0.5)
    assert (out.split(), code) == (["GRID", "2", "0"], 0), err


def test_ctrl_c_twice_stops_at_once(tmp_path):
    out, err, _ = interrupt(tmp_path, "silent", times=2, drain_s=600)
    assert "GRID" in out or "KeyboardInterrupt" in err
    assert {t.status for t in load_trials(tmp_path / "exp")} <= {"RUNNING", "PENDING"}


def test_results_that_come_in_while_the_sweep_is_interrupted_are_decided_about_later(runtime, tmp_path):
    """The last result of a trial that Ctrl-C found computing meets its criterion: it is not run one step more."""

    class Steps(tune.Trainable):
        def step(self):
            return {"y": self.iteration}

        def save_checkpoint(self, folder):
            return {}

        def load_checkpoint(self, state):
            pass

    class Interrupt(tune.Callback):
        def __init__(self):
            self.seen = 0

        def on_trial_result(self, iteration, trials, trial, result, **info):
            self.seen += 1
            if self.seen == 3:
                os.kill(os.getpid(), signal.SIGINT)

    config = tune.RunConfig(
        name="exp",
        storage_path=str(tmp_path),
        verbose=0,
        stop={"training_iteration": 4},
        callbacks=[Interrupt()],
    )
    results = tune.Tuner(Steps, run_config=config).fit()
    assert results[0].metrics["training_iteration"] == 4
    restored = tune.Tuner.restore(tmp_path / "exp").fit()
    assert restored[0].metrics["training_iteration"] == 4
    assert len(read_results(tmp_path / "exp")[restored[0].metrics["trial_id"]]) == 4


SMALL = """
import tempfile
import mltoolkit as ray
from mltoolkit import tune

ray.init(%s)

def function(config):
    checkpoint = tune.get_checkpoint()
    for i in range(2):
        tune.report({"y": config["x"] + i})

class Steps(tune.Trainable):
    def step(self):
        return {"y": self.config["x"] + self.iteration, "done": self.iteration == 1}

for trainable in (function, Steps):
    results = tune.Tuner(
        trainable,
        param_space={"x": tune.grid_search([1, 2, 3])},
        tune_config=tune.TuneConfig(metric="y", mode="max"),
        run_config=tune.RunConfig(storage_path=tempfile.mkdtemp(), verbose=0),
    ).fit()
    assert not results.errors, results.errors
    print(*(r.metrics["y"] for r in results), results.get_best_result().config)
"""


@pytest.mark.parametrize(
    ("init", "env"),
    [("local_mode=True", {}), ("num_cpus=1", {"MLTOOLKIT_START": "spawn"})],
    ids=["local mode", "spawned processes"],
)
def test_a_small_sweep_without_a_main_guard(tmp_path, init, env):
    out = run_script(SMALL % init, tmp_path, env=env).stdout
    assert out.splitlines() == ["2 3 4 {'x': 3}"] * 2
