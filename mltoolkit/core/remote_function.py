"""Functions that run as tasks."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from mltoolkit.core import serialization, task_context
from mltoolkit.core.arguments import CallSignature, ids_of, pack_arguments
from mltoolkit.core.backend import Backend, require_backend
from mltoolkit.core.ids import new_id
from mltoolkit.core.object_ref import ObjectRefGenerator
from mltoolkit.core.options import STREAMING, TASK_OPTIONS, Demand, check_options, freeze_runtime_env, make_demand
from mltoolkit.core.specs import TASK, TaskSpec


def current_strategy(options: Mapping[str, Any]) -> Any:
    """Return the strategy that a child inherits when it names none: the placement group of its parent."""
    if options.get("scheduling_strategy") is not None or options.get("placement_group") is not None:
        return None
    group = task_context.current().placement_group
    if group is None or not group[1]:
        return None
    from mltoolkit.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    return PlacementGroupSchedulingStrategy(group[0], placement_group_capture_child_tasks=True)


def place(demand: Demand, options: Mapping[str, Any]) -> Demand:
    """Apply an inherited placement group to a demand."""
    strategy = current_strategy(options)
    if strategy is None:
        return demand
    return Demand(demand.held, demand.placing, strategy, demand.runtime_env)


def export(backend: Backend, function_id: bytes, function: Any) -> None:
    """Make a function or class known to the session, pickled once."""
    if not backend.knows_function(function_id):
        backend.export(function_id, serialization.serialize(function, backend.store))


class RemoteFunction:
    """A function that runs as a task: ``f.remote(...)`` returns a reference at once.

    Made by ``remote``; see there for the options.
    """

    def __init__(
        self, function: Callable[..., Any], options: Mapping[str, Any], function_id: bytes | None = None
    ) -> None:
        if inspect.iscoroutinefunction(function):
            raise ValueError(
                f"{function.__qualname__} is an `async def` function, which cannot be a task. Make it a plain function, or a method of "
                "an actor."
            )
        self._function = function
        self._given = dict(options)
        self._options = check_options(options, TASK_OPTIONS, "task")
        self._function_id = function_id or new_id()
        self._name = getattr(function, "__name__", type(function).__name__)
        self._signature = CallSignature.of(function, self._name)
        self._is_generator = inspect.isgeneratorfunction(function)
        self._num_returns = self._options.get("num_returns", STREAMING if self._is_generator else 1)
        self._demands: dict[Any, Demand] = {}
        functools.update_wrapper(self, function, updated=())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            f"Remote function {self._name} cannot be called directly; use {self._name}.remote(...) instead of "
            f"{self._name}(...)."
        )

    def options(self, **options: Any) -> RemoteFunction:
        """Return a variant with other options.

        Parameters
        ----------
        **options
            As for ``remote``.
        """
        return RemoteFunction(self._function, {**self._given, **options}, self._function_id)

    def bind(self, *args: Any, **kwargs: Any) -> Any:
        """Lazy graphs are not offered."""
        raise NotImplementedError(
            "mltoolkit does not offer `bind` (lazy task graphs). Pass the reference that `.remote()` returns to the next task; Dask's "
            "own delayed graphs can be passed to `get`."
        )

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Submit a task.

        Returns
        -------
        ObjectRef, list of ObjectRef, ObjectRefGenerator or None
            As ``num_returns`` says.

        Raises
        ------
        TypeError
            If the arguments do not fit the signature, or cannot be pickled.
        """
        if self._signature is not None:
            self._signature.check(args, kwargs)
        backend = require_backend()
        if not backend.knows_function(self._function_id):
            self._check_streaming()
            export(backend, self._function_id, self._function)
        payload, deps = pack_arguments(args, kwargs, backend.store)
        task_id = new_id()
        num_returns = self._num_returns
        if num_returns == 1 or num_returns < 0:
            return_ids: tuple[bytes, ...] = (task_id,)
        else:
            return_ids = tuple(task_id if i == 0 else new_id() for i in range(num_returns))
        options = self._options
        spec = TaskSpec(
            TASK,
            task_id,
            self._function_id,
            options.get("name") or self._name,
            payload,
            ids_of(deps),
            return_ids,
            num_returns,
            self._demand(backend),
            options.get("max_retries", 3),
            self._retry_exceptions(),
            options=self._extra(),
        )
        refs = backend.submit(spec)
        if num_returns == 1:
            return refs[0]
        if num_returns == STREAMING:
            return ObjectRefGenerator(refs[0], backend)
        if num_returns == -2:
            return refs[0]
        return refs or None

    def _check_streaming(self) -> None:
        wanted = self._options.get("num_returns")
        if wanted in (STREAMING, -2) and not self._is_generator and inspect.isfunction(self._function):
            raise ValueError(
                f"num_returns={'streaming' if wanted == STREAMING else 'dynamic'!r} needs a generator function, and {self._name} does "
                "not `yield`."
            )

    def _demand(self, backend: Backend) -> Demand:
        default_env = backend.runtime_env
        key = freeze_runtime_env(default_env)
        demand = self._demands.get(key)
        if demand is None:
            demand = self._demands[key] = make_demand(self._options, actor=False, default_env=default_env)
        return place(demand, self._options)

    def _retry_exceptions(self) -> Any:
        policy = self._options.get("retry_exceptions", False)
        return policy if isinstance(policy, bool) else serialization.dumps_function(policy)

    def _extra(self) -> dict[str, Any] | None:
        extra: dict[str, Any] = {}
        if self._options.get("max_calls"):
            extra["max_calls"] = self._options["max_calls"]
        if self._options.get("_generator_backpressure_num_objects"):
            extra["backpressure"] = self._options["_generator_backpressure_num_objects"]
        return extra or None

    def __reduce__(self) -> tuple[Any, ...]:
        return (RemoteFunction, (self._function, self._given, self._function_id))
