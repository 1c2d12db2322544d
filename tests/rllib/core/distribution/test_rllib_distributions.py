"""Distributions: numpy and torch agree, and both with torch.distributions and the closed forms."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest

from mltoolkit.rllib.core.distribution._layout import action_layout
from mltoolkit.rllib.core.distribution.numpy_distribution import make_numpy_distribution


def spaces():
    from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete

    return {
        "two": (Discrete(2), False),
        "five": (Discrete(5, start=-2), False),
        "multi": (MultiDiscrete([3, 3]), False),
        "ragged": (MultiDiscrete([2, 4, 3], start=[0, 10, -1]), False),
        "table": (MultiDiscrete([[2, 3], [4, 2]]), False),
        "binary": (MultiBinary((2, 2)), False),
        "integers": (Box(-1, 2, (2,), np.int64), False),
        "gaussian": (Box(-2, 2, (3,)), False),
        "matrix": (Box(-2, 2, (2, 2)), False),
        "scalar": (Box(-2, 2, ()), False),
        "squashed": (Box(-2, 2, (3,)), True),
    }


NAMES = list(spaces())


def pair(name):
    from mltoolkit.rllib.core.distribution.torch_distribution import make_torch_distribution_cls

    space, squash = spaces()[name]
    return space, make_numpy_distribution(space, squash=squash), make_torch_distribution_cls(space, squash=squash)


def inputs_of(distribution, n=64, seed=0, scale=1.5):
    return (scale * np.random.default_rng(seed).standard_normal((n, distribution.num_inputs))).astype(np.float32)


@pytest.mark.parametrize("name", NAMES)
def test_numpy_and_torch_compute_the_same(name):
    import torch

    _, ours, cls = pair(name)
    inputs, other = inputs_of(ours), inputs_of(ours, seed=1)
    actions, logp = ours.sample(inputs, np.random.default_rng(2))
    theirs = cls.from_logits(torch.from_numpy(inputs))
    close = {"rtol": 2e-6, "atol": 1e-6}
    np.testing.assert_allclose(logp, ours.logp(inputs, actions), **close)
    np.testing.assert_allclose(theirs.logp(torch.from_numpy(actions)).numpy(), logp, **close)
    np.testing.assert_allclose(theirs.entropy().numpy(), ours.entropy(inputs), rtol=2e-6, atol=4e-6)
    divergence = theirs.kl(cls.from_logits(torch.from_numpy(other))).numpy()
    np.testing.assert_allclose(divergence, ours.kl(inputs, other), rtol=4e-6, atol=1e-6)
    np.testing.assert_allclose(theirs.mode().numpy(), ours.mode(inputs), **close)
    np.testing.assert_array_equal(theirs.to_deterministic().sample().numpy(), theirs.mode().numpy())
    assert cls.required_input_dim(spaces()[name][0]) == ours.num_inputs


@pytest.mark.parametrize("name", NAMES)
def test_shapes_with_a_time_axis(name):
    import torch

    space, ours, cls = pair(name)
    inputs = inputs_of(ours, 12)
    actions, logp = ours.sample(inputs, np.random.default_rng(0))
    assert actions.shape == (12, *space.shape) and logp.shape == (12,)
    nested, taken = inputs.reshape(3, 4, -1), actions.reshape(3, 4, *space.shape)
    np.testing.assert_array_equal(ours.logp(nested, taken), ours.logp(inputs, actions).reshape(3, 4))
    assert ours.entropy(nested).shape == ours.kl(nested, nested).shape == (3, 4)
    assert ours.mode(nested).shape == (3, 4, *space.shape)
    theirs = cls.from_logits(torch.from_numpy(nested))
    assert theirs.logp(torch.from_numpy(taken)).shape == theirs.entropy().shape == (3, 4)
    drawn = theirs.sample(sample_shape=(5,), generator=torch.Generator().manual_seed(0))
    assert drawn.shape == (5, 3, 4, *space.shape)
    assert theirs.logp(drawn).shape == (5, 3, 4)
    np.testing.assert_allclose(theirs.logp(drawn)[1].numpy(), theirs.logp(drawn[1]).numpy(), rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_samples_lie_in_the_space_and_are_repeatable(name):
    space, ours, _ = pair(name)
    inputs = inputs_of(ours)
    actions, _ = ours.sample(inputs, np.random.default_rng(5))
    again, _ = ours.sample(inputs, np.random.default_rng(5))
    np.testing.assert_array_equal(actions, again)
    if np.issubdtype(space.dtype, np.integer):
        assert all(space.contains(action.astype(space.dtype)) for action in actions)


@pytest.mark.parametrize("name", ["two", "five", "ragged"])
@pytest.mark.parametrize("twin", ["numpy", "torch"])
def test_categorical_samples_have_the_probabilities(name, twin):
    import torch

    _, ours, cls = pair(name)
    row = inputs_of(ours, 1, scale=1.0)
    if twin == "numpy":
        actions, _ = ours.sample(np.repeat(row, 40_000, 0), np.random.default_rng(1))
    else:
        generator = torch.Generator().manual_seed(1)
        actions = cls.from_logits(torch.from_numpy(row)).sample(sample_shape=(40_000,), generator=generator)
        actions = actions[:, 0].numpy()
    values, counts = np.unique(actions.reshape(40_000, -1), axis=0, return_counts=True)
    p = np.exp(ours.logp(np.repeat(row, len(values), 0), values.reshape(-1, *actions.shape[1:])))
    assert abs(p.sum() - 1) < 1e-5
    np.testing.assert_allclose(counts / 40_000, p, atol=5 * math.sqrt(0.25 / 40_000))


def test_categorical_against_torch_distributions():
    import torch
    from torch.distributions import Categorical, kl_divergence

    _, ours, _ = pair("five")
    p, q = (Categorical(logits=torch.from_numpy(inputs_of(ours, seed=seed))) for seed in (0, 1))
    inputs, other = inputs_of(ours), inputs_of(ours, seed=1)
    np.testing.assert_allclose(ours.entropy(inputs), p.entropy().numpy(), rtol=1e-5)
    np.testing.assert_allclose(ours.kl(inputs, other), kl_divergence(p, q).numpy(), rtol=1e-5, atol=1e-6)


def test_gaussian_against_torch_distributions():
    import torch
    from torch.distributions import Independent, Normal, kl_divergence

    _, ours, _ = pair("gaussian")
    inputs, other = inputs_of(ours, scale=0.7), inputs_of(ours, seed=1, scale=0.7)
    p, q = (
        Independent(Normal(torch.from_numpy(x[:, :3]), torch.from_numpy(x[:, 3:]).exp()), 1) for x in (inputs, other)
    )
    actions, logp = ours.sample(inputs, np.random.default_rng(0))
    np.testing.assert_allclose(logp, p.log_prob(torch.from_numpy(actions)).numpy(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(ours.entropy(inputs), p.entropy().numpy(), rtol=1e-5)
    np.testing.assert_allclose(ours.kl(inputs, other), kl_divergence(p, q).numpy(), rtol=1e-5, atol=1e-5)


def test_squashed_gaussian_is_a_density_whose_entropy_is_the_integral():
    from gymnasium.spaces import Box

    ours = make_numpy_distribution(Box(-1, 1, (1,)), squash=True)
    grid = np.tanh(np.linspace(-7, 7, 40_001))
    for mean, log_std in [(0.0, 0.0), (1.0, -1.0), (-0.5, -2.0)]:
        inputs = np.array([[mean, log_std]])
        logp = ours.logp(np.repeat(inputs, len(grid), 0), grid[:, None])
        density = np.exp(logp)
        assert abs(np.trapezoid(density, grid) - 1) < 1e-4
        entropy = -np.trapezoid(density * logp, grid)
        assert abs(ours.entropy(inputs.astype(np.float32))[0] - entropy) < 2e-3


def test_squashed_gaussian_far_out_stays_finite_with_matching_logp():
    from gymnasium.spaces import Box

    ours = make_numpy_distribution(Box(-1, 1, (2,)), squash=True)
    inputs = np.array([[50.0, -50.0, 0.0, -3.0]], np.float32)
    actions, logp = ours.sample(inputs, np.random.default_rng(0))
    assert np.all(np.abs(actions) < 1) and np.isfinite(logp).all()
    np.testing.assert_array_equal(logp, ours.logp(inputs, actions))
    assert np.isfinite(ours.entropy(inputs)).all()


@pytest.mark.parametrize("forbidden", [-np.inf, np.finfo(np.float32).min])
@pytest.mark.parametrize("choices", [2, 3])
def test_forbidden_choices_are_never_drawn_and_leave_finite_numbers_and_gradients(forbidden, choices):
    import torch
    from gymnasium.spaces import Discrete

    from mltoolkit.rllib.core.distribution.torch_distribution import TorchCategorical

    ours = make_numpy_distribution(Discrete(choices))
    inputs = np.zeros((20_000, choices), np.float32)
    inputs[:, 0] = forbidden
    other = np.ones((20_000, choices), np.float32)
    actions, logp = ours.sample(inputs, np.random.default_rng(0))
    assert actions.min() == 1
    np.testing.assert_allclose(logp, -math.log(choices - 1), atol=1e-6)
    np.testing.assert_allclose(ours.entropy(inputs), math.log(choices - 1), atol=1e-6)
    assert np.isfinite(ours.kl(inputs, other)).all()
    logits = torch.from_numpy(inputs[:4]).requires_grad_()
    theirs = TorchCategorical(logits)
    assert theirs.sample(sample_shape=(100,), generator=torch.Generator().manual_seed(0)).min() == 1
    loss = theirs.entropy() + theirs.kl(TorchCategorical(torch.from_numpy(other[:4]))) + theirs.logp(torch.ones(4))
    assert torch.isfinite(loss).all()
    loss.sum().backward()
    assert torch.isfinite(logits.grad).all()


def test_huge_logits_do_not_overflow():
    from gymnasium.spaces import Discrete

    inputs = np.array([[1e4, -1e4], [-1e4, 1e4]], np.float32)
    actions, logp = make_numpy_distribution(Discrete(2)).sample(inputs, np.random.default_rng(0))
    np.testing.assert_array_equal(actions, [0, 1])
    np.testing.assert_array_equal(logp, [0, 0])


@pytest.mark.parametrize("name", NAMES)
def test_gradients_match_those_of_finite_differences(name):
    import torch

    _, ours, cls = pair(name)
    inputs = torch.from_numpy(inputs_of(ours, 3, scale=0.7)).double().requires_grad_()
    other = cls.from_logits(torch.from_numpy(inputs_of(ours, 3, seed=1, scale=0.7)).double())
    actions = cls.from_logits(inputs).sample(generator=torch.Generator().manual_seed(0))

    def numbers(x):
        distribution = cls.from_logits(x)
        return distribution.logp(actions), distribution.entropy(), distribution.kl(other)

    assert torch.autograd.gradcheck(numbers, (inputs,))


def test_rsample_passes_the_gradient_on_and_a_categorical_refuses():
    import torch

    _, _, cls = pair("squashed")
    logits = torch.zeros(4, 6, requires_grad=True)
    actions, logp = cls.from_logits(logits).rsample_and_logp(generator=torch.Generator().manual_seed(0))
    (actions.sum() + logp.sum()).backward()
    assert logits.grad is not None and logits.grad.abs().min() > 0
    with pytest.raises(NotImplementedError, match="no reparameterised sample"):
        pair("five")[2].from_logits(torch.zeros(1, 5)).rsample()


@pytest.mark.parametrize("kind", ["tuple", "dict", "text", "integers without bounds"])
def test_other_spaces_are_refused_by_name(kind):
    from gymnasium.spaces import Box, Dict, Discrete, Text, Tuple

    space = {
        "tuple": Tuple([Discrete(2)]),
        "dict": Dict(a=Discrete(2)),
        "text": Text(4),
        "integers without bounds": Box(-(2**40), 2**40, (1,), np.int64),
    }[kind]
    with pytest.raises(ValueError, match="action space"):
        make_numpy_distribution(space)


def test_distributions_travel_between_processes():
    _, ours, _ = pair("ragged")
    again = pickle.loads(pickle.dumps(ours))
    inputs = inputs_of(ours)
    np.testing.assert_array_equal(again.entropy(inputs), ours.entropy(inputs))


def test_layout_of_a_space_with_offsets():
    layout = action_layout(spaces()["integers"][0])
    assert (layout.sizes, layout.starts, layout.num_inputs) == ((4, 4), (-1, -1), 8)


def test_wrong_number_of_logits_and_foreign_divergence_are_errors():
    import torch

    _, _, multi = pair("ragged")
    with pytest.raises(ValueError, match="sum to 9"):
        multi.from_logits(torch.zeros(2, 8))
    with pytest.raises(TypeError, match="not defined"):
        multi.from_logits(torch.zeros(2, 9)).kl(pair("five")[2].from_logits(torch.zeros(2, 5)))


@pytest.mark.parametrize(("std", "error"), [(0.1, 1e-6), (1.0, 1e-6), (2.0, 1e-3), (3.0, 1e-2)])
def test_quadrature_of_the_squashed_entropy_is_as_exact_as_documented(std, error):
    from numpy.polynomial.hermite_e import hermegauss

    from mltoolkit.rllib.core.distribution._layout import QUADRATURE_NODES

    def log_slope(u):
        size = np.abs(u)
        return 2 * (math.log(2) - size - np.log1p(np.exp(-2 * size)))

    nodes, weights = hermegauss(len(QUADRATURE_NODES))  # in float64: its own rounding is no part of the claim
    grid = np.linspace(-12, 12, 100_001)
    density = np.exp(-0.5 * grid**2)
    for mean in np.linspace(-4, 4, 17):
        exact = (log_slope(mean + std * grid) * density).sum() / density.sum()
        assert abs((log_slope(mean + std * nodes) * weights).sum() / weights.sum() - exact) < error
