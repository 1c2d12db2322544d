"""What updates modules.

Learners import torch; their names are therefore loaded when first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mltoolkit.rllib.core.learner.learner import Learner
    from mltoolkit.rllib.core.learner.learner_group import LearnerGroup

__all__ = ["Learner", "LearnerGroup"]


def __getattr__(name: str) -> Any:
    if name == "Learner":
        from mltoolkit.rllib.core.learner.learner import Learner

        return Learner
    if name == "LearnerGroup":
        from mltoolkit.rllib.core.learner.learner_group import LearnerGroup

        return LearnerGroup
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
