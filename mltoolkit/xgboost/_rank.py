"""What one rank does: XGBoost's own distributed training on its shard."""

from __future__ import annotations

import collections
import contextlib
import pickle
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import cloudpickle
import numpy as np

from mltoolkit._boosting.actor import Checkpoint, Data, RankLibrary, TrainTask
from mltoolkit._boosting.block import is_sparse, n_columns
from mltoolkit._boosting.errors import LostPeersError
from mltoolkit._boosting.runtime import import_without_sklearn
from mltoolkit.xgboost._collective import is_about_peers, joined

__all__ = ["XGBoostRank"]

_BY_COLUMNS_ROWS = 20_000  # below, looking at each column by itself takes as long


class XGBoostRank(RankLibrary):
    """A worker of XGBoost's collective. The process of the first rank also runs its tracker."""

    def __init__(self) -> None:
        self._tracker: Any = None
        self._lock = threading.Lock()

    def load(self, *, full: bool) -> None:
        """Import XGBoost, without scikit-learn if nobody needs it: a quarter of a second instead of two."""
        if full:
            __import__("xgboost")
        else:
            import_without_sklearn("xgboost")

    # ---- the meeting ---------------------------------------------------------------------------------------------------

    def prepare(self, index: int, world_size: int, host: str) -> dict[str, Any] | None:
        """Start the tracker, in the first rank: it listens on the loopback interface where all ranks are on one machine."""
        self.abort()
        if index or world_size == 1:
            return None
        from xgboost.tracker import RabitTracker

        tracker = RabitTracker(n_workers=world_size, host_ip=host, sortby="task")
        tracker.start()
        with self._lock:
            self._tracker = tracker
        arguments: dict[str, Any] = tracker.worker_args()
        return arguments

    def abort(self) -> None:
        """Close the tracker: ranks that wait for the others fail."""
        with self._lock:
            tracker, self._tracker = self._tracker, None
        if tracker is not None:
            with contextlib.suppress(Exception):  # it complains about ranks that never came
                tracker.free()

    @contextlib.contextmanager
    def _meeting(self, task: TrainTask) -> Iterator[None]:
        if task.world_size == 1:
            yield
            return
        with joined(task.meeting[0], task.index):  # the tracker stays, since the others say goodbye to it as well
            yield

    # ---- training ------------------------------------------------------------------------------------------------------

    def train(self, task: TrainTask) -> dict[str, Any]:
        """Train; see ``RankLibrary.train``."""
        from xgboost.core import XGBoostError

        warnings.filterwarnings("ignore", message=".*Empty dataset at worker.*", category=UserWarning)
        try:
            with self._meeting(task):
                return _Rounds(task).run()
        except XGBoostError as error:
            if task.world_size > 1 and is_about_peers(str(error)):
                raise LostPeersError(str(error).partition("Stack trace")[0].strip()) from error
            raise

    def predict(self, model: Any, data: Data, arguments: dict[str, Any], num_threads: int) -> np.ndarray:
        """Predict one shard with a Booster."""
        model.set_param({"nthread": num_threads, "device": arguments.pop("_device")})
        width = n_columns(data.block.data)
        # Where there are names, XGBoost compares them. Otherwise it takes columns that are not there for missing values, which
        # is right for the last ones of sparse data alone.
        unnamed = model.feature_names is None and arguments.get("validate_features", True)
        if unnamed and not is_sparse(data.block.data) and width != model.num_features():
            raise ValueError(
                f"The model was trained with {model.num_features()} features, the data to predict has {width}."
            )
        if not data.block.n:
            one = model.predict(_plain_matrix(np.zeros((1, width), np.float32), data, num_threads), **arguments)
            return np.asarray(one)[:0]
        return np.asarray(model.predict(make_matrix(data, num_threads), **arguments))


# ---- matrices ----------------------------------------------------------------------------------------------------------


def _information(data: Data) -> dict[str, Any]:
    """Labels and the like as XGBoost takes them."""
    block, settings = data.block, data.settings
    out: dict[str, Any] = {
        "label": block.label,
        "weight": block.weight,
        "base_margin": block.base_margin,
        "label_lower_bound": block.label_lower_bound,
        "label_upper_bound": block.label_upper_bound,
        "feature_weights": settings["feature_weights"],
        "qid": block.qid,
        "feature_names": data.feature_names,
        "feature_types": data.feature_types,
        "enable_categorical": bool(settings["enable_categorical"]),
    }
    if settings["missing"] is not None:
        out["missing"] = settings["missing"]
    if block.qid is not None and block.n:
        first = np.r_[True, block.qid[1:] != block.qid[:-1]]
        out["qid"] = np.cumsum(first)  # XGBoost has 32 bits for them, and needs to know no more than where one ends
        if block.weight is not None:  # XGBoost weighs queries
            out["weight"] = block.weight[first]
    if _is_frame(data):
        out.update({name: settings[name] for name in ("feature_names", "feature_types")})
    if not block.n:
        out.update(dict.fromkeys(("label", "weight", "base_margin", "label_lower_bound", "label_upper_bound", "qid")))
    return {name: value for name, value in out.items() if value is not None}


