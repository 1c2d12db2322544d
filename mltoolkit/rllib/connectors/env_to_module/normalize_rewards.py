"""Rewards in units of the returns' deviation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mltoolkit.rllib.connectors.connector_v2 import ConnectorV2, Step
from mltoolkit.rllib.utils.filter import SharedStat

__all__ = ["NormalizeRewards"]


class NormalizeRewards(ConnectorV2):
    """Divide the rewards that the learner sees by the running standard deviation of the discounted return.

    The mean is not subtracted, so the sign of a reward stays. The return of each environment is the discounted sum of the
    rewards of its episode so far; the deviation is that over all steps of all runners (population variance).

    Parameters
    ----------
    gamma : float in [0, 1], default=0.99
        Discount per step.
    clip_by_value : float or None, default=10.0
        Normalised rewards are clipped to plus and minus this.
    epsilon : float, default=1e-8
        Added to the variance.

    Raises
    ------
    ValueError
        If a parameter is out of range, or a reward is NaN or infinite.

    References
    ----------
    Engstrom et al., Implementation Matters in Deep Policy Gradients, arXiv:2005.12729, Appendix A.2.
    """

    uses_previous = False

    def __init__(
        self,
        *,
        gamma: float = 0.99,
        clip_by_value: float | None = 10.0,
        epsilon: float = 1e-8,
        **kwargs: Any,
    ) -> None:
        if not 0 <= gamma <= 1:
            raise ValueError(f"`gamma` must be between 0 and 1, got {gamma!r}.")
        if clip_by_value is not None and not clip_by_value > 0:
            raise ValueError(f"`clip_by_value` must be positive, or None for no clipping, got {clip_by_value!r}.")
        if not epsilon > 0:
            raise ValueError(f"`epsilon` must be positive, got {epsilon!r}.")
        self.gamma = gamma
        self.clip_by_value = clip_by_value
        self.epsilon = epsilon
        self._stat = SharedStat()
        self._factor = 1.0
        super().__init__(**kwargs)

    def rewards(self, rewards: np.ndarray, step: Step) -> np.ndarray:
        """Normalised rewards, after the returns went into the statistics if they are to."""
        if step.update:
            self._update(rewards, step)
        normalised = rewards * self._factor
        if self.clip_by_value is not None:
            np.minimum(normalised, self.clip_by_value, out=normalised)
            np.maximum(normalised, -self.clip_by_value, out=normalised)
        return normalised

    def _update(self, rewards: np.ndarray, step: Step) -> None:
        returns = step.memory.get("returns")
        if returns is None:
            returns = np.zeros(step.num_envs)
        returns = returns * self.gamma + rewards
        if not math.isfinite(np.add.reduce(returns)):
            index = int(np.flatnonzero(~np.isfinite(returns))[0])
            raise ValueError(
                f"NormalizeRewards got the reward {rewards[index]} from environment {index}: it would spoil the statistics "
                "for good. Mend the environment."
            )
        # A step that only resets has no reward, hence no return.
        self._stat.push_batch(returns[~step.autoreset] if step.autoreset.any() else returns)
        returns[step.ended] = 0.0
        step.memory["returns"] = returns
        self._refresh()

    def _refresh(self) -> None:
        total = self._stat.total()
        self._factor = 1.0 / np.sqrt(total.m2 / total.n + self.epsilon) if total.n else 1.0

    def get_state(self) -> dict[str, Any]:
        """Statistics of the return."""
        return self._stat.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what `get_state` gave."""
        self._stat.set_state(state)
        self._refresh()

    def pop_delta(self) -> dict[str, Any]:
        """Take out the statistics of what was seen here since the last call."""
        return self._stat.pop_delta()

    def merge_deltas(self, deltas: Sequence[dict[str, Any]]) -> None:
        """Add the statistics of several runners, in their order."""
        self._stat.merge_deltas(deltas)
        self._refresh()
