"""Modules that can leave away what only learning needs."""

from __future__ import annotations

import abc

__all__ = ["InferenceOnlyAPI"]


class InferenceOnlyAPI(abc.ABC):
    """A module with parts that computing actions does without, such as a value function."""

    @abc.abstractmethod
    def get_non_inference_attributes(self) -> list[str]:
        """Return the names of these parts, with dots for parts of parts: ``["vf", "encoder.critic"]``.

        They are deleted from modules built with ``inference_only=True``, and their weights left out of
        ``get_state(inference_only=True)``.
        """
