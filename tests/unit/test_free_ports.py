"""Ports that the servers of tests get: nobody else's, and never a connection's own."""

import socket
import subprocess
import sys
from pathlib import Path

from integration.free_ports import HOST, OF_CONNECTIONS, free_port

TESTS = Path(__file__).resolve().parents[1]


def test_a_port_is_none_that_the_kernel_gives_to_connections() -> None:
    lowest = int(OF_CONNECTIONS.read_text().split()[0])
    assert all(free_port() < lowest for _ in range(20))


def test_nobody_else_is_given_a_port_before_its_server_has_begun() -> None:
    """Another process, that would get it if it asked for all there are."""
    port = free_port()
    program = f"import socket; socket.socket(socket.AF_UNIX).bind('\\0glm-test-port/{port}')"
    done = subprocess.run([sys.executable, "-c", program], cwd=TESTS, capture_output=True, text=True, check=False)
    assert "Address already in use" in done.stderr


def test_a_server_can_have_it_at_once() -> None:
    with socket.create_server((HOST, free_port())) as server:
        assert server.getsockname()[0] == HOST
