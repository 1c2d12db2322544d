"""Actor handles and ``exit_actor``, under the names of ``ray.actor``."""

from __future__ import annotations

from mltoolkit.core.actor import ActorClass, ActorHandle, ActorMethod, exit_actor

__all__ = ["ActorClass", "ActorHandle", "ActorMethod", "exit_actor"]
