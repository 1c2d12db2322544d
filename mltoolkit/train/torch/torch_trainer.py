"""The trainer for torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mltoolkit.train._checkpoint import Checkpoint
from mltoolkit.train._config import RunConfig
from mltoolkit.train._internal.datasets import DataConfig
from mltoolkit.train._scaling import ScalingConfig
from mltoolkit.train.data_parallel_trainer import DataParallelTrainer
from mltoolkit.train.torch.config import TorchConfig

__all__ = ["TorchTrainer"]


class TorchTrainer(DataParallelTrainer):
    """Runs a training function on workers that torch's process group connects.

    In the function, ``train.torch.prepare_model`` and ``train.torch.prepare_data_loader`` do what makes it a distributed
    one; or it uses ``torch.distributed`` itself, which is set up.

    Parameters
    ----------
    train_loop_per_worker : callable
        Takes `train_loop_config`, or nothing.
    train_loop_config : dict, optional
    torch_config : TorchConfig, optional
        Backend and time-outs.
    scaling_config : ScalingConfig, optional
    run_config : RunConfig, optional
    datasets : dict, optional
    dataset_config : DataConfig, optional
    metadata : dict, optional
    resume_from_checkpoint : Checkpoint, optional
        As for :class:`~mltoolkit.train.DataParallelTrainer`.

    Notes
    -----
    Workers start as forks of a process that has torch loaded, in tens of milliseconds, and the function may be
    defined anywhere: in a script without ``if __name__ == "__main__"``, or in the cell of a notebook.
    """

    # torch's distributed model and optimizers import torch._dynamo, which takes nearly as long as torch itself.
    _preloaded: tuple[str, ...] = (
        *DataParallelTrainer._preloaded,
        "torch",
        "torch._dynamo",
        "torch.distributed",
        "mltoolkit.train.torch.train_loop_utils",
    )

    def __init__(
        self,
        train_loop_per_worker: Callable[..., Any] | None = None,
        *,
        train_loop_config: Mapping[str, Any] | None = None,
        torch_config: TorchConfig | None = None,
        scaling_config: ScalingConfig | None = None,
        run_config: RunConfig | None = None,
        datasets: Mapping[str, Any] | None = None,
        dataset_config: DataConfig | None = None,
        metadata: Mapping[str, Any] | None = None,
        resume_from_checkpoint: Checkpoint | None = None,
        **older: Any,
    ) -> None:
        if older or train_loop_per_worker is None:
            _explain_older(older)
        if torch_config is not None and not isinstance(torch_config, TorchConfig):
            raise TypeError(f"`torch_config` must be a train.torch.TorchConfig, got {torch_config!r}.")
        super().__init__(
            train_loop_per_worker,  # type: ignore[arg-type]  # checked there
            train_loop_config=train_loop_config,
            backend_config=torch_config or TorchConfig(),
            scaling_config=scaling_config,
            run_config=run_config,
            datasets=datasets,
            dataset_config=dataset_config,
            metadata=metadata,
            resume_from_checkpoint=resume_from_checkpoint,
        )


def _explain_older(given: Mapping[str, Any]) -> None:
    """Raise for arguments of Ray's first TorchTrainer."""
    if "training_operator_cls" in given or "model_creator" in given:
        raise NotImplementedError(
            "TorchTrainer with a training operator, as in `ray.util.sgd`, is not supported. Write the loop as a function "
            "and give that as `train_loop_per_worker`; `train.torch.prepare_model` replaces `self.register`."
        )
    if "validation_config" in given:
        raise NotImplementedError(
            "`validation_config` is not supported: validate in the training function before `train.report`."
        )
    if given:
        raise TypeError(f"TorchTrainer has no argument `{next(iter(given))}`.")
    raise TypeError("TorchTrainer needs `train_loop_per_worker`, the function that each worker runs.")
