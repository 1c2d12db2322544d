"""Values that change with the number of environment steps."""

from __future__ import annotations

from mltoolkit.rllib.utils.schedules.piecewise_schedule import PiecewiseSchedule
from mltoolkit.rllib.utils.schedules.scheduler import Scheduler

__all__ = ["PiecewiseSchedule", "Scheduler"]
