"""Episodes that show how good the policy is, apart from those it learns from."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from mltoolkit.rllib.algorithms._results import TOP_LEVEL, episode_metrics, fault_tolerance, runner_metrics
from mltoolkit.rllib.utils.metrics.metrics_logger import MetricsLogger

if TYPE_CHECKING:
    from mltoolkit.rllib.algorithms.algorithm import Algorithm

__all__ = ["Evaluator"]


class Evaluator:
    """Evaluates an algorithm as ``config.evaluation(...)`` says.

    Parameters
    ----------
    algorithm : Algorithm
    seed : tuple of int
        What the environments' seeds are derived from.
    """

    def __init__(self, algorithm: Algorithm, seed: tuple[int, ...]) -> None:
        self._algorithm = algorithm
        self._seed = seed
        self._metrics = MetricsLogger()
        self._num_steps = 0
        self._num_episodes = 0
        self._config: Any = None
        self.group: Any = None

    def evaluate(
        self,
        *,
        video: str | os.PathLike[str] | None = None,
        num_episodes: int | None = None,
        explore: bool | None = None,
        max_steps: int | None = None,
        fps: float | None = None,
    ) -> dict[str, Any]:
        """Run an evaluation and, with `video`, record an episode."""
        algorithm, config = self._algorithm, self._algorithm.config
        group = self._runners()
        algorithm.callbacks.call("on_evaluate_start", algorithm=algorithm, metrics_logger=algorithm.metrics)
        if config.custom_evaluation_function is not None:
            group.take_state(algorithm.runner_state())
            result = config.custom_evaluation_function(algorithm, group)
            if not isinstance(result, dict):
                raise TypeError(
                    f"`custom_evaluation_function` must return a dict of metrics, got {type(result).__name__}."
                )
        else:
            explore = self._config.explore if explore is None else explore
            result = self._result(self._fixed(group, num_episodes, explore))
        if video is not None:
            result["video"] = self._record(video, bool(explore), max_steps, fps)
        algorithm.callbacks.call(
            "on_evaluate_end", algorithm=algorithm, metrics_logger=algorithm.metrics, evaluation_metrics=result
        )
        return result

    def begin_parallel(self) -> _ParallelEvaluation:
        """Start an evaluation beside training; its runners have the weights of this moment."""
        self._runners()
        return _ParallelEvaluation(self, self._algorithm.runner_state())

    def get_state(self) -> dict[str, Any]:
        """Where the evaluation's environments are."""
        group = self.group
        states = {} if group is None else {str(index): state for index, state in group.get_states().items()}
        return {"runners": states, "num_steps": self._num_steps, "num_episodes": self._num_episodes}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`get_state` gave."""
        self._num_steps, self._num_episodes = state["num_steps"], state["num_episodes"]
        if state["runners"]:
            group = self._runners()
            group.set_states(
                {int(index): runner for index, runner in state["runners"].items()}, self._algorithm.runner_state()
            )

    def stop(self) -> None:
        """End the processes."""
        if self.group is not None:
            self.group.stop()

    def _runners(self) -> Any:
        if self.group is None:
            from mltoolkit.rllib.env.env_runner_group import EnvRunnerGroup

            algorithm = self._algorithm
            self._config = algorithm.config.get_evaluation_config_object()
            self.group = EnvRunnerGroup(
                self._config,
                algorithm.config.evaluation_num_env_runners,
                self._seed,
                algorithm._on_recreated(is_evaluation=True),
            )
        return self.group

    def _fixed(self, group: Any, num_episodes: int | None, explore: bool) -> list[dict[str, Any]]:
        config = self._algorithm.config
        duration = config.evaluation_duration
        # "auto" is as long as training takes; without training beside it, ten episodes.
        amount = num_episodes or (10 if duration == "auto" else duration)
        unit = "episodes" if num_episodes is not None or duration == "auto" else config.evaluation_duration_unit
        return self.run(group, self._algorithm.runner_state(), amount, unit, explore)

    def run(self, group: Any, state: Any, amount: int, unit: str, explore: bool) -> list[dict[str, Any]]:
        """Let the runners share an amount of episodes or steps."""
        config, indices = self._algorithm.config, group.indices
        name = "num_episodes" if unit == "episodes" else "num_env_steps"
        shares = {index: amount // len(indices) + (i < amount % len(indices)) for i, index in enumerate(indices)}
        results: list[dict[str, Any]] = group.evaluate(
            state,
            lambda index: {
                name: shares[index],
                "explore": explore,
                "reset": config.evaluation_force_reset_envs_before_iteration,
            },
            timeout_s=config.evaluation_sample_timeout_s,
        )
        return results

    def _result(self, parts: list[dict[str, Any]]) -> dict[str, Any]:
        returns = [value for part in parts for value in part["episodes"]["returns"]]
        lengths = [value for part in parts for value in part["episodes"]["lengths"]]
        custom: dict[str, list[float]] = {}
        hist: dict[str, list[float]] = {}
        for part in parts:
            for metrics in part["episodes"]["custom_metrics"]:
                for name, value in metrics.items():
                    custom.setdefault(name, []).append(float(value))
            for name, values in part["episodes"]["hist_data"].items():
                hist.setdefault(name, []).extend(values)
        steps = sum(part["num_env_steps"] for part in parts)
        self._num_steps += steps
        self._num_episodes += len(returns)
        keep = self._algorithm.config.keep_per_episode_custom_metrics
        metrics = episode_metrics(returns, lengths, custom, hist, keep)
        runners = {
            **metrics,
            "num_episodes": len(returns),
            "episodes_this_iter": len(returns),
            "num_episodes_lifetime": self._num_episodes,
            "num_env_steps_sampled": steps,
            "num_env_steps_sampled_lifetime": self._num_steps,
            "num_faulty_episodes": sum(part["episodes"]["num_faulty"] for part in parts),
            "timed_out": any(part["timed_out"] for part in parts),
            **runner_metrics(self._metrics, parts),
        }
        return {
            "env_runners": runners,
            **{name: metrics[name] for name in TOP_LEVEL},
            "episodes_this_iter": len(returns),
            "timesteps_this_iter": steps,
            "num_env_steps_sampled_this_iter": steps,
            "num_agent_steps_sampled_this_iter": steps,
            **fault_tolerance(self.group),
        }

    def _record(self, path: Any, explore: bool, max_steps: int | None, fps: float | None) -> str:
        from mltoolkit.rllib.env.recording import record_episode

        algorithm, config = self._algorithm, self._config
        if algorithm.pipeline.wants_previous:
            raise NotImplementedError(
                "Episodes of policies that look at previous actions or rewards (`lstm_use_prev_action`, "
                "`lstm_use_prev_reward`) cannot be recorded; `evaluate()` without `video` works."
            )
        server = algorithm._actions()
        # One episode from its start on: stacked frames and recurrent states go from step to step.
        stream, states = algorithm.pipeline.stream(), None

        def act(observation: Any) -> Any:
            nonlocal states
            actions, states, _ = server.compute([observation], states, explore, stream=stream)
            return actions[0].item() if np.ndim(actions[0]) == 0 else actions[0]

        recorded = record_episode(
            config.env,
            act,
            path,
            max_steps=max_steps or 10_000,
            env_config=config.env_config,
            horizon=config.horizon,
            fps=fps,
            seed=int(np.random.SeedSequence((*self._seed, 0)).generate_state(1)[0]) >> 1,
        )
        return os.fspath(recorded.path)


class _ParallelEvaluation:
    """An evaluation in a thread that waits for the evaluating processes."""

    def __init__(self, evaluator: Evaluator, state: dict[str, Any]) -> None:
        self._evaluator = evaluator
        self._state = dict(state)
        self._parts: list[dict[str, Any]] = []
        self._error: BaseException | None = None
        self._over = threading.Event()
        algorithm = evaluator._algorithm
        algorithm.callbacks.call("on_evaluate_start", algorithm=algorithm, metrics_logger=algorithm.metrics)
        self._thread = threading.Thread(target=self._run, name="evaluation", daemon=True)
        self._thread.start()

    def training_is_over(self) -> None:
        """Let an evaluation of duration ``"auto"`` come to its end."""
        self._over.set()

    def result(self) -> dict[str, Any]:
        """The evaluation's result; waits for it."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        evaluator = self._evaluator
        algorithm = evaluator._algorithm
        result = evaluator._result(self._parts)
        algorithm.callbacks.call(
            "on_evaluate_end", algorithm=algorithm, metrics_logger=algorithm.metrics, evaluation_metrics=result
        )
        return result

    def _run(self) -> None:
        evaluator = self._evaluator
        config, group = evaluator._algorithm.config, evaluator.group
        explore = evaluator._config.explore
        try:
            if config.evaluation_duration != "auto":
                unit = config.evaluation_duration_unit
                self._parts += evaluator.run(group, self._state, config.evaluation_duration, unit, explore)
                return
            while not self._parts or not self._over.is_set():
                self._parts += evaluator.run(group, self._state, len(group.indices), "episodes", explore)
        except BaseException as error:
            self._error = error
