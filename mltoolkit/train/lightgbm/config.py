"""How the workers of a run become the machines of LightGBM's distributed training."""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from mltoolkit._boosting.errors import LostPeersError
from mltoolkit._optional import require
from mltoolkit.train._internal.worker_group import WorkerGroup
from mltoolkit.train.backend import Backend, BackendConfig

__all__ = ["LightGBMBackend", "LightGBMConfig", "current_network", "get_network_params"]

logger = logging.getLogger(__name__)

_LOOPBACK = "127.0.0.1"
_TOKEN_BYTES = 32
_TIMEOUT_S = 7200.0  # LightGBM's own: how long a worker may be silent. A lost one is noticed at once.


@dataclass
class LightGBMConfig(BackendConfig):
    """Configuration of the workers' network, which has no settings: see :func:`get_network_params`."""

    @property
    def backend_cls(self) -> type[Backend]:
        """The backend that this configures."""
        return LightGBMBackend

    @property
    def train_func_context(self) -> Callable[[], AbstractContextManager[Any]]:
        """Connects the worker with the others while the training function runs."""
        return _connected


class LightGBMBackend(Backend):
    """Connects the workers of a run with each other, for LightGBM to compute over these connections."""

    def on_training_start(self, worker_group: WorkerGroup, backend_config: LightGBMConfig) -> None:
        """Have each worker listen, on the loopback interface where all share a host, and tell where the others do."""
        require("lightgbm", purpose="LightGBMTrainer", extra="lightgbm")
        workers = worker_group.workers
        addresses = []
        if len(workers) > 1:
            hosts = [_LOOPBACK if worker_group.on_one_host else worker.info.address for worker in workers]
            addresses = [worker_group.execute_single(rank, _listen, host) for rank, host in enumerate(hosts)]
        worker_group.execute(_set_meeting, addresses, secrets.token_bytes(_TOKEN_BYTES))


class WorkerNetwork:
    """Connections of this worker, and LightGBM's use of them.

    Parameters
    ----------
    mesh : Mesh
    """

    def __init__(self, mesh: Any) -> None:
        self.mesh = mesh
        self._network: Any = None
        self._thread = 0
        self._reducer: tuple[Any, Any] | None = None

    @property
    def error(self) -> BaseException | None:
        """What broke a connection, if anything did."""
        return None if self._network is None else self._network.error

    def use(self) -> None:
        """Make it the network of LightGBM in this thread."""
        if self._network is None:
            from mltoolkit.lightgbm._network import Network

            self._network = Network(self.mesh)
            self._network.__enter__()
            self._thread = threading.get_ident()
        elif self._thread != threading.get_ident():
            raise RuntimeError(
                "get_network_params() was called in another thread of this worker before. LightGBM has a network in one "
                "thread at a time: train in that one."
            )

    def reduce(self, env: Any) -> None:
        """Replace what LightGBM has found for this worker's rows by what holds for those of all, for all callbacks."""
        if self._network is None or not hasattr(env.model, "name_valid_sets"):  # lightgbm.cv has many models
            return
        self._network.check()
        if self._reducer is None or self._reducer[0] is not env.model:
            self._reducer = (env.model, _Reducer(self.mesh, env.model))
        self._reducer[1](env)

    def close(self) -> None:
        """Leave LightGBM, and close the connections."""
        network, self._network = self._network, None
        if network is not None and self._thread == threading.get_ident():
            network.__exit__(None, None, None)
        self.mesh.close()


class _Reducer:
    """Metrics of all workers' rows, for one Booster."""

    def __init__(self, mesh: Any, model: Any) -> None:
        from mltoolkit.lightgbm._metrics import MetricReducer, needs_predictions

        _check_learner(model.params)
        self._model = model
        self._sets = dict(zip(model.name_valid_sets, model.valid_sets, strict=True))
        self._train_name = model._train_data_name
        self._sets.setdefault(self._train_name, model.train_set)
        self._needs_predictions = needs_predictions(model.params.get("metric"))
        self._reducer = MetricReducer(mesh, {name: _as_block(data) for name, data in self._sets.items()}, _by_its_name)

    def __call__(self, env: Any) -> None:
        from mltoolkit.lightgbm._rounds import _as_result

        results = [tuple(result)[:4] for result in env.evaluation_result_list or ()]
        predictions: dict[str, Any] = {}
        if self._needs_predictions:
            names = {id(data): name for name, data in self._sets.items()}

            def keep(scores: Any, data: Any) -> list[Any]:
                predictions[names[id(data)]] = scores.copy()
                return []

            if any(data == self._train_name for data, *_ in results):
                self._model.eval_train(keep)
            self._model.eval_valid(keep)
        env.evaluation_result_list[:] = [_as_result(each) for each in self._reducer.reduce(results, predictions)]


