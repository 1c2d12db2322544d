"""PPO's default module: shapes, initialisation, sequences, its description in numpy, and what it refuses."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _seeded():
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def make(observation_space, action_space, **settings):
    from mltoolkit.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule

    inference_only = settings.pop("inference_only", False)
    return DefaultPPOTorchRLModule(
        observation_space=observation_space,
        action_space=action_space,
        inference_only=inference_only,
        model_config=settings,
    )


def box(*shape, dtype=np.float32):
    from gymnasium.spaces import Box

    high = 255 if dtype == np.uint8 else 1
    return Box(0 if dtype == np.uint8 else -1, high, shape, dtype)


def discrete(n=2):
    from gymnasium.spaces import Discrete

    return Discrete(n)


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def gains(weight):
    """Singular values, each equal to the gain of an orthogonal matrix."""
    return np.linalg.svd(weight.detach().numpy(), compute_uv=False)


class TestNetwork:
    def test_orthogonal_weights_with_the_usual_gains_and_biases_of_zero(self):
        module = make(box(4), discrete(3), fcnet_hiddens=[8, 6], vf_share_layers=False, head_fcnet_hiddens=[5])
        for name, parameter in module.named_parameters():
            if name.endswith("bias"):
                assert not parameter.any(), name
        for layer in (
            module.encoder.net[0],
            module.encoder.net[2],
            module.vf_encoder.net[0],
            module.pi[0],
            module.vf[0],
        ):
            np.testing.assert_allclose(gains(layer.weight), math.sqrt(2), rtol=1e-5)
        np.testing.assert_allclose(gains(module.pi[-1].weight), 0.01, rtol=1e-5)
        np.testing.assert_allclose(gains(module.vf[-1].weight), 1.0, rtol=1e-5)

    def test_other_initializers_by_name_function_or_torchs_own(self):
        import torch

        module = make(
            box(4),
            discrete(),
            fcnet_hiddens=[8],
            fcnet_kernel_initializer="constant_",
            fcnet_kernel_initializer_kwargs={"val": 0.5},
            fcnet_bias_initializer=torch.nn.init.ones_,
            head_fcnet_kernel_initializer="default",
        )
        assert (module.encoder.net[0].weight == 0.5).all()
        assert (module.encoder.net[0].bias == 1).all()
        assert 0 < module.pi[0].weight.abs().max() <= 1 / math.sqrt(8)
        assert module.pi[0].weight.abs().max() > 0.05, "not the gain of 0.01"

    @pytest.mark.parametrize("share", [True, False])
    def test_shared_layers_are_shared(self, share):
        module = make(box(4), discrete(), fcnet_hiddens=[8], vf_share_layers=share)
        sizes = sum(parameter.numel() for parameter in module.parameters())
        assert sizes == (4 * 8 + 8) * (1 if share else 2) + (8 * 2 + 2) + (8 + 1)

    @pytest.mark.parametrize("shape", [(), (4,), (2, 3), (1, 2, 2, 2)])
    def test_flat_observations_of_any_shape_with_any_leading_axes(self, shape):
        import torch

        module = make(box(*shape), discrete(), fcnet_hiddens=[8], vf_share_layers=False)
        obs = torch.from_numpy(numbers(3, 5, *shape))
        out = module.forward_train({"obs": obs})
        assert out["action_dist_inputs"].shape == (3, 5, 2)
        values = module.compute_values({"obs": obs})
        assert values.shape == (3, 5)
        torch.testing.assert_close(module.compute_values({"obs": obs}, out["embeddings"]), values)
        torch.testing.assert_close(module.compute_values({"obs": obs[1]}), values[1])

    def test_layernorm_and_no_hidden_layers(self):
        import torch

        module = make(box(4), discrete(), fcnet_hiddens=[8], fcnet_use_layernorm=True)
        assert any(isinstance(layer, torch.nn.LayerNorm) for layer in module.encoder.net)
        assert module.describe_policy() is None
        plain = make(box(4), discrete(), fcnet_hiddens=[])
        assert plain.pi[0].in_features == 4

    @pytest.mark.parametrize("free", [True, False])
    def test_standard_deviations_are_bounded(self, free):
        import torch

        module = make(box(4), box(3), fcnet_hiddens=[8], free_log_std=free, log_std_clip_param=0.5)
        with torch.no_grad():
            (module.log_std if free else module.pi[-1].bias)[-3:] = torch.tensor([9.0, -9.0, 0.1])
        out = module.forward_inference({"obs": torch.zeros(2, 4)})["action_dist_inputs"]
        torch.testing.assert_close(out[:, 3:], torch.tensor([[0.5, -0.5, 0.1]]).expand(2, 3))
        assert (module.log_std is not None) == free

    def test_without_bounds(self):
        import torch

        module = make(box(4), box(1), fcnet_hiddens=[8], log_std_clip_param=float("inf"))
        with torch.no_grad():
            module.pi[-1].bias[:] = 50.0
        assert module.forward_inference({"obs": torch.zeros(1, 4)})["action_dist_inputs"].max() == 50


class TestImages:
    @pytest.mark.parametrize(
        ("shape", "features"),
        [
            ((84, 84, 4), 256),
            ((4, 84, 84), 256),
            ((42, 42, 1), 256),
            ((96, 96, 3), 256),
            ((64, 64, 3), 4 * 4 * 128),
            ((10, 10, 3), 3 * 3 * 32),
            ((7, 7, 3), 4 * 4 * 16),
            ((30, 20, 3), 4 * 3 * 64),
        ],
    )
    def test_default_filters(self, shape, features):
        import torch

        module = make(box(*shape, dtype=np.uint8), discrete())
        assert module.encoder.num_outputs == features
        obs = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, *shape), np.uint8))
        assert module.forward_train({"obs": obs})["action_dist_inputs"].shape == (2, 2)
        assert module.compute_values({"obs": obs.unsqueeze(0)}).shape == (1, 2)
        assert module.describe_policy() is None

    def test_pixels_of_bytes_are_normalised_and_floats_are_not(self):
        import torch

        filters = [[2, 3, 2]]
        bytes_module = make(box(8, 8, 3, dtype=np.uint8), discrete(), conv_filters=filters)
        float_module = make(box(8, 8, 3), discrete(), conv_filters=filters)
        float_module.set_state(bytes_module.get_state())
        pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8))
        torch.testing.assert_close(
            bytes_module.compute_values({"obs": pixels}), float_module.compute_values({"obs": pixels / 255.0})
        )

    def test_channels_last_and_first_see_the_same(self):
        import torch

        filters = [[2, [3, 2], [2, 1]], [3, 2, 1, "valid"]]
        last = make(box(8, 6, 3), discrete(), conv_filters=filters)
        first = make(box(3, 8, 6), discrete(), conv_filters=filters)
        first.set_state(last.get_state())
        obs = torch.from_numpy(numbers(2, 8, 6, 3))
        torch.testing.assert_close(
            last.compute_values({"obs": obs}), first.compute_values({"obs": obs.permute(0, 3, 1, 2)})
        )

    @pytest.mark.parametrize(
        ("filters", "message"),
        [
            ([[8, 3]], "must be"),
            ([[8, 3, 0]], "must be"),
            ([["8", 3, 1]], "must be"),
            ([[8, 3, 1, "full"]], "must be"),
            ([[8, 9, 1, "valid"]], "leaves nothing"),
        ],
    )
    def test_wrong_filters(self, filters, message):
        with pytest.raises(ValueError, match=message):
            make(box(8, 8, 3), discrete(), conv_filters=filters)

    def test_filters_for_what_is_no_image(self):
        with pytest.raises(ValueError, match="no image"):
            make(box(4), discrete(), conv_filters=[[8, 3, 1]])


class TestSequences:
    @pytest.mark.parametrize("share", [True, False])
    @pytest.mark.parametrize("resets", ["none", "first", "some", "all"])
    def test_training_on_sequences_equals_acting_step_by_step(self, share, resets):
        import torch

        rows, steps = 5, 9
        module = make(box(4), discrete(3), fcnet_hiddens=[8], use_lstm=True, lstm_cell_size=6, vf_share_layers=share)
        rng = np.random.default_rng(0)
        is_first = {
            "none": np.zeros((rows, steps), bool),
            "first": np.arange(steps)[None] + np.zeros((rows, 1)) == 0,
            "some": rng.random((rows, steps)) < 0.25,
            "all": np.ones((rows, steps), bool),
        }[resets]
        obs = torch.from_numpy(numbers(rows, steps, 4))
        start = {name: torch.from_numpy(numbers(rows, 6, seed=i)) for i, name in enumerate(module.get_initial_state())}
        assert len(start) == (2 if share else 4)
        batch = {"obs": obs, "state_in": start, "is_first": torch.from_numpy(is_first)}
        out = module.forward_train(batch)
        values = module.values(batch, out["embeddings"])
        torch.testing.assert_close(module.compute_values(batch), values)
        state, stepwise, step_values = dict(start), [], []
        for t in range(steps):
            fresh = torch.from_numpy(is_first[:, t])[:, None]
            state = {name: torch.where(fresh, 0.0, value) for name, value in state.items()}
            step_batch = {"obs": obs[:, t], "state_in": state}
            step_values.append(module.compute_values({"obs": obs[:, t : t + 1], "state_in": state})[:, 0])
            acted = module.forward_exploration(step_batch)
            stepwise.append(acted["action_dist_inputs"])
            state = acted["state_out"]
        assert stepwise[0].shape == (rows, 3)
        torch.testing.assert_close(out["action_dist_inputs"], torch.stack(stepwise, 1))
        torch.testing.assert_close(values, torch.stack(step_values, 1))
        assert ("state_out" in out) == (resets != "some"), "after padding there is no state to go on from"
        for name, value in out.get("state_out", {}).items():
            torch.testing.assert_close(value, state[name])

    def test_gradients_do_not_cross_the_beginning_of_an_episode(self):
        import torch

        module = make(box(2), discrete(), fcnet_hiddens=[4], use_lstm=True, lstm_cell_size=4)
        obs = torch.from_numpy(numbers(2, 6, 2)).requires_grad_()
        is_first = torch.zeros(2, 6, dtype=torch.bool)
        is_first[0, 3] = True
        state = {name: torch.zeros(2, 4) for name in ("h", "c")}
        out = module.forward_train({"obs": obs, "state_in": state, "is_first": is_first})
        out["action_dist_inputs"][:, 4].sum().backward()
        used = obs.grad.abs().sum(-1) > 0
        assert used.tolist() == [[False] * 3 + [True] * 2 + [False], [True] * 5 + [False]]

    def test_images_with_an_lstm(self):
        import torch

        module = make(box(10, 10, 3, dtype=np.uint8), discrete(), use_lstm=True, lstm_cell_size=4)
        obs = torch.zeros(2, 5, 10, 10, 3, dtype=torch.uint8)
        state = {name: torch.zeros(2, 4) for name in ("h", "c")}
        assert module.forward_train({"obs": obs, "state_in": state})["action_dist_inputs"].shape == (2, 5, 2)
        assert module.forward_inference({"obs": obs[:, 0], "state_in": state})["action_dist_inputs"].shape == (2, 2)

    def test_stateless_modules_have_no_state(self):
        module = make(box(2), discrete(), fcnet_hiddens=[4])
        assert module.get_initial_state() == {}
        assert not module.is_stateful()


class TestState:
    def test_weights_travel_as_copies(self):
        import torch

        one, two = (make(box(4), box(2), fcnet_hiddens=[8], free_log_std=True) for _ in range(2))
        state = one.get_state()
        assert all(type(value) is np.ndarray for value in state.values())
        for value in state.values():
            value.setflags(write=False)  # as arrays in shared memory are
        two.set_state(state)
        obs = torch.from_numpy(numbers(3, 4))
        torch.testing.assert_close(one.compute_values({"obs": obs}), two.compute_values({"obs": obs}), rtol=0, atol=0)
        with torch.no_grad():
            two.log_std += 1
        assert not state["log_std"].any()

    def test_inference_only_leaves_the_value_function_away(self):
        import torch

        full = make(box(4), discrete(), fcnet_hiddens=[8], vf_share_layers=False)
        small = make(box(4), discrete(), fcnet_hiddens=[8], vf_share_layers=False, inference_only=True)
        weights = full.get_state(inference_only=True)
        assert set(weights) == set(small.get_state()) < set(full.get_state())
        small.set_state(full.get_state())
        obs = {"obs": torch.from_numpy(numbers(3, 4))}
        torch.testing.assert_close(
            small.forward_inference(obs)["action_dist_inputs"], full.forward_inference(obs)["action_dist_inputs"]
        )
        with pytest.raises(RuntimeError, match="inference_only"):
            small.forward_train(obs)

    def test_a_state_of_another_network_is_refused_and_changes_nothing(self):
        one, two = make(box(4), discrete(), fcnet_hiddens=[8]), make(box(4), discrete(), fcnet_hiddens=[9])
        before = two.get_state()
        with pytest.raises(ValueError, match=r"encoder.net.0.weight is \(9, 4\) here and \(8, 4\) there"):
            two.set_state(one.get_state())
        with pytest.raises(ValueError, match="missing"):
            two.set_state({})
        for name, value in two.get_state().items():
            np.testing.assert_array_equal(value, before[name])


class TestNumpyPolicy:
    @pytest.mark.parametrize("activation", ["tanh", "relu", "elu", "swish", "silu", "linear", "sigmoid", "leaky_relu"])
    @pytest.mark.parametrize("actions", ["discrete", "gaussian", "free", "squashed"])
    def test_numpy_computes_what_torch_does(self, activation, actions):
        import torch

        from mltoolkit.rllib.core.rl_module.numpy_policy import NumpyPolicy, describe

        settings = {"free": {"free_log_std": True, "log_std_clip_param": 0.3}, "squashed": {"squash_output": True}}
        module = make(
            box(2, 3),
            discrete(3) if actions == "discrete" else box(2),
            fcnet_hiddens=[16, 16],
            fcnet_activation=activation,
            head_fcnet_hiddens=[8],
            **settings.get(actions, {}),
        )
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.normal_(0, 0.4)
        description = pickle.loads(pickle.dumps(describe(module)))
        assert description.squash == (actions == "squashed") == module.get_exploration_action_dist_cls().squashes
        policy = NumpyPolicy(description)
        policy.set_weights(module.get_state())
        for rows in (1, 7, 7, 3):
            obs = numbers(rows, 2, 3, seed=rows)
            expected = module.forward_exploration({"obs": torch.from_numpy(obs)})["action_dist_inputs"].numpy()
            np.testing.assert_allclose(policy(obs), expected, rtol=1e-5, atol=1e-5)
            assert policy(obs).dtype == np.float32

    def test_new_weights_take_effect_and_integers_are_converted(self):
        from mltoolkit.rllib.core.rl_module.numpy_policy import NumpyPolicy, describe

        module = make(box(4), box(2), fcnet_hiddens=[8], free_log_std=True)
        policy = NumpyPolicy(describe(module))
        weights = module.get_state()
        policy.set_weights(weights)
        obs = np.ones((3, 4), np.int64)
        before = policy(obs).copy()
        weights["log_std"] += 1
        weights["pi.0.bias"] += 1
        np.testing.assert_array_equal(policy(obs), before)
        policy.set_weights(weights)
        np.testing.assert_allclose(policy(obs), before + 1, rtol=1e-6)

    def test_without_weights_or_with_too_few(self):
        from mltoolkit.rllib.core.rl_module.numpy_policy import NumpyPolicy, describe

        policy = NumpyPolicy(describe(make(box(4), discrete(), fcnet_hiddens=[8])))
        with pytest.raises(RuntimeError, match="set_weights"):
            policy(np.zeros((1, 4), np.float32))
        with pytest.raises(KeyError, match="encoder.net.0.bias"):
            policy.set_weights({})

    @pytest.mark.parametrize(
        "settings", [{"fcnet_activation": "gelu"}, {"use_lstm": True}, {"fcnet_activation": "GLU"}]
    )
    def test_what_numpy_has_not_is_not_described(self, settings):
        from mltoolkit.rllib.core.rl_module.numpy_policy import describe

        if settings.get("fcnet_activation") == "GLU":
            settings = {"head_fcnet_use_layernorm": True, "head_fcnet_hiddens": [4]}
        assert describe(make(box(4), discrete(), fcnet_hiddens=[8], **settings)) is None

    def test_subclasses_may_compute_otherwise_and_are_not_described(self):
        from mltoolkit.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule
        from mltoolkit.rllib.core.rl_module.numpy_policy import describe

        class Mine(DefaultPPOTorchRLModule):
            pass

        assert describe(Mine(box(4), discrete(), model_config={"fcnet_hiddens": [4]})) is None

    def test_a_runner_needs_no_torch(self):
        code = (
            "import sys, mltoolkit.rllib.core.rl_module.numpy_policy, mltoolkit.rllib.core.rl_module, "
            "mltoolkit.rllib.core.rl_module.build, mltoolkit.rllib.models.catalog, "
            "mltoolkit.rllib.core.distribution.numpy_distribution; "
            "bad = {'torch', 'gymnasium'} & set(sys.modules); assert not bad, bad"
        )
        subprocess.run([sys.executable, "-c", code], check=True)


class TestSettings:
    def test_older_names(self):
        module = make(
            box(4), discrete(), fcnet_hiddens=[8], post_fcnet_hiddens=[7], post_fcnet_activation="tanh", dim=84
        )
        assert module.model_config["head_fcnet_hiddens"] == [7]
        assert module.pi[0].out_features == 7

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"fcnet_hidens": [8]}, "did you mean 'fcnet_hiddens'"),
            ({"use_attention": True}, "no attention"),
            ({"attention_dim": 32}, "no attention"),
            ({"no_final_linear": True}, "custom RLModule"),
            ({"fusionnet_hiddens": [8]}, "single input stream"),
            ({"fcnet_hiddens": 64}, "list of positive integers"),
            ({"fcnet_hiddens": [0]}, "list of positive integers"),
            ({"log_std_clip_param": 0}, "positive number"),
            ({"max_seq_len": 0}, "positive integer"),
            ({"fcnet_activation": "tahn"}, "Unknown activation"),
            ({"fcnet_kernel_initializer": "xavier_unifrm_"}, "did you mean 'xavier_uniform_'"),
            ({"fcnet_bias_initializer": "orthogonal_"}, r"failed on a parameter of shape \(8,\)"),
            ({"fcnet_kernel_initializer_kwargs": {"gain": 2}}, "without an initializer"),
        ],
    )
    def test_wrong_ones(self, settings, message):
        with pytest.raises(ValueError, match=message):
            make(box(4), discrete(), **{"fcnet_hiddens": [8], **settings})

    def test_spaces_without_a_shape(self):
        from gymnasium.spaces import Dict, Tuple

        with pytest.raises(ValueError, match="fixed shape"):
            make(Dict(a=box(2)), discrete())
        with pytest.raises(ValueError, match="not supported"):
            make(box(2), Tuple([discrete()]))

    def test_model_defaults_are_accepted(self):
        from mltoolkit.rllib.core.rl_module._model_config import default_model_config
        from mltoolkit.rllib.core.rl_module.default_model_config import DefaultModelConfig
        from mltoolkit.rllib.models.catalog import MODEL_DEFAULTS

        assert default_model_config(MODEL_DEFAULTS) == DefaultModelConfig()
        assert MODEL_DEFAULTS["post_fcnet_hiddens"] == [] and "head_fcnet_hiddens" not in MODEL_DEFAULTS

    def test_build_module_picks_the_default(self):
        from mltoolkit.rllib.core.rl_module.build import build_module
        from mltoolkit.rllib.core.rl_module.default_model_config import DefaultModelConfig

        config = SimpleNamespace(rl_module_spec=None, model_config=DefaultModelConfig(fcnet_hiddens=[5]))
        module = build_module(config, box(4), discrete())
        assert type(module).__name__ == "DefaultPPOTorchRLModule"
        assert module.model_config["fcnet_hiddens"] == [5]
