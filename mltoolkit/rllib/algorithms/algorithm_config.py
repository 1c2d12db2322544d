"""What an algorithm is built from."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

from mltoolkit.rllib.algorithms._config_dicts import ConfigDicts
from mltoolkit.rllib.algorithms._config_groups import ConfigGroups, document_groups
from mltoolkit.rllib.algorithms._config_model import MODEL_SETTINGS, merged_model_config
from mltoolkit.rllib.algorithms._config_prepare import PREPARE
from mltoolkit.rllib.algorithms._config_validation import find_problems, fragment_length, list_problems
from mltoolkit.rllib.algorithms._settings import (
    Refused,
    Setting,
    SettingsDict,
    SettingTable,
    copy_value,
    nearest,
)
from mltoolkit.rllib.algorithms._settings_refused import REFUSED
from mltoolkit.rllib.algorithms._settings_sampling import SAMPLING
from mltoolkit.rllib.algorithms._settings_training import TRAINING

__all__ = ["COMMON_SETTINGS", "AlgorithmConfig"]

logger = logging.getLogger(__name__)

COMMON_SETTINGS = SettingTable(f"{__name__}:COMMON_SETTINGS", (*SAMPLING, *TRAINING, *REFUSED))


class _ConfigType(type):
    """Marks configurations as complete once their constructors are through."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        config = super().__call__(*args, **kwargs)
        config.__dict__["_is_complete"] = True
        return config


class AlgorithmConfig(ConfigGroups, ConfigDicts, metaclass=_ConfigType):
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

    # -- attributes --------------------------------------------------------------------------------------

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

    # -- copies -----------------------------------------------------------------------------------------

    def copy(self, copy_frozen: bool | None = None) -> Self:
        """A copy at every depth.

        Parameters
        ----------
        copy_frozen : bool, optional
            Whether the copy is frozen. None: like the original.
        """
        copied = object.__new__(type(self))
        copied.__dict__.update({name: copy_value(value) for name, value in self.__dict__.items()})
        nested = copied.__dict__["evaluation_config"]
        if copy_frozen is not None and isinstance(nested, AlgorithmConfig):
            copied.__dict__["evaluation_config"] = nested.copy(copy_frozen)
        copied.__dict__["_is_frozen"] = False
        if self._is_frozen if copy_frozen is None else copy_frozen:
            copied.freeze()
        return copied

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self.copy()

    _copy_in_config = copy

    def freeze(self) -> None:
        """Refuse all further changes; algorithms freeze theirs."""
        self.__dict__["_is_frozen"] = True
        for nested in (self.model, self.evaluation_config):
            if isinstance(nested, (SettingsDict, AlgorithmConfig)):
                nested.freeze()

    @property
    def is_frozen(self) -> bool:
        """Whether changes are refused."""
        return bool(self._is_frozen)

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
            if config.env is None:
                config.env, config.env_config = self.env, self.env_config
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
