"""``lightgbm.train`` in one rank: metrics of all ranks, the same end for all, checkpoints."""

from __future__ import annotations

import dataclasses
import math
import pickle
import re
from collections import OrderedDict
from collections.abc import Mapping
from operator import attrgetter
from typing import Any

import cloudpickle
import lightgbm
import numpy as np

from mltoolkit._boosting.actor import Checkpoint, Data, TrainTask
from mltoolkit._boosting.block import Block, concat_blocks, is_sparse, n_columns, take_rows
from mltoolkit.lightgbm._mesh import Mesh
from mltoolkit.lightgbm._metrics import MetricReducer, Result, needs_predictions
from mltoolkit.lightgbm._network import Network
from mltoolkit.lightgbm._rank import make_dataset

__all__ = ["Rounds"]

#: Of the parameters that a model's file holds, what says how it was trained and not what it is.
_HOW = {"num_machines": "1", "tree_learner": "serial", "pre_partition": "0", "num_threads": "0"}


_ROW_WISE_COLUMNS = 64


class _Asked(Exception):
    """The driver has asked all ranks to stop."""


class Rounds:
    """One attempt of one rank.

    Parameters
    ----------
    task : TrainTask
        With rows in ``train``.
    mesh : Mesh or None
        The ranks that have rows; None if it is this one alone.
    leads : bool
        Whether this rank speaks for all.
    """

    #: To LightGBM, an object of this class is the callback that comes after each round, and before all others.
    order = -1_000_000
    before_iteration = False

    def __init__(self, task: TrainTask, mesh: Mesh | None, *, leads: bool) -> None:
        self.task = task
        self.request = task.request
        self.mesh = mesh
        self.leads = leads
        self.began = self.done = 0  # rounds
        self.history: dict[str, dict[str, list[float]]] = OrderedDict()
        self.callbacks = list(self.request["callbacks"])
        self._network: Network | None = None
        self._predictions: dict[str, np.ndarray] = {}
        self._names: dict[int, str] = {}
        self._metrics: MetricReducer | None = None
        self._asked_checkpoint: Checkpoint | None = None

    def run(self, network: Network | None) -> dict[str, Any]:
        """Train, in all rounds that are left."""
        self._network = network
        task, request = self.task, self.request
        init_model = self._start()
        params = self._params()
        train_set = make_dataset(
            task.train, params, request["feature_name"], request["categorical_feature"], self._reference(params)
        )
        sets, names = self._valid_sets(params, train_set)
        custom = [*request["feval"]]
        names_of_custom: set[str] = set()
        feval: list[Any] = [_Named(function, names_of_custom) for function in custom]
        if self.mesh is not None and needs_predictions(params.get("metric")):
            feval.append(self._keep_predictions)
        self._metrics = MetricReducer(
            self.mesh,
            {name: data.block for data, name in task.evals},
            names_of_custom.__contains__,
        )
        for index, callback in enumerate(self.callbacks):
            _set_default_order(callback, index - len(self.callbacks))
            if hasattr(callback, "is_rank_0"):
                callback.is_rank_0 = self.leads
        try:
            bst = lightgbm.train(
                params,
                train_set,
                request["num_boost_round"] - self.done,
                valid_sets=sets,
                valid_names=names,
                feval=feval or None,
                init_model=init_model,
                callbacks=[_Before(self), self],
            )
        except _Asked:
            return {"bst": None, "evals_result": {}, "stopped": True, "checkpoint": self._asked_checkpoint}
        if network is not None:
            network.check()
        return {
            "bst": (clean_model(bst.model_to_string(num_iteration=-1)), bst.best_iteration, dict(bst.best_score))
            if self.leads
            else None,
            "evals_result": self.history,
            "stopped": False,
        }

    # ---- the beginning -------------------------------------------------------------------------------------------------

    def _start(self) -> Any:
        """The model before the first round."""
        checkpoint = self.task.checkpoint
        model = self.request["init_model"]
        if checkpoint is not None:
            self.began = self.done = checkpoint.rounds
            model, self.history, callbacks = pickle.loads(checkpoint.state)
            if callbacks is not None:
                self.callbacks = callbacks
        return None if model is None else lightgbm.Booster(model_str=model)

    def _params(self) -> dict[str, Any]:
        params = {**self.request["params"], "num_threads": self.task.num_threads}
        if not self.leads:
            params["verbosity"] = -1
        if self.mesh is not None:
            params["num_machines"] = self.mesh.size
            params["pre_partition"] = True
        else:
            params["tree_learner"] = "serial"
        if not {"force_col_wise", "force_row_wise"} & set(params):
            # LightGBM would choose by a race: another winner, other sums in the last digits.
            features = self.task.train.block.data
            narrow = n_columns(features) <= _ROW_WISE_COLUMNS and not is_sparse(features)
            params["force_row_wise" if narrow else "force_col_wise"] = True
        if self.done:
            # The state of its generators cannot be saved: other seeds, or the rounds to come would sample what the first
            # ones did.
            seed = int(params.get("seed") or 0)
            for name in ("bagging_seed", "feature_fraction_seed", "extra_seed", "drop_seed", "objective_seed"):
                params[name] = int(params.get(name, seed)) + self.done
        return params

    def _reference(self, params: dict[str, Any]) -> Any:
        """A dataset whose bins suit the rows of all ranks, the same on each of them.

        Left to itself, LightGBM finds the bins of each feature on the rows of one rank. Made of a sample of all rows they are
        those of a single process, and a category that one shard lacks is not lost.
        """
        if self.mesh is None:
            return None
        task, wanted = self.task, int(params["bin_construct_sample_cnt"])
        rows = [int(count) for count in self.mesh.allgather(str(task.train.block.n).encode())]
        share = math.ceil(wanted * task.train.block.n / sum(rows))
        if sum(rows) > wanted:
            params["feature_pre_filter"] = False  # counts in the sample are not those in the data
        seed = int(params.get("data_random_seed") or params.get("seed") or 1)
        pooled = self._pool(sample_rows(task.train.block, share, seed))
        names, categorical = self.request["feature_name"], self.request["categorical_feature"]
        return make_dataset(pooled, params, names, categorical, None).construct()

    def _pool(self, own: Block) -> Data:
        assert self.mesh is not None
        gathered = self.mesh.allgather(pickle.dumps(own, 5))
        parts = []
        for at in range(self.mesh.size):
            parts.append(own if at == self.mesh.index else pickle.loads(gathered[at]))
            gathered[at] = b""
        return dataclasses.replace(self.task.train, block=concat_blocks(parts))

    def _valid_sets(self, params: dict[str, Any], train_set: Any) -> tuple[list[Any], list[str]]:
        """The evaluation datasets of which this rank has rows."""
        sets, names = [], []
        made = {id(self.task.train): train_set}
        for data, name in self.task.evals:
            if not data.block.n:
                continue
            if id(data) not in made:
                made[id(data)] = make_dataset(data, params, "auto", "auto", train_set)
            sets.append(made[id(data)])
            names.append(name)
            self._names[id(sets[-1])] = name
        return sets, names

    def _keep_predictions(self, predictions: np.ndarray, dataset: Any) -> list[Any]:
        self._predictions[self._names[id(dataset)]] = np.array(predictions)
        return []

    # ---- after each round ----------------------------------------------------------------------------------------------

    def environment(self, env: Any) -> Any:
        """What a callback of the user is called with: rounds are counted from the first attempt's start."""
        return lightgbm.callback.CallbackEnv(
            model=env.model,
            params=env.params,
            iteration=env.iteration,
            begin_iteration=env.begin_iteration - self.began,
            end_iteration=env.end_iteration,
            evaluation_result_list=env.evaluation_result_list,
        )

    def check(self) -> None:
        """Raise if another rank is lost."""
        if self._network is not None:
            self._network.check()

    def __call__(self, env: Any) -> None:
        """After a round: combine, tell, ask the user's callbacks, agree on whether to go on."""
        self.check()
        assert self._metrics is not None
        results = self._metrics.reduce([tuple(result)[:4] for result in env.evaluation_result_list], self._predictions)
        env.evaluation_result_list[:] = [_as_result(result) for result in results]
        self._record(env.iteration - env.begin_iteration + self.began, results)
        env = self.environment(env)
        end: Any = None
        for callback in sorted(self.callbacks, key=attrgetter("order")):
            if getattr(callback, "before_iteration", False):
                continue
            try:
                callback(env)
            except lightgbm.callback.EarlyStopException as stop:
                end = stop
                break
        self.done += 1
        task = self.task
        left = self.done < self.request["num_boost_round"]
        every = task.checkpoint_every if self.request["resumable"] else 0
        if self.leads and every and self.done % every == 0 and left and end is None:
            task.put("checkpoint", self._checkpoint(env.model))
        self._agree(env, end, left)

    def _record(self, rounds: int, results: list[Result]) -> None:
        for data, name, value, _ in results:
            self.history.setdefault(data, OrderedDict()).setdefault(name, []).append(value)
        if self.leads and results:
            self.task.put("eval", (rounds, [(data, name, value) for data, name, value, _ in results]))

    def _agree(self, env: Any, end: Any, left: bool) -> None:
        """End on all ranks if any of them is to end, or some would wait for the others for ever."""
        asked = self.task.stoppable and self.task.stop.is_set()
        best = -1 if end is None else int(end.best_iteration)
        if self.mesh is not None and (self.task.stoppable or self.callbacks):
            votes = [np.frombuffer(part, np.int64) for part in self.mesh.allgather(np.array([asked, best]).tobytes())]
            asked = any(vote[0] for vote in votes)
            best = max(int(vote[1]) for vote in votes)
        if best >= 0:
            for callback in self.callbacks:
                if hasattr(callback, "after_early_stopping"):
                    callback.after_early_stopping(env, best + 1)
            raise end or lightgbm.callback.EarlyStopException(best, env.evaluation_result_list)
        if asked and left:
            self._asked_checkpoint = self._checkpoint(env.model)
            raise _Asked

    def _checkpoint(self, bst: Any) -> Checkpoint:
        model = clean_model(bst.model_to_string(num_iteration=-1))
        try:
            state = cloudpickle.dumps((model, self.history, self.callbacks), 5)
        except Exception:  # callbacks that hold files or locks begin anew
            state = pickle.dumps((model, self.history, None), 5)
        return Checkpoint(self.done, state, self.task.ranks)


