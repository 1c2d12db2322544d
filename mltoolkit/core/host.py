"""What this host grants: CPUs, memory, GPUs."""

from __future__ import annotations

import math
import os
import platform
import re
from collections.abc import Mapping


def _read(path: str) -> str | None:
    try:
        with open(path) as stream:
            return stream.read().strip()
    except OSError:
        return None


def parse_cpu_list(text: str) -> int:
    """Count the CPUs in a list such as ``0-3,8``."""
    count = 0
    for part in text.split(","):
        part = part.strip()
        if not part:
            continue
        first, _, last = part.partition("-")
        count += int(last or first) - int(first) + 1
    return count


def parse_slurm_count(text: str) -> int | None:
    """Parse ``SLURM_CPUS_ON_NODE`` or ``SLURM_JOB_CPUS_PER_NODE``: ``24``, ``24(x2)``, ``16,8``; the first node counts."""
    match = re.match(r"\s*(\d+)", text)
    return int(match.group(1)) if match else None


def _cgroup_paths(root: str) -> list[str]:
    """Return this process's cgroup v2 directory and its parents, deepest first."""
    own = ""
    for line in (_read(os.path.join(root, "proc/self/cgroup")) or "").splitlines():
        if line.startswith("0::"):
            own = line[3:].strip("/")
    base = os.path.join(root, "sys/fs/cgroup")
    paths = []
    while own:
        paths.append(os.path.join(base, own))
        own = os.path.dirname(own)
    return [*paths, base]


def cgroup_cpus(root: str = "/") -> float | None:
    """Return the CPUs that the control group allows (quota and cpuset, v1 and v2); None if it sets no limit."""
    limits: list[float] = []
    for path in _cgroup_paths(root):
        quota = _read(os.path.join(path, "cpu.max"))
        if quota and not quota.startswith("max"):
            amount, _, period = quota.partition(" ")
            limits.append(int(amount) / int(period or 100_000))
        cpuset = _read(os.path.join(path, "cpuset.cpus.effective"))
        if cpuset:
            limits.append(parse_cpu_list(cpuset))
    v1 = os.path.join(root, "sys/fs/cgroup")
    for folder in ("cpu", "cpu,cpuacct"):
        amount_text = _read(os.path.join(v1, folder, "cpu.cfs_quota_us"))
        period_text = _read(os.path.join(v1, folder, "cpu.cfs_period_us"))
        if amount_text and period_text and int(amount_text) > 0:
            limits.append(int(amount_text) / int(period_text))
    cpuset_v1 = _read(os.path.join(v1, "cpuset", "cpuset.cpus"))
    if cpuset_v1:
        limits.append(parse_cpu_list(cpuset_v1))
    return min(limits) if limits else None


def default_cpus(environ: Mapping[str, str] | None = None, root: str = "/") -> int:
    """Return how many CPUs to use: the least of affinity, control group and the batch system's grant; at least 1."""
    environ = os.environ if environ is None else environ
    try:
        count: float = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        count = os.cpu_count() or 1
    limit = cgroup_cpus(root)
    if limit is not None:
        count = min(count, limit)
    for name in ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE", "PBS_NUM_PPN", "NSLOTS", "LSB_DJOB_NUMPROC"):
        granted = parse_slurm_count(environ.get(name, ""))
        if granted:
            count = min(count, granted)
            break
    return max(1, math.floor(count))


def default_memory(root: str = "/") -> int:
    """Return the memory in bytes that this host or its control group allows."""
    limits = []
    for path in _cgroup_paths(root):
        text = _read(os.path.join(path, "memory.max"))
        if text and text.isdigit():
            limits.append(int(text))
    v1 = _read(os.path.join(root, "sys/fs/cgroup/memory/memory.limit_in_bytes"))
    if v1 and v1.isdigit():
        limits.append(int(v1))
    try:
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (ValueError, OSError):
        pass
    return min(limits) if limits else 0


def visible_gpus(environ: Mapping[str, str] | None = None) -> list[int]:
    """Return the indices of the GPUs that this process may use, honouring ``CUDA_VISIBLE_DEVICES``."""
    environ = os.environ if environ is None else environ
    present = []
    try:
        present = sorted(
            int(name.removeprefix("nvidia")) for name in os.listdir("/dev") if re.fullmatch(r"nvidia\d+", name)
        )
    except OSError:
        pass
    mask = environ.get("CUDA_VISIBLE_DEVICES")
    if mask is None:
        return present
    chosen = [part.strip() for part in mask.split(",") if part.strip()]
    if all(part.isdigit() for part in chosen):
        return [int(part) for part in chosen]
    return list(range(len(chosen)))


def shared_memory_id(shm_root: str) -> str:
    """Name the set of processes that can map each other's segments: one kernel, one mount of shared memory, one user."""
    override = os.environ.get("MLTOOLKIT_HOST_ID")
    if override:
        return override
    boot = _read("/proc/sys/kernel/random/boot_id") or platform.node()
    try:
        status = os.stat(shm_root)
        mount = f"{status.st_dev}-{status.st_ino}"
    except OSError:
        mount = "none"
    return f"{boot}-{mount}-{os.getuid()}"
