"""Snapshots of those who decide: search algorithm, scheduler, stopper and callbacks.

A snapshot names the place in the journal up to which it has seen everything. Restoring takes the last one and shows it
the events after that, so a snapshot may be rare and the state is still that of the last event.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle

from mltoolkit.train._trust import dump_pickle, load_pickle
from mltoolkit.tune.callback import CallbackList
from mltoolkit.tune.error import StorageError
from mltoolkit.tune.execution._settings import SweepSettings
from mltoolkit.tune.execution.journal import Journal

__all__ = ["FILE_NAME", "Snapshot", "SnapshotWriter", "load_snapshot"]

logger = logging.getLogger(__name__)

FILE_NAME = "sweep_state.pkl"
_EVERY_S = 10.0
_MOST_OF_TIME = 0.02


@dataclass(frozen=True)
class Snapshot:
    """State of those who decide, as of a place in the journal.

    Attributes
    ----------
    position : int
        Bytes of the journal that they have seen.
    search_alg, scheduler, stopper : bytes
    callbacks : dict or None
    """

    position: int
    search_alg: bytes
    scheduler: bytes
    stopper: bytes
    callbacks: dict[Any, Any] | None

    def restore(self, settings: SweepSettings) -> None:
        """Give the state back."""
        for owner, state in ((settings.search_alg, self.search_alg), (settings.scheduler, self.scheduler)):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, "state")
                path.write_bytes(state)
                owner.restore(path)
        settings.stopper = cloudpickle.loads(self.stopper)


class SnapshotWriter:
    """Takes snapshots every ten seconds, or more rarely where they are expensive."""

    def __init__(self, settings: SweepSettings, journal: Journal) -> None:
        self._settings = settings
        self._journal = journal
        self._path = settings.experiment_path / FILE_NAME
        self._due = time.monotonic() + _EVERY_S
        self._impossible = False

    def write_if_due(self, callbacks: CallbackList) -> None:
        """Take a snapshot if the last one is old enough."""
        if time.monotonic() >= self._due:
            self.write(callbacks)

    def write(self, callbacks: CallbackList) -> None:
        """Take a snapshot."""
        if self._impossible:
            return
        start = time.monotonic()
        settings = self._settings
        try:
            snapshot = Snapshot(
                self._journal.position,
                _saved(settings.search_alg),
                _saved(settings.scheduler),
                cloudpickle.dumps(settings.stopper),
                callbacks.get_state(),
            )
            dump_pickle(snapshot, self._path)
        except OSError as error:
            raise StorageError(
                f"{self._path} cannot be written: {error}. The sweep stops; what was reported before is intact. Make "
                "room, then go on with `Tuner.restore`."
            ) from error
        except Exception as error:
            # Without one, restoring shows all events to new objects instead.
            logger.warning("The state of the sweep's searcher, scheduler or stopper cannot be saved: %s", error)
            self._impossible = True
        cost = time.monotonic() - start
        self._due = time.monotonic() + max(_EVERY_S, cost / _MOST_OF_TIME)


def load_snapshot(experiment_path: Path) -> Snapshot | None:
    """The last snapshot of an experiment, if it has one; only from a file nobody but the user may write."""
    path = experiment_path / FILE_NAME
    if not path.exists():
        return None
    snapshot = load_pickle(path)
    return snapshot if isinstance(snapshot, Snapshot) else None


def _saved(owner: Any) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "state")
        owner.save(path)
        return Path(path).read_bytes()
