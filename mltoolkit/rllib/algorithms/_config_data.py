"""Configurations as data that JSON holds and that no reader executes.

Classes and functions are written as ``{"__ref__": "module:qualname"}``. Reading them back looks them up in modules that
are loaded already, and takes nothing but classes of the kind that the setting calls for: a checkpoint of unknown origin
cannot name, say, ``os.system``. What cannot be written (a lambda, an open file) becomes ``{"__lost__": repr}``.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from mltoolkit.rllib.algorithms._config_model import MODEL_SETTINGS
from mltoolkit.rllib.algorithms._settings import MissingSettingsError, Setting, SettingsDict
from mltoolkit.rllib.algorithms._space_data import is_space, space_from_data, space_to_data

if TYPE_CHECKING:
    from mltoolkit.rllib.algorithms.algorithm_config import AlgorithmConfig

__all__ = ["config_from_data", "config_to_data"]

_FORMAT = 1
_RL_MODULE = "mltoolkit.rllib.core.rl_module.rl_module:RLModule"
_LOST = object()


def config_to_data(config: AlgorithmConfig) -> dict[str, Any]:
    """Write a configuration; see `AlgorithmConfig.to_data`."""
    settings = {setting.key: config.__dict__[setting.attribute] for setting in config._settings.settings}
    settings.update({name: config.__dict__[name] for name in config._added})
    return {
        "format": _FORMAT,
        "class": type(config).__name__,
        "settings": {key: _encode(value) for key, value in settings.items()},
    }


def _encode(value: Any) -> Any:
    if value is None or isinstance(value, (bool, str)) or type(value) is int:
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"__float__": repr(float(value))}
    if isinstance(value, Mapping) and not is_space(value):
        if all(isinstance(key, str) and not key.startswith("__") for key in value):
            return {key: _encode(item) for key, item in value.items()}
        return {"__items__": [[_encode(key), _encode(item)] for key, item in value.items()]}
    if type(value) is list:
        return [_encode(item) for item in value]
    if type(value) in (tuple, set, frozenset):
        return {f"__{type(value).__name__}__": [_encode(item) for item in value]}
    if isinstance(value, PurePath):
        return {"__path__": str(value)}
    if isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__")):
        return _encode_reference(value)
    return _encode_object(value)


def _encode_reference(value: Any) -> dict[str, str]:
    module, qualname = getattr(value, "__module__", None), value.__qualname__
    if isinstance(module, str) and _find(module, qualname) is value:
        return {"__ref__": f"{module}:{qualname}"}
    return {"__lost__": repr(value)}


def _encode_object(value: Any) -> dict[str, Any]:
    kinds = {f"{base.__module__}:{base.__name__}" for base in type(value).__mro__}
    if is_space(value):
        data = space_to_data(value)
        return {"__lost__": repr(value)} if data is None else {"__space__": data}
    if "mltoolkit.rllib.algorithms.algorithm_config:AlgorithmConfig" in kinds:
        return {"__config__": config_to_data(value)}
    for tag, (module, name) in _DATACLASSES.items():
        if f"{module}:{name}" in kinds:
            return {tag: {field: _encode(item) for field, item in vars(value).items()}}
    if type(value).__module__.partition(".")[0] == "numpy" and hasattr(value, "dtype") and value.dtype.kind in "biuf":
        if value.ndim == 0:
            return _encode(value.item())
        return {"__array__": _encode(value.ravel().tolist()), "shape": list(value.shape), "dtype": value.dtype.name}
    return {"__lost__": repr(value)}


_DATACLASSES = {
    "__rl_module_spec__": ("mltoolkit.rllib.core.rl_module._spec", "RLModuleSpec"),
    "__model_config__": ("mltoolkit.rllib.core.rl_module.default_model_config", "DefaultModelConfig"),
}


def _find(module: str, qualname: str) -> Any:
    """What a loaded module holds under a name, or None; runs nothing, not even a module's ``__getattr__``."""
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        namespace = getattr(found, "__dict__", None)
        if namespace is None or part not in namespace:
            return None
        found = namespace[part]
    return found


