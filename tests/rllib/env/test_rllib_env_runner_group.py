from __future__ import annotations

import os
import signal
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gymnasium")
pytest.importorskip("torch")


def _config(env: Any = "CartPole-v1", runners: int = 2, **options: Any) -> Any:
    from mltoolkit.rllib.algorithms.ppo import PPOConfig

    return (
        PPOConfig()
        .environment(env)
        .env_runners(num_env_runners=runners, num_cpus_per_env_runner=0.5, num_envs_per_env_runner=2, **options)
        .training(train_batch_size=128, minibatch_size=64, num_epochs=1, model={"fcnet_hiddens": [8]})
        .debugging(seed=5)
    )


def _env(**kwargs: Any) -> Any:
    """A small environment whose methods may be replaced."""
    import gymnasium

    class Small(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        action_space = gymnasium.spaces.Discrete(2)

        def __init__(self, config: Any) -> None:
            self.config = config
            self.t = 0

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            super().reset(seed=seed)
            self.t = 0
            return self.np_random.uniform(-1, 1, 2).astype(np.float32), {}

        def step(self, action: int) -> Any:
            self.t += 1
            return self.np_random.uniform(-1, 1, 2).astype(np.float32), 1.0, self.t == 10, False, {}

    for name, method in kwargs.items():
        setattr(Small, name, method)
    return Small


def _kill_runners(algo: Any, *positions: int) -> list[int]:
    pids = algo.env_runner_group.foreach_env_runner(lambda runner: os.getpid())
    for position in positions:
        os.kill(pids[position], signal.SIGKILL)
    return pids


def test_two_runs_with_the_same_seed_and_runners_are_the_same(runtime: Any) -> None:
    runs = []
    for _ in range(2):
        with _config(observation_filter="MeanStdFilter").build_algo() as algo:
            results = [algo.train() for _ in range(3)]
            runs.append([(r["hist_stats"], r["learners"]["default_policy"]["total_loss"]) for r in results])
            assert results[-1]["num_healthy_workers"] == 2
            assert algo.env_runner is None
    assert runs[0] == runs[1]


def test_training_goes_on_from_a_checkpoint_with_the_runners(runtime: Any, tmp_path: Any) -> None:
    with _config().build_algo() as algo:
        algo.train()
        path = algo.save(tmp_path)
        expected = algo.train()
    with _config().build_algo() as other:
        other.restore(path)
        result = other.train()
    assert result["hist_stats"] == expected["hist_stats"]
    assert result["learners"]["default_policy"]["total_loss"] == expected["learners"]["default_policy"]["total_loss"]


def test_a_registered_environment_is_known_to_the_runners(runtime: Any) -> None:
    from mltoolkit.tune.registry import register_env

    small = _env()
    register_env("small-test-env", lambda config: small(config))
    with _config("small-test-env").environment(env_config={"a": 1}).build_algo() as algo:
        result = algo.train()
        seen = algo.env_runner_group.foreach_env_runner(
            lambda runner: (runner.env.envs[0].unwrapped.config["a"], runner.worker_index)
        )
        group = algo.workers
        assert group.foreach_env_runner(lambda runner: runner.worker_index, remote_worker_ids=[2]) == [2]
        assert group.foreach_worker(lambda runner: runner.worker_index, local_env_runner=False) == [1, 2]
        assert group.foreach_env(lambda env: env.config["a"]) == [[1] * len(envs) for envs in group.foreach_env(id)]
        assert group.local_worker() is None
    assert result["episode_reward_mean"] == 10.0
    assert seen == [(1, 1), (1, 2)]


def test_what_visits_runners_and_their_environments_in_one_process() -> None:
    small = _env()
    with _config(small).env_runners(num_env_runners=0, num_envs_per_env_runner=3).build_algo() as algo:
        group = algo.env_runner_group
        assert group.foreach_env(lambda env: isinstance(env, small)) == [[True] * 3]
        assert group.foreach_env_runner(lambda runner: runner.worker_index) == [0]
        assert group.foreach_env_runner(lambda runner: runner.worker_index, local_env_runner=False) == []
        assert group.local_worker() is group.local_env_runner
    from mltoolkit.rllib.env.errors import EnvError

    native = _config("CartPole-v1").env_runners(num_env_runners=0, gym_env_vectorize_mode="vector_entry_point")
    with native.build_algo() as algo:
        runner = algo.env_runner
        assert runner.env.is_native
        with pytest.raises(EnvError, match="gym_env_vectorize_mode='sync'"):
            runner.foreach_env(id)


def test_a_registered_model_is_known_to_the_runners(runtime: Any) -> None:
    from torch import nn

    from mltoolkit.rllib.models import ModelCatalog
    from mltoolkit.rllib.models.torch.torch_modelv2 import TorchModelV2

    class Mine(TorchModelV2, nn.Module):
        def __init__(self, obs_space: Any, action_space: Any, num_outputs: int, model_config: Any, name: str) -> None:
            TorchModelV2.__init__(self, obs_space, action_space, num_outputs, model_config, name)
            nn.Module.__init__(self)
            self.policy, self.value = nn.Linear(4, num_outputs), nn.Linear(4, 1)

        def forward(self, input_dict: Any, state: Any, seq_lens: Any) -> Any:
            self._obs = input_dict["obs"].float()
            return self.policy(self._obs), state

        def value_function(self) -> Any:
            return self.value(self._obs).squeeze(1)

    ModelCatalog.register_custom_model("mine-in-runners", Mine)
    with _config().training(model={"custom_model": "mine-in-runners"}).build_algo() as algo:
        algo.train()
        names = algo.env_runner_group.foreach_env_runner(lambda runner: type(runner.module.model).__name__)
    assert names == ["Mine", "Mine"]


@pytest.mark.parametrize("positions", [(0,), (0, 1)])
def test_killed_runners_are_replaced_and_training_goes_on(runtime: Any, positions: tuple[int, ...]) -> None:
    from mltoolkit.rllib.callbacks.callbacks import RLlibCallback

    recreated: list[int] = []

    class Watch(RLlibCallback):
        def on_env_runners_recreated(self, *, env_runner_indices: list[int], **kwargs: Any) -> None:
            recreated.extend(env_runner_indices)

    with _config().callbacks(Watch).build_algo() as algo:
        algo.train()
        pids = _kill_runners(algo, *positions)
        result = algo.train()
        assert result["num_env_steps_sampled_this_iter"] >= 128
        assert result["num_healthy_workers"] == 2
        assert result["num_remote_worker_restarts"] == len(positions)
        now = algo.env_runner_group.foreach_env_runner(lambda runner: os.getpid())
        assert [a != b for a, b in zip(pids, now, strict=True)] == [i in positions for i in range(2)]
    assert recreated == [p + 1 for p in positions]


def test_a_runner_may_be_left_out_or_its_loss_be_an_error(runtime: Any) -> None:
    from mltoolkit.rllib.env.env_runner_group import EnvRunnersLostError

    left_out = _config().fault_tolerance(restart_failed_env_runners=False, ignore_env_runner_failures=True)
    with left_out.build_algo() as algo:
        algo.train()
        _kill_runners(algo, 0)
        result = algo.train()
        assert result["num_healthy_workers"] == 1
        assert result["num_env_runners_dropped_lifetime"] == 1
        assert algo.train()["num_env_steps_sampled_this_iter"] >= 128
        _kill_runners(algo, 0)
        with pytest.raises(EnvRunnersLostError, match="All environment runners are lost"):
            algo.train()
    strict = _config().fault_tolerance(restart_failed_env_runners=False)
    with strict.build_algo() as algo:
        _kill_runners(algo, 1)
        with pytest.raises(EnvRunnersLostError, match=r"runner 2 died.*restart_failed_env_runners"):
            algo.train()


def test_an_environment_that_kills_its_process_again_and_again_is_given_up(runtime: Any) -> None:
    from mltoolkit.rllib.env.env_runner_group import EnvRunnersLostError

    def die(self: Any, action: int) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)

    config = _config(_env(step=die), runners=1).fault_tolerance(max_num_env_runner_restarts=2)
    with (
        config.environment(disable_env_checking=True).build_algo() as algo,
        pytest.raises(EnvRunnersLostError, match="died 3 times"),
    ):
        algo.train()


