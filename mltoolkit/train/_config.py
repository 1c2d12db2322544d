"""How a run is set up: where it is stored, what is kept of it, what a failure does, when it ends."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from mltoolkit.tune.callback import Callback
    from mltoolkit.tune.progress_reporter import ProgressReporter
    from mltoolkit.tune.stopper import Stopper

__all__ = [
    "DEFAULT_STORAGE_PATH",
    "CheckpointConfig",
    "CheckpointUploadMode",
    "FailureConfig",
    "RunConfig",
    "SyncConfig",
]

#: Where experiments go unless `storage_path` says otherwise; the folder that Ray uses, so that its tools find them.
DEFAULT_STORAGE_PATH = "~/ray_results"

_URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+://")

C = TypeVar("C", bound=type)


def checked_keywords(cls: C) -> C:
    """Make a dataclass refuse unknown keywords with the nearest valid name, and show only what was set."""
    plain_init: Callable[..., None] = vars(cls)["__init__"]
    defaults = {field.name: field.default for field in dataclasses.fields(cls)}

    @functools.wraps(plain_init)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        for name in kwargs:
            if name not in defaults:
                near = difflib.get_close_matches(name, defaults, 1)
                hint = f" Did you mean `{near[0]}`?" if near else ""
                raise TypeError(f"{cls.__name__} has no argument `{name}`.{hint} It takes {', '.join(defaults)}.")
        plain_init(self, *args, **kwargs)

    def __repr__(self: Any) -> str:
        given = []
        for name, default in defaults.items():
            value = getattr(self, name)
            is_default_part = isinstance(value, _PARTS) and value == type(value)()
            if value != default and not is_default_part:
                given.append(f"{name}={value!r}")
        return f"{cls.__name__}({', '.join(given)})"

    vars_of: Any = cls
    vars_of.__init__ = __init__
    vars_of.__repr__ = __repr__
    return cls


def _whole(owner: str, name: str, value: object, *, at_least: int, also: str = "") -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        kind = TypeError if isinstance(value, bool) or not isinstance(value, int) else ValueError
        raise kind(f"`{owner}.{name}` must be an integer >= {at_least}{also}, got {value!r}.")


@checked_keywords
@dataclass(repr=False)
class FailureConfig:
    """What happens when a trial or a training run fails.

    Parameters
    ----------
    max_failures : int, default=0
        How many times a failed run is started again, from its last checkpoint where it has one; -1 for no limit.
    fail_fast : bool or 'raise', default=False
        True: the first trial that fails for good ends the experiment, keeping its state. ``'raise'``: its error is
        raised at once as well. Either needs ``max_failures=0``.

    Examples
    --------
    >>> FailureConfig(max_failures=3)
    FailureConfig(max_failures=3)
    """

    max_failures: int = 0
    fail_fast: bool | str = False

    def __post_init__(self) -> None:
        _whole("FailureConfig", "max_failures", self.max_failures, at_least=-1, also=" (-1 for no limit)")
        if isinstance(self.fail_fast, str) and self.fail_fast.lower() == "raise":
            self.fail_fast = "raise"  # Ray takes it in any case
        elif not isinstance(self.fail_fast, bool):
            raise ValueError(f"`FailureConfig.fail_fast` must be True, False or 'raise', got {self.fail_fast!r}.")
        if self.fail_fast and self.max_failures != 0:
            raise ValueError(
                f"`max_failures` must be 0 with `fail_fast={self.fail_fast!r}`, got {self.max_failures}: "
                "a trial is either started again or ends the experiment. Set one of the two."
            )


@checked_keywords
@dataclass(repr=False)
class CheckpointConfig:
    """Which checkpoints are made and which of them are kept.

    Parameters
    ----------
    num_to_keep : int >= 1, optional
        Checkpoints kept of each trial; None keeps all. The latest one is always kept, so that a failed trial can go on.
    checkpoint_score_attribute : str, optional
        The metric by which checkpoints are ranked, ``"a/b"`` for a nested one; None keeps the most recent ones.
    checkpoint_score_order : {'max', 'min'}, default='max'
        Whether high or low values of that metric are kept.
    checkpoint_frequency : int >= 0, default=0
        Iterations between two checkpoints of a class `Trainable`; 0 for none. A function reports its own.
    checkpoint_at_end : bool, optional
        Whether a class `Trainable` is saved when it ends; None leaves that to the trainable.

    Examples
    --------
    >>> CheckpointConfig(num_to_keep=2, checkpoint_score_attribute="loss", checkpoint_score_order="min")
    CheckpointConfig(num_to_keep=2, checkpoint_score_attribute='loss', checkpoint_score_order='min')
    """

    num_to_keep: int | None = None
    checkpoint_score_attribute: str | None = None
    checkpoint_score_order: str = "max"
    checkpoint_frequency: int = 0
    checkpoint_at_end: bool | None = None

    def __post_init__(self) -> None:
        if self.num_to_keep is not None:
            _whole("CheckpointConfig", "num_to_keep", self.num_to_keep, at_least=1, also=" or None to keep all")
        if self.checkpoint_score_attribute is not None and not isinstance(self.checkpoint_score_attribute, str):
            raise TypeError(
                "`CheckpointConfig.checkpoint_score_attribute` must be the name of a metric, "
                f"got {self.checkpoint_score_attribute!r}."
            )
        if self.checkpoint_score_order not in ("max", "min"):
            raise ValueError(
                "`CheckpointConfig.checkpoint_score_order` must be 'max' or 'min', "
                f"got {self.checkpoint_score_order!r}."
            )
        self.checkpoint_frequency = self.checkpoint_frequency or 0  # Ray takes None for it
        _whole("CheckpointConfig", "checkpoint_frequency", self.checkpoint_frequency, at_least=0)
        if self.checkpoint_at_end not in (None, True, False):
            raise TypeError(
                f"`CheckpointConfig.checkpoint_at_end` must be True, False or None, got {self.checkpoint_at_end!r}."
            )


class CheckpointUploadMode(Enum):
    """Ray's ways to store a checkpoint; `train.report` has ``SYNC``, and raises for the others."""

    ASYNC = "ASYNC"
    SYNC = "SYNC"
    NO_UPLOAD = "NO_UPLOAD"