def _check_learner(params: Mapping[str, Any]) -> None:
    from lightgbm.basic import _ConfigAliases

    names = [name for name in _ConfigAliases.get("tree_learner") if params.get(name) is not None]
    learner = params[names[0]] if names else "serial"
    if learner == "serial":
        raise ValueError(
            "`tree_learner` must be 'data' or 'voting' for LightGBM to train on the data of all workers, got 'serial', its "
            "default: each worker would train for itself. Put `'tree_learner': 'data'` beside `**get_network_params()`."
        )


def _as_block(data: Any) -> Any:
    """What the metrics of a dataset depend on."""
    import numpy as np

    from mltoolkit._boosting.block import Block

    sizes = data.get_group()
    return Block(
        np.empty((data.num_data(), 0)),
        label=data.get_label(),
        weight=data.get_weight(),
        qid=None if sizes is None else np.repeat(np.arange(len(sizes)), sizes),
    )


def _by_its_name(name: str) -> bool:
    """Whether a metric is the user's: nobody knows, so each counts as what its name says."""
    return False


# ---- in a worker -------------------------------------------------------------------------------------------------------

_listener: Any = None
_meeting: tuple[Sequence[Any], bytes] | None = None
"""Where the workers listen, and what they know each other by; None outside a run."""
_network: WorkerNetwork | None = None


def current_network() -> WorkerNetwork | None:
    """The network of this process; None outside a training function, and where there is one worker."""
    return _network


def get_network_params() -> dict[str, Any]:
    """Return what makes ``lightgbm.train`` train with the other workers: put it into the parameters.

    Call it in the training function of a ``LightGBMTrainer``, on each worker. LightGBM needs a ``tree_learner`` as well,
    ``"data"`` or ``"voting"``: with its default each worker would train for itself, which RayTrainReportCallback refuses.

    Returns
    -------
    dict
        ``num_machines`` and ``pre_partition``. Empty outside a training function, after a warning in the log.

    Notes
    -----
    LightGBM computes over connections that the workers have made, instead of its own sockets, so there are no ``machines``
    and no ``local_listen_port``. From the call on, whatever builds a ``lightgbm.Dataset`` in this thread does so together with
    all workers.
    """
    if _meeting is None:
        logger.warning(
            "get_network_params() was called outside the training function of a LightGBMTrainer, where there is no network: "
            "it returns nothing, and LightGBM trains in this process alone."
        )
        return {}
    if _network is None:
        return {"num_machines": 1}
    _network.use()
    return {"num_machines": _network.mesh.size, "pre_partition": True}


def _listen(host: str) -> Any:
    from mltoolkit.lightgbm._mesh import Listener

    global _listener
    _listener = Listener(host)
    return _listener.address


def _set_meeting(addresses: Sequence[Any], token: bytes) -> None:
    global _meeting
    _meeting = (addresses, token)


@contextlib.contextmanager
def _connected() -> Iterator[None]:
    """Be connected with the other workers, if there are any.

    Raises
    ------
    ConnectionError
        If a connection breaks because another worker is lost.
    """
    global _listener, _meeting, _network
    if _listener is None or _meeting is None:
        try:
            yield
        finally:
            _meeting = None
        return
    from mltoolkit.train._session import get_context

    (addresses, token), listener, _listener = _meeting, _listener, None
    try:
        _network = WorkerNetwork(listener.meet(get_context().get_world_rank(), addresses, token, _TIMEOUT_S))
        yield
        if _network.error is not None:
            raise _network.error
    except Exception as error:
        broken = _network.error if _network is not None else None
        if broken is None and not isinstance(error, LostPeersError):
            raise  # the user's own; otherwise LightGBM may have choked on what it was given after that
        raise ConnectionError(f"The connection to another worker broke: {broken or error}") from error
    finally:
        network, _network, _meeting = _network, None, None
        if network is not None:
            network.close()
