"""Vector environments on a cluster for whoever brings a training loop of their own.

`ClusterVecEnv` is a ``gymnasium.vector.VectorEnv`` whose environments live in actors, several in each;
`SB3ClusterVecEnv` is the same as a ``VecEnv`` of Stable-Baselines3.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

import mltoolkit as ray
from mltoolkit._optional import require
from mltoolkit.exceptions import GetTimeoutError, RayActorError, WorkerCrashedError
from mltoolkit.rllib._vec_env_actor import EnvActor
from mltoolkit.rllib.env.errors import EnvError
from mltoolkit.rllib.env.registration import EnvSource, resolve_env
from mltoolkit.rllib.env.spaces import is_array_space

if TYPE_CHECKING:
    import gymnasium

    from mltoolkit.rllib._sb3_vec_env import SB3ClusterVecEnv

__all__ = ["ClusterVecEnv", "SB3ClusterVecEnv"]

logger = logging.getLogger(__name__)
if not TYPE_CHECKING:
    gymnasium = require("gymnasium", purpose="mltoolkit.rllib.vec_env", extra="rllib")

AutoresetMode = gymnasium.vector.AutoresetMode

#: A runner that dies so often in succession, with no step between that worked, is given up.
_MAX_SUCCESSIVE_DEATHS = 3
_CLOSE_TIMEOUT_S = 5.0


class ClusterVecEnv(gymnasium.vector.VectorEnv):
    """A ``gymnasium.vector.VectorEnv`` whose environments live in actors, wherever the cluster has room.

    An actor that dies is started again; its episodes count as truncated, with ``"faulty_episode"`` in their info. An
    exception of an environment is raised here, with its line.

    Parameters
    ----------
    env : str, class, callable, or sequence of callable
        What ``config.environment(env=...)`` takes: a gymnasium id, a registered name, a class, a function of the
        env_config. Or one function without arguments per environment, as ``SyncVectorEnv`` takes.
    num_envs : int, optional
        How many; not with a sequence.
    num_runners : int, optional
        In how many actors; the environments are dealt out evenly. By default as many as the cluster has CPUs, but no
        more than environments.
    env_config : mapping, optional
        The configuration of every environment.
    num_cpus_per_runner : float, default=1
        Reserved for each actor.
    horizon : int, optional
        Episodes are truncated after so many steps.
    autoreset_mode : {'next_step', 'same_step'}, default='next_step'
        When an environment whose episode ended starts the next: at the next step, whose action it ignores, or in the
        same step, which then returns the new observation and has the last one in ``infos["final_obs"]``.
    timeout : float, default=300
        Seconds that an actor may take to start, or for one step or reset of its environments.
    restart : bool, default=True
        Start actors that die again; otherwise their death is raised.
    check : bool, default=True
        Check observations and rewards: finite, and inside their space.

    Raises
    ------
    EnvError
        One of its subclasses, if an environment cannot be made or does not do what it must.
    TimeoutError
        If an actor does not answer in time.

    Examples
    --------
    >>> envs = ClusterVecEnv("CartPole-v1", 4, num_runners=2)
    >>> observations, infos = envs.reset(seed=0)
    >>> observations.shape
    (4, 4)
    >>> observations, rewards, terminations, truncations, infos = envs.step(envs.action_space.sample())
    >>> rewards
    array([1., 1., 1., 1.])
    >>> envs.close()
    """

    def __init__(
        self,
        env: str | type | Callable[..., Any] | EnvSource | Sequence[Callable[[], Any]],
        num_envs: int | None = None,
        num_runners: int | None = None,
        *,
        env_config: Mapping[str, Any] | None = None,
        num_cpus_per_runner: float = 1,
        horizon: int | None = None,
        autoreset_mode: Any = "next_step",
        timeout: float = 300.0,
        restart: bool = True,
        check: bool = True,
    ) -> None:
        self.closed = True  # until there is something to close
        sources = _sources(env, num_envs)
        self.num_envs = len(sources)
        if not timeout > 0:
            raise ValueError(f"`timeout` must be a positive number of seconds, got {timeout!r}.")
        self._timeout = float(timeout)
        self._restart = restart
        self._same_step = _is_same_step(autoreset_mode)
        if not ray.is_initialized():
            ray.init()
        num_runners = _num_runners(num_runners, self.num_envs)
        bounds = np.linspace(0, self.num_envs, num_runners + 1).astype(int).tolist()
        self._slices = [slice(start, stop) for start, stop in pairwise(bounds)]
        self._actor_class = ray.remote(num_cpus=num_cpus_per_runner)(EnvActor)
        self._arguments = [(sources[part], part.start, dict(env_config or {}), horizon, check) for part in self._slices]
        self._deaths = [0] * num_runners
        self._pending: list[Any] | None = None
        self.closed = False
        self._actors: list[Any] = []
        try:
            self._actors = [self._actor_class.remote(*arguments) for arguments in self._arguments]
            descriptions = [
                self._get(actor.describe.remote(), index, "starting") for index, actor in enumerate(self._actors)
            ]
        except BaseException:
            self.closed = True
            self._kill()
            raise
        first = descriptions[0]
        for index, other in enumerate(descriptions):
            for key in ("observation_space", "action_space"):
                if other[key] != first[key]:
                    self.close()
                    raise EnvError(
                        f"The environments of runner {index} have the {key} {other[key]!r}, those of runner 0 "
                        f"{first[key]!r}. All environments of a vector need the same spaces."
                    )
        self.single_observation_space = first["observation_space"]
        self.single_action_space = first["action_space"]
        self.observation_space = gymnasium.vector.utils.batch_space(self.single_observation_space, self.num_envs)
        self.action_space = gymnasium.vector.utils.batch_space(self.single_action_space, self.num_envs)
        self.render_mode = first["render_mode"]
        self.spec = first["spec"]
        self.metadata = {**first["metadata"]}
        self._set_autoreset_mode(same_step=self._same_step)
        self._is_array = is_array_space(self.single_observation_space)
        self._last: list[Any] = [None] * self.num_envs
        self._dones: Any = np.zeros(self.num_envs, dtype=np.bool_)

    @property
    def num_runners(self) -> int:
        """How many actors the environments live in."""
        return len(self._slices)

    def _set_autoreset_mode(self, *, same_step: bool) -> None:
        self._same_step = same_step
        self.metadata["autoreset_mode"] = AutoresetMode.SAME_STEP if same_step else AutoresetMode.NEXT_STEP

    def as_sb3(self) -> SB3ClusterVecEnv:
        """The same environments as a ``VecEnv`` of Stable-Baselines3. This object is not to be used any more then."""
        from mltoolkit.rllib._sb3_vec_env import SB3ClusterVecEnv

        return SB3ClusterVecEnv(self)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode in every environment.

        Parameters
        ----------
        seed : int, or sequence of int or None, optional
            Environment i gets ``seed + i``, as in gymnasium, or its own of the sequence.
        options : dict, optional
            Handed to the ``reset`` of every environment.

        Returns
        -------
        observations : element of ``observation_space``
        infos : dict
        """
        observations, infos = self.reset_unbatched(seed, options)
        return observations, self._vector_info(infos)

    def reset_unbatched(
        self, seed: int | Sequence[int | None] | None, options: dict[str, Any] | None
    ) -> tuple[Any, list[dict[str, Any]]]:
        """As `reset`, with one info per environment, as the environment gave it."""
        self._check_open()
        self._pending = None
        if seed is None or isinstance(seed, (int, np.integer)):
            seeds = [None if seed is None else int(seed) + index for index in range(self.num_envs)]
        else:
            seeds = list(seed)
            if len(seeds) != self.num_envs:
                raise ValueError(f"`seed` must be one integer or {self.num_envs} of them, got {len(seeds)}.")
        super().reset(seed=next((value for value in seeds if value is not None), None))
        calls = [_Call("reset", seeds[part], options) for part in self._slices]
        refs = [self._start(index, call) for index, call in enumerate(calls)]
        infos: list[dict[str, Any]] = []
        for index, (part, call) in enumerate(zip(self._slices, calls, strict=True)):
            observations, own_infos = self._finish(index, refs[index], call)
            self._last[part] = list(observations)
            infos.extend(own_infos)
        self._dones[:] = False
        return self._batch(self._last), infos

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Take one action in every environment.

        Parameters
        ----------
        actions : element of ``action_space``

        Returns
        -------
        observations : element of ``observation_space``
        rewards : ndarray of shape (num_envs,), dtype=float64
        terminations, truncations : ndarray of shape (num_envs,), dtype=bool
        infos : dict
        """
        self.step_async(actions)
        return self.step_wait()

    def step_async(self, actions: Any) -> None:
        """Send the actions; `step_wait` returns what they led to.

        Raises
        ------
        RuntimeError
            If a step is under way already.
        """
        self._check_open()
        if self._pending is not None:
            raise RuntimeError("A step is under way: call `step_wait` before the next `step_async`.")
        actions = np.asarray(actions, dtype=self.single_action_space.dtype)
        if actions.shape != (self.num_envs, *self.single_action_space.shape):
            raise ValueError(
                f"`actions` must have the shape {(self.num_envs, *self.single_action_space.shape)}: one element of "
                f"{self.single_action_space!r} per environment; got {actions.shape}."
            )
        if any(observation is None for observation in self._last):
            raise gymnasium.error.ResetNeeded("Call `reset` before the first step.")
        self._pending = [
            self._start(index, _Call("step", actions[part], self._same_step)) for index, part in enumerate(self._slices)
        ]

    def step_wait(self, timeout: float | None = None) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Wait for the step that `step_async` began.

        Parameters
        ----------
        timeout : float, optional
            Seconds; by default the one given at construction.

        Returns
        -------
        tuple
            As `step` returns.
        """
        observations, rewards, terminations, truncations, infos = self.step_wait_unbatched(timeout)
        return observations, rewards, terminations, truncations, self._vector_info(infos)

    def step_wait_unbatched(self, timeout: float | None = None) -> tuple[Any, Any, Any, Any, list[dict[str, Any]]]:
        """As `step_wait`, with one info per environment, as the environment gave it."""
        self._check_open()
        if self._pending is None:
            raise RuntimeError("No step is under way: call `step_async` first.")
        refs, self._pending = self._pending, None
        rewards = np.zeros(self.num_envs)
        terminations: Any = np.zeros(self.num_envs, dtype=np.bool_)
        truncations: Any = np.zeros(self.num_envs, dtype=np.bool_)
        infos: list[dict[str, Any]] = []
        for index, part in enumerate(self._slices):
            try:
                result = self._get(refs[index], index, "a step", timeout)
                self._deaths[index] = 0
            except (RayActorError, WorkerCrashedError) as error:
                result = self._after_death(index, error)
            observations, rewards[part], terminations[part], truncations[part], own_infos = result
            self._last[part] = list(observations)
            infos.extend(own_infos)
        if not self._same_step:
            self._dones = terminations | truncations
        return self._batch(self._last), rewards, terminations, truncations, infos

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Call a method of every environment, or get an attribute.

        Parameters
        ----------
        name : str
        *args, **kwargs
            For the method.

        Returns
        -------
        tuple of length num_envs
        """
        return self.call_some(name, range(self.num_envs), *args, **kwargs)

    def call_some(self, name: str, indices: Sequence[int], *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Call a method of some environments, or get an attribute; see `call`."""
        return tuple(self._each("call", indices, lambda _: (name, args, kwargs)))

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """An attribute of every environment."""
        return self.call(name)

    def set_attr(self, name: str, values: Any) -> None:
        """Set an attribute of every environment.

        Parameters
        ----------
        name : str
        values : object, or list or tuple of num_envs objects
            The same for all, or one for each.
        """
        if not isinstance(values, (list, tuple)):
            values = [values] * self.num_envs
        if len(values) != self.num_envs:
            raise ValueError(f"`values` must be one object or {self.num_envs} of them, got {len(values)}.")
        self._each("set_attr", range(self.num_envs), lambda index: (name, values[index]))

    def render(self) -> tuple[Any, ...]:
        """A picture of every environment; they are to be made with ``render_mode="rgb_array"`` in the env_config."""
        return self.call("render")

    def close_extras(self, **kwargs: Any) -> None:
        """End the actors; their environments have five seconds to close."""
        refs = [actor.close.remote() for actor in self._actors]
        try:
            if refs:
                ray.wait(refs, num_returns=len(refs), timeout=min(_CLOSE_TIMEOUT_S, self._timeout))
        finally:
            self._kill()

    def _kill(self) -> None:
        actors, self._actors = self._actors, []
        for actor in actors:
            ray.kill(actor)

    def close(self, **kwargs: Any) -> None:
        """End the actors. May be called more than once."""
        if self.closed:
            return
        self.closed = True
        if ray.is_initialized():
            self.close_extras()

    # Runners that answer, that do not, and that die.

    def _start(self, index: int, call: Callable[[Any], Any]) -> Any:
        """The reference of a call, or the error of one that failed at once."""
        try:
            return call(self._actors[index])
        except (RayActorError, WorkerCrashedError) as error:
            return error

    def _get(self, ref: Any, index: int, what: str, timeout: float | None = None) -> Any:
        if isinstance(ref, BaseException):
            raise ref
        timeout = self._timeout if timeout is None else timeout
        try:
            return ray.get(ref, timeout=timeout)
        except GetTimeoutError as error:
            raise TimeoutError(
                f"Runner {index} did not finish {what} within {timeout:g} s. An environment may hang, or the cluster "
                f"may lack a free CPU for the runner (it has {ray.cluster_resources().get('CPU', 0):g}): take fewer "
                "runners, a smaller `num_cpus_per_runner`, or a longer `timeout`."
            ) from error

    def _finish(self, index: int, ref: Any, call: Callable[[Any], Any]) -> Any:
        """The result of a call that a new actor can repeat."""
        while True:
            try:
                return self._get(ref, index, "a reset")
            except (RayActorError, WorkerCrashedError) as error:
                self._replace(index, error)
                ref = self._start(index, call)

    def _replace(self, index: int, error: Exception) -> None:
        self._deaths[index] += 1
        if not self._restart or self._deaths[index] > _MAX_SUCCESSIVE_DEATHS:
            times = f" {self._deaths[index]} times in succession" if self._restart else ""
            raise EnvError(
                f"Runner {index}, with the environments {self._slices[index].start} to "
                f"{self._slices[index].stop - 1}, died{times}: {error}"
            ) from error
        logger.warning("Runner %d died and is started again; its episodes count as truncated: %s", index, error)
        ray.kill(self._actors[index])  # if it only cannot be reached
        self._actors[index] = self._actor_class.remote(*self._arguments[index])

    def _after_death(self, index: int, error: Exception) -> tuple[Any, Any, Any, Any, list[dict[str, Any]]]:
        """What a step returns for the environments of a runner that died in it: their episodes end here."""
        part = self._slices[index]
        ended = self._dones[part].copy()  # these were to start an episode anyway
        seeds = [int(value) for value in self.np_random.integers(2**31, size=len(ended))]
        while True:
            self._replace(index, error)
            try:
                call = self._actors[index].restart.remote(seeds, ~ended, self._same_step)
                first, infos = self._get(call, index, "starting again")
                break
            except (RayActorError, WorkerCrashedError) as again:
                error = again
        observations = list(first)
        truncated = ~ended
        for position in np.flatnonzero(truncated):
            last = self._last[part.start + int(position)]
            if self._same_step:
                infos[position] = {"final_obs": last, "final_info": {}, **infos[position]}
            else:
                observations[position] = last
                infos[position] = {}
            infos[position]["faulty_episode"] = True
        size = len(ended)
        return observations, np.zeros(size), np.zeros(size, dtype=np.bool_), truncated, infos

    def _each(self, method: str, indices: Sequence[int], arguments: Callable[[int], tuple[Any, ...]]) -> list[Any]:
        """The results of one actor method for some environments, in their order."""
        self._check_open()
        refs = []
        for env_index in indices:
            if not -self.num_envs <= env_index < self.num_envs:
                raise IndexError(f"There is no environment {env_index}; they are 0 to {self.num_envs - 1}.")
            env_index %= self.num_envs
            runner = next(i for i, part in enumerate(self._slices) if part.start <= env_index < part.stop)
            bound = getattr(self._actors[runner], method)
            refs.append((runner, bound.remote(env_index - self._slices[runner].start, *arguments(env_index))))
        return [self._get(ref, runner, f"`{method}`") for runner, ref in refs]

    def _batch(self, observations: list[Any]) -> Any:
        if self._is_array:
            return np.array(observations, dtype=self.single_observation_space.dtype)
        utils = gymnasium.vector.utils
        out = utils.create_empty_array(self.single_observation_space, self.num_envs)
        return utils.concatenate(self.single_observation_space, observations, out)

    def _vector_info(self, infos: list[dict[str, Any]]) -> dict[str, Any]:
        vector_info: dict[str, Any] = {}
        for env_index, info in enumerate(infos):
            if info:
                vector_info = self._add_info(vector_info, info, env_index)
        return vector_info

    def _check_open(self) -> None:
        if self.closed:
            raise gymnasium.error.ClosedEnvironmentError("This vector environment is closed; make a new one.")


