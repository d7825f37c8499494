"""The gateway's file is taken as it is meant, or refused by the name of its field."""

from pathlib import Path

import pytest

from glm_gateway.config.config import BadConfig, config_in, secret_in

LEAST = """
auth: {mode: None}
tokenFile: /t
secretFile: /s
models:
  - {name: chat, groups: {file: /groups.json}}
"""


def test_the_least_file_is_enough_and_the_rest_has_defaults() -> None:
    found = config_in(LEAST)
    assert (found.port, found.management_port, found.continuation.max_times) == (8000, 9090, 1)
    assert found.models[0].groups.file == Path("/groups.json")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("auth: {mode: None}", "port: 1"), "auth: field required"),
        (("mode: None", "mode: Nobody"), "auth.mode"),
        (("mode: None", "mode: Keys"), "keysFolder goes with mode Keys"),
        (("mode: None", "mode: None, keysFolder: /k"), "keysFolder goes with mode Keys"),
        (("file: /groups.json", "file: /g, service: s, namespace: n"), "exactly one of file and service"),
        (("file: /groups.json", "service: s"), "service and namespace go together"),
        (("models:", "models:\n  - {name: chat, groups: {file: /g}}"), "there twice: chat"),
        (("tokenFile: /t", "tokenFile: /t\nport: 70000"), "port"),
        (("tokenFile: /t", "tokenFile: /t\ntypo: 1"), "typo"),
        (("models:\n  - {name: chat, groups: {file: /groups.json}}", "models: []"), "models"),
    ],
)
def test_a_mistake_is_named_by_its_field(change: tuple[str, str], sentence: str) -> None:
    text = LEAST.replace(*change)
    assert text != LEAST
    with pytest.raises(BadConfig) as caught:
        config_in(text)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "a: [", "5"])
def test_what_is_no_file_of_ours_is_refused(text: str) -> None:
    with pytest.raises(BadConfig):
        config_in(text)


def test_a_secret_is_read_without_blanks_and_a_short_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    with pytest.raises(BadConfig, match="cannot be read"):
        secret_in(path)
    path.write_text("0123456789abcdef\n")
    assert secret_in(path) == b"0123456789abcdef"
    path.write_text("short")
    with pytest.raises(BadConfig, match="has 5 bytes; it must have at least 16") as caught:
        secret_in(path)
    assert "short" not in str(caught.value)
