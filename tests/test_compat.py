"""`import ray` means mltoolkit, and a program run that way cannot tell the difference from plain `python`."""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
import textwrap
import types

import pytest
from helpers import run_script, script_env

import mltoolkit
from mltoolkit import compat


@pytest.fixture
def installed():
    assert "ray" not in sys.modules
    compat.install()
    yield
    compat.uninstall()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A function that makes an importable package from file contents."""

    def make(name, **files):
        folder = tmp_path / name
        folder.mkdir()
        for stem, text in {"__init__": "", **files}.items():
            (folder / f"{stem}.py").write_text(textwrap.dedent(text))
        importlib.invalidate_caches()
        return folder

    known = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield make
    for name in set(sys.modules) - known:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.mark.usefixtures("installed")
class TestAliases:
    def test_modules_are_the_very_same(self):
        import ray
        import ray.util.queue
        from ray.util.actor_pool import ActorPool

        assert ray is mltoolkit
        assert ray.util.queue is importlib.import_module("mltoolkit.util.queue")
        assert ActorPool is mltoolkit.util.ActorPool
        assert sys.modules["ray.util"] is mltoolkit.util

    def test_import_as_of_a_deep_module(self):
        import ray.util.multiprocessing.pool as pool

        assert pool is importlib.import_module("mltoolkit.util.multiprocessing.pool")

    def test_modules_keep_their_identity(self):
        import ray
        import ray.exceptions

        for module, name in ((ray, "mltoolkit"), (ray.exceptions, "mltoolkit.exceptions")):
            assert module.__name__ == name
            assert module.__spec__.name == name
            assert module.__spec__.origin == module.__file__
        assert importlib.reload(importlib.import_module("ray.util.debug")).__name__ == "mltoolkit.util.debug"

    def test_found_without_import(self):
        spec = importlib.util.find_spec("ray.util")
        assert spec is not None
        assert list(spec.submodule_search_locations) == list(mltoolkit.util.__path__)

    def test_other_roots_lead_to_their_package(self, monkeypatch):
        monkeypatch.setitem(compat.ALIASES, "toolbox_ray", "mltoolkit.util")
        import toolbox_ray
        from toolbox_ray.queue import Queue

        assert toolbox_ray is mltoolkit.util
        assert Queue.__module__ == "mltoolkit.util.queue"

    @pytest.mark.parametrize(("name", "hint"), [("ray.utils", "`ray.util`"), ("ray.util.queues", "`ray.util.queue`")])
    def test_missing_counterpart_says_what_exists(self, name, hint):
        with pytest.raises(ModuleNotFoundError) as caught:
            importlib.import_module(name)
        text = str(caught.value)
        assert caught.value.name == name
        assert f"No module named '{name}'" in text
        assert f"Did you mean {hint}?" in text
        assert "What exists: ray." in text

    def test_missing_root_says_what_exists(self, monkeypatch):
        monkeypatch.setitem(compat.ALIASES, "other_ray", "mltoolkit.no_such_package")
        with pytest.raises(ModuleNotFoundError, match="no `mltoolkit.no_such_package`.*What exists:.* ray"):
            importlib.import_module("other_ray")

    def test_missing_dependency_is_not_hidden(self, monkeypatch, package):
        package("stand_in", inner="import a_dependency_nobody_has")
        monkeypatch.setitem(compat.ALIASES, "stand_in_ray", "stand_in")
        with pytest.raises(ModuleNotFoundError, match="a_dependency_nobody_has"):
            importlib.import_module("stand_in_ray.inner")

    def test_own_modules_are_not_offered(self):
        with pytest.raises(ModuleNotFoundError) as caught:
            importlib.import_module("ray.no_such_module")
        assert "ray.core" not in str(caught.value)
        assert "ray.util" in str(caught.value)

    def test_twice_is_once(self):
        before = list(sys.meta_path)
        compat.install()
        assert sys.meta_path == before

    def test_goes_before_an_installed_package_of_that_name(self, package):
        package("ray", __init__="raise AssertionError('the wrong one')")
        import ray

        assert ray is mltoolkit


def test_uninstall_leaves_nothing(package):
    compat.install()
    import ray.util.queue  # noqa: F401

    assert os.environ["MLTOOLKIT_COMPAT"] == "1"
    compat.uninstall()
    assert not compat.is_installed()
    assert "MLTOOLKIT_COMPAT" not in os.environ
    assert not [name for name in sys.modules if name.partition(".")[0] == "ray"]
    folder = package("ray", __init__="")
    assert importlib.import_module("ray").__file__ == str(folder / "__init__.py")


@pytest.mark.parametrize("name", ["ray", "xgboost_ray"])
def test_refuses_where_the_real_one_is_in_use(monkeypatch, name):
    foreign = types.ModuleType(name)
    foreign.__file__ = "elsewhere/__init__.py"
    monkeypatch.setitem(sys.modules, name, foreign)
    with pytest.raises(RuntimeError, match=f"before the first `import {name}`.*elsewhere"):
        compat.install()
    assert not compat.is_installed()
    assert sys.modules[name] is foreign
    assert "MLTOOLKIT_COMPAT" not in os.environ


class TestInExecutors:
    def test_tasks_and_their_modules_import_ray(self, tmp_path):
        (tmp_path / "library.py").write_text("import ray\nfrom ray.util.queue import Empty\n\ndef root(): return ray\n")
        out = run_script(
            """
            import ray

            @ray.remote
            def inside():
                import library
                import ray as here
                import ray.util.queue
                return library.root() is here, here.__name__, library.Empty is ray.util.queue.Empty

            @ray.remote
            class Inside:
                def nested(self):
                    import ray as here
                    return here.get(inside.remote())

            print(ray.get(inside.remote()), ray.get(Inside.remote().nested.remote()))
            """,
            tmp_path,
            python_args=("-m", "mltoolkit"),
        ).stdout
        assert out == f"{(True, 'mltoolkit', True)} {(True, 'mltoolkit', True)}\n"

    def test_installed_after_init(self, tmp_path):
        out = run_script(
            """
            import mltoolkit
            import mltoolkit.compat

            mltoolkit.init(num_cpus=1)

            @mltoolkit.remote
            def inside():
                import ray
                return ray.__name__

            # An executor that began before the aliases were there is used again after.
            try:
                mltoolkit.get(inside.remote())
            except ImportError:
                print("not yet")
            mltoolkit.compat.install()
            print(mltoolkit.get(inside.remote()))
            """,
            tmp_path,
        ).stdout
        assert out == "not yet\nmltoolkit\n"


# Each program must behave under `python -m mltoolkit` exactly as it does under `python`.
PROBE = """
import sys
print(__name__, __file__, __package__, __spec__, __doc__, sys.argv, sys.path[0])
print(sys.modules["__main__"].__dict__ is globals(), type(__builtins__).__name__, __loader__.name)
"""
PROGRAMS = {
    "probe": f'"""What the program is."""{PROBE}',
    "exception": "def f():\n    raise ValueError('no')\n\nf()\n",
    "chained": "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise KeyError('x') from e\n",
    "syntax_error": "x = (\n",
    "exit_code": "import sys\nsys.exit(3)\n",
    "exit_message": "raise SystemExit('message')\n",
    "own_hook": "import sys\nsys.excepthook = lambda k, e, t: print('hook', k, e, t.tb_lineno)\n1 / 0\n",
    "interrupt": "raise KeyboardInterrupt\n",
    "atexit": "import atexit\natexit.register(print, 'last words')\n1 / 0\n",
    "thread": "import threading\nthreading.Timer(0.05, print, ['from a thread']).start()\nprint('main is done')\n",
    "pickle": "import pickle\nclass A: pass\nprint(type(pickle.loads(pickle.dumps(A()))) is A)\n",
}


def both_ways(arguments, folder, runner=("-m", "mltoolkit")):
    results = []
    for prefix in ((), runner):
        done = subprocess.run(
            [sys.executable, *prefix, *arguments],
            capture_output=True,
            text=True,
            cwd=folder,
            env=script_env({"PYTHONPATH": None}),
            timeout=60,
        )
        results.append((done.returncode, done.stdout, done.stderr))
    return results


@pytest.mark.parametrize("name", PROGRAMS)
def test_scripts_run_as_python_runs_them(name, tmp_path):
    (tmp_path / "program.py").write_text(PROGRAMS[name])
    plain, ours = both_ways(["program.py", "-m", "--flag", "a b"], tmp_path)
    assert ours == plain
    assert plain[1] or plain[2] or plain[0]


def test_script_in_another_folder(tmp_path):
    folder = tmp_path / "below"
    folder.mkdir()
    (folder / "beside.py").write_text("word = 'found'\n")
    (folder / "program.py").write_text(f"import beside\nprint(beside.word){PROBE}")
    plain, ours = both_ways([os.path.join("below", "program.py")], tmp_path)
    assert ours == plain
    assert plain[1].startswith("found")


def test_modules_and_packages(tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "tool.py").write_text(
        f"from . import __name__ as parent\nprint(parent){PROBE}".replace(", __spec__", "")
    )
    (package / "__main__.py").write_text("from .tool import parent\nprint('main of', parent, __spec__.name)\n")
    for module in ("package.tool", "package"):
        plain, ours = both_ways(["-m", module, "-x", "1"], tmp_path)
        assert ours == plain
        assert plain[0] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["missing.py"], 2, "can't open file"),
        (["."], 1, "is a folder"),
        (["-m", "no_such_module"], 1, "No module named no_such_module"),
        ([], 2, "nothing to run"),
        (["--flag"], 2, "unrecognized arguments: --flag"),
    ],
)
def test_nothing_to_run(arguments, code, message, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mltoolkit", *arguments], capture_output=True, text=True, cwd=tmp_path, timeout=60
    )
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_functions_of_the_program_are_pickled_by_value(tmp_path):
    done = run_script(
        """
        import cloudpickle

        def f():
            return 1

        print(b"cloudpickle" in cloudpickle.dumps(f))
        """,
        tmp_path,
        python_args=("-m", "mltoolkit"),
    )
    assert done.stdout == "True\n"
