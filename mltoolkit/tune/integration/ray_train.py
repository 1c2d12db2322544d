"""Reports of a training run to the trial that has started it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mltoolkit.train._result import _HIDDEN
from mltoolkit.train._session import current_session, report
from mltoolkit.tune.callback import Callback

if TYPE_CHECKING:
    from mltoolkit.tune.experiment.trial import Trial

__all__ = ["CHECKPOINT_PATH_KEY", "TuneReportCallback"]

CHECKPOINT_PATH_KEY = "checkpoint_path"
"""The metric that says where the checkpoint of a report is."""


class TuneReportCallback(Callback):
    """Passes the reports of a trainer on that a trial's function has started.

    ::

        def trial(config):
            TorchTrainer(
                loop,
                train_loop_config=config,
                run_config=train.RunConfig(callbacks=[TuneReportCallback()]),
            ).fit()


        tune.Tuner(trial, param_space={"lr": tune.loguniform(1e-4, 1)}).fit()

    What is reported are rank 0's metrics, and under ``"checkpoint_path"`` where its checkpoint is, if it had one. A trainer may
    also be given to the Tuner itself, which needs no callback.

    Raises
    ------
    RuntimeError
        If no trial runs in this process.
    """

    def __init__(self) -> None:
        if current_session() is None:
            raise RuntimeError("TuneReportCallback must be made in the function of a trial, which starts a trainer.")

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Pass a result on."""
        metrics = {name: value for name, value in result.items() if name not in _HIDDEN}
        if result.get("checkpoint_dir_name") and trial.checkpoint is not None:
            metrics[CHECKPOINT_PATH_KEY] = trial.checkpoint.path
        report(metrics)
