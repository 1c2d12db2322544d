"""The surface of Ray Tune 2.60: its names, its signatures, and what the smaller helpers do."""

from __future__ import annotations

import collections
import importlib
import inspect
import os
import pickle
import re
import threading
from pathlib import Path

import pytest

from mltoolkit import tune
from mltoolkit.train import Checkpoint
from mltoolkit.tune import registry, schedulers, utils
from mltoolkit.tune.error import TuneError
from mltoolkit.tune.experiment import Trial
from mltoolkit.tune.progress_reporter import CLIReporter, default_reporter
from mltoolkit.tune.schedulers._rungs import StoppingBracket
from mltoolkit.tune.utils import util

NAMES = {
    "tune": """
        CLIReporter Callback Checkpoint CheckpointConfig Experiment ExperimentAnalysis FailureConfig
        JupyterNotebookReporter PlacementGroupFactory ProgressReporter Result ResultGrid ResumeConfig RunConfig Stopper
        SyncConfig Trainable TuneConfig TuneContext TuneError Tuner choice create_scheduler create_searcher
        get_checkpoint get_context grid_search lograndint loguniform qlograndint qloguniform qrandint qrandn quniform
        randint randn register_env register_trainable report run run_experiments sample_from uniform with_parameters
        with_resources utils schedulers search stopper logger trainable callback
    """,
    "tune.schedulers": """
        TrialScheduler HyperBandScheduler AsyncHyperBandScheduler ASHAScheduler MedianStoppingRule FIFOScheduler
        PopulationBasedTraining PopulationBasedTrainingReplay HyperBandForBOHB ResourceChangingScheduler
        create_scheduler
    """,
    "tune.schedulers.trial_scheduler": "TrialScheduler FIFOScheduler",
    "tune.schedulers.async_hyperband": "ASHAScheduler AsyncHyperBandScheduler",
    "tune.schedulers.hyperband": "HyperBandScheduler",
    "tune.schedulers.hb_bohb": "HyperBandForBOHB",
    "tune.schedulers.median_stopping_rule": "MedianStoppingRule",
    "tune.schedulers.pb2": "PB2",
    "tune.schedulers.pbt": "PopulationBasedTraining PopulationBasedTrainingReplay",
    "tune.schedulers.resource_changing_scheduler": """
        ResourceChangingScheduler DistributeResources DistributeResourcesToTopJob
    """,
    "tune.search": """
        SearchAlgorithm Searcher ConcurrencyLimiter Repeater BasicVariantGenerator grid_search SearchGenerator
        UNRESOLVED_SEARCH_SPACE UNDEFINED_SEARCH_SPACE UNDEFINED_METRIC_MODE create_searcher
    """,
    "tune.search.searcher": "Searcher ConcurrencyLimiter",
    "tune.search.concurrency_limiter": "ConcurrencyLimiter",
    "tune.search.basic_variant": "BasicVariantGenerator",
    "tune.search.repeater": "Repeater TRIAL_INDEX",
    "tune.search.sample": "Domain Categorical Float Integer",
    "tune.search.variant_generator": "generate_variants grid_search",
    "tune.search.optuna": "OptunaSearch",
    "tune.search.hyperopt": "HyperOptSearch",
    "tune.search.bayesopt": "BayesOptSearch",
    "tune.search.ax": "AxSearch",
    "tune.search.nevergrad": "NevergradSearch",
    "tune.search.bohb": "TuneBOHB",
    "tune.stopper": """
        Stopper CombinedStopper ExperimentPlateauStopper FunctionStopper MaximumIterationStopper NoopStopper
        TimeoutStopper TrialPlateauStopper
    """,
    "tune.logger": "LoggerCallback pretty_print CSVLoggerCallback JsonLoggerCallback TBXLoggerCallback",
    "tune.logger.aim": "AimLoggerCallback",
    "tune.trainable": "Trainable FunctionTrainable with_parameters wrap_function",
    "tune.trainable.util": "with_parameters with_resources",
    "tune.trainable.function_trainable": "FunctionTrainable wrap_function",
    "tune.utils": """
        deep_update date_str flatten_dict merge_dicts unflatten_dict unflattened_lookup validate_save_restore
        diagnose_serialization wait_for_gpu
    """,
    "tune.utils.util": """
        deep_update date_str flatten_dict merge_dicts unflatten_dict unflatten_list_dict unflattened_lookup
        validate_save_restore diagnose_serialization wait_for_gpu
    """,
    "tune.registry": "register_env register_trainable get_trainable_cls",
    "tune.syncer": "SyncConfig",
    "tune.experiment": "Experiment Trial",
    "tune.experiment.trial": "Trial",
    "tune.analysis": "ExperimentAnalysis",
    "tune.callback": "Callback",
    "tune.context": "TuneContext",
    "tune.error": "TuneError",
    "tune.execution.placement_groups": "PlacementGroupFactory",
    "tune.progress_reporter": "CLIReporter JupyterNotebookReporter ProgressReporter TuneReporterBase",
    "tune.result_grid": "ResultGrid",
    "tune.tune_config": "TuneConfig ResumeConfig",
    "tune.tuner": "Tuner",
}


