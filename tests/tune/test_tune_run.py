"""Sweeps as users write them: every form of a trainable, what it is given, and what comes out."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from mltoolkit import train, tune

pytestmark = pytest.mark.usefixtures("runtime")


@pytest.fixture
def sweep(tmp_path):
    """Run a sweep that keeps quiet and writes into the test's folder."""

    def run(trainable, param_space=None, *, run=None, **tune_config):
        tune_config.setdefault("metric", "y")
        tune_config.setdefault("mode", "max")
        config = tune.RunConfig(name="exp", storage_path=str(tmp_path), verbose=0, **(run or {}))
        return tune.Tuner(
            trainable, param_space=param_space, tune_config=tune.TuneConfig(**tune_config), run_config=config
        ).fit()

    return run


def report_dict(config):
    tune.report({"y": config["x"]})


def report_keywords(config):
    tune.report(y=config["x"], other=1)


def report_through_train(config):
    train.report({"y": config["x"]})


def report_through_air(config):
    from mltoolkit.air import session

    session.report({"y": config["x"]})


def return_dict(config):
    return {"y": config["x"]}


def return_number(config):
    return config["x"]


def return_numpy(config):
    return np.float32(config["x"])


def yield_dicts(config):
    yield {"y": 0}
    yield {"y": config["x"]}


def yield_numbers(config):
    yield 0
    yield config["x"]


class Stepwise(tune.Trainable):
    def setup(self, config):
        self.x = config["x"]

    def step(self):
        return {"y": self.x, "done": self.iteration == 1}


def take_a_reporter(config, reporter):
    reporter(y=config["x"])


def make_a_checkpoint_dir(config, checkpoint_dir=None):
    with tune.checkpoint_dir(step=0) as folder:
        Path(folder, "x").write_text(str(config["x"]))
    tune.report(y=config["x"], name=tune.get_trial_name(), id=tune.get_trial_id())


FORMS = [
    take_a_reporter,
    make_a_checkpoint_dir,
    report_dict,
    report_keywords,
    report_through_train,
    report_through_air,
    return_dict,
    return_number,
    return_numpy,
    yield_dicts,
    yield_numbers,
    Stepwise,
    lambda config: {"y": config["x"]},
]


@pytest.mark.parametrize("trainable", FORMS, ids=lambda form: form.__name__)
def test_every_form_of_a_trainable(sweep, trainable):
    results = sweep(trainable, {"x": tune.grid_search([1, 3, 2])})
    assert [r.metrics["y"] for r in results] == [1, 3, 2]
    assert results.get_best_result().config == {"x": 3}
    assert results.num_terminated == 3
    assert all(r.metrics["done"] for r in results)


def test_a_checkpoint_dir_of_the_first_versions(sweep, tmp_path):
    marker = tmp_path / "failed"

    def trainable(config, checkpoint_dir=None):
        start = int(Path(checkpoint_dir, "i").read_text()) + 1 if checkpoint_dir else 0
        for i in range(start, 3):
            if i == 2 and not marker.exists():
                marker.touch()
                raise RuntimeError("once")
            with tune.checkpoint_dir(step=i) as folder:
                Path(folder, "i").write_text(str(i))
            tune.report(y=i, start=start)

    result = sweep(trainable, run={"failure_config": tune.FailureConfig(max_failures=1)})[0]
    assert (result.metrics["y"], result.metrics["start"]) == (2, 2)


def test_a_registered_name_and_tune_run(tmp_path):
    tune.register_trainable("my-trainable", return_dict)
    analysis = tune.run(
        "my-trainable", config={"x": tune.grid_search([1, 2])}, metric="y", mode="max", storage_path=tmp_path, verbose=0
    )
    assert analysis.best_config == {"x": 2}
    assert sorted(analysis.dataframe()["y"]) == [1, 2]
    with pytest.raises(ValueError, match="'my-trainble'.*Did you mean 'my-trainable'"):
        tune.run("my-trainble", storage_path=tmp_path)


def test_a_bare_number_without_a_metric_is_under_rays_name(tmp_path):
    analysis = tune.run(lambda config: 0.5, storage_path=tmp_path, verbose=0)
    assert analysis.trials[0].last_result["_metric"] == 0.5


