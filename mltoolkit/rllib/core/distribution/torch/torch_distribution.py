"""RLlib's path of the torch distributions."""

from mltoolkit.rllib.core.distribution.torch_distribution import (
    TorchCategorical,
    TorchDeterministic,
    TorchDiagGaussian,
    TorchDistribution,
    TorchMultiCategorical,
    TorchSquashedGaussian,
)

__all__ = [
    "TorchCategorical",
    "TorchDeterministic",
    "TorchDiagGaussian",
    "TorchDistribution",
    "TorchMultiCategorical",
    "TorchSquashedGaussian",
]
