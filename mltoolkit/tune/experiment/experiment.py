"""An experiment as one object, for `tune.run` and `run_experiments`."""

from __future__ import annotations

import difflib
from typing import Any

__all__ = ["Experiment"]

_TAKEN_FROM_RUN = (
    "stop",
    "time_budget_s",
    "config",
    "resources_per_trial",
    "num_samples",
    "storage_path",
    "storage_filesystem",
    "checkpoint_config",
    "sync_config",
    "trial_name_creator",
    "trial_dirname_creator",
    "log_to_file",
    "export_formats",
    "max_failures",
    "restore",
    "local_dir",
    "checkpoint_freq",
    "checkpoint_at_end",
    "keep_checkpoints_num",
    "checkpoint_score_attr",
)


class Experiment:
    """A named trainable with everything that `tune.run` needs to run it.

    Parameters
    ----------
    name : str
        Name of the experiment and of its folder.
    run : function, subclass of Trainable or str
        The trainable.
    **options
        As `tune.run` takes them: ``stop``, ``config``, ``num_samples``, ``resources_per_trial``, ``storage_path``,
        ``checkpoint_config``, ``max_failures``, ``time_budget_s``, ``log_to_file``, ``restore`` and so on.

    Raises
    ------
    TypeError
        For an option that `tune.run` does not have.

    Examples
    --------
    >>> from mltoolkit import tune
    >>> experiment = tune.Experiment("squares", lambda config: {"y": config["x"] ** 2}, config={"x": 3})
    >>> experiment.name
    'squares'
    """

    def __init__(self, name: str, run: Any, **options: Any) -> None:
        from mltoolkit.tune.execution._build import as_trainable

        as_trainable(run)
        unknown = {key: value for key, value in options.items() if key not in _TAKEN_FROM_RUN}
        for option in unknown:
            near = difflib.get_close_matches(option, _TAKEN_FROM_RUN, 1)
            hint = f" Did you mean `{near[0]}`?" if near else " What concerns the run goes to `tune.run`."
            raise TypeError(f"Experiment() got an unexpected keyword argument {option!r}.{hint}")
        self.name = name
        self.run_identifier = run
        self.options = options

    @classmethod
    def from_json(cls, name: str, spec: dict[str, Any]) -> Experiment:
        """Make one of a dict with the key ``run`` and options.

        Raises
        ------
        ValueError
            If ``run`` is missing.
        """
        if not isinstance(spec, dict) or "run" not in spec:
            raise ValueError(
                f"The specification of experiment {name!r} must be a dict with the key 'run', got {spec!r}."
            )
        options = {key: value for key, value in spec.items() if key not in ("run", "env")}
        if "env" in spec:
            options["config"] = {**options.get("config", {}), "env": spec["env"]}
        return cls(name, spec["run"], **options)
