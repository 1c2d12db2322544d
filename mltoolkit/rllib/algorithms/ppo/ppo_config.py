"""The configuration of PPO."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from mltoolkit.rllib.algorithms._config_validation import batch_problems
from mltoolkit.rllib.algorithms._constraints import number, optional, schedule, switch
from mltoolkit.rllib.algorithms._settings import Setting, SettingsDict, SettingTable
from mltoolkit.rllib.algorithms.algorithm_config import COMMON_SETTINGS, AlgorithmConfig

__all__ = ["DEFAULT_CONFIG", "PPO_SETTINGS", "PPOConfig"]

_LEARNING = (
    Setting(
        "lambda_",
        "training",
        1.0,
        number(0, 1),
        "The parameter of generalised advantage estimation: 0 trusts the value function, 1 the returns.",
        key="lambda",
    ),
    Setting(
        "use_kl_loss",
        "training",
        True,
        switch(),
        "Add the divergence from the policy that sampled to the loss, weighted by `kl_coeff`.",
    ),
    Setting(
        "kl_coeff",
        "training",
        0.2,
        number(0),
        "The first weight of the divergence; it rises by half where the divergence is above twice `kl_target`, and is "
        "halved where it is below half of it.",
    ),
    Setting("kl_target", "training", 0.01, number(above=0), "The divergence that the weight is steered towards."),
    Setting("vf_loss_coeff", "training", 1.0, number(0), "The weight of the value function's loss."),
    Setting(
        "entropy_coeff",
        "training",
        0.0,
        schedule(0),
        "The weight of the policy's entropy, or its course over the timesteps sampled.",
    ),
    Setting(
        "entropy_coeff_schedule",
        "training",
        None,
        optional(schedule(0)),
        "RLlib's older way to give `entropy_coeff` a course; it goes before a number in `entropy_coeff`.",
    ),
    Setting(
        "clip_param",
        "training",
        0.3,
        schedule(above=0),
        "How far the ratio of the new policy's probabilities to the old one's pays, from 1; or its course over the "
        "timesteps sampled.",
    ),
    Setting(
        "vf_clip_param",
        "training",
        10.0,
        number(above=0),
        "The bound on the squared error of the value function; to be raised with the scale of the returns. Infinity or "
        "None, which becomes infinity: no bound.",
    ),
    Setting(
        "normalize_advantages",
        "training",
        True,
        switch(),
        "Shift and scale the advantages of a train batch to mean 0 and standard deviation 1.",
    ),
    Setting(
        "vf_share_layers",
        "training",
        None,
        optional(switch()),
        "The older place of the network's setting of that name. None: as the network's settings say.",
    ),
    Setting(
        "use_critic",
        "training",
        True,
        switch(),
        "Learn a value function. False: advantages are the discounted returns, which needs complete episodes.",
    ),
    Setting(
        "use_gae",
        "training",
        True,
        switch(),
        "Estimate advantages with `lambda_`. False: they are the discounted returns, less the value function, which "
        "needs complete episodes.",
    ),
)

PPO_SETTINGS = COMMON_SETTINGS.extended(
    f"{__name__}:PPO_SETTINGS",
    _LEARNING,
    defaults={
        "num_env_runners": 2,
        "lr": 5e-5,
        "train_batch_size": 4000,
        "num_epochs": 30,
        "minibatch_size": 128,
        "shuffle_batch_per_epoch": True,
    },
)


class PPOConfig(AlgorithmConfig):
    """The settings of proximal policy optimisation, with RLlib's defaults.

    Parameters
    ----------
    algo_class : class, optional
        A subclass of PPO that `build_algo` makes.

    References
    ----------
    Schulman et al., Proximal Policy Optimization Algorithms, arXiv:1707.06347.

    Examples
    --------
    >>> config = PPOConfig().environment("CartPole-v1").training(lr=3e-4, minibatch_size=250)
    >>> config.lr, config["sgd_minibatch_size"], config.kl_coeff
    (0.0003, 250, 0.2)
    """

    _settings: ClassVar[SettingTable] = PPO_SETTINGS
    _model_defaults = {"vf_share_layers": False}  # noqa: RUF012

    @classmethod
    def preset(cls, name: str) -> Self:
        """Settings that learn a well-known environment fast; see `presets`.

        Parameters
        ----------
        name : str
            The environment.

        Raises
        ------
        ValueError
            If there is no preset of that name; the known ones are listed.

        Examples
        --------
        >>> PPOConfig.preset("CartPole-v1").env
        'CartPole-v1'
        """
        from mltoolkit.rllib.algorithms.ppo.presets import get_preset

        return cls.from_dict(get_preset(name))

    def get_default_algo_class(self) -> Any:
        """`PPO`."""
        from mltoolkit.rllib.algorithms.ppo.ppo import PPO

        return PPO

    def get_default_rl_module_spec(self) -> Any:
        """A spec with `DefaultPPOTorchRLModule`, or with what adapts a custom model of the older kind."""
        from mltoolkit.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule
        from mltoolkit.rllib.core.rl_module.rl_module import RLModuleSpec

        model = self.model_config
        if model["custom_model"] or model["custom_action_dist"]:
            from mltoolkit.rllib.models.torch._adapter import TorchModelV2Module

            return RLModuleSpec(module_class=TorchModelV2Module)
        return RLModuleSpec(module_class=DefaultPPOTorchRLModule)

    def get_default_learner_class(self) -> Any:
        """`PPOTorchLearner`."""
        from mltoolkit.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner

        return PPOTorchLearner

    def _problems(self) -> list[str]:
        problems = super()._problems()
        if problems or self.in_evaluation:
            return problems
        without = [name for name in ("use_critic", "use_gae") if not getattr(self, name)]
        if without and self.batch_mode == "truncate_episodes":
            problems.append(
                f"{' and '.join(f'`{name}` = False' for name in without)} needs whole episodes, as nothing stands in for "
                "what is cut off: env_runners(batch_mode='complete_episodes')."
            )
        return problems + batch_problems(self)


def _default_config() -> SettingsDict:
    config = PPOConfig()
    return SettingsDict(PPO_SETTINGS, {**config.to_dict(), "model": config.model})


#: All settings under their keys, for programs that copy and change a dict; it takes older keys, and its `copy` is deep.
DEFAULT_CONFIG = _default_config()
