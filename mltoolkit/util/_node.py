"""What a process can say about the machine it runs on."""

from __future__ import annotations

import socket

_LOOPBACK = "127.0.0.1"
# Any address outside the host does: connecting a datagram socket sends nothing, it only asks for a route.
_OUTSIDE = ("8.8.8.8", 53)
_OUTSIDE_V6 = ("2001:4860:4860::8888", 53)


def get_node_ip_address(address: str | None = None) -> str:
    """Find the address under which other machines reach the machine that this process runs on.

    Parameters
    ----------
    address : str, optional
        ``"host:port"`` to which the route is looked up; nothing is sent there. By default the public internet.

    Returns
    -------
    str
        An IP address; ``"127.0.0.1"`` on a machine without a network.

    Raises
    ------
    ValueError
        If `address` is not of the form ``"host:port"``.
    """
    if address is not None:
        host, separator, port = address.rpartition(":")
        if not separator or not host or not port.isdigit():
            raise ValueError(f"`address` must be of the form 'host:port', got {address!r}.")
        targets = [(host.strip("[]"), int(port))]
    else:
        targets = [_OUTSIDE, _OUTSIDE_V6]
    for target in targets:
        family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect(target)
                return str(probe.getsockname()[0])
        except OSError:
            continue
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return _LOOPBACK
