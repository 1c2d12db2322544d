from __future__ import annotations

import numpy as np
import pytest

from mltoolkit.rllib.core.learner.gae import compute_gae


def by_episode(rewards, values, terminateds, truncateds, mask, gamma, lambda_):
    """Equation 16 of the paper, term by term: the sum of discounted errors until the episode or the fragment ends."""
    n_steps, n_envs = rewards.shape
    advantages = np.zeros((n_steps, n_envs))
    for env in range(n_envs):
        for start in range(n_steps):
            if not mask[start, env]:
                continue
            weight = 1.0
            for t in range(start, n_steps):
                following = 0.0 if terminateds[t, env] else values[t + 1, env]
                advantages[start, env] += weight * (rewards[t, env] + gamma * following - values[t, env])
                weight *= gamma * lambda_
                if terminateds[t, env] or truncateds[t, env] or (t + 1 < n_steps and not mask[t + 1, env]):
                    break
    return advantages


@pytest.mark.parametrize(("gamma", "lambda_"), [(0.99, 0.95), (1.0, 1.0), (0.9, 0.0)])
def test_equals_the_sum_of_the_paper_per_episode(gamma, lambda_):
    rng = np.random.default_rng(0)
    rewards, values = rng.normal(size=(30, 7)), rng.normal(size=(31, 7))
    terminateds = rng.random((30, 7)) < 0.1
    truncateds = (rng.random((30, 7)) < 0.1) & ~terminateds
    mask = np.ones((30, 7), bool)
    mask[1:] = ~(terminateds | truncateds)[:-1]
    mask[25:, 3] = False  # padding
    rewards[~mask], terminateds[~mask], truncateds[~mask] = 0.0, False, False
    expected = by_episode(rewards, values, terminateds, truncateds, mask, gamma, lambda_)
    result = compute_gae(rewards, values, terminateds, truncateds, mask, gamma=gamma, lambda_=lambda_)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, rtol=1e-6, atol=1e-6)
    assert (result[~mask] == 0).all()


def test_a_truncated_episode_is_worth_the_value_of_its_last_observation():
    values = [[0.0], [10.0], [100.0]]
    ends = [[True], [False]]
    no = [[False], [False]]
    mask = [[True], [False]]
    truncated = compute_gae([[1.0], [0.0]], values, no, ends, mask, gamma=0.5, lambda_=1.0)
    terminated = compute_gae([[1.0], [0.0]], values, ends, no, mask, gamma=0.5, lambda_=1.0)
    assert truncated[0, 0] == 6.0
    assert terminated[0, 0] == 1.0


def test_what_padding_holds_does_not_matter():
    mask = np.array([[True], [False]])
    flags = np.zeros((2, 1), bool)
    result = compute_gae([[1.0], [np.nan]], [[0.0], [2.0], [np.nan]], flags, flags, mask, gamma=1.0, lambda_=1.0)
    assert result.tolist() == [[3.0], [0.0]]


def test_shapes_that_do_not_agree_are_named():
    with pytest.raises(ValueError, match=r"\(3, 2\).*\(3, 2\)\.$"):
        compute_gae(np.zeros((3, 2)), np.zeros((3, 2)), np.zeros((3, 2)), np.zeros((3, 2)), gamma=1.0, lambda_=1.0)
