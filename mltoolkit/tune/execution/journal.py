"""The journal of an experiment: one append-only file from which everything about a sweep can be rebuilt.

``experiment_state.jsonl`` holds one JSON object a line, written in the order in which things happened and before they
take effect: the results of a trial lie in it before the trial goes on. A driver that is killed at any point leaves at
most a torn last line, which readers skip and writers cut off.

Events (key ``event``):

==============  ======================================================================================================
``sweep``       a run begins or goes on: name, metric, mode, number of samples, start time
``trial``       a configuration was created: ``trial_id``, ``config``, ``evaluated_params``, ``experiment_tag``, ...
``start``       a trial runs: ``iteration`` it goes on from, ``location``
``result``      a trial reported: ``result``
``checkpoint``  a checkpoint of a trial is complete: ``name`` of its folder; ``metrics`` if they are another trial's
``removed``     a checkpoint is no longer kept: ``name``
``reset``       a scheduler gave a trial another configuration
``wait``        a trial left its slot: ``status`` is ``PAUSED`` or ``PENDING``
``failure``     a trial failed and will be tried again: ``error``
``revive``      a restored sweep runs a trial again that had failed: ``keep_checkpoints``
``end``         a trial ended: ``status``, ``reason``, ``error``
==============  ======================================================================================================

Configurations that JSON cannot express exactly carry a pickle beside their readable form. Reading results, and
everything else that analyses an experiment, never opens it; only restoring a sweep does, from files that nobody but
the user may write.
"""

from __future__ import annotations

import base64
import fcntl
import itertools
import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle

from mltoolkit.tune._torn_lines import cut_torn_line
from mltoolkit.tune.error import StorageError, TuneError

__all__ = ["FILE_NAME", "Journal", "decode_config", "encode_config", "read_events", "to_json"]

FILE_NAME = "experiment_state.jsonl"

_LARGEST_ARRAY = 1000
_EXACT = frozenset({str, int, float, bool, type(None)})


class Journal:
    """Writer of an experiment's journal.

    Parameters
    ----------
    experiment_path : path-like
        Folder of the experiment, which must exist.

    Raises
    ------
    StorageError
        If the file cannot be opened or written; what was written before stays readable.
    TuneError
        If another process writes it: one experiment is run by one driver.
    """

    def __init__(self, experiment_path: str | os.PathLike[str]) -> None:
        self.path = Path(experiment_path) / FILE_NAME
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            _lock(descriptor, self.path)
            cut_torn_line(self.path)
        except OSError as error:
            raise self._failure(error) from error
        # Unbuffered: an event is in the kernel's hands when `append` returns, so it survives the driver.
        self._file = os.fdopen(descriptor, "ab", buffering=0)

    @property
    def position(self) -> int:
        """Bytes written so far: where the next event will begin."""
        return os.fstat(self._file.fileno()).st_size

    def append(self, event: str, **fields: Any) -> None:
        """Write one event."""
        line = to_json({"event": event, **fields}).encode() + b"\n"
        try:
            # A regular file takes all of a write or says that the disk is full.
            if (written := self._file.write(line)) != len(line):
                raise OSError(28, f"No space left on device: {written} of {len(line)} bytes were written")
            if not os.fstat(self._file.fileno()).st_nlink:
                raise FileNotFoundError(2, "the folder of the experiment was deleted while the sweep ran")
        except OSError as error:
            raise self._failure(error) from error

    def begin_anew(self) -> None:
        """Put what is there aside, under the time of its last event, and start an empty journal."""
        if not self.position:
            return
        stamp = time.strftime("%Y-%m-%d_%H-%M-%S", time.localtime(self.path.stat().st_mtime))
        aside = (self.path.with_name(f"experiment_state-{stamp}-{number}.jsonl") for number in itertools.count())
        try:
            self.path.rename(next(path for path in aside if not path.exists()))  # safe: the lock is held
        except OSError as error:
            raise self._failure(error) from error
        self.close()
        self.__init__(self.path.parent)  # type: ignore[misc]

    def close(self) -> None:
        """Close the file; closing twice is harmless."""
        self._file.close()

    def _failure(self, error: OSError) -> StorageError:
        return StorageError(
            f"The experiment's state cannot be written to {self.path}: {error}. The sweep stops; what was reported "
            f"before is intact. Make room or mend the folder, then go on with `Tuner.restore({str(self.path.parent)!r})`."
        )


