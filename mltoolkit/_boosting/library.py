"""What tells one boosting library from another, for the driver."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass

from mltoolkit._boosting.actor import BoostingActor, RankLibrary

__all__ = ["Library"]


@dataclass(frozen=True)
class Library:
    """A boosting library.

    Attributes
    ----------
    name : str
        For messages: ``"XGBoost"``.
    module : str
        What is imported: ``"xgboost"``.
    actor : type
        Class of the actors, whose name users see in messages and before output.
    rank : type
        What an actor does in this library.
    training_error : type
        Raised when training cannot go on.
    prefix : str
        Of environment variables: ``"RXGB"``.
    logger : logging.Logger
    preload : tuple of str
        Modules that every actor imports and that do no harm elsewhere: executors begin with them. The library itself is not
        among them, since actors load it in a reduced form.
    """

    name: str
    module: str
    actor: type[BoostingActor]
    rank: type[RankLibrary]
    training_error: type[RuntimeError]
    prefix: str
    logger: logging.Logger
    preload: tuple[str, ...] = ()

    def setting(self, name: str, default: float) -> float:
        """Return a number that the environment may change: ``RXGB_PLACEMENT_GROUP_TIMEOUT_S=10``."""
        text = os.environ.get(f"{self.prefix}_{name}")
        if text is None:
            return default
        try:
            return float(text)
        except ValueError:
            raise ValueError(f"{self.prefix}_{name} must be a number, got {text!r}.") from None
