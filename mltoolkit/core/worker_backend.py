"""The public API inside an executor: requests to the head, over the executor's socket."""

from __future__ import annotations

import concurrent.futures
import itertools
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from mltoolkit.core import serialization
from mltoolkit.core.channel import BlockingConnection, Message
from mltoolkit.core.ids import new_id
from mltoolkit.core.object_ref import ObjectRef
from mltoolkit.core.serialization import SHARED, Payload
from mltoolkit.core.specs import TaskSpec
from mltoolkit.core.store import Store
from mltoolkit.core.waiting import CallbackThread, Waiter
from mltoolkit.exceptions import GetTimeoutError


class LocalReferences:
    """Count the references that live in this process.

    A record holds ``[living references, how many of them the head counts for us]``. The head counts one for every reference it sends here
    and every one made here; when the last goes, the whole number is given back at once.
    """

    def __init__(self) -> None:
        self._records: dict[bytes, list[int]] = {}
        self._released: deque[bytes] = deque()
        self._lock = threading.Lock()

    def created(self, object_id: bytes) -> None:
        """Count a reference that the head learns of by the message that makes it."""
        with self._lock:
            record = self._records.setdefault(object_id, [0, 0])
            record[0] += 1
            record[1] += 1

    def adopted(self, object_id: bytes) -> bool:
        """Count a reference that was unpickled here; False if the head does not know of any here."""
        with self._lock:
            record = self._records.get(object_id)
            if record is None:
                self._records[object_id] = [1, 0]
                return False
            record[0] += 1
            return True

    def released(self, object_id: bytes) -> None:
        """Note the end of a reference; runs in finalizers and therefore takes no lock."""
        self._released.append(object_id)

    def has_released(self) -> bool:
        """Return whether ends of references wait to be counted."""
        return bool(self._released)

    def drain(self) -> list[tuple[bytes, int]]:
        """Count what was released; return what the head can take back."""
        gone = []
        with self._lock:
            while self._released:
                object_id = self._released.popleft()
                record = self._records.get(object_id)
                if record is None:
                    continue
                record[0] -= 1
                if record[0] <= 0:
                    del self._records[object_id]
                    gone.append((object_id, record[1]))
        return gone


