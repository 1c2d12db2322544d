"""Adam over one flat buffer."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from mltoolkit.rllib.core.learner.flat_parameters import FlatParameters

__all__ = ["FlatAdam"]


class FlatAdam:
    """The updates of ``torch.optim.Adam`` in six operations, whatever the number of parameters.

    For networks of a few thousand weights the time of an optimizer is that of starting operations. The first optimizer
    of ``torch.optim`` in a process also imports torch's compiler, which takes longer than many trainings.

    Parameters
    ----------
    flat : FlatParameters
        Values and gradients; they are updated in place.
    lr : float, default=1e-3
        Learning rate; may be set between steps.
    betas : tuple of float, default=(0.9, 0.999)
        Decay of the running means of the gradient and of its square.
    eps : float, default=1e-8
        Added to the denominator.

    References
    ----------
    Kingma and Ba, Adam: A Method for Stochastic Optimization, arXiv:1412.6980, algorithm 1.
    """

    def __init__(
        self,
        flat: FlatParameters,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        if not all(0.0 <= beta < 1.0 for beta in betas):
            raise ValueError(f"`betas` must be in [0, 1), got {betas!r}.")
        if not eps >= 0.0:
            raise ValueError(f"`eps` must be at least 0, got {eps!r}.")
        self.flat = flat
        self.lr = lr
        self.betas = (float(betas[0]), float(betas[1]))
        self.eps = float(eps)
        self.step_count = 0
        self._mean = torch.zeros_like(flat.values)
        self._square = torch.zeros_like(flat.values)
        self._denominator = torch.empty_like(flat.values)

    def step(self) -> None:
        """Update the values from the gradients."""
        self.step_count += 1
        (beta1, beta2), gradients = self.betas, self.flat.gradients
        # The paper divides both means by their bias correction. Both divisions fold into two numbers, as section 2
        # of the paper notes.
        root = (1.0 - beta2**self.step_count) ** 0.5
        step_size = self.lr * root / (1.0 - beta1**self.step_count)
        self._mean.lerp_(gradients, 1.0 - beta1)
        self._square.mul_(beta2).addcmul_(gradients, gradients, value=1.0 - beta2)
        torch.sqrt(self._square, out=self._denominator).add_(self.eps * root)
        self.flat.values.addcdiv_(self._mean, self._denominator, value=-step_size)

    def snapshot(self) -> tuple[int, torch.Tensor, torch.Tensor]:
        """The state at this moment, for :meth:`rollback`."""
        return self.step_count, self._mean.clone(), self._square.clone()

    def rollback(self, snapshot: tuple[int, torch.Tensor, torch.Tensor]) -> None:
        """Return to a :meth:`snapshot`."""
        self.step_count, mean, square = snapshot
        self._mean.copy_(mean)
        self._square.copy_(square)

    def get_state(self) -> dict[str, Any]:
        """The number of steps and, by parameter, the running means, as arrays."""
        return {
            "type": "Adam",
            "step": self.step_count,
            "exp_avg": _arrays(self.flat, self._mean),
            "exp_avg_sq": _arrays(self.flat, self._square),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`get_state` gave.

        Raises
        ------
        ValueError
            If the state is of another kind of optimizer or of a network with other parameters.
        """
        if state.get("type") != "Adam":
            raise ValueError(
                f"The state is of the optimizer {state.get('type')!r}, this learner has Adam. Restore it with the "
                "`optimizer` it was saved with."
            )
        for key, buffer in (("exp_avg", self._mean), ("exp_avg_sq", self._square)):
            views = self.flat.views(buffer)
            shapes = {name: tuple(view.shape) for name, view in views.items()}
            given = {name: tuple(np.shape(array)) for name, array in state[key].items()}
            if shapes != given:
                other = sorted(name for name in shapes.keys() | given.keys() if shapes.get(name) != given.get(name))
                raise ValueError(
                    f"The state of the optimizer is of another network; these parameters differ: {', '.join(other)}."
                )
            for name, view in views.items():
                view.copy_(torch.from_numpy(np.array(state[key][name])))
        self.step_count = int(state["step"])


def _arrays(flat: FlatParameters, buffer: torch.Tensor) -> dict[str, np.ndarray]:
    return {name: view.detach().cpu().numpy().copy() for name, view in flat.views(buffer).items()}
