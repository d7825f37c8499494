"""`glm crd apply` against an API server's side of the conversation."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from glm_operator.api.crd import crd
from glm_operator.cli import app

PATH = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/glmdeployments.glm-operator.io"


class ApiServer(ThreadingHTTPServer):
    """Knows one object, or none; counts what is asked of it."""

    def __init__(self, stored: dict[str, Any] | None, refuse: int = 0) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.stored, self.refuse = stored, refuse
        self.asked: list[tuple[str, str, str]] = []


class Handler(BaseHTTPRequestHandler):
    server: ApiServer

    def do_GET(self) -> None:
        self._answer()

    def do_PATCH(self) -> None:
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.server.stored is not None and not self.server.refuse:
            changed = self.server.stored["spec"] != sent["spec"]
            self.server.stored["metadata"]["generation"] += int(changed)
            self.server.stored["spec"] = sent["spec"]
        self._answer()

    def _answer(self) -> None:
        self.server.asked.append((self.command, self.path, self.headers.get("Content-Type", "")))
        status, body = 200, self.server.stored
        if self.server.stored is None:
            status, body = 404, {"kind": "Status", "message": "not found"}
        if self.server.refuse and self.command == "PATCH":
            status, body = self.server.refuse, {"kind": "Status", "message": "no patch for you"}
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


def stored(*, is_current: bool) -> dict[str, Any]:
    """The CRD as an API server keeps it, of this version or of an older one."""
    body = json.loads(json.dumps(crd()))
    if not is_current:
        del body["spec"]["versions"][0]["additionalPrinterColumns"]
    body["metadata"]["generation"] = 1
    names = body["spec"]["names"]
    body["status"] = {
        "conditions": [{"type": "Established", "status": "True"}],
        "acceptedNames": names,
        "storedVersions": ["v1alpha1"],
    }
    return dict(body)


@pytest.fixture
def api(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    server = ApiServer(*request.param)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "users": [{"name": "test", "user": {}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    }
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def apply() -> Result:
    return CliRunner().invoke(app, ["crd", "apply"])


@pytest.mark.parametrize("api", [(stored(is_current=False),)], indirect=True)
def test_an_older_crd_is_updated_by_a_forced_server_side_apply(api: ApiServer) -> None:
    result = apply()
    assert (result.exit_code, "is updated and served" in result.stdout) == (0, True), result.output
    assert api.stored is not None
    assert "additionalPrinterColumns" in api.stored["spec"]["versions"][0]
    (patch,) = [entry for entry in api.asked if entry[0] == "PATCH"]
    assert patch == ("PATCH", f"{PATH}?fieldManager=glm-operator&force=true", "application/apply-patch+yaml")


@pytest.mark.parametrize("api", [(stored(is_current=True),)], indirect=True)
def test_a_crd_of_this_version_is_left_as_it_is(api: ApiServer) -> None:
    assert "is as it should be and served" in apply().stdout


@pytest.mark.parametrize("api", [(stored(is_current=False),)], indirect=True)
def test_nothing_but_our_own_object_is_asked_for(api: ApiServer) -> None:
    apply()
    assert {path.partition("?")[0] for _, path, _ in api.asked} == {PATH}


@pytest.mark.parametrize("api", [(None,)], indirect=True)
def test_a_missing_crd_is_an_error_that_says_how_to_create_it(api: ApiServer) -> None:
    result = apply()
    assert (result.exit_code, "helm show crds" in result.stderr) == (1, True)


@pytest.mark.parametrize("api", [(stored(is_current=False), 403)], indirect=True)
def test_a_refusal_of_the_api_server_is_told(api: ApiServer) -> None:
    result = apply()
    assert (result.exit_code, "403" in result.stderr, "no patch for you" in result.stderr) == (1, True, True)


def test_without_a_cluster_it_says_where_it_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    result = apply()
    assert (result.exit_code, f"kubeconfig {tmp_path}/none" in result.stderr) == (1, True)
