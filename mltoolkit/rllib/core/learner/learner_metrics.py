"""What a learner logs, without waiting for the device."""

from __future__ import annotations

from typing import Any

import torch

from mltoolkit.rllib.utils.metrics.metrics_logger import Key, MetricsLogger

__all__ = ["LearnerMetrics"]


class LearnerMetrics(MetricsLogger):
    """A :class:`MetricsLogger` that takes tensors and reads them all at once.

    Reading a number from a tensor waits until a GPU has computed it. Numbers that a loss logs at each minibatch are
    therefore kept as they are and copied together when a value is asked for.
    """

    def __init__(self) -> None:
        super().__init__()
        self._waiting: list[tuple[Key, torch.Tensor, dict[str, Any]]] = []

    def log_value(self, key: Key, value: Any, **options: Any) -> None:
        """Log one value; a tensor of one element is read later."""
        if isinstance(value, torch.Tensor) and value.numel() == 1:
            self._waiting.append((key, value.detach(), options))
        else:
            # A window must get its values in the order in which they were logged.
            self._read() if any(each[0] == key for each in self._waiting) else None
            super().log_value(key, value, **options)

    def _read(self) -> None:
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        numbers = torch.stack([value.reshape(()).to(torch.float64) for _, value, _ in waiting]).tolist()
        for (key, _, options), number in zip(waiting, numbers, strict=True):
            super().log_value(key, number, **options)

    def peek(self, key: Key | None = None, default: Any = None) -> Any:
        """The reduced value of a key, or all of them as a nested dict, without clearing anything."""
        self._read()
        return super().peek(key, default)

    def reduce(self) -> dict[str, Any]:
        """All reduced values as a nested dict; clears what is not kept over results."""
        self._read()
        return super().reduce()

    def get_state(self) -> list[dict[str, Any]]:
        """All statistics as plain data."""
        self._read()
        return super().get_state()

    def reset(self) -> None:
        """Forget all keys."""
        self._waiting.clear()
        super().reset()

    def delete(self, key: Key) -> None:
        """Forget a key."""
        self._read()
        super().delete(key)

    def __contains__(self, key: Key) -> bool:
        self._read()
        return super().__contains__(key)
