"""What the benchmarks measure, in which unit, which direction is better, and what mltoolkit aims at."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Literal

from _runtimes import cpu_count

RUNTIMES = (
    *("mltoolkit", "ray", "dask", "loky", "optuna", "optuna_procs", "sb3"),
    *("ddp_fork", "ddp_spawn", "torchrun", "stdlib", "process"),
)
"""Columns of the table: the package, its peers, the standard library's pool, and one process without any of them.

Optuna has two: with its own threads, and in processes that share a study. `sb3` is Stable-Baselines3; `ddp_fork` and
`ddp_spawn` are Lightning's own strategies.
"""


@dataclass(frozen=True)
class Aim:
    """A goal for one metric.

    Parameters
    ----------
    against : str or None
        The runtime that is compared with, measured in the same run; `None` for an absolute limit.
    factor : float
        With `against`: how many times better than it. Without: the limit itself, in the metric's unit.
    """

    against: str | None
    factor: float


@dataclass(frozen=True)
class Metric:
    """One row of the table: what is measured, by which program, in which unit, and whether less or more is better.

    Its samples are summarised by their median, or by their mean: the median of what is 0 or 1 hides what is rare.
    """

    title: str
    program: str
    unit: str
    better: Literal["lower", "higher"]
    aims: tuple[Aim, ...] = field(default=())
    summary: Literal["median", "mean"] = "median"

    def summarise(self, values: list[float]) -> float:
        """Return the one value that stands for all samples."""
        return statistics.median(values) if self.summary == "median" else statistics.fmean(values)


def _ray(factor: float) -> tuple[Aim, ...]:
    return (Aim("ray", factor),)


def _search(title: str) -> Metric:
    return Metric(title, "joblib_backend", "s", "lower", (Aim("loky", 1.0), Aim("ray", 2.5)))


_BARE = Aim("process", round(cpu_count() / 1.3, 2))
"""At most 1.3 times what one process takes, divided by the number of CPUs."""

_OPTUNA = (Aim("optuna", 1.0),)

_PPO_PEERS = (Aim("ray", 1.0), Aim("sb3", 1.0))
_ALL_SEEDS = (Aim(None, 0.0),)


def _sampling(runners: int, envs: int) -> Metric:
    where = {0: "in this process", 1: "1 runner"}.get(runners, f"{runners} runners")
    what = f"{envs} environment{'s' * (envs > 1)}{' each' * (runners > 1)}"
    sb3 = (Aim("sb3", 3.0),) if runners == 0 or envs == 1 else ()
    ray = (Aim("ray", 5.0),) if runners < 8 else ()
    return Metric(f"sampling, {where}, {what}", "ppo_sampling", "1/s", "higher", (*ray, *sb3))


def _updates(title: str) -> Metric:
    return Metric(f"update, {title}", "ppo_learner", "ms", "lower", (Aim("process", 1.0),))


def _cartpole(settings: str) -> dict[str, Metric]:
    name, title = f"cartpole_{settings}", f"CartPole-v1, {'its own' if settings == 'own' else 'the same'} settings"
    aims = (Aim(None, 5.0), *_PPO_PEERS) if settings == "own" else _PPO_PEERS
    return {
        name: Metric(f"{title}, whole script", "ppo_cartpole", "s", "lower", aims),
        f"{name}_startup": Metric(f"{title}, start-up", "ppo_cartpole", "s", "lower"),
        f"{name}_training": Metric(f"{title}, training", "ppo_cartpole", "s", "lower"),
        f"{name}_steps": Metric(f"{title}, environment steps", "ppo_cartpole", "count", "lower"),
        f"{name}_unsolved": Metric(
            f"{title}, share of seeds unsolved", "ppo_cartpole", "1", "lower", _ALL_SEEDS, "mean"
        ),
    }


def _quality(name: str, title: str) -> dict[str, Metric]:
    sb3 = (Aim("sb3", 1.0),)
    return {
        f"{name}_steps": Metric(f"{title}, environment steps", "ppo_quality", "count", "lower", sb3),
        f"{name}_training": Metric(f"{title}, training", "ppo_quality", "s", "lower", sb3),
        f"{name}_unsolved": Metric(
            f"{title}, share of seeds unsolved", "ppo_quality", "1", "lower", _ALL_SEEDS, "mean"
        ),
    }


METRICS: dict[str, Metric] = {
    # startup.py
    "interpreter": Metric("interpreter start", "startup", "s", "lower"),
    "import": Metric("import", "startup", "s", "lower"),
    "init": Metric("init alone", "startup", "s", "lower"),
    "first_result": Metric("start to first task result, import included", "startup", "s", "lower", _ray(10)),
    "first_result_no_import": Metric("start to first task result, without import", "startup", "s", "lower", _ray(10)),
    "script_wall": Metric("whole script: import, init, one task, exit", "startup", "s", "lower", (Aim(None, 1.0),)),
    "pss": Metric("memory of all processes with 2 actors (PSS)", "startup", "MB", "lower", _ray(3)),
    "processes": Metric("processes with 2 actors", "startup", "count", "lower"),
    "tcp_listeners": Metric("TCP listeners", "startup", "count", "lower", (Aim(None, 0.0),)),
    # core.py: tasks
    "task_sync": Metric("no-op task, sync", "core", "1/s", "higher", _ray(1)),
    "task_sync_p50": Metric("no-op task, latency p50", "core", "us", "lower"),
    "task_sync_p95": Metric("no-op task, latency p95", "core", "us", "lower"),
    "task_sync_p99": Metric("no-op task, latency p99", "core", "us", "lower"),
    "task_burst_2000": Metric("burst of 2,000 no-op tasks", "core", "1/s", "higher", _ray(2)),
    "task_burst_10000": Metric("burst of 10,000 no-op tasks", "core", "1/s", "higher"),
    # core.py: actors
    "actor_create": Metric("actor creation, one at a time", "core", "ms", "lower", _ray(10)),
    "actor_create_50": Metric("actor creation, 50 at once, per actor", "core", "ms", "lower", _ray(10)),
    "actor_sync": Metric("actor call, sync", "core", "1/s", "higher", _ray(4)),
    "actor_sync_p50": Metric("actor call, latency p50", "core", "us", "lower"),
    "actor_sync_p95": Metric("actor call, latency p95", "core", "us", "lower"),
    "actor_sync_p99": Metric("actor call, latency p99", "core", "us", "lower"),
    "actor_async_5000": Metric("actor calls, burst of 5,000", "core", "1/s", "higher", _ray(10)),
    # core.py: objects
    "put_small": Metric("put of small objects", "core", "1/s", "higher", _ray(3)),
    "get_small": Metric("get of local small objects", "core", "1/s", "higher", _ray(1)),
    "put_50mb_first": Metric("put of 50 MB, first of the session", "core", "ms", "lower"),
    "put_50mb": Metric("put of 50 MB", "core", "ms", "lower", _ray(1)),
    "get_50mb": Metric("get of 50 MB", "core", "ms", "lower", _ray(1)),
    "get_50mb_result": Metric("get of a 50 MB task result that is ready", "core", "ms", "lower", _ray(1)),
    "return_50mb": Metric("task that returns 50 MB, call to value", "core", "ms", "lower"),
    "pass_50mb_50_tasks": Metric("50 MB ref passed to 50 tasks", "core", "ms", "lower", _ray(1)),
    # joblib_backend.py
    "sklearn_import": Metric("import of scikit-learn (in no other row)", "joblib_backend", "s", "lower"),
    "tree_grid_cold": _search("decision-tree grid, 80 x 5 fits, cold"),
    "tree_grid_warm": _search("decision-tree grid, 80 x 5 fits, warm"),
    "forest_grid_cold": _search("random-forest grid, 12 x 5 fits, cold"),
    "forest_grid_warm": _search("random-forest grid, 12 x 5 fits, warm"),
    # multiprocessing_pool.py
    "pool_map_cold": Metric("Pool.map(f, range(1000)), cold", "multiprocessing_pool", "ms", "lower"),
    "pool_map_warm": Metric(
        "Pool.map(f, range(1000)), warm", "multiprocessing_pool", "ms", "lower", (Aim("stdlib", 0.5),)
    ),
    "joblib_inc_cold": Metric("joblib 1000 x inc, cold", "multiprocessing_pool", "ms", "lower", (Aim("loky", 1.0),)),
    "joblib_inc_warm": Metric("joblib 1000 x inc, warm", "multiprocessing_pool", "ms", "lower", (Aim("loky", 1.0),)),
    # tune_trials.py
    "tune_import": Metric("import of tune", "tune_trials", "s", "lower"),
    "tune_first_result": Metric("import of tune to a sweep's first result", "tune_trials", "s", "lower", _ray(5)),
    "trials_100": Metric("sweep of 100 no-op trials, without import", "tune_trials", "s", "lower", (Aim(None, 1.0),)),
    "trials_1000": Metric("no-op trials, sweep of 1,000", "tune_trials", "1/s", "higher", _ray(50)),
    "trials_10000": Metric("sweep of 10,000 no-op trials", "tune_trials", "s", "lower", (Aim(None, 60.0),)),
    "trial_first_1000": Metric("a trial, first 1,000 of 10,000", "tune_trials", "ms", "lower"),
    "trial_last_1000": Metric("a trial, last 1,000 of 10,000", "tune_trials", "ms", "lower"),
    "trials_10000_rss": Metric("driver's peak memory, 10,000 trials", "tune_trials", "MB", "lower"),
    "trial_memory": Metric("driver's memory, each trial more", "tune_trials", "kB", "lower"),
    # tune_results.py
    "result_few": Metric("a result, 100,000 of 4 trials", "tune_results", "us", "lower", _ray(5)),
    "result_few_cpu": Metric("a result, driver's CPU, 4 trials", "tune_results", "us", "lower", _ray(5)),
    "result_few_cpu_first": Metric("a result, driver's CPU, 4 trials, first tenth", "tune_results", "us", "lower"),
    "result_few_cpu_last": Metric("a result, driver's CPU, 4 trials, last tenth", "tune_results", "us", "lower"),
    "result_many": Metric("a result, 100,000 of 1,000 trials", "tune_results", "us", "lower", _ray(5)),
    "result_many_cpu": Metric("a result, driver's CPU, 1,000 trials", "tune_results", "us", "lower", _ray(5)),
    "result_many_cpu_first": Metric("a result, driver's CPU, 1,000 trials, first tenth", "tune_results", "us", "lower"),
    "result_many_cpu_last": Metric("a result, driver's CPU, 1,000 trials, last tenth", "tune_results", "us", "lower"),
    "results_rss": Metric("driver's peak memory, 100,000 results", "tune_results", "MB", "lower"),
    # tune_wine.py
    "torch_import": Metric("import of torch (in the rows of whole scripts)", "tune_wine", "s", "lower"),
    "wine_fifo": Metric("40 networks x 10 epochs, whole script", "tune_wine", "s", "lower", (*_ray(15), _BARE)),
    "wine_fifo_again": Metric("40 networks x 10 epochs, in a running session", "tune_wine", "s", "lower", (_BARE,)),
    "wine_asha": Metric("40 networks, ASHA, whole script", "tune_wine", "s", "lower", _ray(15)),
    "wine_asha_epochs": Metric("epochs that ASHA ran, of 400", "tune_wine", "count", "lower"),
    # boosting.py
    "boost_train": Metric(
        "XGBoost, 500,000 x 28, 50 rounds, 2 ranks, with start",
        "boosting",
        "s",
        "lower",
        (Aim("process", 0.8), Aim("dask", 1.0), Aim("ray", 1.0)),
    ),
    "boost_loss": Metric("its log-loss", "boosting", "1", "lower", (Aim("process", 0.99),)),
    "boost_peak": Metric(
        "its peak memory, all processes (PSS)", "boosting", "MB", "lower", (Aim("process", 0.77), Aim("dask", 1.0))
    ),
    "boost_wine_cost": Metric(
        "XGBoost, wines, 3 ranks: more than one process takes", "boosting", "s", "lower", (Aim(None, 1.0),)
    ),
    "lightgbm_train": Metric(
        "LightGBM, 500,000 x 28, 50 rounds, 2 ranks, with start",
        "boosting",
        "s",
        "lower",
        (Aim("process", 0.8), Aim("dask", 1.0)),
    ),
    "lightgbm_loss": Metric("its log-loss", "boosting", "1", "lower", (Aim("process", 0.99),)),
    "lightgbm_peak": Metric(
        "its peak memory, all processes (PSS)", "boosting", "MB", "lower", (Aim("process", 0.77), Aim("dask", 1.0))
    ),
    "lightgbm_wine_cost": Metric(
        "LightGBM, wines, 3 ranks: more than one process takes", "boosting", "s", "lower", (Aim(None, 1.0),)
    ),
    # lightning_workers.py
    "lightning_fit": Metric(
        "Lightning, 1,000 steps of a small network, 2 workers, with start",
        "lightning_workers",
        "s",
        "lower",
        (Aim("ddp_fork", 1.0), Aim("ray", 6.0)),
    ),
    "lightning_fit_first_step": Metric("its first step", "lightning_workers", "s", "lower", (Aim(None, 1.0),)),
    "lightning_again": Metric(
        "the same again in a running session", "lightning_workers", "s", "lower", (Aim("ddp_fork", 1.0),)
    ),
    "lightning_again_first_step": Metric("its first step", "lightning_workers", "s", "lower"),
    "ddp_step": Metric(
        "a step of 4 million parameters, 2 workers", "lightning_workers", "ms", "lower", (Aim("torchrun", 0.95),)
    ),
    "model_return": Metric("return of a model of 200 MB", "lightning_workers", "s", "lower", (Aim(None, 1.0),)),
    "optimizer_share": Metric(
        "sharded, optimizer's state on one of 2 workers", "lightning_workers", "1", "lower", (Aim(None, 0.51),)
    ),
    # tune_quality.py
    "branin_regret": Metric("TPE on Branin, regret after 100 trials", "tune_quality", "1", "lower", _OPTUNA),
    "hartmann6_regret": Metric("TPE on Hartmann-6, regret after 100 trials", "tune_quality", "1", "lower", _OPTUNA),
    "suggestion": Metric("TPE, a trial of 100", "tune_quality", "ms", "lower"),
    # ppo_cartpole.py: until the mean return of 100 episodes is 475
    **_cartpole("own"),
    **_cartpole("same"),
    # ppo_sampling.py
    **{f"sample_{runners}_{envs}": _sampling(runners, envs) for runners in (0, 1, 2) for envs in (1, 8, 64)},
    "sample_8_1": _sampling(8, 1),
    # ppo_quality.py
    **_quality("pendulum", "Pendulum-v1 to -200"),
    **_quality("acrobot", "Acrobot-v1 to -100"),
    # ppo_learner.py: 10 epochs of 4,096 steps
    "ppo_update_small": _updates("4 observations, 2 actions, 32 x 32, minibatch 512"),
    "ppo_update_cartpole": _updates("4 observations, 2 actions, 64 x 64, minibatch 512"),
    "ppo_update_short": _updates("4 observations, 2 actions, 64 x 64, minibatch 128"),
    "ppo_update_continuous": _updates("17 observations, 6 dimensions, 64 x 64, minibatch 256"),
    "ppo_update_large": _updates("17 observations, 6 dimensions, 256 x 256, minibatch 512"),
}


def times_better(metric: Metric, ours: float, theirs: float) -> float:
    """How many times better `ours` is than `theirs`: above 1 is better, whichever direction the metric has."""
    if metric.better == "higher":
        ours, theirs = theirs, ours
    if ours == 0:
        return 1.0 if theirs == 0 else float("inf")
    return theirs / ours


def judge(metric: Metric, medians: dict[str, float]) -> list[tuple[Aim, float | None, bool | None]]:
    """Compare mltoolkit's median with each aim.

    Parameters
    ----------
    metric : Metric
        The row.
    medians : dict of str to float
        Median by runtime, of those that measured this row.

    Returns
    -------
    verdicts : list of (Aim, float or None, bool or None)
        The aim, the value reached (a ratio, or the value itself for an absolute limit), and whether it holds. Both are
        `None` where a runtime that is needed has no value.
    """
    verdicts: list[tuple[Aim, float | None, bool | None]] = []
    ours = medians.get("mltoolkit")
    for aim in metric.aims:
        if ours is None or (aim.against is not None and aim.against not in medians):
            verdicts.append((aim, None, None))
        elif aim.against is None:
            verdicts.append((aim, ours, ours <= aim.factor if metric.better == "lower" else ours >= aim.factor))
        else:
            ratio = times_better(metric, ours, medians[aim.against])
            verdicts.append((aim, ratio, ratio >= aim.factor))
    return verdicts