class _Before:
    """The callback that comes before each round."""

    order = -1_000_000
    before_iteration = True

    def __init__(self, rounds: Rounds) -> None:
        self._rounds = rounds

    def __call__(self, env: Any) -> None:
        self._rounds.check()  # building the datasets may have lost a rank
        own = self._rounds.environment(env)
        for callback in sorted(self._rounds.callbacks, key=attrgetter("order")):
            if getattr(callback, "before_iteration", False):
                callback(own)


class _Named:
    """A metric of the user, whose names are written down."""

    def __init__(self, function: Any, names: set[str]) -> None:
        self._function = function
        self._names = names

    def __call__(self, predictions: np.ndarray, dataset: Any) -> Any:
        returned = self._function(predictions, dataset)
        self._names.update(str(each[0]) for each in (returned if isinstance(returned, list) else [returned]))
        return returned


def _set_default_order(callback: Any, order: int) -> None:
    if not hasattr(callback, "order"):
        callback.order = order


def _as_result(result: Result) -> Any:
    kind = getattr(lightgbm.basic, "EvalResult", None)  # a plain tuple before LightGBM 4.7
    return result if kind is None else kind(*result)


def sample_rows(block: Block, count: int, seed: int) -> Block:
    """Return so many rows of a block, without anything that bins do not depend on."""
    rows: slice | np.ndarray = slice(None)
    if count < block.n:
        rows = np.sort(np.random.default_rng(seed).choice(block.n, count, replace=False))
    return Block(
        take_rows(block.data, rows),
        label=np.zeros(min(count, block.n), np.float32),
        feature_names=block.feature_names,
        feature_types=block.feature_types,
    )


def clean_model(text: str) -> str:
    """Return the text of a model without what says on how many ranks it was trained.

    Whoever continues or refits the model would be taken for one of them.
    """
    head, mark, tail = text.partition("\nparameters:\n")
    for name, value in _HOW.items():
        tail = re.sub(rf"^\[{name}: .*\]$", f"[{name}: {value}]", tail, count=1, flags=re.MULTILINE)
    return head + mark + tail


def as_booster(result: Mapping[str, Any] | tuple[str, int, Any], params: Mapping[str, Any]) -> Any:
    """Make the Booster that the driver returns of what a rank has returned."""
    text, best_iteration, best_score = result
    bst = lightgbm.Booster(model_str=text)
    bst.best_iteration = best_iteration
    bst.best_score = best_score
    bst.params = dict(params)
    return bst
