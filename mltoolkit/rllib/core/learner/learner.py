"""What updates a module from sampled fragments."""

from __future__ import annotations

import abc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from mltoolkit.rllib.core.columns import Columns
from mltoolkit.rllib.core.learner.collective import Collective
from mltoolkit.rllib.core.learner.learner_metrics import LearnerMetrics
from mltoolkit.rllib.core.learner.train_batch import (
    Fragment,
    TrainBatch,
    check_fragments,
    make_train_batch,
    minibatch_rows,
    num_minibatches,
)
from mltoolkit.rllib.utils.metrics import ALL_MODULES, DEFAULT_MODULE_ID, NUM_ENV_STEPS_SAMPLED_LIFETIME
from mltoolkit.rllib.utils.metrics.metrics_logger import Key

__all__ = ["ENTROPY_KEY", "LR_KEY", "POLICY_LOSS_KEY", "TOTAL_LOSS_KEY", "VF_LOSS_KEY", "Learner"]

TOTAL_LOSS_KEY = "total_loss"
POLICY_LOSS_KEY = "policy_loss"
VF_LOSS_KEY = "vf_loss"
ENTROPY_KEY = "entropy"
LR_KEY = "learning_rate"

DEFAULT_OPTIMIZER = "default_optimizer"


class ModuleMap(dict[str, Any]):
    """The modules that a learner updates, by id."""

    def unwrapped(self) -> ModuleMap:
        """The map itself: nothing is wrapped around it."""
        return self


