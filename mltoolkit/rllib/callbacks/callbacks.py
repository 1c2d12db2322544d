"""Hooks into sampling, training and evaluation."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mltoolkit.rllib.algorithms.algorithm import Algorithm
    from mltoolkit.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
    from mltoolkit.rllib.env.single_agent_episode import SingleAgentEpisode
    from mltoolkit.rllib.utils.metrics.metrics_logger import MetricsLogger

__all__ = ["CallbackCaller", "RLlibCallback"]

_EPISODE_HOOKS = ("on_episode_created", "on_episode_start", "on_episode_step", "on_episode_end")


class RLlibCallback:
    """Subclass it, define what is wanted, and give the class to ``config.callbacks(...)``.

    The hooks of episodes and samples run in the processes of the environment runners, the others where the algorithm
    is. A hook may name any of the arguments below, and those of RLlib's older stack: ``worker`` (the environment
    runner), ``base_env`` (the vector environment) and ``policies``; what it does not name it is not given. Metrics go
    through ``metrics_logger.log_value(key, value)`` into ``result["env_runners"]`` (hooks of episodes) or the result
    (others); those set in ``episode.custom_metrics`` appear as ``custom_metrics/<name>_mean``, ``_min`` and ``_max``.
    """

    def on_algorithm_init(self, *, algorithm: Algorithm, metrics_logger: MetricsLogger, **kwargs: Any) -> None:
        """The algorithm is built."""

    def on_train_result(
        self, *, algorithm: Algorithm, metrics_logger: MetricsLogger, result: dict[str, Any], **kwargs: Any
    ) -> None:
        """An iteration is done; `result` may be changed."""

    def on_evaluate_start(self, *, algorithm: Algorithm, metrics_logger: MetricsLogger, **kwargs: Any) -> None:
        """An evaluation begins."""

    def on_evaluate_end(
        self, *, algorithm: Algorithm, metrics_logger: MetricsLogger, evaluation_metrics: dict[str, Any], **kwargs: Any
    ) -> None:
        """An evaluation is done; `evaluation_metrics` may be changed."""

    def on_env_runners_recreated(
        self,
        *,
        algorithm: Algorithm,
        env_runner_group: Any,
        env_runner_indices: list[int],
        is_evaluation: bool,
        **kwargs: Any,
    ) -> None:
        """Processes of environment runners were lost and replaced."""

    def on_checkpoint_loaded(self, *, algorithm: Algorithm, **kwargs: Any) -> None:
        """A checkpoint was restored."""

    def on_environment_created(
        self,
        *,
        env_runner: SingleAgentEnvRunner,
        metrics_logger: MetricsLogger,
        env: Any,
        env_context: Any,
        **kwargs: Any,
    ) -> None:
        """A runner has made its environments; `env` is the vector environment."""

    def on_episode_created(
        self,
        *,
        episode: SingleAgentEpisode,
        env_runner: SingleAgentEnvRunner,
        metrics_logger: MetricsLogger,
        env: Any,
        env_index: int,
        rl_module: Any,
        **kwargs: Any,
    ) -> None:
        """An episode object is made, before the environment's reset is recorded in it."""

    def on_episode_start(
        self,
        *,
        episode: SingleAgentEpisode,
        env_runner: SingleAgentEnvRunner,
        metrics_logger: MetricsLogger,
        env: Any,
        env_index: int,
        rl_module: Any,
        **kwargs: Any,
    ) -> None:
        """The environment was reset."""

    def on_episode_step(
        self,
        *,
        episode: SingleAgentEpisode,
        env_runner: SingleAgentEnvRunner,
        metrics_logger: MetricsLogger,
        env: Any,
        env_index: int,
        rl_module: Any,
        **kwargs: Any,
    ) -> None:
        """The environment took a step."""

    def on_episode_end(
        self,
        *,
        episode: SingleAgentEpisode,
        env_runner: SingleAgentEnvRunner,
        metrics_logger: MetricsLogger,
        env: Any,
        env_index: int,
        rl_module: Any,
        **kwargs: Any,
    ) -> None:
        """The episode ended, its last step recorded."""

    def on_sample_end(
        self, *, env_runner: SingleAgentEnvRunner, metrics_logger: MetricsLogger, samples: dict[str, Any], **kwargs: Any
    ) -> None:
        """A runner has collected its part of a batch, time-major arrays."""


class CallbackCaller:
    """All callbacks of a configuration: classes and single functions, called with the arguments that each names.

    Parameters
    ----------
    config : AlgorithmConfig
    """

    def __init__(self, config: Any) -> None:
        classes = config.callbacks_class
        classes = list(classes) if isinstance(classes, (list, tuple)) else [classes]
        self.instances = [cls() for cls in classes if cls is not None]
        self._hooks: dict[str, list[Callable[..., None]]] = {}
        for name in [name for name in dir(RLlibCallback) if name.startswith("on_")]:
            hooks = [
                getattr(instance, name)
                for instance in self.instances
                if getattr(type(instance), name, None) not in (None, getattr(RLlibCallback, name))
            ]
            functions = getattr(config, f"callbacks_{name}", None) or []
            hooks.extend(functions if isinstance(functions, (list, tuple)) else [functions])
            if hooks:
                self._hooks[name] = [_tolerant(hook) for hook in hooks]

    @property
    def follows_episodes(self) -> bool:
        """Whether any hook wants to see episodes, which then have to be recorded."""
        return any(name in self._hooks for name in _EPISODE_HOOKS)

    def has(self, name: str) -> bool:
        """Whether anybody listens to a hook."""
        return name in self._hooks

    def call(self, name: str, **arguments: Any) -> None:
        """Call a hook of everybody who has it."""
        for hook in self._hooks.get(name, ()):
            hook(**arguments)


def _tolerant(hook: Callable[..., None]) -> Callable[..., None]:
    """A function that leaves out the arguments which `hook` does not name."""
    parameters = inspect.signature(hook).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return hook
    names = {p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
    return lambda **arguments: hook(**{name: value for name, value in arguments.items() if name in names})
