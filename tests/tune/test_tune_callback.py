import pickle
import time

import pytest

from mltoolkit.tune.callback import Callback, CallbackList
from mltoolkit.tune.error import StorageError, TuneError
from mltoolkit.tune.experiment.trial import Trial

TRIAL = Trial("abc_00000", "train", {})

EVENTS = {
    "on_step_begin": {"iteration": 1, "trials": [TRIAL]},
    "on_step_end": {"iteration": 1, "trials": [TRIAL]},
    "on_trial_start": {"iteration": 1, "trials": [TRIAL], "trial": TRIAL},
    "on_trial_restore": {"iteration": 1, "trials": [TRIAL], "trial": TRIAL},
    "on_trial_save": {"iteration": 1, "trials": [TRIAL], "trial": TRIAL},
    "on_trial_result": {"iteration": 1, "trials": [TRIAL], "trial": TRIAL, "result": {"loss": 1}},
    "on_trial_complete": {"iteration": 1, "trials": [TRIAL], "trial": TRIAL},
    "on_trial_recover": {"iteration": 1, "trials": [TRIAL], "trial": TRIAL},
    "on_trial_error": {"iteration": 1, "trials": [TRIAL], "trial": TRIAL},
    "on_checkpoint": {"iteration": 1, "trials": [TRIAL], "trial": TRIAL, "checkpoint": object()},
    "on_experiment_end": {"trials": [TRIAL]},
}


def recorder(hook, calls, label=""):
    """A callback that overrides `hook` alone."""

    def record(self, **info):
        calls.append((label, hook, info))

    return type("Recorder", (Callback,), {hook: record})()


@pytest.mark.parametrize("hook", EVENTS)
def test_each_hook_reaches_those_who_override_it_in_their_order(hook):
    calls = []
    callbacks = CallbackList([recorder(hook, calls, "first"), Callback(), recorder(hook, calls, "second")])
    for event, info in EVENTS.items():
        getattr(callbacks, event)(**info)
    assert calls == [("first", hook, EVENTS[hook]), ("second", hook, EVENTS[hook])]


@pytest.mark.parametrize("hook", EVENTS)
def test_an_exception_names_callback_hook_and_trial(hook):
    def fail(self, **info):
        raise KeyError("val_loss")

    callbacks = CallbackList([type("MyCallback", (Callback,), {hook: fail})()])
    with pytest.raises(TuneError, match=f"`MyCallback` failed in `{hook}`.*KeyError: 'val_loss'") as raised:
        getattr(callbacks, hook)(**EVENTS[hook])
    assert isinstance(raised.value.__cause__, KeyError)
    assert ("train_abc_00000" in str(raised.value)) == ("trial" in EVENTS[hook])


def test_arguments_reach_hooks_by_keyword_however_they_were_passed():
    calls = []

    class Swapped(Callback):
        def on_trial_result(self, result, trial, **info):
            calls.append((result, trial, info))

    CallbackList([Swapped()]).on_trial_result(4, [TRIAL], TRIAL, {"loss": 1})
    assert calls == [({"loss": 1}, TRIAL, {"iteration": 4, "trials": [TRIAL]})]


def test_errors_of_tune_and_interrupts_pass_unchanged():
    error = StorageError("no space left")

    class Fails(Callback):
        def on_trial_start(self, **info):
            raise error

        def on_trial_result(self, **info):
            raise KeyboardInterrupt

    callbacks = CallbackList([Fails()])
    with pytest.raises(StorageError) as raised:
        callbacks.on_trial_start(**EVENTS["on_trial_start"])
    assert raised.value is error
    with pytest.raises(KeyboardInterrupt):
        callbacks.on_trial_result(**EVENTS["on_trial_result"])


def test_the_end_of_the_experiment_reaches_all_even_if_one_fails():
    calls = []

    class Fails(Callback):
        def on_experiment_end(self, **info):
            raise ValueError("server gone")

    callbacks = CallbackList([Fails(), recorder("on_experiment_end", calls)])
    with pytest.raises(TuneError, match="`Fails` failed in `on_experiment_end`.*server gone"):
        callbacks.on_experiment_end(trials=[TRIAL])
    assert len(calls) == 1


def test_setup_gets_what_it_takes():
    seen = []

    class Bare(Callback):
        def setup(self):
            seen.append("bare")

    class Some(Callback):
        def setup(self, stop=None, num_samples=None):
            seen.append(num_samples)

    class All(Callback):
        def setup(self, stop=None, num_samples=None, total_num_samples=None, **info):
            seen.append((total_num_samples, info))

    CallbackList([Bare(), Some(), All()]).setup(stop=None, num_samples=2, total_num_samples=8, name="sweep")
    assert seen == ["bare", 2, (8, {"name": "sweep"})]


def test_a_type_error_inside_of_setup_is_not_hidden():
    class Broken(Callback):
        def setup(self, **info):
            len(5)

    with pytest.raises(TuneError, match=r"`Broken` failed in `setup`: TypeError: object of type 'int' has no len"):
        CallbackList([Broken()]).setup()


def test_only_instances_of_callbacks_are_taken():
    with pytest.raises(TypeError, match=r"got the class `Callback`: write `Callback\(\)`"):
        CallbackList([Callback])
    with pytest.raises(TypeError, match="got 'csv'"):
        CallbackList(["csv"])


class Counter(Callback):
    def __init__(self):
        self.count = 0

    def on_trial_result(self, **info):
        self.count += 1

    def get_state(self):
        return {"count": self.count}

    def set_state(self, state):
        self.count = state["count"]


def test_state_goes_to_the_callback_it_came_from():
    callbacks = CallbackList([Callback(), Counter()])
    callbacks.on_trial_result(**EVENTS["on_trial_result"])
    state = pickle.loads(pickle.dumps(callbacks.get_state()))

    restored = CallbackList([Callback(), Counter()])
    restored.set_state(state)
    assert restored[1].count == 1
    assert CallbackList([Callback()]).get_state() is None
    assert len(restored) == 2


def test_hooks_that_nobody_overrides_cost_next_to_nothing():
    callbacks = CallbackList([Callback() for _ in range(20)])
    info = EVENTS["on_trial_result"]
    start = time.perf_counter()
    for _ in range(10_000):
        callbacks.on_trial_result(**info)
    assert time.perf_counter() - start < 0.2  # of one second, at 10,000 results per second; measured: 0.004
