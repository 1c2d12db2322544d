"""How actors end: `kill`, `exit_actor`, `__ray_terminate__`, `SystemExit`; and how they restart."""

from __future__ import annotations

import os
import signal

import pytest
from helpers import alive, wait_until

import mltoolkit as ray
from mltoolkit.exceptions import ActorDiedError, RayActorError

pytestmark = pytest.mark.usefixtures("runtime")


@ray.remote
class Worker:
    def pid(self):
        return os.getpid()

    def block(self, started, gate):
        started.open()
        return gate.wait()

    def die(self, code=1):
        os._exit(code)


# -- kill -----------------------------------------------------------------------------------------------------------


def test_kill_is_at_once_for_calls_in_flight_and_later_ones(gate):
    started, never = gate("started"), gate("never")
    worker = Worker.remote()
    pid = ray.get(worker.pid.remote())
    running = worker.block.remote(started, never)
    queued = worker.pid.remote()
    started.wait()
    ray.kill(worker)
    for ref in (running, queued, worker.pid.remote()):
        with pytest.raises(ActorDiedError, match=r"(?i)kill"):
            ray.get(ref, timeout=20)
    wait_until(lambda: not alive(pid), 10)


def test_kill_before_the_actor_is_up():
    worker = Worker.remote()
    ray.kill(worker)
    with pytest.raises(RayActorError):
        ray.get(worker.pid.remote(), timeout=20)


def test_kill_twice_and_kill_of_the_dead_are_harmless():
    worker = Worker.remote()
    ray.get(worker.pid.remote())
    ray.kill(worker)
    ray.kill(worker)


@pytest.mark.parametrize("foreign", [1, "worker", None, Worker], ids=["int", "str", "None", "class"])
def test_kill_of_something_else_is_a_value_error(foreign):
    with pytest.raises((ValueError, TypeError)):
        ray.kill(foreign)


def test_kill_from_a_task_and_from_itself():
    @ray.remote
    def kill(handle):
        ray.kill(handle)

    @ray.remote
    class Suicidal:
        def end(self):
            ray.kill(ray.get_runtime_context().current_actor)
            os.kill(os.getpid(), signal.SIGSTOP)

        def ping(self):
            return 1

    worker = Worker.remote()
    ray.get(worker.pid.remote())
    ray.get(kill.remote(worker))
    with pytest.raises(ActorDiedError):
        ray.get(worker.pid.remote(), timeout=20)
    actor = Suicidal.remote()
    with pytest.raises(RayActorError):
        ray.get(actor.end.remote(), timeout=20)


def test_killed_actor_stays_dead_although_it_has_restarts_left():
    worker = Worker.options(max_restarts=5).remote()
    ray.get(worker.pid.remote())
    ray.kill(worker)
    with pytest.raises(ActorDiedError):
        ray.get(worker.pid.remote(), timeout=20)


def test_kill_with_restart(gate):
    worker = Worker.options(max_restarts=1, max_task_retries=2).remote()
    first = ray.get(worker.pid.remote())
    ray.kill(worker, no_restart=False)
    wait_until(lambda: ray.get(worker.pid.remote(), timeout=20) != first, 20)
    ray.kill(worker, no_restart=False)
    with pytest.raises(ActorDiedError):
        ray.get(worker.pid.remote(), timeout=20)


# -- ending by itself -----------------------------------------------------------------------------------------------


def test_exit_actor_ends_after_the_current_call():
    @ray.remote(max_restarts=3)
    class A:
        def leave(self):
            ray.actor.exit_actor()
            return "never"

        def pid(self):
            return os.getpid()

    a = A.remote()
    pid = ray.get(a.pid.remote())
    with pytest.raises(RayActorError):
        ray.get(a.leave.remote(), timeout=20)
    with pytest.raises(ActorDiedError):
        ray.get(a.pid.remote(), timeout=20)
    wait_until(lambda: not alive(pid), 10)


def test_exit_actor_gets_through_handlers_of_user_code():
    @ray.remote
    class A:
        def leave(self):
            try:
                ray.actor.exit_actor()
            except Exception:
                return "caught"

        def ping(self):
            return 1

    a = A.remote()
    with pytest.raises(RayActorError):
        ray.get(a.leave.remote(), timeout=20)
    with pytest.raises(ActorDiedError):
        ray.get(a.ping.remote(), timeout=20)


def test_exit_actor_in_an_async_actor():
    @ray.remote
    class A:
        async def leave(self):
            ray.actor.exit_actor()

        async def ping(self):
            return 1

    a = A.remote()
    assert ray.get(a.ping.remote()) == 1
    with pytest.raises(RayActorError):
        ray.get(a.leave.remote(), timeout=20)
    with pytest.raises(ActorDiedError):
        ray.get(a.ping.remote(), timeout=20)


def test_exit_actor_frees_the_name():
    @ray.remote(name="leaver")
    class A:
        def leave(self):
            ray.actor.exit_actor()

        def ping(self):
            return "new"

    first = A.remote()
    with pytest.raises(RayActorError):
        ray.get(first.leave.remote(), timeout=20)

    def again():
        try:
            return A.remote()
        except ValueError:
            return None

    assert ray.get(wait_until(again, 10).ping.remote(), timeout=20) == "new"


def test_exit_actor_outside_an_actor_is_an_error():
    with pytest.raises((TypeError, RuntimeError)):
        ray.actor.exit_actor()

    @ray.remote(max_retries=0)
    def task():
        ray.actor.exit_actor()

    with pytest.raises((TypeError, RuntimeError)):
        ray.get(task.remote(), timeout=20)


