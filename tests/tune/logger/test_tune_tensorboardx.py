import glob
import math
import os
import struct
import subprocess
import sys
import threading

import numpy as np
import pytest

from mltoolkit import _optional
from mltoolkit.tune.experiment.trial import Trial
from mltoolkit.tune.logger import TBXLoggerCallback
from mltoolkit.tune.logger._crc32c import crc32c


@pytest.fixture(scope="module", autouse=True)
def tensorboardx():
    """Import tensorboardX, to read events back, without torch: it would be imported into the test process for nothing."""
    if not _optional.is_installed("tensorboardX"):
        pytest.skip("tensorboardX is not installed")
    torch = sys.modules.get("torch")
    sys.modules["torch"] = None
    try:
        import tensorboardX.record_writer  # noqa: F401
    finally:
        if torch is None:
            del sys.modules["torch"]
        else:
            sys.modules["torch"] = torch


@pytest.fixture
def trial(tmp_path):
    return Trial(
        "abc_00000",
        "train",
        {"lr": 0.1},
        evaluated_params={"lr": 0.1, "act": "relu", "model/sizes": [1, 2], "none": None},
        experiment_path=tmp_path,
        dirname="trial_0",
    )


def report(logger, trial, **metrics):
    logger.on_trial_result(iteration=1, trials=[trial], trial=trial, result={**metrics, "config": trial.config})


def events(path):
    """Read a file of events with checks of its framing."""
    from tensorboardX.proto import event_pb2
    from tensorboardX.record_writer import masked_crc32c

    with open(path, "rb") as file:
        data = file.read()
    found = []
    while data:
        length, length_crc = struct.unpack("<QI", data[:12])
        body = data[12 : 12 + length]
        assert length_crc == masked_crc32c(data[:8])
        assert struct.unpack("<I", data[12 + length : 16 + length])[0] == masked_crc32c(body)
        found.append(event_pb2.Event.FromString(body))
        data = data[16 + length :]
    return found


def of_trial(trial):
    (path,) = glob.glob(os.path.join(trial.path, "events.out.tfevents.*"))
    return events(path)


def test_numeric_metrics_are_scalars(trial):
    logger = TBXLoggerCallback()
    logger.on_trial_start(iteration=0, trials=[trial], trial=trial)
    report(logger, trial, loss=0.5, eval={"acc": 1, "name": "x"}, bad=math.nan, training_iteration=1, pid=7)
    report(logger, trial, loss=0.25, training_iteration=2, timesteps_total=200)
    version, first, second = of_trial(trial)
    assert version.file_version == "brain.Event:2"
    assert first.step == 1
    assert {value.tag: value.simple_value for value in first.summary.value} == {
        "ray/tune/loss": 0.5,
        "ray/tune/eval/acc": 1,
    }
    assert second.step == 200
    assert {value.tag for value in second.summary.value} == {"ray/tune/loss", "ray/tune/timesteps_total"}


def test_lists_are_histograms_and_arrays_images(trial, caplog):
    logger = TBXLoggerCallback()
    report(
        logger,
        trial,
        weights=[0.0, 1.0, 2.0],
        image=np.zeros((3, 4, 4)),
        empty=[],
        odd=["a"],
        odder=["b"],
        training_iteration=1,
    )
    values = {value.tag: value for value in of_trial(trial)[1].summary.value}
    assert set(values) == {"ray/tune/weights", "ray/tune/image"}
    assert values["ray/tune/weights"].histo.num == 3
    assert values["ray/tune/image"].image.width == 4
    assert caplog.text.count("leaves out") == 1


def test_hyperparameters_are_written_at_the_end(trial):
    from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

    logger = TBXLoggerCallback()
    report(logger, trial, loss=0.5, training_iteration=1)
    logger.on_trial_complete(iteration=1, trials=[trial], trial=trial)
    experiment, start, end = [event.summary.value[0] for event in of_trial(trial)[2:]]
    metrics = HParamsPluginData.FromString(experiment.metadata.plugin_data.content).experiment.metric_infos
    assert [metric.name.tag for metric in metrics] == ["ray/tune/loss"]
    params = HParamsPluginData.FromString(start.metadata.plugin_data.content).session_start_info.hparams
    assert params["lr"].number_value == 0.1
    assert params["act"].string_value == "relu"
    assert params["model/sizes"].string_value == "[1, 2]"
    assert end.tag == "_hparams_/session_end_info"


