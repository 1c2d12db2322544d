"""A fork server that is a fork of the driver: made only where that is safe, and nothing of the program's in it."""

from __future__ import annotations

import sys

import pytest
from helpers import run_script

import mltoolkit as ray

pytestmark = [
    pytest.mark.skipif(ray.__name__ != "mltoolkit", reason="about our own processes"),
    pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the driver is never forked"),
]

BEGIN = """
import atexit, logging, os, sys, threading, weakref
import numpy as np
import mltoolkit as ray
from mltoolkit.core import driver_fork

driver_fork.MIN_MODULES = 0  # numpy alone would not be worth it

def is_fork():
    with open(f"/proc/{os.getppid()}/cmdline") as stream:
        return "script.py" in stream.read()
"""


def test_what_the_program_has_beside_its_imports_stays_behind(tmp_path):
    (tmp_path / "own.py").write_text("state = 'as imported'\n")
    done = run_script(
        BEGIN
        + """
import own

own.state = "changed"
a = np.random.rand(300, 300)
a @ a  # OpenBLAS has a thread now
log = open("log.txt", "w")
log.write("buffered")
descriptor = log.fileno()
atexit.register(lambda: print("end of", "driver" if os.getpid() == driver else "executor"))
driver = os.getpid()
class Thing: pass
thing = Thing()
weakref.finalize(thing, print, "finalized")
logging.getLogger().addHandler(logging.FileHandler("root.txt"))
os.environ["SEEN"] = "at init"
import types, warnings; warnings.simplefilter("error")
sys.modules["made_here"] = types.ModuleType("made_here")
sys.modules["numpy.made_by_extension"] = types.ModuleType("numpy.made_by_extension")
print("once", end=" ")

@ray.remote
def look():
    import __main__, own, signal, threadpoolctl
    import warnings; warnings.warn("only a warning", UserWarning)
    b = np.ones((200, 200))
    logging.getLogger("any").warning("from the executor")
    return {
        "fork": is_fork(),
        "own": own.state,
        "main": [name for name in vars(__main__) if not name.startswith("__")],
        "file": os.readlink(f"/proc/self/fd/{descriptor}") if os.path.exists(f"/proc/self/fd/{descriptor}") else "",
        "blas": float((b @ b)[0, 0]),
        "threads": {each["num_threads"] for each in threadpoolctl.threadpool_info()},
        "numpy": len([name for name in sys.modules if name.startswith("numpy")]) > 20,
        "env": os.environ["SEEN"],
        "made": [name for name in ("made_here", "numpy.made_by_extension") if name in sys.modules],
        "handlers": [type(each).__name__ for each in logging.getLogger().handlers],
    }

ray.init(num_cpus=2)
found = ray.get(look.remote(), timeout=60)
assert found.pop("file") != os.path.realpath("log.txt"), found
assert found == {
    "fork": True, "own": "as imported", "main": [], "blas": 200.0, "threads": {1}, "numpy": True, "env": "at init",
    "made": ["numpy.made_by_extension"],
    "handlers": ["StreamHandler"],
}, found
import threadpoolctl
assert {each["num_threads"] for each in threadpoolctl.threadpool_info()} == {2}  # as before, in the driver
again = ray.get([look.remote() for _ in range(4)], timeout=60)
assert all(each["fork"] for each in again)
ray.shutdown()
log.close()
assert open("log.txt").read() == "buffered" and open("root.txt").read() == ""
del thing
""",
        tmp_path,
        env={"OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": None},
    )
    assert done.stdout == "once finalized\nend of driver\n"


def test_objects_of_the_program_are_finalized_by_the_driver_alone(tmp_path):
    (tmp_path / "scratch_files.py").write_text(
        "import tempfile\n"
        "held = tempfile.NamedTemporaryFile(dir='.')\n"  # removes the file when it is finalized
        "in_a_cycle = {'file': tempfile.NamedTemporaryFile(dir='.')}\n"
        "in_a_cycle['self'] = in_a_cycle\n"
    )
    done = run_script(
        BEGIN
        + """
import gc

def use():
    import scratch_files
    names = [scratch_files.held.name, scratch_files.in_a_cycle["file"].name]
    gc.disable()
    del scratch_files.in_a_cycle
    return names

names = use()

@ray.remote
def look():
    import gc
    gc.collect()
    return is_fork()

ray.init(num_cpus=1)
assert ray.get(look.remote(), timeout=60)
assert [os.path.exists(name) for name in names] == [True, True]
ray.shutdown()
assert [os.path.exists(name) for name in names] == [True, True]
print("kept")
""",
        tmp_path,
    )
    assert done.stdout == "kept\n"


@pytest.mark.parametrize(
    "reason",
    [
        "stop = threading.Event(); threading.Thread(target=stop.wait, daemon=True).start()",
        "driver_fork._DEVICES = ('/dev/null',); device = open('/dev/null')",
        "driver_fork.MAX_OWN_BYTES = 1000",
        "os.environ['MLTOOLKIT_ZYGOTE'] = 'fresh'",
        "driver_fork._foreign_threads = lambda: ['native']",
        "os.environ['MLTOOLKIT_PRELOAD'] = 'numpy'",
    ],
)
def test_a_fresh_interpreter_where_a_fork_might_not_be_safe(tmp_path, reason):
    done = run_script(
        BEGIN
        + reason
        + """

@ray.remote
def look():
    return is_fork()

ray.init(num_cpus=1)
print(ray.get(look.remote(), timeout=60))
""",
        tmp_path,
    )
    assert done.stdout == "False\n"


def test_a_fork_server_that_dies_is_replaced_and_sessions_follow_each_other(tmp_path):
    done = run_script(
        BEGIN
        + """
import signal

@ray.remote
class Looker:
    def look(self):
        return is_fork(), os.getppid()

def look():
    return ray.get(Looker.remote().look.remote(), timeout=60)

for _ in range(2):
    ray.init(num_cpus=1)
    fork, server = look()
    assert fork
    os.kill(server, signal.SIGKILL)
    while True:
        try:
            fork, other = look()
        except ray.exceptions.RayActorError:  # its server died while it was starting
            continue
        if other != server:
            break
    assert not fork
    ray.shutdown()
print("done")
""",
        tmp_path,
    )
    assert done.stdout == "done\n"
