"""Nothing lost: drivers that die at any point, and what is left of their sweeps.

A sweep that was killed and restored ends as one that was left in peace: same trials, same configurations, same decisions.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections import Counter
from pathlib import Path

import pytest
import restored_sweeps
from helpers import run_script, start_script, wait_until

from mltoolkit import tune
from mltoolkit.train._trust import UntrustedFileError
from mltoolkit.tune.execution.history import load_trials, read_results
from mltoolkit.tune.execution.journal import FILE_NAME, read_events

pytestmark = pytest.mark.usefixtures("runtime")

KILLS = [
    "function@on_trial_start:1",
    "function@on_trial_result:7",
    "function@on_checkpoint:9!",
    "class@on_trial_complete:2",
    "class@on_trial_result:20!",
    "concurrent@on_trial_result:12",
    "optuna@on_trial_result:20",
    "asha@on_trial_result:13!",
    "hyperband@on_checkpoint:13!",
    "pbt@on_trial_result:16",  # the last of its generation, upon which all are perturbed
]  # with "!": behind a fresh snapshot; otherwise all is replayed from the first


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Folders of experiments whose drivers killed themselves: one program that forks a driver for each."""
    folder = tmp_path_factory.mktemp("killed")
    source = f"import restored_sweeps; restored_sweeps.main({str(folder)!r}, *{KILLS!r})"
    path = os.pathsep.join([str(Path(restored_sweeps.__file__).parent), str(Path(__file__).parents[2])])
    run_script(source, folder, env={"PYTHONPATH": path}, timeout=120)
    return folder


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What becomes of a case that is left in peace; run once for each case."""
    known = {}

    def run(case):
        if case not in known:
            known[case] = summary(restored_sweeps.make(case, tmp_path_factory.mktemp(case)).fit())
        return known[case]

    return run


def summary(results):
    """What must be the same, however often the driver died."""
    return [
        ({k: v for k, v in r.config.items() if k != "log"}, r.metrics["i"], r.metrics["y"], r.error) for r in results
    ]


def executions(folder):
    log = Path(folder, "executions")
    return Counter(line.split()[1] for line in log.read_text().splitlines()) if log.exists() else Counter()


@pytest.mark.parametrize("kill", KILLS)
def test_a_killed_sweep_goes_on_as_if_nothing_had_been(killed, undisturbed, kill, tmp_path):
    case = kill.partition("@")[0]
    folder = killed / kill.replace(":", "-")
    before = {t.trial_id: t for t in load_trials(folder / "exp")}
    finished = [t for t in before.values() if t.is_finished()]
    executed = executions(folder)
    assert len(finished) < len(undisturbed(case)), "the driver was to die in the middle"

    # With a torn line on top, and from another place than where it was written.
    moved = tmp_path / "elsewhere"
    shutil.copytree(folder / "exp", moved)
    shutil.rmtree(folder / "exp")
    with open(moved / FILE_NAME, "ab") as file:
        file.write(b'{"event": "result", "trial_id": "')
    assert tune.Tuner.can_restore(moved)
    results = tune.Tuner.restore(str(moved)).fit()

    assert summary(results) == undisturbed(case)
    assert all(r.path.startswith(str(moved)) for r in results)
    for trial in finished:  # not run again
        number = executions(folder)[str(trial.config["x"])] - executed[str(trial.config["x"])]
        assert number == 0
        assert len(read_results(moved)[trial.trial_id]) == trial.last_result["training_iteration"]
    ids = [r.metrics["trial_id"] for r in results]
    assert set(before) <= set(ids)
    assert len(set(ids)) == len(ids)

    # Once more: everything is finished, nothing runs.
    size = (moved / FILE_NAME).stat().st_size
    again = tune.Tuner.restore(str(moved)).fit()
    assert summary(again) == undisturbed(case)
    added = [e["event"] for e in read_events(moved, size)]
    assert added == ["sweep"]


def drivers(folder, source):
    """Run a program that can import the sweeps, and kill drivers in it: ``die(sweep)`` forks one."""
    lead = f"""
import os, signal
from pathlib import Path
import restored_sweeps
from mltoolkit import tune

folder = Path({str(folder)!r})

