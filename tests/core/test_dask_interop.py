"""Dask inside an embedded session: futures, collections, and still no open port."""

from __future__ import annotations

import numpy as np
import psutil
import pytest

import mltoolkit as ray

if ray.__name__ != "mltoolkit":
    pytest.skip("Ray has no Dask beneath it", allow_module_level=True)

import dask

from mltoolkit.util.dask import from_dask, get_client, to_dask

pytestmark = pytest.mark.usefixtures("runtime")


@ray.remote
def double(x):
    return 2 * x


def fail():
    raise KeyError("in dask")


def test_futures_become_refs():
    client = get_client()
    future = client.submit(lambda: 21, pure=False)
    ref = from_dask(future)
    assert isinstance(ref, ray.ObjectRef)
    assert ray.get(double.remote(ref), timeout=30) == 42
    assert ray.get([ref, double.remote(1)], timeout=30) == [21, 2]
    assert ray.wait([ref], timeout=10) == ([ref], [])


def test_ref_of_a_pending_future_is_ready_when_the_future_is(gate):
    go = gate("go")
    ref = from_dask(get_client().submit(go.wait, pure=False))
    result = double.remote(ref)
    assert ray.wait([ref, result], timeout=0.2) == ([], [ref, result])
    go.open()
    assert ray.get(result, timeout=30) == 2


def test_errors_of_futures_arrive():
    with pytest.raises(KeyError, match="in dask"):
        ray.get(from_dask(get_client().submit(fail, pure=False)), timeout=30)


def test_refs_become_futures():
    future = to_dask(double.remote(np.arange(5)))
    client = get_client()
    assert client.submit(np.sum, future, pure=False).result(timeout=30) == 20
    with pytest.raises(ZeroDivisionError):
        to_dask(ray.remote(lambda: 1 / 0).remote(), timeout=30)


def test_collections_are_taken_by_get_and_put():
    lazy = dask.delayed(sum)([dask.delayed(int)("4"), 5])
    assert ray.get(lazy, timeout=30) == 9
    assert ray.get([lazy, ray.put(1)], timeout=30) == [9, 1]
    ref = ray.put(lazy)
    assert isinstance(ref, ray.ObjectRef)
    assert ray.get(double.remote(ref), timeout=30) == 18


def test_arrays_and_frames_of_dask():
    da = pytest.importorskip("dask.array")
    assert ray.get(da.ones((100, 100), chunks=50).sum(), timeout=30) == 10_000
    dd = pytest.importorskip("dask.dataframe")
    pd = pytest.importorskip("pandas")
    frame = dd.from_pandas(pd.DataFrame({"a": range(10)}), npartitions=2)
    assert ray.get(ray.put(frame), timeout=30)["a"].sum() == 45


def test_dask_in_the_driver_opens_no_port():
    assert get_client().submit(lambda: 1, pure=False).result(timeout=30) == 1
    assert [c for c in psutil.Process().net_connections(kind="inet") if c.status == psutil.CONN_LISTEN] == []
