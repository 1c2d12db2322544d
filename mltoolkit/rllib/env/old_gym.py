"""Environments of the older gym API: `step` returns four things, `reset` the observation alone."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

from mltoolkit.rllib.env.errors import InvalidEnvResultError
from mltoolkit.rllib.env.spaces import to_gymnasium_space

__all__ = ["OldGymEnv", "describe_result", "reset_env", "takes_seed"]

_MAX_SEED = 2**31


class OldGymEnv:
    """Puts gymnasium's API over an environment of the older gym API.

    ``reset(seed=...)`` calls ``env.seed(seed)`` where there is one, and ``step`` makes ``terminated`` and
    ``truncated`` of ``done`` and ``info["TimeLimit.truncated"]``. Everything else is the environment's own.

    Parameters
    ----------
    env : object
        With ``reset() -> observation`` and ``step(action) -> (observation, reward, done, info)``.
    """

    def __init__(self, env: Any) -> None:
        self.env = env
        self.observation_space = to_gymnasium_space(env.observation_space)
        self.action_space = to_gymnasium_space(env.action_space)

    def __getattr__(self, name: str) -> Any:
        if name == "env":  # while unpickling, before there is one
            raise AttributeError(name)
        return getattr(self.env, name)

    @property
    def unwrapped(self) -> Any:
        """The environment below all wrappers."""
        return getattr(self.env, "unwrapped", self.env)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        if seed is not None and callable(getattr(self.env, "seed", None)):
            self.env.seed(seed)
        return self.env.reset(), {}

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Take an action."""
        return self.translate(self.env.step(action))

    @staticmethod
    def translate(result: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Gymnasium's five of the older API's four.

        Raises
        ------
        InvalidEnvResultError
            If they are not four.
        """
        if not isinstance(result, tuple) or len(result) != 4:
            raise InvalidEnvResultError(f"`step` returned {describe_result(result)}")
        observation, reward, done, info = result
        truncated = bool(isinstance(info, dict) and info.get("TimeLimit.truncated", False))
        return observation, reward, bool(done) and not truncated, truncated, info


def describe_result(result: Any) -> str:
    """The kind of what an environment returned, in words."""
    if isinstance(result, tuple):
        return f"a tuple of {len(result)}: ({', '.join(type(part).__name__ for part in result)})"
    return f"a {type(result).__name__}"


def takes_seed(env: Any) -> bool:
    """Whether ``env.reset`` has a ``seed`` parameter."""
    try:
        parameters = inspect.signature(env.reset).parameters
    except (TypeError, ValueError):
        return True
    return "seed" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def reset_env(env: Any, seed: int | None, options: dict[str, Any] | None = None) -> Any:
    """Whatever ``env.reset`` returns, seeded in the way in which the environment takes a seed.

    Its spaces are seeded too: many environments draw their observations from them.
    """
    kwargs = {} if options is None else {"options": options}
    if seed is None:
        return env.reset(**kwargs)
    unwrapped = getattr(env, "unwrapped", env)
    for layer in (env, unwrapped) if unwrapped is not env else (env,):
        for offset, space in enumerate((layer.observation_space, layer.action_space), 1):
            if callable(getattr(space, "seed", None)):
                space.seed((seed + offset) % _MAX_SEED)
    if takes_seed(env):
        return env.reset(seed=seed, **kwargs)
    if callable(getattr(env, "seed", None)):
        env.seed(seed)
    elif isinstance(getattr(type(unwrapped), "np_random", None), property):  # a gymnasium.Env
        unwrapped.np_random = np.random.default_rng(seed)
    return env.reset(**kwargs)
