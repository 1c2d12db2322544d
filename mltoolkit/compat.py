"""Let programs written for Ray run on mltoolkit without changing a line.

After :func:`install`, ``import ray`` gives the package ``mltoolkit`` itself and ``import ray.X.Y`` the module
``mltoolkit.X.Y``: the same module objects, so classes and state are shared between code that says ``ray`` and code
that says ``mltoolkit``. The packages that grew around Ray resolve likewise:

==================  ========================
``ray``             ``mltoolkit``
``xgboost_ray``     ``mltoolkit.xgboost``
``lightgbm_ray``    ``mltoolkit.lightgbm``
``ray_lightning``   ``mltoolkit.lightning``
==================  ========================

``python -m mltoolkit script.py`` installs this and runs the script. The switch reaches tasks and actors through the
environment variable ``MLTOOLKIT_COMPAT``, so modules that they import may say ``import ray`` as well.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.util
import os
import pkgutil
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, ClassVar

__all__ = ["ALIASES", "ENVIRONMENT_VARIABLE", "allow_strategies_among_plugins", "install", "is_installed", "uninstall"]

ENVIRONMENT_VARIABLE = "MLTOOLKIT_COMPAT"
"""Set to ``1`` while the aliases are installed; executors install them at start when they find it."""

ALIASES: dict[str, str] = {
    "ray": "mltoolkit",
    "xgboost_ray": "mltoolkit.xgboost",
    "lightgbm_ray": "mltoolkit.lightgbm",
    "ray_lightning": "mltoolkit.lightning",
}
"""Top-level names that programs import, and the package that stands in for each."""

# Modules that Ray renamed: programs use both names.
_RENAMED = {"mltoolkit.tune.suggest": "mltoolkit.tune.search"}

# Ours alone: Ray has no public module of these names, so they are not offered as counterparts.
_OURS = frozenset({"mltoolkit.cli", "mltoolkit.compat", "mltoolkit.core", "mltoolkit.__main__"})


def install() -> None:
    """Make ``import ray`` and the packages around it resolve to mltoolkit in this process and its executors.

    Calling it again changes nothing.

    Raises
    ------
    RuntimeError
        If Ray itself, or one of the other packages, has been imported already: its modules are in use then, and
        half a program on each runtime would work on neither.

    Examples
    --------
    >>> import mltoolkit.compat
    >>> mltoolkit.compat.install()
    >>> import ray
    >>> ray is mltoolkit
    True
    >>> mltoolkit.compat.uninstall()
    """
    taken = _foreign_modules()
    if taken:
        name = taken[0]
        where = getattr(sys.modules[name], "__file__", None) or "an unknown place"
        raise RuntimeError(
            f"`mltoolkit.compat.install()` must come before the first `import {name}`, but `{name}` is already "
            f"imported from {where}. Call `install()` at the top of the program, or run it with `python -m mltoolkit`."
        )
    if not is_installed():
        # First in line, so that an installed Ray does not answer instead.
        sys.meta_path.insert(0, _FINDER)
    os.environ[ENVIRONMENT_VARIABLE] = "1"


def uninstall() -> None:
    """Undo :func:`install`: the names resolve to whatever is installed under them again.

    Modules that were imported through an alias stay usable under the names they are bound to.
    """
    if is_installed():
        sys.meta_path.remove(_FINDER)
    for name in [name for name in sys.modules if _is_ours(name)]:
        del sys.modules[name]
    os.environ.pop(ENVIRONMENT_VARIABLE, None)


def is_installed() -> bool:
    """Tell whether ``import ray`` gives mltoolkit in this process.

    Returns
    -------
    bool
    """
    return _FINDER in sys.meta_path


def allow_strategies_among_plugins(package: str) -> None:
    """Let a Trainer of Lightning take a strategy among its `plugins`, as versions before 2 did.

    Parameters
    ----------
    package : {'lightning.pytorch', 'pytorch_lightning'}
        Whose Trainer; it has been imported. Calling it again changes nothing.
    """
    connector = importlib.import_module(f"{package}.trainer.connectors.accelerator_connector")._AcceleratorConnector
    strategy_class = importlib.import_module(f"{package}.strategies").Strategy
    plain_init = connector.__init__
    if getattr(plain_init, "takes_strategies", False):
        return

    @functools.wraps(plain_init)
    def __init__(self: object, *args: object, **kwargs: Any) -> None:
        plugins = kwargs.get("plugins")
        if plugins is not None:
            listed = list(plugins) if isinstance(plugins, (list, tuple)) else [plugins]
            strategies = [each for each in listed if isinstance(each, strategy_class)]
            if strategies and kwargs.get("strategy") in ("auto", None) and len(strategies) == 1:
                kwargs["strategy"] = strategies[0]
                kwargs["plugins"] = [each for each in listed if each is not strategies[0]] or None
        plain_init(self, *args, **kwargs)

    __init__.takes_strategies = True  # type: ignore[attr-defined]
    connector.__init__ = __init__


class _AliasFinder(MetaPathFinder):
    """Answer for every name at or below one of ``ALIASES``, missing ones included."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        real_name = _real_name(fullname)
        if real_name is None:
            return None
        real_spec = _find_counterpart(real_name)
        if real_spec is None:
            raise ModuleNotFoundError(_missing(fullname, real_name), name=fullname)
        spec = ModuleSpec(fullname, _AliasLoader(real_name), origin=real_spec.origin)
        spec.submodule_search_locations = real_spec.submodule_search_locations
        return spec


