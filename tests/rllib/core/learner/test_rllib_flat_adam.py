from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest


def networks():
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(0)
        one = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 1))
        two = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 1))
    two.load_state_dict(one.state_dict())
    return one, two


def loss(network, step):
    import torch

    generator = torch.Generator().manual_seed(step)
    x = torch.randn(16, 5, generator=generator)
    return (network(x).squeeze(1) - x.sum(1)).square().mean()


@pytest.mark.parametrize("options", [{}, {"betas": (0.5, 0.9), "eps": 1e-3}])
def test_equals_torchs_adam_over_a_hundred_steps(options):
    import torch

    from mltoolkit.rllib.core.learner.flat_adam import FlatAdam
    from mltoolkit.rllib.core.learner.flat_parameters import FlatParameters

    ours, theirs = networks()
    flat = FlatParameters(ours.named_parameters())
    adam, reference = FlatAdam(flat, lr=0.01, **options), torch.optim.Adam(theirs.parameters(), lr=0.01, **options)
    for step in range(100):
        if step == 50:
            adam.lr = reference.param_groups[0]["lr"] = 0.002
        flat.gradients.zero_()
        loss(ours, step).backward()
        adam.step()
        reference.zero_grad()
        loss(theirs, step).backward()
        reference.step()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(mine.detach(), other.detach(), rtol=0, atol=1e-6)
    assert (loss(ours, 100) < 0.5 * loss(networks()[0], 100)).item()


def test_state_continues_bit_for_bit_and_belongs_to_its_network():
    from mltoolkit.rllib.core.learner.flat_adam import FlatAdam
    from mltoolkit.rllib.core.learner.flat_parameters import FlatParameters

    first, second = networks()
    flats = [FlatParameters(each.named_parameters()) for each in (first, second)]
    adams = [FlatAdam(flat) for flat in flats]

    def run(index, steps):
        for step in steps:
            flats[index].gradients.zero_()
            loss((first, second)[index], step).backward()
            adams[index].step()

    run(0, range(5))
    second.load_state_dict(first.state_dict())
    adams[1].set_state(adams[0].get_state())
    run(0, range(5, 8))
    run(1, range(5, 8))
    assert (flats[0].values == flats[1].values).all()
    state = adams[0].get_state()
    state["exp_avg"]["0.bias"] = np.zeros(3)
    with pytest.raises(ValueError, match=r"0\.bias"):
        adams[1].set_state(state)
    with pytest.raises(ValueError, match="SGD"):
        adams[1].set_state({"type": "SGD"})


def test_parameters_are_views_of_one_buffer_and_gaps_stay_zero():
    import torch

    from mltoolkit.rllib.core.learner.flat_parameters import FlatParameters

    network, same = networks()
    network[0].bias.requires_grad_(False)
    flat = FlatParameters(network.named_parameters())
    assert "0.bias" not in flat.parameters
    assert flat.num_parameters == 35 + 7 + 1
    for mine, other in zip(network.parameters(), same.parameters(), strict=True):
        assert (mine == other).all()
    flat.values.zero_()
    assert not network[2].weight.any() and network[0].bias.any()
    loss(network, 0).backward()
    used = torch.cat([view.reshape(-1) for view in flat.views(flat.gradients).values()])
    assert used.count_nonzero() == flat.gradients.count_nonzero() > 0


def test_mixed_types_and_nothing_to_train_are_errors():
    import torch

    from mltoolkit.rllib.core.learner.flat_parameters import FlatParameters

    network, _ = networks()
    network[0].double()
    with pytest.raises(ValueError, match=r"torch.float32 on cpu, torch.float64 on cpu"):
        FlatParameters(network.named_parameters())
    with pytest.raises(ValueError, match="no parameter at all"):
        FlatParameters(torch.nn.Tanh().named_parameters())


def test_an_update_imports_no_compiler():
    program = """
import sys
from rllib_learning import fragment, ppo_config, ppo_module
from mltoolkit.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner

class Own(PPOTorchLearner):
    def compute_loss_for_module(self, **arguments):
        return super().compute_loss_for_module(**arguments)

for learner_class in (PPOTorchLearner, Own):
    module = ppo_module()
    learner = learner_class(config=ppo_config(), module=module)
    learner.build()
    learner.update([fragment(module)])
print([name for name in ("torch._dynamo", "torch._inductor", "sympy") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False, env=_environment()
    )
    assert done.stdout.strip() == "[]", done.stderr


def _environment():
    import os

    from helpers import ROOT

    return {**os.environ, "PYTHONPATH": f"{ROOT / 'tests'}{os.pathsep}{ROOT}"}
