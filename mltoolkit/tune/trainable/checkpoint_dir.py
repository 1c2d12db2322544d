"""Checkpoints as functions made them in the first versions of Ray."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from mltoolkit.train import Checkpoint
from mltoolkit.train._session import current_session
from mltoolkit.tune.trainable.function_trainable import FunctionTrainable

__all__ = ["checkpoint_dir"]


@contextmanager
def checkpoint_dir(step: int) -> Iterator[str]:
    """Give a folder to write a checkpoint into, which goes with the next report or the dict that is returned.

    ``with tune.checkpoint_dir(step) as folder: ...`` is the older form of ``tune.report(metrics, checkpoint=...)``; the
    function finds the folder again as its argument ``checkpoint_dir``.

    Parameters
    ----------
    step : int
        Number of the step; checkpoints are counted by themselves, so it only documents the call.

    Yields
    ------
    str
        Path of an empty folder.

    Raises
    ------
    RuntimeError
        If no function trainable runs in this process.
    """
    session = current_session()
    if not isinstance(session, FunctionTrainable):
        raise RuntimeError(
            "`tune.checkpoint_dir` may be called only in a function that a sweep runs; a class has `save_checkpoint`."
        )
    if not isinstance(step, int):
        raise TypeError(f"`step` must be a whole number, got {step!r}.")
    folder = session.new_folder()
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    session.make_checkpoint(Checkpoint.from_directory(folder))
