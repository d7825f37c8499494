"""Ports for the servers that a test starts: of no other test on this machine, and of no connection.

A port that the kernel chooses and that is let go again may be the next connection's own, of any process: a server that
starts a second later cannot have it, nor for a minute after that connection has ended. Here ports come from below those
that the kernel gives to connections.
"""

import random
import socket
from pathlib import Path

HOST = "127.0.0.1"
LOWEST = 12000
OF_CONNECTIONS = Path("/proc/sys/net/ipv4/ip_local_port_range")

_held: list[int] = []  # descriptors of sockets that stand for ports, until this process ends


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on, and that no other test is given while this process lives."""
    above = int(OF_CONNECTIONS.read_text().split()[0])
    for port in random.sample(range(LOWEST, above), above - LOWEST):
        mark = socket.socket(socket.AF_UNIX)
        try:
            mark.bind(f"\0glm-test-port/{port}")
            socket.create_server((HOST, port)).close()
        except OSError:  # another test has it, or a program
            mark.close()
            continue
        _held.append(mark.detach())
        return port
    raise AssertionError(f"no port of {HOST} from {LOWEST} to {above} is free")
