"""What ``init`` returns."""

from __future__ import annotations

import html
from collections.abc import Iterator
from typing import Any


class RuntimeContextInfo:
    """A running session; also a context manager that shuts it down.

    Attributes
    ----------
    address_info : dict
        ``address``, ``node_id``, ``session_dir``, ``webui_url``, as in Ray.
    dashboard_url : str
        Address of Dask's dashboard; "" if there is none.
    """

    def __init__(self, address_info: dict[str, Any], dashboard_url: str) -> None:
        self.address_info = address_info
        self.dashboard_url = dashboard_url

    @property
    def client(self) -> Any:
        """The Dask client of this session; in embedded mode its cluster starts at first use, inside this process."""
        from mltoolkit.core import lifecycle

        return lifecycle.dask_client()

    def disconnect(self) -> None:
        """End the session."""
        from mltoolkit.core import lifecycle

        lifecycle.shutdown()

    def __enter__(self) -> RuntimeContextInfo:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.disconnect()

    def __getitem__(self, key: str) -> Any:
        return self.address_info[key]

    def keys(self) -> Iterator[str]:
        """Return the keys of `address_info`."""
        return iter(self.address_info)

    def __repr__(self) -> str:
        shown = f", dashboard_url={self.dashboard_url!r}" if self.dashboard_url else ""
        return f"RayContext(address={self.address_info['address']!r}{shown})"

    def _repr_html_(self) -> str:
        from mltoolkit.core import api, lifecycle

        rows = [("Address", html.escape(str(self.address_info["address"])))]
        if lifecycle.is_initialized():
            resources = api.cluster_resources()
            free = api.available_resources()
            rows.append(("Nodes", str(len(api.nodes()))))
            for name, label in (("CPU", "CPUs"), ("GPU", "GPUs")):
                if name in resources:
                    rows.append((label, f"{resources[name]:g} ({free.get(name, 0):g} free)"))
        else:
            rows.append(("State", "shut down"))
        if self.dashboard_url:
            url = html.escape(self.dashboard_url, quote=True)
            rows.append(("Dashboard", f'<a href="{url}" target="_blank">{url}</a>'))
        body = "".join(
            f'<tr><td style="text-align:left"><b>{label}</b></td><td style="text-align:left">{value}</td></tr>'
            for label, value in rows
        )
        return f'<div><h3 style="margin:0.2em 0">mltoolkit</h3><table>{body}</table></div>'


RayContext = RuntimeContextInfo
