"""The runtime of ``init(local_mode=True)``: the same head, with executors that run inside the calling thread.

A task, or a call of a plain actor, runs in the thread that submits it, before ``.remote()`` returns, so that debuggers
step into it. Values are pickled, references counted, resources accounted and errors wrapped as everywhere, since the
same code does it. Generators run on as their items are asked for. Threaded and asyncio actors keep their threads and
loops, whose calls would otherwise wait for each other for ever; what their coroutines submit runs in threads of its own,
since the loop must go on.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

from mltoolkit import exceptions
from mltoolkit.core import host, task_context
from mltoolkit.core.actor_runner import LoopGroup, ThreadGroup
from mltoolkit.core.head import Head
from mltoolkit.core.ids import new_id
from mltoolkit.core.local_executor import InlineExecutor, InlineNode, LazyStream, running
from mltoolkit.core.memory_store import MemoryStore
from mltoolkit.core.object_ref import ObjectRef
from mltoolkit.core.pool import ExecutorRecord
from mltoolkit.core.reactor import Reactor
from mltoolkit.core.serialization import ERROR
from mltoolkit.core.specs import TaskSpec
from mltoolkit.core.waiting import Deadline, Waiter

_SLICE_S = 0.05  # how often a thread that waits looks whether there is something that only it can run
_JOIN_S = 2.0  # how long the end of a session waits for threads that are in user code

Action = Callable[[], object]


class FailedRef(ObjectRef):
    """A reference to the error of a task that has failed here, with its traceback, for debuggers.

    The traceback hangs on the reference and not on the table's entry: its frames usually hold the reference, and a
    table that held the frames would keep both for ever.
    """

    __slots__ = ("_traceback",)
    _traceback: TracebackType | None


class InlineBackend(Head):
    """`Backend` of ``local_mode``.

    Parameters
    ----------
    namespace : str
        The job's namespace.
    num_cpus, num_gpus : float, optional
        What the node offers. Default: as in an embedded session.
    resources : dict of str to float, optional
        Custom resources.
    store_limit : int, optional
        Bytes of large objects that may be kept. Default: as many as fit.
    """

    def __init__(
        self,
        namespace: str,
        *,
        num_cpus: float | None = None,
        num_gpus: float | None = None,
        resources: Mapping[str, float] | None = None,
        store_limit: int | None = None,
    ) -> None:
        node_id = new_id().hex()
        gpus = host.visible_gpus()
        cpus = float(host.default_cpus() if num_cpus is None else num_cpus)
        gpu_count = float(len(gpus) if num_gpus is None else num_gpus)
        boot = {"gpu_total": gpu_count}
        self._local = threading.local()
        self._workers = ThreadGroup("mltoolkit-inline", 1 << 30, self._run_apart)
        self._lazy: dict[bytes, LazyStream] = {}
        super().__init__(
            MemoryStore(store_limit, node_id), Reactor("mltoolkit-io"), namespace, lambda _: boot, log_to_driver=False
        )
        self.node = InlineNode(self, node_id)
        memory = float(host.default_memory())
        total = {"CPU": cpus, "memory": memory, **(resources or {}), f"node:{self.node.address}": 1.0}
        total["object_store_memory"] = memory if store_limit is None else float(store_limit)
        if gpu_count:
            total["GPU"] = gpu_count
        self.add_node(
            self.node, total, gpus[: int(gpu_count)] if len(gpus) >= gpu_count else list(range(int(gpu_count)))
        )
        task_context.share_process(True)
        self.reactor.start()

    @property
    def executor(self) -> InlineExecutor:
        """The executor that runs the calling code; the attribute does not exist in the driver's own code."""
        executor = running.get()
        if executor is None or executor.process.backend is not self:
            raise AttributeError("executor")
        return executor

    # ---- running what the head sets going ----------------------------------------------------------------------------

    def later(self, action: Action) -> None:
        """Do something outside the head's lock: at the end of the call that this thread is in, else in another."""
        posted: deque[Action] | None = getattr(self._local, "posted", None)
        if posted is not None:
            posted.append(action)
        else:
            self._workers.submit((action,))

    def _run_apart(self, message: tuple[Any, ...]) -> None:
        # Ctrl-C goes to the main thread: a KeyboardInterrupt is one that user code raised.
        with contextlib.suppress(KeyboardInterrupt), self._calling():
            message[0]()

    def _must_go_on(self) -> bool:
        """Return whether the calling thread is one that others wait for."""
        thread = threading.current_thread()
        if thread is self.reactor.thread or thread is self.callbacks._thread:
            return True
        executor = running.get()
        runner = executor.runner if executor is not None else None
        return (
            runner is not None
            and thread in runner.threads()
            and any(
                isinstance(g, LoopGroup) and g.thread is thread for g in (runner._default, *runner._groups.values())
            )
        )

    @contextlib.contextmanager
    def _calling(self) -> Iterator[None]:
        """Surround a call into the head: the caller's task lends its CPU, and what was set going runs at the end."""
        local = self._local
        outer = getattr(local, "posted", None)
        local.posted = None if self._must_go_on() else deque()
        executor = running.get()
        record = self.pool.records.get(executor.process.key) if executor is not None else None
        if record is not None:
            with self.lock:
                self._lend(record)
        try:
            yield
            self._run_posted()
        finally:
            posted, local.posted = local.posted, outer
            for action in posted or ():  # an interrupt has left them
                self._workers.submit((action,))
            if record is not None:
                with self.lock:
                    self.requests._unblock(record)

    def _lend(self, record: ExecutorRecord) -> None:
        self.requests._block(record)
        if self.groups.groups:
            self.groups.try_reserve()

    def _run_posted(self) -> None:
        posted = self._local.posted
        while posted:
            posted.popleft()()

    # ---- helping where this thread would wait ------------------------------------------------------------------------

    def _is_pending(self, object_id: bytes) -> bool:
        entry = self.objects.get(object_id)
        return entry is not None and entry.payload is None

    def _help(self, object_id: bytes, *, blocking: bool) -> bool:
        """Bring a pending object nearer if only the calling thread can; True if that made a difference."""
        with self.lock:
            entry = self.objects.get(object_id)
            spec: TaskSpec | None = entry.task if entry is not None and entry.payload is None else None
            if spec is None:
                return False
            deps = spec.deps if spec.waiting else ()
            stream = self._lazy.get(spec.task_id)
            process = getattr(spec.executor, "process", None)
        helped = [self._help(dep, blocking=blocking) for dep in deps]
        if any(helped):
            return True
        if stream is not None:
            stream.step()
        elif process is not None:
            process.help(spec, blocking)
        else:
            return False
        return stream is not None or not self._is_pending(object_id)

    def _wait_until(self, missing: Callable[[], int], refs: Sequence[ObjectRef], timeout: float | None) -> None:
        """Wait, helping, until no more objects are missing or the time has passed."""
        deadline = Deadline(timeout)
        self._run_posted()
        while (count := missing()) > 0 and not self.closed:
            pending = list({ref._id: ref for ref in refs if self._is_pending(ref._id)}.values())
            helped = False
            for ref in pending:
                if self._help(ref._id, blocking=timeout is None):
                    helped = True
                    self._run_posted()
                    if missing() <= 0:
                        return
            left = deadline.left()
            if left == 0:
                return
            if not helped:
                super().wait(pending, min(count, len(pending)), _SLICE_S if left is None else min(left, _SLICE_S))

    def _has_failed(self, ref: ObjectRef) -> bool:
        entry = self.objects.get(ref._id)
        return entry is None or (entry.payload is not None and entry.payload[0] == ERROR)

    def _settle_inputs(self, object_ids: Sequence[bytes]) -> None:
        """Run the generators to their end whose completion is asked for, unless this thread must go on."""
        if self._local.posted is not None:
            for object_id in object_ids:
                while self._help(object_id, blocking=False):
                    pass

    # ---- the API -----------------------------------------------------------------------------------------------------

    def submission_key(self) -> bytes:
        """Return no key: work sees the driver's present directory, path and environment by itself."""
        return b""

    def submit(self, spec: TaskSpec) -> list[ObjectRef]:
        self._mark(spec)
        local = self._local
        outer, local.tracebacks = getattr(local, "tracebacks", None), {}
        try:
            with self._calling():
                self._settle_inputs(spec.deps)
                refs = super().submit(spec)
            found = local.tracebacks.get(spec.task_id)
        finally:
            local.tracebacks = outer
        return [self._with_traceback(ref, found) for ref in refs] if found is not None else refs

    def _mark(self, spec: TaskSpec) -> None:
        executor = running.get()
        spec.parent = task_context.current().task_id
        spec.caller = executor.process.key if executor is not None else None

    def note_traceback(self, task_id: bytes, error: BaseException) -> None:
        """Keep where an exception came from, for the reference that its submission returns."""
        tracebacks = getattr(self._local, "tracebacks", None)
        if tracebacks is not None and error.__traceback__ is not None:
            tracebacks[task_id] = error.__traceback__.tb_next  # without the runtime's own frame

    def _with_traceback(self, ref: ObjectRef, traceback: TracebackType) -> ObjectRef:
        with self.lock:
            self.objects.hold(ref._id)
        failed = FailedRef(ref._id, self)
        failed._traceback = traceback
        return failed

    def create_actor(self, spec: TaskSpec) -> bytes:
        self._mark(spec)
        with self._calling():
            self._settle_inputs(spec.deps)
            return super().create_actor(spec)

    def get(self, refs: Sequence[ObjectRef], timeout: float | None) -> list[Any]:
        executor = running.get()
        if executor is not None:
            executor._warn_if_on_loop()

        def missing() -> int:
            return 0 if any(map(self._has_failed, refs)) else sum(self._is_pending(ref._id) for ref in refs)

        if missing():
            with self._calling():
                self._wait_until(missing, refs, timeout)
            late = missing()
            if late and not self.closed:
                raise exceptions.GetTimeoutError(
                    f"{late} of {len(refs)} objects were not ready within {timeout:g} s. The work goes on; `get` them "
                    "again later."
                )
        try:
            return super().get(refs, 0)
        except exceptions.RayTaskError as error:
            failed = next((ref for ref in refs if self._has_failed(ref)), None)
            if isinstance(failed, FailedRef):
                error.__traceback__ = failed._traceback  # the frames where it arose
            raise

    def wait(self, refs: Sequence[ObjectRef], num_returns: int, timeout: float | None) -> set[bytes]:
        with self._calling():
            self._wait_until(lambda: num_returns - sum(not self._is_pending(ref._id) for ref in refs), refs, timeout)
        return super().wait(refs, num_returns, 0)

    def future(self, ref: ObjectRef) -> concurrent.futures.Future[Any]:
        with self._calling():
            self._run_posted()
            future = super().future(ref)
            if self._is_pending(ref._id):
                self.later(lambda: self._settle_inputs((ref._id,)))
        return future

    def cancel(self, object_id: bytes, force: bool, recursive: bool) -> None:
        with self._calling():
            super().cancel(object_id, force, recursive)

    def kill_actor(self, actor_id: bytes, no_restart: bool) -> None:
        with self._calling():
            super().kill_actor(actor_id, no_restart)

    def query(self, what: str, *args: Any) -> Any:
        with self._calling():
            self._run_posted()
            return super().query(what, *args)

    # ---- streams -----------------------------------------------------------------------------------------------------

    def open_stream(self, stream: LazyStream) -> None:
        """A generator has begun: its task lends its CPU until an item is asked for."""
        with self.lock:
            self._lazy[stream.task_id] = stream
            record = self._record(stream)
            if record is not None:
                self._lend(record)
            if stream.task_id in stream.executor._cancelled_calls:
                self.later(stream.cancel)
            self.later(lambda: self._drive(stream.task_id, lambda: not self._is_wanted(stream.task_id)))

    def close_stream(self, stream: LazyStream) -> None:
        """A generator has ended."""
        with self.lock:
            if self._lazy.get(stream.task_id) is stream:
                del self._lazy[stream.task_id]

    def _record(self, stream: LazyStream) -> ExecutorRecord | None:
        return self.pool.records.get(stream.executor.process.key)

    @contextlib.contextmanager
    def resumed(self, stream: LazyStream) -> Iterator[None]:
        """Let a generator's task have its CPU for one step."""
        with self.lock:
            record = self._record(stream)
            if record is not None:
                self.requests._unblock(record)
        try:
            yield
        finally:
            if record is not None and not stream.ended:
                with self.lock:
                    self._lend(record)

    def _is_wanted(self, task_id: bytes) -> bool:
        """Return whether somebody waits for an item or for the end."""
        with self.lock:
            stream, entry = self.tasks.streams.get(task_id), self.objects.get(task_id)
            return bool((stream is not None and stream.waiters) or (entry is not None and entry.waiters))

    def _has_item(self, task_id: bytes, index: int) -> bool:
        with self.lock:
            stream = self.tasks.streams.get(task_id)
            return stream is None or stream.ended or index < len(stream.items)

    def _drive(self, task_id: bytes, enough: Callable[[], bool]) -> None:
        """Run a generator on until it is enough, or it is not ours to run."""
        while not enough():
            stream = self._lazy.get(task_id)
            if stream is None:
                return
            stream.step()
            self._run_posted()

    def stream_next(self, ref: ObjectRef, index: int, timeout: float | None) -> ObjectRef | None:
        deadline = Deadline(timeout)
        waiter = Waiter()
        with self._calling():
            self._run_posted()
            with self.lock:
                self._check_open()
                self.tasks.stream_next(ref._id, index, waiter.finish)
            while True:
                # Only now that we are known to wait: a generator that opens later sees it and runs by itself.
                self._drive(ref._id, lambda: self._has_item(ref._id, index))
                left = deadline.left()
                if waiter.wait(_SLICE_S if left is None else min(left, _SLICE_S)):
                    break
                if left == 0:
                    raise exceptions.GetTimeoutError(f"The generator yielded nothing within {timeout:g} s.")
        if self.closed and waiter.value is None:
            raise exceptions.OwnerDiedError(ref.hex(), "Its session was shut down.")
        return None if waiter.value is None else self._take_item(ref, index, waiter.value)

    def _run_to_item(self, ref: ObjectRef, index: int) -> None:
        self.later(lambda: self._drive(ref._id, lambda: self._has_item(ref._id, index)))

    def stream_next_future(self, ref: ObjectRef, index: int) -> concurrent.futures.Future[ObjectRef | None]:
        with self._calling():
            future = super().stream_next_future(ref, index)
            self._run_to_item(ref, index)
        return future

    def stream_peek(self, ref: ObjectRef, index: int) -> concurrent.futures.Future[None]:
        with self._calling():
            future = super().stream_peek(ref, index)
            self._run_to_item(ref, index)
        return future

    def stream_ready(self, ref: ObjectRef, index: int) -> bool:
        with self._calling():
            self._run_to_item(ref, index)
        return super().stream_ready(ref, index)

    def stream_exhausted(self, ref: ObjectRef, index: int) -> bool:
        with self._calling():
            self._run_to_item(ref, index)
        return super().stream_exhausted(ref, index)

    # ---- the end -----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End everything; nothing of the session is left."""
        super().close()
        threads: list[threading.Thread] = []
        for process in list(self.node.processes.values()):
            process.ended = True
            process.queue.clear()
            process.executor.stop()
            if process.executor.runner is not None:
                threads += process.executor.runner.threads()
        self._workers.stop()
        threads += self._workers._threads
        deadline = Deadline(_JOIN_S)
        for thread in threads:
            if thread is not threading.current_thread() and thread.is_alive():
                thread.join(deadline.left())
        self.callbacks.stop()
        self.reactor.stop()
        self.dispose()
        task_context.share_process(False)
