"""How long does PPO's learner take for an update, against a bare torch loop of the same shapes and the same loss?

The bare loop is what a one-file implementation does, as CleanRL's: two networks, `torch.distributions`, advantages in
a loop over the steps, minibatches by indexing, `clip_grad_norm_`, `torch.optim.Adam`. Both run in one thread, which is
the fastest for such networks, learn from the same fragment, start from the same weights, and are checked to arrive at
the same losses. By default both are measured in one process, alternately, and the ratio of each pair of neighbours is
shown; with `--runtime` and `--out` only one of them, for run.py.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from _harness import SEED, Recorder, describe_machine, parser, seed_everything, versions

RUNTIMES = ("mltoolkit", "process")
PACKAGES = ("mltoolkit", "torch", "numpy")
GAMMA, LAMBDA, CLIP, VF_COEFF, ENTROPY_COEFF, GRAD_CLIP, LR = 0.99, 0.95, 0.2, 0.5, 0.01, 0.5, 3e-4
NUM_ENVS = 64


@dataclass(frozen=True)
class Shape:
    """An observation, a policy, and minibatches."""

    title: str
    observation: int
    actions: int
    continuous: bool
    hidden: int
    minibatch: int


SHAPES = {
    "ppo_update_small": Shape("4 observations, 2 actions, 32 x 32, minibatch 512", 4, 2, False, 32, 512),
    "ppo_update_cartpole": Shape("4 observations, 2 actions, 64 x 64, minibatch 512", 4, 2, False, 64, 512),
    "ppo_update_short": Shape("4 observations, 2 actions, 64 x 64, minibatch 128", 4, 2, False, 64, 128),
    "ppo_update_continuous": Shape("17 observations, 6 dimensions, 64 x 64, minibatch 256", 17, 6, True, 64, 256),
    "ppo_update_large": Shape("17 observations, 6 dimensions, 256 x 256, minibatch 512", 17, 6, True, 256, 512),
}


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    steps: int = 64  # of each of NUM_ENVS environments
    epochs: int = 10
    rounds: int = 7


SMOKE = Sizes(steps=8, epochs=1, rounds=2)

Update = Callable[[], dict[str, float]]


def make_module(shape: Shape) -> Any:
    """Make the networks, always with the same weights."""
    import gymnasium as gym
    import torch

    from mltoolkit.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule

    torch.manual_seed(SEED)
    action_space = (
        gym.spaces.Box(-1.0, 1.0, (shape.actions,), np.float32)
        if shape.continuous
        else gym.spaces.Discrete(shape.actions)
    )
    return DefaultPPOTorchRLModule(
        gym.spaces.Box(-np.inf, np.inf, (shape.observation,), np.float32),
        action_space,
        model_config={
            "fcnet_hiddens": [shape.hidden] * 2,
            "vf_share_layers": False,
            "free_log_std": shape.continuous,
        },
    )


def make_fragment(module: Any, shape: Shape, steps: int) -> dict[str, np.ndarray]:
    """Sample a fragment with the module's policy in an environment of noise."""
    import torch

    rng = np.random.default_rng(SEED)
    obs = rng.normal(size=(steps + 1, NUM_ENVS, shape.observation)).astype(np.float32)
    with torch.no_grad():
        inputs = module.forward_exploration({"obs": torch.from_numpy(obs[:-1])})["action_dist_inputs"]
        distribution = module.get_exploration_action_dist_cls().from_logits(inputs)
        actions = distribution.sample(generator=torch.Generator().manual_seed(SEED))
        logp = distribution.logp(actions)
    return {
        "obs": obs,
        "actions": actions.numpy(),
        "rewards": rng.normal(size=(steps, NUM_ENVS)).astype(np.float32),
        "terminateds": rng.random((steps, NUM_ENVS)) < 0.02,
        "truncateds": np.zeros((steps, NUM_ENVS), bool),
        "loss_mask": np.ones((steps, NUM_ENVS), bool),
        "action_logp": logp.numpy(),
        "action_dist_inputs": inputs.numpy(),
    }


def learner_update(shape: Shape, sizes: Sizes) -> Update:
    """Return the update of mltoolkit's learner."""
    from mltoolkit.rllib.algorithms.ppo import PPOConfig
    from mltoolkit.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner

    config = (
        PPOConfig()
        .debugging(seed=SEED)
        .training(
            lr=LR,
            gamma=GAMMA,
            lambda_=LAMBDA,
            clip_param=CLIP,
            vf_loss_coeff=VF_COEFF,
            vf_clip_param=1e9,
            entropy_coeff=ENTROPY_COEFF,
            use_kl_loss=False,
            grad_clip=GRAD_CLIP,
            num_epochs=sizes.epochs,
            minibatch_size=min(shape.minibatch, sizes.steps * NUM_ENVS),
            train_batch_size=sizes.steps * NUM_ENVS,
        )
    )
    module = make_module(shape)
    fragment = make_fragment(module, shape, sizes.steps)
    learner = PPOTorchLearner(config=config, module=module)
    learner.build()

    def update() -> dict[str, float]:
        result: dict[str, float] = learner.update([fragment])["default_policy"]
        return {name: result[name] for name in ("vf_loss", "entropy")}

    return update


