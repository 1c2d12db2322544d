"""The process that runs user code: one task at a time, or one actor."""

from __future__ import annotations

import faulthandler
import inspect
import logging
import os
import pickle
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from mltoolkit import exceptions
from mltoolkit.core import backend, function_state, process_setup, serialization, task_context
from mltoolkit.core.actor_runner import ActorRunner
from mltoolkit.core.arguments import EMPTY_ARGUMENTS
from mltoolkit.core.channel import BlockingConnection, ConnectionLost, Message
from mltoolkit.core.ids import new_id
from mltoolkit.core.inbox import Inbox
from mltoolkit.core.options import DYNAMIC, STREAMING
from mltoolkit.core.serialization import NONE_PAYLOAD, Payload
from mltoolkit.core.specs import Dependency
from mltoolkit.core.store import Store
from mltoolkit.core.task_context import TaskContext
from mltoolkit.core.worker_backend import WorkerBackend


class Executor:
    """Serve one connection.

    Parameters
    ----------
    boot : dict
        See ``Node.start_executor``.
    connection : BlockingConnection
        To the node.
    backend : WorkerBackend
        What user code calls.
    """

    def __init__(self, boot: dict[str, Any], connection: BlockingConnection, backend: WorkerBackend) -> None:
        self.boot = boot
        self.connection = connection
        self.backend = backend
        self.inbox: Inbox  # set by `connected`: an inline executor has no socket to read
        self.functions: dict[bytes, Any] = {}
        self._reusable: dict[bytes, Any] = {}
        self.contexts: dict[bytes, Any] = {}
        self.calls_left: dict[bytes, int] = {}
        self.runner: ActorRunner | None = None
        self.current: TaskContext = TaskContext()
        self.exit_reason = ""
        self._interruptible = False
        self._interrupt_task = b""
        self._cancelled_calls: set[bytes] = set()
        self._stream_consumed: dict[bytes, int] = {}
        self._stream_changed = threading.Condition()
        self._context_key = b""
        self._handlers: dict[str, Callable[[Message], Any]] = {
            "task": self._on_work,
            "create": self._on_create,
            "call": self._on_call,
            "reply": lambda message: self.backend.on_reply(message),
            "function": self._on_function,
            "context": self._on_context,
            "cancel": self._on_cancel,
            "consumed": self._on_consumed,
            "exit": lambda message: self.inbox.put(None),
        }

    @classmethod
    def connected(cls, sock: socket.socket, boot: dict[str, Any]) -> Executor:
        """Return an executor that serves the node at the other end of a socket."""
        connection = BlockingConnection(sock)
        store = Store(boot["shm_dir"], boot["disk_dir"], boot["store_limit"], boot["node_id"], boot["host"])
        backend = WorkerBackend(connection, store, boot["namespace"])
        executor = cls(boot, connection, backend)
        backend.current_task = lambda: task_context.current().task_id
        backend.on_blocking = executor._warn_if_on_loop
        backend.executor = executor
        executor.inbox = Inbox(connection, executor._dispatch)
        backend.want_reply = executor.inbox.want_reply
        backend.runtime_env = boot["runtime_env"]
        return executor

    # ---- whichever thread reads --------------------------------------------------------------------------------------

    def _dispatch(self, message: Message) -> None:
        self._handlers[message[0]](message)

    def _read_forever(self) -> None:
        try:
            self.inbox.read_forever()
        except ConnectionLost:
            self._leave_orphaned()
        except BaseException:
            traceback.print_exc()
            os._exit(70)

    @staticmethod
    def _leave_orphaned() -> None:
        """The driver or the node is gone and with it everybody who could want a result."""
        process_setup.kill_own_group()
        os._exit(0)

    def _on_work(self, message: Message) -> None:
        self._keep_delivered(message)
        self.inbox.put(message)

    def _on_create(self, message: Message) -> None:
        # Here and not on the main thread: the runner must stand before the calls that come right behind.
        self.runner = ActorRunner(self, message[1], message[3], message[7])
        if not self.runner.serial:
            self.inbox.dedicate()
        self._on_work(message)

    def _on_call(self, message: Message) -> None:
        self._keep_delivered(message)
        assert self.runner is not None
        self.runner.dispatch(message)

    def _keep_delivered(self, message: Message) -> None:
        args, deps = message[4], message[5]
        if args[2]:
            self.backend.delivered(args)
        for payload in deps:
            if payload[2]:
                self.backend.delivered(payload)

    def _on_function(self, message: Message) -> None:
        self.functions[message[1]] = message[2]
        self.backend.known_functions.add(message[1])

    def _on_context(self, message: Message) -> None:
        self.contexts[message[1].key] = message[1]

    def _on_cancel(self, message: Message) -> None:
        task_id = message[1]
        self._cancelled_calls.add(task_id)
        with self._stream_changed:
            self._stream_changed.notify_all()
        if self.runner is not None:
            self.runner.cancel(task_id)
        elif self.current.task_id == task_id:
            self._interrupt_task = task_id
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def _on_consumed(self, message: Message) -> None:
        with self._stream_changed:
            self._stream_consumed[message[1]] = message[2]
            self._stream_changed.notify_all()

    # ---- the main thread ---------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Serve until told to stop."""
        signal.signal(signal.SIGINT, self._on_sigint)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        backend.set_backend(self.backend)
        self.connection.start_flusher()
        threading.Thread(target=self._read_forever, name="mltoolkit-reader", daemon=True).start()
        while not self.exit_reason:
            try:
                message = self.inbox.get()
            except ConnectionLost:
                self._leave_orphaned()
            if message is None:
                break
            op = message[0]
            if op == "task":
                self._run_task(message)
            elif op == "create":
                self._create(message)
            elif op == "call":
                assert self.runner is not None
                self.runner.run_inline(message)
            elif op == "run_loop":
                assert self.runner is not None
                self.runner.run_loop()
        self.leave()
        return 0

    def leave(self) -> None:
        """Tell the node why this process ends, and end it without running anybody's exit handlers twice."""
        if self.exit_reason:
            self.connection.send(("exiting", self.exit_reason))
        process_setup.flush_streams()
        self.connection.flush()
        process_setup.run_exit_handlers()
        process_setup.flush_streams()
        process_setup.kill_own_group()
        os._exit(0)

    def _on_sigint(self, signum: int, frame: Any) -> None:
        target, self._interrupt_task = self._interrupt_task, b""
        if self._interruptible and target and target == self.current.task_id:
            raise KeyboardInterrupt

    def _warn_if_on_loop(self) -> None:
        if self.runner is not None and self.runner.on_loop_thread():
            logging.getLogger("mltoolkit").warning(
                "Using blocking get or wait inside an async actor blocks its event loop; use `await ref` or asyncio.wait instead."
            )

    # ---- running -----------------------------------------------------------------------------------------------------

    def apply_context(self, key: bytes) -> None:
        """Give user code the directory, path and environment that the caller had at submission."""
        if key and key != self._context_key:
            self._context_key = key
            process_setup.apply_submission(self.contexts[key], self.boot)

    def function(self, function_id: bytes) -> Any:
        """Return an exported function; rebuilt for each call if calls could see each other through it."""
        cached = self._reusable.get(function_id)
        if cached is not None:
            return cached
        function = serialization.deserialize(self.functions[function_id], self.backend.store)
        if function_state.is_stateless(function):
            self._reusable[function_id] = function
        return function

    def arguments(self, message: Message) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Rebuild a call's arguments, its dependencies in place."""
        payload, deps = message[4], message[5]
        if payload == EMPTY_ARGUMENTS:
            return (), {}
        args, kwargs = self.backend.load(payload)
        if deps:
            values = [self.backend.load(dep) for dep in deps]
            args = tuple(values[a.index] if type(a) is Dependency else a for a in args)
            kwargs = {k: values[v.index] if type(v) is Dependency else v for k, v in kwargs.items()}
        return args, kwargs

    def _run_task(self, message: Message) -> None:
        _, task_id, function_id, name, _, _, num_returns, extra = message
        context = TaskContext(task_id, name, b"", extra.get("resources", {}), extra.get("placement_group"))
        self.current = context
        task_context.enter(context)
        payloads: list[Payload]
        failure: Payload | None = None
        retry = False
        try:
            try:
                if task_id in self._cancelled_calls:
                    raise KeyboardInterrupt
                self._interruptible = True
                self.apply_context(extra.get("context", b""))
                function = self.function(function_id)
                args, kwargs = self.arguments(message)
                result = function(*args, **kwargs)
                if num_returns == STREAMING:
                    self.run_stream(task_id, name, result, extra)
                    payloads = [NONE_PAYLOAD]
                else:
                    payloads = self.pack(result, num_returns)
                del result, args, kwargs, function
            finally:
                self._interruptible = False
        except SystemExit as error:
            if not extra.get("cancelling"):
                self.exit_reason = f"the task called sys.exit({error.code!r})"
                self.connection.post(("crash", task_id, self.exit_reason))
                return
        except BaseException as error:
            failure, retry = self.failure(error, name, extra)
        finally:
            self._cancelled_calls.discard(task_id)
            self._stream_consumed.pop(task_id, None)
        process_setup.flush_streams()
        done: Message = ("failed", task_id, failure, retry) if failure is not None else ("done", task_id, payloads)
        self.current = TaskContext()
        limit = extra.get("max_calls", 0)
        if limit:
            left = self.calls_left.setdefault(function_id, limit) - 1
            self.calls_left[function_id] = left
            if left <= 0:
                self.connection.append(("retire",))
        self.connection.send(done)

    def failure(self, error: BaseException, name: str, extra: dict[str, Any], skip: int = 1) -> tuple[Payload, bool]:
        """Turn an exception into a payload; also return whether it should be retried."""
        if isinstance(error, KeyboardInterrupt):
            task_id = task_context.current().task_id.hex()
            return serialization.error_payload(exceptions.TaskCancelledError(task_id)), False
        policy = extra.get("retry_exceptions", False)
        if isinstance(policy, bytes):
            policy = pickle.loads(policy)
        retry = bool(policy) if isinstance(policy, bool) else isinstance(error, policy)
        return serialization.user_error_payload(error, name, skip_frames=skip), retry

    def pack(self, result: Any, num_returns: int) -> list[Payload]:
        """Pickle what a function returned as the number of results that it promised."""
        store = self.backend.store
        if num_returns == 1:
            if inspect.isgenerator(result):
                raise TypeError(
                    "The function returned a generator as its single value, and generators cannot be pickled. Use "
                    "num_returns='streaming' for references as it yields, or return list(generator)."
                )
            return [serialization.serialize(result, store)]
        if num_returns == 0:
            return []
        if num_returns == DYNAMIC:
            from mltoolkit.core.object_ref import DynamicObjectRefGenerator

            refs = [self.backend.put(item) for item in result]
            return [serialization.serialize(DynamicObjectRefGenerator(refs), store)]
        return [serialization.serialize(item, store) for item in self._exactly(result, num_returns)]

    @staticmethod
    def _exactly(result: Any, count: int) -> list[Any]:
        if inspect.isgenerator(result):
            items = []
            for item in result:  # what it yields beyond `count` is not wanted
                items.append(item)
                if len(items) == count:
                    break
            word = "yielded"
        else:
            try:
                items = list(result)
            except TypeError:
                raise ValueError(
                    f"The function promised num_returns={count} values but returned a single {type(result).__name__}; return a "
                    "tuple or list of that length."
                ) from None
            word = "returned"
        if len(items) != count:
            raise ValueError(f"The function promised num_returns={count} values but {word} {len(items)}.")
        return items

    # ---- streams -----------------------------------------------------------------------------------------------------

    def run_stream(self, task_id: bytes, name: str, result: Any, extra: dict[str, Any]) -> None:
        """Send what a generator yields, each item as it comes; an exception is the last item."""
        if not hasattr(result, "__next__"):
            raise TypeError(
                f"num_returns='streaming' needs a generator function, but {name} returned {type(result).__name__}."
            )
        index = 0
        try:
            for item in result:
                self.send_item(task_id, index, serialization.serialize(item, self.backend.store))
                index += 1
                self._wait_for_consumer(task_id, index, extra)
        except BaseException as error:
            if not isinstance(error, KeyboardInterrupt) and self._retries(error, extra):
                raise
            if not isinstance(error, (SystemExit,)):
                self.send_item(task_id, index, self.failure(error, name, extra, skip=1)[0])
            raise

    def _retries(self, error: BaseException, extra: dict[str, Any]) -> bool:
        return bool(extra.get("retry_exceptions")) and self.failure(error, "", extra)[1]

    def send_item(self, task_id: bytes, index: int, payload: Payload) -> None:
        """Send one item of a stream."""
        self.connection.send(("yield", task_id, index, new_id(), payload))

    def _wait_for_consumer(self, task_id: bytes, produced: int, extra: dict[str, Any]) -> None:
        limit = extra.get("backpressure", 0)
        if not limit:
            return
        with self._stream_changed:
            while produced - self._stream_consumed.get(task_id, 0) >= limit:
                if task_id in self._cancelled_calls:
                    raise KeyboardInterrupt
                self._stream_changed.wait()

    # ---- actors ------------------------------------------------------------------------------------------------------

    def _create(self, message: Message) -> None:
        _, actor_id, class_id, name, _, _, _, extra = message
        self.apply_context(extra.get("context", b""))
        context = TaskContext(
            actor_id, f"{name}.__init__", actor_id, extra.get("resources", {}), extra.get("placement_group")
        )
        self.current = context
        task_context.enter(context)
        assert self.runner is not None
        self.runner.create(lambda: (self.function(class_id), self.arguments(message)))

    def request_exit(self, reason: str) -> None:
        """End this actor after the current call."""
        self.exit_reason = self.exit_reason or reason
        self.inbox.put(None)


def run_executor(sock: socket.socket, boot: dict[str, Any]) -> int:
    """Set up the process and serve.

    Returns
    -------
    int
        Exit status.
    """
    started = time.monotonic()
    try:
        faulthandler.enable(file=2, all_threads=False)
        process_setup.prepare(boot)
        executor = Executor.connected(sock, boot)
        executor.started = started  # type: ignore[attr-defined]
        return executor.run()
    except BaseException:
        traceback.print_exc(file=sys.stderr)
        process_setup.flush_streams()
        return 71
