"""The methods of a configuration, one for each group of settings; they chain."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from keyword import iskeyword
from types import FunctionType
from typing import Any, ClassVar, Self

from mltoolkit.rllib.algorithms._settings import Setting, SettingTable, nearest
from mltoolkit.rllib.utils.from_config import NotProvided

__all__ = ["GROUPS", "ConfigGroups", "document_groups"]

#: Methods, each with the groups of settings besides its own whose names it takes as well: RLlib moved settings.
GROUPS: dict[str, tuple[str, ...]] = {
    "environment": (),
    "env_runners": ("fault_tolerance",),
    "rollouts": ("env_runners", "fault_tolerance", "environment"),
    "exploration": ("env_runners",),
    "training": ("learners",),
    "learners": (),
    "evaluation": (),
    "resources": ("env_runners", "learners"),
    "framework": (),
    "api_stack": (),
    "debugging": (),
    "rl_module": (),
    "callbacks": (),
    "checkpointing": (),
    "reporting": (),
    "fault_tolerance": (),
    "multi_agent": ("rl_module",),
    "offline_data": (),
    "experimental": (),
    "python_environment": (),
}

#: The methods whose first setting may be given by position.
_POSITIONAL = frozenset({"environment", "framework", "callbacks"})


class ConfigGroups:
    """The methods; what they take comes from the table of the class' settings."""

    _settings: ClassVar[SettingTable]

    def _set(self, name: str, value: Any) -> None:
        raise NotImplementedError

    def _set_group(self, method: str, given: Mapping[str, Any]) -> Self:
        takes = self._settings.of_groups((method, *GROUPS[method]))
        for name in given:
            if name not in takes:
                raise TypeError(self._wrong_keyword(method, name, takes))
        for name, value in given.items():
            if value is not NotProvided:
                self._set(name, value)
        return self

    def _wrong_keyword(self, method: str, name: str, takes: Mapping[str, Any]) -> str:
        entry = self._settings.get(name)
        if entry is not None:
            return f"`{name}` is set by {entry.group}({entry.name}=...), not by {method}()."
        own = [known for known, each in takes.items() if isinstance(each, Setting) and not iskeyword(known)]
        hint = nearest(name, own)
        if not hint:
            others = {known: each.group for known, each in self._settings.items() if isinstance(each, Setting)}
            hint = nearest(name, others)
            listed = [each.name for each in self._settings.settings if each.group == method]
            hint += f" It takes {', '.join(listed)}." if listed else ""
        return f"{method}() has no setting `{name}`.{hint}"

    def environment(self, env: Any = NotProvided, **settings: Any) -> Self:
        """Say which environment is learned in, and how actions and rewards pass between it and the policy."""
        return self._set_group("environment", {"env": env, **settings})

    def env_runners(self, **settings: Any) -> Self:
        """Say how environments are sampled: by how many processes, and what observations go through."""
        return self._set_group("env_runners", settings)

    def rollouts(self, **settings: Any) -> Self:
        """`env_runners` under its older name; takes the settings of `environment` and `fault_tolerance`, too."""
        return self._set_group("rollouts", settings)

    def exploration(self, **settings: Any) -> Self:
        """Say whether actions are sampled: ``explore=``, now a setting of `env_runners`."""
        return self._set_group("exploration", settings)

    def training(self, **settings: Any) -> Self:
        """Say how the policy learns from what was sampled."""
        return self._set_group("training", settings)

    def learners(self, **settings: Any) -> Self:
        """Say by how many processes, on what, and with which class the policy is learned."""
        return self._set_group("learners", settings)

    def evaluation(self, **settings: Any) -> Self:
        """Say when, how long and how the policy is evaluated."""
        return self._set_group("evaluation", settings)

    def resources(self, **settings: Any) -> Self:
        """Say what the algorithm's own process reserves; takes older names for what runners and learners reserve."""
        return self._set_group("resources", settings)

    def framework(self, framework: Any = NotProvided, **settings: Any) -> Self:
        """Say which library networks are of: torch."""
        return self._set_group("framework", {"framework": framework, **settings})

    def api_stack(self, **settings: Any) -> Self:
        """Accept RLlib's choice of a stack; there is one, and it knows the names of both."""
        return self._set_group("api_stack", settings)

    def debugging(self, **settings: Any) -> Self:
        """Set the seed and what is logged."""
        return self._set_group("debugging", settings)

    def rl_module(self, **settings: Any) -> Self:
        """Say what network is learned."""
        return self._set_group("rl_module", settings)

    def callbacks(self, callbacks_class: Any = NotProvided, **settings: Any) -> Self:
        """Say what is called on events such as the end of an episode."""
        return self._set_group("callbacks", {"callbacks_class": callbacks_class, **settings})

    def checkpointing(self, **settings: Any) -> Self:
        """Say what checkpoints hold."""
        return self._set_group("checkpointing", settings)

    def reporting(self, **settings: Any) -> Self:
        """Say what results report, and how long a training iteration is at least."""
        return self._set_group("reporting", settings)

    def fault_tolerance(self, **settings: Any) -> Self:
        """Say what happens when runners or environments fail."""
        return self._set_group("fault_tolerance", settings)

    def multi_agent(self, **settings: Any) -> Self:
        """Refuse what several agents need: one policy is learned here. Values that change nothing pass."""
        return self._set_group("multi_agent", settings)

    def offline_data(self, **settings: Any) -> Self:
        """Refuse what learning from recorded data needs. Values that change nothing pass."""
        return self._set_group("offline_data", settings)

    def experimental(self, **settings: Any) -> Self:
        """Switch the validation of values off; RLlib's other experiments are refused."""
        return self._set_group("experimental", settings)

    def python_environment(self, **settings: Any) -> Self:
        """Refuse environment variables for processes: nodes have theirs. Values that change nothing pass."""
        return self._set_group("python_environment", settings)


