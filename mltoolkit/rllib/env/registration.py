"""From what a configuration calls an environment to the environment."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any

from mltoolkit._optional import require
from mltoolkit.rllib.env.env_context import EnvContext
from mltoolkit.rllib.env.errors import EnvCreationError, EnvError, UnknownEnvError, UnsupportedEnvError, describe_cause

__all__ = ["EnvSource", "resolve_env"]

#: Ids that gymnasium no longer has or recommends: the one that behaves the same with its default settings, and the
#: limit of steps of old, where it was another.
_OLD_IDS: dict[str, tuple[str, int | None]] = {
    "CartPole-v0": ("CartPole-v1", 200),
    "CliffWalking-v0": ("CliffWalking-v1", None),
    "Pendulum-v0": ("Pendulum-v1", None),
    "Taxi-v3": ("Taxi-v4", None),
}

#: First parameters that take the whole configuration, rather than one setting.
_CONFIG_NAMES = ("config", "env_config", "context", "env_context", "ctx", "cfg", "conf")

#: Settings of `gymnasium.make` itself.
_MAKE_SETTINGS = ("max_episode_steps", "disable_env_checker")


def _gymnasium() -> Any:
    return require("gymnasium", purpose="mltoolkit.rllib", extra="rllib")


@dataclasses.dataclass(frozen=True)
class EnvSource:
    """How environments of one kind are made. Travels between processes by cloudpickle.

    Parameters
    ----------
    name : str
        For messages and results.
    spec : gymnasium.envs.registration.EnvSpec, optional
        Of an environment that gymnasium knows.
    creator : callable, optional
        Otherwise: called with the `EnvContext`.
    """

    name: str
    spec: Any = None
    creator: Callable[[EnvContext], Any] | None = None

    def make(self, context: EnvContext, *, render_mode: str | None = None) -> tuple[Any, int | None]:
        """Make one environment.

        Parameters
        ----------
        context : EnvContext
        render_mode : str, optional
            Such as ``"rgb_array"``.

        Returns
        -------
        env : gymnasium.Env, gymnasium.vector.VectorEnv or an environment of the older gym API
            Without gymnasium's own outermost wrappers that check and count steps.
        max_episode_steps : int or None
            The limit that these wrappers had.

        Raises
        ------
        EnvCreationError
            If the constructor raises; that error is the cause.
        UnsupportedEnvError
            If it makes something else.
        """
        try:
            if self.spec is not None:
                return self._make_registered(context, render_mode)
            assert self.creator is not None
            if render_mode is not None:
                context = context.copy_with_overrides(env_config={**context, "render_mode": render_mode})
            env = self.creator(context)
        except EnvError:
            raise
        except Exception as error:
            raise EnvCreationError(
                f"Environment {self.name} could not be made with env_config={dict(context)!r}: {describe_cause(error)}"
            ) from error
        if not self.is_vector_env(env):
            _check_is_env(env, self.name)
        return _strip(env)

    def _make_registered(self, context: EnvContext, render_mode: str | None) -> tuple[Any, int | None]:
        gymnasium = _gymnasium()
        kwargs = {key: value for key, value in context.items() if key not in _MAKE_SETTINGS}
        if render_mode is not None:
            kwargs["render_mode"] = render_mode
        limit = context.get("max_episode_steps", self.spec.max_episode_steps)
        if self.spec.additional_wrappers:
            # These may repeat or skip steps, so the limit has to count below them.
            return gymnasium.make(self.spec, disable_env_checker=True, max_episode_steps=limit, **kwargs), None
        # Of the wrappers that `make` adds none is needed: results are checked and steps counted by the vector.
        spec = dataclasses.replace(self.spec, order_enforce=False)
        env = gymnasium.make(spec, disable_env_checker=True, max_episode_steps=-1, **kwargs)
        if env.unwrapped.spec is not None and limit not in (None, -1):
            env.unwrapped.spec.max_episode_steps = limit
        env, inner = _strip(env)
        limits = [value for value in (limit, inner) if value not in (None, -1)]
        return env, min(limits, default=None)

    @staticmethod
    def is_vector_env(env: Any) -> bool:
        """Whether it is one of gymnasium's vector environments."""
        return isinstance(env, _gymnasium().vector.VectorEnv)

    def why_not_native(self, context: EnvContext, horizon: int | None) -> str:
        """Why the environment's own vector implementation cannot be asked for; empty if it can."""
        if self.spec is None or self.spec.vector_entry_point is None:
            return "it has no vector implementation of its own"
        if self.spec.additional_wrappers:
            return "it comes with wrappers, which work on single environments only"
        try:
            entry_point = _load(self.spec.vector_entry_point)
            parameters = inspect.signature(entry_point).parameters
        except Exception as error:
            return f"its vector implementation cannot be loaded ({describe_cause(error).splitlines()[0]})"
        wanted = set(self._native_kwargs(context, horizon))
        unknown = sorted(wanted - set(parameters))
        if unknown and not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            return f"its vector implementation does not take {', '.join(unknown)}"
        if "render_mode" in wanted:
            return "environments that are shown are stepped one by one"
        return ""

    def _native_kwargs(self, context: EnvContext, horizon: int | None) -> dict[str, Any]:
        kwargs = {**self.spec.kwargs, **{k: v for k, v in context.items() if k not in _MAKE_SETTINGS}}
        limits = (context.get("max_episode_steps", self.spec.max_episode_steps), horizon)
        limit = min((value for value in limits if value not in (None, -1)), default=None)
        if limit is not None:
            kwargs["max_episode_steps"] = limit
        return kwargs

    def make_native(self, context: EnvContext, num_envs: int, horizon: int | None) -> Any:
        """The environment's own vector implementation, a ``gymnasium.vector.VectorEnv``."""
        kwargs = self._native_kwargs(context, horizon)
        try:
            env = _load(self.spec.vector_entry_point)(num_envs=num_envs, **kwargs)
        except Exception as error:
            raise EnvCreationError(
                f"The vector environment of {self.name} could not be made with env_config={dict(context)!r}: "
                f"{describe_cause(error)}"
            ) from error
        env.unwrapped.spec = self.spec
        return env

    def make_async(self, context: EnvContext, num_envs: int, horizon: int | None) -> Any:
        """A ``gymnasium.vector.AsyncVectorEnv``: each environment in a process of its own."""
        gymnasium = _gymnasium()

        def make_one(index: int) -> Any:
            env, limit = self.make(context.copy_with_overrides(vector_index=index))
            limits = [value for value in (limit, horizon) if value is not None]
            return gymnasium.wrappers.TimeLimit(env, min(limits)) if limits else env

        # The default argument binds the index now.
        return gymnasium.vector.AsyncVectorEnv([lambda index=index: make_one(index) for index in range(num_envs)])


