"""mltoolkit.util: every name resolves, functions hide no modules, importing costs nothing."""

from __future__ import annotations

import types

import helpers
import pytest

import mltoolkit
import mltoolkit.util


@pytest.mark.parametrize("name", mltoolkit.util.__all__)
def test_every_public_name_resolves(name):
    assert getattr(mltoolkit.util, name) is not None
    assert name in dir(mltoolkit.util)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_tool"):
        mltoolkit.util.no_such_tool  # noqa: B018


def test_submodules_resolve_without_being_imported():
    assert isinstance(mltoolkit.util.queue, types.ModuleType)
    assert mltoolkit.util.queue.Queue.__name__ == "Queue"
    assert mltoolkit.util.multiprocessing.Pool.__name__ == "Pool"


@pytest.mark.parametrize(
    "source",
    [
        "import mltoolkit; function = mltoolkit.util.placement_group",
        "import mltoolkit.util; function = mltoolkit.util.placement_group",
        "from mltoolkit.util import placement_group as function",
        "from mltoolkit.util.placement_group import placement_group as function",
        "import mltoolkit.util.placement_group; function = mltoolkit.util.placement_group",
        "import mltoolkit; mltoolkit.util.remove_placement_group; function = mltoolkit.util.placement_group",
    ],
)
def test_placement_group_is_the_function_and_the_module(tmp_path, source):
    program = f"""
import sys
{source}
assert callable(function) and not isinstance(function, type(sys)), function
from mltoolkit.util.placement_group import PlacementGroup, placement_group, remove_placement_group
import mltoolkit
assert mltoolkit.util.placement_group is placement_group is function
assert mltoolkit.util.remove_placement_group is remove_placement_group
"""
    helpers.run_script(program, tmp_path)


def test_importing_the_package_loads_no_tool(tmp_path):
    program = """
import sys
import mltoolkit.util
tools = ("queue", "multiprocessing", "actor_pool", "check_serialize", "joblib")
loaded = [name for name in sys.modules if name.startswith("mltoolkit.util.") and name.split(".")[2] in tools]
assert not loaded, loaded
assert "joblib" not in sys.modules and "torch" not in sys.modules
"""
    helpers.run_script(program, tmp_path)


@pytest.mark.parametrize(
    "first", ["queue", "multiprocessing", "actor_pool", "helpers", "serialization", "check_serialize"]
)
def test_any_module_may_be_imported_first(tmp_path, first):
    helpers.run_script(f"import mltoolkit.util.{first}", tmp_path)


def test_node_address():
    address = mltoolkit.util.get_node_ip_address()
    assert address.count(".") == 3 or ":" in address
    assert mltoolkit.util.get_node_ip_address("127.0.0.1:9") == "127.0.0.1"
    with pytest.raises(ValueError, match="host:port"):
        mltoolkit.util.get_node_ip_address("127.0.0.1")


def test_log_once(monkeypatch):
    from mltoolkit.util import debug

    monkeypatch.setattr(debug, "_memory", debug._Memory())
    clock = [0.0]
    monkeypatch.setattr(debug.time, "monotonic", lambda: clock[0])
    assert [debug.log_once("a"), debug.log_once("a"), debug.log_once("b")] == [True, False, True]
    debug.reset_log_once("a")
    assert [debug.log_once("a"), debug.log_once("b")] == [True, False]
    debug.enable_periodic_logging()
    assert not debug.log_once("a")
    clock[0] = 61.0
    assert [debug.log_once("a"), debug.log_once("a")] == [True, False]
    debug.reset_log_once()
    assert debug.log_once("a")
    debug.disable_log_once_globally()
    assert not debug.log_once("something new")


def test_named_actors(runtime):
    ray = runtime

    @ray.remote(num_cpus=0)
    class Named:
        def ping(self):
            return "pong"

    actor = Named.options(name="listed", namespace="other-namespace").remote()
    here = Named.options(name="listed-here").remote()
    assert ray.get([actor.ping.remote(), here.ping.remote()]) == ["pong", "pong"]
    assert "listed-here" in ray.util.list_named_actors()
    assert "listed" not in ray.util.list_named_actors()
    everywhere = ray.util.list_named_actors(all_namespaces=True)
    assert {"name": "listed", "namespace": "other-namespace"} in everywhere
    ray.kill(here)
    helpers.wait_until(lambda: "listed-here" not in ray.util.list_named_actors(), 10, "the ended actor is unlisted")
    ray.kill(actor)


def test_seeding_reaches_libraries_that_are_imported_later(tmp_path):
    source = """
        import sys, random
        from mltoolkit.util import seed_everything

        seed_everything(5)
        assert "numpy" not in sys.modules
        import numpy as np

        first = random.random(), np.random.rand()
        seed_everything(5)
        print(first == (random.random(), np.random.rand()))
        """
    assert helpers.run_script(source, tmp_path).stdout == "True\n"
    with pytest.raises(ValueError, match="-1"):
        mltoolkit.util.seed_everything(-1)
