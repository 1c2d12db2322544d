"""Classes that run as actors, and handles of living ones."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from mltoolkit.core import serialization, task_context
from mltoolkit.core.actor_runner import ActorExit
from mltoolkit.core.arguments import CallSignature, ids_of, pack_arguments
from mltoolkit.core.backend import require_backend
from mltoolkit.core.ids import new_id
from mltoolkit.core.object_ref import ObjectRef, ObjectRefGenerator
from mltoolkit.core.options import (
    ACTOR_OPTIONS,
    METHOD_OPTIONS,
    STREAMING,
    check_options,
    make_demand,
)
from mltoolkit.core.remote_function import export, place
from mltoolkit.core.specs import CALL, CREATE, TaskSpec
from mltoolkit.exceptions import AsyncioActorExit

_METHOD_ATTRIBUTE = "__mltoolkit_method_options__"
_SPECIAL_METHODS = ("__ray_terminate__", "__ray_call__", "__ray_ready__")
_ASYNC_CONCURRENCY = 1000


def method(*args: Any, **options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Set options of an actor's method.

    Parameters
    ----------
    num_returns : int or {'streaming', 'dynamic'}, optional
        How many references a call returns.
    concurrency_group : str, optional
        Which of the actor's concurrency groups runs it.
    max_task_retries : int, optional
        How often a call is repeated when the actor dies and restarts.
    retry_exceptions : bool or list of exception types, optional
        Which exceptions are retried as well.

    Examples
    --------
    >>> import mltoolkit
    >>> @mltoolkit.remote
    ... class Pair:
    ...     @mltoolkit.method(num_returns=2)
    ...     def both(self):
    ...         return 1, 2
    """
    if args:
        raise ValueError("`method` takes keyword options only: @method(num_returns=2).")
    checked = check_options(options, METHOD_OPTIONS, "method")
    if not checked:
        raise ValueError(f"`method` needs at least one option: {', '.join(sorted(METHOD_OPTIONS))}.")

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        setattr(function, _METHOD_ATTRIBUTE, checked)
        return function

    return decorate


class MethodInfo:
    """What a handle must know of a method to call it."""

    __slots__ = ("_signature", "is_generator", "options", "parameters")

    def __init__(self, parameters: Any, options: dict[str, Any], is_generator: bool) -> None:
        self._signature: CallSignature | None = None
        self.parameters = parameters
        self.options = options
        self.is_generator = is_generator

    def signature(self, name: str) -> CallSignature | None:
        """Return the method's signature, made once; None if it has none."""
        if self._signature is None and self.parameters is not None:
            self._signature = CallSignature(name, self.parameters)
        return self._signature

    def __reduce__(self) -> tuple[Any, ...]:
        return (MethodInfo, (self.parameters, self.options, self.is_generator))


def _describe_methods(cls: type) -> dict[str, MethodInfo]:
    methods = {}
    for name in dir(cls):
        if name.startswith("__") and name.endswith("__") and name in vars(object):
            continue  # Python's own protocol, which handles follow themselves
        raw = inspect.getattr_static(cls, name, None)
        function = getattr(cls, name, None)
        if (
            raw is None
            or function is None
            or name in ("__class_getitem__", "__init_subclass__")
            or isinstance(raw, property)
            or not callable(function)
            or isinstance(function, type)
        ):
            continue
        bound = isinstance(raw, (staticmethod, classmethod))
        signature = CallSignature.of(function, name, drop_first=not bound)
        plain = inspect.unwrap(function)
        methods[name] = MethodInfo(
            signature.parameters if signature is not None else None,
            getattr(plain, _METHOD_ATTRIBUTE, getattr(function, _METHOD_ATTRIBUTE, {})),
            inspect.isgeneratorfunction(plain) or inspect.isasyncgenfunction(plain),
        )
    return methods


def _is_async_class(cls: type) -> bool:
    for name in dir(cls):
        raw = inspect.unwrap(function) if callable(function := getattr(cls, name, None)) else None
        if inspect.iscoroutinefunction(raw) or inspect.isasyncgenfunction(raw):
            return True
    return False


