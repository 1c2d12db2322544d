"""What training functions use: devices, models, data loaders, reproducibility."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset, RandomSampler, SequentialSampler

from mltoolkit.train._session import current_session, get_context
from mltoolkit.train.torch._device import worker_devices

__all__ = [
    "accelerate",
    "backward",
    "enable_reproducibility",
    "get_device",
    "get_devices",
    "prepare_data_loader",
    "prepare_model",
    "prepare_optimizer",
]


class _Acceleration:
    """What `accelerate` has switched on in this process."""

    amp = False
    scaler: Any = None
    seed: int | None = None


def get_device() -> torch.device:
    """The device of this worker: its first GPU, or the CPU.

    Returns
    -------
    torch.device
    """
    return get_devices()[0]


def get_devices() -> list[torch.device]:
    """All devices of this worker: its GPUs, or the CPU.

    Returns
    -------
    list of torch.device
    """
    return worker_devices()


def prepare_model(
    model: torch.nn.Module,
    move_to_device: bool | torch.device = True,
    parallel_strategy: str | None = "ddp",
    parallel_strategy_kwargs: Mapping[str, Any] | None = None,
) -> torch.nn.Module:
    """Make a model distributed: on the worker's device, its gradients averaged over all workers.

    Parameters
    ----------
    model : torch.nn.Module
    move_to_device : bool or torch.device, default=True
        Where it is moved: the worker's device, nowhere (False), or a given one.
    parallel_strategy : {'ddp', 'fsdp', None}, default='ddp'
        Copies of the model with averaged gradients, a model sharded over the workers, or neither.
    parallel_strategy_kwargs : dict, optional
        For ``torch.nn.parallel.DistributedDataParallel`` or ``torch.distributed.fsdp.fully_shard``.

    Returns
    -------
    torch.nn.Module
        With one worker the model itself. With ``'ddp'`` a wrapper whose ``module`` it is; with ``'fsdp'`` the model,
        sharded in place (FSDP2, on GPUs and CPUs).
    """
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"`model` must be a torch.nn.Module, got {model!r}.")
    if parallel_strategy not in ("ddp", "fsdp", None):
        raise ValueError(f"`parallel_strategy` must be 'ddp', 'fsdp' or None, got {parallel_strategy!r}.")
    device = move_to_device if isinstance(move_to_device, torch.device) else get_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if move_to_device:
        model = model.to(device)
    if _Acceleration.amp:
        _wrap_forward(model, device)
    if _world_size() == 1 or parallel_strategy is None:
        return model
    options = dict(parallel_strategy_kwargs or {})
    if parallel_strategy == "fsdp":
        from torch.distributed.fsdp import fully_shard

        if "mesh" not in options:
            from torch.distributed.device_mesh import init_device_mesh

            options["mesh"] = init_device_mesh(device.type, (_world_size(),))
        return fully_shard(model, **options)
    if device.type == "cuda":
        options = {"device_ids": [device], "output_device": device, **options}
    if not any(parameter.requires_grad for parameter in model.parameters()):
        return model  # nothing to average, which torch takes for a mistake
    return torch.nn.parallel.DistributedDataParallel(model, **options)


def prepare_data_loader(
    data_loader: DataLoader[Any],
    add_dist_sampler: bool = True,
    move_to_device: bool = True,
    auto_transfer: bool = True,
) -> DataLoader[Any]:
    """Make a data loader distributed: each worker reads its part, on its device.

    Parameters
    ----------
    data_loader : torch.utils.data.DataLoader
    add_dist_sampler : bool, default=True
        Whether it gets a ``DistributedSampler``, shuffling if the loader does. An ``IterableDataset`` has no sampler, and
        one that is distributed already is kept.
    move_to_device : bool, default=True
        Whether batches arrive on the worker's device.
    auto_transfer : bool, default=True
        Whether copies to a GPU overlap with computing.

    Returns
    -------
    torch.utils.data.DataLoader
        The shuffled order changes from epoch to epoch by itself: ``sampler.set_epoch`` is called unless the program
        does.
    """
    if not isinstance(data_loader, DataLoader):
        raise TypeError(f"`data_loader` must be a torch.utils.data.DataLoader, got {data_loader!r}.")
    is_iterable = isinstance(data_loader.dataset, IterableDataset)
    is_distributed = isinstance(data_loader.sampler, DistributedSampler)
    if add_dist_sampler and _world_size() > 1 and not is_iterable and not is_distributed:
        data_loader = _with_distributed_sampler(data_loader)
    if move_to_device:
        device = get_device()
        if device.type != "cpu":
            return _DeviceLoader(data_loader, device, overlap=auto_transfer)
    return data_loader


def accelerate(amp: bool = False) -> None:
    """Switch accelerated training on; call it before `prepare_model`.

    Parameters
    ----------
    amp : bool, default=False
        Whether forward passes use mixed precision: half precision with scaled gradients on GPUs, bfloat16 on CPUs.
    """
    _Acceleration.amp = bool(amp)
    _Acceleration.scaler = None


def prepare_optimizer(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Have an optimizer unscale the gradients that :func:`backward` has scaled.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer

    Returns
    -------
    torch.optim.Optimizer
        The same one. Without mixed precision on a GPU nothing is changed.
    """
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"`optimizer` must be a torch.optim.Optimizer, got {optimizer!r}.")
    scaler = _scaler()
    if scaler is not None:
        plain_step = optimizer.step

        def step(*args: Any, **kwargs: Any) -> Any:
            optimizer.step = plain_step
            try:
                result = scaler.step(optimizer, *args, **kwargs)
            finally:
                optimizer.step = step
            scaler.update()
            return result

        optimizer.step = step
    return optimizer


