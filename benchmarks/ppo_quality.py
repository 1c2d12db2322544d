"""How many environment steps does PPO need for Pendulum-v1 and Acrobot-v1, against Stable-Baselines3 with tuned settings?

Goals are mean returns of 100 episodes, as they were sampled in training: -200 and -100. mltoolkit has its presets,
Stable-Baselines3 the settings of RL Baselines3 Zoo; it looks at the mean whenever an episode ends, mltoolkit after every
iteration. A run that is given up counts with the steps until then, and as unsolved. Times are those of training, without
imports; the first run of a process warms it up.
"""

from __future__ import annotations

from dataclasses import replace

from _harness import Recorder, parser, seed_everything
from _ppo_runtimes import PACKAGES, TASKS, learn

RUNTIMES = ("mltoolkit", "sb3")
NAMES = ("pendulum", "acrobot")
SEEDS = 5


def main() -> None:
    """Run the program."""
    arguments = parser(__doc__, RUNTIMES)
    arguments.add_argument("--tasks", nargs="+", choices=NAMES, default=NAMES, help="which are measured")
    arguments.add_argument("--seeds", type=int, default=SEEDS, help=f"how many runs of each (default: {SEEDS})")
    arguments.add_argument("--first-seed", type=int, default=0, help="seed of the first run")
    options = arguments.parse_args()
    seed_everything()
    record = Recorder(options.runtime)
    for name in options.tasks:
        task = TASKS[name]
        if options.smoke:
            task = replace(task, limit=1_000)
        else:
            learn(options.runtime, replace(task, limit=1), options.first_seed)
        for seed in range(options.first_seed, options.first_seed + (1 if options.smoke else options.seeds)):
            outcome = learn(options.runtime, task, seed)
            record.add(f"{name}_steps", outcome.steps)
            record.add(f"{name}_training", outcome.seconds)
            record.add(f"{name}_unsolved", 0.0 if outcome.reached else 1.0)
    record.finish(options.out, (options.runtime, "stable-baselines3", *PACKAGES))


if __name__ == "__main__":
    main()
