"""``mltoolkit rllib train``."""

from __future__ import annotations

import argparse
import difflib
import importlib
import math
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mltoolkit._processes import CommandError

if TYPE_CHECKING:
    from mltoolkit.tune import ExperimentAnalysis
    from mltoolkit.tune.experiment.trial import Trial

__all__ = ["train"]

# What an experiment in a file may say, under RLlib's names, beside `run`, `env` and `config`.
_FILE_KEYS = (
    "stop",
    "num_samples",
    "checkpoint_freq",
    "checkpoint_at_end",
    "checkpoint_config",
    "keep_checkpoints_num",
    "checkpoint_score_attr",
    "local_dir",
    "storage_path",
    "restore",
    "max_failures",
    "time_budget_s",
    "metric",
    "mode",
    "seed",
)
_RETURN = "episode_reward_mean"


def train(options: argparse.Namespace) -> None:
    """Run what the command line asks for, and say where the checkpoints are.

    Raises
    ------
    CommandError
        If options contradict each other, settings are wrong, or a trial failed.
    """
    experiments = _from_file(options) if options.words or options.config_file else [_from_options(options)]
    for experiment in experiments:
        experiment["config"] = _checked_config(experiment["run"], experiment["config"])
    _start_runtime(options)
    import mltoolkit

    for experiment in experiments:
        _fit_to_cpus(experiment, mltoolkit.cluster_resources().get("CPU", 0))
        _run(experiment, options.verbose)


def _start_runtime(options: argparse.Namespace) -> None:
    import mltoolkit

    given = {"num_cpus": options.num_cpus, "num_gpus": options.num_gpus, "address": options.address}
    given = {name: value for name, value in given.items() if value is not None}
    if given or not mltoolkit.is_initialized():
        try:
            mltoolkit.init(**given)
        except (OSError, RuntimeError, ValueError) as error:
            raise CommandError(one_line(error)) from error


def _from_options(options: argparse.Namespace) -> dict[str, Any]:
    config: dict[str, Any] = {}
    if options.preset is not None:
        from mltoolkit.rllib.algorithms.ppo.presets import get_preset

        try:
            config = get_preset(options.preset)
        except ValueError as error:
            raise CommandError(str(error)) from error
    _merge(config, options.config)
    given = {"env": options.env, "framework": options.framework, "seed": options.seed}
    config |= {name: value for name, value in given.items() if value is not None}
    if config.get("env") is None:
        raise CommandError("no environment was given: add --env NAME, such as --env CartPole-v1.")
    if options.resume and options.experiment_name is None:
        raise CommandError("--resume needs --experiment-name, the name of the experiment to go on with.")
    at_end = options.checkpoint_at_end
    arguments = {
        "name": options.experiment_name,
        "stop": options.stop,
        "num_samples": options.num_samples,
        "storage_path": options.storage_path,
        "checkpoint_freq": options.checkpoint_freq,
        "checkpoint_at_end": True if at_end is None else at_end,
        "keep_checkpoints_num": options.keep_checkpoints_num,
        "checkpoint_score_attr": options.checkpoint_score_attr,
        "restore": options.restore,
        "max_failures": options.max_failures,
        "resume": options.resume or None,
    }
    return {"run": options.run or "PPO", "config": config, "arguments": _given(arguments)}


def _from_file(options: argparse.Namespace) -> list[dict[str, Any]]:
    words = options.words
    if words and (words[0] != "file" or len(words) != 2 or options.config_file):
        raise CommandError(f"`train` takes options, or `file FILE`; got {shlex.join(words)!r}.")
    misplaced = [
        "--" + name.replace("_", "-")
        for name in ("run", "env", "preset", "config", "stop", "num_samples", "experiment_name", "restore", "seed")
        if getattr(options, name)
    ]
    if misplaced:
        raise CommandError(f"{', '.join(misplaced)} cannot be used with a file of experiments; write it into the file.")
    path = options.config_file or words[1]
    experiments = []
    for name, given in _read_yaml(path).items():
        if not isinstance(given, Mapping) or not given.get("run"):
            raise CommandError(f"{path}: experiment {name!r} must say which algorithm to run, such as `run: PPO`.")
        known = ("run", "env", "config", *_FILE_KEYS)
        for key in given:
            if key not in known:
                near = difflib.get_close_matches(str(key), known, 1)
                hint = f" Did you mean {near[0]!r}?" if near else f" It may have {', '.join(known)}."
                raise CommandError(f"{path}: experiment {name!r} has {key!r}, which is unknown.{hint}")
        config = dict(given.get("config") or {})
        if given.get("env") is not None:
            config["env"] = given["env"]
        if config.get("env") is None:
            raise CommandError(f"{path}: experiment {name!r} must have an environment, such as `env: CartPole-v1`.")
        arguments = {"checkpoint_at_end": True, **{key: given[key] for key in _FILE_KEYS if key in given}}
        if "checkpoint_config" in given and "checkpoint_at_end" not in given:
            del arguments["checkpoint_at_end"]
        if options.storage_path is not None:
            arguments.pop("local_dir", None)
            arguments["storage_path"] = options.storage_path
        if options.checkpoint_freq is not None:
            arguments["checkpoint_freq"] = options.checkpoint_freq
        if options.resume:
            arguments["resume"] = True
        experiments.append({"run": given["run"], "config": config, "arguments": {"name": str(name), **arguments}})
    return experiments