def bare_update(shape: Shape, sizes: Sizes) -> Update:
    """Return the update of the bare loop."""
    import torch
    from torch import nn
    from torch.distributions import Categorical, Independent, Normal

    module = make_module(shape)
    fragment = {name: torch.from_numpy(value) for name, value in make_fragment(module, shape, sizes.steps).items()}
    policy = nn.Sequential(*module.encoder.net, *module.pi)
    critic = nn.Sequential(*module.vf_encoder.net, *module.vf)
    parameters = [*policy.parameters(), *critic.parameters()]
    if shape.continuous:
        parameters.append(module.log_std)
    optimizer = torch.optim.Adam(parameters, lr=LR, eps=1e-7)
    count = sizes.steps * NUM_ENVS
    minibatch = min(shape.minibatch, count)

    def distribution(outputs: torch.Tensor) -> Any:
        if shape.continuous:
            return Independent(Normal(outputs, module.log_std.exp().expand_as(outputs)), 1)
        return Categorical(logits=outputs)

    def update() -> dict[str, float]:
        with torch.no_grad():
            values = critic(fragment["obs"]).squeeze(-1)
            advantages = torch.zeros_like(fragment["rewards"])
            last = torch.zeros(NUM_ENVS)
            for t in reversed(range(sizes.steps)):
                alive = 1.0 - fragment["terminateds"][t].float()
                delta = fragment["rewards"][t] + GAMMA * values[t + 1] * alive - values[t]
                advantages[t] = last = delta + GAMMA * LAMBDA * alive * last
            returns = (advantages + values[:-1]).reshape(-1)
            advantages = advantages.reshape(-1)
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        obs = fragment["obs"][:-1].reshape(count, -1)
        actions = fragment["actions"].reshape(count, *fragment["actions"].shape[2:])
        logp = fragment["action_logp"].reshape(-1)
        last_epoch = []
        for epoch in range(sizes.epochs):
            order = torch.randperm(count)
            for first in range(0, count, minibatch):
                index = order[first : first + minibatch]
                current = distribution(policy(obs[index]))
                ratio = (current.log_prob(actions[index]) - logp[index]).exp()
                advantage = advantages[index]
                unclipped, clipped = -advantage * ratio, -advantage * ratio.clamp(1 - CLIP, 1 + CLIP)
                policy_loss = torch.max(unclipped, clipped).mean()
                vf_loss = (critic(obs[index]).squeeze(-1) - returns[index]).square().mean()
                entropy = current.entropy().mean()
                loss = policy_loss - ENTROPY_COEFF * entropy + VF_COEFF * vf_loss
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(parameters, GRAD_CLIP)
                optimizer.step()
                if epoch == sizes.epochs - 1:
                    last_epoch.append((vf_loss.item(), entropy.item()))
        return dict(zip(("vf_loss", "entropy"), np.mean(last_epoch, axis=0).tolist(), strict=True))

    return update


MAKE = {"mltoolkit": learner_update, "process": bare_update}


def milliseconds(update: Update) -> tuple[float, dict[str, float]]:
    """Return how long an update took, and its losses."""
    start = time.perf_counter()
    losses = update()
    return (time.perf_counter() - start) * 1e3, losses


def compare(sizes: Sizes) -> None:
    """Measure both alternately and print the ratios of neighbours."""
    out = sys.stdout.write
    out(f"{describe_machine()}\n{', '.join(f'{name} {version}' for name, version in versions(PACKAGES).items())}\n")
    out(
        f"update of {sizes.steps * NUM_ENVS} steps x {sizes.epochs} epochs, {sizes.rounds} rounds, median [min .. max]\n"
    )
    for shape in SHAPES.values():
        updates = {runtime: make(shape, sizes) for runtime, make in MAKE.items()}
        taken: dict[str, list[float]] = {runtime: [] for runtime in updates}
        for number in range(sizes.rounds + 1):
            losses = {}
            for runtime, update in updates.items():
                spent, losses[runtime] = milliseconds(update)
                if number:  # the first is the warm-up
                    taken[runtime].append(spent)
        check(losses["mltoolkit"], losses["process"])
        ratios = [bare / ours for ours, bare in zip(taken["mltoolkit"], taken["process"], strict=True)]
        out(f"  {shape.title}\n")
        for title, values, unit in (
            ("mltoolkit", taken["mltoolkit"], "ms"),
            ("bare loop", taken["process"], "ms"),
            ("times as fast", ratios, ""),
        ):
            out(
                f"    {title:<16}{statistics.median(values):>9.2f} {unit:<3} [{min(values):.2f} .. {max(values):.2f}]\n"
            )


def check(ours: dict[str, float], bare: dict[str, float]) -> None:
    """Refuse to report the time of something else: after as many updates both are equally far."""
    for name, value in ours.items():
        if not np.isclose(value, bare[name], rtol=0.05):
            raise RuntimeError(f"the learner's {name} is {value:g}, the bare loop's {bare[name]:g}")


def main() -> None:
    """Run the program."""
    options = parser(__doc__, RUNTIMES).parse_args()
    seed_everything()
    import torch

    torch.set_num_threads(1)
    sizes = SMOKE if options.smoke else Sizes()
    if options.out is None:
        compare(sizes)
        return
    record = Recorder(options.runtime)
    for name, shape in SHAPES.items():
        update = MAKE[options.runtime](shape, sizes)
        update()
        for _ in range(sizes.rounds):
            record.add(name, milliseconds(update)[0])
    record.finish(options.out, PACKAGES)


if __name__ == "__main__":
    main()
