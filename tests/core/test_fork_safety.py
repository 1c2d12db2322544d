"""What a fork could carry along or break: threads, locks, random state, a held GIL; and starting without one."""

from __future__ import annotations

import pytest
from helpers import run_script

import mltoolkit as ray

needs_mltoolkit = pytest.mark.skipif(ray.__name__ != "mltoolkit", reason="about our own processes")

WARM_UP = """
import os
import numpy as np
import mltoolkit as ray

def blas():
    a = np.random.RandomState(0).rand(400, 400)
    return float((a @ a).sum())

def boosting():
    from sklearn.ensemble import HistGradientBoostingClassifier
    x = np.random.RandomState(0).rand(500, 2)
    y = (x[:, 0] > 0.5).astype(int)
    return HistGradientBoostingClassifier(max_iter=2).fit(x, y).score(x, y)

def threads():
    import concurrent.futures
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        return sum(pool.map(lambda i: i, range(100)))

def work():
    return blas(), boosting(), threads()

@ray.remote
def task():
    return work()

@ray.remote
class Actor:
    def work(self):
        return work()
"""


@pytest.mark.slow
@needs_mltoolkit
def test_libraries_with_threads_used_in_the_driver_work_in_executors(tmp_path):
    pytest.importorskip("sklearn")
    done = run_script(
        WARM_UP
        + """
here = work()
ray.init(num_cpus=2)
for _ in range(2):
    work()
    actors = [Actor.remote() for _ in range(2)]
    got = ray.get([task.remote() for _ in range(2)] + [a.work.remote() for a in actors], timeout=90)
    assert all(abs(g[0] - here[0]) < 1e-6 * here[0] and g[1:] == here[1:] for g in got), (here, got)
    del actors
print("done")
""",
        tmp_path,
        timeout=110,
        env={"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive"},
    )
    assert done.stdout.split() == ["done"]


@needs_mltoolkit
def test_threads_and_locks_of_the_driver_do_not_reach_executors(tmp_path):
    done = run_script(
        """
        import logging, threading
        import mltoolkit as ray

        held = threading.Event()
        handler = logging.StreamHandler()
        logging.getLogger().addHandler(handler)

        def hold():
            handler.acquire()
            held.set()
            threading.Event().wait()

        threading.Thread(target=hold, daemon=True).start()
        held.wait()
        ray.init(num_cpus=1)

        @ray.remote
        def log():
            logging.getLogger().warning("not stuck")
            return threading.active_count()

        print(ray.get(log.remote(), timeout=20) < 10)
        handler.lock = threading.RLock()  # so that the interpreter can flush it at its end
        """,
        tmp_path,
    )
    assert "True" in done.stdout


# -- random numbers -------------------------------------------------------------------------------------------------

DRAW = """
import random
import sys
import numpy as np
import mltoolkit as ray

random.seed(1)
np.random.seed(1)
ray.init(num_cpus=4)

@ray.remote
class Drawer:
    def draw(self):
        return random.random(), float(np.random.rand())

drawers = [Drawer.remote() for _ in range(8)]
draws = ray.get([d.draw.remote() for d in drawers])
assert len({d[0] for d in draws}) == 8, draws
assert len({d[1] for d in draws}) == 8, draws
if "--draws" in sys.argv:
    print(*draws)
else:
    print(random.random(), np.random.rand())
"""


@needs_mltoolkit
def test_random_streams_differ_per_executor_and_leave_the_driver_alone(tmp_path):
    first = run_script(DRAW, tmp_path).stdout.split()
    plain = """
        import random
        import numpy as np
        random.seed(1)
        np.random.seed(1)
        print(random.random(), np.random.rand())
        """
    assert first == run_script(plain, tmp_path).stdout.split()


@needs_mltoolkit
def test_random_streams_repeat_with_a_seed(tmp_path):
    first, again, other = (
        run_script(DRAW, tmp_path, "--draws", env={"MLTOOLKIT_SEED": seed}).stdout for seed in ("7", "7", "8")
    )
    assert first == again
    assert not set(first.split()) & set(other.split())


