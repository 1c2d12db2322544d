"""Why a process died, in words."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass

_OOM_FILES = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")


def count_oom_kills() -> int:
    """Return how many processes of this control group the kernel has killed for memory; 0 if it does not say."""
    for path in _OOM_FILES:
        try:
            with open(path) as stream:
                for line in stream:
                    key, _, value = line.partition(" ")
                    if key == "oom_kill":
                        return int(value)
        except (OSError, ValueError):
            continue
    return 0


@dataclass(frozen=True)
class Death:
    """How an executor ended.

    Parameters
    ----------
    pid : int or None
        Its process id; None if it never started.
    status : int or None
        As ``os.wait4`` gives it; None if unknown.
    max_rss_kb : int
        Peak memory.
    reason : str
        What mltoolkit knows itself ("ray.kill() was called"); "" if nothing.
    stderr_tail : tuple of str
        The last lines of its stderr.
    oom : bool
        The kernel's out-of-memory killer struck during its life.
    node : str
        Host name.
    """

    pid: int | None
    status: int | None
    max_rss_kb: int = 0
    reason: str = ""
    stderr_tail: tuple[str, ...] = ()
    oom: bool = False
    node: str = ""

    @property
    def out_of_memory(self) -> bool:
        """Whether this was an out-of-memory kill."""
        return (
            self.oom
            and self.status is not None
            and os.WIFSIGNALED(self.status)
            and os.WTERMSIG(self.status) == signal.SIGKILL
        )

    def describe(self) -> str:
        """Return one sentence, then the last lines of stderr."""
        if self.reason:
            text = self.reason
        elif self.status is None:
            text = "it vanished, and its exit status is not known"
        elif os.WIFSIGNALED(self.status):
            number = os.WTERMSIG(self.status)
            try:
                name = signal.Signals(number).name
            except ValueError:
                name = "unknown signal"
            text = f"killed by signal {number} ({name})"
            if self.out_of_memory:
                text += f": the kernel ran out of memory; its peak was {self.max_rss_kb / 1024:,.0f} MiB{_limit_text()}"
            elif number == signal.SIGKILL:
                text += f"; its peak memory was {self.max_rss_kb / 1024:,.0f} MiB and the kernel reports no memory kill"
        else:
            text = f"exited with code {os.WEXITSTATUS(self.status)}"
        where = f" (pid={self.pid}, host={self.node})" if self.pid else ""
        tail = ""
        if self.stderr_tail:
            tail = "\nIts last lines on stderr:\n" + "\n".join(f"    {line}" for line in self.stderr_tail)
        return f"{text}{where}{tail}"


def _limit_text() -> str:
    try:
        with open("/sys/fs/cgroup/memory.max") as stream:
            limit = stream.read().strip()
        return "" if limit == "max" else f" of a limit of {int(limit) / 2**20:,.0f} MiB"
    except (OSError, ValueError):
        return ""