class _AliasLoader(Loader):
    """Hand out a module under a second name."""

    # Kept from the first time on: a second alias of a module may load while the first has its spec stamped on it.
    _own_specs: ClassVar[dict[str, ModuleSpec | None]] = {}

    def __init__(self, real_name: str) -> None:
        self._real_name = real_name

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self._real_name)
        self._own_specs.setdefault(self._real_name, module.__spec__)
        return module

    def exec_module(self, module: ModuleType) -> None:
        # The import system stamps the alias's spec on what `create_module` returned. The module keeps its own:
        # reload, relative imports and `find_spec` go by it.
        module.__spec__ = self._own_specs[self._real_name]


_FINDER = _AliasFinder()


def _real_name(fullname: str) -> str | None:
    root, dot, rest = fullname.partition(".")
    target = ALIASES.get(root)
    if target is None:
        return None
    name = target + dot + rest
    for old, new in _RENAMED.items():
        if name == old or name.startswith(f"{old}."):
            return new + name[len(old) :]
    return name


def _find_counterpart(real_name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(real_name)
    except ModuleNotFoundError as error:
        # A parent package that lacks something else (an optional dependency) explains that best by itself.
        if error.name is None or not real_name.startswith(f"{error.name}."):
            raise
        return None


def _missing(fullname: str, real_name: str) -> str:
    message = f"No module named {fullname!r}: mltoolkit has no `{real_name}` to stand in for it."
    offered = _counterparts(fullname.rpartition(".")[0])
    if not offered:
        return message
    close = difflib.get_close_matches(fullname, offered, n=1)
    hint = f" Did you mean `{close[0]}`?" if close else ""
    return f"{message}{hint} What exists: {', '.join(offered)}."


def _counterparts(parent: str) -> list[str]:
    """Names below `parent` that can be imported; for a missing top-level package, the top-level packages."""
    if not parent:
        return sorted(alias for alias, target in ALIASES.items() if importlib.util.find_spec(target) is not None)
    real_parent = _real_name(parent)
    module = sys.modules.get(real_parent or "")
    names = (info.name for info in pkgutil.iter_modules(getattr(module, "__path__", [])))
    return sorted(f"{parent}.{name}" for name in names if name[0] != "_" and f"{real_parent}.{name}" not in _OURS)


def _is_ours(name: str) -> bool:
    real_name = _real_name(name)
    return real_name is not None and sys.modules[name] is sys.modules.get(real_name)


def _foreign_modules() -> list[str]:
    return [name for name in ALIASES if name in sys.modules and not _is_ours(name)]
