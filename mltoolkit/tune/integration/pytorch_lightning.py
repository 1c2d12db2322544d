"""Reports from Lightning's Trainer to a sweep."""

from __future__ import annotations

import difflib
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from mltoolkit.lightning._package import PackageClass
from mltoolkit.train import Checkpoint
from mltoolkit.train._session import report

__all__ = ["TuneReportCallback", "TuneReportCheckpointCallback"]

logger = logging.getLogger(__name__)


class TuneReportCheckpointCallback(PackageClass):
    """Reports a Trainer's metrics to the sweep, with a checkpoint.

    Works in a trial's own process and under the strategies of :mod:`mltoolkit.lightning`, whose rank 0 reports for all;
    when the scheduler ends the trial, its workers end with it.

    Parameters
    ----------
    metrics : str, list of str or dict, optional
        Which metrics: their names in ``trainer.callback_metrics``, or a dict of the names to report and those. By
        default all.
    filename : str, default='checkpoint'
        Name of Lightning's file in the checkpoint's folder.
    save_checkpoints : bool, default=True
        Whether there is a checkpoint.
    on : str or list of str, default='validation_end'
        When: names of Lightning's hooks without ``on_``.

    Raises
    ------
    ValueError
        If there is no such hook.
    """

    _base_in_package: ClassVar[tuple[str, str]] = ("{package}.callbacks", "Callback")

    def __init__(
        self,
        metrics: str | Sequence[str] | Mapping[str, str] | None = None,
        filename: str = "checkpoint",
        save_checkpoints: bool = True,
        on: str | Sequence[str] = "validation_end",
    ) -> None:
        super().__init__()
        names = [metrics] if isinstance(metrics, str) else metrics
        self._metrics: dict[str, str] | None
        if names is None or isinstance(names, Mapping):
            self._metrics = None if names is None else dict(names)
        else:
            self._metrics = {name: name for name in names}
        if not isinstance(filename, str) or not filename or os.path.basename(filename) != filename:
            raise ValueError(f"`filename` must be the name of a file, got {filename!r}.")
        self._filename = filename
        self._save_checkpoints = bool(save_checkpoints)
        self._missing: set[str] = set()
        for name in [on] if isinstance(on, str) else on:
            self._report_at(name)

    def _report_at(self, name: str) -> None:
        hook = f"on_{name.removeprefix('on_')}"
        hooks = [each for each in dir(type(self)) if each.startswith("on_") and each.endswith(("start", "end"))]
        if hook not in hooks:
            near = difflib.get_close_matches(hook, hooks, 1)
            hint = f" Did you mean {near[0].removeprefix('on_')!r}?" if near else ""
            raise ValueError(
                f"`on` must name hooks of Lightning's Callback, got {name!r}.{hint} There are: "
                f"{', '.join(sorted(each.removeprefix('on_') for each in hooks))}."
            )
        self._hooks = getattr(self, "_hooks", ())
        self._hooks += (hook,)

    def __getattribute__(self, name: str) -> Any:
        # The hooks that report are found on the object: so they survive being sent to workers.
        if name.startswith("on_") and name in object.__getattribute__(self, "__dict__").get("_hooks", ()):
            return object.__getattribute__(self, "_report")
        return object.__getattribute__(self, name)

    def _report(self, trainer: Any, pl_module: Any, *args: Any, **kwargs: Any) -> None:
        if trainer.sanity_checking:
            return
        metrics = self._found(trainer)
        if not self._save_checkpoints:
            if trainer.is_global_zero and metrics:
                report(metrics)
            trainer.strategy.barrier()
            return
        with tempfile.TemporaryDirectory() as folder:
            trainer.save_checkpoint(os.path.join(folder, self._filename))
            if trainer.is_global_zero:
                report(metrics, checkpoint=Checkpoint(folder))
            trainer.strategy.barrier()

    def _found(self, trainer: Any) -> dict[str, Any]:
        known = trainer.callback_metrics
        wanted = {name: name for name in known} if self._metrics is None else self._metrics
        found = {}
        for name, key in wanted.items():
            if key in known:
                found[name] = known[key].item()
            elif key not in self._missing:
                self._missing.add(key)
                logger.warning(
                    "The metric %r is not reported: the Trainer has %s. Log it with `self.log(%r, ...)`.",
                    key,
                    ", ".join(sorted(known)) or "none",
                    key,
                )
        return found


class TuneReportCallback(TuneReportCheckpointCallback):
    """Reports a Trainer's metrics to the sweep.

    Parameters
    ----------
    metrics : str, list of str or dict, optional
        As for :class:`TuneReportCheckpointCallback`.
    on : str or list of str, default='validation_end'
        When.
    """

    def __init__(
        self,
        metrics: str | Sequence[str] | Mapping[str, str] | None = None,
        on: str | Sequence[str] = "validation_end",
    ) -> None:
        super().__init__(metrics, save_checkpoints=False, on=on)