def _is_frame(data: Data) -> bool:
    """Whether the features are a frame, which tells names and types itself, with its categories."""
    return hasattr(data.block.data, "dtypes")


def make_matrix(data: Data, num_threads: int) -> Any:
    """Build a DMatrix, which keeps the values."""
    import xgboost

    return xgboost.DMatrix(data.block.data, nthread=num_threads, **_information(data))


def _plain_matrix(values: np.ndarray, data: Data, num_threads: int) -> Any:
    import xgboost

    names, types = data.feature_names, data.feature_types
    return xgboost.DMatrix(
        values, nthread=num_threads, feature_names=names, feature_types=types, enable_categorical=True
    )


def make_quantile_matrix(data: Data, num_threads: int, max_bin: int | None, ref: Any) -> Any:
    """Build a QuantileDMatrix, which keeps a byte for each value and nothing else."""
    import xgboost

    information = _information(data)
    if max_bin is not None:
        information["max_bin"] = max_bin
    values = _by_columns(data)
    matrix = xgboost.QuantileDMatrix(values, nthread=num_threads, ref=ref, **information)
    if values is not data.block.data:  # a frame, whose columns have names and types that nobody gave
        matrix.feature_names, matrix.feature_types = data.feature_names, data.feature_types
    return matrix


def _by_columns(data: Data) -> Any:
    """A large matrix as a frame of its columns, without a copy: XGBoost bins them a seventh faster, to the same bins."""
    values = data.block.data
    pandas = sys.modules.get("pandas")  # loading it takes longer than it saves
    if pandas is None or not isinstance(values, np.ndarray) or len(values) < _BY_COLUMNS_ROWS:
        return values
    if "c" in (data.feature_types or ()):
        return values
    return pandas.DataFrame(values, copy=False)


def _takes_quantiles(task: TrainTask) -> bool:
    """Whether training can do with quantised values: much less memory, the same trees."""
    params, checkpoint = task.request["params"], task.checkpoint
    if params.get("tree_method", "auto") not in (None, "auto", "hist"):
        return False
    if (
        params.get("booster", "gbtree") not in (None, "gbtree", "dart")
        or params.get("updater")
        or params.get("process_type")
    ):
        return False
    if task.request.get("xgb_model") is not None:
        return False  # its thresholds are not among the quantiles of this data
    return checkpoint is None or checkpoint.ranks == task.ranks


# ---- rounds ------------------------------------------------------------------------------------------------------------


