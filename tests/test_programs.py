"""Programs written for Ray, unmodified and without a main guard, run by `python -m mltoolkit`."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from helpers import ROOT, run_script, script_env

from mltoolkit._optional import is_installed

BESIDE = ROOT.parent / "shared" / "programs"


def matrix(text):
    return [float(n) for n in re.findall(r"-?\d+\.?\d*", text)]


def rising(text):
    rewards = [float(line.split()[1]) for line in text.splitlines() if re.match(r"\d+ -?\d", line)]
    return len(rewards) >= 3 and rewards[-1] > rewards[0]


def learned_from_iteration_to_iteration(text):
    *rows, last = text.splitlines()
    means = [float(row.split(",")[2]) for row in rows]
    return (
        len(means) == 20 and means[-1] > 4 * means[0] and last == "last checkpoint file: checkpoints/checkpoint_000020"
    )


def four_networks_came_to_400(text):
    _, _, table = text.rpartition("Results: ")
    rewards = [float(line.split()[-1]) for line in table.splitlines() if re.match(r"\d +[24]0 ", line)]
    return "4/4 trials" in text and len(rewards) == 4 and min(rewards) >= 400


CHECKS = {
    "core_counter": lambda out: out.strip() == "[1, 2, 3]",
    "core_dot": lambda out: matrix(out) == [0.0] * 25,
    "core_evolution_strategies": rising,
    "core_gpus": lambda out: out.split("\n")[-2] == "done" and sorted(map(int, re.findall(r"\d", out))) == [0, 1, 2],
    "tune_random_forest": lambda out: "'n_estimators': " in out.splitlines()[-1] and out.splitlines()[-1][0] == "{",
    "boosting_wine": lambda out: (
        [line.split()[0] for line in out.splitlines()] == ["xgboost", "lightgbm"]
        and all(float(line.split()[1]) > 0.75 for line in out.splitlines())
    ),
    "boosting_native_api": lambda out: int(out.split()[0]) < 100 and float(out.split()[1]) < 0.06,
    "lightning_digits": lambda out: float(out.split()[-1]) > 0.9,
    "core_map_reduce": lambda out: len(re.findall(r"\('\w+', \d+\)", out)) == 5 and "'is'" in out and "1000" in out,
    "rllib_ppo_cartpole": learned_from_iteration_to_iteration,
    "tune_ppo_layers": four_networks_came_to_400,
}
NEEDS = {
    "rllib_ppo_cartpole": ["gymnasium", "torch"],
    "tune_ppo_layers": ["gymnasium", "pandas", "torch"],
    "lightning_digits": ["pytorch_lightning", "sklearn", "torch"],
    "boosting_wine": ["lightgbm", "pandas", "sklearn", "xgboost"],
    "boosting_native_api": ["sklearn", "xgboost"],
}

# What programs are told on the command line.
ARGUMENTS = {"boosting_wine": [BESIDE.parent / "data" / "winequality-red.csv"]}

# The same ground as the programs beside a checkout, for checkouts that have none.
PROGRAMS = {
    "counter": (
        """
        import ray

        ray.init()

        @ray.remote
        class Counter(object):
            def __init__(self):
                self.value = 0

            def increment(self):
                self.value += 1
                return self.value

        counter = Counter.remote()
        print(ray.get([counter.increment.remote() for _ in range(3)]))
        """,
        lambda out: out == "[1, 2, 3]\n",
    ),
    "tree_reduction": (
        """
        import numpy as np
        import ray

        ray.init()

        @ray.remote
        def make(n):
            return np.full((n, n), 1.0)

        @ray.remote
        def add(a, b):
            return a + b

        parts = [make.remote(4) for _ in range(8)]
        while len(parts) > 1:
            parts = parts[2:] + [add.remote(parts[0], parts[1])]
        print(ray.get(parts[0]).sum())
        """,
        lambda out: out == "128.0\n",
    ),
    "many_simulations": (
        """
        import ray
        import numpy as np

        ray.init(num_cpus=2)

        @ray.remote
        class Simulator:
            def __init__(self, seed):
                self.rng = np.random.default_rng(seed)

            def rollout(self, policy):
                return float(-np.sum((policy - 0.5) ** 2))

        simulators = [Simulator.remote(i) for i in range(30)]
        policy = np.zeros(10)
        for step in range(4):
            policy = policy + 0.1
            rewards = ray.get([s.rollout.remote(policy) for s in simulators])
            print(step, round(float(np.mean(rewards)), 3))
        """,
        rising,
    ),
    "logical_gpus": (
        """
        import os
        import ray

        ray.init(num_cpus=2, num_gpus=4)

        @ray.remote(num_gpus=2)
        class Holder:
            def ids(self):
                return [int(i) for i in ray.get_gpu_ids()], os.environ["CUDA_VISIBLE_DEVICES"]

        holders = [Holder.remote(), Holder.remote()]
        held = ray.get([h.ids.remote() for h in holders])
        print(sorted(i for ids, _ in held for i in ids))
        """,
        lambda out: out == "[0, 1, 2, 3]\n",
    ),
    "wait_loop": (
        """
        import ray
        from ray.exceptions import GetTimeoutError
        from ray.util.placement_group import placement_group

        if not ray.is_initialized():
            ray.init(ignore_reinit_error=True)

        @ray.remote(num_returns=2)
        def divide(a, b):
            return divmod(a, b)

        refs = [divide.remote(i, 3)[1] for i in range(10)]
        total = 0
        while refs:
            ready, refs = ray.wait(refs, num_returns=1, timeout=30)
            total += sum(ray.get(ready))
        print(total, ray.__name__ in ("ray", "mltoolkit"))
        ray.shutdown()
        """,
        lambda out: out == "9 True\n",
    ),
    "tune_returned_number": (
        """
        import ray
        from ray import tune

        ray.init(num_cpus=2)

        def objective(config):
            return (config["a"] - 2) ** 2 + config["b"]

        analysis = tune.run(
            objective,
            config={"a": tune.grid_search([1, 2, 3]), "b": tune.sample_from(lambda spec: spec.config.a * 0)},
            metric="loss",
            mode="min",
            verbose=0,
        )
        print(analysis.best_config, len(analysis.trials), analysis.best_trial.last_result["loss"])
        """,
        lambda out: out == "{'a': 2, 'b': 0} 3 0\n",
    ),
    "tune_air_session": (
        """
        from ray import tune
        from ray.air import session, RunConfig
        from ray.tune.schedulers import ASHAScheduler
        from ray.tune.search import ConcurrencyLimiter
        from ray.tune.suggest import ConcurrencyLimiter as Older
        from ray.tune.suggest.basic_variant import BasicVariantGenerator
        from ray.tune import CLIReporter

        def train_fn(config):
            for epoch in range(8):
                session.report({"mean_accuracy": config["lr"] * epoch})

        tuner = tune.Tuner(
            tune.with_resources(train_fn, {"cpu": 1}),
            param_space={"lr": tune.grid_search([0.1, 0.2, 0.4])},
            tune_config=tune.TuneConfig(metric="mean_accuracy", mode="max", scheduler=ASHAScheduler()),
            run_config=RunConfig(name="air", stop={"training_iteration": 5}, verbose=0),
        )
        results = tuner.fit()
        assert Older is ConcurrencyLimiter
        print(results.get_best_result().config["lr"], results.get_best_result().metrics["training_iteration"])
        """,
        lambda out: out == "0.4 5\n",
    ),
    "by_itself": (
        """
        import ray

        @ray.remote
        def hello(name):
            return "hello " + name

        print(ray.get(hello.remote("world")))
        """,
        lambda out: out == "hello world\n",
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_program(tmp_path, name):
    source, check = PROGRAMS[name]
    done = run_script(source, tmp_path, python_args=["-m", "mltoolkit"])
    assert check(done.stdout), done.stdout
    assert done.stderr == ""


@pytest.mark.timeout(420)  # those of reinforcement learning compute for a minute on a machine that does nothing else
@pytest.mark.parametrize("name", CHECKS)
def test_program_beside_the_checkout(tmp_path, name):
    path = BESIDE / f"{name}.py"
    if not path.exists():
        pytest.skip(f"no {Path(*path.parts[-3:])} beside this checkout")
    missing = [package for package in NEEDS.get(name, []) if not is_installed(package)]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    if not all(argument.exists() for argument in ARGUMENTS.get(name, [])):
        pytest.skip("its data is not beside this checkout")
    done = subprocess.run(
        [sys.executable, "-m", "mltoolkit", str(path), *map(str, ARGUMENTS.get(name, []))],
        env=script_env({"MLTOOLKIT_RESULTS_DIR": str(tmp_path / "results")}),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    assert CHECKS[name](done.stdout), done.stdout


def test_arguments_and_exit_code_of_the_program(tmp_path):
    source = """
        import sys
        import ray

        ray.init(num_cpus=1)
        print(ray.get(ray.remote(lambda x: x).remote(sys.argv[1:])))
        sys.exit(5)
        """
    done = run_script(source, tmp_path, "--flag", "-v", "x", python_args=["-m", "mltoolkit"], check=False)
    assert done.returncode == 5
    assert done.stdout == "['--flag', '-v', 'x']\n"


def test_modules_imported_by_tasks_may_say_import_ray(tmp_path):
    library = """
        import ray

        @ray.remote
        def double(x):
            return 2 * x

        def use(x):
            return ray.get(double.remote(x))
        """
    (tmp_path / "user_library.py").write_text(textwrap.dedent(library))
    done = run_script(
        """
        import ray
        import user_library

        @ray.remote
        def outer(x):
            import user_library as inside
            return inside.use(x)

        print(ray.get(outer.remote(4)), user_library.use(1))
        """,
        tmp_path,
        python_args=["-m", "mltoolkit"],
    )
    assert done.stdout.split() == ["8", "2"]
