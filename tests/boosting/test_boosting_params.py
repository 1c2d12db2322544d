"""Parameters: what is refused, and with which words."""

from __future__ import annotations

import numpy as np
import pytest

from mltoolkit._boosting.params import RayParams, check_ray_params
from mltoolkit._boosting.resources import share_out


def test_dicts_and_instances_are_the_same():
    assert check_ray_params({"num_actors": 2, "cpus_per_actor": 1}, RayParams) == RayParams(2, 1)
    number = check_ray_params(RayParams(num_actors=np.int64(2)), RayParams).num_actors
    assert (number, type(number)) == (2, int)
    given = RayParams(num_actors=2)
    assert check_ray_params(given, RayParams) is given


@pytest.mark.parametrize("given", [None, RayParams(), RayParams(num_actors=-1), RayParams(num_actors=1.5)])
def test_the_number_of_actors_must_be_given(given):
    with pytest.raises(ValueError, match=r"`num_actors` must be an integer >= 1"):
        check_ray_params(given, RayParams)


def test_misspelt_keys_name_the_nearest():
    with pytest.raises(TypeError, match="Did you mean 'num_actors'"):
        check_ray_params({"num_actor": 2}, RayParams)


def test_other_types_are_refused():
    with pytest.raises(ValueError, match="must be a RayParams, a dict or None, got int"):
        check_ray_params(2, RayParams)


@pytest.mark.parametrize(
    ("extra", "word"),
    [
        ({"cpus_per_actor": -1}, "cpus_per_actor"),
        ({"checkpoint_frequency": -1}, "checkpoint_frequency"),
        ({"max_actor_restarts": -2}, "max_actor_restarts"),
        ({"elastic_training": True}, "max_failed_actors"),
        ({"resources_per_actor": 3}, "resources_per_actor"),
        ({"placement_options": "PACK"}, "placement_options"),
        ({"distributed_callbacks": [3]}, "distributed_callbacks"),
        ({"elastic_training": True, "max_failed_actors": 1}, "max_actor_restarts"),
    ],
)
def test_values_that_make_no_sense_are_named(extra, word):
    with pytest.raises(ValueError, match=word):
        check_ray_params(RayParams(num_actors=2, **extra), RayParams)


def test_resources_for_tune_have_a_bundle_for_each_actor():
    factory = RayParams(
        num_actors=2,
        cpus_per_actor=2,
        gpus_per_actor=1,
        resources_per_actor={"disk": 1},
        placement_options={"strategy": "SPREAD"},
    ).get_tune_resources()
    assert factory.bundles == [{}, *[{"CPU": 2.0, "GPU": 1.0, "disk": 1.0}] * 2]
    assert factory.strategy == "SPREAD"
    with pytest.raises(ValueError, match="cpus_per_actor"):
        RayParams(num_actors=2).get_tune_resources()


@pytest.mark.parametrize(
    ("actors", "wanted", "nodes", "each"),
    [(2, 1, [2.0], 1), (3, 1, [2.0], 0.66), (3, 2, [3.0, 3.0], 1.5), (1, 8, [2.0], 2.0), (4, 1, [1.0, 1.0], 0.5)],
)
def test_actors_share_what_there_is(actors, wanted, nodes, each):
    assert share_out(actors, wanted, nodes) == each
    assert sum(int(node / each + 1e-9) for node in nodes) >= actors