@checked_keywords
@dataclass(repr=False)
class SyncConfig:
    """Ray's settings for copying to cloud storage; here for programs that pass them at their defaults.

    Results and checkpoints stream to the driver's folder over the cluster's own connections: there is nothing to
    synchronise, and no period or timeout to set.

    Raises
    ------
    NotImplementedError
        If a setting differs from its default; the text says what to do instead.
    """

    sync_period: float = 300
    sync_timeout: float = 1800
    sync_artifacts: bool = False
    sync_artifacts_on_checkpoint: bool = True
    upload_dir: str | None = None
    syncer: Any = "auto"
    sync_on_checkpoint: bool = True

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            # syncer=None switched synchronisation off in Ray 2.0-2.6, which is how it is here.
            if value == field.default or (field.name == "syncer" and value is None):
                continue
            alternative = {
                "upload_dir": "Give a local or mounted folder as `RunConfig.storage_path` and copy it when it is done",
                "sync_artifacts": "Put files that are to be kept into a checkpoint, or write them to a shared folder",
            }.get(field.name, "Leave it out: results and checkpoints reach the driver's folder as they are reported")
            raise NotImplementedError(
                f"`SyncConfig.{field.name}={value!r}` has no meaning here: nothing is copied to cloud storage. "
                f"{alternative}."
            )


# What a RunConfig is made of.
_PARTS = (FailureConfig, CheckpointConfig, SyncConfig)