class Learner(abc.ABC):
    """Owner of a module and its optimizers.

    A subclass overrides :meth:`compute_loss_for_module`, usually calling ``super()``, and is given to
    ``config.training(learner_class=...)``. :meth:`update` calls, for each minibatch, the module's ``forward_train``,
    then :meth:`compute_losses`, :meth:`compute_gradients`, :meth:`postprocess_gradients` and :meth:`apply_gradients`,
    and, around all minibatches, :meth:`before_gradient_based_update` and :meth:`after_gradient_based_update`.

    Parameters
    ----------
    config : AlgorithmConfig
        Settings; ``config.learner_config_dict`` is for custom learners.
    module : RLModule, optional
        The module to update.
    module_spec : RLModuleSpec, optional
        Builds the module where none is given.

    Attributes
    ----------
    module : mapping of str to RLModule
        The modules, by id. There is one, ``"default_policy"``.
    metrics : MetricsLogger
        What is logged here during an update is in its result.
    rng : numpy.random.Generator
        Draws the minibatches; seeded from ``config.seed``, independent of global seeds.
    """

    framework: ClassVar[str]

    def __init__(self, *, config: Any, module: Any = None, module_spec: Any = None) -> None:
        if (module is None) == (module_spec is None):
            raise ValueError("A learner takes either `module` or `module_spec`, and exactly one of them.")
        self.config = config
        self.metrics = LearnerMetrics()
        self.rng = np.random.default_rng(config.seed)
        self.collective: Collective | None = None
        self._module_spec = module_spec
        self._module_obj = module
        self._modules = ModuleMap()
        self._is_built = False
        self._num_updates = 0
        self._logged_minibatches = 1
        self._epoch_keys: set[Key] = set()
        self._lifetime_steps = 0

    # -- life ----------------------------------------------------------------------------------------------------------

    @property
    def module(self) -> ModuleMap:
        """The modules, by id."""
        return self._modules

    @property
    def distributed(self) -> bool:
        """Whether gradients are averaged over several learners."""
        return self.collective is not None

    def build(self) -> None:
        """Build the module if need be, and the optimizers. To be called once, before all else."""
        if self._is_built:
            return
        module = self._module_obj if self._module_obj is not None else self._module_spec.build()
        self._modules[DEFAULT_MODULE_ID] = self._prepare_module(module)
        self.configure_optimizers()
        self._is_built = True

    def shutdown(self) -> None:
        """Let go of what other processes see. The learner can not update any more where there were any."""
        if self.collective is not None:
            self.collective.close()

    @abc.abstractmethod
    def _prepare_module(self, module: Any) -> Any:
        """Move the module to its device."""

    def configure_optimizers(self) -> None:
        """Make the optimizers of all modules; calls :meth:`configure_optimizers_for_module`."""
        for module_id in self._modules:
            self.configure_optimizers_for_module(module_id, self.config_for(module_id))

    @abc.abstractmethod
    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        """Make the optimizers of a module; an override calls :meth:`register_optimizer` for each."""

    def config_for(self, module_id: str) -> Any:
        """The settings for one module."""
        get = getattr(self.config, "get_config_for_module", None)
        return self.config if get is None else get(module_id)

    # -- update --------------------------------------------------------------------------------------------------------

    def update(
        self,
        fragments: Sequence[Fragment],
        *,
        timesteps: Mapping[str, int] | None = None,
        num_epochs: int | None = None,
        minibatch_size: int | None = None,
        shuffle_batch_per_epoch: bool | None = None,
    ) -> dict[str, Any]:
        """Learn from fragments.

        Parameters
        ----------
        fragments : list of dict of str to ndarray
            What environment runners sampled: time-major arrays of T steps of N environments.
        timesteps : dict, optional
            ``num_env_steps_sampled_lifetime`` moves the schedules.
        num_epochs, minibatch_size, shuffle_batch_per_epoch : optional
            In place of the settings of these names.

        Returns
        -------
        dict
            Losses, means over the minibatches of the last epoch, and counts, below ``"default_policy"`` and
            ``"__all_modules__"``.

        Raises
        ------
        NonFiniteLossError
            If a loss or gradient became NaN or infinite. The weights and optimizers are those from before the update.
        ValueError
            If the fragments lack a column, or hold no step to learn from.
        """
        if not self._is_built:
            raise RuntimeError(f"Call `{type(self).__name__}.build()` before `update()`.")
        config, timesteps = self.config, dict(timesteps or {})
        num_epochs = config.num_epochs if num_epochs is None else num_epochs
        minibatch_size = config.minibatch_size if minibatch_size is None else minibatch_size
        shuffle = config.shuffle_batch_per_epoch if shuffle_batch_per_epoch is None else shuffle_batch_per_epoch
        for name, value in (("num_epochs", num_epochs), ("minibatch_size", minibatch_size)):
            if value is not None and value < 1:
                raise ValueError(f"`{name}` must be at least 1, got {value!r}.")
        started = time.perf_counter()
        self._num_updates += 1
        with self._training(), self._all_or_nothing():
            self.before_gradient_based_update(timesteps=timesteps)
            batch = self._make_batch(fragments)
            size = self._rows_per_minibatch(batch, minibatch_size)
            count = num_minibatches(len(batch.rows), size, num_epochs)
            per_epoch = -(-count // num_epochs)
            if self.collective is not None:
                # A learner that had fewer minibatches than others would leave them waiting for its gradients.
                count, per_epoch = self.collective.largest([count, per_epoch])
            self._logged_minibatches = per_epoch
            chunks = minibatch_rows(batch.rows, size=size, num_minibatches=count, shuffle=shuffle, rng=self.rng)
            self._update_from_minibatches(batch, chunks, num_minibatches=count)
            self._check_finite()
            self.after_gradient_based_update(timesteps=timesteps)
        trained = count * size * (batch.seq_len or 1)
        return self._results(trained, size * (batch.seq_len or 1), time.perf_counter() - started)

    def _make_batch(self, fragments: Sequence[Fragment]) -> TrainBatch:
        fragments = self._connect(fragments)
        check_fragments(fragments)
        max_seq_len = None
        module = self._modules[DEFAULT_MODULE_ID]
        if module.is_stateful():
            lacking = [name for name in (Columns.STATE_IN, Columns.IS_FIRST) if name not in fragments[0]]
            if lacking:
                raise ValueError(f"A stateful module needs {' and '.join(map(repr, lacking))} in each fragment.")
            max_seq_len = int(module.model_config["max_seq_len"])
        if not self.config.add_default_connectors_to_learner_pipeline:
            return make_train_batch(fragments, max_seq_len=max_seq_len)
        fragments = self._add_targets([dict(fragment) for fragment in fragments])
        return self._finish_batch(make_train_batch(fragments, max_seq_len=max_seq_len))

    def _connect(self, fragments: Sequence[Fragment]) -> Sequence[Fragment]:
        """Send the fragments through ``config.learner_connector``, each as a batch of time-major arrays."""
        make = self.config._learner_connector
        if make is None:
            return fragments
        module = self._modules[DEFAULT_MODULE_ID]
        made = make(getattr(module, "observation_space", None), getattr(module, "action_space", None))
        shared: dict[str, Any] = {}
        connected = list(fragments)
        for connector in made if isinstance(made, (list, tuple)) else [made]:
            for index, fragment in enumerate(connected):
                out = connector(
                    rl_module=self.module,
                    batch={DEFAULT_MODULE_ID: dict(fragment)},
                    episodes=[],
                    explore=False,
                    shared_data=shared,
                    metrics=self.metrics,
                )
                if not isinstance(out, Mapping) or DEFAULT_MODULE_ID not in out:
                    raise ValueError(
                        f"The learner connector {connector!r} must return its `batch`, a dict with the key "
                        f"{DEFAULT_MODULE_ID!r}, got {out!r}."
                    )
                connected[index] = out[DEFAULT_MODULE_ID]
        return connected

    def _add_targets(self, fragments: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Add what the loss compares with; an algorithm's part of the batch."""
        return fragments

    def _finish_batch(self, batch: TrainBatch) -> TrainBatch:
        """Change the whole batch before it is cut into minibatches; an algorithm's part."""
        return batch

    def _rows_per_minibatch(self, batch: TrainBatch, minibatch_size: int | None) -> int:
        if minibatch_size is None:
            return len(batch.rows)
        return max(1, minibatch_size // (batch.seq_len or 1))

    @abc.abstractmethod
    def _update_from_minibatches(
        self, batch: TrainBatch, chunks: Iterator[np.ndarray], *, num_minibatches: int
    ) -> None:
        """Go through the minibatches."""

    @contextmanager
    def _training(self) -> Iterator[None]:
        """What holds during an update and is put back afterwards: threads and random numbers of the framework."""
        yield

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """Put weights and optimizers back if the update fails."""
        yield

    @abc.abstractmethod
    def _check_finite(self) -> None:
        """Raise NonFiniteLossError if a loss was."""

    def before_gradient_based_update(  # noqa: B027  # a hook: nothing to do is the default
        self, *, timesteps: dict[str, Any]
    ) -> None:
        """Prepare an update; for overriding.

        Parameters
        ----------
        timesteps : dict
            ``num_env_steps_sampled_lifetime``: environment steps sampled so far.
        """

    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """Move schedules to the present timestep. Overrides call ``super()``.

        Parameters
        ----------
        timesteps : dict
            ``num_env_steps_sampled_lifetime``: environment steps sampled so far.
        """
        self._update_learning_rates(int(timesteps.get(NUM_ENV_STEPS_SAMPLED_LIFETIME, 0)))

    @abc.abstractmethod
    def _update_learning_rates(self, timestep: int) -> None:
        """Move the learning rates' schedules, and log the rates."""

    def compute_losses(self, *, fwd_out: dict[str, Any], batch: dict[str, Any]) -> dict[str, Any]:
        """Compute the loss of each module.

        Parameters
        ----------
        fwd_out : dict
            What each module's ``forward_train`` returned, by module id.
        batch : dict
            The minibatch of each module, by module id.

        Returns
        -------
        dict
            The loss of each module, a tensor with one element.
        """
        return {
            module_id: self.compute_loss_for_module(
                module_id=module_id,
                config=self.config_for(module_id),
                batch=batch[module_id],
                fwd_out=fwd_out[module_id],
            )
            for module_id in fwd_out
        }

    @abc.abstractmethod
    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: dict[str, Any], fwd_out: dict[str, Any]
    ) -> Any:
        """Compute the loss of one module; what custom learners override.

        Parameters
        ----------
        module_id : str
            ``"default_policy"``.
        config : AlgorithmConfig
            The settings for this module.
        batch : dict of str to Tensor
            A minibatch; keys are in :class:`~mltoolkit.rllib.core.columns.Columns`.
        fwd_out : dict of str to Tensor
            What ``forward_train(batch)`` returned.

        Returns
        -------
        Tensor with one element
        """

    @abc.abstractmethod
    def compute_gradients(self, loss_per_module: dict[str, Any], **kwargs: Any) -> dict[Any, Any]:
        """Compute the gradients of the summed losses: a dict from parameter to gradient."""

    @abc.abstractmethod
    def postprocess_gradients(self, gradients_dict: dict[Any, Any]) -> dict[Any, Any]:
        """Clip the gradients as ``config.grad_clip`` and ``grad_clip_by`` say, and log their norm before that."""

    @abc.abstractmethod
    def apply_gradients(self, gradients_dict: dict[Any, Any]) -> None:
        """Let the optimizers make a step."""

    # -- results -------------------------------------------------------------------------------------------------------

    def register_metric(self, module_id: str, key: str, value: Any) -> None:
        """Log a value of a module: the mean over the minibatches of an update's last epoch is in its result."""
        self._epoch_keys.add((module_id, key))
        self.metrics.log_value((module_id, key), value, window=self._logged_minibatches)

    def register_metrics(self, module_id: str, metrics_dict: Mapping[str, Any]) -> None:
        """Log several values of a module."""
        for key, value in metrics_dict.items():
            self.register_metric(module_id, key, value)

    def _log(self, module_id: str, **values: Any) -> None:
        for key, value in values.items():
            self.metrics.log_value((module_id, key), value, window=1)

    def _results(self, trained: int, size: int, seconds: float) -> dict[str, Any]:
        self._lifetime_steps += trained
        steps = {
            "num_module_steps_trained": trained,
            "num_module_steps_trained_lifetime": self._lifetime_steps,
            "num_module_steps_trained_throughput": trained / max(seconds, 1e-9),
        }
        results: dict[str, Any] = self.metrics.reduce()
        sizes = self._num_parameters()
        results.setdefault(DEFAULT_MODULE_ID, {}).update(
            steps,
            module_train_batch_size_mean=float(size),
            num_trainable_parameters=sizes[0],
            weights_seq_no=self._num_updates,
            # The fragments were sampled with the weights from before this update.
            diff_num_grad_updates_vs_sampler_policy=1.0,
        )
        results.setdefault(ALL_MODULES, {}).update(
            steps,
            num_env_steps_trained=trained,
            num_env_steps_trained_lifetime=self._lifetime_steps,
            num_env_steps_trained_throughput=trained / max(seconds, 1e-9),
            num_trainable_parameters=sizes[0],
            num_non_trainable_parameters=sizes[1],
        )
        # Their windows are as long as an epoch of this update, and the next may have others.
        for key in self._epoch_keys:
            self.metrics.delete(key)
        self._epoch_keys.clear()
        return results

    @abc.abstractmethod
    def _num_parameters(self) -> tuple[int, int]:
        """Number of trainable and of other parameters."""

    # -- state ---------------------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def get_weights(self) -> dict[str, np.ndarray]:
        """The module's weights, by the names of its ``state_dict``."""

    @abc.abstractmethod
    def set_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Set the module's weights."""

    def get_state(self) -> dict[str, Any]:
        """All that an update depends on, as arrays, numbers and strings: the next update goes on bit for bit."""
        return {
            "rl_module": self.get_weights(),
            "optimizer": self._optimizer_state(),
            "rng": self.rng.bit_generator.state,
            "num_updates": self._num_updates,
            "num_module_steps_trained_lifetime": self._lifetime_steps,
            "metrics": self.metrics.get_state(),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take up what :meth:`get_state` gave.

        Raises
        ------
        ValueError
            If it is the state of another network or optimizer.
        """
        self.set_weights(state["rl_module"])
        if "optimizer" not in state:  # weights alone, as for a module that is only used
            return
        self._set_optimizer_state(state["optimizer"])
        self.rng.bit_generator.state = state["rng"]
        self._num_updates = int(state["num_updates"])
        self._lifetime_steps = int(state["num_module_steps_trained_lifetime"])
        self.metrics.set_state(state["metrics"])

    @abc.abstractmethod
    def _optimizer_state(self) -> dict[str, Any]: ...

    @abc.abstractmethod
    def _set_optimizer_state(self, state: Mapping[str, Any]) -> None: ...

    def apply(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call ``func(self, *args, **kwargs)``."""
        return func(self, *args, **kwargs)


def standardized(batch: TrainBatch, column: str, collective: Collective | None) -> TrainBatch:
    """The batch with a column of mean 0 and standard deviation 1 over the steps to learn from, of all learners."""
    values = batch.columns[column]
    if batch.seq_len is None:
        used = values[batch.rows]
    else:
        used = values[batch.columns[Columns.LOSS_MASK]]
    sums = [float(len(used)), float(used.sum(dtype=np.float64)), float(np.square(used, dtype=np.float64).sum())]
    if collective is None:
        # In two passes, which lose no digits.
        mean, deviation = float(used.mean(dtype=np.float64)), float(used.std(dtype=np.float64))
    else:
        count, total, squares = collective.total(sums)
        mean = total / count
        deviation = max(squares / count - mean * mean, 0.0) ** 0.5
    result = ((values - mean) / max(1e-4, deviation)).astype(np.float32)
    return replace(batch, columns={**batch.columns, column: result})
