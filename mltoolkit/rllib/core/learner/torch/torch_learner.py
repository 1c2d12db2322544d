"""Learners whose modules are torch's."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mltoolkit.rllib.core.columns import Columns
from mltoolkit.rllib.core.learner.errors import NonFiniteLossError
from mltoolkit.rllib.core.learner.flat_adam import FlatAdam
from mltoolkit.rllib.core.learner.flat_parameters import FlatParameters
from mltoolkit.rllib.core.learner.gradient_clipping import clip_gradients, global_norm
from mltoolkit.rllib.core.learner.learner import DEFAULT_OPTIMIZER, LR_KEY, TOTAL_LOSS_KEY, Learner
from mltoolkit.rllib.core.learner.torch._state import arrays_of, load_optimizer_state
from mltoolkit.rllib.core.learner.torch._threads import thread_limit
from mltoolkit.rllib.core.learner.train_batch import TrainBatch
from mltoolkit.rllib.utils.metrics import DEFAULT_MODULE_ID
from mltoolkit.rllib.utils.schedules import Scheduler

__all__ = ["TorchLearner"]

logger = logging.getLogger(__name__)

Gradients = dict[torch.nn.Parameter, torch.Tensor]


@dataclass
class _Registered:
    """An optimizer, with what it updates and the course of its learning rate."""

    optimizer: Any
    params: list[torch.nn.Parameter]
    schedule: Scheduler | None


class TorchLearner(Learner):
    """A learner of torch modules.

    The module's parameters become views of one tensor, and so do their gradients, so that what happens to all of them
    is one operation. The optimizer is Adam unless ``config.optimizer`` is a class of ``torch.optim`` or a function of
    the parameters and ``lr``.

    An update uses as few threads as the module's size warrants, and a state of torch's random generator of its own;
    both are put back afterwards.
    """

    framework = "torch"

    def __init__(self, *, config: Any, module: Any = None, module_spec: Any = None) -> None:
        super().__init__(config=config, module=module, module_spec=module_spec)
        self._device = torch.device("cpu")
        self._optimizers: dict[str, dict[str, _Registered]] = {}
        self._random_state: torch.Tensor | None = None
        self._cuda_random_state: torch.Tensor | None = None
        self._num_skipped = 0

    @property
    def device(self) -> torch.device:
        """Where the module is updated."""
        return self._device

    # -- life ----------------------------------------------------------------------------------------------------------

    def _prepare_module(self, module: Any) -> Any:
        if not isinstance(module, torch.nn.Module):
            raise TypeError(f"A module of a torch learner must be a torch.nn.Module, got {type(module).__name__}.")
        self._device = learner_device(self.config)
        module.to(self._device)
        self._flat = FlatParameters(module.named_parameters())
        self._gradients: Gradients = {
            parameter: parameter.grad for parameter in self._flat.parameters.values() if parameter.grad is not None
        }
        if self.collective is not None:
            # All start from the first learner's weights, whatever each was built with.
            self.collective.broadcast(self._flat.values)
        generator = torch.Generator(self._device)
        if self.config.seed is None:
            generator.seed()
        else:
            generator.manual_seed(self.config.seed)
        if self._device.type == "cuda":
            self._cuda_random_state = generator.get_state()
            generator = torch.Generator()
            generator.manual_seed(int(self.rng.integers(2**63)) if self.config.seed is None else self.config.seed)
        self._random_state = generator.get_state()
        return module

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        """Make the optimizer of a module: ``config.optimizer``, or Adam."""
        config = self.config_for(module_id) if config is None else config
        lr = config.lr_schedule or config.lr
        schedule = Scheduler(lr, setting_name="lr")
        params = list(self._flat.parameters.values())
        optimizer: Any
        if config.optimizer:
            optimizer = make_optimizer(config.optimizer, params, schedule.get_current_value())
        else:
            optimizer = FlatAdam(self._flat, lr=schedule.get_current_value(), eps=config.adam_epsilon)
        self.register_optimizer(module_id=module_id, optimizer=optimizer, params=params, lr_or_lr_schedule=lr)

    def register_optimizer(
        self,
        *,
        module_id: str = DEFAULT_MODULE_ID,
        optimizer_name: str = DEFAULT_OPTIMIZER,
        optimizer: Any,
        params: Sequence[torch.nn.Parameter],
        lr_or_lr_schedule: Any = None,
    ) -> None:
        """Register an optimizer; to be called by :meth:`configure_optimizers_for_module`.

        Parameters
        ----------
        module_id : str
            Whose parameters it updates.
        optimizer_name : str
            Part of the names of its metrics.
        optimizer : torch.optim.Optimizer
            The optimizer.
        params : sequence of torch.nn.Parameter
            What it updates.
        lr_or_lr_schedule : float or list of [timestep, value], optional
            Its learning rate; None leaves the rate to the optimizer.
        """
        if module_id not in self._modules:
            raise ValueError(f"`module_id` must be one of {sorted(self._modules)}, got {module_id!r}.")
        if not callable(getattr(optimizer, "step", None)):
            raise TypeError(f"`optimizer` must be a torch.optim.Optimizer, got {optimizer!r}.")
        schedule = None
        if lr_or_lr_schedule is not None:
            schedule = Scheduler(lr_or_lr_schedule, setting_name="lr_or_lr_schedule")
            _set_lr(optimizer, schedule.get_current_value())
        self._optimizers.setdefault(module_id, {})[optimizer_name] = _Registered(optimizer, list(params), schedule)

    def get_optimizer(self, module_id: str = DEFAULT_MODULE_ID, optimizer_name: str = DEFAULT_OPTIMIZER) -> Any:
        """An optimizer that was registered.

        Raises
        ------
        KeyError
            If there is none of this name.
        """
        try:
            return self._optimizers[module_id][optimizer_name].optimizer
        except KeyError:
            known = [f"{module}/{name}" for module, named in self._optimizers.items() for name in named]
            raise KeyError(f"No optimizer {module_id}/{optimizer_name}; there is {', '.join(known)}.") from None

    # -- update --------------------------------------------------------------------------------------------------------

    def _update_from_minibatches(
        self, batch: TrainBatch, chunks: Iterator[np.ndarray], *, num_minibatches: int
    ) -> None:
        module = self._modules[DEFAULT_MODULE_ID]
        for minibatch in self._minibatches(batch, chunks):
            fwd_out = {DEFAULT_MODULE_ID: module.forward_train(minibatch)}
            losses = self.compute_losses(fwd_out=fwd_out, batch={DEFAULT_MODULE_ID: minibatch})
            for module_id, loss in losses.items():
                self.register_metric(module_id, TOTAL_LOSS_KEY, loss)
            gradients = self.compute_gradients(losses)
            self._average_over_learners(gradients)
            self.apply_gradients(self.postprocess_gradients(gradients))

    def _minibatches(self, batch: TrainBatch, chunks: Iterator[np.ndarray]) -> Iterator[dict[str, Any]]:
        """Cut minibatches out of copies of about an epoch: one copy of many rows is faster than many of few."""
        on_device = None
        if self._device.type != "cpu":
            on_device = {name: self._tensor(column) for name, column in batch.columns.items()}
            states = {name: self._tensor(state) for name, state in batch.state_in.items()}
        for chunk in chunks:
            count, size = chunk.shape
            rows = chunk.ravel()
            if on_device is None:
                columns = {name: torch.from_numpy(column[rows]) for name, column in batch.columns.items()}
                state_in = {name: torch.from_numpy(state[rows]) for name, state in batch.state_in.items()}
            else:
                index = torch.from_numpy(rows).to(self._device)
                columns = {name: column[index] for name, column in on_device.items()}
                state_in = {name: state[index] for name, state in states.items()}
            for first in range(0, count * size, size):
                part = slice(first, first + size)
                minibatch: dict[str, Any] = {name: column[part] for name, column in columns.items()}
                if state_in:
                    minibatch[Columns.STATE_IN] = {name: state[part] for name, state in state_in.items()}
                yield minibatch

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        array = np.ascontiguousarray(array)
        # What came through shared memory is read-only, which a tensor can not be.
        tensor = torch.from_numpy(array if array.flags.writeable else array.copy())
        return tensor if self._device.type == "cpu" else tensor.to(self._device)

    def compute_losses(self, *, fwd_out: dict[str, Any], batch: dict[str, Any]) -> dict[str, Any]:
        """Compute the loss of each module, and hand it to the ``custom_loss`` of a custom model that has one."""
        losses = super().compute_losses(fwd_out=fwd_out, batch=batch)
        for module_id in losses:
            custom_loss = self._custom_loss(module_id)
            if custom_loss is not None:
                changed = custom_loss([losses[module_id]], batch[module_id])
                losses[module_id] = sum(changed) if isinstance(changed, (list, tuple)) else changed
                model_metrics = getattr(getattr(custom_loss, "__self__", None), "metrics", None)
                if callable(model_metrics):
                    for key, value in (model_metrics() or {}).items():
                        self._epoch_keys.add((module_id, "model", key))
                        self.metrics.log_value((module_id, "model", key), value, window=self._logged_minibatches)
        return losses

    def _custom_loss(self, module_id: str) -> Callable[..., Any] | None:
        """The ``custom_loss`` of a module or of the model that it adapts, where the user gave one."""
        module = self._modules[module_id]
        for owner in (module, getattr(module, "model", None)):
            method = getattr(owner, "custom_loss", None)
            if method is not None and not getattr(method, "_is_default", False):
                return method
        return None

    def compute_gradients(self, loss_per_module: dict[str, Any], **kwargs: Any) -> Gradients:
        """Compute the gradients of the summed losses.

        Returns
        -------
        dict
            From parameter to gradient; empty where nothing can be trained.
        """
        total = sum(loss_per_module.values())
        if not isinstance(total, torch.Tensor) or total.grad_fn is None:
            return {}
        self._flat.gradients.zero_()
        torch.autograd.backward(total)
        return dict(self._gradients)

    def _average_over_learners(self, gradients: Gradients) -> None:
        if self.collective is not None:
            self._in_buffer(gradients)
            self.collective.average(self._flat.gradients)

    def _in_buffer(self, gradients: Gradients) -> None:
        """Move gradients that a custom learner computed elsewhere into the buffer."""
        for parameter, view in self._gradients.items():
            given = gradients.get(parameter)
            if given is None:
                view.zero_()
            elif given is not view:
                view.copy_(given)

    def _is_whole(self, gradients: Gradients) -> bool:
        return len(gradients) == len(self._gradients) and all(
            gradients.get(parameter) is view for parameter, view in self._gradients.items()
        )

    def postprocess_gradients(self, gradients_dict: Gradients) -> Gradients:
        """Clip the gradients of each optimizer, and log their norm before that."""
        if not gradients_dict:
            return gradients_dict
        config = self.config
        whole = self._is_whole(gradients_dict)
        by_norm = config.grad_clip_by == "global_norm"
        for module_id, named in self._optimizers.items():
            for name, registered in named.items():
                parts = [gradients_dict[each] for each in registered.params if each in gradients_dict]
                joint = whole and len(registered.params) == len(self._gradients)
                together = [self._flat.gradients] if joint else parts
                norm = None
                if config.log_gradients or (config.grad_clip and by_norm):
                    norm = global_norm(together)
                    self.register_metric(module_id, f"gradients_{name}_global_norm", norm)
                if config.grad_clip:
                    clip_gradients(
                        parts if config.grad_clip_by == "norm" else together,
                        grad_clip=config.grad_clip,
                        grad_clip_by=config.grad_clip_by,
                        norm=norm,
                    )
        return gradients_dict

    def apply_gradients(self, gradients_dict: Gradients) -> None:
        """Let each optimizer make a step.

        With ``config.torch_skip_nan_gradients`` a minibatch whose gradients are not finite makes none.
        """
        if not gradients_dict:
            return
        if not self._is_whole(gradients_dict):
            self._in_buffer(gradients_dict)
        self._step()

    def _apply_buffer(self, *, log: bool) -> None:
        """Average, clip and apply the gradients that are in the buffer, on the CPU."""
        config, flat = self.config, self._flat
        if self.collective is not None:
            self.collective.average(flat.gradients)
        several = len(self._optimizers) != 1 or len(self._optimizers[DEFAULT_MODULE_ID]) != 1
        if several or config.grad_clip_by != "global_norm":
            self.postprocess_gradients(dict(self._gradients))
        elif config.grad_clip or config.log_gradients:
            gradients = flat.gradients.numpy()
            norm = float(np.dot(gradients, gradients)) ** 0.5
            if log:
                for name in self._optimizers[DEFAULT_MODULE_ID]:
                    self.register_metric(DEFAULT_MODULE_ID, f"gradients_{name}_global_norm", norm)
            if config.grad_clip and not norm <= config.grad_clip:
                flat.gradients.mul_(config.grad_clip / (norm + 1e-6))
        self._step()

    def _step(self) -> None:
        if self._skips_nan and not bool(torch.isfinite(self._flat.gradients).all()):
            if self._num_skipped == 0:
                logger.warning(
                    "A minibatch is skipped, since its gradients are not finite (`torch_skip_nan_gradients=True`). "
                    "Further ones are counted in `num_skipped_minibatches`."
                )
            self._num_skipped += 1
            self._flat.gradients.zero_()
            return
        for named in self._optimizers.values():
            for registered in named.values():
                registered.optimizer.step()

    @property
    def _skips_nan(self) -> bool:
        return bool(self.config.torch_skip_nan_gradients)

    def _update_learning_rates(self, timestep: int) -> None:
        for module_id, named in self._optimizers.items():
            for name, registered in named.items():
                if registered.schedule is not None:
                    _set_lr(registered.optimizer, registered.schedule.update(timestep))
                self._log(module_id, **{f"{name}_{LR_KEY}": _get_lr(registered.optimizer)})
        if self._skips_nan:
            self._log(DEFAULT_MODULE_ID, num_skipped_minibatches=self._num_skipped)

    @contextmanager
    def _training(self) -> Iterator[None]:
        cuda = self._device.type == "cuda"
        before = torch.get_rng_state()
        cuda_before = torch.cuda.get_rng_state(self._device) if cuda else None
        torch.set_rng_state(self._random_state)
        if cuda:
            torch.cuda.set_rng_state(self._cuda_random_state, self._device)
        try:
            with thread_limit(self._num_threads()), torch.enable_grad():
                yield
        finally:
            self._random_state = torch.get_rng_state()
            torch.set_rng_state(before)
            if cuda_before is not None:
                self._cuda_random_state = torch.cuda.get_rng_state(self._device)
                torch.cuda.set_rng_state(cuda_before, self._device)

    def _num_threads(self) -> int | None:
        """Threads of an update; None for as many as the process has.

        Small matrices are multiplied faster by one thread than it takes to hand them to others.
        """
        if self._device.type != "cpu":
            return None
        weights = [parameter for parameter in self._modules[DEFAULT_MODULE_ID].parameters() if parameter.ndim > 1]
        if any(weight.ndim > 2 for weight in weights):  # convolutions, which use each weight often
            return None
        rows = self.config.minibatch_size or self.config.train_batch_size_per_learner
        return 1 if sum(weight.numel() for weight in weights) * rows < _SINGLE_THREAD_WORK else None

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        values = self._flat.values.clone()
        optimizers = [
            (each.optimizer, _snapshot(each.optimizer))
            for named in self._optimizers.values()
            for each in named.values()
        ]
        try:
            yield
        except BaseException:
            self._flat.values.copy_(values)
            # The gaps between parameters, too, which no backward pass writes to.
            self._flat.gradients.zero_()
            for optimizer, state in optimizers:
                optimizer.rollback(state) if isinstance(optimizer, FlatAdam) else optimizer.load_state_dict(state)
            self.metrics.reset()
            self._epoch_keys.clear()
            raise

    def _check_finite(self) -> None:
        if self._skips_nan:
            return
        total = self.metrics.peek((DEFAULT_MODULE_ID, TOTAL_LOSS_KEY), 0.0)
        if np.isfinite(total) and bool(torch.isfinite(self._flat.values).all()):
            return
        part = "weights"
        for name, value in self.metrics.peek().get(DEFAULT_MODULE_ID, {}).items():
            # The first part names the cause best; the sum and what is measured of it are not finite then, either.
            if isinstance(value, float) and not np.isfinite(value):
                part = name
                break
        raise NonFiniteLossError(
            DEFAULT_MODULE_ID,
            part,
            self._num_updates,
            "the weights are those from before this update. Lower `lr`, set `grad_clip`, or normalise observations and "
            "rewards; `torch_skip_nan_gradients=True` skips such minibatches.",
        )

    def _num_parameters(self) -> tuple[int, int]:
        trainable = self._flat.num_parameters
        return trainable, sum(each.numel() for each in self._modules[DEFAULT_MODULE_ID].parameters()) - trainable

    # -- state ---------------------------------------------------------------------------------------------------------

    def get_weights(self) -> dict[str, np.ndarray]:
        """The module's weights, by the names of its ``state_dict``; copies."""
        return {
            name: tensor.detach().cpu().numpy().copy()
            for name, tensor in self._modules[DEFAULT_MODULE_ID].state_dict().items()
        }

    def set_weights(self, weights: Mapping[str, Any]) -> None:
        """Set the module's weights.

        Raises
        ------
        ValueError
            If names or shapes are not the module's; nothing is changed then.
        """
        own = self._modules[DEFAULT_MODULE_ID].state_dict()
        given = {name: torch.tensor(np.asarray(value)) for name, value in weights.items()}
        wrong = [name for name in own.keys() | given.keys() if name not in own or name not in given]
        wrong += [name for name in own.keys() & given.keys() if own[name].shape != given[name].shape]
        if wrong:
            raise ValueError(
                f"The weights are of another network; these differ in name or shape: {', '.join(sorted(wrong))}."
            )
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(given[name])

    def get_state(self) -> dict[str, Any]:
        """All that an update depends on, as arrays, numbers and strings: the next update goes on bit for bit."""
        assert self._random_state is not None
        state = super().get_state()
        state["torch_rng"] = self._random_state.numpy().copy()
        if self._cuda_random_state is not None:
            state["torch_cuda_rng"] = self._cuda_random_state.cpu().numpy().copy()
        state["num_skipped_minibatches"] = self._num_skipped
        return state

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take up what :meth:`get_state` gave; a state with weights only sets these."""
        super().set_state(state)
        if "torch_rng" not in state:
            return
        self._random_state = torch.tensor(np.asarray(state["torch_rng"]), dtype=torch.uint8)
        if self._cuda_random_state is not None and "torch_cuda_rng" in state:
            self._cuda_random_state = torch.tensor(np.asarray(state["torch_cuda_rng"]), dtype=torch.uint8)
        self._num_skipped = int(state["num_skipped_minibatches"])

    def _optimizer_state(self) -> dict[str, Any]:
        return {
            module_id: {
                name: {
                    "state": arrays_of(each.optimizer),
                    "lr": _get_lr(each.optimizer),
                    "schedule": None if each.schedule is None else each.schedule.get_state(),
                }
                for name, each in named.items()
            }
            for module_id, named in self._optimizers.items()
        }

    def _set_optimizer_state(self, state: Mapping[str, Any]) -> None:
        own = {(module_id, name) for module_id, named in self._optimizers.items() for name in named}
        given = {(module_id, name) for module_id, named in state.items() for name in named}
        if own != given:
            raise ValueError(f"The state is of the optimizers {sorted(given)}, this learner has {sorted(own)}.")
        for module_id, name in own:
            each, saved = self._optimizers[module_id][name], state[module_id][name]
            load_optimizer_state(each.optimizer, saved["state"], self._device)
            lr = float(saved["lr"])
            if each.schedule is not None and saved["schedule"] is not None:
                # The rate may have been set anew since: by `from_checkpoint(..., lr=...)`, or by a sweep.
                each.schedule.set_state(saved["schedule"])
                lr = each.schedule.get_current_value()
            _set_lr(each.optimizer, lr)


# Multiplications of a forward pass below which one thread is as fast as several.
_SINGLE_THREAD_WORK = 50e6


def learner_device(config: Any) -> torch.device:
    """Where a learner works: on a GPU if it has reserved one.

    Raises
    ------
    RuntimeError
        If it has, and torch finds none.
    """
    remote = config.num_learners > 0
    name = "num_gpus_per_learner" if remote or config.num_gpus_per_learner else "num_gpus"
    amount = config.num_gpus_per_learner or (0 if remote else config.num_gpus)
    if not amount:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise RuntimeError(
            f"`{name}` is {amount}, but torch finds no GPU in the learner's process. Set it to 0 to learn on the CPU, "
            "or install a torch that was built for the GPU's driver."
        )
    index = 0 if remote else int(config.local_gpu_idx)
    if index >= torch.cuda.device_count():
        raise RuntimeError(f"`local_gpu_idx` is {index}, but torch finds {torch.cuda.device_count()} GPUs.")
    return torch.device("cuda", index)


def make_optimizer(setting: Any, params: list[torch.nn.Parameter], lr: float) -> Any:
    """Call what ``config.optimizer`` holds.

    Raises
    ------
    TypeError
        If it is nothing to call, or does not return an optimizer.
    """
    if not callable(setting):
        raise TypeError(
            "`optimizer` must be a class of torch.optim, or a function of the parameters and `lr`, such as "
            f"`functools.partial(torch.optim.SGD, momentum=0.9)`, got {setting!r}."
        )
    optimizer = setting(params, lr=lr)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"`optimizer` must return a torch.optim.Optimizer, got {optimizer!r} from {setting!r}.")
    return optimizer


def _get_lr(optimizer: Any) -> float:
    return float(optimizer.lr if isinstance(optimizer, FlatAdam) else optimizer.param_groups[0]["lr"])


def _set_lr(optimizer: Any, lr: float) -> None:
    if isinstance(optimizer, FlatAdam):
        optimizer.lr = lr
        return
    for group in optimizer.param_groups:
        group["lr"] = lr


def _snapshot(optimizer: Any) -> Any:
    return optimizer.snapshot() if isinstance(optimizer, FlatAdam) else copy.deepcopy(optimizer.state_dict())
