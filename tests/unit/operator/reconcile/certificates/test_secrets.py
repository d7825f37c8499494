"""What Secrets hold is what was put into them, and what is wrong with one is said without its key."""

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from glm_operator import names
from glm_operator.reconcile.certificates.issue import Pair, Use, key_pem, leaf, new_key, root
from glm_operator.reconcile.certificates.secrets import (
    Authority,
    Unreadable,
    authority_secret,
    host_of_leaf,
    leaf_secret,
    read_authority,
    read_leaf,
    user_reference,
)
from unit.operator.operator_builders import a_body

NOW = datetime(2026, 6, 1, tzinfo=UTC)
HOST = host_of_leaf("chat", "models", Use.WORKERS)


def an_authority(*ages_days: int) -> Authority:
    return Authority([root(new_key(), NOW - timedelta(days=days)) for days in ages_days or (0,)])


def a_secret(authority: Authority) -> dict[str, Any]:
    return authority_secret("models", authority, [user_reference(a_body())])


def a_leaf_secret(authority: Authority, use: Use = Use.WORKERS, host: str = HOST, **how: Any) -> dict[str, Any]:
    pair = leaf(authority.pairs[-1], use, host, new_key(), NOW)
    return leaf_secret(a_body(), use, how.get("pair", pair), authority, NOW)


def test_an_authority_is_read_as_it_was_written() -> None:
    authority = an_authority(400, 1)
    assert read_authority(a_secret(authority)).roots == authority.roots
    without_a_key = authority.only([*authority.roots[1:]])
    assert read_authority(a_secret(without_a_key)).roots == without_a_key.roots


def test_several_deployments_own_an_authority_and_none_controls_it() -> None:
    (owner,) = a_secret(an_authority())["metadata"]["ownerReferences"]
    assert (owner["name"], owner["controller"]) == ("chat", False)


@pytest.mark.parametrize(
    ("item", "value", "said"),
    [
        ("ca.key", None, "ca.key is missing"),
        ("ca.crt", "!", "ca.crt is no base64"),
        ("ca.crt", "bm8=", "cannot be read"),
        ("ca.key", "bm8=", "ca.key has no key of a certificate in ca.crt"),
        ("ca.key", base64.b64encode(key_pem(new_key())).decode(), "ca.key has no key of a certificate in ca.crt"),
    ],
)
def test_an_authority_that_cannot_be_read_says_what_is_wrong_and_no_key(
    item: str, value: str | None, said: str
) -> None:
    secret = a_secret(an_authority())
    secret["data"] = {name: text for name, text in secret["data"].items() if name != item}
    if value is not None:
        secret["data"][item] = value
    with pytest.raises(Unreadable, match=said) as raised:
        read_authority(secret)
    assert "PRIVATE" not in str(raised.value)
    assert "BEGIN" not in str(raised.value)


def test_a_leaf_is_read_with_who_signed_it_and_whom_it_trusts_since_when() -> None:
    authority = an_authority(400, 1)
    found = read_leaf(a_leaf_secret(authority), authority, Use.WORKERS, HOST)
    assert found is not None
    assert found.leaf.signer == authority.pairs[-1].id
    assert found.leaf.trusts == {pair.id for pair in authority.pairs}
    assert found.leaf.trusts_since == NOW
    stranger = read_leaf(a_leaf_secret(an_authority()), authority, Use.WORKERS, HOST)
    assert stranger is not None
    assert stranger.leaf.signer == ""


def test_what_is_for_another_use_or_name_or_no_pair_or_no_certificate_is_none() -> None:
    authority = an_authority()
    other_key = Pair(leaf(authority.pairs[0], Use.WORKERS, HOST, new_key(), NOW).certificate, new_key())
    without_mark, broken, empty = (a_leaf_secret(authority) for _ in range(3))
    del without_mark["metadata"]["annotations"][names.TRUSTED_ANNOTATION]
    broken["data"]["tls.crt"] = "bm8="
    del empty["data"]
    for secret in (
        a_leaf_secret(authority, Use.GATEWAY),
        a_leaf_secret(authority, host="other-worker.models.svc"),
        a_leaf_secret(authority, pair=other_key),
        without_mark,
        broken,
        empty,
    ):
        assert read_leaf(secret, authority, Use.WORKERS, HOST) is None
