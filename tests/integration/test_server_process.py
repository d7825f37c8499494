"""The server as the process that it is: started with a descriptor, without torch, gone when its supervisor is."""

import json
import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from glm_worker.control import encode_frame
from glm_worker.messages import FromServer, MetricsReply, MetricsRequest, ServerReady
from glm_worker.server.main import CLIENT_IDLE_S, CLIENT_LOST_S, _listen
from glm_worker.settings import WorkerSettings
from integration.free_ports import free_port
from integration.server_world import DEADLINE_S, MODEL

RUN = """
import sys
from glm_worker.server.main import run_server
from glm_worker.settings import WorkerSettings
run_server(WorkerSettings.model_validate_json(sys.argv[2]), int(sys.argv[1]))
heavy = sorted({"torch", "transformers", "numpy", "pandas"} & set(sys.modules))
print("heavy imports:", heavy)
"""


@contextmanager
def a_process(settings: WorkerSettings) -> Iterator[tuple[subprocess.Popen[str], socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.settimeout(DEADLINE_S)
    path = os.pathsep.join(path for path in sys.path if path)
    with ours, theirs:
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, str(theirs.fileno()), settings.model_dump_json()],
            pass_fds=[theirs.fileno()],
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        theirs.close()
        try:
            yield process, ours
        finally:
            process.kill()
            process.communicate()


def receive(control: socket.socket) -> FromServer:
    length = int.from_bytes(control.recv(4, socket.MSG_WAITALL), "big")
    return msgspec.msgpack.decode(control.recv(length, socket.MSG_WAITALL), type=FromServer)


def test_it_serves_until_its_supervisor_is_gone() -> None:
    settings = WorkerSettings(model=f"builtin://{MODEL}", host="127.0.0.1", http_port=free_port())
    with a_process(settings) as (process, control):
        assert receive(control) == ServerReady(settings.http_port)
        with urllib.request.urlopen(f"http://127.0.0.1:{settings.http_port}/v1/models", timeout=DEADLINE_S) as response:
            assert [model["id"] for model in json.load(response)["data"]] == [MODEL]
        control.sendall(encode_frame(MetricsRequest(1)))
        reply = receive(control)
        assert isinstance(reply, MetricsReply)
        assert "glm_requests_total" in reply.text
        control.close()
        stdout, stderr = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 0, stderr
        assert "heavy imports: []" in stdout
        assert "Traceback" not in stderr


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = WorkerSettings(model=f"builtin://{MODEL}", host="127.0.0.1", http_port=port)
        with a_process(settings) as (process, _):
            _, stderr = process.communicate(timeout=DEADLINE_S)
            assert process.returncode != 0
            assert f"ConfigError: cannot listen on GLM_HOST:GLM_HTTP_PORT=127.0.0.1:{port}" in stderr


def test_a_client_whose_machine_is_gone_is_noticed_by_the_kernel() -> None:
    with _listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == CLIENT_IDLE_S
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == CLIENT_LOST_S * 1000