def _sources(env: Any, num_envs: int | None) -> list[EnvSource]:
    if isinstance(env, (list, tuple)):
        if num_envs is not None and num_envs != len(env):
            raise ValueError(f"`num_envs` is {num_envs!r}, but there are {len(env)} functions.")
        wrong = [function for function in env if not callable(function)]
        if wrong or not env:
            raise TypeError(f"`env` must be a sequence of functions without arguments, got {wrong or env!r}.")
        return [
            EnvSource(getattr(function, "__name__", type(function).__name__), creator=_WithoutArguments(function))
            for function in env
        ]
    if isinstance(num_envs, bool) or not isinstance(num_envs, int) or num_envs < 1:
        raise ValueError(f"`num_envs` must be an integer of at least 1, got {num_envs!r}.")
    return [resolve_env(env)] * num_envs


class _Call:
    """A call of an actor's method, which can be repeated with the actor that takes its place."""

    def __init__(self, method: str, *arguments: Any) -> None:
        self._method = method
        self._arguments = arguments

    def __call__(self, actor: Any) -> Any:
        return getattr(actor, self._method).remote(*self._arguments)


class _WithoutArguments:
    """A function as gymnasium's vector environments take it: called with nothing."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function

    def __call__(self, context: Any) -> Any:
        return self._function()


def _num_runners(num_runners: int | None, num_envs: int) -> int:
    if num_runners is None:
        return max(1, min(num_envs, int(ray.cluster_resources().get("CPU", 1))))
    if isinstance(num_runners, bool) or not isinstance(num_runners, int) or not 1 <= num_runners <= num_envs:
        raise ValueError(
            f"`num_runners` must be an integer from 1 to the number of environments, {num_envs}; got {num_runners!r}."
        )
    return num_runners


def _is_same_step(mode: Any) -> bool:
    name = str(getattr(mode, "name", mode)).lower()
    if name not in ("next_step", "same_step"):
        raise ValueError(f"`autoreset_mode` must be 'next_step' or 'same_step', got {mode!r}.")
    return name == "same_step"


def __getattr__(name: str) -> Any:
    # Stable-Baselines3 imports torch.
    if name == "SB3ClusterVecEnv":
        from mltoolkit.rllib._sb3_vec_env import SB3ClusterVecEnv

        return SB3ClusterVecEnv
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
