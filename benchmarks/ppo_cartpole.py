"""How long does a script take to learn CartPole-v1 by PPO, a mean return of 475 over 100 episodes, start-up included?

Each seed is a script of its own, and its time that of the whole process, from its start to its end. `own settings` are
those that each project tuned for this environment: mltoolkit's preset, RLlib's own example, RL Baselines3 Zoo. With `the
same settings` all have those of mltoolkit's preset, as far as they have such settings. A run that is given up counts
with the time until then, and as unsolved.

RLlib takes long: it runs the first half of the seeds.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from _harness import Recorder, parser, run_fresh, seed_everything
from _ppo_runtimes import PACKAGES, RUNTIMES

CHILD = Path(__file__).with_name("_ppo_child.py")
SETTINGS = ("own", "same")
SEEDS = 10


def main() -> None:
    """Run the program."""
    arguments = parser(__doc__, RUNTIMES)
    arguments.add_argument("--seeds", type=int, default=SEEDS, help=f"how many runs (default: {SEEDS})")
    arguments.add_argument("--first-seed", type=int, default=0, help="seed of the first run")
    arguments.add_argument("--settings", nargs="+", choices=SETTINGS, default=SETTINGS, help="which are measured")
    options = arguments.parse_args()
    seed_everything()
    record = Recorder(options.runtime)
    seeds = 1 if options.smoke else options.seeds
    if options.runtime == "ray":
        seeds = -(-seeds // 2)
    for seed in range(options.first_seed, options.first_seed + seeds):
        for settings in options.settings:
            # The child's clock is this one: monotonic time is the system's, not the process's.
            command = [sys.executable, str(CHILD), options.runtime, settings, str(seed), repr(time.monotonic())]
            wall = run_fresh([*command, "smoke" if options.smoke else "full"], record)
            record.add(f"cartpole_{settings}", wall)
    record.finish(options.out, (options.runtime, "stable-baselines3", *PACKAGES))


if __name__ == "__main__":
    main()
