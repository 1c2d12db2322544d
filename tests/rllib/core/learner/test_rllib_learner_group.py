from __future__ import annotations

import math
import os
import signal

import numpy as np
import pytest
from rllib_learning import fragment, losses, ppo_config, ppo_module


def group(config, module=None, **options):
    from mltoolkit.rllib.core.learner.learner_group import LearnerGroup

    return LearnerGroup(config=config, module=module or ppo_module(), **options)


def weights_close(one, two, tolerance):
    assert one.keys() == two.keys()
    for name, value in one.items():
        np.testing.assert_allclose(value, two[name], rtol=0, atol=tolerance, err_msg=name)


def test_a_local_group_is_its_learner():
    module = ppo_module()
    local = group(ppo_config(), module)
    assert len(local) == 1 and local.is_local and not local.is_remote
    before = local.get_weights()
    local.update([fragment(module)], timesteps={"num_env_steps_sampled_lifetime": 1})
    assert local.foreach_learner(lambda learner, x: (type(learner).__name__, x), 3) == [("PPOTorchLearner", 3)]
    state = local.get_state()
    local.set_weights(before)
    other = group(ppo_config())
    other.set_state(state)
    one = fragment(module)
    local.set_state(state)
    assert losses(local.update([one])) == losses(other.update([one]))
    local.stop()


@pytest.fixture
def learners(runtime):
    """Two learners, each with its own process."""
    config = ppo_config(num_epochs=2, minibatch_size=16).learners(num_learners=2, num_cpus_per_learner=0)
    made = group(config, collective_timeout_s=20.0)
    yield made
    made.stop()


def test_two_learners_are_one_with_larger_minibatches_until_one_dies(learners):
    from mltoolkit.rllib.core.learner.errors import LearnerDiedError

    module = ppo_module()
    # Minibatches of all steps, so that the order in which each draws them does not matter.
    one = fragment(module, 16, 8)
    one["loss_mask"][:], one["terminateds"][:], one["truncateds"][:] = True, False, False
    alone = group(ppo_config(num_epochs=1, minibatch_size=None), ppo_module())
    for _ in range(2):
        expected = alone.update([one], num_epochs=3, minibatch_size=128)
        result = learners.update([one], num_epochs=3, minibatch_size=64)
    weights_close(learners.get_weights(), alone.get_weights(), 1e-5)
    names = ("policy_loss", "vf_loss", "entropy", "mean_kl_loss", "curr_kl_coeff", "num_module_steps_trained")
    assert {name: result["default_policy"][name] for name in names} == pytest.approx(
        {name: expected["default_policy"][name] for name in names}, rel=1e-3
    )

    # Shares of different sizes, and minibatches that each draws for itself: still in step.
    learners.update([fragment(module, 9, 5), fragment(module, 30, 1, seed=1)])
    own = learners.foreach_learner(lambda learner: learner.get_weights())
    weights_close(own[0], own[1], 0.0)

    # A state of two goes on bit for bit, and one learner takes it up, too.
    state = learners.get_state()
    assert len(state["other_learners"]) == 1
    following = fragment(module, seed=2)
    first = learners.update([following])
    learners.set_state(state)
    second = learners.update([following])
    assert losses(first) == losses(second)
    alone.set_state(state)
    assert math.isfinite(alone.update([following])["default_policy"]["total_loss"])

    # What goes wrong in all of them leaves them usable.
    with pytest.raises(ValueError, match="`rewards` of the sampled steps"):
        learners.update([{**following, "rewards": following["rewards"] * math.nan}])
    assert math.isfinite(learners.update([following])["default_policy"]["total_loss"])
    with pytest.raises(ValueError, match="Learner 1 of 2 has no step to learn from"):
        learners.update([fragment(module, 1, 1)])

    pid = learners.foreach_learner(lambda learner: os.getpid())[1]
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(LearnerDiedError, match="Learner 1 of 2 died during `update`"):
        learners.update([following])
    with pytest.raises(LearnerDiedError, match="have failed before"):
        learners.get_weights()


def test_a_remote_learner_gives_what_a_local_one_does(runtime):
    module = ppo_module()
    remote = group(ppo_config().learners(num_learners=1, num_cpus_per_learner=0))
    try:
        assert remote.is_remote and len(remote) == 1
        local = group(ppo_config())
        for seed in range(2):
            results = [each.update([fragment(module, seed=seed)]) for each in (remote, local)]
        assert losses(results[0]) == losses(results[1])
        weights_close(remote.get_weights(), local.get_weights(), 0.0)
        with pytest.raises(ValueError, match="lacks 'rewards'"):
            remote.update([{key: value for key, value in fragment(module).items() if key != "rewards"}])
        assert remote.get_weights()
    finally:
        remote.stop()
    assert len(remote._actors) == 0


def test_learners_that_there_is_no_room_for_are_an_error(runtime):
    config = ppo_config().learners(num_learners=1000)
    with pytest.raises(ValueError, match="1000 learners with `num_cpus_per_learner=1` need 1000 CPUs"):
        group(config)
    with pytest.raises(ValueError, match="`num_gpus_per_learner=1` need 1 GPUs"):
        group(ppo_config().learners(num_learners=1, num_gpus_per_learner=1))
