"""Shared memory, how long objects live, and what is captured when."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from helpers import segment_folder, stored_bytes, wait_until

import mltoolkit as ray

pytestmark = pytest.mark.usefixtures("runtime")

MB = 1 << 20


def mapping_of(address: int) -> tuple[str, str]:
    """Device and inode of the file mapped at an address; inode 0 is private memory."""
    with open("/proc/self/maps") as maps:
        for line in maps:
            span, _, _, device, inode, *_ = line.split()
            low, high = (int(end, 16) for end in span.split("-"))
            if low <= address < high:
                return device, inode
    raise AssertionError("address is not mapped")


# -- shared memory ----------------------------------------------------------------------------------------------------


def test_large_arrays_are_read_only_and_aligned():
    @ray.remote
    def make():
        return np.ones(MB // 4)

    @ray.remote
    def look(array):
        return array.flags.writeable, array.ctypes.data % 64

    for ref in (ray.put(np.ones(MB // 4)), make.remote()):
        array = ray.get(ref)
        assert array.ctypes.data % 64 == 0
        assert not array.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 2.0
        assert ray.get(look.remote(ref)) == (False, 0)


def test_buffers_of_odd_sizes_are_each_aligned():
    arrays = [np.arange(n, dtype=np.uint8) for n in (300_001, 1_000_003, 777_777)]
    for original, got in zip(arrays, ray.get(ray.put(arrays)), strict=True):
        assert got.ctypes.data % 64 == 0
        assert np.array_equal(original, got)


def test_large_arrays_are_the_same_memory_in_every_process():
    @ray.remote
    def look(array):
        return mapping_of(array.ctypes.data)

    @ray.remote
    class Looker:
        def look(self, array):
            return mapping_of(array.ctypes.data)

    ref = ray.put(np.ones(4 * MB // 8))
    array = ray.get(ref)
    here = mapping_of(array.ctypes.data)
    assert here[1] != "0", "the driver has a private copy"
    looker = Looker.remote()
    assert ray.get([look.remote(ref), look.remote(ref), looker.look.remote(ref)]) == [here] * 3


def test_result_of_a_task_is_shared_too():
    @ray.remote
    def make():
        return np.ones(4 * MB // 8)

    @ray.remote
    def look(array):
        return mapping_of(array.ctypes.data)

    ref = make.remote()
    there = ray.get(look.remote(ref))
    assert there[1] != "0"
    array = ray.get(ref)
    assert mapping_of(array.ctypes.data) == there


def test_array_outlives_its_ref():
    ref = ray.put(np.full(MB, 3.0))
    array = ray.get(ref)
    del ref
    gc.collect()
    others = [ray.put(np.zeros(MB)) for _ in range(4)]
    assert len(others) == 4
    assert (array == 3.0).all()


def test_memory_is_not_used_again_while_somebody_reads_it():
    @ray.remote
    class Keeper:
        def keep(self, array, row):
            self.views = [array[10:20], row]

        def look(self):
            return [sorted(set(view.tolist())) for view in self.views]

    @ray.remote
    def make(value):
        return np.full(MB, value)

    keepers = [Keeper.remote() for _ in range(2)]
    here = []
    for i, keeper in enumerate(keepers):
        ref, rows = ray.put(np.full(MB, i)), make.remote(10 + i)
        ray.get(keeper.keep.remote(ref, rows))
        here.append(ray.get(rows)[::1000])
        del ref, rows
    gc.collect()
    for i in range(12):
        ray.get(ray.put(np.full(MB, 100 + i)))
        ray.get(make.remote(200 + i))
    assert ray.get([k.look.remote() for k in keepers]) == [[[0], [10]], [[1], [11]]]
    assert [set(view.tolist()) for view in here] == [{10}, {11}]


def test_classes_of_the_same_name_from_different_tasks_stay_distinct():
    @ray.remote
    def make(n):
        class Thing:
            def value(self):
                return n

        return Thing()

    first, second = ray.get([make.remote(1), make.remote(2)])
    assert type(first) is not type(second)
    assert (first.value(), second.value()) == (1, 2)


# -- lifetime ---------------------------------------------------------------------------------------------------------


def test_pending_call_keeps_its_argument_alive(gate):
    go = gate("go")

    @ray.remote
    def wait():
        return go.wait()

    @ray.remote
    def total(array, _, nested):
        return float(array.sum()) + float(ray.get(nested[0]).sum())

    direct, nested = ray.put(np.ones(MB // 4)), ray.put(np.ones(MB // 4))
    result = total.remote(direct, wait.remote(), [nested])
    del direct, nested
    gc.collect()
    go.open()
    assert ray.get(result) == MB // 2


def test_ref_inside_an_object_keeps_what_it_points_to_alive():
    inner = ray.put(np.ones(MB // 4))
    outer = ray.put({"deep": [inner]})
    del inner
    gc.collect()
    ray.get([ray.put(np.zeros(MB // 4)) for _ in range(4)])
    assert ray.get(ray.get(outer)["deep"][0]).sum() == MB // 4


def test_ref_in_the_state_of_an_actor_keeps_the_object_alive():
    @ray.remote
    class Keeper:
        def keep(self, refs):
            self.refs = refs

        def total(self):
            return float(ray.get(self.refs[0]).sum())

    keeper = Keeper.remote()
    ref = ray.put(np.ones(MB // 4))
    ray.get(keeper.keep.remote([ref]))
    del ref
    gc.collect()
    assert ray.get(keeper.total.remote()) == MB // 4


def test_ref_put_by_a_task_outlives_the_task():
    @ray.remote
    def make():
        return [ray.put(np.full(MB // 4, i)) for i in range(3)]

    refs = ray.get(make.remote())
    assert [int(ray.get(r)[0]) for r in refs] == [0, 1, 2]


@pytest.mark.skipif(ray.__name__ != "mltoolkit", reason="looks into the folder for segments")
def test_objects_go_with_their_last_ref():
    @ray.remote
    def make(i):
        return np.full(8 * MB, i, dtype=np.uint8)

    before = stored_bytes()
    held = ray.put(np.ones(8 * MB, dtype=np.uint8))
    assert stored_bytes() >= 8 * MB, f"the array is not in {segment_folder()}"
    for i in range(40):
        assert ray.get(make.remote(i))[0] == i
        assert ray.get(ray.put(np.full(8 * MB, i, dtype=np.uint8)))[0] == i
    wait_until(lambda: stored_bytes() <= before + 64 * MB, 10, "dropped objects are freed")
    assert ray.get(held)[0] == 1


# -- what is captured when --------------------------------------------------------------------------------------------


def test_function_and_closure_are_captured_at_first_submission():
    state = {"value": 0}

    @ray.remote
    def read():
        return state["value"]

    state["value"] = 1
    assert ray.get(read.remote()) == 1
    state["value"] = 2
    assert ray.get(read.remote()) == 1


def test_argument_is_captured_when_remote_is_called(gate):
    go = gate("go")

    @ray.remote
    def read(items, array, _):
        return items, float(array.sum())

    @ray.remote
    def wait():
        return go.wait()

    items, array = [1], np.ones(MB // 4)
    result = read.remote(items, array, wait.remote())
    items.append(2)
    array[:] = 5
    go.open()
    assert ray.get(result) == ([1], MB // 4)


def test_put_and_actor_calls_capture_their_argument():
    @ray.remote
    class Reader:
        def read(self, items, array):
            return items, float(array.sum())

    reader = Reader.remote()
    items, array, small = [1], np.ones(MB // 4), np.ones(4)
    result, ref, small_ref = reader.read.remote(items, array), ray.put(array), ray.put(small)
    items.append(2)
    array[:] = 5
    small[:] = 5
    assert ray.get(result) == ([1], MB // 4)
    assert ray.get(ref).sum() == MB // 4
    assert ray.get(small_ref).sum() == 4


def test_each_call_works_on_its_own_copy_of_argument_and_closure():
    shared = []

    @ray.remote
    def grow(items):
        items.append(1)
        shared.append(1)
        return len(items), len(shared)

    @ray.remote
    class Grower:
        def grow(self, items):
            items.append(1)
            return len(items)

    ref = ray.put([0])
    assert [n for n, _ in ray.get([grow.remote(ref) for _ in range(8)])] == [2] * 8
    grower = Grower.remote()
    assert ray.get([grower.grow.remote(ref) for _ in range(3)]) == [2] * 3
    assert shared == []
    assert ray.get(ref) == [0]
