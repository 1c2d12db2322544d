"""Configurations: defaults, Ray's order of arguments, what is refused and how it is said."""

from __future__ import annotations

import copy
import inspect
import pickle
from pathlib import Path

import pytest

from mltoolkit.air import config as air_config
from mltoolkit.train import CheckpointConfig, FailureConfig, RunConfig, SyncConfig
from mltoolkit.tune.stopper import MaximumIterationStopper


def test_defaults():
    config = RunConfig()
    assert config.storage_path == "~/ray_results"
    assert config.failure_config == FailureConfig(max_failures=0, fail_fast=False)
    assert config.checkpoint_config == CheckpointConfig()
    assert config.sync_config == SyncConfig()
    assert (config.name, config.verbose, config.stop, config.callbacks, config.progress_reporter) == (None,) * 5
    assert config.log_to_file is False
    assert RunConfig(storage_path=None).storage_path is None


def test_arguments_come_in_the_order_that_ray_has():
    assert list(inspect.signature(RunConfig).parameters) == [
        "name",
        "storage_path",
        "storage_filesystem",
        "failure_config",
        "checkpoint_config",
        "sync_config",
        "verbose",
        "stop",
        "callbacks",
        "progress_reporter",
        "log_to_file",
        "local_dir",
        "worker_runtime_env",
    ]
    assert list(inspect.signature(CheckpointConfig).parameters) == [
        "num_to_keep",
        "checkpoint_score_attribute",
        "checkpoint_score_order",
        "checkpoint_frequency",
        "checkpoint_at_end",
    ]
    assert list(inspect.signature(FailureConfig).parameters) == ["max_failures", "fail_fast"]
    assert FailureConfig(3) == FailureConfig(max_failures=3)


def test_representation_shows_what_was_set():
    assert repr(RunConfig()) == "RunConfig()"
    config = RunConfig("wine", checkpoint_config=CheckpointConfig(2), stop={"loss": 1})
    assert repr(config) == "RunConfig(name='wine', checkpoint_config=CheckpointConfig(num_to_keep=2), stop={'loss': 1})"


def test_configurations_compare_copy_and_pickle():
    config = RunConfig("wine", stop={"a": 1}, failure_config=FailureConfig(-1), log_to_file=["a", "b"])
    for again in (copy.deepcopy(config), pickle.loads(pickle.dumps(config))):
        assert again == config
    assert config != RunConfig("beer")


@pytest.mark.parametrize(
    ("config", "kwargs", "near"),
    [
        (RunConfig, {"storage_pth": "x"}, "storage_path"),
        (CheckpointConfig, {"num_to_kep": 1}, "num_to_keep"),
        (FailureConfig, {"max_failure": 1}, "max_failures"),
        (SyncConfig, {"sync_perod": 1}, "sync_period"),
    ],
)
def test_unknown_names_get_the_nearest_one(config, kwargs, near):
    with pytest.raises(
        TypeError, match=f"{config.__name__} has no argument `{next(iter(kwargs))}`. Did you mean `{near}`"
    ):
        config(**kwargs)


@pytest.mark.parametrize("value", [-2, 1.5, True, "3", None])
def test_max_failures_refuses(value):
    with pytest.raises((TypeError, ValueError), match="`FailureConfig.max_failures` must be an integer >= -1"):
        FailureConfig(max_failures=value)


def test_fail_fast():
    assert FailureConfig(fail_fast="RAISE").fail_fast == "raise"
    assert FailureConfig(fail_fast=True).fail_fast is True
    with pytest.raises(ValueError, match="must be True, False or 'raise', got 'always'"):
        FailureConfig(fail_fast="always")
    with pytest.raises(ValueError, match="`max_failures` must be 0 with `fail_fast='raise'`, got 2"):
        FailureConfig(max_failures=2, fail_fast="raise")


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({"num_to_keep": 0}, "`CheckpointConfig.num_to_keep` must be an integer >= 1 or None to keep all, got 0"),
        ({"num_to_keep": 1.0}, "num_to_keep"),
        ({"checkpoint_score_order": "low"}, "must be 'max' or 'min', got 'low'"),
        ({"checkpoint_score_attribute": 3}, "must be the name of a metric, got 3"),
        ({"checkpoint_frequency": -1}, "`CheckpointConfig.checkpoint_frequency` must be an integer >= 0, got -1"),
        ({"checkpoint_at_end": "yes"}, "must be True, False or None, got 'yes'"),
    ],
)
def test_checkpoint_config_refuses(kwargs, text):
    with pytest.raises((TypeError, ValueError)) as caught:
        CheckpointConfig(**kwargs)
    assert text in str(caught.value)


