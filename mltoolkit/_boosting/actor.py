"""The actor: one rank of a distributed training, with its shard of each dataset."""

from __future__ import annotations

import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

import mltoolkit
from mltoolkit._boosting import block as blocks
from mltoolkit._boosting.block import Block, Schema
from mltoolkit._boosting.callback import DistributedCallbackContainer
from mltoolkit._boosting.errors import LostPeersError
from mltoolkit._boosting.session import BoostingSession, set_session

__all__ = ["BoostingActor", "Checkpoint", "Data", "RankLibrary", "TrainTask"]

_TELL_EVERY_S = 1.0


@dataclass
class Data:
    """One dataset as a rank sees it.

    Attributes
    ----------
    block : Block
        Its rows, in the form that all ranks share.
    settings : dict
        See ``RayDMatrix.settings``.
    total_rows : int
        Rows of all ranks.
    """

    block: Block
    settings: dict[str, Any]
    total_rows: int

    @property
    def feature_names(self) -> list[str] | None:
        """Names of the features: the user's, or the data's."""
        names: list[str] | None = self.settings["feature_names"]
        return names if names is not None else self.block.feature_names

    @property
    def feature_types(self) -> list[str] | None:
        """Types of the features: the user's, or the data's."""
        types: list[str] | None = self.settings["feature_types"]
        return types if types is not None else self.block.feature_types


@dataclass
class Checkpoint:
    """Where training can go on.

    Attributes
    ----------
    rounds : int
        Rounds that are done.
    state : bytes
        Whatever the library needs.
    ranks : tuple of int
        Which ranks it was trained with.
    """

    rounds: int
    state: bytes
    ranks: tuple[int, ...] = ()


@dataclass
class TrainTask:
    """One attempt at training, as a rank is told.

    Attributes
    ----------
    index, world_size : int
        Place of this rank among those that take part, and their number.
    ranks : tuple of int
        The ranks that take part.
    meeting : list
        What ``RankLibrary.prepare`` returned on each of them.
    request : dict
        The library's own arguments.
    train : Data
    evals : list of (Data, str)
        The datasets to evaluate on, with names; `train` itself may be among them.
    checkpoint : Checkpoint or None
        Where to go on.
    checkpoint_every : int
        Rounds between checkpoints; 0 for none.
    stoppable : bool
        Whether `stop` may be set; all ranks must then agree after each round whether to end.
    num_threads : int
    stop : threading.Event
        Asks this rank to end after the current round.
    put : callable
        Sends a message of a kind and a value to the driver: "eval" with ``(round, [(data, metric, value)])``, "checkpoint"
        with a :class:`Checkpoint`; "round" is sent by :meth:`tell_rounds`.
    """

    index: int
    world_size: int
    ranks: tuple[int, ...]
    meeting: list[Any]
    request: dict[str, Any]
    train: Data
    evals: list[tuple[Data, str]]
    checkpoint: Checkpoint | None
    checkpoint_every: int
    stoppable: bool
    num_threads: int
    stop: threading.Event
    put: Callable[[str, Any], None]
    _told_at: float = field(default_factory=time.monotonic)

    def tell_rounds(self, rounds: int) -> None:
        """Let the driver know how many rounds are done, once a second at most."""
        now = time.monotonic()
        if self.index == 0 and now - self._told_at >= _TELL_EVERY_S:
            self._told_at = now
            self.put("round", rounds)

    def checkpoint_due(self, rounds: int) -> bool:
        """Whether a checkpoint should be sent after so many rounds: the first, and every n-th from there."""
        return self.index == 0 and bool(self.checkpoint_every) and (rounds - 1) % self.checkpoint_every == 0


class RankLibrary(ABC):
    """What a library does in one rank. The actor makes one instance and keeps it."""

    @abstractmethod
    def load(self, *, full: bool) -> None:
        """Import the library; `full` with its estimators, because the user's code refers to them."""

    def data_loaded(self) -> None:  # noqa: B027 - nothing to do is the default
        """The rows of a dataset are here, and what is needed to read them is imported."""

    @abstractmethod
    def prepare(self, index: int, world_size: int, host: str) -> Any:
        """Get ready to meet the other ranks; what is returned is told to all of them.

        Parameters
        ----------
        index, world_size : int
            Place among the ranks that take part.
        host : str
            Address under which the others reach this process.
        """

    @abstractmethod
    def train(self, task: TrainTask) -> dict[str, Any]:
        """Train.

        Returns
        -------
        dict
            ``bst`` (the model; None on all ranks but one), ``evals_result``, ``rounds`` (done in all) and ``stopped``
            (whether `task.stop` ended it).

        Raises
        ------
        LostPeersError
            If the connection to the others breaks.
        """

    @abstractmethod
    def predict(self, model: Any, data: Data, arguments: dict[str, Any], num_threads: int) -> Any:
        """Predict one shard."""

    @abstractmethod
    def abort(self) -> None:
        """End the meeting from another thread, so that a rank that waits for lost ones stops waiting."""