def die(kill, sweep):
    pid = os.fork()
    if not pid:
        os.environ[restored_sweeps.KILL] = kill
        sweep()
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
"""
    path = os.pathsep.join([str(Path(restored_sweeps.__file__).parent), str(Path(__file__).parents[2])])
    return run_script(lead + source, folder, env={"PYTHONPATH": path})


def test_a_driver_that_dies_again_and_again(tmp_path, undisturbed):
    """Restored at once, while processes of the dead driver may still be there, and with each trial's checkpoint used."""
    source = """
die("on_trial_result:8", lambda: restored_sweeps.make("function", folder).fit())
die("on_trial_result:1", lambda: tune.Tuner.restore(folder / "exp").fit())
die("on_checkpoint:4", lambda: tune.Tuner.restore(folder / "exp", restored_sweeps.function).fit())
"""
    drivers(tmp_path, source)
    assert summary(tune.Tuner.restore(tmp_path / "exp").fit()) == undisturbed("function")
    starts = [line.split()[1:] for line in (tmp_path / "executions").read_text().splitlines()]
    # The second trial had reported and saved thrice, then once more, then its fifth time; the third one thrice.
    assert [int(i) for _, i in starts] == [0, 0, 3, 4, 0, 3, 0]
    assert not list(tmp_path.glob("exp/**/.incoming-*"))
    assert not list(tmp_path.glob("exp/.seen-*"))


ENDLESS = """
import sys
import mltoolkit as ray
from pathlib import Path
from mltoolkit import tune

folder = Path(sys.argv[1])

def trainable(config):
    start = 0
    if checkpoint := tune.get_checkpoint():
        start = int(Path(checkpoint.path, "i").read_text())
    for i in range(start + 1, 70):
        with open(folder / f"reported-{config['n']}", "a") as file:
            file.write(f"{i}\\n")
        Path("work").mkdir(exist_ok=True)
        Path("work/i").write_text(str(i))
        tune.report({"i": i}, checkpoint=tune.Checkpoint.from_directory("work") if i % 3 == 0 else None)

ray.init(num_cpus=2)
keep = tune.CheckpointConfig(num_to_keep=1)
config = tune.RunConfig(name="exp", storage_path=str(folder), verbose=0, checkpoint_config=keep)
tune.Tuner(trainable, param_space={"n": tune.grid_search([0, 1, 2])}, run_config=config).fit()
"""


def test_drivers_killed_from_outside_at_random_moments(tmp_path):
    """Each report lies on disk before its trial goes on; no moment of death loses one."""
    moments = random.Random(5)
    for round_ in range(2):
        folder = tmp_path / str(round_)
        folder.mkdir()
        driver = start_script(ENDLESS, folder, str(folder))
        try:
            wanted = moments.randrange(20, 160)
            journal = folder / "exp" / FILE_NAME
            wait_until(lambda n=wanted, j=journal: j.exists() and j.read_bytes().count(b'"event": "result"') >= n, 30)
        finally:
            driver.send_signal(signal.SIGKILL)
            driver.communicate()
        # Of what a trial has begun to report, all but the last one is on disk.
        begun = {int(p.name.split("-")[1]): p.read_text().split() for p in folder.glob("reported-*")}
        kept = {t.config["n"]: read_results(folder / "exp")[t.trial_id] for t in load_trials(folder / "exp")}
        for n, reports in begun.items():
            assert len(reports) - len(kept[n]) in (0, 1)
            assert [str(r["i"]) for r in kept[n]] == reports[: len(kept[n])]
        results = tune.Tuner.restore(folder / "exp").fit()
        assert [(r.config["n"], r.metrics["i"], r.metrics["training_iteration"]) for r in results] == [
            (n, 69, 69) for n in range(3)
        ]


# What restoring can be told. Here a callback ends the sweep with an error, which leaves the same journal.


class Fuse(tune.Callback):
    """Ends the sweep at the n-th result, unless it has been lit before."""

    def __init__(self, path, number):
        self.path, self.left = str(path), number

    def on_trial_result(self, iteration, trials, trial, result, **info):
        self.left -= 1
        if self.left == 0 and not os.path.exists(self.path):
            Path(self.path).touch()
            raise RuntimeError("fuse")


def steady(config):
    with open(config["log"], "a") as file:
        file.write(f"{config['x']}\n")
    for i in range(1, 4):
        if config["x"] == 1 and i == 2 and not os.path.exists(config["mended"]):
            raise ValueError("not mended")
        tune.report({"i": i})


