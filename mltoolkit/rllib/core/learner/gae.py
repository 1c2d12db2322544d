"""Advantages of sampled fragments."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["compute_gae"]


def compute_gae(
    rewards: ArrayLike,
    values: ArrayLike,
    terminateds: ArrayLike,
    truncateds: ArrayLike,
    loss_mask: ArrayLike | None = None,
    *,
    gamma: float,
    lambda_: float,
) -> NDArray[np.float32]:
    """Estimate the advantage of each step of a fragment.

    The recursion of the paper's equation 16, A[t] = delta[t] + gamma * lambda * A[t + 1] with
    delta[t] = r[t] + gamma * V(s[t + 1]) - V(s[t]), over all environments at once. It ends where an episode ends: a
    terminated one is worth nothing afterwards, a truncated one is worth V of its last observation, which is
    ``values[t + 1]`` because environments are reset one step after the end.

    Parameters
    ----------
    rewards : array of shape (n_steps, n_envs)
        Reward after each action.
    values : array of shape (n_steps + 1, n_envs)
        V of each observation, the one after the last step included.
    terminateds, truncateds : bool array of shape (n_steps, n_envs)
        Whether the step ended the episode.
    loss_mask : bool array of shape (n_steps, n_envs), optional
        False where no step was made: resets and padding. Their advantage is 0 and nothing passes through them.
    gamma : float in [0, 1]
        Discount per environment step.
    lambda_ : float in [0, 1]
        0 gives the one-step error, 1 the discounted return minus V.

    Returns
    -------
    ndarray of shape (n_steps, n_envs), dtype=float32

    Raises
    ------
    ValueError
        If the shapes do not agree.

    References
    ----------
    Schulman et al., High-Dimensional Continuous Control Using Generalized Advantage Estimation, arXiv:1506.02438,
    section 3.

    Examples
    --------
    >>> compute_gae([[1.0], [1.0]], [[0.5], [0.5], [2.0]], [[0], [0]], [[0], [0]], gamma=0.5, lambda_=1.0).tolist()
    [[1.5], [1.5]]
    """
    rewards, values = np.asarray(rewards), np.asarray(values, dtype=np.float64)
    terminated, truncated = np.asarray(terminateds, dtype=bool), np.asarray(truncateds, dtype=bool)
    shape = rewards.shape
    if (
        rewards.ndim != 2
        or values.shape != (shape[0] + 1, shape[1])
        or terminated.shape != shape
        or truncated.shape != shape
        or (loss_mask is not None and np.shape(loss_mask) != shape)
    ):
        raise ValueError(
            "`rewards`, `terminateds`, `truncateds` and `loss_mask` must have the shape (n_steps, n_envs) and `values` "
            f"(n_steps + 1, n_envs), got {shape}, {terminated.shape}, {truncated.shape}, {np.shape(loss_mask)} and "
            f"{values.shape}."
        )
    advantages = rewards + gamma * np.where(terminated, 0.0, values[1:]) - values[:-1]
    carry = np.where(terminated | truncated, 0.0, gamma * lambda_)
    if loss_mask is not None:
        unused = ~np.asarray(loss_mask, dtype=bool)
        advantages[unused] = 0.0
        carry[unused] = 0.0
    passed = np.empty(shape[1])
    for t in range(shape[0] - 2, -1, -1):
        np.multiply(carry[t], advantages[t + 1], out=passed)
        advantages[t] += passed
    return advantages.astype(np.float32)
