"""Optional dependencies: imported where they are used, with an error that says which extra brings them."""

from __future__ import annotations

import importlib
from types import ModuleType

__all__ = ["is_installed", "require"]


def require(module: str, *, purpose: str, extra: str) -> ModuleType:
    """Import an optional dependency.

    Parameters
    ----------
    module : str
        Name to import, such as ``"optuna"`` or ``"optuna.samplers"``.
    purpose : str
        What needs it, as the subject of a sentence: ``"OptunaSearch"``.
    extra : str
        The extra of mltoolkit that installs it.

    Returns
    -------
    module

    Raises
    ------
    ImportError
        If it is not installed; the text says how to install it.

    Examples
    --------
    >>> require("json", purpose="This example", extra="tune").dumps([1])
    '[1]'
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != module.partition(".")[0]:
            raise  # the dependency is there, but something that it needs in turn is not
        package = module.partition(".")[0]
        raise ImportError(
            f'{purpose} needs {package}, which is not installed. Run `pip install "mltoolkit[{extra}]"`.',
            name=package,
        ) from error


def is_installed(module: str) -> bool:
    """Whether ``module`` could be imported, without importing it."""
    from importlib.util import find_spec

    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False
