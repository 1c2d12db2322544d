"""The names of ``xgboost_ray``, and what they cost to import."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest
from helpers import script_env

import mltoolkit.xgboost


def test_the_package_and_its_matrices_load_without_the_library():
    code = (
        "import sys, mltoolkit.xgboost; from mltoolkit.xgboost import RayDMatrix, RayParams, train; "
        "assert not {'xgboost', 'sklearn', 'scipy', 'pandas', 'dask', 'pyarrow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=script_env())


def test_every_name_is_there():
    pytest.importorskip("xgboost")
    pytest.importorskip("sklearn")
    assert {name: getattr(mltoolkit.xgboost, name) for name in mltoolkit.xgboost.__all__}
    assert sorted(mltoolkit.xgboost.__all__) == dir(mltoolkit.xgboost)
    with pytest.raises(AttributeError, match="RayXGBClasifier"):
        _ = mltoolkit.xgboost.RayXGBClasifier


@pytest.mark.parametrize(
    ("module", "names"),
    [
        (
            "main",
            "RayParams RayXGBoostActor RayXGBoostTrainingError RayXGBoostTrainingStopped RayXGBoostActorAvailable",
        ),
        (
            "matrix",
            "RayDMatrix RayDeviceQuantileDMatrix RayQuantileDMatrix RayFileType RayShardingMode Data combine_data",
        ),
        ("session", "get_actor_rank get_rabit_rank put_queue get_session RayXGBoostSession"),
        ("callback", "DistributedCallback DistributedCallbackContainer EnvironmentCallback"),
        ("tune", "TuneReportCallback TuneReportCheckpointCallback load_model"),
        ("sklearn", "RayXGBClassifier RayXGBRegressor RayXGBRFClassifier RayXGBRFRegressor RayXGBRanker"),
    ],
)
def test_modules_hold_the_names_that_programs_import_from_them(module, names):
    pytest.importorskip("xgboost")
    pytest.importorskip("sklearn")
    found = __import__(f"mltoolkit.xgboost.{module}", fromlist=["*"])
    assert [name for name in names.split() if not hasattr(found, name)] == []


def test_arguments_have_the_order_of_the_original():
    assert list(inspect.signature(mltoolkit.xgboost.RayDMatrix.__init__).parameters)[1:19] == [
        "data", "label", "weight", "feature_weights", "base_margin", "missing", "label_lower_bound", "label_upper_bound",
        "feature_names", "feature_types", "qid", "enable_categorical", "num_actors", "filetype", "ignore", "distributed",
        "sharding", "lazy",
    ]  # fmt: skip
    assert list(inspect.signature(mltoolkit.xgboost.RayParams).parameters) == [
        "num_actors", "cpus_per_actor", "gpus_per_actor", "resources_per_actor", "elastic_training", "max_failed_actors",
        "max_actor_restarts", "checkpoint_frequency", "distributed_callbacks", "verbose", "placement_options",
    ]  # fmt: skip


def test_sessions_exist_in_actors_only():
    with pytest.raises(ValueError, match="only inside an actor"):
        mltoolkit.xgboost.get_actor_rank()
