"""The public names: what the facade offers, and that it is called as programs written for Ray 2.x call it."""

from __future__ import annotations

import importlib
import inspect
import pickle
import types

import pytest

import mltoolkit as ray

FACADE = [
    "init",
    "shutdown",
    "is_initialized",
    "remote",
    "get",
    "put",
    "wait",
    "cancel",
    "kill",
    "get_actor",
    "method",
    "nodes",
    "cluster_resources",
    "available_resources",
    "get_gpu_ids",
    "get_runtime_context",
    "ObjectRef",
    "ObjectRefGenerator",
]

# Name (several where it changed within 2.x), kind and default of the public parameters in Ray 2.x.
# P: positional or keyword, K: keyword-only.
REQUIRED = inspect.Parameter.empty
P, K = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
SIGNATURES = {
    "init": [
        ("address", P, None),
        ("num_cpus", K, None),
        ("num_gpus", K, None),
        ("resources", K, None),
        ("object_store_memory", K, None),
        ("local_mode", K, False),
        ("ignore_reinit_error", K, False),
        ("log_to_driver", K, ...),
        ("include_dashboard", K, ...),
        ("logging_level", K, ...),
        ("namespace", K, None),
        ("runtime_env", K, None),
    ],
    "shutdown": [],
    "is_initialized": [],
    "get": [("object_refs", P, REQUIRED), ("timeout", K, None)],
    "put": [("value", P, REQUIRED)],
    "wait": [
        ("ray_waitables|object_refs", P, REQUIRED),
        ("num_returns", K, 1),
        ("timeout", K, None),
        ("fetch_local", K, True),
    ],
    "cancel": [("ray_waitable|object_ref", P, REQUIRED), ("force", K, False), ("recursive", K, True)],
    "kill": [("actor", P, REQUIRED), ("no_restart", K, True)],
    "get_actor": [("name", P, REQUIRED), ("namespace", P, None)],
    "nodes": [],
    "cluster_resources": [],
    "available_resources": [],
    "get_gpu_ids": [],
    "get_runtime_context": [],
    "util.placement_group.placement_group": [
        ("bundles", P, REQUIRED),
        ("strategy", P, ...),
        ("name", P, ""),
        ("lifetime", P, None),
    ],
    "util.placement_group.remove_placement_group": [("placement_group", P, REQUIRED)],
    "util.placement_group.get_placement_group": [("placement_group_name", P, REQUIRED)],
    "util.placement_group.placement_group_table": [("placement_group", P, None)],
    "util.placement_group.get_current_placement_group": [],
    "util.scheduling_strategies.PlacementGroupSchedulingStrategy": [
        ("placement_group", P, REQUIRED),
        ("placement_group_bundle_index", P, -1),
        ("placement_group_capture_child_tasks", P, None),
    ],
    "util.scheduling_strategies.NodeAffinitySchedulingStrategy": [("node_id", P, REQUIRED), ("soft", P, ...)],
}

EXCEPTIONS = {
    "RayError": [Exception],
    "RayTaskError": ["RayError"],
    "RayActorError": ["RayError"],
    "ActorDiedError": ["RayActorError"],
    "ActorUnavailableError": ["RayActorError"],
    "ActorUnschedulableError": ["RayError"],
    "ActorAlreadyExistsError": [ValueError, "RayError"],
    "ActorHandleNotFoundError": [ValueError, "RayError"],
    "GetTimeoutError": ["RayError", TimeoutError],
    "NodeDiedError": ["RayError"],
    "ObjectLostError": ["RayError"],
    "ObjectFreedError": ["ObjectLostError"],
    "ObjectReconstructionFailedError": ["ObjectLostError"],
    "ObjectFetchTimedOutError": ["ObjectLostError"],
    "OwnerDiedError": ["ObjectLostError"],
    "ObjectStoreFullError": ["RayError"],
    "OutOfDiskError": ["RayError"],
    "OutOfMemoryError": ["RayError"],
    "PendingCallsLimitExceeded": ["RayError"],
    "RaySystemError": ["RayError"],
    "RuntimeEnvSetupError": ["RayError"],
    "TaskCancelledError": ["RayError"],
    "TaskPlacementGroupRemoved": ["RayError"],
    "ActorPlacementGroupRemoved": ["RayError"],
    "TaskUnschedulableError": ["RayError"],
    "WorkerCrashedError": ["RayError"],
}


def find(path):
    """The object a dotted path names; modules win over attributes of the same name."""
    module, _, name = f"mltoolkit.{path}".rpartition(".")
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("name", FACADE)
def test_facade_has_rays_names(name):
    assert callable(getattr(ray, name))


@pytest.mark.parametrize("name", ["exceptions", "actor", "util"])
def test_submodules_are_there_without_an_import_of_their_own(name):
    assert isinstance(getattr(ray, name), types.ModuleType)


@pytest.mark.skipif(ray.__name__ != "mltoolkit", reason="about our facade")
def test_all_is_what_is_visible():
    assert set(FACADE) | {"exceptions", "actor", "util", "__version__"} <= set(ray.__all__)
    assert len(ray.__all__) == len(set(ray.__all__))
    for name in ray.__all__:
        assert hasattr(ray, name), name
    public = {
        name
        for name, value in vars(ray).items()
        if not name.startswith("_") and getattr(value, "__module__", "").startswith("mltoolkit")
    }
    assert public <= set(ray.__all__), public - set(ray.__all__)


@pytest.mark.skipif(ray.__name__ != "mltoolkit", reason="about our facade")
@pytest.mark.parametrize("name", FACADE)
def test_public_names_are_documented(name):
    assert inspect.getdoc(getattr(ray, name))


