"""Functions of the program's own that hear of a run's reports and failures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mltoolkit.train._checkpoint import Checkpoint
from mltoolkit.train._config import RunConfig
from mltoolkit.tune.callback import Callback

__all__ = ["TrainRunContext", "UserCallback"]


@dataclass(frozen=True)
class TrainRunContext:
    """What a run was configured with.

    Attributes
    ----------
    run_config : RunConfig
        Without what stays in the program: callbacks, progress reporter, stopping criteria.
    train_loop_config : dict
    scaling_config : ScalingConfig
    backend_config : BackendConfig
    dataset_config : DataConfig
    """

    run_config: RunConfig
    train_loop_config: dict[str, Any] = field(default_factory=dict)
    scaling_config: Any = None
    backend_config: Any = None
    dataset_config: Any = None

    def get_run_config(self) -> RunConfig:
        """The run's configuration."""
        return self.run_config


class UserCallback(Callback):
    """Hears of the reports of all workers, and of their failures; given to ``RunConfig(callbacks=[...])``.

    Its methods run in the process that directs the workers, on a copy of the object. Those of
    :class:`mltoolkit.tune.Callback` run in the program.
    """

    def after_report(
        self, run_context: TrainRunContext, metrics: list[dict[str, Any]], checkpoint: Checkpoint | None
    ) -> None:
        """All workers have reported.

        Parameters
        ----------
        run_context : TrainRunContext
        metrics : list of dict
            In the order of ranks.
        checkpoint : Checkpoint or None
            As it is kept.
        """

    def after_exception(self, run_context: TrainRunContext, worker_exceptions: dict[int, BaseException]) -> None:
        """Workers have failed; the run ends, or begins again.

        Parameters
        ----------
        run_context : TrainRunContext
        worker_exceptions : dict of int to BaseException
            By world rank.
        """