def test_what_tune_adds_to_a_result(sweep):
    result = sweep(lambda config: [tune.report({"y": i}) for i in range(3)] and None, num_samples=1)[0].metrics
    assert result["training_iteration"] == result["iterations_since_restore"] == 3
    assert result["trial_id"] in result["experiment_tag"] or result["experiment_tag"] == "0"
    assert result["time_total_s"] >= result["time_this_iter_s"] >= 0
    assert {"pid", "hostname", "node_ip", "date", "timestamp", "config", "done"} <= set(result)


def test_context_folder_and_working_directory(sweep, tmp_path):
    def trainable(config):
        context = tune.get_context()
        Path("here.txt").write_text("x")
        return {
            "y": 1,
            "name": context.get_trial_name(),
            "id": context.get_trial_id(),
            "dir": context.get_trial_dir(),
            "experiment": context.get_experiment_name(),
            "cwd": os.getcwd(),
            "from": os.environ["TUNE_ORIG_WORKING_DIR"],
            "cpus": context.get_trial_resources().required_resources["CPU"],
        }

    result = sweep(tune.with_resources(trainable, {"cpu": 2}))[0]
    seen = result.metrics
    assert seen["dir"] == seen["cwd"] == result.path
    assert seen["from"] == os.getcwd()
    assert seen["name"].endswith(seen["id"])
    assert (seen["experiment"], seen["cpus"]) == ("exp", 2)
    assert Path(result.path, "here.txt").exists()


def test_a_trial_can_stay_where_the_driver_is(sweep, monkeypatch):
    monkeypatch.setenv("RAY_CHDIR_TO_TRIAL_DIR", "0")
    assert sweep(lambda config: {"y": 1, "cwd": os.getcwd()})[0].metrics["cwd"] == os.getcwd()


def test_files_on_disk_have_rays_layout(sweep, tmp_path):
    results = sweep(lambda config: [tune.report({"y": i, "deep": {"a": i}}) for i in (1, 2)] and None, {"x": 7})
    folder = Path(results[0].path)
    assert folder.parent == tmp_path / "exp"
    assert json.loads((folder / "params.json").read_text()) == {"x": 7}
    lines = [json.loads(line) for line in (folder / "result.json").read_text().splitlines()]
    assert [line["y"] for line in lines] == [1, 2]
    assert "deep/a" in (folder / "progress.csv").read_text().splitlines()[0].split(",")
    assert list(results[0].metrics_dataframe["deep/a"]) == [1, 2]


def test_large_parameters_are_shared_not_copied(sweep, tmp_path):
    data = np.arange(2_000_000, dtype=np.float64)

    def trainable(config, data):
        return {"y": float(data[config["i"]]), "writeable": bool(data.flags.writeable)}

    bound = tune.with_parameters(trainable, data=data)
    results = sweep(bound, {"i": tune.grid_search([5, 6])})
    assert [r.metrics["y"] for r in results] == [5, 6]
    assert not any(r.metrics["writeable"] for r in results)
    assert bound({"i": 3})["y"] == 3  # the same thing without Tune
    assert (tmp_path / "exp" / "tuner.pkl").stat().st_size < 1_000_000


def test_parameters_reach_setup_of_a_class(sweep):
    class WithData(tune.Trainable):
        def setup(self, config, data=None):
            self.total = sum(data)

        def step(self):
            return {"y": self.total, "done": True}

    assert sweep(tune.with_parameters(WithData, data=[1, 2, 3]))[0].metrics["y"] == 6


def test_parameters_that_do_not_fit_are_refused():
    with pytest.raises(TypeError, match="wrong"):
        tune.with_parameters(lambda config, data=None: None, wrong=1)


def test_stop_criteria(sweep):
    def endless(config):
        i = 0
        while True:
            i += 1
            tune.report({"y": i * config["x"]})

    results = sweep(endless, {"x": tune.grid_search([1, 2])}, run={"stop": {"training_iteration": 6, "y": 8}})
    assert [r.metrics["training_iteration"] for r in results] == [6, 4]
    results = sweep(endless, {"x": 1}, run={"stop": lambda trial_id, result: result["y"] >= 3})
    assert results[0].metrics["y"] == 3
    results = sweep(endless, {"x": 1}, num_samples=5, run={"stop": tune.stopper.MaximumIterationStopper(2)})
    assert [r.metrics["y"] for r in results] == [2] * 5


