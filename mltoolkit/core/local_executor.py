"""Executors that share the driver's process: what ``init(local_mode=True)`` runs tasks and actors on.

The head talks to them as to any other executor, by messages. Here a message is handled by the thread that caused it,
once it has left the head's lock; see `InlineBackend.later`.
"""

from __future__ import annotations

import contextlib
import contextvars
import inspect
import os
import platform
import sys
import threading
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from mltoolkit import exceptions
from mltoolkit.core import serialization, task_context
from mltoolkit.core.actor_runner import ActorRunner, LoopGroup, ThreadGroup
from mltoolkit.core.channel import Message
from mltoolkit.core.deaths import Death
from mltoolkit.core.executor import Executor
from mltoolkit.core.ledger import Pool
from mltoolkit.core.object_ref import ObjectRef
from mltoolkit.core.options import DYNAMIC, STREAMING
from mltoolkit.core.serialization import NONE_PAYLOAD, Payload
from mltoolkit.core.session import LocalNode
from mltoolkit.core.specs import TaskSpec
from mltoolkit.core.store import Segment
from mltoolkit.core.task_context import TaskContext

if TYPE_CHECKING:
    from mltoolkit.core.local_mode import InlineBackend

running: contextvars.ContextVar[InlineExecutor | None] = contextvars.ContextVar(
    "mltoolkit_inline_executor", default=None
)


class InlineNode:
    """The one node of an inline runtime."""

    address = "127.0.0.1"

    def __init__(self, backend: InlineBackend, node_id: str) -> None:
        self.backend = backend
        self.node_id = node_id
        self.processes: dict[bytes, InlineProcess] = {}

    def start_executor(self, key: bytes, boot: dict[str, Any]) -> InlineProcess:
        """Make an executor; no process starts."""
        process = self.processes[key] = InlineProcess(self, key, boot)
        return process

    def kill(self, process: InlineProcess, reason: str) -> None:
        """End an executor; what its code does at this moment goes on, but nobody hears of it."""
        process.kill_reason = reason
        process.queue.clear()
        self.backend.later(process.finish)

    def describe(self, pool: Pool) -> dict[str, Any]:
        """Return the node as ``nodes()`` shows it."""
        return LocalNode.describe(cast(LocalNode, self), pool)

    def delete_segment(self, segment: Segment) -> None:
        """Nothing to do: the head's own store holds all segments."""