# -- the driver itself ----------------------------------------------------------------------------------------------


def test_fork_of_the_driver_does_not_end_the_session(tmp_path):
    done = run_script(
        """
        import multiprocessing
        import mltoolkit as ray

        ray.init(num_cpus=1)
        f = ray.remote(lambda x: x + 1)
        assert ray.get(f.remote(1)) == 2
        child = multiprocessing.get_context("fork").Process(target=lambda: None)
        child.start()
        child.join(20)
        assert child.exitcode == 0
        print(ray.get(f.remote(2), timeout=20))
        """,
        tmp_path,
    )
    assert done.stdout.split()[-1] == "3"


@needs_mltoolkit
def test_driver_that_holds_the_gil_loses_nothing(tmp_path):
    done = run_script(
        """
        import ctypes, time
        import mltoolkit as ray

        ray.init(num_cpus=2)

        @ray.remote
        class A:
            def work(self, n):
                time.sleep(0.001)
                return n

        @ray.remote
        def f(x):
            return x

        a = A.remote()
        ray.get(a.work.remote(0))
        refs = [a.work.remote(i) for i in range(200)] + [f.remote(i) for i in range(50)]
        ctypes.PyDLL(None).usleep(3_000_000)
        assert ray.get(refs, timeout=30) == [*range(200), *range(50)]
        print(ray.get(f.remote("alive"), timeout=20))
        """,
        tmp_path,
    )
    assert done.stdout.split() == ["alive"]
    assert done.stderr == ""


# -- start by spawn -------------------------------------------------------------------------------------------------


@needs_mltoolkit
def test_executors_start_by_spawn_on_request(tmp_path):
    done = run_script(
        """
        import os
        import psutil
        import mltoolkit as ray

        ray.init(num_cpus=2)

        class Point:
            x = 4

        @ray.remote
        def read(point):
            return point.x

        @ray.remote
        class A:
            def __init__(self, n):
                self.n = n

            def add(self):
                self.n += 1
                return self.n, os.getpid()

            def crash(self):
                os._exit(3)

        a = A.remote(1)
        n, pid = ray.get(a.add.remote())
        assert psutil.Process(pid).cmdline() != psutil.Process().cmdline()
        print(ray.get(read.remote(Point())), n)
        try:
            ray.get(a.crash.remote())
        except ray.exceptions.ActorDiedError:
            print("died")
        """,
        tmp_path,
        env={"MLTOOLKIT_START": "spawn"},
    )
    assert done.stdout.split() == ["4", "2", "died"]
    assert done.stderr == ""


@pytest.mark.parametrize(("wanted", "expected"), [(None, {"numpy", "cloudpickle"}), ("numpy", {"numpy"}), ("", set())])
def test_what_the_fork_server_imports_can_be_narrowed_down(monkeypatch, wanted, expected):
    pytest.importorskip("numpy")
    from mltoolkit.core.modules import preloadable_modules

    monkeypatch.delenv("MLTOOLKIT_PRELOAD", raising=False)
    if wanted is not None:
        monkeypatch.setenv("MLTOOLKIT_PRELOAD", wanted)
    roots = {name.partition(".")[0] for name in preloadable_modules()}
    assert roots & {"numpy", "cloudpickle"} == expected


@needs_mltoolkit
def test_the_memory_thread_of_pyarrow_does_not_keep_executors_from_being_warm(tmp_path):
    pytest.importorskip("pyarrow")
    done = run_script(
        """
        import sys
        import pandas, pyarrow
        import mltoolkit as ray

        ray.init(num_cpus=1)

        @ray.remote
        def warm():
            loaded = {"pandas", "pyarrow"} <= set(sys.modules)
            import pandas, pyarrow
            return loaded, pandas.DataFrame({"a": pyarrow.array(range(10_000))}).a.sum()

        print(ray.get(warm.remote()))
        """,
        tmp_path,
        timeout=60,
    )
    assert done.stdout.split() == ["(True,", "49995000)"] or "(True, np.int64(49995000))" in done.stdout