@pytest.mark.parametrize("path", SIGNATURES)
def test_signatures_are_rays(path):
    parameters = inspect.signature(find(path)).parameters
    expected = [
        (next((n for n in names.split("|") if n in parameters), names), kind, default)
        for names, kind, default in SIGNATURES[path]
    ]
    wanted = [n for n, kind, _ in expected if kind is P]
    assert [n for n, p in parameters.items() if p.kind is P][: len(wanted)] == wanted
    for name, kind, default in expected:
        assert name in parameters, name
        assert parameters[name].kind is kind, name
        if default is not ...:
            assert parameters[name].default == default, name
    for name, parameter in parameters.items():
        extra = name not in {n for n, _, _ in expected} and parameter.kind is not inspect.Parameter.VAR_KEYWORD
        assert not (extra and parameter.default is REQUIRED), f"{name} is required, Ray has no such parameter"


@pytest.mark.skipif(ray.__name__ != "mltoolkit", reason="ours alone")
def test_init_attaches_to_dask():
    parameters = inspect.signature(ray.init).parameters
    assert parameters["cluster"].kind is K
    assert parameters["client"].kind is K


@pytest.mark.parametrize("name", EXCEPTIONS)
def test_exceptions_have_rays_names_and_bases(name):
    kind = getattr(ray.exceptions, name)
    for base in EXCEPTIONS[name]:
        assert issubclass(kind, getattr(ray.exceptions, base) if isinstance(base, str) else base)


@pytest.mark.skipif(ray.__name__ != "mltoolkit", reason="some of Ray's take no text")
@pytest.mark.parametrize("name", sorted(set(EXCEPTIONS) - {"RayTaskError"}))
def test_exceptions_survive_pickling(name):
    kind = getattr(ray.exceptions, name)
    error = kind("what happened")
    error.add_note("and where")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error)
    assert "what happened" in str(again)


def test_refs_have_rays_methods():
    for name in ["hex", "binary", "is_nil", "future", "task_id"]:
        assert callable(getattr(ray.ObjectRef, name)), name
    for name in ("completed", "is_finished"):
        assert hasattr(ray.ObjectRefGenerator, name), name


def test_runtime_context_has_rays_methods(runtime):
    context = ray.get_runtime_context()
    names = [
        "get_job_id",
        "get_node_id",
        "get_task_id",
        "get_task_name",
        "get_actor_id",
        "get_actor_name",
        "get_worker_id",
        "get_assigned_resources",
        "get_placement_group_id",
        "get_runtime_env_string",
        "get_accelerator_ids",
        "namespace",
        "was_current_actor_reconstructed",
        "should_capture_child_tasks_in_placement_group",
        "is_canceled",
    ]
    missing = [n for n in names if not hasattr(type(context), n)]
    assert missing == []


def test_remote_functions_and_classes_have_options(runtime):
    @ray.remote
    def f():
        return 1

    @ray.remote
    class A:
        def ping(self):
            return 1

    for thing in (f, A):
        assert callable(thing.remote)
        assert callable(thing.options)
        assert callable(thing.options(num_cpus=1).remote)
    assert callable(A.remote().ping.options)
    assert isinstance(A.remote(), ray.actor.ActorHandle)


TASK_OPTIONS = {
    "num_cpus": 1,
    "num_gpus": 0,
    "memory": 1 << 20,
    "resources": {},
    "num_returns": 1,
    "max_retries": 1,
    "retry_exceptions": True,
    "max_calls": 1,
    "name": "named",
    "runtime_env": {"env_vars": {"A": "b"}},
    "scheduling_strategy": "SPREAD",
}
ACTOR_OPTIONS = {
    "num_cpus": 1,
    "num_gpus": 0,
    "memory": 1 << 20,
    "resources": {},
    "max_restarts": 1,
    "max_task_retries": 1,
    "max_concurrency": 2,
    "concurrency_groups": {"io": 1},
    "name": "surface",
    "namespace": "surface",
    "lifetime": "non_detached",
    "get_if_exists": False,
    "runtime_env": {"env_vars": {"A": "b"}},
    "scheduling_strategy": "SPREAD",
}


@pytest.mark.parametrize("option", TASK_OPTIONS)
def test_task_options_are_taken_by_decorator_and_options(runtime, option):
    given = {option: TASK_OPTIONS[option]}

    def f():
        return "ran"

    assert ray.get(ray.remote(**given)(f).remote(), timeout=30) == "ran"
    if option != "max_calls":  # set once per function, in Ray as well
        assert ray.get(ray.remote(f).options(**given).remote(), timeout=30) == "ran"


@pytest.mark.parametrize("option", ACTOR_OPTIONS)
def test_actor_options_are_taken_by_options(runtime, option):
    class A:
        def ping(self):
            return "ran"

    given = {option: ACTOR_OPTIONS[option]}
    if option == "get_if_exists":
        given["name"] = "surface-get"
    if option == "concurrency_groups":  # part of the class, in Ray as well
        assert ray.get(ray.remote(**given)(A).remote().ping.remote(), timeout=30) == "ran"
    else:
        assert ray.get(ray.remote(A).options(**given).remote().ping.remote(), timeout=30) == "ran"


@pytest.mark.skipif(ray.__name__ != "mltoolkit", reason="Ray has these")
@pytest.mark.parametrize("option", ["label_selector", "fallback_strategy", "accelerator_type"])
def test_options_of_ray_that_are_not_honoured_say_so(runtime, option):
    with pytest.raises((NotImplementedError, ValueError, TypeError), match=option):
        ray.remote(lambda: 1).options(**{option: "something"}).remote()
