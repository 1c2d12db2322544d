"""Names and paths of RLlib, and what importing them loads."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys

import pytest
from helpers import script_env

NAMES = {
    "mltoolkit.rllib.algorithms.ppo": ["PPO", "PPOConfig", "PPOTrainer", "DEFAULT_CONFIG"],
    "mltoolkit.rllib.algorithms.ppo.ppo": ["PPO", "PPOConfig", "LEARNER_RESULTS_KL_KEY"],
    "mltoolkit.rllib.algorithms.algorithm": ["Algorithm"],
    "mltoolkit.rllib.algorithms.algorithm_config": ["AlgorithmConfig"],
    "mltoolkit.rllib.algorithms.callbacks": ["DefaultCallbacks"],
    "mltoolkit.rllib.algorithms.registry": ["get_algorithm_class", "get_trainable_cls"],
    "mltoolkit.rllib.agents": ["ppo", "DefaultCallbacks"],
    "mltoolkit.rllib.agents.ppo": ["PPOTrainer", "DEFAULT_CONFIG"],
    "mltoolkit.rllib.agents.trainer": ["Trainer"],
    "mltoolkit.rllib.callbacks.callbacks": ["RLlibCallback"],
    "mltoolkit.rllib.core.columns": ["Columns"],
    "mltoolkit.rllib.core.learner.learner": ["Learner"],
    "mltoolkit.rllib.core.learner.torch.torch_learner": ["TorchLearner"],
    "mltoolkit.rllib.algorithms.ppo.torch.ppo_torch_learner": ["PPOTorchLearner"],
    "mltoolkit.rllib.core.rl_module.rl_module": ["RLModule", "RLModuleSpec"],
    "mltoolkit.rllib.core.rl_module.default_model_config": ["DefaultModelConfig"],
    "mltoolkit.rllib.core.rl_module.torch.torch_rl_module": ["TorchRLModule"],
    "mltoolkit.rllib.core.rl_module.apis.value_function_api": ["ValueFunctionAPI"],
    "mltoolkit.rllib.connectors.env_to_module": ["MeanStdFilter", "FlattenObservations", "FrameStackingEnvToModule"],
    "mltoolkit.rllib.env.env_context": ["EnvContext"],
    "mltoolkit.rllib.env.single_agent_env_runner": ["SingleAgentEnvRunner"],
    "mltoolkit.rllib.env.single_agent_episode": ["SingleAgentEpisode"],
    "mltoolkit.rllib.models": ["ModelCatalog", "MODEL_DEFAULTS"],
    "mltoolkit.rllib.models.torch.torch_modelv2": ["TorchModelV2"],
    "mltoolkit.rllib.models.torch.fcnet": ["FullyConnectedNetwork"],
    "mltoolkit.rllib.policy.policy": ["Policy", "PolicySpec"],
    "mltoolkit.rllib.policy.sample_batch": ["SampleBatch", "DEFAULT_POLICY_ID"],
    "mltoolkit.rllib.utils.annotations": ["override", "PublicAPI"],
    "mltoolkit.rllib.utils.framework": ["try_import_torch"],
    "mltoolkit.rllib.utils.metrics": ["ENV_RUNNER_RESULTS", "EPISODE_RETURN_MEAN", "NUM_ENV_STEPS_SAMPLED_LIFETIME"],
    "mltoolkit.rllib.vec_env": ["ClusterVecEnv"],
}


@pytest.mark.parametrize("module", NAMES)
def test_names_are_where_rllib_has_them(module: str) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("gymnasium")
    found = importlib.import_module(module)
    assert [name for name in NAMES[module] if not hasattr(found, name)] == []


def test_the_package_offers_what_it_lists() -> None:
    pytest.importorskip("torch")
    from mltoolkit import rllib

    assert all(getattr(rllib, name) is not None for name in rllib.__all__)
    with pytest.raises(AttributeError, match="it has PPO"):
        rllib.DQN  # noqa: B018  # the look-up is what is tested


def test_naming_an_algorithm_and_its_settings_loads_nothing_heavy() -> None:
    code = """
import json, sys
import mltoolkit.rllib
from mltoolkit.rllib.algorithms.ppo import PPO, PPOConfig
from mltoolkit.rllib.callbacks.callbacks import RLlibCallback
from mltoolkit.tune.registry import get_trainable
PPOConfig().environment("CartPole-v1").training(lr=1e-3).to_dict()
get_trainable("PPO")
print(json.dumps([name for name in ("torch", "gymnasium", "pandas", "distributed") if name in sys.modules]))
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=script_env(), timeout=60)
    assert out.returncode == 0, out.stderr
    assert json.loads(out.stdout) == []


def test_overriding_nothing_is_an_error() -> None:
    from mltoolkit.rllib.utils.annotations import override

    class Base:
        def step(self) -> None: ...

    with pytest.raises(NameError, match="'stepp' overrides nothing: Base"):

        class Mine(Base):
            @override(Base)
            def stepp(self) -> None: ...
