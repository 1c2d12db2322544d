"""The table behind a configuration: every setting with its default, its meaning and its other names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

from mltoolkit.rllib.algorithms._constraints import Allowed

__all__ = [
    "InvalidConfigError",
    "MissingSettingsError",
    "Refused",
    "Setting",
    "SettingTable",
    "SettingsDict",
    "UnknownSettingError",
    "UnsupportedSettingError",
    "copy_value",
]

#: Under these keys Tune keeps what it needs for itself in the config of a trial.
TUNE_KEYS = frozenset({"__trial_info__"})


class InvalidConfigError(ValueError, TypeError):
    """A configuration holds values that are not allowed, or that do not go together; all of them are listed."""


class MissingSettingsError(InvalidConfigError):
    """Saved settings name parts of a program that is not at hand.

    Attributes
    ----------
    reasons : list of str
        One for each setting.
    """

    def __init__(self, message: str, reasons: list[str]) -> None:
        super().__init__(message, reasons)
        self.reasons = reasons

    def __str__(self) -> str:
        return str(self.args[0])


class UnknownSettingError(KeyError, ValueError):
    """A key that no setting has; the text names the nearest one."""

    def __str__(self) -> str:  # KeyError would show the text with quotes around it
        return str(self.args[0]) if self.args else ""


class UnsupportedSettingError(NotImplementedError, ValueError):
    """A setting of RLlib's has a value that mltoolkit does not support; the text names the alternative."""


@dataclass(frozen=True)
class Setting:
    """One setting.

    Parameters
    ----------
    name : str
        The keyword of the method that sets it.
    group : str
        That method.
    default : Any
    allowed : Allowed
    meaning : str
        One or two sentences for the documentation.
    attribute : str, default=""
        The attribute that holds it; ``name`` unless said otherwise.
    key : str, default=""
        Its key in dicts; ``attribute`` unless said otherwise.
    old_names : tuple of str, default=()
        What it was called in earlier versions of RLlib; accepted everywhere.
    class_of : str, default=""
        The base, as ``"module:name"``, of classes that a checkpoint may name as the setting's value.
    """

    name: str
    group: str
    default: Any
    allowed: Allowed
    meaning: str
    attribute: str = ""
    key: str = ""
    old_names: tuple[str, ...] = ()
    class_of: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "attribute", self.attribute or self.name)
        object.__setattr__(self, "key", self.key or self.attribute)

    @property
    def names(self) -> tuple[str, ...]:
        """All names that lead to the setting."""
        return tuple(dict.fromkeys((self.name, self.attribute, self.key, *self.old_names)))


@dataclass(frozen=True)
class Refused:
    """A setting of RLlib's that has no meaning here; values that change nothing pass.

    Parameters
    ----------
    name : str
    group : str
    harmless : tuple or None
        Values that ask for what happens anyway, the first being the default. None if every value does.
    instead : str
        What to use, or why nothing is needed, as a sentence.
    names : tuple of str, default=()
        Other names of it.
    """

    name: str
    group: str
    harmless: tuple[Any, ...] | None
    instead: str
    other_names: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All names that lead to the setting."""
        return (self.name, *self.other_names)

    @property
    def default(self) -> Any:
        """What reading the setting gives."""
        return self.harmless[0] if self.harmless else None

    def check(self, name: str, value: Any) -> None:
        """Raise UnsupportedSettingError unless the value changes nothing."""
        if self.harmless is None or any(_same(value, each) for each in self.harmless):
            return
        passing = " or ".join(repr(each) for each in self.harmless)
        raise UnsupportedSettingError(
            f"`{name}` = {value!r} is not supported by mltoolkit.rllib; it may only be {passing}. {self.instead}"
        )


def _same(value: Any, other: Any) -> bool:
    """Whether two values are equal, and either both booleans or both none; arrays are equal to nothing."""
    return isinstance(value, bool) == isinstance(other, bool) and (value == other) is True


class SettingTable(Mapping[str, "Setting | Refused"]):
    """Settings by any of their names.

    Parameters
    ----------
    home : str
        ``"module:name"`` of the variable that holds the table: it is pickled as that name.
    entries : iterable of Setting and Refused
    """

    def __init__(self, home: str, entries: Iterable[Setting | Refused]) -> None:
        self.__module__, _, self._variable = home.partition(":")
        self.entries = tuple(entries)
        self._by_name: dict[str, Setting | Refused] = {}
        for entry in self.entries:
            for name in entry.names:
                if name in self._by_name:
                    raise ValueError(f"Two settings are called `{name}`.")
                self._by_name[name] = entry
        self.settings = tuple(entry for entry in self.entries if isinstance(entry, Setting))
        self.refused = tuple(entry for entry in self.entries if isinstance(entry, Refused))

    def __reduce__(self) -> str:
        return self._variable

    def __getitem__(self, name: str) -> Setting | Refused:
        return self._by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    def extended(
        self, home: str, entries: Iterable[Setting | Refused], defaults: Mapping[str, Any] | None = None
    ) -> SettingTable:
        """A table with more settings, and other defaults for some of those that it has."""
        defaults = dict(defaults or {})
        own = [
            replace(entry, default=defaults.pop(entry.name))
            if isinstance(entry, Setting) and entry.name in defaults
            else entry
            for entry in self.entries
        ]
        if defaults:
            raise ValueError(f"No settings to take the defaults of {', '.join(defaults)}.")
        return SettingTable(home, [*own, *entries])

    def of_groups(self, groups: Iterable[str]) -> dict[str, Setting | Refused]:
        """The entries of some groups by each of their names."""
        wanted = set(groups)
        return {name: entry for name, entry in self._by_name.items() if entry.group in wanted}

    def defaults(self) -> dict[str, Any]:
        """Fresh copies of the defaults by attribute."""
        return {setting.attribute: copy_value(setting.default) for setting in self.settings}

    def unknown(self, key: Any, *, also: Iterable[str] = ()) -> UnknownSettingError:
        """The error for a key that no setting has."""
        return UnknownSettingError(f"There is no setting {key!r}.{nearest(key, [*self._by_name, *also])}")


def nearest(name: Any, known: Iterable[str], quote: str = "`{}`") -> str:
    """A sentence, with a space before it, that names the nearest known name, or nothing if none is near.

    Examples
    --------
    >>> nearest("num_wokers", ["num_workers", "lr"])
    ' Did you mean `num_workers`?'
    """
    close = difflib.get_close_matches(str(name), [each for each in known if not each.startswith("_")], 1)
    return f" Did you mean {quote.format(close[0])}?" if close else ""


def copy_value(value: Any) -> Any:
    """Copy the containers, dataclasses and configurations of a value at any depth; what else they hold is shared."""
    if isinstance(value, SettingsDict):
        return value.copy()
    if isinstance(value, dict):
        return {key: copy_value(item) for key, item in value.items()}
    if type(value) in (list, tuple, set):
        return type(value)(copy_value(item) for item in value)
    if isinstance(value, type):
        return value
    if hasattr(type(value), "_copy_in_config"):
        return value._copy_in_config()
    if hasattr(type(value), "__dataclass_fields__") and hasattr(value, "__dict__"):
        copied = copy(value)
        copied.__dict__.update({name: copy_value(item) for name, item in vars(value).items()})
        return copied
    return value


def merge_deep(old: MutableMapping[str, Any], new: Mapping[str, Any]) -> None:
    """Put a nested dict's values into another one, keeping what it does not mention."""
    for key, value in new.items():
        inner = old.get(key)
        if isinstance(value, Mapping) and isinstance(inner, MutableMapping) and "grid_search" not in value:
            merge_deep(inner, value)
        else:
            old[key] = copy_value(value)


