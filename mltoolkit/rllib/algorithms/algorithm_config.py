"""What an algorithm is built from."""

from __future__ import annotations

import logging
from collections.abc import Callable, ItemsView, Iterator, KeysView, Mapping, ValuesView
from typing import Any, ClassVar, Self

from mltoolkit.rllib.algorithms._config_groups import ConfigGroups, document_groups
from mltoolkit.rllib.algorithms._config_model import MODEL_SETTINGS, merged_model_config
from mltoolkit.rllib.algorithms._config_prepare import PREPARE
from mltoolkit.rllib.algorithms._config_validation import find_problems, fragment_length, list_problems
from mltoolkit.rllib.algorithms._settings import (
    TUNE_KEYS,
    Refused,
    Setting,
    SettingsDict,
    SettingTable,
    copy_value,
    merge_deep,
    nearest,
)
from mltoolkit.rllib.algorithms._settings_refused import REFUSED
from mltoolkit.rllib.algorithms._settings_sampling import SAMPLING
from mltoolkit.rllib.algorithms._settings_training import TRAINING

__all__ = ["COMMON_SETTINGS", "AlgorithmConfig"]

logger = logging.getLogger(__name__)

COMMON_SETTINGS = SettingTable(f"{__name__}:COMMON_SETTINGS", (*SAMPLING, *TRAINING, *REFUSED))

#: Older ways to say what another setting says; in a dict they come after it, whatever the order.
_LAST = ("lr_schedule", "entropy_coeff_schedule", "vf_share_layers")


