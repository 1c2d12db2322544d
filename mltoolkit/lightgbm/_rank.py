"""What one rank does: LightGBM's own distributed training on its shard."""

from __future__ import annotations

import contextlib
import pickle
import secrets
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from mltoolkit._boosting.actor import Data, RankLibrary, TrainTask
from mltoolkit._boosting.block import Block, concat_blocks
from mltoolkit._boosting.errors import LostPeersError
from mltoolkit._boosting.runtime import import_without
from mltoolkit.lightgbm._mesh import Listener, Mesh
from mltoolkit.lightgbm._metrics import group_sizes
from mltoolkit.lightgbm._network import Network

__all__ = ["LightGBMRank", "make_dataset"]

_TOKEN_BYTES = 32


class LightGBMRank(RankLibrary):
    """One of LightGBM's machines, as which it knows the ranks.

    Parameters
    ----------
    first_port : int, default=0
        The first free port from there on is listened at; 0 for any.
    """

    def __init__(self, first_port: int = 0) -> None:
        self._first_port = first_port
        self._listener: Listener | None = None
        self._mesh: Mesh | None = None
        self._token = b""
        self._lock = threading.Lock()

    def load(self, *, full: bool) -> None:
        """Import LightGBM if all of it is needed; otherwise :meth:`data_loaded` does."""
        if full:
            __import__("lightgbm")

    def data_loaded(self) -> None:
        """Import LightGBM without what the data did not bring along: half a second instead of three."""
        import_without("lightgbm", "sklearn", "pandas", "pyarrow")

    # ---- the meeting ---------------------------------------------------------------------------------------------------

    def prepare(self, index: int, world_size: int, host: str) -> Any:
        """Start to listen: on the loopback interface where all ranks are on one machine."""
        self.abort()
        if world_size == 1:
            return None
        listener = Listener(host, self._first_port)
        with self._lock:
            self._listener = listener
        return listener.address, secrets.token_bytes(_TOKEN_BYTES) if not index else b""

    def abort(self) -> None:
        """Close the connections: a rank that waits for others fails."""
        with self._lock:
            listener, self._listener = self._listener, None
            mesh, self._mesh = self._mesh, None
        if listener is not None:
            listener.abort()
        if mesh is not None:
            mesh.abort()

    @contextlib.contextmanager
    def _meeting(self, task: TrainTask) -> Iterator[Mesh | None]:
        if task.world_size == 1:
            yield None
            return
        with self._lock:
            listener = self._listener
        if listener is None:
            raise LostPeersError("Training was given up before this rank began.")
        mesh = listener.meet(
            task.index, [address for address, _ in task.meeting], task.meeting[0][1], task.request["timeout_s"]
        )
        with self._lock:
            if self._listener is not listener:
                mesh.close()
                raise LostPeersError("Training was given up before this rank began.")
            self._listener, self._mesh = None, mesh
        try:
            yield mesh
        finally:
            with self._lock:
                self._mesh = None
            mesh.close()

    # ---- training ------------------------------------------------------------------------------------------------------

    def train(self, task: TrainTask) -> dict[str, Any]:
        """Train; see ``RankLibrary.train``."""
        from mltoolkit.lightgbm._rounds import Rounds

        with self._meeting(task) as mesh:
            active = _ranks_with_rows(task, mesh)
            if mesh is None or len(active) == mesh.size:
                return _run(Rounds(task, mesh, leads=task.index == 0), mesh)
            return self._train_some(task, mesh, active, Rounds)

    def _train_some(self, task: TrainTask, mesh: Mesh, active: list[int], rounds: Any) -> dict[str, Any]:
        """Train on the ranks that have rows, since LightGBM needs some of each."""
        result: dict[str, Any] = {}
        spare = [] if task.index in active else [data.block for data, _ in task.evals]
        given = [pickle.loads(part) for part in mesh.allgather(pickle.dumps(spare, 5))]
        if task.index == active[0]:
            for at, (data, name) in enumerate(task.evals):
                blocks = [data.block, *(part[at] for part in given if part and part[at].n)]
                task.evals[at] = (replace(data, block=_below(blocks)), name)
        if task.index in active:
            part = mesh.part(active) if len(active) > 1 else None
            result = _run(rounds(task, part, leads=task.index == active[0]), part)
        ends = mesh.allgather(pickle.dumps(result if task.index == active[0] else None, 5))
        return result or dict(pickle.loads(ends[active[0]]))

    # ---- prediction ----------------------------------------------------------------------------------------------------

    def predict(self, model: Any, data: Data, arguments: dict[str, Any], num_threads: int) -> np.ndarray:
        """Predict one shard with the text of a model."""
        import lightgbm

        booster = lightgbm.Booster(model_str=model)
        names, given = booster.feature_name(), data.feature_names
        if arguments.pop("validate_features", False) and given is not None and given != names:
            raise ValueError(f"The features must be those of the model, {names}, got {given}.")
        features = _features(data)
        if not data.block.n:
            width = features.shape[1]
            return np.asarray(booster.predict(np.zeros((1, width)), num_threads=num_threads, **arguments))[:0]
        predictions = booster.predict(features, num_threads=num_threads, **arguments)
        if hasattr(predictions, "toarray"):  # contributions of sparse features
            predictions = predictions.toarray()
        return np.asarray(predictions)