class InlineProcess:
    """What the head takes for an executor's process: a queue of messages, and who handles them in order."""

    def __init__(self, node: InlineNode, key: bytes, boot: dict[str, Any]) -> None:
        self.node = node
        self.backend = node.backend
        self.key = key
        self.pid = os.getpid()
        self.label = "executor"
        self.kill_reason = ""
        self.ended = False
        self.sender = self
        self.queue: deque[Message] = deque()
        self.executor = InlineExecutor(self, boot)
        self._pumping: int | None = None  # the thread

    # ---- from the head, which holds its lock -------------------------------------------------------------------------

    def post(self, message: Message) -> None:
        """Take a message."""
        if message[0] == "function":
            self.executor.functions[message[1]] = message[2]
        elif message[0] == "cancel":
            self.backend.later(lambda: self.executor.cancel(message[1]))
        elif message[0] == "consumed":
            self.executor._on_consumed(message)
        else:
            self.queue.append(message)
            self.backend.later(self.pump)

    def flush(self) -> bool:
        """Return True: nothing waits for a socket."""
        return True

    def flush_soon(self, reactor: Any) -> None:
        """Nothing to do."""

    # ---- in the thread that runs it ----------------------------------------------------------------------------------

    def pump(self) -> None:
        """Handle what is queued, unless another frame does; it will find what has come meanwhile."""
        with self.backend.lock:
            if self._pumping is not None:
                return
            self._pumping = threading.get_ident()
        try:
            while self._handle_next():
                pass
        except BaseException:
            with self.backend.lock:
                self._pumping = None
                if self.queue:
                    self.backend.later(self.pump)
            raise

    def _handle_next(self, *, nested: bool = False) -> bool:
        with self.backend.lock:
            if not self.queue or self.executor.must_wait(self.queue[0]):
                if not nested:
                    self._pumping = None
                return False
            message = self.queue.popleft()
        self.executor.handle(message)
        return True

    def help(self, spec: TaskSpec, blocking: bool) -> None:
        """Called where this thread is about to wait for a call of this actor: see that it can come about.

        Raises
        ------
        DeadlockError
            If it waits for what only itself could run.
        """
        here = running.get()
        if here is self.executor and (self._pumping == threading.get_ident() or self.executor.on_own_loop()):
            if blocking:
                raise exceptions.DeadlockError(
                    f"{task_context.current().name} waits for {spec.name} of its own actor, which can only run "
                    "after it. Call the method directly, return the reference instead of its value, or `await` it in an "
                    "async method."
                )
        elif self._pumping == threading.get_ident():
            # Elsewhere the actor would run beside what we are in; here its frame lies below ours on the same stack, so
            # that only we can run the call.
            while spec.task_id in self.backend.tasks.live and self._handle_next(nested=True):
                pass

    def leave(self) -> None:
        """The actor ends itself."""
        self.executor.send(("exiting", self.executor.exit_reason))
        self.backend.later(self.finish)

    def finish(self) -> None:
        """End the executor and tell the head, as the node of a real process does."""
        with self.backend.lock:
            if self.ended:
                return
            self.ended = True
            self.queue.clear()
            self.node.processes.pop(self.key, None)
        self.executor.stop()
        reason = self.kill_reason or self.executor.exit_reason
        self.backend.on_ended(cast(Any, self), Death(self.pid, None, reason=reason, node=platform.node()))

    # ---- what `ActorRunner` knows as the executor's inbox ------------------------------------------------------------

    def put(self, message: Message | None) -> None:
        """Run a call of an actor without threads, start its event loop, or end it."""
        if message is None:
            self.leave()
        elif message[0] == "run_loop":
            self.executor.start_loop()
        else:
            assert self.executor.runner is not None
            self.executor.runner.run_inline(message)

    def empty(self) -> bool:
        """Return True: replies never wait for each other."""
        return True


class _Values:
    """What an executor needs of its backend to rebuild and to pack values."""

    def __init__(self, process: InlineProcess) -> None:
        self.process = process
        self.store = process.backend.store
        self.kept: list[ObjectRef] = []

    def put(self, value: Any) -> ObjectRef:
        """Store an item of a dynamic generator; its reference lives until the result that contains it is packed."""
        self.kept.append(self.process.backend.put(value))
        return self.kept[-1]

    def load(self, payload: Payload) -> Any:
        """Rebuild a delivered value; its references count for themselves from then on."""
        backend = self.process.backend
        try:
            return serialization.deserialize(payload, self.store)
        finally:
            if payload[2]:
                with backend.lock:
                    record = backend.pool.records.get(self.process.key)
                    for object_id in payload[2] if record is not None else ():
                        backend.pool.release(cast(Any, record), object_id, 1)


