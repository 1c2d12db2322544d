"""From the environments' observations and rewards to what module and learner see."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from mltoolkit.rllib.connectors import _spaces
from mltoolkit.rllib.connectors.connector_v2 import ConnectorError, ConnectorV2, Step

if TYPE_CHECKING:
    from gymnasium.spaces import Space

__all__ = ["EnvToModulePipeline", "ObservationStream"]

_OWN_MODULES = "mltoolkit.rllib.connectors."


class EnvToModulePipeline:
    """Connectors in a row, for N environments that step together.

    Parameters
    ----------
    connectors : sequence of ConnectorV2
        In the order in which they are called.
    observation_space, action_space : gymnasium.spaces.Space
        Those of a single environment.
    num_envs : int
        N.
    evaluation : bool, default=False
        Statistics are used and not updated, and rewards stay as the environments gave them.

    Attributes
    ----------
    observation_space : gymnasium.spaces.Box
        What the module sees: float32, or uint8 for images.
    connectors : list of ConnectorV2
    wants_previous : bool
        Whether any of them looks at the previous actions or rewards.

    Raises
    ------
    ConnectorError
        If a connector of the user's raises, or returns NaN or another shape than it announced; it is named.
    ValueError
        If no Box of numbers comes out at the end.

    Notes
    -----
    Not for several threads at once. Where nothing is to be done, :meth:`observe` returns the array that it was given; all
    arrays that it returns may be written to by the next call.

    Statistics of several runners: ``driver.merge_deltas([runner.pop_delta() for runner in runners])``, then
    ``runner.set_statistics(driver.get_statistics())`` for each. A pipeline that samples by itself merges its own delta.

    Examples
    --------
    >>> from gymnasium.spaces import Discrete
    >>> from mltoolkit.rllib.connectors.env_to_module import FlattenObservations
    >>> pipeline = EnvToModulePipeline([FlattenObservations()], Discrete(3), Discrete(2), num_envs=2)
    >>> pipeline.observe(np.array([0, 2]), np.array([True, True]))
    array([[1., 0., 0.],
           [0., 0., 1.]], dtype=float32)
    """

    def __init__(
        self,
        connectors: Sequence[ConnectorV2],
        observation_space: Space,
        action_space: Space,
        num_envs: int,
        *,
        evaluation: bool = False,
    ) -> None:
        self.connectors = list(connectors)
        self.input_observation_space = observation_space
        self.input_action_space = action_space
        self.num_envs = num_envs
        self.evaluation = evaluation
        self.observation_space: Any = _set_spaces(self.connectors, observation_space, action_space)
        self._check_output_space()
        self._names = _names(self.connectors)
        self._observing = [i for i, c in enumerate(self.connectors) if type(c).__call__ is not ConnectorV2.__call__]
        self._rewarding = [i for i, c in enumerate(self.connectors) if type(c).rewards is not ConnectorV2.rewards]
        self.wants_previous = any(c.uses_previous for c in self.connectors)
        self._ours = [type(c).__module__.startswith(_OWN_MODULES) for c in self.connectors]
        self._dtype = self.observation_space.dtype
        self._step = Step(num_envs)
        self._memories: list[dict[str, Any]]
        self._ended: np.ndarray
        self.reset()

    def _check_output_space(self) -> None:
        space = self.observation_space
        if _spaces.is_box(space) and (space.dtype == np.float32 or (space.dtype == np.uint8 and len(space.shape) == 3)):
            return
        if not self.connectors and _spaces.is_box(space):
            space = self.observation_space = _spaces.box(space.low, space.high, space.shape)
            return
        last = f", after {type(self.connectors[-1]).__name__}" if self.connectors else ""
        raise ValueError(
            f"modules take observations of a float32 Box, or of a uint8 Box of images (height, width, channels); the "
            f"connectors end with {_spaces.describe(space)}{last}. Put FlattenObservations at their end."
        )

    # -- data ----------------------------------------------------------------------------------------------------------

    def observe(
        self,
        observations: Any,
        is_first: np.ndarray,
        *,
        prev_actions: np.ndarray | None = None,
        prev_rewards: np.ndarray | None = None,
        update: bool = True,
    ) -> np.ndarray:
        """What the module sees.

        Parameters
        ----------
        observations : ndarray of shape (N, *shape), or list of N nested observations
        is_first : ndarray of shape (N,), dtype=bool
            Where an episode begins.
        prev_actions : ndarray of shape (N, ...), optional
            As the policy sampled them; needed by connectors that look back unless all episodes begin.
        prev_rewards : ndarray of shape (N,), optional
            As the environments gave them.
        update : bool, default=True
            Whether the observations count in running statistics.

        Returns
        -------
        ndarray of shape (N, *observation_space.shape)
        """
        if self._rewarding and is_first.all():
            self._forget_rewards()
        if not self._observing:
            if observations.dtype is self._dtype:
                return observations
            return observations.astype(self._dtype)
        step = self._step
        step.is_first = is_first
        step.prev_actions = prev_actions
        step.prev_rewards = prev_rewards
        step.update = update and not self.evaluation
        return self._observe(observations, step, self._memories)

    def _observe(self, observations: Any, step: Step, memories: list[dict[str, Any]]) -> np.ndarray:
        for index in self._observing:
            connector = self.connectors[index]
            step.memory = memories[index]
            try:
                observations = connector(observations, step)
            except Exception as error:
                self._raise(index, error)
            if not self._ours[index]:
                observations = self._checked(index, observations, step.num_envs)
        return observations

    def _checked(self, index: int, observations: Any, num_envs: int) -> Any:
        """What a connector of the user's gave, if it is what was announced."""
        connector = self.connectors[index]
        space: Any = connector.observation_space
        name = type(connector).__name__
        if not _spaces.is_array_space(space):
            if not isinstance(observations, (list, tuple)) or len(observations) != num_envs:
                raise ConnectorError(
                    f"Connector {name} must return a list of {num_envs} observations of {_spaces.describe(space)}, "
                    f"got {type(observations).__name__}."
                )
            return observations
        wanted = (num_envs, *_spaces.array_shape(space))
        if getattr(observations, "shape", None) != wanted:
            raise ConnectorError(
                f"Connector {name} announces observations of {_spaces.describe(space)}, so it must return an array of shape "
                f"{wanted}, got {_shape(observations)}. Override `recompute_output_observation_space` to announce another space."
            )
        if observations.dtype.kind not in "fiub":
            raise ConnectorError(f"Connector {name} must return numbers, got an array of dtype {observations.dtype}.")
        if observations.dtype.kind == "f" and np.isnan(observations).any():
            env, *entry = np.argwhere(np.isnan(observations))[0].tolist()
            raise ConnectorError(
                f"Connector {name} returned NaN for environment {env}, at entry {entry} of its observation."
            )
        return observations.astype(space.dtype, copy=False)

    def rewards(
        self, rewards: np.ndarray, terminateds: np.ndarray, truncateds: np.ndarray, *, update: bool = True
    ) -> np.ndarray:
        """What the learner sees of rewards.

        Parameters
        ----------
        rewards : ndarray of shape (N,)
        terminateds, truncateds : ndarray of shape (N,), dtype=bool
            Where this step ended an episode. The step after that only resets, and its reward does not count.
        update : bool, default=True
            Whether the rewards count in running statistics.

        Returns
        -------
        ndarray of shape (N,), dtype=float32
        """
        if not self._rewarding or self.evaluation:
            return rewards.astype(np.float32)
        step = self._step
        step.autoreset = self._ended
        step.ended = self._ended = np.logical_or(terminateds, truncateds)
        step.update = update
        for index in self._rewarding:
            connector = self.connectors[index]
            step.memory = self._memories[index]
            try:
                rewards = connector.rewards(rewards, step)
            except Exception as error:
                self._raise(index, error)
            if not self._ours[index]:
                name = type(connector).__name__
                if getattr(rewards, "shape", None) != (self.num_envs,):
                    raise ConnectorError(
                        f"Connector {name} must return rewards of shape ({self.num_envs},), got {_shape(rewards)}."
                    )
                if np.isnan(rewards).any():
                    raise ConnectorError(f"Connector {name} returned NaN as a reward: {rewards!r}.")
        return rewards.astype(np.float32)

    def _forget_rewards(self) -> None:
        """All episodes begin: those before, cut off perhaps by a reset, have no more rewards."""
        self._ended = np.zeros(self.num_envs, dtype=bool)
        for index in self._rewarding:
            self._memories[index] = {}

    def _raise(self, index: int, error: Exception) -> NoReturn:
        if isinstance(error, ConnectorError) or self._ours[index]:
            raise error
        name = type(self.connectors[index]).__name__
        raise ConnectorError(f"Connector {name} raised {type(error).__name__}: {error}") from error

    # -- single observations -------------------------------------------------------------------------------------------

    def observe_one(
        self,
        observation: Any,
        *,
        stream: ObservationStream | None = None,
        prev_action: Any = None,
        prev_reward: float | None = None,
    ) -> np.ndarray:
        """What the module sees of a single observation, without any effect on the environments under way.

        Parameters
        ----------
        observation : object
            Of the environment's observation space.
        stream : ObservationStream, optional
            The episode that the observation continues, made by :meth:`stream`. Without one it is the first of an episode.
        prev_action, prev_reward : optional
            What led to the observation; for connectors that look back.

        Returns
        -------
        ndarray of shape observation_space.shape

        Raises
        ------
        ValueError
            If the observation is not of the environment's space.
        """
        stream = stream if stream is not None else self.stream()
        return stream.observe(
            [observation],
            prev_actions=None if prev_action is None else [prev_action],
            prev_rewards=None if prev_reward is None else [prev_reward],
        )[0]

    def stream(self, num_envs: int = 1) -> ObservationStream:
        """Begin episodes of `num_envs` environments that the pipeline serves beside its own."""
        return ObservationStream(self, num_envs)

    # -- state ---------------------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Forget the episodes under way; for when all environments are reset at once."""
        self._memories = [{} for _ in self.connectors]
        self._ended = np.zeros(self.num_envs, dtype=bool)

    def get_statistics(self) -> dict[str, Any]:
        """What the connectors have learned, by connector: numbers, strings and arrays in dicts and lists."""
        return {name: connector.get_state() for name, connector in self._named()}

    def set_statistics(self, statistics: dict[str, Any]) -> None:
        """Go on with what `get_statistics` of a pipeline with the same connectors gave.

        Raises
        ------
        ValueError
            If they are those of other connectors.
        """
        self._check_names(statistics)
        for name, connector in self._named():
            connector.set_state(statistics[name])

    def pop_delta(self) -> dict[str, Any]:
        """Take out what the connectors learned since the last call, for `merge_deltas`; data only."""
        return {name: delta for name, connector in self._named() if (delta := connector.pop_delta())}

    def merge_deltas(self, deltas: Iterable[dict[str, Any]]) -> None:
        """Add what runners took out with `pop_delta`; their order decides the last bits."""
        taken = list(deltas)
        for name, connector in self._named():
            own = [delta[name] for delta in taken if name in delta]
            if own:
                connector.merge_deltas(own)

    def get_state(self) -> dict[str, Any]:
        """The statistics, and what belongs to the episodes under way (frames, discounted returns); data only."""
        memories = {
            name: connector.memory_state(memory)
            for (name, connector), memory in zip(self._named(), self._memories, strict=True)
            if memory
        }
        return {
            "statistics": self.get_statistics(),
            "num_envs": self.num_envs,
            "ended": self._ended.copy(),
            "memories": copy.deepcopy(memories),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what `get_state` gave.

        With another number of environments the episodes begin anew.

        Raises
        ------
        ValueError
            If it is the state of other connectors.
        """
        self.set_statistics(state["statistics"])
        self.reset()
        if state["num_envs"] == self.num_envs:
            self._ended = np.array(state["ended"], dtype=bool)
            for index, (name, connector) in enumerate(self._named()):
                if name in state["memories"]:
                    self._memories[index] = connector.memory_from_state(copy.deepcopy(state["memories"][name]))

    def _named(self) -> list[tuple[str, ConnectorV2]]:
        return list(zip(self._names, self.connectors, strict=True))

    def _check_names(self, statistics: dict[str, Any]) -> None:
        if set(statistics) != set(self._names):
            raise ValueError(
                f"the state is of the connectors {sorted(statistics)!r}, but there are {self._names!r}. Configure the same "
                "connectors, observation filter, frame stacking and reward settings as when it was saved."
            )


class ObservationStream:
    """Episodes that are served observation by observation, apart from those that runners sample.

    Made by :meth:`EnvToModulePipeline.stream`. It remembers frames and the like from call to call; running statistics are
    used and not updated.
    """

    def __init__(self, pipeline: EnvToModulePipeline, num_envs: int) -> None:
        self._pipeline = pipeline
        self._step = Step(num_envs)
        self._step.update = False
        self._step.ended = self._step.autoreset = np.zeros(num_envs, dtype=bool)
        self.reset()

    def reset(self) -> None:
        """Begin new episodes."""
        self._memories: list[dict[str, Any]] = [{} for _ in self._pipeline.connectors]
        self._begun = False

    def observe(
        self,
        observations: Sequence[Any],
        *,
        is_first: np.ndarray | None = None,
        prev_actions: Any = None,
        prev_rewards: Any = None,
    ) -> np.ndarray:
        """What the module sees of `num_envs` observations; a new array.

        Parameters
        ----------
        observations : sequence of num_envs observations
            Each of the environment's observation space.
        is_first : ndarray of shape (num_envs,), dtype=bool, optional
            Where episodes begin; by default all in the first call, and none after it.
        prev_actions, prev_rewards : sequence of num_envs, optional
            What led to the observations.

        Raises
        ------
        ValueError
            If an observation is not of the environment's space.
        """
        pipeline, step = self._pipeline, self._step
        if len(observations) != step.num_envs:
            raise ValueError(
                f"`observations` must be {step.num_envs}, as many as the stream has, got {len(observations)}."
            )
        batch = _spaces.to_batch(pipeline.input_observation_space, observations)
        if is_first is None:
            is_first = np.full(step.num_envs, not self._begun)
        self._begun = True
        step.is_first = is_first
        step.prev_actions = None if prev_actions is None else np.asarray(prev_actions)
        step.prev_rewards = None if prev_rewards is None else np.asarray(prev_rewards, dtype=np.float64)
        return np.array(pipeline._observe(batch, step, self._memories), dtype=pipeline._dtype)


def _set_spaces(connectors: Sequence[ConnectorV2], observation_space: Any, action_space: Any) -> Any:
    for connector in connectors:
        name = type(connector).__name__
        if not isinstance(connector, ConnectorV2):
            raise ConnectorError(f"a connector must be a ConnectorV2, got {connector!r}.")
        _check_signature(connector)
        try:
            connector.set_spaces(observation_space, action_space)
        except ConnectorError:
            raise
        except Exception as error:
            raise ConnectorError(
                f"Connector {name} cannot work on {_spaces.describe(observation_space)}: {type(error).__name__}: {error}"
            ) from error
        space = connector.observation_space
        if not isinstance(space, _spaces.spaces().Space):
            raise ConnectorError(
                f"Connector {name}: `recompute_output_observation_space` must return a gymnasium space, got {space!r}."
            )
        observation_space = space
    return observation_space


def _check_signature(connector: ConnectorV2) -> None:
    """Refuse connectors that are written against RLlib's lists of episodes, by name instead of by a riddle later."""
    import inspect

    names = inspect.signature(type(connector).__call__).parameters
    if "episodes" in names or "batch" in names:
        raise ConnectorError(
            f"Connector {type(connector).__name__} takes {', '.join(list(names)[1:])}, but here connectors work on all "
            "environments at once: `__call__(self, observations, step)`. Or derive from SingleAgentObservationPreprocessor and "
            "write `preprocess(self, observation, episode)`, which is the same here as in RLlib."
        )


def _names(connectors: Sequence[ConnectorV2]) -> list[str]:
    return [f"{index}_{type(connector).__name__}" for index, connector in enumerate(connectors)]


def _shape(value: Any) -> str:
    shape = getattr(value, "shape", None)
    return f"the shape {shape}" if shape is not None else f"{type(value).__name__} {value!r}"