@pytest.mark.parametrize("module", NAMES)
def test_names(module):
    found = importlib.import_module(f"mltoolkit.{module}")
    assert [name for name in NAMES[module].split() if not hasattr(found, name)] == []


CONSTANTS = {
    "CONFIG_PREFIX": "config",
    "DEFAULT_METRIC": "_metric",
    "DEFAULT_RESULT_KEYS": ("training_iteration", "time_total_s", "mean_accuracy", "mean_loss"),
    "DONE": "done",
    "EPISODES_THIS_ITER": "episodes_this_iter",
    "EPISODES_TOTAL": "episodes_total",
    "EPISODE_REWARD_MEAN": "episode_reward_mean",
    "EXPERIMENT_TAG": "experiment_tag",
    "EXPR_ERROR_FILE": "error.txt",
    "EXPR_ERROR_PICKLE_FILE": "error.pkl",
    "EXPR_PARAM_FILE": "params.json",
    "EXPR_PARAM_PICKLE_FILE": "params.pkl",
    "EXPR_PROGRESS_FILE": "progress.csv",
    "EXPR_RESULT_FILE": "result.json",
    "HOSTNAME": "hostname",
    "MEAN_ACCURACY": "mean_accuracy",
    "MEAN_LOSS": "mean_loss",
    "NODE_IP": "node_ip",
    "PID": "pid",
    "SHOULD_CHECKPOINT": "should_checkpoint",
    "TIMESTAMP": "timestamp",
    "TIMESTEPS_THIS_ITER": "timesteps_this_iter",
    "TIMESTEPS_TOTAL": "timesteps_total",
    "TIME_THIS_ITER_S": "time_this_iter_s",
    "TIME_TOTAL_S": "time_total_s",
    "TRAINING_ITERATION": "training_iteration",
    "TRIAL_ID": "trial_id",
}


def test_constants_of_results():
    result = importlib.import_module("mltoolkit.tune.result")
    assert {name: getattr(result, name, None) for name in CONSTANTS} == CONSTANTS


