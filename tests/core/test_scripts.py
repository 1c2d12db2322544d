"""Programs as people write them: no main guard, code from standard input, tasks with children of their own."""

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


def test_tasks_may_have_children(tmp_path):
    done = run_script(
        """
        import multiprocessing, operator, os, subprocess, sys
        import mltoolkit as ray

        ray.init(num_cpus=2)

        @ray.remote
        def pool():
            with multiprocessing.get_context("fork").Pool(2) as workers:
                return workers.map(operator.neg, range(5))

        @ray.remote
        class A:
            def child(self):
                command = [sys.executable, "-c", "print(6 * 7)"]
                return subprocess.run(command, capture_output=True, text=True).stdout.strip()

            def pool(self):
                from concurrent.futures import ProcessPoolExecutor
                with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as workers:
                    return list(workers.map(operator.neg, range(4)))

        a = A.remote()
        print(ray.get([pool.remote(), a.child.remote(), a.pool.remote()], timeout=50))
        """,
        tmp_path,
    )
    assert done.stdout.strip() == "[[0, -1, -2, -3, -4], '42', [0, -1, -2, -3]]"


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
