"""The gateway's file on this machine: it finds what lies here, and says what has no meaning here."""

from pathlib import Path
from typing import Any

import pytest

from glm_gateway.config.config import GatewayConfig
from glm_operator.local.errors import LocalError
from glm_operator.local.gateway.file import (
    Folders,
    asks_for_keys,
    fingerprint,
    gateway_file,
    of_clusters_only,
    refuse_secrets,
)
from glm_operator.render.gateway_config import Served
from unit.operator.operator_builders import a_deployment

FOLDERS = Folders(keys=Path("/s/keys"), usage=Path("/s/local/chat/usage"))
OWN = Served("glm-nano", "chat", {"file": "/s/local/chat/groups.json"})
SECRET = {"name": "s", "key": "k"}


def file(**spec: Any) -> bytes:
    return gateway_file(a_deployment(**spec), "127.64.255.1", FOLDERS, [OWN])


def test_the_file_is_one_that_a_gateway_takes_and_names_what_lies_here() -> None:
    config = GatewayConfig.model_validate_json(file(gateway={"usage": {"claimName": "c", "export": ["CSV"]}}))
    assert (config.host, config.port, config.management_port) == ("127.64.255.1", 8000, 9090)
    assert (config.auth.keys_folder, config.models[0].name) == (FOLDERS.keys, "glm-nano")
    assert str(config.models[0].groups.file) == "/s/local/chat/groups.json"
    assert config.usage is not None
    assert config.usage.folder.is_relative_to(FOLDERS.usage)


@pytest.mark.parametrize(
    ("spec", "goes_on"),
    [
        ({"gateway": {"names": [{"name": "a", "arms": [{"to": "glm-nano"}]}]}}, True),
        ({"access": {"limits": {"default": {"concurrency": 3}}}}, True),
        ({"gateway": {"maxContinuations": 0, "drainSeconds": 5, "overload": {"enabled": False}}}, True),
        ({"access": {"auth": "None"}}, False),
        ({"gateway": {"usage": {}}}, False),
        ({"gateway": {"audit": {}}}, False),
        ({"gateway": {"store": {"url": "redis://127.0.0.1:6379/0"}}}, False),
    ],
)
def test_a_gateway_is_replaced_only_for_what_it_cannot_take_over(spec: dict[str, Any], goes_on: bool) -> None:
    assert (fingerprint(file()) == fingerprint(file(**spec))) is goes_on


@pytest.mark.parametrize(
    ("gateway", "named"),
    [
        ({"tlsSecretRef": {"name": "tls"}}, r"gateway\.tlsSecretRef names a Secret"),
        (
            {
                "store": {"url": "redis://valkey:6379/0", "passwordSecretRef": SECRET},
                "upstreams": [{"name": "far", "url": "https://x.example/v1", "model": "m", "keySecretRef": SECRET}],
            },
            r"gateway\.store\.passwordSecretRef, gateway\.upstreams\[far\]\.keySecretRef name Secrets",
        ),
    ],
)
def test_what_lies_in_a_secret_is_refused_by_name(gateway: dict[str, Any], named: str) -> None:
    with pytest.raises(LocalError, match=named):
        refuse_secrets(a_deployment(gateway=gateway))
    with pytest.raises(LocalError, match=named):
        file(gateway=gateway)


def test_nothing_that_has_no_meaning_here_is_passed_over_in_silence() -> None:
    gateway = {
        "replicas": 2,
        "image": "x:1",
        "resources": {"requests": {"cpu": "1"}},
        "nodeSelector": {"a": "b"},
        "tolerations": [{"operator": "Exists"}],
        "usage": {"claimName": "usage"},
        "store": {"url": "redis://valkey:6379/0"},
    }
    told = of_clusters_only(a_deployment(gateway=gateway, access={"keysSecretRef": {"name": "team"}}), FOLDERS.usage)
    assert [line.partition(" counts in clusters only")[0] for line in told] == [
        "gateway.replicas",
        "gateway.image",
        "gateway.resources",
        "gateway.nodeSelector",
        "gateway.tolerations",
        "access.keysSecretRef",
        "gateway.usage.claimName",
    ]
    assert told[-1].endswith(str(FOLDERS.usage))
    assert of_clusters_only(a_deployment(gateway={"usage": {}, "drainSeconds": 3}), FOLDERS.usage) == []


@pytest.mark.parametrize(
    ("spec", "asks"),
    [
        ({}, True),
        ({"access": {}}, True),
        ({"access": {"auth": "APIKeys"}}, True),
        ({"access": {"auth": "None"}}, False),
        ({"access": {"auth": "External", "external": {"url": "http://judge/"}}}, False),
        ({"gateway": {"enabled": False}}, False),
    ],
)
def test_keys_are_asked_for_unless_somebody_says_otherwise(spec: dict[str, Any], asks: bool) -> None:
    assert asks_for_keys(a_deployment(**spec)) is asks


def test_a_name_that_leads_nowhere_is_refused_in_a_sentence() -> None:
    names = [{"name": "quick", "arms": [{"to": "glm-mini"}]}]
    with pytest.raises(LocalError, match=r"the gateway of chat: the name quick has an arm to glm-mini, which is no"):
        file(gateway={"names": names})
