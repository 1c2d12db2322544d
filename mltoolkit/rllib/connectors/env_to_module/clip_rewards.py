"""Rewards of bounded size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mltoolkit.rllib.connectors.connector_v2 import ConnectorV2, Step

__all__ = ["ClipRewards"]


class ClipRewards(ConnectorV2):
    """Clip the rewards that the learner sees.

    Parameters
    ----------
    clip_rewards : True, float or pair of float, default=True
        True keeps the sign only, as for Atari (Mnih et al. 2015, Methods); a number clips to plus and minus that number, a
        pair to its lower and upper bound.

    Raises
    ------
    ValueError
        If the number is not positive, or the pair not in order.

    Examples
    --------
    >>> ClipRewards(2.5).rewards(np.array([-7.0, 0.5, 3.0]), Step(3))
    array([-2.5,  0.5,  2.5])
    """

    uses_previous = False

    def __init__(self, clip_rewards: bool | float | Sequence[float] = True, **kwargs: Any) -> None:
        self.clip_rewards = clip_rewards
        if clip_rewards is not True:
            low, high = clip_rewards if isinstance(clip_rewards, Sequence) else (-clip_rewards, clip_rewards)
            if not low < high:
                raise ValueError(
                    f"`clip_rewards` must be True, a positive number or a pair (low, high), got {clip_rewards!r}."
                )
            self._low, self._high = low, high
        super().__init__(**kwargs)

    def rewards(self, rewards: np.ndarray, step: Step) -> np.ndarray:
        """Clipped rewards."""
        if self.clip_rewards is True:
            return np.sign(rewards)
        return np.clip(rewards, self._low, self._high)
