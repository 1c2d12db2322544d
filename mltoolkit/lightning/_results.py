"""What a run has made of trainer, model and callbacks on rank 0, and how it comes back to the driver's."""

from __future__ import annotations

import io
import logging
import pickle
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import cloudpickle

from mltoolkit.lightning._tensors import pack, unpack, unpack_into

__all__ = ["Outcome", "collect", "merge_predictions", "restore"]

logger = logging.getLogger(__name__)

_LOOPS = ("fit_loop", "validate_loop", "test_loop", "predict_loop")
_MOST_ATTRIBUTE_BYTES = 16 * 1024 * 1024


@dataclass
class Outcome:
    """What one rank brings back; all but `results` from rank 0 alone.

    Attributes
    ----------
    results : object
        What the trainer's function returned, packed.
    weights : dict or None
        State dict of the model, packed; None if the run could not change it.
    """

    results: Any = None
    weights: dict[str, Any] | None = None
    state: Any = None
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    loops: dict[str, Any] = field(default_factory=dict)
    callbacks: list[bytes | None] = field(default_factory=list)
    module: dict[str, bytes] = field(default_factory=dict)
    should_stop: bool = False


def collect(trainer: Any, results: Any, weights: dict[str, Any] | None, *, is_first: bool) -> Outcome:
    """What a worker brings back.

    Parameters
    ----------
    trainer : Trainer
        The worker's, after its run.
    results : object
        What its function returned.
    weights : dict or None
        The whole state dict; sharded models have gathered it.
    is_first : bool
        Whether this is rank 0.
    """
    if not is_first:
        return Outcome(pack(results) if trainer.state.fn == "predict" else None)
    known = _Known(trainer)
    return Outcome(
        results=pack(results),
        weights=None if weights is None else pack(weights),
        state=trainer.state,
        metrics={
            name: pack(dict(getattr(trainer, name)))
            for name in ("callback_metrics", "logged_metrics", "progress_bar_metrics")
        },
        loops={name: getattr(trainer, name).state_dict() for name in _LOOPS if hasattr(trainer, name)},
        callbacks=[known.dump(vars(callback)) for callback in trainer.callbacks],
        module=known.dump_attributes(trainer.lightning_module),
        should_stop=bool(trainer.should_stop),
    )


def restore(trainer: Any, outcome: Outcome, bars: list[int]) -> None:
    """Bring the driver's trainer, model and callbacks to the state of rank 0's.

    Parameters
    ----------
    trainer : Trainer
        The driver's.
    outcome : Outcome
        Of rank 0.
    bars : list of int
        Callbacks that have run here, by position.
    """
    module = trainer.lightning_module
    known = _Known(trainer)
    if outcome.weights is not None:
        unpack_into(outcome.weights, module)
    for name, blob in outcome.module.items():
        try:
            setattr(module, name, known.load(blob))
        except Exception as error:
            logger.debug("attribute %r of the model stays as it was: %s", name, error)
    for index, (callback, state) in enumerate(zip(trainer.callbacks, outcome.callbacks, strict=False)):
        if state is not None and index not in bars:
            vars(callback).update(known.load(state))
    for name, progress in outcome.loops.items():
        loop = getattr(trainer, name)
        loop.load_state_dict(progress)
        for each in _with_inner(loop):  # nothing was loaded from a checkpoint that a run would have to resume
            each._restarting = False
            for flag in ("_loaded_from_state_dict", "_resuming_from_checkpoint"):
                if hasattr(each, flag):
                    setattr(each, flag, False)
    connector = trainer._logger_connector
    for name, values in outcome.metrics.items():
        setattr(connector, f"_{name}", unpack(values))
    trainer.state.fn, trainer.state.status, trainer.state.stage = (
        outcome.state.fn,
        outcome.state.status,
        outcome.state.stage,
    )
    trainer.should_stop = outcome.should_stop


def merge_predictions(parts: list[Any]) -> Any:
    """Predictions of all ranks as one process would have made them.

    The samples of a dataset are dealt to the ranks in turn. Where predictions are tensors with a row for each sample
    they are put back into the dataset's order, in batches as large as those of all ranks together; other predictions
    follow each other rank by rank.
    """
    if any(not isinstance(part, list) for part in parts):
        return parts[0]
    if parts[0] and all(isinstance(each, list) for part in parts for each in part):  # several data loaders
        return [merge_predictions([part[index] for part in parts]) for index in range(len(parts[0]))]
    import torch

    flat = [each for part in parts for each in part]
    if not flat or not all(isinstance(each, torch.Tensor) and each.ndim for each in flat):
        return flat
    merged = []
    for index in range(max(len(part) for part in parts)):
        batch = [part[index] for part in parts if index < len(part)]
        rows = torch.empty((sum(len(each) for each in batch), *batch[0].shape[1:]), dtype=batch[0].dtype)
        if any(each.shape[1:] != batch[0].shape[1:] for each in batch):
            return flat
        for offset, each in enumerate(batch):
            if len(rows[offset :: len(batch)]) != len(each):
                return flat
            rows[offset :: len(batch)] = each
        merged.append(rows)
    return merged


def _with_inner(loop: Any) -> Iterator[Any]:
    yield loop
    for value in list(vars(loop).values()):
        if hasattr(value, "_restarting") and hasattr(value, "state_dict"):
            yield from _with_inner(value)


class _Pickler(cloudpickle.Pickler):
    def __init__(self, stream: io.BytesIO, names: dict[int, str]) -> None:
        super().__init__(stream)
        self._names = names

    def persistent_id(self, value: Any) -> str | None:
        return self._names.get(id(value))


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: io.BytesIO, objects: dict[str, Any]) -> None:
        super().__init__(stream)
        self._objects = objects

    def persistent_load(self, name: str) -> Any:
        return self._objects[name]


class _Known:
    """Pickles states that refer to trainer, model and the like, which are there already on the other side."""

    def __init__(self, trainer: Any) -> None:
        self._objects = {
            "trainer": trainer,
            "module": trainer.lightning_module,
            "strategy": trainer.strategy,
            "datamodule": getattr(trainer, "datamodule", None),
        }
        self._names = {id(value): name for name, value in self._objects.items() if value is not None}

    def dump(self, state: Any) -> bytes | None:
        """The pickle, or None if it cannot be made."""
        stream = io.BytesIO()
        pickler = _Pickler(stream, self._names)
        try:
            pickler.dump(state)
        except Exception as error:
            logger.debug("a state stays on its worker: %s", error)
            return None
        return stream.getvalue()

    def dump_attributes(self, module: Any) -> dict[str, bytes]:
        """Plain attributes that user code has set on a model: lists of losses and the like."""
        import torch

        found = {}
        for name, value in vars(module).items():
            if (
                name.startswith("_")
                or isinstance(value, (torch.nn.Module, torch.nn.Parameter))
                or callable(value)
                or name == "training"
            ):
                continue
            blob = self.dump(value)
            if blob is not None and len(blob) <= _MOST_ATTRIBUTE_BYTES:
                found[name] = blob
        return found

    def load(self, blob: bytes) -> Any:
        return _Unpickler(io.BytesIO(blob), self._objects).load()
