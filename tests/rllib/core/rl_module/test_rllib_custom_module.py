"""Custom modules: sequences are cut for them, distributions follow the action space, mistakes are named."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import numpy as np
import pytest


def spaces():
    from gymnasium.spaces import Box, Discrete

    return Box(-1, 1, (3,)), Discrete(2)


def build(module_class, *, inference_only=False, **model_config):
    from mltoolkit.rllib.core.rl_module import RLModuleSpec

    observation_space, action_space = spaces()
    return RLModuleSpec(
        module_class=module_class,
        observation_space=observation_space,
        action_space=action_space,
        inference_only=inference_only,
        model_config=model_config,
    ).build()


def build_from(spec, **settings):
    from mltoolkit.rllib.core.rl_module.build import build_module

    config = SimpleNamespace(rl_module_spec=spec, model_config={"fcnet_hiddens": [4], **settings})
    return build_module(config, *spaces())


def recurrent_class():
    import torch
    from torch import nn

    from mltoolkit.rllib.core.rl_module.apis.value_function_api import ValueFunctionAPI
    from mltoolkit.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule

    class Recurrent(TorchRLModule, ValueFunctionAPI):
        """As one would write it for RLlib: a time axis always, no word about episodes."""

        def setup(self):
            self.gru = nn.GRU(3, self.model_config["size"], batch_first=True)
            self.pi = nn.Linear(self.model_config["size"], 2)
            self.vf = nn.Linear(self.model_config["size"], 1)

        def get_initial_state(self):
            return {"h": np.full(self.model_config["size"], 0.5, np.float32)}

        def _forward(self, batch, **kwargs):
            assert batch["obs"].ndim == 3
            features, h = self.gru(batch["obs"], batch["state_in"]["h"].unsqueeze(0))
            return {"action_dist_inputs": self.pi(features), "state_out": {"h": h[0]}}

        def compute_values(self, batch, embeddings=None):
            features, _ = self.gru(batch["obs"], batch["state_in"]["h"].unsqueeze(0))
            return self.vf(features).squeeze(-1)

    torch.manual_seed(0)
    return Recurrent


def test_sequences_of_a_recurrent_module_are_cut_at_episodes():
    import torch

    module = build(recurrent_class(), size=4)
    rng = np.random.default_rng(0)
    rows, steps = 4, 8
    obs = torch.from_numpy(rng.standard_normal((rows, steps, 3)).astype(np.float32))
    is_first = torch.from_numpy(rng.random((rows, steps)) < 0.3)
    start = torch.from_numpy(rng.standard_normal((rows, 4)).astype(np.float32))
    batch = {"obs": obs, "state_in": {"h": start}, "is_first": is_first}
    out = module.forward_train(batch)
    values = module.values(batch)
    state = start
    for t in range(steps):
        state = torch.where(is_first[:, t, None], 0.5, state)
        step = {"obs": obs[:, t], "state_in": {"h": state}}
        torch.testing.assert_close(module.values({**step, "obs": obs[:, t : t + 1]})[:, 0], values[:, t])
        acted = module.forward_exploration(step)
        torch.testing.assert_close(acted["action_dist_inputs"], out["action_dist_inputs"][:, t])
        state = acted["state_out"]["h"]
    assert "state_out" not in out


def test_without_beginnings_the_state_comes_out():
    import torch

    module = build(recurrent_class(), size=4)
    batch = {
        "obs": torch.zeros(2, 5, 3),
        "state_in": {"h": torch.zeros(2, 4)},
        "is_first": torch.zeros(2, 5, dtype=bool),
    }
    assert module.forward_train(batch)["state_out"]["h"].shape == (2, 4)


def test_phases_may_differ_and_acting_takes_no_gradients():
    import torch
    from torch import nn

    from mltoolkit.rllib.core.rl_module.rl_module import RLModule

    class Phases(RLModule):
        def setup(self):
            self.net = nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5))

        def _forward(self, batch, **kwargs):
            return {"action_dist_inputs": self.net(batch["obs"])}

        def _forward_train(self, batch, **kwargs):
            return {**self._forward(batch), "trained": True}

    module = build(Phases)
    batch = {"obs": torch.ones(4, 3)}
    assert module(batch)["trained"] and module.training
    out = module.forward_inference(batch)
    assert set(out) == {"action_dist_inputs"} and not out["action_dist_inputs"].requires_grad
    assert not module.training, "no dropout when acting"
    assert module.forward_train(batch)["action_dist_inputs"].requires_grad and module.training
    distribution = module.get_exploration_action_dist_cls().from_logits(out["action_dist_inputs"])
    assert distribution.sample().shape == (4,) and distribution.has_numpy_twin


def test_a_distribution_of_ones_own_has_no_numpy_twin():
    from mltoolkit.rllib.core.distribution.torch_distribution import TorchCategorical

    class Mine(TorchCategorical):
        pass

    assert TorchCategorical.has_numpy_twin and not Mine.has_numpy_twin
    assert not TorchCategorical.get_partial_dist_cls(start=1).has_numpy_twin


def test_parts_for_learning_only_are_deleted():
    from torch import nn

    from mltoolkit.rllib.core.rl_module.apis import InferenceOnlyAPI, ValueFunctionAPI
    from mltoolkit.rllib.core.rl_module.rl_module import RLModule

    class Parts(RLModule, InferenceOnlyAPI, ValueFunctionAPI):
        def setup(self):
            self.encoder = nn.ModuleDict({"actor": nn.Linear(3, 2), "critic": nn.Linear(3, 2)})
            self.encoder.extra = nn.Linear(3, 2)
            self.vf = nn.Linear(2, 1)

        def get_non_inference_attributes(self):
            return ["vf", "encoder.extra"]

        def _forward(self, batch, **kwargs):
            return {"action_dist_inputs": self.encoder["actor"](batch["obs"])}

        def compute_values(self, batch, embeddings=None):
            return self.vf(self.encoder["critic"](batch["obs"])).squeeze(-1)

    full, small = build(Parts), build(Parts, inference_only=True)
    kept = {f"encoder.{name}.{kind}" for name in ("actor", "critic") for kind in ("weight", "bias")}
    assert set(small.get_state()) == set(full.get_state(inference_only=True)) == kept


class TestMistakes:
    def test_missing_methods_are_named(self):
        from torch import nn

        from mltoolkit.rllib.core.rl_module.rl_module import RLModule

        class Nothing(RLModule):
            def setup(self):
                self.net = nn.Linear(3, 2)

        class OnlyTraining(Nothing):
            def _forward_train(self, batch, **kwargs):
                return {}

            def compute_values(self, batch, embeddings=None):
                return None

        class NoLayers(OnlyTraining):
            def setup(self):
                pass

            def _forward(self, batch, **kwargs):
                return {}

        with pytest.raises(TypeError, match="lacks `_forward` and `compute_values`"):
            build_from(Nothing)
        with pytest.raises(TypeError, match="lacks `_forward_exploration` and `_forward_inference`"):
            build_from(OnlyTraining)
        with pytest.raises(TypeError, match="no parameters"):
            build_from(NoLayers)
        with pytest.raises(NotImplementedError, match="must implement `_forward"):
            build(Nothing).forward_train({"obs": None})

    def test_classes_that_are_no_modules(self):
        from torch import nn

        from mltoolkit.rllib.core.rl_module import RLModuleSpec

        with pytest.raises(TypeError, match="subclass of mltoolkit"):
            build_from(RLModuleSpec(module_class=nn.Linear))
        with pytest.raises(TypeError, match="must be an RLModuleSpec"):
            build_from("MyModule")
        with pytest.raises(ValueError, match="needs `module_class`, `observation_space`"):
            RLModuleSpec(action_space=spaces()[1]).build()

    def test_a_class_that_cannot_be_sent(self):
        lock = threading.Lock()
        base = recurrent_class()

        class Locked(base):
            def setup(self):
                with lock:
                    super().setup()

        with pytest.raises(TypeError, match="cannot be sent to other processes"):
            build_from(Locked)

    def test_a_state_that_is_no_dict(self):
        class Listed(recurrent_class()):
            def get_initial_state(self):
                return [np.zeros(4)]

        with pytest.raises(TypeError, match="must return a dict"):
            build(Listed, size=4).is_stateful()

    def test_options_that_are_not_supported(self):
        from mltoolkit.rllib.core.rl_module import RLModuleSpec
        from mltoolkit.rllib.core.rl_module.rl_module import RLModule

        with pytest.raises(NotImplementedError, match="catalog_class"):
            RLModuleSpec(catalog_class=dict)
        with pytest.raises(NotImplementedError, match="load_state_path"):
            RLModuleSpec(load_state_path="x")
        with pytest.raises(NotImplementedError, match="catalog_class"):
            RLModule(*spaces(), catalog_class=dict)
        with pytest.raises(ValueError, match="exclude each other"):
            RLModuleSpec(inference_only=True, learner_only=True)
        with pytest.raises(ValueError, match="learner_only"):
            build_from(RLModuleSpec(learner_only=True))
        with pytest.raises(ValueError, match="no components"):
            build(recurrent_class(), size=4).get_state("pi")


class TestSpec:
    def test_settings_of_a_custom_module_are_its_own(self):
        from mltoolkit.rllib.core.rl_module import RLModuleSpec

        module = build_from(RLModuleSpec(module_class=recurrent_class(), model_config={"size": 4}))
        assert module.model_config == {"size": 4}

    def test_settings_of_a_default_one_go_over_the_algorithms(self):
        from mltoolkit.rllib.core.rl_module import RLModuleSpec

        module = build_from(RLModuleSpec(model_config={"fcnet_activation": "relu"}))
        assert (module.model_config["fcnet_hiddens"], module.model_config["fcnet_activation"]) == ([4], "relu")

    def test_update_and_from_module(self):
        from mltoolkit.rllib.core.rl_module import RLModuleSpec

        cls = recurrent_class()
        spec = RLModuleSpec.from_module(build(cls, size=4))
        assert spec.module_class is cls and spec.model_config == {"size": 4}
        assert spec.build().get_state().keys() == build(cls, size=4).get_state().keys()
        other = RLModuleSpec(model_config={"size": 5}, inference_only=True)
        kept = spec.copy()
        kept.update(other, override=False)
        assert kept.model_config == {"size": 4} and not kept.inference_only
        spec.update(other)
        assert spec.model_config == {"size": 5} and spec.inference_only and spec.module_class is cls
        with pytest.raises(TypeError, match="another one"):
            spec.update({})
