"""Tasks: how they are called, what they return, nesting, resources."""

from __future__ import annotations

import os
import threading

import pytest
from helpers import wait_until

import mltoolkit as ray

pytestmark = pytest.mark.usefixtures("runtime")


def add(a, b=10, *rest, scale=1, **named):
    return (a + b + sum(rest) + sum(named.values())) * scale


# -- calling --------------------------------------------------------------------------------------------------------


def test_calling_directly_is_a_type_error_that_shows_the_remote_form():
    @ray.remote
    def f():
        return 1

    @ray.remote
    class A:
        pass

    with pytest.raises(TypeError, match=r"f\.remote\("):
        f()
    with pytest.raises(TypeError, match=r"A\.remote\("):
        A()


def test_arguments_of_every_kind():
    remote_add = ray.remote(add)
    calls = [
        ((1,), {}),
        ((1, 2), {}),
        ((1, 2, 3, 4), {}),
        ((1,), {"b": 2}),
        ((1,), {"scale": 3}),
        ((1,), {"x": 5, "y": 6}),
    ]
    assert ray.get([remote_add.remote(*a, **k) for a, k in calls]) == [add(*a, **k) for a, k in calls]


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((), {}), ((1, 2, 3), {}), ((1,), {"a": 2, "key": 3}), ((1,), {"key": 1, "unknown": 2}), ((1, 2), {})],
)
def test_wrong_arguments_are_a_type_error_in_the_caller(args, kwargs):
    @ray.remote
    def f(a, b=2, *, key):
        return a

    with pytest.raises(TypeError):
        f.remote(*args, **kwargs)


def test_wrong_arguments_name_what_is_missing():
    @ray.remote
    def f(alpha, beta):
        return alpha

    with pytest.raises(TypeError, match="beta"):
        f.remote(1)


def test_positional_only_arguments():
    @ray.remote
    def f(a, /, b, **rest):
        return a, b, rest

    assert ray.get(f.remote(1, b=2, a=3)) == (1, 2, {"a": 3})


def test_remote_takes_options_and_options_are_of_one_call():
    @ray.remote(num_cpus=2, num_returns=2)
    def pair():
        return 1, 2

    assert ray.get(pair.remote()) == [1, 2]
    assert ray.get(pair.options(num_cpus=1, num_returns=1).remote()) == (1, 2)
    assert len(pair.remote()) == 2, "options() changed the function itself"


def test_module_level_functions_and_lambdas():
    assert ray.get(ray.remote(add).remote(1, 2)) == 3
    assert ray.get(ray.remote(lambda x: x * 2).remote(4)) == 8
    assert ray.get(ray.remote(num_cpus=1)(add).remote(1, 2)) == 3


def test_remote_function_used_inside_another_function():
    @ray.remote
    def fact(n):
        return 1 if n < 2 else n * ray.get(fact.remote(n - 1))

    assert ray.get(fact.remote(6)) == 720


def test_unknown_options_are_refused():
    with pytest.raises((ValueError, TypeError), match="num_cpu_cores"):
        ray.remote(num_cpu_cores=1)(add)
    with pytest.raises((ValueError, TypeError), match="max_concurrency"):
        ray.remote(max_concurrency=2)(add)
    with pytest.raises((ValueError, TypeError), match="colour"):
        ray.remote(add).options(colour="red")
    with pytest.raises((ValueError, TypeError)):
        ray.remote(num_cpus=-1)(add)
    with pytest.raises(TypeError):
        ray.remote(5)


def test_argument_that_cannot_be_pickled_is_an_error_at_remote_that_names_it():
    lock = threading.Lock()

    @ray.remote
    def f(x):
        return x

    @ray.remote
    def closed_over():
        return lock

    with pytest.raises(TypeError, match="lock"):
        f.remote(lock)
    with pytest.raises(TypeError, match="lock"):
        closed_over.remote()
    assert ray.get(f.remote(1)) == 1


def test_result_that_cannot_be_pickled_is_an_error_of_the_task():
    @ray.remote
    def f():
        return {"part": threading.Lock()}

    with pytest.raises((ray.exceptions.RayTaskError, TypeError), match="lock"):
        ray.get(f.remote())


def test_equal_calls_are_each_executed(tally):
    count = tally()

    @ray.remote
    def f(x):
        count.add(x)
        return object.__hash__(object())

    ray.get([f.remote(1) for _ in range(20)])
    assert count.count() == 20


