"""Actors: construction, calls and their order, classes of every shape."""

from __future__ import annotations

import os
import threading
import time

import pytest

import mltoolkit as ray
from mltoolkit.exceptions import ActorDiedError, RayActorError, RayTaskError

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


# -- construction -----------------------------------------------------------------------------------------------------


def test_constructor_runs_asynchronously(gate):
    go = gate("go")

    @ray.remote
    class Slow:
        def __init__(self):
            go.wait()

        def ping(self):
            return "up"

    before = time.monotonic()
    ref = Slow.remote().ping.remote()
    assert time.monotonic() - before < 2
    assert ray.wait([ref], timeout=0.1) == ([], [ref])
    go.open()
    assert ray.get(ref, timeout=20) == "up"


def test_exception_of_the_constructor_surfaces_at_every_call():
    @ray.remote
    class Broken:
        def __init__(self):
            raise ValueError("no such file")

        def ping(self):
            return "up"

    broken = Broken.remote()
    for _ in range(3):
        with pytest.raises(ActorDiedError, match="no such file") as caught:
            ray.get(broken.ping.remote(), timeout=20)
        assert isinstance(caught.value, RayActorError)
        assert "ValueError" in str(caught.value)


def test_exit_in_the_constructor_is_a_death():
    @ray.remote
    class Broken:
        def __init__(self):
            os._exit(4)

        def ping(self):
            return "up"

    with pytest.raises(ActorDiedError):
        ray.get(Broken.remote().ping.remote(), timeout=20)


def test_constructor_arguments(gate):
    assert ray.get(Counter.remote(5).add.remote()) == 6
    assert ray.get(Counter.remote(start=ray.put(7)).add.remote()) == 8
    with pytest.raises(TypeError):
        Counter.remote(1, 2, 3)
    with pytest.raises(TypeError):
        Counter.remote(unknown=1)


def test_failed_argument_of_the_constructor():
    @ray.remote
    def fail():
        raise KeyError("argument")

    with pytest.raises((ActorDiedError, KeyError), match="argument"):
        ray.get(Counter.remote(fail.remote()).add.remote(), timeout=20)


def test_actor_constructor_waits_for_its_argument(gate):
    go = gate("go")

    @ray.remote
    def slow():
        go.wait()
        return 5

    ref = Counter.remote(slow.remote()).add.remote()
    assert ray.wait([ref], timeout=0.1)[0] == []
    go.open()
    assert ray.get(ref, timeout=20) == 6


# -- calls ------------------------------------------------------------------------------------------------------------


def test_calling_a_method_directly_is_a_type_error():
    with pytest.raises(TypeError, match=r"\.remote\("):
        Counter.remote().add()


def test_wrong_arguments_of_a_method_are_a_type_error_in_the_caller():
    counter = Counter.remote()
    with pytest.raises(TypeError):
        counter.add.remote(1, 2, 3)
    with pytest.raises(TypeError, match="unknown"):
        counter.add.remote(unknown=1)


def test_unknown_method_is_an_attribute_error():
    with pytest.raises(AttributeError, match="subtract"):
        Counter.remote().subtract.remote()


def test_unknown_actor_options_are_refused():
    with pytest.raises((ValueError, TypeError), match="colour"):
        Counter.options(colour="red")
    with pytest.raises((ValueError, TypeError), match="max_retries"):
        ray.remote(max_retries=1)(object)
    for bad in ({"lifetime": "forever"}, {"max_restarts": -2}, {"max_concurrency": 0}):
        with pytest.raises((ValueError, TypeError)):
            Counter.options(**bad).remote()


def test_calls_run_in_order_of_submission():
    counter = Counter.remote()
    assert ray.get([counter.add.remote() for _ in range(500)]) == list(range(1, 501))


def test_order_holds_behind_an_argument_that_is_not_ready(gate):
    go = gate("go")

    @ray.remote
    def slow():
        go.wait()
        return "slow"

    @ray.remote
    class Log:
        def __init__(self):
            self.words = []

        def add(self, word):
            self.words.append(word)
            return list(self.words)

    log = Log.remote()
    refs = [log.add.remote(w) for w in ("first", slow.remote(), "after", ray.put("last"))]
    assert ray.get(refs[0], timeout=20) == ["first"]
    assert ray.wait(refs[1:], timeout=0.2)[0] == []
    go.open()
    assert ray.get(refs[-1], timeout=20) == ["first", "slow", "after", "last"]