class ActorClass:
    """A class whose instances are actors: ``C.remote(...)`` returns a handle at once.

    Made by ``remote``; see there for the options.
    """

    def __init__(self, cls: type, options: Mapping[str, Any], class_id: bytes | None = None) -> None:
        self._cls = cls
        self._given = dict(options)
        self._options = check_options(options, ACTOR_OPTIONS, "actor")
        self._class_id = class_id or new_id()
        self._name = cls.__name__
        self._methods = _describe_methods(cls)
        self._is_async = _is_async_class(cls)
        # Without an __init__ of its own a class takes no arguments.
        constructor = getattr(cls, "__init__")  # noqa: B009
        self._signature = (
            CallSignature.of(constructor, self._name, drop_first=True)
            if constructor is not object.__init__
            else CallSignature(self._name, ())
        )
        self.__doc__ = cls.__doc__
        self.__module__ = cls.__module__
        self.__name__ = cls.__name__
        self.__qualname__ = cls.__qualname__
        self.__ray_metadata__ = self

    @property
    def modified_class(self) -> type:
        """The plain class."""
        return self._cls

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            f"Actor class {self._name} cannot be instantiated directly; use {self._name}.remote(...) instead of "
            f"{self._name}(...)."
        )

    def __mro_entries__(self, bases: Any) -> Any:
        raise TypeError(
            f"Inheriting from actor class {self._name} is not possible. Inherit from the plain class and decorate the child: "
            f"`class Child(Plain{self._name})` with `@remote` on both."
        )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._cls, name)

    def options(self, **options: Any) -> ActorClass:
        """Return a variant with other options.

        Parameters
        ----------
        **options
            As for ``remote``.
        """
        return ActorClass(self._cls, {**self._given, **options}, self._class_id)

    def bind(self, *args: Any, **kwargs: Any) -> Any:
        """Lazy graphs are not offered."""
        raise NotImplementedError("mltoolkit does not offer `bind` (lazy graphs of actors); use `.remote()`.")

    def remote(self, *args: Any, **kwargs: Any) -> ActorHandle:
        """Create an actor; its constructor runs in a process of its own, asynchronously.

        Returns
        -------
        ActorHandle

        Raises
        ------
        TypeError
            If the arguments do not fit the constructor, or cannot be pickled.
        ActorAlreadyExistsError
            If the name is taken.
        """
        if self._signature is not None:
            self._signature.check(args, kwargs)
        backend = require_backend()
        options = self._options
        if options.get("get_if_exists") and not options.get("name"):
            raise ValueError("`get_if_exists=True` needs a `name`.")
        if options.get("lifetime") == "detached" and backend.query("is_attached"):
            raise NotImplementedError(
                "lifetime='detached' promises an actor that outlives the driver, which a session on a Dask cluster cannot keep: its actors "
                "end with it. Keep the driver running, and leave the option out."
            )
        export(backend, self._class_id, self._cls)
        payload, deps = pack_arguments(args, kwargs, backend.store)
        actor_id = new_id()
        groups = options.get("concurrency_groups", {})
        concurrency = options.get("max_concurrency", _ASYNC_CONCURRENCY if self._is_async else 1)
        handle_info = {
            "class_name": self._name,
            "methods": self._methods,
            "max_task_retries": options.get("max_task_retries", 0),
            "groups": sorted(groups),
        }
        runner = {
            "is_async": self._is_async,
            "max_concurrency": concurrency,
            "concurrency_groups": groups,
            "method_groups": {
                name: info.options["concurrency_group"]
                for name, info in self._methods.items()
                if info.options.get("concurrency_group")
            },
            "handle": handle_info,
        }
        spec = TaskSpec(
            CREATE,
            actor_id,
            self._class_id,
            self._name,
            payload,
            ids_of(deps),
            demand=place(make_demand(options, actor=True, default_env=backend.runtime_env), options),
            options={
                "name": options.get("name"),
                "namespace": options.get("namespace") or backend.namespace,
                "lifetime": options.get("lifetime"),
                "get_if_exists": options.get("get_if_exists", False),
                "max_restarts": options.get("max_restarts", 0),
                "max_pending_calls": options.get("max_pending_calls", -1),
                "ordered": not self._is_async and concurrency == 1 and not groups,
                "runner": runner,
                "handle": handle_info,
            },
        )
        made = backend.create_actor(spec)
        return ActorHandle(ObjectRef(made, backend), handle_info)

    def __reduce__(self) -> tuple[Any, ...]:
        return (ActorClass, (self._cls, self._given, self._class_id))


