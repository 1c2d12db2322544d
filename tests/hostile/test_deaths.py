"""Processes that die: executors, actors, the fork server, the driver itself."""

from __future__ import annotations

import os
import signal
import time

import psutil
import pytest
from helpers import alive, family, wait_until

import mltoolkit as ray
from mltoolkit.exceptions import ActorDiedError, RayActorError, WorkerCrashedError

pytestmark = pytest.mark.hostile

needs_mltoolkit = pytest.mark.skipif(ray.__name__ != "mltoolkit", reason="about our own processes and messages")


def die(how):
    """End this process: an exit code, or a signal by name."""
    if isinstance(how, int):
        os._exit(how)
    os.kill(os.getpid(), getattr(signal, how))
    signal.pause()


# -- executors ------------------------------------------------------------------------------------------------------


@needs_mltoolkit
@pytest.mark.parametrize(
    ("how", "told"),
    [(3, r"\b3\b"), (0, r"\b0\b"), ("SIGKILL", "SIGKILL"), ("SIGSEGV", "SIGSEGV"), ("SIGTERM", "SIGTERM|exit")],
)
def test_death_of_a_task_names_its_cause(runtime, how, told, tally):
    runs = tally()

    @ray.remote(max_retries=1)
    def work():
        runs.add()
        die(how)

    with pytest.raises(WorkerCrashedError, match=told) as caught:
        ray.get(work.remote(), timeout=30)
    assert runs.count() == 2
    assert "work" in str(caught.value)


@needs_mltoolkit
@pytest.mark.parametrize(("how", "told"), [(3, r"\b3\b"), ("SIGKILL", "SIGKILL"), ("SIGSEGV", "SIGSEGV")])
def test_death_of_an_actor_names_its_cause(runtime, how, told):
    @ray.remote
    class A:
        def end(self):
            die(how)

        def ping(self):
            return 1

    a = A.remote()
    for call in (a.end, a.ping):
        with pytest.raises(ActorDiedError, match=told) as caught:
            ray.get(call.remote(), timeout=30)
    assert "A" in str(caught.value)


@needs_mltoolkit
def test_death_shows_the_last_lines_of_stderr(runtime):
    @ray.remote(max_retries=0)
    def work():
        os.write(2, b"the disk is on fire\n")
        os._exit(9)

    with pytest.raises(WorkerCrashedError, match="the disk is on fire"):
        ray.get(work.remote(), timeout=30)


@needs_mltoolkit
def test_a_crash_costs_one_task_and_none_of_the_data(runtime, gate, tally):
    import numpy as np

    go, started = gate("go"), tally()

    @ray.remote
    def neighbour(i):
        started.add(os.getpid())
        go.wait()
        return i, os.getpid()

    @ray.remote
    def make():
        return np.full(1 << 18, 5.0), os.getpid()

    @ray.remote(max_retries=0)
    def crash():
        os.kill(os.getpid(), signal.SIGKILL)

    made = make.remote()
    ray.wait([made])
    refs = [neighbour.remote(i) for i in range(2)]
    wait_until(lambda: started.count() == 2)
    for _ in range(5):
        with pytest.raises(WorkerCrashedError):
            ray.get(crash.remote(), timeout=30)
    go.open()
    results = ray.get(refs, timeout=30)
    assert [r[0] for r in results] == [0, 1]
    assert sorted(str(r[1]) for r in results) == sorted(started.words()), "a neighbour was started again"
    assert ray.get(made)[0].sum() == 5.0 * (1 << 18)


def test_kill_from_outside_while_a_task_runs(runtime, tally, gate):
    go, pids = gate("go"), tally()

    @ray.remote(max_retries=2)
    def work():
        if pids.add(os.getpid()) == 1:
            go.wait()
        return "done"

    ref = work.remote()
    wait_until(pids.count)
    os.kill(int(pids.words()[0]), signal.SIGKILL)
    assert ray.get(ref, timeout=30) == "done"
    assert pids.count() == 2


def test_kill_of_an_idle_executor_costs_nothing(runtime):
    @ray.remote
    def pid():
        return os.getpid()

    for _ in range(5):
        os.kill(ray.get(pid.remote(), timeout=30), signal.SIGKILL)
    assert ray.get([pid.remote() for _ in range(4)], timeout=30)


