"""``Parallel`` when processes die, the user interrupts, or the runtime goes away."""

import os
import pickle
import signal
import time

import pytest

joblib = pytest.importorskip("joblib")

import helpers  # noqa: E402
from dask_cluster import Cluster  # noqa: E402
from helpers import start_script, wait_until  # noqa: E402
from joblib import Parallel, delayed, parallel_config  # noqa: E402

import mltoolkit  # noqa: E402
from mltoolkit.exceptions import WorkerCrashedError  # noqa: E402
from mltoolkit.util.joblib import CallLostError, register_ray  # noqa: E402

register_ray()

pytestmark = pytest.mark.hostile


@pytest.fixture(autouse=True)
def on_mltoolkit(runtime):
    with parallel_config("mltoolkit"):
        yield


def die(how):
    if how == "exit":
        os._exit(7)
    os.kill(os.getpid(), getattr(signal, how))


@pytest.mark.parametrize("how", ["exit", "SIGKILL", "SIGSEGV"])
@pytest.mark.parametrize("batch_size", ["auto", 1, 10])
def test_a_lost_batch_is_repeated_once(tally, how, batch_size):
    ran, deaths = tally("ran"), tally("deaths")

    def call(i):
        ran.add(i)
        if i == 13 and deaths.count() == 0:
            deaths.add()
            die(how)
        return i

    assert Parallel(n_jobs=2, batch_size=batch_size)(delayed(call)(i) for i in range(40)) == list(range(40))
    times = {i: ran.words().count(str(i)) for i in range(40)}
    assert times[13] == 2
    assert max(times.values()) == 2
    # Only calls of the lost batch ran twice; they stand together.
    twice = [i for i, n in times.items() if n == 2]
    assert max(twice) - min(twice) < 20


@pytest.mark.parametrize("return_as", ["list", "generator", "generator_unordered"])
def test_a_call_that_always_dies_is_named(return_as):
    def call(i):
        if i == 13:
            die("exit")
        return i

    with pytest.raises(CallLostError) as caught:
        list(Parallel(n_jobs=2, return_as=return_as)(delayed(call)(i) for i in range(40)))
    error = caught.value
    assert isinstance(error, WorkerCrashedError)
    assert error.index == 13
    assert "Call 13 " in str(error)
    assert "call`" in str(error)
    assert "7" in error.cause  # the exit code
    assert error.__cause__ is not None


def test_the_error_survives_pickling():
    error = pickle.loads(pickle.dumps(CallLostError(3, "fit", "signal 9")))
    assert (error.index, error.function, error.cause) == (3, "fit", "signal 9")
    assert str(error) == str(CallLostError(3, "fit", "signal 9"))


def test_after_a_loss_the_next_call_works():
    with Parallel(n_jobs=2) as parallel:
        with pytest.raises(CallLostError):
            parallel(delayed(die)("SIGKILL") for _ in range(3))
        assert parallel(delayed(abs)(-i) for i in range(20)) == list(range(20))


INTERRUPTED = """
import sys, time
import mltoolkit
from joblib import Parallel, delayed, parallel_config
from mltoolkit.util.joblib import register_ray
sys.path.insert(0, sys.argv[1])
from helpers import Gate, Tally

register_ray()
mltoolkit.init(num_cpus=2)
ran, closed = Tally(sys.argv[2]), Gate(sys.argv[3])

def call(i):
    ran.add(i)
    closed.wait(100)

try:
    with parallel_config("mltoolkit"):
        Parallel(n_jobs=2, pre_dispatch="all", batch_size=1)(delayed(call)(i) for i in range(50))
except KeyboardInterrupt:
    deadline = time.monotonic() + 20
    while mltoolkit.available_resources().get("CPU") != 2.0 and time.monotonic() < deadline:
        time.sleep(0.01)
    print("interrupted", mltoolkit.available_resources().get("CPU"), flush=True)
    with parallel_config("mltoolkit"):
        print("again", Parallel(n_jobs=2)(delayed(abs)(-i) for i in range(3)), flush=True)
"""


def test_ctrl_c_stops_what_runs_and_what_waits(tmp_path, tally, gate):
    ran, closed = tally(), gate()
    tests = os.path.dirname(helpers.__file__)
    process = start_script(INTERRUPTED, tmp_path, tests, ran.path, closed.path)
    try:
        wait_until(lambda: ran.count() == 2, 60, "two calls run")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        helpers.end_family(process.pid)
    assert out.splitlines() == ["interrupted 2.0", "again [0, 1, 2]"], err
    assert process.returncode == 0
    assert ran.count() == 2


def test_shutdown_in_the_middle_ends_the_call(fresh, gate):
    fresh.init(num_cpus=2)
    closed = gate()
    results = Parallel(n_jobs=2, return_as="generator_unordered", batch_size=1)(
        delayed(lambda i: closed.wait(100) if i else i)(i) for i in range(4)
    )
    assert next(results) == 0
    mltoolkit.shutdown()
    start = time.monotonic()
    with pytest.raises((mltoolkit.exceptions.RayError, RuntimeError), match="shut down"):
        next(results)
    assert time.monotonic() - start < 20
    assert not mltoolkit.is_initialized()


def test_a_loss_inside_a_call_is_the_users(tally):
    ran = tally()

    def call():
        ran.add()
        mltoolkit.get(mltoolkit.remote(die).options(max_retries=0).remote("exit"))

    with pytest.raises(WorkerCrashedError) as caught:
        Parallel(n_jobs=2)([delayed(call)()])
    assert not isinstance(caught.value, CallLostError)
    assert ran.count() == 1


@pytest.mark.parametrize("return_as", ["generator", "generator_unordered"])
def test_a_dask_worker_that_dies_costs_its_batches_only(tmp_path, fresh, tally, gate, return_as):
    pytest.importorskip("distributed")
    array = pytest.importorskip("numpy").arange(200_000.0)
    ran, opened = tally(), gate()
    cluster = Cluster(tmp_path, workers=2, nthreads=2)
    try:
        mltoolkit.init(address=cluster.address)

        def call(x, i):
            ran.add(i)
            opened.wait(60)
            return x[i]

        calls = (delayed(call)(array, i) for i in range(30))
        results = Parallel(n_jobs=4, batch_size=1, return_as=return_as)(calls)
        wait_until(lambda: ran.count() >= 4, 60, "both workers are busy")
        cluster.workers[0].kill()
        cluster.workers[0].wait(20)
        opened.open()
        assert sorted(results) == [float(i) for i in range(30)]
        assert 30 < ran.count() <= 34
    finally:
        mltoolkit.shutdown()
        cluster.close()
