import gc
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from glm_cluster import web
from glm_cluster.errors import ClusterError


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/readyz" else 500)
        self.end_headers()
        self.wfile.write(b"ok" if self.path == "/readyz" else b"not yet")

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def url() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_body_is_returned_past_every_proxy(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert web.get(f"{url}/readyz") == b"ok"


def test_a_refusal_names_the_status_and_leaves_no_open_connection(url: str) -> None:
    with pytest.raises(ClusterError, match="/livez answers 500"):
        web.get(f"{url}/livez")
    gc.collect()  # an unclosed socket would warn here, and warnings are errors


def test_a_missing_authority_is_a_cluster_that_is_not_up(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="does not answer"):
        web.get("https://127.0.0.1:9/readyz", authority=tmp_path / "ca.crt")
