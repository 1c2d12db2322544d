"""What every action distribution can do."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Any, ClassVar, Self

if TYPE_CHECKING:
    from gymnasium.spaces import Space

__all__ = ["Distribution"]


class Distribution(abc.ABC):
    """A batch of action distributions, one per row of the inputs that a policy computed.

    Subclasses hold tensors of shape ``(..., K)``; results drop the last axis, or replace it by the action's own.
    """

    partial_kwargs: ClassVar[dict[str, Any]] = {}

    @classmethod
    @abc.abstractmethod
    def from_logits(cls, logits: Any, **kwargs: Any) -> Self:
        """Build the distribution from a policy's outputs of shape ``(..., K)``."""

    @abc.abstractmethod
    def sample(self, *, sample_shape: tuple[int, ...] | None = None, generator: Any = None) -> Any:
        """Draw actions, without a gradient; ``sample_shape`` is put in front of the batch's shape."""

    def rsample(self, *, sample_shape: tuple[int, ...] | None = None, generator: Any = None) -> Any:
        """Draw actions through which the gradient flows, where the distribution allows it."""
        raise NotImplementedError(
            f"`{type(self).__name__}.rsample()`: this distribution has no reparameterised sample; use `sample()` and "
            "the score-function gradient of `logp()`."
        )

    @abc.abstractmethod
    def logp(self, value: Any, **kwargs: Any) -> Any:
        """Log-probability (density) of ``value``, in nats."""

    @abc.abstractmethod
    def entropy(self) -> Any:
        """Entropy in nats."""

    @abc.abstractmethod
    def kl(self, other: Distribution) -> Any:
        """Kullback-Leibler divergence KL(self || other) in nats."""

    @abc.abstractmethod
    def to_deterministic(self) -> Distribution:
        """Return the distribution that always gives this one's mode."""

    @staticmethod
    @abc.abstractmethod
    def required_input_dim(space: Space[Any], **kwargs: Any) -> int:
        """How many numbers ``from_logits`` takes per action of ``space``."""

    @classmethod
    def get_partial_dist_cls(cls, **partial_kwargs: Any) -> type[Self]:
        """Return a subclass whose ``from_logits`` and ``required_input_dim`` are given ``partial_kwargs``.

        Parameters
        ----------
        **partial_kwargs
            What ``from_logits`` needs beside the logits, such as ``input_lens`` of a multi-categorical.
        """
        parent: Any = cls
        merged = {**cls.partial_kwargs, **partial_kwargs}

        class Partial(parent):
            partial_kwargs = merged

            @classmethod
            def from_logits(cls, logits: Any, **kwargs: Any) -> Any:
                # of the parent, which is no partial class: the class of the result is the same for all partial ones
                return parent.from_logits(logits, **{**merged, **kwargs})

            @staticmethod
            def required_input_dim(space: Space[Any], **kwargs: Any) -> int:
                return int(parent.required_input_dim(space, **{**merged, **kwargs}))

        Partial.__name__ = Partial.__qualname__ = f"{cls.__name__}Partial"
        return Partial
