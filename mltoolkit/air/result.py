"""Results under the path that older programs import them from."""

from mltoolkit.train._result import Result

__all__ = ["Result"]