class _ConfigType(type):
    """Marks configurations as complete once their constructors are through."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        config = super().__call__(*args, **kwargs)
        config.__dict__["_is_complete"] = True
        return config


class AlgorithmConfig(ConfigGroups, metaclass=_ConfigType):
    """The settings of an algorithm: attributes, methods that chain, and a dict with old and new keys.

    Values are checked by `validate`, which building an algorithm calls; until then they may also be the search
    spaces of Tune.

    Parameters
    ----------
    algo_class : class, optional
        The algorithm that `build_algo` makes.

    Attributes
    ----------
    in_evaluation : bool
        Whether the configuration is that of evaluation runners.

    Notes
    -----
    Subclasses for algorithms of one's own may set new attributes in ``__init__`` after ``super().__init__()``; they
    become settings.

    Examples
    --------
    >>> config = AlgorithmConfig().environment("CartPole-v1").env_runners(num_env_runners=2)
    >>> config.num_env_runners, config["num_workers"]
    (2, 2)
    >>> config.env_runners(num_env_runer=2)
    Traceback (most recent call last):
        ...
    TypeError: env_runners() has no setting `num_env_runer`. Did you mean `num_env_runners`?
    """

    _settings: ClassVar[SettingTable] = COMMON_SETTINGS
    _model_defaults: ClassVar[Mapping[str, Any]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "_settings" in vars(cls):
            document_groups(cls)

    def __init__(self, algo_class: type | None = None) -> None:
        own = self.__dict__
        own.update(self._settings.defaults())
        model = MODEL_SETTINGS.defaults()
        own["model"] = SettingsDict(MODEL_SETTINGS, model | copy_value(dict(self._model_defaults)))
        own["in_evaluation"] = False
        own["_algo_class"] = algo_class
        own["_is_frozen"] = False
        own["_is_complete"] = False
        own["_added"] = []

    # -- attributes and keys --------------------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        if "_added" not in self.__dict__:
            raise AttributeError(f"Call `super().__init__()` before `{name}` is set.")
        if self._is_frozen:
            raise AttributeError(
                f"Cannot set `{name}`: the configuration is frozen, since an algorithm was built from it. "
                "Change a copy: `config.copy(copy_frozen=False)`."
            )
        if name in self._settings or name in self._added:
            self._set(name, value)
        elif name == "in_evaluation":
            self.__dict__[name] = value
        elif name == "algo_class":
            self.__dict__["_algo_class"] = value
        elif not self._is_complete and not name.startswith("__") and not callable(getattr(type(self), name, None)):
            self._added.append(name)
            self.__dict__[name] = value
        else:
            raise AttributeError(self._no_attribute(name))

    def __getattr__(self, name: str) -> Any:
        # Only what no attribute is called comes here: older names, settings that are refused, and mistakes.
        entry = None if name.startswith("__") else type(self)._settings.get(name)
        if isinstance(entry, Setting) and entry.attribute in self.__dict__:
            return self.__dict__[entry.attribute]
        if isinstance(entry, Refused):
            return copy_value(entry.default)
        raise AttributeError(self._no_attribute(name))

    def _no_attribute(self, name: str) -> str:
        methods = [each for each in dir(type(self)) if not each.startswith("_")]
        added = self.__dict__.get("_added", [])
        settings = [known for known, each in self._settings.items() if isinstance(each, Setting)]
        return f"{type(self).__name__} has no attribute `{name}`.{nearest(name, [*methods, *added, *settings])}"

    def _set(self, name: str, value: Any) -> None:
        """Set a setting under any of its names; nested dicts are merged where RLlib merges them."""
        if self._is_frozen:
            self.__setattr__(name, value)  # raises
        entry = self._settings.get(name)
        if entry is None:
            if name not in self._added:
                raise self._settings.unknown(name, also=self._added)
            self.__dict__[name] = value
            return
        if isinstance(entry, Refused):
            if name == "multiagent" and isinstance(value, Mapping):
                self.multi_agent(**value)
            else:
                entry.check(name, value)
            if entry.group == "api_stack":
                logger.debug("There is one stack; `%s` = %r changes nothing.", name, value)
            return
        prepare = PREPARE.get(entry.name)
        if prepare is not None:
            value = prepare(self, value)
        self.__dict__[entry.attribute] = value

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

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return _state(self) == _state(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        changed = [f"{key}={value!r}" for key, value in self._changes().items()]
        return f"<{' '.join([type(self).__name__, ', '.join(changed)]).strip()}>"

    def _changes(self) -> dict[str, Any]:
        """What differs from the defaults."""
        defaults = {setting.key: setting.default for setting in self._settings.settings}
        changed = {key: value for key, value in self.items() if key not in defaults or value != defaults[key]}
        if isinstance(changed["model"], dict):
            usual = MODEL_SETTINGS.defaults() | dict(self._model_defaults)
            changed["model"] = {key: value for key, value in changed["model"].items() if value != usual[key]}
        return changed if changed["model"] else {key: changed[key] for key in changed if key != "model"}

    # -- copies and dicts -----------------------------------------------------------------------------------------

    def copy(self, copy_frozen: bool | None = None) -> Self:
        """A copy at every depth.

        Parameters
        ----------
        copy_frozen : bool, optional
            Whether the copy is frozen. None: like the original.
        """
        copied = object.__new__(type(self))
        copied.__dict__.update({name: copy_value(value) for name, value in self.__dict__.items()})
        if copy_frozen is not None:
            copied.__dict__["_is_frozen"] = copy_frozen
            nested = copied.__dict__["evaluation_config"]
            if isinstance(nested, AlgorithmConfig):
                copied.__dict__["evaluation_config"] = nested.copy(copy_frozen)
        return copied

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self.copy()

    _copy_in_config = copy

    def freeze(self) -> None:
        """Refuse all further changes; algorithms freeze theirs."""
        self.__dict__["_is_frozen"] = True
        if isinstance(self.evaluation_config, AlgorithmConfig):
            self.evaluation_config.freeze()

    @property
    def is_frozen(self) -> bool:
        """Whether changes are refused."""
        return bool(self._is_frozen)

    def to_dict(self) -> dict[str, Any]:
        """All settings as a plain nested dict, a copy; search spaces of Tune stay what they are.

        Returns
        -------
        dict
            What `from_dict` and Tune take.

        Examples
        --------
        >>> AlgorithmConfig().training(gamma=0.9).to_dict()["gamma"]
        0.9
        """
        told: dict[str, Any] = {}
        for setting in self._settings.settings:
            value = self.__dict__[setting.attribute]
            if isinstance(value, AlgorithmConfig):
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
        if not isinstance(config_dict, Mapping) and not isinstance(config_dict, AlgorithmConfig):
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
        >>> data = AlgorithmConfig().training(gamma=0.9).to_data()
        >>> AlgorithmConfig.from_data(data).gamma
        0.9
        """
        from mltoolkit.rllib.algorithms._config_data import config_to_data

        return config_to_data(self)

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

    # -- what follows from the settings ---------------------------------------------------------------------------

    @property
    def train_batch_size_per_learner(self) -> int:
        """Environment steps that each learner learns from in an iteration."""
        own = self.__dict__["_train_batch_size_per_learner"]
        if own is not None:
            return own
        if self.train_batch_size is None:
            raise ValueError("`train_batch_size` and `train_batch_size_per_learner` are both None; set one of them.")
        return self.train_batch_size // (self.num_learners or 1)

    @property
    def total_train_batch_size(self) -> int:
        """Environment steps that all learners together learn from in an iteration."""
        return self.train_batch_size_per_learner * (self.num_learners or 1)

    def get_rollout_fragment_length(self, worker_index: int = 0) -> int:
        """Steps of each environment in one sample of a runner.

        Parameters
        ----------
        worker_index : int, default=0
            Which runner, counted from 1; 0 is the one in the algorithm's own process. With ``'auto'``, the first ones
            take a step more where the train batch does not divide.

        Examples
        --------
        >>> config = AlgorithmConfig().env_runners(num_env_runners=4, num_envs_per_env_runner=3)
        >>> [config.training(train_batch_size=2500).get_rollout_fragment_length(index) for index in (1, 2, 3, 4)]
        [209, 209, 208, 208]
        """
        return fragment_length(self, worker_index)

    @property
    def model_config(self) -> dict[str, Any]:
        """The settings of the network in one dict, under the newer names; a copy."""
        return merged_model_config(self.model, self.__dict__["_model_config"])

    @property
    def rl_module_spec(self) -> Any:
        """The `RLModuleSpec` given, completed from the algorithm's default one."""
        spec = self.get_default_rl_module_spec()
        given = self.__dict__["_rl_module_spec"]
        if isinstance(given, type):
            given = type(spec)(module_class=given)
        if given is not None:
            spec.update(given)
        return spec

    def get_config_for_module(self, module_id: str) -> Self:
        """The configuration of a module: this one, as there is one module."""
        return self

    @property
    def learner_class(self) -> Any:
        """The class of the learners."""
        return self.__dict__["_learner_class"] or self.get_default_learner_class()

    @property
    def algo_class(self) -> Any:
        """The algorithm that `build_algo` makes."""
        return self.__dict__["_algo_class"] or self.get_default_algo_class()

    def get_default_algo_class(self) -> Any:
        """The algorithm of this kind of configuration; for subclasses to say.

        Raises
        ------
        ValueError
            In AlgorithmConfig itself, which is of no algorithm.
        """
        raise ValueError(
            f"{type(self).__name__} is the configuration of no algorithm. Use PPOConfig, or give the algorithm's class: "
            f"{type(self).__name__}(algo_class=...)."
        )

    def get_default_rl_module_spec(self) -> Any:
        """The `RLModuleSpec` of the algorithm's default network; for subclasses to say."""
        return self._of_algorithm().get_default_rl_module_spec()

    def get_default_learner_class(self) -> Any:
        """The class of the algorithm's learners; for subclasses to say."""
        return self._of_algorithm().get_default_learner_class()

    def _of_algorithm(self) -> AlgorithmConfig:
        config: AlgorithmConfig = self.algo_class.get_default_config()
        if type(config) is type(self):
            raise ValueError(
                f"{type(self).__name__} must say `get_default_rl_module_spec` and `get_default_learner_class`."
            )
        return config

    def get_evaluation_config_object(self) -> AlgorithmConfig | None:
        """The configuration of the evaluation runners, or None if this is one already."""
        if self.in_evaluation:
            return None
        given = self.evaluation_config
        if isinstance(given, AlgorithmConfig):
            config: AlgorithmConfig = given.copy(copy_frozen=False)
        else:
            config = self.copy(copy_frozen=False)
            config.update_from_dict(given or {})
        config.in_evaluation = True
        config.evaluation_config = None
        config.num_env_runners = self.evaluation_num_env_runners
        if self.evaluation_duration_unit == "episodes" and self.evaluation_duration != "auto":
            config.batch_mode = "complete_episodes"
            config.rollout_fragment_length = 1
        else:
            config.batch_mode = "truncate_episodes"
            runners = self.evaluation_num_env_runners or 1
            auto = self.evaluation_duration == "auto"
            config.rollout_fragment_length = 100 if auto else -(-self.evaluation_duration // runners)
        return config

    @property
    def is_multi_agent(self) -> bool:
        """False: there is one agent."""
        return False

    # -- building -------------------------------------------------------------------------------------------------

    def validate(self) -> None:
        """Check all values, and that they go together.

        Raises
        ------
        InvalidConfigError
            With everything that is wrong: a ValueError and a TypeError.
        """
        if self._validate_config:
            list_problems(self._problems())

    def _problems(self) -> list[str]:
        """What is wrong, as sentences; subclasses add to it."""
        return find_problems(self)

    def build_algo(
        self, env: Any = None, logger_creator: Callable[..., Any] | None = None, use_copy: bool = True
    ) -> Any:
        """Build the algorithm.

        Parameters
        ----------
        env : str, class or callable, optional
            The environment, if `environment` did not say it.
        logger_creator : callable, optional
            Takes the configuration and returns a logger for results.
        use_copy : bool, default=True
            Give the algorithm a copy, so that this configuration can be changed and built from again.

        Returns
        -------
        Algorithm
        """
        config = self.copy(copy_frozen=False) if use_copy else self
        if env is not None:
            config.env = env
        more = {} if logger_creator is None else {"logger_creator": logger_creator}
        return config.algo_class(config=config, **more)

    def build(self, env: Any = None, logger_creator: Callable[..., Any] | None = None, use_copy: bool = True) -> Any:
        """`build_algo` under its older name."""
        return self.build_algo(env, logger_creator, use_copy)


def _state(config: AlgorithmConfig) -> dict[str, Any]:
    left_out = ("_is_frozen", "_is_complete")
    return {name: value for name, value in config.__dict__.items() if name not in left_out}


document_groups(AlgorithmConfig)
