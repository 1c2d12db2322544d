"""Buffers of the latest observations and rewards, checked many steps at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

from mltoolkit.rllib.env.errors import InvalidRewardError
from mltoolkit.rllib.env.spaces import check_observations, is_array_space

__all__ = ["PendingChecks"]

_MAX_ROWS = 64
_MAX_BYTES = 4 << 20


class PendingChecks:
    """Rows for the observations and rewards of successive steps, used in turn.

    A check of one step of few environments would cost as much as the step; one of 64 steps costs hardly more.

    Parameters
    ----------
    space : gymnasium.Space
        Of the observations.
    num_envs : int
    name : str
        The environment's name, for errors.
    enabled : bool, default=True
        Whether to check at all.
    """

    def __init__(self, space: Any, num_envs: int, name: str, *, enabled: bool = True) -> None:
        self._space = space
        self._name = name
        self._enabled = enabled
        self._is_array = is_array_space(space)
        num_rows = _MAX_ROWS
        self.observations: Any
        if self._is_array:
            row_bytes = max(1, int(np.prod(space.shape)) * np.dtype(space.dtype).itemsize * num_envs)
            num_rows = int(np.clip(_MAX_BYTES // row_bytes, 2, _MAX_ROWS))
            self.observations = np.zeros((num_rows, num_envs, *space.shape), dtype=space.dtype)
        else:
            self.observations = [[None] * num_envs for _ in range(2)]
        self._rewards = np.zeros((num_rows, num_envs))
        # Indexing rows once saves making a view at each step.
        self._observation_rows = list(self.observations) * (1 if self._is_array else num_rows // 2)
        self._reward_rows = list(self._rewards)
        self._num_rows = num_rows
        self._row = -1
        self._first_pending = 0

    def next_row(self) -> tuple[Any, Any]:
        """Where the next step's observations and rewards go.

        Returns
        -------
        observations : ndarray of shape (num_envs, *space.shape), or list of num_envs
        rewards : ndarray of shape (num_envs,), dtype=float64
        """
        row = self._row + 1
        if row == self._num_rows:
            self.check()
            row = self._first_pending = 0
        self._row = row
        return self._observation_rows[row], self._reward_rows[row]

    def check(self) -> None:
        """Check the rows that were filled since the last check."""
        pending = slice(self._first_pending, self._row + 1)
        self._first_pending = self._row + 1
        if not self._enabled or pending.start >= pending.stop:
            return
        rewards = self._rewards[pending]
        if not np.isfinite(rewards).all():
            row, env_index = (int(i) for i in np.argwhere(~np.isfinite(rewards))[0])
            raise InvalidRewardError(
                f"Environment {env_index} ({self._name}) gave the reward {rewards[row, env_index]} "
                f"{self._steps_ago(row, len(rewards))}. Rewards must be finite numbers.",
                env_index=env_index,
            )
        if self._is_array:
            check_observations(
                self.observations[pending],
                self._space,
                name=self._name,
                when=lambda row: self._steps_ago(row, len(rewards)),
            )

    @staticmethod
    def _steps_ago(row: int, num_rows: int) -> str:
        ago = num_rows - 1 - row
        return "at its last step" if ago == 0 else f"{ago} step{'s' if ago > 1 else ''} before its last"