def test_kill_of_an_actor_from_outside(runtime):
    @ray.remote(max_restarts=1)
    class A:
        def pid(self):
            return os.getpid()

    def ask():
        try:
            return ray.get(a.pid.remote(), timeout=30)
        except ray.exceptions.ActorUnavailableError:
            return None

    a = A.remote()
    first = ray.get(a.pid.remote())
    os.kill(first, signal.SIGKILL)
    second = wait_until(lambda: (ask() or first) != first and ask(), 30)
    os.kill(second, signal.SIGKILL)

    def dead():
        try:
            ray.get(a.pid.remote(), timeout=30)
        except ActorDiedError:
            return True

    wait_until(dead, 30)


def test_caller_that_dies_leaves_the_actor_usable(runtime, gate):
    started = gate("started")

    @ray.remote
    class A:
        def ping(self):
            return "up"

        def slow(self):
            started.open()
            time.sleep(0.2)

    @ray.remote(max_retries=0)
    def caller(a):
        a.slow.remote()
        started.wait()
        os._exit(1)

    a = A.remote()
    with pytest.raises(WorkerCrashedError):
        ray.get(caller.remote(a), timeout=30)
    assert ray.get(a.ping.remote(), timeout=30) == "up"


@needs_mltoolkit
def test_handles_and_refs_of_a_dead_process_are_given_back(runtime):
    @ray.remote
    class Child:
        def pid(self):
            return os.getpid()

    @ray.remote
    class Parent:
        def __init__(self):
            self.child = Child.remote()

        def child_pid(self):
            return ray.get(self.child.pid.remote())

        def die(self):
            os._exit(1)

    parent = Parent.remote()
    pid = ray.get(parent.child_pid.remote())
    with pytest.raises(RayActorError):
        ray.get(parent.die.remote(), timeout=30)
    wait_until(lambda: not alive(pid), 15, "the child of a dead actor ends")


@needs_mltoolkit
def test_blocked_get_and_wait_end_when_the_actor_dies(runtime, gate):
    started = gate("started")

    @ray.remote
    class A:
        def block(self):
            started.open()
            signal.pause()

        def pid(self):
            return os.getpid()

    a = A.remote()
    pid = ray.get(a.pid.remote())
    refs = [a.block.remote(), *[a.pid.remote() for _ in range(10)]]
    started.wait()
    os.kill(pid, signal.SIGKILL)
    before = time.monotonic()
    ready, rest = ray.wait(refs, num_returns=len(refs), timeout=30)
    assert rest == []
    assert time.monotonic() - before < 10
    for ref in ready:
        with pytest.raises(RayActorError):
            ray.get(ref)


@needs_mltoolkit
def test_out_of_memory_is_explained(fresh):
    ray.init(num_cpus=1)

    @ray.remote(max_retries=0)
    def eat():
        import resource

        used = psutil.Process().memory_info().vms
        resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), resource.RLIM_INFINITY))
        return len(bytearray(8 << 30))

    with pytest.raises((MemoryError, ray.exceptions.OutOfMemoryError)):
        ray.get(eat.remote(), timeout=30)


# -- the fork server ------------------------------------------------------------------------------------------------


@needs_mltoolkit
def test_fork_server_killed_is_replaced(fresh):
    before = {p.pid for p in family()}
    ray.init(num_cpus=2)

    @ray.remote
    class A:
        def pid(self):
            return os.getpid()

        def parent(self):
            return os.getppid()

    @ray.remote
    def work():
        return os.getpid()

    ray.get([work.remote(), (first := A.remote()).pid.remote()])
    for _ in range(2):
        servers = [p for p in psutil.Process().children() if p.pid not in before and alive(p)]
        assert servers, "there is no child to kill"
        for server in servers:
            server.kill()
        second = A.remote()
        assert ray.get(second.pid.remote(), timeout=30)
        assert ray.get([work.remote() for _ in range(4)], timeout=30)
    try:
        ray.get(first.pid.remote(), timeout=30)
    except RayActorError:
        pass  # it may go with its server, but it must not hang
