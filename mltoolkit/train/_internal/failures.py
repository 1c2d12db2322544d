"""What went wrong on workers: which failure came first, and which merely followed from it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mltoolkit
from mltoolkit.exceptions import RayActorError, RayError, RayTaskError
from mltoolkit.train._internal.worker_group import Worker
from mltoolkit.train.error import WorkerGroupError

__all__ = ["STALL_VARIABLE", "StallWatch", "collect_failures", "gather", "make_error", "original", "stall_after_s"]

STALL_VARIABLE = "MLTOOLKIT_TRAIN_STALL_S"
"""Environment variable: seconds after which ranks that stand still together count as waiting for ever; 20 by default."""

GRACE_S = 1.0
"""How long other workers' failures are waited for, once one is known: a broken connection may be heard of first."""

_TICK_S = 1.0

_FOLLOWED_NAMES = frozenset({"DistBackendError", "DistNetworkError", "DistStoreError", "ConnectionError"})
_FOLLOWED_TEXTS = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Connection refused",
    "Broken pipe",
    "gloo/transport",
    "Application timeout caused pair closure",
    "NCCL communicator was aborted",
    "ncclRemoteError",
)


def stall_after_s() -> float:
    """How long ranks may stand still together."""
    text = os.environ.get(STALL_VARIABLE, "20")
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{STALL_VARIABLE} must be a number of seconds, got {text!r}.") from None


def gather(running: Mapping[int, Any], workers: Sequence[Worker], *, watch: StallWatch | None = None) -> list[Any]:
    """Wait for calls on workers; what they returned, in the order of ranks.

    Parameters
    ----------
    running : dict of int to ObjectRef
        By world rank.
    workers : sequence of Worker
    watch : StallWatch, optional

    Raises
    ------
    WorkerGroupError
        As soon as one fails: the others are not waited for.
    """
    results: dict[int, Any] = {}
    while len(results) < len(running):
        waiting = {ref: rank for rank, ref in running.items() if rank not in results}
        done, _ = mltoolkit.wait(list(waiting), num_returns=1, timeout=_TICK_S)
        for ref in done:
            rank = waiting[ref]
            try:
                results[rank] = mltoolkit.get(ref)
            except RayError as error:
                raise make_error(collect_failures({rank: error}, running), workers) from original(error)
        if not done and watch is not None:
            stalled = watch.check(dict.fromkeys(results, "has ended"))
            if stalled:
                raise make_error(stalled, workers)
    return [results[rank] for rank in sorted(results)]


def original(error: BaseException) -> BaseException:
    """The exception that was raised on the worker, without what its way here added."""
    return error.cause if isinstance(error, RayTaskError) and error.cause is not None else error


def collect_failures(
    first: Mapping[int, BaseException], pending: Mapping[int, Any], grace_s: float = GRACE_S
) -> dict[int, BaseException]:
    """The failures that others did not cause.

    Parameters
    ----------
    first : dict of int to BaseException
        What is known, by rank.
    pending : dict of int to ObjectRef
        Results of the other workers.

    Returns
    -------
    dict of int to BaseException
    """
    failures = dict(first)
    waiting = {ref: rank for rank, ref in pending.items() if rank not in failures}
    deadline = time.monotonic() + grace_s
    # A failure that explains itself needs no company; one that follows from another waits for that one.
    while waiting and all(_follows(error) for error in failures.values()):
        left = deadline - time.monotonic()
        if left <= 0:
            break
        done, _ = mltoolkit.wait(list(waiting), num_returns=1, timeout=left)
        for ref in done:
            rank = waiting.pop(ref)
            try:
                mltoolkit.get(ref)
            except RayError as error:
                failures[rank] = error
    causes = {rank: error for rank, error in failures.items() if not _follows(error)}
    return dict(sorted((causes or failures).items()))


def _follows(error: BaseException) -> bool:
    """Whether a failure looks as if another worker's had caused it."""
    if isinstance(error, RayActorError):
        return False
    cause = original(error)
    if any(cls.__name__ in _FOLLOWED_NAMES for cls in type(cause).__mro__):
        return True
    return isinstance(cause, RuntimeError) and any(text in str(cause) for text in _FOLLOWED_TEXTS)


