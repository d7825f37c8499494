"""Ranks of several pods that meet at a port of rank 0, whoever comes first."""

import socket
import threading

import pytest

from glm_worker.parallel import groups
from glm_worker.parallel.groups import _wait_for_port

LIMIT_S = 20.0


def test_a_rank_that_comes_first_waits_until_somebody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    has_looked = threading.Event()
    connect = socket.create_connection

    def looks(address: tuple[str, int], timeout: float) -> socket.socket:
        try:
            return connect(address, timeout)
        finally:
            has_looked.set()

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        monkeypatch.setattr(groups.socket, "create_connection", looks)
        waiting = threading.Thread(target=_wait_for_port, args=listener.getsockname(), daemon=True)
        waiting.start()
        assert has_looked.wait(LIMIT_S)
        assert waiting.is_alive()
        listener.listen()
        waiting.join(LIMIT_S)
        assert not waiting.is_alive()
