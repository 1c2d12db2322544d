"""The progress bar: what it says at the end, whatever runs the calls."""

import inspect
import re
import threading

import pytest

joblib = pytest.importorskip("joblib")

from helpers import wait_until  # noqa: E402
from joblib import Parallel, delayed, parallel_config  # noqa: E402

from mltoolkit.util.joblib import register_ray  # noqa: E402

register_ray()


def inc(x):
    return x + 1


def invert(x):
    return 1 / x


@pytest.fixture
def shown(runtime, capsys):
    """What was drawn last, once the bar has ended."""

    def read():
        name = "mltoolkit-progress"
        wait_until(lambda: all(t.name != name for t in threading.enumerate()), 10, "the bar ends")
        return re.findall(r"calls .*?(\d+)/(\d+|\?)", capsys.readouterr().err)

    return read


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize("batch_size", ["auto", 4])
@pytest.mark.parametrize("with_length", [True, False])
def test_all_calls_are_counted(shown, n_jobs, batch_size, with_length):
    calls = [delayed(inc)(i) for i in range(23)]
    with parallel_config("mltoolkit", n_jobs=n_jobs, progress=True):
        assert Parallel(batch_size=batch_size)(calls if with_length else iter(calls)) == list(range(1, 24))
    assert shown()[-1] == ("23", "23")


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_managed_parallel_shows_each_call(shown, n_jobs):
    with parallel_config("mltoolkit", progress=True), Parallel(n_jobs=n_jobs) as parallel:
        for n in (3, 5):
            parallel(delayed(inc)(i) for i in range(n))
            assert shown()[-1] == (str(n), str(n))


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_generators(shown, n_jobs):
    with parallel_config("mltoolkit", n_jobs=n_jobs, progress=True):
        assert list(Parallel(return_as="generator")(delayed(inc)(i) for i in range(7))) == list(range(1, 8))
    assert shown()[-1] == ("7", "7")


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_the_bar_ends_with_an_error(shown, n_jobs):
    with parallel_config("mltoolkit", n_jobs=n_jobs, progress=True), pytest.raises(ZeroDivisionError):
        Parallel()(delayed(invert)(i) for i in range(5))
    assert int(shown()[-1][0]) < 5


def test_quiet_unless_asked(shown):
    with parallel_config("mltoolkit", n_jobs=2):
        Parallel()(delayed(inc)(i) for i in range(5))
    assert shown() == []


def test_an_option_of_one_parallel(shown):
    if not any(p.kind is p.VAR_KEYWORD for p in inspect.signature(Parallel).parameters.values()):
        pytest.skip("this joblib takes options of backends in `parallel_config` only")
    Parallel(n_jobs=2, backend="mltoolkit", progress=True)(delayed(inc)(i) for i in range(4))
    assert shown()[-1] == ("4", "4")