class _Reader:
    """Reads the values of settings, and notes those that it cannot give back."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.given = given
        self.lost: list[str] = []

    def lose(self, path: tuple[str, ...], reason: str) -> Any:
        """Note a value that is missing, unless the user gives it."""
        given: Any = self.given
        for key in path:
            if isinstance(given, Mapping) and key in given:
                given = given[key]
            else:
                name = path[0] + "".join(f"[{each!r}]" for each in path[1:])
                self.lost.append(f"`{name}`: {reason}")
                break
            if not isinstance(given, Mapping):
                break
        return _LOST

    def read(self, data: Any, class_of: str, path: tuple[str, ...], config: AlgorithmConfig) -> Any:
        """The value that data stand for."""
        if isinstance(data, list):
            items = [self.read(item, class_of, path, config) for item in data]
            return _LOST if any(item is _LOST for item in items) else items
        if isinstance(data, str) and path in (("env",), ("evaluation_config", "env")):
            return self._read_env_name(data, path)
        if not isinstance(data, dict):
            return data
        tag = next((key for key in data if key.startswith("__")), None)
        if tag is None:
            return self._read_dict(data, path, config)
        content = data[tag]
        if tag == "__ref__":
            return self._read_reference(content, class_of, path)
        if tag == "__lost__":
            return self.lose(path, f"{content} could not be written")
        if tag == "__float__":
            return float(content)
        if tag == "__space__":
            return space_from_data(content)
        if tag == "__path__":
            from pathlib import Path

            return Path(content)
        if tag == "__config__":
            return config_from_data(type(config), content, given=self.given.get(path[0]) or {}, where=f"{path[0]}: ")
        if tag in _DATACLASSES:
            return self._read_dataclass(tag, content, path, config)
        return self._read_container(tag, data, class_of, path, config)

    def _read_dict(self, data: dict[str, Any], path: tuple[str, ...], config: AlgorithmConfig) -> dict[str, Any]:
        read = {}
        for key, item in data.items():
            value = self.read(item, _class_of(config, (*path, key)), (*path, key), config)
            if value is not _LOST:
                read[key] = value
        return read

    def _read_container(
        self, tag: str, data: dict[str, Any], class_of: str, path: tuple[str, ...], config: AlgorithmConfig
    ) -> Any:
        items = self.read(data[tag], class_of, path, config)
        if items is _LOST:
            return _LOST
        if tag in ("__tuple__", "__set__", "__frozenset__"):
            return {"__tuple__": tuple, "__set__": set, "__frozenset__": frozenset}[tag](items)
        if tag == "__items__":
            return dict(map(tuple, items))
        if tag == "__array__":
            import numpy as np

            return np.array(items, np.dtype(data["dtype"])).reshape(data["shape"])
        raise ValueError(f"{tag!r} is none of the kinds of data that a configuration is written as.")

    def _read_reference(self, reference: str, class_of: str, path: tuple[str, ...]) -> Any:
        module, _, qualname = reference.partition(":")
        found, base = _find(module, qualname), _find(*class_of.split(":")) if class_of else None
        if base is not None and isinstance(found, type) and base in found.__mro__:
            return found
        if found is None:
            return self.lose(path, f"{qualname} of module {module} is not loaded; import the module first")
        if isinstance(found, type) and class_of:
            return self.lose(path, f"{reference} is no subclass of {class_of.partition(':')[2]}")
        return self.lose(path, f"{reference} is not taken from a file")

    def _read_env_name(self, name: str, path: tuple[str, ...]) -> Any:
        """Names that would import a module, or call a class in one, are taken if it is loaded and of the kind."""
        from mltoolkit.tune.registry import get_env_creator

        module, colon, _ = name.partition(":")
        if get_env_creator(name) is not None or not (colon or "." in name):
            return name
        if colon:
            return name if module in sys.modules else self.lose(path, f"import {module} first, which {name!r} is in")
        module, _, qualname = name.rpartition(".")
        found, base = _find(module, qualname), _find("gymnasium", "Env")
        if base is not None and isinstance(found, type) and base in found.__mro__:
            return name
        return self.lose(path, f"{name!r} is no environment that has been registered or imported")

    def _read_dataclass(self, tag: str, content: Any, path: tuple[str, ...], config: AlgorithmConfig) -> Any:
        from importlib import import_module

        module, name = _DATACLASSES[tag]
        fields = {}
        for field, item in content.items():
            class_of = _RL_MODULE if field == "module_class" else ""
            value = self.read(item, class_of, (*path, field), config)
            if value is _LOST:
                return _LOST
            fields[field] = value
        return getattr(import_module(module), name)(**fields)


def _class_of(config: AlgorithmConfig, path: tuple[str, ...]) -> str:
    """The base of classes that a setting takes: at the top, in ``model`` and in ``evaluation_config``."""
    if path[0] == "evaluation_config" and len(path) > 1:
        path = path[1:]
    if len(path) == 2 and path[0] in ("model", "_model_config"):
        entry = MODEL_SETTINGS.get(path[1])
    else:
        entry = config._settings.get(path[0]) if len(path) == 1 else None
    return entry.class_of if isinstance(entry, Setting) else ""


def config_from_data(cls: type[Any], data: Mapping[str, Any], *, given: Mapping[str, Any], where: str = "") -> Any:
    """Read a configuration; see `AlgorithmConfig.from_data`."""
    if not isinstance(data, Mapping) or not isinstance(data.get("settings"), Mapping):
        raise ValueError("These data are no configuration: there is no dict 'settings' in them.")
    if data.get("format") != _FORMAT:
        raise ValueError(
            f"These data are a configuration of format {data.get('format')!r}; only {_FORMAT} can be read."
        )
    config = cls()
    reader = _Reader(SettingsDict(cls._settings, given) if _are_settings(cls, given) else given)
    read: dict[str, Any] = {}
    for key, item in data["settings"].items():
        if key not in config:
            raise config._settings.unknown(key, also=config._added)
        entry = config._settings.get(key)
        value = reader.read(item, entry.class_of if isinstance(entry, Setting) else "", (key,), config)
        if value is not _LOST:
            read[key] = value
    if reader.lost:
        names = ", ".join(dict.fromkeys(each.partition("`:")[0].partition("[")[0].strip("`") for each in reader.lost))
        raise MissingSettingsError(
            f"{where}These settings are not in the data and must be given again, as keywords of "
            f"`from_checkpoint` or in `from_data(data, given={{...}})`: {names}.\n"
            + "\n".join(f"- {each}" for each in reader.lost),
            reader.lost,
        )
    for key, value in read.items():
        if isinstance(config._settings.get(key), Setting) and key != "model":
            config.__dict__[config._settings[key].attribute] = value
        else:
            config[key] = value
    return config.update_from_dict(given)


def _are_settings(cls: type[Any], given: Mapping[str, Any]) -> bool:
    return all(key in cls._settings for key in given)
