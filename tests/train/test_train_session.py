"""Reporting: every spelling, what becomes of values, what is refused, and how little it costs."""

from __future__ import annotations

import collections
import enum
import math
import threading
import time
from types import MappingProxyType

import pytest

from mltoolkit import train
from mltoolkit.air import session as air_session
from mltoolkit.train import Checkpoint, _session
from mltoolkit.train._session import current_session, plain_metrics, set_session


class Recorder:
    """A session that keeps what it is given."""

    context = "context of the trial"

    def __init__(self):
        self.reports = []
        self.checkpoint = None

    def report(self, metrics, checkpoint):
        self.reports.append((metrics, checkpoint))

    def get_checkpoint(self):
        return self.checkpoint


@pytest.fixture
def session():
    recorder = Recorder()
    set_session(recorder)
    yield recorder
    set_session(None)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: train.report({"a": 1}), "report"),
        (train.get_checkpoint, "get_checkpoint"),
        (train.get_context, "get_context"),
        (air_session.get_trial_id, "get_context"),
    ],
)
def test_outside_a_trial(call, name):
    assert current_session() is None
    with pytest.raises(RuntimeError, match=rf"`{name}\(\)` may be called only while a trial .* runs: in the function"):
        call()


@pytest.mark.parametrize(
    "report",
    [
        lambda checkpoint: train.report({"loss": 0.5, "epoch": 1}, checkpoint=checkpoint),
        lambda checkpoint: train.report(metrics={"loss": 0.5, "epoch": 1}, checkpoint=checkpoint),
        lambda checkpoint: train.report(loss=0.5, epoch=1, checkpoint=checkpoint),
        lambda checkpoint: train.report({"loss": 0.5}, epoch=1, checkpoint=checkpoint),
        lambda checkpoint: air_session.report(MappingProxyType({"loss": 0.5, "epoch": 1}), checkpoint=checkpoint),
    ],
)
def test_spellings(session, report):
    for checkpoint in (None, Checkpoint("/x")):
        report(checkpoint)
        assert session.reports.pop() == ({"loss": 0.5, "epoch": 1}, checkpoint)


@pytest.mark.parametrize("report", [lambda: train.report(0.5), lambda: train.report(_metric=0.5)])
def test_oldest_spelling_is_a_bare_number(session, report):
    report()
    assert session.reports == [({"_metric": 0.5}, None)]


def test_what_is_handed_on_is_a_copy(session):
    metrics = {"a": 1, "nested": {"b": 2}}
    train.report(metrics)
    metrics["a"] = metrics["nested"]["b"] = 0
    assert session.reports == [({"a": 1, "nested": {"b": 2}}, None)]


def test_checkpoint_alone(session):
    checkpoint = Checkpoint("/x")
    train.report({}, checkpoint=checkpoint)
    train.report(checkpoint=checkpoint)
    assert session.reports == [({}, checkpoint)] * 2
    with pytest.raises(TypeError, match=r"`checkpoint` must be a Checkpoint, got '/x'.*from_directory"):
        train.report({"a": 1}, checkpoint="/x")


def test_what_ray_can_do_beside_is_refused_by_name(session):
    checkpoint = Checkpoint("/x")
    train.report({"a": 1}, checkpoint, None, train.CheckpointUploadMode.SYNC, False)
    assert session.reports.pop() == ({"a": 1}, checkpoint)
    for name, value in {
        "checkpoint_dir_name": "epoch1",
        "checkpoint_upload_mode": train.CheckpointUploadMode.ASYNC,
        "checkpoint_upload_fn": print,
        "validation": True,
    }.items():
        with pytest.raises(NotImplementedError, match=rf"`report\({name}=.*is not supported: "):
            train.report({"a": 1}, checkpoint=checkpoint, **{name: value})
    assert session.reports == []


def test_local_checkpoint_goes_if_asked_to(session, tmp_path):
    for deletes in (False, True):
        train.report({"a": 1}, Checkpoint(tmp_path), delete_local_checkpoint_after_upload=deletes)
        assert tmp_path.exists() is not deletes


def test_nothing_to_report(session):
    for call in (train.report, lambda: train.report({}), lambda: train.report(None)):
        with pytest.raises(ValueError, match=r"report\(\) was given no metrics"):
            call()
    assert session.reports == []


@pytest.mark.parametrize("bad", ["loss", [0.5], (1, 2), {1, 2}, object()])
def test_metrics_must_be_a_dict(session, bad):
    with pytest.raises(
        TypeError, match=f"Metrics must be a dict of names and values, got .* of type {type(bad).__name__}"
    ):
        train.report(bad)
    assert session.reports == []


def test_checkpoint_and_context(session):
    assert train.get_checkpoint() is None
    session.checkpoint = Checkpoint("/x")
    assert train.get_checkpoint() == air_session.get_checkpoint() == Checkpoint("/x")
    assert train.get_context() == "context of the trial"


