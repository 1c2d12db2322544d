"""What is run with each configuration."""

from typing import TYPE_CHECKING, Any

from mltoolkit.tune.trainable.trainable import Trainable

if TYPE_CHECKING:
    from mltoolkit.tune.trainable.function_trainable import FunctionTrainable, wrap_function
    from mltoolkit.tune.trainable.util import with_parameters, with_resources

__all__ = ["FunctionTrainable", "Trainable", "with_parameters", "with_resources", "wrap_function"]


def __getattr__(name: str) -> Any:
    if name in ("with_parameters", "with_resources"):
        from mltoolkit.tune.trainable import util

        return getattr(util, name)
    if name in ("FunctionTrainable", "wrap_function"):
        from mltoolkit.tune.trainable import function_trainable

        return getattr(function_trainable, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
