"""``joblib.Parallel`` on tasks: joblib's contract, call by call."""

import functools
import os
import threading
import time
import warnings
import weakref

import pytest

joblib = pytest.importorskip("joblib")
np = pytest.importorskip("numpy")

from helpers import wait_until  # noqa: E402
from joblib import Parallel, delayed, parallel_backend, parallel_config  # noqa: E402

import mltoolkit  # noqa: E402
from mltoolkit.util.joblib import RemoteTraceback, register_ray  # noqa: E402

register_ray()

FLOATS_1MB = 2**17  # of 8 bytes


@pytest.fixture(autouse=True)
def on_mltoolkit(runtime):
    with parallel_config("mltoolkit"):
        yield


def inc(x):
    return x + 1


def whoami(_):
    return os.getpid()


def span(_, seconds):
    start = time.monotonic()
    time.sleep(seconds)
    return start, time.monotonic()


def peak(spans):
    """How many of the spans overlap at most."""
    edges = sorted([(start, 1) for start, _ in spans] + [(end, -1) for _, end in spans])
    return max(np.cumsum([step for _, step in edges]))


class TestSelection:
    @pytest.mark.parametrize("name", ["mltoolkit", "ray"])
    @pytest.mark.parametrize("choose", [parallel_config, parallel_backend])
    def test_names(self, name, choose):
        with choose(name):
            pids = Parallel(n_jobs=2)(delayed(whoami)(i) for i in range(4))
        assert os.getpid() not in pids

    def test_argument_of_parallel(self):
        assert os.getpid() not in Parallel(n_jobs=2, backend="ray")(delayed(whoami)(i) for i in range(4))

    def test_one_instance_serves_many_calls_at_a_time(self):
        numbers = Parallel(n_jobs=2, return_as="generator")(delayed(inc)(i) for i in range(20))
        others = Parallel(n_jobs=2, return_as="generator")(delayed(inc)(i) for i in range(100, 120))
        assert list(zip(numbers, others, strict=True)) == [(i + 1, i + 101) for i in range(20)]

    def test_by_default_it_uses_all_cpus(self):
        n_cpus = int(mltoolkit.cluster_resources()["CPU"])
        assert joblib.effective_n_jobs(-1) == n_cpus
        assert joblib.effective_n_jobs(-2) == n_cpus - 1
        assert joblib.effective_n_jobs(3) == 3
        assert Parallel().n_jobs == -1
        with pytest.raises(ValueError, match="got 0"):
            Parallel(n_jobs=0)([delayed(inc)(1)])

    def test_cpus_of_a_batch_bound_the_number_of_jobs(self):
        with parallel_config("mltoolkit", ray_remote_args={"num_cpus": 2}):
            assert joblib.effective_n_jobs(-1) == int(mltoolkit.cluster_resources()["CPU"]) // 2

    def test_unknown_options_are_refused(self):
        with pytest.raises(TypeError, match="colour"):
            parallel_config("mltoolkit", colour="red")
        with pytest.raises(TypeError, match="colour"):
            Parallel(n_jobs=2, colour="red")([delayed(inc)(1)])
        with pytest.raises(ValueError, match="max_retries.*repeated once"):
            parallel_config("mltoolkit", ray_remote_args={"max_retries": 4})
        with pytest.raises((ValueError, TypeError), match="colour"):
            parallel_config("mltoolkit", ray_remote_args={"colour": "red"})

    def test_options_of_joblib_that_do_not_apply_are_said_to(self):
        with pytest.warns(UserWarning, match="temp_folder.*object store"):
            assert Parallel(n_jobs=2, temp_folder="somewhere")([delayed(inc)(1)]) == [2]
        with pytest.raises(ValueError, match=r"mmap_mode.*got\s+'r\+'"):
            Parallel(n_jobs=2, mmap_mode="r+")([delayed(inc)(1)])

    def test_one_job_runs_here(self):
        assert Parallel(n_jobs=1)(delayed(whoami)(i) for i in range(3)) == [os.getpid()] * 3

    def test_shared_memory_is_left_to_threads(self):
        assert Parallel(n_jobs=2, require="sharedmem")(delayed(whoami)(i) for i in range(3)) == [os.getpid()] * 3


