"""Results in Weights & Biases."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

from mltoolkit import _optional
from mltoolkit.tune.logger._values import flatten, jsonable
from mltoolkit.tune.logger.logger import LoggerCallback

if TYPE_CHECKING:
    from mltoolkit.tune.experiment.trial import Trial

__all__ = ["WandbLoggerCallback", "read_api_key"]

_UPLOADS = 4  # runs that finish at the same time
_NOT_LOGGED = frozenset({"done", "should_checkpoint"})

logger = logging.getLogger(__name__)


class WandbLoggerCallback(LoggerCallback):
    """Log each trial as a run of a Weights & Biases project.

    Runs are written by the driver; they are uploaded in the background, which the end of the sweep waits for. In
    a trainable, use :func:`mltoolkit.air.integrations.wandb.setup_wandb`.

    Parameters
    ----------
    project : str, default=None
        By default that of ``WANDB_PROJECT_NAME``.
    group : str, default=None
        By default that of ``WANDB_GROUP_NAME``, or the name of the experiment's folder.
    api_key_file : str, default=None
        File with the API key on its first line. By default the key is that of ``WANDB_API_KEY`` or ``wandb login``.
    api_key : str, default=None
        The API key itself.
    excludes : list of str, default=None
        Metrics and parameters not to log, with all that is nested below them.
    log_config : bool, default=False
        Whether to log the configuration with each result: for schedulers that change it.
    upload_checkpoints : bool, default=False
        Whether to upload checkpoints as artifacts.
    save_checkpoints : bool, default=False
        The older name of ``upload_checkpoints``.
    upload_timeout : float, default=1800
        Seconds to wait for uploads at the end of the sweep.
    video_kwargs, image_kwargs : dict, default=None
        Given to ``wandb.Video`` for arrays of five dimensions, to ``wandb.Image`` for those of three or four.
    **kwargs
        Given to ``wandb.init``.

    Raises
    ------
    ImportError
        If wandb is not installed.
    """

    AUTO_CONFIG_KEYS = ("trial_id", "experiment_tag", "node_ip", "experiment_id", "hostname", "pid", "date")

    def __init__(
        self,
        project: str | None = None,
        group: str | None = None,
        api_key_file: str | None = None,
        api_key: str | None = None,
        excludes: list[str] | None = None,
        log_config: bool = False,
        upload_checkpoints: bool = False,
        save_checkpoints: bool = False,
        upload_timeout: float = 1800,
        video_kwargs: dict[str, Any] | None = None,
        image_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        _optional.require("wandb", purpose="WandbLoggerCallback", extra="wandb")
        self.project = project
        self.group = group
        self.api_key_path = api_key_file
        self.api_key = api_key
        self.excludes = list(excludes or ())
        self.log_config = log_config
        self.upload_checkpoints = upload_checkpoints or save_checkpoints
        self.video_kwargs = dict(video_kwargs or {})
        self.image_kwargs = dict(image_kwargs or {})
        self.kwargs = kwargs
        self._upload_timeout = upload_timeout
        self._excluded = (*_NOT_LOGGED, *self.excludes, *(() if log_config else ("config",)))
        self._runs: dict[str, Any] = {}
        self._uploads: dict[Future[None], str] = {}
        self._pool: ThreadPoolExecutor | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_runs": {}, "_uploads": {}, "_pool": None}

    def setup(self, *args: Any, **info: Any) -> None:
        """Log in.

        Raises
        ------
        ValueError
            If no project is named, or both a key and a file of it are given.
        """
        self.project = self.project or os.environ.get("WANDB_PROJECT_NAME")
        self.group = self.group or os.environ.get("WANDB_GROUP_NAME")
        if not self.project:
            raise ValueError("WandbLoggerCallback needs a project: give `project` or set WANDB_PROJECT_NAME.")
        key = read_api_key(self.api_key, self.api_key_path)
        if key:
            os.environ["WANDB_API_KEY"] = key

    def log_trial_start(self, trial: Trial) -> None:
        """Begin a run, or go on with the one that the trial has."""
        if trial.trial_id in self._runs:
            return
        wandb: Any = _optional.require("wandb", purpose="WandbLoggerCallback", extra="wandb")
        config = {name: value for name, value in jsonable(trial.config).items() if name not in self.excludes}
        os.makedirs(trial.path, exist_ok=True)
        options: dict[str, Any] = {
            "id": trial.trial_id,
            "name": str(trial),
            "dir": trial.path,
            "resume": "allow",
            "reinit": "create_new",  # trials run side by side, each with its own run
            "allow_val_change": True,
            "group": self.group or os.path.basename(trial.experiment_path),
            "project": self.project,
            "config": config,
            "settings": wandb.Settings(silent=True),  # several lines for each trial otherwise
            **self.kwargs,
        }
        run = wandb.init(**options)
        run.config.update({"trial_log_path": trial.path}, allow_val_change=True)
        self._runs[trial.trial_id] = run

    def log_trial_result(self, iteration: int, trial: Trial, result: dict[str, Any]) -> None:
        """Log numbers and media of a result; what says where it came from goes to the run's configuration."""
        if trial.trial_id not in self._runs:
            self.log_trial_start(trial)
        run = self._runs[trial.trial_id]
        logged: dict[str, Any] = {}
        described: dict[str, Any] = {}
        for name, value in flatten(result).items():
            if _below(name, self._excluded):
                continue
            if _below(name, self.AUTO_CONFIG_KEYS):
                described[name] = value
            elif isinstance(value, (int, float)):
                logged[name] = value
            else:
                logged.update(self._media(name, value))
        run.config.update(described, allow_val_change=True)
        run.log(logged, step=result.get("training_iteration"))

    def log_trial_save(self, trial: Trial) -> None:
        """Upload the checkpoint, if asked to."""
        if not self.upload_checkpoints or trial.checkpoint is None or trial.trial_id not in self._runs:
            return
        wandb: Any = _optional.require("wandb", purpose="WandbLoggerCallback", extra="wandb")
        artifact = wandb.Artifact(name=f"checkpoint_{trial}", type="model")
        artifact.add_dir(trial.checkpoint.path)
        self._runs[trial.trial_id].log_artifact(artifact)

    def log_trial_end(self, trial: Trial, failed: bool = False) -> None:
        """Finish the run in the background."""
        run = self._runs.pop(trial.trial_id, None)
        if run is None:
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_UPLOADS, thread_name_prefix="mltoolkit-wandb")
        upload = self._pool.submit(run.finish, exit_code=1 if failed else 0)
        self._uploads[upload] = str(trial)

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        """Finish all runs, and wait for their upload."""
        by_id = {trial.trial_id: trial for trial in trials}
        for trial_id in list(self._runs):
            self.log_trial_end(by_id[trial_id], failed=True)
        finished, late = wait(self._uploads, timeout=self._upload_timeout)
        for upload in finished:
            if (error := upload.exception()) is not None:
                logger.warning("The Weights & Biases run of %s was not uploaded: %s", self._uploads[upload], error)
        if late:
            names = ", ".join(self._uploads[upload] for upload in late)
            logger.warning("Weights & Biases runs not uploaded after %s s: %s", self._upload_timeout, names)
        self._uploads.clear()
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None

    def _media(self, name: str, value: Any) -> dict[str, Any]:
        wandb: Any = _optional.require("wandb", purpose="WandbLoggerCallback", extra="wandb")
        dimensions = getattr(value, "ndim", None)
        if dimensions == 0 or (dimensions is not None and getattr(value, "size", 0) == 1):
            return {name: value.item()}
        if dimensions == 3:
            return {name: wandb.Image(value, **self.image_kwargs)}
        if dimensions == 4:
            return {name: [wandb.Image(image, **self.image_kwargs) for image in value]}
        if dimensions == 5:
            return {name: [wandb.Video(video, **self.video_kwargs) for video in value]}
        first = value[0] if isinstance(value, (list, tuple)) and value else value
        return {name: value} if type(first).__module__.partition(".")[0] == "wandb" else {}


def _below(name: str, heads: Sequence[str]) -> bool:
    return any(name == head or name.startswith(f"{head}/") for head in heads)


def read_api_key(api_key: str | None, api_key_file: str | None) -> str | None:
    """The API key that was given, as itself or in a file.

    Raises
    ------
    ValueError
        If it was given twice.
    """
    if api_key and api_key_file:
        raise ValueError("`api_key` and `api_key_file` were both given: give one of them.")
    if api_key_file:
        with open(os.path.expanduser(api_key_file), encoding="utf-8") as file:
            return file.readline().strip()
    return api_key
