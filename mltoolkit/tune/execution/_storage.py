"""What a sweep keeps on disk: its journal, the folders of its trials, their checkpoints and errors."""

from __future__ import annotations

import os
import shutil
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cloudpickle

from mltoolkit.train import Checkpoint, CheckpointConfig
from mltoolkit.tune.error import StorageError
from mltoolkit.tune.execution._checkpoint_io import install, remove_torn, unpack
from mltoolkit.tune.execution._checkpoint_manager import surplus_checkpoints
from mltoolkit.tune.execution._messages import SavedCheckpoint
from mltoolkit.tune.execution.journal import Journal, encode_config
from mltoolkit.tune.experiment.trial import Trial

__all__ = ["TrialStorage"]


class TrialStorage:
    """Writes down what happens, before it takes effect.

    Parameters
    ----------
    experiment_path : pathlib.Path
    checkpoint_config : CheckpointConfig

    Raises
    ------
    StorageError
        From every method, when something cannot be written.
    """

    def __init__(self, experiment_path: Path, checkpoint_config: CheckpointConfig) -> None:
        self.journal = Journal(experiment_path)
        self._config = checkpoint_config
        self._next_index: dict[str, int] = {}

    def close(self) -> None:
        """Close the journal."""
        self.journal.close()

    def note_sweep(self, **fields: Any) -> None:
        """A run of the sweep begins."""
        self.journal.append("sweep", version=1, time=time.time(), **fields)

    def note_created(self, trial: Trial) -> None:
        """A trial was created: it gets its folder."""
        with _writing(trial.path):
            try:
                os.mkdir(trial.path)
            except FileExistsError:
                if not os.path.isdir(trial.path):
                    raise
            except FileNotFoundError:  # a name with folders in it
                os.makedirs(trial.path)
            else:
                self._next_index[trial.trial_id] = 0  # nothing can be in a folder that is new
        self.journal.append(
            "trial",
            trial_id=trial.trial_id,
            trainable=trial.trainable_name,
            index=trial.index,
            evaluated_params=trial.evaluated_params,
            experiment_tag=trial.experiment_tag,
            dirname=trial.dirname,
            custom_name=trial.custom_name,
            seed=trial.seed,
            **encode_config(trial.config),
        )

    def note_started(self, trial: Trial, iteration: int) -> None:
        """A trial runs, going on from an iteration."""
        self.journal.append(
            "start", trial_id=trial.trial_id, iteration=iteration, location=trial.location, time=trial.start_time
        )

    def note_result(self, trial: Trial, result: dict[str, Any]) -> None:
        """A trial reported."""
        self.journal.append("result", trial_id=trial.trial_id, result=result)

    def note_wait(self, trial: Trial, status: str) -> None:
        """A trial left its slot, to go on later."""
        self.journal.append("wait", trial_id=trial.trial_id, status=status)

    def note_reset(self, trial: Trial) -> None:
        """A trial has another configuration, or other resources, from now on."""
        resources = trial.placement_group_factory
        self.journal.append(
            "reset",
            trial_id=trial.trial_id,
            experiment_tag=trial.experiment_tag,
            evaluated_params=trial.evaluated_params,
            resources=None if resources is None else [resources.bundles, resources.strategy],
            **encode_config(trial.config),
        )

    def note_revived(self, trial: Trial, *, keep_checkpoints: bool) -> None:
        """A trial that had failed is run again."""
        self.journal.append("revive", trial_id=trial.trial_id, keep_checkpoints=keep_checkpoints)

    def note_failure(self, trial: Trial, error: BaseException, *, counted: bool) -> None:
        """A trial failed and is tried again."""
        self.journal.append("failure", trial_id=trial.trial_id, error=str(error), counted=counted)
        _write_error(trial, error)
        remove_torn(trial.path)

    def note_end(self, trial: Trial, status: str, reason: str, error: BaseException | None = None) -> None:
        """A trial ended."""
        text = None if error is None else str(error)
        self.journal.append("end", trial_id=trial.trial_id, status=status, reason=reason, error=text, time=time.time())
        if error is not None:
            _write_error(trial, error)
            remove_torn(trial.path)
        self._next_index.pop(trial.trial_id, None)

    # Checkpoints

    def next_checkpoint_index(self, trial: Trial) -> int:
        """Number of the next checkpoint of a trial."""
        index = self._next_index.get(trial.trial_id)
        if index is None:
            # Of a restored trial: one past the highest number that is there, noted down or not.
            taken = [int(p.name[11:]) for p in Path(trial.path).glob("checkpoint_*") if p.name[11:].isdigit()]
            index = self._next_index[trial.trial_id] = max(taken, default=-1) + 1
            remove_torn(trial.path)
        return index

    def keep_checkpoint(self, trial: Trial, saved: SavedCheckpoint) -> None:
        """Take a checkpoint that a trial gave, and delete those that are not to be kept."""
        path = os.path.join(trial.path, saved.name)
        if saved.packed is not None:
            with _writing(path):
                unpack(saved.packed, path)
        self.journal.append("checkpoint", trial_id=trial.trial_id, name=saved.name)
        self._add(trial, saved.name, trial.last_result)

    def forget_checkpoints(self, trial: Trial) -> None:
        """Let a trial begin anew: its checkpoints stay on disk, but it does not go on from them."""
        for checkpoint, _ in list(trial.checkpoints):
            self.journal.append("removed", trial_id=trial.trial_id, name=os.path.basename(checkpoint.path))
            trial.drop_checkpoint(checkpoint.path)

    def adopt_checkpoint(self, trial: Trial, checkpoint: Checkpoint, metrics: dict[str, Any]) -> None:
        """Give a trial a copy of a checkpoint from elsewhere, with the result that belongs to it."""
        name = f"checkpoint_{self.next_checkpoint_index(trial):06d}"
        path = os.path.join(trial.path, name)
        with _writing(path), checkpoint.as_directory() as source:
            install(source, path, link=True)
        known = {key: value for key, value in metrics.items() if key != "config"}
        self.journal.append("checkpoint", trial_id=trial.trial_id, name=name, metrics=known)
        self._add(trial, name, metrics)

    def _add(self, trial: Trial, name: str, metrics: dict[str, Any]) -> None:
        self._next_index[trial.trial_id] = int(name[11:]) + 1
        trial.add_checkpoint(Checkpoint(os.path.join(trial.path, name)), metrics)
        for surplus in surplus_checkpoints(trial, self._config):
            # Noted first: a checkpoint that the journal names is always there.
            self.journal.append("removed", trial_id=trial.trial_id, name=os.path.basename(surplus.path))
            trial.drop_checkpoint(surplus.path)
            shutil.rmtree(surplus.path, ignore_errors=True)


@contextmanager
def _writing(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written: {error}. The sweep stops; what was reported before is intact. Make room or "
            "mend the folder, then go on with `Tuner.restore`."
        ) from error


def _write_error(trial: Trial, error: BaseException) -> None:
    """Keep the traceback for a person and the error for a program."""
    text = str(error) if getattr(error, "traceback_str", None) else "".join(traceback.format_exception(error))
    number = trial.num_failures or 1
    with _writing(trial.path):
        with open(os.path.join(trial.path, "error.txt"), "a", encoding="utf-8") as file:
            file.write(f"Failure # {number} (occurred at {time.strftime('%Y-%m-%d_%H-%M-%S')})\n{text}\n")
        try:
            data = cloudpickle.dumps(error)
        except Exception:
            return  # the text says it all
        with open(os.path.join(trial.path, "error.pkl"), "wb") as binary:
            binary.write(data)
