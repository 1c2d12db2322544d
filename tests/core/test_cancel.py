"""Cancelling: pending, running, finished work, children, dependents, actor methods."""

from __future__ import annotations

import asyncio
import os
import time

import pytest
from helpers import wait_until

import mltoolkit as ray
from mltoolkit.exceptions import RayError, TaskCancelledError, WorkerCrashedError

pytestmark = pytest.mark.usefixtures("runtime")

CANCELLED = (TaskCancelledError, WorkerCrashedError)


def spin_until(gate):
    """Wait in Python code, where an interrupt is seen."""
    while not gate.is_open():
        time.sleep(0.005)


def test_pending_work_never_runs(gate, tally):
    go, ran = gate("go"), tally()

    @ray.remote
    def wait():
        return go.wait()

    @ray.remote
    def note(_):
        ran.add()

    blocker = wait.remote()
    pending = note.remote(blocker)
    ray.cancel(pending)
    with pytest.raises(TaskCancelledError):
        ray.get(pending, timeout=20)
    go.open()
    assert ray.get(blocker, timeout=20), "what it depends on was cancelled too"
    assert ran.count() == 0


def test_queued_work_never_runs(fresh, gate, tally):
    ray.init(num_cpus=1)
    go, started, ran = gate("go"), gate("started"), tally()

    @ray.remote
    def wait():
        started.open()
        return go.wait()

    @ray.remote
    def note():
        ran.add()

    blocker = wait.remote()
    started.wait()
    queued = [note.remote() for _ in range(3)]
    for ref in queued:
        ray.cancel(ref)
    for ref in queued:
        with pytest.raises(TaskCancelledError):
            ray.get(ref, timeout=20)
    go.open()
    assert ray.get(blocker, timeout=20)
    assert ran.count() == 0


def test_running_work_gets_a_keyboard_interrupt(gate, tally):
    started, never, words = gate("started"), gate("never"), tally()

    @ray.remote(max_retries=0)
    def work():
        started.open()
        try:
            spin_until(never)
        except KeyboardInterrupt:
            words.add("interrupted")
            raise

    ref = work.remote()
    started.wait()
    ray.cancel(ref)
    with pytest.raises(TaskCancelledError):
        ray.get(ref, timeout=20)
    assert words.words() == ["interrupted"]


def test_force_kills_the_process(gate, tally):
    started, pids = gate("started"), tally()

    @ray.remote
    def stubborn():
        pids.add(os.getpid())
        started.open()
        while True:
            try:
                time.sleep(0.01)
            except KeyboardInterrupt:
                pass

    ref = stubborn.remote()
    started.wait()
    before = time.monotonic()
    ray.cancel(ref, force=True)
    with pytest.raises(CANCELLED):
        ray.get(ref, timeout=20)
    assert time.monotonic() - before < 5
    assert pids.count() == 1, "a cancelled task was retried"


def test_force_is_refused_for_actor_methods(gate):
    go = gate("go")

    @ray.remote
    class A:
        def work(self):
            return go.wait()

    a = A.remote()
    ref = a.work.remote()
    with pytest.raises(ValueError, match="force"):
        ray.cancel(ref, force=True)
    go.open()
    assert ray.get(ref, timeout=20)


def test_recursive_takes_children_along(gate, tally):
    started, never, ended = gate("started"), gate("never"), tally()

    @ray.remote(max_retries=0)
    def child():
        started.open()
        try:
            spin_until(never)
        except KeyboardInterrupt:
            ended.add("child")
            raise

    @ray.remote(max_retries=0)
    def parent():
        return ray.get(child.remote())

    ref = parent.remote()
    started.wait()
    ray.cancel(ref, recursive=True)
    with pytest.raises(RayError):
        ray.get(ref, timeout=20)
    wait_until(lambda: ended.words() == ["child"])


def test_children_stay_without_recursive(gate, tally):
    started, go, ended = gate("started"), gate("go"), tally()

    @ray.remote(max_retries=0)
    def child():
        started.open()
        spin_until(go)
        ended.add("finished")

    @ray.remote(max_retries=0)
    def parent(box):
        box.append(child.remote())
        return ray.get(box[0])

    ref = parent.remote([])
    started.wait()
    ray.cancel(ref, recursive=False)
    with pytest.raises(RayError):
        ray.get(ref, timeout=20)
    go.open()
    wait_until(lambda: ended.words() == ["finished"])


