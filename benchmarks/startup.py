"""How long from starting Python to the first task's result, and what does a session weigh?

Starts fresh interpreters. In each: import the runtime, start it, run one no-op task, exit. A second kind of interpreter
brings up two actors as well (worker processes where a runtime has no actors) and looks at all processes of the session:
proportional memory (PSS, the parent included), their number, and the TCP ports that they listen on.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from _harness import Recorder, parser, run_fresh, seed_everything

RUNTIMES = ("mltoolkit", "ray", "dask", "loky", "process")
CHILD = Path(__file__).with_name("_startup_child.py")


def main() -> None:
    """Run the program."""
    options = parser(__doc__, RUNTIMES).parse_args()
    seed_everything()
    record = Recorder(options.runtime)
    command = [sys.executable, str(CHILD)]
    for _ in range(1 if options.smoke else 2):
        # The child's clock is this one: monotonic time is the system's, not the process's.
        wall = run_fresh([*command, "start", options.runtime, repr(time.monotonic())], record)
        record.add("script_wall", wall)
    run_fresh([*command, "footprint", options.runtime], record)
    record.finish(options.out, (options.runtime, "dask", "joblib", "numpy"))


if __name__ == "__main__":
    main()
