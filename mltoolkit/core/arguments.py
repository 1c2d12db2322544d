"""Arguments of calls: checked against the signature, pickled at once, references to the side."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from mltoolkit.core import serialization
from mltoolkit.core.object_ref import ObjectRef
from mltoolkit.core.serialization import Payload
from mltoolkit.core.specs import Dependency
from mltoolkit.core.store import Store

EMPTY_ARGUMENTS: Payload = serialization.serialize(((), {}), None)

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
ParameterList = tuple[tuple[str, int, bool], ...]


class CallSignature:
    """Check arguments the way a direct call would, much faster for plain positional ones.

    Parameters
    ----------
    name : str
        For messages.
    parameters : tuple of (str, int, bool)
        Name, kind and whether there is a default, for each parameter.
    """

    __slots__ = ("_fewest", "_most", "_signature", "name", "parameters")

    def __init__(self, name: str, parameters: ParameterList) -> None:
        self.name = name
        self.parameters = parameters
        self._signature: inspect.Signature | None = None
        positional = [p for p in parameters if p[1] in _POSITIONAL]
        keyword_needed = any(p[1] == inspect.Parameter.KEYWORD_ONLY and not p[2] for p in parameters)
        self._fewest = sum(not p[2] for p in positional)
        var = any(p[1] == inspect.Parameter.VAR_POSITIONAL for p in parameters)
        self._most = (1 << 62) if var else len(positional)
        if keyword_needed:
            self._fewest = 1 << 62  # never plain

    @classmethod
    def of(cls, function: Callable[..., Any], name: str, *, drop_first: bool = False) -> CallSignature | None:
        """Return a function's signature, None if it has none (some builtins)."""
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except (ValueError, TypeError):
            return None
        if drop_first and parameters and parameters[0].kind in _POSITIONAL:
            parameters = parameters[1:]
        return cls(name, tuple((p.name, int(p.kind), p.default is not p.empty) for p in parameters))

    def check(self, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        """Raise the TypeError that a direct call would raise."""
        if not kwargs and self._fewest <= len(args) <= self._most:
            return
        if self._signature is None:
            kinds = {int(k): k for k in inspect._ParameterKind}
            self._signature = inspect.Signature(
                [
                    inspect.Parameter(name, kinds[kind], default=None if default else inspect.Parameter.empty)
                    for name, kind, default in self.parameters
                ]
            )
        try:
            self._signature.bind(*args, **kwargs)
        except TypeError as error:
            shown = ", ".join(
                {2: "*", 4: "**"}.get(kind, "") + name + ("=..." if default else "")
                for name, kind, default in self.parameters
            )
            raise TypeError(f"{error}. The signature is {self.name}({shown}).") from None


def pack_arguments(args: Sequence[Any], kwargs: dict[str, Any], store: Store) -> tuple[Payload, tuple[ObjectRef, ...]]:
    """Pickle arguments now, so that later changes of them are not seen.

    Returns
    -------
    payload : Payload
        Of ``(args, kwargs)``, top-level references replaced by `Dependency`.
    deps : tuple of ObjectRef
        Those references; Dask futures among the arguments have become references too. Keep them until the task is submitted.
    """
    if not args and not kwargs:
        return EMPTY_ARGUMENTS, ()
    deps: list[ObjectRef] = []
    replaced = [_replace(item, deps) for item in args]
    if kwargs:
        kwargs = {key: _replace(item, deps) for key, item in kwargs.items()}
    payload = serialization.serialize((tuple(replaced), kwargs), store)
    return payload, tuple(deps)


def _replace(value: Any, deps: list[ObjectRef]) -> Any:
    if isinstance(value, ObjectRef):
        deps.append(value)
        return Dependency(len(deps) - 1)
    if type(value).__module__ == "distributed.client" and hasattr(value, "add_done_callback"):
        from mltoolkit.core import dask_interop

        return _replace(dask_interop.from_dask(value), deps)
    return value


def ids_of(refs: Sequence[ObjectRef]) -> tuple[bytes, ...]:
    """Return the ids of references."""
    return tuple([ref._id for ref in refs]) if refs else ()
