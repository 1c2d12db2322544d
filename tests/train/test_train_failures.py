"""Which failure is the cause, and ranks that wait for each other for ever."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mltoolkit.exceptions import ActorDiedError, RayTaskError
from mltoolkit.train import WorkerGroupError
from mltoolkit.train._internal import failures
from mltoolkit.train._internal.failures import StallWatch, collect_failures, make_error
from mltoolkit.train._internal.worker import Probe, WorkerInfo
from mltoolkit.train._internal.worker_group import Ranks, Worker


def workers(count):
    return [
        Worker(SimpleNamespace(), WorkerInfo(100 + r, "host", "n", ""), Ranks(count, r, count, r, 0))
        for r in range(count)
    ]


def raised(error):
    return RayTaskError("f", f"Traceback of {error!r}", error, 1, "host")


def test_a_broken_connection_is_not_the_cause(runtime):
    broken = raised(RuntimeError("[gloo/transport/tcp/pair.cc] Connection closed by peer"))
    own = raised(ValueError("mine"))
    died = ActorDiedError("signal 9")
    assert collect_failures({0: broken, 2: own}, {}) == {2: own}
    assert collect_failures({0: broken, 1: died}, {}) == {1: died}
    assert collect_failures({0: broken}, {}, grace_s=0) == {0: broken}

    @runtime.remote
    def fail():
        raise KeyError("the first")

    found = collect_failures({0: broken}, {0: None, 1: fail.remote()}, grace_s=20)
    assert list(found) == [1] and isinstance(found[1], KeyError)


def test_the_error_names_rank_process_and_traceback():
    error = make_error({1: raised(ValueError("mine")), 2: ActorDiedError("killed by signal 9")}, workers(3))
    assert isinstance(error, WorkerGroupError)
    text = str(error)
    assert "Rank 1 of 3 (pid 101 on host) raised ValueError: mine" in text and "Traceback of ValueError" in text
    assert "Rank 2 of 3 (pid 102 on host) died: killed by signal 9" in text
    assert isinstance(error.worker_failures[1], ValueError)


class FakeActor:
    """Answers `probe` with a list of answers, the last one again and again."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.probe = self

    def remote(self):
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.fixture
def watched(monkeypatch):
    """A watch over fake workers, and a function that lets a second pass and looks."""
    monkeypatch.setattr(failures.mltoolkit, "get", lambda refs, timeout=None: list(refs))

    def make(actors, after_s=3.0):
        now = [0.0]
        group = [Worker(actor, each.info, each.ranks) for actor, each in zip(actors, workers(len(actors)), strict=True)]
        watch = StallWatch(group, after_s, clock=lambda: now[0])

        def look(at_rest, seconds=10):
            for _ in range(seconds):
                now[0] += 1.0
                found = watch.check(at_rest)
                if found:
                    return found
            return {}

        return look

    return make


def test_ranks_that_wait_for_one_that_has_ended(watched):
    look = watched([FakeActor(Probe(1, False, "")), FakeActor(Probe(5.0, True, "train.py:7 in loop"))])
    found = look({0: "has ended"})
    assert list(found) == [1]
    assert (
        "train.py:7" in str(found[1]) and "rank 0 has ended" in str(found[1]) and "number of batches" in str(found[1])
    )


def test_a_rank_that_computes_or_sleeps_is_waited_for(watched):
    busy = FakeActor(*[Probe(float(second), True, "") for second in range(100)])
    assert watched([FakeActor(Probe(0, False, "")), busy])({0: "has ended"}) == {}
    sleeping = FakeActor(Probe(1.0, False, ""))
    assert watched([FakeActor(Probe(0, False, "")), sleeping])({0: "has ended"}) == {}
    stuck = FakeActor(Probe(1.0, True, ""))
    assert watched([busy, stuck])({}) == {}, "one rank is behind, the other waits for it"
    assert list(watched([stuck, FakeActor(Probe(1.0, True, ""))])({})) == [0, 1]
