"""The options of tasks and actors: which exist, what they allow, what they mean."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

STREAMING = -1
DYNAMIC = -2

_UNSUPPORTED = {
    "accelerator_type": "name the accelerator as a custom resource: init(resources={'A100': 1}) and resources={'A100': 1}",
    "label_selector": "use NodeAffinitySchedulingStrategy or a custom resource",
    "fallback_strategy": "use `scheduling_strategy`",
    "object_store_memory": "limit the store as a whole with init(object_store_memory=...)",
    "enable_task_events": "there is no event log to switch off; Dask's dashboard shows the work",
    "allow_out_of_order_execution": "use `max_concurrency` or an asyncio actor where the order of calls does not matter",
    "tensor_transport": "large arrays travel through shared memory by themselves",
    "_labels": "name the actor",
    "_metadata": "name the task",
}


def _number(name: str, value: Any, *, minimum: float = 0) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value) or value < minimum:
        raise ValueError(f"`{name}` must be a number >= {minimum:g}, got {value!r}.")
    return float(value)


def _integer(name: str, value: Any, *, minimum: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ValueError(f"`{name}` must be an integer >= {minimum}, got {value!r}.")
    return value


def _resources(name: str, value: Any) -> dict[str, float]:
    if not isinstance(value, Mapping):
        raise TypeError(f"`{name}` must be a dict such as {{'disk': 1}}, got {value!r}.")
    reserved = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory"}
    out = {}
    for key, amount in value.items():
        if not isinstance(key, str) or not key:
            raise ValueError(f"Names in `{name}` must be non-empty strings, got {key!r}.")
        if key in reserved:
            raise ValueError(f"`{name}` must not name {key!r}; use `{reserved[key]}=` for it.")
        out[key] = _number(f"{name}[{key!r}]", amount)
    return out


def _num_returns(name: str, value: Any) -> int:
    if value == "streaming":
        return STREAMING
    if value == "dynamic":
        return DYNAMIC
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"`{name}` must be an integer >= 0, 'streaming' or 'dynamic', got {value!r}.")
    return value


def _retry_exceptions(name: str, value: Any) -> bool | tuple[type[BaseException], ...]:
    if isinstance(value, bool):
        return value
    if isinstance(value, Sequence) and all(isinstance(t, type) and issubclass(t, BaseException) for t in value):
        return tuple(value)
    raise TypeError(f"`{name}` must be a bool or a list of exception types, got {value!r}.")


def _optional_string(name: str, value: Any) -> str | None:
    if value is not None and (not isinstance(value, str) or not value):
        raise TypeError(f"`{name}` must be a non-empty string or None, got {value!r}.")
    return value


def _lifetime(name: str, value: Any) -> str | None:
    if value not in (None, "detached", "non_detached"):
        raise ValueError(f"`{name}` must be 'detached', 'non_detached' or None, got {value!r}.")
    return None if value == "non_detached" else value


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"`{name}` must be True or False, got {value!r}.")
    return value


def _concurrency_groups(name: str, value: Any) -> dict[str, int]:
    if isinstance(value, (list, tuple)):
        value = {group["name"]: group["max_concurrency"] for group in value}
    if not isinstance(value, Mapping):
        raise TypeError(f"`{name}` must be a dict from group name to number of concurrent calls, got {value!r}.")
    return {_checked_name(k): _integer(f"{name}[{k!r}]", v, minimum=1) for k, v in value.items()}


def _checked_name(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError(f"A concurrency group's name must be a non-empty string, got {value!r}.")
    return value


def check_runtime_env(value: Any) -> dict[str, Any]:
    """Check a ``runtime_env`` and return it as a dict with ``env_vars`` and ``working_dir`` only."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TypeError(f"`runtime_env` must be a dict, got {value!r}.")
    out: dict[str, Any] = {}
    for key, item in value.items():
        if item is None:
            continue
        if key == "env_vars":
            if not isinstance(item, Mapping) or not all(isinstance(s, str) for kv in item.items() for s in kv):
                raise TypeError(f"`runtime_env['env_vars']` must map strings to strings, got {item!r}.")
            out["env_vars"] = dict(item)
        elif key == "working_dir":
            path = os.path.abspath(os.path.expanduser(os.fspath(item)))
            if not os.path.isdir(path):
                raise ValueError(f"`runtime_env['working_dir']` must be an existing directory, got {item!r}.")
            out["working_dir"] = path
        else:
            raise ValueError(
                f"`runtime_env` supports 'env_vars' and 'working_dir', got {key!r}. Executors start from the driver's own "
                "environment; install packages there, or on the Dask workers in attached mode."
            )
    return out


