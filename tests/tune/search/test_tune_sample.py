"""Domains: what they draw, which bounds they take, and what they say of themselves."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest

from mltoolkit.tune.search.sample import (
    Categorical,
    Domain,
    Float,
    Function,
    Grid,
    Integer,
    LogUniform,
    Normal,
    Quantized,
    Uniform,
    choice,
    lograndint,
    loguniform,
    qlograndint,
    qloguniform,
    qrandint,
    qrandn,
    quniform,
    randint,
    randn,
    sample_from,
    uniform,
)

DOMAINS = {
    "uniform": uniform(-2, 3),
    "quniform": quniform(0, 1, 0.1),
    "loguniform": loguniform(1e-5, 1e-1),
    "qloguniform": qloguniform(1e-3, 1, 1e-3),
    "randn": randn(3, 2),
    "qrandn": qrandn(0, 5, 0.5),
    "randint": randint(0, 10),
    "qrandint": qrandint(2, 20, 3),
    "lograndint": lograndint(1, 1000),
    "qlograndint": qlograndint(1, 100, 7),
    "choice": choice(["a", 1, None, (2, 3)]),
}


def draw(domain, n=2000, seed=0):
    rng = np.random.default_rng(seed)
    return [domain.sample(random_state=rng) for _ in range(n)]


# The first values that Ray Tune 2.60 draws with numpy.random.default_rng(7).
RAY = {
    "uniform": [1.1254773330233347, 2.4860690048478773, 1.8784284512259677],
    "loguniform": [0.0031650594102156215, 0.038802097613681065, 0.012669012393094385],
    "qloguniform": [0.075, 0.492, 0.212],
    "randn": [3.002460306714965, 3.59749107501694, 2.451724289275565],
    "qrandn": [0.0, 1.5, -1.5],
    "randint": [9, 6, 6, 8, 5],
    "qrandint": [18, 12, 15, 18, 12],
    "lograndint": [75, 491, 212, 4, 7],
    "qlograndint": [35, 77, 56, 7, 14],
    "choice": [(2, 3), None, None, (2, 3), None],
}


@pytest.mark.parametrize("name", RAY)
def test_a_seed_gives_the_values_that_ray_tune_draws(name):
    drawn = draw(DOMAINS[name], len(RAY[name]), seed=7)
    for value, expected in zip(drawn, RAY[name], strict=True):
        assert value == (pytest.approx(expected, rel=1e-12) if isinstance(expected, float) else expected)


def test_a_legacy_random_state_gives_the_values_that_ray_tune_draws():
    legacy = np.random.RandomState(7)
    assert [DOMAINS["choice"].sample(random_state=legacy) for _ in range(5)] == [(2, 3), "a", 1, None, (2, 3)]
    legacy = np.random.RandomState(7)
    drawn = [DOMAINS["quniform"].sample(random_state=legacy) for _ in range(5)]
    assert drawn == [0.1, 0.8, 0.4, 0.7000000000000001, 1.0]


@pytest.mark.parametrize("name", DOMAINS)
def test_the_same_seed_gives_the_same_values(name):
    domain = DOMAINS[name]
    assert draw(domain, 20) == draw(domain, 20)
    assert draw(domain, 20) != draw(domain, 20, seed=1)
    assert domain.sample(random_state=5) == domain.sample(random_state=5)


@pytest.mark.parametrize("name", DOMAINS)
def test_values_are_valid_plain_and_independent_of_the_global_generator(name):
    before = np.random.get_state()[1].tolist()
    kinds = {type(value) for value in draw(DOMAINS[name], 200)}
    assert kinds <= {int, float, str, tuple, type(None)}
    assert all(DOMAINS[name].is_valid(value) for value in draw(DOMAINS[name], 200))
    assert np.random.get_state()[1].tolist() == before


def test_without_a_random_state_numpys_global_generator_is_used():
    state = np.random.get_state()
    try:
        np.random.seed(3)
        first = uniform(0, 1).sample()
        np.random.seed(3)
        assert uniform(0, 1).sample() == first == np.random.RandomState(3).uniform(0, 1)
    finally:
        np.random.set_state(state)


def test_integers_exclude_the_upper_bound():
    assert set(draw(randint(1, 4))) == {1, 2, 3}
    assert set(draw(lograndint(1, 4))) == {1, 2, 3}
    assert set(draw(qrandint(1, 4))) == {1, 2, 3}  # q=1 is no quantisation


def test_quantised_integers_include_the_upper_bound():
    assert set(draw(qrandint(2, 8, 2))) == {2, 4, 6, 8}
    assert set(draw(qrandint(1, 10, 3))) == {3, 6, 9}  # rounded inwards
    assert set(draw(qlograndint(5, 20, 5))) == {5, 10, 15, 20}


def test_quantised_floats_include_both_bounds():
    assert {round(value, 10) for value in draw(quniform(0, 1, 0.25))} == {0, 0.25, 0.5, 0.75, 1}
    assert set(draw(quniform(-3, 9, 3))) == {-3, 0, 3, 6, 9}


def test_uniform_has_the_mean_and_spread_of_its_distribution():
    values = np.array(draw(uniform(-2, 4), 4000))
    assert values.mean() == pytest.approx(1, abs=0.1)
    assert values.std() == pytest.approx(6 / math.sqrt(12), abs=0.1)


def test_loguniform_is_uniform_in_the_logarithm():
    logs = np.log10(draw(loguniform(1e-4, 1), 4000))
    assert np.histogram(logs, bins=4, range=(-4, 0))[0] == pytest.approx([1000] * 4, abs=120)
    assert draw(loguniform(1e-4, 1, base=2), 5) == draw(loguniform(1e-4, 1), 5)


def test_normal_has_its_mean_and_standard_deviation():
    values = np.array(draw(randn(5, 3), 4000))
    assert values.mean() == pytest.approx(5, abs=0.2)
    assert values.std() == pytest.approx(3, abs=0.2)


def test_size_gives_several_values():
    assert len(uniform(0, 1).sample(size=7)) == 7
    assert len(choice(["a", "b"]).sample(size=3, random_state=0)) == 3
    assert len(quniform(0, 1, 0.5).sample(size=3)) == 3
    assert sample_from(lambda: 4).sample(size=2) == [4, 4]


def test_choice_keeps_its_values_as_they_are():
    marker = object()
    categories = [marker, 1, True, "1", None, [1]]
    assert choice(categories).categories == categories
    assert any(value is marker for value in draw(choice(categories), 50))
    assert choice(np.array([1, 2])).categories == [1, 2]
    assert type(choice(np.array([1.5])).categories[0]) is float
    assert choice({"b", "a", "c"}).categories == ["a", "b", "c"]
    assert choice(range(3)).categories == [0, 1, 2]


def test_what_other_searchers_read():
    lr = loguniform(1e-4, 1e-1)
    assert isinstance(lr, Float)
    assert isinstance(lr.get_sampler(), LogUniform)
    assert (lr.lower, lr.upper, lr.domain_str) == (1e-4, 1e-1, "(0.0001, 0.1)")
    steps = quniform(0, 10, 2)
    assert isinstance(steps.sampler, Quantized)
    assert (steps.sampler.q, type(steps.sampler.get_sampler())) == (2, Uniform)
    noise = randn(1, 2)
    assert isinstance(noise.sampler, Normal)
    assert (noise.sampler.mean, noise.sampler.sd) == (1, 2)
    assert isinstance(Integer(1, 5).get_sampler(), Uniform)
    assert Integer(1, 5).sampler is None
    options = choice(["a", "b"])
    assert (len(options), options[1], options.domain_str) == (2, "b", "['a', 'b']")
    assert isinstance(Categorical([1]).grid().sampler, Grid)
    assert Categorical([1]).grid().is_grid()
    assert not options.is_grid()
    assert sample_from(len).is_function()
    assert Float(0, 1).uniform().quantized(0.5).sample(random_state=0) == 0.5


def test_valid_values():
    assert uniform(0, 1).is_valid(1)
    assert not uniform(0, 1).is_valid(1.1)
    assert not uniform(0, 1).is_valid("a")
    assert choice([1, "a"]).is_valid("a")
    assert not choice([1, "a"]).is_valid(2)
    assert choice([np.zeros(2)]).is_valid("x") is False
    assert sample_from(lambda: 1).is_valid("anything")


def test_a_domain_takes_one_sampler():
    with pytest.raises(ValueError, match="has a sampler already"):
        uniform(1, 2).loguniform()


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda: uniform(1, 0), "must not be greater"),
        (lambda: uniform(float("nan"), 1), "NaN"),
        (lambda: Float(None, 1).uniform(), "lower and an upper bound"),
        (lambda: loguniform(0, 1), "greater than 0"),
        (lambda: loguniform(-4, -1), "not their logarithms"),
        (lambda: loguniform(1, 2, base=1), "base"),
        (lambda: quniform(0, 1, 0.3), "upper bound 1 is no multiple.*0.9 or 1.2"),
        (lambda: quniform(0, 1, 0), "greater than 0"),
        (lambda: randint(5, 5), "must be less than the upper one"),
        (lambda: randint(0, 2.5), "must be an integer"),
        (lambda: qrandint(11, 12, 5), "no multiple of q=5"),
        (lambda: lograndint(0, 5), "greater than 0"),
        (lambda: randn(0, 0), "greater than 0"),
        (lambda: Float(0, 1).normal(), "no bounds"),
        (lambda: choice([]), "at least one"),
        (lambda: sample_from(lambda a, b: 1), "one argument"),
    ],
)
def test_invalid_spaces_are_refused_where_they_are_declared(declare, message):
    with pytest.raises(ValueError, match=message):
        declare()


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda: uniform("1e-4", 1), "`lower` must be a number, got '1e-4'"),
        (lambda: randint(0, None), "`upper` must be a number"),
        (lambda: choice("abc"), "list of values"),
        (lambda: choice(5), r"\[5\]"),
        (lambda: sample_from(3), "needs a function"),
        (lambda: Quantized("uniform", 1), "needs a sampler"),
        (lambda: uniform(0, 1).sample(random_state="seed"), "random_state"),
    ],
)
def test_wrong_types_are_refused(declare, message):
    with pytest.raises(TypeError, match=message):
        declare()


def test_integral_floats_are_integers():
    domain = randint(1, 1e3)
    assert (domain.lower, domain.upper) == (1, 1000)
    assert type(domain.upper) is int


def test_a_grid_is_not_drawn_from():
    with pytest.raises(RuntimeError, match="not drawn from"):
        Categorical([1, 2]).grid().sample()


def test_functions_take_the_configuration_or_nothing():
    assert sample_from(lambda config: config["a"] + 1).sample({"a": 1}) == 2
    assert sample_from(lambda config: config["a"] + 1).sample(spec={"a": 2}) == 3
    assert sample_from(lambda: 5).sample({"a": 1}) == 5
    assert isinstance(Function(np.random.rand).sample(), float)


def test_domains_can_be_pickled_and_shown():
    for domain in DOMAINS.values():
        copied = pickle.loads(pickle.dumps(domain))
        assert draw(copied, 5) == draw(domain, 5)
    assert repr(uniform(0, 1)) == "Float(0, 1).Uniform"
    assert repr(qrandint(2, 8, 2)) == "Integer(2, 8).Quantized(Uniform, q=2)"
    with pytest.raises(NotImplementedError):
        Domain().is_valid(1)