def test_a_trial_that_starts_again_begins_another_file(trial):
    logger = TBXLoggerCallback()
    for _ in range(2):
        logger.log_trial_start(trial)
        report(logger, trial, loss=0.5, training_iteration=1)
    files = glob.glob(os.path.join(trial.path, "events.out.tfevents.*"))
    assert [len(events(path)) for path in files] == [2, 2]


def test_no_thread_and_few_files(tmp_path):
    logger = TBXLoggerCallback()
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
    for i in range(100):
        report(
            logger, Trial(f"t{i}", "train", {}, experiment_path=tmp_path, dirname=f"t{i}"), loss=1, training_iteration=1
        )
    assert threading.active_count() == threads
    assert len(os.listdir("/proc/self/fd")) - files <= 64
    logger.on_experiment_end(trials=[])
    assert len(os.listdir("/proc/self/fd")) == files


def test_a_failed_trial_is_shown_as_failed(trial):
    from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

    logger = TBXLoggerCallback()
    report(logger, trial, loss=0.5, training_iteration=1)
    logger.on_trial_error(iteration=1, trials=[trial], trial=trial)
    end = of_trial(trial)[-1].summary.value[0]
    status = HParamsPluginData.FromString(end.metadata.plugin_data.content).session_end_info.status
    assert status == 2


def test_without_tensorboardx_images_are_left_out(trial, monkeypatch, caplog):
    def missing(module, *, purpose, extra):
        raise ImportError(f"{purpose} needs tensorboardX: mltoolkit[{extra}]")

    monkeypatch.setattr(_optional, "require", missing)
    logger = TBXLoggerCallback()
    report(logger, trial, loss=0.5, image=np.zeros((3, 4, 4)), training_iteration=1)
    assert [value.tag for value in of_trial(trial)[1].summary.value] == ["ray/tune/loss"]
    assert "leaves out ray/tune/image, which it cannot show: An image needs tensorboardX" in caplog.text


def test_extreme_numbers_fit_single_precision(trial):
    logger = TBXLoggerCallback()
    report(logger, trial, big=1e300, small=-1e300, inf=math.inf, count=10**400, steps=2**62, training_iteration=2**40)
    event = of_trial(trial)[1]
    assert event.step == 2**40
    values = {value.tag.rpartition("/")[2]: value.simple_value for value in event.summary.value}
    assert values == {"big": math.inf, "small": -math.inf, "inf": math.inf, "count": math.inf, "steps": 2.0**62}


@pytest.mark.parametrize("size", [0, 1, 3, 4, 7, 300])
def test_the_checksum_of_known_and_new_parts_is_that_of_the_whole(size):
    from tensorboardX.crc32c import _crc32c

    rng = np.random.default_rng(size)
    parts = [(rng.bytes(size), known) for known in (True, False, True, True, False)]
    assert crc32c(parts) == _crc32c(b"".join(part for part, _ in parts))


def test_the_driver_imports_neither_torch_nor_tensorboardx(tmp_path):
    program = (
        "import sys\n"
        "from mltoolkit.tune.logger import TBXLoggerCallback\n"
        "from mltoolkit.tune.experiment.trial import Trial\n"
        "trial = Trial('a', 'train', {}, evaluated_params={'lr': 1}, experiment_path='.', dirname='t')\n"
        "logger = TBXLoggerCallback()\n"
        "logger.log_trial_result(1, trial, {'loss': 1.0, 'training_iteration': 1})\n"
        "logger.log_trial_end(trial)\n"
        "assert not {'torch', 'tensorboardX', 'numpy'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=60)
    assert len(list((tmp_path / "t").iterdir())) == 1
