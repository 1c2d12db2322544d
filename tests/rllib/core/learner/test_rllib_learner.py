from __future__ import annotations

import json
import math

import numpy as np
import pytest
from rllib_learning import fragment, losses, ppo_config, ppo_module


def learner(module=None, config=None, base=None):
    from mltoolkit.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner

    built = (base or PPOTorchLearner)(config=config or ppo_config(), module=module or ppo_module())
    built.build()
    return built


def weights_equal(one, two):
    mine, other = one.get_weights(), two.get_weights()
    return mine.keys() == other.keys() and all((mine[name] == other[name]).all() for name in mine)


def test_a_result_has_rllibs_keys():
    built = learner()
    result = built.update([fragment(built.module["default_policy"])])
    steps = int(fragment(built.module["default_policy"])["loss_mask"].sum())
    trained = math.ceil(2 * steps / 32) * 32
    assert result["default_policy"].keys() >= {
        "policy_loss",
        "vf_loss",
        "vf_loss_unclipped",
        "vf_explained_var",
        "entropy",
        "mean_kl_loss",
        "curr_kl_coeff",
        "curr_entropy_coeff",
        "default_optimizer_learning_rate",
        "total_loss",
        "gradients_default_optimizer_global_norm",
        "num_module_steps_trained",
        "num_trainable_parameters",
        "weights_seq_no",
    }
    assert result["default_policy"]["num_module_steps_trained"] == trained
    assert result["__all_modules__"]["num_env_steps_trained_lifetime"] == trained
    numbers = [value for each in result.values() for value in each.values()]
    assert all(isinstance(value, (int, float)) and math.isfinite(value) for value in numbers)
    # The means are of this update alone, however long the last one was.
    again = built.update([fragment(built.module["default_policy"], 2, 2)], num_epochs=1, minibatch_size=4)
    assert again["default_policy"]["num_module_steps_trained_lifetime"] == trained + 4
    assert again["default_policy"]["module_train_batch_size_mean"] == 4.0


def test_losses_are_means_over_the_last_epoch():
    from mltoolkit.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner

    class Counting(PPOTorchLearner):
        def compute_loss_for_module(self, *, module_id, config, batch, fwd_out):
            self.count = getattr(self, "count", 0) + 1
            self.register_metric(module_id, "count", self.count)
            self.metrics.log_value((module_id, "newest"), self.count, window=1)
            return super().compute_loss_for_module(module_id=module_id, config=config, batch=batch, fwd_out=fwd_out)

    built = learner(base=Counting, config=ppo_config(minibatch_size=16))
    one = fragment(built.module["default_policy"], 8, 4)
    one["loss_mask"][:] = True
    result = built.update([one], num_epochs=3)["default_policy"]
    assert result["count"] == 5.5 and result["newest"] == 6


def test_updates_are_the_same_for_the_same_seed_whatever_the_user_seeds():
    import torch

    def run(global_seed):
        torch.manual_seed(global_seed)
        np.random.seed(global_seed)
        built = learner()
        for seed in range(2):
            built.update([fragment(built.module["default_policy"], seed=seed)])
        return built

    one, two = run(0), run(1)
    assert weights_equal(one, two)
    other = learner(config=ppo_config().debugging(seed=4))
    for seed in range(2):
        other.update([fragment(other.module["default_policy"], seed=seed)])
    assert not weights_equal(one, other)