class SettingsDict(dict[str, Any]):
    """A dict whose keys are settings, under any of their names; other keys are errors that name the nearest one.

    `copy` copies what is nested, too.

    Parameters
    ----------
    table : SettingTable
    values : mapping, optional

    Examples
    --------
    >>> from mltoolkit.rllib.algorithms._config_model import MODEL_SETTINGS
    >>> model = SettingsDict(MODEL_SETTINGS)
    >>> model["post_fcnet_hiddens"] = [64]
    >>> model
    {'head_fcnet_hiddens': [64]}
    >>> model["fcnet_hidens"] = [64]
    Traceback (most recent call last):
        ...
    mltoolkit.rllib.algorithms._settings.UnknownSettingError: There is no setting 'fcnet_hidens'. \
Did you mean `fcnet_hiddens`?
    """

    def __init__(self, table: SettingTable, values: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self._table = table
        self._is_frozen = False
        self.update(values or {})

    def __reduce__(self) -> tuple[Any, ...]:
        return SettingsDict, (self._table, dict(self))

    def _entry(self, key: Any) -> Setting | Refused:
        try:
            return self._table[key]
        except (KeyError, TypeError):
            raise self._table.unknown(key) from None

    def __getitem__(self, key: str) -> Any:
        entry = self._entry(key)
        return super().__getitem__(entry.key) if isinstance(entry, Setting) else entry.default

    def freeze(self) -> None:
        """Refuse all further changes; copies can be changed."""
        self._is_frozen = True

    def _check_not_frozen(self, key: Any) -> None:
        if self._is_frozen:
            raise AttributeError(
                f"Cannot change {key!r}: the configuration is frozen, since an algorithm was built from it. "
                "Change a copy: `config.copy(copy_frozen=False)`."
            )

    def __setitem__(self, key: str, value: Any) -> None:
        if key in TUNE_KEYS:
            return
        self._check_not_frozen(key)
        entry = self._entry(key)
        if isinstance(entry, Refused):
            entry.check(key, value)
        else:
            super().__setitem__(entry.key, value)

    def __delitem__(self, key: str) -> None:
        self._check_not_frozen(key)
        entry = self._entry(key)
        super().__delitem__(entry.key if isinstance(entry, Setting) else key)

    def __contains__(self, key: object) -> bool:
        entry = self._table.get(key)  # type: ignore[call-overload]
        return super().__contains__(entry.key) if isinstance(entry, Setting) else entry is not None

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a setting under any of its names."""
        return self[key] if key in self else default  # noqa: SIM401 - this is what `get` is

    def pop(self, key: str, *default: Any) -> Any:
        """Remove a setting under any of its names, and return its value."""
        self._check_not_frozen(key)
        entry = self._entry(key)
        return super().pop(entry.key if isinstance(entry, Setting) else key, *default)

    def setdefault(self, key: str, default: Any = None) -> Any:
        """The value of a setting, which is set if it was not there."""
        if key not in self:
            self[key] = default
        return self[key]

    def update(self, *others: Any, **values: Any) -> None:
        """Set several settings."""
        for key, value in dict(*others, **values).items():
            self[key] = value

    def __ior__(self, other: Any) -> SettingsDict:  # type: ignore[override]
        self.update(other)
        return self

    def __or__(self, other: Any) -> SettingsDict:  # type: ignore[override]
        merged = self.copy()
        merged.update(other)
        return merged

    def copy(self) -> SettingsDict:
        """A copy at every depth: changing ``copy["model"]`` leaves this dict as it is."""
        return SettingsDict(self._table, {key: copy_value(value) for key, value in self.items()})
