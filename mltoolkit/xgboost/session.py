"""For code inside actors, under the names of ``xgboost_ray.session``."""

from __future__ import annotations

from mltoolkit._boosting.session import (
    BoostingSession as RayXGBoostSession,
)
from mltoolkit._boosting.session import (
    get_actor_rank,
    get_session,
    put_queue,
)

__all__ = ["RayXGBoostSession", "get_actor_rank", "get_rabit_rank", "get_session", "put_queue"]


def get_rabit_rank() -> int:
    """Return the place of this actor among those that train now; it may differ from its rank after a failure.

    Returns
    -------
    int
        0 outside of distributed training.
    """
    from xgboost import collective

    return int(collective.get_rank())
