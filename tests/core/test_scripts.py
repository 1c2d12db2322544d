"""Programs as people write them: no main guard, libraries with threads, children, random numbers, Ctrl-C."""

from __future__ import annotations

import pytest
from helpers import run_script

import mltoolkit as ray

needs_mltoolkit = pytest.mark.skipif(ray.__name__ != "mltoolkit", reason="about our own processes")


def test_script_without_main_guard_runs_once(tmp_path):
    done = run_script(
        """
        import os
        import mltoolkit as ray

        with open("runs", "a") as file:
            file.write("x")
        ray.init(num_cpus=2)

        class Point:
            def __init__(self, x):
                self.x = x

        @ray.remote
        def shift(point):
            return Point(point.x + 1)

        @ray.remote
        class Keeper:
            def __init__(self):
                self.point = Point(0)

            def shift(self):
                self.point = ray.get(shift.remote(self.point))
                return self.point

        keeper = Keeper.remote()
        point = ray.get([keeper.shift.remote() for _ in range(3)])[-1]
        assert isinstance(point, Point)
        print(point.x, open("runs").read())
        """,
        tmp_path,
    )
    assert done.stdout.split() == ["3", "x"]


def test_script_ends_without_shutdown_and_with_its_own_exit_code(tmp_path):
    source = """
        import sys
        import mltoolkit as ray

        ray.init(num_cpus=1)

        @ray.remote
        class A:
            def wait(self):
                import threading
                threading.Event().wait()

        a = A.remote()
        ref = a.wait.remote()
        ray.wait([ref], timeout=0.2)
        {end}
        """
    assert run_script(source.format(end="sys.exit(7)"), tmp_path, check=False).returncode == 7
    done = run_script(source.format(end="raise ValueError('mine')"), tmp_path, check=False)
    assert done.returncode == 1
    assert "ValueError: mine" in done.stderr


def test_code_from_standard_input_and_from_c(tmp_path):
    import subprocess
    import sys

    from helpers import script_env

    source = "import mltoolkit as ray\nf = ray.remote(lambda x: x + 1)\nprint(ray.get(f.remote(1)))\n"
    for how in ([sys.executable, "-c", source], [sys.executable, "-"]):
        done = subprocess.run(
            how, input=source, text=True, capture_output=True, env=script_env(), cwd=tmp_path, timeout=60, check=True
        )
        assert done.stdout.split()[-1] == "2"


WARM_UP = """
import os
import numpy as np
import mltoolkit as ray

def blas():
    a = np.random.RandomState(0).rand(400, 400)
    return float((a @ a).sum())

def boosting():
    from sklearn.ensemble import HistGradientBoostingClassifier
    x = np.random.RandomState(0).rand(2000, 5)
    y = (x[:, 0] > 0.5).astype(int)
    return HistGradientBoostingClassifier(max_iter=5).fit(x, y).score(x, y)

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
for _ in range(3):
    work()
    actors = [Actor.options(num_cpus=1).remote() for _ in range(2)]
    got = ray.get([task.remote() for _ in range(4)] + [a.work.remote() for a in actors], timeout=90)
    assert all(abs(g[0] - here[0]) < 1e-6 * here[0] and g[1:] == here[1:] for g in got), (here, got)
    del actors
print("done")
""",
        tmp_path,
        timeout=110,
        env={"OMP_NUM_THREADS": "2"},
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


def test_tasks_may_have_children(tmp_path):
    done = run_script(
        """
        import multiprocessing, os, subprocess, sys
        import mltoolkit as ray

        ray.init(num_cpus=2)

        def square(x):
            return x * x

        @ray.remote
        def pool():
            with multiprocessing.get_context("fork").Pool(2) as workers:
                return workers.map(square, range(5))

        @ray.remote
        class A:
            def child(self):
                command = [sys.executable, "-c", "print(6 * 7)"]
                return subprocess.run(command, capture_output=True, text=True).stdout.strip()

            def pool(self):
                from concurrent.futures import ProcessPoolExecutor
                with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as workers:
                    return list(workers.map(square, range(4)))

        a = A.remote()
        print(ray.get([pool.remote(), a.child.remote(), a.pool.remote()], timeout=50))
        """,
        tmp_path,
    )
    assert done.stdout.strip() == "[[0, 1, 4, 9, 16], '42', [0, 1, 4, 9]]"


@needs_mltoolkit
def test_joblib_inside_a_task_uses_processes_of_its_own(tmp_path):
    pytest.importorskip("joblib")
    done = run_script(
        """
        import mltoolkit as ray

        ray.init(num_cpus=2)

        @ray.remote(num_cpus=2)
        def search():
            import joblib
            import operator
            return joblib.Parallel(n_jobs=2)(joblib.delayed(operator.neg)(i) for i in range(6))

        print(ray.get(search.remote(), timeout=50))
        """,
        tmp_path,
    )
    assert done.stdout.strip() == "[0, -1, -2, -3, -4, -5]"


@needs_mltoolkit
def test_data_loader_with_workers_inside_a_task(tmp_path):
    pytest.importorskip("torch")
    done = run_script(
        """
        import mltoolkit as ray
        import torch

        ray.init(num_cpus=2)

        class Squares(torch.utils.data.Dataset):
            def __len__(self):
                return 8

            def __getitem__(self, i):
                return torch.tensor(i * i)

        @ray.remote
        def load():
            loader = torch.utils.data.DataLoader(Squares(), batch_size=4, num_workers=2)
            return [int(batch.sum()) for batch in loader]

        print(ray.get(load.remote(), timeout=50))
        """,
        tmp_path,
        timeout=100,
    )
    assert done.stdout.strip() == "[14, 126]"


@needs_mltoolkit
def test_children_of_a_task_end_with_it(tmp_path):
    from helpers import alive, wait_until

    done = run_script(
        """
        import subprocess, sys
        import mltoolkit as ray

        ray.init(num_cpus=2)

        @ray.remote
        class A:
            def start(self):
                self.child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
                return self.child.pid

        a, b = A.remote(), A.remote()
        pids = ray.get([a.start.remote(), b.start.remote()])
        ray.kill(a)
        ray.shutdown()
        print(*pids)
        """,
        tmp_path,
    )
    for pid in done.stdout.split():
        wait_until(lambda pid=int(pid): not alive(pid), 5, "a grandchild ends")


# -- random numbers -------------------------------------------------------------------------------------------------

DRAW = """
import random
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


# -- stopping -------------------------------------------------------------------------------------------------------


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
        ctypes.PyDLL(None).usleep(6_000_000)
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
