"""The ``mltoolkit`` command: a first job, a small cluster by hand, and programs written for Ray.

``start`` launches Dask's own scheduler and worker; a cluster that runs already needs none of this:
``mltoolkit.init(address=...)`` attaches to it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from mltoolkit import __version__, _processes
from mltoolkit._processes import CommandError, Record

__all__ = ["main"]

_READY_TIMEOUT_S = 60.0
_ANSWER_TIMEOUT_S = 3.0
_DEFAULT_PORT = 8786
_TITLES = {"head": "scheduler", "node": "node"}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the ``mltoolkit`` command.

    Parameters
    ----------
    argv : sequence of str, default=None
        The command line without the command's name; ``None`` means that of the process.

    Raises
    ------
    SystemExit
        With code 0, or 1 where the command failed, or 2 where it was called wrongly.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["run"]:
        # Not for argparse: what follows the script's name is the script's, options included.
        from mltoolkit.__main__ import main as run

        run(words[1:], prog="mltoolkit run")
        return
    if words[:1] == ["rllib"]:
        from mltoolkit.rllib.cli import main as rllib

        rllib(words[1:])
        return
    options = _parser().parse_args(words)
    command: Callable[[argparse.Namespace], None] = options.command
    try:
        command(options)
    except CommandError as error:
        print(f"mltoolkit: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mltoolkit",
        description="Ray's programming model and machine-learning libraries on Dask.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"mltoolkit {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_quickstart(commands)
    _add_start(commands)

    stop = commands.add_parser("stop", help="end what `start` launched here, and nothing else", allow_abbrev=False)
    stop.add_argument(
        "--timeout", type=float, default=10.0, metavar="SECONDS", help="patience before force is used (default: 10)"
    )
    stop.set_defaults(command=_stop)

    status = commands.add_parser("status", help="show the nodes of a cluster and their resources", allow_abbrev=False)
    status.add_argument("--address", help="the scheduler's; by default that of the cluster started here last")
    status.set_defaults(command=_status)

    run = commands.add_parser("run", help="run a program written for Ray, unchanged", add_help=False)
    run.add_argument("script", metavar="SCRIPT [args ...]")

    commands.add_parser("rllib", help="train reinforcement-learning algorithms, run what they learned", add_help=False)
    return parser


def _add_quickstart(commands: Any) -> None:
    quickstart = commands.add_parser(
        "quickstart", help="run a grid search on all CPUs and tell what it did", allow_abbrev=False
    )
    quickstart.add_argument(
        "--csv",
        default=os.environ.get("MLTOOLKIT_WINE_CSV"),
        metavar="PATH",
        help="the wine-quality data, columns separated by ';' or ',', the last one predicted (default: "
        "$MLTOOLKIT_WINE_CSV, else the wine data that scikit-learn brings along)",
    )
    quickstart.set_defaults(command=_quickstart)


def _add_start(commands: Any) -> None:
    start = commands.add_parser(
        "start",
        help="start a Dask scheduler (--head) or join one with a node (--address)",
        description="Start a Dask scheduler, or a Dask worker that joins one. Both run in the background until "
        "`mltoolkit stop`. Dask's protocol has no password: listen beyond this machine (--host) only on networks "
        "where every user is trusted, or configure TLS in Dask's configuration.",
        allow_abbrev=False,
    )
    which = start.add_mutually_exclusive_group(required=True)
    which.add_argument("--head", action="store_true", help="start a scheduler")
    which.add_argument("--address", metavar="tcp://HOST:PORT", help="start a node that joins the scheduler there")
    start.add_argument(
        "--host",
        help="where to listen (default: 127.0.0.1 for a head; for a node, the interface that reaches the scheduler)",
    )
    start.add_argument("--block", action="store_true", help="stay in the foreground until interrupted")

    head = start.add_argument_group("with --head")
    head.add_argument("--port", type=int, help=f"0 means any free one (default: {_DEFAULT_PORT})")
    head.add_argument(
        "--dashboard", nargs="?", const=8787, type=int, metavar="PORT", help="serve Dask's dashboard (default: 8787)"
    )

    node = start.add_argument_group("with --address")
    node.add_argument("--num-cpus", type=float, help="CPUs to offer (default: those this process may use)")
    node.add_argument("--num-gpus", type=float, help="GPUs to offer (default: those found)")
    node.add_argument("--resources", metavar="JSON", help="""resources of your own, such as '{"disk": 2}'""")
    node.add_argument("--nthreads", type=int, help="threads for plain Dask tasks (default: one per CPU)")
    start.set_defaults(command=_start)


def _quickstart(options: argparse.Namespace) -> None:
    from mltoolkit._quickstart import quickstart

    quickstart(options.csv)


def _start(options: argparse.Namespace) -> None:
    group = ("num_cpus", "num_gpus", "resources", "nthreads") if options.head else ("port", "dashboard")
    misplaced = [f"--{name.replace('_', '-')}" for name in group if getattr(options, name) is not None]
    if misplaced:
        given, wanted = ("--head", "--address") if options.head else ("--address", "--head")
        raise CommandError(f"{', '.join(misplaced)} cannot be used with {given}; it belongs to `start {wanted}`.")
    ending = _Ending()
    if options.block:
        ending.listen()
    if options.head:
        _start_head(options, ending)
    else:
        _start_node(options, ending)


def _start_head(options: argparse.Namespace, ending: _Ending) -> None:
    host = options.host or "127.0.0.1"
    port = _DEFAULT_PORT if options.port is None else options.port
    if not 0 <= port <= 65535:
        raise CommandError(f"--port must be between 0 and 65535, got {port}.")
    _check_free(host, port, "--port")
    connection = _processes.run_dir() / f"scheduler-{_processes.new_token()}.connection"
    # Without a dashboard there is still a port for health checks; it stays on this machine.
    diagnostics = ["--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
    if options.dashboard is not None:
        if importlib.util.find_spec("bokeh") is None:
            raise CommandError("--dashboard needs bokeh, which is not installed: pip install 'mltoolkit[dashboard]'")
        _check_free(host, options.dashboard, "--dashboard")
        diagnostics = ["--dashboard", "--dashboard-address", f"{host}:{options.dashboard}"]
    command = _dask("scheduler", "--host", host, "--port", str(port), "--scheduler-file", str(connection))

    def ready(log: Path) -> str | None:
        ending.check()
        return _address_in(connection)

    try:
        process, record = _processes.launch(
            "head",
            [*command, *diagnostics],
            ready=ready,
            timeout=_READY_TIMEOUT_S,
            foreground=options.block,
        )
    finally:
        connection.unlink(missing_ok=True)
    print(f"Started a Dask scheduler at {record.address}")
    if options.dashboard is not None:
        print(f"  dashboard         http://{host}:{options.dashboard}/status")
    print(f"  add a node        mltoolkit start --address={record.address}")
    print(f"  use it in Python  mltoolkit.init(address={record.address!r})")
    print(f"  end it            mltoolkit stop{' (or Ctrl-C)' if options.block else ''}", flush=True)
    if options.block:
        _wait(process, record, ending)


def _start_node(options: argparse.Namespace, ending: _Ending) -> None:
    host = options.host or _host_that_reaches(options.address)
    command = _dask("worker", options.address, "--name", f"node-{_processes.new_token()}", "--host", host)
    command += ["--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
    # One Dask worker is one node; it gives up by itself where no scheduler answers.
    command += ["--nworkers", "1", "--death-timeout", f"{_READY_TIMEOUT_S / 2:g}"]
    if options.nthreads is not None:
        command += ["--nthreads", str(options.nthreads)]
    resources = _node_resources(options)
    if resources:
        command += ["--resources", " ".join(f"{name}={amount:g}" for name, amount in resources.items())]

    def ready(log: Path) -> str | None:
        ending.check()
        # In the background this line is how a worker says that it joined; in the foreground the user reads it.
        joined = options.block or "Registered to:" in log.read_text(errors="replace")
        return str(options.address) if joined else None

    process, record = _processes.launch(
        "node", command, ready=ready, timeout=_READY_TIMEOUT_S, foreground=options.block
    )
    print(f"Started a node that joins {record.address}", flush=True)
    if options.block:
        _wait(process, record, ending)


def _dask(*words: str) -> list[str]:
    return [sys.executable, "-m", "dask", *words]


def _address_in(connection: Path) -> str | None:
    """The address in a scheduler's connection file, once it is there and whole."""
    try:
        return str(json.loads(connection.read_text())["address"])
    except (OSError, ValueError, KeyError):
        return None


