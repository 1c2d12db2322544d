"""Runs one actor's constructor and method calls: in order, on threads, or on an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import queue
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mltoolkit import exceptions
from mltoolkit.core import process_setup, serialization, task_context
from mltoolkit.core.channel import Message
from mltoolkit.core.options import STREAMING
from mltoolkit.core.serialization import NONE_PAYLOAD
from mltoolkit.core.task_context import TaskContext

if TYPE_CHECKING:
    from mltoolkit.core.executor import Executor


class ActorExit(SystemExit):
    """Leaves a method from ``exit_actor``; a SystemExit, so that ``except Exception`` lets it through."""


class ThreadGroup:
    """Up to `size` calls at once, on threads that persist with their thread-locals."""

    def __init__(self, name: str, size: int, run: Callable[[Message], None]) -> None:
        self._name, self._size, self._run = name, size, run
        self._queue: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._idle = threading.Semaphore(0)

    def submit(self, message: Message) -> None:
        """Queue a call."""
        self._queue.put(message)
        if not self._idle.acquire(blocking=False) and len(self._threads) < self._size:
            thread = threading.Thread(target=self._serve, name=f"{self._name}_{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """End the threads after what is queued; needed only where the process outlives the actor."""
        for _ in self._threads:
            self._queue.put(None)

    def _serve(self) -> None:
        while True:
            message = self._queue.get()
            if message is None:
                return
            self._run(message)
            self._idle.release()


class LoopGroup:
    """Up to `size` coroutines at once on one event loop, which is one thread."""

    def __init__(self, name: str, size: int, run: Callable[[Message], Any], *, own_thread: bool) -> None:
        self._size, self._run = size, run
        self.loop = asyncio.new_event_loop()
        self.thread: threading.Thread | None = None
        self._semaphore: asyncio.Semaphore | None = None
        self._closing = False
        self._tasks: set[asyncio.Task[None]] = set()
        if own_thread:
            self.thread = threading.Thread(target=self.serve, name=name, daemon=True)
            self.thread.start()

    def serve(self) -> None:
        """Run the loop on the calling thread until it is stopped."""
        if self.thread is None:
            self.thread = threading.current_thread()
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        if self._closing:
            self.close()

    def stop(self) -> None:
        """Cancel what runs, close the loop and end its thread; needed only where the process outlives the actor."""
        self._closing = True
        if self.thread is None:  # it has never run
            self.loop.close()
            return
        with contextlib.suppress(RuntimeError):  # closed already
            self.loop.call_soon_threadsafe(self.loop.stop)

    def close(self) -> None:
        """Cancel what runs and close the loop, on the loop's own thread once it is stopped."""
        if self.loop.is_closed():
            return
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self.loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()

    def submit(self, message: Message) -> None:
        """Queue a call."""
        self.loop.call_soon_threadsafe(self._begin, message)

    def _begin(self, message: Message) -> None:
        task = self.loop.create_task(self._limited(message))
        self._tasks.add(task)  # the loop itself keeps only weak references
        task.add_done_callback(self._tasks.discard)

    async def _limited(self, message: Message) -> None:
        if self._semaphore is None:
            self._semaphore = asyncio.Semaphore(self._size)
        async with self._semaphore:
            await self._run(message)


