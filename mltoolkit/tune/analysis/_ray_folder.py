"""Experiments in Ray's own files: a folder for each trial, and a state file of JSON with pickles inside, left closed."""

from __future__ import annotations

import json
import logging
import os
import re
from pathlib import Path
from typing import Any

from mltoolkit.train import Checkpoint
from mltoolkit.train._records import PARAMS_FILE, PROGRESS_FILE, RESULT_FILE, read_error, read_params, read_results
from mltoolkit.tune.error import TuneError
from mltoolkit.tune.experiment.trial import Trial

__all__ = ["load_ray_experiment", "read_ray_state"]

logger = logging.getLogger(__name__)

_STATE_FILES = "experiment_state-*.json"
# `train_fn_ee434_00002_2_lr=0.1000_2026-11-21_15-12-16`: name of the trainable, id, number, drawn values, time.
_FOLDER_NAME = re.compile(
    r"^(?P<name>.+?)_(?P<id>[0-9a-f]{5,8}_\d{5})(_(?P<tag>.*?))?(_\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d)?$"
)


def load_ray_experiment(folder: Path) -> tuple[list[Trial], dict[str, list[dict[str, Any]]]]:
    """The trials of an experiment that Ray wrote, and their results.

    Where its state file is missing or damaged, the trials' own folders tell what they can: a trial is then taken for
    terminated unless it left an error.

    Parameters
    ----------
    folder : pathlib.Path

    Returns
    -------
    trials : list of Trial
        In the order in which they were created.
    results : dict of str to list of dict
        By trial id.

    Raises
    ------
    FileNotFoundError
        If no trial is found.
    """
    known = {state["relative_logdir"]: (state, metadata) for state, metadata in _trial_states(folder)}
    found = sorted(entry.name for entry in folder.iterdir() if _is_trial_folder(Path(entry)))
    names = [*known, *(name for name in found if name not in known)]
    if not names:
        raise FileNotFoundError(
            f"{folder} holds no experiment: neither experiment_state.jsonl nor folders of trials with {RESULT_FILE}, "
            f"{PROGRESS_FILE} or {PARAMS_FILE}. Give the folder `<storage_path>/<name>` of the run."
        )
    trials: list[Trial] = []
    results: dict[str, list[dict[str, Any]]] = {}
    for name in names:
        state, metadata = known.get(name, ({}, {}))
        trial, history = _load_trial(folder, name, state, metadata)
        trials.append(trial)
        results[trial.trial_id] = history
    # Ray's state file keeps them in another order; the number in an id tells.
    if all(re.fullmatch(r".+_\d+", trial.trial_id) for trial in trials):
        trials.sort(key=lambda trial: int(trial.trial_id.rpartition("_")[2]))
    for index, trial in enumerate(trials):
        trial.index = index
    return trials, results


def read_ray_state(folder: Path) -> dict[str, Any]:
    """The newest state file that can be read; empty if there is none."""
    for file in sorted(folder.glob(_STATE_FILES), reverse=True):
        try:
            state = json.loads(file.read_bytes())
        except (OSError, ValueError) as error:
            logger.warning("The state file %s cannot be read and is passed over: %s", file, error)
            continue
        if isinstance(state, dict):
            return state
    return {}


def _trial_states(folder: Path) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """What the state file says of each trial: how it was made, and how it went."""
    states = []
    for entry in read_ray_state(folder).get("trial_data") or ():
        try:
            state, metadata = (json.loads(part) for part in entry)
            if os.path.basename(state["relative_logdir"]) == state["relative_logdir"]:
                states.append((state, metadata))
        except (KeyError, TypeError, ValueError) as error:
            logger.warning("A trial in the state file of %s cannot be read: %s", folder, error)
    return states


def _is_trial_folder(folder: Path) -> bool:
    return folder.is_dir() and any((folder / name).exists() for name in (RESULT_FILE, PROGRESS_FILE, PARAMS_FILE))


def _load_trial(
    folder: Path, name: str, state: dict[str, Any], metadata: dict[str, Any]
) -> tuple[Trial, list[dict[str, Any]]]:
    path = folder / name
    try:
        results = read_results(path)
    except FileNotFoundError:
        results = []  # it never reported
    last = metadata.get("last_result") or (results[-1] if results else {})
    parsed = _FOLDER_NAME.match(name)
    config = read_params(path) or state.get("config") or last.get("config") or {}
    error = read_error(path)
    trial = Trial(
        trial_id=str(state.get("trial_id") or last.get("trial_id") or (parsed["id"] if parsed else name)),
        trainable_name=state.get("trainable_name") or (parsed["name"] if parsed else name),
        config=config,
        evaluated_params=state.get("evaluated_params") or {},
        experiment_tag=state.get("experiment_tag") or (parsed["tag"] if parsed else "") or "",
        experiment_path=folder,
        dirname=name,
        status=state.get("status") or (Trial.TERMINATED if error is None else Trial.ERROR),
        start_time=metadata.get("start_time"),
        end_time=metadata.get("last_result_time"),
        num_failures=metadata.get("num_failures") or int(error is not None),
    )
    if trial.status == Trial.ERROR:
        trial.error = TuneError(error or "The trial failed; its folder holds no error.txt.")
    for result in results:
        trial.update_last_result(result)
    trial.last_result = {**last, "config": config} if last else {}
    reported = {result["checkpoint_dir_name"]: result for result in results if result.get("checkpoint_dir_name")}
    if path.is_dir():
        for entry in sorted(path.glob("checkpoint_*")):
            trial.add_checkpoint(Checkpoint(entry), reported.get(entry.name, {}))
    return trial, results
