"""Is the best value that OptunaSearch finds as good as what Optuna finds by itself, at equal budget?

Optuna's TPE on Branin and on Hartmann-6: 100 trials, 20 seeds, the same for both. The regret, the best value found less
the least possible one, is a sample for each seed. `_tune_quality.py` has random search and BOHB as well, and a test of
the difference.
"""

from __future__ import annotations

import time

from _harness import Recorder, parser, seed_everything
from _tune_quality import PROBLEMS, optuna_itself, optuna_search, through_searcher

RUNTIMES = ("mltoolkit", "optuna")
NAMES = {"Branin": "branin", "Hartmann-6": "hartmann6"}
TRIALS, SEEDS = 100, 20
SMOKE_TRIALS, SMOKE_SEEDS = 12, 2


def main() -> None:
    """Run the program."""
    options = parser(__doc__, RUNTIMES).parse_args()
    seed_everything()
    record = Recorder(options.runtime)
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    run = optuna_itself if options.runtime == "optuna" else through_searcher(optuna_search)
    trials, seeds = (SMOKE_TRIALS, SMOKE_SEEDS) if options.smoke else (TRIALS, SEEDS)
    for problem in PROBLEMS:
        run(problem, seeds, 2)  # what is imported at the first trial is no suggestion's cost
        for seed in range(seeds):
            began = time.perf_counter()
            best = run(problem, seed, trials)
            record.add("suggestion", (time.perf_counter() - began) / trials * 1e3)
            record.add(f"{NAMES[problem.name]}_regret", best - problem.least)
    record.finish(options.out, (options.runtime, "optuna", "numpy"))


if __name__ == "__main__":
    main()
