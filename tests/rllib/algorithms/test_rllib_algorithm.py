from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gymnasium")
pytest.importorskip("torch")


def _config(env: Any = "CartPole-v1", **training: Any) -> Any:
    from mltoolkit.rllib.algorithms.ppo import PPOConfig

    return (
        PPOConfig()
        .environment(env)
        .env_runners(num_env_runners=0, num_envs_per_env_runner=4)
        .training(train_batch_size=256, minibatch_size=64, num_epochs=2, model={"fcnet_hiddens": [16]}, **training)
        .debugging(seed=3)
    )


def _numbers(result: dict[str, Any]) -> dict[str, Any]:
    """What must be the same in two runs: all that is not a time, an id or a machine's."""
    keys = ("episode_reward_mean", "episode_len_mean", "timesteps_total", "episodes_total", "hist_stats")
    stats = {k: v for k, v in result["learners"]["default_policy"].items() if "throughput" not in k}
    return {**{key: result[key] for key in keys}, **stats}


def test_a_result_has_the_keys_of_both_stacks() -> None:
    with _config().build_algo() as algo:
        result = algo.train()
    runners = result["env_runners"]
    assert result["episode_reward_mean"] == runners["episode_return_mean"] == runners["episode_reward_mean"]
    assert result["episode_reward_min"] <= result["episode_reward_mean"] <= result["episode_reward_max"]
    assert result["training_iteration"] == 1
    assert 256 <= result["timesteps_total"] == result["num_env_steps_sampled_lifetime"] < 260
    assert result["episodes_total"] == result["episodes_this_iter"] == runners["num_episodes_lifetime"]
    assert result["info"]["learner"]["default_policy"]["learner_stats"]["kl"] == pytest.approx(
        result["learners"]["default_policy"]["mean_kl_loss"]
    )
    assert result["hist_stats"]["episode_lengths"]
    assert result["config"]["num_env_runners"] == 0
    assert result["timers"]["learner_update_timer"] > 0
    assert result["done"] is False
    json.dumps({k: v for k, v in result.items() if k != "config"})


def test_the_same_seed_gives_the_same_numbers_and_another_one_others() -> None:
    runs = []
    for seed in (3, 3, 4):
        with _config().debugging(seed=seed).build_algo() as algo:
            runs.append([_numbers(algo.train()) for _ in range(3)])
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_the_users_own_seeding_changes_nothing() -> None:
    import torch

    losses = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        np.random.seed(seed)  # the very state that must not matter
        state = torch.get_rng_state()
        with _config().build_algo() as algo:
            losses.append(_numbers(algo.train()))
        assert torch.equal(torch.get_rng_state(), state)
    assert losses[0] == losses[1]


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
def test_training_goes_on_from_a_checkpoint_bit_for_bit(env: str, tmp_path: Path) -> None:
    from mltoolkit.rllib.algorithms.algorithm import Algorithm

    def config() -> Any:
        return _config(env).env_runners(observation_filter="MeanStdFilter").evaluation(evaluation_duration=2)

    with config().build_algo() as algo:
        algo.train()
        algo.evaluate()
        path = algo.save(tmp_path)
        expected = [_numbers(algo.train()), algo.evaluate()["episode_reward_mean"], algo.get_weights()]
    with config().build_algo() as restored, Algorithm.from_checkpoint(tmp_path) as loaded:
        restored.restore(path)
        for other in (restored, loaded):
            assert other.iteration == 1
            assert [_numbers(other.train()), other.evaluate()["episode_reward_mean"]] == expected[:2]
            for name, value in other.get_weights()["default_policy"].items():
                assert np.array_equal(value, expected[2]["default_policy"][name])


def test_saving_returns_a_path_for_old_programs_and_an_object_for_new_ones(tmp_path: Path) -> None:
    with _config().build_algo() as algo:
        algo.train()
        saved = algo.save(tmp_path)
        assert isinstance(saved, str)
        assert Path(saved) == tmp_path / "checkpoint_000001"
        assert saved.checkpoint.path == saved.path == str(saved)
        assert saved.metrics["training_iteration"] == 1
        assert algo.save_to_path(tmp_path / "own") == str(tmp_path / "own")
        algo.restore(saved.checkpoint)
        algo.restore(saved)
        algo.restore_from_path(tmp_path / "own")


def test_a_checkpoint_may_be_written_over_another(tmp_path: Path) -> None:
    with _config().build_algo() as algo:
        for iteration in (1, 2, 3):
            algo.train()
            algo.save_to_path(tmp_path)
            assert len(list(tmp_path.iterdir())) == 5
            algo.restore(tmp_path)
            assert algo.iteration == iteration


