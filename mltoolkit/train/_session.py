"""What runs in this process right now: the seam between user code that reports and the library that listens.

The session belongs to the process, not to a thread: callbacks of training libraries report from threads of their own.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from mltoolkit.train._checkpoint import Checkpoint

__all__ = [
    "Session",
    "current_session",
    "get_checkpoint",
    "get_context",
    "get_dataset_shard",
    "plain_metrics",
    "report",
    "set_session",
]

#: The key of a metric that was reported, or returned, as a bare number.
DEFAULT_METRIC = "_metric"

_SCALARS = frozenset({float, int, str, bool, type(None)})


class Session(Protocol):
    """Who listens to reports.

    Attributes
    ----------
    context : object
        What :func:`get_context` gives: names, folder and resources of the trial.
    """

    @property
    def context(self) -> Any: ...

    def report(self, metrics: dict[str, Any], checkpoint: Checkpoint | None) -> None:
        """Take metrics, as plain Python values, and a checkpoint; return once both are safe."""

    def get_checkpoint(self) -> Checkpoint | None:
        """The checkpoint to go on from."""


_session: Session | None = None


def set_session(session: Session | None) -> None:
    """Make a session the one of this process; None ends it."""
    global _session
    _session = session


def current_session() -> Session | None:
    """The session of this process, if there is one."""
    return _session


def _need(function: str) -> Session:
    if _session is None:
        raise RuntimeError(
            f"`{function}` may be called only while a trial or a training function runs: in the function or class that "
            "is given to `tune.Tuner`, `tune.run` or a Trainer, not in the program that starts them."
        )
    return _session


def report(
    metrics: Mapping[str, Any] | float | None = None,
    checkpoint: Checkpoint | None = None,
    checkpoint_dir_name: str | None = None,
    checkpoint_upload_mode: Any = None,
    delete_local_checkpoint_after_upload: bool | None = None,
    checkpoint_upload_fn: Callable[..., Any] | None = None,
    validation: Any = False,
    **kwargs: Any,
) -> None:
    """Report metrics of the running trial, and a checkpoint if there is one.

    Each call is one ``training_iteration``. It returns once the result is stored.

    Parameters
    ----------
    metrics : dict
        Values under names. Scalars of numpy, torch and the like become plain numbers; dicts may be nested. A bare
        number stands for ``{"_metric": number}``.
    checkpoint : Checkpoint, optional
        Copied to the folder of the trial.
    checkpoint_dir_name : None
        For Ray's signature, like the next two; any other value raises. Checkpoints are numbered in the order in which they
        are reported.
    checkpoint_upload_mode : CheckpointUploadMode, optional
        ``SYNC``, which is how it is: the checkpoint is stored when this returns.
    checkpoint_upload_fn : None
    delete_local_checkpoint_after_upload : bool, default=False
        Whether the folder of `checkpoint` is removed when it has been copied.
    validation : False
        For Ray's signature; any other value raises.
    **kwargs
        Metrics in the older form: ``report(loss=0.1, epoch=3)``.

    Raises
    ------
    RuntimeError
        If no trial is running in this process.
    TypeError
        If `metrics` is no dict, a name no text, or a value cannot be stored (its name is given).
    ValueError
        If there is nothing to report.
    NotImplementedError
        For a name of the checkpoint, an asynchronous or own upload, or validation; the text says what to do instead.
    """
    session = _session or _need("report()")
    if checkpoint is not None and not isinstance(checkpoint, Checkpoint):
        raise TypeError(
            f"`checkpoint` must be a Checkpoint, got {checkpoint!r}. Write files to a folder and give "
            "`Checkpoint.from_directory(folder)`."
        )
    if checkpoint_dir_name is not None or checkpoint_upload_mode or checkpoint_upload_fn is not None or validation:
        _refuse_options(
            checkpoint_dir_name=checkpoint_dir_name,
            checkpoint_upload_mode=checkpoint_upload_mode,
            checkpoint_upload_fn=checkpoint_upload_fn,
            validation=validation,
        )
    if kwargs:
        metrics = kwargs if metrics is None else {**_as_dict(metrics), **kwargs}
    if metrics is None and checkpoint is not None:
        metrics = {}
    plain = plain_metrics(metrics)
    if not plain and checkpoint is None:
        raise ValueError(
            "report() was given no metrics: give at least one, such as `report({'loss': loss})`, or a checkpoint."
        )
    session.report(plain, checkpoint)
    if delete_local_checkpoint_after_upload and checkpoint is not None and checkpoint._filesystem is None:
        shutil.rmtree(checkpoint.path, ignore_errors=True)


def _refuse_options(**options: Any) -> None:
    """Raise for what Ray's report can do beside, and this one does not."""
    instead = {
        "checkpoint_dir_name": "checkpoints are numbered. Keep a name in it by `checkpoint.set_metadata({'name': ...})`",
        "checkpoint_upload_mode": "a checkpoint is stored when `report` returns. Leave it out, or give SYNC",
        "checkpoint_upload_fn": "copy the checkpoint yourself as well. `report` keeps it in the folder of the run",
        "validation": "validate in the training function, or when `fit` has returned",
    }
    for name, value in options.items():
        is_sync = name == "checkpoint_upload_mode" and getattr(value, "name", value) == "SYNC"
        if value not in (None, False) and not is_sync:
            raise NotImplementedError(f"`report({name}={value!r})` is not supported: {instead[name]}.")


