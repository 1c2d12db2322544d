"""Every example runs as its docstring says, prints what it promises and nothing on stderr."""

from __future__ import annotations

import ast
import re
import subprocess
import sys

import pytest
from helpers import ROOT, script_env

from mltoolkit._optional import is_installed

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
    "tune_wine_asha": [
        r"wines to train on",
        r"50/50 trials in .*50 TERMINATED",
        r"50 samples in .* s: \d{3} epochs instead of 800",
        r"best loss 0\.0\d+, accuracy (1\.000|0\.9\d\d)",
        r"with lr = 0\.\d+, momentum = 0\.\d+",
    ],
    "tune_random_forest": [
        r"16/16 trials in .*16 TERMINATED",
        r"best accuracy 0\.9\d\d with .*'n_estimators': 40",
        r"n_estimators: 0\.8\d\d with 10, 0\.9\d\d with 40",
    ],
    "tune_xgboost_asha": [r"30 samples in .* s: \d{3} rounds instead of 1920", r"best log loss 0\.\d+, error 0\.0\d+"],
    "boosting_wine": [
        r"wines with 1\d measurements",
        r"RayXGBClassifier +0\.[6-9]\d\d",
        r"RayLGBMClassifier +0\.[6-9]\d\d",
        r"RayXGBRFRegressor +0\.",
        r"RayLGBMRegressor +0\.",
        r"XGBoost +0\.[6-9]\d\d",
        r"LightGBM +0\.[6-9]\d\d",
    ],
    "boosting_early_stopping": [
        r"the best of 500 rounds was \d\d?, log loss 0\.1",
        r"round \d+ of \d\d, AUC 0\.98",
        r"killed: True; the same model in the end: True",
    ],
    "boosting_ranking": [
        r"35 queries to learn from, 12 to rank",
        r"XGBoost: .*0\.[6-9]\d of them",
        r"LightGBM: .*0\.[6-9]\d of them",
        r"first three: 0\.[89]",
        r"at random: 0\.3",
    ],
    "boosting_parquet": [r"has read 8000 rows; features: x0, x1, x2, x3, x4, x5\n", r"them: 0\.9", r"same data: 0\.9"],
    "boosting_dask": [
        r"6 partitions",
        r"\[40\]\ttest-rmse:0\.1",
        r"XGBoost:  error 0\.1\d+ .* 2\.1",
        r"LightGBM: error 0\.1",
    ],
    "boosting_sweep": [r"6 samples in .* s: \d+ rounds of 144", r"best log loss 0\.[01]\d+", r"model: 24 rounds"],
    "train_wine": [
        r"2 workers, 5 batches each\n",
        r"epoch  1: loss \d",
        r"epoch 20: loss 0\.0",
        r"in this process: accuracy (1\.000|0\.9\d\d)",
    ],
    "train_fault_tolerance": [
        r"without another try: Rank 1 of 2 .*SIGKILL",
        r"died: 0 1 2 3 4 5 6\n",
        r"checkpoint on: 7 8 9 10 11\n",
        r"with epoch 7, loss in the end 0\.",
    ],
    "train_sweep": [r"6 trials with 2 workers each in .* s: [1-5]\d epochs instead of 54", r"best accuracy 0\.[89]"],
    "train_xgboost": [
        r"parameters: valid-logloss 0\.4\d\d -> 0\.1\d\d",
        r"2 workers, 213 rows each, go on from round 0\n",
        r"2 workers, 213 rows each, go on from round 15\n",
        r"function: 30 rounds, 0\.0\d\d of 143 wrong",
    ],
    "lightning_wine": [
        r"178 wines with 13",
        r"plain torch +(1\.000|0\.9\d\d) in",
        r"Lightning +(1\.000|0\.9\d\d) in",
        r"two workers +(1\.000|0\.9\d\d) in",
        r"six workers +(1\.000|0\.9\d\d) in",
    ],
    "lightning_digits": [
        r"epoch \d+, step \d+, 0\.[12]\d\d at best",
        r"epoch=\d+-step=\d+\.ckpt",
        r"losses: \d\.\d\d .* 0\.\d\d\n",
        r"accuracy 0\.9\d\d of the best",
        r"accuracy 0\.9\d\d of predictions",
    ],
    "tune_pbt": [
        r"without exchange: Q = 0\.390, 0\.390 after 100 steps",
        r"with PBT: Q = 1\.[12]\d+, 1\.[12]\d+ after",
        r"from step   1: h = \((1\.00, 0\.00|0\.00, 1\.00)\)",
    ],
    "tune_optuna": [
        r"sweep: 24 trials in .*'forest': \d.*\n  accuracy 0\.9",
        r"study: 24 trials in .* [1-9]\d* of them pruned\n  accuracy (1\.000|0\.9)",
    ],
    "tune_restore": [
        r"driver: \d of 8 trials have finished",
        r"the driver ended with SIGKILL",
        r"restored: 8 of 8 trials have finished, 0 failed",
        r"[4-8] had been through before, 0 of their steps were taken again",
    ],
    "rllib_cartpole": [
        r"iteration +steps +mean return",
        r"solved in \d+\.\d s",
        r"likeliest actions: (4[5-9]|500)",
        r"by hand: \d+",
    ],
    "rllib_cartpole_classic": [r"20,\d{3} steps in", r"one more iteration: mean (\d+\.\d{4})\n", r"the same: True"],
    "rllib_custom_env": [
        r"iteration 1: return  -\d",
        r"iteration 6: return   0\.",
        r"the best there is: 0\.30",
        r"at each place: >{8}\n",
    ],
    "rllib_pendulum": [
        r"16,384 steps,.*mean return -1\d{3}",
        r"without exploration: -\d{3}\.",
        r"torque at 197 degrees: ",
    ],
    "rllib_tune_layers": [
        r"4/4 trials in .*4 TERMINATED",
        r"hidden layers",
        r"16 and 64",
        r"fewest steps with \[(16|64), (16|64)\]",
        r"over ten episodes",
    ],
    "rllib_serve": [
        r"saved checkpoint_0000\d\d",
        r"10 episodes: \d+.*filmed episode\.gif, \d\d+ kB",
        r"several: \{'ada': 1, 'bob': 0\}",
        r"torch alone: \[1, 0\]",
    ],
    "rllib_custom_model": [
        r"TorchModelV2:\n.*leans by .*penalty \d",
        r"solved: False",
        r"RLModule:\n.*after 12,\d{3} steps: return +[3-9]\d",
    ],
    "rllib_env_runners": [
        r"0 runners: .* steps/s",
        r"2 runners: .* steps/s",
        r"killed: 2 at work, 1 restarted, 1,6\d\d steps",
    ],
}