def test_a_stopped_function_cleans_up_and_its_process_goes_on(sweep, tmp_path):
    def trainable(config):
        try:
            while True:
                tune.report({"y": 1, "pid": os.getpid()})
        finally:
            Path(tmp_path, f"cleaned-{config['i']}").touch()

    results = sweep(
        trainable,
        {"i": tune.grid_search(list(range(6)))},
        run={"stop": {"training_iteration": 2}},
        max_concurrent_trials=2,
    )
    assert len({r.metrics["pid"] for r in results}) <= 2
    assert sorted(p.name for p in tmp_path.glob("cleaned-*")) == [f"cleaned-{i}" for i in range(6)]


def test_nothing_of_a_process_reaches_the_next_trial(sweep):
    def trainable(config):
        seen = os.environ.get("LEFT_BY_A_TRIAL")
        os.environ["LEFT_BY_A_TRIAL"] = "yes"
        return {"y": 1, "seen": seen, "pid": os.getpid()}

    reused = sweep(trainable, num_samples=4, max_concurrent_trials=1)
    assert len({r.metrics["pid"] for r in reused}) == 1
    assert {r.metrics["seen"] for r in reused} == {None}
    own = sweep(trainable, num_samples=3, max_concurrent_trials=1, reuse_actors=False)
    assert len({r.metrics["pid"] for r in own}) == 3


def test_concurrency_is_what_fits_and_no_more_than_asked_for(sweep, tally):
    counter = tally("running")

    def trainable(config):
        counter.add(f"+{config['i']}")
        counter.add(f"-{config['i']}")
        return {"y": 1}

    sweep(trainable, {"i": tune.grid_search([0, 1, 2, 3])}, max_concurrent_trials=1)
    assert [s[0] for s in counter.words()] == ["+", "-"] * 4


def test_a_seed_repeats_a_sweep_whatever_the_concurrency(sweep):
    def trainable(config):
        import random

        return {"y": config["x"], "drawn": random.random(), "np": float(np.random.rand())}

    def run(limit, seed):
        results = sweep(trainable, {"x": tune.uniform(0, 1)}, num_samples=6, max_concurrent_trials=limit, seed=seed)
        return [(r.metrics["y"], r.metrics["drawn"], r.metrics["np"]) for r in results]

    first = run(1, 7)
    assert first == run(3, 7)
    assert first != run(3, 8)
    assert len(set(first)) == 6


def test_checkpoints_of_a_function(sweep, tmp_path):
    def trainable(config):
        for i in range(4):
            folder = Path(tmp_path, f"work-{os.getpid()}")
            folder.mkdir(exist_ok=True)
            (folder / "state").write_text(str(i))
            tune.report({"y": [3, 9, 1, 2][i]}, checkpoint=tune.Checkpoint.from_directory(folder))
            (folder / "state").write_text("overwritten after the report")

    keep = tune.CheckpointConfig(num_to_keep=2, checkpoint_score_attribute="y")
    result = sweep(trainable, run={"checkpoint_config": keep})[0]
    kept = [(Path(c.path, "state").read_text(), m["y"]) for c, m in result.best_checkpoints]
    assert sorted(kept) == [("0", 3), ("1", 9), ("3", 2)]  # the two best, and the latest to go on from
    assert Path(result.checkpoint.path, "state").read_text() == "3"
    assert result.get_best_checkpoint("y", "max").path.endswith("checkpoint_000001")
    assert sorted(p.name for p in Path(result.path).glob("checkpoint_*")) == [f"checkpoint_00000{i}" for i in (0, 1, 3)]


class Counting(tune.Trainable):
    """Fails once at its fourth step, and knows how often it was set up."""

    def setup(self, config):
        self.config = config
        self.count = 0

    def step(self):
        self.count += 1
        marker = Path(self.config["marker"])
        if self.count == 4 and not marker.exists():
            marker.touch()
            raise RuntimeError("once")
        return {"y": self.count, "since": self._iterations_since_restore + 1}

    def save_checkpoint(self, folder):
        return {"count": self.count}

    def load_checkpoint(self, state):
        self.count = state["count"]


def test_a_class_goes_on_from_its_checkpoint_after_a_failure(sweep, tmp_path):
    result = sweep(
        Counting,
        {"marker": str(tmp_path / "failed")},
        run={
            "stop": {"training_iteration": 6},
            "failure_config": tune.FailureConfig(max_failures=1),
            "checkpoint_config": tune.CheckpointConfig(checkpoint_frequency=2, checkpoint_at_end=True),
        },
    )[0]
    assert result.error is None
    assert result.metrics["y"] == result.metrics["training_iteration"] == 6
    assert result.metrics["since"] == 4  # it went on after the second step
    assert list(result.metrics_dataframe["y"]) == [1, 2, 3, 3, 4, 5, 6]
    assert "once" in Path(result.path, "error.txt").read_text()


