"""Population Based Training on the toy problem of its paper (Jaderberg et al. 2017, Sec. 2 and Fig. 2).

The objective Q = 1.2 - x0^2 - x1^2 is unknown to the two trials: each climbs the surrogate
1.2 - h0 x0^2 - h1 x1^2 instead, with its hyperparameters h. With h = (1, 0) or (0, 1) a trial can never get further
than Q = 0.39, since one of the coordinates never moves. Where the better trial is copied and h varied, the population
gets to the top, along a schedule of h that no search over fixed configurations could find.

    python examples/tune_pbt.py
"""

from __future__ import annotations

from typing import Any

from mltoolkit import tune
from mltoolkit.tune.schedulers import PopulationBasedTraining, TrialScheduler

STEPS = 100
START = (0.9, 0.9)
STEP_SIZE = 0.02


class Surrogate(tune.Trainable):
    def setup(self, config: dict[str, Any]) -> None:
        self.x = list(START)

    def step(self) -> dict[str, float]:
        h = (self.config["h0"], self.config["h1"])
        # Uphill on the surrogate, whose gradient is -2 h x.
        self.x = [x - STEP_SIZE * 2 * weight * x for x, weight in zip(self.x, h, strict=True)]
        return {"Q": 1.2 - self.x[0] ** 2 - self.x[1] ** 2, "x0": self.x[0], "x1": self.x[1]}

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        return {"x": self.x}

    def load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.x = checkpoint["x"]

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        # Lets a process go from one configuration to the next without starting anew.
        self.x = list(START)
        return True


def sweep(name: str, scheduler: TrialScheduler | None) -> tune.ResultGrid:
    results = tune.Tuner(
        Surrogate,
        # Two trials, blind on one coordinate each.
        param_space={"h0": tune.sample_from(lambda config: 1 - config["h1"]), "h1": tune.grid_search([0.0, 1.0])},
        tune_config=tune.TuneConfig(metric="Q", mode="max", scheduler=scheduler, reuse_actors=True, seed=1),
        run_config=tune.RunConfig(
            stop={"training_iteration": STEPS},
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=5, num_to_keep=2),
            verbose=0,
        ),
    ).fit()
    finals = ", ".join(f"{result.metrics['Q']:.3f}" for result in results)
    print(f"{name}: Q = {finals} after {STEPS} steps")
    return results


def main() -> None:
    sweep("without exchange", None)
    results = sweep(
        "with PBT",
        PopulationBasedTraining(
            perturbation_interval=5,
            time_attr="training_iteration",
            hyperparam_mutations={"h0": tune.uniform(0, 1), "h1": tune.uniform(0, 1)},
            quantile_fraction=0.5,
            synch=True,
        ),
    )
    best = results.get_best_result()
    print(f"the best of the population came to x = ({best.metrics['x0']:.2f}, {best.metrics['x1']:.2f})")

    changes = best.metrics_dataframe.drop_duplicates(["config/h0", "config/h1"])
    print(f"its schedule, {len(changes)} settings:")
    for row in changes.head(6).to_dict("records"):
        print(f"  from step {row['training_iteration']:3}: h = ({row['config/h0']:.2f}, {row['config/h1']:.2f})")


if __name__ == "__main__":
    main()