def test_random_functions_are_not_merged():
    @ray.remote
    def draw():
        return os.urandom(8)

    assert len(set(ray.get([draw.remote() for _ in range(20)]))) == 20


def test_functions_of_the_same_name_stay_apart():
    def make(n):
        @ray.remote
        def same_name():
            return n

        return same_name

    functions = [make(i) for i in range(5)]
    assert ray.get([f.remote() for f in functions]) == list(range(5))


def test_result_chain_without_get():
    @ray.remote
    def inc(x):
        return x + 1

    ref = inc.remote(0)
    for _ in range(30):
        ref = inc.remote(ref)
    assert ray.get(ref) == 31


# -- several results ------------------------------------------------------------------------------------------------


def test_num_returns():
    @ray.remote
    def items(n):
        return tuple(range(n))

    assert isinstance(items.options(num_returns=1).remote(3), ray.ObjectRef)
    three = items.options(num_returns=3).remote(3)
    assert isinstance(three, list)
    assert ray.get(three) == [0, 1, 2]
    assert ray.get(items.options(num_returns=2).remote(2)[1]) == 1
    assert ray.get(items.options(num_returns=1).remote(3)) == (0, 1, 2)


def test_num_returns_zero_gives_none_and_runs(tally):
    ran = tally()

    @ray.remote(num_returns=0)
    def note():
        ran.add()

    assert note.remote() is None
    wait_until(ran.count)


def test_wrong_number_of_values_is_a_value_error():
    @ray.remote(num_returns=3)
    def two():
        return 1, 2

    @ray.remote(num_returns=2)
    def none():
        return None

    for ref in two.remote():
        with pytest.raises(ValueError):
            ray.get(ref)
    with pytest.raises((ValueError, TypeError)):
        ray.get(none.remote()[0])


def test_generator_for_a_fixed_number_of_returns():
    @ray.remote
    def count(n):
        yield from range(n)

    assert ray.get(count.options(num_returns=3).remote(3)) == [0, 1, 2]
    assert ray.get(count.options(num_returns=3).remote(5)) == [0, 1, 2], "too many are tolerated"
    few = count.options(num_returns=3).remote(2)
    with pytest.raises(ValueError):
        ray.get(few[2])


# -- nesting --------------------------------------------------------------------------------------------------------


def test_tasks_use_the_whole_api():
    @ray.remote
    def leaf(x):
        return x * x

    @ray.remote
    class Adder:
        def __init__(self):
            self.total = 0

        def add(self, x):
            self.total += x
            return self.total

    @ray.remote
    def branch(n):
        refs = [leaf.remote(i) for i in range(n)]
        ready, _ = ray.wait(refs, num_returns=n, timeout=30)
        adder = Adder.remote()
        for ref in ready:
            adder.add.remote(ref)
        return ray.get(adder.add.remote(ray.put(0)))

    assert ray.get([branch.remote(4), branch.remote(3)]) == [14, 5]


def test_get_from_threads_of_a_task():
    @ray.remote
    def leaf(x):
        return x + 1

    @ray.remote
    def threaded():
        results = []
        threads = [threading.Thread(target=lambda i=i: results.append(ray.get(leaf.remote(i)))) for i in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        return sorted(results)

    assert ray.get(threaded.remote()) == list(range(1, 9))


def test_get_from_threads_of_the_driver():
    @ray.remote
    def leaf(x):
        return x + 1

    results = []
    threads = [threading.Thread(target=lambda i=i: results.append(ray.get(leaf.remote(i)))) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert sorted(results) == list(range(1, 9))


def test_name_option_and_runtime_context():
    @ray.remote(name="my-task")
    def look():
        context = ray.get_runtime_context()
        return context.get_task_name(), context.get_task_id(), context.get_node_id(), context.get_actor_id()

    name, task_id, node_id, actor_id = ray.get(look.remote())
    assert name == "my-task"
    assert task_id
    assert node_id == ray.get_runtime_context().get_node_id() == ray.nodes()[0]["NodeID"]
    assert actor_id is None


def test_max_calls_gives_a_new_process():
    @ray.remote(max_calls=1)
    def pid():
        return os.getpid()

    assert len({ray.get(pid.remote()) for _ in range(3)}) == 3