def test_a_function_goes_on_from_its_checkpoint(sweep, tmp_path):
    marker = tmp_path / "failed"

    def trainable(config):
        start = 0
        checkpoint = tune.get_checkpoint()
        if checkpoint:
            with checkpoint.as_directory() as folder:
                start = int(Path(folder, "i").read_text()) + 1
        for i in range(start, 5):
            if i == 3 and not marker.exists():
                marker.touch()
                os._exit(3)
            Path("work").mkdir(exist_ok=True)
            Path("work", "i").write_text(str(i))
            tune.report({"y": i, "start": start}, checkpoint=tune.Checkpoint.from_directory("work"))

    result = sweep(trainable, run={"failure_config": tune.FailureConfig(max_failures=1)})[0]
    assert (result.metrics["y"], result.metrics["start"], result.metrics["training_iteration"]) == (4, 3, 5)
    assert list(result.metrics_dataframe["y"]) == [0, 1, 2, 3, 4]


def test_errors_are_kept_and_others_go_on(sweep):
    def trainable(config):
        for i in range(4):
            if config["i"] == 1 and i == 2:
                raise KeyError("third epoch")
            tune.report({"y": i})

    results = sweep(trainable, {"i": tune.grid_search([0, 1, 2])})
    assert [r.error is None for r in results] == [True, False, True]
    assert isinstance(results[1].error, KeyError)
    assert results[1].metrics["y"] == 1
    assert "third epoch" in Path(results[1].path, "error.txt").read_text()
    assert (results.num_errors, results.num_terminated) == (1, 2)
    assert results.get_best_result().metrics["y"] == 3


def test_tune_run_raises_when_a_trial_failed(tmp_path):
    def trainable(config):
        raise ValueError("no luck")

    with pytest.raises(tune.TuneError, match="no luck") as caught:
        tune.run(trainable, storage_path=tmp_path, verbose=0)
    assert isinstance(caught.value.__cause__, ValueError)
    analysis = tune.run(trainable, storage_path=tmp_path, verbose=0, raise_on_failed_trial=False)
    assert analysis.trials[0].status == "ERROR"


def test_fail_fast(sweep):
    def trainable(config):
        if config["i"] == 0:
            raise ValueError("first")
        while True:
            tune.report({"y": 1})

    results = sweep(
        trainable,
        {"i": tune.grid_search([0, 1, 2, 3, 4, 5])},
        run={"failure_config": tune.FailureConfig(fail_fast=True)},
    )
    assert results.num_errors == 1
    with pytest.raises(ValueError, match="first"):
        sweep(trainable, {"i": tune.grid_search([0, 1])}, run={"failure_config": tune.FailureConfig(fail_fast="raise")})


def test_time_budget(sweep):
    def endless(config):
        while True:
            tune.report({"y": 1})

    results = sweep(endless, num_samples=-1, time_budget_s=0.5)
    assert len(results) >= 1
    assert results.num_errors == 0


def test_output_goes_to_files_when_asked(sweep):
    def trainable(config):
        print("hello from the trial")
        return {"y": 1}

    result = sweep(trainable, run={"log_to_file": True})[0]
    assert Path(result.path, "stdout").read_text() == "hello from the trial\n"


def test_callbacks_see_everything(sweep):
    class Log(tune.Callback):
        def __init__(self):
            self.seen = []

        def setup(self, stop=None, num_samples=None, total_num_samples=None, **info):
            self.seen.append(("setup", total_num_samples))

        def on_trial_start(self, iteration, trials, trial, **info):
            self.seen.append(("start", trial.config["x"]))

        def on_trial_result(self, iteration, trials, trial, result, **info):
            self.seen.append(("result", result["y"]))

        def on_trial_complete(self, iteration, trials, trial, **info):
            self.seen.append(("complete", trial.config["x"]))

        def on_experiment_end(self, trials, **info):
            self.seen.append(("end", len(trials)))

    log = Log()
    sweep(return_dict, {"x": tune.grid_search([1, 2])}, run={"callbacks": [log]}, max_concurrent_trials=1)
    assert log.seen == [
        ("setup", 2),
        ("start", 1),
        ("result", 1),
        ("complete", 1),
        ("start", 2),
        ("result", 2),
        ("complete", 2),
        ("end", 2),
    ]


