"""TensorflowTrainer: what workers are told of each other; and, where TensorFlow is there, equal to one process."""

from __future__ import annotations

import json
import os
import socket
import sys

import pytest

from mltoolkit import train
from mltoolkit._optional import is_installed
from mltoolkit.train import DataParallelTrainer
from mltoolkit.train.tensorflow import TensorflowConfig, TensorflowTrainer
from mltoolkit.train.tensorflow.config import TensorflowBackend

HALF = {"CPU": 0.5}
with_tensorflow = pytest.mark.skipif(
    not is_installed("tensorflow") or not is_installed("tf_keras"), reason="needs tensorflow and tf_keras"
)


def options(folder):
    return {
        "scaling_config": train.ScalingConfig(num_workers=2, resources_per_worker=HALF),
        "run_config": train.RunConfig(storage_path=folder, verbose=0),
    }


def test_workers_know_the_addresses_of_all_and_can_have_their_ports(runtime, tmp_path):
    class Backend(TensorflowBackend):
        def on_start(self, worker_group, backend_config):
            worker_group.execute(pretend_tensorflow)
            super().on_start(worker_group, backend_config)

    class Config(TensorflowConfig):
        @property
        def backend_cls(self):
            return Backend

    (tmp_path / "packages" / "tensorflow").mkdir(parents=True)

    def pretend_tensorflow():
        sys.path.append(str(tmp_path / "packages"))

    def loop():
        told = json.loads(os.environ["TF_CONFIG"])
        own = told["cluster"]["worker"][train.get_context().get_world_rank()]
        host, _, port = own.rpartition(":")
        with socket.socket() as server:
            server.bind((host, int(port)))  # nobody has it
        all_told = train.collective.broadcast_from_rank_zero(told["cluster"])
        assert all_told == told["cluster"] and told["task"]["index"] == train.get_context().get_world_rank()
        return told, os.environ["TF_USE_LEGACY_KERAS"]

    told, legacy = DataParallelTrainer(loop, backend_config=Config(), **options(tmp_path)).fit().return_value
    addresses = told["cluster"]["worker"]
    assert legacy == "1" and told["task"] == {"type": "worker", "index": 0}
    assert len(set(addresses)) == 2 and all(address.startswith("127.0.0.1:") for address in addresses)


@pytest.mark.skipif(is_installed("tensorflow"), reason="TensorFlow is there")
def test_without_tensorflow_it_says_what_to_install(runtime, tmp_path):
    with pytest.raises(train.TrainingFailedError, match="pip install tensorflow tf_keras"):
        TensorflowTrainer(lambda: None, **options(tmp_path)).fit()


def test_what_is_refused():
    with pytest.raises(TypeError, match="must be a TensorflowConfig"):
        TensorflowTrainer(print, tensorflow_config={})


@with_tensorflow
@pytest.mark.timeout(300)
def test_training_equals_one_process_with_the_whole_batch(fresh, tmp_path):
    import numpy as np

    fresh.init(num_cpus=2)
    x = np.linspace(0, 1, 64, dtype=np.float32)[:, None]

    def loop():
        import tensorflow as tf

        from mltoolkit.train.tensorflow import prepare_dataset_shard
        from mltoolkit.train.tensorflow.keras import ReportCheckpointCallback

        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        with strategy.scope():
            model = tf.keras.Sequential([tf.keras.Input((1,)), tf.keras.layers.Dense(1, kernel_initializer="zeros")])
            model.compile(optimizer=tf.keras.optimizers.SGD(0.1), loss="mse")
        x = train.get_dataset_shard("train")
        data = prepare_dataset_shard(tf.data.Dataset.from_tensor_slices((x, 3 * x + 1)).batch(16))  # of both workers
        model.fit(data, epochs=3, verbose=0, callbacks=[ReportCheckpointCallback(metrics={"error": "loss"})])
        return [part.tolist() for part in model.get_weights()]

    result = TensorflowTrainer(loop, datasets={"train": x}, **options(tmp_path)).fit()
    weight, bias = 0.0, 0.0
    for _ in range(3):
        for start in range(0, 32, 8):
            batch = np.concatenate([x[start : start + 8], x[32 + start : 40 + start]])[:, 0]
            error = 2 * (weight * batch + bias - 3 * batch - 1) / len(batch)
            weight, bias = weight - 0.1 * (error * batch).sum(), bias - 0.1 * error.sum()
    kernel, offset = result.return_value
    assert kernel[0][0] == pytest.approx(weight, rel=1e-4) and offset[0] == pytest.approx(bias, rel=1e-4)
    assert len(result.metrics_dataframe) == 3 and 0 < result.metrics["error"] < 1
    assert os.listdir(result.checkpoint.path) == ["model.keras"]
