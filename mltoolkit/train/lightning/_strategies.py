"""Lightning's strategies on workers that are there already."""

from __future__ import annotations

from typing import Any, ClassVar

from mltoolkit.lightning._package import PackageClass, implementation
from mltoolkit.train._session import current_session
from mltoolkit.train.lightning._environment import RayLightningEnvironment

__all__ = ["RayDDPStrategy", "RayDeepSpeedStrategy", "RayFSDPStrategy"]


class _OnWorkers(PackageClass):
    """What they have in common: the device and the ranks are the worker's, and no process is started."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if current_session() is None:
            raise RuntimeError(
                f"{type(self).__name__} works in a training function that TorchTrainer runs on its workers. To have a Trainer "
                "start workers itself use `mltoolkit.lightning.RayStrategy(num_workers=...)`."
            )
        super().__init__(*args, **kwargs)

    def _configure_launcher(self) -> None:
        self._launcher: Any = None
        own = implementation(RayLightningEnvironment, self._package)
        base: Any = own.__mro__[2]
        if type(self.cluster_environment) is base:  # the Trainer's own choice, where the program has made none
            self.cluster_environment: Any = own()
            self.set_world_ranks()

    @property
    def root_device(self) -> Any:
        """The worker's device."""
        from mltoolkit.train.torch._device import worker_devices

        return worker_devices()[0]

    @property
    def distributed_sampler_kwargs(self) -> dict[str, Any]:
        """How data loaders are split."""
        return {"num_replicas": self.world_size, "rank": self.global_rank}


class RayDDPStrategy(_OnWorkers):
    """Lightning's ``DDPStrategy`` in a training function.

    Parameters
    ----------
    **kwargs
        For ``DDPStrategy`` and ``DistributedDataParallel``. Backend and time-out are TorchConfig's.
    """

    _base_in_package: ClassVar[tuple[str, str]] = ("{package}.strategies", "DDPStrategy")


class RayFSDPStrategy(_OnWorkers):
    """Lightning's ``FSDPStrategy`` in a training function; on GPUs only, as Lightning has it.

    On CPUs ``mltoolkit.lightning.RayShardedStrategy`` shards models.

    Parameters
    ----------
    **kwargs
        For ``FSDPStrategy``.
    """

    _base_in_package: ClassVar[tuple[str, str]] = ("{package}.strategies", "FSDPStrategy")


class RayDeepSpeedStrategy(_OnWorkers):
    """Lightning's ``DeepSpeedStrategy`` in a training function; needs the package ``deepspeed``.

    Parameters
    ----------
    **kwargs
        For ``DeepSpeedStrategy``.
    """

    _base_in_package: ClassVar[tuple[str, str]] = ("{package}.strategies", "DeepSpeedStrategy")