class InlineExecutor(Executor):
    """`Executor` without a process and a socket."""

    runner: InlineRunner | None

    def __init__(self, process: InlineProcess, boot: dict[str, Any]) -> None:
        super().__init__(boot, cast(Any, self), cast(Any, _Values(process)))
        self.process = process
        self.inbox = cast(Any, process)
        self.stream: LazyStream | None = None

    # ---- what runners know as the connection -------------------------------------------------------------------------

    def send(self, message: Message) -> None:
        """Tell the head."""
        backend = self.process.backend
        backend.on_messages(cast(Any, self.process), [message])
        if message[0] == "done":
            with backend.lock:
                for payload in message[2]:
                    for object_id in payload[2]:
                        backend.objects.drop(object_id)

    post = append = send

    # ---- messages ----------------------------------------------------------------------------------------------------

    def must_wait(self, message: Message) -> bool:
        """Return whether a call stands behind a generator whose consumer sets the pace."""
        return self.stream is not None and self.stream.is_paced and message[0] != "exit"

    def handle(self, message: Message) -> None:
        """Handle one message."""
        op = message[0]
        if op == "exit":
            self.process.finish()
            return
        stream = self.stream
        while stream is not None and not stream.ended:  # an actor's next call begins after the generator's end
            stream.step()
        if op == "task":
            contextvars.copy_context().run(self._run_task, message)
        elif op == "create":
            contextvars.copy_context().run(self._create, message)
        elif op == "call":
            assert self.runner is not None
            self.runner.dispatch(message)

    def cancel(self, task_id: bytes) -> None:
        """Cancel a call: before it begins, in a coroutine, or between the items of a generator."""
        self._cancelled_calls.add(task_id)
        with self._stream_changed:
            self._stream_changed.notify_all()
        if self.runner is not None:
            self.runner.cancel(task_id)
        stream = self.stream
        if stream is not None and stream.task_id == task_id:
            stream.cancel()

    def stop(self) -> None:
        """End threads, event loops and generators."""
        if self.runner is not None:
            self.runner.stop()
        stream = self.stream
        if stream is not None:
            stream.cancel()

    # ---- running -----------------------------------------------------------------------------------------------------

    def enter(self, context: TaskContext) -> None:
        """Make `context` current for the caller's thread or coroutine."""
        running.set(self)
        task_context.enter(context)

    @contextlib.contextmanager
    def environment(self) -> Iterator[None]:
        """Give user code the variables and the directory of its runtime_env while it runs."""
        variables, directory = self.boot["environment"], self.boot["working_dir"]
        if not variables and not directory:
            yield
            return
        before = {name: os.environ.get(name) for name in variables}
        cwd = os.getcwd()
        os.environ.update(variables)
        try:
            if directory:
                os.chdir(directory)
                sys.path.insert(0, directory)
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
            if directory:
                os.chdir(cwd)
                with contextlib.suppress(ValueError):
                    sys.path.remove(directory)

    def pack(self, result: Any, num_returns: int) -> list[Payload]:
        payloads = super().pack(result, num_returns)
        with self.process.backend.lock:  # until `send`: the result may be dropped first, and its references with it
            for payload in payloads:
                self.process.backend.objects.hold_payload(payload)
        if num_returns == DYNAMIC:
            packed = set(payloads[0][2])
            values = cast(_Values, self.backend)
            values.kept = [ref for ref in values.kept if ref._id not in packed]
        return payloads

    def failure(self, error: BaseException, name: str, extra: dict[str, Any], skip: int = 1) -> tuple[Payload, bool]:
        self.process.backend.note_traceback(task_context.current().task_id, error)
        return super().failure(error, name, extra, skip)

    def _run_task(self, message: Message) -> None:
        _, task_id, function_id, name, _, _, num_returns, extra = message
        self.enter(TaskContext(task_id, name, b"", extra.get("resources", {}), extra.get("placement_group")))
        try:
            if task_id in self._cancelled_calls:
                raise KeyboardInterrupt
            with self.environment():
                function = self.function(function_id)
                args, kwargs = self.arguments(message)
                result = function(*args, **kwargs)
                if num_returns != STREAMING:
                    reply: Message = ("done", task_id, self.pack(result, num_returns))
            if num_returns == STREAMING:
                LazyStream(self, message, name, result).open()
                return
        except BaseException as error:
            self.task_failed(error, task_id, name, extra)
            return
        del result, args, kwargs
        self.task_ended(reply)

    def task_failed(self, error: BaseException, task_id: bytes, name: str, extra: dict[str, Any]) -> None:
        """Report what a task raised.

        Raises
        ------
        KeyboardInterrupt
            Again, unless it comes from `cancel`: Ctrl-C stops the driver, in whose thread the task runs.
        """
        if isinstance(error, SystemExit):
            self.send(("crash", task_id, f"the task called sys.exit({error.code!r})"))
            self.process.finish()
            return
        cancelled = task_id in self._cancelled_calls
        payload, retry = self.failure(error, name, extra)
        self.task_ended(("failed", task_id, payload, retry))
        if isinstance(error, KeyboardInterrupt) and not cancelled:
            raise error

    def task_ended(self, reply: Message) -> None:
        """Report the end of a task."""
        self._cancelled_calls.discard(reply[1])
        self.send(reply)

    # ---- actors ------------------------------------------------------------------------------------------------------

    def _create(self, message: Message) -> None:
        _, actor_id, class_id, name, _, _, _, extra = message
        self.runner = runner = InlineRunner(self, actor_id, name, extra)
        self.enter(
            TaskContext(
                actor_id, f"{name}.__init__", actor_id, extra.get("resources", {}), extra.get("placement_group")
            )
        )
        if runner.is_concurrent and self.boot["runtime_env"]:
            problem = exceptions.RuntimeEnvSetupError(
                f"The actor {name} runs several calls at once and asks for the runtime_env "
                f"{self.boot['runtime_env']}; with local_mode=True all of them share the driver's environment. "
                "Leave out runtime_env, or local_mode."
            )
            self.send(("create_failed", actor_id, serialization.error_payload(problem)))
            self.request_exit("its runtime_env could not be applied")
            return
        with contextlib.nullcontext() if runner.is_concurrent else self.environment():
            runner.create(lambda: (self.function(class_id), self.arguments(message)))

    def start_loop(self) -> None:
        """Give an asyncio actor its thread."""
        assert self.runner is not None
        group = self.runner._default
        assert isinstance(group, LoopGroup)

        def serve() -> None:
            group.serve()
            group.close()

        group.thread = threading.Thread(target=serve, name=f"mltoolkit-{self.process.label}", daemon=True)
        group.thread.start()

    def on_own_loop(self) -> bool:
        """Return whether the calling thread is that of the actor's event loop."""
        group = self.runner._default if self.runner is not None else None
        return isinstance(group, LoopGroup) and group.thread is threading.current_thread()


