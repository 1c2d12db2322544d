"""PPO's updates of plain multilayer perceptrons without torch's graph."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mltoolkit.rllib.algorithms.ppo.ppo_gradient import Coefficients, make_policy_gradient, value_gradient
from mltoolkit.rllib.core.columns import Columns
from mltoolkit.rllib.core.distribution._layout import action_layout
from mltoolkit.rllib.core.distribution.torch_distribution import (
    TorchCategorical,
    TorchDiagGaussian,
    TorchMultiCategorical,
)
from mltoolkit.rllib.core.learner.dense_stack import DenseStack, dense_layers_of
from mltoolkit.rllib.core.rl_module.numpy_policy import describe

__all__ = ["MLPUpdate"]

Array: TypeAlias = NDArray[Any]

_DISTRIBUTIONS = (TorchCategorical, TorchMultiCategorical, TorchDiagGaussian)


class MLPUpdate:
    """Forward pass, loss and gradients of a default module whose networks are dense layers.

    The same numbers, but for rounding, as torch computes from ``PPOTorchLearner.compute_loss_for_module``.

    Parameters
    ----------
    module : DefaultPPOTorchRLModule
        As :meth:`fits` accepts it; its weights are read, and its gradients written, in place.
    """

    def __init__(self, module: Any) -> None:
        description = describe(module)
        assert description is not None
        layout = action_layout(module.action_space)
        policy_gradient = make_policy_gradient(layout)
        assert policy_gradient is not None
        self._policy_gradient = policy_gradient
        self._encoder: DenseStack | None = None
        encoder, values_encoder = dense_layers_of(module.encoder.net) or [], []
        if module.vf_encoder is not None:
            values_encoder = dense_layers_of(module.vf_encoder.net) or []
        elif encoder:
            self._encoder, encoder = DenseStack(encoder), []
        self._policy = DenseStack(encoder + (dense_layers_of(module.pi) or []))
        self._values = DenseStack(values_encoder + (dense_layers_of(module.vf) or []))
        self._clip = description.log_std_clip
        self._num_outputs = layout.num_inputs
        self._num_means = layout.num_inputs // 2
        self._log_std: Array | None = None
        if module.log_std is not None:
            self._log_std = module.log_std.detach().numpy()
            self._log_std_gradient: Array = module.log_std.grad.numpy()
        self._num_inputs = description.num_inputs

    @staticmethod
    def fits(module: Any) -> bool:
        """Whether a module consists of dense layers alone, on the CPU, and nothing else wants to see its passes."""
        description = describe(module)
        if description is None or description.squash:
            return False
        if not any(base in _DISTRIBUTIONS for base in module.get_train_action_dist_cls().__mro__[:2]):
            return False  # one of the user's own
        stacks = [module.encoder.net, module.pi, module.vf]
        if module.vf_encoder is not None:
            stacks.append(module.vf_encoder.net)
        used = {module.log_std} if module.log_std is not None else set()
        for stack in stacks:
            layers = dense_layers_of(stack)
            if layers is None:
                return False
            used.update(parameter for layer, _ in layers for parameter in (layer.weight, layer.bias))
        parameters = set(module.parameters())
        if used != parameters:
            return False
        if any(not value.requires_grad or value.dtype.itemsize != 4 for value in parameters):
            return False
        if any(value.device.type != "cpu" or value._backward_hooks for value in parameters):
            return False
        return not any(
            part._forward_hooks or part._forward_pre_hooks or part._backward_hooks or part._backward_pre_hooks
            for part in module.modules()
        )

    def prepare(self, columns: dict[str, Array]) -> dict[str, Array]:
        """The columns of a batch that :meth:`gradients` takes, one row a step."""
        obs = columns[Columns.OBS]
        return {
            Columns.OBS: obs.reshape(len(obs), self._num_inputs).astype(np.float32, copy=False),
            **{
                name: columns[name].astype(np.float32, copy=False)
                for name in (Columns.ACTION_LOGP, Columns.ADVANTAGES, Columns.VALUE_TARGETS)
            },
            **self._policy_gradient.prepare(columns),
        }

    def gradients(self, columns: dict[str, Array], coefficients: Coefficients, *, use_critic: bool) -> None:
        """Write the gradients of the mean loss of a minibatch."""
        inputs = columns[Columns.OBS]
        features = inputs if self._encoder is None else self._encoder.forward(inputs)
        outputs = self._policy.forward(features)
        distribution = self._distribution(outputs)
        gradient = self._policy_gradient.gradient(distribution, columns, coefficients)
        self._errors: Array | None = None
        values_gradient: Array = np.zeros((len(inputs), 1), np.float32)
        if use_critic:
            self._errors = self._values.forward(features)[:, 0] - columns[Columns.VALUE_TARGETS]
            values_gradient = value_gradient(self._errors, coefficients)[:, None]
        else:
            self._values.forward(features)
        outputs_gradient = self._to_outputs(gradient, outputs)
        shared = self._encoder is not None
        from_policy = self._policy.backward(outputs_gradient, to_inputs=shared)
        from_values = self._values.backward(values_gradient, to_inputs=shared)
        if self._encoder is not None and from_policy is not None and from_values is not None:
            self._encoder.backward(np.add(from_policy, from_values, out=from_policy))

    def _distribution(self, outputs: Array) -> Array:
        """The policy's outputs as inputs of the action distribution, shape (K, B)."""
        result: Array
        if self._log_std is not None:
            result = np.empty((self._num_outputs, len(outputs)), np.float32)
            result[: self._num_means] = outputs.T
            result[self._num_means :] = self._log_std[:, None]
        else:
            result = np.ascontiguousarray(outputs.T)
        if self._clip is not None:
            log_std = result[self._num_means :]
            np.clip(log_std, -self._clip, self._clip, out=log_std)
        return result

    def _to_outputs(self, gradient: Array, outputs: Array) -> Array:
        """From the gradient of the distribution's inputs to that of the policy's outputs, shape (B, outputs)."""
        if self._log_std is not None:
            total = gradient[self._num_means :].sum(1)
            if self._clip is not None:
                total *= np.abs(self._log_std) <= self._clip
            self._log_std_gradient[:] = total
            return np.ascontiguousarray(gradient[: self._num_means].T)
        result = np.ascontiguousarray(gradient.T)
        if self._clip is not None:
            result[:, self._num_means :] *= np.abs(outputs[:, self._num_means :]) <= self._clip
        return result

    def losses(self, columns: dict[str, Array], coefficients: Coefficients) -> dict[str, float]:
        """The parts of the loss at the last :meth:`gradients`, of the same minibatch."""
        policy = self._policy_gradient
        policy_loss = -float(policy.surrogate(columns, coefficients).mean())
        entropy = float(policy.entropy().mean())
        kl = float(policy.kl(columns).mean()) if coefficients.use_kl_loss else 0.0
        vf_loss = vf_loss_unclipped = explained = 0.0
        if self._errors is not None:
            squared = np.square(self._errors)
            vf_loss_unclipped = float(squared.mean())
            vf_loss = float(np.minimum(squared, np.float32(coefficients.vf_clip_param)).mean())
            variance = float(columns[Columns.VALUE_TARGETS].var())
            explained = max(-1.0, 1.0 - float(self._errors.var()) / max(variance, 1e-12))
        return {
            "policy_loss": policy_loss,
            "entropy": entropy,
            "vf_loss": vf_loss,
            "vf_loss_unclipped": vf_loss_unclipped,
            "vf_explained_var": explained,
            "mean_kl_loss": kl,
            "total_loss": policy_loss
            - coefficients.entropy_coeff * entropy
            + coefficients.vf_loss_coeff * vf_loss
            + (coefficients.kl_coeff * kl if coefficients.use_kl_loss else 0.0),
        }
