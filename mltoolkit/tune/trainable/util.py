"""Trainables with large parameters and with resource requests."""

from __future__ import annotations

import functools
import inspect
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import mltoolkit
from mltoolkit.tune.execution.placement_groups import PlacementGroupFactory, resource_dict_to_pg_factory
from mltoolkit.tune.trainable.trainable import Trainable

__all__ = [
    "check_trainable",
    "checked_resources",
    "for_a_file",
    "resources_of",
    "trainable_name",
    "with_parameters",
    "with_resources",
]

_RESOURCES = "_tune_resources"


class _Stored:
    """Objects that lie once in shared memory; put there when a sweep first sends them to another process.

    Pickled for another process it carries references; for a file, see :func:`for_a_file`, the objects themselves, since
    references end with the session.
    """

    def __init__(self, values: dict[str, Any]) -> None:
        self._values: dict[str, Any] | None = values
        self._refs: dict[str, mltoolkit.ObjectRef] = {}
        self._session: weakref.ref[Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        if _for_a_file.get():
            if any(isinstance(value, mltoolkit.ObjectRef) for value in (self._values or {}).values()):
                raise TypeError("`with_parameters` was given ObjectRefs, which no file can keep.")
            return {"_refs": {}, "_values": self._values, "_session": None}
        session = mltoolkit.get_runtime_context().worker
        if self._session is None or self._session() is not session:
            self._refs = {
                name: value if isinstance(value, mltoolkit.ObjectRef) else mltoolkit.put(value)
                for name, value in (self._values or {}).items()
            }
            self._session = weakref.ref(session)
        return {"_refs": self._refs, "_values": None, "_session": None}

    def get(self) -> dict[str, Any]:
        """The objects: those of this process, or mapped from shared memory."""
        if self._values is None:
            names = list(self._refs)
            self._values = dict(zip(names, mltoolkit.get([self._refs[n] for n in names]), strict=True))
        return {
            name: mltoolkit.get(value) if isinstance(value, mltoolkit.ObjectRef) else value
            for name, value in self._values.items()
        }


_for_a_file: ContextVar[bool] = ContextVar("for_a_file", default=False)


@contextmanager
def for_a_file() -> Iterator[None]:
    """Within it, trainables are pickled to be read by another session: with their parameters, not references to them."""
    token = _for_a_file.set(True)
    try:
        yield
    finally:
        _for_a_file.reset(token)


class _WithParameters:
    """A function trainable with stored parameters."""

    def __init__(self, function: Callable[..., Any], stored: _Stored) -> None:
        self._function = function
        self._stored = stored
        functools.update_wrapper(self, function)

    def __call__(self, config: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        return self._function(config, *args, **kwargs, **self._stored.get())


def with_parameters(trainable: Any, **kwargs: Any) -> Any:
    """Bind large objects to a trainable, to be kept once in shared memory for all trials.

    Parameters
    ----------
    trainable : function or subclass of Trainable
        A function gets the objects as keyword arguments beside the configuration, a class gets them in ``setup``.
    **kwargs
        The objects. Arrays arrive read-only, mapped from shared memory.

    Returns
    -------
    function or class
        To be used in place of ``trainable``.

    Examples
    --------
    >>> from mltoolkit import tune
    >>> def score(config, data):
    ...     return {"total": sum(data) * config["factor"]}
    >>> tune.with_parameters(score, data=[1, 2, 3])({"factor": 2})
    {'total': 12}
    """
    check_trainable(trainable)
    stored = _Stored(kwargs)
    if not inspect.isclass(trainable):
        _check_parameters(trainable, kwargs)
        bound: Any = _WithParameters(trainable, stored)
    else:

        def setup(self: Any, config: dict[str, Any]) -> None:
            super(bound, self).setup(config, **stored.get())

        bound = type(trainable.__name__, (trainable,), {"setup": setup, "__doc__": trainable.__doc__})
        bound.__module__ = trainable.__module__
    if hasattr(trainable, _RESOURCES):
        setattr(bound, _RESOURCES, getattr(trainable, _RESOURCES))
    return bound


def with_resources(trainable: Any, resources: Any) -> Any:
    """Say what each trial of a trainable needs.

    Parameters
    ----------
    trainable : function or subclass of Trainable
    resources : dict, PlacementGroupFactory or callable
        ``{"cpu": 2, "gpu": 0.5}``; or bundles; or a function from the configuration to either.

    Returns
    -------
    function or class
        To be used in place of ``trainable``.

    Examples
    --------
    >>> from mltoolkit import tune
    >>> trainable = tune.with_resources(lambda config: {"y": 1}, {"cpu": 2})
    """
    check_trainable(trainable)
    if not isinstance(resources, (Mapping, PlacementGroupFactory)) and not callable(resources):
        raise TypeError(
            "`resources` must be a dict such as {'cpu': 2}, a PlacementGroupFactory, or a function of the config, "
            f"got {type(resources).__name__}."
        )
    if isinstance(resources, Mapping):
        resources = resource_dict_to_pg_factory(resources)
    if inspect.isclass(trainable):
        bound: Any = type(trainable.__name__, (trainable,), {"__doc__": trainable.__doc__})
        bound.__module__ = trainable.__module__
    else:

        @functools.wraps(trainable)
        def bound(config: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
            return trainable(config, *args, **kwargs)

    setattr(bound, _RESOURCES, resources)
    return bound


def resources_of(trainable: Any, config: dict[str, Any]) -> PlacementGroupFactory | None:
    """What a trainable asks for with a configuration: `with_resources`, or the class' own request."""
    request = getattr(trainable, _RESOURCES, None)
    if request is None and inspect.isclass(trainable) and issubclass(trainable, Trainable):
        request = trainable.default_resource_request
    if callable(request):
        request = request(config)
    return checked_resources(request)


def checked_resources(request: Any) -> PlacementGroupFactory | None:
    """What was asked for, as bundles; None for the default.

    Raises
    ------
    TypeError
        If it is no request for resources.
    """
    if isinstance(request, Mapping):
        return resource_dict_to_pg_factory(request)
    if request is None or isinstance(request, PlacementGroupFactory):
        return request
    raise TypeError(
        "The resources of a trial must be a dict such as {'cpu': 2, 'gpu': 1} or a PlacementGroupFactory, "
        f"got {request!r}."
    )


def check_trainable(trainable: Any) -> None:
    """Refuse what is no trainable."""
    if inspect.isclass(trainable) and issubclass(trainable, Trainable):
        return
    if inspect.isclass(trainable) or not callable(trainable):
        raise TypeError(
            "A trainable is a function that takes the configuration, a subclass of `tune.Trainable`, or a registered "
            f"name, got {trainable!r}."
        )
    try:
        inspect.signature(trainable).bind({})
    except ValueError:
        pass  # built in, without a signature
    except TypeError as error:
        # with_parameters binds what is missing, so all that can be said is that nothing takes the configuration.
        if not inspect.signature(trainable).parameters:
            raise TypeError(
                f"A trainable function takes the configuration as its first argument, {trainable_name(trainable)}() "
                "takes none."
            ) from error


def trainable_name(trainable: Any) -> str:
    """The name that trials of a trainable carry."""
    while isinstance(trainable, functools.partial):
        trainable = trainable.func
    name = getattr(trainable, "__name__", None) or type(trainable).__name__
    return "lambda" if name == "<lambda>" else str(name)


def _check_parameters(function: Callable[..., Any], given: dict[str, Any]) -> None:
    try:
        inspect.signature(function).bind({}, **given)
    except ValueError:
        pass
    except TypeError as error:
        raise TypeError(f"`with_parameters` does not fit {trainable_name(function)}: {error}.") from None
