"""The progress bar of rank 0, shown where the program runs.

On the worker a stand-in takes the bar's place among the callbacks and sends what the bar would see; on the driver the
user's own bar, of whatever kind, gets the same calls with a stand-in for the trainer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, ClassVar

from mltoolkit.lightning._package import PackageClass

__all__ = ["BarDriver", "RemoteBar"]

_MIN_INTERVAL_S = 0.1
"""Between two updates: how often the bars of tqdm and Rich draw themselves."""

_PER_BATCH = {
    f"on_{stage}_batch_{edge}" for stage in ("train", "validation", "test", "predict") for edge in ("start", "end")
}
_NUMBERS = (
    "current_epoch",
    "global_step",
    "max_epochs",
    "max_steps",
    "num_training_batches",
    "num_val_batches",
    "num_sanity_val_batches",
    "num_test_batches",
    "num_predict_batches",
    "sanity_checking",
    "progress_bar_metrics",
)


class RemoteBar(PackageClass):
    """Stands in for a progress bar on rank 0, and sends what it would be called with.

    Parameters
    ----------
    post : callable
        Takes events.
    """

    _base_in_package: ClassVar[tuple[str, str]] = ("{package}.callbacks", "ProgressBar")

    def __init__(self, post: Callable[[Any], object]) -> None:
        super().__init__()
        self._post = post
        self._next = 0.0

    def disable(self) -> None:
        """Be quiet from now on."""
        self._post(("bar", "disable", (), {}))

    def enable(self) -> None:
        """Show progress again."""
        self._post(("bar", "enable", (), {}))

    def print(self, *args: Any, sep: str = " ", **kwargs: Any) -> None:
        """Print without breaking the bar."""
        self._post(("print", sep.join(str(each) for each in args)))

    def _send(self, hook: str, trainer: Any, **given: Any) -> None:
        self._post(("bar", hook, _seen(trainer), given))

    def _batch(self, hook: str, trainer: Any, batch_idx: int, total: Any, dataloader_idx: int) -> None:
        now = time.monotonic()
        if now < self._next and batch_idx + 1 != total:
            return
        self._next = now + _MIN_INTERVAL_S
        self._send(hook, trainer, batch_idx=batch_idx, dataloader_idx=dataloader_idx)

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Nothing to show yet."""
        self._trainer = trainer

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Send how far training is, at most so often."""
        self._batch("on_train_batch_end", trainer, batch_idx, trainer.num_training_batches, 0)


def _plain_hook(hook: str) -> Callable[..., None]:
    def send(self: RemoteBar, trainer: Any, pl_module: Any) -> None:
        self._send(hook, trainer)

    send.__name__ = hook
    return send


def _evaluation_hooks(stage: str) -> dict[str, Callable[..., None]]:
    def batch_start(
        self: RemoteBar, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if self.has_dataloader_changed(dataloader_idx):
            self._send(f"on_{stage}_batch_start", trainer, batch_idx=batch_idx, dataloader_idx=dataloader_idx)

    def batch_end(
        self: RemoteBar,
        trainer: Any,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        number = {"validation": "val"}.get(stage, stage)
        totals = (
            trainer.num_sanity_val_batches if trainer.sanity_checking else getattr(trainer, f"num_{number}_batches")
        )
        total = totals[dataloader_idx] if isinstance(totals, list) else totals
        self._batch(f"on_{stage}_batch_end", trainer, batch_idx, total, dataloader_idx)

    def end(self: RemoteBar, trainer: Any, pl_module: Any) -> None:
        self._send(f"on_{stage}_end", trainer)
        self.reset_dataloader_idx_tracker()

    return {f"on_{stage}_batch_start": batch_start, f"on_{stage}_batch_end": batch_end, f"on_{stage}_end": end}


for _hook in (
    "on_sanity_check_start",
    "on_sanity_check_end",
    "on_train_start",
    "on_train_epoch_start",
    "on_train_epoch_end",
    "on_train_end",
    "on_validation_start",
    "on_validation_epoch_start",
    "on_validation_epoch_end",
    "on_test_start",
    "on_predict_start",
):
    setattr(RemoteBar, _hook, _plain_hook(_hook))
for _stage in ("validation", "test", "predict"):
    for _hook, _function in _evaluation_hooks(_stage).items():
        setattr(RemoteBar, _hook, _function)


def _seen(trainer: Any) -> dict[str, Any]:
    """What a bar may ask of the trainer, as plain values."""
    seen = {}
    for name in _NUMBERS:
        try:
            seen[name] = getattr(trainer, name)
        except Exception:  # not known at this stage
            continue
    seen["progress_bar_metrics"] = {
        key: value.item() if hasattr(value, "item") else value
        for key, value in seen.get("progress_bar_metrics", {}).items()
    }
    seen["fn"] = str(trainer.state.fn.value) if trainer.state.fn is not None else None
    try:
        seen["validates"] = bool(trainer.fit_loop.epoch_loop._should_check_val_epoch())
    except Exception:
        seen["validates"] = False
    return seen


class BarDriver:
    """Calls the user's progress bar on the driver.

    Parameters
    ----------
    bar : ProgressBar
    trainer : Trainer
        The driver's.
    """

    def __init__(self, bar: Any, trainer: Any) -> None:
        self._bar = bar
        self._trainer = _SeenTrainer(trainer)
        self._module = trainer.lightning_module
        self._broken = False

    def begin(self) -> None:
        """Connect the bar with the stand-in."""
        self._call("setup", stage=str(getattr(self._trainer.state.fn, "value", "fit")))

    def handle(self, hook: str, seen: Any, given: dict[str, Any]) -> None:
        """Call a hook as the worker would have."""
        if hook in ("enable", "disable"):
            getattr(self._bar, hook)()
            return
        self._trainer.see(seen)
        if hook in _PER_BATCH:
            args = [None] if hook.endswith("_start") else [None, None]
            args.append(given["batch_idx"])
            if not hook.startswith("on_train"):
                args.append(given["dataloader_idx"])
            self._call(hook, *args)
        else:
            self._call(hook)

    def print(self, text: str) -> None:
        """Print without breaking the bar."""
        self._bar.print(text)

    def end(self, error: BaseException | None) -> None:
        """Leave the bar as a run leaves it."""
        if error is not None:
            self._call("on_exception", error)
        self._call("teardown", stage=str(getattr(self._trainer.state.fn, "value", "fit")))
        self._bar._trainer = None

    def _call(self, hook: str, *args: Any, **kwargs: Any) -> None:
        if self._broken:
            return
        try:
            getattr(self._bar, hook)(self._trainer, self._module, *args, **kwargs)
        except Exception:
            # A bar that wants what only the worker has must not end the training.
            import logging

            self._broken = True
            logging.getLogger(__name__).warning("The progress bar failed in %s and is left out.", hook, exc_info=True)


class _SeenTrainer:
    """The driver's trainer, with what rank 0 has seen in place of its own numbers."""

    def __init__(self, trainer: Any) -> None:
        self._real = trainer
        self._values: dict[str, Any] = {"progress_bar_metrics": {}, "sanity_checking": False, "current_epoch": 0}

    def see(self, values: dict[str, Any]) -> None:
        self._values.update(values)

    @property
    def fit_loop(self) -> Any:
        checks = bool(self._values.get("validates"))
        return SimpleNamespace(epoch_loop=SimpleNamespace(_should_check_val_epoch=lambda: checks))

    def __reduce__(self) -> Any:
        return (_itself, (self._real,))  # a bar that keeps it after the run must not keep what was seen

    def __getattr__(self, name: str) -> Any:
        values = self.__dict__["_values"]
        return values[name] if name in values else getattr(self.__dict__["_real"], name)


def _itself(value: Any) -> Any:
    return value
