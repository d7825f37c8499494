"""A group whose server is full of connections is not ready and says why: the real supervisor and the real server."""

import contextlib
import socket
import time
from pathlib import Path

from glm_worker.supervisor.evidence.watchdog import TICK_S
from integration.few_connections import MOST
from integration.metrics_text import series_value
from integration.pods import Group, eventually, running_group

FAKE_RANKS = {"rank_target": "integration.fake_ranks:rest", "server_target": "integration.few_connections:run_server"}


def readiness(group: Group) -> tuple[int, str]:
    response = group.leader.get("/readyz")
    return response.status_code, response.text


def asking(address: tuple[str, int]) -> socket.socket:
    """Return a connection on which an answer is owed: the body of its request is still to come."""
    client = socket.create_connection(address)
    client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n")
    return client


def test_a_group_is_not_ready_while_its_server_allows_no_further_connection(tmp_path: Path) -> None:
    with running_group(tmp_path, pods=2, **FAKE_RANKS) as group, contextlib.ExitStack() as stack:
        generation = group.serving()["generation"]
        assert readiness(group) == (200, "serving\n")
        follower = group.pods[1]
        eventually(lambda: follower.get("/readyz").status_code == 200)
        address = (group.leader.host, 8000)
        clients = [stack.enter_context(asking(address)) for _ in range(MOST)]
        eventually(lambda: readiness(group)[0] == 503)
        said = readiness(group)[1]
        assert said.startswith(f"serving, not ready: answers are owed on {MOST} connections of clients")
        assert said.endswith(f"ready again when they are on fewer than {MOST}\n")
        assert series_value(group.leader.get("/metrics").text, "glm_http_connections") == MOST
        with socket.create_connection(address) as refused:
            assert b"503 Service Unavailable" in refused.recv(1000)
        assert group.leader.get("/livez").status_code == 200
        heard_s = time.monotonic() + 5 * TICK_S
        while time.monotonic() < heard_s:
            assert follower.get("/readyz").status_code == 200, "nobody connects to it"

        clients.pop().close()
        eventually(lambda: readiness(group) == (200, "serving\n"))
        assert group.serving()["generation"] == generation


def test_a_new_server_has_room_whatever_the_one_before_had(tmp_path: Path) -> None:
    with running_group(tmp_path, **FAKE_RANKS) as group, contextlib.ExitStack() as stack:
        group.serving()
        for _ in range(MOST):
            stack.enter_context(asking((group.leader.host, 8000)))
        eventually(lambda: readiness(group)[0] == 503)
        server = group.leader.child("server")
        server.kill()
        group.served_again(server)
        eventually(lambda: readiness(group) == (200, "serving\n"))
