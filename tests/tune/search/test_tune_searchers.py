"""What every searcher does that stands on a library: one suite over all of them."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from mltoolkit.tune.search import sample
from mltoolkit.tune.search.searcher import Searcher


@dataclass(frozen=True)
class Case:
    """A searcher under test.

    `load` imports the class, `floats_only` tells that it takes floats alone, `trials` how many it runs through quickly,
    `learns_after` how many trials it draws at random before it learns, `seed` the name of its seed.
    """

    name: str
    load: Callable[[], type[Searcher]]
    module: str
    seed: str = "seed"
    options: dict[str, Any] = field(default_factory=dict)
    floats_only: bool = False
    takes_normal: bool = False
    trials: int = 20
    learning_trials: int = 80

    def make(self, **kwargs: Any) -> Any:
        if "seed" in kwargs:
            kwargs[self.seed] = kwargs.pop("seed")
        return self.load()(**{"metric": "loss", "mode": "min", **self.options, **kwargs})

    def space(self) -> dict[str, Any]:
        return floats() if self.floats_only else mixed()


def load(module: str, name: str) -> type[Searcher]:
    import importlib

    pytest.importorskip(module.split(":")[1])
    return getattr(importlib.import_module(f"mltoolkit.tune.search.{module.split(':')[0]}"), name)


CASES = [
    Case("optuna", partial(load, "optuna:optuna", "OptunaSearch"), "optuna"),
    Case(
        "hyperopt",
        partial(load, "hyperopt:hyperopt", "HyperOptSearch"),
        "hyperopt",
        seed="random_state_seed",
        options={"n_initial_points": 8},
        takes_normal=True,
    ),
    Case(
        "bayesopt",
        partial(load, "bayesopt:bayes_opt", "BayesOptSearch"),
        "bayes_opt",
        seed="random_state",
        options={"random_search_steps": 4, "random_state": None},
        floats_only=True,
        trials=5,
        learning_trials=10,
    ),
    Case("nevergrad", partial(load, "nevergrad:nevergrad", "NevergradSearch"), "nevergrad", takes_normal=True),
    Case("bohb", partial(load, "bohb:numpy", "TuneBOHB"), "numpy", takes_normal=True),
    Case("ax", partial(load, "ax:ax", "AxSearch"), "ax", seed="random_seed", trials=4, learning_trials=9),
]

each_searcher = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def mixed():
    return {
        "optimizer": {"lr": sample.loguniform(1e-4, 1e-1), "momentum": sample.quniform(0.0, 0.9, 0.3)},
        "layers": [sample.randint(1, 4), 16],
        "width": sample.qrandint(8, 64, 8),
        "steps": sample.lograndint(1, 100),
        "kind": sample.choice(["relu", None, (1, 2), {"name": "elu"}]),
        "x": sample.uniform(-1, 1),
        "constant": 7,
    }


def floats():
    return {
        "optimizer": {"lr": sample.loguniform(1e-4, 1e-1), "momentum": sample.quniform(0.0, 0.9, 0.3)},
        "x": sample.uniform(-1, 1),
        "constant": 7,
    }


def is_multiple(value, q):
    return math.isclose(value / q, round(value / q), abs_tol=1e-9)


def check_floats(config):
    assert isinstance(config["optimizer"]["lr"], float)
    assert 1e-4 <= config["optimizer"]["lr"] <= 1e-1
    assert 0 <= config["optimizer"]["momentum"] <= 0.9
    assert is_multiple(config["optimizer"]["momentum"], 0.3)
    assert -1 <= config["x"] <= 1


def check_mixed(config):
    check_floats(config)
    layer = config["layers"]["0"]
    assert type(layer) is int
    assert 1 <= layer <= 3
    assert type(config["width"]) is int
    assert config["width"] in range(8, 65, 8)
    assert type(config["steps"]) is int
    assert 1 <= config["steps"] <= 99
    assert config["kind"] in ["relu", None, (1, 2), {"name": "elu"}]


def loss_of(config):
    return (config["x"] - 0.3) ** 2 + 0.1 * math.log10(config["optimizer"]["lr"] / 1e-2) ** 2


def tell(search, trial_id, config, **extra):
    search.on_trial_result(trial_id, {"loss": 2 * loss_of(config), "training_iteration": 1})
    search.on_trial_complete(trial_id, {"loss": loss_of(config), "training_iteration": 2, **extra})


def go_on(search, names):
    """Run trials two at a time, as they come; return what was suggested."""
    suggested = []
    waiting = []
    for name in names:
        config = search.suggest(name)
        if config is None:  # it waits for results
            for trial in waiting:
                tell(search, *trial)
            waiting = []
            config = search.suggest(name)
        suggested.append(config)
        waiting.append((name, config))
        if len(waiting) == 2:
            tell(search, *waiting.pop(0))
    for trial in waiting:
        tell(search, *trial)
    return suggested


def names(start, count):
    return [f"trial_{number:05d}" for number in range(start, start + count)]


@each_searcher
def test_converts_a_space_and_stays_within_it(case):
    search = case.make(metric=None, mode=None)
    assert search.set_search_properties("loss", "min", case.space()) is True
    assert search.set_seed(3) is True
    suggested = go_on(search, names(0, min(case.trials, 12)))
    for config in suggested:
        (check_floats if case.floats_only else check_mixed)(config)
        assert "constant" not in config
    assert len({config["x"] for config in suggested}) > 1


@each_searcher
def test_points_come_first_and_are_checked(case):
    first = {"optimizer": {"lr": 0.01, "momentum": 0.3}, "x": 0.5}
    second = {"x": -0.25, "optimizer": {"lr": 0.001}}  # the rest is drawn
    if not case.floats_only:
        first.update(layers=[2, 16], width=24, steps=10, kind=(1, 2))
    search = case.make(space=case.space(), points_to_evaluate=[first, second], seed=0)
    given = search.suggest("a")
    (check_floats if case.floats_only else check_mixed)(given)
    assert given["optimizer"] == pytest.approx(first["optimizer"])
    assert given["x"] == first["x"]
    if not case.floats_only:
        assert (given["layers"], given["width"], given["steps"], given["kind"]) == ({"0": 2}, 24, 10, (1, 2))
    given = search.suggest("b")
    assert given["optimizer"]["lr"] == pytest.approx(0.001)
    assert given["x"] == -0.25
    for wrong, text in (({"xx": 1}, "'xx'.*Did you mean 'x'"), ({"x": 7}, r"x=7.*\(-1, 1\)"), ("x", "list of dicts")):
        points = [wrong] if isinstance(wrong, dict) else wrong
        with pytest.raises((ValueError, TypeError), match=text):
            case.make(space=case.space(), points_to_evaluate=points)


@each_searcher
def test_a_seed_fixes_the_suggestions(case):
    runs = [go_on(case.make(space=floats(), seed=5), names(0, case.trials)) for _ in range(2)]
    assert runs[0] == runs[1]
    assert go_on(case.make(space=floats(), seed=6), names(0, 3)) != runs[0][:3]


@each_searcher
def test_the_sweeps_seed_counts_where_the_searcher_has_none(case):
    runs = []
    for seed in (5, 5):
        search = case.make(space=floats())
        assert search.set_seed(seed) is True
        runs.append(go_on(search, names(0, 4)))
    assert runs[0] == runs[1]
    own = case.make(space=floats(), seed=5)
    own.set_seed(99)
    assert go_on(own, names(0, 4)) == runs[0]


@each_searcher
def test_a_restored_searcher_goes_on_as_the_first_would(case, tmp_path):
    search = case.make(space=floats(), seed=1)
    first, later = case.trials // 2 + 1, case.trials // 2
    go_on(search, names(0, first))
    live = search.suggest("live")
    search.save(tmp_path / "state.pkl")

    def rest(searcher):
        tell(searcher, "live", live)
        return go_on(searcher, names(first, later))

    expected = rest(search)
    copy = case.make(metric=None, mode=None)  # made anew, without its space
    copy.restore(tmp_path / "state.pkl")
    assert copy.suggest("live") == live  # asked once more, as in a replay
    assert rest(copy) == expected


@each_searcher
def test_a_searcher_is_saved_before_it_has_begun(case, tmp_path):
    search = case.make(space=floats(), seed=1, points_to_evaluate=[{"x": 0.5}])
    search.save(tmp_path / "state.pkl")
    copy = case.make(metric=None, mode=None)
    copy.restore(tmp_path / "state.pkl")
    assert go_on(copy, names(0, 3)) == go_on(search, names(0, 3))


@each_searcher
def test_failures_and_odd_results_are_tolerated(case):
    search = case.make(space=floats(), seed=1)
    ends = [
        {"error": True},
        {"result": {"loss": 1.0}, "error": True},
        {"result": {"loss": float("nan"), "training_iteration": 3}},
        {"result": {"loss": float("inf")}},
        {"result": {"other": 1.0, "training_iteration": 1}},
        {"result": {"loss": "many"}},
        {"result": None},
        {"result": {}},
    ]
    for number, end in enumerate(ends):
        config = search.suggest(f"odd_{number}")
        check_floats(config)
        search.on_trial_result(f"odd_{number}", {"loss": float("nan"), "training_iteration": 1})
        search.on_trial_result(f"odd_{number}", {"training_iteration": 2})
        search.on_trial_complete(f"odd_{number}", **end)
        search.on_trial_complete(f"odd_{number}", {"loss": 0.1})  # once more, of a trial that has ended
    search.on_trial_result("unheard_of", {"loss": 1.0, "training_iteration": 1})
    search.on_trial_complete("unheard_of", {"loss": 1.0})
    for config in go_on(search, names(0, min(case.trials, 4))):
        check_floats(config)


@each_searcher
@pytest.mark.parametrize("mode", ["min", "max"])
def test_it_learns(case, mode):
    sign = 1 if mode == "min" else -1
    search = case.make(space={"x": sample.uniform(-10, 10)}, metric="eval/score", mode=mode, seed=2)
    distances = []
    for name in names(0, case.learning_trials):
        config = search.suggest(name)
        if config == Searcher.FINISHED:
            break
        distances.append(abs(config["x"] - 2))
        search.on_trial_complete(name, {"eval": {"score": sign * (config["x"] - 2) ** 2}, "training_iteration": 1})
    last = distances[len(distances) // 2 :]
    assert min(distances) < 0.5
    assert sum(last) / len(last) < 4  # 5.2 at random


@each_searcher
def test_what_is_missing_is_said(case):
    with pytest.raises(RuntimeError, match="no search space"):
        case.make().suggest("a")
    with pytest.raises(RuntimeError, match="metric"):
        case.make(space=floats(), metric=None, mode=None).suggest("a")
    own = case.make(space=floats(), metric=None, mode=None)
    assert own.set_search_properties("loss", "min", {}) is False
    assert own.metric == "loss"
    check_floats(own.suggest("a"))
    with pytest.raises(ValueError, match="'minimum'"):
        case.make(mode="minimum")


@each_searcher
def test_what_cannot_be_searched_is_named(case):
    convert = case.load().convert_search_space
    with pytest.raises(ValueError, match=r"grid_search.*a/b"):
        convert({"a": {"b": {"grid_search": [1, 2]}}})
    with pytest.raises(ValueError, match=r"sample_from.*'f'"):
        convert({"f": sample.sample_from(lambda config: 1)})
    if not case.takes_normal:
        with pytest.raises(ValueError, match=r"'a/n'.*Normal.*Use"):
            convert({"a": {"n": sample.randn(0, 1)}})
    if case.floats_only:
        with pytest.raises(ValueError, match=r"'n'.*Integer.*Use"):
            convert({"n": sample.randint(1, 3)})
    if case.name != "hyperopt":
        with pytest.raises(ValueError, match=r"'c'.*(Use|For a conditional)"):
            convert({"c": sample.choice([{"d": sample.uniform(0, 1)}, 1])})


@each_searcher
def test_the_package_that_is_missing_is_named(case, monkeypatch):
    cls = case.load()
    monkeypatch.setitem(sys.modules, case.module, None)
    if case.name == "ax":
        monkeypatch.setitem(sys.modules, "ax.api.client", None)
    with pytest.raises(ImportError, match=rf"{cls.__name__} needs {case.module}.*pip install \"mltoolkit\["):
        cls()
