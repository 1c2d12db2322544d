"""PPO's loss in torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from mltoolkit.rllib.algorithms.ppo.mlp_update import MLPUpdate
from mltoolkit.rllib.algorithms.ppo.ppo_gradient import Coefficients
from mltoolkit.rllib.algorithms.ppo.ppo_learner import (
    LEARNER_RESULTS_KL_KEY,
    LEARNER_RESULTS_VF_EXPLAINED_VAR_KEY,
    LEARNER_RESULTS_VF_LOSS_UNCLIPPED_KEY,
    PPOLearner,
)
from mltoolkit.rllib.core.columns import Columns
from mltoolkit.rllib.core.learner.learner import ENTROPY_KEY, POLICY_LOSS_KEY, VF_LOSS_KEY
from mltoolkit.rllib.core.learner.torch.torch_learner import TorchLearner
from mltoolkit.rllib.core.learner.train_batch import Fragment, TrainBatch
from mltoolkit.rllib.utils.metrics import DEFAULT_MODULE_ID

__all__ = ["PPOTorchLearner"]

# Observations that V is computed of at a time: what a pass keeps of them should fit into memory, for images too.
_VALUE_PASS_BYTES = 64 << 20


_OF_A_MINIBATCH = {
    "compute_loss_for_module",
    "compute_losses",
    "compute_gradients",
    "postprocess_gradients",
    "apply_gradients",
}


class PPOTorchLearner(PPOLearner, TorchLearner):
    """Proximal policy optimisation of a torch module.

    The loss is that of equation 9 of the paper, plus optionally the KL penalty of equation 8, over the steps that
    ``loss_mask`` keeps: the clipped surrogate objective, the squared error of V bounded by ``vf_clip_param``, and an
    entropy bonus.

    References
    ----------
    Schulman et al., Proximal Policy Optimization Algorithms, arXiv:1707.06347, sections 3 to 5.
    """

    def __init__(self, *, config: Any, module: Any = None, module_spec: Any = None) -> None:
        super().__init__(config=config, module=module, module_spec=module_spec)
        self._mlp: MLPUpdate | None = None

    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: dict[str, Any], fwd_out: dict[str, Any]
    ) -> torch.Tensor:
        """Compute PPO's loss of a minibatch, and log its parts."""
        module = self.module[module_id]
        mask = batch.get(Columns.LOSS_MASK)
        current = module.get_train_action_dist_cls().from_logits(fwd_out[Columns.ACTION_DIST_INPUTS])
        logp = current.logp(batch[Columns.ACTIONS])
        ratio = (logp - batch[Columns.ACTION_LOGP]).exp()
        clip = self.clip_param_schedulers_per_module[module_id].get_current_value()
        advantages = batch[Columns.ADVANTAGES]
        surrogate = torch.min(advantages * ratio, advantages * ratio.clamp(1.0 - clip, 1.0 + clip))
        policy_loss = -_mean(surrogate, mask)
        entropy = _mean(current.entropy(), mask)
        entropy_coeff = self.entropy_coeff_schedulers_per_module[module_id].get_current_value()
        total = policy_loss - entropy_coeff * entropy if entropy_coeff else policy_loss
        parts = {POLICY_LOSS_KEY: policy_loss, ENTROPY_KEY: entropy}

        if config.use_critic:
            targets = batch[Columns.VALUE_TARGETS]
            values = module.values(batch, fwd_out.get(Columns.EMBEDDINGS))
            squared = (values - targets).square()
            vf_loss = _mean(squared.clamp(max=config.vf_clip_param), mask)
            total = total + config.vf_loss_coeff * vf_loss
            with torch.no_grad():
                parts[VF_LOSS_KEY] = vf_loss
                parts[LEARNER_RESULTS_VF_LOSS_UNCLIPPED_KEY] = _mean(squared, mask)
                parts[LEARNER_RESULTS_VF_EXPLAINED_VAR_KEY] = explained_variance(targets, values, mask)
        else:
            zeros = (VF_LOSS_KEY, LEARNER_RESULTS_VF_LOSS_UNCLIPPED_KEY, LEARNER_RESULTS_VF_EXPLAINED_VAR_KEY)
            parts.update(dict.fromkeys(zeros, 0.0))

        parts[LEARNER_RESULTS_KL_KEY] = 0.0
        if config.use_kl_loss:
            before = module.get_exploration_action_dist_cls().from_logits(batch[Columns.ACTION_DIST_INPUTS])
            kl = parts[LEARNER_RESULTS_KL_KEY] = _mean(before.kl(current), mask)
            total = total + self.curr_kl_coeffs_per_module[module_id] * kl
        self.register_metrics(module_id, parts)
        return total

    def _update_from_minibatches(
        self, batch: TrainBatch, chunks: Iterator[np.ndarray], *, num_minibatches: int
    ) -> None:
        if batch.seq_len is None and self._has_default_loss() and MLPUpdate.fits(self.module[DEFAULT_MODULE_ID]):
            self._update_mlp(batch, chunks, num_minibatches)
        else:
            super()._update_from_minibatches(batch, chunks, num_minibatches=num_minibatches)

    def _has_default_loss(self) -> bool:
        """Whether loss and gradients are those of this class, so that their closed form may stand for them."""
        own = type(self)
        return (
            all(getattr(own, name) is getattr(PPOTorchLearner, name) for name in _OF_A_MINIBATCH)
            and not _OF_A_MINIBATCH & self.__dict__.keys()
            and self._device.type == "cpu"
        )

    def _update_mlp(self, batch: TrainBatch, chunks: Iterator[np.ndarray], num_minibatches: int) -> None:
        config, module_id = self.config_for(DEFAULT_MODULE_ID), DEFAULT_MODULE_ID
        if self._mlp is None:
            self._mlp = MLPUpdate(self.module[module_id])
        coefficients = Coefficients(
            clip_param=self.clip_param_schedulers_per_module[module_id].get_current_value(),
            entropy_coeff=self.entropy_coeff_schedulers_per_module[module_id].get_current_value(),
            kl_coeff=self.curr_kl_coeffs_per_module[module_id],
            use_kl_loss=config.use_kl_loss,
            vf_loss_coeff=config.vf_loss_coeff,
            vf_clip_param=config.vf_clip_param,
        )
        columns = self._mlp.prepare(batch.columns)
        unlogged = num_minibatches - self._logged_minibatches
        # What overflows ends in numbers that are not finite, which are looked for after the update.
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            for chunk in chunks:
                size, rows = chunk.shape[1], chunk.ravel()
                of_chunk = {name: column[rows] for name, column in columns.items()}
                for first in range(0, len(rows), size):
                    minibatch = {name: column[first : first + size] for name, column in of_chunk.items()}
                    self._mlp.gradients(minibatch, coefficients, use_critic=config.use_critic)
                    unlogged -= 1
                    if unlogged < 0:
                        self.register_metrics(module_id, self._mlp.losses(minibatch, coefficients))
                    self._apply_buffer(log=unlogged < 0)

    def _compute_values(self, fragments: Sequence[Fragment]) -> list[np.ndarray]:
        module = self.module[DEFAULT_MODULE_ID]
        with torch.no_grad():
            if module.is_stateful():
                return [self._values_of_sequences(module, fragment) for fragment in fragments]
            shapes = [np.shape(fragment[Columns.OBS])[:2] for fragment in fragments]
            rows = [np.asarray(fragment[Columns.OBS]) for fragment in fragments]
            flat = np.concatenate([each.reshape(-1, *each.shape[2:]) for each in rows]) if len(rows) > 1 else rows[0]
            flat = flat.reshape(-1, *rows[0].shape[2:])
            step = max(1, _VALUE_PASS_BYTES // max(1, flat[0].nbytes))
            parts = [
                module.values({Columns.OBS: self._tensor(flat[first : first + step])})
                for first in range(0, len(flat), step)
            ]
            values = torch.cat(parts) if len(parts) > 1 else parts[0]
            array = values.reshape(-1).cpu().numpy()
        ends = np.cumsum([n_steps * n_envs for n_steps, n_envs in shapes])[:-1]
        return [part.reshape(shape) for part, shape in zip(np.split(array, ends), shapes, strict=True)]

    def _values_of_sequences(self, module: Any, fragment: Fragment) -> np.ndarray:
        """Run the module over the whole fragment, from the state that it was in at its first step."""
        batch: dict[str, Any] = {
            name: self._tensor(np.asarray(fragment[name]).swapaxes(0, 1)) for name in (Columns.OBS, Columns.IS_FIRST)
        }
        batch[Columns.STATE_IN] = {
            name: self._tensor(np.asarray(state)[0]) for name, state in fragment[Columns.STATE_IN].items()
        }
        values = module.values(batch)
        return np.ascontiguousarray(values.reshape(batch[Columns.IS_FIRST].shape).cpu().numpy().T)


def _mean(values: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    if mask is None:
        return values.mean()
    return torch.where(mask, values, 0.0).sum() / mask.sum()


def explained_variance(
    targets: torch.Tensor, predictions: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Share of the targets' variance that predictions explain, at least -1; 1 is perfect, 0 as good as the mean."""
    if mask is not None:
        targets, predictions = targets[mask], predictions[mask]
    unexplained = (targets - predictions).var(correction=0)
    return (1.0 - unexplained / targets.var(correction=0).clamp_min(1e-12)).clamp_min(-1.0)
