"""Every example runs as its docstring says, prints what it promises and nothing on stderr."""

from __future__ import annotations

import ast
import re
import subprocess
import sys

import pytest
from helpers import ROOT, script_env

EXAMPLES = sorted(path.stem for path in (ROOT / "examples").glob("*.py"))

# What the output must show, in this order. An example that is not here must print something all the same.
EXPECTED = {
    "tasks_and_actors": [r"started in .* s with \d+ CPUs", r"16 of 16 batches", r"pi = 3\.14"],
    "parameter_server": [r"before training: 0\.5", r"in step: 0\.9\d+ accuracy after 240", r"freely: 0\.9\d+ accuracy"],
    "nested_tasks": [r"sorted 200,000 numbers in .* 4 levels deep", r"correct: True", r"bin 4: "],
    "attach_to_dask": [
        r"2 nodes, 2 CPUs",
        r"\[0, 1, 4, 9, 16, 25, 36, 49\]",
        r"counted to 3 .*1 pid",
        r"still there: 6",
    ],
    "dask_interop": [
        r"spread of each block: \d",
        r"running mean: 1\.4985",
        r"mean of the first block, by Dask: -0\.0009",
        r"spread of a Dask future: 8\.00",
        r"mean of all blocks, by Dask: 1\.4985",
    ],
    "wine_grid_search": [],
}

pytestmark = pytest.mark.skipif(not EXAMPLES, reason="a distribution without examples/")


def test_expectations_are_of_examples_that_exist():
    assert set(EXPECTED) <= set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name, tmp_path):
    path = ROOT / "examples" / f"{name}.py"
    assert f"python examples/{name}.py" in (ast.get_docstring(ast.parse(path.read_text())) or "")
    done = subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, cwd=tmp_path, env=script_env(), timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.strip()
    assert re.search(".*".join(EXPECTED.get(name, [])), done.stdout, re.DOTALL), done.stdout
