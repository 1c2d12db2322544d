"""How many steps of CartPole-v1 per second does PPO sample, in this process and in runners beside it?

The same network everywhere, two layers of 64 units, and the same batches of 4,096 steps. What is timed is an iteration's
sampling alone: of mltoolkit and RLlib what their PPO calls before it learns, the way from the runners' processes
included; of Stable-Baselines3 its `collect_rollouts`, which computes the values of the observations as well. Without
runners Stable-Baselines3 has a DummyVecEnv, otherwise a SubprocVecEnv, with one environment in each process; its policy
acts in this process, mltoolkit's and RLlib's in the runners.
"""

from __future__ import annotations

import time

from _harness import Recorder, parser, seed_everything
from _ppo_runtimes import PACKAGES, RUNTIMES
from _ppo_samplers import Sampler, make_sampler

BATCH = 4096
SECONDS = 3.0
"""How long each kind is sampled at least."""

SHAPES = {
    "mltoolkit": [(runners, envs) for runners in (0, 1, 2) for envs in (1, 8, 64)] + [(8, 1)],
    "ray": [(runners, envs) for runners in (0, 1, 2) for envs in (1, 8, 64)],
    "sb3": [(0, 1), (0, 8), (0, 64), (1, 1), (2, 1), (8, 1)],
}
"""Runners besides this process, and environments of each."""


def steps_per_second(sampler: Sampler, seconds: float) -> float:
    """Sample for so long, but at least one batch, after one to warm up."""
    sampler.sample()
    steps, began = 0, time.perf_counter()
    while True:
        steps += sampler.sample()
        spent = time.perf_counter() - began
        if spent >= seconds:
            return steps / spent


def main() -> None:
    """Run the program."""
    arguments = parser(__doc__, RUNTIMES)
    arguments.add_argument("--runners", nargs="+", type=int, default=[0, 1, 2, 8], help="which numbers are measured")
    options = arguments.parse_args()
    seed_everything()
    record = Recorder(options.runtime)
    for runners, envs in SHAPES[options.runtime]:
        if runners not in options.runners:
            continue
        sampler = make_sampler(options.runtime, runners, envs, 64 if options.smoke else BATCH)
        try:
            record.add(f"sample_{runners}_{envs}", steps_per_second(sampler, 0.0 if options.smoke else SECONDS))
        finally:
            sampler.close()
    record.finish(options.out, (options.runtime, "stable-baselines3", *PACKAGES))


if __name__ == "__main__":
    main()
