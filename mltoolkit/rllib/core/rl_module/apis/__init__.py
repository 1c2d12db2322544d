"""What modules can offer to algorithms."""

from mltoolkit.rllib.core.rl_module.apis.inference_only_api import InferenceOnlyAPI
from mltoolkit.rllib.core.rl_module.apis.value_function_api import ValueFunctionAPI

__all__ = ["InferenceOnlyAPI", "ValueFunctionAPI"]
