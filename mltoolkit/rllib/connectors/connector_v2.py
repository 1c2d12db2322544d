"""The contract of connectors: what happens to observations, rewards and actions between environment and module."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    import numpy as np
    from gymnasium.spaces import Space

__all__ = ["ConnectorError", "ConnectorV2", "Step"]


class ConnectorError(RuntimeError):
    """A connector raised, or gave something else than it announced; the message names it."""


class Step:
    """What a connector may ask about the step at hand, of N environments that step together.

    Attributes
    ----------
    num_envs : int
        N.
    is_first : ndarray of shape (N,), dtype=bool
        Where the observation is the first of an episode.
    prev_actions : ndarray of shape (N, ...) or None
        The actions that led here, as the policy sampled them; None if no environment has stepped yet.
    prev_rewards : ndarray of shape (N,) or None
        The rewards that came with the observations, as the environments gave them.
    ended : ndarray of shape (N,), dtype=bool
        For rewards: where this step ended the episode.
    autoreset : ndarray of shape (N,), dtype=bool
        For rewards: where this step only reset the environment; its reward means nothing.
    update : bool
        Whether statistics are to be updated; False in evaluation and while serving.
    memory : dict
        What the connector keeps for these environments from one step to the next. Each set of environments has its own,
        so serving a single observation disturbs nothing. Numbers, strings, arrays and containers of them only, since it
        is part of checkpoints.
    """

    __slots__ = ("autoreset", "ended", "is_first", "memory", "num_envs", "prev_actions", "prev_rewards", "update")

    def __init__(self, num_envs: int) -> None:
        self.num_envs = num_envs
        self.is_first: np.ndarray[Any, Any]
        self.prev_actions: np.ndarray[Any, Any] | None = None
        self.prev_rewards: np.ndarray[Any, Any] | None = None
        self.ended: np.ndarray[Any, Any]
        self.autoreset: np.ndarray[Any, Any]
        self.update = True
        self.memory: dict[str, Any] = {}


class ConnectorV2:
    """Base class of connectors.

    A connector works on all environments of a runner at once: override one of :meth:`__call__` (observations),
    :meth:`rewards` and :meth:`actions`, and :meth:`recompute_output_observation_space` if observations change their
    space. To work on one observation at a time, which is slower and often simpler, derive from
    :class:`~mltoolkit.rllib.connectors.env_to_module.SingleAgentObservationPreprocessor`.

    What a connector learns (statistics) belongs into attributes that :meth:`get_state` returns; what it remembers of the
    episodes under way belongs into ``step.memory``.

    Parameters
    ----------
    input_observation_space, input_action_space : gymnasium.spaces.Space, optional
        What comes in. A pipeline sets both.

    Raises
    ------
    TypeError
        On keywords that the class does not know.

    Examples
    --------
    >>> class Halve(ConnectorV2):
    ...     def __call__(self, observations, step):
    ...         return observations / 2
    """

    #: Whether the connector looks at ``step.prev_actions`` or ``step.prev_rewards``. Pipelines without one that does are
    #: spared the arrays.
    uses_previous = True

    # On the class, so that subclasses need not call `super().__init__()`.
    _input_observation_space: Space | None = None
    _input_action_space: Space | None = None
    _observation_space: Space | None = None

    def __init__(
        self,
        input_observation_space: Space | None = None,
        input_action_space: Space | None = None,
        **kwargs: Any,
    ) -> None:
        if kwargs:
            self._refuse(kwargs)
        if input_observation_space is not None:
            self.set_spaces(input_observation_space, input_action_space)

    def _refuse(self, kwargs: dict[str, Any]) -> NoReturn:
        import inspect

        known = [
            name
            for cls in type(self).__mro__[:-1]
            for name, parameter in inspect.signature(cls).parameters.items()
            if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        ]
        name = next(iter(kwargs))
        near = difflib.get_close_matches(name, known, 1)
        hint = f" Did you mean `{near[0]}`?" if near else ""
        raise TypeError(
            f"{type(self).__name__} has no parameter `{name}`.{hint} It has: {', '.join(dict.fromkeys(known))}."
        )

    # -- spaces --------------------------------------------------------------------------------------------------------

    @property
    def input_observation_space(self) -> Space | None:
        """Space of one observation that comes in, or None as long as none was set."""
        return self._input_observation_space

    @property
    def input_action_space(self) -> Space | None:
        """The environment's action space."""
        return self._input_action_space

    @property
    def observation_space(self) -> Space | None:
        """Space of one observation that goes out."""
        return self._observation_space

    def set_spaces(self, input_observation_space: Space, input_action_space: Space | None) -> None:
        """Tell the connector what comes in; a pipeline does so once, before the first call."""
        self._input_observation_space = input_observation_space
        self._input_action_space = input_action_space
        self._observation_space = self.recompute_output_observation_space(input_observation_space, input_action_space)

    def recompute_output_observation_space(
        self, input_observation_space: Space, input_action_space: Space | None
    ) -> Space:
        """The space of observations that go out, given what comes in; the same space unless overridden."""
        return input_observation_space

    # -- data ----------------------------------------------------------------------------------------------------------

    def __call__(self, observations: Any, step: Step) -> Any:
        """Transform the observations of all environments.

        Parameters
        ----------
        observations : ndarray of shape (N, *shape), or list of N observations
            An array for spaces of type Box, Discrete, MultiDiscrete and MultiBinary, a list for nested spaces. Not to be
            changed in place.
        step : Step

        Returns
        -------
        ndarray or list
            Of the space that `recompute_output_observation_space` announces. An array may be a buffer that the next call
            writes to: callers copy.
        """
        return observations

    def rewards(self, rewards: np.ndarray, step: Step) -> np.ndarray:
        """Transform the rewards that the learner sees, an array of shape (N,); reported returns stay as they are."""
        return rewards

    def actions(self, actions: np.ndarray) -> np.ndarray:
        """Transform actions on the way to the environments, an array of shape (N, ...)."""
        return actions

    # -- state ---------------------------------------------------------------------------------------------------------

    def get_state(self) -> dict[str, Any]:
        """What the connector has learned: numbers, strings, arrays and containers of them only."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what `get_state` gave."""

    def pop_delta(self) -> dict[str, Any]:
        """Take out what was learned here since the last call, for :meth:`merge_deltas` of another."""
        return {}

    def merge_deltas(self, deltas: Sequence[dict[str, Any]]) -> None:
        """Add what connectors of all runners learned, in the runners' order: must depend on that order alone."""

    def memory_state(self, memory: dict[str, Any]) -> dict[str, Any]:
        """``step.memory`` as data, for checkpoints; to be overridden where it holds anything else."""
        return memory

    def memory_from_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """``step.memory`` again, out of what :meth:`memory_state` gave."""
        return state
