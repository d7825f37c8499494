"""Sockets to listen on: of one address, or of all that this machine has."""

import os
import socket

from glm_worker.errors import ConfigError

BACKLOG = 2048  # connections that wait to be accepted; the kernel may have a lower limit


def listen(host: str, port: int, *, setting: str) -> socket.socket:
    """Return a socket that listens at host:port, an empty host being every address of both families.

    A pod's first address, to which probes come, may be of either family. setting: where the port comes from, for the
    error. Raises ConfigError.
    """
    try:
        if not host and socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        reason = error.strerror or os.strerror(error.errno or 0)
        raise ConfigError(f"cannot listen on GLM_HOST:{setting}={host}:{port}: {reason}") from error
