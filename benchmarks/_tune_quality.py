"""Is the best value found through our searcher as good as what the library finds by itself, at equal budget?

Optuna's TPE on Branin and on Hartmann-6, once through Optuna's own loop and once through a bare loop over
`OptunaSearch`, with the same seeds; random search and BOHB's model beside them. Run it with `python
benchmarks/_tune_quality.py [--seeds 20] [--trials 100]`.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from _harness import describe_machine, versions


@dataclass(frozen=True)
class Problem:
    """A function to minimise: bounds of each parameter, and the least value."""

    name: str
    bounds: dict[str, tuple[float, float]]
    function: Callable[[dict[str, float]], float]
    least: float


def branin(x: dict[str, float]) -> float:
    """Branin's function; three minima of 0.397887."""
    b, c, t = 5.1 / (4 * math.pi**2), 5 / math.pi, 1 / (8 * math.pi)
    return (x["x1"] - b * x["x0"] ** 2 + c * x["x0"] - 6) ** 2 + 10 * (1 - t) * math.cos(x["x0"]) + 10


_ALPHA = np.array([1.0, 1.2, 3.0, 3.2])
_A = np.array(
    [[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14]]
)
_P = 1e-4 * np.array(
    [
        [1312, 1696, 5569, 124, 8283, 5886],
        [2329, 4135, 8307, 3736, 1004, 9991],
        [2348, 1451, 3522, 2883, 3047, 6650],
        [4047, 8828, 8732, 5743, 1091, 381],
    ]
)


def hartmann6(x: dict[str, float]) -> float:
    """Hartmann's function of six parameters; one global minimum of -3.32237."""
    point = np.array([x[f"x{i}"] for i in range(6)])
    return float(-(_ALPHA * np.exp(-(_A * (point - _P) ** 2).sum(axis=1))).sum())


PROBLEMS = (
    Problem("Branin", {"x0": (-5, 10), "x1": (0, 15)}, branin, 0.397887),
    Problem("Hartmann-6", {f"x{i}": (0, 1) for i in range(6)}, hartmann6, -3.32237),
)


def optuna_itself(problem: Problem, seed: int, trials: int) -> float:
    """Optuna's own loop."""
    import optuna

    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    study.optimize(
        lambda trial: problem.function(
            {name: trial.suggest_float(name, low, high) for name, (low, high) in problem.bounds.items()}
        ),
        n_trials=trials,
    )
    return study.best_value


def through_searcher(make: Callable[[dict[str, Any], int], Any]) -> Callable[[Problem, int, int], float]:
    """A bare loop over `suggest` and `on_trial_complete` of a searcher that `make(space, seed)` returns."""

    def run(problem: Problem, seed: int, trials: int) -> float:
        from mltoolkit.tune.search.sample import uniform

        search = make({name: uniform(low, high) for name, (low, high) in problem.bounds.items()}, seed)
        best = math.inf
        for number in range(trials):
            trial_id = f"trial_{number:05d}"
            value = problem.function(search.suggest(trial_id))
            search.on_trial_complete(trial_id, {"loss": value, "training_iteration": 1})
            best = min(best, value)
        return best

    return run


def optuna_search(space: dict[str, Any], seed: int) -> Any:
    """Our searcher on Optuna, its default sampler."""
    from mltoolkit.tune.search.optuna import OptunaSearch

    return OptunaSearch(space, metric="loss", mode="min", seed=seed)


def random_search(space: dict[str, Any], seed: int) -> Any:
    """Our searcher on Optuna, with its random sampler."""
    import optuna

    from mltoolkit.tune.search.optuna import OptunaSearch

    return OptunaSearch(space, metric="loss", mode="min", sampler=optuna.samplers.RandomSampler(seed=seed))


def bohb(space: dict[str, Any], seed: int) -> Any:
    """The model of BOHB at one budget."""
    from mltoolkit.tune.search.bohb import TuneBOHB

    return TuneBOHB(space, metric="loss", mode="min", seed=seed)


CONTENDERS = {
    "Optuna itself, TPE": optuna_itself,
    "OptunaSearch, TPE": through_searcher(optuna_search),
    "OptunaSearch, random": through_searcher(random_search),
    "TuneBOHB": through_searcher(bohb),
}


def rank_sum_p_value(left: list[float], right: list[float]) -> float:
    """Two-sided p-value of the Mann-Whitney test, by its normal approximation with correction for ties."""
    values = np.concatenate([left, right])
    order = values.argsort()
    ranks = np.empty(len(values))
    ranks[order] = np.arange(1, len(values) + 1)
    sizes = []
    for value in np.unique(values):
        same = values == value
        ranks[same] = ranks[same].mean()
        sizes.append(int(same.sum()))
    n, m = len(left), len(right)
    total = n + m
    u = ranks[:n].sum() - n * (n + 1) / 2
    ties = sum(size**3 - size for size in sizes) / (total * (total - 1))
    spread = math.sqrt(n * m / 12 * (total + 1 - ties))
    if spread == 0:
        return 1.0
    return math.erfc(max(abs(u - n * m / 2) - 0.5, 0) / spread / math.sqrt(2))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20, help="runs of each")
    parser.add_argument("--trials", type=int, default=100, help="budget of a run")
    arguments = parser.parse_args()

    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    print(describe_machine())
    print(", ".join(f"{name} {version}" for name, version in versions(("optuna", "mltoolkit", "numpy")).items()))
    print(f"{arguments.trials} trials, {arguments.seeds} seeds; regret is the best value less the least possible one")
    print(f"{'':<12} {'':<22} {'median':>10} {'quartiles':>23} {'s/run':>7} {'p against Optuna':>17}")
    for problem in PROBLEMS:
        own: list[float] = []
        for name, run in CONTENDERS.items():
            start = time.perf_counter()
            regrets = [run(problem, seed, arguments.trials) - problem.least for seed in range(arguments.seeds)]
            seconds = (time.perf_counter() - start) / arguments.seeds
            own = own or regrets
            low, middle, high = statistics.quantiles(regrets, n=4, method="inclusive")
            p = rank_sum_p_value(own, regrets)
            print(
                f"{problem.name:<12} {name:<22} {middle:>10.4g} {f'{low:.4g} .. {high:.4g}':>23} {seconds:>7.2f} {p:>17.2f}"
            )


if __name__ == "__main__":
    main()
