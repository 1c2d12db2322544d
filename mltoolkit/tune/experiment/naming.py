"""Names of trials' folders."""

from __future__ import annotations

import re
import time
from typing import Any

from mltoolkit.tune.experiment.trial import Trial
from mltoolkit.tune.search.variant_generator import format_vars

__all__ = ["dirname_of", "tag_of"]

_LONGEST = 130
"""Bytes; filesystems take 255."""
_UNSAFE = re.compile(r"[^\w\-+=.,@]")


def tag_of(index: int, evaluated_params: dict[str, Any]) -> str:
    """Number of a trial and the values that were drawn for it: ``"3_lr=0.1000"``."""
    variables = format_vars(evaluated_params) if evaluated_params else ""
    return f"{index}_{variables}" if variables else str(index)


def dirname_of(trial: Trial) -> str:
    """The folder of a trial: its name, tag and time of creation, safe for any filesystem."""
    stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
    name = _UNSAFE.sub("_", f"{trial}_{trial.experiment_tag}")
    room = _LONGEST - len(stamp) - 1
    if len(name.encode()) > room:  # what is cut off may be all that tells two trials apart
        suffix = _UNSAFE.sub("_", f"_{trial.trial_id}")
        name = name.encode()[: room - len(suffix)].decode(errors="ignore") + suffix
    return f"{name}_{stamp}"