def _read_yaml(path: str) -> dict[Any, Any]:
    yaml: Any = importlib.import_module("yaml")
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise CommandError(f"cannot read {path}: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CommandError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or not content:
        raise CommandError(f"{path} must hold experiments by name, each with `run`, `env`, `stop` and `config`.")
    return content


def _checked_config(run: str, config: dict[str, Any]) -> dict[str, Any]:
    """Refuse what every trial would fail of, before any starts."""
    from mltoolkit.rllib.algorithms.registry import get_algorithm_class
    from mltoolkit.rllib.env.errors import EnvError
    from mltoolkit.rllib.env.registration import resolve_env

    try:
        get_algorithm_class(run).get_default_config().update_from_dict(config)
        if isinstance(config["env"], str):
            resolve_env(config["env"])
    except (ValueError, TypeError, KeyError, NotImplementedError, ImportError, EnvError) as error:
        raise CommandError(one_line(error)) from error
    return config


def _fit_to_cpus(experiment: dict[str, Any], num_cpus: float) -> None:
    """Where nobody said how many runners there are to be, take no more than the CPUs have room for."""
    from mltoolkit.rllib.algorithms.registry import get_algorithm_class

    config = experiment["config"]
    if any(name in config for name in ("num_env_runners", "num_workers", "num_rollout_workers")):
        return
    algorithm_class = get_algorithm_class(experiment["run"])
    settings = algorithm_class.get_default_config()
    wanted = settings.num_env_runners
    while settings.num_env_runners:
        # The search space may hold other settings that decide on resources; those are for Tune to judge.
        bundles = algorithm_class.default_resource_request(settings).bundles
        if sum(bundle.get("CPU", 0) for bundle in bundles) <= num_cpus:
            break
        settings.num_env_runners -= 1
    if settings.num_env_runners < wanted:
        config["num_env_runners"] = settings.num_env_runners
        sys.stderr.write(
            f"There are {num_cpus:g} CPUs: num_env_runners is {settings.num_env_runners} instead of {wanted}.\n"
        )


def _run(experiment: dict[str, Any], verbose: int | None) -> None:
    from mltoolkit import tune
    from mltoolkit.tune.error import TuneError

    if verbose is not None:
        experiment["arguments"]["verbose"] = verbose
    try:
        analysis = tune.run(
            experiment["run"], config=experiment["config"], raise_on_failed_trial=False, **experiment["arguments"]
        )
    except (TuneError, ValueError, TypeError, NotImplementedError, OSError) as error:
        raise CommandError(one_line(error)) from error
    _report(analysis, experiment["run"])


def _report(analysis: ExperimentAnalysis, run: str) -> None:
    """Say what is there now and what to do with it."""
    trials = analysis.trials
    saved = [trial for trial in trials if trial.checkpoint is not None]
    lines = []
    if saved:
        lines.append("Last checkpoint:" if len(saved) == 1 else "Last checkpoints:")
        for trial in saved:
            reached = trial.last_result.get(_RETURN)
            shown = f"  (mean return {reached:.1f})" if isinstance(reached, float) and reached == reached else ""
            assert trial.checkpoint is not None
            lines.append(f"  {trial.checkpoint.path}{shown}")
        best = max(saved, key=_reached)
        assert best.checkpoint is not None
        lines.append("Try it:" if len(saved) == 1 else "Try the best:")
        env = best.config.get("env")
        # What a checkpoint does not import by itself.
        named = f" --env {shlex.quote(env)}" if isinstance(env, str) and (":" in env or "." in env) else ""
        lines.append(f"  mltoolkit rllib evaluate {shlex.quote(best.checkpoint.path)} --run {run}{named} --episodes 10")
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()
    failed = [trial for trial in trials if trial.status == "ERROR"]
    if failed:
        raise CommandError(
            f"{len(failed)} of {len(trials)} trials failed. The first, {failed[0]}: {_first_line(failed[0])}"
        )
    if any(not trial.is_finished() for trial in trials):
        sys.stderr.write(
            f"Interrupted. To go on: the same command with --resume --experiment-name {Path(str(analysis.experiment_path)).name}\n"
        )
        raise KeyboardInterrupt


def _reached(trial: Trial) -> float:
    value = trial.last_result.get(_RETURN)
    return float(value) if isinstance(value, (int, float)) and value == value else -math.inf


def _first_line(trial: Trial) -> str:
    return one_line(trial.error) if trial.error is not None else f"see {trial.error_file}"


def _given(arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not None}


def _merge(config: dict[str, Any], changes: dict[str, Any]) -> None:
    """Put changes over the settings of a preset, within `model` too."""
    for name, value in changes.items():
        if name == "model" and isinstance(value, dict) and isinstance(config.get(name), dict):
            config[name] = config[name] | value
        else:
            config[name] = value


def one_line(error: BaseException) -> str:
    """An error's message without its line breaks."""
    # The text of a KeyError is its message quoted.
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    return " ".join(str(text).split()) or type(error).__name__
