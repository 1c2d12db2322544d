"""The benchmark programs work and report what they promise; how fast things are is no test's business."""

from __future__ import annotations

import ast
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT, script_env

BENCHMARKS = ROOT / "benchmarks"
PROGRAMS = (
    "startup",
    "core",
    "joblib_backend",
    "multiprocessing_pool",
    "tune_trials",
    "tune_results",
    "tune_wine",
    "tune_quality",
    "ppo_cartpole",
    "ppo_sampling",
    "ppo_quality",
    "ppo_learner",
    "boosting",
    "lightning_workers",
    "run",
)
NEEDS = {
    "joblib_backend": ("sklearn",),
    "tune_wine": ("sklearn", "torch"),
    "tune_quality": ("optuna",),
    **dict.fromkeys(("ppo_cartpole", "ppo_sampling", "ppo_quality", "ppo_learner"), ("gymnasium", "torch")),
    "boosting": ("sklearn", "xgboost"),
    "lightning_workers": ("lightning",),
}

pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="a distribution without benchmarks/")


@pytest.fixture
def module(monkeypatch):
    """Import a module of benchmarks/, and forget it afterwards."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    known = set(sys.modules)

    yield importlib.import_module
    for name in set(sys.modules) - known:
        if str(BENCHMARKS) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def run_benchmarks(*arguments, timeout=110):
    return subprocess.run(
        [sys.executable, str(BENCHMARKS / "run.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=script_env(),
        check=False,
    )


@pytest.fixture
def wines(tmp_path):
    """A small file like the wine-quality sets of the UCI repository."""
    path = tmp_path / "wines.csv"
    rows = [[*(f"{(7 * row + 3 * column) % 11 / 2:g}" for column in range(11)), 5 + row % 3] for row in range(120)]
    titles = ";".join(f'"measurement {column}"' for column in range(11)) + ';"quality"'
    path.write_text("\n".join([titles, *(";".join(map(str, row)) for row in rows)]) + "\n")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS[:-1])
def test_a_program_measures_every_row_that_it_should(program, tmp_path, module, wines):
    for package in NEEDS.get(program, ()):
        pytest.importorskip(package)
    report = tmp_path / "report.json"
    # Every process of trials would import scikit-learn for its bundled wines; joblib_backend.py uses them.
    data = ["--wine", str(wines)] if program == "tune_wine" else []
    done = run_benchmarks("--smoke", "--runtimes", "mltoolkit", "--programs", program, "--json", str(report), *data)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(report.read_text())
    measured = {row["metric"]: row["runtimes"]["mltoolkit"]["median"] for row in found["rows"]}
    expected = [name for name, metric in module("_metrics").METRICS.items() if metric.program == program]
    if not Path("/proc/self/smaps_rollup").exists():
        expected.remove("pss")
    assert sorted(measured) == sorted(expected)
    counts = [name for name in expected if name == "tcp_listeners" or name.endswith("_unsolved")]
    assert all(value > 0 for name, value in measured.items() if name not in counts)
    if program == "startup":
        assert measured["tcp_listeners"] == 0
    assert found["errors"] == []
    assert found["machine"] in done.stdout
    assert "mltoolkit" in found["versions"]["mltoolkit"]
    for row in found["rows"]:
        assert row["title"] in done.stdout


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_opens_with_its_question(program):
    text = ast.get_docstring(ast.parse((BENCHMARKS / f"{program}.py").read_text()))
    assert text is not None
    assert text.splitlines()[0].endswith("?")


def test_a_failing_program_is_reported_and_others_go_on(tmp_path):
    report = tmp_path / "report.json"
    code = "import sys\nsys.modules['ray'] = None\n"
    (tmp_path / "sitecustomize.py").write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, str(BENCHMARKS / "run.py"), "--smoke", "--programs", "startup", "--json", str(report)]
    command += ["--peers-python", sys.executable, "--runtimes", "ray", "process"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)
    assert done.returncode == 1
    found = json.loads(report.read_text())
    assert len(found["errors"]) == 1
    assert found["errors"][0].startswith("ray, startup: ")
    assert "ModuleNotFoundError" in found["errors"][0]
    assert found["errors"][0] in done.stderr
    assert [list(row["runtimes"]) for row in found["rows"] if row["metric"] == "init"] == [["process"]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "0"], "`--rounds` must be at least 1, got 0"),
        (["--peers-python", "no/such/python"], "no/such/python does not exist"),
        (["--wine", "no/such.csv"], "no/such.csv does not exist"),
    ],
)
def test_bad_arguments_are_refused(arguments, message, module, capsys):
    with pytest.raises(SystemExit) as caught:
        module("run").parse(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_without_peers_ray_is_left_out_and_said_so(module, capsys):
    options = module("run").parse([])
    assert "ray" not in options.runtimes
    assert "loky" in options.runtimes
    assert "Ray is left out" in capsys.readouterr().out


@pytest.mark.parametrize(("better", "ours", "theirs", "ratio"), [("lower", 2, 8, 4), ("higher", 8, 2, 4)])
def test_a_ratio_above_one_is_better_in_both_directions(better, ours, theirs, ratio, module):
    metrics = module("_metrics")
    metric = metrics.Metric("title", "program", "s", better)
    assert metrics.times_better(metric, ours, theirs) == ratio
    assert metrics.times_better(metric, theirs, ours) == 1 / ratio


def test_nothing_against_nothing_is_a_draw(module):
    metrics = module("_metrics")
    metric = metrics.METRICS["tcp_listeners"]
    assert metrics.times_better(metric, 0, 0) == 1
    assert metrics.times_better(metric, 0, 3) == float("inf")


def test_an_aim_is_met_missed_or_not_measured(module):
    table = module("_table")
    samples = {
        "task_burst_2000": {"mltoolkit": [300.0, 100.0, 200.0], "ray": [110.0]},
        "actor_sync": {"mltoolkit": [1000.0], "ray": [100.0]},
        "put_50mb": {"mltoolkit": [1.0]},
        "tcp_listeners": {"mltoolkit": [1.0]},
    }
    rows = {row["metric"]: row for row in table.summarise(samples)}
    assert rows["task_burst_2000"]["runtimes"]["mltoolkit"]["median"] == 200
    assert rows["task_burst_2000"]["times_better_than"] == {"ray": pytest.approx(200 / 110)}
    assert [each["met"] for each in rows["task_burst_2000"]["aims"]] == [False]
    assert [each["met"] for each in rows["actor_sync"]["aims"]] == [True]
    assert [each["met"] for each in rows["put_50mb"]["aims"]] == [None]
    assert [each["met"] for each in rows["tcp_listeners"]["aims"]] == [False]
    text = table.render(list(rows.values()))
    assert "2x ray: MISSED" in text
    assert "4x ray: met" in text
    assert "1x ray: not measured" in text


def test_different_scores_are_an_error(module):
    run = module("run")
    same = {"ray": {"tree_grid_score": 1.25}, "loky": {"tree_grid_score": 1.25}}
    assert run.disagreements(same) == []
    (error,) = run.disagreements({**same, "dask": {"tree_grid_score": 1.5}})
    assert "tree_grid_score" in error
    assert "1.5" in error
