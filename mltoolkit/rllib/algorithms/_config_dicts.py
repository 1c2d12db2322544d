"""A configuration as a dict, and to and from dicts and data."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

from mltoolkit.rllib.algorithms._settings import (
    TUNE_KEYS,
    Setting,
    SettingsDict,
    SettingTable,
    copy_value,
    merge_deep,
)

if TYPE_CHECKING:
    from mltoolkit.rllib.algorithms.algorithm_config import AlgorithmConfig

__all__ = ["ConfigDicts"]

#: Older ways to say what another setting says; in a dict they come after it, whatever the order.
_LAST = ("lr_schedule", "entropy_coeff_schedule", "vf_share_layers")


class ConfigDicts:
    """Settings by key, under any of their names; all of them as a dict, and as data."""

    _settings: ClassVar[SettingTable]
    _added: list[str]
    evaluation_config: Any

    def __getitem__(self, key: str) -> Any:
        entry = self._settings.get(key)
        if isinstance(entry, Setting):
            return getattr(self, entry.attribute)
        if entry is None and key not in self._added and key not in ("in_evaluation", "algo_class"):
            raise self._settings.unknown(key, also=self._added)
        return getattr(self, key)

    def __setitem__(self, key: str, value: Any) -> None:
        if key not in self:
            raise self._settings.unknown(key, also=self._added)
        setattr(self, key, value)

    def __contains__(self, key: object) -> bool:
        return key in self._settings or key in self._added or key in ("in_evaluation", "algo_class")

    def __iter__(self) -> Iterator[str]:
        return iter(self.to_dict())

    def __len__(self) -> int:
        return len(self.to_dict())

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a setting under any of its names, or ``default`` if there is no such setting."""
        return self[key] if key in self else default  # noqa: SIM401 - this is what `get` is

    def keys(self) -> KeysView[str]:
        """The keys of `to_dict`."""
        return self.to_dict().keys()

    def values(self) -> ValuesView[Any]:
        """The values of `to_dict`."""
        return self.to_dict().values()

    def items(self) -> ItemsView[str, Any]:
        """The items of `to_dict`."""
        return self.to_dict().items()

    def to_dict(self) -> dict[str, Any]:
        """All settings as a plain nested dict, a copy; search spaces of Tune stay what they are.

        Returns
        -------
        dict
            What `from_dict` and Tune take.

        Examples
        --------
        >>> from mltoolkit.rllib.algorithms.algorithm_config import AlgorithmConfig
        >>> AlgorithmConfig().training(gamma=0.9).to_dict()["gamma"]
        0.9
        """
        told: dict[str, Any] = {}
        for setting in self._settings.settings:
            value = self.__dict__[setting.attribute]
            if isinstance(value, ConfigDicts):
                value = value.to_dict()
            told[setting.key] = dict(copy_value(value)) if isinstance(value, SettingsDict) else copy_value(value)
        told.update({name: copy_value(self.__dict__[name]) for name in self._added})
        return told

    @classmethod
    def from_dict(cls, config_dict: Mapping[str, Any]) -> Self:
        """A configuration with the settings of a dict, under old or new names, and defaults for the others.

        Raises
        ------
        UnknownSettingError
            For a key that is no setting.
        UnsupportedSettingError
            For a setting of RLlib's that has no meaning here.

        Examples
        --------
        >>> from mltoolkit.rllib.algorithms.algorithm_config import AlgorithmConfig
        >>> AlgorithmConfig.from_dict({"num_workers": 3}).num_env_runners
        3
        """
        config: Self = cls()
        return config.update_from_dict(config_dict)

    def update_from_dict(self, config_dict: Mapping[str, Any]) -> Self:
        """Set the settings of a dict, under old or new names; nested dicts are merged.

        Returns
        -------
        self
        """
        if not isinstance(config_dict, Mapping) and not isinstance(config_dict, ConfigDicts):
            raise TypeError(f"`config_dict` must be a dict such as {{'lr': 1e-4}}, got {type(config_dict).__name__}.")
        given = dict(config_dict.items())
        for key in [key for key in given if key not in _LAST] + [key for key in _LAST if key in given]:
            if key in TUNE_KEYS:
                continue
            if key not in self:
                raise self._settings.unknown(key, also=self._added)
            nested = self.__dict__.get("evaluation_config")
            if key == "evaluation_config" and isinstance(nested, Mapping) and isinstance(given[key], Mapping):
                merged = copy_value(nested)
                merge_deep(merged, given[key])
                self.evaluation_config = merged
            else:
                setattr(self, key, copy_value(given[key]))
        return self

    def to_data(self) -> dict[str, Any]:
        """All settings as data that JSON holds, for checkpoints.

        Classes and functions become their names. What has no name that leads to it, such as a lambda, is lost, and
        `from_data` will ask for it.

        Returns
        -------
        dict

        Examples
        --------
        >>> from mltoolkit.rllib.algorithms.algorithm_config import AlgorithmConfig
        >>> data = AlgorithmConfig().training(gamma=0.9).to_data()
        >>> AlgorithmConfig.from_data(data).gamma
        0.9
        """
        from mltoolkit.rllib.algorithms._config_data import config_to_data

        return config_to_data(cast("AlgorithmConfig", self))

    @classmethod
    def from_data(cls, data: Mapping[str, Any], *, given: Mapping[str, Any] | None = None) -> Self:
        """The configuration that `to_data` wrote. No code in the data, or named by them, is executed.

        Parameters
        ----------
        data : mapping
        given : mapping, optional
            Settings that go before those in the data, and stand in for those that are not in them.

        Raises
        ------
        InvalidConfigError
            If settings are not in the data and not given: lambdas, functions, and classes that are not loaded, or not
            of the kind that the setting takes. Each is named with the reason.
        UnknownSettingError
            If the data hold a setting that is unknown.
        ValueError
            If they are no configuration.
        """
        from mltoolkit.rllib.algorithms._config_data import config_from_data

        config: Self = config_from_data(cls, data, given=given or {})
        return config

    @classmethod
    def overrides(cls, **kwargs: Any) -> dict[str, Any]:
        """A dict of settings, for `evaluation_config`, after a check that there are such settings."""
        for name in kwargs:
            if name not in cls._settings:
                raise cls._settings.unknown(name)
        return kwargs