class TestResults:
    @pytest.mark.parametrize("batch_size", ["auto", 1, 7])
    @pytest.mark.parametrize("pre_dispatch", ["2 * n_jobs", "all", 1, "3*n_jobs"])
    def test_order(self, batch_size, pre_dispatch):
        calls = (delayed(inc)(i) for i in range(50))
        assert Parallel(n_jobs=3, batch_size=batch_size, pre_dispatch=pre_dispatch)(calls) == list(range(1, 51))

    def test_no_calls(self):
        assert Parallel(n_jobs=2)([]) == []

    def test_a_thousand_tiny_calls_become_few_tasks(self, monkeypatch):
        from mltoolkit.util.joblib import _call, _worker

        n_tasks = 0

        def order(*args):
            nonlocal n_tasks
            n_tasks += 1
            return _worker.Order(*args)

        monkeypatch.setattr(_call, "Order", order)
        assert Parallel(n_jobs=2)(delayed(inc)(i) for i in range(1000)) == list(range(1, 1001))
        assert n_tasks < 100

    def test_lambdas_closures_partials_and_methods(self):
        offset = 5

        def add(x, by=offset):
            return x + by + offset

        assert Parallel(n_jobs=2)([delayed(add)(1), delayed(lambda: offset)()]) == [11, 5]
        assert Parallel(n_jobs=2)([delayed(functools.partial(add, 1))(by=2), delayed("abc".upper)()]) == [8, "ABC"]

    def test_large_results_are_writable_and_their_own(self):
        arrays = Parallel(n_jobs=2)(delayed(np.full)(FLOATS_1MB, float(i)) for i in range(4))
        for i, array in enumerate(arrays):
            assert array[0] == i
            array[0] = -1.0

    def test_a_managed_parallel_is_called_again_and_again(self):
        with Parallel(n_jobs=2) as parallel:
            for start in range(5):
                assert parallel(delayed(inc)(i) for i in range(start, start + 10)) == list(range(start + 1, start + 11))

    def test_references_and_actors_are_arguments_like_others(self):
        @mltoolkit.remote
        class Counter:
            def __init__(self):
                self.n = 0

            def add(self, by):
                self.n += by
                return self.n

        def use(ref, counter):
            return mltoolkit.get(ref), mltoolkit.get(counter.add.remote(1)), mltoolkit.put("result")

        counter = Counter.remote()
        results = Parallel(n_jobs=2)(delayed(use)(mltoolkit.put(i), counter) for i in range(3))
        assert [value for value, _, _ in results] == [0, 1, 2]
        assert sorted(n for _, n, _ in results) == [1, 2, 3]
        assert mltoolkit.get([ref for _, _, ref in results]) == ["result"] * 3
        assert mltoolkit.get(counter.add.remote(0)) == 3


class TestConcurrency:
    def test_all_cpus_are_used(self, tally):
        present = tally()

        def meet():
            present.add()
            wait_until(lambda: present.count() >= 4, 30)
            return True

        assert Parallel(n_jobs=4, batch_size=1)(delayed(meet)() for _ in range(4)) == [True] * 4

    def test_not_more_than_asked_for(self):
        spans = Parallel(n_jobs=2, batch_size=1)(delayed(span)(i, 0.05) for i in range(12))
        assert peak(spans) <= 2

    def test_not_more_than_the_cluster_has(self):
        spans = Parallel(n_jobs=100, batch_size=1)(delayed(span)(i, 0.05) for i in range(20))
        assert peak(spans) <= int(mltoolkit.cluster_resources()["CPU"])

    def test_a_batch_of_long_calls_is_shared_out(self, monkeypatch):
        from mltoolkit.util.joblib import _call

        monkeypatch.setattr(_call, "BUDGET_S", 0.05)
        n_quick = 40
        seconds = [0.001] * n_quick + [0.2] * 8
        spans = Parallel(n_jobs=4)(delayed(span)(i, s) for i, s in enumerate(seconds))
        assert len(spans) == len(seconds)
        assert [round(end - start, 1) for start, end in spans[n_quick:]] == [0.2] * 8
        assert peak(spans[n_quick:]) > 1

    def test_a_batch_size_that_was_asked_for_is_kept(self, monkeypatch):
        from mltoolkit.util.joblib import _call

        monkeypatch.setattr(_call, "BUDGET_S", 0.0)
        pids = Parallel(n_jobs=4, batch_size=10, pre_dispatch="all")(delayed(whoami)(i) for i in range(40))
        assert [len(set(pids[i : i + 10])) for i in range(0, 40, 10)] == [1] * 4