def test_checkpoints_hold_no_pickle(tmp_path: Path) -> None:
    import torch

    with _config().build_algo() as algo:
        algo.train()
        path = Path(algo.save(tmp_path))
    for name in ("module_state.pt", "learner_state.pt"):
        torch.load(path / name, weights_only=True)
    with np.load(path / "arrays.npz", allow_pickle=False) as arrays:
        assert all(arrays[name].dtype != object for name in arrays)
    json.loads((path / "algorithm_state.json").read_text())


def test_settings_that_differ_in_the_network_do_not_fit(tmp_path: Path) -> None:
    from mltoolkit.rllib.algorithms._checkpoints import CheckpointError

    with _config().build_algo() as algo:
        algo.train()
        path = algo.save(tmp_path)
    with _config().training(model={"fcnet_hiddens": [8]}).build_algo() as other:
        before = other.get_weights()["default_policy"]
        with pytest.raises(CheckpointError, match=r"encoder.*has shape \(16.*here"):
            other.restore(path)
        after = other.get_weights()["default_policy"]
        assert all(np.array_equal(before[name], after[name]) for name in before)
        other.train()


def test_other_settings_may_change_with_a_checkpoint(tmp_path: Path) -> None:
    from mltoolkit.rllib.algorithms.ppo import PPO

    with _config(lr=1e-3).build_algo() as algo:
        algo.train()
        path = algo.save(tmp_path)
    with PPO.from_checkpoint(path, lr=1e-4, num_envs_per_env_runner=2) as other:
        result = other.train()
    assert result["learners"]["default_policy"]["default_optimizer_learning_rate"] == pytest.approx(1e-4)
    assert result["training_iteration"] == 2


def test_actions_for_one_observation_and_for_many() -> None:
    with _config().build_algo() as algo:
        algo.train()
        obs = np.array([0.01, 0.2, -0.03, 0.1])
        action = algo.compute_single_action(obs)
        assert isinstance(action, int) and action in (0, 1)
        greedy, state, extra = algo.compute_single_action(obs, explore=False, full_fetch=True)
        assert state == []
        assert greedy == extra["action_dist_inputs"].argmax()
        assert extra["action_prob"] == pytest.approx(np.exp(extra["action_logp"]))
        assert algo.compute_single_action(input_dict={"obs": obs}, explore=False) == greedy
        many = algo.compute_actions({"a": obs, "b": -obs}, explore=False)
        assert many["a"] == greedy and set(many) == {"a", "b"}
        assert algo.compute_actions(np.stack([obs, -obs]), explore=False).tolist() == list(many.values())
        policy = algo.get_policy()
        assert policy.compute_single_action(obs, explore=False)[0] == greedy
        assert policy.compute_actions(obs[None], explore=False)[0].tolist() == [greedy]
        with pytest.raises(KeyError, match="has one"):
            algo.compute_single_action(obs, policy_id="other")


def test_continuous_actions_are_fitted_to_their_space() -> None:
    with _config("Pendulum-v1").build_algo() as algo:
        actions = algo.compute_actions(np.zeros((200, 3), np.float32))
        assert actions.shape == (200, 1)
        assert (np.abs(actions) <= 2.0).all() and np.abs(actions).max() > 1.0
        raw = algo.compute_single_action(np.zeros(3), explore=False, unsquash_action=False)
        fitted = algo.compute_single_action(np.zeros(3), explore=False)
        assert fitted == pytest.approx(2 * raw, abs=1e-6)


def test_weights_can_be_taken_out_and_put_in() -> None:
    with _config().build_algo() as algo, _config().debugging(seed=9).build_algo() as other:
        other.set_weights(algo.get_weights())
        obs = np.array([0.01, 0.2, -0.03, 0.1])
        inputs = [a.compute_single_action(obs, full_fetch=True)[2]["action_dist_inputs"] for a in (algo, other)]
        assert np.array_equal(*inputs)
        module = other.get_module()
        assert np.array_equal(
            module.state_dict()["pi.0.bias"].numpy(), algo.get_weights()["default_policy"]["pi.0.bias"]
        )


def test_evaluation_runs_its_own_episodes_with_its_own_settings() -> None:
    config = _config().evaluation(
        evaluation_interval=2, evaluation_duration=5, evaluation_config={"explore": False, "horizon": 7}
    )
    with config.build_algo() as algo:
        assert "evaluation" not in algo.train()
        result = algo.train()["evaluation"]
        assert result["env_runners"]["num_episodes"] == 5
        assert result["hist_stats"]["episode_lengths"] == [7] * 5
        assert result["episode_reward_mean"] == 7.0
        assert algo.evaluate(num_episodes=2)["episodes_this_iter"] == 2


