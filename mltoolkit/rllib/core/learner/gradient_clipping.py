"""Bounds on gradients."""

from __future__ import annotations

from collections.abc import Iterable

import torch

__all__ = ["clip_gradients", "global_norm"]


def global_norm(gradients: Iterable[torch.Tensor]) -> torch.Tensor:
    """Euclidean norm of all gradients together."""
    norms = [torch.linalg.vector_norm(gradient) for gradient in gradients]
    return norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))


def clip_gradients(
    gradients: Iterable[torch.Tensor], *, grad_clip: float, grad_clip_by: str, norm: torch.Tensor | None = None
) -> None:
    """Bound gradients in place.

    Parameters
    ----------
    gradients : iterable of Tensor
        One for each parameter; for ``"global_norm"`` and ``"value"`` any tensors that hold them.
    grad_clip : float
        The bound.
    grad_clip_by : {"global_norm", "norm", "value"}
        Scale all so that their joint norm is at most `grad_clip`, scale each so that its own norm is, or limit each
        component to ``[-grad_clip, grad_clip]``.
    norm : Tensor, optional
        The joint norm, if it is known already.

    Examples
    --------
    >>> gradient = torch.tensor([3.0, 4.0])
    >>> clip_gradients([gradient], grad_clip=1.0, grad_clip_by="norm")
    >>> gradient
    tensor([0.6000, 0.8000])
    """
    gradients = list(gradients)
    if grad_clip_by == "value":
        for gradient in gradients:
            gradient.clamp_(-grad_clip, grad_clip)
    elif grad_clip_by == "norm":
        for gradient in gradients:
            gradient.mul_(_factor(torch.linalg.vector_norm(gradient), grad_clip))
    elif grad_clip_by == "global_norm":
        factor = _factor(global_norm(gradients) if norm is None else norm, grad_clip)
        for gradient in gradients:
            gradient.mul_(factor)
    else:
        raise ValueError(f"`grad_clip_by` must be 'global_norm', 'norm' or 'value', got {grad_clip_by!r}.")


def _factor(norm: torch.Tensor, bound: float) -> torch.Tensor:
    # A tensor, not a number: reading the norm would wait for the device.
    return (bound / (norm + 1e-6)).clamp_(max=1.0)
