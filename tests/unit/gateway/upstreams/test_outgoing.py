"""Outside a request has another address, key and name of its model, and nothing that is ours or secret."""

from typing import Any

import msgspec
import pytest
from pydantic import ValidationError

from glm_gateway.upstreams.config import UpstreamConfig
from glm_gateway.upstreams.outgoing import Address, address_of, head_of, headers_back, rewritten

FAR = Address("api.example.com", 443, is_tls=True, base="/v1")


@pytest.mark.parametrize(
    ("url", "address", "authority"),
    [
        ("https://api.example.com/v1/", FAR, "api.example.com"),
        ("https://api.example.com:8443", Address("api.example.com", 8443, True, ""), "api.example.com:8443"),
        ("http://[::1]:8000/v1", Address("::1", 8000, False, "/v1"), "[::1]:8000"),
        ("http://h/v1", Address("h", 80, False, "/v1"), "h"),
    ],
)
def test_an_address_is_read(url: str, address: Address, authority: str) -> None:
    assert address_of(url) == address
    assert address.authority == authority


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"url": "ftp://h/v1"}, "url"),
        ({"url": "https://user:secret@h/v1"}, "no user and no password"),
        ({"url": "https://h:99999/v1"}, "url of far"),
    ],
)
def test_an_upstream_that_cannot_be_is_refused(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        UpstreamConfig.model_validate({"name": "far", "model": "m", "url": "https://h/v1", **fields})


def test_the_body_names_the_model_of_outside_and_keeps_the_rest_as_it_was_written() -> None:
    found = rewritten(
        b'{"model": "chat", "temperature": 1.50, "priority": 3, "messages": [ {} ]}', "far-1", streams=False
    )
    assert found.body == b'{"model":"far-1","temperature":1.50,"messages":[ {} ]}'
    assert found.tells_usage


@pytest.mark.parametrize(
    ("options", "sent", "tells_usage"),
    [
        (None, {"include_usage": True}, False),
        ({"include_usage": True}, {"include_usage": True}, True),
        ({"include_usage": False, "x": 1}, {"include_usage": True, "x": 1}, False),
        ("wrong", "wrong", True),
    ],
)
def test_a_stream_is_asked_for_its_usage(options: Any, sent: Any, tells_usage: bool) -> None:
    found = rewritten(msgspec.json.encode({"model": "a", "stream_options": options}), "b", streams=True)
    assert msgspec.json.decode(found.body)["stream_options"] == sent
    assert found.tells_usage is tells_usage


def test_a_stream_that_says_nothing_is_asked_as_well() -> None:
    found = rewritten(b'{"model": "a"}', "b", streams=True)
    assert found.body == b'{"model":"b","stream_options":{"include_usage":true}}'


def test_the_head_has_our_key_and_not_the_clients() -> None:
    headers = [
        (b"content-type", b"application/json"),
        (b"authorization", b"Bearer client"),
        (b"x-api-key", b"client"),
        (b"cookie", b"client"),
        (b"x-glm-role", b"admin"),
        (b"x-request-id", b"r-1"),
        (b"user-agent", b"client/1"),
    ]
    head = head_of(FAR, "/v1/chat/completions", headers, b"far-key", 5)
    assert head.split(b"\r\n") == [
        b"POST /v1/chat/completions HTTP/1.1",
        b"host: api.example.com",
        b"user-agent: glm-gateway",
        b"via: 1.1 glm-gateway",
        b"accept-encoding: identity",
        b"content-length: 5",
        b"content-type: application/json",
        b"authorization: Bearer far-key",
        b"",
        b"",
    ]


def test_no_line_is_broken() -> None:
    with pytest.raises(ValueError, match="line break"):
        head_of(FAR, "/v1/completions", [], b"key\r\nx: y", 0)


def test_of_the_reply_only_what_is_about_it_comes_back() -> None:
    headers = [(b"content-type", b"application/json"), (b"set-cookie", b"a=b"), (b"openai-organization", b"us")]
    assert headers_back(headers) == headers[:1]
