"""Sampling of CartPole-v1 by mltoolkit, RLlib and Stable-Baselines3, as the iterations of their PPO do it.

The policy is a network with two layers of 64 units. Everything is imported where it is used.
"""

from __future__ import annotations

import abc

ENV = "CartPole-v1"
HIDDEN = [64, 64]


class Sampler(abc.ABC):
    """Environments, in this process or others, and a policy that acts in them.

    Parameters
    ----------
    runners : int
        Processes besides this one; with 0 this one samples.
    envs : int
        Environments of each.
    batch : int
        Steps of an iteration, all environments together.
    """

    def __init__(self, runners: int, envs: int, batch: int) -> None:
        self._runners = runners
        self._envs = envs
        self._batch = batch

    @abc.abstractmethod
    def sample(self) -> int:
        """Sample a batch and return how many steps it has."""

    @abc.abstractmethod
    def close(self) -> None:
        """End the processes."""


class MltoolkitSampler(Sampler):
    """What an iteration of mltoolkit's PPO does before it learns."""

    def __init__(self, runners: int, envs: int, batch: int) -> None:
        super().__init__(runners, envs, batch)
        from mltoolkit.rllib.algorithms.ppo import PPOConfig

        config = PPOConfig().environment(ENV).training(train_batch_size=batch, minibatch_size=min(batch, 128))
        # Runners that ask for no CPU may be more than there are CPUs.
        config.env_runners(num_env_runners=runners, num_envs_per_env_runner=envs, num_cpus_per_env_runner=0)
        model = {"fcnet_hiddens": HIDDEN, "fcnet_activation": "tanh", "vf_share_layers": False}
        self._algorithm = config.rl_module(model_config=model).debugging(seed=0).build_algo()

    def sample(self) -> int:
        """Sample a batch and return how many steps it has."""
        return sum(each["num_env_steps"] for each in self._algorithm.sample())

    def close(self) -> None:
        """End the processes."""
        self._algorithm.stop()


class RaySampler(Sampler):
    """What an iteration of RLlib's PPO does before it learns."""

    def __init__(self, runners: int, envs: int, batch: int, mode: str = "sync") -> None:
        super().__init__(runners, envs, batch)
        from _ppo_runtimes import start_ray
        from ray.rllib.algorithms.ppo import PPOConfig
        from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
        from ray.rllib.execution.rollout_ops import synchronous_parallel_sample

        self._ray = start_ray()
        model = DefaultModelConfig(fcnet_hiddens=HIDDEN, fcnet_activation="tanh", vf_share_layers=False)
        config = PPOConfig().environment(ENV).rl_module(model_config=model).debugging(seed=0, log_level="ERROR")
        config.env_runners(num_env_runners=runners, num_envs_per_env_runner=envs, gym_env_vectorize_mode=mode)
        self._algorithm = config.training(train_batch_size_per_learner=batch).build_algo()
        self._parallel_sample = synchronous_parallel_sample

    def sample(self) -> int:
        """Sample a batch and return how many steps it has."""
        episodes, _ = self._parallel_sample(
            worker_set=self._algorithm.env_runner_group,
            max_env_steps=self._batch,
            sample_timeout_s=self._algorithm.config.sample_timeout_s,
            _uses_new_env_runners=True,
            _return_metrics=True,
        )
        return sum(len(episode) for episode in episodes)

    def close(self) -> None:
        """End the processes."""
        self._algorithm.stop()
        self._ray.shutdown()


class SB3Sampler(Sampler):
    """What an iteration of Stable-Baselines3's PPO does before it learns; the values of the observations included."""

    def __init__(self, runners: int, envs: int, batch: int) -> None:
        super().__init__(runners, envs, batch)
        import torch

        torch.set_num_threads(1)
        from stable_baselines3 import PPO
        from stable_baselines3.common.env_util import make_vec_env
        from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

        kind = SubprocVecEnv if runners else DummyVecEnv
        self._env = make_vec_env(ENV, n_envs=runners or envs, seed=0, vec_env_cls=kind)
        steps = batch // (runners or envs)
        self._model = PPO("MlpPolicy", self._env, n_steps=steps, policy_kwargs={"net_arch": HIDDEN}, seed=0)
        _, self._callback = self._model._setup_learn(total_timesteps=10**9)

    def sample(self) -> int:
        """Sample a batch and return how many steps it has."""
        model, before = self._model, self._model.num_timesteps
        model.collect_rollouts(model.env, self._callback, model.rollout_buffer, n_rollout_steps=model.n_steps)
        return int(model.num_timesteps - before)

    def close(self) -> None:
        """End the processes."""
        self._env.close()


def make_sampler(runtime: str, runners: int, envs: int, batch: int) -> Sampler:
    """Return the sampler of a runtime, its processes started.

    Stable-Baselines3 steps one environment in each process besides its own; RLlib's environments are gymnasium's
    vectorised ones of CartPole where there is more than one, which are its fastest.
    """
    if runtime == "mltoolkit":
        return MltoolkitSampler(runners, envs, batch)
    if runtime == "ray":
        return RaySampler(runners, envs, batch, "vector_entry_point" if envs > 1 else "sync")
    return SB3Sampler(runners, envs, batch)
