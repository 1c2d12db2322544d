"""How a failure in user code reaches the caller: its class, its cause, its text."""

from __future__ import annotations

import pickle
import threading

import pytest

import mltoolkit as ray
from mltoolkit.exceptions import RayError, RayTaskError, TaskCancelledError

pytestmark = pytest.mark.usefixtures("runtime")


class NoArguments(Exception):
    def __init__(self):
        super().__init__("made without arguments")


class TwoArguments(Exception):
    def __init__(self, code, text):
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text


class Rebuildable(TwoArguments):
    def __reduce__(self):
        return type(self), (self.code, self.text)


class KeywordOnly(Exception):
    def __init__(self, *, reason):
        super().__init__(reason)
        self.reason = reason


class WithLock(Exception):
    def __init__(self, text):
        super().__init__(text)
        self.lock = threading.Lock()


class CannotBeRebuilt(Exception):
    def __reduce__(self):
        return CannotBeRebuilt._fail, ()

    @staticmethod
    def _fail():
        raise RuntimeError("cannot be rebuilt")


class ReadOnlyArgs(Exception):
    @property
    def args(self):
        return ("fixed",)


class Final(Exception):
    def __init_subclass__(cls, **kwargs):
        raise TypeError("Final is final")


class OddStr(Exception):
    def __str__(self):
        raise RuntimeError("no text for you")


class SlotsOnly(Exception):
    __slots__ = ("number",)

    def __init__(self, number):
        super().__init__(number)
        self.number = number


def failing(make):
    @ray.remote(max_retries=0)
    def fail():
        raise make()

    return fail.remote()


def test_error_is_both_a_task_error_and_the_users_class():
    @ray.remote
    def divide(x):
        return x / 0

    with pytest.raises(ZeroDivisionError) as caught:
        ray.get(divide.remote(1))
    error = caught.value
    assert isinstance(error, RayTaskError)
    assert isinstance(error, RayError)
    assert isinstance(error.cause, ZeroDivisionError)
    assert not isinstance(error.cause, RayTaskError)
    text = str(error)
    assert "divide" in text
    assert "Traceback" in text or "return x / 0" in text
    assert "return x / 0" in text
    assert "pid=" in text


@pytest.mark.parametrize("make", [NoArguments, lambda: TwoArguments(3, "three"), lambda: KeywordOnly(reason="why")])
def test_classes_with_constructors_of_their_own_arrive_with_their_text(make):
    expected = make()
    with pytest.raises(RayTaskError) as caught:
        ray.get(failing(make))
    assert str(expected) in str(caught.value)
    assert type(expected).__name__ in str(caught.value)


def test_attributes_of_the_error_are_there():
    with pytest.raises(Rebuildable) as caught:
        ray.get(failing(lambda: Rebuildable(3, "three")))
    assert caught.value.cause.code == 3
    assert caught.value.code == 3
    assert caught.value.text == "three"


def test_class_local_to_the_task_arrives_as_a_task_error_with_its_name():
    @ray.remote
    def fail():
        class Local(ValueError):
            pass

        raise Local("inside")

    with pytest.raises(ValueError, match="inside") as caught:
        ray.get(fail.remote())
    assert isinstance(caught.value, RayTaskError)
    assert "Local" in str(caught.value)


@pytest.mark.parametrize(
    "make", [lambda: WithLock("has a lock"), CannotBeRebuilt, ReadOnlyArgs, Final, OddStr, lambda: SlotsOnly(5)]
)
def test_awkward_exceptions_still_arrive(make):
    with pytest.raises(RayError) as caught:
        ray.get(failing(make), timeout=30)
    assert isinstance(caught.value, RayTaskError)
    assert type(make()).__name__ in str(caught.value)
    assert "fail" in str(caught.value)


@pytest.mark.parametrize("make", [lambda: WithLock("has a lock"), CannotBeRebuilt, ReadOnlyArgs, Final])
def test_awkward_exceptions_arrive_through_nested_tasks_and_actors(make):
    @ray.remote
    class A:
        def fail(self):
            raise make()

    @ray.remote
    def outer():
        return ray.get(failing(make))

    @ray.remote
    def through_an_actor():
        a = A.remote()
        return ray.get(a.fail.remote())

    for ref in (outer.remote(), through_an_actor.remote()):
        with pytest.raises(RayTaskError) as caught:
            ray.get(ref, timeout=30)
        assert type(make()).__name__ in str(caught.value)


def test_error_through_nested_tasks_keeps_the_users_class():
    @ray.remote
    def outer():
        return ray.get(failing(lambda: Rebuildable(1, "deep")))

    with pytest.raises(Rebuildable, match="deep") as caught:
        ray.get(outer.remote())
    assert isinstance(caught.value, RayTaskError)
    assert "outer" in str(caught.value)
    assert "fail" in str(caught.value)