def _check_free(host: str, port: int, option: str) -> None:
    """Say in one line what Dask would say in a traceback, or would mend by listening elsewhere."""
    try:
        family, kind, _, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(target)
    except OSError as error:
        raise CommandError(f"cannot listen on {host}:{port}: {error.strerror}; choose with {option}.") from error


def _host_that_reaches(address: str) -> str:
    """Our own address on the way to the scheduler: a node listens there and on no other interface."""
    parts = urllib.parse.urlsplit(address if "://" in address else f"tcp://{address}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port:
        raise CommandError(f"--address must look like tcp://HOST:PORT, got {address!r}.")
    deadline = time.monotonic() + _ANSWER_TIMEOUT_S
    while True:
        try:
            with socket.create_connection((host, port), timeout=_ANSWER_TIMEOUT_S) as probe:
                return str(probe.getsockname()[0])
        except OSError as error:
            # A scheduler that was started a moment ago may not listen yet.
            if time.monotonic() > deadline:
                raise CommandError(f"no scheduler answers at {address}: {error}.") from error
            time.sleep(0.1)


def _node_resources(options: argparse.Namespace) -> dict[str, float]:
    """What the node offers, in the words of Dask's worker resources."""
    offered: dict[str, Any] = {}
    if options.resources is not None:
        try:
            custom = json.loads(options.resources)
        except ValueError as error:
            raise CommandError(
                f"--resources must be JSON such as '{{\"disk\": 2}}', got {options.resources!r}: {error}"
            ) from error
        if not isinstance(custom, dict):
            raise CommandError(f"--resources must be a JSON object of names and amounts, got {options.resources!r}.")
        for name, amount in custom.items():
            if name in ("CPU", "GPU"):
                raise CommandError(f"--resources must not name {name!r}; use --num-{name.lower()}s instead.")
            if not name or any(character in " ,=" for character in name):
                raise CommandError(f"a resource's name must have no space, comma or '=', got {name!r}.")
            offered[name] = amount
    offered |= {"CPU": options.num_cpus} if options.num_cpus is not None else {}
    offered |= {"GPU": options.num_gpus} if options.num_gpus is not None else {}
    for name, amount in offered.items():
        if isinstance(amount, bool) or not isinstance(amount, (int, float)) or not 0 <= amount < float("inf"):
            raise CommandError(f"the amount of resource {name!r} must be a number >= 0, got {amount!r}.")
    return offered


class _Ending:
    """Whether this process was told to end.

    Signals are only noted, and looked at where that is safe: an exception at any moment could leave behind what was
    just launched, and a blocking wait that begins just after a signal would never hear of it.
    """

    def __init__(self) -> None:
        self.signal: int | None = None

    def listen(self) -> None:
        """Note Ctrl-C and SIGTERM from now on."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = number

    def check(self) -> None:
        """Raise ``SystemExit`` if it is time, with the exit code that shells give for the signal."""
        if self.signal is not None:
            raise SystemExit(128 + self.signal)


def _wait(process: subprocess.Popen[bytes], record: Record, ending: _Ending) -> NoReturn:
    """Stay until the process ends, and take it along when this one is told to end."""
    try:
        while process.poll() is None:
            ending.check()
            time.sleep(0.1)
    finally:
        _processes.stop(record, timeout=10)
    sys.exit(process.returncode if process.returncode >= 0 else 128 - process.returncode)


def _stop(options: argparse.Namespace) -> None:
    ended = [record for record in _processes.records() if _processes.stop(record, timeout=options.timeout)]
    for record in ended:
        print(f"Stopped the {_TITLES[record.role]} with pid {record.pid} ({record.address})")
    if not ended:
        print("Nothing to stop: no process that `mltoolkit start` launched here is running.")


def _status(options: argparse.Namespace) -> None:
    from mltoolkit._status import show_status

    address = options.address or _processes.find_address()
    if address is None:
        raise CommandError("no cluster was started here. Name one with --address=tcp://HOST:PORT.")
    _host_that_reaches(address)  # in one line and within seconds, where attaching would take its time to give up
    show_status(address)


if __name__ == "__main__":
    main()
