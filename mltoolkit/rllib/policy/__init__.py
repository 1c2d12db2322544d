from __future__ import annotations

from mltoolkit.rllib.policy.policy import Policy, PolicySpec

__all__ = ["Policy", "PolicySpec"]
