"""multiprocessing.Pool: the same tests for the standard library's pool and ours, then what only ours does."""

from __future__ import annotations

import gc
import itertools
import multiprocessing
import multiprocessing.pool
import multiprocessing.resource_tracker
import os
import pickle
import threading
import time

import helpers
import pytest

import mltoolkit as ray
from mltoolkit.util.multiprocessing import AsyncResult, Pool, TimeoutError

numpy = pytest.importorskip("numpy")

WAIT_S = 30

# The helper of the standard library's spawned pools may have been ended with an earlier test's processes; it starts another.
pytestmark = pytest.mark.filterwarnings("ignore:resource_tracker. process died:UserWarning")


def square(x):
    return x * x


def add(x, y=0):
    return x + y


def fail_on(bad, x):
    if x == bad:
        raise KeyError(f"item {x}")
    return x


def fail_on_three(x):
    return fail_on(3, x)


def invert(x):
    return 1 / x


def raise_unpicklable(x):
    raise Unpicklable("held here")


def raise_unrebuildable(x):
    raise Unrebuildable("a", "b")


def give_lock(x):
    return threading.Lock()


def wait_for(gate, x=None):
    gate.wait()
    return x


def give_lock_for_three(x):
    return threading.Lock() if x == 3 else x


def give_back(x):
    return x


class Stubborn:
    """Can be pickled but not rebuilt."""

    def __reduce__(self):
        return refuse, ()


def refuse():
    raise TypeError("cannot be rebuilt")


def is_main_thread(*args):
    return threading.current_thread() is threading.main_thread()


def pid_of(x):
    return os.getpid()


def die(x):
    os._exit(3)


class Unpicklable(Exception):
    def __init__(self, text):
        super().__init__(text)
        self.lock = threading.Lock()


class Unrebuildable(Exception):
    def __init__(self, first, second):
        super().__init__(first)


@pytest.fixture(scope="module")
def standard():
    # Spawned: forking this process with its threads would be what may hang here.
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        yield pool


@pytest.fixture(scope="module", autouse=True)
def _no_resource_tracker():
    """End the helper process that spawning starts, which would otherwise live as long as this process does."""
    yield
    gc.collect()  # it removes the semaphores of pools that are garbage by now, whose own removal would fail later
    multiprocessing.resource_tracker._resource_tracker._stop()


@pytest.fixture(scope="module")
def ours():
    """One pool of ours for the tests that do not end it."""
    made = []

    def get():
        if made and not made[0][1]():
            made.pop()[0].terminate()
        if not made:
            pool = Pool(2)
            actor = next(iter(pool._engine._dispatcher.slots)).worker.actor
            made.append((pool, lambda: _answers(actor)))
        return made[0][0]

    yield get
    for pool, _ in made:
        pool.terminate()


def _answers(actor):
    """Whether the session of a pool still runs: another test may have needed one of its own."""
    try:
        return ray.get(actor.ping.remote(), timeout=WAIT_S) is None
    except Exception:
        return False


@pytest.fixture(params=["standard", "ours"])
def pool(request, runtime):
    """The standard pool and ours: what is tested with this holds for both."""
    fixture = request.getfixturevalue(request.param)
    return fixture if request.param == "standard" else fixture()


@pytest.fixture
def own_pool(runtime):
    """Make pools that are ended after the test."""
    made = []

    def make(processes=2, **kwargs):
        made.append(Pool(processes, **kwargs))
        return made[-1]

    yield make
    for each in made:
        each.terminate()
        each.join()