class TestNested:
    def test_a_batch_of_one_cpu_runs_nested_calls_in_its_own_thread(self):
        def outer(n_jobs):
            inner = Parallel(n_jobs=n_jobs)(delayed(lambda: (os.getpid(), threading.get_ident()))() for _ in range(4))
            return len(set(inner)), inner[0] == (os.getpid(), threading.get_ident()), joblib.effective_n_jobs(n_jobs)

        assert Parallel(n_jobs=2)(delayed(outer)(n) for n in (1, 2, -1)) == [(1, True, 1)] * 3

    def test_a_batch_of_two_cpus_runs_nested_calls_in_two_threads(self):
        def outer():
            barrier = threading.Barrier(2)
            inner = Parallel(n_jobs=-1)(delayed(lambda: (os.getpid(), barrier.wait(20)))() for _ in range(2))
            return {pid for pid, _ in inner} == {os.getpid()}, joblib.effective_n_jobs(8)

        with parallel_config("mltoolkit", ray_remote_args={"num_cpus": 2}):
            assert Parallel(n_jobs=2)(delayed(outer)() for _ in range(2)) == [(True, 2)] * 2

    def test_three_levels(self):
        def leaf(i):
            return i

        def middle(i):
            return Parallel(n_jobs=2)(delayed(leaf)(10 * i + j) for j in range(2))

        def top(i):
            return Parallel(n_jobs=2)(delayed(middle)(10 * i + j) for j in range(2))

        assert Parallel(n_jobs=2)(delayed(top)(i) for i in range(2)) == [[[0, 1], [10, 11]], [[100, 101], [110, 111]]]

    def test_threads_of_libraries_can_be_set(self):
        threadpoolctl = pytest.importorskip("threadpoolctl")

        def n_threads():
            np.zeros((2, 2)) @ np.zeros((2, 2))
            return {pool["num_threads"] for pool in threadpoolctl.threadpool_info()}

        with parallel_config("mltoolkit", inner_max_num_threads=1):
            assert Parallel(n_jobs=2)(delayed(n_threads)() for _ in range(2)) == [{1}] * 2


class TestArrays:
    @pytest.fixture
    def puts(self, monkeypatch):
        """Sizes of what is put during the test."""
        sizes = []
        put = mltoolkit.put
        monkeypatch.setattr(mltoolkit, "put", lambda value: sizes.append(getattr(value, "nbytes", 0)) or put(value))
        return sizes

    def test_a_large_array_is_put_once_and_read_only(self, puts):
        array = np.arange(float(FLOATS_1MB))

        def total(x, i, nested):
            return x.sum() + i, x.flags.writeable, nested["x"] is x

        calls = [delayed(total)(array, i, {"x": array}) for i in range(30)]
        assert Parallel(n_jobs=2)(calls) == [(array.sum() + i, False, True) for i in range(30)]
        assert puts == [array.nbytes]

    def test_each_call_puts_it_again_and_sees_its_content(self, puts):
        array = np.zeros(FLOATS_1MB)
        with Parallel(n_jobs=2) as parallel:
            for value in range(3):
                array[5] = value
                assert parallel(delayed(np.sum)(array) for _ in range(4)) == [value] * 4
        assert len(puts) == 3

    def test_changes_within_a_call_are_seen(self):
        array = np.zeros(FLOATS_1MB)

        def calls():
            for value in range(20):
                array[7] = value
                yield delayed(np.sum)(array.copy() if value % 2 else array)

        # One call at a time, so that joblib takes each from the iterable only when the one before has ended.
        assert Parallel(n_jobs=2, pre_dispatch=1, batch_size=1)(calls())[1::2] == list(range(1, 20, 2))

    @pytest.mark.parametrize("options", [{"max_nbytes": None}, {"mmap_mode": None}, {"mmap_mode": "c"}])
    def test_writable_copies(self, options):
        array = np.zeros(2 * FLOATS_1MB)

        def write(x):
            x[0] += 1.0
            return x[0]

        assert Parallel(n_jobs=2, batch_size=1, **options)(delayed(write)(array) for _ in range(4)) == [1.0] * 4
        assert array[0] == 0.0

    def test_the_size_from_which_arrays_are_shared(self, puts):
        array = np.zeros(1000)

        def writeable(x):
            return x.flags.writeable

        assert Parallel(n_jobs=2)(delayed(writeable)(array) for _ in range(2)) == [True] * 2
        assert not puts
        assert Parallel(n_jobs=2, max_nbytes="1K")(delayed(writeable)(array) for _ in range(2))
        assert len(puts) == 1

    @pytest.mark.parametrize("outcome", ["results", "error", "abandoned"])
    def test_shared_arrays_are_let_go(self, monkeypatch, outcome):
        refs = []
        put = mltoolkit.put

        def watched(value):
            ref = put(value)
            refs.append(weakref.ref(ref))
            return ref

        monkeypatch.setattr(mltoolkit, "put", watched)
        array = np.zeros(FLOATS_1MB)

        def use(x, i):
            if outcome == "error" and i == 3:
                raise KeyError(i)
            return x[i]

        calls = (delayed(use)(array, i) for i in range(20))
        if outcome == "results":
            assert Parallel(n_jobs=2)(calls) == [0.0] * 20
        elif outcome == "error":
            with pytest.raises(KeyError):
                Parallel(n_jobs=2)(calls)
        else:
            generator = Parallel(n_jobs=2, return_as="generator")(calls)
            next(generator)
            assert refs[0]() is not None
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # joblib tells how much was not used
                del generator
        assert len(refs) == 1
        wait_until(lambda: refs[0]() is None, 10, "the shared array is let go")


