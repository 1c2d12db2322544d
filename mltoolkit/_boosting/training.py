"""The driver of a training: attempts, checkpoints, replacements, messages."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import mltoolkit
from mltoolkit._boosting.actor import Checkpoint
from mltoolkit._boosting.errors import ActorFailure, LostPeersError
from mltoolkit._boosting.group import ActorGroup, Starting, is_lost
from mltoolkit._boosting.library import Library
from mltoolkit._boosting.matrix import RayDMatrix
from mltoolkit._boosting.params import RayParams
from mltoolkit._boosting.progress import write_line
from mltoolkit._boosting.resources import ActorResources, plan_resources
from mltoolkit._boosting.runtime import light_start
from mltoolkit.util.preloading import preload_modules

__all__ = ["Training", "TrainingResult"]

# How long ranks have to notice by themselves that another one is lost, before they are told, and before they are ended.
_NOTICE_S = 2.0
_UNWIND_S = 4.0


@dataclass
class TrainingResult:
    """What training gave.

    Attributes
    ----------
    bst : object
        The model.
    evals_result : dict
        Data, metric, values by round.
    total_n : int
        Rows of the ranks that took part in the end.
    callback_returns : list of list
        What each rank has sent with ``put_queue``.
    training_time_s : float
        Seconds spent in attempts.
    """

    bst: Any
    evals_result: dict[str, Any]
    total_n: int
    callback_returns: list[list[Any]]
    training_time_s: float

    def additional_results(self) -> dict[str, Any]:
        """As ``train(additional_results=...)`` gives it."""
        return {
            "total_n": self.total_n,
            "callback_returns": self.callback_returns,
            "training_time_s": self.training_time_s,
        }


@dataclass
class _Attempt:
    """What the ranks of one attempt have returned."""

    results: dict[int, dict[str, Any]] = field(default_factory=dict)
    errors: dict[int, BaseException] = field(default_factory=dict)
    #: Ranks in good order that were ended, because they waited for lost ones: they start again at once.
    ended: set[int] = field(default_factory=set)


class Training:
    """One training, through all its attempts.

    Parameters
    ----------
    library : Library
    params : RayParams
        Checked.
    dtrain : RayDMatrix
    evals : sequence of (RayDMatrix, str)
    request : dict
        The library's own arguments, the same for all ranks.
    wants_gpu : bool
        Whether each actor should get a GPU if the parameters leave it open.
    on_eval : callable
        Called in the driver with ``(round, [(data, metric, value)])`` as evaluations arrive.
    """

    def __init__(
        self,
        library: Library,
        params: RayParams,
        dtrain: RayDMatrix,
        evals: Sequence[tuple[RayDMatrix, str]],
        request: dict[str, Any],
        *,
        wants_gpu: bool,
        on_eval: Callable[[int, list[tuple[str, str, float]]], None],
    ) -> None:
        self.library = library
        self.params = params
        self.dtrain = dtrain
        self.evals = list(evals)
        self.request = request
        self.wants_gpu = wants_gpu
        self.on_eval = on_eval
        self.checkpoint: Checkpoint | None = None
        self._returns: list[list[Any]] = [[] for _ in range(params.num_actors)]
        self._restarts = 0
        self._rounds = 0
        self._training_s = 0.0
        self._next_look = 0.0
        self._starting: dict[int, Starting] = {}
        self._ended: set[int] = set()
        self._first_ready_at: float | None = None
        self._log = library.logger.info if params.verbose else library.logger.debug

    # ---- the whole -----------------------------------------------------------------------------------------------------

    def run(self) -> TrainingResult:
        """Train until it is done.

        Raises
        ------
        RuntimeError
            The library's training error: an actor was lost and may not be replaced, or the user's own code raised, which
            is then its ``__cause__``.
        """
        matrices = [self.dtrain, *(matrix for matrix, _ in self.evals)]
        full = b"sklearn" in _pickled(self.request, self.params.distributed_callbacks)
        preload_modules(*self.library.preload)
        with light_start(self.library.module):
            request = mltoolkit.put(self.request)
            resources = self._plan()
        with ActorGroup(self.library, self.params, resources, matrices, full_import=full) as group:
            try:
                while True:
                    try:
                        goes_on = self.params.elastic_training and (group.actors or self._ended)
                        group.start(self._ended if goes_on else None)
                        self._ended = set()
                        self._log("[%s] %d actors are ready.", self.library.name, len(group.actors))
                        result = self._attempt(group, request)
                        if result is not None:
                            return result
                    except ActorFailure as failure:
                        self._recover(group, failure)
            finally:
                for one in self._starting.values():
                    group._kill(one.actor)

    def _plan(self) -> ActorResources:
        return plan_resources(self.params, wants_gpu=self.wants_gpu, logger=self.library.logger)

    def _recover(self, group: ActorGroup, failure: ActorFailure) -> None:
        """Make the group fit for another attempt, or give up."""
        limit = self.params.max_actor_restarts
        group.drop(failure.ranks)
        self._ended.difference_update(failure.ranks)
        if 0 <= limit <= self._restarts:
            allowed = f"max_actor_restarts={limit}" + (" are used up" if limit else "")
            raise self.library.training_error(
                f"Training lost {_ranks(failure.ranks)} and {allowed}: {failure}"
            ) from failure.__cause__
        self._restarts += 1
        rounds = self.checkpoint.rounds if self.checkpoint else 0
        if self.params.elastic_training:
            left = len({*group.actors, *self._ended})
            if left < self.params.num_actors - self.params.max_failed_actors:
                raise self.library.training_error(
                    f"Training lost {_ranks(failure.ranks)}; {left} actors are left, with "
                    f"max_failed_actors={self.params.max_failed_actors} of {self.params.num_actors}: {failure}"
                ) from failure.__cause__
            self.library.logger.warning(
                "[%s] Lost %s (%s). Training goes on with %d actors from round %d.",
                self.library.name, _ranks(failure.ranks), _first_line(failure), left, rounds,
            )  # fmt: skip
            self._next_look = 0.0
            return
        if not all(group.bundle_is_left(rank) for rank in failure.ranks):
            group.move(self._plan())  # the others as well, and all share what is left where it does not suffice
        self.library.logger.warning(
            "[%s] Lost %s (%s). Training starts again from round %d (restart %d of %s).",
            self.library.name, _ranks(failure.ranks), _first_line(failure), rounds, self._restarts,
            limit if limit >= 0 else "any number",
        )  # fmt: skip

    # ---- one attempt ---------------------------------------------------------------------------------------------------

    def _attempt(self, group: ActorGroup, request: mltoolkit.ObjectRef) -> TrainingResult | None:
        """Train with the actors that are there. None: stopped, in order to go on with more of them."""
        ranks = tuple(sorted(group.actors))
        self._next_look = 0.0
        actors = [group.actors[rank] for rank in ranks]
        datasets = group.datasets()
        self._check_columns(datasets)
        plan = {
            "request": request,
            "train": self.dtrain.uid,
            "evals": [(matrix.uid, name) for matrix, name in self.evals],
            "datasets": datasets,
            "checkpoint": self.checkpoint,
            "checkpoint_every": self.params.checkpoint_frequency if self.params.max_actor_restarts else 0,
            "stoppable": self.params.elastic_training,
            "ranks": ranks,
        }
        began = time.monotonic()
        hosts = group.hosts()
        try:
            meeting = self._gather(
                ranks, [a.prepare.remote(i, len(ranks), hosts[ranks[i]]) for i, a in enumerate(actors)]
            )
            plan_ref = mltoolkit.put(plan)
            calls = {a.train.remote(plan_ref, i, meeting): ranks[i] for i, a in enumerate(actors)}
            attempt = self._follow(group, calls)
        finally:
            self._training_s += time.monotonic() - began
        self._judge(group, ranks, attempt)
        first = attempt.results[ranks[0]]
        if first["stopped"]:
            self.checkpoint = first["checkpoint"]
            for rank in [rank for rank, one in self._starting.items() if one.is_ready()]:
                one = self._starting.pop(rank)
                group.admit(one)
            self._log("[%s] Training goes on with %d actors.", self.library.name, len(group.actors))
            return None
        return TrainingResult(
            bst=first["bst"],
            evals_result=first["evals_result"],
            total_n=sum(result["train_n"] for result in attempt.results.values()),
            callback_returns=self._returns,
            training_time_s=self._training_s,
        )

    def _check_columns(self, datasets: dict[int, dict[str, Any]]) -> None:
        """Refuse datasets to evaluate whose features are not those of the training data."""
        own = datasets[self.dtrain.uid]["schema"]
        names = self.dtrain.feature_names or own.names
        for matrix, name in self.evals:
            other = datasets[matrix.uid]["schema"]
            others = matrix.feature_names or other.names
            if other.width != own.width:
                raise ValueError(
                    f"The dataset {name!r} must have the {own.width} features of the training data, got {other.width}."
                )
            if names is not None and others is not None and set(names) != set(others):
                missing = [column for column in names if column not in set(others)]
                extra = [column for column in others if column not in set(names)]
                raise ValueError(
                    f"The dataset {name!r} must have the features of the training data. It lacks "
                    f"{', '.join(map(repr, missing)) or 'none'}, and has {', '.join(map(repr, extra)) or 'none'} beside them."
                )

    def _gather(self, ranks: Sequence[int], refs: list[Any]) -> list[Any]:
        try:
            return mltoolkit.get(refs)
        except Exception:
            attempt = _Attempt()
            for rank, ref in zip(ranks, refs, strict=True):
                try:
                    mltoolkit.get(ref)
                except Exception as error:
                    attempt.errors[rank] = error
            lost = {rank: error for rank, error in attempt.errors.items() if is_lost(error)}
            if lost:
                rank, first = min(lost.items())
                raise ActorFailure(tuple(sorted(lost)), f"rank {rank}: {first}") from first
            raise

    def _follow(self, group: ActorGroup, calls: dict[Any, int]) -> _Attempt:
        """Wait for all ranks, pass their messages on, and look after replacements."""
        attempt = _Attempt()
        polls = {group.actors[rank].messages.remote(): rank for rank in calls.values()}
        deadline: float | None = None
        told = False
        every = self.library.setting("STATUS_FREQUENCY_S", 30)
        began = time.monotonic()
        status_at = began + every
        while calls or polls:
            self._look_after_replacements(group, running=not attempt.errors)
            now = time.monotonic()
            if now >= status_at:
                self._tell_status(self._training_s + now - began)
                status_at = now + every
            wait_s = min(status_at, deadline or status_at) - now
            extra = [ref for one in self._starting.values() for ref in one.refs()] if deadline is None else []
            if extra or self._first_ready_at is not None:
                wait_s = min(wait_s, 0.2)
            ready, _ = mltoolkit.wait([*calls, *polls], num_returns=1, timeout=max(0.0, wait_s))
            for ref in ready:
                if ref in calls:
                    rank = calls.pop(ref)
                    try:
                        attempt.results[rank] = mltoolkit.get(ref)
                    except Exception as error:
                        attempt.errors[rank] = error
                else:
                    self._receive(group, polls, ref)
            if attempt.errors and deadline is None:
                deadline = time.monotonic() + _NOTICE_S
            if deadline is not None and not told and time.monotonic() > deadline:
                deadline, told = time.monotonic() + _UNWIND_S, True
                for rank in group.actors:
                    group.actors[rank].abort.remote()
            if deadline is not None and (not calls or (told and time.monotonic() > deadline)):
                for rank in calls.values():
                    attempt.errors[rank] = LostPeersError("It did not notice within time that another rank was lost.")
                    attempt.ended.add(rank)
                group.drop(attempt.ended)
                return attempt
        return attempt

    def _tell_status(self, training_s: float) -> None:
        if self.params.verbose:
            done = f"{self._rounds} rounds in " if self._rounds else ""
            write_line(f"[{self.library.name}] {done}{training_s:.0f} s")

    def _receive(self, group: ActorGroup, polls: dict[Any, int], ref: Any) -> None:
        rank = polls.pop(ref)
        try:
            messages = mltoolkit.get(ref)
        except Exception as error:
            if is_lost(error):  # its call to train says so as well
                return
            # Evaluations, checkpoints and reports were among them: training without them would look as if all were well.
            cause = getattr(error, "cause", None) or error
            raise self.library.training_error(
                f"What rank {rank} has sent could not be received: {type(cause).__name__}: {cause}. Items given to "
                "put_queue() must be such as can be pickled."
            ) from error
        ended = False
        for kind, value in messages:
            if kind == "end":
                ended = True
            elif kind == "item":
                if callable(value):
                    value()
                else:
                    self._returns[rank].append(value)
            elif kind == "eval":
                self._rounds = value[0] + 1
                self.on_eval(*value)
            elif kind == "round":
                self._rounds = value
            elif kind == "checkpoint":
                self.checkpoint = value
        if not ended and rank in group.actors:
            polls[group.actors[rank].messages.remote()] = rank

    def _judge(self, group: ActorGroup, ranks: Sequence[int], attempt: _Attempt) -> None:
        """Raise what the errors of an attempt mean."""
        if not attempt.errors:
            return
        lost = {rank: error for rank, error in attempt.errors.items() if is_lost(error)}
        own = {
            rank: error
            for rank, error in attempt.errors.items()
            if rank not in lost and not isinstance(error, LostPeersError)
        }
        if own:
            rank, error = min(own.items())
            cause = getattr(error, "cause", None) or error
            text = str(cause).partition("\nStack trace:")[0]  # of native code, which the cause has still
            raise self.library.training_error(
                f"Training failed in rank {rank}: {type(cause).__name__}: {text}"
            ) from error
        gone = tuple(sorted(lost))
        self._ended = set(attempt.ended)
        rank, error = min((lost or attempt.errors).items())
        raise ActorFailure(gone, f"rank {rank}: {error}") from error

    # ---- replacements in elastic training --------------------------------------------------------------------------------

    def _look_after_replacements(self, group: ActorGroup, *, running: bool) -> None:
        """Ask for actors in place of those that are missing, and stop the attempt once they are ready."""
        missing = [rank for rank in range(self.params.num_actors) if rank not in group.actors]
        if not self.params.elastic_training or not missing or not running:
            return
        if self.library.setting("ELASTIC_RESTART_DISABLED", 0):
            return
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + self.library.setting("ELASTIC_RESTART_RESOURCE_CHECK_S", 30)
            for rank in missing:
                if rank not in self._starting:
                    self._starting[rank] = group.launch(rank, outside=not group.bundle_is_left(rank))
        ready = []
        for rank, one in list(self._starting.items()):
            if not one.is_ready():
                continue
            try:
                mltoolkit.get(one.refs())
                ready.append(rank)
            except Exception as error:
                self.library.logger.warning("[%s] A replacement for rank %d failed: %s", self.library.name, rank, error)
                group._kill(self._starting.pop(rank).actor)
        if not ready:
            self._first_ready_at = None
            return
        if self._first_ready_at is None:
            self._first_ready_at = now
        grace = self.library.setting("ELASTIC_RESTART_GRACE_PERIOD_S", 10)
        if len(ready) == len(missing) or now - self._first_ready_at > grace:
            self._first_ready_at = None
            self._next_look = now + 1e9  # until the next attempt
            for actor in group.actors.values():
                actor.stop.remote()


def _ranks(ranks: Sequence[int]) -> str:
    if not ranks:
        return "the connection between the ranks"
    return f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {', '.join(map(str, ranks))}"


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]


def _pickled(*values: Any) -> bytes:
    """The user's code as bytes, to see what it refers to; nothing where it cannot be pickled, which is told elsewhere."""
    import cloudpickle

    try:
        return bytes(cloudpickle.dumps(values))
    except Exception:
        return b""