# Packages that an example is about; without them it cannot run.
NEEDS = {
    "tune_wine_asha": ["pandas", "sklearn", "torch"],
    "tune_random_forest": ["pandas", "sklearn"],
    "tune_xgboost_asha": ["sklearn", "xgboost"],
    "boosting_wine": ["lightgbm", "pandas", "sklearn", "xgboost"],
    "boosting_early_stopping": ["lightgbm", "sklearn", "xgboost"],
    "boosting_ranking": ["lightgbm", "sklearn", "xgboost"],
    "boosting_parquet": ["lightgbm", "pandas", "pyarrow", "xgboost"],
    "boosting_dask": ["dask.dataframe", "lightgbm", "pandas", "pyarrow", "xgboost"],
    "boosting_sweep": ["lightgbm", "pandas", "sklearn"],
    "train_wine": ["pandas", "sklearn", "torch"],
    "train_fault_tolerance": ["pandas", "sklearn", "torch"],
    "train_sweep": ["pandas", "sklearn", "torch"],
    "train_xgboost": ["pandas", "sklearn", "xgboost"],
    "lightning_wine": ["lightning", "pandas", "sklearn"],
    "lightning_digits": ["lightning", "sklearn"],
    "tune_pbt": ["pandas"],
    "tune_optuna": ["optuna", "sklearn"],
    "rllib_cartpole": ["gymnasium", "torch"],
    "rllib_cartpole_classic": ["gymnasium", "torch"],
    "rllib_custom_env": ["gymnasium", "torch"],
    "rllib_pendulum": ["gymnasium", "torch"],
    "rllib_tune_layers": ["gymnasium", "pandas", "torch"],
    "rllib_serve": ["gymnasium", "imageio", "pygame", "torch"],
    "rllib_custom_model": ["gymnasium", "torch"],
    "rllib_env_runners": ["gymnasium", "torch"],
}

pytestmark = pytest.mark.skipif(not EXAMPLES, reason="a distribution without examples/")


def test_expectations_are_of_examples_that_exist():
    assert set(EXPECTED) | set(NEEDS) <= set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name, tmp_path):
    missing = [package for package in NEEDS.get(name, []) if not is_installed(package)]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    path = ROOT / "examples" / f"{name}.py"
    assert f"python examples/{name}.py" in (ast.get_docstring(ast.parse(path.read_text())) or "")
    env = script_env({"MLTOOLKIT_RESULTS_DIR": str(tmp_path / "results")})
    done = subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, cwd=tmp_path, env=env, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.strip()
    assert re.search(".*".join(EXPECTED.get(name, [])), done.stdout, re.DOTALL), done.stdout