class _Mailbox:
    """Messages to the driver, which asks for them and waits."""

    def __init__(self) -> None:
        self._messages: list[tuple[str, Any]] = []
        self._changed = threading.Condition()

    def put(self, kind: str, value: Any) -> None:
        with self._changed:
            self._messages.append((kind, value))
            self._changed.notify_all()

    def take(self) -> list[tuple[str, Any]]:
        with self._changed:
            while not self._messages:
                self._changed.wait()
            messages, self._messages = self._messages, []
            return messages


class BoostingActor:
    """One rank.

    Parameters
    ----------
    rank, num_actors : int
        Which of how many.
    library : type
        A :class:`RankLibrary`.
    full_import : bool
        See ``RankLibrary.load``.
    num_threads : int
        For computations.
    distributed_callbacks : sequence of DistributedCallback, optional
        Hooks.
    """

    def __init__(
        self,
        rank: int,
        num_actors: int,
        library: type[RankLibrary],
        full_import: bool,
        num_threads: int,
        distributed_callbacks: Sequence[Any] | None = None,
    ) -> None:
        self.rank = rank
        self.num_actors = num_actors
        self._mailbox = _Mailbox()
        self._threads = num_threads
        self._blocks: dict[int, Block] = {}
        self._stop = threading.Event()
        set_session(BoostingSession(rank, self._mailbox.put))
        self._callbacks = DistributedCallbackContainer(distributed_callbacks)
        self._callbacks.on_init(self)
        self._library = library()
        self._library.load(full=full_import)

    # ---- what the driver asks --------------------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """Say where this process is."""
        context = mltoolkit.get_runtime_context()
        return {"pid": os.getpid(), "node_id": context.get_node_id(), "host": mltoolkit.util.get_node_ip_address()}

    def pid(self) -> int:
        """Process id."""
        return os.getpid()

    def load(self, matrix: Any, shard: Any) -> dict[str, Any]:
        """Get the rows of one dataset, unless they are here already; say what they look like."""
        if matrix.uid not in self._blocks:
            self._callbacks.before_data_loading(self, matrix)
            self._blocks[matrix.uid] = shard.load()
            self._library.data_loaded()
            self._callbacks.after_data_loading(self, matrix)
        block = self._blocks[matrix.uid]
        return {
            "n": block.n,
            "schema": block.schema(),
            "place": (block.sources, block.source_rows, block.order),
            "queries": np.unique(block.qid) if block.qid is not None and block.sources else None,
        }

    def forget(self, uid: int) -> None:
        """Drop the rows of a dataset."""
        self._blocks.pop(uid, None)

    def prepare(self, index: int, world_size: int, host: str) -> Any:
        """See ``RankLibrary.prepare``."""
        self._stop = threading.Event()
        return self._library.prepare(index, world_size, host)

    def train(self, plan: dict[str, Any], index: int, meeting: list[Any]) -> dict[str, Any]:
        """Take part in one attempt.

        Parameters
        ----------
        plan : dict
            What is the same for all ranks: ``request``, ``train``, ``evals``, ``datasets``, ``checkpoint``,
            ``checkpoint_every``, ``stoppable``, ``ranks``.
        index : int
            Place among the ranks that take part.
        meeting : list
            What all of them have prepared.
        """
        try:
            self._callbacks.before_train(self)
            data = {uid: self._data(uid, about) for uid, about in plan["datasets"].items()}
            task = TrainTask(
                index=index,
                world_size=len(plan["ranks"]),
                ranks=plan["ranks"],
                meeting=meeting,
                request=dict(mltoolkit.get(plan["request"])),
                train=data[plan["train"]],
                evals=[(data[uid], name) for uid, name in plan["evals"]],
                checkpoint=plan["checkpoint"],
                checkpoint_every=plan["checkpoint_every"],
                stoppable=plan["stoppable"],
                num_threads=self._threads,
                stop=self._stop,
                put=self._mailbox.put,
            )
            result = self._library.train(task)
            result["train_n"] = task.train.block.n
            self._callbacks.after_train(self, result)
            if index:
                result["bst"] = None
            return result
        finally:
            self._mailbox.put("end", index)

    def predict(self, model: Any, uid: int, about: dict[str, Any], arguments: dict[str, Any]) -> Any:
        """Predict the rows of one dataset."""
        self._callbacks.before_predict(self)
        predictions = self._library.predict(model, self._data(uid, about), dict(arguments), self._threads)
        self._callbacks.after_predict(self, predictions)
        return predictions

    def _data(self, uid: int, about: dict[str, Any]) -> Data:
        schema: Schema = about["schema"]
        block = blocks.apply_schema(self._blocks[uid], schema)
        self._blocks[uid] = block
        return Data(replace(block), about["settings"], about["total_rows"])

    # ---- while it trains; on threads of their own --------------------------------------------------------------------

    def messages(self) -> list[tuple[str, Any]]:
        """Wait for messages."""
        return self._mailbox.take()

    def stop(self) -> None:
        """End training after the current round."""
        self._stop.set()

    def abort(self) -> None:
        """Give up on ranks that are lost."""
        self._library.abort()


def is_lost_peers(error: BaseException) -> bool:
    """Whether a rank failed only because others did."""
    return isinstance(error, LostPeersError)