def test_an_update_leaves_torch_as_it_was():
    import torch

    built = learner()
    one = fragment(built.module["default_policy"])
    threads = torch.get_num_threads()
    state = torch.get_rng_state()
    try:
        torch.set_num_threads(2)
        with torch.no_grad():
            built.update([one])
            assert not torch.is_grad_enabled()
        assert torch.get_num_threads() == 2
        one["rewards"][:] = math.nan
        with pytest.raises(ValueError, match="rewards"):
            built.update([one])
        assert torch.get_num_threads() == 2
        assert (torch.get_rng_state() == state).all()
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("own_loss", [False, True])
def test_a_state_is_data_and_continues_bit_for_bit(own_loss):
    from mltoolkit.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner

    class Noisy(PPOTorchLearner):
        """Draws from torch's generator, as a module with dropout does."""

        def compute_loss_for_module(self, **arguments):
            import torch

            return super().compute_loss_for_module(**arguments) * (1 + 0.1 * torch.rand(()))

    config = ppo_config(lr=[[0, 1e-2], [1000, 1e-3]], entropy_coeff=[[0, 0.1], [500, 0.0]])
    base = Noisy if own_loss else PPOTorchLearner
    one = learner(config=config, base=base)
    module = one.module["default_policy"]
    fragments = [fragment(module, seed=seed) for seed in range(4)]
    for step in range(2):
        one.update([fragments[step]], timesteps={"num_env_steps_sampled_lifetime": 100 * (step + 1)})
    state = one.get_state()
    assert_plain(state)
    two = learner(config=config, base=base)
    two.set_state(state)
    for step in range(2, 4):
        timesteps = {"num_env_steps_sampled_lifetime": 100 * (step + 1)}
        results = [each.update([fragments[step]], timesteps=timesteps) for each in (one, two)]
        assert losses(results[0]) == losses(results[1])
    assert weights_equal(one, two)