def read_events(
    experiment_path: str | os.PathLike[str], start: int = 0, stop: int | None = None
) -> Iterator[dict[str, Any]]:
    """Read an experiment's events in order.

    Parameters
    ----------
    experiment_path : path-like
        Folder of the experiment.
    start, stop : int
        Bytes between which to read; to the end by default.

    Yields
    ------
    dict

    Raises
    ------
    FileNotFoundError
        If there is no journal.
    """
    with open(Path(experiment_path) / FILE_NAME, "rb") as file:
        file.seek(start)
        position = start
        for line in file:
            if not line.endswith(b"\n") or (stop is not None and position >= stop):
                return
            position += len(line)
            try:
                event = json.loads(line)
            except ValueError:
                continue  # torn by a crash in the middle of an earlier run
            if isinstance(event, dict) and "event" in event:
                yield event


def to_json(value: Any) -> str:
    """JSON text of a value; what JSON cannot express becomes a list, a number or its ``repr``."""
    try:
        return json.dumps(value, default=_plain)
    except TypeError:  # keys that are no strings, which `default` is not asked about
        return json.dumps(_with_string_keys(value), default=_plain)


def encode_config(config: dict[str, Any]) -> dict[str, Any]:
    """Fields of an event that hold a configuration: readable always, and a pickle where JSON loses something."""
    if _is_exact(config):
        return {"config": config}
    text = to_json(config)
    try:
        data = cloudpickle.dumps(config)
    except Exception:  # references into shared memory, which no file can keep
        return {"config": json.loads(text), "config_pickle": None}
    return {"config": json.loads(text), "config_pickle": base64.b64encode(data).decode()}


def decode_config(event: dict[str, Any], *, trusted: bool) -> dict[str, Any]:
    """The configuration that :func:`encode_config` wrote; its readable form where the file is not trusted."""
    if trusted and "config_pickle" in event:
        if event["config_pickle"] is None:
            raise TuneError(
                f"The configuration of trial {event['trial_id']} holds objects that cannot be kept in a file, such as "
                "ObjectRefs, so the trial cannot be restored. Give such objects with `tune.with_parameters`."
            )
        config: dict[str, Any] = cloudpickle.loads(base64.b64decode(event["config_pickle"]))
        return config
    return dict(event["config"])


def _is_exact(value: Any) -> bool:
    """Whether JSON gives a value back as it is: equal is not enough, a float of numpy equals one of Python."""
    kind = type(value)
    if kind is dict:
        return all(type(key) is str and _is_exact(item) for key, item in value.items())
    if kind is list:
        return all(map(_is_exact, value))
    return kind in _EXACT


def _plain(value: Any) -> Any:
    if isinstance(shape := getattr(value, "shape", None), tuple) and hasattr(value, "tolist"):
        try:
            if math.prod(shape) < _LARGEST_ARRAY:
                return value.tolist()
        except Exception:
            pass  # sparse tensors and the like
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=repr)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    name = getattr(value, "__qualname__", None)
    return f"<{value.__module__}.{name}>" if name and hasattr(value, "__module__") else repr(value)[:1000]


def _with_string_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _with_string_keys(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_string_keys(v) for v in value]
    return value


def _lock(descriptor: int, path: Path) -> None:
    """Hold the file until it is closed, however the process ends."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise TuneError(
            f"The experiment in {path.parent} is being run by another sweep. Wait until it has ended, or give this one "
            "another `name`."
        ) from None