class TestLikeTheStandardPool:
    def test_apply(self, pool):
        assert pool.apply(add, (1, 2)) == 3
        assert pool.apply(add, (1,), {"y": 4}) == 5
        assert pool.apply(add, [1], kwds={"y": 4}) == 5

    def test_apply_async(self, pool):
        result = pool.apply_async(add, (1, 2))
        assert result.get(WAIT_S) == 3
        assert result.ready()
        assert result.successful()

    @pytest.mark.parametrize("chunksize", [None, 1, 3, 100])
    @pytest.mark.parametrize("size", [0, 1, 7, 50])
    def test_map(self, pool, size, chunksize):
        assert pool.map(square, range(size), chunksize) == [i * i for i in range(size)]
        assert pool.map(square, iter(range(size)), chunksize) == [i * i for i in range(size)]
        assert pool.map_async(square, range(size), chunksize).get(WAIT_S) == [i * i for i in range(size)]

    @pytest.mark.parametrize("chunksize", [None, 1, 3])
    def test_starmap(self, pool, chunksize):
        assert pool.starmap(add, [(i, i) for i in range(10)], chunksize) == [2 * i for i in range(10)]
        assert pool.starmap(add, zip(range(4), range(4), strict=True), chunksize) == [0, 2, 4, 6]
        assert pool.starmap_async(add, [(1,), (2, 3)], chunksize).get(WAIT_S) == [1, 5]

    @pytest.mark.parametrize("chunksize", [1, 4])
    @pytest.mark.parametrize("make", [list, iter], ids=["list", "iterator"])
    def test_imap(self, pool, make, chunksize):
        assert list(pool.imap(square, make(range(30)), chunksize)) == [i * i for i in range(30)]
        assert sorted(pool.imap_unordered(square, make(range(30)), chunksize)) == [i * i for i in range(30)]
        assert list(pool.imap(square, make([]), chunksize)) == []

    def test_imap_of_an_endless_iterator(self, pool):
        # Ended by an error: otherwise the shared pool would go on with it.
        def numbers():
            for i in itertools.count():
                if i > 5 and stop.is_set():
                    return
                yield i

        stop = threading.Event()
        results = pool.imap(square, numbers())
        assert [next(results) for _ in range(5)] == [0, 1, 4, 9, 16]
        stop.set()
        assert list(results)[0] == 25

    def test_imap_next_with_a_timeout(self, pool, gate):
        slow = gate("slow")
        results = pool.imap(wait_for, [slow])
        with pytest.raises(multiprocessing.TimeoutError):
            results.next(timeout=0.05)
        slow.open()
        assert results.next(timeout=WAIT_S) is None
        with pytest.raises(StopIteration):
            results.next(timeout=WAIT_S)
        with pytest.raises(StopIteration):
            next(results)

    def test_imap_unordered_gives_what_is_ready(self, pool, gate):
        slow = gate("slow")
        done = gate("done")
        done.open()
        results = pool.imap_unordered(wait_until_open, [(slow, 0), (done, 1), (done, 2)])
        assert {next(results), next(results)} == {1, 2}
        slow.open()
        assert next(results) == 0

    def test_a_blocked_call_holds_up_no_other(self, pool, gate):
        slow = gate("slow")
        blocked = pool.apply_async(wait_for, (slow, "late"))
        others = [pool.apply_async(square, (i,)) for i in range(20)]
        assert [r.get(WAIT_S) for r in others] == [i * i for i in range(20)]
        assert not blocked.ready()
        slow.open()
        assert blocked.get(WAIT_S) == "late"

    def test_timeouts(self, pool, gate):
        slow = gate("slow")
        result = pool.apply_async(wait_for, (slow, 1))
        start = time.monotonic()
        result.wait(0.05)
        assert time.monotonic() - start < 5
        assert not result.ready()
        with pytest.raises(ValueError, match="not ready"):
            result.successful()
        with pytest.raises(multiprocessing.TimeoutError):
            result.get(timeout=0.05)
        slow.open()
        assert result.get(WAIT_S) == 1

    def test_an_exception_keeps_its_type_and_brings_its_traceback(self, pool):
        for call in (
            lambda: pool.apply(invert, (0,)),
            lambda: pool.map(invert, [1, 0, 2]),
            lambda: pool.starmap(invert, [(1,), (0,)]),
            lambda: list(pool.imap(invert, [1, 0])),
        ):
            with pytest.raises(ZeroDivisionError) as info:
                call()
            assert type(info.value) is ZeroDivisionError
            assert isinstance(info.value.__cause__, multiprocessing.pool.RemoteTraceback)
            assert "return 1 / x" in str(info.value.__cause__)

    def test_a_failed_result_can_be_asked_about(self, pool):
        result = pool.map_async(fail_on_three, range(6), chunksize=1)
        result.wait(WAIT_S)
        assert result.ready()
        assert not result.successful()
        for _ in range(2):
            with pytest.raises(KeyError, match="item 3"):
                result.get()

    def test_imap_goes_on_after_an_exception(self, pool):
        results = pool.imap(fail_on_three, range(6))
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(KeyError, match="item 3"):
            next(results)
        assert list(results) == [4, 5]

    def test_an_iterable_that_fails(self, pool):
        def items():
            yield 1
            yield 2
            raise OSError("no more")

        with pytest.raises(OSError, match="no more"):
            pool.map(square, items())
        results = pool.imap(square, items())
        assert [next(results), next(results)] == [1, 4]
        with pytest.raises(OSError, match="no more"):
            next(results)
        with pytest.raises(StopIteration):
            next(results)

    def test_results_that_cannot_be_pickled(self, pool):
        with pytest.raises(multiprocessing.pool.MaybeEncodingError, match="lock"):
            pool.apply(give_lock, (1,))
        assert pool.apply(square, (2,)) == 4

    def test_exceptions_that_cannot_be_pickled(self, pool):
        with pytest.raises(multiprocessing.pool.MaybeEncodingError, match="lock"):
            pool.apply(raise_unpicklable, (1,))
        assert pool.apply(square, (2,)) == 4

    def test_arguments_that_cannot_be_pickled(self, pool):
        with pytest.raises(TypeError, match="pickle"):
            pool.apply(square, (threading.Lock(),))
        with pytest.raises(TypeError, match="pickle"):
            pool.map(square, [1, threading.Lock()])
        assert pool.apply(square, (2,)) == 4

    def test_callbacks(self, pool):
        calls = []
        results = [
            pool.apply_async(add, (1, 2), callback=calls.append),
            pool.map_async(square, range(5), callback=calls.append),
            pool.starmap_async(add, [(1, 1)], callback=calls.append),
        ]
        for result in results:
            result.get(WAIT_S)
        assert sorted(calls, key=str) == [3, [0, 1, 4, 9, 16], [2]]

    def test_error_callbacks(self, pool):
        calls, errors = [], []
        results = [
            pool.apply_async(invert, (0,), callback=calls.append, error_callback=errors.append),
            pool.map_async(invert, [1, 0], callback=calls.append, error_callback=errors.append),
            pool.apply_async(invert, (1,), callback=calls.append, error_callback=errors.append),
        ]
        for result in results:
            result.wait(WAIT_S)
        assert calls == [1.0]
        assert [type(error) for error in errors] == [ZeroDivisionError] * 2

    def test_the_callback_runs_before_the_result_is_there(self, pool):
        order = []
        result = pool.apply_async(square, (2,), callback=lambda value: order.append(result.ready()))
        result.get(WAIT_S)
        assert order == [False]

    def test_a_failed_map_waits_for_all_chunks(self, pool, gate):
        slow = gate("slow")
        result = pool.map_async(fail_or_wait, [None, slow], chunksize=1)
        result.wait(0.2)
        assert not result.ready()
        slow.open()
        with pytest.raises(KeyError, match="no gate"):
            result.get(WAIT_S)

    @pytest.mark.parametrize("chunksize", [0, -1])
    def test_imap_checks_the_chunk_size(self, pool, chunksize):
        with pytest.raises(ValueError, match="(?i)chunksize"):
            pool.imap(square, [1], chunksize)
        with pytest.raises(ValueError, match="(?i)chunksize"):
            pool.imap_unordered(square, [1], chunksize)

    def test_functions_run_on_the_main_thread(self, pool):
        # Those that set signal handlers, an alarm for instance, would fail elsewhere.
        assert pool.apply(is_main_thread)
        assert pool.map(is_main_thread, range(4)) == [True] * 4

    def test_a_pool_cannot_be_pickled(self, pool):
        with pytest.raises(NotImplementedError, match="pickled"):
            pickle.dumps(pool)

    def test_many_threads_may_use_it(self, pool):
        results = {}

        def use(i):
            results[i] = pool.map(square, range(i))

        threads = [threading.Thread(target=use, args=(i,)) for i in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)
        assert results == {i: [j * j for j in range(i)] for i in range(20)}


