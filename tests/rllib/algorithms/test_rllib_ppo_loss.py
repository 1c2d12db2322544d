from __future__ import annotations

import math

import numpy as np
import pytest
from rllib_learning import fragment, losses, ppo_config, ppo_module


def learner(module, config, base=None):
    from mltoolkit.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner

    built = (base or PPOTorchLearner)(config=config, module=module)
    built.build()
    return built


def autograd_learner():
    from mltoolkit.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner

    class Autograd(PPOTorchLearner):
        def compute_loss_for_module(self, **arguments):
            return super().compute_loss_for_module(**arguments)

    return Autograd


def spaces(name):
    import gymnasium as gym

    return {
        "discrete": gym.spaces.Discrete(2),
        "discrete from 3": gym.spaces.Discrete(5, start=3),
        "multi-discrete": gym.spaces.MultiDiscrete([2, 4, 3]),
        "box": gym.spaces.Box(-1.0, 1.0, (3,), np.float32),
        "box of a shape": gym.spaces.Box(-1.0, 1.0, (2, 2), np.float32),
    }[name]


def minibatch(module, **columns):
    import torch

    one = fragment(module, 8, 4)
    batch = {name: torch.from_numpy(value[:8].reshape(32, *value.shape[2:])) for name, value in one.items()}
    del batch["loss_mask"]
    generator = torch.Generator().manual_seed(1)
    batch["advantages"] = torch.randn(32, generator=generator)
    batch["value_targets"] = 4 * torch.randn(32, generator=generator)
    return {**batch, **columns}


def reference(module, batch, mask, *, clip, entropy_coeff, kl_coeff, vf_loss_coeff, vf_clip_param):
    """The loss of the paper, step by step, from torch's own distributions."""
    from torch.distributions import Categorical, Independent, Normal, kl_divergence

    def distribution(inputs):
        if module.action_space.__class__.__name__ == "Discrete":
            return Categorical(logits=inputs)
        mean, log_std = inputs.double().chunk(2)
        return Independent(Normal(mean, log_std.exp()), 1)

    out = module.forward_train(batch)
    values = module.values(batch)
    terms = []
    for i in range(len(batch["action_logp"])):
        if not mask[i]:
            continue
        new, old = distribution(out["action_dist_inputs"][i]), distribution(batch["action_dist_inputs"][i])
        ratio = math.exp(new.log_prob(batch["actions"][i]).item() - batch["action_logp"][i].item())
        advantage = batch["advantages"][i].item()
        terms.append(
            {
                "policy_loss": -min(ratio * advantage, min(max(ratio, 1 - clip), 1 + clip) * advantage),
                "entropy": new.entropy().item(),
                "mean_kl_loss": kl_divergence(old, new).item(),
                "vf_loss": min((values[i] - batch["value_targets"][i]).item() ** 2, vf_clip_param),
                "vf_loss_unclipped": (values[i] - batch["value_targets"][i]).item() ** 2,
            }
        )
    parts = {name: sum(term[name] for term in terms) / len(terms) for name in terms[0]}
    parts["total_loss"] = (
        parts["policy_loss"]
        - entropy_coeff * parts["entropy"]
        + kl_coeff * parts["mean_kl_loss"]
        + vf_loss_coeff * parts["vf_loss"]
    )
    return parts


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("space", ["discrete", "box"])
def test_the_loss_is_the_papers(space, masked):
    import torch

    module = ppo_module(spaces(space))
    settings = {"clip_param": 0.1, "entropy_coeff": 0.05, "vf_loss_coeff": 0.5, "vf_clip_param": 9.0}
    built = learner(module, ppo_config(kl_coeff=0.3, **settings))
    mask = np.ones(32, bool)
    batch = minibatch(module)
    if masked:
        mask[::3] = False
        batch["loss_mask"] = torch.from_numpy(mask)
        batch["value_targets"][0] = 1e6  # what is masked does not count, whatever it is
    expected = reference(
        module, batch, mask, clip=0.1, entropy_coeff=0.05, kl_coeff=0.3, vf_loss_coeff=0.5, vf_clip_param=9.0
    )
    total = built.compute_loss_for_module(
        module_id="default_policy", config=built.config, batch=batch, fwd_out=module.forward_train(batch)
    )
    logged = built.metrics.reduce()["default_policy"]
    assert total.item() == pytest.approx(expected.pop("total_loss"), rel=1e-4)
    assert {name: logged[name] for name in expected} == pytest.approx(expected, rel=1e-4)
    total.backward()
    assert all(torch.isfinite(each.grad).all() for each in module.parameters())


