"""Imports that executors need not make one by one."""

from __future__ import annotations

from mltoolkit.core.modules import hint

__all__ = ["preload_modules"]


def preload_modules(*names: str) -> None:
    """Have the executors that start from now on begin with modules imported.

    On the driver's host executors are forks of a process that imports what the driver has imported. A program whose tasks
    import something heavy that the driver itself does not need, such as torch with its two seconds, may say so: it is
    imported once, for all; on a cluster, once on each node. A module that cannot be imported, or that starts threads on
    import, is left to the executors.

    Parameters
    ----------
    *names : str
        Modules, such as ``"torch"``.

    Raises
    ------
    TypeError
        If a name is no string.

    Examples
    --------
    >>> from mltoolkit.util import preload_modules
    >>> preload_modules("json", "decimal")
    """
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"Modules are given by their names, such as preload_modules('torch'), got {name!r}.")
    hint(names)
