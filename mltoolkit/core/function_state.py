"""Whether a function can be reused for many calls without the calls seeing each other."""

from __future__ import annotations

import dis
import types
from typing import Any

_ATOMS = (int, float, complex, bool, str, bytes, type(None), types.ModuleType, types.BuiltinFunctionType, range)
_WRITING = frozenset({"STORE_GLOBAL", "DELETE_GLOBAL"})


def _is_harmless(value: Any, depth: int) -> bool:
    """Return whether a value can hold no state that one call could leave for the next."""
    if isinstance(value, _ATOMS):
        return True
    if isinstance(value, (tuple, frozenset)):
        return len(value) < 100 and all(_is_harmless(item, depth) for item in value)
    if isinstance(value, types.FunctionType):
        return _is_importable(value) or is_stateless(value, depth + 1)
    if isinstance(value, type):
        return _is_importable(value)
    return False


def _is_importable(value: Any) -> bool:
    """Return whether a function or class lives in a module, where it is shared by all calls in any case."""
    module = getattr(value, "__module__", None)
    return module not in (None, "__main__") and "<locals>" not in value.__qualname__


def _names(code: types.CodeType) -> set[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _names(constant)
    return names


def _writes_globals(code: types.CodeType) -> bool:
    return any(instruction.opname in _WRITING for instruction in dis.get_instructions(code)) or any(
        _writes_globals(constant) for constant in code.co_consts if isinstance(constant, types.CodeType)
    )


def is_stateless(function: Any, depth: int = 0) -> bool:
    """Return whether one call of a function cannot leave anything in it for the next.

    Conservative: False wherever it cannot be seen at a glance.

    Parameters
    ----------
    function : object
        A rebuilt function.
    depth : int, default=0
        How many functions deep this is.
    """
    if not isinstance(function, types.FunctionType) or depth > 3 or function.__dict__:
        return False
    if function.__closure__ or _writes_globals(function.__code__):
        return False
    if not all(_is_harmless(item, depth) for item in function.__defaults__ or ()):
        return False
    if not all(_is_harmless(item, depth) for item in (function.__kwdefaults__ or {}).values()):
        return False
    scope = function.__globals__
    return all(_is_harmless(scope[name], depth) for name in _names(function.__code__) if name in scope)