class _Rounds:
    """The loop of ``xgboost.train``, able to go on in the middle: rounds, histories and callbacks continue."""

    def __init__(self, task: TrainTask) -> None:
        self.task = task
        self.request = task.request
        threads = self.request["params"].get("nthread", task.num_threads)
        self.params = {**self.request["params"], "nthread": min(threads, task.num_threads)}
        self.history: dict[str, dict[str, list[float]]] = collections.OrderedDict()
        self.callbacks = list(self.request.get("callbacks") or ())

    def run(self) -> dict[str, Any]:
        """Train, in all rounds that are left."""
        task, request = self.task, self.request
        evals: list[tuple[Any, str]]
        dtrain, evals = self._matrices()
        start, model = self._start()
        import xgboost

        bst = xgboost.Booster(self.params, [dtrain, *(matrix for matrix, _ in evals)], model_file=model)
        for callback in self.callbacks:
            bst = callback.before_training(bst)
        objective = request.get("obj")
        metric = _ReducedMetric(request["custom_metric"], task) if request.get("custom_metric") else None
        output_margin = request["output_margin"]
        stopped, rounds = False, start
        for index in range(start, request["num_boost_round"]):
            if any(callback.before_iteration(bst, index, self.history) for callback in self.callbacks):
                break
            bst.update(dtrain, iteration=index, fobj=objective)
            rounds = index + 1
            task.tell_rounds(rounds)
            scores = self._evaluate(bst, index, evals, metric, output_margin) if evals else []
            if scores and task.index == 0:
                task.put("eval", (index, scores))
            if any(callback.after_iteration(bst, index, self.history) for callback in self.callbacks):
                break
            if task.checkpoint_due(rounds) and rounds < request["num_boost_round"]:
                task.put("checkpoint", self._checkpoint(bst, rounds))
            if task.stoppable and self._all_stop():
                stopped = rounds < request["num_boost_round"]
                if stopped:
                    break
        if stopped:
            return {"bst": None, "evals_result": {}, "stopped": True, "checkpoint": self._checkpoint(bst, rounds)}
        for callback in self.callbacks:
            bst = callback.after_training(bst)
        return {"bst": bst.reset(), "evals_result": self.history, "stopped": False}

    def _matrices(self) -> tuple[Any, list[tuple[Any, str]]]:
        task = self.task
        made: dict[int, Any] = {}
        if _takes_quantiles(task):
            max_bin = self.params.get("max_bin")
            dtrain = make_quantile_matrix(task.train, task.num_threads, max_bin, None)

            def make(data: Data) -> Any:
                return make_quantile_matrix(data, task.num_threads, max_bin, dtrain)

        else:
            dtrain = make_matrix(task.train, task.num_threads)

            def make(data: Data) -> Any:
                return make_matrix(data, task.num_threads)

        made[id(task.train)] = dtrain
        evals = []
        for data, name in task.evals:
            if id(data) not in made:
                made[id(data)] = make(data)
            evals.append((made[id(data)], name))
        return dtrain, evals

    def _start(self) -> tuple[int, Any]:
        """The first round, and the model before it."""
        checkpoint = self.task.checkpoint
        if checkpoint is None:
            return 0, self.request.get("xgb_model")
        # XGBoost's generator cannot be saved: another seed, or the rounds to come would sample what the first ones did.
        self.params["seed"] = int(self.params.get("seed") or self.params.get("random_state") or 0) + checkpoint.rounds
        self.params.pop("random_state", None)
        model, self.history, callbacks = pickle.loads(checkpoint.state)
        if callbacks is not None:
            self.callbacks = callbacks
        return checkpoint.rounds, model

    def _checkpoint(self, bst: Any, rounds: int) -> Checkpoint:
        model = bst.save_raw("ubj")
        try:
            state = cloudpickle.dumps((model, self.history, self.callbacks), 5)
        except Exception:  # callbacks that hold files or locks begin anew
            state = pickle.dumps((model, self.history, None), 5)
        return Checkpoint(rounds, state, self.task.ranks)

    def _evaluate(
        self, bst: Any, index: int, evals: list[tuple[Any, str]], metric: Callable[..., Any] | None, output_margin: bool
    ) -> list[tuple[str, str, float]]:
        text = bst.eval_set(evals, index, metric, output_margin)
        scores = []
        for entry in text.split()[1:]:
            name, _, value = entry.rpartition(":")
            data, _, metric_name = name.partition("-")
            scores.append((data, metric_name, float(value)))
            self.history.setdefault(data, collections.OrderedDict()).setdefault(metric_name, []).append(float(value))
        return scores

    def _all_stop(self) -> bool:
        """Whether any rank was told to stop: all end after the same round, or some would wait for the others for ever."""
        asked = self.task.stop.is_set()
        if self.task.world_size == 1:
            return asked
        from xgboost import collective

        flag = collective.allreduce(np.array([int(asked)], np.int32), collective.Op.MAX)
        return bool(flag[0])


class _ReducedMetric:
    """A user's metric over all ranks: the mean of what it gives for each shard, weighted by rows.

    That is the value of the whole for every metric which is itself a mean over rows. All ranks get the same number, so they
    stop early at the same round. A shard without rows is not asked.
    """

    def __init__(self, metric: Callable[..., Any], task: TrainTask) -> None:
        self.metric = metric
        self.world_size = task.world_size
        self._names: dict[int, list[str]] = {}

    @property
    def __name__(self) -> str:
        return getattr(self.metric, "__name__", type(self.metric).__name__)

    def __call__(self, predictions: np.ndarray, matrix: Any) -> list[tuple[str, float]]:
        """Return names and values."""
        rows = matrix.num_row()
        pairs = _as_pairs(self.metric(predictions, matrix)) if rows else []
        if self.world_size == 1:
            return pairs
        from xgboost import collective

        key = id(matrix)
        if key not in self._names:
            index = collective.get_rank()
            first = collective.allreduce(np.array([index if rows else self.world_size], np.int32), collective.Op.MIN)
            self._names[key] = _names_of(int(first[0]), [name for name, _ in pairs])
        names = self._names[key]
        values = [value for _, value in pairs] if rows else [0.0] * len(names)
        sums = collective.allreduce(
            np.array([*(value * rows for value in values), rows], np.float64), collective.Op.SUM
        )
        return [(name, float(value / sums[-1])) for name, value in zip(names, sums[:-1], strict=True)]


def _names_of(rank: int, own: list[str]) -> list[str]:
    """The names that one rank knows, for all.

    Not by XGBoost's ``broadcast``, which pickles: ranks are not made to run what arrives over a connection.
    """
    import json

    from xgboost import collective

    data = json.dumps(own).encode() if collective.get_rank() == rank else b""
    size = collective.allreduce(np.array([len(data)], np.int64), collective.Op.MAX)
    letters: np.ndarray = np.zeros(int(size[0]), np.uint8)
    letters[: len(data)] = np.frombuffer(data, np.uint8)
    names: list[str] = json.loads(collective.allreduce(letters, collective.Op.MAX).tobytes())
    return names


def _as_pairs(returned: Any) -> list[tuple[str, float]]:
    pairs = returned if isinstance(returned, list) else [returned]
    try:
        return [(str(name), float(value)) for name, value in pairs]
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"A custom metric must return a name and a number, or a list of such pairs, got {returned!r}."
        ) from error
