"""Names, namespaces and detached actors."""

from __future__ import annotations

import gc
import os

import pytest
from helpers import alive, wait_until

import mltoolkit as ray
from mltoolkit.util import list_named_actors


@ray.remote
class Counter:
    def __init__(self):
        self.n = 0

    def add(self):
        self.n += 1
        return self.n

    def pid(self):
        return os.getpid()


def free(name, namespace=None):
    try:
        ray.get_actor(name, namespace=namespace)
    except ValueError:
        return True


def test_get_actor_finds_it_from_every_process(runtime):
    @ray.remote
    def use():
        return ray.get(ray.get_actor("found").add.remote())

    @ray.remote
    class User:
        def use(self):
            return ray.get(ray.get_actor("found").add.remote())

    counter = Counter.options(name="found").remote()
    assert ray.get_actor("found") == counter
    assert ray.get(use.remote()) == 1
    assert ray.get(User.remote().use.remote()) == 2
    assert ray.get(ray.get_actor("found").add.remote()) == 3


def test_unknown_name_is_a_value_error_that_names_it(runtime):
    with pytest.raises(ValueError, match="nobody"):
        ray.get_actor("nobody")


@pytest.mark.parametrize("bad", ["", None, 5])
def test_impossible_names_are_refused(runtime, bad):
    with pytest.raises((ValueError, TypeError)):
        ray.get_actor(bad)


def test_taken_name_is_a_value_error(runtime):
    first = Counter.options(name="taken").remote()
    with pytest.raises(ValueError, match="taken"):
        Counter.options(name="taken").remote()
    assert issubclass(ray.exceptions.ActorAlreadyExistsError, ValueError)
    assert ray.get(first.add.remote()) == 1


def test_name_is_free_after_the_end(runtime):
    counter = Counter.options(name="brief").remote()
    ray.get(counter.add.remote())
    ray.kill(counter)
    wait_until(lambda: free("brief"), 10)
    again = Counter.options(name="brief").remote()
    assert ray.get(again.add.remote()) == 1


def test_name_is_free_after_the_last_handle_is_gone(runtime):
    counter = Counter.options(name="dropped").remote()
    ray.get(counter.add.remote())
    del counter
    gc.collect()
    wait_until(lambda: free("dropped"), 10)


def test_get_if_exists_gets_or_creates(runtime):
    first = Counter.options(name="single", get_if_exists=True).remote()
    second = Counter.options(name="single", get_if_exists=True).remote()
    assert first == second
    assert ray.get([first.add.remote(), second.add.remote()]) == [1, 2]


def test_get_if_exists_without_a_name_is_refused(runtime):
    with pytest.raises(ValueError, match="name"):
        Counter.options(get_if_exists=True).remote()


def test_get_if_exists_creates_once_under_races(runtime):
    @ray.remote(num_cpus=0)
    def race():
        counter = Counter.options(name="raced", get_if_exists=True, lifetime="detached").remote()
        ray.get(counter.add.remote())
        return ray.get(counter.pid.remote())

    assert len(set(ray.get([race.remote() for _ in range(8)], timeout=60))) == 1
    counter = ray.get_actor("raced")
    assert ray.get(counter.add.remote()) == 9
    ray.kill(counter)


def test_namespaces_are_separate(runtime):
    one = Counter.options(name="same", namespace="one").remote()
    two = Counter.options(name="same", namespace="two").remote()
    assert one != two
    assert ray.get_actor("same", namespace="one") == one
    assert ray.get_actor("same", namespace="two") == two
    with pytest.raises(ValueError):
        ray.get_actor("same")


def test_namespace_of_init_is_the_default(fresh):
    ray.init(num_cpus=2, namespace="mine")
    assert ray.get_runtime_context().namespace == "mine"
    counter = Counter.options(name="local").remote()
    assert ray.get_actor("local", namespace="mine") == counter

    @ray.remote
    def look():
        return ray.get_runtime_context().namespace, ray.get(ray.get_actor("local").add.remote())

    assert ray.get(look.remote()) == ("mine", 1)


def test_detached_actor_outlives_its_handles(runtime):
    counter = Counter.options(name="detached", lifetime="detached").remote()
    pid = ray.get(counter.pid.remote())
    del counter
    gc.collect()
    again = ray.get_actor("detached")
    assert ray.get(again.pid.remote()) == pid
    ray.kill(again)
    wait_until(lambda: not alive(pid), 10)
    wait_until(lambda: free("detached"), 10)


def test_detached_actor_made_by_a_task_outlives_it(runtime):
    @ray.remote
    def make():
        counter = Counter.options(name="made", lifetime="detached").remote()
        return ray.get(counter.add.remote())

    assert ray.get(make.remote()) == 1
    counter = ray.get_actor("made")
    assert ray.get(counter.add.remote()) == 2
    ray.kill(counter)


def test_list_named_actors(runtime):
    counter = Counter.options(name="listed").remote()
    other = Counter.options(name="elsewhere", namespace="other").remote()
    ray.get([counter.add.remote(), other.add.remote()])
    assert "listed" in list_named_actors()
    assert "elsewhere" not in list_named_actors()
    everywhere = list_named_actors(all_namespaces=True)
    assert {"name": "elsewhere", "namespace": "other"} in everywhere
