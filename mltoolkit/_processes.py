"""The background processes that ``mltoolkit start`` leaves running: launch them, remember them, stop exactly them.

One JSON record per process lies in a folder that only the user can enter. A record names the process by more than its
number: numbers are used again, and ``stop`` must never end a stranger.
"""

from __future__ import annotations

import dataclasses
import json
import os
import stat
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import psutil

__all__ = ["CommandError", "Record", "find_address", "launch", "new_token", "records", "run_dir", "start_mark", "stop"]

Role = Literal["head", "node"]

RUN_DIR_VARIABLE = "MLTOOLKIT_RUN_DIR"


class CommandError(Exception):
    """Something the user can mend; shown as one line, without a traceback."""


@dataclasses.dataclass(frozen=True)
class Record:
    """One process that ``mltoolkit start`` launched.

    Attributes
    ----------
    role : {'head', 'node'}
        A Dask scheduler, or a Dask worker.
    pid : int
    started : str
        When it began, as exactly as the system knows; no two processes with the same number share it.
    address : str
        The scheduler's address.
    log : str
        The file that its output goes to.
    """

    role: Role
    pid: int
    started: str
    address: str
    log: str

    def process(self) -> psutil.Process | None:
        """Find the process, if it is still the one that was launched.

        Returns
        -------
        psutil.Process or None
        """
        try:
            process = psutil.Process(self.pid)
            same = start_mark(process) == self.started
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.Error:
            return None

    @property
    def path(self) -> Path:
        """The file that keeps this record."""
        return run_dir() / f"{self.role}-{self.pid}.json"

    def save(self) -> None:
        """Write the record, whole or not at all."""
        draft = self.path.with_suffix(".tmp")
        draft.write_text(json.dumps(dataclasses.asdict(self)))
        draft.replace(self.path)


def run_dir() -> Path:
    """Give the folder for records and logs, made if need be.

    Returns
    -------
    Path
        ``$MLTOOLKIT_RUN_DIR``, else ``mltoolkit`` in ``$XDG_RUNTIME_DIR``, else a folder per user in the
        temporary one.

    Raises
    ------
    CommandError
        If it belongs to somebody else or others can enter it: a record there could name any process.
    """
    chosen = os.environ.get(RUN_DIR_VARIABLE)
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if chosen:
        folder = Path(chosen)
    elif runtime and os.path.isdir(runtime):
        folder = Path(runtime) / "mltoolkit"
    else:
        folder = Path(tempfile.gettempdir()) / f"mltoolkit-run-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise CommandError(
            f"`{folder}` must be a folder of yours with mode 0700, got mode {stat.S_IMODE(found.st_mode):04o} and "
            f"owner {found.st_uid}. Remove it, or set {RUN_DIR_VARIABLE} to another folder."
        )
    return folder


def start_mark(process: psutil.Process) -> str:
    """Tell when a process began, in a form that no correction of the clock can change.

    Parameters
    ----------
    process : psutil.Process

    Returns
    -------
    str
    """
    try:
        # The name of a process may hold anything, closing brackets included; the fields after the last one do not.
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return repr(process.create_time())
    return f"{boot} {fields[19]}"


def new_token() -> str:
    """Make a name that nothing else has."""
    return uuid.uuid4().hex[:12]


def launch(
    role: Role,
    command: Sequence[str],
    *,
    ready: Callable[[Path], str | None],
    timeout: float,
    foreground: bool = False,
) -> tuple[subprocess.Popen[bytes], Record]:
    """Start a process, wait until it serves, and remember it for `stop`.

    Parameters
    ----------
    role : {'head', 'node'}
    command : sequence of str
    ready : callable
        Given the log, returns the scheduler's address once the process serves, and None before.
    timeout : float
        Seconds until it must serve.
    foreground : bool, default=False
        Share this terminal and its signals, instead of outliving this process in a session of its own. The log
        stays empty then.

    Returns
    -------
    process : subprocess.Popen
    record : Record

    Raises
    ------
    CommandError
        If the process ended or did not serve in time, with the end of its log. Nothing stays behind.
    """
    log = run_dir() / f"{role}-{new_token()}.log"
    with log.open("wb") as output:
        streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT}
        process = subprocess.Popen(command, start_new_session=not foreground, **({} if foreground else streams))
    record = Record(role, process.pid, start_mark(psutil.Process(process.pid)), "", str(log))
    record.save()
    try:
        record = dataclasses.replace(record, address=_wait_until_ready(process, log, ready, timeout))
        record.save()
    except BaseException:
        stop(record, timeout=5)
        process.wait()
        raise
    return process, record


def _wait_until_ready(
    process: subprocess.Popen[bytes], log: Path, ready: Callable[[Path], str | None], timeout: float
) -> str:
    deadline = time.monotonic() + timeout
    while True:
        # Asked before `ready`: what the process said just before it ended still counts as said.
        code = process.poll()
        address = ready(log)
        if address and code is None:
            return address
        if code is not None or time.monotonic() >= deadline:
            why = f"was not ready after {timeout:g} s" if code is None else f"ended with exit code {code}"
            tail = "\n  ".join(log.read_text(errors="replace").splitlines()[-12:])
            raise CommandError(f"the process {why}." + (f" The end of its log:\n  {tail}" if tail else ""))
        time.sleep(0.02)


def records() -> list[Record]:
    """Read the records of all processes that were started, running or not; heads last.

    Returns
    -------
    list of Record
    """
    found = []
    for path in run_dir().glob("*.json"):
        try:
            found.append(Record(**json.loads(path.read_text())))
        except (OSError, ValueError, TypeError):
            # Another `stop` removed it in between, or it is none of ours.
            continue
    return sorted(found, key=lambda record: (record.role == "head", record.pid))


def find_address() -> str | None:
    """Give the scheduler's address of the cluster that was started on this machine last.

    Returns
    -------
    str or None
        None where nothing runs that ``mltoolkit start`` launched. A machine that joined somebody's cluster has no
        scheduler of its own, but knows theirs.
    """
    running = [record for record in records() if record.address and record.process() is not None]
    heads = [record for record in running if record.role == "head"]
    latest = max(heads or running, key=lambda record: record.path.stat().st_mtime, default=None)
    return None if latest is None else latest.address


def _forget(record: Record) -> None:
    """Remove what was kept about a process that is gone."""
    record.path.unlink(missing_ok=True)
    Path(record.log).unlink(missing_ok=True)


def stop(record: Record, *, timeout: float) -> bool:
    """End a process and all it started: politely, and by force after `timeout` seconds.

    Returns
    -------
    bool
        Whether it was running.
    """
    process = record.process()
    if process is None:
        _forget(record)
        return False
    try:
        family = [process, *process.children(recursive=True)]
        process.terminate()
    except psutil.NoSuchProcess:
        family = [process]
    _, alive = psutil.wait_procs(family, timeout=timeout)
    for survivor in alive:
        try:
            # psutil checks the start time again, so a number in use by a newcomer is safe here too.
            survivor.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(alive, timeout=5)
    _forget(record)
    return True