def break_off(folder):
    """Run a sweep over x in 0..4 whose driver stops at the 6th result: 0 has finished, 1 has failed, 2 runs."""
    space = {"x": tune.grid_search([0, 1, 2, 3, 4]), "log": str(folder / "log"), "mended": str(folder / "mended")}
    tuner = tune.Tuner(
        steady,
        param_space=space,
        tune_config=tune.TuneConfig(max_concurrent_trials=1, metric="i", mode="max"),
        run_config=tune.RunConfig(
            name="exp", storage_path=str(folder), verbose=0, callbacks=[Fuse(folder / "fuse", 6)]
        ),
    )
    with pytest.raises(tune.TuneError, match="fuse"):
        tuner.fit()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Where a sweep is broken off once; ``kept`` is what it left."""
    return tmp_path_factory.mktemp("broken-off")


@pytest.fixture
def broken_off(place, runtime):
    """What `break_off` leaves, at the place where it was left."""
    kept, folder = place / "kept", place / "sweep"
    shutil.rmtree(folder, ignore_errors=True)
    if not kept.exists():
        break_off(folder)
        folder.rename(kept)
    shutil.copytree(kept, folder)
    return folder / "exp"


def state(results):
    return [(r.config["x"], r.metrics.get("i") if r.metrics else None, r.error is None) for r in results]


ALL_BUT_THE_FAILED = [(0, 3, True), (1, 1, False), (2, 3, True), (3, 3, True), (4, 3, True)]
ALL = [(x, 3, True) for x in range(5)]


def run_again(folder, **how):
    """Restore, and tell which trials were executed."""
    log = folder.parent / "log"
    before = len(log.read_text().splitlines())
    results = tune.Tuner.restore(folder, **how).fit()
    return state(results), [int(x) for x in log.read_text().splitlines()[before:]]


def test_results_can_be_read_without_running_anything(broken_off):
    results = tune.Tuner.restore(broken_off).get_results()
    assert state(results) == [(0, 3, True), (1, 1, False), (2, 2, True)]
    assert "not mended" in str(results.errors[0])


def test_failed_trials_stay_as_they_are_unless_told_otherwise(broken_off):
    assert run_again(broken_off) == (ALL_BUT_THE_FAILED, [2, 3, 4])
    (broken_off.parent / "mended").touch()
    assert run_again(broken_off) == (ALL_BUT_THE_FAILED, [])
    assert run_again(broken_off, resume_errored=True) == (ALL, [1])
    assert run_again(broken_off, restart_errored=True) == (ALL, [])


def test_failed_trials_run_again_beside_the_unfinished_ones(broken_off):
    (broken_off.parent / "mended").touch()
    states, executed = run_again(broken_off, restart_errored=True)
    assert (states, sorted(executed)) == (ALL, [1, 2, 3, 4])


def test_a_trial_that_fails_once_more(broken_off):
    assert run_again(broken_off, restart_errored=True)[0] == ALL_BUT_THE_FAILED
    results = tune.Tuner.restore(broken_off).get_results()
    assert results.num_errors == 1


def test_unfinished_trials_can_be_left(broken_off):
    states, executed = run_again(broken_off, resume_unfinished=False)
    assert states == [(0, 3, True), (1, 1, False), (2, 2, True), (3, 3, True), (4, 3, True)]
    assert executed == [3, 4]
    assert run_again(broken_off) == (states, [])


def test_more_samples_than_before(broken_off):
    states, executed = run_again(broken_off, num_samples=2)
    assert len(states) == 10
    assert Counter(x for x, _, _ in states) == Counter([*range(5)] * 2)
    assert executed == [2, 3, 4, 0, 1, 2, 3, 4]


def test_more_samples_of_a_finished_random_sweep(tmp_path):
    def make(number):
        return tune.Tuner(
            lambda config: {"y": config["x"]},
            param_space={"x": tune.uniform(0, 1)},
            tune_config=tune.TuneConfig(num_samples=number, seed=4),
            run_config=tune.RunConfig(name=f"exp{number}", storage_path=str(tmp_path), verbose=0),
        )

    make(3).fit()
    longer = [r.metrics["y"] for r in make(7).fit()]
    assert [r.metrics["y"] for r in tune.Tuner.restore(tmp_path / "exp3", num_samples=7).fit()] == longer


def test_options_exclude_each_other(broken_off):
    with pytest.raises(ValueError, match=r"resume_errored.*restart_errored"):
        tune.Tuner.restore(broken_off, resume_errored=True, restart_errored=True)


def again(folder, resume, **options):
    options = {"config": {"x": tune.grid_search([0])}, "verbose": 0, "raise_on_failed_trial": False, **options}
    analysis = tune.run(steady, name=folder.name, storage_path=folder.parent, resume=resume, **options)
    return [(t.config["x"], t.last_result["i"], t.error is None) for t in analysis.trials]


@pytest.mark.parametrize("form", [True, "auto"])
def test_tune_run_resumes(broken_off, form):
    assert again(broken_off, form) == ALL_BUT_THE_FAILED


@pytest.mark.parametrize("form", ["AUTO+ERRORED", "LOCAL+RESTART_ERRORED"])
def test_tune_run_resumes_failed_trials_too(broken_off, form):
    (broken_off.parent / "mended").touch()
    assert again(broken_off, form) == ALL


def test_tune_run_can_run_failed_trials_alone(broken_off):
    (broken_off.parent / "mended").touch()
    states = again(broken_off, "ERRORED_ONLY")
    assert states[:3] == [(0, 3, True), (1, 3, True), (2, 2, True)]


def test_tune_run_resumes_with_what_the_program_says_now(broken_off):
    class Seen(tune.Callback):
        def __init__(self):
            self.results = []

        def on_trial_result(self, iteration, trials, trial, result, **info):
            self.results.append((trial.config["x"], result["i"]))

    seen = Seen()
    (broken_off.parent / "mended").touch()
    states = again(broken_off, True, callbacks=[seen], num_samples=2)
    assert len(states) == 10
    assert seen.results == [(x, i) for x in (2, 3, 4, 0, 1, 2, 3, 4) for i in (1, 2, 3)]


def test_tune_run_resumes_what_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no experiment to restore"):
        again(tmp_path / "missing", True)
    space = {"x": tune.grid_search([0]), "log": str(tmp_path / "log"), "mended": ""}
    assert again(tmp_path / "missing", "AUTO", config=space) == [(0, 3, True)]
    with pytest.raises(ValueError, match="'SOMETIMES'"):
        again(tmp_path / "missing", "SOMETIMES")
    with pytest.raises(ValueError, match="`name`"):
        tune.run(steady, resume=True)


def test_tune_run_raises_for_failed_trials_of_a_resumed_sweep_too(broken_off):
    with pytest.raises(tune.TuneError, match="not mended"):
        again(broken_off, True, raise_on_failed_trial=True)


def test_another_trainable_is_refused(broken_off):
    def different(config):
        return 1

    with pytest.raises(ValueError, match="'steady', not 'different'"):
        tune.Tuner.restore(broken_off, different)
    with pytest.raises(ValueError, match="'steady', not 'different'"):
        tune.run(different, name="exp", storage_path=broken_off.parent, resume=True)


def test_a_folder_that_is_no_experiment(tmp_path, broken_off):
    for folder in (tmp_path / "nothing", tmp_path):
        assert not tune.Tuner.can_restore(folder)
        with pytest.raises(FileNotFoundError, match="no experiment to restore"):
            tune.Tuner.restore(folder)
    (broken_off / "tuner.pkl").write_bytes(b"\x80\x05 cut")
    with pytest.raises(ValueError, match="cut off"):
        tune.Tuner.restore(broken_off)


def test_files_that_others_may_write_are_refused(broken_off):
    for name in ("tuner.pkl", "sweep_state.pkl", FILE_NAME, "."):
        mode = (broken_off / name).stat().st_mode
        (broken_off / name).chmod(0o777 if name == "." else 0o666)
        with pytest.raises(UntrustedFileError, match="chmod go-w"):
            tune.Tuner.restore(broken_off).fit()
        (broken_off / name).chmod(mode)
    assert run_again(broken_off) == (ALL_BUT_THE_FAILED, [2, 3, 4])


def test_a_lost_or_damaged_snapshot_costs_nothing(broken_off):
    (broken_off / "sweep_state.pkl").unlink()
    assert run_again(broken_off) == (ALL_BUT_THE_FAILED, [2, 3, 4])


def test_a_sweep_that_still_runs_is_left_alone(tmp_path, gate):
    """Neither restored nor begun anew by somebody else."""
    tried = {}

    class Meddler(tune.Callback):
        def on_trial_result(self, iteration, trials, trial, result, **info):
            for way, meddle in {
                "restore": lambda: tune.Tuner.restore(tmp_path / "exp").fit(),
                "fit": tuner.fit,
            }.items():
                with pytest.raises(tune.TuneError, match="run by another sweep") as caught:
                    meddle()
                tried[way] = caught.value

    config = tune.RunConfig(name="exp", storage_path=str(tmp_path), verbose=0)
    tuner = tune.Tuner(lambda config: {"y": 1}, run_config=config)
    config.callbacks = [Meddler()]
    results = tuner.fit()
    assert tried.keys() == {"restore", "fit"}
    assert results[0].metrics["y"] == 1


def test_a_run_under_the_same_name_begins_anew_and_keeps_the_old_journal(tmp_path):
    def run(x):
        config = tune.RunConfig(name="exp", storage_path=str(tmp_path), verbose=0)
        return tune.Tuner(lambda config: {"y": config["x"]}, param_space={"x": x}, run_config=config).fit()

    assert [r.metrics["y"] for r in run(1)] == [1]
    assert [r.metrics["y"] for r in run(2)] == [2]
    assert [r.metrics["y"] for r in tune.Tuner.restore(tmp_path / "exp").fit()] == [2]
    (old,) = (tmp_path / "exp").glob("experiment_state-*.jsonl")
    assert '"y": 1' in old.read_text()


def test_sweeps_without_a_name_never_share_a_folder(tmp_path):
    folders = set()
    for _ in range(3):
        config = tune.RunConfig(storage_path=str(tmp_path), verbose=0)
        results = tune.Tuner(lambda config: {"y": 1}, run_config=config).fit()
        folders.add(results.experiment_path)
    assert len(folders) == 3


def test_a_large_trainable_is_not_kept_and_asked_for(tmp_path):
    import numpy as np

    data = np.ones(3_000_000)

    def closing_over(config):
        return {"y": float(data[0])}

    config = tune.RunConfig(name="exp", storage_path=str(tmp_path), verbose=0)
    tune.Tuner(closing_over, run_config=config).fit()
    assert (tmp_path / "exp" / "tuner.pkl").stat().st_size < 1_000_000
    with pytest.raises(tune.TuneError, match=r"'closing_over' was not kept.*Tuner\.restore\(path, trainable\)"):
        tune.Tuner.restore(tmp_path / "exp")
    results = tune.Tuner.restore(tmp_path / "exp", closing_over, num_samples=2).fit()
    assert [r.metrics["y"] for r in results] == [1.0, 1.0]


def test_a_checkpoint_that_is_gone_fails_its_trial_with_the_reason(tmp_path):
    tuner = restored_sweeps.make("function", tmp_path)
    tuner._definition.run_config.callbacks.append(Fuse(tmp_path / "fuse", 4))
    with pytest.raises(tune.TuneError, match="fuse"):
        tuner.fit()
    (first, *_) = load_trials(tmp_path / "exp")
    for folder in Path(first.path).glob("checkpoint_*"):
        shutil.rmtree(folder)
    results = tune.Tuner.restore(tmp_path / "exp").fit()
    assert results.num_errors == 1
    assert "is gone" in str(results.errors[0])
    assert len(results) == 4
    assert tune.Tuner.restore(tmp_path / "exp", restart_errored=True).fit().num_errors == 0


def test_replaying_is_in_proportion_to_what_came_after_the_snapshot(tmp_path):
    """A journal of many results is read, not run through those who decide: the snapshot has seen it."""
    calls = []

    class Counting(tune.schedulers.FIFOScheduler):
        def on_trial_result(self, controller, trial, result):
            calls.append(trial.trial_id)
            return self.CONTINUE

    def many(config):
        for i in range(50):
            tune.report({"i": i})

    config = tune.RunConfig(name="exp", storage_path=str(tmp_path), verbose=0)
    tune.Tuner(many, tune_config=tune.TuneConfig(scheduler=Counting(), num_samples=2), run_config=config).fit()
    assert sum(len(results) for results in read_results(tmp_path / "exp").values()) == 100
    calls.clear()
    tune.Tuner.restore(tmp_path / "exp").fit()
    assert calls == []


def test_resources_that_a_scheduler_gave_are_kept(tmp_path):
    class Growing(tune.schedulers.FIFOScheduler):
        def on_trial_result(self, controller, trial, result):
            if result["training_iteration"] != 1:
                return self.CONTINUE
            controller.reset_trial(trial, trial.config, resources=tune.PlacementGroupFactory([{"CPU": 2}]))
            return self.NOOP

    class Steps(tune.Trainable):
        def step(self):
            return {"cpus": self.trial_resources.required_resources["CPU"]}

        def save_checkpoint(self, folder):
            return {}

        def load_checkpoint(self, state):
            pass

    config = tune.RunConfig(
        name="exp",
        storage_path=str(tmp_path),
        verbose=0,
        stop={"training_iteration": 4},
        callbacks=[Fuse(tmp_path / "fuse", 3)],
        checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1),
    )
    with pytest.raises(tune.TuneError, match="fuse"):
        tune.Tuner(Steps, tune_config=tune.TuneConfig(scheduler=Growing()), run_config=config).fit()
    result = tune.Tuner.restore(tmp_path / "exp").fit()[0]
    assert [r["cpus"] for r in read_results(tmp_path / "exp")[result.metrics["trial_id"]]] == [1, 2, 2, 2]