def document_groups(cls: type[ConfigGroups]) -> None:
    """Give a class methods of its own whose signatures and docstrings show its settings and their defaults."""
    for method in GROUPS:
        inherited = getattr(cls, method)
        if getattr(inherited, "_is_group_method", False) or method in vars(ConfigGroups):
            setattr(cls, method, _documented(inherited, method, cls._settings))


def _documented(plain: Callable[..., Any], method: str, table: SettingTable) -> Callable[..., Any]:
    source: Any = getattr(plain, "_plain", plain)
    copied: Any = FunctionType(
        source.__code__, source.__globals__, source.__name__, source.__defaults__, source.__closure__
    )
    copied.__kwdefaults__ = source.__kwdefaults__
    copied.__annotations__ = dict(source.__annotations__)
    copied.__module__, copied.__qualname__ = source.__module__, source.__qualname__
    copied._plain, copied._is_group_method = source, True
    own = [entry for entry in table.settings if entry.group == method]
    also = [entry for entry in table.refused if entry.group == method]
    parameters = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    for index, name in enumerate([entry.name for entry in own] + [entry.name for entry in also]):
        positional = index == 0 and method in _POSITIONAL
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD if positional else inspect.Parameter.KEYWORD_ONLY
        parameters.append(inspect.Parameter(name, kind, default=NotProvided))
    if GROUPS[method]:
        parameters.append(inspect.Parameter("settings", inspect.Parameter.VAR_KEYWORD))
    copied.__signature__ = inspect.Signature(parameters)
    copied.__doc__ = _docstring(inspect.getdoc(source) or "", own)
    return copied


def _docstring(summary: str, settings: list[Setting]) -> str:
    lines = [summary, ""]
    if settings:
        lines += ["Parameters", "----------"]
        for setting in settings:
            lines += [f"{setting.name} : {setting.allowed.description}, default={setting.default!r}"]
            lines += [f"    {setting.meaning}"]
        lines.append("")
    lines += ["Returns", "-------", "self", "", "Raises", "------", "TypeError"]
    lines += ["    For a keyword that is no setting; the nearest one is named."]
    lines += ["UnsupportedSettingError", "    For a setting of RLlib's that has no meaning here."]
    return "\n".join(lines)