def backward(tensor: torch.Tensor) -> None:
    """Compute gradients of a loss; scaled where :func:`accelerate` has switched mixed precision on.

    Parameters
    ----------
    tensor : torch.Tensor
        The loss.
    """
    scaler = _scaler()
    (tensor if scaler is None else scaler.scale(tensor)).backward()


def enable_reproducibility(seed: int = 0) -> None:
    """Seed torch, numpy and random alike on all workers, and use deterministic algorithms.

    Parameters
    ----------
    seed : int, default=0
        Also of the processes of data loaders that are prepared afterwards.
    """
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"`seed` must be an integer, got {seed!r}.")
    random.seed(seed)
    torch.manual_seed(seed)
    try:
        import numpy as np

        np.random.seed(seed % 2**32)
    except ImportError:
        pass
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # what cuBLAS needs to be deterministic
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    _Acceleration.seed = seed


def _world_size() -> int:
    return int(get_context().get_world_size()) if current_session() is not None else 1


def _scaler() -> Any:
    if _Acceleration.amp and _Acceleration.scaler is None and get_device().type == "cuda":
        _Acceleration.scaler = torch.amp.GradScaler("cuda")
    return _Acceleration.scaler


def _wrap_forward(model: torch.nn.Module, device: torch.device) -> None:
    forward = model.forward
    dtype = torch.float16 if device.type == "cuda" else torch.bfloat16

    def with_autocast(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(device.type, dtype=dtype):
            return _to_float(forward(*args, **kwargs))

    model.forward = with_autocast


def _to_float(value: Any) -> Any:
    """Outputs in full precision, for losses that are computed outside."""
    if isinstance(value, torch.Tensor):
        return value.float() if value.is_floating_point() else value
    if isinstance(value, (list, tuple)):
        return type(value)(_to_float(each) for each in value)
    if isinstance(value, dict):
        return {key: _to_float(each) for key, each in value.items()}
    return value


def _with_distributed_sampler(loader: DataLoader[Any]) -> DataLoader[Any]:
    if loader.batch_sampler is not None and type(loader.batch_sampler) is not torch.utils.data.BatchSampler:
        raise ValueError(
            f"The data loader has a batch sampler of its own ({type(loader.batch_sampler).__name__}), which cannot be "
            "split between workers. Make it aware of the rank, and pass `add_dist_sampler=False`."
        )
    if not isinstance(loader.sampler, (SequentialSampler, RandomSampler)):
        raise ValueError(
            f"The data loader has a sampler of its own ({type(loader.sampler).__name__}), which would be lost. Make it aware "
            "of the rank and pass `add_dist_sampler=False`, or leave it out."
        )
    context = get_context()
    shuffle = isinstance(loader.sampler, RandomSampler)
    sampler = _EpochSampler(
        loader.dataset,
        num_replicas=context.get_world_size(),
        rank=context.get_world_rank(),
        shuffle=shuffle,
        drop_last=loader.drop_last,
    )
    options: dict[str, Any] = {
        "batch_size": loader.batch_size,
        "sampler": sampler,
        "num_workers": loader.num_workers,
        "collate_fn": loader.collate_fn,
        "pin_memory": loader.pin_memory,
        "drop_last": loader.drop_last,
        "timeout": loader.timeout,
        "worker_init_fn": _seeded(loader.worker_init_fn),
        "multiprocessing_context": loader.multiprocessing_context,
        "generator": loader.generator,
        "prefetch_factor": loader.prefetch_factor,
        "persistent_workers": loader.persistent_workers,
    }
    return (
        type(loader)(loader.dataset, **options) if type(loader) is DataLoader else DataLoader(loader.dataset, **options)
    )


class _EpochSampler(DistributedSampler[Any]):
    """Goes on to the next epoch by itself, unless the program says which one it is."""

    _told = False

    def set_epoch(self, epoch: int) -> None:
        self._told = True
        super().set_epoch(epoch)

    def __iter__(self) -> Iterator[Any]:
        indices = super().__iter__()
        if not self._told:
            self.epoch += 1
        return indices


def _seeded(init: Callable[[int], None] | None) -> Callable[[int], None] | None:
    """Seed the processes of a data loader, each differently and repeatably, where the run is to be reproducible."""
    seed = _Acceleration.seed
    if seed is None:
        return init
    offset = seed + 10_000 * int(get_context().get_world_rank())

    def seeded_init(worker: int) -> None:
        random.seed(offset + worker)
        torch.manual_seed(offset + worker)
        try:
            import numpy as np

            np.random.seed((offset + worker) % 2**32)
        except ImportError:
            pass
        if init is not None:
            init(worker)

    return seeded_init


class _DeviceLoader:
    """Batches of a loader on a device, the next one copied while the program computes with the last."""

    def __init__(self, loader: DataLoader[Any], device: torch.device, *, overlap: bool) -> None:
        self._loader = loader
        self._device = device
        self._stream = torch.cuda.Stream(device) if overlap and device.type == "cuda" else None

    def __len__(self) -> int:
        return len(self._loader)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def __iter__(self) -> Iterator[Any]:
        previous: Any = None
        for batch in self._loader:
            moved = self._move(batch)
            if previous is not None:
                yield self._ready(previous)
            previous = (moved,)
        if previous is not None:
            yield self._ready(previous)

    def _move(self, batch: Any) -> Any:
        if self._stream is None:
            return _to_device(batch, self._device)
        with torch.cuda.stream(self._stream):
            return _to_device(batch, self._device)

    def _ready(self, held: tuple[Any]) -> Any:
        if self._stream is not None:
            current = torch.cuda.current_stream(self._device)
            current.wait_stream(self._stream)
            for tensor in _tensors(held[0]):
                tensor.record_stream(current)
        return held[0]


def _to_device(batch: Any, device: torch.device) -> Any:
    if hasattr(batch, "to"):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return type(batch)({key: _to_device(value, device) for key, value in batch.items()})  # type: ignore[call-arg]
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_to_device(value, device) for value in batch))
    if isinstance(batch, (list, tuple)):
        return type(batch)(_to_device(value, device) for value in batch)
    return batch


def _tensors(batch: Any) -> Iterator[torch.Tensor]:
    if isinstance(batch, torch.Tensor):
        yield batch
    elif isinstance(batch, Mapping):
        for value in batch.values():
            yield from _tensors(value)
    elif isinstance(batch, (list, tuple)):
        for value in batch:
            yield from _tensors(value)