def test_unready_argument_of_one_caller_does_not_hold_up_another(gate):
    go = gate("go")

    @ray.remote
    def slow():
        go.wait()
        return 100

    @ray.remote
    def other_caller(counter):
        return ray.get(counter.add.remote(1))

    counter = Counter.remote()
    held = counter.add.remote(slow.remote())
    assert ray.get(other_caller.remote(counter), timeout=20) == 1
    go.open()
    assert ray.get(held, timeout=20) == 101


def test_exception_of_a_method_does_not_end_the_actor():
    @ray.remote
    class A:
        def fail(self):
            raise ValueError("method")

        def ping(self):
            return "up"

    a = A.remote()
    with pytest.raises(ValueError, match="method") as caught:
        ray.get(a.fail.remote())
    assert isinstance(caught.value, RayTaskError)
    assert "fail" in str(caught.value)
    assert ray.get(a.ping.remote()) == "up"


def test_result_or_argument_that_cannot_be_pickled():
    @ray.remote
    class A:
        def lock(self):
            return threading.Lock()

        def echo(self, x):
            return x

    a = A.remote()
    with pytest.raises((RayTaskError, TypeError), match="lock"):
        ray.get(a.lock.remote(), timeout=20)
    with pytest.raises(TypeError, match="lock"):
        a.echo.remote(threading.Lock())
    assert ray.get(a.echo.remote(1), timeout=20) == 1


def test_method_decorator_and_options():
    @ray.remote
    class A:
        @ray.method(num_returns=2)
        def pair(self):
            return 1, 2

        def items(self, n):
            return list(range(n))

    a = A.remote()
    assert ray.get(a.pair.remote()) == [1, 2]
    assert ray.get(a.pair.options(num_returns=1).remote()) == (1, 2)
    assert ray.get(a.items.options(num_returns=3).remote(3)) == [0, 1, 2]
    with pytest.raises((ValueError, TypeError)):
        ray.method(colour="red")


# -- classes of every shape -------------------------------------------------------------------------------------------


def test_inherited_static_class_and_special_methods():
    class Base:
        unit = "m"

        def __init__(self, n):
            self.n = n

        def inherited(self):
            return "base"

        def overridden(self):
            return "base"

    @ray.remote
    class Derived(Base):
        def __init__(self, n):
            super().__init__(n + 1)

        def overridden(self):
            return "derived of " + super().overridden()

        @property
        def size(self):
            return self.n

        def read_size(self):
            return self.size, self._hidden(), self.__private()

        @classmethod
        def of_class(cls):
            return cls.unit

        @staticmethod
        def of_none(x, y=2):
            return x + y

        def _hidden(self):
            return "hidden"

        def __private(self):
            return "private"

        def __call__(self, x):
            return x * self.n

        def __len__(self):
            return self.n

    d = Derived.remote(2)
    calls = [
        d.inherited.remote(),
        d.overridden.remote(),
        d.read_size.remote(),
        d.of_class.remote(),
        d.of_none.remote(1),
    ]
    assert ray.get(calls) == ["base", "derived of base", (3, "hidden", "private"), "m", 3]
    assert ray.get([d._hidden.remote(), d.__call__.remote(5), d.__len__.remote()]) == ["hidden", 15, 3]


def test_plain_class_becomes_an_actor_without_a_decorator():
    class Plain:
        def __init__(self, x):
            self.x = x

        def get_x(self):
            return self.x

    assert ray.get(ray.remote(Plain).remote(4).get_x.remote()) == 4
    assert ray.get(ray.remote(num_cpus=0)(Plain).remote(5).get_x.remote()) == 5
    assert Plain(6).get_x() == 6, "the class itself was changed"


def test_inheriting_from_an_actor_class_is_a_type_error():
    with pytest.raises(TypeError):

        class Derived(Counter):
            pass


def test_class_without_constructor_and_with_state_only():
    @ray.remote
    class Empty:
        pass

    @ray.remote
    class Holder:
        items = ()

        def set(self, **values):
            self.__dict__.update(values)

        def read(self):
            return dict(self.__dict__), self.items

    Empty.remote()
    holder = Holder.remote()
    holder.set.remote(a=1)
    assert ray.get(holder.read.remote()) == ({"a": 1}, ())
