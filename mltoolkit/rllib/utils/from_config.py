"""The value of a keyword that was not given, where None means something."""

from __future__ import annotations

from typing import Final

__all__ = ["NotProvided"]


class _NotProvided:
    """Its only instance stands for "leave it as it is"."""

    def __repr__(self) -> str:
        return "NotProvided"

    def __reduce__(self) -> str:
        return "NotProvided"


NotProvided: Final = _NotProvided()