def get_checkpoint() -> Checkpoint | None:
    """The checkpoint that the running trial is to go on from, or None if it starts afresh.

    Returns
    -------
    Checkpoint or None

    Raises
    ------
    RuntimeError
        If no trial is running in this process.
    """
    return _need("get_checkpoint()").get_checkpoint()


def get_context() -> Any:
    """Name, folder and resources of the running trial.

    Returns
    -------
    TuneContext

    Raises
    ------
    RuntimeError
        If no trial is running in this process.
    """
    return _need("get_context()").context


def get_dataset_shard(dataset_name: str | None = None) -> Any:
    """The part of this worker of a dataset that the trainer was given.

    Parameters
    ----------
    dataset_name : str, optional
        Its name in the trainer's `datasets`; ``"train"`` if not given.

    Returns
    -------
    object
        Of the dataset's own kind; arrays are read-only views of shared memory. None if the trainer has no datasets.

    Raises
    ------
    KeyError
        If there is none of that name; those there are get named.
    RuntimeError
        If no training function of a trainer runs in this process.
    """
    session = _need("get_dataset_shard()")
    give = getattr(session, "get_dataset_shard", None)
    if give is None:
        raise RuntimeError(
            "`get_dataset_shard()` may be called only in the training function of a trainer, which splits its `datasets`. "
            "A trial's own data come with `tune.with_parameters`."
        )
    return give(dataset_name)


def plain_metrics(metrics: Any) -> dict[str, Any]:
    """Metrics as plain Python values, in a new dict.

    Parameters
    ----------
    metrics : dict or number

    Returns
    -------
    dict

    Examples
    --------
    >>> import numpy as np
    >>> plain_metrics({"loss": np.float32(0.5), "count": {"rows": np.array(3)}})
    {'loss': 0.5, 'count': {'rows': 3}}
    >>> plain_metrics(0.25)
    {'_metric': 0.25}
    """
    if type(metrics) is not dict:
        metrics = _as_dict(metrics)
    try:
        return _plain_dict(metrics, "")
    except RecursionError:
        raise ValueError("The reported metrics contain themselves; report plain values.") from None


def _as_dict(metrics: Any) -> dict[str, Any]:
    if isinstance(metrics, Mapping):
        return dict(metrics)
    if isinstance(metrics, (float, int)) or _is_single(metrics):
        return {DEFAULT_METRIC: metrics}
    if metrics is None:
        raise ValueError("report() was given no metrics: give at least one, such as `report({'loss': loss})`.")
    raise TypeError(
        f"Metrics must be a dict of names and values, got {metrics!r} of type {type(metrics).__name__}. "
        "Write `report({'loss': loss})` or `report(loss=loss)`."
    )


def _plain_dict(metrics: dict[Any, Any], prefix: str) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for key, value in metrics.items():
        name = key if type(key) is str else _plain_key(key, prefix)
        plain[name] = value if type(value) in _SCALARS else _plain(value, prefix + name)
    return plain


def _plain_key(key: Any, prefix: str) -> str:
    if isinstance(key, str):
        return str.__str__(key)  # numpy's texts, and enumerations of texts
    if isinstance(key, (int, float)) or _is_single(key):
        return str(key)
    where = f" in {prefix.rstrip('/')!r}" if prefix else ""
    raise TypeError(f"Names of metrics must be texts, got {key!r} of type {type(key).__name__}{where}.")


def _plain(value: Any, name: str) -> Any:
    """A value that is not of a plain type, as plain as it can be made."""
    kind = type(value)
    if kind in _SCALARS:
        return value
    if kind is dict or isinstance(value, Mapping):
        return _plain_dict(value, name + "/")
    if isinstance(value, (list, tuple)):
        items = [item if type(item) in _SCALARS else _plain(item, name) for item in value]
        return tuple(items) if isinstance(value, tuple) else items
    if _is_single(value):
        item = value.item()
        # numpy's extended precision has no counterpart and gives itself.
        return _plain(item, name) if type(item) is not kind else float(item)
    for base in (bool, int, float, str):
        if isinstance(value, base):  # enumerations and the like
            return base.__str__(value) if base is str else base(value)
    if not _is_array(value):
        _check_picklable(value, name)
    return value


def _is_single(value: Any) -> bool:
    """Whether it is a scalar or an array of one element: of numpy, torch, jax and others that follow their manners."""
    shape = getattr(value, "shape", None)
    if not isinstance(shape, tuple) or not hasattr(value, "item"):
        return False
    return all(length == 1 for length in shape)


def _is_array(value: Any) -> bool:
    dtype = getattr(value, "dtype", None)
    return dtype is not None and not getattr(dtype, "hasobject", True)


def _check_picklable(value: Any, name: str) -> None:
    import cloudpickle

    try:
        cloudpickle.dumps(value)
    except Exception as error:
        raise TypeError(
            f"The metric {name!r} cannot be stored: a {type(value).__name__} cannot be pickled ({error}). "
            "Report numbers, texts, and lists or dicts of them."
        ) from error
