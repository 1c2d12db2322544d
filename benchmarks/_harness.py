"""What every benchmark program shares: arguments, recording, the machine's description, the session's processes.

Used by interpreters of different environments, so it imports the standard library and psutil only.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from _metrics import METRICS
from _runtimes import cpu_count

MARKER = "MLTOOLKIT_BENCHMARK"
"""Environment variable that tells the processes of one measurement from all others on the machine."""

SEED = 20260


class Recorder:
    """Collects values by metric name.

    Parameters
    ----------
    runtime : str
        Who is measured.
    """

    def __init__(self, runtime: str) -> None:
        self.runtime = runtime
        self.values: dict[str, list[float]] = {}
        self.facts: dict[str, Any] = {}

    def add(self, name: str, value: float) -> None:
        """Record one value of a metric, in the metric's unit."""
        if name not in METRICS:
            raise KeyError(f"`name` must be one of the metrics in _metrics.py, got {name!r}. Declare it there.")
        self.values.setdefault(name, []).append(float(value))

    def add_latencies(self, name: str, seconds: list[float]) -> None:
        """Record a rate from the latencies of calls made one after the other, and their percentiles."""
        self.add(name, len(seconds) / sum(seconds))
        cuts = statistics.quantiles(seconds, n=100, method="inclusive")
        for percent in (50, 95, 99):
            self.add(f"{name}_p{percent}", cuts[percent - 1] * 1e6)

    @contextmanager
    def rate(self, name: str, count: int) -> Iterator[None]:
        """Record how many of `count` things per second the block did."""
        start = time.perf_counter()
        yield
        self.add(name, count / (time.perf_counter() - start))

    @contextmanager
    def duration(self, name: str, *, scale: float = 1.0) -> Iterator[None]:
        """Record how long the block took, in seconds times `scale`."""
        start = time.perf_counter()
        yield
        self.add(name, (time.perf_counter() - start) * scale)

    def finish(self, out: Path | None, packages: tuple[str, ...]) -> None:
        """Write the values where run.py reads them, or print them when the program was started by hand."""
        report = {
            "runtime": self.runtime,
            "values": self.values,
            "facts": self.facts,
            "versions": versions(packages),
        }
        if out is not None:
            out.write_text(json.dumps(report))
            return
        print(describe_machine())
        print(f"{self.runtime}: " + ", ".join(f"{name} {version}" for name, version in report["versions"].items()))
        for name, values in self.values.items():
            metric = METRICS[name]
            spread = f"  [{min(values):.4g} .. {max(values):.4g}]" if len(values) > 1 else ""
            print(f"  {metric.title:<50} {metric.summarise(values):>12.4g} {metric.unit}{spread}")


def parser(doc: str | None, runtimes: tuple[str, ...]) -> argparse.ArgumentParser:
    """Return the argument parser that all programs start from."""
    result = argparse.ArgumentParser(description=(doc or "").strip().splitlines()[0])
    result.add_argument("--runtime", choices=runtimes, default="mltoolkit", help="who is measured")
    result.add_argument("--smoke", action="store_true", help="tiny sizes: does the program work, not how fast")
    result.add_argument("--out", type=Path, help="write the values there as JSON instead of printing them")
    return result


def seed_everything() -> None:
    """Fix the seeds of the standard library and, where it is loaded, of NumPy."""
    random.seed(SEED)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(SEED)


def describe_machine() -> str:
    """Return one line: processor, CPUs, memory, system, Python, and the load at this moment."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    memory = psutil.virtual_memory().total / 2**30
    load = f", load {os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else ""
    return (
        f"{model}, {cpu_count()} CPUs, {memory:.0f} GiB, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}{load}"
    )


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Return the installed version of each package that is installed."""
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def run_fresh(command: list[str], record: Recorder, timeout: float = 300) -> float:
    """Run a command that ends with `answer`, and take over what it measured.

    Parameters
    ----------
    command : list of str
        A fresh interpreter and its arguments.
    record : Recorder
        Where the values go.
    timeout : float, default=300
        Seconds after which the command is given up.

    Returns
    -------
    wall : float
        Seconds from its start to its end.
    """
    # Its processes must be told from those of this process, which may itself be one of several with a marker.
    marker = os.environ.get(MARKER, "") + uuid.uuid4().hex
    started = time.monotonic()
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, check=False, env={**os.environ, MARKER: marker}
    )
    wall = time.monotonic() - started
    answers = [line for line in done.stdout.splitlines() if line.startswith("ANSWER ")]
    if done.returncode or not answers:
        raise RuntimeError(
            f"{' '.join(command)} ended with code {done.returncode} and {len(answers)} answers:\n{done.stderr[-4000:]}"
        )
    values, facts = json.loads(answers[-1].removeprefix("ANSWER "))
    for name, each in values.items():
        for value in each:
            record.add(name, value)
    record.facts.update(facts)
    return wall


def session_processes() -> list[psutil.Process]:
    """Return this process, its descendants, and all that inherited this measurement's marker.

    A runtime may detach its servers from the process that started them; the environment gives them away.
    """
    own = psutil.Process()
    found = {own.pid: own}
    found.update((process.pid, process) for process in own.children(recursive=True))
    marker = os.environ.get(MARKER)
    if marker:
        found.update((process.pid, process) for process in marked_processes(marker))
    return list(found.values())


def marked_processes(marker: str) -> list[psutil.Process]:
    """Return the processes in whose environment the value of `MARKER` begins with this one."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARKER, "").startswith(marker):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def session_pss() -> float:
    """Return the proportional set size of all processes of this measurement, in MB."""
    return sum(_pss_bytes(process.pid) or 0 for process in session_processes()) / 1e6


def record_footprint(record: Recorder) -> None:
    """Record memory, number of processes and of TCP listeners of the session that is running now."""
    processes = session_processes()
    proportional = [_pss_bytes(process.pid) for process in processes]
    if all(value is not None for value in proportional):
        record.add("pss", sum(value for value in proportional if value is not None) / 1e6)
    record.add("processes", len(processes))
    listeners = set()
    for process in processes:
        try:
            connections = process.net_connections(kind="tcp")
        except psutil.Error:
            continue
        listeners.update(each.laddr for each in connections if each.status == psutil.CONN_LISTEN)
    record.add("tcp_listeners", len(listeners))
    record.facts["process_pss_mb"] = {
        f"{_name(process)} ({process.pid})": round((value or 0) / 1e6, 1)
        for process, value in zip(processes, proportional, strict=True)
    }


def _name(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())[:80] or process.name()
    except psutil.Error:
        return "ended"


def _pss_bytes(pid: int) -> int | None:
    """Return the proportional set size; 0 for a process that has just ended, `None` where the system cannot tell."""
    if not Path("/proc/self/smaps_rollup").exists():
        return None
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)
