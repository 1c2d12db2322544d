"""Exported policies give the same actions in a process that has no mltoolkit."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from mltoolkit.rllib.export import export_policy

_CHECK = """
import json, sys, warnings
warnings.simplefilter("ignore")
sys.modules["mltoolkit"] = None
import numpy as np
import torch
for path in json.loads(sys.argv[1]):
    data = np.load(path + ".npz")
    inputs = [torch.from_numpy(data[name]) for name in data["inputs"]]
    policy = torch.jit.load(path) if path.endswith(".pt") else torch.export.load(path).module()
    outputs = policy(*inputs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    assert len(outputs) == len(inputs)
    for name, output in zip(data["outputs"], outputs):
        assert output.dtype == torch.from_numpy(data[name]).dtype, (path, output.dtype)
        np.testing.assert_allclose(output.numpy(), data[name], rtol=1e-5, atol=1e-6, err_msg=path)
"""


def case(name):
    """A policy with its pipelines, a batch of what the environment gives, and the actions that it should take."""
    import torch
    from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete

    from mltoolkit.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule
    from mltoolkit.rllib.connectors.env_to_module import FlattenObservations, MeanStdFilter, PrepareImages
    from mltoolkit.rllib.connectors.pipeline import EnvToModulePipeline, ModuleToEnvPipeline

    rng = np.random.default_rng(0)
    floats, pixels = Box(-9, 9, (3,)), Box(0, 255, (10, 10), np.uint8)
    nested = Dict(a=Discrete(3), b=floats)
    connectors, observations, actions, settings, batch = {
        "filtered": ([MeanStdFilter()], floats, Box(-2, 5, (2,)), {}, rng.normal(1, 3, (5, 3)).astype(np.float32)),
        "double": ([FlattenObservations(), MeanStdFilter()], Box(-9, 9, (2, 2), np.float64), Discrete(2), {}, None),
        "choices": ([FlattenObservations()], Discrete(4, start=2), Discrete(3, start=1), {}, np.arange(2, 6)),
        "many": ([FlattenObservations()], MultiDiscrete([2, 3], start=[1, 0]), MultiDiscrete([3, 2, 4]), {}, None),
        "image": ([PrepareImages()], pixels, Discrete(4), {}, None),
        "nested": ([FlattenObservations()], nested, Discrete(2), {}, None),
        "recurrent": (
            [],
            floats,
            Box(0, 1, (2,)),
            {"use_lstm": True, "lstm_cell_size": 5, "squash_output": True, "vf_share_layers": False},
            rng.normal(0, 1, (5, 3)).astype(np.float32),
        ),
    }[name]
    observations.seed(0)
    pipeline = EnvToModulePipeline(connectors, observations, actions, 5)
    if batch is None:
        batch = [observations.sample() for _ in range(5)]
        batch = batch if name == "nested" else np.array(batch)
    seen = pipeline.observe(batch, np.ones(5, bool)).copy()
    torch.manual_seed(0)
    module = DefaultPPOTorchRLModule(
        pipeline.observation_space, actions, model_config={"fcnet_hiddens": [8], "conv_filters": None, **settings}
    )
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.3)
    to_env = ModuleToEnvPipeline(actions)
    state = {key: torch.randn(5, *value.shape) for key, value in module.get_initial_state().items()}
    out = module.forward_inference({"obs": torch.from_numpy(seen), **({"state_in": state} if state else {})})
    mode = module.get_inference_action_dist_cls().from_logits(out["action_dist_inputs"]).mode()
    expected = [to_env(mode.numpy()), *(out["state_out"][key].numpy() for key in state)]
    given = [seen if name == "nested" else batch, *(value.numpy() for value in state.values())]
    return SimpleNamespace(get_module=lambda: module, pipeline=pipeline, to_env=to_env), given, expected


def write(name, path):
    algo, given, expected = case(name)
    assert export_policy(algo, path) == str(path)
    inputs, outputs = (
        {f"{kind}{i}": value for i, value in enumerate(values)} for kind, values in (("in", given), ("out", expected))
    )
    np.savez(f"{path}.npz", inputs=list(inputs), outputs=list(outputs), **inputs, **outputs)
    assert all(parameter.requires_grad for parameter in algo.get_module().parameters())
    return str(path)


def test_torch_alone_computes_the_same_actions(tmp_path):
    names = ("filtered", "double", "choices", "many", "image", "nested", "recurrent")
    paths = [write(name, tmp_path / "made" / f"{name}.pt") for name in names]
    subprocess.run([sys.executable, "-c", _CHECK, json.dumps(paths)], check=True, cwd=tmp_path)
    assert sorted(path.name for path in (tmp_path / "made").glob("*.pt")) == sorted(f"{name}.pt" for name in names)


@pytest.mark.slow
def test_exported_programs_compute_the_same_actions(tmp_path):
    paths = [write(name, tmp_path / f"{name}.pt2") for name in ("filtered", "recurrent")]
    subprocess.run([sys.executable, "-c", _CHECK, json.dumps(paths)], check=True, cwd=tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime")), reason="needs onnx"
)
@pytest.mark.parametrize("name", ["filtered", "recurrent"])
def test_onnx_computes_the_same_actions(tmp_path, name):
    import onnxruntime

    algo, given, expected = case(name)
    session = onnxruntime.InferenceSession(export_policy(algo, tmp_path / "policy.onnx"))
    names = [item.name for item in session.get_inputs()]
    assert names == ["obs", *(f"state_{i}" for i in range(len(given) - 1))]
    outputs = session.run(None, dict(zip(names, given, strict=True)))
    for output, value in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(output, value, rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(bool(importlib.util.find_spec("onnxscript")), reason="the packages are there")
def test_onnx_without_its_packages(tmp_path):
    with pytest.raises(ImportError, match=r"mltoolkit\[onnx\]"):
        export_policy(case("filtered")[0], tmp_path / "policy.onnx")
    assert not list(tmp_path.iterdir())


def test_a_module_alone_takes_and_gives_its_own_numbers(tmp_path):
    import warnings

    import torch

    algo, _, _ = case("filtered")
    module = algo.get_module()
    path = export_policy(module, tmp_path / "policy.pt")
    obs = torch.randn(3, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript
        actions = torch.jit.load(path)(obs)
    expected = module.forward_inference({"obs": obs})["action_dist_inputs"][:, :2]
    torch.testing.assert_close(actions, expected)


def test_what_cannot_be_exported_is_named_and_leaves_no_file(tmp_path):
    from mltoolkit.rllib.connectors.env_to_module import FrameStackingEnvToModule
    from mltoolkit.rllib.connectors.pipeline import EnvToModulePipeline

    algo, _, _ = case("filtered")
    with pytest.raises(ValueError, match=r"\.pt, \.pt2, \.onnx"):
        export_policy(algo, tmp_path / "policy.h5")
    stack = FrameStackingEnvToModule(num_frames=2)
    algo.pipeline = EnvToModulePipeline([stack], algo.pipeline.input_observation_space, algo.to_env.action_space, 1)
    with pytest.raises(ValueError, match="FrameStackingEnvToModule.*cannot be exported"):
        export_policy(algo, tmp_path / "policy.pt")

    class Noise:
        pass

    algo, _, _ = case("filtered")
    algo.to_env.connectors.append(Noise())
    with pytest.raises(ValueError, match="Noise on actions cannot be exported"):
        export_policy(algo, tmp_path / "policy.pt")
    assert not list(tmp_path.iterdir())


def test_a_recurrent_model_of_the_older_contract_for_any_number_of_rows(tmp_path):
    import warnings

    import torch
    from gymnasium.spaces import Box, Discrete
    from torch import nn

    from mltoolkit.rllib.core.rl_module.build import build_module
    from mltoolkit.rllib.models.torch.recurrent_net import RecurrentNetwork

    class Recurrent(RecurrentNetwork, nn.Module):
        def __init__(self, *args, **kwargs):
            nn.Module.__init__(self)
            super().__init__(*args, **kwargs)
            self.cell = nn.GRU(3, self.num_outputs, batch_first=True)

        def get_initial_state(self):
            return [torch.ones(self.num_outputs)]

        def forward_rnn(self, inputs, state, seq_lens):
            out, h = self.cell(inputs, state[0].unsqueeze(0))
            return out, [h[0]]

        def value_function(self):
            return None

    config = SimpleNamespace(rl_module_spec=None, model_config={"custom_model": Recurrent})
    module = build_module(config, Box(-1, 1, (3,)), Discrete(4))
    path = export_policy(module, tmp_path / "policy.pt")
    obs, state = torch.randn(7, 3), torch.randn(7, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript
        actions, after = torch.jit.load(path)(obs, state)
    out = module.forward_inference({"obs": obs, "state_in": {"state_0": state}})
    torch.testing.assert_close(after, out["state_out"]["state_0"])
    assert torch.equal(actions, out["action_dist_inputs"].argmax(-1))
