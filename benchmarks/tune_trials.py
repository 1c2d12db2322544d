"""What does a trial cost that does nothing, in small sweeps and in large ones?

Fresh interpreters, as a script would be: `start`, up to the first result and to the end of 100 trials; `rate`, 1,000
trials; `large`, 10,000 trials, what each of the first and of the last thousand takes, and the driver's memory.

Ray Tune is so much slower that it runs fewer trials: 4 for the start, and 10 and 40 for the rate, which is taken from
the difference, so that neither start-up nor end counts against it. All others count everything from the call that
starts the sweep to its return. Optuna's studies are in memory (threads) or in a journal file (processes); mltoolkit and
Ray write each result to disk, thrice: as JSON, as CSV and for TensorBoard. The bare loop does the trials' own work.
"""

from __future__ import annotations

import sys
import tempfile
import time
from typing import Any

from _harness import Recorder, parser, run_fresh, seed_everything
from _runtimes import answer
from _tune_runtimes import (
    FACADES,
    OPTUNA,
    PACKAGES,
    Session,
    check,
    load_tune,
    make_reporter,
    peak_rss_mb,
    run_reporters,
)

RUNTIMES = (*FACADES, *OPTUNA, "process")
PARTS = {"start": FACADES, "rate": RUNTIMES, "large": ("mltoolkit", "optuna")}
SIZES = {"start": 100, "rate": 1000, "large": 10_000}
SMOKE = {"start": 4, "rate": 6, "large": 20}
RAY_RATE = (10, 40)
RAY_START = 4

Values = dict[str, list[float]]


def start(runtime: str, trials: int, folder: str) -> Values:
    """From before the first import to the first result, and to the end of a small sweep."""
    began = time.perf_counter()
    tune = load_tune(runtime)
    imported = time.perf_counter()
    trials = min(trials, RAY_START) if runtime == "ray" else trials
    first: list[float] = []

    class First(tune.Callback):
        """Notes when the first result is there."""

        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any) -> None:
            if not first:
                first.append(time.perf_counter())

    with Session(runtime, folder) as session:
        grid = session.sweep(make_reporter(runtime, 1), {"x": tune.uniform(0, 1)}, trials, callbacks=[First()])
        ended = time.perf_counter()
    check(len(grid) == trials and not grid.errors, "trials are missing or failed")
    values = {"tune_import": [imported - began], "tune_first_result": [first[0] - began]}
    return values if runtime == "ray" else {**values, "trials_100": [ended - imported]}


def rate(runtime: str, trials: int, folder: str) -> Values:
    """Trials per second."""
    if runtime == "ray":
        few, many = (2, 4) if trials < RAY_RATE[0] else RAY_RATE
        with Session(runtime, folder) as session:
            seconds = [_sweep_seconds(session, runtime, count) for count in (few, many)]
        # Tiny sweeps differ by less than the mood of the machine.
        return {"trials_1000": [(many - few) / max(seconds[1] - seconds[0], 1e-3)]}
    if runtime == "mltoolkit":
        with Session(runtime, folder) as session:
            return {"trials_1000": [trials / _sweep_seconds(session, runtime, trials)]}
    began = time.perf_counter()
    run_reporters(runtime, trials, 1, folder)
    return {"trials_1000": [trials / (time.perf_counter() - began)]}


def _sweep_seconds(session: Session, runtime: str, trials: int) -> float:
    began = time.perf_counter()
    grid = session.sweep(make_reporter(runtime, 1), {"x": session.tune.uniform(0, 1)}, trials)
    seconds = time.perf_counter() - began
    check(len(grid) == trials and not grid.errors, "trials are missing or failed")
    return seconds


def large(runtime: str, trials: int, folder: str) -> Values:
    """A sweep so large that what grows with it shows."""
    ends: list[float] = []
    peaks: list[float] = []

    def note() -> None:
        ends.append(time.perf_counter())
        if len(ends) % (trials // 10) == 0:
            peaks.append(peak_rss_mb())

    began = time.perf_counter()
    if runtime == "optuna":
        _large_study(trials, folder, note)
    else:
        tune = load_tune(runtime)

        class Clock(tune.Callback):
            """Notes when each trial has ended."""

            def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
                note()

        with Session(runtime, folder) as session:
            began = time.perf_counter()
            space = {"x": tune.uniform(0, 1)}
            grid = session.sweep(make_reporter(runtime, 1), space, trials, callbacks=[Clock()])
        check(len(grid) == trials and not grid.errors, "trials are missing or failed")
    tenth = trials // 10
    check(len(ends) == trials, "trials are missing")
    return {
        "trials_10000": [ends[-1] - began],
        "trial_first_1000": [(ends[tenth - 1] - ends[0]) / (tenth - 1) * 1e3],
        "trial_last_1000": [(ends[-1] - ends[-tenth]) / (tenth - 1) * 1e3],
        "trials_10000_rss": [peak_rss_mb()],
        # From the second tenth on: what is loaded and allocated once is there by then.
        "trial_memory": [max(peaks[-1] - peaks[1], 1e-3) / (trials - 2 * tenth) * 1e3],
    }


def _large_study(trials: int, folder: str, note: Any) -> None:
    from functools import partial

    from _tune_runtimes import optimise, optuna_reporter

    optimise("optuna", partial(optuna_reporter, results=1), trials, folder, callbacks=[lambda study, trial: note()])


def main() -> None:
    """Run the program."""
    arguments = parser(__doc__, RUNTIMES)
    arguments.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS), help="what is measured")
    arguments.add_argument("--child", choices=list(PARTS), help="used by the program itself")
    options = arguments.parse_args()
    seed_everything()
    if options.child:
        measure = {"start": start, "rate": rate, "large": large}[options.child]
        with tempfile.TemporaryDirectory() as folder:
            answer(measure(options.runtime, (SMOKE if options.smoke else SIZES)[options.child], folder), {})
        return
    record = Recorder(options.runtime)
    for part in options.parts:
        if options.runtime in PARTS[part]:
            command = [sys.executable, __file__, "--child", part, "--runtime", options.runtime]
            run_fresh([*command, *(["--smoke"] if options.smoke else [])], record, timeout=600)
    record.finish(options.out, (options.runtime, "distributed", *PACKAGES))


if __name__ == "__main__":
    main()
