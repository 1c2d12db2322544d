"""Trying an environment out before training on it."""

from __future__ import annotations

import copy
from typing import Any

from mltoolkit.rllib.env.spaces import to_gymnasium_space

__all__ = ["check_env"]


def check_env(env: Any, name: str | None = None, *, num_steps: int = 3) -> None:
    """Reset an environment, take a few random actions and check everything that it returns.

    The environment is left in the middle of an episode: reset it before use.

    Parameters
    ----------
    env : gymnasium.Env, or an environment of the older gym API
    name : str, optional
        For messages; the name of its class otherwise.
    num_steps : int, default=3

    Raises
    ------
    EnvError
        One of its subclasses: what it raised itself, a space that is not supported, or a result that is not as
        gymnasium's API or its spaces have it.

    Examples
    --------
    >>> import gymnasium
    >>> check_env(gymnasium.make("Pendulum-v1"))
    """
    from mltoolkit.rllib.env.serial_vector_env import SerialVectorEnv

    name = name or type(env).__name__
    vector = SerialVectorEnv(lambda _: (env, None), 1, name=name, check=True, try_out=False)
    # Sampling from the environment's own space would move on a generator that the environment may use.
    action_space = copy.deepcopy(to_gymnasium_space(env.action_space))
    action_space.seed(0)
    vector.reset()
    vector.check_pending()
    for _ in range(num_steps):
        vector.step([action_space.sample()])
        vector.check_pending()