def wait_until_open(item):
    gate, x = item
    gate.wait()
    return x


def fail_or_wait(gate):
    if gate is None:
        raise KeyError("no gate")
    return gate.wait()


def standard_pool(*args, **kwargs):
    return multiprocessing.get_context("spawn").Pool(*args, **kwargs)


@pytest.mark.parametrize("make", [standard_pool, Pool], ids=["standard", "ours"])
class TestLifeLikeTheStandardPool:
    def test_close_and_join(self, runtime, make):
        pool = make(2)
        with pytest.raises(ValueError, match="still running"):
            pool.join()
        result = pool.map_async(square, range(10))
        iterator = pool.imap(square, iter(range(10)))
        pool.close()
        pool.close()
        for call in (
            lambda: pool.apply(square, (1,)),
            lambda: pool.apply_async(square, (1,)),
            lambda: pool.map(square, [1]),
            lambda: pool.map_async(square, []),
            lambda: pool.starmap(add, [(1,)]),
            lambda: pool.imap(square, [1]),
            lambda: pool.imap_unordered(square, [1]),
            pool.__enter__,
        ):
            with pytest.raises(ValueError, match="not running"):
                call()
        pool.join()
        assert result.get(0) == [i * i for i in range(10)]
        assert list(iterator) == [i * i for i in range(10)]

    def test_terminate(self, runtime, make, gate):
        pool = make(2)
        pool.apply_async(wait_for, (gate("never"),))
        pool.terminate()
        pool.terminate()
        pool.join()
        with pytest.raises(ValueError, match="not running"):
            pool.apply(square, (1,))

    def test_leaving_the_context_terminates(self, runtime, make):
        with make(1) as pool:
            assert pool.map(square, [2]) == [4]
        with pytest.raises(ValueError, match="not running"):
            pool.map(square, [2])
        pool.join()

    def test_initializer_and_maxtasksperchild(self, runtime, make, tally):
        starts = tally("starts")
        with make(1, initializer=starts.add, initargs=("start",), maxtasksperchild=2) as pool:
            pids = pool.map(pid_of, range(6), chunksize=1)
            assert len(set(pids)) == 3
            assert pids[0] == pids[1] != pids[2]
            helpers.wait_until(lambda: starts.count() >= 3, WAIT_S, "three processes start")

    @pytest.mark.parametrize(
        ("arguments", "error"),
        [
            ({"processes": 0}, ValueError),
            ({"processes": -1}, ValueError),
            ({"initializer": "no function"}, TypeError),
            ({"maxtasksperchild": 0}, ValueError),
            ({"maxtasksperchild": 1.5}, ValueError),
        ],
    )
    def test_arguments_are_checked(self, runtime, make, arguments, error):
        with pytest.raises(error):
            make(**{"processes": 1, **arguments})

    def test_what_it_says_of_itself(self, runtime, make):
        pool = make(2)
        assert "state=RUN pool_size=2" in repr(pool)
        pool.close()
        assert "state=CLOSE" in repr(pool)
        pool.terminate()
        assert "state=TERMINATE" in repr(pool)
        pool.join()

    def test_an_unclosed_pool_warns(self, runtime, make):
        pool = make(1)
        with pytest.warns(ResourceWarning, match="unclosed running"):
            pool.__del__()
        pool.terminate()
        pool.join()


