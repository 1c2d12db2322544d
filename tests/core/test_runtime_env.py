"""`runtime_env`: environment variables and working directory of tasks and actors; what is captured at submission."""

from __future__ import annotations

import os
import sys

import pytest
from helpers import run_script

import mltoolkit as ray


@ray.remote
def read(name):
    return os.environ.get(name)


@ray.remote
class Reader:
    def read(self, name):
        return os.environ.get(name)


def test_env_vars_of_a_task_and_an_actor(runtime):
    env = {"env_vars": {"MLT_TEST": "set"}}
    assert ray.get(read.options(runtime_env=env).remote("MLT_TEST")) == "set"
    assert ray.get(Reader.options(runtime_env=env).remote().read.remote("MLT_TEST")) == "set"
    assert ray.get(read.remote("MLT_TEST")) is None, "the variable stayed in the process"
    assert "MLT_TEST" not in os.environ


def test_env_vars_of_the_session_and_overriding(fresh):
    ray.init(num_cpus=2, runtime_env={"env_vars": {"MLT_ONE": "session", "MLT_TWO": "session"}})
    override = {"env_vars": {"MLT_TWO": "task"}}
    assert ray.get(read.remote("MLT_ONE")) == "session"
    assert ray.get([read.options(runtime_env=override).remote(n) for n in ("MLT_ONE", "MLT_TWO")]) == [
        "session",
        "task",
    ]


def test_env_vars_reach_children(runtime):
    @ray.remote
    def parent():
        return ray.get(read.remote("MLT_CHILD"))

    assert ray.get(parent.options(runtime_env={"env_vars": {"MLT_CHILD": "inherited"}}).remote()) == "inherited"


def test_working_dir_of_a_session(fresh, tmp_path):
    (tmp_path / "data.txt").write_text("content")
    (tmp_path / "wd_module.py").write_text("VALUE = 'imported'")
    ray.init(num_cpus=2, runtime_env={"working_dir": str(tmp_path)})

    @ray.remote
    def look():
        import wd_module

        with open("data.txt") as file:
            return file.read(), wd_module.VALUE

    assert ray.get(look.remote()) == ("content", "imported")


def test_working_dir_that_does_not_exist_is_an_error(fresh):
    with pytest.raises((ValueError, ray.exceptions.RayError), match="nowhere"):
        ray.init(num_cpus=1, runtime_env={"working_dir": "/nowhere/at/all"})
        ray.get(read.remote("X"), timeout=20)


@pytest.mark.parametrize("bad", [{"env_vars": {"A": 1}}, {"env_vars": ["A"]}], ids=str)
def test_malformed_env_is_refused(runtime, bad):
    with pytest.raises((TypeError, ValueError, ray.exceptions.RayError)):
        ray.get(read.options(runtime_env=bad).remote("A"), timeout=20)


@pytest.mark.skipif(ray.__name__ != "mltoolkit", reason="Ray has more fields")
@pytest.mark.parametrize("field", ["pip", "conda", "colour"])
def test_fields_that_are_not_supported_are_refused_by_name(runtime, field):
    with pytest.raises((NotImplementedError, ValueError), match=field):
        read.options(runtime_env={field: ["something"]}).remote("A")


# -- captured at submission, not at init ----------------------------------------------------------------------------

needs_mltoolkit = pytest.mark.skipif(ray.__name__ != "mltoolkit", reason="Ray takes these at init")


@needs_mltoolkit
def test_environment_is_taken_at_submission(runtime, monkeypatch):
    monkeypatch.setenv("MLT_LATE", "late")
    assert ray.get(read.remote("MLT_LATE")) == "late"
    assert ray.get(Reader.remote().read.remote("MLT_LATE")) == "late"
    monkeypatch.setenv("MLT_LATE", "later")
    assert ray.get(read.remote("MLT_LATE")) == "later"
    monkeypatch.delenv("MLT_LATE")
    assert ray.get(read.remote("MLT_LATE")) is None


@needs_mltoolkit
def test_working_directory_is_taken_at_submission(runtime, monkeypatch, tmp_path):
    @ray.remote
    def where():
        return os.getcwd()

    monkeypatch.chdir(tmp_path)
    assert ray.get(where.remote()) == str(tmp_path)


@needs_mltoolkit
def test_module_path_is_taken_at_submission(runtime, monkeypatch, tmp_path):
    (tmp_path / "late_module.py").write_text("def value():\n    return 'late'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import late_module

    @ray.remote
    def use():
        return late_module.value()

    assert ray.get(use.remote()) == "late"
    assert ray.get(ray.remote(late_module.value).remote()) == "late"


@needs_mltoolkit
def test_module_edited_and_reloaded_reaches_new_executors(fresh, monkeypatch, tmp_path):
    import importlib

    from mltoolkit.core.modules import CodeWatch

    monkeypatch.setattr(CodeWatch, "MAX_PAUSE_S", 0.0)  # the test submits sooner after its edit than a person could
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    path = tmp_path / "edited_module.py"
    path.write_text("def value():\n    return 'old'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import edited_module

    ray.init(num_cpus=1)

    @ray.remote
    class A:
        def look(self):
            return edited_module.value()

    assert ray.get(A.remote().look.remote()) == "old"
    assert ray.get(ray.remote(edited_module.value).remote()) == "old"
    path.write_text("def value():\n    return 'edited'\n")
    os.utime(path, (os.stat(path).st_atime + 5, os.stat(path).st_mtime + 5))
    importlib.reload(edited_module)
    assert ray.get(A.remote().look.remote()) == "edited"
    assert ray.get(ray.remote(edited_module.value).remote()) == "edited"


@needs_mltoolkit
def test_module_next_to_the_script_is_found(tmp_path):
    (tmp_path / "neighbour.py").write_text("class Thing:\n    def __init__(self, x):\n        self.x = x\n")
    done = run_script(
        """
        import mltoolkit as ray
        from neighbour import Thing

        @ray.remote
        def make(x):
            return Thing(x)

        print(ray.get(make.remote(4)).x)
        """,
        tmp_path,
    )
    assert done.stdout.split() == ["4"]
