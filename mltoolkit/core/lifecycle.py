"""The session of this process: ``init``, ``shutdown`` and what stands between them."""

from __future__ import annotations

import atexit
import logging
import os
import re
import secrets
import threading
from collections.abc import Callable, Mapping
from typing import Any

from mltoolkit.core import backend as backend_module
from mltoolkit.core import host, options
from mltoolkit.core.backend import current_backend, require_backend, set_backend
from mltoolkit.core.context import RuntimeContextInfo

logger = logging.getLogger("mltoolkit")

_lock = threading.RLock()
_session: Any = None
_session_pid = 0
_context: RuntimeContextInfo | None = None

_UNSUPPORTED_INIT = {
    "labels": "use custom `resources`",
    "job_config": "use `runtime_env` and `namespace`",
    "logging_config": "use `logging_level`, or configure logging in the driver",
    "_redis_password": "there is no Redis",
    "_system_config": "see the documentation for the environment variables",
    "_memory": "memory is taken from the host",
    "_temp_dir": "set MLTOOLKIT_TMPDIR",
    "_plasma_directory": "set MLTOOLKIT_SHM_DIR",
    "_node_ip_address": "embedded mode opens no port",
    "storage": "pass `storage_path` to the library that writes results",
}


def init(
    address: str | None = None,
    *,
    cluster: Any = None,
    client: Any = None,
    num_cpus: int | None = None,
    num_gpus: int | None = None,
    resources: Mapping[str, float] | None = None,
    object_store_memory: int | None = None,
    local_mode: bool = False,
    ignore_reinit_error: bool = False,
    include_dashboard: bool | None = None,
    dashboard_host: str = "127.0.0.1",
    dashboard_port: int | None = None,
    configure_logging: bool = True,
    logging_level: int | str = logging.INFO,
    log_to_driver: bool = True,
    namespace: str | None = None,
    runtime_env: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> RuntimeContextInfo:
    """Start the runtime, embedded in this process or attached to a Dask cluster.

    Parameters
    ----------
    address : str, optional
        Address of a Dask scheduler such as ``"tcp://host:8786"``; ``"auto"`` takes ``MLTOOLKIT_ADDRESS`` or the one that
        ``mltoolkit start --head`` has noted; ``"local"`` or None start an embedded runtime (unless ``MLTOOLKIT_ADDRESS`` or
        ``RAY_ADDRESS`` is set).
    cluster : distributed.deploy.Cluster, optional
        A Dask cluster object (``LocalCluster``, ``SLURMCluster``, ``KubeCluster``, ...).
    client : distributed.Client, optional
        A Dask client.
    num_cpus : int, optional
        CPUs of the embedded node. Default: the least of affinity mask, control group and the batch system's grant.
    num_gpus : int, optional
        GPUs of the embedded node; more than exist are logical ones. Default: those that are visible.
    resources : dict of str to float, optional
        Custom resources of the embedded node.
    object_store_memory : int, optional
        Bytes of shared memory to use; further objects go to disk. Default: what fits.
    local_mode : bool, default=False
        Run everything inline, in this thread, for debuggers.
    ignore_reinit_error : bool, default=False
        Return the running session instead of raising.
    include_dashboard : bool, optional
        Start Dask's dashboard on loopback; its address is in the returned context. Default: no.
    dashboard_host : str, default="127.0.0.1"
        Interface of the dashboard.
    dashboard_port : int, optional
        Its port. Default: any free one.
    configure_logging : bool, default=True
        Apply `logging_level` to mltoolkit's loggers.
    logging_level : int or str, default=logging.INFO
        Level of mltoolkit's loggers and of the root logger in executors.
    log_to_driver : bool, default=True
        Print what tasks and actors print, prefixed with their name and pid.
    namespace : str, optional
        Namespace of named actors. Default: an anonymous one.
    runtime_env : dict, optional
        ``env_vars`` and ``working_dir`` for all tasks and actors.

    Returns
    -------
    RayContext
        Facts about the session; also a context manager that shuts it down.

    Raises
    ------
    RuntimeError
        If a session is running already and `ignore_reinit_error` is False.
    """
    global _session, _session_pid, _context
    for name in kwargs:
        if name in _UNSUPPORTED_INIT:
            raise NotImplementedError(f"init() does not offer `{name}`; {_UNSUPPORTED_INIT[name]}.")
        raise TypeError(f"init() got an unexpected keyword argument {name!r}.")
    with _lock:
        if current_backend() is not None:
            if ignore_reinit_error and _context is not None:
                return _context
            raise RuntimeError(
                "init() was called twice. Call shutdown() first, or pass `ignore_reinit_error=True` to keep the running session."
            )
        level = logging.getLevelName(logging_level) if isinstance(logging_level, str) else logging_level
        if not isinstance(level, int):
            raise ValueError(f"`logging_level` must be a level such as logging.INFO or 'info', got {logging_level!r}.")
        if configure_logging:
            logger.setLevel(level)
        env = options.check_runtime_env(runtime_env)
        if namespace is not None and (not isinstance(namespace, str) or not namespace):
            raise TypeError(f"`namespace` must be a non-empty string or None, got {namespace!r}.")
        chosen_namespace = namespace or f"anonymous-{secrets.token_hex(8)}"
        address = _resolve_address(address, cluster, client)
        attached = address is not None or cluster is not None or client is not None
        if local_mode:
            if attached:
                raise ValueError(
                    "`local_mode=True` runs everything inline and takes neither address, cluster nor client."
                )
            if include_dashboard:
                raise ValueError(
                    "`local_mode=True` has no Dask cluster and hence no dashboard. Leave out `include_dashboard`."
                )
            return _start_local_mode(
                chosen_namespace,
                env,
                num_cpus=_checked_count("num_cpus", num_cpus, host.default_cpus),
                num_gpus=_checked_count("num_gpus", num_gpus, lambda: len(host.visible_gpus())),
                resources=options.TASK_OPTIONS["resources"]("resources", resources or {}),
                store_limit=_checked_store_limit(object_store_memory),
            )
        settings: dict[str, Any] = {
            "namespace": chosen_namespace,
            "log_to_driver": log_to_driver,
            "logging_level": level,
            "seed": _session_seed(),
            "store_limit": _checked_store_limit(object_store_memory),
        }
        if attached:
            for name, value in (("num_cpus", num_cpus), ("num_gpus", num_gpus), ("resources", resources)):
                if value is not None:
                    raise ValueError(
                        f"`{name}` describes an embedded node; in attached mode the Dask workers say what they offer. Leave it out."
                    )
            from mltoolkit.core.attached import AttachedSession

            session: Any = AttachedSession(address=address, cluster=cluster, client=client, **settings)
        else:
            from mltoolkit.core.session import EmbeddedSession

            session = EmbeddedSession(
                num_cpus=_checked_count("num_cpus", num_cpus, host.default_cpus),
                num_gpus=_checked_count("num_gpus", num_gpus, lambda: len(host.visible_gpus())),
                resources=options.TASK_OPTIONS["resources"]("resources", resources or {}),
                memory=host.default_memory(),
                **settings,
            )
        session.head.runtime_env = env
        _session, _session_pid = session, os.getpid()
        set_backend(session.head)
        dashboard_url = ""
        if include_dashboard:
            try:
                dashboard_url = session.start_dashboard(dashboard_host, dashboard_port)
            except BaseException:
                shutdown()
                raise
        session.head.dashboard_url = dashboard_url
        _context = RuntimeContextInfo(
            {
                "address": session.address,
                "node_id": session.node_id,
                "session_dir": session.directories.disk,
                "namespace": chosen_namespace,
                "webui_url": dashboard_url,
            },
            dashboard_url,
        )
        return _context


def _resolve_address(address: str | None, cluster: Any, client: Any) -> str | None:
    given = [
        name for name, value in (("address", address), ("cluster", cluster), ("client", client)) if value is not None
    ]
    if len(given) > 1:
        raise ValueError(f"Give one of `address`, `cluster` and `client`, got {' and '.join(given)}.")
    if address is not None and not isinstance(address, str):
        raise TypeError(f"`address` must be a string such as 'tcp://host:8786', got {address!r}.")
    if not given:
        address = os.environ.get("MLTOOLKIT_ADDRESS") or os.environ.get("RAY_ADDRESS") or None
    if address == "local":
        return None
    if (
        address
        and address != "auto"
        and not re.fullmatch(r"([a-z]+://)?(\[[^\]]+\]|[^:/\s]+)(:\d+)(/.*)?|inproc://.+", address)
    ):
        raise ValueError(
            f"`address` must be a Dask scheduler's, such as 'tcp://host:8786', or 'auto' or 'local', got {address!r}."
        )
    if address == "auto":
        address = os.environ.get("MLTOOLKIT_ADDRESS") or os.environ.get("RAY_ADDRESS")
        if not address:
            from mltoolkit._processes import find_address

            address = find_address()
        if not address:
            raise ConnectionError(
                "address='auto' found no running cluster: MLTOOLKIT_ADDRESS is not set and `mltoolkit start --head` has not run "
                "here. Leave the address out for an embedded runtime."
            )
    return address


def _checked_count(name: str, value: Any, default: Callable[[], float]) -> float:
    return float(default()) if value is None else float(options.TASK_OPTIONS["num_cpus"](name, value))


def _checked_store_limit(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
        raise ValueError(f"`object_store_memory` must be a number of bytes >= 0, got {value!r}.")
    return int(value)


def _session_seed() -> int:
    text = os.environ.get("MLTOOLKIT_SEED")
    if text is None:
        return secrets.randbits(62)
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"MLTOOLKIT_SEED must be an integer, got {text!r}.") from None


def _start_local_mode(namespace: str, env: dict[str, Any], **offered: Any) -> RuntimeContextInfo:
    global _context
    from mltoolkit.core.local_mode import InlineBackend

    inline = InlineBackend(namespace, **offered)
    inline.runtime_env = env
    set_backend(inline)
    _context = RuntimeContextInfo(
        {
            "address": "inline",
            "node_id": inline.store.node_id,
            "session_dir": "",
            "namespace": namespace,
            "webui_url": "",
        },
        "",
    )
    return _context


def shutdown(_exiting_interpreter: bool = False) -> None:
    """End the session: all its processes, files and shared memory. Does nothing if there is none."""
    global _session, _context
    with _lock:
        session, _session, _context = _session, None, None
        if current_backend() is not None and not hasattr(current_backend(), "executor"):
            closing = current_backend()
            set_backend(None)
            if session is None and closing is not None and hasattr(closing, "close"):
                closing.close()
        if session is not None and _session_pid == os.getpid():
            session.stop()


atexit.register(shutdown, True)


def _after_fork_in_child() -> None:
    """A forked child of the driver has no session; what it shares with its parent must not stay open in it."""
    global _session, _context, _lock
    _lock = threading.RLock()
    session, _session, _context = _session, None, None
    backend_module.set_backend(None)
    if session is not None:
        session.abandon()


os.register_at_fork(after_in_child=_after_fork_in_child)


def is_initialized() -> bool:
    """Return whether a session is running."""
    return current_backend() is not None


def current_session() -> Any:
    """Return the driver's session object, None outside the driver."""
    return _session if _session_pid == os.getpid() else None


def dask_client() -> Any:
    """Return the session's Dask client; an embedded session starts its cluster inside this process at first use."""
    require_backend()
    session = current_session()
    if session is None and current_backend() is not None and not hasattr(current_backend(), "executor"):
        raise RuntimeError(
            "`local_mode=True` runs everything inline and has no Dask cluster; leave it out to use Dask."
        )
    if session is None:
        raise RuntimeError("The Dask client lives in the driver; inside tasks and actors use references instead.")
    return session.dask_client()
