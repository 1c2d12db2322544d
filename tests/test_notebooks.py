"""Every notebook runs from top to bottom, and is kept with the outputs of such a run."""

from __future__ import annotations

import subprocess
import sys

import pytest
from helpers import ROOT, script_env

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

# A process of its own: the kernel's libraries start event loops and threads that would outlive the test.
EXECUTE = """
import sys
import nbformat
from nbclient import NotebookClient

notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=90, kernel_name="python3", resources={"metadata": {"path": "."}}).execute()
nbformat.write(notebook, sys.argv[2])
"""


def output_text(cell):
    parts = []
    for output in cell.outputs:
        assert output.output_type != "error", output
        assert output.get("name") != "stderr", output.text
        parts.append(output.get("text", "") + str(output.get("data", {})))
    return "".join(parts)


def code_cells(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(path, tmp_path):
    executed = tmp_path / path.name
    done = subprocess.run(
        [sys.executable, "-c", EXECUTE, str(path), str(executed)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=script_env({"PYDEVD_DISABLE_FILE_VALIDATION": "1"}),
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    kept, made = code_cells(path), code_cells(executed)
    for before, after in zip(kept, made, strict=True):
        # Times and process numbers differ; whether a cell shows something does not.
        assert bool(output_text(before)) == bool(output_text(after)), before.source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_kept_as_run_in_order(path):
    assert [cell.execution_count for cell in code_cells(path)] == list(range(1, len(code_cells(path)) + 1))
