"""How does mltoolkit compare with Ray, plain Dask, loky, Optuna, Stable-Baselines3 and one process, here and now?

Runs the programs of this folder for every runtime in turn, round by round (A B C A B C ...), each in fresh interpreters
of the runtime's own environment, so that a change of the machine's mood meets all of them. Prints medians, spreads,
ratios and aims as a table and writes all samples as JSON.

    python benchmarks/run.py --peers-python .venv-peers/bin/python
    python benchmarks/run.py --smoke --runtimes mltoolkit
    python benchmarks/run.py --programs joblib_backend --wine winequality-red.csv --rounds 5
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from _harness import MARKER, describe_machine, marked_processes
from _metrics import RUNTIMES
from _table import Samples, render, summarise

HERE = Path(__file__).parent
PROGRAMS = {
    "startup": ("mltoolkit", "ray", "dask", "loky", "process"),
    "core": ("mltoolkit", "ray", "dask", "loky"),
    "joblib_backend": ("mltoolkit", "ray", "dask", "loky", "process"),
    "multiprocessing_pool": ("mltoolkit", "ray", "dask", "loky", "stdlib", "process"),
    "tune_trials": ("mltoolkit", "ray", "optuna", "optuna_procs", "process"),
    "tune_results": ("mltoolkit", "ray", "optuna", "optuna_procs", "process"),
    "tune_wine": ("mltoolkit", "ray", "optuna", "optuna_procs", "process"),
    "tune_quality": ("mltoolkit", "optuna"),
    "ppo_cartpole": ("mltoolkit", "ray", "sb3"),
    "ppo_sampling": ("mltoolkit", "ray", "sb3"),
    "ppo_quality": ("mltoolkit", "sb3"),
    "ppo_learner": ("mltoolkit", "process"),
    "boosting": ("mltoolkit", "ray", "dask", "process"),
    "lightning_workers": ("mltoolkit", "ray", "ddp_fork", "ddp_spawn", "torchrun", "process"),
}
PARTS = {
    "joblib_backend": (("--searches", "tree_grid"), ("--searches", "forest_grid")),
    "tune_trials": (("--parts", "start"), ("--parts", "rate"), ("--parts", "large")),
    "tune_results": (("--shapes", "few"), ("--shapes", "many")),
    "tune_wine": (("--sweeps", "fifo"), ("--sweeps", "asha")),
    "ppo_cartpole": tuple(("--first-seed", str(first), "--seeds", "2") for first in range(0, 10, 2)),
    "ppo_sampling": tuple(("--runners", *runners) for runners in (("0",), ("1",), ("2", "8"))),
    "ppo_quality": tuple(
        ("--tasks", task, "--first-seed", str(seed), "--seeds", "1")
        for seed in range(5)
        for task in ("pendulum", "acrobot")
    ),
    "boosting": tuple(
        ("--library", library, "--parts", part)
        for library in ("xgboost", "lightgbm")
        for part in ("time", "memory", "wine")
    ),
    "lightning_workers": tuple(("--parts", part) for part in ("wine", "step", "large", "sharded")),
}
"""Programs that take long are run in parts: the shorter a turn, the more alike the machine is for all."""

WITH_WINE = ("joblib_backend", "tune_wine", "boosting")
"""Programs that take `--wine`."""

TIMEOUT_S = 900.0


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse and check the command line."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument(
        "--peers-python",
        type=Path,
        help="interpreter of an environment with the packages of peers.txt; without it Ray is left out and the other "
        "peers run in this interpreter",
    )
    command.add_argument("--runtimes", nargs="+", choices=RUNTIMES, default=list(RUNTIMES), help="columns of the table")
    command.add_argument("--programs", nargs="+", choices=list(PROGRAMS), default=list(PROGRAMS), help="what is run")
    command.add_argument("--rounds", type=int, default=3, help="how often everything is run (default: 3)")
    command.add_argument("--smoke", action="store_true", help="one round of tiny sizes: do the programs work")
    command.add_argument("--wine", type=Path, help="wine-quality CSV; default: scikit-learn's wine data")
    command.add_argument("--json", type=Path, default=Path("build/benchmarks.json"), help="where all samples go")
    options = command.parse_args(arguments)
    if options.rounds < 1:
        command.error(f"`--rounds` must be at least 1, got {options.rounds}")
    if options.peers_python is not None and not options.peers_python.exists():
        command.error(
            f"`--peers-python` {options.peers_python} does not exist. Create it with `python -m venv .venv-peers` and "
            "`.venv-peers/bin/pip install -r benchmarks/peers.txt`."
        )
    if options.wine is not None and not options.wine.exists():
        command.error(f"`--wine` {options.wine} does not exist")
    if options.peers_python is None and "ray" in options.runtimes:
        options.runtimes.remove("ray")
        print("Ray is left out: `--peers-python` does not say where it is installed.")
    if options.smoke:
        options.rounds = 1
    return options


def run_program(program: str, part: tuple[str, ...], runtime: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run a part of one program for one runtime and return its report; `error` in it says what went wrong."""
    # Not resolved: a virtual environment is known by the path of its link.
    python = options.peers_python if runtime != "mltoolkit" and options.peers_python else Path(sys.executable)
    marker = uuid.uuid4().hex
    environment = {**os.environ, MARKER: marker}
    # Compiled files of mltoolkit's sources must be kept, as those of the peers are since their installation.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "report.json"
        command = [str(python.absolute()), str(HERE / f"{program}.py"), "--runtime", runtime, "--out", str(out)]
        command += [*part, *(["--smoke"] if options.smoke else [])]
        if program in WITH_WINE and options.wine:
            command += ["--wine", str(options.wine.resolve())]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, env=environment, cwd=folder
            )
            if done.returncode == 0:
                report: dict[str, Any] = json.loads(out.read_text())
                return report
            error = f"ended with code {done.returncode}:\n{done.stderr[-3000:]}"
        except subprocess.TimeoutExpired:
            error = f"did not end within {TIMEOUT_S:.0f} s"
        finally:
            end_leftovers(marker)
    return {"runtime": runtime, "values": {}, "facts": {}, "versions": {}, "error": f"{program}: {error}"}


