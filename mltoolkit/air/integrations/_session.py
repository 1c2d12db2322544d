"""Who runs in this process, for trackers that name their runs after it."""

from __future__ import annotations

from dataclasses import dataclass

from mltoolkit.train import get_context

__all__ = ["NoopModule", "Running", "running"]


@dataclass(frozen=True)
class Running:
    """Names of the trial and its rank; None outside of a trial."""

    trial_id: str | None = None
    trial_name: str | None = None
    experiment_name: str | None = None
    rank: int = 0


def running() -> Running:
    """The trial or the training worker that runs in this process."""
    try:
        context = get_context()
    except RuntimeError:
        return Running()
    return Running(
        context.get_trial_id(), context.get_trial_name(), context.get_experiment_name(), context.get_world_rank() or 0
    )


class NoopModule:
    """Stands for a tracker in workers that do not log: every attribute is callable and does nothing."""

    def __getattr__(self, name: str) -> NoopModule:
        if name.startswith("__"):
            raise AttributeError(name)
        return NoopModule()

    def __call__(self, *args: object, **kwargs: object) -> NoopModule:
        return NoopModule()

    def __enter__(self) -> NoopModule:
        return self

    def __exit__(self, *exc_info: object) -> None:
        return None