def make_error(failures: Mapping[int, BaseException], workers: Sequence[Worker]) -> WorkerGroupError:
    """One exception for what went wrong, with ranks and the tracebacks of the workers."""
    parts = []
    for rank, error in failures.items():
        worker = next((each for each in workers if each.ranks.world_rank == rank), None)
        where = f" (pid {worker.info.pid} on {worker.info.hostname})" if worker is not None else ""
        head = f"Rank {rank} of {len(workers)}{where}"
        if isinstance(error, RayTaskError):
            parts.append(f"{head} raised {_one_line(original(error))}\n\n{error.traceback_str.rstrip()}")
        elif isinstance(error, RayActorError):
            parts.append(f"{head} died: {error}")
        else:
            parts.append(f"{head} failed: {type(error).__name__}: {error}")
    error = WorkerGroupError("\n\n".join(parts), {rank: original(error) for rank, error in failures.items()})
    error.__cause__ = next(iter(error.worker_failures.values()), None)
    return error


def _one_line(error: BaseException) -> str:
    text = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


@dataclass
class _Seen:
    since: float
    cpu_s: float
    looks: int = 0


class StallWatch:
    """Notices workers that wait for each other for ever, for instance because one has fewer batches than the others.

    A worker stands still if its main thread is inside a collective operation and its process uses no CPU time. That is
    how one waits for a slower worker, so alone it says nothing; but if every other worker has ended, waits at a report
    or stands still likewise, then nobody is left to be waited for.

    Parameters
    ----------
    workers : sequence of Worker
    after_s : float
        How long that must last.
    """

    LOOK_S = 1.0
    BUSY_SHARE = 0.05

    def __init__(
        self, workers: Sequence[Worker], after_s: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._workers = workers
        self._after_s = after_s
        self._clock = clock
        self._last_look = clock()
        self._idle: dict[int, _Seen] = {}

    def check(self, at_rest: Mapping[int, str]) -> dict[int, BaseException]:
        """Look at the workers, at most once in a while.

        Parameters
        ----------
        at_rest : dict of int to str
            Ranks that have ended or wait at a report, and which of it.

        Returns
        -------
        dict of int to BaseException
            Empty, or what to raise, by rank.
        """
        now = self._clock()
        others = [worker for worker in self._workers if worker.ranks.world_rank not in at_rest]
        if now - self._last_look < self.LOOK_S or not others or len(self._workers) == 1:
            return {}
        self._last_look = now
        try:
            probes = mltoolkit.get([worker.actor.probe.remote() for worker in others], timeout=self.LOOK_S)
        except (RayError, TimeoutError):  # it has died, which is heard of elsewhere, or holds the interpreter's lock
            self._idle.clear()
            return {}
        stuck: dict[int, str] = {}
        for worker, probe in zip(others, probes, strict=True):
            rank = worker.ranks.world_rank
            seen = self._idle.get(rank)
            used = probe.cpu_s - seen.cpu_s if seen is not None else 0.0
            elapsed = now - seen.since if seen is not None else 0.0
            if not probe.in_collective:
                self._idle.pop(rank, None)
            elif seen is None or used > self.BUSY_SHARE * max(elapsed, self.LOOK_S):
                self._idle[rank] = _Seen(now, probe.cpu_s)
            elif elapsed >= self._after_s:
                stuck[rank] = probe.where
        if len(stuck) < len(others):
            return {}
        resting = [f"rank {rank} {what}" for rank, what in sorted(at_rest.items())]
        if not resting:
            resting = ["all ranks wait for each other in different operations"]
        return {
            rank: RuntimeError(
                f"It has waited for the other ranks for {self._after_s:g} s at {where}, but {'; '.join(resting)}. All "
                "ranks must take part in the same operations in the same order: check that they have the same number of "
                "batches and report equally often."
            )
            for rank, where in stuck.items()
        }