def test_a_callback_that_raises_ends_the_sweep(sweep):
    class Broken(tune.Callback):
        def on_trial_result(self, iteration, trials, trial, result, **info):
            raise ZeroDivisionError("mine")

    with pytest.raises(tune.TuneError, match=r"Broken.*on_trial_result|on_trial_result.*Broken"):
        sweep(return_dict, {"x": 1}, run={"callbacks": [Broken()]})


def test_nested_work_in_bundles_of_its_own(sweep):
    import mltoolkit as ray

    def trainable(config):
        @ray.remote
        def double(x):
            return 2 * x

        return {"y": sum(ray.get([double.remote(i) for i in range(4)]))}

    resources = tune.PlacementGroupFactory([{"CPU": 1}, {"CPU": 1}])
    results = sweep(tune.with_resources(trainable, resources), num_samples=3)
    assert [r.metrics["y"] for r in results] == [12] * 3


def test_impossible_resources_are_an_error_soon(sweep):
    results = sweep(tune.with_resources(return_dict, {"cpu": 99}), {"x": tune.grid_search([1, 2])})
    assert results.num_errors == 1
    assert "99" in str(results.errors[0])


def test_asha_stops_trials_early(sweep):
    def trainable(config):
        for i in range(1, 10):
            tune.report({"y": config["x"] * i})

    scheduler = tune.schedulers.ASHAScheduler(max_t=9, grace_period=1, reduction_factor=3)
    results = sweep(trainable, {"x": tune.grid_search([9, 8, 7, 6, 5, 4, 3, 2, 1])}, scheduler=scheduler)
    iterations = [r.metrics["training_iteration"] for r in results]
    assert iterations[0] == 9
    assert sum(iterations) < 9 * 9 / 2


def test_population_based_training_copies_the_better(sweep):
    class Climbing(tune.Trainable):
        def setup(self, config):
            self.value = 0.0

        def step(self):
            self.value += self.config["rate"]
            return {"y": self.value}

        def save_checkpoint(self, folder):
            return {"value": self.value}

        def load_checkpoint(self, state):
            self.value = state["value"]

        def reset_config(self, config):
            self.config = config
            return True

    scheduler = tune.schedulers.PopulationBasedTraining(
        time_attr="training_iteration",
        perturbation_interval=2,
        hyperparam_mutations={"rate": [0.1, 1.0, 10.0]},
        quantile_fraction=0.5,
        synch=True,
        seed=1,
    )
    results = sweep(
        Climbing,
        {"rate": tune.grid_search([0.1, 10.0])},
        scheduler=scheduler,
        run={"stop": {"training_iteration": 12}, "checkpoint_config": tune.CheckpointConfig(checkpoint_frequency=2)},
        reuse_actors=True,
    )
    assert results.num_errors == 0
    assert min(r.metrics["y"] for r in results) > 12 * 0.1 + 1e-9


def test_parameters_are_kept_for_a_restore_and_large_trainables_are_not(sweep, tmp_path):
    def trainable(config, data):
        return {"y": sum(data)}

    sweep(tune.with_parameters(trainable, data=[1, 2]))
    kept = tune.Tuner.restore(tmp_path / "exp")
    assert kept._definition.trainable({}) == {"y": 3}

    large = np.zeros(3_000_000)
    sweep(lambda config: {"y": float(large[0])})
    assert (tmp_path / "exp" / "tuner.pkl").stat().st_size < 100_000
    with pytest.raises(tune.TuneError, match="was not kept"):
        tune.Tuner.restore(tmp_path / "exp")


def test_a_study_of_the_users_is_filled(sweep):
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    from mltoolkit.tune.search.optuna import OptunaSearch

    study = optuna.create_study(direction="maximize")
    sweep(return_dict, {"x": tune.uniform(0, 1)}, num_samples=3, search_alg=OptunaSearch(study=study))
    assert len(study.trials) == 3
    assert study.best_value == max(t.params["x"] for t in study.trials)


def test_what_fits_no_sweep_is_refused_before_it_begins(sweep):
    with pytest.raises(TypeError, match=r"tune\.uniform.*'deep/x'.*Call it"):
        sweep(return_dict, {"deep": {"x": tune.uniform}})
    with pytest.raises(
        ValueError, match=r"PopulationBasedTraining needs .* Stepwise does not define `save_checkpoint`"
    ):
        sweep(Stepwise, {"x": 1}, scheduler=tune.schedulers.PopulationBasedTraining(hyperparam_mutations={"x": [1, 2]}))
    with pytest.raises(TypeError, match="`metrc`.*Did you mean `metric`"):
        tune.TuneConfig(metrc="y")
    with pytest.raises(ValueError, match="`num_samples`.*0; .*`mode`|`mode`.*`num_samples`"):
        tune.TuneConfig(num_samples=0, mode="best", metric="y")


