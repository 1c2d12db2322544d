"""What a run has made of trainer, model and callbacks on rank 0, and how it comes back to the driver's."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mltoolkit.lightning._known import Dumped, KnownObjects
from mltoolkit.lightning._tensors import pack, unpack, unpack_into

__all__ = ["Outcome", "collect", "dump_new_modules", "merge_predictions", "restore"]

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
    modules : dict of str to Dumped
        Submodules that the run has added, for instance in ``configure_model``, by their names.
    optimizers : Dumped or None
        Optimizers and the configurations of learning-rate schedulers, after a fit.
    ended_by : BaseException or None
        By which Lightning's tuner ends a fit that has served its purpose.
    """

    results: Any = None
    weights: dict[str, Any] | None = None
    state: Any = None
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    loops: dict[str, Any] = field(default_factory=dict)
    sizes: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    callbacks: list[Dumped | None] = field(default_factory=list)
    loggers: list[Dumped | None] = field(default_factory=list)
    profiler: Dumped | None = None
    module: dict[str, Dumped] = field(default_factory=dict)
    modules: dict[str, Dumped] = field(default_factory=dict)
    optimizers: Dumped | None = None
    should_stop: bool = False
    ended_by: BaseException | None = None


def dump_new_modules(trainer: Any, known_modules: frozenset[str]) -> dict[str, Dumped]:
    """Submodules that are not known, those inside of them included. Their weights travel with all others.

    Parameters
    ----------
    trainer : Trainer
        Before the model is wrapped or sharded.
    known_modules : frozenset of str
        Submodules that the driver's model has.
    """
    known = KnownObjects(trainer, with_parameters=False)
    found = {}
    for name, each in trainer.lightning_module.named_modules():
        if name not in known_modules and name.rpartition(".")[0] in known_modules:
            dumped = known.dump(each, f"module {name!r}")
            if dumped is not None:
                found[name] = dumped
    return found


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
    strategy = trainer.strategy
    known = KnownObjects(trainer)
    has_fitted = trainer.state.fn == "fit"
    return Outcome(
        results=pack(results),
        weights=None if weights is None else pack(weights),
        state=trainer.state,
        metrics={
            name: pack(dict(getattr(trainer, name)))
            for name in ("callback_metrics", "logged_metrics", "progress_bar_metrics")
        },
        loops={name: getattr(trainer, name).state_dict() for name in _LOOPS if hasattr(trainer, name)},
        sizes={name: [_sizes(each) for each in _with_inner(getattr(trainer, name))] for name in _LOOPS},
        callbacks=[known.dump(vars(each), f"the callback {type(each).__name__}") for each in trainer.callbacks],
        loggers=[known.dump(_state_of(each), f"the logger {type(each).__name__}") for each in trainer.loggers],
        profiler=known.dump(_state_of(trainer.profiler), "the profiler"),
        module=_dump_attributes(known, trainer.lightning_module),
        modules=strategy.new_modules,
        optimizers=known.dump(strategy.optimizers_to_return(), "an optimizer") if has_fitted else None,
        should_stop=bool(trainer.should_stop),
    )


def restore(trainer: Any, outcome: Outcome, bars: list[int]) -> None:
    """Bring the driver's trainer, model, callbacks and loggers to the state of rank 0's.

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
    _restore_module(KnownObjects(trainer), module, outcome)
    known = KnownObjects(trainer)  # the model may have grown
    for name, dumped in outcome.module.items():
        try:
            setattr(module, name, known.load(dumped))
        except Exception as error:
            logger.debug("attribute %r of the model stays as it was: %s", name, error)
    for index, (callback, state) in enumerate(zip(trainer.callbacks, outcome.callbacks, strict=False)):
        if index not in bars:
            vars(callback).update(_loaded(known, state, callback) or {})
    for thing, state in zip((*trainer.loggers, trainer.profiler), (*outcome.loggers, outcome.profiler), strict=True):
        _update(thing, _loaded(known, state, thing))
    for name, progress in outcome.loops.items():
        loop = getattr(trainer, name)
        loop.load_state_dict(progress)
        for each, sizes in zip(_with_inner(loop), outcome.sizes[name], strict=True):
            vars(each).update(sizes)
            # Nothing was loaded from a checkpoint that a run would have to resume.
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
    if trainer.state.fn == "fit":
        # They cannot be sent, or are not meant to be, if there are none; that is said when a checkpoint is saved.
        made: tuple[Any, Any] = _loaded(known, outcome.optimizers, "the optimizers") or ([], [])
        trainer.strategy.optimizers, trainer.strategy.lr_scheduler_configs = made


def _restore_module(known: KnownObjects, module: Any, outcome: Outcome) -> None:
    for name, dumped in outcome.modules.items():
        owner, _, own_name = name.rpartition(".")
        setattr(module.get_submodule(owner), own_name, known.load(dumped))
    if outcome.weights is not None:
        missing = unpack_into(outcome.weights, module)
        if missing:
            logger.warning(
                "The model of this process has no %s, which the run has made on the workers. Make all parameters in "
                "`__init__`, or load a checkpoint.",
                ", ".join(repr(name) for name in missing),
            )


def _loaded(known: KnownObjects, dumped: Dumped | None, what: Any) -> Any:
    """What was sent, or None; a state that has no meaning here must not cost the results of a run."""
    if dumped is None:
        return None
    try:
        return known.load(dumped)
    except Exception as error:
        logger.debug("%s stays as it was: %s", what if isinstance(what, str) else type(what).__name__, error)
        return None


def _dump_attributes(known: KnownObjects, module: Any) -> dict[str, Dumped]:
    """Plain attributes that user code has set on a model: lists of losses and the like."""
    import torch

    found = {}
    for name, value in vars(module).items():
        if (
            (name.startswith("_") and name != "_hparams")
            or isinstance(value, (torch.nn.Module, torch.nn.Parameter))
            or callable(value)
            or name == "training"
        ):
            continue
        dumped = known.dump(value, f"attribute {name!r} of the model")
        if dumped is not None and dumped.nbytes <= _MOST_ATTRIBUTE_BYTES:
            found[name] = dumped
    return found


def _state_of(thing: Any) -> Any:
    return thing.__getstate__()


def _update(thing: Any, state: Any) -> None:
    """Take over a state; what could not be sent, such as connections, is kept."""
    if not isinstance(state, Mapping):
        return
    for name, value in state.items():
        if value is not None or vars(thing).get(name) is None:
            vars(thing)[name] = value


def _sizes(loop: Any) -> dict[str, Any]:
    """How many batches there were, as a loop keeps it."""
    return {name: vars(loop)[name] for name in ("max_batches", "_max_batches") if name in vars(loop)}


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