def resolve_env(env: Any, *, name: str | None = None) -> EnvSource:
    """Find out what a configuration means by its environment.

    Parameters
    ----------
    env : str, class, callable, EnvSpec or EnvSource
        A name given to ``register_env``, a gymnasium id (``"module:Env-v0"`` imports the module first), the path of a
        class (``"package.module.Class"``), an environment class (made with the env_config, or without argument where
        it takes none), or a function of the env_config.
    name : str, optional
        How to call it; a class or function goes by its own name otherwise.

    Returns
    -------
    EnvSource

    Raises
    ------
    UnknownEnvError
        If there is none of this name; the nearest one is named.
    UnsupportedEnvError
        If ``env`` is something else, an environment that was already made for instance.

    Examples
    --------
    >>> resolve_env("CartPole-v0").spec.max_episode_steps
    200
    """
    if isinstance(env, EnvSource):
        return env
    if isinstance(env, str):
        return _resolve_name(env)
    if isinstance(env, type):
        return EnvSource(name or env.__name__, creator=_ClassCreator(env))
    if not callable(env) and type(env).__name__ == "EnvSpec":
        return EnvSource(str(env.id), spec=_portable(env))
    if callable(env) and not hasattr(env, "observation_space"):
        called = str(name or getattr(env, "__name__", type(env).__name__))
        return EnvSource(called, creator=_FunctionCreator(env))
    if hasattr(env, "step") and hasattr(env, "reset"):
        raise UnsupportedEnvError(
            f"`env` is an environment already made ({type(env).__name__}), but every runner makes its own. "
            "Give its class, a function of the env_config that returns one, or a name registered with `register_env`."
        )
    raise UnsupportedEnvError(
        f"`env` must be a gymnasium id, a name registered with `register_env`, an environment class or a function of "
        f"the env_config, got {env!r} of type {type(env).__name__}."
    )