class WorkerBackend:
    """`Backend` of an executor.

    Parameters
    ----------
    connection : BlockingConnection
        To the node.
    store : Store
        The host's object store.
    namespace : str
        Namespace of the job.
    """

    def __init__(self, connection: BlockingConnection, store: Store, namespace: str) -> None:
        self.connection = connection
        self.store = store
        self.namespace = namespace
        self.runtime_env: dict[str, Any] = {}
        self.references = LocalReferences()
        self._requests: dict[int, Callable[[bool, Any], None]] = {}
        self._request_ids = itertools.count()
        self.known_functions: set[bytes] = set()
        self.executor: Any = None
        self._callbacks = CallbackThread("mltoolkit-callbacks")
        self.current_task: Callable[[], bytes] = lambda: b""
        self.on_blocking: Callable[[], None] = lambda: None
        self.want_reply: Callable[[], None] = lambda: None
        connection.before_flush = self._post_releases

    # ---- references ------------------------------------------------------------------------------------------------

    def adopt_ref(self, object_id: bytes) -> ObjectRef:
        if not self.references.adopted(object_id):
            self.references.created(object_id)
            self.references.released(object_id)
            self.connection.post(("hold", object_id))
        return ObjectRef(object_id, self)

    def release_ref(self, object_id: bytes) -> None:
        self.references.released(object_id)
        self.connection.request_flush()

    def _post_releases(self) -> None:
        if self.references.has_released():
            gone = self.references.drain()
            if gone:
                self.connection.append(("decref", gone))

    def pin(self, object_id: bytes) -> None:
        self.connection.post(("pin", object_id))

    def delivered(self, payload: Payload) -> None:
        """Keep what a payload refers to until it has been rebuilt; see `rebuilt`."""
        for object_id in payload[2]:
            self.references.created(object_id)

    def rebuilt(self, payload: Payload) -> None:
        """The references of a payload live on their own now."""
        for object_id in payload[2]:
            self.references.released(object_id)

    def load(self, payload: Payload) -> Any:
        """Rebuild a delivered value, or raise its error."""
        try:
            if payload[0] == SHARED and payload[1].host != self.store.host:
                payload = (SHARED, self._request("fetch", payload[1]), payload[2])
            return serialization.deserialize(payload, self.store)
        finally:
            self.rebuilt(payload)

    # ---- requests --------------------------------------------------------------------------------------------------

    def on_reply(self, message: Message) -> None:
        """Handle ``("reply", request id, ok, value)``; runs on the reader's thread."""
        _, request_id, ok, value = message
        handler = self._requests.pop(request_id, None)
        if handler is not None:
            handler(ok, value)

    def _request(self, op: str, *args: Any, timeout: float | None = None) -> Any:
        waiter = Waiter()
        request_id = next(self._request_ids)

        def answered(ok: bool, value: Any) -> None:
            waiter.finish((ok, value))

        self._requests[request_id] = answered
        self.connection.send((op, request_id, *args))
        self.want_reply()
        try:
            done = waiter.wait(timeout)
        except BaseException:  # a cancelled task: the answer is not wanted any more
            self._forget(request_id)
            raise
        if not done and self._forget(request_id):
            raise GetTimeoutError(f"Nothing within the timeout of {timeout:g} s.")
        if not done:
            waiter.wait(None)  # the answer crossed the end of the timeout
        ok, value = waiter.value
        if not ok:
            raise serialization.load_error(value)
        return value

    def _forget(self, request_id: int) -> bool:
        """Give up a request; False if it has been answered already."""
        if self._requests.pop(request_id, None) is None:
            return False

        def discard(ok: bool, value: Any) -> None:
            if ok and isinstance(value, tuple):
                for payload in value:
                    if isinstance(payload, tuple):
                        self.delivered(payload)
                        self.rebuilt(payload)

        self._requests[request_id] = discard
        self.connection.send(("forget", request_id))
        return True

    # ---- work ------------------------------------------------------------------------------------------------------

    def knows_function(self, function_id: bytes) -> bool:
        return function_id in self.known_functions

    def export(self, function_id: bytes, payload: Any) -> None:
        self.known_functions.add(function_id)
        self.connection.post(("export", function_id, payload))

    def submit(self, spec: TaskSpec) -> list[ObjectRef]:
        spec.parent = self.current_task()
        for object_id in spec.return_ids:
            self.references.created(object_id)
        self.connection.post(("submit", spec))
        return [ObjectRef(object_id, self) for object_id in spec.return_ids]

    def create_actor(self, spec: TaskSpec) -> bytes:
        spec.parent = self.current_task()
        if spec.options and spec.options.get("name"):
            actor_id: bytes = self._request("create_named", spec)
        else:
            self.connection.post(("submit", spec))
            actor_id = spec.task_id
        self.references.created(actor_id)
        return actor_id

    def put(self, value: Any) -> ObjectRef:
        payload = serialization.serialize(value, self.store)
        object_id = new_id()
        self.references.created(object_id)
        self.connection.post(("put", object_id, payload))
        return ObjectRef(object_id, self)

    def get(self, refs: Sequence[ObjectRef], timeout: float | None) -> list[Any]:
        self.on_blocking()
        payloads = self._request("get", tuple(ref._id for ref in refs), timeout is None, timeout=timeout)
        for payload in payloads:
            self.delivered(payload)
        return [self.load(payload) for payload in payloads]

    def wait(self, refs: Sequence[ObjectRef], num_returns: int, timeout: float | None) -> set[bytes]:
        self.on_blocking()
        # The head ends the wait, so that it can say what was ready then.
        ready: set[bytes] = self._request("wait", tuple(ref._id for ref in refs), num_returns, timeout)
        return ready

    def future(self, ref: ObjectRef) -> concurrent.futures.Future[Any]:
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()

        def answered(ok: bool, value: Any) -> None:
            if ok:
                self.delivered(value[0])
            self._callbacks.submit(lambda: finish(ok, value))

        def finish(ok: bool, value: Any) -> None:
            try:
                result = self.load(value[0]) if ok else _raise(serialization.load_error(value))
            except BaseException as error:
                if not future.cancelled():
                    future.set_exception(error)
            else:
                if not future.cancelled():
                    future.set_result(result)

        request_id = next(self._request_ids)
        self._requests[request_id] = answered
        self.connection.post(("get_async", request_id, (ref._id,)))
        self.want_reply()
        return future

    def stream_next(self, ref: ObjectRef, index: int, timeout: float | None) -> ObjectRef | None:
        item: bytes | None = self._request("stream_next", ref._id, index, timeout=timeout)
        return self._stream_item(item)

    def _stream_item(self, item: bytes | None) -> ObjectRef | None:
        if item is None:
            return None
        self.references.created(item)
        return ObjectRef(item, self)

    def stream_next_future(self, ref: ObjectRef, index: int) -> concurrent.futures.Future[ObjectRef | None]:
        future: concurrent.futures.Future[ObjectRef | None] = concurrent.futures.Future()

        def answered(ok: bool, value: Any) -> None:
            def finish() -> None:
                if ok:
                    future.set_result(self._stream_item(value))
                else:
                    future.set_exception(serialization.load_error(value))

            self._callbacks.submit(finish)

        request_id = next(self._request_ids)
        self._requests[request_id] = answered
        self.connection.post(("stream_next", request_id, ref._id, index))
        self.want_reply()
        return future

    def stream_peek(self, ref: ObjectRef, index: int) -> concurrent.futures.Future[None]:
        future: concurrent.futures.Future[None] = concurrent.futures.Future()
        request_id = next(self._request_ids)
        self._requests[request_id] = lambda ok, value: future.set_result(None)
        self.connection.post(("stream_peek", request_id, ref._id, index))
        self.want_reply()
        return future

    def stream_ready(self, ref: ObjectRef, index: int) -> bool:
        return bool(self._request("query", "stream_ready", (ref._id, index)))

    def stream_exhausted(self, ref: ObjectRef, index: int) -> bool:
        return bool(self._request("query", "stream_exhausted", (ref._id, index)))

    def stream_closed(self, object_id: bytes) -> None:
        self.connection.append(("stream_closed", object_id))
        self.connection.request_flush()

    def cancel(self, object_id: bytes, force: bool, recursive: bool) -> None:
        self._request("cancel", object_id, force, recursive)

    def kill_actor(self, actor_id: bytes, no_restart: bool) -> None:
        self._request("kill_actor", actor_id, no_restart)

    def query(self, what: str, *args: Any) -> Any:
        value = self._request("query", what, args)
        if what == "get_actor":
            self.references.created(value[0])
        return value


def _raise(error: BaseException) -> Any:
    raise error