class OddError(Exception):
    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")
        self.second = second


class TestErrors:
    @staticmethod
    def fail_at(position, error):
        def call(i):
            if i == position:
                raise error
            return i

        return (delayed(call)(i) for i in range(20))

    @pytest.mark.parametrize(
        "error", [ZeroDivisionError("by zero"), KeyError("name"), OSError(2, "gone"), SystemExit(3)]
    )
    def test_own_type_and_traceback(self, error):
        with pytest.raises(type(error)) as caught:
            Parallel(n_jobs=2)(self.fail_at(7, error))
        assert type(caught.value) is type(error)
        assert caught.value.args == error.args
        cause = caught.value.__cause__
        assert isinstance(cause, RemoteTraceback)
        assert "call 7, `TestErrors.fail_at.<locals>.call`" in str(cause)
        assert "raise error" in str(cause)

    def test_an_error_that_cannot_be_rebuilt_still_arrives(self):
        def call(i):
            raise OddError("this", "that")

        with pytest.raises(Exception, match="this and that") as caught:
            Parallel(n_jobs=2)(delayed(call)(i) for i in range(5))
        assert "OddError" in str(caught.value)

    def test_an_argument_that_cannot_be_rebuilt(self):
        with pytest.raises(TypeError, match="second") as caught:
            Parallel(n_jobs=2)([delayed(str)(OddError("this", "that"))])
        assert "unpickling a batch" in str(caught.value.__cause__)

    def test_an_argument_that_cannot_be_pickled(self):
        with pytest.raises(Exception, match="Call 1, `inc`, cannot be pickled.*lock"):
            Parallel(n_jobs=2, batch_size=2)([delayed(inc)(1), delayed(inc)(threading.Lock())])

    def test_a_result_that_cannot_be_pickled(self):
        with pytest.raises(Exception, match="result of call 2, `.*`, is a lock that cannot be pickled"):
            Parallel(n_jobs=2, batch_size=4)(delayed(lambda i: i if i != 2 else threading.Lock())(i) for i in range(4))

    def test_an_error_of_the_iterable(self):
        def calls():
            for i in range(10):
                if i == 8:
                    raise LookupError("no more")
                yield delayed(inc)(i)

        with pytest.raises(LookupError, match="no more"):
            Parallel(n_jobs=2)(calls())

    def test_it_goes_on_working_after_an_error(self):
        with Parallel(n_jobs=2) as parallel:
            with pytest.raises(ZeroDivisionError):
                parallel(self.fail_at(0, ZeroDivisionError()))
            assert parallel(delayed(inc)(i) for i in range(10)) == list(range(1, 11))

    def test_an_error_stops_the_rest(self, tally):
        ran = tally()

        def call(i):
            ran.add(i)
            if i == 0:
                raise ZeroDivisionError
            time.sleep(0.05)

        with pytest.raises(ZeroDivisionError):
            Parallel(n_jobs=2, pre_dispatch="all", batch_size=1)(delayed(call)(i) for i in range(200))
        self.nothing_runs()
        assert ran.count() < 50

    def test_a_timeout_stops_what_runs(self):
        start = time.monotonic()
        with pytest.raises(joblib.parallel.TimeoutError):
            Parallel(n_jobs=2, timeout=0.3)(delayed(span)(i, 60) for i in range(4))
        assert time.monotonic() - start < 10
        self.nothing_runs()

    @staticmethod
    def nothing_runs():
        n_cpus = mltoolkit.cluster_resources()["CPU"]
        wait_until(lambda: mltoolkit.available_resources().get("CPU") == n_cpus, 20, "all CPUs are free again")
        wait_until(
            lambda: not [t for t in threading.enumerate() if t.name == "mltoolkit-joblib"], 10, "no thread is left"
        )


