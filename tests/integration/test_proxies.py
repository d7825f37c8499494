"""A proxy in the environment has no part in what happens on this machine."""

import importlib.util
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from glm_cluster.commands import PROXY_VARIABLES

ROOT = Path(__file__).resolve().parents[2]
NOBODY = "http://127.0.0.1:1"


class Models(BaseHTTPRequestHandler):
    """Has no model, and says so in peace."""

    def do_GET(self) -> None:
        body = b'{"object": "list", "data": []}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_no_test_sees_a_proxy() -> None:
    assert not {*PROXY_VARIABLES} & {*os.environ}


def test_a_proxy_of_the_caller_is_kept_from_tests() -> None:
    test = f"{Path(__file__)}::{test_no_test_sees_a_proxy.__name__}"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test]
    environment = os.environ | dict.fromkeys(PROXY_VARIABLES, NOBODY)
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_demo_asks_its_model_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "examples")  # as for a script that is started there
    spec = importlib.util.spec_from_file_location("examples_demo", ROOT / "examples/demo.py")
    assert spec is not None
    assert spec.loader is not None
    demo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(demo)
    monkeypatch.setenv("http_proxy", NOBODY)
    with ThreadingHTTPServer(("127.0.0.1", 0), Models) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            with demo.client_of(f"http://127.0.0.1:{server.server_port}/v1", "sk-any") as client:
                assert client.models.list().data == []
        finally:
            server.shutdown()
