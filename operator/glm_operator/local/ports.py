"""Loopback addresses and ports: which are free, who holds one."""

import errno
import socket
from collections.abc import Callable, Collection, Sequence

from glm_operator import names
from glm_operator.local.errors import LocalError
from glm_operator.local.pods import gateway_address
from glm_operator.local.rendezvous import BLOCK_SIZE

NETWORKS = range(64, 255)  # 127.64.0.0 and up: away from what else people put on loopback
GATEWAY_PORTS = (names.HTTP_PORT, names.MANAGEMENT_PORT)
LEADER_PORTS = (names.HTTP_PORT, names.MANAGEMENT_PORT, names.COORDINATOR_PORT)


def is_free(address: str, port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # as servers do: a closing connection is not a listener
        try:
            probe.bind((address, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise LocalError(f"cannot listen on address {address}: {error.strerror}") from error
    return True


def is_block_free(first: int) -> bool:
    """Whether nobody listens, on any address, on the ports of the block that begins there."""
    return all(is_free("0.0.0.0", port) for port in range(first, first + BLOCK_SIZE))  # noqa: S104 - a probe


def busy_ports(address: str, ports: Sequence[int] = LEADER_PORTS) -> list[int]:
    return [port for port in ports if not is_free(address, port)]


def how_to_find(port: int) -> str:
    """The command that names the program listening on a port."""
    return f"ss -ltnp 'sport = :{port}'"


_reserved: dict[int, socket.socket] = {}


def reserve(network: int) -> bool:
    """Take a network for as long as this process lives; False: another one has it.

    Between the choice of a network and the moment when its pods listen, another command, also of another user and with
    another folder, would find the same one free. A name in the kernel's own space goes with its process.
    """
    if network not in _reserved:
        holder = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            holder.bind(f"\0glm-local/127.{network}")
        except OSError:
            holder.close()
            return False
        _reserved[network] = holder
    return True


def free_network(
    taken: Collection[int],
    busy: Callable[[str], list[int]] = busy_ports,
    reserve: Callable[[int], bool] = reserve,
) -> int:
    """Return a second byte of 127.x.0.0 that no deployment has, with free ports on its first group's and its gateway's
    address. It is reserved for this process.
    """
    first_busy: list[int] = []
    for network in NETWORKS:
        if network in taken:
            continue
        ports = busy(f"127.{network}.0.1") or busy(gateway_address(network))
        if not ports and reserve(network):
            return network
        first_busy = first_busy or ports
    held = ", ".join(map(str, first_busy)) or "none"
    raise LocalError(
        f"no loopback network is free: ports in use on all of 127.64.0.1 to 127.254.0.1: {held}. "
        f"Something listens on every address; find it with: {how_to_find(first_busy[0] if first_busy else 0)}"
    )
