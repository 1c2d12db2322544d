"""BOHB: the density model on cases worked by hand, the searcher, and HyperBandForBOHB with it."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

from mltoolkit.tune.experiment import Trial
from mltoolkit.tune.schedulers.hb_bohb import HyperBandForBOHB
from mltoolkit.tune.search import sample
from mltoolkit.tune.search.bohb import TuneBOHB
from mltoolkit.tune.search.bohb._kde import DensityRatio, KernelDensity, KernelSettings, split_sizes


def test_density_of_one_continuous_parameter_is_the_mean_of_truncated_gaussians():
    points = np.array([[0.1], [0.5]])
    density = KernelDensity(points, [0], 1e-3)
    width = 1.06 * 0.2 * 2 ** (-1 / 5)
    assert density.bandwidths == pytest.approx([width])

    def kernel(x, centre):
        gaussian = math.exp(-0.5 * ((x - centre) / width) ** 2) / (width * math.sqrt(2 * math.pi))
        upper, lower = ((edge - centre) / width / math.sqrt(2) for edge in (1, 0))
        return gaussian / (0.5 * (math.erf(upper) - math.erf(lower)))

    expected = (kernel(0.3, 0.1) + kernel(0.3, 0.5)) / 2
    assert density.pdf(np.array([[0.3]])) == pytest.approx([expected])
    grid = np.linspace(0, 1, 2001)[:, None]
    assert np.trapezoid(density.pdf(grid), grid[:, 0]) == pytest.approx(1, abs=1e-4)


def test_density_of_a_categorical_parameter_is_that_of_aitchison_and_aitken():
    density = KernelDensity(np.array([[0.0], [0.0], [2.0], [0.0]]), [3], 1e-3)
    width = min(1.06 * math.sqrt(0.75) * 4 ** (-1 / 5), 2 / 3)
    assert density.bandwidths == pytest.approx([width])
    probabilities = density.pdf(np.array([[0.0], [1.0], [2.0]]))
    assert probabilities.sum() == pytest.approx(1)
    assert probabilities[0] == pytest.approx(0.75 * (1 - width) + 0.25 * width / 2)
    narrow = KernelDensity(np.array([[0.0], [0.0]]), [3], 0.06)
    assert narrow.pdf(np.array([[0.0], [1.0], [2.0]])) == pytest.approx([0.94, 0.03, 0.03])


def test_a_product_over_parameters():
    points = np.array([[0.2, 1.0], [0.7, 0.0]])
    both = KernelDensity(points, [0, 2], 1e-3)
    assert both.bandwidths == pytest.approx([1.06 * 0.25 * 2 ** (-1 / 6), min(1.06 * 0.5 * 2 ** (-1 / 6), 0.5)])
    grid = np.linspace(0, 1, 2001)
    mass = sum(np.trapezoid(both.pdf(np.column_stack([grid, np.full(2001, c)])), grid) for c in (0.0, 1.0))
    assert mass == pytest.approx(1, abs=1e-4)


def test_samples_follow_the_widened_kernels():
    rng = np.random.default_rng(0)
    density = KernelDensity(np.array([[0.5, 1.0]] * 2), [0, 3], 0.1)
    drawn = density.sample(20_000, 1.5, rng)
    assert drawn[:, 0].std() == pytest.approx(0.15, abs=0.003)  # 1.5 x 0.1, hardly truncated
    assert ((drawn[:, 0] >= 0) & (drawn[:, 0] <= 1)).all()
    # One in ten is drawn anew, from all three categories.
    assert (drawn[:, 1] == 1).mean() == pytest.approx(1 - 0.1 * 2 / 3, abs=0.01)


@pytest.mark.parametrize(
    ("n_points", "minimum", "percent", "expected"),
    [(100, 3, 15, (15, 85)), (10, 3, 15, (3, 7)), (5, 3, 15, (3, 3)), (5, 9, 15, (5, 5))],
)
def test_split_into_good_and_bad(n_points, minimum, percent, expected):
    assert split_sizes(n_points, minimum, percent) == expected


def test_the_ratio_leads_to_the_good_region():
    rng = np.random.default_rng(1)
    points = rng.random((60, 2))
    losses = ((points - 0.3) ** 2).sum(axis=1)
    model = DensityRatio(points, losses, [0, 0], KernelSettings())
    suggested = np.array([model.suggest(rng) for _ in range(50)])
    assert np.abs(suggested - 0.3).mean() < 0.15
    assert len(model.good._points) == 9


def make(**options):
    settings = {"metric": "loss", "mode": "min", "seed": 0, **options}
    return TuneBOHB({"x": sample.uniform(0, 1)}, **settings)


def report(search, trial_id, loss, budget):
    search.on_trial_result(trial_id, {"loss": loss, "hyperband_info": {"budget": budget}})


def test_the_largest_budget_with_enough_results_counts():
    search = make(bohb_config={"random_fraction": 0.0})
    for number in range(9):
        search.suggest(str(number))
    assert search._fitted() is None
    for number in range(8):
        report(search, str(number), 1.0, 1)
    assert search._fitted() is search._fitted()
    assert search._model[:2] == (1, 8)
    for number in range(3):  # N_min + 2 = 4 are needed
        report(search, str(number), 1.0, 9)
        search._fitted()
    assert search._model[0] == 1
    report(search, "3", 1.0, 9)
    search._fitted()
    assert search._model[:2] == (9, 4)


def test_paused_trials_do_not_count_against_the_limit():
    search = make(max_concurrent=2)
    assert isinstance(search.suggest("a"), dict)
    assert isinstance(search.suggest("b"), dict)
    assert search.suggest("c") is None
    search.on_pause("a")
    assert isinstance(search.suggest("c"), dict)
    search.on_unpause("a")
    assert search.suggest("d") is None
    for trial_id in "abc":
        search.on_trial_complete(trial_id, {"loss": 1.0})
    assert isinstance(search.suggest("d"), dict)
    assert search.set_max_concurrency(1) is True
    assert search.suggest("e") is None


def test_options_are_checked():
    with pytest.raises(ValueError, match="Did you mean 'num_samples'"):
        make(bohb_config={"num_sample": 3})
    with pytest.raises(ValueError, match="`top_n_percent`.*`random_fraction`"):
        make(bohb_config={"top_n_percent": 100, "random_fraction": 2})


class Controller:
    """Runs trials of a step a time, and does what a scheduler asks for."""

    def __init__(self, search, scheduler):
        self.trials = []
        self.search_alg = SimpleNamespace(
            searcher=search, total_samples=None, is_finished=lambda: len(self.trials) >= 13
        )
        self.scheduler = scheduler

    def get_trials(self):
        return self.trials

    def get_live_trials(self):
        return [trial for trial in self.trials if not trial.is_finished()]

    def get_trial(self, trial_id):
        return next((trial for trial in self.trials if trial.trial_id == trial_id), None)

    def stop_trial(self, trial):
        trial.status = Trial.TERMINATED
        self.scheduler.on_trial_remove(self, trial)
        self.search_alg.searcher.on_trial_complete(trial.trial_id, trial.last_result)

    def resume_trial(self, trial):
        trial.status = Trial.PENDING

    def add(self):
        trial_id = str(len(self.trials))
        config = self.search_alg.searcher.suggest(trial_id)
        if config is None:
            return
        trial = Trial(trial_id, "trainable", config)
        self.trials.append(trial)
        self.scheduler.on_trial_add(self, trial)

    def step(self):
        """Give a result of the next trial; False if there is none to run."""
        trial = self.scheduler.choose_trial_to_run(self)
        if trial is None:
            return False
        trial.status = Trial.RUNNING
        while trial.status == Trial.RUNNING:
            time = trial.last_result.get("training_iteration", 0) + 1
            result = {"training_iteration": time, "loss": trial.config["x"] + 1 / time}
            trial.update_last_result(result)
            self.search_alg.searcher.on_trial_result(trial.trial_id, result)
            decision = self.scheduler.on_trial_result(self, trial, result)
            if decision == "PAUSE":
                trial.status = Trial.PAUSED
            elif decision == "STOP":
                trial.status = Trial.TERMINATED
                self.scheduler.on_trial_complete(self, trial, result)
                self.search_alg.searcher.on_trial_complete(trial.trial_id, result)
        return True


def test_hyperband_fills_the_largest_bracket_first_and_tells_the_searcher():
    search = make(max_concurrent=1)
    scheduler = HyperBandForBOHB(metric="loss", mode="min", max_t=9, reduction_factor=3)
    assert scheduler.brackets() == [(9, 1), (5, 3), (3, 9)]
    controller = Controller(search, scheduler)
    for _ in range(200):
        if len(controller.trials) < 13:
            controller.add()
        if not controller.step() and len(controller.trials) >= 13:
            if not controller.get_live_trials():
                break
            scheduler.on_stall(controller)
    assert all(trial.is_finished() for trial in controller.trials)
    sizes = {budget: len(losses) for budget, losses in search._losses.items()}
    assert sizes[1] == 9  # all of the first bracket
    assert sizes[3] == 3 + 4  # its best third, and the four of the second one that there were
    assert sizes[9] == 1 + 2
    values = search._losses[1]
    assert values["0"] == pytest.approx(controller.trials[0].config["x"] + 1)
    best = sorted(values, key=values.get)[:3]
    assert set(best) <= set(search._losses[3])
    assert search._running == set()
    assert search._paused == set()