class ActorMethod:
    """A method of a living actor: ``handle.name.remote(...)``."""

    __slots__ = ("_handle", "_info", "_name", "_options", "_signature")

    def __init__(self, handle: ActorHandle, name: str, info: MethodInfo | None, options: dict[str, Any]) -> None:
        self._handle = handle
        self._name = name
        self._info = info
        self._options = options
        self._signature = info.signature(name) if info is not None else None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            f"Actor methods cannot be called directly; use `.{self._name}.remote(...)` instead of `.{self._name}(...)`."
        )

    def options(self, **options: Any) -> ActorMethod:
        """Return a variant of the method with other options, for one call or many."""
        checked = check_options(options, METHOD_OPTIONS, "method")
        return ActorMethod(self._handle, self._name, self._info, {**self._options, **checked})

    def bind(self, *args: Any, **kwargs: Any) -> Any:
        """Lazy graphs are not offered."""
        raise NotImplementedError("mltoolkit does not offer `bind` (lazy graphs of actors); use `.remote()`.")

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Call the method.

        Returns
        -------
        ObjectRef, list of ObjectRef, ObjectRefGenerator or None
            As ``num_returns`` says.
        """
        if self._signature is not None:
            self._signature.check(args, kwargs)
        handle = self._handle
        backend = handle._ref._backend
        options = self._options
        payload, deps = pack_arguments(args, kwargs, backend.store)
        task_id = new_id()
        num_returns = options.get("num_returns")
        if num_returns is None:
            num_returns = STREAMING if self._info is not None and self._info.is_generator else 1
        if num_returns == 1 or num_returns < 0:
            return_ids: tuple[bytes, ...] = (task_id,)
        else:
            return_ids = tuple(task_id if i == 0 else new_id() for i in range(num_returns))
        policy = options.get("retry_exceptions", False)
        backpressure = options.get("_generator_backpressure_num_objects")
        spec = TaskSpec(
            CALL,
            task_id,
            self._name,
            self._name,
            payload,
            ids_of(deps),
            return_ids,
            num_returns,
            None,
            options.get("max_task_retries", handle._info["max_task_retries"]),
            policy if isinstance(policy, bool) else serialization.dumps_function(policy),
            actor_id=handle._ref._id,
            group=options.get("concurrency_group"),
            options={"backpressure": backpressure} if backpressure else None,
        )
        refs = backend.submit(spec)
        if num_returns == 1 or num_returns == -2:
            return refs[0]
        if num_returns == STREAMING:
            return ObjectRefGenerator(refs[0], backend)
        return refs or None


class ActorHandle:
    """A living actor, seen from outside. Handles can be pickled, compared and hashed; the actor lives while any of them does."""

    def __init__(self, ref: ObjectRef, info: dict[str, Any]) -> None:
        self._ref = ref
        self._info = info

    @property
    def _actor_id(self) -> bytes:
        return self._ref._id

    @property
    def _ray_actor_id(self) -> bytes:
        return self._ref._id

    def __getattr__(self, name: str) -> ActorMethod:
        if name in ("_ref", "_info"):  # asked for by copy and pickle before they are set
            raise AttributeError(name)
        info = self._info["methods"].get(name)
        if info is None and name not in _SPECIAL_METHODS:
            if name.startswith("__"):  # Python's own questions; many, so no search for near misses
                raise AttributeError(name)
            import difflib

            near = difflib.get_close_matches(name, self._info["methods"], 1)
            hint = f" Did you mean `{near[0]}`?" if near else ""
            raise AttributeError(f"Actor class {self._info['class_name']} has no method {name!r}.{hint}")
        options = info.options if info is not None else {}
        if "concurrency_group" in options:  # the actor knows its methods' groups itself
            options = {key: value for key, value in options.items() if key != "concurrency_group"}
        # Not kept on the handle: a method refers to its handle, and a cycle would keep the actor alive until the collector runs.
        return ActorMethod(self, name, info, options)

    def __dir__(self) -> list[str]:
        return sorted([*self._info["methods"], *_SPECIAL_METHODS])

    def __repr__(self) -> str:
        return f"Actor({self._info['class_name']}, {self._ref.hex()})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ActorHandle) and self._ref._id == other._ref._id

    def __hash__(self) -> int:
        return hash(self._ref._id)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild_handle, (self._ref, self._info))


def _rebuild_handle(ref: ObjectRef, info: dict[str, Any]) -> ActorHandle:
    return ActorHandle(ref, info)


def rebuild_handle(actor_id: bytes, info: dict[str, Any]) -> ActorHandle:
    """Make a handle of an actor whose id the runtime knows, counting a new reference."""
    return ActorHandle(require_backend().adopt_ref(actor_id), info)


def exit_actor() -> None:
    """End the running actor after the current call, without restart.

    Raises
    ------
    TypeError
        Outside an actor.
    """
    context = task_context.current()
    executor = getattr(require_backend(), "executor", None)
    if executor is None or executor.runner is None or not context.actor_id:
        raise TypeError("`exit_actor()` was called outside an actor. Use `kill(handle)` to end an actor from outside.")
    executor.exit_reason = "exit_actor() was called"
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise ActorExit from None
    raise AsyncioActorExit("exit_actor() was called")
