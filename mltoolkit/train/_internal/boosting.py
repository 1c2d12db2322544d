"""What the trainers of boosting libraries share: a training function on workers, or parameters, in the older form."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import logging
import os
import tempfile
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from mltoolkit.train._checkpoint import Checkpoint
from mltoolkit.train._config import RunConfig
from mltoolkit.train._internal.datasets import DataConfig, _made
from mltoolkit.train._scaling import ScalingConfig
from mltoolkit.train.backend import BackendConfig
from mltoolkit.train.data_parallel_trainer import BaseTrainer, DataParallelTrainer
from mltoolkit.train.error import TrainingFailedError

__all__ = ["BoostingTrainer", "check_model_file"]

logger = logging.getLogger(__name__)

_TRAIN = "train"
_DEFAULT_ROUNDS = 10

#: Arguments of the libraries' own ``train`` that a trainer sets itself, and where what they are for is given.
_SET_HERE = {
    "dtrain": "the dataset 'train' is what is trained on: `datasets={'train': ...}`",
    "evals": "all `datasets` are evaluated, under their names",
    "valid_sets": "all `datasets` are evaluated, under their names",
    "valid_names": "all `datasets` are evaluated, under their names",
    "evals_result": "evaluations are metrics of the Result: `result.metrics_dataframe`",
    "additional_results": "the training runs in another process, which cannot fill it",
    "ray_params": "`scaling_config` says how many workers there are, and with what",
    "model_factory": "the model is a Booster: `get_model(result.checkpoint)`",
    "_remote": "the training runs in a process of its own anyway",
}


class BoostingTrainer(DataParallelTrainer):
    """The base of ``XGBoostTrainer`` and ``LightGBMTrainer``.

    Parameters
    ----------
    train_loop_per_worker : callable or None
        None: the older form, with `datasets`, `label_column` and `params`, trains on actors of the boosting modules.
    backend_config : BackendConfig
    older : dict
        What belongs to the older form: ``label_column``, ``params``, ``num_boost_round``, ``dmatrix_params``, and arguments of
        the library's ``train``. None where it was not given.
    """

    #: For messages: ``"XGBoost"``, and what makes a training function of it.
    _library_name: ClassVar[str]
    #: Argument of the library's ``train`` that is the model to continue.
    _init_model: ClassVar[str]

    def __init__(
        self,
        train_loop_per_worker: Callable[..., Any] | None,
        *,
        train_loop_config: Mapping[str, Any] | None,
        backend_config: BackendConfig,
        scaling_config: ScalingConfig | None,
        run_config: RunConfig | None,
        datasets: Mapping[str, Any] | None,
        dataset_config: DataConfig | None,
        metadata: Mapping[str, Any] | None,
        resume_from_checkpoint: Checkpoint | None,
        older: Mapping[str, Any],
    ) -> None:
        given = {name: value for name, value in older.items() if value is not None}
        _refuse_unsupported(given)
        self._is_older = train_loop_per_worker is None
        if train_loop_per_worker is not None:
            if given:
                raise TypeError(
                    f"`{next(iter(given))}` belongs to the form without a training function. Leave `train_loop_per_worker` out, "
                    f"or pass it to `{self._library_name.lower()}.train` in the function."
                )
            super().__init__(
                train_loop_per_worker,
                train_loop_config=train_loop_config,
                backend_config=backend_config,
                scaling_config=scaling_config,
                run_config=run_config,
                datasets=_as_tables(datasets),
                dataset_config=dataset_config,
                metadata=metadata,
                resume_from_checkpoint=resume_from_checkpoint,
            )
            return
        for name, value in (("train_loop_config", train_loop_config), ("dataset_config", dataset_config)):
            if value is not None:
                raise TypeError(
                    f"`{name}` is for the training function, and `train_loop_per_worker` is not given. Parameters of "
                    f"{self._library_name} go into `params`."
                )
        BaseTrainer.__init__(
            self,
            scaling_config=scaling_config,
            run_config=run_config,
            datasets=datasets,
            metadata=metadata,
            resume_from_checkpoint=resume_from_checkpoint,
        )
        self._tunable = ("params", "num_boost_round", "label_column", "dmatrix_params", *BaseTrainer._tunable)
        self._set_older(given)

    def _set_older(self, given: dict[str, Any]) -> None:
        """Check what belongs to the older form."""
        if _TRAIN not in self.datasets:
            raise ValueError(
                f"`datasets` must have the dataset {_TRAIN!r}, got {', '.join(map(repr, self.datasets)) or 'none'}. Give "
                f"`datasets={{{_TRAIN!r}: ...}}`, or a training function as `train_loop_per_worker`."
            )
        if self.scaling_config.num_workers < 1 or "CPU" not in self.scaling_config.worker_resources:
            raise ValueError(
                f"`ScalingConfig` must give at least one worker with CPUs, got {self.scaling_config!r}. To debug in this "
                "process, give a training function and `num_workers=0`."
            )
        self.label_column: str | None = given.pop("label_column", None)
        self.params = _checked_mapping("params", given.pop("params", None) or {})
        self.dmatrix_params = _checked_mapping("dmatrix_params", given.pop("dmatrix_params", None) or {})
        unknown = [name for name in self.dmatrix_params if name not in self.datasets]
        if unknown:
            raise ValueError(
                f"`dmatrix_params` has {unknown[0]!r}, and there is no dataset of that name. There are: "
                f"{', '.join(map(repr, self.datasets))}."
            )
        rounds = given.pop("num_boost_round", _DEFAULT_ROUNDS)
        if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1:
            raise ValueError(f"`num_boost_round` must be an integer >= 1, got {rounds!r}.")
        self.num_boost_round: int = rounds
        self.train_kwargs = given
        self._check_train_kwargs()
        for name, dataset in self.datasets.items():
            self._check_dataset(name, dataset)
        # Class trainables are saved by Tune so often; here the report callback does it.
        config = self.run_config.checkpoint_config
        assert config is not None, "RunConfig fills its parts in"
        self.checkpoint_frequency = config.checkpoint_frequency
        self.checkpoint_at_end = config.checkpoint_at_end is not False
        own = dataclasses.replace(config, checkpoint_frequency=0, checkpoint_at_end=None)
        self.run_config = dataclasses.replace(self.run_config, checkpoint_config=own)

    def _check_train_kwargs(self) -> None:
        known = inspect.signature(self._train_function()).parameters
        for name in self.train_kwargs:
            if name in _SET_HERE:
                raise TypeError(f"`{name}` cannot be given to a {type(self).__name__}: {_SET_HERE[name]}.")
            if name not in known:
                names = [*inspect.signature(type(self).__init__).parameters, *known]
                near = difflib.get_close_matches(name, [each for each in names if each not in _SET_HERE], 1)
                hint = f" Did you mean `{near[0]}`?" if near else ""
                raise TypeError(f"{type(self).__name__} has no argument `{name}`.{hint}")

    def _check_dataset(self, name: str, dataset: Any) -> None:
        """Refuse what can be seen to be wrong before the data is read."""
        from mltoolkit._boosting.matrix import RayDMatrix

        if dataset is None:
            raise TypeError(f"`datasets[{name!r}]` must be a dataset, got None.")
        columns = getattr(dataset, "column_names", getattr(dataset, "columns", None))
        if self.label_column is not None and columns is not None and self.label_column not in list(columns):
            near = difflib.get_close_matches(self.label_column, [str(each) for each in columns], 1)
            raise ValueError(
                f"`label_column` is {self.label_column!r}, and the dataset {name!r} has no such column."
                f"{f' Did you mean {near[0]!r}?' if near else ''} It has: {', '.join(map(repr, list(columns)[:20]))}."
            )
        if isinstance(dataset, RayDMatrix):
            if not dataset.has_label:
                raise ValueError(f"The dataset {name!r} is a RayDMatrix without a label. Give it one.")
            if name in self.dmatrix_params:
                raise ValueError(
                    f"The dataset {name!r} is a RayDMatrix already: give it its parameters, and leave it out of "
                    "`dmatrix_params`."
                )
        elif not self.label_column and not _is_pair(dataset) and "label" not in self.dmatrix_params.get(name, {}):
            raise ValueError(
                f"`label_column` must name the column of the dataset {name!r} that is predicted. It may be left out where "
                "datasets are pairs (X, y) or each a RayDMatrix."
            )

    # ---- training on actors --------------------------------------------------------------------------------------------

    def training_loop(self) -> None:
        """Direct the workers, in the process of the trial."""
        if self._is_older:
            self._train_on_actors()
        else:
            super().training_loop()

    def _train_on_actors(self) -> None:
        try:
            self._continue()
        except Exception as error:
            raise TrainingFailedError(str(error)) from error

    def _continue(self) -> None:
        """Train what the last checkpoint leaves to do."""
        from mltoolkit.train._session import current_session, report

        session = current_session()
        assert session is not None, "a trainer's loop runs inside a trial"
        arguments = {"verbose_eval": False, **self.train_kwargs}
        callbacks = list(arguments.pop("callbacks", None) or ())
        reporter = next((each for each in callbacks if isinstance(each, self._callback_class())), None)
        if reporter is None:
            reporter = self._callback_class()(
                frequency=self.checkpoint_frequency, checkpoint_at_end=self.checkpoint_at_end
            )
            callbacks.append(reporter)
        checkpoint = session.get_checkpoint() or self.resume_from_checkpoint
        given = arguments.pop(self._init_model, None)
        start = given if checkpoint is None else reporter.get_model(checkpoint, reporter.filename)
        start, done = (None, 0) if start is None else self._rounds_of(start)
        if done >= self.num_boost_round:
            logger.info(
                "The model to go on from has %d rounds, and `num_boost_round` is %d: nothing is left to do.",
                done, self.num_boost_round,
            )  # fmt: skip
            with tempfile.TemporaryDirectory() as folder:
                reporter.save(start, folder)
                report({"rounds": done}, checkpoint=Checkpoint.from_directory(folder))
            return
        matrices = {name: self._matrix(name, dataset) for name, dataset in self.datasets.items()}
        self._train_function()(
            self.params,
            matrices[_TRAIN],
            num_boost_round=self.num_boost_round - done,
            evals=[(matrix, name) for name, matrix in matrices.items()],
            callbacks=callbacks,
            ray_params=self._ray_params(),
            **{self._init_model: start},
            **arguments,
            **self._more_arguments(),
        )

    def _ray_params(self) -> dict[str, Any]:
        resources = dict(self.scaling_config.worker_resources)
        return {
            "num_actors": self.scaling_config.num_workers,
            "cpus_per_actor": resources.pop("CPU"),
            "gpus_per_actor": resources.pop("GPU", 0),
            "resources_per_actor": resources,
        }

    def _matrix(self, name: str, dataset: Any) -> Any:
        from mltoolkit._boosting.matrix import RayDMatrix

        dataset = _made(dataset)
        if isinstance(dataset, RayDMatrix):
            return dataset
        options = dict(self.dmatrix_params.get(name, {}))
        if _is_pair(dataset):
            return self._matrix_class()(dataset[0], dataset[1], **options)
        if isinstance(dataset, Mapping):  # columns by name
            import pandas

            dataset = pandas.DataFrame(dict(dataset))
        if self.label_column is not None:
            options.setdefault("label", self.label_column)
        return self._matrix_class()(dataset, **options)

    # ---- what the library does -----------------------------------------------------------------------------------------

    @classmethod
    @abstractmethod
    def _train_function(cls) -> Callable[..., Any]:
        """``train`` of the boosting module."""

    @classmethod
    @abstractmethod
    def _matrix_class(cls) -> type[Any]:
        """Its ``RayDMatrix``."""

    @classmethod
    @abstractmethod
    def _callback_class(cls) -> type[Any]:
        """The callback that reports."""

    @abstractmethod
    def _rounds_of(self, model: Any) -> tuple[Any, int]:
        """A model to continue as a Booster, and how many rounds it has."""

    def _more_arguments(self) -> dict[str, Any]:
        """For the train function."""
        return {}

    @classmethod
    def get_model(cls, checkpoint: Checkpoint) -> Any:
        """Load the model of a checkpoint.

        Parameters
        ----------
        checkpoint : Checkpoint
            Of a result.

        Returns
        -------
        Booster
            The library's own.
        """
        return cls._callback_class().get_model(checkpoint)


def check_model_file(checkpoint: Checkpoint, folder: str, filename: str) -> str:
    """Path of the model's file in a checkpoint.

    Raises
    ------
    FileNotFoundError
        If there is none of that name; those there are get named.
    """
    path = os.path.join(folder, filename)
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"{checkpoint!r} has no file {filename!r}; it holds {', '.join(sorted(os.listdir(folder))) or 'nothing'}. Give "
            "the `filename` of the callback that reported it."
        )
    return path


def _as_tables(datasets: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """What a training function can be given parts of: a Dask collection is computed where the run is directed."""
    from mltoolkit._boosting.matrix import RayDMatrix

    if not isinstance(datasets, Mapping):
        return datasets
    for name, dataset in datasets.items():
        if isinstance(dataset, RayDMatrix):
            raise TypeError(
                f"`datasets[{name!r}]` is a RayDMatrix, which is for the form without a training function. Give the training "
                "function a table or arrays, of which each worker gets its part."
            )
    return {name: data.compute if hasattr(data, "__dask_graph__") else data for name, data in datasets.items()}


def _is_pair(dataset: Any) -> bool:
    return isinstance(dataset, tuple) and len(dataset) == 2


def _checked_mapping(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"`{name}` must be a dict, got {value!r}.")
    return dict(value)


def _refuse_unsupported(given: Mapping[str, Any]) -> None:
    reasons = {
        "preprocessor": "transform the data before, or in the training function",
        "validation_config": "evaluate a dataset of its own, which `datasets` may have, in each round",
    }
    for name, instead in reasons.items():
        if name in given:
            raise NotImplementedError(f"`{name}` is not supported: {instead}.")
