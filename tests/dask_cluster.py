"""A Dask cluster of separate processes, as a team would run one, for tests that attach to it."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from helpers import end_family, script_env, wait_until


class Cluster:
    """A `dask scheduler` and `dask worker`s on the loopback interface, as a team would run them."""

    def __init__(self, folder, workers=2, nthreads=2, scheduler_path=None):
        self.folder = folder
        self.nthreads = nthreads
        self.processes = []
        env = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "10s"}
        if scheduler_path is not None:
            env["PYTHONPATH"] = os.pathsep.join([str(scheduler_path), script_env()["PYTHONPATH"]])
        self.scheduler = self._start(["scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"], env)
        self.address = self._told(self.scheduler, r"Scheduler at:\s+(tcp://\S+)")
        self.workers = [self._launch_worker() for _ in range(workers)]  # all at once: they take their time to start
        for process in self.workers:
            self._await_worker(process)

    def _start(self, words, env=None):
        # Output goes to a file: a pipe nobody reads would stop the process when it is full.
        log = open(self.folder / f"dask-{len(self.processes)}.log", "w+")  # noqa: SIM115
        process = subprocess.Popen(
            [sys.executable, "-m", "dask", *words], stdout=log, stderr=log, env=script_env(env), cwd=self.folder
        )
        process.log = log
        self.processes.append(process)
        return process

    def _told(self, process, pattern):
        def look():
            assert process.poll() is None, self.text(process)
            return re.search(pattern, self.text(process))

        return wait_until(look, 30, f"dask says {pattern}").group(1)

    @staticmethod
    def text(process):
        with open(process.log.name) as log:
            return log.read()

    def add_worker(self, *extra):
        process = self._launch_worker(*extra)
        self._await_worker(process)
        return process

    def _launch_worker(self, *extra):
        quiet = ["--host", "127.0.0.1", "--no-dashboard", "--no-nanny"]
        size = ["--nthreads", str(self.nthreads), "--local-directory", str(self.folder)]
        return self._start(["worker", self.address, *quiet, *size, *extra])

    def _await_worker(self, process):
        process.address = self._told(process, r"Start worker at:\s+(tcp://\S+)")
        self._told(process, r"(Registered to)")

    def close(self):
        for process in self.processes[::-1]:
            end_family(process.pid)
            process.wait(20)
            process.log.close()
