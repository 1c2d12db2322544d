"""Run a program the way the ``python`` command does, inside an interpreter that is already running.

Shared by ``python -m mltoolkit`` and ``mltoolkit run``. A program must not be able to tell the difference: it is the
module ``__main__``, its own folder comes first on ``sys.path``, and a traceback begins with its own frames.
"""

from __future__ import annotations

import builtins
import importlib.util
import io
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import CodeType, ModuleType, TracebackType
from typing import Any

__all__ = ["CannotRunError", "run_module", "run_script"]


class CannotRunError(Exception):
    """The program could not be read or found; nothing of it has run.

    Parameters
    ----------
    message : str
        What to tell the user.
    exit_code : int
        What the ``python`` command exits with in this case.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def run_script(path: str, args: Sequence[str]) -> None:
    """Run the script at `path` as ``python path *args`` would.

    Parameters
    ----------
    path : str
        A Python source file.
    args : sequence of str
        What the script finds in ``sys.argv[1:]``.

    Raises
    ------
    CannotRunError
        If the file cannot be read.
    BaseException
        Whatever the script raises, ``SystemExit`` included.
    """
    try:
        with io.open_code(os.path.abspath(path)) as file:
            source = file.read()
    except IsADirectoryError as error:
        raise CannotRunError(f"{path!r} is a folder; give the script to run inside it", 1) from error
    except OSError as error:
        raise CannotRunError(
            f"can't open file {os.path.abspath(path)!r}: [Errno {error.errno}] {error.strerror}", 2
        ) from error
    filename = os.path.abspath(path)
    _prepare_argv_and_path([path, *args], os.path.dirname(os.path.realpath(path)))
    main = _new_main(filename, SourceFileLoader("__main__", filename), spec=None)
    _execute(main, source, filename)


def run_module(name: str, args: Sequence[str]) -> None:
    """Run the module or package `name` as ``python -m name *args`` would.

    Parameters
    ----------
    name : str
        Dotted name; of a package, its ``__main__`` runs.
    args : sequence of str
        What the module finds in ``sys.argv[1:]``.

    Raises
    ------
    CannotRunError
        If there is no such module, or it has no Python code.
    BaseException
        Whatever the module raises, ``SystemExit`` included.
    """
    _prepare_argv_and_path(["-m", *args], os.getcwd())
    spec = _find_runnable(name)
    get_code = getattr(spec.loader, "get_code", None)
    code = get_code(spec.name) if get_code is not None else None
    if code is None:
        raise CannotRunError(f"No code object available for {spec.name}", 1)
    sys.argv[0] = spec.origin or name
    _execute(_new_main(spec.origin, spec.loader, spec), code, spec.origin or name)


def _find_runnable(name: str) -> ModuleSpec:
    try:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            package, name = name, f"{name}.__main__"
            spec = importlib.util.find_spec(name)
            if spec is None:
                raise CannotRunError(
                    f"No module named {name}; {package!r} is a package and cannot be directly executed", 1
                )
    except (ImportError, ValueError) as error:
        raise CannotRunError(f"Error while finding module specification for {name!r}: {error}", 1) from error
    if spec is None:
        raise CannotRunError(f"No module named {name}", 1)
    return spec


def _prepare_argv_and_path(argv: list[str], first_folder: str) -> None:
    sys.argv[:] = argv
    if sys.flags.safe_path:
        return
    # The interpreter put the folder of what it started there: ours, or the current one. The program's takes its place.
    sys.path[:1] = [first_folder]


def _new_main(filename: str | None, loader: Any, spec: ModuleSpec | None) -> ModuleType:
    """Put a fresh module in the place of ``__main__``, so that what the program defines is pickled by value."""
    main = ModuleType("__main__")
    main.__file__ = filename
    main.__loader__ = loader
    main.__spec__ = spec
    main.__package__ = spec.parent if spec is not None else None
    namespace = main.__dict__
    namespace["__builtins__"] = builtins
    namespace["__annotations__"] = {}
    namespace["__cached__"] = None
    # The module that is `__main__` until now goes on running below us: it must not be collected.
    namespace_of_caller = sys.modules.get("__main__")
    if namespace_of_caller is not None:
        _KEPT.append(namespace_of_caller)
    sys.modules["__main__"] = main
    return main


_KEPT: list[ModuleType] = []


def _execute(main: ModuleType, source: bytes | CodeType, filename: str) -> None:
    try:
        code = source if isinstance(source, CodeType) else compile(source, filename, "exec", dont_inherit=True)
        exec(code, main.__dict__)
    except SystemExit:
        raise
    except BaseException:
        # Raised on, so that the interpreter ends as it does for any program (exit code, SIGINT, atexit, `python -i`);
        # only what is printed leaves us out. The hook wraps the one in place now, which may be the program's own.
        shown_by = sys.excepthook

        def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
            trimmed = _without_our_frames(trace)
            shown_by(kind, error.with_traceback(trimmed), trimmed)

        sys.excepthook = show
        raise


def _without_our_frames(trace: TracebackType | None) -> TracebackType | None:
    """Drop every frame up to the one that started the program."""
    current = trace
    while current is not None:
        if current.tb_frame.f_code is _execute.__code__:
            return current.tb_next
        current = current.tb_next
    return trace
