"""What training functions use: datasets that are split already."""

from __future__ import annotations

from typing import Any

from mltoolkit._optional import require

__all__ = ["prepare_dataset_shard"]


def prepare_dataset_shard(tf_dataset_shard: Any) -> Any:
    """Keep TensorFlow from splitting a dataset once more, and have it read ahead.

    For a dataset that is made of ``train.get_dataset_shard()``, which is the worker's own part. Batches have the size of
    those of all workers together: the strategy gives each worker its share of that.

    Parameters
    ----------
    tf_dataset_shard : tf.data.Dataset

    Returns
    -------
    tf.data.Dataset
    """
    tf: Any = require("tensorflow", purpose="prepare_dataset_shard", extra="tensorflow")
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    # Without a known length: Keras would take it for the number of steps, although the strategy makes batches smaller.
    of_any_length = tf_dataset_shard.with_options(options).filter(lambda *parts: True)
    return of_any_length.prefetch(tf.data.AUTOTUNE)
