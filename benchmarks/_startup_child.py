"""One fresh interpreter of startup.py: `_startup_child.py KIND RUNTIME STARTED`.

Imports nothing before the runtime does, so that the harness does not count as start-up time.
"""

from __future__ import annotations

import sys
import time

from _runtimes import answer, make_runtime


def start(name: str, started: float) -> None:
    """Measure the way to the first result, `started` being the parent's monotonic clock before it started Python."""
    entered = time.monotonic()
    runtime = make_runtime(name)
    marks = [time.monotonic()]
    for step in (runtime.load, runtime.init, runtime.first_task):
        step()
        marks.append(time.monotonic())
    runtime.close()
    values = {
        "interpreter": entered - started,
        "import": marks[1] - marks[0],
        "init": marks[2] - marks[1],
        "first_result": marks[3] - started,
        "first_result_no_import": marks[3] - marks[1],
    }
    answer({name: [value] for name, value in values.items()}, {})


def footprint(name: str) -> None:
    """Look at the processes of a session that has run a task and holds two actors."""
    runtime = make_runtime(name)
    runtime.load()
    runtime.init()
    runtime.first_task()
    runtime.two_workers()

    from _harness import Recorder, record_footprint

    record = Recorder(name)
    record_footprint(record)
    runtime.close()
    answer(record.values, record.facts)


if __name__ == "__main__":
    if sys.argv[1] == "start":
        start(sys.argv[2], float(sys.argv[3]))
    else:
        footprint(sys.argv[2])
