"""The gateway's file is taken as it is meant, or refused by the name of its field."""

from pathlib import Path

import pytest
import yaml

from glm_gateway.config.config import GatewayConfig
from glm_gateway.config.file import MAX_BYTES, BadConfig, config_in, file_of

LEAST = """
auth: {mode: None}
models:
  - {name: chat, groups: {file: /groups.json}}
"""
UPSTREAM = "upstreams: [{name: far, url: https://api.example.com/v1, model: glm-4.5-air}]"

WHOLE = f"""
host: 127.0.0.1
tls: {{folder: /etc/glm/tls}}
auth: {{mode: JWT, jwt: {{issuer: "https://id.example.com", audience: glm}}}}
models:
  - name: chat
    groups: {{service: chat-worker, namespace: models}}
    slo:
      classes:
        - {{name: fast, thinking: disabled, header: null, thresholds_s: {{ttft: 0.5}}, objective: 0.99}}
    overflow: {{upstream: far, afterSeconds: 5}}
{UPSTREAM}
names: [{{name: any, arms: [{{to: chat, weight: 90}}, {{to: far, weight: 10}}], mayFall: false}}]
priorities: [{{name: batch, priority: 10, keyGroups: [batch], promiseSeconds: 60}}]
overload: {{enabled: true, shortThoughts: 1, noThoughts: 1.5, inTurn: 2, shed: 4}}
store: {{url: "redis://valkey:6379/0", onFailure: Closed, prefix: glm}}
usage: {{folder: /usage, export: {{folder: /exports, formats: [CSV]}}}}
audit: {{file: "-", requests: true}}
trace: {{enabled: true, keepSeconds: 60, maxRequests: 10}}
cors: {{origins: ["https://chat.example.com"], maxAgeSeconds: 60}}
workers: {{tlsFolder: /etc/glm/workers}}
"""


def test_the_least_file_is_enough_and_the_rest_has_defaults() -> None:
    found = config_in(LEAST)
    assert (found.port, found.management_port, found.continuation.max_times) == (8000, 9090, 1)
    assert found.models[0].groups.file == Path("/groups.json")
    assert found.overload.steps().max_thinking_tokens == 512


def test_a_file_with_everything_is_read() -> None:
    found = _value(WHOLE)
    assert found.models[0].slo is not None
    assert found.models[0].slo.classes[0].thresholds_s == {"ttft": 0.5}
    assert found.names[0].arms[1].to == "far"
    assert found.store is not None
    assert found.store.on_failure == "Closed"


def test_json_and_yaml_are_the_same_to_it() -> None:
    read = config_in(LEAST)
    assert config_in(read.model_dump_json(by_alias=True, include={"auth": {"mode"}, "models": True})) == read


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("auth: {mode: None}", "port: 1"), "auth: field required"),
        (("mode: None", "mode: Nobody"), "auth.mode"),
        (("mode: None", "mode: Keys"), "keysFolder goes with mode Keys"),
        (("mode: None", "mode: None, keysFolder: /k"), "keysFolder goes with mode Keys"),
        (("mode: None", "mode: JWT"), "jwt goes with mode JWT"),
        (("mode: None", "mode: Judge, judge: {url: judge}"), "auth.judge.url"),
        (("file: /groups.json", "file: /g, service: s, namespace: n"), "exactly one of file and service"),
        (("file: /groups.json", "service: s"), "service and namespace go together"),
        (("models:", "models:\n  - {name: chat, groups: {file: /g}}"), "there twice: chat"),
        (("auth:", "port: 70000\nauth:"), "port"),
        (("auth:", "typo: 1\nauth:"), "typo"),
        (("auth:", "tokenFile: /t\nauth:"), "tokenFile"),
        (("models:\n  - {name: chat, groups: {file: /groups.json}}", "models: []"), "models"),
        (("auth:", "names: [{name: any, arms: [{to: other}]}]\nauth:"), "no model and no upstream; there are: chat"),
        (("auth:", "names: [{name: chat, arms: [{to: chat}]}]\nauth:"), "there twice: chat"),
        (("auth:", "names: [{name: any, arms: [{to: chat}, {to: chat}]}]\nauth:"), "go twice to chat"),
        (("auth:", "names: [{name: any, arms: [{to: chat, weight: 0}]}]\nauth:"), "have no weight"),
        (("/groups.json}", "/groups.json}, overflow: {upstream: far}"), "no upstream; there are: none"),
        (("auth:", "priorities: [{name: a}, {name: a}]\nauth:"), "priorities has a twice"),
        (("auth:", "priorities: [{name: a, keyGroups: [g]}, {name: b, keyGroups: [g]}]\nauth:"), "g has several"),
        (("auth:", "overload: {noThoughts: 0.5}\nauth:"), "must not go down; they are 1, 0.5, 2, 4"),
        (("auth:", 'store: {url: "redis://:secret@valkey:6379/0"}\nauth:'), "store.url"),
    ],
)
def test_a_mistake_is_named_by_its_field(change: tuple[str, str], sentence: str) -> None:
    text = LEAST.replace(*change)
    assert text != LEAST
    with pytest.raises(BadConfig) as caught:
        config_in(text)
    assert sentence in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "a: [", "5", "[" * 100_000, "\x00"])
def test_what_is_no_file_of_ours_is_refused(text: str) -> None:
    with pytest.raises(BadConfig):
        config_in(text)


def test_it_is_known_by_the_digest_of_its_bytes_and_too_many_of_them_are_not_read() -> None:
    assert file_of(LEAST.encode()).digest != file_of(LEAST.encode() + b"\n").digest
    with pytest.raises(BadConfig, match=f"at most {MAX_BYTES} are read"):
        file_of(b"#" * (MAX_BYTES + 1))


def _value(text: str) -> GatewayConfig:
    return GatewayConfig.model_validate(yaml.safe_load(text))