def test_terminate_runs_after_the_queued_calls():
    @ray.remote
    class A:
        def __init__(self):
            self.n = 0

        def add(self):
            self.n += 1
            return self.n

    a = A.remote()
    refs = [a.add.remote() for _ in range(50)]
    a.__ray_terminate__.remote()
    assert ray.get(refs, timeout=20) == list(range(1, 51))

    def dead():
        try:
            ray.get(a.add.remote(), timeout=20)
        except RayActorError:
            return True

    wait_until(dead, 10)


def test_system_exit_in_a_method_ends_the_actor():
    @ray.remote
    class A:
        def leave(self):
            raise SystemExit(0)

        def ping(self):
            return 1

    a = A.remote()
    with pytest.raises(RayActorError):
        ray.get(a.leave.remote(), timeout=20)
    with pytest.raises(ActorDiedError):
        ray.get(a.ping.remote(), timeout=20)


# -- restarts -------------------------------------------------------------------------------------------------------


@ray.remote
class Restartable:
    def __init__(self, starts, value):
        self.start = starts.add(os.getpid())
        self.value = value
        self.calls = 0

    def look(self):
        self.calls += 1
        return self.start, self.value, self.calls

    def die(self):
        os._exit(1)

    def die_until(self, runs, n):
        if runs.add() < n:
            os._exit(1)
        return runs.count()


def restarted(actor):
    """First answer of an actor that may still be starting again."""

    def ask():
        try:
            return ray.get(actor.look.remote(), timeout=20)
        except ray.exceptions.ActorUnavailableError:
            return None

    return wait_until(ask, 20)


def test_restart_runs_the_constructor_again_with_fresh_state(tally):
    actor = Restartable.options(max_restarts=1).remote(tally(), ray.put("value"))
    assert ray.get([actor.look.remote() for _ in range(3)])[-1] == (1, "value", 3)
    with pytest.raises(RayActorError):
        ray.get(actor.die.remote(), timeout=20)
    assert restarted(actor) == (2, "value", 1)
    with pytest.raises(RayActorError):
        ray.get(actor.die.remote(), timeout=20)
    with pytest.raises(ActorDiedError):
        restarted(actor)
    assert tally().count() == 2


def test_no_restart_by_default(tally):
    actor = Restartable.remote(tally(), 1)
    with pytest.raises(ActorDiedError):
        ray.get(actor.die.remote(), timeout=20)
    with pytest.raises(ActorDiedError):
        ray.get(actor.look.remote(), timeout=20)
    assert tally().count() == 1


def test_restarts_without_end(tally):
    actor = Restartable.options(max_restarts=-1, max_task_retries=-1).remote(tally("starts"), 1)
    assert ray.get(actor.die_until.remote(tally("runs"), 5), timeout=30) == 5
    assert tally("starts").count() == 5


def test_call_in_flight_is_not_repeated_without_max_task_retries(tally):
    actor = Restartable.options(max_restarts=5).remote(tally("starts"), 1)
    runs = tally("runs")
    with pytest.raises(RayActorError):
        ray.get(actor.die_until.remote(runs, 3), timeout=20)
    assert restarted(actor)[0] == 2
    assert runs.count() == 1


def test_max_task_retries_repeats_calls_in_flight(tally):
    actor = Restartable.options(max_restarts=2, max_task_retries=2).remote(tally("starts"), 1)
    runs = tally("runs")
    assert ray.get(actor.die_until.remote(runs, 3), timeout=30) == 3
    assert ray.get(actor.look.remote(), timeout=20)[0] == 3


def test_max_task_retries_of_one_call_and_of_one_method(tally):
    @ray.remote(max_restarts=-1)
    class A:
        @ray.method(max_task_retries=1)
        def marked(self, runs):
            if runs.add() < 2:
                os._exit(1)
            return "done"

        def plain(self, runs):
            if runs.add() < 2:
                os._exit(1)
            return "done"

    a = A.remote()
    assert ray.get(a.marked.remote(tally("marked")), timeout=20) == "done"
    assert ray.get(a.plain.options(max_task_retries=1).remote(tally("plain")), timeout=20) == "done"


def test_exceptions_of_methods_are_retried_only_on_request(tally):
    @ray.remote(max_task_retries=3)
    class A:
        def plain(self, runs):
            runs.add()
            raise ValueError

        @ray.method(retry_exceptions=[ValueError])
        def flaky(self, runs):
            if runs.add() < 3:
                raise ValueError
            return "done"

    a = A.remote()
    with pytest.raises(ValueError):
        ray.get(a.plain.remote(tally("plain")), timeout=20)
    assert tally("plain").count() == 1
    assert ray.get(a.flaky.remote(tally("flaky")), timeout=20) == "done"


def test_calls_queued_behind_a_crash_fail_or_run_but_never_hang(tally):
    actor = Restartable.options(max_restarts=1).remote(tally(), 1)
    ray.get(actor.look.remote())
    refs = [actor.die.remote()] + [actor.look.remote() for _ in range(20)]
    _, rest = ray.wait(refs, num_returns=len(refs), timeout=30)
    assert rest == []
    with pytest.raises(RayActorError):
        ray.get(refs[0])
    assert restarted(actor)[0] == 2


def test_was_current_actor_reconstructed():
    @ray.remote(max_restarts=1, max_task_retries=1)
    class A:
        def look(self):
            return ray.get_runtime_context().was_current_actor_reconstructed

        def die(self):
            os._exit(1)

    a = A.remote()
    assert ray.get(a.look.remote()) is False
    a.die.options(max_task_retries=0).remote()
    assert ray.get(a.look.remote(), timeout=20) is True
