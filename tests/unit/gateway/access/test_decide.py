"""Who has a good key is let in by its name; everybody else is told why, in words that clients know."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_edge.errors import anthropic, openai, zai
from glm_edge.errors.failure import Failure
from glm_gateway.access.decide import ANYBODY, OPEN_PATHS, Caller, Mode, decide, tenant_of, unknown_caller
from glm_gateway.access.keys import Hash, Key, Keyring, rotated
from glm_gateway.access.secrets import digest_of

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
CHAT = "/v1/chat/completions"
TENANTS = b"0123456789abcdef"


def key(secret: str, **fields: object) -> Key:
    return Key(hashes=(Hash(sha256=digest_of(secret)),), **fields)  # type: ignore[arg-type]


RING = Keyring(
    {
        "alice": key("sa", group="team", role="developer"),
        "old": key("so", expires=NOW),
        "turning": rotated(key("before"), "after", NOW),
    }
)


def asked(
    secret: str | None, path: str = CHAT, ring: Keyring | None = RING, mode: Mode = Mode.KEYS
) -> Caller | Failure:
    return decide(path, secret, ring, NOW, mode, TENANTS)


def refused(secret: str | None, **how: object) -> Failure:
    found = asked(secret, **how)  # type: ignore[arg-type]
    assert isinstance(found, Failure)
    return found


def test_a_good_key_is_known_by_name_group_role_and_tenant() -> None:
    assert asked("sa") == Caller("alice", "team", "developer", tenant_of("alice", TENANTS))


@pytest.mark.parametrize(
    ("secret", "sentence"),
    [
        (None, "has no API key"),
        ("wrong", "not known here"),
        ("so", "has expired"),
        ("before", "was rotated"),
    ],
)
def test_whoever_is_not_let_in_is_told_why_in_words_of_each_api(secret: str | None, sentence: str) -> None:
    failure = refused(secret)
    assert (failure.status, sentence in failure.message) == (401, True)
    assert openai.error_body(failure)["error"]["code"] == "invalid_api_key"
    assert anthropic.error_body(failure)["error"]["type"] == "authentication_error"
    assert zai.error_body(failure)["error"]["code"] == "1002"


@given(st.text(min_size=1).filter(lambda secret: RING.known(secret) is None))
def test_no_refusal_repeats_a_secret(secret: str) -> None:
    fixed = refused("wrong").message
    assert refused(secret).message == fixed


def test_only_who_has_its_secret_hears_what_became_of_a_key() -> None:
    assert refused("so!") == refused("anything else")
    assert "old" not in refused("so").message


@pytest.mark.parametrize("path", sorted(OPEN_PATHS))
def test_open_paths_ask_for_no_key(path: str) -> None:
    found = asked(None, path=path)
    assert isinstance(found, Caller)
    assert found.name == ANYBODY


@pytest.mark.parametrize("path", ["/v1/usage", "//version", "/v1/models", "//health", "/health/", "/HEALTH", "/pingx"])
def test_every_other_path_asks_for_one_as_it_is_spelled(path: str) -> None:
    assert refused(None, path=path).status == 401


def test_nobody_is_asked_for_a_key_only_where_a_deployment_says_so_by_name() -> None:
    assert isinstance(asked(None, mode=Mode("None")), Caller)
    assert refused(None, mode=Mode("Keys")).status == 401
    for said in ("", "none", None):
        with pytest.raises(ValueError, match="is not a valid Mode"):
            Mode(said)


def test_keys_that_were_never_read_let_nobody_in_and_may_be_read_soon() -> None:
    failure = refused("sa", ring=None)
    assert (failure.status, failure.retry_after_s) == (503, 5)


def test_a_keyring_without_keys_lets_nobody_in() -> None:
    assert refused("sa", ring=Keyring({})).status == 401


@given(st.text(min_size=1, max_size=63), st.text(min_size=1, max_size=63))
def test_a_tenant_is_of_one_key_and_does_not_tell_its_name(one: str, other: str) -> None:
    assert tenant_of(one, TENANTS) == tenant_of(one, TENANTS)
    assert (tenant_of(one, TENANTS) == tenant_of(other, TENANTS)) == (one == other)
    assert tenant_of(one, TENANTS) != tenant_of(one, TENANTS[::-1])
    assert len(tenant_of(one, TENANTS)) == 32


def test_a_tenant_is_the_same_for_every_replica_and_version() -> None:
    assert tenant_of("alice", TENANTS) == "341b64f65ece9c0c65652fe47fef82c9"


def test_a_secret_of_tenants_that_can_be_guessed_is_refused() -> None:
    with pytest.raises(ValueError, match="has 5 bytes; it must have at least 16"):
        tenant_of("alice", b"short")


def test_credentials_that_are_no_single_key_are_a_401_too() -> None:
    assert unknown_caller("the request has two").message == "the request has two"
