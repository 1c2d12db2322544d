"""The driver dies or is interrupted: nothing of its session stays."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess

import psutil
import pytest
from helpers import alive, end_family, family, leftovers, run_script, segment_folder, start_script, wait_until

import mltoolkit as ray

pytestmark = [
    pytest.mark.hostile,
    pytest.mark.skipif(ray.__name__ != "mltoolkit", reason="about our own processes and files"),
]

DRIVER = """
import os, subprocess, sys, time
import numpy as np
import mltoolkit as ray

ray.init(num_cpus=2)

@ray.remote
class A:
    def __init__(self):
        self.array = ray.put(np.ones(1 << 20))
        self.child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])

    def pids(self):
        return os.getpid(), self.child.pid

@ray.remote
def busy():
    while True:
        time.sleep(0.01)

@ray.remote
def stubborn():
    import signal
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    while True:
        try:
            time.sleep(0.01)
        except BaseException:
            pass

kept = ray.put(np.zeros(1 << 20))
a = A.remote()
pids = ray.get(a.pids.remote())
refs = [busy.options(num_cpus=0).remote(), stubborn.options(num_cpus=0).remote()]
ray.wait(refs, timeout=0.5)
print("READY", *pids, flush=True)
"""

ENDINGS = {
    "SIGKILL": "signal.pause()",
    "SIGTERM": "signal.pause()",
    "SIGINT": "ray.get(refs)",
    "SIGINT-in-code": "while True: pass",
    "SIGHUP": "signal.pause()",
    "exit": "sys.exit(3)",
    "exception": "raise ValueError('user')",
    "os._exit": "os._exit(4)",
}


@pytest.mark.parametrize("how", ENDINGS)
def test_nothing_survives_the_driver(tmp_path, how):
    tmp, shm = tmp_path / "t", segment_folder() / f"driver-{os.getpid()}"
    tmp.mkdir()
    shm.mkdir()
    driver = start_script(
        DRIVER + "import signal\n" + ENDINGS[how] + "\n",
        tmp_path,
        env={"MLTOOLKIT_TMPDIR": str(tmp), "MLTOOLKIT_SHM_DIR": str(shm)},
        stderr=subprocess.PIPE,
    )
    try:
        line = driver.stdout.readline()
        assert line.startswith("READY"), driver.communicate(timeout=20)[1]
        pids = {int(word) for word in line.split()[1:]} | {p.pid for p in family(driver.pid)}
        if how.startswith("SIG"):
            assert leftovers(tmp, shm), "the session keeps nothing here, so the test would see nothing"
            driver.send_signal(getattr(signal, how.split("-")[0]))
        driver.wait(15)
        wait_until(lambda: not [p for p in pids if alive(p)], 5, "all processes of the session end")
        wait_until(lambda: not leftovers(tmp, shm), 5, "files and segments of the session are removed")
        if how == "SIGINT":
            assert "KeyboardInterrupt" in driver.communicate(timeout=10)[1]
    finally:
        end_family(driver.pid)
        driver.wait(10)
        driver.stdout.close()
        driver.stderr.close()
        shutil.rmtree(shm)


def test_ctrl_c_from_a_terminal_reaches_the_whole_group_once(tmp_path):
    driver = start_script(
        """
        import os, sys, time
        import mltoolkit as ray

        ray.init(num_cpus=2)

        @ray.remote
        def work():
            time.sleep(600)

        @ray.remote
        class A:
            def ping(self):
                return os.getpid()

        a = A.remote()
        pid = ray.get(a.ping.remote())
        ref = work.remote()
        ray.wait([ref], timeout=0.3)
        try:
            print("READY", flush=True)  # Ctrl-C may come as soon as this is read
            ray.get(ref)
        except KeyboardInterrupt:
            assert ray.get(a.ping.remote(), timeout=20) == pid, "the actor was interrupted too"
            ray.cancel(ref, force=True)
            print("INTERRUPTED", flush=True)
        """,
        tmp_path,
        start_new_session=True,
    )
    try:
        assert driver.stdout.readline() == "READY\n"
        os.killpg(driver.pid, signal.SIGINT)
        out, err = driver.communicate(timeout=30)
        assert out == "INTERRUPTED\n", err
        assert driver.returncode == 0, err
    finally:
        end_family(driver.pid)


def test_next_session_cleans_up_after_driver_and_fork_server_were_killed_together(tmp_path):
    tmp, shm = tmp_path / "t", segment_folder() / f"next-{os.getpid()}"
    tmp.mkdir()
    shm.mkdir()
    env = {"MLTOOLKIT_TMPDIR": str(tmp), "MLTOOLKIT_SHM_DIR": str(shm)}
    driver = start_script(DRIVER + "import signal\nsignal.pause()\n", tmp_path, env=env)
    try:
        assert driver.stdout.readline().startswith("READY")
        others = family(driver.pid)
        for process in [psutil.Process(driver.pid), *psutil.Process(driver.pid).children()]:
            process.kill()
        driver.wait(10)
        wait_until(lambda: not [p for p in others if alive(p)], 5, "executors end when both are gone")
        source = "import mltoolkit as ray\nprint(ray.get(ray.remote(lambda: 1).remote()))"
        assert run_script(source, tmp_path, env=env).stdout.split() == ["1"]
        wait_until(lambda: not leftovers(tmp, shm), 5, "files of the dead session are removed")
    finally:
        end_family(driver.pid)
        driver.stdout.close()
        driver.stderr.close()
        shutil.rmtree(shm)
