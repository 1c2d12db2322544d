"""`python -m benchmarks` is `python benchmarks/run.py`."""

from __future__ import annotations

import sys
from pathlib import Path

# The programs run as scripts, in interpreters that know nothing of this repository, and import each other by bare name.
sys.path.insert(0, str(Path(__file__).parent))

from run import main

if __name__ == "__main__":
    sys.exit(main())
