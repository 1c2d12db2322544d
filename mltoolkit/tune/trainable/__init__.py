"""What is run with each configuration."""

from typing import TYPE_CHECKING, Any

from mltoolkit.tune.trainable.trainable import Trainable

if TYPE_CHECKING:
    from mltoolkit.tune.trainable.util import with_parameters, with_resources

__all__ = ["Trainable", "with_parameters", "with_resources"]


def __getattr__(name: str) -> Any:
    if name in ("with_parameters", "with_resources"):
        from mltoolkit.tune.trainable import util

        return getattr(util, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