@checked_keywords
@dataclass(repr=False)
class RunConfig:
    """Name, storage, stopping and output of a run.

    Parameters
    ----------
    name : str, optional
        Name of the experiment and of its folder; made from the trainable's name and the time if not given.
    storage_path : str or path, default='~/ray_results'
        Folder that holds the folders of experiments; None stands for the default, as in Ray. The environment variable
        ``MLTOOLKIT_RESULTS_DIR`` (or Ray's ``TUNE_RESULT_DIR``) sets another default.
    storage_filesystem : None
        For Ray's signature; any other value raises.
    failure_config : FailureConfig, optional
    checkpoint_config : CheckpointConfig, optional
    sync_config : SyncConfig, optional
    verbose : {0, 1, 2, 3}, optional
        How much is shown: nothing, the status, brief results, full results. None for the usual live table.
    stop : dict, callable, Stopper or list of Stopper, optional
        When trials end: bounds such as ``{"training_iteration": 10}`` (a trial ends as soon as it reaches one of
        them), a function of ``(trial_id, result)``, or stoppers.
    callbacks : list of Callback, optional
    progress_reporter : ProgressReporter, optional
        Shows the progress; chosen to suit the terminal or notebook if not given.
    log_to_file : bool, str or pair of str, default=False
        Whether the output of trials goes to files in their folders: True for ``stdout`` and ``stderr``, one name for
        both in one file, or two names.
    local_dir : str or path, optional
        Older name of `storage_path`.
    worker_runtime_env : dict, optional
        Runtime environment of the workers of a trainer, such as ``{"env_vars": {"NCCL_DEBUG": "INFO"}}``.

    Raises
    ------
    NotImplementedError
        For a URL as `storage_path`, or a `storage_filesystem`: give a local or mounted folder.

    Examples
    --------
    >>> RunConfig(name="wine", stop={"training_iteration": 10}, failure_config=FailureConfig(max_failures=1))
    RunConfig(name='wine', failure_config=FailureConfig(max_failures=1), stop={'training_iteration': 10})
    """

    name: str | None = None
    storage_path: str | os.PathLike[str] | None = DEFAULT_STORAGE_PATH
    storage_filesystem: None = None
    failure_config: FailureConfig | None = None
    checkpoint_config: CheckpointConfig | None = None
    sync_config: SyncConfig | None = None
    verbose: int | None = None
    stop: Mapping[str, Any] | Callable[[str, dict[str, Any]], bool] | Stopper | Sequence[Stopper] | None = None
    callbacks: Sequence[Callback] | None = None
    progress_reporter: ProgressReporter | None = None
    log_to_file: bool | str | tuple[str, str] = False
    local_dir: str | os.PathLike[str] | None = None
    worker_runtime_env: Any = None

    def __post_init__(self) -> None:
        if self.name is not None:
            self._check_name()
        self._check_storage()
        self.failure_config = self._part("failure_config", FailureConfig)
        self.checkpoint_config = self._part("checkpoint_config", CheckpointConfig)
        self.sync_config = self._part("sync_config", SyncConfig)
        if self.worker_runtime_env is not None and not isinstance(self.worker_runtime_env, Mapping):
            raise TypeError(f"`RunConfig.worker_runtime_env` must be a dict, got {self.worker_runtime_env!r}.")
        if self.verbose is not None and (not isinstance(self.verbose, int) or not 0 <= self.verbose <= 3):
            raise ValueError(f"`RunConfig.verbose` must be 0, 1, 2, 3 or None, got {self.verbose!r}.")
        if not (self.stop is None or isinstance(self.stop, (Mapping, list, tuple)) or callable(self.stop)):
            raise TypeError(
                "`RunConfig.stop` must be a dict of bounds, a function of (trial_id, result), a Stopper or a list of "
                f"Stoppers, got {self.stop!r}."
            )
        self._check_callbacks()
        self.log_to_file = _log_files(self.log_to_file)

    def _check_name(self) -> None:
        if not isinstance(self.name, str) or self.name in ("", ".", "..") or "/" in self.name or "\0" in self.name:
            raise ValueError(
                "`RunConfig.name` must be the name of a folder, without slashes, "
                f"got {self.name!r}. Put the folder that holds it into `storage_path`."
            )

    def _check_storage(self) -> None:
        if self.local_dir is not None:
            given = {os.fspath(path) for path in (self.storage_path, self.local_dir) if path is not None}
            if len(given - {DEFAULT_STORAGE_PATH}) > 1:
                raise ValueError(
                    f"`RunConfig` got storage_path={self.storage_path!r} and local_dir={self.local_dir!r}, which are "
                    "two names for one thing. Give `storage_path` alone."
                )
            self.storage_path, self.local_dir = self.local_dir, None
        if self.storage_filesystem is not None:
            raise NotImplementedError(
                f"`RunConfig.storage_filesystem={self.storage_filesystem!r}` is not supported: state is appended to "
                "files, which object stores cannot. Give a local or mounted folder as `storage_path`."
            )
        if self.storage_path is None:
            return
        path = os.fspath(self.storage_path)
        if not isinstance(path, str) or not path:
            raise TypeError(f"`RunConfig.storage_path` must be a folder or None, got {self.storage_path!r}.")
        if path.startswith("file://"):
            path = path.removeprefix("file://")
        elif _URL.match(path):
            raise NotImplementedError(
                f"`RunConfig.storage_path={path!r}` is a URL: state is appended to files, which object stores cannot. "
                "Give a local or mounted folder, and copy it when the run is done."
            )
        if path != DEFAULT_STORAGE_PATH:
            self.storage_path = path

    def _part(self, name: str, cls: type[Any]) -> Any:
        value = getattr(self, name)
        if value is None:
            return cls()
        if not isinstance(value, cls):
            raise TypeError(f"`RunConfig.{name}` must be a {cls.__name__}, got {value!r}.")
        return value

    def _check_callbacks(self) -> None:
        if self.callbacks is None:
            return
        if isinstance(self.callbacks, (str, Mapping)) or not isinstance(self.callbacks, Sequence):
            raise TypeError(f"`RunConfig.callbacks` must be a list of callbacks, got {self.callbacks!r}.")
        for callback in self.callbacks:
            if isinstance(callback, type):
                raise TypeError(
                    f"`RunConfig.callbacks` must hold callbacks, got the class {callback.__name__}: "
                    f"make one with `{callback.__name__}()`."
                )


def _log_files(value: Any) -> bool | str | tuple[str, str]:
    """Check `log_to_file`."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value:
        return value
    if isinstance(value, (list, tuple)) and len(value) == 2 and all(isinstance(name, str) and name for name in value):
        return (value[0], value[1])
    raise ValueError(
        f"`RunConfig.log_to_file` must be True, False, a file name or a pair of file names, got {value!r}."
    )
