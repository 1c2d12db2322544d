"""Environments: names, configuration, vectors of them, errors."""

from __future__ import annotations

from mltoolkit.rllib.env.env_context import EnvContext
from mltoolkit.rllib.env.errors import EnvError

__all__ = ["EnvContext", "EnvError"]
