"""Shared memory that is missing, too small or full: files in the session's folder serve instead."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from helpers import leftovers, run_script, segment_folder

import mltoolkit as ray

pytestmark = [
    pytest.mark.hostile,
    pytest.mark.skipif(ray.__name__ != "mltoolkit", reason="about our own folder for segments"),
]

WORK = """
import gc, os, sys
import numpy as np
import mltoolkit as ray

ray.init(num_cpus=2)

@ray.remote
def negate(array):
    return -array

@ray.remote
class Keeper:
    def keep(self, array):
        self.array = array

    def total(self):
        return float(self.array.sum())

count, mega = 12, 1 << 20
refs = [ray.put(np.full(mega, i, dtype=np.float64)) for i in range(count)]
negated = [negate.remote(r) for r in refs]
keeper = Keeper.remote()
ray.get(keeper.keep.remote(refs[3]))
for i, (a, b) in enumerate(zip(ray.get(refs), ray.get(negated))):
    assert a[0] == i and b[-1] == -i
    assert not a.flags.writeable and a.ctypes.data % 64 == 0
assert ray.get(keeper.total.remote()) == 3 * mega
files = [os.path.join(d, n) for d, _, names in os.walk(os.environ["MLTOOLKIT_TMPDIR"]) for n in names]
in_files = sum(os.lstat(f).st_blocks * 512 for f in files)
print("IN FILES", in_files // mega)
del a, b, refs, negated
ray.shutdown()
"""


@pytest.fixture
def tmpdir_of_session(tmp_path):
    folder = tmp_path / "t"
    folder.mkdir()
    return folder


@pytest.fixture
def tiny_tmpfs(tmp_path):
    folder = tmp_path / "tiny"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(folder)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a file system is not permitted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def in_files(done):
    """Megabytes that the session kept in files of its own folder."""
    return int(done.stdout.split("IN FILES")[1])


def test_enough_shared_memory_keeps_files_out_of_it(tmp_path, tmpdir_of_session):
    done = run_script(WORK, tmp_path, env={"MLTOOLKIT_TMPDIR": str(tmpdir_of_session)})
    assert in_files(done) < 8
    assert not leftovers(tmpdir_of_session)


def test_missing_folder_falls_back_to_files(tmp_path, tmpdir_of_session):
    env = {"MLTOOLKIT_SHM_DIR": str(tmp_path / "missing"), "MLTOOLKIT_TMPDIR": str(tmpdir_of_session)}
    done = run_script(WORK, tmp_path, env=env)
    assert in_files(done) >= 150
    assert not (tmp_path / "missing").exists()
    assert not leftovers(tmpdir_of_session)
    assert done.stderr == ""


def test_small_shared_memory_falls_back_to_files(tmp_path, tmpdir_of_session, tiny_tmpfs):
    env = {"MLTOOLKIT_SHM_DIR": str(tiny_tmpfs), "MLTOOLKIT_TMPDIR": str(tmpdir_of_session)}
    done = run_script(WORK, tmp_path, env=env)
    assert in_files(done) >= 100
    assert not leftovers(tmpdir_of_session, tiny_tmpfs)


def test_shared_memory_filled_by_others_is_no_bus_error(tmp_path, tmpdir_of_session, tiny_tmpfs):
    (tiny_tmpfs / "of-somebody-else").write_bytes(b"x" * (19 << 20))
    env = {"MLTOOLKIT_SHM_DIR": str(tiny_tmpfs), "MLTOOLKIT_TMPDIR": str(tmpdir_of_session)}
    done = run_script(WORK, tmp_path, env=env)
    assert in_files(done) >= 150
    assert [os.path.basename(f) for f in leftovers(tiny_tmpfs)] == ["of-somebody-else"]


def test_long_temporary_folder_is_no_obstacle_to_sockets(tmp_path):
    long = tmp_path / ("long" * 30)
    long.mkdir()
    source = "import mltoolkit as ray\nray.init(num_cpus=1)\nprint(ray.get(ray.remote(lambda: 1).remote()))"
    env = {"MLTOOLKIT_TMPDIR": str(long), "MLTOOLKIT_SHM_DIR": str(segment_folder())}
    assert run_script(source, tmp_path, env=env).stdout.split() == ["1"]
    assert not leftovers(long)


def test_two_sessions_side_by_side_do_not_meet(tmp_path, tmpdir_of_session):
    from helpers import end_family, start_script

    source = """
    import sys
    import numpy as np
    import mltoolkit as ray

    ray.init(num_cpus=1)
    mine = int(sys.argv[1])
    ref = ray.put(np.full(1 << 20, mine))

    @ray.remote
    class A:
        def look(self, array):
            return int(array[0])

    a = A.options(name="same-name").remote()
    print(ray.get(a.look.remote(ref)), flush=True)
    sys.stdin.readline()
    assert ray.get(ray.get_actor("same-name").look.remote(ref)) == mine
    print("still", mine, flush=True)
    """
    env = {"MLTOOLKIT_TMPDIR": str(tmpdir_of_session)}
    drivers = [start_script(source, tmp_path, str(i), env=env, name=f"s{i}.py", stdin=subprocess.PIPE) for i in (1, 2)]
    try:
        assert [d.stdout.readline().strip() for d in drivers] == ["1", "2"]
        out, err = drivers[0].communicate("\n", timeout=30)
        assert out == "still 1\n", err
        out, err = drivers[1].communicate("\n", timeout=30)
        assert out == "still 2\n", err
        assert not leftovers(tmpdir_of_session)
    finally:
        for driver in drivers:
            end_family(driver.pid)