def everything(config, reporter=None, checkpoint_dir=None, data=None):
    reporter(y=config["x"], total=sum(data or [0]), fresh=checkpoint_dir is None)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda f: tune.with_parameters(f, data=[1, 2]),
        lambda f: tune.with_resources(tune.with_parameters(f, data=[1, 2]), {"cpu": 1}),
        lambda f: tune.with_parameters(tune.with_resources(f, {"cpu": 1}), data=[1, 2]),
    ],
)
def test_wrappers_pass_on_what_older_functions_take(sweep, wrap):
    metrics = sweep(wrap(everything), {"x": 5})[0].metrics
    assert (metrics["y"], metrics["total"], metrics["fresh"]) == (5, 3, True)


def test_the_users_searcher_and_scheduler_do_the_work(sweep, tmp_path):
    class Remembering(tune.search.Searcher):
        def __init__(self):
            super().__init__("y", "max")
            self.done = []

        def suggest(self, trial_id):
            return {"x": len(self.done)}

        def on_trial_complete(self, trial_id, result=None, error=False):
            self.done.append(result["y"])

    searcher, scheduler = Remembering(), tune.schedulers.ASHAScheduler(max_t=1)
    options = {"search_alg": searcher, "scheduler": scheduler, "num_samples": 3, "metric": None, "mode": None}
    options |= {"max_concurrent_trials": 1}
    scheduler.set_search_properties("y", "max")
    sweep(return_dict, **options)
    assert searcher.done == [0, 1, 2]
    sweep(return_dict, **options)  # another sweep begins with what they were before the first
    assert searcher.done == [0, 1, 2]


def test_options_beside_an_experiment(tmp_path):
    experiment = tune.Experiment("e", return_dict, config={"x": tune.grid_search([1, 2])}, storage_path=str(tmp_path))
    with pytest.raises(ValueError, match="`num_samples` belong to the experiment"):
        tune.run(experiment, num_samples=3)
    with pytest.raises(TypeError, match="'num_sample'.*Did you mean `num_samples`"):
        tune.Experiment("e", return_dict, num_sample=3)
    assert len(tune.run(experiment, verbose=0, fail_fast=True).trials) == 2
    assert [t.config["x"] for t in tune.run_experiments(experiment, verbose=0)] == [1, 2]


def test_resources_as_a_function_of_the_configuration(tmp_path):
    analysis = tune.run(
        lambda config: {"y": tune.get_context().get_trial_resources().required_resources["CPU"]},
        config={"cpus": tune.grid_search([1, 2])},
        resources_per_trial=lambda config: {"cpu": config["cpus"]},
        storage_path=str(tmp_path),
        verbose=0,
    )
    assert [t.last_result["y"] for t in analysis.trials] == [1, 2]


def test_every_log_says_which_result_was_the_last(sweep):
    def endless(config):
        while True:
            tune.report({"y": 1})

    result = sweep(endless, run={"stop": {"training_iteration": 3}})[0]
    lines = [json.loads(line) for line in Path(result.path, "result.json").read_text().splitlines()]
    assert [line["done"] for line in lines] == [False, False, True]
    assert {line["checkpoint_dir_name"] for line in lines} == {None}
    assert list(result.metrics_dataframe["done"]) == [False, False, True]


def test_a_metric_that_nobody_reports_is_an_error_at_once(sweep, monkeypatch):
    with pytest.raises(tune.MissingMetricError, match="reported no 'wrong'.*It reported: y"):
        sweep(return_dict, {"x": 1}, metric="wrong")
    monkeypatch.setenv("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")
    assert sweep(return_dict, {"x": 1}, metric="wrong").num_terminated == 1


def test_a_population_without_checkpoints_is_warned_of(sweep, caplog):
    def without(config):
        for i in range(6):
            tune.report({"y": i * config["x"]})

    scheduler = tune.schedulers.PopulationBasedTraining(
        time_attr="training_iteration", perturbation_interval=2, hyperparam_mutations={"x": [1, 2]}, seed=0
    )
    sweep(without, {"x": tune.grid_search([1, 2, 3])}, scheduler=scheduler, max_concurrent_trials=1)
    assert "has no checkpoint" in caplog.text