def test_sync_config_takes_its_defaults_only():
    assert SyncConfig(sync_period=300, sync_timeout=1800, syncer=None) == SyncConfig(syncer=None)
    with pytest.raises(
        NotImplementedError, match=r"`SyncConfig.upload_dir='s3://b'` has no meaning here.*`RunConfig.storage_path`"
    ):
        SyncConfig(upload_dir="s3://b")
    with pytest.raises(NotImplementedError, match="`SyncConfig.sync_period=10`"):
        SyncConfig(sync_period=10)
    with pytest.raises(NotImplementedError, match="`SyncConfig.sync_artifacts=True`.*into a checkpoint"):
        SyncConfig(sync_artifacts=True)


def test_storage_path_is_a_folder(tmp_path):
    assert RunConfig(storage_path=tmp_path).storage_path == str(tmp_path)
    assert RunConfig(storage_path=f"file://{tmp_path}").storage_path == str(tmp_path)
    for url in ("s3://bucket/runs", "gs://bucket", "hdfs://host:1/x"):
        with pytest.raises(NotImplementedError, match=f"`RunConfig.storage_path='{url}'` is a URL.*mounted folder"):
            RunConfig(storage_path=url)
    with pytest.raises(NotImplementedError, match="`RunConfig.storage_filesystem=.*mounted folder"):
        RunConfig(storage_filesystem=object())
    for bad in ("", b"runs"):
        with pytest.raises(TypeError, match="must be a folder or None"):
            RunConfig(storage_path=bad)


def test_local_dir_is_the_older_name():
    assert RunConfig(local_dir="runs").storage_path == "runs"
    assert RunConfig(local_dir=Path("runs"), storage_path="runs").storage_path == "runs"
    with pytest.raises(ValueError, match="two names for one thing"):
        RunConfig(local_dir="runs", storage_path="other")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0", 3])
def test_name_is_that_of_a_folder(name):
    with pytest.raises(ValueError, match="`RunConfig.name` must be the name of a folder, without slashes"):
        RunConfig(name=name)


class NamedCallback:
    pass


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({"failure_config": 3}, "`RunConfig.failure_config` must be a FailureConfig, got 3"),
        ({"checkpoint_config": {"num_to_keep": 1}}, "must be a CheckpointConfig, got {'num_to_keep': 1}"),
        ({"verbose": 4}, "must be 0, 1, 2, 3 or None, got 4"),
        ({"stop": 3}, "`RunConfig.stop` must be a dict of bounds, a function"),
        ({"callbacks": NamedCallback()}, "`RunConfig.callbacks` must be a list of callbacks"),
        ({"callbacks": [NamedCallback]}, "got the class NamedCallback: make one with `NamedCallback()`"),
        ({"log_to_file": ("a", "b", "c")}, "a pair of file names, got ('a', 'b', 'c')"),
        ({"log_to_file": ""}, "got ''"),
    ],
)
def test_run_config_refuses(kwargs, text):
    with pytest.raises((TypeError, ValueError)) as caught:
        RunConfig(**kwargs)
    assert text in str(caught.value)


def test_run_config_takes_every_form_of_stop():
    for stop in ({"a": 1}, lambda trial_id, result: True, MaximumIterationStopper(1), [MaximumIterationStopper(1)]):
        assert RunConfig(stop=stop).stop is stop


def test_older_paths_lead_to_the_same_classes():
    assert air_config.RunConfig is RunConfig
    assert air_config.CheckpointConfig is CheckpointConfig
    assert air_config.FailureConfig is FailureConfig
