"""What do a thousand tiny calls cost, through `multiprocessing.Pool.map` and through joblib's `Parallel`?

Cold: a fresh interpreter; the clock starts before the runtime is imported (joblib itself, where used, after) and stops
with the result of the first thousand calls. Warm: the same again in the same session. `stdlib` is the standard
library's `multiprocessing.Pool`.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from _harness import Recorder, parser, run_fresh, seed_everything
from _joblib_backends import BACKENDS, JoblibBackend
from _runtimes import answer, cpu_count, init_facade, load_facade

POOLS = ("mltoolkit", "ray", "stdlib")
RUNTIMES = ("mltoolkit", "ray", "dask", "loky", "stdlib", "process")

OpenSession = Callable[[ExitStack], Callable[[], list[int]]]
"""Starts what is measured, leaves its end to the stack, and returns the call that is timed."""


def inc(number: int) -> int:
    """Add one."""
    return number + 1


def open_pool(runtime: str, closing: ExitStack) -> Any:
    """Return a pool with one process per CPU, started if need be; `closing` ends it."""
    if runtime == "stdlib":
        module: Any = importlib.import_module("multiprocessing")
    else:
        facade = load_facade(runtime)
        init_facade(facade)
        closing.callback(facade.shutdown)
        module = importlib.import_module(f"{runtime}.util.multiprocessing")
    pool = module.Pool(cpu_count())
    closing.callback(pool.join)
    closing.callback(pool.close)
    return pool


def measure(name: str, runs: int, open_session: OpenSession, expected: list[int]) -> None:
    """Measure the first run with everything it needs, then `runs` more, and answer."""
    values: dict[str, list[float]] = {}
    with ExitStack() as closing:
        start = time.perf_counter()
        call = open_session(closing)
        for number in range(1 + runs):
            results = call()
            elapsed = (time.perf_counter() - start) * 1e3
            values.setdefault(f"{name}_warm" if number else f"{name}_cold", []).append(elapsed)
            if results != expected:
                raise RuntimeError(f"{name} returned something else: {results[:3]}...")
            start = time.perf_counter()
    answer(values, {})


def child(what: str, runtime: str, smoke: bool) -> None:
    """Measure one way of calling in this fresh interpreter."""
    count = 10 if smoke else 1000
    runs = 1 if smoke else 5
    expected = list(range(1, count + 1))
    if what == "pool_map":

        def open_session(closing: ExitStack) -> Callable[[], list[int]]:
            pool = open_pool(runtime, closing)
            return lambda: list(pool.map(inc, range(count)))
    else:
        from joblib import Parallel, delayed

        def open_session(closing: ExitStack) -> Callable[[], list[int]]:
            backend: AbstractContextManager[JoblibBackend] = JoblibBackend(runtime)
            closing.enter_context(backend)
            return lambda: list(Parallel()(delayed(inc)(number) for number in range(count)))

    measure(what, runs, open_session, expected)


def main() -> None:
    """Run the program."""
    arguments = parser(__doc__, RUNTIMES)
    arguments.add_argument("--child", choices=("pool_map", "joblib_inc"), help="used by the program itself")
    options = arguments.parse_args()
    seed_everything()
    if options.child:
        child(options.child, options.runtime, options.smoke)
        return
    record = Recorder(options.runtime)
    for what, able in (("pool_map", POOLS), ("joblib_inc", BACKENDS)):
        if options.runtime in able:
            command = [sys.executable, __file__, "--child", what, "--runtime", options.runtime]
            run_fresh(command + ["--smoke"] * options.smoke, record)
    record.finish(options.out, (options.runtime, "joblib", "distributed"))


if __name__ == "__main__":
    main()
