"""`init`, `shutdown` and what a program can learn about the cluster."""

from __future__ import annotations

import gc
import os
import threading

import pytest
from helpers import family, leftovers, run_script, segment_folder, wait_until

import mltoolkit as ray

needs_mltoolkit = pytest.mark.skipif(ray.__name__ != "mltoolkit", reason="about our own processes and files")


@ray.remote
def one():
    return 1


# -- init and shutdown ----------------------------------------------------------------------------------------------


def test_init_twice_is_a_runtime_error(fresh):
    ray.init(num_cpus=1)
    with pytest.raises(RuntimeError, match="ignore_reinit_error"):
        ray.init(num_cpus=1)
    assert ray.get(one.remote()) == 1
    ray.init(num_cpus=3, ignore_reinit_error=True)
    assert ray.cluster_resources()["CPU"] == 1


def test_is_initialized(fresh):
    assert not ray.is_initialized()
    ray.init(num_cpus=1)
    assert ray.is_initialized()
    ray.shutdown()
    assert not ray.is_initialized()
    ray.shutdown()


def test_unknown_arguments_of_init_are_refused(fresh):
    with pytest.raises((TypeError, RuntimeError), match="num_cpu_cores"):
        ray.init(num_cpu_cores=1)
    assert not ray.is_initialized()


@pytest.mark.parametrize("bad", [{"num_cpus": -1}, {"resources": {"CPU": 2}}, {"num_cpus": "two"}], ids=str)
def test_impossible_arguments_of_init_are_refused(fresh, bad):
    with pytest.raises((TypeError, ValueError, RuntimeError)):
        ray.init(**bad)
    assert not ray.is_initialized()


def test_context_manager_ends_the_runtime(fresh):
    with ray.init(num_cpus=1) as context:
        assert ray.is_initialized()
        assert context is not None
        assert ray.get(one.remote()) == 1
    assert not ray.is_initialized()


@pytest.mark.parametrize(
    "call",
    [
        lambda: ray.get(one.remote()),
        lambda: ray.get(ray.put(1)),
        lambda: ray.wait([]),
    ],
    ids=["task", "put", "wait"],
)
def test_first_call_initialises_by_itself(fresh, call):
    call()
    assert ray.is_initialized()


def test_actor_initialises_by_itself(fresh):
    @ray.remote
    class A:
        def ping(self):
            return "up"

    assert ray.get(A.remote().ping.remote()) == "up"


def test_functions_work_again_in_the_next_session(fresh):
    @ray.remote
    class A:
        def ping(self):
            return "up"

    for cpus in (1, 2):
        ray.init(num_cpus=cpus)
        assert ray.cluster_resources()["CPU"] == cpus
        assert ray.get(one.remote()) == 1
        assert ray.get(A.remote().ping.remote()) == "up"
        ray.shutdown()


@needs_mltoolkit
def test_what_belongs_to_an_ended_session_is_unusable_with_a_clear_error(fresh):
    @ray.remote
    class A:
        def ping(self):
            return "up"

    ray.init(num_cpus=1)
    ref, put, actor = one.remote(), ray.put(1), A.remote()
    ray.get([ref, actor.ping.remote()])
    ray.shutdown()
    for again in (False, True):
        if again:
            ray.shutdown()  # a call in between may have initialised by itself
            ray.init(num_cpus=1)
        for use in (
            lambda: ray.get(ref, timeout=10),
            lambda: ray.get(put, timeout=10),
            lambda: ray.wait([ref], timeout=10),
            lambda: ray.get(actor.ping.remote(), timeout=10),
        ):
            with pytest.raises((ray.exceptions.RayError, RuntimeError, ValueError), match=r"(?i)session|shut ?down"):
                use()
    assert ray.get(one.remote()) == 1


@needs_mltoolkit
def test_getter_blocked_in_a_thread_is_released_by_shutdown(fresh, gate):
    ray.init(num_cpus=1)
    never, errors = gate("never"), []

    @ray.remote
    def wait():
        return never.wait()

    ref = wait.remote()

    def block():
        try:
            ray.get(ref)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=block)
    thread.start()
    assert ray.wait([ref], timeout=0.2) == ([], [ref])
    ray.shutdown()
    thread.join(10)
    assert not thread.is_alive()
    assert isinstance(errors[0], Exception)


@needs_mltoolkit
def test_nothing_is_left_after_shutdown(fresh, monkeypatch, tmp_path):
    import numpy as np

    threads = set(threading.enumerate())
    before = {p.pid for p in family()}
    ray.init(num_cpus=2)

    @ray.remote
    class A:
        def __init__(self):
            self.array = ray.put(np.ones(1 << 20))

        def pid(self):
            return os.getpid()

    actors = [A.remote() for _ in range(3)]
    refs = [ray.put(np.zeros(1 << 20)) for _ in range(3)] + [a.pid.remote() for a in actors]
    ray.get(refs)
    assert [p for p in family() if p.pid not in before], "nothing had been started"
    ray.shutdown()
    assert not [p for p in family() if p.pid not in before]
    assert not leftovers(segment_folder(), os.environ["MLTOOLKIT_TMPDIR"])
    del refs, actors
    gc.collect()
    wait_until(lambda: not [t for t in set(threading.enumerate()) - threads if t.name.startswith("mltoolkit")], 5)