# What Ray's take; those in front of "*" by position, too. Ours may take more.
SIGNATURES = {
    "Tuner": "trainable * param_space tune_config run_config",
    "Tuner.restore": """
        path trainable resume_unfinished resume_errored restart_errored param_space storage_filesystem
    """,
    "TuneConfig": """
        * mode metric search_alg scheduler num_samples max_concurrent_trials time_budget_s reuse_actors
        trial_name_creator trial_dirname_creator chdir_to_trial_dir
    """,
    "RunConfig": """
        name storage_path storage_filesystem failure_config checkpoint_config sync_config verbose stop callbacks
        progress_reporter log_to_file local_dir
    """,
    "CheckpointConfig": """
        num_to_keep checkpoint_score_attribute checkpoint_score_order checkpoint_frequency checkpoint_at_end
    """,
    "FailureConfig": "max_failures fail_fast",
    "run": """
        run_or_experiment * name metric mode stop time_budget_s config resources_per_trial num_samples storage_path
        storage_filesystem search_alg scheduler checkpoint_config verbose progress_reporter log_to_file
        trial_name_creator trial_dirname_creator sync_config export_formats max_failures fail_fast restore resume
        resume_config reuse_actors raise_on_failed_trial callbacks max_concurrent_trials keep_checkpoints_num
        checkpoint_score_attr checkpoint_freq checkpoint_at_end chdir_to_trial_dir local_dir
    """,
    "CLIReporter": """
        * metric_columns parameter_columns total_samples max_progress_rows max_error_rows max_column_length
        max_report_frequency infer_limit print_intermediate_tables metric mode sort_by_metric
    """,
    "schedulers.ASHAScheduler": """
        time_attr metric mode max_t grace_period reduction_factor brackets stop_last_trials
    """,
    "schedulers.HyperBandScheduler": "time_attr metric mode max_t reduction_factor stop_last_trials",
    "schedulers.MedianStoppingRule": """
        time_attr metric mode grace_period min_samples_required min_time_slice hard_stop
    """,
    "schedulers.PopulationBasedTraining": """
        time_attr metric mode perturbation_interval burn_in_period hyperparam_mutations quantile_fraction
        resample_probability perturbation_factors custom_explore_fn log_config require_attrs synch
    """,
    "search.optuna.OptunaSearch": """
        space metric mode points_to_evaluate sampler * study_name storage seed evaluated_rewards
    """,
    "search.ConcurrencyLimiter": "searcher max_concurrent batch",
    "Trainable.default_resource_request": "config",
    "Trainable.export_model": "self export_formats export_dir",
    "Trainable.load_checkpoint": "self checkpoint",
    "Trainable.log_result": "self result",
    "Trainable.reset": "self new_config",
    "Trainable.reset_config": "self new_config",
    "Trainable.resource_help": "config",
    "Trainable.restore": "self checkpoint_path",
    "Trainable.save": "self checkpoint_dir",
    "Trainable.save_checkpoint": "self checkpoint_dir",
    "Trainable.setup": "self config",
    "Trainable.train_buffered": "self buffer_time_s max_buffer_length",
    "utils.wait_for_gpu": "gpu_id target_util retry delay_s gpu_memory_limit",
    "utils.validate_save_restore": "trainable_cls config num_gpus",
    "utils.flatten_dict": "dt delimiter prevent_delimiter flatten_list",
    "utils.unflatten_dict": "dt delimiter",
    "utils.merge_dicts": "d1 d2",
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures(name):
    found = tune
    for part in name.split("."):
        if not hasattr(found, part):
            importlib.import_module(f"{found.__name__}.{part}")
        found = getattr(found, part)
    positional, _, keywords = SIGNATURES[name].partition("*")
    parameters = inspect.signature(found).parameters
    by_position = [n for n, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert by_position[: len(positional.split())] == positional.split()
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    assert takes_any or set(keywords.split()) <= set(parameters)


def test_properties_and_methods_of_trainables():
    for name in ["cleanup", "get_config", "get_state", "step", "stop", "train"]:
        assert list(inspect.signature(getattr(tune.Trainable, name)).parameters) == ["self"]
    trainable = Counting({"a": 1})
    assert trainable.training_iteration == trainable.iteration == 0
    assert (trainable.trial_id, trainable.trial_name, trainable.trial_resources) == ("default", "default", None)


# Trainables


class Counting(tune.Trainable):
    def setup(self, config):
        self.count = 0

    def step(self):
        self.count += 1
        return {"count": self.count, "done": self.count == 4, "timesteps_this_iter": 10}

    def save_checkpoint(self, checkpoint_dir):
        return {"count": self.count}

    def load_checkpoint(self, checkpoint):
        self.count = checkpoint["count"]


def test_train_buffered_goes_on_until_it_is_done_or_full_or_late():
    assert [result["count"] for result in Counting().train_buffered(60)] == [1, 2, 3, 4]
    assert [result["count"] for result in Counting().train_buffered(60, max_buffer_length=2)] == [1, 2]
    assert [result["count"] for result in Counting().train_buffered(0)] == [1]


def test_train_buffered_ends_at_a_checkpoint():
    class Checkpointing(Counting):
        def step(self):
            return {**super().step(), "should_checkpoint": self.count == 2}

    assert [result["count"] for result in Checkpointing().train_buffered(60)] == [1, 2]


def test_the_state_of_a_trainable_says_how_far_it_is():
    trainable = Counting()
    last = trainable.train()
    state = trainable.get_state()
    assert (state["iteration"], state["timesteps_total"], state["episodes_total"]) == (1, 10, None)
    assert state["time_total"] > 0
    assert state["last_result"] == last


def test_export_model_is_up_to_the_class(tmp_path):
    class Exporting(tune.Trainable):
        def _export_model(self, export_formats, export_dir):
            return {name: f"{export_dir}/model.{name}" for name in export_formats}

    assert Exporting().export_model("onnx", str(tmp_path)) == {"onnx": f"{tmp_path}/model.onnx"}
    assert list(Exporting().export_model(["h5", "onnx"], str(tmp_path))) == ["h5", "onnx"]
    with pytest.raises(NotImplementedError, match=r"Counting must define `_export_model.*`save_checkpoint`"):
        Counting().export_model("onnx", str(tmp_path))


def test_wrap_function_names_a_function():
    def train(config):
        return {"y": config["x"]}

    assert tune.trainable.wrap_function(train) is train
    assert tune.trainable.wrap_function(train, name="other").__name__ == "other"
    assert tune.trainable.wrap_function(train, name="other")({"x": 2}) == {"y": 2}
    with pytest.raises(TypeError, match="takes a function, got the class Counting"):
        tune.trainable.wrap_function(Counting)


def test_trainables_by_name():
    tune.register_trainable("counting", Counting)
    assert registry.get_trainable_cls("counting") is Counting
    with pytest.raises(TuneError, match="'countng'.*Did you mean 'counting'"):
        registry.get_trainable_cls("countng")


@pytest.mark.usefixtures("runtime")
def test_async_functions_are_refused_by_name(tmp_path):
    async def coroutine(config):
        return {"y": 1}

    async def generator(config):
        yield {"y": 1}

    for function in (coroutine, generator):
        with pytest.raises(TypeError, match=f"{function.__name__}.*async functions are not trainables.*`asyncio.run`"):
            grid = tune.Tuner(function, run_config=tune.RunConfig(storage_path=str(tmp_path), verbose=0)).fit()
            raise grid.errors[0]


# Trials, schedulers, reporters


def test_what_a_trial_tells_about_itself():
    trial = Trial("id", "f", {})
    assert (trial.node_ip, trial.has_checkpoint(), trial.has_reported_at_least_once) == (None, False, False)
    trial.location = "host:12"
    assert trial.node_ip == trial.get_ray_actor_ip() == "host"
    trial.update_last_result({"node_ip": "10.0.0.3"})
    trial.add_checkpoint(Checkpoint("/x"), {})
    assert trial.node_ip == trial.get_ray_actor_ip() == "10.0.0.3"
    assert (trial.has_checkpoint(), trial.has_reported_at_least_once) == (True, True)


def test_cutoffs_are_short():
    bracket = StoppingBracket([1, 3], 3, stop_last_trials=True)
    bracket.report("a", 1, 0.1 + 0.2)
    assert bracket.debug_string() == "Bracket: Iter 3.000: None | Iter 1.000: 0.3"


@pytest.mark.parametrize(
    ("make", "keyword", "near"),
    [
        (schedulers.ASHAScheduler, "grace_perod", "grace_period"),
        (schedulers.HyperBandScheduler, "reducton_factor", "reduction_factor"),
        (schedulers.MedianStoppingRule, "min_samples", "min_samples_required"),
        (schedulers.PopulationBasedTraining, "hyperparam_mutation", "hyperparam_mutations"),
        (tune.search.BasicVariantGenerator, "max_concurent", "max_concurrent"),
        (tune.search.ConcurrencyLimiter, "max_concurent", "max_concurrent"),
        (tune.search.Repeater, "repeats", "repeat"),
    ],
)
def test_misspelt_keywords_of_schedulers_and_searchers(make, keyword, near):
    with pytest.raises(TypeError, match=f"{make.__name__} has no argument `{keyword}`. Did you mean `{near}`"):
        make(**{keyword: 1})


def test_misspelt_keywords_of_the_users_own_searcher():
    class Own(tune.search.Searcher):
        def __init__(self, depth, metric=None, mode=None):
            super().__init__(metric=metric, mode=mode)
            self.depth = depth

    class Any(Own):
        def __init__(self, **options):
            super().__init__(**options)

    assert list(inspect.signature(Own).parameters) == ["depth", "metric", "mode"]
    assert inspect.getfullargspec(Own.__init__).args == ["self", "depth", "metric", "mode"]
    assert Own(2, metric="loss", mode="min").depth == Any(depth=2).depth == 2
    for make in (Own, Any):
        with pytest.raises(TypeError, match="Own has no argument `dept`. Did you mean `depth`"):
            make(dept=2)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'depth'"):
        Own()
    restored = pickle.loads(pickle.dumps(schedulers.ASHAScheduler(grace_period=2)))
    assert isinstance(restored, schedulers.ASHAScheduler)


def test_a_reporters_setters_are_called():
    calls = collections.ChainMap()

    class Reporter(CLIReporter):
        def set_search_properties(self, metric, mode):
            calls.update(metric=metric, mode=mode)
            return super().set_search_properties(metric, mode)

        def set_total_samples(self, total_samples):
            calls.update(total_samples=total_samples)
            super().set_total_samples(total_samples)

        def set_start_time(self, timestamp=None):
            calls.update(timestamp=timestamp)
            super().set_start_time(timestamp)

    reporter = default_reporter(1, metric="loss", mode="min", total_samples=7, reporter=Reporter())
    assert calls.pop("timestamp") > 1e9
    assert dict(calls) == {"metric": "loss", "mode": "min", "total_samples": 7}
    with pytest.raises(ValueError, match="The reporter was made with `metric='loss'`, the sweep has 'accuracy'"):
        reporter.set_search_properties("accuracy", "max")


# Helpers


def test_dicts_flat_and_back():
    nested = {"a": {"b": 1, "c": {"d": [2, {"e": 3}]}}, "f": 4}
    flat = {"a/b": 1, "a/c/d": [2, {"e": 3}], "f": 4}
    assert utils.flatten_dict(nested) == flat
    assert utils.unflatten_dict(flat) == nested
    with_lists = utils.flatten_dict(nested, delimiter=".", flatten_list=True)
    assert with_lists == {"a.b": 1, "a.c.d.0": 2, "a.c.d.1.e": 3, "f": 4}
    assert utils.unflatten_list_dict(with_lists, delimiter=".") == nested
    assert utils.flatten_dict({"a": {}, 3: 1}) == {3: 1}
    ordered = utils.flatten_dict(collections.OrderedDict(a={"b": 1}))
    assert type(ordered) is type(utils.unflatten_dict(ordered)) is collections.OrderedDict
    assert utils.unflatten_list_dict({"0/a": 1, "1/a": 2}) == [{"a": 1}, {"a": 2}]


def test_what_cannot_be_flattened_or_unflattened():
    with pytest.raises(ValueError, match=r"key 'b/c' holds the delimiter '/'"):
        utils.flatten_dict({"a": {"b/c": 1}}, prevent_delimiter=True)
    for conflict in ({"a": 1, "a/b": 2}, {"a/b": 2, "a": 1}, {"a": {"x": 1}, "a/b": 2}):
        with pytest.raises(TypeError, match="'a"):
            utils.unflatten_dict(conflict)
    with pytest.raises(ValueError, match=r"list 'a' lacks elements: there are \[0, 2\]"):
        utils.unflatten_list_dict({"a/0": 1, "a/2": 2})


def test_dicts_are_merged():
    first, second = {"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"b": 3, "e": 4}, "d": [2], "f": {"g": 5}}
    merged = utils.merge_dicts(first, second)
    assert merged == {"a": {"b": 3, "c": 2, "e": 4}, "d": [2], "f": {"g": 5}}
    assert first == {"a": {"b": 1, "c": 2}, "d": [1]}
    with pytest.raises(ValueError, match="Unknown key 'f': there are 'a', 'd'"):
        utils.deep_update({"a": {"b": 1, "e": 0}, "d": 0}, second)
    assert utils.deep_update({"a": {"b": 1}}, {"a": {"e": 4}}, allow_new_subkey_list=["a"]) == {"a": {"b": 1, "e": 4}}
    assert utils.deep_update({"a": {"b": 1}}, {"a": {"e": 4}}, override_all_key_list=["a"]) == {"a": {"e": 4}}
    typed, rule = {"a": {"type": "x", "b": 1}}, {"new_keys_allowed": True, "override_all_if_type_changes": ["a"]}
    assert utils.merge_dicts(typed, {"a": {"c": 1}})["a"] == {"type": "x", "b": 1, "c": 1}
    assert utils.deep_update({"a": dict(typed["a"])}, {"a": {"type": "y"}}, **rule) == {"a": {"type": "y"}}
    assert utils.deep_update({"a": dict(typed["a"])}, {"a": {"b": 2}}, **rule) == {"a": {"type": "x", "b": 2}}


def test_nested_lookup():
    nested = {"a": [{"b": 1}], "c/d": 2}
    assert utils.unflattened_lookup("a/0/b", nested) == 1
    assert utils.unflattened_lookup("c/d", nested) == 2
    assert utils.unflattened_lookup("a/1/b", nested, default=None) is None
    with pytest.raises(KeyError, match="a/0/x"):
        utils.unflattened_lookup("a/0/x", nested)


def test_dates():
    assert re.fullmatch(r"\d{4}(-\d\d){2}_\d\d(-\d\d){2}", utils.date_str())


def test_what_keeps_a_function_from_being_sent(capsys):
    lock = threading.Lock()
    assert utils.diagnose_serialization(lambda config: lock.locked()) == {"lock"}
    assert utils.diagnose_serialization(lambda config: None) is True
    assert "FAILS" in capsys.readouterr().out


@pytest.mark.usefixtures("runtime")
def test_validate_save_restore():
    assert utils.validate_save_restore(Counting) is True

    class Forgetful(Counting):
        def restore(self, checkpoint_path):
            pass

    with pytest.raises(TuneError, match="Forgetful was saved at iteration 3 and is at 1 1 step"):
        utils.validate_save_restore(Forgetful, {"x": 1})
    with pytest.raises(TypeError, match="takes a subclass of `tune.Trainable`"):
        utils.validate_save_restore(lambda config: None)


@pytest.fixture
def gpus(tmp_path, monkeypatch):
    """A host with two GPUs, of which one is freed at the third look."""

    def install(answer):
        tool = tmp_path / "bin" / "nvidia-smi"
        tool.parent.mkdir(exist_ok=True)
        tool.write_text(f"#!/bin/sh\necho look >> {tmp_path}/looks\n{answer}\n")
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tool.parent}{os.pathsep}{os.environ['PATH']}")

    looks = tmp_path / "looks"
    install(f"[ $(wc -l < {looks}) -ge 3 ] && used=0 || used=900\necho 0, GPU-a, 7, 1000; echo 1, GPU-b, $used, 1000")
    install.looks = lambda: len(Path(looks).read_text().splitlines())
    return install


@pytest.mark.parametrize(("gpu", "looks"), [(0, 1), ("0", 1), ("GPU-a", 1), (1, 3), ("GPU-b", 3)])
def test_wait_for_gpu(gpus, gpu, looks):
    assert utils.wait_for_gpu(gpu, delay_s=0) is True
    assert gpus.looks() == looks


def test_wait_for_gpu_that_is_not_freed_or_not_there(gpus, monkeypatch):
    with pytest.raises(RuntimeError, match=r"More than 0.01 of the memory of GPU 1 were still in use .* 2 looks"):
        utils.wait_for_gpu(1, retry=2, delay_s=0)
    assert utils.wait_for_gpu(0, target_util=0.5) is True
    with pytest.raises(ValueError, match="There is no GPU '7' on this host; there are 0, GPU-a, 1, GPU-b"):
        utils.wait_for_gpu(7)
    with pytest.raises(TypeError, match="number or the UUID of a GPU, got 1.5"):
        utils.wait_for_gpu(1.5)
    with pytest.raises(ValueError, match="`gpu_memory_limit`.*give `target_util`"):
        utils.wait_for_gpu(0, gpu_memory_limit=0.1)
    monkeypatch.setattr(util.mltoolkit, "get_gpu_ids", list)
    with pytest.raises(RuntimeError, match=r"holds no GPU. Give the trial one with `tune.with_resources"):
        utils.wait_for_gpu()
    monkeypatch.setattr(util.mltoolkit, "get_gpu_ids", lambda: ["GPU-a"])
    assert utils.wait_for_gpu() is True
    gpus("echo '0, GPU-a, [N/A], [N/A]'")
    with pytest.raises(RuntimeError, match="cannot learn from `nvidia-smi` what memory is in use"):
        utils.wait_for_gpu(0)
    gpus("exit 9")
    with pytest.raises(RuntimeError, match=r"cannot learn from `nvidia-smi`.* 9"):
        utils.wait_for_gpu(0)
