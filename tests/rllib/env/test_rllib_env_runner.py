from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("gymnasium")


def _config(env: Any = "CartPole-v1", num_envs: int = 2, **runners: Any) -> Any:
    from mltoolkit.rllib.algorithms.ppo import PPOConfig

    return PPOConfig().environment(env).env_runners(num_env_runners=0, num_envs_per_env_runner=num_envs, **runners)


def _state(num_inputs: int = 4, num_outputs: int = 2) -> dict[str, Any]:
    from mltoolkit.rllib.core.rl_module.numpy_policy import MLPDescription

    rng = np.random.default_rng(0)
    weights = {
        "w": rng.normal(size=(num_outputs, num_inputs)).astype(np.float32) / 10,
        "b": np.zeros(num_outputs, np.float32),
    }
    description = MLPDescription((("w", "b", "linear"),), num_inputs, num_outputs)
    return {"weights": weights, "description": description, "connectors": None}


def _runner(config: Any, seed: int = 1) -> Any:
    from mltoolkit.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

    return SingleAgentEnvRunner(config, seed=(seed,))


def _counting_env(length: int, reward: float = 1.0) -> Any:
    """Observes the step it is at; episodes have a fixed length."""
    import gymnasium

    class Counting(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(0.0, 1000.0, (1,), np.float32)
        action_space = gymnasium.spaces.Discrete(2)

        def __init__(self, config: Any = None) -> None:
            self.t = 0

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            super().reset(seed=seed)
            self.t = 0
            return np.array([0.0], np.float32), {"started": True}

        def step(self, action: int) -> Any:
            self.t += 1
            done = self.t == length
            return (
                np.array([self.t], np.float32),
                reward,
                done and length % 2 == 0,
                done and length % 2 == 1,
                {"t": self.t},
            )

    return Counting


def test_fragments_are_time_major_and_mask_the_resets() -> None:
    runner = _runner(_config(_counting_env(4)))
    out = runner.sample(_state(1), num_env_steps=20)
    fragment, mask = out["fragment"], out["fragment"]["loss_mask"]
    steps = len(mask)
    assert out["num_env_steps"] == mask.sum() == 20
    assert fragment["obs"].shape == (steps + 1, 2, 1)
    assert fragment["actions"].shape == fragment["rewards"].shape == (steps, 2)
    assert fragment["action_dist_inputs"].shape == (steps, 2, 2)
    # Four steps, then one that only resets: obs 0 1 2 3 4(final) 0 1 ...
    assert fragment["obs"][:7, 0, 0].tolist() == [0, 1, 2, 3, 4, 0, 1]
    assert mask[:6, 0].tolist() == [True] * 4 + [False, True]
    assert fragment["terminateds"][:6, 0].tolist() == [False, False, False, True, False, False]
    assert fragment["rewards"][:6, 0].tolist() == [1, 1, 1, 1, 0, 1]
    assert out["episodes"]["returns"] == [4.0] * 4
    assert out["episodes"]["lengths"] == [4] * 4


def test_a_fragment_goes_on_where_the_last_one_ended() -> None:
    runner = _runner(_config(_counting_env(1000), num_envs=1))
    first = runner.sample(_state(1), num_env_steps=5)["fragment"]
    second = runner.sample(_state(1), num_env_steps=5)["fragment"]
    assert second["obs"][0, 0, 0] == first["obs"][-1, 0, 0] == 5


def test_truncation_is_told_from_termination() -> None:
    fragment = _runner(_config(_counting_env(3), num_envs=1)).sample(_state(1), num_env_steps=3)["fragment"]
    assert fragment["truncateds"][2, 0] and not fragment["terminateds"].any()


def test_the_horizon_truncates() -> None:
    config = _config(_counting_env(1000), num_envs=1)
    config.horizon = 5
    out = _runner(config).sample(_state(1), num_env_steps=11)
    assert out["episodes"]["lengths"] == [5, 5]
    assert out["fragment"]["truncateds"].sum() == 2


def test_complete_episodes_begin_anew_and_end_whole() -> None:
    runner = _runner(_config(_counting_env(6), num_envs=2))
    runner.sample(_state(1), num_env_steps=4)
    out = runner.sample(_state(1), num_env_steps=7, complete_episodes=True)
    fragment = out["fragment"]
    assert fragment["obs"][0].tolist() == [[0.0], [0.0]]
    for env in range(2):
        rewards, ends = 0.0, 0
        for t in range(len(fragment["loss_mask"])):
            if fragment["loss_mask"][t, env]:
                rewards += fragment["rewards"][t, env]
                ends += int(fragment["terminateds"][t, env])
        assert rewards == 6.0 * ends
    assert out["num_env_steps"] == fragment["loss_mask"].sum() == 12


def test_the_same_seed_samples_the_same() -> None:
    one, two, other = (
        _runner(_config(), seed=seed).sample(_state(), num_env_steps=200)["fragment"] for seed in (1, 1, 2)
    )
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert not np.array_equal(one["obs"], other["obs"])


def test_without_exploration_the_likeliest_action_is_taken() -> None:
    fragment = _runner(_config()).sample(_state(), num_env_steps=50, explore=False)["fragment"]
    assert (fragment["actions"] == fragment["action_dist_inputs"].argmax(-1)).all()


@pytest.mark.parametrize("num_envs", [1, 8])
def test_a_restored_runner_goes_on_as_the_first(num_envs: int) -> None:
    first, second = (_runner(_config(num_envs=num_envs)) for _ in range(2))
    first.sample(_state(), num_env_steps=150)
    state = first.get_state()
    second.take_state(_state())
    second.set_state(state)
    a, b = (runner.sample(_state(), num_env_steps=150) for runner in (first, second))
    assert all(np.array_equal(a["fragment"][name], b["fragment"][name]) for name in a["fragment"])
    assert a["episodes"] == b["episodes"]


def test_a_runner_that_has_not_begun_has_nothing_to_restore() -> None:
    runner = _runner(_config())
    runner.set_state(runner.get_state())
    assert runner.sample(_state(), num_env_steps=10)["num_env_steps"] == 10


def test_callbacks_see_every_step_of_every_episode() -> None:
    from mltoolkit.rllib.callbacks.callbacks import RLlibCallback

    seen: list[str] = []

    class Watch(RLlibCallback):
        def on_episode_created(self, **kwargs: Any) -> None:
            seen.append("created")

        def on_episode_start(self, *, episode: Any, **kwargs: Any) -> None:
            seen.append(f"start {episode.get_observations(-1)[0]:.0f} {episode.get_infos(-1)}")

        def on_episode_step(self, *, episode: Any, env: Any, env_index: int, **kwargs: Any) -> None:
            assert env.envs[env_index].unwrapped.t == episode.length
            seen.append(f"step {episode.length}")

        def on_episode_end(self, *, episode: Any, metrics_logger: Any, **kwargs: Any) -> None:
            episode.custom_metrics["twice"] = 2 * episode.total_reward
            episode.hist_data["obs"] = episode.get_observations()[:, 0].tolist()
            metrics_logger.log_value("last_length", len(episode), reduce="item")
            seen.append(f"end {episode.is_terminated}")

    config = _config(_counting_env(2), num_envs=1).callbacks(Watch)
    out = _runner(config).sample(_state(1), num_env_steps=4)
    episode = ["created", "start 0 {'started': True}", "step 1", "step 2", "end True"]
    assert seen == episode * 2
    assert out["episodes"]["custom_metrics"] == [{"twice": 4.0}] * 2
    assert out["episodes"]["hist_data"] == {"obs": [0.0, 1.0, 2.0] * 2}
    assert [(path, value) for path, value, _ in out["metrics"]] == [(("last_length",), 2)] * 2


def test_an_evaluation_takes_as_many_episodes_of_each_environment() -> None:
    runner = _runner(_config(_counting_env(5), num_envs=2))
    out = runner.evaluate(_state(1), num_episodes=3)
    assert out["episodes"]["lengths"] == [5, 5, 5]
    assert out["num_env_steps"] == 15
    assert not out["timed_out"]
    out = runner.evaluate(_state(1), num_env_steps=7)
    assert 7 <= out["num_env_steps"] <= 8


def test_an_evaluation_of_an_endless_environment_ends() -> None:
    out = _runner(_config(_counting_env(10**9))).evaluate(_state(1), num_episodes=1, timeout_s=0.05)
    assert out["timed_out"]
    assert out["episodes"]["returns"] == []


def test_endless_episodes_are_pointed_out_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mltoolkit.rllib.env import single_agent_env_runner

    monkeypatch.setattr(single_agent_env_runner, "_NO_EPISODE_WARNING_STEPS", 10)
    runner = _runner(_config(_counting_env(10**9)))
    with caplog.at_level("WARNING", logger="mltoolkit.rllib"):
        for _ in range(4):
            runner.sample(_state(1), num_env_steps=8)
    assert len(caplog.records) == 1
    assert "time limit" in caplog.text


@pytest.mark.parametrize(("value", "what"), [(float("nan"), "nan"), (5000.0, "5000")])
def test_bad_observations_are_errors_that_show_the_value(value: float, what: str) -> None:
    from mltoolkit.rllib.env.errors import EnvError

    env = _counting_env(50)
    good = env.step

    def bad_step(self: Any, action: int) -> Any:
        obs, *rest = good(self, action)
        return (np.array([value], np.float32) if self.t == 20 else obs, *rest)

    env.step = bad_step
    with pytest.raises(EnvError, match=f"(?i){what}"):
        _runner(_config(env)).sample(_state(1), num_env_steps=100)


def test_filters_report_what_they_saw() -> None:
    runner = _runner(_config(observation_filter="MeanStdFilter"))
    out = runner.sample(_state(), num_env_steps=50)
    assert out["connector_delta"]


def test_plain_networks_need_no_torch() -> None:
    import subprocess
    import sys
    from pathlib import Path

    from helpers import script_env

    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_rllib_env_runner as these
runner = these._runner(these._config())
assert runner.sample(these._state(), num_env_steps=20)["num_env_steps"] == 20
assert "torch" not in sys.modules
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=script_env(), timeout=60)
    assert out.returncode == 0, out.stderr


