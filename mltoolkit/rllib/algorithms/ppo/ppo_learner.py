"""What PPO adds to a learner, whatever the framework: advantages, the KL coefficient, schedules."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mltoolkit.rllib.core.columns import Columns
from mltoolkit.rllib.core.learner.gae import compute_gae
from mltoolkit.rllib.core.learner.learner import Learner, standardized
from mltoolkit.rllib.core.learner.train_batch import Fragment, TrainBatch, check_fragments
from mltoolkit.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME
from mltoolkit.rllib.utils.schedules import Scheduler

__all__ = [
    "LEARNER_RESULTS_CURR_ENTROPY_COEFF_KEY",
    "LEARNER_RESULTS_CURR_KL_COEFF_KEY",
    "LEARNER_RESULTS_KL_KEY",
    "LEARNER_RESULTS_VF_EXPLAINED_VAR_KEY",
    "LEARNER_RESULTS_VF_LOSS_UNCLIPPED_KEY",
    "PPOLearner",
]

LEARNER_RESULTS_VF_LOSS_UNCLIPPED_KEY = "vf_loss_unclipped"
LEARNER_RESULTS_VF_EXPLAINED_VAR_KEY = "vf_explained_var"
LEARNER_RESULTS_KL_KEY = "mean_kl_loss"
LEARNER_RESULTS_CURR_KL_COEFF_KEY = "curr_kl_coeff"
LEARNER_RESULTS_CURR_ENTROPY_COEFF_KEY = "curr_entropy_coeff"


class PPOLearner(Learner):
    """A learner with PPO's targets and coefficients.

    Attributes
    ----------
    curr_kl_coeffs_per_module : dict of str to float
        Coefficient of the KL penalty.
    entropy_coeff_schedulers_per_module, clip_param_schedulers_per_module : dict of str to Scheduler
        Coefficient of the entropy bonus, and how far the probability ratio may leave 1.

    References
    ----------
    Schulman et al., Proximal Policy Optimization Algorithms, arXiv:1707.06347.
    """

    def build(self) -> None:
        """Build module, optimizers, schedules and coefficients."""
        if self._is_built:
            return
        super().build()
        self.curr_kl_coeffs_per_module: dict[str, float] = {}
        self.entropy_coeff_schedulers_per_module: dict[str, Scheduler] = {}
        self.clip_param_schedulers_per_module: dict[str, Scheduler] = {}
        for module_id in self.module:
            config = self.config_for(module_id)
            entropy_coeff = config.entropy_coeff_schedule or config.entropy_coeff
            self.curr_kl_coeffs_per_module[module_id] = float(config.kl_coeff)
            self.entropy_coeff_schedulers_per_module[module_id] = Scheduler(entropy_coeff, setting_name="entropy_coeff")
            self.clip_param_schedulers_per_module[module_id] = Scheduler(config.clip_param, setting_name="clip_param")

    # -- targets -------------------------------------------------------------------------------------------------------

    def _add_targets(self, fragments: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Add V of each observation, advantages and the targets of V, all of shape (T, N).

        Without ``use_critic`` there is no V, and advantages are discounted returns. Without ``use_gae`` they are the
        returns, minus V, with V in place of what a fragment's end cut off.
        """
        check_fragments(fragments)
        config = self.config
        if config.use_critic:
            values = self._compute_values(fragments)
        else:
            values = [np.zeros(np.shape(fragment[Columns.OBS])[:2], np.float32) for fragment in fragments]
        lambda_ = config.lambda_ if config.use_gae and config.use_critic else 1.0
        for fragment, value in zip(fragments, values, strict=True):
            mask = np.asarray(fragment[Columns.LOSS_MASK], dtype=bool)
            advantages = compute_gae(
                fragment[Columns.REWARDS],
                value,
                fragment[Columns.TERMINATEDS],
                fragment[Columns.TRUNCATEDS],
                mask,
                gamma=config.gamma,
                lambda_=lambda_,
            )
            if not np.isfinite(advantages[mask]).all():
                raise ValueError(_why_not_finite(fragment, value, mask))
            fragment[Columns.VF_PREDS] = value[:-1]
            fragment[Columns.ADVANTAGES] = advantages
            fragment[Columns.VALUE_TARGETS] = advantages + value[:-1]
        return fragments

    def _finish_batch(self, batch: TrainBatch) -> TrainBatch:
        """Standardise the advantages over the whole batch, unless ``normalize_advantages`` is off."""
        if not self.config.normalize_advantages:
            return batch
        return standardized(batch, Columns.ADVANTAGES, self.collective)

    @abc.abstractmethod
    def _compute_values(self, fragments: Sequence[Fragment]) -> list[np.ndarray]:
        """V of each observation, shape (T + 1, N), for each fragment."""

    # -- coefficients --------------------------------------------------------------------------------------------------

    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """Move the schedules to the present timestep, and adapt the KL coefficient."""
        super().after_gradient_based_update(timesteps=timesteps)
        timestep = int(timesteps.get(NUM_ENV_STEPS_SAMPLED_LIFETIME, 0))
        for module_id in self.module:
            config = self.config_for(module_id)
            self.clip_param_schedulers_per_module[module_id].update(timestep)
            entropy_coeff = self.entropy_coeff_schedulers_per_module[module_id].update(timestep)
            self._log(module_id, **{LEARNER_RESULTS_CURR_ENTROPY_COEFF_KEY: entropy_coeff})
            if config.use_kl_loss and (module_id, LEARNER_RESULTS_KL_KEY) in self.metrics:
                kl_loss = float(self.metrics.peek((module_id, LEARNER_RESULTS_KL_KEY)))
                if self.collective is not None:
                    kl_loss = self.collective.total([kl_loss])[0] / self.collective.world_size
                self._update_module_kl_coeff(module_id=module_id, config=config, kl_loss=kl_loss)

    def _update_module_kl_coeff(self, *, module_id: str, config: Any, kl_loss: float) -> None:
        """Raise or lower the coefficient where the policy moved much more or much less than ``config.kl_target``.

        Section 4 of the paper doubles and halves it; a factor of 1.5 upwards is RLlib's.
        """
        if kl_loss > 2.0 * config.kl_target:
            self.curr_kl_coeffs_per_module[module_id] *= 1.5
        elif kl_loss < 0.5 * config.kl_target:
            self.curr_kl_coeffs_per_module[module_id] *= 0.5
        coefficient = self.curr_kl_coeffs_per_module[module_id]
        self._log(module_id, **{LEARNER_RESULTS_CURR_KL_COEFF_KEY: coefficient})

    # -- state ---------------------------------------------------------------------------------------------------------

    def get_state(self) -> dict[str, Any]:
        """All that an update depends on, as arrays, numbers and strings: the next update goes on bit for bit."""
        return {
            **super().get_state(),
            "curr_kl_coeffs_per_module": dict(self.curr_kl_coeffs_per_module),
            "entropy_coeff_schedulers_per_module": _states(self.entropy_coeff_schedulers_per_module),
            "clip_param_schedulers_per_module": _states(self.clip_param_schedulers_per_module),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take up what :meth:`get_state` gave; a state with weights only sets these."""
        super().set_state(state)
        if "curr_kl_coeffs_per_module" not in state:
            return
        self.curr_kl_coeffs_per_module = {
            module_id: float(value) for module_id, value in state["curr_kl_coeffs_per_module"].items()
        }
        for name in ("entropy_coeff_schedulers_per_module", "clip_param_schedulers_per_module"):
            for module_id, saved in state[name].items():
                getattr(self, name)[module_id].set_state(saved)


def _states(schedulers: dict[str, Scheduler]) -> dict[str, Any]:
    return {module_id: scheduler.get_state() for module_id, scheduler in schedulers.items()}


def _why_not_finite(fragment: Mapping[str, Any], values: np.ndarray, mask: np.ndarray) -> str:
    used = np.concatenate([mask, np.zeros_like(mask[:1])])
    observations = np.asarray(fragment[Columns.OBS])
    if observations.dtype.kind == "f" and not np.isfinite(observations[used]).all():
        return "`obs` of the sampled steps holds NaN or infinite values. Check what the environment returns."
    if not np.isfinite(np.asarray(fragment[Columns.REWARDS])[mask]).all():
        return "`rewards` of the sampled steps holds NaN or infinite values. Check what the environment returns."
    if not np.isfinite(values).all():
        return (
            "The value function of the module returns NaN or infinite values. Check its weights and its forward pass."
        )
    return "The advantages overflow. Scale the rewards down."
