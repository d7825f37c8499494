import pytest

from glm_gateway.access.cors import Cors, asks_before
from glm_gateway.access.cors_config import CorsConfig

ONE = Cors.of(CorsConfig(origins=("https://chat.example", "http://localhost:3000"), max_age_seconds=60))
ANY = Cors.of(CorsConfig(origins=("*",)))


def asked(origin: bytes | None, *more: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    return [*([] if origin is None else [(b"origin", origin)]), *more]


@pytest.mark.parametrize("origin", [b"https://chat.example", b"http://localhost:3000"])
def test_an_origin_of_the_list_is_told_that_it_may_read(origin: bytes) -> None:
    told = dict(ONE.headers(asked(origin)))
    assert told[b"access-control-allow-origin"] == origin
    assert told[b"vary"] == b"origin"
    assert b"access-control-allow-credentials" not in told


@pytest.mark.parametrize(
    "origin",
    [
        None,
        b"null",
        b"*",
        b"https://chat.example.evil",
        b"https://evil.chat.example",
        b"http://chat.example",
        b"https://chat.example:444",
        b"https://chat.example/",
        b"https://chat.example\x00",
    ],
)
def test_no_other_origin_is(origin: bytes | None) -> None:
    assert ONE.headers(asked(origin)) == [(b"vary", b"origin")]
    assert ONE.preflight(asked(origin), ["GET"]) is None


def test_two_origins_are_none() -> None:
    both = asked(b"https://chat.example", (b"origin", b"https://evil.example"))
    assert ONE.headers(both) == [(b"vary", b"origin")]
    assert not asks_before("OPTIONS", both)


def test_any_origin_is_told_alike() -> None:
    assert dict(ANY.headers(asked(b"https://x.example")))[b"access-control-allow-origin"] == b"*"
    assert ANY.headers(asked(None)) == []


def test_a_browser_is_told_methods_headers_and_how_long_it_need_not_ask_again() -> None:
    told = dict(
        ONE.preflight(
            asked(b"https://chat.example", (b"access-control-request-headers", b"authorization, x-stainless-os")),
            ["GET", "HEAD"],
        )
        or []
    )
    assert told[b"access-control-allow-methods"] == b"GET, HEAD"
    assert told[b"access-control-allow-headers"] == b"authorization, x-stainless-os"
    assert told[b"access-control-max-age"] == b"60"


@pytest.mark.parametrize("wanted", [b"a\r\nset-cookie: x", b"a,,b", b"a b", b"\xff", b"a," * 2000 + b"a", b""])
def test_what_is_no_list_of_names_is_not_told_back(wanted: bytes) -> None:
    told = ONE.preflight(asked(b"https://chat.example", (b"access-control-request-headers", wanted)), ["GET"])
    assert told is not None
    assert b"access-control-allow-headers" not in dict(told)


def test_only_a_browser_asks_before() -> None:
    question = asked(b"https://chat.example", (b"access-control-request-method", b"POST"))
    assert asks_before("OPTIONS", question)
    assert not asks_before("POST", question)
    assert not asks_before("OPTIONS", asked(b"https://chat.example"))