def _strategy(name: str, value: Any) -> Any:
    from mltoolkit.util.scheduling_strategies import (
        NodeAffinitySchedulingStrategy,
        PlacementGroupSchedulingStrategy,
    )

    if value is None or value in ("DEFAULT", "SPREAD"):
        return None if value == "DEFAULT" else value
    if isinstance(value, (NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy)):
        return value
    raise ValueError(
        f"`{name}` must be 'DEFAULT', 'SPREAD', NodeAffinitySchedulingStrategy(...) or "
        f"PlacementGroupSchedulingStrategy(...), got {value!r}."
    )


def _placement_group(name: str, value: Any) -> Any:
    return value


Checker = Callable[[str, Any], Any]

_COMMON: dict[str, Checker] = {
    "num_cpus": _number,
    "num_gpus": _number,
    "memory": _number,
    "resources": _resources,
    "name": _optional_string,
    "runtime_env": lambda name, value: check_runtime_env(value),
    "scheduling_strategy": _strategy,
    "placement_group": _placement_group,
    "placement_group_bundle_index": lambda name, value: _integer(name, value, minimum=-1),
    "placement_group_capture_child_tasks": _flag,
}
TASK_OPTIONS: dict[str, Checker] = {
    **_COMMON,
    "num_returns": _num_returns,
    "max_retries": lambda name, value: _integer(name, value, minimum=-1),
    "retry_exceptions": _retry_exceptions,
    "max_calls": lambda name, value: _integer(name, value, minimum=0),
    "_generator_backpressure_num_objects": lambda name, value: _integer(name, value, minimum=1),
}
ACTOR_OPTIONS: dict[str, Checker] = {
    **_COMMON,
    "max_restarts": lambda name, value: _integer(name, value, minimum=-1),
    "max_task_retries": lambda name, value: _integer(name, value, minimum=-1),
    "max_concurrency": lambda name, value: _integer(name, value, minimum=1),
    "max_pending_calls": lambda name, value: _integer(name, value, minimum=-1),
    "concurrency_groups": _concurrency_groups,
    "namespace": _optional_string,
    "lifetime": _lifetime,
    "get_if_exists": _flag,
}
METHOD_OPTIONS: dict[str, Checker] = {
    "num_returns": _num_returns,
    "name": _optional_string,
    "concurrency_group": _optional_string,
    "max_task_retries": lambda name, value: _integer(name, value, minimum=-1),
    "retry_exceptions": _retry_exceptions,
    "_generator_backpressure_num_objects": lambda name, value: _integer(name, value, minimum=1),
}


def check_options(given: Mapping[str, Any], allowed: Mapping[str, Checker], what: str) -> dict[str, Any]:
    """Validate options.

    Parameters
    ----------
    given : mapping
        As the user wrote them; None means "not given" for every option.
    allowed : mapping of str to callable
        One of ``TASK_OPTIONS``, ``ACTOR_OPTIONS``, ``METHOD_OPTIONS``.
    what : str
        "task", "actor" or "method", for messages.

    Raises
    ------
    ValueError, TypeError, NotImplementedError
        For unknown names, wrong values and options that mltoolkit does not offer.
    """
    out = {}
    for name, value in given.items():
        checker = allowed.get(name)
        if checker is None:
            if name in _UNSUPPORTED and value is not None:
                raise NotImplementedError(f"mltoolkit does not offer the {what} option `{name}`; {_UNSUPPORTED[name]}.")
            if name in _UNSUPPORTED:
                continue
            near = difflib.get_close_matches(name, allowed, 1)
            hint = f" Did you mean `{near[0]}`?" if near else ""
            valid = ", ".join(sorted(n for n in allowed if not n.startswith("_")))
            raise ValueError(f"Unknown {what} option `{name}`.{hint} Valid options: {valid}.")
        if value is None and name not in ("name", "namespace", "lifetime"):
            continue
        out[name] = checker(name, value)
    return out


