"""A network of one's own, a loss of one's own, and callbacks with metrics of one's own.

The network is a `TorchModelV2`, the class that RLlib's programs have: it sees the observation and its squares, and pulls
its weights towards zero. The callbacks run where the episodes do and measure how upright the pole stood. Trained by the
same configuration with an `RLModule`, today's kind, as well.

    python examples/rllib_custom_model.py
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from mltoolkit.rllib import PPOConfig, RLlibCallback, RLModule
from mltoolkit.rllib.core.columns import Columns
from mltoolkit.rllib.core.rl_module.apis.value_function_api import ValueFunctionAPI
from mltoolkit.rllib.models import ModelCatalog
from mltoolkit.rllib.models.torch.torch_modelv2 import TorchModelV2


class WithSquares(TorchModelV2, nn.Module):
    """Observations and their squares, one hidden layer for the policy and one for the value."""

    def __init__(
        self,
        obs_space: Any,
        action_space: Any,
        num_outputs: int,
        model_config: dict[str, Any],
        name: str,
        size: int = 32,
    ) -> None:
        TorchModelV2.__init__(self, obs_space, action_space, num_outputs, model_config, name)
        nn.Module.__init__(self)
        inputs = 2 * obs_space.shape[0]
        self.policy = nn.Sequential(nn.Linear(inputs, size), nn.Tanh(), nn.Linear(size, num_outputs))
        self.value = nn.Sequential(nn.Linear(inputs, size), nn.Tanh(), nn.Linear(size, 1))

    def forward(self, input_dict: Any, state: list[Any], seq_lens: Any) -> tuple[torch.Tensor, list[Any]]:
        obs = input_dict["obs_flat"].float()
        self.features = torch.cat([obs, obs.square()], dim=-1)
        return self.policy(self.features), state

    def value_function(self) -> torch.Tensor:
        return self.value(self.features).squeeze(-1)

    def custom_loss(self, policy_loss: list[torch.Tensor], loss_inputs: dict[str, Any]) -> list[torch.Tensor]:
        self.penalty = sum(weight.square().sum() for weight in self.policy.parameters())
        return [loss + 1e-4 * self.penalty for loss in policy_loss]

    def metrics(self) -> dict[str, float]:
        return {"penalty": self.penalty.item()}


class Plain(RLModule, ValueFunctionAPI):
    """The same without squares, as an RLModule."""

    def setup(self) -> None:
        inputs, size = self.observation_space.shape[0], self.model_config["size"]
        self.policy = nn.Sequential(nn.Linear(inputs, size), nn.Tanh(), nn.Linear(size, self.action_space.n))
        self.value = nn.Sequential(nn.Linear(inputs, size), nn.Tanh(), nn.Linear(size, 1))

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return {Columns.ACTION_DIST_INPUTS: self.policy(batch[Columns.OBS])}

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> torch.Tensor:
        return self.value(batch[Columns.OBS]).squeeze(-1)


class Upright(RLlibCallback):
    """How far the pole leans on average, by episode and at worst."""

    def on_episode_end(self, *, episode: Any, metrics_logger: Any, **kwargs: Any) -> None:
        angles = np.degrees(np.abs(episode.get_observations()[:, 2]))
        episode.custom_metrics["lean"] = float(angles.mean())
        metrics_logger.log_value("worst_lean", float(angles.max()), reduce="max")

    def on_train_result(self, *, result: dict[str, Any], **kwargs: Any) -> None:
        result["solved"] = result["episode_reward_mean"] >= 475


def train(name: str, config: PPOConfig) -> None:
    with config.build_algo() as algo:
        results = [algo.train() for _ in range(6)]
    print(f"{name}:")
    for result in (results[0], results[-1]):
        lean, worst = result["custom_metrics"]["lean_mean"], result["env_runners"]["worst_lean"]
        penalty = result["learners"]["default_policy"].get("model", {}).get("penalty")
        print(
            f"  after {result['timesteps_total']:6,} steps: return {result['episode_reward_mean']:5.1f}, the pole leans by "
            f"{lean:.1f} degrees, at worst by {worst:.1f}" + (f"; penalty {penalty:.1f}" if penalty is not None else "")
        )
    print("  solved:", result["solved"])


def main() -> None:
    config = (
        PPOConfig()
        .environment("CartPole-v1")
        .env_runners(num_env_runners=0, num_envs_per_env_runner=16)
        .training(train_batch_size=2048, minibatch_size=256, num_epochs=6, lr=3e-3)
        .callbacks(Upright)
        .debugging(seed=0)
    )
    ModelCatalog.register_custom_model("with_squares", WithSquares)
    train(
        "TorchModelV2",
        config.copy().training(model={"custom_model": "with_squares", "custom_model_config": {"size": 24}}),
    )
    train("RLModule", config.copy().rl_module(rl_module_spec=Plain, model_config={"size": 24}))


if __name__ == "__main__":
    main()