def test_a_custom_evaluation_function_takes_its_place() -> None:
    def evaluate(algorithm: Any, runners: Any) -> dict[str, float]:
        (policy,) = runners.foreach_env_runner(lambda runner: runner._policy)
        assert policy is not None  # the runners act as the algorithm does
        (out,) = runners.foreach_env_runner(lambda runner: runner.evaluate(algorithm.runner_state(), num_episodes=1))
        return {"mine": float(algorithm.iteration), "episodes": len(out["episodes"]["returns"])}

    with _config().evaluation(custom_evaluation_function=evaluate).build_algo() as algo:
        algo.train()
        assert algo.evaluate() == {"mine": 1.0, "episodes": 1}
        with pytest.raises(TypeError, match="num_episode"):
            algo.evaluate(num_episode=3)
        with pytest.raises(ValueError, match="`num_episodes` must be at least 1"):
            algo.evaluate(num_episodes=0)


def test_callbacks_and_metrics_reach_the_result() -> None:
    from mltoolkit.rllib.algorithms.callbacks import DefaultCallbacks

    class Mine(DefaultCallbacks):
        def on_algorithm_init(self, *, algorithm: Any, **kwargs: Any) -> None:
            algorithm.started = True

        def on_episode_end(self, *, episode: Any, metrics_logger: Any, **kwargs: Any) -> None:
            episode.custom_metrics["steps"] = episode.length
            metrics_logger.log_value("ends", 1, reduce="sum")

        def on_train_result(self, *, result: dict[str, Any], metrics_logger: Any, **kwargs: Any) -> None:
            result["extra"] = 42

    with _config().callbacks(Mine).build_algo() as algo:
        result = algo.train()
    assert algo.started
    assert result["extra"] == 42
    assert result["custom_metrics"]["steps_mean"] == result["episode_len_mean"]
    assert result["env_runners"]["ends"] == result["episodes_this_iter"]


def test_training_step_may_be_another() -> None:
    from mltoolkit.rllib.algorithms.ppo import PPO

    class Twice(PPO):
        def training_step(self) -> Any:
            super().training_step()
            return super().training_step()

    with Twice(_config()) as algo:
        assert 512 <= algo.train()["timesteps_total"] < 520


def test_an_iteration_goes_on_until_its_least_steps_are_taken() -> None:
    with _config().reporting(min_sample_timesteps_per_iteration=600).build_algo() as algo:
        assert algo.train()["timesteps_total"] >= 600


def test_learning_ends_at_a_value_or_after_so_many_steps() -> None:
    with _config().build_algo() as algo:
        assert algo.learn(500, progress_bar=False)["training_iteration"] == 2
        assert algo.learn(stop={"training_iteration": 4}, progress_bar=False)["training_iteration"] == 4
        assert algo.learn(stop={"env_runners/episode_return_mean": 1.0}, progress_bar=False)["training_iteration"] == 5
        with pytest.raises(ValueError, match="total_timesteps"):
            algo.learn()


def test_cartpole_is_learnt() -> None:
    from mltoolkit.rllib.algorithms.ppo import PPOConfig

    with PPOConfig.preset("CartPole-v1").debugging(seed=0).build_algo() as algo:
        result = algo.learn(60_000, stop={"episode_reward_mean": 150}, progress_bar=False)
    assert result["episode_reward_mean"] >= 150


def test_the_classic_interface_trains_the_same() -> None:
    from mltoolkit.rllib import agents
    from mltoolkit.rllib.agents import ppo

    config = ppo.DEFAULT_CONFIG.copy()
    config.update(num_workers=0, train_batch_size=256, num_sgd_iter=2, sgd_minibatch_size=64, num_envs_per_worker=4)
    config["model"]["fcnet_hiddens"] = [16]
    config["seed"] = 3
    assert agents.ppo.PPOTrainer is ppo.PPOTrainer
    with ppo.PPOTrainer(config=config, env="CartPole-v1") as trainer, _config().build_algo() as algo:
        assert _numbers(trainer.train()) == _numbers(algo.train())
    assert ppo.DEFAULT_CONFIG["model"]["fcnet_hiddens"] == [256, 256]


def test_a_stopped_algorithm_says_so() -> None:
    algo = _config().build_algo()
    algo.stop()
    algo.stop()
    with pytest.raises(RuntimeError, match="was stopped"):
        algo.train()


