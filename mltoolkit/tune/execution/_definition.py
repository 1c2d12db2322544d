"""A sweep as its user wrote it, and how it is kept to be restored."""

from __future__ import annotations

import copy
import logging
import pickle
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import cloudpickle

from mltoolkit.train import RunConfig
from mltoolkit.train._trust import dump_pickle, load_pickle
from mltoolkit.tune.error import StorageError, TuneError
from mltoolkit.tune.execution._build import as_space, as_trainable
from mltoolkit.tune.execution.journal import FILE_NAME
from mltoolkit.tune.schedulers.trial_scheduler import TrialScheduler
from mltoolkit.tune.search import SearchAlgorithm, Searcher
from mltoolkit.tune.stopper import Stopper
from mltoolkit.tune.trainable.util import for_a_file
from mltoolkit.tune.tune_config import TuneConfig

__all__ = [
    "DEFINITION_FILE",
    "KeptDefinition",
    "SweepDefinition",
    "can_restore",
    "load_definition",
    "with_options_of",
    "with_parts_of_its_own",
]

logger = logging.getLogger(__name__)

DEFINITION_FILE = "tuner.pkl"
_LARGEST_TRAINABLE_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class SweepDefinition:
    """A sweep as its user wrote it: what is kept to restore it.

    Attributes
    ----------
    trainable : callable, class, str or None
        None where it could not be kept, so that it must be given again.
    """

    trainable: Any
    trainable_label: str
    param_space: dict[str, Any]
    tune_config: TuneConfig
    run_config: RunConfig
    resources: Any = None
    restore_from: str | None = None


def with_parts_of_its_own(definition: SweepDefinition) -> SweepDefinition:
    """The definition with searcher, scheduler and stopper that no sweep has used yet.

    The first sweep works with the user's objects, which can be looked at and saved afterwards; another one that is given
    the same objects gets copies of what they were before the first.
    """
    tune_config, run_config = definition.tune_config, definition.run_config
    return replace(
        definition,
        tune_config=replace(
            tune_config, search_alg=_unused(tune_config.search_alg), scheduler=_unused(tune_config.scheduler)
        ),
        run_config=_changed(run_config, stop=_unused(run_config.stop)),
    )


_as_they_were: WeakKeyDictionary[Any, bytes] = WeakKeyDictionary()
"""Objects that a sweep has worked with, and their pickles from before."""


def _unused(part: Any) -> Any:
    if not isinstance(part, (Searcher, SearchAlgorithm, TrialScheduler, Stopper)) or _holds_users_objects(part):
        return part
    try:
        before = _as_they_were.get(part)
        if before is not None:
            return cloudpickle.loads(before)
        _as_they_were[part] = cloudpickle.dumps(part)
    except Exception:
        pass  # it holds connections and the like, or has no identity: the object itself is used
    return part


def _holds_users_objects(part: Any) -> bool:
    """Whether a searcher, or one within it, fills something of the user's, such as a study."""
    while part is not None and not isinstance(part, str):
        if getattr(part, "holds_users_objects", False):
            return True
        part = getattr(part, "searcher", None)
    return False


class KeptDefinition:
    """What can be kept of a definition, taken before the sweep changes any of it.

    Parameters
    ----------
    definition : SweepDefinition
    """

    def __init__(self, definition: SweepDefinition) -> None:
        self._data: bytes | None = None
        self._warning = ""
        with for_a_file():
            try:
                cloudpickle.dump(definition.trainable, _Limited(_LARGEST_TRAINABLE_BYTES))
            except Exception:  # too large, or it cannot be pickled: it has to be given again
                definition = replace(definition, trainable=None)
            own = {"callbacks": None, "progress_reporter": None}  # may belong to this process alone
            for without in ({}, own):
                try:
                    self._data = cloudpickle.dumps(
                        replace(definition, run_config=_changed(definition.run_config, **without))
                    )
                except Exception as error:
                    self._warning = f"The sweep can be run but not be restored: its definition cannot be kept: {error}"
                else:
                    if without and definition.run_config.callbacks:
                        self._warning = "Callbacks cannot be kept; a restored sweep runs without those given here."
                    break

    def write(self, folder: Path) -> None:
        """Write it into an experiment's folder, and warn of what is missing.

        Raises
        ------
        StorageError
        """
        if self._warning:
            logger.warning(self._warning)
        if self._data is None:
            return
        try:
            dump_pickle(self._data, folder / DEFINITION_FILE)
        except OSError as error:
            raise StorageError(f"The experiment cannot be kept in {folder}: {error}.") from error


class _Limited:
    """A file that takes no more than so many bytes, and keeps none: large objects are not copied to learn that they are."""

    def __init__(self, most: int) -> None:
        self._left = most

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        self._left -= size
        if self._left < 0:
            raise OverflowError("too large to be kept")
        return size


def with_options_of(kept: SweepDefinition, given: SweepDefinition) -> SweepDefinition:
    """What was kept of a sweep, with what a program that resumes it says about how it runs on.

    Search space, search algorithm, scheduler, metric and stopping criteria stay what they were: half a sweep cannot have
    others.
    """
    names = ("callbacks", "progress_reporter", "verbose")
    run_options = {n: v for n in names if (v := getattr(given.run_config, n)) is not None}
    tune_options: dict[str, Any] = {}
    if given.tune_config.max_concurrent_trials is not None:
        tune_options["max_concurrent_trials"] = given.tune_config.max_concurrent_trials
    if given.tune_config.num_samples != 1:
        tune_options["num_samples"] = given.tune_config.num_samples
    return replace(
        kept,
        run_config=_changed(kept.run_config, failure_config=given.run_config.failure_config, **run_options),
        tune_config=replace(kept.tune_config, **tune_options),
    )


def _changed(run_config: RunConfig, **changes: Any) -> RunConfig:
    changed = copy.copy(run_config)
    for name, value in changes.items():
        setattr(changed, name, value)
    return changed


def can_restore(path: Path) -> bool:
    """Whether a folder holds an experiment that can be gone on with."""
    return (path / FILE_NAME).is_file() and (path / DEFINITION_FILE).is_file()


def load_definition(path: Path, trainable: Any = None, param_space: Any = None) -> SweepDefinition:
    """What was kept of a sweep.

    Raises
    ------
    FileNotFoundError
        If the folder holds no experiment.
    TuneError
        If the trainable was not kept and is not given.
    UntrustedFileError
        If somebody else could have written the file.
    """
    if not can_restore(path):
        missing = [name for name in (FILE_NAME, DEFINITION_FILE) if not (path / name).is_file()]
        raise FileNotFoundError(
            f"There is no experiment to restore in {path}: {' and '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not there. Give the folder <storage_path>/<name> of the experiment."
        )
    definition: SweepDefinition = pickle.loads(load_pickle(path / DEFINITION_FILE))
    if trainable is None and definition.trainable is None:
        raise TuneError(
            f"The trainable {definition.trainable_label!r} was not kept with the experiment (it is large, or holds "
            "objects that no file can keep). Give it: `Tuner.restore(path, trainable)`."
        )
    if trainable is not None:
        given, label = as_trainable(trainable)
        if label != definition.trainable_label:
            raise ValueError(
                f"The experiment in {path} was run with the trainable {definition.trainable_label!r}, not {label!r}. "
                "Give the same one."
            )
        definition = replace(definition, trainable=given)
    if param_space is not None:
        definition = replace(definition, param_space=as_space(param_space))
    return definition