class InlineRunner(ActorRunner):
    """Runs an actor's calls in the calling thread, those of threaded and asyncio actors as everywhere."""

    executor: InlineExecutor

    def __init__(self, executor: InlineExecutor, actor_id: bytes, name: str, extra: dict[str, Any]) -> None:
        super().__init__(executor, actor_id, name, extra)
        if self._groups and self._default is None:  # the caller's thread must stay free to call the other groups
            self._default = ThreadGroup(f"{name}-default", 1, self._run_sync)

    @property
    def is_concurrent(self) -> bool:
        """Whether calls run on threads or an event loop."""
        return self._default is not None

    def threads(self) -> list[threading.Thread]:
        """Return the threads that serve this actor."""
        found: list[threading.Thread] = []
        for group in (self._default, *self._groups.values()):
            if isinstance(group, ThreadGroup):
                found += group._threads
            elif group is not None and group.thread is not None:
                found.append(group.thread)
        return found

    def stop(self) -> None:
        """End the threads and let go of the instance."""
        for group in (self._default, *self._groups.values()):
            if group is not None:
                group.stop()
        self.instance = None

    def _begin(self, message: Message) -> TaskContext:
        running.set(self.executor)
        return super()._begin(message)

    def run_inline(self, message: Message) -> None:
        contextvars.copy_context().run(self._run_here, message)

    def _run_here(self, message: Message) -> None:
        context = self._begin(message)
        task_id, method, num_returns, extra = message[1], message[2], message[6], message[7]
        executor = self.executor
        try:
            if task_id in executor._cancelled_calls:
                context.cancelled = True
                raise KeyboardInterrupt
            with executor.environment():
                args, kwargs = executor.arguments(message)
                result = self._method(method)(*args, **kwargs)
                if num_returns != STREAMING:
                    reply: Message = ("done", task_id, executor.pack(result, num_returns))
            if num_returns == STREAMING:
                LazyStream(executor, message, context.name, result).open()
                return
        except BaseException as error:
            self.call_failed(error, task_id, context, extra)
            return
        del result, args, kwargs
        self._finish(task_id, reply)

    def call_failed(self, error: BaseException, task_id: bytes, context: TaskContext, extra: dict[str, Any]) -> None:
        """Report what a method raised; Ctrl-C goes on to the driver as well."""
        self._finish(task_id, self._failed(error, task_id, context, extra))
        if isinstance(error, KeyboardInterrupt) and not context.cancelled:
            raise error