def test_finished_work_is_left_alone():
    @ray.remote
    def f():
        return "kept"

    ref = f.remote()
    assert ray.get(ref) == "kept"
    ray.cancel(ref)
    ray.cancel(ref)
    assert ray.get(ref) == "kept"


def test_dependents_of_a_cancelled_task_fail(gate, tally):
    started, never, ran = gate("started"), gate("never"), tally()

    @ray.remote(max_retries=0)
    def work():
        started.open()
        spin_until(never)

    @ray.remote
    def dependent(_):
        ran.add()

    first = work.remote()
    last = dependent.remote(dependent.remote(first))
    started.wait()
    ray.cancel(first)
    with pytest.raises(RayError, match=r"(?i)cancel"):
        ray.get(last, timeout=20)
    assert ran.count() == 0


def test_cancelling_is_accepted_many_times_and_at_any_time(tally):
    @ray.remote(max_retries=0)
    def f(i):
        return i

    for _ in range(5):
        refs = [f.remote(i) for i in range(10)]
        for ref in refs:
            ray.cancel(ref)
        for i, ref in enumerate(refs):
            try:
                assert ray.get(ref, timeout=20) == i
            except TaskCancelledError:
                pass
    assert ray.get(f.remote(1), timeout=20) == 1


def test_cancelled_task_is_not_retried(gate, tally):
    started, never, runs = gate("started"), gate("never"), tally()

    @ray.remote(max_retries=5, retry_exceptions=True)
    def work():
        runs.add()
        started.open()
        spin_until(never)

    ref = work.remote()
    started.wait()
    ray.cancel(ref)
    with pytest.raises(TaskCancelledError):
        ray.get(ref, timeout=20)
    assert runs.count() == 1


def test_cancel_of_something_else_is_a_type_error():
    with pytest.raises(TypeError):
        ray.cancel(5)


def test_cancel_of_a_put_is_left_alone_or_refused():
    ref = ray.put(1)
    try:
        ray.cancel(ref)
    except (TypeError, ValueError):
        pass
    assert ray.get(ref) == 1


def test_async_actor_method_gets_cancelled_error(gate, tally):
    started, words = gate("started"), tally()

    @ray.remote
    class A:
        async def work(self):
            started.open()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                words.add("cancelled")
                raise

        async def ping(self):
            return "alive"

    a = A.remote()
    ref = a.work.remote()
    started.wait()
    ray.cancel(ref)
    with pytest.raises(TaskCancelledError):
        ray.get(ref, timeout=20)
    wait_until(lambda: words.words() == ["cancelled"])
    assert ray.get(a.ping.remote(), timeout=20) == "alive"


def test_queued_actor_call_never_runs(gate, tally):
    started, go, ran = gate("started"), gate("go"), tally()

    @ray.remote
    class A:
        def work(self):
            started.open()
            return go.wait()

        def note(self):
            ran.add()

        def ping(self):
            return "alive"

    a = A.remote()
    first = a.work.remote()
    started.wait()
    queued = a.note.remote()
    ray.cancel(queued)
    go.open()
    assert ray.get(first, timeout=20)
    with pytest.raises(TaskCancelledError):
        ray.get(queued, timeout=20)
    assert ray.get(a.ping.remote(), timeout=20) == "alive"
    assert ran.count() == 0


def test_threaded_actor_sees_that_it_is_cancelled(gate):
    started = gate("started")

    @ray.remote(max_concurrency=2)
    class A:
        def work(self):
            started.open()
            context = ray.get_runtime_context()
            deadline = time.monotonic() + 30
            while not context.is_canceled():
                if time.monotonic() > deadline:
                    return "never told"
                time.sleep(0.005)
            raise RuntimeError("stopped because it was cancelled")

        def ping(self):
            return "alive"

    a = A.remote()
    ref = a.work.remote()
    started.wait()
    assert ray.get(a.ping.remote(), timeout=20) == "alive"
    ray.cancel(ref)
    with pytest.raises(RayError):
        ray.get(ref, timeout=20)
    assert ray.get(a.ping.remote(), timeout=20) == "alive"


def test_cpu_of_cancelled_work_is_free_again(fresh, gate):
    ray.init(num_cpus=1)
    started, never = gate("started"), gate("never")

    @ray.remote(max_retries=0)
    def work():
        started.open()
        spin_until(never)

    @ray.remote
    def after():
        return "ran"

    ref = work.remote()
    started.wait()
    ray.cancel(ref)
    assert ray.get(after.remote(), timeout=20) == "ran"
    wait_until(lambda: ray.available_resources().get("CPU") == 1)