@dataclass(frozen=True)
class Demand:
    """What a task or an actor needs to run, and where it may.

    Parameters
    ----------
    held : tuple of (str, float)
        Resources held while it runs, sorted by name.
    placing : tuple of (str, float)
        Resources a node must be able to offer at the start (an actor needs a CPU to be placed, and holds none).
    strategy : object
        None, "SPREAD", a node affinity or a placement group strategy.
    runtime_env : tuple
        Sorted items of ``env_vars``, and the working directory.
    """

    held: tuple[tuple[str, float], ...]
    placing: tuple[tuple[str, float], ...]
    strategy: Any = None
    runtime_env: tuple[Any, ...] = ()

    def amount(self, name: str) -> float:
        """Return how much of a resource is held."""
        return next((amount for key, amount in self.held if key == name), 0.0)

    def describe(self) -> str:
        """Return the placement needs as text."""
        return "{" + ", ".join(f"{k}: {v:g}" for k, v in self.placing) + "}"


def freeze_runtime_env(env: Mapping[str, Any]) -> tuple[Any, ...]:
    """Make a checked runtime_env hashable; () if it is empty."""
    if not env:
        return ()
    return (tuple(sorted(env.get("env_vars", {}).items())), env.get("working_dir"))


def make_demand(options: Mapping[str, Any], *, actor: bool, default_env: Mapping[str, Any]) -> Demand:
    """Translate checked options into a `Demand`."""
    resources = dict(options.get("resources", {}))
    cpus = options.get("num_cpus")
    gpus = options.get("num_gpus", 0.0)
    if gpus > 1 and gpus != int(gpus):
        raise ValueError(f"`num_gpus` above 1 must be a whole number, got {gpus:g}.")
    if gpus:
        resources["GPU"] = gpus
    if options.get("memory"):
        resources["memory"] = options["memory"]
    placing = dict(resources)
    if actor:
        if cpus:
            resources["CPU"] = cpus
        # Ray's rule: an actor whose CPUs are not given needs one to be placed and none to run.
        needed = 1.0 if cpus is None and not gpus and not options.get("resources") else (cpus or 0.0)
    else:
        needed = 1.0 if cpus is None else cpus
        if needed:
            resources["CPU"] = needed
    if needed:
        placing["CPU"] = needed
    env = {**default_env}
    own = options.get("runtime_env", {})
    if own:
        merged_vars = {**env.get("env_vars", {}), **own.get("env_vars", {})}
        env = {**env, **own}
        if merged_vars:
            env["env_vars"] = merged_vars
    strategy = options.get("scheduling_strategy")
    group = options.get("placement_group")
    if group is not None and group != "default":
        from mltoolkit.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        if strategy is not None:
            raise ValueError("Give either `scheduling_strategy` or `placement_group`, not both.")
        strategy = PlacementGroupSchedulingStrategy(
            placement_group=group,
            placement_group_bundle_index=options.get("placement_group_bundle_index", -1),
            placement_group_capture_child_tasks=options.get("placement_group_capture_child_tasks"),
        )
    return Demand(
        held=tuple(sorted((k, v) for k, v in resources.items() if v)),
        placing=tuple(sorted((k, v) for k, v in placing.items() if v)),
        strategy=strategy,
        runtime_env=freeze_runtime_env(env),
    )
