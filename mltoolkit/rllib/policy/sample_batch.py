"""Names of a batch's columns, and a dict of arrays, as older programs import them."""

from __future__ import annotations

from typing import Any

from mltoolkit.rllib.core.columns import Columns

__all__ = ["DEFAULT_POLICY_ID", "SampleBatch"]

DEFAULT_POLICY_ID = "default_policy"


class SampleBatch(dict[str, Any]):
    """A dict of arrays with as many rows each.

    Examples
    --------
    >>> import numpy as np
    >>> batch = SampleBatch({SampleBatch.OBS: np.zeros((3, 4)), SampleBatch.REWARDS: np.ones(3)})
    >>> batch.count
    3
    """

    OBS = CUR_OBS = Columns.OBS
    NEXT_OBS = Columns.NEXT_OBS
    ACTIONS = Columns.ACTIONS
    REWARDS = Columns.REWARDS
    PREV_ACTIONS = "prev_actions"
    PREV_REWARDS = "prev_rewards"
    TERMINATEDS = Columns.TERMINATEDS
    TRUNCATEDS = Columns.TRUNCATEDS
    DONES = "dones"
    INFOS = Columns.INFOS
    ACTION_DIST_INPUTS = Columns.ACTION_DIST_INPUTS
    ACTION_LOGP = Columns.ACTION_LOGP
    ACTION_PROB = Columns.ACTION_PROB
    VF_PREDS = Columns.VF_PREDS
    SEQ_LENS = Columns.SEQ_LENS
    T = Columns.T
    EPS_ID = Columns.EPS_ID

    @property
    def count(self) -> int:
        """Rows."""
        return len(next(iter(self.values()))) if self else 0

    def rows(self) -> Any:
        """Each row as a dict."""
        for i in range(self.count):
            yield {name: column[i] for name, column in self.items()}
