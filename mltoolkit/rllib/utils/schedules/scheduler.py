"""A setting that is either a number or a schedule over environment steps."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from numbers import Real
from typing import Any, cast

from mltoolkit.rllib.utils.schedules.piecewise_schedule import PiecewiseSchedule

__all__ = ["Scheduler"]

FloatOrSchedule = float | Sequence[Sequence[float]]


class Scheduler:
    """The current value of a setting such as ``lr`` or ``entropy_coeff``.

    Parameters
    ----------
    fixed_value_or_schedule : float or list of [t, value]
        A constant, or points between which the value runs linearly with the environment steps sampled so far. The
        first point is at 0; after the last the value stays.
    setting_name : str, default="value"
        What errors call it.

    Examples
    --------
    >>> lr = Scheduler([[0, 1e-3], [1000, 0.0]], setting_name="lr")
    >>> lr.get_current_value()
    0.001
    >>> lr.update(500)
    0.0005
    """

    def __init__(self, fixed_value_or_schedule: FloatOrSchedule, *, setting_name: str = "value") -> None:
        self.validate(
            fixed_value_or_schedule=fixed_value_or_schedule, setting_name=setting_name, description=setting_name
        )
        if fixed_value_or_schedule is None:
            raise ValueError(f"`{setting_name}` must be a number or a schedule, got None.")
        if isinstance(fixed_value_or_schedule, (list, tuple)):
            self._schedule = PiecewiseSchedule(fixed_value_or_schedule)
        else:
            self._schedule = PiecewiseSchedule([(0, float(cast("float", fixed_value_or_schedule)))])
        self._timestep = 0
        self._value = self._schedule.endpoints[0][1]

    @staticmethod
    def validate(*, fixed_value_or_schedule: Any, setting_name: str, description: str) -> None:
        """Check a setting.

        Raises
        ------
        ValueError
            If it is neither None, nor a number, nor points of rising time of which the first is at 0.
        """
        given = fixed_value_or_schedule
        if given is None or (isinstance(given, Real) and not isinstance(given, bool)):
            return
        form = f"`[[0, 0.001], [1000000, 0.0001]]`, where each entry is [environment steps, {description}]"
        if (
            not isinstance(given, (list, tuple))
            or len(given) < 1
            or not all(
                isinstance(point, (list, tuple))
                and len(point) == 2
                and all(isinstance(number, Real) and not isinstance(number, bool) for number in point)
                for point in given
            )
        ):
            raise ValueError(f"`{setting_name}` must be a number or a schedule such as {form}, got {given!r}.")
        if given[0][0] != 0:
            raise ValueError(
                f"The first point of the schedule `{setting_name}` must be at step 0 and gives the initial "
                f"{description}, got {given!r}."
            )
        if any(later[0] <= earlier[0] for earlier, later in pairwise(given)):
            raise ValueError(f"The points of the schedule `{setting_name}` must have rising steps, got {given!r}.")

    def get_current_value(self) -> float:
        """The value at the last :meth:`update`, or the initial one."""
        return self._value

    def update(self, timestep: int) -> float:
        """Move to `timestep`, in environment steps, and return the value there."""
        self._timestep = timestep
        self._value = self._schedule.value(timestep)
        return self._value

    def get_state(self) -> dict[str, int]:
        """The timestep of the last :meth:`update`. The value there is the setting's, which may be another by then."""
        return {"timestep": self._timestep}

    def set_state(self, state: dict[str, int]) -> None:
        """Move to where :meth:`get_state` was called."""
        self.update(int(state["timestep"]))
