"""`glm keys` on a Secret: what two people do at once is all there, and what is no key's is left alone."""

import asyncio
import base64
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from aiohttp.test_utils import TestServer
from typer.testing import CliRunner, Result

from glm_gateway.access.keys import Hash, Key, item_of, keyring_of
from glm_gateway.access.secrets import digest_of
from glm_operator.cli import app
from integration.fake_kubernetes import FakeKubernetes, Manifest, Refused


@pytest.fixture
def kubernetes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeKubernetes]:
    """A small Kubernetes in a thread of its own, and a kubeconfig that names it."""
    fake, loop = FakeKubernetes(), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server = TestServer(fake.app())
    asyncio.run_coroutine_threadsafe(server.start_server(), loop).result(10)
    kubeconfig = tmp_path / "kubeconfig"
    parts = {
        "clusters": [{"name": "c", "cluster": {"server": str(server.make_url("/"))}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "models"}}],
    }
    kubeconfig.write_text(yaml.safe_dump({**parts, "current-context": "x"}))
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    yield fake
    asyncio.run_coroutine_threadsafe(server.close(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def keys(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["keys", *arguments])


def made(result: Result) -> str:
    assert result.exit_code == 0, result.output
    assert result.stdout.count("\n") == 1
    return result.stdout.strip()


def items(kubernetes: FakeKubernetes, name: str = "glm-keys") -> dict[str, bytes]:
    return {item: base64.b64decode(data) for item, data in kubernetes.get("secrets", name)["data"].items()}


def opened(kubernetes: FakeKubernetes, secret: str, name: str = "glm-keys") -> str | None:
    found = keyring_of(items(kubernetes, name)).find(secret, datetime.now(UTC))
    return found and found[0]


def somebodys(**fields: object) -> Manifest:
    """Return a Secret with a key that somebody else made."""
    data = {"bob": base64.b64encode(item_of(Key(hashes=(Hash(sha256=digest_of("sb")),)))).decode()}
    return {"metadata": {"name": "glm-keys"}, "type": "Opaque", "data": data, **fields}


def test_the_first_key_makes_the_secret_in_the_namespace_of_the_context(kubernetes: FakeKubernetes) -> None:
    secret = made(keys("create", "alice", "--group", "team"))
    assert opened(kubernetes, secret) == "alice"
    assert secret.encode() not in items(kubernetes)["alice"]
    assert kubernetes.get("secrets", "glm-keys")["type"] == "Opaque"
    assert "alice" in keys("list").stdout


def test_keys_are_rotated_and_revoked_beside_others(kubernetes: FakeKubernetes) -> None:
    kubernetes.put("secrets", somebodys())
    old = made(keys("create", "alice"))
    new = made(keys("rotate", "alice"))
    assert opened(kubernetes, old) == opened(kubernetes, new) == "alice"
    assert keys("revoke", "alice").exit_code == 0
    assert opened(kubernetes, new) is None
    assert opened(kubernetes, "sb") == "bob"


def test_another_secret_and_namespace_are_taken_by_name(kubernetes: FakeKubernetes) -> None:
    made(keys("create", "alice", "--secret", "mine", "-n", "others"))
    assert ("secrets", "others", "mine") in kubernetes.objects


@pytest.mark.parametrize("is_there", [True, False])
def test_two_people_at_once_lose_nobodys_key(kubernetes: FakeKubernetes, is_there: bool) -> None:
    if is_there:
        kubernetes.put("secrets", somebodys(data={}))

    def another_is_faster(_: str) -> None:
        kubernetes.before_write = lambda _: None
        kubernetes.put("secrets", somebodys())

    kubernetes.before_write = another_is_faster
    secret = made(keys("create", "alice"))
    assert opened(kubernetes, secret) == "alice"
    assert opened(kubernetes, "sb") == "bob"


def test_a_name_that_another_took_a_moment_before_is_refused(kubernetes: FakeKubernetes) -> None:
    kubernetes.before_write = lambda _: kubernetes.objects or kubernetes.put("secrets", somebodys())
    result = keys("create", "bob")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "there is a key bob in Secret models/glm-keys already" in result.stderr
    assert opened(kubernetes, "sb") == "bob"


def test_who_never_gets_a_turn_is_told(kubernetes: FakeKubernetes) -> None:
    kubernetes.put("secrets", somebodys())
    kubernetes.before_write = lambda _: kubernetes.put("secrets", somebodys())
    result = keys("create", "alice")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "was changed by others 10 times in a row" in result.stderr


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"type": "kubernetes.io/tls"}, "is of type kubernetes.io/tls; keys need a Secret of their own"),
        ({"data": {"password": "aHVudGVyMg=="}}, "holds something, and none of it is a key"),
    ],
)
def test_a_secret_of_other_things_is_left_alone(kubernetes: FakeKubernetes, fields: Manifest, sentence: str) -> None:
    kubernetes.put("secrets", somebodys(**fields))
    result = keys("create", "alice")
    assert (result.exit_code, result.stdout) == (1, "")
    assert sentence in result.stderr
    assert kubernetes.writes == []


def test_what_the_cluster_forbids_is_said_in_its_words(kubernetes: FakeKubernetes) -> None:
    def forbid(_: str) -> None:
        raise Refused(403, "Forbidden", "secrets is forbidden: User u cannot create resource secrets")

    kubernetes.before_write = forbid
    result = keys("create", "alice")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "error: secrets is forbidden: User u cannot create resource secrets\n"


@pytest.mark.parametrize("option", [("--secret", "../pods/x"), ("-n", "a/b")])
def test_no_name_leads_to_another_path(kubernetes: FakeKubernetes, option: tuple[str, str]) -> None:
    result = keys("list", *option)
    assert result.exit_code == 1
    assert f"{option[1]!r} is no name" in result.stderr
