"""Helpers that programs for Tune use around their trainables."""

from __future__ import annotations

import logging
import subprocess
import tempfile
import time
from typing import TYPE_CHECKING, Any

import mltoolkit
from mltoolkit.tune.error import TuneError
from mltoolkit.tune.result import TRAINING_ITERATION
from mltoolkit.tune.utils._dicts import (
    deep_update,
    flatten_dict,
    merge_dicts,
    unflatten_dict,
    unflatten_list_dict,
    unflattened_lookup,
)

if TYPE_CHECKING:
    from mltoolkit.tune.trainable.trainable import Trainable

__all__ = [
    "date_str",
    "deep_update",
    "diagnose_serialization",
    "flatten_dict",
    "merge_dicts",
    "unflatten_dict",
    "unflatten_list_dict",
    "unflattened_lookup",
    "validate_save_restore",
    "wait_for_gpu",
]

logger = logging.getLogger(__name__)

_STEPS = 3


def date_str() -> str:
    """The time now, as names of experiments have it: ``"2026-01-31_23-59-59"``."""
    return time.strftime("%Y-%m-%d_%H-%M-%S")


def diagnose_serialization(trainable: Any) -> bool | set[str]:
    """Find out what keeps a trainable from being sent to other processes; print it as a tree.

    Parameters
    ----------
    trainable : function or class

    Returns
    -------
    bool or set of str
        True if it can be sent; else the names of what cannot.

    Examples
    --------
    >>> import threading
    >>> lock = threading.Lock()
    >>> def train(config):
    ...     with lock:
    ...         return {"loss": 1}
    >>> diagnose_serialization(train)  # doctest: +ELLIPSIS
    train: FAILS (TypeError: cannot pickle '_thread.lock' object)
    ...
    {'lock'}
    """
    from mltoolkit.util import inspect_serializability

    serializable, failures = inspect_serializability(trainable)
    return serializable or {failure.name for failure in failures}


def validate_save_restore(
    trainable_cls: type[Trainable], config: dict[str, Any] | None = None, num_gpus: float = 0
) -> bool:
    """Check that a trainable goes on from its checkpoint: in another process, which counts on.

    Parameters
    ----------
    trainable_cls : subclass of Trainable
    config : dict, optional
        Hyperparameters for the test.
    num_gpus : float, default=0
        GPUs for each of the two processes.

    Returns
    -------
    bool
        True.

    Raises
    ------
    TypeError
        If it is no class of trainables: functions go on from ``tune.get_checkpoint()`` by themselves.
    TuneError
        If it does not go on with the iteration after the saved one.
    Exception
        What its own methods raise.
    """
    from mltoolkit.tune.trainable.trainable import Trainable

    if not (isinstance(trainable_cls, type) and issubclass(trainable_cls, Trainable)):
        raise TypeError(f"`validate_save_restore` takes a subclass of `tune.Trainable`, got {trainable_cls!r}.")
    actor_class: Any = mltoolkit.remote(num_gpus=num_gpus)(trainable_cls)
    first, second = actor_class.remote(config), actor_class.remote(config)
    try:
        with tempfile.TemporaryDirectory(prefix="checkpoint-") as folder:
            for _ in range(_STEPS):
                result = mltoolkit.get(first.train.remote())
            if TRAINING_ITERATION not in result:
                raise TuneError(f"{trainable_cls.__name__}.train() gives no {TRAINING_ITERATION!r} in its result.")
            saved_at = result[TRAINING_ITERATION]
            mltoolkit.get(second.restore.remote(mltoolkit.get(first.save.remote(folder))))
            for step in (1, 2):
                reached = mltoolkit.get(second.train.remote())[TRAINING_ITERATION]
                if reached != saved_at + step:
                    raise TuneError(
                        f"{trainable_cls.__name__} was saved at iteration {saved_at} and is at {reached} {step} "
                        f"step(s) after it was restored, instead of {saved_at + step}."
                    )
    finally:
        mltoolkit.kill(first)
        mltoolkit.kill(second)
    return True


def wait_for_gpu(
    gpu_id: int | str | None = None,
    target_util: float = 0.01,
    retry: int = 20,
    delay_s: float = 5,
    gpu_memory_limit: float | None = None,
) -> bool:
    """Wait until a GPU's memory is free, such as that of a trial that ended just now.

    To be called at the beginning of a trainable. ``nvidia-smi``, which comes with the driver, is asked.

    Parameters
    ----------
    gpu_id : int or str, optional
        Number or UUID of the GPU; by default the first that the trial holds.
    target_util : float, default=0.01
        Share of its memory that may be in use.
    retry : int, default=20
        How often to look.
    delay_s : float, default=5
        Seconds between two looks.
    gpu_memory_limit : float, optional
        Refused: give `target_util`.

    Returns
    -------
    bool
        True.

    Raises
    ------
    RuntimeError
        If there is no GPU to wait for, ``nvidia-smi`` cannot be asked, or the memory is not freed in time.
    ValueError
        If there is no such GPU, or `gpu_memory_limit` is given.
    TypeError
        If `gpu_id` is neither a number nor a UUID.
    """
    if gpu_memory_limit is not None:
        raise ValueError("`gpu_memory_limit` of `wait_for_gpu` is not supported: give `target_util`, a share of 1.")
    if gpu_id is None:
        held = mltoolkit.get_gpu_ids()
        if not held:
            raise RuntimeError(
                "`wait_for_gpu` was called by what holds no GPU. Give the trial one with "
                "`tune.with_resources(trainable, {'gpu': 1})`, or name it with `gpu_id`."
            )
        gpu_id = held[0]
    if isinstance(gpu_id, bool) or not isinstance(gpu_id, (int, str)):
        raise TypeError(f"`gpu_id` must be the number or the UUID of a GPU, got {gpu_id!r}.")
    name = str(gpu_id)
    for attempt in range(int(retry)):
        if attempt:
            time.sleep(delay_s)
        used = _memory_in_use()
        if name not in used:
            raise ValueError(f"There is no GPU {name!r} on this host; there are {', '.join(used) or 'none'}.")
        if used[name] <= target_util:
            return True
        logger.info("%.1f %% of the memory of GPU %s are in use: waiting for %g.", 100 * used[name], name, target_util)
    raise RuntimeError(
        f"More than {target_util:g} of the memory of GPU {name} were still in use at the last of {retry} looks, "
        f"{delay_s:g} s apart."
    )


def _memory_in_use() -> dict[str, float]:
    """The share of its memory that each GPU has in use, under its number and under its UUID."""
    command = ["nvidia-smi", "--query-gpu=index,uuid,memory.used,memory.total", "--format=csv,noheader,nounits"]
    try:
        lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
        shares = {}
        for index, uuid, used, total in (line.split(", ") for line in lines if line.strip()):
            shares[index.strip()] = shares[uuid.strip()] = float(used) / float(total)
    except (OSError, subprocess.CalledProcessError, ValueError) as error:
        raise RuntimeError(f"`wait_for_gpu` cannot learn from `nvidia-smi` what memory is in use: {error}.") from error
    return shares