class TestOnlyOurs:
    def test_the_names_are_the_standard_ones(self):
        assert TimeoutError is multiprocessing.TimeoutError
        assert AsyncResult is ray.util.multiprocessing.pool.AsyncResult

    def test_functions_that_the_standard_pool_cannot_send(self, own_pool):
        offset = 10
        assert own_pool().map(lambda x: x + offset, range(3)) == [10, 11, 12]

    def test_the_names_of_keyword_arguments_that_ray_has(self, own_pool):
        pool = own_pool()
        assert pool.apply(add, (1,), kwargs={"y": 4}) == 5
        assert pool.apply_async(add, None, kwargs={"x": 1}).get(WAIT_S) == 1
        with pytest.raises(TypeError, match="kwds"):
            pool.apply(add, (1,), {"y": 1}, kwargs={"y": 2})

    @pytest.mark.parametrize("chunksize", [1, 2, 4])
    @pytest.mark.parametrize("method", ["imap", "imap_unordered"])
    def test_imap_goes_on_after_an_exception_whatever_the_chunks(self, own_pool, method, chunksize):
        results = getattr(own_pool(), method)(fail_on_three, range(8), chunksize)
        seen, errors = [], 0
        while True:
            try:
                seen.append(next(results))
            except StopIteration:
                break
            except KeyError:
                errors += 1
        assert sorted(seen) == [0, 1, 2, 4, 5, 6, 7]
        assert errors == 1

    def test_an_exception_that_cannot_be_rebuilt(self, own_pool):
        # The standard pool's result thread dies of it, and every later call hangs.
        pool = own_pool()
        with pytest.raises(multiprocessing.pool.MaybeEncodingError, match="second"):
            pool.apply(raise_unrebuildable, (1,))
        assert pool.apply(square, (2,)) == 4

    def test_a_dead_process_is_an_error_and_is_replaced(self, own_pool):
        pool = own_pool(1)
        pids = {pool.apply(pid_of, (0,))}
        with pytest.raises(ray.exceptions.RayActorError):
            pool.apply(die, (1,))
        pids.add(pool.apply(pid_of, (0,)))
        assert len(pids) == 2
        results = pool.imap(die_on_two, range(4))
        assert [next(results), next(results)] == [0, 1]
        with pytest.raises(ray.exceptions.RayActorError):
            next(results)
        assert list(results) == [3]

    @pytest.mark.parametrize("processes", [1, 2])
    def test_the_neighbours_of_a_call_that_kills_its_process_are_unharmed(self, own_pool, processes):
        pool = own_pool(processes)
        pool.map(square, range(200), chunksize=1)  # short calls: from now on several are sent at a time
        results = pool.imap(die_on_two, range(40))
        seen = []
        for _ in range(40):
            try:
                seen.append(next(results))
            except ray.exceptions.RayActorError:
                seen.append(None)
        assert seen == [0, 1, None, *range(3, 40)]

    @pytest.mark.parametrize("processes", [2, 4])
    def test_calls_sent_along_with_one_that_blocks_run_elsewhere(self, own_pool, gate, processes):
        pool = own_pool(processes)
        pool.map(square, range(200), chunksize=1)  # short calls: from now on several are sent at a time
        slow = gate("slow")
        items = [(slow if i % 40 == 0 else None, i) for i in range(40 * (processes - 1))]
        results = pool.imap_unordered(maybe_wait, items)
        free = [next(results) for _ in range(39 * (processes - 1))]
        assert sorted(free) == [i for i in range(40 * (processes - 1)) if i % 40]
        slow.open()
        assert sorted(results) == list(range(0, 40 * (processes - 1), 40))

    def test_results_that_cannot_be_pickled_harm_no_neighbour(self, own_pool):
        pool = own_pool(1)
        pool.map(square, range(200), chunksize=1)  # short calls: from now on several are sent at a time
        results = pool.imap(give_lock_for_three, range(40))
        seen = []
        for _ in range(40):
            try:
                seen.append(next(results))
            except multiprocessing.pool.MaybeEncodingError as error:
                seen.append("lock" in str(error))
        assert seen == [0, 1, 2, True, *range(4, 40)]

    def test_arguments_that_cannot_be_sent_harm_no_neighbour(self, own_pool):
        pool = own_pool(1)
        pool.map(square, range(200), chunksize=1)
        items = [threading.Lock() if i == 3 else Stubborn() if i == 5 else i for i in range(40)]
        results = pool.imap(give_back, items)
        seen = []
        for _ in range(40):
            try:
                seen.append(next(results))
            except (TypeError, multiprocessing.pool.MaybeEncodingError) as error:
                seen.append("pickle" in str(error) or "cannot be rebuilt" in str(error))
        assert seen == [0, 1, 2, True, 4, True, *range(6, 40)]

    def test_functions_and_refs_as_results_of_short_calls(self, own_pool):
        pool = own_pool(1)
        pool.map(square, range(200), chunksize=1)
        functions = pool.map(lambda i: lambda: i, range(20), chunksize=1)
        assert [f() for f in functions] == list(range(20))
        refs = pool.map(ray.put, range(20), chunksize=1)
        assert ray.get(refs) == list(range(20))

    def test_each_call_runs_once(self, own_pool, tally):
        marks = tally("marks")
        pool = own_pool(2)
        pool.map(square, range(200), chunksize=1)
        pool.map(lambda i: (marks.add(i), time.sleep(0.02 if i % 10 == 0 else 0)), range(100), chunksize=1)
        assert sorted(marks.words(), key=int) == [str(i) for i in range(100)]

    def test_a_dead_process_keeps_results_in_step_with_items(self, own_pool):
        results = own_pool(1).imap(die_on_two, range(6), chunksize=2)
        seen = []
        for _ in range(6):
            try:
                seen.append(next(results))
            except ray.exceptions.RayActorError:
                seen.append(None)
        assert seen == [0, 1, None, None, 4, 5]

    def test_a_process_that_restarts_is_given_the_function_again(self, own_pool, gate):
        died = gate("died")
        pool = own_pool(1, ray_remote_args={"max_restarts": 1, "max_task_retries": 1})
        assert pool.map(lambda x: die_once(died, x), range(4), chunksize=1) == [0, 1, 2, 3]
        assert died.is_open()

    def test_results_that_are_missing_at_the_end_are_errors(self, own_pool, gate):
        # In the standard pool whoever waits for them waits for ever.
        pool = own_pool()
        never = gate("never")
        result = pool.apply_async(wait_for, (never,))
        iterator = pool.imap(wait_for, iter([never, never]))
        pool.terminate()
        with pytest.raises(RuntimeError, match="terminated"):
            result.get(WAIT_S)
        with pytest.raises(RuntimeError, match="terminated"):
            iterator.next(WAIT_S)
        with pytest.raises(StopIteration):
            iterator.next(WAIT_S)

    def test_terminating_ends_the_processes(self, own_pool):
        pool = own_pool()
        pids = set(pool.map(pid_of, range(20), chunksize=1))
        pool.terminate()
        pool.join()
        helpers.wait_until(lambda: not any(helpers.alive(pid) for pid in pids), WAIT_S, "the processes end")

    def test_joining_a_closed_pool_ends_the_processes(self, own_pool):
        pool = own_pool()
        pids = set(pool.map(pid_of, range(20), chunksize=1))
        pool.close()
        pool.join()
        helpers.wait_until(lambda: not any(helpers.alive(pid) for pid in pids), WAIT_S, "the processes end")

    def test_a_forgotten_pool_ends(self, runtime):
        pool = Pool(1)
        pid = pool.apply(pid_of, (0,))
        with pytest.warns(ResourceWarning, match="unclosed running"):
            del pool
        helpers.wait_until(lambda: not helpers.alive(pid), WAIT_S, "the process ends")

    def test_a_result_keeps_its_pool(self, runtime, gate):
        slow = gate("slow")
        result = Pool(1).apply_async(wait_for, (slow, 5))
        slow.open()
        with pytest.warns(ResourceWarning, match="unclosed running"):
            assert result.get(WAIT_S) == 5

    def test_the_thread_ends_with_the_pool(self, own_pool):
        before = set(threading.enumerate())
        pool = own_pool()
        pool.map(square, iter(range(10)))
        list(pool.imap(square, iter(range(10))))
        pool.close()
        pool.join()
        helpers.wait_until(lambda: not _pool_threads() - before, WAIT_S, "the threads of the pool end")

    def test_an_initializer_that_fails(self, runtime):
        with pytest.raises(ZeroDivisionError) as info:
            Pool(2, initializer=invert, initargs=(0,))
        assert "return 1 / x" in str(info.value.__cause__)

    def test_globals_that_an_initializer_sets(self, tmp_path):
        program = """
        import mltoolkit
        from mltoolkit.util.multiprocessing import Pool

        table = None

        def setup(value):
            global table
            table = {"value": value}

        def look_up(key):
            return helper(key)

        def helper(key):
            return table[key]

        class Reader:
            def __call__(self, key):
                return table[key] + 1

        with Pool(2, setup, (41,)) as pool:
            assert pool.map(look_up, ["value"] * 4) == [41] * 4
            assert pool.map(Reader(), ["value"] * 4) == [42] * 4
            assert pool.apply(lambda: table["value"]) == 41
        assert table is None
        print("fine")
        """
        assert "fine" in helpers.run_script(program, tmp_path).stdout

    def test_a_callback_that_fails_is_logged_and_does_no_harm(self, own_pool, caplog):
        pool = own_pool()
        result = pool.apply_async(square, (2,), callback=invert_nothing)
        assert result.get(WAIT_S) == 4
        assert "callback" in caplog.text
        assert "ZeroDivisionError" in caplog.text
        assert pool.apply(square, (3,)) == 9

    def test_a_callback_may_submit(self, own_pool):
        pool = own_pool()
        followers = []
        done = threading.Event()

        def follow(value):
            followers.append(pool.apply_async(square, (value,)))
            done.set()

        assert pool.apply_async(square, (2,), callback=follow).get(WAIT_S) == 4
        assert done.wait(WAIT_S)
        assert followers[0].get(WAIT_S) == 16

    def test_large_arrays(self, own_pool):
        pool = own_pool()
        arrays = [numpy.full(500_000, float(i)) for i in range(4)]
        assert pool.map(numpy.sum, arrays) == [0.0, 5e5, 1e6, 1.5e6]
        [result] = pool.map(numpy.ones, [(1000, 500)])
        assert result.shape == (1000, 500)
        shared = numpy.arange(300_000)
        assert pool.map(lambda i: int(shared[i]), range(50), chunksize=1) == list(range(50))

    def test_options_of_the_actors(self, own_pool):
        pool = own_pool(1, ray_remote_args={"runtime_env": {"env_vars": {"POOL_TEST": "set"}}})
        assert pool.apply(os.getenv, ("POOL_TEST",)) == "set"
        with pytest.raises((ValueError, TypeError)):
            Pool(1, ray_remote_args={"no_such_option": 1})

    def test_it_works_inside_a_task(self, runtime):
        @ray.remote
        def inner():
            with Pool(2) as pool:
                return pool.map(square, range(10))

        assert ray.get(inner.remote()) == [i * i for i in range(10)]

    def test_a_start_method_cannot_be_chosen(self, runtime):
        with pytest.raises(NotImplementedError, match="context"):
            Pool(1, context=multiprocessing.get_context("spawn"))

    def test_more_processes_than_cpus(self, runtime):
        with pytest.raises(ValueError, match="CPUs"):
            Pool(1000)

    def test_an_address_needs_a_session_of_its_own(self, runtime):
        with pytest.raises(RuntimeError, match="ray_address"):
            Pool(1, ray_address="tcp://127.0.0.1:1")
        with Pool(1, ray_address="auto") as pool:
            assert pool.map(square, [2]) == [4]


