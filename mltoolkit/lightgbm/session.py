"""For code inside actors."""

from __future__ import annotations

from mltoolkit._boosting.session import BoostingSession as RayLightGBMSession
from mltoolkit._boosting.session import get_actor_rank, get_session, put_queue

__all__ = ["RayLightGBMSession", "get_actor_rank", "get_session", "put_queue"]
