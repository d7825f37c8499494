"""Ports that are open to all: of which addresses they are, and what is said when they are taken."""

import socket

import pytest

from glm_worker.errors import ConfigError
from glm_worker.listening import listen
from integration.listening import has_ipv6


def answers(listener: socket.socket, host: str) -> bool:
    port = listener.getsockname()[1]
    try:
        socket.create_connection((host, port), timeout=10).close()
    except ConnectionRefusedError:
        return False
    return True


def test_a_port_without_an_address_is_open_at_those_of_both_families() -> None:
    with listen("", 0, setting="GLM_HTTP_PORT") as listener:
        assert answers(listener, "127.0.0.1")
        if not has_ipv6():
            pytest.skip("this machine has no IPv6")
        assert answers(listener, "::1")


def test_a_port_of_one_address_is_open_at_no_other() -> None:
    with listen("127.0.0.2", 0, setting="GLM_HTTP_PORT") as listener:
        assert answers(listener, "127.0.0.2")
        assert not answers(listener, "127.0.0.1")


def test_a_machine_without_ipv6_listens_at_every_address_of_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    with listen("", 0, setting="GLM_HTTP_PORT") as listener:
        assert listener.family == socket.AF_INET
        assert answers(listener, "127.0.0.3")


@pytest.mark.parametrize("host", ["", "127.0.0.1"])
def test_a_port_that_is_taken_is_named_with_its_setting(host: str) -> None:
    with listen(host, 0, setting="GLM_HTTP_PORT") as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ConfigError, match=f"GLM_HOST:GLM_HTTP_PORT={host}:{port}: Address already in use"):
            listen(host, port, setting="GLM_HTTP_PORT")
