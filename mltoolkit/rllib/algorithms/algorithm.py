"""Training, evaluation, checkpoints: what all algorithms share."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from mltoolkit.rllib.algorithms import _checkpoints
from mltoolkit.rllib.algorithms._checkpoints import CheckpointError, SavedCheckpoint
from mltoolkit.rllib.algorithms._evaluation import Evaluator
from mltoolkit.rllib.algorithms._results import EpisodeWindow, fault_tolerance, train_result
from mltoolkit.rllib.algorithms._serving import ActionServer
from mltoolkit.rllib.callbacks.callbacks import CallbackCaller
from mltoolkit.rllib.utils.metrics.metrics_logger import MetricsLogger
from mltoolkit.tune import PlacementGroupFactory, Trainable

if TYPE_CHECKING:
    from mltoolkit.rllib.algorithms.algorithm_config import AlgorithmConfig

__all__ = ["Algorithm"]

logger = logging.getLogger(__name__)

_MODULE_ID = "default_policy"
# What random numbers are derived from besides the seed, so that no two users of it share them.
_TRAINING, _EVALUATION, _MODULE, _ACTIONS = range(4)


class Algorithm(Trainable):
    """An agent and what trains it; made by ``config.build_algo()``.

    Usable with ``with``, which ends its processes. In a sweep it is a trainable like any other:
    ``tune.Tuner("PPO", param_space=PPOConfig()...)``.

    Parameters
    ----------
    config : AlgorithmConfig or dict, optional
        Settings; a dict may use the old names of RLlib and changes the defaults.
    env : str, class or callable, optional
        The environment, in place of ``config["env"]``.
    logger_creator : callable, optional
        Not supported: results are logged by ``config.reporting(log_dir=...)`` or by Tune.

    Attributes
    ----------
    config : AlgorithmConfig
    callbacks : CallbackCaller
    metrics : MetricsLogger
    env_runner_group : EnvRunnerGroup
    eval_env_runner_group : EnvRunnerGroup or None
    learner_group : LearnerGroup
    observation_space, action_space : gymnasium.Space
        As a single environment has them.
    """

    config: Any
    preloaded_modules = ("torch", "gymnasium")

    def __init__(
        self,
        config: AlgorithmConfig | Mapping[str, Any] | None = None,
        env: Any = None,
        logger_creator: Callable[..., Any] | None = None,
    ) -> None:
        if logger_creator is not None:
            raise ValueError(
                "`logger_creator` is not supported. Files are written by `config.reporting(log_dir=...)`, and in a sweep "
                "by Tune; callbacks see each result in `on_train_result`."
            )
        self._stopped = True
        super().__init__(self._completed(config, env))

    @classmethod
    def get_default_config(cls) -> AlgorithmConfig:
        """The settings that are changed by those given."""
        raise NotImplementedError(f"{cls.__name__} must define `get_default_config`.")

    @classmethod
    def default_resource_request(cls, config: Any) -> PlacementGroupFactory:
        """A bundle for the trial's process, and one for each of its runners, learners and evaluators.

        Parameters
        ----------
        config : AlgorithmConfig or dict

        Returns
        -------
        PlacementGroupFactory
        """
        config = cls._completed(config, None)
        local = config.num_learners == 0
        main = {"CPU": config.num_cpus_for_main_process, **config.custom_resources_for_main_process}
        gpus = max(config.num_gpus, config.num_gpus_per_learner) if local else 0
        if gpus:
            main["GPU"] = gpus
        runner = {"CPU": config.num_cpus_per_env_runner, **config.custom_resources_per_env_runner}
        if config.num_gpus_per_env_runner:
            runner["GPU"] = config.num_gpus_per_env_runner
        bundles = [main] + [dict(runner) for _ in range(config.num_env_runners + config.evaluation_num_env_runners)]
        cpus = 1 if config.num_cpus_per_learner == "auto" else config.num_cpus_per_learner
        learner = {"CPU": cpus, **config.custom_resources_per_learner}
        if config.num_gpus_per_learner:
            learner["GPU"] = config.num_gpus_per_learner
        bundles += [dict(learner) for _ in range(config.num_learners)]
        bundles = [main] + [bundle for bundle in bundles[1:] if any(bundle.values())]
        return PlacementGroupFactory(bundles, strategy=config.placement_strategy)

    @classmethod
    def resource_help(cls, config: Any) -> str:
        """How to ask for less."""
        return (
            "A trial of it takes a CPU for itself and one for each environment runner: lower `num_env_runners` (older name: "
            "`num_workers`), with 0 the trial steps its environments itself, or set `num_cpus_per_env_runner` "
            "(`num_cpus_per_worker`) below 1."
        )

    @classmethod
    def _completed(cls, config: Any, env: Any) -> Any:
        """Settings as an object, whatever form they came in."""
        from mltoolkit.rllib.algorithms.algorithm_config import AlgorithmConfig

        if isinstance(config, AlgorithmConfig):
            complete = config.copy(copy_frozen=False)
        else:
            complete = cls.get_default_config().update_from_dict(dict(config or {}))
        if env is not None:
            complete.environment(env)
        return complete

    # Life

    def setup(self, config: Any) -> None:
        """Make environments, module and learner."""
        # Missing here: a sweep in another process gets settings as a dict.
        config = self.config = self._completed(config, None)
        config.validate()
        if config.env is None:
            raise ValueError(
                "There is no environment to learn in. Name it by `config.environment('CartPole-v1')`, or in the older way "
                f"by `{type(self).__name__}(config=..., env=...)`."
            )
        config.freeze()
        if config.log_level:
            logging.getLogger("mltoolkit.rllib").setLevel(config.log_level)
        seed = config.seed
        self._entropy = int(np.random.SeedSequence().entropy) if seed is None else int(seed)  # type: ignore[arg-type]
        self.callbacks = CallbackCaller(config)
        self.metrics = MetricsLogger()
        self._runner_metrics = MetricsLogger()
        self._window = EpisodeWindow(config.metrics_num_episodes_for_smoothing, config.keep_per_episode_custom_metrics)
        self._steps_sampled = 0
        self._steps_trained = 0
        self._num_faulty = 0
        self._timers: dict[str, float] = {}
        self._server: ActionServer | None = None
        self._result_log: Any = None
        self.weights_version = 0
        self._runner_state: dict[str, Any] | None = None
        self._stopped = False
        try:
            self._build(config)
        except BaseException:
            self.cleanup()
            raise
        self.callbacks.call("on_algorithm_init", algorithm=self, metrics_logger=self.metrics)

    def _build(self, config: Any) -> None:
        from mltoolkit.rllib.connectors.pipeline import build_pipelines
        from mltoolkit.rllib.env.env_runner_group import EnvRunnerGroup

        self._evaluator = Evaluator(self, (self._entropy, _EVALUATION))
        self.env_runner_group = EnvRunnerGroup(
            config, config.num_env_runners, (self._entropy, _TRAINING), self._on_recreated(is_evaluation=False)
        )
        # Processes make their environments while this one imports torch, which takes longer.
        import torch  # noqa: F401

        from mltoolkit.rllib.core.learner.learner_group import LearnerGroup
        from mltoolkit.rllib.core.rl_module.numpy_policy import describe

        self.observation_space, self.action_space = self.env_runner_group.spaces()
        self.pipeline, self.to_env = build_pipelines(config, self.observation_space, self.action_space, 1)
        module = self.fresh_module()
        self.description = describe(module)
        self._module = module
        self.learner_group = LearnerGroup(config=config, module=module)
        if config.log_dir is not None and self._context is None:
            from mltoolkit.rllib.utils.result_logging import ResultLog

            self._result_log = ResultLog(config.log_dir, config.to_dict())

    def fresh_module(self) -> Any:
        """The policy and value networks with their first weights, which the seed fixes."""
        import torch

        from mltoolkit.rllib.core.rl_module.build import build_module

        seeds = np.random.SeedSequence((self._entropy, _MODULE)).generate_state(1, np.uint64)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(seeds[0]) % 2**63)
            return build_module(self.config, self.pipeline.observation_space, self.action_space)

    def cleanup(self) -> None:
        """End the processes of runners and learners."""
        if self._stopped:
            return
        self._stopped = True
        for part in ("_evaluator", "env_runner_group", "learner_group", "_result_log"):
            member = getattr(self, part, None)
            if member is not None:
                (member.close if part == "_result_log" else member.stop)()

    def reset(self, new_config: Any) -> bool:
        """Become an algorithm with other settings; see :meth:`reset_config`."""
        complete = self._completed(new_config, None)
        complete.validate()
        complete.freeze()
        return super().reset(complete)

    def reset_config(self, new_config: Any) -> bool:
        """Become an algorithm with other settings in the same process, which has imported everything already."""
        self.cleanup()
        self.setup(self._completed(new_config, None))
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.stop()

    # Training

    def step(self) -> dict[str, Any]:
        """One iteration: sample and learn, as often as ``reporting`` asks, and evaluate when it is time."""
        if self._stopped:
            raise RuntimeError(f"This {type(self).__name__} was stopped; build another one from its config.")
        config = self.config
        start, episodes_before = time.perf_counter(), self._window.num_episodes
        self._window.begin_iteration()
        steps_before, trained_before = self._steps_sampled, self._steps_trained
        evaluates = bool(config.evaluation_interval) and (self.iteration + 1) % config.evaluation_interval == 0
        evaluation = self._evaluator.begin_parallel() if evaluates and config.evaluation_parallel_to_training else None
        learner_results: dict[str, Any] = {}
        try:
            while True:
                learner_results = self.training_step() or learner_results
                seconds = time.perf_counter() - start
                if seconds < (config.min_time_s_per_iteration or 0):
                    continue
                if self._steps_trained - trained_before < (config.min_train_timesteps_per_iteration or 0):
                    continue
                if self._steps_sampled - steps_before >= (config.min_sample_timesteps_per_iteration or 0):
                    break
        finally:
            if evaluation is not None:
                evaluation.training_is_over()
        steps, trained = self._steps_sampled - steps_before, self._steps_trained - trained_before
        result = self._result(learner_results, steps, trained, self._window.num_episodes - episodes_before, seconds)
        if evaluation is not None:
            result["evaluation"] = evaluation.result()
        elif evaluates:
            result["evaluation"] = self.evaluate()
        if config.log_sys_usage:
            result["perf"] = _system_usage()
        for name, value in self.metrics.reduce().items():
            result.setdefault(name, value)
        self.callbacks.call("on_train_result", algorithm=self, metrics_logger=self.metrics, result=result)
        return result

    def training_step(self) -> dict[str, Any] | None:
        """Sample a batch and learn from it. Subclasses may do something else.

        Returns
        -------
        dict or None
            Results of the learner, by module.
        """
        samples = self.sample()
        return self.update([sample["fragment"] for sample in samples])

    def sample(self) -> list[dict[str, Any]]:
        """Let the runners collect one batch and take up what they saw: episodes, metrics, filters."""
        config, start = self.config, time.perf_counter()
        samples = self.env_runner_group.sample(
            self.runner_state(),
            self._steps_for,
            explore=config.explore,
            complete_episodes=config.batch_mode == "complete_episodes",
        )
        self.pipeline.merge_deltas([sample["connector_delta"] for sample in samples])
        for sample in samples:
            self._window.add(sample["episodes"])
            self._steps_sampled += sample["num_env_steps"]
            self._num_faulty += sample["episodes"]["num_faulty"]
            self._runner_metrics.replay(sample["metrics"])
        self._timers["env_runner_sampling_timer"] = time.perf_counter() - start
        return samples

    def update(self, fragments: list[dict[str, Any]]) -> dict[str, Any]:
        """Update the module from fragments and count it."""
        start = time.perf_counter()
        results: dict[str, Any] = self.learner_group.update(
            fragments, timesteps={"num_env_steps_sampled_lifetime": self._steps_sampled}
        )
        self._steps_trained += sum(int(fragment["loss_mask"].sum()) for fragment in fragments)
        self._changed()
        self._timers["learner_update_timer"] = time.perf_counter() - start
        return results

    def _steps_for(self, index: int) -> int:
        """Environment steps that a runner contributes to a batch."""
        config, runners = self.config, len(self.env_runner_group.indices)
        envs = config.num_envs_per_env_runner
        if config.rollout_fragment_length == "auto":
            # The first runners take what does not divide evenly.
            total, position = config.total_train_batch_size, self.env_runner_group.indices.index(index)
            return max(1, total // runners + (position < total % runners))
        fragment = config.get_rollout_fragment_length(index) * envs
        return fragment * max(1, -(-config.total_train_batch_size // (fragment * runners)))

    def _result(
        self, learner_results: dict[str, Any], steps: int, trained: int, episodes: int, seconds: float
    ) -> dict[str, Any]:
        result = train_result(
            self._window,
            learner_results,
            runner_metrics=self._runner_metrics.reduce(),
            fault_tolerance=fault_tolerance(self.env_runner_group),
            steps=steps,
            trained=trained,
            episodes=episodes,
            num_faulty=self._num_faulty,
            steps_sampled=self._steps_sampled,
            steps_trained=self._steps_trained,
            timers=self._timers,
            seconds=seconds,
        )
        self._num_faulty = 0
        if self._context is None:
            # A sweep keeps the settings of a trial by itself, once.
            result["config"] = self.config.to_dict()
        return result

    def log_result(self, result: dict[str, Any]) -> None:
        """Write a result to the files that ``config.reporting(log_dir=...)`` asks for."""
        if self._result_log is not None:
            self._result_log.write(result)

    def learn(
        self,
        total_timesteps: int | None = None,
        *,
        stop: Mapping[str, Any] | None = None,
        progress_bar: bool | None = None,
    ) -> dict[str, Any]:
        """Train until enough steps are taken or a metric has reached its value.

        Parameters
        ----------
        total_timesteps : int, optional
            Environment steps over the algorithm's lifetime.
        stop : dict of str to number, optional
            Metrics, such as ``{"episode_reward_mean": 475}`` or ``{"env_runners/episode_return_mean": 475}``; training
            ends when one has reached its value.
        progress_bar : bool, optional
            By default one is drawn where there is somebody to see it: in a terminal or a notebook.

        Returns
        -------
        dict
            The last result.

        Raises
        ------
        ValueError
            If neither limit is given, or a metric of ``stop`` is not in the results.
        """
        from mltoolkit.rllib.utils.progress import TrainingProgress

        if total_timesteps is None and not stop:
            raise ValueError(
                "Say when to end: `learn(total_timesteps=...)`, `learn(stop={'episode_reward_mean': ...})` or both."
            )
        with TrainingProgress(total_timesteps=total_timesteps, stop=stop, enabled=progress_bar) as progress:
            while True:
                result = self.train()
                progress.update(result)
                if progress.is_reached(result):
                    return result

    # Evaluation

    def evaluate(
        self,
        parallel_train_future: Any = None,
        *,
        video: str | os.PathLike[str] | None = None,
        num_episodes: int | None = None,
        explore: bool | None = None,
        max_steps: int | None = None,
        fps: float | None = None,
    ) -> dict[str, Any]:
        """Run episodes with the current policy, in environments of their own.

        How many, in how many processes and with what changes of the settings is set by ``config.evaluation(...)``.

        Parameters
        ----------
        parallel_train_future : object, optional
            Not used; older programs give it.
        video : path-like, optional
            Also record one more episode there, as ``.gif`` or ``.mp4``.
        num_episodes : int, optional
            Episodes to run this time.
        explore : bool, optional
            Whether to draw actions this time.
        max_steps : int, optional
            Steps after which the video ends.
        fps : float, optional
            Frames per second of the video; by default as the environment says.

        Returns
        -------
        dict
            ``env_runners`` with ``episode_return_mean`` and so on; the same at the top level under the older names.
        """
        if num_episodes is not None and num_episodes < 1:
            raise ValueError(f"`num_episodes` must be at least 1, got {num_episodes!r}.")
        return self._evaluator.evaluate(
            video=video, num_episodes=num_episodes, explore=explore, max_steps=max_steps, fps=fps
        )

    @property
    def eval_env_runner_group(self) -> Any:
        """The runners that evaluate; None before the first evaluation."""
        return self._evaluator.group

    # Acting

    def compute_single_action(
        self,
        observation: Any = None,
        state: Any = None,
        *,
        prev_action: Any = None,
        prev_reward: float | None = None,
        info: Any = None,
        input_dict: Mapping[str, Any] | None = None,
        policy_id: str = _MODULE_ID,
        full_fetch: bool = False,
        explore: bool | None = None,
        timestep: int | None = None,
        unsquash_action: bool | None = None,
        clip_action: bool | None = None,
    ) -> Any:
        """The action for one observation, filters included, as in training.

        Parameters
        ----------
        observation : object
            As the environment gives it.
        state : dict or list of arrays, optional
            Of a recurrent policy, as the last call returned it.
        prev_action, prev_reward : optional
            Where the policy was configured to see them.
        input_dict : dict, optional
            ``{"obs": ...}`` in place of `observation`.
        full_fetch : bool, default=False
            Return the state and the distribution's values as well.
        explore : bool, optional
            Draw the action; False takes the likeliest. By default as ``config.explore`` says.
        unsquash_action, clip_action : bool, optional
            False to get the action as the policy gave it, before it is fitted to the action space.

        Returns
        -------
        action, or (action, state, dict) with `full_fetch` or a recurrent policy
        """
        self._only_default(policy_id)
        if input_dict is not None:
            observation = input_dict["obs"]
        if observation is None:
            raise ValueError("`compute_single_action` needs an observation: `compute_single_action(obs)`.")
        server = self._actions()
        named = server.initial_state()
        states = None
        if state is not None and len(state) > 0 and named:
            values = state if isinstance(state, Mapping) else dict(zip(named, state, strict=True))
            states = [dict(values)]
        raw = unsquash_action is False and not clip_action
        actions, states, extra = server.compute(
            [observation],
            states,
            self.config.explore if explore is None else explore,
            prev_actions=None if prev_action is None else [prev_action],
            prev_rewards=None if prev_reward is None else [prev_reward],
            for_env=not raw,
        )
        action = _single(actions[0])
        if full_fetch or named:
            fetched = {name: value[0] for name, value in extra.items()}
            out = list(states[0].values()) if not isinstance(state, Mapping) else states[0]
            return action, out, fetched
        return action

    def compute_actions(
        self,
        observations: Any,
        state: Any = None,
        *,
        prev_action: Any = None,
        prev_reward: Any = None,
        info: Any = None,
        policy_id: str = _MODULE_ID,
        full_fetch: bool = False,
        explore: bool | None = None,
        timestep: int | None = None,
        unsquash_actions: bool | None = None,
        clip_actions: bool | None = None,
    ) -> Any:
        """Actions for several observations.

        Parameters
        ----------
        observations : dict or sequence
            Of a dict each value is an observation, and the actions come under the same keys; of an array or list
            each row.
        explore : bool, optional
            As in :meth:`compute_single_action`, as are the others.

        Returns
        -------
        dict or ndarray, or (that, list of states, dict) with `full_fetch`
        """
        self._only_default(policy_id)
        named = isinstance(observations, Mapping)
        rows = list(observations.values()) if named else list(observations)
        raw = unsquash_actions is False and not clip_actions
        previous = [
            v if v is None or not isinstance(v, Mapping) else list(v.values()) for v in (prev_action, prev_reward)
        ]
        actions, states, extra = self._actions().compute(
            rows,
            state,
            self.config.explore if explore is None else explore,
            prev_actions=previous[0],
            prev_rewards=previous[1],
            for_env=not raw,
        )
        out = dict(zip(observations, map(_single, actions), strict=True)) if named else actions
        return (out, states, extra) if full_fetch or states[0] else out

    compute_action = compute_single_action

    def get_initial_state(self) -> dict[str, np.ndarray]:
        """What a recurrent policy starts an episode from; {} for others."""
        return self._actions().initial_state()

    def _actions(self) -> ActionServer:
        if self._server is None:
            self._server = ActionServer(self, (self._entropy, _ACTIONS))
        return self._server

    # Weights and modules

    def get_module(self, module_id: str = _MODULE_ID) -> Any:
        """The torch module with the current weights."""
        self._only_default(module_id)
        self._module.set_state(self.learner_group.get_weights())
        return self._module

    def get_policy(self, policy_id: str = _MODULE_ID) -> Any:
        """The policy, as older programs work with it."""
        from mltoolkit.rllib.policy.policy import Policy

        self._only_default(policy_id)
        return Policy(self)

    def get_weights(self, policies: Any = None) -> dict[str, dict[str, np.ndarray]]:
        """Weights by module and parameter name: ``{"default_policy": {name: array}}``."""
        for name in policies or ():
            self._only_default(name)
        return {_MODULE_ID: {name: np.array(value) for name, value in self.learner_group.get_weights().items()}}

    def set_weights(self, weights: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        """Replace the weights by what :meth:`get_weights` gave."""
        for name in weights:
            self._only_default(name)
        self.learner_group.set_weights(dict(weights[_MODULE_ID]))
        self._changed()

    def runner_state(self) -> dict[str, Any]:
        """What runners need to act as the current policy does."""
        if self._runner_state is None:
            from mltoolkit.rllib.env.inference import parameter_names

            weights = self.learner_group.get_weights()
            if self.description is not None:
                weights = {name: weights[name] for name in parameter_names(self.description)}
            self._runner_state = {
                "weights": weights,
                "description": self.description,
                "connectors": self.pipeline.get_statistics(),
            }
        else:
            self._runner_state["connectors"] = self.pipeline.get_statistics()
        return self._runner_state

    def _changed(self) -> None:
        self._runner_state = None
        self.weights_version += 1

    def _only_default(self, name: str) -> None:
        if name != _MODULE_ID:
            raise KeyError(f"There is no policy {name!r}: an algorithm has one, {_MODULE_ID!r}.")

    # Checkpoints

    def save(self, checkpoint_dir: str | os.PathLike[str] | None = None) -> Any:
        """Save everything that training needs to go on as if it had not stopped.

        Parameters
        ----------
        checkpoint_dir : path-like, optional
            Folder below which ``checkpoint_000012`` is made, after the iteration; a new temporary one by default.

        Returns
        -------
        SavedCheckpoint
            The checkpoint's path, a ``str``, which :meth:`restore`, :meth:`from_checkpoint` and the command line take;
            ``.checkpoint`` and ``.metrics`` are what newer programs read.
        """
        if self._context is not None:
            return super().save(None if checkpoint_dir is None else os.fspath(checkpoint_dir))
        parent = os.fspath(checkpoint_dir) if checkpoint_dir is not None else tempfile.mkdtemp(prefix="checkpoints-")
        path = _checkpoints.write_numbered_checkpoint(parent, self.iteration, self.save_checkpoint)
        return SavedCheckpoint(path, self._last_result)

    def save_to_path(self, path: str | os.PathLike[str] | None = None) -> str:
        """Save into exactly this folder, replacing a checkpoint that is there, and return its path."""
        folder = os.fspath(path) if path is not None else tempfile.mkdtemp(prefix="checkpoint-")
        self.save_checkpoint(folder)
        return folder

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write the checkpoint's files."""
        _checkpoints.write_checkpoint(checkpoint_dir, **self._checkpoint())
        if self.config.export_native_model_files:
            self.export(os.path.join(checkpoint_dir, "policy.pt"))

    def restore(self, checkpoint_path: Any) -> None:
        """Go on from a checkpoint of an algorithm with the same environment and network.

        Parameters
        ----------
        checkpoint_path : path-like, SavedCheckpoint or Checkpoint
            What :meth:`save` returned, or the folder that it was given: its newest checkpoint then.

        Raises
        ------
        CheckpointError
            If it is not there, torn, of another algorithm or of another network. The algorithm is as it was then.
        """
        from mltoolkit.train import Checkpoint

        checkpoint_path = getattr(checkpoint_path, "checkpoint", checkpoint_path)
        if isinstance(checkpoint_path, Checkpoint):
            with checkpoint_path.as_directory() as folder:
                self.load_checkpoint(folder)
        elif isinstance(checkpoint_path, (str, os.PathLike)):
            self.load_checkpoint(os.fspath(checkpoint_path))
        else:
            raise TypeError(
                f"`restore` takes what `save` returned or the path of a checkpoint, got {checkpoint_path!r}."
            )

    restore_from_path = restore

    @classmethod
    def from_checkpoint(cls, path: Any, *, config: Any = None, **overrides: Any) -> Self:
        """Build the algorithm that a checkpoint was made of, and go on from there.

        Parameters
        ----------
        path : path-like, SavedCheckpoint or Checkpoint
        config : AlgorithmConfig or dict, optional
            Settings in place of those in the checkpoint. Needed where these held functions or classes of a program,
            which no checkpoint keeps: the error says which.
        **overrides
            Single settings to change, such as ``num_env_runners=0``.

        Returns
        -------
        Algorithm

        Raises
        ------
        CheckpointError
            As :meth:`restore`.
        """
        from mltoolkit.train import Checkpoint

        path = getattr(path, "checkpoint", path)
        if isinstance(path, Checkpoint):
            with path.as_directory() as folder:
                return cls.from_checkpoint(folder, config=config, **overrides)
        content = _checkpoints.read_checkpoint(os.fspath(path))
        algorithm_class = cls._class_of(content["algorithm"])
        if config is None:
            config = algorithm_class.get_default_config().from_data(content["state"]["config"], given=overrides)
            config.log_dir = None  # files are written where the program says, not where a checkpoint does
        config = algorithm_class._completed(config, None)
        config.update_from_dict(overrides)
        algorithm = algorithm_class(config)
        try:
            algorithm._take_up(content)
        except BaseException:
            algorithm.stop()
            raise
        return algorithm

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Take up what :meth:`save_checkpoint` wrote."""
        self._take_up(_checkpoints.read_checkpoint(checkpoint))

    @classmethod
    def _class_of(cls, name: str) -> Any:
        from mltoolkit.rllib.algorithms.registry import get_algorithm_class

        if cls is not Algorithm:
            if name != cls.__name__ and name not in {base.__name__ for base in cls.__mro__}:
                raise CheckpointError(f"The checkpoint is one of {name}, not of {cls.__name__}.")
            return cls
        return get_algorithm_class(name)

    def _checkpoint(self) -> dict[str, Any]:
        """What a checkpoint is made of."""
        return {
            "kind": self._kind(),
            "state": {
                "config": self.config.to_data(),
                **self._own_state(),
                "runners": {str(index): state for index, state in self.env_runner_group.get_states().items()},
                "evaluation": self._evaluator.get_state(),
            },
            "module_state": self.learner_group.get_weights(),
            "learner_state": self.learner_group.get_state(),
        }

    def _own_state(self) -> dict[str, Any]:
        """What a checkpoint keeps besides the learner's and the runners' states."""
        return {
            "progress": self._progress(),
            "entropy": self._entropy,
            "steps_sampled": self._steps_sampled,
            "steps_trained": self._steps_trained,
            "window": self._window.get_state(),
            "metrics": self.metrics.get_state(),
            "runner_metrics": self._runner_metrics.get_state(),
            "pipeline": self.pipeline.get_state(),
        }

    def _set_own_state(self, state: dict[str, Any], learner_state: dict[str, Any]) -> None:
        self.pipeline.set_state(state["pipeline"])
        self.learner_group.set_state(learner_state)
        self._window.set_state(state["window"])
        self.metrics.set_state(state["metrics"])
        self._runner_metrics.set_state(state["runner_metrics"])
        self._steps_sampled, self._steps_trained = state["steps_sampled"], state["steps_trained"]
        self._entropy = state["entropy"]
        self._set_progress(state["progress"])
        self._changed()
        self._server = None

    def _take_up(self, content: dict[str, Any]) -> None:
        if content["algorithm"] != self._kind():
            raise CheckpointError(f"The checkpoint is one of {content['algorithm']}, not of {self._kind()}.")
        self._check_fits(content["module_state"])
        state, learner_state = content["state"], content["learner_state"]
        before, learner_before = self._own_state(), self.learner_group.get_state()
        try:
            self._set_own_state(state, {**learner_state, "rl_module": content["module_state"]})
            # The policy comes first: a runner's state of a recurrent one belongs to it.
            self.env_runner_group.set_states(
                {int(index): runner for index, runner in state["runners"].items()}, self.runner_state()
            )
            self._evaluator.set_state(state["evaluation"])
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            self._set_own_state(before, learner_before)
            raise CheckpointError(
                f"The checkpoint does not fit this {self._kind()}: {error!r}. Was it made with other settings?"
            ) from error
        self.callbacks.call("on_checkpoint_loaded", algorithm=self)

    def _check_fits(self, weights: dict[str, np.ndarray]) -> None:
        own = {name: tuple(value.shape) for name, value in self.learner_group.get_weights().items()}
        theirs = {name: tuple(value.shape) for name, value in weights.items()}
        if own != theirs:
            names = sorted(set(own.items()) ^ set(theirs.items()))
            name = names[0][0]
            raise CheckpointError(
                f"The checkpoint's network is not this one's: {name} has shape {theirs.get(name)} there and "
                f"{own.get(name)} here. Build the algorithm with the settings of the checkpoint (its environment and "
                "`model`), or use `from_checkpoint`, which does."
            )

    @classmethod
    def _kind(cls) -> str:
        """The name under which the registry has the algorithm, that of subclasses of the user's included."""
        from mltoolkit.rllib.algorithms.registry import name_of

        return name_of(cls)

    def get_state(self) -> dict[str, Any]:
        """Where training is: progress and weights, for looking at; :meth:`save` keeps all."""
        return {**super().get_state(), "worker": {"policy_states": self.get_weights()}}

    def export(self, path: str | os.PathLike[str]) -> str:
        """Write the policy for use without mltoolkit: ``.pt`` for torch, ``.onnx`` for any ONNX runtime.

        It takes a batch of observations as the environment gives them and returns the likeliest actions, as the
        environment takes them.

        Parameters
        ----------
        path : path-like

        Returns
        -------
        str
            The path.
        """
        from mltoolkit.rllib.export import export_policy

        return export_policy(self, path)

    export_policy_model = export

    def _export_model(self, export_formats: list[str], export_dir: str) -> dict[str, str]:
        suffixes = {"model": ".pt", "torch": ".pt", "onnx": ".onnx"}
        unknown = [name for name in export_formats if name not in suffixes]
        if unknown:
            raise ValueError(f"A policy is exported as {', '.join(suffixes)}, got {', '.join(unknown)}.")
        return {name: self.export(os.path.join(export_dir, "policy" + suffixes[name])) for name in export_formats}

    # Older names

    @property
    def workers(self) -> Any:
        """The older name of `env_runner_group`."""
        return self.env_runner_group

    @property
    def evaluation_workers(self) -> Any:
        """The older name of `eval_env_runner_group`."""
        return self.eval_env_runner_group

    @property
    def env_runner(self) -> Any:
        """The environment runner of this process; None where all are actors."""
        return self.env_runner_group.local_env_runner

    def _on_recreated(self, is_evaluation: bool) -> Callable[[list[int]], None]:
        def recreated(indices: list[int]) -> None:
            self.callbacks.call(
                "on_env_runners_recreated",
                algorithm=self,
                env_runner_group=self._evaluator.group if is_evaluation else self.env_runner_group,
                env_runner_indices=indices,
                is_evaluation=is_evaluation,
            )

        return recreated

    def __repr__(self) -> str:
        return f"{type(self).__name__}(env={self.config.env!r}, iteration={self.iteration})"


def _single(action: Any) -> Any:
    """A discrete action as a number, others as the array they are."""
    return action.item() if np.ndim(action) == 0 else action


def _system_usage() -> dict[str, float]:
    """CPU and memory of the machine in use, per cent."""
    import psutil

    return {"cpu_util_percent": psutil.cpu_percent(interval=None), "ram_util_percent": psutil.virtual_memory().percent}
