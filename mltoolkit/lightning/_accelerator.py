"""GPUs that the workers have and the driver has not."""

from __future__ import annotations

from typing import Any, ClassVar

from mltoolkit.lightning._package import PackageClass

__all__ = ["WorkerGPUs"]


class WorkerGPUs(PackageClass):
    """Lightning's accelerator for CUDA, which does not insist on a GPU where the program runs."""

    _base_in_package: ClassVar[tuple[str, str]] = ("{package}.accelerators", "CUDAAccelerator")

    @staticmethod
    def is_available() -> bool:
        """Yes: whether workers have theirs is said when they start."""
        return True

    @staticmethod
    def auto_device_count() -> int:
        """One for each worker."""
        return 1

    @staticmethod
    def parse_devices(devices: Any) -> Any:
        """Nothing to choose from here."""
        return [0]

    @staticmethod
    def get_parallel_devices(devices: Any) -> Any:
        """Any: the strategy knows better."""
        import torch

        return [torch.device("cuda", 0)]