def test_task_can_catch_the_error_of_its_child_by_class():
    @ray.remote
    def outer():
        try:
            ray.get(failing(lambda: KeyError("child")))
        except KeyError:
            return "caught"

    assert ray.get(outer.remote()) == "caught"


def test_dependents_of_a_failed_task_do_not_run_and_fail_alike(tally):
    ran = tally()

    @ray.remote
    def dependent(x):
        ran.add()
        return x

    first = failing(lambda: ValueError("root"))
    last = dependent.remote(dependent.remote(first))
    with pytest.raises(ValueError, match="root") as caught:
        ray.get(last)
    assert isinstance(caught.value, RayTaskError)
    assert "fail" in str(caught.value)
    assert ran.count() == 0


def test_actor_call_with_a_failed_argument_fails_and_the_actor_lives():
    @ray.remote
    class A:
        def echo(self, x):
            return x

    a = A.remote()
    with pytest.raises(ValueError, match="root"):
        ray.get(a.echo.remote(failing(lambda: ValueError("root"))))
    assert ray.get(a.echo.remote(1)) == 1


def test_explicit_cause_and_context_are_in_the_text():
    @ray.remote
    def fail():
        try:
            raise KeyError("first")
        except KeyError as error:
            raise RuntimeError("second") from error

    with pytest.raises(RuntimeError, match="second") as caught:
        ray.get(fail.remote())
    assert "KeyError" in str(caught.value)


def test_exception_group_and_except_star():
    @ray.remote
    def fail():
        raise ExceptionGroup(
            "several", [ValueError("one"), TypeError("two"), ExceptionGroup("in", [KeyError("three")])]
        )

    @ray.remote
    def outer():
        return ray.get(fail.remote())

    for ref in (fail.remote(), outer.remote()):
        with pytest.raises(ExceptionGroup) as caught:
            ray.get(ref)
        assert isinstance(caught.value, RayTaskError)
        caught_types = []
        try:
            ray.get(ref)
        except* ValueError as group:
            caught_types.append([type(e) for e in group.exceptions])
        except* (TypeError, KeyError) as group:
            caught_types.append(len(group.exceptions))
        assert caught_types == [[ValueError], 2]


def test_base_exceptions_of_the_user_travel():
    class Stop(BaseException):
        pass

    @ray.remote(max_retries=0)
    def fail():
        raise Stop("enough")

    with pytest.raises(RayError, match="enough") as caught:
        ray.get(fail.remote(), timeout=30)
    assert isinstance(caught.value, RayTaskError)

    @ray.remote
    def alive():
        return 1

    assert ray.get(alive.remote()) == 1


def test_keyboard_interrupt_in_a_task_is_a_cancellation():
    with pytest.raises(TaskCancelledError):
        ray.get(failing(KeyboardInterrupt), timeout=30)


def test_system_exit_is_a_crash():
    with pytest.raises(ray.exceptions.WorkerCrashedError):
        ray.get(failing(lambda: SystemExit(3)), timeout=30)


def test_error_can_be_raised_twice_and_stays_readable():
    ref = failing(lambda: ValueError("again"))
    texts = []
    for _ in range(2):
        with pytest.raises(ValueError, match="again") as caught:
            ray.get(ref)
        texts.append(str(caught.value))
    assert texts[0] == texts[1]


def test_error_can_be_pickled_and_returned():
    @ray.remote
    def give_back():
        try:
            ray.get(failing(lambda: Rebuildable(1, "kept")))
        except Rebuildable as error:
            return error

    error = ray.get(give_back.remote())
    assert isinstance(error, Rebuildable)
    assert isinstance(error, RayTaskError)
    with pytest.raises(Rebuildable):
        ray.get(failing(lambda: Rebuildable(1, "kept")))
    again = pickle.loads(pickle.dumps(ray.exceptions.WorkerCrashedError("died")))
    assert isinstance(again, ray.exceptions.WorkerCrashedError)


def test_exception_returned_as_a_value_is_not_raised():
    @ray.remote
    def give():
        return ValueError("a value")

    value = ray.get(give.remote())
    assert isinstance(value, ValueError)
    assert ray.get(ray.put(KeyError("x"))).args == ("x",)


def test_stop_iteration_and_assertions_arrive():
    for kind in (StopIteration, AssertionError, NotImplementedError, UnicodeError, TimeoutError):
        with pytest.raises(kind):
            ray.get(failing(lambda kind=kind: kind("x")))
    with pytest.raises(UnicodeDecodeError):
        ray.get(failing(lambda: UnicodeDecodeError("utf8", b"x", 0, 1, "bad")))


def test_error_of_a_task_nobody_gets_disturbs_nothing(tally):
    refs = [failing(lambda: ValueError("unseen")) for _ in range(5)]
    ray.wait(refs, num_returns=5)
    del refs

    @ray.remote
    def fine():
        return 1

    assert ray.get(fine.remote()) == 1
