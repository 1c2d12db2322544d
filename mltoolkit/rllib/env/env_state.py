"""The state of environments as plain data, so that training goes on after a restart as if it had never stopped.

An environment's state is the attributes of its instance, of its wrappers, and of the Python objects that these hold.
Attributes of a freshly made and reset environment are overwritten with those recorded: nothing is unpickled, no class
is imported. What cannot be recorded and may matter (a physics engine's world, a socket, a generator) makes the whole
state None: then new episodes are started instead.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import pickle
import types
from abc import ABCMeta
from collections.abc import Iterator
from typing import Any

import numpy as np

from mltoolkit._optional import require
from mltoolkit.rllib.utils.data_codec import DecodeError, NotPlainDataError, decode, encode

__all__ = ["restore_vector", "snapshot_vector"]

logger = logging.getLogger(__name__)

_VERSION = 1
_MAX_OBJECTS = 1000

#: Attributes that describe the environment, or how it is shown, and are the same in one made anew.
_IGNORED_NAMES = frozenset(("spec", "metadata", "render_mode", "isopen", "closed", "_cached_spec", "_saved_kwargs"))
#: Objects of these packages are for showing the environment.
_RENDERING = frozenset(("pygame", "pyglet", "matplotlib", "tkinter", "moviepy", "imageio", "OpenGL", "glfw", "plotly"))
#: Objects of these packages are data that environments read: compared rather than recorded.
_CONSTANTS = frozenset(("pandas", "pathlib", "datetime", "decimal", "fractions", "re", "uuid", "zoneinfo"))
_CODE = (
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
    types.ModuleType,
    type,
    property,
    functools.partial,
    logging.Logger,
    logging.LoggerAdapter,
)
_SCALARS = frozenset((type(None), bool, int, float, str))
_HEAP_TYPE = 1 << 9

_logged: set[tuple[str, str]] = set()


def snapshot_vector(envs: list[Any], *, kind: str, name: str, extra: dict[str, Any]) -> dict[str, Any] | None:
    """The state of the environments of a vector.

    Parameters
    ----------
    envs : list
        Environments, or one vector environment.
    kind : str
        Of the vector; a state fits vectors of its kind.
    name : str
        The environments' name, for the log.
    extra : dict of plain data
        What the vector itself adds.

    Returns
    -------
    dict or None
        Strings, numbers and numpy arrays. None where an environment holds something that is not plain data: this is
        logged once.
    """
    try:
        # Named, not listed: the codec compares the items of a record one by one, and writes equal tables once.
        recorded = {str(index): _Recorder(env).record() for index, env in enumerate(envs)}
        data, arrays = encode({"envs": recorded, "extra": extra})
    except (NotPlainDataError, RecursionError) as error:
        reason = str(error) if isinstance(error, NotPlainDataError) else "its objects are nested too deeply."
        _log_once(name, f"The state of environment {name} is not part of checkpoints, because {reason} ")
        return None
    # As text: whatever carries the state on need not look into it.
    return {"version": _VERSION, "kind": kind, "num_envs": len(envs), "data": json.dumps(data), "arrays": arrays}


def restore_vector(envs: list[Any], state: dict[str, Any], *, kind: str, name: str) -> dict[str, Any] | None:
    """Set environments to a state.

    Parameters
    ----------
    envs : list
        Made as those of the state were, and reset.
    state : dict
        Of `snapshot_vector`.
    kind, name : str

    Returns
    -------
    dict or None
        The ``extra`` of the state; None if it does not fit these environments, which is logged. They have to be reset
        then.
    """
    try:
        if (state["version"], state["kind"], state["num_envs"]) != (_VERSION, kind, len(envs)):
            raise DecodeError(
                f"it is of {state['num_envs']} environments of kind {state['kind']!r}, version {state['version']}; "
                f"these are {len(envs)} of kind {kind!r}, version {_VERSION}"
            )
        namespaces = [namespace for env in envs[:1] for namespace in _namespaces(env)]
        tree = decode(json.loads(state["data"]), state["arrays"], namespaces=namespaces)
        changes: list[tuple[dict[str, Any], str, Any]] = []
        for env, recorded in zip(envs, tree["envs"].values(), strict=True):
            _Restorer(changes).prepare(env, recorded, type(env).__name__)
        extra: dict[str, Any] = tree["extra"]
    except (DecodeError, KeyError, TypeError, ValueError) as error:
        _log_once(name, f"The recorded state of environment {name} does not fit: {error} ")
        return None
    for namespace, attribute, value in changes:
        namespace[attribute] = value
    return extra


def _log_once(name: str, message: str) -> None:
    if (name, message) not in _logged:
        _logged.add((name, message))
        logger.warning("%sNew episodes are started instead.", message)


class _Recorder:
    """Turns one environment into nested dictionaries of plain data."""

    def __init__(self, env: Any) -> None:
        self._env = env
        self._numbers: dict[int, int] = {}
        self._bases: dict[int, tuple[Any, str]] = {}

    def record(self) -> dict[str, Any]:
        """The whole environment."""
        return self._object(self._env, type(self._env).__name__)

    def _object(self, obj: Any, path: str) -> dict[str, Any]:
        if id(obj) in self._numbers:
            return {"seen": self._numbers[id(obj)]}
        if len(self._numbers) >= _MAX_OBJECTS:
            raise NotPlainDataError(f"it holds more than {_MAX_OBJECTS} objects.")
        self._numbers[id(obj)] = len(self._numbers)
        node: dict[str, Any] = {"class": _class_name(obj), "data": {}, "objects": {}, "digests": {}}
        node["generators"] = {attribute: _generators(space) for attribute, space in _spaces_of(obj)}
        for attribute, value in vars(obj).items():
            if attribute not in _IGNORED_NAMES:
                self._attribute(node, attribute, value, f"{path}.{attribute}")
        return node

    def _attribute(self, node: dict[str, Any], attribute: str, value: Any, path: str) -> None:
        if _is_constant(value):
            node["digests"][attribute] = _digest(value, path)
        elif _is_object(value):
            node["objects"][attribute] = self._object(value, path)
        elif type(value) in (list, tuple) and value and all(map(_is_env, value)):
            items = [self._object(item, f"{path}[{index}]") for index, item in enumerate(value)]
            node["objects"][attribute] = {"items": items}
        elif self._is_data(value, path):
            node["data"][attribute] = value

    def _is_data(self, value: Any, path: str) -> bool:
        """Whether to record a value; False for code and what is for showing. Raises where it is neither."""
        kind = type(value)
        if kind in _SCALARS:
            return True
        if kind in (list, tuple, set, frozenset) or kind.__module__ == "collections" and not isinstance(value, dict):
            return all(type(item) in _SCALARS or self._is_data(item, path) for item in value)
        if isinstance(value, dict):
            if kind.__module__ not in ("builtins", "collections"):
                return False  # an EnvContext, say: configuration
            return all(type(item) in _SCALARS or self._is_data(item, path) for item in value.values())
        if kind is np.ndarray:
            self._check_own_memory(value, path)
            return True
        return not (isinstance(value, _CODE) or _package(value) in _RENDERING or _is_space(value) or _is_spec(value))

    def _check_own_memory(self, array: Any, path: str) -> None:
        """Refuse two arrays that are views of the same memory: a change of one would no longer show in the other."""
        base = array
        while isinstance(base.base, np.ndarray):
            base = base.base
        known, where = self._bases.setdefault(id(base), (array, path))
        if known is not array:
            raise NotPlainDataError(f"{path} and {where} are views of the same array.")


class _Restorer:
    """Collects the changes that bring one environment into a recorded state, and refuses what does not fit."""

    def __init__(self, changes: list[tuple[dict[str, Any], str, Any]]) -> None:
        self._changes = changes
        self._objects: list[Any] = []

    def prepare(self, obj: Any, node: dict[str, Any], path: str) -> None:
        """Compare an object with what was recorded of it; DecodeError if they are not alike."""
        if "seen" in node:
            if self._objects[node["seen"]] is not obj:
                raise DecodeError(f"{path} is another object than in the recorded environment.")
            return
        if _class_name(obj) != node["class"]:
            raise DecodeError(f"{path} is a {_class_name(obj)}, but a {node['class']} was recorded.")
        self._objects.append(obj)
        namespace = vars(obj)
        spaces = dict(_spaces_of(obj))
        for attribute, generators in node["generators"].items():
            parts = list(_space_parts(spaces[attribute]))
            for part, generator in zip(parts, generators, strict=True):
                self._changes.append((vars(part), "_np_random", generator))
        for attribute, digest in node["digests"].items():
            if attribute not in namespace or _digest(namespace[attribute], path) != digest:
                raise DecodeError(f"{path}.{attribute} has another value than in the recorded environment.")
        for attribute, child in node["objects"].items():
            if attribute not in namespace:
                raise DecodeError(f"{path} has no attribute {attribute!r}.")
            if "items" in child:
                for index, (item, recorded) in enumerate(zip(namespace[attribute], child["items"], strict=True)):
                    self.prepare(item, recorded, f"{path}.{attribute}[{index}]")
            else:
                self.prepare(namespace[attribute], child, f"{path}.{attribute}")
        for attribute, value in node["data"].items():
            if value is not None or not _is_shown(namespace.get(attribute)):
                self._changes.append((namespace, attribute, value))


def _class_name(obj: Any) -> str:
    return f"{type(obj).__module__}.{type(obj).__qualname__}"


def _package(value: Any) -> str:
    return type(value).__module__.partition(".")[0]


def _is_shown(value: Any) -> bool:
    return value is not None and _package(value) in _RENDERING


def _is_constant(value: Any) -> bool:
    return _package(value) in _CONSTANTS and not isinstance(value, type)


def _digest(value: Any, path: str) -> str:
    try:
        return hashlib.sha256(pickle.dumps(value, protocol=5)).hexdigest()
    except Exception as error:
        raise NotPlainDataError(f"{path} is a {_class_name(value)} that cannot be compared: {error}.") from error


def _is_space(value: Any) -> bool:
    return isinstance(value, require("gymnasium", purpose="mltoolkit.rllib", extra="rllib").Space)


def _is_spec(value: Any) -> bool:
    return type(value).__module__ == "gymnasium.envs.registration"


def _is_env(value: Any) -> bool:
    return callable(getattr(value, "step", None)) and callable(getattr(value, "reset", None)) and _is_object(value)


def _is_object(value: Any) -> bool:
    """Whether it is an instance of a Python class whose attributes are all that there is to it."""
    cls = type(value)
    if type(cls) not in (type, ABCMeta) or not cls.__flags__ & _HEAP_TYPE or not hasattr(value, "__dict__"):
        return False
    if isinstance(value, (*_CODE, dict, list, tuple, set, np.ndarray, np.generic)) or _package(value) in _RENDERING:
        return False
    # Slots, or the fields of a type written in C, which __dict__ does not show.
    if any(vars(base).get("__slots__") for base in cls.__mro__) or cls.__basicsize__ > object.__basicsize__ + 16:
        return False
    return not (_is_space(value) or _is_spec(value) or _package(value) in ("random", "numpy", "threading"))


def _spaces_of(obj: Any) -> Iterator[tuple[str, Any]]:
    """The spaces of an environment, which it may draw from."""
    for attribute in ("observation_space", "action_space", "single_observation_space", "single_action_space"):
        space = vars(obj).get(attribute, getattr(type(obj), attribute, None))
        if space is not None and _is_space(space):
            yield attribute, space


def _space_parts(space: Any) -> Iterator[Any]:
    yield space
    parts = getattr(space, "spaces", ())
    for part in parts.values() if isinstance(parts, dict) else parts:
        if _is_space(part):
            yield from _space_parts(part)


def _generators(space: Any) -> list[Any]:
    return [part._np_random for part in _space_parts(space)]


def _namespaces(env: Any) -> Iterator[dict[str, Any]]:
    """Where the classes of enumeration members may be found: the globals of the environment's own code.

    A class that came from another process by value is in no module here.
    """
    while env is not None:
        step = getattr(type(env), "step", None)
        if isinstance(step, types.FunctionType):
            yield step.__globals__
        env = vars(env).get("env")