class TestGenerators:
    def test_ordered(self):
        results = Parallel(n_jobs=2, return_as="generator")(delayed(inc)(i) for i in range(60))
        assert list(results) == list(range(1, 61))

    def test_unordered(self):
        results = Parallel(n_jobs=2, return_as="generator_unordered")(delayed(inc)(i) for i in range(60))
        assert sorted(results) == list(range(1, 61))

    def test_results_come_while_others_run(self, gate):
        last = gate()

        def call(i):
            return last.wait() if i == 5 else i

        results = Parallel(n_jobs=2, return_as="generator", batch_size=1)(delayed(call)(i) for i in range(6))
        assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
        last.open()
        assert next(results) is True

    def test_unordered_results_overtake(self, gate):
        first = gate()

        def call(i):
            return i if i else first.wait() and i

        calls = (delayed(call)(i) for i in range(6))
        results = Parallel(n_jobs=2, return_as="generator_unordered", batch_size=1)(calls)
        assert sorted(next(results) for _ in range(5)) == [1, 2, 3, 4, 5]
        first.open()
        assert list(results) == [0]

    @pytest.mark.parametrize("return_as", ["generator", "generator_unordered"])
    def test_a_slow_consumer_holds_the_work_back(self, tally, return_as):
        ran = tally()
        window, n_calls = 4, 100

        def call(i):
            ran.add(i)
            return i

        results = Parallel(n_jobs=2, return_as=return_as, pre_dispatch=window)(delayed(call)(i) for i in range(n_calls))
        taken = []
        for result in results:
            taken.append(result)
            if len(taken) <= 10:
                # The slow consumer: wait until the rest has gone as far as it may, and see that this is not far.
                wait_until(lambda: ran.count() >= min(len(taken) + window - 1, n_calls), 20)
                time.sleep(0.1)  # longer than a quick consumer takes
                assert ran.count() <= len(taken) + window
        assert sorted(taken) == list(range(n_calls))

    def test_an_abandoned_generator_stops_the_work(self, tally):
        ran = tally()

        def call(i):
            ran.add(i)
            time.sleep(0.02)

        results = Parallel(n_jobs=2, return_as="generator", pre_dispatch="all", batch_size=1)(
            delayed(call)(i) for i in range(500)
        )
        next(results)
        with pytest.warns(UserWarning, match="cancelled"):
            del results
        TestErrors.nothing_runs()
        assert ran.count() < 100

    def test_an_error_comes_in_its_place(self):
        results = Parallel(n_jobs=2, return_as="generator", batch_size=1)(TestErrors.fail_at(0, KeyError("first")))
        with pytest.raises(KeyError, match="first"):
            next(results)


def test_the_iterable_is_taken_lazily(gate):
    closed = gate()
    taken = []

    def calls():
        for i in range(100):
            taken.append(i)
            yield delayed(closed.wait)()

    results = Parallel(n_jobs=2, pre_dispatch=4, return_as="generator", batch_size=1)(calls())
    assert len(taken) <= 5
    closed.open()
    assert list(results) == [True] * 100


def test_inside_a_task_its_cpu_is_given_back(fresh):
    fresh.init(num_cpus=1)

    @mltoolkit.remote
    def outer(depth, return_as):
        with parallel_config("mltoolkit"):
            if depth:
                ref = outer.remote(depth - 1, return_as)
                calls = [delayed(mltoolkit.get)(ref), *(delayed(inc)(i) for i in range(5))]
                return list(Parallel(n_jobs=3, return_as=return_as)(calls))
            return list(Parallel(n_jobs=3, return_as=return_as)(delayed(inc)(i) for i in range(5)))

    for return_as in ("list", "generator"):
        result = mltoolkit.get(outer.remote(1, return_as), timeout=60)
        assert result == [[1, 2, 3, 4, 5], 1, 2, 3, 4, 5]


def test_the_runtime_starts_by_itself(fresh):
    assert not mltoolkit.is_initialized()
    with parallel_config("mltoolkit"):
        assert Parallel(n_jobs=2)(delayed(inc)(i) for i in range(3)) == [1, 2, 3]
    assert mltoolkit.is_initialized()


def test_a_bug_in_the_backend_ends_the_call(runtime, monkeypatch):
    from mltoolkit.util.joblib import _call

    def broken(self, part, future):
        raise RuntimeError("a bug")

    monkeypatch.setattr(_call.ParallelCall, "_take_in", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        Parallel(n_jobs=2)(delayed(inc)(i) for i in range(10))
