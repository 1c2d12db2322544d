"""A first-in-first-out queue that tasks and actors share."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import mltoolkit

if TYPE_CHECKING:
    from mltoolkit.actor import ActorHandle

# Every blocked `get` or `put` is one call in the actor. Where calls fill the actor up, the `put` that would free the
# waiting ones never gets in; a waiting call costs next to nothing, so let there be many.
_MAX_WAITING = 100_000


class Empty(queue.Empty):
    """The queue has no item, or fewer than were asked for."""


class Full(queue.Full):
    """The queue has no room for an item, or for all of a batch."""


class Queue:
    """A queue kept by an actor, for any number of producers and consumers in any process.

    The queue itself may be passed to tasks and actors. It lives as long as one of its copies does, or until `shutdown`.
    Items are pickled; a ref given as an item arrives as the value it stands for, as with any remote call.

    Parameters
    ----------
    maxsize : int, default=0
        Greatest number of items; 0 or less for no limit.
    actor_options : dict, optional
        Options of the actor that keeps the items, such as ``num_cpus``, ``name`` or ``lifetime``.

    Attributes
    ----------
    maxsize : int
        As given.
    actor : ActorHandle or None
        The actor; None after `shutdown`.

    Examples
    --------
    >>> from mltoolkit.util.queue import Empty, Queue
    >>> q = Queue(maxsize=10)
    >>> q.put("item")
    >>> q.get()
    'item'
    >>> try:
    ...     q.get(timeout=0.01)
    ... except Empty:
    ...     print("nothing there")
    nothing there
    """

    actor: ActorHandle | None

    def __init__(self, maxsize: int = 0, actor_options: dict[str, Any] | None = None) -> None:
        self.maxsize = maxsize
        options = {"max_concurrency": _MAX_WAITING, **(actor_options or {})}
        self.actor = mltoolkit.remote(_QueueActor).options(**options).remote(maxsize)

    def __len__(self) -> int:
        return self.size()

    def size(self) -> int:
        """Count the items.

        Returns
        -------
        int
            The number of items now; others may change it at any time.
        """
        return mltoolkit.get(self._live_actor().qsize.remote())

    def qsize(self) -> int:
        """Count the items; the name that ``queue.Queue`` has for `size`.

        Returns
        -------
        int
            The number of items now; others may change it at any time.
        """
        return self.size()

    def empty(self) -> bool:
        """Tell whether there is no item.

        Returns
        -------
        bool
            True if there is none now.
        """
        return mltoolkit.get(self._live_actor().empty.remote())

    def full(self) -> bool:
        """Tell whether there is no room.

        Returns
        -------
        bool
            True if the queue holds `maxsize` items now; never without a limit.
        """
        return mltoolkit.get(self._live_actor().full.remote())

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Add an item at the end.

        Parameters
        ----------
        item : object
            The item.
        block : bool, default=True
            Wait for room; otherwise `timeout` has no meaning.
        timeout : float, optional
            Seconds to wait at most; without end if None.

        Raises
        ------
        Full
            If there is no room, in time.
        ValueError
            If `timeout` is negative.
        """
        ref = self._submit_put(item, block, timeout)
        try:
            mltoolkit.get(ref)
        except KeyboardInterrupt:
            mltoolkit.cancel(ref)
            raise
        except queue.Full:
            raise Full(self._full_message(block, timeout)) from None

    async def put_async(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Do as `put` does, for coroutines.

        Parameters
        ----------
        item : object
            The item.
        block : bool, default=True
            Wait for room; otherwise `timeout` has no meaning.
        timeout : float, optional
            Seconds to wait at most; without end if None.

        Raises
        ------
        Full
            If there is no room, in time.
        ValueError
            If `timeout` is negative.
        """
        ref = self._submit_put(item, block, timeout)
        try:
            await ref
        except asyncio.CancelledError:
            mltoolkit.cancel(ref)
            raise
        except queue.Full:
            raise Full(self._full_message(block, timeout)) from None

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Remove the item at the front.

        Parameters
        ----------
        block : bool, default=True
            Wait for an item; otherwise `timeout` has no meaning.
        timeout : float, optional
            Seconds to wait at most; without end if None.

        Returns
        -------
        object
            The item.

        Raises
        ------
        Empty
            If there is no item, in time.
        ValueError
            If `timeout` is negative.
        """
        ref = self._submit_get(block, timeout)
        try:
            return mltoolkit.get(ref)
        except KeyboardInterrupt:
            mltoolkit.cancel(ref)  # else the abandoned call would swallow the next item
            raise
        except queue.Empty:
            raise Empty(self._empty_message(block, timeout)) from None

    async def get_async(self, block: bool = True, timeout: float | None = None) -> Any:
        """Do as `get` does, for coroutines.

        Parameters
        ----------
        block : bool, default=True
            Wait for an item; otherwise `timeout` has no meaning.
        timeout : float, optional
            Seconds to wait at most; without end if None.

        Returns
        -------
        object
            The item.

        Raises
        ------
        Empty
            If there is no item, in time.
        ValueError
            If `timeout` is negative.
        """
        ref = self._submit_get(block, timeout)
        try:
            return await ref
        except asyncio.CancelledError:
            mltoolkit.cancel(ref)  # else the abandoned call would swallow the next item
            raise
        except queue.Empty:
            raise Empty(self._empty_message(block, timeout)) from None

    def put_nowait(self, item: Any) -> None:
        """Add an item at the end without waiting.

        Parameters
        ----------
        item : object
            The item.

        Raises
        ------
        Full
            If there is no room.
        """
        self.put(item, block=False)

    def get_nowait(self) -> Any:
        """Remove the item at the front without waiting.

        Returns
        -------
        object
            The item.

        Raises
        ------
        Empty
            If there is no item.
        """
        return self.get(block=False)

    def put_nowait_batch(self, items: Iterable[Any]) -> None:
        """Add several items in their order, all or none.

        Parameters
        ----------
        items : iterable
            The items.

        Raises
        ------
        Full
            If there is no room for all; none is added then.
        TypeError
            If `items` is not iterable.
        """
        if not isinstance(items, Iterable):
            raise TypeError(f"`items` must be an iterable, got {items!r}.")
        try:
            mltoolkit.get(self._live_actor().put_nowait_batch.remote(list(items)))
        except queue.Full as error:
            raise Full(_message_of(error)) from None

    def get_nowait_batch(self, num_items: int) -> list[Any]:
        """Remove several items from the front, all or none.

        Parameters
        ----------
        num_items : int
            How many.

        Returns
        -------
        list
            The items in their order.

        Raises
        ------
        Empty
            If there are fewer; none is removed then.
        TypeError
            If `num_items` is not an int.
        ValueError
            If `num_items` is negative.
        """
        if not isinstance(num_items, int):
            raise TypeError(f"`num_items` must be an int, got {num_items!r}.")
        if num_items < 0:
            raise ValueError(f"`num_items` must be >= 0, got {num_items}.")
        try:
            return mltoolkit.get(self._live_actor().get_nowait_batch.remote(num_items))
        except queue.Empty as error:
            raise Empty(_message_of(error)) from None

    def shutdown(self, force: bool = False, grace_period_s: float = 5) -> None:
        """End the actor that keeps the items; the items are lost.

        Parameters
        ----------
        force : bool, default=False
            End it at once. Otherwise it first answers the calls it was sent before.
        grace_period_s : float, default=5
            Seconds after which it is ended by force, unless `force` did.
        """
        actor, self.actor = self.actor, None
        if actor is None:
            return
        if not force:
            ended = actor.__ray_terminate__.remote()
            if mltoolkit.wait([ended], timeout=grace_period_s)[0]:
                return
        mltoolkit.kill(actor, no_restart=True)

    def _live_actor(self) -> Any:
        if self.actor is None:
            raise RuntimeError("This queue has been shut down; make a new one.")
        return self.actor

    def _submit_put(self, item: Any, block: bool, timeout: float | None) -> Any:
        actor = self._live_actor()
        if not block:
            return actor.put_nowait.remote(item)
        return actor.put.remote(item, _checked(timeout))

    def _submit_get(self, block: bool, timeout: float | None) -> Any:
        actor = self._live_actor()
        if not block:
            return actor.get_nowait.remote()
        return actor.get.remote(_checked(timeout))

    def _full_message(self, block: bool, timeout: float | None) -> str:
        waited = f" after waiting {timeout} s" if block else ""
        return f"The queue holds its {self.maxsize} items{waited}."

    def _empty_message(self, block: bool, timeout: float | None) -> str:
        waited = f" after waiting {timeout} s" if block else ""
        return f"The queue has no item{waited}."


def _checked(timeout: float | None) -> float | None:
    if timeout is not None and timeout < 0:
        raise ValueError(f"`timeout` must be >= 0, or None to wait without end, got {timeout!r}.")
    return timeout


def _message_of(error: BaseException) -> str:
    """Return what the actor said, without the traceback that came along."""
    cause = getattr(error, "cause", None)
    return str(error if cause is None else cause)


class _QueueActor:
    """Keeps the items. Being asynchronous, it has any number of blocked callers on one thread."""

    def __init__(self, maxsize: int) -> None:
        self.maxsize = maxsize
        self.queue: asyncio.Queue[Any] = asyncio.Queue(maxsize)

    def qsize(self) -> int:
        return self.queue.qsize()

    def empty(self) -> bool:
        return self.queue.empty()

    def full(self) -> bool:
        return self.queue.full()

    async def put(self, item: Any, timeout: float | None = None) -> None:
        # `asyncio.timeout` rather than `wait_for`: with 0 seconds it still takes what can be had at once, and an item
        # that arrives together with the timeout is not lost.
        try:
            async with asyncio.timeout(timeout):
                await self.queue.put(item)
        except TimeoutError:
            raise Full from None

    async def get(self, timeout: float | None = None) -> Any:
        try:
            async with asyncio.timeout(timeout):
                return await self.queue.get()
        except TimeoutError:
            raise Empty from None

    def put_nowait(self, item: Any) -> None:
        try:
            self.queue.put_nowait(item)
        except asyncio.QueueFull:
            raise Full from None

    def get_nowait(self) -> Any:
        try:
            return self.queue.get_nowait()
        except asyncio.QueueEmpty:
            raise Empty from None

    def put_nowait_batch(self, items: list[Any]) -> None:
        if self.maxsize > 0 and len(items) + self.qsize() > self.maxsize:
            raise Full(f"{len(items)} items do not fit: the queue holds {self.qsize()} of at most {self.maxsize}.")
        for item in items:
            self.queue.put_nowait(item)

    def get_nowait_batch(self, num_items: int) -> list[Any]:
        if num_items > self.qsize():
            raise Empty(f"{num_items} items were asked for, the queue holds {self.qsize()}.")
        return [self.queue.get_nowait() for _ in range(num_items)]
