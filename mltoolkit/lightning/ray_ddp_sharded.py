"""Training with parameters, gradients and optimizer states sharded over the workers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mltoolkit.lightning.ray_ddp import RayPlugin, RayStrategy

__all__ = ["RayShardedPlugin", "RayShardedStrategy"]

_STEPS = ("training_step", "validation_step", "test_step", "predict_step")


class RayShardedStrategy(RayStrategy):
    """Trains one model sharded over worker processes: each keeps its part of parameters, gradients and optimizer states.

    The work is done by torch's FSDP2 (``fully_shard``), on GPUs and, with gloo, on CPUs. Whole parameters are there only
    while a step runs; each worker's optimizer updates its part. Checkpoints hold whole tensors, so they can be loaded by
    any other strategy, and those of others by this one.

    Parameters
    ----------
    num_workers, num_cpus_per_worker, use_gpu, init_hook, resources_per_worker, env_vars, process_group_backend, timeout
        As for :class:`RayStrategy`.
    shard_modules : callable, optional
        Takes a submodule and tells whether it is a unit of its own, gathered only while it is needed: for models whose
        whole parameters would not fit. By default the model is one unit.
    reshard_after_forward : bool, default=True
        Whether whole parameters are let go of between forward and backward pass.

    References
    ----------
    Rajbhandari et al., ZeRO: Memory Optimizations Toward Training Trillion Parameter Models, arXiv:1910.02054, Sec. 5.
    """

    strategy_name = "ddp_sharded_ray"

    def __init__(
        self,
        *args: Any,
        shard_modules: Callable[[Any], bool] | None = None,
        reshard_after_forward: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if self._ddp_kwargs:
            raise TypeError(
                f"{type(self).__name__} has no argument `{next(iter(self._ddp_kwargs))}`: that is one of "
                "DistributedDataParallel, which is not used. Use RayStrategy, or leave it out."
            )
        if shard_modules is not None and not callable(shard_modules):
            raise TypeError(f"`shard_modules` must be a function of a module, got {shard_modules!r}.")
        self._shard_modules = shard_modules
        self._reshard_after_forward = bool(reshard_after_forward)
        self._mesh: Any = None

    # Setting up

    def _setup_model(self, model: Any) -> Any:
        """Shard a model in place."""
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

        mesh = self._mesh = init_device_mesh(self.root_device.type, (self.num_workers,))
        options = {"mesh": mesh, "reshard_after_forward": self._reshard_after_forward}
        if self._shard_modules is not None:
            for inner in reversed([module for module in model.modules() if module is not model]):
                if self._shard_modules(inner):
                    fully_shard(inner, **options)
        fully_shard(model, **options)
        for name in _STEPS:
            if callable(getattr(model, name, None)):
                register_fsdp_forward_method(model, name)
        return model

    def configure_ddp(self) -> None:
        """Shard where others wrap."""
        self._note_new_modules()
        self.model: Any = self._setup_model(self.model)

    def teardown(self) -> None:
        """Put the model together again: after a run it is a plain one on every rank."""
        module = self.lightning_module
        if module is not None and self._mesh is not None:
            self._final_state = _whole(module.state_dict())
            self._mesh = None
        super().teardown()

    _final_state: dict[str, Any] | None = None

    def whole_state_dict(self) -> dict[str, Any]:
        """State dict of the model after training, with whole tensors."""
        if self._final_state is not None:
            return self._final_state
        return _whole(super().whole_state_dict())

    def optimizers_to_return(self) -> Any:
        """None: states that are sharded because they are large are not gathered when nobody has asked."""
        return [], []

    _why_without_optimizers = "they stay sharded on the workers, and end with them"

    # Checkpoints

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """State dict with whole tensors, gathered from all ranks."""
        return _whole(self.lightning_module.state_dict())

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Load whole tensors into the model, each rank its part."""
        own = dict(self.lightning_module.state_dict())
        parts = {name: _like(value, own.get(name)) for name, value in checkpoint["state_dict"].items()}
        self.lightning_module.load_state_dict(parts, strict=strict)

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """State dict of an optimizer with whole tensors."""
        plain = getattr(optimizer, "_optimizer", optimizer)
        state: dict[str, Any] = plain.state_dict()
        return {**state, "state": {key: _whole(each) for key, each in state["state"].items()}}

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Load whole tensors into the optimizers, each rank its part."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [each for group in optimizer.param_groups for each in group["params"]]
            parts = {
                key: {
                    name: _like(value, parameters[key]) if _same_shape(value, parameters[key]) else value
                    for name, value in each.items()
                }
                for key, each in state["state"].items()
            }
            optimizer.load_state_dict({**state, "state": parts})


class RayShardedPlugin(RayShardedStrategy, RayPlugin):
    """:class:`RayShardedStrategy` under its older name, for ``Trainer(plugins=[RayShardedPlugin(...)])``."""


def _whole(state: Mapping[str, Any]) -> dict[str, Any]:
    """A state with whole tensors in place of shards; all ranks take part."""
    return {name: value.full_tensor() if hasattr(value, "full_tensor") else value for name, value in state.items()}


def _like(value: Any, own: Any) -> Any:
    """A whole tensor, sharded as another is."""
    if own is None or not hasattr(own, "full_tensor") or hasattr(value, "full_tensor"):
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(own.device), own.device_mesh, own.placements)


def _same_shape(value: Any, parameter: Any) -> bool:
    return hasattr(parameter, "full_tensor") and getattr(value, "shape", None) == parameter.shape