MODELS = {
    "plain": {},
    "shared": {"vf_share_layers": True, "fcnet_activation": "relu"},
    "free deviations": {"free_log_std": True, "log_std_clip_param": 0.05, "fcnet_activation": "elu"},
    "clipped deviations": {"log_std_clip_param": 1e-3, "fcnet_activation": "leaky_relu"},
    "heads alone": {"fcnet_hiddens": [], "head_fcnet_hiddens": [8], "head_fcnet_activation": "sigmoid"},
}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("space", ["discrete", "discrete from 3", "multi-discrete", "box", "box of a shape"])
def test_the_closed_form_equals_torchs_gradients(space, model):
    results, weights = [], []
    for base in (None, autograd_learner()):
        module = ppo_module(spaces(space), **MODELS[model])
        built = learner(module, ppo_config(), base)
        for seed in range(2):
            result = built.update([fragment(module, seed=seed)])
        assert (built._mlp is None) == (base is not None)
        results.append(losses(result))
        weights.append(built.get_weights())
    assert results[0] == pytest.approx(results[1], rel=1e-4, abs=1e-5)
    for name, value in weights[0].items():
        np.testing.assert_allclose(value, weights[1][name], rtol=0, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    "training",
    [
        {"use_critic": False, "use_gae": False},
        {"use_kl_loss": False},
        {"grad_clip": 0.01, "grad_clip_by": "norm"},
        {"grad_clip": 1e-3, "grad_clip_by": "value"},
        {"grad_clip": None},
        {"clip_param": 0.01, "vf_clip_param": 0.5, "vf_loss_coeff": 0.1},
    ],
)
def test_the_closed_form_honours_all_settings(training):
    weights = []
    for base in (None, autograd_learner()):
        module = ppo_module()
        built = learner(module, ppo_config(**training), base)
        before = built.get_weights()
        built.update([fragment(module)])
        weights.append(built.get_weights())
        changed = {name for name, value in before.items() if (value != weights[-1][name]).any()}
        values = {name for name in before if name.startswith("vf")}
        expected = before.keys() if training.get("use_critic", True) else before.keys() - values
        assert changed == expected
    for name, value in weights[0].items():
        np.testing.assert_allclose(value, weights[1][name], rtol=0, atol=1e-5, err_msg=name)


def test_choices_that_are_forbidden_leave_the_gradient_finite():
    from mltoolkit.rllib.algorithms.ppo.ppo_gradient import Coefficients, make_policy_gradient
    from mltoolkit.rllib.core.distribution._layout import action_layout

    form = make_policy_gradient(action_layout(spaces("discrete from 3")))
    logits = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    logits[1] = -np.inf
    columns = {
        "action_dist_inputs": np.ascontiguousarray(logits.T) * np.float32(1.1),
        "actions": np.array([3, 5, 6, 7, 3, 5]),
        "action_logp": np.full(6, -1.0, np.float32),
        "advantages": np.ones(6, np.float32),
    }
    columns |= form.prepare(columns)
    gradient = form.gradient(logits, columns, Coefficients(0.2, 0.1, 0.1, True, 1.0, 1.0))
    assert np.isfinite(gradient).all() and (gradient[1] == 0).all()
    assert np.isfinite(form.entropy()).all() and np.isfinite(form.kl(columns)).all()


def test_squashed_policies_and_networks_of_other_layers_are_left_to_torch():
    import torch

    from mltoolkit.rllib.algorithms.ppo.mlp_update import MLPUpdate

    assert MLPUpdate.fits(ppo_module())
    assert not MLPUpdate.fits(ppo_module(spaces("box"), squash_output=True))
    assert not MLPUpdate.fits(ppo_module(fcnet_activation="gelu"))
    assert not MLPUpdate.fits(ppo_module(fcnet_use_layernorm=True))
    frozen, hooked = ppo_module(), ppo_module()
    frozen.pi[0].weight.requires_grad_(False)
    hooked.pi[0].register_forward_hook(lambda *_: None)
    assert not MLPUpdate.fits(frozen) and not MLPUpdate.fits(hooked)
    own = ppo_module()
    own.action_dist_cls = type("Own", (torch.nn.Module,), {})
    assert not MLPUpdate.fits(own)


