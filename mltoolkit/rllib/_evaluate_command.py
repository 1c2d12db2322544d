"""``mltoolkit rllib evaluate`` and ``rollout``."""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
from pathlib import Path
from typing import Any

from mltoolkit._processes import CommandError
from mltoolkit.rllib._train_command import one_line

__all__ = ["evaluate"]

_VIDEO_SUFFIXES = (".mp4", ".gif")
_OUT_SUFFIXES = (".json", ".csv")
_DEFAULT_EPISODES = 10


def evaluate(options: argparse.Namespace) -> None:
    """Run episodes with the policy of a checkpoint, and print the reward of each.

    Raises
    ------
    CommandError
        If the checkpoint cannot be used, or a file not be written.
    """
    _check_file(options.video, "--video", _VIDEO_SUFFIXES)
    _check_file(options.out, "--out", _OUT_SUFFIXES)
    algorithm = _load(options)
    try:
        episodes, steps = _episodes(algorithm, options)
        if options.out is not None:
            _write(options, episodes, steps)
        if options.video is not None:
            _record(algorithm, options)
    finally:
        algorithm.stop()


def _check_file(path: str | None, option: str, suffixes: tuple[str, ...]) -> None:
    """Refuse before the work what could not be written after it."""
    if path is None:
        return
    file = Path(path)
    if file.suffix not in suffixes:
        raise CommandError(f"{option} must be a file {' or '.join(suffixes)}, got {path!r}.")
    if not file.absolute().parent.is_dir():
        raise CommandError(f"{option}: there is no folder {str(file.absolute().parent)!r}.")


def _load(options: argparse.Namespace) -> Any:
    """The algorithm of the checkpoint, with nothing of its training set-up running."""
    from mltoolkit.rllib.algorithms._checkpoints import read_manifest
    from mltoolkit.rllib.algorithms._settings import MissingSettingsError
    from mltoolkit.rllib.algorithms.registry import get_algorithm_class
    from mltoolkit.rllib.env.errors import EnvError

    try:
        kind = read_manifest(options.checkpoint)["algorithm"]
        if options.run is not None:
            get_algorithm_class(options.run)
            if options.run != kind:
                raise CommandError(f"{options.checkpoint} is a checkpoint of {kind}, not of {options.run}.")
        changes = dict(options.config)
        if options.env is not None:
            changes["env"] = options.env
        changes |= {"num_env_runners": 0, "num_learners": 0, "evaluation_num_env_runners": 0, "log_dir": None}
        changes.pop("num_workers", None)
        return get_algorithm_class(kind).from_checkpoint(options.checkpoint, **changes)
    except MissingSettingsError as error:
        raise CommandError(
            f"no checkpoint can have modules imported, and this one needs some: {'; '.join(error.reasons)}. Name an "
            "environment by --env; with other parts of a program, evaluate in Python: "
            "`Algorithm.from_checkpoint(path, config=config).evaluate()`."
        ) from error
    except (ValueError, TypeError, KeyError, NotImplementedError, ImportError, OSError, EnvError) as error:
        raise CommandError(one_line(error)) from error


def _record(algorithm: Any, options: argparse.Namespace) -> None:
    from mltoolkit.rllib.env.errors import EnvError

    try:
        result = algorithm.evaluate(video=options.video, num_episodes=1, explore=_explore(algorithm, options))
    except (ImportError, OSError, EnvError, ValueError) as error:
        raise CommandError(f"no video: {one_line(error)}") from error
    sys.stdout.write(f"Video: {result['video']}\n")


def _explore(algorithm: Any, options: argparse.Namespace) -> bool:
    if options.explore is not None:
        return bool(options.explore)
    return bool(algorithm.config.get_evaluation_config_object().explore)


def _episodes(algorithm: Any, options: argparse.Namespace) -> tuple[list[dict[str, float]], int]:
    """Run and print episodes until there are enough, or enough steps."""
    from mltoolkit.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

    config = algorithm.config.get_evaluation_config_object()
    config.num_envs_per_env_runner = 1
    if options.render:
        config.env_config = {**config.env_config, "render_mode": "human"}
    # As in RLlib's commands, 0 episodes or steps is no limit.
    max_steps: int | None = options.steps or None
    max_episodes = options.episodes or (_DEFAULT_EPISODES if max_steps is None else math.inf)
    state, explore = algorithm.runner_state(), _explore(algorithm, options)
    episodes: list[dict[str, float]] = []
    steps = 0
    runner = SingleAgentEnvRunner(config, 0, seed=(options.seed,))
    try:
        while len(episodes) < max_episodes and (max_steps is None or steps < max_steps):
            left = None if max_steps is None else max_steps - steps
            part = runner.evaluate(
                state,
                num_episodes=1,
                num_env_steps=left,
                explore=explore,
                reset=not steps,
                timeout_s=math.inf,
            )
            steps += part["num_env_steps"]
            ended = part["episodes"]
            for reward, length in zip(ended["returns"], ended["lengths"], strict=True):
                sys.stdout.write(f"Episode #{len(episodes)}: reward: {float(reward)}\n")
                episodes.append({"reward": float(reward), "length": int(length)})
            sys.stdout.flush()
    finally:
        _print_summary(episodes, steps)
        runner.stop()
    return episodes, steps


def _summary(episodes: list[dict[str, float]]) -> dict[str, float]:
    rewards = [episode["reward"] for episode in episodes]
    mean = sum(rewards) / len(rewards)
    deviation = math.sqrt(sum((reward - mean) ** 2 for reward in rewards) / len(rewards))
    length = sum(episode["length"] for episode in episodes) / len(episodes)
    return {"mean": mean, "std": deviation, "min": min(rewards), "max": max(rewards), "mean_length": length}


def _print_summary(episodes: list[dict[str, float]], steps: int) -> None:
    if episodes:
        told = _summary(episodes)
        text = (
            f"{len(episodes)} episode{'s' if len(episodes) > 1 else ''}, {steps} steps: mean reward {told['mean']:.2f} "
            f"(standard deviation {told['std']:.2f}, min {told['min']:.2f}, max {told['max']:.2f}), "
            f"mean length {told['mean_length']:.1f}"
        )
    else:
        text = f"No episode ended within {steps} steps."
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _write(options: argparse.Namespace, episodes: list[dict[str, float]], steps: int) -> None:
    try:
        with open(options.out, "w", newline="", encoding="utf-8") as file:
            if options.out.endswith(".csv"):
                writer = csv.writer(file)
                writer.writerow(["episode", "reward", "length"])
                writer.writerows([number, one["reward"], one["length"]] for number, one in enumerate(episodes))
            else:
                summary = _summary(episodes) if episodes else None
                content = {"checkpoint": options.checkpoint, "steps": steps, "summary": summary, "episodes": episodes}
                json.dump(content, file, indent=1)
    except OSError as error:
        raise CommandError(f"cannot write {options.out}: {error.strerror}.") from error