def test_errors_of_the_environment_show_the_users_line(runtime: Any) -> None:
    def fail(self: Any, action: int) -> Any:
        raise RuntimeError("the robot fell over")

    with (
        _config(_env(step=fail)).environment(disable_env_checking=True).build_algo() as algo,
        pytest.raises(Exception, match=r"(?s)raise RuntimeError\(\"the robot fell over\"\)"),
    ):
        algo.train()


def test_errors_of_the_constructor_are_told_at_once(runtime: Any) -> None:
    def broken(self: Any, config: Any) -> None:
        raise OSError("no such simulator")

    with pytest.raises(Exception, match="no such simulator"):
        _config(_env(__init__=broken)).build_algo()


def test_an_environment_that_hangs_is_an_error_and_its_runner_replaced(runtime: Any, gate: Any) -> None:
    mended, never = gate("mended"), gate("never")

    def hang(self: Any, action: int) -> Any:
        if not mended.is_open():
            never.wait()
        return np.zeros(2, np.float32), 0.0, False, False, {}

    config = _config(_env(step=hang), runners=1, sample_timeout_s=2.0).environment(disable_env_checking=True)
    with config.build_algo() as algo:
        with pytest.raises(TimeoutError, match="runner 1 did not finish `sample`"):
            algo.train()
        mended.open()
        assert algo.train()["num_env_steps_sampled"] >= 128
    never.open()


def test_a_checkpoint_that_is_none_is_told_so(runtime: Any) -> None:
    with _config(runners=0).build_algo() as algo, pytest.raises(TypeError, match="what `save` returned"):
        algo.restore(None)


def test_more_runners_than_cpus_are_refused_with_the_way_out(runtime: Any) -> None:
    with pytest.raises(ValueError, match="num_cpus_per_env_runner=0"):
        _config().env_runners(num_env_runners=40, num_cpus_per_env_runner=1).build_algo()


def test_evaluation_in_processes_of_its_own_beside_training(runtime: Any) -> None:
    config = _config(_env(), runners=1).evaluation(
        evaluation_interval=1,
        evaluation_num_env_runners=2,
        evaluation_duration=5,
        evaluation_parallel_to_training=True,
        evaluation_config={"num_cpus_per_env_runner": 0},
    )
    with config.build_algo() as algo:
        for _ in range(2):
            evaluation = algo.train()["evaluation"]
            assert evaluation["env_runners"]["num_episodes"] == 5
            assert evaluation["episode_reward_mean"] == 10.0
        assert evaluation["num_healthy_workers"] == 2
        config = config.copy(copy_frozen=False).evaluation(evaluation_duration="auto")
    with config.build_algo() as algo:
        assert algo.train()["evaluation"]["env_runners"]["num_episodes"] >= 2


def test_without_limits_runners_take_as_long_as_they_take(runtime: Any) -> None:
    config = _config(runners=1, sample_timeout_s=None, batch_mode="complete_episodes")
    config.evaluation(evaluation_num_env_runners=1, evaluation_duration=1, evaluation_sample_timeout_s=None)
    with config.build_algo() as algo:
        assert algo.train()["num_env_steps_sampled"] >= 128
        assert algo.evaluate()["episodes_this_iter"] == 1
