"""One fresh interpreter of ppo_cartpole.py: `_ppo_child.py RUNTIME SETTINGS SEED STARTED SIZE`.

Imports next to nothing before the runtime does, so that the harness does not count as start-up time.
"""

from __future__ import annotations

import sys

from _ppo_runtimes import TASKS, Task, learn, preset
from _runtimes import answer

TASK = TASKS["cartpole"]
SMOKE_TASK = Task(TASK.env, 15.0, 5_000)


def main(runtime: str, settings: str, seed: int, started: float, size: str) -> None:
    """Learn with one seed, `started` being the parent's monotonic clock before it started Python."""
    task = SMOKE_TASK if size == "smoke" else TASK
    outcome = learn(runtime, task, seed, preset(task.env) if settings == "same" else None)
    values = {
        "startup": outcome.began - started,
        "training": outcome.seconds,
        "steps": outcome.steps,
        "unsolved": 0.0 if outcome.reached else 1.0,
    }
    answer({f"cartpole_{settings}_{name}": [value] for name, value in values.items()}, {})


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), sys.argv[5])
