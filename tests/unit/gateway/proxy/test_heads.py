"""No header that a worker believes comes from a client, and none breaks out of its line."""

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_gateway.proxy.heads import ROLE_HEADER, TENANT_HEADER, TOKEN_HEADER, reply_headers, request_head

BELIEVED = (TOKEN_HEADER, TENANT_HEADER, ROLE_HEADER, b"x-glm-frames", b"authorization", b"x-api-key", b"cookie")


class Parsed:
    """What a group reads."""

    def __init__(self, head: bytes) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        parser = httptools.HttpRequestParser(self)
        parser.feed_data(head)
        self.method = parser.get_method()

    def on_url(self, url: bytes) -> None:
        self.url = url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))


@pytest.mark.parametrize("name", BELIEVED)
def test_what_workers_believe_never_comes_from_a_client(name: bytes) -> None:
    head = request_head("POST", "/v1/completions", [(name, b"forged")], 2)
    assert b"forged" not in head


def test_ours_replaces_what_a_client_sent_under_its_name() -> None:
    head = request_head("POST", "/x", [(b"x-request-id", b"theirs")], 0, [(b"x-request-id", b"ours")])
    assert [value for name, value in Parsed(head).headers if name == b"x-request-id"] == [b"ours"]


def test_what_clients_and_workers_agree_about_goes_through() -> None:
    given_ = [(b"content-type", b"application/json"), (b"anthropic-version", b"2023-06-01"), (b"x-other", b"no")]
    read = Parsed(request_head("POST", "/v1/messages?beta=true", given_, 7))
    assert (read.method, read.url) == (b"POST", b"/v1/messages?beta=true")
    assert (b"content-length", b"7") in read.headers
    assert [name for name, _ in read.headers] == [b"host", b"content-length", b"content-type", b"anthropic-version"]


@given(st.binary(max_size=20), st.binary(max_size=20), st.text(max_size=20))
def test_nothing_breaks_out_of_its_line(value: bytes, added: bytes, target: str) -> None:
    try:
        head = request_head("POST", f"/v1?{target}", [(b"user-agent", value)], 0, [(b"x-glm-tenant", added)])
    except (ValueError, UnicodeEncodeError):
        return
    assert head.count(b"\r\n") == 6
    assert head.endswith(b"\r\n\r\n")
    assert head.count(b"\n") == 6


def test_a_reply_keeps_what_the_group_said_but_for_its_connection() -> None:
    said = [
        (b"content-type", b"text/event-stream"),
        (b"content-length", b"5"),
        (b"server", b"x"),
        (b"x-request-id", b"a"),
    ]
    assert reply_headers(said, [(b"x-request-id", b"b"), (b"x-glm-group", b"g0")]) == [
        (b"content-type", b"text/event-stream"),
        (b"x-request-id", b"b"),
        (b"x-glm-group", b"g0"),
    ]
