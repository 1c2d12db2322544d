"""joblib under each runtime, as a user would switch it on; cold includes everything that `__enter__` does."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from _runtimes import DaskRuntime, cpu_count, init_facade, load_facade

BACKENDS = ("mltoolkit", "ray", "dask", "loky", "process")


class JoblibBackend:
    """Start a runtime, register its joblib backend and make it the current one, until the block ends.

    Parameters
    ----------
    name : str
        One of `BACKENDS`.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.n_jobs = 1 if name == "process" else cpu_count()
        self._config: Any = None
        self._close: Any = None

    def __enter__(self) -> JoblibBackend:
        import joblib

        if self.name == "mltoolkit":
            toolkit = load_facade("mltoolkit")
            from mltoolkit.util.joblib import register_ray

            init_facade(toolkit)
            register_ray()
            self._config = joblib.parallel_config("mltoolkit", n_jobs=self.n_jobs)
            self._close = toolkit.shutdown
        elif self.name == "ray":
            ray = load_facade("ray")
            from ray.util.joblib import register_ray

            init_facade(ray)
            register_ray()
            self._config = joblib.parallel_config("ray", n_jobs=self.n_jobs)
            self._close = ray.shutdown
        elif self.name == "dask":
            runtime = DaskRuntime()
            runtime.load()
            runtime.init()
            self._config = joblib.parallel_config("dask", n_jobs=self.n_jobs)
            self._close = runtime.close
        else:
            backend = "loky" if self.name == "loky" else "sequential"
            self._config = joblib.parallel_config(backend, n_jobs=self.n_jobs)
        self._config.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._config.__exit__(kind, error, traceback)
        if self._close is not None:
            self._close()
