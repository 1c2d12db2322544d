"""What to build a module from. Kept apart from the modules themselves, whose import brings torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mltoolkit.rllib.core.rl_module._model_config import as_dict

if TYPE_CHECKING:
    from gymnasium.spaces import Space

    from mltoolkit.rllib.core.rl_module.default_model_config import DefaultModelConfig
    from mltoolkit.rllib.core.rl_module.rl_module import RLModule

__all__ = ["RLModuleSpec"]


@dataclass
class RLModuleSpec:
    """A module's class and what it is built with.

    Parameters
    ----------
    module_class : type, optional
        A subclass of RLModule. None leaves the choice to the algorithm.
    observation_space, action_space : gymnasium.spaces.Space, optional
        What the module sees and acts in; None: the environment's, after connectors.
    inference_only : bool, default=False
        Build only what computing actions needs, for classes with the InferenceOnlyAPI.
    learner_only : bool, default=False
        Never build it where environments are stepped. Not possible for the one module that acts.
    model_config : dict or DefaultModelConfig, optional
        Settings for the module's ``setup()``, there as the dict ``self.model_config``.
    catalog_class : type, optional
        Not supported: build the network in the module's ``setup()``.
    load_state_path : str, optional
        Not supported: restore a checkpoint with ``Algorithm.restore_from_path(...)``.

    Examples
    --------
    >>> spec = RLModuleSpec(model_config={"fcnet_hiddens": [32]})
    >>> spec.model_config["fcnet_hiddens"]
    [32]
    """

    module_class: type[RLModule] | None = None
    observation_space: Space[Any] | None = None
    action_space: Space[Any] | None = None
    inference_only: bool = False
    learner_only: bool = False
    model_config: dict[str, Any] | DefaultModelConfig | None = None
    catalog_class: type | None = None
    load_state_path: str | None = None

    def __post_init__(self) -> None:
        if self.catalog_class is not None:
            raise NotImplementedError(
                f"`catalog_class` = {self.catalog_class!r} is not supported: build the network in `setup()` of an RLModule."
            )
        if self.load_state_path is not None:
            raise NotImplementedError(
                f"`load_state_path` = {self.load_state_path!r} is not supported: build the algorithm, then restore with "
                "`algo.restore_from_path(...)`, or give the weights to `module.set_state(...)`."
            )
        if self.inference_only and self.learner_only:
            raise ValueError("`inference_only` and `learner_only` exclude each other: set at most one of them.")

    def build(self) -> RLModule:
        """Build the module.

        Raises
        ------
        ValueError
            If ``module_class``, ``observation_space`` or ``action_space`` is missing.
        TypeError
            If ``module_class`` is no RLModule.
        """
        from mltoolkit.rllib.core.rl_module.rl_module import RLModule

        missing = [
            name for name in ("module_class", "observation_space", "action_space") if getattr(self, name) is None
        ]
        if missing:
            raise ValueError(f"An RLModuleSpec needs {', '.join(f'`{name}`' for name in missing)} to be built.")
        if not isinstance(self.module_class, type) or not issubclass(self.module_class, RLModule):
            raise TypeError(
                f"`module_class` must be a subclass of mltoolkit.rllib.core.rl_module.rl_module.RLModule, got "
                f"{self.module_class!r}. An older TorchModelV2 goes into `model={{'custom_model': ...}}`."
            )
        return self.module_class(
            observation_space=self.observation_space,
            action_space=self.action_space,
            inference_only=self.inference_only,
            learner_only=self.learner_only,
            model_config=as_dict(self.model_config),
        )

    @classmethod
    def from_module(cls, module: RLModule) -> RLModuleSpec:
        """Return the spec that builds another module like ``module``, with fresh weights."""
        return cls(
            module_class=type(module),
            observation_space=module.observation_space,
            action_space=module.action_space,
            inference_only=module.inference_only,
            learner_only=module.learner_only,
            model_config=dict(module.model_config),
        )

    def update(self, other: RLModuleSpec, override: bool = True) -> None:
        """Take over what ``other`` sets; with ``override=False`` only where this spec says nothing."""
        if not isinstance(other, RLModuleSpec):
            raise TypeError(f"An RLModuleSpec is updated with another one, got {other!r}.")
        for name in ("module_class", "observation_space", "action_space", "model_config"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if theirs is not None and (override or mine is None):
                setattr(self, name, theirs)
        if override:
            self.inference_only = other.inference_only or self.inference_only
            self.learner_only = other.learner_only or self.learner_only

    def copy(self, **changes: Any) -> RLModuleSpec:
        """Return a copy with some fields changed."""
        return replace(self, **changes)
