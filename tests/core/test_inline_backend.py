"""What is special about `local_mode`: the calling thread, lazy generators, waits that only the waiter can end."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import traceback

import numpy as np
import pytest
from helpers import wait_until

import mltoolkit as ray
from mltoolkit.core.backend import current_backend
from mltoolkit.exceptions import (
    ActorDiedError,
    DeadlockError,
    GetTimeoutError,
    ObjectStoreFullError,
    OwnerDiedError,
    RayError,
    RayTaskError,
    RuntimeEnvSetupError,
    TaskCancelledError,
    TaskUnschedulableError,
    WorkerCrashedError,
)
from mltoolkit.util.placement_group import placement_group, remove_placement_group
from mltoolkit.util.scheduling_strategies import PlacementGroupSchedulingStrategy


@pytest.fixture
def local(fresh):
    ray.init(num_cpus=2, local_mode=True)
    return ray


@ray.remote
def thread():
    return threading.get_ident()


@ray.remote
def double(x):
    return 2 * x


@ray.remote
class Counter:
    def __init__(self, n=0):
        self.n = n

    def add(self, x=1):
        self.n += x
        return self.n

    def thread(self):
        return threading.get_ident()

    def items(self, n):
        for _ in range(n):
            self.n += 1
            yield self.n


# -- the calling thread -----------------------------------------------------------------------------------------------


def test_tasks_and_plain_actors_run_in_the_calling_thread(local):
    @ray.remote
    def nested():
        return threading.get_ident(), ray.get(thread.remote())

    me = threading.get_ident()
    assert ray.get(nested.remote()) == (me, me)
    assert ray.get(Counter.remote().thread.remote()) == me
    assert ray.wait([thread.remote()], timeout=0)[1] == []


def test_post_mortem_debuggers_land_in_the_frame_that_raised(local):
    @ray.remote
    def inner():
        culprit = 0
        return 1 / culprit

    @ray.remote
    def outer():
        return ray.get(inner.remote())

    for function in (inner, outer):
        ref = function.remote()
        for _ in range(2):
            with pytest.raises(ZeroDivisionError) as caught:
                ray.get(ref)
            assert isinstance(caught.value, RayTaskError)
            frames = [frame for frame, _ in traceback.walk_tb(caught.value.__traceback__)]
            assert frames[-1].f_code.co_name == "inner"
            assert frames[-1].f_locals["culprit"] == 0


def test_keyboard_interrupt_stops_the_driver(local):
    @ray.remote
    def interrupted():
        raise KeyboardInterrupt

    @ray.remote
    class A:
        def interrupted(self):
            raise KeyboardInterrupt

        def ping(self):
            return "up"

    with pytest.raises(KeyboardInterrupt):
        interrupted.remote()
    actor = A.remote()
    with pytest.raises(KeyboardInterrupt):
        actor.interrupted.remote()
    assert ray.get(actor.ping.remote()) == "up"
    assert ray.get(double.remote(1)) == 2
    assert ray.available_resources()["CPU"] == 2


def test_system_exit_is_a_crash_of_the_task_alone(local, tally):
    runs = tally()

    @ray.remote(max_retries=2)
    def leave():
        runs.add()
        raise SystemExit(3)

    with pytest.raises(WorkerCrashedError, match=r"sys.exit\(3\)"):
        ray.get(leave.remote())
    assert runs.count() == 3


def test_retry_exceptions(local, tally):
    runs = tally()

    @ray.remote(max_retries=3, retry_exceptions=[OSError])
    def flaky():
        if runs.add() < 3:
            raise OSError("again")
        return "done"

    assert ray.get(flaky.remote()) == "done"
    assert runs.count() == 3


# -- generators -------------------------------------------------------------------------------------------------------


def test_generators_run_on_as_items_are_asked_for(local, tally):
    made, ended = tally(), tally("ended")

    @ray.remote
    def forever():
        try:
            while True:
                yield made.add()
        finally:
            ended.add()

    stream = forever.remote()
    assert made.count() == 0
    assert [ray.get(next(stream)) for _ in range(2)] == [1, 2]
    assert made.count() == 2
    assert stream.next_ready()
    assert not stream.is_finished()
    assert ray.available_resources()["CPU"] == 2, "a generator that waits for its consumer lends its CPU"
    del stream
    gc.collect()
    wait_until(ended.count)
    assert made.count() <= 4


def test_completion_of_a_generator_runs_it_to_its_end(local):
    @ray.remote
    def three():
        yield from range(3)

    @ray.remote
    def fails():
        yield 1
        raise ValueError("late")

    stream = three.remote()
    assert ray.get(stream.completed()) is None
    assert [ray.get(ref) for ref in stream] == [0, 1, 2]
    assert stream.is_finished()
    polled = three.remote()
    wait_until(lambda: ray.wait([polled.completed()], timeout=0)[0])
    assert polled.completed().future().result(10) is None
    late = fails.remote()
    with pytest.raises(ValueError, match="late"):
        ray.get(double.remote(late.completed()))
    assert ray.get(next(late)) == 1
    with pytest.raises(ValueError, match="late"):
        ray.get(next(late))


def test_an_actors_next_call_begins_after_its_generator(local):
    counter = Counter.remote()
    stream = counter.items.remote(3)
    assert ray.get(next(stream)) == 1
    assert ray.get(counter.add.remote(10)) == 13
    assert [ray.get(ref) for ref in stream] == [2, 3]


def test_backpressure_of_an_actors_generator_holds_its_next_call(local):
    counter = Counter.remote()
    stream = counter.items.options(_generator_backpressure_num_objects=1).remote(2)
    assert ray.get(next(stream)) == 1
    behind = counter.add.remote(10)
    assert ray.wait([behind], timeout=0.1) == ([], [behind])
    assert [ray.get(ref) for ref in stream] == [2]
    assert ray.get(behind) == 12


def test_cancel_interrupts_a_generator_where_it_stands(local, tally):
    seen = tally()

    @ray.remote
    def forever():
        try:
            while True:
                yield 1
        except KeyboardInterrupt:
            seen.add("interrupt")
            raise

    stream = forever.remote()
    next(stream)
    ray.cancel(stream)
    assert seen.words() == ["interrupt"]
    with pytest.raises(TaskCancelledError):
        ray.get(next(stream))
    with pytest.raises(StopIteration):
        next(stream)


def test_retried_generator_does_not_repeat_items(local, tally):
    runs = tally()

    @ray.remote(max_retries=1, retry_exceptions=True)
    def flaky():
        yield "a"
        if runs.add() == 1:
            raise ValueError
        yield "b"

    assert [ray.get(ref) for ref in flaky.remote()] == ["a", "b"]


def test_generator_that_waits_for_itself(local):
    @ray.remote
    class Holder:
        def keep(self, refs):
            self.refs = refs

        def give(self):
            return self.refs

    holder = Holder.remote()

    @ray.remote
    def own():
        yield "first"
        yield ray.get(ray.get(holder.give.remote())[0])

    stream = own.remote()
    ray.get(holder.keep.remote([stream.completed()]))
    assert ray.get(next(stream)) == "first"
    with pytest.raises(DeadlockError, match="item of its own"):
        ray.get(next(stream))


# -- waits ------------------------------------------------------------------------------------------------------------


def test_actor_that_waits_for_its_own_call_is_told(local):
    @ray.remote
    class A:
        def ping(self):
            return "up"

        def wait(self, me):
            return ray.get(me[0].ping.remote())

        def give(self, me):
            return me[0].ping.remote()

    @ray.remote
    class B:
        async def ping(self):
            return "up"

        async def wait(self, me):
            return ray.get(me[0].ping.remote())

    for cls in (A, B):
        actor = cls.remote()
        with pytest.raises(DeadlockError, match="wait"):
            ray.get(actor.wait.remote([actor]), timeout=20)
        assert ray.get(actor.ping.remote()) == "up"
    actor = A.remote()
    assert ray.get(ray.get(actor.give.remote([actor]))) == "up"


def test_task_below_an_actors_method_may_call_it_back(local):
    @ray.remote
    def call(actor):
        return ray.get(actor[0].ping.remote())

    @ray.remote
    class A:
        def ping(self):
            return "up"

        def start(self, me):
            return call.remote(me)

    actor = A.remote()
    assert ray.get(ray.get(actor.start.remote([actor]))) == "up"


def test_what_coroutines_submit_does_not_hold_up_their_loop(local):
    @ray.remote
    def report(actor):
        return ray.get(actor[0].note.remote("task")), threading.get_ident()

    @ray.remote
    class Child:
        def __init__(self, parent):
            self.said = ray.get(parent[0].note.remote("child"))

        def what(self):
            return self.said

    @ray.remote
    class Parent:
        def __init__(self):
            self.notes = []

        async def note(self, word):
            self.notes.append(word)
            return len(self.notes)

        async def run(self, me):
            count, ident = await report.remote(me)
            child = await Child.remote(me).what.remote()
            return count, child, ident != threading.get_ident()

    parent = Parent.remote()
    assert ray.get(parent.run.remote([parent]), timeout=20) == (1, 2, True)


def test_pending_calls_of_asyncio_actors(local):
    @ray.remote
    class Signal:
        def __init__(self):
            self.event = asyncio.Event()

        async def wait(self):
            await self.event.wait()
            return "sent"

        async def send(self):
            self.event.set()

    signal = Signal.remote()
    waiting = signal.wait.remote()
    with pytest.raises(GetTimeoutError):
        ray.get(waiting, timeout=0.05)
    counter = Counter.remote()
    then = double.remote(waiting)
    behind = [counter.add.remote(), counter.add.remote(2)]
    assert ray.wait([waiting, then], num_returns=2, timeout=0.05)[0] == []
    assert ray.get(behind) == [1, 3]
    future = then.future()
    ray.get(signal.send.remote())
    assert ray.get([waiting, then], timeout=20) == ["sent", "sentsent"]
    assert future.result(20) == "sentsent"
    again = Signal.remote()
    cancelled = again.wait.remote()
    ray.cancel(cancelled)
    with pytest.raises(TaskCancelledError):
        ray.get(cancelled, timeout=20)


def test_threaded_actors_keep_their_threads(local):
    @ray.remote(max_concurrency=2)
    class A:
        def __init__(self):
            self.event = threading.Event()

        def wait(self):
            return self.event.wait(20)

        def send(self):
            self.event.set()

    actor = A.remote()
    waiting = actor.wait.remote()
    actor.send.remote()
    assert ray.get(waiting, timeout=20)


def test_concurrency_groups_keep_their_threads(local):
    @ray.remote(concurrency_groups={"io": 1})
    class A:
        def __init__(self):
            self.event = threading.Event()

        def wait(self):
            return self.event.wait(20)

        @ray.method(concurrency_group="io")
        def send(self):
            self.event.set()

    actor = A.remote()
    waiting = actor.wait.remote()
    actor.send.remote()
    assert ray.get(waiting, timeout=20)


def test_two_threads_share_one_actor(local):
    counter = Counter.remote()
    threads = [threading.Thread(target=lambda: [counter.add.remote() for _ in range(100)]) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(20)
    assert ray.get(counter.add.remote(0), timeout=20) == 400


# -- actors -----------------------------------------------------------------------------------------------------------


def test_kill_restarts_where_restarts_are_left(local):
    counter = Counter.options(max_restarts=1, name="one").remote(5)
    assert ray.get(counter.add.remote()) == 6
    ray.kill(counter, no_restart=False)
    assert ray.get(counter.add.remote(), timeout=20) == 6
    ray.kill(counter, no_restart=False)
    with pytest.raises(ActorDiedError):
        ray.get(counter.add.remote(), timeout=20)
    assert Counter.options(name="one", get_if_exists=True).remote() != counter


def test_exit_actor(local):
    @ray.remote
    class A:
        def leave(self):
            try:
                ray.actor.exit_actor()
            except Exception:
                return "caught"

    actor = A.options(name="leaving").remote()
    with pytest.raises(ActorDiedError, match="exit_actor"):
        ray.get(actor.leave.remote(), timeout=20)
    wait_until(lambda: "leaving" not in ray.util.list_named_actors())
    with pytest.raises(TypeError):
        ray.actor.exit_actor()


def test_actor_goes_with_its_last_handle(local, tally):
    gone = tally()

    class Payload:
        def __del__(self):
            gone.add()

    @ray.remote(num_cpus=2)
    class A:
        def __init__(self):
            self.payload = Payload()

        def ping(self):
            return "up"

    actor = A.remote()
    assert ray.get(actor.ping.remote()) == "up"
    assert "CPU" not in ray.available_resources()
    del actor
    assert ray.get(double.remote(2), timeout=20) == 4
    wait_until(lambda: gc.collect() is not None and gone.count())


# -- context and resources --------------------------------------------------------------------------------------------


def test_context_inside_and_outside(local):
    @ray.remote
    class A:
        def __init__(self):
            self.in_thread = []

        async def ids(self):
            context = ray.get_runtime_context()
            return context.get_actor_id(), context.get_actor_name(), context.get_task_id()

        def me(self):
            return ray.get_runtime_context().current_actor

    @ray.remote(num_gpus=1)
    def gpus():
        return ray.get_gpu_ids(), os.environ["CUDA_VISIBLE_DEVICES"], ray.get_runtime_context().get_assigned_resources()

    actor = A.options(name="a").remote()
    actor_id, name, task_id = ray.get(actor.ids.remote())
    assert (actor_id, name) == (actor._actor_id.hex(), "a")
    assert task_id
    assert ray.get(actor.me.remote()) == actor
    outside = ray.get_runtime_context()
    assert outside.get_actor_id() is None
    assert outside.get_task_id() is None
    ray.shutdown()
    ray.init(num_cpus=1, num_gpus=2, local_mode=True)
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    ids, visible, held = ray.get(gpus.remote())
    assert len(ids) == 1
    assert visible == str(ids[0])
    assert held == {"CPU": 1, "GPU": 1}
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == before


def test_resources_are_accounted(local):
    @ray.remote(num_cpus=2)
    def nested(depth):
        return ray.get(nested.remote(depth - 1)) + 1 if depth else 0

    @ray.remote
    def free():
        return ray.available_resources().get("CPU", 0)

    assert ray.get(nested.remote(5)) == 5
    assert ray.get(free.remote()) in (1, 2)
    assert ray.available_resources()["CPU"] == 2
    with pytest.raises(TaskUnschedulableError, match="num_cpus"):
        ray.get(double.options(num_cpus=3).remote(1))


def test_placement_groups(local):
    @ray.remote
    def make():
        group = placement_group([{"CPU": 2}])
        return group.wait(20), group

    @ray.remote
    def where():
        return ray.util.get_current_placement_group()

    ready, group = ray.get(make.remote())
    assert ready
    strategy = PlacementGroupSchedulingStrategy(group, placement_group_capture_child_tasks=True)
    assert ray.get(where.options(scheduling_strategy=strategy).remote()) == group
    waiting = double.remote(1)
    assert ray.wait([waiting], timeout=0.05)[0] == []
    remove_placement_group(group)
    assert ray.get(waiting, timeout=20) == 2
    impossible = placement_group([{"CPU": 3}])
    assert not impossible.wait(1)


def test_runtime_env(local, tmp_path):
    @ray.remote(runtime_env={"env_vars": {"LOCAL_MODE_TEST": "set"}, "working_dir": str(tmp_path)})
    def look():
        return os.environ["LOCAL_MODE_TEST"], os.getcwd()

    @ray.remote
    class A:
        async def ping(self):
            return None

    before = os.getcwd()
    assert ray.get(look.remote()) == ("set", str(tmp_path))
    assert os.getcwd() == before
    assert "LOCAL_MODE_TEST" not in os.environ
    with pytest.raises(ActorDiedError) as caught:
        ray.get(A.options(runtime_env={"env_vars": {"X": "1"}}).remote().ping.remote(), timeout=20)
    assert isinstance(caught.value.__cause__ or caught.value.cause, RuntimeEnvSetupError)


# -- objects and the end ----------------------------------------------------------------------------------------------


def test_objects_are_freed_with_their_last_reference(local):
    store = current_backend().store

    @ray.remote
    def make():
        return [ray.put(np.ones(1 << 17))]

    refs = ray.get(make.remote())
    value = ray.get(refs[0])
    assert store._used >= 1 << 20
    del refs
    wait_until(lambda: store._used == 0)
    assert value[0] == 1, "a view outlives its object"


def test_object_store_memory_is_a_limit(fresh):
    ray.init(num_cpus=1, local_mode=True, object_store_memory=1 << 20)
    with pytest.raises(ObjectStoreFullError, match="object_store_memory"):
        ray.put(np.ones(1 << 18))
    assert ray.get(ray.put(np.ones(1 << 16))).sum() == 1 << 16


def test_dashboard_is_refused(fresh):
    with pytest.raises(ValueError, match="include_dashboard"):
        ray.init(local_mode=True, include_dashboard=True)
    assert not ray.is_initialized()


def test_nothing_works_and_no_thread_stays_after_shutdown(fresh):
    before = set(threading.enumerate())
    for _ in range(3):
        ray.init(num_cpus=2, local_mode=True)

        @ray.remote
        class A:
            async def wait(self):
                await asyncio.Event().wait()

        @ray.remote(max_concurrency=2)
        class B:
            def ping(self):
                return "up"

        @ray.remote
        def forever():
            while True:
                yield 1

        ref, counter, a, b, stream = ray.put(1), Counter.remote(), A.remote(), B.remote(), forever.remote()
        waiting = a.wait.remote()
        assert ray.get(b.ping.remote()) == "up"
        next(stream)
        ray.shutdown()
        assert not ray.is_initialized()
        for late in (ref, waiting):
            with pytest.raises(RayError):
                late._backend.get([late], 1)
        with pytest.raises(OwnerDiedError):
            ref._backend.get([ref], 1)
        with pytest.raises(RayError, match="shut down"):
            counter.add.remote()
        with pytest.raises(RayError):
            next(stream)
    wait_until(lambda: not [one for one in threading.enumerate() if one not in before and one.name != "MainThread"])
