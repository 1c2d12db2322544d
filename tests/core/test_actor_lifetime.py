"""Handles, how long actors live, and what their processes see of each other."""

from __future__ import annotations

import gc
import os
import threading

import pytest
from helpers import alive, wait_until

import mltoolkit as ray

pytestmark = pytest.mark.usefixtures("runtime")


@ray.remote
class Counter:
    def __init__(self, start=0):
        self.value = start

    def add(self, n=1):
        self.value += n
        return self.value

    def pid(self):
        return os.getpid()


# -- handles ----------------------------------------------------------------------------------------------------------


def test_handles_travel_and_equal_handles_are_the_same_actor():
    @ray.remote
    def use(handles):
        return ray.get(handles["counter"].add.remote()), handles["counter"]

    @ray.remote
    class Keeper:
        def keep(self, handle):
            self.handle = handle

        def use(self):
            return ray.get(self.handle.add.remote())

    counter = Counter.remote()
    value, back = ray.get(use.remote({"counter": counter}))
    assert value == 1
    assert back == counter
    assert hash(back) == hash(counter)
    assert back != Counter.remote()
    assert isinstance(back, ray.actor.ActorHandle)
    keeper = Keeper.remote()
    keeper.keep.remote(counter)
    assert ray.get(keeper.use.remote()) == 2
    assert ray.get(ray.get(ray.put(counter)).add.remote()) == 3


def test_actor_can_pass_on_its_own_handle():
    @ray.remote
    class Self:
        def me(self):
            return ray.get_runtime_context().current_actor

        def id(self):
            return ray.get_runtime_context().get_actor_id()

        def ping(self):
            return "up"

    a = Self.remote()
    me = ray.get(a.me.remote())
    assert me == a
    assert ray.get(me.ping.remote()) == "up"
    assert ray.get(a.id.remote())


def test_actor_creates_actors_and_calls_tasks():
    @ray.remote
    def double(x):
        return 2 * x

    @ray.remote
    class Parent:
        def __init__(self):
            self.children = [Counter.remote(i) for i in range(2)]

        def total(self):
            return sum(ray.get([double.remote(c.add.remote()) for c in self.children]))

    assert ray.get(Parent.remote().total.remote(), timeout=30) == 6


# -- lifetime ---------------------------------------------------------------------------------------------------------


def test_actor_ends_with_its_last_handle():
    counter = Counter.remote()
    pid = ray.get(counter.pid.remote())
    assert alive(pid)
    del counter
    gc.collect()
    wait_until(lambda: not alive(pid), 20)


def test_submitted_calls_finish_before_the_actor_ends(gate):
    go = gate("go")

    @ray.remote
    class Slow:
        def work(self):
            go.wait()
            return "done"

    slow = Slow.remote()
    refs = [slow.work.remote() for _ in range(3)]
    del slow
    gc.collect()
    assert ray.wait(refs, timeout=0.2)[0] == []
    go.open()
    assert ray.get(refs, timeout=20) == ["done"] * 3
    assert ray.get(Slow.remote().work.remote(), timeout=20) == "done"


def test_handle_kept_by_another_actor_or_object_keeps_it_alive():
    @ray.remote
    class Keeper:
        def __init__(self, handles):
            self.handle = handles[0]

        def use(self):
            return ray.get(self.handle.add.remote())

    counter = Counter.remote()
    pid = ray.get(counter.pid.remote())
    keeper = Keeper.remote([counter])
    ray.get(keeper.use.remote())
    stored = ray.put([counter])
    del counter
    gc.collect()
    assert ray.get(keeper.use.remote()) == 2
    ray.kill(keeper)
    assert ray.get(ray.get(stored)[0].add.remote()) == 3
    assert alive(pid)
    del stored, keeper
    gc.collect()
    wait_until(lambda: not alive(pid), 20)


def test_handle_passed_to_a_pending_task_keeps_the_actor_alive(gate):
    go = gate("go")

    @ray.remote
    def slow():
        return go.wait()

    @ray.remote
    def use(counter, _):
        return ray.get(counter.add.remote())

    ref = use.remote(Counter.remote(), slow.remote())
    gc.collect()
    assert ray.wait([ref], timeout=0.2)[0] == []
    go.open()
    assert ray.get(ref, timeout=20) == 1


# -- a process of its own ---------------------------------------------------------------------------------------------


def test_actors_see_nothing_of_each_other(tmp_path):
    @ray.remote
    class Resident:
        def change(self, folder):
            os.environ["RESIDENT"] = "here"
            os.chdir(folder)
            threading.Thread(target=threading.Event().wait, daemon=True, name="resident").start()
            import builtins

            builtins.resident = True

        def look(self):
            import builtins

            names = [t.name for t in threading.enumerate()]
            return os.environ.get("RESIDENT"), os.getcwd(), "resident" in names, hasattr(builtins, "resident")

    first, second = Resident.remote(), Resident.remote()
    ray.get(first.change.remote(str(tmp_path)))
    assert ray.get(first.look.remote()) == ("here", str(tmp_path), True, True)
    env, folder, thread, builtin = ray.get(second.look.remote())
    assert env is None
    assert folder != str(tmp_path)
    assert not thread
    assert not builtin
    assert "RESIDENT" not in os.environ


def test_each_actor_has_its_own_process():
    counters = [Counter.remote() for _ in range(3)]
    pids = ray.get([c.pid.remote() for c in counters])
    assert len({os.getpid(), *pids}) == 4


def test_threaded_actor_runs_calls_side_by_side():
    @ray.remote(max_concurrency=3)
    class Meeting:
        def __init__(self):
            self.barrier = threading.Barrier(3)

        def meet(self):
            self.barrier.wait(timeout=30)
            return "met"

    meeting = Meeting.remote()
    assert ray.get([meeting.meet.remote() for _ in range(3)], timeout=40) == ["met"] * 3


def test_threaded_actor_runs_at_most_max_concurrency_calls(gate, tally):
    go, running = gate("go"), tally()

    @ray.remote(max_concurrency=2)
    class A:
        def work(self):
            running.add()
            return go.wait()

    a = A.remote()
    refs = [a.work.remote() for _ in range(4)]
    wait_until(lambda: running.count() == 2)
    assert ray.wait(refs, timeout=0.2)[0] == []
    assert running.count() == 2
    go.open()
    assert all(ray.get(refs, timeout=20))
