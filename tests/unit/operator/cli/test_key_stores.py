"""A Secret of keys, on a client of the cluster that notes what it is asked."""

from collections.abc import Mapping
from datetime import datetime

import pytest

from glm_operator.cli import key_stores
from glm_operator.cli.key_stores import SecretStore


class Kube:
    """Has no Secret yet. pods: of gateways that read it."""

    def __init__(self, *pods: str) -> None:
        self._pods = list(pods)
        self.told: list[datetime] = []

    async def secret(self, namespace: str, name: str) -> None:
        return None

    async def create_secret(self, namespace: str, name: str, data: Mapping[str, str]) -> None:
        assert not self.told, "the Secret comes first"

    async def tell_gateways(self, namespace: str, secret: str, now: datetime) -> list[str]:
        self.told.append(now)
        return self._pods


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_stores, "AGAIN_S", 0.0)


async def test_gateways_are_told_once_more_for_a_kubelet_that_hears_of_the_secret_last() -> None:
    kube = Kube("chat-gateway-a", "chat-gateway-b")
    store = SecretStore(kube, "models", "glm-keys")
    await store.change(lambda items: {"a": b"1"})
    assert kube.told == [], "the secret is shown first: whoever breaks off later has it"
    assert await store.tell_gateways() == "told to look now: chat-gateway-a, chat-gateway-b"
    first, again = kube.told
    assert first < again, "or the note would be the same, and no news"


async def test_where_no_gateway_reads_the_secret_nobody_waits() -> None:
    kube = Kube()
    store = SecretStore(kube, "models", "glm-keys")
    await store.change(lambda items: {"a": b"1"})
    assert await store.tell_gateways() == "no gateway reads this Secret yet"
    assert len(kube.told) == 1


async def test_where_nothing_changed_nobody_is_told() -> None:
    kube = Kube("chat-gateway-a")
    assert await SecretStore(kube, "models", "glm-keys").tell_gateways() == ""
    assert kube.told == []