def _growing_env() -> Any:
    """Episodes of the second environment take ten steps, those of the others two."""
    import gymnasium

    class Growing(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(0.0, 1000.0, (1,), np.float32)
        action_space = gymnasium.spaces.Discrete(2)

        def __init__(self, config: Any) -> None:
            self.length = 10 if config.vector_index == 1 else 2

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            self.t = 0
            return np.zeros(1, np.float32), {}

        def step(self, action: int) -> Any:
            self.t += 1
            return np.zeros(1, np.float32), 1.0, self.t == self.length, False, {}

    return Growing


@pytest.mark.parametrize("method", ["sample", "evaluate"])
def test_episodes_that_nobody_asked_for_are_neither_counted_nor_shown(method: str) -> None:
    from mltoolkit.rllib.callbacks.callbacks import RLlibCallback

    class Watch(RLlibCallback):
        def on_episode_end(self, *, episode: Any, metrics_logger: Any, **kwargs: Any) -> None:
            metrics_logger.log_value("length", episode.length, reduce="item_series")

    runner = _runner(_config(_growing_env(), num_envs=2).callbacks(Watch))
    if method == "sample":
        out = runner.sample(_state(1), num_env_steps=4, complete_episodes=True)
        assert out["num_env_steps"] == out["fragment"]["loss_mask"].sum() == 12
    else:
        out = runner.evaluate(_state(1), num_episodes=2)
    assert out["episodes"]["lengths"] == [value for _, value, _ in out["metrics"]] == [2, 10]
    # What goes on from there without a reset is shown from there.
    more = runner.evaluate(_state(1), num_episodes=2, reset=False)
    assert len(more["episodes"]["lengths"]) == len(more["metrics"]) == 2


def test_whole_episodes_end_where_the_batch_is_made_up() -> None:
    out = _runner(_config(_counting_env(6), num_envs=1)).sample(_state(1), num_env_steps=6, complete_episodes=True)
    assert out["num_env_steps"] == 6


def test_waiting_for_the_end_of_an_endless_episode_ends() -> None:
    runner = _runner(_config(_counting_env(10**9), num_envs=1, sample_timeout_s=0.05))
    with pytest.raises(TimeoutError, match="have not ended their episodes within 0.05 s"):
        runner.sample(_state(1), num_env_steps=4, complete_episodes=True)


def test_a_small_torch_policy_acts_in_one_thread_and_leaves_the_others_as_they_were() -> None:
    torch = pytest.importorskip("torch")
    from mltoolkit.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule
    from mltoolkit.rllib.core.rl_module.build import build_module
    from mltoolkit.rllib.env.inference import TorchInference

    runner = _runner(_config())
    module = build_module(_config(), *runner.spaces())
    assert isinstance(module, DefaultPPOTorchRLModule)
    seen: list[int] = []
    module.encoder.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        infer = TorchInference(module, runner.env.action_space)
        infer(np.zeros((2, 4), np.float32), {}, np.random.default_rng(0), True)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert set(seen) == {1}
