"""Names of trials' folders."""

from __future__ import annotations

import re
import time
from typing import Any

from mltoolkit.tune.experiment.trial import Trial
from mltoolkit.tune.search.variant_generator import format_vars

__all__ = ["dirname_of", "tag_of"]

_LONGEST = 130
_UNSAFE = re.compile(r"[^\w\-+=.,@]")


def tag_of(index: int, evaluated_params: dict[str, Any]) -> str:
    """Number of a trial and the values that were drawn for it: ``"3_lr=0.1000"``."""
    variables = format_vars(evaluated_params) if evaluated_params else ""
    return f"{index}_{variables}" if variables else str(index)


def dirname_of(trial: Trial) -> str:
    """The folder of a trial: its name, tag and time of creation, safe for any filesystem."""
    stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
    name = _UNSAFE.sub("_", f"{trial}_{trial.experiment_tag}")
    return f"{name[: _LONGEST - len(stamp) - 1]}_{stamp}"