def _resolve_name(name: str) -> EnvSource:
    from mltoolkit.tune import registry

    creator = registry.get_env_creator(name)
    if creator is not None:
        return EnvSource(name, creator=_FunctionCreator(creator))
    gymnasium = _gymnasium()
    module, _, env_id = name.rpartition(":")
    if module:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise UnknownEnvError(
                f"Environment {name!r}: module {module!r} cannot be imported ({error}). "
                "Before the colon stands the module that registers the environment."
            ) from error
    spec = gymnasium.registry.get(env_id)
    if env_id in _OLD_IDS:
        successor, limit = _OLD_IDS[env_id]
        spec = spec or gymnasium.registry.get(successor)
        if spec is not None:
            spec = dataclasses.replace(spec, id=env_id, max_episode_steps=limit or spec.max_episode_steps)
    if spec is None and "-v" not in env_id:  # without a version: the newest there is
        versions = [s for s in gymnasium.registry.values() if s.version is not None and _unversioned(s) == env_id]
        spec = max(versions, key=lambda s: s.version, default=None)
    if spec is not None:
        return EnvSource(name, spec=_portable(spec))
    cls = _class_at(name)
    if cls is not None:
        return EnvSource(name, creator=_ClassCreator(cls))
    known = {*registry.registered("environments"), *gymnasium.registry}
    raise UnknownEnvError(_unknown_message(name, env_id, known))


def _unversioned(spec: Any) -> str:
    return f"{spec.namespace}/{spec.name}" if spec.namespace else str(spec.name)


def _unknown_message(name: str, env_id: str, known: set[str]) -> str:
    lowered = {key.lower(): key for key in sorted(known)}
    near = difflib.get_close_matches(env_id.lower(), lowered, 1, cutoff=0.6)
    hint = f" Did you mean {lowered[near[0]]!r}?" if near else ""
    from mltoolkit.tune import registry

    registered = ", ".join(sorted(registry.registered("environments"))) or "none"
    return (
        f"No environment is known as {name!r}.{hint} Registered with `register_env`: {registered}; gymnasium knows "
        f"{len(known)}. Register yours with `tune.register_env({name!r}, lambda env_config: ...)`, or import the "
        "package that registers it with gymnasium."
    )


def _class_at(path: str) -> type | None:
    """The class of a dotted path, or None."""
    module, _, attribute = path.rpartition(".")
    if not module or not all(part.isidentifier() for part in path.split(".")):
        return None
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except ModuleNotFoundError as error:
        if error.name is not None and (module == error.name or module.startswith(f"{error.name}.")):
            return None
        raise  # the module is there, and needs one that is not
    return found if isinstance(found, type) else None


def _portable(spec: Any) -> Any:
    """A spec that processes other than this one can use too: what ``__main__`` defines goes along by value."""
    changes = {}
    for field in ("entry_point", "vector_entry_point"):
        value = getattr(spec, field, None)
        if isinstance(value, str) and value.startswith("__main__:"):
            changes[field] = getattr(sys.modules["__main__"], value.partition(":")[2])
    return dataclasses.replace(spec, **changes) if changes else spec


def _load(entry_point: Any) -> Callable[..., Any]:
    if callable(entry_point):
        return entry_point
    module, _, attribute = entry_point.partition(":")
    loaded: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    return loaded


