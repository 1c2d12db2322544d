"""Frameworks, looked for rather than required."""

from __future__ import annotations

from typing import Any

__all__ = ["try_import_tf", "try_import_torch"]


class _NoModule:
    """Stands for ``torch.nn.Module`` as a base class where torch is not installed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise ImportError('This model needs torch, which is not installed. Run `pip install "mltoolkit[rllib]"`.')


class _NoNeuralNetworks:
    """Stands for ``torch.nn``, so that files that define models can be imported without torch."""

    Module = _NoModule


def try_import_torch(error: bool = False) -> tuple[Any, Any]:
    """Import torch, if there is one.

    Parameters
    ----------
    error : bool, default=False
        Raise if it is missing.

    Returns
    -------
    torch, nn : modules
        Without torch: None, and a stand-in whose ``Module`` can be derived from.

    Raises
    ------
    ImportError
        With ``error=True``, if torch is not installed.
    """
    from mltoolkit._optional import require

    try:
        torch = require("torch", purpose="mltoolkit.rllib", extra="rllib")
    except ImportError:
        if error:
            raise
        return None, _NoNeuralNetworks
    return torch, torch.nn


def try_import_tf(error: bool = False) -> tuple[None, None, None]:
    """Say that there is no TensorFlow: mltoolkit computes with torch alone.

    Parameters
    ----------
    error : bool, default=False
        Raise instead.

    Returns
    -------
    tf1, tf, tfv : None
    """
    if error:
        raise ImportError("mltoolkit.rllib computes with torch alone; write the model with `try_import_torch()`.")
    return None, None, None
