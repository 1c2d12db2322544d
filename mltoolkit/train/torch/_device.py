"""Which of torch's devices a worker has."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import mltoolkit

if TYPE_CHECKING:
    import torch

__all__ = ["default_device", "worker_devices"]


def worker_devices() -> list[torch.device]:
    """The devices of this worker: its GPUs as CUDA numbers them here, or the CPU."""
    import torch

    ids = [str(each) for each in mltoolkit.get_gpu_ids()] if mltoolkit.is_initialized() else []
    if not ids:
        return [torch.device("cpu")]
    if not torch.cuda.is_available():
        raise RuntimeError(
            f"This worker was given GPU {', '.join(ids)}, but torch finds none: "
            f"{'this is a build of torch for CPUs' if torch.version.cuda is None else 'no CUDA driver works here'}. "
            "Leave `use_gpu` out, or install what is missing."
        )
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    order = visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]
    return [torch.device("cuda", order.index(each)) for each in ids if each in order]


@contextmanager
def default_device() -> Iterator[None]:
    """Make the worker's first GPU, if it has one, the default one."""
    import torch

    device = worker_devices()[0]
    if device.type == "cuda":
        torch.cuda.set_device(device)
    yield