class _FunctionCreator:
    """Calls a function with the env_config, or with nothing where it takes nothing."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, context: EnvContext) -> Any:
        if isinstance(self._function, type):
            return _ClassCreator(self._function)(context)
        try:
            inspect.signature(self._function).bind(context)
        except TypeError:
            if not inspect.signature(self._function).parameters:
                return self._function()
        except ValueError:  # no signature to look at
            pass
        return self._function(context)


class _ClassCreator:
    """Makes an instance of a class from the env_config, in the way in which its ``__init__`` takes one."""

    def __init__(self, cls: type) -> None:
        self._cls = cls

    def __call__(self, context: EnvContext) -> Any:
        if issubclass(self._cls, _gymnasium().vector.VectorEnv):
            return self._cls(**context)
        try:
            parameters = list(inspect.signature(self._cls).parameters.values())
        except ValueError:
            return self._cls(context)
        parameters = [p for p in parameters if p.kind is not p.VAR_POSITIONAL]
        positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        if positional and self._takes_config(positional[0], context, alone=len(parameters) == 1):
            return self._cls(context)
        if not parameters:
            return self._cls()
        accepted = {p.name for p in parameters}
        unknown = sorted(set(context) - accepted)
        if unknown and not any(p.kind is p.VAR_KEYWORD for p in parameters):
            raise UnsupportedEnvError(
                f"`env_config` has keys that {self._cls.__name__}.__init__ does not take: {', '.join(unknown)}. It "
                f"takes {', '.join(sorted(accepted)) or 'nothing'}; a first parameter named `config` takes everything."
            )
        return self._cls(**context)

    @staticmethod
    def _takes_config(parameter: inspect.Parameter, context: Mapping[str, Any], *, alone: bool) -> bool:
        """Whether the first parameter is the configuration, as RLlib has it, and not a single setting."""
        annotation = str(parameter.annotation)
        if parameter.name.strip("_") in _CONFIG_NAMES or "conf" in parameter.name.lower() or "EnvContext" in annotation:
            return True
        if isinstance(parameter.default, Mapping) or "dict" in annotation.lower() or "Mapping" in annotation:
            return True
        bare = parameter.default is parameter.empty or (alone and parameter.default is None)
        return bare and parameter.name not in context


def _check_is_env(env: Any, name: str) -> None:
    missing = [what for what in ("reset", "step", "observation_space", "action_space") if not hasattr(env, what)]
    agents = getattr(env, "possible_agents", None) or getattr(env, "agents", None) or getattr(env, "_agent_ids", None)
    multi = any(cls.__name__ in ("MultiAgentEnv", "ParallelEnv", "AECEnv") for cls in type(env).__mro__)
    spaces = getattr(env, "observation_space", None)
    if multi or (agents and (callable(spaces) or isinstance(spaces, dict) or "observation_space" in missing)):
        raise UnsupportedEnvError(
            f"Environment {name} ({type(env).__name__}) is a multi-agent environment; mltoolkit.rllib trains one agent. "
            "Wrap it so that one agent acts, or join the agents' observations and actions into one space each."
        )
    if env is None:
        raise UnsupportedEnvError(f"The function for environment {name} returned None; is a `return` missing?")
    if missing:
        raise UnsupportedEnvError(
            f"What was made for environment {name} is no environment: {type(env).__name__} has no "
            f"{', '.join(f'`{what}`' for what in missing)}. Derive it from `gymnasium.Env`, and set its spaces in `__init__`."
        )


def _strip(env: Any) -> tuple[Any, int | None]:
    """Take off gymnasium's own outermost wrappers that check results and count steps; the vector does both, faster."""
    wrappers = _gymnasium().wrappers
    removable = (wrappers.PassiveEnvChecker, wrappers.OrderEnforcing)
    limit: int | None = None
    while True:
        if type(env) is wrappers.TimeLimit:
            own = int(env._max_episode_steps)
            limit = own if limit is None else min(limit, own)
        elif type(env) not in removable:
            return env, limit
        env = env.env