def test_other_settings_are_taken_without_a_new_process(tmp_path: Path) -> None:
    with _config().build_algo() as algo:
        algo.train()
        path = algo.save(tmp_path)
        assert algo.reset(_config(lr=2e-4))
        assert algo.iteration == 0
        algo.restore(path)
        result = algo.train()
    assert result["training_iteration"] == 2
    assert result["learners"]["default_policy"]["default_optimizer_learning_rate"] == pytest.approx(2e-4)


def test_parts_that_make_up_a_batch_are_shared_evenly() -> None:
    with _config().training(train_batch_size=257).build_algo() as algo:
        assert algo._steps_for(0) == 257
        assert not math.isnan(algo.train()["episode_reward_mean"])


def test_resources_for_a_trial_are_those_of_its_processes() -> None:
    from mltoolkit.rllib.algorithms.ppo import PPO

    factory = PPO.default_resource_request(
        {"env": "CartPole-v1", "num_workers": 2, "num_cpus_per_worker": 0.5, "evaluation_num_workers": 1}
    )
    assert factory.bundles == [{"CPU": 1}, {"CPU": 0.5}, {"CPU": 0.5}, {"CPU": 0.5}]
    assert PPO.default_resource_request({"num_workers": 1, "num_cpus_per_worker": 0}).bundles == [{"CPU": 1}]


def test_a_checkpoint_that_does_not_fit_changes_nothing(tmp_path: Path) -> None:
    from mltoolkit.rllib.algorithms._checkpoints import CheckpointError, read_checkpoint, write_checkpoint

    results = []
    for restores in (True, False):
        with _config().build_algo() as algo:
            algo.train()
            if restores:
                content = read_checkpoint(algo.save_to_path(tmp_path))
                algo.train()
                del content["state"]["entropy"]  # read after weights and filters
                write_checkpoint(str(tmp_path), content.pop("algorithm"), **content)
                with pytest.raises(CheckpointError, match="entropy"):
                    algo.restore(tmp_path)
            else:
                algo.train()
            results.append(_numbers(algo.train()))
    assert results[0] == results[1]


def test_metrics_of_all_samples_of_an_iteration_are_in_its_result() -> None:
    from mltoolkit.rllib.algorithms.callbacks import DefaultCallbacks

    class Ends(DefaultCallbacks):
        def on_episode_end(self, *, metrics_logger: Any, **kwargs: Any) -> None:
            metrics_logger.log_value("ends", 1, reduce="sum")

    with _config().callbacks(Ends).reporting(min_sample_timesteps_per_iteration=600).build_algo() as algo:
        for _ in range(2):
            result = algo.train()
            assert result["env_runners"]["ends"] == result["episodes_this_iter"]


def test_a_training_step_need_not_sample() -> None:
    from mltoolkit.rllib.algorithms.ppo import PPO

    class Idle(PPO):
        def training_step(self) -> Any:
            return None

    with Idle(_config()) as algo:
        assert algo.train()["timesteps_total"] == 0


def test_a_result_has_the_counts_of_older_releases() -> None:
    with _config().build_algo() as algo:
        result, evaluation = algo.train(), algo.evaluate(num_episodes=1)
    assert result["sampler_results"]["episode_reward_mean"] == result["episode_reward_mean"]
    assert result["policy_reward_mean"] == {"default_policy": result["episode_reward_mean"]}
    assert result["counters"]["num_env_steps_sampled"] == result["num_agent_steps_sampled"] == result["timesteps_total"]
    assert result["num_steps_trained_this_iter"] == result["num_env_steps_trained"]
    assert result["timers"]["learn_time_ms"] == pytest.approx(1e3 * result["timers"]["learner_update_timer"])
    assert evaluation["num_env_steps_sampled_this_iter"] == evaluation["env_runners"]["num_env_steps_sampled"]


def test_an_algorithm_without_an_environment_starts_no_process() -> None:
    from mltoolkit.rllib.algorithms.ppo import PPO

    with pytest.raises(ValueError, match="There is no environment"):
        PPO(config={"num_workers": 2})


def test_older_programs_look_into_the_runners() -> None:
    with _config().build_algo() as algo:
        algo.train()
        algo.evaluate(num_episodes=1)
        runner = algo.workers.local_worker()
        assert algo.workers.num_remote_workers() == len(algo.workers.remote_workers()) == 0
        assert runner.foreach_env(lambda env: env.unwrapped.spec.id) == ["CartPole-v1"] * 4
        assert algo.evaluation_workers is algo.eval_env_runner_group
        algo.sample()
        (weights,) = algo.workers.foreach_worker(lambda worker: worker.get_policy().get_weights())
        own = algo.get_policy().get_weights()
        assert weights and all(np.array_equal(own[name], value) for name, value in weights.items())
        with pytest.raises(KeyError, match="'default_policy'"):
            runner.get_policy("other")
