"""What an experiment's journal says about its trials."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mltoolkit.train import Checkpoint
from mltoolkit.tune.error import TuneError
from mltoolkit.tune.execution.journal import decode_config, read_events
from mltoolkit.tune.execution.placement_groups import PlacementGroupFactory
from mltoolkit.tune.experiment.trial import Trial

__all__ = ["apply_event", "load_trials", "read_results", "trial_from_event"]


def load_trials(experiment_path: str | os.PathLike[str]) -> list[Trial]:
    """Rebuild the trials of an experiment from its journal, without executing anything found there.

    Parameters
    ----------
    experiment_path : path-like
        Folder of the experiment; it may have been moved since.

    Returns
    -------
    list of Trial
        In the order of their creation. Configurations hold what JSON can express.

    Raises
    ------
    FileNotFoundError
        If the folder has no journal.
    """
    trials: dict[str, Trial] = {}
    for event in read_events(experiment_path):
        if event["event"] == "trial":
            trial = trial_from_event(event, Path(experiment_path), trusted=False)
            trials[trial.trial_id] = trial
        elif (known := trials.get(event.get("trial_id", ""))) is not None:
            apply_event(known, event)
    return list(trials.values())


def read_results(experiment_path: str | os.PathLike[str]) -> dict[str, list[dict[str, Any]]]:
    """All results of an experiment by trial id, each trial's in the order they were reported.

    Those of trials whose configuration a scheduler changed carry the configuration they had then.
    """
    results: dict[str, list[dict[str, Any]]] = {}
    configs: dict[str, dict[str, Any]] = {}
    changed = set()
    for event in read_events(experiment_path):
        kind, trial_id = event["event"], event.get("trial_id", "")
        if kind == "trial":
            results.setdefault(trial_id, [])
            configs[trial_id] = decode_config(event, trusted=False)
        elif trial_id not in results:
            continue
        elif kind == "result":
            results[trial_id].append(event["result"])
            if trial_id in changed:
                event["result"]["config"] = configs[trial_id]
        elif kind == "reset":
            for result in results[trial_id]:
                result.setdefault("config", configs[trial_id])
            configs[trial_id] = decode_config(event, trusted=False)
            changed.add(trial_id)
        elif kind == "end" and event["status"] == Trial.TERMINATED and results[trial_id]:
            results[trial_id][-1]["done"] = True
    return results


def trial_from_event(event: dict[str, Any], experiment_path: Path, *, trusted: bool) -> Trial:
    """The trial as it was created."""
    return Trial(
        trial_id=event["trial_id"],
        trainable_name=event["trainable"],
        config=decode_config(event, trusted=trusted),
        index=event["index"],
        evaluated_params=event["evaluated_params"],
        experiment_tag=event["experiment_tag"],
        experiment_path=experiment_path,
        dirname=event["dirname"],
        custom_name=event.get("custom_name"),
        seed=event.get("seed"),
    )


def apply_event(trial: Trial, event: dict[str, Any], *, trusted: bool = False) -> None:
    """Bring a trial up to date with one event of its own."""
    kind = event["event"]
    if kind == "result":
        trial.update_last_result({**event["result"], "config": trial.config})
    elif kind == "start":
        trial.status = Trial.RUNNING
        trial.location = event.get("location", "")
        trial.start_time = trial.start_time or event.get("time")
    elif kind == "checkpoint":
        checkpoint = Checkpoint(os.path.join(trial.path, event["name"]))
        trial.add_checkpoint(checkpoint, event.get("metrics", trial.last_result))
    elif kind == "removed":
        trial.drop_checkpoint(os.path.join(trial.path, event["name"]))
    elif kind == "reset":
        trial.config = decode_config(event, trusted=trusted)
        trial.experiment_tag = event["experiment_tag"]
        trial.evaluated_params = event.get("evaluated_params", trial.evaluated_params)
        if event.get("resources"):
            trial.placement_group_factory = PlacementGroupFactory(*event["resources"])
    elif kind == "wait":
        trial.status = event["status"]
    elif kind == "failure":
        trial.status = Trial.PENDING
        trial.num_failures += 1 if event["counted"] else 0
    elif kind == "revive":
        trial.status = Trial.PENDING
        trial.error = trial.end_time = None
        trial.num_failures = 0
        if not event["keep_checkpoints"]:
            trial.checkpoints = []
    elif kind == "end":
        trial.status = event["status"]
        trial.end_time = event.get("time")
        if trial.last_result and trial.status == Trial.TERMINATED:
            trial.last_result["done"] = True
        if trial.status == Trial.ERROR:
            trial.num_failures += 1
            trial.error = TuneError(event.get("error") or "unknown error")
