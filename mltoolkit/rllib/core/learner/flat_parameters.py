"""All parameters of a network in one tensor."""

from __future__ import annotations

from collections.abc import Iterable

import torch

__all__ = ["FlatParameters"]

# Each parameter begins on a cache line, as it would with memory of its own.
_ALIGNMENT_BYTES = 64


class FlatParameters:
    """One buffer for the values and one for the gradients of a module's trainable parameters.

    The parameters, and their ``grad``, become views of the buffers, so that zeroing, clipping, averaging over learners
    and the step of the optimizer are one operation each and not one a parameter. Gaps between them stay 0.

    Parameters
    ----------
    named_parameters : iterable of (str, torch.nn.Parameter)
        As from ``module.named_parameters()``; those that need no gradient are left as they are.

    Attributes
    ----------
    values, gradients : torch.Tensor of shape (size,)
        The buffers.
    parameters : dict of str to torch.nn.Parameter
        The parameters, by name.

    Raises
    ------
    ValueError
        If there is nothing to train, or the parameters differ in dtype or device.
    """

    def __init__(self, named_parameters: Iterable[tuple[str, torch.nn.Parameter]]) -> None:
        self.parameters = {name: parameter for name, parameter in named_parameters if parameter.requires_grad}
        kinds = {(parameter.dtype, parameter.device) for parameter in self.parameters.values()}
        if len(kinds) != 1:
            found = ", ".join(sorted(f"{dtype} on {device}" for dtype, device in kinds)) or "no parameter at all"
            raise ValueError(
                "The trainable parameters of a module must have one dtype and one device, got " + found + ". "
                "Convert it with `module.float()`, and check `requires_grad`."
            )
        dtype, device = kinds.pop()
        step = _ALIGNMENT_BYTES // dtype.itemsize
        self._offsets: dict[str, int] = {}
        size = 0
        for name, parameter in self.parameters.items():
            self._offsets[name] = size
            size += -(-parameter.numel() // step) * step
        self.values = torch.zeros(size, dtype=dtype, device=device)
        self.gradients = torch.zeros_like(self.values)
        for name, view in self.views(self.values).items():
            parameter = self.parameters[name]
            view.copy_(parameter.data)
            parameter.data = view
        for name, view in self.views(self.gradients).items():
            self.parameters[name].grad = view

    @property
    def num_parameters(self) -> int:
        """Number of trainable numbers."""
        return sum(parameter.numel() for parameter in self.parameters.values())

    def views(self, buffer: torch.Tensor) -> dict[str, torch.Tensor]:
        """The parts of a buffer of the same layout, such as an optimizer's moments, in the parameters' shapes."""
        return {
            name: buffer[start : start + parameter.numel()].view(parameter.shape)
            for (name, parameter), start in zip(self.parameters.items(), self._offsets.values(), strict=True)
        }
