"""What does a reported result cost, over few trials and over many, and does it cost more as they grow?

100,000 results in a sweep of 4 trials, and 100,000 in one of 1,000. The driver's time is the processor time of its
process, all threads: what it takes to receive a result, write it down, ask scheduler and search algorithm, and let the
trial go on. First and last tenth of a sweep tell whether that is flat.

Ray Tune reports fewer: the difference between 4 trials of 50 results and 4 of 800, and between 10 trials of 10 and 10
trials of 200, after a first sweep that starts its processes. Optuna's trials report to their study, which only keeps
the values; with processes it is 2,000 results, and over four trials 10,000, as a study copies all of a trial's values
for each that is added.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
from typing import Any

from _harness import Recorder, parser, run_fresh, seed_everything
from _runtimes import answer
from _tune_runtimes import FACADES, OPTUNA, PACKAGES, Session, check, make_reporter, peak_rss_mb, run_reporters

RUNTIMES = (*FACADES, *OPTUNA, "process")
SHAPES = {"few": (4, 25_000), "many": (1000, 100)}
"""Trials, and results of each."""

SMALLER = {
    "ray": {"few": (4, 50, 800), "many": (10, 10, 200)},
    "optuna": {"few": (4, 2500)},
    "optuna_procs": {"few": (4, 500), "many": (20, 100)},
}
SMOKE = {"few": (2, 20), "many": (5, 8)}

Values = dict[str, list[float]]


def facade(shape: str, trials: int, results: int, folder: str) -> Values:
    """Measure mltoolkit: each tenth of the sweep by itself."""
    total, tenth = trials * results, trials * results // 10
    marks: list[tuple[float, float]] = []
    with Session("mltoolkit", folder) as session:

        class Clock(session.tune.Callback):
            """Notes wall and processor time at the first result and at each tenth of them."""

            count = 0

            def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any) -> None:
                if self.count % tenth == 0 or self.count == total - 1:
                    marks.append((time.perf_counter(), time.process_time()))
                self.count += 1

        grid = session.sweep(
            make_reporter("mltoolkit", results), {"x": session.tune.uniform(0, 1)}, trials, callbacks=[Clock()]
        )
    check(len(marks) == 11 and not grid.errors, "results are missing")
    check(sum(result.metrics["training_iteration"] for result in grid) == total, "results are missing")
    wall, cpu = (
        [(later[clock] - earlier[clock]) / tenth * 1e6 for earlier, later in itertools.pairwise(marks)]
        for clock in (0, 1)
    )
    values = {
        f"result_{shape}": [sum(wall) / 10],
        f"result_{shape}_cpu": [sum(cpu) / 10],
        f"result_{shape}_cpu_first": [cpu[0]],
        f"result_{shape}_cpu_last": [cpu[-1]],
    }
    return {**values, "results_rss": [peak_rss_mb()]} if shape == "few" else values


def ray(shape: str, trials: int, results: tuple[int, int], folder: str) -> Values:
    """Measure Ray: what more results cost in sweeps of as many trials."""
    marks = []
    with Session("ray", folder) as session:
        session.sweep(make_reporter("ray", 1), {"x": session.tune.uniform(0, 1)}, trials)
        for count in results:
            began = (time.perf_counter(), time.process_time())
            grid = session.sweep(make_reporter("ray", count), {"x": session.tune.uniform(0, 1)}, trials)
            marks.append((time.perf_counter() - began[0], time.process_time() - began[1]))
            check(len(grid) == trials and not grid.errors, "trials are missing or failed")
    more = trials * (results[1] - results[0])
    wall, cpu = (max(late - early, 1e-6) / more * 1e6 for early, late in zip(*marks, strict=True))
    return {f"result_{shape}": [wall], f"result_{shape}_cpu": [cpu]}


def child(shape: str, runtime: str, smoke: bool, folder: str) -> Values:
    """Measure one shape in this fresh interpreter."""
    size = SMALLER.get(runtime, {}).get(shape, SHAPES[shape])
    if smoke:
        size = (*SMOKE[shape], SMOKE[shape][1] * 2) if runtime == "ray" else SMOKE[shape]
    if runtime == "ray":
        return ray(shape, size[0], (size[1], size[2]), folder)
    if runtime == "mltoolkit":
        return facade(shape, *size, folder)
    began = (time.perf_counter(), time.process_time())
    run_reporters(runtime, *size, folder)
    wall, cpu = time.perf_counter() - began[0], time.process_time() - began[1]
    count = size[0] * size[1]
    values = {f"result_{shape}": [wall / count * 1e6]}
    # In processes the driver has nothing to do with results.
    return values if runtime == "optuna_procs" else {**values, f"result_{shape}_cpu": [cpu / count * 1e6]}


def main() -> None:
    """Run the program."""
    arguments = parser(__doc__, RUNTIMES)
    arguments.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=list(SHAPES), help="what is measured")
    arguments.add_argument("--child", choices=list(SHAPES), help="used by the program itself")
    options = arguments.parse_args()
    seed_everything()
    if options.child:
        with tempfile.TemporaryDirectory() as folder:
            answer(child(options.child, options.runtime, options.smoke, folder), {})
        return
    record = Recorder(options.runtime)
    for shape in options.shapes:
        command = [sys.executable, __file__, "--child", shape, "--runtime", options.runtime]
        run_fresh([*command, *(["--smoke"] if options.smoke else [])], record, timeout=600)
    record.finish(options.out, (options.runtime, "distributed", *PACKAGES))


if __name__ == "__main__":
    main()
