"""Dask inside the driver: a scheduler and a worker with threads, over ``inproc://``, for an embedded session."""

from __future__ import annotations

import logging
from typing import Any

from distributed import Client, Scheduler, SpecCluster, Worker
from distributed.http.routing import RoutingApplication
from tornado.httpserver import HTTPServer


class _NoPort:
    """Dask's servers open an HTTP port on all interfaces even without a dashboard; these open one only when told where."""

    def start_http_server(
        self, routes: Any, dashboard_address: Any, default_port: int = 0, ssl_options: Any = None
    ) -> None:
        if dashboard_address:
            super().start_http_server(routes, dashboard_address, default_port, ssl_options)  # type: ignore[misc]
            return
        self.http_application = RoutingApplication(routes)
        self.http_server = HTTPServer(self.http_application)


class EmbeddedScheduler(_NoPort, Scheduler):
    """A scheduler that listens on nothing but ``inproc://``, and the dashboard's address if there is one."""


class EmbeddedWorker(_NoPort, Worker):
    """A worker that listens on nothing but ``inproc://``."""


class EmbeddedDask:
    """Start them; close them with `close`.

    Parameters
    ----------
    num_threads : int
        Threads of the worker.
    dashboard : tuple of (str, int) or None
        Interface and port of the dashboard; None opens no port at all.
    """

    def __init__(self, num_threads: int, dashboard: tuple[str, int] | None) -> None:
        scheduler_options: dict[str, Any] = {"protocol": "inproc://", "host": None, "dashboard": dashboard is not None}
        if dashboard is not None:
            try:
                import bokeh  # noqa: F401
            except ModuleNotFoundError as error:
                raise ModuleNotFoundError(
                    "include_dashboard=True needs bokeh, which is not installed. Install it with: pip install 'mltoolkit[dashboard]'"
                ) from error
            scheduler_options["dashboard_address"] = f"{dashboard[0]}:{dashboard[1]}"
        self._cluster = SpecCluster(
            scheduler={"cls": EmbeddedScheduler, "options": scheduler_options},
            workers={
                0: {
                    "cls": EmbeddedWorker,
                    "options": {"nthreads": num_threads, "protocol": "inproc://", "dashboard": False},
                }
            },
            silence_logs=logging.ERROR,
            name="mltoolkit-embedded",
        )
        self.client = Client(self._cluster, set_as_default=False)
        self.dashboard_url = ""
        if dashboard is not None:
            port = self._cluster.scheduler.services["dashboard"].port
            self.dashboard_url = f"http://{dashboard[0]}:{port}/status"

    def close(self) -> None:
        """End the client, the worker and the scheduler."""
        self.client.close()
        self._cluster.close()
