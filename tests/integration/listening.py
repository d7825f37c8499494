"""Where a process can be reached over the network, and of which families this machine has addresses."""

import socket

import psutil


def listening(pid: int | None = None) -> set[tuple[str, int]]:
    """Return address and port of each listening TCP socket of a process, by default of this one.

    An address of IPv4 that a socket of IPv6 is bound to is returned as what it is.
    """
    connections = psutil.Process(pid).net_connections(kind="tcp")
    places = [each.laddr for each in connections if each.status == psutil.CONN_LISTEN]
    return {(place.ip.removeprefix("::ffff:"), place.port) for place in places}


def has_ipv6() -> bool:
    """Whether there is an address of it, too: sysctls take it away and leave the family."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True
