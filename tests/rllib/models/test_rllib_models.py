"""Models and distributions of the older contract, and the module that runs them."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest


def spaces(actions="discrete"):
    from gymnasium.spaces import Box, Discrete, MultiDiscrete

    choices = {"discrete": Discrete(2), "multi": MultiDiscrete([2, 3]), "box": Box(-1, 1, (2,))}
    return Box(-1, 1, (3,)), choices[actions]


def adapt(custom_model=None, actions="discrete", **settings):
    import torch

    from mltoolkit.rllib.core.rl_module.build import build_module

    torch.manual_seed(0)
    settings = {"fcnet_hiddens": [8], "custom_model": custom_model, "vf_share_layers": True, **settings}
    return build_module(SimpleNamespace(rl_module_spec=None, model_config=settings), *spaces(actions))


def feedforward_class():
    from torch import nn

    from mltoolkit.rllib.models.torch.torch_modelv2 import TorchModelV2

    class Feedforward(TorchModelV2, nn.Module):
        def __init__(self, *args, size=7, **kwargs):
            TorchModelV2.__init__(self, *args, **kwargs)
            nn.Module.__init__(self)
            self.size = size
            self.net = nn.Linear(3, self.num_outputs + 1)

        def forward(self, input_dict, state, seq_lens):
            self.seen = dict(input_dict)
            out = self.net(input_dict["obs_flat"].float())
            self.values = out[:, -1]
            return out[:, :-1], state

        def value_function(self):
            return self.values

        def custom_loss(self, policy_loss, loss_inputs):
            return [loss + 1 for loss in policy_loss]

        def metrics(self):
            return {"size": self.size}

    return Feedforward


def recurrent_class():
    import torch
    from torch import nn

    from mltoolkit.rllib.models.torch.recurrent_net import RecurrentNetwork

    class Recurrent(RecurrentNetwork, nn.Module):
        def __init__(self, obs_space, action_space, num_outputs, model_config, name):
            nn.Module.__init__(self)
            super().__init__(obs_space, action_space, num_outputs, model_config, name)
            self.size = model_config["lstm_cell_size"]
            self.lstm = nn.LSTM(3, self.size, batch_first=True)
            self.pi, self.vf = nn.Linear(self.size, num_outputs), nn.Linear(self.size, 1)

        def get_initial_state(self):
            return [torch.full((self.size,), 0.25), torch.zeros(self.size)]

        def forward_rnn(self, inputs, state, seq_lens):
            self.lengths = seq_lens.tolist()
            features, (h, c) = self.lstm(inputs, (state[0].unsqueeze(0), state[1].unsqueeze(0)))
            self.features = features
            return self.pi(features), [h[0], c[0]]

        def value_function(self):
            return self.vf(self.features).reshape(-1)

    return Recurrent


class TestFeedforward:
    def test_outputs_values_and_hooks(self):
        import torch

        module = adapt(feedforward_class(), custom_model_config={"size": 9})
        obs = torch.randn(5, 4, 3)
        out = module.forward_train({"obs": obs})
        assert out["action_dist_inputs"].shape == (5, 4, 2)
        values = module.compute_values({"obs": obs})
        torch.testing.assert_close(values, module.compute_values({"obs": obs}, out["embeddings"]))
        expected = module.model.net(obs)
        torch.testing.assert_close(values, expected[..., -1])
        torch.testing.assert_close(out["action_dist_inputs"], expected[..., :-1])
        assert module.model.metrics() == {"size": 9}
        assert module.model.custom_loss([torch.tensor(1.0)], {}) == [2.0]
        assert module.model.seen["is_training"] is True
        acted = module.forward_exploration({"obs": obs[0]})
        assert set(acted) == {"action_dist_inputs"} and not acted["action_dist_inputs"].requires_grad
        assert module.model.seen["is_training"] is False
        assert not module.is_stateful()

    def test_weights(self):
        one, two = adapt(feedforward_class()), adapt(feedforward_class())
        weights = {name: value + 1 for name, value in one.get_state().items()}
        two.set_state(weights)
        np.testing.assert_array_equal(two.get_state()["model.net.bias"], weights["model.net.bias"])

    def test_the_settings_have_both_names(self):
        module = adapt(feedforward_class(), head_fcnet_hiddens=[3], custom_model_config={"size": 2})
        config = module.model.model_config
        assert config["post_fcnet_hiddens"] == config["head_fcnet_hiddens"] == [3]
        assert config["custom_model_config"] == {"size": 2} and config["lstm_cell_size"] == 256

    def test_constructors_without_keywords_read_the_settings(self):
        class Plain(feedforward_class()):
            def __init__(self, obs_space, action_space, num_outputs, model_config, name):
                super().__init__(obs_space, action_space, num_outputs, model_config, name)
                self.size = model_config["custom_model_config"]["size"]

        assert adapt(Plain, custom_model_config={"size": 3}).model.size == 3

    def test_unknown_keywords_of_a_constructor(self):
        class Strict(feedforward_class()):
            def __init__(self, obs_space, action_space, num_outputs, model_config, name, *, width=1):
                super().__init__(obs_space, action_space, num_outputs, model_config, name)

        with pytest.raises(TypeError, match=r"\['widht'\]"):
            adapt(Strict, custom_model_config={"widht": 3})

    def test_default_custom_loss_is_marked_as_such(self):
        from mltoolkit.rllib.models.torch.torch_modelv2 import TorchModelV2

        assert TorchModelV2.custom_loss._is_default
        assert not getattr(feedforward_class().custom_loss, "_is_default", False)

    def test_missing_inputs_are_named(self):
        class Asks(feedforward_class()):
            def forward(self, input_dict, state, seq_lens):
                return input_dict["prev_actions"], state

        import torch

        with pytest.raises(KeyError, match=r"asked for 'prev_actions', but its inputs are \['is_training', 'obs'"):
            adapt(Asks).forward_train({"obs": torch.zeros(1, 3)})


class TestRecurrent:
    def test_sequences_equal_acting_step_by_step(self):
        import torch

        module = adapt(recurrent_class(), lstm_cell_size=5)
        rng = np.random.default_rng(0)
        rows, steps = 4, 7
        obs = torch.from_numpy(rng.standard_normal((rows, steps, 3)).astype(np.float32))
        is_first = torch.from_numpy(rng.random((rows, steps)) < 0.3)
        initial = module.get_initial_state()
        assert list(initial) == ["state_0", "state_1"] and initial["state_0"][0] == 0.25
        state = {name: torch.from_numpy(rng.standard_normal((rows, 5)).astype(np.float32)) for name in initial}
        batch = {"obs": obs, "state_in": state, "is_first": is_first}
        out = module.forward_train(batch)
        assert sum(module.model.lengths) == rows * steps
        values = module.compute_values(batch)
        torch.testing.assert_close(values, out["embeddings"])
        for t in range(steps):
            fresh = is_first[:, t, None]
            state = {name: torch.where(fresh, float(initial[name][0]), value) for name, value in state.items()}
            acted = module.forward_exploration({"obs": obs[:, t], "state_in": state})
            torch.testing.assert_close(acted["action_dist_inputs"], out["action_dist_inputs"][:, t])
            state = acted["state_out"]
        assert module.is_stateful()

    def test_without_beginnings(self):
        import torch

        module = adapt(recurrent_class(), lstm_cell_size=5)
        state = {name: torch.zeros(2, 5) for name in module.get_initial_state()}
        out = module.forward_train({"obs": torch.zeros(2, 6, 3), "state_in": state})
        assert out["action_dist_inputs"].shape == (2, 6, 2) and module.model.lengths == [6, 6]


class TestMistakes:
    def test_missing_methods(self):
        from torch import nn

        from mltoolkit.rllib.models.torch.recurrent_net import RecurrentNetwork
        from mltoolkit.rllib.models.torch.torch_modelv2 import TorchModelV2

        class NoForward(TorchModelV2, nn.Module):
            def value_function(self):
                return None

        class NothingAtAll(nn.Module, TorchModelV2):
            pass

        class NoValues(TorchModelV2, nn.Module):
            def forward(self, input_dict, state, seq_lens):
                return None, state

        class NoRnn(RecurrentNetwork, nn.Module):
            pass

        with pytest.raises(TypeError, match="NoForward lacks `forward`,"):
            adapt(NoForward)
        with pytest.raises(TypeError, match="NothingAtAll lacks `forward` and `value_function`"):
            adapt(NothingAtAll)
        with pytest.raises(TypeError, match="NoValues lacks `value_function`"):
            adapt(NoValues)
        with pytest.raises(TypeError, match="lacks `forward_rnn`"):
            adapt(NoRnn)

    def test_classes_of_another_kind(self):
        from torch import nn

        from mltoolkit.rllib.models.torch.torch_modelv2 import TorchModelV2

        class NoModule(TorchModelV2):
            pass

        with pytest.raises(TypeError, match="derived from TorchModelV2 and torch.nn.Module"):
            adapt(nn.Linear)
        with pytest.raises(TypeError, match="derived from both"):
            NoModule(*spaces(), 2, {}, "x")

    def test_wrong_shapes_are_named(self):
        import torch

        class Wide(feedforward_class()):
            def forward(self, input_dict, state, seq_lens):
                out, state = super().forward(input_dict, state, seq_lens)
                return torch.cat((out, out), 1), state

        class Tall(feedforward_class()):
            def value_function(self):
                return self.values[:1]

        class NoTuple(feedforward_class()):
            def forward(self, input_dict, state, seq_lens):
                return super().forward(input_dict, state, seq_lens)[0]

        batch = {"obs": torch.zeros(4, 3)}
        with pytest.raises(ValueError, match=r"outputs of shape \(4, 2\).*got \(4, 4\)"):
            adapt(Wide).forward_train(batch)
        with pytest.raises(ValueError, match="one value per row"):
            adapt(Tall).forward_train(batch)
        with pytest.raises(TypeError, match="must return a tuple"):
            adapt(NoTuple).forward_train(batch)

    def test_settings_that_do_not_go_together(self):
        with pytest.raises(ValueError, match="RecurrentNetwork"):
            adapt(feedforward_class(), use_lstm=True)
        with pytest.raises(ValueError, match="custom_action_dist"):
            adapt(None, custom_action_dist=distribution_class(), use_lstm=True)


def distribution_class():
    from mltoolkit.rllib.models.torch.torch_action_dist import TorchDiagGaussian

    class Narrow(TorchDiagGaussian):
        """A Gaussian with a third of the standard deviation."""

        def __init__(self, inputs, model):
            half = inputs.shape[-1] // 2
            inputs = inputs.clone()
            inputs[:, half:] -= np.log(3.0)
            super().__init__(inputs, model)

    return Narrow


class TestCatalog:
    def test_registered_names(self):
        from mltoolkit.rllib.models.catalog import ModelCatalog
        from mltoolkit.tune import registry

        cls = feedforward_class()
        ModelCatalog.register_custom_model("test_feedforward", cls)
        assert type(adapt("test_feedforward").model) is cls
        assert registry.registered_for_trials()["models"]["test_feedforward"] is cls
        with pytest.raises(ValueError, match="did you mean|Did you mean 'test_feedforward'"):
            adapt("test_feedforwrd")
        with pytest.raises(TypeError, match="registered as a class"):
            ModelCatalog.register_custom_model("x", cls.__name__)
        with pytest.raises(TypeError, match="must be a string"):
            ModelCatalog.register_custom_action_dist("", dict)
        with pytest.raises(ValueError, match="only one"):
            ModelCatalog.get_model_v2(*spaces(), 2, {}, framework="tf2")

    @pytest.mark.parametrize("actions", ["discrete", "multi", "box"])
    def test_action_distributions_of_a_space(self, actions):
        import torch

        from mltoolkit.rllib.models.catalog import ModelCatalog

        space = spaces(actions)[1]
        cls, size = ModelCatalog.get_action_dist(space, {})
        distribution = cls(torch.zeros(4, size), None)
        drawn = distribution.sample()
        assert drawn.shape == (4, *space.shape)
        torch.testing.assert_close(distribution.sampled_action_logp(), distribution.logp(drawn))
        assert distribution.kl(cls(torch.zeros(4, size), None)).abs().max() < 1e-6
        assert distribution.deterministic_sample().shape == drawn.shape

    def test_a_custom_distribution(self):
        import torch

        from mltoolkit.rllib.models.catalog import ModelCatalog

        ModelCatalog.register_custom_action_dist("test_narrow", distribution_class())
        for model in (None, feedforward_class()):
            module = adapt(model, "box", custom_action_dist="test_narrow")
            cls = module.get_exploration_action_dist_cls()
            assert not cls.has_numpy_twin
            inputs = torch.zeros(3, 5, 4)
            distribution = cls.from_logits(inputs)
            actions = distribution.sample()
            assert actions.shape == (3, 5, 2)
            expected = torch.distributions.Normal(0, 1 / 3)
            torch.testing.assert_close(distribution.logp(actions), expected.log_prob(actions).sum(-1))
            torch.testing.assert_close(distribution.entropy(), 2 * expected.entropy().expand(3, 5))
            assert distribution.kl(cls.from_logits(inputs)).shape == (3, 5)
            assert not distribution.to_deterministic().sample().any()
            assert distribution.model is module.model

    def test_a_distribution_without_its_methods(self):
        with pytest.raises(TypeError, match="lacks `sample`"):
            adapt(feedforward_class(), custom_action_dist=type("Empty", (), {}))

    def test_a_newer_distribution(self):
        from mltoolkit.rllib.core.distribution.torch_distribution import TorchSquashedGaussian

        module = adapt(feedforward_class(), "box", custom_action_dist=TorchSquashedGaussian)
        assert module.get_train_action_dist_cls() is TorchSquashedGaussian


class TestLayers:
    def test_fully_connected_network(self):
        import torch

        from mltoolkit.rllib.models.catalog import MODEL_DEFAULTS
        from mltoolkit.rllib.models.torch.fcnet import FullyConnectedNetwork

        config = {**MODEL_DEFAULTS, "fcnet_hiddens": [8, 4], "vf_share_layers": False, "free_log_std": True}
        model = FullyConnectedNetwork(*spaces("box"), 4, config, "net")
        with pytest.raises(RuntimeError, match="call that first"):
            model.value_function()
        out, state = model({"obs": torch.randn(6, 3)}, [], None)
        assert out.shape == (6, 4) and state == [] and model.value_function().shape == (6,)
        assert not out[:, 2:].any()
        assert len(model.trainable_variables()) == len(model.variables(as_dict=True)) == 13
        features = FullyConnectedNetwork(*spaces(), None, {**config, "free_log_std": False}, "features")
        assert features({"obs": torch.randn(6, 3)})[0].shape == (6, 4) and features.num_outputs == 4
        last = FullyConnectedNetwork(
            *spaces(), 2, {**config, "free_log_std": False, "no_final_linear": True, "vf_share_layers": True}, "last"
        )
        out, _ = last({"obs": torch.randn(6, 3)})
        assert out.shape == (6, 2) and out.abs().max() <= 1

    @pytest.mark.parametrize(
        ("size", "kernel", "stride", "expected"),
        [((5, 5), 3, 1, (5, 5)), ((8, 6), (4, 3), 2, (4, 3)), ((84, 84), 8, 4, (21, 21)), ((3, 3), 1, 2, (2, 2))],
    )
    def test_paddings(self, size, kernel, stride, expected):
        import torch

        from mltoolkit.rllib.models.torch.misc import SlimConv2d, same_padding, valid_padding

        padding, out = same_padding(size, kernel, stride)
        assert out == expected
        image = torch.zeros(1, 2, *size)
        assert SlimConv2d(2, 3, kernel, stride, padding)(image).shape == (1, 3, *expected)
        convolved = torch.nn.Conv2d(2, 3, kernel, stride)(image)
        assert valid_padding(size, kernel, stride) == tuple(convolved.shape[2:])

    def test_small_layers(self):
        import torch

        from mltoolkit.rllib.models.torch.misc import AppendBiasLayer, Reshape, SlimFC, normc_initializer

        layer = SlimFC(3, 2, normc_initializer(0.5), "relu", bias_init=-100.0)
        assert not layer(torch.randn(4, 3)).any()
        torch.testing.assert_close(layer._model[0].weight.norm(dim=1), torch.full((2,), 0.5))
        assert AppendBiasLayer(2)(torch.ones(3, 2)).tolist() == [[1, 1, 0, 0]] * 3
        assert Reshape((2, 2))(torch.zeros(4)).shape == (2, 2)


class TestOldDistributions:
    def test_squashed_gaussian_and_beta_in_their_bounds(self):
        import torch

        from mltoolkit.rllib.models.torch.torch_action_dist import TorchBeta, TorchSquashedGaussian

        grid = torch.linspace(-1.9999, 2.9999, 20_001)[:, None]
        for cls in (TorchSquashedGaussian, TorchBeta):
            distribution = cls(torch.tensor([[0.3, -0.5]]).expand(len(grid), 2), None, low=-2.0, high=3.0)
            density = distribution.logp(grid).exp()
            assert abs(torch.trapezoid(density, grid[:, 0]) - 1) < 1e-3
            entropy = -torch.trapezoid(density * distribution.logp(grid), grid[:, 0])
            assert abs(distribution.entropy()[0] - entropy) < 5e-3
            drawn = distribution.sample()
            assert drawn.min() >= -2 and drawn.max() <= 3
            with pytest.raises(ValueError, match="below"):
                cls(torch.zeros(1, 2), None, low=1.0, high=1.0)

    def test_wrapper_around_torch_distributions(self):
        import torch
        from torch.distributions import Categorical

        from mltoolkit.rllib.models.torch.torch_action_dist import TorchCategorical, TorchDistributionWrapper

        class Mine(TorchDistributionWrapper):
            def __init__(self, inputs, model):
                super().__init__(inputs, model)
                self.dist = Categorical(logits=self.inputs)

        mine, cold = (
            Mine(torch.tensor([[0.0, 1.0]]), None),
            TorchCategorical(torch.tensor([[0.0, 1.0]]), temperature=0.1),
        )
        with pytest.raises(RuntimeError, match="no sample"):
            mine.sampled_action_logp()
        mine.sample()
        assert mine.sampled_action_logp().shape == (1,)
        assert cold.entropy() < mine.entropy()
        torch.testing.assert_close(mine.kl(Mine(torch.zeros(1, 2), None)), np.log(2) - mine.entropy())


def test_frameworks_are_looked_for():
    from mltoolkit.rllib.utils.framework import try_import_tf, try_import_torch

    torch, nn = try_import_torch(error=True)
    assert nn is torch.nn
    assert try_import_tf() == (None, None, None)
    with pytest.raises(ImportError, match="torch alone"):
        try_import_tf(error=True)


def test_files_with_models_can_be_imported_without_torch():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from mltoolkit.rllib.utils.framework import try_import_torch\n"
        "torch, nn = try_import_torch()\n"
        "assert torch is None\n"
        "class Model(nn.Module): pass\n"
        "try: Model()\n"
        "except ImportError as error: assert 'mltoolkit[rllib]' in str(error)\n"
        "else: raise SystemExit('no error')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
