"""A key opens to its secrets while they are good, and nothing of a secret is kept."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_gateway.access.credentials import BadCredentials, secret_of
from glm_gateway.access.keys import Hash, Key, Keyring, item_of, keyring_of, new_key, rotated
from glm_gateway.access.secrets import PREFIX, digest_of, new_secret

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def key(secret: str, **fields: object) -> Key:
    return Key(hashes=(Hash(sha256=digest_of(secret)),), **fields)  # type: ignore[arg-type]


def test_a_secret_opens_its_key_and_no_other() -> None:
    keyring = Keyring({"a": key("sa", role="developer"), "b": key("sb")})
    assert keyring.find("sa", NOW) == ("a", keyring.keys["a"])
    assert keyring.find("sb", NOW) == ("b", keyring.keys["b"])
    assert keyring.find("sc", NOW) is None
    assert keyring.find("", NOW) is None


def test_new_secrets_differ_and_are_known_as_ours() -> None:
    made = {new_secret() for _ in range(50)}
    assert len(made) == 50
    assert all(each.startswith(PREFIX) and len(each) > 40 for each in made)


def test_an_item_of_the_secret_tells_nothing_of_the_secret() -> None:
    secret = new_secret()
    item = item_of(new_key(secret, NOW, group="team", role=None, expires=NOW + HOUR))
    assert secret.encode() not in item
    assert secret.removeprefix(PREFIX).encode() not in item
    assert keyring_of({"a": item}).find(secret, NOW) is not None


def test_a_key_that_has_expired_opens_nothing() -> None:
    keyring = Keyring({"a": key("sa", expires=NOW)})
    assert keyring.find("sa", NOW - HOUR) is not None
    assert keyring.find("sa", NOW) is None


def test_two_secrets_are_good_while_a_key_is_rotated_and_then_one() -> None:
    found = Keyring({"a": rotated(key("old"), "new", NOW + HOUR)})
    assert found.find("old", NOW) is not None
    assert found.find("new", NOW) is not None
    assert found.find("old", NOW + HOUR) is None
    assert found.find("new", NOW + HOUR) is not None


def test_a_key_that_is_rotated_again_forgets_the_oldest_secret_and_lengthens_no_time() -> None:
    twice = rotated(rotated(key("one"), "two", NOW + HOUR), "three", NOW + 2 * HOUR)
    keyring = Keyring({"a": twice})
    assert keyring.find("one", NOW) is None
    assert keyring.find("two", NOW + HOUR) is not None
    assert keyring.find("three", NOW + 3 * HOUR) is not None


@pytest.mark.parametrize(
    ("name", "item", "sentence"),
    [
        ("a", b"{", "key a: the item"),
        ("a", b"{}", "key a: hashes: field required"),
        ("a", b'{"hashes":[{"sha256":"short"}]}', "key a: hashes.0.sha256"),
        ("a", b'{"hashes":[],"limts":1}', "key a:"),
        ("NOT A NAME", b"{}", "is no name of a key"),
    ],
)
def test_an_item_that_is_no_key_is_named_and_locks_nobody_else_out(name: str, item: bytes, sentence: str) -> None:
    found = keyring_of({name: item, "good": item_of(key("sg"))})
    assert list(found.keys) == ["good"]
    assert sentence in found.mistakes[0]


def test_a_mistake_never_tells_what_stands_in_the_item() -> None:
    found = keyring_of({"a": b'{"hashes":[{"sha256":"glm-secret-by-mistake"}]}'})
    assert "secret-by-mistake" not in " ".join(found.mistakes)


def test_a_secret_that_two_keys_have_opens_neither() -> None:
    found = keyring_of({"a": item_of(key("same")), "b": item_of(key("same")), "c": item_of(key("sc"))})
    assert found.find("same", NOW) is None
    assert found.find("sc", NOW) is not None
    assert found.mistakes == ("keys a and b have a secret in common: neither is good",)


@given(st.text())
def test_any_text_is_looked_up_and_opens_nothing(text: str) -> None:
    assert Keyring({"a": key("sa-of-this-test")}).find(text, NOW) is None


@pytest.mark.parametrize(
    ("headers", "secret"),
    [
        ([], None),
        ([(b"authorization", b"Bearer k")], "k"),
        ([(b"authorization", b"bearer  k ")], "k"),
        ([(b"x-api-key", b"k")], "k"),
        ([(b"x-api-key", b"k"), (b"authorization", b"Bearer k")], "k"),
        ([(b"authorization", b"Bearer ")], None),
        ([(b"x-api-key", b"\xff\xfe")], "\udcff\udcfe"),
    ],
)
def test_the_secret_is_where_the_clients_of_each_api_put_it(
    headers: list[tuple[bytes, bytes]], secret: str | None
) -> None:
    assert secret_of(headers) == secret


@pytest.mark.parametrize(
    "headers",
    [
        [(b"authorization", b"Basic YTpi")],
        [(b"authorization", b"k")],
        [(b"x-api-key", b"a"), (b"authorization", b"Bearer b")],
        [(b"x-api-key", b"a"), (b"x-api-key", b"b")],
    ],
)
def test_what_cannot_be_one_key_is_refused_without_telling_it(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(BadCredentials) as caught:
        secret_of(headers)
    assert "YTpi" not in str(caught.value)


def test_a_secret_of_odd_bytes_is_looked_up_without_an_error() -> None:
    secret = secret_of([(b"x-api-key", b"\xff\xfe")])
    assert secret is not None
    assert Keyring({"a": key("sa")}).find(secret, NOW) is None