class LazyStream:
    """A generator of a task or of a plain actor's method, which runs on as its items are asked for.

    Parameters
    ----------
    executor : InlineExecutor
        Where it runs.
    message : Message
        The call.
    name : str
        For messages.
    result : generator
        What the function returned.
    """

    def __init__(self, executor: InlineExecutor, message: Message, name: str, result: Any) -> None:
        if not hasattr(result, "__next__"):
            raise TypeError(
                f"num_returns='streaming' needs a generator function, but {name} returned {type(result).__name__}."
            )
        self.executor = executor
        self.backend = executor.process.backend
        self.task_id: bytes = message[1]
        self.name = name
        self.extra: dict[str, Any] = message[7]
        self.is_paced = bool(self.extra.get("backpressure"))
        self.ended = False
        self._items = result
        self._index = 0
        self._is_call = message[0] == "call"
        self._cancelled = False
        self._context = contextvars.copy_context()
        self._lock = threading.Lock()
        self._stepping: int | None = None

    def open(self) -> None:
        """Wait for somebody who wants an item; its CPU is free as long."""
        self.executor.stream = self
        self.backend.open_stream(self)

    def step(self) -> None:
        """Run up to the next item or the end, in the calling thread."""
        if self._stepping == threading.get_ident():
            raise exceptions.DeadlockError(f"The generator {self.name} waits for an item of its own.")
        with self._lock:
            self._stepping = threading.get_ident()
            try:
                if not self.ended:
                    with self.backend.resumed(self):
                        self._context.run(self._close if self._cancelled else self._next)
                    if self._cancelled and not self.ended:
                        self._context.run(self._close)
            finally:
                self._stepping = None

    def cancel(self) -> None:
        """End the generator at the item where it stands; if it runs now, behind the one that it is making."""
        self._cancelled = True
        if self._lock.acquire(blocking=False):
            try:
                if not self.ended:
                    self._context.run(self._close)
            finally:
                self._lock.release()

    def _next(self) -> None:
        executor = self.executor
        try:
            with executor.environment():
                item = next(self._items)
                payload = serialization.serialize(item, executor.backend.store)
        except StopIteration:
            self._end(None)
        except BaseException as error:
            self._end(error)
        else:
            executor.send_item(self.task_id, self._index, payload)
            self._index += 1

    def _close(self) -> None:
        error: BaseException = KeyboardInterrupt()
        try:
            if inspect.isgenerator(self._items):
                with self.executor.environment():
                    self._items.throw(error)
                    self._items.close()  # it has caught the interrupt and goes on
        except BaseException as raised:
            error = raised if isinstance(raised, KeyboardInterrupt) else error
        self._end(error)

    def _end(self, error: BaseException | None) -> None:
        self.ended = True
        executor = self.executor
        executor.stream = None
        self.backend.close_stream(self)
        if self._cancelled:
            executor._cancelled_calls.add(self.task_id)
        if self._is_call:
            runner = executor.runner
            assert runner is not None
            if error is None:
                runner._finish(self.task_id, ("done", self.task_id, [NONE_PAYLOAD]))
            else:
                context = task_context.current()
                context.cancelled = self._cancelled
                runner.call_failed(error, self.task_id, context, self.extra)
            self.backend.later(executor.process.pump)
        elif error is None:
            executor.task_ended(("done", self.task_id, [NONE_PAYLOAD]))
        else:
            executor.task_failed(error, self.task_id, self.name, self.extra)
