"""LightGBM's parameters, as they are for all ranks."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mltoolkit._boosting.params import RayParams
from mltoolkit._optional import require

__all__ = ["Parameters", "resolve_parameters"]

_LEARNERS = {
    "data": "data", "data_parallel": "data",
    "voting": "voting", "voting_parallel": "voting",
}  # fmt: skip
_WHY_NOT = {
    "serial": ", with which each actor would train for itself",
    "feature": ", which LightGBM offers in its command line alone; 'data' finds the same splits",
    "feature_parallel": ", which LightGBM offers in its command line alone; 'data' finds the same splits",
}
_SET_BY_ACTORS = {
    "machines": "the actors find each other",
    "machine_list_filename": "the actors find each other",
    "num_machines": "it is the number of actors",
}
_DEFAULT_TIMEOUT_MIN = 120.0
_BIN_SAMPLE = 200_000  # LightGBM's default


@dataclass(frozen=True)
class Parameters:
    """What ``train`` makes of its parameters.

    Attributes
    ----------
    values : dict
        For LightGBM, under main names where it matters.
    given : dict
        As the user gave them.
    num_boost_round : int
    early_stopping : dict or None
        Arguments of ``lightgbm.early_stopping``.
    timeout_s : float
        How long a rank may be silent.
    first_port : int
        Where the ranks begin to look for a free port; 0 for any.
    """

    values: dict[str, Any]
    given: dict[str, Any]
    num_boost_round: int
    early_stopping: dict[str, Any] | None
    timeout_s: float
    first_port: int

    @property
    def resumable(self) -> bool:
        """Whether training can go on from a checkpoint; forests are averages, and begin anew."""
        return self.values["boosting"] not in ("rf", "random_forest")

    def early_stopping_callback(self) -> Any:
        """Return LightGBM's callback."""
        lightgbm = require("lightgbm", purpose="mltoolkit.lightgbm", extra="lightgbm")
        return lightgbm.early_stopping(**(self.early_stopping or {}))


def resolve_parameters(
    params: Mapping[str, Any],
    ray_params: RayParams,
    num_boost_round: int,
    metrics: Sequence[str] = (),
    early_stopping_rounds: int | None = None,
) -> Parameters:
    """Check parameters, and take out of them what LightGBM must not be told.

    Raises
    ------
    ValueError
        If one is the actors' business, or has a value that cannot be distributed.
    """
    values = dict(params)
    for name, reason in _SET_BY_ACTORS.items():
        found, value = _take(values, name, None)
        if found and value not in ("", 1):
            raise ValueError(f"The parameter {found!r} cannot be set: {reason}. Leave it out.")
    _take(values, "pre_partition", None)  # about files that LightGBM reads itself
    _set_learner(values, ray_params)
    _set_threads(values, ray_params)
    for name, default in (("device_type", "cpu"), ("boosting", "gbdt"), ("verbosity", -1)):
        values[name] = _take(values, name, default)[1]
    if ray_params.gpus_per_actor > 0 and values["device_type"] == "cpu":
        warnings.warn(
            "The actors have GPUs, but LightGBM does not use them: set the parameter device_type='gpu' or 'cuda'.",
            UserWarning,
            stacklevel=4,
        )
    found, rounds = _take(values, "num_iterations", num_boost_round)
    if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1:
        raise ValueError(f"`{found or 'num_boost_round'}` must be an integer >= 1, got {rounds!r}.")
    minutes = float(_take(values, "time_out", _DEFAULT_TIMEOUT_MIN)[1])
    first_port = int(_take(values, "local_listen_port", 0)[1])
    stopping = _take_early_stopping(values, early_stopping_rounds)
    _add_metrics(values, metrics)
    values["bin_construct_sample_cnt"] = _take(values, "bin_construct_sample_cnt", _BIN_SAMPLE)[1]
    for name in ("seed", "data_random_seed"):
        value = _take(values, name, None)[1]
        if value is not None:
            values[name] = value
    _fix_layout(values)
    return Parameters(values, dict(params), rounds, stopping, 60 * minutes, first_port)


def _take(values: dict[str, Any], main: str, default: Any) -> tuple[str | None, Any]:
    """Remove a parameter under whichever of its names; the main name wins."""
    from lightgbm.basic import _ConfigAliases

    aliases = _ConfigAliases.get(main)
    found = [name for name in (main, *sorted(aliases - {main})) if name in values and values[name] is not None]
    result = (found[0], values[found[0]]) if found else (None, default)
    for name in aliases | {main}:
        values.pop(name, None)
    return result


def _set_learner(values: dict[str, Any], ray_params: RayParams) -> None:
    found, learner = _take(values, "tree_learner", "data")
    if learner in ("serial", None) and ray_params.num_actors == 1:
        learner = "data"
    if learner not in _LEARNERS:
        raise ValueError(f"`{found}` must be 'data' or 'voting', got {learner!r}{_WHY_NOT.get(learner, '')}.")
    values["tree_learner"] = _LEARNERS[learner]


def _set_threads(values: dict[str, Any], ray_params: RayParams) -> None:
    found, threads = _take(values, "num_threads", None)
    if threads and threads > 0 and ray_params.cpus_per_actor and threads > ray_params.cpus_per_actor:
        raise ValueError(
            f"`{found}` is {threads}, more than `cpus_per_actor`, {ray_params.cpus_per_actor}. Raise `cpus_per_actor`, which "
            f"sets the threads of each actor, and leave `{found}` out."
        )


def _take_early_stopping(values: dict[str, Any], rounds: int | None) -> dict[str, Any] | None:
    given = _take(values, "early_stopping_round", None)[1]
    rounds = given if rounds is None else rounds
    delta = _take(values, "early_stopping_min_delta", 0.0)[1]
    if rounds is None or (isinstance(rounds, int) and rounds <= 0):
        return None
    return {
        "stopping_rounds": rounds,
        "first_metric_only": bool(values.get("first_metric_only", False)),
        "verbose": False,
        "min_delta": delta,
    }


def _add_metrics(values: dict[str, Any], metrics: Sequence[str]) -> None:
    given = _take(values, "metric", None)[1]
    own = [given] if isinstance(given, str) else list(given or ())
    names = [*(name for name in metrics if name not in own), *own]
    if names or given is not None:
        values["metric"] = names


def _fix_layout(values: dict[str, Any]) -> None:
    """Bring the user's choice of the layout of histograms under its main name."""
    for name in ("force_col_wise", "force_row_wise"):
        if _take(values, name, False)[1] in (True, 1, "true", "+"):
            values[name] = True