@pytest.mark.parametrize(("kl", "factor"), [(0.021, 1.5), (0.02, 1.0), (0.005, 1.0), (0.004, 0.5)])
def test_the_kl_coefficient_follows_the_divergence(kl, factor):
    built = learner(ppo_module(), ppo_config(kl_coeff=0.2, kl_target=0.01))
    built.register_metric("default_policy", "mean_kl_loss", kl)
    built.after_gradient_based_update(timesteps={})
    assert built.curr_kl_coeffs_per_module["default_policy"] == pytest.approx(0.2 * factor)
    assert built.metrics.peek(("default_policy", "curr_kl_coeff")) == pytest.approx(0.2 * factor)


def test_schedules_follow_the_steps_sampled():
    module = ppo_module()
    course = {"lr": [[0, 0.1], [100, 0.0]], "entropy_coeff": [[0, 0.4], [100, 0.2]]}
    built = learner(module, ppo_config(clip_param=[[0, 0.3], [100, 0.1]], **course))
    assert built.get_optimizer().lr == 0.1
    result = built.update([fragment(module)], timesteps={"num_env_steps_sampled_lifetime": 50})["default_policy"]
    assert result["default_optimizer_learning_rate"] == pytest.approx(0.05) == built.get_optimizer().lr
    assert result["curr_entropy_coeff"] == pytest.approx(0.3)
    assert built.clip_param_schedulers_per_module["default_policy"].get_current_value() == pytest.approx(0.2)


def test_without_a_critic_the_advantage_is_the_discounted_return():
    module = ppo_module()
    built = learner(module, ppo_config(use_critic=False, use_gae=False, gamma=0.5))
    one = fragment(module, 3, 1)
    one["terminateds"][:], one["truncateds"][:], one["loss_mask"][:] = False, False, True
    one["rewards"][:, 0] = [1.0, 2.0, 4.0]
    target = built._add_targets([one])[0]
    assert target["advantages"][:, 0].tolist() == [3.0, 4.0, 4.0]


def test_advantages_are_standardised_over_the_steps_that_count():
    module = ppo_module()
    built = learner(module, ppo_config())
    batch = built._make_batch([fragment(module), fragment(module, seed=1)])
    used = batch.columns["advantages"][batch.rows]
    assert len(used) < len(batch.columns["advantages"])
    assert used.mean() == pytest.approx(0.0, abs=1e-6) and used.std() == pytest.approx(1.0, abs=1e-5)


def test_values_of_several_fragments_belong_to_their_observations():
    import torch

    module = ppo_module()
    built = learner(module, ppo_config())
    fragments = [fragment(module, 5, 3), fragment(module, 2, 7, seed=1)]
    for one, values in zip(fragments, built._compute_values(fragments), strict=True):
        assert values.shape == one["obs"].shape[:2]
        with torch.no_grad():
            np.testing.assert_allclose(
                values, module.values({"obs": torch.from_numpy(one["obs"])}).numpy(), rtol=1e-5, atol=1e-6
            )


@pytest.mark.parametrize(
    ("column", "words"), [("rewards", "`rewards` of the sampled steps"), ("obs", "`obs` of the sampled steps")]
)
def test_samples_that_are_not_finite_are_named(column, words):
    module = ppo_module()
    built = learner(module, ppo_config())
    one = fragment(module)
    one[column][0, 0] = math.nan
    with pytest.raises(ValueError, match=words):
        built.update([one])


def test_advantages_stay_as_they_are_where_they_are_not_to_be_normalised():
    module = ppo_module()
    raw = learner(module, ppo_config(normalize_advantages=False))
    one = fragment(module)
    given = raw._add_targets([dict(one)])[0]["advantages"]
    batch = raw._make_batch([one])
    assert (batch.columns["advantages"][batch.rows] == given[one["loss_mask"]]).all()