def end_leftovers(marker: str) -> None:
    """End what a program left behind, so that it does not slow the next one."""
    left = marked_processes(marker)
    _, alive = psutil.wait_procs(left, timeout=5)
    for process in alive:
        print(f"  left behind, now ended: {process.pid} {process.name()}", file=sys.stderr)
        process.kill()


def turns(options: argparse.Namespace) -> Iterator[tuple[str, tuple[str, ...], str]]:
    """Yield program, part and runtime, in the order of one round."""
    for program in options.programs:
        for part in PARTS.get(program, ((),)):
            for runtime in RUNTIMES:
                if runtime in options.runtimes and runtime in PROGRAMS[program]:
                    yield program, part, runtime


class Results:
    """What has been measured so far."""

    def __init__(self) -> None:
        self.samples: Samples = {}
        self.versions: dict[str, dict[str, str]] = {}
        self.facts: dict[str, dict[str, Any]] = {}
        self.errors: list[str] = []

    def add(self, report: dict[str, Any]) -> None:
        """Take over the report of one program."""
        runtime = report["runtime"]
        self.versions.setdefault(runtime, {}).update(report["versions"])
        self.facts.setdefault(runtime, {}).update(report["facts"])
        for name, values in report["values"].items():
            self.samples.setdefault(name, {}).setdefault(runtime, []).extend(values)
        if "error" in report:
            self.errors.append(f"{runtime}, {report['error']}")


def measure(options: argparse.Namespace, results: Results) -> None:
    """Run all rounds; Ctrl-C ends them early and leaves what has been measured."""
    started = time.monotonic()
    try:
        for number in range(options.rounds):
            for program, part, runtime in turns(options):
                what = " ".join([program, *part])
                print(f"[{time.monotonic() - started:6.0f} s] round {number + 1}, {what}, {runtime}", flush=True)
                results.add(run_program(program, part, runtime, options))
    except KeyboardInterrupt:
        results.errors.append(f"interrupted in round {number + 1} of {options.rounds}, {what}, {runtime}")
    results.errors += disagreements(results.facts)


def main(arguments: list[str] | None = None) -> int:
    """Run everything; return 1 if a program failed or the runtimes disagree about results."""
    options = parse(arguments)
    machine = describe_machine()
    print(machine)
    results = Results()
    measure(options, results)
    rows = summarise(results.samples)
    print()
    for runtime, found in results.versions.items():
        print(f"{runtime}: " + ", ".join(f"{name} {version}" for name, version in found.items()))
    print(f"median of {options.rounds} rounds ± half the interquartile range")
    print("columns x ray, x loky, x optuna, x sb3: how many times better than it\n")
    print(render(rows))
    for error in results.errors:
        print(f"\nFAILED {error}", file=sys.stderr)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    settings = {"machine": machine, "rounds": options.rounds, "smoke": options.smoke}
    measured = {"versions": results.versions, "rows": rows, "facts": results.facts, "errors": results.errors}
    options.json.write_text(json.dumps({**settings, **measured}, indent=1))
    print(f"\nall samples: {options.json}")
    return 1 if results.errors else 0


def disagreements(facts: dict[str, dict[str, Any]]) -> list[str]:
    """Return an error for each search whose scores differ between runtimes."""
    found = []
    for name in sorted({name for each in facts.values() for name in each if name.endswith("_score")}):
        scores = {runtime: each[name] for runtime, each in facts.items() if name in each}
        if len({round(score, 9) for score in scores.values()}) > 1:
            found.append(f"{name} must be the same for all runtimes, got {scores}")
    return found


if __name__ == "__main__":
    sys.exit(main())