def _run(rounds: Any, mesh: Mesh | None) -> dict[str, Any]:
    if mesh is None:
        result: dict[str, Any] = rounds.run(None)
        return result
    from lightgbm.basic import LightGBMError

    network = Network(mesh)
    try:
        with network:
            return dict(rounds.run(network))
    except LightGBMError:
        network.check()  # it may have choked on what it was given after another rank was lost
        raise


def _ranks_with_rows(task: TrainTask, mesh: Mesh | None) -> list[int]:
    if mesh is None:
        return [0]
    counts = mesh.allgather(bytes([bool(task.train.block.n)]))
    return [at for at, count in enumerate(counts) if count != b"\0"]


def _below(blocks: list[Block]) -> Block:
    filled = [block for block in blocks if block.n]
    return concat_blocks(filled) if filled else blocks[0]


def _is_frame(block: Block) -> bool:
    return hasattr(block.data, "dtypes")


# ---- datasets ----------------------------------------------------------------------------------------------------------


def _features(data: Data) -> Any:
    """Features as LightGBM takes them: missing values are NaN."""
    features, missing = data.block.data, data.settings["missing"]
    if missing is None or missing != missing:
        return features
    if hasattr(features, "dtypes"):
        return features.mask(features == missing)
    kind = features.dtype if features.dtype.kind == "f" else np.float64
    return np.where(features == missing, np.nan, features).astype(kind, copy=False)


def make_dataset(data: Data, params: dict[str, Any], names: Any, categorical: Any, reference: Any) -> Any:
    """Build a ``lightgbm.Dataset`` of the rows of one rank.

    Parameters
    ----------
    data : Data
        With rows.
    params : dict
        Of LightGBM.
    names : list of str or "auto"
        Of the features; "auto" takes those of the data.
    categorical : list or "auto"
        LightGBM's `categorical_feature`.
    reference : lightgbm.Dataset or None
        Whose bins to use.
    """
    import lightgbm

    block = data.block
    names = data.settings["feature_names"] if names == "auto" else names
    if names is None and not _is_frame(block):
        names = block.feature_names
    return lightgbm.Dataset(
        _features(data),
        label=block.label,
        weight=block.weight,
        group=None if block.qid is None else group_sizes(block.qid),
        init_score=block.base_margin,
        feature_name="auto" if names is None else names,
        categorical_feature=categorical,
        reference=reference,
        params={name: value for name, value in params.items() if not callable(value)},
    )
