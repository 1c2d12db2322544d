"""inspect_serializability: what it finds, where, and what it prints."""

from __future__ import annotations

import functools
import io
import threading

import pytest

from mltoolkit.util import inspect_serializability
from mltoolkit.util.check_serialize import FailureTuple

lock = threading.Lock()


def inspect(obj, **options):
    out = io.StringIO()
    ok, failures = inspect_serializability(obj, print_file=out, **options)
    return ok, failures, out.getvalue()


def found(obj, **options):
    return [failure.obj for failure in inspect(obj, **options)[1]]


@pytest.mark.parametrize("obj", [1, "x", [1, {2: 3}], len, threading.Lock, lambda x: x + 1, functools.partial(max, 1)])
def test_what_can_be_serialized(obj):
    ok, failures, out = inspect(obj)
    assert ok
    assert failures == set()
    assert out.rstrip().endswith(": ok")


def test_a_closure():
    inner = threading.Lock()

    def task():
        return inner

    ok, failures, out = inspect(task)
    assert not ok
    [failure] = failures
    assert isinstance(failure, FailureTuple)
    assert failure.obj is inner
    assert failure.parent is task
    assert failure.name == "inner"
    assert failure.path == ("inner",)
    assert "inner" in out
    assert "cannot pickle '_thread.lock' object" in out


def test_a_global_that_a_nested_function_uses():
    # Functions of importable modules travel by name; one made from a string has a namespace of its own.
    namespace = {"guard": threading.Lock(), "__name__": "__main__"}
    exec("def outer():\n    def inner():\n        return guard\n    return inner", namespace)
    assert found(namespace["outer"]) == [namespace["guard"]]


def test_defaults():
    def task(x, held=threading.Lock(), *, other=threading.Lock()):  # noqa: B008
        return x

    assert set(found(task)) == {task.__defaults__[0], task.__kwdefaults__["other"]}


def test_attributes_of_an_instance():
    class Model:
        def __init__(self):
            self.fine = 1
            self.state = {"deep": [0, lock]}

    [failure] = inspect(Model(), depth=4)[1]
    assert failure.obj is lock
    assert failure.path == ("state", "'deep'", "1")


def test_slots():
    class Model:
        __slots__ = ("held",)

        def __init__(self):
            self.held = lock

    assert found(Model()) == [lock]


def test_a_class_whose_method_closes_over_something():
    held = threading.Lock()

    class Model:
        def method(self):
            return held

    assert found(Model) == [held]
    assert found(Model()) == [held]


def test_partials_and_bound_methods():
    class Model:
        def __init__(self):
            self.held = lock

        def method(self):
            return self.held

    assert found(functools.partial(print, lock)) == [lock]
    assert found(functools.partial(print, key=lock)) == [lock]
    assert found(Model().method, depth=5) == [lock]


def test_every_culprit_is_found():
    first, second = threading.Lock(), threading.Lock()
    assert {id(obj) for obj in found([first, {"x": second}])} == {id(first), id(second)}


def test_the_depth_limits_the_search():
    value = [[[[lock]]]]
    assert found(value, depth=0) == [value]
    assert found(value, depth=2) == [value[0][0]]
    assert found(value, depth=4) == [lock]
    with pytest.raises(ValueError, match="depth"):
        inspect(value, depth=-1)


def test_cycles_end():
    loop = [lock]
    loop.append(loop)
    assert found(loop, depth=10) == [lock]


def test_the_name_is_used():
    _, [failure], out = inspect(lock, name="my_lock")
    assert failure.path == ("my_lock",)
    assert out.startswith("my_lock: FAILS")


def test_an_object_with_a_broken_repr():
    class Hostile:
        def __reduce__(self):
            raise TypeError("not me")

        def __repr__(self):
            raise RuntimeError("no repr")

    ok, [failure], out = inspect([Hostile()])
    assert not ok
    assert isinstance(failure.obj, Hostile)
    assert "not me" in out


def test_it_prints_to_standard_output(capsys):
    inspect_serializability(1)
    assert capsys.readouterr().out == "int object: ok\n"
