"""The class form of a trainable."""

from __future__ import annotations

import copy
import json
import os
import pickle
import socket
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mltoolkit.train import Checkpoint
from mltoolkit.tune.context import TuneContext
from mltoolkit.tune.result import (
    DONE,
    EPISODES_THIS_ITER,
    EPISODES_TOTAL,
    SHOULD_CHECKPOINT,
    TIME_THIS_ITER_S,
    TIME_TOTAL_S,
    TIMESTEPS_THIS_ITER,
    TIMESTEPS_TOTAL,
    TRAINING_ITERATION,
)

if TYPE_CHECKING:
    from mltoolkit.tune.execution.placement_groups import PlacementGroupFactory

__all__ = ["Trainable"]

_PROGRESS_FILE = ".tune_progress.json"
_DICT_FILE = ".tune_checkpoint.pkl"


class Trainable:
    """A model whose training goes in steps.

    Subclasses define :meth:`setup` and :meth:`step`, and, to be paused, resumed and retried,
    :meth:`save_checkpoint` and :meth:`load_checkpoint`. In a sweep each trial has an instance in a process of its
    own, whose working directory is the trial's folder (set ``RAY_CHDIR_TO_TRIAL_DIR=0`` to stay where the driver is).
    An instance works without Tune as well.

    Parameters
    ----------
    config : dict, optional
        Hyperparameters; :meth:`setup` gets a copy.

    Attributes
    ----------
    config : dict
    iteration : int
        Steps taken so far, over all restarts.

    Examples
    --------
    >>> class Halving(Trainable):
    ...     def setup(self, config):
    ...         self.value = config["start"]
    ...
    ...     def step(self):
    ...         self.value /= 2
    ...         return {"value": self.value}
    >>> trainable = Halving({"start": 8})
    >>> trainable.train()["value"], trainable.train()["training_iteration"]
    (4.0, 2)
    """

    preloaded_modules: ClassVar[tuple[str, ...]] = ()
    """Modules that trials need and that take long to import: their processes begin with these where that is possible."""

    _context: TuneContext | None = None

    def __init__(self, config: dict[str, Any] | None = None) -> None:
        self.config: dict[str, Any] = config or {}
        self._iteration = 0
        self._time_total = 0.0
        self._timesteps_total: int | None = None
        self._episodes_total: int | None = None
        self._time_since_restore = 0.0
        self._timesteps_since_restore = 0
        self._iterations_since_restore = 0
        self._last_result: dict[str, Any] = {}
        self._hostname = socket.gethostname()
        self._scratch: str | None = None
        self.setup(_copied(self.config))

    # To override

    def setup(self, config: dict[str, Any]) -> None:
        """Build model and data from the hyperparameters."""

    def step(self) -> dict[str, Any]:
        """Train for one iteration and return its metrics.

        ``done=True`` among them ends the trial, ``should_checkpoint=True`` saves it.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `step(self)`, which returns a dict of metrics.")

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any] | None:
        """Write the state into a folder, or return it as a dict."""
        raise NotImplementedError(
            f"{type(self).__name__} must define `save_checkpoint(self, checkpoint_dir)` to be saved, paused or retried."
        )

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Take up the state: the folder that was written, or the dict that was returned."""
        raise NotImplementedError(
            f"{type(self).__name__} must define `load_checkpoint(self, checkpoint)` to go on from a checkpoint."
        )

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Become a trial with another configuration without a new instance; return True if that was done."""
        return False

    def log_result(self, result: dict[str, Any]) -> None:
        """See each result in the trial's process."""

    def cleanup(self) -> None:
        """Release what the trial holds, when it ends."""

    def _export_model(self, export_formats: list[str], export_dir: str) -> dict[str, str]:
        """Write the model into a folder; return the file of each format."""
        raise NotImplementedError(
            f"{type(self).__name__} must define `_export_model(self, export_formats, export_dir)` to be exported. "
            "A sweep keeps what `save_checkpoint` writes: files that others are to read can be written there."
        )

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> PlacementGroupFactory | dict[str, float] | None:
        """The resources that a configuration needs; None for one CPU."""
        return None

    @classmethod
    def resource_help(cls, config: dict[str, Any]) -> str:
        """A hint for users whose request does not fit."""
        return ""

    # To use

    def train(self) -> dict[str, Any]:
        """Take one step.

        Returns
        -------
        dict
            What :meth:`step` returned, with ``training_iteration``, ``time_this_iter_s``, ``time_total_s`` (seconds),
            ``done`` and where and when it was computed.

        Raises
        ------
        TypeError
            If :meth:`step` returned anything but a dict.
        """
        start = time.perf_counter()
        result = self.step()
        if not isinstance(result, dict):
            raise TypeError(
                f"`{type(self).__name__}.step` must return a dict of metrics such as {{'loss': 0.1}}, "
                f"got {type(result).__name__}: {result!r:.100}"
            )
        return self._complete(dict(result), time.perf_counter() - start)

    def train_buffered(self, buffer_time_s: float, max_buffer_length: int = 1000) -> list[dict[str, Any]]:
        """Take steps for some time.

        Parameters
        ----------
        buffer_time_s : float
            Seconds after which no step begins any more; one is taken in any case.
        max_buffer_length : int, default=1000
            Most steps to take.

        Returns
        -------
        list of dict
            What :meth:`train` gave for each. The last is the one that says ``done`` or ``should_checkpoint``, if one
            does.
        """
        until = time.monotonic() + buffer_time_s
        results = [self.train()]
        while len(results) < max_buffer_length and time.monotonic() < until:
            if results[-1].get(DONE) or results[-1].get(SHOULD_CHECKPOINT):
                break
            results.append(self.train())
        return results

    def export_model(self, export_formats: list[str] | str, export_dir: str | None = None) -> dict[str, str]:
        """Write the model as files for others, through the method ``_export_model`` of the class.

        Parameters
        ----------
        export_formats : str or list of str
            Names that the class knows.
        export_dir : str, optional
            Folder to write into; by default :attr:`logdir`.

        Returns
        -------
        dict of str to str
            The file of each format.

        Raises
        ------
        NotImplementedError
            If the class does not define ``_export_model(self, export_formats, export_dir)``.
        """
        formats = [export_formats] if isinstance(export_formats, str) else list(export_formats)
        return self._export_model(formats, export_dir or self.logdir)

    def get_state(self) -> dict[str, Any]:
        """How far it is: ``iteration``, ``timesteps_total``, ``time_total`` (s), ``episodes_total``, ``last_result``."""
        return {
            "iteration": self._iteration,
            "timesteps_total": self._timesteps_total,
            "time_total": self._time_total,
            "episodes_total": self._episodes_total,
            "last_result": self._last_result,
        }

    def save(self, checkpoint_dir: str | None = None) -> Checkpoint:
        """Save the state and the progress.

        Parameters
        ----------
        checkpoint_dir : str, optional
            Folder to write into, created where it is missing; a new temporary one by default.

        Returns
        -------
        Checkpoint
        """
        folder = checkpoint_dir or tempfile.mkdtemp(prefix="checkpoint-")
        os.makedirs(folder, exist_ok=True)
        state = self.save_checkpoint(folder)
        if isinstance(state, dict):
            # Plain pickle first: it needs no mltoolkit to be read back; classes of the program go by value.
            try:
                data = pickle.dumps(state)
            except Exception:
                import cloudpickle

                data = cloudpickle.dumps(state)
            Path(folder, _DICT_FILE).write_bytes(data)
        elif state is not None and not isinstance(state, (str, os.PathLike)):
            raise TypeError(
                f"`{type(self).__name__}.save_checkpoint` must write into the folder it is given or return a dict, "
                f"got {type(state).__name__}."
            )
        Path(folder, _PROGRESS_FILE).write_text(json.dumps(self._progress()))
        return Checkpoint.from_directory(folder)

    def restore(self, checkpoint_path: Checkpoint | str | os.PathLike[str]) -> None:
        """Take up state and progress that :meth:`save` wrote.

        Parameters
        ----------
        checkpoint_path : Checkpoint or path-like
            What :meth:`save` returned, or its folder.

        Raises
        ------
        FileNotFoundError
            If the folder is not there.
        """
        checkpoint = checkpoint_path
        if not isinstance(checkpoint, Checkpoint):
            checkpoint = Checkpoint.from_directory(os.fspath(checkpoint))
        with checkpoint.as_directory() as folder:
            if not os.path.isdir(folder):
                raise FileNotFoundError(f"There is no checkpoint at {folder}.")
            progress = Path(folder, _PROGRESS_FILE)
            if progress.exists():
                self._set_progress(json.loads(progress.read_text()))
            state = Path(folder, _DICT_FILE)
            if state.exists():
                from mltoolkit.train._trust import load_pickle

                self.load_checkpoint(load_pickle(state))
            else:
                self.load_checkpoint(folder)

    def reset(self, new_config: dict[str, Any]) -> bool:
        """Take another configuration through :meth:`reset_config`; False if the class cannot."""
        if not self.reset_config(new_config):
            return False
        self.config = new_config
        self._set_progress({})
        self._last_result = {}
        return True

    def stop(self) -> None:
        """End the trial."""
        self.cleanup()

    @property
    def iteration(self) -> int:
        """Steps taken so far, over all restarts."""
        return self._iteration

    training_iteration = iteration

    @property
    def logdir(self) -> str:
        """Folder of the trial; a temporary one without Tune."""
        if self._context is not None:
            return self._context.trial_dir
        if self._scratch is None:
            self._scratch = tempfile.mkdtemp(prefix="trainable-")
        return self._scratch

    @property
    def trial_id(self) -> str:
        """Id of the trial, ``"default"`` without Tune."""
        return self._context.trial_id if self._context else "default"

    @property
    def trial_name(self) -> str:
        """Name of the trial, ``"default"`` without Tune."""
        return self._context.trial_name if self._context else "default"

    @property
    def trial_resources(self) -> PlacementGroupFactory | None:
        """What the trial was given; None without Tune."""
        return self._context.trial_resources if self._context else None

    def get_config(self) -> dict[str, Any]:
        """The configuration."""
        return self.config

    # Progress

    def _complete(self, result: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Count an iteration and add Tune's own keys to its result."""
        self._iteration += 1
        self._iterations_since_restore += 1
        seconds = result.get(TIME_THIS_ITER_S) or seconds
        self._time_total += seconds
        self._time_since_restore += seconds
        if (timesteps := result.get(TIMESTEPS_THIS_ITER)) is not None:
            self._timesteps_total = (self._timesteps_total or 0) + timesteps
            self._timesteps_since_restore += timesteps
        if (episodes := result.get(EPISODES_THIS_ITER)) is not None:
            self._episodes_total = (self._episodes_total or 0) + episodes
        if self._timesteps_total is not None:
            result.setdefault(TIMESTEPS_TOTAL, self._timesteps_total)
        if self._episodes_total is not None:
            result.setdefault(EPISODES_TOTAL, self._episodes_total)
        result.setdefault(DONE, False)
        result.setdefault(TRAINING_ITERATION, self._iteration)
        now = time.time()
        result["trial_id"] = self.trial_id
        result["date"] = time.strftime("%Y-%m-%d_%H-%M-%S", time.localtime(now))
        result.setdefault("timestamp", int(now))
        result[TIME_THIS_ITER_S] = seconds
        result[TIME_TOTAL_S] = self._time_total
        result["pid"] = os.getpid()
        result["hostname"] = self._hostname
        result["node_ip"] = _node_ip()
        result["time_since_restore"] = self._time_since_restore
        result["iterations_since_restore"] = self._iterations_since_restore
        self.log_result(result)
        self._last_result = result
        return result

    def _progress(self) -> dict[str, Any]:
        return {
            TRAINING_ITERATION: self._iteration,
            TIME_TOTAL_S: self._time_total,
            TIMESTEPS_TOTAL: self._timesteps_total,
            EPISODES_TOTAL: self._episodes_total,
        }

    def _set_progress(self, progress: dict[str, Any]) -> None:
        """Go on counting from where a checkpoint was taken; from zero without one."""
        self._iteration = progress.get(TRAINING_ITERATION) or 0
        self._time_total = progress.get(TIME_TOTAL_S) or 0.0
        self._timesteps_total = progress.get(TIMESTEPS_TOTAL)
        self._episodes_total = progress.get(EPISODES_TOTAL)
        self._time_since_restore = 0.0
        self._timesteps_since_restore = 0
        self._iterations_since_restore = 0


_cached_ip: str | None = None


def _node_ip() -> str:
    """The host's address as Ray reports it, found once and without sending anything."""
    global _cached_ip
    if _cached_ip is None:
        from mltoolkit.util import get_node_ip_address

        _cached_ip = get_node_ip_address()
    return _cached_ip


def _copied(config: dict[str, Any]) -> dict[str, Any]:
    """A copy that `setup` may change; what cannot be copied (locks, clients) is shared."""
    try:
        return copy.deepcopy(config)
    except Exception:
        return dict(config)