class TestSession:
    def test_it_starts_one_with_as_many_cpus(self, fresh, monkeypatch):
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        with Pool(2) as pool:
            assert fresh.is_initialized()
            assert fresh.cluster_resources()["CPU"] == 2
            assert pool.map(square, [3]) == [9]

    def test_it_takes_all_cpus_by_default(self, fresh):
        fresh.init(num_cpus=3)
        with Pool() as pool:
            assert "pool_size=3" in repr(pool)

    def test_local_means_a_new_one(self, fresh):
        with Pool(1, ray_address="local") as pool:
            assert fresh.cluster_resources()["CPU"] == 1
            assert pool.map(square, [3]) == [9]

    def test_its_end_ends_the_pool(self, fresh, gate):
        fresh.init(num_cpus=2)
        pool = Pool(1)
        result = pool.apply_async(wait_for, (gate("never"),))
        fresh.shutdown()
        with pytest.raises(Exception, match=r"."):
            result.get(WAIT_S)
        with pytest.raises(Exception, match=r"."):
            pool.apply_async(square, (1,)).get(WAIT_S)
        assert not fresh.is_initialized()
        pool.terminate()
        pool.join()


def invert_nothing(value):
    invert(0)


def maybe_wait(item):
    gate, x = item
    if gate is not None:
        gate.wait()
    return x


def die_on_two(x):
    if x == 2:
        os._exit(3)
    return x


def die_once(gate, x):
    if x == 2 and not gate.is_open():
        gate.open()
        os._exit(3)
    return x


def _pool_threads():
    return {thread for thread in threading.enumerate() if thread.name.startswith("mltoolkit-pool")}
