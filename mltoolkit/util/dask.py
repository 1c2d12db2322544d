"""References to Dask futures and back.

``get`` and ``put`` take Dask collections as they are; the functions here are for Dask futures.
"""

from __future__ import annotations

from typing import Any

from mltoolkit.core.object_ref import ObjectRef

__all__ = ["from_dask", "get_client", "to_dask"]


def from_dask(future: Any) -> ObjectRef:
    """Return a reference to the value of a Dask future, ready when the future is.

    Parameters
    ----------
    future : distributed.Future
        Of any client.

    Returns
    -------
    ObjectRef
    """
    from mltoolkit.core import dask_interop

    return dask_interop.from_dask(future)


def to_dask(ref: ObjectRef, *, timeout: float | None = None) -> Any:
    """Put the value of a reference on the session's Dask cluster.

    Parameters
    ----------
    ref : ObjectRef
        Waited for.
    timeout : float, optional
        Seconds to wait at most.

    Returns
    -------
    distributed.Future
    """
    from mltoolkit.core import dask_interop

    return dask_interop.to_dask(ref, timeout=timeout)


def get_client() -> Any:
    """Return the session's ``distributed.Client``; an embedded session starts its cluster inside this process at first use."""
    from mltoolkit.core import lifecycle

    return lifecycle.dask_client()
