"""What became of keys is told by their names, and no secret of theirs."""

import json
from datetime import UTC, datetime

from glm_gateway.access.keys import Key, Keyring, new_key, rotated
from glm_gateway.access.secrets import digest_of
from glm_gateway.audit.keys import MAX_NAMES, key_changes

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)


def a_key(secret: str, group: str | None = None) -> Key:
    return new_key(secret, NOW, group=group, role=None, expires=None)


def names(before: dict[str, Key] | None, after: dict[str, Key]) -> dict[str, object]:
    found = key_changes(None if before is None else Keyring(before), Keyring(after))
    return {what: found[what] for what in ("added", "removed", "rotated", "changed") if found[what]}


def test_all_keys_have_come_when_nothing_was_read_before() -> None:
    assert names(None, {"b": a_key("1"), "a": a_key("2")}) == {"added": ["a", "b"]}


def test_what_came_went_was_rotated_or_changed_else_is_told_apart() -> None:
    alice = a_key("1")
    before = {"alice": alice, "bob": a_key("2"), "carol": a_key("3"), "dave": a_key("4")}
    after = {"alice": rotated(alice, "5", NOW), "carol": a_key("3", group="g"), "dave": a_key("4"), "eve": a_key("6")}
    assert names(before, after) == {"added": ["eve"], "removed": ["bob"], "rotated": ["alice"], "changed": ["carol"]}


def test_no_hash_of_a_secret_is_told() -> None:
    told = json.dumps(key_changes(None, Keyring({"alice": a_key("glm-secret")})))
    assert digest_of("glm-secret")[:12] not in told


def test_of_many_names_some_are_told_and_the_number_of_all() -> None:
    found = key_changes(None, Keyring({f"k{number}": a_key(str(number)) for number in range(MAX_NAMES + 5)}))
    assert (len(str(found["added"]).split(",")), found["num_added"]) == (MAX_NAMES, MAX_NAMES + 5)