@needs_mltoolkit
def test_embedded_mode_listens_on_no_port_and_keeps_its_folder_private(fresh):
    import psutil

    ray.init(num_cpus=2)
    ray.get(one.remote())
    for process in [psutil.Process(), *family()]:
        listening = [c for c in process.net_connections(kind="inet") if c.status == psutil.CONN_LISTEN]
        assert listening == [], process
    top = os.environ["MLTOOLKIT_TMPDIR"]
    folders = [os.path.join(top, name) for name in os.listdir(top)]
    assert folders, "the session has no folder"
    for folder in folders:
        assert os.stat(folder).st_mode & 0o077 == 0, folder
        for path, _, names in os.walk(folder):
            for name in names:
                mode = os.lstat(os.path.join(path, name)).st_mode
                assert mode & 0o077 == 0, name


@needs_mltoolkit
def test_no_executor_before_the_first_call(fresh):
    before = {p.pid for p in family()}
    ray.init(num_cpus=8)
    assert len([p for p in family() if p.pid not in before]) <= 2


@needs_mltoolkit
def test_default_places_are_clean_too(tmp_path):
    run_script(
        """
        import glob, os, tempfile, numpy as np, mltoolkit as ray

        def look():
            tops = ["/dev/shm", tempfile.gettempdir()]
            found = [p for t in tops for p in glob.glob(f"{t}/*mltoolkit*") + glob.glob(f"{t}/*mltoolkit*/*")]
            return [p for p in found if str(os.getpid()) in p]

        assert not look()
        ray.init(num_cpus=1)
        ref = ray.put(np.zeros(1 << 20))
        assert {p.split("/")[1] for p in look()} >= {"dev"}, "no segment of ours in shared memory"
        ray.get(ray.remote(lambda x: 1).remote(ref))
        ray.shutdown()
        assert not look(), look()
        """,
        tmp_path,
        env={"MLTOOLKIT_TMPDIR": None, "MLTOOLKIT_SHM_DIR": None},
    )


# -- what there is --------------------------------------------------------------------------------------------------


def test_nodes_and_resources(fresh):
    ray.init(num_cpus=3, num_gpus=2, resources={"slot": 2})
    (node,) = ray.nodes()
    assert node["Alive"] is True
    assert node["NodeID"]
    assert node["Resources"]["CPU"] == 3
    total = ray.cluster_resources()
    assert (total["CPU"], total["GPU"], total["slot"]) == (3, 2, 2)
    assert total["memory"] > 0
    assert total["object_store_memory"] > 0
    assert ray.available_resources()["CPU"] == 3


def test_default_cpus_are_those_of_the_process(fresh):
    ray.init()
    assert 1 <= ray.cluster_resources()["CPU"] <= len(os.sched_getaffinity(0))


@needs_mltoolkit
def test_affinity_and_batch_system_limit_the_cpus(tmp_path):
    source = """
        import os, mltoolkit as ray
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        ray.init()
        print(int(ray.cluster_resources()["CPU"]))
        """
    assert run_script(source, tmp_path).stdout.split() == ["1"]
    source = "import mltoolkit as ray\nray.init()\nprint(int(ray.cluster_resources()['CPU']))"
    assert run_script(source, tmp_path, env={"SLURM_CPUS_PER_TASK": "1", "SLURM_JOB_ID": "7"}).stdout.split() == ["1"]


def test_runtime_context(fresh):
    ray.init(num_cpus=2, namespace="here")
    context = ray.get_runtime_context()
    assert context.namespace == "here"
    assert context.get_job_id()
    assert context.get_node_id() == ray.nodes()[0]["NodeID"]
    assert context.get_actor_id() is None

    @ray.remote
    class A:
        def look(self):
            inner = ray.get_runtime_context()
            return inner.get_actor_id(), inner.get_job_id(), inner.get_assigned_resources(), inner.namespace

    actor_id, job_id, resources, namespace = ray.get(A.options(num_cpus=2).remote().look.remote())
    assert actor_id
    assert job_id == context.get_job_id()
    assert resources["CPU"] == 2
    assert namespace == "here"

    @ray.remote(num_cpus=0.5)
    def look():
        return ray.get_runtime_context().get_assigned_resources()

    assert ray.get(look.remote())["CPU"] == 0.5


@needs_mltoolkit
def test_context_has_an_html_representation(fresh):
    context = ray.init(num_cpus=2)
    html = context._repr_html_()
    assert "<" in html
    assert "CPU" in html


@needs_mltoolkit
def test_dashboard_on_request(fresh):
    pytest.importorskip("bokeh")
    import urllib.request

    context = ray.init(num_cpus=1, include_dashboard=True)
    url = context.dashboard_url
    assert "127.0.0.1" in url or "localhost" in url
    url = url if url.startswith("http") else f"http://{url}"
    with urllib.request.urlopen(url, timeout=20) as answer:
        assert answer.status == 200
