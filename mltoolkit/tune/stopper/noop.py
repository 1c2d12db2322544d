"""A stopper that never stops."""

from __future__ import annotations

from typing import Any

from mltoolkit.tune.stopper.stopper import Stopper

__all__ = ["NoopStopper"]


class NoopStopper(Stopper):
    """Never stops anything."""

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """False."""
        return False

    def stop_all(self) -> bool:
        """False."""
        return False