def test_session_belongs_to_the_process(session):
    thread = threading.Thread(target=lambda: train.report(epoch=1))
    thread.start()
    thread.join()
    assert session.reports == [({"epoch": 1}, None)]


def test_older_session_functions_ask_the_context(session):
    class Context:
        def __getattr__(self, name):
            return lambda: f"<{name}>"

    session.context = Context()
    others = ("report", "get_checkpoint", "get_dataset_shard")  # these take arguments, or ask the session itself
    names = [name for name in air_session.__all__ if name not in others]
    assert len(names) == 10
    for name in names:
        assert getattr(air_session, name)() == f"<{name}>"


class Color(enum.IntEnum):
    RED = 3


class Name(enum.StrEnum):
    A = "a"


def test_numpy_becomes_plain():
    np = pytest.importorskip("numpy")
    metrics = {
        "float": np.float32(0.5),
        "int": np.int64(3),
        "bool": np.bool_(True),
        "text": np.str_("a"),
        "array0": np.array(1.5),
        "array1": np.array([[2]]),
        "nested": {"deep": {"x": np.float64(1.0)}},
        "list": [np.int8(1), (np.float16(0.5),)],
        np.str_("key"): None,
    }
    plain = plain_metrics(metrics)
    assert plain == {
        "float": 0.5,
        "int": 3,
        "bool": True,
        "text": "a",
        "array0": 1.5,
        "array1": 2,
        "nested": {"deep": {"x": 1.0}},
        "list": [1, (0.5,)],
        "key": None,
    }
    kinds = [float, int, bool, str, float, int, dict, list, type(None)]
    assert [type(value) for value in plain.values()] == kinds
    assert {type(key) for key in plain} == {str}
    assert type(plain["nested"]["deep"]["x"]) is float
    assert [type(value) for value in (plain["list"][0], plain["list"][1][0])] == [int, float]
    extended = plain_metrics({"x": np.longdouble(0.5)})["x"]
    assert extended == 0.5 and type(extended) is float
    array = np.arange(3)
    assert plain_metrics({"many": array})["many"] is array
    assert plain_metrics(np.float32(0.5)) == {"_metric": 0.5}


def test_torch_becomes_plain():
    torch = pytest.importorskip("torch")
    loss = torch.tensor(2.0, requires_grad=True) * 2
    plain = plain_metrics({"loss": loss, "one": torch.tensor([3])})
    assert plain == {"loss": 4.0, "one": 3}
    assert [type(value) for value in plain.values()] == [float, int]


def test_other_values():
    plain = plain_metrics({"color": Color.RED, "name": Name.A, 3: math.inf, True: "x"})
    assert plain == {"color": 3, "name": "a", "3": math.inf, "True": "x"}
    assert (type(plain["color"]), type(plain["name"])) == (int, str)
    assert plain_metrics({"set": {1, 2}, "complex": 1j}) == {"set": {1, 2}, "complex": 1j}
    point = collections.namedtuple("Point", "x y")(Color.RED, [Name.A])
    assert repr(plain_metrics({"point": point})) == "{'point': (3, ['a'])}"
    assert math.isnan(plain_metrics({"nan": math.nan})["nan"])


def test_names_must_be_texts():
    with pytest.raises(TypeError, match=r"Names of metrics must be texts, got \('a', 1\) of type tuple in 'eval'"):
        plain_metrics({"eval": {("a", 1): 2}})
    with pytest.raises(TypeError, match="got None of type NoneType.$"):
        plain_metrics({None: 2})


def test_values_that_cannot_be_stored_are_named(session):
    for metrics in ({"eval": {"lock": threading.Lock()}}, {"eval/lock": [threading.Lock()]}):
        with pytest.raises(TypeError, match="The metric 'eval/lock' cannot be stored: a lock cannot be pickled"):
            train.report(metrics)
    with pytest.raises(TypeError, match="The metric 'made' cannot be stored: a generator"):
        train.report(made=(x for x in ()))
    assert session.reports == []


def test_metrics_that_contain_themselves():
    metrics = {"a": 1}
    metrics["self"] = metrics
    with pytest.raises(ValueError, match="contain themselves"):
        plain_metrics(metrics)


def test_five_floats_cost_less_than_five_microseconds(session, monkeypatch):
    monkeypatch.setattr(session, "report", lambda metrics, checkpoint: None)
    metrics = dict.fromkeys("abcde", 0.5)
    report, rounds = _session.report, 2000

    def once():
        start = time.perf_counter()
        for _ in range(rounds):
            report(metrics)
        return (time.perf_counter() - start) / rounds

    assert min(once() for _ in range(15)) < 5e-6