class ActorRunner:
    """The actor of an executor.

    Parameters
    ----------
    executor : Executor
        Whose process this is.
    actor_id : bytes
        The actor.
    name : str
        Its class's name.
    extra : dict
        ``max_concurrency``, ``concurrency_groups``, ``is_async``, ``method_groups``, ``restarted``.
    """

    def __init__(self, executor: Executor, actor_id: bytes, name: str, extra: dict[str, Any]) -> None:
        self.executor = executor
        self.actor_id = actor_id
        self.name = name
        self.extra = extra
        self.instance: Any = None
        self._created = False
        self._early: list[Message] = []
        self._running: dict[bytes, tuple[TaskContext, asyncio.Task[None] | None, asyncio.AbstractEventLoop | None]] = {}
        self._lock = threading.Lock()
        self._early_cancels: set[bytes] = set()
        self._is_async = bool(extra["is_async"])
        self._method_groups: dict[str, str] = extra["method_groups"]
        groups: dict[str, int] = extra["concurrency_groups"]
        size = extra["max_concurrency"]
        self._groups: dict[str, ThreadGroup | LoopGroup] = {}
        self._default: ThreadGroup | LoopGroup | None = None
        if self._is_async:
            self._default = LoopGroup("mltoolkit-loop", size, self._run_async, own_thread=False)
        elif size > 1:
            self._default = ThreadGroup(f"{name}-default", size, self._run_sync)
        for group, group_size in groups.items():
            label = f"{name}-{group}"
            if self._is_async:
                self._groups[group] = LoopGroup(label, group_size, self._run_async, own_thread=True)
            else:
                self._groups[group] = ThreadGroup(label, group_size, self._run_sync)

    @property
    def serial(self) -> bool:
        """Whether all calls run on the main thread, one after the other."""
        return self._default is None and not self._groups

    # ---- creation ----------------------------------------------------------------------------------------------------

    def create(self, load: Callable[[], tuple[Any, tuple[tuple[Any, ...], dict[str, Any]]]]) -> None:
        """Build the instance, on the event loop if the actor has one."""
        if isinstance(self._default, LoopGroup):
            self._default.loop.call_soon(self._default.loop.create_task, self._create_async(load))
            self.executor.inbox.put(("run_loop",))
        else:
            self._create_sync(load)

    async def _create_async(self, load: Callable[[], Any]) -> None:
        self._create_sync(load)

    def _create_sync(self, load: Callable[[], Any]) -> None:
        executor = self.executor
        try:
            cls, (args, kwargs) = load()
            self.instance = cls(*args, **kwargs)
        except BaseException as error:
            name = f"{self.name}.__init__"
            payload = serialization.user_error_payload(error, name, skip_frames=1)
            process_setup.flush_streams()
            executor.connection.send(("create_failed", self.actor_id, payload))
            executor.request_exit("the actor's constructor raised an exception")
            if isinstance(self._default, LoopGroup):
                self._default.loop.stop()
            return
        process_setup.flush_streams()
        executor.connection.send(("created", self.actor_id, self._own_repr()))
        with self._lock:
            early, self._early = self._early, []
            for message in early:
                self._route(message)
            self._created = True

    def _own_repr(self) -> str:
        if getattr(type(self.instance), "__repr__", None) is object.__repr__:
            return ""
        try:
            return repr(self.instance).partition("\n")[0][:200]
        except Exception:  # a __repr__ that does not work yet
            return ""

    # ---- calls -------------------------------------------------------------------------------------------------------

    def dispatch(self, message: Message) -> None:
        """Give a call to its group, once the constructor has returned. Runs on the reader's thread."""
        if self._created:
            self._route(message)
            return
        with self._lock:
            if self._created:
                self._route(message)
            else:
                self._early.append(message)

    def _route(self, message: Message) -> None:
        group_name = message[7].get("group") or self._method_groups.get(message[2])
        if group_name and group_name not in self._groups:
            self._reject(
                message,
                ValueError(
                    f"Concurrency group {group_name!r} of actor {self.name} does not exist. Valid groups: "
                    f"{sorted(self._groups) or 'none were declared'}."
                ),
            )
            return
        group = self._groups[group_name] if group_name else self._default
        if group is None:
            self.executor.inbox.put(message)
        else:
            group.submit(message)

    def _reject(self, message: Message, error: Exception) -> None:
        payload = serialization.user_error_payload(error, f"{self.name}.{message[2]}")
        self.executor.connection.send(("failed", message[1], payload, False))

    def run_inline(self, message: Message) -> None:
        """Run a call on the main thread."""
        self._run_sync(message)

    def run_loop(self) -> None:
        """Serve the default event loop on the main thread until the actor ends."""
        assert isinstance(self._default, LoopGroup)
        self._default.serve()

    def on_loop_thread(self) -> bool:
        """Return whether the caller runs on an event loop of this actor."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return False
        return True

    def _begin(self, message: Message) -> TaskContext:
        context = TaskContext(
            message[1],
            f"{self.name}.{message[2]}",
            self.actor_id,
            self.extra.get("resources", {}),
            self.extra.get("placement_group"),
        )
        task_context.enter(context)
        return context

    def _method(self, name: str) -> Callable[..., Any]:
        if name == "__ray_call__":
            return lambda function, *args, **kwargs: function(self.instance, *args, **kwargs)
        if name == "__ray_ready__":
            return lambda: True
        if name == "__ray_terminate__":
            return self._terminate
        return getattr(self.instance, name)

    def _terminate(self) -> None:
        self.executor.exit_reason = "__ray_terminate__() was called"
        raise ActorExit

    def _run_sync(self, message: Message) -> None:
        context = self._begin(message)
        task_id, method, num_returns, extra = message[1], message[2], message[6], message[7]
        executor = self.executor
        executor.current = context
        with self._lock:
            self._running[task_id] = (context, None, None)
        if task_id in self._early_cancels or task_id in executor._cancelled_calls:
            context.cancelled = True
        try:
            if context.cancelled:
                raise KeyboardInterrupt
            args, kwargs = executor.arguments(message)
            result = self._method(method)(*args, **kwargs)
            if num_returns == STREAMING:
                executor.run_stream(task_id, context.name, result, extra)
                reply: Message = ("done", task_id, [NONE_PAYLOAD])
            else:
                reply = ("done", task_id, executor.pack(result, num_returns))
            del result, args, kwargs
        except BaseException as error:
            reply = self._failed(error, task_id, context, extra)
        self._finish(task_id, reply)

    async def _run_async(self, message: Message) -> None:
        context = self._begin(message)
        task_id, method, num_returns, extra = message[1], message[2], message[6], message[7]
        executor = self.executor
        task = asyncio.current_task()
        assert task is not None
        with self._lock:
            self._running[task_id] = (context, task, asyncio.get_running_loop())
        try:
            if task_id in self._early_cancels:
                raise asyncio.CancelledError
            args, kwargs = executor.arguments(message)
            result = self._method(method)(*args, **kwargs)
            if inspect.isasyncgen(result):
                await self._stream_async(task_id, context.name, result, extra)
                reply: Message = ("done", task_id, [NONE_PAYLOAD])
            else:
                if inspect.isawaitable(result):
                    result = await result
                if num_returns == STREAMING:
                    executor.run_stream(task_id, context.name, result, extra)
                    reply = ("done", task_id, [NONE_PAYLOAD])
                else:
                    reply = ("done", task_id, executor.pack(result, num_returns))
            del result, args, kwargs
        except BaseException as error:
            reply = self._failed(error, task_id, context, extra)
        self._finish(task_id, reply)

    async def _stream_async(self, task_id: bytes, name: str, result: Any, extra: dict[str, Any]) -> None:
        executor = self.executor
        index = 0
        limit = extra.get("backpressure", 0)
        try:
            async for item in result:
                executor.send_item(task_id, index, serialization.serialize(item, executor.backend.store))
                index += 1
                while limit and index - executor._stream_consumed.get(task_id, 0) >= limit:
                    await asyncio.sleep(0.001)
        except BaseException as error:
            executor.send_item(task_id, index, executor.failure(error, name, extra)[0])
            raise

    def _failed(self, error: BaseException, task_id: bytes, context: TaskContext, extra: dict[str, Any]) -> Message:
        executor = self.executor
        if isinstance(error, SystemExit) or executor.exit_reason:
            if not executor.exit_reason:
                code = error.code if isinstance(error, SystemExit) else None
                executor.exit_reason = f"SystemExit({code!r}) was raised in {context.name}"
            cause = exceptions.ActorDiedError(
                f"The actor {self.name} has ended: {executor.exit_reason}.", self.actor_id.hex()
            )
            if context.name.endswith("__ray_terminate__"):
                return ("done", task_id, [NONE_PAYLOAD])
            return ("failed", task_id, serialization.error_payload(cause), False)
        if isinstance(error, (asyncio.CancelledError, KeyboardInterrupt)):
            cancelled = exceptions.TaskCancelledError(task_id.hex())
            return ("failed", task_id, serialization.error_payload(cancelled), False)
        payload, retry = executor.failure(error, context.name, extra)
        return ("failed", task_id, payload, retry)

    def _finish(self, task_id: bytes, reply: Message) -> None:
        executor = self.executor
        with self._lock:
            self._running.pop(task_id, None)
        self._early_cancels.discard(task_id)
        executor._cancelled_calls.discard(task_id)
        executor._stream_consumed.pop(task_id, None)
        process_setup.flush_streams()
        if executor.exit_reason:
            executor.connection.send(reply)
            executor.inbox.put(None)
            if isinstance(self._default, LoopGroup):
                self._default.loop.call_soon_threadsafe(self._default.loop.stop)
        elif executor.inbox.empty() and self._default is None:
            executor.connection.send(reply)
        else:
            # More calls wait: their replies travel together. The flusher sends as soon as one of them blocks.
            executor.connection.post(reply)

    # ---- cancelling --------------------------------------------------------------------------------------------------

    def cancel(self, task_id: bytes) -> None:
        """Cancel a call; runs on the reader's thread."""
        with self._lock:
            running = self._running.get(task_id)
            if running is None:
                self._early_cancels.add(task_id)
                return
        context, task, loop = running
        context.cancelled = True
        if task is not None and loop is not None:
            loop.call_soon_threadsafe(task.cancel)