def assert_plain(value):
    if isinstance(value, dict):
        assert all(isinstance(key, str) for key in value)
        for each in value.values():
            assert_plain(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            assert_plain(each)
    elif isinstance(value, np.ndarray):
        assert value.dtype != object
    else:
        json.dumps(value)


def test_weights_of_another_network_change_nothing():
    one, other = learner(), learner(ppo_module(fcnet_hiddens=[9, 8]))
    before = one.get_weights()
    with pytest.raises(ValueError, match=r"encoder\.net\.0\.bias"):
        one.set_weights(other.get_weights())
    assert all((before[name] == value).all() for name, value in one.get_weights().items())
    changed = {name: value + 1 for name, value in before.items()}
    one.set_weights(changed)
    assert all((changed[name] == value).all() for name, value in one.get_weights().items())
    one.set_state({"rl_module": before})
    assert all((before[name] == value).all() for name, value in one.get_weights().items())


def test_a_custom_loss_is_added_to_ppos_and_logged():
    from mltoolkit.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner

    class Regularised(PPOTorchLearner):
        def compute_loss_for_module(self, *, module_id, config, batch, fwd_out):
            loss = super().compute_loss_for_module(module_id=module_id, config=config, batch=batch, fwd_out=fwd_out)
            weights = [each for each in self.module[module_id].unwrapped().parameters() if each.ndim > 1]
            penalty = self.config.learner_config_dict["factor"] * sum(each.square().sum() for each in weights)
            self.metrics.log_value((module_id, "penalty"), penalty, window=1)
            return loss + penalty

    config = ppo_config(learner_class=Regularised, learner_config_dict={"factor": 0.1})
    built, plain = learner(config=config, base=config.learner_class), learner()
    for _ in range(3):
        result = built.update([fragment(built.module["default_policy"])])["default_policy"]
        plain.update([fragment(plain.module["default_policy"])])
    assert result["penalty"] > 0
    norms = [sum(float(np.square(value).sum()) for value in each.get_weights().values()) for each in (built, plain)]
    assert norms[0] < norms[1]


def test_own_gradients_are_what_the_optimizer_sees():
    from mltoolkit.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner

    class PolicyOnly(PPOTorchLearner):
        def postprocess_gradients(self, gradients_dict):
            gradients = super().postprocess_gradients(gradients_dict)
            names = {parameter: name for name, parameter in self.module["default_policy"].named_parameters()}
            return {each: 2 * value for each, value in gradients.items() if not names[each].startswith("vf")}

    built = learner(base=PolicyOnly)
    before = built.get_weights()
    built.update([fragment(built.module["default_policy"])])
    for name, value in built.get_weights().items():
        assert (value == before[name]).all() == name.startswith("vf")


def test_hooks_are_called_around_an_update():
    from mltoolkit.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner

    calls = []

    class Hooked(PPOTorchLearner):
        def before_gradient_based_update(self, *, timesteps):
            calls.append(("before", timesteps["num_env_steps_sampled_lifetime"]))
            super().before_gradient_based_update(timesteps=timesteps)

        def after_gradient_based_update(self, *, timesteps):
            super().after_gradient_based_update(timesteps=timesteps)
            calls.append(("after", self.metrics.peek(("default_policy", "curr_kl_coeff"))))

    built = learner(base=Hooked)
    built.update([fragment(built.module["default_policy"])], timesteps={"num_env_steps_sampled_lifetime": 7})
    assert calls[0] == ("before", 7)
    assert calls[1] == ("after", built.curr_kl_coeffs_per_module["default_policy"])


def test_a_models_custom_loss_gets_the_policy_loss_and_the_batch():
    import torch

    plain = ppo_module()

    class WithLoss(type(plain)):
        def custom_loss(self, policy_loss, loss_inputs):
            assert isinstance(policy_loss, list) and "actions" in loss_inputs
            self.own = loss_inputs["obs"].square().mean()
            return [each + 3.0 for each in policy_loss]

        def metrics(self):
            return {"own": self.own.item()}

    module = WithLoss(plain.observation_space, plain.action_space, model_config=plain.model_config)
    module.load_state_dict(plain.state_dict())
    one, two = learner(module), learner(plain)
    results = [each.update([fragment(plain)])["default_policy"] for each in (one, two)]
    assert results[0]["total_loss"] == pytest.approx(results[1]["total_loss"] + 3.0, rel=1e-4)
    assert results[0]["model"]["own"] > 0
    assert torch.is_tensor(module.own)


def test_optimizers_of_torch():
    from functools import partial

    import torch

    for setting, kind in ((torch.optim.RMSprop, "RMSprop"), (partial(torch.optim.SGD, momentum=0.9), "SGD")):
        config = ppo_config(optimizer=setting, lr=[[0, 0.1], [100, 0.05]])
        one = learner(config=config)
        module = one.module["default_policy"]
        before = one.get_weights()
        one.update([fragment(module)], timesteps={"num_env_steps_sampled_lifetime": 100})
        assert type(one.get_optimizer()).__name__ == kind
        assert one.get_optimizer().param_groups[0]["lr"] == 0.05
        assert any((before[name] != value).any() for name, value in one.get_weights().items())
        state = one.get_state()
        assert_plain(state)
        two = learner(config=config)
        two.set_state(state)
        following = fragment(module, seed=1)
        for each in (one, two):
            each.update([following])
        assert weights_equal(one, two)
        with pytest.raises(ValueError, match=kind):
            learner().set_state(state)


def test_several_optimizers_of_a_custom_learner():
    import torch

    from mltoolkit.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner

    class Two(PPOTorchLearner):
        def configure_optimizers_for_module(self, module_id, config=None):
            named = dict(self.module[module_id].named_parameters())
            for name, rate in (("vf", 0.0), ("pi", config.lr)):
                params = [value for key, value in named.items() if key.startswith("vf") == (name == "vf")]
                self.register_optimizer(
                    module_id=module_id,
                    optimizer_name=f"{name}_optimizer",
                    optimizer=torch.optim.SGD(params, lr=1.0),
                    params=params,
                    lr_or_lr_schedule=rate,
                )

    built = learner(base=Two)
    before = built.get_weights()
    result = built.update([fragment(built.module["default_policy"])])["default_policy"]
    assert result["vf_optimizer_learning_rate"] == 0.0
    assert result["gradients_pi_optimizer_global_norm"] > 0
    for name, value in built.get_weights().items():
        assert (value == before[name]).all() == name.startswith("vf")
    with pytest.raises(KeyError, match="default_policy/vf_optimizer"):
        built.get_optimizer()


@pytest.mark.parametrize("own_loss", [False, True])
def test_a_loss_that_is_not_finite_is_named_and_undone(own_loss):
    from mltoolkit.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
    from mltoolkit.rllib.core.learner.errors import NonFiniteLossError

    class Own(PPOTorchLearner):
        def compute_loss_for_module(self, **arguments):
            return super().compute_loss_for_module(**arguments)

    built = learner(base=Own if own_loss else None)
    one = fragment(built.module["default_policy"])
    built.update([one])
    state = built.get_state()
    broken = {**one, "action_logp": np.full_like(one["action_logp"], -math.inf)}
    with pytest.raises(NonFiniteLossError, match=r"`policy_loss` of 'default_policy' .* update 2") as caught:
        built.update([broken])
    assert (caught.value.part, caught.value.iteration) == ("policy_loss", 2)
    after = built.get_state()
    for key in ("rl_module", "optimizer"):
        assert str(after[key]) == str(state[key])
    result = built.update([one])["default_policy"]
    assert math.isfinite(result["total_loss"])


@pytest.mark.parametrize("own_loss", [False, True])
def test_minibatches_that_are_not_finite_can_be_skipped(own_loss, caplog):
    from mltoolkit.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner

    class Own(PPOTorchLearner):
        def compute_loss_for_module(self, **arguments):
            return super().compute_loss_for_module(**arguments)

    config = ppo_config(num_epochs=1, torch_skip_nan_gradients=True)
    built = learner(config=config, base=Own if own_loss else None)
    one = fragment(built.module["default_policy"])
    one["action_logp"][0, 0] = -math.inf
    before = built.get_weights()
    result = built.update([one])["default_policy"]
    assert result["num_skipped_minibatches"] == 1
    assert "torch_skip_nan_gradients" in caplog.text
    weights = built.get_weights()
    assert all(np.isfinite(value).all() for value in weights.values())
    assert any((before[name] != value).any() for name, value in weights.items())


def test_connectors_change_fragments_before_advantages():
    seen = []

    class Scale:
        def __call__(self, *, rl_module, batch, episodes, metrics, **kwargs):
            fragment = batch["default_policy"]
            seen.append(rl_module["default_policy"])
            fragment["rewards"] = fragment["rewards"] * 0
            return batch

    config = ppo_config(gamma=1.0).learners(learner_connector=lambda observations, actions: Scale())
    built = learner(config=config)
    module = built.module["default_policy"]
    batch = built._make_batch([fragment(module)])
    assert seen == [module]
    assert (batch.columns["rewards"] == 0).all()
    own = ppo_config().learners(
        learner_connector=lambda observations, actions: (
            lambda *, batch, **kwargs: {
                "default_policy": {
                    **batch["default_policy"],
                    "advantages": batch["default_policy"]["rewards"],
                    "value_targets": batch["default_policy"]["rewards"],
                }
            }
        ),
        add_default_connectors_to_learner_pipeline=False,
    )
    built = learner(config=own)
    one = fragment(module)
    batch = built._make_batch([one])
    assert (batch.columns["advantages"] == one["rewards"].ravel()).all()
    assert math.isfinite(built.update([one])["default_policy"]["total_loss"])


@pytest.mark.parametrize("model", [{}, {"use_lstm": True, "max_seq_len": 5}])
def test_what_came_through_shared_memory_can_be_learned_from(model):
    built = learner(ppo_module(**model))
    module = built.module["default_policy"]
    fragments = fragment(module), built.get_state(), {"state_in": fragment(module).get("state_in", {})}
    for each in fragments:
        lock(each)
    before = fragments[0]["obs"].copy()
    built.set_state(fragments[1])
    built.update([{**fragments[0], **(fragments[2] if model else {})}])
    assert (fragments[0]["obs"] == before).all()


def lock(tree):
    """Make all arrays read-only."""
    for value in tree.values():
        if isinstance(value, dict):
            lock(value)
        elif isinstance(value, np.ndarray):
            value.flags.writeable = False


def recurrent(**model):
    return ppo_module(use_lstm=True, lstm_cell_size=6, max_seq_len=5, **model)


@pytest.mark.parametrize("shared", [False, True])
def test_a_recurrent_module_learns_from_sequences_as_it_acted(shared):
    import torch

    module = recurrent(vf_share_layers=shared)
    built = learner(module, ppo_config(num_epochs=1, minibatch_size=None))
    one = fragment(module, 12, 6)
    assert one["is_first"][1:].any()
    batch = built._make_batch([one])
    assert (batch.seq_len, batch.num_steps) == (5, int(one["loss_mask"].sum()))
    # What the module computes from the sequences is what it computed step by step.
    rows = next(built._minibatches(batch, iter([batch.rows[None]])))
    with torch.no_grad():
        out = module.forward_train(rows)["action_dist_inputs"]
    mask = rows["loss_mask"]
    noise = (out - rows["action_dist_inputs"])[mask]
    assert noise.std() == pytest.approx(0.1, rel=0.3)  # only what the fragment was sampled off by
    # And V of whole fragments is V of the sequences that are learned from.
    with torch.no_grad():
        values = module.values(rows)
    np.testing.assert_allclose(values[mask], rows["vf_preds"][mask], rtol=1e-5, atol=1e-6)


def test_a_recurrent_module_is_updated_in_minibatches_of_sequences():
    module = recurrent()
    built = learner(module, ppo_config(num_epochs=2, minibatch_size=20))
    before = built.get_weights()
    result = built.update([fragment(module, 12, 6), fragment(module, 7, 2, seed=1)])["default_policy"]
    assert result["module_train_batch_size_mean"] == 20.0
    assert all((before[name] != value).any() for name, value in built.get_weights().items())
    with pytest.raises(ValueError, match="'state_in'"):
        built.update([{key: value for key, value in fragment(module).items() if key != "state_in"}])


def test_misuse_is_told():
    from mltoolkit.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner

    with pytest.raises(ValueError, match="exactly one"):
        PPOTorchLearner(config=ppo_config())
    unbuilt = PPOTorchLearner(config=ppo_config(), module=ppo_module())
    with pytest.raises(RuntimeError, match=r"PPOTorchLearner\.build\(\)"):
        unbuilt.update([])
    with pytest.raises(ValueError, match="`minibatch_size` must be at least 1"):
        learner().update([], minibatch_size=0)
    with pytest.raises(TypeError, match=r"torch\.nn\.Module, got int"):
        PPOTorchLearner(config=ppo_config(), module=3).build()


def test_a_gpu_that_is_not_there_is_an_error():
    import torch

    from mltoolkit.rllib.core.learner.torch.torch_learner import learner_device

    if torch.cuda.is_available():
        assert learner_device(ppo_config().learners(num_gpus_per_learner=1)).type == "cuda"
        return
    with pytest.raises(RuntimeError, match="`num_gpus_per_learner` is 1, but torch finds no GPU"):
        learner_device(ppo_config().learners(num_gpus_per_learner=1))
    with pytest.raises(RuntimeError, match="`num_gpus_per_learner` is 1, but"):
        learner_device(ppo_config().learners(num_learners=1, num_gpus_per_learner=1))


def test_errors_of_learners_travel():
    import pickle

    from mltoolkit.rllib.core.learner.errors import NonFiniteLossError

    error = pickle.loads(pickle.dumps(NonFiniteLossError("default_policy", "vf_loss", 4, "so it goes")))
    assert (error.module_id, error.part, error.iteration, error.detail) == (
        "default_policy",
        "vf_loss",
        4,
        "so it goes",
    )
    assert str(error) == "`vf_loss` of 'default_policy' is not finite in the learner's update 4: so it goes"


def test_the_batch_may_be_given_for_each_learner_alone_and_be_its_only_minibatch():
    config = ppo_config(train_batch_size=None, train_batch_size_per_learner=32, minibatch_size=None)
    built = learner(config=config)
    result = built.update([fragment(built.module["default_policy"])])["default_policy"]
    steps = int(fragment(built.module["default_policy"])["loss_mask"].sum())
    assert result["module_train_batch_size_mean"] == steps


def test_settings_that_are_given_anew_hold_from_the_first_update_after_a_state_was_taken_up():
    course = [[0, 0.2], [100, 0.0]]
    one = learner(config=ppo_config(lr=0.1, entropy_coeff=course))
    one.update([fragment(one.module["default_policy"])], timesteps={"num_env_steps_sampled_lifetime": 50})
    same = learner(config=ppo_config(lr=0.1, entropy_coeff=course))
    other = learner(config=ppo_config(lr=0.3, entropy_coeff=0.7))
    for built, lr, entropy in ((same, 0.1, 0.1), (other, 0.3, 0.7)):
        built.set_state(one.get_state())
        assert built.get_optimizer().lr == lr
        scheduler = built.entropy_coeff_schedulers_per_module["default_policy"]
        assert scheduler.get_current_value() == pytest.approx(entropy)
