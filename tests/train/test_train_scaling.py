"""ScalingConfig: what is asked for, and what is refused."""

from __future__ import annotations

import pytest

from mltoolkit import train
from mltoolkit.tune import PlacementGroupFactory


def test_resources_of_a_run():
    plain = train.ScalingConfig(num_workers=3)
    assert plain.worker_resources == {"CPU": 1.0} and plain.total_resources == {"CPU": 3.0}
    assert plain.as_placement_group_factory() == PlacementGroupFactory([{}, {"CPU": 1}, {"CPU": 1}, {"CPU": 1}])
    rich = train.ScalingConfig(
        num_workers=2, use_gpu=True, resources_per_worker={"CPU": 2, "disk": 1}, trainer_resources={"CPU": 1}
    )
    assert (rich.num_cpus_per_worker, rich.num_gpus_per_worker) == (2, 1)
    assert rich.total_resources == {"CPU": 5.0, "GPU": 2.0, "disk": 2.0}
    assert rich.as_placement_group_factory().bundles[0] == {"CPU": 1.0}
    local = train.ScalingConfig(num_workers=0)
    assert local.as_placement_group_factory().required_resources == {"CPU": 1.0}
    assert repr(plain) == "ScalingConfig(num_workers=3)"


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"num_workers": -1}, ValueError, "`ScalingConfig.num_workers` must be an integer >= 0, got -1"),
        ({"num_workers": 2.0}, TypeError, "got 2.0"),
        ({"num_workers": (1, 4)}, NotImplementedError, "elastic"),
        ({"num_worker": 2}, TypeError, "Did you mean `num_workers`"),
        ({"resources_per_worker": {"cpu": 1}}, ValueError, "'CPU'"),
        ({"resources_per_worker": {"CPU": -1}}, ValueError, "number >= 0"),
        ({"resources_per_worker": {"GPU": 1}}, ValueError, "use_gpu=True"),
        ({"resources_per_worker": {"GPU": 0}, "use_gpu": True}, ValueError, "0 GPUs"),
        ({"placement_strategy": "CLOSE"}, ValueError, "PACK, SPREAD"),
        ({"accelerator_type": "A100"}, NotImplementedError, "custom resource"),
        ({"use_tpu": True}, NotImplementedError, "use_tpu"),
    ],
)
def test_what_is_refused(given, error, text):
    with pytest.raises(error, match=None) as caught:
        train.ScalingConfig(**given)
    assert text in str(caught.value)
