"""References and values: what a ref is, what `put` and `get` accept and give back."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from dataclasses import dataclass

import numpy as np
import pytest

import mltoolkit as ray

pytestmark = pytest.mark.usefixtures("runtime")

MB = 1 << 20


# -- arguments and refs -----------------------------------------------------------------------------------------------


def test_only_top_level_arguments_are_replaced_by_their_values():
    @dataclass
    class Box:
        content: object

    @ray.remote
    def look(direct, in_list, in_dict, in_box, *, keyword):
        inner = [in_list[0], in_dict["key"], in_box.content]
        return direct, keyword, [isinstance(i, ray.ObjectRef) for i in inner], ray.get(inner)

    ref = ray.put(7)
    got = ray.get(look.remote(ref, [ref], {"key": ref}, Box(ref), keyword=ref))
    assert got == (7, 7, [True] * 3, [7] * 3)


def test_actor_arguments_are_replaced_at_the_top_level_only():
    @ray.remote
    class Keeper:
        def __init__(self, direct, nested):
            self.got = (direct, isinstance(nested[0], ray.ObjectRef), ray.get(nested[0]))

        def look(self, direct, nested):
            return self.got, (direct, isinstance(nested[0], ray.ObjectRef), ray.get(nested[0]))

    ref = ray.put("value")
    assert ray.get(Keeper.remote(ref, [ref]).look.remote(ref, [ref])) == (("value", True, "value"),) * 2


def test_ref_in_a_closure_stays_a_ref():
    ref = ray.put(11)

    @ray.remote
    def look():
        return isinstance(ref, ray.ObjectRef), ray.get(ref)

    assert ray.get(look.remote()) == (True, 11)


def test_ref_returned_by_a_task_stays_a_ref():
    @ray.remote
    def inner():
        return "deep"

    @ray.remote
    def outer():
        return inner.remote()

    middle = ray.get(outer.remote())
    assert isinstance(middle, ray.ObjectRef)
    assert ray.get(middle) == "deep"


def test_ref_returned_by_a_task_as_argument_of_the_next_arrives_as_a_ref():
    @ray.remote
    def outer():
        return ray.put("deep")

    @ray.remote
    def look(ref):
        return isinstance(ref, ray.ObjectRef) and ray.get(ref)

    assert ray.get(look.remote(outer.remote())) == "deep"


# -- put and get ------------------------------------------------------------------------------------------------------


def test_put_of_a_ref_is_a_type_error():
    with pytest.raises(TypeError):
        ray.put(ray.put(1))


@pytest.mark.parametrize("foreign", [1, "text", None, object(), {"a": 1}], ids=["int", "str", "None", "object", "dict"])
def test_get_of_something_else_is_a_type_error(foreign):
    with pytest.raises(TypeError, match="ObjectRef"):
        ray.get(foreign)


def test_get_of_a_list_with_a_foreign_item_is_a_value_error():
    with pytest.raises(ValueError, match="ObjectRef"):
        ray.get([ray.put(1), 2])


def test_get_keeps_order_and_accepts_repeats():
    refs = [ray.put(i) for i in range(10)]
    assert ray.get(refs[::-1]) == list(range(10))[::-1]
    assert ray.get([refs[3], refs[1], refs[3]]) == [3, 1, 3]


def test_get_of_an_empty_list():
    assert ray.get([]) == []


def test_get_of_a_list_raises_as_soon_as_one_has_failed(gate):
    go = gate("go")

    @ray.remote
    def wait():
        return go.wait()

    @ray.remote
    def fail():
        raise ZeroDivisionError("early")

    pending = wait.remote()
    with pytest.raises(ZeroDivisionError):
        ray.get([pending, fail.remote()], timeout=20)
    assert ray.wait([pending], timeout=0) == ([], [pending])
    go.open()
    assert ray.get(pending)


@pytest.mark.parametrize(
    "value",
    [
        None,
        0,
        "text",
        b"bytes",
        b"x" * (3 * MB),
        bytearray(2 * MB),
        {"a": [1, (2, {3})]},
        np.arange(12).reshape(3, 4)[:, ::2],
        np.asfortranarray(np.arange(300_000.0).reshape(500, 600)),
        np.arange(600_000)[::-3],
        np.array(5.0),
        np.empty((0, 3)),
        np.array(["a", {"b": 1}], dtype=object),
        np.zeros(200_000, dtype=[("x", "f8"), ("y", "i4")]),
        np.arange(400_000).astype("datetime64[s]"),
    ],
    ids=lambda v: f"{type(v).__name__}{getattr(v, 'shape', '')}",
)
def test_values_come_back_as_they_were(value):
    @ray.remote
    def same(x):
        return x

    ref = ray.put(value)
    for got in ray.get([ref, same.remote(value), same.remote(ref)]):
        assert type(got) is type(value)
        assert np.array_equal(got, value) if isinstance(value, np.ndarray) else got == value
        assert getattr(got, "dtype", None) == getattr(value, "dtype", None)


def test_value_that_cannot_be_pickled_names_the_part():
    with pytest.raises(TypeError, match="lock"):
        ray.put({"fine": 1, "culprit": threading.Lock()})


# -- refs as Python objects -------------------------------------------------------------------------------------------


def test_ref_can_be_awaited_and_gathered():
    @ray.remote
    def double(x):
        return 2 * x

    @ray.remote
    def fail():
        raise KeyError("lost")

    async def main():
        one = await double.remote(1)
        many = await asyncio.gather(*[double.remote(i) for i in range(20)])
        with pytest.raises(KeyError):
            await fail.remote()
        timed = await asyncio.wait_for(double.remote(4), timeout=20)
        return one, many, timed

    assert asyncio.run(main()) == (2, [2 * i for i in range(20)], 8)


def test_ref_becomes_a_concurrent_future():
    @ray.remote
    def double(x):
        return 2 * x

    @ray.remote
    def fail():
        raise KeyError("lost")

    future = double.remote(21).future()
    assert isinstance(future, concurrent.futures.Future)
    assert future.result(timeout=20) == 42
    with pytest.raises(KeyError):
        fail.remote().future().result(timeout=20)
    done, _ = concurrent.futures.wait([double.remote(i).future() for i in range(3)], timeout=20)
    assert {f.result() for f in done} == {0, 2, 4}


def test_refs_compare_hash_and_print():
    @ray.remote
    def same(refs):
        return refs[0]

    one, two = ray.put(1), ray.put(1)
    assert one != two
    assert len({one, two, one}) == 2
    back = ray.get(same.remote([one]))
    assert back == one
    assert hash(back) == hash(one)
    assert {one: "found"}[back] == "found"
    int(one.hex(), 16)
    assert one.hex() in str(one)
    assert one.hex() in repr(one)
    assert one != "text"
