"""Schedulers by name."""

from __future__ import annotations

import subprocess
import sys

import pytest

import mltoolkit.tune.schedulers as schedulers
from mltoolkit.tune.schedulers import create_scheduler


@pytest.mark.parametrize(
    ("name", "options", "cls"),
    [
        ("fifo", {}, "FIFOScheduler"),
        ("async_hyperband", {"max_t": 9}, "AsyncHyperBandScheduler"),
        ("asynchyperband", {}, "AsyncHyperBandScheduler"),
        ("ASHA", {"variant": "promote"}, "AsyncHyperBandScheduler"),
        ("median_stopping_rule", {}, "MedianStoppingRule"),
        ("medianstopping", {}, "MedianStoppingRule"),
        ("hyperband", {}, "HyperBandScheduler"),
        ("hb_bohb", {}, "HyperBandForBOHB"),
        ("pbt", {"hyperparam_mutations": {"lr": [1, 2]}}, "PopulationBasedTraining"),
        ("pb2", {"hyperparam_bounds": {"lr": [1, 2]}}, "PB2"),
        ("resource_changing", {}, "ResourceChangingScheduler"),
    ],
)
def test_each_name(name, options, cls):
    assert type(create_scheduler(name, **options)).__name__ == cls


def test_an_unknown_name_tells_the_nearest():
    with pytest.raises(ValueError, match="no scheduler 'hyperbnd'.*Did you mean 'hyperband'"):
        create_scheduler("hyperbnd")


def test_a_misspelt_option_tells_the_nearest():
    with pytest.raises(TypeError, match="AsyncHyperBandScheduler has no option 'reduction_facter'.*'reduction_factor'"):
        create_scheduler("asha", reduction_facter=3)
    with pytest.raises(TypeError, match="FIFOScheduler has no option 'max_t'.*none"):
        create_scheduler("fifo", max_t=3)
    with pytest.raises(TypeError, match="reduction_facter"):
        schedulers.ASHAScheduler(reduction_facter=3)


def test_all_exports_exist():
    for name in schedulers.__all__:
        assert getattr(schedulers, name) is not None
    with pytest.raises(AttributeError, match="Hyperband"):
        getattr(schedulers, "Hyper" + "band")


def test_importing_loads_nothing_heavy():
    code = "import sys, mltoolkit.tune.schedulers; print(*{'numpy', 'scipy', 'sklearn', 'pandas'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""
